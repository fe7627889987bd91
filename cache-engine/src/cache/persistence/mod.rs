//! What makes a cache warm after a restart: the records of its lines on the cache device.
//!
//! ```text
//!   begin_change ─▶ activity (extents that may be written) ─▶ activity pages, FUA ─▶ activated
//!   record ───────▶ pending (slots) ──10 ms, pressure, retiring──▶ journal ──fold──▶ line table
//!   start ─▶ superblock InUse ─▶ activity, journal ─▶ sweep of the line table ─▶ loaded
//!   stop ──▶ everything pending ─▶ FLUSH ─▶ superblock Clean
//! ```
//! A state machine like the cache's: it says what it wants of the cache device in
//! [`requests`](Persistence::requests), and is told what became of it. Nobody but a change waits
//! for it, and that only while its extent is made active. Rewriting what was written lately costs
//! nothing on the device: its extents are active, and records of theirs wait.
//!
//! What keeps it right:
//! * A crash drops every line of an extent that the device names active. A change that could make
//!   a recorded line stale is begun only when its extent is named.
//! * An extent is given up only when no change of it is in flight and everything recorded so far
//!   (about any slot, for a line of it may have lost its slot to another's) is durable.
//! * A record that is lost for want of room keeps its extent active; if even that can't be, nothing
//!   is given up any more in this run.
//! * Whatever can't be made durable makes the cache fail ([`Persistence::is_failed`]), and changes
//!   wait until the device, or somebody outside, knows that nothing of it may be served again.
//!
//! Absent: I/O, clocks; the index; whether a start may be warm (identity is the caller's matter).

mod activity;
mod device;
mod face;
mod fold;
mod journal;
mod key_map;
mod ledger;
mod opening;
pub(crate) mod part;
mod passes;
mod pending;
mod recorded;
mod replay;
mod steps;
mod sweep;

use block_io::{BufferPool, Extent, IoError, Request, Timestamp};

use super::blocks::BlockSet;
use super::config::LineSize;
use super::entry::Entry;
use super::index::Slot;
use super::line::{LineMap, LineNumber};
use super::metadata::PAGE_SIZE;
use super::metadata::layout::Layout;
use super::metadata::superblock::{State, Superblock};

pub use face::PersistenceStatistics;
pub(crate) use face::{Leave, LineChecksums, LoadedLine, PersistenceConfig, Start};

use activity::Activity;
use device::{Device, Purpose};
use fold::Fold;
use journal::Journal;
use ledger::Ledger;
use opening::Opening;
use passes::Passes;
use pending::{Added, Pending};
use recorded::Recorded;
use steps::{GivingUp, Stopping};
use sweep::{Known, Sweep};

/// Bytes of an extent of the flat address space, the unit of activity: 4 MiB.
pub(crate) const EXTENT_SIZE: u64 = 1 << EXTENT_SHIFT;
const EXTENT_SHIFT: u32 = 22;

/// Reads of checksums in flight at the most.
const CHECKSUM_READS_MAX: usize = 32;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Making the superblock say that the cache is in use.
    Opening,
    /// Reading activity pages and journal.
    Reading,
    /// Loading the line table.
    Sweeping,
    Running,
    /// Given up: nothing on the device is ever served again.
    Dead,
}

/// See the module.
pub(crate) struct Persistence {
    layout: Layout,
    map: LineMap,
    pool: BufferPool,
    config: PersistenceConfig,
    phase: Phase,
    opening: Opening,
    sweep: Option<Sweep>,
    device: Device,
    ledger: Ledger,
    activity: Activity,
    pending: Pending,
    recorded: Recorded,
    journal: Journal,
    fold: Fold,
    passes: Passes,
    /// The pass that everything about retiring extents goes with.
    retiring: Option<u64>,
    retire_after: Timestamp,
    stopping: Stopping,
    giving_up: GivingUp,
    failed: bool,
    /// A record was lost, so the device may hold a line that must not be served and is told apart
    /// only by an extent that is active: no extent is given up any more.
    lost: bool,
    records_lost: u64,
    /// When records, and extents that nobody waits for, are to be written.
    flush_due: Option<Timestamp>,
    flush: bool,
    /// Something has happened since the last step.
    work: bool,
    now: Timestamp,
    activated: Vec<u16>,
    checksums: Vec<(Slot, Option<LineChecksums>)>,
    checksum_reads: usize,
    dropped: [u64; 2],
}

