//! What changes while hosts are connected, and how they learn of it.

use super::*;
use crate::spec::feature::{self, Event, event};
use crate::spec::identify::{self, IdentifyNamespace, parse_namespace_list};
use crate::spec::log_page::{
    self, DiscoveryEntry, DiscoveryHeader, ENTRY_LENGTH, HEADER_LENGTH, SubsystemKind,
};
use crate::spec::nqn::DISCOVERY_NQN;
use crate::target::{Hosts, Listener, SecureChannel};

pub(super) fn admin_command(structure: u8, namespace_id: u32) -> AdminCommand {
    AdminCommand::Identify { namespace_id, structure, controller_id: 0, command_set: 0 }
}

pub(super) fn log(page: u8, specific: u8, length: u64) -> AdminCommand {
    let (namespace_id, retain_event, offset, index_offset) = (0, false, 0, false);
    AdminCommand::GetLogPage {
        namespace_id,
        page,
        specific,
        retain_event,
        length,
        offset,
        index_offset,
    }
}

/// Asks to be told of `events`, and leaves `count` requests for them.
pub(super) fn listen_for(host: &mut Host, world: &mut World, events: u32, count: u16) {
    let (namespace_id, feature, save) = (0, feature::ASYNCHRONOUS_EVENTS, false);
    let set = AdminCommand::SetFeatures { namespace_id, feature, save, value: events };
    assert_eq!(host.ask(world, &set, 0).0.status, Status::SUCCESS);
    for id in 1000..1000 + count {
        let entry = AdminCommand::AsynchronousEventRequest.encode(id, Descriptor::NONE);
        host.send(&entry, None, world);
    }
    host.pump(world);
}

/// The events that were told since the last look.
pub(super) fn events(host: &mut Host, world: &mut World) -> Vec<Event> {
    host.pump(world);
    std::iter::from_fn(|| host.completion()).map(|told| Event::parse(told.dword_0())).collect()
}

fn namespace(seed: u8) -> Namespace {
    Namespace::new(Geometry::new(CAPACITY), HostId([seed; 16])).expect("good geometry")
}

fn active(host: &mut Host, world: &mut World) -> Vec<u32> {
    let (_, bytes) = host.ask(world, &admin_command(identify::ACTIVE_NAMESPACES, 0), 4096);
    parse_namespace_list(&bytes.try_into().expect("4096 bytes")).collect()
}

fn changed(host: &mut Host, world: &mut World) -> Vec<u32> {
    let (_, bytes) = host.ask(world, &log(log_page::CHANGED_NAMESPACES, 0, 4096), 4096);
    parse_namespace_list(&bytes.try_into().expect("4096 bytes")).collect()
}

#[test]
fn namespaces_come_and_go_and_an_id_is_not_given_out_twice() {
    let mut world = world();
    let (mut admin, mut io) = Host::pair(&mut world, 16, true);
    listen_for(&mut admin, &mut world, event::NAMESPACE_ATTRIBUTE, 4);
    let third = world.target.add_namespace(0, None, namespace(3)).expect("room");
    assert_eq!(third, NamespaceKey { subsystem: 0, namespace: 2 });
    assert_eq!(events(&mut admin, &mut world), [Event::NAMESPACE_CHANGED]);
    assert_eq!(changed(&mut admin, &mut world), [3]);
    assert_eq!(active(&mut admin, &mut world), [1, 2, 3]);
    assert_eq!(io.read(&mut world, 3, 0, 512).status, Status::SUCCESS);

    world.target.remove_namespace(third).expect("it is there");
    assert_eq!(events(&mut admin, &mut world), [Event::NAMESPACE_CHANGED]);
    assert_eq!(changed(&mut admin, &mut world), [3]);
    assert_eq!(active(&mut admin, &mut world), [1, 2]);
    let gone = io.read(&mut world, 3, 0, 512).status;
    assert_eq!(gone, Status::INVALID_NAMESPACE.do_not_retry());
    let error = world.target.remove_namespace(third).expect_err("gone").to_string();
    assert!(error.contains("no namespace"), "{error}");

    let fourth = world.target.add_namespace(0, None, namespace(3)).expect("room");
    assert_eq!(fourth.namespace, 3, "NSID 4");
    for taken in [1, 3, 4, 0, super::super::NAMESPACE_ID_MAX + 1] {
        let error = world.target.add_namespace(0, Some(taken), namespace(9)).expect_err("taken");
        let expected = format!("the NSID in subsystem {SUBSYSTEM} is {taken}: must be 5 to");
        assert!(error.to_string().starts_with(&expected), "{error}");
    }
    let chosen = world.target.add_namespace(0, Some(700), namespace(9)).expect("free");
    assert_eq!(chosen.namespace, 699);
    assert_eq!(io.read(&mut world, 700, 0, 512).status, Status::SUCCESS);
    assert_eq!(world.asked.last().expect("a request").0, chosen);
    assert_eq!(world.target.subsystems()[0].next_namespace_id(), 701);
}

