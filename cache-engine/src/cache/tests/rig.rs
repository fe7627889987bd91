//! A cache on devices of memory that hold what is written to them, answered by hand or all at once.
//! With several volumes, with a device that outlives it, with time.
//!
//! ```text
//!   read, write ─▶ cache ─▶ of_origins, of_device ─▶ answered one by one, or all: settle
//!                    ▲          │ (taken, bytes not moved yet)
//!     crash ─▶ start ┘          └─ what is not answered when it crashes has not happened
//! ```
//! Absent: devices that reorder or tear of their own accord, which the simulation has.

use std::time::Duration;

use block_io::sim::Medium;

use super::*;
use crate::cache::cipher::{LineCipher, VolumeKey};
use crate::cache::metadata::layout::SUPERBLOCK_REGION;
use crate::cache::metadata::superblock::newest;
use crate::cache::metadata::{
    FormatId, IdentityKind, Layout, OriginIdentity, Superblock, VolumeRecord,
};
use crate::cache::outbox::Token;
use crate::cache::{Event, Ticket};

pub(super) struct Rig {
    pub(super) cache: Cache,
    pub(super) pool: BufferPool,
    pub(super) config: CacheConfig,
    /// By the volume's number.
    pub(super) origins: Vec<Medium>,
    pub(super) device: Medium,
    pub(super) of_origins: Vec<(VolumeId, Request)>,
    pub(super) of_device: Vec<Request>,
    pub(super) replies: Vec<(VolumeId, Completion)>,
    pub(super) events: Vec<Event>,
    pub(super) now: Timestamp,
    persistent: bool,
    next: u64,
    starts: u8,
}

/// Lines of 4 KiB, all that is asked for is cached.
pub(super) fn small_lines() -> CacheConfig {
    CacheConfig { line_size: LineSize::ALL[0], ..plain() }
}

/// Each sector says whose and which it is.
pub(super) fn content(owner: u8, extent: Extent) -> Vec<u8> {
    let sectors = extent.offset / 512..extent.end() / 512;
    let sector = |number: u64| [owner, number as u8, (number >> 8) as u8, owner ^ 0xFF];
    sectors.flat_map(|number| sector(number).repeat(128)).collect()
}

pub(super) fn cipher(byte: u8) -> LineCipher {
    let bytes = std::array::from_fn(|at| byte.wrapping_add(at as u8));
    LineCipher::new(&VolumeKey::new(&bytes).expect("its halves differ"))
}

impl Rig {
    pub(super) fn in_memory(config: CacheConfig, sets: u64) -> Self {
        let length = sets * 16 * config.line_size.bytes();
        let space = CacheSpace { data_offset: 0, length, transfer_max: 1 << 20 };
        let pool = BufferPool::heap();
        let cache = Cache::in_memory(config.clone(), space, pool.clone()).expect("sizes fit");
        Self::around(cache, config, pool)
    }

    /// On a device that was just formatted, and loaded.
    pub(super) fn on_device(config: CacheConfig, sets: u32) -> Self {
        let mut layout = Layout::for_device(16 << 20, config.line_size).expect("fits");
        layout.sets = sets.min(layout.sets);
        layout.table_pages = layout.sets.div_ceil(layout.sets_per_page);
        layout.check().expect("sound");
        let superblock = Superblock::new(FormatId([1; 16]), layout);
        let pool = BufferPool::heap();
        let cache = Self::open(config.clone(), superblock.clone(), 128, &pool);
        let mut rig = Self { persistent: true, ..Self::around(cache, config, pool) };
        rig.device.write(superblock.offset(), &superblock.encode());
        rig.load();
        rig
    }

    fn around(cache: Cache, config: CacheConfig, pool: BufferPool) -> Self {
        Self {
            cache,
            pool,
            config,
            origins: Vec::new(),
            device: Medium::default(),
            of_origins: Vec::new(),
            of_device: Vec::new(),
            replies: Vec::new(),
            events: Vec::new(),
            now: NOW,
            persistent: false,
            next: 0,
            starts: 0,
        }
    }

    fn open(config: CacheConfig, superblock: Superblock, id: u8, pool: &BufferPool) -> Cache {
        let fresh = FormatId([id; 16]);
        Cache::open(config, superblock, 1 << 20, fresh, pool.clone()).expect("sizes fit")
    }

