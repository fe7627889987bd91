//! What clients of several volumes were told, and whether all of it can be true: one
//! [`ReferenceDisk`] a volume, and the crashes that all of them go through together.
//!
//! ```text
//!   clients ──begin, complete──▶ volume 0: admissible values of each sector
//!                                volume 1: …                ▲
//!   crash(kind) ────────────────────────────────────────────┘ all volumes at one moment
//! ```
//! It refuses: a stale read; a foreign volume's bytes; an acknowledged write that a crash lost
//! although it was durable; and a *flip*, which is a sector that reads differently twice with no
//! write between. That last one is what a warm cache gets wrong: after a crash an unacknowledged
//! write may be there or not, but whichever the first read says, it stays, across evictions.
//!
//! Absent: an order between volumes.

use std::fmt;

use super::{Mismatch, ReferenceDisk};
use crate::{Completion, IoError, Request};

/// What dies in a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Crash {
    /// The process, and nothing else: what has landed on a device stays, flushed or not.
    ProcessKilled,
    /// The cache's host: the process, and what the cache device had not made durable.
    CachePowerCut,
    /// The origin's host: what the origin had not made durable. The process lives, and its requests
    /// in flight are still to end, with an error.
    OriginPowerCut,
}

impl Crash {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::ProcessKilled, Self::CachePowerCut, Self::OriginPowerCut];

    /// Whether the process dies, and its requests with it.
    pub const fn kills_process(self) -> bool {
        matches!(self, Self::ProcessKilled | Self::CachePowerCut)
    }
}

/// What one volume's origin promises.
#[derive(Clone, Copy, Debug)]
pub struct VolumeRules {
    /// Bytes.
    pub capacity: u64,
    /// Acknowledged writes are durable only after a flush or by force unit access.
    pub volatile_cache: bool,
    /// Lost writes may land at any later time, until a fence.
    pub late_writes: bool,
}

/// The history of all volumes.
#[derive(Debug)]
pub struct History {
    volumes: Vec<ReferenceDisk>,
}

/// What cannot be true.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The volume, by its place in the list that [`History::new`] was given.
    pub volume: usize,
    /// The read.
    pub mismatch: Mismatch,
}

impl History {
    /// Volumes of zeroes. `seed` is for messages.
    pub fn new(seed: u64, volumes: &[VolumeRules]) -> Self {
        let reference = |rules: &VolumeRules| {
            ReferenceDisk::new(seed, rules.capacity)
                .with_late_writes(rules.late_writes)
                .with_volatile_cache(rules.volatile_cache)
        };
        Self { volumes: volumes.iter().map(reference).collect() }
    }

    /// A client is about to submit a request to `volume`.
    ///
    /// # Panics
    /// As [`ReferenceDisk::begin`], or when there is no such volume.
    pub fn begin(&mut self, volume: usize, request: &Request) {
        self.volumes[volume].begin(request);
    }

    /// A client has its answer.
    ///
    /// # Errors
    /// [`Refusal`] when a read returned what it must not.
    ///
    /// # Panics
    /// As [`ReferenceDisk::complete`].
    pub fn complete(&mut self, volume: usize, completion: &Completion) -> Result<(), Refusal> {
        self.in_volume(volume, |reference| reference.complete(completion))
    }

    /// A request that no device took, such as one refused by a volume being closed.
    ///
    /// # Panics
    /// When it is not in flight.
    pub fn refused(&mut self, volume: usize, request: &Request) {
        self.volumes[volume].end(request.id, Err(IoError::InvalidArgument));
    }

    /// Compares bytes looked at outside of any request; see [`ReferenceDisk::check_content`].
    ///
    /// # Errors
    /// [`Refusal`] when they are not what a read may return now.
    pub fn check_content(
        &mut self,
        volume: usize,
        offset: u64,
        bytes: &[u8],
    ) -> Result<(), Refusal> {
        self.in_volume(volume, |reference| reference.check_content(offset, bytes))
    }

    /// From here on no write of the past takes effect on `volume` any more.
    pub fn fence(&mut self, volume: usize) {
        self.volumes[volume].fence();
    }

    /// The origin of one volume lost power, and nothing else; see [`Crash::OriginPowerCut`].
    pub fn origin_power_cut(&mut self, volume: usize) {
        self.volumes[volume].lose_volatile();
        self.volumes[volume].fence();
    }

    /// Something died. No write of the past takes effect any more.
    pub fn crash(&mut self, crash: Crash) {
        for reference in &mut self.volumes {
            match crash {
                Crash::ProcessKilled | Crash::CachePowerCut => reference.process_killed(),
                Crash::OriginPowerCut => reference.lose_volatile(),
            }
            reference.fence();
        }
    }

    /// Requests in flight on all volumes.
    pub fn in_flight(&self) -> usize {
        self.volumes.iter().map(ReferenceDisk::in_flight).sum()
    }

    fn in_volume(
        &mut self,
        volume: usize,
        check: impl FnOnce(&mut ReferenceDisk) -> Result<(), Mismatch>,
    ) -> Result<(), Refusal> {
        check(&mut self.volumes[volume]).map_err(|mismatch| Refusal { volume, mismatch })
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "volume {}: {}", self.volume, self.mismatch)
    }
}

impl std::error::Error for Refusal {}

#[cfg(test)]
mod tests;
