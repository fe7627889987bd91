//! Admin commands, properties, events and discovery.

use super::*;
use crate::spec::feature::{self, Event, NumberOfQueues, event};
use crate::spec::identify::{
    self, ControllerKind, IdentifyController, IdentifyControllerNvm, IdentifyNamespace,
    IndependentNamespace, NamespaceDescriptors, parse_namespace_list,
};
use crate::spec::log_page::{
    self, DiscoveryEntry, DiscoveryHeader, ENTRY_LENGTH, HEADER_LENGTH, SubsystemKind,
};
use crate::spec::nqn::DISCOVERY_NQN;
use crate::spec::property::{
    Capabilities, ControllerStatus, OFFSET_CAPABILITIES, OFFSET_STATUS, OFFSET_VERSION, SIZE_8,
    ShutdownStatus,
};
use crate::target::{Listener, SecureChannel};

fn identify(host: &mut Host, world: &mut World, structure: u8, nsid: u32) -> identify::Structure {
    let (completion, bytes) = host.ask(world, &command(structure, nsid, 0), 4096);
    assert_eq!(completion.status, Status::SUCCESS, "CNS {structure:#x} of {nsid}");
    bytes.try_into().expect("4096 bytes")
}

fn command(structure: u8, namespace_id: u32, command_set: u8) -> AdminCommand {
    AdminCommand::Identify { namespace_id, structure, controller_id: 0, command_set }
}

