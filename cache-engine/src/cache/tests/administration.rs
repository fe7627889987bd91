//! Sizes, invalidations and modes that change while requests are in flight (invariants 13, 22, and
//! what an invalidation promises).

use std::time::Duration;

use block_io::sim::Random;

use super::rig::{Rig, content, small_lines};
use super::*;

const SIZE: u64 = 1 << 20;

/// What somebody else writes to the origin, behind the cache's back.
fn change_behind(rig: &mut Rig, id: VolumeId, extent: Extent) {
    rig.origins[usize::from(id.0)].write(extent.offset, &content(b'!', extent));
}

#[test]
fn what_a_shrunk_volume_had_at_its_end_is_not_what_it_has_when_it_grows_again() {
    // Whole lines, whole blocks of a line, and the middle of a block.
    for end in [SIZE / 2, SIZE / 2 + 4096, SIZE / 2 + 4096 + 1536] {
        let mut rig = Rig::in_memory(plain(), 8);
        let id = rig.add("a", SIZE);
        for _ in 0..2 {
            rig.hits(id, SIZE / LINE);
        }
        rig.cache.resize_volume(id, end).expect("it is there");
        rig.collect();
        rig.origins[0].zero(Extent::new(end, SIZE - end));
        let name = rig.read(id, end - 512, 1024);
        assert_eq!(rig.reply(name).result, Err(IoError::OutOfRange));
        rig.is_hit(id, end - 512, 512);
        rig.is_hit(id, end - 512, 512);
        rig.cache.resize_volume(id, SIZE).expect("it is there");
        rig.collect();
        rig.hits(id, SIZE / LINE);
        rig.hits(id, SIZE / LINE);
    }
}

#[test]
fn a_large_cache_forgets_what_was_beyond_the_end_at_once() {
    // More sets, and more lines, than a step of a sweep takes.
    let (size, end) = (16 << 20, 1 << 20);
    let mut rig = Rig::in_memory(small_lines(), 2048);
    let id = rig.add("a", size);
    for line in (0..4096).step_by(8) {
        rig.is_hit(id, line * LINE, 8 * LINE);
    }
    rig.cache.resize_volume(id, end).expect("it is there");
    rig.origins[0].zero(Extent::new(end, size - end));
    let ticket = rig.cache.resize_volume(id, size).expect("it is there");
    rig.collect();
    // No time has passed: only the first step of the first of two sweeps was made.
    let mut names = Vec::new();
    for line in 256..4096 {
        if rig.of_device.len() + rig.of_origins.len() > 200 {
            break;
        }
        names.push((line, rig.read(id, line * LINE, LINE)));
    }
    rig.settle();
    for (line, name) in names {
        assert!(rig.bytes(name).iter().all(|byte| *byte == 0), "line {line} is of before");
    }
    rig.done(ticket);
    assert_eq!((rig.is_hit(id, 16 << 19, LINE), rig.is_hit(id, 16 << 19, LINE)), (false, true));
}

#[test]
fn requests_beyond_the_new_end_are_answered() {
    let config = CacheConfig { requests_max: 2, ..small_lines() };
    let mut rig = Rig::in_memory(config, 8);
    let id = rig.add("a", SIZE * 4);
    rig.hits(id, 40);
    // A hit in place, which starts again beyond the end.
    let hit = rig.read(id, 30 * LINE, 1024);
    rig.cache.resize_volume(id, 10 * LINE).expect("it is there");
    rig.collect();
    rig.settle();
    rig.reply(hit);
    // One that waits for a place, cut before and after.
    rig.cache.resize_volume(id, SIZE * 4).expect("it is there");
    rig.collect();
    let long = rig.read(id, 512, 4 * SIZE - 512);
    let write = rig.write(id, Extent::new(3 * SIZE, LINE), 1);
    rig.cache.resize_volume(id, 10 * LINE).expect("it is there");
    rig.collect();
    rig.settle();
    rig.reply(long);
    rig.reply(write);
    assert_eq!(rig.cache.in_flight(), 0);
    rig.hits(id, 10);
}

