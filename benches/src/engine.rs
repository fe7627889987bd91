//! The cache by itself: what one request costs the state machine, with devices that cost nothing.
//!
//! Requests go in, whatever the outbox asks of a device is answered at once, and the buffers come
//! back with the replies. Nothing is copied and nothing is allocated in a measured loop. Criterion
//! measures; its samples are the runs that the results count.

use std::hint::black_box;
use std::path::Path;
use std::time::{Duration, Instant};

use block_io::sim::Random;
use block_io::{
    Buffer, BufferPool, Completion, Geometry, Operation, Request, RequestId, Timestamp,
};
use cache_engine::cache::{
    Cache, CacheConfig, CacheMode, CacheSpace, LineSize, VolumeId, VolumeSettings,
};
use criterion::Criterion;
use serde::Deserialize;

use crate::results::Results;
use crate::{Failure, Plan};

const NOW: Timestamp = Timestamp(0);
const VOLUME: VolumeId = VolumeId(0);
/// Criterion's least.
const SAMPLES_MIN: usize = 10;
/// Bytes for lines.
const CACHE_BYTES: u64 = 1 << 30;

/// One benchmark.
struct Case {
    name: &'static str,
    operation: Operation,
    length: u64,
    line_size: usize,
    /// Requests in flight at a time.
    depth: usize,
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
    working_set: 256 << 20,
    mode: CacheMode::WriteThrough,
};

const CASES: &[Case] = &[
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
];

/// Runs the suite.
pub(crate) fn run(plan: &Plan, results: &mut Results) -> Result<(), Failure> {
    let folder = tempfile::tempdir().map_err(|error| format!("temporary folder: {error}"))?;
    let mut criterion = Criterion::default()
        .without_plots()
        .output_directory(folder.path())
        .sample_size(SAMPLES_MIN.max(plan.runs as usize))
        .measurement_time(plan.time);
    for case in CASES.iter().filter(|case| plan.wants(case.name)) {
        let mut bench = Bench::new(case)?;
        if case.working_set <= CACHE_BYTES {
            bench.warm(case.working_set);
        }
        let mut places = places(case);
        criterion.bench_function(case.name, |bencher| {
            bencher.iter_custom(|requests| bench.pass(case, &mut places, requests));
        });
        bench.check(case)?;
        results.record(case.name, "ns", &samples(folder.path(), case.name)?);
    }
    Ok(())
}

/// What Criterion measured in each sample, in nanoseconds a request.
fn samples(folder: &Path, name: &str) -> Result<Vec<f64>, Failure> {
    #[derive(Deserialize)]
    struct Sample {
        iters: Vec<f64>,
        times: Vec<f64>,
    }
    let file = folder.join(name).join("new/sample.json");
    let text = std::fs::read_to_string(&file).map_err(|error| format!("{file:?}: {error}"))?;
    let sample: Sample =
        serde_json::from_str(&text).map_err(|error| format!("{file:?}: {error}"))?;
    Ok(sample.times.iter().zip(&sample.iters).map(|(time, count)| time / count).collect())
}

/// Random places of the working set, never the same row of them twice. Drawing one costs about a
/// nanosecond of what is measured.
fn places(case: &Case) -> impl Iterator<Item = u64> + use<> {
    let mut random = Random::new(1);
    let (slots, length) = (case.working_set / case.length, case.length);
    std::iter::repeat_with(move || random.below(slots) * length)
}

struct Bench {
    cache: Cache,
    buffers: Vec<Buffer>,
    replies: Vec<Completion>,
}

impl Bench {
    fn new(case: &Case) -> Result<Self, Failure> {
        let config = CacheConfig {
            line_size: LineSize::from_bytes(case.line_size as u64)?,
            ..CacheConfig::default()
        };
        let space = CacheSpace { data_offset: 0, length: CACHE_BYTES, transfer_max: 1 << 20 };
        let pool = BufferPool::heap();
        let mut cache =
            Cache::in_memory(config, space, pool.clone()).map_err(|error| error.to_string())?;
        let geometry = Geometry::new(case.working_set.max(4 << 30));
        let settings = VolumeSettings {
            name: "volume".into(),
            geometry,
            mode: case.mode,
            known: None,
            cipher: None,
        };
        let id = cache.add_volume(settings).map_err(|error| error.to_string())?;
        debug_assert_eq!(id, VOLUME);
        let buffers = (0..case.depth).map(|_| pool.allocate(case.length as usize)).collect();
        Ok(Self { cache, buffers, replies: Vec::with_capacity(case.depth) })
    }

    /// Reads all of the first `length` bytes, which leaves them in the cache.
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

    /// How long so many requests take, from the next places on.
    fn pass(
        &mut self,
        case: &Case,
        places: &mut impl Iterator<Item = u64>,
        requests: u64,
    ) -> Duration {
        let start = Instant::now();
        let mut left = requests;
        while left > 0 {
            let batch = left.min(case.depth as u64);
            left -= batch;
            for offset in places.take(batch as usize) {
                let buffer = self.buffers.pop().expect("as many as there are in flight");
                let id = RequestId(offset);
                let request = match case.operation {
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
        start.elapsed()
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

    /// That the benchmark measured what it says.
    fn check(&self, case: &Case) -> Result<(), Failure> {
        let statistics = self.cache.statistics(VOLUME).expect("the volume is there");
        let hits = statistics.read_hits as f64 / statistics.reads.max(1) as f64;
        let right = match case.operation {
            Operation::Write => statistics.writes > 0,
            _ if case.working_set > CACHE_BYTES => hits < 0.05,
            _ => hits > 0.95,
        };
        if right { Ok(()) } else { Err(format!("{}: {:.1} % hits", case.name, hits * 100.0)) }
    }
}