fn log(page: u8, offset: u64, length: u64, retain_event: bool) -> AdminCommand {
    let (namespace_id, specific, index_offset) = (0, 0, false);
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

fn set(feature: u8, value: u32) -> AdminCommand {
    AdminCommand::SetFeatures { namespace_id: 0, feature, save: false, value }
}

fn get(feature: u8, value: u32) -> AdminCommand {
    AdminCommand::GetFeatures { namespace_id: 0, feature, select: 0, value }
}

#[test]
fn properties_have_their_size() {
    let mut world = world();
    let mut host = Host::admin(&mut world, SUBSYSTEM);
    let mut read =
        |offset, size| host.fabrics(&mut world, &FabricsCommand::PropertyGet { size, offset });
    let capabilities = Capabilities::parse(read(OFFSET_CAPABILITIES, SIZE_8).result);
    assert_eq!(capabilities.queue_entries_max, 127);
    assert_eq!((capabilities.command_sets, capabilities.page_size_min), (1, 0));
    assert_eq!(read(OFFSET_VERSION, SIZE_4).result, 0x0001_0400);
    assert_eq!(read(OFFSET_CONFIGURATION, SIZE_4).result, 0x0046_0001);
    assert_eq!(read(OFFSET_STATUS, SIZE_4).result, 1);
    for (offset, size) in
        [(OFFSET_CAPABILITIES, SIZE_4), (OFFSET_STATUS, SIZE_8), (0x20, SIZE_4), (0x1c, 7)]
    {
        assert_eq!(read(offset, size).status, Status::INVALID_FIELD.do_not_retry());
    }
    let value = 1;
    for (offset, size) in [(OFFSET_CONFIGURATION, SIZE_8), (OFFSET_STATUS, SIZE_4), (4096, 0)] {
        let write = FabricsCommand::PropertySet { size, offset, value };
        assert_eq!(host.fabrics(&mut world, &write).status, Status::INVALID_FIELD.do_not_retry());
    }
}

#[test]
fn properties_are_the_admin_queues() {
    let mut world = world();
    let (_admin, mut io) = Host::pair(&mut world, 16, true);
    let read = FabricsCommand::PropertyGet { size: SIZE_4, offset: OFFSET_STATUS };
    assert!(io.fabrics(&mut world, &read).status.is(Status::INVALID_FIELD));
}

#[test]
fn a_controller_describes_itself() {
    let mut world = world();
    let mut host = Host::admin(&mut world, SUBSYSTEM);
    let bytes = identify(&mut host, &mut world, identify::CONTROLLER, 0);
    let controller = IdentifyController::parse(&bytes);
    assert_eq!(controller.serial_number, "S1");
    assert_eq!(controller.subsystem, SUBSYSTEM);
    assert_eq!(controller.kind, ControllerKind::InputOutput);
    assert_eq!(controller.controller_id, host.controller_id);
    assert_eq!(controller.in_capsule_data_max(), Some(8192));
    assert_eq!(controller.data_transfer_size_max, 8, "1 MiB of 4 KiB pages");
    assert_eq!(controller.keep_alive_granularity, 10);
    assert_eq!((controller.submission_entry_size, controller.completion_entry_size), (0x66, 0x44));
    assert_eq!(controller.commands_max, 128);
    assert_eq!(controller.nvm_commands, 0b1_1010_1101, "all but write uncorrectable");
    assert_eq!((controller.fused_operations, controller.copy_formats), (1, 0b11));
    assert_eq!(controller.atomic_compare_write_unit, 15, "64 KiB of the largest block");
    assert_eq!(controller.abort_limit, 3);
    assert_eq!(controller.volatile_write_cache, 0b101);
    assert!(controller.sgl_support.is_supported());
    assert_eq!(controller.in_capsule_data_offset, 0);
}

#[test]
fn namespaces_describe_themselves() {
    let mut world = world();
    let mut host = Host::admin(&mut world, SUBSYSTEM);
    let mut ask = |structure, nsid| identify(&mut host, &mut world, structure, nsid);
    let first = IdentifyNamespace::parse(&ask(identify::NAMESPACE, 1));
    assert_eq!((first.size, first.format.data_size_log2), (CAPACITY / 512, 9));
    assert_eq!((first.write_granularity, first.attributes), (7, 0));
    let second = IdentifyNamespace::parse(&ask(identify::NAMESPACE, 2));
    assert_eq!((second.size, second.format.data_size_log2), (CAPACITY / 4096, 12));
    assert_eq!(second.attributes, IdentifyNamespace::WRITE_PROTECTED);
    assert_eq!(ask(identify::NAMESPACE, 3), [0; 4096], "inactive");
    let list: Vec<u32> = parse_namespace_list(&ask(identify::ACTIVE_NAMESPACES, 0)).collect();
    assert_eq!(list, [1, 2]);
    assert_eq!(parse_namespace_list(&ask(identify::ACTIVE_NAMESPACES, 1)).count(), 1);
    let descriptors = NamespaceDescriptors::parse(&ask(identify::NAMESPACE_DESCRIPTORS, 2));
    assert_eq!((descriptors.uuid, descriptors.command_set), (Some(HostId([2; 16])), Some(0)));
    let independent = IndependentNamespace::parse(&ask(identify::NAMESPACE_INDEPENDENT, 2));
    assert_eq!((independent.ready, independent.attributes), (true, 1));
    let of_nvm = IdentifyControllerNvm::parse(&ask(identify::CONTROLLER_OF_COMMAND_SET, 0));
    assert_eq!(4096 << of_nvm.write_zeroes_size_max, 65536 * 512);
    assert_eq!(ask(identify::NAMESPACE_OF_COMMAND_SET, 1), [0; 4096]);
}

#[test]
fn identify_refuses_what_there_is_not() {
    let mut world = world();
    let mut host = Host::admin(&mut world, SUBSYSTEM);
    let invalid_namespace = Status::INVALID_NAMESPACE.do_not_retry();
    let invalid_field = Status::INVALID_FIELD.do_not_retry();
    for (structure, nsid, command_set, status) in [
        (identify::NAMESPACE, 0, 0, invalid_namespace),
        (identify::NAMESPACE, u32::MAX, 0, invalid_namespace),
        (identify::NAMESPACE_DESCRIPTORS, 3, 0, invalid_namespace),
        (identify::ACTIVE_NAMESPACES, u32::MAX, 0, invalid_namespace),
        (identify::CONTROLLER_OF_COMMAND_SET, 0, 2, invalid_field),
        (identify::NAMESPACE_OF_COMMAND_SET, 1, 2, invalid_field),
        (0x04, 0, 0, invalid_field),
        (0x1c, 0, 0, invalid_field),
        (0xff, 0, 0, invalid_field),
    ] {
        let (completion, data) = host.ask(&mut world, &command(structure, nsid, command_set), 4096);
        assert_eq!(completion.status, status, "CNS {structure:#x} of {nsid}");
        assert!(data.is_empty());
    }
    let (completion, _) = host.ask(&mut world, &command(1, 0, 0), 2048);
    assert!(completion.status.is(Status::DATA_SGL_LENGTH_INVALID));
    let (completion, _) = host.ask(&mut world, &command(1, 0, 0), 0);
    assert!(completion.status.is(Status::SGL_TYPE_INVALID));
    let (completion, _) = host.ask(&mut world, &AdminCommand::Other(0x80), 0);
    assert!(completion.status.is(Status::INVALID_OPCODE));
}

#[test]
fn features_that_a_host_sets_on_its_way_up() {
    let mut world = world();
    let mut host = Host::admin(&mut world, SUBSYSTEM);
    let asked = NumberOfQueues { submission: 4, completion: 8 }.encode();
    let (completion, _) = host.ask(&mut world, &set(feature::NUMBER_OF_QUEUES, asked), 0);
    assert_eq!(completion.dword_0(), 0x0003_0003, "the fewer of both");
    let asked = NumberOfQueues { submission: 1000, completion: 1000 }.encode();
    let (completion, _) = host.ask(&mut world, &set(feature::NUMBER_OF_QUEUES, asked), 0);
    assert_eq!(completion.dword_0(), 63 << 16 | 63, "no more than there are");
    let (completion, _) = host.ask(&mut world, &set(feature::NUMBER_OF_QUEUES, u32::MAX), 0);
    assert!(completion.status.is(Status::INVALID_FIELD));
    let events = set(feature::ASYNCHRONOUS_EVENTS, event::NAMESPACE_ATTRIBUTE);
    assert_eq!(host.ask(&mut world, &events, 0).0.status, Status::SUCCESS);
    let (completion, _) = host.ask(&mut world, &get(feature::ASYNCHRONOUS_EVENTS, 0), 0);
    assert_eq!(completion.dword_0(), event::NAMESPACE_ATTRIBUTE);
    let events = set(feature::ASYNCHRONOUS_EVENTS, event::DISCOVERY_LOG);
    assert!(host.ask(&mut world, &events, 0).0.status.is(Status::INVALID_FIELD));
    assert_eq!(host.ask(&mut world, &set(feature::KEEP_ALIVE_TIMER, 1500), 0).0.dword_0(), 0);
    let (completion, _) = host.ask(&mut world, &get(feature::KEEP_ALIVE_TIMER, 0), 0);
    assert_eq!(completion.dword_0(), 2000, "rounded up");
    assert_eq!(host.ask(&mut world, &get(feature::VOLATILE_WRITE_CACHE, 0), 0).0.dword_0(), 1);
    let (completion, _) = host.ask(&mut world, &set(feature::VOLATILE_WRITE_CACHE, 0), 0);
    assert!(completion.status.is(Status::FEATURE_NOT_CHANGEABLE));
    let (_, id) = host.ask(&mut world, &get(feature::HOST_IDENTIFIER, 1), 16);
    assert_eq!(id, [9; 16]);
    let (completion, _) = host.ask(&mut world, &set(feature::HOST_IDENTIFIER, 1), 0);
    assert!(completion.status.is(Status::COMMAND_SEQUENCE_ERROR));
    let save = AdminCommand::SetFeatures { namespace_id: 0, feature: 1, save: true, value: 0 };
    assert!(host.ask(&mut world, &save, 0).0.status.is(Status::FEATURE_NOT_SAVEABLE));
    assert!(host.ask(&mut world, &get(0xc0, 0), 0).0.status.is(Status::INVALID_FIELD));
}

#[test]
fn temperature_thresholds_are_there_and_never_crossed() {
    let mut world = world();
    let mut host = Host::admin(&mut world, SUBSYSTEM);
    let feature = feature::TEMPERATURE_THRESHOLD;
    for (selected, default) in [(0, 0xffff), (1 << 20, 0)] {
        let (completion, _) = host.ask(&mut world, &get(feature, selected), 0);
        assert_eq!((completion.status, completion.dword_0()), (Status::SUCCESS, default));
        let (completion, _) = host.ask(&mut world, &set(feature, selected | default), 0);
        assert_eq!(completion.status, Status::SUCCESS, "no change");
        let (completion, _) = host.ask(&mut world, &set(feature, selected | 300), 0);
        assert!(completion.status.is(Status::FEATURE_NOT_CHANGEABLE));
    }
    // A sensor's, and a kind that is reserved.
    for selected in [1 << 16, 0xf << 16, 2 << 20] {
        for command in [get(feature, selected), set(feature, selected)] {
            let (completion, _) = host.ask(&mut world, &command, 0);
            assert!(completion.status.is(Status::INVALID_FIELD), "{selected:#x}: {completion:?}");
        }
    }
}

#[test]
fn a_granted_number_of_queues_binds() {
    let mut world = world();
    let mut admin = Host::admin(&mut world, SUBSYSTEM);
    admin.ask(&mut world, &set(feature::NUMBER_OF_QUEUES, 0), 0);
    let mut io = Host::initialized(&mut world, Digests::default(), 0);
    let second = io.connect(&mut world, &connect(2, 15), SUBSYSTEM, admin.controller_id);
    assert!(second.status.is(Status::CONNECT_INVALID_PARAMETERS));
    let first = io.connect(&mut world, &connect(1, 15), SUBSYSTEM, admin.controller_id);
    assert_eq!(first.status, Status::SUCCESS);
    let (completion, _) = admin.ask(&mut world, &set(feature::NUMBER_OF_QUEUES, 0), 0);
    assert!(completion.status.is(Status::COMMAND_SEQUENCE_ERROR), "queues are there");
}

#[test]
fn log_pages() {
    let mut world = world();
    let (mut host, mut io) = Host::pair(&mut world, 16, true);
    io.read(&mut world, 1, 0, 4096);
    let (completion, bytes) = host.ask(&mut world, &log(2, 0, 512, false), 512);
    assert_eq!((completion.status, bytes.len()), (Status::SUCCESS, 512));
    assert_eq!((bytes[32], bytes[64]), (1, 1), "one unit read by one command");
    assert_eq!(host.ask(&mut world, &log(1, 0, 64, false), 64).1, [0; 64]);
    let (_, firmware) = host.ask(&mut world, &log(3, 0, 512, false), 512);
    assert_eq!(&firmware[8..13], b"0.1.0");
    let (_, tail) = host.ask(&mut world, &log(3, 8, 4, false), 4);
    assert_eq!(tail, b"0.1.", "from an offset");
    for (page, offset, length, status) in [
        (0x06, 0, 564, Status::INVALID_LOG_PAGE),
        (0x70, 0, 1024, Status::INVALID_LOG_PAGE),
        (0x02, 2, 512, Status::INVALID_FIELD),
        (0x02, 516, 4, Status::INVALID_FIELD),
        (0x02, u64::MAX - 3, 4, Status::INVALID_FIELD),
        (0x02, 0, 2 << 20, Status::INVALID_FIELD),
        (0x02, 0, 1 << 34, Status::INVALID_FIELD),
    ] {
        let (completion, _) =
            host.ask(&mut world, &log(page, offset, length, false), length as u32);
        assert!(completion.status.is(status), "page {page:#x} {offset}+{length}: {completion:?}");
    }
}

#[test]
fn what_the_effects_page_says_is_supported_is_and_nothing_else() {
    let mut world = world();
    let (mut host, mut io) = Host::pair(&mut world, 16, true);
    let (completion, page) = host.ask(&mut world, &log(5, 0, 4096, false), 4096);
    assert_eq!(completion.status, Status::SUCCESS);
    let (effects, _) = page.as_chunks::<4>();
    let effects: Vec<u32> = effects.iter().map(|bytes| u32::from_le_bytes(*bytes)).collect();
    for opcode in 0..=0xff_u8 {
        // Without data most are refused; only what there is not is refused as an opcode. A half of
        // the reserved fields is not looked at.
        let mut entry = AdminCommand::KeepAlive.encode(host.id(), Descriptor::NONE);
        entry[0] = opcode;
        let is_awaited = matches!(opcode, 0x0c | 0x7f);
        if !is_awaited {
            let known = !host.call(&mut world, &entry, None).status.is(Status::INVALID_OPCODE);
            assert_eq!(effects[usize::from(opcode)] == 1, known, "admin {opcode:#x}");
        }
        let mut entry = NvmCommand::Flush.encode(io.id(), 1, Descriptor::NONE);
        entry[0] = opcode;
        if opcode != 0x7f {
            let known = !io.call(&mut world, &entry, None).status.is(Status::INVALID_OPCODE);
            assert_eq!(effects[256 + usize::from(opcode)] & 1 == 1, known, "I/O {opcode:#x}");
        }
    }
    assert_eq!(effects[0x0c], 1, "event requests");
    for opcode in [1, 8, 9, 0x19] {
        assert_eq!(effects[256 + opcode], 0b11, "{opcode:#x} changes blocks");
    }
    assert!(effects[512..].iter().all(|effects| *effects == 0), "reserved");
}

#[test]
fn a_resize_is_told_and_its_log_page_rearms() {
    let mut world = world();
    let mut host = Host::admin(&mut world, SUBSYSTEM);
    host.ask(&mut world, &set(feature::ASYNCHRONOUS_EVENTS, event::NAMESPACE_ATTRIBUTE), 0);
    for id in 100..105 {
        let entry = AdminCommand::AsynchronousEventRequest.encode(id, Descriptor::NONE);
        host.send(&entry, None, &world);
    }
    host.pump(&mut world);
    let fifth = host.completion().expect("only four are parked");
    assert_eq!(fifth.command_id, 104);
    assert!(fifth.status.is(Status::EVENT_REQUEST_LIMIT_EXCEEDED));
    let key = NamespaceKey { subsystem: 0, namespace: 0 };
    for capacity in [1 << 20, 2 << 20] {
        world.target.resize(key, Geometry::new(capacity)).expect("a good size");
        host.pump(&mut world);
    }
    let told = host.completion().expect("an event");
    assert_eq!((told.command_id, Event::parse(told.dword_0())), (100, Event::NAMESPACE_CHANGED));
    assert_eq!(host.completion(), None, "told once until the page is read");
    let (_, bytes) = host.ask(&mut world, &log(log_page::CHANGED_NAMESPACES, 0, 4096, true), 4096);
    assert_eq!(bytes[..8], [1, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(host.completion(), None, "read with RAE");
    host.send(
        &log(log_page::CHANGED_NAMESPACES, 0, 4096, false).encode(200, Descriptor::transport(4096)),
        None,
        &world,
    );
    host.pump(&mut world);
    let ids: Vec<u16> = std::iter::from_fn(|| host.completion()).map(|c| c.command_id).collect();
    assert_eq!(ids, [200, 101], "the second change is told now");
    assert!(
        world.target.resize(key, Geometry { block_size: 4096, ..Geometry::new(4096) }).is_err()
    );
}

#[test]
fn a_shutdown_flushes_and_completes() {
    let mut world = world();
    let mut host = Host::admin(&mut world, SUBSYSTEM);
    world.is_slow = true;
    host.configure(&mut world, Configuration { shutdown: 1, ..Configuration::ENABLED });
    let read = FabricsCommand::PropertyGet { size: SIZE_4, offset: OFFSET_STATUS };
    let status = |completion: Completion| ControllerStatus::parse(completion.dword_0()).shutdown;
    assert_eq!(status(host.fabrics(&mut world, &read)), ShutdownStatus::UnderWay);
    host.release(&mut world);
    assert_eq!(world.asked.len(), 1, "only the second namespace has a volatile cache");
    assert_eq!((world.asked[0].0.namespace, world.asked[0].1), (1, Operation::Flush));
    assert_eq!(status(host.fabrics(&mut world, &read)), ShutdownStatus::Complete);
}

#[test]
fn an_abort_aborts_nothing() {
    let mut world = world();
    let mut host = Host::admin(&mut world, SUBSYSTEM);
    let (completion, _) =
        host.ask(&mut world, &AdminCommand::Abort { queue_id: 0, command_id: 3 }, 0);
    assert_eq!((completion.status, completion.dword_0()), (Status::SUCCESS, 1));
}

#[test]
fn discovery_lists_every_way_to_every_subsystem() {
    let mut world = world();
    let any = Listener {
        address: "0.0.0.0".parse().expect("an address"),
        port: 4420,
        channel: SecureChannel::None,
    };
    world.target.add_listener(any);
    world.target.add_listener(Listener {
        address: "::1".parse().expect("an address"),
        port: 44,
        channel: SecureChannel::None,
    });
    world.target.add_discovery_listener(Listener { port: 8009, ..any });
    let mut host = Host::admin(&mut world, DISCOVERY_NQN);
    let bytes = identify(&mut host, &mut world, identify::CONTROLLER, 0);
    let controller = IdentifyController::parse(&bytes);
    assert_eq!(controller.kind, ControllerKind::Discovery);
    assert_eq!(controller.subsystem, DISCOVERY_NQN);
    let (completion, _) = host.ask(&mut world, &command(identify::ACTIVE_NAMESPACES, 0, 0), 4096);
    assert!(completion.status.is(Status::INVALID_FIELD));
    let header = read_log(&mut host, &mut world, 0, HEADER_LENGTH);
    let header = DiscoveryHeader::parse(&header.try_into().expect("1024 bytes"));
    assert_eq!((header.generation, header.records), (4, 3));
    let entries: Vec<DiscoveryEntry> = (0..3)
        .map(|index| {
            let offset = (HEADER_LENGTH + index * ENTRY_LENGTH) as u64;
            let bytes = read_log(&mut host, &mut world, offset, ENTRY_LENGTH);
            DiscoveryEntry::parse(&bytes.try_into().expect("1024 bytes"))
        })
        .collect();
    let ways: Vec<_> = entries
        .iter()
        .map(|entry| (entry.kind, entry.address.as_str(), entry.service.as_str()))
        .collect();
    assert_eq!(
        ways,
        [
            (SubsystemKind::CurrentDiscovery, "10.0.0.7", "8009"),
            (SubsystemKind::Nvm, "10.0.0.7", "4420"),
            (SubsystemKind::Nvm, "::1", "44"),
        ]
    );
    assert_eq!((entries[0].subsystem.as_str(), entries[0].flags), (DISCOVERY_NQN, 3));
    assert_eq!(entries[1].subsystem, SUBSYSTEM);
    let end = (HEADER_LENGTH + 3 * ENTRY_LENGTH) as u64;
    let (completion, _) = host.ask(&mut world, &log(0x70, end + 4, 4, true), 4);
    assert!(completion.status.is(Status::INVALID_FIELD));
    let mut io = Host::initialized(&mut world, Digests::default(), 0);
    let refused = io.connect(&mut world, &connect(1, 15), DISCOVERY_NQN, host.controller_id);
    assert!(refused.status.is(Status::CONNECT_INVALID_PARAMETERS), "it has no I/O queues");
}

fn read_log(host: &mut Host, world: &mut World, offset: u64, length: usize) -> Vec<u8> {
    let (completion, bytes) =
        host.ask(world, &log(log_page::DISCOVERY, offset, length as u64, true), length as u32);
    assert_eq!(completion.status, Status::SUCCESS);
    bytes
}

#[test]
fn texts_that_identify_cannot_hold_are_refused_and_leave_nothing() {
    let mut world = world();
    let name = || nqn("nqn.2014-08.com.example:texts");
    for serial in ["", "S\u{1f}", "S\u{7f}", "Schlüssel", "123456789012345678901"] {
        let refused = Subsystem::new(name(), serial).map(|_| ());
        let error = refused.expect_err(serial).to_string();
        assert!(error.contains(&format!("{serial:?}: must be 1 to 20 printable")), "{error}");
    }
    let subsystem = || Subsystem::new(name(), "12345678901234567890").expect("20 characters");
    for model in [String::new(), "M\u{1f}".to_owned(), "M".repeat(41)] {
        let refused = subsystem().with_model_number(&model).map(|_| ());
        let error = refused.expect_err(&model).to_string();
        assert!(error.contains(&format!("{model:?}: must be 1 to 40 printable")), "{error}");
    }
    let subsystem = subsystem().with_model_number(&"M".repeat(40)).expect("40 characters");
    world.target.add_subsystem(subsystem).expect("its name is free");
    let mut host = Host::admin(&mut world, name().as_str());
    let bytes = identify(&mut host, &mut world, identify::CONTROLLER, 0);
    let controller = IdentifyController::parse(&bytes);
    assert_eq!(controller.serial_number, "12345678901234567890");
    assert_eq!(controller.model_number, "M".repeat(40));
    let settings = |first| Settings { controller_id_first: first, ..Settings::default() };
    for first in [0, 0xfff0, u16::MAX] {
        let error = Target::new(settings(first)).map(|_| ()).expect_err("no such id").to_string();
        assert!(error.contains(&format!("controller_id_first is {first}: must be")), "{error}");
    }
}

#[test]
fn a_thousand_subsystems_are_told_in_pieces() {
    let mut world = world();
    for number in 2..=1000 {
        let name = format!("nqn.2014-08.com.example:many-{number}");
        let subsystem = Subsystem::new(nqn(&name), "S").expect("a serial number");
        world.target.add_subsystem(subsystem).expect("room");
    }
    world.target.add_listener(Listener { address: LOCAL, port: 1, channel: SecureChannel::None });
    let mut host = Host::admin(&mut world, DISCOVERY_NQN);
    let header = read_log(&mut host, &mut world, 0, HEADER_LENGTH);
    let header = DiscoveryHeader::parse(&header.try_into().expect("1024 bytes"));
    assert_eq!(header.records, 1000);
    let mut names = std::collections::BTreeSet::new();
    for piece in 0..250 {
        let offset = HEADER_LENGTH + piece * 4 * ENTRY_LENGTH;
        let bytes = read_log(&mut host, &mut world, offset as u64, 4 * ENTRY_LENGTH);
        let (entries, _) = bytes.as_chunks::<ENTRY_LENGTH>();
        names.extend(entries.iter().map(|entry| DiscoveryEntry::parse(entry).subsystem));
    }
    assert_eq!(names.len(), 1000);
    assert!(names.contains("nqn.2014-08.com.example:many-1000"));
}

#[test]
fn a_change_of_the_discovery_log_is_told() {
    let mut world = world();
    let mut host = Host::admin(&mut world, DISCOVERY_NQN);
    host.ask(&mut world, &set(feature::ASYNCHRONOUS_EVENTS, event::DISCOVERY_LOG), 0);
    host.send(&AdminCommand::AsynchronousEventRequest.encode(9, Descriptor::NONE), None, &world);
    host.pump(&mut world);
    world.target.add_listener(Listener { address: LOCAL, port: 1, channel: SecureChannel::None });
    host.pump(&mut world);
    let told = host.completion().expect("an event");
    assert_eq!(Event::parse(told.dword_0()), Event::DISCOVERY_CHANGED);
}
