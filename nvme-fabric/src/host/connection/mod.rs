//! One queue of the host's: one connection, from ICReq to its end.
//!
//! ```text
//!            handshake            commands, transfer              shutdown
//!   new ──▶ Initializing ──ICResp──▶ Open ──error, end, close──▶ Closing ──▶ Closed
//! ```
//! The owner says what time it is ([`Connection::tick`]), a driver moves the bytes
//! ([`Endpoint`]), and [`Connection::next_finished`] tells how commands ended: each exactly once.
//! Commands in flight when the connection ends finish as [`Outcome::Lost`], but only when the
//! driver has confirmed with [`Connection::transport_closed`] that no operation on the socket can
//! touch their memory any more.
//!
//! Absent: what the commands are; the controller and the requests above know.

mod commands;
mod handshake;
mod shutdown;
#[cfg(test)]
mod tests;
mod transfer;

pub use commands::{Data, Finished, Outcome};

use std::collections::VecDeque;
use std::time::Duration;

use block_io::{Buffer, BufferPool, Timestamp};

use self::commands::CommandTable;
use crate::error::ConnectionError;
use crate::pdu::{Decoder, Digests, Encoder, Endpoint, Limits, Side};

/// Bytes that one receive can bring beyond the current payload.
const STAGING_LENGTH: usize = 64 << 10;
/// In-capsule data of the admin queue and of every Fabrics command, whatever IOCCSZ says.
/// NVMe/TCP Transport 1.1 §3.3.2
pub(super) const FABRICS_CAPSULE_DATA_MAX: u32 = 8192;
/// How long a TermReq may take to get out before the socket is closed anyway.
const TERMINATION_TIME: Duration = Duration::from_secs(1);

/// What a connection is made with.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionOptions {
    /// Digests to ask for; the peer must agree to exactly these.
    pub digests: Digests,
    /// Commands in flight at most.
    pub commands_max: u16,
    /// Most bytes of one command's data that the host will accept in one C2HData.
    pub transfer_max: u32,
    /// How much longer a command past its deadline may take that the owner aborts
    /// ([`Connection::next_expired`]); absent: the deadline ends the connection.
    pub abort_time: Option<Duration>,
}

/// Where a connection is in its life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// ICReq is queued or sent; ICResp is awaited.
    Initializing,
    /// Commands flow.
    Open,
    /// Over. What is queued still goes out until `deadline`, then the driver closes the socket.
    Closing { deadline: Timestamp },
    /// The socket is closed.
    Closed,
}

/// See the module.
#[derive(Debug)]
pub struct Connection {
    options: ConnectionOptions,
    phase: Phase,
    now: Timestamp,
    decoder: Decoder,
    encoder: Encoder,
    commands: CommandTable,
    finished: VecDeque<Finished>,
    /// Commands past their deadline that have not been aborted yet.
    expired: VecDeque<u16>,
    /// When the newest of the answered commands was submitted.
    newest_answered: Timestamp,
    /// The command whose data the decoder is putting in place.
    receiving: Option<u16>,
    /// Those data also complete the command (SUCCESS).
    success_follows: bool,
    /// Most bytes of data in one CapsuleCmd.
    capsule_data_max: u32,
    /// MAXH2CDATA of the peer's.
    host_data_max: u32,
    error: Option<ConnectionError>,
}

impl Connection {
    /// A connection over a stream that has just been established; its ICReq is queued.
    pub fn new(pool: &BufferPool, options: ConnectionOptions, now: Timestamp) -> Self {
        let limits = Limits { capsule_data_max: 0, data_max: options.transfer_max };
        let mut connection = Self {
            options,
            phase: Phase::Initializing,
            now,
            decoder: Decoder::new(Side::Host, pool.allocate(STAGING_LENGTH), limits),
            encoder: Encoder::new(pool),
            commands: CommandTable::new(options.commands_max),
            finished: VecDeque::with_capacity(usize::from(options.commands_max)),
            expired: VecDeque::new(),
            newest_answered: Timestamp(0),
            receiving: None,
            success_follows: false,
            capsule_data_max: FABRICS_CAPSULE_DATA_MAX,
            host_data_max: 0,
            error: None,
        };
        connection.start_handshake();
        connection
    }

    /// Whether commands may be submitted.
    pub fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    /// Whether the connection is over: nothing more will be received.
    pub fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Closing { .. } | Phase::Closed)
    }

    /// Why it is over.
    pub fn error(&self) -> Option<&ConnectionError> {
        self.error.as_ref()
    }

    /// Commands in flight.
    pub fn in_flight(&self) -> usize {
        self.commands.in_flight()
    }

    /// From now on a capsule may carry this many bytes of data (IOCCSZ of the controller).
    pub fn set_capsule_data_max(&mut self, bytes: u32) {
        self.capsule_data_max = bytes;
    }

    /// Says what time it is; commands past their deadline are to be aborted, or end the connection.
    pub fn tick(&mut self, now: Timestamp) {
        self.now = now;
        let grace = self.options.abort_time;
        if let Some(after) = self.commands.overdue(now, grace, &mut self.expired)
            && !self.is_over()
        {
            self.end(ConnectionError::TimedOut("a command".to_owned(), after));
        }
    }

    /// When [`tick`](Self::tick) is needed next, if nothing else happens.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        match self.phase {
            Phase::Initializing | Phase::Open => self.commands.next_check(),
            Phase::Closing { deadline } => Some(deadline),
            Phase::Closed => None,
        }
    }

    /// The name of a command in flight past its deadline; each is named once.
    pub fn next_expired(&mut self) -> Option<u16> {
        while let Some(id) = self.expired.pop_front() {
            if self.commands.get(id).is_some() {
                return Some(id);
            }
        }
        None
    }

    /// When the newest of the commands that have been answered was submitted.
    pub const fn newest_answered(&self) -> Timestamp {
        self.newest_answered
    }

    /// Takes the outcome of the command that ended first.
    pub fn next_finished(&mut self) -> Option<Finished> {
        self.finished.pop_front()
    }
}

impl Endpoint for Connection {
    fn receive_into(&mut self, pieces: &mut Vec<Buffer>) {
        if !self.is_over() {
            self.decoder.receive_into(pieces);
        }
    }

    fn received(&mut self, bytes: usize) {
        self.decoder.received(bytes);
        if !self.is_over()
            && let Err(error) = self.take_events()
        {
            self.refuse(&error);
        }
    }

    fn transmit_from(&mut self, pieces: &mut Vec<Buffer>, pieces_max: usize) {
        if self.phase != Phase::Closed {
            self.encoder.transmit_from(pieces, pieces_max);
        }
    }

    fn transmitted(&mut self, bytes: usize) {
        self.encoder.transmitted(bytes);
    }
}
