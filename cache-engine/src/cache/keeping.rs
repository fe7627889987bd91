//! What the cache tells its keeper ([`Persistence`]), and what it hears from it. A cache in memory
//! has none: nothing of it outlives the process.

use block_io::{BufferPool, DeviceError, Extent, IoError};

use super::blocks::BlockSet;
use super::config::{CacheConfig, Verification, VolumeId};
use super::fill::Ended;
use super::index::Slot;
use super::line::{LineMap, LineNumber};
use super::line_lock::PieceIndex;
use super::metadata::superblock::State;
use super::metadata::{FormatId, Generation, OriginIdentity, Superblock, VolumeRecord};
use super::outbox::{Event, Ticket};
use super::persistence::{Leave, Persistence, PersistenceConfig, PersistenceStatistics, Start};
use super::sweeps::Then;
use super::volumes::Span;
use super::{Cache, CacheSpace, mode};

/// A record of the cache device that is on its way.
pub(crate) struct Recording {
    ticket: Ticket,
    pub(super) of_superblock: u64,
}

/// Why a cache as a whole starts cold, for an operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColdReason {
    /// It failed in its last use.
    Degraded,
    /// Its last use did not end in order, and nothing is to be verified.
    Unverified,
    /// Its records are damaged beyond what a crash explains.
    Damaged,
}

impl std::fmt::Display for ColdReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Degraded => {
                "the cache device failed in its last use, and the origin was written without it"
            }
            Self::Unverified => {
                "the cache was not stopped in order, and with verification 'never' nothing shows \
                 which of its lines are whole"
            }
            Self::Damaged => "the records on the cache device are damaged",
        })
    }
}

/// What the keeper has told of already.
#[derive(Default)]
pub(crate) struct Told {
    errors: u64,
    loaded: bool,
    disown: bool,
    stopped: bool,
}

impl Cache {
    /// The cache on a device whose superblock this is. Serving begins at once; what the device has
    /// of its lines is loaded meanwhile, if the last run ended such that it can be believed, and
    /// [`Event::Loaded`] tells when that is done. The volumes that the superblock knows keep their
    /// places for [`add_volume`](Self::add_volume). `fresh` is random: the format id if the cache
    /// starts cold.
    ///
    /// # Errors
    /// When the configuration does not suit the device; the message says how.
    pub fn open(
        config: CacheConfig,
        superblock: Superblock,
        transfer_max: u32,
        fresh: FormatId,
        pool: BufferPool,
    ) -> Result<Self, DeviceError> {
        superblock.check_writable()?;
        let layout = superblock.layout;
        let config = CacheConfig { line_size: layout.line_size, ..config };
        let unclean = superblock.state == State::InUse;
        let untold =
            config.verification == Verification::Never && (unclean || superblock.verify_all);
        let cold = match superblock.state {
            State::Degraded => Some(ColdReason::Degraded),
            _ => untold.then_some(ColdReason::Unverified),
        };
        let start = if untold { Start::Cold } else { Start::Warm };
        let space = CacheSpace { data_offset: layout.data_offset, length: 0, transfer_max };
        let mut cache = Self::new(config, layout.sets, space, pool.clone())?;
        cache.cold = cold;
        cache.volumes.mark_used(superblock.space_used());
        let keeping = PersistenceConfig {
            extents_per_page: cache.extents_per_page,
            pending_min: cache.records_min,
            ..PersistenceConfig::new(cache.changes_max, transfer_max, fresh)
        };
        for record in superblock.volumes() {
            cache.volumes.park(record.id, Span { base: record.base, length: record.span });
        }
        let map = LineMap::new(LineMap::lines_for(layout.sets), layout.sets);
        let map = map.map_err(|needed| {
            DeviceError::new(format!("cache device: {needed} sets are needed for its lines"))
        })?;
        cache.keeper = Some(Box::new(Persistence::start(superblock, map, pool, start, keeping)));
        cache.hear_keeper();
        Ok(cache)
    }