#[test]
fn a_write_that_waits_for_its_data_does_not_reach_a_namespace_that_has_gone() {
    let mut world = world();
    let (_admin, mut io) = Host::pair(&mut world, 16, true);
    let command = NvmCommand::Write { start: 0, blocks: 64, force_unit_access: false };
    let id = io.id();
    io.send(&command.encode(id, 1, Descriptor::transport(32768)), None, &world);
    io.pump(&mut world);
    let Some(Heard::ReadyToTransfer(wanted)) = io.heard.pop() else { panic!("{:?}", io.heard) };
    world.target.remove_namespace(NamespaceKey { subsystem: 0, namespace: 0 }).expect("there");
    let header = DataHeader {
        command: id,
        transfer_tag: wanted.transfer_tag,
        offset: 0,
        length: 32768,
        last: true,
        success: false,
    };
    io.encoder.push_host_data(&header, &buffer(&world.pool, &[7; 32768]));
    io.pump(&mut world);
    let status = io.completion().expect("an answer").status;
    assert_eq!(status, Status::INVALID_NAMESPACE.do_not_retry());
    assert!(world.asked.is_empty(), "{:?}", world.asked);
}

#[test]
fn a_smaller_namespace_is_seen_and_what_is_behind_its_end_fails() {
    let mut world = world();
    let (mut admin, mut io) = Host::pair(&mut world, 16, true);
    let key = NamespaceKey { subsystem: 0, namespace: 0 };
    world.target.resize(key, Geometry::new(1 << 20)).expect("a good size");
    let (_, bytes) = admin.ask(&mut world, &admin_command(identify::NAMESPACE, 1), 4096);
    let identify = IdentifyNamespace::parse(&bytes.try_into().expect("4096 bytes"));
    assert_eq!(identify.size, (1 << 20) / 512);
    assert_eq!(io.read(&mut world, 1, 2047, 512).status, Status::SUCCESS);
    assert!(io.read(&mut world, 1, 2048, 512).status.is(Status::LBA_OUT_OF_RANGE));
}

#[test]
fn a_removed_subsystem_takes_its_connections_along_and_its_name_is_free() {
    let mut world = world();
    let (mut admin, mut io) = Host::pair(&mut world, 16, true);
    let mut other = Host::admin(&mut world, DISCOVERY_NQN);
    world.target.remove_subsystem(0).expect("it is there");
    for host in [&mut admin, &mut io] {
        host.pump(&mut world);
        assert!(host.connection.is_finished());
    }
    other.pump(&mut world);
    assert!(!other.connection.is_finished(), "another association goes on");
    assert_eq!((world.target.queues_in_use(), world.target.controllers_in_use()), (1, 1));
    assert!(world.target.remove_subsystem(0).is_err());
    let mut late = Host::initialized(&mut world, Digests::default(), 0);
    let refused = late.connect(&mut world, &connect(0, 31), SUBSYSTEM, CONTROLLER_ID_DYNAMIC);
    assert!(refused.status.is(Status::CONNECT_INVALID_PARAMETERS), "{refused:?}");
    let again = Subsystem::new(nqn(SUBSYSTEM), "S2").expect("a serial number");
    assert_eq!(world.target.add_subsystem(again).expect("free"), 1, "a place of its own");
    let mut late = Host::admin(&mut world, SUBSYSTEM);
    assert!(active(&mut late, &mut world).is_empty());
}

