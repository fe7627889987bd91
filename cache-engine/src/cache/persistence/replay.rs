//! A range of the journal as it is worked into the line table: read once for each part of the
//! table, so that the memory is bounded however long the range is.
//!
//! ```text
//!   read the range ─▶ part: pages 0 … a ─▶ applied ─▶ read it again ─▶ part: a … b ─▶ …
//! ```
//! The tail must not move before the last part is applied and durable: until then the whole range
//! is what a crash replays. Absent: applying (fold and sweep), and the tail (their owner).

use block_io::{Buffer, BufferPool};

use super::device::Device;
use super::journal::Reader;
use super::part::Part;
use crate::cache::metadata::journal_block::Record;

/// See the module.
pub(super) struct Replay {
    reader: Reader,
    part: Part,
}

impl Replay {
    pub(super) fn new(reader: Reader, part: Part) -> Self {
        Self { reader, part }
    }

    /// Sends the reads that can be sent; true when there was one.
    pub(super) fn read(&mut self, device: &mut Device, pool: &BufferPool) -> bool {
        self.reader.read(device, pool)
    }

    /// Takes what was read at `first`; without a buffer it could not be.
    pub(super) fn take(&mut self, first: u64, buffer: Option<&Buffer>) {
        self.reader.take(first, buffer, &mut self.part);
    }

    /// Whether the pass is over: up to the range's end, or to the first block that is not what it
    /// must be.
    pub(super) fn is_read(&self) -> bool {
        self.reader.is_done()
    }

    /// Whether the pass came to the end, and the part holds what it found.
    pub(super) fn is_whole(&self) -> bool {
        self.reader.is_complete() && !self.part.is_overflown()
    }

    /// One past the last block of the pass.
    pub(super) fn head(&self) -> u64 {
        self.reader.next()
    }

    /// The range ends where the pass did.
    pub(super) fn end_here(&mut self) {
        self.reader.end_here();
    }

    /// One past the last page of the part.
    pub(super) fn part_end(&self) -> u32 {
        self.part.end()
    }

    /// Goes on with the next part, which begins with another pass; false when there is none.
    pub(super) fn next_part(&mut self) -> bool {
        let more = !self.part.is_last();
        if more {
            self.part.go_on();
            self.reader.rewind();
        }
        more
    }

    /// The next pages of the part that have records, up to `most` that stand together; each page
    /// once.
    pub(super) fn next_run(&mut self, most: u32) -> Option<std::ops::Range<u32>> {
        self.part.next_run(most)
    }

    /// What the range says of a page of the part.
    pub(super) fn for_each(&self, page: u32, apply: impl FnMut(&Record)) {
        self.part.for_each(page, apply);
    }
}
