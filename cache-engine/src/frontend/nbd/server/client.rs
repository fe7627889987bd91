//! One client: moves bytes between its socket and its [`Connection`], requests between that and
//! the export's queue. It knows the order of things, and nothing of the protocol.
//!
//! ```text
//!   socket ══receive══▶ [payload in its place, staging] ──▶ Connection ──▶ SharedQueue
//!          ◀══send════  [headers, payload, headers, …]  ◀──            ◀──
//! ```
//! At most one receive and one send are under way. One receive brings as many small requests as
//! fit into the staging buffer, and one send takes all replies made since the last.

use std::collections::BTreeMap;
use std::ops::Range;
use std::rc::Rc;

use block_io::device::shared::SharedQueue;
use block_io::reactor::{Descriptor, Event, PIECES_MAX, Port, Reactor};
use block_io::{BlockQueue, Buffer, Completion, Request, Timestamp};

use super::handover::Place;
use super::{ExportNumber, Exports};
use crate::frontend::nbd::protocol::{Connection, Limits};

/// Bytes received at once beside a payload: sixteen writes of 4 KiB, or two thousand reads.
const STAGING_LENGTH: usize = 64 << 10;

const RECEIVED: u64 = 0;
const SENT: u64 = 1;
const NEGOTIATION_OVER: u64 = 2;

/// Why a client is done with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// Everything is said, or the client went away.
    Left,
    /// It broke the protocol, or negotiated for too long.
    Fault,
}

/// Dropping it ends the connection; what its requests in flight need lives until they end.
pub(super) struct Client<Queue: BlockQueue> {
    port: Port,
    socket: Descriptor,
    connection: Connection,
    /// What it was offered.
    exports: Rc<Exports>,
    /// A handle of its own to the export's queue, once there is an export.
    queue: Option<SharedQueue<Queue>>,
    staging: Buffer,
    /// The bytes in `staging` that the connection has not taken yet.
    staged: Range<usize>,
    /// While a receive is under way: how many of its bytes belong to a payload.
    receiving: Option<usize>,
    is_sending: bool,
    /// A request that the queue had no room for.
    stalled: Option<Request>,
    // Kept for their memory.
    completions: Vec<Completion>,
    pieces: Vec<Buffer>,
    ending: Option<Ending>,
    /// Its place at the server that has accepted it, if that is another one.
    place: Option<Place>,
}

impl<Queue: BlockQueue> Client<Queue> {
    pub(super) fn new(
        reactor: &Reactor,
        socket: Descriptor,
        exports: Rc<Exports>,
        limits: Limits,
        deadline: Timestamp,
    ) -> Self {
        let port = reactor.open_port();
        port.timer(deadline, NEGOTIATION_OVER);
        let pool = reactor.pool();
        Self {
            port,
            socket,
            connection: Connection::new(Rc::clone(&exports.list), pool.clone(), limits),
            exports,
            queue: None,
            staging: pool.allocate(STAGING_LENGTH),
            staged: 0..0,
            receiving: None,
            is_sending: false,
            stalled: None,
            completions: Vec::with_capacity(limits.requests_max),
            pieces: Vec::with_capacity(PIECES_MAX),
            ending: None,
            place: None,
        }
    }

    /// The same, with its place at the server that has accepted it.
    pub(super) fn with_place(mut self, place: Option<Place>) -> Self {
        self.place = place;
        self
    }

    pub(super) fn place(&self) -> Option<&Place> {
        self.place.as_ref()
    }

    /// Takes no further requests.
    pub(super) fn close(&mut self) {
        self.connection.close();
        self.staged = 0..0;
    }

    /// The export that it has entered.
    pub(super) fn export(&self) -> Option<ExportNumber> {
        self.connection.export().map(|index| self.exports.numbers[index])
    }

    /// Why it may be dropped, once it may.
    pub(super) fn ending(&self) -> Option<Ending> {
        let is_finished = self.connection.is_finished() && !self.is_sending;
        self.ending.or(is_finished.then_some(Ending::Left))
    }

