//! Leases: until when a volume's origin is this host's alone.
//!
//! ```text
//!            until none           until T                           now reaches T, release
//!   Unlimited ◀──────┐   ┌─ mark on the device durable ─▶ Held(T) ──────────────▶ Over
//!       └─ until T ──▶ Waiting(T) ◀── until T ── all of before dropped, durably ────┘
//! ```
//! What is cached is right only while nobody else writes to the origin. A volume without a lease is
//! exclusive by other means, without end. With one, from its end on nothing that is cached is
//! served, be it in place, by a guest on another core, or by a read that began before; nothing that
//! is under way is stored; requests go to the origin; and what was cached is dropped. A renewal
//! before the end moves it. After the end there is only another lease, on a cold volume, which
//! counts when nothing of before can be a hit any more, after a crash neither.
//!
//! A crash can come at the very end of a lease, and a process that was suspended can be killed
//! before it sees that the end is over. So the device says of a volume that it is leased
//! ([`VolumeRecord::LEASED`]) before the first hit is served under a lease; only leaving it in
//! order while it is held takes that back. A start finds the mark, and is cold. Whoever records a
//! volume need not think of it: the mark is the cache's own, put into every record of a volume that
//! is there.
//!
//! The first call of any kind with a `now` at or after the end notices it. A driver's `now` must be
//! read after whatever it brings has arrived, as a reactor's is: then a request that came after the
//! end is never judged by a time of before. Clocks of other machines are the caller's matter: the
//! end is given on this host's clock, counted from before the lease was asked for, and earlier by
//! what this clock may lose over its length.
//!
//! Absent: who grants leases, and keeping writes of this host from the origin after the end, which
//! is the origin's part (fencing).

use std::time::Duration;

use block_io::{DeviceError, Timestamp};

use super::Cache;
use super::config::VolumeId;
use super::metadata::{Generation, VolumeRecord};
use super::outbox::{Event, Ticket};
use super::sweeps::Then;

/// The end of a lease without one.
pub(crate) const FOREVER: Timestamp = Timestamp(u64::MAX);
/// The end of a lease that is over, or does not count yet.
pub(crate) const NEVER: Timestamp = Timestamp(0);

/// How it stands with a volume's lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseStanding {
    /// The origin is this host's by other means, without end.
    Unlimited,
    /// The cache is used until then.
    Held(Timestamp),
    /// It will be, until then, when the device knows of it and of nothing before it.
    Waiting(Timestamp),
    /// It is not: requests go to the origin.
    Over,
}

/// A volume's lease. Until when hits are served stands in the volume, where requests look.
#[derive(Debug)]
pub(crate) struct Lease {
    standing: LeaseStanding,
    /// The change of the superblock that says that the volume is leased.
    mark: Option<u64>,
    /// The sweep over what was cached before.
    drop: Option<Ticket>,
}

impl Default for Lease {
    fn default() -> Self {
        Self { standing: LeaseStanding::Unlimited, mark: None, drop: None }
    }
}

impl Lease {
    /// Whether it has an end, or is over.
    fn is_limited(&self) -> bool {
        self.standing != LeaseStanding::Unlimited
    }

    /// When something has to be done about it.
    fn due(&self) -> Timestamp {
        match self.standing {
            LeaseStanding::Held(until) | LeaseStanding::Waiting(until) => until,
            LeaseStanding::Unlimited | LeaseStanding::Over => FOREVER,
        }
    }
}

/// The leases of all volumes together.
#[derive(Debug)]
pub(crate) struct Leases {
    /// The first end of any.
    due: Timestamp,
    /// One waits for the device.
    waiting: bool,
}

impl Default for Leases {
    fn default() -> Self {
        Self { due: FOREVER, waiting: false }
    }
}

