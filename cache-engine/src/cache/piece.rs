//! The life of a request that is not a hit in place: cut into pieces, each piece started when it
//! holds its lock, answered when the last one has ended.

use block_io::{Buffer, Completion, Extent, IoError, Operation, Request};

use super::blocks::BLOCK_SIZE;
use super::config::{CacheMode, VolumeId};
use super::fill::{FillIndex, NO_FILL};
use super::line::LineNumber;
use super::line_lock::PieceIndex;
use super::outbox::Token;
use super::policy::{Hints, Verdict};
use super::table::Table;
use super::volumes::Volumes;
use super::{Cache, mode};

/// A client's request in flight.
pub(crate) struct ClientRequest {
    pub(crate) volume: VolumeId,
    request: Request,
    pub(crate) verdict: Verdict,
    /// How much of the extent has been cut into pieces.
    cut: u64,
    /// Of a flush: what it covers.
    epoch: u64,
    pieces: u32,
    /// One of its pieces has ended.
    is_done_in_part: bool,
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

/// The part of a request that lies within one lock region. Extents are flat.
pub(crate) struct Piece {
    pub(crate) request: u16,
    /// What the client wants.
    pub(crate) wanted: Extent,
    /// What is locked: for a read that may fill, the blocks (or lines) around what is wanted.
    pub(crate) extent: Extent,
    /// Device requests that the piece waits for.
    pub(crate) waits_for: u16,
    /// Whether what is read from the origin is stored in the cache.
    pub(crate) fills: bool,
    /// Of a change: the cache device names its extent, so that what becomes invalid by it may be
    /// recorded when it is over.
    pub(crate) is_named: bool,
    /// Fills of a write, which wait for the origin's answer.
    pub(crate) first_fill: FillIndex,
}

impl Cache {
    /// Takes a request in; there is room for it.
    pub(super) fn begin(&mut self, volume: VolumeId, verdict: Verdict, request: Request) {
        self.expire_leases();
        let flush = request.operation == Operation::Flush;
        let name = self.requests.insert(ClientRequest {
            volume,
            request,
            verdict,
            cut: 0,
            epoch: 0,
            pieces: 0,
            is_done_in_part: false,
            result: Ok(()),
            seen: Seen::default(),
        });
        if flush {
            self.requests[name].epoch = self.volumes[volume].unflushed.begin_flush();
            let id = Token::Flush { request: name }.id();
            self.outbox.origin.push((volume, Request::flush(id)));
        } else if self.gate_is_open() {
            self.cut(name);
            self.start_pieces();
        } else {
            self.uncut.push_back(name);
        }
    }

    /// The origin has answered a client's flush.
    pub(super) fn flush_done(&mut self, name: u16, result: Result<(), IoError>) {
        let request = &mut self.requests[name];
        request.note(result);
        let (volume, epoch) = (request.volume, request.epoch);
        if result.is_ok() {
            self.flushed(volume, epoch);
        }
        // What was lost was acknowledged, so whoever relies on it hears of it here or never.
        let volume = &mut self.volumes[volume];
        if volume.unflushed.take_loss() && result.is_ok() {
            volume.statistics.losses_told += 1;
            self.requests[name].note(Err(IoError::ConnectionLost));
        }
        self.answer(name);
    }

    /// Cuts a request into as many pieces as there is room for.
    pub(super) fn cut(&mut self, name: u16) {
        loop {
            let request = &self.requests[name];
            if request.is_cut() {
                return;
            }
            if self.pieces.is_full() {
                self.uncut.push_back(name);
                return;
            }
            let volume = &self.volumes[request.volume];
            let whole = request.request.extent;
            let offset = volume.base() + whole.offset + request.cut;
            let room = volume.piece_max - (offset & (volume.piece_max - 1));
            let length = room.min(whole.length - request.cut);
            let wanted = Extent::new(offset, length);
            if wanted.end() > volume.end() {
                self.cut_short(name);
                return;
            }
            let extent = self.extent_to_lock(name, wanted);
            let request = &mut self.requests[name];
            request.cut += length;
            request.pieces += 1;
            let exclusive = request.operation().changes_content();
            let piece = self.pieces.insert(Piece {
                request: name,
                wanted,
                extent,
                waits_for: 0,
                fills: false,
                is_named: false,
                first_fill: NO_FILL,
            });
            if self.locks.acquire(piece, extent, exclusive) {
                self.startable.push(piece);
            }
        }
    }

    /// The volume has shrunk under the request.
    fn cut_short(&mut self, name: u16) {
        let request = &mut self.requests[name];
        request.note(Err(IoError::OutOfRange));
        request.cut = request.request.extent.length;
        if request.pieces == 0 {
            self.answer(name);
        }
    }

    /// A read that may fill locks all that it may read: whole blocks, and more where the policy
    /// says so. Everything else locks what it wants.
    fn extent_to_lock(&mut self, name: u16, wanted: Extent) -> Extent {
        let request = &self.requests[name];
        let volume = &self.volumes[request.volume];
        if request.operation() != Operation::Read || volume.mode == CacheMode::PassThrough {
            return wanted;
        }
        let base = volume.base();
        let blocks = wanted.align_outward(BLOCK_SIZE).intersection(volume.extent());
        let Some(hints) = self.hints(blocks) else { return blocks };
        let missed = Extent::new(blocks.offset - base, blocks.length);
        let size = volume.geometry.capacity;
        let piece_max = volume.piece_max;
        let widened = self.policy.fill_extent(&request.verdict, missed, hints, size);
        debug_assert!(widened.contains(missed));
        let start = blocks.offset & !(piece_max - 1);
        Extent::new(base + widened.offset, widened.length)
            .intersection(Extent::new(start, piece_max))
    }

