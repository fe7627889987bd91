//! What enters the cache, what stays and what goes: one [`Policy`] that the engine asks.
//!
//! ```text
//!  request ─▶ observe ──▶ Verdict { class, bypass, run }
//!               │
//!     hit ◀─────┤ served whatever the verdict says; nothing else is asked
//!               │
//!     read miss ┤                              write ┤ (cached copies are dropped first,
//!               ▼  a run of missed blocks            ▼  whatever the verdict says)
//!             admit(each line) ─no─▶ read as       admit(each line) ─no─▶ to the origin only
//!               │ yes                asked, not      │ yes
//!             fill_extent ─▶ origin  stored          │
//!               ▼                                    ▼
//!             a line without a slot:  room ─None─▶ not stored
//!                     Any: an empty way, else ┐
//!                     Victim: no empty way ───┴─▶ victims(ways that may go) ─0─▶ not stored
//!                                                    ▼ the oldest of these
//!             line_removed(victim's slot), then line_inserted(slot)
//!
//!  any line that gives up its slot ─▶ line_removed     lines found at a start ─▶ line_inserted
//!  a volume whose lines are all removed leaves ─▶ volume_detached, then set with the new table
//!  next_deadline reached ─▶ tick ─▶ PurgeOrder: drop so many lines; victims(None, …) says which
//! ```
//! Rules of the call order: `line_removed` before `line_inserted` for the same slot; `admit` once
//! for each line of a request that would be stored, at most once a store, since it takes from the
//! budget; `fill_extent` after `admit`, with what `observe` said of the same request.
//!
//! All positions are bytes *within a volume*. Every setting may change at any time
//! ([`Policy::set`]) and holds for what is asked from then on.
//!
//! Absent: I/O, clocks, chance. The order of lines within a rank is the eviction policy's.

mod admission;
mod change;
mod classes;
mod endurance;
mod fill_width;
mod grammar;
mod limits;
mod pins;
mod rules;
mod sequential;
pub mod settings;
mod shares;
mod statistics;
mod watermarks;

pub use classes::ClassId;
pub use endurance::Budget;
pub use grammar::Share;
pub use settings::PolicySettings;
pub use statistics::{Occupancy, PolicyStatistics};

pub(crate) use fill_width::Hints;
pub(crate) use shares::{Owner, Rank, Room};

use block_io::{Extent, Operation, Timestamp};

use super::config::{LineSize, VOLUMES_MAX, VolumeId};
use super::index::Slot;
use admission::Doorkeeper;
use classes::Classes;
use endurance::Tokens;
use fill_width::FillWidths;
use pins::Pins;
use sequential::Streams;
use settings::{Admission, FillWidth, SequentialCutoff};
use shares::{Holding, Shares};
use watermarks::Watch;

/// What [`Policy::observe`] says of a request; goes with it until its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) volume: VolumeId,
    pub(crate) class: ClassId,
    /// Part of a long sequential run: it is not stored, except in pinned lines. Hits are served,
    /// and writes drop what is cached, as ever.
    pub(crate) bypass: bool,
    /// Bytes of the sequential run, with this request.
    pub(crate) run: u64,
}

/// A line as the policies know it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PlacedLine {
    pub(crate) slot: Slot,
    pub(crate) volume: VolumeId,
    /// First byte of the line in its volume.
    pub(crate) offset: u64,
}

/// A line that wants a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Newcomer {
    pub(crate) owner: Owner,
    /// First byte of the line in its volume.
    pub(crate) offset: u64,
}

/// What [`Policy::tick`] wants done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct PurgeOrder {
    /// Lines to drop now, the oldest ones that [`Policy::victims`] names without a newcomer.
    pub(crate) lines: u64,
}

/// All policies of one cache. See the module.
pub(crate) struct Policy {
    settings: PolicySettings,
    /// Names in the settings of which there is no volume.
    unresolved: Vec<String>,
    slots: u64,
    line_size: LineSize,
    /// Occupied lines from which on the cache counts as full.
    full_at: u64,
    streams: Streams,
    cutoffs: Box<[SequentialCutoff; VOLUMES_MAX]>,
    /// There, while something needs it.
    doorkeeper: Option<Doorkeeper>,
    tokens: Option<Tokens>,
    classes: Classes,
    shares: Shares,
    pins: Pins,
    fill_widths: FillWidths,
    watch: Option<Watch>,
    statistics: PolicyStatistics,
}

