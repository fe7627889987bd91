//! One connection: bytes in, bytes out, requests out, completions in. It becomes one queue of a
//! controller.
//!
//! ```text
//!   Initialize ──ICReq──▶ Connect ──Connect──▶ Queue ─┐
//!       └────────────────────┴──────────────────────┴─┴─ fault ─▶ Terminating ─▶ Finished
//! ```
//! By phase: `handshake` (ICReq, Connect), `commands` (from an entry to its completion),
//! `transfer` (payload), `accounts` (what it takes of the target's limits), `admission` (whether
//! and when a command may go to the device), `fused` (pairs), `reservations`, `abort`,
//! `authentication` (before anything else), `shutdown` (faults, deadlines, the controller's
//! shutdown).
//!
//! A command has a place in `commands` from its capsule to its completion, and the place's number
//! is its transfer tag and its requests' id. There are as many places as the queue has entries;
//! a host that sends more commands than that has lost count, and the connection ends.

mod abort;
mod accounts;
mod admission;
#[cfg_attr(not(feature = "auth"), path = "without_authentication.rs")]
mod authentication;
mod commands;
mod fused;
mod handshake;
mod reservations;
mod shutdown;
mod transfer;

use std::collections::VecDeque;
use std::net::IpAddr;
use std::time::Duration;

use block_io::{Buffer, BufferPool, Completion, IoError, Request, Timestamp};

pub(super) use self::abort::AbortOrder;
use self::admission::Blocked;
use self::authentication::Proof;
use self::fused::FirstHalf;
use super::admin::connect::Queue;
use super::io::{Pieces, Plan, Sequence, Ticket};
use super::limits::STAGING_LENGTH;
use super::reservation::Pending;
use super::{IN_CAPSULE_DATA_MAX, NamespaceKey, Settings, TRANSFER_MAX, Target};
use crate::error::ConnectionError;
use crate::pdu::{Decoder, Encoder, Endpoint, Limits, Side};
use crate::spec::command::SubmissionEntry;
use crate::spec::nqn::Nqn;
use crate::spec::status::Status;

/// A request for a namespace's device.
#[derive(Debug)]
pub struct Submission {
    /// Which namespace.
    pub namespace: NamespaceKey,
    /// What is asked; its completion comes back by [`Connection::complete`].
    pub request: Request,
}

/// One TCP connection of the target's. See the module, and [`Endpoint`] for its bytes.
#[derive(Debug)]
pub struct Connection {
    pool: BufferPool,
    decoder: Decoder,
    encoder: Encoder,
    /// The address that the host connected to.
    local: IpAddr,
    bytes_in_flight_max: usize,
    phase: Phase,
    /// When the phase ends by itself, other than by keep alive.
    phase_deadline: Option<Timestamp>,
    /// The controller's keep alive deadline as of the last poll.
    keep_alive_deadline: Option<Timestamp>,
    queue: Option<Queue>,
    /// By whose key the stream is encrypted; absent while it is in clear.
    encryption: Option<Encryption>,
    /// Without such names, only the discovery service may be connected to.
    is_for_discovery: bool,
    proof: Proof,
    /// Commands completed, modulo the queue's entries.
    queue_head: u16,
    commands: Vec<Option<Command>>,
    free: Vec<u16>,
    /// Commands that wait for payload memory, in order.
    waiting: VecDeque<u16>,
    /// Asynchronous Event Requests.
    parked: VecDeque<u16>,
    /// Commands that wait for others to leave their blocks, in order.
    blocked: VecDeque<u16>,
    /// Reservation commands that wait for what they entail.
    pending: VecDeque<u16>,
    /// The last command, when it was the first half of a fused pair.
    first_half: Option<FirstHalf>,
    /// Extents of commands that have ended, to be given back at the next poll.
    released: Vec<(NamespaceKey, Ticket)>,
    /// Bytes of payload memory that commands hold.
    held: usize,
    /// Payload memory as the target has it in its accounts.
    charged: usize,
    /// Whether the target counts this connection among those that wait for memory.
    counted_waiting: bool,
    /// The number among connections that are no queue, while it is one.
    unconnected: Option<u64>,
    /// R2Ts that are out.
    transferring: u16,
    /// Bytes have passed since the last poll, or none were expected.
    moved: bool,
    /// When the host has let no byte pass for too long; it means nothing while nothing is expected
    /// of the host.
    stall_deadline: Option<Timestamp>,
    /// What the decoder is putting the current payload to.
    incoming: Option<Incoming>,
    outbox: VecDeque<Submission>,
    /// Flushes of the controller's shutdown that are at the devices; absent when there is none.
    shutdown_flushes: Option<usize>,
    /// Why the connection ended.
    ended: Option<ConnectionError>,
    /// Where received bytes go while terminating.
    discarded: Option<Buffer>,
}

