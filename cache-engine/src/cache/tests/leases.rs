//! Leases: from their end on nothing that was cached is served, whatever was under way (invariant
//! 21). The step before the end and the one at it are both taken.

use std::time::Duration;

use block_io::sim::Medium;

use super::super::LeaseStanding;
use super::super::guests::Guest;
use super::super::metadata::{FormatId, Generation, Superblock, VolumeRecord};
use super::rig::{Rig, content, small_lines};
use super::*;
use crate::cache::{Event, Ticket};

const SIZE: u64 = 1 << 20;
const LENGTH: Duration = Duration::from_secs(10);

/// A volume with eight lines, under a lease of [`LENGTH`].
fn leased() -> (Rig, VolumeId, Timestamp) {
    let mut rig = Rig::in_memory(small_lines(), 8);
    let id = rig.add("a", SIZE);
    rig.hits(id, 8);
    let end = renew(&mut rig, id, LENGTH);
    assert_eq!(rig.cache.lease(id), Some(LeaseStanding::Held(end)));
    assert_eq!(rig.hits(id, 8), 8, "what was exclusive before goes on");
    (rig, id, end)
}

fn renew(rig: &mut Rig, id: VolumeId, length: Duration) -> Timestamp {
    let end = rig.now + length;
    rig.cache.set_lease(rig.now, id, Some(end)).expect("it is there");
    rig.collect();
    end
}

/// Another host writes to the origin.
fn write_elsewhere(rig: &mut Rig, id: VolumeId, extent: Extent) {
    rig.origins[usize::from(id.0)].write(extent.offset, &content(b'!', extent));
}

/// Answers all that the cache device has, and then the origin, without a tick.
fn answer_all(rig: &mut Rig) {
    while !rig.of_device.is_empty() || !rig.of_origins.is_empty() {
        while !rig.of_device.is_empty() {
            rig.device_answers(0, Ok(()));
        }
        while !rig.of_origins.is_empty() {
            rig.origin_answers(0);
        }
    }
}

#[test]
fn the_last_hit_is_served_before_the_end_and_none_from_it_on() {
    let (mut rig, id, end) = leased();
    rig.now = Timestamp(end.0 - 1);
    assert_eq!(rig.hits(id, 8), 8);
    rig.now = end;
    write_elsewhere(&mut rig, id, Extent::new(0, 8 * LINE));
    assert_eq!((rig.hits(id, 8), rig.hits(id, 8)), (0, 0), "nor is anything stored");
    assert_eq!(rig.cache.lease(id), Some(LeaseStanding::Over));
    assert_eq!(rig.events.iter().filter(|one| **one == Event::LeaseOver(id)).count(), 1);
    assert_eq!(rig.cache.lines_in_use(), 0);
}

#[test]
fn what_began_before_the_end_and_ends_after_it_is_answered_from_the_origin() {
    let (mut rig, id, end) = leased();
    let extent = Extent::new(0, 9 * LINE);
    // In place, and under locks.
    let in_place = rig.read(id, 0, 512);
    let locked = rig.read(id, LINE, 2 * LINE);
    assert_eq!((rig.of_device.len(), rig.of_origins.len()), (3, 0));
    rig.now = end;
    write_elsewhere(&mut rig, id, extent);
    // Nobody has told the cache of the time but the answers themselves.
    answer_all(&mut rig);
    assert_eq!(rig.bytes(in_place), content(b'!', Extent::new(0, 512)));
    assert_eq!(rig.bytes(locked), content(b'!', Extent::new(LINE, 2 * LINE)));
}

