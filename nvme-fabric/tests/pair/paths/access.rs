//! Two targets of one subsystem that tell by asymmetric namespace access which of them to use.

use std::time::Duration;

use nvme_fabric::host::paths::Settings;
use nvme_fabric::spec::log_page::AccessState;

use super::rig::{Late, Rig};
use super::work::Work;

/// Two sites, the first of which is to be used.
fn rig(seed: u64, other: AccessState) -> Rig {
    let mut rig = Rig::new(seed, 2, Settings { fast_io_fail: None, ..Settings::default() });
    rig.with_access(0, AccessState::Optimized);
    rig.with_access(1, other);
    rig
}

/// Goes on with the work for a time; whether all of it is done.
fn work_for(rig: &mut Rig, work: &mut Work, time: Duration) -> bool {
    let stop = rig.world.timer(rig.world.now() + time);
    let mut done = false;
    rig.run_until(|rig| {
        done = work.step(rig);
        done || stop.is_due()
    });
    done
}

fn carried(rig: &Rig) -> [u64; 2] {
    [rig.sites[0].carried, rig.sites[1].carried]
}

#[test]
fn commands_follow_access_to_the_other_target_and_back_under_load() {
    const LONG: Duration = Duration::from_millis(50);
    for other in [AccessState::NonOptimized, AccessState::Inaccessible] {
        let mut rig = rig(3, other);
        let queue = rig.bring_up(8);
        let mut work = Work::new(&rig, queue, u64::MAX);
        for used in [0, 1, 0, 1, 0] {
            rig.set_access(1 - used, other);
            rig.set_access(used, AccessState::Optimized);
            // The event is heard, the log is read, and what is under way ends.
            work_for(&mut rig, &mut work, LONG);
            let status = rig.host.status();
            assert!(status.paths[used].is_used && !status.paths[1 - used].is_used, "{status:?}");
            assert_eq!(status.paths[1 - used].access, Some(other));
            let before = carried(&rig);
            work_for(&mut rig, &mut work, LONG);
            let after = carried(&rig);
            assert_eq!(after[1 - used], before[1 - used], "{other:?}: not there any more");
            assert!(after[used] > before[used] + 10, "{other:?}: {before:?} {after:?}");
        }
        work.finish();
        rig.run_until(|rig| work.step(rig));
        assert_eq!((work.failed, rig.host.losses()), (0, 0), "{other:?}");
        assert_eq!(work.check(&rig), None, "{other:?}");
    }
}

/// Switches access by chance while requests are under way, some of which targets carry out late;
/// now and then a connection is cut too. What went wrong, and how many switches there were.
fn run(seed: u64) -> (Option<String>, u64) {
    let mut rig = rig(seed, AccessState::Inaccessible);
    let queue = rig.bring_up(8);
    let (connected, quiesce) = (Duration::from_secs(2), Duration::from_millis(900));
    rig.late = Some(Late { per_mille: 100, connected, quiesce });
    let mut work = Work::new(&rig, queue, 400);
    let mut random = rig.world.random("switches");
    let (mut used, mut switches, mut cuts) = (0, 0, 0);
    let mut pause = |most: u64| Duration::from_millis(random.below(most));
    loop {
        if work_for(&mut rig, &mut work, pause(2000)) {
            break;
        }
        // For a time there may be no target that takes anything.
        rig.set_access(used, AccessState::Change);
        work_for(&mut rig, &mut work, pause(500));
        rig.set_access(used, AccessState::Inaccessible);
        work_for(&mut rig, &mut work, pause(500));
        if pause(8).as_millis() == 0 {
            cuts += 1;
            rig.cut(used);
        }
        used = 1 - used;
        rig.set_access(used, AccessState::Optimized);
        switches += 1;
    }
    assert_eq!(work.failed, 0, "seed {seed}: requests wait and do not fail");
    assert!(rig.host.losses() <= cuts, "seed {seed}: no path is given up for a switch");
    rig.run_for(Duration::from_secs(60));
    (work.check(&rig), switches)
}

#[test]
fn nothing_is_lost_or_stale_when_access_switches_by_chance() {
    let mut switches = 0;
    for seed in 0..30 {
        let (wrong, count) = run(seed);
        assert_eq!(wrong, None, "seed {seed}");
        switches += count;
    }
    assert!(switches > 60, "{switches}: there were some");
}
