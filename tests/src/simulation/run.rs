//! One run: a scenario and a seed, from an empty cache to the last check.
//!
//! ```text
//!   for each request:  upset?  crash?  ──▶ submit ──▶ poll until idle ──▶ let time pass?
//!   at the end:        faults off, everything read twice: history, origin and engine agree
//! ```
//! It panics when anything is not as it must be: what is wrong may be in the engine, which panics
//! too. Whoever runs many catches it.

use std::rc::Rc;
use std::time::Duration;

use block_io::sim::{
    Crash, DiskFaults, History, Random, SimDisk, VolumeRules, World, fill_pattern,
};
use block_io::{Buffer, BufferPool, Completion, Extent, Geometry, IoError, Request, RequestId};

use super::changes::{AnothersWrite, Shrunk};
use super::engine::Engine;
use super::host::Host;
use super::lease::run_leases;
use super::membership::{Member, Replacement};
use super::outages::Outage;
use super::outcome::Outcome;
use super::places::Places;
use super::scenario::Scenario;
use super::setup::Setup;
use super::trace::Trace;

/// Bytes of each read of the last check: not in step with lines of any size.
const CHECKED_AT_ONCE: usize = 96 << 10;

/// Turns of the world in which no device has anything to say before it is taken for stuck: more
/// than any timer of the engine waits.
const PATIENCE: u32 = 100_000;

/// How long the engine is left alone when no device has anything to say.
const UNATTENDED: Duration = Duration::from_micros(100);

/// Runs `seed` of `scenario` with `operations` requests and then the check of everything. Buffers
/// come from `pool`, which may be used again.
///
/// # Panics
/// When the engine answers what it must not, panics, or gets stuck.
pub fn run(
    scenario: &Scenario,
    seed: u64,
    operations: u64,
    pool: &BufferPool,
    trace: Option<&Trace>,
) -> Outcome {
    if scenario.leases {
        return run_leases(scenario, seed, operations, pool, trace);
    }
    Run::new(scenario, seed, pool, trace).run(operations)
}

pub(super) struct Run<'scenario> {
    pub(super) scenario: &'scenario Scenario,
    pub(super) trace: Option<&'scenario Trace>,
    pub(super) world: World,
    pub(super) random: Random,
    pub(super) pool: BufferPool,
    pub(super) origins: Vec<SimDisk>,
    pub(super) cache_device: SimDisk,
    pub(super) setup: Setup,
    pub(super) host: Rc<Host>,
    /// Absent only while it is dead.
    pub(super) engine: Option<Engine>,
    pub(super) history: History,
    /// Bytes of each volume.
    pub(super) capacities: Vec<u64>,
    /// Where clients go on each volume.
    pub(super) places: Vec<Places>,
    /// Volumes that are there, on their way, or not.
    pub(super) members: Vec<Member>,
    pub(super) outage: Option<Outage>,
    pub(super) replacement: Replacement,
    /// The cache device that is to take the place of this one.
    pub(super) new_device: Option<SimDisk>,
    /// The cache device before this one: guests may still read from it.
    pub(super) old_device: Option<SimDisk>,
    /// Lines that were verified before the last crash, for telling whether one was since.
    verified_before: Option<u64>,
    pub(super) depth: usize,
    pub(super) next: u64,
    pub(super) cache_gone: bool,
    /// The cache device may leave a request without any answer.
    cache_hangs: bool,
    pub(super) anothers: Vec<AnothersWrite>,
    pub(super) shrunk: Option<Shrunk>,
    /// A request may have met the end of a volume.
    pub(super) has_shrunk: bool,
    /// Turns of the world since a device had something to say.
    turns: u32,
    /// Where the last request ended.
    last: (usize, u64),
    pub(super) done: Vec<(usize, Completion)>,
    pub(super) outcome: Outcome,
}

/// Has the trace tell what the first devices do.
fn watch_all(trace: Option<&Trace>, cache_device: &SimDisk, origins: &[SimDisk]) {
    let Some(trace) = trace else { return };
    trace.watch("cache 0", cache_device);
    for (origin, number) in origins.iter().zip(0..) {
        trace.watch(&format!("origin {number}"), origin);
    }
}

