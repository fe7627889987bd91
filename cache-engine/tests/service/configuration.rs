//! The configuration file as an operator sees it.

use super::{Machine, command, refusal};

#[track_caller]
fn refused(machine: &Machine, text: &str, more: &[&str], code: i32, expected: &[&str]) {
    let path = machine.text("forebay.toml");
    std::fs::write(&path, text).expect("written");
    let output = command(&[&["run", "--config", &path], more].concat()).output();
    refusal(&output.expect("it ends"), code, expected);
}

#[test]
fn mistakes_are_told_with_file_key_and_value() {
    let machine = Machine::new(&["a"]);
    let file = machine.text("forebay.toml");
    let right = machine.head("cache") + &machine.volume("a", "");
    let unknown = right.clone() + "sise = 1\n";
    refused(&machine, &unknown, &[], 2, &[&file, "unknown field `sise`", "line "]);
    let twice = right.clone() + &machine.volume("a", "");
    refused(&machine, &twice, &[], 2, &[&file, "volume 'a': there is one of that name"]);
    let same = right.clone()
        + &machine.volume("b", "").replace(&machine.origin("b"), &machine.origin("a"));
    refused(&machine, &same, &[], 2, &[&file, "volume 'b': origin", "that of volume 'a' already"]);
    for flag in [
        &["--origin", "memory:1M", "--export", "nbd://h/x"][..],
        &["--cache", "memory:"],
        &["--control", "x"],
        &["--name", "x"],
    ] {
        refused(&machine, &right, flag, 2, &["cannot be used with"]);
    }
    refused(&machine, "", &[], 2, &[&file, "there is no volume, and no control socket"]);
    let missing = command(&["run", "--config", &machine.text("none")]).output().expect("it ends");
    refusal(&missing, 1, &["none"]);
    assert!(!machine.path("cache").exists(), "nothing was opened or made");
}

#[test]
fn a_volume_whose_origin_can_not_be_opened_fails_the_start_and_the_others_are_left_in_order() {
    let machine = Machine::new(&["a"]);
    let volumes = machine.volumes(&["a"], "");
    let service = machine.start(&(machine.head("cache") + &volumes));
    service.fill("a", &super::content("a"));
    service.stop();
    let missing = machine.head("cache") + &volumes + &machine.volume("gone", "");
    refused(&machine, &missing, &[], 1, &["volume 'gone'", &machine.text("gone")]);
    let mut service = machine.start(&(machine.head("cache") + &volumes));
    service.wait_until_it_says("the cache is warm");
    assert_eq!(service.hits("a", &super::content("a")), super::LINES);
    service.stop();
}
