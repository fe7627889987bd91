//! Ranges of the origin whose content is in doubt: a write to them failed in a way that may still
//! let it land later (no answer, connection lost).
//!
//! Until someone has made sure that it can't ([`Doubt::clear`]), such a range is read from the
//! origin and nothing of it is cached: what a fill would store might be overtaken by the late
//! write, and the cache would be stale.

use block_io::{Extent, IoError};

/// More ranges than this are taken as the whole volume.
const RANGES_MAX: usize = 64;

/// The ranges in doubt.
#[derive(Debug, Default)]
pub(crate) struct Doubt {
    ranges: Vec<Extent>,
}

impl Doubt {
    pub(crate) fn note(&mut self, extent: Extent, error: IoError) {
        if !may_land_late(error) || self.ranges.iter().any(|range| range.contains(extent)) {
            return;
        }
        if self.ranges.len() == RANGES_MAX {
            self.ranges.clear();
            self.ranges.push(Extent::new(0, u64::MAX));
        } else {
            self.ranges.push(extent);
        }
    }

    pub(crate) fn covers(&self, extent: Extent) -> bool {
        self.ranges.iter().any(|range| range.overlaps(extent))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    pub(crate) fn clear(&mut self) {
        self.ranges.clear();
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
        doubt.clear();
        assert!(!doubt.covers(extent));
    }

    #[test]
    fn many_ranges_become_everything() {
        let mut doubt = Doubt::default();
        for number in 0..=RANGES_MAX as u64 {
            doubt.note(Extent::new(number * 8192, 4096), IoError::TimedOut);
        }
        assert!(doubt.covers(Extent::new(1 << 40, 512)));
        assert_eq!(doubt.ranges.len(), 1);
    }
}
