//! How much is read from the origin around a miss, and whether that pays.
//!
//! ```text
//!   missed:            ▓▓              blocks of 4 KiB
//!   requested          ▓▓
//!   line          ├░░░░▓▓░░░░┤         whole lines
//!   a run         ├░░░░▓▓░░░░┼░░░░░░░┤ and one more
//! ```
//! With the setting `adaptive` a volume's estimate says what share of the blocks that were read
//! beyond what was asked (░) has been used later. One line in sixteen, by its hash, is a *sample*:
//! it is always read whole, and a small table watches which of its extra blocks get read. Each
//! sample moves the estimate by an eighth of the difference. Whole lines are read while at least a
//! quarter is used (an eighth, if the line was evicted not long ago or its neighbour is cached).
//! A sequential run of two lines or more, short of the cutoff, gets the next line too.
//!
//! **The bound.** One miss reads less than two lines more than was asked (its own line's rest on
//! both sides) and one whole line in a run: under three lines, whatever the setting; `requested`
//! under two blocks. Over time `adaptive` has a credit for each volume, of twice the bytes asked
//! for and 1 MiB at the most; extra bytes are paid from it as far as they are expected to be of no
//! use. So, by the estimate, what is read in vain is at most twice what was asked for, and 1 MiB.
//!
//! Absent: the hit path. Uses are seen where every request is observed.

use block_io::Extent;

use super::super::blocks::{BLOCK_SIZE, BlockSet};
use super::super::config::{LineSize, VOLUMES_MAX, VolumeId};
use super::admission::hash;
use super::settings::FillWidth;

/// What the engine knows about the first line of a miss.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct Hints {
    /// The line was evicted not long ago (its ghost is known).
    pub(crate) returns: bool,
    /// The line before or after it is cached.
    pub(crate) neighbour: bool,
}

const SAMPLES: usize = 512;
/// Lines with these top bits of their hash zero are samples: one in sixteen.
const SAMPLE_BITS: u32 = 4;
/// A quarter of the blocks is used.
const USEFUL: u16 = 64;
/// With a hint, an eighth.
const USEFUL_WITH_HINT: u16 = 32;
const CREDIT_MAX: u64 = 1 << 20;
/// Credit for a byte that was asked for.
const CREDIT: u64 = 2;
/// Lines of a request in which uses are looked for.
const LINES_SEEN_MAX: usize = 64;

#[derive(Clone, Copy, Default)]
struct Sample {
    line: u64,
    volume: u16,
    /// Extra blocks; empty if the place is free.
    extra: BlockSet,
    used: BlockSet,
}

#[derive(Clone, Copy)]
struct VolumeUse {
    /// Share of extra blocks that are used, in 255ths.
    estimate: u8,
    /// Bytes that may be read in vain.
    credit: u64,
}

impl VolumeUse {
    /// Half is used, so that a new volume begins with whole lines and then learns.
    const START: Self = Self { estimate: 128, credit: CREDIT_MAX };
}

/// Decides fill widths. See the module.
pub(super) struct FillWidths {
    line_size: LineSize,
    samples: Box<[Sample; SAMPLES]>,
    /// Samples that are being watched.
    watched: usize,
    volumes: Box<[VolumeUse; VOLUMES_MAX]>,
}

impl FillWidths {
    pub(super) fn new(line_size: LineSize) -> Self {
        Self {
            line_size,
            samples: Box::new([Sample::default(); SAMPLES]),
            watched: 0,
            volumes: Box::new([VolumeUse::START; VOLUMES_MAX]),
        }
    }

    /// Forgets what was learned about a volume, for the next one of its number.
    pub(super) fn forget(&mut self, volume: VolumeId) {
        self.volumes[usize::from(volume.0) % VOLUMES_MAX] = VolumeUse::START;
        for sample in self.samples.iter_mut().filter(|sample| sample.volume == volume.0) {
            self.watched -= usize::from(!sample.extra.is_empty());
            *sample = Sample::default();
        }
    }

