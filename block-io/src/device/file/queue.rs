//! One queue on a file device: each request becomes one kernel operation, or a few where the
//! kernel moved less than asked or cannot do it in one.
//!
//! Where the medium's blocks are larger than 512 bytes, small requests go through the page cache,
//! which reads and writes whole pages. A write through the cache and a direct one on the same page
//! must not be in flight together: the page's write-back would undo the direct write. So such
//! pairs run one after the other, in the order of submission.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Opened;
use crate::reactor::{AllocateMode, Descriptor, Event, Port, Reactor};
use crate::{
    BlockQueue, Buffer, BufferPool, Completion, Extent, Geometry, IoError, Operation, Request,
    Timestamp,
};

/// Bytes of zeroes written at a time where the target cannot zero by itself.
const ZERO_CHUNK: u64 = 256 << 10;

/// The page cache's unit, within which direct and cached writes get into each other's way.
const PAGE: u64 = 4096;

/// A queue on a [`super::FileDevice`].
#[derive(Debug)]
pub struct FileQueue {
    opened: Arc<Opened>,
    geometry: Geometry,
    port: Port,
    pool: BufferPool,
    buffered: Descriptor,
    direct: Option<Descriptor>,
    jobs: Vec<Option<Job>>,
    free: Vec<u32>,
    /// Jobs held back by one that is in their way, oldest first.
    pub(super) waiting: VecDeque<u32>,
    /// Completions that need no kernel.
    finished: Vec<Completion>,
    sequence: u64,
    /// Jobs that write through the page cache, issued or waiting.
    pub(super) cached_writes: usize,
    pub(super) zero_range: bool,
    pub(super) punch_hole: bool,
    zeroes: Option<Buffer>,
}

/// A request on its way.
#[derive(Debug)]
struct Job {
    request: Request,
    step: Step,
    /// Bytes of the extent that are done.
    done: u64,
    /// Aligned memory in place of the request's, for direct I/O.
    bounce: Option<Buffer>,
    sequence: u64,
    /// How the current step goes, once it is on its way or has been held back.
    route: Route,
    issued: bool,
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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Route {
    Direct,
    Cached,
    /// Neither reads nor writes content through the page cache or around it.
    Neither,
}

impl FileQueue {
    pub(super) fn new(
        opened: Arc<Opened>,
        reactor: &Reactor,
        buffered: Descriptor,
        direct: Option<Descriptor>,
        depth: usize,
    ) -> Self {
        Self {
            geometry: opened.geometry,
            opened,
            port: reactor.open_port(),
            pool: reactor.pool().clone(),
            buffered,
            direct,
            jobs: (0..depth).map(|_| None).collect(),
            free: (0..depth as u32).rev().collect(),
            waiting: VecDeque::new(),
            finished: Vec::new(),
            sequence: 0,
            cached_writes: 0,
            zero_range: true,
            punch_hole: true,
            zeroes: None,
        }
    }

