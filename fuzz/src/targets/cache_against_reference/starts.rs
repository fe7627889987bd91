//! Beginnings and ends of runs: a cache is opened or formatted, volumes come and go, the process is
//! stopped or killed.
//!
//! Absent: what happens while it runs, which is the harness's.

use block_io::{BufferPool, Geometry};
use cache_engine::cache::metadata::layout::SUPERBLOCK_REGION;
use cache_engine::cache::metadata::superblock::newest;
use cache_engine::cache::metadata::{
    FormatId, Generation, IdentityKind, Layout, OriginIdentity, Superblock, VolumeRecord,
};
use cache_engine::cache::{Cache, CacheConfig, CacheSpace, Event, VolumeSettings};

use super::devices::{Device, Landing};
use super::harness::{Harness, TRANSFER_MAX, Volume};

impl Harness {
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
            let span = self.cache.span(id).expect("it was just added");
            let record = VolumeRecord {
                id,
                identity: OriginIdentity::new(IdentityKind::Assigned, &name).expect("a text"),
                name,
                size: full,
                base: span.base,
                span: span.length,
                generation: Generation::default(),
                attach_epoch: 0,
                key_check: [0; 16],
                flags: 0,
            };
            self.cache.record_volume(record).expect("room for two");
        }
        self.empty_outbox();
    }

    pub(super) fn add_all(&mut self) {
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
        // As after a crash: what the run before lost on its way does not land in this one.
        for volume in &mut self.volumes {
            volume.origin.forget_late();
            volume.reference.fence();
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
}

/// A cache on the device as it is, or formatted first; or one in memory.
pub(super) fn open(
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
