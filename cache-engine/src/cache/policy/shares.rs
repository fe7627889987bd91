//! Who holds how many lines, and whose lines go first: minimum and maximum shares of volumes and
//! classes.
//!
//! ```text
//!   a new line of somebody ─▶ at its maximum? ─no─▶ Any: an empty way, or a victim by rank
//!                                 └─yes─▶ Own: it replaces a line of its own in the set, or none
//!
//!   ranks, first to go first:  over its maximum │ ordinary │ spared, its own │ spared
//! ```
//! *Spared* is a line whose volume or class holds no more than its minimum. When a set holds
//! nothing else, spared lines go too, those of the newcomer's own volume and class first: a
//! minimum is what one can count on in the whole cache, not in every set, and nothing ever blocks.
//! A maximum is never passed by inserting. An owner that is over it, because it was lowered, loses
//! first, but keeps its lines until somebody wants their places.
//!
//! Classes can't be told from a line, so a nibble a slot remembers them, half a byte a line, while
//! there are classes.
//!
//! Absent: which line is the oldest; that is for the eviction policy, among those named here.

use super::super::config::{VOLUMES_MAX, VolumeId};
use super::super::index::Slot;
use super::classes::ClassId;
use super::limits::Limits;
use super::rules::CLASSES_MAX;

/// What a line belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) volume: VolumeId,
    pub(crate) class: ClassId,
}

/// Which places a new line may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    /// An empty one, or that of a victim.
    Any,
    /// That of a victim only, and no empty one: its owner holds as much as it may.
    Victim,
    /// None.
    None,
}

/// The order in which lines go; the least goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Rank {
    /// Its volume or class holds more than its maximum.
    OverMaximum,
    /// Nothing speaks for or against it.
    Ordinary,
    /// Its owner holds no more than its minimum, but it is the newcomer's owner.
    SparedOwn,
    /// Its owner holds no more than its minimum.
    Spared,
    /// Pinned; goes only for another pinned line.
    Pinned,
}

/// How many lines one volume or class holds and may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Holding {
    pub(super) lines: u64,
    pub(super) minimum: u64,
    pub(super) maximum: u64,
}

impl Holding {
    const UNLIMITED: Self = Self { lines: 0, minimum: 0, maximum: u64::MAX };

    pub(super) fn is_full(self) -> bool {
        self.lines >= self.maximum
    }

    fn is_over(self) -> bool {
        self.lines > self.maximum
    }

    fn is_spared(self) -> bool {
        self.lines <= self.minimum && self.minimum > 0
    }
}

/// Occupancy by volume and class. See the module.
pub(super) struct Shares {
    slots: u64,
    occupied: u64,
    volumes: Box<[Holding; VOLUMES_MAX]>,
    classes: [Holding; CLASSES_MAX],
    /// Two slots a byte, the even one in the low half.
    class_of: Option<Box<[u8]>>,
    are_limited: bool,
}

impl Shares {
    pub(super) fn new(slots: u64) -> Self {
        Self {
            slots,
            occupied: 0,
            volumes: Box::new([Holding::UNLIMITED; VOLUMES_MAX]),
            classes: [Holding::UNLIMITED; CLASSES_MAX],
            class_of: None,
            are_limited: false,
        }
    }

    /// Sets all limits; what is held stays.
    pub(super) fn set_limits(
        &mut self,
        volumes: impl Fn(VolumeId) -> Limits,
        classes: impl Fn(ClassId) -> Limits,
    ) {
        for (number, holding) in self.volumes.iter_mut().enumerate() {
            (holding.minimum, holding.maximum) = volumes(VolumeId(number as u16));
        }
        for (number, holding) in self.classes.iter_mut().enumerate() {
            (holding.minimum, holding.maximum) = classes(ClassId(number as u8));
        }
        let mut all = self.volumes.iter().chain(&self.classes);
        self.are_limited = all.any(|held| held.minimum > 0 || held.maximum < u64::MAX);
    }

    /// Gives lines of each class to the class that `moved` says. Goes through the memory of all
    /// slots (half a byte a line) if lines change their class, so it is for changes of settings.
    pub(super) fn move_classes(&mut self, moved: &[ClassId; CLASSES_MAX], are_several: bool) {
        let mut changes = false;
        let before = self.classes.map(|holding| holding.lines);
        for class in 1..CLASSES_MAX {
            let to = moved[class].index();
            if to != class && before[class] > 0 {
                changes = true;
                self.classes[class].lines -= before[class];
                self.classes[to].lines += before[class];
            }
        }
        let bytes = usize::try_from(self.slots.div_ceil(2)).expect("slots are counted in 32 bits");
        match &mut self.class_of {
            Some(_) if !are_several => self.class_of = None,
            Some(nibbles) if changes => {
                for byte in nibbles {
                    let to = |class: u8| moved[usize::from(class)].0;
                    *byte = to(*byte & 15) | to(*byte >> 4) << 4;
                }
            }
            None if are_several => self.class_of = Some(vec![0; bytes].into_boxed_slice()),
            _ => {}
        }
    }

