//! Records of the journal for a part of the line table: as many pages, from one on, as fit in a
//! memory of fixed size.
//!
//! ```text
//!   record ──▶ page before the part, or behind it? not taken
//!          └─▶ slot known already? merge │ a place free? take it
//!                                        │ none: the part's last page is given up, and again
//! ```
//! So one pass over the journal takes whole pages with all that it says of them, and where they
//! end is known when it is over. What is behind is for another pass. A slot has one place, with
//! what its records come to together, so a page never needs more places than it has slots. Each
//! step is short: nothing is sorted.
//!
//! Absent: reading the journal, and when passes are made.

use crate::cache::blocks::{BLOCK_SIZE, BlockSet};
use crate::cache::entry::Entry;
use crate::cache::index::Slot;
use crate::cache::metadata::journal_block::Record;
use crate::cache::metadata::layout::Layout;
use crate::cache::metadata::line_page::Shape;

/// A cache's bytes for each byte of records.
const CAPACITY_SHARE: u64 = 1 << 15;

/// Bytes of records at the least, which are those of a cache of 32 GiB: a smaller one reads its
/// journal fewer times.
const BYTES_MIN: u64 = 1 << 20;

/// Places for a word of 64 bits of the slots that were seen.
const SEEN_SHARE: usize = 4;

/// No place.
const NONE: u32 = u32::MAX;

/// Numbers of a place before its checksums: slot, entry, valid and changed blocks, and the next
/// place of the page, or of the free ones.
const HEADER: usize = 4;
const SLOT: usize = 0;
const ENTRY: usize = 1;
const BLOCKS: usize = 2;
const NEXT: usize = 3;

/// See the module.
pub(crate) struct Part {
    slots_per_page: u32,
    all: BlockSet,
    /// Numbers of a place.
    stride: usize,
    places: Vec<u32>,
    /// Places that have been given out, and the first of those that were given back.
    used: u32,
    free: u32,
    /// The first place of each page of the table.
    heads: Vec<u32>,
    /// Bits of the slots that were taken, by a hash: a slot whose bit is not set has no place, and
    /// its page need not be searched for it.
    seen: Vec<u64>,
    /// The part's pages, and the first that has not been asked for.
    from: u32,
    end: u32,
    cursor: u32,
    overflown: bool,
}

impl Part {
    /// A part from the table's first page on. It has room for what a 32768th of the cache's
    /// capacity holds, less a mebibyte, and a mebibyte at the least; or for a page's slots, and for
    /// no more than `places_max` slots.
    pub(crate) fn new(layout: &Layout, places_max: usize) -> Self {
        let share = layout.capacity / CAPACITY_SHARE;
        let share = share.saturating_sub(BYTES_MIN).max(BYTES_MIN);
        Self::with_memory(layout, share as usize, places_max)
    }

    /// A part from the table's first page on, with room for what so many `bytes` hold, or for a
    /// page's slots, and for no more than `places_max` slots.
    pub(crate) fn with_memory(layout: &Layout, bytes: usize, places_max: usize) -> Self {
        let blocks = (layout.line_size.bytes() / BLOCK_SIZE) as usize;
        let stride = HEADER + blocks;
        let slots_per_page = Shape::new(layout.line_size).slots();
        let slots = slots_per_page * layout.table_pages as usize;
        let share = bytes / (4 * stride);
        let places = share.max(slots_per_page).min(slots).min(places_max);
        Self {
            slots_per_page: slots_per_page as u32,
            all: BlockSet::all(layout.line_size),
            stride,
            places: vec![0; places * stride],
            used: 0,
            free: NONE,
            heads: vec![NONE; layout.table_pages as usize],
            seen: vec![0; (places / SEEN_SHARE + 1).next_power_of_two()],
            from: 0,
            end: layout.table_pages,
            cursor: 0,
            overflown: false,
        }
    }

