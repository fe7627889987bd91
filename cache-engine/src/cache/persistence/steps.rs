//! What follows from what: every step that can be taken is taken, until nothing moves.
//!
//! ```text
//!   completions, changes, records, time ─▶ step: open │ passes and journal │ retire │ fold │ stop
//!                                                ─▶ superblock │ activity pages │ flush ─▶ device
//! ```
//! Sent last is what collects: one write of a page, of the superblock or one flush serves whatever
//! came up in the same turn. Absent: the steps of a start ([`super::opening`]).

use block_io::{Buffer, Timestamp};

use super::device::{Finished, Purpose};
use super::fold::Next;
use super::journal::Reader;
use super::part::Part;
use super::passes::Stage;
use super::{LineChecksums, Persistence, Phase};
use crate::cache::index::Slot;
use crate::cache::metadata::PAGE_SIZE;
use crate::cache::metadata::line_page::{self, Shape, Verdict};
use crate::cache::metadata::superblock::State;

/// How far a stop has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stopping {
    No,
    /// Until everything of this pass is durable.
    Flushing(u64),
    /// Until no page on the device names an extent that need not be.
    Clearing,
    /// Until the superblock of this ticket is durable.
    Recording(u64),
    Done,
}

/// How far giving up has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GivingUp {
    No,
    /// Until the superblock of this ticket is durable.
    Recording {
        ticket: u64,
        deadline: Timestamp,
    },
    /// Until somebody outside has disowned the device.
    Disowning,
}

impl GivingUp {
    pub(super) fn deadline(self) -> Option<Timestamp> {
        if let Self::Recording { deadline, .. } = self { Some(deadline) } else { None }
    }

    pub(super) fn is_due(self, now: Timestamp) -> bool {
        self.deadline().is_some_and(|deadline| deadline <= now)
    }
}

impl Persistence {
    /// Takes every step that can be taken now.
    pub(super) fn step(&mut self) {
        self.work = false;
        if self.phase == Phase::Dead {
            return;
        }
        if self.giving_up != GivingUp::No {
            return self.give_up();
        }
        while !self.failed {
            let moved = self.open()
                | self.write_records()
                | self.retire()
                | self.fold_journal()
                | self.go_on_stopping();
            self.ledger.write(&mut self.device, &self.pool);
            self.write_activity();
            if self.device.flush() {
                self.journal.flush_begins();
            }
            if !moved {
                break;
            }
        }
    }

    fn write_activity(&mut self) {
        let opened = matches!(self.phase, Phase::Sweeping | Phase::Running);
        let now = self.flush || self.stopping == Stopping::Clearing;
        if opened && (now || self.activity.wants_write()) {
            let format_id = self.ledger.superblock().format_id;
            let head = self.journal.durable();
            let place = (format_id, &self.layout);
            self.activity.write(&mut self.device, &self.pool, place, head);
        }
        self.flush &= !opened || self.pending.has_fresh();
    }

    /// Puts records in the journal: all of them during a pass, those of extents that are not
    /// active when their time has come.
    fn write_records(&mut self) -> bool {
        if !matches!(self.phase, Phase::Sweeping | Phase::Running) {
            return false;
        }
        let mut moved = self.passes.begin() | self.go_on_passing();
        if self.journal.is_writing() || !self.journal.has_room() {
            return moved;
        }
        if let Stage::Writing(mut from) = self.passes.stage {
            let mut full = false;
            while let Some(at) = self.pending.next_taken(from)
                && !full
            {
                full = !self.journal_record(at);
                from = at + u32::from(!full);
            }
            self.passes.stage = Stage::Writing(from);
            if !full {
                self.passes.stage = Stage::Written(self.journal.next());
                moved = true;
            }
        }
        if self.flush {
            let activity = &self.activity;
            self.pending.hold_fresh(|extent| activity.is_active(extent));
            while let Some(at) = self.pending.next_fresh()
                && self.journal_record(at)
            {}
        }
        self.journal.write(&mut self.device, &self.pool);
        moved
    }

