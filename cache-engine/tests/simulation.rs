//! The whole volume on simulated disks, against the reference disk: random requests, random
//! faults on both devices, everything reordered, thousands of seeds.
//!
//! Every failure prints the seed; `FOREBAY_SEED=N cargo test -p cache-engine --test simulation`
//! runs that one alone, in every scenario. `FOREBAY_SEEDS=N` changes how many seeds each scenario
//! takes.

use std::time::Duration;

use block_io::sim::{DiskFaults, Random, ReferenceDisk, SimDisk, SimQueue, World, fill_pattern};
use block_io::{
    BlockDevice, BlockQueue, BufferPool, Completion, Extent, Geometry, IoError, Request, RequestId,
};
use cache_engine::cache::{
    Cache, CacheConfig, CacheMode, CacheSpace, LineSize, Statistics, VolumeSettings,
};
use cache_engine::volume::{CacheEngine, CachedVolume};

type Volume = CachedVolume<SimQueue, SimQueue>;

/// What goes wrong in a scenario.
#[derive(Clone, Copy)]
struct Scenario {
    name: &'static str,
    origin: fn(&mut Random) -> DiskFaults,
    cache: fn(&mut Random) -> DiskFaults,
    /// Writes that the origin lost may still land later.
    late_writes: bool,
    /// The cache device goes and comes back at random.
    cache_vanishes: bool,
    /// No request may fail.
    never_fails: bool,
}

const SOUND: Scenario = Scenario {
    name: "sound devices, everything in flight reordered",
    origin: |_| DiskFaults::unordered(),
    cache: |_| DiskFaults::unordered(),
    late_writes: false,
    cache_vanishes: false,
    never_fails: true,
};

/// A cache device may leave anything behind when it fails.
fn hostile_cache(random: &mut Random, most: u64) -> DiskFaults {
    let per_mille = random.below(most) as u32;
    DiskFaults { write_error_garbage: per_mille, ..DiskFaults::hostile(per_mille) }
}

#[test]
fn sound_devices() {
    run_seeds(SOUND);
}

#[test]
fn a_failing_cache_device_fails_no_request() {
    run_seeds(Scenario {
        name: "failing, hanging and vanishing cache device",
        cache: |random| DiskFaults { hang: 5, ..hostile_cache(random, 200) },
        cache_vanishes: true,
        ..SOUND
    });
}

#[test]
fn a_slow_cache_device() {
    run_seeds(Scenario {
        name: "slow cache device",
        cache: |_| DiskFaults { slow: 500, ..DiskFaults::unordered() },
        ..SOUND
    });
}

#[test]
fn a_failing_origin() {
    run_seeds(Scenario {
        name: "failing origin and cache device",
        origin: |random| DiskFaults::hostile(random.below(100) as u32),
        cache: |random| hostile_cache(random, 50),
        never_fails: false,
        ..SOUND
    });
}

#[test]
fn an_origin_that_applies_lost_writes_late() {
    run_seeds(Scenario {
        name: "lost writes that land late",
        origin: |_| DiskFaults {
            lost: 50,
            late_max: Duration::from_millis(5),
            ..DiskFaults::unordered()
        },
        late_writes: true,
        never_fails: false,
        ..SOUND
    });
}

fn run_seeds(scenario: Scenario) {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seeds = match number("FOREBAY_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("FOREBAY_SEEDS").unwrap_or(400),
    };
    let count = seeds.end - seeds.start;
    let mut total = Statistics::default();
    for seed in seeds {
        let replay = PrintOnPanic { seed, scenario: scenario.name };
        let statistics = Run::new(seed, scenario).run();
        drop(replay);
        total.read_hits += statistics.read_hits;
        total.read_partial_hits += statistics.read_partial_hits;
        total.evictions += statistics.evictions;
        total.write_fills += statistics.write_fills;
    }
    if number("FOREBAY_SEED").is_none() {
        // A simulation that never met what it is about proves nothing.
        assert!(total.read_hits > count && total.read_partial_hits > count / 4, "{total:?}");
        assert!(total.evictions > count && total.write_fills > count, "{total:?}");
    }
}

struct PrintOnPanic {
    seed: u64,
    scenario: &'static str,
}

impl Drop for PrintOnPanic {
    #[expect(clippy::print_stderr, reason = "the one place where a failing seed can be told")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("scenario '{}': replay with FOREBAY_SEED={}", self.scenario, self.seed);
        }
    }
}

