//! Attaching an origin to a running cache: what is cached of it is used if that is proved to be
//! right, and otherwise given up, with the reason. And leaving in order, so that it can be proved
//! the next time.
//!
//! ```text
//!   record (by identity, else by name) ─┐
//!   the host's note of the last cache ──┼─▶ judge ─┬─ warm ─▶ the volume's range, as it was
//!   identity, size, generation, key ────┘          └─ cold ─▶ a range that nothing lives in
//!                                                               │
//!   note the attachment (host) ─▶ record it (cache device), durable ─▶ serve ─▶ stop: generation
//! ```
//! The host notes first: a crash between the two leaves a cache device that knows of an earlier
//! attachment than the host, which is cold. Only when both are durable may a write pass.
//!
//! Absent: opening origins, and what identity they have ([`crate::backend::origin_identity`]);
//! notices' wording beyond the reason.

use std::fmt;

use block_io::{BlockQueue, DeviceError, IoError, Request, RequestId, Timestamp};

use super::{CacheEngine, CachedVolume};
use crate::backend::attachment::StateDirectory;
use crate::cache::cipher::{LineCipher, VolumeKey};
use crate::cache::metadata::identity::{Claim, GenerationSource, Reason, Verdict, judge};
use crate::cache::metadata::{Generation, IdentityKind, OriginIdentity, Superblock, VolumeRecord};
use crate::cache::{Cache, CacheMode, ColdReason, Event, Ticket, VolumeId, VolumeSettings};

/// Lets the devices' runtime move on: is told when it must return at the latest (at once for a time
/// that is over), and returns the time.
pub type Turn<'runtime> = dyn FnMut(Option<Timestamp>) -> Result<Timestamp, DeviceError> + 'runtime;

/// How an origin is attached.
#[derive(Clone, Debug)]
pub struct AttachOptions<'host> {
    /// The volume's name, unlike any other of the cache.
    pub name: String,
    /// What is cached.
    pub mode: CacheMode,
    /// Which origin it is.
    pub identity: OriginIdentity,
    /// What proves that nobody else wrote to it.
    pub generation: GenerationSource,
    /// Where this host notes what was attached.
    pub state: &'host StateDirectory,
    /// Encrypts what is on the cache device; each volume's own key is derived from it.
    pub key: Option<&'host VolumeKey>,
}

/// How a volume starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VolumeStart {
    /// With what an earlier run cached of it; [`Event::Loaded`] tells when all of it is in use.
    Warm,
    /// With nothing.
    Cold(WhyCold),
}

/// Why a volume starts with nothing, for an operator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WhyCold {
    /// The cache is in memory.
    InMemory,
    /// The cache device knows no such volume.
    NeverCached,
    /// The whole cache starts cold.
    WholeCache(ColdReason),
    /// What is cached may not be what the origin has.
    Unproved(Reason),
    /// No lease is held, so that somebody else may be writing.
    NoLease,
    /// What is cached is encrypted, and no key was given.
    KeyMissing,
    /// What is cached is not encrypted, and a key was given.
    KeyNew,
    /// What is cached is encrypted with another key.
    KeyOther,
}

impl fmt::Display for WhyCold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InMemory => f.write_str("the cache is in memory"),
            Self::NeverCached => f.write_str("nothing of this volume was cached before"),
            Self::WholeCache(reason) => reason.fmt(f),
            Self::Unproved(reason) => reason.fmt(f),
            Self::NoLease => f.write_str("no lease on the origin is held yet"),
            Self::KeyMissing => {
                f.write_str("what is cached is encrypted, and no encryption key was given")
            }
            Self::KeyNew => {
                f.write_str("what is cached is not encrypted, and an encryption key was given")
            }
            Self::KeyOther => f.write_str("what is cached is encrypted with another key"),
        }
    }
}

