//! `cargo xtask`: every check, test, fuzz run and benchmark of the workspace behind one command.
//!
//! ```text
//!   .ci/run ──▶ cargo xtask ci ──▶ fmt, tidy, clippy, deny, doc, fuzz, instructions ──▶ test
//!   README  ──▶ cargo xtask test ────────────────────────────────────────────────────────┘
//! ```
//! What a continuous integration service does is therefore what anybody can do at a prompt. What
//! is absent: anything about a particular service, and shell scripts.

mod bench;
mod ci;
mod citations;
mod command;
mod debian_kernels;
mod debian_trees;
mod fuzz;
mod instructions;
mod report;
mod simulate;
mod system_packages;
mod test;
mod tidy;
mod vm;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Why a step failed, told whole.
type StepResult = Result<(), String>;

/// Checks, tests and benchmarks of Forebay.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Everything that must hold before a change lands; ends with the tests.
    Ci,
    /// All tests, after installing the programs they need where that is possible.
    Test(test::TestArguments),
    /// The house rules that neither the compiler nor clippy knows.
    Tidy,
    /// Which places of specifications the comments of `nvme-fabric` cite, and how often.
    Citations(citations::CitationsArguments),
    /// Every fuzz target for a bounded number of inputs, or some for a time by coverage.
    Fuzz(fuzz::FuzzArguments),
    /// The engine on simulated disks: seeds on all cores, or one seed again.
    Simulate(simulate::SimulateArguments),
    /// Instructions that a request costs the engine, beside those recorded.
    Instructions(instructions::InstructionsArguments),
    /// Cases in kernels of their own: the kernel's NVMe/TCP host and target, against ours.
    Vm(vm::VmArguments),
    /// The benchmark suites, in release mode.
    Bench(bench::BenchArguments),
}

fn main() -> ExitCode {
    if let Some(code) = fuzz::as_compiler() {
        return code;
    }
    let arguments = Arguments::parse();
    let root = workspace_root();
    let outcome = match arguments.verb {
        Verb::Ci => ci::run(&root),
        Verb::Test(arguments) => test::run(&root, &arguments),
        Verb::Tidy => tidy::run(&root),
        Verb::Citations(arguments) => citations::run(&root, &arguments),
        Verb::Fuzz(arguments) => fuzz::run(&root, &arguments),
        Verb::Simulate(arguments) => simulate::run(&root, &arguments),
        Verb::Instructions(arguments) => instructions::run(&root, &arguments),
        Verb::Vm(arguments) => vm::run(&root, &arguments),
        Verb::Bench(arguments) => bench::run(&root, &arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            report::failure(&message);
            ExitCode::FAILURE
        }
    }
}

/// The folder of the workspace's `Cargo.toml`: the parent of this package's, which cargo says when
/// it runs this; several checkouts may share one build of it.
fn workspace_root() -> PathBuf {
    let package = std::env::var_os("CARGO_MANIFEST_DIR");
    let mut root = package.map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    root.pop();
    root
}
