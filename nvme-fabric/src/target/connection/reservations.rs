//! Reservation commands: executed at once, completed when what they entail is over.

use super::{Connection, Stage};
use crate::spec::command::ReservationCommand;
use crate::spec::status::Status;
use crate::target::reservation::{self, Outcome};
use crate::target::{NamespaceKey, Target};

/// The most data that such a command brings.
const DATA_MAX: usize = 16;

impl Connection {
    /// Executes the reservation command at `place`, which has its data.
    pub(super) fn reserve(
        &mut self,
        target: &mut Target,
        place: u16,
        namespace: NamespaceKey,
        command: ReservationCommand,
    ) {
        let Some(queue) = self.queue else { return };
        let mut bytes = [0; DATA_MAX];
        let mut length = 0;
        if let Some(buffer) = &self.command_mut(place).buffer {
            length = buffer.len().min(DATA_MAX);
            buffer.slice(0, length).copy_to_slice(&mut bytes[..length]);
        }
        let data = &bytes[..length];
        match reservation::execute(target, queue.controller, namespace, command, data) {
            Err(status) => self.fail(place, status),
            Ok(Outcome::Report(bytes)) => {
                let buffer = self.pool.allocate(bytes.len());
                buffer.copy_from_slice(&bytes);
                self.deliver(place, &buffer);
            }
            Ok(Outcome::Pending(pending)) => {
                self.command_mut(place).stage = Stage::Reserving(Box::new(pending));
                self.pending.push_back(place);
            }
        }
    }

    /// Completes reservation commands whose consequences are over, in order.
    pub(super) fn complete_reservations(&mut self, target: &Target) -> bool {
        let mut progress = false;
        for _ in 0..self.pending.len() {
            let Some(place) = self.pending.pop_front() else { break };
            let status = match &self.command_mut(place).stage {
                Stage::Reserving(pending) => reservation::settled(target, pending),
                _ => Some(Status::INTERNAL_ERROR),
            };
            match status {
                None => self.pending.push_back(place),
                Some(status) => {
                    progress = true;
                    self.respond(place, 0, status);
                }
            }
        }
        progress
    }
}