impl Persistence {
    /// Begins a start, from the newest superblock of the device. `map` says which line a way of a
    /// set holds. A cache that was degraded starts cold whatever is asked for.
    pub(crate) fn start(
        superblock: Superblock,
        map: LineMap,
        pool: BufferPool,
        start: Start,
        config: PersistenceConfig,
    ) -> Self {
        let layout = superblock.layout;
        let slots = layout.sets as u64 * super::entry::WAYS as u64;
        let blocks = BlockSet::all(layout.line_size).count() as usize;
        let format_id = superblock.format_id;
        let mut persistence = Self {
            layout,
            map,
            pool,
            config,
            phase: Phase::Opening,
            opening: Opening::new(superblock.state, start),
            sweep: None,
            device: Device::new(),
            ledger: Ledger::new(superblock),
            activity: Activity::new(layout.activity_pages, config),
            pending: Pending::new(slots, blocks, config.pending_min),
            recorded: Recorded::new(slots),
            journal: Journal::new(layout, format_id, 0, config.transfer_max),
            fold: Fold::new(layout, format_id, config.transfer_max),
            passes: Passes::default(),
            retiring: None,
            retire_after: Timestamp::default(),
            stopping: Stopping::No,
            giving_up: GivingUp::No,
            failed: false,
            lost: false,
            records_lost: 0,
            flush_due: None,
            flush: false,
            work: true,
            now: Timestamp::default(),
            activated: Vec::with_capacity(config.changes_max),
            checksums: Vec::with_capacity(CHECKSUM_READS_MAX),
            checksum_reads: 0,
            dropped: [0; 2],
        };
        persistence.begin_opening();
        persistence
    }

    /// A change (write, discard, zeroes) of `extent`, which lies within one extent of 4 MiB, wants
    /// to begin. Whatever the answer, [`end_change`](Self::end_change) is owed when it is over. One
    /// that is `volatile` may be undone after it was answered, until it is said to be over.
    #[inline]
    pub(crate) fn begin_change(
        &mut self,
        piece: u16,
        extent: Extent,
        volatile: bool,
        now: Timestamp,
    ) -> Leave {
        let number = extent.offset >> EXTENT_SHIFT;
        if self.activity.begin(number, now.0) {
            return Leave::Named;
        }
        self.begin_inactive(piece, number, volatile, now)
    }

    #[cold]
    fn begin_inactive(&mut self, piece: u16, number: u64, volatile: bool, now: Timestamp) -> Leave {
        if self.phase == Phase::Dead {
            return Leave::Unnamed;
        }
        // Until everything is loaded, any extent may have lines recorded. And of a change that is
        // undone later lines are recorded meanwhile, so the device has to name its extent first.
        let wait = volatile || self.phase != Phase::Running || self.recorded.may_contain(number);
        self.activity.begin_inactive(number, now.0, wait.then_some(piece));
        self.work = true;
        if !wait {
            self.flush_due.get_or_insert(now + self.config.flush_interval);
            return Leave::Unnamed;
        }
        Leave::Later
    }

    /// A change that [`begin_change`](Self::begin_change) was told of is over: what became invalid
    /// by it is recorded. One that failed and may still land is over too, as long as the caller
    /// stores nothing where it may.
    #[inline]
    pub(crate) fn end_change(&mut self, extent: Extent) {
        self.activity.end(extent.offset >> EXTENT_SHIFT);
    }

    /// Whether there is room for the record of a new store beside those of `stores` that are in
    /// flight. Without, store nothing; records of what is not valid any more are always taken.
    pub(crate) fn has_room_beside(&self, stores: usize) -> bool {
        self.pending.has_room_beside(stores) || self.phase == Phase::Dead
    }

