//! The engine as the simulation sees it: start, submit, poll, and a few switches.
//!
//! This is the one file of the simulation that names the engine's types. What is drawn here is
//! what an operator would set. Every volume has an origin of its own; all share one cache.
//!
//! After a crash the engine starts on the devices as they were left, as warm as it dares: its
//! origins are the same ones and nobody else wrote to them, which is what the host's record says.
//!
//! Absent: whose word that is (identity and generations have tests of their own).

use std::cell::Cell;
use std::rc::Rc;

use block_io::sim::{DiskFaults, Random, SimDisk, SimQueue, Timer, World};
use block_io::{BlockDevice, BlockQueue, BufferPool, Completion, Extent, Request, Timestamp};
use cache_engine::cache::cipher::{LineCipher, VolumeKey};
use cache_engine::cache::metadata::probe::Probe;
use cache_engine::cache::metadata::{
    FormatId, Generation, IdentityKind, Layout, OriginIdentity, Superblock, VolumeRecord,
};
use cache_engine::cache::policy::PolicySettings;
use cache_engine::cache::policy::settings::{Admission, FillWidth, SequentialCutoff};
use cache_engine::cache::{
    Cache, CacheConfig, CacheMode, Event, LeaseStanding, LineSize, Statistics, Ticket,
    Verification, VolumeSettings,
};
use cache_engine::volume::{CacheEngine, CachedVolume, cache_device};

use super::crash_images::{Recording, RecordingQueue};
use super::host_clock::HostClock;

/// How an engine is set up, the same before and after a crash.
#[derive(Clone, Debug)]
pub(super) struct Setup {
    config: CacheConfig,
    mode: CacheMode,
    /// What is on the cache device is encrypted.
    encrypted: bool,
    /// Bytes of the cache device.
    device_bytes: u64,
    /// Depths of the devices' queues, shallow ones too, so that refusals happen.
    origin_depth: usize,
    cache_depth: usize,
}

/// What the host knows outside the cache device.
#[derive(Debug, Default)]
pub(super) struct Host {
    starts: Cell<u8>,
    /// The cache device is not to be believed.
    disowned: Cell<bool>,
}

impl Host {
    /// The origin is not what the cache device knows: it is not to be believed.
    pub(super) fn disown(&self) {
        self.disowned.set(true);
    }
}

/// Stores in flight at the most in the setup for measuring latencies.
pub(super) const ROOMY_FILLS: usize = 64;

/// What an engine has done, for saying whether a run met what it is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Reads answered by the cache.
    pub read_hits: u64,
    /// Reads answered in part by the cache.
    pub read_partial_hits: u64,
    /// Lines that made way for others.
    pub evictions: u64,
    /// Writes stored in the cache.
    pub write_fills: u64,
    /// Hits in place that had to start again.
    pub hit_retries: u64,
    /// Lines of before a crash that were served after it.
    pub lines_verified: u64,
    /// Lines that were not what had been stored.
    pub checksum_mismatches: u64,
    /// Engines that gave their cache up.
    pub degraded: u64,
    /// Hits on encrypted volumes.
    pub encrypted_hits: u64,
    /// Extents whose place in the activity log went to others.
    pub retired: u64,
    /// Changes that waited for their extent to be named on the device.
    pub waits: u64,
    /// Times that the journal was worked into the line table.
    pub folds: u64,
    /// Requests that were part of a sequential run and not stored.
    pub bypasses: u64,
}

impl Setup {
    /// Any setup, for origins whose lost writes may land late or not.
    pub(super) fn draw(random: &mut Random, late_writes: bool) -> Self {
        // Mostly small lines: the same bytes make more of them, and more happens to each.
        let line_size = match random.below(3) {
            0 => *random.choose(&LineSize::ALL),
            _ => LineSize::ALL[0],
        };
        let sets = random.range(1..=if line_size == LineSize::ALL[0] { 8 } else { 2 });
        let policy = PolicySettings {
            admission: *random.choose(&[
                Admission::Always,
                Admission::Always,
                Admission::SecondMiss,
            ]),
            fill_width: *random.choose(&[
                FillWidth::Requested,
                FillWidth::Line,
                FillWidth::Adaptive,
            ]),
            sequential_cutoff: *random
                .choose(&[SequentialCutoff::NEVER, SequentialCutoff::default()]),
            ..PolicySettings::default()
        };
        let config = CacheConfig {
            line_size,
            verification: *random.choose(&Verification::ALL),
            requests_max: random.range(1..=64) as usize,
            fills_max: random.range(1..=64) as usize,
            miss_ratio_samples: 64,
            errors_max: *random.choose(&[u32::MAX, u32::MAX, 20, 2]),
            // What is in doubt keeps its extent until it is fenced, for which the clients of
            // a run may not wait.
            extents_per_page: match late_writes {
                true => usize::MAX,
                false => *random.choose(&[3, 4, 8, usize::MAX]),
            },
            policy,
        };
        Self {
            device_bytes: device_bytes(line_size, sets),
            config,
            mode: any_mode(random),
            encrypted: random.chance(300),
            origin_depth: random.range(1..=64) as usize,
            cache_depth: random.range(1..=64) as usize,
        }
    }

