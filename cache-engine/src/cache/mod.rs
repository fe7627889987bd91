//! The cache: a state machine that turns clients' requests into requests for two devices.
//!
//! ```text
//!   submit ──▶ request ──cut at regions──▶ piece ──lock──▶ mode::{write_through, …}
//!                                                              │
//!              outbox { origin, cache, replies } ◀─────────────┤
//!   complete ─────────────────────────────────────────────────▶│ ──▶ fill, reply, unlock
//! ```
//! The types to know: [`Cache`], which owns everything; a *piece*, the part of a request within one
//! lock region; a *fill*, a store into the cache device that no client waits for.
//!
//! What keeps it right:
//! * A piece holds the lock of its bytes from start to answer ([`line_lock`]), so that overlapping
//!   requests happen one after another on both devices.
//! * A write makes the cached copy invalid before it is sent to the origin, and valid again only
//!   when origin and cache device both have it.
//! * A fill never makes valid what a later write has touched ([`fill`]).
//! * A slot changes its line only when nobody reads or writes the old one.
//!
//! Absent: I/O, clocks, threads, random numbers; metadata on the cache device (a cache starts
//! cold); dirty data (the origin always has everything).

#[expect(dead_code, reason = "validity moves from sectors to blocks next")]
mod blocks;
pub mod config;
mod doubt;
mod entry;
mod eviction;
mod fill;
mod index;
mod line;
mod line_lock;
pub mod metadata;
mod mode;
mod outbox;
#[allow(dead_code, reason = "the engine takes it into use next")]
mod persistence;
mod piece;
mod sectors;
mod statistics;
mod table;

pub use config::{CacheConfig, CacheMode, LineSize, VOLUMES_MAX, VolumeId};
pub use outbox::Outbox;
pub use statistics::Statistics;

use std::collections::VecDeque;

use block_io::{DeviceError, Extent, Geometry, IoError, Operation, Request, RequestId, Timestamp};

use doubt::Doubt;
use entry::WAYS;
use fill::{Ended, Fills};
use index::{Index, Slot};
use line::LineNumber;
use line_lock::{LockTable, PieceIndex};
use outbox::Token;
use piece::{ClientRequest, Piece};
use table::Table;

/// A piece lies within one region of this size, or of the devices' largest transfer if smaller.
const REGION_MAX: u64 = 1 << 20;

/// Requests larger than this are refused; frontends know it from the geometry.
const TRANSFER_MAX: u32 = 32 << 20;

/// Where the lines lie on the cache device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheSpace {
    /// First byte of the first slot.
    pub data_offset: u64,
    /// Bytes from there that may be used.
    pub length: u64,
    /// The largest read or write that the cache device takes.
    pub transfer_max: u32,
}

/// The cache of one volume. See the module.
pub struct Cache {
    mode: CacheMode,
    line_size: LineSize,
    region: u64,
    data_offset: u64,
    geometry: Geometry,
    index: Index,
    locks: LockTable,
    requests: Table<ClientRequest>,
    pieces: Table<Piece>,
    fills: Fills,
    doubt: Doubt,
    /// Requests of which a part could not be cut yet, because the table of pieces was full.
    uncut: VecDeque<u16>,
    /// Pieces that hold their lock and are to be started.
    startable: Vec<PieceIndex>,
    /// A read's slots by line, kept for its memory.
    slots: Vec<Option<Slot>>,
    statistics: Statistics,
    outbox: Outbox,
}

impl Cache {
    /// A cold cache in `space` for an origin of geometry `origin`.
    ///
    /// # Errors
    /// When the space is smaller than one set of lines, or too small for an origin of this size;
    /// the message says how much is needed.
    pub fn new(
        config: CacheConfig,
        origin: Geometry,
        space: CacheSpace,
    ) -> Result<Self, DeviceError> {
        let line = config.line_size.bytes();
        let set = line * WAYS as u64;
        let sets = u32::try_from(space.length / set).unwrap_or(u32::MAX);
        if sets == 0 {
            return Err(DeviceError::new(format!(
                "cache size: {} bytes for lines are less than one set of {WAYS} lines of {} \
                 ({set} bytes); make the cache larger or the line size smaller",
                space.length, config.line_size
            )));
        }
        let lines = origin.capacity.div_ceil(line).max(1);
        let index = Index::new(lines, sets, config.line_size).map_err(|needed| {
            DeviceError::new(format!(
                "cache size: {sets} sets of lines of {} are too few for an origin of {} bytes; \
                 at least {needed} sets ({} bytes) are needed",
                config.line_size,
                origin.capacity,
                needed * set
            ))
        })?;
        let transfer_max = u64::from(origin.transfer_max.min(space.transfer_max));
        let region = (REGION_MAX.min(transfer_max) + 1).next_power_of_two() / 2;
        if region < line {
            return Err(DeviceError::new(format!(
                "line size {}: a device takes transfers of {transfer_max} bytes at the most",
                config.line_size
            )));
        }
        let pieces_max = config.requests_max * 2;
        Ok(Self {
            mode: config.mode,
            line_size: config.line_size,
            region,
            data_offset: space.data_offset,
            geometry: Geometry { transfer_max: TRANSFER_MAX, zeroes_max: 1 << 32, ..origin },
            index,
            locks: LockTable::new(pieces_max, region),
            requests: Table::new(config.requests_max),
            pieces: Table::new(pieces_max),
            fills: Fills::new(config.fills_max),
            doubt: Doubt::default(),
            uncut: VecDeque::with_capacity(config.requests_max),
            startable: Vec::with_capacity(pieces_max),
            slots: Vec::with_capacity((region / line) as usize),
            statistics: Statistics::default(),
            outbox: Outbox::default(),
        })
    }

