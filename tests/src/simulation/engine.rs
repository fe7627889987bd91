//! The engine as the simulation sees it: start, submit, poll, and a few switches.
//!
//! Every volume has an origin of its own; all share one cache. Volumes come and go, other cores
//! may serve hits of theirs in place, and the cache device may be replaced.
//!
//! After a crash the engine starts on the devices as they were left, as warm as it dares: its
//! origins are the same ones and nobody else wrote to them, which is what the host's record says.
//!
//! Absent: whose word that is (identity and generations have tests of their own).

use std::rc::Rc;

use block_io::sim::{DiskFaults, Random, SimDisk, SimQueue, Timer, World};
use block_io::{
    BlockDevice, BlockQueue, BufferPool, Completion, DeviceError, Extent, Request, RequestId,
    Timestamp,
};
use cache_engine::cache::cipher::{LineCipher, VolumeKey};
use cache_engine::cache::metadata::probe::Probe;
use cache_engine::cache::metadata::{
    FormatId, IdentityKind, OriginIdentity, Superblock, VolumeRecord,
};
use cache_engine::cache::{Cache, CacheMode, Event, Ticket, VolumeSettings};
use cache_engine::volume::{CacheEngine, CachedVolume, cache_device};

use super::counts::Counts;
use super::crash_images::{Recording, RecordingQueue};
use super::guest::{GuestCore, GuestCounts};
use super::host::Host;
use super::setup::{SETTINGS, Setup, any_mode};
use super::{host_clock::HostClock, lease::was_leased};

pub(super) type Queue = RecordingQueue<SimQueue>;

/// The engine, running.
pub(super) struct Engine {
    pub(super) engine: CacheEngine<SimQueue, Queue>,
    /// Absent while it is taken out.
    pub(super) volumes: Vec<Option<CachedVolume<SimQueue, Queue>>>,
    /// Other cores, one a volume.
    guests: Vec<Option<GuestCore>>,
    completions: Vec<Completion>,
    world: World,
    host: Rc<Host>,
    setup: Setup,
    pool: BufferPool,
    timer: Option<Timer>,
    pub(super) clock: HostClock,
    loaded: bool,
    degraded: bool,
    impatient: bool,
    stopped: bool,
    replaced: bool,
    done: Vec<Ticket>,
    /// Of volumes that were taken out.
    past: Counts,
    guest_counts: GuestCounts,
}

impl Engine {
    /// Starts on the devices as they are. What is written to the cache device goes into
    /// `recording`.
    pub(super) fn start(
        world: &World,
        setup: &Setup,
        origins: &[SimDisk],
        cache_device: &SimDisk,
        (host, pool): (&Rc<Host>, &BufferPool),
        recording: Option<&Recording>,
    ) -> Self {
        let mut queue = cache_device.open_queue(world, setup.cache_depth).expect("of this world");
        let (id, fresh) = host.next_ids();
        // A device that can't be read at all is no cache; what goes wrong later is the matter.
        let faults = cache_device.faults();
        cache_device.set_faults(DiskFaults::default());
        let superblock = open_or_format(world, setup, &mut queue, pool, (host, id));
        let queue = match recording {
            Some(recording) => recording.queue(queue),
            None => RecordingQueue::silent(queue),
        };
        let transfer_max = queue.geometry().transfer_max;
        let cache =
            Cache::open(setup.config.clone(), superblock, transfer_max, fresh, pool.clone())
                .expect("the sizes are possible");
        cache_device.set_faults(faults);
        let mut engine = Self {
            volumes: origins.iter().map(|_| None).collect(),
            guests: origins.iter().map(|_| None).collect(),
            engine: CacheEngine::new(cache, queue),
            completions: Vec::new(),
            world: world.clone(),
            host: Rc::clone(host),
            setup: setup.clone(),
            pool: pool.clone(),
            timer: None,
            clock: HostClock::default(),
            loaded: false,
            degraded: false,
            impatient: false,
            stopped: false,
            replaced: false,
            done: Vec::new(),
            past: Counts::default(),
            guest_counts: GuestCounts::default(),
        };
        for (number, origin) in origins.iter().enumerate() {
            // Whether its record becomes durable before the next crash makes no difference here:
            // the range is the same then.
            engine.add(number, origin);
        }
        engine
    }

    /// Lets time pass until everything of an earlier run is loaded.
    pub(super) fn load(&mut self) {
        let mut done = Vec::new();
        while !self.loaded {
            if !self.poll(self.world.now(), &mut done) {
                assert!(self.loaded || self.world.advance(), "a start that never ends");
            }
        }
        assert!(done.is_empty(), "nobody has asked for anything");
    }

