//! What strangers may take of a target: queues, memory, and connections that are no queue.
//!
//! ```text
//!   accepted ─▶ unconnected ─Connect─▶ queue ─fault─▶ unconnected ─▶ gone
//!               the oldest ends when there are too many
//! ```
//! The bound of a target's memory is [`Settings::memory_bound`].

use std::collections::VecDeque;

use super::{IN_CAPSULE_DATA_MAX, Settings};

/// Bytes received at a time by a connection, beside payload that goes straight to its place.
pub(super) const STAGING_LENGTH: usize = 64 << 10;

/// Bytes queued for a host that does not read, beyond payload, before it is no longer read from.
pub(super) const RESPONSES_BYTES_MAX: usize = 256 << 10;

impl Settings {
    /// The most bytes of buffers that all connections together take, whatever hosts do: payload,
    /// what comes in capsules (which never waits), what is received and what is queued. Not in it:
    /// requests that devices still have of connections that ended, which the devices' queues bound.
    pub fn memory_bound(&self) -> usize {
        let capsules = usize::from(self.queue_entries_max) * IN_CAPSULE_DATA_MAX as usize;
        let queue = STAGING_LENGTH + RESPONSES_BYTES_MAX + capsules;
        // A connection that is no queue has one command, Connect, and what it is told last.
        let other = STAGING_LENGTH + 2 * IN_CAPSULE_DATA_MAX as usize;
        self.memory_max
            .saturating_add(self.queues_max.saturating_mul(queue))
            .saturating_add(self.unconnected_max.saturating_mul(other))
    }
}

/// What all connections take at the moment.
#[derive(Debug, Default)]
pub(super) struct Usage {
    /// Connections that are queues.
    pub(super) queues: usize,
    /// Bytes of payload, held by commands or queued for hosts, as of each connection's last poll.
    pub(super) memory: usize,
    /// Connections with commands that wait for memory.
    pub(super) waiting: usize,
    /// Connections that are no queue, by their numbers, the oldest first.
    unconnected: VecDeque<u64>,
    /// Connections that there ever were.
    numbers: u64,
}

impl Usage {
    /// A connection becomes one that is no queue: gives it a number, and ends the oldest such
    /// connection when there are more than `most`.
    pub(super) fn enter_unconnected(&mut self, most: usize) -> u64 {
        self.numbers += 1;
        self.unconnected.push_back(self.numbers);
        while self.unconnected.len() > most {
            self.unconnected.pop_front();
        }
        self.numbers
    }

    /// Whether the connection may stay as it is.
    pub(super) fn may_stay_unconnected(&self, number: u64) -> bool {
        self.unconnected.binary_search(&number).is_ok()
    }

    pub(super) fn leave_unconnected(&mut self, number: u64) {
        if let Ok(place) = self.unconnected.binary_search(&number) {
            self.unconnected.remove(place);
        }
    }

    pub(super) fn unconnected(&self) -> usize {
        self.unconnected.len()
    }
}