impl Policy {
    /// The policies of a cache of `slots` lines, all empty. `volume` gives the numbers of the
    /// volumes that the settings name; rules of others match nothing until [`set`](Self::set) is
    /// called with a table that has them.
    ///
    /// # Errors
    /// When the settings contradict each other or don't fit this cache; in words for a person.
    pub(crate) fn new(
        now: Timestamp,
        line_size: LineSize,
        slots: u64,
        settings: &PolicySettings,
        volume: impl Fn(&str) -> Option<VolumeId>,
    ) -> Result<Self, String> {
        let mut policy = Self {
            settings: PolicySettings::default(),
            unresolved: Vec::new(),
            slots,
            line_size,
            full_at: 0,
            streams: Streams::new(),
            cutoffs: Box::new([SequentialCutoff::default(); VOLUMES_MAX]),
            doorkeeper: None,
            tokens: None,
            classes: Classes::default(),
            shares: Shares::new(slots),
            pins: Pins::default(),
            fill_widths: FillWidths::new(line_size),
            watch: None,
            statistics: PolicyStatistics::default(),
        };
        policy.set(now, settings, volume)?;
        Ok(policy)
    }

    /// The settings in force.
    pub(crate) fn settings(&self) -> &PolicySettings {
        &self.settings
    }

    /// Volumes that the settings name and that are not there, each once.
    pub(crate) fn unresolved(&self) -> &[String] {
        &self.unresolved
    }

    /// Takes note of a client's request, before it is looked up.
    pub(crate) fn observe(
        &mut self,
        volume: VolumeId,
        operation: Operation,
        extent: Extent,
    ) -> Verdict {
        let class = self.classes.classify(volume, operation, extent);
        let mut verdict = Verdict { volume, class, bypass: false, run: 0 };
        if extent.is_empty() || !operation.carries_data() {
            return verdict;
        }
        let write = operation == Operation::Write;
        if !write && self.settings.fill_width == FillWidth::Adaptive {
            self.fill_widths.observe(volume, extent);
        }
        verdict.run = self.streams.observe(volume, write, extent);
        let cutoff = self.cutoffs[usize::from(volume.0) % VOLUMES_MAX];
        if verdict.run > cutoff.bytes && (!cutoff.when_full || self.is_full(volume)) {
            verdict.bypass = true;
            self.statistics.bypassed_requests += 1;
            self.statistics.bypassed_bytes += extent.length;
        }
        verdict
    }

    /// Takes note of a read that was served from the cache at once; the same as
    /// [`observe`](Self::observe), but for the answer that nobody needs and for runs that only
    /// begin there or are interleaved with others.
    #[inline]
    pub(crate) fn observe_hit(&mut self, volume: VolumeId, extent: Extent) {
        if self.settings.fill_width == FillWidth::Adaptive {
            self.fill_widths.observe(volume, extent);
        }
        self.streams.follow(volume, false, extent);
    }

    /// Whether `bytes` of the line that begins at `offset` in the verdict's volume are to be
    /// stored. `has_slot`: other blocks of the line are cached, so that it is no first miss.
    pub(crate) fn admit(
        &mut self,
        now: Timestamp,
        verdict: &Verdict,
        offset: u64,
        bytes: u64,
        has_slot: bool,
    ) -> bool {
        let is_pinned = self.pins.contains(verdict.volume, offset);
        if !is_pinned && !self.is_admitted(now, verdict, offset, bytes, has_slot) {
            return false;
        }
        if let Some(tokens) = &mut self.tokens {
            tokens.take(now, bytes);
        }
        self.statistics.admitted += 1;
        self.statistics.admitted_bytes += bytes;
        self.statistics.admitted_pinned += u64::from(is_pinned);
        true
    }

