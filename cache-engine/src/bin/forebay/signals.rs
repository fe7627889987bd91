//! SIGINT and SIGTERM: the first asks for an end, the second does not wait for it.
//!
//! A handler writes a byte into a socket that a reactor's port receives from, so that a sleeping
//! reactor wakes up and nothing is done in the handler itself.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use block_io::Buffer;
use block_io::reactor::{Descriptor, Port, Reactor};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::{flag, low_level};

use crate::failure::Failure;

/// Notes signals from when it is made.
#[derive(Debug)]
pub(crate) struct Signals {
    arrived: Arc<AtomicBool>,
    bytes: UnixStream,
}

impl Signals {
    /// Takes over SIGINT and SIGTERM of this process.
    ///
    /// # Errors
    /// When the system refuses the handlers.
    pub(crate) fn new() -> Result<Self, Failure> {
        let take = || -> io::Result<Self> {
            let arrived = Arc::new(AtomicBool::new(false));
            let (bytes, write_end) = UnixStream::pair()?;
            for signal in [SIGINT, SIGTERM] {
                // In this order: the first signal finds the flag unset and sets it.
                flag::register_conditional_shutdown(signal, 1, Arc::clone(&arrived))?;
                flag::register(signal, Arc::clone(&arrived))?;
                low_level::pipe::register(signal, write_end.try_clone()?)?;
            }
            Ok(Self { arrived, bytes })
        };
        take().map_err(|error| Failure::because("taking over SIGINT and SIGTERM", error))
    }

    /// Whether one has arrived.
    pub(crate) fn arrived(&self) -> bool {
        self.arrived.load(Ordering::Acquire)
    }

    /// A watch that wakes `reactor` when one arrives.
    pub(crate) fn watch(self, reactor: &Reactor) -> SignalWatch {
        let port = reactor.open_port();
        let descriptor = Descriptor::from(OwnedFd::from(self.bytes));
        let buffer = reactor.pool().allocate(1);
        port.receive(&descriptor, std::slice::from_ref(&buffer), 0);
        SignalWatch { arrived: self.arrived, _port: port, _descriptor: descriptor, _buffer: buffer }
    }
}

/// Signals as a reactor's thread sees them.
#[derive(Debug)]
pub(crate) struct SignalWatch {
    arrived: Arc<AtomicBool>,
    /// Its receive ends with the first signal; the event is only to wake the reactor.
    _port: Port,
    _descriptor: Descriptor,
    _buffer: Buffer,
}

impl SignalWatch {
    /// Whether one has arrived.
    pub(crate) fn arrived(&self) -> bool {
        self.arrived.load(Ordering::Acquire)
    }
}
