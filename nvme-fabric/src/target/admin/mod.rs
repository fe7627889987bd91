//! Admin commands and properties: from an entry to an answer, on the target's shared state.
//!
//! Absent: how the answer travels, and parking Asynchronous Event Requests, which is the
//! connection's part.

pub(super) mod connect;
mod features;
mod identify;
mod log_pages;
mod property;

use std::net::IpAddr;

use block_io::Timestamp;

use super::Target;
use super::controller::ControllerKey;
pub(super) use identify::{ABORT_LIMIT, EVENT_REQUEST_LIMIT};

use crate::spec::command::{self, AdminCommand, FabricsCommand, SubmissionEntry};
use crate::spec::sgl::Descriptor;
use crate::spec::status::Status;

/// How a command is answered.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// With a result in dwords 0 and 1.
    Done(u64),
    /// With data, of the command's length.
    Data(Vec<u8>),
    /// When there is an event.
    Park,
    /// When this command has ended or cannot be made to.
    Abort { queue_id: u16, command_id: u16 },
}

/// A failed command: its status and dword 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) status: Status,
    pub(super) result: u32,
}

impl From<Status> for Refusal {
    fn from(status: Status) -> Self {
        Self { status, result: 0 }
    }
}

/// The status of a command that would fail again just so.
pub(super) const INVALID_FIELD: Status = Status::INVALID_FIELD.do_not_retry();

/// Checks what every command must have: SGLs (PSDT 01b) and no fusing, which no controller here
/// offers. Base §3.3.3.1.
pub(super) fn check_common(entry: &SubmissionEntry) -> Result<(), Status> {
    if command::fuse(entry) != 0 || command::data_transfer(entry) != 0b01 {
        return Err(INVALID_FIELD);
    }
    Ok(())
}

/// Checks that a command takes exactly `length` bytes, in data PDUs.
pub(super) fn check_data(entry: &SubmissionEntry, length: u64) -> Result<(), Status> {
    let data = command::data(entry);
    if data.kind != Descriptor::KIND_TRANSPORT {
        return Err(Status::SGL_TYPE_INVALID.do_not_retry());
    }
    if u64::from(data.length) != length {
        return Err(Status::DATA_SGL_LENGTH_INVALID.do_not_retry());
    }
    Ok(())
}

/// Executes an admin command of the controller `key`, asked at `local`.
pub(super) fn execute(
    target: &mut Target,
    key: ControllerKey,
    local: IpAddr,
    entry: &SubmissionEntry,
) -> Result<Answer, Status> {
    check_common(entry)?;
    let controller = target.controller(key).ok_or(Status::COMMAND_SEQUENCE_ERROR)?;
    if !controller.is_ready() {
        // Base §3.5.4 (controller initialisation over fabrics).
        return Err(Status::COMMAND_SEQUENCE_ERROR.do_not_retry());
    }
    match AdminCommand::parse(entry) {
        AdminCommand::Identify { namespace_id, structure, command_set, .. } => {
            check_data(entry, crate::spec::identify::LENGTH as u64)?;
            identify::identify(target, key, namespace_id, structure, command_set)
        }
        AdminCommand::GetLogPage {
            namespace_id,
            page,
            specific,
            retain_event,
            length,
            offset,
            index_offset,
        } => {
            if index_offset || length > u64::from(super::TRANSFER_MAX) {
                return Err(INVALID_FIELD);
            }
            check_data(entry, length)?;
            let request =
                log_pages::Request { namespace_id, page, specific, retain_event, length, offset };
            log_pages::read(target, key, local, &request)
        }
        AdminCommand::SetFeatures { namespace_id, feature, save, value } => {
            if save {
                return Err(Status::FEATURE_NOT_SAVEABLE.do_not_retry());
            }
            features::set(target, key, namespace_id, feature, value)
        }
        AdminCommand::GetFeatures { feature, select, value, .. } => {
            features::get(target, key, entry, feature, select, value)
        }
        AdminCommand::AsynchronousEventRequest => Ok(Answer::Park),
        // The connection has already noted that it heard something.
        AdminCommand::KeepAlive => Ok(Answer::Done(0)),
        AdminCommand::Abort { queue_id, command_id } => Ok(Answer::Abort { queue_id, command_id }),
        AdminCommand::Other(_) => Err(Status::INVALID_OPCODE.do_not_retry()),
    }
}

/// Executes a Fabrics command other than Connect on the admin queue of controller `key`.
pub(super) fn execute_fabrics(
    target: &mut Target,
    key: ControllerKey,
    entry: &SubmissionEntry,
    now: Timestamp,
) -> Result<Answer, Status> {
    check_common(entry)?;
    let entries_max = target.settings.queue_entries_max;
    let controller = target.controller_mut(key).ok_or(Status::COMMAND_SEQUENCE_ERROR)?;
    match FabricsCommand::parse(entry) {
        FabricsCommand::PropertyGet { size, offset } => {
            property::get(controller, entries_max, size, offset)
        }
        FabricsCommand::PropertySet { size, offset, value } => {
            controller.heard = now;
            property::set(controller, size, offset, value)
        }
        // One Connect a connection. Base §6.3.
        FabricsCommand::Connect { .. } => Err(Status::COMMAND_SEQUENCE_ERROR.do_not_retry()),
        // The connection has taken those of hosts that have a secret.
        FabricsCommand::AuthenticationSend { .. }
        | FabricsCommand::AuthenticationReceive { .. }
        | FabricsCommand::Disconnect
        | FabricsCommand::Other(_) => Err(Status::INVALID_OPCODE.do_not_retry()),
    }
}
