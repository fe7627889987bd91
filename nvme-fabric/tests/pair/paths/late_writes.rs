//! No stale write: a target applies writes late, the network loses connections without telling the
//! target, and yet nothing that was acknowledged is overwritten by something older.

use std::time::Duration;

use block_io::{Extent, Request, RequestId};
use nvme_fabric::host::paths::{LostChanges, Settings};

use super::rig::{Late, Rig};
use super::work::Work;

/// What went wrong, and how many writes were applied late.
fn run(seed: u64, sites: usize, settings: Settings) -> (Option<String>, u64) {
    let mut rig = Rig::new(seed, sites, settings);
    let queue = rig.bring_up(8);
    rig.late = Some(Late {
        per_mille: 200,
        connected: Duration::from_secs(20),
        quiesce: Duration::from_millis(900),
    });
    rig.loses_closes = seed.is_multiple_of(2);
    let mut work = Work::new(&rig, queue, 400);
    let mut random = rig.world.random("faults");
    for _ in 0..12 {
        let pause = Duration::from_millis(random.below(6000));
        let stop = rig.world.timer(rig.world.now() + pause);
        let mut done = false;
        rig.run_until(|rig| {
            done = work.step(rig);
            done || stop.is_due()
        });
        if done {
            break;
        }
        let path = random.below(sites as u64) as usize;
        match random.below(3) {
            0 => rig.cut(path),
            _ => rig.silence(path),
        }
    }
    rig.run_until(|rig| work.step(rig));
    // The rest of what targets have been doing.
    rig.run_for(Duration::from_secs(60));
    let late = rig.applied_late;
    (work.check(&rig), late)
}

fn settings(lost_changes: LostChanges) -> Settings {
    Settings { lost_changes, fast_io_fail: None, ..Settings::default() }
}

#[test]
fn nothing_acknowledged_is_overwritten_by_a_late_write() {
    let mut late = 0;
    for seed in 0..40 {
        for sites in [1, 2] {
            let (wrong, applied_late) = run(seed, sites, settings(LostChanges::AfterFence));
            assert_eq!(wrong, None, "seed {seed}, {sites} sites");
            late += applied_late;
        }
    }
    assert!(late > 40, "{late}: writes were late");
}

#[test]
fn without_the_fence_late_writes_do_overwrite() {
    let is_wrong = |seed: &u64| run(*seed, 2, settings(LostChanges::AtOnce)).0.is_some();
    let wrong = (0..40).filter(is_wrong).count();
    assert!(wrong > 5, "{wrong} of 40: the test sees what it is for");
}

#[test]
fn a_write_is_held_until_the_fence_and_reads_are_not() {
    let mut rig = Rig::new(5, 2, settings(LostChanges::AfterFence));
    let queue = rig.bring_up(8);
    rig.late = Some(Late {
        per_mille: 1000,
        connected: Duration::from_secs(3600),
        quiesce: Duration::from_millis(900),
    });
    rig.loses_closes = true;
    let buffer = rig.pool.allocate(4096);
    buffer.fill(1);
    rig.host.submit(queue, Request::write(RequestId(1), 0, buffer)).expect("room");
    rig.run_for(Duration::from_millis(10));
    let path = (0..2).find(|path| rig.host.status().paths[*path].in_flight == 1).expect("sent");
    rig.late = None;
    rig.silence(path);
    let mut completions = Vec::new();
    rig.run_until(|rig| rig.host.status().paths[path].losses == 1);
    let lost_at = rig.world.now();
    // Another write of the same bytes waits behind it, a read of them does not.
    let buffer = rig.pool.allocate(4096);
    buffer.fill(2);
    rig.host.submit(queue, Request::write(RequestId(2), 0, buffer)).expect("room");
    rig.host.submit(queue, Request::read(RequestId(3), 0, rig.pool.allocate(512))).expect("room");
    let elsewhere = Request::write(RequestId(4), 8192, rig.pool.allocate(4096));
    rig.host.submit(queue, elsewhere).expect("room");
    rig.run_for(Duration::from_secs(1));
    rig.host.take_completions(queue, &mut completions);
    let mut ids: Vec<_> = completions.drain(..).map(|done| done.id.0).collect();
    ids.sort_unstable();
    assert_eq!(ids, [3, 4]);
    assert_eq!(rig.host.status().waiting, 2);
    assert_eq!(rig.host.fences(), 0);
    rig.run_until(|rig| {
        rig.host.take_completions(queue, &mut completions);
        completions.len() == 2
    });
    assert!(completions.iter().all(|done| done.result.is_ok()));
    assert_eq!((completions[0].id, completions[1].id), (RequestId(1), RequestId(2)));
    // KATO is 5 s and traffic counts: 15 s, and a second of grace.
    let held = rig.world.now().since(lost_at);
    assert!(held >= Duration::from_secs(16) && held < Duration::from_secs(17), "{held:?}");
    assert_eq!((rig.host.losses(), rig.host.fences()), (1, 1));
    assert_eq!(rig.applied_late, 1, "the first one was applied late, before the fence");
    rig.run_for(Duration::from_secs(60));
    assert_eq!(rig.disk.content(Extent::new(0, 4096)), [2; 4096]);
}