    /// The first step of a request that is in order.
    fn first_step(&self, request: &Request) -> Result<Step, IoError> {
        self.geometry.check(request.operation, request.extent)?;
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

    /// Issues the current step of a job, or puts it with those that wait.
    fn advance(&mut self, index: u32) {
        let Some(job) = self.jobs[index as usize].as_ref() else { return };
        let route = self.route(job);
        self.cached_writes -= usize::from(self.is_cached_write(job, job.route));
        self.cached_writes += usize::from(self.is_cached_write(job, route));
        let blocked = self.cached_writes > 0 && self.is_blocked(job, route);
        let Some(job) = self.jobs[index as usize].as_mut() else { return };
        job.route = route;
        job.issued = !blocked;
        if blocked {
            self.waiting.push_back(index);
        } else {
            self.issue(index);
        }
    }

    /// Whether a job on `route` is a write that direct ones must be kept apart from.
    fn is_cached_write(&self, job: &Job, route: Route) -> bool {
        route == Route::Cached && job.request.operation != Operation::Read && self.direct.is_some()
    }

    /// How the current step of a job goes.
    fn route(&self, job: &Job) -> Route {
        if !matches!(job.step, Step::Transfer | Step::Zero) {
            return Route::Neither;
        }
        let Some(direct) = &self.opened.direct else { return Route::Cached };
        if self.rest(job).is_aligned(direct.alignment.offset) {
            Route::Direct
        } else {
            Route::Cached
        }
    }

    /// What the current operation of a job covers.
    fn rest(&self, job: &Job) -> Extent {
        let extent = job.request.extent;
        let rest = Extent::new(extent.offset + job.done, extent.length - job.done);
        match job.step {
            Step::Zero => rest.split(ZERO_CHUNK).next().unwrap_or(rest),
            _ => rest,
        }
    }

    /// Whether a write on the other route is in the way: one under way, or an earlier one.
    fn is_blocked(&self, job: &Job, route: Route) -> bool {
        let opposite = match route {
            Route::Direct => Route::Cached,
            Route::Cached => Route::Direct,
            Route::Neither => return false,
        };
        if job.request.operation == Operation::Read {
            return false;
        }
        let pages = job.request.extent.align_outward(PAGE);
        self.jobs.iter().flatten().any(|other| {
            other.route == opposite
                && other.request.operation != Operation::Read
                && other.sequence != job.sequence
                && (other.issued || other.sequence < job.sequence)
                && other.request.extent.align_outward(PAGE).overlaps(pages)
        })
    }

    /// Starts the kernel operation of a job's current step.
    fn issue(&mut self, index: u32) {
        let Some(job) = self.jobs[index as usize].as_ref() else { return };
        let rest = self.rest(job);
        let (step, route, operation) = (job.step, job.route, job.request.operation);
        let durable = job.request.force_unit_access;
        let buffer = match step {
            Step::Transfer => self.transfer_buffer(index),
            Step::Zero => Some(self.zeroes().slice(0, rest.length as usize)),
            _ => None,
        };
        let token = u64::from(index);
        let file = match (route, &self.direct) {
            (Route::Direct, Some(direct)) => direct,
            _ => &self.buffered,
        };
        let _operation = match (step, buffer) {
            (Step::Allocate(mode), _) => self.port.allocate(file, mode, rest, token),
            (Step::Synchronize, _) => self.port.synchronize(file, token),
            (_, Some(buffer)) if operation == Operation::Read => {
                self.port.read_at(file, rest.offset, &buffer, token)
            }
            (_, Some(buffer)) => {
                let durable = durable && step == Step::Transfer;
                self.port.write_at(file, rest.offset, &buffer, durable, token)
            }
            (_, None) => return self.finish(index, Err(IoError::InvalidArgument)),
        };
    }

    /// The memory for the rest of a transfer: the request's own, or aligned memory in its place
    /// where direct I/O cannot use it.
    fn transfer_buffer(&mut self, index: u32) -> Option<Buffer> {
        let alignment = self.opened.direct.as_ref().map(|direct| direct.alignment.memory);
        let job = self.jobs[index as usize].as_mut()?;
        let own = job.request.buffer.as_ref()?;
        let done = job.done as usize;
        let rest = own.slice(done, own.len() - done);
        let Some(alignment) = alignment.filter(|_| job.route == Route::Direct) else {
            return Some(rest);
        };
        if (rest.as_ptr() as usize).is_multiple_of(alignment) {
            return Some(rest);
        }
        let bounce = self.pool.allocate(rest.len());
        if job.request.operation == Operation::Write {
            bounce.copy_from(&rest);
        }
        job.bounce = Some(bounce.clone());
        Some(bounce)
    }

    fn zeroes(&mut self) -> Buffer {
        let pool = &self.pool;
        let zeroes = self.zeroes.get_or_insert_with(|| {
            let buffer = pool.allocate(ZERO_CHUNK as usize);
            buffer.fill(0);
            buffer
        });
        zeroes.clone()
    }

    /// Takes the outcome of a job's current step, and starts its next or finishes it.
    fn arrive(&mut self, event: Event) {
        let index = event.token as u32;
        let Some(job) = self.jobs[index as usize].as_mut() else { return };
        job.issued = false;
        let moved = match event.result {
            Ok(moved) => moved,
            // Nothing has been done that doing again would spoil.
            Err(IoError::Other(libc::EAGAIN | libc::EINTR)) => return self.advance(index),
            Err(error) => return self.fail(index, error),
        };
        let finished = match job.step {
            Step::Synchronize => return self.finish(index, Ok(())),
            Step::Allocate(_) => true,
            // The file has shrunk, or the medium takes no more.
            Step::Transfer | Step::Zero if moved == 0 => {
                return self.finish(index, Err(IoError::Media));
            }
            Step::Transfer | Step::Zero => {
                if let (Some(bounce), Operation::Read, Some(own)) =
                    (job.bounce.take(), job.request.operation, &job.request.buffer)
                {
                    let moved = moved as usize;
                    own.slice(job.done as usize, moved).copy_from(&bounce.slice(0, moved));
                }
                job.done += u64::from(moved);
                job.done == job.request.extent.length
            }
        };
        let zeroed = job.step != Step::Transfer;
        if !finished {
            self.advance(index);
        } else if zeroed && job.request.force_unit_access {
            job.step = Step::Synchronize;
            self.advance(index);
        } else {
            self.finish(index, Ok(()));
        }
    }

    /// Takes a failed step: zeroing and discarding have other ways, the rest is over.
    pub(super) fn fail(&mut self, index: u32, error: IoError) {
        let Some(job) = self.jobs[index as usize].as_ref() else { return };
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
        if let Some(job) = self.jobs[index as usize].as_mut() {
            job.step = step;
        }
        self.advance(index);
    }

    fn finish(&mut self, index: u32, result: Result<(), IoError>) {
        let Some(job) = self.jobs[index as usize].take() else { return };
        self.cached_writes -= usize::from(self.is_cached_write(&job, job.route));
        self.free.push(index);
        self.finished.push(job.request.complete(result));
    }

    /// Looks again at the jobs that wait, oldest first.
    fn retry_waiting(&mut self) {
        for _ in 0..self.waiting.len() {
            if let Some(index) = self.waiting.pop_front() {
                self.advance(index);
            }
        }
    }
}

impl BlockQueue for FileQueue {
    fn geometry(&self) -> Geometry {
        self.geometry
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
        self.jobs[index as usize] = Some(Job {
            request,
            step,
            done: 0,
            bounce: None,
            sequence,
            route: Route::Neither,
            issued: false,
        });
        self.advance(index);
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
        if self.opened.is_mixed() && !self.jobs.iter().flatten().any(|job| job.issued) {
            self.opened.sole_queue.store(false, Ordering::Release);
        }
    }
}
