//! Proving who this host is, and perhaps having the controller prove itself: on each queue after
//! its Connect, and on all of them again by a timer while requests go on.
//!
//! ```text
//!   Connect answers ATR ──▶ authenticate(queue) ──▶ bring-up goes on
//!   Up, timer ──▶ authenticate(0) ▶ authenticate(1) ▶ … ▶ timer
//! ```
//! One transaction at a time; its commands take turns with the requests of its queue. Any failure
//! ends the association: the other end is not who it should be, or does not take this host for
//! what it is.
//!
//! Absent: the messages ([`crate::auth::host`]), and secure channels.

use block_io::{Buffer, Timestamp};

use super::bring_up::Step;
use super::{Controller, QueueIndex, token};
use crate::auth::host::{Action, Exchange};
use crate::auth::{Names, Random, SEED_LENGTH};
use crate::error::ConnectionError;
use crate::host::connection::{Data, Outcome};
use crate::spec::command::{FabricsCommand, SecurityProtocol};
use crate::spec::connect::ConnectResult;
use crate::spec::sgl::Descriptor;

/// Bytes that a receive asks for; any message fits. Linux and SPDK ask for as many.
const RECEIVE_LENGTH: usize = 4096;

/// What an association needs to authenticate.
#[derive(Debug, Default)]
pub(super) struct Authenticator {
    random: Option<Random>,
    /// T_ID of the last transaction.
    transaction: u16,
    running: Option<Running>,
    /// When all queues are authenticated again.
    repeat_at: Option<Timestamp>,
}

#[derive(Debug)]
struct Running {
    queue: QueueIndex,
    exchange: Exchange,
    wants: Wants,
}

#[derive(Debug)]
enum Wants {
    Send(Vec<u8>),
    Receive,
    /// The answer to a command; absent memory when that was a send.
    Answer(Option<Buffer>),
}

impl Controller {
    /// Hands in random bytes, which authentication needs. Never the same twice.
    pub fn seed_random(&mut self, seed: &[u8; SEED_LENGTH]) {
        self.authenticator.random = Some(Random::new(seed));
    }

    /// When the queues are authenticated again.
    pub(super) fn authentication_deadline(&self) -> Option<Timestamp> {
        let is_idle = self.step == Step::Up && self.authenticator.running.is_none();
        self.authenticator.repeat_at.filter(|_| is_idle)
    }

    /// Whether a queue is to be authenticated, now that Connect was answered so.
    pub(super) fn must_authenticate(
        &self,
        queue: QueueIndex,
        result: ConnectResult,
    ) -> Result<bool, ConnectionError> {
        let subsystem = &self.options.subsystem;
        if result.secure_channel_required {
            return Err(self.incompatible(format!(
                "subsystem {subsystem} requires a secure channel after authentication (ASCR), \
                 which is not supported"
            )));
        }
        let wants_proof =
            self.options.authentication.as_ref().is_some_and(|own| own.keys.controller.is_some());
        if result.authentication_required {
            return Ok(true);
        }
        // Whoever can do without a proof of the host could be anybody.
        if queue == 0 && wants_proof {
            return Err(self.unauthenticated(
                queue,
                "the controller does not ask for \
                 authentication, and this host has a secret by which it must prove itself",
            ));
        }
        Ok(false)
    }

    /// Starts a transaction on a queue.
    pub(super) fn authenticate(&mut self, queue: QueueIndex) -> Result<(), ConnectionError> {
        let Some(own) = &self.options.authentication else {
            let subsystem = &self.options.subsystem;
            let text = format!("subsystem {subsystem} requires it, and this host has no secret");
            return Err(self.unauthenticated(queue, &text));
        };
        if self.authenticator.random.is_none() {
            return Err(self.unauthenticated(queue, "no random bytes were handed in"));
        }
        self.authenticator.transaction = self.authenticator.transaction.wrapping_add(1);
        let (exchange, first) = Exchange::start(&own.keys, self.authenticator.transaction);
        self.authenticator.running = Some(Running { queue, exchange, wants: Wants::Send(first) });
        Ok(())
    }