    /// Somebody waits for [room](Self::has_room_beside): everything pending is to be written.
    pub(crate) fn make_room(&mut self) {
        if self.passes.is_idle() {
            self.passes.request(false);
            self.work = true;
        }
    }

    /// Says what is to be known of a slot from now on: to be called when blocks of it have been
    /// stored (they are `changed`, with their checksums) or are not valid any more, and at once
    /// when the slot is given to another line, with no block valid yet: only this tells that the
    /// old line's blocks are gone.
    #[inline]
    #[expect(clippy::too_many_arguments, reason = "a record's fields, on the path of every store")]
    pub(crate) fn record(
        &mut self,
        slot: Slot,
        entry: Entry,
        line: LineNumber,
        valid: BlockSet,
        changed: BlockSet,
        checksums: &[u32],
        now: Timestamp,
    ) {
        let mut entry = entry;
        entry.set_busy(false);
        entry.set_unverified(false);
        let extent = extent_of_line(line, self.layout.line_size);
        match self.pending.record(slot, entry, extent, [valid, changed], checksums) {
            Added::Merged => {}
            Added::Fresh => self.recorded_fresh(now),
            Added::Full => self.lose_record(extent, changed),
        }
    }

    fn recorded_fresh(&mut self, now: Timestamp) {
        self.flush_due.get_or_insert(now + self.config.flush_interval);
        if self.pending.is_pressed() && self.passes.is_idle() {
            self.passes.request(false);
            self.work = true;
        }
    }

    /// A record found no room: what the device knows of the slot stays as it is.
    #[cold]
    fn lose_record(&mut self, extent: u64, changed: BlockSet) {
        if self.phase == Phase::Dead {
            return;
        }
        self.records_lost += 1;
        // A slot that was given to another line may be recorded as the old one's, of an extent
        // that nobody names here.
        if !changed.is_empty() || !self.activity.keep(extent) {
            self.lost = true;
        }
    }

    /// Time has passed.
    pub(crate) fn tick(&mut self, now: Timestamp) {
        self.now = self.now.max(now);
        if self.flush_due.is_some_and(|due| due <= now) {
            self.flush_due = None;
            self.flush = true;
            self.work = true;
        }
        let retry = self.activity.is_short() && self.retire_after <= now;
        self.work |= retry || self.giving_up.is_due(now);
    }

    /// Whether [`tick`](Self::tick) has something to do: a loop asks this with every turn.
    #[inline]
    pub(crate) fn is_due(&self, now: Timestamp) -> bool {
        let retry = self.retire_after > self.now && self.retire_after <= now;
        self.phase != Phase::Dead
            && (self.flush_due.is_some_and(|due| due <= now)
                || retry && self.activity.is_short()
                || self.giving_up.is_due(now))
    }

    /// When [`tick`](Self::tick) is to be called.
    pub(crate) fn next_deadline(&self) -> Option<Timestamp> {
        if self.phase == Phase::Dead {
            return None;
        }
        let retry =
            (self.activity.is_short() && self.retire_after > self.now).then_some(self.retire_after);
        [self.flush_due, retry, self.giving_up.deadline()].into_iter().flatten().min()
    }

    /// Whether any of what comes out of the machine may have changed since
    /// [`requests`](Self::requests) was called last, so that it has to be asked.
    #[inline]
    pub(crate) fn has_news(&self) -> bool {
        self.work || !self.device.requests.is_empty() || !self.checksums.is_empty()
    }

    /// What is to be sent to the cache device; take everything out, after each call.
    pub(crate) fn requests(&mut self, now: Timestamp) -> &mut Vec<Request> {
        self.now = self.now.max(now);
        self.device.now = self.now;
        if self.work {
            self.step();
        }
        &mut self.device.requests
    }

    /// Pieces whose change may begin now; take everything out.
    pub(crate) fn activated(&mut self) -> &mut Vec<u16> {
        &mut self.activated
    }

    /// Whether a change waits for its extent to become active.
    pub(crate) fn has_waiting(&self) -> bool {
        self.activity.waiting() > 0
    }

