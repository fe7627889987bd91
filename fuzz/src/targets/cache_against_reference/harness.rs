//! A cache, its devices and the references: what a step of an input does to them.
//!
//! On a device the cache keeps its records and may be warm after a stop or a crash; in memory it
//! starts with nothing. A crash lets each request in flight land, in part or whole, or not at all.

use std::time::Duration;

use block_io::sim::{ReferenceDisk, fill_pattern};
use block_io::{
    Buffer, BufferPool, Completion, Extent, IoError, Operation, PoolLayout, Request, RequestId,
    Timestamp,
};
use cache_engine::cache::{
    Cache, CacheConfig, CacheMode, CacheSpace, Event, LineSize, Ticket, VolumeId,
};

use super::devices::{Device, Landing};
use super::starts::open;
use crate::behaviour::Observer;

const SECTOR: u64 = 512;
/// Lines of one set of the index; a cache of one or two sets evicts all the time.
const WAYS: u64 = 16;
const REQUESTS_MAX: usize = 24;
pub(super) const TRANSFER_MAX: u32 = 128 << 10;

/// A volume, its origin, and what its clients may read.
pub(super) struct Volume {
    /// Absent while it is taken out.
    pub(super) id: Option<VolumeId>,
    pub(super) mode: CacheMode,
    pub(super) origin: Device,
    pub(super) reference: ReferenceDisk,
    /// Bytes when nobody has made it smaller.
    pub(super) full: u64,
    /// Bytes now.
    pub(super) capacity: u64,
    /// Writes of others that the cache was told of and has not forgotten what was there.
    pub(super) anothers: Vec<(RequestId, Ticket)>,
}

pub(super) struct Harness {
    pub(super) cache: Cache,
    pub(super) config: CacheConfig,
    pub(super) pool: BufferPool,
    pub(super) volumes: Vec<Volume>,
    pub(super) cache_device: Device,
    pub(super) space: CacheSpace,
    pub(super) persistent: bool,
    /// The host does not believe the cache device any more.
    pub(super) disowned: bool,
    pub(super) starts: u32,
    pub(super) now: Timestamp,
    pub(super) events: Vec<Event>,
    pub(super) next: u64,
    /// An origin has failed a request, or a volume was made smaller, so that a client's may fail.
    pub(super) may_fail: bool,
    pub(super) observer: Observer,
}

impl Harness {
    pub(super) fn new(mode: u8, line_size: u8, sizes: u8) -> Self {
        let line_size = LineSize::ALL[usize::from(line_size) % LineSize::ALL.len()];
        let set = line_size.bytes() * WAYS;
        let length = set * u64::from(1 + (sizes & 1)) + u64::from(sizes >> 4 & 3) * SECTOR;
        // Two to four times the cache, and not in whole lines.
        let capacity = set * u64::from(2 + (sizes >> 1 & 3)) + u64::from(sizes >> 3 & 1) * SECTOR;
        let persistent = sizes & 0x80 != 0;
        let config = CacheConfig {
            line_size,
            requests_max: REQUESTS_MAX,
            fills_max: 8,
            errors_max: u32::MAX,
            ..CacheConfig::default()
        };
        let device_bytes = if persistent { length + (512 << 10) } else { length + 4096 };
        let space = CacheSpace { data_offset: 4096, length, transfer_max: TRANSFER_MAX };
        let count = 1 + u64::from(sizes >> 6 & 1);
        let volume = |number: u64| {
            let full = capacity + number * set;
            Volume {
                id: None,
                mode: CacheMode::ALL[usize::from(mode) % 3],
                origin: Device::new("origin", full, true),
                reference: ReferenceDisk::new(number, full).with_late_writes(true),
                full,
                capacity: full,
                anothers: Vec::new(),
            }
        };
        let pool = POOL.with(BufferPool::clone);
        let mut cache_device = Device::new("cache device", device_bytes, false);
        let cache = open(&config, space, persistent, (&mut cache_device, true), 0, &pool);
        let mut harness = Self {
            cache,
            config,
            pool,
            volumes: (0..count).map(volume).collect(),
            cache_device,
            space,
            persistent,
            disowned: false,
            starts: 0,
            now: Timestamp(0),
            events: Vec::new(),
            next: 1,
            may_fail: false,
            observer: Observer::default(),
        };
        harness.add_all();
        harness
    }

