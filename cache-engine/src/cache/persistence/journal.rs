//! The journal ring: what stands in it, and how it is written and read.
//!
//! ```text
//!   tail ─────── folded next ───────┬──────────── recorded ──────────┬─ being written ─┐
//!   (in the superblock)             half of the ring                 written          head
//! ```
//! Sequence numbers only grow; a block's place is its number modulo the ring. One write is in
//! flight at a time, of up to 64 blocks that lie together, so what is written has no holes unless
//! power fails in between. A block's place is free when the superblock's tail has passed it.
//!
//! Absent: which records go in (the owner chooses), and applying them (fold and sweep).

use std::collections::VecDeque;

use block_io::{Buffer, BufferPool};

use super::device::{Device, Purpose};
use super::part::Part;
use crate::cache::metadata::journal_block::{self, Record, Writer};
use crate::cache::metadata::layout::Layout;
use crate::cache::metadata::{FormatId, PAGE_SIZE};

/// Blocks in a write at the most.
const BLOCKS_AT_ONCE: u64 = 64;

/// Reads on their way at the most, and blocks of each: half a mebibyte. What one read brings is
/// taken at once, so it is not much.
const READS_MAX: usize = 8;
const READ_BLOCKS_MAX: u64 = 16;

/// The ring while the cache runs.
pub(super) struct Journal {
    layout: Layout,
    format_id: FormatId,
    run: u64,
    at_once: u64,
    /// The oldest block that is not in the line table, as the device's superblock says.
    tail: u64,
    /// The first block of this run.
    start: u64,
    /// Everything before is on the device, and everything before `durable` for good.
    written: u64,
    durable: u64,
    /// What `written` was when the flush in flight began.
    flushing: u64,
    /// The next block's number.
    head: u64,
    blocks: Vec<[u8; PAGE_SIZE]>,
    block: Option<Writer>,
    pub(super) blocks_written: u64,
}

impl Journal {
    pub(super) fn new(layout: Layout, format_id: FormatId, run: u64, transfer_max: u32) -> Self {
        let at_once = u64::from(transfer_max) / PAGE_SIZE as u64;
        Self {
            layout,
            format_id,
            run,
            at_once: at_once.clamp(1, BLOCKS_AT_ONCE),
            tail: 0,
            start: 0,
            written: 0,
            durable: 0,
            flushing: 0,
            head: 0,
            blocks: Vec::new(),
            block: None,
            blocks_written: 0,
        }
    }

    /// Goes on behind what was replayed.
    pub(super) fn go_on(&mut self, tail: u64, head: u64) {
        (self.tail, self.start) = (tail, head);
        (self.written, self.durable, self.flushing, self.head) = (head, head, head, head);
    }

    /// The first block of this run.
    pub(super) fn start(&self) -> u64 {
        self.start
    }

    /// One past the last block, those included that are being put together.
    pub(super) fn next(&self) -> u64 {
        let unfinished = self.block.as_ref().is_some_and(|block| !block.is_empty());
        self.head + self.blocks.len() as u64 + u64::from(unfinished)
    }

    /// Whether every block before this one is on the device.
    pub(super) fn is_written(&self, block: u64) -> bool {
        self.written >= block
    }

    pub(super) fn tail(&self) -> u64 {
        self.tail
    }

    pub(super) fn durable(&self) -> u64 {
        self.durable
    }

    pub(super) fn is_writing(&self) -> bool {
        self.written < self.head
    }

    /// Whether a block more has a place.
    pub(super) fn has_room(&self) -> bool {
        self.head - self.tail < u64::from(self.layout.journal_blocks)
    }

    /// The end of the oldest half of the ring, when all of it is written.
    pub(super) fn foldable(&self) -> Option<u64> {
        let end = self.tail + u64::from(self.layout.journal_blocks / 2);
        (self.written >= end).then_some(end)
    }

    /// The superblock's tail has moved.
    pub(super) fn folded(&mut self, tail: u64) {
        self.tail = tail;
    }

    /// A flush begins, or has ended well.
    pub(super) fn flush_begins(&mut self) {
        self.flushing = self.written;
    }

