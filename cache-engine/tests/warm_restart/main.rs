//! `forebay run` with a cache on a device, stopped and killed and started again: warm where that is
//! right, cold and with the reason where it is not, and never stale.
//!
//! Every wait is for something that the command says; nothing sleeps.

#![cfg(feature = "cli")]

#[path = "../../src/bin/forebay/demo/client.rs"]
#[allow(dead_code, reason = "the demo uses all of it")]
mod client;

mod block_device;
mod encryption;
mod namespace;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdout, Command, Output, Stdio};

use client::Client;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

const LINE: u64 = 16 << 10;
/// Four of the extents that a crash drops as a whole.
const SIZE: u64 = 16 << 20;
const LINES: u64 = SIZE / LINE;
const EXTENT_LINES: u64 = LINES / 4;
/// Begins every 4 KiB of the origins.
const MARK: &[u8] = b"this is not to be found on the cache device: ";

/// A folder with origins, caches and what the host notes.
struct Machine {
    folder: tempfile::TempDir,
    /// How origins are reached that are more than files, by the file with their content.
    addresses: RefCell<BTreeMap<String, String>>,
}

impl Machine {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let machine = Self { folder, addresses: RefCell::default() };
        machine.make_origin("disk");
        machine
    }

    fn make_origin(&self, name: &str) {
        let mut content = vec![0; SIZE as usize];
        for (number, block) in content.chunks_mut(4096).enumerate() {
            block[..MARK.len()].copy_from_slice(MARK);
            block[MARK.len()..][..8].copy_from_slice(&number.to_le_bytes());
        }
        std::fs::write(self.path(name), content).expect("written");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().expect("UTF-8").to_owned()
    }

    /// The URI of an origin.
    fn origin(&self, name: &str) -> String {
        let known = self.addresses.borrow().get(name).cloned();
        known.unwrap_or_else(|| format!("file:{}", self.text(name)))
    }

    /// The origin whose content is in that file is to be reached at `address`.
    fn reach(&self, name: &str, address: String) {
        self.addresses.borrow_mut().insert(name.to_owned(), address);
    }

    fn key(&self, name: &str, digit: char) -> String {
        let half = |digit: char| digit.to_string().repeat(64);
        std::fs::write(self.path(name), half(digit) + &half('0')).expect("written");
        let private = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(self.path(name), private).expect("set");
        format!("file:{}", self.text(name))
    }

    fn command(&self, origin: &str, cache: &str, more: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_forebay"));
        let export = format!("nbd+unix:///x?socket={}", self.text("socket"));
        command
            .args(["run", "--origin", &self.origin(origin), "--export", &export])
            .args(["--cache", &format!("file:{}", self.text(cache)), "--stats", "json"])
            .args(["--state-dir", &self.text("state"), "--set", "sequential-cutoff=never"])
            .args(["--set", "fill-width=requested"])
            .args(more);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn start(&self, origin: &str, cache: &str, more: &[&str]) -> Run {
        let sized = [&["--cache-size", "128M"], more].concat();
        let mut child = self.command(origin, cache, &sized).spawn().expect("it starts");
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        let stderr = BufReader::new(child.stderr.take().expect("piped"));
        let mut run = Run { child, stdout, stderr, said: String::new(), client: None };
        let mut line = String::new();
        run.stdout.read_line(&mut line).expect("readable");
        if !line.starts_with("ready ") {
            run.stderr.read_to_string(&mut run.said).expect("readable");
            panic!("not ready: {}", run.said);
        }
        run.client = Some(Client::connect(&self.path("socket"), "x").expect("connects"));
        run
    }

    /// Starts, has every line read, and stops in order; until all is cached, for lines are not
    /// stored while there are too many records to be written. The cache is large enough that no
    /// set of lines overflows.
    fn fill(&self, origin: &str, cache: &str, more: &[&str]) {
        let mut last = Default::default();
        for _ in 0..100 {
            let mut run = self.start(origin, cache, more);
            // It starts cold, or is warm: what is not loaded yet is a miss.
            run.wait_until_it_says("the cache ");
            run.read_lines(&self.path(origin));
            last = run.stop();
            if last.0["read_hits"] == LINES {
                return;
            }
        }
        panic!("never all of it: {last:?}");
    }

    /// Starts, waits until the cache is warm, and reads every line: how many were hits.
    fn warm_hits(&self, origin: &str, cache: &str, more: &[&str]) -> u64 {
        let mut run = self.start(origin, cache, more);
        run.wait_until_it_says("the cache is warm");
        run.read_lines(&self.path(origin));
        let (counters, _) = run.stop();
        assert_eq!(counters["start"], "warm", "{counters}");
        counters["read_hits"].as_u64().expect("a number")
    }

    /// Starts and reads every line: it must be cold, and say why in these words.
    #[track_caller]
    fn assert_cold(&self, origin: &str, cache: &str, more: &[&str], why: &str) {
        let mut run = self.start(origin, cache, more);
        run.read_lines(&self.path(origin));
        let (counters, said) = run.stop();
        assert_eq!((&counters["start"], &counters["read_hits"]), (&"cold".into(), &0.into()));
        assert!(said.contains("the cache starts cold: ") && said.contains(why), "{why}: {said}");
        assert!(counters["cold_reason"].as_str().is_some_and(|text| text.contains(why)));
    }
}

