//! What a device is used for, told from its first bytes: only what is unused or ours is touched.
//!
//! Absent: naming other people's formats. It is enough that they are there.

use super::layout::SUPERBLOCK_REGION;
use super::superblock::{Superblock, Undecodable, newest};
use crate::cache::config::LineSize;

/// How much of a device's start must be zero for it to count as unused: partition tables and the
/// superblocks of ext, xfs, LVM, btrfs (64 KiB) and ZFS (16 KiB to 256 KiB) lie within.
pub const PROBE_LENGTH: u64 = 1 << 20;

/// What the start of a device looks like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Probe {
    /// Nothing but zeroes: unused.
    Zeroed,
    /// A Forebay cache that this program knows; the superblock is the one that counts.
    Ours(Box<Superblock>),
    /// A Forebay cache of an earlier version, which can be upgraded. It has no lines to keep.
    Older {
        /// Its version.
        version: u32,
        /// Line size it was last used with.
        line_size: LineSize,
    },
    /// Something else; the text says what.
    Foreign(String),
}

/// How much of a device's start says whether it is a Forebay cache. What is behind matters only
/// where this is zeroes.
pub const FRONT_LENGTH: u64 = 2 * SUPERBLOCK_REGION;

impl Probe {
    /// Data that nobody here knows.
    pub fn unknown() -> Self {
        Self::Foreign(Undecodable::Foreign.to_string())
    }
}

/// Whether there is nothing but zeroes.
pub fn is_zeroed(bytes: &[u8]) -> bool {
    // In runs, so that the bytes of one need not be looked at one after another.
    bytes.chunks(1024).all(|run| run.iter().fold(0, |any, byte| any | byte) == 0)
}

/// Tells from the first [`PROBE_LENGTH`] bytes of a device, or all of a smaller one, what it is
/// used for. The first [`FRONT_LENGTH`] are enough unless they are [`Probe::Zeroed`].
pub fn probe(start: &[u8]) -> Probe {
    if is_zeroed(start) {
        return Probe::Zeroed;
    }
    let region = SUPERBLOCK_REGION as usize;
    let (first, rest) = start.split_at(region.min(start.len()));
    let second = &rest[..region.min(rest.len())];
    match newest(first, second) {
        Ok(superblock) => Probe::Ours(Box::new(superblock)),
        Err(Undecodable::Older { version, line_size }) => Probe::Older { version, line_size },
        // Zeroes where a superblock could be, but something behind.
        Err(Undecodable::Zeroed) => Probe::unknown(),
        Err(other) => Probe::Foreign(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::metadata::{FormatId, Layout};

    fn superblock(sequence: u64) -> Superblock {
        let layout = Layout::for_device(1 << 30, LineSize::default()).expect("fits");
        let mut superblock = Superblock::new(FormatId([7; 16]), layout);
        superblock.sequence = sequence;
        superblock
    }

    #[test]
    fn zeroes_are_unused_and_anything_else_is_somebodys() {
        assert_eq!(probe(&[0; 1 << 16]), Probe::Zeroed);
        assert_eq!(probe(&[]), Probe::Zeroed);
        for at in [8191, 65536, (1 << 20) - 1] {
            let mut disk = vec![0; 1 << 20];
            disk[at] = 1;
            assert!(matches!(probe(&disk), Probe::Foreign(_)), "data at byte {at}");
        }
        assert!(matches!(probe(&[1; 100]), Probe::Foreign(_)));
    }

    #[test]
    fn ours_is_found_by_either_copy() {
        let mut disk = vec![0; 1 << 20];
        for sequence in [4, 5] {
            let superblock = superblock(sequence);
            let bytes = superblock.encode();
            disk[superblock.offset() as usize..][..bytes.len()].copy_from_slice(&bytes);
            assert_eq!(probe(&disk), Probe::Ours(Box::new(superblock)));
        }
        disk[4095] ^= 1;
        assert_eq!(probe(&disk), Probe::Ours(Box::new(superblock(5))), "the first is damaged");
        disk[65536 + 100] ^= 1;
        let Probe::Foreign(what) = probe(&disk) else { panic!("both are damaged") };
        assert!(what.contains("wrong checksum"), "{what}");
    }
}
