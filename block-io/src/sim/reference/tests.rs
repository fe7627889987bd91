//! The reference accepts what the contract allows and catches what it does not.

use super::*;
use crate::BufferPool;

const CAPACITY: u64 = 1 << 20;

fn reference() -> ReferenceDisk {
    ReferenceDisk::new(42, CAPACITY)
}

fn bytes(value: u8, sectors: usize) -> Vec<u8> {
    vec![value; sectors * SECTOR as usize]
}

/// Begins a write of `value` over the first `sectors` sectors.
fn begin_write(reference: &mut ReferenceDisk, id: u64, value: u8, sectors: usize) {
    let data = bytes(value, sectors);
    let extent = Extent::new(0, data.len() as u64);
    reference.begin_with(RequestId(id), Operation::Write, extent, false, &data);
}

fn write(reference: &mut ReferenceDisk, id: u64, value: u8, result: Result<(), IoError>) {
    begin_write(reference, id, value, 2);
    reference.end(RequestId(id), result);
}

fn begin(reference: &mut ReferenceDisk, id: u64, operation: Operation) {
    let extent = match operation {
        Operation::Flush => Extent::default(),
        _ => Extent::new(0, 2 * SECTOR),
    };
    reference.begin_with(RequestId(id), operation, extent, false, &[]);
}

fn end_read(reference: &mut ReferenceDisk, id: u64, value: u8) -> Result<(), Mismatch> {
    reference.end_read(RequestId(id), &bytes(value, 2))
}

fn read(reference: &mut ReferenceDisk, value: u8) -> Result<(), Mismatch> {
    reference.check_content(0, &bytes(value, 2))
}

/// Which of 0..=9 a read may return, asked without narrowing.
fn admissible(reference: &mut ReferenceDisk) -> Vec<u8> {
    begin(reference, 1000, Operation::Flush);
    // A write beside the reads keeps them from narrowing; its value is not asked for.
    begin_write(reference, 1001, 200, 2);
    let values = (0..10).filter(|value| read(reference, *value).is_ok()).collect();
    reference.end(RequestId(1001), Err(IoError::InvalidArgument));
    reference.end(RequestId(1000), Err(IoError::Media));
    values
}

#[test]
fn a_stale_read_and_a_lost_write_are_caught_and_named() {
    let mut reference = reference();
    assert_eq!(read(&mut reference, 0), Ok(()));
    write(&mut reference, 1, 1, Ok(()));
    write(&mut reference, 2, 2, Ok(()));
    begin(&mut reference, 3, Operation::Read);
    let stale = end_read(&mut reference, 3, 1).expect_err("stale");
    assert_eq!(
        stale.to_string(),
        "seed 42: read 3 returned all bytes 0x01 in sector 0 (offset 0); right would be the bytes \
         of request 2"
    );
    let lost = read(&mut reference, 0).expect_err("lost");
    assert_eq!((lost.sector, lost.found.as_str()), (0, "zeroes"));
    let half = [bytes(2, 1), bytes(1, 1)].concat();
    assert_eq!(reference.check_content(0, &half).expect_err("torn").sector, 1);
    assert_eq!(read(&mut reference, 2), Ok(()));
}

#[test]
fn foreign_bytes_in_an_untouched_sector_are_caught() {
    let mut reference = reference();
    let foreign = reference.check_content(4096, &bytes(5, 1)).expect_err("never written");
    assert_eq!(foreign.expected, ["zeroes (initial)"]);
    reference.set_content(4096, &bytes(5, 1));
    assert_eq!(reference.check_content(4096, &bytes(5, 1)), Ok(()));
    assert!(reference.check_content(4096, &bytes(0, 1)).is_err());
}

