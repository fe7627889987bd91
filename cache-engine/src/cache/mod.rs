//! The cache: a state machine that turns clients' requests into requests for devices.
//!
//! ```text
//!   submit ──▶ one line, all valid? ──yes──▶ hit in place ────────────────┐
//!                 └─no─▶ cut at regions ──▶ piece ──lock──▶ mode::{…}      │
//!                                                              │           │
//!              outbox { origin, cache, replies } ◀─────────────┴───────────┤
//!   complete ─────────────────────────────────────────────────▶ fill, reply, unlock
//! ```
//! The types to know: [`Cache`], which owns everything; a *volume*, a range of one flat space of
//! bytes ([`volumes`]); a *piece*, the part of a request within one lock region; a *fill*, a store
//! into the cache device that no client waits for; the *keeper* ([`persistence`]), which makes
//! sure that what is on the device can be used after a crash.
//!
//! What keeps it right:
//! * A piece holds the lock of its bytes from start to answer ([`line_lock`]), so that overlapping
//!   requests happen one after another on both devices.
//! * A hit in place holds no lock; it is thrown away when its set's version has changed ([`hit`]).
//! * A write makes the cached copy invalid before it is sent to the origin, and valid again only
//!   when origin and cache device both have it.
//! * A fill never makes valid what a later write has touched ([`fill`]).
//! * Nothing is served or stored from the end of a volume's lease on ([`lease`]).
//! * A slot changes its line only when nobody reads or writes the old one, or whoever reads it will
//!   notice.
//! * Before a write is sent to the origin, what the cache device says of its range is void after a
//!   crash ([`keeping`]).
//!
//! Absent: I/O, clocks, threads, random numbers; dirty data (the origin always has everything).

mod administration;
mod atomics;
mod block_map;
pub(crate) mod blocks;
pub mod cipher;
pub mod config;
mod content;
mod doubt;
pub(crate) mod entry;
pub(crate) mod eviction;
mod fill;
pub mod guests;
mod health;
mod hit;
pub(crate) mod index;
mod keeping;
mod lease;
mod letting_go;
pub(crate) mod line;
mod line_lock;
pub mod metadata;
pub mod miss_ratio;
mod mode;
mod outbox;
pub(crate) mod persistence;
mod piece;
pub mod policy;
mod replacement;
mod statistics;
mod store;
mod survey;
mod sweeps;
mod table;
mod unflushed;
mod verification;
mod volumes;

pub use administration::VolumeSettings;
pub use config::{CacheConfig, CacheMode, LineSize, VOLUMES_MAX, Verification, VolumeId};
pub use keeping::ColdReason;
pub use lease::LeaseStanding;
pub use outbox::{Event, Outbox, Ticket};
pub use persistence::PersistenceStatistics;
pub use statistics::Statistics;
pub use volumes::Span;

use std::collections::VecDeque;

use block_io::{
    BufferPool, Completion, DeviceError, Extent, IoError, Operation, Request, Timestamp,
};

use blocks::BlockSet;
use content::ChecksumTable;
use entry::WAYS;
use fill::Fills;
use guests::Guests;
use health::Health;
use hit::HitRead;
use index::{Index, Slot};
use keeping::{Recording, Told};
use lease::Leases;
use letting_go::Leaving;
use line::{LineMap, LineNumber};
use line_lock::{LockTable, PieceIndex};
use miss_ratio::MissRatioCurve;
use outbox::Token;
use persistence::Persistence;
use piece::{ClientRequest, Piece};
use policy::Policy;
use replacement::NewDevice;
use sweeps::{Purge, Sweep};
use table::Table;
use verification::Verifications;
use volumes::Volumes;

/// A piece lies within one region of this size, or of the devices' largest transfer if smaller.
const REGION_MAX: u64 = 1 << 20;

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