    /// The superblock as it is or will soon be; none for a cache in memory.
    pub fn superblock(&self) -> Option<&Superblock> {
        self.keeper.as_ref().map(|keeper| keeper.superblock())
    }

    /// Whether it is settled if the cache starts with lines of an earlier run, and so which format
    /// id it has. A volume's place in it is best taken only then.
    pub fn is_settled(&self) -> bool {
        self.keeper.as_ref().is_none_or(|keeper| keeper.is_settled())
    }

    /// Why no line of an earlier run is in use, where that is so for the whole cache; final when
    /// it [is settled](Self::is_settled).
    pub fn cold_reason(&self) -> Option<ColdReason> {
        let damaged = self.keeper.as_ref().is_some_and(|keeper| keeper.is_unbelievable());
        self.cold.or(damaged.then_some(ColdReason::Damaged))
    }

    /// What there is to record of a volume: its number, name, size, place and key, as they are. Who
    /// its origin is, is `identity`; nothing is said of its generation and of attachments. None
    /// when there is no such volume.
    pub fn volume_record(&self, id: VolumeId, identity: OriginIdentity) -> Option<VolumeRecord> {
        let volume = self.volumes.get(id)?;
        let key_check = volume.cipher.as_ref().map(|cipher| cipher.key_check());
        Some(VolumeRecord {
            id,
            name: volume.name.clone(),
            identity,
            size: volume.geometry.capacity,
            base: volume.span.base,
            span: volume.span.length,
            generation: Generation::default(),
            attach_epoch: 0,
            key_check: key_check.unwrap_or_default(),
            flags: if key_check.is_some() { VolumeRecord::ENCRYPTED } else { 0 },
        })
    }

    /// Records a volume, or what has changed about it. [`Event::Done`] tells when it is durable:
    /// only then may the volume be served, because a crash would bring back what was recorded
    /// before. That it is used under a lease is recorded too, whatever the flags say.
    ///
    /// # Errors
    /// When the record makes no sense beside the others.
    pub fn record_volume(&mut self, record: VolumeRecord) -> Result<Ticket, DeviceError> {
        let record = self.with_mark(record);
        self.change_superblock(|superblock| superblock.put_volume(record))
    }

    /// Removes what is recorded of a volume that is not there: its lines, and when that is durable
    /// its record. So whoever is given its range finds nothing there, after a crash neither.
    ///
    /// # Errors
    /// When there is no record of it, or the volume is there.
    pub fn forget_volume(&mut self, id: VolumeId) -> Result<Ticket, DeviceError> {
        let known = self.superblock().is_some_and(|superblock| superblock.volume(id).is_some());
        let Some(span) = self.volumes.parked(id).filter(|_| known && !self.is_forgetting(id))
        else {
            return Err(DeviceError::new(format!(
                "volume {}: the cache device knows none such, or it is there; remove it first",
                id.0
            )));
        };
        Ok(self.drop_range(span.base..span.base + span.length, Then::Forget(id)))
    }

    /// Nothing is recorded of any line of the volume, durably.
    pub(super) fn forget_record(&mut self, id: VolumeId, ticket: Ticket) {
        self.policy.volume_detached(id);
        self.volumes.unpark(id);
        if let Some(keeper) = &mut self.keeper {
            let of_superblock = keeper.update_superblock(|superblock| {
                superblock.remove_volume(id);
            });
            self.recordings.push_back(Recording { ticket, of_superblock });
        }
    }

    /// Says that the record outside the device forbids a warm start; see [`Event::Disown`].
    pub fn disowned(&mut self) {
        if let Some(keeper) = &mut self.keeper {
            keeper.disowned();
        }
        self.hear_keeper();
    }

    /// Ends the run: new requests are refused, and when all is on the device that a warm start
    /// needs, [`Event::Stopped`] follows.
    pub fn stop(&mut self) {
        self.stopping = true;
        let ids: Vec<_> = self.volumes.ids().collect();
        for id in ids {
            if !self.volumes[id].unflushed.is_empty() {
                self.flush_origin(id);
            }
        }
        self.publish_gates();
        self.hear_keeper();
    }