    /// The extent to read from the origin for the missed bytes `missed` (not empty) of a volume of
    /// `volume_size` bytes, all of which were admitted. It contains `missed`, lies within the
    /// volume, and is less than three lines longer (see `fill_width` for the bound).
    pub(crate) fn fill_extent(
        &mut self,
        verdict: &Verdict,
        missed: Extent,
        hints: Hints,
        volume_size: u64,
    ) -> Extent {
        // What runs past the cutoff is not read ahead.
        let setting = if verdict.bypass { FillWidth::Requested } else { self.settings.fill_width };
        let widths = &mut self.fill_widths;
        let extent =
            widths.extent(setting, verdict.volume, missed, verdict.run, hints, volume_size);
        self.statistics.extra_read_bytes += extent.length.saturating_sub(missed.length);
        extent
    }

    /// Which places a newcomer may take.
    pub(crate) fn room(&mut self, newcomer: Newcomer) -> Room {
        let room = self.shares.room(newcomer.owner);
        if room != Room::Any && self.pins.contains(newcomer.owner.volume, newcomer.offset) {
            return Room::Any;
        }
        self.statistics.refused_maximum += u64::from(room == Room::None);
        room
    }

    /// Whether lines have different ranks at all. If not, any line may go for any other, and
    /// [`victims`](Self::victims) need not be asked.
    pub(crate) fn has_ranks(&self) -> bool {
        self.shares.are_limited() || !self.pins.is_empty()
    }

    /// How soon a line goes for a newcomer, or, without one, to make room; None when it must not.
    pub(crate) fn victim_rank(&self, line: PlacedLine, newcomer: Option<Newcomer>) -> Option<Rank> {
        let pinned = |volume, offset| self.pins.contains(volume, offset);
        let newcomer_is_pinned =
            newcomer.is_some_and(|newcomer| pinned(newcomer.owner.volume, newcomer.offset));
        if pinned(line.volume, line.offset) {
            return newcomer_is_pinned.then_some(Rank::Pinned);
        }
        let owner = Owner { volume: line.volume, class: self.shares.class_of(line.slot) };
        // A pinned line need not replace one of its own, whatever its owner's maximum is.
        let newcomer = newcomer.filter(|_| !newcomer_is_pinned).map(|newcomer| newcomer.owner);
        self.shares.rank(owner, newcomer)
    }

    /// Of the ways of a set whose lines may go now: those with the least rank, as bits. The
    /// eviction policy takes the oldest of them. None: the newcomer is not stored, or, without
    /// one, nothing of this set is purged.
    pub(crate) fn victims(
        &mut self,
        newcomer: Option<Newcomer>,
        ways: impl IntoIterator<Item = (usize, PlacedLine)>,
    ) -> u16 {
        let (mut least, mut victims, mut seen) = (Rank::Pinned, 0_u16, false);
        for (way, line) in ways {
            seen = true;
            let Some(rank) = self.victim_rank(line, newcomer) else { continue };
            if newcomer.is_none() && rank > Rank::Ordinary {
                continue;
            }
            if rank < least {
                (least, victims) = (rank, 0);
            }
            if rank == least {
                victims |= 1 << way;
            }
        }
        self.statistics.refused_maximum += u64::from(newcomer.is_some() && seen && victims == 0);
        victims
    }

    /// A line got a slot, of this run or found there at the start (then of the default class).
    pub(crate) fn line_inserted(&mut self, slot: Slot, owner: Owner) {
        self.shares.line_inserted(slot, owner);
    }

    /// A line of an earlier run was found in a slot.
    pub(crate) fn line_found(&mut self, slot: Slot, volume: VolumeId) {
        self.line_inserted(slot, Owner { volume, class: ClassId::default() });
    }

    /// A line of `volume` gave up its slot.
    pub(crate) fn line_removed(&mut self, slot: Slot, volume: VolumeId) {
        self.shares.line_removed(slot, volume);
    }

    /// A volume is gone, and the next of its number is another. Its lines are nobody's from now on:
    /// [`orphan_removed`](Self::orphan_removed) is for them.
    pub(crate) fn volume_detached(&mut self, volume: VolumeId) {
        self.shares.disown(volume);
        self.fill_widths.forget(volume);
    }