#[test]
fn a_namespace_with_smaller_transfers_waits_until_nobody_was_told_of_larger_ones() {
    let mut world = world();
    let small = Geometry { transfer_max: 64 << 10, ..Geometry::new(CAPACITY) };
    let small = Namespace::new(small, HostId([8; 16])).expect("good geometry");
    let mut host = Host::admin(&mut world, SUBSYSTEM);
    let error = world.target.add_namespace(0, None, small.clone()).expect_err("told").to_string();
    assert!(error.contains("largest transfer is 65536: must be at least 1048576"), "{error}");
    host.connection.disconnect(&mut world.target, crate::error::ConnectionError::Closed);
    world.target.add_namespace(0, None, small).expect("nobody was told");
}

#[test]
fn only_hosts_on_the_list_connect_and_one_that_leaves_it_is_ended() {
    let mut world = world();
    let stranger = nqn("nqn.2014-08.com.example:stranger");
    let error = world.target.allow_host(0, &stranger).expect_err("any may").to_string();
    assert!(error.contains("any host may connect"), "{error}");
    let (mut admin, mut io) = Host::pair(&mut world, 16, true);
    world.target.set_hosts(0, Hosts::Listed(vec![nqn(HOST)])).expect("a list");
    admin.pump(&mut world);
    assert!(!admin.connection.is_finished(), "it is on the list");

    let mut late = Host::initialized(&mut world, Digests::default(), 0);
    let data = ConnectData {
        host_id: HostId([9; 16]),
        controller_id: CONTROLLER_ID_DYNAMIC,
        subsystem: nqn(SUBSYSTEM),
        host: stranger.clone(),
    };
    let refused = late.connect_with(&mut world, &connect(0, 31), &data.encode());
    assert_eq!(refused.status, Status::CONNECT_INVALID_HOST.do_not_retry());
    // Without a name it is known by its identifier, which is not on the list either.
    let mut nameless = data.encode();
    nameless[512..768].fill(0);
    let refused = late.connect_with(&mut world, &connect(0, 31), &nameless);
    assert_eq!(refused.status, Status::CONNECT_INVALID_HOST.do_not_retry());
    assert_eq!(refused.dword_0(), 1 << 16 | 512, "the host's name in the data");
    world.target.allow_host(0, &stranger).expect("a list");
    world.target.allow_host(0, &stranger).expect("twice is once");
    let taken = late.connect_with(&mut world, &connect(0, 31), &data.encode());
    assert_eq!(taken.status, Status::SUCCESS);
    world.target.allow_host(0, &Nqn::from_uuid(data.host_id)).expect("a list");
    let mut later = Host::initialized(&mut world, Digests::default(), 0);
    let taken = later.connect_with(&mut world, &connect(0, 31), &nameless);
    assert_eq!(taken.status, Status::SUCCESS);

    world.target.forbid_host(0, &nqn(HOST)).expect("on the list");
    for host in [&mut admin, &mut io] {
        host.pump(&mut world);
        assert!(host.connection.is_finished());
    }
    late.pump(&mut world);
    assert!(!late.connection.is_finished());
    let error = world.target.forbid_host(0, &nqn(HOST)).expect_err("twice").to_string();
    assert!(error.contains(HOST), "{error}");
}

