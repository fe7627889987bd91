//! A page of the activity log: which extents of 4 MiB may be being written, or were not long ago.
//!
//! ```text
//!   0          16      20        28      32                                  4088           4096
//!   format id  page    sequence  CRC32C  507 places: extent + 1, or 0        journal head
//!   16 bytes   u32     u64       u32     u64 each                            u64
//! ```
//! Each page stands on the device twice and is written to the two places in turn, so a write that
//! is cut short leaves the page before it. The journal head says how far the journal was durable
//! when the page was written: a page that no longer names an extent counts on what the journal says
//! of its lines, so a journal that ends before that point has been damaged and is not believed.
//!
//! Absent: which extents are named when, which is `cache/persistence`'s.

use super::layout::EXTENTS_PER_PAGE;
use super::{FormatId, PAGE_SIZE, array, u32_at, u64_at};

/// Extents that a page names at the most.
pub(crate) const PLACES: usize = EXTENTS_PER_PAGE as usize - 1;

/// Extents have numbers below this; higher ones are nobody's.
const EXTENT_END: u64 = 1 << 42;

const CHECKSUM_AT: usize = 28;
const PLACES_AT: usize = 32;
const HEAD_AT: usize = PAGE_SIZE - 8;
const _: () = assert!(PLACES_AT + PLACES * 8 == HEAD_AT);

/// One copy of a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ActivityPage {
    /// Higher than that of the copy before.
    pub(crate) sequence: u64,
    /// The journal was durable up to here.
    pub(crate) journal_head: u64,
    /// The extents, each in its place.
    pub(crate) places: Box<[Option<u64>]>,
}

/// What stands at a copy's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Copy {
    /// A page of this format.
    Valid(ActivityPage),
    /// Zeroes, or of another format: never written.
    Void,
    /// Not as it was written: cut short, or damaged.
    Damaged,
}

/// The page as it is written.
pub(crate) fn encode(
    format_id: FormatId,
    page: u32,
    sequence: u64,
    journal_head: u64,
    places: impl Iterator<Item = Option<u64>>,
) -> [u8; PAGE_SIZE] {
    let mut bytes = [0; PAGE_SIZE];
    bytes[..16].copy_from_slice(&format_id.0);
    bytes[16..20].copy_from_slice(&page.to_le_bytes());
    bytes[20..28].copy_from_slice(&sequence.to_le_bytes());
    let fields = bytes[PLACES_AT..HEAD_AT].chunks_exact_mut(8);
    for (field, extent) in fields.zip(places) {
        field.copy_from_slice(&extent.map_or(0, |extent| extent + 1).to_le_bytes());
    }
    bytes[HEAD_AT..].copy_from_slice(&journal_head.to_le_bytes());
    let checksum = checksum(&bytes);
    bytes[CHECKSUM_AT..PLACES_AT].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

/// Reads what stands at the place of a copy of `page`.
pub(crate) fn decode(bytes: &[u8; PAGE_SIZE], format_id: FormatId, page: u32) -> Copy {
    if bytes[..16] != format_id.0 {
        return Copy::Void;
    }
    if checksum(bytes) != u32_at(bytes, CHECKSUM_AT) || u32_at(bytes, 16) != page {
        return Copy::Damaged;
    }
    let mut places = Vec::with_capacity(PLACES);
    for field in bytes[PLACES_AT..HEAD_AT].chunks_exact(8) {
        let extent = u64::from_le_bytes(array(field, 0));
        if extent > EXTENT_END {
            return Copy::Damaged;
        }
        places.push(extent.checked_sub(1));
    }
    Copy::Valid(ActivityPage {
        sequence: u64_at(bytes, 20),
        journal_head: u64_at(bytes, HEAD_AT),
        places: places.into_boxed_slice(),
    })
}

fn checksum(bytes: &[u8; PAGE_SIZE]) -> u32 {
    let front = crc32c::crc32c(&bytes[..CHECKSUM_AT]);
    crc32c::crc32c_append(front, &bytes[PLACES_AT..])
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORMAT: FormatId = FormatId([7; 16]);

    fn page() -> [u8; PAGE_SIZE] {
        let places = (0..PLACES as u64).map(|place| (place % 3 != 1).then_some(place * 5));
        encode(FORMAT, 3, 9, 77, places)
    }

    #[test]
    fn it_reads_as_it_was_written() {
        let Copy::Valid(read) = decode(&page(), FORMAT, 3) else { panic!("valid") };
        assert_eq!((read.sequence, read.journal_head, read.places.len()), (9, 77, PLACES));
        assert_eq!(read.places[..4], [Some(0), None, Some(10), Some(15)]);
    }

    #[test]
    fn damage_is_noticed_and_another_format_is_void() {
        assert_eq!(decode(&page(), FormatId([8; 16]), 3), Copy::Void);
        assert_eq!(decode(&[0; PAGE_SIZE], FORMAT, 3), Copy::Void);
        assert_eq!(decode(&page(), FORMAT, 4), Copy::Damaged);
        for bit in (0..PAGE_SIZE * 8).step_by(7) {
            let mut damaged = page();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(!matches!(decode(&damaged, FORMAT, 3), Copy::Valid(_)), "bit {bit}");
        }
        let hostile = encode(FORMAT, 3, 9, 77, std::iter::once(Some(u64::MAX - 1)));
        assert_eq!(decode(&hostile, FORMAT, 3), Copy::Damaged);
    }
}
