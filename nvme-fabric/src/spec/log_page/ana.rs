//! The asymmetric namespace access log page: which groups of namespaces this controller reaches,
//! and how well. Base §5.16.1.13.
//!
//! ```text
//!   0        8       10      16
//!   ┌────────┬───────┬───────┬──────────────┬──────────────┬─ …
//!   │ CHGCNT │ NGRPS │   0   │ descriptor 0 │ descriptor 1 │
//!   └────────┴───────┴───────┴──────────────┴──────────────┴─ …
//!   descriptor: 0 ANAGRPID, 4 NNSIDS, 8 CHGCNT, 16 state (bits 3:0), 32 NNSIDS ids of 4 bytes
//! ```

use crate::spec::field::{put_u16, put_u32, put_u64, u16_at, u32_at, u64_at};

/// Bytes of the header.
pub const ACCESS_HEADER_LENGTH: usize = 16;

/// Bytes of a descriptor without its namespace ids.
pub const ACCESS_DESCRIPTOR_LENGTH: usize = 32;

/// LSP bit 0 of the Get Log Page command, RGO: groups only, without namespace ids.
pub const ACCESS_GROUPS_ONLY: u8 = 1 << 0;

/// How a controller reaches the namespaces of a group. Base §8.1 (ANA states).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AccessState {
    /// 1h: works, and best here.
    Optimized,
    /// 2h: works, and better elsewhere.
    NonOptimized,
    /// 3h: does not work here now.
    Inaccessible,
    /// 4h: will not work here again.
    PersistentLoss,
    /// Fh: between two states, for at most ANATT seconds.
    Change,
    /// Reserved.
    Other(u8),
}

impl AccessState {
    /// The state in a word or two.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Optimized => "optimized",
            Self::NonOptimized => "non-optimized",
            Self::Inaccessible => "inaccessible",
            Self::PersistentLoss => "persistent-loss",
            Self::Change => "change",
            Self::Other(_) => "reserved",
        }
    }

    /// Of bits 3:0.
    pub const fn parse(value: u8) -> Self {
        match value & 0xf {
            0x1 => Self::Optimized,
            0x2 => Self::NonOptimized,
            0x3 => Self::Inaccessible,
            0x4 => Self::PersistentLoss,
            0xf => Self::Change,
            other => Self::Other(other),
        }
    }

    /// Bits 3:0.
    pub const fn encode(self) -> u8 {
        match self {
            Self::Optimized => 0x1,
            Self::NonOptimized => 0x2,
            Self::Inaccessible => 0x3,
            Self::PersistentLoss => 0x4,
            Self::Change => 0xf,
            Self::Other(other) => other & 0xf,
        }
    }

    /// Whether reads and writes work.
    pub const fn is_usable(self) -> bool {
        matches!(self, Self::Optimized | Self::NonOptimized)
    }
}

/// One group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessGroup {
    /// ANAGRPID, bytes 0-3; not 0.
    pub id: u32,
    /// CHGCNT, bytes 8-15: grows when the group changes, 0 when that is not counted.
    pub changes: u64,
    /// Byte 16, bits 3:0.
    pub state: AccessState,
    /// NSIDs from byte 32, ascending; none when groups only were asked for.
    pub namespaces: Vec<u32>,
}

/// The whole page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessLog {
    /// CHGCNT, bytes 0-7 of the header: a host that sees another one while it reads in parts starts
    /// over.
    pub changes: u64,
    /// Ascending by id.
    pub groups: Vec<AccessGroup>,
}

/// Why bytes are no such page: the descriptor number `group` would end at byte `end`, of `length`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccessLogCut {
    /// Which descriptor, from 0.
    pub group: u16,
    /// Bytes that the page needs at least.
    pub end: usize,
    /// Bytes that there are.
    pub length: usize,
}

