//! An association with one controller: its admin queue, its I/O queues, and what is known of it.
//!
//! ```text
//!   bring_up ──▶ Up ──shut_down──▶ Shutdown ──▶ Over
//!                 │ keep_alive, events            ▲
//!                 └────── a connection ends ──────┘
//! ```
//! A driver opens a stream for each queue that [`Controller::next_stream_wanted`] names, moves the
//! bytes of each [`Controller::connection`], and calls [`Controller::tick`] whenever anything has
//! happened or the time of [`Controller::next_deadline`] has come.
//!
//! When any connection ends, all do: a queue cannot come back on its own, as the controller's
//! state goes with it. Absent: reconnecting, and what several controllers of a subsystem are for.

mod access;
mod authentication;
mod bring_up;
mod commands;
mod connect_refusal;
mod deadlines;
mod events;
mod identity;
mod keep_alive;
mod namespace_changes;
mod shutdown;
mod state;

use block_io::{
    Buffer, BufferPool, Completion as RequestCompletion, DeviceError, Geometry, IoError, Request,
    Timestamp,
};

use self::access::AccessLogReading;
use self::authentication::Authenticator;
use self::bring_up::Step;
use self::events::Events;
use self::keep_alive::KeepAlive;
pub use self::state::AssociationState;
use super::HostOptions;
use super::commands::{self as owner_commands, Commands};
use super::connection::{Connection, ConnectionOptions, Data, Finished, Outcome};
use super::requests::Requests;
use crate::error::ConnectionError;
use crate::spec::command::SubmissionEntry;
use crate::spec::identify::{
    self, IdentifyController, IdentifyControllerNvm, IdentifyNamespace, NamespaceDescriptors,
};
use crate::spec::log_page::AccessState;
use crate::spec::property::Capabilities;

/// A queue's identifier: 0 is the admin queue.
pub type QueueIndex = u16;

/// Entries of the admin queue. NVMe Base 2.1 §3.3.1 (at least 32 over fabrics)
const ADMIN_QUEUE_DEPTH: u16 = 32;
/// Most bytes of one command's data when the controller knows no limit.
const TRANSFER_MAX: u32 = 1 << 20;

/// Names of the commands on the admin queue, and of Connect on an I/O queue.
mod token {
    pub(super) const KEEP_ALIVE: u64 = 2;
    pub(super) const EVENT: u64 = 3;
    pub(super) const EVENT_LOG: u64 = 4;
    pub(super) const EVENT_NAMESPACE: u64 = 5;
    pub(super) const SHUTDOWN: u64 = 6;
    pub(super) const OWNER: u64 = 7;
    pub(super) const ABORT: u64 = 9;
    pub(super) const ACCESS_LOG: u64 = 10;
    /// On any queue, where requests' names are below.
    pub(super) const AUTHENTICATE: u64 = 1 << 32;
    /// Likewise: Connect of an I/O queue.
    pub(super) const BRING_UP: u64 = AUTHENTICATE | 1;
    pub(super) const EVENT_DESCRIPTORS: u64 = 8;
}

/// What the association is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// I/O on a namespace of this identifier.
    Namespace(u32),
    /// Reading a discovery controller's log once.
    Discovery,
    /// Reading it, and being told when it changes.
    PersistentDiscovery,
}

impl Purpose {
    const fn is_discovery(self) -> bool {
        matches!(self, Self::Discovery | Self::PersistentDiscovery)
    }
}

/// What a controller and the namespace have told about themselves.
#[derive(Clone, Debug, Default)]
pub struct Identity {
    /// CNTLID, as Connect answered it.
    pub controller_id: u16,
    /// CAP.
    pub capabilities: Option<Capabilities>,
    /// VS.
    pub version: u32,
    /// Identify Controller.
    pub controller: IdentifyController,
    /// Identify Controller of the NVM command set; all zero when the controller has none.
    pub command_set: IdentifyControllerNvm,
    /// I/O queues granted.
    pub io_queues: u16,
    /// Identifiers of the active namespaces, the first 1024.
    pub namespaces: Vec<u32>,
    /// Identify Namespace of the namespace asked for.
    pub namespace: IdentifyNamespace,
    /// Its identification descriptors.
    pub descriptors: NamespaceDescriptors,
    /// What it is as a block device.
    pub geometry: Option<Geometry>,
    /// How this controller reaches it; absent when the controller does not tell (no ANA).
    pub access: Option<AccessState>,
}

