//! What one request costs the state machine of the cache: the cases, for those that measure them in
//! nanoseconds and those that count instructions.
//!
//! The cache is the product's: its default policies, and persistent, opened over a superblock and
//! loaded before anything is measured; its records go to memory. The cases `…_in_memory` are the
//! same without records. Data costs the devices nothing and is not copied; the checksums of what is
//! stored are computed, since that is the engine's work. A round is one batch of requests in
//! flight, and one tick of a clock on which a request takes 10 µs, so that timers run as in a cache
//! that serves 100 000 requests a second ([`crate::rounds`]).
//!
//! Absent: time, and any verdict on a number.

use std::time::Duration;

use block_io::sim::Random;
use block_io::{Buffer, BufferPool, Geometry, Operation, Request, RequestId};
use cache_engine::cache::{
    Cache, CacheConfig, CacheMode, CacheSpace, Event, LineSize, Statistics, VolumeId,
    VolumeSettings,
};

use crate::metadata::{self, MetadataMemory};
use crate::rounds::{Passage, Rounds, VOLUME};

/// One benchmark.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// As it is asked for and told.
    pub name: &'static str,
    operation: Operation,
    length: u64,
    line_size: usize,
    /// Requests in flight at a time.
    depth: usize,
    /// Bytes of the cache device.
    cache_bytes: u64,
    /// Bytes of the volume that are asked for; those of hits fit into the cache.
    working_set: u64,
    /// The lines of the working set are far from each other, all over the index.
    scattered: bool,
    persistent: bool,
    mode: CacheMode,
}

const READ_HIT: Case = Case {
    name: "engine.read_hit_4k",
    operation: Operation::Read,
    length: 4096,
    line_size: 16 << 10,
    depth: 1,
    cache_bytes: 1 << 30,
    working_set: 256 << 20,
    scattered: false,
    persistent: true,
    mode: CacheMode::WriteThrough,
};

/// Lines of 4 KiB, requests of one line: the least that a request can be.
const ONE_LINE: Case = Case { name: "read_hit", line_size: 4 << 10, ..READ_HIT };
const MISS: Case = Case { name: "read_miss_evict", working_set: 64 << 30, ..ONE_LINE };
const WRITE: Case = Case { name: "write_through_hit", operation: Operation::Write, ..ONE_LINE };

/// The cases that are measured in nanoseconds.
pub const TIMED: &[Case] = &[
    READ_HIT,
    Case { name: "engine.read_hit_4k_qd32", depth: 32, ..READ_HIT },
    Case { name: "engine.read_hit_4k_line_4k", line_size: 4 << 10, ..READ_HIT },
    Case { name: "engine.read_hit_128k", length: 128 << 10, ..READ_HIT },
    Case { name: "engine.write_through_4k", operation: Operation::Write, ..READ_HIT },
    Case {
        name: "engine.write_around_4k",
        operation: Operation::Write,
        mode: CacheMode::WriteAround,
        ..READ_HIT
    },
    ONE_LINE,
    Case { name: "read_hit_in_memory", persistent: false, ..ONE_LINE },
    MISS,
    Case { name: "read_miss_evict_in_memory", persistent: false, ..MISS },
    WRITE,
    Case { name: "write_through_hit_in_memory", persistent: false, ..WRITE },
    // Few enough lines that their records wait until the end.
    Case { name: "write_through_hit_hot", working_set: 8 << 20, ..WRITE },
];

/// Hits in ever larger caches: half of the lines of the first two are asked for, and 4 Mi lines of
/// the third, all over the index.
pub const SCALING: &[Case] = &[
    SPREAD,
    Case { name: "read_hit_64gib", cache_bytes: 64 << 30, working_set: 32 << 30, ..SPREAD },
    Case { name: "read_hit_1tib", cache_bytes: 1 << 40, working_set: 64 << 30, ..SPREAD },
];

const SPREAD: Case =
    Case { name: "read_hit_1gib", depth: 32, working_set: 512 << 20, scattered: true, ..READ_HIT };

