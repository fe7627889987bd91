//! What a simulated disk does wrong, and what it counts and logs.

use std::fmt;
use std::time::Duration;

use crate::{Extent, IoError, Operation, Timestamp};

/// What a discard does to the content.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum DiscardEffect {
    /// The extent reads as zeroes.
    #[default]
    Zeroes,
    /// Nothing changes.
    Nothing,
    /// Each sector becomes zeroes, garbage, or stays; then it is stable.
    Any,
}

/// How a disk behaves. The default does everything right, in order, in 10 to 100 µs. Chances are
/// per mille and independent for each request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskFaults {
    /// Shortest time from submission to completion.
    pub latency_min: Duration,
    /// Longest time from submission to completion.
    pub latency_max: Duration,
    /// A request takes `slow_extra` more time.
    pub slow: u32,
    /// See [`slow`](Self::slow).
    pub slow_extra: Duration,
    /// A request makes no progress until [`release_hung`](super::SimDisk::release_hung).
    pub hang: u32,
    /// A read fails with `error`; its buffer is left full of garbage.
    pub read_error: u32,
    /// A write, discard or write zeroes fails with `error` and has changed nothing.
    pub write_error_nothing_applied: u32,
    /// A write, discard or write zeroes fails with `error`, although it was done.
    pub write_error_applied: u32,
    /// A write, discard or write zeroes fails with `error`, done for some of its sectors.
    pub write_error_torn: u32,
    /// A write fails with `error` and leaves garbage in its sectors: what a cache device may do,
    /// and no reference disk admits.
    pub write_error_garbage: u32,
    /// A flush fails with `error`; what it should have made durable is as before.
    pub flush_error: u32,
    /// The kind of the errors above.
    pub error: IoError,
    /// Any request is lost: it ends with `ConnectionLost` or `TimedOut`. A lost write was done,
    /// was not done, or is done later (see `late_max`).
    pub lost: u32,
    /// How long after its completion a lost write may still be applied. Zero: never.
    pub late_max: Duration,
    /// Requests in flight take effect and complete in random order, each at a random moment
    /// between submission and completion. Without it, in the order of submission.
    pub reorder: bool,
    /// With `reorder`: a request of several sectors takes effect in two parts at two moments.
    pub split: u32,
    /// Reads and writes that touch one of these fail with `Media` and change nothing.
    pub bad_ranges: Vec<Extent>,
    /// What a discard does.
    pub discard: DiscardEffect,
}

impl Default for DiskFaults {
    fn default() -> Self {
        Self {
            latency_min: Duration::from_micros(10),
            latency_max: Duration::from_micros(100),
            slow: 0,
            slow_extra: Duration::from_millis(100),
            hang: 0,
            read_error: 0,
            write_error_nothing_applied: 0,
            write_error_applied: 0,
            write_error_torn: 0,
            write_error_garbage: 0,
            flush_error: 0,
            error: IoError::Media,
            lost: 0,
            late_max: Duration::ZERO,
            reorder: false,
            split: 0,
            bad_ranges: Vec::new(),
            discard: DiscardEffect::Zeroes,
        }
    }
}

impl DiskFaults {
    /// No errors, but everything in flight in random order and in parts, and discards with any
    /// effect: what a correct device may do.
    pub fn unordered() -> Self {
        Self { reorder: true, split: 300, discard: DiscardEffect::Any, ..Self::default() }
    }

    /// [`unordered`](Self::unordered), and every kind of error and slowness `per_mille` times in a
    /// thousand; no hanging and nothing lost.
    pub fn hostile(per_mille: u32) -> Self {
        Self {
            slow: per_mille,
            read_error: per_mille,
            write_error_nothing_applied: per_mille,
            write_error_applied: per_mille,
            write_error_torn: per_mille,
            flush_error: per_mille,
            ..Self::unordered()
        }
    }
}

/// Requests submitted to a disk, by operation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskCounters {
    /// Reads.
    pub reads: u64,
    /// Writes.
    pub writes: u64,
    /// Flushes.
    pub flushes: u64,
    /// Discards.
    pub discards: u64,
    /// Writes of zeroes.
    pub write_zeroes: u64,
    /// Bytes asked for by reads.
    pub bytes_read: u64,
    /// Bytes carried by writes.
    pub bytes_written: u64,
    /// Requests of any kind that ended with an error.
    pub errors: u64,
}

impl DiskCounters {
    pub(super) fn count(&mut self, operation: Operation, extent: Extent) {
        let counter = match operation {
            Operation::Read => {
                self.bytes_read += extent.length;
                &mut self.reads
            }
            Operation::Write => {
                self.bytes_written += extent.length;
                &mut self.writes
            }
            Operation::Flush => &mut self.flushes,
            Operation::Discard => &mut self.discards,
            Operation::WriteZeroes => &mut self.write_zeroes,
        };
        *counter += 1;
    }

    /// Requests of all kinds.
    pub fn requests(&self) -> u64 {
        self.reads + self.writes + self.flushes + self.discards + self.write_zeroes
    }
}

/// What happened to a request, for the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskEvent {
    /// It was submitted.
    Submitted,
    /// It, or this part of it, took effect: the moment that orders it.
    Applied,
    /// Its completion became visible to a poll.
    Completed(Result<(), IoError>),
    /// This part of it took effect after it had been reported lost.
    AppliedLate,
}

/// One line of a disk's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskLogEntry {
    /// When.
    pub time: Timestamp,
    /// The disk's own number of the request, by submission.
    pub number: u64,
    /// What was asked for.
    pub operation: Operation,
    /// Where, or the part of it that took effect.
    pub extent: Extent,
    /// What happened.
    pub event: DiskEvent,
}

impl fmt::Display for DiskLogEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { time: Timestamp(time), number, operation, extent, event } = self;
        write!(f, "{time:>12} ns  #{number:<5} {operation:?} {extent} {event:?}")
    }
}