    pub(super) fn superblock(&self) -> Superblock {
        let region = |at| self.device.read(Extent::new(at, SUPERBLOCK_REGION));
        newest(&region(0), &region(SUPERBLOCK_REGION)).expect("one is whole")
    }

    /// The process dies, and another one starts: nothing is loaded yet, no volume is there.
    pub(super) fn crash(&mut self) {
        self.starts += 1;
        self.cache =
            Self::open(self.config.clone(), self.superblock(), 128 + self.starts, &self.pool);
        self.of_origins.clear();
        self.of_device.clear();
        self.replies.clear();
        self.events.clear();
        self.collect();
    }

    /// Ends in order and starts again, likewise.
    pub(super) fn stop_and_start(&mut self) {
        self.cache.stop();
        self.until(Event::Stopped);
        self.crash();
    }

    /// Until all that an earlier run left is loaded.
    pub(super) fn load(&mut self) {
        self.until(Event::Loaded);
    }

    pub(super) fn until(&mut self, event: Event) {
        for _ in 0..10_000 {
            self.settle();
            if self.events.contains(&event) {
                return;
            }
            self.pass(Duration::from_millis(1));
        }
        panic!("{event:?} never comes: {:?}", self.events);
    }

    /// A volume whose origin holds [`content`] of its own. If the superblock knows the name, it is
    /// that volume, on the origin that it had. One that is called "volatile" has a volatile cache.
    pub(super) fn add(&mut self, name: &str, capacity: u64) -> VolumeId {
        self.add_encrypted(name, capacity, None)
    }

    pub(super) fn add_encrypted(
        &mut self,
        name: &str,
        capacity: u64,
        cipher: Option<LineCipher>,
    ) -> VolumeId {
        let known = self.cache.superblock().and_then(|superblock| superblock.volume_named(name));
        let known = known.map(|record| record.id);
        let mut settings = VolumeSettings { name: name.into(), known, cipher, ..volume(capacity) };
        settings.geometry.volatile_cache = name.starts_with("volatile");
        let id = self.cache.add_volume(settings).expect("room");
        self.collect();
        if known.is_none() {
            let at = usize::from(id.0);
            self.origins.resize_with(self.origins.len().max(at + 1), Medium::default);
            self.origins[at] = Medium::default();
            let own = Extent::new(0, capacity.min(4 << 20));
            self.origins[at].write(0, &content(name.as_bytes()[0], own));
        }
        if self.persistent {
            self.record(id, name);
        }
        id
    }

    /// Records a volume, and returns what was asked to be recorded.
    pub(super) fn record(&mut self, id: VolumeId, name: &str) -> VolumeRecord {
        let identity = OriginIdentity::new(IdentityKind::Assigned, name).expect("a text");
        let record = self.cache.volume_record(id, identity).expect("it was added");
        let ticket = self.cache.record_volume(record.clone()).expect("room");
        self.collect();
        self.done(ticket);
        record
    }

    pub(super) fn done(&mut self, ticket: Ticket) {
        self.until(Event::Done(ticket));
    }

    pub(super) fn collect(&mut self) {
        let outbox = self.cache.outbox();
        self.of_origins.append(&mut outbox.origin);
        self.of_device.append(&mut outbox.cache);
        self.replies.append(&mut outbox.replies);
        self.events.append(&mut outbox.events);
    }

    pub(super) fn submit(&mut self, id: VolumeId, request: Request) -> RequestId {
        let name = request.id;
        self.cache.submit(self.now, id, request).expect("room");
        self.collect();
        name
    }

    fn id(&mut self) -> RequestId {
        self.next += 1;
        RequestId(self.next)
    }

    pub(super) fn read(&mut self, id: VolumeId, offset: u64, length: u64) -> RequestId {
        let (name, buffer) = (self.id(), self.pool.allocate(length as usize));
        buffer.fill(0xA5);
        self.submit(id, Request::read(name, offset, buffer))
    }

    pub(super) fn write(&mut self, id: VolumeId, extent: Extent, value: u8) -> RequestId {
        let (name, buffer) = (self.id(), self.pool.allocate(extent.length as usize));
        buffer.copy_from_slice(&content(value, extent));
        self.submit(id, Request::write(name, extent.offset, buffer))
    }

