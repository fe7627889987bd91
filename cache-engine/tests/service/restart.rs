//! Three volumes on one cache that is stopped, and killed.

use super::load::{Load, write};
use super::{LINE, LINES, Machine, content};

const NAMES: [&str; 3] = ["a", "b", "c"];

#[test]
fn three_volumes_are_warm_after_a_stop() {
    let machine = Machine::new(&NAMES);
    let configuration = machine.head("cache") + &machine.volumes(&NAMES, "");
    let service = machine.start(&configuration);
    NAMES.iter().for_each(|name| service.fill(name, &content(name)));
    service.stop();
    let mut service = machine.start(&configuration);
    service.wait_until_it_says("the cache is warm");
    for name in NAMES {
        assert_eq!(service.hits(name, &content(name)), LINES, "{name}");
    }
    let (statistics, _) = service.stop();
    let volumes = statistics["volumes"].as_array().expect("a list");
    assert!(volumes.iter().all(|volume| volume["start"] == "warm"), "{statistics}");
}

#[test]
fn three_volumes_are_warm_after_a_kill_but_for_what_was_written() {
    let machine = Machine::new(&NAMES);
    let configuration = machine.head("cache") + &machine.volumes(&NAMES, "generation = '1'");
    let service = machine.start(&configuration);
    NAMES.iter().for_each(|name| service.fill(name, &content(name)));
    service.stop();
    let mut service = machine.start(&configuration);
    service.wait_until_it_says("the cache is warm");
    let load = Load::new(content("a"));
    let client = service.client("a");
    std::thread::scope(|scope| {
        let running = scope.spawn(|| load.run_until_cut(client, 6));
        load.let_it_go_on(50);
        write(&mut service.client("b"), LINE, &[9; 4096]);
        service.kill();
        let (model, unanswered) = running.join().expect("never wrong");
        let origin = std::fs::read(machine.path("a")).expect("there");
        for (block, (found, expected)) in origin.chunks(4096).zip(model.chunks(4096)).enumerate() {
            assert!(
                found == expected || Some(block) == unanswered,
                "block {block} was acknowledged"
            );
        }
    });
    let mut service = machine.start(&configuration);
    service.wait_until_it_says("the cache is warm");
    // Volumes of less than an extent: what was written to is dropped as a whole.
    for (name, expected) in [("a", 0), ("b", 0), ("c", LINES)] {
        let origin = std::fs::read(machine.path(name)).expect("there");
        let hits = service.hits(name, &origin);
        assert_eq!(hits, expected, "{name}");
    }
    let (statistics, _) = service.stop();
    let volumes = statistics["volumes"].as_array().expect("a list");
    assert!(volumes.iter().all(|volume| volume["start"] == "warm"), "{statistics}");
}
