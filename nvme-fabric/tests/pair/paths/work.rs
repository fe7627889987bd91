//! A load whose every answer, and whose disk at the end, is compared with what they must be.

use block_io::sim::{Random, ReferenceDisk, fill_pattern};
use block_io::{Extent, Request, RequestId};

use super::rig::Rig;

/// Random requests of at most 4 KiB on few places; those in flight at a time do not overlap.
pub(super) struct Work {
    reference: ReferenceDisk,
    random: Random,
    queue: usize,
    made: u64,
    count: u64,
    in_flight: Vec<(RequestId, Extent)>,
    wrong: Option<String>,
    /// Requests that have failed.
    pub(super) failed: u64,
}

const PLACES: u64 = 12;

impl Work {
    pub(super) fn new(rig: &Rig, queue: usize, count: u64) -> Self {
        let seed = rig.world.seed();
        let reference = ReferenceDisk::new(seed, 1 << 20).with_late_writes(true);
        let random = rig.world.random("work");
        Self {
            reference,
            random,
            queue,
            made: 0,
            count,
            in_flight: Vec::new(),
            wrong: None,
            failed: 0,
        }
    }

    /// No more than there has been so far.
    pub(super) fn finish(&mut self) {
        self.count = self.made;
    }

    /// Moves it on; whether all of it is done.
    pub(super) fn step(&mut self, rig: &mut Rig) -> bool {
        let mut completions = Vec::new();
        rig.host.take_completions(self.queue, &mut completions);
        for completion in completions {
            self.failed += u64::from(completion.result.is_err());
            self.in_flight.retain(|(id, _)| *id != completion.id);
            if let Err(mismatch) = self.reference.complete(&completion) {
                self.wrong.get_or_insert(mismatch.to_string());
            }
        }
        while self.made < self.count && self.in_flight.len() < 6 {
            let extent = Extent::new(self.random.below(PLACES) * 4096, 4096);
            if self.in_flight.iter().any(|(_, other)| other.overlaps(extent)) {
                break;
            }
            self.made += 1;
            let id = RequestId(self.made);
            let buffer = rig.pool.allocate(4096);
            let request = match self.random.below(8) {
                0..=3 => Request::read(id, extent.offset, buffer),
                4 => Request::write_zeroes(id, extent),
                _ => {
                    fill_pattern(&buffer, self.made, extent.offset);
                    Request::write(id, extent.offset, buffer)
                }
            };
            self.reference.begin(&request);
            self.in_flight.push((id, extent));
            rig.host.submit(self.queue, request).expect("room");
        }
        self.made == self.count && self.in_flight.is_empty()
    }

    /// Once nothing is under way anywhere, the disk must hold what was acknowledged.
    pub(super) fn check(mut self, rig: &Rig) -> Option<String> {
        self.reference.fence();
        let content = rig.disk.content(Extent::new(0, 1 << 20));
        let end = self.reference.check_content(0, &content);
        self.wrong.or(end.err().map(|mismatch| mismatch.to_string()))
    }
}
