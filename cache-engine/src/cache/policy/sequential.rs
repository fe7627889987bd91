//! Sequential runs among interleaved requests: how long is the run that a request goes on with?
//!
//! A *stream* is a place where a run may go on. Positions are in units of 4 KiB; a stream remembers
//! which of the 64 units before its frontier were asked for, so that a unit counts once however
//! often it is read, and reordered requests count as if they had come in order.
//!
//! ```text
//!      start                      64 units           frontier
//!        ├──────── run ──────┬─1─1─1─0─1─1─1─1─1─1─1──┤
//!                            └── a request that begins here … or up to 16 units ahead goes on ──┘
//! ```
//! A run with more holes than a quarter of it (and 16 units) is none: it begins anew with the
//! request at hand. A stream's *tag* is a hash of its owner and of the region of 128 units that its
//! frontier is in. A request compares all 64 tags (128 bytes) with those of the two regions that it
//! may go on from, without a branch between them: a random request, which finds nothing, costs the
//! same few nanoseconds whatever the streams are. The stream that was used longest ago makes room
//! for a new one.
//!
//! Absent: time. A run that pauses is still one when it goes on.

use block_io::{Extent, processor};

use super::super::config::VolumeId;

/// Streams that are told apart; so many runs may be interleaved.
pub(super) const STREAMS: usize = 64;

const UNIT_SHIFT: u32 = 12;
/// Units ahead of the frontier at which a request still goes on with the run.
const AHEAD: u64 = 16;
/// Units before the frontier at which it does; the bits of a bitmap.
const BEHIND: u64 = 64;
const REGION_SHIFT: u32 = 7;
/// Holes that a run may have beside a quarter of its length: what a queue may reorder.
const HOLES: u64 = 16;

const NONE: u8 = u8::MAX;
const NOBODY: u16 = u16::MAX;

#[derive(Clone, Copy)]
struct Stream {
    /// One past the last unit asked for.
    frontier: u64,
    /// First unit of the run.
    start: u64,
    /// Different units asked for since the start.
    marked: u64,
    /// Bit i: whether unit `frontier - 1 - i` was asked for.
    recent: u64,
    /// Volume and direction.
    owner: u16,
    newer: u8,
    older: u8,
}

/// The streams of a cache. See the module.
pub(super) struct Streams {
    tags: [u16; STREAMS],
    streams: [Stream; STREAMS],
    newest: u8,
    oldest: u8,
}

impl Streams {
    pub(super) fn new() -> Self {
        let stream = |index: usize| Stream {
            frontier: 0,
            start: 0,
            marked: 0,
            recent: 0,
            owner: NOBODY,
            newer: if index == 0 { NONE } else { index as u8 - 1 },
            older: if index + 1 == STREAMS { NONE } else { index as u8 + 1 },
        };
        Self {
            tags: [0; STREAMS],
            streams: std::array::from_fn(stream),
            newest: 0,
            oldest: STREAMS as u8 - 1,
        }
    }

    /// Takes note of a request (not an empty one) and says how many bytes its run has, with it.
    pub(super) fn observe(&mut self, volume: VolumeId, write: bool, extent: Extent) -> u64 {
        debug_assert!(!extent.is_empty(), "an empty request has no place");
        let owner = volume.0 << 1 | u16::from(write);
        let first = extent.offset >> UNIT_SHIFT;
        let last = (extent.end().saturating_sub(1) >> UNIT_SHIFT) + 1;
        let Some(name) = self.find(owner, first) else {
            self.take_oldest(owner, first, last);
            return (last - first) << UNIT_SHIFT;
        };
        let stream = &mut self.streams[usize::from(name)];
        stream.advance(first, last);
        self.tags[usize::from(name)] = tag_of(owner, stream.frontier);
        let run = stream.marked << UNIT_SHIFT;
        self.make_newest(name);
        run
    }

    /// The same for a request that needs no answer, and begins no run: only the run that was
    /// observed last is looked at.
    #[inline]
    pub(super) fn follow(&mut self, volume: VolumeId, write: bool, extent: Extent) {
        let owner = volume.0 << 1 | u16::from(write);
        let first = extent.offset >> UNIT_SHIFT;
        if self.goes_on(self.newest, owner, first) {
            self.observe(volume, write, extent);
        }
    }

