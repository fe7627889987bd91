//! A block device's requests, as commands on one I/O queue.
//!
//! A request above the controller's transfer limit becomes several commands and completes once,
//! when the last of them has ended; the first failure is its result, and after one no further
//! commands of it are sent. Commands that find the queue full wait here, in order.
//!
//! Commands that an association has lost are sent again where [`retry`] allows it; without it a
//! request whose connection was lost fails, its outcome unknown.
//!
//! Absent: any order among requests that overlap, but for what [`retry`] says.

pub(crate) mod retry;

use std::collections::VecDeque;
use std::time::Duration;

use block_io::{Buffer, BufferPool, Completion, Geometry, IoError, Operation, Request};

use self::retry::{Retry, Trouble};
use super::connection::{Connection, Data, Finished, Outcome};
use super::status::io_error;
use crate::spec::command::nvm::{BLOCKS_MAX, NvmCommand, RANGE_LENGTH, Range};
use crate::spec::sgl::Descriptor;

/// What the namespace and its controller allow in one command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The namespace.
    pub namespace_id: u32,
    /// A block has 2^this bytes.
    pub block_shift: u32,
    /// Most bytes of data in one command; a multiple of the block.
    pub data_max: u32,
    /// WZSL: most bytes of one write zeroes.
    pub zeroes_max: u64,
    /// DMRSL and DMSL: most bytes of one discard of one range.
    pub discard_max: u64,
    /// NOIOB: commands with data do not cross multiples of so many bytes; 0 when it does not
    /// matter. A controller takes what crosses them too, but slower.
    pub boundary: u64,
    /// How long a command may take.
    pub timeout: Duration,
}

/// The requests of one queue. At most `depth` at a time.
#[derive(Debug)]
pub struct Requests {
    geometry: Geometry,
    limits: Limits,
    slots: Vec<Option<Live>>,
    free: Vec<u32>,
    /// Requests with parts that have not been sent, in order of arrival.
    to_send: VecDeque<u32>,
    completions: VecDeque<Completion>,
    /// Zero bytes, for controllers without Write Zeroes; one command's worth.
    zeroes: Option<Buffer>,
    /// Nothing can be sent, and nothing waits for that to change.
    lost: bool,
    /// What requests fail with that come now.
    refusal: Option<IoError>,
    retry: Option<Retry>,
}

/// Where the next command goes.
pub(crate) struct Way<'a> {
    /// It has room.
    pub(crate) connection: &'a mut Connection,
    pub(crate) limits: Limits,
}

/// Finds the way for each command.
pub(crate) trait Route {
    /// Absent: there is none now.
    fn next(&mut self) -> Option<Way<'_>>;
}

struct OnlyWay<'a>(&'a mut Connection, Limits);

impl Route for OnlyWay<'_> {
    fn next(&mut self) -> Option<Way<'_>> {
        let has_room = self.0.has_room();
        has_room.then_some(Way { connection: self.0, limits: self.1 })
    }
}

#[derive(Debug)]
struct Live {
    request: Request,
    /// Bytes of the extent that commands have been sent for.
    sent: u64,
    /// Commands in flight.
    outstanding: u32,
    result: Result<(), IoError>,
    /// Commands sent so far include Write Zeroes.
    used_write_zeroes: bool,
    /// It was refused: once nothing is in flight, zeroes are written from the start.
    starts_over: bool,
    trouble: Trouble,
}

impl Live {
    fn wants_more(&self) -> bool {
        self.result.is_ok() && !self.trouble.again && self.sent < self.length()
    }

    /// Every command of it is to be sent again.
    fn start_over(&mut self) {
        (self.sent, self.result) = (0, Ok(()));
        (self.used_write_zeroes, self.starts_over) = (false, false);
    }

    /// Bytes to send commands for; a flush counts as one.
    fn length(&self) -> u64 {
        if self.request.operation == Operation::Flush { 1 } else { self.request.extent.length }
    }
}

impl Requests {
    /// No requests yet, on a namespace of this geometry.
    pub fn new(geometry: Geometry, limits: Limits, depth: usize) -> Self {
        let depth = depth.max(1);
        Self {
            geometry,
            limits,
            slots: (0..depth).map(|_| None).collect(),
            free: (0..depth as u32).rev().collect(),
            to_send: VecDeque::with_capacity(depth),
            completions: VecDeque::with_capacity(depth),
            zeroes: None,
            lost: false,
            refusal: None,
            retry: None,
        }
    }

    /// Fails requests that come from now on with `error`, and such as commands have still to be
    /// sent for; or takes requests again.
    pub fn refuse(&mut self, error: Option<IoError>) {
        self.refusal = error;
        let Some(error) = error else { return };
        while let Some(index) = self.to_send.pop_front() {
            let live = self.slots[index as usize].as_mut().expect("queued requests are live");
            live.result = live.result.and(Err(error));
            self.complete_if_done(index);
        }
    }

