//! The miss ratio that caches of other sizes would have, while the cache runs.
//!
//! Fixed-size SHARDS (Waldspurger et al., "Efficient MRC Construction with SHARDS", FAST 2015): a
//! line is sampled when its hash is below a threshold, so either all of its accesses are or none.
//! Among the sampled lines, how many different ones were accessed since the last access of this
//! one, divided by the sampling rate, is how large an LRU cache would have had to be for a hit.
//!
//! ```text
//!   access ─ hash < threshold? ─no─▶ done (nearly all)
//!               └─yes─▶ table: when last? ─▶ tree: how many since? ─▶ histogram of sizes
//!                          └─ new, and too many: the largest hash goes, and the threshold to it
//! ```
//! Memory is allocated once and bounded by the number of samples. Every access counts for one
//! divided by the rate it was sampled at, so that nothing is rescaled when the threshold falls.
//!
//! Absent: other policies than LRU. What eviction makes of the same lines is a little better.

use std::collections::BinaryHeap;

/// Makes a hash of a line number; odd, hence a bijection, so that the hash is the line's name.
/// 2^64 divided by the golden ratio: lines beside each other are spread as evenly as can be.
const MULTIPLIER: u64 = 0x9E37_79B9_7F4A_7C15;

/// Of how many lines one is sampled at the most: what a small working set costs.
const LINES_PER_SAMPLE_MIN: u64 = 16;

/// No line: hashes are below the threshold, which is at most this.
const NONE: u64 = u64::MAX;

/// Bins of the histogram to each power of two.
const BINS_PER_OCTAVE_SHIFT: u32 = 3;
const BINS: usize = (64 - BINS_PER_OCTAVE_SHIFT as usize + 1) << BINS_PER_OCTAVE_SHIFT;

/// A sampled line.
#[derive(Clone, Copy)]
struct Sample {
    hash: u64,
    /// Its place in the order of last accesses.
    turn: u32,
}

/// A miss-ratio curve in the making. See the module.
pub struct MissRatioCurve {
    threshold: u64,
    samples_max: usize,
    /// Sampled lines by hash, open-addressed; twice as large as it is full.
    table: Box<[Sample]>,
    /// The hashes in the table, the largest on top.
    hashes: BinaryHeap<u64>,
    /// By turn: the line last accessed then, or [`NONE`] if it was accessed again or dropped.
    turns: Box<[u64]>,
    /// A Fenwick tree over `turns`: how many of them hold a line.
    tree: Box<[u32]>,
    next_turn: usize,
    /// By bin of cache size: accesses that would be hits from that size on.
    hits: Box<[f64; BINS]>,
    /// Accesses, as estimated from the sampled ones.
    accesses: f64,
}

impl MissRatioCurve {
    /// A curve without accesses, made of at most `samples_max` lines at a time (at least 16 are
    /// taken). On traces of block devices the mean error was 0.005 to 0.036 with a thousand, and
    /// 0.002 to 0.011 with eight thousand where there were so many; each takes about 100 bytes.
    pub fn new(samples_max: usize) -> Self {
        let samples_max = samples_max.max(16);
        let empty = Sample { hash: NONE, turn: 0 };
        Self {
            threshold: u64::MAX / LINES_PER_SAMPLE_MIN,
            samples_max,
            table: vec![empty; (2 * (samples_max + 1)).next_power_of_two()].into_boxed_slice(),
            hashes: BinaryHeap::with_capacity(samples_max + 1),
            turns: vec![NONE; 2 * (samples_max + 1)].into_boxed_slice(),
            tree: vec![0; 2 * (samples_max + 1) + 1].into_boxed_slice(),
            next_turn: 0,
            hits: Box::new([0.0; BINS]),
            accesses: 0.0,
        }
    }

    /// Notes an access. Nearly always a multiplication and a comparison.
    #[inline]
    pub fn access(&mut self, line: u64) {
        let hash = line.wrapping_mul(MULTIPLIER);
        if hash < self.threshold {
            self.note(hash);
        }
    }

    /// Cache sizes in lines, ascending, each with the share of accesses that an LRU cache of that
    /// size would have missed. Empty before the first sampled access.
    pub fn curve(&self) -> Vec<(u64, f64)> {
        self.curve_of(self.accesses)
    }

    /// The same when the number of accesses is known (SHARDS-adj in the paper): corrects for the
    /// luck of having drawn the few most popular lines or not. Better where such lines dominate
    /// (0.008 in place of 0.036 on an OLTP trace), often a little worse where none do.
    pub fn curve_of_accesses(&self, accesses: u64) -> Vec<(u64, f64)> {
        self.curve_of(accesses as f64)
    }

    fn curve_of(&self, accesses: f64) -> Vec<(u64, f64)> {
        let Some(last) = self.hits.iter().rposition(|hits| *hits > 0.0) else { return Vec::new() };
        // What was drawn too often or too rarely are lines that any cache holds.
        let mut hits = accesses - self.accesses;
        let bins = self.hits[..=last].iter().enumerate();
        bins.map(|(bin, more)| {
            hits += more;
            (size_of_bin(bin), (1.0 - hits / accesses).clamp(0.0, 1.0))
        })
        .collect()
    }

