//! The configured pre-shared key, and the text in which people carry it.
//!
//! ```text
//!   NVMeTLSkey-1:01:VRLbtnN9AQb2WXW3c9+wEf/DRLz0QuLdbYvEhwtdWwNf9LrZ:
//!   └ form ─────┘ │  └ base64 of the key's 32 or 48 bytes and their CRC-32, little-endian ┘
//!                 └ hash that makes the retained key of it: 00 none, 01 SHA-256, 02 SHA-384
//! ```
//! NVMe/TCP Transport 1.1 §3.6.1.5 ("PSK Interchange Format"). Memory that held any of a key is
//! overwritten when it is no longer used.
//!
//! Absent: making random keys; whoever has randomness gives the bytes.

use std::fmt;

use base64ct::{Base64, Encoding};
use crc_fast::CrcAlgorithm;
use zeroize::Zeroizing;

use super::KeyError;

/// The longest key: SHA-384's length.
pub(super) const SECRET_MAX: usize = 48;
/// Bytes of the CRC behind the key.
const CRC_LENGTH: usize = 4;
/// Characters of the longest key and its CRC.
const ENCODED_MAX: usize = (SECRET_MAX + CRC_LENGTH).div_ceil(3) * 4;
/// The form's name, with its version.
const PREFIX: &str = "NVMeTLSkey-1:";

/// A hash function, and with it a cipher suite.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hash {
    /// 01: TLS_AES_128_GCM_SHA256.
    Sha256,
    /// 02: TLS_AES_256_GCM_SHA384.
    Sha384,
}

impl Hash {
    /// Bytes of a digest, which is also the length of a key.
    pub const fn length(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha384 => 48,
        }
    }

    /// The number of it in identities and in the interchange form.
    pub const fn number(self) -> u8 {
        match self {
            Self::Sha256 => 1,
            Self::Sha384 => 2,
        }
    }

    /// The one whose digests have this length.
    pub(super) const fn of_length(length: usize) -> Option<Self> {
        match length {
            32 => Some(Self::Sha256),
            48 => Some(Self::Sha384),
            _ => None,
        }
    }
}

/// A secret of one hash's length, overwritten when dropped and never shown.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Secret {
    bytes: Zeroizing<[u8; SECRET_MAX]>,
    hash: Hash,
}

impl Secret {
    /// A secret of zeroes, to be filled.
    pub(super) fn empty(hash: Hash) -> Self {
        Self { bytes: Zeroizing::new([0; SECRET_MAX]), hash }
    }

    /// The secret of these bytes, when one of the hashes has their length.
    pub(super) fn of(bytes: &[u8]) -> Option<Self> {
        let mut secret = Self::empty(Hash::of_length(bytes.len())?);
        secret.bytes_mut().copy_from_slice(bytes);
        Some(secret)
    }

    /// The hash of its length.
    pub(super) const fn hash(&self) -> Hash {
        self.hash
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[..self.hash.length()]
    }

    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.hash.length()]
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} secret bytes", self.hash.length())
    }
}

/// A configured pre-shared key: what an administrator gives both ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfiguredPsk {
    secret: Secret,
    /// What makes the retained key of it; with none it is the retained key itself.
    retained_by: Option<Hash>,
}

impl ConfiguredPsk {
    /// A key of these bytes, 32 or 48, from which the hash of that length makes the retained key.
    ///
    /// # Errors
    /// When there are neither 32 nor 48 bytes.
    pub fn new(bytes: &[u8]) -> Result<Self, KeyError> {
        let secret = Secret::of(bytes).ok_or_else(|| wrong_length(bytes.len()))?;
        let retained_by = Some(secret.hash());
        Ok(Self { secret, retained_by })
    }

    /// The same, taken as the retained key as it is (hash 00).
    pub fn without_hash(self) -> Self {
        Self { retained_by: None, ..self }
    }

    /// Parses the interchange form; blanks around it are not part of it.
    ///
    /// # Errors
    /// What is wrong with it, without any of it.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let form = "a TLS key is NVMeTLSkey-1:HH:BASE64:, as `nvme gen-tls-key` makes it";
        let wrong = |what: &str| KeyError::new(format!("{what}; {form}"));
        let rest = text
            .trim()
            .strip_prefix(PREFIX)
            .ok_or_else(|| wrong("the key does not start with NVMeTLSkey-1:"))?;
        let (hash, rest) = rest.split_once(':').ok_or_else(|| wrong("the hash is missing"))?;
        let retained_by = match hash {
            "00" => None,
            "01" => Some(Hash::Sha256),
            "02" => Some(Hash::Sha384),
            _ => return Err(wrong("the hash must be 00, 01 or 02")),
        };
        let encoded = rest.strip_suffix(':').ok_or_else(|| wrong("the last `:` is missing"))?;
        let mut decoded = Zeroizing::new([0; SECRET_MAX + CRC_LENGTH]);
        let length = Base64::decode(encoded, decoded.as_mut_slice())
            .map_err(|_| wrong("what is between the last `:`s is no base64 of a key"))?
            .len();
        let length = length.saturating_sub(CRC_LENGTH);
        let (bytes, crc) = decoded.split_at(length);
        let secret = Secret::of(bytes).ok_or_else(|| wrong_length(length))?;
        if crc[..CRC_LENGTH] != crc_of(bytes) {
            return Err(wrong("the key's CRC-32 does not match: a character is wrong"));
        }
        if retained_by.is_some_and(|hash| hash != secret.hash()) {
            return Err(wrong(&format!("hash {hash} does not go with a key of {length} bytes")));
        }
        Ok(Self { secret, retained_by })
    }

    /// The interchange form: the secret itself, for a file that only its owner can read.
    pub fn to_interchange(&self) -> Zeroizing<String> {
        let number = self.retained_by.map_or(0, Hash::number);
        let length = self.secret.bytes().len();
        let mut bytes = Zeroizing::new([0; SECRET_MAX + CRC_LENGTH]);
        bytes[..length].copy_from_slice(self.secret.bytes());
        bytes[length..length + CRC_LENGTH].copy_from_slice(&crc_of(self.secret.bytes()));
        // Long enough from the start: a string that grows leaves copies behind.
        let mut text = Zeroizing::new(String::with_capacity(2 * SECRET_MAX));
        text.push_str(PREFIX);
        text.push_str(&format!("{number:02}:"));
        let mut encoded = Zeroizing::new([0; ENCODED_MAX]);
        if let Ok(encoded) = Base64::encode(&bytes[..length + CRC_LENGTH], encoded.as_mut_slice()) {
            text.push_str(encoded);
        }
        text.push(':');
        text
    }

    pub(super) const fn secret(&self) -> &Secret {
        &self.secret
    }

    pub(super) const fn retained_by(&self) -> Option<Hash> {
        self.retained_by
    }
}

