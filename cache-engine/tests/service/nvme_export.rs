//! Volumes that hosts reach over NVMe/TCP, beside those for NBD clients.

use std::time::Duration;

use nvme_fabric::driver::ConnectOptions;

use super::load::{Load, read, write};
use super::running::host::{self, Host, port};
use super::running::{command, file};
use super::{LINE, LINES, Machine, SIZE, Service, content, refusal};

const SUBSYSTEM: &str = "nqn.2014-08.org.example:a";
const HOST: &str = "nqn.2014-08.org.example:host";

/// How hosts connect. While the others are looked at nobody polls one, which takes as long as the
/// machine is busy: so nothing is to be kept alive.
fn options(port: u16, host: &str, subsystem: &str, namespace_id: u32) -> ConnectOptions {
    let options = host::options(port, host, subsystem, namespace_id);
    ConnectOptions { keep_alive: Duration::ZERO, ..options }
}

/// Of the configuration file: the volume `a` on the origin of its name, as a namespace and for NBD
/// clients.
fn volume(machine: &Machine) -> String {
    let (origin, export) = (machine.origin("a"), machine.export("a"));
    format!(
        "[[volume]]\nname = 'a'\norigin = '{origin}'\ngeneration = '1'\n\
         exports = ['nvme+tcp://127.0.0.1:0/{SUBSYSTEM}?nsid=3', '{export}']\n"
    )
}

fn connect(service: &Service<'_>) -> Host {
    let place = service.ready.iter().find_map(|line| line.strip_prefix("ready a nvme+tcp://"));
    Host::connect(&options(port(place.expect("it is said")), HOST, SUBSYSTEM, 3)).expect("serves")
}

/// Reads all lines as a host, and compares them.
#[track_caller]
fn compare(host: &mut Host, expected: &[u8]) {
    for (line, expected) in expected.chunks(LINE as usize).enumerate() {
        let bytes = host.read_some(line as u64 * LINE, expected.len()).expect("read");
        assert!(bytes == expected, "line {line}");
    }
}

#[test]
fn a_host_and_nbd_clients_use_one_cached_volume_and_it_is_warm_after_a_restart_and_a_crash() {
    let machine = Machine::new(&["a"]);
    let configuration = machine.head("cache") + &volume(&machine);
    let service = machine.start(&configuration);
    let place = service.place("a").to_owned();
    assert!(place.ends_with(&format!("/{SUBSYSTEM}?nsid=3")) && port(&place) != 0, "{place}");
    let mut host = connect(&service);
    assert_eq!(host.capacity(), SIZE);
    let uuid = host.device.identity().descriptors.uuid;
    // Its writes and those of a client are one volume's.
    let load = Load::new(content("a"));
    let mut model = std::thread::scope(|scope| {
        let stop = load.stop();
        let client = service.client("a");
        let loaded = scope.spawn(|| load.run(client, 7));
        load.let_it_go_on(300);
        let mut read_meanwhile = 0;
        while read_meanwhile < 300 {
            host.read(read_meanwhile % 1024 * 4096).expect("read");
            read_meanwhile += 1;
        }
        drop(stop);
        loaded.join().expect("no panic")
    });
    for block in [0, 100, 1023] {
        host.write(block * 4096, 0xAB).expect("written");
        let at = block as usize * 4096;
        model[at..at + 4096].fill(0xAB);
    }
    compare(&mut host, &model);
    let mut client = service.client("a");
    assert_eq!(read(&mut client, 100 * 4096, 4096), [0xAB; 4096]);
    write(&mut client, 8192, &[0xCD; 4096]);
    model[8192..12288].fill(0xCD);
    assert_eq!(host.read(8192).expect("read"), [0xCD; 4096]);
    service.fill("a", &model);
    // A host that is connected is no reason not to end.
    let (statistics, said) = service.stop();
    assert!(statistics.to_string().contains("read_hits"), "{statistics}");
    assert!(!said.contains("last flush failed"), "{said}");
    assert!(file(&machine.path("a")) == model, "all is on the origin");

    for how in ["stopped", "killed"] {
        let mut service = machine.start(&configuration);
        service.wait_until_it_says("the cache is warm");
        let mut host = connect(&service);
        assert_eq!(host.device.identity().descriptors.uuid, uuid, "the same namespace");
        let before = service.counter("a", "read_hits");
        compare(&mut host, &model);
        let hits = service.counter("a", "read_hits") - before;
        // What was under way to the cache device at the crash may be missing.
        assert!(hits == LINES || how == "killed" && hits > LINES / 2, "{how}: {hits} of {LINES}");
        service.kill();
    }
}

