//! Caches on a device that outlives them: lines of before a crash, encryption, checks of every
//! read, and giving up (invariants 14 to 17 and 24).

use std::time::Duration;

use super::rig::{Rig, cipher, content, small_lines};
use super::*;
use crate::cache::line::LineNumber;
use crate::cache::metadata::superblock::State;
use crate::cache::outbox::Token;
use crate::cache::{Event, Verification};

const SIZE: u64 = 1 << 20;

/// A volume with 8 lines of before a crash, loaded and not verified.
fn crashed() -> (Rig, VolumeId) {
    let mut rig = Rig::on_device(small_lines(), 1);
    let id = rig.add("a", SIZE);
    rig.hits(id, 8);
    rig.rest();
    rig.crash();
    let id = rig.add("a", SIZE);
    rig.load();
    (rig, id)
}

/// Where the first block of a line lies on the device.
fn place_of(rig: &Rig, line: u64) -> u64 {
    let slot = rig.cache.index.find(LineNumber(line)).expect("it is cached");
    rig.cache.cache_offset(slot, 0)
}

/// Does and answers the device's request at this place of the queue with damage in each byte.
fn garbage(rig: &mut Rig, at: usize) {
    let request = rig.of_device.remove(at);
    request.buffer.as_ref().expect("a read").fill(0xEE);
    rig.cache.complete(rig.now, request.complete(Ok(())));
    rig.collect();
}

/// The first request of the device that is about records.
fn page_request(rig: &Rig) -> Option<usize> {
    let records = |one: &Request| matches!(Token::of(one.id), Token::Metadata { .. });
    rig.of_device.iter().position(records)
}

/// Answers what the device is asked about records, but for the activity log.
fn answer_all_but_activity(rig: &mut Rig) {
    let layout = rig.superblock().layout;
    let log = layout.activity_page_offset(0, 0)..layout.journal_offset;
    let wanted = |request: &Request| {
        matches!(Token::of(request.id), Token::Metadata { .. })
            && (request.operation == Operation::Flush || !log.contains(&request.extent.offset))
    };
    while let Some(at) = rig.of_device.iter().position(wanted) {
        rig.device_answers(at, Ok(()));
    }
}

#[test]
fn what_a_write_makes_invalid_is_recorded_at_once_unless_the_device_names_its_extent() {
    let mut rig = Rig::on_device(small_lines(), 1);
    let id = rig.add("a", SIZE);
    assert!(!rig.is_hit(id, 0, LINE), "stored, and its record waits");
    rig.write(id, Extent::new(0, LINE), b'w');
    assert_eq!(
        rig.of_origins.len(),
        1,
        "nothing is recorded of the extent: the write need not wait"
    );
    // Everything that waits is recorded, before the device names the extent.
    let elsewhere = Extent::new(8 * LINE, LINE);
    rig.cache.invalidate(id, elsewhere).expect("the volume is there");
    rig.collect();
    for _ in 0..10 {
        rig.tick();
        answer_all_but_activity(&mut rig);
    }
    let journal = rig.superblock().layout.journal_offset;
    assert_ne!(rig.device.read(Extent::new(journal, 4)), [0; 4], "the journal was written");
    rig.origin_answers(0);
    assert_eq!(rig.of_origins.len(), 0);
    // The store was not: the slot still holds what was there before.
    rig.crash();
    let id = rig.add("a", SIZE);
    rig.load();
    assert_eq!(rig.hits(id, 1), 0);
}

#[test]
fn a_write_whose_store_fails_leaves_nothing_recorded_of_what_was_there() {
    let mut rig = Rig::on_device(small_lines(), 1);
    rig.add("a", SIZE);
    rig.hits(VolumeId(0), 2);
    rig.stop_and_start();
    let id = rig.add("a", SIZE);
    rig.load();
    rig.put(id, Extent::new(LINE, LINE), b'v');
    let write = rig.write(id, Extent::new(0, LINE), b'w');
    let store = rig.data_request().expect("the extent is named, so that it begins at once");
    rig.device_answers(store, Err(IoError::Media));
    rig.settle();
    assert_eq!(rig.reply(write).result, Ok(()));
    rig.stop_and_start();
    let id = rig.add("a", SIZE);
    rig.load();
    assert_eq!(rig.hits(id, 2), 1, "the other line");
}

#[test]
fn a_line_of_before_a_crash_is_checked_once() {
    let (mut rig, id) = crashed();
    assert_eq!(rig.hits(id, 8), 8);
    assert_eq!((rig.statistics(id).lines_verified, rig.hits(id, 8)), (8, 8));
    let statistics = rig.statistics(id);
    assert_eq!((statistics.lines_verified, statistics.checksum_mismatches), (8, 0));
}

