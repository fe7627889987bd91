//! A cache, its devices and the references: what a step of an input does to them.
//!
//! On a device the cache keeps its records and may be warm after a stop or a crash; in memory it
//! starts with nothing. A crash lets each request in flight land, in part or whole, or not at all.

use std::time::Duration;

use block_io::sim::{ReferenceDisk, fill_pattern};
use block_io::{
    BufferPool, Completion, Extent, Geometry, IoError, Operation, Request, RequestId, Timestamp,
};
use cache_engine::cache::metadata::layout::SUPERBLOCK_REGION;
use cache_engine::cache::metadata::superblock::newest;
use cache_engine::cache::metadata::{FormatId, IdentityKind, Layout, OriginIdentity, Superblock};
use cache_engine::cache::{
    Cache, CacheConfig, CacheMode, CacheSpace, Event, LineSize, Ticket, VolumeId, VolumeSettings,
};

use super::devices::{Device, Landing};
use crate::behaviour::Observer;

const SECTOR: u64 = 512;
/// Lines of one set of the index; a cache of one or two sets evicts all the time.
const WAYS: u64 = 16;
const REQUESTS_MAX: usize = 24;
const TRANSFER_MAX: u32 = 128 << 10;
/// Turns in which whatever was begun ends.
const PATIENCE: u32 = 20_000;

/// A volume, its origin, and what its clients may read.
struct Volume {
    /// Absent while it is taken out.
    id: Option<VolumeId>,
    mode: CacheMode,
    origin: Device,
    reference: ReferenceDisk,
    /// Bytes when nobody has made it smaller.
    full: u64,
    /// Bytes now.
    capacity: u64,
    /// Writes of others that the cache was told of and has not forgotten what was there.
    anothers: Vec<(RequestId, Ticket)>,
}

pub(super) struct Harness {
    cache: Cache,
    config: CacheConfig,
    pool: BufferPool,
    volumes: Vec<Volume>,
    cache_device: Device,
    space: CacheSpace,
    persistent: bool,
    /// The host does not believe the cache device any more.
    disowned: bool,
    starts: u32,
    now: Timestamp,
    events: Vec<Event>,
    next: u64,
    /// An origin has failed a request, or a volume was made smaller, so that a client's may fail.
    may_fail: bool,
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
        let pool = BufferPool::heap();
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

