//! Keep Alive, by a timer of its own: whatever I/O does, the controller hears from this host.
//!
//! It is sent twice per timeout. Absent: traffic based keep alive, which could spare the command
//! while I/O flows.

use std::time::Duration;

use block_io::Timestamp;

use super::{Controller, token};
use crate::error::ConnectionError;
use crate::host::connection::{Data, Outcome};
use crate::spec::command::AdminCommand;
use crate::spec::sgl::Descriptor;

/// When the next one is due.
#[derive(Debug)]
pub(super) struct KeepAlive {
    timeout: Duration,
    next: Option<Timestamp>,
    in_flight: bool,
}

impl KeepAlive {
    pub(super) fn new(timeout: Duration) -> Self {
        Self { timeout, next: None, in_flight: false }
    }

    /// KATO.
    pub(super) fn milliseconds(&self) -> u32 {
        u32::try_from(self.timeout.as_millis()).unwrap_or(u32::MAX)
    }

    /// The controller's timer has started.
    pub(super) fn start(&mut self, now: Timestamp) {
        if !self.timeout.is_zero() {
            self.next = Some(now + self.timeout / 2);
        }
    }

    pub(super) fn stop(&mut self) {
        self.next = None;
    }

    pub(super) fn next(&self) -> Option<Timestamp> {
        self.next
    }
}

impl Controller {
    pub(super) fn send_keep_alive(&mut self) -> bool {
        let Some(next) = self.keep_alive.next.filter(|next| *next <= self.now) else {
            return false;
        };
        let timeout = self.keep_alive.timeout;
        if self.keep_alive.in_flight {
            // Half a timeout has passed without an answer. The next look is at its end.
            let after = self.now.since(next) + timeout / 2;
            let what = format!("{}: Keep Alive", self.options.address);
            self.lose(ConnectionError::TimedOut(what, after));
            return true;
        }
        self.keep_alive.next = Some(self.now + timeout / 2);
        let entry = AdminCommand::KeepAlive.encode(0, Descriptor::NONE);
        self.keep_alive.in_flight = self.send_admin(entry, Data::None, token::KEEP_ALIVE).is_ok();
        true
    }

    pub(super) fn take_keep_alive(&mut self, outcome: Outcome) {
        self.keep_alive.in_flight = false;
        if let Outcome::Completed(completion) = outcome
            && !completion.status.is_success()
        {
            let (address, status) = (&self.options.address, completion.status);
            self.lose(ConnectionError::Refused(format!("{address}: Keep Alive: {status}")));
        }
    }
}
