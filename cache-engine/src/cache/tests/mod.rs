//! Step tests of the cache: each device request is answered by hand, in the order that the test
//! wants to see. No devices, no time.

mod administration;
mod failures;
mod guests;
mod leases;
mod modes;
mod order;
mod persistence;
mod places;
mod policies;
mod rig;
mod volumes;

use block_io::{
    BufferPool, Completion, Extent, Geometry, IoError, Operation, Request, RequestId, Timestamp,
};

use super::policy::PolicySettings;
use super::policy::settings::{FillWidth, SequentialCutoff};
use super::{
    Cache, CacheConfig, CacheMode, CacheSpace, LineSize, Statistics, VolumeId, VolumeSettings,
};

const NOW: Timestamp = Timestamp(0);
/// The first volume of a cache; its range begins at flat byte 0.
const VOLUME: VolumeId = VolumeId(0);
const LINE: u64 = 4096;

fn volume(capacity: u64) -> VolumeSettings {
    let (geometry, mode) = (Geometry::new(capacity), CacheMode::WriteThrough);
    VolumeSettings {
        name: format!("volume of {capacity}"),
        geometry,
        mode,
        known: None,
        cipher: None,
    }
}

/// Reads what it is asked for and caches all of it.
fn plain() -> CacheConfig {
    let policy = PolicySettings {
        fill_width: FillWidth::Requested,
        sequential_cutoff: SequentialCutoff::NEVER,
        ..Default::default()
    };
    CacheConfig { policy, ..Default::default() }
}

/// A cache, and what it has asked for and not been answered.
struct Desk {
    cache: Cache,
    pool: BufferPool,
    origin: Vec<Request>,
    device: Vec<Request>,
    replies: Vec<Completion>,
    next: u64,
}

impl Desk {
    /// Lines of 4 KiB, 16 MiB origin, `sets` sets.
    fn new(mode: CacheMode, sets: u64) -> Self {
        let config = CacheConfig { line_size: LineSize::ALL[0], ..plain() };
        let mut desk = Self::with(config, sets);
        desk.set_mode(mode);
        desk
    }

    fn with(config: CacheConfig, sets: u64) -> Self {
        let length = sets * 16 * config.line_size.bytes();
        let space = CacheSpace { data_offset: 0, length, transfer_max: 1 << 20 };
        let pool = BufferPool::heap();
        let mut cache = Cache::in_memory(config, space, pool.clone()).expect("sizes are right");
        let id = cache.add_volume(volume(16 << 20)).expect("room");
        assert_eq!(id, VOLUME);
        Self { cache, pool, origin: Vec::new(), device: Vec::new(), replies: Vec::new(), next: 0 }
    }

    fn read(&mut self, offset: u64, length: u64) -> RequestId {
        let id = self.id();
        let buffer = self.pool.allocate(length as usize);
        self.submit(Request::read(id, offset, buffer))
    }

    fn write(&mut self, offset: u64, length: u64, value: u8) -> RequestId {
        let id = self.id();
        let buffer = self.pool.allocate(length as usize);
        buffer.fill(value);
        self.submit(Request::write(id, offset, buffer))
    }

    fn id(&mut self) -> RequestId {
        self.next += 1;
        RequestId(self.next)
    }

    fn submit(&mut self, request: Request) -> RequestId {
        let id = request.id;
        self.cache.submit(NOW, VOLUME, request).expect("room");
        self.collect();
        id
    }

    fn collect(&mut self) {
        let outbox = self.cache.outbox();
        self.origin.extend(outbox.origin.drain(..).map(|(_, request)| request));
        self.device.append(&mut outbox.cache);
        self.replies.extend(outbox.replies.drain(..).map(|(_, reply)| reply));
    }

    /// Answers the oldest request to the origin; reads get `value` in every byte.
    fn origin_answers(&mut self, value: u8, result: Result<(), IoError>) -> Operation {
        assert!(!self.origin.is_empty(), "the cache asks nothing of the origin");
        let request = self.origin.remove(0);
        self.answer(request, value, result)
    }

    /// Answers the oldest request to the origin with what its buffer holds.
    fn origin_answers_as_it_is(&mut self) {
        let request = self.origin.remove(0);
        self.cache.complete(NOW, request.complete(Ok(())));
        self.collect();
    }

    /// Likewise for the cache device.
    fn device_answers(&mut self, value: u8, result: Result<(), IoError>) -> Operation {
        assert!(!self.device.is_empty(), "the cache asks nothing of the cache device");
        let request = self.device.remove(0);
        self.answer(request, value, result)
    }

    fn answer(&mut self, request: Request, value: u8, result: Result<(), IoError>) -> Operation {
        if request.operation == Operation::Read {
            request.buffer.as_ref().expect("a read has a buffer").fill(value);
        }
        let operation = request.operation;
        self.cache.complete(NOW, request.complete(result));
        self.collect();
        operation
    }

    /// Answers everything with success until nothing is asked; origin reads give `value`.
    fn settle(&mut self, value: u8) {
        while !self.origin.is_empty() || !self.device.is_empty() {
            while !self.device.is_empty() {
                self.device_answers(value, Ok(()));
            }
            if !self.origin.is_empty() {
                self.origin_answers(value, Ok(()));
            }
        }
    }

    /// The only answer there is, which must be to `id`.
    fn reply(&mut self, id: RequestId) -> Completion {
        assert_eq!(self.replies.len(), 1, "answers: {:?}", self.replies);
        let reply = self.replies.remove(0);
        assert_eq!(reply.id, id);
        reply
    }

    /// Makes a line valid in the cache by reading it.
    fn warm(&mut self, offset: u64) {
        let id = self.read(offset, LINE);
        self.settle(1);
        self.reply(id).result.expect("the origin answered");
    }

    fn is_hit(&mut self, offset: u64, length: u64) -> bool {
        let before = self.statistics();
        let id = self.read(offset, length);
        self.settle(2);
        self.reply(id).result.expect("both devices answer");
        self.statistics().read_hits > before.read_hits
    }

    fn statistics(&self) -> Statistics {
        self.cache.statistics(VOLUME).expect("the volume is there")
    }

    fn set_mode(&mut self, mode: CacheMode) {
        self.cache.set_mode(VOLUME, mode);
    }

    fn quiet(&self) -> bool {
        self.origin.is_empty() && self.device.is_empty() && self.replies.is_empty()
    }
}
