//! A service that runs is changed and looked at by the command, as an operator and a script do it.
//!
//! Every wait is for something that the command says; nothing sleeps.

#![cfg(feature = "cli")]

mod running;

use std::io::{BufRead, BufReader};
use std::ops::Deref;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Output;
use std::sync::atomic::{AtomicBool, Ordering};

use running::client::Client;
use running::{Folder, Running, command};
use serde_json::Value;

/// A service `pg` of a test's own, with its export and its control socket in a folder.
struct Service {
    folder: Folder,
    running: Running,
}

impl Deref for Service {
    type Target = Running;

    fn deref(&self) -> &Running {
        &self.running
    }
}

impl Service {
    fn start(origin: &str, more: &[&str]) -> Self {
        Self::start_in(Folder::new(), origin, more)
    }

    fn start_in(folder: Folder, origin: &str, more: &[&str]) -> Self {
        let (export, socket) = (folder.export("x"), folder.text("control"));
        let run = ["run", "--origin", origin, "--name", "pg", "--export", &export];
        let running = folder.run(&[&run[..], &["--control", &socket], more].concat(), 1);
        assert!(running.ready[0].starts_with("ready pg "), "{:?}", running.ready);
        Self { folder, running }
    }

    fn cached(more: &[&str]) -> Self {
        let cache = ["--cache", "memory:", "--cache-size", "8M", "--line-size", "4k"];
        Self::start("memory:16M", &[&cache[..], more].concat())
    }

    fn client(&self) -> Client {
        self.running.client("x")
    }

    /// Ends it in order.
    fn end(self) -> Folder {
        self.running.stop();
        self.folder
    }
}

#[track_caller]
fn refusal(output: &Output, code: i32, expected: &str) {
    running::refusal(output, code, &[expected]);
}

/// Reads `length` bytes, and waits for them.
fn read(client: &mut Client, offset: u64, length: u32) -> Vec<u8> {
    client.read(1, offset, length);
    client.send().expect("sent");
    assert_eq!(client.reply().expect("answered").error, 0);
    let mut bytes = vec![0; length as usize];
    client.data(&mut bytes).expect("received");
    bytes
}

fn write(client: &mut Client, offset: u64, content: &[u8]) {
    client.write(2, offset, content);
    client.send().expect("sent");
    assert_eq!(client.reply().expect("answered").error, 0);
}

/// Writes and reads blocks until told to stop, and compares. How many rounds that were.
fn load(mut client: Client, stop: &AtomicBool) -> u32 {
    let mut model = vec![0; 1024];
    let mut number = 7u64;
    let mut rounds = 0;
    while !stop.load(Ordering::Acquire) {
        rounds += 1;
        let mut next = |below: usize| {
            number = number.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (number >> 33) as usize % below
        };
        let (written, value, looked_at) = (next(1024), next(255) as u8 + 1, next(1024));
        write(&mut client, written as u64 * 4096, &[value; 4096]);
        model[written] = value;
        let bytes = read(&mut client, looked_at as u64 * 4096, 4096);
        assert_eq!(bytes, [model[looked_at]; 4096], "block {looked_at}");
    }
    client.disconnect().expect("sent");
    rounds
}

#[test]
fn a_cache_is_changed_under_load_and_never_wrong() {
    let service = Service::cached(&[]);
    let stop = AtomicBool::new(false);
    let client = service.client();
    std::thread::scope(|scope| {
        let load = scope.spawn(|| load(client, &stop));
        for mode in ["write-around", "pass-through", "write-through"] {
            let told = service.told(&["volume", "mode", "pg", mode]);
            assert!(told.contains(mode), "{told}");
            assert_eq!(service.json(&["status"])["volumes"][0]["mode"], mode);
            service.told(&["volume", "invalidate", "pg"]);
            service.told(&["volume", "invalidate", "pg", "4k-1MiB"]);
            service.told(&["volume", "flush", "pg"]);
        }
        let settings = service.json(&["set", "admission=second-miss", "fill-width=line"]);
        assert_eq!(settings["settings"]["admission"], "second-miss");
        service.refused(&["set", "admission=never", "purge=often"], "purge 'often'");
        let status = service.json(&["status"]);
        assert_eq!(status["cache"]["settings"]["admission"], "second-miss", "all or none");
        assert_eq!(status["cache"]["settings"]["fill-width"], "line");
        stop.store(true, Ordering::Release);
        assert!(load.join().expect("never wrong") > 0);
    });
    let volume = &service.json(&["volume", "list"])[0];
    assert_eq!(volume["statistics"]["origin_errors"], 0);
    assert!(volume["statistics"]["flushes"].as_u64() >= Some(3), "{volume}");
    service.end();
}

