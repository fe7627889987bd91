//! CRC32C (Castagnoli, reflected, as iSCSI, NVMe/TCP and ext4 have it) of bytes and of buffers: the
//! one implementation in this workspace.
//!
//! ```text
//!   &[u8] ──────────────────────────────────────────────▶ Crc32c
//!   Buffer ──the only view of its block: as they lie────▶
//!      └─────other views: whole blocks as they lie, each byte read once;
//!                         the rest 4 KiB at a time over the stack────────▶
//! ```
//! Why two ways: a checksum wants a `&[u8]`, under which nothing may change, and a kernel operation
//! may be writing to a buffer that has other views. An operation holds a view of whatever it
//! touches until it has ended, so a buffer that is its block's only view has nobody who writes
//! to it. The bytes of others are read by volatile reads where the processor has an algorithm of
//! ours, else copied first, at about 40 ns for 4 KiB: if they do change meanwhile, the checksum is
//! that of what was read, and no more harm is done than that.
//!
//! Absent: other polynomials.

use std::mem::MaybeUninit;

use super::Buffer;
#[cfg(target_arch = "x86_64")]
use super::crc32c_avx512;

/// Bytes that one checksum of [`Buffer::crc32c_blocks`] is over.
pub const CHECKSUM_BLOCK: usize = 4096;

/// A running CRC32C.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Crc32c(u32);

impl Crc32c {
    /// That of no bytes.
    pub const fn new() -> Self {
        Self(0)
    }

    /// That of all bytes so far.
    pub const fn value(self) -> u32 {
        self.0
    }

    /// Goes on over `bytes`.
    #[must_use]
    pub fn update(self, bytes: &[u8]) -> Self {
        #[cfg(target_arch = "x86_64")]
        if bytes.len() >= crc32c_avx512::BLOCK && crc32c_avx512::is_available() {
            let (blocks, rest) = bytes.as_chunks::<{ crc32c_avx512::BLOCK }>();
            let register = blocks.iter().fold(!self.0, |register, block| {
                // SAFETY: the processor has all that it needs, which was just asked; nobody writes
                // to a slice.
                unsafe { crc32c_avx512::update::<false>(register, block.as_ptr()) }
            });
            return Self(!register).update_any(rest);
        }
        self.update_any(bytes)
    }

    fn update_any(self, bytes: &[u8]) -> Self {
        if self.0 == 0 {
            // No bytes, or bytes with this checksum: the register is the same.
            return Self(crc_fast::crc32_iscsi(bytes));
        }
        // The register holds the complement of the checksum of what has passed.
        let register = u64::from(!self.0);
        let algorithm = crc_fast::CrcAlgorithm::Crc32Iscsi;
        let mut digest = crc_fast::Digest::new_with_init_state(algorithm, register);
        digest.update(bytes);
        // A checksum of 32 bits in a type for up to 64.
        Self(digest.finalize() as u32)
    }

    /// Goes on over a buffer's bytes.
    #[must_use]
    pub fn update_buffer(self, buffer: &Buffer) -> Self {
        self.update_range(buffer, 0, buffer.len())
    }