    pub(super) fn flushed(&mut self) {
        self.durable = self.durable.max(self.flushing);
    }

    /// Adds a record to the write that is being put together; false when it has no room. Nothing
    /// is being written.
    pub(super) fn push(&mut self, record: &Record) -> bool {
        loop {
            if let Some(block) = &mut self.block
                && block.push(record)
            {
                return true;
            }
            let full = self.block.take();
            self.finish(full);
            let count = self.blocks.len() as u64;
            let number = self.head + count;
            let ring = u64::from(self.layout.journal_blocks);
            let wraps = count > 0 && number.is_multiple_of(ring);
            if count == self.at_once || wraps || number - self.tail >= ring {
                return false;
            }
            self.block = Some(Writer::new());
        }
    }

    fn finish(&mut self, block: Option<Writer>) {
        if let Some(block) = block.filter(|block| !block.is_empty()) {
            let number = self.head + self.blocks.len() as u64;
            self.blocks.push(block.finish(self.format_id, number, self.run));
        }
    }

    /// Sends what was put together.
    pub(super) fn write(&mut self, device: &mut Device, pool: &BufferPool) {
        let last = self.block.take();
        self.finish(last);
        if self.blocks.is_empty() {
            return;
        }
        let buffer = pool.allocate(self.blocks.len() * PAGE_SIZE);
        for (index, block) in self.blocks.iter().enumerate() {
            buffer.slice(index * PAGE_SIZE, PAGE_SIZE).copy_from_slice(block);
        }
        let offset = self.layout.journal_block_offset(self.head);
        device.write(Purpose::JournalWrite, offset, buffer, false);
        self.head += self.blocks.len() as u64;
        self.blocks_written += self.blocks.len() as u64;
        self.blocks.clear();
    }

    /// The write is over, and well.
    pub(super) fn write_done(&mut self) {
        self.written = self.head;
    }
}

/// A read of the journal on its way, or waiting for one before it.
struct Ahead {
    first: u64,
    blocks: u64,
    buffer: Option<Buffer>,
}

/// Reads a range of the ring, a few reads at a time, and hands its records to a part.
pub(super) struct Reader {
    layout: Layout,
    format_id: FormatId,
    at_once: u64,
    start: u64,
    end: u64,
    /// The first block that has not been taken, and the first that has not been asked for.
    next: u64,
    asked: u64,
    ahead: VecDeque<Ahead>,
    run: u64,
    stopped: bool,
}

impl Reader {
    pub(super) fn new(
        layout: Layout,
        format_id: FormatId,
        transfer_max: u32,
        blocks: std::ops::Range<u64>,
    ) -> Self {
        let at_once = (u64::from(transfer_max) / PAGE_SIZE as u64).clamp(1, READ_BLOCKS_MAX);
        Self {
            layout,
            format_id,
            at_once,
            start: blocks.start,
            end: blocks.end,
            next: blocks.start,
            asked: blocks.start,
            ahead: VecDeque::with_capacity(READS_MAX),
            run: 0,
            stopped: false,
        }
    }

    /// Sends what can be sent; false when that is nothing.
    pub(super) fn read(&mut self, device: &mut Device, pool: &BufferPool) -> bool {
        let before = self.asked;
        while !self.stopped && self.asked < self.end && self.ahead.len() < READS_MAX {
            let ring = u64::from(self.layout.journal_blocks);
            let to_wrap = ring - self.asked % ring;
            let (first, blocks) =
                (self.asked, self.at_once.min(to_wrap).min(self.end - self.asked));
            let buffer = pool.allocate(blocks as usize * PAGE_SIZE);
            let offset = self.layout.journal_block_offset(first);
            device.read(Purpose::JournalRead { first }, offset, buffer);
            self.ahead.push_back(Ahead { first, blocks, buffer: None });
            self.asked += blocks;
        }
        self.asked > before
    }

