//! Header and data digests: CRC32C over bytes as they pass.
//!
//! Absent: what a mismatch means; it is the connection's end for a header and the command's for
//! data.

use block_io::Buffer;

/// Bytes of a digest on the wire, little-endian. NVMe/TCP Transport 1.1 §3.3.1.1
pub(super) const DIGEST_LENGTH: usize = 4;

/// How much is looked at in one go. Buffer memory is never borrowed as a slice, so bytes come over
/// in pieces that stay in the first-level cache.
const CHUNK: usize = 4096;

/// Which digests a connection uses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Digests {
    /// HDGST: on every header.
    pub header: bool,
    /// DDGST: on every PDU's data.
    pub data: bool,
}

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
        Self(crc32c::crc32c_append(self.0, bytes))
    }

    /// Goes on over a buffer's bytes.
    #[must_use]
    pub fn update_buffer(self, buffer: &Buffer) -> Self {
        let mut crc = self;
        let mut chunk = [0; CHUNK];
        let mut offset = 0;
        while offset < buffer.len() {
            let length = CHUNK.min(buffer.len() - offset);
            buffer.slice(offset, length).copy_to_slice(&mut chunk[..length]);
            crc = crc.update(&chunk[..length]);
            offset += length;
        }
        crc
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use block_io::BufferPool;

    #[test]
    fn the_check_value() {
        // The CRC catalogue's check of CRC-32/ISCSI.
        assert_eq!(Crc32c::new().update(b"123456789").value(), 0xE306_9283);
    }

    #[test]
    fn over_a_buffer_in_parts_is_the_same_as_over_the_bytes() {
        let bytes: Vec<u8> = (0..20_000_u32).map(|n| ((n * 31) >> 3) as u8).collect();
        let buffer = BufferPool::heap().allocate(bytes.len());
        buffer.copy_from_slice(&bytes);
        let whole = Crc32c::new().update(&bytes);
        assert_eq!(Crc32c::new().update_buffer(&buffer), whole);
        let parts = Crc32c::new()
            .update_buffer(&buffer.slice(0, 4097))
            .update_buffer(&buffer.slice(4097, 15_903));
        assert_eq!(parts, whole);
    }
}
