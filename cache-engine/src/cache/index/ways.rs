//! The sixteen ways of a set as other cores see them: two entries to an atomic word, eight words
//! to a CPU cache line.
//!
//! One core owns the set and changes it with plain loads and stores; another core may only note a
//! use, by an exchange that fails if anything was changed meanwhile. What the owner loses by
//! storing over such a note is one use.

use block_io::processor;

use super::super::atomics::{AtomicU64, Ordering};
use super::super::entry::{Entry, FREQUENCY_MAX, OCCUPIED, Set, TAG_MASK, UNVERIFIED, WAYS};

const WORDS: usize = WAYS / 2;

/// See the module. All zero is a set of empty ways.
#[repr(align(64))]
pub(super) struct Ways([AtomicU64; WORDS]);

impl Ways {
    pub(super) fn new() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }

    /// The way of the line with this tag. The reads are relaxed.
    pub(super) fn find(&self, tag: u32) -> Option<usize> {
        self.find_masked(tag, OCCUPIED | TAG_MASK)
    }

    /// The same for a line that is known to be good.
    pub(super) fn find_verified(&self, tag: u32) -> Option<usize> {
        self.find_masked(tag, OCCUPIED | TAG_MASK | UNVERIFIED)
    }

    fn find_masked(&self, tag: u32, mask: u32) -> Option<usize> {
        let words = std::array::from_fn(|at| self.0[at].load(Ordering::Relaxed));
        let matches = processor::equal_lanes(words, OCCUPIED | tag, mask);
        (matches != 0).then(|| matches.trailing_zeros() as usize)
    }

    pub(super) fn entry(&self, way: usize) -> Entry {
        Entry(halves(self.0[way / 2].load(Ordering::Relaxed))[way % 2])
    }

    /// Notes a use, from any core. Writes only when there is something new.
    pub(super) fn note_use(&self, way: usize) {
        let word = &self.0[way / 2];
        let seen = word.load(Ordering::Relaxed);
        let mut entries = halves(seen);
        let mut entry = Entry(entries[way % 2]);
        if entry.is_occupied() && entry.frequency() < FREQUENCY_MAX {
            entry.note_use(FREQUENCY_MAX);
            entries[way % 2] = entry.0;
            // An exchange continues the owner's release sequence, so that whoever sees the note
            // still sees what the owner did before its store. If it fails, a use is lost.
            let _ =
                word.compare_exchange(seen, joined(entries), Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    /// A copy for the owner to work on.
    pub(super) fn load(&self) -> Set {
        let mut set = Set::default();
        for (entries, word) in set.0.chunks_exact_mut(2).zip(&self.0) {
            let [even, odd] = halves(word.load(Ordering::Relaxed));
            (entries[0], entries[1]) = (Entry(even), Entry(odd));
        }
        set
    }

    /// The owner's: puts back what it changed of a copy. Whoever sees an entry sees everything
    /// that was done before.
    pub(super) fn store(&self, before: &Set, after: &Set) {
        let pairs = before.0.chunks_exact(2).zip(after.0.chunks_exact(2));
        for (word, (before, after)) in self.0.iter().zip(pairs) {
            if before != after {
                put(word, [after[0].0, after[1].0]);
            }
        }
    }

    /// The owner's: replaces one entry.
    pub(super) fn set_entry(&self, way: usize, entry: Entry) {
        let word = &self.0[way / 2];
        let mut entries = halves(word.load(Ordering::Relaxed));
        entries[way % 2] = entry.0;
        put(word, entries);
    }
}

/// Stores what the owner made of a word. It may overwrite a note of a use, and is in turn never
/// overwritten by one: the exchange would have had to see it.
fn put(word: &AtomicU64, entries: [u32; 2]) {
    if cfg!(all(loom, test)) {
        // To loom a plain store and an exchange that saw what was there before it have no order,
        // and either may remain; in the language the store comes after.
        word.swap(joined(entries), Ordering::Release);
    } else {
        word.store(joined(entries), Ordering::Release);
    }
}

fn halves(word: u64) -> [u32; 2] {
    [word as u32, (word >> 32) as u32]
}

fn joined([even, odd]: [u32; 2]) -> u64 {
    u64::from(even) | u64::from(odd) << 32
}