    pub(super) fn number(&self, volume: usize) -> usize {
        volume % self.volumes.len()
    }

    pub(super) fn submit(&mut self, volume: usize, operation: Operation, a: u8, b: u8, c: u8) {
        let volume = self.number(volume);
        let sectors = self.volumes[volume].capacity / SECTOR;
        let first = (u64::from(a) << 8 | u64::from(b)) % sectors;
        // Mostly short; the longest span several lock regions.
        let length = if c < 0xe0 { 1 + u64::from(c % 48) } else { 1 + u64::from(c - 0xe0) * 24 };
        let length = length.min(sectors - first);
        self.request(volume, operation, Extent::new(first * SECTOR, length * SECTOR));
    }

    pub(super) fn request(&mut self, volume: usize, operation: Operation, extent: Extent) {
        let Some(volume_id) = self.volumes[volume].id else { return };
        let id = RequestId(self.next);
        let buffer = || self.pool.allocate(extent.length as usize);
        let request = match operation {
            Operation::Read => Request::read(id, extent.offset, marked(buffer())),
            Operation::Write => {
                let buffer = buffer();
                fill_pattern(&buffer, id.0, extent.offset);
                Request::write(id, extent.offset, buffer)
            }
            Operation::Flush => Request::flush(id),
            Operation::Discard => Request::discard(id, extent),
            Operation::WriteZeroes => Request::write_zeroes(id, extent),
        };
        if self.cache.in_flight() == REQUESTS_MAX {
            let refused = self.cache.submit(self.now, volume_id, request);
            assert_eq!(refused.expect_err("the cache is full").id, id);
            return;
        }
        self.next += 1;
        self.volumes[volume].reference.begin(&request);
        self.cache.submit(self.now, volume_id, request).expect("the cache has room");
        self.empty_outbox();
    }

    pub(super) fn complete_origin(
        &mut self,
        volume: usize,
        which: u8,
        result: Result<(), IoError>,
        landing: Landing,
    ) {
        let volume = self.number(volume);
        let request = self.volumes[volume].origin.complete(usize::from(which), landing);
        if let Some(request) = request {
            self.may_fail |= result.is_err();
            self.cache.complete(self.now, request.complete(result));
            self.empty_outbox();
        }
    }

    pub(super) fn complete_cache(
        &mut self,
        which: u8,
        result: Result<(), IoError>,
        landing: Landing,
    ) {
        if let Some(request) = self.cache_device.complete(usize::from(which), landing) {
            self.cache.complete(self.now, request.complete(result));
            self.empty_outbox();
        }
    }

    pub(super) fn set_mode(&mut self, volume: usize, mode: CacheMode) {
        let volume = self.number(volume);
        self.volumes[volume].mode = mode;
        if let Some(id) = self.volumes[volume].id {
            self.cache.set_mode(id, mode);
        }
    }

    pub(super) fn land_late(&mut self, volume: usize, which: u8) {
        let volume = self.number(volume);
        self.volumes[volume].origin.land_late(usize::from(which));
    }

    /// No write of the past lands any more, as after a reconnection.
    pub(super) fn fence(&mut self, volume: usize) {
        let number = self.number(volume);
        let volume = &mut self.volumes[number];
        volume.origin.forget_late();
        volume.reference.fence();
        if let Some(id) = volume.id {
            self.cache.fence(id);
        }
        self.empty_outbox();
    }

    /// Somebody else writes to the origin, and the cache is told.
    pub(super) fn another_writes(&mut self, volume: usize, place: u8, length: u8) {
        let number = self.number(volume);
        let Some(id) = self.volumes[number].id else { return };
        let sectors = self.volumes[number].capacity / SECTOR;
        let first = u64::from(place) * sectors / 256;
        let length = (1 + u64::from(length % 64)).min(sectors - first);
        let extent = Extent::new(first * SECTOR, length * SECTOR);
        let name = self.write_behind(number, extent);
        let ticket = self.cache.invalidate(id, extent).expect("the volume is there");
        self.volumes[number].anothers.push((name, ticket));
        self.empty_outbox();
    }

