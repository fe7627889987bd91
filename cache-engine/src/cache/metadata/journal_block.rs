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
        let checksums = field[RECORD..].chunks_exact_mut(4);
        for (field, block) in checksums.zip(record.changed.iter()) {
            field.copy_from_slice(&record.checksums[block].to_le_bytes());
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

/// The run of a block, and its records, each handed to `take`; none when it is not the block of
/// this format and sequence number as it was written. `take` may have seen records then.
pub(crate) fn decode(
    bytes: &[u8; PAGE_SIZE],
    format_id: FormatId,
    sequence: u64,
    take: impl FnMut(&Record),
) -> Option<u64> {
    decode_part(bytes, format_id, sequence, 0..u64::MAX, take)
}

/// The same, but only records of `slots` are handed to `take`; the others cost next to nothing.
pub(crate) fn decode_part(
    bytes: &[u8; PAGE_SIZE],
    format_id: FormatId,
    sequence: u64,
    slots: std::ops::Range<u64>,
    mut take: impl FnMut(&Record),
) -> Option<u64> {
    let ours = u32_at(bytes, 0) == MAGIC
        && bytes[4..20] == format_id.0
        && u64_at(bytes, 20) == sequence
        && u32_at(bytes, CHECKSUM_AT) == checksum(bytes);
    let length = usize::from(u16_at(bytes, 38));
    if !ours || length > PAGE_SIZE - RECORDS_AT {
        return None;
    }
    let mut rest = &bytes[RECORDS_AT..RECORDS_AT + length];
    for _ in 0..u16_at(bytes, 36) {
        if rest.len() < RECORD {
            return None;
        }
        let changed = BlockSet(u16_at(rest, 10));
        let end = RECORD + 4 * changed.count() as usize;
        let fields = rest.get(RECORD..end)?;
        let slot = Slot(u32_at(rest, 0));
        if slots.contains(&u64::from(slot.0)) {
            let mut checksums = [0; BLOCKS_MAX];
            for (field, block) in fields.chunks_exact(4).zip(changed.iter()) {
                checksums[block] = u32_at(field, 0);
            }
            let (entry, valid) = (Entry(u32_at(rest, 4)), BlockSet(u16_at(rest, 8)));
            take(&Record { slot, entry, valid, changed, checksums });
        }
        rest = &rest[end..];
    }
    Some(u64_at(bytes, 28))
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

    fn read(bytes: &[u8; PAGE_SIZE], sequence: u64) -> Option<(u64, Vec<Record>)> {
        let mut records = Vec::new();
        let run = decode(bytes, FORMAT, sequence, |record| records.push(*record))?;
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
        assert_eq!(read(&bytes, 9), Some((4, written)));
        assert_eq!(read(&bytes, 8), None, "another lap's");
        assert_eq!(decode(&bytes, FormatId([8; 16]), 9, |_| {}), None);
        assert_eq!(read(&[0; PAGE_SIZE], 0), None);
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let mut writer = Writer::new();
        assert!(writer.is_empty() && writer.push(&record(1, 0xF0F0)) && !writer.is_empty());
        let block = writer.finish(FORMAT, 9, 4);
        for bit in (0..PAGE_SIZE * 8).step_by(5) {
            let mut damaged = block;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(read(&damaged, 9), None, "bit {bit}");
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
            assert_eq!(read(&bytes, 9), None, "byte {at}");
        }
    }
}
