//! The command as a user and a script see it: arguments, exit codes, ready lines, statistics.
//!
//! Every wait is for something that the command says; nothing sleeps. Real NBD clients have their
//! own tests; here the demo's client is enough.

#![cfg(feature = "cli")]

#[path = "../src/bin/forebay/demo/client.rs"]
#[allow(dead_code, reason = "the demo uses all of it")]
mod client;

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Output, Stdio};

use client::Client;
use rustix::process::{Pid, Signal, kill_process};

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_forebay"));
    // What the host notes of its caches is not to be this machine's.
    command.env("FOREBAY_STATE_DIR", concat!(env!("CARGO_TARGET_TMPDIR"), "/state"));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs to the end. A command that serves instead of ending is ended.
#[track_caller]
fn output(arguments: &[&str]) -> Output {
    let mut child = command(arguments).spawn().expect("the command starts");
    let mut text = String::new();
    let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
    while stdout.read_line(&mut text).expect("readable") > 0 {
        if text.starts_with("ready ") {
            child.kill().expect("it runs");
            child.wait().expect("it ends");
            panic!("{arguments:?}: it serves: {text}");
        }
    }
    let output = child.wait_with_output().expect("it ends");
    Output { stdout: text.into_bytes(), ..output }
}

/// Runs to a failure with `code` that names `expected` on standard error.
#[track_caller]
fn refusal(arguments: &[&str], code: i32, expected: &str) {
    let output = output(arguments);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
    assert!(text.contains(expected), "{arguments:?}: `{expected}` in {text}");
    assert!(output.stdout.is_empty(), "{arguments:?}: standard output is for results");
    assert!(!text.contains("panicked"), "{text}");
}

/// A daemon that is serving.
struct Daemon {
    child: Child,
    stdout: BufReader<ChildStdout>,
}

impl Daemon {
    /// Starts it and takes its ready lines.
    fn start(arguments: &[&str], lines: usize) -> (Self, Vec<String>) {
        let mut child = command(arguments).spawn().expect("the command starts");
        let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
        let mut ready = Vec::new();
        for _ in 0..lines {
            let mut line = String::new();
            stdout.read_line(&mut line).expect("readable");
            if line.is_empty() {
                let output = child.wait_with_output().expect("it ended");
                panic!("not ready: {}", String::from_utf8_lossy(&output.stderr));
            }
            ready.push(line.trim_end().to_owned());
        }
        (Self { child, stdout }, ready)
    }

    /// Takes it away without a word.
    fn kill(mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it ends");
    }

    /// Ends it with `signal`: the rest of standard output, and standard error.
    fn end(mut self, signal: Signal) -> (String, String) {
        kill_process(Pid::from_child(&self.child), signal).expect("it runs");
        let (mut rest, mut errors) = (String::new(), String::new());
        self.stdout.read_to_string(&mut rest).expect("readable");
        let mut stderr = self.child.stderr.take().expect("piped");
        stderr.read_to_string(&mut errors).expect("readable");
        let status = self.child.wait().expect("it ends");
        assert!(status.success(), "{status}: {errors}");
        (rest, errors)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Only when a test has failed: whoever has ended already cannot be killed.
        let _ = self.child.kill();
    }
}

/// A folder of the test's own, and paths in it as text.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).to_str().expect("UTF-8").to_owned()
    }

    fn file(&self, name: &str, content: &[u8]) -> String {
        let path = self.path(name);
        std::fs::write(&path, content).expect("written");
        path
    }

    fn export(&self, name: &str) -> String {
        format!("nbd+unix:///{name}?socket={}", self.path("nbd.sock"))
    }
}

const EXPORT: &str = "nbd://127.0.0.1:0/x";

const NQN: &str = "nqn.2014-08.org.example:cli";

