//! The error, SMART and firmware log pages, as a controller without an own medium fills them.

use crate::spec::field::{put_text, put_u16};

/// Bytes of one error log entry. Base §5.16.1.2; all zero is an entry not in use.
pub const ERROR_ENTRY_LENGTH: usize = 64;

/// Bytes of the firmware slot log. Base §5.16.1.4.
pub const FIRMWARE_LENGTH: usize = 512;

/// SMART / health information. Base §5.16.1.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthLog {
    /// Bytes 1-2: kelvin; 0 when there is nothing to measure.
    pub temperature: u16,
    /// Byte 3: spare space left, percent.
    pub spare: u8,
    /// Byte 4: below which spare space is critical, percent.
    pub spare_threshold: u8,
    /// Bytes 48-63: 512,000-byte units written, rounded up.
    pub units_written: u128,
    /// Bytes 32-47: 512,000-byte units read, rounded up.
    pub units_read: u128,
    /// Bytes 64-79.
    pub reads: u128,
    /// Bytes 80-95.
    pub writes: u128,
}

impl HealthLog {
    /// Bytes of the page.
    pub const LENGTH: usize = 512;

    /// The 512 bytes of it.
    pub fn encode(&self) -> [u8; Self::LENGTH] {
        let mut bytes = [0; Self::LENGTH];
        put_u16(&mut bytes, 1, self.temperature);
        bytes[3] = self.spare;
        bytes[4] = self.spare_threshold;
        bytes[32..48].copy_from_slice(&self.units_read.to_le_bytes());
        bytes[48..64].copy_from_slice(&self.units_written.to_le_bytes());
        bytes[64..80].copy_from_slice(&self.reads.to_le_bytes());
        bytes[80..96].copy_from_slice(&self.writes.to_le_bytes());
        bytes
    }
}

/// The firmware log of a controller with one slot, which `revision` runs from. Base §5.16.1.4
///: AFI in byte 0, revisions of 8 bytes from byte 8.
pub fn encode_firmware_log(revision: &str) -> [u8; FIRMWARE_LENGTH] {
    let mut bytes = [0; FIRMWARE_LENGTH];
    bytes[0] = 1;
    put_text(&mut bytes, 8, 8, revision, b' ');
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_they_lie_on_the_wire() {
        let health = HealthLog {
            temperature: 0x0131,
            spare: 100,
            spare_threshold: 10,
            units_written: 2,
            units_read: 1,
            reads: 3,
            writes: 4,
        };
        let bytes = health.encode();
        assert_eq!(bytes[..5], [0, 0x31, 0x01, 100, 10]);
        assert_eq!([bytes[32], bytes[48], bytes[64], bytes[80]], [1, 2, 3, 4]);
        assert_eq!(encode_firmware_log("0.1.0")[..16], *b"\x01\0\0\0\0\0\0\x000.1.0   ");
    }
}
