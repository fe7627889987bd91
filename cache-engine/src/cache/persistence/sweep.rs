//! Loading the line table at a start: page after page, the journal's records applied.
//!
//! ```text
//!   table ──reads of 64 pages, 2 to 32 ──────▶ chunks ──in order─▶ page ─▶ lines for the index
//!                               the journal's records of the page ──┘  └─▶ written if changed
//! ```
//! A line of an extent that was active when the last run ended, or that was changed since this one
//! began, is dropped, and the page is written back without it: only then may the extent be retired.
//! A page that was cut short is written back too, so that it can't come back with what it knew.
//! Nothing is processed before the engine asks for it, and nothing while 32 pages are on their way
//! back; the reads in flight are a 128th of the table at the most, and the journal is read again
//! for each part of the table that its records fit in memory for. That bounds the memory.
//!
//! Absent: moving the journal's tail when all is done, which is the owner's.

use std::collections::VecDeque;

use block_io::{Buffer, BufferPool};

use super::activity::Activity;
use super::device::{Device, Purpose};
use super::recorded::Recorded;
use super::replay::Replay;
use super::{LoadedLine, extent_of_line};
use crate::cache::blocks::BlockSet;
use crate::cache::entry::{Entry, WAYS};
use crate::cache::index::Slot;
use crate::cache::line::{LineMap, LineNumber, Place};
use crate::cache::metadata::layout::Layout;
use crate::cache::metadata::line_page::{self, PageBytes, Shape, Verdict};
use crate::cache::metadata::{FormatId, PAGE_SIZE};

/// Reads in flight: so many that they are a 128th of the table, within this range.
const READS: std::ops::RangeInclusive<u32> = 2..=32;
const READS_SHARE: u32 = 128;
const PAGES_AT_ONCE: u32 = 64;
const WRITES_MAX: usize = 32;

struct Chunk {
    first_page: u32,
    pages: u32,
    /// What was read; none until then, and where reading failed.
    buffer: Option<Buffer>,
    is_read: bool,
}

/// A start's pass over the line table.
pub(super) struct Sweep {
    layout: Layout,
    format_id: FormatId,
    shape: Shape,
    at_once: u32,
    unverified: bool,
    replay: Replay,
    reads_max: usize,
    next_read: u32,
    chunks: VecDeque<Chunk>,
    next_page: u32,
    /// Pages on their way back.
    writes: Vec<(u32, Buffer)>,
    lines: Vec<LoadedLine>,
    pub(super) dropped: u64,
    pub(super) damaged: u64,
}

/// What a page's lines are compared with.
pub(super) struct Known<'a> {
    pub(super) map: &'a LineMap,
    pub(super) activity: &'a Activity,
    pub(super) recorded: &'a mut Recorded,
}

impl Sweep {
    pub(super) fn new(
        layout: Layout,
        format_id: FormatId,
        transfer_max: u32,
        replay: Replay,
        unverified: bool,
    ) -> Self {
        let at_once = (transfer_max / PAGE_SIZE as u32).clamp(1, PAGES_AT_ONCE);
        let reads = layout.table_pages / at_once / READS_SHARE;
        let reads_max = reads.clamp(*READS.start(), *READS.end()) as usize;
        Self {
            layout,
            format_id,
            shape: Shape::new(layout.line_size),
            at_once,
            unverified,
            replay,
            reads_max,
            next_read: 0,
            chunks: VecDeque::with_capacity(reads_max),
            next_page: 0,
            writes: Vec::with_capacity(WRITES_MAX),
            lines: Vec::with_capacity(layout.sets_per_page as usize * WAYS),
            dropped: 0,
            damaged: 0,
        }
    }

    /// Sets before this one are loaded.
    pub(super) fn sets_loaded(&self) -> u32 {
        let sets = u64::from(self.next_page) * u64::from(self.layout.sets_per_page);
        sets.min(u64::from(self.layout.sets)) as u32
    }

    /// Whether every page is processed and on the device.
    pub(super) fn is_done(&self) -> bool {
        self.next_page == self.layout.table_pages && self.writes.is_empty()
    }

    /// Whether the journal is not any more what it was when the start read it.
    pub(super) fn is_torn(&self) -> bool {
        self.replay.is_read() && !self.replay.is_whole()
    }

    /// A read of the journal is over; without a buffer it failed.
    pub(super) fn journal_read(&mut self, first: u64, buffer: Option<&Buffer>) {
        self.replay.take(first, buffer);
    }

    pub(super) fn read(&mut self, device: &mut Device, pool: &BufferPool) {
        if self.next_page == self.replay.part_end() && self.replay.is_read() {
            self.replay.next_part();
        }
        if !self.replay.is_read() {
            self.replay.read(device, pool);
        }
        while self.chunks.len() < self.reads_max && self.next_read < self.layout.table_pages {
            let first_page = self.next_read;
            let pages = self.at_once.min(self.layout.table_pages - first_page);
            let buffer = pool.allocate(pages as usize * PAGE_SIZE);
            let offset = self.layout.table_page_offset(first_page);
            device.read(Purpose::SweepRead { first_page }, offset, buffer);
            self.chunks.push_back(Chunk { first_page, pages, buffer: None, is_read: false });
            self.next_read += pages;
        }
    }

