//! One socket of a reactor's, moving the bytes of one [`Endpoint`].
//!
//! At most one receive and one send are in flight. To close, both are cancelled, and only when the
//! kernel has let go of both is the stream idle: until then their memory may still change or be
//! sent.

use block_io::reactor::{Descriptor, OperationId, PIECES_MAX, Port};
use block_io::{Buffer, IoError};

use crate::pdu::Endpoint;

/// What an operation on a stream is, in the low bits of its token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operation {
    Connect,
    Receive,
    Send,
    Other,
}

/// Bits of a token that tell the operation.
const OPERATION_BITS: u32 = 2;

/// The token of an operation on the stream number `index`.
pub(super) const fn token(index: usize, operation: Operation) -> u64 {
    (index as u64) << OPERATION_BITS | operation as u64
}

/// The stream and the operation of a token.
pub(super) const fn stream_of(token: u64) -> (usize, Operation) {
    let operation = match token & ((1 << OPERATION_BITS) - 1) {
        0 => Operation::Connect,
        1 => Operation::Receive,
        2 => Operation::Send,
        _ => Operation::Other,
    };
    ((token >> OPERATION_BITS) as usize, operation)
}

/// What the end of an operation means for the connection above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Bytes have moved, or the stream is being closed.
    Fine,
    /// The peer sends no more.
    EndOfStream,
    /// The stream is broken.
    Failed(&'static str, IoError),
}

/// See the module.
pub(super) struct Stream {
    index: usize,
    socket: Descriptor,
    receiving: Option<OperationId>,
    sending: Option<OperationId>,
    is_closing: bool,
    /// Kept for its capacity.
    pieces: Vec<Buffer>,
}

impl Stream {
    /// A stream over a connected socket. `index` goes into its tokens.
    pub(super) fn new(index: usize, socket: Descriptor) -> Self {
        let pieces = Vec::with_capacity(PIECES_MAX);
        Self { index, socket, receiving: None, sending: None, is_closing: false, pieces }
    }

    /// Starts what can be started; whether anything was.
    pub(super) fn start(&mut self, port: &Port, endpoint: &mut impl Endpoint) -> bool {
        let mut progress = false;
        if self.is_closing {
            return false;
        }
        if self.receiving.is_none() {
            endpoint.receive_into(&mut self.pieces);
            if !self.pieces.is_empty() {
                let token = token(self.index, Operation::Receive);
                self.receiving = Some(port.receive(&self.socket, &self.pieces, token));
                self.pieces.clear();
                progress = true;
            }
        }
        if self.sending.is_none() {
            endpoint.transmit_from(&mut self.pieces, PIECES_MAX);
            if !self.pieces.is_empty() {
                let token = token(self.index, Operation::Send);
                self.sending = Some(port.send(&self.socket, &self.pieces, token));
                self.pieces.clear();
                progress = true;
            }
        }
        progress
    }

    /// An operation of this stream's has ended.
    pub(super) fn ended(
        &mut self,
        operation: Operation,
        result: Result<u32, IoError>,
        endpoint: &mut impl Endpoint,
    ) -> Outcome {
        match operation {
            Operation::Receive => self.receiving = None,
            Operation::Send => self.sending = None,
            Operation::Connect | Operation::Other => return Outcome::Fine,
        }
        match (operation, result) {
            (_, Err(IoError::Cancelled)) if self.is_closing => Outcome::Fine,
            (Operation::Receive, Ok(0)) => Outcome::EndOfStream,
            (Operation::Receive, Ok(bytes)) => {
                endpoint.received(bytes as usize);
                Outcome::Fine
            }
            (Operation::Receive, Err(error)) => Outcome::Failed("receiving", error),
            (_, Ok(bytes)) => {
                endpoint.transmitted(bytes as usize);
                Outcome::Fine
            }
            (_, Err(error)) => Outcome::Failed("sending", error),
        }
    }

    /// Cancels what is in flight and starts nothing any more.
    pub(super) fn close(&mut self, port: &Port) {
        if !std::mem::replace(&mut self.is_closing, true) {
            for operation in [self.receiving, self.sending].into_iter().flatten() {
                port.cancel(operation);
            }
        }
    }

    /// Whether it is being closed and the kernel has let go of everything.
    pub(super) fn is_closed(&self) -> bool {
        self.is_closing && self.receiving.is_none() && self.sending.is_none()
    }
}
