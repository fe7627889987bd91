//! The first block of a cache device: what tells it from anybody else's disk.
//!
//! ```text
//!   byte 0        8        12       16       24           40       48              4092  4096
//!        magic    version  line     capacity identity     data     zeroes …        CRC32C
//!        8        u32      u32      u64      16 bytes     u64                      u32
//! ```
//! Little-endian. This version records no cached lines: whatever lies behind it, the cache starts
//! cold. Absent: reading and writing it, which is [`crate::volume::cache_device`]'s.

use block_io::{Crc32c, DeviceError};

use super::config::LineSize;

/// Bytes of the superblock, at offset 0.
pub const SUPERBLOCK_SIZE: usize = 4096;

/// Where the lines begin.
pub const DATA_OFFSET: u64 = 64 << 10;

/// How much of a device's start must be zero for it to count as unused: partition tables and the
/// superblocks of ext, xfs, LVM, btrfs (64 KiB) and ZFS (16 KiB to 256 KiB) lie within.
pub const PROBE_LENGTH: u64 = 1 << 20;

const MAGIC: [u8; 8] = *b"FOREBAY\0";
const VERSION: u32 = 1;
const CHECKSUM_AT: usize = SUPERBLOCK_SIZE - 4;

/// What a cache device says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Superblock {
    /// Line size it was last used with.
    pub line_size: LineSize,
    /// Bytes of the device when it was formatted.
    pub capacity: u64,
    /// Chosen at random when it was formatted.
    pub identity: [u8; 16],
}

/// What the start of a device looks like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// Nothing but zeroes: unused.
    Zeroed,
    /// A Forebay cache of this version.
    Ours(Superblock),
    /// Something else; the text says what.
    Foreign(String),
}

impl Superblock {
    /// The block as it is written.
    pub fn encode(&self) -> [u8; SUPERBLOCK_SIZE] {
        let mut block = [0; SUPERBLOCK_SIZE];
        block[..8].copy_from_slice(&MAGIC);
        block[8..12].copy_from_slice(&VERSION.to_le_bytes());
        block[12..16].copy_from_slice(&(self.line_size.bytes() as u32).to_le_bytes());
        block[16..24].copy_from_slice(&self.capacity.to_le_bytes());
        block[24..40].copy_from_slice(&self.identity);
        block[40..48].copy_from_slice(&DATA_OFFSET.to_le_bytes());
        let checksum = Crc32c::new().update(&block[..CHECKSUM_AT]).value();
        block[CHECKSUM_AT..].copy_from_slice(&checksum.to_le_bytes());
        block
    }

    /// Bytes for lines on a device of `capacity` bytes.
    ///
    /// # Errors
    /// When the device does not even hold the superblock.
    pub fn data_length(capacity: u64) -> Result<u64, DeviceError> {
        match capacity.checked_sub(DATA_OFFSET) {
            Some(length) if length > 0 => Ok(length),
            _ => Err(DeviceError::new(format!(
                "cache size: {capacity} bytes; the first {DATA_OFFSET} are the cache's own, so \
                 more than that is needed"
            ))),
        }
    }
}

/// Tells from the first bytes of a device (at least [`SUPERBLOCK_SIZE`], best [`PROBE_LENGTH`])
/// what it is used for.
pub fn probe(start: &[u8]) -> Probe {
    if start.iter().all(|byte| *byte == 0) {
        return Probe::Zeroed;
    }
    let Some(block) = start.first_chunk::<SUPERBLOCK_SIZE>() else {
        return Probe::Foreign(format!("{} bytes that are not zero", start.len()));
    };
    if block[..8] != MAGIC {
        return Probe::Foreign("data that is no Forebay cache".into());
    }
    let word =
        |at: usize| u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]]);
    let version = word(8);
    if version != VERSION {
        return Probe::Foreign(format!(
            "a Forebay cache of format version {version}; this program knows version {VERSION}"
        ));
    }
    if word(CHECKSUM_AT) != Crc32c::new().update(&block[..CHECKSUM_AT]).value() {
        return Probe::Foreign("a Forebay cache whose superblock has a wrong checksum".into());
    }
    let line_size = match LineSize::from_bytes(u64::from(word(12))) {
        Ok(line_size) => line_size,
        Err(error) => return Probe::Foreign(format!("a Forebay cache with {error}")),
    };
    let mut capacity = [0; 8];
    capacity.copy_from_slice(&block[16..24]);
    let mut identity = [0; 16];
    identity.copy_from_slice(&block[24..40]);
    Probe::Ours(Superblock { line_size, capacity: u64::from_le_bytes(capacity), identity })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn superblock() -> Superblock {
        Superblock { line_size: LineSize::default(), capacity: 1 << 30, identity: [7; 16] }
    }

    #[test]
    fn it_reads_as_it_was_written() {
        assert_eq!(probe(&superblock().encode()), Probe::Ours(superblock()));
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let block = superblock().encode();
        for bit in 0..SUPERBLOCK_SIZE * 8 {
            let mut damaged = block;
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(probe(&damaged), Probe::Foreign(_)), "bit {bit}");
        }
    }

    #[test]
    fn zeroes_are_unused_and_anything_else_is_somebodys() {
        assert_eq!(probe(&[0; 1 << 16]), Probe::Zeroed);
        assert_eq!(probe(&[]), Probe::Zeroed);
        let mut disk = [0; 8192];
        disk[8191] = 1;
        assert!(matches!(probe(&disk), Probe::Foreign(_)), "data behind a zero first block");
        assert!(matches!(probe(&[1; 100]), Probe::Foreign(_)));
        let mut newer = superblock().encode();
        newer[8] = 2;
        let Probe::Foreign(what) = probe(&newer) else { panic!("newer is refused") };
        assert!(what.contains("version 2"), "{what}");
    }

    #[test]
    fn a_device_without_room_for_lines_is_refused() {
        assert!(Superblock::data_length(DATA_OFFSET).is_err());
        assert_eq!(Superblock::data_length(DATA_OFFSET + 512).expect("room"), 512);
    }
}
