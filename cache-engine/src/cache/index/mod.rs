//! The set-associative index: which line is in which slot, and what of it may be served.
//!
//! ```text
//!                        shared memory, changed by one core
//!   Index, the owner ──▶ ways     16 x 4 B a set: tag, queue, order, uses, busy   ◀── IndexReader
//!     │                  blocks   version of the set, valid blocks of its slots       on any core
//!     └─ ghosts          2 B a line, the owner's own
//! ```
//! Sixteen ways of four bytes are one CPU cache line, so a lookup is one access to memory, and one
//! more for version and valid blocks. The slot number is `set * 16 + way`: no address is stored,
//! no free list kept.
//!
//! One core owns the index; others serve hits in place ([`reader`]). So the owner changes things
//! in this order: valid blocks cleared, entry replaced, version raised; and only then its caller
//! stores into the slot. Making blocks valid, after they are stored, raises no version.
//!
//! Absent: what is in flight. An entry only knows that its slot is being written (`busy`).

mod reader;
mod ways;

#[cfg(all(test, loom))]
mod interleavings;
#[cfg(all(test, not(loom)))]
mod tests;

use std::ops::Deref;

use block_io::processor;

use super::blocks::BlockSet;
use super::config::LineSize;
use super::entry::{Entry, Set, WAYS};
use super::eviction::{self, Ghosts};
use super::line::{LineNumber, Place};

pub(crate) use reader::Hit;
pub(crate) use reader::{IndexReader, Slot};

/// What an allocation did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Allocation {
    pub(crate) slot: Slot,
    /// The line that had it.
    pub(crate) gone: Option<LineNumber>,
    /// Valid blocks of that line were given up.
    pub(crate) evicted: bool,
}

/// How willingly a line is given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rank {
    /// Not now: somebody is at work on it.
    Never,
    /// Only when the set has nothing else to give.
    Pinned,
    /// Only when all others are pinned.
    Spared,
    /// Before spared lines of others.
    SparedOwn,
    /// In the order of the eviction policy.
    Normal,
    /// Before all others.
    First,
}

/// The owner's end of the index. What it can do without a change, any reader can too.
pub(crate) struct Index {
    reader: IndexReader,
    ghosts: Box<[Ghosts]>,
    lines: u64,
    all_blocks: BlockSet,
    /// Slots with valid blocks.
    occupied: u64,
}

impl Deref for Index {
    type Target = IndexReader;

    fn deref(&self) -> &IndexReader {
        &self.reader
    }
}

impl Index {
    /// An empty index of `sets` sets for `lines` lines.
    ///
    /// # Errors
    /// The number of sets needed, when these are too few.
    pub(crate) fn new(lines: u64, sets: u32, line_size: LineSize) -> Result<Self, u64> {
        Ok(Self {
            reader: IndexReader::new(lines, sets, line_size)?,
            ghosts: vec![Ghosts::default(); sets as usize].into_boxed_slice(),
            lines,
            all_blocks: BlockSet::all(line_size),
            occupied: 0,
        })
    }

    /// Another reading end.
    pub(crate) fn reader(&self) -> IndexReader {
        self.reader.clone()
    }

    /// Asks for the memory that an allocation for the line will look at besides its set.
    #[inline]
    pub(crate) fn prefetch_ghosts(&self, line: LineNumber) {
        processor::prefetch(&self.ghosts[self.set_of(line) as usize]);
    }

    /// Bytes of memory that the index takes.
    pub(crate) fn memory_bytes(&self) -> u64 {
        let shared = &self.reader.shared;
        let tables = size_of_val(&*shared.ways) + size_of_val(&*self.ghosts);
        (tables + shared.blocks.memory_bytes()) as u64
    }

    /// Slots with valid blocks.
    pub(crate) fn occupied(&self) -> u64 {
        self.occupied
    }

    /// From now on these blocks of the slot may be served; they are stored already.
    pub(crate) fn validate(&mut self, slot: Slot, blocks: BlockSet) {
        debug_assert!(self.entry(slot).is_occupied(), "a slot without a line has no blocks");
        self.set_valid(slot, self.valid(slot).union(blocks));
    }

