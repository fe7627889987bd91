//! A page of the line table: what is known of the slots of a few sets.
//!
//! ```text
//!   0          16      20      24     32
//!   format id  page    CRC32C  zero   set │ set │ …                                 zeroes … 4096
//!   16 bytes   u32     u32     u64    16 × { entry u32 │ valid u16 │ 0 u16 │ CRC32C u32 a block }
//! ```
//! A page stands on the device once and is written in place. One that was cut short is not
//! believed: what it knew are misses then, and nothing else is touched by it.
//!
//! It is worked on where it lies, in its bytes: a terabyte's table has hundreds of thousands of
//! pages, and a start looks at all of them. Absent: the order in which records are applied.

use super::journal_block::{Checksums, Record};
use super::layout::{PAGE_HEADER, sets_per_page};
use super::{FormatId, PAGE_SIZE, u16_at, u32_at};
use crate::cache::blocks::{BLOCK_SIZE, BLOCKS_MAX, BlockSet};
use crate::cache::config::LineSize;
use crate::cache::entry::{Entry, WAYS};

const CHECKSUM_AT: usize = 20;
const BODY_AT: usize = 24;
/// Bytes of a slot without its checksums.
const SLOT: usize = 8;

/// The bytes of a page.
pub(crate) type PageBytes = [u8; PAGE_SIZE];

/// What stands at a page's place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The page as it was written.
    Valid,
    /// Zeroes, or of another format: never written.
    Void,
    /// Not as it was written: cut short, or damaged.
    Damaged,
}

/// Tells what stands at the place of `page`.
pub(crate) fn check(bytes: &PageBytes, format_id: FormatId, page: u32) -> Verdict {
    if bytes[..16] != format_id.0 {
        Verdict::Void
    } else if u32_at(bytes, 16) == page && u32_at(bytes, CHECKSUM_AT) == checksum(bytes) {
        Verdict::Valid
    } else {
        Verdict::Damaged
    }
}

/// Puts header and checksum on a page that is to be written.
pub(crate) fn seal(bytes: &mut PageBytes, format_id: FormatId, page: u32) {
    bytes[..16].copy_from_slice(&format_id.0);
    bytes[16..CHECKSUM_AT].copy_from_slice(&page.to_le_bytes());
    let checksum = checksum(bytes);
    bytes[CHECKSUM_AT..BODY_AT].copy_from_slice(&checksum.to_le_bytes());
}

fn checksum(bytes: &PageBytes) -> u32 {
    let front = crc32c::crc32c(&bytes[..CHECKSUM_AT]);
    crc32c::crc32c_append(front, &bytes[BODY_AT..])
}

/// Where a line size's slots stand in their page, and what is done to them there. Slots are
/// counted from the page's first.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    slot_bytes: usize,
    slots: usize,
    all: BlockSet,
}

impl Shape {
    pub(crate) fn new(line_size: LineSize) -> Self {
        let blocks = (line_size.bytes() / BLOCK_SIZE) as usize;
        let slots = sets_per_page(line_size) as usize * WAYS;
        Self { slot_bytes: SLOT + 4 * blocks, slots, all: BlockSet::all(line_size) }
    }

    /// Slots in a page.
    pub(crate) fn slots(self) -> usize {
        self.slots
    }

    /// Entry and valid blocks of a slot; blocks that lines of this size do not have are left out.
    pub(crate) fn get(self, bytes: &PageBytes, slot: usize) -> (Entry, BlockSet) {
        let at = self.at(slot);
        let valid = BlockSet(u16_at(bytes, at + 4)).intersection(self.all);
        (Entry(u32_at(bytes, at)), valid)
    }

    /// The checksums of a slot; those of blocks that are not valid are unspecified.
    pub(crate) fn checksums(self, bytes: &PageBytes, slot: usize) -> Checksums {
        let at = self.at(slot);
        let mut checksums = [0; BLOCKS_MAX];
        for (block, field) in bytes[at + SLOT..at + self.slot_bytes].chunks_exact(4).enumerate() {
            checksums[block] = u32_at(field, 0);
        }
        checksums
    }

    /// Forgets a slot.
    pub(crate) fn clear(self, bytes: &mut PageBytes, slot: usize) {
        let at = self.at(slot);
        bytes[at..at + self.slot_bytes].fill(0);
    }

