//! Where everything lies on a cache device: worked out from its size and the line size alone.
//!
//! ```text
//!  0        64K        128K                                                             capacity
//!  ├─────────┼──────────┼─────────┬─────────┬───────────────┬────────────┬─────┬──────────────┤
//!  │ super-  │ super-   │activity │activity │ journal ring  │ line table │ gap │ slots: sets  │
//!  │ block A │ block B  │pages, 0 │pages, 1 │ 4 KiB blocks  │ 4 KiB pages│     │ of 16 lines  │
//!  └─────────┴──────────┴─────────┴─────────┴───────────────┴────────────┴─────┴──────────────┘
//!                       │                   │               │                  │
//!            activity_offset       journal_offset     table_offset        data_offset
//! ```
//! A superblock records its layout, so a later program may choose other sizes and still read this
//! one's devices: it checks ([`Layout::check`]) and does not recompute.
//!
//! Absent: what stands in the parts, which is each codec's.

use block_io::DeviceError;

use super::PAGE_SIZE;
use crate::cache::blocks::{BLOCK_SIZE, BLOCKS_MAX};
use crate::cache::config::LineSize;
use crate::cache::entry::WAYS;
use crate::cache::line::LineMap;

/// Bytes kept for each of the two superblocks.
pub const SUPERBLOCK_REGION: u64 = 64 << 10;

/// Bytes at the front of an activity page and of a page of the line table that are not entries.
pub const PAGE_HEADER: usize = 32;

/// Numbers of a `u64` that an activity page holds: its extents, and at the end the journal's head.
pub const EXTENTS_PER_PAGE: u32 = ((PAGE_SIZE - PAGE_HEADER) / 8) as u32;

/// Sets that a cache has at the most: a slot's number is a `u32`.
pub const SETS_MAX: u32 = 1 << 28;

/// A device's bytes for each byte of its journal. The more the journal holds, the more records of
/// a page of the line table are folded by one write of it.
const JOURNAL_SHARE: u64 = 2048;

/// Devices from this size on have their data aligned to a mebibyte, as erase units and RAID
/// stripes like it; on smaller ones that would cost too much of them.
const LARGE_DEVICE: u64 = 256 << 20;

const _: () = assert!(SUPERBLOCK_REGION.is_multiple_of(PAGE_SIZE as u64));
const _: () = assert!(EXTENTS_PER_PAGE == 508);
// Every line size has room for at least one set in a page of the line table.
const _: () = assert!(PAGE_HEADER + WAYS * (8 + 4 * BLOCKS_MAX) <= PAGE_SIZE);
const _: () = assert!(SETS_MAX as u64 * WAYS as u64 <= 1 << 32);

/// Where the parts of a cache device lie. Offsets are in bytes and multiples of 4 KiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Bytes of the device.
    pub capacity: u64,
    /// Bytes of a line, and of a slot.
    pub line_size: LineSize,
    /// Sets of 16 slots.
    pub sets: u32,
    /// First activity page.
    pub activity_offset: u64,
    /// Activity pages; each stands on the device twice.
    pub activity_pages: u32,
    /// First block of the journal ring.
    pub journal_offset: u64,
    /// Blocks of 4 KiB in the journal ring; an even number.
    pub journal_blocks: u32,
    /// First page of the line table.
    pub table_offset: u64,
    /// Pages of 4 KiB in the line table.
    pub table_pages: u32,
    /// Sets that a page of the line table holds.
    pub sets_per_page: u32,
    /// First slot.
    pub data_offset: u64,
}

