//! What a running cache looks like to whoever asks: how full, how well, and what other sizes would
//! do.
//!
//! ```text
//!   submit ──each line of a read──▶ miss-ratio curve ─┐
//!   index, policies, keeper, health ──────────────────┴──▶ numbers for people and programs
//! ```
//! Everything here is read from what the cache keeps anyway, except for the curve, which nearly
//! always costs a multiplication and a comparison a line ([`miss_ratio`](super::miss_ratio)).
//!
//! Absent: rates and times, which whoever asks twice can derive.

use block_io::Extent;

use super::Cache;
use super::config::{CacheConfig, VolumeId};
use super::miss_ratio::MissRatioCurve;
use super::policy::Occupancy;

/// More samples than this are taken as so many: a hundred MiB, and the curve is exact long before.
const SAMPLES_MAX: usize = 1 << 20;

/// The curve that a configuration asks for.
pub(super) fn curve(config: &CacheConfig) -> Option<Box<MissRatioCurve>> {
    let samples = config.miss_ratio_samples.min(SAMPLES_MAX);
    (samples > 0).then(|| Box::new(MissRatioCurve::new(samples)))
}

impl Cache {
    /// Notes the lines of a read that is taken in, whatever becomes of it.
    #[inline]
    pub(super) fn note_read(&mut self, id: VolumeId, extent: Extent) {
        let Some(curve) = &mut self.curve else { return };
        let shift = self.line_size.shift();
        let first = self.volumes[id].base() + extent.offset;
        let end = (first + extent.length).next_multiple_of(1 << shift);
        for line in first >> shift..end >> shift {
            curve.access(line);
        }
    }

    /// Cache sizes in bytes, ascending, each with the share of the lines read so far that an LRU
    /// cache of that size would have missed. Empty before the first sampled read, and when
    /// [`CacheConfig::miss_ratio_samples`] is 0.
    pub fn miss_ratio_curve(&self) -> Vec<(u64, f64)> {
        let line = self.line_size.bytes();
        let points = self.curve.as_ref().map(|curve| curve.curve()).unwrap_or_default();
        points.into_iter().map(|(lines, ratio)| (lines.saturating_mul(line), ratio)).collect()
    }

    /// Bytes of memory that the miss-ratio curve takes; 0 when there is none.
    pub fn miss_ratio_memory_bytes(&self) -> u64 {
        self.curve.as_ref().map_or(0, |curve| curve.memory_bytes())
    }

    /// A volume's name, as the policies' rules know it.
    pub fn name(&self, id: VolumeId) -> Option<&str> {
        self.volumes.get(id).map(|volume| volume.name.as_str())
    }

    /// Whether ranges of a volume are not cached, because writes to them failed and may still
    /// land; see [`fence`](Self::fence).
    pub fn is_in_doubt(&self, id: VolumeId) -> bool {
        self.volumes.get(id).is_some_and(|volume| !volume.doubt.is_empty())
    }

    /// What a volume holds of the cache, and may.
    pub fn occupancy(&self, id: VolumeId) -> Option<Occupancy> {
        self.volumes.get(id).map(|_| self.policy.volume_occupancy(id))
    }

    /// What each class of requests holds of the cache, and may; the default class first.
    pub fn class_occupancies(&self) -> impl Iterator<Item = Occupancy> {
        self.policy.class_occupancies()
    }

    /// Names of volumes in the policies' rules that no volume of this cache has.
    pub fn unknown_names(&self) -> &[String] {
        self.policy.unresolved()
    }
}

#[cfg(test)]
mod tests {
    use block_io::{BufferPool, Geometry, Operation, Request, RequestId, Timestamp};

    use super::super::{CacheMode, CacheSpace, LineSize, VolumeSettings};
    use super::*;

    const LINE: u64 = 16 << 10;

