//! The inside of a connection: two pipes, and what cuts them.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use super::NetworkFaults;
use crate::Timestamp;
use crate::sim::Random;

/// Both directions; the pipe `side` carries what that end sends.
pub(super) struct Connection {
    pub(super) pipes: [Pipe; 2],
    pub(super) is_cut: bool,
    silent: bool,
    faults: NetworkFaults,
    random: Random,
}

/// One direction. At most a window of bytes is in it.
#[derive(Default)]
pub(super) struct Pipe {
    /// Bytes accepted from the sender, ever.
    pub(super) sent: u64,
    /// Bytes read by the receiver, ever.
    pub(super) received: u64,
    /// Bytes that reached the receiving end, ever.
    arrived_total: u64,
    /// What has arrived and was not read; no chunk is empty.
    arrived: VecDeque<Vec<u8>>,
    /// Bytes of the first of them that were read.
    read: usize,
    /// Never before this: order is kept.
    last_arrival: Timestamp,
    /// The sender has ended it.
    pub(super) finished: bool,
    /// The receiver may know that.
    end_arrived: bool,
    /// The receiving end was dropped.
    pub(super) reader_gone: bool,
    /// Chunks end here.
    pub(super) boundaries: BTreeSet<u64>,
    cut_at: Option<u64>,
}

/// Something on its way.
pub(super) enum Arrival {
    Bytes(Vec<u8>),
    End,
}

/// What the receiving end of a pipe can do now.
pub(super) enum Readable {
    Bytes(usize),
    Nothing,
    End,
}

impl Pipe {
    pub(super) fn read(&mut self, into: &mut [u8]) -> Readable {
        let Some(chunk) = self.arrived.front() else {
            return if self.end_arrived { Readable::End } else { Readable::Nothing };
        };
        let rest = &chunk[self.read..];
        let count = rest.len().min(into.len());
        into[..count].copy_from_slice(&rest[..count]);
        self.read += count;
        if self.read == chunk.len() {
            self.arrived.pop_front();
            self.read = 0;
        }
        self.received += count as u64;
        Readable::Bytes(count)
    }
}

impl Pipe {
    /// Whether a read would bring bytes, or the end.
    pub(super) fn is_readable(&self) -> bool {
        !self.arrived.is_empty() || self.end_arrived
    }
}

impl Connection {
    pub(super) fn new(faults: NetworkFaults, random: Random) -> Self {
        let pipes = [Pipe::default(), Pipe::default()];
        Self { pipes, is_cut: false, silent: false, faults, random }
    }

    pub(super) fn delay(&mut self) -> Duration {
        self.random.duration(self.faults.delay_min, self.faults.delay_max)
    }

    /// Accepts what there is room for, and says what arrives when.
    pub(super) fn send(
        &mut self,
        side: usize,
        bytes: &[u8],
        now: Timestamp,
    ) -> (usize, Vec<(Timestamp, Arrival)>) {
        let in_pipe = self.pipes[side].sent - self.pipes[side].received;
        let room = self.faults.window.saturating_sub(in_pipe as usize);
        let mut accepted = room.min(bytes.len());
        if accepted > 1 && self.random.chance(self.faults.short_send) {
            accepted = self.random.range(1..=accepted as u64) as usize;
        }
        let mut arrivals = Vec::new();
        let mut rest = &bytes[..accepted];
        while !rest.is_empty() {
            let length = self.chunk_length(side, rest.len());
            let (chunk, behind) = rest.split_at(length);
            rest = behind;
            self.pipes[side].sent += length as u64;
            let arrival = Arrival::Bytes(chunk.to_vec());
            arrivals.push((self.arrival_time(side, now), arrival));
        }
        (accepted, arrivals)
    }

    /// How many of the next `available` bytes travel together.
    fn chunk_length(&mut self, side: usize, available: usize) -> usize {
        let mut length = available;
        if self.faults.chunk_max > 0 {
            length = length.min(self.random.range(1..=self.faults.chunk_max as u64) as usize);
        }
        let pipe = &self.pipes[side];
        if let Some(end) = pipe.boundaries.range(pipe.sent + 1..).next() {
            length = length.min(usize::try_from(end - pipe.sent).unwrap_or(usize::MAX));
        }
        length
    }

    fn arrival_time(&mut self, side: usize, now: Timestamp) -> Timestamp {
        let time = now + self.delay();
        let pipe = &mut self.pipes[side];
        pipe.last_arrival = pipe.last_arrival.max(time);
        pipe.last_arrival
    }

    /// The end `side` sends no more. Says when the other end hears of it.
    pub(super) fn finish(&mut self, side: usize, now: Timestamp) -> Option<Timestamp> {
        let first = !std::mem::replace(&mut self.pipes[side].finished, true);
        (first && !self.is_cut).then(|| self.arrival_time(side, now))
    }

    pub(super) fn arrive(&mut self, side: usize, arrival: Arrival) {
        if self.is_cut || self.silent {
            return;
        }
        let pipe = &mut self.pipes[side];
        match arrival {
            Arrival::End => pipe.end_arrived = true,
            // As TCP does: bytes for an end that is gone are answered with a reset.
            Arrival::Bytes(_) if pipe.reader_gone => self.cut(),
            Arrival::Bytes(mut bytes) => {
                let left = pipe.cut_at.map_or(u64::MAX, |at| at - pipe.arrived_total);
                bytes.truncate(usize::try_from(left).unwrap_or(usize::MAX));
                pipe.arrived_total += bytes.len() as u64;
                pipe.arrived.push_back(bytes);
                if pipe.cut_at == Some(pipe.arrived_total) {
                    self.cut();
                }
            }
        }
    }

    /// Ends the connection for both ends at once. What has arrived can be read; what is on the way
    /// is lost.
    pub(super) fn cut(&mut self) {
        self.is_cut = true;
    }

    pub(super) fn silence(&mut self) {
        self.silent = true;
    }

    /// Cuts when exactly `bytes` have arrived from the end `side`; at once if they have.
    pub(super) fn cut_after(&mut self, side: usize, bytes: u64) {
        let pipe = &mut self.pipes[side];
        pipe.cut_at = Some(bytes);
        if pipe.arrived_total >= bytes {
            self.cut();
        }
    }
}
