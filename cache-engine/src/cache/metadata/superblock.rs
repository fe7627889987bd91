//! What a cache device says of itself: two copies, written in turn, of which the newest valid one
//! counts.
//!
//! ```text
//!   0 magic  8 version  12 length  16 CRC32C  20 state  21 verify all  22 number of volumes
//!  24 features: compatible, read-only compatible, incompatible  48 format id  64 sequence number
//!  72 journal tail  80 layout  140 shard  144 space used  152 zeroes  256 the volumes' records
//! ```
//! Magic, version, length and CRC32C (over `length` bytes, itself as zero) stand where they are in
//! every version from 2 on, so that a damaged superblock and a newer one are told apart. Sequence
//! number `s` stands in copy `s mod 2`: a write that is cut short leaves the one before it.
//!
//! ```text
//!   feature bit unknown to a program    may it read the device?   may it write it?
//!     compatible                        yes                       yes; the bit stays
//!     read-only compatible              yes                       no
//!     incompatible                      no                        no
//! ```
//! Absent: reading and writing it ([`crate::volume::cache_device`]), and whether what it tells of
//! may be served.

use std::fmt;

use super::layout::{Layout, SUPERBLOCK_REGION, sets_per_page};
use super::volume_record::VolumeRecord;
use super::{FormatId, PAGE_SIZE, array, u16_at, u32_at, u64_at};
use crate::cache::config::{LineSize, VOLUMES_MAX, VolumeId};

use block_io::{Crc32c, DeviceError};

/// The version that this program writes.
pub const VERSION: u32 = 2;

pub(super) const MAGIC: [u8; 8] = *b"FOREBAY\0";
const VERSION_AT: usize = 8;
const LENGTH_AT: usize = 12;
const CHECKSUM_AT: usize = 16;
/// Where the volumes' records begin.
const HEADER: usize = 256;
/// Bytes of a superblock at the most.
const LENGTH_MAX: usize = SUPERBLOCK_REGION as usize;
/// Sequence numbers from here on are nobody's: a superblock that bears one is refused, so that
/// counting never overflows.
const SEQUENCE_END: u64 = 1 << 62;

/// Version 1 was one block of 4 KiB with its checksum at the end and no lines recorded.
const VERSION_1_CHECKSUM_AT: usize = PAGE_SIZE - 4;

/// Whether the records of a cache device can be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum State {
    /// It was left in order: everything is recorded.
    Clean = 0,
    /// It is in use, or its last use did not end in order.
    InUse = 1,
    /// It failed, and the origin was written without it: nothing on it may be served.
    Degraded = 2,
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Clean => "clean",
            Self::InUse => "in use",
            Self::Degraded => "degraded",
        })
    }
}

/// Feature bits. See the module for what an unknown one means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Features {
    /// Bits that a program may ignore.
    pub compatible: u64,
    /// Bits that a program must know to write to the device.
    pub read_only_compatible: u64,
    /// Bits that a program must know to use the device at all.
    pub incompatible: u64,
}

impl Features {
    /// What this program knows.
    pub const KNOWN: Self = Self { compatible: 0, read_only_compatible: 0, incompatible: 0 };
}

/// What a cache device says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Superblock {
    /// Features in use.
    pub features: Features,
    /// Which formatting of the device it belongs to.
    pub format_id: FormatId,
    /// Higher than that of the superblock before.
    pub sequence: u64,
    /// Where everything lies.
    pub layout: Layout,
    /// Which part of a cache that is spread over several devices this is; 0 for now.
    pub shard_index: u16,
    /// How many such parts there are; 1 for now.
    pub shard_count: u16,
    /// Whether the records can be believed.
    pub state: State,
    /// Every line must be compared with its checksums before it is served, until all have been.
    pub verify_all: bool,
    /// Sequence number of the oldest journal block that is not in the line table yet.
    pub journal_tail: u64,
    /// Flat addresses below this have been some volume's. Only those from here on are given to new
    /// volumes: of whatever may still be recorded of an old one, nothing is taken for theirs.
    space_used: u64,
    volumes: Vec<VolumeRecord>,
}

