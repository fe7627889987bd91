//! Another cache device under a service.

use std::os::unix::fs::PermissionsExt;

use super::load::Load;
use super::{LINES, Machine, command, content};

#[test]
fn the_cache_device_is_replaced_under_load_and_the_new_one_is_warm_next_time() {
    let machine = Machine::new(&["a", "b"]);
    let key = machine.path("key");
    std::fs::write(&key, "a5".repeat(32) + &"5a".repeat(32)).expect("written");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).expect("set");
    let more = format!("encryption-key = 'file:{}'", key.display());
    let volumes = machine.volume("a", &more) + &machine.volume("b", "");
    let service = machine.start(&(machine.head("old") + &volumes));
    service.fill("b", &content("b"));
    let load = Load::new(content("a"));
    let client = service.client("a");
    let model = std::thread::scope(|scope| {
        let stop = load.stop();
        let running = scope.spawn(|| load.run(client, 4));
        load.let_it_go_on(100);
        let refused = |device: &str, expected: &str| {
            service.refused(&["cache", "replace", device], expected);
        };
        refused(&machine.text("old"), "is the device in use");
        refused(&machine.text("b"), "is the origin of volume 'b'");
        refused(&machine.text("none"), "there is no such file");
        std::fs::write(machine.path("foreign"), vec![7; 64 << 20]).expect("written");
        refused(&machine.text("foreign"), "--force-format to overwrite it");
        let small = ["cache", "replace", &machine.text("small"), "--size", "64k"];
        service.refused(&small, "cache");
        assert_eq!(service.hits("b", &content("b")), LINES, "the old one is in use as before");
        let answer = service.json(&["cache", "replace", &machine.text("new"), "--size", "64M"]);
        assert_eq!(answer, serde_json::json!({"done": {}}));
        load.let_it_go_on(100);
        service.fill("b", &content("b"));
        drop(stop);
        running.join().expect("no request failed")
    });
    service.fill("a", &model);
    assert_eq!(service.json(&["status"])["cache"]["degraded"], false);
    // Nobody holds the old one any more, and it says that it is not to be believed.
    let old = machine.text("old");
    let shown = command(&["cache", "inspect", &old, "--json"]).output().expect("it ends");
    let shown: serde_json::Value = serde_json::from_slice(&shown.stdout).expect("JSON");
    assert_eq!(shown["state"], "degraded");
    let busy = command(&["cache", "inspect", &machine.text("new")]).output().expect("it ends");
    assert!(!busy.status.success(), "the new one is in use");
    let (_, said) = service.stop();
    assert!(!said.contains("failed and is given up"), "{said}");
    let mut service = machine.start(&(machine.head("new") + &volumes));
    service.wait_until_it_says("the cache is warm");
    assert_eq!(service.hits("a", &model), LINES);
    assert_eq!(service.hits("b", &content("b")), LINES);
    service.stop();
    let service = machine.start(&(machine.head("old") + &volumes));
    assert_eq!(service.hits("b", &content("b")), 0, "the old one is not served any more");
    service.stop();
}

#[test]
fn a_cache_in_memory_is_not_replaced() {
    let machine = Machine::new(&["a"]);
    let head = machine.head("x").replace(&machine.origin("x"), "memory:");
    let service = machine.start(&(head + &machine.volumes(&["a"], "")));
    let replace = ["cache", "replace", &machine.text("new"), "--size", "64M"];
    service.refused(&replace, "the cache is in memory");
    service.fill("a", &content("a"));
    service.stop();
}
