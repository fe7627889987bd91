//! The network is cut at every PDU boundary, and inside PDUs: each request ends exactly once, what
//! was acked stays, nobody hangs.

use std::collections::BTreeSet;
use std::time::Duration;

use block_io::sim::{Direction, NetworkFaults};
use nvme_fabric::host::Controller;
use nvme_fabric::pdu::Digests;

use crate::harness::{Pair, Setup};
use crate::requests::Workload;

/// Where PDUs start and end in a stream of them (PLEN is at byte 4), and a byte inside each.
fn positions(bytes: &[u8]) -> BTreeSet<u64> {
    let mut positions = BTreeSet::from([0]);
    let mut at = 0;
    while at + 8 <= bytes.len() {
        let length = u32::from_le_bytes(bytes[at + 4..at + 8].try_into().expect("four bytes"));
        positions.extend([at as u64 + 5, at as u64 + 26, (at + length as usize / 2) as u64]);
        at += length as usize;
        positions.insert(at as u64);
    }
    positions
}

fn setup(digests: Digests) -> Setup {
    let faults = NetworkFaults { chunk_max: 9000, ..NetworkFaults::default() };
    Setup { digests, faults, ..Setup::new(8) }
}

/// Runs bring-up and the workload, whatever comes of them, until nothing is under way.
fn run(pair: &mut Pair<Controller>, count: u64) -> Option<Workload> {
    pair.run_until(|pair| pair.host.is_up() || pair.host.is_over());
    let mut done = None;
    if pair.host.is_up() {
        let queue = pair.host.open_queue(16).expect("there is an I/O queue");
        let mut work = Workload::new(pair, queue, 16, count);
        pair.run_until(|pair| work.step(pair));
        done = Some(work);
    }
    // The rest of what the target was doing.
    pair.run_for(Duration::from_millis(100));
    done
}

fn cut_everywhere(digests: Digests, count: u64) -> usize {
    let mut whole = setup(digests).connect();
    let work = run(&mut whole, count).expect("nothing is cut");
    assert_eq!(work.failed, 0);
    let mut cuts = Vec::new();
    for (index, tape) in whole.tapes.iter().enumerate() {
        let to_target = positions(&tape.to_target).into_iter();
        cuts.extend(to_target.map(|at| (index, Direction::ToListener, at)));
        let to_host = positions(&tape.to_host).into_iter();
        cuts.extend(to_host.map(|at| (index, Direction::ToConnector, at)));
    }
    for (index, direction, at) in &cuts {
        let mut pair = setup(digests).connect();
        for _ in 0..*index {
            pair.network.plan_cut(None);
        }
        pair.network.plan_cut(Some((*direction, *at)));
        let what = format!("connection {index} cut {direction:?} after {at} bytes");
        if let Some(mut work) = run(&mut pair, count) {
            // A cut at the very end is after the last request.
            let lost = pair.host.error().is_some();
            assert!(lost || work.failed == 0, "{what}: {} failed", work.failed);
            work.check_disk(&pair);
        } else {
            assert!(pair.host.error().is_some(), "{what}");
        }
        if pair.host.error().is_some() {
            pair.run_for(Duration::from_secs(10));
            assert_eq!(pair.served(), 0, "{what}: the target has let go");
            assert_eq!(pair.target.controllers_in_use(), 0, "{what}");
            assert!(pair.host.is_over(), "{what}");
        }
    }
    cuts.len()
}

#[test]
fn a_cut_anywhere_ends_each_request_once_and_loses_nothing_acked() {
    let cuts = cut_everywhere(Digests::default(), 16);
    assert!(cuts > 300, "{cuts}");
}

#[test]
fn a_cut_anywhere_with_digests() {
    cut_everywhere(Digests { header: true, data: true }, 10);
}

#[test]
fn a_silence_during_bring_up_ends_at_the_deadline() {
    let mut pair = setup(Digests::default()).connect();
    pair.run_for(Duration::from_micros(20));
    pair.network.silence_all();
    pair.run_until(|pair| pair.host.is_over());
    assert!(pair.error().contains("within 10s"), "{}", pair.error());
    assert!(pair.error().contains("target:4420"), "{}", pair.error());
}
