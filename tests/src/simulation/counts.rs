//! What an engine has done, for saying whether a run met what it is about.

use cache_engine::cache::{PersistenceStatistics, Statistics};

/// What an engine has done, for saying whether a run met what it is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Reads answered by the cache.
    pub read_hits: u64,
    /// Reads answered in part by the cache.
    pub read_partial_hits: u64,
    /// Lines that made way for others.
    pub evictions: u64,
    /// Writes stored in the cache.
    pub write_fills: u64,
    /// Hits in place that had to start again.
    pub hit_retries: u64,
    /// Lines of before a crash that were served after it.
    pub lines_verified: u64,
    /// Lines that were not what had been stored.
    pub checksum_mismatches: u64,
    /// Engines that gave their cache up.
    pub degraded: u64,
    /// Hits on encrypted volumes.
    pub encrypted_hits: u64,
    /// Extents whose place in the activity log went to others.
    pub retired: u64,
    /// Changes that waited for their extent to be named on the device.
    pub waits: u64,
    /// Times that the journal was worked into the line table.
    pub folds: u64,
    /// Requests that were part of a sequential run and not stored.
    pub bypasses: u64,
    /// Lines that a start found recorded and did not use.
    pub lines_dropped: u64,
    /// Pages of records that a start found not to be as they were written.
    pub pages_damaged: u64,
    /// Records that found no room.
    pub records_lost: u64,
    /// Engines that gave their cache up because the device did not answer.
    pub impatient: u64,
    /// Extents that nothing was cached of because their origin did not flush them.
    pub let_go: u64,
    /// Flushes that failed for what an origin may have lost.
    pub losses_told: u64,
}

impl From<Statistics> for Counts {
    fn from(statistics: Statistics) -> Self {
        let Statistics { read_hits, read_partial_hits, evictions, write_fills, .. } = statistics;
        let Statistics { hit_retries, lines_verified, checksum_mismatches, .. } = statistics;
        let Statistics { sequential_bypasses, extents_let_go, losses_told, .. } = statistics;
        Self {
            read_hits,
            read_partial_hits,
            evictions,
            write_fills,
            hit_retries,
            lines_verified,
            checksum_mismatches,
            bypasses: sequential_bypasses,
            let_go: extents_let_go,
            losses_told,
            ..Self::default()
        }
    }
}

impl Counts {
    /// Takes in what the records' keeper counted.
    pub(super) fn of_records(&mut self, records: &PersistenceStatistics) {
        self.retired += records.retired;
        self.waits += records.waits;
        self.folds += records.folds;
        self.lines_dropped += records.lines_dropped;
        self.pages_damaged += records.pages_damaged;
        self.records_lost += records.records_lost;
    }

    /// Adds another engine's.
    pub(super) fn add(&mut self, other: Self) {
        self.read_hits += other.read_hits;
        self.read_partial_hits += other.read_partial_hits;
        self.evictions += other.evictions;
        self.write_fills += other.write_fills;
        self.hit_retries += other.hit_retries;
        self.lines_verified += other.lines_verified;
        self.checksum_mismatches += other.checksum_mismatches;
        self.degraded += other.degraded;
        self.encrypted_hits += other.encrypted_hits;
        self.retired += other.retired;
        self.waits += other.waits;
        self.folds += other.folds;
        self.bypasses += other.bypasses;
        self.lines_dropped += other.lines_dropped;
        self.pages_damaged += other.pages_damaged;
        self.records_lost += other.records_lost;
        self.impatient += other.impatient;
        self.let_go += other.let_go;
        self.losses_told += other.losses_told;
    }
}
