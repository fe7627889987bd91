//! What clients notice of a cache device that takes 100 ms for everything: 99th percentiles (and
//! medians, which a busy machine spoils less) beside those with one that takes 0.1 ms. The origin
//! takes 0.1 ms and the reactor is a real one, polled.
//!
//! ```text
//!   read miss            no line twice: what is filled takes its time, and nobody waits for it
//!   write                4 KiB, in extents that have been written to before
//!   first write          one an extent of which lines are recorded: waits for the activity page
//! ```
//! The goal is the origin's latency. Hits are not measured: they take what the device takes. Data
//! is in memory, or nowhere (the origin).

use std::time::Duration;

use block_io::DeviceError;
use block_io::device::memory::MemoryDevice;
use block_io::device::null::NullDevice;
use block_io::reactor::{Reactor, ReactorConfig};
use block_io::sim::Random;
use cache_engine::backend::Backend;
use cache_engine::cache::{Event, LineSize};

use crate::results::Results;
use crate::served::{Latencies, Served, format};
use crate::{Failure, Plan};

const ORIGIN: Duration = Duration::from_micros(100);
const DEVICES: [(&str, Duration); 2] = [
    ("fast_cache_device", Duration::from_micros(100)),
    ("slow_cache_device", Duration::from_millis(100)),
];
const VOLUME: u64 = 64 << 30;
const CACHE: u64 = 1 << 30;
const LINE: u64 = 16 << 10;
const EXTENT: u64 = 4 << 20;
const DEPTH: usize = 8;
/// Requests of a run.
const REQUESTS: u64 = 20_000;
/// Bytes that are written again and again.
const WRITTEN: u64 = 64 << 20;
/// Extents that are written to once: fewer than the activity log has places for.
const FIRST_WRITES: u64 = 200;
const RUNS_MAX: u32 = 3;
const NAMES: [&str; 6] =
    ["miss_p99", "miss_p50", "write_p99", "write_p50", "first_write_p99", "first_write_p50"];

/// Runs the suite.
pub(crate) fn run(plan: &Plan, results: &mut Results) -> Result<(), Failure> {
    let named =
        |name: &&str| DEVICES.iter().any(|(device, _)| plan.wants(&format!("{name}_{device}")));
    if !NAMES.iter().any(named) {
        return Ok(());
    }
    let mut rows = [const { [const { Vec::new() }; 6] }; DEVICES.len()];
    for run in 0..plan.runs.min(RUNS_MAX) {
        for ((_, latency), row) in DEVICES.iter().zip(&mut rows) {
            let measured = measure(*latency, run.into()).map_err(|error| error.to_string())?;
            for (at, latencies) in measured.iter().enumerate() {
                row[2 * at].push(latencies.percentile_ms(99));
                row[2 * at + 1].push(latencies.percentile_ms(50));
            }
        }
    }
    for ((device, _), row) in DEVICES.iter().zip(&rows) {
        for (name, values) in NAMES.iter().zip(row) {
            results.record(&format!("{name}_{device}"), "ms", values);
        }
    }
    Ok(())
}

fn measure(latency: Duration, seed: u64) -> Result<[Latencies; 3], DeviceError> {
    let reactor = Reactor::new(ReactorConfig::default())?;
    let memory = Backend::Memory(MemoryDevice::new(CACHE)?);
    format(&reactor, &memory, LineSize::default())?;
    let origin = Backend::Null(NullDevice::new(VOLUME)).delayed(ORIGIN);
    let mut served = Served::start(reactor, &memory.delayed(latency), &origin)?;
    served.until(&Event::Loaded)?;

    // Each line of the volume at most once: an odd stride meets all of them before one twice.
    let lines = VOLUME / LINE;
    let stride = (lines * 5 / 8) | 1;
    let line = |step: u64| (seed + step) * stride % lines * LINE;
    let misses = served.ask((0..REQUESTS).map(line), false, LINE as usize, DEPTH)?;
    let hits = served.statistics().read_hits;
    if hits > REQUESTS / 1000 {
        return Err(DeviceError::new(format!("{hits} of {REQUESTS} reads were hits")));
    }
    // Lines of the extents that are written to, recorded before they are; when all stores have
    // ended, because no more than so many are in flight, and further data is not cached.
    served.rest(Duration::from_secs(1))?;
    let first = |extent: u64| VOLUME / 2 + extent * EXTENT;
    served.ask((0..FIRST_WRITES).map(first), false, LINE as usize, DEPTH)?;
    served.rest(Duration::from_secs(1))?;
    served.ask((0..WRITTEN / LINE).map(|line| line * LINE), false, LINE as usize, DEPTH)?;

    let mut random = Random::new(seed + 1);
    let mut block = || Some(random.below(WRITTEN / 4096) * 4096);
    // Until all are active.
    served.ask((0..WRITTEN / EXTENT).map(|extent| extent * EXTENT), true, 4096, DEPTH)?;
    let again = std::iter::from_fn(&mut block).take(REQUESTS as usize);
    let writes = served.ask(again, true, 4096, DEPTH)?;
    let first = served.ask((0..FIRST_WRITES).map(first), true, 4096, DEPTH)?;
    Ok([misses, writes, first])
}