    /// Goes on over `length` bytes of `buffer` from `offset`. No view is made for them, which would
    /// keep the buffer from being its block's only one.
    fn update_range(self, buffer: &Buffer, offset: usize, length: usize) -> Self {
        assert!(
            offset <= buffer.len() && length <= buffer.len() - offset,
            "checksum of {offset}+{length} of a buffer of {}",
            buffer.len()
        );
        if buffer.is_unique() {
            // SAFETY: the range is within the view (just checked), initialised, and alive while
            // `buffer` is borrowed. Nothing writes to it meanwhile: this is the block's only view;
            // a kernel operation holds a view of its own from submission to completion
            // (`reactor::slots`), so none is in flight; buffers are not `Send`, so no other thread
            // has one; and on this thread only `update` runs, which sees nothing but the slice.
            let bytes = unsafe { std::slice::from_raw_parts(buffer.as_ptr().add(offset), length) };
            return self.update(bytes);
        }
        let (mut crc, mut done) = self.update_shared_blocks(buffer, offset, length);
        // Not set to zero first, which would take as long as the copy.
        let mut chunk = MaybeUninit::<[u8; CHECKSUM_BLOCK]>::uninit();
        while done < length {
            let part = CHECKSUM_BLOCK.min(length - done);
            // SAFETY: the part is within the range that was checked, as long as the chunk at the
            // most, and the copy initialises just what is then looked at. The chunk is this
            // function's own. The source is not borrowed; see `Buffer::copy_to_slice`.
            let bytes = unsafe {
                let from = buffer.as_ptr().add(offset + done);
                let to = chunk.as_mut_ptr().cast::<u8>();
                std::ptr::copy_nonoverlapping(from, to, part);
                std::slice::from_raw_parts(to, part)
            };
            crc = crc.update(bytes);
            done += part;
        }
        crc
    }

    /// Goes on over whole blocks where they lie, whoever writes to them, as long as the processor
    /// can, and says over how many bytes. The range is within the buffer.
    #[cfg(target_arch = "x86_64")]
    fn update_shared_blocks(self, buffer: &Buffer, offset: usize, length: usize) -> (Self, usize) {
        let start = buffer.as_ptr().wrapping_add(offset);
        let blocks = length / crc32c_avx512::BLOCK;
        let is_aligned = start.addr().is_multiple_of(crc32c_avx512::VECTOR);
        if blocks == 0 || !is_aligned || !crc32c_avx512::is_available() {
            return (self, 0);
        }
        let register = (0..blocks).fold(!self.0, |register, block| {
            // SAFETY: the processor has all that it needs, the blocks are within the buffer's
            // memory, which is initialised and alive while it is borrowed, and they are aligned as
            // their start is.
            unsafe {
                let block = start.add(block * crc32c_avx512::BLOCK);
                crc32c_avx512::update::<true>(register, block)
            }
        });
        (Self(!register), blocks * crc32c_avx512::BLOCK)
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn update_shared_blocks(self, _: &Buffer, _: usize, _: usize) -> (Self, usize) {
        (self, 0)
    }
}

impl Buffer {
    /// CRC32C of all its bytes.
    pub fn crc32c(&self) -> u32 {
        Crc32c::new().update_buffer(self).value()
    }

