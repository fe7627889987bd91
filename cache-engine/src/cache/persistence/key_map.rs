//! A map of fixed size from numbers to places in a table: open-addressed, one memory access for
//! most lookups, nothing allocated after start.
//!
//! ```text
//!   key ──multiply, high bits──▶ bucket ──taken by another?──▶ next bucket …
//! ```
//! It is at most half full, so runs are short; a removal closes its gap, so there are no markers
//! of removed keys to step over. Absent: iteration; whoever needs order keeps it elsewhere.

/// At most `capacity` keys below `u64::MAX`, each with a `u32`.
pub(super) struct KeyMap {
    /// Key + 1 and value; a key of 0 is an empty bucket.
    buckets: Box<[(u64, u32)]>,
    shift: u32,
}

impl KeyMap {
    pub(super) fn new(capacity: usize) -> Self {
        let buckets = (capacity.max(8) * 2).next_power_of_two();
        let shift = 64 - buckets.trailing_zeros();
        Self { buckets: vec![(0, 0); buckets].into_boxed_slice(), shift }
    }

    pub(super) fn find(&self, key: u64) -> Option<u32> {
        let mut at = self.home(key + 1);
        loop {
            let (found, value) = self.buckets[at];
            if found == key + 1 {
                return Some(value);
            }
            if found == 0 {
                return None;
            }
            at = self.next(at);
        }
    }

    /// Adds a key that is not there; the caller keeps to the capacity.
    pub(super) fn insert(&mut self, key: u64, value: u32) {
        let mut at = self.home(key + 1);
        while self.buckets[at].0 != 0 {
            debug_assert!(self.buckets[at].0 != key + 1, "the key is there already");
            at = self.next(at);
        }
        self.buckets[at] = (key + 1, value);
    }

    pub(super) fn remove(&mut self, key: u64) {
        let mut gap = self.home(key + 1);
        while self.buckets[gap].0 != key + 1 {
            if self.buckets[gap].0 == 0 {
                return;
            }
            gap = self.next(gap);
        }
        // What follows in the same run moves up, unless that would put it before its home.
        let mut at = self.next(gap);
        while self.buckets[at].0 != 0 {
            let home = self.home(self.buckets[at].0);
            let mask = self.buckets.len() - 1;
            if at.wrapping_sub(home) & mask >= at.wrapping_sub(gap) & mask {
                self.buckets[gap] = self.buckets[at];
                gap = at;
            }
            at = self.next(at);
        }
        self.buckets[gap] = (0, 0);
    }

    fn home(&self, stored: u64) -> usize {
        (stored.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> self.shift) as usize
    }

    fn next(&self, at: usize) -> usize {
        (at + 1) & (self.buckets.len() - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use block_io::sim::Random;
    use std::collections::BTreeMap;

    #[test]
    fn it_behaves_like_any_map() {
        let mut random = Random::new(1);
        let (mut map, mut model) = (KeyMap::new(100), BTreeMap::new());
        for step in 0..20_000u32 {
            let key = random.below(150);
            if model.remove(&key).is_some() {
                map.remove(key);
            } else if model.len() < 100 {
                map.insert(key, step);
                model.insert(key, step);
            }
            for key in 0..150 {
                assert_eq!(map.find(key), model.get(&key).copied(), "step {step}, key {key}");
            }
        }
    }
}
