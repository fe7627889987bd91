//! What a superblock keeps of each volume: who its origin is, where its lines stand in the flat
//! address space, and what proved, when the cache was last filled, that nobody else wrote to it.
//!
//! ```text
//!   0    2     3     4     5     6    8      12  16    24    32    40     48       64        128
//!   id   kind  name  text  gen.  0    flags  0   size  base  span  epoch  key      generation │
//!   u16  u8    len   len   len        u32        u64   u64   u64   u64    check 16 64         │
//!                                      name, then the identity's text, as long as they are ◀──┘
//! ```
//! A generation always takes its whole 64 bytes, so that a new one never makes a superblock grow.
//!
//! Absent: whether a record suits the origin at hand.

use std::fmt;

use block_io::DeviceError;

use super::{array, u16_at, u32_at, u64_at};
use crate::cache::config::{VOLUMES_MAX, VolumeId};

/// Bytes of a volume's name at the most.
pub const NAME_MAX: usize = 64;
/// Bytes of an identity's text at the most.
pub const IDENTITY_MAX: usize = 96;
/// Bytes of a generation at the most.
pub const GENERATION_MAX: usize = 64;
/// `base` and `span` of a volume are multiples of this.
pub const VOLUME_ALIGNMENT: u64 = 64 << 20;

/// Bytes of a record without its name and its identity's text.
const FIXED: usize = 128;

/// How an origin is told from every other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum IdentityKind {
    /// It cannot be told: memory, a device without a serial number. Never served warm.
    Unknown = 0,
    /// A regular file, by its file system and inode.
    File = 1,
    /// A block device of this machine, by its serial number, WWID or partition's UUID.
    BlockDevice = 2,
    /// An NVMe namespace, by NGUID, UUID or EUI-64, or else its subsystem's serial number.
    NvmeNamespace = 3,
    /// By a name that the caller vouches for.
    Assigned = 4,
}

impl IdentityKind {
    const ALL: [Self; 5] =
        [Self::Unknown, Self::File, Self::BlockDevice, Self::NvmeNamespace, Self::Assigned];
}

impl fmt::Display for IdentityKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "unknown",
            Self::File => "file",
            Self::BlockDevice => "block device",
            Self::NvmeNamespace => "NVMe namespace",
            Self::Assigned => "assigned",
        })
    }
}

/// Which origin it is, wherever it is found.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OriginIdentity {
    kind: IdentityKind,
    text: String,
}

impl OriginIdentity {
    /// An identity of that kind; `text` is 1 to 96 bytes, without control characters.
    ///
    /// # Errors
    /// When the text is none of that.
    pub fn new(kind: IdentityKind, text: impl Into<String>) -> Result<Self, DeviceError> {
        let text = text.into();
        check_text("identity", &text, IDENTITY_MAX).map_err(DeviceError::new)?;
        Ok(Self { kind, text })
    }

    /// Of an origin that cannot be told from others.
    pub fn unknown() -> Self {
        Self { kind: IdentityKind::Unknown, text: "unknown".into() }
    }

    /// The kind.
    pub const fn kind(&self) -> IdentityKind {
        self.kind
    }

    /// What tells it from others of its kind.
    pub fn text(&self) -> &str {
        &self.text
    }
}

impl fmt::Display for OriginIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            IdentityKind::Unknown => write!(f, "unknown"),
            kind => write!(f, "{kind} {}", self.text),
        }
    }
}

/// What changes whenever somebody writes to the origin behind the cache's back: 1 to 64 bytes that
/// are only compared. The default, of no bytes, is that of an origin that offers none.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Generation(Vec<u8>);

impl Generation {
    /// A generation of at most 64 bytes.
    ///
    /// # Errors
    /// When there are more.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self, DeviceError> {
        let bytes = bytes.into();
        if bytes.len() > GENERATION_MAX {
            return Err(DeviceError::new(format!(
                "generation of {} bytes: must be at most {GENERATION_MAX}",
                bytes.len()
            )));
        }
        Ok(Self(bytes))
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Whether there is none.
    pub fn is_absent(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match std::str::from_utf8(&self.0) {
            Ok("") => f.write_str("none"),
            Ok(text) if !text.chars().any(char::is_control) => f.write_str(text),
            _ => self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}")),
        }
    }
}

