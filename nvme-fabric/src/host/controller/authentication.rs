//! Proving who this host is, and perhaps having the controller prove itself: on each queue after
//! its Connect, and on all of them again by a timer while requests go on.
//!
//! ```text
//!   Connect answers ATR ──▶ authenticate(queue) ──▶ bring-up goes on
//!   Up, timer ──▶ authenticate(0) ▶ authenticate(1) ▶ … ▶ timer
//! ```
//! Where the keys say so, the first transaction generates a key (secure channel concatenation):
//!
//! ```text
//!   Open(0) in clear ▶ Connect(0) ▶ Authenticate(0), NEWTLSPSK ▶ Reopen ▶ Open(0) with TLS ▶ …
//! ```
//! From `Reopen` on, every stream must begin with TLS by that key, and says so with
//! [`Controller::stream_secured`]; one that does not is not used. I/O queues prove nothing more:
//! who has the key has proved it. Repeated, only the admin queue's transaction makes another key.
//! Linux `drivers/nvme/host/{auth,fabrics,tcp}.c` does the same.
//!
//! One transaction at a time; its commands take turns with the requests of its queue. Any failure
//! ends the association: the other end is not who it should be, or does not take this host for
//! what it is.
//!
//! `without_authentication` stands here in a build without the feature `auth`.
//!
//! Absent: the messages ([`crate::auth::host`]), and TLS itself.

use block_io::{Buffer, DeviceError, Timestamp};

use super::bring_up::Step;
use super::queue::{Queue, Stream};
use super::{Controller, QueueIndex, token};
use crate::auth::host::{Action, Exchange};
use crate::auth::{Concatenation, GeneratedPsk, Names, Random, SEED_LENGTH};
use crate::error::ConnectionError;
use crate::host::HostOptions;
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
    /// The key of every stream, once there is one.
    generated: Option<GeneratedPsk>,
    /// Queues whose streams begin with TLS by it.
    secured: Vec<QueueIndex>,
}

/// Where the associations of a host's paths get their random bytes from; nowhere at first.
#[derive(Debug, Default)]
pub(in crate::host) struct Seeds(pub(in crate::host) Option<Random>);

impl Seeds {
    /// Hands a new association some.
    pub(in crate::host) fn hand(&mut self, controller: &mut Controller) {
        let seed = self.0.as_mut().map(|random| random.bytes(SEED_LENGTH));
        if let Some(seed) = seed.as_ref().and_then(|seed| seed.as_array()) {
            controller.seed_random(seed);
        }
    }
}

