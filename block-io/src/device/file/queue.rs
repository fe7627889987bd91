//! One queue on a file device: each request becomes one kernel operation, or a few where the
//! kernel moved less than asked or cannot do it in one.
//!
//! Where direct I/O takes only whole blocks above 512 bytes, a smaller write reads its blocks,
//! puts its bytes in and writes them back. Nothing else may change these blocks meanwhile, so a
//! request that comes later and would waits. The page cache is no way out: a kernel keeps it
//! coherent with asynchronous direct writes to a block device neither against readahead nor against
//! other processes' reads.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Alignment, Opened};
use crate::reactor::{AllocateMode, Descriptor, Event, Port, Reactor};
use crate::{
    BlockQueue, Buffer, BufferPool, Completion, Extent, Geometry, IoError, Operation, Request,
    Timestamp,
};

/// Bytes of zeroes written at a time where the target cannot zero by itself.
const ZERO_CHUNK: u64 = 256 << 10;

/// A queue on a [`super::FileDevice`].
#[derive(Debug)]
pub struct FileQueue {
    opened: Arc<Opened>,
    geometry: Geometry,
    /// No other queue may write.
    is_sole: bool,
    port: Port,
    pool: BufferPool,
    file: Descriptor,
    alignment: Alignment,
    jobs: Vec<Option<Job>>,
    free: Vec<u32>,
    /// Jobs held back by an earlier one, oldest first.
    pub(super) waiting: VecDeque<u32>,
    /// Completions that need no kernel, or no more of it.
    finished: Vec<Completion>,
    sequence: u64,
    /// Jobs that rewrite blocks, under way or waiting.
    pub(super) rewriting: usize,
    pub(super) zero_range: bool,
    pub(super) punch_hole: bool,
    zeroes: Option<Buffer>,
}

/// A request on its way.
#[derive(Debug)]
struct Job {
    request: Request,
    step: Step,
    /// Its order among all requests of the queue.
    sequence: u64,
    /// It changes parts of blocks.
    rewrites: bool,
    started: bool,
    /// Bytes of the extent in pieces that are done.
    done: u64,
    /// The part of the extent that is being moved: for transfers all of it.
    piece: Extent,
    /// The blocks that the piece is in.
    covered: Extent,
    /// Bytes of `covered` that the kernel has moved.
    moved: u64,
    /// The blocks around the piece are being read, to be written back with it.
    gathering: bool,
    /// Memory for `covered`.
    memory: Option<Buffer>,
    /// The memory is not the request's own.
    bounced: bool,
}

/// What a job is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Moving the request's bytes.
    Transfer,
    /// Letting the filesystem or the medium zero or drop the extent.
    Allocate(AllocateMode),
    /// Writing zeroes by hand.
    Zero,
    /// Making it durable.
    Synchronize,
}

impl FileQueue {
    pub(super) fn new(
        opened: Arc<Opened>,
        reactor: &Reactor,
        file: Descriptor,
        depth: usize,
        only_reads: bool,
    ) -> Self {
        let read_only = opened.geometry.read_only || only_reads;
        Self {
            geometry: Geometry { read_only, ..opened.geometry },
            is_sole: opened.rewrites_blocks() && !only_reads,
            alignment: opened.alignment(),
            opened,
            port: reactor.open_port(),
            pool: reactor.pool().clone(),
            file,
            jobs: (0..depth).map(|_| None).collect(),
            free: (0..depth as u32).rev().collect(),
            waiting: VecDeque::new(),
            finished: Vec::new(),
            sequence: 0,
            rewriting: 0,
            zero_range: true,
            punch_hole: true,
            zeroes: None,
        }
    }

    /// The first step of a request that is in order.
    fn first_step(&self, request: &Request) -> Result<Step, IoError> {
        self.geometry().check(request.operation, request.extent)?;
        match request.operation {
            Operation::Read | Operation::Write => {
                let length = request.buffer.as_ref().map(|buffer| buffer.len() as u64);
                if length == Some(request.extent.length) {
                    Ok(Step::Transfer)
                } else {
                    Err(IoError::InvalidArgument)
                }
            }
            Operation::Flush => Ok(Step::Synchronize),
            Operation::Discard => Ok(Step::Allocate(AllocateMode::PunchHole)),
            Operation::WriteZeroes => Ok(self.zeroing_step()),
        }
    }

    /// The best way to zero that has not been refused yet.
    pub(super) fn zeroing_step(&self) -> Step {
        if self.zero_range {
            Step::Allocate(AllocateMode::ZeroRange)
        } else if self.punch_hole {
            Step::Allocate(AllocateMode::PunchHole)
        } else {
            Step::Zero
        }
    }

    /// Starts a job, or puts it with those that wait.
    fn start(&mut self, index: u32) {
        let Some(job) = &self.jobs[index as usize] else { return };
        if self.rewriting > 0 && self.is_blocked(job) {
            self.waiting.push_back(index);
            return;
        }
        if let Some(job) = &mut self.jobs[index as usize] {
            job.started = true;
        }
        self.start_step(index);
    }

