//! Which set a line of the volume belongs to, and the tag that names it there.
//!
//! A line number is first scrambled by a bijection on exactly the volume's line bits, so that any
//! stride spreads over the sets, and then scaled onto the number of sets. What is lost in scaling
//! is the tag. Both steps can be undone, so set and tag together *are* the line number: no false
//! hit is possible and no address is stored.
//!
//! ```text
//!   line number ──scramble──▶ x in [0, 2^bits) ──x·sets / 2^bits──▶ set
//!                                              ──rank of x in its set──▶ tag
//! ```

/// Number of a line within a volume: byte offset divided by line size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct LineNumber(pub(crate) u64);

/// Where a line may be cached: its set, and its name within the set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) set: u32,
    pub(crate) tag: u32,
}

/// Bits of a tag in an index entry.
pub(crate) const TAG_BITS: u32 = 22;

/// The mapping between line numbers and places for one volume size and number of sets.
#[derive(Clone, Debug)]
pub(crate) struct LineMap {
    bits: u32,
    mask: u64,
    half: u32,
    sets: u64,
    /// Scrambled numbers a set: 2^bits over the number of sets, and what is left over.
    quotient: u64,
    remainder: u64,
}

/// Odd multipliers of the scramble (from the SplitMix64 finaliser) and their inverses modulo 2^64.
const MULTIPLIERS: [u64; 2] = [0xBF58_476D_1CE4_E5B9, 0x94D0_49BB_1331_11EB];
const INVERSES: [u64; 2] = [inverse(MULTIPLIERS[0]), inverse(MULTIPLIERS[1])];

/// The inverse of an odd number modulo 2^64, by Newton's iteration (each step doubles the bits).
const fn inverse(odd: u64) -> u64 {
    let mut result = odd;
    let mut step = 0;
    while step < 6 {
        result = result.wrapping_mul(2u64.wrapping_sub(odd.wrapping_mul(result)));
        step += 1;
    }
    result
}

impl LineMap {
    /// The mapping of a volume of `lines` lines onto `sets` sets.
    ///
    /// # Errors
    /// The smallest number of sets that would do, when `sets` is too few for tags of
    /// [`TAG_BITS`].
    pub(crate) fn new(lines: u64, sets: u32) -> Result<Self, u64> {
        assert!(sets > 0 && lines > 0, "a cache has sets and a volume has lines");
        // An even number of bits keeps the two halves of the scramble equal.
        let bits = (64 - (lines - 1).leading_zeros()).next_multiple_of(2).max(2);
        let tags = (1u128 << bits).div_ceil(u128::from(sets));
        if tags > 1 << TAG_BITS {
            return Err(((1u128 << bits) >> TAG_BITS) as u64);
        }
        let (all, sets) = (1u128 << bits, u64::from(sets));
        let (quotient, remainder) = (all / u128::from(sets), all % u128::from(sets));
        Ok(Self {
            bits,
            mask: (all - 1) as u64,
            half: bits / 2,
            sets,
            quotient: quotient as u64,
            remainder: remainder as u64,
        })
    }

    /// As many lines as can lie before `sets` sets.
    pub(crate) const fn lines_for(sets: u32) -> u64 {
        1 << (((sets as u64) << TAG_BITS).ilog2() & !1)
    }

    /// The set of a line alone.
    pub(crate) fn set(&self, line: LineNumber) -> u32 {
        ((u128::from(self.scramble(line.0)) * u128::from(self.sets)) >> self.bits) as u32
    }

    /// Set and tag of a line.
    pub(crate) fn place(&self, line: LineNumber) -> Place {
        let x = self.scramble(line.0);
        let product = u128::from(x) * u128::from(self.sets);
        let set = (product >> self.bits) as u32;
        // Consecutive x of one set differ by `sets` in the product's remainder.
        let tag = (product as u64 & self.mask) / self.sets;
        Place { set, tag: tag as u32 }
    }

    /// The line of a place; undoes [`place`](Self::place).
    pub(crate) fn line(&self, place: Place) -> LineNumber {
        // set * 2^bits / sets, rounded up: both factors of the second product are below 2^32.
        let set = u64::from(place.set);
        let first = set * self.quotient + (set * self.remainder).div_ceil(self.sets);
        LineNumber(self.unscramble(first + u64::from(place.tag)))
    }

    fn scramble(&self, line: u64) -> u64 {
        let mut x = line;
        for multiplier in MULTIPLIERS {
            x ^= x >> self.half;
            x = x.wrapping_mul(multiplier) & self.mask;
        }
        x ^ (x >> self.half)
    }

    fn unscramble(&self, scrambled: u64) -> u64 {
        // A shift by half the width is its own inverse: the upper half is untouched by it.
        let mut x = scrambled ^ (scrambled >> self.half);
        for inverse in INVERSES.into_iter().rev() {
            x = x.wrapping_mul(inverse) & self.mask;
            x ^= x >> self.half;
        }
        x
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_line_has_its_own_place_and_back() {
        for (lines, sets) in [(1, 1), (2, 1), (1000, 7), (4096, 4096), (5000, 63), (70_000, 3)] {
            let map = LineMap::new(lines, sets).expect("tags fit");
            let mut seen = std::collections::BTreeSet::new();
            for number in 0..lines {
                let place = map.place(LineNumber(number));
                assert!(place.set < sets && place.tag < 1 << TAG_BITS);
                assert_eq!(map.set(LineNumber(number)), place.set);
                assert!(
                    seen.insert((place.set, place.tag)),
                    "{lines} lines, {sets} sets: {number}"
                );
                assert_eq!(map.line(place), LineNumber(number));
            }
        }
    }

    #[test]
    fn large_volumes_survive_the_arithmetic() {
        let lines = 1u64 << 46;
        let map = LineMap::new(lines, 1 << 25).expect("tags fit");
        for number in [0, 1, lines / 3, lines - 1] {
            assert_eq!(map.line(map.place(LineNumber(number))), LineNumber(number));
        }
    }

    #[test]
    fn too_few_sets_are_refused_with_the_number_needed() {
        let needed = LineMap::new(1 << 30, 1).expect_err("one set for 2^30 lines");
        assert!(LineMap::new(1 << 30, needed as u32).is_ok());
        assert!(LineMap::new(1 << 30, needed as u32 - 1).is_err());
    }

    #[test]
    fn strides_spread_over_the_sets() {
        let sets = 1000u32;
        let map = LineMap::new(1 << 24, sets).expect("tags fit");
        for stride in [1u64, 16, 256, 1024] {
            let mut counts = vec![0u32; sets as usize];
            for step in 0..16_000 {
                counts[map.place(LineNumber(step * stride)).set as usize] += 1;
            }
            // 16 expected in each; a Poisson draw of a thousand stays far below 60.
            assert!(counts.iter().all(|count| *count < 60), "stride {stride}");
        }
    }
}
