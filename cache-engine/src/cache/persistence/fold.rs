//! Moving the older half of the journal into the line table, while the cache runs.
//!
//! ```text
//!   half of the ring ──read back──▶ part: pages from … ──4 lanes: read, apply, write──▶ table
//!          ▲                                                      │ all of the part written
//!          └──────────────── the next part ◀──────────────────────┴─▶ last: FLUSH ─▶ tail
//! ```
//! The half is read once for each part of the table that its records fit in memory for. It is free
//! only when the superblock says so: until then a crash replays it. Absent: when a fold begins, and
//! the superblock; the owner sees to both.

use block_io::{Buffer, BufferPool};

use super::device::{Device, Purpose};
use super::journal::Reader;
use super::part::Part;
use super::replay::Replay;
use crate::cache::metadata::layout::Layout;
use crate::cache::metadata::line_page::{self, PageBytes, Shape, Verdict};
use crate::cache::metadata::{FormatId, PAGE_SIZE};

/// Runs of pages being worked on at the same time, and pages of a run at the most: a quarter of a
/// mebibyte together.
const LANES: usize = 4;
const RUN_PAGES_MAX: u32 = 16;

enum Stage {
    Idle,
    /// A pass over the journal.
    Reading,
    /// The pages of a part.
    Applying,
    /// Until the flush of this ticket is done.
    Flushing(u64),
    /// Until the superblock of this ticket is durable.
    Recording(u64),
}

/// Pages that stand together, and are read and written together as long as that goes well.
#[derive(Default)]
struct Lane {
    /// Those of the read or write in flight: from `first` on.
    first: u32,
    count: u32,
    /// One past the last page of the run; nothing is in flight when `first` is there.
    end: u32,
    /// What is being written; a lane without is reading, or idle.
    buffer: Option<Buffer>,
}

impl Lane {
    fn is_idle(&self) -> bool {
        self.first == self.end
    }
}

/// What the owner has to do next.
pub(super) enum Next {
    /// Nothing, until something completes.
    Wait,
    /// Something was sent.
    Sent,
    /// Ask for a flush, and tell its ticket by [`Fold::flushing`].
    Flush,
    /// Nothing went wrong, and a block of the journal is not what was written.
    Damaged,
}

/// The fold that is under way, if one is.
pub(super) struct Fold {
    layout: Layout,
    format_id: FormatId,
    shape: Shape,
    end: u64,
    run_pages_max: u32,
    stage: Stage,
    replay: Option<Replay>,
    lanes: [Lane; LANES],
    /// The page that is being worked on.
    page: Box<PageBytes>,
    pub(super) folds: u64,
}

impl Fold {
    pub(super) fn new(layout: Layout, format_id: FormatId, transfer_max: u32) -> Self {
        let shape = Shape::new(layout.line_size);
        Self {
            layout,
            format_id,
            shape,
            end: 0,
            run_pages_max: (transfer_max / PAGE_SIZE as u32).clamp(1, RUN_PAGES_MAX),
            stage: Stage::Idle,
            replay: None,
            lanes: Default::default(),
            page: Box::new([0; PAGE_SIZE]),
            folds: 0,
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        matches!(self.stage, Stage::Idle)
    }

    /// Begins to fold the blocks that `reader` is to read, up to `end`.
    pub(super) fn begin(&mut self, reader: Reader, part: Part, end: u64) {
        (self.stage, self.end) = (Stage::Reading, end);
        self.replay = Some(Replay::new(reader, part));
    }

    /// One past the last block of the fold.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    pub(super) fn flushing(&mut self, ticket: u64) {
        self.stage = Stage::Flushing(ticket);
        self.replay = None;
    }

    pub(super) fn recording(&mut self, ticket: u64) {
        self.stage = Stage::Recording(ticket);
    }

    /// The flush that is waited for.
    pub(super) fn awaits_flush(&self) -> Option<u64> {
        if let Stage::Flushing(ticket) = self.stage { Some(ticket) } else { None }
    }

