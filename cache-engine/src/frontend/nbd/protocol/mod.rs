//! The server's side of the NBD protocol as a state machine: bytes in, device requests out,
//! completions in, bytes out. No socket, file, thread or clock.
//!
//! ```text
//!   handshake ──▶ option*  ──▶ transmission ──▶ ended
//!   greeting,     one option    requests in any number, replies in any order
//!   framing       each
//! ```
//! Large payloads are not copied: [`Connection::payload_target`] says where the next bytes belong,
//! and the driver receives them there; replies leave by [`Outgoing::gather`].
//!
//! The source is `doc/proto.md` of the NetworkBlockDevice project, cited as "NBD proto.md".
//! Absent: TLS, extended headers, CACHE, RESIZE, and unaligned requests, which get NBD_EINVAL: the
//! block size that they break was advertised.

mod error;
mod export;
mod handshake;
mod option;
mod outgoing;
mod spec;
mod transmission;

#[cfg(test)]
pub(super) mod tests;

use std::rc::Rc;

use block_io::{Buffer, BufferPool, Completion, Request};

pub use error::PeerFault;
pub use export::Export;
pub use handshake::{OPTION_LENGTH_MAX, OPTION_SKIPPED_MAX, OPTIONS_MAX};
pub use outgoing::Outgoing;
pub use transmission::Limits;

use handshake::Handshake;
use option::Outcome;
use transmission::Transmission;

/// Bytes of option replies that may wait before further options are read.
const NEGOTIATION_WAITING_MAX: u64 = 64 << 10;

/// One client's connection.
#[derive(Debug)]
pub struct Connection {
    exports: Rc<[Export]>,
    pool: BufferPool,
    limits: Limits,
    phase: Phase,
    outgoing: Outgoing,
}

#[derive(Debug)]
enum Phase {
    Handshake(Handshake),
    // Boxed: it holds its request slots' books and is several times larger than the others.
    Transmission(Box<Transmission>),
    Ended,
}

impl Connection {
    /// A connection that has just been accepted, its greeting ready to be sent. Payloads come from
    /// `pool`.
    pub fn new(exports: Rc<[Export]>, pool: BufferPool, limits: Limits) -> Self {
        let mut outgoing = Outgoing::new(pool.clone());
        let phase = Phase::Handshake(Handshake::new(Rc::clone(&exports), &mut outgoing));
        Self { exports, pool, limits, phase, outgoing }
    }

    /// Takes received bytes, and returns how many: all of them, unless enough is in flight (then
    /// the rest is to be offered again after a completion or a send) or the connection has ended.
    ///
    /// # Errors
    /// When the client broke the protocol: nothing more can be understood, the connection is to be
    /// closed at once.
    pub fn receive(&mut self, bytes: &Buffer) -> Result<usize, PeerFault> {
        let mut taken = 0;
        while taken < bytes.len() && self.wants_bytes() {
            let rest = bytes.slice(taken, bytes.len() - taken);
            match &mut self.phase {
                Phase::Handshake(handshake) => {
                    let (count, outcome) = handshake.receive(&rest, &mut self.outgoing)?;
                    taken += count;
                    self.follow(outcome);
                }
                Phase::Transmission(transmission) => {
                    taken += transmission.receive(&rest, &mut self.outgoing)?;
                }
                Phase::Ended => break,
            }
        }
        Ok(taken)
    }

    /// Whether [`receive`](Self::receive) would take bytes now. False while the client has too much
    /// in flight or waiting to be sent to it, and for good after the end.
    pub fn wants_bytes(&self) -> bool {
        match &self.phase {
            Phase::Handshake(_) => self.outgoing.bytes() < NEGOTIATION_WAITING_MAX,
            Phase::Transmission(transmission) => transmission.wants_bytes(&self.outgoing),
            Phase::Ended => false,
        }
    }

    /// Where the next bytes of the stream belong when they are a write's payload: the driver may
    /// receive into it and say so by [`payload_received`](Self::payload_received). Bytes after it
    /// go to [`receive`](Self::receive).
    pub fn payload_target(&self) -> Option<Buffer> {
        match &self.phase {
            Phase::Transmission(transmission) => transmission.payload_target(),
            Phase::Handshake(_) | Phase::Ended => None,
        }
    }

    /// The first `count` bytes of [`payload_target`](Self::payload_target) are there.
    pub fn payload_received(&mut self, count: usize) {
        if let Phase::Transmission(transmission) = &mut self.phase {
            transmission.payload_received(count);
        }
    }

    /// The next request to the device of the export, within its geometry. Large ones come in
    /// parts; replies are made when all are complete.
    pub fn next_request(&mut self) -> Option<Request> {
        match &mut self.phase {
            Phase::Transmission(transmission) => transmission.next_request(),
            Phase::Handshake(_) | Phase::Ended => None,
        }
    }

    /// A request is complete.
    pub fn complete(&mut self, completion: Completion) {
        if let Phase::Transmission(transmission) = &mut self.phase {
            transmission.complete(completion, &mut self.outgoing);
        }
    }

    /// The export that the client has entered, an index into the exports given at the start.
    pub fn export(&self) -> Option<usize> {
        match &self.phase {
            Phase::Transmission(transmission) => Some(transmission.export()),
            Phase::Handshake(_) | Phase::Ended => None,
        }
    }

    /// Takes no further requests; those in flight are still to be completed and answered. What has
    /// come of a request only in part is dropped.
    pub fn close(&mut self) {
        match &mut self.phase {
            Phase::Transmission(transmission) => transmission.end(),
            Phase::Handshake(_) => self.phase = Phase::Ended,
            Phase::Ended => {}
        }
    }

    /// Whether everything is said: the client left or the server closed, no request is in flight,
    /// and all replies are sent.
    pub fn is_finished(&self) -> bool {
        let ended = match &self.phase {
            Phase::Handshake(_) => false,
            Phase::Transmission(transmission) => transmission.is_finished(),
            Phase::Ended => true,
        };
        ended && self.outgoing.is_empty()
    }

    /// What is to be sent.
    pub fn outgoing(&mut self) -> &mut Outgoing {
        &mut self.outgoing
    }

    fn follow(&mut self, outcome: Outcome) {
        let Phase::Handshake(handshake) = &self.phase else { return };
        match outcome {
            Outcome::Continue => {}
            Outcome::Abort => self.phase = Phase::Ended,
            Outcome::Transmit(index) => {
                let agreement = handshake.agreement();
                let geometry = self.exports[index].geometry;
                self.phase = Phase::Transmission(Box::new(Transmission::new(
                    transmission::Terms {
                        export: index,
                        geometry,
                        structured: agreement.structured,
                        allocation: agreement.allocation_for == Some(index),
                    },
                    self.limits,
                    self.pool.clone(),
                )));
            }
        }
    }
}