    fn hear(&mut self) {
        while let Some(event) = self.engine.next_event() {
            match event {
                Event::Loaded => self.loaded = true,
                Event::Degraded(why) => {
                    self.degraded = true;
                    self.impatient |= why.contains("does not answer");
                }
                Event::Disown => {
                    self.host.disown();
                    self.engine.change(Cache::disowned);
                }
                Event::Done(ticket) => self.done.push(ticket),
                Event::Stopped => self.stopped = true,
                Event::Replaced => self.take_new_device(),
                Event::LeaseHeld(_) | Event::LeaseOver(_) | Event::AnotherOrigin(_) => {}
            }
        }
        let deadline = self.clock.deadline(self.engine.next_deadline(), self.world.now());
        if deadline != self.timer.as_ref().map(Timer::deadline) {
            self.timer = deadline.map(|due| self.world.timer(due));
        }
    }

    /// Hands a client's request in, or back when there is no room.
    pub(super) fn submit(&mut self, volume: usize, request: Request) -> Result<(), Request> {
        let request = match &mut self.guests[volume] {
            Some(guest) => match guest.try_hit(request) {
                Ok(()) => return Ok(()),
                Err(request) => request,
            },
            None => request,
        };
        self.volumes[volume].as_mut().expect("nobody asks for it while it is out").submit(request)
    }

    /// Appends what completed, with its volume; whether anything moved.
    pub(super) fn poll(&mut self, now: Timestamp, done: &mut Vec<(usize, Completion)>) -> bool {
        let mut progress = false;
        if self.volumes.iter().all(Option::is_none) {
            progress |= self.engine.poll(now);
        }
        for (number, volume) in self.volumes.iter_mut().enumerate() {
            let Some(volume) = volume else { continue };
            if let Some(guest) = &mut self.guests[number] {
                progress |= guest.poll(now, volume, &mut self.completions, &mut self.guest_counts);
            }
            progress |= volume.poll(now, &mut self.completions);
            if !self.completions.is_empty() {
                done.extend(self.completions.drain(..).map(|completion| (number, completion)));
            }
        }
        self.hear();
        progress
    }

    /// Clients' requests of a volume in flight.
    pub(super) fn in_flight_of(&self, volume: usize) -> usize {
        let own = self.volumes[volume].as_ref().map_or(0, BlockQueue::in_flight);
        own + self.guests[volume].as_ref().map_or(0, GuestCore::in_flight)
    }

    /// Clients' requests in flight.
    pub(super) fn in_flight(&self) -> usize {
        (0..self.volumes.len()).map(|volume| self.in_flight_of(volume)).sum()
    }

    /// Whether nothing is in flight, the engine's own requests included.
    pub(super) fn is_idle(&self) -> bool {
        self.engine.is_idle() && self.guests.iter().flatten().all(|guest| guest.in_flight() == 0)
    }

    /// What is in flight, for a message.
    pub(super) fn state(&self) -> String {
        let cache = self.engine.cache();
        let (requests, stores) = (cache.in_flight(), cache.fills_in_flight());
        format!("{requests} requests, {stores} stores, {:?}", cache.persistence_statistics())
    }

    /// No write of the past can reach the origins any more.
    pub(super) fn fence(&mut self) {
        self.volumes.iter().flatten().for_each(CachedVolume::fence);
    }

    /// The same for one origin.
    pub(super) fn fence_one(&mut self, volume: usize) {
        self.volumes[volume].iter().for_each(CachedVolume::fence);
    }

    /// Another mode from now on, any.
    pub(super) fn change_mode(&mut self, random: &mut Random) {
        let volume = random.below(self.volumes.len() as u64) as usize;
        let mode = any_mode(random);
        self.volumes[volume].iter().for_each(|volume| volume.set_mode(mode));
    }

    /// Another value of a setting from now on, where it fits the others.
    pub(super) fn change_policy(&mut self, random: &mut Random) {
        let (name, values) = *random.choose(SETTINGS);
        let value = *random.choose::<&str>(values);
        self.engine.change(|cache| {
            let mut settings = cache.policy().clone();
            if settings.change(name, value).is_ok() {
                // A share may be more than so small a cache allows; then nothing changes.
                let _ = cache.set_policy(&settings);
            }
        });
    }

    /// Lines go only for others from now on.
    pub(super) fn purge_nothing(&mut self) {
        self.set_policy("purge", "never");
    }

