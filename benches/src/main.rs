//! `cargo xtask bench`: runs the suites and prints their results, and writes them as JSON.
//!
//! ```text
//!   engine   the cache by itself, devices that cost nothing: nanoseconds a request, one thread
//!            and two
//!   ram      memory that the cache takes, by a counting allocator: MiB a GiB of cache
//!   records  bytes that the cache writes about its lines, per GiB of data
//!   slow     latencies beside a cache device that takes 100 ms
//!   start    starts of a cache of 1 TiB on a file: in order, and after SIGKILL
//!   nbd      `forebay run` beside `nbdkit memory`, both driven by fio, in turn
//!   nvme     our target on one core, our host on another, over loopback TCP; or our host alone,
//!            with `--address IP:PORT --subsystem NQN` of any target
//!   trace    hit ratios on real traces, beside other policies; needs FOREBAY_TRACES
//! ```
//! Every benchmark is run several times and its result is the median. A suite that compares runs
//! its sides in turn, so that whatever else the machine does meets both.
//!
//! Absent: a verdict. Nothing here fails because a number is low.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this is the output module")]

mod allocations;
mod cores;
mod engine;
mod nbd;
mod nvme;
mod ram;
mod records;
mod results;
mod served;
mod service;
mod slow;
mod start;
mod trace;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};

use results::Results;

#[global_allocator]
static ALLOCATOR: allocations::Counting = allocations::Counting;

/// What went wrong, told whole.
type Failure = String;

/// Runs benchmark suites.
#[derive(Parser)]
#[command(name = "cargo xtask bench", bin_name = "cargo xtask bench")]
struct Arguments {
    /// Suites to run; all of them by default
    suites: Vec<Suite>,
    /// Also write the results to this file, as {"benchmark": {"value": …, "unit": …, "runs": …}}
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Runs of each benchmark, at least 10 in the engine suite; the result is their median
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=1000))]
    runs: u32,
    /// Seconds of each run in the suites nbd and nvme, of all runs together in the engine suite
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=3600))]
    seconds: u32,
    /// Only benchmarks whose name contains this
    #[arg(long, default_value = "")]
    filter: String,
    /// A target that is there already: the suite nvme reads its namespace 1, and starts none
    #[arg(long, value_name = "IP:PORT", requires = "subsystem")]
    address: Option<SocketAddr>,
    /// The NQN of its subsystem
    #[arg(long, value_name = "NQN", requires = "address")]
    subsystem: Option<String>,
    /// Serves the cache in this file until it is killed: the suite `start` starts itself so
    #[arg(long, hide = true)]
    serve_until_killed: Option<PathBuf>,
}

impl Arguments {
    /// The target that the suite nvme goes to, and no other suite knows what to do with.
    fn external(&self) -> Result<Option<nvme::External>, Failure> {
        let (Some(address), Some(subsystem)) = (self.address, &self.subsystem) else {
            return Ok(None);
        };
        if self.suites != [Suite::Nvme] {
            return Err(format!("--address {address}: must come with the suite `nvme` alone"));
        }
        Ok(Some(nvme::External { address, subsystem: subsystem.clone() }))
    }
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Suite {
    /// The cache by itself
    Engine,
    /// Memory that the cache takes
    Ram,
    /// What the cache writes about its lines
    Records,
    /// Beside a slow cache device
    Slow,
    /// Warm starts
    Start,
    /// Our NBD server beside nbdkit's memory plugin
    Nbd,
    /// Our NVMe/TCP target and host, one core each
    Nvme,
    /// Hit ratios on the traces in the folder that FOREBAY_TRACES names
    Trace,
}

/// How each benchmark is run.
struct Plan {
    runs: u32,
    /// Length of one run that is measured by the clock.
    time: Duration,
    filter: String,
}

impl Plan {
    fn wants(&self, name: &str) -> bool {
        match self.filter.strip_prefix('=') {
            Some(whole) => name == whole,
            None => name.contains(&self.filter),
        }
    }
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), Failure> {
    if let Some(path) = &arguments.serve_until_killed {
        return start::serve_until_killed(path);
    }
    let plan = Plan {
        runs: arguments.runs,
        time: Duration::from_secs(arguments.seconds.into()),
        filter: arguments.filter.clone(),
    };
    let external = arguments.external()?;
    let mut results = Results::default();
    for suite in Suite::value_variants() {
        if !arguments.suites.is_empty() && !arguments.suites.contains(suite) {
            continue;
        }
        match suite {
            Suite::Engine => {
                engine::run(&plan, &mut results)?;
                cores::run(&plan, &mut results)?;
            }
            Suite::Ram => ram::run(&plan, &mut results)?,
            Suite::Records => records::run(&plan, &mut results)?,
            Suite::Slow => slow::run(&plan, &mut results)?,
            Suite::Start => start::run(&plan, &mut results)?,
            Suite::Nbd => nbd::run(&plan, &mut results)?,
            Suite::Nvme => nvme::run(&plan, external.as_ref(), &mut results)?,
            Suite::Trace => trace::run(&plan, &mut results)?,
        }
    }
    if results.is_empty() {
        return Err(format!("no benchmark's name contains `{}`", arguments.filter));
    }
    if let Some(path) = &arguments.json {
        std::fs::write(path, results.to_json())
            .map_err(|error| format!("{}: {error}", path.display()))?;
        println!("written to {}", path.display());
    }
    Ok(())
}
