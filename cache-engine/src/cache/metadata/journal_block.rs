//! A block of the journal: what has changed about some slots.
//!
//! ```text
//!   0     4          20        28    36      38     40       44
//!   magic format id  sequence  run   count   bytes  CRC32C   records, packed …      zeroes … 4096
//!   u32   16 bytes   u64       u64   u16     u16    u32
//!
//!   record: slot u32 | entry u32 | valid u16 | changed u16 | CRC32C u32 for each changed block
//! ```
//! Sequence numbers are consecutive. A *run* is one use of the cache from start to stop; its number
//! is higher than that of every run before. What a run wrote behind a block that was lost is left
//! on the device with the sequence numbers that the next run uses too: its lower run gives it away.
//!
//! Absent: the ring, and when a block is written.

use super::{FormatId, PAGE_SIZE, u16_at, u32_at, u64_at};
use crate::cache::blocks::{BLOCKS_MAX, BlockSet};
use crate::cache::entry::Entry;
use crate::cache::index::Slot;

const MAGIC: u32 = u32::from_le_bytes(*b"FBJB");
const CHECKSUM_AT: usize = 40;
const RECORDS_AT: usize = 44;
/// Bytes of a record without its checksums.
const RECORD: usize = 12;

/// Checksums by block of a line.
pub(crate) type Checksums = [u32; BLOCKS_MAX];

/// What is to be known about a slot from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) slot: Slot,
    pub(crate) entry: Entry,
    /// The blocks that may be served.
    pub(crate) valid: BlockSet,
    /// The blocks whose checksums come with it; of the others what was known stays.
    pub(crate) changed: BlockSet,
    /// Those of `changed`; the others are unspecified.
    pub(crate) checksums: Checksums,
}

impl Record {
    /// Of a slot that nothing is known of, to be filled in.
    pub(crate) const EMPTY: Self = Self {
        slot: Slot(0),
        entry: Entry(0),
        valid: BlockSet::EMPTY,
        changed: BlockSet::EMPTY,
        checksums: [0; BLOCKS_MAX],
    };
}

/// A block that is being filled.
pub(crate) struct Writer {
    bytes: [u8; PAGE_SIZE],
    length: usize,
    count: u16,
}

impl Writer {
    pub(crate) fn new() -> Self {
        Self { bytes: [0; PAGE_SIZE], length: RECORDS_AT, count: 0 }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Adds a record; false when there is no room for it.
    pub(crate) fn push(&mut self, record: &Record) -> bool {
        let end = self.length + RECORD + 4 * record.changed.count() as usize;
        if end > PAGE_SIZE {
            return false;
        }
        let field = &mut self.bytes[self.length..end];
        field[..4].copy_from_slice(&record.slot.0.to_le_bytes());
        field[4..8].copy_from_slice(&record.entry.0.to_le_bytes());
        field[8..10].copy_from_slice(&record.valid.0.to_le_bytes());
        field[10..12].copy_from_slice(&record.changed.0.to_le_bytes());
        let (checksums, _) = field[RECORD..].as_chunks_mut::<4>();
        for (field, block) in checksums.iter_mut().zip(record.changed.iter()) {
            *field = record.checksums[block].to_le_bytes();
        }
        self.length = end;
        self.count += 1;
        true
    }

    /// The block as it is written.
    pub(crate) fn finish(
        mut self,
        format_id: FormatId,
        sequence: u64,
        run: u64,
    ) -> [u8; PAGE_SIZE] {
        let bytes = &mut self.bytes;
        bytes[..4].copy_from_slice(&MAGIC.to_le_bytes());
        bytes[4..20].copy_from_slice(&format_id.0);
        bytes[20..28].copy_from_slice(&sequence.to_le_bytes());
        bytes[28..36].copy_from_slice(&run.to_le_bytes());
        bytes[36..38].copy_from_slice(&self.count.to_le_bytes());
        bytes[38..40].copy_from_slice(&((self.length - RECORDS_AT) as u16).to_le_bytes());
        let checksum = checksum(bytes);
        bytes[CHECKSUM_AT..RECORDS_AT].copy_from_slice(&checksum.to_le_bytes());
        self.bytes
    }
}

/// The records of a block, which is sound.
pub(crate) struct Records<'bytes> {
    bytes: &'bytes [u8],
    count: u16,
}

/// The run of a block, and its records; none when it is not the block of this format and sequence
/// number as it was written.
pub(crate) fn read(
    bytes: &[u8; PAGE_SIZE],
    format_id: FormatId,
    sequence: u64,
) -> Option<(u64, Records<'_>)> {
    let ours = u32_at(bytes, 0) == MAGIC
        && bytes[4..20] == format_id.0
        && u64_at(bytes, 20) == sequence
        && u32_at(bytes, CHECKSUM_AT) == checksum(bytes);
    let length = usize::from(u16_at(bytes, 38));
    if !ours || length > PAGE_SIZE - RECORDS_AT {
        return None;
    }
    let records =
        Records { bytes: &bytes[RECORDS_AT..RECORDS_AT + length], count: u16_at(bytes, 36) };
    // Nobody is to be handed records of a block that turns out to be none.
    (0..records.count).try_fold(records.bytes, |rest, _| rest.get(record_bytes(rest)?..))?;
    Some((u64_at(bytes, 28), records))
}

