//! Reading all that a cache device records, to say whether it is whole.
//!
//! ```text
//!   superblocks ─▶ activity pages ─▶ journal, from its tail ─▶ line table, a part ─▶ lines
//!                                          ▲                          │               │ with an
//!                                          └────── the next part ─────┘               │ origin
//!                                     slot, checksum, decryption if it is, origin ◀───┘
//! ```
//! The journal is read once for each part of the line table, with as many pages as its records fit
//! the memory that is kept for them: however much was recorded, it is read in bounded memory.
//!
//! What a crash leaves is told from damage: a write that was cut short has a copy beside it, or is
//! a miss afterwards. The same bytes are damage where the superblock says that all was left in
//! order. Nothing is written.
//!
//! Absent: mending. A start drops whatever is not whole.

use std::collections::BTreeSet;

use block_io::{BlockQueue, DeviceError, Timestamp};

use super::exchange::Exchange;
use crate::cache::cipher::LineCipher;
use crate::cache::metadata::examination::{ActivityPage, CachedLine, Found, LineTable, Page};
use crate::cache::metadata::journal_block::{self, Record};
use crate::cache::metadata::layout::SUPERBLOCK_REGION;
use crate::cache::metadata::superblock::Undecodable;
use crate::cache::metadata::{FormatId, Layout, PAGE_SIZE, State, Superblock, VolumeRecord};
use crate::cache::persistence::part::Part;

/// Findings that are kept in words; further ones are only counted.
const FINDINGS_MAX: usize = 100;

/// Bytes of records read at once.
const CHUNK: usize = 1 << 20;

/// Bytes of the journal's records that are kept at the same time: a ring of 256 MiB, of which every
/// record is another slot's, is then read ten times with lines of 64 KiB and three with those of 4.
const RECORDS_MEMORY: usize = 128 << 20;

/// Bytes of an extent of the activity log.
const EXTENT: u64 = 4 << 20;

const BLOCK: u64 = 4096;

/// Findings of one kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// The first hundred, in words.
    pub texts: Vec<String>,
    /// All of them.
    pub count: u64,
}

impl Findings {
    fn add(&mut self, text: String) {
        self.count += 1;
        if self.texts.len() < FINDINGS_MAX {
            self.texts.push(text);
        }
    }
}

/// What there is on a cache device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// What should not be.
    pub damage: Findings,
    /// What a crash may leave, and the next start takes care of.
    pub leftovers: Findings,
    /// Extents that are named active.
    pub extents: u64,
    /// Blocks of the journal that are not folded.
    pub journal_blocks: u64,
    /// Records in them.
    pub journal_records: u64,
    /// Pages of the line table: as they were written.
    pub pages_valid: u64,
    /// Pages of the line table: never written.
    pub pages_void: u64,
    /// Lines that are recorded.
    pub lines: u64,
    /// Blocks of them that are valid.
    pub blocks: u64,
    /// Lines of extents that are named active, which an unclean start drops.
    pub lines_active: u64,
    /// Blocks whose checksums were compared: those of the volume whose origin there is.
    pub checksums: u64,
    /// Blocks whose content was compared with the origin's. None of an encrypted volume without its
    /// key.
    pub compared: u64,
}

/// An origin to compare a volume's lines with.
pub struct Original<'origin> {
    /// The volume.
    pub volume: &'origin VolumeRecord,
    /// Of the volume's key, where it is encrypted. Without it only checksums are compared.
    pub cipher: Option<&'origin LineCipher>,
    /// Reads that many bytes of the origin from an offset on.
    pub read: &'origin mut dyn FnMut(u64, usize) -> Result<Vec<u8>, DeviceError>,
}

/// Reads the activity pages and the journal only, and says how far they are used.
///
/// # Errors
/// When the device fails.
pub fn usage<Queue: BlockQueue>(
    exchange: &mut Exchange<'_, Queue, impl FnMut() -> Result<Timestamp, DeviceError>>,
    superblock: &Superblock,
) -> Result<Report, DeviceError> {
    let mut check = Check::new(superblock);
    check.activity(exchange)?;
    check.journal(exchange, |_| {})?;
    Ok(check.report)
}

