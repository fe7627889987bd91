//! Deadlines of one reactor: a binary heap that knows where each slot's timer is, so that
//! cancelling takes it out at once and the heap never holds more than the slots there are.

use crate::Timestamp;

#[derive(Clone, Copy, Debug)]
struct Entry {
    deadline: Timestamp,
    /// Order of arming, so that equal deadlines fire in that order.
    sequence: u64,
    slot: u32,
}

impl Entry {
    fn key(&self) -> (Timestamp, u64) {
        (self.deadline, self.sequence)
    }
}

/// The timers that are armed, at most one a slot.
#[derive(Debug, Default)]
pub(super) struct Timers {
    heap: Vec<Entry>,
    /// Where in the heap a slot's timer is.
    positions: Vec<u32>,
    sequence: u64,
}

const ABSENT: u32 = u32::MAX;

impl Timers {
    /// Room for timers of `slots` slots.
    pub(super) fn new(slots: usize) -> Self {
        Self { heap: Vec::new(), positions: vec![ABSENT; slots], sequence: 0 }
    }

    /// Arms the timer of a slot that has none.
    pub(super) fn arm(&mut self, slot: u32, deadline: Timestamp) {
        debug_assert_eq!(self.positions[slot as usize], ABSENT, "one timer a slot");
        self.heap.push(Entry { deadline, sequence: self.sequence, slot });
        self.sequence += 1;
        self.rise(self.heap.len() - 1);
    }

    /// Takes a slot's timer out.
    pub(super) fn disarm(&mut self, slot: u32) {
        let position = self.positions[slot as usize];
        if position != ABSENT {
            self.remove(position as usize);
        }
    }

    /// The earliest deadline.
    pub(super) fn next(&self) -> Option<Timestamp> {
        self.heap.first().map(|entry| entry.deadline)
    }

    /// Takes out the earliest timer if it is due, and returns its slot.
    pub(super) fn pop_due(&mut self, now: Timestamp) -> Option<u32> {
        let first = self.heap.first().filter(|entry| entry.deadline <= now)?;
        let slot = first.slot;
        self.remove(0);
        Some(slot)
    }

    fn remove(&mut self, position: usize) {
        let entry = self.heap.swap_remove(position);
        self.positions[entry.slot as usize] = ABSENT;
        if position < self.heap.len() {
            self.sink(position);
            self.rise(position);
        }
    }

    fn rise(&mut self, mut position: usize) {
        while position > 0 {
            let parent = (position - 1) / 2;
            if self.heap[parent].key() <= self.heap[position].key() {
                break;
            }
            self.heap.swap(parent, position);
            self.note(position);
            position = parent;
        }
        self.note(position);
    }

    fn sink(&mut self, mut position: usize) {
        loop {
            let children = [2 * position + 1, 2 * position + 2];
            let smallest = children
                .into_iter()
                .filter(|child| *child < self.heap.len())
                .min_by_key(|child| self.heap[*child].key());
            let Some(child) = smallest else { break };
            if self.heap[position].key() <= self.heap[child].key() {
                break;
            }
            self.heap.swap(child, position);
            self.note(position);
            position = child;
        }
        self.note(position);
    }

    fn note(&mut self, position: usize) {
        self.positions[self.heap[position].slot as usize] = position as u32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_timers_fire_by_deadline_then_by_order_of_arming() {
        for seed in 0..200u64 {
            let mut state = seed;
            let mut random = |limit: u64| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(seed | 1);
                (state >> 33) % limit
            };
            let mut timers = Timers::new(64);
            let mut model: Vec<(u64, u64, u32)> = Vec::new();
            for sequence in 0..400 {
                let slot = random(64) as u32;
                if model.iter().any(|(_, _, armed)| *armed == slot) {
                    timers.disarm(slot);
                    model.retain(|(_, _, armed)| *armed != slot);
                } else {
                    let deadline = random(50);
                    timers.arm(slot, Timestamp(deadline));
                    model.push((deadline, sequence, slot));
                }
                model.sort_unstable();
                let next = model.first().map(|(deadline, ..)| Timestamp(*deadline));
                assert_eq!(timers.next(), next, "seed {seed}");
                if random(4) == 0 {
                    let now = random(60);
                    while let Some((_, _, slot)) = model.first().copied().filter(|f| f.0 <= now) {
                        assert_eq!(timers.pop_due(Timestamp(now)), Some(slot), "seed {seed}");
                        model.remove(0);
                    }
                    assert_eq!(timers.pop_due(Timestamp(now)), None, "seed {seed}");
                }
            }
        }
    }
}
