//! What a connection takes of the target's limits, and what it gives back.

use block_io::Timestamp;

use super::{Command, Connection, Phase, Stage};
use crate::error::ConnectionError;
use crate::target::Target;

impl Connection {
    /// Counts a new connection among those that are no queue, and ends one that is the oldest of
    /// too many.
    pub(super) fn enter(&mut self, target: &mut Target) -> bool {
        if self.phase == Phase::Finished || self.queue.is_some() {
            return false;
        }
        if self.count_unconnected(target) {
            return false;
        }
        let most = target.settings.unconnected_max;
        let reason = format!("there are more than {most} connections that are no queue");
        self.finish(target, ConnectionError::Refused(reason));
        true
    }

    /// Counts the connection among those that are no queue; returns whether it may stay one.
    pub(super) fn count_unconnected(&mut self, target: &mut Target) -> bool {
        let usage = &mut target.usage;
        let most = target.settings.unconnected_max;
        let number = *self.unconnected.get_or_insert_with(|| usage.enter_unconnected(most));
        usage.may_stay_unconnected(number)
    }

    /// The connection is a queue now, or gone.
    pub(super) fn leave_unconnected(&mut self, target: &mut Target) {
        if let Some(number) = self.unconnected.take() {
            target.usage.leave_unconnected(number);
        }
    }

    /// Brings the target's accounts up to date. Returns whether another connection, which waits for
    /// memory, may go on now.
    pub(super) fn settle(&mut self, target: &mut Target) -> bool {
        let usage = &mut target.usage;
        let is_waiting = !self.waiting.is_empty();
        if self.counted_waiting != is_waiting {
            self.counted_waiting = is_waiting;
            if is_waiting {
                usage.waiting += 1;
            } else {
                usage.waiting -= 1;
            }
        }
        // What came in capsules of commands that wait is not theirs to wait for: it is bounded by
        // itself, and would keep them all waiting.
        let taken = self.taken() - if is_waiting { self.waiting_capsules() } else { 0 };
        let before = std::mem::replace(&mut self.charged, taken);
        usage.memory = usage.memory - before + taken;
        taken < before && usage.waiting > usize::from(is_waiting)
    }

    /// Bytes of payload that the connection holds.
    pub(super) fn taken(&self) -> usize {
        self.held + self.encoder.queued_bytes()
    }

    /// Whether `bytes` more of payload memory may be taken. A command that would be the only one
    /// with memory, but for what came in the capsules of those that wait, always may: of the
    /// connection if the others leave room, and of all.
    pub(super) fn has_memory(&self, target: &Target, bytes: usize) -> bool {
        let (taken, most) = (self.taken(), target.settings.memory_max);
        let others = target.usage.memory - self.charged;
        if taken + bytes <= self.bytes_in_flight_max && others + taken + bytes <= most {
            return true;
        }
        let busy = taken.saturating_sub(self.waiting_capsules());
        let fits = busy == 0 || taken + bytes <= self.bytes_in_flight_max;
        fits && (others + busy == 0 || others + busy + bytes <= most)
    }

    /// Bytes that came in capsules of commands that wait for more memory.
    fn waiting_capsules(&self) -> usize {
        let waits = |command: &&Command| matches!(command.stage, Stage::Waiting(_) | Stage::Half);
        let waiting = self.commands.iter().flatten().filter(waits);
        // The one that asks is itself between stages.
        let asking =
            self.waiting.front().and_then(|place| self.commands[usize::from(*place)].as_ref());
        let asking = asking.filter(|command| !waits(command));
        let capsules = waiting.chain(asking).map(Command::capsule_length);
        capsules.map(|length| length as usize).sum()
    }

    /// Ends a connection whose host is to send or to receive and does neither.
    pub(super) fn check_stall(&mut self, target: &mut Target, now: Timestamp) {
        let is_expected = self.transferring > 0 || self.encoder.queued_bytes() > 0;
        if !is_expected || self.phase == Phase::Finished {
            // The time that was set stays until it is over: a driver sets one timer for many
            // transfers instead of one for each.
            self.moved = true;
            self.stall_deadline = self.stall_deadline.filter(|deadline| now < *deadline);
            return;
        }
        let timeout = target.settings.stall_timeout;
        if std::mem::take(&mut self.moved) {
            self.stall_deadline = Some(now + timeout);
        }
        if self.stall_deadline.is_some_and(|deadline| now >= deadline) {
            self.stall_deadline = None;
            let what = "a transfer, of which no byte moved,".to_owned();
            self.finish(target, ConnectionError::TimedOut(what, timeout));
        }
    }
}
