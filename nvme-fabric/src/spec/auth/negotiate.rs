//! AUTH_Negotiate: which hashes and groups the host can use.

use super::{Kind, MessageError, TYPE_DH_HMAC_CHAP, need, open, start};

/// Bytes before the protocol descriptors.
const FIXED_LENGTH: usize = 8;
/// Bytes of a protocol descriptor.
const DESCRIPTOR_LENGTH: usize = 64;
/// Protocol descriptors that are looked at.
const DESCRIPTORS_MAX: usize = 8;
/// Room for hash identifiers, and as much again for groups, in a descriptor.
const IDENTIFIERS_MAX: usize = 30;
/// Where hash identifiers begin in a descriptor.
const HASHES: usize = 4;
/// Where group identifiers begin in a descriptor.
const GROUPS: usize = HASHES + IDENTIFIERS_MAX;

/// Base §8.13.5 "AUTH_Negotiate Message".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Negotiate {
    /// T_ID, bytes 4-5.
    pub transaction: u16,
    /// SC_C, byte 6: whether a secure channel shall follow; 0 for none.
    pub secure_channel: u8,
    /// HashIDs of the DH-HMAC-CHAP descriptor, the host's order.
    pub hashes: Vec<u8>,
    /// DHgIDs of the same.
    pub groups: Vec<u8>,
}

impl Negotiate {
    /// The typed form. Of several descriptors, the first for DH-HMAC-CHAP counts.
    ///
    /// # Errors
    /// When it is another message, too short, or offers no DH-HMAC-CHAP.
    pub fn parse(message: &[u8]) -> Result<Self, MessageError> {
        let transaction = open(message, Kind::Negotiate, FIXED_LENGTH)?;
        let count = usize::from(message[7]);
        if !(1..=DESCRIPTORS_MAX).contains(&count) {
            return Err(MessageError::payload("NAPD", count, "1 to 8"));
        }
        need(message, FIXED_LENGTH + count * DESCRIPTOR_LENGTH)?;
        let descriptors = message[FIXED_LENGTH..].chunks_exact(DESCRIPTOR_LENGTH).take(count);
        let Some(descriptor) = descriptors.clone().find(|one| one[0] == TYPE_DH_HMAC_CHAP) else {
            let first = usize::from(message[FIXED_LENGTH]);
            return Err(MessageError::payload("AUTHID", first, "1 (DH-HMAC-CHAP)"));
        };
        let list = |field, count: u8, start: usize| {
            let count = usize::from(count);
            if !(1..=IDENTIFIERS_MAX).contains(&count) {
                return Err(MessageError::payload(field, count, "1 to 30"));
            }
            Ok(descriptor[start..start + count].to_vec())
        };
        Ok(Self {
            transaction,
            secure_channel: message[6],
            hashes: list("HALEN", descriptor[2], HASHES)?,
            groups: list("DHLEN", descriptor[3], GROUPS)?,
        })
    }

    /// The bytes of it, with one descriptor of at most 30 hashes and groups.
    pub fn encode(&self) -> Vec<u8> {
        let length = FIXED_LENGTH + DESCRIPTOR_LENGTH;
        let mut message = start(Kind::Negotiate, self.transaction, length);
        message[6] = self.secure_channel;
        message[7] = 1;
        let descriptor = &mut message[FIXED_LENGTH..];
        descriptor[0] = TYPE_DH_HMAC_CHAP;
        let hashes = &self.hashes[..self.hashes.len().min(IDENTIFIERS_MAX)];
        let groups = &self.groups[..self.groups.len().min(IDENTIFIERS_MAX)];
        descriptor[2] = hashes.len() as u8;
        descriptor[3] = groups.len() as u8;
        descriptor[HASHES..HASHES + hashes.len()].copy_from_slice(hashes);
        descriptor[GROUPS..GROUPS + groups.len()].copy_from_slice(groups);
        message
    }
}
