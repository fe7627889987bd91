//! The records of a cache device as a tool sees them: each structure by itself, and the lines that
//! they add up to.
//!
//! ```text
//!   journal blocks ──▶ JournalRecords (by slot) ─┐
//!   a page of the line table ────────────────────┴─▶ CachedLine: where it belongs, what is valid
//! ```
//! A running cache reads the same bytes with the same codecs, but in its own order and within its
//! own bounds; this is for `forebay cache check` and for the fuzz targets, which want plain values.
//!
//! Absent: reading the device ([`crate::volume::cache_check`]); eviction's part of an entry.

use std::collections::BTreeMap;
use std::ops::Range;

use super::activity_page::{self, Copy};
use super::journal_block::{self, Record, Writer};
use super::layout::Layout;
use super::line_page::{self, Shape, Verdict};
use super::{FormatId, PAGE_SIZE};
use crate::cache::blocks::{BLOCKS_MAX, BlockSet};
use crate::cache::entry::{Entry, WAYS};
use crate::cache::index::Slot;
use crate::cache::line::{LineMap, Place};

/// The bytes of a page.
pub type Page = [u8; PAGE_SIZE];

/// What stands at the place of a structure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found<T> {
    /// Zeroes, or of another format: never written.
    Void,
    /// Not as it was written: cut short, or damaged.
    Damaged,
    /// As it was written.
    Valid(T),
}

/// What a copy of an activity page says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActivityPage {
    /// Higher than that of the copy before.
    pub sequence: u64,
    /// The journal was durable up to here.
    pub journal_head: u64,
    /// The number of the extent of 4 MiB at each place.
    pub places: Vec<Option<u64>>,
}

impl ActivityPage {
    /// Reads what stands at the place of a copy of `page`.
    pub fn decode(bytes: &Page, format_id: FormatId, page: u32) -> Found<Self> {
        match activity_page::decode(bytes, format_id, page) {
            Copy::Void => Found::Void,
            Copy::Damaged => Found::Damaged,
            Copy::Valid(read) => Found::Valid(Self {
                sequence: read.sequence,
                journal_head: read.journal_head,
                places: read.places.into_vec(),
            }),
        }
    }

    /// The page as it is written.
    pub fn encode(&self, format_id: FormatId, page: u32) -> Page {
        let places = self.places.iter().copied();
        activity_page::encode(format_id, page, self.sequence, self.journal_head, places)
    }
}

/// What the journal says of a slot, as the numbers it is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournalRecord {
    /// The slot.
    pub slot: u32,
    /// Its entry; zero when it holds no line.
    pub entry: u32,
    /// A bit for each block that may be served.
    pub valid: u16,
    /// A bit for each block whose checksum comes with it.
    pub changed: u16,
    /// CRC32C by block; zero for those not changed.
    pub checksums: [u32; BLOCKS_MAX],
}

impl JournalRecord {
    fn of(record: &Record) -> Self {
        let Record { slot, entry, valid, changed, .. } = *record;
        let mut checksums = [0; BLOCKS_MAX];
        changed.iter().for_each(|block| checksums[block] = record.checksums[block]);
        Self { slot: slot.0, entry: entry.0, valid: valid.0, changed: changed.0, checksums }
    }

    fn record(&self) -> Record {
        Record {
            slot: Slot(self.slot),
            entry: Entry(self.entry),
            valid: BlockSet(self.valid),
            changed: BlockSet(self.changed),
            checksums: self.checksums,
        }
    }
}

/// A block of the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalBlock {
    /// The use of the cache that wrote it.
    pub run: u64,
    /// What it says, in order.
    pub records: Vec<JournalRecord>,
}

impl JournalBlock {
    /// Reads what stands at the place of the block `sequence`; none when that is not there.
    pub fn decode(bytes: &Page, format_id: FormatId, sequence: u64) -> Option<Self> {
        let mut records = Vec::new();
        let (run, found) = journal_block::read(bytes, format_id, sequence)?;
        found.all(|record| records.push(JournalRecord::of(record)));
        Some(Self { run, records })
    }

    /// The block as it is written; none when its records are too many for one.
    pub fn encode(&self, format_id: FormatId, sequence: u64) -> Option<Page> {
        let mut writer = Writer::new();
        let fits = self.records.iter().all(|record| writer.push(&record.record()));
        fits.then(|| writer.finish(format_id, sequence, self.run))
    }
}

/// What the journal says of some slots, all of its records taken together.
#[derive(Clone, Debug, Default)]
pub struct JournalRecords {
    slots: BTreeMap<u32, Record>,
}