impl Layout {
    /// The layout for a device of `capacity` bytes with lines of `line_size`: as many sets as fit.
    ///
    /// # Errors
    /// When not even one set fits; the message says how large the device must be.
    pub fn for_device(capacity: u64, line_size: LineSize) -> Result<Self, DeviceError> {
        let extents = (capacity >> 24).clamp(256, 65536) as u32;
        let activity_pages = extents.div_ceil(EXTENTS_PER_PAGE - 1);
        let journal_bytes = (capacity / JOURNAL_SHARE).clamp(128 << 10, 256 << 20);
        let journal_blocks = (journal_bytes / PAGE_SIZE as u64) as u32 & !1;
        let activity_offset = 2 * SUPERBLOCK_REGION;
        let journal_offset = activity_offset + pages(2 * u64::from(activity_pages));
        let table_offset = journal_offset + pages(u64::from(journal_blocks));
        let sets_per_page = sets_per_page(line_size);
        let alignment = if capacity < LARGE_DEVICE { 64 << 10 } else { 1 << 20 };
        let table_pages = |sets: u64| sets.div_ceil(u64::from(sets_per_page));
        let data_offset =
            |sets| (table_offset + pages(table_pages(sets))).next_multiple_of(alignment);
        let set_bytes = set_bytes(line_size);

        // Without the gap before the data, which can only cost sets.
        let room = capacity.saturating_sub(table_offset);
        let chunk = u64::from(sets_per_page) * set_bytes + pages(1);
        let most = room / chunk * u64::from(sets_per_page) + (room % chunk) / set_bytes;
        let mut sets = most.min(SETS_MAX.into());
        while sets > 0 && data_offset(sets) + sets * set_bytes > capacity {
            sets -= 1;
        }
        if sets == 0 {
            let needed = data_offset(1) + set_bytes;
            return Err(DeviceError::new(format!(
                "cache size: {capacity} bytes are too few for one set of {WAYS} lines of \
                 {line_size} and the cache's own records; at least {needed} bytes are needed"
            )));
        }
        Ok(Self {
            capacity,
            line_size,
            sets: sets as u32,
            activity_offset,
            activity_pages,
            journal_offset,
            journal_blocks,
            table_offset,
            table_pages: table_pages(sets) as u32,
            sets_per_page,
            data_offset: data_offset(sets),
        })
    }

    /// Whether a layout that was read makes sense: its parts in order, none over another, all of
    /// them within the device. What passes can be computed with: nothing overflows.
    ///
    /// # Errors
    /// What is wrong, as words behind "a Forebay cache with".
    pub fn check(&self) -> Result<(), String> {
        let page = PAGE_SIZE as u64;
        if i64::try_from(self.capacity).is_err() {
            return Err(format!("capacity {}: more than a device can have", self.capacity));
        }
        let positive = [
            ("sets", self.sets),
            ("activity pages", self.activity_pages),
            ("journal blocks", self.journal_blocks),
            ("line table pages", self.table_pages),
        ];
        if let Some((name, _)) = positive.iter().find(|(_, number)| *number == 0) {
            return Err(format!("{name} 0: must be at least 1"));
        }
        if self.sets > SETS_MAX {
            return Err(format!("sets {}: must be at most {SETS_MAX}", self.sets));
        }
        if !self.journal_blocks.is_multiple_of(2) {
            return Err(format!("journal blocks {}: must be even", self.journal_blocks));
        }
        let sets_per_page = sets_per_page(self.line_size);
        if self.sets_per_page != sets_per_page {
            let found = self.sets_per_page;
            return Err(format!("sets per page {found}: must be {sets_per_page}"));
        }
        if u64::from(self.table_pages) * u64::from(sets_per_page) < u64::from(self.sets) {
            let (found, sets) = (self.table_pages, self.sets);
            return Err(format!("line table pages {found}: too few for {sets} sets"));
        }
        // Each part's name, start and length. Lengths are below 2^50, so sums cannot overflow.
        let parts = [
            ("activity", self.activity_offset, 2 * pages(self.activity_pages.into())),
            ("journal", self.journal_offset, pages(self.journal_blocks.into())),
            ("line table", self.table_offset, pages(self.table_pages.into())),
            ("data", self.data_offset, self.data_length()),
        ];
        let mut least = 2 * SUPERBLOCK_REGION;
        for (name, offset, length) in parts {
            if offset < least || offset > self.capacity || !offset.is_multiple_of(page) {
                return Err(format!(
                    "{name} offset {offset}: must be a multiple of {page} from {least} to {}",
                    self.capacity
                ));
            }
            least = offset + length;
        }
        if least > self.capacity {
            return Err(format!("capacity {}: the parts need {least} bytes", self.capacity));
        }
        Ok(())
    }

