//! The stream between a host and a controller: PDUs (protocol data units), decoded where they lie
//! and encoded as gather lists.
//!
//! ```text
//!   socket ──▶ [rest of a payload's place][staging] ──▶ Decoder ──▶ Pdu … PayloadDone
//!   socket ◀── [header, small payloads][payload][digest, next header …] ◀── Encoder
//! ```
//! Payload bytes go straight between the socket and their place. One receive brings the rest of
//! the current payload and, behind it, as many further PDUs as have arrived; only payload bytes
//! that land in staging that way are copied, once. One send carries as many PDUs as are queued.
//!
//! [`Endpoint`] is what a driver sees of either end. Absent: any knowledge of commands; a capsule
//! is 64 or 16 opaque bytes here.

mod capsule;
mod data;
mod decoder;
mod digest;
mod encoder;
mod header;
mod initialize;
mod ready_to_transfer;
mod termination;
#[cfg(test)]
mod tests;

pub use block_io::Crc32c;
pub use capsule::{COMMAND_LENGTH, COMPLETION_LENGTH, CommandCapsule};
pub use data::DataHeader;
pub use decoder::{Decoded, Decoder, Limits};
pub use digest::Digests;
pub use encoder::{COPY_MAX, Encoder};
pub use header::{CommonHeader, HEADER_LENGTH_MAX, PduType};
pub use initialize::{DATA_ALIGNMENT_MAX, InitializeRequest, InitializeResponse};
pub use ready_to_transfer::ReadyToTransfer;
pub use termination::{FatalErrorStatus, PduError, Termination};

use block_io::Buffer;

/// The two ends of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Sends commands.
    Host,
    /// Answers them.
    Controller,
}

/// A PDU whose header has been received and found valid. Where it has data, the data follow and
/// [`Decoder::place_payload`] says where to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pdu {
    /// ICReq, to a controller.
    InitializeRequest(InitializeRequest),
    /// ICResp, to a host.
    InitializeResponse(InitializeResponse),
    /// H2CTermReq or C2HTermReq: the peer is about to close the connection, and says why.
    Termination(Termination),
    /// CapsuleCmd, to a controller.
    Command(CommandCapsule),
    /// CapsuleResp, to a host: a completion queue entry.
    Response([u8; COMPLETION_LENGTH]),
    /// H2CData, to a controller.
    HostData(DataHeader),
    /// C2HData, to a host.
    ControllerData(DataHeader),
    /// R2T, to a host.
    ReadyToTransfer(ReadyToTransfer),
}

impl Pdu {
    /// Bytes of data that follow the header.
    pub fn data_length(&self) -> u32 {
        match self {
            Self::Command(capsule) => capsule.data_length,
            Self::HostData(data) | Self::ControllerData(data) => data.length,
            Self::InitializeRequest(_)
            | Self::InitializeResponse(_)
            | Self::Termination(_)
            | Self::Response(_)
            | Self::ReadyToTransfer(_) => 0,
        }
    }
}

/// What a driver moves bytes for: one end of one connection, host's or controller's.
///
/// The driver has at most one receive and one send in flight, each over the pieces it was given,
/// and reports each outcome before it asks for the next pieces.
pub trait Endpoint {
    /// Appends the pieces that the next receive fills, in order; none while nothing is to be
    /// received.
    fn receive_into(&mut self, pieces: &mut Vec<Buffer>);

    /// The receive over the pieces from the last [`receive_into`](Self::receive_into) brought
    /// `bytes` (not zero).
    fn received(&mut self, bytes: usize);

    /// Appends at most `pieces_max` pieces that are to be sent, in order; none when there is
    /// nothing to send.
    fn transmit_from(&mut self, pieces: &mut Vec<Buffer>, pieces_max: usize);

    /// The send over the pieces from the last [`transmit_from`](Self::transmit_from) took
    /// `bytes`; the rest is offered again.
    fn transmitted(&mut self, bytes: usize);
}

/// A little-endian number in a header, whose length is known to suffice.
pub(crate) fn u16_at(bytes: &[u8], offset: usize) -> u16 {
    u16::from_le_bytes([bytes[offset], bytes[offset + 1]])
}

/// As [`u16_at`], of four bytes.
pub(crate) fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    u32::from_le_bytes([bytes[offset], bytes[offset + 1], bytes[offset + 2], bytes[offset + 3]])
}