/// A cache. See the module.
pub struct Cache {
    line_size: LineSize,
    verification: Verification,
    region: u64,
    data_offset: u64,
    requests_max: usize,
    errors_max: u32,
    now: Timestamp,
    pool: BufferPool,
    volumes: Volumes,
    leases: Leases,
    guests: Guests,
    index: Index,
    /// Of every block, where each read is checked.
    checksums: Option<ChecksumTable>,
    locks: LockTable,
    hits: Table<HitRead>,
    requests: Table<ClientRequest>,
    pieces: Table<Piece>,
    fills: Fills,
    verifications: Verifications,
    policy: Policy,
    /// What caches of other sizes would do, where it is wanted.
    curve: Option<Box<MissRatioCurve>>,
    keeper: Option<Box<Persistence>>,
    /// Changes of the superblock on their way.
    recordings: VecDeque<Recording>,
    told: Told,
    cold: Option<ColdReason>,
    stopping: bool,
    /// Kept for its memory.
    loaded_slots: Vec<Slot>,
    health: Health,
    /// Takes the place of the cache device when nothing is in flight.
    new_device: Option<Box<NewDevice>>,
    /// Reads of the cache device in flight, but for hits in place.
    cache_reads: usize,
    changes_max: usize,
    extents_per_page: usize,
    records_min: u64,
    /// Requests of which a part could not be cut yet, because the table of pieces was full.
    uncut: VecDeque<u16>,
    /// Pieces that hold their lock and are to be started.
    startable: Vec<PieceIndex>,
    /// A read's slots by line, kept for its memory.
    slots: Vec<Option<Slot>>,
    /// Lines in slots that belong to no volume any more; they go first. May count too many.
    orphans: u64,
    sweeps: VecDeque<Sweep>,
    /// Extents whose lines are being dropped.
    leaving: VecDeque<Leaving>,
    /// When an origin is to be flushed of what is not cached until then.
    flush_due: Option<Timestamp>,
    /// Lines that the policy wants dropped, and the set where the search goes on.
    purge: Purge,
    tickets: u64,
    outbox: Outbox,
}

impl Cache {
    /// A cold cache in `space`, without volumes. Nothing of it outlives the process.
    ///
    /// # Errors
    /// When the space is smaller than one set of lines; the message says how much is needed.
    pub fn in_memory(
        config: CacheConfig,
        space: CacheSpace,
        pool: BufferPool,
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
        Self::new(config, sets, space, pool)
    }

    fn new(
        config: CacheConfig,
        sets: u32,
        space: CacheSpace,
        pool: BufferPool,
    ) -> Result<Self, DeviceError> {
        let line = config.line_size.bytes();
        let transfer_max = u64::from(space.transfer_max);
        let region = (REGION_MAX.min(transfer_max) + 1).next_power_of_two() / 2;
        if region < line {
            return Err(DeviceError::new(format!(
                "line size {}: the cache device takes transfers of {transfer_max} bytes at most",
                config.line_size
            )));
        }
        let now = Timestamp::default();
        let slots = u64::from(sets) * WAYS as u64;
        let policy = Policy::new(now, config.line_size, slots, &config.policy, |_| None)
            .map_err(DeviceError::new)?;
        let lines = LineMap::lines_for(sets);
        let index = Index::new(lines, sets, config.line_size).expect("as many as the tags allow");
        let blocks = BlockSet::all(config.line_size).count() as usize;
        let checked = config.verification == Verification::Always;
        let pieces_max = config.requests_max * 2;
        Ok(Self {
            line_size: config.line_size,
            verification: config.verification,
            region,
            data_offset: space.data_offset,
            requests_max: config.requests_max,
            errors_max: config.errors_max,
            now,
            pool,
            volumes: Volumes::new(lines << config.line_size.shift()),
            leases: Leases::default(),
            guests: Guests::default(),
            checksums: checked.then(|| ChecksumTable::new(index.slots(), blocks)),
            policy,
            curve: survey::curve(&config),
            index,
            locks: LockTable::new(pieces_max, region),
            hits: Table::new(config.requests_max),
            requests: Table::new(config.requests_max),
            pieces: Table::new(pieces_max),
            fills: Fills::new(config.fills_max, blocks),
            verifications: Verifications::default(),
            keeper: None,
            recordings: VecDeque::new(),
            told: Told::default(),
            cold: None,
            stopping: false,
            loaded_slots: Vec::new(),
            health: Health::default(),
            new_device: None,
            cache_reads: 0,
            changes_max: pieces_max + config.fills_max,
            extents_per_page: config.extents_per_page,
            records_min: config.records_min,
            uncut: VecDeque::with_capacity(config.requests_max),
            startable: Vec::with_capacity(pieces_max),
            slots: Vec::with_capacity((region / line) as usize),
            orphans: 0,
            sweeps: VecDeque::new(),
            leaving: VecDeque::new(),
            flush_due: None,
            purge: Purge::default(),
            tickets: 0,
            outbox: Outbox::default(),
        })
    }

