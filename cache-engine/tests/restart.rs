//! Starts and stops of a cache on simulated disks: what is warm afterwards, what is not, and that
//! nothing is ever stale.

use block_io::sim::{DiskFaults, SimDisk, SimQueue, World};
use block_io::{
    BlockDevice, BlockQueue, BufferPool, Completion, Extent, Geometry, Request, RequestId,
};
use cache_engine::cache::metadata::probe::Probe;
use cache_engine::cache::metadata::{FormatId, IdentityKind, OriginIdentity, VolumeRecord};
use cache_engine::cache::{
    Cache, CacheConfig, CacheMode, Event, LineSize, Verification, VolumeSettings,
};
use cache_engine::volume::{CacheEngine, CachedVolume, cache_device};

const LINE: u64 = 16 << 10;
const SIZE: u64 = 64 << 20;

/// Two disks and, between starts, nothing else.
struct Machine {
    world: World,
    origin: SimDisk,
    cache: SimDisk,
    pool: BufferPool,
    starts: u8,
}

/// A running cache with one volume.
struct Run {
    engine: CacheEngine<SimQueue, SimQueue>,
    volume: CachedVolume<SimQueue, SimQueue>,
    events: Vec<Event>,
}

impl Machine {
    fn new(seed: u64) -> Self {
        let world = World::new(seed);
        let origin = SimDisk::new(&world, "origin", Geometry::new(SIZE));
        let cache = SimDisk::new(&world, "cache", Geometry::new(32 << 20));
        let machine = Self { world, origin, cache, pool: BufferPool::heap(), starts: 0 };
        let options = cache_device::FormatOptions {
            line_size: LineSize::from_bytes(LINE).expect("a line size"),
            force_format: false,
            format_id: FormatId([1; 16]),
        };
        let mut queue = machine.cache.open_queue(&machine.world, 8).expect("opens");
        cache_device::format(&mut queue, &machine.pool, options, machine.turn()).expect("formats");
        machine
    }

    fn turn(&self) -> impl FnMut() -> Result<block_io::Timestamp, block_io::DeviceError> {
        let world = self.world.clone();
        move || {
            world.advance();
            Ok(world.now())
        }
    }

    fn start(&mut self, verification: Verification) -> Run {
        self.starts += 1;
        let mut queue = self.cache.open_queue(&self.world, 64).expect("opens");
        let probe = cache_device::open(&mut queue, &self.pool, self.turn()).expect("reads");
        let Probe::Ours(superblock) = probe else { panic!("formatted: {probe:?}") };
        let known = superblock.volume_named("v").map(|record| record.id);
        let config = CacheConfig { verification, ..CacheConfig::default() };
        let fresh = FormatId([100 + self.starts; 16]);
        let transfer_max = queue.geometry().transfer_max;
        let cache = Cache::open(config, *superblock, transfer_max, fresh, self.pool.clone());
        let engine = CacheEngine::new(cache.expect("opens"), queue);
        let origin = self.origin.open_queue(&self.world, 64).expect("opens");
        let settings = VolumeSettings {
            name: "v".into(),
            geometry: origin.geometry(),
            mode: CacheMode::WriteThrough,
            known,
            cipher: None,
        };
        let volume = engine.add_volume(origin, settings).expect("room");
        let identity = OriginIdentity::new(IdentityKind::Assigned, "the origin").expect("text");
        let record = engine.cache().volume_record(volume.id(), identity).expect("it was added");
        let record = VolumeRecord { attach_epoch: u64::from(self.starts), ..record };
        let ticket = engine.change(|cache| cache.record_volume(record)).expect("room");
        let mut run = Run { engine, volume, events: Vec::new() };
        self.until(&mut run, |run| run.events.contains(&Event::Done(ticket)));
        self.until(&mut run, |run| run.events.contains(&Event::Loaded));
        run
    }

    fn until(&self, run: &mut Run, reached: impl Fn(&Run) -> bool) {
        let mut completions = Vec::new();
        while !reached(run) {
            let progress = run.volume.poll(self.world.now(), &mut completions);
            run.events.extend(std::iter::from_fn(|| run.engine.next_event()));
            if !progress && !reached(run) {
                self.pass_time(run);
            }
        }
        assert!(completions.is_empty());
    }

    /// Lets the next thing happen: a device's, or the cache's own.
    fn pass_time(&self, run: &Run) {
        if !self.world.advance() {
            let deadline = run.engine.next_deadline().expect("nothing will ever happen");
            self.world.advance_to(deadline);
        }
    }