    /// Takes the answer to a request of [`requests`](Self::requests).
    pub(crate) fn complete(&mut self, index: u16, result: Result<(), IoError>, now: Timestamp) {
        self.now = self.now.max(now);
        self.device.now = self.now;
        self.work = true;
        if let Some(finished) = self.device.complete(index, result) {
            self.finished(finished);
        }
    }

    /// The next sets that the start has loaded: the first one's number, and the lines of it and
    /// of those up to [`sets_loaded`](Self::sets_loaded). They are to be put in the index at once.
    pub(crate) fn loaded(&mut self) -> Option<(u32, &[LoadedLine])> {
        if self.phase != Phase::Sweeping || self.failed || self.stopping != Stopping::No {
            return None;
        }
        self.work = true;
        let sweep = self.sweep.as_mut()?;
        let (activity, recorded) = (&self.activity, &mut self.recorded);
        let mut known = Known { map: &self.map, activity, recorded };
        sweep.next(&mut known, &mut self.device, &self.pool)
    }

    /// Sets below this number are loaded; lines of others must be neither looked up nor stored.
    pub(crate) fn sets_loaded(&self) -> u32 {
        match self.phase {
            Phase::Opening | Phase::Reading => 0,
            Phase::Sweeping => self.sweep.as_ref().map_or(0, Sweep::sets_loaded),
            Phase::Running | Phase::Dead => self.layout.sets,
        }
    }

    /// Whether the start is over: everything is loaded, and what was dropped is durable.
    pub(crate) fn is_started(&self) -> bool {
        matches!(self.phase, Phase::Running | Phase::Dead)
    }

    /// Whether it is settled if lines are loaded, and under which format id.
    pub(crate) fn is_settled(&self) -> bool {
        !matches!(self.phase, Phase::Opening | Phase::Reading)
    }

    /// Whether the start found that what is recorded is damaged, and so is cold.
    pub(crate) fn is_unbelievable(&self) -> bool {
        self.opening.is_unbelievable()
    }

    /// The superblock as it is, or will be on the device.
    pub(crate) fn superblock(&self) -> &Superblock {
        self.ledger.superblock()
    }

    /// Changes the superblock: volumes and the `verify_all` flag are the caller's, the rest is
    /// not. The ticket tells when the change is durable.
    pub(crate) fn update_superblock(&mut self, change: impl FnOnce(&mut Superblock)) -> u64 {
        self.work = true;
        self.ledger.change(change)
    }

    /// Whether that change is durable.
    pub(crate) fn is_durable(&self, ticket: u64) -> bool {
        self.ledger.is_durable(ticket)
    }

    /// Makes everything recorded so far durable; [`is_recorded`](Self::is_recorded) tells when.
    pub(crate) fn barrier(&mut self) -> u64 {
        self.work = true;
        self.passes.request(true)
    }

    /// Whether everything recorded before that barrier is durable. Never where a record was lost:
    /// then only degrading makes sure that it is not served.
    pub(crate) fn is_recorded(&self, barrier: u64) -> bool {
        self.passes.is_durable(barrier) && self.records_lost == 0
    }

    /// Asks for the checksums of a line that is not verified. The answer is in
    /// [`checksums_read`](Self::checksums_read). False when too many are being asked for.
    ///
    /// What has been stored in the slot in this run is not in the answer: whoever stores in a line
    /// that is not verified drops its other blocks first.
    pub(crate) fn read_checksums(&mut self, slot: Slot) -> bool {
        let page = slot.0 / self.slots_per_page();
        let swept = self.sweep.as_ref().and_then(|sweep| sweep.page_in_flight(page));
        if let Some(buffer) = swept.cloned().or_else(|| self.fold.page_in_flight(page)) {
            self.answer_checksums(slot, &buffer, true);
            return true;
        }
        if self.checksum_reads == CHECKSUM_READS_MAX {
            return false;
        }
        self.checksum_reads += 1;
        let buffer = self.pool.allocate(PAGE_SIZE);
        let offset = self.layout.table_page_offset(page);
        self.device.read(Purpose::ChecksumRead { slot }, offset, buffer);
        true
    }