#[test]
fn volumes_come_grow_and_go_while_hosts_are_connected() {
    let machine = Machine::new(&["a", "b", "c"]);
    let service = machine.start(&machine.head("cache"));
    let add = |name: &str, export: &str| {
        let origin = machine.origin(name);
        let verb = ["volume", "add", name, "--origin", &origin, "--export", export];
        service.verb(&[&verb[..], &["--json"]].concat())
    };
    let place = |output: std::process::Output| {
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let added: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
        added["exports"][0].as_str().expect("a URI").to_owned()
    };
    let at = place(add("a", &format!("nvme+tcp://127.0.0.1:0/{SUBSYSTEM}")));
    // The second one on the same port is another subsystem.
    let taken = add("b", &at);
    refusal(&taken, 1, &["volume 'b': exports", "the subsystem", "is that of volume 'a' already"]);
    let of = |name: &str, host: &str, place: &str| {
        let options = options(port(place), HOST, &format!("{SUBSYSTEM}{name}"), 1);
        Host::connect(&ConnectOptions { host: host.to_owned(), ..options })
    };
    let elsewhere = place(add("b", &format!("nvme+tcp://127.0.0.2:0/{SUBSYSTEM}b")));
    let beside = format!("nvme+tcp://127.0.0.1:{}/{SUBSYSTEM}c", port(&at));
    assert_eq!(place(add("c", &beside)), beside);
    let mut one = of("", "127.0.0.1", &at).expect("serves");
    let mut other = of("b", "127.0.0.2", &elsewhere).expect("serves");
    let mut third = of("c", "127.0.0.1", &at).expect("serves");
    assert!(of("b", "127.0.0.1", &at).is_err(), "a volume is where it was asked for");
    assert!(of("c", "127.0.0.2", &elsewhere).is_err(), "and nowhere else");
    assert!(other.read(0).expect("read") == content("b")[..4096]);
    assert!(third.read(0).expect("read") == content("c")[..4096]);

    let file = std::fs::File::options().append(true).open(machine.path("a")).expect("there");
    file.set_len(2 * SIZE).expect("room");
    service.told(&["volume", "resize", "a"]);
    // What the host is told it sees with its next request or the one after.
    while one.capacity() == SIZE {
        one.read(0).expect("read");
    }
    assert_eq!(one.capacity(), 2 * SIZE);
    one.write(2 * SIZE - 4096, 9).expect("written");

    service.told(&["volume", "remove", "a"]);
    assert!(one.read(0).is_err(), "it is gone");
    assert!(third.read(4096).expect("it is not") == content("c")[4096..8192]);
    service.told(&["volume", "remove", "c"]);
    assert!(other.read(4096).expect("the other one is not") == content("b")[4096..8192]);
    assert_eq!(super::running::file(&machine.path("a"))[2 * SIZE as usize - 1], 9);
    assert_eq!(place(add("a", &at)), at, "the address is free again");
    let mut one = of("", "127.0.0.1", &at).expect("serves");
    assert_eq!(one.read(2 * SIZE - 4096).expect("read"), [9; 4096]);
    service.stop();
}

#[test]
fn what_makes_no_sense_is_refused_by_name() {
    let machine = Machine::new(&["a"]);
    let (origin, nbd) = (machine.origin("a"), machine.export("a"));
    for (exports, expected) in [
        (["nvme+tcp://127.0.0.1/nqn.2014-08.x?hostnqn=y", &nbd], "only 'nsid' is known"),
        (["nvme+tcp://127.0.0.1/x", &nbd], "NQN"),
        (
            ["nvme+tcp://127.0.0.1:0/nqn.2014-08.x", "nvme+tcp://127.0.0.1:0/nqn.2014-08.y"],
            "a volume is one namespace at one address",
        ),
        (["nvme+tcp://192.0.2.1:0/nqn.2014-08.x", &nbd], "export nvme+tcp://192.0.2.1:0"),
    ] {
        let [one, other] = exports;
        let run = ["run", "--origin", &origin, "--export", one, "--export", other];
        let output = command(&run).output().expect("it ends");
        refusal(&output, output.status.code().filter(|code| *code > 0).unwrap_or(0), &[expected]);
        assert!(!output.status.success(), "{exports:?}");
    }
}