    /// The namespace's geometry.
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// The namespace has changed; commands from now on follow the new numbers.
    pub fn set_geometry(&mut self, geometry: Geometry) {
        self.geometry = geometry;
    }

    /// Requests taken and not yet given back.
    pub fn in_flight(&self) -> usize {
        self.slots.len() - self.free.len() + self.completions.len()
    }

    /// Takes a request. It is checked again here, so that what reaches the wire is always within
    /// the limits of the wire's fields.
    ///
    /// # Errors
    /// The request, when `depth` are in flight.
    pub fn submit(&mut self, request: Request) -> Result<(), Request> {
        if self.in_flight() >= self.slots.len() {
            return Err(request);
        }
        if let Some(result) = self.answer_at_once(&request) {
            self.completions.push_back(request.complete(result));
            return Ok(());
        }
        let index = self.free.pop().expect("fewer than all slots are in use");
        self.slots[index as usize] = Some(Live {
            request,
            sent: 0,
            outstanding: 0,
            result: Ok(()),
            used_write_zeroes: false,
            starts_over: false,
            trouble: Trouble::default(),
        });
        if !self.waits_behind(index) {
            self.to_send.push_back(index);
        }
        Ok(())
    }

    /// The result of a request that needs no command.
    fn answer_at_once(&self, request: &Request) -> Option<Result<(), IoError>> {
        if self.lost {
            let nothing_was_sent = self.retry.is_some();
            let never = nothing_was_sent.then_some(retry::UNREACHABLE);
            return Some(Err(never.unwrap_or(IoError::ConnectionLost)));
        }
        if let Some(error) = self.refusal {
            return Some(Err(error));
        }
        if let Err(error) = self.geometry.check(request.operation, request.extent) {
            return Some(Err(error));
        }
        let length = request.buffer.as_ref().map(|buffer| buffer.len() as u64);
        let fits = length == Some(request.extent.length);
        match request.operation {
            Operation::Read | Operation::Write if !fits => Some(Err(IoError::InvalidArgument)),
            Operation::Flush if !self.geometry.volatile_cache => Some(Ok(())),
            // Content that is no longer needed may as well stay.
            Operation::Discard if !self.geometry.discard => Some(Ok(())),
            _ => None,
        }
    }

    /// Sends what the queue has room for.
    pub fn send(&mut self, connection: &mut Connection, pool: &BufferPool) -> bool {
        let limits = self.limits;
        self.send_by(&mut OnlyWay(connection, limits), pool)
    }

    /// Sends what there is a way for.
    pub(crate) fn send_by(&mut self, route: &mut impl Route, pool: &BufferPool) -> bool {
        let mut progress = false;
        while let Some(&index) = self.to_send.front() {
            let Some(way) = route.next() else {
                break;
            };
            progress = true;
            self.send_part(index, way, pool);
            let live = self.slots[index as usize].as_ref().expect("queued requests are live");
            if !live.wants_more() {
                self.to_send.pop_front();
                self.complete_if_done(index);
            }
        }
        progress
    }

    /// One command of the request at `index`.
    fn send_part(&mut self, index: u32, way: Way<'_>, pool: &BufferPool) {
        let Way { connection, limits } = way;
        let token = self.token(index);
        let Self { slots, geometry, zeroes, .. } = self;
        let live = slots[index as usize].as_mut().expect("queued requests are live");
        let part = limits.part(live, geometry);
        let Request { operation, extent, force_unit_access, ref buffer, .. } = live.request;
        let start = (extent.offset + live.sent) >> limits.block_shift;
        let blocks = (part >> limits.block_shift) as u32;
        let payload =
            || buffer.as_ref().map(|whole| whole.slice(live.sent as usize, part as usize));
        let (command, data) = match operation {
            Operation::Flush => (NvmCommand::Flush, Data::None),
            Operation::Read => (
                NvmCommand::Read { start, blocks, force_unit_access },
                payload().map_or(Data::None, Data::ToHost),
            ),
            Operation::Write => (
                NvmCommand::Write { start, blocks, force_unit_access },
                payload().map_or(Data::None, Data::ToController),
            ),
            Operation::WriteZeroes if geometry.write_zeroes => (
                NvmCommand::WriteZeroes { start, blocks, force_unit_access, deallocate: true },
                Data::None,
            ),
            Operation::WriteZeroes => {
                let zeroes = zeroes.get_or_insert_with(|| zero_buffer(pool, limits.data_max));
                (
                    NvmCommand::Write { start, blocks, force_unit_access },
                    Data::ToController(zeroes.slice(0, part as usize)),
                )
            }
            Operation::Discard => {
                let range = pool.allocate(RANGE_LENGTH);
                range.copy_from_slice(&Range { start, blocks }.encode());
                (
                    NvmCommand::DatasetManagement { ranges: 1, deallocate: true },
                    Data::ToController(range),
                )
            }
        };
        let entry = command.encode(0, limits.namespace_id, Descriptor::NONE);
        let timeout = Some(limits.timeout);
        live.used_write_zeroes |= matches!(command, NvmCommand::WriteZeroes { .. });
        live.sent += part;
        match connection.submit(entry, data, token, timeout) {
            Ok(()) => live.outstanding += 1,
            Err(_) => live.result = Err(IoError::ConnectionLost),
        }
    }

