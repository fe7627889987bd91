//! ICReq and ICResp: the pair that opens a connection and settles alignment, digests and limits.
//!
//! Absent: who agrees to what, which the two ends decide.

use super::header::{CommonHeader, HEADER_LENGTH_MAX, PduType};
use super::{Digests, PduError, u16_at, u32_at};

/// The largest value of HPDA and CPDA: 128 bytes. NVMe/TCP Transport 1.1 §3.6.2.2
pub const DATA_ALIGNMENT_MAX: u8 = 31;
/// MAXH2CDATA is at least this many bytes. NVMe/TCP Transport 1.1 §3.6.2.3
pub(super) const HOST_DATA_MAX_LEAST: u32 = 4096;

/// ICReq. NVMe/TCP Transport 1.1 §3.6.2.2
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InitializeRequest {
    /// HPDA, in dwords, 0's based: what the host wants data in C2HData aligned to.
    pub host_data_alignment: u8,
    /// DGST: digests that the host wants.
    pub digests: Digests,
    /// MAXR2T, 0's based: R2Ts that may be outstanding for one command.
    pub ready_to_transfer_max: u32,
}

/// ICResp. NVMe/TCP Transport 1.1 §3.6.2.3
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InitializeResponse {
    /// CPDA, in dwords, 0's based: what the controller wants data from the host aligned to.
    pub controller_data_alignment: u8,
    /// DGST: digests in use on this connection.
    pub digests: Digests,
    /// MAXH2CDATA: most bytes of data in one H2CData.
    pub host_data_max: u32,
}

impl InitializeRequest {
    pub(super) fn parse(header: &[u8]) -> Result<Self, PduError> {
        let (host_data_alignment, digests) = parse_shared(header, "HPDA")?;
        Ok(Self { host_data_alignment, digests, ready_to_transfer_max: u32_at(header, 12) })
    }

    pub(super) fn encode(&self) -> [u8; HEADER_LENGTH_MAX] {
        encode(
            PduType::InitializeRequest,
            self.host_data_alignment,
            self.digests,
            self.ready_to_transfer_max,
        )
    }
}

impl InitializeResponse {
    pub(super) fn parse(header: &[u8]) -> Result<Self, PduError> {
        let (controller_data_alignment, digests) = parse_shared(header, "CPDA")?;
        let host_data_max = u32_at(header, 12);
        if host_data_max < HOST_DATA_MAX_LEAST || !host_data_max.is_multiple_of(4) {
            return Err(PduError::InvalidField {
                field: "MAXH2CDATA",
                offset: 12,
                value: host_data_max,
                expected: "a multiple of 4, at least 4096",
            });
        }
        Ok(Self { controller_data_alignment, digests, host_data_max })
    }

    pub(super) fn encode(&self) -> [u8; HEADER_LENGTH_MAX] {
        encode(
            PduType::InitializeResponse,
            self.controller_data_alignment,
            self.digests,
            self.host_data_max,
        )
    }
}

/// PFV, the data alignment and DGST, which lie alike in both.
fn parse_shared(header: &[u8], alignment_field: &'static str) -> Result<(u8, Digests), PduError> {
    let version = u16_at(header, 8);
    if version != 0 {
        return Err(PduError::UnsupportedParameter {
            field: "PFV",
            offset: 8,
            value: u32::from(version),
            expected: "0",
        });
    }
    let alignment = header[10];
    if alignment > DATA_ALIGNMENT_MAX {
        return Err(PduError::InvalidField {
            field: alignment_field,
            offset: 10,
            value: u32::from(alignment),
            expected: "at most 31",
        });
    }
    Ok((alignment, Digests { header: header[11] & 1 != 0, data: header[11] & 2 != 0 }))
}

fn encode(kind: PduType, alignment: u8, digests: Digests, maximum: u32) -> [u8; 128] {
    let mut bytes = [0; HEADER_LENGTH_MAX];
    let header_length = kind.header_length();
    let length = u32::from(header_length);
    CommonHeader { kind, flags: 0, header_length, data_offset: 0, length }.write(&mut bytes);
    bytes[10] = alignment;
    bytes[11] = u8::from(digests.header) | u8::from(digests.data) << 1;
    bytes[12..16].copy_from_slice(&maximum.to_le_bytes());
    bytes
}