    /// The superblock that is waited for.
    pub(super) fn awaits_superblock(&self) -> Option<u64> {
        if let Stage::Recording(ticket) = self.stage { Some(ticket) } else { None }
    }

    pub(super) fn finish(&mut self) {
        self.stage = Stage::Idle;
        self.folds += 1;
    }

    /// Sends what can be sent.
    pub(super) fn step(&mut self, device: &mut Device, pool: &BufferPool) -> Next {
        let Some(replay) = &mut self.replay else { return Next::Wait };
        match self.stage {
            Stage::Reading if replay.is_read() => {
                self.stage = Stage::Applying;
                if replay.is_whole() { self.begin_pages(device, pool) } else { Next::Damaged }
            }
            Stage::Reading if replay.read(device, pool) => Next::Sent,
            Stage::Applying => self.begin_pages(device, pool),
            Stage::Idle | Stage::Reading | Stage::Flushing(_) | Stage::Recording(_) => Next::Wait,
        }
    }

    fn begin_pages(&mut self, device: &mut Device, pool: &BufferPool) -> Next {
        let Some(replay) = &mut self.replay else { return Next::Wait };
        let mut next = Next::Wait;
        for (number, lane) in self.lanes.iter_mut().enumerate().filter(|(_, lane)| lane.is_idle()) {
            let Some(run) = replay.next_run(self.run_pages_max) else { break };
            (lane.first, lane.count, lane.end) = (run.start, run.end - run.start, run.end);
            let buffer = pool.allocate(lane.count as usize * PAGE_SIZE);
            let offset = self.layout.table_page_offset(lane.first);
            device.read(Purpose::FoldRead { lane: number as u8 }, offset, buffer);
            next = Next::Sent;
        }
        if !self.lanes.iter().all(Lane::is_idle) {
            return next;
        }
        if !replay.next_part() {
            return Next::Flush;
        }
        self.stage = Stage::Reading;
        self.step(device, pool)
    }

    /// A read of the journal is over; without a buffer it failed.
    pub(super) fn journal_read(&mut self, first: u64, buffer: Option<&Buffer>) {
        if let Some(replay) = &mut self.replay {
            replay.take(first, buffer);
        }
    }

    /// Pages were read. If several could not be they are read one by one; one that could not be
    /// costs what it knew: its records are applied and it is written.
    pub(super) fn pages_read(
        &mut self,
        number: u8,
        buffer: &Buffer,
        is_read: bool,
        device: &mut Device,
    ) {
        let lane = &mut self.lanes[usize::from(number)];
        let offset = self.layout.table_page_offset(lane.first);
        if !is_read && lane.count > 1 {
            lane.count = 1;
            let first = buffer.slice(0, PAGE_SIZE);
            return device.read(Purpose::FoldRead { lane: number }, offset, first);
        }
        let Some(replay) = &self.replay else { return };
        for (index, page) in (lane.first..lane.first + lane.count).enumerate() {
            let place = buffer.slice(index * PAGE_SIZE, PAGE_SIZE);
            let bytes = &mut *self.page;
            place.copy_to_slice(bytes);
            if !is_read || line_page::check(bytes, self.format_id, page) != Verdict::Valid {
                bytes.fill(0);
            }
            let first_slot = page * self.shape.slots() as u32;
            replay.for_each(page, |record| {
                self.shape.apply(bytes, (record.slot.0 - first_slot) as usize, record);
            });
            line_page::seal(bytes, self.format_id, page);
            place.copy_from_slice(bytes);
        }
        lane.buffer = Some(buffer.clone());
        device.write(Purpose::FoldWrite { lane: number }, offset, buffer.clone(), false);
    }

    /// Pages were written.
    pub(super) fn pages_written(&mut self, number: u8, device: &mut Device) {
        let lane = &mut self.lanes[usize::from(number)];
        lane.first += lane.count;
        // What is left of a run that could not be read at once.
        if let Some(buffer) = lane.buffer.take().filter(|_| !lane.is_idle()) {
            lane.count = 1;
            let offset = self.layout.table_page_offset(lane.first);
            device.read(Purpose::FoldRead { lane: number }, offset, buffer);
        }
    }

