//! A device of words that several threads read and write, each by a queue of its own whose
//! requests stay in flight for a random number of polls before they are carried out and after.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use block_io::sim::Random;
use block_io::{BlockQueue, Completion, Geometry, IoError, Operation, Request, Timestamp};

/// No request of the owner takes more polls than this.
pub(crate) const POLLS_MAX: u32 = 24;

/// How slow the owner's queues are.
pub(crate) const OWNERS: u64 = POLLS_MAX as u64 / 2;

#[derive(Clone)]
pub(crate) struct Medium(Arc<[AtomicU64]>);

impl Medium {
    pub(crate) fn new(bytes: u64) -> Self {
        Self((0..bytes / 8).map(|_| AtomicU64::new(0)).collect())
    }

    /// A queue. One of its requests in eight takes up to `slow` polls, twice.
    pub(crate) fn queue(&self, seed: u64, failures: u64, slow: u64) -> SlowQueue {
        let (in_flight, is_stuck) = (Rc::new(Cell::new(0)), Rc::new(Cell::new(false)));
        let random = Random::new(seed);
        SlowQueue {
            medium: self.clone(),
            waiting: Vec::new(),
            random,
            failures,
            slow,
            in_flight,
            is_stuck,
        }
    }

    /// Writes garbage everywhere, and gives what was there.
    pub(crate) fn scribble(&self) -> Vec<u64> {
        self.0.iter().map(|word| word.swap(u64::MAX, Ordering::Relaxed)).collect()
    }

    pub(crate) fn restore(&self, words: &[u64]) {
        self.0.iter().zip(words).for_each(|(word, value)| word.store(*value, Ordering::Relaxed));
    }

    /// The words that an extent of bytes covers.
    fn carry_out(&self, request: &Request) {
        let words = &self.0[request.extent.offset as usize / 8..request.extent.end() as usize / 8];
        let buffer = request.buffer.as_ref();
        match request.operation {
            Operation::Read => {
                let bytes: Vec<u8> = words
                    .iter()
                    .flat_map(|word| word.load(Ordering::Relaxed).to_le_bytes())
                    .collect();
                buffer.expect("a read has one").copy_from_slice(&bytes);
            }
            Operation::Write => {
                let bytes = buffer.expect("a write has one").to_vec();
                for (word, value) in words.iter().zip(bytes.chunks_exact(8)) {
                    let value = u64::from_le_bytes(value.try_into().expect("eight"));
                    word.store(value, Ordering::Relaxed);
                }
            }
            Operation::Flush => {}
            other => unreachable!("{other:?} is not asked for"),
        }
    }
}

struct Waiting {
    polls_before: u32,
    polls_after: u32,
    request: Request,
}

pub(crate) struct SlowQueue {
    medium: Medium,
    waiting: Vec<Waiting>,
    random: Random,
    /// One read of so many fails; none if zero.
    failures: u64,
    slow: u64,
    pub(crate) in_flight: Rc<Cell<usize>>,
    /// While set, nothing is carried out or answered.
    pub(crate) is_stuck: Rc<Cell<bool>>,
}

impl BlockQueue for SlowQueue {
    fn geometry(&self) -> Geometry {
        Geometry::new(self.medium.0.len() as u64 * 8)
    }

    fn submit(&mut self, request: Request) -> Result<(), Request> {
        if self.waiting.len() == 64 {
            return Err(request);
        }
        let is_slow = self.random.below(8) == 0;
        let polls_max = if is_slow { self.slow } else { u64::from(POLLS_MAX) / 2 };
        let mut polls = || self.random.below(polls_max) as u32;
        let (polls_before, polls_after) = (1 + polls(), polls());
        self.waiting.push(Waiting { polls_before, polls_after, request });
        self.in_flight.set(self.waiting.len());
        Ok(())
    }

    fn poll(&mut self, _: Timestamp, completions: &mut Vec<Completion>) -> bool {
        let progress = !self.waiting.is_empty() && !self.is_stuck.get();
        if !progress {
            return false;
        }
        for mut waiting in std::mem::take(&mut self.waiting) {
            match (waiting.polls_before, waiting.polls_after) {
                (0, 0) => {
                    let is_read = waiting.request.operation == Operation::Read;
                    let fails =
                        is_read && self.failures > 0 && self.random.below(self.failures) == 0;
                    let result = if fails { Err(IoError::Media) } else { Ok(()) };
                    completions.push(waiting.request.complete(result));
                    continue;
                }
                (0, after) => waiting.polls_after = after - 1,
                (before, _) => {
                    waiting.polls_before = before - 1;
                    if before == 1 {
                        self.medium.carry_out(&waiting.request);
                    }
                }
            }
            self.waiting.push(waiting);
        }
        self.in_flight.set(self.waiting.len());
        progress
    }

    fn in_flight(&self) -> usize {
        self.waiting.len()
    }
}
