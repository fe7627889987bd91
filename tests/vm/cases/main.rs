//! Cases in kernels of their own: `cargo xtask vm`.
//!
//! | folder or file | between |
//! |---|---|
//! | `harness` | the harness and cases that go wrong |
//! | `authentication` | hosts and targets that prove themselves |
//! | `exported` | the kernel's host and volumes of `forebay run`; reservations that persist |
//! | `kernel_host` | the kernel's NVMe/TCP host and `forebay target` |
//! | `managed` | the kernel's host and our targets, while these are changed |
//! | `nvme_cli` | nvme-cli's commands on the kernel's host, and `forebay target` |
//! | `our_host` | our NVMe/TCP host and the kernel's target |
//! | `tls` | both of ours and the kernel's, encrypted |

mod authentication;
mod exported;
mod harness;
mod kernel_host;
mod managed;
mod nvme_cli;
mod our_host;
mod tls;

use std::process::ExitCode;

use forebay_vm::Case;

const CASES: &[&[Case]] = &[
    harness::CASES,
    kernel_host::CASES,
    nvme_cli::CASES,
    our_host::CASES,
    authentication::CASES,
    managed::CASES,
    exported::CASES,
    tls::KERNEL_HOST,
    tls::OUR_HOST,
    tls::CONCATENATION,
];

fn main() -> ExitCode {
    // Once, and for as long as the program runs.
    forebay_vm::main(CASES.concat().leak())
}
