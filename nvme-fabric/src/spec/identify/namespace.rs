//! The Identify Namespace structures: CNS 00h (NVM §4.1.5.1) and CNS 08h (Base §5.17.2.8
//!).

use super::{LENGTH, Structure};
use crate::spec::field::{put, put_u16, put_u32, put_u64, u16_at, u32_at, u64_at};

/// LBAF: one way to format blocks. NVM.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct BlockFormat {
    /// MS, bits 15:0: bytes of metadata a block.
    pub metadata: u16,
    /// LBADS, bits 23:16: a block has 2^this bytes; 0 for a format that is not available.
    pub data_size_log2: u8,
    /// RP, bits 25:24: relative performance, 0 is best.
    pub performance: u8,
}

/// What a namespace says about itself; only the format in use is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct IdentifyNamespace {
    /// NSZE, bytes 0-7: blocks; 0 when the namespace is not active.
    pub size: u64,
    /// NCAP, bytes 8-15: blocks that may be allocated at once.
    pub capacity: u64,
    /// NUSE, bytes 16-23: blocks that are allocated.
    pub used: u64,
    /// NSFEAT, byte 24: bit 0 thin, bit 4 the preferred sizes are meant.
    pub features: u8,
    /// NMIC, byte 30: bit 0 several controllers may have it attached.
    pub multi_path: u8,
    /// RESCAP, byte 31: see [`crate::spec::reservation::capability`].
    pub reservations: u8,
    /// DLFEAT, byte 33: bits 2:0 what deallocated blocks read as (001b zeroes), bit 3 write
    /// zeroes deallocates.
    pub deallocate_features: u8,
    /// NOIOB, bytes 46-47: commands work best when they do not cross multiples of this many blocks;
    /// 0 when that is not said.
    pub optimal_boundary: u16,
    /// NPWG, bytes 64-65: preferred write granularity, blocks, 0's based.
    pub write_granularity: u16,
    /// NPWA, bytes 66-67: preferred write alignment, blocks, 0's based.
    pub write_alignment: u16,
    /// NPDG, bytes 68-69: preferred deallocate granularity, blocks, 0's based.
    pub deallocate_granularity: u16,
    /// NPDA, bytes 70-71: preferred deallocate alignment, blocks, 0's based.
    pub deallocate_alignment: u16,
    /// NOWS, bytes 72-73: optimal write size, blocks, 0's based.
    pub write_size: u16,
    /// MSSRL, bytes 74-75: the most blocks of one source range of a copy.
    pub copy_range_blocks_max: u16,
    /// MCL, bytes 76-79: the most blocks of one copy.
    pub copy_blocks_max: u32,
    /// MSRC, byte 80: source ranges of one copy, 0's based.
    pub copy_ranges_max: u8,
    /// ANAGRPID, bytes 92-95.
    pub access_group: u32,
    /// NSATTR, byte 99: bit 0 write protected.
    pub attributes: u8,
    /// NGUID, bytes 104-119.
    pub nguid: [u8; 16],
    /// EUI64, bytes 120-127.
    pub eui64: [u8; 8],
    /// The entry of LBAF that FLBAS names: the format in use.
    pub format: BlockFormat,
}

impl IdentifyNamespace {
    /// NSFEAT bit 0: thin provisioning.
    pub const FEATURE_THIN: u8 = 1 << 0;
    /// NSFEAT bit 4: NPWG, NPWA, NPDG, NPDA and NOWS are meant.
    pub const FEATURE_PREFERRED_SIZES: u8 = 1 << 4;
    /// NMIC bit 0: shared.
    pub const SHARED: u8 = 1 << 0;
    /// NSATTR bit 0: write protected.
    pub const WRITE_PROTECTED: u8 = 1 << 0;

    /// The typed form.
    pub fn parse(bytes: &Structure) -> Self {
        // FLBAS bits 6:5 extend the index when there are more than 16 formats (NLBAF is 0's based).
        let index = usize::from(bytes[26] & 0xf)
            | if bytes[25] > 15 { usize::from(bytes[26] >> 5 & 0b11) << 4 } else { 0 };
        let format = u32_at(bytes, 128 + index * 4);
        let mut eui64 = [0; 8];
        eui64.copy_from_slice(&bytes[120..128]);
        Self {
            size: u64_at(bytes, 0),
            capacity: u64_at(bytes, 8),
            used: u64_at(bytes, 16),
            features: bytes[24],
            multi_path: bytes[30],
            reservations: bytes[31],
            deallocate_features: bytes[33],
            optimal_boundary: u16_at(bytes, 46),
            write_granularity: u16_at(bytes, 64),
            write_alignment: u16_at(bytes, 66),
            deallocate_granularity: u16_at(bytes, 68),
            deallocate_alignment: u16_at(bytes, 70),
            write_size: u16_at(bytes, 72),
            copy_range_blocks_max: u16_at(bytes, 74),
            copy_blocks_max: u32_at(bytes, 76),
            copy_ranges_max: bytes[80],
            access_group: u32_at(bytes, 92),
            attributes: bytes[99],
            nguid: crate::spec::field::bytes16_at(bytes, 104),
            eui64,
            format: BlockFormat {
                metadata: format as u16,
                data_size_log2: (format >> 16) as u8,
                performance: (format >> 24) as u8 & 0b11,
            },
        }
    }