/// The key of a stream: whose it is. Connect must name just them.
#[derive(Debug)]
struct Encryption {
    host: Nqn,
    subsystem: Nqn,
    is_generated: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Before ICReq.
    Initialize,
    /// Before Connect.
    Connect,
    /// A queue.
    Queue,
    /// A C2HTermReq was queued; the host is to close.
    Terminating,
    /// Nothing more is sent or received.
    Finished,
}

/// Where the payload that is arriving belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Incoming {
    /// In-capsule data of the command at this place.
    Capsule(u16),
    /// H2CData of the command at this place; its bytes.
    Data(u16, u32),
}

#[derive(Debug)]
struct Command {
    entry: SubmissionEntry,
    stage: Stage,
    /// Payload memory, of the command's length.
    buffer: Option<Buffer>,
    /// Bytes of H2CData that arrived.
    transferred: u32,
    /// A data digest did not match.
    digest_failed: bool,
    /// Bytes of memory beside the buffer.
    piece_length: u32,
    /// Its extents in the namespace's table.
    ticket: Option<(NamespaceKey, Ticket)>,
    /// Requests at the device, or in the outbox.
    at_device: u16,
    /// The other half's place, once both halves of a fused pair are there.
    partner: Option<u16>,
    /// What it fails with as soon as it can.
    doomed: Option<Status>,
    /// Abort asked for its end.
    is_aborted: bool,
}

impl Command {
    /// Bytes of data that came in its capsule.
    fn capsule_length(&self) -> u32 {
        self.buffer.as_ref().map_or(0, |buffer| buffer.len() as u32)
    }
}

#[derive(Debug)]
enum Stage {
    /// Its capsule's data are arriving.
    Arriving,
    /// For payload memory.
    Waiting(Plan),
    /// An R2T is out; H2CData of this many bytes arrive.
    Transferring(Plan, u32),
    /// One request is at the device.
    Device,
    /// Several requests, at the device and still to come.
    Pieces { namespace: NamespaceKey, pieces: Pieces, in_flight: usize, failed: Option<IoError> },
    /// Several requests, one after the other.
    Sequence(NamespaceKey, Box<Sequence>),
    /// For other commands to leave its blocks.
    Blocked(Box<Blocked>),
    /// The first half of a fused pair: for the second one, then for its end.
    Half,
    /// The second half of a fused pair, which has its data.
    SecondHalf(Plan),
    /// A reservation command: for what it entails.
    Reserving(Box<Pending>),
    /// An Abort command.
    Aborting,
    /// An Asynchronous Event Request.
    Parked,
}

impl Connection {
    /// A connection that was accepted `now`, at the address `local`, with payload from `pool`.
    pub fn new(settings: &Settings, pool: &BufferPool, local: IpAddr, now: Timestamp) -> Self {
        let limits = Limits { capsule_data_max: IN_CAPSULE_DATA_MAX, data_max: TRANSFER_MAX };
        Self {
            pool: pool.clone(),
            decoder: Decoder::new(Side::Controller, pool.allocate(STAGING_LENGTH), limits),
            encoder: Encoder::new(pool),
            local,
            bytes_in_flight_max: settings.bytes_in_flight_max,
            phase: Phase::Initialize,
            phase_deadline: Some(now + settings.handshake_timeout),
            keep_alive_deadline: None,
            queue: None,
            encryption: None,
            is_for_discovery: false,
            proof: Proof::default(),
            queue_head: 0,
            // Until Connect has said how many: Connect itself.
            commands: vec![None],
            free: vec![0],
            waiting: VecDeque::new(),
            parked: VecDeque::new(),
            blocked: VecDeque::new(),
            pending: VecDeque::new(),
            first_half: None,
            released: Vec::new(),
            held: 0,
            charged: 0,
            counted_waiting: false,
            unconnected: None,
            transferring: 0,
            moved: true,
            stall_deadline: None,
            incoming: None,
            outbox: VecDeque::new(),
            shutdown_flushes: None,
            ended: None,
            discarded: None,
        }
    }

    /// Moves what can be moved: executes what has arrived, and sees to time. Returns whether
    /// anything happened. To be called after every receive, send and completion, when
    /// [`deadline`](Self::deadline) has come, and when another connection of the target finished or
    /// the target was changed.
    pub fn poll(&mut self, target: &mut Target, now: Timestamp) -> bool {
        let mut progress = self.enter(target) | !self.released.is_empty();
        self.release_extents(target);
        if self.is_open() {
            progress |= self.check_association(target);
        }
        if self.is_open() {
            progress |= self.decode(target, now);
        }
        if self.is_open() {
            progress |= self.advance_aborts(target);
            progress |= self.begin_blocked(target);
            progress |= self.start_waiting(target);
            progress |= self.complete_reservations(target);
            progress |= self.tell_events(target);
            progress |= self.advance_shutdown(target);
        }
        progress |= self.check_deadlines(target, now);
        progress | self.settle(target)
    }

