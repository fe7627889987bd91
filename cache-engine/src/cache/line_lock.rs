//! Order among overlapping pieces: who may be at work on which bytes.
//!
//! A piece of a request holds its extent, shared (reads) or exclusively (everything that changes
//! content), from its start until its answer. A piece that overlaps an earlier one, with either of
//! them exclusive, waits until that one has ended: first come, first served, so none starves.
//! A piece never holds two extents, so there is no cycle to dead-lock on.
//!
//! The volume is seen as regions of a power-of-two size that no piece crosses; all pieces of a
//! region hang in one list, in the order of their arrival, found by hashing the region. Lists are
//! short (pieces in flight on one region), and overlap is checked exactly.

use block_io::Extent;

use super::table::bucket;

/// A piece's number in its owner's table; the lock table keeps its links under the same number.
pub(crate) type PieceIndex = u16;

const NONE: PieceIndex = PieceIndex::MAX;

#[derive(Clone, Copy)]
struct Link {
    extent: Extent,
    next: PieceIndex,
    previous: PieceIndex,
    bucket: u16,
    exclusive: bool,
    /// Earlier pieces that this one waits for.
    blockers: u16,
}

/// The locks of one volume.
pub(crate) struct LockTable {
    region_shift: u32,
    heads: Box<[(PieceIndex, PieceIndex)]>,
    links: Box<[Link]>,
}

impl LockTable {
    /// A table for at most `pieces` pieces, none of which crosses a multiple of `region` (a power
    /// of two).
    pub(crate) fn new(pieces: usize, region: u64) -> Self {
        assert!(pieces < usize::from(NONE) && region.is_power_of_two());
        let buckets = (pieces * 2).next_power_of_two();
        let link = Link {
            extent: Extent::default(),
            next: NONE,
            previous: NONE,
            bucket: 0,
            exclusive: false,
            blockers: 0,
        };
        Self {
            region_shift: region.trailing_zeros(),
            heads: vec![(NONE, NONE); buckets].into_boxed_slice(),
            links: vec![link; pieces].into_boxed_slice(),
        }
    }

    /// Queues a piece on its extent. True when it may start at once; otherwise some
    /// [`release`](Self::release) will name it.
    pub(crate) fn acquire(&mut self, piece: PieceIndex, extent: Extent, exclusive: bool) -> bool {
        debug_assert!(!extent.is_empty(), "an empty extent locks nothing");
        debug_assert_eq!(
            extent.offset >> self.region_shift,
            (extent.end() - 1) >> self.region_shift,
            "a piece crosses a region"
        );
        let bucket = self.bucket(extent.offset);
        let blockers = self
            .walk(self.heads[bucket].0)
            .filter(|link| link.extent.overlaps(extent) && (link.exclusive || exclusive))
            .count() as u16;
        let last = self.heads[bucket].1;
        self.links[usize::from(piece)] =
            Link { extent, next: NONE, previous: last, bucket: bucket as u16, exclusive, blockers };
        match last {
            NONE => self.heads[bucket].0 = piece,
            last => self.links[usize::from(last)].next = piece,
        }
        self.heads[bucket].1 = piece;
        blockers == 0
    }

    /// Ends a piece that had started, and appends those that may start now to `started`.
    pub(crate) fn release(&mut self, piece: PieceIndex, started: &mut Vec<PieceIndex>) {
        let gone = self.links[usize::from(piece)];
        debug_assert_eq!(gone.blockers, 0, "a waiting piece ended");
        match gone.previous {
            NONE => self.heads[usize::from(gone.bucket)].0 = gone.next,
            previous => self.links[usize::from(previous)].next = gone.next,
        }
        match gone.next {
            NONE => self.heads[usize::from(gone.bucket)].1 = gone.previous,
            next => self.links[usize::from(next)].previous = gone.previous,
        }
        let mut at = gone.next;
        while at != NONE {
            let link = &mut self.links[usize::from(at)];
            if link.extent.overlaps(gone.extent) && (link.exclusive || gone.exclusive) {
                link.blockers -= 1;
                if link.blockers == 0 {
                    started.push(at);
                }
            }
            at = link.next;
        }
    }

    /// Whether a piece that has started holds any byte of `extent`, which lies in one region.
    pub(crate) fn is_held(&self, extent: Extent) -> bool {
        let head = self.heads[self.bucket(extent.offset)].0;
        self.walk(head).any(|link| link.blockers == 0 && link.extent.overlaps(extent))
    }

    /// Whether any other piece that has started holds a byte of `extent`, which `piece` holds.
    pub(crate) fn is_shared(&self, piece: PieceIndex, extent: Extent) -> bool {
        let holders = self
            .walk(self.heads[self.bucket(extent.offset)].0)
            .filter(|link| link.blockers == 0 && link.extent.overlaps(extent));
        debug_assert!(self.links[usize::from(piece)].extent.contains(extent));
        holders.count() > 1
    }

    fn walk(&self, head: PieceIndex) -> impl Iterator<Item = &Link> {
        let mut at = head;
        std::iter::from_fn(move || {
            let link = self.links.get(usize::from(at))?;
            at = link.next;
            Some(link)
        })
    }

    fn bucket(&self, offset: u64) -> usize {
        bucket(offset >> self.region_shift, self.heads.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> LockTable {
        LockTable::new(8, 1 << 20)
    }

    #[test]
    fn readers_share_and_writers_wait_in_turn() {
        let mut table = table();
        let extent = Extent::new(4096, 4096);
        assert!(table.acquire(0, extent, false));
        assert!(table.acquire(1, extent, false));
        assert!(!table.acquire(2, extent, true));
        assert!(!table.acquire(3, extent, false), "a reader does not overtake a writer");
        let mut started = Vec::new();
        table.release(0, &mut started);
        assert!(started.is_empty());
        table.release(1, &mut started);
        assert_eq!(started, [2]);
        table.release(2, &mut started);
        assert_eq!(started, [2, 3]);
    }

    #[test]
    fn neighbours_do_not_wait() {
        let mut table = table();
        assert!(table.acquire(0, Extent::new(0, 512), true));
        assert!(table.acquire(1, Extent::new(512, 512), true));
        assert!(table.acquire(2, Extent::new(1 << 20, 512), true));
        assert!(!table.acquire(3, Extent::new(0, 4096), true));
        let mut started = Vec::new();
        table.release(0, &mut started);
        assert!(started.is_empty(), "the second half is still held");
        table.release(1, &mut started);
        assert_eq!(started, [3]);
    }

    #[test]
    fn shared_means_held_by_another_that_has_started() {
        let mut table = table();
        table.acquire(0, Extent::new(0, 4096), false);
        table.acquire(1, Extent::new(2048, 4096), false);
        table.acquire(2, Extent::new(0, 512), true);
        assert!(!table.is_shared(0, Extent::new(0, 2048)), "the writer only waits");
        assert!(table.is_shared(0, Extent::new(1024, 2048)));
    }

    #[test]
    fn held_means_started() {
        let mut table = table();
        assert!(!table.is_held(Extent::new(0, 4096)));
        table.acquire(0, Extent::new(1024, 512), false);
        assert!(table.is_held(Extent::new(0, 4096)));
        assert!(!table.is_held(Extent::new(4096, 4096)));
        table.acquire(1, Extent::new(1024, 4096), true);
        assert!(!table.is_held(Extent::new(4096, 512)), "the second one only waits");
    }
}
