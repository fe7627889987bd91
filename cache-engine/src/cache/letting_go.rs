//! Origins that may lose what they have acknowledged: who is told of a flush, and what becomes of
//! extents that can't be flushed while others need their places in the activity log.
//!
//! ```text
//!   places run out ─▶ own flush ──succeeds──▶ its extents are over
//!                         └──fails, or takes a second──▶ let go: lines dropped in steps ─▶ over
//!                                          nothing of them is cached until a flush succeeds
//! ```
//! So no volume's write waits longer for another's origin than that. What is let go is remembered
//! as [`doubt`](super::doubt), which takes no place.
//!
//! Absent: which extents they are ([`super::unflushed`]).

use block_io::{Extent, IoError, Request, Timestamp};

use super::Cache;
use super::config::VolumeId;
use super::line::LineNumber;
use super::line_lock::PieceIndex;
use super::outbox::Token;

/// Lines that are looked for in one step.
const LINES_A_STEP: u64 = 4096;

/// An extent whose lines are being dropped.
pub(crate) struct Leaving {
    flat: Extent,
    next_line: u64,
    /// A change of it is held on to until they are.
    held: bool,
}

impl Cache {
    /// Whether a change that was done, or may have been, is held on to until the origin has flushed
    /// it: the first since the last flush in each extent.
    pub(super) fn is_unflushed(
        &mut self,
        name: PieceIndex,
        extent: Extent,
        result: Result<(), IoError>,
    ) -> bool {
        let request = &self.requests[self.pieces[name].request];
        let (id, durable) = (request.volume, request.force_unit_access());
        let volume = &mut self.volumes[id];
        let may_be_lost = match result {
            Ok(()) => !durable,
            Err(error) => error.outcome_unknown(),
        };
        if !volume.geometry.volatile_cache || !may_be_lost {
            return false;
        }
        if volume.doubt.covers_unflushed(extent) {
            // Nothing is cached of it: only for longer.
            volume.doubt.note_unflushed(extent, volume.unflushed.epoch());
            return false;
        }
        let held = volume.unflushed.note(extent);
        if volume.unflushed.is_much() {
            self.flush_origin(id);
        }
        held
    }

    /// Flushes the origin, unless that is under way or has failed a moment ago.
    pub(super) fn flush_origin(&mut self, id: VolumeId) {
        if self.volumes[id].unflushed.begin_own_flush(self.now) {
            let token = Token::OwnFlush { volume: id.0 }.id();
            self.outbox.origin.push((id, Request::flush(token)));
        }
    }

    /// Our own flush has ended.
    pub(super) fn own_flush_done(&mut self, id: VolumeId, result: Result<(), IoError>) {
        let now = self.now;
        let Some(volume) = self.volumes.get_mut(id) else { return };
        if let Some(epoch) = volume.unflushed.end_own_flush(result.is_ok(), now) {
            self.flushed(id, epoch);
        }
    }

    /// What the origin acknowledged before that flush began is durable.
    pub(super) fn flushed(&mut self, id: VolumeId, epoch: u64) {
        let (volume, keeper) = (&mut self.volumes[id], &mut self.keeper);
        volume.unflushed.flushed(epoch, |extent| {
            if let Some(keeper) = keeper {
                keeper.end_change(extent);
            }
        });
        if volume.doubt.awaits_flush() {
            volume.doubt.flushed(epoch);
            self.publish_gates();
        }
    }

    /// When origins are to be flushed of what was let go.
    pub(super) fn flush_due(&self) -> Option<Timestamp> {
        self.flush_due.filter(|_| !self.stopping)
    }

    /// Flushes what is left uncached until then; and where a change waits for a place in the
    /// activity log, what all volumes together hold on to, which may be all places.
    pub(super) fn tend_unflushed(&mut self) {
        let starved = self.keeper.as_ref().is_some_and(|keeper| keeper.is_starved());
        if !starved && self.flush_due().is_none_or(|due| due > self.now) {
            return;
        }
        let ids: Vec<_> = self.volumes.ids().collect();
        for id in &ids {
            let volume = &self.volumes[*id];
            let holds = starved && !volume.unflushed.is_empty();
            let is_hopeless = volume.unflushed.is_hopeless(self.now);
            if holds && is_hopeless {
                self.let_go(*id);
            } else if holds || volume.doubt.awaits_flush() {
                self.flush_origin(*id);
            }
        }
        let awaiting = ids.into_iter().map(|id| &self.volumes[id]);
        let awaiting = awaiting.filter(|volume| volume.doubt.awaits_flush());
        // One that is under way may take its time: it is asked again now and then.
        let later = self.now + super::unflushed::PAUSE_MIN;
        let due = |after: Timestamp| if after > self.now { after } else { later };
        self.flush_due = awaiting.map(|volume| due(volume.unflushed.flush_after())).min();
    }