    /// When [`poll`](Self::poll) must be called although nothing happened.
    pub fn deadline(&self) -> Option<Timestamp> {
        let deadlines = [self.phase_deadline, self.keep_alive_deadline, self.stall_deadline];
        deadlines.into_iter().flatten().min()
    }

    /// The next request for a device.
    pub fn next_submission(&mut self) -> Option<Submission> {
        self.outbox.pop_front()
    }

    /// Takes back a submission that a full queue refused, to be the next one again.
    pub fn return_submission(&mut self, submission: Submission) {
        if self.is_open() {
            self.outbox.push_front(submission);
        } else {
            self.returned(submission.request.id.0 as u16);
        }
    }

    /// A device has answered a request of this connection's.
    pub fn complete(&mut self, completion: Completion) {
        if self.is_open() {
            self.complete_request(completion);
        } else if completion.id.0 < commands::SHUTDOWN_ID {
            self.returned(completion.id.0 as u16);
        }
    }

    /// The stream is over: the host closed it, or it failed. Gives up the queue, and when it is the
    /// admin queue, the association.
    pub fn disconnect(&mut self, target: &mut Target, reason: ConnectionError) {
        self.finish(target, reason);
    }

    /// Whether the stream is to be closed. The connection is still to be given the completions of
    /// its requests, and polled, until it [`is_idle`](Self::is_idle): only then do others know that
    /// its commands touch no block any more.
    pub fn is_finished(&self) -> bool {
        self.phase == Phase::Finished
    }

    /// Whether no request of its commands is at a device, and the target knows it.
    pub fn is_idle(&self) -> bool {
        self.released.is_empty()
            && self.commands.iter().flatten().all(|command| command.ticket.is_none())
    }

    /// The stream is encrypted with a key of this host's for this subsystem: Connect must name just
    /// them. To be said before anything is decoded; later it changes nothing.
    /// `is_generated` says that an authentication has made the key, which needs no other proof.
    pub fn expect_names(&mut self, host: &Nqn, subsystem: &Nqn, is_generated: bool) {
        if self.encryption.is_none() {
            let (host, subsystem) = (host.clone(), subsystem.clone());
            self.encryption = Some(Encryption { host, subsystem, is_generated });
        }
    }

    /// A host that proves nothing about itself may connect to the discovery service only.
    pub fn expect_discovery(&mut self) {
        self.is_for_discovery = true;
    }

    /// Why the connection ended, once it is terminating or finished.
    pub fn error(&self) -> Option<&ConnectionError> {
        self.ended.as_ref()
    }

    /// The queue that the connection has become: QID, 0 for an admin queue.
    pub fn queue_id(&self) -> Option<u16> {
        self.queue.map(|queue| queue.id)
    }

    /// Commands received and not yet completed, parked Asynchronous Event Requests included.
    pub fn commands_in_flight(&self) -> usize {
        self.commands.len() - self.free.len()
    }

    /// Bytes of payload memory that commands hold.
    pub fn held_bytes(&self) -> usize {
        self.held
    }

    /// Bytes queued for the host and not yet sent.
    pub fn queued_bytes(&self) -> usize {
        self.encoder.queued_bytes()
    }

    fn is_open(&self) -> bool {
        !matches!(self.phase, Phase::Terminating | Phase::Finished)
    }
}

impl Endpoint for Connection {
    fn receive_into(&mut self, pieces: &mut Vec<Buffer>) {
        match self.phase {
            Phase::Finished => {}
            // The host's bytes are taken and dropped, so that closing does not reset the stream
            // before the host has read why.
            Phase::Terminating => pieces.extend(self.discarded.clone()),
            Phase::Initialize | Phase::Connect | Phase::Queue => self.decoder.receive_into(pieces),
        }
    }

    fn received(&mut self, bytes: usize) {
        self.moved = true;
        if self.is_open() {
            self.decoder.received(bytes);
        }
    }

    fn transmit_from(&mut self, pieces: &mut Vec<Buffer>, pieces_max: usize) {
        if self.phase != Phase::Finished {
            self.encoder.transmit_from(pieces, pieces_max);
        }
    }

    fn transmitted(&mut self, bytes: usize) {
        self.moved = true;
        if self.phase != Phase::Finished {
            self.encoder.transmitted(bytes);
        }
    }
}

/// How long a host may take to close after a C2HTermReq; then it is closed for it.
/// NVMe/TCP Transport, "Error Handling", asks for at most 30 s.
const TERMINATION_TIMEOUT: Duration = Duration::from_secs(5);
