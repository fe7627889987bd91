//! What a simulated disk holds: its bytes, and what of them a power cut may lose.
//!
//! ```text
//!   write ──▶ current                 without a volatile cache that is all
//!         └─▶ records ─┐
//!             durable ─┴─▶ power cut: what is durable, and any subset of the records over it
//! ```
//! The durable bytes are a copy of the current ones, made by the first write after a flush; pages
//! are shared until they differ.

use std::collections::BTreeMap;

use super::medium::Medium;
use crate::sim::Random;
use crate::{Buffer, Extent, SECTOR_SIZE};

const SECTOR: usize = SECTOR_SIZE as usize;

/// The bytes of one sector.
pub(super) type SectorBytes = [u8; SECTOR];

/// What one request leaves on the medium: pairs of sector number and bytes.
pub(super) type Effect = Vec<(u64, Box<SectorBytes>)>;

/// Current bytes and volatile ones.
#[derive(Default)]
pub(super) struct Content {
    current: Medium,
    /// Since the first write after a flush that is not durable.
    volatile: Option<Volatile>,
    /// Emptied lists of what was volatile once, kept for their memory.
    spare: (Vec<Record>, Vec<u8>),
    writes: u64,
}

/// What has happened since everything was durable.
struct Volatile {
    durable: Medium,
    /// Each sector of each write, in order; 512 of `bytes` belong to each.
    records: Vec<Record>,
    bytes: Vec<u8>,
}

/// One sector of one write.
#[derive(Clone, Copy)]
struct Record {
    sector: u64,
    write: u64,
    durable: bool,
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
    /// What a disk with these bytes holds, all of it durable.
    pub(super) fn of(medium: Medium) -> Self {
        Self { current: medium, ..Self::default() }
    }

    /// The bytes as a read sees them.
    pub(super) fn current(&self) -> &Medium {
        &self.current
    }

    /// The bytes as they would be if every volatile write were lost.
    pub(super) fn durable(&self) -> &Medium {
        self.volatile.as_ref().map_or(&self.current, |volatile| &volatile.durable)
    }

    /// The bytes of `extent` as a read sees them.
    pub(super) fn read(&self, extent: Extent) -> Vec<u8> {
        self.current.read(extent)
    }

    /// Applies one request's effect, at one moment.
    pub(super) fn apply(&mut self, effect: &Effect, durable: bool) {
        self.writes += 1;
        self.prepare(durable);
        for (sector, bytes) in effect {
            self.current.write(sector * u64::from(SECTOR_SIZE), &bytes[..]);
            self.keep(*sector, durable, |target| target.extend_from_slice(&bytes[..]));
        }
    }

    /// Applies a write of `source` at `offset`, both in whole sectors, at one moment.
    pub(super) fn write_from(&mut self, offset: u64, source: &Buffer, durable: bool) {
        self.writes += 1;
        self.prepare(durable);
        self.current.write_from(offset, source);
        if self.volatile.is_some() {
            for sector in sectors(Extent::new(offset, source.len() as u64)) {
                let start = (sector * u64::from(SECTOR_SIZE) - offset) as usize;
                self.keep(sector, durable, |target| {
                    let length = target.len();
                    target.resize(length + SECTOR, 0);
                    source.slice(start, SECTOR).copy_to_slice(&mut target[length..]);
                });
            }
        }
    }

    /// Applies a write of zeroes, at one moment.
    pub(super) fn zero(&mut self, extent: Extent, durable: bool) {
        self.writes += 1;
        self.prepare(durable);
        self.current.zero(extent);
        if self.volatile.is_some() {
            for sector in sectors(extent) {
                self.keep(sector, durable, |target| target.resize(target.len() + SECTOR, 0));
            }
        }
    }

    /// Makes the newest version of every sector durable.
    pub(super) fn flush(&mut self) {
        if let Some(Volatile { mut records, mut bytes, .. }) = self.volatile.take() {
            records.clear();
            bytes.clear();
            self.spare = (records, bytes);
        }
    }

    /// Loses power: of the writes that were not durable an arbitrary subset stays, each whole or
    /// torn between sectors.
    pub(super) fn power_cut(&mut self, random: &mut Random) {
        let Some(Volatile { durable, records, bytes }) = self.volatile.take() else { return };
        self.current = durable;
        let mut fates = BTreeMap::new();
        for (record, bytes) in records.iter().zip(bytes.chunks_exact(SECTOR)) {
            let fate = match record.durable {
                true => Fate::Kept,
                false => *fates.entry(record.write).or_insert_with(|| {
                    *random.choose(&[Fate::Kept, Fate::Kept, Fate::Lost, Fate::Lost, Fate::Torn])
                }),
            };
            let kept = match fate {
                Fate::Kept => true,
                Fate::Lost => false,
                Fate::Torn => random.coin(),
            };
            if kept {
                self.current.write(record.sector * u64::from(SECTOR_SIZE), bytes);
            }
        }
    }

    /// Whether any write would be at risk in a power cut.
    pub(super) fn has_volatile(&self) -> bool {
        let records = self.volatile.iter().flat_map(|volatile| &volatile.records);
        let newest: BTreeMap<u64, bool> =
            records.map(|record| (record.sector, record.durable)).collect();
        newest.values().any(|durable| !durable)
    }

    /// Before a write: from the first volatile one on, what was before is kept.
    fn prepare(&mut self, durable: bool) {
        if !durable && self.volatile.is_none() {
            let durable = self.current.clone();
            let (records, bytes) = std::mem::take(&mut self.spare);
            self.volatile = Some(Volatile { durable, records, bytes });
        }
    }

    /// Notes one sector of the write under way, whose bytes `append` appends.
    fn keep(&mut self, sector: u64, durable: bool, append: impl FnOnce(&mut Vec<u8>)) {
        let Some(volatile) = &mut self.volatile else { return };
        volatile.records.push(Record { sector, write: self.writes, durable });
        append(&mut volatile.bytes);
        if durable {
            let newest = &volatile.bytes[volatile.bytes.len() - SECTOR..];
            volatile.durable.write(sector * u64::from(SECTOR_SIZE), newest);
        }
    }
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
        content.apply(&write_effect(3584, &[1; 1024]), true);
        content.apply(&write_effect(4096, &[2; 512]), false);
        let all = content.read(Extent::new(3584, 1536));
        assert_eq!((&all[..512], &all[512..1024]), (&[1; 512][..], &[2; 512][..]));
        assert_eq!(all[1024..], [0; 512]);
        assert_eq!(
            content.read(Extent::new(4600, 16)),
            [2, 2, 2, 2, 2, 2, 2, 2, 0, 0, 0, 0, 0, 0, 0, 0]
        );
        assert_eq!(content.durable().read(Extent::new(4096, 512)), [1; 512]);
        content.flush();
        assert_eq!(content.durable().read(Extent::new(4096, 512)), [2; 512]);
    }

    #[test]
    fn a_power_cut_keeps_each_subset_and_never_reverses_an_order() {
        let mut outcomes = std::collections::BTreeSet::new();
        let mut torn = 0;
        for seed in 0..200 {
            let mut content = Content::default();
            content.apply(&write_effect(0, &[1; 1024]), true);
            content.apply(&write_effect(0, &[2; 1024]), false);
            content.apply(&write_effect(0, &[3; 512]), false);
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
            content.apply(&write_effect(0, &[1; 512]), false);
            content.apply(&write_effect(0, &[2; 512]), true);
            content.power_cut(&mut Random::new(seed));
            assert_eq!(content.read(Extent::new(0, 512)), [2; 512]);
        }
    }
}
