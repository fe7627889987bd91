//! Reads, writes and the rest on namespaces.

use super::*;
use crate::pdu::FatalErrorStatus;
use crate::spec::command::Range;

fn pattern(length: usize, seed: u8) -> Vec<u8> {
    (0..length).map(|index| (index as u8).wrapping_mul(31).wrapping_add(seed)).collect()
}

/// A write by R2T; the H2CData are cut at `part` bytes.
fn write(host: &mut Host, world: &mut World, start: u64, bytes: &[u8], part: usize) -> Completion {
    let blocks = (bytes.len() / 512) as u32;
    let command = NvmCommand::Write { start, blocks, force_unit_access: false };
    let id = host.id();
    host.send(&command.encode(id, 1, Descriptor::transport(bytes.len() as u32)), None, world);
    host.pump(world);
    let Some(Heard::ReadyToTransfer(request)) = host.heard.pop() else { panic!("no R2T") };
    assert_eq!((request.command, request.offset), (id, 0));
    assert_eq!(request.length as usize, bytes.len());
    for (index, chunk) in bytes.chunks(part).enumerate() {
        let offset = (index * part) as u32;
        let header = DataHeader {
            command: id,
            transfer_tag: request.transfer_tag,
            offset,
            length: chunk.len() as u32,
            last: offset as usize + chunk.len() == bytes.len(),
            success: false,
        };
        let data = buffer(&world.pool, chunk);
        host.encoder.push_host_data(&header, &data);
    }
    host.pump(world);
    host.completion().expect("a completion")
}

#[test]
fn what_is_written_is_read_in_capsules_and_by_transfer() {
    let mut world = world();
    let (_admin, mut io) = Host::pair(&mut world, 16, true);
    let mut expected = vec![0; CAPACITY as usize];
    for (start, length) in [(0, 512), (7, 8192)] {
        let bytes = pattern(length, start as u8);
        let blocks = (length / 512) as u32;
        let command = NvmCommand::Write { start, blocks, force_unit_access: true };
        assert_eq!(io.io(&mut world, 1, command, Some(&bytes)).status, Status::SUCCESS);
        let range = start as usize * 512;
        expected[range..range + length].copy_from_slice(&bytes);
    }
    assert!(world.asked.iter().all(|asked| asked.3), "FUA goes through");
    for (start, length, part) in [(100, 1 << 20, 1 << 20), (50, 16384, 4096), (3000, 12800, 512)] {
        let bytes = pattern(length, part as u8);
        assert_eq!(write(&mut io, &mut world, start, &bytes, part).status, Status::SUCCESS);
        let range = start as usize * 512;
        expected[range..range + length].copy_from_slice(&bytes);
    }
    assert!(world.memory == expected);
    for start in (0..CAPACITY / 512).step_by(2048) {
        assert_eq!(io.read(&mut world, 1, start, 1 << 20).status, Status::SUCCESS);
        let range = start as usize * 512;
        assert!(io.data() == expected[range..range + (1 << 20)]);
    }
    assert_eq!(io.connection.held_bytes(), 0, "all payload memory is given back");
    assert_eq!(io.connection.commands_in_flight(), 0);
}

#[test]
fn digests_and_alignment_are_as_negotiated() {
    for (header, data, alignment) in
        [(true, false, 0), (false, true, 31), (true, true, 15), (true, true, 0)]
    {
        let mut world = world();
        let admin = Host::admin(&mut world, SUBSYSTEM);
        let mut io = Host::initialized(&mut world, Digests { header, data }, alignment);
        let completion = io.connect(&mut world, &connect(1, 15), SUBSYSTEM, admin.controller_id);
        assert_eq!(completion.status, Status::SUCCESS);
        let bytes = pattern(65536, 3);
        assert_eq!(write(&mut io, &mut world, 8, &bytes, 16384).status, Status::SUCCESS);
        let command = NvmCommand::Write { start: 0, blocks: 8, force_unit_access: false };
        let completion = io.io(&mut world, 1, command, Some(&bytes[..4096]));
        assert_eq!(completion.status, Status::SUCCESS);
        assert_eq!(io.read(&mut world, 1, 0, 4096 + 65536).status, Status::SUCCESS);
        assert!(io.data() == [&bytes[..4096], &bytes].concat());
    }
}