    /// Share of the blocks read ahead that were used, in 255ths.
    #[cfg(test)]
    pub(super) fn estimate(&self, volume: VolumeId) -> u8 {
        self.volumes[usize::from(volume.0) % VOLUMES_MAX].estimate
    }

    pub(super) fn memory_bytes(&self) -> u64 {
        (size_of_val(&*self.samples) + size_of_val(&*self.volumes)) as u64
    }

    /// Takes note of a read (not an empty one).
    #[inline]
    pub(super) fn observe(&mut self, volume: VolumeId, extent: Extent) {
        // As it is where nearly all reads are hits.
        if self.watched > 0 {
            self.observe_watched(volume, extent);
        }
    }

    fn observe_watched(&mut self, volume: VolumeId, extent: Extent) {
        let line = self.line_size.bytes();
        let first = extent.offset >> self.line_size.shift();
        if extent.offset & (line - 1) <= line - extent.length.min(line) && extent.length <= line {
            self.observe_line(volume, first, extent);
            return;
        }
        for part in extent.split(line).take(LINES_SEEN_MAX) {
            self.observe_line(volume, part.offset >> self.line_size.shift(), part);
        }
    }

    fn observe_line(&mut self, volume: VolumeId, line: u64, part: Extent) {
        let hash = hash(volume, line);
        if !is_sample(hash) {
            return;
        }
        let within = part.offset & (self.line_size.bytes() - 1);
        let sample = &mut self.samples[place(hash)];
        if sample.line == line && sample.volume == volume.0 && !sample.extra.is_empty() {
            let read = BlockSet::touching(within, part.length);
            sample.used = sample.used.union(read.intersection(sample.extra));
            if sample.used == sample.extra {
                self.settle(place(hash));
            }
        }
    }

    /// The extent to read from the origin for the blocks of `missed` (not empty), within a volume
    /// of `size` bytes. `run` is how many bytes the sequential run has with this request.
    pub(super) fn extent(
        &mut self,
        setting: FillWidth,
        volume: VolumeId,
        missed: Extent,
        run: u64,
        hints: Hints,
        size: u64,
    ) -> Extent {
        let line = self.line_size.bytes();
        let within = |extent: Extent| extent.intersection(Extent::new(0, size));
        let requested = within(missed.align_outward(BLOCK_SIZE));
        let whole = within(missed.align_outward(line));
        match setting {
            FillWidth::Requested => return requested,
            FillWidth::Line => return whole,
            FillWidth::Adaptive => {}
        }
        let state = &mut self.volumes[usize::from(volume.0) % VOLUMES_MAX];
        state.credit = (state.credit + requested.length.saturating_mul(CREDIT)).min(CREDIT_MAX);
        let is_run = run >= 2 * line && run > missed.length;
        let useful = if hints.returns || hints.neighbour { USEFUL_WITH_HINT } else { USEFUL };
        let first = hash(volume, missed.offset >> self.line_size.shift());
        let wider = is_run || u16::from(state.estimate) >= useful || is_sample(first);
        if !wider {
            return requested;
        }
        let next = within(Extent::new(whole.offset, whole.length + line));
        let in_vain = 256 - u64::from(state.estimate);
        for width in [if is_run { next } else { whole }, whole] {
            let extra = width.length.saturating_sub(requested.length);
            let price = extra * in_vain / 256;
            if price <= state.credit {
                state.credit -= price;
                self.watch(volume, requested, width);
                return width;
            }
        }
        requested
    }

