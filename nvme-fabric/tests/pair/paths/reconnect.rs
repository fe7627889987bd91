//! A path that is lost comes back, and what happens meanwhile is bounded.

use std::time::Duration;

use block_io::{Geometry, IoError, Request, RequestId};
use nvme_fabric::host::paths::{LostChanges, PathState, Settings};
use nvme_fabric::spec::nqn::HostId;

use super::rig::{Rig, new_target};

/// EHOSTUNREACH: nothing was sent that may still be carried out.
const UNREACHABLE: IoError = IoError::Other(113);

fn read(rig: &Rig) -> Request {
    Request::read(RequestId(1), 0, rig.pool.allocate(4096))
}

fn write(rig: &Rig, byte: u8) -> Request {
    let buffer = rig.pool.allocate(4096);
    buffer.fill(byte);
    Request::write(RequestId(2), 0, buffer)
}

#[test]
fn requests_wait_while_the_target_restarts_and_then_succeed() {
    for seed in 0..8 {
        let mut rig = Rig::new(seed, 1, Settings::default());
        let queue = rig.bring_up(4);
        assert_eq!(rig.request(queue, write(&rig, 7)).0.result, Ok(()));
        rig.kill(0);
        rig.run_for(Duration::from_secs(3));
        let status = rig.host.status();
        assert_eq!(status.paths[0].losses, 1, "seed {seed}");
        assert!(status.paths[0].reason.is_some() && status.without_path_for.is_some());
        assert!(matches!(rig.state(0), PathState::Waiting | PathState::Connecting));
        rig.host.submit(queue, read(&rig)).expect("room");
        rig.run_for(Duration::from_secs(2));
        assert_eq!(rig.host.status().unsent, 1, "it waits");
        rig.start(0);
        let mut completions = Vec::new();
        rig.run_until(|rig| rig.host.take_completions(queue, &mut completions));
        assert_eq!(completions[0].result, Ok(()), "seed {seed}");
        let bytes = completions.pop().and_then(|done| done.buffer).expect("given back").to_vec();
        assert_eq!(bytes, [7; 4096]);
        assert_eq!(rig.state(0), PathState::Live);
        // A write that was never sent needs no fence.
        rig.kill(0);
        rig.run_for(Duration::from_secs(1));
        rig.host.submit(queue, write(&rig, 8)).expect("room");
        rig.start(0);
        rig.run_until(|rig| rig.host.take_completions(queue, &mut completions));
        assert_eq!(completions[0].result, Ok(()), "seed {seed}");
        assert!(rig.host.status().paths[0].settles_in.is_some(), "not settled yet");
    }
}

#[test]
fn without_a_path_requests_fail_after_the_fast_fail_time_and_then_at_once() {
    let settings = Settings { fast_io_fail: Some(Duration::from_secs(7)), ..Settings::default() };
    let mut rig = Rig::new(1, 1, settings);
    let queue = rig.bring_up(4);
    rig.kill(0);
    rig.run_for(Duration::from_secs(2));
    let (done, took) = rig.request(queue, read(&rig));
    assert_eq!(done.result, Err(UNREACHABLE));
    assert!(took > Duration::from_secs(4) && took <= Duration::from_secs(5), "{took:?}");
    let (done, took) = rig.request(queue, write(&rig, 1));
    assert_eq!((done.result, took), (Err(UNREACHABLE), Duration::ZERO));
    let fault = rig.host.fault().expect("it has one").to_string();
    assert!(fault.contains("site0:4420"), "{fault}");
    rig.start(0);
    rig.run_until(|rig| rig.host.is_usable());
    assert_eq!(rig.request(queue, read(&rig)).0.result, Ok(()), "taken again");
    assert_eq!(rig.host.fault(), None);
}

#[test]
fn a_path_is_given_up_after_the_controller_loss_time_and_tried_again_when_told() {
    let settings = Settings {
        controller_loss: Some(Duration::from_secs(30)),
        fast_io_fail: None,
        ..Settings::default()
    };
    let mut rig = Rig::new(1, 1, settings);
    let queue = rig.bring_up(4);
    rig.kill(0);
    rig.run_for(Duration::from_secs(29));
    assert_ne!(rig.state(0), PathState::Gone);
    rig.run_for(Duration::from_secs(12));
    assert_eq!(rig.state(0), PathState::Gone);
    assert_eq!(rig.request(queue, read(&rig)).0.result, Err(UNREACHABLE));
    rig.start(0);
    rig.run_for(Duration::from_secs(60));
    assert_eq!(rig.state(0), PathState::Gone, "nothing is tried any more");
    rig.host.retry_path(0);
    rig.run_until(|rig| rig.host.is_usable());
    assert_eq!(rig.request(queue, read(&rig)).0.result, Ok(()));
}

#[test]
fn times_change_while_a_request_waits() {
    let settings = Settings { fast_io_fail: None, ..Settings::default() };
    let mut rig = Rig::new(1, 1, settings);
    let queue = rig.bring_up(4);
    rig.kill(0);
    rig.host.submit(queue, read(&rig)).expect("room");
    rig.run_for(Duration::from_secs(300));
    assert_eq!(rig.host.status().unsent, 1, "for as long as it takes");
    let fast_io_fail = Some(Duration::from_secs(1));
    rig.host.set_settings(Settings { fast_io_fail, ..settings });
    let mut completions = Vec::new();
    rig.run_until(|rig| rig.host.take_completions(queue, &mut completions));
    assert_eq!(completions[0].result, Err(UNREACHABLE));
}

