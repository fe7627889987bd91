//! How a running reactor is told to end, and asked things: by signals, or by another thread.

use block_io::Timestamp;
use block_io::reactor::{Mailbox, Reactor, Task};

use crate::failure::Failure;
use crate::signals::SignalWatch;

/// Whoever a service obeys.
pub(crate) enum Control<Request> {
    /// SIGINT and SIGTERM.
    Signals(SignalWatch),
    /// Threads of this process. The service ends when all of them have let go of their senders.
    Mailbox(Mailbox<Request>),
}

impl<Request: Send> Control<Request> {
    /// Whether the service is to end; to be asked in every poll.
    pub(crate) fn is_over(&self, now: Timestamp) -> bool {
        match self {
            Self::Signals(signals) => signals.arrived(now),
            Self::Mailbox(mailbox) => mailbox.is_closed(),
        }
    }

    /// The next thing that it is asked.
    pub(crate) fn next_request(&self) -> Option<Request> {
        match self {
            Self::Signals(_) => None,
            Self::Mailbox(mailbox) => mailbox.receive(),
        }
    }
}

/// A part of the command that serves until it is told to end.
pub(crate) trait Daemon: Task + Sized {
    /// Takes leave of whoever serves its devices; the task is finished.
    ///
    /// # Errors
    /// When the reactor itself fails.
    fn close(&self, reactor: &Reactor) -> Result<(), Failure>;

    /// Serves until told to end, and ends in order.
    ///
    /// # Errors
    /// When the reactor itself fails.
    fn run(&mut self, reactor: &Reactor) -> Result<(), Failure> {
        reactor.run(self)?;
        self.close(reactor)
    }
}
