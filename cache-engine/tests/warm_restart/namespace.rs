//! Origins behind NVMe/TCP, served by `forebay target`: the same namespace is known again, however
//! its target is reached, and any other is not.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use super::{EXTENT_LINES, LINE, LINES, Machine, SIZE};

const SUBSYSTEM: &str = "nqn.2026-01.io.forebay:disks";

/// A promise that nobody else writes.
const PROMISE: [&str; 2] = ["--generation", "1"];

/// A running target.
struct Target(Child);

impl Target {
    /// Serves these, in this order; the origin `name` is the namespace of that number from now on.
    fn start(machine: &Machine, namespaces: &[&str], reach: &[(&str, u32)]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_forebay"));
        command.args(["target", "--listen", "127.0.0.1:0", "--subsystem", SUBSYSTEM]);
        for namespace in namespaces {
            command.args(["--namespace", namespace]);
        }
        command.current_dir(machine.folder.path()).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut target = Self(command.spawn().expect("it starts"));
        let mut ready = String::new();
        let stdout = target.0.stdout.take().expect("piped");
        BufReader::new(stdout).read_line(&mut ready).expect("readable");
        let words: Vec<_> = ready.split_whitespace().collect();
        let ["ready", _, address] = words[..] else { panic!("not ready: {ready}") };
        for (name, number) in reach {
            // As a host of its own: a test makes no names for the machine.
            let host = "hostnqn=nqn.2026-01.io.forebay:tests";
            let address = format!("nvme+tcp://{address}/{SUBSYSTEM}?nsid={number}&{host}");
            machine.reach(name, address);
        }
        target
    }

    /// Serves the file `disk` alone.
    fn of_disk(machine: &Machine) -> Self {
        Self::start(machine, &["file:disk"], &[("disk", 1)])
    }

    /// Ends it in order.
    fn stop(mut self) {
        kill_process(Pid::from_child(&self.0), Signal::TERM).expect("it runs");
        assert!(self.0.wait().expect("it ends").success());
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        // Whoever has ended already cannot be killed.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_namespace_is_warm_after_stops_and_kills_of_either_side() {
    let machine = Machine::new();
    let target = Target::of_disk(&machine);
    machine.fill("disk", "cache", &PROMISE);
    assert_eq!(machine.warm_hits("disk", "cache", &PROMISE), LINES);
    let mut run = machine.start("disk", "cache", &PROMISE);
    run.wait_until_it_says("the cache is warm");
    for line in (0..EXTENT_LINES).step_by(3) {
        run.client().write(line, line * LINE, &[line as u8; LINE as usize]);
        run.exchange(line);
    }
    run.kill();
    assert_eq!(machine.warm_hits("disk", "cache", &PROMISE), LINES - EXTENT_LINES);
    machine.fill("disk", "cache", &PROMISE);
    target.stop();
    // Another port, and another way to the same file.
    std::os::unix::fs::symlink("disk", machine.path("link")).expect("made");
    let target = Target::start(&machine, &["file:link"], &[("disk", 1)]);
    assert_eq!(machine.warm_hits("disk", "cache", &PROMISE), LINES);
    // Killed, and beside another namespace then, under another number.
    drop(target);
    let _target = Target::start(&machine, &["memory:1M", "file:disk"], &[("disk", 2)]);
    assert_eq!(machine.warm_hits("disk", "cache", &PROMISE), LINES);
}

#[test]
fn a_namespace_is_cold_under_another_promise_and_without_one() {
    let machine = Machine::new();
    let _target = Target::of_disk(&machine);
    machine.fill("disk", "cache", &PROMISE);
    machine.assert_cold("disk", "cache", &["--generation", "2"], "somebody else wrote");
    machine.fill("disk", "cache", &PROMISE);
    machine.assert_cold("disk", "cache", &[], "the origin offers no generation and none was given");
    machine.assert_cold("disk", "cache", &PROMISE, "no generation was known when the cache was");
}

/// What stands between two targets, and why the cache is cold then. The content is what the file
/// `disk` has.
type Between = (fn(&Machine), &'static str);

const OTHER: &str = "the cache was filled from NVMe namespace nguid";

const BETWEEN: [Between; 3] = [
    (
        |machine| {
            // The inode's number may be the same.
            std::fs::remove_file(machine.path("disk")).expect("removed");
            machine.make_origin("disk");
        },
        OTHER,
    ),
    (
        |machine| {
            machine.make_origin("other");
            std::fs::rename(machine.path("other"), machine.path("disk")).expect("renamed");
        },
        OTHER,
    ),
    (
        |machine| {
            let disk = std::fs::File::options().write(true).open(machine.path("disk"));
            disk.expect("opens").set_len(SIZE / 2).expect("shrunk");
        },
        "it was resized",
    ),
];

#[test]
fn another_namespace_at_the_same_address_is_cold_and_so_is_one_of_another_size() {
    for (between, why) in BETWEEN {
        let machine = Machine::new();
        let target = Target::of_disk(&machine);
        machine.fill("disk", "cache", &PROMISE);
        target.stop();
        between(&machine);
        let _target = Target::of_disk(&machine);
        machine.assert_cold("disk", "cache", &PROMISE, why);
    }
}

#[test]
fn namespaces_that_changed_places_and_caches_that_did_are_cold() {
    let machine = Machine::new();
    machine.make_origin("other");
    let both = ["file:disk", "file:other"];
    let target = Target::start(&machine, &both, &[("disk", 1), ("other", 2)]);
    machine.fill("disk", "cache", &PROMISE);
    machine.fill("other", "its", &PROMISE);
    target.stop();
    // The first is the other now: what was cached of the first is not served for it.
    let target = Target::start(&machine, &["file:other", "file:disk"], &[("other", 1)]);
    machine.assert_cold("other", "cache", &PROMISE, OTHER);
    target.stop();
    let _target = Target::start(&machine, &both, &[("disk", 1), ("other", 2)]);
    machine.fill("disk", "cache", &PROMISE);
    machine.assert_cold("disk", "its", &PROMISE, OTHER);
    machine.assert_cold("other", "cache", &PROMISE, OTHER);
    // It was another cache that saw the last writes.
    machine.fill("disk", "third", &PROMISE);
    machine.assert_cold("disk", "cache", &PROMISE, "the cache");
}

#[test]
fn a_namespace_in_memory_is_another_one_after_its_target_was_started_again() {
    let machine = Machine::new();
    std::fs::write(machine.path("zeroes"), vec![0; SIZE as usize]).expect("written");
    let namespace = [&*format!("memory:{SIZE}")];
    let target = Target::start(&machine, &namespace, &[("zeroes", 1)]);
    machine.fill("zeroes", "cache", &PROMISE);
    let mut run = machine.start("zeroes", "cache", &PROMISE);
    run.client().write(1, 0, &[7; LINE as usize]);
    run.exchange(1);
    run.stop();
    target.stop();
    // What was written is lost: the cache must not say that it is still there.
    let _target = Target::start(&machine, &namespace, &[("zeroes", 1)]);
    machine.assert_cold("zeroes", "cache", &PROMISE, OTHER);
}
