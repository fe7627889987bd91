//! `cargo xtask instructions`: what one request costs the engine in instructions, beside what it
//! cost when that was last recorded.
//!
//! ```text
//!   for each case:  valgrind … case 2000   ─┐
//!                   valgrind … case 12000  ─┴▶ difference / 10000 ──▶ table, verdict
//! ```
//! Instructions do not depend on how busy the machine is, so a change of a few per cent can be
//! seen, and can fail a run, where nanoseconds could not. They do depend on the compiler and its
//! target; the recorded numbers are of the toolchain in `rust-toolchain.toml`.
//!
//! Absent: cache misses and branches, which are what the benchmarks are for.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use clap::Args;

use crate::command::{Step, find_program};
use crate::test::target_folder;
use crate::{StepResult, report, system_packages};

/// Where the numbers are kept.
const RECORD: &str = "benches/instructions.json";
/// A change of more per cent, either way, is told; upwards it fails.
const TOLERANCE_PERCENT: f64 = 5.0;
/// The two counts of requests. The difference is what is measured: everything before the first
/// request, and after the last, is the same in both.
const ITERATIONS: [u64; 2] = [2000, 12_000];

/// What may be said after `cargo xtask instructions`.
#[derive(Args, Default)]
pub(crate) struct InstructionsArguments {
    /// Record the numbers of this run as the ones to compare with
    #[arg(long)]
    update: bool,
    /// Fail where valgrind is missing, in place of skipping
    #[arg(long)]
    require: bool,
}

/// Counts, compares, and records if asked to.
///
/// # Errors
/// When something cannot be run, a case costs more than was recorded, or the cases are others.
pub(crate) fn run(root: &Path, arguments: &InstructionsArguments) -> StepResult {
    system_packages::provide(root)?;
    if find_program("valgrind").is_none() {
        let missing = "valgrind is missing: instructions are not counted";
        if arguments.require {
            return Err(missing.to_owned());
        }
        report::note(missing);
        return Ok(());
    }
    let build = ["build", "--release", "--package", "forebay-benches", "--bin", "instructions"];
    Step::cargo("instruction cases", root, &build).run()?;
    let program = target_folder(root).join("release/instructions");
    let names = output(Command::new(&program).arg("list"))?.0;
    let mut counted = BTreeMap::new();
    for name in names.lines() {
        counted.insert(name.to_owned(), count(&program, name)?);
    }
    let path = root.join(RECORD);
    if arguments.update {
        let text = serde_json::to_string_pretty(&counted).expect("names and numbers are JSON");
        std::fs::write(&path, text + "\n").map_err(|error| format!("{RECORD}: {error}"))?;
        report::table(&table(&counted, &counted));
        report::note(&format!("recorded in {RECORD}"));
        return Ok(());
    }
    let text = std::fs::read_to_string(&path).map_err(|error| format!("{RECORD}: {error}"))?;
    let recorded = serde_json::from_str(&text).map_err(|error| format!("{RECORD}: {error}"))?;
    report::table(&table(&counted, &recorded));
    verdict(&counted, &recorded)
}

/// Instructions of one request of the case `name`: those that driving it takes without a cache are
/// not the engine's, and are taken off.
fn count(program: &Path, name: &str) -> Result<f64, String> {
    let with_cache = each(program, &[name], &[])?;
    let driving = each(program, &[name], &["without-cache"])?;
    Ok(((with_cache - driving) * 10.0).round() / 10.0)
}

/// Instructions of one request more.
fn each(program: &Path, before: &[&str], after: &[&str]) -> Result<f64, String> {
    let [few, many] = ITERATIONS.map(|iterations| total(program, before, iterations, after));
    let requests = ITERATIONS[1] - ITERATIONS[0];
    Ok(many?.saturating_sub(few?) as f64 / requests as f64)
}

/// All instructions of a run with so many requests.
fn total(program: &Path, before: &[&str], count: u64, after: &[&str]) -> Result<u64, String> {
    let valgrind = find_program("valgrind").unwrap_or_else(|| PathBuf::from("valgrind"));
    let mut command = Command::new(valgrind);
    command
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(program)
        .args(before)
        .arg(count.to_string())
        .args(after);
    let (_, told) = output(&mut command)?;
    collected(&told)
        .ok_or_else(|| format!("{before:?}: callgrind did not say what it counted: {told}"))
}

