//! The set-associative index: which line is in which slot.
//!
//! Sixteen ways of four bytes are one CPU cache line, so a lookup is one memory access. The slot
//! number is `set * 16 + way`: no address is stored, no free list kept. Beside the entries stand
//! the valid sectors of every slot and, a set, sixteen fingerprints of lines that were evicted not
//! long ago (the ghosts of [`super::eviction`]).
//!
//! Absent: what is in flight. An entry only knows that its slot is being written (`busy`).

use super::config::LineSize;
use super::entry::{Entry, FREQUENCY_MAX, OCCUPIED, Set, TAG_MASK, WAYS};
use super::eviction::{self, Ghosts};
use super::line::{LineMap, LineNumber, Place};
use super::sectors::{SectorMap, SectorSet};

/// A line's place on the cache device: `set * WAYS + way`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Slot(pub(crate) u32);

impl Slot {
    fn new(set: u32, way: usize) -> Self {
        Self(set * WAYS as u32 + way as u32)
    }

    fn set(self) -> usize {
        self.0 as usize / WAYS
    }

    fn way(self) -> usize {
        self.0 as usize % WAYS
    }
}

/// What an allocation did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Allocation {
    pub(crate) slot: Slot,
    /// Another line's valid data was given up for it.
    pub(crate) evicted: bool,
}

/// The index of one volume.
pub(crate) struct Index {
    map: LineMap,
    sets: Box<[Set]>,
    valid: SectorMap,
    ghosts: Box<[Ghosts]>,
}

impl Index {
    /// An empty index of `sets` sets for a volume of `lines` lines.
    ///
    /// # Errors
    /// The number of sets needed, when these are too few.
    pub(crate) fn new(lines: u64, sets: u32, line_size: LineSize) -> Result<Self, u64> {
        Ok(Self {
            map: LineMap::new(lines, sets)?,
            sets: vec![Set::default(); sets as usize].into_boxed_slice(),
            valid: SectorMap::new(sets as usize * WAYS, line_size),
            ghosts: vec![Ghosts::default(); sets as usize].into_boxed_slice(),
        })
    }

    /// Number of slots.
    pub(crate) fn slots(&self) -> u64 {
        (self.sets.len() * WAYS) as u64
    }

    /// Bytes of memory that the index takes.
    pub(crate) fn memory_bytes(&self) -> u64 {
        let per_set = size_of::<Set>() + size_of::<Ghosts>();
        (self.sets.len() * (per_set + WAYS * self.valid.bytes_per_line())) as u64
    }

    /// The slot of a line, if it has one.
    pub(crate) fn find(&self, line: LineNumber) -> Option<Slot> {
        let place = self.map.place(line);
        find_way(&self.sets[place.set as usize], place.tag).map(|way| Slot::new(place.set, way))
    }

    /// The sectors of a slot that may be served.
    pub(crate) fn valid(&self, slot: Slot) -> SectorSet {
        self.valid.get(slot.0 as usize)
    }

    /// Notes a hit, for the eviction policy. Writes only when there is something new.
    pub(crate) fn touch(&mut self, slot: Slot) {
        self.sets[slot.set()].0[slot.way()].note_use(FREQUENCY_MAX);
    }

    /// From now on these sectors of the slot may be served.
    pub(crate) fn validate(&mut self, slot: Slot, sectors: SectorSet) {
        let valid = self.valid(slot).union(sectors);
        self.valid.set(slot.0 as usize, valid);
    }

    /// From now on these sectors of the slot are not served. The slot stays the line's until it
    /// is wanted for another: a read of it may still be in flight.
    pub(crate) fn invalidate(&mut self, slot: Slot, sectors: SectorSet) {
        let valid = self.valid(slot).without(sectors);
        self.valid.set(slot.0 as usize, valid);
    }

    /// Whether the slot is being written, which keeps it from being given away.
    pub(crate) fn set_busy(&mut self, slot: Slot, busy: bool) {
        self.sets[slot.set()].0[slot.way()].set_busy(busy);
    }

    pub(crate) fn is_busy(&self, slot: Slot) -> bool {
        self.sets[slot.set()].0[slot.way()].is_busy()
    }

