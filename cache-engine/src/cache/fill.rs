//! Stores into the cache that are in flight, and how they can't go stale.
//!
//! A fill writes bytes into a slot and, when the cache device is done, makes them valid. It is
//! begun while its piece still holds the bytes' lock, but outlives it: no client waits for a fill.
//! So a later write may overlap it. That write *excludes* its sectors from the fill, which then
//! never makes them valid; and as long as the fill is in flight nothing else is stored in those
//! sectors of the slot, because the device might finish the two in either order.
//!
//! A fill of a write also waits for the origin's answer: only what the origin has is cached.

use super::index::Slot;
use super::line::LineNumber;
use super::sectors::SectorSet;
use super::table::{Table, bucket};

pub(crate) type FillIndex = u16;

/// No fill; the end of a chain.
pub(crate) const NO_FILL: FillIndex = FillIndex::MAX;

/// One store in flight.
pub(crate) struct Fill {
    pub(crate) line: LineNumber,
    pub(crate) slot: Slot,
    /// What the device is writing.
    pub(crate) sectors: SectorSet,
    /// What becomes valid when all goes well.
    install: SectorSet,
    /// The origin has not answered the write that this stores.
    awaits_origin: bool,
    awaits_cache: bool,
    /// Next fill of the same write piece.
    pub(crate) next_of_piece: FillIndex,
    next_of_bucket: FillIndex,
}

/// What is left to do when a fill has ended.
pub(crate) struct Ended {
    pub(crate) slot: Slot,
    pub(crate) install: SectorSet,
    /// Another fill of the line is in flight.
    pub(crate) line_is_busy: bool,
}

/// All fills in flight, found by line.
pub(crate) struct Fills {
    table: Table<Fill>,
    heads: Box<[FillIndex]>,
}

impl Fills {
    pub(crate) fn new(fills_max: usize) -> Self {
        let buckets = (fills_max * 2).next_power_of_two();
        Self { table: Table::new(fills_max), heads: vec![NO_FILL; buckets].into_boxed_slice() }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.table.is_full()
    }

    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    /// Begins a fill; the caller has seen that there is room and no overlap.
    pub(crate) fn begin(
        &mut self,
        line: LineNumber,
        slot: Slot,
        sectors: SectorSet,
        awaits_origin: bool,
    ) -> FillIndex {
        debug_assert!(!self.overlaps(line, sectors));
        let bucket = self.bucket(line);
        let fill = Fill {
            line,
            slot,
            sectors,
            install: sectors,
            awaits_origin,
            awaits_cache: true,
            next_of_piece: NO_FILL,
            next_of_bucket: self.heads[bucket],
        };
        self.heads[bucket] = self.table.insert(fill);
        self.heads[bucket]
    }

    pub(crate) fn get_mut(&mut self, fill: FillIndex) -> &mut Fill {
        &mut self.table[fill]
    }

    /// Whether the device is writing any of these sectors of the line.
    pub(crate) fn overlaps(&self, line: LineNumber, sectors: SectorSet) -> bool {
        let mut at = self.heads[self.bucket(line)];
        while at != NO_FILL {
            let fill = &self.table[at];
            if fill.line == line && fill.sectors.overlaps(sectors) {
                return true;
            }
            at = fill.next_of_bucket;
        }
        false
    }

    /// Keeps these sectors of the line from becoming valid by any fill in flight.
    pub(crate) fn exclude(&mut self, line: LineNumber, sectors: SectorSet) {
        let mut at = self.heads[self.bucket(line)];
        while at != NO_FILL {
            let fill = &mut self.table[at];
            if fill.line == line {
                fill.install = fill.install.without(sectors);
            }
            at = fill.next_of_bucket;
        }
    }

    /// The cache device is done with a fill. Returns what to do when nothing else is awaited.
    pub(crate) fn cache_done(&mut self, fill: FillIndex, stored: bool) -> Option<Ended> {
        let entry = &mut self.table[fill];
        entry.awaits_cache = false;
        if !stored {
            entry.install = SectorSet::EMPTY;
        }
        (!entry.awaits_origin).then(|| self.end(fill))
    }

    /// The origin has answered the write that a fill stores, likewise.
    pub(crate) fn origin_done(&mut self, fill: FillIndex, written: bool) -> Option<Ended> {
        let entry = &mut self.table[fill];
        entry.awaits_origin = false;
        if !written {
            entry.install = SectorSet::EMPTY;
        }
        (!entry.awaits_cache).then(|| self.end(fill))
    }

    fn end(&mut self, fill: FillIndex) -> Ended {
        let ended = self.table.remove(fill);
        let bucket = self.bucket(ended.line);
        if self.heads[bucket] == fill {
            self.heads[bucket] = ended.next_of_bucket;
        } else {
            let mut at = self.heads[bucket];
            while self.table[at].next_of_bucket != fill {
                at = self.table[at].next_of_bucket;
            }
            self.table[at].next_of_bucket = ended.next_of_bucket;
        }
        let mut at = self.heads[bucket];
        let mut line_is_busy = false;
        while at != NO_FILL {
            line_is_busy |= self.table[at].line == ended.line;
            at = self.table[at].next_of_bucket;
        }
        Ended { slot: ended.slot, install: ended.install, line_is_busy }
    }

    fn bucket(&self, line: LineNumber) -> usize {
        bucket(line.0, self.heads.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: LineNumber = LineNumber(5);
    const SLOT: Slot = Slot(9);

    fn sectors(first: u64, count: u64) -> SectorSet {
        SectorSet::of_bytes(first * 512, count * 512)
    }

    #[test]
    fn excluded_sectors_are_not_installed() {
        let mut fills = Fills::new(4);
        let fill = fills.begin(LINE, SLOT, sectors(0, 4), false);
        fills.exclude(LINE, sectors(1, 1));
        fills.exclude(LineNumber(6), sectors(0, 8));
        assert!(fills.overlaps(LINE, sectors(1, 1)), "the device still writes it");
        let ended = fills.cache_done(fill, true).expect("nothing else is awaited");
        assert_eq!(ended.install, sectors(0, 4).without(sectors(1, 1)));
        assert!(!fills.overlaps(LINE, sectors(0, 8)));
    }

    #[test]
    fn a_writes_fill_waits_for_both_sides_and_needs_both() {
        for (stored, written) in [(true, true), (true, false), (false, true)] {
            for origin_first in [true, false] {
                let mut fills = Fills::new(4);
                let fill = fills.begin(LINE, SLOT, sectors(0, 1), true);
                let ended = if origin_first {
                    assert!(fills.origin_done(fill, written).is_none());
                    fills.cache_done(fill, stored)
                } else {
                    assert!(fills.cache_done(fill, stored).is_none());
                    fills.origin_done(fill, written)
                };
                let install = ended.expect("both have answered").install;
                assert_eq!(install.is_empty(), !(stored && written));
            }
        }
    }

    #[test]
    fn a_line_is_busy_until_its_last_fill() {
        let mut fills = Fills::new(4);
        let first = fills.begin(LINE, SLOT, sectors(0, 1), false);
        let second = fills.begin(LINE, SLOT, sectors(1, 1), false);
        assert!(fills.cache_done(first, true).expect("done").line_is_busy);
        assert!(!fills.cache_done(second, true).expect("done").line_is_busy);
        assert_eq!(fills.len(), 0);
    }
}
