//! Requests at random whose every answer, and the disk at the end, is compared with what they may
//! be. Changes in flight at a time do not overlap, as a device promises no order; reads overlap
//! them.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use block_io::sim::{Random, ReferenceDisk, fill_pattern};
use block_io::{Completion, Extent, Request, RequestId, Timestamp};

use super::rig::Rig;

/// In flight at a time.
const DEPTH: usize = 8;
/// How long nothing is asked after a request has failed: else all of them would at once.
const PAUSE: Duration = Duration::from_millis(200);

pub(super) struct History {
    reference: ReferenceDisk,
    random: Random,
    queue: usize,
    made: u64,
    count: u64,
    in_flight: BTreeMap<RequestId, Request>,
    not_before: Timestamp,
    completions: Vec<Completion>,
    told: DefaultHasher,
    pub(super) failed: u64,
    pub(super) succeeded: u64,
}

impl History {
    /// What requests are about: small, so that they meet each other.
    const EXTENT: Extent = Extent { offset: 0, length: 96 << 10 };

    pub(super) fn new(rig: &Rig, queue: usize, count: u64) -> Self {
        Self {
            reference: ReferenceDisk::new(rig.world.seed(), 1 << 20).with_late_writes(true),
            random: rig.world.random("history"),
            queue,
            made: 0,
            count,
            in_flight: BTreeMap::new(),
            not_before: Timestamp(0),
            completions: Vec::new(),
            told: DefaultHasher::new(),
            failed: 0,
            succeeded: 0,
        }
    }

    /// Moves it on; whether all of it is done.
    pub(super) fn step(&mut self, rig: &mut Rig) -> bool {
        let now = rig.world.now();
        let mut completions = std::mem::take(&mut self.completions);
        rig.host.take_completions(self.queue, &mut completions);
        completions.drain(..).for_each(|completion| self.finish(&completion, now));
        self.completions = completions;
        while self.made < self.count && self.in_flight.len() < DEPTH && now >= self.not_before {
            let Some(request) = self.request(rig) else { break };
            self.submit(rig, request);
        }
        if self.made < self.count && now < self.not_before {
            rig.wake_at(self.not_before);
        }
        self.made == self.count && self.in_flight.is_empty()
    }

    /// Reads all of it once more.
    pub(super) fn read_all(&mut self, rig: &mut Rig) {
        self.count += 1;
        self.made += 1;
        let length = Self::EXTENT.length as usize;
        let read = Request::read(RequestId(self.made), 0, rig.pool.allocate(length));
        self.submit(rig, read);
    }

    /// Once nothing is under way anywhere, the disk must hold what was acknowledged.
    pub(super) fn check(&mut self, rig: &Rig) {
        self.reference.fence();
        let content = rig.disk.content(Extent::new(0, 1 << 20));
        if let Err(mismatch) = self.reference.check_content(0, &content) {
            panic!("{mismatch}");
        }
    }

    /// A number that says what was answered, and when.
    pub(super) fn digest(&self) -> u64 {
        self.told.finish()
    }

    fn submit(&mut self, rig: &mut Rig, request: Request) {
        self.reference.begin(&request);
        let kept = Request { buffer: None, ..request };
        let kept = self.in_flight.insert(kept.id, kept);
        assert!(kept.is_none(), "an identifier in use");
        rig.host.submit(self.queue, request).expect("there is room");
    }

    fn finish(&mut self, completion: &Completion, now: Timestamp) {
        let Completion { id, result, buffer } = completion;
        (id.0, now.0, format!("{result:?}")).hash(&mut self.told);
        let request = self.in_flight.remove(id);
        let request = request.unwrap_or_else(|| panic!("request {} ended twice", id.0));
        assert_eq!(
            buffer.as_ref().map(|buffer| buffer.len() as u64),
            request.operation.carries_data().then_some(request.extent.length),
            "the buffer of {:?}",
            request
        );
        match result {
            Ok(()) => self.succeeded += 1,
            Err(_) => {
                self.failed += 1;
                self.not_before = now + PAUSE;
            }
        }
        if let Err(mismatch) = self.reference.complete(completion) {
            panic!("{mismatch}");
        }
    }

    /// The next one; none while it would overlap what is in flight.
    fn request(&mut self, rig: &Rig) -> Option<Request> {
        let random = &mut self.random;
        let length = *random.choose(&[512, 512, 4096, 4096, 4096, 8192, 12_288, 20_480]);
        let places = (Self::EXTENT.length - length) / 512 + 1;
        let extent = Extent::new(random.below(places) * 512, length);
        let (kind, force_unit_access) = (random.below(20), random.chance(100));
        let changes = (8..=18).contains(&kind);
        let overlaps = |request: &Request| {
            request.operation.changes_content() && request.extent.overlaps(extent)
        };
        if changes && self.in_flight.values().any(overlaps) {
            return None;
        }
        self.made += 1;
        let id = RequestId(self.made);
        let buffer = || rig.pool.allocate(length as usize);
        Some(match kind {
            0..=7 => Request::read(id, extent.offset, buffer()),
            8..=10 => Request::write_zeroes(id, extent).with_force_unit_access(force_unit_access),
            11..=18 => {
                let buffer = buffer();
                fill_pattern(&buffer, self.made, extent.offset);
                let write = Request::write(id, extent.offset, buffer);
                write.with_force_unit_access(force_unit_access)
            }
            _ => Request::flush(id),
        })
    }
}