    /// A line that had no volume any more gave up its slot.
    pub(crate) fn orphan_removed(&mut self, slot: Slot) {
        self.shares.orphan_removed(slot);
    }

    /// The class of the line in an occupied slot.
    #[cfg(test)]
    pub(crate) fn class_of(&self, slot: Slot) -> ClassId {
        self.shares.class_of(slot)
    }

    /// What time demands.
    pub(crate) fn tick(&mut self, now: Timestamp) -> PurgeOrder {
        let occupied = self.shares.occupied();
        let lines = self.watch.as_mut().map_or(0, |watch| watch.tick(now, occupied));
        self.statistics.purged += lines;
        PurgeOrder { lines }
    }

    /// When [`tick`](Self::tick) is to be called, if at all.
    pub(crate) fn next_deadline(&self) -> Option<Timestamp> {
        self.watch.as_ref().map(Watch::next_deadline)
    }

    /// Counters, and the state of the budget at `now`.
    pub(crate) fn statistics(&self, now: Timestamp) -> PolicyStatistics {
        let tokens = self.tokens;
        PolicyStatistics {
            budget: tokens
                .map_or(Budget::Unlimited, |mut tokens| tokens.budget(now, self.line_size.bytes())),
            budget_bytes: tokens.map_or(0, |tokens| tokens.available(now)),
            memory_bytes: self.memory_bytes(),
            ..self.statistics
        }
    }

    /// What a volume holds.
    pub(crate) fn volume_occupancy(&self, volume: VolumeId) -> Occupancy {
        self.occupancy(String::new(), self.shares.volume(volume))
    }

    /// What each class holds, the default one first.
    pub(crate) fn class_occupancies(&self) -> impl Iterator<Item = Occupancy> {
        self.classes
            .iter()
            .map(|(class, name)| self.occupancy(name.to_owned(), self.shares.class(class)))
    }

    /// The share of a volume's blocks read ahead that was used, in 255ths, as far as is known.
    #[cfg(test)]
    pub(crate) fn spatial_use(&self, volume: VolumeId) -> u8 {
        self.fill_widths.estimate(volume)
    }

    fn occupancy(&self, class: String, held: Holding) -> Occupancy {
        let Holding { lines, minimum, maximum } = held;
        Occupancy { class, lines, minimum, maximum: maximum.min(self.slots) }
    }

    fn is_full(&self, volume: VolumeId) -> bool {
        self.shares.occupied() >= self.full_at || self.shares.volume(volume).is_full()
    }

    fn is_admitted(
        &mut self,
        now: Timestamp,
        verdict: &Verdict,
        offset: u64,
        bytes: u64,
        has_slot: bool,
    ) -> bool {
        if verdict.bypass {
            return false;
        }
        let admission = self.classes.admit(verdict.class).unwrap_or(self.settings.admission);
        if admission == Admission::Never {
            self.statistics.refused_never += 1;
            return false;
        }
        let budget =
            self.tokens.as_mut().map_or(Budget::Unlimited, |tokens| tokens.budget(now, bytes));
        if budget == Budget::Spent {
            self.statistics.refused_spent += 1;
            return false;
        }
        if has_slot || (admission == Admission::Always && budget != Budget::Scarce) {
            return true;
        }
        let line = offset >> self.line_size.shift();
        let doorkeeper = self.doorkeeper.as_mut().expect("there, where a second miss may be asked");
        let is_second = doorkeeper.is_second(verdict.volume, line);
        if admission == Admission::SecondMiss {
            self.statistics.refused_first_miss += u64::from(!is_second);
        } else {
            self.statistics.refused_scarce += u64::from(!is_second);
        }
        is_second
    }

    fn memory_bytes(&self) -> u64 {
        let doorkeeper = self.doorkeeper.as_ref().map_or(0, Doorkeeper::memory_bytes);
        size_of::<Self>() as u64
            + size_of_val(&*self.cutoffs) as u64
            + self.shares.memory_bytes()
            + self.fill_widths.memory_bytes()
            + doorkeeper
    }
}

#[cfg(test)]
mod tests;
