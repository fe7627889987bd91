//! Advice about caches: what a cache of some size would have done for requests that were recorded.
//!
//! ```text
//!   bytes ──▶ trace::read ──▶ Access… ──▶ touches::Touches ──▶ simulate::run ──▶ Outcome
//!             (six formats)               (lines of one size)  (policy, size)
//! ```
//! Bytes come in from whoever has them and numbers go out, so all of it can be fuzzed and tested
//! without a file. Absent: time. A simulated cache answers at once, and a trace's pauses are
//! ignored.

pub mod simulate;
pub mod touches;
pub mod trace;
