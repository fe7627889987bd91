//! Commands past their deadline, and deadlines that change while the association is up.
//!
//! ```text
//!   deadline ──▶ Abort ──answered──▶ the command ends, aborted or not
//!                  └─────not in time─▶ the association is given up
//! ```
//! An Abort that finds no room is not sent: then the association is given up when its time is over.

use std::time::Duration;

use super::{Controller, token};
use crate::host::connection::{Connection, Data};
use crate::spec::command::AdminCommand;
use crate::spec::sgl::Descriptor;

impl Controller {
    /// Asks the controller to abort what is past its deadline.
    pub(super) fn send_aborts(&mut self) -> bool {
        if !self.is_up() {
            return false;
        }
        let mut progress = false;
        // ACL is 0's based. NVMe Base 2.1 §5.1.13.2.1
        let limit = u16::from(self.identity.controller.abort_limit) + 1;
        for queue_id in 1..self.queues.len() as u16 {
            while let Some(command_id) =
                self.connection(queue_id).and_then(Connection::next_expired)
            {
                progress = true;
                let command = AdminCommand::Abort { queue_id, command_id };
                let entry = command.encode(0, Descriptor::NONE);
                if self.aborting < limit && self.send_admin(entry, Data::None, token::ABORT).is_ok()
                {
                    self.aborting += 1;
                }
            }
        }
        progress
    }

    /// Changes how long commands sent from now on may take, and how long aborting those sent on
    /// queues opened from now on.
    pub fn set_deadlines(&mut self, command_timeout: Duration, abort_time: Option<Duration>) {
        self.options.command_timeout = command_timeout;
        self.options.abort_time = abort_time;
    }
}
