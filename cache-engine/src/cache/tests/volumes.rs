//! Volumes beside each other, after each other, and on their return (invariant 20).

use block_io::sim::Medium;

use super::rig::{Rig, content, small_lines};
use super::*;
use crate::cache::Event;
use crate::cache::metadata::{FormatId, Superblock};

const SIZE: u64 = 1 << 20;

#[test]
fn volumes_with_the_same_offsets_never_see_each_others_bytes() {
    let mut rig = Rig::in_memory(small_lines(), 2);
    let ids = ["a", "b", "c"].map(|name| rig.add(name, SIZE));
    let mut hits = 0;
    for round in 0..200_u64 {
        let line = round * 7 % 20;
        for id in ids {
            hits += u64::from(rig.is_hit(id, line * LINE, LINE));
        }
        let writer = ids[round as usize % 3];
        rig.put(writer, Extent::new(round * 5 % 20 * LINE, LINE), round as u8);
    }
    assert!(hits > 50, "{hits}");
    assert!(ids.iter().any(|id| rig.statistics(*id).evictions > 50), "lines make way");
}

#[test]
fn a_volume_in_the_place_of_a_removed_one_starts_cold() {
    let mut rig = Rig::in_memory(small_lines(), 2);
    let stays = rig.add("s", SIZE);
    let first = rig.add("f", SIZE);
    rig.hits(first, 4);
    let mut bases = vec![rig.cache.span(first).expect("there").base];
    rig.cache.remove_volume(first).expect("nothing is in flight");
    for _ in 0..100 {
        let id = rig.add("n", SIZE);
        bases.push(rig.cache.span(id).expect("there").base);
        assert_eq!(rig.hits(id, 4), 0, "it finds what another one left");
        assert_eq!(rig.hits(id, 4), 4);
        rig.cache.remove_volume(id).expect("nothing is in flight");
    }
    assert!(bases.is_sorted_by(|one, next| one < next), "a range is used twice: {bases:?}");
    rig.hits(stays, 4);
}

#[test]
fn a_store_of_a_removed_volume_does_not_end_up_in_the_next() {
    let mut rig = Rig::in_memory(small_lines(), 1);
    let size = SIZE;
    let id = rig.add("a", size);
    rig.is_hit(id, LINE, LINE);
    let name = rig.read(id, 0, LINE);
    rig.origin_answers(0);
    rig.bytes(name);
    assert_eq!(rig.of_device.len(), 1, "its store is in flight");
    rig.cache.remove_volume(id).expect("no request is in flight");
    let next = rig.add("b", size);
    assert_ne!(rig.cache.span(next).expect("there").base, 0);
    assert!(!rig.is_hit(next, 0, LINE) && !rig.is_hit(next, LINE, LINE));
    rig.hits(next, 1);
    assert!(rig.is_hit(next, 0, LINE));
}

#[test]
fn a_known_volume_that_comes_back_finds_its_lines() {
    let mut rig = Rig::on_device(small_lines(), 8);
    let (id, other) = (rig.add("a", SIZE), rig.add("b", SIZE));
    rig.hits(id, 20);
    rig.cache.remove_volume(id).expect("nothing is in flight");
    assert_eq!(rig.hits(other, 20), 0);
    let known = Some(id);
    let settings = VolumeSettings { name: "a".into(), known, ..volume(SIZE) };
    assert_eq!(rig.cache.add_volume(settings).expect("known"), id);
    assert_eq!(rig.hits(id, 20), 20);
}

#[test]
fn a_forgotten_volume_leaves_nothing_to_the_next_start() {
    for clean in [true, false] {
        let mut rig = Rig::on_device(small_lines(), 8);
        let (stays, goes) = (rig.add("s", SIZE), rig.add("g", SIZE));
        let base = rig.cache.span(goes).expect("there").base;
        rig.hits(stays, 20);
        rig.hits(goes, 20);
        rig.rest();
        rig.cache.remove_volume(goes).expect("nothing is in flight");
        let ticket = rig.cache.forget_volume(goes).expect("it is known");
        rig.collect();
        rig.done(ticket);
        if clean {
            rig.stop_and_start()
        } else {
            rig.crash()
        }
        let stays = rig.add("s", SIZE);
        let next = rig.add("n", SIZE);
        assert!(rig.cache.span(next).expect("there").base > base, "a range is used twice");
        rig.load();
        assert_eq!(rig.hits(next, 20), 0);
        assert_eq!(rig.hits(stays, 20), 20);
    }
}

#[test]
fn a_volume_grows_into_its_room_and_beyond() {
    let mut rig = Rig::in_memory(small_lines(), 4);
    let id = rig.add("a", SIZE + 512);
    let neighbour = rig.add("b", SIZE);
    rig.hits(id, 30);
    let before = rig.cache.span(id).expect("there");
    for size in [SIZE * 2, 200 << 20, SIZE + 512] {
        let ticket = rig.cache.resize_volume(id, size).expect("room");
        rig.collect();
        rig.done(ticket);
        rig.hits(id, 30);
        rig.is_hit(id, SIZE, 512);
        rig.is_hit(id, size - 512, 512);
        rig.hits(neighbour, 30);
    }
    assert_ne!(rig.cache.span(id), Some(before), "it was moved");
    assert_eq!(rig.origins[0].read(Extent::new(0, 512)), content(b'a', Extent::new(0, 512)));
}

#[test]
fn another_cache_device_takes_over_the_records_and_what_waits_for_them() {
    let mut rig = Rig::on_device(small_lines(), 1);
    let gone = rig.add("g", SIZE);
    let stays = rig.add("s", SIZE);
    let span = rig.cache.span(stays);
    rig.cache.remove_volume(gone).expect("nothing is in flight");
    rig.cache.detach();
    rig.collect();
    rig.settle();
    assert!(rig.cache.is_detached());
    // On its device nothing can be recorded any more.
    let ticket = rig.cache.forget_volume(gone).expect("it is known");
    rig.collect();
    rig.settle();
    assert!(!rig.events.contains(&Event::Done(ticket)), "it is on no device");
    let superblock = Superblock::new(FormatId([77; 16]), rig.superblock().layout);
    rig.device = Medium::default();
    rig.device.write(superblock.offset(), &superblock.encode());
    rig.cache.replace(superblock, 1 << 20, FormatId([78; 16])).expect("of the same size");
    rig.collect();
    rig.until(Event::Replaced);
    rig.done(ticket);
    let superblock = rig.superblock();
    let records: Vec<_> = superblock.volumes().iter().map(|record| record.id).collect();
    assert_eq!((records, rig.cache.span(stays)), (vec![stays], span));
}
