//! Belady's MIN: knows the future, and is what every policy is short of.
//!
//! The line whose next use is farthest away goes, the new one included: one that is wanted later
//! than all that are held is not held at all.

use std::collections::BinaryHeap;

use super::{Residency, Touch, Voids};
use crate::advice::touches::Touches;

/// Never wanted again.
const NEVER: u32 = u32::MAX;

pub(super) struct Belady {
    /// By touch: the number of the next touch of the same line.
    next: Vec<u32>,
    is_held: Vec<bool>,
    held: usize,
    slots: usize,
    /// Next use and line of all that is held. What is past is out of date and never on top while
    /// anything that is held lies ahead.
    heap: BinaryHeap<(u32, u32)>,
}

impl Belady {
    /// `is_wanted` tells which touches are wanted of the cache at all.
    pub(super) fn new(touches: &Touches, slots: usize, is_wanted: impl Fn(Touch) -> bool) -> Self {
        let mut next = vec![NEVER; touches.list.len()];
        let mut upcoming = vec![NEVER; touches.lines as usize];
        for (at, touch) in touches.list.iter().enumerate().rev() {
            if is_wanted(*touch) {
                next[at] = upcoming[touch.line as usize];
                upcoming[touch.line as usize] = at as u32;
            }
        }
        let is_held = vec![false; touches.lines as usize];
        Self { next, is_held, held: 0, slots, heap: BinaryHeap::new() }
    }

    /// Drops what is out of date, so that the heap stays within a few times the cache.
    fn tidy(&mut self, now: u32) {
        if self.heap.len() > 4 * self.slots + 1024 {
            self.heap.retain(|(next, _)| *next > now);
        }
    }
}

impl Residency for Belady {
    fn want(&mut self, at: usize, touch: Touch, _voids: Voids<'_>) -> bool {
        let was_held = self.is_held[touch.line as usize];
        self.tidy(at as u32);
        self.heap.push((self.next[at], touch.line));
        if was_held {
            return true;
        }
        self.is_held[touch.line as usize] = true;
        self.held += 1;
        if self.held > self.slots {
            let (_, gone) = self.heap.pop().expect("everything held is in it");
            self.is_held[gone as usize] = false;
            self.held -= 1;
        }
        false
    }
}