    /// A setup for measuring latencies: nothing is scarce but the lines and the fills.
    pub(super) fn roomy() -> Self {
        let policy =
            PolicySettings { fill_width: FillWidth::Requested, ..PolicySettings::default() };
        let config = CacheConfig { fills_max: ROOMY_FILLS, policy, ..CacheConfig::default() };
        let device_bytes = device_bytes(config.line_size, 16);
        let mode = CacheMode::WriteThrough;
        Self { config, mode, encrypted: false, device_bytes, origin_depth: 256, cache_depth: 256 }
    }

    /// A setup for crash images: the fewest lines, so that slots change hands.
    pub(super) fn cramped() -> Self {
        let config = CacheConfig { line_size: LineSize::ALL[0], ..CacheConfig::default() };
        let device_bytes = device_bytes(config.line_size, 1);
        let mode = CacheMode::WriteThrough;
        Self { config, mode, encrypted: false, device_bytes, origin_depth: 64, cache_depth: 64 }
    }

    /// Where the lines are on the cache device.
    pub(super) fn data_extent(&self) -> Extent {
        let layout = Layout::for_device(self.device_bytes, self.config.line_size);
        let layout = layout.expect("worked out from it");
        Extent::new(layout.data_offset, layout.data_length())
    }

    /// Bytes that the lines take.
    pub(super) fn cached_bytes(&self) -> u64 {
        let layout = Layout::for_device(self.device_bytes, self.config.line_size);
        layout.expect("worked out from it").data_length()
    }

    /// Bytes of the cache device.
    pub(super) fn cache_device_bytes(&self) -> u64 {
        self.device_bytes
    }
}

/// Bytes of a device with so many sets: what is no data is the same for all small ones.
fn device_bytes(line_size: LineSize, sets: u64) -> u64 {
    let data = sets * 16 * line_size.bytes();
    let fits = |bytes: &u64| {
        Layout::for_device(*bytes, line_size).is_ok_and(|layout| layout.data_length() >= data)
    };
    (data..).step_by(16 << 10).find(fits).expect("some size is large enough")
}

/// Mostly the one in which most can go wrong.
fn any_mode(random: &mut Random) -> CacheMode {
    match random.below(2) {
        0 => CacheMode::WriteThrough,
        _ => *random.choose(&CacheMode::ALL),
    }
}

type Queue = RecordingQueue<SimQueue>;

/// The engine, running.
pub(super) struct Engine {
    engine: CacheEngine<SimQueue, Queue>,
    volumes: Vec<CachedVolume<SimQueue, Queue>>,
    completions: Vec<Completion>,
    world: World,
    host: Rc<Host>,
    timer: Option<Timer>,
    clock: HostClock,
    encrypted: bool,
    loaded: bool,
    degraded: bool,
    stopped: bool,
    done: Vec<Ticket>,
}

/// Values of settings, any of which may be chosen at any time.
const SETTINGS: &[(&str, &[&str])] = &[
    ("admission", &["always", "always", "second-miss", "never"]),
    ("sequential-cutoff", &["never", "16KiB", "1MiB:when-full"]),
    ("fill-width", &["requested", "line", "adaptive"]),
    ("purge", &["never", "high=60%,low=30%,every=1s"]),
    ("pin", &["none", "volume=volume 0,range=0-64k"]),
    ("volume", &["none", "volume=volume 0,max=30%", "volume=volume 1,min=30%"]),
    ("class", &["none", "class=small,size=..4k,max=40%"]),
];

