//! How well the cache device is: single errors drop what they touch, many end the cache.
//!
//! Errors are counted in a window of time. Too many, and the cache *degrades*: its content is
//! dropped, everything passes through, and what is on the device is made unusable for a warm start,
//! durably, before any write relies on it. So it does when a write waits for the device, and that
//! does not answer. A cache that has degraded stays so until it is given another device.

use std::time::Duration;

use block_io::{Extent, IoError, Timestamp};

use super::Cache;
use super::config::VolumeId;
use super::line::LineNumber;
use super::outbox::Event;

/// Errors are forgotten after this long without another.
const WINDOW: Duration = Duration::from_secs(60);

/// Writes wait this long for an answer of the device that has to record that they are coming. One
/// that is alive takes microseconds; one that is not must not keep its clients waiting for ever.
const PATIENCE: Duration = Duration::from_secs(10);

/// The device's record.
#[derive(Debug, Default)]
pub(crate) struct Health {
    errors: u32,
    last: Timestamp,
    degraded: bool,
    /// When the patience of whoever waits for the device ends.
    patience_until: Option<Timestamp>,
}

impl Health {
    /// Notes an error. True when it is one too many.
    fn note(&mut self, now: Timestamp, errors_max: u32) -> bool {
        if now.0.saturating_sub(self.last.0) > WINDOW.as_nanos() as u64 {
            self.errors = 0;
        }
        self.errors = self.errors.saturating_add(1);
        self.last = now;
        !self.degraded && self.errors > errors_max
    }

    pub(crate) fn is_degraded(&self) -> bool {
        self.degraded
    }

    /// Somebody waits for the device from now on.
    pub(crate) fn begin_waiting(&mut self, now: Timestamp) {
        self.patience_until.get_or_insert(now + PATIENCE);
    }

    /// Nobody does.
    pub(crate) fn end_waiting(&mut self) {
        self.patience_until = None;
    }

    /// The device was found to answer: whoever waits goes on doing so, until then.
    fn wait_until(&mut self, deadline: Timestamp) {
        self.patience_until = Some(deadline);
    }

    /// When to see whether whoever waits has waited enough.
    pub(crate) fn deadline(&self) -> Option<Timestamp> {
        self.patience_until.filter(|_| !self.degraded)
    }
}

impl Cache {
    /// A read of the cache device failed: what it was to bring is dropped.
    pub(super) fn cache_read_failed(&mut self, id: VolumeId, part: Extent, error: IoError) {
        self.volumes[id].statistics.cache_read_errors += 1;
        let line = LineNumber(part.offset >> self.line_size.shift());
        if let Some(slot) = self.index.find(line) {
            self.drop_blocks(slot, self.blocks_touched(part));
        }
        self.device_failed("a read", error);
    }

    /// Something on the cache device failed.
    pub(super) fn device_failed(&mut self, what: &str, error: IoError) {
        if self.health.note(self.now, self.errors_max) {
            let errors = self.health.errors;
            self.degrade(format!("{errors} errors, the last one: {what} failed: {error}"));
        }
    }

    /// Time has passed: gives the cache up if somebody waits for it and it has not answered for
    /// long enough. Who waits for much that is answered, or for a place in the activity log that
    /// changes of other extents hold, goes on waiting: that is not the device's fault.
    pub(super) fn lose_patience(&mut self) {
        if self.health.deadline().is_none_or(|deadline| deadline > self.now) {
            return;
        }
        let unanswered = self.keeper.as_ref().and_then(|keeper| keeper.unanswered_since());
        let until = unanswered.unwrap_or(self.now) + PATIENCE;
        if until > self.now {
            return self.health.wait_until(until);
        }
        let seconds = PATIENCE.as_secs();
        self.degrade(format!("it does not answer: a write has waited {seconds} s for it"));
    }

    /// Gives the cache up: see the module.
    pub(super) fn degrade(&mut self, why: String) {
        if self.health.degraded {
            return;
        }
        self.health.degraded = true;
        self.publish_gates();
        self.index.clear();
        self.fills.exclude_lines(0..u64::MAX);
        if let Some(keeper) = &mut self.keeper {
            keeper.degrade();
            self.outbox.cache.append(keeper.requests(self.now));
        }
        self.outbox.events.push(Event::Degraded(why));
    }
}