    fn write_behind(&mut self, number: usize, extent: Extent) -> RequestId {
        let name = RequestId(self.next);
        self.next += 1;
        let buffer = self.pool.allocate(extent.length as usize);
        fill_pattern(&buffer, name.0, extent.offset);
        let volume = &mut self.volumes[number];
        volume.reference.begin(&Request::write(name, extent.offset, buffer.clone()));
        volume.origin.overwrite(extent.offset, &buffer.to_vec());
        name
    }

    /// The volume shrinks, with another's write behind its new end, or is as large as before.
    pub(super) fn resize(&mut self, volume: usize, high: u8, low: u8) {
        let number = self.number(volume);
        let Some(id) = self.volumes[number].id else { return };
        let Volume { full, capacity, .. } = self.volumes[number];
        let sectors = full / SECTOR;
        let end = (1 + (u64::from(high) << 8 | u64::from(low)) % (sectors - 1)) * SECTOR;
        let end = if capacity < full { full } else { end };
        self.may_fail = true;
        let name = (end < full).then(|| {
            let tail = Extent::new(end, (full - end).min(16 << 10));
            self.write_behind(number, tail)
        });
        let ticket = self.cache.resize_volume(id, end).expect("within its room");
        self.volumes[number].capacity = end;
        self.volumes[number].anothers.extend(name.map(|name| (name, ticket)));
        self.empty_outbox();
    }

    /// Time passes.
    pub(super) fn pass(&mut self, milliseconds: u8) {
        self.now = self.now + Duration::from_millis(u64::from(milliseconds));
        self.cache.tick(self.now);
        self.empty_outbox();
    }

    pub(super) fn empty_outbox(&mut self) {
        let outbox = self.cache.outbox();
        for (id, request) in outbox.origin.drain(..) {
            let volume = self.volumes.iter_mut().find(|volume| volume.id == Some(id));
            volume.expect("a volume that is there").origin.submit(request);
        }
        outbox.cache.drain(..).for_each(|request| self.cache_device.submit(request));
        let replies: Vec<(VolumeId, Completion)> = outbox.replies.drain(..).collect();
        let events: Vec<Event> = outbox.events.drain(..).collect();
        for (id, reply) in replies {
            self.observer.note(reply.result.is_ok());
            if let Err(error) = reply.result {
                assert!(self.may_fail, "request {} failed with {error}, no origin did", reply.id.0);
            }
            let volume = self.volumes.iter_mut().find(|volume| volume.id == Some(id));
            let volume = volume.expect("a volume that is there");
            if let Err(mismatch) = volume.reference.complete(&reply) {
                panic!("{mismatch}");
            }
        }
        for event in events {
            self.hear(event);
        }
    }

    fn hear(&mut self, event: Event) {
        match event {
            Event::Done(done) => {
                for volume in &mut self.volumes {
                    let is_done = |(_, ticket): &(RequestId, Ticket)| *ticket == done;
                    if let Some(at) = volume.anothers.iter().position(is_done) {
                        let (name, _) = volume.anothers.swap_remove(at);
                        volume.reference.end(name, Ok(()));
                    }
                }
            }
            Event::Disown => {
                self.disowned = true;
                self.cache.disowned();
                self.empty_outbox();
            }
            other => self.events.push(other),
        }
    }
}

/// With a mark in every sector, which is gone when a read has filled it.
fn marked(buffer: Buffer) -> Buffer {
    for start in (0..buffer.len()).step_by(SECTOR as usize) {
        buffer.slice(start, 8).fill(0xA5);
    }
    buffer
}

thread_local! {
    /// Buffers, used again by the next input.
    static POOL: BufferPool = BufferPool::new(PoolLayout::STANDARD);
}