/// Why the bytes at a superblock's place are not a superblock that can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Undecodable {
    /// Nothing but zeroes.
    Zeroed,
    /// No superblock at all.
    Foreign,
    /// A superblock of an earlier version, in order.
    Older {
        /// Its version.
        version: u32,
        /// Line size it was last used with.
        line_size: LineSize,
    },
    /// A superblock that is not as it was written. The text goes on from "a Forebay cache".
    Damaged(String),
    /// A superblock in order that this program does not know enough for. The text goes on from
    /// "a Forebay cache".
    Unsupported(String),
}

impl fmt::Display for Undecodable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Zeroed => f.write_str("zeroes"),
            Self::Foreign => f.write_str("data that is no Forebay cache"),
            Self::Older { version, .. } => write!(f, "a Forebay cache of format version {version}"),
            Self::Damaged(what) | Self::Unsupported(what) => write!(f, "a Forebay cache {what}"),
        }
    }
}

impl Superblock {
    /// The first superblock of a new cache: no volumes, in order.
    pub fn new(format_id: FormatId, layout: Layout) -> Self {
        Self {
            features: Features::default(),
            format_id,
            sequence: 0,
            layout,
            shard_index: 0,
            shard_count: 1,
            state: State::Clean,
            verify_all: false,
            journal_tail: 0,
            space_used: 0,
            volumes: Vec::new(),
        }
    }

    /// Where it stands on the device.
    pub const fn offset(&self) -> u64 {
        Layout::superblock_offset(self.sequence)
    }

    /// Where the flat addresses begin that no volume ever had.
    pub const fn space_used(&self) -> u64 {
        self.space_used
    }

    /// The volumes, by number.
    pub fn volumes(&self) -> &[VolumeRecord] {
        &self.volumes
    }

    /// The volume of that number.
    pub fn volume(&self, id: VolumeId) -> Option<&VolumeRecord> {
        self.volumes.iter().find(|volume| volume.id == id)
    }

    /// The volume of that name.
    pub fn volume_named(&self, name: &str) -> Option<&VolumeRecord> {
        self.volumes.iter().find(|volume| volume.name == name)
    }

    /// Records a volume, in place of the one of the same number if there is one. Replacing a
    /// volume's record by one with the same name and identity never fails for want of room.
    ///
    /// # Errors
    /// When the record makes no sense by itself or beside the others, or there is no room for it.
    pub fn put_volume(&mut self, record: VolumeRecord) -> Result<(), DeviceError> {
        record.check(self.layout.flat_length()).map_err(DeviceError::new)?;
        let others = self.volumes.iter().filter(|volume| volume.id != record.id);
        let mut length = HEADER + record.encoded_length();
        for other in others {
            check_apart(other, &record).map_err(DeviceError::new)?;
            length += other.encoded_length();
        }
        if length > LENGTH_MAX {
            return Err(DeviceError::new(format!(
                "volume '{}': the superblock has no room for it beside {} others; shorter names \
                 take less",
                record.name,
                self.volumes.len()
            )));
        }
        self.space_used = self.space_used.max(record.end());
        self.volumes.retain(|volume| volume.id != record.id);
        let place = self.volumes.partition_point(|volume| volume.id < record.id);
        self.volumes.insert(place, record);
        Ok(())
    }

    /// Forgets a volume, whose addresses are given to no other.
    pub fn remove_volume(&mut self, id: VolumeId) -> Option<VolumeRecord> {
        let place = self.volumes.iter().position(|volume| volume.id == id)?;
        Some(self.volumes.remove(place))
    }

