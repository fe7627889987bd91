//! The simulation of the whole engine, and what conformance tests share: programs of other people's
//! to run, servers of ours to run them against, and the cases themselves as functions of an
//! export's URI.
//!
//! ```text
//!   conformance/*.rs ──starts──▶ server ──URI──▶ nbd::{info, copy, qemu, fio}
//! ```
//! A case panics when the client or the server does what it should not. A client that is not
//! installed is skipped with a line that names it, or fails the test when
//! `FOREBAY_REQUIRE_TOOLS=1` or `FOREBAY_REQUIRE_CLIENTS=1` is set.

pub mod nbd;
pub mod program;
pub mod server;
pub mod simulation;
