//! Origins that are slow, away or lose what they acknowledged, and the places of the activity log
//! that their extents take: neither another volume nor the cache device pays for them
//! (invariant 27).

use std::time::Duration;

use super::rig::{Rig, content, small_lines};
use super::*;

const EXTENT: u64 = 4 << 20;

/// A cache that names two extents, and a volume "a" with a line of its extent 5 recorded.
fn two_places() -> (Rig, VolumeId) {
    let mut rig = Rig::on_device(CacheConfig { extents_per_page: 2, ..small_lines() }, 2);
    let id = rig.add("a", 64 << 20);
    rig.is_hit(id, 5 * EXTENT, LINE);
    rig.rest();
    (rig, id)
}

fn flushes(rig: &Rig) -> usize {
    rig.of_origins.iter().filter(|(_, request)| request.operation == Operation::Flush).count()
}

#[test]
fn a_device_that_answers_is_not_given_up_because_an_origin_does_not() {
    let (mut rig, id) = two_places();
    let held: Vec<_> =
        (0..2).map(|extent| rig.write(id, Extent::new(extent * EXTENT, LINE), 1)).collect();
    let waits = rig.write(id, Extent::new(5 * EXTENT, LINE), 2);
    rig.pass_without_origins(Duration::from_secs(60));
    assert_eq!(rig.of_origins.len(), 2, "there is no place for the third");
    assert!(!rig.has_degraded(), "{:?}", rig.events);
    rig.rest();
    for name in held.into_iter().chain([waits]) {
        assert_eq!(rig.reply(name).result, Ok(()));
    }
    assert!(!rig.has_degraded());
}

#[test]
fn a_device_that_does_not_answer_is_given_up_whatever_else_is_waited_for() {
    let (mut rig, id) = two_places();
    rig.write(id, Extent::new(5 * EXTENT, LINE), 2);
    rig.tick();
    let pages = rig.of_device.len();
    assert!(pages > 0, "the page that names the extent");
    for second in 0..10 {
        assert!(!rig.has_degraded(), "after {second} s");
        rig.now = rig.now + Duration::from_secs(1);
        rig.tick();
    }
    assert!(rig.has_degraded());
}

#[test]
fn what_is_in_doubt_takes_no_place() {
    let (mut rig, id) = two_places();
    for extent in 0..2 {
        let name = rig.write(id, Extent::new(extent * EXTENT, LINE), 1);
        rig.origin_fails(0, IoError::ConnectionLost);
        rig.reply(name);
    }
    let write = rig.write(id, Extent::new(5 * EXTENT, LINE), 2);
    rig.rest();
    assert_eq!(rig.reply(write).result, Ok(()), "nobody has fenced anything");
    assert!(!rig.is_hit(id, EXTENT, LINE) && !rig.is_hit(id, EXTENT, LINE), "in doubt still");
    // Nor after a crash is anything found of it but what a read stored since.
    rig.rest();
    rig.crash();
    // The late write lands.
    rig.origins[0].write(EXTENT, &content(1, Extent::new(EXTENT, LINE)));
    let id = rig.add("a", 64 << 20);
    rig.load();
    assert!(!rig.is_hit(id, EXTENT, LINE));
}

/// A volume with two extents that its origin has acknowledged and not flushed, which are cached and
/// take both places; and a write of "a" that waits for one.
fn starved() -> (Rig, VolumeId, VolumeId, RequestId) {
    let (mut rig, id) = two_places();
    let lossy = rig.add("volatile", 64 << 20);
    for extent in 0..2 {
        rig.put(lossy, Extent::new(extent * EXTENT, LINE), 1);
        assert!(rig.is_hit(lossy, extent * EXTENT, LINE));
    }
    let write = rig.write(id, Extent::new(5 * EXTENT, LINE), 2);
    rig.pass_without_origins(Duration::from_millis(50));
    assert_eq!((rig.of_origins.len(), flushes(&rig)), (1, 1), "a flush first");
    (rig, id, lossy, write)
}