    /// CRC32C of each block of [`CHECKSUM_BLOCK`] bytes from `offset` on, one for each place in
    /// `checksums`. The last block may be shorter: it ends with the buffer.
    ///
    /// Quicker for a buffer that is the only view of its memory ([`Buffer::is_unique`]).
    ///
    /// # Panics
    /// When a block has not even one byte.
    #[track_caller]
    pub fn crc32c_blocks(&self, offset: usize, checksums: &mut [u32]) {
        let mut at = offset;
        for checksum in checksums {
            assert!(at < self.len(), "a block's checksum at {at} of a buffer of {}", self.len());
            let length = CHECKSUM_BLOCK.min(self.len() - at);
            *checksum = Crc32c::new().update_range(self, at, length).value();
            at += length;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::BufferPool;

    /// One bit after the other, as the polynomial says.
    fn by_definition(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(u32::MAX, |register, byte| {
            (0..8).fold(register ^ u32::from(*byte), |register, _| {
                (register >> 1) ^ if register & 1 == 1 { 0x82F6_3B78 } else { 0 }
            })
        })
    }

    fn noise(length: usize) -> Vec<u8> {
        (0..length as u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect()
    }

    #[test]
    fn the_check_values() {
        // The CRC catalogue's check of CRC-32/ISCSI, and RFC 3720 §B.4.
        assert_eq!(Crc32c::new().update(b"123456789").value(), 0xE306_9283);
        assert_eq!(Crc32c::new().update(&[0; 32]).value(), 0x8A91_36AA);
        assert_eq!(Crc32c::new().update(&[0xFF; 32]).value(), 0x62A8_AB43);
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn blocks_agree_with_the_definition_wherever_they_stand_and_whatever_was_before() {
        if !crc32c_avx512::is_available() {
            println!("skipped: the processor has no carry-less multiplication of 512 bits");
            return;
        }
        let bytes = noise(3 * CHECKSUM_BLOCK + 100);
        for start in [0, 1, 8, 63, 100] {
            let before = Crc32c::new().update_any(&bytes[..start]);
            for length in [4096, 4097, 8192, 12_188] {
                let whole = by_definition(&bytes[..start + length]);
                assert_eq!(before.update(&bytes[start..start + length]).value(), whole);
            }
        }
        // Each bit of a block has its own share in the checksum.
        let mut block = [0; CHECKSUM_BLOCK];
        for bit in 0..8 * CHECKSUM_BLOCK {
            block[bit / 8] = 1 << (bit % 8);
            let expected = Crc32c::new().update_any(&block).value();
            assert_eq!(Crc32c::new().update(&block).value(), expected, "bit {bit}");
            block[bit / 8] = 0;
        }
    }

    #[test]
    fn every_length_and_start_agrees_with_the_definition() {
        let bytes = noise(1100);
        for start in [0, 1, 7, 63] {
            for end in start..bytes.len() {
                let part = &bytes[start..end];
                assert_eq!(
                    Crc32c::new().update(part).value(),
                    by_definition(part),
                    "{start} {end}"
                );
            }
        }
        let large = noise(65_536 + 5);
        assert_eq!(Crc32c::new().update(&large).value(), by_definition(&large));
    }

    #[test]
    fn parts_one_after_the_other_are_the_same_as_the_whole() {
        let bytes = noise(9000);
        let whole = by_definition(&bytes);
        for cut in [0, 1, 15, 16, 255, 256, 4095, 4096, 4097, 8999, 9000] {
            let (first, second) = bytes.split_at(cut);
            assert_eq!(Crc32c::new().update(first).update(second).value(), whole, "{cut}");
        }
        // Four bytes that leave nothing in the register.
        let crc = Crc32c::new().update(&[0xFF; 4]);
        assert_eq!(crc.value(), by_definition(&[0xFF; 4]));
        assert_eq!(crc.update(b"12345").value(), by_definition(b"\xFF\xFF\xFF\xFF12345"));
    }

    #[test]
    fn blocks_of_a_buffer_whether_or_not_there_are_other_views() {
        let bytes = noise(3 * CHECKSUM_BLOCK + 512);
        let buffer = BufferPool::heap().allocate(bytes.len());
        buffer.copy_from_slice(&bytes);
        let mut alone = [0; 4];
        buffer.crc32c_blocks(0, &mut alone);
        let expected: Vec<_> = bytes.chunks(CHECKSUM_BLOCK).map(by_definition).collect();
        assert_eq!(alone, *expected);
        assert_eq!(buffer.crc32c(), by_definition(&bytes));

        let aligned = buffer.slice(64, 8192 + 100);
        assert_eq!(aligned.crc32c(), by_definition(&bytes[64..64 + 8192 + 100]));
        let before = Crc32c::new().update(&bytes[..64]).update_buffer(&aligned);
        assert_eq!(before.value(), by_definition(&bytes[..64 + 8192 + 100]));
        let other = buffer.slice(100, 9000);
        let mut beside = [0; 2];
        buffer.crc32c_blocks(2 * CHECKSUM_BLOCK, &mut beside);
        assert_eq!(beside, expected[2..]);
        assert_eq!(other.crc32c(), by_definition(&bytes[100..9100]));
    }

    #[test]
    #[should_panic(expected = "a block's checksum at 8192 of a buffer of 8192")]
    fn more_blocks_than_there_are_panic() {
        BufferPool::heap().allocate(2 * CHECKSUM_BLOCK).crc32c_blocks(0, &mut [0; 3]);
    }
}
