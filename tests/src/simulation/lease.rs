//! Two hosts and one origin: the first caches it under leases, the second writes to it past that
//! cache, each time that the lease is over.
//!
//! ```text
//!   true time   asked ── granted ───────────────────────── over: the other host writes ──▶ …
//!   first host  asked ───────── its clock, slower ── asked + length − margin: no hit from here on
//! ```
//! The lease counts from when it is granted, by true time, and for the first host from when it has
//! asked for it, by its own clock, less a margin. As long as that clock loses no more than the
//! margin over a lease, no read is stale, whatever is in flight at the end, however long the first
//! host is suspended, and after a crash. With a slower clock there are stale reads, and the history
//! finds them.
//!
//! A guest serves some of the reads, by the same clock.
//!
//! Absent: who grants leases, and writes of the first host after the end, which an origin fences.

use std::rc::Rc;
use std::time::Duration;

use block_io::sim::{
    Crash, DiskFaults, History, Random, SimDisk, SimQueue, VolumeRules, World, fill_pattern,
};
use block_io::{
    BlockDevice, BlockQueue, BufferPool, Completion, Geometry, Request, RequestId, Timestamp,
};
use cache_engine::cache::LeaseStanding;
use cache_engine::cache::metadata::{Superblock, VolumeRecord};
use cache_engine::volume::CachedVolume;

use super::engine::{Engine, Queue};
use super::host::Host;
use super::host_clock::HostClock;
use super::outcome::Outcome;
use super::scenario::Scenario;
use super::setup::Setup;
use super::trace::Trace;

const CAPACITY: u64 = 256 << 10;
const LENGTH: Duration = Duration::from_millis(20);
/// What a clock may lose of a lease, in millionths.
pub(super) const MARGIN_PPM: u64 = 100_000;
/// Requests of a round, by and large.
const OPERATIONS_A_ROUND: u64 = 25;
const DEPTH: usize = 6;

/// Runs `seed` with leases over about so many requests.
///
/// # Panics
/// With the first read that returned what it must not.
pub(super) fn run_leases(
    scenario: &Scenario,
    seed: u64,
    operations: u64,
    pool: &BufferPool,
    trace: Option<&Trace>,
) -> Outcome {
    let mut run = Run::new(scenario, seed, pool, trace, None);
    run.finish(operations).unwrap_or_else(|stale| panic!("seed {seed}: {stale}"))
}

/// The same for a first host whose clock loses `slow_ppm` millionths.
///
/// # Errors
/// The first read that returned what it must not.
#[cfg(test)]
pub(super) fn with_clock(
    scenario: &Scenario,
    seed: u64,
    operations: u64,
    pool: &BufferPool,
    trace: Option<&Trace>,
    slow_ppm: u64,
) -> Result<Outcome, String> {
    Run::new(scenario, seed, pool, trace, Some(slow_ppm)).finish(operations)
}

/// Whether the run before ended under a lease that was not given back: a start is cold then.
pub(super) fn was_leased(superblock: &Superblock) -> bool {
    superblock.volumes().iter().any(|volume| volume.flags & VolumeRecord::LEASED != 0)
}

impl Engine {
    fn first(&self) -> &CachedVolume<SimQueue, Queue> {
        self.volumes[0].as_ref().expect("it is there")
    }

    /// The first volume's origin is this host's alone until then.
    fn set_lease(&mut self, now: Timestamp, until: Timestamp) {
        let id = self.first().id();
        let set = self.engine.change(|cache| cache.set_lease(now, id, Some(until)));
        set.expect("it is there");
    }

    /// Whether the host takes the first volume's origin for its own.
    fn is_leased(&self) -> bool {
        let standing = self.engine.cache().lease(self.first().id());
        matches!(standing, Some(LeaseStanding::Held(_)))
    }
}

struct Run<'scenario> {
    scenario: &'scenario Scenario,
    trace: Option<&'scenario Trace>,
    world: World,
    random: Random,
    pool: BufferPool,
    origin: SimDisk,
    elsewhere: SimQueue,
    cache_device: SimDisk,
    setup: Setup,
    host: Rc<Host>,
    clock: HostClock,
    /// Absent only while it is dead.
    engine: Option<Engine>,
    /// Its clients write too. Without, a crash leaves lines that a start could use.
    writes: bool,
    /// Another core serves hits, too.
    has_guest: bool,
    history: History,
    /// When the lease is over, by true time.
    over_at: Timestamp,
    next: u64,
    done: Vec<(usize, Completion)>,
    outcome: Outcome,
}

