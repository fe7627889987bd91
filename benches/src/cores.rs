//! Hits of one cache on two threads at once, beside each of them alone.
//!
//! ```text
//!   read_hit_owner        CachedVolume on the owner's thread, nobody else at work
//!   read_hit_guest        RemoteVolume on the other thread, nobody else at work
//!   read_hit_two_threads  both at once: nanoseconds a request and thread, the mean of the two
//!   …_ratio               that, to the mean of the two alone in the same round
//! ```
//! Devices complete at once and copy nothing; every request is a read of one line that is there,
//! drawn at random. Rounds take the three in turn, so that whatever else the machine does meets
//! all. A round's value is the median of its slices.

use std::hint::black_box;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use block_io::device::null::{NullDevice, NullQueue};
use block_io::device::shared::SharedQueue;
use block_io::reactor::{Reactor, ReactorConfig};
use block_io::sim::Random;
use block_io::{
    BlockDevice, BlockQueue, Buffer, DeviceError, Geometry, PoolLayout, Request, RequestId,
    Timestamp,
};
use cache_engine::cache::{Cache, CacheConfig, CacheMode, CacheSpace, LineSize, VolumeSettings};
use cache_engine::volume::cores::{Invitation, RemoteServer, RemoteVolume};
use cache_engine::volume::{CacheEngine, CachedVolume};

use crate::results::{Results, median};
use crate::{Failure, Plan};

const LINE: u64 = 4 << 10;
/// As of `read_hit`, which is the cache without queues.
const CACHE_BYTES: u64 = 1 << 30;
const WORKING_SET: u64 = 256 << 20;
const DEPTH: usize = 32;
const ROUNDS_MIN: u32 = 10;
/// Requests between two looks at the clock.
const SLICE: u64 = 2000;

const OWNER: &str = "read_hit_owner";
const GUEST: &str = "read_hit_guest";
const BOTH: &str = "read_hit_two_threads";
const RATIO: &str = "read_hit_two_threads_ratio";

const GONE: &str = "the guest's thread has ended";

type Volume = SharedQueue<CachedVolume<NullQueue, NullQueue>>;

/// Runs all of it, if any of it is wanted.
pub(crate) fn run(plan: &Plan, results: &mut Results) -> Result<(), Failure> {
    if ![OWNER, GUEST, BOTH, RATIO].iter().any(|name| plan.wants(name)) {
        return Ok(());
    }
    let rounds = plan.runs.max(ROUNDS_MIN);
    let length = plan.time / (3 * rounds);
    let reactor = reactor().map_err(told)?;
    let mut owner = Side::new(volume().map_err(told)?, &reactor, 1);
    owner.warm();
    let (mut server, invitation) =
        RemoteServer::new(&owner.queue, &reactor, DEPTH).map_err(told)?;
    let samples = thread::scope(|scope| {
        let (starts, started) = channel();
        let (values, measured) = channel();
        let guest = scope.spawn(move || visit(invitation, &started, &values));
        let mut samples: [Vec<f64>; 3] = Default::default();
        // What the guest does not find it asks the owner for.
        let mut serve = || while server.poll(Timestamp(0)) {};
        for _ in 0..rounds {
            samples[0].push(owner.measure(length, &mut serve));
            starts.send(length).map_err(|_| GONE)?;
            samples[1].push(await_value(&measured, &mut serve)?);
            starts.send(length).map_err(|_| GONE)?;
            let here = owner.measure(length, &mut serve);
            samples[2].push((here + await_value(&measured, &mut serve)?) / 2.0);
        }
        drop(starts);
        guest.join().expect("does not panic").map_err(told)?;
        Ok::<_, Failure>(samples)
    })?;
    owner.check()?;
    let [alone, guest, both] = &samples;
    let alone_both = alone.iter().zip(guest).map(|(owner, guest)| (owner + guest) / 2.0);
    let ratios: Vec<_> = both.iter().zip(alone_both).map(|(both, alone)| both / alone).collect();
    for (name, values) in [(OWNER, alone), (GUEST, guest), (BOTH, both)] {
        results.record(name, "ns", values);
    }
    results.record(RATIO, "x", &ratios);
    Ok(())
}

fn told(error: DeviceError) -> Failure {
    error.to_string()
}

fn reactor() -> Result<Reactor, DeviceError> {
    Reactor::new(ReactorConfig { pool: PoolLayout::HEAP, ..Default::default() })
}