fn discovery_log(host: &mut Host, world: &mut World) -> (DiscoveryHeader, Vec<DiscoveryEntry>) {
    let length = HEADER_LENGTH + 8 * ENTRY_LENGTH;
    let (_, bytes) = host.ask(world, &log(0x70, 0, length as u64), length as u32);
    let (header, rest) = bytes.split_at(HEADER_LENGTH);
    let header = DiscoveryHeader::parse(header.try_into().expect("1024 bytes"));
    let (entries, _) = rest.as_chunks::<ENTRY_LENGTH>();
    (header, entries[..header.records as usize].iter().map(DiscoveryEntry::parse).collect())
}

#[test]
fn the_discovery_log_follows_every_change_and_tells_of_it_once() {
    let settings = Settings { port_id_first: 40, ..Settings::default() };
    let mut world = world_of(settings, Geometry::new(CAPACITY));
    let mut host = Host::admin(&mut world, DISCOVERY_NQN);
    listen_for(&mut host, &mut world, event::DISCOVERY_LOG, 4);
    let (first, second) = (
        Listener { address: LOCAL, port: 4420, channel: SecureChannel::None },
        Listener { address: LOCAL, port: 4421, channel: SecureChannel::None },
    );
    world.target.add_listener(first);
    world.target.add_listener(second);
    assert_eq!(events(&mut host, &mut world), [Event::DISCOVERY_CHANGED], "once until it is read");
    let (before, entries) = discovery_log(&mut host, &mut world);
    let ports: Vec<u16> = entries.iter().map(|entry| entry.port_id).collect();
    assert_eq!(ports, [40, 41]);
    assert_eq!((entries[0].requirements, entries[0].security), (6, 0));
    events(&mut host, &mut world);
    discovery_log(&mut host, &mut world);

    world.target.remove_listener(LOCAL, 4420).expect("told");
    assert_eq!(events(&mut host, &mut world), [Event::DISCOVERY_CHANGED]);
    world
        .target
        .add_referral(Listener { address: LOCAL, port: 8010, channel: SecureChannel::None })
        .expect("an address");
    let (after, entries) = discovery_log(&mut host, &mut world);
    assert!(after.generation > before.generation);
    let ways: Vec<_> = entries
        .iter()
        .map(|entry| (entry.kind, &*entry.service, &*entry.subsystem, entry.port_id))
        .collect();
    let expected = [
        (SubsystemKind::Nvm, "4421", SUBSYSTEM, 41),
        (SubsystemKind::Referral, "8010", DISCOVERY_NQN, 0),
    ];
    assert_eq!(ways, expected, "a listener keeps its port's number");
    let referral = Listener { address: LOCAL, port: 8010, channel: SecureChannel::None };
    assert!(world.target.add_referral(referral).is_err(), "twice");
    world.target.remove_referral(referral).expect("there");
    let nowhere = Listener {
        address: "0.0.0.0".parse().expect("an address"),
        port: 8009,
        channel: SecureChannel::None,
    };
    let error = world.target.add_referral(nowhere).expect_err("nowhere").to_string();
    assert!(error.contains("0.0.0.0:8009"), "{error}");

    world.target.set_hosts(0, Hosts::Listed(Vec::new())).expect("a list");
    assert!(discovery_log(&mut host, &mut world).1.is_empty(), "what it may not connect to");
}

#[test]
fn who_may_connect_decides_what_discovery_tells_and_each_change_of_that_is_told() {
    let mut world = world();
    world.target.add_listener(Listener {
        address: LOCAL,
        port: 4420,
        channel: SecureChannel::None,
    });
    let mut host = Host::admin(&mut world, DISCOVERY_NQN);
    listen_for(&mut host, &mut world, event::DISCOVERY_LOG, 4);
    world.target.set_hosts(0, Hosts::Listed(Vec::new())).expect("a list");
    events(&mut host, &mut world);
    let (before, entries) = discovery_log(&mut host, &mut world);
    assert!(entries.is_empty(), "not for this host");
    let mut generation = before.generation;
    for round in 0..3 {
        for (allowed, count) in [(true, 1), (false, 0)] {
            if allowed {
                world.target.allow_host(0, &nqn(HOST)).expect("a list");
            } else {
                world.target.forbid_host(0, &nqn(HOST)).expect("on the list");
            }
            let told = events(&mut host, &mut world);
            assert_eq!(told, [Event::DISCOVERY_CHANGED], "round {round}");
            listen_for(&mut host, &mut world, event::DISCOVERY_LOG, 1);
            let (header, entries) = discovery_log(&mut host, &mut world);
            assert!(header.generation > generation, "round {round}");
            assert_eq!(entries.len(), count, "round {round}");
            generation = header.generation;
        }
    }
}

