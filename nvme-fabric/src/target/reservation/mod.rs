//! Reservations: which hosts may read and write a namespace.
//!
//! ```text
//!   command ─▶ State ─┬─▶ notices ─▶ controllers' log pages and events
//!                     ├─▶ aborted hosts: the command ends when theirs have
//!                     └─▶ an image, when it persists: the command ends when it is kept
//! ```
//! By file: `state` (the rules), `access` (the table of conflicts), `notices` (what a controller's
//! host has not read), `image` (what survives a power loss, as text).
//!
//! Who keeps the image: the owner of the target. A namespace made by
//! [`Namespace::with_kept_reservations`](super::Namespace::with_kept_reservations) offers
//! persistence; for each change [`Target::next_reservation_image`] gives an image, and the commands
//! that made it complete when [`Target::reservation_kept`] says that it is durable.
//!
//! Absent: reservations that several targets share. Two targets that export one device each have
//! their own, which is no reservation at all.

mod access;
mod image;
mod notices;
mod state;
#[cfg(test)]
mod tests;

use block_io::{DeviceError, IoError};

use self::state::{Change, State};
use super::controller::{ControllerKey, Service};
use super::{NamespaceKey, Target};
use crate::spec::command::ReservationCommand;
use crate::spec::nqn::HostId;
use crate::spec::reservation::{
    AcquireKeys, CONTROLLER_NONE, KEYS_LENGTH, NotificationKind, RELEASE_LENGTH, RegisterKeys,
    RegisteredController, ReservationKind, ReservationStatus, STATUS_HEADER_LENGTH, capability,
    notification_mask,
};
use crate::spec::status::Status;
pub(super) use access::{Access, Standing};
pub(super) use notices::Notices;

const INVALID: Status = Status::INVALID_FIELD.do_not_retry();

/// A namespace's reservation, to be kept through a power loss.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReservationImage {
    /// Which namespace.
    pub namespace: NamespaceKey,
    /// The namespace's UUID, to keep it under.
    pub uuid: HostId,
    /// Which change this is, for [`Target::reservation_kept`]; later ones are larger.
    pub version: u64,
    /// What to give to [`Namespace::with_kept_reservations`](super::Namespace) after a restart.
    pub text: String,
}

/// The reservation of one namespace.
#[derive(Clone, Debug, Default)]
pub(super) struct Reservation {
    state: State,
    /// Feature 82h.
    mask: u32,
    /// Absent when nobody keeps images.
    keeping: Option<Keeping>,
}

/// Versions of the image.
#[derive(Clone, Copy, Debug, Default)]
struct Keeping {
    /// The last change.
    changed: u64,
    /// The last one handed out.
    asked: u64,
    /// The last one that is durable.
    kept: u64,
    /// The last one that could not be made so.
    failed: u64,
}

/// A command that is done but for what others have to do.
#[derive(Debug)]
pub(super) struct Pending {
    namespace: NamespaceKey,
    /// The image that must be durable.
    version: Option<u64>,
    /// Hosts whose commands from before `sequence` must have ended.
    aborted: Vec<HostId>,
    sequence: u64,
}

/// What a command came to.
#[derive(Debug)]
pub(super) enum Outcome {
    /// The data of Report.
    Report(Vec<u8>),
    Pending(Pending),
}

impl Reservation {
    /// One whose images somebody keeps; the last of them when there is one.
    pub(super) fn kept(image: Option<&str>, namespace: HostId) -> Result<Self, DeviceError> {
        let state =
            image.map_or_else(|| Ok(State::default()), |text| image::parse(text, namespace));
        Ok(Self { state: state?, keeping: Some(Keeping::default()), ..Self::default() })
    }

    /// What survives a power loss, as text.
    pub(super) fn image(&self, namespace: HostId) -> String {
        image::encode(&self.state, namespace)
    }

    /// RESCAP.
    pub(super) fn capabilities(&self) -> u8 {
        let persistence = if self.keeping.is_some() { capability::PERSISTENCE } else { 0 };
        capability::KINDS | capability::IGNORE_EXISTING_KEY | persistence
    }

