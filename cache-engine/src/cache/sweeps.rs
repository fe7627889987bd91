//! Dropping lines: of a range, because they must not be served any more, and of whatever the policy
//! wants gone.
//!
//! What touches many lines is done by *sweeps*, a bounded number of sets a step, while requests go
//! on. A sweep that must hold after a crash is done when what it dropped is recorded.
//!
//! Absent: who has lines dropped, and what it makes possible ([`super::administration`],
//! [`super::lease`], [`super::keeping`]).

use block_io::Extent;

use super::Cache;
use super::config::VolumeId;
use super::entry::WAYS;
use super::line::LineNumber;
use super::outbox::{Event, Ticket};

/// Sets that a sweep looks at in one step: tens of microseconds.
const SETS_A_STEP: u32 = 512;

/// A pass over the index that drops the lines of a range.
pub(crate) struct Sweep {
    lines: std::ops::Range<u64>,
    next_set: u32,
    ticket: Ticket,
    /// All is dropped; what was recorded by then has to be durable.
    barrier: Option<u64>,
    then: Then,
}

/// What a sweep makes possible when its end is durable.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Then {
    Nothing,
    /// The superblock may forget the volume whose lines these were.
    Forget(VolumeId),
}

/// Lines to be dropped, wherever they are.
#[derive(Debug, Default)]
pub(crate) struct Purge {
    /// How many are still to go.
    pub(super) lines: u64,
    next_set: u32,
    /// Sets seen since a line was last found that may go.
    barren: u32,
}

impl Cache {
    /// Whatever is on its way into the cache of these flat bytes does not get there.
    pub(super) fn stop_filling(&mut self, flat: std::ops::Range<u64>) {
        let shift = self.line_size.shift();
        self.fills.exclude_lines(flat.start >> shift..flat.end >> shift);
        for piece in self.pieces.iter_mut() {
            if piece.extent.offset < flat.end && flat.start < piece.extent.end() {
                piece.fills = false;
            }
        }
    }

    /// Drops the lines of a range of flat bytes. None of them is served from now on; the ticket is
    /// for when that will stay so after a crash.
    pub(super) fn drop_range(&mut self, flat: std::ops::Range<u64>, then: Then) -> Ticket {
        let shift = self.line_size.shift();
        self.stop_filling(flat.clone());
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        let lines = flat.start >> shift..flat.end >> shift;
        let mut sweep = Sweep { lines: lines.clone(), next_set: 0, ticket, barrier: None, then };
        let is_loaded = self.sets_loaded() == self.index.sets();
        let count = lines.end - lines.start;
        if is_loaded && count <= u64::from(SETS_A_STEP) && self.has_room_to_drop(count as usize) {
            for line in lines {
                self.drop_line(LineNumber(line));
            }
            sweep.next_set = self.index.sets();
        }
        self.sweeps.push_back(sweep);
        self.sweep_step();
        ticket
    }

    /// Whether that sweep is not done, or what it dropped may come back after a crash.
    pub(super) fn is_sweeping(&self, ticket: Ticket) -> bool {
        self.sweeps.iter().any(|sweep| sweep.ticket == ticket)
    }

    /// Whether a volume's lines are being dropped, so that its record can be.
    pub(super) fn is_forgetting(&self, id: VolumeId) -> bool {
        self.sweeps.iter().any(|sweep| matches!(sweep.then, Then::Forget(other) if other == id))
    }

    /// Whether a sweep has still to drop lines of these flat bytes.
    pub(super) fn is_being_dropped(&self, flat: Extent) -> bool {
        let shift = self.line_size.shift();
        // Asked by every request, and nearly always there is none.
        !(self.sweeps.is_empty() && self.leaving.is_empty())
            && (self.is_leaving(flat)
                || self.sweeps.iter().any(|sweep| {
                    sweep.next_set < self.index.sets()
                        && flat.offset >> shift < sweep.lines.end
                        && sweep.lines.start << shift < flat.end()
                }))
    }

