//! Abort: an admin command that ends a command of another queue, which is another connection.
//! Base §5.1.
//!
//! ```text
//!   admin queue: Abort ──▶ Controller::aborts ──▶ I/O queue's poll: cancel
//!   admin queue: 0 or 1 ◀── Controller::aborts ◀── cancelled, or too late
//! ```
//! What waits (for memory, data, blocks or its other half) is cancelled; what is at the device is
//! not, unless it has steps still to come. At most [`ABORT_LIMIT`] plus one at a time.

use super::fused::FirstHalf;
use super::{Connection, Stage};
use crate::spec::command;
use crate::spec::status::Status;
use crate::target::Target;
use crate::target::admin::ABORT_LIMIT;

/// Dword 0 of Abort: bit 0 says that the command was not aborted.
const ABORTED: u64 = 0;
const NOT_ABORTED: u64 = 1;

/// An Abort command that is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::target) struct AbortOrder {
    /// Its place on the admin queue.
    place: u16,
    queue_id: u16,
    command_id: u16,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The queue has not looked yet.
    Asked,
    /// The command at this place ends as soon as it can.
    Ending(u16),
    Done {
        aborted: bool,
    },
}

impl Connection {
    /// Executes Abort on the admin queue.
    pub(super) fn order_abort(
        &mut self,
        target: &mut Target,
        place: u16,
        queue_id: u16,
        command_id: u16,
    ) {
        if queue_id == 0 {
            return self.abort_event_request(place, command_id);
        }
        let Some(queue) = self.queue else { return };
        let Some(controller) = target.controller_mut(queue.controller) else { return };
        if controller.aborts.len() > usize::from(ABORT_LIMIT) {
            return self.fail(place, Status::ABORT_LIMIT_EXCEEDED.do_not_retry());
        }
        self.command_mut(place).stage = Stage::Aborting;
        controller.aborts.push(AbortOrder { place, queue_id, command_id, state: State::Asked });
    }

    /// Of the admin queue's own commands, only event requests wait.
    fn abort_event_request(&mut self, place: u16, command_id: u16) {
        let Self { parked, commands, .. } = self;
        let found = parked.iter().position(|parked| {
            commands[usize::from(*parked)]
                .as_ref()
                .is_some_and(|command| command::command_id(&command.entry) == command_id)
        });
        let Some(parked) = found.and_then(|index| self.parked.remove(index)) else {
            return self.succeed(place, NOT_ABORTED);
        };
        self.fail(parked, Status::ABORT_REQUESTED);
        self.succeed(place, ABORTED);
    }

    /// Sees to the controller's Abort commands: those of this queue's commands, and on the admin
    /// queue, those that are answered.
    pub(super) fn advance_aborts(&mut self, target: &mut Target) -> bool {
        let Some(queue) = self.queue else { return false };
        let Some(controller) = target.controller_mut(queue.controller) else { return false };
        if controller.aborts.is_empty() {
            return false;
        }
        if queue.id != 0 {
            let mut progress = false;
            for order in &mut controller.aborts {
                if order.queue_id == queue.id {
                    let state = self.abort_step(*order);
                    progress |= std::mem::replace(&mut order.state, state) != state;
                }
            }
            return progress;
        }
        let before = controller.aborts.len();
        let mut orders = std::mem::take(&mut controller.aborts);
        orders.retain(|order| {
            let is_connected = usize::from(order.queue_id)
                .checked_sub(1)
                .and_then(|index| controller.io_queues.get(index))
                .is_some_and(|connected| *connected);
            let aborted = match order.state {
                State::Done { aborted } => aborted,
                // Its commands went with the queue.
                _ if !is_connected => false,
                _ => return true,
            };
            self.succeed(order.place, if aborted { ABORTED } else { NOT_ABORTED });
            false
        });
        controller.aborts = orders;
        controller.aborts.len() != before
    }

    fn abort_step(&mut self, order: AbortOrder) -> State {
        let is_it =
            |command: &super::Command| command::command_id(&command.entry) == order.command_id;
        match order.state {
            State::Done { .. } => order.state,
            State::Ending(place) => {
                let place = &self.commands[usize::from(place)];
                let is_there =
                    place.as_ref().is_some_and(|command| is_it(command) && command.is_aborted);
                if is_there { order.state } else { State::Done { aborted: true } }
            }
            State::Asked => {
                let found =
                    self.commands.iter().position(|place| place.as_ref().is_some_and(is_it));
                match found {
                    Some(place) => self.cancel(place as u16),
                    None => State::Done { aborted: false },
                }
            }
        }
    }

    /// Ends the command at `place` if that is still possible.
    fn cancel(&mut self, place: u16) -> State {
        const STATUS: Status = Status::ABORT_REQUESTED;
        if self.first_half == Some(FirstHalf::Waiting(place)) {
            self.first_half = Some(FirstHalf::Failed);
        }
        let partner = self.command_mut(place).partner;
        // Of a pair under way, the second half's place does the work.
        let worker = partner.filter(|other| self.is_sequence(*other)).unwrap_or(place);
        let command = self.command_mut(worker);
        match &command.stage {
            Stage::Sequence(_, sequence) if partner.is_some() && sequence.has_written() => {
                return State::Done { aborted: false };
            }
            Stage::Sequence(..) if worker != place => {
                command.doomed = Some(Status::ABORTED_FAILED_FUSED);
                self.command_mut(place).doomed = Some(STATUS);
            }
            Stage::Sequence(..) | Stage::Pieces { .. } => command.doomed = Some(STATUS),
            Stage::Waiting(_)
            | Stage::Blocked(_)
            | Stage::Half
            | Stage::SecondHalf(_)
            | Stage::Transferring(..) => self.refuse(place, STATUS),
            _ => return State::Done { aborted: false },
        }
        match &mut self.commands[usize::from(place)] {
            Some(command) => {
                command.is_aborted = true;
                State::Ending(place)
            }
            None => State::Done { aborted: true },
        }
    }

    fn is_sequence(&self, place: u16) -> bool {
        let command = self.commands[usize::from(place)].as_ref();
        command.is_some_and(|command| matches!(command.stage, Stage::Sequence(..)))
    }
}
