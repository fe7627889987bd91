//! `forebay run --reactors`: many connections to the same volumes, served by several reactors,
//! while volumes come and go, grow, lose their cache device, and the service ends or is killed.
//!
//! Every wait is for something that the command says or clients see; nothing sleeps.

#![cfg(feature = "cli")]

#[path = "../running/mod.rs"]
mod running;

mod load;

use std::ops::Deref;
use std::path::PathBuf;
use std::thread;

use load::Ledger;
use running::client::{self, Client};
use running::{Folder, Running, command, statistics};
use rustix::process::Signal;
use serde_json::Value;

const SIZE: u64 = 8 << 20;
const CLIENTS: u64 = 6;
/// More than any test lets its clients ask for before it stops them.
const UNTIL_TOLD: u64 = u64::MAX;

/// A folder with origins of zeroes, caches, sockets and what the host notes.
struct Machine(Folder);

impl Deref for Machine {
    type Target = Folder;

    fn deref(&self) -> &Folder {
        &self.0
    }
}

impl Machine {
    fn new() -> Self {
        let machine = Self(Folder::new());
        ["one", "two"].iter().for_each(|name| machine.resize(name, SIZE));
        machine
    }

    fn resize(&self, name: &str, size: u64) {
        let file = std::fs::File::options().create(true).append(true).open(self.path(name));
        file.and_then(|file| file.set_len(size)).expect("room");
    }

    /// Serves the volume `one` until it is ready.
    fn serve(&self, more: &[&str]) -> Service<'_> {
        let (origin, export, control) =
            (self.origin("one"), self.export("one"), self.text("control"));
        let run = [
            ["run", "--oversubscribe"],
            ["--origin", &origin],
            ["--name", "one"],
            ["--export", &export],
            ["--control", &control],
            ["--stats", "json"],
        ];
        let running = self.run(&[run.as_flattened(), more].concat(), 1);
        assert!(running.ready[0].starts_with("ready one "), "{:?}", running.ready);
        Service { machine: self, running }
    }

    /// The same with a cache that is smaller than the volume.
    fn serve_cached(&self, reactors: &str, more: &[&str]) -> Service<'_> {
        let (cache, state) = (self.origin("cache"), self.text("state"));
        let cached = [
            ["--reactors", reactors],
            ["--cache", &cache],
            ["--cache-size", "5M"],
            ["--line-size", "4k"],
            ["--state-dir", &state],
            ["--set", "sequential-cutoff=never"],
        ];
        self.serve(&[cached.as_flattened(), more].concat())
    }
}

/// A running service.
struct Service<'machine> {
    machine: &'machine Machine,
    running: Running,
}

impl Deref for Service<'_> {
    type Target = Running;

    fn deref(&self) -> &Running {
        &self.running
    }
}

impl Service<'_> {
    fn clients(&self, export: &str) -> Vec<Client> {
        (0..CLIENTS).map(|_| self.client(export)).collect()
    }

    fn add(&self, name: &str) {
        let (origin, export) = (self.machine.origin(name), self.machine.export(name));
        self.told(&["volume", "add", name, "--origin", &origin, "--export", &export]);
    }

    /// Waits for its end, which is in order; gives its statistics.
    #[track_caller]
    fn ended(self) -> Value {
        statistics(&self.running.ended().0)
    }

    #[track_caller]
    fn end(self) -> Value {
        self.signal(Signal::TERM);
        self.ended()
    }

    /// Nanoseconds of processor time that each of its reactors has had, by name.
    fn reactors(&self) -> Vec<(String, u64)> {
        let tasks = format!("/proc/{}/task", self.id());
        let tasks = std::fs::read_dir(tasks).expect("it runs").map(|task| task.expect("there"));
        let read = |path: PathBuf| std::fs::read_to_string(path).expect("readable");
        let mut reactors: Vec<_> = tasks
            .map(|task| {
                let statistics = read(task.path().join("schedstat"));
                let time = statistics.split(' ').next().expect("three numbers").parse();
                (read(task.path().join("comm")).trim().to_owned(), time.expect("a number"))
            })
            .filter(|(name, _)| name.starts_with("forebay-core-"))
            .collect();
        reactors.sort();
        reactors
    }

    /// How many descriptors of a file the process has.
    fn times_open(&self, name: &str) -> usize {
        let path = self.machine.path(name);
        let open = std::fs::read_dir(format!("/proc/{}/fd", self.id())).expect("it runs");
        let links = open.flatten().filter_map(|one| std::fs::read_link(one.path()).ok());
        links.filter(|link| *link == path).count()
    }
}