    /// From now on these blocks of the slot are not served, and may be stored over. The slot stays
    /// the line's until it is wanted for another: a read of it may still be in flight.
    pub(crate) fn invalidate(&mut self, slot: Slot, blocks: BlockSet) {
        let valid = self.valid(slot);
        if valid.overlaps(blocks) {
            self.set_valid(slot, valid.without(blocks));
            self.reader.shared.blocks.new_version(slot.set());
        }
    }

    /// Keeps the slot from being given away while it is being written.
    pub(crate) fn set_busy(&mut self, slot: Slot, busy: bool) {
        let mut entry = self.entry(slot);
        entry.set_busy(busy);
        self.ways(slot).set_entry(slot.way(), entry);
    }

    /// The slot's content was checked and is good.
    pub(crate) fn set_verified(&mut self, slot: Slot) {
        let mut entry = self.entry(slot);
        entry.set_unverified(false);
        self.ways(slot).set_entry(slot.way(), entry);
    }

    /// A slot for a line that has none, without valid blocks. `in_use` tells of lines that
    /// requests are at work on; their slots are left alone. None when the whole set is in use.
    pub(crate) fn allocate(
        &mut self,
        line: LineNumber,
        in_use: impl Fn(LineNumber) -> bool,
    ) -> Option<Allocation> {
        let mut change = self.begin(line);
        let (reader, set) = (&self.reader, change.place.set);
        let may_go = |entry: Entry| {
            let other = reader.shared.map.line(Place { set, tag: entry.tag() });
            !entry.is_busy() && !in_use(other)
        };
        let void = reader.shared.blocks.void_ways(set as usize);
        let ghosts = &mut self.ghosts[set as usize];
        let way = eviction::make_room(&mut change.after, ghosts, may_go, void)?;
        Some(self.finish(change, way))
    }

    /// The same, with a say in which line goes. `rank` is asked about every line of the set whose
    /// slot is not busy.
    pub(crate) fn allocate_ranked(
        &mut self,
        line: LineNumber,
        rank: impl Fn(LineNumber, Slot) -> Rank,
    ) -> Option<Allocation> {
        let mut change = self.begin(line);
        let set = change.place.set;
        let before = change.before;
        let ranks: [Rank; WAYS] = std::array::from_fn(|way| {
            let (slot, entry) = (Slot::new(set, way), before.0[way]);
            let other = self.line(slot, entry).filter(|_| !entry.is_busy());
            other.map_or(Rank::Never, |other| rank(other, slot))
        });
        let void = self.reader.shared.blocks.void_ways(set as usize);
        let is_void = |way: usize| void >> way & 1 == 1;
        let at_once = (0..WAYS)
            .filter(|way| ranks[*way] == Rank::First || ranks[*way] > Rank::Never && is_void(*way))
            .min_by_key(|way| {
                let entry = before.0[*way];
                (!is_void(*way), entry.is_main(), entry.frequency(), entry.order())
            });
        let highest = ranks.into_iter().max().unwrap_or(Rank::Never);
        let may_go = |entry: Entry| {
            let way = (0..WAYS).find(|way| before.0[*way].tag() == entry.tag());
            at_once.is_some()
                || way.is_some_and(|way| ranks[way] == highest && highest > Rank::Never)
        };
        let ghosts = &mut self.ghosts[set as usize];
        let at_once = at_once.map_or(0, |way| 1 << way);
        let way = eviction::make_room(&mut change.after, ghosts, may_go, at_once)?;
        Some(self.finish(change, way))
    }

    /// Makes a slot empty. The caller sees to it that nobody reads or writes it for the line; a
    /// busy slot keeps its line and only loses its valid blocks.
    pub(crate) fn drop_line(&mut self, slot: Slot) {
        self.invalidate(slot, self.all_blocks);
        let entry = self.entry(slot);
        if entry.is_occupied() && !entry.is_busy() {
            self.ways(slot).set_entry(slot.way(), Entry::default());
            self.renumber(slot.set() as u32);
            self.reader.shared.blocks.new_version(slot.set());
        }
    }