#[test]
fn a_silent_peer_is_noticed_by_keep_alive_and_leaving_never_waits_for_it() {
    let mut rig = Rig::new(3, 1, Settings::default());
    let queue = rig.bring_up(4);
    rig.silence(0);
    rig.loses_closes = true;
    let (done, took) = rig.request(queue, read(&rig));
    assert_eq!(done.result, Ok(()), "over a new association");
    assert!(took < Duration::from_secs(8), "{took:?}");
    rig.silence(0);
    let started = rig.world.now();
    rig.host.shut_down();
    rig.run_until(|rig| rig.host.is_over());
    let took = rig.world.now().since(started);
    assert!(took <= Duration::from_secs(2), "{took:?}");
    rig.host.submit(queue, read(&rig)).expect("room");
    let mut completions = Vec::new();
    assert!(rig.host.take_completions(queue, &mut completions), "at once");
    assert_eq!(completions[0].result, Err(UNREACHABLE));
}

#[test]
fn abandoning_takes_no_time_at_all() {
    let mut rig = Rig::new(3, 1, Settings::default());
    let queue = rig.bring_up(4);
    rig.silence(0);
    rig.loses_closes = true;
    rig.host.submit(queue, write(&rig, 1)).expect("room");
    rig.run_for(Duration::from_millis(1));
    let started = rig.world.now();
    rig.host.abandon();
    let mut completions = Vec::new();
    rig.run_until(|rig| rig.host.is_over());
    rig.host.take_completions(queue, &mut completions);
    assert_eq!(rig.world.now(), started);
    assert_eq!(completions[0].result, Err(IoError::ConnectionLost), "nobody knows");
}

#[test]
fn another_namespace_at_the_same_address_is_refused() {
    let settings = Settings { fast_io_fail: Some(Duration::from_secs(20)), ..Settings::default() };
    let mut rig = Rig::new(1, 1, settings);
    let queue = rig.bring_up(4);
    assert_eq!(rig.request(queue, write(&rig, 5)).0.result, Ok(()));
    rig.kill(0);
    rig.replace(0, new_target(Geometry::new(1 << 20), HostId([4; 16])));
    rig.run_for(Duration::from_millis(1));
    rig.host.submit(queue, write(&rig, 6)).expect("room");
    rig.start(0);
    let mut completions = Vec::new();
    rig.run_until(|rig| rig.host.take_completions(queue, &mut completions));
    assert_eq!(completions[0].result, Err(UNREACHABLE), "it was never sent");
    assert_eq!(rig.state(0), PathState::Failed);
    let reason = rig.host.status().paths[0].reason.clone().expect("there is one");
    assert!(reason.contains("another namespace") && reason.contains("UUID"), "{reason}");
    let content = rig.disk.content(block_io::Extent::new(0, 4096));
    assert_eq!(content, [5; 4096], "nothing was written to it");
}

#[test]
fn a_namespace_that_has_grown_meanwhile_is_a_larger_device() {
    let mut rig = Rig::new(1, 1, Settings::default());
    let queue = rig.bring_up(4);
    rig.kill(0);
    let larger = Geometry { transfer_max: 128 << 10, ..Geometry::new(2 << 20) };
    rig.replace(0, new_target(larger, HostId([9; 16])));
    rig.start(0);
    assert_eq!(rig.request(queue, read(&rig)).0.result, Ok(()));
    assert_eq!(rig.host.geometry().map(|it| it.capacity), Some(2 << 20));
    assert_eq!(rig.host.requests(queue).expect("open").geometry().capacity, 2 << 20);
}

#[test]
fn a_lost_write_fails_at_once_where_the_policy_says_so_and_never_settles_without_keep_alive() {
    let failing = Settings { lost_changes: LostChanges::Fail, ..Settings::default() };
    let endless = Settings { keep_alive: Duration::ZERO, ..Settings::default() };
    for settings in [failing, endless] {
        let mut rig = Rig::new(1, 1, settings);
        let queue = rig.bring_up(4);
        rig.host.submit(queue, write(&rig, 1)).expect("room");
        rig.run_until(|rig| rig.host.status().paths[0].in_flight == 1);
        rig.cut(0);
        let mut completions = Vec::new();
        let started = rig.world.now();
        rig.run_until(|rig| rig.host.take_completions(queue, &mut completions));
        assert_eq!(completions[0].result, Err(IoError::ConnectionLost));
        assert!(rig.world.now().since(started) < Duration::from_millis(1));
        assert_eq!(rig.request(queue, read(&rig)).0.result, Ok(()), "and it goes on");
    }
}

#[test]
fn a_command_without_an_answer_is_aborted_then_the_association_is_reset_and_it_is_tried_again() {
    let mut rig = Rig::new(1, 1, Settings::default());
    let queue = rig.bring_up(4);
    rig.disk.change_faults(|faults| faults.hang = 1000);
    rig.host.submit(queue, read(&rig)).expect("room");
    rig.run_for(Duration::from_secs(31));
    assert_eq!(rig.host.status().paths[0].losses, 0, "the target was asked to abort it");
    rig.disk.change_faults(|faults| faults.hang = 0);
    rig.run_for(Duration::from_secs(5));
    assert_eq!(rig.host.status().paths[0].losses, 1, "which it cannot");
    let mut completions = Vec::new();
    rig.run_until(|rig| rig.host.take_completions(queue, &mut completions));
    assert_eq!(completions[0].result, Ok(()));
}