/// The same in small, for counting instructions under an emulator: they do not depend on what fits
/// into a processor's caches.
const SMALL: Case = Case { cache_bytes: 16 << 20, working_set: 4 << 20, ..ONE_LINE };
const SMALL_MISS: Case = Case { name: "read_miss_evict", working_set: 4 << 30, ..SMALL };
const SMALL_WRITE: Case = Case { name: "write_through_hit", operation: Operation::Write, ..SMALL };

/// The same with one request in flight, which waits for all the memory that its lookup needs.
pub const SCALING_ALONE: &[Case] = &[
    Case { name: "read_hit_1gib_alone", depth: 1, ..SCALING[0] },
    Case { name: "read_hit_64gib_alone", depth: 1, ..SCALING[1] },
    Case { name: "read_hit_1tib_alone", depth: 1, ..SCALING[2] },
];

/// The cases whose instructions are counted.
pub const COUNTED: &[Case] = &[
    SMALL,
    Case { name: "read_hit_in_memory", persistent: false, ..SMALL },
    Case { name: "read_hit_qd32", depth: 32, ..SMALL },
    Case { name: "read_hit_line_16k", line_size: 16 << 10, ..SMALL },
    Case { name: "read_hit_128k", length: 128 << 10, line_size: 16 << 10, ..SMALL },
    SMALL_MISS,
    Case { name: "read_miss_evict_in_memory", persistent: false, ..SMALL_MISS },
    SMALL_WRITE,
    Case { name: "write_through_hit_in_memory", persistent: false, ..SMALL_WRITE },
    Case { name: "write_through_hit_hot", working_set: 256 << 10, ..SMALL_WRITE },
    Case {
        name: "write_around",
        operation: Operation::Write,
        mode: CacheMode::WriteAround,
        ..SMALL
    },
];

impl Case {
    /// A case of fills: random lines of a volume as large as the cache device, in order of a
    /// permutation, so that each is read once.
    pub const fn fills(cache_bytes: u64, line_size: usize) -> Self {
        let length = line_size as u64;
        Self { cache_bytes, working_set: cache_bytes, line_size, length, ..READ_HIT }
    }

    /// A case of writes within a part of a cache that holds what they write.
    pub const fn rewrites(cache_bytes: u64, line_size: usize, working_set: u64) -> Self {
        Self { cache_bytes, working_set, line_size, operation: Operation::Write, ..READ_HIT }
    }

    /// Random places of the working set. Drawing one costs about a nanosecond of what is measured.
    pub fn places(&self) -> impl Iterator<Item = u64> + use<> {
        let (mut random, case) = (Random::new(1), *self);
        let places = self.working_set / self.length;
        let line = self.line_size as u64;
        std::iter::repeat_with(move || {
            let place = random.below(places) * case.length;
            if case.scattered { case.line_offset(place / line) + place % line } else { place }
        })
    }

    /// Where the so-manieth line of the working set begins.
    fn line_offset(&self, index: u64) -> u64 {
        let line = self.line_size as u64;
        if !self.scattered {
            return index * line;
        }
        let gap = self.cache_bytes / self.working_set;
        let within = (index.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 40) % gap;
        (index * gap + within) * line
    }

    /// Every line of the working set once, none near the one before.
    fn lines(&self) -> impl Iterator<Item = u64> + use<> {
        let (case, lines) = (*self, self.working_set / self.line_size as u64);
        debug_assert!(lines.is_power_of_two(), "an odd stride meets every one");
        let stride = (lines * 5 / 8) | 1;
        (0..lines).map(move |step| case.line_offset(step.wrapping_mul(stride) % lines))
    }

    /// Whether what is asked for does not fit.
    fn misses(&self) -> bool {
        self.working_set > self.cache_bytes
    }
}

fn config(case: &Case) -> Result<CacheConfig, String> {
    let line_size = LineSize::from_bytes(case.line_size as u64)?;
    Ok(CacheConfig { line_size, ..CacheConfig::default() })
}