    /// Begins to watch the samples among the lines of which `width` holds more than `requested`.
    fn watch(&mut self, volume: VolumeId, requested: Extent, width: Extent) {
        let (line, shift) = (self.line_size.bytes(), self.line_size.shift());
        let last = requested.end().saturating_sub(1) >> shift;
        let edges = [requested.offset >> shift, last, (width.end().saturating_sub(1)) >> shift];
        for (index, number) in edges.into_iter().enumerate() {
            let hash = hash(volume, number);
            if edges[..index].contains(&number) || !is_sample(hash) {
                continue;
            }
            let bytes = Extent::new(number << shift, line);
            let blocks = |extent: Extent| {
                let part = extent.intersection(bytes);
                if part.is_empty() {
                    return BlockSet::EMPTY;
                }
                BlockSet::touching(part.offset - bytes.offset, part.length)
            };
            let extra = blocks(width).without(blocks(requested));
            if !extra.is_empty() {
                self.settle(place(hash));
                let used = BlockSet::EMPTY;
                self.watched += 1;
                self.samples[place(hash)] = Sample { line: number, volume: volume.0, extra, used };
            }
        }
    }

    /// Ends a sample, if there is one: its share of used blocks goes into the estimate.
    fn settle(&mut self, place: usize) {
        let sample = std::mem::take(&mut self.samples[place]);
        if sample.extra.is_empty() {
            return;
        }
        self.watched -= 1;
        let share = (sample.used.count() * 255 / sample.extra.count()) as i32;
        let estimate = &mut self.volumes[usize::from(sample.volume) % VOLUMES_MAX].estimate;
        let difference = share - i32::from(*estimate);
        // At least one step, so that it gets to both ends.
        let step = if difference / 8 == 0 { difference.signum() } else { difference / 8 };
        *estimate = (i32::from(*estimate) + step) as u8;
    }
}

fn is_sample(hash: u64) -> bool {
    hash >> (64 - SAMPLE_BITS) == 0
}

fn place(hash: u64) -> usize {
    (hash >> 32) as usize % SAMPLES
}

#[cfg(test)]
mod tests {
    use super::*;
    use block_io::sim::Random;

    const LINE: u64 = 16 << 10;
    const SIZE: u64 = 1 << 40;
    const VOLUME: VolumeId = VolumeId(2);

    fn widths() -> FillWidths {
        FillWidths::new(LineSize::from_bytes(LINE).expect("a line size"))
    }

    /// A miss of one block of a line, as part of no run.
    fn miss(widths: &mut FillWidths, setting: FillWidth, line: u64, block: u64) -> Extent {
        let missed = Extent::new(line * LINE + block * BLOCK_SIZE, BLOCK_SIZE);
        widths.observe(VOLUME, missed);
        widths.extent(setting, VOLUME, missed, BLOCK_SIZE, Hints::default(), SIZE)
    }

    /// Misses of one block a line, of whose other blocks `used` are read afterwards.
    fn teach(widths: &mut FillWidths, used: u64) {
        for line in 0..100_000 {
            let line = line * 7;
            miss(widths, FillWidth::Adaptive, line, line % 4);
            for block in 0..used {
                let extent = Extent::new(line * LINE + (line + 1 + block) % 4 * BLOCK_SIZE, 512);
                widths.observe(VOLUME, extent);
            }
        }
    }

    #[test]
    fn whole_lines_are_read_while_their_blocks_are_used() {
        let mut widths = widths();
        assert_eq!(miss(&mut widths, FillWidth::Adaptive, 9, 1), Extent::new(9 * LINE, LINE));
        teach(&mut widths, 0);
        assert_eq!(widths.estimate(VOLUME), 0);
        let lines = (1..=16_000).map(|line| miss(&mut widths, FillWidth::Adaptive, line << 10, 1));
        let wide = lines.filter(|read| read.length == LINE).count();
        assert!((800..1200).contains(&wide), "the samples only, of 16000: {wide}");
        teach(&mut widths, 3);
        assert_eq!(widths.estimate(VOLUME), 255);
        assert_eq!(miss(&mut widths, FillWidth::Adaptive, 9, 1), Extent::new(9 * LINE, LINE));
        assert_eq!(widths.estimate(VolumeId(3)), 128, "another volume has its own");
        widths.forget(VOLUME);
        assert_eq!(widths.estimate(VOLUME), 128);
        assert!(widths.samples.iter().all(|sample| sample.extra.is_empty()));
    }

