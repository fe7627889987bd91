//! Transmission: requests in, parts of them to the device, replies out in the order of completion.
//!
//! ```text
//!   header ──▶ payload ──▶ slot ──next_request──▶ device ──complete──▶ reply
//!          ──▶ skipped (a refused write's payload) ─────────────────▶ reply
//!          ──▶ (errors, block status) ──────────────────────────────▶ reply
//! ```
//! Bounds: [`Limits`]. A header is only read when there is room for its request, so that a client
//! which sends and does not read what it gets is stopped by its own socket.

mod header;
mod reply;
mod slots;

use block_io::{Buffer, BufferPool, Completion, Geometry, IoError, Operation, Request};

use super::error::{PeerFault, wire_error};
use super::outgoing::Outgoing;
use super::spec::{REQUEST_LENGTH, command, command_flag};

use header::Header;
use slots::{Slot, Slots};

/// What one client may have in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Requests taken and not complete; at least one.
    pub requests_max: usize,
    /// Payload bytes of requests in flight and of replies not sent, above which no further request
    /// is taken. The last one taken may exceed it by its 32 MiB.
    pub bytes_max: u64,
    /// Pieces of replies not sent, above which no further request is taken.
    pub pieces_max: usize,
}

impl Default for Limits {
    /// 128 requests, 32 MiB (64 with the last), 512 pieces.
    fn default() -> Self {
        Self { requests_max: 128, bytes_max: 32 << 20, pieces_max: 512 }
    }
}

/// What the negotiation settled.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    pub(super) export: usize,
    pub(super) geometry: Geometry,
    pub(super) structured: bool,
    /// Block status for `base:allocation` may be asked for.
    pub(super) allocation: bool,
}

/// What the bytes to come are.
#[derive(Clone, Copy, Debug)]
enum Stage {
    Header,
    Payload {
        slot: u32,
        filled: usize,
    },
    /// A refused write's.
    Skipped {
        header: Header,
        left: u64,
        error: IoError,
    },
    Ended,
}

#[derive(Debug)]
pub(super) struct Transmission {
    terms: Terms,
    limits: Limits,
    pool: BufferPool,
    stage: Stage,
    header: [u8; REQUEST_LENGTH],
    header_filled: usize,
    slots: Slots,
    payload_bytes: u64,
}

impl Transmission {
    pub(super) fn new(terms: Terms, limits: Limits, pool: BufferPool) -> Self {
        let slots =
            Slots::new(limits.requests_max.max(1), terms.geometry, |length| pool.allocate(length));
        Self {
            terms,
            limits,
            pool,
            stage: Stage::Header,
            header: [0; REQUEST_LENGTH],
            header_filled: 0,
            slots,
            payload_bytes: 0,
        }
    }

    pub(super) fn export(&self) -> usize {
        self.terms.export
    }

    pub(super) fn wants_bytes(&self, outgoing: &Outgoing) -> bool {
        match self.stage {
            Stage::Header => {
                self.slots.has_room()
                    && self.payload_bytes + outgoing.bytes() < self.limits.bytes_max
                    && outgoing.pieces() < self.limits.pieces_max
            }
            Stage::Payload { .. } | Stage::Skipped { .. } => true,
            Stage::Ended => false,
        }
    }

    pub(super) fn is_finished(&self) -> bool {
        matches!(self.stage, Stage::Ended) && self.slots.is_empty()
    }

    /// Takes bytes up to the end of one stage; returns how many.
    pub(super) fn receive(
        &mut self,
        bytes: &Buffer,
        outgoing: &mut Outgoing,
    ) -> Result<usize, PeerFault> {
        match self.stage {
            Stage::Header => {
                let had = self.header_filled;
                let count = bytes.len().min(REQUEST_LENGTH - had);
                bytes.slice(0, count).copy_to_slice(&mut self.header[had..had + count]);
                self.header_filled += count;
                if self.header_filled == REQUEST_LENGTH {
                    self.header_filled = 0;
                    let header = Header::parse(&self.header).map_err(PeerFault::RequestMagic)?;
                    self.begin(header, outgoing);
                }
                Ok(count)
            }
            Stage::Payload { .. } => {
                let target = self.payload_target().expect("there is one in this stage");
                let count = bytes.len().min(target.len());
                target.slice(0, count).copy_from(&bytes.slice(0, count));
                self.payload_received(count);
                Ok(count)
            }
            Stage::Skipped { header, left, error } => {
                let count = left.min(bytes.len() as u64);
                self.stage = Stage::Skipped { header, left: left - count, error };
                if count == left {
                    self.stage = Stage::Header;
                    self.reply_error(&header, error, outgoing);
                }
                Ok(count as usize)
            }
            Stage::Ended => Ok(bytes.len()),
        }
    }