#[test]
fn wrong_usage_is_exit_code_2_and_names_what_would_be_right() {
    for (arguments, expected) in [
        (&["serve"][..], "unrecognized subcommand"),
        (&["run", "--export", EXPORT], "--origin <URI>"),
        (&["run", "--origin", "memory:1M"], "--export <URI>"),
        (&["run", "--origin", "/dev/x", "--export", EXPORT], "did you mean file:/dev/x"),
        (&["run", "--origin", "memory:10MB", "--export", EXPORT], "write MiB"),
        (&["run", "--origin", "null:x", "--export", EXPORT], "whole number"),
        (&["run", "--origin", "memory:1M", "--export", "nbd://"], "host: missing"),
        (&["run", "--origin", "memory:1M", "--export", "x:"], "no scheme"),
        (
            &["run", "--origin", "nvme+tcp://h/nqn.2014-08.x?queues=4", "--export", EXPORT],
            "unknown query key `queues`; known are nsid",
        ),
        (&["target", "--listen", "127.0.0.1:0", "--namespace", "null:1M"], "--subsystem <NQN>"),
        (
            &["target", "--listen", "::1", "--subsystem", NQN, "--namespace", "null:1M"],
            "must be in brackets",
        ),
        (
            &["target", "--listen", "h", "--subsystem", "volume", "--namespace", "null:1M"],
            "starts with",
        ),
        (&["nvme", "discover", "h:port"], "port `port`"),
        (&["nvme", "identify", "file:x"], "must be nvme+tcp://"),
        (&["demo", "--latency", "5"], "such as 0.5ms"),
        (&["demo", "--size", "1M"], "from 32MiB"),
        (&["demo", "--seconds", "0"], "1..="),
    ] {
        refusal(arguments, 2, expected);
    }
    for (more, expected) in [
        (&["--mode", "write-back"][..], "must be write-through, write-around or pass-through"),
        (&["--cache", "memory:", "--line-size", "12k"], "must be 4k, 8k, 16k, 32k or 64k"),
        (&["--cache", "memory:", "--cache-size", "1.5G"], "smaller unit"),
        (&["--cache", "null:1G"], "unknown scheme `null`"),
        (&["--cache-size", "1G"], "--cache <URI>"),
        (&["--name", "a b"], "no spaces"),
        (&["--cache", "memory:", "--generation", ""], "must not be empty"),
        (&["--generation", "1"], "--cache <URI>"),
        (&["--cache", "memory:", "--verify", "later"], "must be never, after-unclean-stop or"),
        (&["--cache", "memory:", "--set", "admission"], "must be NAME=VALUE"),
        (&["--cache", "memory:", "--set", "x=1"], "setting 'x': must be one of admission"),
        (&["--cache", "memory:", "--encryption-key", "5ec2e7"], "must be file:PATH or fd:N"),
        (&["--stats", "xml"], "table, json"),
    ] {
        let run = ["run", "--origin", "memory:1M", "--export", EXPORT];
        refusal(&[&run[..], more].concat(), 2, expected);
    }
}

#[test]
fn help_has_examples_and_goes_to_standard_output() {
    for verb in [
        &["--help"][..],
        &["run", "--help"],
        &["target", "--help"],
        &["nvme", "discover", "--help"],
        &["nvme", "identify", "--help"],
        &["demo", "--help"],
    ] {
        let output = output(verb);
        assert!(output.status.success() && output.stderr.is_empty(), "{verb:?}");
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        assert!(text.contains("Examples:"), "{verb:?}: {text}");
    }
    let text = String::from_utf8(output(&["run", "-h"]).stdout).expect("UTF-8");
    assert!(text.contains("--origin <URI>") && !text.contains("Examples:"), "{text}");
}

