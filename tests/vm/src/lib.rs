//! Cases that need a kernel of their own: real drivers, other people's targets and hosts, faults
//! that no shared machine should see.
//!
//! ```text
//!   cargo test ──▶ main ──▶ trials: kernel × case ──▶ Machine ── boots ──▶ a kernel, whose first
//!                   ▲                                                      process is this program
//!                   └────────────── this program again, as the case ◀──────── again ┘
//! ```
//! A test program lists its [`Case`]s and hands them to [`main`]. It needs no image: the kernel's
//! root is this machine's file system, read-only, so the program and everything installed is there.
//!
//! | kernels | machine | what for |
//! |---|---|---|
//! | Linux for user mode | a process | the quickest, with the drivers built in |
//! | Debian's own | QEMU | several processors, modules, a distribution's configuration |
//! | this machine's | processes of their own | real hardware, where somebody asks for it |
//!
//! [`scene`] is what cases have in common: hosts, targets, verified load, file systems.
//!
//! Absent: fetching kernels, which `cargo xtask vm` does, and architectures other than x86-64.

pub mod case;
mod guest;
pub mod kernel;
pub mod machine;
mod message;
pub mod scene;
mod trials;

use std::process::ExitCode;
use std::sync::PoisonError;

pub use case::{Case, Need};

/// A test program of `cases`: the runner where it is started, and inside of a machine what that
/// needs.
pub fn main(cases: &'static [Case]) -> ExitCode {
    if let Some(code) = guest::run(cases) {
        return code;
    }
    let arguments = libtest_mimic::Arguments::from_args();
    let pool = trials::Pool::default();
    let conclusion = libtest_mimic::run(&arguments, trials::all(cases, &pool));
    pool.lock().unwrap_or_else(PoisonError::into_inner).clear();
    conclusion.exit_code()
}