/// Whether anything can come of the secrets.
pub(super) fn check(options: &HostOptions) -> Result<(), DeviceError> {
    options.authentication.as_ref().map_or(Ok(()), |own| own.check())
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

    /// The key with which every stream that is wanted now must begin TLS; absent for those in
    /// clear, and for those whose key the driver was given.
    pub fn generated_psk(&self) -> Option<&GeneratedPsk> {
        self.authenticator.generated.as_ref()
    }

    /// The stream that was wanted for `queue` begins with TLS by the generated key. To be said
    /// before it is established.
    pub fn stream_secured(&mut self, queue: QueueIndex) {
        self.authenticator.secured.push(queue);
    }

    /// Whether a stream is in clear that must not be.
    pub(super) fn lacks_secure_channel(&self, queue: QueueIndex) -> bool {
        self.authenticator.generated.is_some() && !self.authenticator.secured.contains(&queue)
    }

    fn concatenates(&self) -> bool {
        self.options.authentication.as_ref().is_some_and(|own| own.keys.concatenate)
    }

    /// When the queues are authenticated again.
    pub(super) fn authentication_deadline(&self) -> Option<Timestamp> {
        let is_idle = self.step == Step::Up && self.authenticator.running.is_none();
        self.authenticator.repeat_at.filter(|_| is_idle)
    }

    /// Starts a transaction on a queue if there is to be one, now that Connect was answered so, and
    /// says whether it has.
    pub(super) fn begin_authentication(
        &mut self,
        queue: QueueIndex,
        result: ConnectResult,
    ) -> Result<bool, ConnectionError> {
        let must = self.must_authenticate(queue, result)?;
        if must {
            self.authenticate(queue)?;
        }
        Ok(must)
    }

    /// Whether a queue is to be authenticated.
    fn must_authenticate(
        &self,
        queue: QueueIndex,
        result: ConnectResult,
    ) -> Result<bool, ConnectionError> {
        let subsystem = &self.options.subsystem;
        if self.concatenates() {
            let is_asked = result.authentication_required || result.secure_channel_required;
            // Whether it is asked or not: the bits came in clear.
            return Ok(queue == 0 && self.authenticator.generated.is_none() || is_asked);
        }
        if result.secure_channel_required {
            return Err(self.incompatible(format!(
                "subsystem {subsystem} requires a secure channel after authentication (ASCR), \
                 which this host was not told to make"
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
    fn authenticate(&mut self, queue: QueueIndex) -> Result<(), ConnectionError> {
        let Some(own) = &self.options.authentication else {
            let subsystem = &self.options.subsystem;
            let text = format!("subsystem {subsystem} requires it, and this host has no secret");
            return Err(self.unauthenticated(queue, &text));
        };
        if self.authenticator.random.is_none() {
            return Err(self.unauthenticated(queue, "no random bytes were handed in"));
        }
        self.authenticator.transaction = self.authenticator.transaction.wrapping_add(1);
        let concatenation =
            match (own.keys.concatenate && queue == 0, &self.authenticator.generated) {
                (false, _) => Concatenation::None,
                (true, None) => Concatenation::New,
                (true, Some(_)) => Concatenation::Replace,
            };
        let transaction = self.authenticator.transaction;
        let (exchange, first) = Exchange::start(&own.keys, transaction, concatenation);
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
        let Some(Running { queue, mut exchange, .. }) = self.authenticator.running.take() else {
            return;
        };
        let every = self.options.authentication.as_ref().and_then(|own| own.repeat_every);
        self.authenticator.repeat_at = every.map(|every| self.now + every);
        if let Some(generated) = exchange.take_generated() {
            self.authenticator.generated = Some(generated);
        }
        if exchange.concatenation() == Concatenation::New {
            return self.reopen();
        }
        let next = if self.step == Step::Authenticate(queue) {
            self.queue_connected(queue)
        } else if !self.concatenates() && usize::from(queue) + 1 < self.queues.len() {
            self.authenticate(queue + 1)
        } else {
            Ok(())
        };
        if let Err(error) = next {
            self.lose(error);
        }
    }

    /// Closes the stream in clear; [`reopens`](Self::reopens) when that has happened.
    fn reopen(&mut self) {
        if self.authenticator.generated.is_none() {
            return self.fail_authentication("it was to generate a key, and has not");
        }
        self.step = Step::Reopen;
        if let Some(connection) = self.connection(0) {
            connection.end(ConnectionError::ShutDown);
        }
    }

    /// The stream of `queue` is closed. If it was the one in clear, begins again with TLS, and says
    /// so.
    pub(super) fn reopens(&mut self, queue: QueueIndex) -> bool {
        if self.step != Step::Reopen || queue != 0 {
            return false;
        }
        let mut admin = Queue::new();
        admin.stream = Stream::Wanted;
        self.queues[0] = admin;
        self.step = Step::Open(0);
        true
    }

    fn fail_authentication(&mut self, text: &str) {
        let running = self.authenticator.running.take();
        let error = self.unauthenticated(running.map_or(0, |running| running.queue), text);
        self.lose(error);
    }

    /// What to say when the association ends with `error`: when a transaction was under way, what
    /// this end had found wrong with the other, or that the other end went away in the middle.
    /// Linux's target closes the stream as it refuses, or is refused, which may overtake the
    /// message and its answer.
    pub(super) fn put_authentication_first(&mut self, error: ConnectionError) -> ConnectionError {
        let Some(running) = self.authenticator.running.take() else { return error };
        let queue = running.queue;
        match (running.exchange.fault(), error) {
            (Some(fault), ConnectionError::Closed | ConnectionError::Network(..)) => {
                self.unauthenticated(queue, fault)
            }
            (None, error @ (ConnectionError::Closed | ConnectionError::Network(..))) => {
                let what = format!("{}: authentication of queue {queue}", self.options.address);
                ConnectionError::During(what, Box::new(error))
            }
            (_, error) => error,
        }
    }

    fn unauthenticated(&self, queue: QueueIndex, text: &str) -> ConnectionError {
        let address = &self.options.address;
        ConnectionError::Unauthenticated(format!(
            "{address}: authentication of queue {queue}: {text}"
        ))
    }
}
