//! Compare, verify, copy, fused pairs, aborts and reservations, over the wire.

use super::*;
use crate::spec::command::nvm::CopyFormat;
use crate::spec::command::reservation::{acquire_action, persistence_change, register_action};
use crate::spec::command::{CopySource, FUSE_FIRST, FUSE_SECOND, ReservationCommand, set_fuse};
use crate::spec::feature::{self, Event};
use crate::spec::identify::{self, IdentifyNamespace};
use crate::spec::log_page;
use crate::spec::reservation::{
    AcquireKeys, NotificationKind, RegisterKeys, ReservationKind, ReservationNotification,
    ReservationStatus,
};

const FAILED: Status = Status::ABORTED_FAILED_FUSED;
const MISSING: Status = Status::ABORTED_MISSING_FUSED;

fn compare(start: u64, blocks: u32) -> NvmCommand {
    NvmCommand::Compare { start, blocks, force_unit_access: false }
}

fn write(start: u64, blocks: u32) -> NvmCommand {
    NvmCommand::Write { start, blocks, force_unit_access: false }
}

/// Sends one half of a pair with its data in the capsule.
fn send_half(host: &mut Host, world: &World, fuse: u8, command: NvmCommand, data: &[u8]) -> u16 {
    let id = host.id();
    let mut entry = command.encode(id, 1, Descriptor::in_capsule(data.len() as u32));
    set_fuse(&mut entry, fuse);
    host.send(&entry, Some(data), world);
    id
}

/// The statuses that have come, by command.
fn statuses(host: &mut Host) -> Vec<(u16, Status)> {
    std::iter::from_fn(|| host.completion()).map(|it| (it.command_id, it.status)).collect()
}

fn copy(
    host: &mut Host,
    world: &mut World,
    format: u8,
    to: u64,
    from: &[(u64, u32)],
) -> Completion {
    let mut data = Vec::new();
    let layout = CopyFormat::parse(format).unwrap_or(CopyFormat::Short);
    for (start, blocks) in from {
        CopySource { start: *start, blocks: *blocks }.encode_to(layout, &mut data);
    }
    let ranges = from.len() as u16;
    let command = NvmCommand::Copy { destination: to, ranges, format, force_unit_access: true };
    host.io(world, 1, command, Some(&data))
}

#[test]
fn a_compare_tells_equal_from_different_and_from_unreadable() {
    let mut world = world();
    let (_admin, mut io) = Host::pair(&mut world, 16, true);
    world.memory[1024..5120].fill(7);
    assert_eq!(io.io(&mut world, 1, compare(2, 8), Some(&[7; 4096])).status, Status::SUCCESS);
    let status = io.io(&mut world, 1, compare(3, 8), Some(&[7; 4096])).status;
    assert!(status.is(Status::COMPARE_FAILURE) && status.forbids_retry());
    world.failures.push_back(IoError::Media);
    let status = io.io(&mut world, 1, compare(2, 8), Some(&[7; 4096])).status;
    assert!(status.is(Status::UNRECOVERED_READ_ERROR));
    assert!(world.asked.iter().all(|asked| asked.1 == Operation::Read));
    assert_eq!((io.connection.held_bytes(), io.connection.commands_in_flight()), (0, 0));
}

#[test]
fn a_verify_reads_everything_in_pieces_and_sends_nothing() {
    let mut world = world();
    let (_admin, mut io) = Host::pair(&mut world, 16, true);
    let verify = |start, blocks| NvmCommand::Verify { start, blocks, force_unit_access: false };
    assert_eq!(io.io(&mut world, 1, verify(0, 8192), None).status, Status::SUCCESS);
    assert_eq!(world.asked.len(), 32, "128 KiB at a time");
    assert_eq!(world.asked[31].2, Extent::new(CAPACITY - (128 << 10), 128 << 10));
    assert!(io.io(&mut world, 1, verify(1, 8192), None).status.is(Status::LBA_OUT_OF_RANGE));
    world.failures.push_back(IoError::Media);
    let status = io.io(&mut world, 1, verify(0, 1), None).status;
    assert!(status.is(Status::UNRECOVERED_READ_ERROR));
    assert!(io.heard.is_empty(), "no data");
}

