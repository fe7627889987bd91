//! Cached volumes: the cache's decisions carried out on a cache device and one origin a volume.
//!
//! ```text
//!   CachedVolume ─┐                      ┌─▶ origin of volume 0
//!   CachedVolume ─┼─▶ engine { Cache } ──┼─▶ origin of volume 1
//!   CachedVolume ─┘                      └─▶ cache device
//! ```
//! A [`CachedVolume`] is a [`BlockQueue`], so it can stand wherever a device can: behind a
//! frontend, behind another cache, on simulated disks. All volumes of one [`CacheEngine`] live on
//! one core; other cores use them through [`cores`]. The engine adds nothing to what the cache
//! decides; it only moves requests and completions, and keeps what a full queue handed back.
//!
//! [`opening`] makes an engine of a cache device, [`attach`] adds volumes that may be warm and ends
//! the run in order.
//!
//! Absent: opening devices (the backends do that).

pub mod attach;
pub mod cache_check;
pub mod cache_device;
pub mod cores;
pub mod exchange;
pub mod opening;
#[cfg(test)]
mod tests;

use std::cell::{Ref, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use block_io::device::Interruptions;
use block_io::{BlockQueue, Completion, DeviceError, Extent, Geometry, Request, Timestamp};

use crate::cache::metadata::{FormatId, Superblock};
use crate::cache::{Cache, CacheMode, Event, Statistics, Ticket, VolumeId, VolumeSettings};

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

    fn send(&mut self, request: Request) {
        if self.waiting.is_empty() {
            if let Err(refused) = self.queue.submit(request) {
                self.waiting.push_back(refused);
            }
        } else {
            self.waiting.push_back(request);
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

    /// Hands what has completed to `take`. Returns whether anything moved.
    fn poll(&mut self, now: Timestamp, take: impl FnMut(Completion)) -> bool {
        let progress = self.fetch(now);
        self.give(take);
        progress
    }

    fn fetch(&mut self, now: Timestamp) -> bool {
        if !self.waiting.is_empty() {
            self.retry();
        }
        self.queue.poll(now, &mut self.completions)
    }

    fn give(&mut self, take: impl FnMut(Completion)) {
        if !self.completions.is_empty() {
            self.completions.drain(..).for_each(take);
        }
    }
}

/// One volume's side of an engine.
struct Side<Origin> {
    origin: Device<Origin>,
    /// What the cache has been told of.
    interruptions: Interruptions,
    replies: Vec<Completion>,
}

impl<Origin: BlockQueue> Side<Origin> {
    /// Moves the origin on. Of a way to it that was lost the cache hears before and after what has
    /// completed meanwhile: a flush among that may have come too late for what is lost, and a write
    /// among it may be lost.
    fn poll(&mut self, now: Timestamp, cache: &mut Cache, id: VolumeId) -> bool {
        let progress = self.origin.fetch(now);
        let told = self.interruptions;
        self.interruptions = self.origin.queue.interruptions();
        let was_lost = self.interruptions.lost != told.lost;
        if self.interruptions.settled != told.settled {
            cache.settled(id);
        }
        if self.interruptions.replaced != told.replaced {
            cache.origin_replaced(now, id);
        }
        if was_lost {
            cache.interrupted(id);
        }
        self.origin.give(|done| cache.complete(now, done));
        if was_lost {
            cache.interrupted(id);
        }
        progress
    }
}

/// A cache with its devices.
struct Engine<Origin, CacheDevice> {
    cache: Cache,
    cache_device: Device<CacheDevice>,
    /// Takes its place when the cache says so.
    new_device: Option<Device<CacheDevice>>,
    /// By volume.
    sides: Vec<Option<Side<Origin>>>,
    events: VecDeque<Event>,
    now: Timestamp,
}

impl<Origin: BlockQueue, CacheDevice: BlockQueue> Engine<Origin, CacheDevice> {
    fn empty_outbox(&mut self) {
        let outbox = self.cache.outbox();
        if outbox.is_empty() {
            return;
        }
        if outbox.events.contains(&Event::Replaced)
            && let Some(device) = self.new_device.take()
        {
            self.cache_device = device;
        }
        for request in outbox.cache.drain(..) {
            self.cache_device.send(request);
        }
        for (id, request) in outbox.origin.drain(..) {
            side(&mut self.sides, id).origin.send(request);
        }
        for (id, reply) in outbox.replies.drain(..) {
            side(&mut self.sides, id).replies.push(reply);
        }
        self.events.extend(outbox.events.drain(..));
    }

    /// Takes what has arrived of a volume into the cache, as far as there is room. Returns whether
    /// anything happened.
    fn take_in(&mut self, id: VolumeId, arrived: &mut VecDeque<Request>) -> bool {
        let before = arrived.len();
        while let Some(request) = arrived.pop_front() {
            if let Err(refused) = self.cache.submit(self.now, id, request) {
                arrived.push_front(refused);
                break;
            }
        }
        let progress = arrived.len() < before;
        if progress {
            self.empty_outbox();
        }
        progress
    }

    /// Moves every device on, or of the origins only that of one volume. Returns whether anything
    /// happened.
    fn poll(&mut self, now: Timestamp, only: Option<VolumeId>) -> bool {
        self.now = now;
        let cache = &mut self.cache;
        let mut progress = self.cache_device.poll(now, |done| cache.complete(now, done));
        let numbers = match only {
            Some(id) => usize::from(id.0)..usize::from(id.0) + 1,
            None => 0..self.sides.len(),
        };
        for number in numbers {
            if let Some(Some(side)) = self.sides.get_mut(number) {
                progress |= side.poll(now, cache, VolumeId(number as _));
            }
        }
        progress |= cache.tick(now);
        self.empty_outbox();
        progress
    }

    fn is_idle(&self) -> bool {
        self.cache.in_flight() == 0
            && self.cache.fills_in_flight() == 0
            && self.cache_device.queue.in_flight() == 0
    }
}

fn side<Origin>(sides: &mut [Option<Side<Origin>>], id: VolumeId) -> &mut Side<Origin> {
    sides[usize::from(id.0)].as_mut().expect("a volume of this engine")
}

/// A cache with its devices on one core. Clones are the same one.
pub struct CacheEngine<Origin, CacheDevice>(Rc<RefCell<Engine<Origin, CacheDevice>>>);

impl<Origin, CacheDevice> Clone for CacheEngine<Origin, CacheDevice> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<Origin: BlockQueue, CacheDevice: BlockQueue> CacheEngine<Origin, CacheDevice> {
    /// `cache` on `cache_device`, whose space the cache was made with.
    pub fn new(cache: Cache, cache_device: CacheDevice) -> Self {
        Self(Rc::new(RefCell::new(Engine {
            cache,
            cache_device: Device::new(cache_device),
            new_device: None,
            sides: Vec::new(),
            events: VecDeque::new(),
            now: Timestamp::default(),
        })))
    }

    /// Adds a volume on `origin`. The geometry in `settings` is replaced by the queue's.
    ///
    /// # Errors
    /// See [`Cache::add_volume`].
    pub fn add_volume(
        &self,
        origin: Origin,
        settings: VolumeSettings,
    ) -> Result<CachedVolume<Origin, CacheDevice>, DeviceError> {
        let mut engine = self.0.borrow_mut();
        let geometry = origin.geometry();
        let id = engine.cache.add_volume(VolumeSettings { geometry, ..settings })?;
        let at = usize::from(id.0);
        if engine.sides.len() <= at {
            engine.sides.resize_with(at + 1, || None);
        }
        let interruptions = origin.interruptions();
        let origin = Device::new(origin);
        engine.sides[at] = Some(Side { origin, interruptions, replies: Vec::new() });
        Ok(CachedVolume { engine: self.clone(), id, arrived: VecDeque::with_capacity(ARRIVED_MAX) })
    }

    /// The cache, for its sizes, settings and counters.
    pub fn cache(&self) -> Ref<'_, Cache> {
        Ref::map(self.0.borrow(), |engine| &engine.cache)
    }

    /// Changes something about the cache, and does what follows from it.
    pub fn change<Value>(&self, change: impl FnOnce(&mut Cache) -> Value) -> Value {
        let mut engine = self.0.borrow_mut();
        let value = change(&mut engine.cache);
        engine.empty_outbox();
        value
    }

    /// Uses another cache device as soon as nothing is in flight; see [`Cache::replace`]. The queue
    /// of the old one is dropped then.
    ///
    /// # Errors
    /// As [`Cache::replace`]; nothing has changed then.
    pub fn replace_device(
        &self,
        cache_device: CacheDevice,
        superblock: Superblock,
        fresh: FormatId,
    ) -> Result<(), DeviceError> {
        let transfer_max = cache_device.geometry().transfer_max;
        let mut engine = self.0.borrow_mut();
        engine.new_device = Some(Device::new(cache_device));
        let replaced = engine.cache.replace(superblock, transfer_max, fresh);
        if replaced.is_err() {
            engine.new_device = None;
        }
        engine.empty_outbox();
        replaced
    }

    /// Takes a volume out of the cache, whoever has its [`CachedVolume`], which must not be used
    /// any more; gives its origin's queue back.
    ///
    /// # Errors
    /// When requests of it are in flight; the volume is as it was then.
    pub fn remove_volume(&self, id: VolumeId) -> Result<Origin, DeviceError> {
        self.change(|cache| cache.remove_volume(id))?;
        let side = self.0.borrow_mut().sides[usize::from(id.0)].take();
        Ok(side.expect("a volume of this engine").origin.queue)
    }

    /// The next thing that the cache has to say.
    pub fn next_event(&self) -> Option<Event> {
        self.0.borrow_mut().events.pop_front()
    }

    /// Takes this event out if it is among those that the cache has to say; the others stay.
    pub fn take_event(&self, event: &Event) -> bool {
        self.take_event_where(|other| other == event).is_some()
    }

    /// Takes the first event out that `is_wanted`; the others stay.
    pub fn take_event_where(&self, is_wanted: impl FnMut(&Event) -> bool) -> Option<Event> {
        let events = &mut self.0.borrow_mut().events;
        let at = events.iter().position(is_wanted);
        at.and_then(|at| events.remove(at))
    }

    /// Moves every device on, for times without a volume to poll. Returns whether anything
    /// happened.
    pub fn poll(&self, now: Timestamp) -> bool {
        self.0.borrow_mut().poll(now, None)
    }

    /// Whether nothing is in flight, stores into the cache included: the devices may be closed.
    pub fn is_idle(&self) -> bool {
        self.0.borrow().is_idle()
    }

    /// When somebody has to poll at the latest, even if no device has anything to say.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.0.borrow().cache.next_deadline()
    }
}