    /// The line size.
    pub fn line_size(&self) -> LineSize {
        self.line_size
    }

    /// Bytes of data that the cache can hold.
    pub fn capacity(&self) -> u64 {
        self.index.slots() * self.line_size.bytes()
    }

    /// Lines that hold something, be it of a volume that is gone.
    pub fn lines_in_use(&self) -> u64 {
        self.index.occupied()
    }

    /// Whether the cache device was given up in this run; everything passes through then.
    pub fn is_degraded(&self) -> bool {
        self.health.is_degraded()
    }

    /// Bytes of memory that grow with the cache: the index, and checksums where each read is
    /// checked.
    pub fn index_memory_bytes(&self) -> u64 {
        let checksums = self.checksums.as_ref().map_or(0, ChecksumTable::memory_bytes);
        self.index.memory_bytes() + checksums
    }

    /// Client requests in flight, of all volumes.
    pub fn in_flight(&self) -> usize {
        self.requests.len() + self.hits.len()
    }

    /// Whether nothing is in flight, stores into the cache included.
    pub fn is_quiet(&self) -> bool {
        self.in_flight() == 0 && self.fills.len() == 0
    }

    /// Stores into the cache device in flight.
    pub fn fills_in_flight(&self) -> usize {
        self.fills.len()
    }

    /// Whether a request more than `others` that are about to be submitted is likely to be taken.
    pub fn has_room_beside(&self, others: usize) -> bool {
        self.in_flight() + others < self.requests_max && !self.stopping
    }

    /// Asks for the memory that a request of `extent` will be looked up in: for whoever has several
    /// requests at hand, before the first is submitted. A hint; in a cache of a terabyte half of
    /// what a hit takes is waiting for that memory.
    #[inline]
    pub fn prefetch(&self, id: VolumeId, extent: Extent) {
        if let Some(volume) = self.volumes.get(id)
            && extent.offset < volume.geometry.capacity
        {
            let flat = volume.base() + extent.offset;
            self.index.prefetch(LineNumber(flat >> self.line_size.shift()));
        }
    }

    /// Takes a client's request. Its answer appears in the outbox, at once or later.
    ///
    /// # Errors
    /// The request itself, when `requests_max` are in flight.
    pub fn submit(
        &mut self,
        now: Timestamp,
        id: VolumeId,
        request: Request,
    ) -> Result<(), Request> {
        self.now = now;
        if self.in_flight() >= self.requests_max || self.stopping {
            return Err(request);
        }
        if let Err(error) = self.check(id, &request) {
            self.outbox.replies.push((id, request.complete(Err(error))));
            return Ok(());
        }
        self.volumes[id].in_flight += 1;
        let (operation, extent) = (request.operation, request.extent);
        match operation {
            Operation::Read => self.note_read(id, extent),
            // Its lines are looked at later than a read's; what comes before is done meanwhile.
            Operation::Write => self.prefetch(id, extent),
            _ => {}
        }
        let request = match operation {
            Operation::Read if self.gate_is_open() => match self.try_hit(id, request) {
                Ok(()) => return Ok(()),
                Err(request) => request,
            },
            _ => request,
        };
        let verdict = self.policy.observe(id, operation, extent);
        self.volumes[id].statistics.sequential_bypasses += u64::from(verdict.bypass);
        self.begin(id, verdict, request);
        self.hear_keeper();
        Ok(())
    }

