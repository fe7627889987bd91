//! In-band authentication's messages: DH-HMAC-CHAP and those common to every protocol.
//!
//! ```text
//!   host                                          controller
//!     │ AUTH_Negotiate        hashes, groups ──────▶ │
//!     │ ◀─── DH-HMAC-CHAP_Challenge  C1, g^x mod p  │
//!     │ DH-HMAC-CHAP_Reply    R1, C2, g^y mod p ───▶ │
//!     │ ◀─────────────── DH-HMAC-CHAP_Success1  R2  │
//!     │ DH-HMAC-CHAP_Success2 ────────────────────▶ │    only when the controller proved itself
//! ```
//! To the right by Authentication Send, to the left by Authentication Receive; AUTH_Failure1 takes
//! the place of what goes left, AUTH_Failure2 of what goes right. Little-endian, except the
//! Diffie-Hellman values, which are big-endian numbers of their group's length.
//!
//! Sections are of Base 2.0 §8.13.5 where their number is known, and else by the message's name.
//! Linux `include/linux/nvme.h` and SPDK `nvmf_spec.h` were read for the same layouts.
//!
//! Absent: what is in the values (`crate::auth`), and protocols other than DH-HMAC-CHAP.

mod challenge;
mod concatenation;
mod failure;
mod negotiate;
mod reply;
mod success;

use std::fmt;

pub use challenge::Challenge;
pub use concatenation::Concatenation;
pub use failure::{Explanation, Failure, FailureKind};
pub use negotiate::Negotiate;
pub use reply::Reply;
pub use success::{Success1, Success2};

use super::field::{put_u16, u16_at};

/// SECP of Authentication Send and Receive: the NVMe authentication protocols. Base §6.2
pub const SECURITY_PROTOCOL: u8 = 0xe9;
/// SPSP0 and SPSP1 of the same. Base §6.2
pub const PROTOCOL_SPECIFIC: u8 = 0x01;

/// The longest message that there is: a reply with SHA-512 and a value of 8192 bits.
pub const MESSAGE_LENGTH_MAX: usize = 16 + 2 * 64 + 1024;

/// AUTH_TYPE of the common messages.
pub const TYPE_COMMON: u8 = 0x00;
/// AUTH_TYPE of DH-HMAC-CHAP messages.
pub const TYPE_DH_HMAC_CHAP: u8 = 0x01;

/// Bytes of every message's header: AUTH_TYPE, AUTH_ID, two reserved, T_ID.
const HEADER_LENGTH: usize = 6;

/// AUTH_TYPE and AUTH_ID: which message it is. Base §8.13.5
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// 00h, 00h.
    Negotiate,
    /// 01h, 01h.
    Challenge,
    /// 01h, 02h.
    Reply,
    /// 01h, 03h.
    Success1,
    /// 01h, 04h.
    Success2,
    /// 00h, F0h.
    Failure2,
    /// 00h, F1h.
    Failure1,
}

impl Kind {
    const ALL: [Self; 7] = [
        Self::Negotiate,
        Self::Challenge,
        Self::Reply,
        Self::Success1,
        Self::Success2,
        Self::Failure2,
        Self::Failure1,
    ];

    /// AUTH_TYPE and AUTH_ID.
    pub const fn codes(self) -> (u8, u8) {
        match self {
            Self::Negotiate => (TYPE_COMMON, 0x00),
            Self::Challenge => (TYPE_DH_HMAC_CHAP, 0x01),
            Self::Reply => (TYPE_DH_HMAC_CHAP, 0x02),
            Self::Success1 => (TYPE_DH_HMAC_CHAP, 0x03),
            Self::Success2 => (TYPE_DH_HMAC_CHAP, 0x04),
            Self::Failure2 => (TYPE_COMMON, 0xf0),
            Self::Failure1 => (TYPE_COMMON, 0xf1),
        }
    }

    /// What the specification calls it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Negotiate => "AUTH_Negotiate",
            Self::Challenge => "DH-HMAC-CHAP_Challenge",
            Self::Reply => "DH-HMAC-CHAP_Reply",
            Self::Success1 => "DH-HMAC-CHAP_Success1",
            Self::Success2 => "DH-HMAC-CHAP_Success2",
            Self::Failure2 => "AUTH_Failure2",
            Self::Failure1 => "AUTH_Failure1",
        }
    }
}

/// What every message begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Which message it is.
    pub kind: Kind,
    /// T_ID, bytes 4-5: the host's name for the transaction.
    pub transaction: u16,
}

impl Header {
    /// The header of a message.
    ///
    /// # Errors
    /// When there is none, or of a message that does not exist.
    pub fn parse(message: &[u8]) -> Result<Self, MessageError> {
        need(message, HEADER_LENGTH)?;
        let codes = (message[0], message[1]);
        let kind = Kind::ALL.into_iter().find(|kind| kind.codes() == codes);
        let kind = kind.ok_or(MessageError {
            field: "AUTH_TYPE and AUTH_ID",
            value: u32::from(codes.0) << 8 | u32::from(codes.1),
            expected: "the codes of a message",
            explanation: Explanation::IncorrectMessage,
        })?;
        Ok(Self { kind, transaction: u16_at(message, 4) })
    }
}

