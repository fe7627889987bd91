//! Changes to a running cache: volumes come, go and change, ranges are invalidated.
//!
//! Absent: how lines are dropped ([`super::sweeps`]).

use block_io::{DeviceError, Extent, Geometry, Timestamp};

use super::Cache;
use super::cipher::LineCipher;
use super::config::{CacheMode, VolumeId};
use super::doubt::Doubt;
use super::lease::{FOREVER, Lease};
use super::outbox::Ticket;
use super::policy::{PolicySettings, PolicyStatistics};
use super::statistics::Statistics;
use super::sweeps::Then;
use super::unflushed::Unflushed;
use super::volumes::{Span, Volume};

/// Requests larger than this are refused; frontends know it from the geometry.
const TRANSFER_MAX: u32 = 32 << 20;

/// What a volume is.
pub struct VolumeSettings {
    /// Its name, as the policies' rules know it; no other volume of the cache has it.
    pub name: String,
    /// Of its origin.
    pub geometry: Geometry,
    /// What is cached.
    pub mode: CacheMode,
    /// Its number, when the superblock knows the volume and its lines are to be used. Otherwise it
    /// gets a number and a range of the cache's space in which nothing lives.
    pub known: Option<VolumeId>,
    /// Encrypts what is on the cache device.
    pub cipher: Option<LineCipher>,
}

impl Cache {
    /// Takes a volume in.
    ///
    /// # Errors
    /// When the cache is too small for an origin of this size, or for its largest transfers.
    pub fn add_volume(&mut self, settings: VolumeSettings) -> Result<VolumeId, DeviceError> {
        let VolumeSettings { name, geometry, mode, known, cipher } = settings;
        if self.volumes.named(&name).is_some() {
            return Err(DeviceError::new(format!(
                "volume '{name}': the cache has one of that name already"
            )));
        }
        let line = self.line_size.bytes();
        let transfer_max = u64::from(geometry.transfer_max);
        let piece_max = (self.region.min(transfer_max) + 1).next_power_of_two() / 2;
        if piece_max < line {
            return Err(DeviceError::new(format!(
                "line size {}: the origin takes transfers of {transfer_max} bytes at the most",
                self.line_size
            )));
        }
        let parked = match known {
            None => None,
            Some(id) if self.is_forgetting(id) => {
                return Err(DeviceError::new(format!("volume {}: it is being forgotten", id.0)));
            }
            Some(id) => Some(self.volumes.parked(id).ok_or_else(|| {
                DeviceError::new(format!("volume {}: not known, or there already", id.0))
            })?),
        };
        let span = match parked {
            Some(span) if span.length >= geometry.capacity => span,
            Some(span) => {
                return Err(DeviceError::new(format!(
                    "volume '{name}': {} bytes are more than the {} that it was given room for",
                    geometry.capacity, span.length
                )));
            }
            None => self.volumes.free_span(geometry.capacity)?,
        };
        let volume = Volume {
            name,
            span,
            geometry: Geometry { transfer_max: TRANSFER_MAX, zeroes_max: 1 << 32, ..geometry },
            piece_max,
            mode,
            lease_end: FOREVER,
            lease: Lease::default(),
            doubt: Doubt::default(),
            unflushed: Unflushed::default(),
            cipher: cipher.map(Box::new),
            statistics: Statistics::default(),
            in_flight: 0,
        };
        let id = match known {
            Some(id) => {
                self.volumes.insert_parked(id, volume);
                id
            }
            None => self.volumes.insert(volume)?,
        };
        self.volumes_changed();
        Ok(id)
    }

    /// Takes a volume out. If the superblock knows it, its lines stay, for when it comes back
    /// ([`forget_volume`](Self::forget_volume) gives them up); otherwise they are nobody's.
    ///
    /// # Errors
    /// When there is no such volume, or requests of it are in flight.
    pub fn remove_volume(&mut self, id: VolumeId) -> Result<Span, DeviceError> {
        let volume = self.volume(id)?;
        if volume.in_flight > 0 || volume.unflushed.is_flushing() {
            return Err(DeviceError::new(format!(
                "volume {}: {} requests and {} flushes are in flight; end them first",
                id.0,
                volume.in_flight,
                u8::from(volume.unflushed.is_flushing())
            )));
        }
        let span = volume.span;
        // A flush that nobody waits for would have made them durable; now they go.
        let unflushed = self.volumes[id].unflushed.take();
        self.drop_extents(unflushed.into_iter().map(|(extent, _)| (extent, true)));
        self.stop_filling(span.base..span.base + span.length);
        self.volumes.remove(id);
        self.guests.remove(id);
        if self.superblock().is_some_and(|superblock| superblock.volume(id).is_some()) {
            self.volumes.park(id, span);
        } else {
            self.orphans = self.index.occupied();
            self.policy.volume_detached(id);
            self.drop_range(span.base..span.base + span.length, Then::Nothing);
        }
        self.volumes_changed();
        Ok(span)
    }

