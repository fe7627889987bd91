//! The cache beside the reference disk: any requests, any order of completions, failures of both
//! devices, writes that land late, and mode switches. Every read is checked, every request gets
//! one answer, and at the end origin and reference agree.

mod devices;

use block_io::sim::ReferenceDisk;
use block_io::sim::fill_pattern;
use block_io::{BufferPool, Extent, Geometry, IoError, Operation, Request, RequestId, Timestamp};
use cache_engine::cache::{
    Cache, CacheConfig, CacheMode, CacheSpace, LineSize, VolumeId, VolumeSettings,
};

use crate::Target;
use crate::behaviour::{Behaviour, Observer};
use devices::{Device, Landing};

/// The target. Three bytes of configuration, then steps of four bytes each.
pub const TARGET: Target = Target { name: "cache_against_reference", run, cost: 10, seeds };

const SECTOR: u64 = 512;
/// Lines of one set of the index; a cache of one or two sets evicts all the time.
const WAYS: u64 = 16;
const REQUESTS_MAX: usize = 24;
const STEP_LENGTH: usize = 4;
const VOLUME: VolumeId = VolumeId(0);

struct Harness {
    cache: Cache,
    pool: BufferPool,
    reference: ReferenceDisk,
    origin: Device,
    cache_device: Device,
    /// Bytes of the volume.
    capacity: u64,
    next: u64,
    /// The origin has failed a request, so that a client's may fail.
    origin_failed: bool,
    observer: Observer,
}

fn run(input: &[u8]) -> Behaviour {
    let [mode, line_size, sizes, steps @ ..] = input else {
        return Observer::default().behaviour();
    };
    let mut harness = Harness::new(*mode, *line_size, *sizes);
    for step in steps.chunks_exact(STEP_LENGTH) {
        harness.step(step[0], step[1], step[2], step[3]);
    }
    harness.finish();
    harness.observer.behaviour()
}

impl Harness {
    fn new(mode: u8, line_size: u8, sizes: u8) -> Self {
        let line_size = LineSize::ALL[usize::from(line_size) % LineSize::ALL.len()];
        let set = line_size.bytes() * WAYS;
        let length = set * u64::from(1 + (sizes & 1)) + u64::from(sizes >> 4) * SECTOR;
        // Two to four times the cache, and not in whole lines.
        let capacity = set * u64::from(2 + (sizes >> 1 & 3)) + u64::from(sizes >> 3 & 1) * SECTOR;
        let config = CacheConfig {
            line_size,
            requests_max: REQUESTS_MAX,
            fills_max: 8,
            errors_max: u32::MAX,
            ..CacheConfig::default()
        };
        let space = CacheSpace { data_offset: 4096, length, transfer_max: 128 << 10 };
        let pool = BufferPool::heap();
        let mut cache = Cache::in_memory(config, space, pool.clone()).expect("sound sizes");
        let settings = VolumeSettings {
            name: "volume".into(),
            geometry: Geometry::new(capacity),
            mode: CacheMode::ALL[usize::from(mode) % 3],
            known: None,
            cipher: None,
        };
        assert_eq!(cache.add_volume(settings).expect("room"), VOLUME);
        Self {
            cache,
            pool,
            reference: ReferenceDisk::new(0, capacity).with_late_writes(true),
            origin: Device::new("origin", capacity, true),
            cache_device: Device::new("cache device", 4096 + length, false),
            capacity,
            next: 1,
            origin_failed: false,
            observer: Observer::default(),
        }
    }

    fn step(&mut self, kind: u8, a: u8, b: u8, c: u8) {
        match kind % 16 {
            0..=3 => self.submit(Operation::Read, a, b, c),
            4..=6 => self.submit(Operation::Write, a, b, c),
            7 => {
                let operations = [Operation::WriteZeroes, Operation::Discard, Operation::Flush];
                self.submit(operations[usize::from(kind >> 4) % 3], a, b, c);
            }
            8..=10 => self.complete_origin(a, Ok(()), Landing::All),
            11 => self.fail_origin(a, b),
            12 | 13 => self.complete_cache(a, Ok(()), Landing::All),
            14 => self.complete_cache(a, Err(IoError::Media), Landing::Garbage),
            _ => match a % 5 {
                3 => self.origin.land_late(usize::from(b)),
                4 => self.fence(),
                mode => self.cache.set_mode(VOLUME, CacheMode::ALL[usize::from(mode)]),
            },
        }
    }

    fn submit(&mut self, operation: Operation, a: u8, b: u8, c: u8) {
        let sectors = self.capacity / SECTOR;
        let first = (u64::from(a) << 8 | u64::from(b)) % sectors;
        // Mostly short; the longest span several lock regions.
        let length = if c < 0xe0 { 1 + u64::from(c % 48) } else { 1 + u64::from(c - 0xe0) * 24 };
        let length = length.min(sectors - first);
        self.request(operation, Extent::new(first * SECTOR, length * SECTOR));
    }

    fn request(&mut self, operation: Operation, extent: Extent) {
        let id = RequestId(self.next);
        let buffer = || {
            let buffer = self.pool.allocate(extent.length as usize);
            fill_pattern(&buffer, id.0, extent.offset);
            buffer
        };
        let request = match operation {
            Operation::Read => Request::read(id, extent.offset, buffer()),
            Operation::Write => Request::write(id, extent.offset, buffer()),
            Operation::Flush => Request::flush(id),
            Operation::Discard => Request::discard(id, extent),
            Operation::WriteZeroes => Request::write_zeroes(id, extent),
        };
        if self.cache.in_flight() == REQUESTS_MAX {
            let refused = self.cache.submit(Timestamp(0), VOLUME, request);
            assert_eq!(refused.expect_err("the cache is full").id, id);
            return;
        }
        self.next += 1;
        self.reference.begin(&request);
        self.cache.submit(Timestamp(0), VOLUME, request).expect("the cache has room");
        self.empty_outbox();
    }

