//! What one request costs the state machine of the cache: the cases, for those that measure them in
//! nanoseconds and those that count instructions.
//!
//! ```text
//!   places ──▶ Cache::submit ──▶ outbox ──▶ answered at once ──▶ Cache::complete ──▶ replies
//! ```
//! Of the benchmarks only this file and `cores.rs` name the cache's types. Devices cost nothing,
//! nothing is copied, and nothing is allocated in a pass.
//!
//! Absent: time, and any verdict on a number.

use std::hint::black_box;

use block_io::sim::Random;
use block_io::{
    Buffer, BufferPool, Completion, Geometry, Operation, Request, RequestId, Timestamp,
};
use cache_engine::cache::{
    Cache, CacheConfig, CacheMode, CacheSpace, LineSize, VolumeId, VolumeSettings,
};

const NOW: Timestamp = Timestamp(0);
const VOLUME: VolumeId = VolumeId(0);

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
    /// Bytes for lines.
    cache_bytes: u64,
    /// Bytes of the volume that are asked for; those of hits fit into the cache.
    working_set: u64,
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
    mode: CacheMode::WriteThrough,
};

/// Lines of 4 KiB, requests of one line: the least that a request can be.
const ONE_LINE: Case = Case { name: "read_hit", line_size: 4 << 10, ..READ_HIT };

/// The cases that are measured in nanoseconds.
pub const TIMED: &[Case] = &[
    READ_HIT,
    Case { name: "engine.read_hit_4k_qd32", depth: 32, ..READ_HIT },
    Case { name: "engine.read_hit_4k_line_4k", line_size: 4 << 10, ..READ_HIT },
    Case { name: "engine.read_hit_128k", length: 128 << 10, ..READ_HIT },
    Case { name: "engine.read_miss_4k", working_set: 64 << 30, line_size: 4 << 10, ..READ_HIT },
    Case { name: "engine.write_through_4k", operation: Operation::Write, ..READ_HIT },
    Case {
        name: "engine.write_around_4k",
        operation: Operation::Write,
        mode: CacheMode::WriteAround,
        ..READ_HIT
    },
    ONE_LINE,
    // Small enough to be full before it is measured, so that every miss evicts.
    Case { name: "read_miss_evict", cache_bytes: 64 << 20, working_set: 64 << 30, ..ONE_LINE },
    Case { name: "write_through_hit", operation: Operation::Write, ..ONE_LINE },
];

/// The same in small, for counting instructions under an emulator: they do not depend on what fits
/// into a processor's caches.
const SMALL: Case = Case { cache_bytes: 16 << 20, working_set: 8 << 20, ..ONE_LINE };

/// The cases whose instructions are counted.
pub const COUNTED: &[Case] = &[
    SMALL,
    Case { name: "read_hit_qd32", depth: 32, ..SMALL },
    Case { name: "read_hit_line_16k", line_size: 16 << 10, ..SMALL },
    Case { name: "read_hit_128k", length: 128 << 10, line_size: 16 << 10, ..SMALL },
    Case { name: "read_miss_evict", working_set: 4 << 30, ..SMALL },
    Case { name: "write_through_hit", operation: Operation::Write, ..SMALL },
    Case {
        name: "write_around",
        operation: Operation::Write,
        mode: CacheMode::WriteAround,
        ..SMALL
    },
];

impl Case {
    /// Random places of the working set, never the same row of them twice. Drawing one costs about
    /// a nanosecond of what is measured.
    pub fn places(&self) -> impl Iterator<Item = u64> + use<> {
        let mut random = Random::new(1);
        let (slots, length) = (self.working_set / self.length, self.length);
        std::iter::repeat_with(move || random.below(slots) * length)
    }
}

/// A cache, ready to be measured.
pub struct Bench {
    case: Case,
    cache: Cache,
    buffers: Vec<Buffer>,
    replies: Vec<Completion>,
}