/// A hash function. HashID, Base §8.13.5 "AUTH_Negotiate Message".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HashFunction {
    /// 01h, 32 bytes.
    Sha256,
    /// 02h, 48 bytes.
    Sha384,
    /// 03h, 64 bytes.
    Sha512,
}

impl HashFunction {
    /// All of them, the shortest first.
    pub const ALL: [Self; 3] = [Self::Sha256, Self::Sha384, Self::Sha512];

    /// The function with this identifier.
    pub fn from_id(id: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|hash| hash.id() == id)
    }

    /// Its identifier.
    pub const fn id(self) -> u8 {
        match self {
            Self::Sha256 => 1,
            Self::Sha384 => 2,
            Self::Sha512 => 3,
        }
    }

    /// Bytes of a hash.
    pub const fn length(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha384 => 48,
            Self::Sha512 => 64,
        }
    }
}

impl fmt::Display for HashFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SHA-{}", self.length() * 8)
    }
}

/// A Diffie-Hellman group. DHgID, Base §8.13.5 "AUTH_Negotiate Message"; RFC 7919.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Group {
    /// 00h: no key exchange; whoever overhears both ends can try secrets at leisure.
    Null,
    /// 01h.
    Ffdhe2048,
    /// 02h.
    Ffdhe3072,
    /// 03h.
    Ffdhe4096,
    /// 04h.
    Ffdhe6144,
    /// 05h.
    Ffdhe8192,
}

impl Group {
    /// All of them, by their identifiers.
    pub const ALL: [Self; 6] = [
        Self::Null,
        Self::Ffdhe2048,
        Self::Ffdhe3072,
        Self::Ffdhe4096,
        Self::Ffdhe6144,
        Self::Ffdhe8192,
    ];

    /// The group with this identifier.
    pub fn from_id(id: u8) -> Option<Self> {
        Self::ALL.get(usize::from(id)).copied()
    }

    /// Its identifier.
    pub const fn id(self) -> u8 {
        self as u8
    }

    /// Bytes of a number in the group; 0 without one.
    pub const fn length(self) -> usize {
        match self {
            Self::Null => 0,
            Self::Ffdhe2048 => 256,
            Self::Ffdhe3072 => 384,
            Self::Ffdhe4096 => 512,
            Self::Ffdhe6144 => 768,
            Self::Ffdhe8192 => 1024,
        }
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("NULL"),
            group => write!(f, "ffdhe{}", group.length() * 8),
        }
    }
}

/// What is wrong with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageError {
    /// The field.
    pub field: &'static str,
    /// What it says.
    pub value: u32,
    /// What would be right.
    pub expected: &'static str,
    /// What the peer is to be told.
    pub explanation: Explanation,
}

impl MessageError {
    /// A payload that is not as the specification says.
    pub(crate) const fn payload(field: &'static str, value: usize, expected: &'static str) -> Self {
        let explanation = Explanation::IncorrectPayload;
        Self { field, value: value as u32, expected, explanation }
    }
}

impl fmt::Display for MessageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is {:#x}: must be {}", self.field, self.value, self.expected)
    }
}

impl std::error::Error for MessageError {}

/// Whether the message has this many bytes at least. A receive brings as many as were asked for,
/// the rest of them zero.
fn need(message: &[u8], length: usize) -> Result<(), MessageError> {
    if message.len() < length {
        let expected = "as long as its fields say";
        return Err(MessageError::payload("the message's length", message.len(), expected));
    }
    Ok(())
}

/// Checks that the header is of this kind, and that there are `length` bytes. Gives T_ID.
fn open(message: &[u8], kind: Kind, length: usize) -> Result<u16, MessageError> {
    let header = Header::parse(message)?;
    if header.kind != kind {
        let (high, low) = header.kind.codes();
        return Err(MessageError {
            field: "AUTH_TYPE and AUTH_ID",
            value: u32::from(high) << 8 | u32::from(low),
            expected: kind.name(),
            explanation: Explanation::IncorrectMessage,
        });
    }
    need(message, length)?;
    Ok(header.transaction)
}

/// A message of this kind, all zero after its header.
fn start(kind: Kind, transaction: u16, length: usize) -> Vec<u8> {
    let mut message = vec![0; length];
    (message[0], message[1]) = kind.codes();
    put_u16(&mut message, 4, transaction);
    message
}

/// HL: must be the length of a hash. Gives the function's length.
fn hash_length(message: &[u8]) -> Result<usize, MessageError> {
    let length = usize::from(message[6]);
    if HashFunction::ALL.iter().any(|hash| hash.length() == length) {
        return Ok(length);
    }
    Err(MessageError {
        explanation: Explanation::HashUnusable,
        ..MessageError::payload("HL", length, "32, 48 or 64")
    })
}

#[cfg(test)]
mod tests;
