//! Encryption of what lies on the cache device: AES-256-XTS (IEEE 1619), one key a volume.
//!
//! ```text
//!   key file ──64 bytes──▶ VolumeKey ──▶ LineCipher ──key_check──▶ superblock
//!                              │             │
//!                for_volume ◀──┘   plain ◀───┴───▶ cipher text, block by block
//! ```
//! A data unit is a block of 4 KiB and its tweak is the block's number within the volume, so that
//! any block can be read or written alone and a byte costs no more than a byte on the device. A
//! volume's last block may be shorter. What this protects against, and what it does not, is in
//! `docs/design/0006-encryption.md`.
//!
//! Absent: reading keys ([`crate::backend::key_source`]), and integrity: a changed block decrypts
//! to noise, and an old one to what it was.

mod xts;

use std::fmt;

use block_io::{Buffer, DeviceError};
use zeroize::Zeroizing;

use super::blocks::BLOCK_SIZE;
use xts::{Decryption, Encryption, Region, TweakBytes};

/// Bytes of a key: one AES-256 key for the data, one for the tweak.
pub const KEY_LENGTH: usize = 64;

/// Bytes of a key check.
pub const KEY_CHECK_LENGTH: usize = 16;

/// What is derived from a key says with this what it is for; another version is another value.
const KEY_CHECK_LABEL: &[u8] = b"forebay key check 1";
const VOLUME_LABEL: &[u8] = b"forebay volume key 1";

/// A volume's key. Its memory is overwritten when it is dropped, and nothing shows it.
pub struct VolumeKey(Box<Zeroizing<[u8; KEY_LENGTH]>>);

impl VolumeKey {
    /// The key of these bytes, which the caller overwrites.
    ///
    /// # Errors
    /// When its halves are equal: XTS is then no better than a weaker mode, and FIPS 140-3
    /// implementation guidance C.I forbids it. Random keys never are.
    pub fn new(bytes: &[u8; KEY_LENGTH]) -> Result<Self, DeviceError> {
        // Boxed before it is filled: moving the key moves a pointer and leaves no copy behind.
        let mut own = Box::new(Zeroizing::new([0; KEY_LENGTH]));
        own.copy_from_slice(bytes);
        let (data, tweak) = own.split_at(KEY_LENGTH / 2);
        // Every byte is looked at, so that the time tells nothing.
        let difference = data.iter().zip(tweak).fold(0, |all, (a, b)| all | (a ^ b));
        if difference == 0 {
            return Err(DeviceError::new(format!(
                "encryption key: its two halves are equal; use {KEY_LENGTH} random bytes"
            )));
        }
        Ok(Self(own))
    }

    /// The key for one volume of one formatting of a cache device, derived from this one:
    /// HKDF-Expand (RFC 5869) with SHA-512. So volumes that were given the same key file share no
    /// key, and nothing from before a formatting can be put back after it.
    #[must_use]
    pub fn for_volume(&self, format_id: &[u8; 16], volume: u16) -> Self {
        let volume = volume.to_le_bytes();
        let purpose = [VOLUME_LABEL, format_id, &volume].concat();
        let mut bytes = Zeroizing::new([0; KEY_LENGTH]);
        xts::expand(&self.0, &purpose, &mut *bytes);
        Self::new(&bytes).expect("one in 2^256 derived keys has equal halves")
    }

    /// Tells whether two keys are the same without telling anything of them: see
    /// [`LineCipher::key_check`].
    fn check(&self) -> [u8; KEY_CHECK_LENGTH] {
        let mut check = [0; KEY_CHECK_LENGTH];
        xts::expand(&self.0, KEY_CHECK_LABEL, &mut check);
        check
    }
}

impl fmt::Debug for VolumeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("VolumeKey(not shown)")
    }
}

/// Encrypts and decrypts one volume's blocks.
pub struct LineCipher {
    encryption: Encryption,
    decryption: Decryption,
    key_check: [u8; KEY_CHECK_LENGTH],
}

impl LineCipher {
    /// Expands `key`, once for each direction. What is expanded is overwritten when dropped.
    pub fn new(key: &VolumeKey) -> Self {
        Self {
            encryption: Encryption::new(&key.0),
            decryption: Decryption::new(&key.0),
            key_check: key.check(),
        }
    }

    /// Encrypts all of `source`, which lies at `volume_offset` bytes of the volume, into `target`:
    /// other memory, or the same bytes.
    ///
    /// # Panics
    /// When the lengths differ, are no multiple of 512, the offset is no multiple of 4096, or the
    /// two share only a part of their bytes.
    #[track_caller]
    pub fn encrypt(&self, volume_offset: u64, source: &Buffer, target: &Buffer) {
        assert_eq!(source.len(), target.len(), "lengths of plain text and cipher text");
        let (from, to) = (Region::of(source), Region::of(target));
        assert!(from.is_apart_or_same(to), "cipher text over a part of its plain text");
        for (at, length, tweak) in data_units(volume_offset, source.len()) {
            self.encryption.unit(&tweak, from.part(at, length), to.part(at, length));
        }
    }

    /// Decrypts all of `bytes`, which lie at `volume_offset` of the volume, in place.
    ///
    /// # Panics
    /// When the length is no multiple of 512, or the offset none of 4096.
    #[track_caller]
    pub fn decrypt(&self, volume_offset: u64, bytes: &Buffer) {
        let region = Region::of(bytes);
        for (at, length, tweak) in data_units(volume_offset, bytes.len()) {
            self.decryption.unit(&tweak, region.part(at, length), region.part(at, length));
        }
    }

    /// What the superblock keeps to tell the right key from a wrong one: HKDF-Expand with SHA-512
    /// of a label of its own, cut to 128 bits. To whoever has no key it is 16 random bytes; a wrong
    /// key passes once in 2^128.
    pub fn key_check(&self) -> [u8; KEY_CHECK_LENGTH] {
        self.key_check
    }
}

impl fmt::Debug for LineCipher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LineCipher(AES-256-XTS)")
    }
}

/// The data units of `length` bytes at `volume_offset`: where in them, how long, and their tweak,
/// the block's number as 128 bits, little-endian. IEEE 1619-2018 §5.1
#[track_caller]
fn data_units(
    volume_offset: u64,
    length: usize,
) -> impl Iterator<Item = (usize, usize, TweakBytes)> {
    const UNIT: usize = BLOCK_SIZE as usize;
    assert!(
        volume_offset.is_multiple_of(BLOCK_SIZE),
        "offset {volume_offset} of encrypted bytes is no multiple of {BLOCK_SIZE}"
    );
    assert!(length.is_multiple_of(512), "length {length} of encrypted bytes: no multiple of 512");
    let first = volume_offset / BLOCK_SIZE;
    (0..length)
        .step_by(UNIT)
        .zip(first..)
        .map(move |(at, block)| (at, UNIT.min(length - at), u128::from(block).to_le_bytes()))
}

#[cfg(test)]
mod tests;