    /// Moves a record into the journal's next write, if it has room.
    fn journal_record(&mut self, at: u32) -> bool {
        let (record, extent) = self.pending.get(at);
        let written = self.journal.push(&record);
        if written {
            self.recorded.add(extent);
            self.pending.remove(at);
        }
        written
    }

    fn go_on_passing(&mut self) -> bool {
        match self.passes.stage {
            Stage::Written(head) if self.journal.is_written(head) => {
                if self.passes.wants_flush() {
                    self.passes.stage = Stage::Flushing(self.device.want_flush());
                } else {
                    self.passes.finish(false);
                }
            }
            Stage::Flushing(ticket) if self.device.is_flushed(ticket) => self.passes.finish(true),
            _ => return false,
        }
        true
    }

    /// Makes places for extents when they run out.
    fn retire(&mut self) -> bool {
        if let Some(pass) = self.retiring {
            if !self.passes.is_durable(pass) {
                return false;
            }
            self.retiring = None;
            self.activity.end_retiring();
            let activity = &self.activity;
            self.pending.free_held(|extent| activity.is_active(extent));
            self.schedule_flush();
            return true;
        }
        let wanted = self.phase == Phase::Running
            && self.stopping == Stopping::No
            && self.activity.is_short();
        if !wanted {
            return false;
        }
        if self.lost {
            // Nothing can be given up: who waits for a place would wait for ever.
            self.failed |= self.activity.is_starved();
            return false;
        }
        if self.retire_after > self.now {
            return false;
        }
        if !self.activity.begin_retiring() {
            self.failed |= self.activity.is_hopeless();
            self.retire_after = self.now + self.config.flush_interval;
            return false;
        }
        self.retiring = Some(self.passes.request(true));
        true
    }

    fn schedule_flush(&mut self) {
        if self.pending.has_fresh() {
            self.flush_due.get_or_insert(self.now + self.config.flush_interval);
        }
    }

    fn fold_journal(&mut self) -> bool {
        if self.phase != Phase::Running {
            return false;
        }
        if self.fold.is_idle() {
            let stopping = !matches!(self.stopping, Stopping::No | Stopping::Flushing(_));
            let Some(end) = self.journal.foldable().filter(|_| !stopping) else { return false };
            let format_id = self.ledger.superblock().format_id;
            let blocks = self.journal.tail()..end;
            let transfer_max = self.config.transfer_max;
            let reader = Reader::new(self.layout, format_id, transfer_max, blocks);
            self.fold.begin(reader, Part::new(&self.layout, self.config.part_places_max), end);
        }
        if let Some(flush) = self.fold.awaits_flush() {
            if self.device.is_flushed(flush) {
                let tail = self.fold.end();
                let ticket = self.ledger.change(|superblock| superblock.journal_tail = tail);
                self.fold.recording(ticket);
                return true;
            }
        } else if let Some(ticket) = self.fold.awaits_superblock() {
            if self.ledger.is_durable(ticket) {
                self.journal.folded(self.fold.end());
                self.fold.finish();
                return true;
            }
        } else {
            match self.fold.step(&mut self.device, &self.pool) {
                Next::Wait | Next::Sent => {}
                Next::Flush => self.fold.flushing(self.device.want_flush()),
                Next::Damaged => self.failed = true,
            }
        }
        false
    }

    fn go_on_stopping(&mut self) -> bool {
        match self.stopping {
            Stopping::Flushing(pass) if self.passes.is_durable(pass) => {
                if self.lost {
                    // The device may know a slot as another line's: not clean.
                    self.stopping = Stopping::Done;
                } else if self.pending.len() > 0 {
                    self.stopping = Stopping::Flushing(self.passes.request(true));
                } else {
                    // Before everything is loaded, extents of the last run must stay.
                    if self.phase == Phase::Running {
                        self.retiring = None;
                        self.activity.retire_all();
                    }
                    self.stopping = Stopping::Clearing;
                }
                true
            }
            // Without a fold there is never room again: the run ends, but not in order.
            Stopping::Flushing(_) if self.phase == Phase::Sweeping && !self.journal.has_room() => {
                self.stopping = Stopping::Done;
                true
            }
            Stopping::Clearing if self.activity.is_written() && self.fold.is_idle() => {
                let ticket = self.ledger.change(|superblock| superblock.state = State::Clean);
                self.stopping = Stopping::Recording(ticket);
                true
            }
            Stopping::Recording(ticket) if self.ledger.is_durable(ticket) => {
                self.stopping = Stopping::Done;
                true
            }
            _ => false,
        }
    }