    /// Sets whose lines of an earlier run are in the index.
    fn sets_loaded(&self) -> u32 {
        self.keeper.as_ref().map_or(self.index.sets(), |keeper| keeper.sets_loaded())
    }

    /// The index is a new one, with nothing in it to drop.
    pub(super) fn end_sweeps(&mut self) {
        for sweep in &mut self.sweeps {
            (sweep.next_set, sweep.barrier) = (self.index.sets(), None);
        }
    }

    /// The sweep that can go on: what is not loaded can't be dropped yet.
    pub(super) fn next_sweep(&self) -> Option<usize> {
        let end = self.sets_loaded().min(self.index.sets());
        if !self.has_room_to_drop(WAYS) {
            return None;
        }
        self.sweeps.iter().position(|sweep| sweep.next_set < end)
    }

    /// Whether it can be recorded that so many lines are dropped, beside the stores in flight.
    pub(super) fn has_room_to_drop(&self, lines: usize) -> bool {
        let needed = self.fills.len() + lines;
        self.keeper.as_ref().is_none_or(|keeper| keeper.has_room_beside(needed))
    }

    pub(super) fn drop_line(&mut self, line: LineNumber) {
        let Some(slot) = self.index.find(line) else { return };
        let flat = Extent::new(line.0 << self.line_size.shift(), self.line_size.bytes());
        if self.locks.is_held(flat) {
            self.drop_blocks(slot, self.all_blocks());
        } else {
            self.vacate(slot);
        }
    }

    pub(super) fn sweep_step(&mut self) {
        if let Some(at) = self.next_sweep() {
            let Sweep { next_set, ref lines, .. } = self.sweeps[at];
            let lines = lines.clone();
            let end = self.sets_loaded().min(next_set.saturating_add(SETS_A_STEP));
            let mut next_set = next_set;
            while next_set < end && self.has_room_to_drop(WAYS) {
                let found: Vec<_> = self.index.lines_of_set(next_set).collect();
                for (_, line) in found {
                    if lines.contains(&line.0) {
                        self.drop_line(line);
                    }
                }
                next_set += 1;
            }
            self.sweeps[at].next_set = next_set;
        }
        let unfinished = self.sweeps.iter().any(|sweep| sweep.next_set < self.index.sets());
        if unfinished
            && !self.has_room_to_drop(WAYS)
            && let Some(keeper) = &mut self.keeper
        {
            keeper.make_room();
        }
        while let Some(sweep) = self.sweeps.front_mut()
            && sweep.next_set == self.index.sets()
        {
            if let Some(keeper) = &mut self.keeper {
                let barrier = *sweep.barrier.get_or_insert_with(|| keeper.barrier());
                if !keeper.is_recorded(barrier) && !keeper.is_dead() {
                    return;
                }
            }
            let Some(Sweep { ticket, then, .. }) = self.sweeps.pop_front() else { return };
            match then {
                Then::Nothing => self.outbox.events.push(Event::Done(ticket)),
                Then::Forget(id) => self.forget_record(id, ticket),
            }
        }
    }

    /// Drops what the policy wants dropped, a bounded number of sets a step.
    pub(super) fn purge_step(&mut self) {
        self.purge.lines += self.policy.tick(self.now).lines;
        let sets = self.index.sets();
        for _ in 0..SETS_A_STEP.min(sets) {
            if self.purge.lines == 0 {
                return;
            }
            let set = self.purge.next_set % sets;
            self.purge.next_set = set + 1;
            if let Some(slot) = self.oldest_victim(set, None) {
                self.vacate(slot);
                self.purge.lines -= 1;
                self.purge.barren = 0;
            } else {
                self.purge.barren += 1;
            }
            if self.purge.barren > sets {
                // Nothing that is left may go.
                self.purge = Purge { next_set: self.purge.next_set, ..Purge::default() };
            }
        }
    }
}
