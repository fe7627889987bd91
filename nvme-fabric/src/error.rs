//! The crate's errors, by whose fault they are.
//!
//! * The peer's breach of the stream: [`PduError`], told to the peer in a TermReq, ends the
//!   connection.
//! * A command's failure: an NVMe status, which the host turns into an [`block_io::IoError`].
//! * The way to the peer: [`ConnectionError`], for a person to read; requests in flight complete
//!   with [`block_io::IoError::ConnectionLost`].
//!
//! A fault of this crate's own is an assertion.

use std::fmt;
use std::time::Duration;

use block_io::DeviceError;

use crate::pdu::{PduError, Termination};

/// Why a connection, and with it the association, ended or never came to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConnectionError {
    /// The peer broke the protocol; it has been told.
    Protocol(PduError),
    /// The peer says that this end broke the protocol.
    Terminated(Termination),
    /// The peer closed the stream.
    Closed,
    /// The stream ended in the middle of this. The peer may have meant it as a refusal.
    During(String, Box<ConnectionError>),
    /// No stream to this address could be established.
    Unreachable(String, block_io::IoError),
    /// The network failed: the operation and the error.
    Network(&'static str, block_io::IoError),
    /// No answer in time: to what, and after how long.
    TimedOut(String, Duration),
    /// The peer refused what was offered; the text names the offer and the refusal.
    Refused(String),
    /// The peer ended TLS's handshake: it does not know the keys that were offered, or the like.
    NoSession(String),
    /// One end did not prove to the other who it is. Trying again with the same secrets is of no
    /// use.
    Unauthenticated(String),
    /// The peer offers something that this end cannot work with; names the field and the value.
    Incompatible(String),
    /// This end closed it.
    ShutDown,
}

impl fmt::Display for ConnectionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Protocol(error) => write!(f, "the peer broke the protocol: {error}"),
            Self::Terminated(termination) => {
                write!(f, "the peer ended the connection: {termination}")
            }
            Self::Closed => f.write_str("the peer closed the connection"),
            Self::During(what, error) => write!(f, "{what}: {error}"),
            Self::Unreachable(address, error) => write!(f, "connecting to {address}: {error}"),
            Self::Network(operation, error) => write!(f, "{operation} failed: {error}"),
            Self::TimedOut(what, after) => write!(f, "no answer to {what} within {after:?}"),
            Self::Refused(what)
            | Self::NoSession(what)
            | Self::Unauthenticated(what)
            | Self::Incompatible(what) => f.write_str(what),
            Self::ShutDown => f.write_str("the connection was shut down"),
        }
    }
}

impl ConnectionError {
    /// The same, beginning with the address of the peer that refused what was offered, or the keys.
    pub(crate) fn of_peer(self, address: &str) -> Self {
        match self {
            Self::Refused(what) => Self::Refused(format!("{address}: {what}")),
            Self::NoSession(what) => Self::NoSession(format!("{address}: {what}")),
            error => error,
        }
    }
}

impl std::error::Error for ConnectionError {}

impl From<PduError> for ConnectionError {
    fn from(error: PduError) -> Self {
        Self::Protocol(error)
    }
}

impl From<ConnectionError> for DeviceError {
    fn from(error: ConnectionError) -> Self {
        DeviceError::new(error.to_string())
    }
}
