//! A cache on real queues of a reactor, served as the product serves it, and a client of it.
//!
//! The reactor is polled and never sleeps: what is measured is the cache. Absent: frontends.

use std::time::Instant;

use block_io::reactor::{Reactor, Wait};
use block_io::{BlockDevice, BlockQueue, Completion, DeviceError, Request, RequestId};
use cache_engine::backend::{Backend, BackendQueue};
use cache_engine::cache::metadata::probe::Probe;
use cache_engine::cache::metadata::{FormatId, Superblock};
use cache_engine::cache::{
    Cache, CacheConfig, CacheMode, Event, LineSize, Statistics, Ticket, VolumeSettings,
};
use cache_engine::volume::{CacheEngine, CachedVolume, cache_device};
use forebay_benches::metadata::volume_record;

/// Requests in flight on either device.
const DEPTH: usize = 256;

/// A running cache with one volume.
pub(crate) struct Served {
    reactor: Reactor,
    engine: CacheEngine<BackendQueue, BackendQueue>,
    volume: CachedVolume<BackendQueue, BackendQueue>,
    events: Vec<Event>,
    completions: Vec<Completion>,
}

/// How requests went.
pub(crate) struct Latencies {
    /// Nanoseconds, in ascending order.
    sorted: Vec<u64>,
}

impl Latencies {
    /// Milliseconds that so many of 100 requests stayed under.
    pub(crate) fn percentile_ms(&self, percent: usize) -> f64 {
        self.sorted[self.sorted.len() * percent / 100] as f64 / 1e6
    }
}

/// Makes a device an empty cache.
pub(crate) fn format(
    reactor: &Reactor,
    device: &Backend,
    line_size: LineSize,
) -> Result<Superblock, DeviceError> {
    let format_id = FormatId([3; 16]);
    let options = cache_device::FormatOptions { line_size, force_format: true, format_id };
    let mut queue = device.open_queue(reactor, DEPTH)?;
    cache_device::format(&mut queue, reactor.pool(), options, || turn(reactor))
}

fn turn(reactor: &Reactor) -> Result<block_io::Timestamp, DeviceError> {
    reactor.turn(Wait::No)?;
    Ok(reactor.now())
}

impl Served {
    /// Starts the cache that is on `device`, until its volume may be served.
    pub(crate) fn start(
        reactor: Reactor,
        device: &Backend,
        origin: &Backend,
    ) -> Result<Self, DeviceError> {
        let mut queue = device.open_queue(&reactor, DEPTH)?;
        let pool = reactor.pool().clone();
        let Probe::Ours(superblock) = cache_device::open(&mut queue, &pool, || turn(&reactor))?
        else {
            return Err(DeviceError::new("the cache device holds no cache"));
        };
        let known = superblock.volume_named("volume").map(|record| record.id);
        let transfer_max = queue.geometry().transfer_max;
        let fresh = FormatId([4; 16]);
        let cache = Cache::open(CacheConfig::default(), *superblock, transfer_max, fresh, pool)?;
        let engine = CacheEngine::new(cache, queue);
        let origin = origin.open_queue(&reactor, DEPTH)?;
        let settings = VolumeSettings {
            name: "volume".into(),
            geometry: origin.geometry(),
            mode: CacheMode::WriteThrough,
            known,
            cipher: None,
        };
        let volume = engine.add_volume(origin, settings)?;
        let record = volume_record(&engine.cache(), volume.id()).map_err(DeviceError::new)?;
        let ticket: Ticket = engine.change(|cache| cache.record_volume(record))?;
        let (events, completions) = (Vec::new(), Vec::new());
        let mut served = Self { reactor, engine, volume, events, completions };
        served.until(&Event::Done(ticket))?;
        Ok(served)
    }

    /// Turns until that has happened.
    pub(crate) fn until(&mut self, event: &Event) -> Result<(), DeviceError> {
        while !self.events.contains(event) {
            self.turn()?;
            if let Some(Event::Degraded(why)) =
                self.events.iter().find(|event| matches!(event, Event::Degraded(_)))
            {
                return Err(DeviceError::new(format!("the cache gave up: {why}")));
            }
        }
        Ok(())
    }

    /// Everything on the device for a warm start.
    pub(crate) fn stop(mut self) -> Result<(), DeviceError> {
        self.engine.change(Cache::stop);
        self.until(&Event::Stopped)
    }

    fn turn(&mut self) -> Result<(), DeviceError> {
        let now = turn(&self.reactor)?;
        self.volume.poll(now, &mut self.completions);
        while let Some(event) = self.engine.next_event() {
            self.events.push(event);
        }
        Ok(())
    }

    /// Counters of the volume.
    pub(crate) fn statistics(&self) -> Statistics {
        self.volume.statistics()
    }

    /// Turns for so long.
    pub(crate) fn rest(&mut self, time: std::time::Duration) -> Result<(), DeviceError> {
        let start = Instant::now();
        while start.elapsed() < time {
            self.turn()?;
        }
        Ok(())
    }

    /// Reads (or writes) `length` bytes at each of `places`, so many at a time.
    pub(crate) fn ask(
        &mut self,
        places: impl IntoIterator<Item = u64>,
        is_write: bool,
        length: usize,
        depth: usize,
    ) -> Result<Latencies, DeviceError> {
        let mut places = places.into_iter();
        let mut submitted: Vec<Instant> = vec![Instant::now(); depth];
        let mut free: Vec<usize> = (0..depth).collect();
        let mut latencies = Vec::new();
        let mut is_over = false;
        while !is_over || free.len() < depth {
            while !is_over && let Some(name) = free.pop() {
                let Some(place) = places.next() else {
                    is_over = true;
                    free.push(name);
                    break;
                };
                let buffer = self.reactor.pool().allocate(length);
                let id = RequestId(name as u64);
                let request = match is_write {
                    true => Request::write(id, place, buffer),
                    false => Request::read(id, place, buffer),
                };
                submitted[name] = Instant::now();
                self.volume.submit(request).map_err(|_| DeviceError::new("no room"))?;
            }
            self.turn()?;
            let now = Instant::now();
            for completion in self.completions.drain(..) {
                completion.result.map_err(|error| DeviceError::with_source("a request", error))?;
                let name = completion.id.0 as usize;
                latencies.push(now.duration_since(submitted[name]).as_nanos() as u64);
                free.push(name);
            }
        }
        latencies.sort_unstable();
        Ok(Latencies { sorted: latencies })
    }
}
