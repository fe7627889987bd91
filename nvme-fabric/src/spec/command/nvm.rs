//! Commands on a namespace, of the NVM command set, and the ranges that some of them bring as data.

use super::{ReservationCommand, SubmissionEntry, dword, entry, opcode, set_dword};
use crate::spec::field::{put_u16, put_u32, put_u64, u16_at, u32_at, u64_at};
use crate::spec::sgl::Descriptor;

/// NVM §3 (Opcodes for NVM Commands).
pub const OPCODE_FLUSH: u8 = 0x00;
/// NVM §3.
pub const OPCODE_WRITE: u8 = 0x01;
/// NVM §3.
pub const OPCODE_READ: u8 = 0x02;
/// NVM §3.
pub const OPCODE_WRITE_UNCORRECTABLE: u8 = 0x04;
/// NVM §3.
pub const OPCODE_COMPARE: u8 = 0x05;
/// NVM §3.
pub const OPCODE_WRITE_ZEROES: u8 = 0x08;
/// NVM §3.
pub const OPCODE_DATASET_MANAGEMENT: u8 = 0x09;
/// NVM §3.
pub const OPCODE_VERIFY: u8 = 0x0c;
/// NVM §3.
pub const OPCODE_COPY: u8 = 0x19;

/// The most blocks that one read, write or write zeroes covers: NLB is 16 bits, 0's based.
pub const BLOCKS_MAX: u32 = 1 << 16;

/// The most ranges of one dataset management command: NR is 8 bits, 0's based. NVM §3.2.3.
pub const RANGES_MAX: usize = 256;

/// Bytes of one range.
pub const RANGE_LENGTH: usize = 16;

/// The most source ranges of one copy command: NR is 8 bits, 0's based. NVM §3.2.2.
pub const COPY_RANGES_MAX: usize = 256;

/// Dword 12 bit 30 of read, write and write zeroes: force unit access. NVM §3.2.4.
const FORCE_UNIT_ACCESS: u32 = 1 << 30;
/// Dword 12 bit 25 of write zeroes: deallocate where that reads as zeroes. NVM §3.2.8.
const DEALLOCATE: u32 = 1 << 25;
/// Dword 11 bit 2 of dataset management: deallocate. NVM §3.2.3.
const ATTRIBUTE_DEALLOCATE: u32 = 1 << 2;

/// A command on a namespace with its operands; the namespace itself is a common field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NvmCommand {
    /// Make completed writes durable.
    Flush,
    /// Store data.
    Write {
        /// First logical block.
        start: u64,
        /// Logical blocks, 1 to 65536.
        blocks: u32,
        /// Durable when complete.
        force_unit_access: bool,
    },
    /// Fetch data.
    Read {
        /// First logical block.
        start: u64,
        /// Logical blocks, 1 to 65536.
        blocks: u32,
        /// From the medium.
        force_unit_access: bool,
    },
    /// Store zeroes without sending them.
    WriteZeroes {
        /// First logical block.
        start: u64,
        /// Logical blocks, 1 to 65536.
        blocks: u32,
        /// Durable when complete.
        force_unit_access: bool,
        /// The space may be given up as long as it reads as zeroes.
        deallocate: bool,
    },
    /// Tell something about ranges, which are the command's data.
    DatasetManagement {
        /// Ranges, 1 to 256.
        ranges: u16,
        /// Their content is no longer needed; without it the command is only advice.
        deallocate: bool,
    },
    /// Compare the blocks with the command's data. NVM §3.2.1.
    Compare {
        /// First logical block.
        start: u64,
        /// Logical blocks, 1 to 65536.
        blocks: u32,
        /// With what is on the medium.
        force_unit_access: bool,
    },
    /// Read the blocks, and tell only whether that went well. NVM §3.2.6.
    Verify {
        /// First logical block.
        start: u64,
        /// Logical blocks, 1 to 65536.
        blocks: u32,
        /// From the medium.
        force_unit_access: bool,
    },
    /// Reads of the blocks fail until they are written. NVM §3.2.7.
    WriteUncorrectable {
        /// First logical block.
        start: u64,
        /// Logical blocks, 1 to 65536.
        blocks: u32,
    },
    /// Copy blocks of source ranges, which are the command's data, one behind the other. NVM
    /// §3.2.2.
    Copy {
        /// First logical block of the copy.
        destination: u64,
        /// Source ranges, 1 to 256.
        ranges: u16,
        /// How the ranges are written: a [`CopyFormat`]'s number, 0 to 15.
        format: u8,
        /// Durable when complete.
        force_unit_access: bool,
    },
    /// A command on the namespace's reservation.
    Reservation(ReservationCommand),
    /// An opcode that is none of these.
    Other(u8),
}

