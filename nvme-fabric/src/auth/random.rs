//! Random bytes, as many as one likes, of a seed that was handed in.
//!
//! ```text
//!   key ──HMAC "output" n──▶ bytes          key ──HMAC "next"──▶ the next key; the old is gone
//! ```
//! Whoever learns the state learns nothing of what it gave before. With the same seed comes the
//! same sequence, which is what a simulation wants; everybody else hands in 32 bytes of the
//! system's.

use std::fmt;

use super::HashFunction::Sha512;
use super::hash::{Digest, hash, hmac};

/// Bytes of a seed.
pub const SEED_LENGTH: usize = 32;

/// See the module.
pub struct Random(Digest);

impl Random {
    /// The sequence of this seed, which must be used once.
    pub fn new(seed: &[u8; SEED_LENGTH]) -> Self {
        Self(hash(Sha512, seed))
    }

    /// The next `length` bytes, overwritten when dropped.
    pub fn bytes(&mut self, length: usize) -> zeroize::Zeroizing<Vec<u8>> {
        // Never grows, so no copy is left behind.
        let mut bytes = zeroize::Zeroizing::new(Vec::with_capacity(length));
        let mut counter = 0_u64;
        while bytes.len() < length {
            let block = hmac(Sha512, &self.0, &[b"output", &counter.to_le_bytes()]);
            let wanted = block.len().min(length - bytes.len());
            bytes.extend_from_slice(&block[..wanted]);
            counter += 1;
        }
        self.0 = hmac(Sha512, &self.0, &[b"next"]);
        bytes
    }

    /// A sequence number: any but zero, which means that there is none. Base §8.13.5.4
    pub(super) fn sequence(&mut self) -> u32 {
        let bytes = self.bytes(4);
        u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]).max(1)
    }
}

impl fmt::Debug for Random {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Random")
    }
}