#[test]
fn a_wrong_data_digest_fails_the_command_and_nothing_else() {
    let mut world = world();
    let admin = Host::admin(&mut world, SUBSYSTEM);
    let digests = Digests { header: false, data: true };
    let mut io = Host::initialized(&mut world, digests, 0);
    io.connect(&mut world, &connect(1, 15), SUBSYSTEM, admin.controller_id);
    let command = NvmCommand::Write { start: 0, blocks: 1, force_unit_access: false };
    let entry = command.encode(70, 1, Descriptor::in_capsule(512));
    io.send(&entry, Some(&[5; 512]), &world);
    let mut pieces = Vec::new();
    io.encoder.transmit_from(&mut pieces, 64);
    let mut bytes: Vec<u8> = pieces.iter().flat_map(Buffer::to_vec).collect();
    io.encoder.transmitted(bytes.len());
    bytes[100] ^= 1;
    assert_eq!(feed(&mut io.connection, &mut world, &bytes), bytes.len());
    io.pump(&mut world);
    let failed = io.completion().expect("a completion");
    assert_eq!((failed.command_id, failed.status), (70, Status::TRANSIENT_TRANSPORT_ERROR));
    assert!(world.asked.is_empty(), "the device was not asked");
    let completion = io.io(&mut world, 1, command, Some(&[5; 512]));
    assert_eq!(completion.status, Status::SUCCESS, "the same again is right");
}

#[test]
fn success_spares_the_completion_only_without_flow_control() {
    let mut world = world();
    let (_admin, mut io) = Host::pair(&mut world, 16, false);
    let read = NvmCommand::Read { start: 0, blocks: 8, force_unit_access: false };
    io.send(&read.encode(33, 1, Descriptor::transport(4096)), None, &world);
    io.pump(&mut world);
    assert_eq!(io.completion(), None);
    let Some(Heard::Data(header, _)) = io.heard.pop() else { panic!("no data") };
    assert!(header.success && header.last && header.command == 33);
    let (_admin, mut io) = Host::pair(&mut world, 16, true);
    let completion = io.read(&mut world, 1, 0, 4096);
    assert_eq!(completion.queue_head, 2, "Connect was the first");
    let Some(Heard::Data(header, _)) = io.heard.pop() else { panic!("no data") };
    assert!(!header.success && header.last);
    for expected in (3..16).chain(0..4) {
        assert_eq!(io.read(&mut world, 1, 0, 512).queue_head, expected);
        io.data();
    }
}

#[test]
fn what_a_namespace_does_not_do_is_refused() {
    let mut world = world();
    let (_admin, mut io) = Host::pair(&mut world, 16, true);
    let last = CAPACITY / 512;
    let write = |start, blocks| NvmCommand::Write { start, blocks, force_unit_access: false };
    let bytes = [1; 4096];
    for (nsid, command, data, status) in [
        (1, write(last, 8), Some(&bytes[..]), Status::LBA_OUT_OF_RANGE),
        (1, write(last - 1, 8), Some(&bytes[..]), Status::LBA_OUT_OF_RANGE),
        (1, write(u64::MAX, 8), Some(&bytes[..]), Status::LBA_OUT_OF_RANGE),
        (1, write(0, 7), Some(&bytes[..]), Status::DATA_SGL_LENGTH_INVALID),
        (1, write(0, 1), None, Status::SGL_TYPE_INVALID),
        (1, write(0, 65536), None, Status::INVALID_FIELD),
        (2, write(0, 1), Some(&bytes[..]), Status::NAMESPACE_WRITE_PROTECTED),
        (0, NvmCommand::Flush, None, Status::INVALID_NAMESPACE),
        (3, NvmCommand::Flush, None, Status::INVALID_NAMESPACE),
        (u32::MAX, NvmCommand::Flush, None, Status::INVALID_NAMESPACE),
        (1, NvmCommand::WriteUncorrectable { start: 0, blocks: 1 }, None, Status::INVALID_OPCODE),
        (1, NvmCommand::Other(0xff), None, Status::INVALID_OPCODE),
    ] {
        let completion = io.io(&mut world, nsid, command, data);
        assert!(completion.status.is(status), "{command:?} on {nsid}: {completion:?}");
        assert!(completion.status.forbids_retry());
    }
    assert!(io.read(&mut world, 1, 0, 2 << 20).status.is(Status::INVALID_FIELD), "above MDTS");
    assert!(io.read(&mut world, 1, last - 1, 1024).status.is(Status::LBA_OUT_OF_RANGE));
    assert!(world.asked.is_empty());
}

