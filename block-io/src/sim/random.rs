//! The simulation's source of chance: xoshiro256++ (Blackman and Vigna, public domain), seeded by
//! splitmix64. Small, fast, ours, so that a seed means the same run in every build.
//!
//! Not for secrets.

use std::ops::RangeInclusive;
use std::time::Duration;

/// A seeded generator. A clone continues on its own from the same state.
#[derive(Clone, Debug)]
pub struct Random {
    seed: u64,
    state: [u64; 4],
}

/// One step of splitmix64: a good 64-bit mixing of `value`.
pub(super) const fn mix(value: u64) -> u64 {
    let mut mixed = value.wrapping_add(0x9E37_79B9_7F4A_7C15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

impl Random {
    /// The generator of `seed`.
    pub fn new(seed: u64) -> Self {
        let first = mix(seed);
        let second = mix(first);
        let third = mix(second);
        Self { seed, state: [first, second, third, mix(third)] }
    }

    /// The generator of a component. It depends on this one's seed and on `label` only, not on
    /// what was drawn: draws added in one component change nothing in another.
    pub fn fork(&self, label: &str) -> Self {
        let label = label.bytes().fold(0, |hash, byte| mix(hash ^ u64::from(byte)));
        Self::new(mix(self.seed) ^ label)
    }

    /// Any 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        let [a, b, c, d] = &mut self.state;
        let result = a.wrapping_add(*d).rotate_left(23).wrapping_add(*a);
        let shifted = *b << 17;
        *c ^= *a;
        *d ^= *b;
        *b ^= *c;
        *a ^= *d;
        *c ^= shifted;
        *d = d.rotate_left(45);
        result
    }

    /// A number in `0..bound`; 0 when `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        // The high half of the product: its bias is below 2^-32 for any bound a test uses.
        ((u128::from(self.next_u64()) * u128::from(bound)) >> 64) as u64
    }

    /// A number in `range`.
    ///
    /// # Panics
    /// When the range is empty.
    pub fn range(&mut self, range: RangeInclusive<u64>) -> u64 {
        assert!(!range.is_empty(), "an empty range {range:?} has no number");
        let width = (range.end() - range.start()).saturating_add(1);
        range.start() + self.below(width)
    }

    /// True `per_mille` times in a thousand.
    pub fn chance(&mut self, per_mille: u32) -> bool {
        self.below(1000) < u64::from(per_mille)
    }

    /// True half of the time.
    pub fn coin(&mut self) -> bool {
        self.next_u64() >> 63 == 1
    }

    /// A time between the two, both possible.
    pub fn duration(&mut self, shortest: Duration, longest: Duration) -> Duration {
        let nanoseconds =
            |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let (low, high) = (nanoseconds(shortest), nanoseconds(longest));
        Duration::from_nanos(low + self.below(high.saturating_sub(low).saturating_add(1)))
    }

    /// One of `choices`.
    ///
    /// # Panics
    /// When there is none.
    pub fn choose<'choices, Choice>(&mut self, choices: &'choices [Choice]) -> &'choices Choice {
        assert!(!choices.is_empty(), "nothing to choose from");
        &choices[self.below(choices.len() as u64) as usize]
    }

    /// Brings `items` into a random order.
    pub fn shuffle<Item>(&mut self, items: &mut [Item]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last as u64 + 1) as usize);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mixing_is_the_published_splitmix64() {
        // The first outputs of the published generator from the seed 1234567.
        let golden = 0x9E37_79B9_7F4A_7C15_u64;
        let outputs =
            [0, 1, 2].map(|step| mix(1_234_567_u64.wrapping_add(golden.wrapping_mul(step))));
        let expected =
            [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423];
        assert_eq!(outputs, expected);
    }

    #[test]
    fn a_fork_depends_on_seed_and_label_only() {
        let mut world = Random::new(7);
        let before = world.fork("disk").next_u64();
        world.next_u64();
        assert_eq!(world.fork("disk").next_u64(), before);
        assert_ne!(world.fork("network").next_u64(), before);
        assert_ne!(Random::new(8).fork("disk").next_u64(), before);
    }

    #[test]
    fn ranges_and_chances_are_about_right() {
        let mut random = Random::new(1);
        let mut seen = [0; 6];
        for _ in 0..6000 {
            seen[random.range(0..=5) as usize] += 1;
        }
        assert!(seen.iter().all(|count| (800..1200).contains(count)), "{seen:?}");
        let hits = (0..10_000).filter(|_| random.chance(100)).count();
        assert!((800..1200).contains(&hits), "{hits}");
        assert!((0..1000).all(|_| !random.chance(0)));
        assert!((0..1000).all(|_| random.chance(1000)));
        assert_eq!(random.range(u64::MAX..=u64::MAX), u64::MAX);
    }

    #[test]
    fn a_shuffle_keeps_every_item() {
        let mut items: Vec<u64> = (0..100).collect();
        Random::new(3).shuffle(&mut items);
        assert_ne!(items, (0..100).collect::<Vec<_>>());
        items.sort_unstable();
        assert_eq!(items, (0..100).collect::<Vec<_>>());
    }
}