impl<'scenario> Run<'scenario> {
    fn new(
        scenario: &'scenario Scenario,
        seed: u64,
        pool: &BufferPool,
        trace: Option<&'scenario Trace>,
    ) -> Self {
        let world = World::new(seed);
        let mut random = world.random("client");
        let setup = Setup::draw(&mut random, scenario);
        let volumes = *random.choose(scenario.volumes);
        let crashes = scenario.crashes > 0;
        let volatile = |random: &mut Random| crashes && random.coin();
        let cache_geometry = Geometry {
            volatile_cache: volatile(&mut random),
            ..Geometry::new(setup.cache_device_bytes())
        };
        let cache_device = SimDisk::new(&world, "cache 0", cache_geometry);
        cache_device.set_faults((scenario.cache_device)(&mut random));
        let cache_hangs = cache_device.faults().hang > 0;
        let places = draw_places(&mut random, scenario, volumes, setup.cached_bytes());
        let rules: Vec<VolumeRules> = places
            .iter()
            .map(|places| VolumeRules {
                capacity: places.sectors() * 512,
                volatile_cache: volatile(&mut random) || scenario.volatile_origins,
                late_writes: scenario.late_writes,
            })
            .collect();
        let origin = |(rules, number): (&VolumeRules, usize)| {
            let VolumeRules { capacity, volatile_cache, .. } = *rules;
            let geometry = Geometry { volatile_cache, ..Geometry::new(capacity) };
            let origin = SimDisk::new(&world, &format!("origin {number}"), geometry);
            origin.set_faults((scenario.origin)(&mut random));
            origin
        };
        let origins: Vec<SimDisk> = rules.iter().zip(0..).map(origin).collect();
        watch_all(trace, &cache_device, &origins);
        let host = Rc::new(Host::default());
        let depth = random.range(1..=40) as usize;
        let engine = Engine::start(&world, &setup, &origins, &cache_device, (&host, pool), None);
        Self {
            scenario,
            trace,
            random,
            pool: pool.clone(),
            engine: Some(engine),
            host,
            places,
            members: vec![Member::There; volumes],
            outage: None,
            replacement: Replacement::None,
            new_device: None,
            old_device: None,
            verified_before: None,
            origins,
            cache_device,
            setup,
            history: History::new(seed, &rules),
            capacities: rules.iter().map(|rules| rules.capacity).collect(),
            depth,
            next: 1,
            cache_gone: false,
            cache_hangs,
            anothers: Vec::new(),
            shrunk: None,
            has_shrunk: false,
            turns: 0,
            last: (0, 0),
            done: Vec::new(),
            outcome: Outcome::default(),
            world,
        }
    }

    fn run(mut self, operations: u64) -> Outcome {
        let mut left = operations;
        while left > 0 || self.engine().in_flight() > 0 {
            if left > 0 && self.engine().in_flight() < self.depth {
                left -= 1;
                self.upset();
                let (volume, request) = self.request();
                self.submit(volume, request);
            }
            self.go_on();
            self.poll_until_idle();
            if self.engine().in_flight() >= self.depth || left == 0 || self.random.chance(300) {
                self.turn_world();
            }
        }
        self.check_everything();
        self.count_engine();
        self.outcome.operations = self.next - 1;
        self.outcome
    }

    /// An engine on the devices as they are now.
    pub(super) fn start(&self) -> Engine {
        let Self { world, setup, origins, cache_device, host, pool, .. } = self;
        Engine::start(world, setup, origins, cache_device, (host, pool), None)
    }

    pub(super) fn engine(&mut self) -> &mut Engine {
        self.engine.as_mut().expect("a dead engine is started again before anything else")
    }

    pub(super) fn tell(&self, text: impl FnOnce() -> String) {
        if let Some(trace) = self.trace {
            trace.add(self.world.now(), text());
        }
    }

