//! Which blocks of every slot may be served, and the version of every set: what other cores look
//! at before and after they read a slot.
//!
//! ```text
//!   a set's record, in u32:   version | valid blocks of way 0, 1, 2, …
//!   line of  4K: 1 bit a slot,  2 words      32K:  8 bits a slot, 5 words
//!            8K: 2 bits,        2 words      64K: 16 bits,        9 words
//!           16K: 4 bits,        3 words
//! ```
//! Version and bits stand together, so that a hit takes one access to memory for both. One core
//! owns the map and changes it with plain loads and stores; every store is a release, so that
//! whoever sees a bit also sees what was done before it was set.
//!
//! Absent: what a version is for; see [`super::index`].

use block_io::{huge_pages, processor};

use super::atomics::{AtomicU32, Ordering, fence};
use super::blocks::BlockSet;
use super::config::LineSize;
use super::entry::WAYS;

/// See the module.
pub(super) struct BlockMap {
    words: Box<[AtomicU32]>,
    words_per_set: usize,
    /// Bits of a slot, as a shift: 0 to 4.
    bits_shift: u32,
}

impl BlockMap {
    /// A map of `sets` sets, in which nothing is valid.
    pub(super) fn new(sets: usize, line_size: LineSize) -> Self {
        let blocks = BlockSet::all(line_size).count();
        let words_per_set = 1 + (WAYS * blocks as usize).div_ceil(32);
        let mut words = huge_pages::vec_with_capacity(sets * words_per_set);
        words.extend((0..sets * words_per_set).map(|_| AtomicU32::new(0)));
        Self { words: words.into_boxed_slice(), words_per_set, bits_shift: blocks.trailing_zeros() }
    }

    pub(super) fn memory_bytes(&self) -> usize {
        size_of_val(&*self.words)
    }

    /// Asks for the memory of a set.
    #[inline]
    pub(super) fn prefetch(&self, set: usize) {
        processor::prefetch(&self.words[set * self.words_per_set]);
    }

    /// The version of a set. What is read after it is at least as new as the version.
    pub(super) fn version(&self, set: usize) -> u32 {
        self.words[set * self.words_per_set].load(Ordering::Acquire)
    }

    /// Whether the version is still `version` for whatever was read before this call.
    pub(super) fn is_version(&self, set: usize, version: u32) -> bool {
        // Orders the reads before against the load: if one of them saw something that was stored
        // after a `new_version`, the load sees that version.
        fence(Ordering::Acquire);
        self.words[set * self.words_per_set].load(Ordering::Relaxed) == version
    }

    /// The owner's step between making something invalid and storing something new.
    pub(super) fn new_version(&self, set: usize) {
        let word = &self.words[set * self.words_per_set];
        let version = word.load(Ordering::Relaxed).wrapping_add(1);
        word.store(version, Ordering::Release);
        // The other half of `is_version`: no store after this is seen before the version is.
        fence(Ordering::Release);
    }

    /// The valid blocks of a slot. What is read after them is at least as new.
    pub(super) fn get(&self, set: usize, way: usize) -> BlockSet {
        let (word, shift, mask) = self.locate(set, way);
        BlockSet((word.load(Ordering::Acquire) >> shift & mask) as u16)
    }

    /// A bit for each way of a set of which no block is valid: the owner's to ask.
    pub(super) fn void_ways(&self, set: usize) -> u16 {
        let first = set * self.words_per_set + 1;
        let bits = 1 << self.bits_shift;
        let ways_per_word = 32 >> self.bits_shift;
        let mut void = 0_u32;
        for (at, word) in self.words[first..first + self.words_per_set - 1].iter().enumerate() {
            let mut word = word.load(Ordering::Relaxed);
            if bits == 1 {
                return !word as u16;
            }
            // Every way's lowest bit becomes whether any of its bits is set.
            let mut width = bits / 2;
            while width > 0 {
                word |= word >> width;
                width /= 2;
            }
            for way in 0..ways_per_word {
                void |= (!word >> (way * bits) & 1) << (at * ways_per_word + way);
            }
        }
        void as u16
    }

    /// The owner's: replaces the valid blocks of a slot.
    pub(super) fn set(&self, set: usize, way: usize, blocks: BlockSet) {
        let (word, shift, mask) = self.locate(set, way);
        debug_assert!(u32::from(blocks.0) & !mask == 0, "blocks beyond the line");
        let others = word.load(Ordering::Relaxed) & !(mask << shift);
        word.store(others | u32::from(blocks.0) << shift, Ordering::Release);
    }

    fn locate(&self, set: usize, way: usize) -> (&AtomicU32, u32, u32) {
        let first_bit = (way as u32) << self.bits_shift;
        let word = set * self.words_per_set + 1 + first_bit as usize / 32;
        (&self.words[word], first_bit % 32, (1 << (1 << self.bits_shift)) - 1)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn slots_and_versions_are_kept_apart() {
        for line_size in LineSize::ALL {
            let map = BlockMap::new(3, line_size);
            let full = BlockSet::all(line_size);
            for way in 0..WAYS {
                map.set(1, way, full);
                map.new_version(1);
                for (set, other) in (0..3).flat_map(|set| (0..WAYS).map(move |way| (set, way))) {
                    let expected = if (set, other) == (1, way) { full } else { BlockSet::EMPTY };
                    assert_eq!(map.get(set, other), expected, "{line_size}: {way} in {other}");
                }
                assert_eq!(map.void_ways(1), !(1 << way), "{line_size}");
                assert_eq!(map.void_ways(2), u16::MAX);
                map.set(1, way, BlockSet::EMPTY);
            }
            assert_eq!([0, 1, 2].map(|set| map.version(set)), [0, 16, 0]);
            assert!(map.is_version(1, 16) && !map.is_version(1, 15));
        }
    }

    #[test]
    fn memory_is_what_the_picture_says() {
        let words = LineSize::ALL.map(|size| BlockMap::new(10, size).memory_bytes() / 40);
        assert_eq!(words, [2, 2, 3, 5, 9]);
    }
}