    /// Sets of the index that are loaded, of all: how far a warm start is.
    pub fn loading(&self) -> (u32, u32) {
        let sets = self.index.sets();
        (self.keeper.as_ref().map_or(sets, |keeper| keeper.sets_loaded()), sets)
    }

    /// What it took to keep the cache's records; none for a cache in memory.
    pub fn persistence_statistics(&self) -> Option<PersistenceStatistics> {
        self.keeper.as_ref().map(|keeper| keeper.statistics())
    }

    pub(super) fn change_superblock(
        &mut self,
        change: impl FnOnce(&mut Superblock) -> Result<(), DeviceError>,
    ) -> Result<Ticket, DeviceError> {
        let Some(keeper) = &mut self.keeper else {
            return Err(DeviceError::new("a cache in memory has no superblock"));
        };
        let mut outcome = Ok(());
        let of_superblock = keeper.update_superblock(|superblock| outcome = change(superblock));
        outcome?;
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.recordings.push_back(Recording { ticket, of_superblock });
        self.hear_keeper();
        Ok(ticket)
    }

    /// Whether the end of the start was told, or there is none.
    pub(super) fn is_told_loaded(&self) -> bool {
        self.told.loaded || self.keeper.is_none()
    }

    /// Whether a piece that changes content may start; if not, it will be named later.
    pub(super) fn may_change(&mut self, name: PieceIndex) -> bool {
        let volatile = self.volumes[self.volume_of(name)].geometry.volatile_cache;
        let piece = &mut self.pieces[name];
        let Some(keeper) = &mut self.keeper else { return true };
        let leave = keeper.begin_change(name, piece.extent, volatile, self.now);
        piece.is_named = leave != Leave::Unnamed;
        if leave == Leave::Later {
            self.health.begin_waiting(self.now);
        }
        leave != Leave::Later
    }

    /// A store of a change that has begun begins; it ends with a
    /// [`change_ended`](Self::change_ended) of its own.
    pub(super) fn change_begun_again(&mut self, extent: Extent) {
        if let Some(keeper) = &mut self.keeper {
            let begun = keeper.begin_change(PieceIndex::MAX, extent, false, self.now);
            debug_assert!(begun != Leave::Later, "its piece has begun already");
        }
    }

    pub(super) fn change_ended(&mut self, extent: Extent) {
        if let Some(keeper) = &mut self.keeper {
            keeper.end_change(extent);
        }
    }

    /// What is kept about a slot is to be what the index says: blocks of its line are not valid any
    /// more, or the line is a new one.
    pub(super) fn record_invalid(&mut self, slot: Slot, line: LineNumber) {
        let Some(keeper) = &mut self.keeper else { return };
        debug_assert_eq!(self.index.line_of(slot), Some(line));
        let (entry, valid) = (self.index.entry(slot), self.index.valid(slot));
        keeper.record(slot, entry, line, valid, BlockSet::EMPTY, &[], self.now);
    }

    /// What is kept about the slot of a fill is to be what has become of it.
    pub(super) fn record_fill(&mut self, slot: Slot, ended: &Ended) {
        let Some(keeper) = &mut self.keeper else { return };
        let (entry, valid) = (self.index.entry(slot), self.index.valid(slot));
        let checksums = self.fills.checksums(ended.fill);
        keeper.record(slot, entry, ended.store.line, valid, ended.install, checksums, self.now);
    }

    /// Whether what is stored of this line could be recorded.
    pub(super) fn has_room_to_store(&self, line: LineNumber) -> bool {
        let Some(keeper) = &self.keeper else { return !self.health.is_degraded() };
        keeper.has_room_beside(self.fills.len())
            && !self.health.is_degraded()
            && self.index.set_of(line) < keeper.sets_loaded()
    }

    /// False when so many are being asked for that the line can't be verified now.
    pub(super) fn ask_for_checksums(&mut self, slot: Slot) -> bool {
        self.keeper.as_mut().is_some_and(|keeper| keeper.read_checksums(slot))
    }

