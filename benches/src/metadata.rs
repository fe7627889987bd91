//! A cache's records, kept in memory: the part of a cache device before its data.
//!
//! ```text
//!   0 ──────────── records ──────────── data_offset ──── data ────
//!   read and written as a device does   │  answered, and nothing else
//! ```
//! It counts what is written, by kind of record. Absent: failures, and time.

use block_io::{BufferPool, Operation, Request};
use cache_engine::cache::metadata::probe::{Probe, probe};
use cache_engine::cache::metadata::{
    FormatId, IdentityKind, Layout, OriginIdentity, Superblock, VolumeRecord,
};
use cache_engine::cache::{Cache, CacheConfig, VolumeId};

/// The largest transfer of the devices.
const TRANSFER_MAX: u32 = 1 << 20;
/// Both superblocks lie before here.
const FRONT: usize = 128 << 10;

/// See the module.
pub struct MetadataMemory {
    bytes: Vec<u8>,
    layout: Option<Layout>,
    written: Written,
}

/// Bytes written, by what they are.
#[derive(Clone, Copy, Debug, Default)]
pub struct Written {
    /// Superblocks and activity pages.
    pub activity: u64,
    /// The journal.
    pub journal: u64,
    /// The line table.
    pub table: u64,
}

impl Written {
    /// All together.
    pub fn total(self) -> u64 {
        self.activity + self.journal + self.table
    }
}

impl MetadataMemory {
    /// Of a cache that keeps none.
    pub fn none() -> Self {
        Self { bytes: Vec::new(), layout: None, written: Written::default() }
    }

    /// All zeroes, as on a new device. Pages are taken from the system when first written.
    pub fn new(layout: Layout) -> Self {
        let bytes = vec![0; layout.data_offset as usize];
        Self { bytes, layout: Some(layout), written: Written::default() }
    }

    /// Does what `request` asks for, if it is about records. A flush has nothing to do.
    pub fn serve(&mut self, request: &Request) {
        let (start, end) = (request.extent.offset as usize, request.extent.end() as usize);
        if start >= self.bytes.len() {
            return;
        }
        let Some(buffer) = &request.buffer else { return };
        let place = &mut self.bytes[start..end];
        if request.operation == Operation::Read {
            buffer.copy_from_slice(place);
            return;
        }
        buffer.copy_to_slice(place);
        let Some(layout) = &self.layout else { return };
        let kind = match request.extent.offset {
            offset if offset < layout.journal_offset => &mut self.written.activity,
            offset if offset < layout.table_offset => &mut self.written.journal,
            _ => &mut self.written.table,
        };
        *kind += request.extent.length;
    }

    /// What was written so far, by kind.
    pub fn written(&self) -> Written {
        self.written
    }

    /// What was written so far.
    pub fn bytes_written(&self) -> u64 {
        self.written.total()
    }

    /// Bytes of memory that this takes, which are the device's and not the cache's.
    pub fn memory_bytes(&self) -> u64 {
        self.bytes.capacity() as u64
    }

    /// The superblock that counts.
    ///
    /// # Errors
    /// When there is none.
    pub fn superblock(&self) -> Result<Superblock, String> {
        match probe(&self.bytes[..self.bytes.len().min(FRONT)]) {
            Probe::Ours(superblock) => Ok(*superblock),
            other => Err(format!("the records are no cache's: {other:?}")),
        }
    }
}

/// A cache on a new device of `capacity` bytes, at the beginning of its start.
///
/// # Errors
/// When the device is too small.
pub fn open_new(
    config: CacheConfig,
    capacity: u64,
    pool: BufferPool,
) -> Result<(Cache, MetadataMemory), String> {
    let layout = Layout::for_device(capacity, config.line_size).map_err(|e| e.to_string())?;
    let superblock = Superblock::new(FormatId([1; 16]), layout);
    let cache = open(config, superblock, pool)?;
    Ok((cache, MetadataMemory::new(layout)))
}

/// A cache on the device of that superblock, at the beginning of its start.
///
/// # Errors
/// When the superblock and the configuration do not suit each other.
pub fn open(
    config: CacheConfig,
    superblock: Superblock,
    pool: BufferPool,
) -> Result<Cache, String> {
    Cache::open(config, superblock, TRANSFER_MAX, FormatId([2; 16]), pool)
        .map_err(|error| error.to_string())
}

/// Records a volume of the cache, as whoever serves it does first.
///
/// # Errors
/// When there is no such volume, or no room for its record.
pub fn record(cache: &mut Cache, id: VolumeId) -> Result<(), String> {
    let record = volume_record(cache, id)?;
    cache.record_volume(record).map(drop).map_err(|error| error.to_string())
}

/// What is recorded of a volume named `volume`.
///
/// # Errors
/// When there is no such volume.
pub fn volume_record(cache: &Cache, id: VolumeId) -> Result<VolumeRecord, String> {
    let identity = OriginIdentity::new(IdentityKind::Assigned, "origin");
    let identity = identity.map_err(|error| error.to_string())?;
    cache.volume_record(id, identity).ok_or("the cache has no such volume".into())
}