    /// Answers to [`read_checksums`](Self::read_checksums); none where the line's page can't be
    /// read or was lost. Take everything out.
    pub(crate) fn checksums_read(&mut self) -> &mut Vec<(Slot, Option<LineChecksums>)> {
        &mut self.checksums
    }

    /// Ends the run: no change may be in flight or begin. Everything is made durable, then the
    /// superblock says Clean.
    pub(crate) fn stop(&mut self) {
        self.work = true;
        if self.stopping == Stopping::No {
            self.stopping = Stopping::Flushing(self.passes.request(true));
        }
    }

    /// Whether the device may be closed. Not before [`stop`](Self::stop) or giving up.
    pub(crate) fn is_stopped(&self) -> bool {
        let over = self.stopping == Stopping::Done || self.phase == Phase::Dead;
        over && self.device.is_idle()
    }

    /// Whether nothing is in flight on the device.
    pub(crate) fn is_idle(&self) -> bool {
        self.device.is_idle()
    }

    /// Whether the device has failed such that the cache must be given up: changes may be waiting
    /// for [`degrade`](Self::degrade).
    pub(crate) fn is_failed(&self) -> bool {
        self.failed
    }

    /// Failures of requests so far, those that were tried again with success included.
    pub(crate) fn errors(&self) -> u64 {
        self.device.errors
    }

    /// Gives the cache up for good: the superblock is made to say so. Where that can't be done,
    /// [`wants_disown`](Self::wants_disown) tells, and the record outside the device must be.
    pub(crate) fn degrade(&mut self) {
        if self.giving_up == GivingUp::No && self.phase != Phase::Dead {
            self.failed = true;
            self.work = true;
            let ticket = self.ledger.change(|superblock| superblock.state = State::Degraded);
            let deadline = self.now + self.config.give_up_after;
            self.giving_up = GivingUp::Recording { ticket, deadline };
        }
    }

    /// Whether the device can't be made to say that it is degraded, so that whoever knows of it
    /// outside must forget it, and say so by [`disowned`](Self::disowned).
    pub(crate) fn wants_disown(&self) -> bool {
        self.giving_up == GivingUp::Disowning
    }

    /// The device is disowned: no start with it will be warm.
    pub(crate) fn disowned(&mut self) {
        self.work = true;
        if self.phase != Phase::Dead {
            self.die();
        }
    }

    /// Whether a change waits for a place in the activity log, and none is free.
    pub(crate) fn is_starved(&self) -> bool {
        self.phase == Phase::Running && self.activity.is_starved()
    }

    /// Since when the device has owed an answer to what it was asked about the records, the oldest
    /// that it owes.
    pub(crate) fn unanswered_since(&self) -> Option<Timestamp> {
        self.device.unanswered_since()
    }

    /// Whether the cache was given up, durably: nothing waits for it any more.
    pub(crate) fn is_dead(&self) -> bool {
        self.phase == Phase::Dead
    }

    /// Counters and levels.
    pub(crate) fn statistics(&self) -> PersistenceStatistics {
        let sweep = self.sweep.as_ref().map(|sweep| [sweep.dropped, sweep.damaged]);
        let [lines_dropped, pages_damaged] = sweep.unwrap_or(self.dropped);
        PersistenceStatistics {
            bytes_written: self.device.bytes_written,
            bytes_read: self.device.bytes_read,
            device_errors: self.device.errors,
            journal_blocks: self.journal.blocks_written,
            folds: self.fold.folds,
            activations: self.activity.activations,
            waits: self.activity.waits,
            retired: self.activity.retired,
            records_lost: self.records_lost,
            lines_dropped,
            pages_damaged,
            active_extents: self.activity.active() as u64,
            pending: self.pending.len() as u64,
            pending_max: self.pending.capacity() as u64,
            waiting: self.activity.waiting() as u64,
        }
    }

    fn slots_per_page(&self) -> u32 {
        self.layout.sets_per_page * super::entry::WAYS as u32
    }
}

/// The number of the extent that a line lies in.
fn extent_of_line(line: LineNumber, line_size: LineSize) -> u64 {
    line.0 >> (EXTENT_SHIFT - line_size.shift())
}

#[cfg(test)]
mod tests;