/// Runs `during` while clients ask for the volume `export`, and stops them.
fn under_load(service: &Service<'_>, export: &str, ledger: &Ledger, during: impl FnOnce()) {
    struct Stopped<'ledger>(&'ledger Ledger);
    impl Drop for Stopped<'_> {
        fn drop(&mut self) {
            self.0.stop();
        }
    }
    thread::scope(|scope| {
        for (seed, client) in (1..).zip(service.clients(export)) {
            scope.spawn(move || {
                // A client that panics stops the others too.
                let failing = Stopped(ledger);
                ledger.run(client, seed, UNTIL_TOLD);
                std::mem::forget(failing);
            });
        }
        let _stopped = Stopped(ledger);
        ledger.wait_for_more(1000);
        during();
    });
}

fn volume<'value>(statistics: &'value Value, name: &str) -> &'value Value {
    let volumes = statistics["volumes"].as_array();
    volumes.and_then(|all| all.iter().find(|one| one["name"] == name)).unwrap_or(statistics)
}

#[track_caller]
fn assert_counted(statistics: &Value, ledger: &Ledger) {
    let of_volume = volume(statistics, "one");
    let (reads, writes) = ledger.answered();
    assert_eq!(
        (of_volume["reads"].as_u64(), of_volume["writes"].as_u64()),
        (Some(reads), Some(writes))
    );
    for errors in ["origin_errors", "cache_read_errors", "cache_write_errors"] {
        assert_eq!(of_volume[errors], 0, "{errors} in {statistics:#}");
    }
}

fn every_write_is_seen(reactors: &str, more: &[&str]) {
    let machine = Machine::new();
    let ledger = Ledger::new(SIZE);
    let service = match more {
        [] => machine.serve_cached(reactors, &[]),
        more => machine.serve(&[&["--reactors", reactors], more].concat()),
    };
    let helpers = reactors.parse::<usize>().expect("a number") - 1;
    assert_eq!(service.reactors().len(), helpers);
    if more.is_empty() {
        let refused = service.verb(&["miss-ratio"]);
        let errors = String::from_utf8_lossy(&refused.stderr);
        assert!(!refused.status.success() && errors.contains("several reactors"), "{errors}");
    }
    under_load(&service, "one", &ledger, || ledger.wait_for_more(8000));
    for (name, time) in service.reactors() {
        assert!(time > 2_000_000, "{name} has served nobody: {time} ns");
    }
    let statistics = service.end();
    assert_eq!(ledger.unanswered(), 0);
    assert_counted(&statistics, &ledger);
    if more.is_empty() {
        let hits = volume(&statistics, "one")["read_hits"].as_u64().expect("a number");
        assert!(hits > 500, "{statistics:#}");
    }
    ledger.compare(&machine.path("one"));
}

#[test]
fn connections_on_two_reactors_see_every_write() {
    every_write_is_seen("2", &[]);
}

#[test]
fn connections_on_three_reactors_see_every_write() {
    every_write_is_seen("3", &[]);
}

#[test]
fn a_cache_in_memory_is_read_by_all_reactors() {
    let cache = ["--cache", "memory:", "--cache-size", "5M", "--line-size", "4k"];
    every_write_is_seen("3", &cache);
}

#[test]
fn a_volume_without_a_cache_is_served_by_all_reactors() {
    let machine = Machine::new();
    let ledger = Ledger::new(SIZE);
    let service = machine.serve(&["--reactors", "2"]);
    under_load(&service, "one", &ledger, || ledger.wait_for_more(2000));
    assert_counted(&service.end(), &ledger);
    ledger.compare(&machine.path("one"));
}

#[test]
fn a_volume_is_removed_under_load_and_added_again() {
    let machine = Machine::new();
    let (one, two) = (Ledger::new(SIZE), Ledger::new(SIZE));
    let service = machine.serve_cached("2", &[]);
    for round in 1..=2 {
        service.add("two");
        assert_ne!(service.times_open("two"), 0);
        thread::scope(|scope| {
            let (service, one) = (&service, &one);
            let others = (7..).zip([service.client("one"), service.client("one")]);
            let others: Vec<_> = others
                .map(|(seed, client)| scope.spawn(move || one.run(client, seed, 2000)))
                .collect();
            two.go_on();
            under_load(service, "two", &two, || {
                service.told(&["volume", "remove", "two"]);
                assert_eq!(service.times_open("two"), 0, "nobody has it any more");
            });
            others.into_iter().for_each(|other| other.join().expect("sees what was written"));
        });
        assert_eq!(one.answered().0 + one.answered().1, round * 4000, "they were not disturbed");
        two.compare(&machine.path("two"));
        assert!(Client::connect(&machine.path("nbd"), "two").is_err(), "it is gone");
    }
    assert_counted(&service.end(), &one);
}

