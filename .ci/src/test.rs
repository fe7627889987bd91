//! `cargo xtask test`: every test of the workspace, with the programs they drive installed first.
//!
//! The output ends with the test runner's own count: nextest's summary where nextest is installed,
//! else the sum of the `test result:` lines of `cargo test`, in the same words.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::Stdio;

use clap::Args;

use crate::command::{Step, find_program};
use crate::{StepResult, report, system_packages, vm};

/// The crate whose features others choose.
pub(crate) const LIBRARY: &str = "nvme-fabric";

/// What may be said after `cargo xtask test`.
#[derive(Args, Default)]
pub(crate) struct TestArguments {
    /// Use `cargo test` even where nextest is installed.
    #[arg(long)]
    no_nextest: bool,
    /// Fail instead of skipping tests when a program they drive is missing.
    #[arg(long)]
    require_tools: bool,
    /// Passed on to the runner: a filter, for instance.
    #[arg(last = true)]
    runner_arguments: Vec<String>,
}

/// Builds the command and runs every test, documentation tests first.
///
/// # Errors
/// When a program cannot be installed, a build fails or a test does.
pub(crate) fn run(root: &Path, arguments: &TestArguments) -> StepResult {
    let all_there = system_packages::provide(root)?;
    if arguments.require_tools && !all_there {
        return Err("tools are missing, see the notes above".to_owned());
    }
    // Tests skip what they lack a program for only while this is not set: on a machine that has
    // them all, a test that cannot find one has failed.
    let require_tools = if all_there { "1" } else { "0" };

    // Tests of the command drive the release build, the one that people run.
    Step::cargo("release build", root, &["build", "--release", "--bin", "forebay"]).run()?;
    let binary = target_folder(root).join("release/forebay");

    let doc = ["test", "--workspace", "--all-features", "--doc", "--quiet"];
    Step::cargo("documentation tests", root, &doc).run()?;

    // Of the crate as it is without features, what is another way then: all else runs with them.
    let plain = ["test", "--package", LIBRARY, "--test", "without_auth", "--quiet"];
    Step::cargo("tests without features", root, &plain).run()?;

    let nextest = !arguments.no_nextest && find_program("cargo-nextest").is_some();
    let step = if nextest {
        Step::cargo("tests", root, &["nextest", "run", "--workspace", "--all-features"])
            .arguments(&arguments.runner_arguments)
    } else {
        let cargo = ["test", "--workspace", "--all-features", "--all-targets", "--no-fail-fast"];
        let separator = if arguments.runner_arguments.is_empty() { &[][..] } else { &["--"] };
        Step::cargo("tests", root, &cargo)
            .arguments(&separator.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
            .arguments(&arguments.runner_arguments)
    };
    let step = step
        .environment("FOREBAY_REQUIRE_CLIENTS", require_tools)
        .environment("FOREBAY_BINARY", &binary.to_string_lossy());
    let step = vm::with_kernels(root, step);
    if nextest { step.run_last() } else { run_and_count(step) }
}

/// Where cargo builds to.
pub(crate) fn target_folder(root: &Path) -> std::path::PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), |path| root.join(path))
}

/// Runs `cargo test`, passing its output on, and ends with the sum of its counts.
fn run_and_count(step: Step) -> StepResult {
    let line = step.line();
    report::step("tests", &line);
    let mut child = step
        .into_command()
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("tests: `{line}` could not be started: {error}"))?;
    let output = child.stdout.take().expect("standard output was asked for as a pipe");
    let mut total = Count::default();
    let mut terminal = std::io::stdout();
    for text in BufReader::new(output).lines() {
        let text = text.map_err(|error| format!("tests: output could not be read: {error}"))?;
        total.add(&text);
        writeln!(terminal, "{text}").map_err(|error| format!("standard output: {error}"))?;
    }
    let status = child.wait().map_err(|error| format!("tests: {error}"))?;
    writeln!(terminal, "\n{}", total.summary(status.success()))
        .map_err(|error| format!("standard output: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("tests: `{line}` ended with {status}")) }
}

/// The sum of what the test programs say of themselves.
#[derive(Default, Debug, PartialEq, Eq)]
struct Count {
    programs: u64,
    passed: u64,
    failed: u64,
    ignored: u64,
}

impl Count {
    /// Adds a line such as `test result: ok. 3 passed; 0 failed; 0 ignored; …`, and no other.
    fn add(&mut self, line: &str) {
        let Some(rest) = line.strip_prefix("test result: ") else { return };
        let counts = rest.split_once(". ").map_or("", |(_, counts)| counts);
        for part in counts.split("; ") {
            let mut words = part.split(' ');
            let number = words.next().and_then(|word| word.parse::<u64>().ok());
            match (number, words.next()) {
                (Some(number), Some("passed")) => self.passed += number,
                (Some(number), Some("failed")) => self.failed += number,
                (Some(number), Some("ignored")) => self.ignored += number,
                _ => {}
            }
        }
        self.programs += 1;
    }

    fn summary(&self, success: bool) -> String {
        format!(
            "test result: {}. {} passed; {} failed; {} ignored (sum of {} test programs)",
            if success { "ok" } else { "FAILED" },
            self.passed,
            self.failed,
            self.ignored,
            self.programs
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sum_is_of_result_lines_only() {
        let mut count = Count::default();
        for line in [
            "running 3 tests",
            "test 9 passed; ... ok",
            "test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out",
            "test result: FAILED. 4 passed; 2 failed; 0 ignored; 0 measured; 7 filtered out",
        ] {
            count.add(line);
        }
        assert_eq!(count, Count { programs: 2, passed: 7, failed: 2, ignored: 1 });
        assert_eq!(
            count.summary(false),
            "test result: FAILED. 7 passed; 2 failed; 1 ignored (sum of 2 test programs)"
        );
    }
}