#[test]
fn a_write_that_a_new_end_cuts_short_leaves_nothing_stale() {
    // Two pieces at a time: the rest of a write waits for a place while its volume shrinks.
    let config = CacheConfig { requests_max: 1, ..small_lines() };
    for end in [1 << 20, 2 << 20, (1 << 20) + 10 * LINE, 3 * LINE + 1024] {
        let mut rig = Rig::on_device(config.clone(), 64);
        let id = rig.add("a", 4 << 20);
        rig.hits(id, 1024);
        rig.hits(id, 1024);
        let write = rig.write(id, Extent::new(512, (4 << 20) - 512), 1);
        rig.cache.resize_volume(id, end).expect("it is there");
        rig.collect();
        rig.settle();
        assert_eq!(rig.reply(write).result, Err(IoError::OutOfRange), "{end}");
        rig.hits(id, end / LINE);
        rig.cache.resize_volume(id, 4 << 20).expect("it is there");
        rig.collect();
        // What the shrunk origin had behind its end is gone.
        rig.origins[0].zero(Extent::new(end, (4 << 20) - end));
        rig.hits(id, 1024);
        rig.hits(id, 1024);
    }
}

#[test]
fn a_read_left_across_a_new_end_takes_nothing_from_behind_a_short_last_block() {
    let mut rig = Rig::in_memory(small_lines(), 8);
    let id = rig.add("a", SIZE);
    // The read waits for the write, while the volume shrinks to the middle of its first block.
    let write = rig.write(id, Extent::new(10 * LINE, LINE), 1);
    let across = rig.read(id, 9 * LINE, 2 * LINE);
    rig.cache.resize_volume(id, 9 * LINE + 2048).expect("it is there");
    rig.collect();
    // What there is of the last block is cached, and is all of it as far as anyone knows.
    let short = rig.read(id, 9 * LINE, 2048);
    rig.origin_answers(1);
    while let Some(at) = rig.data_request() {
        rig.device_answers(at, Ok(()));
    }
    rig.bytes(short);
    rig.settle();
    rig.reply(write);
    let bytes = rig.bytes(across);
    let last_block = content(b'a', Extent::new(9 * LINE, LINE));
    assert!(bytes[..LINE as usize] == last_block, "bytes that nobody stored");
    assert_eq!(rig.statistics(id).fills_dropped, 0, "the short block was stored");
}

#[test]
fn nothing_read_before_an_invalidation_is_served_after_it() {
    let mut rig = Rig::in_memory(small_lines(), 8);
    let id = rig.add("a", SIZE);
    rig.hits(id, 8);
    let extent = Extent::new(0, 10 * LINE);
    // In place, under locks, a store on its way, and a read of the origin that will be stored.
    let in_place = rig.read(id, 0, 512);
    let locked = rig.read(id, LINE, 2 * LINE);
    let stored = rig.read(id, 8 * LINE, LINE);
    rig.origin_answers(0);
    rig.bytes(stored);
    let missed = rig.read(id, 9 * LINE, LINE);
    assert_eq!((rig.of_origins.len(), rig.of_device.len()), (1, 4));
    let (owner, origin_read) = rig.of_origins.remove(0);
    let before = rig.origins[0].read(origin_read.extent);
    origin_read.buffer.as_ref().expect("a read").copy_from_slice(&before);
    change_behind(&mut rig, id, extent);
    let ticket = rig.cache.invalidate(id, extent).expect("it is there");
    rig.collect();
    assert_eq!(owner, id);
    rig.cache.complete(rig.now, origin_read.complete(Ok(())));
    rig.collect();
    rig.settle();
    assert_eq!(rig.bytes(in_place), content(b'!', Extent::new(0, 512)), "it starts again");
    let extent = Extent::new(LINE, 2 * LINE);
    assert_eq!(rig.bytes(locked), content(b'!', extent), "it is answered later than the call");
    rig.reply(missed);
    rig.done(ticket);
    let hits = (3..10).filter(|line| rig.is_hit(id, line * LINE, LINE)).count();
    assert_eq!(hits, 0);
    rig.hits(id, 10);
    assert_eq!(rig.hits(id, 10), 10);
}

#[test]
fn a_volume_is_invalidated_under_load() {
    for seed in 0..20 {
        let mut random = Random::new(seed);
        let mut rig = Rig::in_memory(small_lines(), 4);
        let ids = [rig.add("a", SIZE), rig.add("b", SIZE)];
        for _ in 0..30 {
            for _ in 0..10 {
                let id = *random.choose(&ids);
                let extent = Extent::new(random.below(60) * LINE, random.range(1..=3) * LINE);
                match random.coin() {
                    true => rig.read(id, extent.offset, extent.length),
                    false => rig.write(id, extent, random.below(200) as u8),
                };
                answer_any(&mut rig, &mut random, 2);
            }
            // Of nobody's request, so that what is on its way does not write it.
            change_behind(&mut rig, ids[0], Extent::new(64 * LINE, 8 * LINE));
            let ticket = rig.cache.invalidate(ids[0], Extent::new(0, u64::MAX / 4));
            rig.collect();
            rig.done(ticket.expect("it is there"));
            rig.replies.clear();
            let kept = (64..72).filter(|line| rig.is_hit(ids[0], line * LINE, LINE)).count();
            assert_eq!(kept, 0, "seed {seed}");
            rig.hits(ids[0], 64);
            rig.hits(ids[1], 60);
        }
    }
}