    /// One past the part's last page; only a complete pass settles it.
    pub(crate) fn end(&self) -> u32 {
        self.end
    }

    /// Whether no page of the table is behind it.
    pub(crate) fn is_last(&self) -> bool {
        self.end as usize == self.heads.len()
    }

    /// Whether a single page had more than fits, so that the part is not what the journal says.
    pub(crate) fn is_overflown(&self) -> bool {
        self.overflown
    }

    /// Goes on with the part behind this one, which is empty until a pass is made.
    pub(crate) fn go_on(&mut self) {
        (self.from, self.cursor) = (self.end, self.end);
        self.end = self.heads.len() as u32;
        // No page from there on has records: those that had some were given up.
        (self.used, self.free) = (0, NONE);
        self.seen.fill(0);
    }

    /// The slots whose records are taken. Those of slots that the cache does not have are nobody's.
    pub(crate) fn slots(&self) -> std::ops::Range<u64> {
        let first = |page: u32| u64::from(page) * u64::from(self.slots_per_page);
        first(self.from)..first(self.end)
    }

    fn covers(&self, slot: Slot) -> bool {
        self.slots().contains(&u64::from(slot.0))
    }

    /// Notes the slot; false when it was certainly not noted before.
    fn see(&mut self, slot: Slot) -> bool {
        let bits = self.seen.len() * 64;
        let hash = u64::from(slot.0).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
        let bit = hash as usize & (bits - 1);
        let (word, bit) = (&mut self.seen[bit / 64], 1 << (bit % 64));
        let before = *word & bit != 0;
        *word |= bit;
        before
    }

    /// Takes a record that is newer than all before it.
    pub(crate) fn add(&mut self, record: &Record) {
        if !self.covers(record.slot) {
            return;
        }
        let page = (record.slot.0 / self.slots_per_page) as usize;
        let mut at = if self.see(record.slot) { self.heads[page] } else { NONE };
        while at != NONE {
            let numbers = self.numbers(at);
            if numbers[SLOT] == record.slot.0 {
                return self.merge(at, record);
            }
            at = numbers[NEXT];
        }
        let Some(at) = self.take_place() else {
            self.overflown = true;
            return;
        };
        // Its own page may have been given up for it.
        if !self.covers(record.slot) {
            return self.give_back(at);
        }
        let next = std::mem::replace(&mut self.heads[page], at);
        let numbers = self.numbers_mut(at);
        (numbers[SLOT], numbers[NEXT]) = (record.slot.0, next);
        self.put(at, record);
    }

    /// A free place; pages at the end of the part are given up until there is one, but never the
    /// first.
    fn take_place(&mut self) -> Option<u32> {
        loop {
            if self.free != NONE {
                let at = self.free;
                self.free = self.numbers(at)[NEXT];
                return Some(at);
            }
            if (self.used as usize) < self.places.len() / self.stride {
                self.used += 1;
                return Some(self.used - 1);
            }
            if self.end - self.from == 1 {
                return None;
            }
            self.end -= 1;
            let mut at = std::mem::replace(&mut self.heads[self.end as usize], NONE);
            while at != NONE {
                let next = self.numbers(at)[NEXT];
                self.give_back(at);
                at = next;
            }
        }
    }

    fn give_back(&mut self, at: u32) {
        let free = std::mem::replace(&mut self.free, at);
        self.numbers_mut(at)[NEXT] = free;
    }

    /// The next pages that have records, up to `most` that stand together; each page once.
    pub(crate) fn next_run(&mut self, most: u32) -> Option<std::ops::Range<u32>> {
        let rest = &self.heads[self.cursor as usize..self.end as usize];
        let Some(skipped) = rest.iter().position(|head| *head != NONE) else {
            self.cursor = self.end;
            return None;
        };
        let run = &rest[skipped..];
        let run = &run[..run.len().min(most as usize)];
        let count = run.iter().position(|head| *head == NONE).unwrap_or(run.len());
        let first = self.cursor + skipped as u32;
        self.cursor = first + count as u32;
        Some(first..self.cursor)
    }

