//! `cargo xtask fuzz`: the targets for a fixed number of inputs each, on the stable toolchain.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "this is the output module")]

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use forebay_fuzz::{TARGETS, Target, runner};

/// Runs fuzz targets on mutated inputs.
#[derive(Parser)]
#[command(name = "cargo xtask fuzz", bin_name = "cargo xtask fuzz")]
struct Arguments {
    /// Names of targets; all of them by default.
    targets: Vec<String>,
    /// Inputs for each target; slow targets run a fraction of it.
    #[arg(long, default_value_t = 40_000)]
    iterations: u64,
    /// As many inputs as so many seconds are enough for instead.
    #[arg(long, conflicts_with = "iterations", value_name = "SECONDS")]
    seconds: Option<u64>,
    /// Folder of more inputs to start from: fuzz/corpus/TARGET of a run with --guided.
    #[arg(long, value_name = "FOLDER")]
    corpus: Option<PathBuf>,
    /// Decides every input.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Runs this one input instead, from a file.
    #[arg(long)]
    input: Option<PathBuf>,
    /// Where failing inputs are written to.
    #[arg(long, default_value = "fuzz/artifacts")]
    artifacts: PathBuf,
    /// Lists the targets.
    #[arg(long)]
    list: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), String> {
    let targets = chosen(&arguments.targets)?;
    for target in targets {
        if arguments.list {
            println!("{}", target.name);
        } else if let Some(path) = &arguments.input {
            let input =
                std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
            runner::run_once(target, &input)
                .map_err(|panic| format!("{}: {panic}", target.name))?;
            println!("{}: {} bytes, no panic", target.name, input.len());
        } else {
            let plan = runner::Plan {
                iterations: arguments.iterations / target.cost,
                time: arguments.seconds.map(Duration::from_secs),
                corpus: arguments.corpus.clone(),
                seed: arguments.seed,
                artifacts: arguments.artifacts.clone(),
            };
            let summary = runner::run(target, &plan)?;
            println!(
                "{}: {} inputs of seed {}, {} behaviours, {:.1} s, no panic",
                target.name,
                summary.inputs,
                plan.seed,
                summary.behaviours,
                summary.elapsed.as_secs_f64()
            );
        }
    }
    Ok(())
}

fn chosen(names: &[String]) -> Result<Vec<&'static Target>, String> {
    if names.is_empty() {
        return Ok(TARGETS.iter().collect());
    }
    let all = || TARGETS.iter().map(|target| target.name).collect::<Vec<_>>().join(", ");
    let find = |name: &String| {
        let found = TARGETS.iter().find(|target| target.name == name);
        found.ok_or_else(|| format!("no fuzz target `{name}`; there are {}", all()))
    };
    names.iter().map(find).collect()
}
