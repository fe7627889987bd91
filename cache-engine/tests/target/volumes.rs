//! Volumes: made, grown, copied, removed, and there again after a restart.

use std::os::unix::fs::MetadataExt;

use super::{HOST, Machine, OTHER, PREFIX, SUBSYSTEM, subsystem};

const MEBIBYTE: u64 = 1 << 20;

#[test]
fn a_volume_is_made_allowed_written_grown_and_there_after_a_stop_and_a_kill() {
    let machine = Machine::new();
    let configuration = machine.head() + &subsystem(&machine, "");
    let service = machine.start(&configuration);
    let own = format!("{PREFIX}:pg");
    let made = service.json(&["create", "pg", "--size", "16M"]);
    assert_eq!(made["served"]["subsystem"], own);
    assert_eq!(
        (&made["size_bytes"], &made["served"]["namespace_id"]),
        (&(16 * MEBIBYTE).into(), &1.into())
    );
    let file = machine.path("volumes/pg.volume");
    assert_eq!(std::fs::metadata(&file).expect("there").blocks(), 0, "thin");
    assert_eq!(service.json(&["create", "pg", "--size", "16M"]), made, "asked for again");
    service.refused(
        &["create", "pg", "--size", "32M"],
        "there is one of that name already, of 16777216",
    );
    let error = service.connect(HOST, &own, 1).map(|_| ()).expect_err("nobody may");
    assert!(error.contains("Connect Invalid Host"), "{error}");
    service.told(&["allow", "pg", HOST]);
    let mut client = service.connect(HOST, &own, 1).expect("it may");
    assert_eq!(client.capacity(), 16 * MEBIBYTE);
    client.write(4096, 7).expect("written");
    assert_eq!(service.subsystem(&own)["associations"][0]["host"], HOST);

    let grown = service.json(&["resize", "pg", "32M"]);
    assert_eq!(grown["size_bytes"], 32 * MEBIBYTE);
    service.refused(&["resize", "pg", "8M"], "at least 33554432 bytes; volumes do not shrink");
    let mut late = service.connect(HOST, &own, 1).expect("it may");
    assert_eq!(late.capacity(), 32 * MEBIBYTE);
    late.write(32 * MEBIBYTE - 4096, 8).expect("written");
    let before = service.json(&["status"]);
    service.stop();

    for is_killed in [true, false] {
        let service = machine.start(&configuration);
        let status = service.json(&["status"]);
        assert_eq!(status["volumes"], before["volumes"], "the same, with its UUID");
        assert_eq!(status["is_remembered"], true);
        let mut client = service.connect(HOST, &own, 1).expect("it may still");
        assert_eq!(client.read(4096), Ok(vec![7; 4096]));
        assert_eq!(client.read(32 * MEBIBYTE - 4096), Ok(vec![8; 4096]));
        assert!(service.connect(OTHER, &own, 1).is_err(), "and no other");
        if is_killed { service.kill() } else { service.stop() }
    }
}

#[test]
fn a_host_that_is_forbidden_is_cut_off_and_stays_out_after_a_restart() {
    let machine = Machine::new();
    let hosts = format!("hosts = ['{HOST}', '{OTHER}']");
    let configuration = machine.head() + &subsystem(&machine, &hosts);
    let service = machine.start(&configuration);
    let mut client = service.connect(HOST, SUBSYSTEM, 1).expect("it may");
    let mut other = service.connect(OTHER, SUBSYSTEM, 2).expect("it may");
    client.write(0, 1).expect("written");
    service.told(&["forbid", SUBSYSTEM, HOST]);
    assert!(client.read(0).is_err());
    other.write(0, 2).expect("another host goes on");
    service.told(&["forbid", SUBSYSTEM, HOST]);
    service.kill();
    let service = machine.start(&configuration);
    assert!(service.connect(HOST, SUBSYSTEM, 1).is_err());
    assert!(service.connect(OTHER, SUBSYSTEM, 1).is_ok());
    service.stop();
    // Where anybody may connect there is no list to be taken from.
    let open = machine.head() + &subsystem(&machine, "");
    std::fs::remove_file(machine.path("state")).expect("there");
    let service = machine.start(&open);
    service.refused(&["forbid", SUBSYSTEM, HOST], "any host may connect to subsystem");
    service.stop();
}

