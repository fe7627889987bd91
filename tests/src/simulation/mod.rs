//! The whole engine on simulated disks, against a history of what its clients were told: random
//! requests that overlap, random faults on all devices, everything reordered, crashes, thousands of
//! seeds a second.
//!
//! ```text
//!   runner ── one thread a core, a seed at a time ──▶ run(scenario, seed)
//!                                                      │ requests, upsets, crashes
//!     History ◀── begin, complete, crash ── client ────┼──▶ engine (the one file that knows it)
//!                                                      │       │ queues
//!                                     World: clock ────┴──▶ SimDisk: origins, cache device
//! ```
//! A seed decides everything: the sizes, the requests, what fails and when. So a failure is a
//! scenario's name and a number, and `cargo xtask simulate` prints the command that replays them.
//!
//! Absent: threads within a run, real time, and the frontends, which have tests of their own.

mod changes;
mod counts;
pub mod crash_images;
mod engine;
mod engine_images;
mod guest;
mod host;
mod host_clock;
mod lease;
mod membership;
mod outages;
mod outcome;
mod places;
mod run;
pub mod runner;
mod scenario;
mod setup;
mod slow_cache_device;
#[cfg(test)]
mod tests;
mod trace;

pub use counts::Counts;
pub use engine_images::{CheckedImages, ImageRun, check_engine_images};
pub use outcome::Outcome;
pub use run::run;
pub use scenario::{SCENARIOS, Scenario};
pub use slow_cache_device::{Latencies, latencies_beside_a_slow_cache_device};
pub use trace::Trace;