impl JournalRecords {
    /// Adds a record, newer than all before.
    pub fn add(&mut self, record: &JournalRecord) {
        let mut newer = record.record();
        if let Some(older) = self.slots.get(&record.slot) {
            // What the older one makes of the slot is what the newer one finds.
            let same = older.entry.is_occupied() && older.entry.tag() == newer.entry.tag();
            if same {
                newer.valid = newer.valid.intersection(older.valid.union(newer.changed));
                for block in older.changed.without(newer.changed).iter() {
                    newer.checksums[block] = older.checksums[block];
                }
                newer.changed = newer.changed.union(older.changed);
            } else {
                newer.valid = newer.valid.intersection(newer.changed);
            }
        }
        self.slots.insert(record.slot, newer);
    }
}

/// A line that the device has recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CachedLine {
    /// Where its bytes are.
    pub slot: u32,
    /// Where they belong: the line's first byte in the flat address space.
    pub offset: u64,
    /// A bit for each block that may be served.
    pub valid: u16,
    /// CRC32C by block; unspecified for those that are not valid.
    pub checksums: [u32; BLOCKS_MAX],
}

/// Reads pages of the line table.
pub struct LineTable {
    layout: Layout,
    format_id: FormatId,
    map: LineMap,
    shape: Shape,
}

impl LineTable {
    /// The table of a cache of that layout and format.
    pub fn new(layout: Layout, format_id: FormatId) -> Self {
        let map = LineMap::new(LineMap::lines_for(layout.sets), layout.sets);
        let map = map.expect("as many lines as the tags of these sets can tell");
        Self { layout, format_id, map, shape: Shape::new(layout.line_size) }
    }

    /// The slots that `pages` know of.
    pub fn slots(&self, pages: Range<u32>) -> Range<u64> {
        let slots = self.shape.slots() as u64;
        u64::from(pages.start) * slots..u64::from(pages.end) * slots
    }

    /// What stands at the place of `page`, and the lines of its sets once the journal's records are
    /// applied. Slots whose entry cannot be one of their set are left out and counted.
    pub fn read(&self, page: u32, bytes: &Page, journal: &JournalRecords) -> (Found<()>, Lines) {
        let first = self.slots(page..page + 1).start as u32;
        self.read_with(page, bytes, |apply| {
            let slots = self.slots(page..page + 1);
            let of_page = journal.slots.range(first..);
            let of_page = of_page.take_while(|(slot, _)| slots.contains(&u64::from(**slot)));
            of_page.for_each(|(_, record)| apply(record));
        })
    }

    /// The same with the records of the page's slots that `each` hands over.
    pub(crate) fn read_with(
        &self,
        page: u32,
        bytes: &Page,
        each: impl FnOnce(&mut dyn FnMut(&Record)),
    ) -> (Found<()>, Lines) {
        let found = match line_page::check(bytes, self.format_id, page) {
            Verdict::Valid => Found::Valid(()),
            Verdict::Void => Found::Void,
            Verdict::Damaged => Found::Damaged,
        };
        let mut bytes = if found == Found::Valid(()) { *bytes } else { [0; PAGE_SIZE] };
        let slots = self.slots(page..page + 1);
        // Behind the last set there may be a rest of a page.
        let end = slots.end.min(u64::from(self.layout.sets) * WAYS as u64);
        each(&mut |record| {
            if (slots.start..end).contains(&u64::from(record.slot.0)) {
                let at = u64::from(record.slot.0) - slots.start;
                self.shape.apply(&mut bytes, at as usize, record);
            }
        });
        (found, self.lines(page, &bytes))
    }

    fn lines(&self, page: u32, bytes: &Page) -> Lines {
        let mut found = Lines::default();
        let first_set = page * self.layout.sets_per_page;
        let sets = self.layout.sets_per_page.min(self.layout.sets.saturating_sub(first_set));
        for at in 0..sets as usize * WAYS {
            let (entry, valid) = self.shape.get(bytes, at);
            if entry.0 == 0 && valid.is_empty() {
                continue;
            }
            let set = first_set + (at / WAYS) as u32;
            let place = Place { set, tag: entry.tag() };
            let line = self.map.line(place);
            let slot = first_set * WAYS as u32 + at as u32;
            let offset = line.0.saturating_mul(self.layout.line_size.bytes());
            let same_set = |line: &&CachedLine| line.slot / WAYS as u32 == set;
            let mut others = found.lines.iter().rev().take_while(same_set);
            let is_sound =
                entry.is_occupied() && !valid.is_empty() && self.map.place(line) == place;
            if is_sound && others.all(|other| other.offset != offset) {
                let checksums = self.shape.checksums(bytes, at);
                found.lines.push(CachedLine { slot, offset, valid: valid.0, checksums });
            } else {
                found.unsound += 1;
            }
        }
        found
    }

    /// The page with what the journal says of its slots applied, as it is written.
    pub fn fold(&self, page: u32, bytes: &Page, journal: &JournalRecords) -> Page {
        let mut bytes = match line_page::check(bytes, self.format_id, page) {
            Verdict::Valid => *bytes,
            Verdict::Void | Verdict::Damaged => [0; PAGE_SIZE],
        };
        let slots = self.slots(page..page + 1);
        for (slot, record) in &journal.slots {
            if slots.contains(&u64::from(*slot)) {
                let at = (u64::from(*slot) - slots.start) as usize;
                self.shape.apply(&mut bytes, at, record);
            }
        }
        line_page::seal(&mut bytes, self.format_id, page);
        bytes
    }
}

