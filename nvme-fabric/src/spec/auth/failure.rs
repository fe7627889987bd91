//! AUTH_Failure1 (the controller's) and AUTH_Failure2 (the host's): the transaction is over.

use std::fmt;

use super::{Kind, MessageError, open, start};

/// Bytes of the message.
const LENGTH: usize = 8;
/// Reason code: authentication failure, the only one there is.
const REASON_FAILED: u8 = 1;

/// Who says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// AUTH_Failure1.
    Controller,
    /// AUTH_Failure2.
    Host,
}

impl FailureKind {
    const fn kind(self) -> Kind {
        match self {
            Self::Controller => Kind::Failure1,
            Self::Host => Kind::Failure2,
        }
    }
}

/// Why: reason code explanation. Base §8.13.5 "AUTH_Failure1 Message".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Explanation {
    /// 01h: the response was wrong, and so is the secret.
    Failed,
    /// 02h: no protocol that both can use.
    ProtocolUnusable,
    /// 03h: one wants a secure channel, the other none.
    ConcatenationMismatch,
    /// 04h: no hash function that both can use.
    HashUnusable,
    /// 05h: no group that both can use.
    GroupUnusable,
    /// 06h: a field is wrong.
    IncorrectPayload,
    /// 07h: not the message that was due.
    IncorrectMessage,
    /// A code of the future.
    Other(u8),
}

impl Explanation {
    const fn from_code(code: u8) -> Self {
        match code {
            1 => Self::Failed,
            2 => Self::ProtocolUnusable,
            3 => Self::ConcatenationMismatch,
            4 => Self::HashUnusable,
            5 => Self::GroupUnusable,
            6 => Self::IncorrectPayload,
            7 => Self::IncorrectMessage,
            other => Self::Other(other),
        }
    }

    const fn code(self) -> u8 {
        match self {
            Self::Failed => 1,
            Self::ProtocolUnusable => 2,
            Self::ConcatenationMismatch => 3,
            Self::HashUnusable => 4,
            Self::GroupUnusable => 5,
            Self::IncorrectPayload => 6,
            Self::IncorrectMessage => 7,
            Self::Other(code) => code,
        }
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::Failed => "the response is wrong: the two ends have different secrets",
            Self::ProtocolUnusable => "no authentication protocol that both can use",
            Self::ConcatenationMismatch => "one end wants a secure channel and the other none",
            Self::HashUnusable => "no hash function that both can use",
            Self::GroupUnusable => "no Diffie-Hellman group that both can use",
            Self::IncorrectPayload => "a field of the message is wrong",
            Self::IncorrectMessage => "another message was due",
            Self::Other(code) => return write!(f, "unknown reason {code:#04x}"),
        };
        f.write_str(text)
    }
}

/// Base §8.13.5 "AUTH_Failure1 Message", "AUTH_Failure2 Message".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Who says so.
    pub by: FailureKind,
    /// T_ID, bytes 4-5.
    pub transaction: u16,
    /// Reason code explanation, byte 7.
    pub explanation: Explanation,
}

impl Failure {
    /// The typed form.
    ///
    /// # Errors
    /// When it is another message or too short.
    pub fn parse(message: &[u8], by: FailureKind) -> Result<Self, MessageError> {
        let transaction = open(message, by.kind(), LENGTH)?;
        Ok(Self { by, transaction, explanation: Explanation::from_code(message[7]) })
    }

    /// The bytes of it.
    pub fn encode(&self) -> Vec<u8> {
        let mut message = start(self.by.kind(), self.transaction, LENGTH);
        message[6] = REASON_FAILED;
        message[7] = self.explanation.code();
        message
    }
}