/// How far a queue's stream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stream {
    NotWanted,
    Wanted,
    Opening,
    Open,
}

#[derive(Debug)]
struct Queue {
    stream: Stream,
    connection: Option<Connection>,
    /// Requests of whoever has opened this queue.
    requests: Option<Requests>,
    /// Commands beside requests.
    commands: Option<Commands>,
    /// Whoever opened it has gone.
    is_abandoned: bool,
    /// The stream begins with TLS by the generated key.
    is_secured: bool,
}

impl Queue {
    const fn new() -> Self {
        let stream = Stream::NotWanted;
        Self {
            stream,
            connection: None,
            requests: None,
            commands: None,
            is_abandoned: false,
            is_secured: false,
        }
    }

    fn forget_abandoned(&mut self) {
        if let Some(requests) = self.requests.as_mut().filter(|_| self.is_abandoned) {
            requests.discard_completions();
            if requests.in_flight() == 0 {
                self.requests = None;
                self.is_abandoned = false;
            }
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Controller {
    options: HostOptions,
    purpose: Purpose,
    pool: BufferPool,
    now: Timestamp,
    step: Step,
    /// When the current phase (bringing up, shutting down) must be over.
    deadline: Timestamp,
    /// Queue 0 is the admin queue.
    queues: Vec<Queue>,
    /// Where data of admin commands arrive.
    page: Buffer,
    identity: Identity,
    keep_alive: KeepAlive,
    events: Events,
    /// The owner submits to the I/O queues himself.
    lends_queues: bool,
    /// Aborts in flight.
    aborting: u16,
    access_log: AccessLogReading,
    /// Changes whenever the identity does.
    identity_version: u64,
    authenticator: Authenticator,
    /// The answer to the owner's own admin command.
    answer: Option<Outcome>,
    /// When the controller was first seen not to be ready.
    ready_since: Option<Timestamp>,
    live_since: Option<Timestamp>,
    error: Option<ConnectionError>,
}

impl Controller {
    /// An association that is to be brought up, starting now.
    ///
    /// # Errors
    /// When an option is out of range.
    pub fn new(
        pool: &BufferPool,
        options: HostOptions,
        purpose: Purpose,
        now: Timestamp,
    ) -> Result<Self, DeviceError> {
        check(&options, purpose)?;
        let keep_alive = match purpose {
            // KATO makes a discovery connection a persistent one; asked once, it needs none. NVMe
            // Base 2.1 §3.1.3.3
            Purpose::Namespace(_) | Purpose::PersistentDiscovery => {
                KeepAlive::new(options.keep_alive)
            }
            Purpose::Discovery => KeepAlive::new(std::time::Duration::ZERO),
        };
        let mut admin = Queue::new();
        admin.stream = Stream::Wanted;
        Ok(Self {
            deadline: now + options.connect_timeout,
            options,
            purpose,
            pool: pool.clone(),
            now,
            step: Step::Open(0),
            queues: vec![admin],
            page: pool.allocate(identify::LENGTH),
            identity: Identity::default(),
            keep_alive,
            events: Events::default(),
            lends_queues: false,
            aborting: 0,
            access_log: AccessLogReading::default(),
            identity_version: 0,
            authenticator: Authenticator::default(),
            answer: None,
            ready_since: None,
            live_since: None,
            error: None,
        })
    }

    /// Whether the association is up and takes requests.
    pub fn is_up(&self) -> bool {
        self.step == Step::Up
    }

    /// Whether the association is at its end, and every stream closed.
    pub fn is_over(&self) -> bool {
        self.step == Step::Over
            && self
                .queues
                .iter()
                .all(|queue| queue.stream != Stream::Opening && queue.connection.is_none())
    }

    /// Why the association ended or did not come up.
    pub fn error(&self) -> Option<&ConnectionError> {
        self.error.as_ref()
    }

    /// What has been learnt so far.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// What it was made with.
    pub fn options(&self) -> &HostOptions {
        &self.options
    }

    /// A queue that needs a stream to the controller; each is named once.
    pub fn next_stream_wanted(&mut self) -> Option<QueueIndex> {
        let index = self.queues.iter().position(|queue| queue.stream == Stream::Wanted)?;
        self.queues[index].stream = Stream::Opening;
        Some(index as QueueIndex)
    }

    /// The stream for `queue` is established.
    pub fn stream_established(&mut self, queue: QueueIndex) {
        let commands_max = self.depth(queue) - 1;
        let options = ConnectionOptions {
            digests: self.options.digests,
            commands_max,
            transfer_max: TRANSFER_MAX.max(self.data_max()),
            // What an admin command waits for is not worth another admin command.
            abort_time: self.options.abort_time.filter(|_| queue != 0),
        };
        let mut connection = Connection::new(&self.pool, options, self.now);
        if self.step == Step::Over {
            connection.end(ConnectionError::ShutDown);
        } else if self.lacks_secure_channel(queue) {
            let what = "authentication has generated a key for TLS, and the stream has none";
            connection.end(self.incompatible(what.to_owned()));
        }
        let place = &mut self.queues[usize::from(queue)];
        place.stream = Stream::Open;
        place.connection = Some(connection);
    }

    /// The stream for `queue` could not be established.
    pub fn stream_failed(&mut self, queue: QueueIndex, error: IoError) {
        self.queues[usize::from(queue)].stream = Stream::NotWanted;
        let address = &self.options.address;
        self.lose(ConnectionError::Unreachable(address.clone(), error));
    }

    /// The connection of `queue`, for its bytes to be moved. Absent without a stream.
    pub fn connection(&mut self, queue: QueueIndex) -> Option<&mut Connection> {
        self.queues.get_mut(usize::from(queue))?.connection.as_mut()
    }

    /// I/O queues that have been opened.
    pub fn io_queues(&self) -> u16 {
        (self.queues.len() - 1) as u16
    }

    /// From now on the owner submits commands to the connections of the I/O queues himself, once
    /// the association is up, and takes what has finished there.
    pub fn lend_queues(&mut self) {
        self.lends_queues = true;
    }

    /// Gives a command back that finished on a lent queue but is this association's own; it is the
    /// lender's when it is returned.
    pub(super) fn take_own(&mut self, finished: Finished) -> Option<Finished> {
        if finished.token == token::AUTHENTICATE {
            self.take_authentication(finished.outcome);
            return None;
        }
        // The Connect of a queue that was lost with its association: no request's.
        (finished.token != token::BRING_UP).then_some(finished)
    }

    /// Changes whenever [`identity`](Self::identity) does, or whether the namespace can be used.
    pub const fn identity_version(&self) -> u64 {
        self.identity_version + self.events.namespace_changes
    }

    /// What new requests fail with, when the namespace is gone or another.
    pub(super) fn namespace_refusal(&self) -> Option<IoError> {
        self.events.refusal()
    }

    /// Gives the association up at once, whatever it is doing. Its streams are then to be closed.
    pub fn abandon(&mut self, reason: ConnectionError) {
        self.lose(reason);
    }

    /// The driver has closed the stream of `queue`, and no operation on it is in flight.
    pub fn stream_closed(&mut self, queue: QueueIndex) {
        if let Some(connection) = self.connection(queue) {
            connection.transport_closed();
            self.take_finished(queue);
        }
        if self.step == Step::Reopen && queue == 0 {
            return self.reopened();
        }
        let place = &mut self.queues[usize::from(queue)];
        if let Some(connection) = place.connection.take() {
            let error = connection.error().cloned().unwrap_or(ConnectionError::Closed);
            self.lose(error);
        }
        self.queues[usize::from(queue)].stream = Stream::NotWanted;
    }

    /// Does what the time and the answers received ask for. Returns whether anything happened.
    pub fn tick(&mut self, now: Timestamp) -> bool {
        self.now = now;
        let mut progress = false;
        for index in 0..self.queues.len() {
            if let Some(connection) = &mut self.queues[index].connection {
                connection.tick(now);
            }
            progress |= self.take_finished(index as QueueIndex);
        }
        self.notice_ended_connections();
        progress |= self.advance();
        progress |= self.send_aborts();
        progress |= self.advance_authentication();
        self.note_live();
        progress |= self.send_keep_alive();
        progress | self.send_requests()
    }

    /// When [`tick`](Self::tick) is needed next, if nothing else happens.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        let connections = self
            .queues
            .iter()
            .filter_map(|queue| queue.connection.as_ref())
            .filter_map(Connection::next_deadline);
        connections
            .chain(self.step_deadline())
            .chain(self.authentication_deadline())
            .chain(self.keep_alive.next())
            .min()
    }

    /// Takes the use of an I/O queue that nobody uses, for at most `depth` requests at a time.
    ///
    /// # Errors
    /// When the association is not up, or every I/O queue is in use.
    pub fn open_queue(&mut self, depth: usize) -> Result<QueueIndex, DeviceError> {
        let address = &self.options.address;
        let Some(geometry) = self.identity.geometry.filter(|_| self.is_up()) else {
            return Err(DeviceError::new(format!("{address}: the association is not up")));
        };
        let limits = self.limits(&geometry);
        let unused = |queue: &Queue| queue.requests.is_none();
        let Some(index) = (1..self.queues.len()).find(|index| unused(&self.queues[*index])) else {
            let count = self.queues.len() - 1;
            return Err(DeviceError::new(format!(
                "{address}: each of the {count} I/O queues is in use; ask for more queues"
            )));
        };
        let mut requests = Requests::new(geometry, limits, depth);
        requests.refuse(self.events.refusal());
        self.queues[index].requests = Some(requests);
        Ok(index as QueueIndex)
    }

    /// Gives the use of a queue back. Requests still in flight end without anybody being told,
    /// and only then is the queue free.
    pub fn close_queue(&mut self, queue: QueueIndex) {
        if let Some(place) = self.queues.get_mut(usize::from(queue)) {
            place.is_abandoned = true;
            place.forget_abandoned();
        }
    }

    /// Takes a request on a queue that [`open_queue`](Self::open_queue) gave.
    ///
    /// # Errors
    /// The request, when the queue is full.
    pub fn submit(&mut self, queue: QueueIndex, request: Request) -> Result<(), Request> {
        match self.requests(queue) {
            Some(requests) => requests.submit(request),
            None => Err(request),
        }
    }

    /// The requests of a queue that is in use.
    pub fn requests(&mut self, queue: QueueIndex) -> Option<&mut Requests> {
        self.queues.get_mut(usize::from(queue))?.requests.as_mut()
    }

    /// Appends the finished requests of a queue; whether there were any.
    pub fn take_completions(
        &mut self,
        queue: QueueIndex,
        completions: &mut Vec<RequestCompletion>,
    ) -> bool {
        self.requests(queue).is_some_and(|requests| requests.take_completions(completions))
    }

    /// Sends the owner's own admin command, one at a time.
    ///
    /// # Errors
    /// The data, when the association is not up or the queue is full.
    pub(super) fn submit_admin(&mut self, entry: SubmissionEntry, data: Data) -> Result<(), Data> {
        if !self.is_up() {
            return Err(data);
        }
        self.send_admin(entry, data, token::OWNER)
    }

    /// Takes the answer to it.
    pub(super) fn take_answer(&mut self) -> Option<Outcome> {
        self.answer.take()
    }

    fn send_admin(&mut self, entry: SubmissionEntry, data: Data, token: u64) -> Result<(), Data> {
        // Events are answered when there is one, which may be never.
        let timeout = (token != token::EVENT).then_some(self.options.command_timeout);
        match &mut self.queues[0].connection {
            Some(connection) => connection.submit(entry, data, token, timeout),
            None => Err(data),
        }
    }

    /// Hands each finished command of a queue to whom it belongs.
    fn take_finished(&mut self, queue: QueueIndex) -> bool {
        let mut progress = false;
        let is_ours =
            matches!(self.step, Step::Connect(own) | Step::Authenticate(own) if own == queue);
        if self.lends_queues && queue != 0 && !is_ours {
            return false;
        }
        while let Some(finished) = self.connection(queue).and_then(Connection::next_finished) {
            progress = true;
            match finished {
                Finished { token: token::AUTHENTICATE, outcome, .. } => {
                    self.take_authentication(outcome);
                }
                _ if queue == 0 => self.take_admin(finished),
                Finished { outcome, .. } if self.step == Step::Connect(queue) => {
                    self.take_bring_up(outcome);
                }
                Finished { token: token::BRING_UP, .. } => {}
                finished if finished.token & owner_commands::TOKEN != 0 => {
                    if let Some(commands) = &mut self.queues[usize::from(queue)].commands {
                        commands.finish(finished);
                    }
                }
                finished => {
                    if let Some(requests) = self.requests(queue) {
                        requests.finish(finished);
                    }
                }
            }
        }
        progress
    }

    fn take_admin(&mut self, finished: Finished) {
        match finished.token {
            token::BRING_UP => self.take_bring_up(finished.outcome),
            token::KEEP_ALIVE => self.take_keep_alive(finished.outcome),
            token::SHUTDOWN => self.take_shutdown(finished.outcome),
            token::OWNER => self.answer = Some(finished.outcome),
            token::ABORT => self.aborting = self.aborting.saturating_sub(1),
            token::ACCESS_LOG => self.take_access_log(finished.outcome),
            _ => self.take_event(finished),
        }
    }

    fn send_requests(&mut self) -> bool {
        let mut progress = false;
        if self.step != Step::Up {
            return false;
        }
        for queue in &mut self.queues {
            if let (Some(connection), Some(requests)) = (&mut queue.connection, &mut queue.requests)
            {
                progress |= requests.send(connection, &self.pool);
            }
            if let (Some(connection), Some(commands)) = (&mut queue.connection, &mut queue.commands)
            {
                progress |= commands.send(connection, &self.pool);
            }
            if queue.is_abandoned {
                queue.forget_abandoned();
            }
        }
        progress
    }

    fn notice_ended_connections(&mut self) {
        if self.step == Step::Reopen {
            return;
        }
        let ended = self.queues.iter().filter_map(|queue| queue.connection.as_ref());
        let error = ended.filter(|connection| connection.is_over()).find_map(Connection::error);
        if let Some(error) = error.cloned() {
            self.lose(error);
        }
    }

    /// The association is over, for this reason unless there was one before.
    fn lose(&mut self, error: ConnectionError) {
        let error = self.put_authentication_first(error);
        if self.step != Step::Over {
            self.step = Step::Over;
            self.error = Some(error.clone());
        }
        for queue in &mut self.queues {
            if queue.stream == Stream::Wanted {
                queue.stream = Stream::NotWanted;
            }
            if let Some(connection) = &mut queue.connection
                && !connection.is_over()
            {
                connection.end(error.clone());
            }
            if let Some(requests) = &mut queue.requests {
                requests.lose();
            }
            if let Some(commands) = &mut queue.commands {
                commands.lose();
            }
        }
    }
}

fn check(options: &HostOptions, purpose: Purpose) -> Result<(), DeviceError> {
    let depth = options.queue_depth;
    if !(2..=1024).contains(&depth) {
        return Err(DeviceError::new(format!("queue depth {depth}: must be 2 to 1024")));
    }
    if options.io_queues == 0 {
        return Err(DeviceError::new("I/O queues 0: must be at least 1"));
    }
    if let Purpose::Namespace(id @ (0 | u32::MAX)) = purpose {
        return Err(DeviceError::new(format!(
            "namespace identifier {id:#x}: must be 1 to 0xfffffffe"
        )));
    }
    if let Some(authentication) = &options.authentication {
        authentication.check()?;
    }
    if options.keep_alive.as_millis() > u128::from(u32::MAX) {
        return Err(DeviceError::new("keep alive: must be under 2^32 ms"));
    }
    Ok(())
}
