//! What the policies did, in numbers since the start, and how things stand.

use super::endurance::Budget;

/// Counters since the start, and the state of the budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct PolicyStatistics {
    /// Requests that passed by the cache as parts of long sequential runs.
    pub bypassed_requests: u64,
    /// Their bytes.
    pub bypassed_bytes: u64,
    /// Lines, or parts of them, that were admitted.
    pub admitted: u64,
    /// Bytes of them: what the policies let through to the cache device.
    pub admitted_bytes: u64,
    /// Of them, lines admitted because they are pinned.
    pub admitted_pinned: u64,
    /// Lines refused because the setting or their class admits none.
    pub refused_never: u64,
    /// Lines refused at their first miss, as set.
    pub refused_first_miss: u64,
    /// Lines refused at their first miss because the endurance budget is scarce.
    pub refused_scarce: u64,
    /// Lines refused because the endurance budget is spent.
    pub refused_spent: u64,
    /// Lines refused because their volume or class holds its maximum.
    pub refused_maximum: u64,
    /// Bytes read from the origin beyond the blocks that were asked for.
    pub extra_read_bytes: u64,
    /// Lines ordered to be purged by the watermarks.
    pub purged: u64,
    /// How much of the endurance budget is left.
    pub budget: Budget,
    /// Bytes that may be written at once; 0 where there is no limit.
    pub budget_bytes: u64,
    /// Memory that the policies take.
    pub memory_bytes: u64,
}

/// What a volume or class holds of the cache, in lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Occupancy {
    /// Name of the class; empty for a volume.
    pub class: String,
    /// Lines it holds.
    pub lines: u64,
    /// Lines that are spared for it.
    pub minimum: u64,
    /// Lines it may hold at the most; all when there is no limit.
    pub maximum: u64,
}