#[test]
fn descriptors_that_do_not_fit_are_refused() {
    let mut world = world();
    let (_admin, mut io) = Host::pair(&mut world, 16, true);
    let write = NvmCommand::Write { start: 0, blocks: 1, force_unit_access: false };
    let read = NvmCommand::Read { start: 0, blocks: 1, force_unit_access: false };
    let bytes = [0; 512];
    let offset = Descriptor { address: 4, ..Descriptor::in_capsule(512) };
    let keyed = Descriptor { kind: 0x40, ..Descriptor::in_capsule(512) };
    for (command, descriptor, data, status) in [
        (write, offset, Some(&bytes[..]), Status::SGL_OFFSET_INVALID),
        (write, keyed, Some(&bytes[..]), Status::SGL_TYPE_INVALID),
        (write, Descriptor::in_capsule(508), Some(&bytes[..]), Status::DATA_SGL_LENGTH_INVALID),
        (write, Descriptor::in_capsule(512), None, Status::DATA_SGL_LENGTH_INVALID),
        (write, Descriptor::transport(512), Some(&bytes[..]), Status::INVALID_FIELD),
        (write, Descriptor::transport(u32::MAX), None, Status::DATA_SGL_LENGTH_INVALID),
        (read, Descriptor::in_capsule(512), Some(&bytes[..]), Status::INVALID_FIELD),
        (read, Descriptor::transport(512), Some(&bytes[..]), Status::INVALID_FIELD),
        (read, Descriptor::transport(1024), None, Status::DATA_SGL_LENGTH_INVALID),
        (read, Descriptor::in_capsule(512), None, Status::SGL_TYPE_INVALID),
    ] {
        let entry = command.encode(io.id(), 1, descriptor);
        let completion = io.call(&mut world, &entry, data);
        assert!(completion.status.is(status), "{command:?} {descriptor:?}: {completion:?}");
    }
    let mut fused = read.encode(500, 1, Descriptor::transport(512));
    fused[1] |= 1;
    assert!(io.call(&mut world, &fused, None).status.is(Status::INVALID_FIELD));
    let mut prp = read.encode(501, 1, Descriptor::transport(512));
    prp[1] = 0;
    assert!(io.call(&mut world, &prp, None).status.is(Status::INVALID_FIELD));
    assert!(world.asked.is_empty());
    assert_eq!(io.connection.commands_in_flight(), 0);
}

#[test]
fn zeroes_and_discards_are_cut_to_the_devices_limit() {
    let geometry = Geometry { zeroes_max: 10_000, ..Geometry::new(CAPACITY) };
    let mut world = world_of(Settings::default(), geometry);
    world.memory.fill(1);
    let (_admin, mut io) = Host::pair(&mut world, 16, true);
    let zeroes =
        NvmCommand::WriteZeroes { start: 2, blocks: 50, force_unit_access: true, deallocate: true };
    assert_eq!(io.io(&mut world, 1, zeroes, None).status, Status::SUCCESS);
    let lengths: Vec<u64> = world.asked.iter().map(|asked| asked.2.length).collect();
    assert_eq!(lengths, [9728, 9728, 6144], "whole blocks below the limit");
    assert!(world.asked.iter().all(|asked| asked.1 == Operation::WriteZeroes && asked.3));
    world.asked.clear();
    let ranges = [
        Range { start: 100, blocks: 1 },
        Range { start: 300, blocks: 0 },
        Range { start: 200, blocks: 3000 },
    ];
    let bytes: Vec<u8> = ranges.iter().flat_map(|range| range.encode()).collect();
    let manage = |deallocate| NvmCommand::DatasetManagement { ranges: 3, deallocate };
    assert_eq!(io.io(&mut world, 1, manage(true), Some(&bytes)).status, Status::SUCCESS);
    assert_eq!(world.asked.len(), 1 + (3000_u64 * 512).div_ceil(9728) as usize);
    assert!(world.memory[100 * 512..101 * 512].iter().all(|byte| *byte == 0));
    assert!(world.memory[200 * 512..3200 * 512].iter().all(|byte| *byte == 0));
    assert!(world.memory[101 * 512..200 * 512].iter().all(|byte| *byte == 1));
    world.asked.clear();
    assert_eq!(io.io(&mut world, 1, manage(false), Some(&bytes)).status, Status::SUCCESS);
    assert!(world.asked.is_empty(), "advice is not followed");
}