#[test]
fn what_cannot_be_served_is_exit_code_1_and_named() {
    let place = Place::new();
    let uri = |path: &str| format!("file:{path}");
    let disk = uri(&place.file("disk", &[0; 1 << 20]));
    let odd = uri(&place.file("odd", &[0; 1000]));
    let other = place.file("other", &[0; 1 << 20]);
    let missing = uri(&place.path("missing"));
    let folder = uri(&place.path(""));
    for (origin, more, expected) in [
        (&missing, &[][..], "missing: must be an existing file or block device"),
        (&folder, &[], "is a directory"),
        (&odd, &[], "multiple of 512"),
        (&disk, &["--cache", &missing], "give --cache-size"),
        (&disk, &["--cache", "memory:"], "give --cache-size"),
        (&disk, &["--cache", "memory:", "--cache-size", "1000"], "multiple of 512"),
        (&disk, &["--cache", "memory:", "--cache-size", "64k"], "65536"),
        (&disk, &["--cache", "memory:", "--cache-size", "65k", "--line-size", "64k"], "cache"),
        (&disk, &["--cache", &uri(&other), "--cache-size", "2M"], "says 2MiB"),
    ] {
        let run = ["run", "--origin", origin, "--export", EXPORT];
        refusal(&[&run[..], more].concat(), 1, expected);
    }
    let taken = format!("nbd+unix:///x?socket={other}");
    for (export, expected) in [(taken.as_str(), "is not a socket"), ("nbd://192.0.2.1:1/x", "192")]
    {
        refusal(&["run", "--origin", "memory:1M", "--export", export], 1, expected);
    }
}

#[test]
fn a_file_is_used_once() {
    let place = Place::new();
    let disk = format!("file:{}", place.file("disk", &[0; 1 << 20]));
    let link = place.path("link");
    std::os::unix::fs::symlink(place.path("disk"), &link).expect("made");
    let run = ["run", "--origin", &disk, "--export", EXPORT];
    for same in [&disk, &format!("file:{link}")] {
        refusal(
            &[&run[..], &["--cache", same]].concat(),
            2,
            "is the origin of volume 'volume' itself",
        );
    }
    let export = place.export("x");
    let (daemon, _) = Daemon::start(&["run", "--origin", &disk, "--export", &export], 1);
    let who = format!("in use: another process holds a lock on it: process {}", daemon.child.id());
    refusal(&run, 1, &who);
    // A cache in front of it does not make it two users' either.
    refusal(&[&run[..], &["--cache", "memory:", "--cache-size", "1M"]].concat(), 1, "in use");
    daemon.end(Signal::TERM);
}

#[test]
fn a_cache_device_is_used_once_and_an_empty_one_is_made_once() {
    let place = Place::new();
    let cache = format!("file:{}", place.path("cache"));
    let export = place.export("x");
    let run = ["run", "--origin", "memory:1M", "--cache", &cache, "--cache-size", "8M"];
    let (daemon, _) = Daemon::start(&[&run[..], &["--export", &export]].concat(), 1);
    let before = std::fs::metadata(place.path("cache")).expect("made").len();
    for size in ["8M", "16M"] {
        let other = ["--cache", &cache, "--cache-size", size, "--export", EXPORT];
        let who = format!("process {} (forebay)", daemon.child.id());
        refusal(&[&["run", "--origin", "memory:2M"], &other[..]].concat(), 1, &who);
    }
    assert_eq!(std::fs::metadata(place.path("cache")).expect("there").len(), before);
    daemon.end(Signal::TERM);
}

#[test]
fn a_foreign_cache_device_is_refused_unless_forced() {
    let place = Place::new();
    let foreign = place.file("cache", &[0xA5; 4 << 20]);
    let cache = format!("file:{foreign}");
    let export = place.export("x");
    let run = ["run", "--origin", "memory:1M", "--export", &export, "--cache", &cache];
    refusal(&run, 1, "--force-format");
    assert!(std::fs::read(&foreign).expect("there") == vec![0xA5; 4 << 20], "left untouched");
    let (daemon, _) = Daemon::start(&[&run[..], &["--force-format"]].concat(), 1);
    let (_, notices) = daemon.end(Signal::TERM);
    assert!(notices.contains("by force") && notices.contains("starts cold"), "{notices}");
    let (daemon, _) = Daemon::start(&run, 1);
    let (_, notices) = daemon.end(Signal::TERM);
    assert!(
        notices.contains("starts cold: the origin has nothing that tells it from others"),
        "{notices}"
    );
}