    /// What this engine did is added up before it goes.
    pub(super) fn count_engine(&mut self) {
        let (counts, guests) = (self.engine().counts(), self.engine().guest_counts());
        let seed = self.world.seed();
        assert!(self.cache_hangs || counts.impatient == 0, "seed {seed}: a sound device given up");
        self.outcome.counts.add(counts);
        self.outcome.guest_hits += guests.hits;
        self.outcome.guest_retries += guests.retries;
        let warm = self.verified_before.take().is_some() && counts.lines_verified > 0;
        self.outcome.warm_crashes += u64::from(warm);
    }

    /// What takes time by itself goes on.
    fn go_on(&mut self) {
        self.go_on_moving();
        self.go_on_replacing();
    }

    /// Now and then something else than a request happens.
    fn upset(&mut self) {
        if self.random.chance(20) {
            let mut random = self.random.clone();
            self.engine().change_mode(&mut random);
            self.random = random;
        }
        if self.random.chance(10) {
            let mut random = self.random.clone();
            self.engine().change_policy(&mut random);
            self.random = random;
            self.outcome.policies += 1;
        }
        if self.random.chance(self.scenario.administration) {
            self.administer();
        }
        if self.random.chance(self.scenario.restarts) {
            self.restart();
        }
        if self.random.chance(self.scenario.membership) {
            self.move_volume();
        }
        // A core that comes while the device is being replaced would read from the wrong one.
        let steady = self.replacement == Replacement::None;
        if self.scenario.guests && steady && self.random.chance(50) {
            let volume = self.random.below(self.members.len() as u64) as usize;
            let device = self.cache_device.clone();
            self.engine().admit_guest(volume, &device);
        }
        if self.random.chance(self.scenario.replacements) {
            self.begin_replacing();
        }
        self.upset_origins();
        if self.scenario.cache_vanishes && self.random.chance(5) {
            self.cache_gone = !self.cache_gone;
            self.tell(|| format!("the cache device is gone: {}", self.cache_gone));
            self.cache_device.fail_all(self.cache_gone);
        }
        let quiet = self.outage.is_none() && self.engine().in_flight() == 0;
        if self.scenario.late_writes && self.random.chance(10) && quiet {
            self.fence();
        }
        if self.random.chance(self.scenario.crashes) {
            let crash = *self.random.choose(&Crash::ALL);
            self.crash(crash);
        }
    }

    pub(super) fn fence(&mut self) {
        self.tell(|| "fence".to_owned());
        for (volume, origin) in self.origins.iter().enumerate() {
            origin.fence();
            self.history.fence(volume);
        }
        self.engine().fence();
    }

    /// Something dies, the engine with it, and it starts again on what is left. Where the origin
    /// loses power the process dies too: what a living one should make of that is another question.
    fn crash(&mut self, crash: Crash) {
        self.tell(|| format!("crash: {crash:?}"));
        self.outcome.crashes += 1;
        self.leave_changes();
        self.count_engine();
        self.crash_moves();
        let was_loaded = self.engine().is_loaded();
        self.engine = None;
        let random = &mut self.random;
        for origin in &self.origins {
            match crash {
                Crash::OriginPowerCut => origin.power_cut(random),
                Crash::ProcessKilled | Crash::CachePowerCut => origin.cut_off(random),
            }
        }
        match crash {
            Crash::CachePowerCut => self.cache_device.power_cut(random),
            Crash::ProcessKilled | Crash::OriginPowerCut => self.cache_device.cut_off(random),
        }
        // Not of a device that still says that it was left in order, of which nobody was writing
        // any.
        if was_loaded {
            self.spoil();
        }
        self.crash_outage();
        self.history.crash(Crash::ProcessKilled);
        if crash != Crash::ProcessKilled {
            self.history.crash(crash);
        }
        self.cache_gone = false;
        self.cache_device.fail_all(false);
        let mut engine = self.start();
        // Some clients come at once, some when it is as warm as it will be.
        if self.scenario.warm && self.random.coin() {
            engine.load();
        }
        self.engine = Some(engine);
        self.verified_before = Some(0);
    }