/// Adds `origin` to the cache as a volume, with what is cached of it if it may be used. What is
/// needed for the next start is durable when this returns, so that the volume may be served.
///
/// # Errors
/// When the origin or the name is attached already, there is no room for the volume, the host's
/// note or the cache's record of it cannot be read or written, or the origin cannot be flushed; the
/// message says what to do.
pub fn attach<Origin: BlockQueue, CacheDevice: BlockQueue>(
    engine: &CacheEngine<Origin, CacheDevice>,
    origin: Origin,
    options: AttachOptions<'_>,
    turn: &mut Turn<'_>,
) -> Result<(CachedVolume<Origin, CacheDevice>, VolumeStart), DeviceError> {
    attach_leased(engine, origin, options, None, turn)
}

/// The same for an origin that is this host's alone until `lease`, on the clock of `turn`; without
/// end for none. The volume is pass-through from then on, and cold if that is over already: see
/// [`Cache::set_lease`].
///
/// # Errors
/// As [`attach`].
pub fn attach_leased<Origin: BlockQueue, CacheDevice: BlockQueue>(
    engine: &CacheEngine<Origin, CacheDevice>,
    mut origin: Origin,
    options: AttachOptions<'_>,
    lease: Option<Timestamp>,
    turn: &mut Turn<'_>,
) -> Result<(CachedVolume<Origin, CacheDevice>, VolumeStart), DeviceError> {
    until(engine, turn, |cache| cache.is_settled() || cache.is_degraded())?;
    let superblock = engine.cache().superblock().cloned();
    let Some(superblock) = superblock else {
        flush(&mut origin, &options.name, turn)?;
        let id = engine.cache().free_volume_id().unwrap_or_default();
        // Nobody will ever look for these bytes, so the key needs no salt.
        let cipher = options.key.map(|key| LineCipher::new(&key.for_volume(&[0; 16], id.0)));
        let volume = engine.add_volume(origin, settings(&options, None, cipher))?;
        take_lease(&volume, lease, turn)?;
        return Ok((volume, VolumeStart::Cold(WhyCold::InMemory)));
    };
    let candidates = candidates(&superblock, &options);
    for record in &candidates {
        if engine.cache().mode(record.id).is_some() {
            return Err(DeviceError::new(format!(
                "volume '{}': attached already, as '{}' on {}",
                options.name, record.name, record.identity
            )));
        }
    }
    let format = superblock.format_id;
    let cipher =
        |id: VolumeId| options.key.map(|key| LineCipher::new(&key.for_volume(&format.0, id.0)));
    let size = origin.geometry().capacity;
    let chosen = candidates.first();
    let start = match chosen {
        None => VolumeStart::Cold(WhyCold::NeverCached),
        Some(record) => {
            let whole = engine.cache().cold_reason();
            let claim = claim(&options, size)?;
            let now = turn(Some(Timestamp::default()))?;
            let is_over = lease.is_some_and(|until| until <= now).then_some(WhyCold::NoLease);
            match is_over.or_else(|| {
                why_cold(record, &superblock, whole, &claim, cipher(record.id).as_ref())
            }) {
                None => VolumeStart::Warm,
                Some(why) => VolumeStart::Cold(why),
            }
        }
    };
    let known = chosen.filter(|_| start == VolumeStart::Warm).map(|record| record.id);
    for record in candidates.iter().filter(|record| Some(record.id) != known) {
        forget(engine, record.id, turn)?;
    }
    let id = known.or_else(|| engine.cache().free_volume_id()).unwrap_or_default();
    let cipher = cipher(id);
    let epoch = note_attachment(&options, &superblock)?;
    flush(&mut origin, &options.name, turn)?;
    let volume = engine.add_volume(origin, settings(&options, known, cipher))?;
    debug_assert_eq!(volume.id(), id, "the key was derived for it");
    take_lease(&volume, lease, turn)?;
    let record = record(engine, id, &options, epoch);
    match put_record(engine, record, turn) {
        Ok(()) => Ok((volume, start)),
        Err(error) => {
            // Nothing of it is in flight: it was never served.
            drop(volume.remove());
            Err(error)
        }
    }
}

