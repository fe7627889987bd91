//! Parts, back-pressure, closing: what happens between a request and its reply.

use block_io::{Completion, Extent, Geometry, IoError, Operation, Request};

use super::super::Limits;
use super::{Bench, request, simple};

const SIZE: u64 = 64 << 20;

fn requests(bench: &mut Bench) -> Vec<Request> {
    std::iter::from_fn(|| bench.connection.next_request()).collect()
}

fn take_only(bench: &mut Bench, bytes: &[u8]) -> usize {
    let buffer = bench.buffer(bytes);
    bench.connection.receive(&buffer).expect("no fault")
}

#[test]
fn large_requests_go_in_parts_and_get_one_reply() {
    let mut bench = Bench::transmitting(Geometry::new(SIZE), false);
    take_only(&mut bench, &request(0, 0, 1, 512, 5 << 20));
    let parts = requests(&mut bench);
    assert_eq!(parts.len(), 5);
    let mut at = 512;
    for part in &parts {
        assert_eq!((part.operation, part.extent), (Operation::Read, Extent::new(at, 1 << 20)));
        at += 1 << 20;
    }
    for (index, part) in parts.into_iter().enumerate().rev() {
        part.buffer.as_ref().expect("a read's").fill(index as u8);
        bench.connection.complete(part.complete(Ok(())));
    }
    let sent = bench.sent();
    assert_eq!(sent[..16], simple(0, 1));
    for (index, mebibyte) in sent[16..].chunks(1 << 20).enumerate() {
        assert!(mebibyte.iter().all(|byte| *byte == index as u8));
    }
}

#[test]
fn a_failed_part_fails_the_request_once_and_stops_the_rest() {
    let mut bench = Bench::transmitting(Geometry::new(SIZE), false);
    take_only(&mut bench, &request(0, 0, 1, 0, 5 << 20));
    let first = bench.connection.next_request().expect("a part");
    let second = bench.connection.next_request().expect("a part");
    bench.connection.complete(first.complete(Err(IoError::Media)));
    assert!(bench.connection.next_request().is_none(), "the rest is not tried");
    assert!(bench.sent().is_empty(), "a part is in flight");
    bench.connection.complete(second.complete(Err(IoError::NoSpace)));
    assert_eq!(bench.sent(), simple(5, 1), "the first error is told");
    // The place is free and nothing of the old request is left in it.
    take_only(&mut bench, &request(0, 0, 2, 0, 512));
    assert_eq!(requests(&mut bench).len(), 1);
}

#[test]
fn a_discard_with_fua_is_flushed_before_its_reply() {
    let mut bench = Bench::transmitting(Geometry::new(SIZE), false);
    take_only(&mut bench, &request(1, 4, 1, 0, 4096));
    let discard = bench.connection.next_request().expect("the discard");
    assert_eq!(discard.operation, Operation::Discard);
    assert!(bench.connection.next_request().is_none());
    bench.connection.complete(discard.complete(Ok(())));
    assert!(bench.sent().is_empty());
    let flush = bench.connection.next_request().expect("the flush");
    assert_eq!(flush.operation, Operation::Flush);
    bench.connection.complete(flush.complete(Ok(())));
    assert_eq!(bench.sent(), simple(0, 1));
}

#[test]
fn fua_reaches_writes_and_zeroes_and_nothing_else() {
    let mut bench = Bench::transmitting(Geometry::new(SIZE), false);
    let mut bytes = request(1, 1, 1, 0, 512);
    bytes.resize(bytes.len() + 512, 0);
    bytes.extend([request(1, 6, 2, 0, 512), request(1, 0, 3, 0, 512)].concat());
    bytes.extend(request(0, 6, 4, 0, 512));
    take_only(&mut bench, &bytes);
    let flags: Vec<_> = requests(&mut bench).iter().map(|part| part.force_unit_access).collect();
    assert_eq!(flags, [true, true, false, false]);
}