#[test]
fn what_can_not_be_flushed_makes_way_and_is_cached_when_it_can_be() {
    for is_answered in [true, false] {
        let (mut rig, id, lossy, write) = starved();
        if is_answered {
            rig.origin_fails(0, IoError::Media);
        }
        rig.pass_without_origins(Duration::from_millis(1200));
        let own = |rig: &Rig| rig.of_origins.iter().position(|(of, _)| *of == id);
        rig.origin_answers(own(&rig).expect("the write goes on"));
        assert_eq!(rig.reply(write).result, Ok(()));
        assert_eq!(rig.statistics(lossy).extents_let_go, 2);
        assert!(!rig.has_degraded());
        // A write does not wait either, and the origin loses all of it.
        let before = content(b'v', Extent::new(0, LINE));
        let other = rig.write(lossy, Extent::new(LINE, LINE), 3);
        rig.pass_without_origins(Duration::from_millis(100));
        let sent = |(_, request): &(VolumeId, Request)| request.operation == Operation::Write;
        let at = rig.of_origins.iter().position(sent).expect("it is sent");
        rig.origin_answers(at);
        assert_eq!(rig.reply(other).result, Ok(()));
        let read = rig.read(lossy, LINE, LINE);
        assert_eq!(rig.of_origins.last().map(|(of, _)| *of), Some(lossy), "not stored");
        rig.origin_answers(rig.of_origins.len() - 1);
        rig.reply(read);
        rig.origins[usize::from(lossy.0)].write(0, &before);
        let read = rig.read(lossy, 0, LINE);
        rig.origin_answers(rig.of_origins.len() - 1);
        assert!(rig.bytes(read) == before, "what it has now");
        // Flushes succeed from now on.
        for _ in 0..20 {
            rig.rest();
        }
        assert_eq!((rig.is_hit(lossy, 0, LINE), rig.is_hit(lossy, 0, LINE)), (false, true));
    }
}

#[test]
fn what_was_let_go_and_lost_is_not_found_after_a_crash() {
    let (mut rig, _, lossy, write) = starved();
    rig.origin_fails(0, IoError::Media);
    rig.pass_without_origins(Duration::from_millis(1200));
    rig.origin_answers(0);
    rig.reply(write);
    let read = rig.read(lossy, 0, LINE);
    rig.origin_answers(rig.of_origins.len() - 1);
    rig.reply(read);
    rig.pass_without_origins(Duration::from_millis(100));
    rig.crash();
    let before = content(b'v', Extent::new(0, LINE));
    rig.origins[usize::from(lossy.0)].write(0, &before);
    rig.add("a", 64 << 20);
    let lossy = rig.add("volatile", 64 << 20);
    rig.load();
    assert!(!rig.is_hit(lossy, 0, LINE), "and it is what the origin has");
}

#[test]
fn an_origin_that_fails_is_flushed_again_after_longer_and_longer_pauses() {
    let (mut rig, _, _, _) = starved();
    let mut times = Vec::new();
    for _ in 0..2000 {
        if let Some(at) =
            rig.of_origins.iter().position(|(_, request)| request.operation == Operation::Flush)
        {
            times.push(rig.now);
            rig.origin_fails(at, IoError::Media);
        }
        rig.pass_without_origins(Duration::from_millis(5));
    }
    // 100 ms, 200 ms, ...: in 10 s.
    assert!((6..=8).contains(&times.len()), "{times:?}");
}

#[test]
fn doubt_goes_where_its_volume_goes() {
    let mut rig = Rig::on_device(small_lines(), 2);
    let id = rig.add("a", 1 << 20);
    let lossy = rig.add("volatile", 1 << 20);
    let name = rig.write(id, Extent::new(0, LINE), 1);
    rig.origin_fails(0, IoError::ConnectionLost);
    rig.reply(name);
    rig.put(lossy, Extent::new(0, LINE), 1);
    for volume in [id, lossy] {
        rig.cache.resize_volume(volume, 100 << 20).expect("nothing is in flight");
        rig.collect();
    }
    let read = |rig: &mut Rig| {
        let name = rig.read(lossy, 0, LINE);
        let from_origin = rig.of_origins.len();
        while !rig.of_origins.is_empty() {
            rig.origin_answers(0);
        }
        rig.reply(name);
        from_origin
    };
    assert_eq!((read(&mut rig), read(&mut rig)), (1, 1), "it may be lost");
    assert!(!rig.is_hit(id, 0, LINE) && !rig.is_hit(id, 0, LINE), "it may still land");
    rig.rest();
    assert_eq!((rig.is_hit(lossy, 0, LINE), rig.is_hit(lossy, 0, LINE)), (false, true), "flushed");
}

#[test]
fn a_fence_that_drops_more_lines_than_can_be_recorded_serves_none_and_loses_no_record() {
    let config = CacheConfig { records_min: 64, fills_max: 8, ..small_lines() };
    let mut rig = Rig::on_device(config, 64);
    let id = rig.add("volatile", 64 << 20);
    for line in 0..256 {
        rig.put(id, Extent::new(line * LINE, LINE), 1);
    }
    rig.rest();
    assert!(rig.hits(id, 256) > 200);
    rig.origins[0].write(0, &content(b'v', Extent::new(0, 256 * LINE)));
    rig.cache.fence(id);
    rig.collect();
    let read = rig.read(id, 255 * LINE, LINE);
    assert_eq!(rig.of_origins.len(), 1, "not from the cache, though its line is there");
    rig.settle();
    assert_eq!(rig.bytes(read), content(b'v', Extent::new(255 * LINE, LINE)));
    rig.rest();
    assert_eq!((rig.hits(id, 256), rig.hits(id, 256) > 200), (0, true));
    let records = rig.cache.persistence_statistics().expect("on a device");
    assert_eq!(records.records_lost, 0, "{records:?}");
}