    /// Whether `host` may do this now.
    pub(super) fn allows(&self, host: HostId, access: Access) -> bool {
        self.state.allows(host, access)
    }

    /// Feature 82h.
    pub(super) fn mask(&self) -> u32 {
        self.mask
    }

    /// Sets feature 82h.
    pub(super) fn set_mask(&mut self, mask: u32) -> Result<(), Status> {
        if mask & !notification_mask::ALL != 0 {
            return Err(INVALID);
        }
        self.mask = mask;
        Ok(())
    }

    /// PTPL, feature 83h.
    pub(super) fn persists(&self) -> bool {
        self.state.persists
    }

    /// Executes a command that changes the state; returns the image that must be kept.
    fn change(
        &mut self,
        host: HostId,
        command: ReservationCommand,
        data: &[u8],
    ) -> Result<(Change, Option<u64>), Status> {
        let before = self.state.clone();
        let change = change(&mut self.state, host, command, data, self.keeping.is_some())?;
        let matters = before.persists || self.state.persists;
        let version = match &mut self.keeping {
            Some(keeping) if matters && before != self.state => {
                keeping.changed += 1;
                Some(keeping.changed)
            }
            _ => None,
        };
        Ok((change, version))
    }

    fn is_masked(&self, kind: NotificationKind) -> bool {
        let bit = match kind {
            NotificationKind::RegistrationPreempted => notification_mask::REGISTRATION_PREEMPTED,
            NotificationKind::ReservationReleased => notification_mask::RESERVATION_RELEASED,
            NotificationKind::ReservationPreempted => notification_mask::RESERVATION_PREEMPTED,
        };
        self.mask & bit != 0
    }
}

fn change(
    state: &mut State,
    host: HostId,
    command: ReservationCommand,
    data: &[u8],
    can_persist: bool,
) -> Result<Change, Status> {
    match command {
        ReservationCommand::Register { action, ignore_existing_key, persistence } => {
            let keys = RegisterKeys::parse(data.first_chunk::<KEYS_LENGTH>().ok_or(INVALID)?);
            let persistence = State::persistence(persistence, can_persist)?;
            state.register(host, action, ignore_existing_key, persistence, keys)
        }
        ReservationCommand::Acquire { action, ignore_existing_key: false, kind } => {
            let keys = AcquireKeys::parse(data.first_chunk::<KEYS_LENGTH>().ok_or(INVALID)?);
            let kind = ReservationKind::parse(kind).ok_or(INVALID)?;
            state.acquire(host, action, kind, keys)
        }
        ReservationCommand::Release { action, ignore_existing_key: false, kind } => {
            let key = data.first_chunk::<RELEASE_LENGTH>().ok_or(INVALID)?;
            state.release(host, action, kind, u64::from_le_bytes(*key))
        }
        // Only Register ignores keys. Base §7.2, §7.4.
        _ => Err(INVALID),
    }
}

/// Bytes of data that a command brings.
pub(super) fn data_length(command: ReservationCommand) -> u64 {
    match command {
        ReservationCommand::Register { .. } | ReservationCommand::Acquire { .. } => {
            KEYS_LENGTH as u64
        }
        ReservationCommand::Release { .. } => RELEASE_LENGTH as u64,
        ReservationCommand::Report { .. } => 0,
    }
}

/// Executes a reservation command of controller `key` on a namespace of its subsystem.
pub(super) fn execute(
    target: &mut Target,
    key: ControllerKey,
    namespace: NamespaceKey,
    command: ReservationCommand,
    data: &[u8],
) -> Result<Outcome, Status> {
    let host = target.controller(key).ok_or(Status::INTERNAL_ERROR)?.host_id;
    if let ReservationCommand::Report { length, extended } = command {
        if !extended {
            return Err(Status::HOST_ID_INCONSISTENT.do_not_retry());
        }
        if length < STATUS_HEADER_LENGTH as u64 {
            return Err(INVALID);
        }
        let mut bytes = status(target, namespace)?.encode();
        // At most the largest transfer, which the plan has checked.
        bytes.resize(length as usize, 0);
        return Ok(Outcome::Report(bytes));
    }
    let place = target.namespace_mut(namespace).ok_or(Status::INVALID_NAMESPACE)?;
    let (mut change, version) = place.reservation.change(host, command, data)?;
    let sequence = place.extents.sequence();
    change.notices.retain(|(_, kind)| !place.reservation.is_masked(*kind));
    let service = Service::Subsystem(namespace.subsystem);
    for controller in target.controllers.iter_mut().flatten() {
        for (host, kind) in &change.notices {
            if controller.service == service && controller.host_id == *host {
                controller.notices.notify(*kind, namespace.namespace as u32 + 1);
            }
        }
    }
    Ok(Outcome::Pending(Pending { namespace, version, aborted: change.aborted, sequence }))
}

