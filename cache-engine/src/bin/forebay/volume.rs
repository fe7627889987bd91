//! A volume as the command serves it: an origin alone, or with a cache in front.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use block_io::reactor::{Reactor, Wait};
use block_io::{BlockDevice, BlockQueue, Completion, Geometry, Operation, Request, Timestamp};
use cache_engine::backend::address::{CacheAddress, Size};
use cache_engine::backend::{Backend, BackendQueue};
use cache_engine::cache::{Cache, CacheConfig, CacheMode, Statistics, VolumeSettings};
use cache_engine::volume::cache_device::{self, Found, PrepareOptions};
use cache_engine::volume::{CacheEngine, CachedVolume};

use crate::failure::Failure;

/// Requests in flight on an origin or a cache device; what exceeds it waits in the volume.
const DEVICE_DEPTH: usize = 256;

/// How a cache is made.
#[derive(Clone, Debug)]
pub(crate) struct CacheSettings {
    pub(crate) address: CacheAddress,
    pub(crate) size: Option<Size>,
    pub(crate) force_format: bool,
    pub(crate) mode: CacheMode,
    pub(crate) config: CacheConfig,
}

/// A volume: its queue, and the device of its origin.
pub(crate) struct Volume {
    origin: Backend,
    queue: VolumeQueue,
}

/// A volume's queue, whatever it is made of.
enum VolumeQueue {
    /// The origin alone.
    Plain(Box<CountedQueue>),
    /// An origin with a cache in front.
    Cached(Box<CachedVolume<BackendQueue, BackendQueue>>),
}

impl Volume {
    /// `origin` alone.
    ///
    /// # Errors
    /// When it has no room for another queue.
    pub(crate) fn plain(origin: &Backend, reactor: &Reactor) -> Result<Self, Failure> {
        let queue = origin.open_queue(reactor, DEVICE_DEPTH)?;
        let statistics = Statistics::default();
        let queue = VolumeQueue::Plain(Box::new(CountedQueue { queue, statistics }));
        Ok(Self { origin: origin.clone(), queue })
    }

    /// `origin` with a cache in front, and what an operator should know about the cache.
    ///
    /// # Errors
    /// When the cache's device cannot be opened or may not be used, or is too small.
    pub(crate) fn cached(
        origin: &Backend,
        cache: &CacheSettings,
        reactor: &Reactor,
    ) -> Result<(Self, Vec<String>), Failure> {
        let address = &cache.address;
        let origin_queue = origin.open_queue(reactor, DEVICE_DEPTH)?;
        let backend = Backend::open_cache(address, cache.size)?;
        let mut notices: Vec<String> = backend.notice().map(str::to_owned).into_iter().collect();
        let mut queue = backend.open_queue(reactor, DEVICE_DEPTH)?;
        let options = PrepareOptions {
            line_size: cache.config.line_size,
            force_format: cache.force_format,
            identity: random_identity()?,
        };
        let turn = || {
            reactor.turn(Wait::ForEvent)?;
            Ok(reactor.now())
        };
        let (space, found) = cache_device::prepare(&mut queue, reactor.pool(), options, turn)
            .map_err(|error| Failure::because(format!("--cache {address}"), error))?;
        let state = match found {
            Found::Unused => "was unused and is formatted",
            Found::Ours => "is one of ours",
            Found::Forced => "held something else and is formatted by force",
        };
        notices.push(format!("{address}: {state}; the cache starts cold"));
        let pool = reactor.pool().clone();
        let engine = CacheEngine::new(Cache::in_memory(cache.config.clone(), space, pool)?, queue);
        let geometry = origin_queue.geometry();
        let settings = VolumeSettings {
            name: "volume".into(),
            geometry,
            mode: cache.mode,
            known: None,
            cipher: None,
        };
        let volume = engine.add_volume(origin_queue, settings)?;
        let queue = VolumeQueue::Cached(Box::new(volume));
        Ok((Self { origin: origin.clone(), queue }, notices))
    }

    /// Counters since the start. An origin alone counts what it was asked for; nothing is cached.
    pub(crate) fn statistics(&self) -> Statistics {
        match &self.queue {
            VolumeQueue::Plain(queue) => queue.statistics,
            VolumeQueue::Cached(volume) => volume.statistics(),
        }
    }