/// What is recorded of a volume that is there.
fn record<Origin: BlockQueue, CacheDevice: BlockQueue>(
    engine: &CacheEngine<Origin, CacheDevice>,
    id: VolumeId,
    options: &AttachOptions<'_>,
    attach_epoch: u64,
) -> VolumeRecord {
    let record = engine.cache().volume_record(id, options.identity.clone());
    VolumeRecord {
        generation: generation_of(options.generation.clone()),
        attach_epoch,
        ..record.expect("its caller has added it")
    }
}

/// Has the origin make durable what was written to it before: only of its own writes does the cache
/// know which the origin may still lose.
fn flush<Origin: BlockQueue>(
    origin: &mut Origin,
    name: &str,
    turn: &mut Turn<'_>,
) -> Result<(), DeviceError> {
    if !origin.geometry().volatile_cache {
        return Ok(());
    }
    let failed = |error: IoError| {
        DeviceError::with_source(format!("volume '{name}': flushing its origin failed"), error)
    };
    // The first poll has the right time: a connection would take the next one for a timeout.
    let mut now = turn(Some(Timestamp::default()))?;
    origin.submit(Request::flush(RequestId(0))).map_err(|_| failed(IoError::OutOfMemory))?;
    let mut completions = Vec::new();
    loop {
        let progress = origin.poll(now, &mut completions);
        if let Some(completion) = completions.pop() {
            return completion.result.map_err(failed);
        }
        now = turn(progress.then_some(now))?;
    }
}

fn settings(
    options: &AttachOptions<'_>,
    known: Option<VolumeId>,
    cipher: Option<LineCipher>,
) -> VolumeSettings {
    VolumeSettings {
        name: options.name.clone(),
        // The engine takes that of the queue.
        geometry: block_io::Geometry::new(0),
        mode: options.mode,
        known,
        cipher,
    }
}

/// The volume is used as long as the lease is held, and not yet if it is over.
fn take_lease<Origin: BlockQueue, CacheDevice: BlockQueue>(
    volume: &CachedVolume<Origin, CacheDevice>,
    lease: Option<Timestamp>,
    turn: &mut Turn<'_>,
) -> Result<(), DeviceError> {
    if lease.is_some() {
        let now = turn(Some(Timestamp::default()))?;
        volume.engine().change(|cache| cache.set_lease(now, volume.id(), lease))?;
    }
    Ok(())
}

fn is_known(identity: &OriginIdentity) -> bool {
    identity.kind() != IdentityKind::Unknown
}

/// Records that are of this origin or bear this name, the one to be judged first.
fn candidates(superblock: &Superblock, options: &AttachOptions<'_>) -> Vec<VolumeRecord> {
    let same =
        |record: &&VolumeRecord| is_known(&options.identity) && record.identity == options.identity;
    let records = superblock.volumes().iter();
    let named = records.clone().filter(|record| !same(record) && record.name == options.name);
    records.filter(same).chain(named).cloned().collect()
}

fn claim(options: &AttachOptions<'_>, size: u64) -> Result<Claim, DeviceError> {
    let attachment = match is_known(&options.identity) {
        true => {
            let read = options.state.read(&options.identity);
            read.map_err(|error| writable(options.state, error))?
        }
        false => None,
    };
    let (identity, generation) = (options.identity.clone(), options.generation.clone());
    Ok(Claim { identity, size, generation, attachment })
}

fn why_cold(
    record: &VolumeRecord,
    superblock: &Superblock,
    whole: Option<ColdReason>,
    claim: &Claim,
    cipher: Option<&LineCipher>,
) -> Option<WhyCold> {
    if let Some(reason) = whole {
        return Some(WhyCold::WholeCache(reason));
    }
    if let Verdict::Cold(reason) = judge(record, superblock, claim) {
        return Some(WhyCold::Unproved(reason));
    }
    match (record.flags & VolumeRecord::ENCRYPTED != 0, cipher) {
        (true, None) => Some(WhyCold::KeyMissing),
        (false, Some(_)) => Some(WhyCold::KeyNew),
        (true, Some(cipher)) if cipher.key_check() != record.key_check => Some(WhyCold::KeyOther),
        _ => None,
    }
}

