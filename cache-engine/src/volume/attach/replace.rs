//! Another cache device under a cache that runs, with all its volumes attached to it.
//!
//! ```text
//!   format the new one ─▶ would it do? ─▶ detach the old one: all requests go to the origins
//!     ─▶ nothing in flight there ─▶ change over ─▶ note and record each volume anew
//! ```
//! What is wrong with the new device is found before the old one is given up. The new one starts
//! empty, and the old one is not served again, as after a failure of it.
//!
//! Absent: opening devices, and closing the old one, which is whose it is.

use block_io::{BlockQueue, BufferPool, DeviceError};

use super::{
    AttachOptions, Turn, check_device, note_attachment, put_record, record, until, until_event,
};
use crate::cache::cipher::LineCipher;
use crate::cache::{Cache, Event, VolumeId};
use crate::volume::CacheEngine;
use crate::volume::cache_device::{self, FormatOptions};
use crate::volume::opening::FreshIds;

/// How a cache device is replaced.
#[derive(Clone, Copy, Debug)]
pub struct ReplaceOptions {
    /// Format the new device whatever it holds.
    pub force_format: bool,
    /// See there.
    pub fresh: FreshIds,
}

/// Uses the device behind `queue` from now on, empty, for all `volumes` of the cache, each with how
/// it is attached. No request fails. `turn` also answers [`Event::Disown`], which an old device
/// that fails makes the cache say.
///
/// # Errors
/// When the cache is in memory, or the new device fails, is read-only, too small, or holds foreign
/// data and `force_format` is not set: the old one is in use as before. When a volume cannot be
/// noted or recorded: the new device is in use, and cold at the next start.
pub fn replace<Origin: BlockQueue, CacheDevice: BlockQueue>(
    engine: &CacheEngine<Origin, CacheDevice>,
    mut queue: CacheDevice,
    pool: &BufferPool,
    options: ReplaceOptions,
    volumes: &[(VolumeId, AttachOptions<'_>)],
    turn: &mut Turn<'_>,
) -> Result<(), DeviceError> {
    if engine.cache().superblock().is_none() {
        return Err(DeviceError::new(
            "cache device: the cache is in memory; only one that is on a device can move to \
             another",
        ));
    }
    let format = FormatOptions {
        line_size: engine.cache().line_size(),
        force_format: options.force_format,
        format_id: options.fresh.format,
    };
    let superblock = cache_device::format(&mut queue, pool, format, || turn(None))?;
    let transfer_max = queue.geometry().transfer_max;
    engine.cache().check_replacement(&superblock, transfer_max)?;
    until(engine, turn, |cache| cache.is_settled() || cache.is_degraded())?;
    engine.change(Cache::detach);
    until(engine, turn, Cache::is_detached)?;
    let fresh = options.fresh.cold_start;
    let cipher = |id: VolumeId, attached: &AttachOptions<'_>| {
        attached.key.map(|key| LineCipher::new(&key.for_volume(&fresh.0, id.0)))
    };
    for (id, attached) in volumes {
        engine.change(|cache| cache.set_cipher(*id, cipher(*id, attached)))?;
    }
    engine.replace_device(queue, superblock, fresh)?;
    until_event(engine, turn, &Event::Replaced, || Ok(()))?;
    until(engine, turn, |cache| cache.is_settled() || cache.is_degraded())?;
    check_device(engine)?;
    let superblock = engine.cache().superblock().cloned();
    let superblock = superblock.expect("the new device has one");
    debug_assert_eq!(superblock.format_id, fresh, "keys are derived from it");
    for (id, attached) in volumes {
        let epoch = note_attachment(attached, &superblock)?;
        put_record(engine, record(engine, *id, attached, epoch), turn)?;
    }
    Ok(())
}
