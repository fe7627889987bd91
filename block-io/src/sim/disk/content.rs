//! The bytes of a simulated disk: what is durable, and over it each sector's versions that a
//! power cut may lose.
//!
//! Sparse, so that a large disk costs what was written to it. Not for speed.

use std::collections::{BTreeMap, VecDeque};

use crate::sim::Random;
use crate::{Extent, SECTOR_SIZE};

const CHUNK_BYTES: usize = 4096;
const SECTOR: usize = SECTOR_SIZE as usize;

/// The bytes of one sector.
pub(super) type SectorBytes = [u8; SECTOR];

/// What one request leaves on the medium: pairs of sector number and bytes.
pub(super) type Effect = Vec<(u64, Box<SectorBytes>)>;

/// Durable bytes and volatile versions.
#[derive(Default)]
pub(super) struct Content {
    /// By chunk number; absent reads as zeroes.
    durable: BTreeMap<u64, Box<[u8; CHUNK_BYTES]>>,
    /// By sector number, oldest version first; never empty.
    volatile: BTreeMap<u64, VecDeque<Version>>,
    writes: u64,
}

/// What a write that is not durable yet left in a sector.
struct Version {
    write: u64,
    bytes: Box<SectorBytes>,
}

/// What a power cut does to one write.
#[derive(Clone, Copy)]
enum Fate {
    Kept,
    Lost,
    Torn,
}

/// The sectors that `extent` touches.
pub(super) fn sectors(extent: Extent) -> std::ops::Range<u64> {
    let size = u64::from(SECTOR_SIZE);
    extent.offset / size..extent.end().div_ceil(size)
}

impl Content {
    /// The bytes of `extent` as a read sees them.
    pub(super) fn read(&self, extent: Extent) -> Vec<u8> {
        let mut bytes = self.read_durable(extent);
        for (sector, versions) in self.volatile.range(sectors(extent)) {
            if let Some(version) = versions.back() {
                overlay(&mut bytes, extent, *sector, &version.bytes);
            }
        }
        bytes
    }

    /// The bytes of `extent` as they would be if every volatile version were lost.
    pub(super) fn read_durable(&self, extent: Extent) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(extent.length as usize);
        for part in extent.split(CHUNK_BYTES as u64) {
            let (offset, length) = (part.offset as usize % CHUNK_BYTES, part.length as usize);
            match self.durable.get(&(part.offset / CHUNK_BYTES as u64)) {
                Some(chunk) => bytes.extend_from_slice(&chunk[offset..offset + length]),
                None => bytes.resize(bytes.len() + length, 0),
            }
        }
        bytes
    }

    /// Applies one request's effect, at one moment.
    pub(super) fn apply(&mut self, effect: Effect, durable: bool) {
        let write = self.writes;
        self.writes += 1;
        for (sector, bytes) in effect {
            if durable {
                self.volatile.remove(&sector);
                self.store(sector, &bytes);
            } else {
                self.volatile.entry(sector).or_default().push_back(Version { write, bytes });
            }
        }
    }

    /// Makes the newest version of every sector durable.
    pub(super) fn flush(&mut self) {
        for (sector, mut versions) in std::mem::take(&mut self.volatile) {
            if let Some(version) = versions.pop_back() {
                self.store(sector, &version.bytes);
            }
        }
    }

    /// Loses power: of the writes that were not durable an arbitrary subset stays, each whole or
    /// torn between sectors.
    pub(super) fn power_cut(&mut self, random: &mut Random) {
        let mut fates = BTreeMap::new();
        for (sector, versions) in std::mem::take(&mut self.volatile) {
            for version in versions {
                let fate = *fates.entry(version.write).or_insert_with(|| {
                    *random.choose(&[Fate::Kept, Fate::Kept, Fate::Lost, Fate::Lost, Fate::Torn])
                });
                let kept = match fate {
                    Fate::Kept => true,
                    Fate::Lost => false,
                    Fate::Torn => random.coin(),
                };
                if kept {
                    self.store(sector, &version.bytes);
                }
            }
        }
    }

    /// Whether any write would be at risk in a power cut.
    pub(super) fn has_volatile(&self) -> bool {
        !self.volatile.is_empty()
    }

    fn store(&mut self, sector: u64, bytes: &SectorBytes) {
        let offset = sector * u64::from(SECTOR_SIZE);
        let chunk = self
            .durable
            .entry(offset / CHUNK_BYTES as u64)
            .or_insert_with(|| Box::new([0; CHUNK_BYTES]));
        chunk[offset as usize % CHUNK_BYTES..][..SECTOR].copy_from_slice(bytes);
    }
}