impl AccessLog {
    /// The typed form of a page that was read whole; what follows its last group is passed over.
    ///
    /// # Errors
    /// When the groups and ids that it counts do not fit into `bytes`: it was read with too small a
    /// length, or makes no sense.
    pub fn parse(bytes: &[u8]) -> Result<Self, AccessLogCut> {
        let cut = |group, end| AccessLogCut { group, end, length: bytes.len() };
        if bytes.len() < ACCESS_HEADER_LENGTH {
            return Err(cut(0, ACCESS_HEADER_LENGTH));
        }
        let count = u16_at(bytes, 8);
        let mut groups = Vec::new();
        let mut start = ACCESS_HEADER_LENGTH;
        for group in 0..count {
            let ids_start = start + ACCESS_DESCRIPTOR_LENGTH;
            let descriptor = bytes.get(start..ids_start).ok_or(cut(group, ids_start))?;
            let ids_count = u32_at(descriptor, 4) as usize;
            let end = ids_start.saturating_add(ids_count.saturating_mul(4));
            let ids = bytes.get(ids_start..end).ok_or(cut(group, end))?;
            groups.push(AccessGroup {
                id: u32_at(descriptor, 0),
                changes: u64_at(descriptor, 8),
                state: AccessState::parse(descriptor[16]),
                namespaces: ids.as_chunks().0.iter().map(|id| u32::from_le_bytes(*id)).collect(),
            });
            start = end;
        }
        Ok(Self { changes: u64_at(bytes, 0), groups })
    }

    /// The bytes of it; the first 65535 groups.
    pub fn encode(&self) -> Vec<u8> {
        let count = u16::try_from(self.groups.len()).unwrap_or(u16::MAX);
        let mut bytes = vec![0; ACCESS_HEADER_LENGTH];
        put_u64(&mut bytes, 0, self.changes);
        put_u16(&mut bytes, 8, count);
        for group in &self.groups[..usize::from(count)] {
            let mut descriptor = [0; ACCESS_DESCRIPTOR_LENGTH];
            put_u32(&mut descriptor, 0, group.id);
            put_u32(&mut descriptor, 4, group.namespaces.len() as u32);
            put_u64(&mut descriptor, 8, group.changes);
            descriptor[16] = group.state.encode();
            bytes.extend(descriptor);
            bytes.extend(group.namespaces.iter().flat_map(|id| id.to_le_bytes()));
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page() -> AccessLog {
        let first = AccessGroup {
            id: 1,
            changes: 5,
            state: AccessState::Optimized,
            namespaces: vec![1, 0x0102_0304],
        };
        let second =
            AccessGroup { id: 7, changes: 0, state: AccessState::Change, namespaces: Vec::new() };
        AccessLog { changes: 9, groups: vec![first, second] }
    }

    #[test]
    fn as_it_lies_on_the_wire() {
        let bytes = page().encode();
        assert_eq!(bytes.len(), 16 + 32 + 8 + 32);
        assert_eq!(bytes[..16], [9, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(bytes[16..34], [1, 0, 0, 0, 2, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
        assert_eq!(bytes[48..56], [1, 0, 0, 0, 4, 3, 2, 1]);
        assert_eq!([bytes[56], bytes[60], bytes[72]], [7, 0, 0xf]);
        assert_eq!(AccessLog::parse(&bytes), Ok(page()));
        let mut padded = bytes;
        padded.resize(4096, 0);
        assert_eq!(AccessLog::parse(&padded), Ok(page()));
    }

    #[test]
    fn a_page_that_is_cut_short_or_lies_is_told_by_its_group() {
        let bytes = page().encode();
        for length in 0..bytes.len() {
            let cut = AccessLog::parse(&bytes[..length]).expect_err("cut");
            assert!(cut.end > length && cut.length == length, "{cut:?}");
        }
        let mut lying = bytes.clone();
        lying[20..24].fill(0xff);
        assert_eq!(AccessLog::parse(&lying).expect_err("too many ids").group, 0);
        assert!(AccessLog::parse(&[0xff; 4096]).is_err());
    }

    #[test]
    fn states() {
        for value in 0..16 {
            assert_eq!(AccessState::parse(value).encode(), value);
        }
        assert_eq!(AccessState::parse(0xf3), AccessState::Inaccessible);
        assert!(AccessState::NonOptimized.is_usable() && !AccessState::Change.is_usable());
    }
}
