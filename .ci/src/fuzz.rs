//! `cargo xtask fuzz`: every fuzz target for a bounded number of inputs, without libFuzzer.
//!
//! The targets and the runner are in `fuzz/`; long runs with coverage are cargo-fuzz's business,
//! see `docs/testing.md`.

use std::path::Path;

use clap::Args;

use crate::StepResult;
use crate::command::Step;

/// What may be said after `cargo xtask fuzz`.
#[derive(Args, Default)]
pub(crate) struct FuzzArguments {
    /// Passed on to the runner: names of targets, and what its `--help` says.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    runner_arguments: Vec<String>,
}

/// Runs the targets asked for, or all.
///
/// # Errors
/// When the build fails, or a target panics on an input; the runner names the input then.
pub(crate) fn run(root: &Path, arguments: &FuzzArguments) -> StepResult {
    // As the simulation: as fast as a release, with assertions and overflow checks on.
    let run =
        ["run", "--profile", "simulation", "--package", "forebay-fuzz", "--bin", "fuzz", "--"];
    Step::cargo("fuzz targets", root, &run).arguments(&arguments.runner_arguments).run()
}