    /// A command of one of these requests has ended.
    pub fn finish(&mut self, finished: Finished) {
        let index = finished.token as u32;
        let Some(Some(live)) = self.slots.get_mut(index as usize) else {
            return;
        };
        live.outstanding -= 1;
        let result = match finished.outcome {
            Outcome::Completed(completion) if completion.status.is_success() => Ok(()),
            Outcome::Completed(completion) => Err(io_error(completion.status)),
            Outcome::DataDigest | Outcome::Short(_) => Err(IoError::Media),
            Outcome::Lost => Err(IoError::ConnectionLost),
        };
        self.take_result(index, result);
    }

    fn take_result(&mut self, index: u32, result: Result<(), IoError>) {
        let Some(live) = &mut self.slots[index as usize] else {
            return;
        };
        // A controller may offer Write Zeroes and yet have a medium below that cannot do it.
        if result == Err(IoError::Unsupported) && live.used_write_zeroes {
            self.geometry.write_zeroes = false;
            live.starts_over = true;
        }
        live.result = live.result.and(result);
        if live.result.is_err() && live.sent < live.length() {
            self.to_send.retain(|waiting| *waiting != index);
        }
        self.complete_if_done(index);
    }

    fn complete_if_done(&mut self, index: u32) {
        let place = &mut self.slots[index as usize];
        let Some(live) = place.as_mut().filter(|live| live.outstanding == 0) else {
            return;
        };
        if live.trouble.is_any() {
            self.settle(index);
        } else if live.starts_over && !self.lost {
            live.start_over();
            self.to_send.push_back(index);
        } else if !live.wants_more() {
            self.complete(index);
        }
    }

    fn complete(&mut self, index: u32) {
        if let Some(live) = self.slots[index as usize].take() {
            self.free.push(index);
            self.completions.push_back(live.request.complete(live.result));
        }
    }

    /// The association is lost: what has not been sent fails now, what has been fails when its
    /// connection is closed, and what comes later fails at once.
    pub fn lose(&mut self) {
        self.lost = true;
        while let Some(index) = self.to_send.pop_front() {
            let live = self.slots[index as usize].as_mut().expect("queued requests are live");
            live.result = live.result.and(Err(IoError::ConnectionLost));
            self.complete_if_done(index);
        }
    }

    /// Forgets what has finished: nobody is there to be told.
    pub fn discard_completions(&mut self) {
        self.completions.clear();
    }

    /// Appends finished requests; whether there were any.
    pub fn take_completions(&mut self, completions: &mut Vec<Completion>) -> bool {
        let any = !self.completions.is_empty();
        completions.extend(self.completions.drain(..));
        any
    }
}

impl Limits {
    /// Limits of a controller of which nothing is known yet: a block at a time.
    pub(crate) fn unknown(namespace_id: u32, block_shift: u32, timeout: Duration) -> Self {
        let (data_max, bytes_max) = (1 << block_shift, 1 << block_shift);
        let (zeroes_max, discard_max) = (bytes_max, bytes_max);
        Self { namespace_id, block_shift, data_max, zeroes_max, discard_max, boundary: 0, timeout }
    }

    /// Bytes of the next command of `live`.
    fn part(&self, live: &Live, geometry: &Geometry) -> u64 {
        let rest = live.length() - live.sent;
        let by_blocks = u64::from(BLOCKS_MAX) << self.block_shift;
        let by_data = u64::from(self.data_max).min(by_blocks);
        // How far it is to the next boundary, when there are any.
        let start = live.request.extent.offset + live.sent;
        let room = start.checked_rem(self.boundary).map_or(u64::MAX, |past| self.boundary - past);
        let by_data = by_data.min(room);
        match live.request.operation {
            Operation::Flush => rest,
            Operation::Read | Operation::Write => rest.min(by_data),
            Operation::WriteZeroes if geometry.write_zeroes => {
                rest.min(by_blocks).min(self.zeroes_max)
            }
            Operation::WriteZeroes => rest.min(by_data),
            // A range counts blocks in 32 bits.
            Operation::Discard => {
                rest.min(u64::from(u32::MAX) << self.block_shift).min(self.discard_max)
            }
        }
    }
}

fn zero_buffer(pool: &BufferPool, length: u32) -> Buffer {
    let buffer = pool.allocate(length as usize);
    buffer.fill(0);
    buffer
}