    /// The number that the next volume gets which the superblock does not know.
    pub fn free_volume_id(&self) -> Option<VolumeId> {
        self.volumes.free_id()
    }

    /// A volume's name.
    pub fn volume_name(&self, id: VolumeId) -> Option<&str> {
        self.volumes.get(id).map(|volume| volume.name.as_str())
    }

    /// The range of the cache's space that a volume has.
    pub fn span(&self, id: VolumeId) -> Option<Span> {
        self.volumes.get(id).map(|volume| volume.span)
    }

    /// The rules of the policies name volumes, which have other numbers now.
    fn volumes_changed(&mut self) {
        let settings = self.policy.settings().clone();
        let volumes = &self.volumes;
        let set = self.policy.set(self.now, &settings, |name| volumes.named(name));
        debug_assert!(set.is_ok(), "they were right before: {set:?}");
    }

    /// Drops what is cached of `extent` of a volume, because somebody else may have changed the
    /// origin there. Nothing that was read from the origin before this call is served after
    /// [`Event::Done`](super::Event::Done).
    ///
    /// # Errors
    /// When there is no such volume.
    pub fn invalidate(&mut self, id: VolumeId, extent: Extent) -> Result<Ticket, DeviceError> {
        let whole = self.volume(id)?.extent();
        let flat = Extent::new(whole.offset.saturating_add(extent.offset), extent.length);
        let flat = flat.intersection(whole).align_outward(self.line_size.bytes());
        Ok(self.drop_range(flat.offset..flat.end(), Then::Nothing))
    }

    /// The origin of a volume has another size now. Lines beyond the smaller of both ends, and the
    /// one at it, are dropped.
    ///
    /// # Errors
    /// When there is no such volume, it outgrows the room it was given and can't be moved while
    /// requests are in flight, or the cache is too small.
    pub fn resize_volume(&mut self, id: VolumeId, capacity: u64) -> Result<Ticket, DeviceError> {
        let volume = self.volume(id)?;
        let old = volume.geometry.capacity;
        let (span, busy) = (volume.span, volume.in_flight > 0);
        let line = self.line_size.bytes();
        if capacity > span.length {
            if busy {
                return Err(DeviceError::new(format!(
                    "volume {}: it grows beyond the {} bytes that it was given room for, which \
                     can't be done while requests are in flight",
                    id.0, span.length
                )));
            }
            let next = self.volumes.free_span(capacity)?;
            self.volumes.move_to(id, next);
            self.move_doubt(id, next.base - span.base);
            self.volumes[id].geometry.capacity = capacity;
            self.publish_gates();
            self.policy.volume_detached(id);
            self.orphans = self.index.occupied();
            return Ok(self.drop_range(span.base..span.base + span.length, Then::Nothing));
        }
        self.volumes[id].geometry.capacity = capacity;
        self.publish_gates();
        let from = (span.base + old.min(capacity)) & !(line - 1);
        let to = (span.base + old.max(capacity)).next_multiple_of(line);
        Ok(self.drop_range(from..to.max(from + line), Then::Nothing))
    }

    /// Changes a volume's mode for every request that starts from now on.
    pub fn set_mode(&mut self, id: VolumeId, mode: CacheMode) {
        if let Some(volume) = self.volumes.get_mut(id) {
            volume.mode = mode;
        }
        self.publish_gates();
    }

    /// The mode that a volume's requests starting now follow.
    pub fn mode(&self, id: VolumeId) -> Option<CacheMode> {
        self.volumes.get(id).map(|volume| volume.mode)
    }

    /// Declares that no write to the volume that failed before this call can reach the origin any
    /// more (its connection is fenced): ranges in doubt are cached again. What the origin had
    /// acknowledged and not been told to flush it may have lost; nothing that was cached of it
    /// before is served, a change of which only a part was done by then fails, and so does one
    /// flush: the next of a client's that ends.
    pub fn fence(&mut self, id: VolumeId) {
        self.settled(id);
        self.interrupted(id);
    }