    /// Where the superblock of this sequence number stands: they alternate.
    pub const fn superblock_offset(sequence: u64) -> u64 {
        sequence % 2 * SUPERBLOCK_REGION
    }

    /// Where a copy (0 or 1) of an activity page stands. The first copies of all pages lie
    /// together, so that a bad spot of the medium does not take both of one.
    pub const fn activity_page_offset(&self, page: u32, copy: u32) -> u64 {
        self.activity_offset + pages(copy as u64 * self.activity_pages as u64 + page as u64)
    }

    /// Where the journal block of this sequence number stands.
    pub const fn journal_block_offset(&self, sequence: u64) -> u64 {
        self.journal_offset + pages(sequence % self.journal_blocks as u64)
    }

    /// Where a page of the line table stands.
    pub const fn table_page_offset(&self, page: u32) -> u64 {
        self.table_offset + pages(page as u64)
    }

    /// The page of the line table that holds a set, and the set's place in it.
    pub const fn table_place(&self, set: u32) -> (u32, u32) {
        (set / self.sets_per_page, set % self.sets_per_page)
    }

    /// Extents that the activity pages hold together.
    pub const fn activity_extents(&self) -> u32 {
        self.activity_pages * (EXTENTS_PER_PAGE - 1)
    }

    /// Bytes of all slots.
    pub const fn data_length(&self) -> u64 {
        self.sets as u64 * set_bytes(self.line_size)
    }

    /// Bytes of the flat address space: as many lines as the tags of this many sets can tell.
    pub const fn flat_length(&self) -> u64 {
        // Devices above 64 TiB have more than a u64 can tell.
        LineMap::lines_for(self.sets).saturating_mul(self.line_size.bytes())
    }
}

/// Sets of lines of `line_size` that a page of the line table holds: 3 to 21.
pub const fn sets_per_page(line_size: LineSize) -> u32 {
    let blocks = (line_size.bytes() / BLOCK_SIZE) as usize;
    ((PAGE_SIZE - PAGE_HEADER) / (WAYS * (8 + 4 * blocks))) as u32
}

const fn set_bytes(line_size: LineSize) -> u64 {
    line_size.bytes() * WAYS as u64
}

