//! Sets of sectors within one line: the unit of "this part is cached".
//!
//! A line has 8 to 128 sectors, so a set is a `u128`; the index keeps them packed, one bit a
//! sector.

use block_io::{Extent, SECTOR_SIZE};

use super::config::LineSize;

/// A set of sectors of one line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct SectorSet(u128);

impl SectorSet {
    pub(crate) const EMPTY: Self = Self(0);

    /// The sectors of `length` bytes from `offset` within a line; both multiples of 512.
    pub(crate) fn of_bytes(offset: u64, length: u64) -> Self {
        let first = (offset / u64::from(SECTOR_SIZE)) as u32;
        let count = (length / u64::from(SECTOR_SIZE)) as u32;
        debug_assert!(count > 0 && first + count <= 128);
        Self((u128::MAX >> (128 - count)) << first)
    }

    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(crate) fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    pub(crate) fn overlaps(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    pub(crate) fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    pub(crate) fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Its unbroken runs, in order, as bytes within the line.
    pub(crate) fn runs(self) -> impl Iterator<Item = Extent> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let first = rest.trailing_zeros();
            let count = rest.checked_shr(first)?.trailing_ones();
            rest &= !(u128::MAX >> (128 - count) << first);
            let sector = u64::from(SECTOR_SIZE);
            Some(Extent::new(u64::from(first) * sector, u64::from(count) * sector))
        })
    }
}

/// One sector set for every slot of a cache, a bit a sector.
#[derive(Debug)]
pub(crate) struct SectorMap {
    bytes: Box<[u8]>,
    bytes_per_line: usize,
}

impl SectorMap {
    pub(crate) fn new(lines: usize, line_size: LineSize) -> Self {
        let bytes_per_line = line_size.sectors() as usize / 8;
        Self { bytes: vec![0; lines * bytes_per_line].into_boxed_slice(), bytes_per_line }
    }

    pub(crate) fn bytes_per_line(&self) -> usize {
        self.bytes_per_line
    }

    pub(crate) fn get(&self, slot: usize) -> SectorSet {
        // A load of known width for every line size: a copy of variable length would be a call.
        match self.bytes_per_line {
            1 => SectorSet(u128::from(self.bytes[slot])),
            2 => SectorSet(u128::from(u16::from_le_bytes(self.load(slot)))),
            4 => SectorSet(u128::from(u32::from_le_bytes(self.load(slot)))),
            8 => SectorSet(u128::from(u64::from_le_bytes(self.load(slot)))),
            _ => SectorSet(u128::from_le_bytes(self.load(slot))),
        }
    }

    fn load<const WIDTH: usize>(&self, slot: usize) -> [u8; WIDTH] {
        *self.bytes[slot * WIDTH..].first_chunk().expect("a slot of the map")
    }

    pub(crate) fn set(&mut self, slot: usize, sectors: SectorSet) {
        let at = slot * self.bytes_per_line;
        let value = sectors.0.to_le_bytes();
        debug_assert!(value[self.bytes_per_line..].iter().all(|byte| *byte == 0));
        self.bytes[at..at + self.bytes_per_line].copy_from_slice(&value[..self.bytes_per_line]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_in_order_and_whole() {
        let of = |set: u128| SectorSet(set).runs().collect::<Vec<_>>();
        assert_eq!(of(0), []);
        assert_eq!(of(u128::MAX), [Extent::new(0, 65536)]);
        assert_eq!(of(1 << 127), [Extent::new(65536 - 512, 512)]);
        assert_eq!(of(0b1011_0001), [(0, 512), (2048, 1024), (3584, 512)].map(extent));
    }

    fn extent((offset, length): (u64, u64)) -> Extent {
        Extent::new(offset, length)
    }

    #[test]
    fn sets_of_bytes() {
        let whole = SectorSet::of_bytes(0, 65536);
        let part = SectorSet::of_bytes(512, 1024);
        assert!(whole.contains(part) && !part.contains(whole) && part.overlaps(whole));
        assert_eq!(part.0, 0b110);
        assert_eq!(whole.without(part).union(part), whole);
        assert!(!part.overlaps(SectorSet::of_bytes(1536, 512)));
    }

    #[test]
    fn the_map_keeps_neighbours_apart() {
        for line_size in LineSize::ALL {
            let mut map = SectorMap::new(3, line_size);
            let full = SectorSet::of_bytes(0, line_size.bytes());
            map.set(1, full);
            assert_eq!(map.get(1), full);
            assert!(map.get(0).is_empty() && map.get(2).is_empty());
        }
    }
}
