//! What the cache tells its [`Persistence`], and what it hears from it. A cache in memory has none:
//! nothing of it outlives the process.

use block_io::{Completion, Extent};

use super::blocks::BlockSet;
use super::fill::Checksums;
use super::index::Slot;
use super::line::LineNumber;
use super::line_lock::PieceIndex;
use super::persistence::Change;
use super::{Cache, mode};

impl Cache {
    /// Whether a piece that changes content may start; if not, it will be named later.
    pub(super) fn may_change(&mut self, name: PieceIndex) -> bool {
        let extent = self.pieces[name].extent;
        match &mut self.keeper {
            Some(keeper) => keeper.begin_change(name, extent, self.now),
            None => true,
        }
    }

    /// A store of a change that has begun begins; it ends with a [`change_ended`](Self::change_ended)
    /// of its own.
    pub(super) fn change_begun_again(&mut self, extent: Extent) {
        if let Some(keeper) = &mut self.keeper {
            let begun = keeper.begin_change(PieceIndex::MAX, extent, self.now);
            debug_assert!(begun, "its piece has begun already");
        }
    }

    pub(super) fn change_ended(&mut self, extent: Extent, in_doubt: bool) {
        if let Some(keeper) = &mut self.keeper {
            keeper.end_change(extent, if in_doubt { Change::InDoubt } else { Change::Done });
        }
    }

    /// What is kept about a slot is to be what the index says, with the checksums of the blocks
    /// that are new.
    pub(super) fn record(&mut self, slot: Slot, changed: BlockSet, checksums: &Checksums) {
        let Some(keeper) = &mut self.keeper else { return };
        let Some(line) = self.index.line_of(slot) else { return };
        let (entry, valid) = (self.index.entry(slot), self.index.valid(slot));
        keeper.record(slot, entry, line, valid, changed, checksums, self.now);
    }

    /// Whether what is stored of this line could be recorded.
    pub(super) fn has_room_to_store(&self, line: LineNumber) -> bool {
        let Some(keeper) = &self.keeper else { return true };
        keeper.has_room() && keeper.is_loaded(self.index.set_of(line))
    }

    pub(super) fn ask_for_checksums(&mut self, slot: Slot) {
        if let Some(keeper) = &mut self.keeper {
            keeper.read_checksums(slot);
        }
    }

    pub(super) fn metadata_done(&mut self, index: u16, completion: Completion) {
        if let Some(keeper) = &mut self.keeper {
            keeper.complete(index, completion.result, self.now);
        }
    }

    /// Takes out of the keeper what it has to say.
    pub(super) fn hear_keeper(&mut self) {
        let Some(keeper) = &mut self.keeper else { return };
        self.outbox.cache.append(keeper.requests());
        let mut activated = std::mem::take(keeper.activated());
        for piece in activated.drain(..) {
            mode::start_change(self, piece);
        }
        if let Some(keeper) = &mut self.keeper {
            *keeper.activated() = activated;
        }
    }
}