    /// Takes what was read at `first`, when it is its turn. Without a buffer, which is a read that
    /// failed, the reading ends there.
    pub(super) fn take(&mut self, first: u64, buffer: Option<&Buffer>, part: &mut Part) {
        let Some(buffer) = buffer else {
            self.stopped = true;
            // What lies behind it and is here already is nobody's any more.
            self.ahead.retain(|ahead| ahead.first != first && ahead.buffer.is_none());
            return;
        };
        let ahead = self.ahead.iter_mut().find(|ahead| ahead.first == first);
        if let Some(ahead) = ahead {
            ahead.buffer = Some(buffer.clone());
        }
        while let Some(Ahead { blocks, buffer: Some(buffer), .. }) = self.ahead.front() {
            let (blocks, buffer) = (*blocks as usize, buffer.clone());
            self.ahead.pop_front();
            for index in 0..blocks {
                self.take_block(&buffer.slice(index * PAGE_SIZE, PAGE_SIZE), part);
            }
        }
    }

    /// Takes a block, if it is what it must be: the next in sequence, and of no earlier run than
    /// the one before it.
    fn take_block(&mut self, buffer: &Buffer, part: &mut Part) {
        if self.stopped {
            return;
        }
        let mut bytes = [0; PAGE_SIZE];
        buffer.copy_to_slice(&mut bytes);
        let read = journal_block::read(&bytes, self.format_id, self.next);
        let Some((run, records)) = read.filter(|(run, _)| *run >= self.run) else {
            self.stopped = true;
            return;
        };
        records.of(part.slots(), |record| part.add(record));
        self.run = run;
        self.next += 1;
    }

    /// Whether everything up to the end, or up to the first bad block, was taken, and nothing is
    /// on its way.
    pub(super) fn is_done(&self) -> bool {
        self.ahead.is_empty() && (self.stopped || self.next == self.end)
    }

    /// Whether everything up to the end was taken.
    pub(super) fn is_complete(&self) -> bool {
        self.next == self.end
    }

    /// One past the last block that was taken.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// The range ends where the reading did.
    pub(super) fn end_here(&mut self) {
        self.end = self.next;
    }

    /// Begins anew.
    pub(super) fn rewind(&mut self) {
        (self.next, self.asked) = (self.start, self.start);
        (self.run, self.stopped) = (0, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::blocks::{BLOCKS_MAX, BlockSet};
    use crate::cache::config::LineSize;
    use crate::cache::entry::Entry;
    use crate::cache::index::Slot;

    #[test]
    fn a_read_that_fails_when_a_later_one_is_there_ends_the_reading() {
        let layout = Layout::for_device(8 << 20, LineSize::default()).expect("fits");
        let (mut device, pool) = (Device::new(), BufferPool::heap());
        let mut reader = Reader::new(layout, FormatId::default(), 64 << 10, 0..32);
        let mut part = Part::new(&layout, usize::MAX);
        assert!(reader.read(&mut device, &pool));
        reader.take(16, Some(&pool.allocate(64 << 10)), &mut part);
        reader.take(0, None, &mut part);
        assert!(reader.is_done() && !reader.is_complete());
    }

    /// Blocks that are put together when there is no end of records.
    fn blocks(tail: u64, head: u64, transfer_max: u32) -> usize {
        let layout = Layout::for_device(8 << 20, LineSize::default()).expect("fits");
        assert_eq!(layout.journal_blocks, 32);
        let mut journal = Journal::new(layout, FormatId::default(), 1, transfer_max);
        journal.go_on(tail, head);
        let all = BlockSet(u16::MAX);
        let (entry, checksums) = (Entry::new(1, false), [0; BLOCKS_MAX]);
        let record = Record { slot: Slot(0), entry, valid: all, changed: all, checksums };
        while journal.push(&record) {}
        journal.blocks.len()
    }

    #[test]
    fn a_write_ends_at_the_tail_at_the_end_of_the_ring_and_at_the_transfer_limit() {
        assert_eq!(blocks(0, 0, 1 << 20), 32);
        assert_eq!(blocks(37, 67, 1 << 20), 2, "block 69 stands where block 37 does");
        assert_eq!(blocks(0, 32, 1 << 20), 0);
        assert_eq!(blocks(20, 30, 1 << 20), 2, "block 32 stands elsewhere");
        assert_eq!(blocks(0, 0, 16 << 10), 4);
    }
}