    /// The first half of [`fence`](Self::fence): no write that failed before this call can reach
    /// the origin any more.
    pub fn settled(&mut self, id: VolumeId) {
        let Some(volume) = self.volumes.get_mut(id) else { return };
        volume.doubt.fenced();
        self.publish_gates();
    }

    /// The other half: a way to the origin was lost, and it may have lost what it had acknowledged
    /// and not been told to flush. Writes that failed may still reach it.
    pub fn interrupted(&mut self, id: VolumeId) {
        if self.volumes.get_mut(id).is_none() {
            return;
        }
        self.fence_unflushed(id);
        self.doubt_changes_done_in_part(id);
        self.publish_gates();
        self.hear_keeper();
    }

    /// Changes what enters the cache and what leaves it, for requests from now on.
    ///
    /// # Errors
    /// When the settings contradict each other or don't fit this cache; nothing has changed then.
    pub fn set_policy(&mut self, settings: &PolicySettings) -> Result<(), DeviceError> {
        let volumes = &self.volumes;
        self.policy.set(self.now, settings, |name| volumes.named(name)).map_err(DeviceError::new)
    }

    /// The settings in force.
    pub fn policy(&self) -> &PolicySettings {
        self.policy.settings()
    }

    /// What the policies counted.
    pub fn policy_statistics(&self) -> PolicyStatistics {
        self.policy.statistics(self.now)
    }

    /// What the volume looks like to a client: the origin, with larger transfers.
    pub fn geometry(&self, id: VolumeId) -> Option<Geometry> {
        self.volumes.get(id).map(|volume| volume.geometry)
    }

    /// Counters of a volume since it was added, those of its guests included.
    pub fn statistics(&self, id: VolumeId) -> Option<Statistics> {
        let mut statistics = self.volumes.get(id)?.statistics;
        self.guests.add_to(id, &mut statistics);
        Some(statistics)
    }

    /// Client requests of a volume in flight.
    pub fn in_flight_of(&self, id: VolumeId) -> usize {
        self.volumes.get(id).map_or(0, |volume| volume.in_flight as usize)
    }

    /// The volumes of the cache.
    pub fn volume_ids(&self) -> impl Iterator<Item = VolumeId> {
        self.volumes.ids()
    }

    /// Lets time pass: timers, and a step of whatever takes many. True when there is more to do at
    /// once.
    pub fn tick(&mut self, now: Timestamp) -> bool {
        self.now = now;
        self.expire_leases();
        if self.is_at_rest(now) {
            return false;
        }
        if let Some(keeper) = &mut self.keeper {
            keeper.tick(now);
        }
        self.lose_patience();
        let loaded = self.load_step();
        self.sweep_step();
        self.purge_step();
        self.leaving_step();
        self.tend_unflushed();
        self.hear_keeper();
        self.lease_step();
        let drops = !self.leaving.is_empty() && self.has_room_to_drop(1);
        loaded || drops || self.purge.lines > 0 || self.next_sweep().is_some()
    }

    /// Whether nothing takes time but requests: a loop asks this with every turn.
    fn is_at_rest(&self, now: Timestamp) -> bool {
        self.is_told_loaded()
            && !self.stopping
            && self.sweeps.is_empty()
            && self.leaving.is_empty()
            && self.flush_due().is_none_or(|due| due > now)
            && !self.awaits_lease()
            && self.purge.lines == 0
            // Whoever waits for the cache device may need more than time.
            && self.health.deadline().is_none()
            && !self.keeper.as_ref().is_some_and(|keeper| keeper.is_due(now))
            && self.policy.next_deadline().is_none_or(|deadline| deadline > now)
    }

    /// When [`tick`](Self::tick) is due at the latest.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        let keeper = self.keeper.as_ref().and_then(|keeper| keeper.next_deadline());
        let patience = self.health.deadline();
        let lease = self.lease_deadline();
        let own = [patience, lease, self.flush_due()].into_iter().flatten();
        keeper.into_iter().chain(own).chain(self.policy.next_deadline()).min()
    }

    fn volume(&self, id: VolumeId) -> Result<&Volume, DeviceError> {
        self.volumes
            .get(id)
            .ok_or_else(|| DeviceError::new(format!("volume {}: the cache has none such", id.0)))
    }
}
