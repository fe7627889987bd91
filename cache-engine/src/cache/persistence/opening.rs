//! The first steps of a start: the superblock says InUse before anything else is written, then
//! activity pages and journal are read.
//!
//! ```text
//!   FLUSH ─▶ superblock InUse, FUA ─▶ activity pages │ journal ─▶ believable? ─▶ sweep
//!                    ▲                                                │ no
//!                    └───────────── a fresh format id: cold ◀─────────┘
//! ```
//! The flush makes sure that what is read now can't be gone after a power cut: the run before may
//! have ended without one. Not believable is what damage alone explains: a page of the activity log
//! of which neither copy is whole, or a journal that ends before the point that an activity page
//! counted on.

use super::device::{Device, Purpose};
use super::journal::{Journal, Reader};
use super::part::Part;
use super::replay::Replay;
use super::sweep::Sweep;
use super::{Fold, Persistence, Phase, Start};
use crate::cache::metadata::PAGE_SIZE;
use crate::cache::metadata::activity_page::{self, ActivityPage, Copy};
use crate::cache::metadata::superblock::State;
use block_io::Buffer;

/// Activity pages being read at the same time.
const READS_MAX: usize = 32;

/// What has been read of an activity page: the newest whole copy, and which one it is.
#[derive(Default)]
struct Copies {
    newest: Option<(u32, ActivityPage)>,
    damaged: u32,
}

/// A start before the sweep.
pub(super) struct Opening {
    was: State,
    cold: bool,
    /// What is recorded was found to be damaged.
    unbelievable: bool,
    unverified: bool,
    flush: Option<u64>,
    superblock: Option<u64>,
    pages: Vec<Copies>,
    /// Copies of activity pages that were asked for, and that were read.
    asked: usize,
    read: usize,
    replay: Option<Replay>,
    /// Something could not be read.
    unreadable: bool,
}

impl Opening {
    pub(super) fn new(was: State, start: Start) -> Self {
        let cold = start == Start::Cold || was == State::Degraded;
        Self {
            was,
            cold,
            unbelievable: false,
            unverified: false,
            flush: None,
            superblock: None,
            pages: Vec::new(),
            asked: 0,
            read: 0,
            replay: None,
            unreadable: false,
        }
    }

    pub(super) fn is_unbelievable(&self) -> bool {
        self.unbelievable
    }

    fn read_pages(
        &mut self,
        device: &mut Device,
        pool: &block_io::BufferPool,
        layout: &super::Layout,
    ) {
        while self.asked < 2 * self.pages.len() && self.asked - self.read < READS_MAX {
            let (page, copy) = (self.asked as u32 / 2, self.asked as u32 % 2);
            let offset = layout.activity_page_offset(page, copy);
            device.read(Purpose::ActivityRead { page, copy }, offset, pool.allocate(PAGE_SIZE));
            self.asked += 1;
        }
    }

    /// Whether what was read can be believed.
    fn is_believable(&self, tail: u64, head: u64) -> bool {
        let lost = |page: &Copies| page.newest.is_none() && page.damaged > 1;
        let counted_on =
            |page: &Copies| page.newest.as_ref().map_or(0, |(_, page)| page.journal_head);
        let counted_on = self.pages.iter().map(counted_on).max().unwrap_or(0);
        // Blocks before the tail are in the line table.
        !self.unreadable && !self.pages.iter().any(lost) && counted_on.max(tail) <= head
    }
}

impl Persistence {
    pub(super) fn begin_opening(&mut self) {
        self.opening.flush = Some(self.device.want_flush());
    }

    /// Goes on with the start; true when something moved.
    pub(super) fn open(&mut self) -> bool {
        match self.phase {
            Phase::Opening => self.open_superblock(),
            Phase::Reading => self.read_records(),
            Phase::Sweeping => self.go_on_sweeping(),
            Phase::Running | Phase::Dead => false,
        }
    }

    fn open_superblock(&mut self) -> bool {
        if let Some(flush) = self.opening.flush {
            if !self.device.is_flushed(flush) {
                return false;
            }
            self.opening.flush = None;
            self.take_into_use();
            return true;
        }
        let durable = self.opening.superblock.is_some_and(|ticket| self.ledger.is_durable(ticket));
        if !durable {
            return false;
        }
        let superblock = self.ledger.superblock();
        let (format_id, tail) = (superblock.format_id, superblock.journal_tail);
        let transfer_max = self.config.transfer_max;
        self.journal = Journal::new(self.layout, format_id, superblock.sequence, transfer_max);
        self.fold = Fold::new(self.layout, format_id, self.config.transfer_max);
        if self.opening.cold {
            self.journal.go_on(tail, tail);
            self.activity.load(&[]);
            self.phase = Phase::Running;
            self.activity.release_active(&mut self.activated);
            return true;
        }
        let end = tail + u64::from(self.layout.journal_blocks);
        let reader = Reader::new(self.layout, format_id, transfer_max, tail..end);
        let part = Part::new(&self.layout, self.config.part_places_max);
        self.opening.replay = Some(Replay::new(reader, part));
        self.opening.pages = (0..self.layout.activity_pages).map(|_| Copies::default()).collect();
        self.phase = Phase::Reading;
        true
    }

