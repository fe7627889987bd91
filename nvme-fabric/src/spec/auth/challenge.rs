//! DH-HMAC-CHAP_Challenge: what the host is to answer, and the controller's half of the exchange.

use super::{Explanation, Group, HashFunction, Kind, MessageError, hash_length, need, open, start};
use crate::spec::field::{put, put_u16, put_u32, u16_at, u32_at};

/// Bytes before the challenge.
const FIXED_LENGTH: usize = 16;

/// Base §8.13.5 "DH-HMAC-CHAP_Challenge Message".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// T_ID, bytes 4-5.
    pub transaction: u16,
    /// HashID, byte 8; HL, byte 6, is its length.
    pub hash: HashFunction,
    /// DHgID, byte 9.
    pub group: Group,
    /// SEQNUM, bytes 12-15: S1.
    pub sequence: u32,
    /// C1, from byte 16; HL bytes.
    pub challenge: Vec<u8>,
    /// The controller's public value, big-endian; DHVLEN bytes (10-11). Empty for [`Group::Null`].
    pub public: Vec<u8>,
}

impl Challenge {
    /// The typed form.
    ///
    /// # Errors
    /// When it is another message, names a hash or a group that does not exist, or its lengths do
    /// not fit them.
    pub fn parse(message: &[u8]) -> Result<Self, MessageError> {
        let transaction = open(message, Kind::Challenge, FIXED_LENGTH)?;
        let hash = HashFunction::from_id(message[8]).ok_or(MessageError {
            explanation: Explanation::HashUnusable,
            ..MessageError::payload("HashID", message[8].into(), "1, 2 or 3")
        })?;
        let group = Group::from_id(message[9]).ok_or(MessageError {
            explanation: Explanation::GroupUnusable,
            ..MessageError::payload("DHgID", message[9].into(), "0 to 5")
        })?;
        let length = hash_length(message)?;
        if length != hash.length() {
            return Err(MessageError {
                explanation: Explanation::HashUnusable,
                ..MessageError::payload("HL", length, "the length of the hash that HashID names")
            });
        }
        let public_length = usize::from(u16_at(message, 10));
        check_public_length(group, public_length)?;
        need(message, FIXED_LENGTH + length + public_length)?;
        let (challenge, rest) = message[FIXED_LENGTH..].split_at(length);
        Ok(Self {
            transaction,
            hash,
            group,
            sequence: u32_at(message, 12),
            challenge: challenge.to_vec(),
            public: rest[..public_length].to_vec(),
        })
    }

    /// The bytes of it.
    pub fn encode(&self) -> Vec<u8> {
        let length = FIXED_LENGTH + self.challenge.len() + self.public.len();
        let mut message = start(Kind::Challenge, self.transaction, length);
        message[6] = self.hash.length() as u8;
        message[8] = self.hash.id();
        message[9] = self.group.id();
        put_u16(&mut message, 10, self.public.len() as u16);
        put_u32(&mut message, 12, self.sequence);
        put(&mut message, FIXED_LENGTH, &self.challenge);
        put(&mut message, FIXED_LENGTH + self.challenge.len(), &self.public);
        message
    }
}

/// DHVLEN: nothing without a group, else a number of at most the group's length.
pub(super) fn check_public_length(group: Group, length: usize) -> Result<(), MessageError> {
    let fits = (length == 0) == (group == Group::Null) && length <= group.length();
    if fits {
        return Ok(());
    }
    let expected = "the length of the group's numbers, 0 for NULL";
    Err(MessageError::payload("DHVLEN", length, expected))
}