#[test]
fn what_was_invalidated_is_read_from_the_origin() {
    let service = Service::cached(&["--set", "admission=always"]);
    let mut client = service.client();
    write(&mut client, 0, &[5; 64 << 10]);
    let misses = |service: &Service| {
        let volume = &service.json(&["status"])["volumes"][0];
        volume["statistics"]["read_misses"].as_u64().expect("a counter")
    };
    read(&mut client, 0, 4096);
    assert_eq!(misses(&service), 0, "the write is cached");
    service.told(&["volume", "invalidate", "pg", "0-32k"]);
    read(&mut client, 32 << 10, 4096);
    assert_eq!(misses(&service), 0, "what is beside it stays");
    assert_eq!(read(&mut client, 0, 4096), [5; 4096]);
    assert_eq!(misses(&service), 1);
    service.refused(&["volume", "invalidate", "pg", "15M-17M"], "end within the 16777216 bytes");
    service.refused(&["volume", "mode", "vm", "write-around"], "volume 'vm': must be one of pg");
    client.disconnect().expect("sent");
    service.end();
}

#[test]
fn status_and_curve_are_for_people_and_for_programs() {
    let service = Service::cached(&[]);
    let mode = std::fs::metadata(service.socket()).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(service.told(&["miss-ratio"]).contains("ask again later"));
    let mut client = service.client();
    for _ in 0..8 {
        (0..64).for_each(|chunk| drop(read(&mut client, chunk << 16, 64 << 10)));
    }
    client.disconnect().expect("sent");
    let status = service.json(&["status"]);
    assert_eq!(status["cache"]["line_size"], 4096);
    assert_eq!(status["cache"]["degraded"], false);
    assert_eq!(status["volumes"][0]["statistics"]["reads"], 512);
    let table = service.told(&["status"]);
    for expected in ["lines of 4.0 KiB", "in memory", "│ pg", "write-through", "admission", "512"]
    {
        assert!(table.contains(expected), "{expected} in {table}");
    }
    let curve = service.json(&["miss-ratio"]);
    let points = curve["points"].as_array().expect("points");
    let last = points.last().expect("a point");
    assert!(last["miss_ratio"].as_f64().is_some_and(|ratio| ratio < 0.5), "{curve}");
    let plot = service.folder.path("curve.svg");
    let told = service.told(&["miss-ratio", "--plot", plot.to_str().expect("UTF-8")]);
    assert!(told.contains("reads missed"), "{told}");
    assert!(std::fs::read_to_string(plot).expect("drawn").contains("</svg>"));
    let mut watch = command(&["status", "--json", "--watch=1"])
        .env("FOREBAY_SOCKET", service.socket())
        .spawn()
        .expect("it starts");
    let lines = BufReader::new(watch.stdout.take().expect("piped")).lines();
    assert_eq!(lines.take(2).filter(|line| line.as_ref().is_ok_and(|l| !l.is_empty())).count(), 2);
    watch.kill().expect("it runs");
    watch.wait().expect("it ends");
    service.end();
}

#[test]
fn a_volume_takes_the_size_that_its_origin_has_and_clients_to_come_see_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let disk = folder.path().join("disk");
    std::fs::write(&disk, vec![7; 4 << 20]).expect("written");
    let origin = format!("file:{}", disk.display());
    let cache = ["--cache", "memory:", "--cache-size", "4M"];
    let service = Service::start(&origin, &cache);
    let file = std::fs::OpenOptions::new().write(true).open(&disk).expect("there");
    assert!(service.told(&["volume", "resize", "pg"]).contains("4.0 MiB as before"));
    file.set_len(1 << 20).expect("shorter");
    let told = service.told(&["volume", "resize", "pg"]);
    assert!(told.contains("1.0 MiB now, 4.0 MiB before"), "{told}");
    assert_eq!(service.client().capacity(), 1 << 20);
    file.set_len(8 << 20).expect("longer");
    assert!(service.told(&["volume", "resize", "pg"]).contains("8.0 MiB now, 1.0 MiB before"));
    service.end();
}

