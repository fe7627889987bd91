//! Policies on requests whose outcome can be worked out by hand, and beside each other.

use block_io::Extent;
use block_io::sim::Random;

use super::*;
use crate::advice::touches::Trace;
use crate::advice::trace::Access;
use crate::cache::LineSize;

const LINE: u64 = 4096;

fn trace(requests: impl IntoIterator<Item = (u64, u64, bool)>) -> Trace {
    let mut trace = Trace::default();
    for (offset, length, is_write) in requests {
        trace.push(Access { extent: Extent::new(offset, length), is_write });
    }
    trace
}

fn reads(lines: impl IntoIterator<Item = u64>) -> Trace {
    trace(lines.into_iter().map(|line| (line * LINE, LINE, false)))
}

fn settings(policy: Policy, lines: u64) -> Settings {
    let size_bytes = lines * LINE;
    Settings { policy, size_bytes, writes_are_cached: true, whole_lines: false }
}

fn simulate(trace: &Trace, line_size: LineSize, settings: Settings) -> Outcome {
    run(&trace.touches(line_size).expect("few"), settings).expect("few lines")
}

fn hits(trace: &Trace, policy: Policy, lines: u64) -> u64 {
    simulate(trace, LineSize::ALL[0], settings(policy, lines)).read_hits
}

#[test]
fn lru_and_belady_on_a_loop() {
    // Twenty lines, sixteen slots, ten rounds.
    let trace = reads((0..200).map(|step| step % 20));
    assert_eq!(hits(&trace, Policy::Lru, 16), 0, "LRU drops each line just before its use");
    // Fifteen lines stay; the others pass by.
    assert!((9 * 15..=9 * 16).contains(&hits(&trace, Policy::Belady, 16)));
    assert_eq!(hits(&trace, Policy::Lru, 32), 180);
    assert_eq!(hits(&trace, Policy::Belady, 32), 180);
}

#[test]
fn lru_keeps_what_was_used_last() {
    // 0 is used again before 17 lines came: the rest goes in order.
    let trace = reads((0..16).chain([0, 16, 17, 0, 1, 2]));
    assert_eq!(hits(&trace, Policy::Lru, 16), 2);
}

#[test]
fn no_policy_beats_belady_and_s3_fifo_beats_lru_on_a_scan() {
    let mut random = Random::new(3);
    let trace = reads((0..60_000u64).map(|step| {
        if step % 3 == 0 {
            1_000_000 + step
        } else {
            random.below(1500) * random.below(1500) / 1500
        }
    }));
    let hits = Policy::ALL.map(|policy| hits(&trace, policy, 320));
    let [ours, s3_fifo, lru, belady] = hits;
    assert!(belady > ours.max(s3_fifo).max(lru), "{hits:?}");
    assert!(s3_fifo > lru + 2000 && ours > lru + 2000, "{hits:?}");
    assert!(ours.abs_diff(s3_fifo) < 1000, "{hits:?}");
}

#[test]
fn what_was_used_twice_outlasts_a_scan() {
    let hot = 0..8u64;
    let used = hot.clone().flat_map(|line| [line; 3]);
    let trace = reads(used.chain(1000..2000).chain(hot));
    for policy in [Policy::Ours, Policy::S3Fifo] {
        assert_eq!(hits(&trace, policy, 16), 16 + 8, "{policy}");
    }
    assert_eq!(hits(&trace, Policy::Lru, 16), 16);
}

#[test]
fn a_request_is_a_hit_when_all_of_it_is() {
    let trace = trace([(0, LINE, false), (0, 2 * LINE, false), (100, 2 * LINE - 200, false)]);
    for policy in Policy::ALL {
        let outcome = simulate(&trace, LineSize::ALL[0], settings(policy, 16));
        assert_eq!((outcome.reads, outcome.read_hits), (3, 1), "{policy}");
        assert_eq!((outcome.blocks, outcome.block_hits), (5, 3), "{policy}");
        assert_eq!(outcome.origin_read_bytes, 2 * LINE, "{policy}");
        assert_eq!(outcome.size_bytes, 16 * LINE, "whole sets");
    }
}

#[test]
fn a_request_of_which_only_the_end_is_there_is_no_hit() {
    let trace = trace([(LINE, LINE, false), (0, 2 * LINE, false)]);
    for policy in Policy::ALL {
        let outcome = simulate(&trace, LineSize::ALL[0], settings(policy, 16));
        assert_eq!((outcome.read_hits, outcome.block_hits), (0, 1), "{policy}");
    }
}

#[test]
fn whole_lines_bring_what_was_not_asked_for() {
    let trace = trace([(0, LINE, false), (LINE, LINE, false), (5 * LINE, LINE, false)]);
    let line_size = LineSize::from_bytes(4 * LINE).expect("a size");
    let blocks = settings(Policy::Ours, 64);
    let whole = Settings { whole_lines: true, ..blocks };
    let [blocks, whole] = [blocks, whole].map(|settings| simulate(&trace, line_size, settings));
    assert_eq!((blocks.read_hits, blocks.origin_read_bytes), (0, 3 * LINE));
    assert_eq!((whole.read_hits, whole.origin_read_bytes), (1, 8 * LINE));
}

#[test]
fn writes_fill_or_drop() {
    let trace = trace([
        (0, 2 * LINE, true),
        (0, 2 * LINE, false),
        (LINE, 512, true),
        (0, LINE, false),
        (LINE, LINE, false),
    ]);
    for policy in Policy::ALL {
        let through = settings(policy, 16);
        let around = Settings { writes_are_cached: false, ..through };
        let [through, around] =
            [through, around].map(|settings| simulate(&trace, LineSize::ALL[0], settings));
        // A write of part of a block leaves nothing of it.
        assert_eq!((through.read_hits, through.origin_read_bytes), (2, LINE), "{policy}");
        assert_eq!((around.read_hits, around.origin_read_bytes), (1, 3 * LINE), "{policy}");
        assert_eq!(through.origin_write_bytes, 2 * LINE + 512);
    }
}

#[test]
fn a_set_too_few_is_an_error() {
    let mut trace = Trace::default();
    let lines = (1 << 22) + 1;
    (0..lines).for_each(|line| {
        trace.push(Access { extent: Extent::new(line * LINE, 1), is_write: false });
    });
    let touches = trace.touches(LineSize::ALL[0]).expect("few");
    let error = run(&touches, settings(Policy::Ours, 16)).expect_err("one set");
    assert!(error.contains("1 sets are too few for 4194305 lines; at least"), "{error}");
    assert!(run(&touches, settings(Policy::Lru, 16)).is_ok());
}

#[test]
fn names_parse() {
    for policy in Policy::ALL {
        assert_eq!(policy.to_string().parse(), Ok(policy));
    }
    assert!("fifo".parse::<Policy>().expect_err("not known").contains("ours, s3-fifo"));
}
