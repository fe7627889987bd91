//! Another cache device under a running cache.
//!
//! ```text
//!   running ─ degrade / detach ─▶ everything passes through ─ the device is idle ─▶ take it away
//!   replace(new device) ─▶ gate shut: requests are taken, none begins
//!            └─ nothing in flight ─▶ new index, new keeper, gate open ─▶ Event::Replaced
//! ```
//! The gate is shut for as long as the requests take that are with the origin already. No request
//! fails and none is lost. The new device starts cold: nothing that it held is looked at. Guests
//! leave the old device by themselves, and find nothing on the new one until they are admitted
//! anew.
//!
//! Absent: another line size; locks and pieces under way are made for the one there is.

use block_io::DeviceError;

use super::Cache;
use super::blocks::BlockSet;
use super::cipher::LineCipher;
use super::config::VolumeId;
use super::content::ChecksumTable;
use super::health::Health;
use super::index::Index;
use super::keeping::Told;
use super::line::LineMap;
use super::metadata::{FormatId, Superblock, VolumeRecord};
use super::outbox::Event;
use super::persistence::{Persistence, PersistenceConfig, Start};
use super::policy::Policy;

/// A device that is to take the place of the one there is.
pub(crate) struct NewDevice {
    superblock: Superblock,
    transfer_max: u32,
    fresh: FormatId,
}

impl Cache {
    /// Stops using the cache device, for good: everything passes through, and what the device
    /// holds will not be served again. [`Event::Degraded`] follows, and
    /// [`is_detached`](Self::is_detached) tells when the device may be taken away.
    pub fn detach(&mut self) {
        self.degrade("it was detached".into());
        self.hear_keeper();
    }

    /// Whether nothing is in flight on the cache device, and nothing will be, on any core.
    pub fn is_detached(&self) -> bool {
        let idle = self.hits.len() == 0
            && self.fills.len() == 0
            && self.cache_reads == 0
            && self.guests.have_left_device();
        let dead = self.keeper.as_ref().is_none_or(|keeper| keeper.is_dead() && keeper.is_idle());
        self.health.is_degraded() && idle && dead
    }

    /// Uses another device, whose superblock this is, from the moment on that nothing is in flight;
    /// [`Event::Replaced`] tells when, and whoever sends the requests changes over. Volumes that
    /// are there keep their places, and their records as they were. `fresh` is as for
    /// [`open`](Self::open).
    ///
    /// # Errors
    /// When the device that there is has not been detached, or the new one has another line size
    /// or is too small for the volumes.
    pub fn replace(
        &mut self,
        superblock: Superblock,
        transfer_max: u32,
        fresh: FormatId,
    ) -> Result<(), DeviceError> {
        if !self.is_detached() {
            return Err(DeviceError::new(
                "cache device: the one in use is not detached yet; detach it first",
            ));
        }
        self.check_replacement(&superblock, transfer_max)?;
        self.new_device = Some(Box::new(NewDevice { superblock, transfer_max, fresh }));
        self.change_over();
        Ok(())
    }

    /// Whether [`replace`](Self::replace) would take this device: to be asked before the one there
    /// is gets detached.
    ///
    /// # Errors
    /// When it has another line size or is too small for the volumes.
    pub fn check_replacement(
        &self,
        superblock: &Superblock,
        transfer_max: u32,
    ) -> Result<(), DeviceError> {
        superblock.check_writable()?;
        let layout = superblock.layout;
        if layout.line_size != self.line_size {
            return Err(DeviceError::new(format!(
                "cache device: it has lines of {}, the cache is running with lines of {}; format \
                 it with --line-size {}",
                layout.line_size, self.line_size, self.line_size
            )));
        }
        let needed = self.volumes.end();
        if u64::from(transfer_max) < self.region || layout.flat_length() < needed {
            return Err(DeviceError::new(format!(
                "cache device: it can stand before {} bytes and take {transfer_max} at a time; the \
                 cache needs {needed} and {}",
                layout.flat_length(),
                self.region
            )));
        }
        Ok(())
    }