impl Records<'_> {
    /// Hands over those of `slots`, in order; the others cost next to nothing.
    pub(crate) fn of(&self, slots: std::ops::Range<u64>, mut take: impl FnMut(&Record)) {
        let (mut record, mut rest) = (Record::EMPTY, self.bytes);
        for _ in 0..self.count {
            let Some((bytes, behind)) = record_bytes(rest).map(|bytes| rest.split_at(bytes)) else {
                return;
            };
            rest = behind;
            record.slot = Slot(u32_at(bytes, 0));
            if slots.contains(&u64::from(record.slot.0)) {
                record.entry = Entry(u32_at(bytes, 4));
                record.valid = BlockSet(u16_at(bytes, 8));
                record.changed = BlockSet(u16_at(bytes, 10));
                let (checksums, _) = bytes[RECORD..].as_chunks::<4>();
                for (field, block) in checksums.iter().zip(record.changed.iter()) {
                    record.checksums[block] = u32::from_le_bytes(*field);
                }
                take(&record);
            }
        }
    }

    /// Hands over all of them, in order.
    pub(crate) fn all(&self, take: impl FnMut(&Record)) {
        self.of(0..u64::MAX, take);
    }
}

/// Bytes of the record that `rest` begins with, if it can be one.
fn record_bytes(rest: &[u8]) -> Option<usize> {
    let changed = rest.get(..RECORD).map(|fixed| BlockSet(u16_at(fixed, 10)))?;
    Some(RECORD + 4 * changed.count() as usize).filter(|bytes| *bytes <= rest.len())
}

fn checksum(bytes: &[u8; PAGE_SIZE]) -> u32 {
    let front = block_io::Crc32c::new().update(&bytes[..CHECKSUM_AT]);
    front.update(&bytes[RECORDS_AT..]).value()
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORMAT: FormatId = FormatId([7; 16]);

    fn record(slot: u32, changed: u16) -> Record {
        let mut checksums = [0; BLOCKS_MAX];
        BlockSet(changed).iter().for_each(|block| checksums[block] = slot ^ block as u32);
        let changed = BlockSet(changed);
        Record { slot: Slot(slot), entry: Entry(!slot), valid: changed, changed, checksums }
    }

    fn found(bytes: &[u8; PAGE_SIZE], sequence: u64) -> Option<(u64, Vec<Record>)> {
        let mut records = Vec::new();
        let (run, found) = read(bytes, FORMAT, sequence)?;
        found.all(|found| {
            let unspecified = BlockSet(!found.changed.0);
            records.push(*found);
            let last = records.len() - 1;
            unspecified.iter().for_each(|block| records[last].checksums[block] = 0);
        });
        Some((run, records))
    }

    #[test]
    fn records_read_as_they_were_written_and_fill_the_block() {
        let mut writer = Writer::new();
        let mut written = Vec::new();
        while writer.push(&record(written.len() as u32, written.len() as u16)) {
            written.push(record(written.len() as u32, written.len() as u16));
        }
        assert!(written.len() > 100, "{} records", written.len());
        let bytes = writer.finish(FORMAT, 9, 4);
        assert_eq!(found(&bytes, 9), Some((4, written)));
        assert_eq!(found(&bytes, 8), None, "another lap's");
        assert!(read(&bytes, FormatId([8; 16]), 9).is_none());
        assert_eq!(found(&[0; PAGE_SIZE], 0), None);
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let mut writer = Writer::new();
        assert!(writer.is_empty() && writer.push(&record(1, 0xF0F0)) && !writer.is_empty());
        let block = writer.finish(FORMAT, 9, 4);
        for bit in (0..PAGE_SIZE * 8).step_by(5) {
            let mut damaged = block;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(found(&damaged, 9), None, "bit {bit}");
        }
    }

    #[test]
    fn lengths_that_make_no_sense_do_not_panic() {
        for (at, value) in [(36, 0xFFFF_u16), (38, 0xFFFF), (38, 3), (RECORDS_AT + 10, 0xFFFF)] {
            let mut writer = Writer::new();
            assert!(writer.push(&record(1, 1)));
            let mut bytes = writer.finish(FORMAT, 9, 4);
            bytes[at..at + 2].copy_from_slice(&value.to_le_bytes());
            let checksum = checksum(&bytes);
            bytes[CHECKSUM_AT..RECORDS_AT].copy_from_slice(&checksum.to_le_bytes());
            assert_eq!(found(&bytes, 9), None, "byte {at}");
        }
    }
}