    /// Whether this program may write to the device.
    ///
    /// # Errors
    /// When it has read-only compatible features that this program does not know.
    pub fn check_writable(&self) -> Result<(), DeviceError> {
        let unknown = self.features.read_only_compatible & !Features::KNOWN.read_only_compatible;
        if unknown == 0 {
            return Ok(());
        }
        Err(DeviceError::new(format!(
            "cache device: a Forebay cache with {}; this program may only read it",
            bits("read-only compatible", unknown)
        )))
    }

    /// The superblock as it is written: a multiple of 4 KiB, 64 KiB at the most.
    pub fn encode(&self) -> Vec<u8> {
        let records: usize = self.volumes.iter().map(VolumeRecord::encoded_length).sum();
        let length = (HEADER + records).next_multiple_of(PAGE_SIZE);
        debug_assert!(length <= LENGTH_MAX, "checked whenever a volume is put in");
        let mut bytes = vec![0; length];
        self.encode_header(&mut bytes);
        let mut at = HEADER;
        for volume in &self.volumes {
            volume.encode(&mut bytes[at..]);
            at += volume.encoded_length();
        }
        let checksum = checksum(&bytes);
        bytes[CHECKSUM_AT..][..4].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    fn encode_header(&self, bytes: &mut [u8]) {
        let length = bytes.len() as u32;
        let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
        put(0, &MAGIC);
        put(VERSION_AT, &VERSION.to_le_bytes());
        put(LENGTH_AT, &length.to_le_bytes());
        put(20, &[self.state as u8, u8::from(self.verify_all)]);
        put(22, &(self.volumes.len() as u16).to_le_bytes());
        put(24, &self.features.compatible.to_le_bytes());
        put(32, &self.features.read_only_compatible.to_le_bytes());
        put(40, &self.features.incompatible.to_le_bytes());
        put(48, &self.format_id.0);
        put(64, &self.sequence.to_le_bytes());
        put(72, &self.journal_tail.to_le_bytes());
        let layout = &self.layout;
        put(80, &layout.capacity.to_le_bytes());
        put(88, &(layout.line_size.bytes() as u32).to_le_bytes());
        put(92, &layout.sets.to_le_bytes());
        put(96, &layout.activity_offset.to_le_bytes());
        put(104, &layout.journal_offset.to_le_bytes());
        put(112, &layout.table_offset.to_le_bytes());
        put(120, &layout.data_offset.to_le_bytes());
        put(128, &layout.activity_pages.to_le_bytes());
        put(132, &layout.journal_blocks.to_le_bytes());
        put(136, &layout.table_pages.to_le_bytes());
        put(140, &self.shard_index.to_le_bytes());
        put(142, &self.shard_count.to_le_bytes());
        put(144, &self.space_used.to_le_bytes());
    }

    /// Reads what stands at a superblock's place: best all 64 KiB of it, at least 4 KiB.
    ///
    /// # Errors
    /// What stands there instead.
    pub fn decode(bytes: &[u8]) -> Result<Self, Undecodable> {
        if bytes.iter().all(|byte| *byte == 0) {
            return Err(Undecodable::Zeroed);
        }
        if bytes.len() < PAGE_SIZE || bytes[..8] != MAGIC {
            return Err(Undecodable::Foreign);
        }
        let version = u32_at(bytes, VERSION_AT);
        if version == 1 {
            return Err(decode_version_1(bytes));
        }
        let length = u32_at(bytes, LENGTH_AT) as usize;
        if length == 0 || length > LENGTH_MAX || !length.is_multiple_of(PAGE_SIZE) {
            let what = format!("whose superblock says that it has {length} bytes");
            return Err(Undecodable::Damaged(what));
        }
        let Some(bytes) = bytes.get(..length) else {
            return Err(Undecodable::Damaged("whose superblock is cut short".into()));
        };
        if checksum(bytes) != u32_at(bytes, CHECKSUM_AT) {
            return Err(Undecodable::Damaged("whose superblock has a wrong checksum".into()));
        }
        if version != VERSION {
            return Err(Undecodable::Unsupported(format!(
                "of format version {version}; this program knows version {VERSION}"
            )));
        }
        Self::decode_valid(bytes)
    }

    /// Reads a superblock whose checksum is right.
    fn decode_valid(bytes: &[u8]) -> Result<Self, Undecodable> {
        let features = Features {
            compatible: u64_at(bytes, 24),
            read_only_compatible: u64_at(bytes, 32),
            incompatible: u64_at(bytes, 40),
        };
        let unknown = features.incompatible & !Features::KNOWN.incompatible;
        if unknown != 0 {
            return Err(Undecodable::Unsupported(format!(
                "with {}; this program cannot use it",
                bits("incompatible", unknown)
            )));
        }
        let damaged = |what: String| Undecodable::Damaged(format!("with {what}"));
        let layout = decode_layout(bytes).map_err(damaged)?;
        let state = match bytes[20] {
            0 => State::Clean,
            1 => State::InUse,
            2 => State::Degraded,
            other => return Err(damaged(format!("state {other}: must be 0, 1 or 2"))),
        };
        let verify_all = match bytes[21] {
            0 => false,
            1 => true,
            other => return Err(damaged(format!("verify-all flag {other}: must be 0 or 1"))),
        };
        let (sequence, journal_tail) = (u64_at(bytes, 64), u64_at(bytes, 72));
        for (name, value) in [("sequence", sequence), ("journal tail", journal_tail)] {
            if value >= SEQUENCE_END {
                return Err(damaged(format!("{name} {value}: must be below {SEQUENCE_END}")));
            }
        }
        let (shard_index, shard_count) = (u16_at(bytes, 140), u16_at(bytes, 142));
        if shard_index >= shard_count {
            return Err(damaged(format!("shard {shard_index} of {shard_count}")));
        }
        let (space_used, flat_length) = (u64_at(bytes, 144), layout.flat_length());
        let volumes = decode_volumes(bytes, flat_length).map_err(damaged)?;
        // As far as any of them reaches, it has been used.
        let reached = volumes.iter().map(VolumeRecord::end).max().unwrap_or(0);
        if space_used < reached || space_used > flat_length {
            return Err(damaged(format!(
                "{space_used} bytes of addresses used: must be from {reached} to {flat_length}"
            )));
        }
        Ok(Self {
            features,
            format_id: FormatId(array(bytes, 48)),
            sequence,
            layout,
            shard_index,
            shard_count,
            state,
            verify_all,
            journal_tail,
            space_used,
            volumes,
        })
    }
}

fn decode_layout(bytes: &[u8]) -> Result<Layout, String> {
    let line_size = LineSize::from_bytes(u64::from(u32_at(bytes, 88)))?;
    let layout = Layout {
        capacity: u64_at(bytes, 80),
        line_size,
        sets: u32_at(bytes, 92),
        activity_offset: u64_at(bytes, 96),
        activity_pages: u32_at(bytes, 128),
        journal_offset: u64_at(bytes, 104),
        journal_blocks: u32_at(bytes, 132),
        table_offset: u64_at(bytes, 112),
        table_pages: u32_at(bytes, 136),
        sets_per_page: sets_per_page(line_size),
        data_offset: u64_at(bytes, 120),
    };
    layout.check()?;
    Ok(layout)
}

fn decode_volumes(bytes: &[u8], flat_length: u64) -> Result<Vec<VolumeRecord>, String> {
    let count = usize::from(u16_at(bytes, 22));
    if count > VOLUMES_MAX {
        return Err(format!("{count} volumes: must be at most {VOLUMES_MAX}"));
    }
    let mut volumes: Vec<VolumeRecord> = Vec::with_capacity(count);
    let mut at = HEADER;
    for _ in 0..count {
        let volume = VolumeRecord::decode(&bytes[at..])?;
        volume.check(flat_length)?;
        if volumes.last().is_some_and(|last| last.id >= volume.id) {
            return Err(format!("volume {}: not in order of numbers", volume.id.0));
        }
        volumes.iter().try_for_each(|other| check_apart(other, &volume))?;
        at += volume.encoded_length();
        volumes.push(volume);
    }
    Ok(volumes)
}

/// Whether two volumes can be told apart and share no address.
fn check_apart(first: &VolumeRecord, second: &VolumeRecord) -> Result<(), String> {
    if first.name == second.name {
        let (name, first, second) = (&first.name, first.id.0, second.id.0);
        return Err(format!("volumes {first} and {second}: both have the name '{name}'"));
    }
    if first.base < second.end() && second.base < first.end() {
        let (first, second) = (first.id.0, second.id.0);
        return Err(format!("volumes {first} and {second}: they have addresses in common"));
    }
    Ok(())
}

fn decode_version_1(bytes: &[u8]) -> Undecodable {
    let checksum = Crc32c::new().update(&bytes[..VERSION_1_CHECKSUM_AT]).value();
    if checksum != u32_at(bytes, VERSION_1_CHECKSUM_AT) {
        return Undecodable::Damaged("whose superblock has a wrong checksum".into());
    }
    match LineSize::from_bytes(u64::from(u32_at(bytes, 12))) {
        Ok(line_size) => Undecodable::Older { version: 1, line_size },
        Err(error) => Undecodable::Damaged(format!("with {error}")),
    }
}

/// The CRC32C of a superblock, its own place taken as zero.
fn checksum(bytes: &[u8]) -> u32 {
    let before = Crc32c::new().update(&bytes[..CHECKSUM_AT]);
    before.update(&[0; 4]).update(&bytes[CHECKSUM_AT + 4..]).value()
}

/// Feature bits by name.
fn bits(kind: &str, set: u64) -> String {
    let numbers: Vec<_> =
        (0..64).filter(|bit| set >> bit & 1 == 1).map(|bit: u32| bit.to_string()).collect();
    format!("unknown {kind} feature bits {}", numbers.join(", "))
}

/// The superblock that counts, of what stands at the two places.
///
/// A copy that is damaged, absent or in the other's place does not count; one that this program
/// does not know enough for is the answer even if the other is known, and so is one of version 1,
/// behind which the second place is data.
///
/// # Errors
/// When there is none: what stands at the first place, or at the second if the first is zeroes.
pub fn newest(first: &[u8], second: &[u8]) -> Result<Superblock, Undecodable> {
    let (first_read, second_read) = (placed(first, 0), placed(second, SUPERBLOCK_REGION));
    match (first_read, second_read) {
        (Ok(first), Ok(second)) => {
            Ok(if first.sequence > second.sequence { first } else { second })
        }
        (Err(older @ Undecodable::Older { .. }), _) => Err(older),
        (Err(unsupported @ Undecodable::Unsupported(_)), _)
        | (_, Err(unsupported @ Undecodable::Unsupported(_))) => Err(unsupported),
        (Ok(valid), Err(_)) => Ok(valid),
        // Whoever overwrites the front of a device takes it over, whatever is left further back.
        (Err(Undecodable::Foreign), Ok(valid)) if !bears(first, valid.format_id) => {
            Err(Undecodable::Foreign)
        }
        (Err(_), Ok(valid)) => Ok(valid),
        (Err(Undecodable::Zeroed), Err(second)) => Err(second),
        (Err(first), Err(_)) => Err(first),
    }
}

/// The superblock at a place, if it belongs there.
fn placed(bytes: &[u8], offset: u64) -> Result<Superblock, Undecodable> {
    let superblock = Superblock::decode(bytes)?;
    if superblock.offset() == offset {
        return Ok(superblock);
    }
    Err(Undecodable::Damaged("whose superblock stands at the other one's place".into()))
}

/// Whether bytes without the magic are still recognisable as a superblock of this format.
fn bears(bytes: &[u8], format_id: FormatId) -> bool {
    bytes.get(48..64) == Some(&format_id.0[..])
}

#[cfg(test)]
mod tests;