#[test]
fn requests_in_flight_are_bounded_and_the_rest_waits() {
    let limits = Limits { requests_max: 3, ..Limits::default() };
    let mut bench = Bench::with_limits(Geometry::new(SIZE), limits);
    take_only(&mut bench, &[&3_u32.to_be_bytes()[..], &super::option(1, b"")].concat());
    bench.sent();
    let five = (0..5).flat_map(|cookie| request(0, 3, cookie, 0, 0)).collect::<Vec<_>>();
    assert_eq!(take_only(&mut bench, &five), 3 * 28);
    assert!(!bench.connection.wants_bytes());
    let mut flushes = requests(&mut bench);
    assert_eq!(flushes.len(), 3);
    bench.connection.complete(flushes.remove(1).complete(Ok(())));
    assert_eq!(take_only(&mut bench, &five[3 * 28..]), 28);
    assert_eq!(bench.sent(), simple(0, 1));
}

#[test]
fn bytes_in_flight_are_bounded_until_they_are_sent() {
    let limits = Limits { bytes_max: 8192, ..Limits::default() };
    let mut bench = Bench::with_limits(Geometry::new(SIZE), limits);
    take_only(&mut bench, &[&3_u32.to_be_bytes()[..], &super::option(1, b"")].concat());
    bench.sent();
    let three = request(0, 0, 1, 0, 4096).repeat(3);
    assert_eq!(take_only(&mut bench, &three), 2 * 28);
    bench.work();
    assert_eq!(take_only(&mut bench, &three[56..]), 0, "read, and not yet sent");
    bench.connection.outgoing().sent(4096 + 16 + 100);
    assert_eq!(take_only(&mut bench, &three[56..]), 28);
}

#[test]
fn payloads_may_be_received_in_place_or_handed_in() {
    let data: Vec<u8> = (0..70_000_u32).map(|index| (index % 251) as u8).collect();
    let data = &data[..69_632];
    for cut in [0, 1, 511, 4096, 69_631, 69_632] {
        let mut bench = Bench::transmitting(Geometry::new(SIZE), false);
        take_only(&mut bench, &[&request(0, 1, 7, 512, 69_632), &data[..cut]].concat());
        if cut < data.len() {
            let target = bench.connection.payload_target().expect("a payload comes");
            assert_eq!(target.len(), data.len() - cut);
            target.slice(0, 1).copy_from_slice(&data[cut..=cut]);
            bench.connection.payload_received(1);
            let target = bench.connection.payload_target();
            assert_eq!(target.is_none(), cut + 1 == data.len());
            take_only(&mut bench, &data[cut + 1..]);
        }
        assert!(bench.connection.payload_target().is_none());
        bench.work();
        assert_eq!(bench.sent(), simple(0, 7));
        assert!(bench.device.content(Extent::new(512, 69_632)) == data, "cut {cut}");
    }
}

#[test]
fn closing_answers_what_is_in_flight_and_drops_what_came_in_part() {
    let mut bench = Bench::transmitting(Geometry::new(SIZE), false);
    take_only(&mut bench, &request(0, 3, 1, 0, 0));
    take_only(&mut bench, &[request(0, 1, 2, 0, 4096), vec![1; 4000]].concat());
    bench.connection.close();
    assert!(!bench.connection.wants_bytes());
    assert!(bench.connection.payload_target().is_none());
    bench.connection.payload_received(96);
    let mut left = requests(&mut bench);
    assert_eq!(left.len(), 1);
    let flush = left.pop().expect("the flush");
    assert!(!bench.connection.is_finished());
    bench.connection.complete(Completion { id: flush.id, result: Ok(()), buffer: None });
    assert!(!bench.connection.is_finished());
    assert_eq!(bench.sent(), simple(0, 1));
    assert!(bench.connection.is_finished());
    assert_eq!(bench.device.content(Extent::new(0, 4096)), [0; 4096]);
}
