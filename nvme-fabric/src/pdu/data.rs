//! H2CData and C2HData: a part of a command's data.
//!
//! Absent: whether the part is in range of the command, which only the ends know.

use super::header::flag;
use super::{PduError, u16_at, u32_at};

/// The header of H2CData or C2HData. NVMe/TCP Transport 1.1 §3.6.2.8, §3.6.2.9
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataHeader {
    /// CCCID: the command's identifier.
    pub command: u16,
    /// TTAG: the R2T that H2CData answers; 0 in C2HData.
    pub transfer_tag: u16,
    /// DATAO: where the part starts in the command's data.
    pub offset: u32,
    /// DATAL: its bytes, which follow the header.
    pub length: u32,
    /// LAST_PDU: it ends its R2T (H2CData) or the command's data (C2HData).
    pub last: bool,
    /// SUCCESS: it completes the command with an all-zero completion (C2HData only).
    pub success: bool,
}

impl DataHeader {
    /// The fields, of a header whose PLEN leaves `data_length` for data.
    pub(super) fn parse(header: &[u8], data_length: u32) -> Result<Self, PduError> {
        let length = u32_at(header, 16);
        if length != data_length || length == 0 || !length.is_multiple_of(4) {
            return Err(PduError::InvalidField {
                field: "DATAL",
                offset: 16,
                value: length,
                expected: "what PLEN leaves for data, a positive multiple of 4",
            });
        }
        let offset = u32_at(header, 12);
        if !offset.is_multiple_of(4) {
            return Err(PduError::InvalidField {
                field: "DATAO",
                offset: 12,
                value: offset,
                expected: "a multiple of 4",
            });
        }
        let last = header[1] & flag::LAST != 0;
        let success = header[1] & flag::SUCCESS != 0;
        if success && !last {
            return Err(PduError::InvalidField {
                field: "FLAGS",
                offset: 1,
                value: u32::from(header[1]),
                expected: "SUCCESS only together with LAST_PDU",
            });
        }
        let (command, transfer_tag) = (u16_at(header, 8), u16_at(header, 10));
        Ok(Self { command, transfer_tag, offset, length, last, success })
    }

    pub(super) fn flags(&self) -> u8 {
        (u8::from(self.last) * flag::LAST) | (u8::from(self.success) * flag::SUCCESS)
    }

    pub(super) fn write(&self, header: &mut [u8]) {
        header[8..10].copy_from_slice(&self.command.to_le_bytes());
        header[10..12].copy_from_slice(&self.transfer_tag.to_le_bytes());
        header[12..16].copy_from_slice(&self.offset.to_le_bytes());
        header[16..20].copy_from_slice(&self.length.to_le_bytes());
    }
}