/// Notes on this host that the origin is attached to this cache now. An origin that can't be told
/// from others is never warm, and there is nothing to note.
fn note_attachment(
    options: &AttachOptions<'_>,
    superblock: &Superblock,
) -> Result<u64, DeviceError> {
    if !is_known(&options.identity) {
        return Ok(0);
    }
    options
        .state
        .advance(&options.identity, superblock.format_id)
        .map_err(|error| writable(options.state, error))
}

fn writable(state: &StateDirectory, error: DeviceError) -> DeviceError {
    DeviceError::with_source(
        format!(
            "state directory {}: a cache on a device needs one that can be written and outlives \
             the process; name another with --state-dir",
            state.path().display()
        ),
        error,
    )
}

fn generation_of(source: GenerationSource) -> Generation {
    match source {
        GenerationSource::Caller(generation) | GenerationSource::Origin(generation) => generation,
        GenerationSource::None => Generation::default(),
    }
}

/// Records a volume and waits until that is durable.
fn put_record<Origin: BlockQueue, CacheDevice: BlockQueue>(
    engine: &CacheEngine<Origin, CacheDevice>,
    record: VolumeRecord,
    turn: &mut Turn<'_>,
) -> Result<(), DeviceError> {
    let ticket = engine.change(|cache| cache.record_volume(record))?;
    until_recorded(engine, ticket, turn)
}

fn until_recorded<Origin: BlockQueue, CacheDevice: BlockQueue>(
    engine: &CacheEngine<Origin, CacheDevice>,
    ticket: Ticket,
    turn: &mut Turn<'_>,
) -> Result<(), DeviceError> {
    until_event(engine, turn, &Event::Done(ticket), || check_device(engine))
}

fn check_device<Origin: BlockQueue, CacheDevice: BlockQueue>(
    engine: &CacheEngine<Origin, CacheDevice>,
) -> Result<(), DeviceError> {
    match engine.cache().is_degraded() {
        true => Err(DeviceError::new(
            "cache device: it failed and was given up while its records were written; use another",
        )),
        false => Ok(()),
    }
}

/// Moves the engine on until it says `event`, which is taken; others stay.
fn until_event<Origin: BlockQueue, CacheDevice: BlockQueue>(
    engine: &CacheEngine<Origin, CacheDevice>,
    turn: &mut Turn<'_>,
    event: &Event,
    meanwhile: impl Fn() -> Result<(), DeviceError>,
) -> Result<(), DeviceError> {
    let mut now = turn(Some(Timestamp::default()))?;
    loop {
        let progress = engine.poll(now);
        if engine.take_event(event) {
            return Ok(());
        }
        meanwhile()?;
        now = turn(if progress { Some(now) } else { engine.next_deadline() })?;
    }
}

/// Moves the engine on until the cache has got somewhere.
fn until<Origin: BlockQueue, CacheDevice: BlockQueue>(
    engine: &CacheEngine<Origin, CacheDevice>,
    turn: &mut Turn<'_>,
    reached: impl Fn(&Cache) -> bool,
) -> Result<(), DeviceError> {
    let mut now = turn(Some(Timestamp::default()))?;
    while !reached(&engine.cache()) {
        let progress = engine.poll(now);
        if !reached(&engine.cache()) {
            now = turn(if progress { Some(now) } else { engine.next_deadline() })?;
        }
    }
    Ok(())
}

mod leave;
mod replace;

pub use leave::{Left, detach, disown, forget, leave, stop};
pub use replace::{ReplaceOptions, replace};

#[cfg(test)]
mod tests;
