//! Stores into the cache that are in flight, and how they can't go stale.
//!
//! A fill writes blocks into a slot and, when the cache device is done, makes them valid. It is
//! begun while its piece still holds the bytes' lock, but outlives it: no client waits for a fill.
//! So a later write may overlap it. That write *excludes* its blocks from the fill, which then
//! never makes them valid; and as long as the fill is in flight nothing else is stored in those
//! blocks of the slot, because the device might finish the two in either order.
//!
//! A fill of a write also waits for the origin's answer: only what the origin has is cached.

use super::blocks::{BLOCKS_MAX, BlockSet};
use super::index::Slot;
use super::line::LineNumber;
use super::table::{Table, bucket};

pub(crate) type FillIndex = u16;

/// No fill; the end of a chain.
pub(crate) const NO_FILL: FillIndex = FillIndex::MAX;

/// CRC32C by block of a line.
pub(crate) type Checksums = [u32; BLOCKS_MAX];

/// A store that is to begin.
pub(crate) struct Store {
    pub(crate) line: LineNumber,
    pub(crate) slot: Slot,
    /// What the device is writing.
    pub(crate) blocks: BlockSet,
    /// It is a write's: valid only when the origin has it too.
    pub(crate) of_write: bool,
    /// What the write has made invalid is to be recorded at the end, whatever that is.
    pub(crate) owes_record: bool,
}

/// One store in flight.
struct Fill {
    store: Store,
    /// What becomes valid when all goes well.
    install: BlockSet,
    awaits_origin: bool,
    awaits_cache: bool,
    /// Next fill of the same write piece.
    next_of_piece: FillIndex,
    next_of_bucket: FillIndex,
}

/// What is left to do when a fill has ended.
pub(crate) struct Ended {
    /// Its name until another one begins.
    pub(crate) fill: FillIndex,
    pub(crate) store: Store,
    pub(crate) install: BlockSet,
    /// Another fill of the line is in flight.
    pub(crate) line_is_busy: bool,
}

/// All fills in flight, found by line.
pub(crate) struct Fills {
    table: Table<Fill>,
    heads: Box<[FillIndex]>,
    /// Of what each fill stores, by block of its line.
    checksums: Box<[u32]>,
    blocks: usize,
}

impl Fills {
    /// Room for `fills_max` fills of lines of `blocks` blocks.
    pub(crate) fn new(fills_max: usize, blocks: usize) -> Self {
        let buckets = (fills_max * 2).next_power_of_two();
        Self {
            table: Table::new(fills_max),
            heads: vec![NO_FILL; buckets].into_boxed_slice(),
            checksums: vec![0; fills_max * blocks].into_boxed_slice(),
            blocks,
        }
    }

    /// CRC32C of what a fill stores, by block of its line; those of other blocks mean nothing. They
    /// are there until another fill begins, even if it has ended.
    pub(crate) fn checksums(&self, fill: FillIndex) -> &[u32] {
        &self.checksums[usize::from(fill) * self.blocks..][..self.blocks]
    }

    /// The same, to be filled in.
    pub(crate) fn checksums_mut(&mut self, fill: FillIndex) -> &mut [u32] {
        &mut self.checksums[usize::from(fill) * self.blocks..][..self.blocks]
    }

    pub(crate) fn is_full(&self) -> bool {
        self.table.is_full()
    }

    /// The most that there can be.
    pub(crate) fn capacity(&self) -> usize {
        self.table.capacity()
    }

    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    /// Begins a fill; the caller has seen that there is room and no overlap. `next_of_piece` is
    /// the fill of the same write that was begun before, or [`NO_FILL`].
    pub(crate) fn begin(&mut self, store: Store, next_of_piece: FillIndex) -> FillIndex {
        debug_assert!(!self.overlaps(store.line, store.blocks));
        let bucket = self.bucket(store.line);
        let fill = Fill {
            install: store.blocks,
            awaits_origin: store.of_write,
            awaits_cache: true,
            next_of_piece,
            next_of_bucket: self.heads[bucket],
            store,
        };
        self.heads[bucket] = self.table.insert(fill);
        self.heads[bucket]
    }

    pub(crate) fn line(&self, fill: FillIndex) -> LineNumber {
        self.table[fill].store.line
    }

    pub(crate) fn slot(&self, fill: FillIndex) -> Slot {
        self.table[fill].store.slot
    }