#[test]
fn a_read_may_return_what_a_write_beside_it_brings() {
    let mut reference = reference();
    write(&mut reference, 1, 1, Ok(()));
    for id in [10, 11, 12, 13] {
        begin(&mut reference, id, Operation::Read);
    }
    begin_write(&mut reference, 2, 2, 2);
    assert_eq!(end_read(&mut reference, 10, 2), Ok(()), "applied, not acked");
    assert_eq!(end_read(&mut reference, 11, 1), Ok(()), "not applied");
    reference.end(RequestId(2), Ok(()));
    assert_eq!(end_read(&mut reference, 12, 1), Ok(()), "began before the ack");
    assert!(end_read(&mut reference, 13, 0).is_err(), "older than its begin");
    assert!(read(&mut reference, 1).is_err(), "began after the ack");
    assert_eq!(read(&mut reference, 2), Ok(()));
}

#[test]
fn writes_beside_each_other_may_end_either_way_but_do_not_flip() {
    let mut reference = reference();
    begin_write(&mut reference, 1, 1, 2);
    begin_write(&mut reference, 2, 2, 2);
    reference.end(RequestId(2), Ok(()));
    reference.end(RequestId(1), Ok(()));
    assert_eq!(admissible(&mut reference), [1, 2]);
    assert_eq!(read(&mut reference, 2), Ok(()));
    assert!(read(&mut reference, 1).is_err(), "a flip");
    assert_eq!(read(&mut reference, 2), Ok(()));
}

#[test]
fn a_read_that_began_before_another_ended_may_not_contradict_it() {
    let mut reference = reference();
    write(&mut reference, 1, 1, Err(IoError::Media));
    begin(&mut reference, 10, Operation::Read);
    begin(&mut reference, 11, Operation::Read);
    assert_eq!(end_read(&mut reference, 10, 1), Ok(()));
    assert!(end_read(&mut reference, 11, 0).is_err());
}

#[test]
fn a_failed_write_is_done_or_not_unless_it_cannot_be() {
    let mut reference = reference();
    write(&mut reference, 1, 1, Ok(()));
    write(&mut reference, 2, 2, Err(IoError::Media));
    write(&mut reference, 3, 3, Err(IoError::InvalidArgument));
    assert_eq!(admissible(&mut reference), [1, 2]);
    assert_eq!(read(&mut reference, 1), Ok(()));
    assert!(read(&mut reference, 2).is_err(), "it was seen not to be done");
    write(&mut reference, 4, 4, Ok(()));
    assert_eq!(admissible(&mut reference), [4]);
}

#[test]
fn a_lost_write_may_come_late_until_it_is_fenced() {
    let mut reference = reference().with_late_writes(true);
    write(&mut reference, 1, 1, Ok(()));
    write(&mut reference, 2, 2, Err(IoError::ConnectionLost));
    assert_eq!(read(&mut reference, 1), Ok(()));
    assert_eq!(read(&mut reference, 2), Ok(()), "no flip: it came late");
    write(&mut reference, 3, 3, Ok(()));
    assert_eq!(admissible(&mut reference), [2, 3], "even over an acked write");
    reference.fence();
    assert_eq!(read(&mut reference, 3), Ok(()));
    assert!(read(&mut reference, 2).is_err(), "fenced");
    write(&mut reference, 4, 4, Err(IoError::TimedOut));
    reference.fence();
    write(&mut reference, 5, 5, Ok(()));
    assert_eq!(admissible(&mut reference), [5], "an ack after the fence settles it");
}

#[test]
fn discards_leave_anything_but_always_the_same_and_zeroes_are_zeroes() {
    let mut reference = reference();
    write(&mut reference, 1, 1, Ok(()));
    begin(&mut reference, 2, Operation::Discard);
    reference.end(RequestId(2), Ok(()));
    assert_eq!(read(&mut reference, 77), Ok(()));
    assert!(read(&mut reference, 1).is_err(), "a flip");
    begin(&mut reference, 3, Operation::WriteZeroes);
    reference.end(RequestId(3), Ok(()));
    assert!(read(&mut reference, 77).is_err());
    assert_eq!(read(&mut reference, 0), Ok(()));
}

