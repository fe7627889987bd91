//! `cargo xtask simulate`: runs seeds of the simulation on all cores, or one seed again.
//!
//! Ends with 0 when all is well, and with 1 after the first seed that failed, with the command that
//! replays it.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this is the output module")]

use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use block_io::{BufferPool, PoolLayout};
use clap::Parser;
use forebay_tests::simulation::runner::{self, Failure, Plan, Progress};
use forebay_tests::simulation::{Outcome, Scenario, Trace};

const PERIOD: Duration = Duration::from_secs(5);
/// Seeds when nothing is said.
const SEEDS: u64 = 5000;

/// Runs the engine on simulated disks, thousands of seeds, each of them a run of its own.
#[derive(Parser)]
#[command(name = "cargo xtask simulate", bin_name = "cargo xtask simulate")]
struct Arguments {
    /// How many seeds to run [default: 5000]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    seeds: Option<u64>,
    /// Run seeds for so many minutes
    #[arg(long, conflicts_with = "seeds", value_parser = minutes)]
    minutes: Option<Duration>,
    /// With --seeds or --minutes the first seed; alone, the one seed to run
    #[arg(long)]
    seed: Option<u64>,
    /// Only this scenario; otherwise each seed has one of them
    #[arg(long, value_name = "NAME", value_parser = Scenario::find)]
    scenario: Option<&'static Scenario>,
    /// Print what happened in the run of --seed, line by line
    #[arg(long, requires = "seed", conflicts_with_all = ["seeds", "minutes"])]
    trace: bool,
    /// Threads; one for each core by default
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
}

fn minutes(text: &str) -> Result<Duration, String> {
    let number = text.parse::<f64>().ok().filter(|number| (0.01..=100_000.0).contains(number));
    let number = number.ok_or("must be a number of minutes from 0.01 to 100000")?;
    Ok(Duration::from_secs_f64(number * 60.0))
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    runner::keep_panics();
    let result = match arguments.seed {
        Some(seed) if arguments.seeds.is_none() && arguments.minutes.is_none() => {
            run_one(&arguments, seed)
        }
        _ => run_many(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let Failure { scenario, seed, message } = &failure;
            eprintln!("\nFAILED: scenario {scenario}, seed {seed}\n{message}");
            eprintln!("\nreplay with: {}", failure.command());
            ExitCode::FAILURE
        }
    }
}

fn run_one(arguments: &Arguments, seed: u64) -> Result<(), Failure> {
    let scenario = arguments.scenario.unwrap_or_else(|| Scenario::of_seed(seed));
    let trace = arguments.trace.then(Trace::default);
    let outcome =
        runner::attempt(scenario, seed, &BufferPool::new(PoolLayout::STANDARD), trace.as_ref());
    for line in trace.iter().flat_map(Trace::lines) {
        println!("{line}");
    }
    println!("scenario {}, seed {seed}: {:?}", scenario.name, outcome?);
    Ok(())
}

fn run_many(arguments: &Arguments) -> Result<(), Failure> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    // Runs of some minutes are for finding what is not known, so each starts somewhere else.
    let clock = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    let first = arguments.seed.unwrap_or_else(|| match arguments.minutes {
        Some(_) => clock() * 1_000_000,
        None => 0,
    });
    let seeds = match arguments.minutes {
        Some(_) => u64::MAX,
        None => arguments.seeds.unwrap_or(SEEDS),
    };
    let threads = arguments.threads.map_or(cores, usize::from);
    let scenario = arguments.scenario;
    println!("first seed {first}, {threads} threads");
    let plan = Plan { first, seeds, time: arguments.minutes, scenario, threads };
    let progress = runner::run_all(&plan, PERIOD, say)?;
    say(&progress);
    for line in progress.table() {
        println!("{line}");
    }
    if let Some((scenario, event)) = progress.unmet().first() {
        let message = format!("none of its seeds ever met '{event}', which it is about");
        return Err(Failure { scenario, seed: first, message });
    }
    Ok(())
}

fn say(progress: &Progress) {
    let Progress { seeds, outcome, elapsed, .. } = progress;
    let Outcome { operations, crashes, counts, .. } = outcome;
    let read_hits = counts.read_hits;
    let (rate, seconds) = (progress.seeds_per_second(), elapsed.as_secs_f64());
    println!(
        "{seconds:>7.1} s  {seeds:>9} seeds ({rate:.0}/s)  {operations:>11} operations  \
         {crashes:>8} crashes  {read_hits:>10} hits"
    );
}