impl<'scenario> Run<'scenario> {
    fn new(
        scenario: &'scenario Scenario,
        seed: u64,
        pool: &BufferPool,
        trace: Option<&'scenario Trace>,
        slow_ppm: Option<u64>,
    ) -> Self {
        let world = World::new(seed);
        let mut random = world.random("leases");
        let setup = Setup::draw(&mut random, scenario);
        // From a perfect clock to the worst that the margin allows.
        let drawn = MARGIN_PPM * random.below(5) / 4;
        let slow_ppm = slow_ppm.unwrap_or(drawn);
        let disk = |name, capacity| {
            let disk = SimDisk::new(&world, name, Geometry::new(capacity));
            disk.set_faults(DiskFaults::unordered());
            disk
        };
        let origin = disk("origin", CAPACITY);
        let cache_device = disk("cache", setup.cache_device_bytes());
        let rules = VolumeRules { capacity: CAPACITY, volatile_cache: false, late_writes: false };
        let begin = Timestamp(random.below(1 << 40));
        if let Some(trace) = trace {
            trace.watch("origin", &origin);
            trace.watch("cache", &cache_device);
        }
        Self {
            scenario,
            trace,
            has_guest: random.coin(),
            elsewhere: origin.open_queue(&world, 64).expect("of this world"),
            history: History::new(seed, &[rules]),
            pool: pool.clone(),
            host: Rc::default(),
            clock: HostClock { begin, slow_ppm },
            engine: None,
            writes: random.coin(),
            over_at: Timestamp::default(),
            next: 1,
            done: Vec::new(),
            outcome: Outcome::default(),
            world,
            random,
            origin,
            cache_device,
            setup,
        }
    }

    fn finish(&mut self, operations: u64) -> Result<Outcome, String> {
        self.run(operations)?;
        self.count_engine();
        Ok(self.outcome)
    }

    fn run(&mut self, operations: u64) -> Result<(), String> {
        for _ in 0..operations / OPERATIONS_A_ROUND {
            self.take_lease()?;
            while self.world.now() < self.over_at {
                self.step()?;
            }
            self.write_elsewhere()?;
            self.serve_for(LENGTH / 8)?;
        }
        self.check_everything()
    }

    fn tell(&self, text: impl FnOnce() -> String) {
        if let Some(trace) = self.trace {
            trace.add(self.world.now(), text());
        }
    }

    fn now(&self) -> Timestamp {
        self.clock.at(self.world.now())
    }

    fn some_time(&mut self, most: Duration) -> Duration {
        Duration::from_nanos(self.random.below(most.as_nanos() as u64))
    }

    /// Asks for a lease, and is given it a while later, unless one that is to be renewed has ended
    /// meanwhile. A host that is dead starts with it.
    fn ask(&mut self, renews: bool) -> Result<bool, String> {
        let asked = self.now();
        let under_way = self.some_time(Duration::from_millis(1));
        self.serve_for(under_way)?;
        if renews && self.world.now() >= self.over_at {
            return Ok(false);
        }
        self.over_at = self.world.now() + LENGTH;
        let margin = LENGTH.mul_f64(MARGIN_PPM as f64 / 1e6);
        let until = asked + (LENGTH - margin);
        let now = self.now();
        if self.engine.is_none() {
            let origins = std::slice::from_ref(&self.origin);
            let device = &self.cache_device;
            let mut engine = Engine::start(
                &self.world,
                &self.setup,
                origins,
                device,
                (&self.host, &self.pool),
                None,
            );
            engine.clock = self.clock;
            engine.cache_everything();
            if self.has_guest {
                engine.admit_guest(0, device);
            }
            self.engine = Some(engine);
        }
        self.tell(|| format!("a lease until {} of its clock", until.0));
        self.engine().set_lease(now, until);
        Ok(true)
    }

    fn take_lease(&mut self) -> Result<(), String> {
        self.ask(false).map(|_| ())
    }

    fn engine(&mut self) -> &mut Engine {
        self.engine.as_mut().expect("it lives")
    }

    fn step(&mut self) -> Result<(), String> {
        match self.random.below(100) {
            0..=9 => {
                // Nobody polls: the process is suspended, and requests wait for it.
                let time = self.some_time(LENGTH);
                self.world.advance_by(time);
                self.outcome.overslept += u64::from(self.world.now() >= self.over_at);
                Ok(())
            }
            10..=29 => {
                let renewed = self.ask(true)?;
                self.outcome.renewals += u64::from(renewed);
                Ok(())
            }
            30.. if self.random.chance(self.scenario.crashes) => self.crash(),
            _ => {
                let time = self.some_time(LENGTH / 8);
                self.serve_for(time)
            }
        }
    }

    /// The first host's clients go on for that long, if it lives.
    fn serve_for(&mut self, time: Duration) -> Result<(), String> {
        let end = self.world.now() + time;
        while self.engine.is_some() {
            while self.engine().in_flight() < DEPTH && !self.random.chance(250) {
                self.submit()?;
            }
            self.poll()?;
            if self.world.next_event().is_none_or(|next| next > end) {
                break;
            }
            self.world.advance();
        }
        self.world.advance_to(end);
        Ok(())
    }