#[test]
fn ready_lines_name_each_export_and_sigint_ends_with_a_table() {
    let place = Place::new();
    let unix = place.export("a%20b");
    let arguments =
        ["run", "--origin", "memory:1M", "--name", "v", "--export", EXPORT, "--export", &unix];
    let (daemon, ready) = Daemon::start(&arguments, 2);
    let port = ready[0].strip_prefix("ready v nbd://127.0.0.1:").expect(&ready[0]);
    let port = port.strip_suffix("/x").expect(&ready[0]);
    assert_ne!(port.parse::<u16>().expect("a port"), 0);
    assert_eq!(ready[1], format!("ready v {unix}"));
    let socket = place.path("nbd.sock");
    for name in ["x", "a b", ""] {
        let client = Client::connect(Path::new(&socket), name).expect(name);
        assert_eq!(client.capacity(), 1 << 20);
        client.disconnect().expect("sent");
    }
    let (rest, _) = daemon.end(Signal::INT);
    assert!(rest.contains("read bytes") && rest.contains("not cached"), "{rest}");
    assert!(!Path::new(&socket).exists(), "the socket is removed");
}

#[test]
fn two_signals_at_once_are_one() {
    let (daemon, _) = Daemon::start(&["run", "--origin", "memory:1M", "--export", EXPORT], 1);
    kill_process(Pid::from_child(&daemon.child), Signal::TERM).expect("it runs");
    let (rest, _) = daemon.end(Signal::TERM);
    assert!(rest.contains("read bytes"), "it ends in order: {rest}");
}

fn exchange(client: &mut Client, cookie: u64) {
    client.send().expect("sent");
    let reply = client.reply().expect("answered");
    assert_eq!((reply.cookie, reply.error), (cookie, 0));
}

#[test]
fn bytes_reach_the_origin_and_statistics_are_the_last_line() {
    let place = Place::new();
    let disk = place.file("disk", &[7; 1 << 20]);
    let (origin, cache) = (format!("file:{disk}"), format!("file:{}", place.path("cache")));
    let export = place.export("x");
    let run = ["run", "--origin", &origin, "--export", &export, "--stats", "json"];
    let cache = ["--cache", &cache, "--cache-size", "4M", "--line-size", "4k"];
    let (daemon, _) = Daemon::start(&[&run[..], &cache].concat(), 1);
    let mut client = Client::connect(Path::new(&place.path("nbd.sock")), "x").expect("connected");
    client.write(1, 8192, &[9; 4096]);
    exchange(&mut client, 1);
    for (cookie, offset, expected) in [(2, 8192, 9), (3, 0, 7)] {
        let mut bytes = [0; 4096];
        client.read(cookie, offset, 4096);
        exchange(&mut client, cookie);
        client.data(&mut bytes).expect("received");
        assert_eq!(bytes, [expected; 4096]);
    }
    client.flush(4);
    exchange(&mut client, 4);
    client.disconnect().expect("sent");
    let (rest, _) = daemon.end(Signal::TERM);
    let last = rest.lines().last().expect("a line");
    let whole: serde_json::Value = serde_json::from_str(last).expect("JSON");
    assert_eq!(whole["cache"]["line_size"], 4096);
    let value = &whole["volumes"][0];
    for (key, expected) in [
        ("reads", 2),
        ("read_bytes", 8192),
        ("writes", 1),
        ("write_bytes", 4096),
        ("origin_errors", 0),
        ("capacity", 1 << 20),
    ] {
        assert_eq!(value[key], expected, "{key} of {last}");
    }
    assert_eq!(value["mode"], "write-through");
    // Whether the write had reached the cache file before it was read is a matter of time.
    let asked = value["read_hits"].as_u64().zip(value["read_misses"].as_u64());
    assert_eq!(asked.map(|(hits, misses)| hits + misses), Some(2), "{last}");
    let content = std::fs::read(&disk).expect("there");
    let nines = content.iter().filter(|byte| **byte == 9).count();
    assert_eq!((nines, content[8192], content[12287]), (4096, 9, 9));
}