#[test]
fn a_volume_that_is_deleted_is_gone_and_its_number_is_not_given_out_again() {
    let machine = Machine::new();
    let configuration = machine.head() + &subsystem(&machine, "");
    let service = machine.start(&configuration);
    let create = |service: &super::Service, name| {
        let made = service.json(&["create", name, "--size", "1M", "--subsystem", SUBSYSTEM]);
        made["served"]["namespace_id"].as_u64().expect("a number")
    };
    assert_eq!((create(&service, "a"), create(&service, "b")), (3, 4), "after those of the file");
    let mut client = service.connect(HOST, SUBSYSTEM, 4).expect("anybody may");
    let mut neighbour = service.connect(HOST, SUBSYSTEM, 1).expect("anybody may");
    client.write(0, 1).expect("written");
    service.told(&["delete", "b"]);
    assert!(client.write(0, 1).is_err());
    neighbour.write(0, 2).expect("written");
    assert!(!machine.path("volumes/b.volume").exists());
    service.told(&["delete", "b"]);
    assert_eq!(create(&service, "b"), 5);
    service.told(&["delete", "b"]);
    service.kill();
    let service = machine.start(&configuration);
    assert_eq!(create(&service, "c"), 6, "not even after a restart");
    let own = format!("{PREFIX}:d");
    service.told(&["create", "d", "--size", "1M"]);
    assert!(service.subsystem(&own).is_object());
    service.told(&["delete", "d"]);
    assert!(service.subsystem(&own).is_null(), "one that was made for it goes with it");
    service.stop();
    // A namespace that is configured later, above those of volumes.
    let more = "[[subsystem.namespace]]\ndevice = 'null:1M'\nnsid = 9\n";
    let service = machine.start(&(configuration + more));
    let namespaces = service.subsystem(SUBSYSTEM)["namespaces"].clone();
    let ids: Vec<u64> = namespaces
        .as_array()
        .expect("a list")
        .iter()
        .map(|found| found["namespace_id"].as_u64().expect("a number"))
        .collect();
    assert_eq!(ids, [1, 2, 3, 6, 9]);
    service.stop();
}

#[test]
fn a_removal_that_a_crash_has_interrupted_is_finished_and_a_lost_file_stops_nobody() {
    let machine = Machine::new();
    let configuration = machine.head() + &subsystem(&machine, "");
    let service = machine.start(&configuration);
    for name in ["a", "b", "c"] {
        service.told(&["create", name, "--size", "1M"]);
    }
    service.stop();
    let state = std::fs::read_to_string(machine.path("state")).expect("there");
    // As it is after the first step of deleting `a`, the first in the file.
    std::fs::write(
        machine.path("state"),
        state.replacen("\"is_deleted\": false", "\"is_deleted\": true", 1),
    )
    .expect("written");
    std::fs::remove_file(machine.path("volumes/b.volume")).expect("there");
    let service = machine.start(&configuration);
    assert!(!machine.path("volumes/a.volume").exists());
    let status = service.json(&["status"]);
    let volumes = status["volumes"].as_array().expect("a list");
    let names: Vec<_> =
        volumes.iter().map(|volume| volume["name"].as_str().expect("text")).collect();
    assert_eq!(names, ["b", "c"]);
    assert!(volumes[0]["served"].is_null() && volumes[1]["served"].is_object(), "{status}");
    service.told(&["delete", "b"]);
    service.told(&["create", "b", "--size", "2M"]);
    service.stop();
}

#[test]
fn a_snapshot_keeps_what_was_there_or_says_that_the_file_system_cannot() {
    let machine = Machine::new();
    let service = machine.start(&(machine.head() + &subsystem(&machine, "")));
    service.told(&["create", "a", "--size", "1M", "--subsystem", SUBSYSTEM]);
    let mut client = service.connect(HOST, SUBSYSTEM, 3).expect("anybody may");
    client.write(0, 1).expect("written");
    service.refused(&["snapshot", "x", "y"], "volume 'x': must be one that is there");
    if std::env::var_os("FOREBAY_REFLINK_FOLDER").is_none() {
        let output = service.verb(&["snapshot", "a", "monday"]);
        if !output.status.success() {
            super::refusal(
                &output,
                1,
                "cannot share blocks between files; must be one with reflinks",
            );
            assert!(!machine.path("volumes/monday.volume").exists());
            service.stop();
            eprintln!(
                "skipped: no reflinks here; FOREBAY_REFLINK_FOLDER may name a folder with some"
            );
            return;
        }
    } else {
        service.told(&["snapshot", "a", "monday"]);
    }
    client.write(0, 2).expect("written");
    service.told(&["snapshot", "a", "monday"]);
    let copy = service.json(&[
        "create",
        "b",
        "--from",
        "monday",
        "--size",
        "2M",
        "--subsystem",
        SUBSYSTEM,
    ]);
    assert_eq!(copy["size_bytes"], 2 * MEBIBYTE);
    let mut copied = service.connect(HOST, SUBSYSTEM, 4).expect("anybody may");
    assert_eq!(copied.read(0), Ok(vec![1; 4096]), "as of monday");
    copied.write(0, 3).expect("written");
    assert_eq!(client.read(0), Ok(vec![2; 4096]));
    service.refused(&["create", "c", "--from", "a", "--size", "512k"], "at least 1048576 bytes");
    service.refused(&["create", "monday", "--size", "1M"], "there is one of that name already");
    service.refused(
        &["resize", "monday", "2M"],
        "volume 'monday': must be one that is there and served",
    );
    service.told(&["delete", "monday"]);
    assert!(!machine.path("volumes/monday.volume").exists());
    assert_eq!(copied.read(0), Ok(vec![3; 4096]));
    service.stop();
}
