//! Starting the cache that is on a device: formatted if it has to be, opened if it is ours.
//!
//! ```text
//!   probe ─┬─ unused, older, or forced ──▶ format ──┐
//!          ├─ ours ─────────────────────────────────┴──▶ Cache::open ──▶ CacheEngine
//!          └─ somebody else's, or of another line size ──▶ refused, with what to do
//! ```
//! Absent: volumes ([`super::attach`]), which cold starts and clean stops are a matter of.

use block_io::{BlockQueue, BufferPool, DeviceError, Timestamp};

use super::CacheEngine;
use super::cache_device::{self, FormatOptions};
use crate::cache::metadata::probe::Probe;
use crate::cache::metadata::{FormatId, Superblock};
use crate::cache::{Cache, CacheConfig, LineSize};

/// Random ids, never used before: this library has no chance of its own.
#[derive(Clone, Copy, Debug)]
pub struct FreshIds {
    /// For a device that is formatted.
    pub format: FormatId,
    /// For a device of ours that starts cold.
    pub cold_start: FormatId,
}

/// How a cache device is taken into use.
#[derive(Clone, Debug)]
pub struct OpeningOptions {
    /// Everything about the cache but its line size.
    pub config: CacheConfig,
    /// What a device of ours must have, and any other is formatted with.
    pub line_size: Option<LineSize>,
    /// Format the device whatever it holds.
    pub force_format: bool,
    /// See there.
    pub fresh: FreshIds,
}

/// Opens the cache on a device, and says what an operator should know of how. The engine has no
/// volumes yet and has not been polled. `turn` is told when it must return at the latest, lets the
/// devices' runtime move on, and returns the time.
///
/// # Errors
/// When the device fails, is read-only or too small, holds foreign data and `force_format` is not
/// set, or is a cache that this program must not use or with another line size than asked for. It
/// has not been written to then, unless it failed while it was.
pub fn open_cache<Origin: BlockQueue, CacheDevice: BlockQueue>(
    mut queue: CacheDevice,
    pool: &BufferPool,
    options: OpeningOptions,
    turn: &mut dyn FnMut(Option<Timestamp>) -> Result<Timestamp, DeviceError>,
) -> Result<(CacheEngine<Origin, CacheDevice>, Vec<String>), DeviceError> {
    if queue.geometry().read_only {
        return Err(DeviceError::new("cache device: it is read-only; a cache needs to write"));
    }
    let found = cache_device::open(&mut queue, pool, || turn(None))?;
    let (line_size, told) = match found {
        Probe::Ours(superblock) if !options.force_format => {
            check(&superblock, options.line_size)?;
            return start(queue, pool, options, *superblock).map(|engine| (engine, Vec::new()));
        }
        Probe::Ours(_) => (None, "held a cache and is formatted by force".to_owned()),
        Probe::Older { version, line_size } => {
            let told =
                format!("had format version {version}, which records no lines, and is upgraded");
            (Some(line_size), told)
        }
        Probe::Zeroed => (None, "was unused and is formatted".to_owned()),
        // Formatting refuses if it is not forced.
        Probe::Foreign(_) => (None, "held something else and is formatted by force".to_owned()),
    };
    let format = FormatOptions {
        line_size: options.line_size.or(line_size).unwrap_or_default(),
        force_format: options.force_format,
        format_id: options.fresh.format,
    };
    let superblock = cache_device::format(&mut queue, pool, format, || turn(None))?;
    let told = format!("{told} with lines of {}; it starts cold", superblock.layout.line_size);
    start(queue, pool, options, superblock).map(|engine| (engine, vec![told]))
}

fn start<Origin: BlockQueue, CacheDevice: BlockQueue>(
    queue: CacheDevice,
    pool: &BufferPool,
    options: OpeningOptions,
    superblock: Superblock,
) -> Result<CacheEngine<Origin, CacheDevice>, DeviceError> {
    let transfer_max = queue.geometry().transfer_max;
    let fresh = options.fresh.cold_start;
    let cache = Cache::open(options.config, superblock, transfer_max, fresh, pool.clone())?;
    Ok(CacheEngine::new(cache, queue))
}

/// Whether a device of ours can be used as it is.
fn check(superblock: &Superblock, asked: Option<LineSize>) -> Result<(), DeviceError> {
    let there = superblock.layout.line_size;
    if let Some(asked) = asked.filter(|asked| *asked != there) {
        return Err(DeviceError::new(format!(
            "line size {asked}: the cache device has lines of {there}; leave --line-size out to \
             use it as it is, or give --force-format to give up what it holds"
        )));
    }
    if superblock.shard_count != 1 {
        return Err(DeviceError::new(format!(
            "cache device: it is part {} of {} of a cache; this program uses caches of one part",
            superblock.shard_index + 1,
            superblock.shard_count
        )));
    }
    Ok(())
}
