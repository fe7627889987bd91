//! The oracle: told of every request's begin and end, it says whether the bytes of a read could
//! have come from a device that keeps the contract.
//!
//! For each sector it keeps the set of admissible values: the last acked write's, those of writes
//! beside it in time, and those of failed writes whose outcome is unknown. A read may return, for
//! each sector, any value that was admissible when it began or that a write beside it brings. Once
//! a read with no write beside it has returned a value, that value is the only one: no flips.
//!
//! And once a read has returned what a write in flight brings, no later read returns what was
//! before it. Told that the device has a volatile cache, it also keeps what a power cut may bring
//! back.
//!
//! Absent: an order between the sectors of one request, and between overlapping reads in flight.

mod pattern;
mod sector;
mod sectors;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;

pub use pattern::{describe, fill_pattern};

use crate::{Buffer, Completion, Extent, IoError, Operation, Request, RequestId, SECTOR_SIZE};
use sector::{Entry, Horizon, NEVER, Sector, Value};
use sectors::Sectors;

const SECTOR: u64 = SECTOR_SIZE as u64;

/// The order of begins and ends.
type Sequence = u64;

/// Later than "always", which is 0.
const FIRST: Sequence = 1;

/// The reference. Independent of any world and any device.
pub struct ReferenceDisk {
    seed: u64,
    capacity: u64,
    sequence: Sequence,
    sectors: Sectors,
    in_flight: BTreeMap<RequestId, InFlight>,
    late_writes: bool,
    durable_before: Option<Sequence>,
    /// Emptied lists of stamps, kept for their memory.
    spare: Vec<Vec<u64>>,
}

struct InFlight {
    operation: Operation,
    extent: Extent,
    begun: Sequence,
    force_unit_access: bool,
    /// A write's values by sector.
    stamps: Vec<u64>,
}

impl InFlight {
    /// The value that this write would leave in `sector`, if it touches it.
    fn value(&self, sector: u64) -> Option<Value> {
        let extent = Extent::new(sector * SECTOR, SECTOR);
        if !self.extent.overlaps(extent) {
            return None;
        }
        match self.operation {
            Operation::Write => {
                let index = (sector - self.extent.offset / SECTOR) as usize;
                self.stamps.get(index).map(|stamp| Value::Stamp(*stamp))
            }
            Operation::WriteZeroes => Some(Value::Stamp(0)),
            Operation::Discard => Some(Value::Any),
            Operation::Read | Operation::Flush => None,
        }
    }

    fn sectors(&self) -> std::ops::Range<u64> {
        self.extent.offset / SECTOR..self.extent.end() / SECTOR
    }
}

/// A read returned what it must not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    /// The seed that replays it.
    pub seed: u64,
    /// The read, absent when content was checked outside of any request.
    pub request: Option<RequestId>,
    /// The first wrong sector, in units of 512 bytes.
    pub sector: u64,
    /// What would have been right, one line each.
    pub expected: Vec<String>,
    /// What was read.
    pub found: String,
}

impl ReferenceDisk {
    /// The reference of a zeroed device of `capacity` bytes whose acked writes are durable and
    /// whose lost writes are not applied late. `seed` is for messages.
    pub fn new(seed: u64, capacity: u64) -> Self {
        Self {
            seed,
            capacity,
            sequence: FIRST,
            sectors: Sectors::default(),
            in_flight: BTreeMap::new(),
            late_writes: false,
            durable_before: None,
            spare: Vec::new(),
        }
    }

    /// Whether writes that ended with `ConnectionLost`, `TimedOut` or `Cancelled` may take effect
    /// at any later time, until [`fence`](Self::fence).
    pub fn with_late_writes(self, late_writes: bool) -> Self {
        Self { late_writes, ..self }
    }

    /// Whether a power cut may lose acked writes that no flush or FUA has made durable.
    pub fn with_volatile_cache(self, volatile_cache: bool) -> Self {
        Self { durable_before: volatile_cache.then_some(FIRST), ..self }
    }

    /// The content that the device starts with; what is not set is zeroes.
    ///
    /// # Panics
    /// When it is not in whole sectors, or is past the end.
    pub fn set_content(&mut self, offset: u64, bytes: &[u8]) {
        let extent = Extent::new(offset, bytes.len() as u64);
        self.check_extent(extent);
        let ended = self.tick();
        for (sector, stamp) in (offset / SECTOR..).zip(stamps(bytes)) {
            let entry = Entry::new(Value::Stamp(stamp), 0, ended);
            *self.sectors.entry(sector, untouched) = Sector::new(entry);
        }
    }

