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
use crate::cache::metadata::journal_block::Record;

/// Places of a large cache's table, and its bytes at the most: that is less for large lines.
const PLACES_MAX: u64 = 8192;
const BYTES_MAX: u64 = 768 << 10;

/// Places of any table: who drops lines waits for room for a set's beside the stores in flight.
const PLACES_FEW: u64 = 256;

/// One slot's record, but for its checksums.
#[derive(Clone, Copy)]
struct Place {
    /// Number of the line's extent.
    extent: u64,
    slot: Slot,
    entry: Entry,
    valid: BlockSet,
    changed: BlockSet,
    taken: bool,
    /// No flush has looked at the record.
    fresh: bool,
    /// The place stands in the list of fresh ones, rightly or from before.
    listed: bool,
}

const EMPTY: Place = Place {
    extent: 0,
    slot: Slot(0),
    entry: Entry(0),
    valid: BlockSet::EMPTY,
    changed: BlockSet::EMPTY,
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
    /// Of each place, by block of its line; those of blocks that have not changed mean nothing.
    checksums: Box<[u32]>,
    blocks: usize,
    free: Vec<u32>,
    /// Places that no flush has looked at.
    fresh: Vec<u32>,
}

/// Bytes that a place takes, with its share of the map and the lists.
fn place_bytes(blocks: usize) -> u64 {
    (size_of::<Place>() + 4 * blocks + 40) as u64
}

impl Pending {
    /// A table for a cache of `slots` slots of `blocks` blocks: a place for one in 64 of them, or
    /// for `least` of them, if there are so many; and for [`PLACES_FEW`] whatever there is.
    pub(super) fn new(slots: u64, blocks: usize, least: u64) -> Self {
        let most = (BYTES_MAX / place_bytes(blocks)).min(PLACES_MAX);
        let least = least.min(slots.max(PLACES_FEW)).min(most);
        let capacity = (slots / 64).clamp(least, most) as usize;
        Self {
            map: KeyMap::new(capacity),
            places: vec![EMPTY; capacity].into_boxed_slice(),
            checksums: vec![0; capacity * blocks].into_boxed_slice(),
            blocks,
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

    /// Notes what is to be known of a slot; `changed` must be valid too, and `checksums` has those
    /// of its blocks, by block of the line.
    pub(super) fn record(
        &mut self,
        slot: Slot,
        entry: Entry,
        extent: u64,
        [valid, changed]: [BlockSet; 2],
        checksums: &[u32],
    ) -> Added {
        let found = self.map.find(u64::from(slot.0));
        let Some(at) = found.or_else(|| self.free.pop()) else { return Added::Full };
        let place = &mut self.places[at as usize];
        let kept = &mut self.checksums[at as usize * self.blocks..][..self.blocks];
        for block in changed.iter() {
            kept[block] = checksums[block];
        }
        let same_line = found.is_some() && place.entry.tag() == entry.tag();
        let before = if same_line { place.changed } else { BlockSet::EMPTY };
        place.changed = before.union(changed).intersection(valid);
        (place.entry, place.valid) = (entry, valid);
        if same_line {
            return Added::Merged;
        }
        place.extent = extent;
        if found.is_none() {
            (place.slot, place.taken) = (slot, true);
            self.map.insert(u64::from(slot.0), at);
        }
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
    pub(super) fn get(&self, at: u32) -> (Record, u64) {
        let Place { slot, entry, valid, changed, extent, .. } = self.places[at as usize];
        let mut record = Record { slot, entry, valid, changed, ..Record::EMPTY };
        let kept = &self.checksums[at as usize * self.blocks..][..self.blocks];
        for block in changed.iter() {
            record.checksums[block] = kept[block];
        }
        (record, extent)
    }

    /// Gives up a place: its record is on its way to the journal.
    pub(super) fn remove(&mut self, at: u32) {
        let place = &mut self.places[at as usize];
        (place.taken, place.fresh) = (false, false);
        self.map.remove(u64::from(place.slot.0));
        self.free.push(at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::blocks::BLOCKS_MAX;
    use crate::cache::config::RECORDS_MIN;

    const SLOT: Slot = Slot(9);

    fn record(pending: &mut Pending, tag: u32, valid: u16, changed: u16, checksum: u32) -> Added {
        let sets = [BlockSet(valid), BlockSet(changed)];
        pending.record(SLOT, Entry::new(tag, false), u64::from(tag), sets, &[checksum; 16])
    }

    #[test]
    fn a_small_cache_has_thousands_of_places_and_the_smallest_can_drop_whole_sets() {
        let places = |slots| Pending::new(slots, BLOCKS_MAX, RECORDS_MIN).capacity();
        // 16 lines of 64 KiB, 64 MiB in lines of 16 KiB, 1 GiB of them, 4 GiB, and 1 TiB.
        let slots = [16, 4096, 65536, 1 << 18, 1 << 26];
        assert_eq!(slots.map(places), [256, 2048, 2048, 4096, 6144]);
        let mut pending = Pending::new(16, BLOCKS_MAX, RECORDS_MIN);
        for slot in 0..16 {
            let (entry, all) = (Entry::new(1, false), BlockSet(1));
            let added = pending.record(Slot(slot), entry, 0, [all, all], &[0; 16]);
            assert_eq!(added, Added::Fresh, "slot {slot}");
        }
        assert!(pending.has_room_beside(64 + 16), "a set's lines beside 64 stores");
    }

    #[test]
    fn records_of_a_slot_become_one() {
        let mut pending = Pending::new(1, BLOCKS_MAX, RECORDS_MIN);
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
        let mut pending = Pending::new(1, BLOCKS_MAX, RECORDS_MIN);
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
