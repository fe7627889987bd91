//! Access groups (ANA) of a target that runs, and two targets that serve one subsystem.

use super::{HOST, Machine, SUBSYSTEM, subsystem};

#[test]
fn a_group_is_switched_for_its_namespaces_and_stays_so_after_a_restart() {
    let machine = Machine::new();
    let groups = "access = { 1 = 'optimized', 2 = 'non-optimized' }";
    let file = subsystem(&machine, groups).replace("size = '8M'", "size = '8M'\ngroup = 2");
    let configuration = machine.head() + &file;
    let service = machine.start(&configuration);
    let mut first = service.connect(HOST, SUBSYSTEM, 1).expect("anybody may");
    let mut second = service.connect(HOST, SUBSYSTEM, 2).expect("anybody may");
    first.write(0, 1).expect("written");
    service.told(&["ana", SUBSYSTEM, "1", "inaccessible"]);
    assert!(first.write(0, 2).is_err());
    second.write(0, 2).expect("its group is accessible");
    let shown = service.subsystem(SUBSYSTEM);
    assert_eq!(shown["access_groups"][0]["state"], "inaccessible");
    assert_eq!(shown["access_groups"][1]["state"], "non-optimized");
    service
        .refused(&["ana", SUBSYSTEM, "3", "optimized"], "must be one of the subsystem's, [1, 2]");
    let made =
        service.json(&["create", "a", "--size", "1M", "--subsystem", SUBSYSTEM, "--group", "2"]);
    assert_eq!(made["served"]["namespace_id"], 3);
    let refused = ["create", "b", "--size", "1M", "--subsystem", SUBSYSTEM, "--group", "4"];
    service.refused(&refused, "access group 4: must be one of subsystem");
    assert!(!machine.path("volumes/b.volume").exists(), "refused before anything is made");
    service.kill();
    let service = machine.start(&configuration);
    let shown = service.subsystem(SUBSYSTEM);
    assert_eq!(shown["access_groups"][0]["state"], "inaccessible");
    assert_eq!(shown["namespaces"][2]["access_group"], 2);
    service.told(&["ana", SUBSYSTEM, "1", "optimized"]);
    let mut first = service.connect(HOST, SUBSYSTEM, 1).expect("anybody may");
    first.write(0, 3).expect("written");
    service.stop();
}

#[test]
fn two_targets_serve_one_subsystem_with_controllers_of_their_own() {
    let (one, other) = (Machine::new(), Machine::new());
    let both = "serial = 'S1'\naccess = { 1 = 'optimized' }";
    let first = one.start(&(one.head() + &subsystem(&one, both)));
    let head = format!("controller-id-first = 1000\nport-id-first = 100\n{}", other.head());
    let second = other.start(&(head + &subsystem(&other, both)));
    let mut ids = Vec::new();
    for service in [&first, &second] {
        let _client = service.connect(HOST, SUBSYSTEM, 1).expect("anybody may");
        let associations = service.subsystem(SUBSYSTEM)["associations"].clone();
        ids.push(associations[0]["controller_id"].as_u64().expect("a number"));
    }
    assert_eq!(ids, [1, 1000]);
    first.stop();
    second.stop();
}