    /// A request is about to be submitted. Takes a written buffer's bytes as they are now.
    ///
    /// # Panics
    /// As [`begin_with`](Self::begin_with).
    pub fn begin(&mut self, request: &Request) {
        let Request { id, operation, extent, force_unit_access, buffer } = request;
        let stamps = match (operation, buffer) {
            (Operation::Write, Some(buffer)) => self.stamps_of(buffer),
            _ => Vec::new(),
        };
        self.begin_stamped(*id, *operation, *extent, *force_unit_access, stamps);
    }

    /// [`begin`](Self::begin) without a request; `bytes` are a write's, else empty.
    ///
    /// # Panics
    /// When the test itself is wrong: an id in flight already, an extent not in whole sectors or
    /// past the end, a write whose bytes are not as long as its extent.
    pub fn begin_with(
        &mut self,
        id: RequestId,
        operation: Operation,
        extent: Extent,
        force_unit_access: bool,
        bytes: &[u8],
    ) {
        self.begin_stamped(id, operation, extent, force_unit_access, stamps(bytes).collect());
    }

    fn begin_stamped(
        &mut self,
        id: RequestId,
        operation: Operation,
        extent: Extent,
        force_unit_access: bool,
        stamps: Vec<u64>,
    ) {
        self.check_extent(extent);
        let expected = if operation == Operation::Write { extent.length / SECTOR } else { 0 };
        assert_eq!(stamps.len() as u64, expected, "sectors of {operation:?} {extent}");
        let begun = self.tick();
        let request = InFlight { operation, extent, begun, force_unit_access, stamps };
        let before = self.in_flight.insert(id, request);
        assert!(before.is_none(), "seed {}: {id:?} is in flight already", self.seed);
    }

    /// A request has completed: checks a read's bytes, records anything else's outcome.
    ///
    /// # Errors
    /// [`Mismatch`] when a read returned bytes that it must not.
    ///
    /// # Panics
    /// When no such request is in flight, or a read comes without its buffer.
    pub fn complete(&mut self, completion: &Completion) -> Result<(), Mismatch> {
        let Completion { id, result, buffer } = completion;
        let is_read = |request: &InFlight| request.operation == Operation::Read;
        if result.is_ok() && self.in_flight.get(id).is_some_and(is_read) {
            let buffer = buffer.as_ref().expect("a completed read gives its buffer back");
            let bytes_at = |sector: usize| buffer.slice(sector * SECTOR as usize, 512).to_vec();
            let stamps = self.stamps_of(buffer);
            let result = self.end_read_stamped(*id, &stamps, &bytes_at);
            self.spare.push(stamps);
            return result;
        }
        self.end(*id, *result);
        Ok(())
    }

    /// A request other than a successful read has ended.
    ///
    /// # Panics
    /// When no such request is in flight, or it is a successful read.
    pub fn end(&mut self, id: RequestId, result: Result<(), IoError>) {
        let request = self.take(id);
        let now = self.tick();
        match (request.operation, result) {
            (Operation::Read, Ok(())) => panic!("{id:?}: a read ends with its bytes"),
            (Operation::Read, Err(_)) | (Operation::Flush, Err(_)) => {}
            (Operation::Flush, Ok(())) => {
                self.durable_before = self.durable_before.map(|before| before.max(request.begun));
            }
            (_, Ok(())) => self.acked(id, &request, now),
            (_, Err(error)) if error.outcome_unknown() => {
                let lost = matches!(
                    error,
                    IoError::ConnectionLost | IoError::TimedOut | IoError::Cancelled
                );
                self.unknown(id, &request, now, lost && self.late_writes);
            }
            (_, Err(_)) => {}
        }
        if request.stamps.capacity() > 0 {
            self.spare.push(request.stamps);
        }
    }

    /// A read has ended with `bytes`.
    ///
    /// # Errors
    /// [`Mismatch`] when they are not what it may return.
    ///
    /// # Panics
    /// When it is not in flight, or its length is another.
    pub fn end_read(&mut self, id: RequestId, bytes: &[u8]) -> Result<(), Mismatch> {
        let stamps: Vec<u64> = stamps(bytes).collect();
        self.end_read_stamped(id, &stamps, &|sector| sector_of(bytes, sector))
    }

