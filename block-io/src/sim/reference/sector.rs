//! What the reference knows of one sector: the values that it may hold, and those that it may
//! have held while a read was on its way.

use super::Sequence;

/// A moment that has not come.
pub(super) const NEVER: Sequence = Sequence::MAX;

/// The value of a sector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value {
    /// Bytes with this hash; 0 is zeroes.
    Stamp(u64),
    /// Whatever a discard leaves.
    Any,
}

impl Value {
    pub(super) fn admits(self, stamp: u64) -> bool {
        self == Self::Any || self == Self::Stamp(stamp)
    }
}

/// A value that a sector may hold because of one write.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) value: Value,
    /// The number of the write that brought it, 0 for the initial content.
    pub(super) write: u64,
    /// Whether that write succeeded, so that a flush begun later makes it durable.
    pub(super) acked: bool,
    /// When that write ended.
    pub(super) ended: Sequence,
    /// Its outcome is unknown and it may take effect any time, again or for the first time.
    pub(super) late: bool,
    /// When it stopped being a value that the sector may hold.
    pub(super) removed: Sequence,
    /// The end of the acked write that certainly came after it, or of the read that saw so: once
    /// that write is durable, not even a power cut brings this value back.
    pub(super) superseded: Sequence,
}

impl Entry {
    pub(super) fn new(value: Value, write: u64, ended: Sequence) -> Self {
        let (acked, late) = (true, false);
        Self { value, write, acked, ended, late, removed: NEVER, superseded: NEVER }
    }

    /// Whether a sector may hold it for a read that began at `begun`.
    pub(super) fn is_admissible(&self, begun: Sequence) -> bool {
        self.removed > begun
    }
}

/// What may be forgotten.
#[derive(Clone, Copy)]
pub(super) struct Horizon {
    /// No read in flight began before.
    pub(super) oldest_read: Sequence,
    /// Acked writes that ended before are durable; absent when every acked write is.
    pub(super) durable_before: Option<Sequence>,
}

/// One sector.
#[derive(Debug)]
pub(super) struct Sector {
    pub(super) entries: Vec<Entry>,
    /// The end of the last write here, whatever its outcome.
    pub(super) last_write_end: Sequence,
}

impl Sector {
    /// A sector that holds `entry`.
    pub(super) fn new(entry: Entry) -> Self {
        Self { entries: vec![entry], last_write_end: 0 }
    }

    /// Whether a lost write may still change it.
    pub(super) fn awaits_late_write(&self) -> bool {
        self.entries.iter().any(|entry| entry.late && entry.removed == NEVER)
    }

    /// Whether a read that began at `since` may return `stamp`, whatever is in flight.
    pub(super) fn admits(&self, stamp: u64, since: Sequence) -> bool {
        self.entries.iter().any(|entry| entry.is_admissible(since) && entry.value.admits(stamp))
    }

    /// A read that ended at `now` returned what a write brings that began at `begun` and is in
    /// flight: what ended before is there no more. (A power cut may bring it back.)
    pub(super) fn seen_before_its_end(&mut self, begun: Sequence, now: Sequence) {
        for old in &mut self.entries {
            if old.ended < begun && !old.late {
                old.removed = old.removed.min(now);
            }
        }
    }

    /// A write that began at `begun` was acked at `entry.ended`: what ended before it began is
    /// overwritten.
    pub(super) fn acked(&mut self, entry: Entry, begun: Sequence, durable: bool, keep: Horizon) {
        for old in &mut self.entries {
            if old.ended < begun {
                let superseded = if durable { 0 } else { entry.ended };
                old.superseded = old.superseded.min(superseded);
                if !old.late {
                    old.removed = old.removed.min(entry.ended);
                }
            }
        }
        self.last_write_end = entry.ended;
        self.forget(keep);
        self.entries.push(entry);
    }

    /// A write failed and may have been done.
    pub(super) fn unknown(&mut self, entry: Entry) {
        self.last_write_end = entry.ended;
        self.entries.push(entry);
    }

    /// A read with no write beside it returned `stamp` at `now`: the sector holds that and, until
    /// something else is written, nothing else.
    pub(super) fn narrow(&mut self, stamp: u64, now: Sequence, keep: Horizon) {
        let current = |entry: &Entry| entry.removed == NEVER;
        let seen = Value::Stamp(stamp);
        let mut rest = self.entries.iter().filter(|entry| current(entry));
        if rest.next().is_some_and(|entry| entry.value == seen) && rest.next().is_none() {
            return;
        }
        let exact = |entry: &&Entry| current(entry) && entry.value == seen;
        let any = |entry: &&Entry| current(entry) && entry.value == Value::Any;
        let source = self.entries.iter().find(exact).or_else(|| self.entries.iter().find(any));
        let Some(kept) = source.map(|entry| Entry { value: seen, late: false, ..*entry }) else {
            return;
        };
        for entry in &mut self.entries {
            if entry.removed == NEVER && !entry.late {
                entry.removed = now;
                if kept.acked {
                    entry.superseded = entry.superseded.min(now);
                }
            }
        }
        self.forget(keep);
        self.entries.push(kept);
    }

    /// Whatever may have been here since the last durable write may be here after a power cut. What
    /// only a read that is still in flight may have met stays what it is.
    pub(super) fn power_cut(&mut self, keep: Horizon) {
        self.forget(keep);
        let comes_back = Horizon { oldest_read: NEVER, ..keep };
        for entry in self.entries.iter_mut().filter(|entry| comes_back.keeps(entry)) {
            *entry = Entry::new(entry.value, entry.write, entry.ended);
        }
    }

    /// At `now` what was late has been done or never will be.
    pub(super) fn fence(&mut self, now: Sequence) {
        for entry in self.entries.iter_mut().filter(|entry| entry.late) {
            *entry = Entry { acked: false, ..Entry::new(entry.value, entry.write, now) };
            self.last_write_end = now;
        }
    }

    fn forget(&mut self, keep: Horizon) {
        self.entries.retain(|entry| keep.keeps(entry));
    }
}

impl Horizon {
    fn keeps(self, entry: &Entry) -> bool {
        entry.removed == NEVER
            || entry.removed > self.oldest_read
            || self.durable_before.is_some_and(|before| entry.superseded >= before)
    }
}