    /// A slot for a line that has none, without valid sectors. `in_use` tells of lines that
    /// requests are at work on; their slots are left alone. None when the whole set is busy.
    pub(crate) fn allocate(
        &mut self,
        line: LineNumber,
        in_use: impl Fn(LineNumber) -> bool,
    ) -> Option<Allocation> {
        let place = self.map.place(line);
        let index = place.set as usize;
        let set = &mut self.sets[index];
        debug_assert!(find_way(set, place.tag).is_none(), "the line has a slot already");
        let (map, valid) = (&self.map, &self.valid);
        let slot_of = |way: usize| index * WAYS + way;
        let may_go = |entry: Entry| {
            !entry.is_busy() && !in_use(map.line(Place { set: place.set, tag: entry.tag() }))
        };
        let is_void = |way: usize| valid.get(slot_of(way)).is_empty();
        let ghosts = &mut self.ghosts[index];
        let way = eviction::make_room(set, ghosts, may_go, is_void)?;
        let slot = Slot::new(place.set, way);
        let evicted = set.0[way].is_occupied() && !is_void(way);
        eviction::insert(set, ghosts, way, place.tag);
        self.valid.set(slot.0 as usize, SectorSet::EMPTY);
        Some(Allocation { slot, evicted })
    }

    #[cfg(test)]
    pub(crate) fn lines(&self) -> Vec<LineNumber> {
        let mut lines = Vec::new();
        for (set, ways) in self.sets.iter().enumerate() {
            for entry in ways.0.iter().filter(|entry| entry.is_occupied()) {
                lines.push(self.map.line(Place { set: set as u32, tag: entry.tag() }));
            }
        }
        lines
    }
}

/// All ways are compared without a branch between them, which the compiler turns into a few vector
/// instructions.
pub(crate) fn find_way(set: &Set, tag: u32) -> Option<usize> {
    let wanted = OCCUPIED | tag;
    let mut matches = 0u32;
    for (way, entry) in set.0.iter().enumerate() {
        matches |= u32::from(entry.0 & (OCCUPIED | TAG_MASK) == wanted) << way;
    }
    (matches != 0).then(|| matches.trailing_zeros() as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOTHING_IN_USE: fn(LineNumber) -> bool = |_| false;

    fn index(lines: u64, sets: u32) -> Index {
        Index::new(lines, sets, LineSize::ALL[0]).expect("enough sets")
    }

    #[test]
    fn a_line_is_found_where_it_was_put_and_no_other_is() {
        let mut index = index(10_000, 20);
        for number in 0..100 {
            let line = LineNumber(number * 7);
            if let Some(allocation) = index.allocate(line, NOTHING_IN_USE) {
                assert_eq!(index.find(line), Some(allocation.slot));
                assert!(index.valid(allocation.slot).is_empty());
            }
        }
        assert_eq!(index.find(LineNumber(3)), None);
        let mut lines = index.lines();
        lines.sort_unstable();
        let before = lines.len();
        lines.dedup();
        assert_eq!(lines.len(), before, "a line is in one slot only");
    }

    #[test]
    fn lines_in_use_and_busy_slots_are_left_alone() {
        let mut index = index(1000, 1);
        let sectors = SectorSet::of_bytes(0, 4096);
        for number in 0..16 {
            let slot = index.allocate(LineNumber(number), NOTHING_IN_USE).expect("room").slot;
            index.validate(slot, sectors);
        }
        let busy = index.find(LineNumber(3)).expect("cached");
        index.set_busy(busy, true);
        for number in 16..500 {
            let line = LineNumber(number);
            let allocation = index.allocate(line, |line| line.0 == 5).expect("fourteen may go");
            index.validate(allocation.slot, sectors);
            assert!(allocation.evicted);
            assert!(index.find(LineNumber(3)).is_some() && index.find(LineNumber(5)).is_some());
        }
        assert_eq!(index.allocate(LineNumber(900), |_| true), None);
    }

    #[test]
    fn what_is_hit_stays() {
        let mut index = index(100_000, 1);
        let sectors = SectorSet::of_bytes(0, 4096);
        for number in 0..1000 {
            let slot = index.allocate(LineNumber(number), NOTHING_IN_USE).expect("room").slot;
            index.validate(slot, sectors);
            for hot in 0..=number.min(7) {
                let slot = index.find(LineNumber(hot)).expect("hit each time");
                index.touch(slot);
            }
        }
    }

    #[test]
    fn slots_without_valid_sectors_go_first() {
        let mut index = index(1000, 1);
        let sectors = SectorSet::of_bytes(0, 4096);
        for number in 0..16 {
            let slot = index.allocate(LineNumber(number), NOTHING_IN_USE).expect("room").slot;
            index.validate(slot, sectors);
        }
        let void = index.find(LineNumber(9)).expect("cached");
        index.invalidate(void, sectors);
        let allocation = index.allocate(LineNumber(100), NOTHING_IN_USE).expect("room");
        assert_eq!(allocation, Allocation { slot: void, evicted: false });
        assert_eq!(index.find(LineNumber(9)), None);
    }
}