    fn take_into_use(&mut self) {
        let (cold, was) = (self.opening.cold, self.opening.was);
        let fresh = self.config.fresh_format_id;
        let ticket = self.ledger.change(|superblock| {
            superblock.state = State::InUse;
            if cold {
                superblock.format_id = fresh;
                superblock.verify_all = false;
            } else {
                superblock.verify_all |= was != State::Clean;
            }
        });
        self.opening.unverified = self.ledger.superblock().verify_all;
        self.opening.superblock = Some(ticket);
    }

    fn read_records(&mut self) -> bool {
        let opening = &mut self.opening;
        opening.read_pages(&mut self.device, &self.pool, &self.layout);
        let Some(replay) = &mut opening.replay else { return false };
        if !replay.is_read() {
            replay.read(&mut self.device, &self.pool);
            return false;
        }
        if opening.read < 2 * opening.pages.len() {
            return false;
        }
        let (tail, head) = (self.ledger.superblock().journal_tail, replay.head());
        if !opening.is_believable(tail, head) {
            opening.cold = true;
            opening.unbelievable = true;
            opening.pages.clear();
            opening.replay = None;
            self.phase = Phase::Opening;
            self.take_into_use();
            return true;
        }
        let pages: Vec<_> = opening.pages.drain(..).map(|copies| copies.newest).collect();
        let Some(mut replay) = opening.replay.take() else { return false };
        replay.end_here();
        self.journal.go_on(tail, head);
        self.activity.load(&pages);
        let format_id = self.ledger.superblock().format_id;
        let (transfer_max, unverified) = (self.config.transfer_max, self.opening.unverified);
        self.sweep = Some(Sweep::new(self.layout, format_id, transfer_max, replay, unverified));
        self.opening.superblock = None;
        self.phase = Phase::Sweeping;
        self.activity.release_active(&mut self.activated);
        true
    }

    /// Everything is loaded: what was dropped must be durable before anything counts on it, and
    /// the journal's tail moves to where the last run ended.
    fn go_on_sweeping(&mut self) -> bool {
        let Some(sweep) = &mut self.sweep else { return false };
        if self.stopping == super::Stopping::No {
            sweep.read(&mut self.device, &self.pool);
        }
        if sweep.is_torn() {
            // What was read of the journal before can't be read any more.
            self.failed = true;
            return false;
        }
        if !sweep.is_done() {
            return false;
        }
        let Some(ticket) = self.opening.superblock else {
            let Some(flush) = self.opening.flush else {
                self.opening.flush = Some(self.device.want_flush());
                return true;
            };
            if !self.device.is_flushed(flush) {
                return false;
            }
            let head = self.journal.start();
            let ticket = self.ledger.change(|superblock| superblock.journal_tail = head);
            self.opening.superblock = Some(ticket);
            return true;
        };
        if !self.ledger.is_durable(ticket) {
            return false;
        }
        self.dropped = [sweep.dropped, sweep.damaged];
        self.sweep = None;
        self.journal.folded(self.journal.start());
        self.phase = Phase::Running;
        true
    }

    pub(super) fn activity_page_read(&mut self, page: u32, copy: u32, buffer: Option<&Buffer>) {
        self.opening.read += 1;
        let Some(buffer) = buffer else {
            self.opening.unreadable = true;
            return;
        };
        let mut bytes = [0; PAGE_SIZE];
        buffer.copy_to_slice(&mut bytes);
        let format_id = self.ledger.superblock().format_id;
        let Some(copies) = self.opening.pages.get_mut(page as usize) else { return };
        match activity_page::decode(&bytes, format_id, page) {
            Copy::Valid(read) => {
                let newest = copies.newest.as_ref();
                if newest.is_none_or(|(_, newest)| newest.sequence < read.sequence) {
                    copies.newest = Some((copy, read));
                }
            }
            Copy::Void => {}
            Copy::Damaged => copies.damaged += 1,
        }
    }

    /// A read of the journal is over; without a buffer it failed.
    pub(super) fn journal_read(&mut self, first: u64, buffer: Option<&Buffer>) {
        if buffer.is_none() {
            // A start does without what is recorded; a running cache must not.
            if self.phase == Phase::Reading {
                self.opening.unreadable = true;
            } else {
                self.failed = true;
            }
        }
        match self.phase {
            Phase::Reading => {
                if let Some(replay) = &mut self.opening.replay {
                    replay.take(first, buffer);
                }
            }
            Phase::Sweeping => {
                if let Some(sweep) = &mut self.sweep {
                    sweep.journal_read(first, buffer);
                }
            }
            Phase::Opening | Phase::Running | Phase::Dead => self.fold.journal_read(first, buffer),
        }
    }
}
