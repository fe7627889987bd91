//! The end of a connection: by the peer, the network, a breach of the protocol, or on purpose.
//!
//! ```text
//!   end ──▶ Closing: what is queued goes out, nothing is received
//!             │  wants_close: the driver cancels its operations and closes the socket
//!             ▼
//!   transport_closed ──▶ Closed: every command in flight finishes as lost
//! ```
//! The order matters: a command must not give its buffer back while the kernel may still write
//! into it, nor while what a new owner puts there could still be sent.

use super::commands::{Finished, Outcome};
use super::{Connection, Phase, TERMINATION_TIME};
use crate::error::ConnectionError;
use crate::pdu::{PduError, Side};

impl Connection {
    /// Ends the connection for a breach of the protocol by the peer, which is told.
    pub(super) fn refuse(&mut self, error: &PduError) {
        self.encoder.push_termination(Side::Host, error, self.decoder.last_header());
        self.end_when_sent(ConnectionError::Protocol(*error));
    }

    /// Ends the connection at once.
    pub fn end(&mut self, error: ConnectionError) {
        if self.is_over() {
            // What is still queued, a TermReq at most, will not get out any more.
            self.encoder.clear();
            return;
        }
        self.error = Some(error);
        self.encoder.clear();
        self.phase = Phase::Closing { deadline: self.now };
    }

    fn end_when_sent(&mut self, error: ConnectionError) {
        self.error = Some(error);
        self.phase = Phase::Closing { deadline: self.now + TERMINATION_TIME };
    }

    /// The peer has closed its direction of the stream.
    pub fn end_of_stream(&mut self) {
        if !self.is_over() {
            self.end(ConnectionError::Closed);
        }
    }

    /// An operation on the socket has failed.
    pub fn network_failed(&mut self, operation: &'static str, error: block_io::IoError) {
        self.end(ConnectionError::Network(operation, error));
    }

    /// Whether the driver shall cancel its operations and close the socket now. A send in flight
    /// with a TermReq in it is worth waiting for until then.
    pub fn wants_close(&self) -> bool {
        match self.phase {
            Phase::Initializing | Phase::Open | Phase::Closed => false,
            Phase::Closing { deadline } => self.encoder.is_empty() || self.now >= deadline,
        }
    }

    /// The driver has closed the socket, and no operation on it is in flight any more.
    pub fn transport_closed(&mut self) {
        if self.phase == Phase::Closed {
            return;
        }
        if !self.is_over() {
            self.end(ConnectionError::Closed);
        }
        self.phase = Phase::Closed;
        self.encoder.clear();
        self.decoder.abandon_payload();
        self.receiving = None;
        while let Some(command) = self.commands.remove_any() {
            let (token, submitted) = (command.token, command.submitted);
            self.finished.push_back(Finished { token, submitted, outcome: Outcome::Lost });
        }
    }
}