    /// Does the request of an origin at this place of the queue, and answers it.
    pub(super) fn origin_answers(&mut self, at: usize) {
        let (id, request) = self.of_origins.remove(at);
        carry_out(&mut self.origins[usize::from(id.0)], &request);
        self.cache.complete(self.now, request.complete(Ok(())));
        self.collect();
    }

    /// The origin fails the request at this place of the queue.
    pub(super) fn origin_fails(&mut self, at: usize, error: IoError) {
        let (_, request) = self.of_origins.remove(at);
        self.cache.complete(self.now, request.complete(Err(error)));
        self.collect();
    }

    /// Time passes in which the device answers everything, and origins nothing.
    pub(super) fn pass_without_origins(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now = self.now + Duration::from_millis(5);
            while self.tick() || !self.of_device.is_empty() {
                while !self.of_device.is_empty() {
                    self.device_answers(0, Ok(()));
                }
            }
        }
    }

    pub(super) fn device_answers(&mut self, at: usize, result: Result<(), IoError>) {
        let request = self.of_device.remove(at);
        if result.is_ok() {
            carry_out(&mut self.device, &request);
        }
        self.cache.complete(self.now, request.complete(result));
        self.collect();
    }

    /// The first request of the device that is about the data, not the records.
    pub(super) fn data_request(&self) -> Option<usize> {
        let records = |request: &Request| matches!(Token::of(request.id), Token::Metadata { .. });
        self.of_device.iter().position(|request| !records(request))
    }

    pub(super) fn tick(&mut self) -> bool {
        let more = self.cache.tick(self.now);
        self.collect();
        more
    }

    /// Answers everything until nothing moves.
    pub(super) fn settle(&mut self) {
        loop {
            while !self.of_device.is_empty() {
                self.device_answers(0, Ok(()));
            }
            if !self.of_origins.is_empty() {
                self.origin_answers(0);
            } else if !self.tick() && self.of_device.is_empty() {
                return;
            }
        }
    }

    pub(super) fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
        self.settle();
    }

    /// Lets every record reach the device.
    pub(super) fn rest(&mut self) {
        for _ in 0..20 {
            self.pass(Duration::from_millis(5));
        }
    }

    pub(super) fn reply(&mut self, name: RequestId) -> Completion {
        let at = self.replies.iter().position(|(_, reply)| reply.id == name);
        self.replies.remove(at.expect("it is answered")).1
    }

    pub(super) fn bytes(&mut self, name: RequestId) -> Vec<u8> {
        let reply = self.reply(name);
        reply.result.expect("it succeeds");
        reply.buffer.expect("given back").to_vec()
    }

    pub(super) fn put(&mut self, id: VolumeId, extent: Extent, value: u8) {
        let name = self.write(id, extent, value);
        self.settle();
        assert_eq!(self.reply(name).result, Ok(()));
    }

    /// Reads, checks that it is what the origin has, and says whether it was a hit.
    pub(super) fn is_hit(&mut self, id: VolumeId, offset: u64, length: u64) -> bool {
        let before = self.statistics(id).read_hits;
        let name = self.read(id, offset, length);
        self.settle();
        let right = self.origins[usize::from(id.0)].read(Extent::new(offset, length));
        assert!(self.bytes(name) == right, "volume {}: {offset}+{length} is stale", id.0);
        self.statistics(id).read_hits > before
    }

    /// How many of the first lines of 4 KiB are hits; every one is what the origin has.
    pub(super) fn hits(&mut self, id: VolumeId, lines: u64) -> u64 {
        (0..lines).filter(|line| self.is_hit(id, line * LINE, LINE)).count() as u64
    }

    pub(super) fn statistics(&self, id: VolumeId) -> Statistics {
        self.cache.statistics(id).expect("the volume is there")
    }

    /// Whether the cache was given up.
    pub(super) fn has_degraded(&self) -> bool {
        self.events.iter().any(|event| matches!(event, Event::Degraded(_)))
    }
}

fn carry_out(medium: &mut Medium, request: &Request) {
    let buffer = request.buffer.as_ref();
    match request.operation {
        Operation::Read => {
            let bytes = medium.read(request.extent);
            buffer.expect("a read has room").copy_from_slice(&bytes);
        }
        Operation::Write => {
            medium.write(request.extent.offset, &buffer.expect("a write has bytes").to_vec());
        }
        Operation::WriteZeroes | Operation::Discard => medium.zero(request.extent),
        Operation::Flush => {}
    }
}