/// Reads everything that is recorded, and compares lines with an origin if there is one.
/// `progress` hears how much is done, from 0 to 1.
///
/// # Errors
/// When a device fails.
pub fn check<Queue: BlockQueue>(
    exchange: &mut Exchange<'_, Queue, impl FnMut() -> Result<Timestamp, DeviceError>>,
    superblock: &Superblock,
    original: Option<Original<'_>>,
    progress: impl FnMut(f64),
) -> Result<Report, DeviceError> {
    check_within(RECORDS_MEMORY, exchange, superblock, original, progress)
}

/// The same with so many bytes for records.
fn check_within<Queue: BlockQueue>(
    memory: usize,
    exchange: &mut Exchange<'_, Queue, impl FnMut() -> Result<Timestamp, DeviceError>>,
    superblock: &Superblock,
    mut original: Option<Original<'_>>,
    mut progress: impl FnMut(f64),
) -> Result<Report, DeviceError> {
    let mut check = Check::new(superblock);
    check.superblocks(exchange)?;
    check.activity(exchange)?;
    let layout = superblock.layout;
    let table = LineTable::new(layout, superblock.format_id);
    let mut part = Part::with_memory(&layout, memory, usize::MAX);
    let mut first = 0;
    let head = check.journal(exchange, |record| part.add(record))?;
    loop {
        let end = part.end();
        let chunk_pages = (CHUNK / PAGE_SIZE) as u32;
        for chunk in (first..end).step_by(chunk_pages as usize) {
            let count = chunk_pages.min(end - chunk);
            let bytes = exchange.read(
                "cache device: reading the line table",
                layout.table_page_offset(chunk),
                count as usize * PAGE_SIZE,
            )?;
            for (page, bytes) in (chunk..).zip(pages(&bytes)) {
                let lines = check.page(&table, page, bytes, &part);
                if let Some(original) = &mut original {
                    for line in &lines {
                        check.compare(exchange, line, original)?;
                    }
                }
                progress(f64::from(page) / f64::from(layout.table_pages));
            }
        }
        if part.is_last() {
            return Ok(check.report);
        }
        first = end;
        part.go_on();
        let mut again = Ring::new(superblock, Some(head));
        while let Some(records) = again.next(exchange)? {
            records.iter().for_each(|record| part.add(record));
        }
    }
}

/// The pages of a chunk.
fn pages(bytes: &[u8]) -> impl Iterator<Item = &Page> {
    let (pages, _) = bytes.as_chunks::<PAGE_SIZE>();
    pages.iter()
}

struct Check<'superblock> {
    superblock: &'superblock Superblock,
    layout: Layout,
    active: BTreeSet<u64>,
    /// The journal must reach this far: activity pages count on it.
    counted_on: u64,
    report: Report,
}

impl<'superblock> Check<'superblock> {
    fn new(superblock: &'superblock Superblock) -> Self {
        let (layout, active) = (superblock.layout, BTreeSet::new());
        Self { superblock, layout, active, counted_on: 0, report: Report::default() }
    }

    /// Notes something that is damage only if the cache was left in order.
    fn note(&mut self, text: String) {
        match self.superblock.state {
            State::Clean => self.report.damage.add(text),
            State::InUse | State::Degraded => self.report.leftovers.add(text),
        }
    }

    fn superblocks<Queue: BlockQueue>(
        &mut self,
        exchange: &mut Exchange<'_, Queue, impl FnMut() -> Result<Timestamp, DeviceError>>,
    ) -> Result<(), DeviceError> {
        for (name, offset) in [("A", 0), ("B", SUPERBLOCK_REGION)] {
            let length = SUPERBLOCK_REGION as usize;
            let bytes = exchange.read("cache device: reading a superblock", offset, length)?;
            let what = match Superblock::decode(&bytes) {
                Ok(read) if read.offset() == offset => continue,
                Ok(read) => format!("has sequence number {}, which is the other's", read.sequence),
                Err(Undecodable::Zeroed) => "is absent".to_owned(),
                Err(other) => format!("is {other}"),
            };
            // Any write of a superblock may have been the last thing that a crash cut short.
            self.note(format!("superblock {name} at byte {offset} {what}"));
        }
        Ok(())
    }