fn wrong_length(length: usize) -> KeyError {
    KeyError::new(format!("a TLS key of {length} bytes: must be 32 or 48"))
}

fn crc_of(bytes: &[u8]) -> [u8; CRC_LENGTH] {
    // The algorithm has 32 bits, of which the crate makes 64.
    (crc_fast::checksum(CrcAlgorithm::Crc32IsoHdlc, bytes) as u32).to_le_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The keys of libnvme's test/psk.c; the first is the specification's example.
    const KEY_32: [u8; 32] = [
        0x55, 0x12, 0xdb, 0xb6, 0x73, 0x7d, 0x01, 0x06, 0xf6, 0x59, 0x75, 0xb7, 0x73, 0xdf, 0xb0,
        0x11, 0xff, 0xc3, 0x44, 0xbc, 0xf4, 0x42, 0xe2, 0xdd, 0x6d, 0x8b, 0xc4, 0x87, 0x0b, 0x5d,
        0x5b, 0x03,
    ];
    const NONE: &str = "NVMeTLSkey-1:00:VRLbtnN9AQb2WXW3c9+wEf/DRLz0QuLdbYvEhwtdWwNf9LrZ:";
    const SHA_256: &str = "NVMeTLSkey-1:01:VRLbtnN9AQb2WXW3c9+wEf/DRLz0QuLdbYvEhwtdWwNf9LrZ:";
    const SHA_384: &str = "NVMeTLSkey-1:02:VRLbtnN9AQb2WXW3c9+wEf/DRLz0QuLdbYvEhwtdWwP/w0S89ELi3\
                           W2LxIcLXVsDn8kXZQ==:";

    fn key_48() -> Vec<u8> {
        [&KEY_32[..], &KEY_32[16..]].concat()
    }

    #[test]
    fn the_interchange_form_of_public_vectors_and_back() {
        let keys = [
            (ConfiguredPsk::new(&KEY_32).unwrap().without_hash(), NONE),
            (ConfiguredPsk::new(&KEY_32).unwrap(), SHA_256),
            (ConfiguredPsk::new(&key_48()).unwrap(), SHA_384),
        ];
        for (key, text) in keys {
            assert_eq!(*key.to_interchange(), text);
            assert_eq!(ConfiguredPsk::parse(&format!(" {text}\n")), Ok(key));
        }
    }

    #[test]
    fn a_bad_key_is_refused_with_what_is_wrong_and_nothing_of_the_secret() {
        let damaged = SHA_256.replace("VRL", "VRM");
        let cases = [
            ("", "NVMeTLSkey-1:"),
            ("NVMeTLSkey-2:01:VRLb:", "NVMeTLSkey-1:"),
            ("NVMeTLSkey-1:VRLbtnN9", "hash"),
            (&SHA_256.replace(":01:", ":03:"), "00, 01 or 02"),
            (&SHA_256.replace(":01:", ":02:"), "does not go with a key of 32 bytes"),
            (SHA_256.trim_end_matches(':'), "last `:`"),
            ("NVMeTLSkey-1:01:VRLbtnN9AQb2WXW3:", "must be 32 or 48"),
            ("NVMeTLSkey-1:01:VQ==:", "must be 32 or 48"),
            ("NVMeTLSkey-1:01::", "must be 32 or 48"),
            (&SHA_256.replace("VRL", "V*L"), "no base64"),
            (&SHA_384.replace("VRL", "VRLVRLVRLVRL"), "no base64"),
            (&damaged, "CRC-32"),
        ];
        for (text, expected) in cases {
            let error = ConfiguredPsk::parse(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
            assert!(!error.contains("VRL") && !error.contains("VRM"), "{error}");
        }
    }

    #[test]
    fn a_key_does_not_show_itself() {
        let shown = format!("{:?}", ConfiguredPsk::parse(SHA_384));
        assert!(shown.contains("48 secret bytes") && !shown.contains("85"), "{shown}");
    }
}