#[test]
fn who_waits_for_a_read_goes_on_when_its_checksums_come_last() {
    let (mut rig, id) = crashed();
    let extent = Extent::new(3 * LINE, LINE);
    let read = rig.read(id, extent.offset, extent.length);
    let write = rig.write(id, extent, 1);
    let data = rig.data_request().expect("the line is read");
    rig.device_answers(data, Ok(()));
    let page = page_request(&rig).expect("its checksums are");
    rig.device_answers(page, Ok(()));
    rig.bytes(read);
    let asked = rig.of_origins.len() + rig.of_device.len();
    assert!(asked > 0, "the write waits, and nobody will ever wake it");
    rig.settle();
    assert_eq!(rig.reply(write).result, Ok(()));
}

#[test]
fn a_line_that_is_not_what_was_recorded_is_read_from_the_origin_and_cached_again() {
    let (mut rig, id) = crashed();
    let place = place_of(&rig, 3);
    rig.device.write(place + 512, &[1; 8]);
    assert_eq!(rig.hits(id, 8), 7);
    assert_eq!(rig.statistics(id).checksum_mismatches, 1);
    assert_eq!(rig.hits(id, 8), 8, "what was stored instead is served");
    assert_eq!(rig.statistics(id).checksum_mismatches, 1);
}

#[test]
fn a_line_whose_checksums_can_not_be_read_is_not_served() {
    let (mut rig, id) = crashed();
    let name = rig.read(id, 0, LINE);
    assert!(page_request(&rig).is_some(), "its page is asked for");
    while let Some(page) = page_request(&rig) {
        rig.device_answers(page, Err(IoError::Media));
    }
    rig.settle();
    assert_eq!(rig.bytes(name), content(b'a', Extent::new(0, LINE)));
    assert_eq!(rig.statistics(id).lines_verified, 0);
    let name = rig.read(id, LINE, LINE);
    let page = page_request(&rig).expect("likewise");
    garbage(&mut rig, page);
    rig.settle();
    assert_eq!(rig.bytes(name), content(b'a', Extent::new(LINE, LINE)));
    assert_eq!(rig.statistics(id).lines_verified, 0);
    rig.hits(id, 8);
    assert_eq!(rig.hits(id, 8), 8);
}

#[test]
fn a_line_that_can_not_be_read_to_be_checked_is_read_from_the_origin() {
    let (mut rig, id) = crashed();
    let name = rig.read(id, 0, 512);
    let data = rig.data_request().expect("the line is read");
    rig.device_answers(data, Err(IoError::Media));
    rig.settle();
    assert_eq!(rig.bytes(name), content(b'a', Extent::new(0, 512)));
    assert_eq!(rig.statistics(id).cache_read_errors, 1);
}

#[test]
fn a_line_that_is_written_to_while_it_is_checked_is_not_what_was_checked() {
    // Of lines of several blocks: the write does not wait for the read.
    for value in [b'a', b'w'] {
        let mut rig = Rig::on_device(plain(), 1);
        let id = rig.add("a", SIZE);
        rig.is_hit(id, 0, 16384);
        rig.rest();
        rig.crash();
        let id = rig.add("a", SIZE);
        rig.load();
        let name = rig.read(id, 0, LINE);
        let at = rig.data_request().expect("the line is read");
        let held = rig.of_device.remove(at);
        let write = rig.write(id, Extent::new(2 * LINE, LINE), value);
        rig.settle();
        rig.of_device.push(held);
        rig.settle();
        assert_eq!(rig.bytes(name), content(b'a', Extent::new(0, LINE)));
        assert_eq!(rig.reply(write).result, Ok(()));
        assert_eq!(rig.statistics(id).lines_verified, 0);
        for _ in 0..2 {
            rig.is_hit(id, 0, 16384);
        }
        assert!(rig.is_hit(id, 0, 16384), "{:?}", rig.statistics(id));
    }
}

#[test]
fn a_line_that_loses_its_slot_while_it_is_checked_is_read_from_the_origin() {
    let (mut rig, id) = crashed();
    let name = rig.read(id, 0, 512);
    assert_eq!(rig.of_device.len(), 2, "the line, and its page");
    let held: Vec<_> = rig.of_device.drain(..).collect();
    rig.cache.invalidate(id, Extent::new(0, LINE)).expect("it is there");
    rig.collect();
    rig.of_device.extend(held);
    rig.settle();
    assert_eq!(rig.bytes(name), content(b'a', Extent::new(0, 512)));
    assert_eq!(rig.statistics(id).lines_verified, 0);
    rig.hits(id, 8);
    assert_eq!(rig.hits(id, 8), 8);
}

