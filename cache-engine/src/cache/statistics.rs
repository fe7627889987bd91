//! What the cache counted, for one volume.
//!
//! Plain numbers that only grow, added up on the core that owns the volume. Absent: rates and
//! times, which whoever prints the numbers derives.

/// Counters of one volume since it was started. Requests are the client's, not their pieces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    /// Read requests completed.
    pub reads: u64,
    /// Bytes they asked for.
    pub read_bytes: u64,
    /// Write requests completed.
    pub writes: u64,
    /// Bytes they brought.
    pub write_bytes: u64,
    /// Flush requests completed.
    pub flushes: u64,
    /// Discard requests completed.
    pub discards: u64,
    /// Write-zeroes requests completed.
    pub write_zeroes: u64,
    /// Reads served from the cache alone.
    pub read_hits: u64,
    /// Reads of which a part came from the cache.
    pub read_partial_hits: u64,
    /// Reads of which nothing came from the cache, although it was asked.
    pub read_misses: u64,
    /// Reads that did not ask the cache (pass-through, or a range whose content is in doubt).
    pub read_pass_through: u64,
    /// Writes that were not stored in the cache by the mode's rule (write-around, pass-through).
    pub write_pass_through: u64,
    /// Pieces of lines stored after a read missed.
    pub read_fills: u64,
    /// Pieces of lines stored by writes.
    pub write_fills: u64,
    /// Pieces of lines not stored, because every way of the set was in use, the sectors were being
    /// stored already, or `fills_max` stores were in flight.
    pub fills_dropped: u64,
    /// Pieces of lines not stored, because the policy said so.
    pub fills_refused: u64,
    /// Reads served in place that had to start again, because the line changed meanwhile.
    pub hit_retries: u64,
    /// Lines of an earlier run that were checked when they were first read, and were right.
    pub lines_verified: u64,
    /// Lines or blocks that were not what had been stored, and were dropped unread.
    pub checksum_mismatches: u64,
    /// Requests that were part of a long sequential run and not stored.
    pub sequential_bypasses: u64,
    /// Bytes stored in the cache.
    pub fill_bytes: u64,
    /// Lines with valid data given up for others.
    pub evictions: u64,
    /// Bytes read from the cache.
    pub cache_read_bytes: u64,
    /// Bytes read from the origin.
    pub origin_read_bytes: u64,
    /// Bytes written to the origin.
    pub origin_write_bytes: u64,
    /// Reads that the cache device failed; each was answered from the origin.
    pub cache_read_errors: u64,
    /// Stores that the cache device failed; each only left its sectors uncached.
    pub cache_write_errors: u64,
    /// Requests that the origin failed; each was answered with that error.
    pub origin_errors: u64,
    /// Extents of 4 MiB that the origin had not flushed and that made way for others: nothing of
    /// them was cached until it had.
    pub extents_let_go: u64,
    /// Flushes that failed because the origin may have lost what it had acknowledged.
    pub losses_told: u64,
}

impl Statistics {
    /// Every counter with its name, in the order of the fields, for tables and JSON.
    pub fn named(&self) -> [(&'static str, u64); 30] {
        [
            ("reads", self.reads),
            ("read_bytes", self.read_bytes),
            ("writes", self.writes),
            ("write_bytes", self.write_bytes),
            ("flushes", self.flushes),
            ("discards", self.discards),
            ("write_zeroes", self.write_zeroes),
            ("read_hits", self.read_hits),
            ("read_partial_hits", self.read_partial_hits),
            ("read_misses", self.read_misses),
            ("read_pass_through", self.read_pass_through),
            ("write_pass_through", self.write_pass_through),
            ("read_fills", self.read_fills),
            ("write_fills", self.write_fills),
            ("fills_dropped", self.fills_dropped),
            ("fills_refused", self.fills_refused),
            ("hit_retries", self.hit_retries),
            ("lines_verified", self.lines_verified),
            ("checksum_mismatches", self.checksum_mismatches),
            ("sequential_bypasses", self.sequential_bypasses),
            ("fill_bytes", self.fill_bytes),
            ("evictions", self.evictions),
            ("cache_read_bytes", self.cache_read_bytes),
            ("origin_read_bytes", self.origin_read_bytes),
            ("origin_write_bytes", self.origin_write_bytes),
            ("cache_read_errors", self.cache_read_errors),
            ("cache_write_errors", self.cache_write_errors),
            ("origin_errors", self.origin_errors),
            ("extents_let_go", self.extents_let_go),
            ("losses_told", self.losses_told),
        ]
    }

    /// Share of reads served from the cache alone, of those that asked it; none before the first.
    pub fn hit_ratio(&self) -> Option<f64> {
        let asked = self.read_hits + self.read_partial_hits + self.read_misses;
        (asked > 0).then(|| self.read_hits as f64 / asked as f64)
    }
}