    /// Does what can be done now, and says whether it did anything. `exports` are the queues of
    /// all exports.
    pub(super) fn poll(
        &mut self,
        now: Timestamp,
        exports: &BTreeMap<ExportNumber, SharedQueue<Queue>>,
    ) -> bool {
        let mut progress = false;
        while let Some(event) = self.port.next_event() {
            self.handle(&event);
            progress = true;
        }
        // One pass and no more, so that no client keeps the others and the socket waiting: after
        // progress there is another poll.
        if self.ending.is_none() {
            progress |= self.take_staged();
            if self.queue.is_none() {
                self.enter(exports);
            }
            progress |= self.serve(now);
        }
        if self.ending.is_none() {
            progress |= self.send();
            progress |= self.receive();
        }
        progress
    }

    /// Uses the export's queue, once it has entered one that is there still.
    fn enter(&mut self, exports: &BTreeMap<ExportNumber, SharedQueue<Queue>>) {
        let Some(number) = self.export() else { return };
        match exports.get(&number) {
            Some(queue) => self.queue = Some(queue.another()),
            None => self.close(),
        }
    }

    fn handle(&mut self, event: &Event) {
        match (event.token, event.result) {
            (RECEIVED, Ok(count @ 1..)) => {
                let payload = self.receiving.take().unwrap_or(0);
                let count = count as usize;
                self.connection.payload_received(count.min(payload));
                self.staged = 0..count.saturating_sub(payload);
            }
            (SENT, Ok(count)) => {
                self.connection.outgoing().sent(count as usize);
                self.is_sending = false;
            }
            (NEGOTIATION_OVER, _) => {
                if self.connection.export().is_none() && !self.connection.is_finished() {
                    self.ending = Some(Ending::Fault);
                }
            }
            // The end of the stream, or its failure. Without a client there is nobody to answer.
            _ => self.ending = self.ending.or(Some(Ending::Left)),
        }
    }

    /// Hands received bytes on.
    fn take_staged(&mut self) -> bool {
        if self.staged.is_empty() {
            return false;
        }
        let bytes = self.staging.slice(self.staged.start, self.staged.len());
        match self.connection.receive(&bytes) {
            Ok(count) => {
                self.staged.start += count;
                count > 0
            }
            Err(_) => {
                self.ending = Some(Ending::Fault);
                false
            }
        }
    }

    /// Moves requests to the queue and completions back.
    fn serve(&mut self, now: Timestamp) -> bool {
        let Some(queue) = &mut self.queue else { return false };
        let mut moved = false;
        while let Some(request) = self.stalled.take().or_else(|| self.connection.next_request()) {
            if let Err(request) = queue.submit(request) {
                self.stalled = Some(request);
                break;
            }
            moved = true;
        }
        moved |= queue.poll(now, &mut self.completions);
        for completion in self.completions.drain(..) {
            self.connection.complete(completion);
        }
        moved
    }

    fn send(&mut self) -> bool {
        if self.is_sending || self.connection.outgoing().is_empty() {
            return false;
        }
        self.connection.outgoing().gather(PIECES_MAX, &mut self.pieces);
        self.port.send(&self.socket, &self.pieces, SENT);
        self.pieces.clear();
        self.is_sending = true;
        true
    }

    fn receive(&mut self) -> bool {
        let is_full = !self.staged.is_empty() || !self.connection.wants_bytes();
        if self.receiving.is_some() || is_full {
            return false;
        }
        let target = self.connection.payload_target();
        self.receiving = Some(target.as_ref().map_or(0, Buffer::len));
        self.pieces.extend(target);
        self.pieces.push(self.staging.clone());
        self.port.receive(&self.socket, &self.pieces, RECEIVED);
        self.pieces.clear();
        true
    }
}

impl<Queue: BlockQueue> Drop for Client<Queue> {
    /// Tells the other side at once: operations keep the socket open until the reactor has got
    /// them back. What has been sent is still delivered.
    fn drop(&mut self) {
        // It fails when the client was first, and then there is nothing to do.
        let _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both);
    }
}
