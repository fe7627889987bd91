//! The volumes of a cache, side by side in one flat space of bytes.
//!
//! ```text
//!   flat space  0 ────────────────────────────────────────────────────────▶ 2^22 lines a set
//!                 [ volume 0 ......│spare ][ volume 1 ..│spare ]   [ volume 2 ...
//!                 base             end     base + span
//! ```
//! Everything below the frontends' offsets (lines, locks, fills, what is on the device) is flat, so
//! a line of one volume cannot be found for another: the index stores exact line numbers. A volume
//! that starts cold gets a range that no volume ever had; what an old range held is never asked for
//! again and goes the way of all lines. Ranges are given out from low to high, none of them twice:
//! the superblock knows how far, and a cache whose ranges are used up has to be formatted anew.
//!
//! Absent: devices. The origin of a volume is its number in the outbox.

use block_io::{DeviceError, Extent, Geometry, Timestamp};

use super::cipher::LineCipher;
use super::config::{CacheMode, VOLUMES_MAX, VolumeId};
use super::doubt::Doubt;
use super::lease::Lease;
use super::statistics::Statistics;
use super::unflushed::Unflushed;

/// Bases and spans are multiples of this: of every extent that anything else counts in.
pub(crate) const SPAN_UNIT: u64 = 64 << 20;

/// A range of the flat space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// First flat byte.
    pub base: u64,
    /// Bytes reserved, of which the volume's capacity are in use.
    pub length: u64,
}

/// One volume.
pub(crate) struct Volume {
    pub(crate) name: String,
    pub(crate) span: Span,
    /// What a client sees: the origin, with larger transfers.
    pub(crate) geometry: Geometry,
    /// Pieces are cut at multiples of this power of two.
    pub(crate) piece_max: u64,
    pub(crate) mode: CacheMode,
    /// Before this what is cached may be served; see [`super::lease`].
    pub(crate) lease_end: Timestamp,
    pub(crate) lease: Lease,
    pub(crate) doubt: Doubt,
    pub(crate) unflushed: Unflushed,
    pub(crate) cipher: Option<Box<LineCipher>>,
    pub(crate) statistics: Statistics,
    /// Client requests in flight.
    pub(crate) in_flight: u32,
}

impl Volume {
    /// First flat byte.
    pub(crate) fn base(&self) -> u64 {
        self.span.base
    }

    /// First flat byte after the volume's content.
    pub(crate) fn end(&self) -> u64 {
        self.span.base + self.geometry.capacity
    }

    /// The volume's bytes in the flat space.
    pub(crate) fn extent(&self) -> Extent {
        Extent::new(self.span.base, self.geometry.capacity)
    }
}

/// All volumes of one cache.
pub(crate) struct Volumes {
    table: Vec<Option<Volume>>,
    /// Ranges in use, ascending, to find the volume of a line.
    ranges: Vec<(Span, VolumeId)>,
    /// Bytes of the flat space.
    space: u64,
    /// Ranges below this have been given out.
    used: u64,
}

impl Volumes {
    pub(crate) fn new(space: u64) -> Self {
        Self { table: Vec::new(), ranges: Vec::new(), space, used: 0 }
    }

    /// Room that a volume of `capacity` bytes is given: with some to grow into.
    fn span_of(capacity: u64) -> u64 {
        (capacity + capacity / 4).max(1).next_multiple_of(SPAN_UNIT)
    }

    /// A range of the flat space that no volume ever had, for `capacity` bytes.
    ///
    /// # Errors
    /// When the cache is too small for so much to lie behind it, or too many ranges were used.
    pub(crate) fn free_span(&self, capacity: u64) -> Result<Span, DeviceError> {
        let least = capacity.max(1).next_multiple_of(SPAN_UNIT);
        let fits = |length: u64| length <= self.space - self.used;
        let length = [Self::span_of(capacity), least].into_iter().find(|length| fits(*length));
        length.map(|length| Span { base: self.used, length }).ok_or_else(|| {
            let remedy = match least <= self.space {
                true => "earlier volumes have used them up; format the cache anew",
                false => "make the cache or its lines larger",
            };
            DeviceError::new(format!(
                "volume size: {capacity} bytes; of the {} bytes in all that this cache can stand \
                 before, {} are left: {remedy}",
                self.space,
                self.space - self.used
            ))
        })
    }

