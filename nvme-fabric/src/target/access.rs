//! Who may use a subsystem, and how well this process reaches its namespaces: the list of hosts and
//! the groups of asymmetric access.
//!
//! ```text
//!   group 1 ─ Optimized ──── namespaces 1, 2        another process that serves the same
//!   group 2 ─ Inaccessible ─ namespace 3            subsystem says Inaccessible, Optimized
//! ```
//! A state is this process's, of all its listeners: two processes with controller ids that do not
//! overlap ([`super::Settings::controller_id_first`]) are two paths. Absent: different states of a
//! group at listeners of one process; agreement of the processes, which is whoever switches them.

use block_io::DeviceError;

use super::Subsystem;
use crate::spec::log_page::{AccessGroup, AccessLog, AccessState};
use crate::spec::nqn::Nqn;
use crate::spec::status::Status;

/// ANAGRPMAX and NANAGRPID: groups are numbered from 1 to this. Base §5.17.2.1.
pub const ACCESS_GROUPS_MAX: u32 = 128;

/// ANATT: seconds that a group may be in the state Change; hosts give a path up after it.
/// Base §5.17.2.1.
pub(super) const TRANSITION_TIME_S: u8 = 10;

/// Hosts that a list may name.
pub const HOSTS_MAX: usize = 4096;

/// Which hosts may connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hosts {
    /// Whoever asks.
    Any,
    /// These and no others; [`HOSTS_MAX`] at the most.
    Listed(Vec<Nqn>),
}

impl Hosts {
    /// Whether `host` may connect.
    pub fn contains(&self, host: &Nqn) -> bool {
        match self {
            Self::Any => true,
            Self::Listed(hosts) => hosts.contains(host),
        }
    }
}

/// Groups of namespaces and their states.
#[derive(Clone, Debug, Default)]
pub(super) struct Groups {
    /// CHGCNT of the log page.
    changes: u64,
    /// Ascending by id; empty when asymmetric access is not reported.
    groups: Vec<Group>,
}

#[derive(Clone, Copy, Debug)]
struct Group {
    id: u32,
    changes: u64,
    state: AccessState,
}

impl Groups {
    pub(super) fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    pub(super) fn first(&self) -> Option<u32> {
        self.groups.first().map(|group| group.id)
    }

    pub(super) fn state(&self, id: u32) -> Option<AccessState> {
        let place = self.groups.binary_search_by_key(&id, |group| group.id).ok()?;
        Some(self.groups[place].state)
    }

    pub(super) fn states(&self) -> impl Iterator<Item = (u32, AccessState)> {
        self.groups.iter().map(|group| (group.id, group.state))
    }

    pub(super) fn add(&mut self, id: u32, state: AccessState) -> Result<(), DeviceError> {
        if !(1..=ACCESS_GROUPS_MAX).contains(&id) {
            return Err(DeviceError::new(format!(
                "the access group is {id}: must be 1 to {ACCESS_GROUPS_MAX}"
            )));
        }
        check_state(state)?;
        match self.groups.binary_search_by_key(&id, |group| group.id) {
            Ok(_) => Err(DeviceError::new(format!("the access group {id} is there already"))),
            Err(place) => {
                self.groups.insert(place, Group { id, changes: 0, state });
                Ok(())
            }
        }
    }

    /// Whether that changes anything.
    pub(super) fn set(&mut self, id: u32, state: AccessState) -> Result<bool, DeviceError> {
        check_state(state)?;
        let Ok(place) = self.groups.binary_search_by_key(&id, |group| group.id) else {
            let ids: Vec<u32> = self.groups.iter().map(|group| group.id).collect();
            return Err(DeviceError::new(format!(
                "the access group is {id}: must be one of the subsystem's, {ids:?}"
            )));
        };
        let group = &mut self.groups[place];
        if group.state == state {
            return Ok(false);
        }
        group.state = state;
        group.changes += 1;
        self.changes += 1;
        Ok(true)
    }

    /// Notes that a namespace was added to or removed from a group.
    pub(super) fn members_changed(&mut self, id: u32) {
        if let Ok(place) = self.groups.binary_search_by_key(&id, |group| group.id) {
            self.groups[place].changes += 1;
            self.changes += 1;
        }
    }
}

fn check_state(state: AccessState) -> Result<(), DeviceError> {
    match state {
        AccessState::Other(value) => Err(DeviceError::new(format!(
            "the access state is {value:#x}: must be 1h, 2h, 3h, 4h or Fh"
        ))),
        _ => Ok(()),
    }
}

impl Subsystem {
    /// Why commands for namespaces of `group` fail here now, if they do. The host is to try another
    /// path. Base §8.1 (ANA states), §3.3.3.2.1 (path related status).
    pub(super) fn access_failure(&self, group: u32) -> Option<Status> {
        // Without groups everything is accessible.
        match self.groups.state(group)? {
            AccessState::Optimized | AccessState::NonOptimized => None,
            AccessState::Inaccessible => Some(Status::ANA_INACCESSIBLE),
            AccessState::PersistentLoss => Some(Status::ANA_PERSISTENT_LOSS),
            AccessState::Change | AccessState::Other(_) => Some(Status::ANA_TRANSITION),
        }
    }

    /// The log page; without namespace ids when only `groups_only` are asked for.
    pub(super) fn access_log(&self, groups_only: bool) -> AccessLog {
        let groups = self.groups.groups.iter().map(|group| {
            let members = self
                .namespaces()
                .iter()
                .filter(|(_, namespace)| !groups_only && namespace.access_group() == group.id);
            AccessGroup {
                id: group.id,
                changes: group.changes,
                state: group.state,
                namespaces: members.map(|(place, _)| place as u32 + 1).collect(),
            }
        });
        AccessLog { changes: self.groups.changes, groups: groups.collect() }
    }
}
