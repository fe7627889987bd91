//! Overlapping requests, and fills that must not go stale (invariants 2, 3, 4 and 18 of a cache).

use super::*;

#[test]
fn a_fill_in_flight_does_not_outlive_a_write() {
    for mode in CacheMode::ALL {
        let mut desk = Desk::new(CacheMode::WriteThrough, 4);
        let read = desk.read(0, 4096);
        desk.origin_answers(1, Ok(()));
        desk.reply(read);
        desk.cache.set_mode(mode);
        let write = desk.write(512, 512, 2);
        assert_eq!(desk.origin_answers(0, Ok(())), Operation::Write);
        desk.reply(write);
        assert_eq!(desk.device.len(), 1, "nothing is stored over a fill in flight");
        desk.settle(0);
        desk.cache.set_mode(CacheMode::WriteThrough);
        assert!(!desk.is_hit(512, 512), "{mode}: the fill brought the old content");
        assert!(desk.is_hit(0, 512), "{mode}: what the write did not touch is right");
    }
}

#[test]
fn a_write_waits_for_a_read_in_flight_and_the_next_read_for_the_write() {
    let mut desk = Desk::new(CacheMode::WriteThrough, 4);
    let first = desk.read(0, 4096);
    let write = desk.write(1024, 512, 2);
    let second = desk.read(1024, 512);
    let elsewhere = desk.read(512, 512);
    assert_eq!(desk.origin.len(), 2, "the first read, and the one that overlaps no write");
    desk.origin_answers(1, Ok(()));
    desk.reply(first);
    assert_eq!(desk.origin_answers(1, Ok(())), Operation::Read);
    desk.reply(elsewhere);
    assert_eq!(desk.origin_answers(0, Ok(())), Operation::Write);
    desk.reply(write);
    desk.settle(2);
    assert_eq!(desk.reply(second).buffer.expect("given back").to_vec(), [2; 512]);
}

#[test]
fn the_cached_copy_is_invalid_before_the_origin_is_written() {
    let mut desk = Desk::new(CacheMode::WriteThrough, 4);
    desk.warm(0);
    desk.write(0, 4096, 2);
    let slot = desk.cache.index.find(super::super::line::LineNumber(0)).expect("cached");
    assert!(desk.cache.index.valid(slot).is_empty());
}

#[test]
fn writes_to_one_line_reach_both_devices_in_one_order() {
    let mut desk = Desk::new(CacheMode::WriteThrough, 4);
    let first = desk.write(0, 4096, 1);
    let second = desk.write(0, 4096, 2);
    assert_eq!(desk.origin.len(), 1);
    desk.origin_answers(0, Ok(()));
    desk.reply(first);
    // The first store is still in flight: the second write must not race with it in the slot.
    assert_eq!(desk.device.len(), 1);
    desk.origin_answers(0, Ok(()));
    desk.reply(second);
    desk.settle(0);
    assert!(!desk.is_hit(0, 4096), "the slot holds the first write's bytes");
}

#[test]
fn a_slot_that_is_read_is_not_given_away() {
    let mut desk = Desk::new(CacheMode::WriteThrough, 1);
    for line in 0..16 {
        desk.warm(line * LINE);
    }
    let reads: Vec<_> = (0..16).map(|line| desk.read(line * LINE, 512)).collect();
    assert_eq!(desk.device.len(), 16, "all are hits, and in flight");
    let miss = desk.read(100 * LINE, 4096);
    let write = desk.write(200 * LINE, 4096, 3);
    desk.origin_answers(9, Ok(()));
    desk.reply(miss);
    desk.origin_answers(9, Ok(()));
    desk.reply(write);
    assert!(desk.device.iter().all(|request| request.operation == Operation::Read));
    assert_eq!(desk.statistics().fills_dropped, 2);
    while !desk.device.is_empty() {
        desk.device_answers(1, Ok(()));
    }
    assert_eq!(desk.replies.len(), reads.len());
}

#[test]
fn a_slot_whose_sectors_were_dropped_while_it_is_read_is_not_given_away() {
    let mut desk = Desk::new(CacheMode::WriteAround, 1);
    for line in 0..16 {
        desk.warm(line * LINE);
    }
    // Two readers of one sector; the first fails, which leaves the line without valid sectors.
    let id = desk.write(512, 3584, 0);
    desk.settle(0);
    desk.reply(id);
    desk.read(0, 512);
    desk.read(0, 512);
    desk.device_answers(0, Err(IoError::Media));
    let slot_read = desk.device[0].extent;
    for line in 20..60 {
        desk.read(line * LINE, 4096);
    }
    while let Some(at) = desk.origin.iter().position(|request| request.extent.offset != 0) {
        let request = desk.origin.remove(at);
        desk.answer(request, 4, Ok(()));
    }
    let stores = desk.device.iter().filter(|request| request.operation == Operation::Write);
    assert!(stores.clone().count() > 0, "other slots were given away");
    assert!(stores.clone().all(|store| !store.extent.overlaps(slot_read)));
}

#[test]
fn readers_of_one_missing_line_do_not_store_it_twice() {
    let mut desk = Desk::new(CacheMode::WriteThrough, 4);
    desk.read(0, 4096);
    desk.read(0, 4096);
    desk.origin_answers(1, Ok(()));
    desk.origin_answers(1, Ok(()));
    assert_eq!(desk.device.len(), 1);
}