    /// Takes the answer of any device to a request from the outbox. What it was is in the id.
    pub fn complete(&mut self, now: Timestamp, completion: Completion) {
        self.now = now;
        self.expire_leases();
        let result = completion.result;
        match Token::of(completion.id) {
            Token::Hit { hit } => {
                self.hit_done(hit, completion);
                if self.new_device.is_some() {
                    self.change_over();
                }
                return;
            }
            Token::Change { piece } => self.change_done(piece, result),
            Token::OriginRead { piece, first, count } => {
                self.origin_read_done(piece, first, count, completion);
            }
            Token::CacheRead { piece, line } => {
                self.cache_reads -= 1;
                self.cache_read_done(piece, line, completion);
            }
            Token::Verification { piece, line } => {
                self.cache_reads -= 1;
                self.line_read(piece, line, completion);
            }
            Token::Fill { fill } => self.fill_done(fill, result),
            Token::Flush { request } => self.flush_done(request, result),
            Token::OwnFlush { volume } => self.own_flush_done(VolumeId(volume), result),
            Token::Metadata { index } => self.metadata_done(index, result),
        }
        self.start_pieces();
        self.hear_keeper();
        if self.new_device.is_some() {
            self.change_over();
        }
    }

    /// What is to be done; take everything out after each call of `submit`, `complete`, `tick` and
    /// the administrative ones.
    pub fn outbox(&mut self) -> &mut Outbox {
        &mut self.outbox
    }

    fn check(&self, id: VolumeId, request: &Request) -> Result<(), IoError> {
        let volume = self.volumes.get(id).ok_or(IoError::InvalidArgument)?;
        volume.geometry.check(request.operation, request.extent)?;
        let length = request.buffer.as_ref().map(|buffer| buffer.len() as u64);
        let wanted = request.operation.carries_data().then_some(request.extent.length);
        if length == wanted { Ok(()) } else { Err(IoError::InvalidArgument) }
    }

    fn fill_done(&mut self, fill: fill::FillIndex, result: Result<(), IoError>) {
        if let Err(error) = result {
            let line = self.fills.line(fill);
            if let Some(id) = self.volumes.at(line.0 << self.line_size.shift()) {
                self.volumes[id].statistics.cache_write_errors += 1;
            }
            self.device_failed("a store", error);
        }
        if let Some(ended) = self.fills.cache_done(fill, result.is_ok()) {
            self.fill_ended(&ended);
        }
    }

    /// The lines that a flat extent touches, with the part of it in each.
    fn line_parts(&self, extent: Extent) -> impl Iterator<Item = (LineNumber, Extent)> + use<> {
        let shift = self.line_size.shift();
        extent
            .split(self.line_size.bytes())
            .map(move |part| (LineNumber(part.offset >> shift), part))
    }

    /// Where flat bytes lie on the cache device if their line is in `slot`.
    fn cache_offset(&self, slot: Slot, flat: u64) -> u64 {
        let line = self.line_size.bytes();
        self.data_offset + u64::from(slot.0) * line + (flat & (line - 1))
    }

    /// The blocks that `part`, which lies within one line, touches.
    fn blocks_touched(&self, part: Extent) -> BlockSet {
        BlockSet::touching(part.offset & (self.line_size.bytes() - 1), part.length)
    }

    fn all_blocks(&self) -> BlockSet {
        BlockSet::all(self.line_size)
    }
}

#[cfg(test)]
mod tests;