/// The lines of a page.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Lines {
    /// In the order of their slots.
    pub lines: Vec<CachedLine>,
    /// Slots whose entry makes no sense.
    pub unsound: u32,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::LineSize;

    const FORMAT: FormatId = FormatId([7; 16]);

    fn table() -> (LineTable, Layout) {
        let layout = Layout::for_device(64 << 20, LineSize::default()).expect("fits");
        (LineTable::new(layout, FORMAT), layout)
    }

    /// A record of the line `tag` of the slot's set.
    fn record(slot: u32, tag: u32, valid: u16, changed: u16) -> JournalRecord {
        let mut checksums = [0; BLOCKS_MAX];
        BlockSet(changed).iter().for_each(|block| checksums[block] = slot * 100 + tag);
        let entry = if valid == 0 { 0 } else { Entry::new(tag, false).0 };
        JournalRecord { slot, entry, valid, changed, checksums }
    }

    fn records(records: &[JournalRecord]) -> JournalRecords {
        let mut all = JournalRecords::default();
        records.iter().for_each(|record| all.add(record));
        all
    }

    #[test]
    fn records_taken_together_do_what_they_do_one_after_another() {
        let (table, _) = table();
        let base = table.fold(0, &[0; PAGE_SIZE], &records(&[record(5, 1, 0b1011, 0b1011)]));
        let mut seen = 0;
        // Every pair of valid and changed blocks of two records, for the same line and another.
        for number in 0_u32..1 << 13 {
            let bits = |shift: u32| (number >> shift & 0b111) as u16;
            let tags = if number >> 12 == 0 { (1, 1) } else { (2, 1) };
            let both = [record(5, tags.0, bits(0), bits(3)), record(5, tags.1, bits(6), bits(9))];
            let one_by_one = table.fold(0, &base, &records(&both[..1]));
            let one_by_one = table.fold(0, &one_by_one, &records(&both[1..]));
            let (_, expected) = table.read(0, &one_by_one, &JournalRecords::default());
            let (_, found) = table.read(0, &base, &records(&both));
            let valid = |lines: &Lines| {
                let shown = |line: &CachedLine| {
                    let known = BlockSet(line.valid).iter().map(|block| line.checksums[block]);
                    (line.offset, line.valid, known.collect::<Vec<_>>())
                };
                lines.lines.iter().map(shown).collect::<Vec<_>>()
            };
            assert_eq!(valid(&found), valid(&expected), "{both:?}");
            seen += found.lines.len();
        }
        assert!(seen > 1000, "{seen}");
    }

    #[test]
    fn lines_are_found_where_they_belong_and_what_cannot_be_is_counted() {
        let (table, layout) = table();
        let slot = 16 * layout.sets_per_page + 3;
        let twice = [record(slot, 9, 1, 1), record(slot + 1, 9, 1, 1), record(slot + 2, 8, 3, 3)];
        let (found, lines) = table.read(1, &[0; PAGE_SIZE], &records(&twice));
        assert_eq!((found, lines.unsound), (Found::Void, 1), "one line in two slots");
        let place = Place { set: layout.sets_per_page, tag: 9 };
        assert_eq!(lines.lines[0].offset, table.map.line(place).0 * 16384);
        assert_eq!((lines.lines[0].slot, lines.lines[1].valid), (slot, 3));
        let impossible = record(slot, (1 << 22) - 1, 1, 1);
        let (_, lines) = table.read(1, &[0; PAGE_SIZE], &records(&[impossible]));
        assert!(lines.lines.len() + lines.unsound as usize == 1);
        let last = layout.table_pages - 1;
        let beyond = record(layout.sets * 16, 1, 1, 1);
        let (_, lines) = table.read(last, &[0; PAGE_SIZE], &records(&[beyond]));
        assert_eq!(lines, Lines::default(), "behind the last set");
    }

    #[test]
    fn blocks_and_pages_read_as_they_were_written() {
        let block = JournalBlock { run: 3, records: vec![record(1, 2, 3, 3), record(4, 5, 6, 2)] };
        let bytes = block.encode(FORMAT, 77).expect("it fits");
        assert_eq!(JournalBlock::decode(&bytes, FORMAT, 77), Some(block.clone()));
        let full = JournalBlock { records: vec![block.records[0]; 400], ..block };
        assert_eq!(full.encode(FORMAT, 77), None);
        let places = (0..507).map(|place| (place % 2 == 0).then_some(place)).collect();
        let page = ActivityPage { sequence: 5, journal_head: 6, places };
        let bytes = page.encode(FORMAT, 2);
        assert_eq!(ActivityPage::decode(&bytes, FORMAT, 2), Found::Valid(page));
    }
}