/// Requests of a volume that are looked up together.
const ARRIVED_MAX: usize = 16;

/// One cached volume.
///
/// Its polls move the cache device and its own origin on: every volume is to be polled.
///
/// What is submitted is taken into the cache with the next poll, or when several requests have
/// come together, so that memory which the lookups need is on its way for all of them at once.
pub struct CachedVolume<Origin, CacheDevice> {
    engine: CacheEngine<Origin, CacheDevice>,
    id: VolumeId,
    /// At most [`ARRIVED_MAX`], in order.
    arrived: VecDeque<Request>,
}

impl<Origin: BlockQueue, CacheDevice: BlockQueue> CachedVolume<Origin, CacheDevice> {
    /// The engine that it belongs to.
    pub fn engine(&self) -> &CacheEngine<Origin, CacheDevice> {
        &self.engine
    }

    /// Its number in the cache.
    pub fn id(&self) -> VolumeId {
        self.id
    }

    /// Counters since it was added.
    pub fn statistics(&self) -> Statistics {
        self.engine.cache().statistics(self.id).unwrap_or_default()
    }

    /// Changes the mode for requests that start from now on.
    pub fn set_mode(&self, mode: CacheMode) {
        self.engine.change(|cache| cache.set_mode(self.id, mode));
    }

    /// See [`Cache::fence`].
    pub fn fence(&self) {
        self.engine.change(|cache| cache.fence(self.id));
    }