#[test]
fn a_hit_of_a_large_cache_is_not_served_before_the_sweep_comes_to_it() {
    let mut rig = Rig::in_memory(small_lines(), 2048);
    let id = rig.add("a", 16 << 20);
    rig.hits(id, 600);
    let end = renew(&mut rig, id, LENGTH);
    let names: Vec<_> = (0..100).map(|line| rig.read(id, line * LINE, 512)).collect();
    let locked: Vec<_> = (100..200).map(|line| rig.read(id, line * LINE, 2 * LINE)).collect();
    rig.now = end;
    write_elsewhere(&mut rig, id, Extent::new(0, 600 * LINE));
    answer_all(&mut rig);
    for (line, name) in names.into_iter().enumerate() {
        let extent = Extent::new(line as u64 * LINE, 512);
        assert!(rig.bytes(name) == content(b'!', extent), "line {line}");
    }
    for (line, name) in locked.into_iter().enumerate() {
        let extent = Extent::new((100 + line as u64) * LINE, 2 * LINE);
        assert!(rig.bytes(name) == content(b'!', extent), "line {line}");
    }
}

#[test]
fn what_was_read_or_written_before_the_end_is_not_stored_after_it() {
    let (mut rig, id, end) = leased();
    // A read of the origin, and a store of a write, which the device has not done.
    let read = rig.read(id, 20 * LINE, LINE);
    let write = rig.write(id, Extent::new(21 * LINE, LINE), b'w');
    let stored = rig.read(id, 22 * LINE, LINE);
    rig.origin_answers(2);
    rig.bytes(stored);
    assert_eq!((rig.of_origins.len(), rig.of_device.len()), (2, 2), "two stores are on their way");
    rig.now = end;
    answer_all(&mut rig);
    rig.settle();
    rig.reply(read);
    rig.reply(write);
    let again = rig.now + LENGTH;
    rig.cache.set_lease(rig.now, id, Some(again)).expect("it is there");
    rig.settle();
    assert_eq!(rig.cache.lease(id), Some(LeaseStanding::Held(again)));
    write_elsewhere(&mut rig, id, Extent::new(20 * LINE, 3 * LINE));
    let hits = (20..23).filter(|line| rig.is_hit(id, line * LINE, LINE)).count();
    assert_eq!(hits, 0);
}

#[test]
fn a_renewal_before_the_end_moves_it_and_one_at_the_end_is_another_lease_on_a_cold_volume() {
    let (mut rig, id, end) = leased();
    rig.now = Timestamp(end.0 - 1);
    let end = renew(&mut rig, id, LENGTH);
    assert_eq!(rig.hits(id, 8), 8, "it goes on");
    // The first that the cache hears after the end is the renewal.
    rig.now = end;
    write_elsewhere(&mut rig, id, Extent::new(0, 8 * LINE));
    let end = renew(&mut rig, id, LENGTH);
    assert!(rig.events.contains(&Event::LeaseOver(id)));
    rig.settle();
    assert_eq!(rig.cache.lease(id), Some(LeaseStanding::Held(end)));
    assert_eq!((rig.hits(id, 8), rig.hits(id, 8)), (0, 8), "cold, and then used");
    assert!(rig.events.contains(&Event::LeaseHeld(id)));
}

#[test]
fn who_learns_of_the_time_elsewhere_is_believed_over_an_older_reading() {
    let (mut rig, id, end) = leased();
    let older = rig.now;
    rig.cache.observe(end);
    rig.collect();
    write_elsewhere(&mut rig, id, Extent::new(0, 8 * LINE));
    rig.now = older;
    assert_eq!(rig.hits(id, 8), 0, "an older reading of the clock does not bring it back");
    assert_eq!(rig.cache.lease(id), Some(LeaseStanding::Over));
}