    /// Halves the weight of everything seen so far, so that the curve follows what changes.
    pub fn age(&mut self) {
        self.hits.iter_mut().for_each(|hits| *hits /= 2.0);
        self.accesses /= 2.0;
    }

    /// Bytes of memory that it takes, however long it runs.
    pub fn memory_bytes(&self) -> u64 {
        let bytes = size_of_val(&*self.table)
            + size_of_val(&*self.turns)
            + size_of_val(&*self.tree)
            + size_of_val(&*self.hits)
            + self.hashes.capacity() * size_of::<u64>()
            + size_of::<Self>();
        bytes as u64
    }

    #[inline(never)]
    fn note(&mut self, hash: u64) {
        // How many accesses this one stands for.
        let weight = NONE as f64 / self.threshold as f64;
        self.accesses += weight;
        if self.next_turn == self.turns.len() {
            self.close_ranks();
        }
        let place = self.find(hash);
        let sample = self.table[place];
        let is_new = sample.hash == NONE;
        if !is_new {
            let since = self.hashes.len() as u32 - self.turns_until(sample.turn);
            let size = f64::from(since + 1) * weight;
            self.hits[bin_of_size(size as u64)] += weight;
            self.clear_turn(sample.turn);
        }
        let turn = self.take_turn(hash);
        self.table[place] = Sample { hash, turn };
        if is_new {
            self.hashes.push(hash);
            if self.hashes.len() > self.samples_max {
                self.drop_largest();
            }
        }
    }

    /// Samples fewer lines from now on: the largest hash is the new threshold.
    fn drop_largest(&mut self) {
        let largest = self.hashes.pop().expect("there are more than may be");
        self.threshold = largest;
        let place = self.find(largest);
        self.clear_turn(self.table[place].turn);
        self.take_out(place);
    }

    /// Where a hash is in the table, or is to be put.
    fn find(&self, hash: u64) -> usize {
        let mut place = self.home(hash);
        while self.table[place].hash != hash && self.table[place].hash != NONE {
            place = (place + 1) & (self.table.len() - 1);
        }
        place
    }

    /// The hashes are all small numbers, and lines beside each other differ in the low bits only.
    fn home(&self, hash: u64) -> usize {
        ((hash ^ hash >> 29).wrapping_mul(MULTIPLIER) >> 32) as usize & (self.table.len() - 1)
    }

    /// Empties a place and moves up what stands behind it and would no longer be found.
    fn take_out(&mut self, mut gap: usize) {
        let mask = self.table.len() - 1;
        let mut place = gap;
        loop {
            place = (place + 1) & mask;
            let sample = self.table[place];
            if sample.hash == NONE {
                break;
            }
            let home = self.home(sample.hash);
            if place.wrapping_sub(home) & mask >= place.wrapping_sub(gap) & mask {
                self.table[gap] = sample;
                gap = place;
            }
        }
        self.table[gap].hash = NONE;
    }

    fn take_turn(&mut self, hash: u64) -> u32 {
        let turn = self.next_turn;
        self.next_turn += 1;
        self.turns[turn] = hash;
        self.add(turn, 1);
        turn as u32
    }

    fn clear_turn(&mut self, turn: u32) {
        self.turns[turn as usize] = NONE;
        self.add(turn as usize, u32::MAX);
    }

    /// Adds to the tree, modulo 2^32: the largest number takes one away.
    fn add(&mut self, turn: usize, number: u32) {
        let mut node = turn + 1;
        while node < self.tree.len() {
            self.tree[node] = self.tree[node].wrapping_add(number);
            node += node & node.wrapping_neg();
        }
    }

    /// Lines last accessed at this turn or before.
    fn turns_until(&self, turn: u32) -> u32 {
        let mut node = turn as usize + 1;
        let mut sum = 0u32;
        while node > 0 {
            sum = sum.wrapping_add(self.tree[node]);
            node &= node - 1;
        }
        sum
    }

    /// Numbers the turns anew, without gaps; at least half of them are gaps.
    fn close_ranks(&mut self) {
        self.tree.fill(0);
        self.next_turn = 0;
        for turn in 0..self.turns.len() {
            let hash = std::mem::replace(&mut self.turns[turn], NONE);
            if hash != NONE {
                let place = self.find(hash);
                self.table[place].turn = self.take_turn(hash);
            }
        }
    }
}

/// The bin of a cache size in lines, at least 1: eight to each power of two, and exact up to 16.
fn bin_of_size(size: u64) -> usize {
    let size = size.max(1);
    let octave = size.ilog2().saturating_sub(BINS_PER_OCTAVE_SHIFT);
    // Sizes within a bin round up, so that the curve never promises too much.
    let part = size.div_ceil(1 << octave) as usize;
    ((octave as usize) << BINS_PER_OCTAVE_SHIFT) + part - 1
}