    /// What is left of the data need not be what was stored: the checksums have to tell. Blocks
    /// become something else, are torn at 512 bytes, or are what belongs elsewhere.
    fn spoil(&mut self) {
        let data = self.setup.data_extent();
        let random = &mut self.random;
        for _ in 0..random.below(if self.scenario.warm { 24 } else { 8 }) {
            let block = data.offset + random.below(data.length / 4096) * 4096;
            match random.below(3) {
                0 => self.cache_device.overwrite(block, &[0xBD; 4096]),
                1 => {
                    let sector = block + random.below(8) * 512;
                    self.cache_device.overwrite(sector, &[0xBD; 512]);
                }
                _ => {
                    let other = data.offset + random.below(data.length / 4096) * 4096;
                    let bytes = self.cache_device.content(Extent::new(other, 4096));
                    self.cache_device.overwrite(block, &bytes);
                }
            }
            self.outcome.spoilt += 1;
        }
    }

    fn request(&mut self) -> (usize, Request) {
        let id = RequestId(self.next);
        self.next += 1;
        let kind = self.random.below(100);
        let (volume, extent) = self.place(kind >= 50);
        let fua = self.random.chance(50);
        let request = match kind {
            0..=49 => Request::read(id, extent.offset, self.read_buffer(extent)),
            50..=89 => {
                let buffer = self.pool.allocate(extent.length as usize);
                fill_pattern(&buffer, id.0, extent.offset);
                Request::write(id, extent.offset, buffer).with_force_unit_access(fua)
            }
            90..=93 => Request::write_zeroes(id, extent),
            94..=96 => Request::discard(id, extent),
            _ => Request::flush(id),
        };
        (volume, request)
    }

    /// Some requests go on where the last one ended.
    fn place(&mut self, is_write: bool) -> (usize, Extent) {
        let volume = self.some_volume();
        let extent = self.extent(volume, is_write);
        let mut place = (volume, extent);
        let (volume, end) = self.last;
        let goes_on = self.random.chance(150) && self.members[volume] == Member::There;
        if goes_on && end < self.capacities[volume] {
            let length = (self.capacities[volume] - end).min(place.1.length);
            place = (volume, Extent::new(end, length));
        }
        self.last = (place.0, place.1.end());
        place
    }

    pub(super) fn extent(&mut self, volume: usize, is_write: bool) -> Extent {
        let sectors = self.capacities[volume] / 512;
        self.places[volume].choose(&mut self.random, sectors, is_write)
    }

    /// With a mark in every sector, which must be gone when the read ends: what an earlier request
    /// left in the memory may look right, and the seed does not know it.
    fn read_buffer(&self, extent: Extent) -> Buffer {
        let buffer = self.pool.allocate(extent.length as usize);
        for start in (0..buffer.len()).step_by(512) {
            buffer.slice(start, 8).fill(0xA5);
        }
        buffer
    }

    fn submit(&mut self, volume: usize, request: Request) {
        self.history.begin(volume, &request);
        self.tell(|| {
            let Request { id, operation, extent, .. } = &request;
            format!("volume {volume}: {operation:?} {} {extent} begins", id.0)
        });
        let mut request = request;
        while let Err(refused) = self.engine().submit(volume, request) {
            request = refused;
            if !self.poll_until_idle() {
                self.turn_world();
            }
        }
    }

    /// Returns whether anything completed.
    pub(super) fn poll_until_idle(&mut self) -> bool {
        let mut any = false;
        let mut done = std::mem::take(&mut self.done);
        let now = self.world.now();
        while self.engine().poll(now, &mut done) {
            for (volume, completion) in done.drain(..) {
                any = true;
                self.completed(volume, &completion);
            }
        }
        self.done = done;
        self.end_anothers();
        any
    }

    fn completed(&mut self, volume: usize, completion: &Completion) {
        let Completion { id, result, .. } = completion;
        self.tell(|| format!("volume {volume}: {} ended with {result:?}", id.0));
        // Of a request that was there before its volume shrank.
        let at_the_end = self.has_shrunk && *result == Err(IoError::OutOfRange);
        if self.scenario.never_fails && !at_the_end {
            assert_eq!(*result, Ok(()), "request {}", id.0);
        }
        let told = id.0 ^ self.world.now().0.rotate_left(32) ^ u64::from(result.is_ok());
        self.outcome.fingerprint =
            (self.outcome.fingerprint ^ told).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(23);
        if let Err(refusal) = self.history.complete(volume, completion) {
            panic!("{refusal}");
        }
    }

