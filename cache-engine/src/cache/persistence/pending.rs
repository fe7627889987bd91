//! What is to be known about slots and is not in the journal yet, by slot.
//!
//! ```text
//!   record ──▶ known slot? merge │ new slot: a place, and *fresh* until a flush has looked at it
//!   flush  ──▶ fresh ones: extent active? stay, held │ else into the journal
//!   pass   ──▶ every one into the journal
//! ```
//! So a slot that is rewritten a thousand times while its extent is active is one place here, and
//! nothing on the device. Part of the table is kept for invalidations, which can't be put off.
//!
//! Absent: which extents are active.

use super::key_map::KeyMap;
use crate::cache::blocks::BlockSet;
use crate::cache::entry::Entry;
use crate::cache::index::Slot;
use crate::cache::metadata::journal_block::{Checksums, Record};

/// Places of a large cache's table: about 1 MiB.
const PLACES_MAX: u64 = 8192;

/// Places of a small one's, if it has that many slots: what a client fills while one write of the
/// journal is on its way. About 280 KiB.
pub(super) const PLACES_MIN: u64 = 2048;

/// Places of any table: who drops lines waits for room for a set's beside the stores in flight.
const PLACES_FEW: u64 = 256;

/// One slot's record.
#[derive(Clone, Copy)]
struct Place {
    record: Record,
    /// Number of the line's extent.
    extent: u64,
    taken: bool,
    /// No flush has looked at the record.
    fresh: bool,
    /// The place stands in the list of fresh ones, rightly or from before.
    listed: bool,
}

const EMPTY: Place = Place {
    record: Record {
        slot: Slot(0),
        entry: Entry(0),
        valid: BlockSet::EMPTY,
        changed: BlockSet::EMPTY,
        checksums: [0; 16],
    },
    extent: 0,
    taken: false,
    fresh: false,
    listed: false,
};

/// What became of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Added {
    /// It became part of the slot's record.
    Merged,
    /// The slot has a record now that no flush has looked at.
    Fresh,
    /// There is no room for another slot.
    Full,
}

/// The table.
pub(super) struct Pending {
    map: KeyMap,
    places: Box<[Place]>,
    free: Vec<u32>,
    /// Places that no flush has looked at.
    fresh: Vec<u32>,
}

impl Pending {
    /// A table for a cache of `slots` slots: a place for one in 64 of them, or for `least` of
    /// them, if there are so many; and for [`PLACES_FEW`] whatever there is.
    pub(super) fn new(slots: u64, least: u64) -> Self {
        let least = least.min(slots.max(PLACES_FEW)).min(PLACES_MAX);
        let capacity = (slots / 64).clamp(least, PLACES_MAX) as usize;
        Self {
            map: KeyMap::new(capacity),
            places: vec![EMPTY; capacity].into_boxed_slice(),
            free: (0..capacity as u32).rev().collect(),
            fresh: Vec::with_capacity(capacity),
        }
    }

    pub(super) fn capacity(&self) -> usize {
        self.places.len()
    }

