//! Which missed lines are stored, as far as their past decides: the memory of misses.
//!
//! A *doorkeeper* remembers fingerprints of lines that were missed and not stored. Buckets of
//! sixteen fingerprints are first-in, first-out, so that it ages by itself: it holds about as many
//! of the latest misses as the cache has lines, whatever the load.
//!
//! ```text
//!   miss of a line ─▶ bucket of its hash ─▶ fingerprint there?  no: put it in front, the last
//!                                                                   falls out; not stored
//!                                                               yes: take it out; stored
//! ```
//! Cost: 2 bytes a line of the cache, only while a setting needs it. A wrong match (1 miss in
//! 4096) stores a line at its first miss, which does no harm.
//!
//! Absent: when it is asked; see `Policy::admit`.

use super::super::config::VolumeId;

const WAYS: usize = 16;

/// Remembers missed lines. See the module.
pub(super) struct Doorkeeper {
    buckets: Box<[[u16; WAYS]]>,
}

impl Doorkeeper {
    /// One that remembers about `lines` misses.
    pub(super) fn new(lines: u64) -> Self {
        let buckets = usize::try_from(lines.div_ceil(WAYS as u64)).unwrap_or(1).max(1);
        Self { buckets: vec![[0; WAYS]; buckets].into_boxed_slice() }
    }

    /// Whether the line was missed before, not long ago. If so that is forgotten, else it is
    /// remembered.
    pub(super) fn is_second(&mut self, volume: VolumeId, line: u64) -> bool {
        let hash = hash(volume, line);
        let at = (u128::from(hash) * self.buckets.len() as u128) >> 64;
        let bucket = &mut self.buckets[at as usize];
        // The low bits: the high ones chose the bucket. Zero is an empty place.
        let fingerprint = (hash as u16).max(1);
        match bucket.iter().position(|other| *other == fingerprint) {
            Some(at) => {
                bucket.copy_within(at + 1.., at);
                bucket[WAYS - 1] = 0;
                true
            }
            None => {
                bucket.copy_within(..WAYS - 1, 1);
                bucket[0] = fingerprint;
                false
            }
        }
    }

    pub(super) fn memory_bytes(&self) -> u64 {
        size_of_val(&*self.buckets) as u64
    }
}

/// A line's hash; both halves are mixed.
pub(super) fn hash(volume: VolumeId, line: u64) -> u64 {
    let mixed = (line ^ u64::from(volume.0) << 48).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let mixed = (mixed ^ mixed >> 32).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed ^ mixed >> 32
}

#[cfg(test)]
mod tests {
    use super::*;
    use block_io::sim::Random;

    const VOLUME: VolumeId = VolumeId(0);

    #[test]
    fn the_second_miss_is_known_and_then_forgotten() {
        let mut doorkeeper = Doorkeeper::new(1000);
        assert!(!doorkeeper.is_second(VOLUME, 7));
        assert!(!doorkeeper.is_second(VolumeId(1), 7), "of another volume");
        assert!(doorkeeper.is_second(VOLUME, 7));
        assert!(!doorkeeper.is_second(VOLUME, 7), "the third is a first one again");
    }

    #[test]
    fn half_as_many_lines_as_the_cache_has_are_remembered_and_a_long_scan_is_forgotten() {
        for seed in 0..10 {
            let lines = 16_000;
            let base = Random::new(seed).next_u64() >> 20;
            let mut doorkeeper = Doorkeeper::new(lines);
            let count = |many: u64, doorkeeper: &mut Doorkeeper| {
                (0..many).filter(|line| doorkeeper.is_second(VOLUME, base + line * 3)).count()
            };
            assert!(count(lines / 2, &mut doorkeeper) < 20, "seed {seed}: first misses");
            let known = count(lines / 2, &mut doorkeeper);
            assert!(known > 7800, "seed {seed}: {known} of 8000 known");
            count(lines * 4, &mut doorkeeper);
            let known = count(lines / 2, &mut doorkeeper);
            assert!(known < 50, "seed {seed}: {known} known after a scan of four times as much");
        }
    }

    #[test]
    fn its_memory_is_two_bytes_a_line() {
        assert_eq!(Doorkeeper::new(1 << 16).memory_bytes(), 2 << 16);
        assert!(Doorkeeper::new(0).memory_bytes() > 0);
    }
}
