//! `forebay replay`: what caches of some sizes would have done for recorded requests.
//!
//! ```text
//!   TRACE ──▶ load ──▶ lines ──▶ sizes × line sizes × policies ──▶ report: table, JSON
//!                                (simulated on all cores)       └▶ plot: SVG, PNG
//! ```
//! Each trace is replayed by itself. Absent: anything that needs a device or a daemon.

mod arguments;
mod bitmap_text;
mod live;
mod load;
mod plot;
mod png_image;
mod progress;
mod report;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;

use cache_engine::advice::simulate::{self, Outcome, Policy, Settings};
use cache_engine::advice::touches::Touches;
use cache_engine::cache::{CacheMode, LineSize};

pub(crate) use arguments::ReplayArguments;
use arguments::{CacheSize, Fill};
pub(crate) use live::CurveFile;
use load::Recorded;
use progress::Progress;
use report::{Replayed, Row};

use crate::failure::Failure;
use crate::output;

/// Replays the traces and shows what came out.
///
/// # Errors
/// When a trace cannot be read, or a cache cannot be simulated.
pub(crate) fn run(arguments: &ReplayArguments) -> Result<(), Failure> {
    arguments.check()?;
    let progress = Progress::new();
    let replayed: Result<Vec<Replayed>, Failure> =
        arguments.traces.iter().map(|path| replay(arguments, path, &progress)).collect();
    progress.finish();
    let replayed = replayed?;
    if let Some(file) = &arguments.plot {
        plot::write(&replayed, file)?;
    }
    if arguments.json {
        output::print(report::json(&replayed))
    } else {
        output::print(report::table(&replayed))
    }
}

fn replay(
    arguments: &ReplayArguments,
    path: &std::path::Path,
    progress: &Progress,
) -> Result<Replayed, Failure> {
    let recorded = load::load(path, &arguments.trace_options(), progress)?;
    let failed = |message: String| Failure::new(format!("{}: {message}", path.display()));
    // The footprint is of blocks of 4 KiB, whatever the lines are: per cent mean the same bytes.
    let blocks = recorded.trace.touches(LineSize::ALL[0]).map_err(failed)?;
    let footprint = blocks.lines() * LineSize::ALL[0].bytes();
    let mut rows = Vec::new();
    for line_size in &arguments.line_sizes {
        progress.begin(format!("{}, lines of {line_size}", recorded.name));
        let cut;
        let touches = if *line_size == LineSize::ALL[0] {
            &blocks
        } else {
            cut = recorded.trace.touches(*line_size).map_err(failed)?;
            &cut
        };
        rows.extend(simulate_all(arguments, touches, footprint, progress).map_err(failed)?);
    }
    let Recorded { name, format, trace } = recorded;
    let (requests, writes) = (trace.requests(), trace.writes());
    Ok(Replayed { name, format, requests, writes, footprint, rows })
}

/// Simulates every size and policy, on as many threads as there are cores.
fn simulate_all(
    arguments: &ReplayArguments,
    touches: &Touches,
    footprint: u64,
    progress: &Progress,
) -> Result<Vec<Row>, String> {
    let sizes = arguments.sizes();
    let cells: Vec<(CacheSize, Policy)> = sizes
        .iter()
        .flat_map(|size| arguments.policies.iter().map(|policy| (*size, *policy)))
        .collect();
    let mut outcomes: Vec<Option<Result<Outcome, String>>> = vec![None; cells.len()];
    let next = AtomicUsize::new(0);
    let (sender, receiver) = mpsc::channel();
    std::thread::scope(|scope| {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        for _ in 0..threads.min(cells.len()) {
            let (sender, next, cells) = (sender.clone(), &next, &cells);
            scope.spawn(move || {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    let Some((size, policy)) = cells.get(index) else { break };
                    let settings = settings(arguments, *size, *policy, footprint);
                    // Whoever waits for it is in this function.
                    let _ = sender.send((index, simulate::run(touches, settings)));
                }
            });
        }
        drop(sender);
        for (done, (index, outcome)) in receiver.into_iter().enumerate() {
            outcomes[index] = Some(outcome);
            progress.show((done + 1) as f64 / cells.len() as f64);
        }
    });
    let line_size = touches.line_size();
    let rows = cells.into_iter().zip(outcomes).map(|((size, policy), outcome)| {
        let outcome = outcome.expect("every cell was simulated")?;
        Ok(Row { size, line_size, policy, outcome })
    });
    rows.collect()
}

fn settings(
    arguments: &ReplayArguments,
    size: CacheSize,
    policy: Policy,
    footprint: u64,
) -> Settings {
    Settings {
        policy,
        size_bytes: size.bytes(footprint),
        writes_are_cached: arguments.mode == CacheMode::WriteThrough,
        whole_lines: arguments.fill == Fill::Lines,
    }
}