fn json(arguments: &[&str]) -> serde_json::Value {
    let output = output(arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// A target with namespaces, its address, and that of its discovery service.
fn target(namespaces: &[&str]) -> (Daemon, String, String) {
    let mut arguments =
        vec!["target", "--listen", "127.0.0.1:0", "--subsystem", NQN, "--discovery", "[::1]:0"];
    for namespace in namespaces {
        arguments.extend(["--namespace", namespace]);
    }
    let (daemon, ready) = Daemon::start(&arguments, 2);
    let address = ready[0].strip_prefix(&format!("ready {NQN} ")).expect(&ready[0]);
    let discovery = "ready nqn.2014-08.org.nvmexpress.discovery ";
    let discovery = ready[1].strip_prefix(discovery).expect(&ready[1]);
    (daemon, address.to_owned(), discovery.to_owned())
}

#[test]
fn a_target_is_discovered_identified_and_served_with_a_cache() {
    let place = Place::new();
    let disk = place.file("disk", &[7; 1 << 20]);
    let (target, address, discovery) = target(&["memory:2M", &format!("file:{disk}")]);
    let found = json(&["nvme", "discover", &discovery, "--format", "json"]);
    let records = found["records"].as_array().expect("records");
    let record = records.iter().find(|record| record["subnqn"] == NQN).expect("the subsystem");
    let (host, port) = address.split_once(':').expect("a port");
    assert_eq!((&record["traddr"], &record["trsvcid"]), (&host.into(), &port.into()));
    let shown = output(&["nvme", "discover", &discovery]);
    assert!(String::from_utf8_lossy(&shown.stdout).contains(NQN));

    let uri = |namespace: u32| format!("nvme+tcp://{address}/{NQN}?nsid={namespace}&ddgst=on");
    let found = json(&["nvme", "identify", &uri(1), "--format", "json"]);
    assert_eq!(found["namespace"]["capacity_bytes"], 2 << 20);
    assert_eq!(found["controller"]["namespaces"], serde_json::json!([1, 2]));
    refusal(&["nvme", "identify", &uri(3)], 1, "active are: 1, 2");
    let other = uri(1).replace(NQN, "nqn.2014-08.org.example:other");
    refusal(&["nvme", "identify", &other], 1, "nqn.2014-08.org.example:other");

    let (export, origin) = (place.export("x"), uri(2));
    let cache = ["--cache", "memory:", "--cache-size", "4M", "--stats", "json"];
    let run = ["run", "--origin", &origin, "--export", &export];
    let (daemon, _) = Daemon::start(&[&run[..], &cache].concat(), 1);
    let mut client = Client::connect(Path::new(&place.path("nbd.sock")), "x").expect("connected");
    client.write(1, 512, &[9; 1024]);
    exchange(&mut client, 1);
    let mut bytes = [0; 4096];
    for cookie in [2, 3] {
        client.read(cookie, 0, 4096);
        exchange(&mut client, cookie);
        client.data(&mut bytes).expect("received");
    }
    assert_eq!((bytes[511], bytes[512], bytes[1535], bytes[1536]), (7, 9, 9, 7));
    client.disconnect().expect("sent");
    let (rest, _) = daemon.end(Signal::TERM);
    let value: serde_json::Value = serde_json::from_str(rest.trim()).expect("JSON");
    let value = &value["volumes"][0];
    // A store into memory is done before the next request can arrive.
    assert_eq!((&value["reads"], &value["read_hits"]), (&2.into(), &1.into()));
    assert_eq!(value["hit_ratio"], 0.5);
    target.end(Signal::TERM);
    let content = std::fs::read(&disk).expect("there");
    assert_eq!((content[511], content[512], content[1535], content[1536]), (7, 9, 9, 7));
}

#[test]
fn an_origin_that_vanishes_fails_requests_and_is_named() {
    let place = Place::new();
    let (target, address, _) = target(&["memory:2M"]);
    // Without a time to wait for the origin to come back.
    let origin = format!("nvme+tcp://{address}/{NQN}?fast-io-fail-tmo=0");
    let export = place.export("x");
    let run = ["run", "--origin", &origin, "--export", &export, "--stats", "json"];
    let cache = ["--cache", "memory:", "--cache-size", "4M"];
    let (daemon, _) = Daemon::start(&[&run[..], &cache].concat(), 1);
    let mut client = Client::connect(Path::new(&place.path("nbd.sock")), "x").expect("connected");
    target.kill();
    client.write(1, 0, &[9; 4096]);
    client.send().expect("sent");
    let reply = client.reply().expect("answered");
    assert_eq!(reply.cookie, 1);
    assert_ne!(reply.error, 0, "a write that the origin does not have is not acknowledged");
    client.disconnect().expect("sent");
    let (rest, notices) = daemon.end(Signal::TERM);
    assert!(notices.contains("the origin is lost"), "{notices}");
    let value: serde_json::Value = serde_json::from_str(rest.trim()).expect("JSON");
    let value = &value["volumes"][0];
    assert_eq!(value["origin_errors"], 1, "{value}");
    refusal(&["run", "--origin", &origin, "--export", &export], 1, &address);
}

#[test]
fn two_namespaces_need_two_files() {
    let place = Place::new();
    let disk = format!("file:{}", place.file("disk", &[0; 1 << 20]));
    let target = ["target", "--listen", "127.0.0.1:0", "--subsystem", NQN];
    let namespaces = ["--namespace", &disk, "--namespace", &disk];
    refusal(&[&target[..], &namespaces].concat(), 2, "is another namespace already");
    let missing = format!("file:{}", place.path("missing"));
    refusal(&[&target[..], &["--namespace", &missing]].concat(), 1, &missing);
}

#[test]
fn the_demo_verifies_and_leaves_nothing_behind() {
    let place = Place::new();
    let arguments = ["demo", "--seconds", "1", "--size", "32M", "--latency", "0.1ms", "--format"];
    let output = command(&[&arguments[..], &["json"]].concat())
        .env("TMPDIR", place.0.path())
        .output()
        .expect("it runs");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(value["wrong_bytes"], 0);
    let phases = value["phases"].as_array().expect("phases");
    let names: Vec<_> = phases.iter().filter_map(|phase| phase["name"].as_str()).collect();
    let cached = ["cached, cold", "cached, warm", "cached, 30 % writes"];
    let restarted = ["after a stop", "after a kill"];
    assert_eq!(names, [&["origin alone"][..], &cached, &restarted].concat());
    assert!(phases.iter().all(|phase| phase["reads"].as_u64() > Some(0)), "{value}");
    assert!(phases[2]["hit_ratio"].as_f64() > Some(0.0), "{value}");
    // Whatever was read of the cold one was a miss at first; after a restart it is there.
    let early = |phase: usize| phases[phase]["first_second_hit_ratio"].as_f64().expect("a ratio");
    assert!(early(4) > early(1) && early(5) > early(1), "{value}");
    assert!(phases[3]["writes"].as_u64() > Some(0), "{value}");
    assert_eq!(std::fs::read_dir(place.0.path()).expect("there").count(), 0);
}

#[test]
fn an_interrupted_demo_leaves_nothing_behind() {
    let place = Place::new();
    let mut child = command(&["demo", "--seconds", "600"])
        .env("TMPDIR", place.0.path())
        .spawn()
        .expect("it starts");
    // Its folder is made after it has taken over the signals.
    while std::fs::read_dir(place.0.path()).expect("there").count() == 0 {
        assert_eq!(child.try_wait().expect("a child"), None, "it has ended already");
        std::thread::yield_now();
    }
    kill_process(Pid::from_child(&child), Signal::INT).expect("it runs");
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("interrupted"));
    assert_eq!(std::fs::read_dir(place.0.path()).expect("there").count(), 0);
}
