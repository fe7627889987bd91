//! Volumes that are taken out of a running cache and come back, and another cache device in the
//! place of the one there is, with everything else in flight.
//!
//! ```text
//!   volume:   There ─▶ Leaving (no new requests) ─▶ Out ─▶ [forgotten] ─▶ Coming ─▶ There
//!   device:   detach ─▶ idle? ─▶ another one formatted ─▶ replace ─▶ Replaced
//! ```
//! While a volume is out somebody else may write to its origin. Then what is cached of it is
//! forgotten before it comes back, or, where a crash comes first, the host does not believe the
//! cache device.

use block_io::Geometry;
use block_io::sim::SimDisk;
use cache_engine::cache::Ticket;

use super::run::Run;

/// Turns of the world that a volume or a device may take to be there.
const PATIENCE: u32 = 200_000;

/// Whether a volume is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Member {
    There,
    /// Until nothing of it is in flight.
    Leaving,
    /// Somebody else wrote to its origin, or not.
    Out {
        is_stale: bool,
    },
    /// Until what was cached of it is forgotten.
    Forgetting(Ticket),
    /// Until it is recorded.
    Coming(Ticket),
}

/// How far the replacement of the cache device is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Replacement {
    None,
    Detaching,
    Changing,
}

impl Run<'_> {
    /// A volume that is there.
    pub(super) fn some_volume(&mut self) -> usize {
        let there = |volume: &usize| self.members[*volume] == Member::There;
        let there: Vec<usize> = (0..self.members.len()).filter(there).collect();
        *self.random.choose(&there)
    }

    /// Takes a volume out, or lets one come back.
    pub(super) fn move_volume(&mut self) {
        let volume = self.random.below(self.members.len() as u64) as usize;
        match self.members[volume] {
            Member::There => {
                let there = self.members.iter().filter(|member| **member == Member::There);
                let changing = self.shrunk.is_some() || !self.anothers.is_empty();
                if there.count() > 1 && !changing && self.outage.is_none() {
                    self.tell(|| format!("volume {volume} is to leave"));
                    self.members[volume] = Member::Leaving;
                }
            }
            Member::Out { is_stale } => self.bring_back(volume, is_stale),
            Member::Leaving | Member::Forgetting(_) | Member::Coming(_) => {}
        }
    }

    /// What is on its way goes on.
    pub(super) fn go_on_moving(&mut self) {
        for volume in 0..self.members.len() {
            let member = self.members[volume];
            let engine = self.engine();
            // Of a cache that was given up nothing becomes durable any more, and nothing is served.
            let given_up = engine.is_degraded();
            match member {
                Member::Leaving => {
                    if engine.in_flight_of(volume) == 0 && engine.remove(volume) {
                        self.is_out(volume);
                    }
                }
                Member::Forgetting(ticket) => {
                    let is_forgotten = given_up && !engine.knows(volume);
                    if engine.take_done(ticket) {
                        self.add(volume);
                    } else if is_forgotten {
                        self.host.disown();
                        self.add(volume);
                    }
                }
                Member::Coming(ticket) => {
                    if engine.take_done(ticket) || given_up {
                        self.tell(|| format!("volume {volume} is there"));
                        self.members[volume] = Member::There;
                    }
                }
                Member::There | Member::Out { .. } => {}
            }
        }
    }

    fn is_out(&mut self, volume: usize) {
        self.tell(|| format!("volume {volume} is out"));
        self.outcome.removals += 1;
        let is_stale = self.random.coin();
        if is_stale {
            let extent = self.extent(volume, true);
            self.tell(|| format!("volume {volume}: another writes to {extent}"));
            let id = self.write_behind(volume, extent);
            self.history_ended(volume, id);
        }
        self.members[volume] = Member::Out { is_stale };
    }

    fn bring_back(&mut self, volume: usize, is_stale: bool) {
        let ticket = if is_stale { self.engine().forget(volume) } else { None };
        match ticket {
            Some(ticket) => {
                self.outcome.forgotten += 1;
                self.members[volume] = Member::Forgetting(ticket);
            }
            None => self.add(volume),
        }
    }

    fn add(&mut self, volume: usize) {
        let origin = self.origins[volume].clone();
        let ticket = self.engine().add(volume, &origin);
        self.members[volume] = Member::Coming(ticket);
    }

    /// Everybody is there, and the cache device is the one that it is to be.
    pub(super) fn settle_members(&mut self) {
        for turns in 0.. {
            assert!(
                turns < PATIENCE,
                "seed {}: it never ends: {:?}, {:?}",
                self.world.seed(),
                self.members,
                self.replacement
            );
            for volume in 0..self.members.len() {
                if let Member::Out { is_stale } = self.members[volume] {
                    self.bring_back(volume, is_stale);
                }
            }
            self.go_on_moving();
            self.go_on_replacing();
            let there = self.members.iter().all(|member| *member == Member::There);
            if there && self.replacement == Replacement::None {
                return;
            }
            if !self.poll_until_idle() {
                self.turn_world();
            }
        }
    }

    /// A crash: the next start adds all volumes, and would believe what is cached of them.
    pub(super) fn crash_moves(&mut self) {
        for member in &mut self.members {
            if matches!(member, Member::Out { is_stale: true } | Member::Forgetting(_)) {
                self.host.disown();
            }
            *member = Member::There;
        }
        self.outcome.crashes_in_replacement += u64::from(self.replacement != Replacement::None);
        self.replacement = Replacement::None;
        self.old_device = None;
    }

    pub(super) fn begin_replacing(&mut self) {
        if self.replacement == Replacement::None {
            self.tell(|| "the cache device is detached".to_owned());
            self.engine().detach();
            self.replacement = Replacement::Detaching;
        }
    }

    pub(super) fn go_on_replacing(&mut self) {
        let replacement = self.replacement.clone();
        match replacement {
            Replacement::None => {}
            Replacement::Detaching => {
                if self.engine().is_detached() {
                    self.replace();
                }
            }
            Replacement::Changing => {
                if self.engine().take_replaced() {
                    self.tell(|| "the cache device is another one".to_owned());
                    let device = self.new_device.take().expect("it was made for this");
                    self.old_device = Some(std::mem::replace(&mut self.cache_device, device));
                    self.replacement = Replacement::None;
                }
            }
        }
    }

    fn replace(&mut self) {
        let name = format!("cache {}", self.outcome.replacements + 1);
        let geometry = Geometry {
            volatile_cache: self.random.coin(),
            ..Geometry::new(self.setup.cache_device_bytes())
        };
        let device = SimDisk::new(&self.world, &name, geometry);
        self.tell(|| format!("'{name}' is to take its place"));
        if let Some(trace) = self.trace {
            trace.watch(&name, &device);
        }
        self.engine().replace(&device);
        device.set_faults((self.scenario.cache_device)(&mut self.random));
        self.outcome.replacements += 1;
        self.replacement = Replacement::Changing;
        self.new_device = Some(device);
    }
}
