//! The initiator, as state machines without I/O.
//!
//! ```text
//!   requests      a block device's requests, split into commands, sent again where that is safe
//!      │          commands: what a block device has no requests for
//!   paths         the ways to one namespace: reconnect, fence what is lost, choose
//!      │
//!   controller    brings an association up, keeps it alive, hears its events, shuts it down
//!      │                                    discovery: asks a discovery controller what there is
//!   connection    one queue: handshake, commands, transfer, shutdown
//! ```
//! Time comes in, PDUs go out; [`crate::driver`] connects it to sockets. A [`Controller`] that is
//! lost stays lost; [`Paths`] makes another one.

#[cfg(feature = "auth")]
mod authentication;
pub mod commands;
pub mod connection;
pub mod controller;
pub mod discovery;
pub mod paths;
pub mod requests;
mod status;

#[cfg(feature = "auth")]
pub use authentication::HostAuthentication;
pub use controller::{Controller, Identity, QueueIndex};
pub use paths::Paths;
pub use status::io_error;

use std::time::Duration;

use crate::pdu::Digests;
use crate::spec::nqn::{HostId, Nqn};

/// Who connects to what, and how.
#[derive(Clone, Debug)]
pub struct HostOptions {
    /// Where the controller is, as messages shall name it.
    pub address: String,
    /// The subsystem's name.
    pub subsystem: Nqn,
    /// The host's name.
    pub host: Nqn,
    /// The host's identifier; the same for every connection of a host by this name.
    pub host_id: HostId,
    /// Digests to use; a controller that does not agree is refused.
    pub digests: Digests,
    /// Entries of an I/O queue; one fewer commands are in flight. 2 to 1024.
    pub queue_depth: u16,
    /// I/O queues to ask for; the controller may grant fewer.
    pub io_queues: u16,
    /// KATO: the controller gives up a host that it has not heard for so long. Zero for none.
    pub keep_alive: Duration,
    /// How long bringing the association up may take in all.
    pub connect_timeout: Duration,
    /// How long a command may take before it is aborted.
    pub command_timeout: Duration,
    /// How much longer it may take once it is past that, before the association is given up.
    /// Absent: nothing is aborted, and the association is given up at once.
    pub abort_time: Option<Duration>,
    /// What this host proves itself with, where a controller asks for that.
    #[cfg(feature = "auth")]
    pub authentication: Option<HostAuthentication>,
}

impl HostOptions {
    /// Entries of an I/O queue when nothing else is asked for.
    pub const QUEUE_DEPTH: u16 = 128;

    /// No digests, 128 entries, one I/O queue, 5 s keep alive, 10 s to connect, 30 s a command and
    /// 5 s to abort it, no secret.
    pub fn new(address: impl Into<String>, subsystem: Nqn, host: Nqn, host_id: HostId) -> Self {
        Self {
            address: address.into(),
            subsystem,
            host,
            host_id,
            digests: Digests::default(),
            queue_depth: Self::QUEUE_DEPTH,
            io_queues: 1,
            keep_alive: Duration::from_secs(5),
            connect_timeout: Duration::from_secs(10),
            command_timeout: Duration::from_secs(30),
            abort_time: Some(Duration::from_secs(5)),
            #[cfg(feature = "auth")]
            authentication: None,
        }
    }
}
