//! Secrets as people keep them: `DHHC-1:hh:BASE64:`.
//!
//! ```text
//!   DHHC-1:01:Base64( secret, 32, 48 or 64 bytes │ CRC-32 of it, 4 bytes little-endian ):
//!          └─ 00: used as it is; 01, 02, 03: through HMAC with SHA-256, -384, -512 first
//! ```
//! Base §8.13.5.8 "DH-HMAC-CHAP Security Requirements" has the representation; nvme-cli, Linux and
//! SPDK read the same. Memory that held a secret is overwritten, and neither `Debug` nor an error
//! shows any of one.
//!
//! Absent: files; whoever reads one overwrites what it read.

use std::fmt;

use base64ct::{Base64, Encoding};
use block_io::DeviceError;
use crc_fast::CrcAlgorithm::Crc32IsoHdlc;
use zeroize::Zeroizing;

use super::hash::{Digest, hmac};
use super::{HashFunction, Random};

/// What every secret begins with: the format and its version.
const PREFIX: &str = "DHHC-1:";
/// Bytes of the checksum.
const CHECKSUM_LENGTH: usize = 4;
/// What a secret is transformed with beside its owner's name. Base §8.13.5
const TRANSFORMATION_LABEL: &[u8] = b"NVMe-over-Fabrics";

/// The longest representation there is; more need not be read.
pub const TEXT_LENGTH_MAX: usize = PREFIX.len() + 3 + (64 + CHECKSUM_LENGTH).div_ceil(3) * 4 + 1;

/// A secret of a host or a controller.
#[derive(Clone)]
pub struct Secret {
    /// Absent: used as it is.
    transformation: Option<HashFunction>,
    bytes: Zeroizing<Vec<u8>>,
}

impl Secret {
    /// The secret of this representation; blanks and newlines around it do not matter.
    ///
    /// # Errors
    /// Which part of it is wrong, without showing any of it.
    pub fn parse(text: &str) -> Result<Self, DeviceError> {
        let wrong = |what: &str| DeviceError::new(format!("DH-HMAC-CHAP secret: {what}"));
        let rest = text.trim().strip_prefix(PREFIX);
        let rest = rest.ok_or_else(|| wrong("must begin with `DHHC-1:`, as in DHHC-1:00:…:"))?;
        let (id, rest) =
            rest.split_once(':').ok_or_else(|| wrong("the hash field must end with `:`"))?;
        let transformation = match id {
            "00" => None,
            "01" => Some(HashFunction::Sha256),
            "02" => Some(HashFunction::Sha384),
            "03" => Some(HashFunction::Sha512),
            _ => return Err(wrong("the hash field must be 00, 01, 02 or 03")),
        };
        let encoded = rest.strip_suffix(':').ok_or_else(|| wrong("must end with `:`"))?;
        let decoded = Base64::decode_vec(encoded).map(Zeroizing::new);
        let decoded =
            decoded.map_err(|_| wrong("the key field must be Base64 with its padding"))?;
        let length = decoded.len().saturating_sub(CHECKSUM_LENGTH);
        if !matches!(length, 32 | 48 | 64) {
            return Err(wrong(&format!(
                "the key field has {} bytes: must be a key of 32, 48 or 64 and 4 of its CRC-32",
                decoded.len()
            )));
        }
        let (key, checksum) = decoded.split_at(length);
        if checksum != crc32(key) {
            return Err(wrong("the CRC-32 at the end of the key field does not match: mistyped?"));
        }
        Ok(Self { transformation, bytes: Zeroizing::new(key.to_vec()) })
    }

    /// A new secret, of the transformation's length, 32 bytes without one.
    pub fn generate(transformation: Option<HashFunction>, random: &mut Random) -> Self {
        let length = transformation.map_or(32, HashFunction::length);
        Self { transformation, bytes: random.bytes(length) }
    }

    /// Its representation.
    pub fn text(&self) -> Zeroizing<String> {
        let id = self.transformation.map_or(0, HashFunction::id);
        let mut bytes = Zeroizing::new(Vec::with_capacity(self.bytes.len() + CHECKSUM_LENGTH));
        bytes.extend_from_slice(&self.bytes);
        bytes.extend_from_slice(&crc32(&self.bytes));
        let encoded = Zeroizing::new(Base64::encode_string(&bytes));
        let mut text = Zeroizing::new(String::with_capacity(TEXT_LENGTH_MAX));
        text.push_str(&format!("{PREFIX}{id:02}:"));
        text.push_str(&encoded);
        text.push(':');
        text
    }

    /// What the secret's owner, by this name, answers challenges with: Kt. Base §8.13.5
    pub(super) fn transformed(&self, owner: &str) -> Transformed {
        match self.transformation {
            None => Transformed::Plain(self.bytes.clone()),
            Some(function) => Transformed::Hashed(hmac(
                function,
                &self.bytes,
                &[owner.as_bytes(), TRANSFORMATION_LABEL],
            )),
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(not shown)")
    }
}

fn crc32(bytes: &[u8]) -> [u8; CHECKSUM_LENGTH] {
    (crc_fast::checksum(Crc32IsoHdlc, bytes) as u32).to_le_bytes()
}

/// A secret tied to a name.
pub(super) enum Transformed {
    Plain(Zeroizing<Vec<u8>>),
    Hashed(Digest),
}

impl std::ops::Deref for Transformed {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Plain(bytes) => bytes,
            Self::Hashed(digest) => digest,
        }
    }
}