    fn cache(miss_ratio_samples: usize) -> (Cache, VolumeId, BufferPool) {
        let pool = BufferPool::heap();
        let config = CacheConfig {
            line_size: LineSize::from_bytes(LINE).expect("a line size"),
            miss_ratio_samples,
            ..CacheConfig::default()
        };
        let space = CacheSpace { data_offset: 0, length: 16 * LINE, transfer_max: 1 << 20 };
        let mut cache = Cache::in_memory(config, space, pool.clone()).expect("sizes are right");
        let settings = VolumeSettings {
            name: "disk".into(),
            geometry: Geometry::new(1 << 30),
            mode: CacheMode::WriteThrough,
            known: None,
            cipher: None,
        };
        let id = cache.add_volume(settings).expect("room");
        (cache, id, pool)
    }

    /// A request that the origin answers at once; what the cache wants stored fails.
    fn run(cache: &mut Cache, id: VolumeId, request: Request) {
        cache.submit(Timestamp(0), id, request).expect("room");
        loop {
            let outbox = cache.outbox();
            let origin: Vec<_> = outbox.origin.drain(..).map(|(_, request)| request).collect();
            let device = std::mem::take(&mut outbox.cache);
            if origin.is_empty() && device.is_empty() {
                break;
            }
            for request in origin.into_iter().chain(device) {
                cache.complete(Timestamp(0), request.complete(Ok(())));
            }
        }
        cache.outbox().replies.clear();
    }

    #[test]
    fn reads_make_a_curve_of_bytes_with_its_knee_where_the_loop_is() {
        let (mut cache, id, pool) = cache(1024);
        assert!(cache.miss_ratio_curve().is_empty() && cache.miss_ratio_memory_bytes() > 0);
        let lines = 4096;
        for _ in 0..6 {
            for line in (0..lines).step_by(2) {
                // The last block of one line and the first of the next: an access each.
                let offset = line * LINE + LINE - 4096;
                let read = Request::read(RequestId(1), offset, pool.allocate(8192));
                run(&mut cache, id, read);
            }
        }
        let curve = cache.miss_ratio_curve();
        let at = |bytes: u64| curve.iter().take_while(|point| point.0 <= bytes).last();
        let (half, whole) = (lines * LINE / 2, lines * LINE * 5 / 4);
        assert!(at(half).is_none_or(|point| point.1 > 0.9), "{curve:?}");
        assert!(at(whole).is_some_and(|point| point.1 < 0.3), "{curve:?}");
    }

    #[test]
    fn writes_and_refused_reads_are_no_accesses_and_none_are_noted_when_switched_off() {
        let (mut cache, id, pool) = cache(1024);
        for line in (0..20_000).chain(0..20_000) {
            let buffer = pool.allocate(4096);
            let write = Request::write(RequestId(1), line * LINE, buffer.clone());
            assert_eq!(write.operation, Operation::Write);
            run(&mut cache, id, write);
            run(&mut cache, id, Request::read(RequestId(2), (2 << 30) + line * LINE, buffer));
        }
        assert!(cache.miss_ratio_curve().is_empty());
        let (mut cache, id, pool) = self::cache(0);
        for line in (0..20_000).chain(0..20_000) {
            run(&mut cache, id, Request::read(RequestId(1), line * LINE, pool.allocate(4096)));
        }
        assert!(cache.miss_ratio_curve().is_empty());
        assert_eq!(cache.miss_ratio_memory_bytes(), 0);
    }

    #[test]
    fn what_is_held_and_in_doubt_is_told_by_volume() {
        let (mut cache, id, pool) = cache(0);
        assert_eq!((cache.name(id), cache.name(VolumeId(9))), (Some("disk"), None));
        let buffer = pool.allocate(4096);
        buffer.fill(1);
        run(&mut cache, id, Request::write(RequestId(1), 0, buffer));
        assert_eq!(cache.lines_in_use(), 1);
        assert_eq!(cache.occupancy(id).map(|held| held.lines), Some(1));
        assert!(!cache.is_in_doubt(id) && !cache.is_degraded());
        let write = Request::write(RequestId(2), 1 << 20, pool.allocate(4096));
        cache.submit(Timestamp(0), id, write).expect("room");
        let (_, request) = cache.outbox().origin.pop().expect("sent");
        let lost = request.complete(Err(block_io::IoError::ConnectionLost));
        cache.complete(Timestamp(0), lost);
        assert!(cache.is_in_doubt(id));
        cache.fence(id);
        assert!(!cache.is_in_doubt(id));
    }
}