impl Cache {
    /// Says until when a volume's origin is this host's alone, on the clock of `now`; `None` is
    /// without end. An end that is over releases the lease. Before the end of the one that there
    /// is, this renews it; after, what is cached is dropped first, and [`Event::LeaseHeld`] tells
    /// when the new one counts. [`Event::LeaseOver`] tells of the end. See the module.
    ///
    /// `now` must have been read after the lease was granted.
    ///
    /// # Errors
    /// When there is no such volume.
    pub fn set_lease(
        &mut self,
        now: Timestamp,
        id: VolumeId,
        until: Option<Timestamp>,
    ) -> Result<LeaseStanding, DeviceError> {
        self.observe(now);
        let until = until.unwrap_or(FOREVER);
        let Some(volume) = self.volumes.get_mut(id) else {
            return Err(DeviceError::new(format!("volume {}: the cache has none such", id.0)));
        };
        if until <= now {
            self.lose_lease(id);
        } else if volume.lease.standing != LeaseStanding::Unlimited || until != FOREVER {
            let was_unlimited = volume.lease.standing == LeaseStanding::Unlimited;
            volume.lease.standing = LeaseStanding::Waiting(until);
            if was_unlimited {
                self.mark_leased(id);
            }
            self.grant_leases();
        }
        self.leases_changed();
        self.hear_keeper();
        Ok(self.volumes[id].lease.standing)
    }

    /// How it stands with a volume's lease, as of the last time that the cache was told.
    pub fn lease(&self, id: VolumeId) -> Option<LeaseStanding> {
        self.volumes.get(id).map(|volume| volume.lease.standing)
    }

    /// How long a lease lasts from then; none where it has no end, or there is none.
    pub fn lease_left(&self, id: VolumeId) -> Option<Duration> {
        let due = self.volumes.get(id)?.lease.due();
        (due != FOREVER).then(|| due.since(self.now))
    }

    /// The sweep that drops what was cached under a lease that is over, if it is not done;
    /// [`Event::Done`] tells when.
    pub fn lease_drop(&self, id: VolumeId) -> Option<Ticket> {
        self.volumes.get(id)?.lease.drop.filter(|ticket| self.is_sweeping(*ticket))
    }

    /// Time has come so far, by somebody's clock reading: leases that have ended are over from now
    /// on, whatever older readings follow.
    pub fn observe(&mut self, now: Timestamp) {
        self.now = self.now.max(now);
        self.expire_leases();
    }

    /// Whether what is cached of a volume may be served, and anything of it stored.
    pub(super) fn is_leased(&self, id: VolumeId) -> bool {
        self.now < self.volumes[id].lease_end
    }

    /// To be called with every step that is not a hit in place, before anything else.
    #[inline]
    pub(super) fn expire_leases(&mut self) {
        if self.now >= self.leases.due {
            self.lose_leases();
        }
    }

    /// The first end of a lease.
    pub(super) fn lease_deadline(&self) -> Option<Timestamp> {
        Some(self.leases.due).filter(|due| *due != FOREVER)
    }

    /// Whether a lease waits for the device.
    pub(super) fn awaits_lease(&self) -> bool {
        self.leases.waiting
    }

    /// A step of time: leases that waited for the device.
    pub(super) fn lease_step(&mut self) {
        if self.leases.waiting {
            self.grant_leases();
            self.leases_changed();
        }
    }

    #[cold]
    fn lose_leases(&mut self) {
        let ids: Vec<_> = self.volumes.ids().collect();
        for id in ids {
            if self.now >= self.volumes[id].lease.due() {
                self.lose_lease(id);
            }
        }
        self.leases_changed();
        self.hear_keeper();
    }

    /// What is at the end of the ways to a volume's origin is another device: the volume has no
    /// lease from now on, whether it had an end or not, until it is given one.
    /// [`Event::AnotherOrigin`] tells of it.
    pub fn origin_replaced(&mut self, now: Timestamp, id: VolumeId) {
        self.observe(now);
        if self.volumes.get(id).is_none() {
            return;
        }
        self.end_lease(id);
        self.outbox.events.push(Event::AnotherOrigin(id));
        self.leases_changed();
        self.hear_keeper();
    }

    fn lose_lease(&mut self, id: VolumeId) {
        if self.end_lease(id) {
            self.outbox.events.push(Event::LeaseOver(id));
        }
    }

    /// Returns whether there was one.
    fn end_lease(&mut self, id: VolumeId) -> bool {
        let volume = &mut self.volumes[id];
        if volume.lease.standing == LeaseStanding::Over {
            return false;
        }
        volume.lease_end = NEVER;
        volume.lease.standing = LeaseStanding::Over;
        volume.lease.mark = None;
        let (span, is_dropped) = (volume.span, volume.lease.drop.is_some());
        // Guests stop before anything else is done.
        self.publish_gates();
        if !is_dropped {
            let ticket = self.drop_range(span.base..span.base + span.length, Then::Nothing);
            self.volumes[id].lease.drop = Some(ticket);
        }
        true
    }

