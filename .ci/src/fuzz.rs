//! `cargo xtask fuzz`: every fuzz target for a bounded number of inputs, without libFuzzer; with
//! `--guided`, one after the other for a time each under libFuzzer, on the stable toolchain too.
//!
//! ```text
//!   cargo build ──▶ this tool as RUSTC_WORKSPACE_WRAPPER ──▶ rustc … -C passes=sancov-module …
//! ```
//! libFuzzer wants counters in the code, which any rustc can have LLVM put in. Only this
//! workspace's crates get them: what is fuzzed is ours, and the rest stays as fast as it is.
//!
//! The targets and the runner are in `fuzz/`, see `docs/testing.md`.

use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, ExitCode};

use clap::Args;

use crate::StepResult;
use crate::command::Step;
use crate::test::target_folder;

/// What may be said after `cargo xtask fuzz`.
#[derive(Args, Default)]
pub(crate) struct FuzzArguments {
    /// Run the targets named under libFuzzer, for so many seconds each.
    #[arg(long, value_name = "SECONDS")]
    guided: Option<u32>,
    /// Passed on to the runner: names of targets, and what its `--help` says. With --guided, names
    /// of targets, and then options of libFuzzer (-max_len=N).
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    runner_arguments: Vec<String>,
}

/// Runs the targets asked for, or all.
///
/// # Errors
/// When the build fails, or a target panics on an input; the runner names the input then.
pub(crate) fn run(root: &Path, arguments: &FuzzArguments) -> StepResult {
    if let Some(seconds) = arguments.guided {
        return run_guided(root, seconds, &arguments.runner_arguments);
    }
    // As the simulation: as fast as a release, with assertions and overflow checks on.
    let run =
        ["run", "--profile", "simulation", "--package", "forebay-fuzz", "--bin", "fuzz", "--"];
    Step::cargo("fuzz targets", root, &run).arguments(&arguments.runner_arguments).run()
}

/// Says that this program is to be a compiler.
const IS_COMPILER: &str = "FOREBAY_FUZZ_COMPILER";

/// Crates with counters: what is fuzzed, and the targets, whose assertions are to be reached.
const COUNTED: &[&str] = &["nvme_fabric", "cache_engine", "forebay_fuzz", "guided"];

fn run_guided(root: &Path, seconds: u32, arguments: &[String]) -> StepResult {
    let (options, targets): (Vec<String>, Vec<String>) =
        arguments.iter().cloned().partition(|argument| argument.starts_with('-'));
    if targets.is_empty() {
        return Err("fuzz --guided: must name a target (`cargo xtask fuzz --list`)".to_owned());
    }
    let this = std::env::current_exe().map_err(|error| format!("fuzz --guided: {error}"))?;
    let build = ["build", "--profile", "simulation", "--package", "forebay-fuzz"];
    Step::cargo("fuzz targets with counters", root, &build)
        .arguments(&["--bin".to_owned(), "guided".to_owned()])
        .environment("RUSTC_WORKSPACE_WRAPPER", &this.to_string_lossy())
        .environment(IS_COMPILER, "1")
        .run()?;
    let program = target_folder(root).join("simulation/guided");
    for target in &targets {
        let corpus = root.join("fuzz/corpus").join(target);
        let artifacts = root.join("fuzz/artifacts");
        for folder in [&corpus, &artifacts] {
            std::fs::create_dir_all(folder)
                .map_err(|error| format!("{}: {error}", folder.display()))?;
        }
        let (corpus, artifacts) = (corpus.to_string_lossy(), artifacts.to_string_lossy());
        let time = format!("-max_total_time={seconds}");
        let prefix = format!("-artifact_prefix={artifacts}/{target}-");
        // The same bounds as without libFuzzer: an input that takes a minute does not end.
        let fixed = [&corpus, &*time, &*prefix, "-timeout=60", "-print_final_stats=1"];
        Step::new(target, root, &program.to_string_lossy(), &fixed)
            .arguments(&options)
            .environment("FOREBAY_FUZZ_TARGET", target)
            .environment("FOREBAY_FUZZ_CORPUS", &corpus)
            .run()?;
    }
    Ok(())
}

/// When cargo has started this program in place of a compiler: compiles with counters, and how that
/// ended.
pub(crate) fn as_compiler() -> Option<ExitCode> {
    std::env::var_os(IS_COMPILER)?;
    let mut words = std::env::args_os().skip(1);
    let compiler = words.next()?;
    let arguments: Vec<OsString> = words.collect();
    let status = Command::new(compiler).args(&arguments).args(counting(&arguments)).status();
    let code =
        status.ok().and_then(|status| status.code()).and_then(|code| u8::try_from(code).ok());
    Some(code.map_or(ExitCode::FAILURE, ExitCode::from))
}

/// What is added to a compiler's arguments: as cargo-fuzz has it, without a sanitizer.
fn counting(arguments: &[OsString]) -> Vec<&'static str> {
    let mut added = vec!["--cfg", "fuzzing"];
    let name = arguments.iter().position(|word| word == "--crate-name");
    let name = name.and_then(|at| arguments.get(at + 1)?.to_str());
    if name.is_some_and(|name| COUNTED.contains(&name)) {
        added.extend([
            "-Cpasses=sancov-module",
            "-Cllvm-args=-sanitizer-coverage-level=4",
            "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
            "-Cllvm-args=-sanitizer-coverage-pc-table",
            "-Cllvm-args=-sanitizer-coverage-trace-compares",
        ]);
    }
    added
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_fuzzed_gets_counters() {
        let of =
            |name: &str| counting(&["--crate-name", name, "src/lib.rs"].map(OsString::from)).len();
        assert!(of("nvme_fabric") > of("block_io"));
        assert_eq!(counting(&[]), ["--cfg", "fuzzing"]);
    }
}
