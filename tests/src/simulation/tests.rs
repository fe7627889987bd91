//! A fixed number of seeds of every scenario, and what the runner itself promises.

use block_io::BufferPool;

use super::slow_cache_device::{CACHE_DEVICE, ORIGIN};
use super::*;

/// Seeds of each scenario; `cargo xtask simulate` runs as many as one likes.
const SEEDS: u64 = 40;

/// Events that so few seeds may miss; longer runs fail without them.
const RARE: [&str; 2] = ["encrypted hits", "records lost"];

fn seeds(name: &str) {
    let scenario = Scenario::find(name).expect("there is such a scenario");
    let pool = BufferPool::heap();
    let mut together = Outcome::default();
    for seed in 0..SEEDS {
        match runner::attempt(scenario, seed, &pool, None) {
            Ok(outcome) => together.add(&outcome),
            Err(failure) => panic!("{}\nreplay: {}", failure.message, failure.command()),
        }
    }
    // A simulation that never met what it is about proves nothing.
    for event in scenario.meets().filter(|event| !RARE.contains(event)) {
        assert!(together.of(event) > 0, "'{event}' never happened: {together:?}");
    }
    let crashes = together.crashes;
    assert_eq!(crashes > SEEDS, scenario.crashes > 0, "{crashes} crashes");
}

#[test]
fn sound_devices() {
    seeds("sound-devices");
}

#[test]
fn a_failing_cache_device_fails_no_request() {
    seeds("failing-cache-device");
}

#[test]
fn a_slow_cache_device() {
    seeds("slow-cache-device");
}

#[test]
fn a_failing_origin() {
    seeds("failing-origin");
}

#[test]
fn an_origin_that_applies_lost_writes_late() {
    seeds("late-writes");
}

#[test]
fn crashes() {
    seeds("crashes");
}

#[test]
fn crashes_and_failures() {
    seeds("crashes-and-failures");
}

#[test]
fn administration() {
    seeds("administration");
}

#[test]
fn restarts() {
    seeds("restarts");
}

#[test]
fn crashes_and_administration() {
    seeds("crashes-and-administration");
}

#[test]
fn crashes_that_leave_much_of_the_cache() {
    seeds("warm-crashes");
}

#[test]
fn crashes_that_leave_much_of_a_failing_cache_device() {
    seeds("warm-crashes-and-failures");
}

#[test]
fn an_origin_that_loses_power_under_a_living_engine() {
    seeds("origin-power-cuts");
}

#[test]
fn an_origin_that_can_not_be_reached_for_a_while() {
    seeds("origin-outages");
}

#[test]
fn records_that_find_no_room() {
    seeds("few-records");
}

#[test]
fn volumes_guests_and_cache_devices_that_come_and_go() {
    seeds("volumes-and-guests");
}

#[test]
fn another_host_that_waits_for_the_end_of_the_lease_makes_no_read_stale() {
    seeds("leases");
}

#[test]
fn every_scenario_has_a_test() {
    assert_eq!(SCENARIOS.len(), 17, "add a test above for the new scenario");
    assert!(Scenario::find("sound").is_err_and(|error| error.contains("late-writes")));
}

#[test]
fn a_seed_is_the_same_run_every_time() {
    let pool = BufferPool::heap();
    for scenario in SCENARIOS {
        let first = run(scenario, 5, 300, &pool, None);
        let trace = Trace::default();
        assert_eq!(run(scenario, 5, 300, &pool, Some(&trace)), first, "{}", scenario.name);
        assert!(trace.lines().len() > 600, "{}", scenario.name);
        assert_ne!(run(scenario, 6, 300, &pool, None).fingerprint, first.fingerprint);
    }
}

#[test]
fn a_clock_that_loses_more_than_the_margin_is_found_out() {
    let scenario = Scenario::find("leases").expect("there is such a scenario");
    let pool = BufferPool::heap();
    let stale = |seed: &u64| {
        lease::with_clock(scenario, *seed, 300, &pool, None, 6 * lease::MARGIN_PPM).is_err()
    };
    let stale = (0..SEEDS).filter(stale).count() as u64;
    assert!(stale > SEEDS / 2, "only {stale} of {SEEDS} runs had a stale read");
}

#[test]
fn the_engine_serves_what_the_origin_has_after_a_power_cut_at_any_moment() {
    for volatile_cache in [true, false] {
        let mut together = CheckedImages::default();
        for seed in 0..3 {
            let run = ImageRun { seed, operations: 240, volatile_cache, subsets: 4, stride: 7 };
            let CheckedImages { images, warm, warm_lines, mismatches } =
                check_engine_images(&run).unwrap_or_else(|bad| panic!("{run:?}: {bad:?}"));
            together.images += images;
            together.warm += warm;
            together.warm_lines += warm_lines;
            together.mismatches += mismatches;
        }
        // Images of which nothing is served again prove nothing.
        let CheckedImages { images, warm, warm_lines, .. } = together;
        assert!(images > 800 && warm * 5 > images && warm_lines > 3 * warm as u64, "{together:?}");
    }
}

#[test]
fn misses_and_writes_wait_for_the_origin_and_not_for_a_slow_cache_device() {
    for (depth, hangs) in [(1, false), (8, false), (64, false), (8, true)] {
        let Latencies { misses, writes, cache_device_in_flight } =
            latencies_beside_a_slow_cache_device(10_000, depth, hangs);
        // Beside the stores, records of lines may be under way.
        let (bound, records) = (super::setup::ROOMY_FILLS, 8);
        let held = cache_device_in_flight;
        assert!(held <= bound + records, "{held} stores hold memory");
        assert!(!hangs || held >= bound, "it has as many as it may: {held}");
        for (what, latencies) in [("misses", misses), ("writes", writes)] {
            let p99 = Latencies::p99(&latencies);
            assert!(p99 == ORIGIN, "{what} at depth {depth}: {p99:?}, not {ORIGIN:?}");
            // The first write to an extent that has lines recorded waits for the record that it is
            // coming: at most two writes to the cache device, one that is under way and its own.
            let most = if what == "writes" { 2 * CACHE_DEVICE } else { CACHE_DEVICE };
            let longest = latencies.last().expect("there were some");
            assert!(*longest < most, "{what} at depth {depth}: one took {longest:?}");
        }
    }
}
