//! The life of a request: cut into pieces, each piece started when it holds its lock, answered
//! when the last one has ended.

use block_io::{Buffer, Completion, Extent, IoError, Operation, Request};

use super::fill::{FillIndex, NO_FILL};
use super::line_lock::PieceIndex;
use super::{Cache, mode};

/// A client's request in flight.
pub(crate) struct ClientRequest {
    request: Request,
    /// How much of the extent has been cut into pieces.
    cut: u64,
    pieces: u32,
    result: Result<(), IoError>,
    pub(crate) seen: Seen,
}

/// What a request met with, for the statistics.
#[derive(Clone, Copy, Default)]
pub(crate) struct Seen {
    pub(crate) hit: bool,
    pub(crate) miss: bool,
    pub(crate) pass_through: bool,
}

impl ClientRequest {
    pub(crate) fn new(request: Request) -> Self {
        Self { request, cut: 0, pieces: 0, result: Ok(()), seen: Seen::default() }
    }

    pub(crate) fn operation(&self) -> Operation {
        self.request.operation
    }

    pub(crate) fn force_unit_access(&self) -> bool {
        self.request.force_unit_access
    }

    /// Keeps the first error.
    pub(crate) fn note(&mut self, result: Result<(), IoError>) {
        if self.result.is_ok() {
            self.result = result;
        }
    }

    fn is_cut(&self) -> bool {
        self.cut == self.request.extent.length
    }
}

/// The part of a request that lies within one lock region.
pub(crate) struct Piece {
    pub(crate) request: u16,
    pub(crate) extent: Extent,
    /// Device requests that the piece waits for.
    pub(crate) waits_for: u16,
    /// Whether what is read from the origin is stored in the cache.
    pub(crate) fills: bool,
    /// Fills of a write, which wait for the origin's answer.
    pub(crate) first_fill: FillIndex,
}

impl Cache {
    /// Cuts a request into as many pieces as there is room for.
    pub(super) fn cut(&mut self, name: u16) {
        loop {
            let request = &mut self.requests[name];
            if request.is_cut() {
                return;
            }
            if self.pieces.is_full() {
                self.uncut.push_back(name);
                return;
            }
            let whole = request.request.extent;
            let offset = whole.offset + request.cut;
            let room = self.region - (offset & (self.region - 1));
            let extent = Extent::new(offset, room.min(whole.end() - offset));
            request.cut += extent.length;
            request.pieces += 1;
            let exclusive = request.operation().changes_content();
            let piece = self.pieces.insert(Piece {
                request: name,
                extent,
                waits_for: 0,
                fills: false,
                first_fill: NO_FILL,
            });
            if self.locks.acquire(piece, extent, exclusive) {
                self.startable.push(piece);
            }
        }
    }

    /// Starts every piece that holds its lock, in order. A started piece always has device
    /// requests in flight, so nothing ends, and nothing else becomes startable, meanwhile.
    pub(super) fn start_pieces(&mut self) {
        let mut startable = std::mem::take(&mut self.startable);
        for piece in startable.drain(..) {
            mode::start(self, piece);
        }
        debug_assert!(self.startable.is_empty());
        self.startable = startable;
    }

    /// The bytes of the request's buffer that belong to `part` of it.
    pub(super) fn buffer_of(&self, name: u16, part: Extent) -> Buffer {
        let request = &self.requests[name].request;
        let buffer = request.buffer.as_ref().expect("a read or write has a buffer, see check");
        buffer.slice((part.offset - request.extent.offset) as usize, part.length as usize)
    }

    /// One of the piece's device requests has ended.
    pub(super) fn piece_progress(&mut self, name: PieceIndex, result: Result<(), IoError>) {
        let piece = &mut self.pieces[name];
        piece.waits_for -= 1;
        self.requests[piece.request].note(result);
        if piece.waits_for == 0 {
            let piece = self.pieces.remove(name);
            self.locks.release(name, &mut self.startable);
            self.piece_ended(piece.request);
        }
    }

    fn piece_ended(&mut self, name: u16) {
        let request = &mut self.requests[name];
        request.pieces -= 1;
        if request.pieces == 0 && request.is_cut() {
            self.answer(name);
        }
        // The place of the ended piece is free for a request that waits to be cut. `cut` puts it
        // back in line if that was not enough.
        if let Some(waiting) = self.uncut.pop_front() {
            self.cut(waiting);
        }
    }

    /// Sends a request's answer and forgets it.
    pub(super) fn answer(&mut self, name: u16) {
        let ClientRequest { request, result, seen, .. } = self.requests.remove(name);
        self.count(&request, result, seen);
        self.outbox.replies.push(Completion { id: request.id, result, buffer: request.buffer });
    }

    fn count(&mut self, request: &Request, result: Result<(), IoError>, seen: Seen) {
        let statistics = &mut self.statistics;
        let length = request.extent.length;
        match request.operation {
            Operation::Read => {
                statistics.reads += 1;
                statistics.read_bytes += length;
                match seen {
                    Seen { pass_through: true, .. } => statistics.read_pass_through += 1,
                    Seen { hit: true, miss: false, .. } => statistics.read_hits += 1,
                    Seen { hit: true, miss: true, .. } => statistics.read_partial_hits += 1,
                    Seen { hit: false, .. } => statistics.read_misses += 1,
                }
            }
            Operation::Write => {
                statistics.writes += 1;
                statistics.write_bytes += length;
                statistics.write_pass_through += u64::from(seen.pass_through);
            }
            Operation::Flush => statistics.flushes += 1,
            Operation::Discard => statistics.discards += 1,
            Operation::WriteZeroes => statistics.write_zeroes += 1,
        }
        statistics.origin_errors += u64::from(result.is_err());
    }
}
