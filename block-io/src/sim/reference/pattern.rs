//! Bytes that say where they belong: every sector of every write is unique and tells its write
//! and its offset, so that a wrong byte in a test names its origin.

use crate::sim::random::mix;
use crate::{Buffer, SECTOR_SIZE};

const SECTOR: usize = SECTOR_SIZE as usize;
const WORD: usize = 8;
/// First word of a stamped sector.
const MAGIC: u64 = u64::from_le_bytes(*b"forebay\x01");

/// What each word of a stamped sector's body is more than its first.
const STEPS: [u64; SECTOR / WORD] = {
    let mut steps = [0_u64; SECTOR / WORD];
    let mut index = 1;
    while index < steps.len() {
        steps[index] = steps[index - 1].wrapping_add(0x9E37_79B9_7F4A_7C15);
        index += 1;
    }
    steps
};
/// First word of the body; before it stand the magic number, the write and the offset.
const BODY: usize = 3;

/// The value of a sector: a hash of its bytes, 0 for zeroes.
pub(super) fn stamp(sector: &[u8]) -> u64 {
    let (words, rest) = sector.as_chunks::<WORD>();
    debug_assert!(rest.is_empty(), "sectors are of whole words");
    let word = |index: usize| u64::from_le_bytes(words[index]);
    // What the simulation reads most is told without a chain of multiplications: its own pattern,
    // whole, and zeroes.
    if words.len() == SECTOR / WORD && (word(0) == MAGIC || word(0) == 0) {
        if word(0) == 0 && words.iter().fold(0, |any, word| any | u64::from_le_bytes(*word)) == 0 {
            return 0;
        }
        let body = body(word(1), word(2));
        let mut differs = 0;
        for (word, step) in words[BODY..].iter().zip(&STEPS[BODY..]) {
            differs |= u64::from_le_bytes(*word).wrapping_sub(*step) ^ body;
        }
        if word(0) == MAGIC && differs == 0 {
            return mix(body) | 1;
        }
    }
    let (mut hash, mut any) = (0x6A09_E667_F3BC_C908_u64, 0);
    for word in words {
        let word = u64::from_le_bytes(*word);
        any |= word;
        // Odd multipliers lose nothing, the rotation brings high bits down.
        hash = (hash ^ word).wrapping_mul(0x9FB2_1C65_1E98_DF25).rotate_left(29);
    }
    if any == 0 { 0 } else { mix(hash) | 1 }
}

const fn body(write_id: u64, offset: u64) -> u64 {
    mix(write_id ^ mix(offset))
}

/// The bytes of the sector at `offset` of the device in the write `write_id`.
pub(super) fn sector(write_id: u64, offset: u64) -> [u8; SECTOR] {
    let mut words = [0_u64; SECTOR / WORD];
    let body = body(write_id, offset);
    for (word, step) in words.iter_mut().zip(STEPS) {
        *word = body.wrapping_add(step);
    }
    [words[0], words[1], words[2]] = [MAGIC, write_id, offset];
    let mut bytes = [0; SECTOR];
    for (bytes, word) in bytes.as_chunks_mut::<WORD>().0.iter_mut().zip(words) {
        *bytes = word.to_le_bytes();
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