    /// Addresses below `end` have been some volume's.
    pub(crate) fn mark_used(&mut self, end: u64) {
        self.used = self.used.max(end.min(self.space));
    }

    fn is_taken(&self, wanted: Span) -> bool {
        self.ranges.iter().any(|(other, _)| {
            other.base < wanted.base + wanted.length && wanted.base < other.base + other.length
        })
    }

    /// Keeps a number and a range for a volume that is known and not there.
    pub(crate) fn park(&mut self, id: VolumeId, span: Span) {
        let at = usize::from(id.0);
        if self.table.len() <= at {
            self.table.resize_with(at + 1, || None);
        }
        let at = self.ranges.partition_point(|(other, _)| other.base < span.base);
        self.ranges.insert(at, (span, id));
        self.mark_used(span.base + span.length);
    }

    /// Gives up what was kept for a volume that is not there.
    pub(crate) fn unpark(&mut self, id: VolumeId) {
        if self.get(id).is_none() {
            self.ranges.retain(|(_, other)| *other != id);
        }
    }

    /// The range that is kept for a volume that is not there.
    pub(crate) fn parked(&self, id: VolumeId) -> Option<Span> {
        let (span, _) = self.ranges.iter().find(|(_, other)| *other == id)?;
        self.get(id).is_none().then_some(*span)
    }

    /// The volume that a flat byte belongs to, there or only known.
    pub(crate) fn owner_of(&self, flat: u64) -> Option<VolumeId> {
        self.range_of(flat)
    }

    /// Takes a volume in whose place was kept.
    pub(crate) fn insert_parked(&mut self, id: VolumeId, volume: Volume) {
        debug_assert_eq!(self.parked(id), Some(volume.span), "kept for it");
        self.table[usize::from(id.0)] = Some(volume);
    }

    /// Takes a volume in, in the range that it names.
    ///
    /// # Errors
    /// When the range is not free, or there are [`VOLUMES_MAX`] volumes.
    pub(crate) fn insert(&mut self, volume: Volume) -> Result<VolumeId, DeviceError> {
        let span = volume.span;
        if self.is_taken(span) || span.base + span.length > self.space {
            return Err(DeviceError::new(format!(
                "volume: its range {}+{} of the cache's space is not free",
                span.base, span.length
            )));
        }
        let Some(id) = self.free_id() else {
            return Err(DeviceError::new(format!(
                "volumes: this cache has {VOLUMES_MAX} of them already; remove one first"
            )));
        };
        let at = usize::from(id.0);
        if self.table.len() <= at {
            self.table.resize_with(at + 1, || None);
        }
        self.table[at] = Some(volume);
        let at = self.ranges.partition_point(|(other, _)| other.base < span.base);
        self.ranges.insert(at, (span, id));
        self.mark_used(span.base + span.length);
        Ok(id)
    }

    /// The number that the next volume gets.
    pub(crate) fn free_id(&self) -> Option<VolumeId> {
        let ids = (0..VOLUMES_MAX as u16).map(VolumeId);
        let is_taken = |id: VolumeId| {
            self.get(id).is_some() || self.ranges.iter().any(|(_, other)| *other == id)
        };
        ids.into_iter().find(|id| !is_taken(*id))
    }

    /// Forgets a volume.
    pub(crate) fn remove(&mut self, id: VolumeId) -> Option<Volume> {
        let volume = self.table.get_mut(usize::from(id.0))?.take()?;
        self.ranges.retain(|(_, other)| *other != id);
        Some(volume)
    }

    /// Moves a volume into another range.
    pub(crate) fn move_to(&mut self, id: VolumeId, span: Span) {
        self.ranges.retain(|(_, other)| *other != id);
        let at = self.ranges.partition_point(|(other, _)| other.base < span.base);
        self.ranges.insert(at, (span, id));
        self[id].span = span;
        self.mark_used(span.base + span.length);
    }

    pub(crate) fn get(&self, id: VolumeId) -> Option<&Volume> {
        self.table.get(usize::from(id.0))?.as_ref()
    }

