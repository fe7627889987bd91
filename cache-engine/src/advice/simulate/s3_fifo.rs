//! S3-FIFO over the whole cache, as published (Yang et al., SOSP 2023): what ours is measured by.
//!
//! A tenth of the slots are the small queue, two uses there take a line to the main queue, uses
//! are counted up to three, and there are as many ghosts as main slots.

use std::collections::VecDeque;

use super::{Residency, Touch, Voids};

const USES_MAX: u8 = 3;
const PROMOTION_USES: u8 = 2;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Queue {
    None,
    Small,
    Main,
}

#[derive(Clone, Copy)]
struct Line {
    queue: Queue,
    uses: u8,
    /// When it became a ghost, counted in ghosts from 1; 0 if it is none.
    ghost: u64,
}

pub(super) struct S3Fifo {
    lines: Vec<Line>,
    small: VecDeque<u32>,
    main: VecDeque<u32>,
    small_target: usize,
    slots: usize,
    ghosts: u64,
}

impl S3Fifo {
    pub(super) fn new(lines: u32, slots: usize) -> Self {
        let line = Line { queue: Queue::None, uses: 0, ghost: 0 };
        Self {
            lines: vec![line; lines as usize],
            small: VecDeque::new(),
            main: VecDeque::new(),
            small_target: (slots / 10).max(1),
            slots,
            ghosts: 0,
        }
    }

    fn make_room(&mut self) {
        while self.small.len() + self.main.len() >= self.slots {
            let from_small = self.small.len() >= self.small_target;
            let queue = if from_small { &mut self.small } else { &mut self.main };
            let Some(number) = queue.pop_front().or_else(|| self.small.pop_front()) else { return };
            let line = &mut self.lines[number as usize];
            match line.queue {
                Queue::Small if line.uses < PROMOTION_USES => {
                    self.ghosts += 1;
                    *line = Line { queue: Queue::None, uses: 0, ghost: self.ghosts };
                    return;
                }
                Queue::Main if line.uses == 0 => {
                    line.queue = Queue::None;
                    return;
                }
                Queue::Small => line.uses = 0,
                Queue::Main | Queue::None => line.uses -= 1,
            }
            line.queue = Queue::Main;
            self.main.push_back(number);
        }
    }
}

impl Residency for S3Fifo {
    fn want(&mut self, _at: usize, touch: Touch, _voids: Voids<'_>) -> bool {
        let line = &mut self.lines[touch.line as usize];
        if line.queue != Queue::None {
            line.uses = (line.uses + 1).min(USES_MAX);
            return true;
        }
        let ghosts_max = (self.slots - self.small_target) as u64;
        let returns = line.ghost > 0 && self.ghosts - line.ghost < ghosts_max;
        self.make_room();
        let queue = if returns { Queue::Main } else { Queue::Small };
        self.lines[touch.line as usize] = Line { queue, uses: 0, ghost: 0 };
        (if returns { &mut self.main } else { &mut self.small }).push_back(touch.line);
        false
    }
}