    fn activity<Queue: BlockQueue>(
        &mut self,
        exchange: &mut Exchange<'_, Queue, impl FnMut() -> Result<Timestamp, DeviceError>>,
    ) -> Result<(), DeviceError> {
        let (layout, format_id) = (self.layout, self.superblock.format_id);
        let length = (layout.journal_offset - layout.activity_offset) as usize;
        let doing = "cache device: reading the activity pages";
        let bytes = exchange.read(doing, layout.activity_offset, length)?;
        let at = |page, copy| {
            let start = (layout.activity_page_offset(page, copy) - layout.activity_offset) as usize;
            bytes[start..].first_chunk::<PAGE_SIZE>().expect("the activity pages end there")
        };
        for page in 0..layout.activity_pages {
            let copies = [0, 1].map(|copy| ActivityPage::decode(at(page, copy), format_id, page));
            let damaged = copies.iter().filter(|copy| **copy == Found::Damaged).count();
            match damaged {
                0 => {}
                1 => self.note(format!("activity page {page}: one copy is damaged")),
                _ => self.report.damage.add(format!("activity page {page}: both copies damaged")),
            }
            let valid = copies.into_iter().filter_map(|copy| match copy {
                Found::Valid(read) => Some(read),
                Found::Void | Found::Damaged => None,
            });
            if let Some(newest) = valid.max_by_key(|read| read.sequence) {
                self.counted_on = self.counted_on.max(newest.journal_head);
                self.active.extend(newest.places.iter().flatten());
            }
        }
        self.report.extents = self.active.len() as u64;
        Ok(())
    }

    /// Reads the journal from the tail to the first block that is not there, and hands its records
    /// to `take`. Returns where it ends.
    fn journal<Queue: BlockQueue>(
        &mut self,
        exchange: &mut Exchange<'_, Queue, impl FnMut() -> Result<Timestamp, DeviceError>>,
        mut take: impl FnMut(&Record),
    ) -> Result<u64, DeviceError> {
        let slots = u64::from(self.layout.sets) * 16;
        let mut ring = Ring::new(self.superblock, None);
        loop {
            let sequence = ring.sequence;
            let Some(records) = ring.next(exchange)? else { break };
            self.report.journal_blocks += 1;
            self.report.journal_records += records.len() as u64;
            for record in records {
                if u64::from(record.slot.0) >= slots {
                    let slot = record.slot.0;
                    self.report.damage.add(format!("journal block {sequence}: no slot {slot}"));
                }
                take(record);
            }
        }
        let head = ring.sequence;
        if self.counted_on > head {
            self.report.damage.add(format!(
                "journal: ends at block {head}, though activity pages count on it up to {}",
                self.counted_on
            ));
        }
        Ok(head)
    }

    /// Counts a page's lines and returns those that the next start would serve.
    fn page(&mut self, table: &LineTable, page: u32, bytes: &Page, part: &Part) -> Vec<CachedLine> {
        let (found, mut lines) = table.read_with(page, bytes, |apply| part.for_each(page, apply));
        match found {
            Found::Valid(()) => self.report.pages_valid += 1,
            Found::Void => self.report.pages_void += 1,
            Found::Damaged => {
                self.note(format!("line table page {page}: damaged; its lines are lost"))
            }
        }
        if lines.unsound > 0 {
            let unsound = lines.unsound;
            self.report.damage.add(format!("line table page {page}: {unsound} impossible entries"));
        }
        self.report.lines += lines.lines.len() as u64;
        self.report.blocks +=
            lines.lines.iter().map(|line| u64::from(line.valid.count_ones())).sum::<u64>();
        let recorded = lines.lines.len();
        lines.lines.retain(|line| !self.active.contains(&(line.offset / EXTENT)));
        self.report.lines_active += (recorded - lines.lines.len()) as u64;
        lines.lines
    }

