//! Why a connection must end, and the TermReq PDU that says so to the peer.
//!
//! Absent: errors that end only a command.

use std::fmt;

use super::header::{CommonHeader, HEADER_LENGTH_MAX, PduType};
use super::{Side, u16_at, u32_at};

/// Bytes of a TermReq's own header. NVMe/TCP Transport 1.1 §3.6.2.4
pub(super) const TERMINATION_HEADER_LENGTH: usize = 24;
/// Bytes of the longest TermReq: its header and a copy of the longest header.
pub(super) const TERMINATION_LENGTH_MAX: usize = TERMINATION_HEADER_LENGTH + HEADER_LENGTH_MAX;

/// FES, the fatal error status. NVMe/TCP Transport 1.1 §3.6.2.4
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FatalErrorStatus {
    /// 01h: a header field is invalid; FEI is its byte offset.
    InvalidHeaderField,
    /// 02h: a PDU at a time when it may not come.
    SequenceError,
    /// 03h: the header digest does not match; FEI is the digest received.
    HeaderDigestError,
    /// 04h: data outside the command's data.
    DataOutOfRange,
    /// 05h: more data in an H2CData, or more R2Ts, than the limit.
    LimitExceeded,
    /// 06h: a parameter this end does not support; FEI is its byte offset.
    UnsupportedParameter,
    /// A number that the specification does not assign.
    Other(u16),
}

impl FatalErrorStatus {
    /// Its number.
    pub const fn number(self) -> u16 {
        match self {
            Self::InvalidHeaderField => 1,
            Self::SequenceError => 2,
            Self::HeaderDigestError => 3,
            Self::DataOutOfRange => 4,
            Self::LimitExceeded => 5,
            Self::UnsupportedParameter => 6,
            Self::Other(number) => number,
        }
    }

    /// The status with this number.
    pub const fn from_number(number: u16) -> Self {
        match number {
            1 => Self::InvalidHeaderField,
            2 => Self::SequenceError,
            3 => Self::HeaderDigestError,
            4 => Self::DataOutOfRange,
            5 => Self::LimitExceeded,
            6 => Self::UnsupportedParameter,
            other => Self::Other(other),
        }
    }
}

/// A violation by the peer that ends the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PduError {
    /// A header field has a value that it must not have.
    InvalidField {
        /// The specification's name of the field.
        field: &'static str,
        /// Its byte offset in the header.
        offset: u8,
        /// What it was.
        value: u32,
        /// What would have been right.
        expected: &'static str,
    },
    /// A PDU at a time when it may not come.
    Sequence {
        /// The type's number.
        received: u8,
        /// What may come.
        expected: &'static str,
    },
    /// The header digest does not match the header.
    HeaderDigest {
        /// As received.
        received: u32,
        /// As computed.
        computed: u32,
    },
    /// Data, or a request for data, outside the command's data.
    DataOutOfRange {
        /// The command's identifier.
        command: u16,
        /// Where the part starts.
        offset: u32,
        /// Its bytes.
        length: u32,
        /// Bytes of the command's data.
        limit: u32,
    },
    /// More than was agreed: data in one H2CData, or R2Ts of one command.
    LimitExceeded {
        /// What is limited.
        what: &'static str,
        /// What was received.
        value: u32,
        /// The limit.
        limit: u32,
    },
    /// A parameter that this end does not support.
    UnsupportedParameter {
        /// The specification's name of the field.
        field: &'static str,
        /// Its byte offset in the header.
        offset: u8,
        /// What it was.
        value: u32,
        /// What would have been right.
        expected: &'static str,
    },
}

impl PduError {
    /// The fatal error status that tells the peer.
    pub const fn status(&self) -> FatalErrorStatus {
        match self {
            Self::InvalidField { .. } => FatalErrorStatus::InvalidHeaderField,
            Self::Sequence { .. } => FatalErrorStatus::SequenceError,
            Self::HeaderDigest { .. } => FatalErrorStatus::HeaderDigestError,
            Self::DataOutOfRange { .. } => FatalErrorStatus::DataOutOfRange,
            Self::LimitExceeded { .. } => FatalErrorStatus::LimitExceeded,
            Self::UnsupportedParameter { .. } => FatalErrorStatus::UnsupportedParameter,
        }
    }