impl NvmCommand {
    /// The typed form of an entry.
    pub fn parse(bytes: &SubmissionEntry) -> Self {
        let start = u64::from(dword(bytes, 10)) | u64::from(dword(bytes, 11)) << 32;
        let dword_12 = dword(bytes, 12);
        let blocks = (dword_12 & 0xffff) + 1;
        let force_unit_access = dword_12 & FORCE_UNIT_ACCESS != 0;
        match opcode(bytes) {
            OPCODE_FLUSH => Self::Flush,
            OPCODE_WRITE => Self::Write { start, blocks, force_unit_access },
            OPCODE_READ => Self::Read { start, blocks, force_unit_access },
            OPCODE_WRITE_ZEROES => Self::WriteZeroes {
                start,
                blocks,
                force_unit_access,
                deallocate: dword_12 & DEALLOCATE != 0,
            },
            OPCODE_DATASET_MANAGEMENT => Self::DatasetManagement {
                ranges: (dword(bytes, 10) as u16 & 0xff) + 1,
                deallocate: dword(bytes, 11) & ATTRIBUTE_DEALLOCATE != 0,
            },
            OPCODE_COMPARE => Self::Compare { start, blocks, force_unit_access },
            OPCODE_VERIFY => Self::Verify { start, blocks, force_unit_access },
            OPCODE_WRITE_UNCORRECTABLE => Self::WriteUncorrectable { start, blocks },
            OPCODE_COPY => Self::Copy {
                destination: start,
                ranges: (dword_12 as u16 & 0xff) + 1,
                format: (dword_12 >> 8) as u8 & 0xf,
                force_unit_access,
            },
            other => ReservationCommand::parse(bytes).map_or(Self::Other(other), Self::Reservation),
        }
    }

    /// The entry of this command on namespace `nsid` under the name `id`. `blocks` and `ranges`
    /// must be within their bounds.
    pub fn encode(&self, id: u16, nsid: u32, data: Descriptor) -> SubmissionEntry {
        let with_blocks = |opcode, start: u64, blocks: u32, flags| {
            debug_assert!((1..=BLOCKS_MAX).contains(&blocks), "{blocks} blocks in one command");
            let mut bytes = entry(opcode, id, nsid, data);
            set_dword(&mut bytes, 10, start as u32);
            set_dword(&mut bytes, 11, (start >> 32) as u32);
            set_dword(&mut bytes, 12, (blocks.wrapping_sub(1) & 0xffff) | flags);
            bytes
        };
        let durable = |yes| if yes { FORCE_UNIT_ACCESS } else { 0 };
        match *self {
            Self::Flush => entry(OPCODE_FLUSH, id, nsid, data),
            Self::Write { start, blocks, force_unit_access } => {
                with_blocks(OPCODE_WRITE, start, blocks, durable(force_unit_access))
            }
            Self::Read { start, blocks, force_unit_access } => {
                with_blocks(OPCODE_READ, start, blocks, durable(force_unit_access))
            }
            Self::WriteZeroes { start, blocks, force_unit_access, deallocate } => {
                let flags = durable(force_unit_access) | if deallocate { DEALLOCATE } else { 0 };
                with_blocks(OPCODE_WRITE_ZEROES, start, blocks, flags)
            }
            Self::DatasetManagement { ranges, deallocate } => {
                debug_assert!((1..=RANGES_MAX).contains(&usize::from(ranges)), "{ranges} ranges");
                let mut bytes = entry(OPCODE_DATASET_MANAGEMENT, id, nsid, data);
                set_dword(&mut bytes, 10, u32::from(ranges.wrapping_sub(1) & 0xff));
                set_dword(&mut bytes, 11, if deallocate { ATTRIBUTE_DEALLOCATE } else { 0 });
                bytes
            }
            Self::Compare { start, blocks, force_unit_access } => {
                with_blocks(OPCODE_COMPARE, start, blocks, durable(force_unit_access))
            }
            Self::Verify { start, blocks, force_unit_access } => {
                with_blocks(OPCODE_VERIFY, start, blocks, durable(force_unit_access))
            }
            Self::WriteUncorrectable { start, blocks } => {
                with_blocks(OPCODE_WRITE_UNCORRECTABLE, start, blocks, 0)
            }
            Self::Copy { destination, ranges, format, force_unit_access } => {
                debug_assert!((1..=COPY_RANGES_MAX).contains(&usize::from(ranges)));
                let mut bytes = entry(OPCODE_COPY, id, nsid, data);
                set_dword(&mut bytes, 10, destination as u32);
                set_dword(&mut bytes, 11, (destination >> 32) as u32);
                let count = u32::from(ranges.wrapping_sub(1) & 0xff);
                let flags = u32::from(format & 0xf) << 8 | durable(force_unit_access);
                set_dword(&mut bytes, 12, count | flags);
                bytes
            }
            Self::Reservation(command) => command.encode(id, nsid, data),
            Self::Other(opcode) => entry(opcode, id, nsid, data),
        }
    }
}

/// How the source ranges of a copy are written. Without protection information both say the same.
/// NVM §3.2.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyFormat {
    /// Format 0h: 32 bytes a range.
    Short = 0,
    /// Format 1h: 40 bytes a range, with room for large guards.
    Long = 1,
}

impl CopyFormat {
    /// The format with this number, when it is one of a single namespace.
    pub const fn parse(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Short),
            1 => Some(Self::Long),
            _ => None,
        }
    }

    /// Bytes of one range.
    pub const fn range_length(self) -> usize {
        match self {
            Self::Short => 32,
            Self::Long => 40,
        }
    }
}