#[test]
fn an_end_that_is_over_gives_the_lease_back_and_none_has_no_end() {
    let (mut rig, id, _) = leased();
    rig.cache.set_lease(rig.now, id, Some(Timestamp::default())).expect("it is there");
    rig.collect();
    assert_eq!(rig.cache.lease(id), Some(LeaseStanding::Over));
    assert_eq!(rig.cache.lease_deadline(), None, "there is nothing to wait for");
    write_elsewhere(&mut rig, id, Extent::new(0, 8 * LINE));
    assert_eq!(rig.hits(id, 8), 0);
    rig.cache.set_lease(rig.now, id, None).expect("it is there");
    rig.settle();
    assert_eq!(rig.cache.lease(id), Some(LeaseStanding::Unlimited));
    assert_eq!((rig.hits(id, 8), rig.hits(id, 8)), (0, 8));
    rig.pass(LENGTH * 1000);
    assert_eq!(rig.hits(id, 8), 8);
    assert!(rig.cache.set_lease(rig.now, VolumeId(9), None).is_err());
}

#[test]
fn the_end_of_one_volumes_lease_is_not_anothers() {
    let (mut rig, id, end) = leased();
    let (other, third) = (rig.add("b", SIZE), rig.add("c", SIZE));
    rig.hits(other, 8);
    rig.hits(third, 8);
    renew(&mut rig, third, LENGTH * 2);
    assert_eq!(rig.cache.next_deadline(), Some(end), "the first of the ends");
    rig.now = end;
    assert_eq!((rig.hits(id, 8), rig.hits(other, 8), rig.hits(third, 8)), (0, 8, 8));
    assert_eq!(rig.cache.next_deadline(), Some(end + LENGTH));
    rig.pass(LENGTH);
    assert_eq!((rig.hits(other, 8), rig.hits(third, 8)), (8, 0));
}

/// A guest serves nothing from the end on by its own clock, although the owner sleeps; and nothing
/// after a renewal that the owner took for another lease.
#[test]
fn a_guest_stops_by_its_own_clock() {
    let mut desk = Desk::new(CacheMode::WriteThrough, 4);
    (0..3).for_each(|line| desk.warm(line * LINE));
    let guest = desk.cache.admit_guest(VOLUME).expect("there");
    let end = Timestamp(100);
    desk.cache.set_lease(NOW, VOLUME, Some(end)).expect("there");
    let serves = |guest: &Guest, begin: u64, done: u64| {
        let found = guest.lookup(Timestamp(begin), Extent::new(0, LINE));
        found.is_some_and(|(hit, _)| guest.serve(Timestamp(done), hit))
    };
    assert!(serves(&guest, 98, 99));
    assert!(!serves(&guest, 99, 100), "it was under way");
    assert!(!serves(&guest, 100, 100) && !guest.is_open(end));
    // The owner renews in time.
    desk.cache.set_lease(Timestamp(99), VOLUME, Some(Timestamp(200))).expect("there");
    assert!(serves(&guest, 150, 199) && !serves(&guest, 199, 200));
    let (under_way, _) = guest.lookup(Timestamp(199), Extent::new(0, LINE)).expect("in time");
    // And too late: what was under way is of before.
    desk.cache.set_lease(Timestamp(200), VOLUME, Some(Timestamp(300))).expect("there");
    desk.cache.tick(Timestamp(200));
    desk.cache.tick(Timestamp(201));
    assert_eq!(desk.cache.lease(VOLUME), Some(LeaseStanding::Held(Timestamp(300))));
    assert!(!guest.serve(Timestamp(199), under_way));
    assert!(guest.is_open(Timestamp(201)) && !serves(&guest, 201, 201), "open, and cold");
}

#[test]
fn a_guest_serves_nothing_of_a_lease_that_was_given_back_before_its_end() {
    // So many lines that the sweep does not come to all of them at once.
    let mut desk = Desk::with(small_lines(), 2048);
    (0..64).for_each(|line| desk.warm(line * LINE));
    let guest = desk.cache.admit_guest(VOLUME).expect("there");
    desk.cache.set_lease(NOW, VOLUME, Some(Timestamp(100))).expect("there");
    let look = |line: u64| guest.lookup(Timestamp(1), Extent::new(line * LINE, LINE));
    let under_way: Vec<_> = (0..64).map(|line| look(line).expect("cached").0).collect();
    desk.cache.set_lease(Timestamp(2), VOLUME, Some(NOW)).expect("there");
    assert!(under_way.into_iter().all(|hit| !guest.serve(Timestamp(3), hit)));
    assert!(!guest.is_open(Timestamp(3)));
}