    /// A record as it is to be on the device: of a volume that is there and has a lease, it says
    /// so.
    pub(super) fn with_mark(&self, mut record: VolumeRecord) -> VolumeRecord {
        if self.volumes.get(record.id).is_some_and(|volume| volume.lease.is_limited()) {
            record.flags |= VolumeRecord::LEASED;
        }
        record
    }

    /// Records that a volume is left in order and how its origin was found: nothing of it is in
    /// flight, and nothing may be from now on until it is taken out. [`Event::Done`] tells when
    /// that is durable. None where there is no record of it; and where it needs a lease and none is
    /// held, because somebody else may have written by now, so that the next start has to be cold.
    /// The generation must have been found before `now`.
    ///
    /// # Errors
    /// When the record makes no sense beside the others.
    pub fn record_left(
        &mut self,
        now: Timestamp,
        id: VolumeId,
        generation: Generation,
    ) -> Result<Option<Ticket>, DeviceError> {
        self.observe(now);
        let record = self.superblock().and_then(|superblock| superblock.volume(id)).cloned();
        let (Some(record), Some(volume)) = (record, self.volumes.get(id)) else { return Ok(None) };
        match volume.lease.standing {
            LeaseStanding::Unlimited | LeaseStanding::Held(_) => {}
            LeaseStanding::Waiting(_) | LeaseStanding::Over => return Ok(None),
        }
        let flags = record.flags & !VolumeRecord::LEASED;
        let record = VolumeRecord { generation, flags, ..record };
        self.change_superblock(|superblock| superblock.put_volume(record)).map(Some)
    }

    /// Marks that were on their way to the device are on the one that took its place when that says
    /// so.
    pub(super) fn marks_moved(&mut self, durable: u64) {
        for id in self.volumes.ids().collect::<Vec<_>>() {
            let mark = &mut self.volumes[id].lease.mark;
            *mark = mark.map(|_| durable);
        }
    }

    /// Has the device say that the volume is leased, where it knows the volume at all.
    fn mark_leased(&mut self, id: VolumeId) {
        let record = self.superblock().and_then(|superblock| superblock.volume(id)).cloned();
        let is_marked = |record: &VolumeRecord| record.flags & VolumeRecord::LEASED != 0;
        let Some(record) = record.filter(|record| !is_marked(record)) else { return };
        let record = self.with_mark(record);
        let Some(keeper) = &mut self.keeper else { return };
        let mark = keeper.update_superblock(|superblock| {
            let put = superblock.put_volume(record);
            debug_assert!(put.is_ok(), "it was there without the flag: {put:?}");
        });
        let volume = &mut self.volumes[id];
        volume.lease.mark = Some(mark);
        volume.lease_end = NEVER;
        self.publish_gates();
    }

    /// Makes those leases count that need not wait any more.
    fn grant_leases(&mut self) {
        let ids: Vec<_> = self.volumes.ids().collect();
        for id in ids {
            let lease = &self.volumes[id].lease;
            let LeaseStanding::Waiting(until) = lease.standing else { continue };
            let keeper = self.keeper.as_ref();
            let marked =
                lease.mark.is_none_or(|mark| keeper.is_none_or(|one| one.is_durable(mark)));
            let dropped = lease.drop.is_none_or(|ticket| !self.is_sweeping(ticket));
            if !marked || !dropped {
                continue;
            }
            let volume = &mut self.volumes[id];
            let standing = match until {
                FOREVER => LeaseStanding::Unlimited,
                until => LeaseStanding::Held(until),
            };
            volume.lease = Lease { standing, mark: None, drop: None };
            if std::mem::replace(&mut volume.lease_end, until) == NEVER {
                self.outbox.events.push(Event::LeaseHeld(id));
            }
            self.publish_gates();
        }
    }

    fn leases_changed(&mut self) {
        let leases = || self.volumes.ids().map(|id| &self.volumes[id].lease);
        let waits = |lease: &Lease| matches!(lease.standing, LeaseStanding::Waiting(_));
        let due = leases().map(Lease::due).min().unwrap_or(FOREVER);
        let waiting = leases().any(waits);
        self.leases = Leases { due, waiting };
    }
}