    /// See [`Cache::invalidate`].
    ///
    /// # Errors
    /// When the volume has been removed.
    pub fn invalidate(&self, extent: Extent) -> Result<Ticket, DeviceError> {
        self.engine.change(|cache| cache.invalidate(self.id, extent))
    }

    /// Whether nothing of the engine is in flight.
    pub fn is_idle(&self) -> bool {
        self.arrived.is_empty() && self.engine.is_idle()
    }

    /// Takes the volume out of the cache; gives its origin's queue back.
    ///
    /// # Errors
    /// When requests of it are in flight; the volume is as it was then.
    pub fn remove(self) -> Result<Origin, (Self, DeviceError)> {
        if !self.arrived.is_empty() {
            let error = DeviceError::new(format!("volume {}: requests are in flight", self.id.0));
            return Err((self, error));
        }
        let removed = self.engine.remove_volume(self.id);
        removed.map_err(|error| (self, error))
    }
}

impl<Origin: BlockQueue, CacheDevice: BlockQueue> BlockQueue for CachedVolume<Origin, CacheDevice> {
    fn geometry(&self) -> Geometry {
        self.engine.cache().geometry(self.id).expect("a volume of this engine")
    }

    fn submit(&mut self, request: Request) -> Result<(), Request> {
        let mut engine = self.engine.0.borrow_mut();
        if !engine.cache.has_room_beside(self.arrived.len()) || self.arrived.len() == ARRIVED_MAX {
            return Err(request);
        }
        engine.cache.prefetch(self.id, request.extent);
        self.arrived.push_back(request);
        if self.arrived.len() == ARRIVED_MAX {
            engine.take_in(self.id, &mut self.arrived);
        }
        Ok(())
    }

    fn poll(&mut self, now: Timestamp, completions: &mut Vec<Completion>) -> bool {
        let mut engine = self.engine.0.borrow_mut();
        engine.now = now;
        let mut progress = engine.take_in(self.id, &mut self.arrived);
        progress |= engine.poll(now, Some(self.id));
        let replies = &mut side(&mut engine.sides, self.id).replies;
        progress |= !replies.is_empty();
        completions.append(replies);
        progress
    }

    fn in_flight(&self) -> usize {
        let engine = self.engine.0.borrow();
        let replies = engine.sides[usize::from(self.id.0)].as_ref();
        self.arrived.len()
            + engine.cache.in_flight_of(self.id)
            + replies.map_or(0, |side| side.replies.len())
    }
}
