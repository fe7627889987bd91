//! Writing everything that is pending: one pass over the table at a time, and a flush behind it
//! where somebody counts on it.
//!
//! ```text
//!   request ─▶ Writing (from place to place) ─▶ Written (journal up to here) ─▶ Flushing ─▶ over
//! ```
//! What was pending when a pass was requested is durable when it is over; what is recorded
//! meanwhile may be. A request while a pass is under way is for the next one. Absent: the records.

#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(super) enum Stage {
    #[default]
    Idle,
    /// Places before this one have been written.
    Writing(u32),
    /// Everything is sent; the journal must be written up to this block.
    Written(u64),
    /// The flush of this ticket is under way.
    Flushing(u64),
}

/// Passes have numbers, in order.
#[derive(Debug, Default)]
pub(super) struct Passes {
    pub(super) stage: Stage,
    requested: u64,
    /// The newest pass that somebody wants flushed.
    flushed_for: u64,
    begun: u64,
    over: u64,
    durable: u64,
}

impl Passes {
    /// Asks for a pass that covers everything recorded so far, and says which.
    pub(super) fn request(&mut self, flush: bool) -> u64 {
        self.requested = self.begun + 1;
        if flush {
            self.flushed_for = self.requested;
        }
        self.requested
    }

    pub(super) fn is_idle(&self) -> bool {
        self.stage == Stage::Idle && self.requested == self.over
    }

    /// Whether that pass is over and was flushed.
    pub(super) fn is_durable(&self, pass: u64) -> bool {
        self.durable >= pass
    }

    /// Begins the pass that is asked for, if there is one and none is under way.
    pub(super) fn begin(&mut self) -> bool {
        let begins = self.stage == Stage::Idle && self.requested > self.begun;
        if begins {
            self.begun = self.requested;
            self.stage = Stage::Writing(0);
        }
        begins
    }

    /// Whether the pass under way is to be flushed.
    pub(super) fn wants_flush(&self) -> bool {
        self.flushed_for >= self.begun
    }

    pub(super) fn finish(&mut self, flushed: bool) {
        self.stage = Stage::Idle;
        self.over = self.begun;
        if flushed {
            self.durable = self.begun;
        }
    }
}
