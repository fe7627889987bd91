//! Taking a device into use as a cache: an unused one is formatted, one of ours is opened,
//! anybody else's is left untouched.
//!
//! ```text
//!   what it is   Zeroed, Foreign (forced)   Older (v1: data from B on)   Ours
//!     1          zero A, B and activity     zero B and activity          one superblock, s + 1
//!     2          A, sequence 0              B, sequence 1                zero activity
//!     3          B, sequence 1              A, sequence 2                the other, s + 2
//! ```
//! Each step is durable before the next begins. So a device that was ours is ours after a crash at
//! any moment, as before or as new, and a superblock never stands before activity pages that are
//! not its own or empty. The journal and the line table need no zeroing: what stands there is of
//! another format id, and counts as empty.
//!
//! Absent: deciding what may be served ([`crate::cache::metadata`]), and all later writes.

use block_io::{BlockQueue, BufferPool, DeviceError, Extent, Timestamp};

use super::exchange::Exchange;
use crate::cache::metadata::layout::SUPERBLOCK_REGION;
use crate::cache::metadata::probe::{FRONT_LENGTH, PROBE_LENGTH, Probe, is_zeroed, probe};
use crate::cache::metadata::{FormatId, Layout, Superblock};
use crate::cache::{CacheSpace, LineSize};

/// How a device is formatted.
#[derive(Clone, Copy, Debug)]
pub struct FormatOptions {
    /// Bytes of a line.
    pub line_size: LineSize,
    /// Overwrite whatever the device holds.
    pub force_format: bool,
    /// What this formatting is told from others by; random, from the caller.
    pub format_id: FormatId,
}

/// How a device is taken into use.
#[derive(Clone, Copy, Debug)]
pub struct PrepareOptions {
    /// Line size to record.
    pub line_size: LineSize,
    /// Overwrite whatever the device holds.
    pub force_format: bool,
    /// Identity to record when it is formatted; random, from the caller.
    pub identity: [u8; 16],
}

/// What was found, for the operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// It was unused and is formatted now.
    Unused,
    /// It was one of ours. Nothing of what it holds is used.
    Ours,
    /// It was somebody else's, and formatting was forced.
    Forced,
}

/// Makes the device a cold cache if it may be one. `turn` is as for [`open`].
///
/// # Errors
/// As [`format()`].
pub fn prepare<Queue: BlockQueue>(
    queue: &mut Queue,
    pool: &BufferPool,
    options: PrepareOptions,
    turn: impl FnMut() -> Result<Timestamp, DeviceError>,
) -> Result<(CacheSpace, Found), DeviceError> {
    let transfer_max = queue.geometry().transfer_max;
    let PrepareOptions { line_size, force_format, identity } = options;
    let options = FormatOptions { line_size, force_format, format_id: FormatId(identity) };
    let (superblock, before) = format_what_is(queue, pool, options, turn)?;
    let found = match before {
        Probe::Zeroed => Found::Unused,
        Probe::Ours(_) | Probe::Older { .. } => Found::Ours,
        Probe::Foreign(_) => Found::Forced,
    };
    let Layout { data_offset, .. } = superblock.layout;
    let length = superblock.layout.data_length();
    Ok((CacheSpace { data_offset, length, transfer_max }, found))
}

/// Reads the start of the device and says what it is used for, without writing to it. `turn` lets
/// the device's runtime move on (a reactor's turn) and returns the time.
///
/// # Errors
/// When the device fails.
pub fn open<Queue: BlockQueue>(
    queue: &mut Queue,
    pool: &BufferPool,
    turn: impl FnMut() -> Result<Timestamp, DeviceError>,
) -> Result<Probe, DeviceError> {
    look(&mut Exchange::new(queue, pool, turn))
}

/// Makes the device an empty cache and returns its superblock. A cache that is there already, of
/// this version or an earlier one, is given up.
///
/// # Errors
/// When the device is too small, read-only, fails, or holds foreign data and `force_format` is not
/// set; it has not been written to then, unless it failed while it was.
pub fn format<Queue: BlockQueue>(
    queue: &mut Queue,
    pool: &BufferPool,
    options: FormatOptions,
    turn: impl FnMut() -> Result<Timestamp, DeviceError>,
) -> Result<Superblock, DeviceError> {
    format_what_is(queue, pool, options, turn).map(|(superblock, _)| superblock)
}

