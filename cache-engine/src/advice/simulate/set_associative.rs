//! This cache: the product's own map, sets and eviction, without the bytes behind them.

use super::{Residency, Touch, Voids};
use crate::cache::entry::{FREQUENCY_MAX, Set};
use crate::cache::eviction::{self, Ghosts};
use crate::cache::line::{LineMap, LineNumber, Place};

pub(super) struct SetAssociative {
    map: LineMap,
    sets: Vec<Set>,
    ghosts: Vec<Ghosts>,
}

impl SetAssociative {
    pub(super) fn new(lines: u32, sets: u32) -> Result<Self, String> {
        let map = LineMap::new(u64::from(lines).max(1), sets).map_err(|needed| {
            format!("{sets} sets are too few for {lines} lines; at least {needed} are needed")
        })?;
        Ok(Self {
            map,
            sets: vec![Set::default(); sets as usize],
            ghosts: vec![Ghosts::default(); sets as usize],
        })
    }
}

impl Residency for SetAssociative {
    fn want(&mut self, _at: usize, touch: Touch, voids: Voids<'_>) -> bool {
        let Place { set: number, tag } = self.map.place(LineNumber(touch.line.into()));
        let set = &mut self.sets[number as usize];
        if let Some(way) = set.find(tag) {
            // A write into a line is no use of it: nothing was saved.
            if !touch.is_write() {
                set.0[way].note_use(FREQUENCY_MAX);
            }
            return true;
        }
        let ghosts = &mut self.ghosts[number as usize];
        let tags = set.0.map(|entry| entry.tag());
        let is_void = |tag: u32| {
            let line = self.map.line(Place { set: number, tag });
            voids.contain(line.0 as u32)
        };
        let mut void = 0;
        if voids.are_possible() {
            for (way, tag) in tags.into_iter().enumerate() {
                void |= u16::from(is_void(tag)) << way;
            }
        }
        let way = eviction::make_room(set, ghosts, |_| true, void)
            .expect("everything may go, nothing being in flight");
        eviction::insert(set, ghosts, way, tag);
        false
    }
}