    /// What the journal says of a page's slots, each once, in no order.
    pub(crate) fn for_each(&self, page: u32, mut apply: impl FnMut(&Record)) {
        let mut record = Record::EMPTY;
        let mut at = self.heads[page as usize];
        while at != NONE {
            let numbers = self.numbers(at);
            record.slot = Slot(numbers[SLOT]);
            record.entry = Entry(numbers[ENTRY]);
            (record.valid, record.changed) = blocks_of(numbers);
            for block in record.changed.iter() {
                record.checksums[block] = numbers[HEADER + block];
            }
            apply(&record);
            at = numbers[NEXT];
        }
    }

    fn put(&mut self, at: u32, record: &Record) {
        let changed = record.changed.intersection(self.all);
        self.put_blocks(at, record, [record.valid, changed], changed);
    }

    /// Makes a place's record one that does to the slot what it does and then `new`.
    fn merge(&mut self, at: u32, new: &Record) {
        let numbers = self.numbers(at);
        let old = Entry(numbers[ENTRY]);
        let (old_valid, old_changed) = blocks_of(numbers);
        let changed = new.changed.intersection(self.all);
        let sets = if old.is_occupied() && old.tag() == new.entry.tag() {
            let kept = old_changed.intersection(old_valid);
            [new.valid.intersection(old_valid.union(changed)), kept.union(changed)]
        } else {
            // What the table has of this line is from before another had the slot.
            [new.valid.intersection(changed), changed]
        };
        self.put_blocks(at, new, sets, changed);
    }

    /// The place has the checksums of all `changed` blocks but those of `record` in `new`.
    fn put_blocks(
        &mut self,
        at: u32,
        record: &Record,
        [valid, changed]: [BlockSet; 2],
        new: BlockSet,
    ) {
        let numbers = self.numbers_mut(at);
        numbers[ENTRY] = record.entry.0;
        numbers[BLOCKS] = u32::from(valid.0) | u32::from(changed.0) << 16;
        for block in new.iter() {
            numbers[HEADER + block] = record.checksums[block];
        }
    }

    fn numbers(&self, at: u32) -> &[u32] {
        let start = at as usize * self.stride;
        &self.places[start..start + self.stride]
    }

    fn numbers_mut(&mut self, at: u32) -> &mut [u32] {
        let start = at as usize * self.stride;
        &mut self.places[start..start + self.stride]
    }
}

