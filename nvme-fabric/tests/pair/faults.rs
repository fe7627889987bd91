//! What is refused, and how it is told: wrong names, wrong namespaces, broken PDUs, wrong digests.

use std::time::Duration;

use block_io::{IoError, Request, RequestId};
use nvme_fabric::host::Controller;
use nvme_fabric::host::controller::Purpose;
use nvme_fabric::pdu::Digests;

use crate::harness::{Pair, Setup, nqn};

fn refused(pair: &mut Pair<Controller>) -> String {
    pair.run_until(|pair| pair.host.is_up() || pair.host.is_over());
    assert!(!pair.host.is_up());
    pair.error()
}

#[test]
fn a_refused_connect_names_what_was_offered_and_which_part_was_wrong() {
    let mut setup = Setup::new(0);
    setup.options.subsystem = nqn("nqn.2014-08.com.example:nothing");
    let error = refused(&mut setup.connect());
    for part in [
        "target:4420",
        "nqn.2014-08.com.example:nothing",
        "nqn.2014-08.com.example:host",
        "0x182",
        "SUBNQN nqn.2014-08.com.example:nothing (is there such a subsystem?), byte 256 of the data",
    ] {
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn a_missing_namespace_is_told_with_those_that_are_there() {
    let mut pair = Setup::new(0).pair(|pool, options, now| {
        Controller::new(pool, options, Purpose::Namespace(5), now).expect("options are right")
    });
    let error = refused(&mut pair);
    assert!(error.contains("no namespace 5") && error.contains("active are: 1"), "{error}");
}

#[test]
fn nobody_there_is_an_error_at_once() {
    let setup = Setup::new(0);
    let mut pair = setup.connect();
    pair.network.refuse(crate::harness::TARGET, true);
    let error = refused(&mut pair);
    assert!(error.contains("connecting to target:4420"), "{error}");
    assert_eq!(pair.world.now().nanoseconds(), 0);
}

#[test]
fn options_out_of_range_are_refused_by_name() {
    let setup = Setup::new(0);
    let pool = block_io::BufferPool::heap();
    let now = block_io::Timestamp(0);
    for (depth, queues, namespace, field) in
        [(1, 1, 1, "queue depth 1"), (128, 0, 1, "I/O queues 0"), (128, 1, 0, "namespace")]
    {
        let mut options = setup.options.clone();
        options.queue_depth = depth;
        options.io_queues = queues;
        let made = Controller::new(&pool, options, Purpose::Namespace(namespace), now);
        let error = made.expect_err("out of range").to_string();
        assert!(error.contains(field), "{error}");
    }
}

#[test]
fn several_io_queues_work_beside_each_other() {
    let mut setup = Setup::new(5);
    setup.options.io_queues = 3;
    let mut pair = setup.connect();
    let queues = [pair.bring_up(4), 0, 0];
    let queues =
        [queues[0], pair.host.open_queue(4).expect("2"), pair.host.open_queue(4).expect("3")];
    assert_eq!(queues, [1, 2, 3]);
    assert!(pair.host.open_queue(4).is_err(), "all are in use");
    for queue in queues {
        let buffer = pair.pool.allocate(4096);
        buffer.fill(queue as u8);
        let write = Request::write(RequestId(1), u64::from(queue) * 4096, buffer);
        assert_eq!(pair.request(queue, write).result, Ok(()));
    }
    for queue in queues {
        let read = Request::read(RequestId(2), u64::from(queue) * 4096, pair.pool.allocate(4096));
        let done = pair.request(queue, read);
        assert_eq!(done.buffer.expect("given back").to_vec(), [queue as u8; 4096]);
    }
    pair.host.close_queue(2);
    assert_eq!(pair.host.open_queue(4).expect("free again"), 2);
}

#[test]
fn a_command_that_is_never_answered_ends_the_association_in_bounded_time() {
    let mut pair = Setup::new(0).connect();
    let queue = pair.bring_up(4);
    pair.disk.change_faults(|faults| faults.hang = 1000);
    let started = pair.world.now();
    let read = Request::read(RequestId(1), 0, pair.pool.allocate(4096));
    assert_eq!(pair.request(queue, read).result, Err(IoError::ConnectionLost));
    let waited = pair.world.now().since(started);
    assert!(waited >= Duration::from_secs(30) && waited < Duration::from_secs(36), "{waited:?}");
    assert!(pair.error().contains("a command"), "{}", pair.error());
    let read = Request::read(RequestId(2), 0, pair.pool.allocate(4096));
    let started = pair.world.now();
    assert_eq!(pair.request(queue, read).result, Err(IoError::ConnectionLost));
    assert_eq!(pair.world.now(), started, "at once");
}

#[test]
fn digests_of_all_kinds_come_up_and_are_used() {
    for (header, data) in [(false, false), (true, false), (false, true), (true, true)] {
        let mut setup = Setup::new(0);
        setup.digests = Digests { header, data };
        let mut pair = setup.connect();
        let queue = pair.bring_up(4);
        let buffer = pair.pool.allocate(4096);
        let write = Request::write(RequestId(1), 0, buffer);
        assert_eq!(pair.request(queue, write).result, Ok(()));
        // The last PDU to the target is the write: 72 bytes, 4096, and the digests.
        let digests = 4 * (usize::from(header) + usize::from(data));
        let tape = &pair.tapes[1].to_target;
        let length = 72 + 4096 + digests;
        let pdu = &tape[tape.len() - length..];
        assert_eq!(pdu[0], 4);
        assert_eq!(pdu[1], u8::from(header) | u8::from(data) << 1);
        assert_eq!(pdu[4..8], (length as u32).to_le_bytes());
    }
}