#[test]
fn a_copy_moves_its_ranges_within_its_limits() {
    let mut world = world();
    let (_admin, mut io) = Host::pair(&mut world, 16, true);
    for (index, byte) in world.memory.iter_mut().enumerate() {
        *byte = (index / 512) as u8;
    }
    for format in [0, 1] {
        let completion = copy(&mut io, &mut world, format, 4096, &[(9, 300), (5, 1), (7, 2)]);
        assert_eq!(completion.status, Status::SUCCESS, "format {format}");
        let expected: Vec<u8> =
            [9..309, 5..6, 7..9].into_iter().flatten().flat_map(|at| [at as u8; 512]).collect();
        assert!(world.memory[4096 * 512..][..303 * 512] == expected);
        world.memory[4096 * 512..][..303 * 512].fill(0);
    }
    let writes = world.asked.iter().filter(|asked| asked.1 == Operation::Write);
    assert!(writes.clone().count() > 0 && writes.clone().all(|asked| asked.3), "FUA goes through");
    world.asked.clear();
    let many = vec![(0, 1); 129];
    for (format, to, from, status) in [
        (2, 0, &[(0, 1)][..], Status::INVALID_FIELD),
        (0, 8192, &[(0, 1)], Status::LBA_OUT_OF_RANGE),
        (0, 0, &[(8192, 1)], Status::LBA_OUT_OF_RANGE),
        (0, 0, &[(0, 65536)], Status::COMMAND_SIZE_LIMIT_EXCEEDED),
        (0, 0, &many, Status::COMMAND_SIZE_LIMIT_EXCEEDED),
    ] {
        let completion = copy(&mut io, &mut world, format, to, from);
        assert!(completion.status.is(status), "{to} {:?}: {completion:?}", from.first());
    }
    assert!(world.asked.is_empty());
    world.failures.push_back(IoError::Media);
    let completion = copy(&mut io, &mut world, 0, 4096, &[(9, 1), (5, 1)]);
    assert!(completion.status.is(Status::UNRECOVERED_READ_ERROR));
    assert_eq!(completion.dword_0(), 0, "the first range is not copied");
    assert_eq!(io.connection.held_bytes(), 0);
    assert!(
        io.connection.is_idle() || {
            io.pump(&mut world);
            io.connection.is_idle()
        }
    );
}

#[test]
fn a_pair_writes_when_it_compares_equal_and_not_otherwise() {
    let mut world = world();
    let (_admin, mut io) = Host::pair(&mut world, 16, true);
    let one = send_half(&mut io, &world, FUSE_FIRST, compare(4, 2), &[0; 1024]);
    let two = send_half(&mut io, &world, FUSE_SECOND, write(4, 2), &[5; 1024]);
    io.pump(&mut world);
    assert_eq!(statuses(&mut io), [(one, Status::SUCCESS), (two, Status::SUCCESS)]);
    assert_eq!((world.memory[2047], world.memory[2048], world.memory[3071]), (0, 5, 5));
    let one = send_half(&mut io, &world, FUSE_FIRST, compare(4, 2), &[0; 1024]);
    let two = send_half(&mut io, &world, FUSE_SECOND, write(4, 2), &[6; 1024]);
    io.pump(&mut world);
    let failure = Status::COMPARE_FAILURE.do_not_retry();
    assert_eq!(statuses(&mut io), [(one, failure), (two, FAILED)]);
    assert_eq!(world.memory[2048], 5);
    // The device fails the write.
    let one = send_half(&mut io, &world, FUSE_FIRST, compare(4, 2), &[5; 1024]);
    world.is_slow = true;
    let two = send_half(&mut io, &world, FUSE_SECOND, write(4, 2), &[6; 1024]);
    io.pump(&mut world);
    let read = world.held.pop().expect("the compare's read");
    world.serve(&mut io.connection, read);
    world.failures.push_back(IoError::Media);
    io.pump(&mut world);
    io.release(&mut world);
    assert_eq!(statuses(&mut io), [(one, FAILED), (two, Status::WRITE_FAULT)]);
    assert_eq!((io.connection.held_bytes(), io.connection.commands_in_flight()), (0, 0));
}