    fn end_read_stamped(
        &mut self,
        id: RequestId,
        stamps: &[u64],
        bytes_at: &dyn Fn(usize) -> Vec<u8>,
    ) -> Result<(), Mismatch> {
        let InFlight { extent, begun, .. } = self.take(id);
        assert_eq!(stamps.len() as u64, extent.length / SECTOR, "sectors of the read {id:?}");
        let now = self.tick();
        self.check(Some(id), extent, begun, now, stamps, bytes_at)
    }

    /// Compares content that was looked at outside of any request, such as the medium itself when
    /// nothing is in flight.
    ///
    /// # Errors
    /// [`Mismatch`] as for a read that begins and ends now.
    ///
    /// # Panics
    /// When it is not in whole sectors, or is past the end.
    pub fn check_content(&mut self, offset: u64, bytes: &[u8]) -> Result<(), Mismatch> {
        let extent = Extent::new(offset, bytes.len() as u64);
        self.check_extent(extent);
        let begun = self.tick();
        let now = self.tick();
        let stamps: Vec<u64> = stamps(bytes).collect();
        self.check(None, extent, begun, now, &stamps, &|sector| sector_of(bytes, sector))
    }

    /// From here on no write of the past takes effect any more.
    pub fn fence(&mut self) {
        let now = self.tick();
        for sector in self.sectors.values_mut() {
            sector.fence(now);
        }
    }

    /// The whole system under test lost power or died: requests in flight never end, writes among
    /// them have an unknown outcome, and of a volatile cache what is not durable may be lost.
    pub fn power_cut(&mut self) {
        self.process_killed();
        self.lose_volatile();
    }

    /// Whoever submitted was killed, and the device lives on: requests in flight never end, and
    /// writes among them were done by now or never will be.
    pub fn process_killed(&mut self) {
        let now = self.tick();
        for (id, request) in std::mem::take(&mut self.in_flight) {
            if request.operation.changes_content() {
                self.unknown(id, &request, now, false);
            }
        }
    }

    /// The device lost what is not durable in its volatile cache, but whoever submitted lives on:
    /// requests in flight are still to end, with an error.
    pub fn lose_volatile(&mut self) {
        let now = self.tick();
        let keep = self.horizon();
        for sector in self.sectors.values_mut() {
            sector.power_cut(keep);
            sector.last_write_end = now;
        }
    }

    /// Requests in flight.
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// The stamps of a buffer's sectors.
    fn stamps_of(&mut self, buffer: &Buffer) -> Vec<u64> {
        let mut stamps = self.spare.pop().unwrap_or_default();
        stamps.clear();
        let mut sector = [0; SECTOR_SIZE as usize];
        for start in (0..buffer.len()).step_by(SECTOR_SIZE as usize) {
            buffer.slice(start, SECTOR_SIZE as usize).copy_to_slice(&mut sector);
            stamps.push(pattern::stamp(&sector));
        }
        stamps
    }

    fn tick(&mut self) -> Sequence {
        self.sequence += 1;
        self.sequence
    }

    fn take(&mut self, id: RequestId) -> InFlight {
        let seed = self.seed;
        let request = self.in_flight.remove(&id);
        request.unwrap_or_else(|| panic!("seed {seed}: {id:?} ended but is not in flight"))
    }

    fn check_extent(&self, extent: Extent) {
        let fits = extent.is_aligned(SECTOR) && extent.end() <= self.capacity;
        assert!(fits, "{extent}: must be whole sectors within {} bytes", self.capacity);
    }

    fn horizon(&self) -> Horizon {
        let reads = self.in_flight.values().filter(|request| request.operation == Operation::Read);
        let oldest_read = reads.map(|request| request.begun).min().unwrap_or(NEVER);
        Horizon { oldest_read, durable_before: self.durable_before }
    }

    fn acked(&mut self, id: RequestId, request: &InFlight, now: Sequence) {
        let keep = self.horizon();
        for number in request.sectors() {
            let Some(value) = request.value(number) else { continue };
            let entry = Entry::new(value, id.0, now);
            let sector = self.sectors.entry(number, untouched);
            sector.acked(entry, request.begun, request.force_unit_access, keep);
        }
    }

    fn unknown(&mut self, id: RequestId, request: &InFlight, now: Sequence, late: bool) {
        for number in request.sectors() {
            let Some(value) = request.value(number) else { continue };
            let entry = Entry { late, acked: false, ..Entry::new(value, id.0, now) };
            self.sectors.entry(number, untouched).unknown(entry);
        }
    }