/// One volume of a cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VolumeRecord {
    /// Its place in the table, below 256.
    pub id: VolumeId,
    /// Its name, of 1 to 64 bytes, unlike any other of the cache.
    pub name: String,
    /// Its origin.
    pub identity: OriginIdentity,
    /// Bytes of the origin.
    pub size: u64,
    /// Its first byte in the flat address space; a multiple of 64 MiB.
    pub base: u64,
    /// Bytes kept for it there, at least `size`; a multiple of 64 MiB.
    pub span: u64,
    /// The origin's generation when the cache was last known to suit it.
    pub generation: Generation,
    /// The number of its last attachment; the host's attachment record says the same, or the
    /// origin was used without this cache since.
    pub attach_epoch: u64,
    /// Tells a wrong key from the right one, where the slots are encrypted.
    pub key_check: [u8; 16],
    /// See [`Self::ENCRYPTED`] and [`Self::LEASED`]. Unknown flags are kept.
    pub flags: u32,
}

impl VolumeRecord {
    /// Flag: the slots hold ciphertext, and `key_check` applies.
    pub const ENCRYPTED: u32 = 1;
    /// Flag: the volume is used under a lease that ends. Where a start finds it, the run before
    /// did not end in order while the lease was held, and somebody else may have written since.
    pub const LEASED: u32 = 2;

    /// The end of its part of the flat address space.
    pub const fn end(&self) -> u64 {
        self.base + self.span
    }

    /// Whether the record makes sense in a flat address space of `flat_length` bytes.
    pub(super) fn check(&self, flat_length: u64) -> Result<(), String> {
        let (id, base, span, size) = (self.id.0, self.base, self.span, self.size);
        if usize::from(id) >= VOLUMES_MAX {
            return Err(format!("volume {id}: the number must be below {VOLUMES_MAX}"));
        }
        check_text("name", &self.name, NAME_MAX).map_err(|why| format!("volume {id}: {why}"))?;
        for (name, value) in [("base", base), ("span", span)] {
            if !value.is_multiple_of(VOLUME_ALIGNMENT) {
                return Err(format!(
                    "volume {id}: {name} {value}: must be a multiple of {VOLUME_ALIGNMENT}"
                ));
            }
        }
        if span == 0 || size > span {
            return Err(format!(
                "volume {id}: span {span}: must be positive and at least its size, {size}"
            ));
        }
        match base.checked_add(span) {
            Some(end) if end <= flat_length => Ok(()),
            _ => Err(format!(
                "volume {id}: base {base}, span {span}: must end by {flat_length}, where the \
                 cache's addresses end"
            )),
        }
    }

    /// Bytes that it takes in a superblock.
    pub(super) fn encoded_length(&self) -> usize {
        FIXED + self.name.len() + self.identity.text.len()
    }

    /// Writes it at the front of `bytes`, which are zeroes and at least its length.
    pub(super) fn encode(&self, bytes: &mut [u8]) {
        let generation = self.generation.bytes();
        bytes[..2].copy_from_slice(&self.id.0.to_le_bytes());
        bytes[2] = self.identity.kind as u8;
        bytes[3] = self.name.len() as u8;
        bytes[4] = self.identity.text.len() as u8;
        bytes[5] = generation.len() as u8;
        bytes[8..12].copy_from_slice(&self.flags.to_le_bytes());
        let numbers = [self.size, self.base, self.span, self.attach_epoch];
        for (field, number) in bytes[16..48].chunks_exact_mut(8).zip(numbers) {
            field.copy_from_slice(&number.to_le_bytes());
        }
        bytes[48..64].copy_from_slice(&self.key_check);
        bytes[64..64 + generation.len()].copy_from_slice(generation);
        let (name, text) = bytes[FIXED..self.encoded_length()].split_at_mut(self.name.len());
        name.copy_from_slice(self.name.as_bytes());
        text.copy_from_slice(self.identity.text.as_bytes());
    }

