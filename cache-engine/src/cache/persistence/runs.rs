//! Records read from the journal, in the order of the line table's pages, and for each page in the
//! order of the journal.
//!
//! ```text
//!   a read of the journal ──▶ run, sorted by page ─┐
//!   a read of the journal ──▶ run, sorted by page ─┼─▶ heap of the runs' first pages ─▶ next page
//!   a read of the journal ──▶ run, sorted by page ─┘
//! ```
//! Sorting a run takes a fraction of a millisecond and merging goes record by record, so that the
//! core never stands still for the whole of a journal. Compact: 20 bytes a record and 4 a checksum.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use crate::cache::blocks::{BLOCKS_MAX, BlockSet};
use crate::cache::entry::Entry;
use crate::cache::index::Slot;
use crate::cache::metadata::journal_block::Record;

#[derive(Clone, Copy)]
struct Packed {
    slot: u32,
    entry: u32,
    /// Where its checksums begin.
    checksums: u32,
    valid: u16,
    changed: u16,
}

struct Run {
    next: usize,
    end: usize,
}

/// See the module.
pub(super) struct Runs {
    slots_per_page: u32,
    records: Vec<Packed>,
    checksums: Vec<u32>,
    runs: Vec<Run>,
    heap: BinaryHeap<Reverse<(u32, u32)>>,
}

impl Runs {
    /// No records; a page of the line table has `slots_per_page` slots.
    pub(super) fn new(slots_per_page: u32) -> Self {
        Self {
            slots_per_page,
            records: Vec::new(),
            checksums: Vec::new(),
            runs: Vec::new(),
            heap: BinaryHeap::new(),
        }
    }

    /// Adds a record to the run that is being read.
    pub(super) fn add(&mut self, record: &Record) {
        self.records.push(Packed {
            slot: record.slot.0,
            entry: record.entry.0,
            checksums: self.checksums.len() as u32,
            valid: record.valid.0,
            changed: record.changed.0,
        });
        self.checksums.extend(record.changed.iter().map(|block| record.checksums[block]));
    }

    /// Where the run that is being read stands.
    pub(super) fn mark(&self) -> (usize, usize) {
        (self.records.len(), self.checksums.len())
    }

    /// Forgets what was added since.
    pub(super) fn back_to(&mut self, (records, checksums): (usize, usize)) {
        self.records.truncate(records);
        self.checksums.truncate(checksums);
    }

    /// The run that was being read is complete.
    pub(super) fn end_run(&mut self) {
        let next = self.runs.last().map_or(0, |run| run.end);
        let end = self.records.len();
        if next == end {
            return;
        }
        let slots_per_page = self.slots_per_page;
        // Stable: the journal's order is kept within a page.
        self.records[next..].sort_by_key(|record| record.slot / slots_per_page);
        self.heap.push(Reverse((self.records[next].slot / slots_per_page, self.runs.len() as u32)));
        self.runs.push(Run { next, end });
    }

    /// The next page that has records.
    pub(super) fn next_page(&self) -> Option<u32> {
        self.heap.peek().map(|Reverse((page, _))| *page)
    }

    /// Takes the next page's records out, in the order of the journal.
    pub(super) fn take_page(&mut self, page: u32, mut apply: impl FnMut(&Record)) {
        while let Some(Reverse((next_page, run))) = self.heap.peek().copied() {
            if next_page != page {
                return;
            }
            self.heap.pop();
            let range = &mut self.runs[run as usize];
            while range.next < range.end {
                let packed = &self.records[range.next];
                if packed.slot / self.slots_per_page != page {
                    let next = (packed.slot / self.slots_per_page, run);
                    self.heap.push(Reverse(next));
                    break;
                }
                apply(&packed.record(&self.checksums));
                range.next += 1;
            }
        }
    }
}

impl Packed {
    fn record(&self, checksums: &[u32]) -> Record {
        let changed = BlockSet(self.changed);
        let mut unpacked = [0; BLOCKS_MAX];
        let known = &checksums[self.checksums as usize..];
        for (block, checksum) in changed.iter().zip(known) {
            unpacked[block] = *checksum;
        }
        Record {
            slot: Slot(self.slot),
            entry: Entry(self.entry),
            valid: BlockSet(self.valid),
            changed,
            checksums: unpacked,
        }
    }
}