/// A running command with a client.
struct Run {
    child: Child,
    stdout: BufReader<ChildStdout>,
    stderr: BufReader<ChildStderr>,
    said: String,
    client: Option<Client>,
}

impl Run {
    fn client(&mut self) -> &mut Client {
        self.client.as_mut().expect("connected")
    }

    fn exchange(&mut self, cookie: u64) {
        let client = self.client();
        client.send().expect("sent");
        let reply = client.reply().expect("answered");
        assert_eq!((reply.cookie, reply.error), (cookie, 0));
    }

    /// Reads every line; each must be what the origin has.
    fn read_lines(&mut self, origin: &Path) {
        let content = std::fs::read(origin).expect("there");
        let mut bytes = vec![0; LINE as usize];
        for (line, expected) in content.chunks_exact(LINE as usize).enumerate() {
            let cookie = line as u64;
            self.client().read(cookie, cookie * LINE, LINE as u32);
            self.exchange(cookie);
            self.client().data(&mut bytes).expect("received");
            assert!(bytes == expected, "line {line} is stale");
        }
    }

    fn wait_until_it_says(&mut self, words: &str) {
        while !self.said.contains(words) {
            let count = self.stderr.read_line(&mut self.said).expect("readable");
            assert!(count > 0, "it ended without `{words}`: {}", self.said);
        }
    }

    /// Ends it in order: its counters, and what it said.
    fn stop(self) -> (Value, String) {
        let (mut whole, said) = self.stop_whole();
        (whole["volumes"][0].take(), said)
    }

    fn stop_whole(mut self) -> (Value, String) {
        self.client.take().expect("connected").disconnect().expect("sent");
        kill_process(Pid::from_child(&self.child), Signal::TERM).expect("it runs");
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest).expect("readable");
        self.stderr.read_to_string(&mut self.said).expect("readable");
        assert!(self.child.wait().expect("it ends").success(), "{}", self.said);
        let said = std::mem::take(&mut self.said);
        assert!(!said.contains("not stopped in order, its"), "{said}");
        (serde_json::from_str(rest.trim()).expect("JSON"), said)
    }

    fn kill(mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it ends");
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        // Only when a test has failed: whoever has ended already cannot be killed.
        let _ = self.child.kill();
    }
}

fn forebay(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_forebay")).args(arguments).output().expect("it starts")
}

#[test]
fn a_clean_restart_is_warm_and_asks_the_origin_for_nothing() {
    let machine = Machine::new();
    machine.fill("disk", "cache", &[]);
    let (cache, origin) = (machine.text("cache"), format!("file:{}", machine.text("disk")));
    let shown = forebay(&["cache", "inspect", &cache, "--json"]);
    let shown: Value = serde_json::from_slice(&shown.stdout).expect("JSON");
    assert_eq!(
        (&shown["state"], &shown["volumes"][0]["name"]),
        (&"clean".into(), &"volume".into())
    );
    let checked = forebay(&["cache", "check", &cache, "--origin", &origin, "--json"]);
    let checked: Value = serde_json::from_slice(&checked.stdout).expect("JSON");
    assert_eq!((&checked["damage"]["count"], &checked["lines"]), (&0.into(), &LINES.into()));
    for _ in 0..2 {
        assert_eq!(machine.warm_hits("disk", "cache", &[]), LINES);
    }
}

#[test]
fn a_killed_cache_is_warm_but_for_the_extents_that_were_written() {
    let machine = Machine::new();
    let promise = ["--generation", "1"];
    machine.fill("disk", "cache", &promise);
    let mut run = machine.start("disk", "cache", &promise);
    run.wait_until_it_says("the cache is warm");
    for line in (0..EXTENT_LINES).step_by(3) {
        run.client().write(line, line * LINE, &[line as u8; LINE as usize]);
        run.exchange(line);
    }
    // Some are still on their way when it dies.
    for line in 0..8 {
        run.client().write(line, line * LINE, &[0xEE; 4096]);
    }
    run.client().send().expect("sent");
    run.kill();
    let shown = forebay(&["cache", "inspect", &machine.text("cache"), "--json"]);
    let shown: Value = serde_json::from_slice(&shown.stdout).expect("JSON");
    assert_eq!(shown["state"], "in use");
    assert!(forebay(&["cache", "check", &machine.text("cache")]).status.success());
    assert_eq!(machine.warm_hits("disk", "cache", &promise), LINES - EXTENT_LINES);
    machine.fill("disk", "cache", &promise);
    machine.assert_cold("disk", "cache", &["--generation", "2"], "somebody else wrote");
    machine.assert_cold("disk", "cache", &[], "the cache was filled under 2");
}

