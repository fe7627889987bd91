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
//! Absent: who grants leases, and writes of the first host after the end, which an origin fences.

use std::rc::Rc;
use std::time::Duration;

use block_io::sim::{
    Crash, DiskFaults, History, Random, SimDisk, SimQueue, VolumeRules, World, fill_pattern,
};
use block_io::{
    BlockDevice, BlockQueue, BufferPool, Completion, Geometry, Request, RequestId, Timestamp,
};

use super::engine::{Engine, Host, Setup};
use super::host_clock::HostClock;

const CAPACITY: u64 = 256 << 10;
const LENGTH: Duration = Duration::from_millis(20);
/// What a clock may lose of a lease, in millionths.
pub const MARGIN_PPM: u64 = 100_000;
const ROUNDS: usize = 12;
const DEPTH: usize = 6;

/// What a run met.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeaseOutcome {
    /// Reads answered by the cache.
    pub hits: u64,
    /// Writes of the other host.
    pub elsewhere: u64,
    /// Leases renewed before their end.
    pub renewals: u64,
    /// Times that the first host slept past the end of its lease.
    pub overslept: u64,
    /// Crashes under a lease.
    pub crashes: u64,
}

/// Runs `seed` with a first host whose clock loses `slow_ppm` millionths.
///
/// # Errors
/// The first read that returned what it must not, with the seed.
pub fn run_leases(seed: u64, slow_ppm: u64) -> Result<LeaseOutcome, String> {
    let mut run = Run::new(seed, slow_ppm);
    run.run().map_err(|stale| format!("seed {seed}, a clock slow by {slow_ppm} ppm: {stale}"))?;
    run.count_hits();
    Ok(run.outcome)
}

struct Run {
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
    history: History,
    /// When the lease is over, by true time.
    over_at: Timestamp,
    next: u64,
    done: Vec<(usize, Completion)>,
    outcome: LeaseOutcome,
}

impl Run {
    fn new(seed: u64, slow_ppm: u64) -> Self {
        let world = World::new(seed);
        let mut random = world.random("leases");
        let setup = Setup::draw(&mut random, false);
        let disk = |name, capacity| {
            let disk = SimDisk::new(&world, name, Geometry::new(capacity));
            disk.set_faults(DiskFaults::unordered());
            disk
        };
        let origin = disk("origin", CAPACITY);
        let cache_device = disk("cache", setup.cache_device_bytes());
        let rules = VolumeRules { capacity: CAPACITY, volatile_cache: false, late_writes: false };
        let begin = Timestamp(random.below(1 << 40));
        Self {
            elsewhere: origin.open_queue(&world, 64).expect("of this world"),
            history: History::new(seed, &[rules]),
            pool: BufferPool::heap(),
            host: Rc::default(),
            clock: HostClock { begin, slow_ppm },
            engine: None,
            writes: random.coin(),
            over_at: Timestamp::default(),
            next: 1,
            done: Vec::new(),
            outcome: LeaseOutcome::default(),
            world,
            random,
            origin,
            cache_device,
            setup,
        }
    }

    fn run(&mut self) -> Result<(), String> {
        for _ in 0..ROUNDS {
            self.take_lease()?;
            while self.world.now() < self.over_at {
                self.step()?;
            }
            self.write_elsewhere()?;
            self.serve_for(LENGTH / 8)?;
        }
        self.check_everything()
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
            let mut engine =
                Engine::start(&self.world, &self.setup, origins, device, &self.host, None);
            engine.set_clock(self.clock);
            engine.cache_everything();
            self.engine = Some(engine);
        }
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
            30..=31 => self.crash(),
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
            self.outcome.elsewhere += 1;
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
        self.outcome.crashes += 1;
        self.count_hits();
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

    fn count_hits(&mut self) {
        self.outcome.hits += self.engine.as_ref().map_or(0, |engine| engine.counts().read_hits);
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