fn answer_any(rig: &mut Rig, random: &mut Random, most: u64) {
    for _ in 0..random.below(most + 1) {
        match (rig.of_origins.len() as u64, rig.of_device.len() as u64) {
            (0, 0) => return,
            (origin, device) if random.below(origin + device) < origin => {
                rig.origin_answers(random.below(origin) as usize);
            }
            (_, device) => rig.device_answers(random.below(device) as usize, Ok(())),
        }
    }
}

#[test]
fn an_invalidation_outlives_a_crash() {
    for whole in [true, false] {
        let mut rig = Rig::on_device(small_lines(), 8);
        let id = rig.add("a", SIZE);
        rig.hits(id, 40);
        rig.rest();
        let extent = if whole { Extent::new(0, SIZE) } else { Extent::new(0, 20 * LINE) };
        change_behind(&mut rig, id, extent);
        let ticket = rig.cache.invalidate(id, extent).expect("it is there");
        rig.collect();
        rig.done(ticket);
        rig.crash();
        let id = rig.add("a", SIZE);
        rig.load();
        assert_eq!(rig.hits(id, 20), 0);
        assert_eq!(rig.is_hit(id, 30 * LINE, LINE), !whole, "the others are warm");
    }
}

#[test]
fn what_is_invalidated_before_it_is_loaded_is_not_loaded() {
    for extent in [Extent::new(0, 20 * LINE), Extent::new(0, 16 << 20)] {
        let mut rig = Rig::on_device(small_lines(), 200);
        let id = rig.add("a", 16 << 20);
        rig.hits(id, 200);
        rig.rest();
        rig.stop_and_start();
        let settings = VolumeSettings { name: "a".into(), known: Some(id), ..volume(16 << 20) };
        rig.cache.add_volume(settings).expect("known");
        assert_eq!(rig.cache.loading().0, 0, "nothing is loaded yet");
        change_behind(&mut rig, id, extent.intersection(Extent::new(0, 200 * LINE)));
        let ticket = rig.cache.invalidate(id, extent).expect("it is there");
        rig.collect();
        rig.load();
        rig.done(ticket);
        assert_eq!(rig.hits(id, 20), 0);
        let rest = (20..200).filter(|line| rig.is_hit(id, line * LINE, LINE)).count();
        assert_eq!(rest, if extent.length < 1 << 20 { 180 } else { 0 });
    }
}

#[test]
fn modes_change_with_anything_in_flight() {
    for seed in 0..30 {
        let mut random = Random::new(seed);
        let mut rig = Rig::in_memory(small_lines(), 2);
        let id = rig.add("a", SIZE);
        for _ in 0..300 {
            rig.cache.set_mode(id, *random.choose(&CacheMode::ALL));
            let extent = Extent::new(random.below(40 * 8) * 512, random.range(1..=20) * 512);
            match random.below(3) {
                0 => rig.write(id, extent, random.below(200) as u8),
                _ => rig.read(id, extent.offset, extent.length),
            };
            answer_any(&mut rig, &mut random, 4);
        }
        rig.settle();
        assert!(rig.replies.iter().all(|(_, reply)| reply.result == Ok(())));
        rig.cache.set_mode(id, CacheMode::WriteThrough);
        rig.hits(id, 45);
        rig.hits(id, 45);
    }
}

#[test]
fn a_flush_goes_to_the_origin_in_every_mode_and_waits_for_no_store() {
    for mode in CacheMode::ALL {
        let mut rig = Rig::on_device(small_lines(), 8);
        let id = rig.add("a", SIZE);
        rig.cache.set_mode(id, mode);
        let write = rig.write(id, Extent::new(0, LINE), 1);
        while rig.of_origins.is_empty() {
            rig.device_answers(0, Ok(()));
        }
        rig.origin_answers(0);
        assert_eq!(rig.reply(write).result, Ok(()));
        let flush = rig.submit(id, Request::flush(RequestId(1000)));
        let operations: Vec<_> = rig.of_origins.iter().map(|(_, one)| one.operation).collect();
        assert_eq!(operations, [Operation::Flush], "{mode}");
        rig.origin_answers(0);
        assert_eq!(rig.reply(flush).result, Ok(()));
        rig.pass(Duration::from_millis(1));
    }
}