impl Bench {
    /// The cache of `case`, full of what the case needs there: of all that it will ask for, or
    /// where that does not fit, of something else.
    ///
    /// # Errors
    /// When the case's sizes are impossible.
    pub fn new(case: &Case) -> Result<Self, String> {
        let config = CacheConfig {
            line_size: LineSize::from_bytes(case.line_size as u64)?,
            ..CacheConfig::default()
        };
        let space = CacheSpace { data_offset: 0, length: case.cache_bytes, transfer_max: 1 << 20 };
        let pool = BufferPool::heap();
        let mut cache =
            Cache::in_memory(config, space, pool.clone()).map_err(|error| error.to_string())?;
        let settings = VolumeSettings {
            name: "volume".into(),
            geometry: Geometry::new(case.working_set.max(4 << 30)),
            mode: case.mode,
            known: None,
            cipher: None,
        };
        let id = cache.add_volume(settings).map_err(|error| error.to_string())?;
        debug_assert_eq!(id, VOLUME);
        let buffers = (0..case.depth).map(|_| pool.allocate(case.length as usize)).collect();
        let replies = Vec::with_capacity(case.depth);
        let mut bench = Self { case: *case, cache, buffers, replies };
        bench.warm(case.working_set.min(2 * case.cache_bytes));
        Ok(bench)
    }

    /// Reads all of the first `length` bytes.
    fn warm(&mut self, length: u64) {
        let chunk = 128 << 10;
        let pool = BufferPool::heap();
        for offset in (0..length).step_by(chunk) {
            let request = Request::read(RequestId(0), offset, pool.allocate(chunk));
            self.cache.submit(NOW, VOLUME, request).expect("nothing is in flight");
            self.serve();
            self.replies.clear();
        }
    }

    /// So many requests, from the next places on.
    pub fn pass(&mut self, places: &mut impl Iterator<Item = u64>, requests: u64) {
        let mut left = requests;
        while left > 0 {
            let batch = left.min(self.case.depth as u64);
            left -= batch;
            for offset in places.take(batch as usize) {
                let buffer = self.buffers.pop().expect("as many as there are in flight");
                let id = RequestId(offset);
                let request = match self.case.operation {
                    Operation::Write => Request::write(id, offset, buffer),
                    _ => Request::read(id, offset, buffer),
                };
                self.cache.submit(NOW, VOLUME, request).expect("fewer in flight than there may be");
            }
            self.serve();
            for reply in self.replies.drain(..) {
                self.buffers.push(black_box(reply).buffer.expect("given back"));
            }
        }
    }

    /// Answers what the devices are asked until all is answered.
    fn serve(&mut self) {
        loop {
            // The device's part: the last request first, which costs it the least.
            let outbox = self.cache.outbox();
            self.replies.extend(outbox.replies.drain(..).map(|(_, reply)| reply));
            let request = outbox.cache.pop();
            let Some(request) = request.or_else(|| Some(outbox.origin.pop()?.1)) else { return };
            self.cache.complete(NOW, request.complete(Ok(())));
        }
    }

    /// That what was measured is what the case says.
    ///
    /// # Errors
    /// When it was something else.
    pub fn check(&self) -> Result<(), String> {
        let (case, statistics) = (&self.case, self.cache.statistics(VOLUME).unwrap_or_default());
        // What warmed the cache up missed, and is not counted.
        let warmed = case.working_set.min(2 * case.cache_bytes) / (128 << 10);
        let reads = statistics.reads.saturating_sub(warmed).max(1);
        let hits = statistics.read_hits as f64 / reads as f64;
        let right = match case.operation {
            Operation::Write => statistics.writes > 0,
            _ if case.working_set > case.cache_bytes => hits < 0.05,
            _ => hits > 0.95,
        };
        if right { Ok(()) } else { Err(format!("{}: {:.1} % hits", case.name, hits * 100.0)) }
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
            let evictions = bench.cache.statistics(VOLUME).expect("there").evictions;
            assert_eq!(evictions > 1500, case.name == "read_miss_evict", "{}", case.name);
            if case.name == "write_through_hit" {
                assert!(bench.cache.statistics(VOLUME).expect("there").write_fills >= 2000);
            }
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
