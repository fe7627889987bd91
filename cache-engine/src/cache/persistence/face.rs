//! What goes in and out of the machine besides requests: how it is set up, what a start finds, and
//! what is counted.
//!
//! Absent: behaviour, but for the defaults of the configuration.

use std::time::Duration;

use crate::cache::blocks::BlockSet;
use crate::cache::config::RECORDS_MIN;
use crate::cache::entry::Entry;
use crate::cache::index::Slot;
use crate::cache::metadata::FormatId;
use crate::cache::metadata::activity_page::PLACES;
use crate::cache::metadata::journal_block::Checksums;

/// How a cache starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Start {
    /// With the lines that the device has recorded.
    Warm,
    /// With none: what is recorded is void from now on.
    Cold,
}

/// What is chosen by the caller.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PersistenceConfig {
    /// Changes in flight at the most, those that wait included.
    pub(crate) changes_max: usize,
    /// The largest read or write that the cache device takes; at least 64 KiB.
    pub(crate) transfer_max: u32,
    /// How long a record waits for others to go with it.
    pub(crate) flush_interval: Duration,
    /// How long giving up may take before it is up to somebody outside.
    pub(crate) give_up_after: Duration,
    /// Extents that a page of the activity log names at the most, up to what it has places for:
    /// bounds what a crash drops.
    pub(crate) extents_per_page: usize,
    /// Records that can wait at the least, in a cache that has so many slots.
    pub(crate) pending_min: u64,
    /// Slots that a part of a fold has room for at the most; at least those of a page of the line
    /// table that are used.
    pub(crate) part_places_max: usize,
    /// The format id of a cold start: random, and never used before. A warm start takes it when
    /// it finds that what is recorded can't be believed.
    pub(crate) fresh_format_id: FormatId,
}

impl PersistenceConfig {
    pub(crate) fn new(changes_max: usize, transfer_max: u32, fresh_format_id: FormatId) -> Self {
        Self {
            changes_max,
            transfer_max,
            flush_interval: Duration::from_millis(10),
            give_up_after: Duration::from_secs(5),
            extents_per_page: PLACES,
            pending_min: RECORDS_MIN,
            part_places_max: usize::MAX,
            fresh_format_id,
        }
    }
}

/// A line that a start has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LoadedLine {
    pub(crate) slot: Slot,
    /// As it was recorded, and marked unverified where its content must be compared with its
    /// checksums first. Its place in the set's queues may be another's too.
    pub(crate) entry: Entry,
    pub(crate) valid: BlockSet,
}

/// Whether a change may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leave {
    /// The device names its extent: after a crash nothing of it is believed, whatever is recorded
    /// of its lines until the change is over.
    Named,
    /// Nothing of its extent is recorded, or ever will be believed. What is not valid any more must
    /// be recorded before the change begins.
    Unnamed,
    /// Not yet: [`activated`](super::Persistence::activated) will name the piece. Its extent is
    /// named then, or the cache was given up.
    Later,
}

/// What the line table has of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LineChecksums {
    pub(crate) entry: Entry,
    pub(crate) valid: BlockSet,
    /// By block; those of blocks that are not valid are unspecified.
    pub(crate) checksums: Checksums,
}

/// What was done to keep a cache's records since the start, and levels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct PersistenceStatistics {
    /// Bytes of records written to the cache device.
    pub bytes_written: u64,
    /// Bytes of records read from it.
    pub bytes_read: u64,
    /// Failures of those, the ones that were tried again with success included.
    pub device_errors: u64,
    /// Blocks of the journal written.
    pub journal_blocks: u64,
    /// Times that a part of the journal was worked into the line table.
    pub folds: u64,
    /// Extents made active.
    pub activations: u64,
    /// Changes that had to wait for it.
    pub waits: u64,
    /// Extents whose place in the activity log was given up.
    pub retired: u64,
    /// Records that found no room.
    pub records_lost: u64,
    /// Lines that a start found and dropped.
    pub lines_dropped: u64,
    /// Pages that a start found not to be as they were written.
    pub pages_damaged: u64,
    /// Extents that are active.
    pub active_extents: u64,
    /// Records that are to be written.
    pub pending: u64,
    /// How many there can be.
    pub pending_max: u64,
    /// Changes that wait for their extent.
    pub waiting: u64,
}

impl PersistenceStatistics {
    /// Every counter with its name, for tables and JSON; levels are left out.
    pub fn named(&self) -> [(&'static str, u64); 11] {
        [
            ("metadata_written_bytes", self.bytes_written),
            ("metadata_read_bytes", self.bytes_read),
            ("metadata_errors", self.device_errors),
            ("journal_blocks", self.journal_blocks),
            ("journal_folds", self.folds),
            ("activations", self.activations),
            ("activation_waits", self.waits),
            ("extents_retired", self.retired),
            ("records_lost", self.records_lost),
            ("lines_dropped_at_start", self.lines_dropped),
            ("pages_damaged_at_start", self.pages_damaged),
        ]
    }
}
