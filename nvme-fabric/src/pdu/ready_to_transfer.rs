//! R2T, ready to transfer: the controller asks for a part of a command's data.
//!
//! Absent: whether the part is in range of the command, which only the host knows.

use super::{PduError, u16_at, u32_at};

/// R2T. NVMe/TCP Transport 1.1 §3.6.2.10
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReadyToTransfer {
    /// CCCID: the command's identifier.
    pub command: u16,
    /// TTAG: the controller's name for this transfer, echoed in its H2CData.
    pub transfer_tag: u16,
    /// R2TO: where the part starts in the command's data.
    pub offset: u32,
    /// R2TL: its bytes.
    pub length: u32,
}

impl ReadyToTransfer {
    pub(super) fn parse(header: &[u8]) -> Result<Self, PduError> {
        let (offset, length) = (u32_at(header, 12), u32_at(header, 16));
        if !offset.is_multiple_of(4) {
            return Err(PduError::InvalidField {
                field: "R2TO",
                offset: 12,
                value: offset,
                expected: "a multiple of 4",
            });
        }
        if length == 0 || !length.is_multiple_of(4) {
            return Err(PduError::InvalidField {
                field: "R2TL",
                offset: 16,
                value: length,
                expected: "a positive multiple of 4",
            });
        }
        let (command, transfer_tag) = (u16_at(header, 8), u16_at(header, 10));
        Ok(Self { command, transfer_tag, offset, length })
    }

    pub(super) fn write(&self, header: &mut [u8]) {
        header[8..10].copy_from_slice(&self.command.to_le_bytes());
        header[10..12].copy_from_slice(&self.transfer_tag.to_le_bytes());
        header[12..16].copy_from_slice(&self.offset.to_le_bytes());
        header[16..20].copy_from_slice(&self.length.to_le_bytes());
    }
}
