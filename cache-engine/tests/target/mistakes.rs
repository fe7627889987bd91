//! What cannot be right is refused, and the message says what would be.

use super::{HOST, Machine, PREFIX, SUBSYSTEM, command, refusal, subsystem};

#[test]
fn calls_that_make_no_sense_are_refused_by_field_and_value() {
    let machine = Machine::new();
    let service = machine.start(&(machine.head() + &subsystem(&machine, "")));
    for (arguments, expected) in [
        (&["create", "../x", "--size", "1M"][..], "name '../x': must be 1 to 64 of"),
        (&["create", ".x", "--size", "1M"], "name '.x': must be 1 to 64 of"),
        (&["create", "x", "--size", "1000"], "size 1000: must be a multiple of 4096"),
        (&["create", "x", "--size", "0"], "size 0: must be a multiple of 4096"),
        (&["create", "x", "--from", "y"], "volume 'y': must be one that is there"),
        (&["create", "x", "--size", "1M", "--group", "1"], "access group 1: must be one of"),
        (&["resize", "x", "1M"], "volume 'x': must be one that is there"),
        (&["allow", "x", HOST], "subject 'x': must be the NQN of a subsystem or the name of"),
        (&["ana", SUBSYSTEM, "1", "change"], "has no access groups"),
    ] {
        service.refused(arguments, expected);
    }
    refusal(&service.verb(&["allow", SUBSYSTEM, "x"]), 2, "invalid value 'x' for '<HOST>'");
    refusal(&service.verb(&["ana", SUBSYSTEM, "1", "best"]), 2, "must be one of optimized, ");
    assert_eq!(std::fs::read_dir(machine.path("volumes")).expect("there").count(), 0);
    let volume =
        command(&["volume", "list"]).env("FOREBAY_SOCKET", machine.path("control")).output();
    refusal(&volume.expect("it ends"), 1, "this service is a target and has no cache");
    let text = service.told(&["status"]);
    assert!(text.contains(SUBSYSTEM) && text.contains("memory:1MiB"), "{text}");
    service.stop();
}

#[test]
fn files_that_make_no_sense_stop_the_start_with_their_reason() {
    let machine = Machine::new();
    let thin = std::fs::File::create(machine.path("thin")).expect("made");
    thin.set_len(8 << 20).expect("sized");
    let good = machine.head() + &subsystem(&machine, "");
    let start = |configuration: &str| {
        let path = machine.write(configuration);
        command(&["target", "--config", &path]).output().expect("it ends")
    };
    for (configuration, code, expected) in [
        (good.replace("listen", "listn"), 2, "unknown field `listn`"),
        (good.replace(SUBSYSTEM, "x"), 2, "[[subsystem]] nqn 'x'"),
        (good.replace("/volumes'", "/nowhere'"), 1, "must be a folder that is there"),
        (good.replace("memory:1M", "file:/nowhere/x"), 1, "/nowhere/x"),
        (
            good.replace("memory:1M", &format!("file:{}", machine.text("thin"))),
            1,
            "another namespace's",
        ),
        (format!("controller-id-first = 0\n{good}"), 1, "controller_id_first is 0: must be"),
        (good.clone() + "[limits]\nmemory = '4k'\n", 1, "memory_max is 4096: must be at least"),
    ] {
        refusal(&start(&configuration), code, expected);
    }
    std::fs::write(machine.path("state"), "{\"version\": 9}").expect("written");
    refusal(&start(&good), 1, "version is 9: must be 1");
    std::fs::remove_file(machine.path("state")).expect("there");
    let service = machine.start(&good);
    let made = service.json(&["create", "x", "--size", "1M"]);
    assert_eq!(made["served"]["subsystem"], format!("{PREFIX}:x"));
    // A second process of the same configuration.
    refusal(&start(&good), 1, "in use");
    service.stop();
    let both = ["target", "--config", "x", "--listen", "h"];
    refusal(&command(&both).output().expect("it ends"), 2, "cannot be used with");
}