struct Run {
    scenario: Scenario,
    world: World,
    random: Random,
    pool: BufferPool,
    origin: SimDisk,
    cache: SimDisk,
    volume: Volume,
    reference: ReferenceDisk,
    capacity: u64,
    depth: usize,
    next: u64,
    cache_gone: bool,
    completions: Vec<Completion>,
}

impl Run {
    fn new(seed: u64, scenario: Scenario) -> Self {
        let world = World::new(seed);
        let mut random = world.random("client");
        let line_size = *random.choose(&LineSize::ALL);
        let mode = *random.choose(&CacheMode::ALL);
        let capacity = 512 * random.range(1024..=5120);
        let sets = random.range(1..=4);
        let length = sets * 16 * line_size.bytes();
        let data_offset = 4096 * random.below(3);
        let origin = SimDisk::new(&world, "origin", Geometry::new(capacity));
        let cache = SimDisk::new(&world, "cache", Geometry::new(data_offset + length));
        origin.set_faults((scenario.origin)(&mut random));
        cache.set_faults((scenario.cache)(&mut random));
        let requests_max = random.range(1..=64) as usize;
        let fills_max = random.range(1..=64) as usize;
        let errors_max = u32::MAX;
        let config =
            CacheConfig { line_size, requests_max, fills_max, errors_max, ..Default::default() };
        let space = CacheSpace { data_offset, length, transfer_max: 1 << 20 };
        // Shallow device queues, so that refusals happen too.
        let open = |disk: &SimDisk, depth: u64| {
            disk.open_queue(&world, depth as usize).expect("a simulated disk opens")
        };
        let origin_queue = open(&origin, random.range(1..=64));
        let cache_queue = open(&cache, random.range(1..=64));
        let volume = volume(config, mode, space, origin_queue, cache_queue);
        let depth = random.range(1..=40) as usize;
        Self {
            scenario,
            random,
            pool: BufferPool::heap(),
            origin,
            cache,
            volume,
            reference: ReferenceDisk::new(seed, capacity).with_late_writes(scenario.late_writes),
            capacity,
            depth,
            next: 0,
            cache_gone: false,
            completions: Vec::new(),
            world,
        }
    }

    fn run(mut self) -> Statistics {
        let mut left = 250;
        while left > 0 || self.volume.in_flight() > 0 {
            if left > 0 && self.volume.in_flight() < self.depth {
                left -= 1;
                self.upset();
                let request = self.request();
                self.submit(request);
            }
            self.poll_until_idle();
            if self.volume.in_flight() >= self.depth || left == 0 || self.random.chance(300) {
                self.turn_world();
            }
        }
        self.check_everything();
        self.volume.statistics()
    }

    /// Now and then something else than a request happens.
    fn upset(&mut self) {
        if self.random.chance(20) {
            self.volume.set_mode(*self.random.choose(&CacheMode::ALL));
        }
        if self.scenario.cache_vanishes && self.random.chance(10) {
            self.cache_gone = !self.cache_gone;
            self.cache.fail_all(self.cache_gone);
        }
        if self.scenario.late_writes && self.random.chance(10) && self.volume.in_flight() == 0 {
            self.origin.fence();
            self.reference.fence();
            self.volume.fence();
        }
    }

    fn request(&mut self) -> Request {
        let id = RequestId(self.next);
        self.next += 1;
        let extent = self.extent();
        let fua = self.random.chance(50);
        let request = match self.random.below(100) {
            0..=49 => Request::read(id, extent.offset, self.pool.allocate(extent.length as usize)),
            50..=89 => {
                let buffer = self.pool.allocate(extent.length as usize);
                fill_pattern(&buffer, id.0, extent.offset);
                Request::write(id, extent.offset, buffer).with_force_unit_access(fua)
            }
            90..=93 => Request::write_zeroes(id, extent),
            94..=96 => Request::discard(id, extent),
            _ => Request::flush(id),
        };
        self.reference.begin(&request);
        request
    }

    /// Mostly small and in one hot place, so that requests meet; sometimes anywhere and large.
    fn extent(&mut self) -> Extent {
        let sectors = self.capacity / 512;
        let hot = sectors.min(1200);
        let (offset, longest) = match self.random.below(10) {
            0..=6 => (self.random.below(hot), 64),
            7..=8 => (self.random.below(sectors), 300),
            _ => (self.random.below(sectors), 3000),
        };
        let length = self.random.range(1..=longest).min(sectors - offset);
        Extent::new(offset * 512, length * 512)
    }

    fn submit(&mut self, request: Request) {
        let mut request = request;
        while let Err(refused) = self.volume.submit(request) {
            request = refused;
            if !self.poll_until_idle() {
                self.turn_world();
            }
        }
    }

