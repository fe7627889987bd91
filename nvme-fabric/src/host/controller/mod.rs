//! An association with one controller: its admin queue, its I/O queues, and what is known of it.
//!
//! ```text
//!   bring_up ──▶ Up ──shut_down──▶ Shutdown ──▶ Over
//!                 │ queue, keep_alive, events     ▲
//!                 └─ streams: a connection ends ──┘
//! ```
//! A driver opens a stream for each queue that [`Controller::next_stream_wanted`] names, moves the
//! bytes of each [`Controller::connection`], and calls [`Controller::tick`] whenever anything has
//! happened or the time of [`Controller::next_deadline`] has come.
//!
//! When any connection ends, all do: a queue cannot come back on its own, as the controller's
//! state goes with it. Absent: reconnecting, and what several controllers of a subsystem are for.

mod access;
#[cfg_attr(not(feature = "auth"), path = "without_authentication.rs")]
mod authentication;
mod bring_up;
mod commands;
mod connect_refusal;
mod deadlines;
mod events;
mod identity;
mod keep_alive;
mod namespace_changes;
mod queue;
mod shutdown;
mod state;
mod streams;

use block_io::{Buffer, BufferPool, DeviceError, Geometry, IoError, Timestamp};

use self::access::AccessLogReading;
use self::authentication::Authenticator;
pub(super) use self::authentication::Seeds;
use self::bring_up::Step;
use self::events::Events;
use self::keep_alive::KeepAlive;
use self::queue::{Queue, Stream};
pub use self::state::AssociationState;
use super::HostOptions;
use super::connection::{Connection, Data, Outcome};
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

    /// I/O queues that have been opened.
    pub fn io_queues(&self) -> u16 {
        (self.queues.len() - 1) as u16
    }

    /// Changes whenever [`identity`](Self::identity) does, or whether the namespace can be used.
    pub const fn identity_version(&self) -> u64 {
        self.identity_version + self.events.namespace_changes
    }

    /// What new requests fail with, when the namespace is gone or another.
    pub(super) fn namespace_refusal(&self) -> Option<IoError> {
        self.events.refusal()
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
    authentication::check(options)?;
    if options.keep_alive.as_millis() > u128::from(u32::MAX) {
        return Err(DeviceError::new("keep alive: must be under 2^32 ms"));
    }
    Ok(())
}
