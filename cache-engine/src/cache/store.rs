//! What enters the cache: from a read of the origin, or beside a write.
//!
//! ```text
//!   blocks wanted ─ policy admits? ─ room in the set? ─▶ encrypt, checksum ─▶ cache device
//!                        └─no: a later miss └─no              fill ended ─▶ valid, recorded
//! ```
//! Only what is not valid is stored, and never over what somebody reads: a store that fails may
//! leave anything in the blocks that it was given.

use block_io::{Buffer, Extent, Request};

use super::Cache;
use super::blocks::{BLOCK_SIZE, BlockSet};
use super::config::VolumeId;
use super::entry::WAYS;
use super::fill::{Ended, FillIndex, NO_FILL, Store};
use super::index::{self, Allocation, Slot};
use super::line::LineNumber;
use super::line_lock::PieceIndex;
use super::outbox::Token;
use super::policy::{Newcomer, Owner, PlacedLine, Rank, Room};

/// Where bytes to be stored are.
#[derive(Clone, Copy)]
pub(super) enum Source<'a> {
    /// In the client's buffer.
    Client,
    /// In a buffer whose first byte is this flat one.
    Read(&'a Buffer, u64),
}

/// What is to be stored, and where it comes from.
struct Bytes<'a> {
    line: LineNumber,
    /// The line's, if it has one.
    slot: Option<Slot>,
    /// An unbroken run.
    blocks: BlockSet,
    /// Flat; exactly the bytes of the blocks.
    extent: Extent,
    source: Source<'a>,
    of_write: bool,
    /// The record that says what has become invalid is left to the end of the store.
    owes_record: bool,
}

impl Cache {
    /// Begins to store what is not valid of `part` of a line.
    pub(super) fn store_missing(
        &mut self,
        name: PieceIndex,
        line: LineNumber,
        part: Extent,
        source: Source<'_>,
    ) {
        let covered = self.blocks_covered(name, part);
        let mut slot = self.index.find(line);
        let missing = match slot {
            None => covered,
            Some(slot) if !self.index.is_unverified(slot) => {
                covered.without(self.index.valid(slot))
            }
            // It could have been read, but for too many verifications at a time.
            Some(slot) if self.index.valid(slot).contains(covered) => return,
            Some(slot) => {
                self.drop_blocks(slot, self.all_blocks());
                covered
            }
        };
        let volume = self.volume_of(name);
        for run in missing.runs() {
            let extent = self.extent_of_run(volume, line, run);
            let blocks = BlockSet::touching(run.offset, run.length);
            let (of_write, owes_record) = (false, false);
            let bytes = Bytes { line, slot, blocks, extent, source, of_write, owes_record };
            if let Some(fill) = self.store(name, bytes) {
                slot = Some(self.fills.slot(fill));
                self.volumes[volume].statistics.read_fills += 1;
            }
        }
    }

    /// Begins to store the blocks that a write covers in one of its lines, none of which is valid.
    /// `owes_record`: what the write has made invalid is to be recorded when the store has ended.
    /// False when nothing is stored.
    pub(super) fn store_written(
        &mut self,
        name: PieceIndex,
        line: LineNumber,
        part: Extent,
        slot: Option<Slot>,
        owes_record: bool,
    ) -> bool {
        let blocks = self.blocks_covered(name, part);
        let Some(run) = blocks.runs().next() else { return false };
        let volume = self.volume_of(name);
        let extent = self.extent_of_run(volume, line, run);
        let (source, of_write) = (Source::Client, true);
        let bytes = Bytes { line, slot, blocks, extent, source, of_write, owes_record };
        let fill = self.store(name, bytes);
        if let Some(fill) = fill {
            self.pieces[name].first_fill = fill;
            self.volumes[volume].statistics.write_fills += 1;
        }
        fill.is_some()
    }