    fn check(
        &mut self,
        request: Option<RequestId>,
        extent: Extent,
        begun: Sequence,
        now: Sequence,
        stamps: &[u64],
        bytes_at: &dyn Fn(usize) -> Vec<u8>,
    ) -> Result<(), Mismatch> {
        let keep = self.horizon();
        let first = extent.offset / SECTOR;
        let beside: Vec<(&RequestId, &InFlight)> = self
            .in_flight
            .iter()
            .filter(|(_, other)| other.operation.changes_content() && other.extent.overlaps(extent))
            .collect();
        for (index, stamp) in stamps.iter().copied().enumerate() {
            let number = first + index as u64;
            let sector = self.sectors.get_mut(number);
            let alone = !beside.iter().any(|(_, write)| write.value(number).is_some());
            let ended_before = sector.as_ref().is_none_or(|sector| sector.last_write_end <= begun);
            // A write that may land late is beside every read.
            let settled = sector.as_ref().is_none_or(|sector| !sector.awaits_late_write());
            let quiet = alone && ended_before && settled;
            // With no write beside it, a read sees what is there now: values that an earlier read
            // has ruled out are wrong although this read began before.
            let since = if quiet { NEVER - 1 } else { begun };
            let known = match &sector {
                None => stamp == 0,
                Some(sector) => sector.admits(stamp, since),
            };
            if known {
                if let Some(sector) = sector.filter(|_| quiet) {
                    sector.narrow(stamp, now, keep);
                }
                continue;
            }
            // One of the writes in flight brought it: what ended before they began is overwritten.
            let brought = beside.iter().filter_map(|(_, write)| {
                write.value(number).filter(|value| value.admits(stamp)).map(|_| write.begun)
            });
            let Some(earliest) = brought.min() else {
                let expected = self.expected(number, since, &beside);
                let found = describe(&bytes_at(index));
                return Err(Mismatch { seed: self.seed, request, sector: number, expected, found });
            };
            self.sectors.entry(number, untouched).seen_before_its_end(earliest, now);
        }
        Ok(())
    }

    fn expected(
        &self,
        number: u64,
        since: Sequence,
        beside: &[(&RequestId, &InFlight)],
    ) -> Vec<String> {
        let name = |value: Value, write: u64| match value {
            Value::Any => format!("anything (discard {write})"),
            Value::Stamp(0) if write == 0 => "zeroes (initial)".to_owned(),
            Value::Stamp(0) => format!("zeroes (request {write})"),
            Value::Stamp(_) if write == 0 => "the initial content".to_owned(),
            Value::Stamp(_) => format!("the bytes of request {write}"),
        };
        let mut lines: Vec<String> = match self.sectors.get(number) {
            None => vec![name(Value::Stamp(0), 0)],
            Some(sector) => {
                let entries = sector.entries.iter().filter(|entry| entry.is_admissible(since));
                entries.map(|entry| name(entry.value, entry.write)).collect()
            }
        };
        lines.extend(beside.iter().filter_map(|(id, write)| {
            write.value(number).map(|value| format!("{} in flight", name(value, id.0)))
        }));
        lines
    }
}

/// A sector that nobody has written.
fn untouched() -> Sector {
    Sector::new(Entry::new(Value::Stamp(0), 0, 0))
}

fn sector_of(bytes: &[u8], index: usize) -> Vec<u8> {
    sectors_of(bytes).nth(index).expect("a sector that was compared").to_vec()
}

fn sectors_of(bytes: &[u8]) -> std::slice::ChunksExact<'_, u8> {
    bytes.chunks_exact(SECTOR_SIZE as usize)
}

fn stamps(bytes: &[u8]) -> impl Iterator<Item = u64> {
    sectors_of(bytes).map(pattern::stamp)
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, request, sector, expected, found } = self;
        match request {
            Some(id) => write!(f, "seed {seed}: read {} returned", id.0)?,
            None => write!(f, "seed {seed}: the content has")?,
        }
        let (offset, expected) = (sector * SECTOR, expected.join(", or "));
        write!(f, " {found} in sector {sector} (offset {offset}); right would be {expected}")
    }
}

impl std::error::Error for Mismatch {}

impl fmt::Debug for ReferenceDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReferenceDisk")
            .field("seed", &self.seed)
            .field("sectors", &self.sectors.len())
            .field("in_flight", &self.in_flight.len())
            .finish()
    }
}