    fn complete_origin(&mut self, which: u8, result: Result<(), IoError>, landing: Landing) {
        if let Some(request) = self.origin.complete(usize::from(which), landing) {
            self.origin_failed |= result.is_err();
            self.cache.complete(Timestamp(0), request.complete(result));
            self.empty_outbox();
        }
    }

    fn fail_origin(&mut self, which: u8, how: u8) {
        let (error, landing) = match how % 5 {
            0 => (IoError::Media, Landing::Part),
            1 => (IoError::Media, Landing::None),
            2 => (IoError::ConnectionLost, Landing::Late),
            3 => (IoError::TimedOut, Landing::All),
            _ => (IoError::NoSpace, Landing::None),
        };
        self.complete_origin(which, Err(error), landing);
    }

    fn complete_cache(&mut self, which: u8, result: Result<(), IoError>, landing: Landing) {
        if let Some(request) = self.cache_device.complete(usize::from(which), landing) {
            self.cache.complete(Timestamp(0), request.complete(result));
            self.empty_outbox();
        }
    }

    /// No write of the past lands any more, as after a reconnection.
    fn fence(&mut self) {
        self.origin.forget_late();
        self.reference.fence();
        self.cache.fence(VOLUME);
    }

    fn empty_outbox(&mut self) {
        let outbox = self.cache.outbox();
        outbox.origin.drain(..).for_each(|(_, request)| self.origin.submit(request));
        outbox.cache.drain(..).for_each(|request| self.cache_device.submit(request));
        for (_, reply) in outbox.replies.drain(..) {
            self.observer.note(reply.result.is_ok());
            if let Err(error) = reply.result {
                let by_origin = self.origin_failed;
                assert!(by_origin, "request {} failed with {error}, the origin not", reply.id.0);
            }
            if let Err(mismatch) = self.reference.complete(&reply) {
                panic!("{mismatch}");
            }
        }
    }

    fn finish(&mut self) {
        self.drain();
        let statistics = self.cache.statistics(VOLUME).expect("the volume is there");
        self.fence();
        self.cache.set_mode(VOLUME, CacheMode::WriteThrough);
        // Twice: what the first filled, the second reads from the cache device.
        for _ in 0..2 {
            for extent in Extent::new(0, self.capacity).split(64 << 10) {
                self.request(Operation::Read, extent);
                self.drain();
            }
        }
        let origin = self.origin.content();
        if let Err(mismatch) = self.reference.check_content(0, origin) {
            panic!("the origin: {mismatch}");
        }
        let mut words = format!("{statistics:?}");
        words.retain(|character| !character.is_ascii_digit() || character == '0');
        self.observer.note(words);
    }

    fn drain(&mut self) {
        while self.origin.in_flight() + self.cache_device.in_flight() > 0 {
            self.complete_origin(0, Ok(()), Landing::All);
            self.complete_cache(0, Ok(()), Landing::All);
        }
        assert_eq!(self.reference.in_flight(), 0, "requests without an answer");
        assert_eq!(self.cache.in_flight(), 0, "requests in flight on idle devices");
        assert_eq!(self.cache.fills_in_flight(), 0, "fills in flight on an idle device");
    }
}

fn seeds() -> Vec<Vec<u8>> {
    let workloads: [&[[u8; STEP_LENGTH]]; 6] = [
        // A miss, its fill, a hit.
        &[[0, 0, 8, 7], [8, 0, 0, 0], [12, 0, 0, 0], [0, 0, 8, 7], [12, 0, 0, 0]],
        // A write and a read of it, with the fill still on its way.
        &[[4, 0, 0, 15], [8, 0, 0, 0], [0, 0, 4, 3], [12, 0, 0, 0], [12, 0, 0, 0]],
        // A fill overtaken by a write.
        &[[0, 0, 0, 7], [8, 0, 0, 0], [4, 0, 2, 3], [8, 0, 0, 0], [12, 1, 0, 0], [12, 0, 0, 0]],
        // A write that is lost, and lands after the next.
        &[[4, 0, 0, 7], [11, 0, 2, 0], [4, 0, 0, 7], [8, 0, 0, 0], [15, 3, 0, 0], [0, 0, 0, 7]],
        // Overlapping large requests, discards, and failures of the cache device.
        &[[5, 0, 0, 0xf0], [0, 0, 9, 0xf8], [23, 0, 40, 8], [8, 0, 0, 0], [14, 0, 0, 0]],
        // Mode switches between writes and reads.
        &[[4, 1, 0, 9], [15, 1, 0, 0], [4, 1, 0, 3], [15, 2, 0, 0], [4, 1, 4, 3], [15, 0, 0, 0]],
    ];
    let mut seeds = Vec::new();
    for (index, workload) in workloads.iter().enumerate() {
        for mode in 0..3 {
            let sizes = (index as u8) << 1;
            let steps = workload.concat().repeat(4);
            seeds.push([&[mode, index as u8, sizes][..], &steps].concat());
        }
    }
    seeds
}