/// The number in callgrind's last words, `==123== Collected : 4567`.
fn collected(told: &str) -> Option<u64> {
    let line = told.lines().find_map(|line| line.split_once("Collected : "))?.1;
    line.split_whitespace().next()?.parse().ok()
}

fn output(command: &mut Command) -> Result<(String, String), String> {
    let output = command.stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("{command:?}: {error}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (said, told) = (text(&output.stdout), text(&output.stderr));
    match output.status.success() {
        true => Ok((said, told)),
        false => Err(format!("{command:?} ended with {}: {told}", output.status)),
    }
}

/// Per cent more than was recorded.
fn change(now: f64, recorded: f64) -> f64 {
    (now / recorded - 1.0) * 100.0
}

fn table(counted: &BTreeMap<String, f64>, recorded: &BTreeMap<String, f64>) -> Vec<String> {
    let mut lines =
        vec![format!("{:<28} {:>12} {:>12} {:>9}", "instructions", "now", "recorded", "change")];
    for (name, now) in counted {
        lines.push(match recorded.get(name) {
            Some(recorded) => {
                let change = change(*now, *recorded);
                format!("{name:<28} {now:>12.1} {recorded:>12.1} {change:>+7.1} %")
            }
            None => format!("{name:<28} {now:>12.1} {:>12} {:>9}", "-", "new"),
        });
    }
    lines
}

/// Whether the numbers may stand beside those recorded.
fn verdict(counted: &BTreeMap<String, f64>, recorded: &BTreeMap<String, f64>) -> StepResult {
    let update = format!("`cargo xtask instructions --update` records these numbers in {RECORD}");
    let mut worse = Vec::new();
    for (name, now) in counted {
        match recorded.get(name).map(|recorded| change(*now, *recorded)) {
            Some(change) if change > TOLERANCE_PERCENT => {
                worse.push(format!("{name} costs {change:.1} % more"));
            }
            Some(change) if change < -TOLERANCE_PERCENT => {
                report::note(&format!("{name} costs {:.1} % less: {update}", -change));
            }
            Some(_) => {}
            None => worse.push(format!("{name} is not recorded")),
        }
    }
    let gone = recorded.keys().filter(|name| !counted.contains_key(*name));
    worse.extend(gone.map(|name| format!("{name} is recorded and there is no such case")));
    if worse.is_empty() {
        return Ok(());
    }
    Err(format!(
        "instructions: {}; the tolerance is {TOLERANCE_PERCENT} %. If that is as it should be: \
         {update}",
        worse.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbers(numbers: &[(&str, f64)]) -> BTreeMap<String, f64> {
        numbers.iter().map(|(name, number)| ((*name).to_owned(), *number)).collect()
    }

    #[test]
    fn what_costs_more_than_the_tolerance_fails_and_is_named() {
        let recorded = numbers(&[("hit", 1000.0), ("miss", 2000.0)]);
        assert_eq!(verdict(&numbers(&[("hit", 1049.0), ("miss", 1000.0)]), &recorded), Ok(()));
        let worse = verdict(&numbers(&[("hit", 1000.0), ("miss", 2101.0)]), &recorded);
        let message = worse.expect_err("5.05 % more");
        assert!(message.contains("miss costs 5.0 % more"), "{message}");
        assert!(message.contains("--update"), "{message}");
    }

    #[test]
    fn new_and_vanished_cases_must_be_recorded() {
        let message = verdict(&numbers(&[("hit", 1.0)]), &numbers(&[("miss", 1.0)]));
        let message = message.expect_err("other cases");
        assert!(message.contains("hit is not recorded"), "{message}");
        assert!(message.contains("miss is recorded and there is no such case"), "{message}");
        let table = table(&numbers(&[("hit", 1.0)]), &numbers(&[])).join("\n");
        assert!(table.contains("new"), "{table}");
    }

    #[test]
    fn callgrinds_number_is_found() {
        let told = "==9== Events    : Ir\n==9== Collected : 123456\n==9== \n";
        assert_eq!(collected(told), Some(123_456));
        assert_eq!(collected("==9== nothing"), None);
    }
}