    pub(super) fn len(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// Whether there is room for one more beside what is kept for invalidations and `expected`.
    pub(super) fn has_room_beside(&self, expected: usize) -> bool {
        self.free.len() > self.places.len() / 8 + expected
    }

    /// Whether it is full enough that everything should be written.
    pub(super) fn is_pressed(&self) -> bool {
        self.free.len() < self.places.len() / 4
    }

    pub(super) fn has_fresh(&self) -> bool {
        !self.fresh.is_empty()
    }

    /// Notes what is to be known of a slot; `changed` must be valid too.
    pub(super) fn record(
        &mut self,
        slot: Slot,
        entry: Entry,
        extent: u64,
        [valid, changed]: [BlockSet; 2],
        checksums: &Checksums,
    ) -> Added {
        let found = self.map.find(u64::from(slot.0));
        let Some(at) = found.or_else(|| self.free.pop()) else { return Added::Full };
        let place = &mut self.places[at as usize];
        let record = &mut place.record;
        if found.is_none() {
            *record = Record { slot, entry, valid, changed, checksums: *checksums };
            (place.extent, place.taken) = (extent, true);
            self.map.insert(u64::from(slot.0), at);
            self.freshen(at);
            return Added::Fresh;
        }
        let same_line = record.entry.tag() == entry.tag();
        let before = if same_line { record.changed } else { BlockSet::EMPTY };
        record.changed = before.union(changed).intersection(valid);
        (record.entry, record.valid) = (entry, valid);
        for block in changed.iter() {
            record.checksums[block] = checksums[block];
        }
        if same_line {
            return Added::Merged;
        }
        place.extent = extent;
        self.freshen(at);
        Added::Fresh
    }

    /// Looks at the fresh places, oldest first, and lets go of those that `hold` wants held. The
    /// others stay fresh until they are taken.
    pub(super) fn hold_fresh(&mut self, hold: impl Fn(u64) -> bool) {
        let places = &mut self.places;
        self.fresh.retain(|at| {
            let place = &mut places[*at as usize];
            place.fresh = place.taken && place.fresh && !hold(place.extent);
            place.listed = place.fresh;
            place.listed
        });
    }

    /// Makes held places fresh again where `hold` does not want them held any more.
    pub(super) fn free_held(&mut self, hold: impl Fn(u64) -> bool) {
        for at in 0..self.places.len() {
            let place = &self.places[at];
            if place.taken && !place.fresh && !hold(place.extent) {
                self.freshen(at as u32);
            }
        }
    }

    fn freshen(&mut self, at: u32) {
        let place = &mut self.places[at as usize];
        place.fresh = true;
        if !place.listed {
            place.listed = true;
            self.fresh.push(at);
        }
    }

    /// The place of the fresh record to be written next.
    pub(super) fn next_fresh(&mut self) -> Option<u32> {
        while let Some(at) = self.fresh.last() {
            let place = &mut self.places[*at as usize];
            if place.taken && place.fresh {
                return Some(*at);
            }
            place.listed = false;
            self.fresh.pop();
        }
        None
    }

    /// The first taken place from `from` on.
    pub(super) fn next_taken(&self, from: u32) -> Option<u32> {
        let rest = self.places.get(from as usize..)?;
        rest.iter().position(|place| place.taken).map(|at| from + at as u32)
    }

    /// The record in a place and its line's extent.
    pub(super) fn get(&self, at: u32) -> (&Record, u64) {
        let place = &self.places[at as usize];
        (&place.record, place.extent)
    }

    /// Gives up a place: its record is on its way to the journal.
    pub(super) fn remove(&mut self, at: u32) {
        let place = &mut self.places[at as usize];
        (place.taken, place.fresh) = (false, false);
        self.map.remove(u64::from(place.record.slot.0));
        self.free.push(at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOT: Slot = Slot(9);

    fn record(pending: &mut Pending, tag: u32, valid: u16, changed: u16, checksum: u32) -> Added {
        let sets = [BlockSet(valid), BlockSet(changed)];
        pending.record(SLOT, Entry::new(tag, false), u64::from(tag), sets, &[checksum; 16])
    }

    #[test]
    fn a_small_cache_has_thousands_of_places_and_the_smallest_can_drop_whole_sets() {
        let places = |slots| Pending::new(slots, PLACES_MIN).capacity();
        // 16 lines of 64 KiB, 64 MiB in lines of 16 KiB, 1 GiB of them, 4 GiB, and 1 TiB.
        let slots = [16, 4096, 65536, 1 << 18, 1 << 26];
        assert_eq!(slots.map(places), [256, 2048, 2048, 4096, 8192]);
        let mut pending = Pending::new(16, PLACES_MIN);
        for slot in 0..16 {
            let (entry, all) = (Entry::new(1, false), BlockSet(1));
            let added = pending.record(Slot(slot), entry, 0, [all, all], &[0; 16]);
            assert_eq!(added, Added::Fresh, "slot {slot}");
        }
        assert!(pending.has_room_beside(64 + 16), "a set's lines beside 64 stores");
    }

    #[test]
    fn records_of_a_slot_become_one() {
        let mut pending = Pending::new(1, PLACES_MIN);
        assert_eq!(record(&mut pending, 1, 0b0001, 0b0001, 7), Added::Fresh);
        assert_eq!(record(&mut pending, 1, 0b0111, 0b0110, 8), Added::Merged);
        let (merged, _) = pending.get(pending.next_taken(0).expect("one"));
        assert_eq!((merged.valid, merged.changed), (BlockSet(0b0111), BlockSet(0b0111)));
        assert_eq!(merged.checksums[..3], [7, 8, 8]);
        record(&mut pending, 1, 0b0011, 0, 9);
        let (merged, _) = pending.get(pending.next_taken(0).expect("one"));
        assert_eq!(merged.changed, BlockSet(0b0011), "what is not valid needs no checksum");
        assert_eq!(record(&mut pending, 2, 0b0100, 0b0100, 5), Added::Fresh);
        let (merged, extent) = pending.get(pending.next_taken(0).expect("one"));
        assert_eq!((merged.changed, extent), (BlockSet(0b0100), 2), "another line's are gone");
        assert_eq!(pending.len(), 1);
    }

    #[test]
    fn held_records_stay_until_they_are_free() {
        let mut pending = Pending::new(1, PLACES_MIN);
        record(&mut pending, 1, 1, 1, 7);
        pending.hold_fresh(|extent| extent == 1);
        assert_eq!(pending.next_fresh(), None);
        assert_eq!(record(&mut pending, 1, 1, 1, 8), Added::Merged);
        pending.free_held(|extent| extent == 1);
        assert!(!pending.has_fresh());
        pending.free_held(|_| false);
        let at = pending.next_fresh().expect("free");
        pending.remove(at);
        assert!(pending.next_fresh().is_none() && pending.len() == 0);
    }
}
