//! SIGINT and SIGTERM: the first asks for an end, a later one does not wait for it.
//!
//! A handler writes a byte into a socket that a reactor's port receives from, so that a sleeping
//! reactor wakes up and nothing is done in the handler itself. A second signal on the heels of
//! the first is the same wish: timeout(1) and terminals send both to a process and to its group.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use block_io::Timestamp;
use block_io::reactor::{Descriptor, Port, Reactor};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::{flag, low_level};

use crate::failure::Failure;

/// How long after the first signal another one counts as impatience.
const PATIENCE: Duration = Duration::from_millis(500);

/// What an event of the watch's port is about.
const FIRST_SIGNAL: u64 = 0;
const PATIENCE_OVER: u64 = 1;

/// Notes signals from when it is made.
#[derive(Debug)]
pub(crate) struct Signals {
    arrived: Arc<AtomicBool>,
    /// Whether the next signal ends the process where it stands.
    impatient: Arc<AtomicBool>,
    bytes: UnixStream,
}

impl Signals {
    /// Takes over SIGINT and SIGTERM of this process.
    ///
    /// # Errors
    /// When the system refuses the handlers.
    pub(crate) fn new() -> Result<Self, Failure> {
        let take = || -> io::Result<Self> {
            let (arrived, impatient) = (Arc::default(), Arc::default());
            let (bytes, write_end) = UnixStream::pair()?;
            for signal in [SIGINT, SIGTERM] {
                flag::register_conditional_shutdown(signal, 1, Arc::clone(&impatient))?;
                flag::register(signal, Arc::clone(&arrived))?;
                low_level::pipe::register(signal, write_end.try_clone()?)?;
            }
            Ok(Self { arrived, impatient, bytes })
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
        let byte = reactor.pool().allocate(1);
        port.receive(&descriptor, &[byte], FIRST_SIGNAL);
        SignalWatch { arrived: self.arrived, impatient: self.impatient, port }
    }
}

/// Signals as a reactor's thread sees them.
#[derive(Debug)]
pub(crate) struct SignalWatch {
    arrived: Arc<AtomicBool>,
    impatient: Arc<AtomicBool>,
    port: Port,
}

impl SignalWatch {
    /// Whether one has arrived. To be asked in every poll: some time after the first it lets the
    /// next one end the process at once.
    pub(crate) fn arrived(&self, now: Timestamp) -> bool {
        while let Some(event) = self.port.next_event() {
            if event.token == FIRST_SIGNAL {
                self.port.timer(now + PATIENCE, PATIENCE_OVER);
            } else {
                self.impatient.store(true, Ordering::Release);
            }
        }
        self.arrived.load(Ordering::Acquire)
    }
}
