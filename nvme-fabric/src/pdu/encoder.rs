//! From PDUs to one gather list: headers packed one behind the other, large payloads in place.
//!
//! ```text
//!   [hdr hdr hdr+small payload hdr][payload][digest hdr][payload] …
//!    └───────── one block ────────┘          └ same block ┘
//! ```
//! What is queued is held until it has been sent, in pieces; a piece cut short by a short send is
//! offered again from where it stopped. Blocks for headers come from the pool and go back to it.
//!
//! Absent: a bound of its own. The owner bounds what it queues by the commands it has in flight.

use std::collections::VecDeque;
use std::ops::Range;

use block_io::{Buffer, BufferPool};

use super::header::flag;
use super::{
    COMMAND_LENGTH, COMPLETION_LENGTH, CommonHeader, Crc32c, DataHeader, Digests,
    InitializeRequest, InitializeResponse, PduError, PduType, ReadyToTransfer, Side, termination,
};

/// Payloads below this many bytes are copied in among the headers: for so few a piece of their own
/// costs more than the copy.
pub const COPY_MAX: usize = 2048;
/// Bytes of a block for headers and small payloads.
const BLOCK_LENGTH: usize = 16 << 10;
/// The longest run that is staged in one go: a payload to be copied, or a header with padding and
/// digest.
const HEADER_PADDED_MAX: usize = 256;

/// See the module.
#[derive(Debug)]
pub struct Encoder {
    pool: BufferPool,
    digests: Digests,
    /// Bytes that data in a PDU are aligned to, from the PDU's start.
    data_alignment: usize,
    block: Buffer,
    /// The part of `block` that is queued behind all pieces but not yet one itself.
    open: Range<usize>,
    pieces: VecDeque<Buffer>,
    queued: usize,
}

impl Encoder {
    /// An encoder without digests and padding, as before ICReq and ICResp.
    pub fn new(pool: &BufferPool) -> Self {
        Self {
            pool: pool.clone(),
            digests: Digests::default(),
            data_alignment: 4,
            block: pool.allocate(BLOCK_LENGTH),
            open: 0..0,
            pieces: VecDeque::with_capacity(128),
            queued: 0,
        }
    }

    /// What the ends have agreed on, for the PDUs queued from now on: digests, and the peer's
    /// HPDA or CPDA (0's based dwords, at most 31).
    pub fn set_parameters(&mut self, digests: Digests, data_alignment: u8) {
        self.digests = digests;
        self.data_alignment = (usize::from(data_alignment.min(31)) + 1) * 4;
    }

    /// Bytes queued and not yet sent.
    pub fn queued_bytes(&self) -> usize {
        self.queued
    }

    /// Whether everything queued has been sent.
    pub fn is_empty(&self) -> bool {
        self.queued == 0
    }

    /// Appends at most `pieces_max` pieces that are to be sent, in order.
    pub fn transmit_from(&mut self, pieces: &mut Vec<Buffer>, pieces_max: usize) {
        self.close_piece();
        pieces.extend(self.pieces.iter().take(pieces_max).cloned());
    }

    /// `bytes` of what [`transmit_from`](Self::transmit_from) gave have been sent.
    ///
    /// After [`clear`](Self::clear) the report of a send that was in flight means nothing.
    ///
    /// # Panics
    /// When that is more than is queued.
    pub fn transmitted(&mut self, bytes: usize) {
        if self.queued == 0 {
            return;
        }
        self.queued -= bytes;
        let mut rest = bytes;
        while rest > 0 {
            let first = self.pieces.front_mut().expect("sent bytes were queued");
            if rest < first.len() {
                *first = first.slice(rest, first.len() - rest);
                return;
            }
            rest -= first.len();
            self.pieces.pop_front();
        }
    }

    /// Forgets everything queued: the connection is gone. Nothing is queued after this.
    pub fn clear(&mut self) {
        self.pieces.clear();
        self.open = self.open.end..self.open.end;
        self.queued = 0;
    }

    /// Queues ICReq.
    pub fn push_initialize_request(&mut self, request: &InitializeRequest) {
        self.stage(&request.encode());
    }

    /// Queues ICResp.
    pub fn push_initialize_response(&mut self, response: &InitializeResponse) {
        self.stage(&response.encode());
    }

    /// Queues a TermReq of `sender`'s about `error` in the PDU that began with `offending_header`.
    pub fn push_termination(&mut self, sender: Side, error: &PduError, offending_header: &[u8]) {
        let (bytes, length) = termination::encode(sender, error, offending_header);
        self.stage(&bytes[..length]);
    }