/// Puts a sector's bytes over the part of `bytes` (which are those of `extent`) that it covers.
fn overlay(bytes: &mut [u8], extent: Extent, sector: u64, content: &SectorBytes) {
    let whole = Extent::new(sector * u64::from(SECTOR_SIZE), u64::from(SECTOR_SIZE));
    let part = whole.intersection(extent);
    let source = &content[(part.offset - whole.offset) as usize..][..part.length as usize];
    bytes[(part.offset - extent.offset) as usize..][..source.len()].copy_from_slice(source);
}

/// The effect of writing `bytes` at `offset`; both are in whole sectors.
pub(super) fn write_effect(offset: u64, bytes: &[u8]) -> Effect {
    let first = offset / u64::from(SECTOR_SIZE);
    let (whole, rest) = bytes.as_chunks::<SECTOR>();
    debug_assert!(rest.is_empty(), "writes are of whole sectors");
    whole.iter().zip(first..).map(|(bytes, sector)| (sector, Box::new(*bytes))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_across_chunks_see_the_newest_version() {
        let mut content = Content::default();
        content.apply(write_effect(3584, &[1; 1024]), true);
        content.apply(write_effect(4096, &[2; 512]), false);
        let all = content.read(Extent::new(3584, 1536));
        assert_eq!((&all[..512], &all[512..1024]), (&[1; 512][..], &[2; 512][..]));
        assert_eq!(all[1024..], [0; 512]);
        assert_eq!(
            content.read(Extent::new(4600, 16)),
            [2, 2, 2, 2, 2, 2, 2, 2, 0, 0, 0, 0, 0, 0, 0, 0]
        );
        assert_eq!(content.read_durable(Extent::new(4096, 512)), [1; 512]);
        content.flush();
        assert_eq!(content.read_durable(Extent::new(4096, 512)), [2; 512]);
    }

    #[test]
    fn a_power_cut_keeps_each_subset_and_never_reverses_an_order() {
        let mut outcomes = std::collections::BTreeSet::new();
        let mut torn = 0;
        for seed in 0..200 {
            let mut content = Content::default();
            content.apply(write_effect(0, &[1; 1024]), true);
            content.apply(write_effect(0, &[2; 1024]), false);
            content.apply(write_effect(0, &[3; 512]), false);
            content.power_cut(&mut Random::new(seed));
            assert!(!content.has_volatile());
            let after = content.read(Extent::new(0, 1024));
            outcomes.insert((after[0], after[512]));
            torn += usize::from(after[0] == 1 && after[512] == 2);
        }
        let first: Vec<_> = outcomes.iter().map(|pair| pair.0).collect();
        assert!(first.contains(&1) && first.contains(&2) && first.contains(&3), "{outcomes:?}");
        assert!(outcomes.iter().all(|pair| pair.1 < 3), "{outcomes:?}");
        assert!(torn > 0);
    }

    #[test]
    fn a_durable_write_outlives_older_volatile_ones() {
        for seed in 0..50 {
            let mut content = Content::default();
            content.apply(write_effect(0, &[1; 512]), false);
            content.apply(write_effect(0, &[2; 512]), true);
            content.power_cut(&mut Random::new(seed));
            assert_eq!(content.read(Extent::new(0, 512)), [2; 512]);
        }
    }
}
