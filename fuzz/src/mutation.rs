//! Changes to bytes, from a seed: the same seed makes the same changes in the same order.

/// Values that code treats specially, as bytes, 16, 32 or 64 bits wide.
const INTERESTING: &[u64] = &[
    0,
    1,
    2,
    3,
    4,
    7,
    8,
    15,
    16,
    31,
    32,
    63,
    64,
    127,
    128,
    255,
    256,
    511,
    512,
    4095,
    4096,
    4097,
    0x7fff,
    0x8000,
    0xffff,
    0x1_0000,
    0x10_0000,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x1_0000_0000,
    u64::MAX >> 1,
    1 << 63,
    u64::MAX - 511,
    u64::MAX,
];

/// A generator of numbers; SplitMix64, which is small and good enough to choose with.
#[derive(Clone, Debug)]
pub struct Random {
    state: u64,
}

impl Random {
    /// The generator of `seed`.
    pub const fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// The next number.
    pub const fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `bound`, which is not zero.
    pub const fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}

/// Makes inputs out of inputs.
pub struct Mutator {
    random: Random,
    length_max: usize,
}

impl Mutator {
    /// A mutator whose inputs have at most `length_max` bytes.
    pub const fn new(seed: u64, length_max: usize) -> Self {
        Self { random: Random::new(seed), length_max }
    }

    /// An input made from one of `corpus`, which is not empty, with parts of others.
    pub fn next_input(&mut self, corpus: &[Vec<u8>]) -> Vec<u8> {
        let mut input = corpus[self.random.below(corpus.len())].clone();
        // Mostly one change, sometimes many: 1, 2, 4, 8 or 16.
        let changes = 1 << self.random.below(5).min(self.random.below(5));
        for _ in 0..changes {
            let other = &corpus[self.random.below(corpus.len())];
            self.change(&mut input, other);
        }
        input.truncate(self.length_max);
        input
    }

    fn change(&mut self, input: &mut Vec<u8>, other: &[u8]) {
        if input.is_empty() {
            input.extend_from_slice(other);
            input.push(self.random.next() as u8);
            return;
        }
        match self.random.below(10) {
            0 => {
                let at = self.random.below(input.len());
                input[at] ^= 1 << self.random.below(8);
            }
            1 => {
                let at = self.random.below(input.len());
                input[at] = self.random.next() as u8;
            }
            2 | 3 => self.overwrite_number(input),
            4 => self.adjust_number(input),
            5 => {
                let at = self.random.below(input.len());
                input.truncate(at);
            }
            6 => {
                let (at, length) = self.range(input.len());
                input.drain(at..at + length);
            }
            7 => {
                let (at, length) = self.range(input.len());
                let part = input[at..at + length].to_vec();
                let place = self.random.below(input.len() + 1);
                input.splice(place..place, part);
            }
            8 if !other.is_empty() => {
                let (at, length) = self.range(other.len());
                let place = self.random.below(input.len() + 1);
                input.splice(place..place, other[at..at + length].iter().copied());
            }
            _ => {
                let keep = self.random.below(input.len() + 1);
                input.truncate(keep);
                let from = self.random.below(other.len() + 1);
                input.extend_from_slice(&other[from..]);
            }
        }
    }

    /// A non-empty range within `length` bytes, as start and length.
    const fn range(&mut self, length: usize) -> (usize, usize) {
        let at = self.random.below(length);
        (at, 1 + self.random.below(length - at))
    }

    /// A field of 1, 2, 4 or 8 bytes within the input, and whether it is big-endian.
    fn field(&mut self, input: &[u8]) -> (std::ops::Range<usize>, bool) {
        let width = (1usize << self.random.below(4)).min(input.len());
        let at = self.random.below(input.len() - width + 1);
        (at..at + width, self.random.below(2) == 0)
    }

    fn overwrite_number(&mut self, input: &mut [u8]) {
        let (field, big_endian) = self.field(input);
        let value = INTERESTING[self.random.below(INTERESTING.len())];
        store(&mut input[field], value, big_endian);
    }

    fn adjust_number(&mut self, input: &mut [u8]) {
        let (field, big_endian) = self.field(input);
        let delta = (self.random.below(33) as u64).wrapping_sub(16);
        let value = load(&input[field.clone()], big_endian).wrapping_add(delta);
        store(&mut input[field], value, big_endian);
    }
}

fn load(field: &[u8], big_endian: bool) -> u64 {
    let add = |value: u64, byte: &u8| (value << 8) | u64::from(*byte);
    if big_endian { field.iter().fold(0, add) } else { field.iter().rev().fold(0, add) }
}

fn store(field: &mut [u8], value: u64, big_endian: bool) {
    let bytes = value.to_le_bytes();
    let length = field.len();
    field.copy_from_slice(&bytes[..length]);
    if big_endian {
        field.reverse();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_makes_the_same_inputs_again() {
        let corpus = vec![vec![1, 2, 3, 4], vec![9; 40]];
        let run = |seed| {
            let mut mutator = Mutator::new(seed, 64);
            (0..500).map(|_| mutator.next_input(&corpus)).collect::<Vec<_>>()
        };
        assert_eq!(run(7), run(7));
        assert_ne!(run(7), run(8));
        assert!(run(7).iter().all(|input| input.len() <= 64));
        assert!(run(7).iter().any(Vec::is_empty) || run(7).iter().any(|input| input.len() > 40));
    }

    #[test]
    fn numbers_come_in_both_byte_orders() {
        for big_endian in [false, true] {
            let mut field = [0; 4];
            store(&mut field, 0x0102_0304, big_endian);
            assert_eq!(field[0], if big_endian { 1 } else { 4 });
            assert_eq!(load(&field, big_endian), 0x0102_0304);
        }
    }
}
