//! A host against scripted controllers, in memory and virtual time. Each queue has a script of its
//! own; those of I/O queues say that all is well.

use std::time::Duration;

use block_io::{BufferPool, Timestamp};
use nvme_fabric::host::HostOptions;
use nvme_fabric::pdu::Endpoint;

use crate::harness::{Machine, options};
use crate::scripted::{Peer, Say};

/// A host's machine and a scripted controller's queues.
pub(crate) struct Pair<Host> {
    pub(crate) host: Host,
    pub(crate) peer: Peer,
    pub(crate) now: Timestamp,
    /// By queue; the admin queue is `peer`.
    is_connected: Vec<bool>,
    io_peers: Vec<Peer>,
}

impl<Host: Machine> Pair<Host> {
    pub(crate) fn new(
        peer: Peer,
        make: impl FnOnce(&BufferPool, HostOptions, Timestamp) -> Host,
    ) -> Self {
        let now = Timestamp(0);
        let host = make(&BufferPool::heap(), options(), now);
        Self { host, peer, now, is_connected: Vec::new(), io_peers: Vec::new() }
    }

    /// One round of both; whether anything happened.
    fn round(&mut self) -> bool {
        let mut progress = self.host.tick(self.now);
        while let Some(queue) = self.host.controller().next_stream_wanted() {
            self.host.controller().stream_established(queue);
            self.is_connected.push(true);
            if queue > 0 {
                self.io_peers.push(Peer::new(|_| Some(Say::Done(0))));
            }
            progress = true;
        }
        for queue in 0..self.is_connected.len() {
            progress |= self.is_connected[queue] && self.exchange(queue);
        }
        progress
    }

    /// Moves the bytes of one queue; whether there were any.
    fn exchange(&mut self, queue: usize) -> bool {
        let controller = self.host.controller();
        let Some(connection) = controller.connection(queue as u16) else {
            return false;
        };
        let peer = match queue.checked_sub(1) {
            None => &mut self.peer,
            Some(place) => &mut self.io_peers[place],
        };
        let (mut progress, mut pieces) = (false, Vec::new());
        connection.transmit_from(&mut pieces, 8);
        let bytes: Vec<u8> = pieces.drain(..).flat_map(|piece| piece.to_vec()).collect();
        if !bytes.is_empty() {
            connection.transmitted(bytes.len());
            peer.feed(&bytes);
            progress = true;
        }
        connection.receive_into(&mut pieces);
        let mut total = 0;
        for piece in pieces {
            let count = piece.len().min(peer.outbox.len());
            if count == 0 {
                break;
            }
            let bytes: Vec<u8> = peer.outbox.drain(..count).collect();
            piece.slice(0, count).copy_from_slice(&bytes);
            total += count;
        }
        if total > 0 {
            connection.received(total);
            progress = true;
        }
        if connection.wants_close() {
            controller.stream_closed(queue as u16);
            (self.is_connected[queue], progress) = (false, true);
        }
        progress
    }

    /// Until nothing happens without time passing.
    pub(crate) fn settle(&mut self) {
        let mut rounds = 0;
        while self.round() {
            rounds += 1;
            assert!(rounds < 10_000, "it does not come to rest");
        }
    }

    /// Until that time, deadline after deadline.
    pub(crate) fn run_for(&mut self, duration: Duration) {
        let end = self.now + duration;
        self.settle();
        while let Some(next) = self.host.next_deadline().filter(|next| *next <= end) {
            self.now = self.now.max(next);
            self.settle();
        }
        self.now = end;
        self.settle();
    }
}