/// A cache, ready to be measured.
pub struct Bench {
    case: Case,
    cache: Cache,
    rounds: Rounds,
    /// What was counted before the first pass.
    warm: Statistics,
}

impl Bench {
    /// The cache of `case`, full of what the case needs there: of all that it will ask for, or
    /// where that does not fit, of something else.
    ///
    /// # Errors
    /// When the case's sizes are impossible.
    pub fn new(case: &Case) -> Result<Self, String> {
        let mut bench = Self::empty(case)?;
        let pool = BufferPool::heap();
        if case.misses() {
            let mut random = Random::new(2);
            let lines = case.working_set / case.line_size as u64;
            for _ in 0..2 * case.cache_bytes / case.line_size as u64 {
                let offset = case.line_offset(random.below(lines));
                bench.read_once(offset, pool.allocate(case.line_size));
            }
        } else {
            bench.fill(&pool, usize::MAX);
        }
        bench.warm = bench.statistics();
        Ok(bench)
    }

    /// The cache of `case`, started and loaded, and empty.
    ///
    /// # Errors
    /// When the case's sizes are impossible.
    pub fn empty(case: &Case) -> Result<Self, String> {
        let pool = BufferPool::heap();
        let config = config(case)?;
        let (cache, metadata) = if case.persistent {
            metadata::open_new(config, case.cache_bytes, pool.clone())?
        } else {
            let length = case.cache_bytes;
            let space = CacheSpace { data_offset: 0, length, transfer_max: 1 << 20 };
            let cache = Cache::in_memory(config, space, pool.clone());
            (cache.map_err(|error| error.to_string())?, MetadataMemory::none())
        };
        Self::start(*case, cache, metadata, None)
    }

    fn start(
        case: Case,
        mut cache: Cache,
        metadata: MetadataMemory,
        known: Option<VolumeId>,
    ) -> Result<Self, String> {
        let pool = BufferPool::heap();
        let settings = VolumeSettings {
            name: "volume".into(),
            geometry: Geometry::new(case.working_set.max(case.cache_bytes).max(4 << 30)),
            mode: case.mode,
            known,
            cipher: None,
        };
        let id = cache.add_volume(settings).map_err(|error| error.to_string())?;
        debug_assert_eq!(id, VOLUME);
        if case.persistent {
            metadata::record(&mut cache, id)?;
        }
        let buffers = (0..case.depth).map(|_| pool.allocate(case.length as usize)).collect();
        let rounds = Rounds::new(case.operation, buffers, metadata);
        let mut bench = Self { case, cache, rounds, warm: Statistics::default() };
        bench.load();
        Ok(bench)
    }

    /// Ends the cache as a kill does, and gives its records out.
    pub fn into_metadata(self) -> MetadataMemory {
        self.rounds.metadata
    }

    /// The cache of `case` started again from its records.
    ///
    /// # Errors
    /// When the records are none.
    pub fn restart(case: Case, metadata: MetadataMemory) -> Result<Self, String> {
        let pool = BufferPool::heap();
        let superblock = metadata.superblock()?;
        Self::start(case, metadata::open(config(&case)?, superblock, pool)?, metadata, Some(VOLUME))
    }

    /// Turns until the start is over.
    fn load(&mut self) {
        let mut loaded = !self.case.persistent;
        while !loaded {
            self.turn(1);
            loaded = self.cache.outbox().events.drain(..).any(|event| event == Event::Loaded);
        }
    }

    /// Reads every line of the working set once, or so many of them.
    pub fn fill(&mut self, pool: &BufferPool, lines_max: usize) {
        for offset in self.case.lines().take(lines_max) {
            self.read_once(offset, pool.allocate(self.case.line_size));
        }
    }

    fn read_once(&mut self, offset: u64, buffer: Buffer) {
        let request = Request::read(RequestId(0), offset, buffer);
        self.cache.submit(self.rounds.now, VOLUME, request).expect("nothing is in flight");
        self.turn(1);
        self.rounds.replies.clear();
    }