    /// Makes every slot empty. Nothing may be in flight but other cores' hits.
    pub(crate) fn clear(&mut self) {
        for set in 0..self.sets() {
            let lines = self.shared.ways[set as usize].load();
            if lines.0.iter().any(|entry| entry.is_occupied()) {
                (0..WAYS).for_each(|way| self.set_valid(Slot::new(set, way), BlockSet::EMPTY));
                self.shared.ways[set as usize].store(&lines, &Set::default());
                self.shared.blocks.new_version(set as usize);
            }
        }
        self.ghosts.fill(Ghosts::default());
    }

    /// Takes over a slot from an earlier run. What makes no sense is left out: blocks beyond the
    /// line, a tag that names no line. When all of a set is loaded, [`settle`](Self::settle) it;
    /// until then nothing may be allocated in it.
    pub(crate) fn load(&mut self, slot: Slot, mut entry: Entry, valid: BlockSet) {
        self.drop_line(slot);
        let valid = valid.intersection(self.all_blocks);
        let Some(line) = self.line(slot, entry).filter(|_| !valid.is_empty()) else { return };
        let place = Place { set: slot.set() as u32, tag: entry.tag() };
        if line.0 < self.lines && self.shared.map.place(line) == place {
            entry.set_busy(false);
            self.ways(slot).set_entry(slot.way(), entry);
            self.set_valid(slot, valid);
        }
    }

    /// Puts the queues of a loaded set in order. A line that is in two slots is dropped: nothing
    /// says which of them is right.
    pub(crate) fn settle(&mut self, set: u32) {
        let loaded = self.shared.ways[set as usize].load();
        for (way, entry) in loaded.0.iter().enumerate().filter(|(_, entry)| entry.is_occupied()) {
            let same = |other: &&Entry| other.is_occupied() && other.tag() == entry.tag();
            if loaded.0.iter().filter(same).count() > 1 {
                self.drop_line(Slot::new(set, way));
            }
        }
        self.renumber(set);
    }

    fn set_valid(&mut self, slot: Slot, blocks: BlockSet) {
        let before = !self.valid(slot).is_empty();
        self.reader.shared.blocks.set(slot.set(), slot.way(), blocks);
        self.occupied = self.occupied + u64::from(!blocks.is_empty()) - u64::from(before);
    }

    fn begin(&self, line: LineNumber) -> Change {
        let place = self.shared.map.place(line);
        let ways = &self.shared.ways[place.set as usize];
        debug_assert!(ways.find(place.tag).is_none(), "the line has a slot already");
        let before = ways.load();
        Change { place, before, after: before }
    }

    /// Puts the line into a way that the eviction made room in.
    fn finish(&mut self, mut change: Change, way: usize) -> Allocation {
        let place = change.place;
        let (index, slot) = (place.set as usize, Slot::new(place.set, way));
        let gone = self.line(slot, change.before.0[way]);
        let evicted = !self.valid(slot).is_empty();
        eviction::insert(&mut change.after, &mut self.ghosts[index], way, place.tag);
        if evicted {
            self.set_valid(slot, BlockSet::EMPTY);
        }
        self.shared.ways[index].store(&change.before, &change.after);
        // Of a line without valid blocks too: a lookup may have seen its entry and not looked at
        // the blocks yet. A slot that was empty nobody has seen.
        if gone.is_some() {
            self.shared.blocks.new_version(index);
        }
        Allocation { slot, gone, evicted }
    }

    /// Gives the lines of each queue of a set the orders 0, 1, 2, … in the order they have.
    fn renumber(&mut self, set: u32) {
        let ways = &self.shared.ways[set as usize];
        let before = ways.load();
        let mut after = before;
        for main in [false, true] {
            let member =
                |way: &usize| before.0[*way].is_occupied() && before.0[*way].is_main() == main;
            let key = |way: usize| (before.0[way].order(), way);
            for way in (0..WAYS).filter(member) {
                let earlier = (0..WAYS).filter(member).filter(|other| key(*other) < key(way));
                after.0[way].set_order(earlier.count() as u32);
            }
        }
        ways.store(&before, &after);
    }
}

/// An allocation under way, on a copy of the set.
struct Change {
    place: Place,
    before: Set,
    after: Set,
}
