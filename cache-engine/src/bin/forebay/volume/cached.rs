//! A volume of the service's cache: how it started, and how it is left.
//!
//! Absent: the cache itself ([`super::cache`]), and whether a volume may be warm (the library's).

use std::rc::Rc;

use block_io::{BlockQueue, Completion, Geometry, Request, Timestamp};
use cache_engine::backend::origin_identity::generation_now;
use cache_engine::backend::{Backend, BackendQueue};
use cache_engine::cache::cipher::VolumeKey;
use cache_engine::cache::metadata::identity::GenerationSource;
use cache_engine::cache::{CacheMode, Statistics, VolumeId};
use cache_engine::volume::CachedVolume;
use cache_engine::volume::attach::{Left, VolumeStart};

use crate::output;

/// A cached volume.
pub(crate) struct Cached {
    pub(crate) volume: CachedVolume<BackendQueue, BackendQueue>,
    pub(crate) start: VolumeStart,
    /// What proves that nobody else wrote to the origin, as of attaching it.
    pub(crate) generation: GenerationSource,
    pub(crate) key: Option<Rc<VolumeKey>>,
}

impl Cached {
    /// Its number in the cache.
    pub(crate) fn id(&self) -> VolumeId {
        self.volume.id()
    }

    /// What is cached of it now.
    pub(crate) fn mode(&self) -> CacheMode {
        self.volume.engine().cache().mode(self.id()).unwrap_or_default()
    }

    /// Counters since it was added.
    pub(crate) fn statistics(&self) -> Statistics {
        self.volume.statistics()
    }

    /// Why it started with nothing; none if it did not.
    pub(crate) fn cold_reason(&self) -> Option<String> {
        match (&self.start, self.volume.engine().cache().cold_reason()) {
            (VolumeStart::Cold(why), _) => Some(why.to_string()),
            (VolumeStart::Warm, reason) => reason.map(|reason| reason.to_string()),
        }
    }

    /// How its origin is left, if all that was written is on it (`in_order`) or may not be.
    pub(crate) fn left(&self, origin: &Backend, in_order: bool) -> Left {
        match (in_order, &self.generation) {
            (false, _) => Left::InDoubt,
            (true, caller @ GenerationSource::Caller(_)) => Left::InOrder(caller.clone()),
            (true, _) => generation_now(origin).map_or_else(
                |error| {
                    output::notice(error);
                    Left::InDoubt
                },
                Left::InOrder,
            ),
        }
    }
}

impl BlockQueue for Cached {
    fn geometry(&self) -> Geometry {
        self.volume.geometry()
    }

    fn submit(&mut self, request: Request) -> Result<(), Request> {
        self.volume.submit(request)
    }

    fn poll(&mut self, now: Timestamp, completions: &mut Vec<Completion>) -> bool {
        self.volume.poll(now, completions)
    }

    fn in_flight(&self) -> usize {
        self.volume.in_flight()
    }
}