impl Engine {
    /// Starts on the devices as they are. What is written to the cache device goes into
    /// `recording`.
    pub(super) fn start(
        world: &World,
        setup: &Setup,
        origins: &[SimDisk],
        cache_device: &SimDisk,
        host: &Rc<Host>,
        recording: Option<&Recording>,
    ) -> Self {
        let mut queue = cache_device.open_queue(world, setup.cache_depth).expect("of this world");
        let pool = BufferPool::heap();
        host.starts.set(host.starts.get() + 1);
        let id = FormatId([host.starts.get(); 16]);
        // A device that can't be read at all is no cache; what goes wrong later is the matter.
        let faults = cache_device.faults();
        cache_device.set_faults(DiskFaults::default());
        let superblock = open_or_format(world, setup, &mut queue, &pool, (host, id));
        let queue = match recording {
            Some(recording) => recording.queue(queue),
            None => RecordingQueue::silent(queue),
        };
        let known: Vec<_> = (0..origins.len())
            .map(|number| superblock.volume_named(&name(number)).map(|record| record.id))
            .collect();
        let fresh = FormatId([host.starts.get() | 0x80; 16]);
        let transfer_max = queue.geometry().transfer_max;
        let cache = Cache::open(setup.config.clone(), superblock, transfer_max, fresh, pool)
            .expect("the sizes are possible");
        cache_device.set_faults(faults);
        let engine = CacheEngine::new(cache, queue);
        let volumes = origins.iter().zip(known).enumerate().map(|(number, (origin, known))| {
            let origin = origin.open_queue(world, setup.origin_depth).expect("of this world");
            let geometry = origin.geometry();
            let (name, mode) = (name(number), setup.mode);
            let cipher = setup.encrypted.then(|| cipher(number as u8));
            let settings = VolumeSettings { name, geometry, mode, known, cipher };
            let volume = engine.add_volume(origin, settings).expect("room");
            record(&engine, &volume, number);
            volume
        });
        Self {
            volumes: volumes.collect(),
            engine,
            completions: Vec::new(),
            world: world.clone(),
            host: Rc::clone(host),
            timer: None,
            clock: HostClock::default(),
            encrypted: setup.encrypted,
            loaded: false,
            degraded: false,
            stopped: false,
            done: Vec::new(),
        }
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
                Event::Degraded(_) => self.degraded = true,
                Event::Disown => {
                    self.host.disowned.set(true);
                    self.engine.change(Cache::disowned);
                }
                Event::Done(ticket) => self.done.push(ticket),
                Event::Stopped => self.stopped = true,
                Event::Replaced | Event::LeaseHeld(_) | Event::LeaseOver(_) => {}
            }
        }
        let now = self.clock.at(self.world.now());
        let due = self.engine.next_deadline().filter(|due| *due > now);
        let deadline = due.map(|due| self.clock.when(due));
        if deadline != self.timer.as_ref().map(Timer::deadline) {
            self.timer = deadline.map(|due| self.world.timer(due));
        }
    }

    /// Goes by this clock; whoever polls gives its time.
    pub(super) fn set_clock(&mut self, clock: HostClock) {
        self.clock = clock;
    }

    /// The first volume's origin is this host's alone until then.
    pub(super) fn set_lease(&mut self, now: Timestamp, until: Timestamp) {
        let id = self.volumes[0].id();
        let set = self.engine.change(|cache| cache.set_lease(now, id, Some(until)));
        set.expect("it is there");
    }

    /// Whether the host takes the first volume's origin for its own.
    pub(super) fn is_leased(&self) -> bool {
        let standing = self.engine.cache().lease(self.volumes[0].id());
        matches!(standing, Some(LeaseStanding::Held(_)))
    }

    /// Hands a client's request in, or back when there is no room.
    pub(super) fn submit(&mut self, volume: usize, request: Request) -> Result<(), Request> {
        self.volumes[volume].submit(request)
    }

    /// Appends what completed, with its volume; whether anything moved.
    pub(super) fn poll(&mut self, now: Timestamp, done: &mut Vec<(usize, Completion)>) -> bool {
        let mut progress = false;
        for (number, volume) in self.volumes.iter_mut().enumerate() {
            progress |= volume.poll(now, &mut self.completions);
            done.extend(self.completions.drain(..).map(|completion| (number, completion)));
        }
        self.hear();
        progress
    }

    /// Clients' requests in flight.
    pub(super) fn in_flight(&self) -> usize {
        self.volumes.iter().map(BlockQueue::in_flight).sum()
    }

    /// Whether nothing is in flight, the engine's own requests included.
    pub(super) fn is_idle(&self) -> bool {
        self.engine.is_idle()
    }

    /// No write of the past can reach the origins any more.
    pub(super) fn fence(&mut self) {
        self.volumes.iter().for_each(CachedVolume::fence);
    }

    /// Another mode from now on, any.
    pub(super) fn change_mode(&mut self, random: &mut Random) {
        let volume = random.below(self.volumes.len() as u64) as usize;
        self.volumes[volume].set_mode(any_mode(random));
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
        self.engine.change(|cache| {
            let mut settings = cache.policy().clone();
            settings.change("purge", "never").expect("a value that there is");
            cache.set_policy(&settings).expect("less than was set");
        });
    }

    /// Somebody else has written to the origin there.
    pub(super) fn invalidate(&mut self, volume: usize, extent: Extent) -> Ticket {
        self.volumes[volume].invalidate(extent).expect("it is there")
    }

    /// The origin has another size.
    pub(super) fn resize(&mut self, volume: usize, capacity: u64) -> Ticket {
        let id = self.volumes[volume].id();
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
        self.volumes.iter().for_each(|volume| volume.set_mode(CacheMode::WriteThrough));
    }

    /// What has been done since the start.
    pub(super) fn counts(&self) -> Counts {
        let mut counts = Counts { degraded: u64::from(self.degraded), ..Counts::default() };
        for statistics in self.volumes.iter().map(CachedVolume::statistics) {
            counts.add(Counts::from(statistics));
        }
        if self.encrypted {
            counts.encrypted_hits = counts.read_hits;
        }
        if let Some(records) = self.engine.cache().persistence_statistics() {
            counts.retired = records.retired;
            counts.waits = records.waits;
            counts.folds = records.folds;
        }
        counts
    }
}