#[test]
fn a_thousand_namespaces_are_listed_from_any_one_on() {
    let mut world = world();
    let numbered = |id: u32| {
        let uuid = HostId(u128::from(id).to_be_bytes());
        Namespace::new(Geometry::new(CAPACITY), uuid).expect("good geometry")
    };
    // As many as there may be, and as a list holds.
    let ids: Vec<u32> = [1, 2].into_iter().chain((1..=1022).map(|number| 10 * number)).collect();
    for id in &ids[2..] {
        world.target.add_namespace(0, Some(*id), numbered(*id)).expect("room");
    }
    assert!(world.target.add_namespace(0, None, numbered(9)).is_err(), "one more");
    let mut host = Host::admin(&mut world, SUBSYSTEM);
    for after in [0, 1, 2, 5000, 5005, 10_219, 10_220] {
        let command = admin_command(identify::ACTIVE_NAMESPACES, after);
        let (_, bytes) = host.ask(&mut world, &command, 4096);
        let bytes = bytes.try_into().expect("4096 bytes");
        let listed: Vec<u32> = parse_namespace_list(&bytes).collect();
        let expected: Vec<u32> = ids.iter().copied().filter(|id| *id > after).collect();
        assert_eq!(listed, expected, "after {after}");
    }
}

#[test]
fn a_discovery_service_with_a_name_of_its_own_answers_to_both() {
    let mut world = world();
    let own = "nqn.2014-08.com.example:discovery";
    world.target.set_discovery_name(nqn(own)).expect("a free name");
    world.target.add_discovery_listener(Listener {
        address: LOCAL,
        port: 8009,
        channel: SecureChannel::None,
    });
    for name in [DISCOVERY_NQN, own] {
        let mut host = Host::admin(&mut world, name);
        let (_, bytes) = host.ask(&mut world, &admin_command(identify::CONTROLLER, 0), 4096);
        let controller =
            identify::IdentifyController::parse(&bytes.try_into().expect("4096 bytes"));
        assert_eq!(controller.subsystem, own);
        let (_, entries) = discovery_log(&mut host, &mut world);
        assert_eq!(
            (entries[0].kind, &*entries[0].subsystem),
            (SubsystemKind::CurrentDiscovery, own)
        );
    }
    let taken = Subsystem::new(nqn(own), "S").expect("a serial number");
    assert!(world.target.add_subsystem(taken).is_err());
    assert!(world.target.set_discovery_name(nqn(SUBSYSTEM)).is_err());
    assert!(world.target.set_discovery_name(nqn(DISCOVERY_NQN)).is_err());
}

#[test]
fn pages_are_the_controllers_and_no_namespaces() {
    let mut world = world();
    let mut host = Host::admin(&mut world, SUBSYSTEM);
    for (nsid, status) in [
        (0, Status::SUCCESS),
        (u32::MAX, Status::SUCCESS),
        (1, Status::INVALID_FIELD.do_not_retry()),
    ] {
        let mut command = log(log_page::HEALTH_INFORMATION, 0, 512);
        if let AdminCommand::GetLogPage { namespace_id, .. } = &mut command {
            *namespace_id = nsid;
        }
        assert_eq!(host.ask(&mut world, &command, 512).0.status, status, "NSID {nsid:#x}");
    }
}
