//! A component's own way to the reactor.

use std::rc::Rc;

use super::core::{Core, Inbox};
use super::slots::{Owner, Purpose};
use super::submission::Submission;
use super::{AllocateMode, Descriptor, Event, OperationId, PIECES_MAX, Shared, SocketAddress};
use crate::{Buffer, Extent, IoError, Timestamp};

/// Starts operations and receives their events. No call blocks, and none ends an operation: the
/// outcome is an [`Event`] with the operation's token, after a later turn.
///
/// Operations in flight keep their buffers and descriptors alive. Dropping the port cancels them
/// and discards their events.
pub struct Port {
    shared: Rc<Shared>,
    owner: Owner,
    inbox: Inbox,
}

impl Port {
    pub(super) fn new(shared: Rc<Shared>) -> Self {
        let (owner, inbox) = shared.core.borrow_mut().open_port();
        Self { shared, owner, inbox }
    }

    /// Takes the oldest event.
    pub fn next_event(&self) -> Option<Event> {
        self.inbox.borrow_mut().pop_front()
    }

    /// Reads into all of `buffer`. The result is the number of bytes read, short at the end of
    /// the file.
    pub fn read_at(
        &self,
        file: &Descriptor,
        offset: u64,
        buffer: &Buffer,
        token: u64,
    ) -> OperationId {
        self.begin(file, token, Purpose::Transfer, |core, index| {
            core.slots.hold_buffer(index, buffer);
            let span = core.ring.span(buffer.as_ptr(), buffer.len());
            Ok(Submission::read(core.file(file), span, offset))
        })
    }

    /// Writes all of `buffer`; with `durable` the bytes are on the medium when the event comes
    /// (`RWF_DSYNC`). The result is the number of bytes written.
    pub fn write_at(
        &self,
        file: &Descriptor,
        offset: u64,
        buffer: &Buffer,
        durable: bool,
        token: u64,
    ) -> OperationId {
        self.begin(file, token, Purpose::Transfer, |core, index| {
            core.slots.hold_buffer(index, buffer);
            let span = core.ring.span(buffer.as_ptr(), buffer.len());
            Ok(Submission::write(core.file(file), span, offset, durable))
        })
    }

    /// Makes completed writes durable (`fdatasync`).
    pub fn synchronize(&self, file: &Descriptor, token: u64) -> OperationId {
        self.begin(file, token, Purpose::Transfer, |core, _| {
            Ok(Submission::synchronize(core.file(file)))
        })
    }

    /// Changes the space behind an extent (`fallocate`, keeping the size).
    pub fn allocate(
        &self,
        file: &Descriptor,
        mode: AllocateMode,
        extent: Extent,
        token: u64,
    ) -> OperationId {
        let flags = libc::FALLOC_FL_KEEP_SIZE
            | match mode {
                AllocateMode::PunchHole => libc::FALLOC_FL_PUNCH_HOLE,
                AllocateMode::ZeroRange => libc::FALLOC_FL_ZERO_RANGE,
            };
        self.begin(file, token, Purpose::Transfer, |core, _| {
            Ok(Submission::allocate(core.file(file), flags, extent.offset, extent.length))
        })
    }

    /// Takes one connection; the event carries the new socket, close-on-exec.
    pub fn accept(&self, listener: &Descriptor, token: u64) -> OperationId {
        self.begin(listener, token, Purpose::Accept, |core, _| {
            Ok(Submission::accept(core.file(listener)))
        })
    }

    /// Connects a socket. A Unix path that is too long is an `InvalidArgument` event.
    pub fn connect(&self, socket: &Descriptor, address: &SocketAddress, token: u64) -> OperationId {
        self.begin(socket, token, Purpose::Transfer, |core, index| {
            let (place, length) = core.slots.hold_address(index, address)?;
            Ok(Submission::connect(core.file(socket), place, length))
        })
    }