/// One source range of a copy command. NVM §3.2.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CopySource {
    /// SLBA, bytes 8-15: first logical block.
    pub start: u64,
    /// NLB, bytes 16-17: logical blocks, 1 to 65536; 0's based on the wire.
    pub blocks: u32,
}

impl CopySource {
    /// The range in the bytes of one, of either format; protection information is ignored.
    ///
    /// # Panics
    /// When there are fewer than 18 bytes, which is a fault of the caller's.
    #[track_caller]
    pub fn parse(bytes: &[u8]) -> Self {
        Self { start: u64_at(bytes, 8), blocks: u32::from(u16_at(bytes, 16)) + 1 }
    }

    /// Appends the bytes of the range.
    pub fn encode_to(self, format: CopyFormat, bytes: &mut Vec<u8>) {
        debug_assert!((1..=BLOCKS_MAX).contains(&self.blocks), "{} blocks", self.blocks);
        let at = bytes.len();
        bytes.resize(at + format.range_length(), 0);
        put_u64(bytes, at + 8, self.start);
        put_u16(bytes, at + 16, self.blocks.wrapping_sub(1) as u16);
    }
}

/// One range of a dataset management command. NVM §3.2.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// First logical block, bytes 8-15.
    pub start: u64,
    /// Logical blocks, bytes 4-7; a count, not 0's based.
    pub blocks: u32,
}

impl Range {
    /// The range in 16 bytes; context attributes (bytes 0-3) are ignored.
    pub const fn parse(bytes: &[u8; RANGE_LENGTH]) -> Self {
        Self { start: u64_at(bytes, 8), blocks: u32_at(bytes, 4) }
    }

    /// The 16 bytes of a range.
    pub fn encode(self) -> [u8; RANGE_LENGTH] {
        let mut bytes = [0; RANGE_LENGTH];
        put_u32(&mut bytes, 4, self.blocks);
        put_u64(&mut bytes, 8, self.start);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_survives_encoding() {
        let start = 0x0102_0304_0506_0708;
        for command in [
            NvmCommand::Flush,
            NvmCommand::Write { start, blocks: 1, force_unit_access: true },
            NvmCommand::Read { start, blocks: 65536, force_unit_access: false },
            NvmCommand::WriteZeroes { start, blocks: 8, force_unit_access: true, deallocate: true },
            NvmCommand::DatasetManagement { ranges: 256, deallocate: true },
            NvmCommand::DatasetManagement { ranges: 1, deallocate: false },
            NvmCommand::Compare { start, blocks: 65536, force_unit_access: true },
            NvmCommand::Verify { start, blocks: 2, force_unit_access: false },
            NvmCommand::WriteUncorrectable { start, blocks: 3 },
            NvmCommand::Copy {
                destination: start,
                ranges: 256,
                format: 1,
                force_unit_access: true,
            },
            NvmCommand::Other(0x1d),
        ] {
            assert_eq!(NvmCommand::parse(&command.encode(1, 1, Descriptor::NONE)), command);
        }
    }

    #[test]
    fn a_write_as_it_lies_on_the_wire() {
        let write = NvmCommand::Write { start: 0x1_0000_0002, blocks: 8, force_unit_access: true };
        let bytes = write.encode(0x21, 1, Descriptor::in_capsule(4096));
        assert_eq!(bytes[..8], [0x01, 0x40, 0x21, 0, 1, 0, 0, 0]);
        assert_eq!(bytes[32..40], [0, 0x10, 0, 0, 0, 0, 0, 0x01]);
        assert_eq!(bytes[40..52], [2, 0, 0, 0, 1, 0, 0, 0, 7, 0, 0, 0x40]);
    }

    #[test]
    fn a_range_counts_blocks_from_one() {
        let range = Range { start: 0x20, blocks: 3 };
        let bytes = [0, 0, 0, 0, 3, 0, 0, 0, 0x20, 0, 0, 0, 0, 0, 0, 0];
        assert_eq!(range.encode(), bytes);
        assert_eq!(Range::parse(&bytes), range);
    }

    #[test]
    fn a_copy_as_it_lies_on_the_wire() {
        let copy = NvmCommand::Copy {
            destination: 0x1_0000_0002,
            ranges: 3,
            format: 1,
            force_unit_access: true,
        };
        let bytes = copy.encode(1, 1, Descriptor::in_capsule(120));
        assert_eq!(bytes[0], 0x19);
        assert_eq!(bytes[40..52], [2, 0, 0, 0, 1, 0, 0, 0, 2, 1, 0, 0x40]);
        let source = CopySource { start: 0x0102_0304, blocks: 256 };
        let mut ranges = Vec::new();
        source.encode_to(CopyFormat::Short, &mut ranges);
        source.encode_to(CopyFormat::Long, &mut ranges);
        assert_eq!(ranges.len(), 72);
        for at in [0, 32] {
            assert_eq!(ranges[at + 8..at + 18], [4, 3, 2, 1, 0, 0, 0, 0, 255, 0]);
            assert_eq!(CopySource::parse(&ranges[at..]), source);
        }
    }
}