    /// Encrypts what will be stored of a volume with another key, or not at all. Ciphers are made
    /// for a device's format id, so that another device takes others.
    ///
    /// # Errors
    /// When the cache device has not been detached, whose lines are encrypted with the key that
    /// there is, or there is no such volume.
    pub fn set_cipher(
        &mut self,
        id: VolumeId,
        cipher: Option<LineCipher>,
    ) -> Result<(), DeviceError> {
        if !self.is_detached() {
            return Err(DeviceError::new(
                "cache device: its lines are encrypted with the keys that there are; detach it",
            ));
        }
        let volume = self.volumes.get_mut(id);
        let volume = volume
            .ok_or_else(|| DeviceError::new(format!("volume {}: the cache has none such", id.0)))?;
        volume.cipher = cipher.map(Box::new);
        Ok(())
    }

    /// Whether requests may begin.
    pub(super) fn gate_is_open(&self) -> bool {
        self.new_device.is_none()
    }

    /// Takes the new device into use when nothing is in flight.
    pub(super) fn change_over(&mut self) {
        let quiet = self.pieces.len() == 0 && self.hits.len() == 0 && self.fills.len() == 0;
        if !quiet {
            return;
        }
        let Some(device) = self.new_device.take() else { return };
        let NewDevice { mut superblock, transfer_max, fresh } = *device;
        let known: Vec<_> = superblock.volumes().iter().map(|record| record.id).collect();
        for id in known {
            superblock.remove_volume(id);
        }
        // Before any line of theirs: a crash must not bring another volume in their places.
        for record in self.records_of_volumes() {
            let put = superblock.put_volume(record);
            debug_assert!(put.is_ok(), "they were side by side before: {put:?}");
        }
        let layout = superblock.layout;
        let lines = LineMap::lines_for(layout.sets);
        let map = LineMap::new(lines, layout.sets).expect("as many as the tags allow");
        self.index = Index::new(lines, layout.sets, layout.line_size).expect("the same");
        let blocks = BlockSet::all(layout.line_size).count() as usize;
        let slots = self.index.slots();
        self.checksums = self.checks_every_read().then(|| ChecksumTable::new(slots, blocks));
        self.data_offset = layout.data_offset;
        self.volumes.set_space(layout.flat_length());
        let settings = self.policy.settings().clone();
        let volumes = &self.volumes;
        let policy =
            Policy::new(self.now, self.line_size, slots, &settings, |name| volumes.named(name));
        if let Ok(policy) = policy {
            self.policy = policy;
        }
        let keeping = PersistenceConfig {
            extents_per_page: self.extents_per_page,
            pending_min: self.records_min,
            ..PersistenceConfig::new(self.changes_max, transfer_max, fresh)
        };
        let pool = self.pool.clone();
        let mut keeper = Persistence::start(superblock, map, pool, Start::Cold, keeping);
        if !self.recordings.is_empty() || self.awaits_lease() {
            // They counted the old device's superblocks.
            let durable = keeper.update_superblock(|_| {});
            self.recordings.iter_mut().for_each(|recording| recording.of_superblock = durable);
            self.marks_moved(durable);
        }
        self.keeper = Some(Box::new(keeper));
        self.leave_all_unflushed();
        self.health = Health::default();
        self.publish_gates();
        self.told = Told::default();
        self.orphans = 0;
        self.end_sweeps();
        self.outbox.events.push(Event::Replaced);
        self.cut_all();
        self.hear_keeper();
    }

    /// What is recorded of the volumes that are there.
    fn records_of_volumes(&self) -> Vec<VolumeRecord> {
        let records = self.superblock().into_iter().flat_map(|superblock| superblock.volumes());
        let there = records.filter(|record| self.volumes.get(record.id).is_some());
        there.cloned().map(|record| self.with_mark(record)).collect()
    }

    /// Lets requests begin that waited for the gate.
    fn cut_all(&mut self) {
        for _ in 0..self.uncut.len() {
            if let Some(name) = self.uncut.pop_front() {
                self.cut(name);
            }
        }
        self.start_pieces();
    }
}
