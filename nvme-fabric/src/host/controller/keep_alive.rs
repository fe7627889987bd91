//! Keep Alive, by a timer of its own: whatever I/O does, the controller hears from this host.
//!
//! It is sent twice per timeout. A controller with traffic based keep alive (TBKAS) takes every
//! command for one: then there are four looks per timeout, and one that finds an answer to
//! something sent after the look before spares the command. What was sent earlier does not count,
//! however late its answer is: the controller may have heard nothing since.

use std::time::Duration;

use block_io::Timestamp;

use super::{Controller, token};
use crate::error::ConnectionError;
use crate::host::connection::{Connection, Data, Outcome};
use crate::spec::command::AdminCommand;
use crate::spec::identify::optional;
use crate::spec::sgl::Descriptor;

/// When the next one is due.
#[derive(Debug)]
pub(super) struct KeepAlive {
    timeout: Duration,
    next: Option<Timestamp>,
    /// When the last look was.
    looked: Timestamp,
    /// When the command in flight was sent.
    sent: Option<Timestamp>,
}

impl KeepAlive {
    pub(super) fn new(timeout: Duration) -> Self {
        Self { timeout, next: None, looked: Timestamp(0), sent: None }
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
        if let Some(sent) = self.keep_alive.sent {
            let waited = self.now.since(sent);
            if waited < timeout / 2 {
                self.keep_alive.next = Some(sent + timeout / 2);
                return true;
            }
            // The last one that was answered is a timeout ago, or nearly.
            let what = format!("{}: Keep Alive", self.options.address);
            self.lose(ConnectionError::TimedOut(what, self.now.since(next) + timeout / 2));
            return true;
        }
        let traffic_counts =
            self.identity.controller.attributes & optional::ATTRIBUTE_TRAFFIC_KEEP_ALIVE != 0;
        let looked = std::mem::replace(&mut self.keep_alive.looked, self.now);
        self.keep_alive.next = Some(self.now + timeout / if traffic_counts { 4 } else { 2 });
        if traffic_counts && self.newest_answered() > looked {
            return true;
        }
        let entry = AdminCommand::KeepAlive.encode(0, Descriptor::NONE);
        if self.send_admin(entry, Data::None, token::KEEP_ALIVE).is_ok() {
            self.keep_alive.sent = Some(self.now);
        }
        true
    }

    fn newest_answered(&self) -> Timestamp {
        let connections = self.queues.iter().filter_map(|queue| queue.connection.as_ref());
        connections.map(Connection::newest_answered).max().unwrap_or(Timestamp(0))
    }

    pub(super) fn take_keep_alive(&mut self, outcome: Outcome) {
        self.keep_alive.sent = None;
        if let Outcome::Completed(completion) = outcome
            && !completion.status.is_success()
        {
            let (address, status) = (&self.options.address, completion.status);
            self.lose(ConnectionError::Refused(format!("{address}: Keep Alive: {status}")));
        }
    }
}
