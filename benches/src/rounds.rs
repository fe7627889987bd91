//! Requests in flight and their answers, round after round: what drives a cache in a benchmark.
//!
//! ```text
//!   places ──▶ Machine::submit ──▶ outbox ──▶ answered at once ──▶ Machine::complete ──▶ replies
//!                                   └─ records ──▶ MetadataMemory
//!              Machine::tick, once a round
//! ```
//! A [`Machine`] is the cache, or a [`Passage`] that does nothing, with which the driving itself is
//! measured. Absent: what is asked for, and of which cache.

use std::hint::black_box;
use std::time::Duration;

use block_io::{Buffer, Completion, Extent, Operation, Request, RequestId, Timestamp};
use cache_engine::cache::{Cache, Outbox, VolumeId};

use crate::metadata::MetadataMemory;

pub(crate) const VOLUME: VolumeId = VolumeId(0);

/// What a request takes on the cache's clock.
const REQUEST_TIME: Duration = Duration::from_micros(10);

/// What requests go through.
pub(crate) trait Machine {
    fn prefetch(&self, extent: Extent);
    fn submit(&mut self, now: Timestamp, request: Request);
    fn complete(&mut self, now: Timestamp, completion: Completion);
    fn tick(&mut self, now: Timestamp);
    fn outbox(&mut self) -> &mut Outbox;
}

impl Machine for Cache {
    fn prefetch(&self, extent: Extent) {
        self.prefetch(VOLUME, extent);
    }

    fn submit(&mut self, now: Timestamp, request: Request) {
        self.submit(now, VOLUME, request).expect("fewer in flight than there may be");
    }

    fn complete(&mut self, now: Timestamp, completion: Completion) {
        self.complete(now, completion);
    }

    fn tick(&mut self, now: Timestamp) {
        self.tick(now);
    }

    fn outbox(&mut self) -> &mut Outbox {
        self.outbox()
    }
}

/// Hands every request to the cache device as it is, and its completion to the client.
#[derive(Default)]
pub(crate) struct Passage(Outbox);

impl Machine for Passage {
    fn prefetch(&self, _: Extent) {}

    fn submit(&mut self, _: Timestamp, mut request: Request) {
        // Behind all records, as data is.
        request.extent.offset |= 1 << 50;
        self.0.cache.push(request);
    }

    fn complete(&mut self, _: Timestamp, completion: Completion) {
        self.0.replies.push((VOLUME, completion));
    }

    fn tick(&mut self, _: Timestamp) {}

    fn outbox(&mut self) -> &mut Outbox {
        &mut self.0
    }
}

/// The driver.
pub(crate) struct Rounds {
    pub(crate) now: Timestamp,
    pub(crate) metadata: MetadataMemory,
    operation: Operation,
    buffers: Vec<Buffer>,
    batch: Vec<Request>,
    pub(crate) replies: Vec<Completion>,
}

impl Rounds {
    /// As many requests of `operation` at a time as there are buffers.
    pub(crate) fn new(
        operation: Operation,
        buffers: Vec<Buffer>,
        metadata: MetadataMemory,
    ) -> Self {
        let depth = buffers.len();
        let (batch, replies) = (Vec::with_capacity(depth), Vec::with_capacity(depth));
        Self { now: Timestamp(1), metadata, operation, buffers, batch, replies }
    }

    /// So many requests, from the next places on. Several in flight are looked up together, as a
    /// volume does.
    pub(crate) fn pass(
        &mut self,
        machine: &mut impl Machine,
        places: &mut impl Iterator<Item = u64>,
        requests: u64,
    ) {
        let depth = self.buffers.len() as u64;
        let mut left = requests;
        while left > 0 {
            let batch = left.min(depth);
            left -= batch;
            for offset in places.take(batch as usize) {
                let request = self.next_request(offset);
                if depth == 1 {
                    machine.submit(self.now, request);
                } else {
                    machine.prefetch(request.extent);
                    self.batch.push(request);
                }
            }
            for request in self.batch.drain(..) {
                machine.submit(self.now, request);
            }
            self.turn(machine, batch);
            for reply in self.replies.drain(..) {
                self.buffers.push(black_box(reply).buffer.expect("given back"));
            }
        }
    }

    fn next_request(&mut self, offset: u64) -> Request {
        let buffer = self.buffers.pop().expect("as many as there are in flight");
        let id = RequestId(offset);
        match self.operation {
            Operation::Write => Request::write(id, offset, buffer),
            _ => Request::read(id, offset, buffer),
        }
    }

    /// Answers what the devices are asked until all is answered, and lets the time of so many
    /// requests pass.
    pub(crate) fn turn(&mut self, machine: &mut impl Machine, requests: u64) {
        self.serve(machine);
        self.now = self.now + REQUEST_TIME * requests as u32;
        machine.tick(self.now);
        self.serve(machine);
    }

    fn serve(&mut self, machine: &mut impl Machine) {
        loop {
            // The device's part: the last request first, which costs it the least.
            let outbox = machine.outbox();
            while let Some((_, reply)) = outbox.replies.pop() {
                self.replies.push(reply);
            }
            let request = outbox.cache.pop();
            if let Some(request) = &request {
                self.metadata.serve(request);
            }
            let Some(request) = request.or_else(|| Some(outbox.origin.pop()?.1)) else { return };
            machine.complete(self.now, request.complete(Ok(())));
        }
    }
}