#[test]
fn ranges_are_checked_before_any_is_discarded() {
    let mut world = world();
    let (_admin, mut io) = Host::pair(&mut world, 16, true);
    let good = Range { start: 0, blocks: 8 };
    let bad = Range { start: CAPACITY / 512, blocks: 1 };
    let bytes: Vec<u8> = [good, bad].iter().flat_map(|range| range.encode()).collect();
    let two = NvmCommand::DatasetManagement { ranges: 2, deallocate: true };
    assert!(io.io(&mut world, 1, two, Some(&bytes)).status.is(Status::LBA_OUT_OF_RANGE));
    assert!(world.asked.is_empty());
    let short = io.io(&mut world, 1, two, Some(&bytes[..16]));
    assert!(short.status.is(Status::DATA_SGL_LENGTH_INVALID));
    // Room for 256 ranges, of which the first is named, as Linux sends it.
    let mut room = good.encode().to_vec();
    room.resize(4096, 0xff);
    let one = NvmCommand::DatasetManagement { ranges: 1, deallocate: true };
    assert_eq!(io.io(&mut world, 1, one, Some(&room)).status, Status::SUCCESS);
    assert_eq!(world.asked.len(), 1);
    let all: Vec<u8> =
        (0..256).flat_map(|index| Range { start: index * 16, blocks: 8 }.encode()).collect();
    let many = NvmCommand::DatasetManagement { ranges: 256, deallocate: true };
    assert_eq!(io.io(&mut world, 1, many, Some(&all)).status, Status::SUCCESS);
    assert_eq!(world.asked.len(), 257);
}

#[test]
fn a_devices_error_becomes_a_status() {
    let mut world = world();
    let (_admin, mut io) = Host::pair(&mut world, 16, true);
    for (error, status, final_word) in [
        (IoError::Media, Status::UNRECOVERED_READ_ERROR, false),
        (IoError::ConnectionLost, Status::INTERNAL_ERROR, false),
        (IoError::NoSpace, Status::CAPACITY_EXCEEDED, true),
        (IoError::OutOfRange, Status::LBA_OUT_OF_RANGE, true),
    ] {
        world.failures.push_back(error);
        let completion = io.read(&mut world, 1, 0, 4096);
        assert!(completion.status.is(status), "{error:?}");
        assert_eq!(completion.status.forbids_retry(), final_word);
        assert!(io.data().is_empty(), "no data of a failed read");
    }
    world.failures.push_back(IoError::Media);
    let write = NvmCommand::Write { start: 0, blocks: 1, force_unit_access: false };
    let completion = io.io(&mut world, 1, write, Some(&[0; 512]));
    assert!(completion.status.is(Status::WRITE_FAULT));
}