    /// Returns whether anything completed.
    fn poll_until_idle(&mut self) -> bool {
        let mut any = false;
        let mut completions = std::mem::take(&mut self.completions);
        while self.volume.poll(self.world.now(), &mut completions) {
            for completion in completions.drain(..) {
                any = true;
                self.completed(&completion);
            }
        }
        self.completions = completions;
        any
    }

    fn completed(&mut self, completion: &Completion) {
        if self.scenario.never_fails {
            assert_eq!(completion.result, Ok(()), "request {:?}", completion.id);
        }
        if let Err(mismatch) = self.reference.complete(completion) {
            panic!("{mismatch}");
        }
    }

    fn turn_world(&mut self) {
        if !self.world.advance() && !self.volume.is_idle() {
            assert!(self.cache.hung() > 0, "seed {}: nothing moves", self.world.seed());
            self.cache.release_hung();
        }
    }

    /// When all is quiet: what the volume serves, what the origin has, and what the reference
    /// allows are the same, on the first read of everything and on the second, which finds more of
    /// it in the cache.
    fn check_everything(&mut self) {
        self.origin.set_faults(DiskFaults::unordered());
        self.cache.change_faults(|faults| faults.hang = 0);
        self.origin.fence();
        self.reference.fence();
        self.volume.fence();
        while !self.volume.is_idle() {
            self.poll_until_idle();
            if !self.volume.is_idle() {
                self.turn_world();
            }
        }
        self.volume.set_mode(CacheMode::WriteThrough);
        for round in ["first", "second"] {
            for offset in (0..self.capacity).step_by(96 << 10) {
                let length = (self.capacity - offset).min(96 << 10);
                let bytes = self.read(Extent::new(offset, length));
                let origin = self.origin.content(Extent::new(offset, length));
                let seed = self.world.seed();
                assert!(
                    bytes == origin,
                    "seed {seed}: {round} read at {offset} is not the origin's"
                );
            }
        }
    }

    fn read(&mut self, extent: Extent) -> Vec<u8> {
        let id = RequestId(self.next);
        self.next += 1;
        let buffer = self.pool.allocate(extent.length as usize);
        let request = Request::read(id, extent.offset, buffer.clone());
        self.reference.begin(&request);
        self.submit(request);
        while self.volume.in_flight() > 0 {
            if !self.poll_until_idle() && self.volume.in_flight() > 0 {
                self.turn_world();
            }
        }
        buffer.to_vec()
    }
}

fn volume(
    config: CacheConfig,
    mode: CacheMode,
    space: CacheSpace,
    origin: SimQueue,
    cache_device: SimQueue,
) -> Volume {
    let cache = Cache::in_memory(config, space, BufferPool::heap()).expect("the sizes fit");
    let settings = VolumeSettings {
        name: "volume".into(),
        geometry: origin.geometry(),
        mode,
        known: None,
        cipher: None,
    };
    CacheEngine::new(cache, cache_device).add_volume(origin, settings).expect("room")
}

#[test]
fn misses_and_writes_do_not_wait_for_a_cache_device_that_hangs() {
    let world = World::new(1);
    let origin = SimDisk::new(&world, "origin", Geometry::new(8 << 20));
    let cache = SimDisk::new(&world, "cache", Geometry::new(1 << 20));
    cache.set_faults(DiskFaults { hang: 1000, ..Default::default() });
    let config = CacheConfig { fills_max: 8, ..Default::default() };
    let space = CacheSpace { data_offset: 0, length: 1 << 20, transfer_max: 1 << 20 };
    let open = |disk: &SimDisk| disk.open_queue(&world, 4).expect("opens");
    let mode = CacheMode::default();
    let mut volume = volume(config, mode, space, open(&origin), open(&cache));
    let pool = BufferPool::heap();
    let mut completions = Vec::new();
    for number in 0..200u64 {
        let buffer = pool.allocate(4096);
        let (id, offset) = (RequestId(number), number * 32 * 1024);
        volume
            .submit(match number % 2 {
                0 => Request::read(id, offset, buffer),
                _ => Request::write(id, offset, buffer),
            })
            .expect("room");
        while volume.in_flight() > 0 {
            if !volume.poll(world.now(), &mut completions) {
                assert!(world.advance(), "request {number} waits for the cache device");
            }
        }
    }
    assert_eq!(completions.len(), 200);
    assert!(completions.iter().all(|completion| completion.result == Ok::<(), IoError>(())));
    assert_eq!(volume.engine().cache().fills_in_flight(), 8, "the memory held is bounded");
}
