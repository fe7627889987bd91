//! A read in the modes that cache: lines that hold every wanted sector come from the cache, runs
//! of other lines from the origin, all at once, each straight into its place in the buffer.
//!
//! ```text
//!   start ─▶ cache reads ──ok──────────────────────┐
//!       │        └─failed─▶ origin read of the line │
//!       └──▶ origin reads ─▶ fills (nobody waits) ──┴─▶ answer
//! ```

use block_io::{Extent, IoError, Request};

use super::super::Cache;
use super::super::fill::FillIndex;
use super::super::index::Slot;
use super::super::line::LineNumber;
use super::super::line_lock::PieceIndex;
use super::super::outbox::Token;

/// With more separate runs of missing lines than this, one read of the whole piece from the origin
/// costs less than the pieces of it.
const ORIGIN_RUNS_MAX: usize = 8;

pub(super) fn start(cache: &mut Cache, name: PieceIndex) {
    let extent = cache.pieces[name].extent;
    cache.pieces[name].fills = true;
    let mut slots = std::mem::take(&mut cache.slots);
    slots.clear();
    slots.extend(cache.line_parts(extent).map(|(line, part)| cache.hit(line, part)));
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
                cache.read_hit(name, index as u16, slot, part);
            }
        }
    }
    cache.read_run(name, slots.len() - missing, missing);
    cache.slots = slots;
}

impl Cache {
    /// The line's slot if all of `part` is valid in it.
    fn hit(&self, line: LineNumber, part: Extent) -> Option<Slot> {
        let slot = self.index.find(line)?;
        self.index.valid(slot).contains(self.sectors_of(part)).then_some(slot)
    }

    fn read_hit(&mut self, name: PieceIndex, line: u16, slot: Slot, part: Extent) {
        self.index.touch(slot);
        let piece = &mut self.pieces[name];
        piece.waits_for += 1;
        let request = piece.request;
        self.requests[request].seen.hit = true;
        self.statistics.cache_read_bytes += part.length;
        let buffer = self.buffer_of(request, part);
        let offset = self.cache_offset(slot, part.offset);
        let id = Token::CacheRead { piece: name, line }.id();
        self.outbox.cache.push(Request::read(id, offset, buffer));
    }

    /// Reads `count` lines of the piece from its `first` on from the origin; none is fine.
    pub(super) fn read_run(&mut self, name: PieceIndex, first: usize, count: usize) {
        if count == 0 {
            return;
        }
        let (first, count) = (first as u16, count as u16);
        let piece = &mut self.pieces[name];
        piece.waits_for += 1;
        let (request, extent) = (piece.request, piece.extent);
        self.requests[request].seen.miss = true;
        let run = self.run_extent(extent, first, count);
        self.statistics.origin_read_bytes += run.length;
        let buffer = self.buffer_of(request, run);
        let id = Token::OriginRead { piece: name, first, count }.id();
        self.outbox.origin.push(Request::read(id, run.offset, buffer));
    }

    /// The bytes of `count` lines of a piece from its `first` on.
    fn run_extent(&self, piece: Extent, first: u16, count: u16) -> Extent {
        let line = self.line_size.bytes();
        let start = piece.offset & !(line - 1);
        let lines = Extent::new(start + u64::from(first) * line, u64::from(count) * line);
        piece.intersection(lines)
    }

    pub(in super::super) fn cache_read_done(
        &mut self,
        name: PieceIndex,
        line: u16,
        result: Result<(), IoError>,
    ) {
        if result.is_err() {
            self.statistics.cache_read_errors += 1;
            let part = self.run_extent(self.pieces[name].extent, line, 1);
            let number = LineNumber(part.offset >> self.line_size.shift());
            if let Some(slot) = self.index.find(number) {
                self.index.invalidate(slot, self.sectors_of(part));
            }
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
        result: Result<(), IoError>,
    ) {
        let piece = &self.pieces[name];
        if result.is_ok() && piece.fills {
            let run = self.run_extent(piece.extent, first, count);
            for (line, part) in self.line_parts(run) {
                self.store_missing(name, line, part);
            }
        }
        self.piece_progress(name, result);
    }

    /// Begins to store what is not valid of `part`. What is valid is left alone: others may be
    /// reading it, and a store that fails may leave anything behind.
    fn store_missing(&mut self, name: PieceIndex, line: LineNumber, part: Extent) {
        let wanted = self.sectors_of(part);
        let missing = match self.index.find(line) {
            Some(slot) => wanted.without(self.index.valid(slot)),
            None => wanted,
        };
        let start = line.0 << self.line_size.shift();
        for run in missing.runs() {
            let run = Extent::new(start + run.offset, run.length);
            if self.store(name, line, run, false).is_some() {
                self.statistics.read_fills += 1;
            }
        }
    }

    /// Begins to store `part` of a line, no sector of which is valid, from the buffer of the piece
    /// that holds these bytes, unless there is no room.
    pub(super) fn store(
        &mut self,
        name: PieceIndex,
        line: LineNumber,
        part: Extent,
        awaits_origin: bool,
    ) -> Option<FillIndex> {
        let sectors = self.sectors_of(part);
        let found = self.index.find(line);
        debug_assert!(found.is_none_or(|slot| !self.index.valid(slot).overlaps(sectors)));
        let slot = self.slot_to_fill(name, line, found, part);
        let Some(slot) = slot else {
            self.statistics.fills_dropped += 1;
            return None;
        };
        let fill = self.fills.begin(line, slot, sectors, awaits_origin);
        self.index.set_busy(slot, true);
        self.statistics.fill_bytes += part.length;
        let buffer = self.buffer_of(self.pieces[name].request, part);
        let offset = self.cache_offset(slot, part.offset);
        self.outbox.cache.push(Request::write(Token::Fill { fill }.id(), offset, buffer));
        Some(fill)
    }

    fn slot_to_fill(
        &mut self,
        name: PieceIndex,
        line: LineNumber,
        found: Option<Slot>,
        part: Extent,
    ) -> Option<Slot> {
        if self.fills.is_full() {
            return None;
        }
        if let Some(slot) = found {
            let sectors = self.sectors_of(part);
            let stored = self.index.is_busy(slot) && self.fills.overlaps(line, sectors);
            // Another piece may still be reading sectors that became invalid when a read of them
            // failed; a store over them that fails too would be what it reads.
            return (!stored && !self.locks.is_shared(name, part)).then_some(slot);
        }
        let (locks, line_size) = (&self.locks, self.line_size);
        let in_use = |other: LineNumber| {
            locks.is_held(Extent::new(other.0 << line_size.shift(), line_size.bytes()))
        };
        let allocation = self.index.allocate(line, in_use)?;
        self.statistics.evictions += u64::from(allocation.evicted);
        Some(allocation.slot)
    }
}