#[test]
fn the_first_call_of_any_kind_from_the_end_on_notices_it() {
    let calls: [fn(&mut Rig, VolumeId); 5] = [
        |rig, _| assert!(rig.tick() || rig.now > NOW),
        |rig, _| rig.device_answers(0, Ok(())),
        |rig, _| rig.origin_answers(0),
        |rig, id| assert_ne!(rig.write(id, Extent::new(40 * LINE, LINE), 1), RequestId(0)),
        |rig, id| assert_ne!(rig.read(id, 41 * LINE, LINE), RequestId(0)),
    ];
    for (number, call) in calls.into_iter().enumerate() {
        let (mut rig, id, end) = leased();
        rig.read(id, 20 * LINE, LINE);
        rig.origin_answers(0);
        rig.read(id, 21 * LINE, LINE);
        rig.now = Timestamp(end.0 - 1);
        rig.tick();
        assert!(!rig.events.contains(&Event::LeaseOver(id)));
        rig.now = end;
        call(&mut rig, id);
        assert!(rig.events.contains(&Event::LeaseOver(id)), "call {number}");
    }
}

/// Whether the device says that the volume is leased.
fn is_marked(rig: &Rig) -> bool {
    rig.superblock().volumes()[0].flags & VolumeRecord::LEASED != 0
}

#[test]
fn nothing_is_served_under_a_lease_before_the_device_knows_of_it() {
    let mut rig = Rig::on_device(small_lines(), 8);
    let id = rig.add("a", SIZE);
    rig.hits(id, 8);
    rig.rest();
    let end = renew(&mut rig, id, LENGTH);
    assert_eq!(rig.cache.lease(id), Some(LeaseStanding::Waiting(end)));
    let name = rig.read(id, 0, LINE);
    assert_eq!(rig.of_origins.len(), 1, "it goes to the origin");
    assert!(!is_marked(&rig));
    rig.settle();
    rig.reply(name);
    assert!(is_marked(&rig));
    assert_eq!(rig.cache.lease(id), Some(LeaseStanding::Held(end)));
    assert_eq!(rig.hits(id, 8), 8, "nobody else had the origin meanwhile");
    rig.crash();
    assert!(is_marked(&rig), "a start finds it");
}

#[test]
fn after_the_end_a_lease_counts_when_nothing_of_before_can_come_back_after_a_crash() {
    let mut rig = Rig::on_device(small_lines(), 8);
    let id = rig.add("a", SIZE);
    renew(&mut rig, id, LENGTH);
    rig.settle();
    rig.hits(id, 40);
    rig.rest();
    rig.now = rig.now + LENGTH;
    write_elsewhere(&mut rig, id, Extent::new(0, 40 * LINE));
    let end = renew(&mut rig, id, LENGTH);
    assert!(rig.events.contains(&Event::LeaseOver(id)));
    assert_eq!(rig.cache.lease(id), Some(LeaseStanding::Waiting(end)));
    while rig.cache.lease(id) == Some(LeaseStanding::Waiting(end)) {
        rig.pass(Duration::from_millis(1));
    }
    assert_eq!(rig.cache.lease(id), Some(LeaseStanding::Held(end)));
    // Whoever starts in spite of the mark finds nothing of before.
    rig.crash();
    let id = rig.add("a", SIZE);
    rig.load();
    assert_eq!(rig.hits(id, 40), 0);
}