    fn give_up(&mut self) {
        let GivingUp::Recording { ticket, deadline } = self.giving_up else { return };
        self.ledger.write(&mut self.device, &self.pool);
        if self.ledger.is_in_doubt() || deadline <= self.now {
            self.giving_up = GivingUp::Disowning;
        } else if self.ledger.is_durable(ticket) {
            self.die();
        }
    }

    /// The cache is given up, durably: whoever waits may go on.
    pub(super) fn die(&mut self) {
        self.phase = Phase::Dead;
        self.giving_up = GivingUp::No;
        self.failed = true;
        self.activity.release_all(&mut self.activated);
    }

    /// Takes a request's end.
    pub(super) fn finished(&mut self, finished: Finished) {
        let Finished { purpose, buffer, result } = finished;
        let succeeded = result.is_ok();
        let read = buffer.as_ref().filter(|_| succeeded);
        match purpose {
            Purpose::Superblock => self.superblock_written(result),
            Purpose::Flush if succeeded => self.journal.flushed(),
            Purpose::JournalWrite if succeeded => self.journal.write_done(),
            Purpose::ActivityWrite { page } => {
                self.activity.written(page, succeeded, &mut self.activated);
                self.failed |= !succeeded;
            }
            Purpose::SweepWrite { first_page } if succeeded => {
                if let Some(sweep) = &mut self.sweep {
                    sweep.write_done(first_page);
                }
            }
            Purpose::FoldWrite { lane } if succeeded => {
                self.fold.pages_written(lane, &mut self.device);
            }
            Purpose::Flush
            | Purpose::JournalWrite
            | Purpose::SweepWrite { .. }
            | Purpose::FoldWrite { .. } => self.failed = true,
            Purpose::ActivityRead { page, copy } => self.activity_page_read(page, copy, read),
            Purpose::JournalRead { first } => self.journal_read(first, read),
            Purpose::SweepRead { first_page } => {
                if let Some(sweep) = &mut self.sweep {
                    sweep.read_done(first_page, read.cloned());
                }
            }
            Purpose::FoldRead { lane } => {
                if let Some(buffer) = &buffer {
                    self.fold.pages_read(lane, buffer, succeeded, &mut self.device);
                }
            }
            Purpose::ChecksumRead { slot } => {
                self.checksum_reads -= 1;
                if let Some(buffer) = &buffer {
                    self.answer_checksums(slot, buffer, succeeded);
                }
            }
        }
    }

    fn superblock_written(&mut self, result: Result<(), block_io::IoError>) {
        self.ledger.written(result);
        if result.is_err() {
            self.failed = true;
            // Giving up was its last word, unless an older one was on its way still.
            if let GivingUp::Recording { .. } = self.giving_up
                && self.ledger.is_last_failed()
            {
                self.giving_up = GivingUp::Disowning;
            }
        }
    }

    pub(super) fn answer_checksums(&mut self, slot: Slot, buffer: &Buffer, is_read: bool) {
        let mut bytes = [0; PAGE_SIZE];
        buffer.copy_to_slice(&mut bytes);
        let page = slot.0 / self.slots_per_page();
        let format_id = self.ledger.superblock().format_id;
        let valid = is_read && line_page::check(&bytes, format_id, page) == Verdict::Valid;
        let answer = valid.then(|| {
            let (shape, at) = (Shape::new(self.layout.line_size), slot.0 % self.slots_per_page());
            let (entry, valid) = shape.get(&bytes, at as usize);
            LineChecksums { entry, valid, checksums: shape.checksums(&bytes, at as usize) }
        });
        self.checksums.push((slot, answer));
    }
}