    fn ask(&self, run: &mut Run, request: Request) -> Completion {
        run.volume.submit(request).expect("room");
        let mut completions = Vec::new();
        while completions.is_empty() {
            if !run.volume.poll(self.world.now(), &mut completions) {
                self.pass_time(run);
            }
        }
        completions.pop().expect("one")
    }

    fn write(&self, run: &mut Run, offset: u64, length: u64, value: u8) {
        let buffer = self.pool.allocate(length as usize);
        buffer.fill(value);
        let done = self.ask(run, Request::write(RequestId(1), offset, buffer));
        done.result.expect("sound devices");
    }

    fn read(&self, run: &mut Run, offset: u64, length: u64) -> Vec<u8> {
        let buffer = self.pool.allocate(length as usize);
        let done = self.ask(run, Request::read(RequestId(2), offset, buffer));
        done.result.expect("sound devices");
        done.buffer.expect("given back").to_vec()
    }

    /// How many of the first `lines` lines are hits; all are what the origin has.
    fn hits(&self, run: &mut Run, lines: u64) -> u64 {
        let before = run.volume.statistics().read_hits;
        for line in 0..lines {
            let bytes = self.read(run, line * LINE, LINE);
            let right = self.origin.content(Extent::new(line * LINE, LINE));
            assert!(bytes == right, "line {line} is stale");
        }
        run.volume.statistics().read_hits - before
    }

    /// Lets all records reach the device.
    fn settle(&self, run: &mut Run) {
        let mut completions = Vec::new();
        let end = self.world.now() + std::time::Duration::from_secs(1);
        while self.world.now() < end {
            if !run.volume.poll(self.world.now(), &mut completions) && !self.world.advance() {
                let next = run.engine.next_deadline().unwrap_or(end).min(end);
                self.world.advance_to(next);
            }
        }
    }

    fn stop(&self, mut run: Run) {
        run.engine.change(Cache::stop);
        self.until(&mut run, |run| run.events.contains(&Event::Stopped));
    }
}

#[test]
fn a_clean_stop_is_followed_by_a_warm_start() {
    for verification in Verification::ALL {
        let mut machine = Machine::new(1);
        let mut run = machine.start(verification);
        assert_eq!(machine.hits(&mut run, 100), 0);
        machine.write(&mut run, 3 * LINE, LINE, 7);
        machine.stop(run);
        let mut run = machine.start(verification);
        assert_eq!(machine.hits(&mut run, 100), 100, "{verification}");
    }
}

#[test]
fn a_killed_cache_is_warm_but_for_what_was_written() {
    let mut machine = Machine::new(2);
    let mut run = machine.start(Verification::default());
    machine.hits(&mut run, 1000);
    machine.settle(&mut run);
    // Within the first extent of 4 MiB.
    machine.write(&mut run, 3 * LINE, LINE, 7);
    drop(run);
    let mut run = machine.start(Verification::default());
    assert_eq!(machine.hits(&mut run, 1000), 1000 - 256);
    assert_eq!(run.volume.statistics().lines_verified, 1000 - 256);
    assert_eq!(machine.hits(&mut run, 1000), 1000);
}

#[test]
fn without_verification_a_killed_cache_is_cold() {
    let mut machine = Machine::new(3);
    let mut run = machine.start(Verification::Never);
    machine.hits(&mut run, 100);
    machine.settle(&mut run);
    drop(run);
    let mut run = machine.start(Verification::Never);
    assert_eq!(machine.hits(&mut run, 100), 0);
}

#[test]
fn what_changed_on_the_device_is_a_miss_and_counted() {
    let mut machine = Machine::new(4);
    let mut run = machine.start(Verification::Always);
    machine.hits(&mut run, 100);
    machine.stop(run);
    let data = 32 << 20;
    for at in (16 << 20..data).step_by(4096) {
        machine.cache.overwrite(at, &[0xAA; 512]);
    }
    let mut run = machine.start(Verification::Always);
    let hits = machine.hits(&mut run, 100);
    assert!(hits < 100, "half of the device was overwritten");
    assert_eq!(run.volume.statistics().checksum_mismatches, 100 - hits);
}