/// Writes a superblock to its place and waits until it is durable. The one before it stays where
/// it is, should this not succeed.
///
/// # Errors
/// When the device fails; either of the two may count then.
pub fn write_superblock<Queue: BlockQueue>(
    queue: &mut Queue,
    pool: &BufferPool,
    superblock: &Superblock,
    turn: impl FnMut() -> Result<Timestamp, DeviceError>,
) -> Result<(), DeviceError> {
    put(&mut Exchange::new(queue, pool, turn), superblock)
}

/// Formats, and says what was there.
fn format_what_is<Queue: BlockQueue>(
    queue: &mut Queue,
    pool: &BufferPool,
    options: FormatOptions,
    turn: impl FnMut() -> Result<Timestamp, DeviceError>,
) -> Result<(Superblock, Probe), DeviceError> {
    let geometry = queue.geometry();
    let layout = Layout::for_device(geometry.capacity, options.line_size)?;
    if geometry.read_only {
        return Err(DeviceError::new("cache device: it is read-only; a cache needs to write"));
    }
    let mut exchange = Exchange::new(queue, pool, turn);
    let before = look(&mut exchange)?;
    let mut superblock = Superblock::new(options.format_id, layout);
    let (activity, journal) = (layout.activity_offset, layout.journal_offset);
    match &before {
        Probe::Foreign(what) if !options.force_format => {
            return Err(DeviceError::new(format!(
                "cache device: it holds {what}; use another one, or --force-format to overwrite it"
            )));
        }
        Probe::Ours(old) => {
            superblock.sequence = old.sequence + 1;
            put(&mut exchange, &superblock)?;
            zero(&mut exchange, activity, journal)?;
        }
        Probe::Older { .. } => {
            zero(&mut exchange, SUPERBLOCK_REGION, journal)?;
            superblock.sequence = 1;
            put(&mut exchange, &superblock)?;
        }
        Probe::Zeroed | Probe::Foreign(_) => {
            zero(&mut exchange, 0, journal)?;
            put(&mut exchange, &superblock)?;
        }
    }
    superblock.sequence += 1;
    put(&mut exchange, &superblock)?;
    Ok((superblock, before))
}

/// Reads the start of a device and tells what it is used for.
fn look<Queue: BlockQueue>(
    exchange: &mut Exchange<'_, Queue, impl FnMut() -> Result<Timestamp, DeviceError>>,
) -> Result<Probe, DeviceError> {
    let capacity = exchange.capacity();
    let doing = "cache device: reading its start";
    let mut front = Extent::new(0, PROBE_LENGTH.min(capacity)).split(FRONT_LENGTH);
    let mut read = |part: Extent| exchange.read(doing, part.offset, part.length as usize);
    let mut found = match front.next() {
        Some(part) => probe(&read(part)?),
        None => Probe::Zeroed,
    };
    // A cache says so at its front; an unused device is zeroes much further.
    while found == Probe::Zeroed
        && let Some(part) = front.next()
    {
        if !is_zeroed(&read(part)?) {
            found = Probe::unknown();
        }
    }
    match &found {
        Probe::Ours(superblock) if superblock.layout.capacity > capacity => {
            Ok(Probe::Foreign(format!(
                "a Forebay cache of {} bytes, but the device has only {capacity}",
                superblock.layout.capacity
            )))
        }
        _ => Ok(found),
    }
}

fn put<Queue: BlockQueue>(
    exchange: &mut Exchange<'_, Queue, impl FnMut() -> Result<Timestamp, DeviceError>>,
    superblock: &Superblock,
) -> Result<(), DeviceError> {
    let bytes = superblock.encode();
    exchange.write("cache device: writing its superblock", superblock.offset(), &bytes)
}

/// Writes zeroes from `start` up to `end`.
fn zero<Queue: BlockQueue>(
    exchange: &mut Exchange<'_, Queue, impl FnMut() -> Result<Timestamp, DeviceError>>,
    start: u64,
    end: u64,
) -> Result<(), DeviceError> {
    exchange.write("cache device: writing zeroes", start, &vec![0; (end - start) as usize])
}

#[cfg(test)]
mod tests;