#[test]
fn a_line_of_before_a_crash_that_is_written_is_cached_as_any_other() {
    let (mut rig, id) = crashed();
    rig.put(id, Extent::new(0, LINE), 7);
    assert!(rig.is_hit(id, 0, LINE), "{:?}", rig.statistics(id));
    assert!(rig.is_hit(id, 0, 512));
    assert_eq!(rig.statistics(id).checksum_mismatches, 0);
}

#[test]
fn a_written_extent_is_cold_after_a_crash_and_warm_after_a_stop() {
    for stops in [true, false] {
        let mut rig = Rig::on_device(small_lines(), 4);
        let id = rig.add("a", 16 << 20);
        rig.hits(id, 8);
        rig.is_hit(id, 8 << 20, LINE);
        rig.rest();
        rig.put(id, Extent::new(0, LINE), 5);
        if stops {
            rig.stop_and_start()
        } else {
            rig.crash()
        }
        let id = rig.add("a", 16 << 20);
        rig.load();
        assert_eq!(rig.hits(id, 8), if stops { 8 } else { 0 });
        assert!(rig.is_hit(id, 8 << 20, LINE), "another extent");
        assert_eq!(rig.statistics(id).lines_verified, u64::from(!stops));
    }
}

#[test]
fn every_read_is_checked_where_that_is_wanted() {
    let config = CacheConfig { verification: Verification::Always, ..small_lines() };
    let mut rig = Rig::on_device(config, 1);
    let id = rig.add("a", SIZE + 1536);
    rig.hits(id, 8);
    rig.is_hit(id, SIZE, 1536);
    assert_eq!(rig.hits(id, 8), 8);
    assert!(rig.is_hit(id, SIZE + 512, 512), "part of the short block");
    for (round, line) in [0, 5].into_iter().enumerate() {
        let place = place_of(&rig, line);
        let byte = rig.device.read(Extent::new(place + 4088, 1))[0];
        rig.device.write(place + 4088, &[byte ^ 4]);
        assert!(!rig.is_hit(id, line * LINE, 512), "all of the block is checked");
        assert_eq!(rig.statistics(id).checksum_mismatches, round as u64 + 1);
        assert!(rig.is_hit(id, line * LINE, LINE));
    }
    rig.stop_and_start();
    let id = rig.add("a", SIZE + 1536);
    rig.load();
    assert_eq!(rig.hits(id, 8), 8, "checked after a stop in order too");
    assert_eq!(rig.statistics(id).lines_verified, 8);
}

#[test]
fn what_is_encrypted_is_not_to_be_read_on_the_device() {
    for verification in Verification::ALL {
        let config = CacheConfig { verification, ..plain() };
        let mut rig = Rig::on_device(config, 2);
        let size = SIZE + 4096 + 1536;
        let (secret, open) = (Some(cipher(1)), Some(cipher(2)));
        let id = rig.add_encrypted("a", size, secret);
        let other = rig.add_encrypted("b", size, open);
        let tail = Extent::new(SIZE, 4096 + 1536);
        for _ in 0..2 {
            rig.hits(id, 8);
            rig.hits(other, 2);
            rig.is_hit(id, tail.offset, tail.length);
        }
        rig.put(id, Extent::new(9 * LINE, LINE), 0x77);
        assert!(rig.is_hit(id, 9 * LINE, LINE));
        for (offset, length) in [(512, 512), (3584, 1024), (9 * LINE + 512, 1024)] {
            assert!(rig.is_hit(id, offset, length), "part of a block: {offset}+{length}");
        }
        assert!(rig.is_hit(id, tail.end() - 512, 512), "part of the short block");
        assert!(rig.is_hit(id, tail.offset + 512, tail.length - 512));
        let layout = rig.superblock().layout;
        let stored = rig.device.read(Extent::new(layout.data_offset, layout.data_length()));
        let plain = |owner: u8| move |four: &[u8]| four[0] == owner && four[3] == owner ^ 0xFF;
        for owner in [b'a', b'b', 0x77] {
            // Eight times in a row: not by chance.
            let found = stored.chunks(32).any(|part| part.chunks(4).all(plain(owner)));
            assert!(!found, "content of {owner} in plain text");
        }
        rig.stop_and_start();
        let id = rig.add_encrypted("a", size, Some(cipher(1)));
        rig.load();
        assert_eq!(rig.hits(id, 8), 8, "the same key");
    }
}

