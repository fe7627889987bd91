//! Where clients go on a volume: everywhere on a small one, to islands of a large one.
//!
//! ```text
//!   extents of 4 MiB  │    ▒▒     │ ▒▒▒       │         ▒▒│▒          │       ▒▒▒▒ end
//!                        island 0   island 1         island 2             island 3
//! ```
//! A crash drops the lines of every extent that was written lately. So lines outlive it only where
//! there are many extents of which few are written at a time; and what is between the islands
//! nobody writes, so nobody has to check it.

use block_io::Extent;
use block_io::sim::Random;

/// Sectors of an extent of the cache's activity log.
const EXTENT: u64 = 8 << 10;

/// Sectors from the first on.
#[derive(Clone, Copy, Debug)]
struct Island {
    first: u64,
    count: u64,
}

/// The places of one volume.
#[derive(Clone, Debug)]
pub(super) struct Places {
    islands: Vec<Island>,
    /// Where most requests go on each island: first sector and count.
    hot: (u64, u64),
    /// The island that most writes go to.
    written: usize,
    sectors: u64,
}

impl Places {
    /// A volume of somewhat less than what is cached of it, up to twice as much, and all of it.
    pub(super) fn compact(random: &mut Random, cached: u64, hot: (u64, u64)) -> Self {
        let cached = cached / 512;
        let sectors = random.range(256.max(cached * 3 / 4)..=(cached * 2).max(1024));
        let islands = vec![Island { first: 0, count: sectors }];
        Self { islands, hot, written: 0, sectors }
    }

    /// A volume of many extents, with places that are together as large as `share` bytes or so.
    pub(super) fn spread(random: &mut Random, share: u64, hot: (u64, u64)) -> Self {
        let extents = random.range(4..=12);
        let most = (share / 512 * 2 / extents).clamp(32, EXTENT / 2);
        let island = |extent: u64, random: &mut Random| {
            let count = random.range(16..=most);
            let room = EXTENT - count;
            // Now and then over the border between two extents.
            let within = match random.below(6) {
                0 if extent + 1 < extents => EXTENT - 1 - random.below(count),
                _ => random.below(room),
            };
            Island { first: extent * EXTENT + within, count }
        };
        let islands: Vec<Island> = (0..extents).map(|extent| island(extent, random)).collect();
        let end = islands.last().map_or(EXTENT, |last| last.first + last.count);
        // The last island is at the very end, or not.
        let sectors = end + if random.coin() { 0 } else { random.below(EXTENT) };
        Self { islands, hot, written: 0, sectors }
    }

    /// Sectors of the volume when nobody shrank it.
    pub(super) fn sectors(&self) -> u64 {
        self.sectors
    }

    /// A place on a volume that has so many sectors now. Mostly small and in one hot place of each
    /// island, so that requests meet; sometimes anywhere and large. Half of them are in whole
    /// blocks of 4 KiB, as clients that know the block size send.
    pub(super) fn choose(&mut self, random: &mut Random, sectors: u64, is_write: bool) -> Extent {
        let Island { first: base, count } = self.island(random, sectors, is_write);
        let (first, longest) = match random.below(1000) {
            0..750 => ((self.hot.0 + random.below(self.hot.1)) % count, 8),
            750..960 => (random.below(count), 24),
            960..997 => (random.below(count), 96),
            _ => (random.below(count), 2600),
        };
        let length = random.range(1..=longest).min(count - first);
        let (first, end) = (base + first, base + first + length);
        let (first, end) = match random.coin() {
            true => (first & !7, end.next_multiple_of(8).min(sectors)),
            false => (first, end),
        };
        Extent::new(first * 512, (end - first) * 512)
    }

    fn island(&mut self, random: &mut Random, sectors: u64, is_write: bool) -> Island {
        let there = self.islands.partition_point(|island| island.first < sectors).max(1);
        if random.chance(3) {
            self.written = random.below(self.islands.len() as u64) as usize;
        }
        let at = match is_write && random.chance(800) {
            true => self.written % there,
            false => random.below(there as u64) as usize,
        };
        let Island { first, count } = self.islands[at];
        Island { first, count: count.min(sectors - first) }
    }

    /// A new end of the volume, mostly within an island: sectors.
    pub(super) fn shrunk(&self, random: &mut Random) -> u64 {
        let least = self.islands[0].first + 8;
        let Island { first, count } = *random.choose(&self.islands);
        let end = if random.chance(800) {
            first + random.below(count)
        } else {
            random.below(self.sectors)
        };
        end.clamp(least.min(self.sectors - 1), self.sectors - 1)
    }

    /// All that anybody may have written to, in whole blocks around it.
    pub(super) fn all(&self) -> Vec<Extent> {
        let whole = |island: &Island| {
            let (first, end) =
                (island.first & !7, (island.first + island.count).next_multiple_of(8));
            Extent::new(first * 512, (end.min(self.sectors) - first) * 512)
        };
        self.islands.iter().map(whole).collect()
    }
}
