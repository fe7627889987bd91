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

use block_io::{Buffer, BufferPool};

use super::device::{Device, Purpose};
use super::runs::Runs;
use crate::cache::metadata::journal_block::{self, Record, Writer};
use crate::cache::metadata::layout::Layout;
use crate::cache::metadata::{FormatId, PAGE_SIZE};

/// Blocks in a read or write at the most.
const BLOCKS_AT_ONCE: u64 = 64;

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

/// Reads a part of the ring, one read at a time, and keeps its records.
pub(super) struct Reader {
    layout: Layout,
    format_id: FormatId,
    at_once: u64,
    next: u64,
    end: u64,
    reading: u64,
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
        let at_once = (u64::from(transfer_max) / PAGE_SIZE as u64).clamp(1, BLOCKS_AT_ONCE);
        let (next, end) = (blocks.start, blocks.end);
        Self { layout, format_id, at_once, next, end, reading: 0, run: 0, stopped: false }
    }

    /// Sends the next read; false when there is nothing more to read.
    pub(super) fn read(&mut self, device: &mut Device, pool: &BufferPool) -> bool {
        if self.is_done() || self.reading > 0 {
            return false;
        }
        let ring = u64::from(self.layout.journal_blocks);
        let to_wrap = ring - self.next % ring;
        self.reading = self.at_once.min(to_wrap).min(self.end - self.next);
        let buffer = pool.allocate(self.reading as usize * PAGE_SIZE);
        let offset = self.layout.journal_block_offset(self.next);
        device.read(Purpose::JournalRead, offset, buffer);
        true
    }

    /// Takes what was read, up to the first block that is not what it must be: the next in
    /// sequence, and of no earlier run than the one before it.
    pub(super) fn take(&mut self, buffer: &Buffer, runs: &mut Runs) {
        let mut bytes = [0; PAGE_SIZE];
        let count = std::mem::take(&mut self.reading);
        for index in 0..count as usize {
            buffer.slice(index * PAGE_SIZE, PAGE_SIZE).copy_to_slice(&mut bytes);
            let before = runs.mark();
            let run =
                journal_block::decode(&bytes, self.format_id, self.next, |record| runs.add(record));
            let Some(run) = run.filter(|run| *run >= self.run) else {
                runs.back_to(before);
                self.stopped = true;
                break;
            };
            self.run = run;
            self.next += 1;
        }
        runs.end_run();
    }

    /// Whether everything up to the end, or up to the first bad block, was taken.
    pub(super) fn is_done(&self) -> bool {
        self.stopped || self.next == self.end
    }

    /// One past the last block that was taken.
    pub(super) fn next(&self) -> u64 {
        self.next
    }
}
