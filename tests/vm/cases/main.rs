//! Cases in kernels of their own: `cargo xtask vm`.
//!
//! | folder or file | between |
//! |---|---|
//! | `harness` | the harness and cases that go wrong |

mod harness;

use std::process::ExitCode;

use forebay_vm::Case;

const CASES: &[&[Case]] = &[harness::CASES];

fn main() -> ExitCode {
    // Once, and for as long as the program runs.
    forebay_vm::main(CASES.concat().leak())
}