/// What Report reads.
fn status(target: &Target, namespace: NamespaceKey) -> Result<ReservationStatus, Status> {
    let place = target.namespace(namespace).ok_or(Status::INVALID_NAMESPACE)?;
    let state = &place.reservation.state;
    let service = Service::Subsystem(namespace.subsystem);
    let mut registered = Vec::new();
    for registrant in &state.registrants {
        let entry = |controller_id| RegisteredController {
            controller_id,
            is_holder: state.standing(registrant.host) == Standing::Holder,
            key: registrant.key,
            host: registrant.host,
        };
        let before = registered.len();
        let controllers = target.controllers.iter().flatten().filter(|controller| {
            controller.service == service && controller.host_id == registrant.host
        });
        registered.extend(controllers.map(|controller| entry(controller.key.id)));
        if registered.len() == before {
            registered.push(entry(CONTROLLER_NONE));
        }
    }
    Ok(ReservationStatus {
        generation: state.generation,
        kind: state.held.map(|held| held.kind),
        persists: state.persists,
        count: u16::try_from(registered.len()).unwrap_or(u16::MAX),
        registered,
    })
}

/// Whether a command's consequences are over: `None` when they are not, else its status.
pub(super) fn settled(target: &Target, pending: &Pending) -> Option<Status> {
    let Some(namespace) = target.namespace(pending.namespace) else {
        return Some(Status::INVALID_NAMESPACE);
    };
    if namespace.extents.has_any_of(&pending.aborted, pending.sequence) {
        return None;
    }
    match (pending.version, namespace.reservation.keeping) {
        (Some(version), Some(keeping)) if keeping.kept < version => {
            // The change holds until the target ends, but nobody may rely on more.
            (keeping.failed >= version).then_some(Status::INTERNAL_ERROR)
        }
        _ => Some(Status::SUCCESS),
    }
}

impl Target {
    /// A reservation's image that is to be made durable, each change once; the answer is
    /// [`reservation_kept`](Self::reservation_kept). Only namespaces made by
    /// [`Namespace::with_kept_reservations`](super::Namespace::with_kept_reservations) have any.
    pub fn next_reservation_image(&mut self) -> Option<ReservationImage> {
        for (subsystem, place) in self.subsystems.iter_mut() {
            for (namespace, place) in place.namespaces.iter_mut() {
                let uuid = place.uuid();
                let reservation = &mut place.reservation;
                if let Some(keeping) = &mut reservation.keeping
                    && keeping.asked < keeping.changed
                {
                    keeping.asked = keeping.changed;
                    return Some(ReservationImage {
                        namespace: NamespaceKey { subsystem, namespace },
                        uuid,
                        version: keeping.changed,
                        text: image::encode(&reservation.state, uuid),
                    });
                }
            }
        }
        None
    }

    /// Image `version` of a namespace is durable, or could not be made so. The commands that made
    /// it complete at the next poll of their connections, with Internal Error in the second case.
    pub fn reservation_kept(
        &mut self,
        namespace: NamespaceKey,
        version: u64,
        result: Result<(), IoError>,
    ) {
        let place = self.namespace_mut(namespace);
        if let Some(keeping) = place.and_then(|place| place.reservation.keeping.as_mut()) {
            match result {
                Ok(()) => keeping.kept = keeping.kept.max(version),
                Err(_) => keeping.failed = keeping.failed.max(version),
            }
        }
    }
}