    /// A read is over; without a buffer it failed.
    pub(super) fn read_done(&mut self, first_page: u32, buffer: Option<Buffer>) {
        let chunk = self.chunks.iter_mut().find(|chunk| chunk.first_page == first_page);
        if let Some(chunk) = chunk {
            (chunk.buffer, chunk.is_read) = (buffer, true);
        }
    }

    pub(super) fn write_done(&mut self, page: u32) {
        self.writes.retain(|(written, _)| *written != page);
    }

    /// The newest content of a page that is on its way back.
    pub(super) fn page_in_flight(&self, page: u32) -> Option<&Buffer> {
        self.writes.iter().find(|(written, _)| *written == page).map(|(_, buffer)| buffer)
    }

    /// Processes the next page, if it is there: the number of its first set, and its lines.
    pub(super) fn next(
        &mut self,
        known: &mut Known<'_>,
        device: &mut Device,
        pool: &BufferPool,
    ) -> Option<(u32, &[LoadedLine])> {
        let chunk = self.chunks.front()?;
        let page = self.next_page;
        let is_known = self.replay.is_read() && page < self.replay.part_end();
        if !chunk.is_read || !is_known || self.writes.len() == WRITES_MAX {
            return None;
        }
        let mut bytes = [0; PAGE_SIZE];
        let mut verdict = Verdict::Damaged;
        if let Some(buffer) = &chunk.buffer {
            let offset = (page - chunk.first_page) as usize * PAGE_SIZE;
            buffer.slice(offset, PAGE_SIZE).copy_to_slice(&mut bytes);
            verdict = line_page::check(&bytes, self.format_id, page);
        }
        if page + 1 == chunk.first_page + chunk.pages {
            self.chunks.pop_front();
        }
        self.next_page += 1;
        if verdict != Verdict::Valid {
            bytes.fill(0);
        }
        self.damaged += u64::from(verdict == Verdict::Damaged);
        let mut changed = verdict == Verdict::Damaged;
        let (shape, first_slot) = (self.shape, page * self.shape.slots() as u32);
        self.replay.for_each(page, |record| {
            changed = true;
            shape.apply(&mut bytes, (record.slot.0 - first_slot) as usize, record);
        });
        self.lines.clear();
        if changed || verdict == Verdict::Valid {
            changed |= self.load(page, &mut bytes, known);
        }
        if changed {
            line_page::seal(&mut bytes, self.format_id, page);
            let buffer = pool.allocate(PAGE_SIZE);
            buffer.copy_from_slice(&bytes);
            self.writes.push((page, buffer.clone()));
            let offset = self.layout.table_page_offset(page);
            device.write(Purpose::SweepWrite { first_page: page }, offset, buffer, false);
        }
        Some((page * self.layout.sets_per_page, &self.lines))
    }

    /// Collects a page's lines and takes those out of it that must not be served. True when there
    /// were some.
    fn load(&mut self, page: u32, bytes: &mut PageBytes, known: &mut Known<'_>) -> bool {
        let first_set = page * self.layout.sets_per_page;
        let sets = self.layout.sets_per_page.min(self.layout.sets - first_set);
        let mut changed = false;
        for set in 0..sets {
            let start = self.lines.len();
            for way in 0..WAYS {
                let at = set as usize * WAYS + way;
                let (mut entry, valid) = self.shape.get(bytes, at);
                if entry.0 == 0 && valid.is_empty() {
                    continue;
                }
                let set = first_set + set;
                let line = sound_line(known.map, set, entry, valid, &self.lines[start..]);
                let extent = line.map(|line| extent_of_line(line, self.layout.line_size));
                if let Some(extent) = extent.filter(|extent| !known.activity.is_known(*extent)) {
                    known.recorded.add(extent);
                    entry.set_unverified(self.unverified);
                    entry.set_busy(false);
                    let slot = Slot(set * WAYS as u32 + way as u32);
                    self.lines.push(LoadedLine { slot, entry, valid });
                } else {
                    self.shape.clear(bytes, at);
                    self.dropped += 1;
                    changed = true;
                }
            }
        }
        changed
    }
}

/// The line of an entry that can be one: of this set, and not in another way already.
fn sound_line(
    map: &LineMap,
    set: u32,
    entry: Entry,
    valid: BlockSet,
    others: &[LoadedLine],
) -> Option<LineNumber> {
    let place = Place { set, tag: entry.tag() };
    let line = map.line(place);
    let sound = entry.is_occupied()
        && !valid.is_empty()
        && map.place(line) == place
        && others.iter().all(|other| other.entry.tag() != entry.tag());
    sound.then_some(line)
}
