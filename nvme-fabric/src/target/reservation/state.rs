//! The reservation of one namespace: who is registered with which key, who holds it, and what each
//! command makes of that. Base §8.19.
//!
//! ```text
//!            register          acquire                 release, unregister of the holder
//!   nobody ───────────▶ registrants ───────▶ one holds (or all do) ───────▶ registrants
//!                          ▲   clear, preempt of keys      │ preempt of the holder's key
//!                          └───────────────────────────────┴──▶ the preempting host holds
//! ```
//! Registrants are hosts, by their identifier; a host's controllers are one. At most
//! [`REGISTRANTS_MAX`].
//!
//! Absent: telling hosts and ending commands, which [`Change`] asks of the caller.

use super::access::{Access, Standing, is_allowed};
use crate::spec::command::reservation::{
    acquire_action, persistence_change, register_action, release_action,
};
use crate::spec::nqn::HostId;
use crate::spec::reservation::{AcquireKeys, NotificationKind, RegisterKeys, ReservationKind};
use crate::spec::status::Status;

/// Hosts registered on one namespace at a time.
pub(in crate::target) const REGISTRANTS_MAX: usize = 128;

const CONFLICT: Status = Status::RESERVATION_CONFLICT.do_not_retry();
const INVALID: Status = Status::INVALID_FIELD.do_not_retry();

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Registrant {
    pub(super) host: HostId,
    pub(super) key: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) kind: ReservationKind,
    /// Who holds it; of a kind that all registrants hold, who acquired it, registered or not.
    pub(super) holder: HostId,
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct State {
    pub(super) registrants: Vec<Registrant>,
    pub(super) held: Option<Held>,
    /// GEN: counts changes of registrations.
    pub(super) generation: u32,
    /// PTPL: all of this survives a power loss.
    pub(super) persists: bool,
}

/// What a command has changed, beyond the state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Change {
    /// Who is to be told of what.
    pub(super) notices: Vec<(HostId, NotificationKind)>,
    /// Hosts whose commands must have ended before this one does.
    pub(super) aborted: Vec<HostId>,
}

impl State {
    pub(super) fn standing(&self, host: HostId) -> Standing {
        let is_registrant = self.find(host).is_some();
        match self.held {
            Some(held) if held.kind.is_all_registrants() && is_registrant => Standing::Holder,
            Some(held) if !held.kind.is_all_registrants() && held.holder == host => {
                Standing::Holder
            }
            _ if is_registrant => Standing::Registrant,
            _ => Standing::Stranger,
        }
    }

    /// Whether `host` may do this now.
    pub(super) fn allows(&self, host: HostId, access: Access) -> bool {
        self.held.is_none_or(|held| is_allowed(held.kind, self.standing(host), access))
    }

    pub(super) fn register(
        &mut self,
        host: HostId,
        action: u8,
        ignore_existing_key: bool,
        persistence: Option<bool>,
        keys: RegisterKeys,
    ) -> Result<Change, Status> {
        let present = self.find(host);
        let matches =
            |place: usize| ignore_existing_key || self.registrants[place].key == keys.current;
        let mut change = Change::default();
        match (action, present) {
            // A key of zero means "no key" in a preempt.
            (register_action::REGISTER | register_action::REPLACE, _) if keys.new == 0 => {
                return Err(INVALID);
            }
            (register_action::REGISTER, None) => self.add(host, keys.new)?,
            // The same again is no error, another key is.
            (register_action::REGISTER, Some(place)) => {
                if self.registrants[place].key != keys.new {
                    return Err(CONFLICT);
                }
            }
            (register_action::REPLACE, Some(place)) if matches(place) => {
                self.registrants[place].key = keys.new;
            }
            (register_action::REPLACE, None) if ignore_existing_key => self.add(host, keys.new)?,
            (register_action::UNREGISTER, Some(place)) if matches(place) => {
                self.remove(place, &mut change);
            }
            (register_action::REPLACE | register_action::UNREGISTER, _) => return Err(CONFLICT),
            _ => return Err(INVALID),
        }
        self.persists = persistence.unwrap_or(self.persists);
        self.generation = self.generation.wrapping_add(1);
        Ok(change)
    }

    pub(super) fn acquire(
        &mut self,
        host: HostId,
        action: u8,
        kind: ReservationKind,
        keys: AcquireKeys,
    ) -> Result<Change, Status> {
        self.check_key(host, keys.current)?;
        match action {
            acquire_action::ACQUIRE => match self.held {
                None => {
                    self.held = Some(Held { kind, holder: host });
                    Ok(Change::default())
                }
                // The holder may ask for what it has.
                Some(held) if held.kind == kind && self.standing(host) == Standing::Holder => {
                    Ok(Change::default())
                }
                Some(_) => Err(CONFLICT),
            },
            acquire_action::PREEMPT => self.preempt(host, kind, keys.preempt),
            acquire_action::PREEMPT_AND_ABORT => {
                let mut change = self.preempt(host, kind, keys.preempt)?;
                change.aborted = change
                    .notices
                    .iter()
                    .filter(|(_, notice)| *notice == NotificationKind::RegistrationPreempted)
                    .map(|(host, _)| *host)
                    .collect();
                Ok(change)
            }
            _ => Err(INVALID),
        }
    }

