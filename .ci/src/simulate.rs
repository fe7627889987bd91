//! `cargo xtask simulate`: the engine on simulated disks, as many seeds as one likes.
//!
//! The simulation, its options and its scenarios are in `tests/src/simulation`.

use std::path::Path;

use clap::Args;

use crate::StepResult;
use crate::command::Step;

/// What may be said after `cargo xtask simulate`.
#[derive(Args)]
pub(crate) struct SimulateArguments {
    /// Passed on to the program: --seeds N, --minutes M, --seed S, --scenario NAME, --trace, and
    /// what its `--help` says.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    runner_arguments: Vec<String>,
}

impl SimulateArguments {
    /// As many seeds as so many minutes are enough for.
    pub(crate) fn minutes(minutes: u32) -> Self {
        Self { runner_arguments: vec!["--minutes".to_owned(), minutes.to_string()] }
    }
}

/// Builds the simulation, optimised and with its assertions on, and runs it.
///
/// # Errors
/// When the build fails or a seed does; the program names the seed then.
pub(crate) fn run(root: &Path, arguments: &SimulateArguments) -> StepResult {
    let run = ["run", "--profile", "simulation", "--package", "forebay-tests", "--bin", "simulate"];
    Step::cargo("simulation", root, &run)
        .arguments(&["--".to_owned()])
        .arguments(&arguments.runner_arguments)
        .run()
}