    pub(super) fn line_inserted(&mut self, slot: Slot, owner: Owner) {
        // There may have been classes when its request came, and none now.
        let class = if self.class_of.is_some() { owner.class } else { ClassId::DEFAULT };
        let owner = Owner { class, ..owner };
        debug_assert!(u64::from(slot.0) < self.slots, "a slot of this cache");
        self.occupied += 1;
        self.volumes[index(owner.volume)].lines += 1;
        self.classes[owner.class.index()].lines += 1;
        if let Some(nibbles) = &mut self.class_of {
            let shift = (slot.0 & 1) * 4;
            let byte = &mut nibbles[slot.0 as usize / 2];
            *byte = *byte & !(15 << shift) | owner.class.0 << shift;
        }
    }

    pub(super) fn line_removed(&mut self, slot: Slot, volume: VolumeId) {
        let class = self.class_of(slot);
        let counts = [
            &mut self.occupied,
            &mut self.volumes[index(volume)].lines,
            &mut self.classes[class.index()].lines,
        ];
        for count in counts {
            debug_assert!(*count > 0, "what is removed was inserted");
            *count = count.saturating_sub(1);
        }
    }

    /// The lines of a volume are nobody's from now on.
    pub(super) fn disown(&mut self, volume: VolumeId) {
        self.volumes[index(volume)].lines = 0;
    }

    /// One of nobody's lines is gone.
    pub(super) fn orphan_removed(&mut self, slot: Slot) {
        let class = self.class_of(slot);
        for count in [&mut self.occupied, &mut self.classes[class.index()].lines] {
            *count = count.saturating_sub(1);
        }
    }

    /// The class of the line in an occupied slot.
    pub(super) fn class_of(&self, slot: Slot) -> ClassId {
        match &self.class_of {
            None => ClassId::DEFAULT,
            Some(nibbles) => ClassId(nibbles[slot.0 as usize / 2] >> ((slot.0 & 1) * 4) & 15),
        }
    }

    pub(super) fn occupied(&self) -> u64 {
        self.occupied
    }

    pub(super) fn memory_bytes(&self) -> u64 {
        let nibbles = self.class_of.as_ref().map_or(0, |nibbles| nibbles.len());
        (size_of_val(&*self.volumes) + nibbles) as u64
    }

    pub(super) fn are_limited(&self) -> bool {
        self.are_limited
    }

    pub(super) fn volume(&self, volume: VolumeId) -> Holding {
        self.volumes[index(volume)]
    }

    pub(super) fn class(&self, class: ClassId) -> Holding {
        self.classes[class.index()]
    }

    /// Which places a new line of `owner` may take.
    pub(super) fn room(&self, owner: Owner) -> Room {
        if !self.are_limited {
            return Room::Any;
        }
        let (volume, class) = (self.volume(owner.volume), self.class(owner.class));
        if volume.maximum == 0 || class.maximum == 0 {
            Room::None
        } else if volume.is_full() || class.is_full() {
            Room::Victim
        } else {
            Room::Any
        }
    }

    /// How soon a line goes for a new one of `newcomer` (or, without one, to make room); None when
    /// it must not, because the newcomer may only replace its own.
    pub(super) fn rank(&self, line: Owner, newcomer: Option<Owner>) -> Option<Rank> {
        if !self.are_limited {
            return Some(Rank::Ordinary);
        }
        let same = |owner: Owner| (owner.volume == line.volume, owner.class == line.class);
        let (same_volume, same_class) = newcomer.map_or((false, false), same);
        if let Some(newcomer) = newcomer {
            let volume_stays = same_volume || !self.volume(newcomer.volume).is_full();
            let class_stays = same_class || !self.class(newcomer.class).is_full();
            if !(volume_stays && class_stays) {
                return None;
            }
        }
        let (volume, class) = (self.volume(line.volume), self.class(line.class));
        if volume.is_over() || class.is_over() {
            return Some(Rank::OverMaximum);
        }
        Some(match (volume.is_spared(), class.is_spared()) {
            (false, false) => Rank::Ordinary,
            // What is replaced by a line of the same owner takes nothing from it.
            (on_volume, on_class) if (same_volume || !on_volume) && (same_class || !on_class) => {
                Rank::SparedOwn
            }
            _ => Rank::Spared,
        })
    }
}