    /// The record at the front of `bytes`.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, String> {
        if bytes.len() < FIXED {
            return Err("a volume table that ends within a record".into());
        }
        let id = u16_at(bytes, 0);
        let (name_length, text_length) = (usize::from(bytes[3]), usize::from(bytes[4]));
        let generation_length = usize::from(bytes[5]);
        if generation_length > GENERATION_MAX {
            return Err(format!("volume {id}: generation of {generation_length} bytes"));
        }
        let Some(texts) = bytes[FIXED..].get(..name_length + text_length) else {
            return Err("a volume table that ends within a record".into());
        };
        let text = |bytes: &[u8]| {
            let text = String::from_utf8(bytes.to_vec());
            text.map_err(|_| format!("volume {id}: a name or identity that is no UTF-8"))
        };
        let (name, identity) = texts.split_at(name_length);
        let kind = IdentityKind::ALL.into_iter().find(|kind| *kind as u8 == bytes[2]);
        let kind = kind.ok_or_else(|| format!("volume {id}: identity of kind {}", bytes[2]))?;
        let identity = text(identity)?;
        check_text("identity", &identity, IDENTITY_MAX)
            .map_err(|why| format!("volume {id}: {why}"))?;
        Ok(Self {
            id: VolumeId(id),
            name: text(name)?,
            identity: OriginIdentity { kind, text: identity },
            size: u64_at(bytes, 16),
            base: u64_at(bytes, 24),
            span: u64_at(bytes, 32),
            generation: Generation(bytes[64..64 + generation_length].to_vec()),
            attach_epoch: u64_at(bytes, 40),
            key_check: array(bytes, 48),
            flags: u32_at(bytes, 8),
        })
    }
}

fn check_text(name: &str, text: &str, most: usize) -> Result<(), String> {
    if text.is_empty() || text.len() > most {
        return Err(format!("{name} '{text}': {} bytes; must be 1 to {most}", text.len()));
    }
    if text.chars().any(char::is_control) {
        return Err(format!("{name} {text:?}: must hold no control characters"));
    }
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    type Damage = fn(&mut VolumeRecord);

    /// A record with every field different from the default.
    pub(crate) fn record(id: u16) -> VolumeRecord {
        VolumeRecord {
            id: VolumeId(id),
            name: format!("volume-{id}"),
            identity: OriginIdentity::new(IdentityKind::NvmeNamespace, format!("nguid-{id}"))
                .expect("a good identity"),
            size: 1 << 30,
            base: u64::from(id) << 31,
            span: 1 << 31,
            generation: Generation::new(*b"7").expect("short"),
            attach_epoch: 3,
            key_check: [5; 16],
            flags: VolumeRecord::ENCRYPTED,
        }
    }

    #[test]
    fn it_reads_as_it_was_written() {
        for (name, generation) in [("v", vec![]), ("vör", vec![0xff; 64])] {
            let generation = Generation::new(generation).expect("short");
            let record = VolumeRecord { name: name.into(), generation, ..record(255) };
            let mut bytes = vec![0; record.encoded_length()];
            record.encode(&mut bytes);
            assert_eq!(VolumeRecord::decode(&bytes), Ok(record));
            for length in 0..bytes.len() {
                assert!(VolumeRecord::decode(&bytes[..length]).is_err(), "{length} bytes");
            }
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        let damages: [(&str, Damage); 9] = [
            ("the number", |record| record.id = VolumeId(256)),
            ("name", |record| record.name.clear()),
            ("name", |record| record.name = "x".repeat(65)),
            ("control", |record| record.name = "a\nb".into()),
            ("base", |record| record.base += 4096),
            ("span", |record| record.span -= 4096),
            ("span 0", |record| record.span = 0),
            ("at least its size", |record| record.size = record.span + 1),
            ("must end by", |record| record.base = u64::MAX - (VOLUME_ALIGNMENT - 1)),
        ];
        assert_eq!(record(1).check(1 << 40), Ok(()));
        for (word, damage) in damages {
            let mut record = record(1);
            damage(&mut record);
            let refusal = record.check(1 << 40).expect_err(word);
            assert!(refusal.contains(word), "{word}: {refusal}");
        }
        assert!(OriginIdentity::new(IdentityKind::File, "x".repeat(97)).is_err());
        assert!(OriginIdentity::new(IdentityKind::File, "").is_err());
        assert!(Generation::new(vec![0; 65]).is_err());
    }

    #[test]
    fn generations_read_well() {
        let shown = |bytes: &[u8]| Generation::new(bytes).expect("short").to_string();
        assert_eq!(shown(b"snapshot-7"), "snapshot-7");
        assert_eq!(shown(&[0x00, 0xfe]), "00fe");
        assert_eq!(shown(b""), "none");
    }
}