    /// Lets time pass until a device has something to say, or for long enough that the engine may
    /// want to do something by itself.
    pub(super) fn turn_world(&mut self) {
        let in_flight = self.in_flight_on_devices();
        let until = self.world.now() + UNATTENDED;
        let (mut advanced, mut same) = (false, true);
        while same && self.world.now() < until && self.world.advance() {
            advanced = true;
            same = self.in_flight_on_devices() == in_flight;
        }
        // Timers go on for ever; hung requests do not end by them.
        self.turns = if same { self.turns + 1 } else { 0 };
        self.watch_waiting(self.turns);
        if (!advanced || self.turns > PATIENCE) && !self.engine().is_idle() {
            self.turns = 0;
            let state = self.engine().state();
            let seed = self.world.seed();
            assert!(self.cache_device.hung() > 0, "seed {seed}: nothing moves: {state}");
            self.cache_device.release_hung();
        }
    }

    pub(super) fn in_flight_on_devices(&self) -> usize {
        let origins: usize = self.origins.iter().map(SimDisk::in_flight).sum();
        let others = self.old_device.iter().chain(&self.new_device);
        let others: usize = others.map(SimDisk::in_flight).sum();
        origins + self.cache_device.in_flight() + others
    }

    /// When all is quiet: what the engine serves, what the origins have, and what the history
    /// allows are the same, on the first read of everything and on the second, which finds more of
    /// it in the cache.
    fn check_everything(&mut self) {
        self.end_outage();
        self.settle_members();
        for origin in &self.origins {
            origin.set_faults(DiskFaults::unordered());
        }
        self.cache_device.change_faults(|faults| faults.hang = 0);
        self.fence();
        while !self.engine().is_idle() {
            self.poll_until_idle();
            if !self.engine().is_idle() {
                self.turn_world();
            }
        }
        self.grow();
        self.engine().cache_everything();
        for round in 0..2 {
            for volume in 0..self.capacities.len() {
                let parts = self.places[volume].all();
                for extent in parts.into_iter().flat_map(checked_at_once) {
                    let buffer = self.read(volume, extent);
                    // The history has seen to it that both rounds are the same.
                    let is_origins =
                        round == 0 || self.origins[volume].has_content(extent, &buffer);
                    let seed = self.world.seed();
                    assert!(
                        is_origins,
                        "seed {seed}: volume {volume}: {extent} is not as the origin has it"
                    );
                }
            }
        }
    }

    /// A write of somebody else's has happened.
    pub(super) fn history_ended(&mut self, volume: usize, id: RequestId) {
        let done = Completion { id, result: Ok(()), buffer: None };
        self.history.complete(volume, &done).expect("writes are not refused");
    }

    pub(super) fn read(&mut self, volume: usize, extent: Extent) -> Buffer {
        let id = RequestId(self.next);
        self.next += 1;
        let buffer = self.read_buffer(extent);
        self.submit(volume, Request::read(id, extent.offset, buffer.clone()));
        while self.engine().in_flight() > 0 {
            if !self.poll_until_idle() && self.engine().in_flight() > 0 {
                self.turn_world();
            }
        }
        buffer
    }
}

fn checked_at_once(part: Extent) -> impl Iterator<Item = Extent> {
    let starts = (part.offset..part.end()).step_by(CHECKED_AT_ONCE);
    starts.map(move |start| Extent::new(start, (part.end() - start).min(CHECKED_AT_ONCE as u64)))
}

/// Where clients go on each of so many volumes, of which so many bytes are cached together.
fn draw_places(
    random: &mut Random,
    scenario: &Scenario,
    volumes: usize,
    cached: u64,
) -> Vec<Places> {
    let hot = (random.below(4096), random.range(64..=800));
    let draw = |_| match scenario.warm || random.chance(150) {
        true => Places::spread(random, cached / volumes as u64, hot),
        false => Places::compact(random, cached, hot),
    };
    (0..volumes).map(draw).collect()
}
