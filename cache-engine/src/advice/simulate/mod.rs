//! What a cache would have done for a trace: hits, and bytes that went to the origin all the same.
//!
//! ```text
//!   Touch ──▶ residency (which lines are held: the policy) ──▶ valid blocks ──▶ Outcome
//! ```
//! A policy decides which lines are held; which blocks of them are valid is the same for all, as
//! in the product: what was read or written whole. One of the policies is the product's own code.
//!
//! Absent: time, failures, and requests beside each other: whatever is missed is there at once.

mod belady;
mod lru;
mod s3_fifo;
mod set_associative;

use std::fmt;
use std::str::FromStr;

use super::touches::{Touch, Touches};
use crate::cache::blocks::{BLOCK_SIZE, BlockSet};
use crate::cache::entry::WAYS;

/// How a cache chooses what it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Policy {
    /// This cache: S3-FIFO in sets of sixteen ways.
    Ours,
    /// S3-FIFO over the whole cache, as published.
    S3Fifo,
    /// The least recently used line goes.
    Lru,
    /// The line goes that is not wanted for longest: no cache can do better, or do it at all.
    Belady,
}

impl Policy {
    /// Every policy, in the order of the documentation.
    pub const ALL: [Self; 4] = [Self::Ours, Self::S3Fifo, Self::Lru, Self::Belady];
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ours => "ours",
            Self::S3Fifo => "s3-fifo",
            Self::Lru => "lru",
            Self::Belady => "belady",
        })
    }
}

impl FromStr for Policy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL.into_iter().find(|policy| policy.to_string() == text).ok_or_else(|| {
            let all = Self::ALL.map(|policy| policy.to_string()).join(", ");
            format!("policy `{text}`: must be one of {all}")
        })
    }
}

/// The cache that is simulated, but for its line size, which the touches have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// How it chooses what it holds.
    pub policy: Policy,
    /// Bytes for lines; whole sets of lines are used, at least one.
    pub size_bytes: u64,
    /// Whether writes go into the cache (write-through), or drop what it holds (write-around).
    pub writes_are_cached: bool,
    /// Whether a miss brings the whole line, or only the blocks that were asked for.
    pub whole_lines: bool,
}

/// What the cache did.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Outcome {
    /// Bytes for lines, as simulated.
    pub size_bytes: u64,
    /// Requests that read.
    pub reads: u64,
    /// Of them, those that needed nothing from the origin.
    pub read_hits: u64,
    /// Blocks of 4 KiB that were read.
    pub blocks: u64,
    /// Of them, those that were valid in the cache.
    pub block_hits: u64,
    /// Bytes that clients read.
    pub read_bytes: u64,
    /// Bytes read from the origin.
    pub origin_read_bytes: u64,
    /// Bytes written to the origin: all that clients wrote.
    pub origin_write_bytes: u64,
}

impl Outcome {
    /// Reads that needed nothing from the origin, of all; 0 to 1.
    pub fn request_hit_ratio(&self) -> f64 {
        self.read_hits as f64 / self.reads.max(1) as f64
    }

    /// Blocks that were valid in the cache, of all that were read; 0 to 1.
    pub fn block_hit_ratio(&self) -> f64 {
        self.block_hits as f64 / self.blocks.max(1) as f64
    }
}

/// Which lines a cache holds.
trait Residency {
    /// A line is wanted; `at` is the touch's number. Whether it was held; a policy may then hold
    /// it.
    fn want(&mut self, at: usize, touch: Touch, voids: Voids<'_>) -> bool;
}

/// Which of the lines that are held hold nothing valid.
#[derive(Clone, Copy)]
struct Voids<'valid>(Option<&'valid [BlockSet]>);

impl Voids<'_> {
    /// Whether there can be any: nothing becomes void but by writes, and asking costs.
    fn are_possible(self) -> bool {
        self.0.is_some()
    }

    fn contain(self, line: u32) -> bool {
        self.0.is_some_and(|valid| valid[line as usize].is_empty())
    }
}

/// Simulates one cache.
///
/// # Errors
/// When our index cannot tell so many lines apart in so few sets; says what is needed.
pub fn run(touches: &Touches, settings: Settings) -> Result<Outcome, String> {
    let set_bytes = touches.line_size.bytes() * WAYS as u64;
    let sets = (settings.size_bytes.saturating_add(set_bytes / 2) / set_bytes).max(1);
    let sets = u32::try_from(sets).unwrap_or(u32::MAX >> 4);
    let simulation = Simulation::new(touches, settings, u64::from(sets) * set_bytes);
    let slots = sets as usize * WAYS;
    Ok(match settings.policy {
        Policy::Ours => {
            simulation.drive(set_associative::SetAssociative::new(touches.lines, sets)?)
        }
        Policy::S3Fifo => simulation.drive(s3_fifo::S3Fifo::new(touches.lines, slots)),
        Policy::Lru => simulation.drive(lru::Lru::new(touches.lines, slots)),
        Policy::Belady => {
            let wanted = |touch: Touch| settings.writes_are_cached || !touch.is_write();
            simulation.drive(belady::Belady::new(touches, slots, wanted))
        }
    })
}

struct Simulation<'touches> {
    touches: &'touches Touches,
    settings: Settings,
    /// By line: what may be served while it is held.
    valid: Vec<BlockSet>,
    outcome: Outcome,
}

impl<'touches> Simulation<'touches> {
    fn new(touches: &'touches Touches, settings: Settings, size_bytes: u64) -> Self {
        let outcome = Outcome {
            size_bytes,
            read_bytes: touches.trace.read_bytes(),
            origin_write_bytes: touches.trace.write_bytes(),
            ..Outcome::default()
        };
        let valid = vec![BlockSet::EMPTY; touches.lines as usize];
        Self { touches, settings, valid, outcome }
    }

    fn drive(mut self, mut residency: impl Residency) -> Outcome {
        let has_writes = self.touches.trace.writes() > 0;
        let mut is_hit = true;
        for (at, touch) in self.touches.list.iter().enumerate() {
            let valid = &mut self.valid;
            if touch.is_write() && !self.settings.writes_are_cached {
                let line = &mut valid[touch.line as usize];
                *line = line.without(touch.blocks);
                continue;
            }
            let voids = Voids(has_writes.then_some(valid));
            if !residency.want(at, *touch, voids) {
                valid[touch.line as usize] = BlockSet::EMPTY;
            }
            if touch.is_write() {
                let line = &mut valid[touch.line as usize];
                *line = line.without(touch.blocks).union(touch.whole_blocks());
                continue;
            }
            is_hit &= self.read(*touch);
            if touch.is_last() {
                self.outcome.reads += 1;
                self.outcome.read_hits += u64::from(is_hit);
                is_hit = true;
            }
        }
        self.outcome
    }

    /// Whether all of it was there.
    fn read(&mut self, touch: Touch) -> bool {
        let valid = &mut self.valid[touch.line as usize];
        let missing = touch.blocks.without(*valid);
        self.outcome.blocks += u64::from(touch.blocks.count());
        self.outcome.block_hits += u64::from(touch.blocks.count() - missing.count());
        if missing.is_empty() {
            return true;
        }
        let wanted = if self.settings.whole_lines {
            BlockSet::all(self.touches.line_size)
        } else {
            touch.blocks
        };
        let fetched = wanted.without(*valid);
        self.outcome.origin_read_bytes += u64::from(fetched.count()) * BLOCK_SIZE;
        *valid = valid.union(fetched);
        false
    }
}

#[cfg(test)]
mod tests;
