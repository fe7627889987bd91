//! Leaving: a volume is taken out of the cache, or the cache is stopped, such that it can be proved
//! the next time that what is cached is right; and giving up what is cached.
//!
//! Absent: how the origin's generation is found ([`crate::backend::origin_identity`]).

use block_io::{BlockQueue, DeviceError, Timestamp};

use super::{Turn, check_device, generation_of, is_known, until_event, until_recorded, writable};
use crate::backend::attachment::StateDirectory;
use crate::cache::metadata::VolumeRecord;
use crate::cache::metadata::identity::GenerationSource;
use crate::cache::{Cache, Event, Ticket, VolumeId};
use crate::volume::{CacheEngine, CachedVolume};

/// How an origin is left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Left {
    /// All that was written is on it, flushed, and this is its generation since.
    InOrder(GenerationSource),
    /// Something that was written may not be on it: nothing cached of it is used again.
    InDoubt,
}

/// Takes a volume out of the cache; what is cached of it stays, for when it comes back. Nothing of
/// it may be in flight.
///
/// # Errors
/// As [`stop`]; what is cached is not used again then.
pub fn detach<Origin: BlockQueue, CacheDevice: BlockQueue>(
    volume: CachedVolume<Origin, CacheDevice>,
    state: &StateDirectory,
    left: Left,
    turn: &mut Turn<'_>,
) -> Result<Origin, DeviceError> {
    let engine = volume.engine().clone();
    let left = [(volume.id(), left)];
    leave(&engine, state, &left, turn)?;
    volume.remove().map_err(|(_, error)| error)
}

/// Ends the cache in order: all that the next start needs is on the device when this returns, and
/// it may be closed. Nothing may be in flight. `left` says how each volume's origin is left.
///
/// # Errors
/// When the cache device or the host's note fails; the next start is as after a crash.
pub fn stop<Origin: BlockQueue, CacheDevice: BlockQueue>(
    engine: &CacheEngine<Origin, CacheDevice>,
    state: &StateDirectory,
    left: &[(VolumeId, Left)],
    turn: &mut Turn<'_>,
) -> Result<(), DeviceError> {
    if engine.cache().superblock().is_none() {
        return Ok(());
    }
    leave(engine, state, left, turn)?;
    engine.change(Cache::stop);
    // A cache that was given up stops too, when its last requests are over.
    until_event(engine, turn, &Event::Stopped, || match engine.take_event(&Event::Disown) {
        true => disown(engine, state),
        false => Ok(()),
    })
}

/// The answer to [`Event::Disown`]: notes for every volume that its origin goes on without a cache,
/// and then lets the writes go on that wait for it.
///
/// # Errors
/// When the note cannot be written: the writes wait on, and this is to be called again.
pub fn disown<Origin: BlockQueue, CacheDevice: BlockQueue>(
    engine: &CacheEngine<Origin, CacheDevice>,
    state: &StateDirectory,
) -> Result<(), DeviceError> {
    let identities: Vec<_> = {
        let cache = engine.cache();
        let superblock = cache.superblock().into_iter();
        let attached = |record: &&VolumeRecord| cache.mode(record.id).is_some();
        let records = superblock.flat_map(|superblock| superblock.volumes().iter());
        records.filter(attached).map(|record| record.identity.clone()).collect()
    };
    for identity in identities.iter().filter(|identity| is_known(identity)) {
        state.disown(identity).map_err(|error| writable(state, error))?;
    }
    engine.change(Cache::disowned);
    Ok(())
}

/// Records how the origins of volumes are left; they are there still, and must not be written to
/// until they are taken out of the cache.
///
/// # Errors
/// As [`stop`]; what is cached is not used again then.
pub fn leave<Origin: BlockQueue, CacheDevice: BlockQueue>(
    engine: &CacheEngine<Origin, CacheDevice>,
    state: &StateDirectory,
    left: &[(VolumeId, Left)],
    turn: &mut Turn<'_>,
) -> Result<(), DeviceError> {
    for (id, left) in left {
        match left {
            Left::InOrder(_) if engine.cache().is_degraded() => {}
            Left::InOrder(generation) => {
                // Read after the generation was found, so that a lease that is held now was then.
                let now = turn(Some(Timestamp::default()))?;
                let generation = generation_of(generation.clone());
                let ticket = engine.change(|cache| cache.record_left(now, *id, generation))?;
                ticket.map_or(Ok(()), |ticket| until_recorded(engine, ticket, turn))?;
            }
            Left::InDoubt => {
                let record = engine.cache().superblock().and_then(|one| one.volume(*id)).cloned();
                if let Some(VolumeRecord { identity, .. }) =
                    record.filter(|one| is_known(&one.identity))
                {
                    state.disown(&identity).map_err(|error| writable(state, error))?;
                }
            }
        }
    }
    Ok(())
}

/// Gives up what is cached of a volume that is not there, and waits until that is durable.
///
/// # Errors
/// When the cache device knows no such volume, it is there, or the device fails.
pub fn forget<Origin: BlockQueue, CacheDevice: BlockQueue>(
    engine: &CacheEngine<Origin, CacheDevice>,
    id: VolumeId,
    turn: &mut Turn<'_>,
) -> Result<(), DeviceError> {
    let ticket: Ticket = engine.change(|cache| cache.forget_volume(id))?;
    until_event(engine, turn, &Event::Done(ticket), || {
        check_device(engine)?;
        let lost = engine.cache().persistence_statistics().map_or(0, |kept| kept.records_lost);
        match lost {
            0 => Ok(()),
            _ => Err(DeviceError::new(format!(
                "volume {}: {lost} records of lines found no room in this run, so that what is \
                 cached of it can't be given up; stop the cache and start it again",
                id.0
            ))),
        }
    })
}
