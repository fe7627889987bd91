//! A read in the modes that cache: lines that hold every wanted block come from the cache, runs of
//! other lines from the origin, all at once.
//!
//! ```text
//!   start ─▶ cache reads ──ok──────────────────────┐
//!       │        └─failed─▶ origin read of the line │
//!       ├─▶ verifications ──ok─────────────────────┤
//!       │        └─wrong──▶ origin read of the line │
//!       └──▶ origin reads ─▶ fills (nobody waits) ──┴─▶ answer
//! ```
//! What is read goes straight into its place in the client's buffer, unless more has to be read
//! than the client wants (whole blocks, or a line): then into a buffer of its own, from which the
//! client's part is copied.

use block_io::{Completion, Extent, Request};

use super::super::Cache;
use super::super::blocks::BLOCK_SIZE;
use super::super::index::Slot;
use super::super::line::LineNumber;
use super::super::line_lock::PieceIndex;
use super::super::outbox::Token;
use super::super::store::Source;

/// With more separate runs of missing lines than this, one read of the whole piece from the origin
/// costs less than the pieces of it.
const ORIGIN_RUNS_MAX: usize = 8;

pub(super) fn start(cache: &mut Cache, name: PieceIndex) {
    let wanted = cache.pieces[name].wanted;
    let extent = cache.without_cached_ends(cache.pieces[name].extent, wanted);
    cache.pieces[name].extent = extent;
    let request = &cache.requests[cache.pieces[name].request];
    cache.pieces[name].fills = !request.verdict.bypass;
    let mut slots = std::mem::take(&mut cache.slots);
    slots.clear();
    let parts = cache.line_parts(extent);
    slots.extend(parts.map(|(line, part)| {
        let part = part.intersection(wanted);
        if part.is_empty() { None } else { cache.slot_of_hit(line, part) }
    }));
    let runs = slots.chunk_by(|left, right| left.is_none() && right.is_none());
    if runs.filter(|run| run[0].is_none()).count() > ORIGIN_RUNS_MAX {
        slots.fill(None);
    }
    let mut missing = 0;
    for (index, (_, part)) in cache.line_parts(extent).enumerate() {
        match slots[index] {
            None => missing += 1,
            Some(slot) => {
                cache.read_run(name, index - missing, missing);
                missing = 0;
                cache.read_hit(name, index as u16, slot, part.intersection(wanted));
            }
        }
    }
    cache.read_run(name, slots.len() - missing, missing);
    cache.slots = slots;
}

impl Cache {
    /// Lines beyond what the client wants are read only if nothing of them is cached.
    fn without_cached_ends(&self, extent: Extent, wanted: Extent) -> Extent {
        let line = self.line_size.bytes();
        let lines = wanted.align_outward(line);
        let cached = |offset: u64| self.index.find(LineNumber(offset / line)).is_some();
        let (mut start, mut end) = (extent.offset, extent.end());
        while start < lines.offset && (start..lines.offset).step_by(line as usize).any(cached) {
            start = (start + 1).next_multiple_of(line);
        }
        while end > lines.end() && (lines.end()..end).step_by(line as usize).any(cached) {
            end = (end - 1) & !(line - 1);
        }
        Extent::new(start, end - start)
    }

    /// The line's slot if all of `part` is valid in it.
    pub(in super::super) fn slot_of_hit(&self, line: LineNumber, part: Extent) -> Option<Slot> {
        // Beyond the end of a volume that has shrunk under the request, its last block has nothing.
        let volume = self.volumes.at(part.offset)?;
        if part.end() > self.volumes[volume].end() {
            return None;
        }
        let slot = self.index.find(line)?;
        self.index.valid(slot).contains(self.blocks_touched(part)).then_some(slot)
    }

    fn read_hit(&mut self, name: PieceIndex, line: u16, slot: Slot, part: Extent) {
        let request = self.pieces[name].request;
        self.requests[request].seen.hit = true;
        self.index.touch(slot);
        if self.index.is_unverified(slot) {
            self.begin_verification(name, line, slot);
            return;
        }
        self.pieces[name].waits_for += 1;
        let volume = self.volume_of(name);
        let whole = if self.sees_blocks_whole(volume) { self.whole_blocks(part) } else { part };
        let buffer = if whole == part {
            self.client_buffer(name, part)
        } else {
            self.pool.allocate(whole.length as usize)
        };
        let offset = self.cache_offset(slot, whole.offset);
        self.cache_reads += 1;
        let id = Token::CacheRead { piece: name, line }.id();
        self.outbox.cache.push(Request::read(id, offset, buffer));
    }