    /// Whether its devices may be closed.
    pub(crate) fn is_idle(&self) -> bool {
        match &self.queue {
            VolumeQueue::Plain(queue) => queue.in_flight() == 0,
            VolumeQueue::Cached(volume) => volume.is_idle(),
        }
    }

    /// Why the origin answers no more; absent while it does.
    pub(crate) fn fault(&self) -> Option<String> {
        self.origin.fault()
    }

    /// Takes leave of whoever serves the origin.
    ///
    /// # Errors
    /// When the reactor itself fails.
    pub(crate) fn close(&self, reactor: &Reactor) -> Result<(), Failure> {
        Ok(self.origin.close(reactor)?)
    }
}

/// Sixteen random bytes, for a new format id.
///
/// # Errors
/// When the system has none to give.
pub(crate) fn random_identity() -> Result<[u8; 16], Failure> {
    let mut identity = [0; 16];
    File::open("/dev/urandom")
        .and_then(|mut source| source.read_exact(&mut identity))
        .map_err(|error| Failure::because("reading /dev/urandom", error))?;
    Ok(identity)
}

/// Whether two paths lead to one file or one block device.
pub(crate) fn is_same_file(one: &Path, other: &Path) -> bool {
    let identity = |path: &Path| {
        let metadata = std::fs::metadata(path).ok()?;
        match metadata.rdev() {
            0 => Some((metadata.dev(), metadata.ino(), 0)),
            // Two nodes of one block device are one device.
            device => Some((0, 0, device)),
        }
    };
    identity(one).is_some_and(|one| identity(other) == Some(one))
}

/// A device's queue that counts what it is asked for.
pub(crate) struct CountedQueue {
    queue: BackendQueue,
    statistics: Statistics,
}

impl BlockQueue for CountedQueue {
    fn geometry(&self) -> Geometry {
        self.queue.geometry()
    }

    fn submit(&mut self, request: Request) -> Result<(), Request> {
        let (operation, length) = (request.operation, request.extent.length);
        self.queue.submit(request)?;
        let statistics = &mut self.statistics;
        match operation {
            Operation::Read => {
                statistics.reads += 1;
                statistics.read_bytes += length;
                statistics.origin_read_bytes += length;
            }
            Operation::Write => {
                statistics.writes += 1;
                statistics.write_bytes += length;
                statistics.origin_write_bytes += length;
            }
            Operation::Flush => statistics.flushes += 1,
            Operation::Discard => statistics.discards += 1,
            Operation::WriteZeroes => statistics.write_zeroes += 1,
        }
        Ok(())
    }

    fn poll(&mut self, now: Timestamp, completions: &mut Vec<Completion>) -> bool {
        let before = completions.len();
        let progress = self.queue.poll(now, completions);
        let failed = completions[before..].iter().filter(|one| one.result.is_err()).count();
        self.statistics.origin_errors += failed as u64;
        progress
    }

    fn in_flight(&self) -> usize {
        self.queue.in_flight()
    }
}

impl BlockQueue for Volume {
    fn geometry(&self) -> Geometry {
        match &self.queue {
            VolumeQueue::Plain(queue) => queue.geometry(),
            VolumeQueue::Cached(volume) => volume.geometry(),
        }
    }

    fn submit(&mut self, request: Request) -> Result<(), Request> {
        match &mut self.queue {
            VolumeQueue::Plain(queue) => queue.submit(request),
            VolumeQueue::Cached(volume) => volume.submit(request),
        }
    }

    fn poll(&mut self, now: Timestamp, completions: &mut Vec<Completion>) -> bool {
        match &mut self.queue {
            VolumeQueue::Plain(queue) => queue.poll(now, completions),
            VolumeQueue::Cached(volume) => volume.poll(now, completions),
        }
    }

    fn in_flight(&self) -> usize {
        match &self.queue {
            VolumeQueue::Plain(queue) => queue.in_flight(),
            VolumeQueue::Cached(volume) => volume.in_flight(),
        }
    }
}
