//! A volume as the command serves it: an origin alone, or with a cache in front.

mod cache;
mod cached;

pub(crate) use cache::{CacheReport, ServiceCache, fresh_ids};
pub(crate) use cached::Cached;

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use block_io::reactor::Reactor;
use block_io::{
    BlockDevice, BlockQueue, Completion, DeviceError, Extent, Geometry, IoError, Operation,
    Request, Timestamp,
};
use cache_engine::backend::{Backend, BackendQueue};
use cache_engine::cache::guests::Guest;
use cache_engine::cache::{Statistics, VolumeId};
use cache_engine::volume::cores::Hosting;

use crate::failure::Failure;

/// Requests in flight on an origin or a cache device; what exceeds it waits in the volume.
pub(crate) const DEVICE_DEPTH: usize = 256;

/// A volume: its queue, and the device of its origin.
pub(crate) struct Volume {
    origin: Backend,
    queue: VolumeQueue,
    /// Whether new requests have to wait.
    is_held: bool,
}

/// A volume's queue, whatever it is made of.
enum VolumeQueue {
    /// The origin alone.
    Plain(Box<CountedQueue>),
    /// An origin with a cache in front.
    Cached(Box<Cached>),
}

impl Volume {
    /// `origin` alone, through `queue`.
    pub(crate) fn plain(origin: Backend, queue: BackendQueue) -> Self {
        let queue = CountedQueue { queue, statistics: Statistics::default() };
        Self { origin, queue: VolumeQueue::Plain(Box::new(queue)), is_held: false }
    }

    /// `origin` with a cache in front.
    pub(crate) fn cached(origin: Backend, cached: Cached) -> Self {
        Self { origin, queue: VolumeQueue::Cached(Box::new(cached)), is_held: false }
    }

    /// The device of its origin.
    pub(crate) fn origin(&self) -> &Backend {
        &self.origin
    }

    /// How it is cached; none for an origin alone.
    pub(crate) fn as_cached(&self) -> Option<&Cached> {
        match &self.queue {
            VolumeQueue::Plain(_) => None,
            VolumeQueue::Cached(cached) => Some(cached),
        }
    }

    /// Whether new requests have to wait.
    pub(crate) fn hold(&mut self, is_held: bool) {
        self.is_held = is_held;
    }

    /// Counters since the start. An origin alone counts what it was asked for; nothing is cached.
    pub(crate) fn statistics(&self) -> Statistics {
        match &self.queue {
            VolumeQueue::Plain(queue) => queue.statistics,
            VolumeQueue::Cached(cached) => cached.statistics(),
        }
    }

    /// Why the origin answers no more; absent while it does.
    pub(crate) fn fault(&self) -> Option<String> {
        self.origin.fault()
    }

    /// Its number in the cache; none for an origin alone.
    pub(crate) fn id(&self) -> Option<VolumeId> {
        self.as_cached().map(Cached::id)
    }

    /// Bytes that the origin has now; what it has grown by can be reached from now on.
    ///
    /// # Errors
    /// When it can't be asked, or has grown to a size that no device can have.
    pub(crate) fn origin_size(&self) -> Result<u64, DeviceError> {
        size_now(&self.origin)
    }
}

/// Bytes that an origin has, as it is asked now.
fn size_now(origin: &Backend) -> Result<u64, DeviceError> {
    match origin {
        Backend::File(device) => device.take_growth(),
        Backend::Delayed(device) => size_now(device.inner()),
        // A namespace tells of a change by itself.
        Backend::Memory(_) | Backend::Null(_) | Backend::NvmeTcp(_) => {
            Ok(BlockDevice::<Reactor>::geometry(origin).capacity)
        }
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

impl Hosting for Volume {
    fn is_cached(&self) -> bool {
        self.as_cached().is_some()
    }

    fn admit_guest(&self) -> Result<Option<Guest>, DeviceError> {
        self.as_cached().map_or(Ok(None), |cached| cached.volume.admit_guest())
    }

    fn guest_read_failed(&self, extent: Extent, error: IoError) {
        if let Some(cached) = self.as_cached() {
            cached.volume.guest_read_failed(extent, error);
        }
    }

    fn guest_time(&self, now: Timestamp) {
        if let Some(cached) = self.as_cached() {
            cached.volume.guest_time(now);
        }
    }
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
            VolumeQueue::Cached(cached) => cached.geometry(),
        }
    }

    fn submit(&mut self, request: Request) -> Result<(), Request> {
        if self.is_held {
            return Err(request);
        }
        match &mut self.queue {
            VolumeQueue::Plain(queue) => queue.submit(request),
            VolumeQueue::Cached(cached) => cached.submit(request),
        }
    }

    fn poll(&mut self, now: Timestamp, completions: &mut Vec<Completion>) -> bool {
        match &mut self.queue {
            VolumeQueue::Plain(queue) => queue.poll(now, completions),
            VolumeQueue::Cached(cached) => cached.poll(now, completions),
        }
    }

    fn in_flight(&self) -> usize {
        match &self.queue {
            VolumeQueue::Plain(queue) => queue.in_flight(),
            VolumeQueue::Cached(cached) => cached.in_flight(),
        }
    }
}