#[test]
fn a_device_that_fails_too_often_never_comes_back_warm() {
    let mut machine = Machine::new(5);
    let mut run = machine.start(Verification::default());
    machine.hits(&mut run, 200);
    machine.settle(&mut run);
    machine.cache.set_faults(DiskFaults { read_error: 1000, ..DiskFaults::default() });
    machine.hits(&mut run, 200);
    machine
        .until(&mut run, |run| run.events.iter().any(|event| matches!(event, Event::Degraded(_))));
    machine.cache.set_faults(DiskFaults::default());
    assert_eq!(machine.hits(&mut run, 200), 0, "given up");
    machine.settle(&mut run);
    drop(run);
    let mut run = machine.start(Verification::default());
    assert_eq!(machine.hits(&mut run, 200), 0);
    assert_eq!(machine.hits(&mut run, 200), 200, "and it is a cache again");
}

#[test]
fn a_cache_device_is_replaced_while_requests_go_on() {
    let mut machine = Machine::new(6);
    let mut run = machine.start(Verification::default());
    assert_eq!(machine.hits(&mut run, 100), 0);
    let other = SimDisk::new(&machine.world, "other", Geometry::new(48 << 20));
    let mut queue = other.open_queue(&machine.world, 64).expect("opens");
    let options = cache_device::FormatOptions {
        line_size: LineSize::from_bytes(LINE).expect("a line size"),
        force_format: false,
        format_id: FormatId([50; 16]),
    };
    let superblock = cache_device::format(&mut queue, &machine.pool, options, machine.turn());
    let superblock = superblock.expect("formats");
    let early = other.open_queue(&machine.world, 64).expect("opens");
    let refused = run.engine.replace_device(early, superblock.clone(), FormatId([51; 16]));
    assert!(refused.expect_err("in use").to_string().contains("detach"));
    // Reads and writes are in flight all the time.
    let mut completions = Vec::new();
    let mut next = 0u64;
    let mut replaced = false;
    run.engine.change(Cache::detach);
    let mut queue = Some(queue);
    while next < 3000 || completions.len() < 3000 {
        while next < 3000 && run.volume.in_flight() < 8 {
            let (offset, buffer) = (next % 200 * LINE, machine.pool.allocate(LINE as usize));
            buffer.fill(next as u8);
            let request = match next % 3 {
                0 => Request::write(RequestId(next), offset, buffer),
                _ => Request::read(RequestId(next), offset, buffer),
            };
            run.volume.submit(request).expect("room");
            next += 1;
        }
        let may_replace = next > 1000 && run.engine.cache().is_detached();
        if may_replace && let Some(queue) = queue.take() {
            let fresh = FormatId([52; 16]);
            run.engine.replace_device(queue, superblock.clone(), fresh).expect("detached");
        }
        if !run.volume.poll(machine.world.now(), &mut completions) {
            machine.pass_time(&run);
        }
        run.events.extend(std::iter::from_fn(|| run.engine.next_event()));
        replaced |= run.events.contains(&Event::Replaced);
    }
    assert!(replaced, "there was a moment with nothing in flight");
    assert!(completions.iter().all(|done| done.result.is_ok()));
    machine.hits(&mut run, 200);
    assert_eq!(machine.hits(&mut run, 200), 200, "the new device is a cache");
    machine.settle(&mut run);
    drop(run);
    let mut run = machine.start(Verification::default());
    assert_eq!(machine.hits(&mut run, 200), 0, "the old one is not served any more");
}

#[test]
fn a_write_does_not_wait_for_ever_for_a_device_that_hangs() {
    let mut machine = Machine::new(7);
    let mut run = machine.start(Verification::default());
    machine.hits(&mut run, 100);
    machine.settle(&mut run);
    machine.cache.set_faults(DiskFaults { hang: 1000, ..DiskFaults::default() });
    // Its extent has lines recorded, so that the device would have to be told first.
    let buffer = machine.pool.allocate(LINE as usize);
    buffer.fill(9);
    run.volume.submit(Request::write(RequestId(1), 0, buffer)).expect("room");
    let begun = machine.world.now();
    let (mut completions, mut disowned) = (Vec::new(), false);
    while completions.is_empty() {
        let progress = run.volume.poll(machine.world.now(), &mut completions);
        run.events.extend(std::iter::from_fn(|| run.engine.next_event()));
        let told = run.events.contains(&Event::Disown) && !disowned;
        if told {
            disowned = true;
            run.engine.change(Cache::disowned);
        } else if !progress {
            machine.pass_time(&run);
        }
    }
    assert_eq!(completions[0].result, Ok(()));
    assert!(run.events.contains(&Event::Disown), "the device could not be told");
    let waited = machine.world.now().since(begun);
    assert!(waited < std::time::Duration::from_secs(20), "{waited:?}");
}
