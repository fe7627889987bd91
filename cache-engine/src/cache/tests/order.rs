//! Overlapping requests, and fills that must not go stale (invariants 2, 3, 4 and 18 of a cache).

use super::*;

#[test]
fn a_fill_in_flight_does_not_outlive_a_write() {
    for mode in CacheMode::ALL {
        let mut desk = Desk::new(CacheMode::WriteThrough, 4);
        let read = desk.read(0, 4096);
        desk.origin_answers(1, Ok(()));
        desk.reply(read);
        desk.set_mode(mode);
        let write = desk.write(512, 512, 2);
        assert_eq!(desk.origin_answers(0, Ok(())), Operation::Write);
        desk.reply(write);
        assert_eq!(desk.device.len(), 1, "nothing is stored over a fill in flight");
        desk.settle(0);
        desk.set_mode(CacheMode::WriteThrough);
        assert!(!desk.is_hit(512, 512), "{mode}: the fill brought the old content");
        assert!(desk.is_hit(512, 512), "{mode}: read again, it is right");
    }
}

#[test]
fn a_write_waits_for_a_read_in_flight_and_the_next_read_for_the_write() {
    let mut desk = Desk::new(CacheMode::WriteThrough, 4);
    let first = desk.read(0, 4096);
    let write = desk.write(1024, 512, 2);
    let second = desk.read(1024, 512);
    let elsewhere = desk.read(LINE, 512);
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
fn a_slot_that_is_read_under_a_lock_is_not_given_away() {
    let mut desk = Desk::new(CacheMode::WriteThrough, 1);
    for line in 0..16 {
        desk.warm(line * LINE);
    }
    let reads: Vec<_> = (0..8).map(|pair| desk.read(2 * pair * LINE, 2 * LINE)).collect();
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
fn a_hit_in_place_whose_slot_was_given_away_starts_again() {
    let mut desk = Desk::new(CacheMode::WriteThrough, 1);
    for line in 0..16 {
        desk.warm(line * LINE);
    }
    let read = desk.read(0, 512);
    let slot = desk.device.remove(0);
    // Whatever else comes by: sooner or later the slot is another line's.
    for line in 100..200 {
        let id = desk.read(line * LINE, 4096);
        desk.settle(4);
        desk.reply(id);
    }
    desk.answer(slot, 4, Ok(()));
    assert!(desk.replies.is_empty(), "the bytes are another line's");
    desk.settle(1);
    assert_eq!(desk.reply(read).buffer.expect("given back").to_vec(), [1; 512]);
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
