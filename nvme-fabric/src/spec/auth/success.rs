//! DH-HMAC-CHAP_Success1 and Success2: each end says that it believes the other.

use super::{HashFunction, Kind, MessageError, hash_length, need, open, start};
use crate::spec::field::put;

/// Bytes of Success2, and of Success1 before the response.
const FIXED_LENGTH: usize = 16;

/// The controller believes the host. Base §8.13.5 "DH-HMAC-CHAP_Success1 Message".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Success1 {
    /// T_ID, bytes 4-5.
    pub transaction: u16,
    /// HL, byte 6.
    pub hash: HashFunction,
    /// R2, from byte 16, HL bytes, when RVALID (byte 8) says that there is one.
    pub response: Option<Vec<u8>>,
}

impl Success1 {
    /// The typed form.
    ///
    /// # Errors
    /// When it is another message, or its lengths are not those of `hash`.
    pub fn parse(message: &[u8], hash: HashFunction) -> Result<Self, MessageError> {
        let transaction = open(message, Kind::Success1, FIXED_LENGTH)?;
        let length = hash_length(message)?;
        if length != hash.length() {
            return Err(MessageError::payload("HL", length, "the length of the challenge's hash"));
        }
        let response = if message[8] & 1 != 0 {
            need(message, FIXED_LENGTH + length)?;
            Some(message[FIXED_LENGTH..FIXED_LENGTH + length].to_vec())
        } else {
            None
        };
        Ok(Self { transaction, hash, response })
    }

    /// The bytes of it. The room for the response is there without one too.
    pub fn encode(&self) -> Vec<u8> {
        let length = FIXED_LENGTH + self.hash.length();
        let mut message = start(Kind::Success1, self.transaction, length);
        message[6] = self.hash.length() as u8;
        if let Some(response) = &self.response {
            message[8] = 1;
            put(&mut message, FIXED_LENGTH, response);
        }
        message
    }
}

/// The host believes the controller. Base §8.13.5 "DH-HMAC-CHAP_Success2 Message".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Success2 {
    /// T_ID, bytes 4-5.
    pub transaction: u16,
}

impl Success2 {
    /// The typed form.
    ///
    /// # Errors
    /// When it is another message or too short.
    pub fn parse(message: &[u8]) -> Result<Self, MessageError> {
        Ok(Self { transaction: open(message, Kind::Success2, FIXED_LENGTH)? })
    }

    /// The bytes of it.
    pub fn encode(&self) -> Vec<u8> {
        start(Kind::Success2, self.transaction, FIXED_LENGTH)
    }
}
