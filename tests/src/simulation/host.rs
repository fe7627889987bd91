//! What the host of a simulated engine remembers: whether its cache device may be believed, and
//! which format ids were used.
//!
//! Absent: what it knows of origins, which are the same ones in every run.

use std::cell::Cell;

use cache_engine::cache::metadata::FormatId;

/// What the host knows outside the cache device.
#[derive(Debug, Default)]
pub(super) struct Host {
    starts: Cell<u32>,
    /// The cache device is not to be believed.
    disowned: Cell<bool>,
}

impl Host {
    /// The origin is not what the cache device knows: it is not to be believed.
    pub(super) fn disown(&self) {
        self.disowned.set(true);
    }

    /// Whether it is not to be believed.
    pub(super) fn is_disowned(&self) -> bool {
        self.disowned.get()
    }

    /// The cache device is what the host takes it for.
    pub(super) fn believe(&self) {
        self.disowned.set(false);
    }

    /// Format ids that nobody has used: for a device that is formatted, and for a cold start.
    pub(super) fn next_ids(&self) -> (FormatId, FormatId) {
        self.starts.set(self.starts.get() + 1);
        let mut id = [0; 16];
        id[..4].copy_from_slice(&self.starts.get().to_le_bytes());
        let mut fresh = id;
        fresh[15] = 0x80;
        (FormatId(id), FormatId(fresh))
    }
}