    /// Receives what is there into the pieces, in order. The result is the number of bytes,
    /// seldom all that would fit; 0 is the end of the stream. At most [`PIECES_MAX`] pieces with
    /// at least one byte of room, else an `InvalidArgument` event.
    pub fn receive(&self, socket: &Descriptor, into: &[Buffer], token: u64) -> OperationId {
        self.begin(socket, token, Purpose::Receive, |core, index| {
            check_pieces(into)?;
            let file = core.file(socket);
            if let [only] = into {
                core.slots.hold_buffer(index, only);
                let span = core.ring.span(only.as_ptr(), only.len());
                return Ok(Submission::receive(file, span));
            }
            Ok(Submission::receive_message(file, core.slots.hold_message(index, into)))
        })
    }

    /// Sends the pieces in order. The result is the number of bytes that the socket took, which
    /// may be fewer than there are: the rest is the caller's to send. Pieces as for
    /// [`receive`](Self::receive). The kernel may go on reading them after the event, until the
    /// peer has acknowledged them ([`ReactorConfig::zero_copy_from`](super::ReactorConfig)); what
    /// is changed then may reach the peer changed, if the network lost it the first time.
    pub fn send(&self, socket: &Descriptor, pieces: &[Buffer], token: u64) -> OperationId {
        self.begin(socket, token, Purpose::Transfer, |core, index| {
            check_pieces(pieces)?;
            let file = core.file(socket);
            let spares_copy = core.zero_copy.is_for(socket, pieces);
            if let [only] = pieces {
                core.slots.hold_buffer(index, only);
                let span = core.ring.span(only.as_ptr(), only.len());
                return Ok(match spares_copy {
                    true => Submission::send_zero_copy(file, span),
                    false => Submission::send(file, span),
                });
            }
            let message = core.slots.hold_message(index, pieces);
            Ok(match spares_copy {
                true => Submission::send_message_zero_copy(file, message),
                false => Submission::send_message(file, message),
            })
        })
    }

    /// An event with result 0 once the clock is at `deadline` or later. Equal deadlines come in
    /// the order of the calls.
    pub fn timer(&self, deadline: Timestamp, token: u64) -> OperationId {
        let core = &mut *self.shared.core.borrow_mut();
        match core.begin(self.owner, token, Purpose::Timer) {
            Ok((index, operation)) => {
                core.timers.arm(index, deadline);
                operation
            }
            Err(operation) => operation,
        }
    }

    /// Asks for an early end. The operation's event still comes: `Cancelled` if this was in time,
    /// else its real outcome. An operation that has ended is left alone.
    pub fn cancel(&self, operation: OperationId) {
        self.shared.core.borrow_mut().cancel(operation);
    }

    /// Starts an operation on a file: takes a slot, lets `prepare` put what the kernel needs into
    /// it, and queues the entry.
    fn begin(
        &self,
        file: &Descriptor,
        token: u64,
        purpose: Purpose,
        prepare: impl FnOnce(&mut Core, u32) -> Result<Submission, IoError>,
    ) -> OperationId {
        let core = &mut *self.shared.core.borrow_mut();
        let (index, operation) = match core.begin(self.owner, token, purpose) {
            Ok(taken) => taken,
            Err(operation) => return operation,
        };
        core.slots.hold_descriptor(index, file);
        match prepare(core, index) {
            Ok(submission) => core.start(submission, operation, purpose),
            Err(error) => core.end_early(index, Err(error)),
        }
        operation
    }
}

fn check_pieces(pieces: &[Buffer]) -> Result<(), IoError> {
    let fitting = (1..=PIECES_MAX).contains(&pieces.len());
    if fitting && pieces.iter().any(|piece| !piece.is_empty()) {
        Ok(())
    } else {
        Err(IoError::InvalidArgument)
    }
}

impl Drop for Port {
    fn drop(&mut self) {
        self.shared.core.borrow_mut().close_port(self.owner);
    }
}

impl std::fmt::Debug for Port {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Port({} events waiting)", self.inbox.borrow().len())
    }
}