    pub(crate) fn get_mut(&mut self, id: VolumeId) -> Option<&mut Volume> {
        self.table.get_mut(usize::from(id.0))?.as_mut()
    }

    /// The volume that a flat byte belongs to; none when it is nobody's any more.
    pub(crate) fn at(&self, flat: u64) -> Option<VolumeId> {
        self.range_of(flat).filter(|id| self.table[usize::from(id.0)].is_some())
    }

    fn range_of(&self, flat: u64) -> Option<VolumeId> {
        let after = self.ranges.partition_point(|(span, _)| span.base <= flat);
        let (span, id) = self.ranges.get(after.checked_sub(1)?)?;
        (flat < span.base + span.length).then_some(*id)
    }

    /// First flat byte that no volume has.
    pub(crate) fn end(&self) -> u64 {
        self.ranges.last().map_or(0, |(span, _)| span.base + span.length)
    }

    /// There are so many flat bytes now, on a device that knows of no earlier volume.
    pub(crate) fn set_space(&mut self, space: u64) {
        self.space = space;
        self.used = self.end();
    }

    /// The volume of that name.
    pub(crate) fn named(&self, name: &str) -> Option<VolumeId> {
        self.ids().find(|id| self[*id].name == name)
    }

    /// Every volume that is there.
    pub(crate) fn ids(&self) -> impl Iterator<Item = VolumeId> {
        self.ranges.iter().map(|(_, id)| *id).filter(|id| self.get(*id).is_some())
    }
}

impl std::ops::Index<VolumeId> for Volumes {
    type Output = Volume;
    fn index(&self, id: VolumeId) -> &Volume {
        self.get(id).expect("a volume of this cache")
    }
}

impl std::ops::IndexMut<VolumeId> for Volumes {
    fn index_mut(&mut self, id: VolumeId) -> &mut Volume {
        self.get_mut(id).expect("a volume of this cache")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume(span: Span, capacity: u64) -> Volume {
        Volume {
            name: String::new(),
            span,
            geometry: Geometry::new(capacity),
            piece_max: 1 << 20,
            mode: CacheMode::default(),
            lease_end: super::super::lease::FOREVER,
            lease: Lease::default(),
            doubt: Doubt::default(),
            unflushed: Unflushed::default(),
            cipher: None,
            statistics: Statistics::default(),
            in_flight: 0,
        }
    }

    fn add(volumes: &mut Volumes, capacity: u64) -> VolumeId {
        let span = volumes.free_span(capacity).expect("room");
        assert!(span.length >= capacity && span.base.is_multiple_of(SPAN_UNIT));
        volumes.insert(volume(span, capacity)).expect("free")
    }

    #[test]
    fn ranges_are_apart_and_found_by_any_of_their_bytes() {
        let mut volumes = Volumes::new(1 << 40);
        let ids = [1, 100 << 20, 3 << 30].map(|capacity| add(&mut volumes, capacity));
        for id in ids {
            let span = volumes[id].span;
            for flat in [span.base, span.base + span.length - 1] {
                assert_eq!(volumes.at(flat), Some(id));
            }
        }
        assert_eq!(volumes.at(1 << 39), None);
        let taken = volumes[ids[1]].span;
        assert!(volumes.insert(volume(taken, 512)).is_err());
    }

    #[test]
    fn no_range_is_given_out_twice() {
        let mut volumes = Volumes::new(5 * SPAN_UNIT);
        volumes.mark_used(SPAN_UNIT);
        let mut bases = Vec::new();
        for _ in 0..4 {
            let id = add(&mut volumes, 512);
            let base = volumes[id].base();
            bases.push(base / SPAN_UNIT);
            volumes.remove(id).expect("there");
            assert_eq!(volumes.at(base), None, "nobody's");
        }
        assert_eq!(bases, [1, 2, 3, 4]);
        let error = volumes.free_span(512).expect_err("used up").to_string();
        assert!(error.contains("512 bytes") && error.contains("format the cache anew"), "{error}");
        let error = volumes.free_span(6 * SPAN_UNIT).expect_err("too large").to_string();
        assert!(error.contains("cache or its lines larger"), "{error}");
    }
}