    /// What is known about the place of a read; nothing when its ends are cached, and there is
    /// nothing to widen.
    fn hints(&self, blocks: Extent) -> Option<Hints> {
        let line = |offset: u64| LineNumber(offset >> self.line_size.shift());
        let cached = |line: LineNumber| self.index.find(line).is_some();
        let (first, last) = (line(blocks.offset), line(blocks.end() - 1));
        if self.line_size.bytes() == BLOCK_SIZE && first == last && !cached(first) {
            // There is no line to fill up. That it was here once is asked when the origin answers.
            self.index.prefetch_ghosts(first);
            return Some(Hints::default());
        }
        let end_is_cached = |line: LineNumber| {
            let whole = Extent::new(line.0 << self.line_size.shift(), self.line_size.bytes());
            self.slot_of_hit(line, whole.intersection(blocks)).is_some()
        };
        if end_is_cached(first) && end_is_cached(last) {
            return None;
        }
        let before = first.0.checked_sub(1).is_some_and(|before| cached(LineNumber(before)));
        let neighbour = before || cached(LineNumber(last.0 + 1));
        Some(Hints { returns: false, neighbour })
    }

    /// Starts every piece that holds its lock, in order. A started piece has device requests in
    /// flight, or waits for leave to change something, so nothing ends, and nothing else becomes
    /// startable, meanwhile.
    pub(super) fn start_pieces(&mut self) {
        if self.startable.is_empty() {
            return;
        }
        let mut startable = std::mem::take(&mut self.startable);
        for piece in startable.drain(..) {
            mode::start(self, piece);
        }
        debug_assert!(self.startable.is_empty());
        self.startable = startable;
    }

    /// The volume of a piece.
    pub(super) fn volume_of(&self, name: PieceIndex) -> VolumeId {
        self.requests[self.pieces[name].request].volume
    }

    /// The bytes of the client's buffer that belong to `part`, which is wanted by the piece.
    pub(super) fn client_buffer(&self, name: PieceIndex, part: Extent) -> Buffer {
        let (buffer, flat) = self.client_whole(name);
        buffer.slice((part.offset - flat) as usize, part.length as usize)
    }

    /// All of the client's buffer, and the flat byte that it begins with.
    fn client_whole(&self, name: PieceIndex) -> (&Buffer, u64) {
        client_whole(&self.pieces, &self.requests, &self.volumes, name)
    }

    /// Copies what the client wants of `extent`, whose bytes are in `source`.
    pub(super) fn copy_to_client(&self, name: PieceIndex, extent: Extent, source: &Buffer) {
        let part = extent.intersection(self.pieces[name].wanted);
        if !part.is_empty() {
            let at = (part.offset - extent.offset) as usize;
            let bytes = source.slice(at, part.length as usize);
            self.client_buffer(name, part).copy_from(&bytes);
        }
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
        request.is_done_in_part = true;
        if request.pieces == 0 && request.is_cut() {
            self.answer(name);
        }
        // The place of the ended piece is free for a request that waits to be cut. `cut` puts it
        // back in line if that was not enough.
        while self.gate_is_open()
            && !self.pieces.is_full()
            && let Some(waiting) = self.uncut.pop_front()
        {
            self.cut(waiting);
        }
    }

    /// The origin of a volume may have lost what it had not flushed. A change that was done in part
    /// by then is not what its client would be told, when the rest is done too.
    pub(super) fn doubt_changes_done_in_part(&mut self, id: VolumeId) {
        if !self.volumes[id].geometry.volatile_cache {
            return;
        }
        for request in self.requests.iter_mut().filter(|request| request.volume == id) {
            let volatile = request.operation().changes_content() && !request.force_unit_access();
            if volatile && request.is_done_in_part {
                request.note(Err(IoError::ConnectionLost));
            }
        }
    }

    /// Sends a request's answer and forgets it.
    pub(super) fn answer(&mut self, name: u16) {
        let ClientRequest { volume, request, result, seen, .. } = self.requests.remove(name);
        self.count(volume, &request, result, seen);
        self.volumes[volume].in_flight -= 1;
        let reply = Completion { id: request.id, result, buffer: request.buffer };
        self.outbox.replies.push((volume, reply));
    }

    fn count(
        &mut self,
        volume: VolumeId,
        request: &Request,
        result: Result<(), IoError>,
        seen: Seen,
    ) {
        let statistics = &mut self.volumes[volume].statistics;
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

/// All of the client's buffer of a piece, and the flat byte that it begins with.
pub(super) fn client_whole<'a>(
    pieces: &Table<Piece>,
    requests: &'a Table<ClientRequest>,
    volumes: &Volumes,
    name: PieceIndex,
) -> (&'a Buffer, u64) {
    let request = &requests[pieces[name].request];
    let flat = volumes[request.volume].base() + request.request.extent.offset;
    let buffer = request.request.buffer.as_ref();
    (buffer.expect("a read or write has a buffer, see check"), flat)
}