fn index(volume: VolumeId) -> usize {
    usize::from(volume.0) % VOLUMES_MAX
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::policy::limits::UNLIMITED;
    use block_io::sim::Random;

    const fn owner(volume: u16, class: u8) -> Owner {
        Owner { volume: VolumeId(volume), class: ClassId(class) }
    }

    /// Limits of volumes 0, 1, … and of classes 0, 1, …; none for the others.
    fn limit(shares: &mut Shares, volumes: &[Limits], classes: &[Limits]) {
        let of = |all: &[Limits], at: usize| all.get(at).copied().unwrap_or(UNLIMITED);
        shares.set_limits(
            |volume| of(volumes, usize::from(volume.0)),
            |class| of(classes, class.index()),
        );
    }

    fn with_classes(slots: u64) -> Shares {
        let mut shares = Shares::new(slots);
        shares.move_classes(&std::array::from_fn(|class| ClassId(class as u8)), true);
        shares
    }

    #[test]
    fn an_owner_at_its_maximum_replaces_its_own_lines_only() {
        let mut shares = with_classes(16);
        limit(&mut shares, &[(0, 2), UNLIMITED, (0, 0)], &[UNLIMITED, (0, 1)]);
        assert_eq!(shares.room(owner(2, 0)), Room::None);
        assert_eq!(shares.room(owner(0, 0)), Room::Any);
        shares.line_inserted(Slot(0), owner(0, 0));
        shares.line_inserted(Slot(1), owner(0, 1));
        assert_eq!(shares.room(owner(0, 0)), Room::Victim);
        assert_eq!(shares.room(owner(1, 1)), Room::Victim, "its class is full");
        let rank = |line, newcomer| shares.rank(line, Some(newcomer));
        assert_eq!(rank(owner(0, 1), owner(0, 0)), Some(Rank::Ordinary));
        assert_eq!(rank(owner(1, 0), owner(0, 0)), None);
        assert_eq!(rank(owner(1, 1), owner(0, 1)), None, "its volume is full");
        assert_eq!(rank(owner(0, 1), owner(0, 1)), Some(Rank::Ordinary));
        assert_eq!(rank(owner(0, 0), owner(1, 0)), Some(Rank::Ordinary));
        shares.line_removed(Slot(0), VolumeId(0));
        assert_eq!(shares.room(owner(0, 0)), Room::Any);
    }

    #[test]
    fn owners_over_their_maximum_lose_first_and_those_at_their_minimum_last() {
        let mut shares = Shares::new(16);
        for slot in 0..6 {
            shares.line_inserted(Slot(slot), owner(slot as u16 % 3, 0));
        }
        limit(&mut shares, &[(0, 1), UNLIMITED, (2, 10)], &[]);
        let rank = |line, newcomer| shares.rank(owner(line, 0), Some(owner(newcomer, 0)));
        assert_eq!(rank(0, 1), Some(Rank::OverMaximum));
        assert_eq!(rank(1, 2), Some(Rank::Ordinary));
        assert_eq!(rank(2, 1), Some(Rank::Spared));
        assert_eq!(rank(2, 2), Some(Rank::SparedOwn));
        shares.line_inserted(Slot(6), owner(2, 0));
        assert_eq!(shares.rank(owner(2, 0), None), Some(Rank::Ordinary), "above its minimum");
    }

    #[test]
    fn counts_and_classes_are_right_while_lines_come_and_go_and_rules_change() {
        for seed in 0..50 {
            let mut random = Random::new(seed);
            let mut shares = with_classes(101);
            let mut model: [Option<Owner>; 101] = [None; 101];
            let mut several = true;
            for step in 0..2000 {
                let slot = random.below(101) as usize;
                match model[slot].take() {
                    Some(line) => shares.line_removed(Slot(slot as u32), line.volume),
                    None => {
                        let class = if several { random.below(16) as u8 } else { 0 };
                        let line = owner(random.below(256) as u16, class);
                        shares.line_inserted(Slot(slot as u32), line);
                        model[slot] = Some(line);
                    }
                }
                if random.chance(10) {
                    several = random.chance(800);
                    let stays = random.below(16) as u8;
                    let moved = std::array::from_fn(|class| {
                        ClassId(if several && class as u8 <= stays { class as u8 } else { 0 })
                    });
                    shares.move_classes(&moved, several);
                    for line in model.iter_mut().flatten() {
                        line.class = moved[line.class.index()];
                    }
                }
                let lines = || model.iter().flatten();
                assert_eq!(shares.occupied(), lines().count() as u64);
                for number in 0..16 {
                    let class = ClassId(number);
                    let count = lines().filter(|line| line.class == class).count() as u64;
                    assert_eq!(shares.class(class).lines, count, "seed {seed}, step {step}");
                }
                for (slot, line) in model.iter().enumerate() {
                    let found = line.map(|_| shares.class_of(Slot(slot as u32)));
                    assert_eq!(found, line.map(|line| line.class), "seed {seed}, step {step}");
                }
            }
        }
    }
}
