//! Leases of several volumes of one service: each has its own, from the configuration file or from
//! when it is added.

use super::{LINES, Machine, command, content};

fn states(service: &super::Service<'_>) -> Vec<(String, String)> {
    let volumes = service.json(&["status"])["volumes"].clone();
    let text = |value: &serde_json::Value| value.as_str().expect("a text").to_owned();
    let volumes = volumes.as_array().expect("a list");
    volumes.iter().map(|one| (text(&one["name"]), text(&one["lease"]["state"]))).collect()
}

fn named(states: &[(&str, &str)]) -> Vec<(String, String)> {
    states.iter().map(|(name, state)| ((*name).to_owned(), (*state).to_owned())).collect()
}

#[test]
fn each_volume_has_its_own_lease_and_a_crash_under_one_is_its_own() {
    let machine = Machine::new(&["a", "b", "c"]);
    let volumes = machine.volume("a", "generation = '1'\nlease = '1h'")
        + &machine.volume("b", "generation = '1'");
    let mut service = machine.start(&(machine.head("cache") + &volumes));
    let (origin, export) = (machine.origin("c"), machine.export("c"));
    let add = ["volume", "add", "c", "--origin", &origin, "--export", &export, "--lease"];
    let add = |time: &str| service.json(&[&add[..], &[time, "--generation", "1"]].concat());
    assert_eq!(add("0s")["start"], "cold");
    assert_eq!(states(&service), named(&[("a", "held"), ("b", "unlimited"), ("c", "over")]));
    assert_eq!((service.hits("c", &content("c")), service.hits("c", &content("c"))), (0, 0));
    service.told(&["volume", "lease", "c", "--for", "1h"]);
    assert_eq!(states(&service)[2].1, "held");
    ["a", "b", "c"].iter().for_each(|name| service.fill(name, &content(name)));
    // Taken out while its lease is held, and back with another: warm; without one: cold.
    service.told(&["volume", "remove", "c"]);
    assert_eq!(add("30m")["start"], "warm");
    assert_eq!(service.hits("c", &content("c")), LINES);
    service.told(&["volume", "remove", "c"]);
    let added = add("0s");
    assert_eq!(
        (&added["start"], &added["cold_reason"]),
        (&"cold".into(), &"no lease on the origin is held yet".into())
    );
    service.wait_until_it_says("volume 'c': no lease is held");
    service.kill();
    let mut service = machine.start(&(machine.head("cache") + &volumes));
    service.wait_until_it_says(
        "volume 'a': the cache starts cold: the cache was last used under a lease",
    );
    service.wait_until_it_says("the cache is warm");
    assert_eq!(service.hits("a", &content("a")), 0);
    assert_eq!(service.hits("b", &content("b")), LINES, "whose lease it was not");
    let (statistics, _) = service.stop();
    let starts: Vec<_> = statistics["volumes"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|one| one["start"].clone())
        .collect();
    assert_eq!(starts, ["cold", "warm"]);
}

#[test]
fn another_cache_device_is_cold_after_a_crash_under_a_lease_and_warm_after_a_stop() {
    for is_stopped in [true, false] {
        let machine = Machine::new(&["a"]);
        let volume = machine.volume("a", "generation = '1'\nlease = '1h'");
        let service = machine.start(&(machine.head("old") + &volume));
        service.fill("a", &content("a"));
        service.told(&["cache", "replace", &machine.text("new"), "--size", "64M"]);
        assert_eq!(states(&service), named(&[("a", "held")]));
        service.fill("a", &content("a"));
        if is_stopped {
            service.stop();
        } else {
            service.kill();
        }
        let service = machine.start(&(machine.head("new") + &volume));
        service.fill("a", &content("a"));
        let (statistics, _) = service.stop();
        let start = if is_stopped { "warm" } else { "cold" };
        assert_eq!(statistics["volumes"][0]["start"], start, "{statistics}");
    }
}

#[test]
fn a_lease_needs_a_cache_and_somebody_to_renew_it() {
    let machine = Machine::new(&["a"]);
    let path = machine.path("forebay.toml");
    for (configuration, expected) in [
        (machine.volume("a", "lease = '1h'"), "lease: means nothing without a [cache]"),
        (machine.head("c") + &machine.volume("a", "lease = '1d'"), "must be a time from 0s to 24h"),
        (
            machine.head("c").replace("control", "#") + &machine.volume("a", "lease = '1h'"),
            "lease: needs a control socket",
        ),
    ] {
        std::fs::write(&path, configuration).expect("written");
        let run = ["run", "--config", &machine.text("forebay.toml")];
        super::refusal(&command(&run).output().expect("it ends"), 2, &["'a'", expected]);
    }
    let service = machine.start(&format!("control = '{}'\n", machine.text("control")));
    let (origin, export) = (machine.origin("a"), machine.export("a"));
    let add = ["volume", "add", "a", "--origin", &origin, "--export", &export, "--lease", "1h"];
    service.refused(&add, "lease mean nothing without a cache");
    service.stop();
}
