//! The cases that more than one program measures: the suites of `cargo xtask bench` in nanoseconds,
//! `cargo xtask instructions` in instructions.
//!
//! Absent: the suites themselves, which are the program's.

pub mod cases;
pub mod metadata;
mod rounds;
