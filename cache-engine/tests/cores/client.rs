//! A client that reads and writes at random and knows what each read may return.
//!
//! Each sector counts its writes, and only one is in flight at a time. A read may return no count
//! that is older than what was acknowledged or read by anybody before it began, and none that was
//! not begun when it ended: so every sector is a register that is read and written atomically.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use block_io::sim::Random;
use block_io::{BlockQueue, BufferPool, Completion, Operation, Request, RequestId, Timestamp};

pub(crate) const SECTOR: u64 = 512;

#[derive(Default)]
struct Sector {
    is_written: AtomicBool,
    begun: AtomicU64,
    /// Acknowledged, or read by somebody.
    known: AtomicU64,
}

/// What all clients know.
pub(crate) struct Ledger(Vec<Sector>);

impl Ledger {
    pub(crate) fn new(bytes: u64) -> Self {
        Self((0..bytes / SECTOR).map(|_| Sector::default()).collect())
    }

    fn sectors(&self, first: u64, count: u64) -> impl Iterator<Item = (u64, &Sector)> {
        (first..first + count).map(|number| (number, &self.0[number as usize]))
    }
}

/// A read or write in flight.
struct Operating {
    operation: Operation,
    first: u64,
    /// What is known of each sector, or written to it.
    counts: Vec<u64>,
}

pub(crate) struct Client<'a, Queue> {
    pub(crate) queue: Queue,
    ledger: &'a Ledger,
    pool: BufferPool,
    random: Random,
    in_flight: BTreeMap<u64, Operating>,
    completions: Vec<Completion>,
    next: u64,
    pub(crate) done: u64,
    /// A view of some buffers, so that they are not the only ones of their block.
    kept: Option<block_io::Buffer>,
}

impl<'a, Queue: BlockQueue> Client<'a, Queue> {
    pub(crate) fn new(queue: Queue, ledger: &'a Ledger, pool: &BufferPool, seed: u64) -> Self {
        Self {
            queue,
            ledger,
            pool: pool.clone(),
            random: Random::new(seed),
            in_flight: BTreeMap::new(),
            completions: Vec::new(),
            next: 0,
            done: 0,
            kept: None,
        }
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.in_flight.is_empty()
    }

    /// Begins requests until `depth` are in flight.
    pub(crate) fn begin(&mut self, depth: usize) {
        while self.in_flight.len() < depth {
            if !self.begin_one() {
                return;
            }
        }
    }

    fn begin_one(&mut self) -> bool {
        let sectors = self.ledger.0.len() as u64;
        // Three of four within an eighth, so that there are hits.
        let range = if self.random.below(4) == 0 { sectors } else { sectors / 8 };
        let count = [1, 1, 2, 8, 16, 40][self.random.below(6) as usize];
        let first = self.random.below(range - count.min(range - 1));
        let count = count.min(sectors - first);
        let buffer = self.pool.allocate((count * SECTOR) as usize);
        if self.random.below(8) == 0 {
            self.kept = Some(buffer.clone());
        }
        let id = RequestId(self.next);
        let is_write = self.random.below(6) == 0;
        let (request, counts) = if is_write {
            let Some(counts) = self.claim(first, count) else { return true };
            for (at, (sector, value)) in (first..).zip(&counts).enumerate() {
                let word = (sector << 32 | value).to_le_bytes();
                let whole = buffer.slice(at * SECTOR as usize, SECTOR as usize);
                whole.slice(0, 8).copy_from_slice(&word);
                whole.slice(SECTOR as usize - 8, 8).copy_from_slice(&word);
            }
            (Request::write(id, first * SECTOR, buffer), counts)
        } else {
            let known = |(_, sector): (u64, &Sector)| sector.known.load(Ordering::Acquire);
            let counts = self.ledger.sectors(first, count).map(known).collect();
            (Request::read(id, first * SECTOR, buffer), counts)
        };
        let operation = request.operation;
        self.next += 1;
        if self.queue.submit(request).is_err() {
            if is_write {
                self.unclaim(first, count);
            }
            return false;
        }
        self.in_flight.insert(id.0, Operating { operation, first, counts });
        true
    }

    /// The counts that a write brings, unless somebody is writing there already.
    fn claim(&self, first: u64, count: u64) -> Option<Vec<u64>> {
        for (number, sector) in self.ledger.sectors(first, count) {
            if sector.is_written.swap(true, Ordering::AcqRel) {
                self.unclaim(first, number - first);
                return None;
            }
        }
        let begin = |(_, sector): (u64, &Sector)| sector.begun.fetch_add(1, Ordering::AcqRel) + 1;
        Some(self.ledger.sectors(first, count).map(begin).collect())
    }

    fn unclaim(&self, first: u64, count: u64) {
        for (_, sector) in self.ledger.sectors(first, count) {
            sector.is_written.store(false, Ordering::Release);
        }
    }

    pub(crate) fn poll(&mut self, now: Timestamp) -> bool {
        let mut completions = std::mem::take(&mut self.completions);
        let progress = self.queue.poll(now, &mut completions);
        for completion in completions.drain(..) {
            self.ended(&completion);
        }
        self.completions = completions;
        progress
    }

    fn ended(&mut self, completion: &Completion) {
        completion.result.expect("the origin never fails");
        let operating = self.in_flight.remove(&completion.id.0).expect("answered once");
        let Operating { operation, first, counts } = operating;
        self.done += 1;
        let count = counts.len() as u64;
        let buffer = completion.buffer.as_ref().expect("given back");
        assert_eq!(buffer.len() as u64, count * SECTOR);
        let bytes = buffer.to_vec();
        let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight"));
        for (at, (number, sector)) in self.ledger.sectors(first, count).enumerate() {
            let start = at * SECTOR as usize;
            let (head, tail) = (word(start), word(start + SECTOR as usize - 8));
            assert_eq!(head, tail, "sector {number} is torn");
            let (whose, value) = (head >> 32, head & 0xFFFF_FFFF);
            assert!(whose == number || head == 0, "{head:#x} is not of sector {number}");
            let begun = sector.begun.load(Ordering::Acquire);
            assert!(
                (counts[at]..=begun).contains(&value),
                "{operation:?} of sector {number}: {value} is not of {}..={begun}",
                counts[at]
            );
            sector.known.fetch_max(value, Ordering::AcqRel);
        }
        if operation == Operation::Write {
            self.unclaim(first, count);
        }
    }
}