    /// Brings a slot up to date. A block that the record calls valid and brings no checksum for
    /// must be known already, of the same line; where it is not (the page was lost) it is not
    /// valid.
    pub(crate) fn apply(self, bytes: &mut PageBytes, slot: usize, record: &Record) {
        let (entry, valid) = self.get(bytes, slot);
        let same = entry.is_occupied() && entry.tag() == record.entry.tag();
        let known = if same { valid } else { BlockSet::EMPTY };
        let changed = record.changed.intersection(self.all);
        let valid = record.valid.intersection(known.union(changed));
        if valid.is_empty() || !record.entry.is_occupied() {
            return self.clear(bytes, slot);
        }
        let at = self.at(slot);
        bytes[at..at + 4].copy_from_slice(&record.entry.0.to_le_bytes());
        bytes[at + 4..at + 6].copy_from_slice(&valid.0.to_le_bytes());
        for block in changed.iter() {
            let field = at + SLOT + 4 * block;
            bytes[field..field + 4].copy_from_slice(&record.checksums[block].to_le_bytes());
        }
    }

    fn at(self, slot: usize) -> usize {
        debug_assert!(slot < self.slots);
        PAGE_HEADER + slot * self.slot_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::index::Slot;

    const FORMAT: FormatId = FormatId([7; 16]);

    fn record(tag: u32, valid: u16, changed: u16, checksum: u32) -> Record {
        Record {
            slot: Slot(0),
            entry: Entry::new(tag, false),
            valid: BlockSet(valid),
            changed: BlockSet(changed),
            checksums: [checksum; BLOCKS_MAX],
        }
    }

    #[test]
    fn every_slot_of_every_line_size_has_a_place_of_its_own() {
        for line_size in LineSize::ALL {
            let shape = Shape::new(line_size);
            let all = BlockSet::all(line_size);
            let mut bytes = [0; PAGE_SIZE];
            for slot in 0..shape.slots() {
                let tag = slot as u32;
                shape.apply(&mut bytes, slot, &record(tag, u16::MAX, u16::MAX, tag));
            }
            seal(&mut bytes, FORMAT, 5);
            assert_eq!(check(&bytes, FORMAT, 5), Verdict::Valid);
            for slot in 0..shape.slots() {
                assert_eq!(shape.get(&bytes, slot), (Entry::new(slot as u32, false), all));
                let checksums = shape.checksums(&bytes, slot);
                assert!(all.iter().all(|block| checksums[block] == slot as u32));
            }
        }
    }

    #[test]
    fn a_block_is_valid_only_with_a_checksum_of_the_same_line() {
        let shape = Shape::new(LineSize::default());
        let mut bytes = [0; PAGE_SIZE];
        let mut applied = |record: Record| {
            shape.apply(&mut bytes, 1, &record);
            let (entry, valid) = shape.get(&bytes, 1);
            (entry.is_occupied().then(|| entry.tag()), valid.0, shape.checksums(&bytes, 1)[0])
        };
        assert_eq!(applied(record(3, 0b11, 0b10, 9)).1, 0b10, "block 0 was never known");
        assert_eq!(applied(record(3, 0b11, 0b01, 8)), (Some(3), 0b11, 8));
        assert_eq!(applied(record(3, 0b01, 0, 0)), (Some(3), 0b01, 8), "a checksum stays");
        assert_eq!(applied(record(4, 0b11, 0b10, 7)).1, 0b10, "another line's checksum does not");
        assert_eq!(applied(record(4, 0, 0, 0)), (None, 0, 0));
    }

    #[test]
    fn damage_is_noticed_and_another_format_is_void() {
        let mut bytes = [0; PAGE_SIZE];
        assert_eq!(check(&bytes, FORMAT, 5), Verdict::Void);
        seal(&mut bytes, FORMAT, 5);
        assert_eq!(check(&bytes, FORMAT, 6), Verdict::Damaged);
        assert_eq!(check(&bytes, FormatId([8; 16]), 5), Verdict::Void);
        for bit in (128..PAGE_SIZE * 8).step_by(5) {
            let mut damaged = bytes;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(check(&damaged, FORMAT, 5), Verdict::Damaged, "bit {bit}");
        }
    }
}