    pub(super) fn metadata_done(&mut self, index: u16, result: Result<(), IoError>) {
        if let Some(keeper) = &mut self.keeper {
            keeper.complete(index, result, self.now);
        }
    }

    /// Does what the keeper says.
    pub(super) fn hear_keeper(&mut self) {
        let Some(keeper) = &mut self.keeper else { return };
        if !keeper.has_news() && !self.stopping {
            return;
        }
        self.outbox.cache.append(keeper.requests(self.now));
        if !keeper.activated().is_empty() {
            let mut activated = std::mem::take(keeper.activated());
            for piece in activated.drain(..) {
                mode::start_change(self, piece);
            }
            if let Some(keeper) = &mut self.keeper {
                *keeper.activated() = activated;
                if !keeper.has_waiting() {
                    self.health.end_waiting();
                }
            }
        }
        self.hear_checksums();
        if !self.startable.is_empty() {
            // A read that ended with its checksums has let go of what others wait for.
            self.start_pieces();
            return self.hear_keeper();
        }
        self.hear_about_device();
    }

    fn hear_checksums(&mut self) {
        while let Some((slot, found)) =
            self.keeper.as_mut().and_then(|keeper| keeper.checksums_read().pop())
        {
            let (entry, valid) = (self.index.entry(slot), self.index.valid(slot));
            let checksums = found
                .filter(|found| found.entry.tag() == entry.tag() && found.valid.contains(valid))
                .map(|found| found.checksums);
            self.checksums_read(slot, checksums);
        }
    }

    /// What goes wrong with the records, and what has become durable.
    fn hear_about_device(&mut self) {
        let Some(keeper) = &mut self.keeper else { return };
        let (errors, failed) = (keeper.errors(), keeper.is_failed());
        if keeper.wants_disown() && !std::mem::replace(&mut self.told.disown, true) {
            self.outbox.events.push(Event::Disown);
        }
        if keeper.is_started() && !std::mem::replace(&mut self.told.loaded, true) {
            self.outbox.events.push(Event::Loaded);
        }
        while let Some(first) = self.recordings.front()
            && keeper.is_durable(first.of_superblock)
        {
            self.outbox.events.push(Event::Done(first.ticket));
            self.recordings.pop_front();
        }
        for _ in self.told.errors..errors {
            self.device_failed("a read or write of the cache's records", IoError::Media);
        }
        self.told.errors = errors;
        if failed {
            self.degrade("its records could not be written".into());
        }
        self.hear_about_stop();
    }

    fn hear_about_stop(&mut self) {
        let flushing = self.volumes.ids().any(|id| self.volumes[id].unflushed.is_flushing());
        let busy = flushing || !self.is_quiet() || !self.leaving.is_empty();
        if !self.stopping || self.told.stopped || busy {
            return;
        }
        let Some(keeper) = &mut self.keeper else { return };
        keeper.stop();
        self.outbox.cache.append(keeper.requests(self.now));
        if keeper.is_stopped() {
            self.told.stopped = true;
            self.outbox.events.push(Event::Stopped);
        }
    }

    /// Puts the next lines of an earlier run in the index. True when there were some.
    pub(super) fn load_step(&mut self) -> bool {
        let check = self.checks_every_read();
        let Some(keeper) = &mut self.keeper else { return false };
        let mut slots = std::mem::take(&mut self.loaded_slots);
        slots.clear();
        let Some((first, lines)) = keeper.loaded() else {
            self.loaded_slots = slots;
            return false;
        };
        for line in lines {
            let mut entry = line.entry;
            if check {
                entry.set_unverified(true);
            }
            self.index.load(line.slot, entry, line.valid);
            slots.push(line.slot);
        }
        for set in first..keeper.sets_loaded() {
            self.index.settle(set);
        }
        for slot in slots.drain(..) {
            let Some(line) = self.index.line_of(slot) else { continue };
            match self.volumes.owner_of(line.0 << self.line_size.shift()) {
                Some(volume) => self.policy.line_found(slot, volume),
                None => self.orphans += 1,
            }
        }
        self.loaded_slots = slots;
        true
    }
}