    pub(super) fn payload_target(&self) -> Option<Buffer> {
        let Stage::Payload { slot, filled } = self.stage else { return None };
        let buffer = self.slots.payload(slot);
        Some(buffer.slice(filled, buffer.len() - filled))
    }

    pub(super) fn payload_received(&mut self, count: usize) {
        let Stage::Payload { slot, filled } = self.stage else { return };
        if filled + count == self.slots.payload(slot).len() {
            self.stage = Stage::Header;
            self.slots.make_ready(slot);
        } else {
            self.stage = Stage::Payload { slot, filled: filled + count };
        }
    }

    pub(super) fn next_request(&mut self) -> Option<Request> {
        self.slots.next_request()
    }

    pub(super) fn complete(&mut self, completion: Completion, outgoing: &mut Outgoing) {
        let Some((index, result)) = self.slots.complete(&completion) else { return };
        // A discard has no FUA at the device: a flush makes it durable.
        let slot = self.slots.slot(index);
        let discarded = slot.operation == Operation::Discard && result.is_ok();
        if discarded && slot.header.has(command_flag::FUA) {
            slot.operation = Operation::Flush;
            slot.handed_out = false;
            self.slots.make_ready(index);
            return;
        }
        let slot = self.slots.remove(index);
        if let Some(buffer) = &slot.buffer {
            self.payload_bytes -= buffer.len() as u64;
        }
        match result {
            Ok(()) => self.reply_success(slot, outgoing),
            Err(error) => self.reply_error(&slot.header, error, outgoing),
        }
    }

    /// Takes no more bytes. A request whose payload is incomplete is dropped.
    pub(super) fn end(&mut self) {
        if let Stage::Payload { slot, .. } = self.stage {
            let slot = self.slots.remove(slot);
            self.payload_bytes -= slot.header.extent.length;
        }
        self.stage = Stage::Ended;
    }

    fn begin(&mut self, header: Header, outgoing: &mut Outgoing) {
        if header.command == command::DISC {
            self.end();
            return;
        }
        match header.check(&self.terms.geometry) {
            Ok(Some(operation)) => self.accept(header, operation),
            Ok(None) if self.terms.allocation => {
                // The length fits: it came in four bytes.
                reply::block_status(outgoing, header.cookie, header.extent.length as u32);
            }
            Ok(None) => self.reply_error(&header, IoError::InvalidArgument, outgoing),
            Err(error) if header.carries_payload() && !header.extent.is_empty() => {
                self.stage = Stage::Skipped { header, left: header.extent.length, error };
            }
            Err(error) => self.reply_error(&header, error, outgoing),
        }
    }

    fn accept(&mut self, header: Header, operation: Operation) {
        let buffer = operation.carries_data().then(|| {
            // At most 32 MiB: checked with the header.
            self.payload_bytes += header.extent.length;
            self.pool.allocate(header.extent.length as usize)
        });
        let mut slot = Slot::new(header, operation, buffer);
        slot.force_unit_access = header.has(command_flag::FUA) && header.writes();
        let index = self.slots.insert(slot);
        if header.carries_payload() {
            self.stage = Stage::Payload { slot: index, filled: 0 };
        } else {
            self.slots.make_ready(index);
        }
    }

    fn reply_success(&self, slot: Slot, outgoing: &mut Outgoing) {
        let header = &slot.header;
        match slot.buffer {
            Some(data) if header.command == command::READ => {
                if self.terms.structured {
                    reply::offset_data(outgoing, header.cookie, header.extent.offset, data);
                } else {
                    reply::simple_data(outgoing, header.cookie, data);
                }
            }
            _ => reply::simple(outgoing, header.cookie, None),
        }
    }

    fn reply_error(&self, header: &Header, error: IoError, outgoing: &mut Outgoing) {
        let error = wire_error(error, header.writes());
        // Reads and block status may not get simple replies once structured ones are agreed.
        //= NBD proto.md "Structured reply chunk message"
        let chunked = matches!(header.command, command::READ | command::BLOCK_STATUS);
        if self.terms.structured && chunked {
            reply::error_chunk(outgoing, header.cookie, error);
        } else {
            reply::simple(outgoing, header.cookie, Some(error));
        }
    }
}
