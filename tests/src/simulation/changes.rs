//! What an administrator does in the middle of a run, with everything in flight: somebody else
//! writes to an origin and the cache is told, an origin shrinks and grows again, the cache stops in
//! order and starts again.
//!
//! ```text
//!   another's write:  history: it begins ─▶ origin overwritten ─▶ invalidate ─▶ Done: it ends
//!   shrink:           the end of the volume goes, with another's write to it ─▶ grows again
//!   restart:          quiet ─▶ what is a hit? ─▶ stop ─▶ start ─▶ the same are hits
//! ```
//! A crash before the cache has said that it is done is one after which the host must not believe
//! the cache device: what it knows of the origin (its generation, its size) is not what it was.
//!
//! Absent: volumes that come and go (`membership.rs`), origins that do (`outages.rs`).

use block_io::sim::fill_pattern;
use block_io::{Extent, Request, RequestId};
use cache_engine::cache::Ticket;

use super::run::Run;

/// A write of somebody else's that the cache has been told of and may not have forgotten yet.
pub(super) struct AnothersWrite {
    volume: usize,
    id: RequestId,
    ticket: Ticket,
}

/// A volume that is smaller than it was.
pub(super) struct Shrunk {
    volume: usize,
    full: u64,
}

impl Run<'_> {
    /// One of them, any.
    pub(super) fn administer(&mut self) {
        match (self.random.below(4), self.shrunk.is_some()) {
            (0, true) => self.grow(),
            (0, false) => self.shrink(),
            _ => {
                let volume = self.some_volume();
                let extent = self.extent(volume, true);
                self.tell(|| format!("volume {volume}: another writes to {extent}"));
                let id = self.write_behind(volume, extent);
                let ticket = self.engine().invalidate(volume, extent);
                self.anothers.push(AnothersWrite { volume, id, ticket });
                self.outcome.invalidations += 1;
            }
        }
    }

    /// Somebody else writes to an origin. It may have happened or not, for whoever reads until the
    /// cache says that it has forgotten what was there.
    pub(super) fn write_behind(&mut self, volume: usize, extent: Extent) -> RequestId {
        let id = RequestId(self.next);
        self.next += 1;
        let buffer = self.pool.allocate(extent.length as usize);
        fill_pattern(&buffer, id.0, extent.offset);
        self.history.begin(volume, &Request::write(id, extent.offset, buffer.clone()));
        self.origins[volume].overwrite(extent.offset, &buffer.to_vec());
        id
    }

    fn shrink(&mut self) {
        let volume = self.some_volume();
        let full = self.capacities[volume];
        let end = self.places[volume].shrunk(&mut self.random) * 512;
        self.tell(|| format!("volume {volume}: shrinks to {end}"));
        let tail = Extent::new(end, (full - end).min(64 << 10));
        let id = self.write_behind(volume, tail);
        let ticket = self.engine().resize(volume, end);
        self.anothers.push(AnothersWrite { volume, id, ticket });
        self.capacities[volume] = end;
        self.shrunk = Some(Shrunk { volume, full });
        self.has_shrunk = true;
        self.outcome.resizes += 1;
    }

    /// The shrunk volume, if there is one, is as large as before.
    pub(super) fn grow(&mut self) {
        if let Some(Shrunk { volume, full }) = self.shrunk.take() {
            self.tell(|| format!("volume {volume}: grows to {full}"));
            self.engine().resize(volume, full);
            self.capacities[volume] = full;
        }
    }

    /// Writes of others that nobody is shown the time before any more.
    pub(super) fn end_anothers(&mut self) {
        let mut at = 0;
        while at < self.anothers.len() {
            let ticket = self.anothers[at].ticket;
            if self.engine().take_done(ticket) {
                let AnothersWrite { volume, id, .. } = self.anothers.swap_remove(at);
                self.history_ended(volume, id);
            } else {
                at += 1;
            }
        }
    }

    /// A crash now, or an end. What the cache device has may be of before.
    pub(super) fn leave_changes(&mut self) {
        if !self.anothers.is_empty() || self.shrunk.is_some() {
            self.host.disown();
        }
        self.anothers.clear();
        if let Some(Shrunk { volume, full }) = self.shrunk.take() {
            self.capacities[volume] = full;
        }
    }

    /// Stops in order and starts again. Where nothing fails, what was a hit before is one after.
    pub(super) fn restart(&mut self) {
        self.tell(|| "stop".to_owned());
        let faults = self.cache_device.faults();
        self.cache_device.change_faults(|faults| faults.hang = 0);
        self.cache_device.release_hung();
        self.cache_device.fail_all(false);
        self.cache_gone = false;
        self.end_outage();
        self.settle_members();
        self.grow();
        self.become_quiet();
        let sound = self.scenario.restarts_are_warm;
        for _ in 0..5000 {
            if !self.anothers.is_empty() {
                self.poll_until_idle();
                self.turn_world();
            }
        }
        assert!(!sound || self.anothers.is_empty(), "an invalidation that is never done");
        self.engine().cache_everything();
        self.engine().purge_nothing();
        let probes = self.probes();
        let before = if sound { [0; 3].map(|_| self.hits(&probes))[2] } else { 0 };
        let is_degraded = self.engine().is_degraded();
        self.engine().stop();
        let mut turns = 0;
        while !self.engine().is_stopped() {
            if !self.poll_until_idle() && !self.engine().is_stopped() {
                self.turn_world();
            }
            turns += 1;
            assert!(turns < 1_000_000, "seed {}: a stop that never ends", self.world.seed());
        }
        self.end_anothers();
        self.leave_changes();
        self.count_engine();
        self.engine = None;
        let mut engine = self.start();
        if sound {
            engine.load();
        }
        self.engine = Some(engine);
        self.outcome.restarts += 1;
        if sound && !is_degraded {
            self.engine().cache_everything();
            let after = self.hits(&probes);
            let seed = self.world.seed();
            // Where some were misses, what is stored of them takes the places of others.
            let all = before == probes.len() as u64;
            assert!(
                !all || after == before,
                "seed {seed}: {after} of {before} hits outlived a stop"
            );
            self.outcome.survivors += after;
        }
        self.cache_device.set_faults(faults);
    }

    pub(super) fn become_quiet(&mut self) {
        while !self.engine().is_idle() {
            self.poll_until_idle();
            if !self.engine().is_idle() {
                self.turn_world();
            }
        }
    }

    /// Blocks in the hot place.
    fn probes(&mut self) -> Vec<(usize, Extent)> {
        (0..8)
            .map(|_| {
                let volume = self.some_volume();
                let last = self.capacities[volume] / 4096 - 1;
                let block = (self.extent(volume, false).offset / 4096).min(last);
                (volume, Extent::new(block * 4096, 4096))
            })
            .collect()
    }

    fn hits(&mut self, probes: &[(usize, Extent)]) -> u64 {
        let before = self.engine().counts().read_hits;
        for (volume, extent) in probes {
            self.read(*volume, *extent);
            self.become_quiet();
        }
        self.engine().counts().read_hits - before
    }
}