    /// Reads `count` lines of the piece from its `first` on from the origin; none is fine.
    pub(in super::super) fn read_run(&mut self, name: PieceIndex, first: usize, count: usize) {
        if count == 0 {
            return;
        }
        let (first, count) = (first as u16, count as u16);
        let piece = &mut self.pieces[name];
        piece.waits_for += 1;
        let (request, extent, wanted) = (piece.request, piece.extent, piece.wanted);
        self.requests[request].seen.miss = true;
        let run = self.run_extent(extent, first, count);
        let id = self.requests[request].volume;
        self.volumes[id].statistics.origin_read_bytes += run.length;
        let buffer = if wanted.contains(run) {
            self.client_buffer(name, run)
        } else {
            self.pool.allocate(run.length as usize)
        };
        let token = Token::OriginRead { piece: name, first, count }.id();
        let offset = run.offset - self.volumes[id].base();
        self.outbox.origin.push((id, Request::read(token, offset, buffer)));
    }

    /// The bytes of `count` lines of a piece from its `first` on.
    fn run_extent(&self, piece: Extent, first: u16, count: u16) -> Extent {
        let line = self.line_size.bytes();
        let start = piece.offset & !(line - 1);
        let lines = Extent::new(start + u64::from(first) * line, u64::from(count) * line);
        piece.intersection(lines)
    }

    /// The part that the client wants of a line of a piece, and its line's number.
    pub(in super::super) fn wanted_of_line(
        &self,
        name: PieceIndex,
        line: u16,
    ) -> (LineNumber, Extent) {
        let piece = &self.pieces[name];
        let part = self.run_extent(piece.extent, line, 1).intersection(piece.wanted);
        (LineNumber(part.offset >> self.line_size.shift()), part)
    }

    pub(in super::super) fn cache_read_done(
        &mut self,
        name: PieceIndex,
        line: u16,
        completion: Completion,
    ) {
        let (number, part) = self.wanted_of_line(name, line);
        let volume = self.volume_of(name);
        let slot = self.slot_of_hit(number, part).filter(|_| self.is_leased(volume));
        let served = match (completion.result, slot) {
            (Ok(()), Some(slot)) => {
                let buffer = completion.buffer.expect("a device gives a read's buffer back");
                let whole = buffer.len() as u64 != part.length;
                let start = if whole { part.offset & !(BLOCK_SIZE - 1) } else { part.offset };
                let extent = Extent::new(start, buffer.len() as u64);
                let opened = self.open_blocks(volume, slot, extent, &buffer);
                if opened && whole {
                    self.copy_to_client(name, extent, &buffer);
                }
                opened
            }
            // Dropped meanwhile.
            (Ok(()), _) => false,
            (Err(error), _) => {
                self.cache_read_failed(volume, part, error);
                false
            }
        };
        if served {
            self.volumes[volume].statistics.cache_read_bytes += part.length;
        } else {
            // Asked for before the failed read is taken off, so that the piece does not end.
            self.read_run(name, usize::from(line), 1);
        }
        self.piece_progress(name, Ok(()));
    }

    pub(in super::super) fn origin_read_done(
        &mut self,
        name: PieceIndex,
        first: u16,
        count: u16,
        completion: Completion,
    ) {
        let piece = &self.pieces[name];
        if completion.result.is_ok() {
            let (fills, wanted) = (piece.fills, piece.wanted);
            let run = self.run_extent(piece.extent, first, count);
            let buffer = completion.buffer.expect("a device gives a read's buffer back");
            let direct = wanted.contains(run);
            if !direct {
                self.copy_to_client(name, run, &buffer);
            }
            // The client's own buffer is the same memory, and without this view of it nobody
            // else's, which makes its checksum quicker.
            let own = (!direct).then_some(buffer);
            if fills {
                let source = match &own {
                    None => Source::Client,
                    Some(buffer) => Source::Read(buffer, run.offset),
                };
                for (line, part) in self.line_parts(run) {
                    self.store_missing(name, line, part, source);
                }
            }
        }
        self.piece_progress(name, completion.result);
    }
}