    /// Another value of a setting that fits any cache.
    pub(super) fn set_policy(&mut self, name: &str, value: &str) {
        self.engine.change(|cache| {
            let mut settings = cache.policy().clone();
            settings.change(name, value).expect("a value that there is");
            cache.set_policy(&settings).expect("it fits");
        });
    }

    /// Somebody else has written to the origin there.
    pub(super) fn invalidate(&mut self, volume: usize, extent: Extent) -> Ticket {
        let volume = self.volumes[volume].as_ref().expect("it is there");
        volume.invalidate(extent).expect("it is there")
    }

    /// The origin has another size.
    pub(super) fn resize(&mut self, volume: usize, capacity: u64) -> Ticket {
        let id = self.volumes[volume].as_ref().expect("it is there").id();
        self.engine.change(|cache| cache.resize_volume(id, capacity)).expect("within its room")
    }

    /// Whether what was asked for is done, durably. True once.
    pub(super) fn take_done(&mut self, ticket: Ticket) -> bool {
        let at = self.done.iter().position(|done| *done == ticket);
        at.map(|at| self.done.swap_remove(at)).is_some()
    }

    /// No request is taken any more; the rest takes a while.
    pub(super) fn stop(&mut self) {
        self.engine.change(Cache::stop);
    }

    /// Whether the devices may be closed.
    pub(super) fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// Whether the cache was given up.
    pub(super) fn is_degraded(&self) -> bool {
        self.degraded
    }

    /// Whether all of an earlier run is loaded, and the device says that it is in use.
    pub(super) fn is_loaded(&self) -> bool {
        self.loaded
    }

    /// The mode in which everything is cached, on all volumes.
    pub(super) fn cache_everything(&mut self) {
        let volumes = self.volumes.iter().flatten();
        volumes.for_each(|volume| volume.set_mode(CacheMode::WriteThrough));
    }

    /// Changes that wait for a place in the activity log, and places that are taken.
    pub(super) fn waiting(&self) -> (u64, u64) {
        let records = self.engine.cache().persistence_statistics();
        records.map_or((0, 0), |records| (records.waiting, records.active_extents))
    }

    /// What guests have done.
    pub(super) fn guest_counts(&self) -> GuestCounts {
        self.guest_counts
    }

    /// What has been done since the start.
    pub(super) fn counts(&self) -> Counts {
        let (degraded, impatient) = (u64::from(self.degraded), u64::from(self.impatient));
        let mut counts = Counts { degraded, impatient, ..self.past };
        for statistics in self.volumes.iter().flatten().map(CachedVolume::statistics) {
            counts.add(Counts::from(statistics));
        }
        if self.setup.encrypted {
            counts.encrypted_hits = counts.read_hits;
        }
        if let Some(records) = self.engine.cache().persistence_statistics() {
            counts.of_records(&records);
        }
        counts
    }
}

/// Volumes that come and go, their guests, and another cache device.
impl Engine {
    /// Adds a volume, as warm as the cache device's record of it says. The ticket is for when the
    /// record is durable.
    pub(super) fn add(&mut self, number: usize, origin: &SimDisk) -> Ticket {
        let known = self.record_of(number).map(|record| record.id);
        let queue = origin.open_queue(&self.world, self.setup.origin_depth).expect("of this world");
        let origin = self.flushed(origin, queue);
        let cipher = self.setup.encrypted.then(|| cipher(number as u8));
        let (name, mode, geometry) = (name(number), self.setup.mode, origin.geometry());
        let settings = VolumeSettings { name, geometry, mode, known, cipher };
        self.volumes[number] = Some(self.engine.add_volume(origin, settings).expect("room"));
        self.record(number)
    }

    /// What was written before is durable, as whoever attaches an origin sees to.
    fn flushed(&self, origin: &SimDisk, mut queue: SimQueue) -> SimQueue {
        if queue.geometry().volatile_cache {
            let faults = origin.faults();
            origin.set_faults(DiskFaults::default());
            queue.submit(Request::flush(RequestId(0))).expect("nothing is in flight");
            let mut done = Vec::new();
            while !queue.poll(self.world.now(), &mut done) {
                self.world.advance();
            }
            origin.set_faults(faults);
        }
        queue
    }

    /// Whether there is a record of a volume.
    pub(super) fn knows(&self, number: usize) -> bool {
        self.record_of(number).is_some()
    }

