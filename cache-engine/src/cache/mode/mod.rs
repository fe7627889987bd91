//! What each mode does with each kind of request: the table, and the steps that modes share.
//!
//! | | read | write | discard, write zeroes |
//! |---|---|---|---|
//! | write-through | [`read`] | [`write_through`] | [`zeroes`] |
//! | write-around | [`read`] | [`write_around`] | [`zeroes`] |
//! | pass-through | [`pass_through`] | [`write_around`] | [`zeroes`] |

mod pass_through;
mod read;
mod write_around;
mod write_through;
mod zeroes;

use block_io::{Extent, IoError, Operation};

use super::Cache;
use super::blocks::BlockSet;
use super::config::CacheMode;
use super::fill::NO_FILL;
use super::index::Slot;
use super::line::LineNumber;
use super::line_lock::PieceIndex;

/// Starts a piece that holds its lock. Afterwards at least one device request is in flight for it,
/// or it waits for leave to change what it wants to change.
pub(super) fn start(cache: &mut Cache, piece: PieceIndex) {
    let operation = cache.requests[cache.pieces[piece].request].operation();
    if operation == Operation::Read {
        match mode_for(cache, piece) {
            CacheMode::PassThrough => pass_through::read(cache, piece),
            _ => read::start(cache, piece),
        }
    } else if cache.may_change(piece) {
        start_change(cache, piece);
    }
}

/// Starts a piece that changes content and has leave to.
pub(super) fn start_change(cache: &mut Cache, piece: PieceIndex) {
    let operation = cache.requests[cache.pieces[piece].request].operation();
    match (operation, mode_for(cache, piece)) {
        (Operation::Write, CacheMode::WriteThrough) => write_through::start(cache, piece),
        (Operation::Write, _) => write_around::start(cache, piece),
        (Operation::Discard | Operation::WriteZeroes, _) => zeroes::start(cache, piece),
        (Operation::Read | Operation::Flush, _) => unreachable!("they change nothing"),
    }
}

/// Nothing of a range in doubt, or whose lines are being dropped, or of a volume whose lease is
/// over, may enter the cache or be trusted from it.
fn mode_for(cache: &Cache, piece: PieceIndex) -> CacheMode {
    let volume = &cache.volumes[cache.volume_of(piece)];
    let extent = cache.pieces[piece].extent;
    let over = cache.now >= volume.lease_end;
    match over || volume.doubt.covers(extent) || cache.is_being_dropped(extent) {
        true => CacheMode::PassThrough,
        false => volume.mode,
    }
}

impl Cache {
    /// From now on nothing of `extent` is served from the cache, nor becomes so by a fill in
    /// flight. Whoever calls this holds the extent exclusively.
    fn forget(&mut self, extent: Extent) {
        for (line, part) in self.line_parts(extent) {
            if let Some(slot) = self.index.find(line)
                && self.forget_part(line, part, slot)
            {
                self.record_invalid(slot, line);
            }
        }
    }

    /// The same for a part of a line with a slot. True when it is still
    /// [to be recorded](Self::record_invalid).
    fn forget_part(&mut self, line: LineNumber, part: Extent, slot: Slot) -> bool {
        let touched = self.blocks_touched(part);
        let entry = self.index.entry(slot);
        // What is left of an unverified line could not be told from what was written since.
        let lost = if entry.is_unverified() { self.all_blocks() } else { touched };
        if entry.is_busy() {
            self.fills.exclude(line, touched);
        }
        self.invalidate_blocks(slot, lost)
    }

    /// The blocks of the slot are not served any more, and what is kept about the line says so.
    pub(super) fn drop_blocks(&mut self, slot: Slot, blocks: BlockSet) {
        if self.invalidate_blocks(slot, blocks)
            && let Some(line) = self.index.line_of(slot)
        {
            self.record_invalid(slot, line);
        }
    }

    /// The blocks of the slot are not served any more. True when any was until now.
    fn invalidate_blocks(&mut self, slot: Slot, blocks: BlockSet) -> bool {
        let some = self.index.valid(slot).overlaps(blocks);
        if some {
            self.index.invalidate(slot, blocks);
            if self.index.valid(slot).is_empty() && self.index.is_unverified(slot) {
                // What is stored from now on is of this run.
                self.index.set_verified(slot);
            }
        }
        some
    }

    /// The origin has answered a piece that changes content.
    pub(super) fn change_done(&mut self, name: PieceIndex, result: Result<(), IoError>) {
        let piece = &self.pieces[name];
        let (extent, mut fill) = (piece.extent, piece.first_fill);
        if let Err(error) = result {
            let id = self.volume_of(name);
            self.volumes[id].doubt.note(extent, error);
            self.publish_gates();
        }
        while fill != NO_FILL {
            let next = self.fills.next_of_piece(fill);
            if let Some(ended) = self.fills.origin_done(fill, result.is_ok()) {
                self.fill_ended(&ended);
            }
            fill = next;
        }
        if !self.is_unflushed(name, extent, result) {
            self.change_ended(extent);
        }
        self.piece_progress(name, result);
    }
}