    fn find(&self, owner: u16, first: u64) -> Option<u8> {
        if self.goes_on(self.newest, owner, first) {
            return Some(self.newest);
        }
        let wanted = [first.saturating_sub(AHEAD), first + BEHIND].map(|at| tag_of(owner, at));
        let mut found = processor::either_of(&self.tags, wanted);
        while found != 0 {
            let name = found.trailing_zeros() as u8;
            if self.goes_on(name, owner, first) {
                return Some(name);
            }
            found &= found - 1;
        }
        None
    }

    /// Whether a request of `owner` that begins at `first` goes on with the stream's run.
    fn goes_on(&self, name: u8, owner: u16, first: u64) -> bool {
        let stream = &self.streams[usize::from(name)];
        (stream.owner == owner)
            & (stream.frontier <= first + BEHIND)
            & (first <= stream.frontier + AHEAD)
    }

    fn take_oldest(&mut self, owner: u16, first: u64, last: u64) {
        let name = self.oldest;
        let stream = &mut self.streams[usize::from(name)];
        stream.owner = owner;
        stream.begin(first, last);
        self.tags[usize::from(name)] = tag_of(owner, last);
        self.make_newest(name);
    }

    fn make_newest(&mut self, name: u8) {
        if self.newest == name {
            return;
        }
        let Stream { newer, older, .. } = self.streams[usize::from(name)];
        // Not the newest, so there is a newer one.
        self.streams[usize::from(newer)].older = older;
        match older {
            NONE => self.oldest = newer,
            older => self.streams[usize::from(older)].newer = newer,
        }
        self.streams[usize::from(self.newest)].newer = name;
        let stream = &mut self.streams[usize::from(name)];
        stream.newer = NONE;
        stream.older = self.newest;
        self.newest = name;
    }
}

impl Stream {
    fn begin(&mut self, first: u64, last: u64) {
        self.start = first;
        self.frontier = last;
        self.marked = last - first;
        self.recent = ones(last - first);
    }

    /// Goes on with units `first..last`.
    fn advance(&mut self, first: u64, last: u64) {
        let before = self.frontier;
        self.frontier = before.max(last);
        let shift = self.frontier - before;
        self.recent = if shift < BEHIND { self.recent << shift } else { 0 };
        let asked = ones(self.frontier - first) & !ones(self.frontier - last);
        // What lies before the bitmap is new if it was ahead of the frontier.
        let beyond = (self.frontier.saturating_sub(BEHIND)).min(last);
        let long = beyond.saturating_sub(first.max(before));
        self.marked += u64::from((asked & !self.recent).count_ones()) + long;
        self.recent |= asked;
        self.start = self.start.min(first);
        let span = self.frontier - self.start;
        if span.saturating_sub(self.marked) > span / 4 + HOLES {
            self.begin(first, last);
        }
    }
}

fn tag_of(owner: u16, unit: u64) -> u16 {
    let place = (unit >> REGION_SHIFT) ^ u64::from(owner) << 48;
    (place.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 48) as u16
}

/// The lowest `count` bits, all from 64 on.
fn ones(count: u64) -> u64 {
    if count < 64 { (1 << count) - 1 } else { u64::MAX }
}

#[cfg(test)]
mod tests {
    use super::*;
    use block_io::sim::Random;

    const VOLUME: VolumeId = VolumeId(3);
    const BLOCK: u64 = 4096;

    fn read(streams: &mut Streams, block: u64, blocks: u64) -> u64 {
        streams.observe(VOLUME, false, Extent::new(block * BLOCK, blocks * BLOCK)) / BLOCK
    }

    #[test]
    fn as_many_interleaved_runs_as_there_are_streams_are_told_apart() {
        let mut streams = Streams::new();
        for step in 0..100 {
            for run in 0..STREAMS as u64 {
                assert_eq!(read(&mut streams, run * 10_000 + step * 4, 4), step * 4 + 4);
            }
        }
        // One more, and each finds that it was forgotten.
        for step in 0..10 {
            for run in 0..=STREAMS as u64 {
                assert_eq!(read(&mut streams, (run + 100) * 10_000 + step * 4, 4), 4);
            }
        }
    }

    #[test]
    fn volumes_and_directions_have_their_own_runs() {
        let mut streams = Streams::new();
        let extent = |step: u64| Extent::new(step * BLOCK, BLOCK);
        for step in 0..50 {
            let run = (step + 1) * BLOCK;
            assert_eq!(streams.observe(VolumeId(0), false, extent(step)), run);
            assert_eq!(streams.observe(VolumeId(0), true, extent(step + 10)), run);
            assert_eq!(streams.observe(VolumeId(1), false, extent(step + 50)), run);
        }
    }

