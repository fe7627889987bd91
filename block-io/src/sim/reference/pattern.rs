//! Bytes that say where they belong: every sector of every write is unique and tells its write
//! and its offset, so that a wrong byte in a test names its origin.

use crate::sim::random::mix;
use crate::{Buffer, SECTOR_SIZE};

const SECTOR: usize = SECTOR_SIZE as usize;
const WORD: usize = 8;
/// First word of a stamped sector.
const MAGIC: u64 = u64::from_le_bytes(*b"forebay\x01");

/// The value of a sector: a hash of its bytes, 0 for zeroes.
pub(super) fn stamp(sector: &[u8]) -> u64 {
    let (words, rest) = sector.as_chunks::<WORD>();
    debug_assert!(rest.is_empty(), "sectors are of whole words");
    let (mut hash, mut any) = (0x6A09_E667_F3BC_C908_u64, 0);
    for word in words {
        let word = u64::from_le_bytes(*word);
        any |= word;
        // Odd multipliers lose nothing, the rotation brings high bits down.
        hash = (hash ^ word).wrapping_mul(0x9FB2_1C65_1E98_DF25).rotate_left(29);
    }
    if any == 0 { 0 } else { mix(hash) | 1 }
}

/// The bytes of the sector at `offset` of the device in the write `write_id`.
pub(super) fn sector(write_id: u64, offset: u64) -> [u8; SECTOR] {
    let mut bytes = [0; SECTOR];
    let body = mix(write_id ^ mix(offset));
    for (index, word) in bytes.as_chunks_mut::<WORD>().0.iter_mut().enumerate() {
        let value = match index {
            0 => MAGIC,
            1 => write_id,
            2 => offset,
            _ => body.wrapping_add((index as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15)),
        };
        *word = value.to_le_bytes();
    }
    bytes
}

/// Fills `buffer`, to be written at `offset` of the device, with the pattern of `write_id`.
///
/// # Panics
/// When `offset` or the buffer's length is no multiple of 512.
pub fn fill_pattern(buffer: &Buffer, write_id: u64, offset: u64) {
    let aligned = buffer.len().is_multiple_of(SECTOR) && offset.is_multiple_of(SECTOR as u64);
    assert!(aligned, "pattern at {offset}+{}: must be whole sectors", buffer.len());
    for start in (0..buffer.len()).step_by(SECTOR) {
        let bytes = sector(write_id, offset + start as u64);
        buffer.slice(start, SECTOR).copy_from_slice(&bytes);
    }
}

/// What a sector's bytes are, for a person: zeroes, the pattern of some write, or unknown.
pub fn describe(bytes: &[u8]) -> String {
    if bytes.iter().all(|byte| *byte == 0) {
        return "zeroes".to_owned();
    }
    if let [magic, write_id, offset, ..] = bytes.as_chunks::<WORD>().0
        && bytes.len() == SECTOR
        && *magic == MAGIC.to_le_bytes()
    {
        let (write_id, offset) = (u64::from_le_bytes(*write_id), u64::from_le_bytes(*offset));
        let same = bytes.iter().zip(sector(write_id, offset)).take_while(|(a, b)| **a == *b);
        let same = same.count();
        return match same {
            SECTOR => format!("write {write_id} for offset {offset}"),
            _ => format!("write {write_id} for offset {offset}, damaged from byte {same} on"),
        };
    }
    match bytes {
        [first, rest @ ..] if rest.iter().all(|byte| byte == first) => {
            format!("all bytes {first:#04x}")
        }
        _ => format!("unknown bytes {:02x?}…", &bytes[..bytes.len().min(16)]),
    }
}