    /// A request of the first host's clients: it writes only while it takes the origin for its own.
    fn submit(&mut self) -> Result<(), String> {
        self.outcome.operations += 1;
        let (id, offset, length) = self.place();
        let buffer = self.pool.allocate(length);
        let writes = self.writes && self.engine().is_leased() && self.random.chance(200);
        let mut request = match writes {
            true => {
                fill_pattern(&buffer, id.0, offset);
                Request::write(id, offset, buffer)
            }
            false => {
                buffer.fill(0xA5);
                Request::read(id, offset, buffer)
            }
        };
        self.history.begin(0, &request);
        while let Err(refused) = self.engine().submit(0, request) {
            request = refused;
            if !self.poll()? {
                assert!(self.world.advance(), "it waits for nothing");
            }
        }
        Ok(())
    }

    fn place(&mut self) -> (RequestId, u64, usize) {
        self.next += 1;
        let first = self.random.below(CAPACITY / 4096 - 3);
        let blocks = self.random.range(1..=3);
        (RequestId(self.next), first * 4096, blocks as usize * 4096)
    }

    fn poll(&mut self) -> Result<bool, String> {
        let now = self.now();
        let mut done = std::mem::take(&mut self.done);
        let mut any = false;
        while self.engine().poll(now, &mut done) {
            for (volume, completion) in done.drain(..) {
                any = true;
                let told = completion.id.0 ^ self.world.now().0.rotate_left(32);
                let fingerprint = (self.outcome.fingerprint ^ told).wrapping_mul(0x9E37_79B9);
                self.outcome.fingerprint = fingerprint.rotate_left(23);
                self.tell(|| format!("{} ended with {:?}", completion.id.0, completion.result));
                self.history
                    .complete(volume, &completion)
                    .map_err(|refusal| refusal.to_string())?;
            }
        }
        self.done = done;
        Ok(any)
    }

    /// The lease is over: another host writes, while the first serves on or is asleep.
    fn write_elsewhere(&mut self) -> Result<(), String> {
        let asleep = self.engine.is_none() || self.random.coin();
        for _ in 0..self.random.range(4..=16) {
            let (id, offset, length) = self.place();
            let buffer = self.pool.allocate(length);
            fill_pattern(&buffer, id.0, offset);
            let request = Request::write(id, offset, buffer);
            self.history.begin(0, &request);
            self.elsewhere.submit(request).expect("fewer than it takes");
            self.tell(|| format!("another host writes {offset}+{length} as {}", id.0));
            self.outcome.written_elsewhere += 1;
        }
        let mut done = Vec::new();
        while self.elsewhere.in_flight() > 0 {
            self.elsewhere.poll(self.world.now(), &mut done);
            for completion in done.drain(..) {
                self.history.complete(0, &completion).map_err(|refusal| refusal.to_string())?;
            }
            if asleep {
                self.world.advance();
            } else {
                self.serve_for(Duration::from_micros(20))?;
            }
        }
        Ok(())
    }

    /// The first host dies under its lease. When that is over another one writes, and the first
    /// starts again with a new lease.
    fn crash(&mut self) -> Result<(), String> {
        self.tell(|| "crash".to_owned());
        self.outcome.crashes += 1;
        self.count_engine();
        self.engine = None;
        self.origin.cut_off(&mut self.random);
        let crash = *self.random.choose(&[Crash::ProcessKilled, Crash::CachePowerCut]);
        match crash {
            Crash::ProcessKilled => self.cache_device.cut_off(&mut self.random),
            _ => self.cache_device.power_cut(&mut self.random),
        }
        self.history.crash(crash);
        self.world.advance_to(self.over_at);
        self.write_elsewhere()?;
        self.take_lease()
    }

    /// What this engine did is added up before it goes.
    fn count_engine(&mut self) {
        if let Some(engine) = &self.engine {
            let (counts, guests) = (engine.counts(), engine.guest_counts());
            self.outcome.counts.add(counts);
            self.outcome.guest_hits += guests.hits;
            self.outcome.guest_retries += guests.retries;
        }
    }

    fn check_everything(&mut self) -> Result<(), String> {
        self.end_requests()?;
        for offset in (0..CAPACITY).step_by(8192) {
            self.next += 1;
            let request = Request::read(RequestId(self.next), offset, self.pool.allocate(8192));
            self.history.begin(0, &request);
            self.engine().submit(0, request).map_err(|_| "it takes no request")?;
            self.end_requests()?;
        }
        Ok(())
    }

    fn end_requests(&mut self) -> Result<(), String> {
        while self.engine().in_flight() > 0 {
            if !self.poll()? {
                assert!(self.world.advance(), "it waits for nothing");
            }
        }
        Ok(())
    }
}
