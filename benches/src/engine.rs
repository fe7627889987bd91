//! The cache by itself: what one request costs the state machine, with devices that cost nothing.
//!
//! Criterion measures the cases of `cases.rs`; its samples are the runs that the results count.
//! Caches of three sizes are measured in turn, for their ratio: what else the machine does meets
//! all three.
//!
//! Beside the results stand Open CAS's, as they were measured elsewhere: they say in which order
//! of magnitude a kernel cache's engine is, and are no result of this run.

use std::path::Path;
use std::time::Instant;

use criterion::Criterion;
use forebay_benches::cases::{Bench, Case, SCALING, SCALING_ALONE, TIMED};
use serde::Deserialize;

use crate::results::Results;
use crate::{Failure, Plan};

/// Criterion's least.
const SAMPLES_MIN: usize = 10;
/// Requests of a run of those that are measured in turn.
const REQUESTS: u64 = 200_000;

/// Open CAS 4 KiB lines, engine without data copies: nanoseconds and instructions a request, on
/// another machine of the class.
const OPEN_CAS: [(&str, &str); 3] = [
    ("read_hit", "1317 ns, 4776 instructions"),
    ("read_miss_evict", "2813 ns, 10734 instructions"),
    ("write_through_hit", "1553 ns"),
];

/// Runs the suite.
pub(crate) fn run(plan: &Plan, results: &mut Results) -> Result<(), Failure> {
    let folder = tempfile::tempdir().map_err(|error| format!("temporary folder: {error}"))?;
    let mut criterion = Criterion::default()
        .without_plots()
        .output_directory(folder.path())
        .sample_size(SAMPLES_MIN.max(plan.runs as usize))
        .measurement_time(plan.time);
    for case in TIMED.iter().filter(|case| plan.wants(case.name)) {
        let mut bench = Bench::new(case)?;
        let mut places = case.places();
        criterion.bench_function(case.name, |bencher| {
            bencher.iter_custom(|requests| {
                let start = Instant::now();
                bench.pass(&mut places, requests);
                start.elapsed()
            });
        });
        bench.check()?;
        results.record(case.name, "ns", &samples(folder.path(), case.name)?);
        if let Some((name, measured)) = OPEN_CAS.iter().find(|(name, _)| *name == case.name) {
            results.beside(&format!("{name}, Open CAS elsewhere"), measured);
        }
    }
    scaling(plan, results, SCALING, "engine.scaling")?;
    scaling(plan, results, SCALING_ALONE, "engine.scaling_alone")
}

/// What a hit costs in a cache of 64 GiB and of 1 TiB, as a multiple of what it costs in one of
/// 1 GiB.
fn scaling(plan: &Plan, results: &mut Results, cases: &[Case], name: &str) -> Result<(), Failure> {
    if !plan.wants(name) && !cases.iter().any(|case| plan.wants(case.name)) {
        return Ok(());
    }
    let mut sides = Vec::new();
    for case in cases {
        sides.push((Bench::new(case)?, case.places(), Vec::new()));
    }
    // The first run of each is not counted.
    for run in 0..=SAMPLES_MIN.max(plan.runs as usize) {
        for (bench, places, times) in &mut sides {
            let start = Instant::now();
            bench.pass(places, REQUESTS);
            if run > 0 {
                times.push(start.elapsed().as_nanos() as f64 / REQUESTS as f64);
            }
        }
    }
    let mut medians = Vec::new();
    for (case, (bench, _, times)) in cases.iter().zip(&sides) {
        bench.check()?;
        medians.push(results.record(case.name, "ns", times));
    }
    results.record(&format!("{name}_64gib"), "x", &[medians[1] / medians[0]]);
    results.record(name, "x", &[medians[2] / medians[0]]);
    Ok(())
}

/// What Criterion measured in each sample, in nanoseconds a request.
fn samples(folder: &Path, name: &str) -> Result<Vec<f64>, Failure> {
    #[derive(Deserialize)]
    struct Sample {
        iters: Vec<f64>,
        times: Vec<f64>,
    }
    let file = folder.join(name).join("new/sample.json");
    let text = std::fs::read_to_string(&file).map_err(|error| format!("{file:?}: {error}"))?;
    let sample: Sample =
        serde_json::from_str(&text).map_err(|error| format!("{file:?}: {error}"))?;
    Ok(sample.times.iter().zip(&sample.iters).map(|(time, count)| time / count).collect())
}
