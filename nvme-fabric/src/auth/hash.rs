//! SHA-2 and HMAC by their identifiers, in memory that is overwritten afterwards.

use std::fmt;
use std::ops::Deref;

use hmac::{Hmac, KeyInit, Mac};
use sha2::digest::Digest as _;
use sha2::{Sha256, Sha384, Sha512};
use zeroize::Zeroizing;

use super::HashFunction;

/// A hash, or a secret made by one.
#[derive(Clone)]
pub(crate) struct Digest {
    bytes: Zeroizing<[u8; 64]>,
    length: usize,
}

impl Digest {
    fn new(from: &[u8]) -> Self {
        let mut bytes = Zeroizing::new([0; 64]);
        bytes[..from.len()].copy_from_slice(from);
        Self { bytes, length: from.len() }
    }
}

impl Deref for Digest {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({} bytes)", self.length)
    }
}

/// The hash of `bytes`.
pub(super) fn hash(function: HashFunction, bytes: &[u8]) -> Digest {
    match function {
        HashFunction::Sha256 => Digest::new(&Sha256::digest(bytes)),
        HashFunction::Sha384 => Digest::new(&Sha384::digest(bytes)),
        HashFunction::Sha512 => Digest::new(&Sha512::digest(bytes)),
    }
}

/// HMAC (RFC 2104) of the parts one after the other.
pub(super) fn hmac(function: HashFunction, key: &[u8], parts: &[&[u8]]) -> Digest {
    match function {
        HashFunction::Sha256 => mac::<Hmac<Sha256>>(key, parts),
        HashFunction::Sha384 => mac::<Hmac<Sha384>>(key, parts),
        HashFunction::Sha512 => mac::<Hmac<Sha512>>(key, parts),
    }
}

fn mac<Function: Mac + KeyInit>(key: &[u8], parts: &[&[u8]]) -> Digest {
    let mut state =
        <Function as KeyInit>::new_from_slice(key).expect("HMAC takes keys of any length");
    for part in parts {
        state.update(part);
    }
    Digest::new(&state.finalize().into_bytes())
}
