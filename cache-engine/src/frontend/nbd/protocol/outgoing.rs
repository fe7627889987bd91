//! Bytes on their way to the client: small headers packed side by side, payloads as they are.
//!
//! Bound: by the connection, which takes no further requests while too much waits here.

use std::collections::VecDeque;

use block_io::{Buffer, BufferPool};

/// Bytes of one block of headers: 256 simple replies.
const STAGING_LENGTH: usize = 4096;

/// What is to be sent, in order, as pieces to gather.
#[derive(Debug)]
pub struct Outgoing {
    pool: BufferPool,
    pieces: VecDeque<Buffer>,
    bytes: u64,
    staging: Buffer,
    staged: usize,
    /// Whether the last piece ends where the next header would be staged, so that it can grow.
    tail_is_staged: bool,
}

impl Outgoing {
    pub(super) fn new(pool: BufferPool) -> Self {
        let staging = pool.allocate(STAGING_LENGTH);
        let pieces = VecDeque::with_capacity(256);
        Self { pool, pieces, bytes: 0, staging, staged: 0, tail_is_staged: false }
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Bytes that wait.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Pieces that wait.
    pub fn pieces(&self) -> usize {
        self.pieces.len()
    }

    /// Appends views of the first `pieces_max` pieces to `into`, without taking them.
    pub fn gather(&self, pieces_max: usize, into: &mut Vec<Buffer>) {
        into.extend(self.pieces.iter().take(pieces_max).cloned());
    }

    /// The first `count` bytes are sent.
    pub fn sent(&mut self, count: usize) {
        let mut rest = count;
        self.bytes -= count as u64;
        while rest > 0 {
            let front = self.pieces.front_mut().expect("no more is sent than there was");
            if rest < front.len() {
                *front = front.slice(rest, front.len() - rest);
                return;
            }
            rest -= front.len();
            self.pieces.pop_front();
        }
    }

    /// Appends a copy of `bytes`.
    pub(super) fn push_bytes(&mut self, mut bytes: &[u8]) {
        if self.pieces.is_empty() && self.staging.is_unique() {
            (self.staged, self.tail_is_staged) = (0, false);
        }
        while !bytes.is_empty() {
            if self.staged == STAGING_LENGTH {
                self.staging = self.pool.allocate(STAGING_LENGTH);
                (self.staged, self.tail_is_staged) = (0, false);
            }
            let (now, later) = bytes.split_at(bytes.len().min(STAGING_LENGTH - self.staged));
            self.staging.slice(self.staged, now.len()).copy_from_slice(now);
            self.extend_tail(now.len());
            bytes = later;
        }
    }

    /// Appends a payload without copying it.
    pub(super) fn push_buffer(&mut self, buffer: Buffer) {
        self.bytes += buffer.len() as u64;
        self.pieces.push_back(buffer);
        self.tail_is_staged = false;
    }

    /// Makes `count` staged bytes part of the last piece, or a piece.
    fn extend_tail(&mut self, count: usize) {
        let before = match self.pieces.pop_back_if(|_| self.tail_is_staged) {
            Some(tail) => tail.len(),
            None => 0,
        };
        self.pieces.push_back(self.staging.slice(self.staged - before, before + count));
        self.staged += count;
        self.bytes += count as u64;
        self.tail_is_staged = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiting(outgoing: &Outgoing) -> Vec<u8> {
        let mut pieces = Vec::new();
        outgoing.gather(usize::MAX, &mut pieces);
        let bytes: Vec<u8> = pieces.iter().flat_map(Buffer::to_vec).collect();
        assert_eq!(bytes.len() as u64, outgoing.bytes());
        bytes
    }

    #[test]
    fn headers_are_packed_and_payloads_keep_their_place() {
        let pool = BufferPool::heap();
        let mut outgoing = Outgoing::new(pool.clone());
        outgoing.push_bytes(b"one");
        outgoing.push_bytes(b"two");
        let payload = pool.allocate(4);
        payload.copy_from_slice(b"DATA");
        outgoing.push_buffer(payload);
        outgoing.push_bytes(b"three");
        assert_eq!(outgoing.pieces.len(), 3);
        assert_eq!(waiting(&outgoing), b"onetwoDATAthree");
        outgoing.sent(4);
        outgoing.push_bytes(b"!");
        assert_eq!(waiting(&outgoing), b"woDATAthree!");
        outgoing.sent(12);
        assert!(outgoing.is_empty());
    }

    /// A piece in flight is neither moved nor overwritten, wherever the sends are cut.
    #[test]
    fn any_cut_sends_the_same_bytes() {
        for step in 1..40 {
            let mut outgoing = Outgoing::new(BufferPool::heap());
            let (mut expected, mut sent) = (Vec::new(), Vec::new());
            for round in 0..2000_u32 {
                let bytes = round.to_be_bytes().repeat(1 + round as usize % 3);
                outgoing.push_bytes(&bytes);
                expected.extend(bytes);
                if round % 3 == 0 {
                    let mut pieces = Vec::new();
                    outgoing.gather(64, &mut pieces);
                    outgoing.push_bytes(b"meanwhile");
                    expected.extend(b"meanwhile");
                    let flat: Vec<u8> = pieces.iter().flat_map(Buffer::to_vec).collect();
                    let count = step.min(flat.len());
                    sent.extend(&flat[..count]);
                    outgoing.sent(count);
                }
            }
            sent.extend(waiting(&outgoing));
            assert!(sent == expected, "step {step}");
        }
    }
}
