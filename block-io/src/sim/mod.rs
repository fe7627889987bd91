//! A simulated world with the same faces as the real devices: a clock that only tests move, a
//! disk that fails in every way a disk may, a network that delays and cuts, and a reference disk
//! that knows which bytes a read may return.
//!
//! ```text
//!   World            seed, virtual clock, scheduled events, timers
//!     ├─ SimDisk       BlockDevice<World>: torn, reordered, lost, slow, hung, late, power cut
//!     ├─ Network       listen, connect, SimStream: delay, split, back-pressure, cut at a byte
//!     └─ Random        one generator for each component, all from the seed
//!   ReferenceDisk    the oracle: admissible values of each sector
//!   History          the same for several volumes, through crashes
//! ```
//! The same seed and the same calls give the same run, down to the event log. The loop of a test:
//! poll everything until nothing makes progress, then [`World::advance`]; [`World::run`] does it.
//!
//! Absent on purpose: threads, the real clock, iteration over anything unordered.

pub mod disk;
pub mod history;
pub mod network;
mod random;
pub mod reference;
mod world;

pub use disk::{
    DiscardEffect, DiskCounters, DiskEvent, DiskFaults, DiskLogEntry, Medium, SimDisk, SimQueue,
};
pub use history::{Crash, History, Refusal, VolumeRules};
pub use network::{
    Direction, Network, NetworkFaults, Received, Refused, Reset, SimListener, SimStream,
};
pub use random::Random;
pub use reference::{Mismatch, ReferenceDisk, describe, fill_pattern};
pub use world::{Stalled, Timer, Turn, World};