#[test]
fn a_socket_is_taken_once_and_left_to_the_next() {
    let service = Service::cached(&[]);
    let socket = service.socket();
    let path = socket.to_str().expect("UTF-8");
    let export = format!("nbd+unix:///x?socket={}", service.folder.text("other"));
    let run = ["run", "--origin", "memory:1M", "--export", &export, "--control", path];
    refusal(&command(&run).output().expect("it ends"), 1, "another forebay listens there");
    service.told(&["status"]);
    let folder = service.end();
    assert!(!Path::new(path).exists(), "it is removed");
    let status = |arguments: &[&str]| command(arguments).output().expect("it ends");
    refusal(&status(&["status", "--socket", path]), 1, "forebay run --control SOCKET");
    if !rustix::process::geteuid().is_root() {
        refusal(&status(&["status"]), 2, "FOREBAY_SOCKET");
    }
    let Service { folder, running } = Service::start_in(folder, "memory:1M", &[]);
    running.kill();
    assert!(Path::new(path).exists(), "a dead socket");
    let next = Service::start_in(folder, "memory:1M", &[]);
    assert_eq!(next.json(&["status"])["cache"], Value::Null, "its origin is served alone");
    next.refused(&["set", "admission=never"], "start with --cache");
    next.refused(&["volume", "invalidate", "pg"], "without a cache");
    assert!(next.told(&["volume", "flush", "pg"]).contains("durable"));
    next.end();
}

#[test]
fn help_has_examples() {
    for verb in [
        &["status"][..],
        &["set"],
        &["volume", "list"],
        &["volume", "mode"],
        &["volume", "flush"],
        &["volume", "invalidate"],
        &["volume", "resize"],
        &["volume", "set"],
        &["volume", "add"],
        &["volume", "remove"],
        &["cache", "replace"],
        &["volume", "lease"],
        &["miss-ratio"],
    ] {
        let output = command(&[verb, &["--help"]].concat()).output().expect("it ends");
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        assert!(output.status.success() && text.contains("Examples:"), "{verb:?}: {text}");
        assert!(text.contains("FOREBAY_SOCKET"), "{verb:?}: {text}");
    }
    for (arguments, expected) in [
        (&["set", "admission"][..], "must be NAME=VALUE"),
        (&["volume", "mode", "pg", "write-back"], "must be write-through"),
        (&["volume", "invalidate", "pg", "1G"], "must be FROM-TO"),
        (&["volume", "lease", "pg", "--for", "2d"], "from 0s to 24h"),
        (&["status", "--watch=0"], "1..=3600"),
        (&["miss-ratio", "--plot", "x.pdf"], ".svg or .png"),
    ] {
        refusal(&command(arguments).output().expect("it ends"), 2, expected);
    }
}

#[test]
fn a_cache_is_used_while_a_lease_is_held() {
    let service = Service::cached(&["--lease", "0s"]);
    let mut client = service.client();
    let hits = || service.json(&["status"])["volumes"][0]["statistics"]["read_hits"].as_u64();
    let state = || service.json(&["status"])["volumes"][0]["lease"]["state"].clone();
    let mut read_thrice =
        || (0..3).for_each(|_| assert_eq!(read(&mut client, 0, 4096).len(), 4096));
    read_thrice();
    assert_eq!((state(), hits()), ("over".into(), Some(0)), "it waits for the first lease");
    assert!(service.told(&["volume", "list"]).contains("no lease, all requests go to the origin"));
    let lease = ["volume", "lease", "pg"];
    let held = service.json(&[&lease[..], &["--for", "1h"]].concat());
    let left = held["seconds_left"].as_f64().expect("it has an end");
    assert!(held["state"] == "held" && left > 3000.0 && left <= 3600.0, "{held}");
    read_thrice();
    assert_eq!((state(), hits()), ("held".into(), Some(2)));
    // Counted from when it was asked for, and that was at the start of the machine.
    service.refused(&[&lease[..], &["--for", "1ms", "--since", "0"]].concat(), "the lease ended");
    assert!(service.told(&[&lease[..], &["--for", "2h"]].concat()).contains("lease held for 7"));
    let told = service.told(&[&lease[..], &["--release"]].concat());
    assert!(told.contains("pg: no lease"), "{told}");
    read_thrice();
    assert_eq!((state(), hits()), ("over".into(), Some(2)));
    let usage = service.verb(&[&lease[..], &["--for", "1s", "--since", "1e12"]].concat());
    refusal(&usage, 2, "in the future");
    refusal(&service.verb(&lease), 2, "--for");
    service.end();
}