    #[test]
    fn a_shuffled_queue_is_as_long_a_run_as_one_in_order() {
        for seed in 0..50 {
            let mut random = Random::new(seed);
            let (mut streams, mut longest) = (Streams::new(), 0);
            for batch in 0..100 {
                let mut blocks: Vec<u64> = (batch * 16..batch * 16 + 16).collect();
                random.shuffle(&mut blocks);
                for block in blocks {
                    longest = longest.max(read(&mut streams, block, 1));
                }
            }
            assert_eq!(longest, 1600, "seed {seed}");
        }
    }

    #[test]
    fn reading_the_same_again_and_reading_at_random_are_no_runs() {
        let mut streams = Streams::new();
        for _ in 0..1000 {
            assert!(read(&mut streams, 100, 4) <= 4);
        }
        for seed in 0..20 {
            let (mut random, mut streams) = (Random::new(seed), Streams::new());
            for blocks in [1, 4, 16] {
                for _ in 0..5000 {
                    // 32 MiB: with 64 streams there is nearly always one near by.
                    let run = read(&mut streams, random.below(8192 / blocks) * blocks, blocks);
                    assert!(run < 256, "seed {seed}: {run} blocks, requests of {blocks}");
                }
            }
        }
    }

    #[test]
    fn small_gaps_are_tolerated_and_do_not_count() {
        let mut streams = Streams::new();
        let runs: Vec<_> = (0..100).map(|step| read(&mut streams, step * 5, 4)).collect();
        assert_eq!(runs.last(), Some(&400), "each fifth block is left out");
        let runs: Vec<_> = (0..100).map(|step| read(&mut streams, 10_000 + step * 8, 4)).collect();
        assert!(runs.iter().all(|run| *run < 64), "half is left out: {runs:?}");
        assert_eq!(read(&mut streams, 10_000 + 99 * 8 + 4 + 17, 4), 4, "too far ahead");
        assert_eq!(read(&mut streams, 50_000, 1), 1);
        assert_eq!(read(&mut streams, 49_950, 1), 1, "nothing in between was asked for");
    }

    #[test]
    fn requests_below_a_block_and_huge_ones_are_counted_right() {
        let mut streams = Streams::new();
        let mut run = 0;
        for sector in 0..80 {
            run = streams.observe(VOLUME, true, Extent::new(sector * 512, 512));
        }
        assert_eq!(run, 10 * BLOCK);
        let end = streams.observe(VOLUME, true, Extent::new(10 * BLOCK, 32 << 20));
        assert_eq!(end, 10 * BLOCK + (32 << 20));
        let last = Extent::new(u64::MAX - 1, 100);
        assert_eq!(streams.observe(VOLUME, true, last), BLOCK, "the end of all bytes");
    }

    /// The plain meaning, without tags and lists: a vector, newest last.
    struct Model(Vec<(u16, u64, u64)>);

    impl Model {
        fn observe(&mut self, owner: u16, first: u64, last: u64) -> u64 {
            let near = |(other, frontier, _): &(u16, u64, u64)| {
                *other == owner && *frontier <= first + BEHIND && first <= frontier + AHEAD
            };
            let (_, frontier, run) = match self.0.iter().position(near) {
                Some(at) => self.0.remove(at),
                None => (owner, first, 0),
            };
            if self.0.len() == STREAMS {
                self.0.remove(0);
            }
            let run = run + last.saturating_sub(frontier.max(first));
            self.0.push((owner, frontier.max(last), run));
            run
        }
    }

    #[test]
    fn tags_and_lists_find_what_a_search_of_all_streams_finds() {
        for seed in 0..100 {
            let mut random = Random::new(seed);
            let (mut streams, mut model) = (Streams::new(), Model(Vec::new()));
            let mut heads: Vec<u64> = (0..70).map(|run| run * 100_000).collect();
            for step in 0..4000 {
                let run = random.below(heads.len() as u64) as usize;
                if random.chance(20) {
                    heads[run] += 5000 * (1 + random.below(3));
                }
                let (first, last) = (heads[run], heads[run] + 1 + random.below(100));
                heads[run] = last;
                let (volume, write) = (VolumeId(run as u16 % 3), run.is_multiple_of(2));
                let extent = Extent::new(first * BLOCK, (last - first) * BLOCK);
                let expected = model.observe(volume.0 << 1 | u16::from(write), first, last);
                let found = streams.observe(volume, write, extent) / BLOCK;
                assert_eq!(found, expected, "seed {seed}, step {step}");
            }
        }
    }
}
