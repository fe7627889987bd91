//! Least recently used, exactly: a list through tables by line.

use super::{Residency, Touch, Voids};

const NONE: u32 = u32::MAX;

#[derive(Clone, Copy)]
struct Links {
    newer: u32,
    older: u32,
    is_held: bool,
}

pub(super) struct Lru {
    lines: Vec<Links>,
    newest: u32,
    oldest: u32,
    held: usize,
    slots: usize,
}

impl Lru {
    pub(super) fn new(lines: u32, slots: usize) -> Self {
        let links = Links { newer: NONE, older: NONE, is_held: false };
        let lines = vec![links; lines as usize];
        Self { lines, newest: NONE, oldest: NONE, held: 0, slots }
    }

    fn take_out(&mut self, line: u32) {
        let Links { newer, older, .. } = self.lines[line as usize];
        match newer {
            NONE => self.newest = older,
            newer => self.lines[newer as usize].older = older,
        }
        match older {
            NONE => self.oldest = newer,
            older => self.lines[older as usize].newer = newer,
        }
        self.lines[line as usize].is_held = false;
        self.held -= 1;
    }

    fn put_newest(&mut self, line: u32) {
        let older = self.newest;
        self.lines[line as usize] = Links { newer: NONE, older, is_held: true };
        match older {
            NONE => self.oldest = line,
            older => self.lines[older as usize].newer = line,
        }
        self.newest = line;
        self.held += 1;
    }
}

impl Residency for Lru {
    fn want(&mut self, _at: usize, touch: Touch, _voids: Voids<'_>) -> bool {
        let is_held = self.lines[touch.line as usize].is_held;
        if is_held {
            self.take_out(touch.line);
        } else if self.held == self.slots {
            self.take_out(self.oldest);
        }
        self.put_newest(touch.line);
        is_held
    }
}