    /// Writes the structure into `bytes`, all of it, with one format.
    pub fn encode(&self, bytes: &mut Structure) {
        *bytes = [0; LENGTH];
        put_u64(bytes, 0, self.size);
        put_u64(bytes, 8, self.capacity);
        put_u64(bytes, 16, self.used);
        bytes[24] = self.features;
        bytes[30] = self.multi_path;
        bytes[31] = self.reservations;
        bytes[33] = self.deallocate_features;
        put_u16(bytes, 46, self.optimal_boundary);
        put_u16(bytes, 64, self.write_granularity);
        put_u16(bytes, 66, self.write_alignment);
        put_u16(bytes, 68, self.deallocate_granularity);
        put_u16(bytes, 70, self.deallocate_alignment);
        put_u16(bytes, 72, self.write_size);
        put_u16(bytes, 74, self.copy_range_blocks_max);
        put_u32(bytes, 76, self.copy_blocks_max);
        bytes[80] = self.copy_ranges_max;
        put_u32(bytes, 92, self.access_group);
        bytes[99] = self.attributes;
        put(bytes, 104, &self.nguid);
        put(bytes, 120, &self.eui64);
        let format = u32::from(self.format.metadata)
            | u32::from(self.format.data_size_log2) << 16
            | u32::from(self.format.performance & 0b11) << 24;
        put_u32(bytes, 128, format);
    }

    /// Whether the namespace exists: an inactive one is all zeroes.
    pub const fn is_active(&self) -> bool {
        self.size != 0
    }
}

/// What is said of a namespace whatever its command set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct IndependentNamespace {
    /// NMIC, byte 1.
    pub multi_path: u8,
    /// RESCAP, byte 2.
    pub reservations: u8,
    /// ANAGRPID, bytes 4-7.
    pub access_group: u32,
    /// NSATTR, byte 8.
    pub attributes: u8,
    /// NSTAT bit 0, byte 14: ready for commands.
    pub ready: bool,
}

impl IndependentNamespace {
    /// The typed form.
    pub fn parse(bytes: &Structure) -> Self {
        Self {
            multi_path: bytes[1],
            reservations: bytes[2],
            access_group: u32_at(bytes, 4),
            attributes: bytes[8],
            ready: bytes[14] & 1 != 0,
        }
    }

    /// Writes the structure into `bytes`, all of it.
    pub fn encode(&self, bytes: &mut Structure) {
        *bytes = [0; LENGTH];
        bytes[1] = self.multi_path;
        bytes[2] = self.reservations;
        put_u32(bytes, 4, self.access_group);
        bytes[8] = self.attributes;
        bytes[14] = u8::from(self.ready);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_lie_where_the_structure_says() {
        let mut bytes = [0; LENGTH];
        bytes[1] = 8;
        bytes[9] = 7;
        bytes[17] = 6;
        bytes[24] = 0x10;
        bytes[30] = 1;
        bytes[31] = 0xff;
        bytes[33] = 9;
        bytes[46] = 8;
        bytes[64..74].copy_from_slice(&[7, 0, 7, 0, 7, 0, 7, 0, 255, 1]);
        bytes[74..81].copy_from_slice(&[0, 1, 0, 2, 0, 0, 127]);
        bytes[92] = 1;
        bytes[99] = 1;
        bytes[104..120].fill(3);
        bytes[120..128].fill(4);
        bytes[130] = 12;
        let namespace = IdentifyNamespace::parse(&bytes);
        assert_eq!((namespace.size, namespace.capacity, namespace.used), (2048, 1792, 1536));
        assert_eq!(namespace.write_size, 511);
        assert_eq!(namespace.deallocate_alignment, 7);
        assert_eq!((namespace.reservations, namespace.optimal_boundary), (0xff, 8));
        assert_eq!((namespace.copy_range_blocks_max, namespace.copy_blocks_max), (256, 512));
        assert_eq!(namespace.copy_ranges_max, 127);
        assert_eq!(namespace.nguid, [3; 16]);
        assert_eq!(namespace.eui64, [4; 8]);
        assert_eq!(namespace.format.data_size_log2, 12);
        let mut again = [0xff; LENGTH];
        namespace.encode(&mut again);
        assert_eq!(again, bytes);
        assert!(!IdentifyNamespace::parse(&[0; LENGTH]).is_active());
    }

    #[test]
    fn the_format_in_use_is_found_even_when_the_index_is_large() {
        let mut bytes = [0; LENGTH];
        bytes[26] = 0x63;
        bytes[128 + 3 * 4 + 2] = 9;
        bytes[128 + 0x33 * 4 + 2] = 12;
        assert_eq!(IdentifyNamespace::parse(&bytes).format.data_size_log2, 9);
        bytes[25] = 63;
        assert_eq!(IdentifyNamespace::parse(&bytes).format.data_size_log2, 12);
    }

    #[test]
    fn independent_of_the_command_set() {
        let namespace = IndependentNamespace {
            multi_path: 1,
            reservations: 0xff,
            access_group: 2,
            attributes: 1,
            ready: true,
        };
        let mut bytes = [0xff; LENGTH];
        namespace.encode(&mut bytes);
        assert_eq!(bytes[..16], [0, 1, 0xff, 0, 2, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0]);
        assert_eq!(IndependentNamespace::parse(&bytes), namespace);
    }
}