#[test]
fn a_killed_cache_of_a_file_is_cold_without_a_promise_if_it_wrote() {
    let machine = Machine::new();
    machine.fill("disk", "cache", &[]);
    let mut run = machine.start("disk", "cache", &[]);
    run.client().write(1, 0, &[7; 4096]);
    run.exchange(1);
    run.kill();
    machine.assert_cold("disk", "cache", &[], "somebody else wrote");
    machine.fill("disk", "cache", &["--generation", "1"]);
    machine.start("disk", "cache", &["--generation", "1", "--verify", "never"]).kill();
    let never = ["--generation", "1", "--verify", "never"];
    machine.assert_cold("disk", "cache", &never, "was not stopped in order");
}

/// What happens between two runs of one origin and cache, and why the second is cold.
type Between = (fn(&Machine), &'static str);

const BETWEEN: [Between; 6] = [
    (
        |machine| {
            let disk = std::fs::File::options().write(true).open(machine.path("disk"));
            disk.expect("opens").set_len(SIZE / 2).expect("shrunk");
        },
        "it was resized",
    ),
    (
        |machine| {
            let disk = std::fs::File::options().write(true).open(machine.path("disk"));
            disk.expect("opens").write_all_at(b"behind its back", 5 << 20).expect("written");
        },
        "somebody else wrote",
    ),
    (
        |machine| {
            std::fs::copy(machine.path("cache"), machine.path("old")).expect("copied");
            machine.fill("disk", "cache", &[]);
            std::fs::rename(machine.path("old"), machine.path("cache")).expect("renamed");
        },
        "it is an older copy",
    ),
    (
        |machine| {
            std::fs::copy(machine.path("cache"), machine.path("clone")).expect("copied");
            assert_eq!(machine.warm_hits("disk", "clone", &[]), LINES, "as good as the other");
        },
        "it is an older copy",
    ),
    (|machine| machine.fill("disk", "another", &[]), "the origin's last cache was"),
    (
        |machine| std::fs::remove_dir_all(machine.path("state")).expect("removed"),
        "this host has no record of the origin's last cache",
    ),
];

#[test]
fn a_cache_that_may_have_missed_writes_is_cold_and_says_why() {
    for (between, why) in BETWEEN {
        let machine = Machine::new();
        machine.fill("disk", "cache", &[]);
        between(&machine);
        machine.assert_cold("disk", "cache", &[], why);
    }
}

#[test]
fn swapped_caches_are_cold() {
    let machine = Machine::new();
    machine.make_origin("other");
    machine.fill("disk", "cache", &[]);
    machine.fill("other", "its", &[]);
    machine.assert_cold("disk", "its", &[], "the cache was filled from file device");
    machine.assert_cold("other", "cache", &[], "the cache was filled from file device");
}

#[track_caller]
fn refusal(mut command: Command, words: &[&str]) {
    let output = command.output().expect("it starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && !said.contains("panicked"), "{said}");
    assert!(words.iter().all(|words| said.contains(words)), "{words:?}: {said}");
}

#[test]
fn what_does_not_suit_the_cache_that_is_there_is_said() {
    let machine = Machine::new();
    machine.fill("disk", "cache", &[]);
    let run = machine.start("disk", "cache", &["--line-size", "16k"]);
    run.stop();
    let other = machine.command("disk", "cache", &["--line-size", "4k"]);
    refusal(other, &["line size 4k", "has lines of 16k", "--force-format"]);
    let mut sized = machine.command("disk", "cache", &["--cache-size", "1GiB"]);
    let mut child = sized.spawn().expect("it starts");
    let mut stderr = BufReader::new(child.stderr.take().expect("piped"));
    let mut said = String::new();
    stderr.read_line(&mut said).expect("readable");
    child.kill().expect("it runs");
    child.wait().expect("it ends");
    assert!(said.contains("--cache-size 1GiB") && said.contains("has 128MiB"), "{said}");
    std::fs::write(machine.path("file"), "").expect("written");
    let nowhere = machine.text("file/state");
    let mut unwritable = Command::new(env!("CARGO_BIN_EXE_forebay"));
    let (origin, cache) = (machine.text("disk"), machine.text("cache"));
    unwritable
        .args(["run", "--export", "nbd://127.0.0.1:0/x", "--origin", &format!("file:{origin}")])
        .args(["--cache", &format!("file:{cache}"), "--state-dir", &nowhere]);
    refusal(unwritable, &[&nowhere, "name another with --state-dir"]);
    let forced = machine.start("disk", "cache", &["--line-size", "4k", "--force-format"]);
    let (whole, said) = forced.stop_whole();
    assert!(said.contains("formatted by force with lines of 4k"), "{said}");
    assert_eq!(whole["cache"]["line_size"], 4096);
}