    /// What the cached volume looks like to a client: the origin, with larger transfers.
    pub fn geometry(&self) -> Geometry {
        self.geometry
    }

    /// Counters since the start.
    pub fn statistics(&self) -> Statistics {
        self.statistics
    }

    /// The mode that requests starting now follow.
    pub fn mode(&self) -> CacheMode {
        self.mode
    }

    /// Changes the mode for every request that starts from now on.
    pub fn set_mode(&mut self, mode: CacheMode) {
        self.mode = mode;
    }

    /// The line size.
    pub fn line_size(&self) -> LineSize {
        self.line_size
    }

    /// Bytes of data that the cache can hold.
    pub fn capacity(&self) -> u64 {
        self.index.slots() * self.line_size.bytes()
    }

    /// Bytes of memory that the index takes.
    pub fn index_memory_bytes(&self) -> u64 {
        self.index.memory_bytes()
    }

    /// Client requests in flight.
    pub fn in_flight(&self) -> usize {
        self.requests.len()
    }

    /// Stores into the cache device in flight.
    pub fn fills_in_flight(&self) -> usize {
        self.fills.len()
    }

    /// Declares that no write that failed before this call can reach the origin any more (its
    /// connection is fenced): ranges in doubt are cached again.
    pub fn fence(&mut self) {
        self.doubt.clear();
    }

    /// Takes a client's request. Its answer appears in the outbox, at once or later.
    ///
    /// # Errors
    /// The request itself, when `requests_max` are in flight.
    pub fn submit(&mut self, _now: Timestamp, request: Request) -> Result<(), Request> {
        if self.requests.is_full() {
            return Err(request);
        }
        if let Err(error) = self.check(&request) {
            self.outbox.replies.push(request.complete(Err(error)));
            return Ok(());
        }
        let name = self.requests.insert(ClientRequest::new(request));
        if self.requests[name].operation() == Operation::Flush {
            self.outbox.origin.push(Request::flush(Token::Flush { request: name }.id()));
        } else {
            self.cut(name);
            self.start_pieces();
        }
        Ok(())
    }

    /// Takes the answer of either device to a request from the outbox. Which device it was is in
    /// the id. The buffer of the completion is the caller's to drop.
    pub fn complete(&mut self, _now: Timestamp, id: RequestId, result: Result<(), IoError>) {
        match Token::of(id) {
            Token::Change { piece } => self.change_done(piece, result),
            Token::OriginRead { piece, first, count } => {
                self.origin_read_done(piece, first, count, result);
            }
            Token::CacheRead { piece, line } => self.cache_read_done(piece, line, result),
            Token::Fill { fill } => {
                if result.is_err() {
                    self.statistics.cache_write_errors += 1;
                }
                if let Some(ended) = self.fills.cache_done(fill, result.is_ok()) {
                    self.fill_ended(&ended);
                }
            }
            Token::Flush { request } => {
                self.requests[request].note(result);
                self.answer(request);
            }
            Token::Metadata { .. } => {}
        }
        self.start_pieces();
    }

    /// What is to be done; take everything out after each call of `submit` and `complete`.
    pub fn outbox(&mut self) -> &mut Outbox {
        &mut self.outbox
    }

    fn check(&self, request: &Request) -> Result<(), IoError> {
        self.geometry.check(request.operation, request.extent)?;
        let length = request.buffer.as_ref().map(|buffer| buffer.len() as u64);
        let wanted = request.operation.carries_data().then_some(request.extent.length);
        if length == wanted { Ok(()) } else { Err(IoError::InvalidArgument) }
    }

    fn fill_ended(&mut self, ended: &Ended) {
        self.index.validate(ended.slot, ended.install);
        self.index.set_busy(ended.slot, ended.line_is_busy);
    }

    /// The lines that a piece touches, with the part of it in each.
    fn line_parts(&self, extent: Extent) -> impl Iterator<Item = (LineNumber, Extent)> + use<> {
        let shift = self.line_size.shift();
        extent
            .split(self.line_size.bytes())
            .map(move |part| (LineNumber(part.offset >> shift), part))
    }

    /// Where bytes of the volume lie on the cache device if their line is in `slot`.
    fn cache_offset(&self, slot: Slot, volume_offset: u64) -> u64 {
        let line = self.line_size.bytes();
        self.data_offset + u64::from(slot.0) * line + (volume_offset & (line - 1))
    }

    /// The sectors of `part`, which lies within one line.
    fn sectors_of(&self, part: Extent) -> sectors::SectorSet {
        sectors::SectorSet::of_bytes(part.offset & (self.line_size.bytes() - 1), part.length)
    }
}

#[cfg(test)]
mod tests;