#[test]
fn a_half_without_the_other_one_is_aborted() {
    let mut world = world();
    let (_admin, mut io) = Host::pair(&mut world, 16, true);
    let data = [0; 512];
    let lone = send_half(&mut io, &world, FUSE_SECOND, write(0, 1), &data);
    io.pump(&mut world);
    assert_eq!(statuses(&mut io), [(lone, MISSING)]);
    let first = send_half(&mut io, &world, FUSE_FIRST, compare(0, 1), &data);
    let other = send_half(&mut io, &world, 0, write(0, 1), &data);
    let late = send_half(&mut io, &world, FUSE_SECOND, write(0, 1), &data);
    io.pump(&mut world);
    let mut seen = statuses(&mut io);
    seen.sort_by_key(|(id, _)| *id);
    assert_eq!(seen, [(first, MISSING), (other, Status::SUCCESS), (late, MISSING)]);
    let first = send_half(&mut io, &world, FUSE_FIRST, compare(0, 1), &data);
    let again = send_half(&mut io, &world, FUSE_FIRST, compare(0, 1), &data);
    let second = send_half(&mut io, &world, FUSE_SECOND, write(0, 1), &data);
    io.pump(&mut world);
    let success = Status::SUCCESS;
    assert_eq!(statuses(&mut io), [(first, MISSING), (again, success), (second, success)]);
    let invalid = Status::INVALID_FIELD.do_not_retry();
    let size = Status::ATOMIC_WRITE_UNIT_EXCEEDED.do_not_retry();
    let large = vec![0; 8192];
    for (first, second, data, expected) in [
        (compare(0, 1), write(1, 1), &data[..], [invalid, invalid]),
        (compare(0, 1), compare(0, 1), &data, [FAILED, invalid]),
        (write(0, 1), write(0, 1), &data, [invalid, FAILED]),
        (
            compare(9000, 1),
            write(9000, 1),
            &data,
            [Status::LBA_OUT_OF_RANGE.do_not_retry(), FAILED],
        ),
        (compare(0, 16), write(0, 16), &large, [success, success]),
    ] {
        let one = send_half(&mut io, &world, FUSE_FIRST, first, data);
        let two = send_half(&mut io, &world, FUSE_SECOND, second, data);
        io.pump(&mut world);
        assert_eq!(statuses(&mut io), [(one, expected[0]), (two, expected[1])], "{first:?}");
    }
    // More than the atomic unit, by R2T.
    let ids = [io.id(), io.id()];
    let pair = [(FUSE_FIRST, compare(0, 129)), (FUSE_SECOND, write(0, 129))];
    for ((fuse, command), id) in pair.into_iter().zip(ids) {
        let mut entry = command.encode(id, 1, Descriptor::transport(129 * 512));
        set_fuse(&mut entry, fuse);
        io.send(&entry, None, &world);
    }
    io.pump(&mut world);
    assert_eq!(statuses(&mut io), [(ids[0], FAILED), (ids[1], size)]);
    assert!(io.heard.is_empty(), "no R2T");
    assert_eq!((io.connection.held_bytes(), io.connection.commands_in_flight()), (0, 0));
}