#[test]
fn many_errors_end_the_cache_and_fail_no_request() {
    let config = CacheConfig { errors_max: 3, ..small_lines() };
    let mut rig = Rig::on_device(config, 2);
    let id = rig.add("a", SIZE);
    rig.hits(id, 12);
    rig.rest();
    for line in 0..4 {
        assert!(!rig.has_degraded(), "{line} errors are no more than there may be");
        let name = rig.read(id, line * LINE, LINE);
        let at = rig.data_request().expect("a hit");
        rig.device_answers(at, Err(IoError::Media));
        if line == 3 {
            break;
        }
        rig.settle();
        assert_eq!(rig.bytes(name), content(b'a', Extent::new(line * LINE, LINE)));
    }
    assert!(rig.has_degraded());
    // A write waits until the device says so.
    let write = rig.write(id, Extent::new(20 * LINE, LINE), 9);
    rig.settle();
    assert_eq!(rig.reply(write).result, Ok(()));
    assert_eq!(rig.superblock().state, State::Degraded);
    assert_eq!((rig.hits(id, 12), rig.hits(id, 12)), (0, 0), "given up");
    rig.crash();
    let id = rig.add("a", SIZE);
    rig.load();
    assert_eq!(rig.hits(id, 12), 0, "never warm again");
    assert_eq!(rig.hits(id, 12), 12, "and a cache again");
}

#[test]
fn errors_that_are_far_apart_do_not_add_up() {
    let config = CacheConfig { errors_max: 1, ..small_lines() };
    let mut rig = Rig::on_device(config, 2);
    let id = rig.add("a", SIZE);
    rig.hits(id, 8);
    for line in 0..4 {
        let name = rig.read(id, line * LINE, LINE);
        let at = rig.data_request().expect("a hit");
        rig.device_answers(at, Err(IoError::Media));
        rig.settle();
        assert_eq!(rig.reply(name).result, Ok(()));
        rig.pass(Duration::from_secs(61));
    }
    assert!(!rig.has_degraded());
}

/// Fails everything that the device is asked until nothing moves.
fn fail_everything(rig: &mut Rig) {
    for _ in 0..10_000 {
        if !rig.of_device.is_empty() {
            rig.device_answers(0, Err(IoError::Media));
        } else if !rig.of_origins.is_empty() {
            rig.origin_answers(0);
        } else if !rig.tick() && rig.of_device.is_empty() {
            return;
        }
    }
    panic!("it never ends");
}

#[test]
fn a_write_waits_until_a_dead_device_is_disowned() {
    let config = CacheConfig { errors_max: 3, ..small_lines() };
    let mut rig = Rig::on_device(config, 2);
    let id = rig.add("a", SIZE);
    rig.hits(id, 12);
    rig.rest();
    let write = rig.write(id, Extent::new(0, LINE), 9);
    for _ in 0..100 {
        fail_everything(&mut rig);
        rig.now = rig.now + Duration::from_millis(100);
    }
    assert!(rig.has_degraded() && rig.events.contains(&Event::Disown), "{:?}", rig.events);
    assert_eq!(rig.of_origins.len(), 0, "the device might be believed yet");
    assert!(rig.replies.is_empty());
    let read = rig.read(id, 5 * LINE, LINE);
    fail_everything(&mut rig);
    assert_eq!(rig.reply(read).result, Ok(()), "reads wait for nothing");
    rig.cache.disowned();
    rig.collect();
    fail_everything(&mut rig);
    assert_eq!(rig.reply(write).result, Ok(()));
}

#[test]
fn a_device_that_never_answers_holds_up_no_miss_and_no_write_of_an_unknown_extent() {
    let mut rig = Rig::on_device(small_lines(), 2);
    let id = rig.add("a", 64 << 20);
    rig.rest();
    for number in 0..40 {
        let write = rig.write(id, Extent::new((8 << 20) + number * LINE, LINE), 9);
        let read = rig.read(id, number * LINE, LINE);
        while !rig.of_origins.is_empty() {
            rig.origin_answers(0);
        }
        assert_eq!(rig.reply(read).result, Ok(()));
        assert_eq!(rig.reply(write).result, Ok(()));
    }
    let metadata = |one: &Request| matches!(Token::of(one.id), Token::Metadata { .. });
    assert!(rig.of_device.iter().filter(|one| !metadata(one)).count() <= 80);
}