    /// Sends what is to be sent, as soon as the queue has room, and starts what is due.
    pub(super) fn advance_authentication(&mut self) -> bool {
        let is_due = self.authentication_deadline().is_some_and(|at| at <= self.now);
        if is_due && let Err(error) = self.authenticate(0) {
            self.lose(error);
            return true;
        }
        let timeout = Some(self.options.command_timeout);
        let Some(running) = &mut self.authenticator.running else { return false };
        let place = self.queues.get_mut(usize::from(running.queue));
        let connection = place.and_then(|queue| queue.connection.as_mut());
        let Some(connection) = connection.filter(|connection| connection.has_room()) else {
            return false;
        };
        let protocol = SecurityProtocol::NVME;
        let (command, data, page) = match &running.wants {
            Wants::Send(message) => {
                let buffer = self.pool.allocate(message.len());
                buffer.copy_from_slice(message);
                let length = message.len() as u32;
                let command = FabricsCommand::AuthenticationSend { protocol, length };
                (command, Data::ToController(buffer), None)
            }
            Wants::Receive => {
                let page = self.pool.allocate(RECEIVE_LENGTH);
                let length = RECEIVE_LENGTH as u32;
                let command = FabricsCommand::AuthenticationReceive { protocol, length };
                (command, Data::ToHost(page.clone()), Some(page))
            }
            Wants::Answer(_) => return false,
        };
        let entry = command.encode(0, Descriptor::NONE);
        if connection.submit(entry, data, token::AUTHENTICATE, timeout).is_ok() {
            running.wants = Wants::Answer(page);
        }
        true
    }

    /// The answer to a command of the transaction.
    pub(super) fn take_authentication(&mut self, outcome: Outcome) {
        let Self { authenticator, options, .. } = self;
        let (Some(running), Some(own), Some(random)) =
            (&mut authenticator.running, &options.authentication, &mut authenticator.random)
        else {
            return;
        };
        let Wants::Answer(page) = &running.wants else { return };
        let length = match outcome {
            Outcome::Completed(completion) if completion.status.is_success() => {
                page.as_ref().map_or(0, Buffer::len)
            }
            // Some controllers send the message only, and no zeros after it.
            Outcome::Short(length) => length as usize,
            // The connection's own error comes with its end.
            Outcome::Lost => return,
            Outcome::Completed(completion) => {
                return self.fail_authentication(&completion.status.to_string());
            }
            Outcome::DataDigest => {
                return self.fail_authentication("the data do not match their digest");
            }
        };
        let action = match page {
            None => running.exchange.sent(),
            Some(page) => {
                let message = page.slice(0, length).to_vec();
                let names = Names::new(&options.host, &options.subsystem);
                running.exchange.received(&message, &own.keys, names, random)
            }
        };
        match action {
            Action::Send(message) => running.wants = Wants::Send(message),
            Action::Receive => running.wants = Wants::Receive,
            Action::Done => self.finish_authentication(),
            Action::Failed(text) => self.fail_authentication(&text),
        }
    }

    fn finish_authentication(&mut self) {
        let Some(Running { queue, .. }) = self.authenticator.running.take() else { return };
        let every = self.options.authentication.as_ref().and_then(|own| own.repeat_every);
        self.authenticator.repeat_at = every.map(|every| self.now + every);
        let next = if self.step == Step::Authenticate(queue) {
            self.queue_connected(queue)
        } else if usize::from(queue) + 1 < self.queues.len() {
            self.authenticate(queue + 1)
        } else {
            Ok(())
        };
        if let Err(error) = next {
            self.lose(error);
        }
    }

    fn fail_authentication(&mut self, text: &str) {
        let running = self.authenticator.running.take();
        let error = self.unauthenticated(running.map_or(0, |running| running.queue), text);
        self.lose(error);
    }

    fn unauthenticated(&self, queue: QueueIndex, text: &str) -> ConnectionError {
        let address = &self.options.address;
        ConnectionError::Unauthenticated(format!(
            "{address}: authentication of queue {queue}: {text}"
        ))
    }
}
