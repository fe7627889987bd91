//! What an origin with a volatile write cache has acknowledged and may still lose.
//!
//! ```text
//!   write acknowledged, or perhaps done ─▶ its extent noted, with the epoch
//!   flush begins ─▶ epoch e ends        flush e succeeds ─▶ extents of epochs up to e forgotten
//!   connection fenced ─▶ lines of the noted extents dropped; they stay noted until a flush
//! ```
//! A cache that outlives a power cut of its origin would otherwise serve what the origin has lost,
//! until the line is evicted: content that goes back in time without a write. So the extents of
//! writes that no flush has covered stay active in the cache's records, which a crash drops, and
//! are dropped when the origin comes back from wherever it was. Whether it has lost anything then
//! nobody knows: what is read anew may still be volatile, and lost the next time.
//!
//! Absent: origins without a volatile cache, of which nothing is noted; what was written before the
//! volume was added, which whoever adds it has flushed.

use std::collections::BTreeMap;

use block_io::Extent;

use super::persistence::EXTENT_SIZE;

/// More extents than this are not left to clients to flush.
pub(crate) const EXTENTS_MAX: usize = 128;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Unflushed {
    /// The epoch of the last write to each extent, and whether a change of it is held on to.
    extents: BTreeMap<u64, (u64, bool)>,
    epoch: u64,
    /// The extent of the last write, when it was in this epoch.
    last: Option<u64>,
    /// A flush of our own is in flight, of this epoch.
    own: Option<u64>,
}

impl Unflushed {
    /// Notes a write that was acknowledged, or failed and may have been done. True when its extent
    /// was not noted before.
    pub(crate) fn note(&mut self, extent: Extent) -> bool {
        let number = extent.offset / EXTENT_SIZE;
        debug_assert!(extent.end() <= (number + 1) * EXTENT_SIZE, "within one extent");
        if self.last == Some(number) {
            return false;
        }
        self.last = Some(number);
        let before = self.extents.insert(number, (self.epoch, true));
        match before {
            Some((_, false)) => {
                self.extents.insert(number, (self.epoch, false));
                false
            }
            Some(_) => false,
            None => true,
        }
    }

    /// A flush is sent to the origin: covers what was noted so far. Returns its epoch.
    pub(crate) fn begin_flush(&mut self) -> u64 {
        self.epoch += 1;
        self.last = None;
        self.epoch - 1
    }

    /// Whether there is so much that it is time for a flush of our own.
    pub(crate) fn wants_own_flush(&self, least: usize) -> bool {
        self.own.is_none() && self.extents.len() >= least.max(1)
    }

    /// The same; it is begun then.
    pub(crate) fn begin_own_flush(&mut self, least: usize) -> bool {
        if !self.wants_own_flush(least) {
            return false;
        }
        self.own = Some(self.begin_flush());
        true
    }

    /// Our own flush has ended; its epoch.
    pub(crate) fn end_own_flush(&mut self) -> Option<u64> {
        self.own.take()
    }

    pub(crate) fn is_flushing(&self) -> bool {
        self.own.is_some()
    }

    /// The flush of that epoch was successful: the extents that it covered are forgotten, and those
    /// that were held on to named to `forgotten`.
    pub(crate) fn flushed(&mut self, epoch: u64, mut forgotten: impl FnMut(Extent)) {
        self.extents.retain(|number, (noted, held)| {
            if *noted <= epoch && *held {
                forgotten(extent_of(*number));
            }
            *noted > epoch
        });
    }

    /// All of them.
    pub(crate) fn extents(&self) -> Vec<Extent> {
        self.extents.keys().map(|number| extent_of(*number)).collect()
    }

    /// Takes all of them out, with whether a change of each was held on to.
    pub(crate) fn take(&mut self) -> Vec<(Extent, bool)> {
        self.last = None;
        let extents = std::mem::take(&mut self.extents);
        extents.into_iter().map(|(number, (_, held))| (extent_of(number), held)).collect()
    }

    /// Whoever the changes were held on to for is gone.
    pub(crate) fn let_go(&mut self) {
        self.extents.values_mut().for_each(|(_, held)| *held = false);
    }
}

fn extent_of(number: u64) -> Extent {
    Extent::new(number * EXTENT_SIZE, EXTENT_SIZE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(number: u64) -> Extent {
        Extent::new(number * EXTENT_SIZE + 4096, 512)
    }

    #[test]
    fn a_flush_covers_what_was_acknowledged_before_it_began() {
        let mut unflushed = Unflushed::default();
        assert!(unflushed.note(write(1)) && !unflushed.note(write(1)));
        assert!(unflushed.note(write(2)));
        let first = unflushed.begin_flush();
        assert!(!unflushed.note(write(2)), "known, and written again behind the flush");
        assert!(unflushed.note(write(3)));
        let mut gone = Vec::new();
        unflushed.flushed(first, |extent| gone.push(extent.offset / EXTENT_SIZE));
        assert_eq!(gone, [1]);
        let second = unflushed.begin_flush();
        unflushed.flushed(second, |extent| gone.push(extent.offset / EXTENT_SIZE));
        assert_eq!(gone, [1, 2, 3]);
        assert!(unflushed.take().is_empty());
    }

    #[test]
    fn what_nobody_holds_on_to_any_more_is_still_known() {
        let mut unflushed = Unflushed::default();
        unflushed.note(write(1));
        unflushed.let_go();
        unflushed.begin_flush();
        assert!(!unflushed.note(write(1)), "known");
        assert_eq!(unflushed.take(), [(extent_of(1), false)]);
    }

    #[test]
    fn one_flush_of_our_own_at_a_time_and_only_for_enough() {
        let mut unflushed = Unflushed::default();
        assert!(!unflushed.begin_own_flush(0), "nothing to flush");
        unflushed.note(write(1));
        assert!(!unflushed.begin_own_flush(2) && unflushed.begin_own_flush(1));
        assert!(!unflushed.begin_own_flush(1));
        let epoch = unflushed.end_own_flush().expect("in flight");
        unflushed.flushed(epoch, |_| {});
        assert!(!unflushed.begin_own_flush(1));
    }
}