#[test]
fn a_volume_that_grows_is_larger_at_every_reactor() {
    let machine = Machine::new();
    let service = machine.serve_cached("3", &[]);
    let ledger = Ledger::new(SIZE);
    under_load(&service, "one", &ledger, || {
        machine.resize("one", 2 * SIZE);
        service.told(&["volume", "resize", "one"]);
        ledger.wait_for_more(1000);
    });
    // They are spread over all reactors.
    for mut client in service.clients("one") {
        assert_eq!(client.capacity(), 2 * SIZE);
        client.write(1, 2 * SIZE - 4096, &[1; 4096]);
        client.read(2, 2 * SIZE - 4096, 4096);
        client.send().expect("sent");
        for _ in 0..2 {
            let reply = client.reply().expect("answered");
            assert_eq!(reply.error, 0);
            if reply.cookie == 2 {
                client.data(&mut [0; 4096]).expect("received");
            }
        }
    }
    service.end();
    ledger.compare(&machine.path("one"));
}

#[test]
fn modes_change_and_cache_devices_are_replaced_under_load() {
    let machine = Machine::new();
    let ledger = Ledger::new(SIZE);
    let service = machine.serve_cached("1", &[]);
    let alone = service.times_open("cache");
    service.end();
    let service = machine.serve_cached("2", &[]);
    under_load(&service, "one", &ledger, || {
        // Whoever has clients has heard of the volume.
        assert_eq!(service.times_open("cache"), alone + 1, "each reactor has a queue of it");
        for mode in ["pass-through", "write-around", "write-through"] {
            service.told(&["volume", "mode", "one", mode]);
            ledger.wait_for_more(500);
        }
        for (next, before) in [("next", "cache"), ("cache", "next")] {
            let next = machine.text(next);
            service.told(&["cache", "replace", &next, "--size", "5M", "--force-format"]);
            assert_eq!(service.times_open(before), 0, "no reactor has the old device");
            ledger.wait_for_more(3000);
        }
        // The other reactor opens its queue when it is told, and goes on without one till then.
        for _ in 0..20 {
            if service.times_open("cache") <= alone {
                ledger.wait_for_more(500);
            }
        }
        assert_eq!(service.times_open("cache"), alone + 1, "each reactor has a queue of it again");
    });
    let statistics = service.end();
    assert_eq!(ledger.unanswered(), 0);
    assert_counted(&statistics, &ledger);
    ledger.compare(&machine.path("one"));
}

#[test]
fn a_signal_under_load_ends_in_order() {
    let machine = Machine::new();
    let ledger = Ledger::new(SIZE);
    let service = machine.serve_cached("3", &[]);
    under_load(&service, "one", &ledger, || {
        service.signal(Signal::TERM);
        // Clients end with their connections.
    });
    let statistics = service.ended();
    let counted = |name: &str| volume(&statistics, "one")[name].as_u64().expect("a number");
    let (reads, writes) = ledger.answered();
    assert!(counted("reads") >= reads && counted("writes") >= writes);
    assert!(counted("reads") + counted("writes") <= reads + writes + ledger.unanswered());
    ledger.compare(&machine.path("one"));
}

#[test]
fn what_was_cached_is_warm_after_a_kill_and_right() {
    let machine = Machine::new();
    let ledger = Ledger::new(SIZE);
    for round in 0..3 {
        let service = machine.serve_cached("2", &["--generation", "1"]);
        ledger.go_on();
        under_load(&service, "one", &ledger, || {
            ledger.wait_for_more(3000);
            if round < 2 {
                service.signal(Signal::KILL);
            }
        });
        if round == 2 {
            let statistics = service.end();
            assert_eq!(volume(&statistics, "one")["cold_reason"], Value::Null, "{statistics:#}");
        }
        // A write that was begun and never answered may be there or not, and stays so.
    }
    ledger.compare(&machine.path("one"));
}

#[test]
fn reactors_are_counted_by_cores_unless_asked_otherwise() {
    let run = ["run", "--origin", "memory:1M", "--export", "nbd://127.0.0.1:0/x", "--reactors"];
    for (count, expected) in [
        ("0", "'0' for '--reactors <N>': must be a number from 1 to 64"),
        ("65", "'65' for '--reactors <N>': must be a number from 1 to 64"),
        ("two", "'two' for '--reactors <N>': must be a number from 1 to 64"),
        ("64", "--reactors 64: must be at most "),
    ] {
        let cores = thread::available_parallelism().map_or(1, std::num::NonZero::get);
        if count == "64" && cores >= 64 {
            continue;
        }
        let output = command(&[&run[..], &[count]].concat()).output().expect("it runs");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{errors}");
        assert!(errors.contains(expected), "`{expected}` in {errors}");
    }
}
