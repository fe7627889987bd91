//! Ranges of the origin of which nothing may be cached, because what is read of them now may not be
//! what they hold later.
//!
//! ```text
//!   a write failed and may still land (no answer, connection lost) ─▶ until the origin is fenced
//!   written, not flushed, and not kept track of any more           ─▶ until a later flush succeeds
//! ```
//! Such a range is read from the origin and nothing of it is stored: a fill might be overtaken by
//! the late write, or outlive what the origin loses. What was cached of it has been dropped, so
//! after a crash nothing of it is found either, and its extents need no place in the activity log.
//! That holds for a late write because the write itself drops what it touches before it is sent.
//!
//! Absent: extents that are cached although they are not flushed ([`super::unflushed`]).

use block_io::{Extent, IoError};

/// More ranges than this of one kind are taken as the whole volume.
const RANGES_MAX: usize = 64;

const EVERYTHING: Extent = Extent::new(0, u64::MAX);

/// The ranges in doubt.
#[derive(Debug, Default)]
pub(crate) struct Doubt {
    ranges: Vec<(Extent, Until)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Until {
    Fenced,
    /// A flush of this epoch or a later one has succeeded.
    Flushed(u64),
}

impl Doubt {
    /// A write of `extent` failed so.
    pub(crate) fn note(&mut self, extent: Extent, error: IoError) {
        let is_fenced = |until: &Until| *until == Until::Fenced;
        if may_land_late(error)
            && !self.ranges.iter().any(|(range, until)| is_fenced(until) && range.contains(extent))
        {
            self.add(extent, Until::Fenced, is_fenced);
        }
    }

    /// What was written to `extent` may be lost until a flush of this epoch has succeeded.
    pub(crate) fn note_unflushed(&mut self, extent: Extent, epoch: u64) {
        for (range, until) in &mut self.ranges {
            if let Until::Flushed(noted) = until
                && range.contains(extent)
            {
                *noted = epoch.max(*noted);
                return;
            }
        }
        let noted = |until: &Until| matches!(until, Until::Flushed(_));
        let newest = self.ranges.iter().filter_map(|(_, until)| match until {
            Until::Flushed(noted) => Some(*noted),
            Until::Fenced => None,
        });
        let newest = newest.max().map_or(epoch, |newest| newest.max(epoch));
        let is_full = self.count(noted) == RANGES_MAX;
        self.add(extent, Until::Flushed(if is_full { newest } else { epoch }), noted);
    }

    fn count(&self, kind: impl Fn(&Until) -> bool) -> usize {
        self.ranges.iter().filter(|(_, until)| kind(until)).count()
    }

    fn add(&mut self, extent: Extent, until: Until, kind: impl Fn(&Until) -> bool) {
        let is_full = self.count(&kind) == RANGES_MAX;
        if is_full {
            self.ranges.retain(|(_, until)| !kind(until));
        }
        self.ranges.push((if is_full { EVERYTHING } else { extent }, until));
    }

    pub(crate) fn covers(&self, extent: Extent) -> bool {
        self.ranges.iter().any(|(range, _)| range.overlaps(extent))
    }

    /// Whether all of `extent` is left uncached until a flush.
    pub(crate) fn covers_unflushed(&self, extent: Extent) -> bool {
        let unflushed = |until: &Until| matches!(until, Until::Flushed(_));
        self.ranges.iter().any(|(range, until)| unflushed(until) && range.contains(extent))
    }

    /// Whether anything waits for a flush.
    pub(crate) fn awaits_flush(&self) -> bool {
        self.count(|until| matches!(until, Until::Flushed(_))) > 0
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// No write of before can land any more.
    pub(crate) fn fenced(&mut self) {
        self.ranges.retain(|(_, until)| *until != Until::Fenced);
    }

    /// A flush of that epoch has succeeded.
    pub(crate) fn flushed(&mut self, epoch: u64) {
        self.ranges.retain(|(_, until)| match until {
            Until::Fenced => true,
            Until::Flushed(noted) => *noted > epoch,
        });
    }

    /// The volume lies so many flat bytes further on.
    pub(crate) fn shift(&mut self, distance: u64) {
        for (range, _) in self.ranges.iter_mut().filter(|(range, _)| *range != EVERYTHING) {
            range.offset += distance;
        }
    }
}

/// Whether a write that failed so may still reach the origin.
pub(crate) fn may_land_late(error: IoError) -> bool {
    matches!(error, IoError::TimedOut | IoError::ConnectionLost | IoError::Cancelled)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_errors_that_leave_a_write_on_its_way_cast_doubt() {
        let mut doubt = Doubt::default();
        let extent = Extent::new(4096, 4096);
        doubt.note(extent, IoError::Media);
        assert!(!doubt.covers(extent));
        doubt.note(extent, IoError::ConnectionLost);
        assert!(doubt.covers(Extent::new(8191, 1)) && !doubt.covers(Extent::new(8192, 1)));
        doubt.shift(1 << 20);
        assert!(doubt.covers(Extent::new((1 << 20) + 8191, 1)) && !doubt.covers(extent));
        doubt.fenced();
        assert!(doubt.is_empty());
    }

    #[test]
    fn many_ranges_become_everything() {
        let mut doubt = Doubt::default();
        for number in 0..=RANGES_MAX as u64 {
            doubt.note(Extent::new(number * 8192, 4096), IoError::TimedOut);
            doubt.note_unflushed(Extent::new(number * 8192, 4096), number);
        }
        assert!(doubt.covers(Extent::new(1 << 40, 512)));
        assert_eq!(doubt.ranges.len(), 2);
        doubt.flushed(RANGES_MAX as u64 - 1);
        assert!(doubt.covers_unflushed(Extent::new(1 << 40, 512)), "the newest is not flushed");
        doubt.flushed(RANGES_MAX as u64);
        assert!(doubt.covers(Extent::new(1 << 40, 512)) && !doubt.awaits_flush());
        doubt.fenced();
        assert!(doubt.is_empty());
    }

    #[test]
    fn a_range_is_in_doubt_until_all_that_was_written_to_it_is_flushed() {
        let mut doubt = Doubt::default();
        let extent = Extent::new(1 << 22, 1 << 22);
        doubt.note_unflushed(extent, 3);
        doubt.note_unflushed(Extent::new(1 << 22, 512), 5);
        doubt.fenced();
        doubt.flushed(4);
        assert!(doubt.covers_unflushed(extent), "written again behind that flush");
        doubt.flushed(5);
        assert!(doubt.is_empty());
    }
}