    /// Whether an earlier job changes the same blocks, and one of the two rewrites them.
    fn is_blocked(&self, job: &Job) -> bool {
        if !job.request.operation.changes_content() {
            return false;
        }
        let blocks = job.request.extent.align_outward(self.alignment.offset);
        self.jobs.iter().flatten().any(|other| {
            other.sequence < job.sequence
                && other.request.operation.changes_content()
                && (other.rewrites || job.rewrites)
                && other.request.extent.align_outward(self.alignment.offset).overlaps(blocks)
        })
    }

    /// Begins a job's step, or the next piece of it.
    fn start_step(&mut self, index: u32) {
        let Some(job) = &self.jobs[index as usize] else { return };
        if job.step == Step::Zero && self.zeroes.is_none() {
            let zeroes = self.pool.allocate(ZERO_CHUNK as usize);
            zeroes.fill(0);
            self.zeroes = Some(zeroes);
        }
        let extent = job.request.extent;
        let rest = Extent::new(extent.offset + job.done, extent.length - job.done);
        let piece = match job.step {
            Step::Transfer => rest,
            Step::Zero => self.zero_piece(rest),
            Step::Allocate(mode) => {
                self.port.allocate(&self.file, mode, rest, u64::from(index));
                return;
            }
            Step::Synchronize => {
                self.port.synchronize(&self.file, u64::from(index));
                return;
            }
        };
        let covered = piece.align_outward(self.alignment.offset);
        let (memory, bounced) = self.memory(job, piece, covered);
        let gathering = covered != piece && job.request.operation.changes_content();
        let Some(job) = &mut self.jobs[index as usize] else { return };
        (job.piece, job.covered, job.moved, job.gathering) = (piece, covered, 0, gathering);
        (job.memory, job.bounced) = (memory, bounced);
        if bounced && !gathering && job.request.operation != Operation::Read {
            job.merge();
        }
        self.issue(index);
    }

    /// The next run of zeroes to write by hand: part of one block, or whole blocks.
    fn zero_piece(&self, rest: Extent) -> Extent {
        let block = self.alignment.offset;
        let whole = rest.length & !(block - 1);
        if rest.offset.is_multiple_of(block) && whole > 0 {
            return Extent::new(rest.offset, whole.min(ZERO_CHUNK));
        }
        rest.split(block).next().unwrap_or(rest)
    }

    /// Memory that the kernel can use for `covered`, and whether it is other than the request's.
    fn memory(&self, job: &Job, piece: Extent, covered: Extent) -> (Option<Buffer>, bool) {
        if covered == piece {
            if job.step == Step::Zero {
                let zeroes = self.zeroes.as_ref();
                return (zeroes.map(|zeroes| zeroes.slice(0, piece.length as usize)), false);
            }
            let own = job.request.buffer.as_ref();
            let aligned =
                |own: &&Buffer| (own.as_ptr() as usize).is_multiple_of(self.alignment.memory);
            if let Some(own) = own.filter(aligned) {
                return (Some(own.clone()), false);
            }
        }
        (Some(self.pool.allocate(covered.length as usize)), true)
    }

    /// Starts the kernel operation for what is not moved yet.
    fn issue(&mut self, index: u32) {
        let Some(job) = &self.jobs[index as usize] else { return };
        let Some(memory) = &job.memory else {
            return self.finish(index, Err(IoError::InvalidArgument));
        };
        let moved = job.moved as usize;
        let rest = memory.slice(moved, memory.len() - moved);
        let (offset, token) = (job.covered.offset + job.moved, u64::from(index));
        if job.gathering || job.request.operation == Operation::Read {
            self.port.read_at(&self.file, offset, &rest, token);
        } else {
            // Zeroes by hand are made durable all at once, at the end.
            let durable = job.request.force_unit_access && job.step == Step::Transfer;
            self.port.write_at(&self.file, offset, &rest, durable, token);
        }
    }

    /// Takes the outcome of a job's kernel operation, and starts its next or finishes it.
    fn arrive(&mut self, event: Event) {
        let index = event.token as u32;
        let Some(job) = &mut self.jobs[index as usize] else { return };
        let moved = match event.result {
            Ok(moved) => u64::from(moved),
            Err(error) => return self.fail(index, error),
        };
        match job.step {
            Step::Synchronize => return self.finish(index, Ok(())),
            Step::Allocate(_) => job.done = job.request.extent.length,
            // It ends before the extent does, perhaps within a block: the file has shrunk.
            _ if moved == 0 || !moved.is_multiple_of(self.alignment.offset) => {
                return self.finish(index, Err(IoError::Media));
            }
            Step::Transfer | Step::Zero => {
                job.moved += moved;
                if job.moved < job.covered.length {
                    return self.issue(index);
                }
                if job.gathering {
                    (job.gathering, job.moved) = (false, 0);
                    job.merge();
                    return self.issue(index);
                }
                if job.bounced && job.request.operation == Operation::Read {
                    job.extract();
                }
                job.done += job.piece.length;
            }
        }
        if job.done < job.request.extent.length {
            self.start_step(index);
        } else if job.step != Step::Transfer && job.request.force_unit_access {
            job.step = Step::Synchronize;
            self.start_step(index);
        } else {
            self.finish(index, Ok(()));
        }
    }