    fn store(&mut self, name: PieceIndex, bytes: Bytes<'_>) -> Option<FillIndex> {
        let Bytes { line, slot: found, blocks, extent, source, of_write, owes_record } = bytes;
        debug_assert_eq!(found, self.index.find(line));
        debug_assert!(found.is_none_or(|slot| !self.index.valid(slot).overlaps(blocks)));
        let verdict = self.requests[self.pieces[name].request].verdict;
        let volume = verdict.volume;
        let offset = self.offset_of(volume, line);
        if !self.policy.admit(self.now, &verdict, offset, extent.length, found.is_some()) {
            self.volumes[volume].statistics.fills_refused += 1;
            return None;
        }
        let Some(slot) = self.slot_to_fill(name, line, found, blocks, extent) else {
            self.volumes[volume].statistics.fills_dropped += 1;
            return None;
        };
        if of_write {
            self.change_begun_again(extent);
        }
        let next_of_piece = if of_write { self.pieces[name].first_fill } else { NO_FILL };
        let store = Store { line, slot, blocks, of_write, owes_record };
        let fill = self.fills.begin(store, next_of_piece);
        let buffer = self.bytes_to_store(name, volume, extent, source, fill);
        self.index.set_busy(slot, true);
        self.volumes[volume].statistics.fill_bytes += extent.length;
        let offset = self.cache_offset(slot, extent.offset);
        self.outbox.cache.push(Request::write(Token::Fill { fill }.id(), offset, buffer));
        Some(fill)
    }

    fn slot_to_fill(
        &mut self,
        name: PieceIndex,
        line: LineNumber,
        found: Option<Slot>,
        blocks: BlockSet,
        extent: Extent,
    ) -> Option<Slot> {
        if self.fills.is_full() || !self.has_room_to_store(line) {
            return None;
        }
        if let Some(slot) = found {
            let stored = self.index.is_busy(slot) && self.fills.overlaps(line, blocks);
            // Another piece may still be reading blocks that became invalid when a read of them
            // failed; a store over them that fails too would be what it reads.
            return (!stored && !self.locks.is_shared(name, extent)).then_some(slot);
        }
        let verdict = self.requests[self.pieces[name].request].verdict;
        let owner = Owner { volume: verdict.volume, class: verdict.class };
        let offset = self.offset_of(owner.volume, line);
        let newcomer = Newcomer { owner, offset };
        match self.policy.room(newcomer) {
            Room::Any => {}
            Room::Victim => self.vacate_one_for(line, newcomer)?,
            Room::None => return None,
        }
        let allocation = self.allocate(line, newcomer)?;
        if let Some(gone) = allocation.gone {
            self.line_lost(allocation.slot, gone);
        }
        if allocation.evicted {
            self.volumes[owner.volume].statistics.evictions += 1;
        }
        self.policy.line_inserted(allocation.slot, owner);
        // What is kept about the slot still names the old line.
        self.record_invalid(allocation.slot, line);
        Some(allocation.slot)
    }

    fn allocate(&mut self, line: LineNumber, newcomer: Newcomer) -> Option<Allocation> {
        let (locks, line_size) = (&self.locks, self.line_size);
        let extent =
            |other: LineNumber| Extent::new(other.0 << line_size.shift(), line_size.bytes());
        if !self.policy.has_ranks() && self.orphans == 0 {
            return self.index.allocate(line, |other| locks.is_held(extent(other)));
        }
        let (policy, volumes) = (&self.policy, &self.volumes);
        self.index.allocate_ranked(line, |other, slot| {
            let flat = extent(other);
            if locks.is_held(flat) {
                return index::Rank::Never;
            }
            let Some(volume) = volumes.at(flat.offset) else {
                let known = volumes.owner_of(flat.offset);
                return if known.is_some() { index::Rank::Normal } else { index::Rank::First };
            };
            let offset = flat.offset - volumes[volume].base();
            let rank = policy.victim_rank(PlacedLine { slot, volume, offset }, Some(newcomer));
            match rank {
                None => index::Rank::Never,
                Some(Rank::OverMaximum) => index::Rank::First,
                Some(Rank::Ordinary) => index::Rank::Normal,
                Some(Rank::SparedOwn) => index::Rank::SparedOwn,
                Some(Rank::Spared) => index::Rank::Spared,
                Some(Rank::Pinned) => index::Rank::Pinned,
            }
        })
    }

