//! What the demo asks for, and what it must get back.
//!
//! Pure and seeded: a random source, a Zipf distribution of blocks, and a model that knows the
//! content of every block from its number and how often it was written. The model shares nothing
//! with the product, so that a mistake there cannot hide here.

/// Bytes in a block of the workload.
pub(crate) const BLOCK_SIZE: usize = 4096;

/// SplitMix64 (Steele, Lea and Flood, 2014): small, fast, and good enough for a workload.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    /// The source of `seed`.
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number, any of 64 bits.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GOLDEN);
        mix(self.0)
    }

    /// The next number in `[0, 1)`.
    pub(crate) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

const fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}

/// Blocks by popularity: the k-th most popular is asked for in proportion to `1 / k^EXPONENT`.
///
/// Sampled by rejection-inversion (Hörmann and Derflinger, 1996): no table, so any volume size.
#[derive(Clone, Debug)]
pub(crate) struct Zipf {
    count: u64,
    integral_first: f64,
    integral_last: f64,
    squeeze: f64,
}

/// Close to what block traces show; above 1, so a cache of a quarter holds most requests.
const EXPONENT: f64 = 1.2;

/// A prime above any number of blocks here, so that multiplying by it permutes them.
const SCATTER: u64 = 2_654_435_761;

impl Zipf {
    /// A distribution over `count` blocks, 1 to 2^31.
    pub(crate) fn new(count: u64) -> Self {
        debug_assert!((1..1 << 31).contains(&count));
        Self {
            count,
            integral_first: integral(1.5) - 1.0,
            integral_last: integral(count as f64 + 0.5),
            squeeze: 2.0 - integral_inverse(integral(2.5) - density(2.0)),
        }
    }

    /// The next block. Popular ones are scattered over the volume.
    pub(crate) fn sample(&self, random: &mut Random) -> u64 {
        loop {
            let span = self.integral_first - self.integral_last;
            let u = self.integral_last + random.unit() * span;
            let x = integral_inverse(u);
            let rank = x.round().clamp(1.0, self.count as f64);
            if rank - x <= self.squeeze || u >= integral(rank + 0.5) - density(rank) {
                return (rank as u64 - 1) * SCATTER % self.count;
            }
        }
    }
}

fn density(x: f64) -> f64 {
    x.powf(-EXPONENT)
}

fn integral(x: f64) -> f64 {
    (x.powf(1.0 - EXPONENT) - 1.0) / (1.0 - EXPONENT)
}

fn integral_inverse(y: f64) -> f64 {
    y.mul_add(1.0 - EXPONENT, 1.0).powf(1.0 / (1.0 - EXPONENT))
}

/// What every block holds: its version, from which its content follows.
#[derive(Debug)]
pub(crate) struct Model {
    seed: u64,
    versions: Vec<u32>,
}

impl Model {
    /// A volume of `blocks` blocks, all of version 0.
    pub(crate) fn new(seed: u64, blocks: u64) -> Self {
        Self { seed, versions: vec![0; blocks as usize] }
    }

    /// Number of blocks.
    pub(crate) fn blocks(&self) -> u64 {
        self.versions.len() as u64
    }

    /// The version that a block has now.
    pub(crate) fn version(&self, block: u64) -> u32 {
        self.versions[block as usize]
    }

    /// A write of `version` to `block` is done.
    pub(crate) fn written(&mut self, block: u64, version: u32) {
        self.versions[block as usize] = version;
    }

    /// Fills `content` with what `block` holds in `version`.
    pub(crate) fn fill(&self, block: u64, version: u32, content: &mut [u8]) {
        for (word, expected) in content.chunks_exact_mut(8).zip(self.words(block, version)) {
            word.copy_from_slice(&expected.to_le_bytes());
        }
    }

    /// How many bytes of `content` differ from what `block` holds in `version`.
    pub(crate) fn wrong_bytes(&self, block: u64, version: u32, content: &[u8]) -> u64 {
        let mut difference = 0;
        for (word, expected) in content.chunks_exact(8).zip(self.words(block, version)) {
            if word != expected.to_le_bytes() {
                let bytes = word.iter().zip(expected.to_le_bytes());
                difference += bytes.filter(|(found, expected)| **found != *expected).count() as u64;
            }
        }
        difference
    }

    fn words(&self, block: u64, version: u32) -> impl Iterator<Item = u64> + use<> {
        let base = mix(self.seed ^ mix(block ^ (u64::from(version) << 32)));
        let mut state = base;
        std::iter::repeat_with(move || {
            state = state.wrapping_add(GOLDEN);
            (state ^ (state >> 32)).wrapping_mul(0xBF58_476D_1CE4_E5B9)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zipf_is_skewed_as_its_exponent_says_and_stays_within() {
        let count = 1 << 16;
        let zipf = Zipf::new(count);
        let mut random = Random::new(7);
        let mut hits = vec![0_u32; count as usize];
        let samples = 400_000;
        for _ in 0..samples {
            hits[zipf.sample(&mut random) as usize] += 1;
        }
        let total: f64 = (1..=count).map(|rank| density(rank as f64)).sum();
        for rank in [1_u64, 2, 3, 10] {
            let block = (rank - 1) * SCATTER % count;
            let expected = density(rank as f64) / total * f64::from(samples);
            let found = f64::from(hits[block as usize]);
            let tolerance = 6.0 * expected.sqrt();
            assert!((found - expected).abs() < tolerance, "rank {rank}: {found} of {expected}");
        }
        assert!(Zipf::new(1).sample(&mut random) == 0);
    }

    #[test]
    fn ranks_are_scattered_one_to_one() {
        let count = 8192 * 3;
        let mut seen = vec![false; count as usize];
        for rank in 0..count {
            seen[(rank * SCATTER % count) as usize] = true;
        }
        assert!(seen.into_iter().all(|seen| seen));
    }

    #[test]
    fn content_depends_on_block_and_version_and_wrong_bytes_are_counted() {
        let model = Model::new(1, 16);
        let content = |block, version| {
            let mut bytes = vec![0; BLOCK_SIZE];
            model.fill(block, version, &mut bytes);
            bytes
        };
        let mut right = content(3, 5);
        assert_eq!(model.wrong_bytes(3, 5, &right), 0);
        for (block, version) in [(3, 4), (4, 5), (5, 3)] {
            assert!(model.wrong_bytes(block, version, &right) > 4000, "{block} {version}");
        }
        assert!(model.wrong_bytes(3, 5, &vec![0; BLOCK_SIZE]) > 4000);
        right[17] ^= 1;
        right[4095] ^= 0x80;
        assert_eq!(model.wrong_bytes(3, 5, &right), 2);
    }

    #[test]
    fn the_model_keeps_versions() {
        let mut model = Model::new(1, 4);
        model.written(2, 9);
        assert_eq!((model.version(1), model.version(2), model.blocks()), (0, 9, 4));
    }
}
