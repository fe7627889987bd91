//! What any core may do with the index: look lines up, and serve hits in place.
//!
//! ```text
//!   reader   lookup ─▶ version, entry, valid blocks     read the slot     still? ─▶ serve
//!   owner        invalidate, allocate ─▶ new version ─▶ store into the slot ─▶ validate
//! ```
//! The reads of a hit are in the order of the picture, and the owner's changes are too. If a
//! reader saw any byte that was stored after a new version, `still` sees that version, and the
//! bytes are thrown away. If a lookup sees a version, it also sees what was made invalid before
//! it; so a lookup that begins after a write was acknowledged finds nothing older than the write.
//!
//! A version belongs to a set: a change to one of its lines fails the hits in flight on all
//! sixteen, which then go to the owner. That is rare where a cache has more sets than hits in
//! flight.
//!
//! Absent: waiting. No core ever waits for another here.

use std::sync::Arc;

use block_io::{huge_pages, processor};

use super::super::atomics::{Ordering, fence};
use super::super::block_map::BlockMap;
use super::super::blocks::BlockSet;
use super::super::config::LineSize;
use super::super::entry::{Entry, WAYS};
use super::super::line::{LineMap, LineNumber, Place};
use super::ways::Ways;

/// A line's place on the cache device: `set * WAYS + way`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Slot(pub(crate) u32);

impl Slot {
    pub(crate) fn new(set: u32, way: usize) -> Self {
        Self(set * WAYS as u32 + way as u32)
    }

    pub(crate) fn set(self) -> usize {
        self.0 as usize / WAYS
    }

    pub(crate) fn way(self) -> usize {
        self.0 as usize % WAYS
    }
}

/// A line that may be read from its slot, provided that the index is asked again afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Hit {
    pub(crate) slot: Slot,
    version: u32,
}

/// The memory of an index, shared by the cores.
pub(super) struct Shared {
    pub(super) map: LineMap,
    pub(super) ways: Box<[Ways]>,
    pub(super) blocks: BlockMap,
}

/// The reading end of an index: any number of them, on any core.
#[derive(Clone)]
pub(crate) struct IndexReader {
    pub(super) shared: Arc<Shared>,
}

impl IndexReader {
    pub(super) fn new(lines: u64, sets: u32, line_size: LineSize) -> Result<Self, u64> {
        let map = LineMap::new(lines, sets)?;
        let mut ways = huge_pages::vec_with_capacity(sets as usize);
        ways.extend((0..sets).map(|_| Ways::new()));
        let blocks = BlockMap::new(sets as usize, line_size);
        let shared = Shared { map, ways: ways.into_boxed_slice(), blocks };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// A hit, if all of the `wanted` blocks of the line may be served and are known to be good.
    /// Notes the use. Before anything is served, ask whether it [holds still](Self::still).
    #[inline(always)]
    pub(crate) fn lookup(&self, line: LineNumber, wanted: BlockSet) -> Option<Hit> {
        let shared = &*self.shared;
        let place = shared.map.place(line);
        let set = place.set as usize;
        let version = shared.blocks.version(set);
        let ways = &shared.ways[set];
        let way = ways.find_verified(place.tag)?;
        // The valid blocks must be at least as new as the entry: an owner clears them before it
        // gives the slot to another line.
        fence(Ordering::Acquire);
        if !shared.blocks.get(set, way).contains(wanted) {
            return None;
        }
        ways.note_use(way);
        Some(Hit { slot: Slot::new(place.set, way), version })
    }

    /// Asks for the memory that a [`lookup`](Self::lookup) of the line will look at.
    #[inline]
    pub(crate) fn prefetch(&self, line: LineNumber) {
        let set = self.shared.map.set(line) as usize;
        processor::prefetch(&self.shared.ways[set]);
        self.shared.blocks.prefetch(set);
    }

    /// A slot as it is now, for whoever reads it in its own way.
    pub(crate) fn hold(&self, slot: Slot) -> Hit {
        Hit { slot, version: self.shared.blocks.version(slot.set()) }
    }

    /// The set that a line belongs to.
    pub(crate) fn set_of(&self, line: LineNumber) -> u32 {
        self.shared.map.set(line)
    }

    /// Whether what was read from the slot since the lookup is the line's, and was valid when the
    /// lookup was made. If not, the line may be anywhere: ask the owner.
    pub(crate) fn still(&self, hit: Hit) -> bool {
        self.shared.blocks.is_version(hit.slot.set(), hit.version)
    }

    /// The slot of a line, if it has one.
    pub(crate) fn find(&self, line: LineNumber) -> Option<Slot> {
        let place = self.shared.map.place(line);
        let way = self.shared.ways[place.set as usize].find(place.tag)?;
        Some(Slot::new(place.set, way))
    }

    /// The blocks of a slot that may be served, if its content [is known](Self::is_unverified) to
    /// be good.
    pub(crate) fn valid(&self, slot: Slot) -> BlockSet {
        self.shared.blocks.get(slot.set(), slot.way())
    }

    /// Notes a use, for the eviction policy. Writes only when there is something new.
    pub(crate) fn touch(&self, slot: Slot) {
        self.ways(slot).note_use(slot.way());
    }

    pub(crate) fn entry(&self, slot: Slot) -> Entry {
        self.ways(slot).entry(slot.way())
    }

    /// The line that a slot belongs to.
    pub(crate) fn line_of(&self, slot: Slot) -> Option<LineNumber> {
        self.line(slot, self.entry(slot))
    }

    /// Whether the slot is being written, which keeps it from being given away.
    pub(crate) fn is_busy(&self, slot: Slot) -> bool {
        self.entry(slot).is_busy()
    }

    /// Whether the slot's content is from an earlier run, and must be checked before it is served.
    pub(crate) fn is_unverified(&self, slot: Slot) -> bool {
        self.entry(slot).is_unverified()
    }

    /// The lines of a set, with their slots: the way to see every line, in steps.
    pub(crate) fn lines_of_set(&self, set: u32) -> impl Iterator<Item = (Slot, LineNumber)> {
        (0..WAYS).filter_map(move |way| {
            let slot = Slot::new(set, way);
            self.line_of(slot).map(|line| (slot, line))
        })
    }

    /// Number of sets.
    pub(crate) fn sets(&self) -> u32 {
        self.shared.ways.len() as u32
    }

    /// Number of slots.
    pub(crate) fn slots(&self) -> u64 {
        (self.shared.ways.len() * WAYS) as u64
    }

    pub(super) fn ways(&self, slot: Slot) -> &Ways {
        &self.shared.ways[slot.set()]
    }

    pub(super) fn line(&self, slot: Slot, entry: Entry) -> Option<LineNumber> {
        let place = Place { set: slot.set() as u32, tag: entry.tag() };
        entry.is_occupied().then(|| self.shared.map.line(place))
    }
}
