//! A run of bytes on a device, and the arithmetic of splitting and aligning it.
//!
//! Pure: no I/O, no allocation. Everything is in bytes; devices that count in blocks convert at
//! their own edge.

/// A run of bytes on a device: `[offset, offset + length)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Extent {
    /// First byte.
    pub offset: u64,
    /// Number of bytes; an empty extent overlaps nothing.
    pub length: u64,
}

impl Extent {
    /// The extent of `length` bytes from `offset`.
    pub const fn new(offset: u64, length: u64) -> Self {
        Self { offset, length }
    }

    /// One past the last byte. Saturates, so that an extent made from a stranger's numbers can be
    /// compared with a capacity without a check first.
    pub const fn end(self) -> u64 {
        self.offset.saturating_add(self.length)
    }

    /// Whether there is no byte in it.
    pub const fn is_empty(self) -> bool {
        self.length == 0
    }

    /// Whether a byte lies in both.
    pub const fn overlaps(self, other: Self) -> bool {
        self.offset < other.end() && other.offset < self.end()
    }

    /// Whether every byte of `other` lies in `self`.
    pub const fn contains(self, other: Self) -> bool {
        self.offset <= other.offset && other.end() <= self.end()
    }

    /// The bytes in both, empty where there are none.
    pub fn intersection(self, other: Self) -> Self {
        let offset = self.offset.max(other.offset);
        Self::new(offset, self.end().min(other.end()).saturating_sub(offset))
    }

    /// Whether offset and length are multiples of `alignment` (a power of two).
    pub const fn is_aligned(self, alignment: u64) -> bool {
        (self.offset | self.length) & (alignment - 1) == 0
    }

    /// The smallest extent with edges on `alignment` (a power of two) that contains `self`.
    pub const fn align_outward(self, alignment: u64) -> Self {
        let offset = self.offset & !(alignment - 1);
        let end = (self.end() + alignment - 1) & !(alignment - 1);
        Self::new(offset, end - offset)
    }

    /// Its parts between multiples of `boundary` (a power of two), in order.
    pub fn split(self, boundary: u64) -> impl Iterator<Item = Extent> {
        debug_assert!(boundary.is_power_of_two());
        let mut rest = self;
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let room = boundary - (rest.offset & (boundary - 1));
            let part = Extent::new(rest.offset, room.min(rest.length));
            rest = Extent::new(part.end(), rest.length - part.length);
            Some(part)
        })
    }
}

impl std::fmt::Display for Extent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}+{}", self.offset, self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlap_is_symmetric_and_empty_overlaps_nothing() {
        let a = Extent::new(10, 10);
        for (b, expected) in [
            (Extent::new(0, 10), false),
            (Extent::new(0, 11), true),
            (Extent::new(19, 1), true),
            (Extent::new(20, 1), false),
            (Extent::new(0, 100), true),
        ] {
            assert_eq!(a.overlaps(b), expected, "{a} {b}");
            assert_eq!(b.overlaps(a), expected, "{b} {a}");
            assert_eq!(!a.intersection(b).is_empty(), expected);
        }
        assert!(!Extent::new(5, 0).overlaps(Extent::new(5, 0)));
    }

    #[test]
    fn split_covers_the_extent_in_order() {
        let whole = Extent::new(3, 20);
        let parts: Vec<_> = whole.split(8).collect();
        assert_eq!(parts, [Extent::new(3, 5), Extent::new(8, 8), Extent::new(16, 7)]);
        assert_eq!(Extent::new(8, 0).split(8).count(), 0);
    }

    #[test]
    fn alignment() {
        assert_eq!(Extent::new(513, 1).align_outward(512), Extent::new(512, 512));
        assert_eq!(Extent::new(512, 512).align_outward(512), Extent::new(512, 512));
        assert!(Extent::new(512, 1024).is_aligned(512));
        assert!(!Extent::new(512, 100).is_aligned(512));
    }

    #[test]
    fn the_end_of_a_hostile_extent_saturates() {
        assert_eq!(Extent::new(u64::MAX, 2).end(), u64::MAX);
    }
}