/// `count` pages in bytes.
const fn pages(count: u64) -> u64 {
    count * PAGE_SIZE as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    type Damage = fn(&mut Layout);

    fn sizes() -> impl Iterator<Item = u64> {
        let powers = (20..=50).map(|power| 1 << power);
        let odd = [1_000_000 - 64, (1 << 28) - 512, (1 << 28) + 512, 480_103_981_056];
        powers.chain(odd).chain([i64::MAX as u64])
    }

    #[test]
    fn every_part_is_aligned_within_the_device_and_over_no_other() {
        for line_size in LineSize::ALL {
            for capacity in sizes() {
                let Ok(layout) = Layout::for_device(capacity, line_size) else {
                    assert!(capacity <= 1 << 20 && line_size.bytes() > 16384, "{capacity}");
                    continue;
                };
                layout.check().expect("what is computed is accepted");
                let alignment = if capacity < 256 << 20 { 64 << 10 } else { 1 << 20 };
                assert!(layout.data_offset.is_multiple_of(alignment), "{layout:?}");
                assert!((256..65536 + 508).contains(&layout.activity_extents()), "{layout:?}");
                let waste = capacity - layout.data_offset - layout.data_length();
                let full = layout.sets == SETS_MAX;
                assert!(full || waste < set_bytes(line_size) + (1 << 20), "{waste} in {layout:?}");
            }
        }
    }

    #[test]
    fn as_many_sets_as_fit_and_not_one_more() {
        let set = set_bytes(LineSize::default());
        let fitting = Layout::for_device(1 << 30, LineSize::default()).expect("fits");
        let end = fitting.data_offset + fitting.data_length();
        assert!(end <= 1 << 30 && end + set > 1 << 30, "{fitting:?}");
    }

    #[test]
    fn a_device_that_is_too_small_is_told_what_is_needed() {
        for line_size in LineSize::ALL {
            for capacity in [0, 512, 64 << 10] {
                let refusal = Layout::for_device(capacity, line_size).expect_err("too small");
                let text = refusal.to_string();
                let needed =
                    text.rsplit("at least ").next().and_then(|rest| rest.split(' ').next());
                let needed: u64 = needed.expect("a number").parse().expect("a number");
                assert_eq!(Layout::for_device(needed, line_size).expect("fits").sets, 1);
                assert!(Layout::for_device(needed - 512, line_size).is_err(), "{text}");
            }
        }
        assert_eq!(Layout::for_device(1 << 20, LineSize::default()).expect("fits").sets, 2);
    }

    #[test]
    fn a_layout_that_makes_no_sense_is_refused_by_name() {
        let good = Layout::for_device(1 << 30, LineSize::default()).expect("fits");
        let damages: [(&str, Damage); 13] = [
            ("capacity", |layout| layout.capacity = u64::MAX),
            ("capacity", |layout| layout.capacity = layout.data_offset + 4096),
            ("sets 0", |layout| layout.sets = 0),
            ("sets 268435457", |layout| layout.sets = SETS_MAX + 1),
            ("sets per page", |layout| layout.sets_per_page = 0),
            ("journal blocks", |layout| layout.journal_blocks = 31),
            ("activity pages", |layout| layout.activity_pages = 0),
            ("line table pages", |layout| layout.table_pages -= 1),
            ("activity offset", |layout| layout.activity_offset = 65536),
            ("journal offset", |layout| layout.journal_offset -= 4096),
            ("line table offset", |layout| layout.table_offset = u64::MAX),
            ("line table offset", |layout| layout.table_offset += 512),
            ("data offset", |layout| layout.data_offset = layout.table_offset),
        ];
        for (word, damage) in damages {
            let mut layout = good;
            damage(&mut layout);
            let refusal = layout.check().expect_err(word);
            assert!(refusal.starts_with(word), "{word}: {refusal}");
        }
    }

    #[test]
    fn places_lie_within_their_parts() {
        let layout = Layout::for_device(64 << 30, LineSize::default()).expect("fits");
        let last = layout.activity_pages - 1;
        assert_eq!(layout.activity_page_offset(0, 0), layout.activity_offset);
        assert_eq!(layout.activity_page_offset(last, 1) + 4096, layout.journal_offset);
        let blocks = u64::from(layout.journal_blocks);
        assert_eq!(layout.journal_block_offset(5 * blocks), layout.journal_offset);
        assert_eq!(layout.journal_block_offset(blocks - 1) + 4096, layout.table_offset);
        let (page, place) = layout.table_place(layout.sets - 1);
        assert!(page == layout.table_pages - 1 && place < layout.sets_per_page);
        assert!(layout.flat_length() <= u64::from(layout.sets) << 36);
        assert!(layout.flat_length() >= u64::from(layout.sets) << 34);
        let huge = Layout::for_device(1 << 50, LineSize::ALL[4]).expect("fits");
        assert_eq!((huge.sets, huge.flat_length()), (SETS_MAX, u64::MAX));
        assert_eq!(Layout::superblock_offset(6), 0);
        assert_eq!(Layout::superblock_offset(7), SUPERBLOCK_REGION);
    }
}