#[test]
fn a_power_cut_brings_back_only_what_was_not_durable() {
    let mut reference = reference().with_volatile_cache(true);
    write(&mut reference, 1, 1, Ok(()));
    write(&mut reference, 2, 2, Ok(()));
    begin(&mut reference, 3, Operation::Flush);
    write(&mut reference, 4, 4, Ok(()));
    reference.end(RequestId(3), Ok(()));
    write(&mut reference, 5, 5, Ok(()));
    assert_eq!(read(&mut reference, 5), Ok(()));
    begin_write(&mut reference, 6, 6, 2);
    reference.power_cut();
    assert_eq!(reference.in_flight(), 0);
    assert_eq!(admissible(&mut reference), [2, 4, 5, 6], "the flush began before 4");
    assert_eq!(read(&mut reference, 4), Ok(()));
    assert!(read(&mut reference, 5).is_err(), "stable again");
}

#[test]
fn a_failed_flush_and_force_unit_access_are_what_they_say() {
    let mut reference = reference().with_volatile_cache(true);
    write(&mut reference, 1, 1, Ok(()));
    begin(&mut reference, 2, Operation::Flush);
    reference.end(RequestId(2), Err(IoError::Media));
    reference.power_cut();
    assert_eq!(admissible(&mut reference), [0, 1]);
    let extent = Extent::new(0, 2 * SECTOR);
    reference.begin_with(RequestId(3), Operation::Write, extent, true, &bytes(3, 2));
    reference.end(RequestId(3), Ok(()));
    reference.power_cut();
    assert_eq!(admissible(&mut reference), [3]);
}

#[test]
fn without_a_volatile_cache_an_acked_write_survives() {
    let mut reference = reference();
    write(&mut reference, 1, 1, Ok(()));
    begin_write(&mut reference, 2, 2, 2);
    reference.power_cut();
    assert_eq!(admissible(&mut reference), [1, 2]);
}

#[test]
#[should_panic(expected = "seed 42: RequestId(7) ended but is not in flight")]
fn a_second_completion_is_caught() {
    let mut reference = reference();
    write(&mut reference, 7, 1, Ok(()));
    reference.end(RequestId(7), Ok(()));
}

#[test]
fn patterns_are_unique_and_tell_what_they_are() {
    let buffer = BufferPool::heap().allocate(2048);
    let mut stamps_seen = std::collections::BTreeSet::new();
    for (write, offset) in [(1, 0), (2, 0), (1, 2048), (1 << 40, 1 << 50)] {
        fill_pattern(&buffer, write, offset);
        stamps_seen.extend(stamps(&buffer.to_vec()));
    }
    assert_eq!(stamps_seen.len(), 16);
    let mut sector = buffer.to_vec()[512..1024].to_vec();
    let offset = (1_u64 << 50) + 512;
    assert_eq!(describe(&sector), format!("write {} for offset {offset}", 1_u64 << 40));
    sector[100] ^= 1;
    assert!(describe(&sector).ends_with("damaged from byte 100 on"));
    assert_eq!(describe(&[0; 512]), "zeroes");
    assert_eq!(describe(&[3; 512]), "all bytes 0x03");
    assert!(describe(b"GET / HTTP/1.1 and more").starts_with("unknown bytes [47, 45"));
    assert_eq!(stamps(&[0; 512]).collect::<Vec<_>>(), [0]);
}

#[test]
fn what_a_read_ruled_out_is_gone_for_good_once_what_it_saw_is_durable() {
    let flush = |reference: &mut ReferenceDisk| {
        begin(reference, 50, Operation::Flush);
        reference.end(RequestId(50), Ok(()));
    };
    let mut reference = reference().with_volatile_cache(true);
    begin_write(&mut reference, 1, 1, 2);
    write(&mut reference, 2, 2, Ok(()));
    reference.end(RequestId(1), Ok(()));
    assert_eq!(read(&mut reference, 2), Ok(()));
    flush(&mut reference);
    reference.power_cut();
    assert_eq!(admissible(&mut reference), [2]);
    write(&mut reference, 3, 3, Err(IoError::Media));
    assert_eq!(read(&mut reference, 3), Ok(()));
    flush(&mut reference);
    reference.power_cut();
    assert_eq!(admissible(&mut reference), [2, 3], "a flush promises nothing of a failed write");
}