impl From<Statistics> for Counts {
    fn from(statistics: Statistics) -> Self {
        let Statistics { read_hits, read_partial_hits, evictions, write_fills, .. } = statistics;
        let Statistics { hit_retries, lines_verified, checksum_mismatches, .. } = statistics;
        let Statistics { sequential_bypasses, .. } = statistics;
        Self {
            read_hits,
            read_partial_hits,
            evictions,
            write_fills,
            hit_retries,
            lines_verified,
            checksum_mismatches,
            bypasses: sequential_bypasses,
            ..Self::default()
        }
    }
}

impl Counts {
    /// Adds another engine's.
    pub(super) fn add(&mut self, other: Self) {
        self.read_hits += other.read_hits;
        self.read_partial_hits += other.read_partial_hits;
        self.evictions += other.evictions;
        self.write_fills += other.write_fills;
        self.hit_retries += other.hit_retries;
        self.lines_verified += other.lines_verified;
        self.checksum_mismatches += other.checksum_mismatches;
        self.degraded += other.degraded;
        self.encrypted_hits += other.encrypted_hits;
        self.retired += other.retired;
        self.waits += other.waits;
        self.folds += other.folds;
        self.bypasses += other.bypasses;
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
    let turn = || {
        world.advance();
        Ok(world.now())
    };
    let probe = cache_device::open(queue, pool, turn).expect("a sound device can be read");
    match probe {
        Probe::Ours(superblock) if !host.disowned.get() && !is_leased(&superblock) => *superblock,
        _ => {
            host.disowned.set(false);
            let (line_size, force_format) = (setup.config.line_size, true);
            let options = cache_device::FormatOptions { line_size, force_format, format_id };
            cache_device::format(queue, pool, options, turn).expect("a sound device can be written")
        }
    }
}

/// Whether the run before ended under a lease that was not given back: a start is cold then.
fn is_leased(superblock: &Superblock) -> bool {
    superblock.volumes().iter().any(|volume| volume.flags & VolumeRecord::LEASED != 0)
}

/// Records a volume. Whether that has become durable before the next crash makes no difference
/// here: the range is the same.
fn record(
    engine: &CacheEngine<SimQueue, Queue>,
    volume: &CachedVolume<SimQueue, Queue>,
    number: usize,
) {
    let span = engine.cache().span(volume.id()).expect("it has one");
    let identity = OriginIdentity::new(IdentityKind::Assigned, name(number)).expect("a text");
    let record = VolumeRecord {
        id: volume.id(),
        name: name(number),
        identity,
        size: volume.geometry().capacity,
        base: span.base,
        span: span.length,
        generation: Generation::default(),
        attach_epoch: 0,
        key_check: [0; 16],
        flags: 0,
    };
    engine.change(|cache| cache.record_volume(record)).expect("room for a few");
}
