//! The eight bytes that every PDU starts with, and which types there are.
//!
//! Absent: the rest of each type's header, which has its own file.

use super::{PduError, Side};

/// Bytes of the common header. NVMe/TCP Transport 1.1 §3.6.1
pub(super) const COMMON_HEADER_LENGTH: usize = 8;
/// Bytes of the longest header, that of ICReq and ICResp. NVMe/TCP Transport 1.1 §3.6.2.2
pub const HEADER_LENGTH_MAX: usize = 128;

/// Flags, byte 1. NVMe/TCP Transport 1.1 §3.6.1
pub(super) mod flag {
    /// HDGSTF: a header digest follows the header.
    pub(in super::super) const HEADER_DIGEST: u8 = 1 << 0;
    /// DDGSTF: a data digest follows the data.
    pub(in super::super) const DATA_DIGEST: u8 = 1 << 1;
    /// LAST_PDU: H2CData that ends its R2T, C2HData that ends its command's data.
    pub(in super::super) const LAST: u8 = 1 << 2;
    /// SUCCESS: C2HData that also completes the command; no CapsuleResp follows.
    pub(in super::super) const SUCCESS: u8 = 1 << 3;
}

/// The types. NVMe/TCP Transport 1.1 §3.6.1
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum PduType {
    /// ICReq.
    InitializeRequest = 0x00,
    /// ICResp.
    InitializeResponse = 0x01,
    /// H2CTermReq.
    HostTermination = 0x02,
    /// C2HTermReq.
    ControllerTermination = 0x03,
    /// CapsuleCmd.
    Command = 0x04,
    /// CapsuleResp.
    Response = 0x05,
    /// H2CData.
    HostData = 0x06,
    /// C2HData.
    ControllerData = 0x07,
    /// R2T.
    ReadyToTransfer = 0x09,
}

impl PduType {
    /// The type with this number.
    pub fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            0x00 => Self::InitializeRequest,
            0x01 => Self::InitializeResponse,
            0x02 => Self::HostTermination,
            0x03 => Self::ControllerTermination,
            0x04 => Self::Command,
            0x05 => Self::Response,
            0x06 => Self::HostData,
            0x07 => Self::ControllerData,
            0x09 => Self::ReadyToTransfer,
            _ => return None,
        })
    }

    /// HLEN, the same for every PDU of the type. NVMe/TCP Transport 1.1 §3.6.2
    pub const fn header_length(self) -> u8 {
        match self {
            Self::InitializeRequest | Self::InitializeResponse => 128,
            Self::Command => 72,
            Self::HostTermination
            | Self::ControllerTermination
            | Self::Response
            | Self::HostData
            | Self::ControllerData
            | Self::ReadyToTransfer => 24,
        }
    }

    /// Which end sends it.
    pub const fn sender(self) -> Side {
        match self {
            Self::InitializeRequest | Self::HostTermination | Self::Command | Self::HostData => {
                Side::Host
            }
            Self::InitializeResponse
            | Self::ControllerTermination
            | Self::Response
            | Self::ControllerData
            | Self::ReadyToTransfer => Side::Controller,
        }
    }

    /// Whether it is one of the PDU pair that starts a connection.
    pub const fn is_initialization(self) -> bool {
        matches!(self, Self::InitializeRequest | Self::InitializeResponse)
    }

    /// Whether it announces the connection's end.
    pub const fn is_termination(self) -> bool {
        matches!(self, Self::HostTermination | Self::ControllerTermination)
    }

    /// Whether it takes part in the negotiated digests.
    pub const fn carries_digests(self) -> bool {
        !self.is_initialization() && !self.is_termination()
    }

    /// Whether data may follow the header.
    pub const fn may_carry_data(self) -> bool {
        matches!(self, Self::Command | Self::HostData | Self::ControllerData)
    }
}

/// The common header's fields. NVMe/TCP Transport 1.1 §3.6.1
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommonHeader {
    /// PDU-Type.
    pub kind: PduType,
    /// FLAGS.
    pub flags: u8,
    /// HLEN: bytes of the header without its digest.
    pub header_length: u8,
    /// PDO: where the data start, from the start of the PDU; 0 without data.
    pub data_offset: u8,
    /// PLEN: bytes of the whole PDU.
    pub length: u32,
}

impl CommonHeader {
    /// The fields of a header that is to be received by `receiver`, type and HLEN checked.
    pub(super) fn parse(
        bytes: &[u8; COMMON_HEADER_LENGTH],
        receiver: Side,
    ) -> Result<Self, PduError> {
        let number = bytes[0];
        let kind = PduType::from_number(number).filter(|kind| kind.sender() != receiver);
        let Some(kind) = kind else {
            return Err(PduError::InvalidField {
                field: "PDU-Type",
                offset: 0,
                value: u32::from(number),
                expected: match receiver {
                    Side::Host => "a type that controllers send (1, 3, 5, 7, 9)",
                    Side::Controller => "a type that hosts send (0, 2, 4, 6)",
                },
            });
        };
        if bytes[2] != kind.header_length() {
            return Err(PduError::InvalidField {
                field: "HLEN",
                offset: 2,
                value: u32::from(bytes[2]),
                expected: "the header length of the type",
            });
        }
        Ok(Self {
            kind,
            flags: bytes[1],
            header_length: bytes[2],
            data_offset: bytes[3],
            length: super::u32_at(bytes, 4),
        })
    }

    /// Writes it over the first eight bytes.
    pub(super) fn write(&self, bytes: &mut [u8]) {
        bytes[0] = self.kind as u8;
        bytes[1] = self.flags;
        bytes[2] = self.header_length;
        bytes[3] = self.data_offset;
        bytes[4..8].copy_from_slice(&self.length.to_le_bytes());
    }
}
