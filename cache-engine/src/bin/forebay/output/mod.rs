//! The only place that writes to the terminal.
//!
//! Standard output carries what a program may read: ready lines, tables, JSON. Standard error
//! carries notices and failures, for people.

pub(crate) mod json;
pub(crate) mod table;

use std::fmt::Display;
use std::io::{self, Write};

use crate::failure::Failure;

/// One line (or a table) on standard output, flushed, so that whoever waits for it goes on.
///
/// # Errors
/// When standard output is gone.
pub(crate) fn print(text: impl Display) -> Result<(), Failure> {
    let mut output = io::stdout().lock();
    writeln!(output, "{text}").and_then(|()| output.flush()).map_err(Failure::Output)
}

/// Tells whoever waits that `name` is served at `place`.
///
/// # Errors
/// When standard output is gone.
pub(crate) fn ready(name: &str, place: impl Display) -> Result<(), Failure> {
    print(format_args!("ready {name} {place}"))
}

/// Something that people should know, on standard error.
pub(crate) fn notice(text: impl Display) {
    // Nobody is left to tell when standard error is gone.
    let _ = writeln!(io::stderr().lock(), "forebay: {text}");
}

/// Why the command fails, on standard error.
pub(crate) fn failure(failure: &Failure) {
    let _ = writeln!(io::stderr().lock(), "error: {failure}");
}