    fn record_of(&self, number: usize) -> Option<VolumeRecord> {
        let cache = self.engine.cache();
        cache.superblock().and_then(|superblock| superblock.volume_named(&name(number))).cloned()
    }

    fn record(&self, number: usize) -> Ticket {
        let volume = self.volumes[number].as_ref().expect("it was just added");
        let identity = OriginIdentity::new(IdentityKind::Assigned, name(number)).expect("a text");
        let record = self.engine.cache().volume_record(volume.id(), identity).expect("added");
        self.engine.change(|cache| cache.record_volume(record)).expect("room for a few")
    }

    /// Takes a volume out of which nothing is in flight. False when a flush of its own is.
    pub(super) fn remove(&mut self, number: usize) -> bool {
        let Some(volume) = self.volumes[number].take() else { return true };
        let statistics = volume.statistics();
        match volume.remove() {
            Ok(_) => {
                self.past.add(Counts::from(statistics));
                self.guests[number] = None;
                true
            }
            Err((volume, _)) => {
                self.volumes[number] = Some(volume);
                false
            }
        }
    }

    /// Gives up what is cached of a volume that is not there. None when nothing is known of it.
    pub(super) fn forget(&mut self, number: usize) -> Option<Ticket> {
        let id = self.record_of(number)?.id;
        self.engine.change(|cache| cache.forget_volume(id)).ok()
    }

    /// Another core serves hits of the volume in place, on a queue of its own.
    pub(super) fn admit_guest(&mut self, number: usize, cache_device: &SimDisk) {
        let Some(volume) = &self.volumes[number] else { return };
        if self.guests[number].as_ref().is_some_and(|guest| guest.in_flight() > 0) {
            return;
        }
        let queue = cache_device.open_queue(&self.world, 16).expect("of this world");
        let id = volume.id();
        let guest = self.engine.change(|cache| cache.admit_guest(id)).expect("it is there");
        self.guests[number] =
            Some(GuestCore::new(guest, queue, id, self.clock.at(self.world.now())));
    }

    /// Stops using the cache device.
    pub(super) fn detach(&mut self) {
        self.engine.change(Cache::detach);
    }

    /// Whether the cache device may be taken away.
    pub(super) fn is_detached(&self) -> bool {
        self.engine.cache().is_detached()
    }

    /// Uses another cache device as soon as that can be.
    pub(super) fn replace(&mut self, cache_device: &SimDisk) {
        let depth = self.setup.cache_depth;
        let mut queue = cache_device.open_queue(&self.world, depth).expect("of this world");
        let (format_id, fresh) = self.host.next_ids();
        let superblock = format(&self.world, &self.setup, &mut queue, (&self.pool, format_id));
        let queue = RecordingQueue::silent(queue);
        self.engine.replace_device(queue, superblock, fresh).expect("of the same size");
    }

    /// Whether another cache device has come into use. True once.
    pub(super) fn take_replaced(&mut self) -> bool {
        std::mem::take(&mut self.replaced)
    }

    fn take_new_device(&mut self) {
        self.replaced = true;
        (self.degraded, self.loaded) = (false, false);
        self.host.believe();
    }
}

fn cipher(number: u8) -> LineCipher {
    let bytes = std::array::from_fn(|at| number.wrapping_mul(31).wrapping_add(at as u8));
    LineCipher::new(&VolumeKey::new(&bytes).expect("its halves differ"))
}

fn name(number: usize) -> String {
    format!("volume {number}")
}

fn open_or_format(
    world: &World,
    setup: &Setup,
    queue: &mut SimQueue,
    pool: &BufferPool,
    (host, format_id): (&Host, FormatId),
) -> Superblock {
    let probe = cache_device::open(queue, pool, turn(world)).expect("a sound device can be read");
    match probe {
        Probe::Ours(superblock) if !host.is_disowned() && !was_leased(&superblock) => *superblock,
        _ => {
            host.believe();
            format(world, setup, queue, (pool, format_id))
        }
    }
}

fn format(
    world: &World,
    setup: &Setup,
    queue: &mut SimQueue,
    (pool, format_id): (&BufferPool, FormatId),
) -> Superblock {
    let (line_size, force_format) = (setup.config.line_size, true);
    let options = cache_device::FormatOptions { line_size, force_format, format_id };
    let formatted = cache_device::format(queue, pool, options, turn(world));
    formatted.expect("a sound device can be written")
}

fn turn(world: &World) -> impl FnMut() -> Result<Timestamp, DeviceError> {
    || {
        world.advance();
        Ok(world.now())
    }
}