/// The valid and the changed blocks of a place.
fn blocks_of(numbers: &[u32]) -> (BlockSet, BlockSet) {
    (BlockSet(numbers[BLOCKS] as u16), BlockSet((numbers[BLOCKS] >> 16) as u16))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::blocks::BLOCKS_MAX;
    use crate::cache::config::LineSize;
    use crate::cache::metadata::PAGE_SIZE;
    use block_io::sim::Random;

    fn layout(line_size: LineSize) -> Layout {
        Layout::for_device(64 << 20, line_size).expect("fits")
    }

    fn any_record(random: &mut Random, slots: u32) -> Record {
        let changed = BlockSet(random.below(1 << 16) as u16);
        let mut entry = Entry::new(random.below(3) as u32, false);
        if random.chance(100) {
            entry = Entry(0);
        }
        let mut checksums = [0; BLOCKS_MAX];
        checksums.fill_with(|| random.below(1 << 32) as u32);
        let valid = BlockSet(random.below(1 << 16) as u16);
        Record { slot: Slot(random.below(slots.into()) as u32), entry, valid, changed, checksums }
    }

    /// What a page says that may be relied on, slot by slot.
    fn known(shape: Shape, bytes: &[u8; PAGE_SIZE]) -> Vec<(Entry, BlockSet, Vec<u32>)> {
        let slot = |slot| {
            let ((entry, valid), checksums) =
                (shape.get(bytes, slot), shape.checksums(bytes, slot));
            (entry, valid, valid.iter().map(|block| checksums[block]).collect())
        };
        (0..shape.slots()).map(slot).collect()
    }

    /// All parts of `records` together do to every page what the records do one by one.
    fn check(seed: u64, line_size: LineSize, places: usize) -> usize {
        let mut random = Random::new(seed);
        let (layout, shape) = (layout(line_size), Shape::new(line_size));
        let slots_per_page = shape.slots() as u32;
        let pages = layout.table_pages;
        let slots = pages * slots_per_page;
        let range = if random.coin() { slots + 9 } else { slots.min(200) };
        let count = random.range(1..=3000) as usize;
        let records: Vec<_> = (0..count).map(|_| any_record(&mut random, range)).collect();
        let mut before = vec![[0; PAGE_SIZE]; pages as usize];
        for _ in 0..slots {
            let record = any_record(&mut random, slots);
            let (page, slot) = (record.slot.0 / slots_per_page, record.slot.0 % slots_per_page);
            shape.apply(&mut before[page as usize], slot as usize, &record);
        }
        let mut expected = before.clone();
        for record in records.iter().filter(|record| record.slot.0 < slots) {
            let (page, slot) = (record.slot.0 / slots_per_page, record.slot.0 % slots_per_page);
            shape.apply(&mut expected[page as usize], slot as usize, record);
        }
        let mut part = Part::new(&layout, places);
        let mut parts = 0;
        loop {
            parts += 1;
            records.iter().for_each(|record| part.add(record));
            assert!(!part.is_overflown(), "seed {seed}");
            while let Some(page) = part.next_run(1).map(|run| run.start) {
                let bytes = &mut before[page as usize];
                part.for_each(page, |record| {
                    shape.apply(bytes, (record.slot.0 % slots_per_page) as usize, record);
                });
            }
            if part.is_last() {
                break;
            }
            part.go_on();
        }
        for (page, (found, expected)) in before.iter().zip(&expected).enumerate() {
            let same = known(shape, found) == known(shape, expected);
            assert!(same, "seed {seed}, lines of {line_size}, page {page}");
        }
        parts
    }

    #[test]
    fn all_parts_together_do_what_the_journal_does_record_by_record() {
        let mut most = 0;
        for seed in 0..40 {
            for line_size in LineSize::ALL {
                let parts = check(seed, line_size, Shape::new(line_size).slots());
                most = most.max(parts);
                assert!(check(seed, line_size, usize::MAX) <= parts);
            }
        }
        assert!(most > 3, "parts at the most: {most}");
    }

    #[test]
    fn its_memory_is_a_32768th_of_the_capacity_less_a_mebibyte() {
        for line_size in LineSize::ALL {
            for (capacity, expected) in [(8 << 30, 1), (64 << 30, 1), (1u64 << 40, 31)] {
                let layout = Layout::for_device(capacity, line_size).expect("fits");
                let part = Part::new(&layout, usize::MAX);
                let (bytes, expected) = (4 * part.places.len() as u64, expected << 20);
                assert!(bytes <= expected && bytes > expected - 80, "{layout:?}: {bytes}");
                assert_eq!(part.heads.len() as u32, layout.table_pages);
            }
        }
    }

    #[test]
    fn a_page_with_more_than_fits_is_told() {
        let mut part = Part::new(&layout(LineSize::ALL[0]), 10);
        let (entry, all) = (Entry::new(1, false), BlockSet(1));
        let mut add = |slot| {
            let slot = Slot(slot);
            part.add(&Record { slot, entry, valid: all, changed: all, checksums: [7; BLOCKS_MAX] });
            part.is_overflown()
        };
        assert!((0..10).all(|slot| !add(slot)) && !add(9) && add(10));
    }
}