#[test]
fn a_lease_that_ends_before_its_lines_are_loaded_loads_none() {
    let mut rig = Rig::on_device(small_lines(), 200);
    let id = rig.add("a", 16 << 20);
    rig.hits(id, 200);
    rig.rest();
    rig.stop_and_start();
    let settings = VolumeSettings { name: "a".into(), known: Some(id), ..volume(16 << 20) };
    rig.cache.add_volume(settings).expect("known");
    let end = Timestamp(rig.now.0 + 1);
    rig.cache.set_lease(rig.now, id, Some(end)).expect("there");
    assert_eq!(rig.cache.loading().0, 0, "nothing is loaded yet");
    rig.now = end;
    write_elsewhere(&mut rig, id, Extent::new(0, 200 * LINE));
    rig.load();
    rig.rest();
    renew(&mut rig, id, LENGTH);
    rig.rest();
    assert!(matches!(rig.cache.lease(id), Some(LeaseStanding::Held(_))));
    assert_eq!(rig.hits(id, 200), 0);
}

#[test]
fn whoever_records_a_leased_volume_anew_keeps_the_mark() {
    let mut rig = Rig::on_device(small_lines(), 8);
    let id = rig.add("a", SIZE);
    let end = renew(&mut rig, id, LENGTH);
    rig.settle();
    assert!(is_marked(&rig));
    let record = rig.record(id, "a");
    assert_eq!(record.flags, 0, "whoever makes it knows of no lease");
    assert!(is_marked(&rig));
    rig.now = end;
    rig.rest();
    rig.record(id, "a");
    assert!(is_marked(&rig), "nor is it taken back when the lease is over");
}

/// Another device takes the place of the one there is.
fn replace(rig: &mut Rig) {
    let superblock = Superblock::new(FormatId([77; 16]), rig.superblock().layout);
    rig.device = Medium::default();
    rig.device.write(superblock.offset(), &superblock.encode());
    rig.cache.replace(superblock, 1 << 20, FormatId([78; 16])).expect("of the same size");
    rig.collect();
}

fn detach(rig: &mut Rig) {
    rig.cache.detach();
    rig.collect();
    rig.settle();
    assert!(rig.cache.is_detached());
}

#[test]
fn a_lease_that_waits_for_a_device_counts_when_the_next_device_knows_of_it() {
    let mut rig = Rig::on_device(small_lines(), 8);
    let id = rig.add("a", SIZE);
    // So that the one device has counted more changes than the other will.
    (0..20).for_each(|_| drop(rig.record(id, "a")));
    rig.rest();
    detach(&mut rig);
    let end = renew(&mut rig, id, LENGTH);
    assert_eq!(
        rig.cache.lease(id),
        Some(LeaseStanding::Waiting(end)),
        "nothing can tell the device"
    );
    replace(&mut rig);
    assert_eq!(rig.cache.lease(id), Some(LeaseStanding::Waiting(end)));
    assert_eq!(rig.superblock().volumes().len(), 0, "it is not on the device yet");
    rig.settle();
    assert!(is_marked(&rig));
    assert_eq!(rig.cache.lease(id), Some(LeaseStanding::Held(end)));
    assert_eq!((rig.hits(id, 8), rig.hits(id, 8)), (0, 8));
}

#[test]
fn a_volume_that_was_left_and_is_still_there_is_marked_on_the_next_device() {
    let mut rig = Rig::on_device(small_lines(), 8);
    let id = rig.add("a", SIZE);
    let end = renew(&mut rig, id, LENGTH);
    rig.settle();
    let leave = |rig: &mut Rig| -> Option<Ticket> {
        let left = rig.cache.record_left(rig.now, id, Generation::default()).expect("room");
        rig.collect();
        left
    };
    let ticket = leave(&mut rig).expect("it is held");
    rig.done(ticket);
    assert!(!is_marked(&rig), "it was left while the lease was held");
    detach(&mut rig);
    replace(&mut rig);
    rig.until(Event::Replaced);
    assert!(is_marked(&rig), "it goes on, under a lease");
    rig.now = end;
    assert_eq!(leave(&mut rig), None, "it is over: the mark stays");
    rig.rest();
    assert!(is_marked(&rig));
}
