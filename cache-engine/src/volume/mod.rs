//! A cached volume: the cache's decisions carried out on an origin and a cache device.
//!
//! It is a [`BlockQueue`] made of two, so it can stand wherever a device can: behind a frontend,
//! behind another cache, on simulated disks. It adds nothing to what the cache decides; it only
//! moves requests and completions, and keeps what a full queue handed back.
//!
//! Absent: opening devices ([`cache_device`] and the backends do that).

pub mod cache_check;
pub mod cache_device;
pub mod exchange;

use std::collections::VecDeque;

use block_io::{BlockQueue, Completion, DeviceError, Geometry, Request, Timestamp};

use crate::cache::{Cache, CacheConfig, CacheMode, CacheSpace, Statistics};

/// One cached volume on one core.
pub struct CachedVolume<Origin, CacheDevice> {
    cache: Cache,
    origin: Device<Origin>,
    cache_device: Device<CacheDevice>,
    replies: Vec<Completion>,
    now: Timestamp,
}

/// A queue with what it had no room for, in order. Bounded by what the cache has in flight.
struct Device<Queue> {
    queue: Queue,
    waiting: VecDeque<Request>,
    completions: Vec<Completion>,
}

impl<Queue: BlockQueue> Device<Queue> {
    fn new(queue: Queue) -> Self {
        Self { queue, waiting: VecDeque::new(), completions: Vec::new() }
    }

    fn send(&mut self, requests: &mut Vec<Request>) {
        if self.waiting.is_empty() {
            let mut refused = None;
            let mut rest = requests.drain(..);
            for request in rest.by_ref() {
                if let Err(request) = self.queue.submit(request) {
                    refused = Some(request);
                    break;
                }
            }
            self.waiting.extend(refused);
            self.waiting.extend(rest);
        } else {
            self.waiting.extend(requests.drain(..));
            self.retry();
        }
    }

    fn retry(&mut self) {
        while let Some(request) = self.waiting.pop_front() {
            if let Err(request) = self.queue.submit(request) {
                self.waiting.push_front(request);
                return;
            }
        }
    }
}

impl<Origin: BlockQueue, CacheDevice: BlockQueue> CachedVolume<Origin, CacheDevice> {
    /// A volume with a cold cache.
    ///
    /// # Errors
    /// As [`Cache::new`].
    pub fn new(
        config: CacheConfig,
        origin: Origin,
        cache_device: CacheDevice,
        space: CacheSpace,
    ) -> Result<Self, DeviceError> {
        Ok(Self {
            cache: Cache::new(config, origin.geometry(), space)?,
            origin: Device::new(origin),
            cache_device: Device::new(cache_device),
            replies: Vec::new(),
            now: Timestamp::default(),
        })
    }

    /// Counters since the start.
    pub fn statistics(&self) -> Statistics {
        self.cache.statistics()
    }

    /// Changes the mode for requests that start from now on.
    pub fn set_mode(&mut self, mode: CacheMode) {
        self.cache.set_mode(mode);
    }

    /// The cache, for its sizes and settings.
    pub fn cache(&self) -> &Cache {
        &self.cache
    }

    /// See [`Cache::fence`].
    pub fn fence(&mut self) {
        self.cache.fence();
    }

    /// The queue of the origin.
    pub fn origin(&mut self) -> &mut Origin {
        &mut self.origin.queue
    }

    /// Whether nothing is in flight, stores into the cache included: the devices may be closed.
    pub fn is_idle(&self) -> bool {
        self.cache.in_flight() == 0 && self.cache.fills_in_flight() == 0
    }

    fn empty_outbox(&mut self) {
        let outbox = self.cache.outbox();
        if !outbox.cache.is_empty() {
            self.cache_device.send(&mut outbox.cache);
        }
        if !outbox.origin.is_empty() {
            self.origin.send(&mut outbox.origin);
        }
        self.replies.append(&mut outbox.replies);
    }

    fn poll_device<Queue: BlockQueue>(
        cache: &mut Cache,
        device: &mut Device<Queue>,
        now: Timestamp,
    ) -> bool {
        if !device.waiting.is_empty() {
            device.retry();
        }
        let progress = device.queue.poll(now, &mut device.completions);
        for completion in device.completions.drain(..) {
            cache.complete(now, completion.id, completion.result);
        }
        progress
    }
}

impl<Origin: BlockQueue, CacheDevice: BlockQueue> BlockQueue for CachedVolume<Origin, CacheDevice> {
    fn geometry(&self) -> Geometry {
        self.cache.geometry()
    }

    fn submit(&mut self, request: Request) -> Result<(), Request> {
        self.cache.submit(self.now, request)?;
        self.empty_outbox();
        Ok(())
    }

    fn poll(&mut self, now: Timestamp, completions: &mut Vec<Completion>) -> bool {
        self.now = now;
        let mut progress = Self::poll_device(&mut self.cache, &mut self.cache_device, now);
        progress |= Self::poll_device(&mut self.cache, &mut self.origin, now);
        self.empty_outbox();
        progress |= !self.replies.is_empty();
        completions.append(&mut self.replies);
        progress
    }

    fn in_flight(&self) -> usize {
        self.cache.in_flight() + self.replies.len()
    }
}
