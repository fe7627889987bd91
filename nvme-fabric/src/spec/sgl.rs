//! Scatter gather list descriptors: over TCP one 16-byte descriptor that says how much data there
//! is and whether it comes in the capsule or in PDUs of its own.

use super::field::{put_u32, put_u64, u32_at, u64_at};

/// SGL1 of a submission entry. Base §4.1.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptor {
    /// Bytes 0-7: for in-capsule data the offset from the capsule's data start, otherwise 0.
    pub address: u64,
    /// Bytes 8-11: bytes of data.
    pub length: u32,
    /// Byte 15: descriptor type (bits 7:4) and sub type (bits 3:0).
    pub kind: u8,
}

impl Descriptor {
    /// Data block (0h), sub type offset (1h): the data is in the capsule. NVMe/TCP
    /// Transport, "Data Transfers".
    pub const KIND_IN_CAPSULE: u8 = 0x01;
    /// Transport data block (5h), sub type Ah: the data comes in data PDUs. NVMe/TCP
    /// Transport, "Data Transfers".
    pub const KIND_TRANSPORT: u8 = 0x5a;
    /// All zero, for a command without data.
    pub const NONE: Self = Self { address: 0, length: 0, kind: 0 };

    /// `length` bytes at the start of the capsule's data.
    pub const fn in_capsule(length: u32) -> Self {
        Self { address: 0, length, kind: Self::KIND_IN_CAPSULE }
    }

    /// `length` bytes in H2CData or C2HData PDUs.
    pub const fn transport(length: u32) -> Self {
        Self { address: 0, length, kind: Self::KIND_TRANSPORT }
    }

    /// The descriptor in 16 bytes.
    pub const fn parse(bytes: &[u8; 16]) -> Self {
        Self { address: u64_at(bytes, 0), length: u32_at(bytes, 8), kind: bytes[15] }
    }

    /// The 16 bytes of it.
    pub fn encode(&self) -> [u8; 16] {
        let mut bytes = [0; 16];
        put_u64(&mut bytes, 0, self.address);
        put_u32(&mut bytes, 8, self.length);
        bytes[15] = self.kind;
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_it_lies_on_the_wire() {
        let bytes = [0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0x5a];
        assert_eq!(Descriptor::parse(&bytes), Descriptor::transport(512));
        assert_eq!(Descriptor::transport(512).encode(), bytes);
        assert_eq!(Descriptor::in_capsule(8).encode()[15], 0x01);
        assert_eq!(Descriptor::parse(&[0; 16]), Descriptor::NONE);
    }
}