    /// The newcomer's owner holds as much as it may: one of its lines in the same set goes first.
    fn vacate_one_for(&mut self, line: LineNumber, newcomer: Newcomer) -> Option<()> {
        let set = self.index.set_of(line);
        let victim = self.oldest_victim(set, Some(newcomer))?;
        self.vacate(victim);
        Some(())
    }

    /// The line of a set that the policy would give up first; none when all must stay.
    pub(super) fn oldest_victim(&mut self, set: u32, newcomer: Option<Newcomer>) -> Option<Slot> {
        let mut placed = [None; WAYS];
        for (slot, line) in self.index.lines_of_set(set) {
            let flat = line.0 << self.line_size.shift();
            let held = self.locks.is_held(Extent::new(flat, self.line_size.bytes()));
            if let Some(volume) = self.volumes.at(flat)
                && !held
                && !self.index.is_busy(slot)
            {
                let offset = flat - self.volumes[volume].base();
                placed[slot.way()] = Some(PlacedLine { slot, volume, offset });
            }
        }
        let ways = placed.iter().enumerate().filter_map(|(way, line)| Some((way, (*line)?)));
        let victims = self.policy.victims(newcomer, ways);
        placed
            .into_iter()
            .flatten()
            .map(|line| line.slot)
            .filter(|slot| victims >> slot.way() & 1 == 1)
            .min_by_key(|slot| {
                let entry = self.index.entry(*slot);
                (entry.is_main(), entry.frequency(), entry.order())
            })
    }

    /// Makes a slot empty that nobody is at work on.
    pub(super) fn vacate(&mut self, slot: Slot) {
        let Some(line) = self.index.line_of(slot) else { return };
        self.drop_blocks(slot, self.all_blocks());
        if !self.index.is_busy(slot) {
            self.index.drop_line(slot);
            self.line_lost(slot, line);
        }
    }

    /// A slot's line is gone.
    fn line_lost(&mut self, slot: Slot, line: LineNumber) {
        match self.volumes.owner_of(line.0 << self.line_size.shift()) {
            Some(volume) => self.policy.line_removed(slot, volume),
            None => {
                self.policy.orphan_removed(slot);
                self.orphans = self.orphans.saturating_sub(1);
            }
        }
    }

    /// Where a line begins in its volume.
    fn offset_of(&self, volume: VolumeId, line: LineNumber) -> u64 {
        (line.0 << self.line_size.shift()) - self.volumes[volume].base()
    }

    pub(super) fn fill_ended(&mut self, ended: &Ended) {
        let Store { slot, of_write, line, blocks, owes_record } = ended.store;
        self.index.set_busy(slot, ended.line_is_busy);
        if !ended.install.is_empty() {
            self.index.validate(slot, ended.install);
            self.keep_fill_checksums(slot, ended);
        }
        if owes_record || !ended.install.is_empty() {
            self.record_fill(slot, ended);
        }
        if of_write {
            let run = blocks.runs().next().expect("a fill stores something");
            let flat = (line.0 << self.line_size.shift()) + run.offset;
            self.change_ended(Extent::new(flat, run.length));
        }
    }

    /// The blocks whose every byte is in `part` of a line of the piece. The last block of a volume
    /// may be short.
    fn blocks_covered(&self, name: PieceIndex, part: Extent) -> BlockSet {
        let line_start = part.offset & !(self.line_size.bytes() - 1);
        let volume_end = self.volumes[self.volume_of(name)].end();
        if part.end() > volume_end {
            // The volume has shrunk under a request in flight.
            return BlockSet::EMPTY;
        }
        let first = (part.offset - line_start).next_multiple_of(BLOCK_SIZE);
        let end = part.end() - line_start;
        let end = if part.end() == volume_end { end } else { end & !(BLOCK_SIZE - 1) };
        if first < end { BlockSet::touching(first, end - first) } else { BlockSet::EMPTY }
    }

    /// The flat bytes of a run of blocks of a line, as far as the volume goes.
    fn extent_of_run(&self, volume: VolumeId, line: LineNumber, run: Extent) -> Extent {
        let flat = (line.0 << self.line_size.shift()) + run.offset;
        Extent::new(flat, run.length).intersection(self.volumes[volume].extent())
    }
}