    fn number(&self, volume: usize) -> usize {
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

    fn request(&mut self, volume: usize, operation: Operation, extent: Extent) {
        let Some(volume_id) = self.volumes[volume].id else { return };
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

    /// Takes a volume out of which nothing is in flight.
    pub(super) fn remove(&mut self, volume: usize) {
        let number = self.number(volume);
        let volume = &self.volumes[number];
        let changes = volume.capacity < volume.full || !volume.anothers.is_empty();
        if let Some(id) = volume.id.filter(|_| !changes)
            && self.cache.remove_volume(id).is_ok()
        {
            self.volumes[number].id = None;
        }
        self.empty_outbox();
    }

    /// Adds it again, with what the cache device has of it.
    pub(super) fn add(&mut self, volume: usize) {
        let number = self.number(volume);
        if self.volumes[number].id.is_some() {
            return;
        }
        let name = format!("volume {number}");
        let known = self.cache.superblock().and_then(|superblock| superblock.volume_named(&name));
        let known = known.map(|record| record.id);
        let Volume { mode, full, .. } = self.volumes[number];
        let geometry = Geometry::new(full);
        let settings = VolumeSettings { name: name.clone(), geometry, mode, known, cipher: None };
        let id = self.cache.add_volume(settings).expect("room for two");
        self.volumes[number].id = Some(id);
        if self.persistent {
            let identity = OriginIdentity::new(IdentityKind::Assigned, &name).expect("a text");
            let record = self.cache.volume_record(id, identity).expect("it was just added");
            self.cache.record_volume(record).expect("room for two");
        }
        self.empty_outbox();
    }

    fn add_all(&mut self) {
        for number in 0..self.volumes.len() {
            self.add(number);
        }
    }

    /// The run ends in order, and another begins.
    pub(super) fn stop_and_start(&mut self) {
        self.drain();
        self.cache.stop();
        self.empty_outbox();
        if self.persistent {
            self.until("a stop", |harness| harness.events.contains(&Event::Stopped));
        }
        self.start();
    }

    /// The process is killed with whatever is in flight.
    pub(super) fn crash(&mut self, origins: u8, cache: u8) {
        let landings = [Landing::All, Landing::None, Landing::Part, Landing::All];
        for volume in &mut self.volumes {
            let mut lands = origins;
            while volume.origin.complete(0, landings[usize::from(lands % 4)]).is_some() {
                lands = lands.rotate_left(2) ^ 1;
            }
            volume.origin.forget_late();
            volume.reference.process_killed();
            volume.reference.fence();
        }
        let mut lands = cache;
        while self.cache_device.complete(0, landings[usize::from(lands % 4)]).is_some() {
            lands = lands.rotate_left(2) ^ 1;
        }
        self.start();
    }

    fn start(&mut self) {
        // What the cache device knows of the origin is not what it is.
        let changed =
            |volume: &Volume| volume.capacity < volume.full || !volume.anothers.is_empty();
        let format = self.disowned || self.volumes.iter().any(changed);
        self.disowned = false;
        for volume in &mut self.volumes {
            for (name, _) in volume.anothers.drain(..) {
                if volume.reference.in_flight() > 0 {
                    volume.reference.end(name, Ok(()));
                }
            }
            (volume.id, volume.capacity) = (None, volume.full);
        }
        self.starts += 1;
        self.events.clear();
        let device = (&mut self.cache_device, format);
        self.cache =
            open(&self.config, self.space, self.persistent, device, self.starts, &self.pool);
        self.add_all();
    }

    /// Time passes.
    pub(super) fn pass(&mut self, milliseconds: u8) {
        self.now = self.now + Duration::from_millis(u64::from(milliseconds));
        self.cache.tick(self.now);
        self.empty_outbox();
    }

    fn empty_outbox(&mut self) {
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

    pub(super) fn finish(&mut self) {
        self.add_all();
        self.drain();
        for number in 0..self.volumes.len() {
            let id = self.volumes[number].id.expect("all were added");
            let full = self.volumes[number].full;
            self.cache.resize_volume(id, full).expect("within its room");
            self.volumes[number].capacity = full;
            self.fence(number);
            self.set_mode(number, CacheMode::WriteThrough);
        }
        self.drain();
        // Twice: what the first filled, the second reads from the cache device.
        for _ in 0..2 {
            for number in 0..self.volumes.len() {
                for extent in Extent::new(0, self.volumes[number].full).split(64 << 10) {
                    self.request(number, Operation::Read, extent);
                    self.drain();
                }
            }
        }
        for volume in &mut self.volumes {
            if let Err(mismatch) = volume.reference.check_content(0, volume.origin.content()) {
                panic!("the origin: {mismatch}");
            }
            let id = volume.id.expect("all were added");
            let statistics = self.cache.statistics(id).expect("the volume is there");
            let mut words = format!("{statistics:?}");
            words.retain(|character| !character.is_ascii_digit() || character == '0');
            self.observer.note(words);
        }
    }

    fn drain(&mut self) {
        self.until("a request", |harness| {
            let volumes = &harness.volumes;
            volumes.iter().all(|volume| volume.reference.in_flight() == 0)
                && harness.cache.in_flight() == 0
                && harness.cache.fills_in_flight() == 0
        });
    }

    /// Answers everything and lets time pass until `reached`.
    fn until(&mut self, what: &str, reached: impl Fn(&Self) -> bool) {
        for _ in 0..PATIENCE {
            while self.cache_device.in_flight() > 0 || self.origins_in_flight() > 0 {
                for number in 0..self.volumes.len() {
                    self.complete_origin(number, 0, Ok(()), Landing::All);
                }
                self.complete_cache(0, Ok(()), Landing::All);
            }
            if reached(self) {
                return;
            }
            if !self.cache.tick(self.now) {
                let later = self.now + Duration::from_millis(1);
                self.now = self.cache.next_deadline().map_or(later, |due| due.max(self.now));
            }
            self.empty_outbox();
        }
        panic!("{what} that never ends");
    }

    fn origins_in_flight(&self) -> usize {
        self.volumes.iter().map(|volume| volume.origin.in_flight()).sum()
    }
}

/// A cache on the device as it is, or formatted first; or one in memory.
fn open(
    config: &CacheConfig,
    space: CacheSpace,
    persistent: bool,
    (device, format): (&mut Device, bool),
    starts: u32,
    pool: &BufferPool,
) -> Cache {
    if !persistent {
        return Cache::in_memory(config.clone(), space, pool.clone()).expect("sound sizes");
    }
    // Garbage at the front of a device is somebody else's for the cache: it has to be formatted.
    let found = if format { None } else { superblock(device) };
    let superblock = found.unwrap_or_else(|| formatted(config, device, starts));
    let fresh = format_id(starts, 2);
    Cache::open(config.clone(), superblock, TRANSFER_MAX, fresh, pool.clone()).expect("it fits")
}

fn superblock(device: &Device) -> Option<Superblock> {
    let region = SUPERBLOCK_REGION as usize;
    let (first, rest) = device.content().split_at(region);
    newest(first, &rest[..region]).ok()
}

fn formatted(config: &CacheConfig, device: &mut Device, starts: u32) -> Superblock {
    let capacity = device.content().len() as u64;
    let layout = Layout::for_device(capacity, config.line_size).expect("large enough");
    let superblock = Superblock::new(format_id(starts, 1), layout);
    let activity = layout.journal_offset - layout.activity_offset;
    device.overwrite(0, &vec![0; 2 * SUPERBLOCK_REGION as usize]);
    device.overwrite(layout.activity_offset, &vec![0; activity as usize]);
    device.overwrite(superblock.offset(), &superblock.encode());
    superblock
}

/// One that no other start has.
fn format_id(starts: u32, kind: u8) -> FormatId {
    let mut id = [kind; 16];
    id[..4].copy_from_slice(&starts.to_le_bytes());
    FormatId(id)
}