    /// Compares a line's valid blocks with its checksums and with the origin.
    fn compare<Queue: BlockQueue>(
        &mut self,
        exchange: &mut Exchange<'_, Queue, impl FnMut() -> Result<Timestamp, DeviceError>>,
        line: &CachedLine,
        original: &mut Original<'_>,
    ) -> Result<(), DeviceError> {
        let volume = original.volume;
        let within = (volume.base..volume.base + volume.size).contains(&line.offset);
        if !within {
            return Ok(());
        }
        let start = line.offset - volume.base;
        let length = self.layout.line_size.bytes().min(volume.size - start) as usize;
        let place = self.layout.data_offset + u64::from(line.slot) * self.layout.line_size.bytes();
        let stored = exchange.read_buffer("cache device: reading a line", place, length)?;
        let found = (original.read)(start, length)?;
        let encrypted = volume.flags & VolumeRecord::ENCRYPTED != 0;
        let checksum = |part: &[u8]| block_io::Crc32c::new().update(part).value();
        let whole: Vec<bool> = stored
            .to_vec()
            .chunks(BLOCK as usize)
            .zip(line.checksums)
            .map(|(stored, expected)| checksum(stored) == expected)
            .collect();
        if encrypted && let Some(cipher) = original.cipher {
            // An origin of whole sectors has lines of whole sectors.
            cipher.decrypt(start, &stored.slice(0, length & !511));
        }
        let cached = stored.to_vec();
        let blocks = cached.chunks(BLOCK as usize).zip(found.chunks(BLOCK as usize));
        for (block, ((cached, found), whole)) in blocks.zip(whole).enumerate() {
            if line.valid >> block & 1 == 0 {
                continue;
            }
            let is_comparable = !encrypted || original.cipher.is_some();
            self.report.checksums += 1;
            self.report.compared += u64::from(is_comparable);
            let at = start + block as u64 * BLOCK;
            if !whole {
                self.note(format!("slot {}, byte {at} of the volume: wrong checksum", line.slot));
            } else if is_comparable && cached != found {
                self.report.damage.add(format!(
                    "slot {}, byte {at} of the volume: not what the origin has",
                    line.slot
                ));
            }
        }
        Ok(())
    }
}

/// The journal, block by block from its tail on, to its end or once around.
struct Ring {
    layout: Layout,
    format_id: FormatId,
    /// Of the next block.
    sequence: u64,
    end: u64,
    /// No later block is of an earlier run.
    run: u64,
    /// What was read at once, and how much of it has been looked at.
    chunk: Vec<u8>,
    at: usize,
    records: Vec<Record>,
}

impl Ring {
    /// Up to the block `head`, or as far as it goes.
    fn new(superblock: &Superblock, head: Option<u64>) -> Self {
        let (layout, tail) = (superblock.layout, superblock.journal_tail);
        let end = tail.saturating_add(u64::from(layout.journal_blocks));
        Self {
            layout,
            format_id: superblock.format_id,
            sequence: tail,
            end: head.unwrap_or(end),
            run: 0,
            chunk: Vec::new(),
            at: 0,
            records: Vec::new(),
        }
    }

    /// The records of the next block; none at the first that is not there.
    fn next<Queue: BlockQueue>(
        &mut self,
        exchange: &mut Exchange<'_, Queue, impl FnMut() -> Result<Timestamp, DeviceError>>,
    ) -> Result<Option<&[Record]>, DeviceError> {
        if self.sequence >= self.end {
            return Ok(None);
        }
        if self.at == self.chunk.len() {
            let offset = self.layout.journal_block_offset(self.sequence);
            // Up to where the ring begins anew, and not further than once around.
            let until_end = (self.layout.table_offset - offset) as usize;
            let left = usize::try_from(self.end - self.sequence).unwrap_or(usize::MAX);
            let length = CHUNK.min(until_end).min(left.saturating_mul(PAGE_SIZE)).max(PAGE_SIZE);
            self.chunk = exchange.read("cache device: reading the journal", offset, length)?;
            self.at = 0;
        }
        let page = self.chunk[self.at..].first_chunk::<PAGE_SIZE>();
        let page = page.expect("whole pages were read, and this one was not looked at");
        let read = journal_block::read(page, self.format_id, self.sequence);
        let Some((run, records)) = read.filter(|(run, _)| *run >= self.run) else {
            self.end = self.sequence;
            return Ok(None);
        };
        self.run = run;
        self.records.clear();
        records.all(|record| self.records.push(*record));
        self.sequence += 1;
        self.at += PAGE_SIZE;
        Ok(Some(&self.records))
    }
}

#[cfg(test)]
mod tests;