#[test]
fn payload_memory_is_bounded_and_commands_wait_for_it() {
    let settings = Settings { bytes_in_flight_max: 256 << 10, ..Settings::default() };
    let mut world = world_of(settings, Geometry::new(CAPACITY));
    let (_admin, mut io) = Host::pair(&mut world, 64, true);
    world.is_slow = true;
    for id in 0..60 {
        let (length, read) = (64 << 10, id % 2 == 0);
        let (start, blocks, force_unit_access) = (0, 128, false);
        let command = if read {
            NvmCommand::Read { start, blocks, force_unit_access }
        } else {
            NvmCommand::Write { start, blocks, force_unit_access }
        };
        io.send(&command.encode(id, 1, Descriptor::transport(length)), None, &world);
    }
    let mut completed = 0;
    for _ in 0..100 {
        io.pump(&mut world);
        assert!(io.connection.held_bytes() <= 256 << 10, "{}", io.connection.held_bytes());
        for submission in std::mem::take(&mut world.held) {
            world.serve(&mut io.connection, submission);
        }
        for heard in std::mem::take(&mut io.heard) {
            match heard {
                Heard::ReadyToTransfer(request) => {
                    let header = DataHeader {
                        command: request.command,
                        transfer_tag: request.transfer_tag,
                        offset: 0,
                        length: request.length,
                        last: true,
                        success: false,
                    };
                    let data = world.pool.allocate(request.length as usize);
                    io.encoder.push_host_data(&header, &data);
                }
                Heard::Completion(completion) => {
                    assert_eq!(completion.status, Status::SUCCESS);
                    completed += 1;
                }
                Heard::Data(..) => {}
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(completed, 60);
}

#[test]
fn a_host_that_counts_wrong_is_told_and_left() {
    let mut world = world();
    let (_admin, mut io) = Host::pair(&mut world, 4, true);
    world.is_slow = true;
    for id in 0..5 {
        io.send(&NvmCommand::Flush.encode(id, 1, Descriptor::NONE), None, &world);
    }
    io.pump(&mut world);
    let Some(Heard::Termination(termination)) = io.heard.pop() else { panic!("{:?}", io.heard) };
    assert_eq!(termination.status, FatalErrorStatus::LimitExceeded);
    assert!(!io.connection.is_finished(), "the host is to close");
    world.pass(Duration::from_secs(5));
    io.pump(&mut world);
    assert!(io.connection.is_finished());
    io.release(&mut world);
}

#[test]
fn transfers_that_go_wrong_end_the_connection() {
    type Change = fn(&mut DataHeader);
    let changes: [(Change, FatalErrorStatus, u32); 7] = [
        (|header| header.transfer_tag += 1, FatalErrorStatus::InvalidHeaderField, 10),
        (|header| header.transfer_tag = 999, FatalErrorStatus::InvalidHeaderField, 10),
        (|header| header.command += 1, FatalErrorStatus::InvalidHeaderField, 8),
        (|header| header.offset = 4, FatalErrorStatus::DataOutOfRange, 0),
        (
            |header| (header.offset, header.length) = (8192, 8192),
            FatalErrorStatus::DataOutOfRange,
            0,
        ),
        (|header| header.offset = u32::MAX - 3, FatalErrorStatus::DataOutOfRange, 0),
        (|header| header.last = false, FatalErrorStatus::InvalidHeaderField, 1),
    ];
    for (change, status, information) in changes {
        let mut world = world();
        let (_admin, mut io) = Host::pair(&mut world, 16, true);
        let write = NvmCommand::Write { start: 0, blocks: 32, force_unit_access: false };
        io.send(&write.encode(5, 1, Descriptor::transport(16384)), None, &world);
        io.pump(&mut world);
        let Some(Heard::ReadyToTransfer(request)) = io.heard.pop() else { panic!("no R2T") };
        let mut header = DataHeader {
            command: 5,
            transfer_tag: request.transfer_tag,
            offset: 0,
            length: 16384,
            last: true,
            success: false,
        };
        change(&mut header);
        io.encoder.push_host_data(&header, &world.pool.allocate(header.length as usize));
        io.pump(&mut world);
        let expected = Termination { status, information };
        assert_eq!(io.heard.pop(), Some(Heard::Termination(expected)));
        assert!(world.asked.is_empty());
    }
}

#[test]
fn mdts_is_what_the_smallest_device_takes() {
    let geometry = Geometry { transfer_max: 200 << 10, ..Geometry::new(CAPACITY) };
    let mut world = world_of(Settings::default(), geometry);
    let (_admin, mut io) = Host::pair(&mut world, 16, true);
    assert_eq!(world.target.subsystems()[0].data_transfer_size_max(), 5, "128 KiB");
    assert_eq!(io.read(&mut world, 1, 0, 128 << 10).status, Status::SUCCESS);
    assert!(io.read(&mut world, 1, 0, (128 << 10) + 512).status.is(Status::INVALID_FIELD));
}

#[test]
fn a_wrong_data_digest_of_a_transfer_fails_the_command_when_all_has_come() {
    let mut world = world();
    let admin = Host::admin(&mut world, SUBSYSTEM);
    let digests = Digests { header: false, data: true };
    let mut io = Host::initialized(&mut world, digests, 0);
    io.connect(&mut world, &connect(1, 15), SUBSYSTEM, admin.controller_id);
    let command = NvmCommand::Write { start: 0, blocks: 32, force_unit_access: false };
    io.send(&command.encode(70, 1, Descriptor::transport(16384)), None, &world);
    io.pump(&mut world);
    let Some(Heard::ReadyToTransfer(request)) = io.heard.pop() else { panic!("no R2T") };
    for (offset, spoilt) in [(0, true), (8192, false)] {
        let header = DataHeader {
            command: 70,
            transfer_tag: request.transfer_tag,
            offset,
            length: 8192,
            last: offset > 0,
            success: false,
        };
        io.encoder.push_host_data(&header, &buffer(&world.pool, &[5; 8192]));
        let mut pieces = Vec::new();
        io.encoder.transmit_from(&mut pieces, 64);
        let mut bytes: Vec<u8> = pieces.iter().flat_map(Buffer::to_vec).collect();
        io.encoder.transmitted(bytes.len());
        bytes[4000] ^= u8::from(spoilt);
        assert_eq!(feed(&mut io.connection, &mut world, &bytes), bytes.len());
    }
    io.pump(&mut world);
    let failed = io.completion().expect("a completion");
    assert_eq!((failed.command_id, failed.status), (70, Status::TRANSIENT_TRANSPORT_ERROR));
    assert!(world.asked.is_empty());
}
