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
use super::config::CacheMode;
use super::fill::NO_FILL;
use super::line_lock::PieceIndex;

/// Starts a piece that holds its lock. At least one device request is in flight for it afterwards.
pub(super) fn start(cache: &mut Cache, piece: PieceIndex) {
    let extent = cache.pieces[piece].extent;
    let operation = cache.requests[cache.pieces[piece].request].operation();
    // Nothing of a range in doubt may enter the cache or be trusted from it.
    let mode = if cache.doubt.covers(extent) { CacheMode::PassThrough } else { cache.mode };
    match (operation, mode) {
        (Operation::Read, CacheMode::PassThrough) => pass_through::read(cache, piece),
        (Operation::Read, _) => read::start(cache, piece),
        (Operation::Write, CacheMode::WriteThrough) => write_through::start(cache, piece),
        (Operation::Write, _) => write_around::start(cache, piece),
        (Operation::Discard | Operation::WriteZeroes, _) => zeroes::start(cache, piece),
        (Operation::Flush, _) => unreachable!("a flush has no pieces"),
    }
}

impl Cache {
    /// From now on nothing of `extent` is served from the cache, nor becomes so by a fill in
    /// flight. The piece that calls this holds the extent exclusively.
    fn invalidate(&mut self, extent: Extent) {
        for (line, part) in self.line_parts(extent) {
            let sectors = self.sectors_of(part);
            if let Some(slot) = self.index.find(line) {
                self.index.invalidate(slot, sectors);
                if self.index.is_busy(slot) {
                    self.fills.exclude(line, sectors);
                }
            }
        }
    }

    /// The origin has answered a piece that changes content.
    pub(super) fn change_done(&mut self, name: PieceIndex, result: Result<(), IoError>) {
        let piece = &self.pieces[name];
        let (extent, mut fill) = (piece.extent, piece.first_fill);
        if let Err(error) = result {
            self.doubt.note(extent, error);
        }
        while fill != NO_FILL {
            let next = self.fills.get_mut(fill).next_of_piece;
            if let Some(ended) = self.fills.origin_done(fill, result.is_ok()) {
                self.fill_ended(&ended);
            }
            fill = next;
        }
        self.piece_progress(name, result);
    }
}