    /// Base §8.19.7 (Preempting a Reservation or Registration).
    fn preempt(&mut self, host: HostId, kind: ReservationKind, key: u64) -> Result<Change, Status> {
        let mut change = Change::default();
        let holder_key = self.held.and_then(|held| self.find(held.holder));
        let holder_key = holder_key.map(|place| self.registrants[place].key);
        let takes_over = match self.held {
            Some(held) if held.kind.is_all_registrants() => key == 0,
            Some(_) if key == 0 => return Err(INVALID),
            Some(_) => holder_key == Some(key),
            None => false,
        };
        if takes_over {
            let before = self.held.replace(Held { kind, holder: host });
            self.registrants.retain(|other| {
                let stays = other.host == host || key != 0 && other.key != key;
                if !stays {
                    change.notices.push((other.host, NotificationKind::RegistrationPreempted));
                }
                stays
            });
            if before.is_some_and(|held| held.kind != kind) {
                self.tell_others(host, NotificationKind::ReservationReleased, &mut change);
            }
        } else {
            let preempted = |registrant: &Registrant| registrant.key == key;
            if !self.registrants.iter().any(preempted) {
                return Err(CONFLICT);
            }
            while let Some(place) = self.registrants.iter().position(preempted) {
                let other = self.registrants[place].host;
                self.remove(place, &mut change);
                if other != host {
                    change.notices.push((other, NotificationKind::RegistrationPreempted));
                }
            }
        }
        self.generation = self.generation.wrapping_add(1);
        Ok(change)
    }

    pub(super) fn release(
        &mut self,
        host: HostId,
        action: u8,
        kind: u8,
        key: u64,
    ) -> Result<Change, Status> {
        self.check_key(host, key)?;
        let mut change = Change::default();
        match action {
            release_action::RELEASE => {
                // Who does not hold it, or when nobody does, releases nothing, successfully.
                if let Some(held) = self.held
                    && self.standing(host) == Standing::Holder
                {
                    if held.kind as u8 != kind {
                        return Err(INVALID);
                    }
                    self.held = None;
                    if held.kind.is_all_registrants() || held.kind.is_registrants_only() {
                        self.tell_others(host, NotificationKind::ReservationReleased, &mut change);
                    }
                }
            }
            release_action::CLEAR => {
                self.tell_others(host, NotificationKind::ReservationPreempted, &mut change);
                self.held = None;
                self.registrants.clear();
                self.generation = self.generation.wrapping_add(1);
            }
            _ => return Err(INVALID),
        }
        Ok(change)
    }

    /// CPTPL, checked: absent when nothing is to change.
    pub(super) fn persistence(change: u8, can_persist: bool) -> Result<Option<bool>, Status> {
        match change {
            persistence_change::NONE => Ok(None),
            persistence_change::CLEAR => Ok(Some(false)),
            persistence_change::SET if can_persist => Ok(Some(true)),
            _ => Err(INVALID),
        }
    }

    fn find(&self, host: HostId) -> Option<usize> {
        self.registrants.iter().position(|registrant| registrant.host == host)
    }

    /// A command other than Register comes from a registrant that knows its key.
    fn check_key(&self, host: HostId, key: u64) -> Result<(), Status> {
        let place = self.find(host).ok_or(CONFLICT)?;
        if self.registrants[place].key == key { Ok(()) } else { Err(CONFLICT) }
    }

    fn add(&mut self, host: HostId, key: u64) -> Result<(), Status> {
        if self.registrants.len() == REGISTRANTS_MAX {
            return Err(Status::INTERNAL_ERROR.do_not_retry());
        }
        self.registrants.push(Registrant { host, key });
        Ok(())
    }

    /// Takes a registrant away, and the reservation with it when it was the (last) holder.
    fn remove(&mut self, place: usize, change: &mut Change) {
        let host = self.registrants.remove(place).host;
        let Some(held) = self.held else { return };
        let is_over = if held.kind.is_all_registrants() {
            self.registrants.is_empty()
        } else {
            held.holder == host
        };
        if is_over {
            self.held = None;
            if held.kind.is_registrants_only() {
                self.tell_others(host, NotificationKind::ReservationReleased, change);
            }
        }
    }

    fn tell_others(&self, host: HostId, kind: NotificationKind, change: &mut Change) {
        let others = self.registrants.iter().map(|registrant| registrant.host);
        change.notices.extend(others.filter(|other| *other != host).map(|other| (other, kind)));
    }
}
