//! A volume as the command serves it: an origin alone, or with a cache in front.

mod cached;

pub(crate) use cached::{CacheReport, CacheSettings};

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use block_io::reactor::Reactor;
use block_io::{
    BlockDevice, BlockQueue, Completion, DeviceError, Geometry, Operation, Request, Timestamp,
};
use cache_engine::backend::{Backend, BackendQueue};
use cache_engine::cache::{Statistics, Ticket, VolumeId};
use cache_engine::volume::CacheEngine;

use cached::Cached;

use crate::failure::Failure;

/// Requests in flight on an origin or a cache device; what exceeds it waits in the volume.
const DEVICE_DEPTH: usize = 256;

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
    Cached(Box<Cached>),
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
        let (cached, notices) = Cached::start(origin, cache, reactor)?;
        let queue = VolumeQueue::Cached(Box::new(cached));
        Ok((Self { origin: origin.clone(), queue }, notices))
    }

    /// Counters since the start. An origin alone counts what it was asked for; nothing is cached.
    pub(crate) fn statistics(&self) -> Statistics {
        match &self.queue {
            VolumeQueue::Plain(queue) => queue.statistics,
            VolumeQueue::Cached(cached) => cached.statistics(),
        }
    }

    /// Whether its devices may be closed.
    pub(crate) fn is_idle(&self) -> bool {
        match &self.queue {
            VolumeQueue::Plain(queue) => queue.in_flight() == 0,
            VolumeQueue::Cached(cached) => cached.is_idle(),
        }
    }

    /// Why the origin answers no more; absent while it does.
    pub(crate) fn fault(&self) -> Option<String> {
        self.origin.fault()
    }

    /// The cache in front; none for an origin alone.
    pub(crate) fn engine(&self) -> Option<CacheEngine<BackendQueue, BackendQueue>> {
        match &self.queue {
            VolumeQueue::Plain(_) => None,
            VolumeQueue::Cached(cached) => Some(cached.engine().clone()),
        }
    }

    /// Its number in the cache; none for an origin alone.
    pub(crate) fn id(&self) -> Option<VolumeId> {
        match &self.queue {
            VolumeQueue::Plain(_) => None,
            VolumeQueue::Cached(cached) => Some(cached.id()),
        }
    }

    /// What was done since this was last asked, of what takes the cache a while.
    pub(crate) fn tickets_done(&mut self) -> Vec<Ticket> {
        match &mut self.queue {
            VolumeQueue::Plain(_) => Vec::new(),
            VolumeQueue::Cached(cached) => cached.tickets_done(),
        }
    }

    /// Bytes that the origin has now.
    ///
    /// # Errors
    /// When it has grown: its queues reach what was there when it was opened.
    pub(crate) fn origin_size(&self) -> Result<u64, DeviceError> {
        let opened = self.origin.geometry().capacity;
        match size_now(&self.origin)? {
            size if size > opened => Err(DeviceError::new(format!(
                "its origin has grown to {size} bytes, of which {opened} can be reached; serve it \
                 anew to take all"
            ))),
            size => Ok(size),
        }
    }

    /// What the whole cache did; none for an origin alone.
    pub(crate) fn cache_report(&self) -> Option<CacheReport> {
        match &self.queue {
            VolumeQueue::Plain(_) => None,
            VolumeQueue::Cached(cached) => Some(cached.report()),
        }
    }

    /// What an operator should know by now.
    pub(crate) fn notices(&mut self) -> Vec<String> {
        match &mut self.queue {
            VolumeQueue::Plain(_) => Vec::new(),
            VolumeQueue::Cached(cached) => cached.notices().collect(),
        }
    }

    /// The last flush has ended: whether all that was written is on the origin.
    pub(crate) fn flushed(&mut self, in_order: bool) {
        if let VolumeQueue::Cached(cached) = &mut self.queue {
            cached.flushed(in_order);
        }
    }

    /// Leaves the cache in order, and takes leave of whoever serves the origin.
    ///
    /// # Errors
    /// When the reactor itself fails.
    pub(crate) fn close(&mut self, reactor: &Reactor) -> Result<(), Failure> {
        if let VolumeQueue::Cached(cached) = &mut self.queue {
            cached.stop(&self.origin, reactor);
        }
        Ok(self.origin.close(reactor)?)
    }
}

/// Bytes that an origin has, as it is asked now.
fn size_now(origin: &Backend) -> Result<u64, DeviceError> {
    match origin {
        Backend::File(device) => {
            let metadata = device.metadata()?;
            if metadata.is_file() {
                return Ok(metadata.len());
            }
            // A block device has no length; its end is where seeking gets.
            File::open(device.path()).and_then(|mut file| file.seek(SeekFrom::End(0))).map_err(
                |error| {
                    let path = device.path().display();
                    DeviceError::with_source(format!("{path}: asking its size"), error)
                },
            )
        }
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