#[test]
fn the_halves_data_may_come_by_transfer_in_any_order() {
    let mut world = world();
    let (_admin, mut io) = Host::pair(&mut world, 16, true);
    for order in [[0, 1], [1, 0]] {
        let ids = [io.id(), io.id()];
        let pair = [(FUSE_FIRST, compare(0, 32)), (FUSE_SECOND, write(0, 32))];
        for ((fuse, command), id) in pair.into_iter().zip(ids) {
            let mut entry = command.encode(id, 1, Descriptor::transport(16384));
            set_fuse(&mut entry, fuse);
            io.send(&entry, None, &world);
        }
        io.pump(&mut world);
        let asked: Vec<ReadyToTransfer> = io
            .heard
            .drain(..)
            .map(|heard| match heard {
                Heard::ReadyToTransfer(request) => request,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(asked.len(), 2);
        let before = world.memory[0];
        for half in order {
            let byte = if half == 0 { before } else { before + 1 };
            let request = asked.iter().find(|it| it.command == ids[half]).expect("asked for");
            let header = DataHeader {
                command: ids[half],
                transfer_tag: request.transfer_tag,
                offset: 0,
                length: 16384,
                last: true,
                success: false,
            };
            io.encoder.push_host_data(&header, &buffer(&world.pool, &[byte; 16384]));
            io.pump(&mut world);
        }
        assert_eq!(statuses(&mut io), [(ids[0], Status::SUCCESS), (ids[1], Status::SUCCESS)]);
        assert!(world.memory[..16384].iter().all(|byte| *byte == before + 1));
    }
    assert_eq!((io.connection.held_bytes(), io.connection.commands_in_flight()), (0, 0));
}

#[test]
fn a_pair_is_alone_with_its_blocks() {
    let mut world = world();
    let (admin, mut io) = Host::pair(&mut world, 16, true);
    let mut other = Host::initialized(&mut world, Digests::default(), 0);
    other.connect(&mut world, &connect(2, 15), SUBSYSTEM, admin.controller_id);
    world.is_slow = true;
    // A write of the other queue's is at the device, and will land late.
    let late = send_half(&mut other, &world, 0, write(0, 1), &[9; 512]);
    other.pump(&mut world);
    let late_write = world.held.pop().expect("at the device");
    let one = send_half(&mut io, &world, FUSE_FIRST, compare(0, 1), &[0; 512]);
    let two = send_half(&mut io, &world, FUSE_SECOND, write(0, 1), &[5; 512]);
    io.pump(&mut world);
    assert!(world.held.is_empty(), "the compare waits for the write before it");
    let read = NvmCommand::Read { start: 0, blocks: 1, force_unit_access: false };
    let read_id = other.id();
    other.send(&read.encode(read_id, 1, Descriptor::transport(512)), None, &world);
    let beside = send_half(&mut other, &world, 0, write(1, 1), &[3; 512]);
    other.pump(&mut world);
    assert_eq!(world.held.len(), 1, "what is beside it goes on, what overlaps waits");
    world.serve(&mut other.connection, late_write);
    let beside_write = world.held.pop().expect("at the device");
    world.serve(&mut other.connection, beside_write);
    world.is_slow = false;
    other.pump(&mut world);
    assert_eq!(statuses(&mut other), [(late, Status::SUCCESS), (beside, Status::SUCCESS)]);
    io.pump(&mut world);
    let failure = Status::COMPARE_FAILURE.do_not_retry();
    assert_eq!(statuses(&mut io), [(one, failure), (two, FAILED)], "it sees the late write");
    io.pump(&mut world);
    other.pump(&mut world);
    assert_eq!(statuses(&mut other), [(read_id, Status::SUCCESS)]);
    assert_eq!(other.data(), [9; 512]);
}

#[test]
fn a_write_of_a_host_that_has_gone_still_keeps_its_blocks() {
    let mut world = world();
    let (admin, mut io) = Host::pair(&mut world, 16, true);
    let mut other = Host::initialized(&mut world, Digests::default(), 0);
    other.connect(&mut world, &connect(2, 15), SUBSYSTEM, admin.controller_id);
    world.is_slow = true;
    send_half(&mut other, &world, 0, write(0, 1), &[9; 512]);
    other.pump(&mut world);
    let late_write = world.held.pop().expect("at the device");
    other.connection.disconnect(&mut world.target, crate::error::ConnectionError::Closed);
    assert!(other.connection.is_finished() && !other.connection.is_idle());
    world.is_slow = false;
    let one = send_half(&mut io, &world, FUSE_FIRST, compare(0, 1), &[9; 512]);
    let two = send_half(&mut io, &world, FUSE_SECOND, write(0, 1), &[5; 512]);
    io.pump(&mut world);
    assert_eq!(io.completion(), None, "the write is still at the device");
    world.serve(&mut other.connection, late_write);
    other.connection.poll(&mut world.target, world.now);
    assert!(other.connection.is_idle());
    io.pump(&mut world);
    assert_eq!(statuses(&mut io), [(one, Status::SUCCESS), (two, Status::SUCCESS)]);
    assert_eq!(world.memory[0], 5);
}

#[test]
fn a_command_of_several_requests_keeps_its_blocks_until_the_last_has_ended() {
    let geometry = Geometry { zeroes_max: 4096, ..Geometry::new(CAPACITY) };
    let mut world = world_of(Settings::default(), geometry);
    let (admin, mut io) = Host::pair(&mut world, 16, true);
    let mut other = Host::initialized(&mut world, Digests::default(), 0);
    other.connect(&mut world, &connect(2, 15), SUBSYSTEM, admin.controller_id);
    world.is_slow = true;
    let zeroes = NvmCommand::WriteZeroes {
        start: 0,
        blocks: 16,
        force_unit_access: false,
        deallocate: false,
    };
    let entry = zeroes.encode(other.id(), 1, Descriptor::NONE);
    other.send(&entry, None, &world);
    other.pump(&mut world);
    let second = world.held.pop().expect("two requests");
    let first = world.held.pop().expect("two requests");
    other.connection.disconnect(&mut world.target, crate::error::ConnectionError::Closed);
    world.is_slow = false;
    let one = send_half(&mut io, &world, FUSE_FIRST, compare(0, 1), &[0; 512]);
    let two = send_half(&mut io, &world, FUSE_SECOND, write(0, 1), &[5; 512]);
    for request in [first, second] {
        io.pump(&mut world);
        assert_eq!(io.completion(), None, "there is still a request at the device");
        world.serve(&mut other.connection, request);
        other.connection.poll(&mut world.target, world.now);
    }
    io.pump(&mut world);
    assert_eq!(statuses(&mut io), [(one, Status::SUCCESS), (two, Status::SUCCESS)]);
    assert_eq!(world.memory[0], 5);
}

#[test]
fn an_abort_ends_what_waits_and_says_when_it_is_too_late() {
    let mut world = world();
    let (mut admin, mut io) = Host::pair(&mut world, 16, true);
    let abort = |queue_id, command_id| AdminCommand::Abort { queue_id, command_id };
    let call = |admin: &mut Host, io: &mut Host, world: &mut World, command: AdminCommand| {
        let entry = command.encode(admin.id(), Descriptor::NONE);
        admin.send(&entry, None, world);
        admin.pump(world);
        io.pump(world);
        admin.pump(world);
        admin.completion().map(|completion| completion.dword_0())
    };
    assert_eq!(call(&mut admin, &mut io, &mut world, abort(1, 999)), Some(1), "no such command");
    assert_eq!(call(&mut admin, &mut io, &mut world, abort(7, 1)), Some(1), "no such queue");
    // A first half that waits for its second one.
    let half = send_half(&mut io, &world, FUSE_FIRST, compare(0, 1), &[0; 512]);
    io.pump(&mut world);
    assert_eq!(call(&mut admin, &mut io, &mut world, abort(1, half)), Some(0));
    assert_eq!(statuses(&mut io), [(half, Status::ABORT_REQUESTED)]);
    let second = send_half(&mut io, &world, FUSE_SECOND, write(0, 1), &[1; 512]);
    io.pump(&mut world);
    assert_eq!(statuses(&mut io), [(second, FAILED)]);
    // A write whose data are still to come: it ends with them, and is not executed.
    let id = io.id();
    io.send(&write(0, 32).encode(id, 1, Descriptor::transport(16384)), None, &world);
    io.pump(&mut world);
    let Some(Heard::ReadyToTransfer(request)) = io.heard.pop() else { panic!("no R2T") };
    assert_eq!(call(&mut admin, &mut io, &mut world, abort(1, id)), None, "not yet");
    let header = DataHeader {
        command: id,
        transfer_tag: request.transfer_tag,
        offset: 0,
        length: 16384,
        last: true,
        success: false,
    };
    io.encoder.push_host_data(&header, &buffer(&world.pool, &[1; 16384]));
    io.pump(&mut world);
    assert_eq!(statuses(&mut io), [(id, Status::ABORT_REQUESTED)]);
    io.pump(&mut world);
    admin.pump(&mut world);
    assert_eq!(admin.completion().map(|completion| completion.dword_0()), Some(0));
    assert!(world.asked.is_empty());
    // What is at the device is too late; a verify has steps still to come.
    world.is_slow = true;
    let late = send_half(&mut io, &world, 0, write(0, 1), &[1; 512]);
    io.pump(&mut world);
    assert_eq!(call(&mut admin, &mut io, &mut world, abort(1, late)), Some(1));
    io.release(&mut world);
    assert_eq!(statuses(&mut io), [(late, Status::SUCCESS)]);
    world.is_slow = true;
    let verify = NvmCommand::Verify { start: 0, blocks: 8192, force_unit_access: false };
    let id = io.id();
    io.send(&verify.encode(id, 1, Descriptor::NONE), None, &world);
    io.pump(&mut world);
    assert_eq!(call(&mut admin, &mut io, &mut world, abort(1, id)), None, "after this step");
    world.asked.clear();
    io.release(&mut world);
    assert_eq!(world.asked.len(), 1);
    assert_eq!(statuses(&mut io), [(id, Status::ABORT_REQUESTED)]);
    admin.pump(&mut world);
    assert_eq!(admin.completion().map(|completion| completion.dword_0()), Some(0));
}

#[test]
fn an_abort_of_an_event_request_is_answered_and_aborts_are_limited() {
    let mut world = world();
    let (mut admin, mut io) = Host::pair(&mut world, 16, true);
    let abort = |queue_id, command_id| AdminCommand::Abort { queue_id, command_id };
    let event = admin.id();
    let entry = AdminCommand::AsynchronousEventRequest.encode(event, Descriptor::NONE);
    admin.send(&entry, None, &world);
    let entry = abort(0, event).encode(admin.id(), Descriptor::NONE);
    let done = admin.call(&mut world, &entry, None);
    assert_eq!((done.command_id, done.status), (event, Status::ABORT_REQUESTED));
    assert_eq!(admin.completion().map(|completion| completion.dword_0()), Some(0));
    for _ in 0..5 {
        let entry = abort(1, 999).encode(admin.id(), Descriptor::NONE);
        admin.send(&entry, None, &world);
    }
    admin.pump(&mut world);
    let refused = statuses(&mut admin);
    assert!(refused.len() == 1 && refused[0].1.is(Status::ABORT_LIMIT_EXCEEDED), "{refused:?}");
    io.pump(&mut world);
    admin.pump(&mut world);
    assert_eq!(statuses(&mut admin).len(), 4);
}

/// A second host with its queues.
fn another_host(world: &mut World, id: u8) -> (Host, Host) {
    let name = format!("nqn.2014-08.com.example:host-{id}");
    let connect_as = |host: &mut Host, world: &mut World, queue, controller_id| {
        let data = ConnectData {
            host_id: HostId([id; 16]),
            controller_id,
            subsystem: nqn(SUBSYSTEM),
            host: nqn(&name),
        };
        let command = connect(queue, 15);
        let completion = host.connect_with(world, &command, &data.encode());
        assert_eq!(completion.status, Status::SUCCESS);
        ConnectResult::parse(completion.dword_0()).controller_id
    };
    let mut admin = Host::initialized(world, Digests::default(), 0);
    admin.controller_id = connect_as(&mut admin, world, 0, CONTROLLER_ID_DYNAMIC);
    admin.configure(world, Configuration::ENABLED);
    let mut io = Host::initialized(world, Digests::default(), 0);
    connect_as(&mut io, world, 1, admin.controller_id);
    (admin, io)
}

fn register(host: &mut Host, world: &mut World, key: u64, persistence: u8) -> Status {
    let command = ReservationCommand::Register {
        action: register_action::REGISTER,
        ignore_existing_key: false,
        persistence,
    };
    let data = RegisterKeys { current: 0, new: key }.encode();
    host.io(world, 1, NvmCommand::Reservation(command), Some(&data)).status
}

fn acquire(host: &mut Host, world: &World, action: u8, kind: ReservationKind, keys: [u64; 2]) {
    let command =
        ReservationCommand::Acquire { action, ignore_existing_key: false, kind: kind as u8 };
    let data = AcquireKeys { current: keys[0], preempt: keys[1] }.encode();
    let entry = NvmCommand::Reservation(command).encode(host.id(), 1, Descriptor::in_capsule(16));
    host.send(&entry, Some(&data), world);
}

fn report(host: &mut Host, world: &mut World) -> ReservationStatus {
    let command = ReservationCommand::Report { length: 256, extended: true };
    let command = NvmCommand::Reservation(command);
    let entry = command.encode(host.id(), 1, Descriptor::transport(256));
    assert_eq!(host.call(world, &entry, None).status, Status::SUCCESS);
    ReservationStatus::parse(&host.data()).expect("a header")
}

#[test]
fn a_reservation_keeps_another_host_out_of_every_command() {
    let mut world = world();
    let (_admin, mut io) = Host::pair(&mut world, 16, true);
    let (_other_admin, mut other) = another_host(&mut world, 2);
    assert_eq!(register(&mut io, &mut world, 0xa, 0), Status::SUCCESS);
    acquire(&mut io, &world, acquire_action::ACQUIRE, ReservationKind::ExclusiveAccess, [0xa, 0]);
    io.pump(&mut world);
    assert_eq!(io.completion().expect("done").status, Status::SUCCESS);
    let conflict = Status::RESERVATION_CONFLICT.do_not_retry();
    let zeroes =
        NvmCommand::WriteZeroes { start: 0, blocks: 1, force_unit_access: false, deallocate: true };
    let verify = NvmCommand::Verify { start: 0, blocks: 1, force_unit_access: false };
    for (command, data) in [
        (compare(0, 1), Some(&[0; 512][..])),
        (write(0, 1), Some(&[0; 512])),
        (verify, None),
        (zeroes, None),
        (NvmCommand::Flush, None),
        (NvmCommand::DatasetManagement { ranges: 1, deallocate: true }, Some(&[0; 16])),
        (NvmCommand::DatasetManagement { ranges: 1, deallocate: false }, Some(&[0; 16])),
    ] {
        let completion = other.io(&mut world, 1, command, data);
        assert_eq!(completion.status, conflict, "{command:?}");
    }
    assert_eq!(copy(&mut other, &mut world, 0, 0, &[(8, 1)]).status, conflict);
    assert_eq!(other.read(&mut world, 1, 0, 512).status, conflict);
    let one = send_half(&mut other, &world, FUSE_FIRST, compare(0, 1), &[0; 512]);
    let two = send_half(&mut other, &world, FUSE_SECOND, write(0, 1), &[1; 512]);
    other.pump(&mut world);
    assert_eq!(statuses(&mut other), [(one, conflict), (two, FAILED)], "the compare may not");
    assert!(world.asked.is_empty());
    assert_eq!(io.io(&mut world, 1, write(0, 1), Some(&[0; 512])).status, Status::SUCCESS);
    let status = report(&mut other, &mut world);
    assert_eq!(status.kind, Some(ReservationKind::ExclusiveAccess));
    assert_eq!((status.generation, status.count, status.registered.len()), (1, 1, 1));
    let holder = status.registered[0];
    assert!(holder.is_holder && holder.key == 0xa && holder.host == HostId([9; 16]));
    assert!(holder.controller_id != 0xffff);
    // The second namespace is another matter.
    assert_eq!(other.read(&mut world, 2, 0, 4096).status, Status::SUCCESS);
}

#[test]
fn a_preempt_and_abort_ends_when_the_others_commands_have() {
    let mut world = world();
    let (mut admin, mut io) = Host::pair(&mut world, 16, true);
    let (_other_admin, mut other) = another_host(&mut world, 2);
    register(&mut io, &mut world, 0xa, 0);
    register(&mut other, &mut world, 0xb, 0);
    let kind = ReservationKind::WriteExclusive;
    acquire(&mut io, &world, acquire_action::ACQUIRE, kind, [0xa, 0]);
    io.pump(&mut world);
    assert_eq!(io.completion().expect("done").status, Status::SUCCESS);
    world.is_slow = true;
    let late = send_half(&mut io, &world, 0, write(0, 1), &[9; 512]);
    io.pump(&mut world);
    let late_write = world.held.pop().expect("at the device");
    acquire(&mut other, &world, acquire_action::PREEMPT_AND_ABORT, kind, [0xb, 0xa]);
    other.pump(&mut world);
    assert_eq!(other.completion(), None, "the preempted host's write is at the device");
    let refused = io.io(&mut world, 1, write(0, 1), Some(&[8; 512])).status;
    assert_eq!(refused, Status::RESERVATION_CONFLICT.do_not_retry(), "it is preempted already");
    world.serve(&mut io.connection, late_write);
    io.pump(&mut world);
    assert_eq!(statuses(&mut io), [(late, Status::SUCCESS)]);
    io.pump(&mut world);
    other.pump(&mut world);
    assert_eq!(other.completion().expect("done").status, Status::SUCCESS);
    // And its host hears of it.
    let entry = AdminCommand::AsynchronousEventRequest.encode(admin.id(), Descriptor::NONE);
    let event = admin.call(&mut world, &entry, None);
    assert_eq!(Event::parse(event.dword_0()), Event::RESERVATION_NOTIFICATION);
    let notification = notification(&mut admin, &mut world);
    assert_eq!(notification.kind, Some(NotificationKind::RegistrationPreempted));
    assert_eq!((notification.namespace_id, notification.count, notification.more), (1, 1, 0));
}

fn notification(admin: &mut Host, world: &mut World) -> ReservationNotification {
    let command = AdminCommand::GetLogPage {
        namespace_id: 0,
        page: log_page::RESERVATION_NOTIFICATION,
        specific: 0,
        retain_event: false,
        length: 64,
        offset: 0,
        index_offset: false,
    };
    let (completion, bytes) = admin.ask(world, &command, 64);
    assert_eq!(completion.status, Status::SUCCESS);
    ReservationNotification::parse(bytes[..].first_chunk().expect("64 bytes"))
}

#[test]
fn a_masked_notification_is_not_told() {
    let mut world = world();
    let (mut admin, mut io) = Host::pair(&mut world, 16, true);
    let (_other_admin, mut other) = another_host(&mut world, 2);
    let mask = |value| AdminCommand::SetFeatures {
        namespace_id: 1,
        feature: feature::RESERVATION_NOTIFICATION_MASK,
        save: false,
        value,
    };
    assert!(admin.ask(&mut world, &mask(1), 0).0.status.is(Status::INVALID_FIELD));
    for (value, told) in [(0b0010, false), (0b1100, true)] {
        assert_eq!(admin.ask(&mut world, &mask(value), 0).0.status, Status::SUCCESS);
        let get = AdminCommand::GetFeatures {
            namespace_id: 1,
            feature: feature::RESERVATION_NOTIFICATION_MASK,
            select: 0,
            value: 0,
        };
        assert_eq!(admin.ask(&mut world, &get, 0).0.dword_0(), value);
        register(&mut io, &mut world, 0xa, 0);
        register(&mut other, &mut world, 0xb, 0);
        let kind = ReservationKind::WriteExclusive;
        acquire(&mut other, &world, acquire_action::PREEMPT, kind, [0xb, 0xa]);
        other.pump(&mut world);
        assert_eq!(other.completion().expect("done").status, Status::SUCCESS);
        assert_eq!(notification(&mut admin, &mut world).kind.is_some(), told);
    }
}

#[test]
fn persistence_is_offered_only_where_somebody_keeps_it_and_waits_for_that() {
    let mut world = world();
    let (mut admin, mut io) = Host::pair(&mut world, 16, true);
    let set = persistence_change::SET;
    assert!(register(&mut io, &mut world, 0xa, set).is(Status::INVALID_FIELD));
    let capabilities = |admin: &mut Host, world: &mut World| {
        let command = AdminCommand::Identify {
            namespace_id: 1,
            structure: identify::NAMESPACE,
            controller_id: 0,
            command_set: 0,
        };
        let (_, bytes) = admin.ask(world, &command, 4096);
        IdentifyNamespace::parse(bytes[..].first_chunk().expect("a page")).reservations
    };
    assert_eq!(capabilities(&mut admin, &mut world), 0xfe);

    let mut world = kept_world(None);
    let (mut admin, mut io) = Host::pair(&mut world, 16, true);
    assert_eq!(capabilities(&mut admin, &mut world), 0xff);
    let command = ReservationCommand::Register {
        action: register_action::REGISTER,
        ignore_existing_key: false,
        persistence: set,
    };
    let entry = NvmCommand::Reservation(command).encode(77, 1, Descriptor::in_capsule(16));
    let data = RegisterKeys { current: 0, new: 0xa }.encode();
    io.send(&entry, Some(&data), &world);
    io.pump(&mut world);
    assert_eq!(io.completion(), None, "nobody has kept it yet");
    let image = world.target.next_reservation_image().expect("an image");
    assert_eq!((world.target.next_reservation_image(), image.uuid), (None, HostId([1; 16])));
    world.target.reservation_kept(image.namespace, image.version, Ok(()));
    io.pump(&mut world);
    assert_eq!(statuses(&mut io), [(77, Status::SUCCESS)]);
    let kind = ReservationKind::WriteExclusive;
    acquire(&mut io, &world, acquire_action::ACQUIRE, kind, [0xa, 0]);
    io.pump(&mut world);
    let image = world.target.next_reservation_image().expect("an image");
    world.target.reservation_kept(image.namespace, image.version, Err(IoError::NoSpace));
    io.pump(&mut world);
    let status = io.completion().expect("done").status;
    assert!(status.is(Status::INTERNAL_ERROR), "not durable, so not done: {status}");

    // After a power loss with the image kept: another host still may not write.
    let mut world = kept_world(Some(&image.text));
    let (_admin, mut other) = another_host(&mut world, 2);
    let status = other.io(&mut world, 1, write(0, 1), Some(&[1; 512])).status;
    assert!(status.is(Status::RESERVATION_CONFLICT));
    let status = report(&mut other, &mut world);
    assert!(status.persists && status.registered[0].controller_id == 0xffff);
}

/// The usual world, whose first namespace's reservation is kept.
fn kept_world(image: Option<&str>) -> World {
    let mut world = world();
    let namespace = Namespace::new(Geometry::new(CAPACITY), HostId([1; 16])).expect("good");
    let namespace = namespace.with_kept_reservations(image).expect("a good image");
    let mut subsystem = Subsystem::new(nqn(SUBSYSTEM), "S1").expect("a serial number");
    subsystem.add_namespace(namespace).expect("room");
    world.target = Target::new(Settings::default()).expect("good settings");
    world.target.add_subsystem(subsystem).expect("a free name");
    world
}
