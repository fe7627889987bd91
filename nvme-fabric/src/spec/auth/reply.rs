//! DH-HMAC-CHAP_Reply: the host's answer, and its own challenge to the controller.

use super::challenge::check_public_length;
use super::{Group, HashFunction, Kind, MessageError, hash_length, need, open, start};
use crate::spec::field::{put, put_u16, put_u32, u16_at, u32_at};

/// Bytes before the response.
const FIXED_LENGTH: usize = 16;

/// Base §8.13.5.4.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// T_ID, bytes 4-5.
    pub transaction: u16,
    /// R1, from byte 16; HL (byte 6) bytes.
    pub response: Vec<u8>,
    /// C2, of the same length, when CVALID (byte 8) says that there is one.
    pub challenge: Option<Vec<u8>>,
    /// SEQNUM, bytes 12-15: S2; 0 when the controller need not prove itself.
    pub sequence: u32,
    /// The host's public value, big-endian; DHVLEN bytes (10-11). Empty for [`Group::Null`].
    pub public: Vec<u8>,
}

impl Reply {
    /// The typed form of a reply to a challenge with this hash and group.
    ///
    /// # Errors
    /// When it is another message, or its lengths do not fit them.
    pub fn parse(message: &[u8], hash: HashFunction, group: Group) -> Result<Self, MessageError> {
        let transaction = open(message, Kind::Reply, FIXED_LENGTH)?;
        let length = hash_length(message)?;
        if length != hash.length() {
            return Err(MessageError::payload("HL", length, "the length of the challenge's hash"));
        }
        let public_length = usize::from(u16_at(message, 10));
        check_public_length(group, public_length)?;
        need(message, FIXED_LENGTH + 2 * length + public_length)?;
        let (response, rest) = message[FIXED_LENGTH..].split_at(length);
        let (challenge, rest) = rest.split_at(length);
        Ok(Self {
            transaction,
            response: response.to_vec(),
            challenge: (message[8] & 1 != 0).then(|| challenge.to_vec()),
            sequence: u32_at(message, 12),
            public: rest[..public_length].to_vec(),
        })
    }

    /// The bytes of it; a challenge that is absent is zeros.
    pub fn encode(&self) -> Vec<u8> {
        let hash = self.response.len();
        let length = FIXED_LENGTH + 2 * hash + self.public.len();
        let mut message = start(Kind::Reply, self.transaction, length);
        message[6] = hash as u8;
        put_u16(&mut message, 10, self.public.len() as u16);
        put_u32(&mut message, 12, self.sequence);
        put(&mut message, FIXED_LENGTH, &self.response);
        if let Some(challenge) = &self.challenge {
            message[8] = 1;
            put(&mut message, FIXED_LENGTH + hash, challenge);
        }
        put(&mut message, FIXED_LENGTH + 2 * hash, &self.public);
        message
    }
}
