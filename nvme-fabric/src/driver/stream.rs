//! One socket of a reactor's, moving the bytes of one [`Endpoint`].
//!
//! At most one receive and one send are in flight. To close, both are cancelled, and only when the
//! kernel has let go of both is the stream idle: until then their memory may still change or be
//! sent.
//!
//! With a [`Layer`] of TLS the bytes moved are the layer's, and the layer moves the endpoint's. Why
//! a layer has failed is kept until [`Stream::take_failure`]. Closing then sends a close_notify if
//! the socket takes it at once.

use block_io::reactor::{Descriptor, OperationId, PIECES_MAX, Port};
use block_io::{Buffer, IoError};

use crate::error::ConnectionError;
use crate::pdu::Endpoint;
#[cfg(feature = "tls")]
use crate::tls::{Layer, TlsError};

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
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Bytes have moved, or the stream is being closed.
    Fine,
    /// The peer sends no more.
    EndOfStream,
    /// The stream is broken, or there is no TLS session to be had on it.
    Failed(ConnectionError),
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
    #[cfg(feature = "tls")]
    layer: Option<Box<Layer>>,
    failure: Option<ConnectionError>,
}

impl Stream {
    /// A stream over a connected socket. `index` goes into its tokens.
    pub(super) fn new(index: usize, socket: Descriptor) -> Self {
        Self {
            index,
            socket,
            receiving: None,
            sending: None,
            is_closing: false,
            pieces: Vec::with_capacity(PIECES_MAX),
            #[cfg(feature = "tls")]
            layer: None,
            failure: None,
        }
    }

    /// Starts what can be started; whether anything was.
    pub(super) fn start(&mut self, port: &Port, endpoint: &mut impl Endpoint) -> bool {
        if self.is_closing {
            return false;
        }
        #[cfg(feature = "tls")]
        if let Some(mut layer) = self.layer.take() {
            let mut progress = self.pump(&mut layer, endpoint);
            if layer.is_plain() {
                return self.start(port, endpoint) | progress;
            }
            progress |= self.start_over(port, layer.session());
            self.layer = Some(layer);
            return progress;
        }
        self.start_over(port, endpoint)
    }

    /// Starts what can be started of the bytes on the wire.
    fn start_over(&mut self, port: &Port, endpoint: &mut impl Endpoint) -> bool {
        let mut progress = false;
        if self.receiving.is_none() {
            endpoint.receive_into(&mut self.pieces);
            if !self.pieces.is_empty() {
                let token = token(self.index, Operation::Receive);
                self.receiving = Some(port.receive(&self.socket, &self.pieces, token));
                self.pieces.clear();
                progress = true;
            }
        }
        self.start_sending(port, endpoint) | progress
    }

    fn start_sending(&mut self, port: &Port, endpoint: &mut impl Endpoint) -> bool {
        if self.sending.is_some() {
            return false;
        }
        endpoint.transmit_from(&mut self.pieces, PIECES_MAX);
        if self.pieces.is_empty() {
            return false;
        }
        let token = token(self.index, Operation::Send);
        self.sending = Some(port.send(&self.socket, &self.pieces, token));
        self.pieces.clear();
        true
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
            (Operation::Receive, Ok(0)) => self.end_of_stream(),
            (Operation::Receive, Ok(bytes)) => {
                self.on_wire(endpoint, |wire| wire.received(bytes as usize));
                Outcome::Fine
            }
            (Operation::Receive, Err(error)) => failed("receiving", error),
            (_, Ok(bytes)) => {
                self.on_wire(endpoint, |wire| wire.transmitted(bytes as usize));
                Outcome::Fine
            }
            (_, Err(error)) => failed("sending", error),
        }
    }

    /// Why there is no TLS session, or none any more; told once.
    pub(super) fn take_failure(&mut self) -> Option<ConnectionError> {
        self.failure.take()
    }

    /// Does something to the end whose bytes are on the wire.
    fn on_wire(&mut self, endpoint: &mut impl Endpoint, change: impl FnOnce(&mut dyn Endpoint)) {
        #[cfg(feature = "tls")]
        if let Some(layer) = &mut self.layer {
            return change(layer.session());
        }
        change(endpoint);
    }

    #[cfg_attr(not(feature = "tls"), expect(clippy::unused_self, reason = "it is with TLS"))]
    fn end_of_stream(&mut self) -> Outcome {
        #[cfg(feature = "tls")]
        if let Some(error) = self.layer.as_mut().and_then(|layer| layer.session().end_of_stream()) {
            return Outcome::Failed(refused(&error));
        }
        Outcome::EndOfStream
    }

    /// Cancels what is in flight and starts nothing any more.
    pub(super) fn close(&mut self, port: &Port) {
        if std::mem::replace(&mut self.is_closing, true) {
            return;
        }
        #[cfg(feature = "tls")]
        if let Some(mut layer) = self.layer.take() {
            layer.session().close();
            // The kernel tries a send at once, before the cancelling below: what the socket has
            // room for gets out, and a peer that does not read holds nothing up.
            self.start_sending(port, layer.session());
            self.layer = Some(layer);
        }
        for operation in [self.receiving, self.sending].into_iter().flatten() {
            port.cancel(operation);
        }
    }

    /// Whether it is being closed and the kernel has let go of everything.
    pub(super) fn is_closed(&self) -> bool {
        self.is_closing && self.receiving.is_none() && self.sending.is_none()
    }
}

/// What TLS adds.
#[cfg(feature = "tls")]
impl Stream {
    /// From the stream's first byte on there is `layer` between it and the endpoint.
    pub(super) fn secure(&mut self, layer: Layer) {
        self.layer = Some(Box::new(layer));
    }

    /// Whose key the peer has, once the handshake is over.
    pub(super) fn peer(&self) -> Option<&crate::tls::Peer> {
        self.layer.as_ref()?.peer()
    }

    fn pump(&mut self, layer: &mut Layer, endpoint: &mut impl Endpoint) -> bool {
        match layer.pump(endpoint) {
            Ok(pumped) => {
                if pumped.is_closed {
                    self.failure = Some(ConnectionError::Closed);
                }
                pumped.progress
            }
            Err(error) => {
                self.failure = Some(refused(&error));
                true
            }
        }
    }
}

#[cfg(feature = "tls")]
fn refused(error: &TlsError) -> ConnectionError {
    match error {
        TlsError::Alert(..) | TlsError::ClosedInHandshake(_) => {
            ConnectionError::NoSession(error.to_string())
        }
        error => ConnectionError::Refused(error.to_string()),
    }
}

fn failed(operation: &'static str, error: IoError) -> Outcome {
    Outcome::Failed(ConnectionError::Network(operation, error))
}