/// The largest size of a bin.
fn size_of_bin(bin: usize) -> u64 {
    let octave = (bin >> BINS_PER_OCTAVE_SHIFT).saturating_sub(1);
    let part = (bin - (octave << BINS_PER_OCTAVE_SHIFT) + 1) as u64;
    part.checked_shl(octave as u32).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use block_io::sim::Random;

    /// By access: how large an LRU cache would have to be for a hit, if it was accessed before.
    fn exact(accesses: &[u64]) -> Vec<Option<u64>> {
        let mut last = std::collections::BTreeMap::new();
        let mut tree = vec![0i64; accesses.len() + 2];
        let add = |tree: &mut Vec<i64>, mut node: usize, number| {
            while node < tree.len() {
                tree[node] += number;
                node += node & node.wrapping_neg();
            }
        };
        let until = |tree: &Vec<i64>, mut node: usize| {
            let mut sum = 0;
            while node > 0 {
                sum += tree[node];
                node &= node - 1;
            }
            sum
        };
        let mut sizes = Vec::new();
        for (index, line) in accesses.iter().enumerate() {
            let before = last.insert(*line, index + 1);
            sizes.push(before.map(|before| {
                let size = until(&tree, index) - until(&tree, before) + 1;
                add(&mut tree, before, -1);
                size as u64
            }));
            add(&mut tree, index + 1, 1);
        }
        sizes
    }

    /// The mean and the largest difference from the exact curve, over sizes.
    fn errors(curve: &[(u64, f64)], sizes: &[Option<u64>]) -> (f64, f64) {
        let (mut sum, mut most, mut points) = (0.0, 0.0f64, 0);
        for (size, miss_ratio) in curve.iter().filter(|(size, _)| *size >= 1000) {
            let hits = sizes.iter().flatten().filter(|needed| *needed <= size).count();
            let error = (1.0 - hits as f64 / sizes.len() as f64 - miss_ratio).abs();
            (sum, most, points) = (sum + error, most.max(error), points + 1);
        }
        assert!(points > 20, "a curve has points");
        (sum / f64::from(points), most)
    }

    /// Popular lines, a loop and a scan, in turn.
    fn workload() -> Vec<u64> {
        let mut random = Random::new(7);
        let mut accesses = Vec::new();
        for round in 0..150_000u64 {
            let popular = random.below(200_000) * random.below(200_000) / 200_000;
            accesses.push(popular);
            accesses.push(1_000_000 + round % 30_000);
            accesses.push(2_000_000 + round);
        }
        accesses
    }

    #[test]
    fn the_curve_is_close_to_the_exact_one_in_bounded_memory() {
        let accesses = workload();
        let sizes = exact(&accesses);
        let mut curve = MissRatioCurve::new(4096);
        let memory = curve.memory_bytes();
        accesses.iter().for_each(|line| curve.access(*line));
        let (mean, most) = errors(&curve.curve_of_accesses(accesses.len() as u64), &sizes);
        assert!(mean < 0.006 && most < 0.05, "mean error {mean:.4}, largest {most:.4}");
        let (mean, most) = errors(&curve.curve(), &sizes);
        assert!(mean < 0.02 && most < 0.05, "uncorrected: {mean:.4}, largest {most:.4}");
        assert_eq!(curve.memory_bytes(), memory, "nothing grew");
        assert!(memory < 100 * 4096, "{memory} bytes");
    }

    #[test]
    fn a_curve_falls_and_has_its_knee_where_a_loop_is() {
        let mut curve = MissRatioCurve::new(1000);
        assert!(curve.curve().is_empty());
        (0..40).for_each(|_| (0..50_000).for_each(|line| curve.access(line)));
        let points = curve.curve();
        assert!(points.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 >= pair[1].1));
        let at = |size| points.iter().take_while(|point| point.0 <= size).last().map(|p| p.1);
        assert!(at(45_000).is_none_or(|miss_ratio| miss_ratio > 0.95), "{points:?}");
        assert!(at(56_000).is_some_and(|miss_ratio| miss_ratio < 0.07), "{points:?}");
    }

    #[test]
    fn what_is_old_counts_less_after_aging() {
        let mut curve = MissRatioCurve::new(1000);
        (0..100_000).for_each(|line| curve.access(line));
        (0..10).for_each(|_| curve.age());
        (0..100).for_each(|_| (900_000..901_000).for_each(|line| curve.access(line)));
        let last = *curve.curve().last().expect("hits were seen");
        assert!(last.1 < 0.05, "{last:?}");
    }

    #[test]
    fn bins_round_up_and_are_their_own_sizes() {
        for size in (1..10_000).chain([1 << 40, (1 << 40) + 1, u64::MAX / 2]) {
            let bin = bin_of_size(size);
            assert!(size_of_bin(bin) >= size, "{size}");
            assert!(bin == 0 || size_of_bin(bin - 1) < size, "{size}");
        }
        assert!(bin_of_size(u64::MAX) < BINS);
    }
}