    pub(crate) fn next_of_piece(&self, fill: FillIndex) -> FillIndex {
        self.table[fill].next_of_piece
    }

    /// Whether the device is writing any of these blocks of the line.
    pub(crate) fn overlaps(&self, line: LineNumber, blocks: BlockSet) -> bool {
        let mut at = self.heads[self.bucket(line)];
        while at != NO_FILL {
            let fill = &self.table[at];
            if fill.store.line == line && fill.store.blocks.overlaps(blocks) {
                return true;
            }
            at = fill.next_of_bucket;
        }
        false
    }

    /// Keeps these blocks of the line from becoming valid by any fill in flight.
    pub(crate) fn exclude(&mut self, line: LineNumber, blocks: BlockSet) {
        let mut at = self.heads[self.bucket(line)];
        while at != NO_FILL {
            let fill = &mut self.table[at];
            if fill.store.line == line {
                fill.install = fill.install.without(blocks);
            }
            at = fill.next_of_bucket;
        }
    }

    /// Keeps every line in a range of lines from becoming valid by any fill in flight.
    pub(crate) fn exclude_lines(&mut self, lines: std::ops::Range<u64>) {
        for fill in self.table.iter_mut() {
            if lines.contains(&fill.store.line.0) {
                fill.install = BlockSet::EMPTY;
            }
        }
    }

    /// The cache device is done with a fill. Returns what to do when nothing else is awaited.
    pub(crate) fn cache_done(&mut self, fill: FillIndex, stored: bool) -> Option<Ended> {
        let entry = &mut self.table[fill];
        entry.awaits_cache = false;
        if !stored {
            entry.install = BlockSet::EMPTY;
        }
        (!entry.awaits_origin).then(|| self.end(fill))
    }

    /// The origin has answered the write that a fill stores, likewise.
    pub(crate) fn origin_done(&mut self, fill: FillIndex, written: bool) -> Option<Ended> {
        let entry = &mut self.table[fill];
        entry.awaits_origin = false;
        if !written {
            entry.install = BlockSet::EMPTY;
        }
        (!entry.awaits_cache).then(|| self.end(fill))
    }

    fn end(&mut self, fill: FillIndex) -> Ended {
        let ended = self.table.remove(fill);
        let line = ended.store.line;
        let bucket = self.bucket(line);
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
            line_is_busy |= self.table[at].store.line == line;
            at = self.table[at].next_of_bucket;
        }
        Ended { fill, store: ended.store, install: ended.install, line_is_busy }
    }

    fn bucket(&self, line: LineNumber) -> usize {
        bucket(line.0, self.heads.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: LineNumber = LineNumber(5);

    fn store(blocks: u16, of_write: bool) -> Store {
        let blocks = BlockSet(blocks);
        Store { line: LINE, slot: Slot(9), blocks, of_write, owes_record: false }
    }

    #[test]
    fn excluded_blocks_are_not_installed() {
        let mut fills = Fills::new(4, BLOCKS_MAX);
        let fill = fills.begin(store(0b1111, false), NO_FILL);
        fills.exclude(LINE, BlockSet(0b10));
        fills.exclude(LineNumber(6), BlockSet(u16::MAX));
        assert!(fills.overlaps(LINE, BlockSet(0b10)), "the device still writes it");
        let ended = fills.cache_done(fill, true).expect("nothing else is awaited");
        assert_eq!(ended.install, BlockSet(0b1101));
        assert!(!fills.overlaps(LINE, BlockSet(u16::MAX)));
        let fill = fills.begin(store(1, false), NO_FILL);
        fills.exclude_lines(6..100);
        fills.exclude_lines(5..6);
        assert!(fills.cache_done(fill, true).expect("done").install.is_empty());
    }

    #[test]
    fn a_writes_fill_waits_for_both_sides_and_needs_both() {
        for (stored, written) in [(true, true), (true, false), (false, true)] {
            for origin_first in [true, false] {
                let mut fills = Fills::new(4, BLOCKS_MAX);
                let fill = fills.begin(store(1, true), NO_FILL);
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
        let mut fills = Fills::new(4, BLOCKS_MAX);
        let first = fills.begin(store(1, false), NO_FILL);
        let second = fills.begin(store(2, false), NO_FILL);
        assert!(fills.cache_done(first, true).expect("done").line_is_busy);
        assert!(!fills.cache_done(second, true).expect("done").line_is_busy);
        assert_eq!(fills.len(), 0);
    }
}