    /// So many requests, from the next places on.
    pub fn pass(&mut self, places: &mut impl Iterator<Item = u64>, requests: u64) {
        self.rounds.pass(&mut self.cache, places, requests);
    }

    /// As many requests through nothing: what driving the cache costs by itself.
    pub fn pass_without_cache(&mut self, places: &mut impl Iterator<Item = u64>, requests: u64) {
        self.rounds.pass(&mut Passage::default(), places, requests);
    }

    fn turn(&mut self, requests: u64) {
        self.rounds.turn(&mut self.cache, requests);
    }

    /// Lets so much time pass in which nobody asks for anything.
    pub fn rest(&mut self, time: Duration) {
        let end = self.rounds.now + time;
        while self.rounds.now < end {
            self.turn(100);
        }
    }

    /// Where the records went.
    pub fn metadata(&self) -> &MetadataMemory {
        &self.rounds.metadata
    }

    /// Bytes that were stored in the cache.
    pub fn bytes_filled(&self) -> u64 {
        self.statistics().fill_bytes
    }

    fn statistics(&self) -> Statistics {
        self.cache.statistics(VOLUME).unwrap_or_default()
    }

    /// That what was measured is what the case says.
    ///
    /// # Errors
    /// When it was something else.
    pub fn check(&self) -> Result<(), String> {
        let (case, now, warm) = (&self.case, self.statistics(), &self.warm);
        let share = |part: u64, whole: u64| part as f64 / whole.max(1) as f64;
        let reads = now.reads - warm.reads;
        let hits = share(now.read_hits - warm.read_hits, reads);
        let evictions = share(now.evictions - warm.evictions, reads);
        let writes = now.writes - warm.writes;
        let stored = share(now.write_fills - warm.write_fills, writes);
        let right = match case.operation {
            Operation::Write if case.mode == CacheMode::WriteAround => writes > 0 && stored == 0.0,
            Operation::Write => stored > 0.99,
            _ if case.misses() => hits < 0.05 && evictions > 0.9,
            _ => hits > 0.95,
        };
        if right {
            return Ok(());
        }
        let percent = [hits, evictions, stored].map(|share| share * 100.0);
        let [hits, evictions, stored] = percent;
        Err(format!(
            "{}: {hits:.1} % hits, {evictions:.1} % evictions, {stored:.1} % stored",
            case.name
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_case_measures_what_it_says() {
        for case in COUNTED {
            let mut bench = Bench::new(case).unwrap();
            bench.pass(&mut case.places(), 2000);
            bench.check().unwrap();
            assert_eq!(bench.cache.in_flight(), 0, "{}", case.name);
            let written = bench.metadata().bytes_written();
            assert_eq!(written > 0, case.persistent, "{}: {written}", case.name);
        }
    }

    #[test]
    fn records_of_lines_that_are_rewritten_all_the_time_are_not_written() {
        let case = COUNTED.iter().find(|case| case.name == "write_through_hit_hot").unwrap();
        let (mut bench, mut places) = (Bench::new(case).unwrap(), case.places());
        bench.pass(&mut places, 2000);
        let before = bench.metadata().bytes_written();
        bench.pass(&mut places, 20_000);
        assert_eq!(bench.metadata().bytes_written(), before);
    }

    #[test]
    fn a_scattered_working_set_lies_in_its_volume_and_has_each_line_once() {
        for case in &SCALING[..1] {
            let mut lines: Vec<_> = case.lines().collect();
            let count = lines.len();
            lines.sort_unstable();
            lines.dedup();
            assert_eq!(lines.len(), count);
            assert!(lines.iter().all(|offset| *offset < case.cache_bytes));
        }
    }

    #[test]
    fn names_are_unique() {
        for cases in [TIMED, COUNTED] {
            let mut names: Vec<_> = cases.iter().map(|case| case.name).collect();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), cases.len());
        }
    }
}