    /// Queues a CapsuleCmd, with in-capsule data or without.
    pub fn push_command(&mut self, command: &[u8; COMMAND_LENGTH], data: Option<&Buffer>) {
        let mut header = [0; HEADER_PADDED_MAX];
        header[8..8 + COMMAND_LENGTH].copy_from_slice(command);
        self.push(PduType::Command, 0, &mut header, data);
    }

    /// Queues a CapsuleResp.
    pub fn push_response(&mut self, completion: &[u8; COMPLETION_LENGTH]) {
        let mut header = [0; HEADER_PADDED_MAX];
        header[8..8 + COMPLETION_LENGTH].copy_from_slice(completion);
        self.push(PduType::Response, 0, &mut header, None);
    }

    /// Queues an H2CData of `data`, whose length is the header's.
    pub fn push_host_data(&mut self, fields: &DataHeader, data: &Buffer) {
        self.push_data(PduType::HostData, fields, data);
    }

    /// Queues a C2HData of `data`, whose length is the header's.
    pub fn push_controller_data(&mut self, fields: &DataHeader, data: &Buffer) {
        self.push_data(PduType::ControllerData, fields, data);
    }

    /// Queues an R2T.
    pub fn push_ready_to_transfer(&mut self, fields: &ReadyToTransfer) {
        let mut header = [0; HEADER_PADDED_MAX];
        fields.write(&mut header);
        self.push(PduType::ReadyToTransfer, 0, &mut header, None);
    }

    fn push_data(&mut self, kind: PduType, fields: &DataHeader, data: &Buffer) {
        assert_eq!(fields.length as usize, data.len(), "DATAL and bytes of data");
        let mut header = [0; HEADER_PADDED_MAX];
        fields.write(&mut header);
        self.push(kind, fields.flags(), &mut header, Some(data));
    }

    /// Queues header, header digest, padding, data and data digest.
    fn push(
        &mut self,
        kind: PduType,
        flags: u8,
        header: &mut [u8; HEADER_PADDED_MAX],
        data: Option<&Buffer>,
    ) {
        let header_length = usize::from(kind.header_length());
        let mut flags = flags;
        let mut length = header_length;
        if self.digests.header {
            flags |= flag::HEADER_DIGEST;
            length += 4;
        }
        let mut data_offset = 0;
        let mut total = length;
        if let Some(data) = data {
            length = length.next_multiple_of(self.data_alignment);
            data_offset = length as u8; // at most 128: the longest header with data is 72 + 4
            total = length + data.len();
            if self.digests.data {
                flags |= flag::DATA_DIGEST;
                total += 4;
            }
        }
        CommonHeader {
            kind,
            flags,
            header_length: header_length as u8,
            data_offset,
            length: total as u32,
        }
        .write(header);
        if self.digests.header {
            let crc = Crc32c::new().update(&header[..header_length]).value();
            header[header_length..header_length + 4].copy_from_slice(&crc.to_le_bytes());
        }
        self.stage(&header[..length]);
        if let Some(data) = data {
            self.push_payload(data);
        }
    }

    fn push_payload(&mut self, data: &Buffer) {
        if data.len() < COPY_MAX {
            self.reserve(data.len()).copy_from(data);
        } else {
            self.close_piece();
            self.queued += data.len();
            self.pieces.push_back(data.clone());
        }
        if self.digests.data {
            let crc = Crc32c::new().update_buffer(data).value();
            self.stage(&crc.to_le_bytes());
        }
    }

    fn stage(&mut self, bytes: &[u8]) {
        self.reserve(bytes.len()).copy_from_slice(bytes);
    }

    /// The next `length` bytes of staging, queued.
    fn reserve(&mut self, length: usize) -> Buffer {
        if self.queued == 0 && self.open.is_empty() && self.block.is_unique() {
            self.open = 0..0;
        }
        if self.block.len() - self.open.end < length {
            self.close_piece();
            self.block = self.pool.allocate(BLOCK_LENGTH);
            self.open = 0..0;
        }
        let place = self.block.slice(self.open.end, length);
        self.open.end += length;
        self.queued += length;
        place
    }

    /// Makes what is open a piece.
    fn close_piece(&mut self) {
        if !self.open.is_empty() {
            self.pieces.push_back(self.block.slice(self.open.start, self.open.len()));
            self.open.start = self.open.end;
        }
    }
}