    #[test]
    fn hints_help_where_an_eighth_to_a_quarter_is_used() {
        let mut widths = widths();
        widths.volumes[2].estimate = 40;
        let line = (1..).find(|line| !is_sample(hash(VOLUME, *line))).expect("most are none");
        let missed = Extent::new(line * LINE, BLOCK_SIZE);
        let mut extent = |hints| {
            widths.extent(FillWidth::Adaptive, VOLUME, missed, BLOCK_SIZE, hints, SIZE).length
        };
        assert_eq!(extent(Hints::default()), BLOCK_SIZE);
        assert_eq!(extent(Hints { returns: true, neighbour: false }), LINE);
        assert_eq!(extent(Hints { returns: false, neighbour: true }), LINE);
    }

    #[test]
    fn a_run_gets_the_next_line_and_the_volume_ends_where_it_ends() {
        let mut widths = widths();
        let missed = Extent::new(8 * LINE, BLOCK_SIZE);
        let mut extent = |run, size| {
            widths.extent(FillWidth::Adaptive, VOLUME, missed, run, Hints::default(), size)
        };
        assert_eq!(extent(2 * LINE, SIZE), Extent::new(8 * LINE, 2 * LINE));
        assert_eq!(extent(2 * LINE - 1, SIZE), Extent::new(8 * LINE, LINE));
        assert_eq!(extent(2 * LINE, 8 * LINE + 5120), Extent::new(8 * LINE, 5120));
    }

    #[test]
    fn the_stated_bounds_hold_whatever_is_asked() {
        for seed in 0..100 {
            let mut random = Random::new(seed);
            let mut widths = widths();
            // Nothing read ahead is ever used, yet it is believed to be.
            let estimate = random.below(256) as u8;
            let (mut asked, mut in_vain) = (0, 0);
            for _ in 0..500 {
                let size = random.range(1 << 20..=1 << 30) / 512 * 512;
                let offset = random.below(size / 512) * 512;
                let length = (512 * random.range(1..=256)).min(size - offset);
                let missed = Extent::new(offset, length);
                let run = random.below(1 << 20);
                let hints = Hints { returns: random.coin(), neighbour: random.coin() };
                let setting = *random.choose(&FillWidth::ALL);
                widths.volumes[2].estimate = estimate;
                let read = widths.extent(setting, VOLUME, missed, run, hints, size);
                assert!(read.contains(missed) && read.end() <= size, "seed {seed}: {read}");
                let most = match setting {
                    FillWidth::Requested => 2 * BLOCK_SIZE,
                    FillWidth::Line => 2 * LINE,
                    FillWidth::Adaptive => 3 * LINE,
                };
                assert!(read.length < length + most, "seed {seed}: {setting}: {missed} as {read}");
                if setting == FillWidth::Adaptive {
                    let blocks = missed.align_outward(BLOCK_SIZE).length;
                    asked += blocks;
                    in_vain +=
                        read.length.saturating_sub(blocks) * (256 - u64::from(estimate)) / 256;
                }
            }
            assert!(in_vain <= 2 * asked + (1 << 20), "seed {seed}: {in_vain} for {asked}");
        }
    }

    #[test]
    fn small_misses_alone_are_paid_from_the_credit_and_no_further() {
        let mut widths = FillWidths::new(LineSize::from_bytes(64 << 10).expect("a line size"));
        let mut read = 0;
        for line in 0..10_000_u64 {
            widths.volumes[2].estimate = 64;
            let missed = Extent::new(line * (3 << 16), BLOCK_SIZE);
            let hints = Hints::default();
            let setting = FillWidth::Adaptive;
            read += widths.extent(setting, VOLUME, missed, 0, hints, SIZE).length;
        }
        let asked = 10_000 * BLOCK_SIZE;
        let in_vain = (read - asked) / 4 * 3;
        assert!(in_vain <= 2 * asked + CREDIT_MAX, "{in_vain} for {asked}");
        assert!(in_vain > asked, "the credit is used");
    }
}
