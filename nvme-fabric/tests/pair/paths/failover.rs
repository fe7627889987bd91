//! Two paths: commands go over both, and over one while the other is away.

use std::time::Duration;

use block_io::sim::Direction;
use block_io::{Request, RequestId};
use nvme_fabric::host::paths::{PathPolicy, PathState, Settings};

use super::rig::Rig;

#[test]
fn reads_of_a_lost_path_go_over_the_other_at_once_and_over_both_when_it_is_back() {
    for policy in [PathPolicy::RoundRobin, PathPolicy::QueueDepth, PathPolicy::Latency] {
        let mut rig = Rig::new(2, 2, Settings { policy, ..Settings::default() });
        let queue = rig.bring_up(16);
        for id in 0..16 {
            let read = Request::read(RequestId(id), id * 4096, rig.pool.allocate(4096));
            rig.host.submit(queue, read).expect("room");
        }
        rig.run_until(|rig| rig.host.status().paths.iter().all(|path| path.in_flight > 0));
        rig.cut(0);
        let started = rig.world.now();
        let mut completions = Vec::new();
        rig.run_until(|rig| {
            rig.host.take_completions(queue, &mut completions);
            completions.len() == 16
        });
        assert!(completions.iter().all(|done| done.result.is_ok()), "{policy:?}");
        assert!(rig.world.now().since(started) < Duration::from_millis(5), "{policy:?}");
        rig.run_until(|rig| rig.state(0) == PathState::Live);
        assert!(rig.host.status().paths.iter().all(|path| path.is_used), "{policy:?}");
        assert_eq!(rig.host.status().paths[0].losses, 1);
    }
}

#[test]
fn a_queue_that_is_lost_before_it_is_connected_takes_no_request_with_it() {
    let mut rig = Rig::new(2, 2, Settings::default());
    rig.refuse(1, true);
    rig.run_until(|rig| rig.state(0) == PathState::Live);
    let queue = rig.host.open_queue(8).expect("a path is up");
    rig.disk.change_faults(|faults| faults.hang = 1000);
    for id in 0..8 {
        let read = Request::read(RequestId(id), id * 4096, rig.pool.allocate(4096));
        rig.host.submit(queue, read).expect("room");
    }
    rig.run_until(|rig| rig.disk.hung() == 8);
    // The other path's admin queue is spared, its I/O queue is cut in the answer to its Connect.
    rig.network.plan_cut(None);
    rig.network.plan_cut(Some((Direction::ToConnector, 128 + 8)));
    rig.refuse(1, false);
    rig.run_until(|rig| rig.state(1) == PathState::Connecting);
    rig.run_until(|rig| rig.state(1) != PathState::Connecting);
    assert_ne!(rig.state(1), PathState::Live, "it was cut");
    rig.run_until(|rig| rig.state(1) == PathState::Live);
    assert_eq!(rig.host.status().paths[0].in_flight, 8, "nothing has happened to them");
    rig.disk.change_faults(|faults| faults.hang = 0);
    rig.disk.release_hung();
    let mut completions = Vec::new();
    rig.run_until(|rig| {
        rig.host.take_completions(queue, &mut completions);
        completions.len() == 8
    });
    assert!(completions.iter().all(|done| done.result.is_ok()));
    assert_eq!(rig.disk.counters().reads, 8, "none was sent twice");
}

#[test]
fn one_dead_peer_delays_nobody() {
    let mut rig = Rig::new(2, 2, Settings::default());
    let queue = rig.bring_up(16);
    rig.silence(0);
    rig.loses_closes = true;
    rig.run_until(|rig| rig.state(0) != PathState::Live);
    for id in 0..64 {
        let read = Request::read(RequestId(id), 0, rig.pool.allocate(4096));
        let (done, took) = rig.request(queue, read);
        assert_eq!(done.result, Ok(()));
        assert!(took < Duration::from_millis(1), "{took:?}");
    }
}
