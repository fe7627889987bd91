//! The cache by itself: what one request costs the state machine, with devices that cost nothing.
//!
//! Criterion measures the cases of `cases.rs`; its samples are the runs that the results count.

use std::path::Path;
use std::time::Instant;

use criterion::Criterion;
use forebay_benches::cases::{Bench, TIMED};
use serde::Deserialize;

use crate::results::Results;
use crate::{Failure, Plan};

/// Criterion's least.
const SAMPLES_MIN: usize = 10;

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
    }
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