fn null(capacity: u64) -> Result<NullQueue, DeviceError> {
    BlockDevice::<()>::open_queue(&NullDevice::new(capacity), &(), DEPTH)
}

fn volume() -> Result<Volume, DeviceError> {
    let line_size = LineSize::from_bytes(LINE).map_err(DeviceError::new)?;
    let config = CacheConfig { line_size, ..CacheConfig::default() };
    let space = CacheSpace { data_offset: 0, length: CACHE_BYTES, transfer_max: 1 << 20 };
    let cache = Cache::in_memory(config, space, block_io::BufferPool::heap())?;
    let engine = CacheEngine::new(cache, null(CACHE_BYTES)?);
    let settings = VolumeSettings {
        name: "volume".into(),
        geometry: Geometry::new(4 << 30),
        mode: CacheMode::WriteThrough,
        known: None,
        cipher: None,
    };
    Ok(SharedQueue::new(engine.add_volume(null(4 << 30)?, settings)?))
}

/// What the guest measured, which is served meanwhile.
fn await_value(measured: &Receiver<f64>, serve: &mut impl FnMut()) -> Result<f64, Failure> {
    loop {
        serve();
        match measured.recv_timeout(Duration::from_millis(1)) {
            Err(RecvTimeoutError::Timeout) => {}
            value => return value.map_err(|_| GONE.to_owned()),
        }
    }
}

/// The guest's thread: measures whenever it is told to.
fn visit(
    invitation: Invitation,
    started: &Receiver<Duration>,
    values: &Sender<f64>,
) -> Result<(), DeviceError> {
    let reactor = reactor()?;
    let volume = RemoteVolume::accept(invitation, &reactor, Some(null(CACHE_BYTES)?))?;
    let mut side = Side::new(volume, &reactor, 2);
    while let Ok(length) = started.recv() {
        if values.send(side.measure(length, &mut || {})).is_err() {
            break;
        }
    }
    Ok(())
}

/// A thread's way to the volume.
struct Side<Queue> {
    queue: Queue,
    buffer: Option<Buffer>,
    completions: Vec<block_io::Completion>,
    random: Random,
    requests: u64,
}

impl<Queue: BlockQueue> Side<Queue> {
    fn new(queue: Queue, reactor: &Reactor, seed: u64) -> Self {
        let buffer = Some(reactor.pool().allocate(LINE as usize));
        let completions = Vec::with_capacity(DEPTH);
        Self { queue, buffer, completions, random: Random::new(seed), requests: 0 }
    }

    /// Median of the nanoseconds a request in slices of so long a time; `between` them something
    /// else may be done.
    fn measure(&mut self, length: Duration, between: &mut impl FnMut()) -> f64 {
        let begin = Instant::now();
        let mut slices = Vec::new();
        while slices.is_empty() || begin.elapsed() < length {
            let start = Instant::now();
            for _ in 0..SLICE {
                let offset = self.random.below(WORKING_SET / LINE) * LINE;
                self.read(offset);
            }
            slices.push(start.elapsed().as_nanos() as f64 / SLICE as f64);
            between();
        }
        median(&slices)
    }

    fn read(&mut self, offset: u64) {
        let buffer = self.buffer.take().expect("given back");
        let request = Request::read(RequestId(offset), offset, buffer);
        self.queue.submit(request).expect("nothing is in flight");
        while self.completions.is_empty() {
            self.queue.poll(Timestamp(0), &mut self.completions);
        }
        self.requests += 1;
        self.buffer = black_box(self.completions.pop()).and_then(|done| done.buffer);
    }
}

impl Side<Volume> {
    fn warm(&mut self) {
        for offset in (0..WORKING_SET).step_by(LINE as usize) {
            self.read(offset);
        }
        // The last store has no reader after it.
        while self.queue.poll(Timestamp(0), &mut self.completions) {}
    }

    /// That both sides served hits.
    fn check(&self) -> Result<(), Failure> {
        let statistics = self.queue.with_queue(|volume| volume.statistics());
        let warmed = WORKING_SET / LINE;
        let hits = statistics.read_hits as f64 / (statistics.reads - warmed).max(1) as f64;
        let guests = statistics.reads > self.requests;
        let right = hits > 0.95 && guests;
        if right { Ok(()) } else { Err(format!("{BOTH}: {:.1} % hits", hits * 100.0)) }
    }
}
