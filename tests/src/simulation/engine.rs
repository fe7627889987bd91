//! The engine as the simulation sees it: start, submit, poll, and a few switches.
//!
//! This is the one file of the simulation that names the engine's types. What is drawn here is
//! what an operator would set. Every volume has an origin of its own and a part of the one cache
//! device.
//!
//! Absent: warm starts. After a crash the engine starts on the devices as they were left, and
//! what it makes of them is its own affair.

use block_io::sim::{Random, SimDisk, SimQueue, World};
use block_io::{BlockDevice, BlockQueue, Completion, Request, Timestamp};
use cache_engine::cache::{CacheConfig, CacheMode, CacheSpace, LineSize, Statistics};
use cache_engine::volume::CachedVolume;

use super::crash_images::{Recording, RecordingQueue};

/// How an engine is set up, the same before and after a crash.
#[derive(Clone, Copy, Debug)]
pub(super) struct Setup {
    config: CacheConfig,
    /// Where the first volume's lines begin.
    data_offset: u64,
    /// Bytes for lines, of each volume.
    length: u64,
    /// Depths of the devices' queues, shallow ones too, so that refusals happen.
    origin_depth: usize,
    cache_depth: usize,
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
}

impl Setup {
    /// Any setup.
    pub(super) fn draw(random: &mut Random) -> Self {
        // Mostly small lines: the same bytes make more of them, and more happens to each.
        let line_size = match random.below(3) {
            0 => *random.choose(&LineSize::ALL),
            _ => LineSize::ALL[0],
        };
        let mode = any_mode(random);
        let requests_max = random.range(1..=64) as usize;
        let fills_max = random.range(1..=64) as usize;
        let sets = random.range(1..=if line_size == LineSize::ALL[0] { 8 } else { 2 });
        Self {
            config: CacheConfig { mode, line_size, requests_max, fills_max },
            data_offset: 4096 * random.below(3),
            length: sets * 16 * line_size.bytes(),
            origin_depth: random.range(1..=64) as usize,
            cache_depth: random.range(1..=64) as usize,
        }
    }

    /// A setup for measuring latencies: nothing is scarce but the lines and the fills.
    pub(super) fn roomy() -> Self {
        let config = CacheConfig { fills_max: ROOMY_FILLS, ..CacheConfig::default() };
        Self { config, data_offset: 0, length: 4 << 20, origin_depth: 256, cache_depth: 256 }
    }

    /// A setup for crash images: the fewest lines, so that slots change hands.
    pub(super) fn cramped() -> Self {
        let config = CacheConfig { line_size: LineSize::ALL[0], ..CacheConfig::default() };
        Self { config, data_offset: 0, length: 64 << 10, origin_depth: 64, cache_depth: 64 }
    }

    /// Bytes that the lines of one volume take.
    pub(super) fn cached_bytes(&self) -> u64 {
        self.length
    }

    /// Bytes of the cache device that so many volumes need.
    pub(super) fn cache_device_bytes(&self, volumes: usize) -> u64 {
        self.data_offset + self.length * volumes as u64
    }
}

/// Mostly the one in which most can go wrong.
fn any_mode(random: &mut Random) -> CacheMode {
    match random.below(2) {
        0 => CacheMode::WriteThrough,
        _ => *random.choose(&CacheMode::ALL),
    }
}

/// The engine, running.
pub(super) struct Engine {
    volumes: Vec<CachedVolume<SimQueue, RecordingQueue<SimQueue>>>,
    completions: Vec<Completion>,
}

impl Engine {
    /// Starts on the devices as they are. What is written to the cache device goes into
    /// `recording`.
    pub(super) fn start(
        world: &World,
        setup: &Setup,
        origins: &[SimDisk],
        cache_device: &SimDisk,
        recording: Option<&Recording>,
    ) -> Self {
        let open = |disk: &SimDisk, depth| {
            disk.open_queue(world, depth).expect("a simulated disk of this world opens")
        };
        let volume = |(origin, number): (&SimDisk, u64)| {
            let data_offset = setup.data_offset + number * setup.length;
            let space = CacheSpace { data_offset, length: setup.length, transfer_max: 1 << 20 };
            let origin = open(origin, setup.origin_depth);
            let queue = open(cache_device, setup.cache_depth);
            let cache_device = match recording {
                Some(recording) => recording.queue(queue),
                None => RecordingQueue::silent(queue),
            };
            CachedVolume::new(setup.config, origin, cache_device, space)
                .expect("the sizes are possible")
        };
        Self { volumes: origins.iter().zip(0..).map(volume).collect(), completions: Vec::new() }
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
        progress
    }

    /// Clients' requests in flight.
    pub(super) fn in_flight(&self) -> usize {
        self.volumes.iter().map(BlockQueue::in_flight).sum()
    }

    /// Whether nothing is in flight, the engine's own requests included.
    pub(super) fn is_idle(&self) -> bool {
        self.volumes.iter().all(CachedVolume::is_idle)
    }

    /// No write of the past can reach the origins any more.
    pub(super) fn fence(&mut self) {
        self.volumes.iter_mut().for_each(CachedVolume::fence);
    }

    /// Another mode from now on, any.
    pub(super) fn change_mode(&mut self, random: &mut Random) {
        let volume = random.below(self.volumes.len() as u64) as usize;
        self.volumes[volume].set_mode(any_mode(random));
    }

    /// The mode in which everything is cached, on all volumes.
    pub(super) fn cache_everything(&mut self) {
        self.volumes.iter_mut().for_each(|volume| volume.set_mode(CacheMode::WriteThrough));
    }

    /// What has been done since the start.
    pub(super) fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for Statistics { read_hits, read_partial_hits, evictions, write_fills, .. } in
            self.volumes.iter().map(CachedVolume::statistics)
        {
            counts.add(Counts { read_hits, read_partial_hits, evictions, write_fills });
        }
        counts
    }
}

impl Counts {
    /// Adds another engine's.
    pub(super) fn add(&mut self, other: Self) {
        self.read_hits += other.read_hits;
        self.read_partial_hits += other.read_partial_hits;
        self.evictions += other.evictions;
        self.write_fills += other.write_fills;
    }
}
