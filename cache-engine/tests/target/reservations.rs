//! Reservations that outlive the target, because hosts ask for it (PTPL).

use nvme_fabric::spec::command::ReservationCommand;
use nvme_fabric::spec::command::reservation::{
    acquire_action, persistence_change, register_action,
};
use nvme_fabric::spec::reservation::{AcquireKeys, RegisterKeys, ReservationKind};

use super::running::raw_host::RawHost;
use super::{HOST, Machine, OTHER, PREFIX, SUBSYSTEM, Service, command, refusal, subsystem};

const KEY: u64 = 0xAB;

/// Registers `HOST` and lets it alone write; whether both was done.
fn reserve(service: &Service, nqn: &str, namespace_id: u32, persistence: u8) -> bool {
    let mut host = RawHost::connect(service.port(), HOST, nqn);
    let register = ReservationCommand::Register {
        action: register_action::REGISTER,
        ignore_existing_key: false,
        persistence,
    };
    let acquire = ReservationCommand::Acquire {
        action: acquire_action::ACQUIRE,
        ignore_existing_key: false,
        kind: ReservationKind::WriteExclusive as u8,
    };
    let register_keys = RegisterKeys { current: 0, new: KEY }.encode();
    let acquire_keys = AcquireKeys { current: KEY, preempt: 0 }.encode();
    host.reserve(namespace_id, register, &register_keys) == 0
        && host.reserve(namespace_id, acquire, &acquire_keys) == 0
}

/// Whether each host may write.
#[track_caller]
fn may_write(service: &Service, nqn: &str, namespace_id: u32) -> [bool; 2] {
    [HOST, OTHER].map(|name| {
        let mut host = service.connect(name, nqn, namespace_id).expect("anybody may connect");
        host.write(0, 1).is_ok()
    })
}

fn images(machine: &Machine) -> Vec<std::path::PathBuf> {
    let files = std::fs::read_dir(machine.path("kept")).expect("made");
    let mut files: Vec<_> = files.map(|file| file.expect("there").path()).collect();
    files.sort();
    files
}

#[test]
fn a_reservation_outlives_a_kill_where_that_was_asked_for() {
    let machine = Machine::new();
    let head = format!("reservations = '{}'\n{}", machine.text("kept"), machine.head());
    let configuration = head + &subsystem(&machine, "");
    let service = machine.start(&configuration);
    service.told(&["create", "pg", "--size", "1M", "--subsystem", SUBSYSTEM]);
    service.told(&["create", "vm", "--size", "1M"]);
    let vm = format!("{PREFIX}:vm");
    service.told(&["allow", "vm", HOST]);
    service.told(&["allow", "vm", OTHER]);
    assert!(!reserve(&service, SUBSYSTEM, 1, persistence_change::SET), "nothing of memory lasts");
    assert!(reserve(&service, SUBSYSTEM, 2, persistence_change::SET));
    assert!(reserve(&service, SUBSYSTEM, 3, persistence_change::SET));
    assert!(reserve(&service, &vm, 1, persistence_change::NONE));
    for (nqn, namespace_id) in [(SUBSYSTEM, 2), (SUBSYSTEM, 3), (vm.as_str(), 1)] {
        assert_eq!(may_write(&service, nqn, namespace_id), [true, false], "{nqn} {namespace_id}");
    }
    service.kill();

    let service = machine.start(&configuration);
    assert_eq!(may_write(&service, SUBSYSTEM, 2), [true, false], "a configured namespace");
    assert_eq!(may_write(&service, SUBSYSTEM, 3), [true, false], "a volume that a call made");
    assert_eq!(may_write(&service, &vm, 1), [true, true], "it was not to persist");
    let before = images(&machine);
    service.told(&["delete", "pg"]);
    let left = images(&machine);
    assert_eq!(left.len() + 1, before.len(), "{before:?} and {left:?}");
    service.stop();

    // The image of another namespace, under the name of this one.
    let file = &left[0];
    let kept = std::fs::read_to_string(file).expect("readable");
    assert!(kept.contains("registrant"), "{kept}");
    let uuid = file.file_stem().and_then(|name| name.to_str()).expect("UTF-8");
    let foreign = kept.replace(uuid, "04040404-0404-0404-0404-040404040404");
    let half = &kept[..kept.len() / 2];
    for (text, expected) in [(foreign.as_str(), "must be namespace"), (half, "reservation image: ")]
    {
        std::fs::write(file, text).expect("written");
        let path = machine.write(&configuration);
        let output = command(&["target", "--config", &path]).output().expect("it ends");
        refusal(&output, 1, expected);
        let named = file.to_str().expect("UTF-8");
        refusal(&output, 1, named);
    }
    std::fs::write(file, &kept).expect("written");
    let service = machine.start(&configuration);
    assert_eq!(may_write(&service, SUBSYSTEM, 2), [true, false]);
    service.stop();
}

#[test]
fn a_target_without_a_place_for_reservations_says_that_they_do_not_persist() {
    let machine = Machine::new();
    let configuration = machine.head() + &subsystem(&machine, "");
    let service = machine.start(&configuration);
    assert!(!reserve(&service, SUBSYSTEM, 2, persistence_change::SET));
    assert!(reserve(&service, SUBSYSTEM, 2, persistence_change::NONE));
    service.kill();
    let service = machine.start(&configuration);
    assert_eq!(may_write(&service, SUBSYSTEM, 2), [true, true]);
    service.stop();
}

#[test]
fn a_target_of_arguments_keeps_reservations_too() {
    let machine = Machine::new();
    std::fs::write(machine.path("disk"), [0; 1 << 16]).expect("written");
    let (disk, kept) = (machine.origin("disk"), machine.text("kept"));
    let start = || {
        let run = ["target", "--listen", "127.0.0.1:0", "--subsystem", SUBSYSTEM];
        let more = ["--namespace", &disk, "--reservations", &kept];
        Service::of(machine.run(&[&run[..], &more].concat(), 1))
    };
    let service = start();
    assert!(reserve(&service, SUBSYSTEM, 1, persistence_change::SET));
    service.kill();
    let service = start();
    assert_eq!(may_write(&service, SUBSYSTEM, 1), [true, false]);
    service.stop();
}