    /// Takes a failed operation: zeroing and discarding have other ways, the rest is over.
    pub(super) fn fail(&mut self, index: u32, error: IoError) {
        let Some(job) = &self.jobs[index as usize] else { return };
        let Step::Allocate(mode) = job.step else { return self.finish(index, Err(error)) };
        let operation = job.request.operation;
        match error {
            IoError::Unsupported => match mode {
                AllocateMode::ZeroRange => self.zero_range = false,
                AllocateMode::PunchHole => self.punch_hole = false,
            },
            // Finer than the medium's own blocks: only for this request.
            IoError::InvalidArgument => {}
            _ => return self.finish(index, Err(error)),
        }
        if operation == Operation::Discard {
            // Content that is not dropped is still content that may be dropped.
            self.geometry.discard &= self.punch_hole;
            return self.finish(index, Ok(()));
        }
        let step = match error {
            IoError::Unsupported => self.zeroing_step(),
            _ => Step::Zero,
        };
        self.geometry.write_zeroes &= self.zeroing_step() != Step::Zero;
        if let Some(job) = &mut self.jobs[index as usize] {
            job.step = step;
        }
        self.start_step(index);
    }

    fn finish(&mut self, index: u32, result: Result<(), IoError>) {
        let Some(job) = self.jobs[index as usize].take() else { return };
        self.rewriting -= usize::from(job.rewrites);
        self.free.push(index);
        self.finished.push(job.request.complete(result));
    }

    /// Looks again at the jobs that wait, oldest first.
    fn retry_waiting(&mut self) {
        for _ in 0..self.waiting.len() {
            if let Some(index) = self.waiting.pop_front() {
                self.start(index);
            }
        }
    }
}

impl Job {
    /// The part of the memory that is the piece.
    fn inner(&self) -> Option<Buffer> {
        let start = (self.piece.offset - self.covered.offset) as usize;
        Some(self.memory.as_ref()?.slice(start, self.piece.length as usize))
    }

    /// Puts what is to be written into the memory of its blocks.
    fn merge(&self) {
        match (self.inner(), &self.request.buffer) {
            (Some(inner), Some(own)) => inner.copy_from(own),
            (Some(inner), None) => inner.fill(0),
            (None, _) => {}
        }
    }

    /// Takes what was to be read out of the memory of its blocks.
    fn extract(&self) {
        if let (Some(inner), Some(own)) = (self.inner(), &self.request.buffer) {
            own.copy_from(&inner);
        }
    }
}

impl BlockQueue for FileQueue {
    fn geometry(&self) -> Geometry {
        // The capacity is the device's, which may have grown; the rest is what was found out here.
        Geometry { capacity: self.opened.capacity(), ..self.geometry }
    }

    fn submit(&mut self, request: Request) -> Result<(), Request> {
        if self.in_flight() >= self.jobs.len() {
            return Err(request);
        }
        let step = match self.first_step(&request) {
            Ok(step) => step,
            Err(error) => {
                self.finished.push(request.complete(Err(error)));
                return Ok(());
            }
        };
        let Some(index) = self.free.pop() else { return Err(request) };
        let sequence = self.sequence;
        self.sequence += 1;
        let rewrites = request.operation.changes_content()
            && !request.extent.is_aligned(self.alignment.offset);
        self.rewriting += usize::from(rewrites);
        self.jobs[index as usize] = Some(Job {
            request,
            step,
            sequence,
            rewrites,
            started: false,
            done: 0,
            piece: Extent::default(),
            covered: Extent::default(),
            moved: 0,
            gathering: false,
            memory: None,
            bounced: false,
        });
        self.start(index);
        Ok(())
    }

    fn poll(&mut self, _: Timestamp, completions: &mut Vec<Completion>) -> bool {
        let mut arrived = false;
        while let Some(event) = self.port.next_event() {
            arrived = true;
            self.arrive(event);
        }
        if arrived && !self.waiting.is_empty() {
            self.retry_waiting();
        }
        let progress = arrived || !self.finished.is_empty();
        completions.append(&mut self.finished);
        progress
    }

    fn in_flight(&self) -> usize {
        self.jobs.len() - self.free.len() + self.finished.len()
    }
}

impl Drop for FileQueue {
    /// Lets another queue be the only one; not while the kernel may still write for this one.
    fn drop(&mut self) {
        if self.is_sole && !self.jobs.iter().flatten().any(|job| job.started) {
            self.opened.sole_queue.store(false, Ordering::Release);
        }
    }
}
