//! Sets of blocks within one line: the unit of "this part is cached", of checksums and of stores.
//!
//! A line has 1 to 16 blocks of 4 KiB, so a set is a `u16`. The last block of a volume may be
//! shorter than 4 KiB; it counts as a block.

use block_io::Extent;

use super::config::LineSize;

/// Bytes in a block.
pub(crate) const BLOCK_SIZE: u64 = 4096;

/// Blocks in the largest line.
pub(crate) const BLOCKS_MAX: usize = 16;

/// A set of blocks of one line; bit 0 is the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct BlockSet(pub(crate) u16);

impl BlockSet {
    pub(crate) const EMPTY: Self = Self(0);

    /// Every block of a line.
    pub(crate) fn all(line_size: LineSize) -> Self {
        let count = (line_size.bytes() / BLOCK_SIZE) as u32;
        Self((u32::MAX >> (32 - count)) as u16)
    }

    /// The blocks that `length` bytes from `offset` within a line touch.
    pub(crate) fn touching(offset: u64, length: u64) -> Self {
        debug_assert!(length > 0 && offset + length <= BLOCK_SIZE * BLOCKS_MAX as u64);
        let first = (offset / BLOCK_SIZE) as u32;
        let count = (offset + length).div_ceil(BLOCK_SIZE) as u32 - first;
        Self(((u32::MAX >> (32 - count)) << first) as u16)
    }

    pub(crate) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(crate) fn count(self) -> u32 {
        self.0.count_ones()
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

    pub(crate) fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    pub(crate) fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Its blocks, in order.
    pub(crate) fn iter(self) -> impl Iterator<Item = usize> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let block = rest.trailing_zeros() as usize;
            (rest != 0).then(|| {
                rest &= rest - 1;
                block
            })
        })
    }

    /// Its unbroken runs, in order, as bytes within the line.
    pub(crate) fn runs(self) -> impl Iterator<Item = Extent> {
        let mut rest = u32::from(self.0);
        std::iter::from_fn(move || {
            let first = rest.trailing_zeros();
            let count = rest.checked_shr(first)?.trailing_ones();
            rest &= !(u32::MAX >> (32 - count) << first);
            Some(Extent::new(u64::from(first) * BLOCK_SIZE, u64::from(count) * BLOCK_SIZE))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_in_order_and_whole() {
        let of = |set: u16| BlockSet(set).runs().collect::<Vec<_>>();
        let block = |first: u64, count: u64| Extent::new(first * BLOCK_SIZE, count * BLOCK_SIZE);
        assert_eq!(of(0), []);
        assert_eq!(of(u16::MAX), [block(0, 16)]);
        assert_eq!(of(0b1011_0001), [block(0, 1), block(4, 2), block(7, 1)]);
        assert_eq!(BlockSet(0b1000_0000_0000_0101).iter().collect::<Vec<_>>(), [0, 2, 15]);
    }

    #[test]
    fn every_touched_block_counts() {
        assert_eq!(BlockSet::touching(0, 1), BlockSet(1));
        assert_eq!(BlockSet::touching(4095, 2), BlockSet(0b11));
        assert_eq!(BlockSet::touching(8192, 4096), BlockSet(0b100));
        assert_eq!(BlockSet::touching(0, 65536), BlockSet(u16::MAX));
        for line_size in LineSize::ALL {
            assert_eq!(BlockSet::all(line_size), BlockSet::touching(0, line_size.bytes()));
        }
    }
}
