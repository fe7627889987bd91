//! What clients wait for when the cache device takes 100 ms, or for ever, and the origin 0.1 ms:
//! the origin, and nothing else.
//!
//! In virtual time, which is exact: a request that waits for anything more is told by its latency.
//! Reads and writes go to places of their own, so that each is a miss or a write; a hit has to wait
//! for the cache device, and is not what is asked about.
//!
//! Absent: an engine that finds the device slow and goes around it.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use block_io::sim::{DiskFaults, SimDisk, World};
use block_io::{BufferPool, Geometry, Request, RequestId, Timestamp};

use super::engine::Engine;
use super::setup::Setup;

/// The origin's latency.
pub(super) const ORIGIN: Duration = Duration::from_micros(100);
/// The cache device's.
pub(super) const CACHE_DEVICE: Duration = Duration::from_millis(100);
const CAPACITY: u64 = 256 << 20;
const BLOCK: u64 = 4096;

/// Latencies in virtual time, ascending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Latencies {
    /// Of reads that missed.
    pub misses: Vec<Duration>,
    /// Of writes.
    pub writes: Vec<Duration>,
    /// Requests that the cache device has at the end.
    pub cache_device_in_flight: usize,
}

impl Latencies {
    /// The latency that 99 of a hundred do not exceed.
    ///
    /// # Panics
    /// When there is none.
    pub fn p99(sorted: &[Duration]) -> Duration {
        sorted[(sorted.len() - 1) * 99 / 100]
    }
}

/// Runs `requests` reads and writes, `depth` in flight at a time, beside a cache device that takes
/// its time, or that never answers.
///
/// # Panics
/// When a request fails or never ends.
pub fn latencies_beside_a_slow_cache_device(requests: u64, depth: usize, hangs: bool) -> Latencies {
    let world = World::new(1);
    let exactly = |latency| DiskFaults {
        latency_min: latency,
        latency_max: latency,
        ..DiskFaults::default()
    };
    let setup = Setup::roomy();
    let origin = SimDisk::new(&world, "origin", Geometry::new(CAPACITY));
    origin.set_faults(exactly(ORIGIN));
    let cache = SimDisk::new(&world, "cache", Geometry::new(setup.cache_device_bytes()));
    let (host, pool) = (Rc::default(), BufferPool::heap());
    let mut engine = Engine::start(&world, &setup, &[origin], &cache, (&host, &pool), None);
    engine.load();
    let hang = if hangs { 1000 } else { 0 };
    cache.set_faults(DiskFaults { hang, ..exactly(CACHE_DEVICE) });
    let mut begun: BTreeMap<u64, Timestamp> = BTreeMap::new();
    let (mut misses, mut writes) = (Vec::new(), Vec::new());
    let mut done = Vec::new();
    let mut next = 0;
    while next < requests || !begun.is_empty() {
        while next < requests && begun.len() < depth {
            // An odd factor: every block of the volume once before any comes twice.
            let offset = next.wrapping_mul(40_503) % (CAPACITY / BLOCK) * BLOCK;
            let buffer = pool.allocate(BLOCK as usize);
            let id = RequestId(next);
            let request = match next % 2 {
                0 => Request::read(id, offset, buffer),
                _ => Request::write(id, offset, buffer),
            };
            begun.insert(next, world.now());
            next += 1;
            engine.submit(0, request).expect("fewer in flight than there may be");
        }
        while engine.poll(world.now(), &mut done) {}
        for (_, completion) in done.drain(..) {
            assert_eq!(completion.result, Ok(()), "request {}", completion.id.0);
            let begin = begun.remove(&completion.id.0).expect("each request ends once");
            let latency = world.now().since(begin);
            if completion.id.0 % 2 == 0 { misses.push(latency) } else { writes.push(latency) }
        }
        if begun.len() >= depth || next == requests {
            assert!(begun.is_empty() || world.advance(), "requests wait for nothing");
        }
    }
    assert_eq!(engine.counts().read_hits, 0, "a read of a place of its own is a miss");
    misses.sort_unstable();
    writes.sort_unstable();
    Latencies { misses, writes, cache_device_in_flight: cache.in_flight() }
}
