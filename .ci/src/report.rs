//! The only place of this tool that prints: steps to standard error, so that what the tools
//! themselves say on standard output stays theirs.
#![allow(clippy::print_stderr, clippy::print_stdout, reason = "this is the output module")]

use std::time::Duration;

/// Announces a step and the command to repeat it by hand.
pub(crate) fn step(name: &str, command: &str) {
    eprintln!("\n==> {name}\n    {command}");
}

/// Says how long a step took.
pub(crate) fn done(name: &str, took: Duration) {
    eprintln!("<== {name}: ok in {:.1} s", took.as_secs_f64());
}

/// Something worth knowing that stops nothing.
pub(crate) fn note(message: &str) {
    eprintln!("note: {message}");
}

/// Lines of a table.
pub(crate) fn table(lines: &[String]) {
    for line in lines {
        eprintln!("    {line}");
    }
}

/// What another program is to read.
pub(crate) fn standard_output(text: &str) {
    println!("{text}");
}

/// Why the run ends here.
pub(crate) fn failure(message: &str) {
    eprintln!("error: {message}");
}
