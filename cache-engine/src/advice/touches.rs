//! A trace in memory, and what it touches when it is cut into lines.
//!
//! ```text
//!   Access ──push──▶ Trace (16 bytes a request) ──touches(line size)──▶ Touches (8 bytes a line)
//! ```
//! Lines are numbered by their first appearance, so that tables by line are as large as the trace's
//! footprint and no larger. Absent: the volume's size, which traces do not tell.

use std::collections::HashMap;

use block_io::Extent;

use super::trace::Access;
use crate::cache::LineSize;
use crate::cache::blocks::{BLOCK_SIZE, BlockSet};

/// Lines that one simulation may touch: beyond it the tables would not fit a machine's memory.
pub const TOUCHES_MAX: usize = 1 << 30;

/// Requests, in their order.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    requests: Vec<Packed>,
    writes: u64,
    /// Bytes of all reads.
    read_bytes: u64,
    /// Bytes of all writes.
    write_bytes: u64,
}

#[derive(Clone, Copy, Debug)]
struct Packed {
    offset: u64,
    /// Length in bytes, and above it whether it is a write; see `trace::LENGTH_MAX`.
    length: u32,
}

const WRITE: u32 = 1 << 31;

impl Trace {
    /// Appends a request.
    pub fn push(&mut self, access: Access) {
        let Access { extent, is_write } = access;
        let length = u32::try_from(extent.length).expect("a request is at most a GiB");
        self.requests.push(Packed {
            offset: extent.offset,
            length: length | if is_write { WRITE } else { 0 },
        });
        self.writes += u64::from(is_write);
        *(if is_write { &mut self.write_bytes } else { &mut self.read_bytes }) += extent.length;
    }

    /// Number of requests.
    pub fn requests(&self) -> u64 {
        self.requests.len() as u64
    }

    /// Number of them that are writes.
    pub fn writes(&self) -> u64 {
        self.writes
    }

    /// Bytes that were read.
    pub fn read_bytes(&self) -> u64 {
        self.read_bytes
    }

    /// Bytes that were written.
    pub fn write_bytes(&self) -> u64 {
        self.write_bytes
    }

    /// Cuts the requests into lines.
    ///
    /// # Errors
    /// When they touch more than [`TOUCHES_MAX`].
    pub fn touches(&self, line_size: LineSize) -> Result<Touches, String> {
        let mut lines = HashMap::new();
        let mut list = Vec::with_capacity(self.requests.len());
        for Packed { offset, length } in &self.requests {
            let is_write = length & WRITE != 0;
            let extent = Extent::new(*offset, u64::from(length & !WRITE));
            for part in extent.split(line_size.bytes()) {
                if list.len() == TOUCHES_MAX {
                    return Err(format!(
                        "the trace touches more than {TOUCHES_MAX} lines of {line_size}; give a \
                         shorter one, or a larger --line-size"
                    ));
                }
                let fresh = lines.len() as u32;
                let line = *lines.entry(part.offset / line_size.bytes()).or_insert(fresh);
                let is_last = part.end() == extent.end();
                list.push(Touch::new(line, line_size, part, is_write, is_last));
            }
        }
        Ok(Touches { line_size, list, lines: lines.len() as u32, trace: self.clone_totals() })
    }

    fn clone_totals(&self) -> Self {
        Self { requests: Vec::new(), ..*self }
    }
}

/// A part of a request within one line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Touch {
    pub(super) line: u32,
    /// Every block that it has a byte of.
    pub(super) blocks: BlockSet,
    flags: u8,
}

const IS_WRITE: u8 = 1;
const IS_LAST: u8 = 2;
const CUTS_FIRST_BLOCK: u8 = 4;
const CUTS_LAST_BLOCK: u8 = 8;

impl Touch {
    fn new(line: u32, line_size: LineSize, part: Extent, is_write: bool, is_last: bool) -> Self {
        let offset = part.offset % line_size.bytes();
        let flag = |flag: u8, set: bool| if set { flag } else { 0 };
        let flags = flag(IS_WRITE, is_write)
            | flag(IS_LAST, is_last)
            | flag(CUTS_FIRST_BLOCK, !part.offset.is_multiple_of(BLOCK_SIZE))
            | flag(CUTS_LAST_BLOCK, !part.end().is_multiple_of(BLOCK_SIZE));
        Self { line, blocks: BlockSet::touching(offset, part.length), flags }
    }

    pub(super) fn is_write(self) -> bool {
        self.flags & IS_WRITE != 0
    }

    /// Whether the request ends with it.
    pub(super) fn is_last(self) -> bool {
        self.flags & IS_LAST != 0
    }

    /// Every block of which it has all bytes.
    pub(super) fn whole_blocks(self) -> BlockSet {
        let BlockSet(mut blocks) = self.blocks;
        if self.flags & CUTS_FIRST_BLOCK != 0 {
            blocks &= blocks - 1;
        }
        if self.flags & CUTS_LAST_BLOCK != 0 && blocks != 0 {
            blocks &= !(1 << (15 - blocks.leading_zeros()));
        }
        BlockSet(blocks)
    }
}

/// A trace cut into lines of one size.
#[derive(Clone, Debug)]
pub struct Touches {
    pub(super) line_size: LineSize,
    pub(super) list: Vec<Touch>,
    pub(super) lines: u32,
    /// Totals only.
    pub(super) trace: Trace,
}

impl Touches {
    /// The size of the lines.
    pub fn line_size(&self) -> LineSize {
        self.line_size
    }

    /// Different lines: the footprint.
    pub fn lines(&self) -> u64 {
        u64::from(self.lines)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trace(requests: &[(u64, u64, bool)]) -> Trace {
        let mut trace = Trace::default();
        for (offset, length, is_write) in requests {
            let extent = Extent::new(*offset, *length);
            trace.push(Access { extent, is_write: *is_write });
        }
        trace
    }

    #[test]
    fn requests_are_cut_at_lines() {
        let trace = trace(&[(4096 * 5, 4096 * 4, false), (0, 512, true), (4096 * 6, 1, false)]);
        let touches = trace.touches(LineSize::from_bytes(16384).expect("a size")).expect("few");
        let seen: Vec<_> = touches
            .list
            .iter()
            .map(|touch| (touch.line, touch.blocks.0, touch.is_last()))
            .collect();
        assert_eq!(seen, [(0, 0b1110, false), (1, 0b1, true), (2, 0b1, true), (0, 0b100, true)]);
        assert!(touches.list[2].is_write() && !touches.list[3].is_write());
        assert_eq!(touches.lines(), 3);
        assert_eq!((trace.requests(), trace.writes()), (3, 1));
        assert_eq!((trace.read_bytes(), trace.write_bytes()), (4096 * 4 + 1, 512));
    }

    #[test]
    fn blocks_that_are_cut_are_not_whole() {
        let whole = |offset, length| {
            let touches = trace(&[(offset, length, true)]).touches(LineSize::ALL[4]).expect("few");
            touches.list[0].whole_blocks().0
        };
        assert_eq!(whole(0, 65536), u16::MAX);
        assert_eq!(whole(512, 4096 * 3), 0b110);
        assert_eq!(whole(4096, 4096), 0b10);
        assert_eq!(whole(4096, 4095), 0);
        assert_eq!(whole(1, 2), 0);
        assert_eq!(whole(512, 65536 - 512), u16::MAX - 1);
    }
}
