//! The policies' rules as the cache keeps them: what is stored, what stays, what goes. What each
//! rule says is tested beside it; here real lines come and go.

use std::time::Duration;

use block_io::sim::Random;

use super::rig::{Rig, small_lines};
use super::*;

const SIZE: u64 = 1 << 20;

fn with(changes: &[(&str, &str)]) -> CacheConfig {
    let mut config = small_lines();
    changes.iter().for_each(|(name, value)| config.policy.change(name, value).expect("sound"));
    config
}

/// Sets them on a running cache.
fn change(rig: &mut Rig, changes: &[(&str, &str)]) {
    let mut settings = rig.cache.policy().clone();
    changes.iter().for_each(|(name, value)| settings.change(name, value).expect("sound"));
    rig.cache.set_policy(&settings).expect("it fits this cache");
}

#[test]
fn pinned_lines_stay_while_others_come_and_go() {
    let mut rig = Rig::in_memory(with(&[("pin-max", "50%"), ("pin", "volume=a,range=0-16k")]), 4);
    let id = rig.add("a", SIZE);
    let other = rig.add("b", SIZE);
    rig.hits(id, 4);
    for round in 0..4 {
        rig.hits(other, 200);
        for line in 4..200 {
            rig.is_hit(id, line * LINE, LINE);
        }
        assert_eq!(rig.hits(id, 4), 4, "round {round}");
    }
    rig.put(id, Extent::new(0, LINE), 3);
    assert_eq!(rig.hits(id, 4), 4, "written, they stay");
    change(&mut rig, &[("pin", "none")]);
    // Used again and again, so that they do not only pass through.
    for use_of in 0..250 * 5 {
        rig.is_hit(other, use_of / 5 * LINE, LINE);
    }
    assert!(rig.hits(id, 4) < 4, "not pinned any more");
}

#[test]
fn a_volume_holds_no_more_than_its_maximum_and_no_less_than_its_minimum() {
    let mut rig = Rig::in_memory(with(&[("volume", "volume=a,max=25%;volume=c,min=25%")]), 16);
    let [most, free, least] = ["a", "b", "c"].map(|name| rig.add(name, 4 * SIZE));
    rig.hits(least, 64);
    let kept = rig.hits(least, 64);
    for _ in 0..3 {
        rig.hits(free, 500);
        rig.hits(most, 500);
    }
    let held = |rig: &Rig, id: VolumeId| {
        let span = rig.cache.span(id).expect("there");
        let sets = 0..rig.cache.index.sets();
        let lines = sets.flat_map(|set| rig.cache.index.lines_of_set(set));
        let own = span.base >> 12..(span.base + span.length) >> 12;
        lines
            .filter(|(slot, line)| {
                own.contains(&line.0) && !rig.cache.index.valid(*slot).is_empty()
            })
            .count()
    };
    assert!(held(&rig, most) <= 64, "{}", held(&rig, most));
    assert!(
        held(&rig, most) > 16 && held(&rig, free) > 64,
        "{} {}",
        held(&rig, most),
        held(&rig, free)
    );
    assert!(rig.hits(least, 64) >= kept.min(60), "{kept} were there");
}

#[test]
fn a_sequential_run_is_past_by_and_drops_what_it_writes() {
    let mut rig = Rig::in_memory(with(&[("sequential-cutoff", "64KiB")]), 64);
    let id = rig.add("a", 4 * SIZE);
    rig.put(id, Extent::new(100 * LINE, LINE), 1);
    assert!(rig.is_hit(id, 100 * LINE, LINE));
    for line in 0..200 {
        rig.put(id, Extent::new(line * LINE, LINE), 2);
    }
    assert!(!rig.is_hit(id, 100 * LINE, LINE), "of the run, and not stored");
    assert!(rig.statistics(id).sequential_bypasses > 100);
    let hits: u64 = (20..200).rev().map(|line| u64::from(rig.is_hit(id, line * LINE, LINE))).sum();
    assert!(hits < 10, "{hits}");
}

#[test]
fn a_purge_makes_room_in_time_and_drops_no_pinned_line() {
    let mut rig = Rig::in_memory(with(&[("pin", "volume=a,range=0-16k")]), 16);
    let id = rig.add("a", 4 * SIZE);
    rig.hits(id, 600);
    rig.hits(id, 4);
    let full = rig.cache.index.occupied();
    assert!(full > 240, "{full}");
    change(&mut rig, &[("purge", "high=80%,low=50%,every=1s")]);
    for _ in 0..5 {
        rig.pass(Duration::from_secs(1));
    }
    let left = rig.cache.index.occupied();
    assert!((100..=140).contains(&left), "{left} of 256 are left");
    assert_eq!(rig.hits(id, 4), 4, "pinned");
    assert!(rig.cache.next_deadline().is_some(), "it goes on");
}

#[test]
fn what_is_not_admitted_is_served_and_not_stored() {
    let mut rig = Rig::in_memory(with(&[("admission", "never")]), 4);
    let id = rig.add("a", SIZE);
    assert_eq!((rig.hits(id, 8), rig.hits(id, 8)), (0, 0));
    assert!(rig.statistics(id).fills_refused > 0);
    change(&mut rig, &[("admission", "second-miss")]);
    assert_eq!((rig.hits(id, 4), rig.hits(id, 4), rig.hits(id, 4)), (0, 0, 4));
    change(&mut rig, &[("admission", "never")]);
    assert_eq!(rig.hits(id, 4), 4, "what is there is served");
    rig.put(id, Extent::new(0, LINE), 1);
    assert!(!rig.is_hit(id, 0, LINE), "and dropped when it is written");
}

#[test]
fn policies_change_with_anything_in_flight() {
    const CHANGES: &[(&str, &[&str])] = &[
        ("admission", &["always", "second-miss", "never"]),
        ("sequential-cutoff", &["never", "16KiB", "64KiB:when-full"]),
        ("fill-width", &["requested", "line", "adaptive"]),
        ("purge", &["never", "high=60%,low=30%,every=1s"]),
        ("pin", &["none", "volume=a,range=0-16k"]),
        ("volume", &["none", "volume=a,max=20%", "volume=b,min=30%;volume=a,max=10%"]),
        ("class", &["none", "class=x,size=..4k,max=10%"]),
    ];
    for seed in 0..20 {
        let mut random = Random::new(seed);
        let mut rig = Rig::in_memory(CacheConfig { line_size: LineSize::ALL[1], ..with(&[]) }, 2);
        let ids = [rig.add("a", SIZE), rig.add("b", SIZE)];
        for _ in 0..300 {
            let (name, values) = *random.choose(CHANGES);
            if random.chance(300) {
                change(&mut rig, &[(name, *random.choose::<&str>(values))]);
            }
            let id = *random.choose(&ids);
            let extent = Extent::new(random.below(60 * 8) * 512, random.range(1..=40) * 512);
            match random.coin() {
                true => rig.read(id, extent.offset, extent.length),
                false => rig.write(id, extent, random.below(200) as u8),
            };
            for _ in 0..random.below(6) {
                if !rig.of_device.is_empty() {
                    let at = random.below(rig.of_device.len() as u64) as usize;
                    rig.device_answers(at, Ok(()));
                }
                if !rig.of_origins.is_empty() {
                    let at = random.below(rig.of_origins.len() as u64) as usize;
                    rig.origin_answers(at);
                }
            }
            if random.chance(100) {
                rig.now = rig.now + Duration::from_secs(1);
                rig.tick();
            }
        }
        rig.settle();
        for id in ids {
            rig.hits(id, 70);
            rig.hits(id, 70);
        }
    }
}