    /// Nothing of what the volume's origin has not flushed is cached any more, until it has.
    fn let_go(&mut self, id: VolumeId) {
        let volume = &mut self.volumes[id];
        let extents = volume.unflushed.take();
        volume.statistics.extents_let_go += extents.len() as u64;
        for (extent, epoch) in &extents {
            volume.doubt.note_unflushed(*extent, *epoch);
        }
        self.drop_extents(extents.into_iter().map(|(extent, _)| (extent, true)));
        self.flush_due = Some(self.now);
    }

    /// The origin may have lost all that it was not told to flush, and lose it later.
    pub(super) fn fence_unflushed(&mut self, id: VolumeId) {
        let unflushed = &mut self.volumes[id].unflushed;
        let extents = unflushed.extents();
        if !extents.is_empty() || self.volumes[id].doubt.awaits_flush() {
            self.volumes[id].unflushed.note_loss();
        }
        self.drop_extents(extents.into_iter().map(|extent| (extent, false)));
    }

    /// Drops the lines of these extents, with whether a change of each is held on to until they
    /// are. None is served from now on.
    pub(super) fn drop_extents(&mut self, extents: impl Iterator<Item = (Extent, bool)>) {
        for (flat, held) in extents {
            self.stop_filling(flat.offset..flat.end());
            let next_line = flat.offset >> self.line_size.shift();
            self.leaving.push_back(Leaving { flat, next_line, held });
        }
        self.publish_gates();
        self.leaving_step();
    }

    /// Whether lines of these flat bytes are still to be dropped.
    pub(super) fn is_leaving(&self, flat: Extent) -> bool {
        self.leaving.iter().any(|leaving| leaving.flat.overlaps(flat))
    }

    /// Drops as many lines as can be recorded.
    pub(super) fn leaving_step(&mut self) {
        if self.leaving.is_empty() {
            return;
        }
        let mut left = LINES_A_STEP;
        while let Some(&Leaving { flat, next_line, held }) = self.leaving.front() {
            if flat.end() >> self.line_size.shift() == next_line {
                self.leaving.pop_front();
                if held {
                    self.change_ended(flat);
                }
                continue;
            }
            if left == 0 {
                return;
            }
            if !self.has_room_to_drop(1) {
                if let Some(keeper) = &mut self.keeper {
                    keeper.make_room();
                }
                return;
            }
            left -= 1;
            // What a start has not loaded yet is of extents that were named then: it drops them.
            self.drop_line(LineNumber(next_line));
            if let Some(leaving) = self.leaving.front_mut() {
                leaving.next_line += 1;
            }
        }
        self.publish_gates();
    }

    /// The index is a new one, with nothing in it to drop, and the records know of no extent. What
    /// is not flushed is named by nobody, so nothing is cached of it until it is.
    pub(super) fn leave_all_unflushed(&mut self) {
        self.leaving.clear();
        let ids: Vec<_> = self.volumes.ids().collect();
        for id in ids {
            let volume = &mut self.volumes[id];
            for (extent, epoch) in volume.unflushed.take() {
                volume.doubt.note_unflushed(extent, epoch);
                self.flush_due = Some(self.now);
            }
        }
        self.publish_gates();
    }

    /// The volume lies `distance` flat bytes further on; what was cached of it is being dropped.
    pub(super) fn move_doubt(&mut self, id: VolumeId, distance: u64) {
        let volume = &mut self.volumes[id];
        volume.doubt.shift(distance);
        let extents = volume.unflushed.take();
        for (extent, epoch) in &extents {
            let moved = Extent::new(extent.offset + distance, extent.length);
            volume.doubt.note_unflushed(moved, *epoch);
            self.flush_due = Some(self.now);
        }
        self.drop_extents(extents.into_iter().map(|(extent, _)| (extent, true)));
    }
}