    /// The newest content of a page that is being written.
    pub(super) fn page_in_flight(&self, page: u32) -> Option<Buffer> {
        let holds = |lane: &&Lane| (lane.first..lane.first + lane.count).contains(&page);
        let lane = self.lanes.iter().find(|lane| lane.buffer.is_some() && holds(lane))?;
        let buffer = lane.buffer.as_ref()?;
        Some(buffer.slice((page - lane.first) as usize * PAGE_SIZE, PAGE_SIZE))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::blocks::BlockSet;
    use crate::cache::config::LineSize;
    use crate::cache::entry::Entry;
    use crate::cache::index::Slot;
    use crate::cache::metadata::journal_block::Record;
    use block_io::{IoError, Operation, Request};

    /// Answers the only request, and tells what it was.
    fn answer(device: &mut Device, fold: &mut Fold, result: Result<(), IoError>) -> Request {
        let request = device.requests.pop().expect("a request");
        assert!(device.requests.is_empty());
        let crate::cache::outbox::Token::Metadata { index } =
            crate::cache::outbox::Token::of(request.id)
        else {
            panic!("not of the records")
        };
        let Some(finished) = device.complete(index, result) else {
            return answer(device, fold, result);
        };
        match finished.purpose {
            Purpose::FoldRead { lane } => {
                let buffer = finished.buffer.expect("a read has one");
                fold.pages_read(lane, &buffer, result.is_ok(), device);
            }
            Purpose::FoldWrite { lane } => fold.pages_written(lane, device),
            purpose => panic!("{purpose:?}"),
        }
        request
    }

    #[test]
    fn a_run_that_cannot_be_read_is_read_page_by_page_and_only_what_fails_is_lost() {
        let layout = Layout::for_device(64 << 20, LineSize::default()).expect("fits");
        let (format_id, pool) = (FormatId([3; 16]), BufferPool::heap());
        let mut fold = Fold::new(layout, format_id, 1 << 20);
        let mut part = Part::new(&layout, usize::MAX);
        let slots = fold.shape.slots() as u32;
        let (all, entry) = (BlockSet::all(layout.line_size), Entry::new(5, false));
        for page in 2..5 {
            let slot = Slot(page * slots + 1);
            part.add(&Record { slot, entry, valid: all, changed: all, ..Record::EMPTY });
        }
        let mut device = Device::new();
        fold.begin(Reader::new(layout, format_id, 1 << 20, 0..0), part, 0);
        assert!(matches!(fold.step(&mut device, &pool), Next::Sent));
        let run = answer(&mut device, &mut fold, Err(IoError::Media));
        assert_eq!((run.operation, run.extent.length), (Operation::Read, 3 * PAGE_SIZE as u64));

        // What stood in the pages: another slot's line.
        let mut before = [0; PAGE_SIZE];
        let kept = Record { slot: Slot(0), entry, valid: all, changed: all, ..Record::EMPTY };
        fold.shape.apply(&mut before, 0, &kept);
        for page in 2..5 {
            line_page::seal(&mut before, format_id, page);
            let read = device.requests.last().expect("the page's read");
            let place = read.extent.offset;
            assert_eq!((place, read.extent.length), (layout.table_page_offset(page), 4096));
            read.buffer.as_ref().expect("a read has one").copy_from_slice(&before);
            let is_read = if page == 3 { Err(IoError::Media) } else { Ok(()) };
            answer(&mut device, &mut fold, is_read);
            let in_flight = fold.page_in_flight(page).expect("it is being written");
            let written = answer(&mut device, &mut fold, Ok(()));
            assert_eq!((written.operation, written.extent.offset), (Operation::Write, place));
            let mut after = [0; PAGE_SIZE];
            in_flight.copy_to_slice(&mut after);
            assert_eq!(line_page::check(&after, format_id, page), Verdict::Valid);
            assert_eq!(fold.shape.get(&after, 1), (entry, all));
            assert_eq!(fold.shape.get(&after, 0).0.is_occupied(), page != 3);
        }
        assert!(matches!(fold.step(&mut device, &pool), Next::Flush));
    }
}
