//! Requests to the cache device that are in flight, and what becomes of those that fail.
//!
//! Each keeps a view of its buffer, so a completion needs to say nothing but which request it was.
//! A request that certainly failed is sent again as it was; one that may still land, and a flush,
//! are not: what a late write would land on may be newer by then, and a second flush proves nothing
//! of what the first has lost. Such a failure is final, and the cache must be given up.
//!
//! Absent: what a request is for; that is its [`Purpose`], and others read it.

use block_io::{Buffer, IoError, Operation, Request, Timestamp};

use crate::cache::index::Slot;
use crate::cache::outbox::Token;
use crate::cache::table::Table;

/// Requests in flight at the most. Superblock, flush and journal take one each, activity pages at
/// most [`ACTIVITY_WRITES_MAX`](super::activity::ACTIVITY_WRITES_MAX), reads of a start 64, the
/// line table's writes 36, checksums 32.
const IN_FLIGHT_MAX: usize = 256;

/// How often a write is tried.
const ATTEMPTS: u8 = 3;

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    Superblock,
    Flush,
    ActivityRead { page: u32, copy: u32 },
    ActivityWrite { page: u32 },
    JournalRead { first: u64 },
    JournalWrite,
    SweepRead { first_page: u32 },
    SweepWrite { first_page: u32 },
    FoldRead { lane: u8 },
    FoldWrite { lane: u8 },
    ChecksumRead { slot: Slot },
}

struct InFlight {
    purpose: Purpose,
    operation: Operation,
    offset: u64,
    buffer: Option<Buffer>,
    force_unit_access: bool,
    attempts: u8,
    /// When it was sent last.
    sent: Timestamp,
}

/// A request that is over.
pub(super) struct Finished {
    pub(super) purpose: Purpose,
    pub(super) buffer: Option<Buffer>,
    pub(super) result: Result<(), IoError>,
}

/// What is under way to the cache device and back.
pub(super) struct Device {
    in_flight: Table<InFlight>,
    pub(super) requests: Vec<Request>,
    /// The time, as far as the owner has told.
    pub(super) now: Timestamp,
    pub(super) errors: u64,
    pub(super) bytes_written: u64,
    pub(super) bytes_read: u64,
    /// Flushes asked for, covered by the one in flight, and done, as tickets.
    flush_wanted: u64,
    flush_covers: Option<u64>,
    flush_done: u64,
}

impl Device {
    pub(super) fn new() -> Self {
        Self {
            in_flight: Table::new(IN_FLIGHT_MAX),
            requests: Vec::with_capacity(64),
            now: Timestamp::default(),
            errors: 0,
            bytes_written: 0,
            bytes_read: 0,
            flush_wanted: 0,
            flush_covers: None,
            flush_done: 0,
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        self.in_flight.len() == 0
    }

    /// When the oldest request was sent that is not answered.
    pub(super) fn unanswered_since(&self) -> Option<Timestamp> {
        self.in_flight.iter().map(|request| request.sent).min()
    }

    pub(super) fn read(&mut self, purpose: Purpose, offset: u64, buffer: Buffer) {
        self.bytes_read += buffer.len() as u64;
        self.send(purpose, Operation::Read, offset, Some(buffer), false);
    }

    pub(super) fn write(&mut self, purpose: Purpose, offset: u64, buffer: Buffer, durable: bool) {
        self.send(purpose, Operation::Write, offset, Some(buffer), durable);
    }

    /// Asks for a flush that begins after now.
    pub(super) fn want_flush(&mut self) -> u64 {
        self.flush_wanted += 1;
        self.flush_wanted
    }

    /// Whether everything that had been written when the ticket was given is durable.
    pub(super) fn is_flushed(&self, ticket: u64) -> bool {
        self.flush_done >= ticket
    }

    /// Begins a flush if one is asked for; true when it did.
    pub(super) fn flush(&mut self) -> bool {
        let begins = self.flush_covers.is_none() && self.flush_wanted > self.flush_done;
        if begins {
            self.flush_covers = Some(self.flush_wanted);
            self.send(Purpose::Flush, Operation::Flush, 0, None, false);
        }
        begins
    }

    fn send(
        &mut self,
        purpose: Purpose,
        operation: Operation,
        offset: u64,
        buffer: Option<Buffer>,
        force_unit_access: bool,
    ) {
        let (attempts, sent) = (0, self.now);
        let request =
            InFlight { purpose, operation, offset, buffer, force_unit_access, attempts, sent };
        self.submit(request);
    }

    fn submit(&mut self, mut in_flight: InFlight) {
        in_flight.attempts += 1;
        in_flight.sent = self.now;
        let (operation, offset) = (in_flight.operation, in_flight.offset);
        let (buffer, durable) = (in_flight.buffer.clone(), in_flight.force_unit_access);
        let id = Token::Metadata { index: self.in_flight.insert(in_flight) }.id();
        let request = match (operation, buffer) {
            (Operation::Read, Some(buffer)) => Request::read(id, offset, buffer),
            (_, Some(buffer)) => {
                self.bytes_written += buffer.len() as u64;
                Request::write(id, offset, buffer).with_force_unit_access(durable)
            }
            (_, None) => Request::flush(id),
        };
        self.requests.push(request);
    }

    /// Takes an answer. None when the request was sent again.
    pub(super) fn complete(&mut self, index: u16, result: Result<(), IoError>) -> Option<Finished> {
        let in_flight = self.in_flight.remove(index);
        if let Err(error) = result {
            self.errors += 1;
            let again = in_flight.operation != Operation::Flush
                && !may_land_late(error)
                && in_flight.attempts < ATTEMPTS;
            if again {
                self.submit(in_flight);
                return None;
            }
        }
        if in_flight.purpose == Purpose::Flush {
            let covers = self.flush_covers.take();
            if result.is_ok() {
                self.flush_done = covers.unwrap_or(self.flush_done);
            }
        }
        let InFlight { purpose, buffer, .. } = in_flight;
        Some(Finished { purpose, buffer, result })
    }
}

/// Whether a write that failed so may still reach the device.
pub(super) fn may_land_late(error: IoError) -> bool {
    matches!(error, IoError::TimedOut | IoError::ConnectionLost | IoError::Cancelled)
}
