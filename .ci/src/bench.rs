//! `cargo xtask bench`: the benchmark suites, in release mode.
//!
//! The suites themselves, their options and the format of their results are in `benches/`.

use std::path::Path;

use clap::Args;

use crate::StepResult;
use crate::command::Step;
use crate::test::target_folder;

/// What may be said after `cargo xtask bench`.
#[derive(Args)]
pub(crate) struct BenchArguments {
    /// Passed on to the runner: suites such as `engine` or `ram`, `--json FILE`, and what `--help`
    /// says.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    runner_arguments: Vec<String>,
}

/// Builds the command and the benchmarks, and runs the suites asked for.
///
/// # Errors
/// When a build fails or a benchmark does.
pub(crate) fn run(root: &Path, arguments: &BenchArguments) -> StepResult {
    Step::cargo("release build", root, &["build", "--release", "--bin", "forebay"]).run()?;
    let binary = target_folder(root).join("release/forebay");
    Step::cargo("benchmarks", root, &["run", "--release", "--package", "forebay-benches", "--"])
        .arguments(&arguments.runner_arguments)
        .environment("FOREBAY_BINARY", &binary.to_string_lossy())
        .run()
}