    /// FEI, the fatal error information that goes with the status.
    pub const fn information(&self) -> u32 {
        match self {
            Self::InvalidField { offset, .. } | Self::UnsupportedParameter { offset, .. } => {
                *offset as u32
            }
            Self::HeaderDigest { received, .. } => *received,
            Self::Sequence { .. } | Self::DataOutOfRange { .. } | Self::LimitExceeded { .. } => 0,
        }
    }
}

impl fmt::Display for PduError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InvalidField { field, offset, value, expected }
            | Self::UnsupportedParameter { field, offset, value, expected } => {
                write!(f, "PDU field {field} (byte {offset}) is {value:#x}: must be {expected}")
            }
            Self::Sequence { received, expected } => {
                write!(f, "PDU of type {received:#04x} out of turn: must be {expected}")
            }
            Self::HeaderDigest { received, computed } => {
                write!(f, "PDU header digest is {received:#010x}: must be {computed:#010x}")
            }
            Self::DataOutOfRange { command, offset, length, limit } => write!(
                f,
                "data {offset}+{length} of command {command:#06x}: must be within {limit} bytes \
                 and in order"
            ),
            Self::LimitExceeded { what, value, limit } => {
                write!(f, "{what} is {value}: must be at most {limit}")
            }
        }
    }
}

impl std::error::Error for PduError {}

/// H2CTermReq or C2HTermReq as received. NVMe/TCP Transport 1.1 §3.6.2.4, §3.6.2.5
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Termination {
    /// FES.
    pub status: FatalErrorStatus,
    /// FEI.
    pub information: u32,
}

impl Termination {
    pub(super) fn parse(header: &[u8]) -> Self {
        Self {
            status: FatalErrorStatus::from_number(u16_at(header, 8)),
            information: u32_at(header, 10),
        }
    }
}

impl fmt::Display for Termination {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.status {
            FatalErrorStatus::InvalidHeaderField => "invalid PDU header field at byte",
            FatalErrorStatus::SequenceError => "PDU sequence error",
            FatalErrorStatus::HeaderDigestError => "header digest error, received",
            FatalErrorStatus::DataOutOfRange => "data transfer out of range",
            FatalErrorStatus::LimitExceeded => "data transfer limit exceeded",
            FatalErrorStatus::UnsupportedParameter => "unsupported parameter at byte",
            FatalErrorStatus::Other(_) => "an unknown fatal error",
        };
        let (status, information) = (self.status.number(), self.information);
        write!(f, "{what} {information} (FES {status:#x}, FEI {information:#x})")
    }
}

/// The bytes of the TermReq that `sender` sends about `error` in the PDU that began with
/// `offending_header`, and how many they are.
pub(super) fn encode(
    sender: Side,
    error: &PduError,
    offending_header: &[u8],
) -> ([u8; TERMINATION_LENGTH_MAX], usize) {
    let mut bytes = [0; TERMINATION_LENGTH_MAX];
    let kind = match sender {
        Side::Host => PduType::HostTermination,
        Side::Controller => PduType::ControllerTermination,
    };
    let copied = offending_header.len().min(HEADER_LENGTH_MAX);
    let length = TERMINATION_HEADER_LENGTH + copied;
    CommonHeader {
        kind,
        flags: 0,
        header_length: kind.header_length(),
        data_offset: 0,
        length: length as u32,
    }
    .write(&mut bytes);
    bytes[8..10].copy_from_slice(&error.status().number().to_le_bytes());
    bytes[10..14].copy_from_slice(&error.information().to_le_bytes());
    bytes[TERMINATION_HEADER_LENGTH..length].copy_from_slice(&offending_header[..copied]);
    (bytes, length)
}
