//! Get Log Page.

use std::net::IpAddr;

use super::identify::{FIRMWARE_REVISION, nvm_commands};
use super::{Answer, INVALID_FIELD};
use crate::spec::command::{NSID_BROADCAST, admin, nvm, reservation};
use crate::spec::feature::event;
use crate::spec::identify::optional;
use crate::spec::log_page::{
    self, EFFECT_CONTENT, EFFECT_SUPPORTED, EFFECTS_LENGTH, ERROR_ENTRY_LENGTH, encode_effects,
    encode_firmware_log,
};
use crate::spec::status::Status;
use crate::target::controller::{ControllerKey, Service};
use crate::target::{Target, discovery};

/// What is read of which page.
pub(super) struct Request {
    pub(super) namespace_id: u32,
    pub(super) page: u8,
    /// LSP.
    pub(super) specific: u8,
    pub(super) retain_event: bool,
    pub(super) length: u64,
    pub(super) offset: u64,
}

pub(super) fn read(
    target: &mut Target,
    key: ControllerKey,
    local: IpAddr,
    request: &Request,
) -> Result<Answer, Status> {
    // Offsets are of dwords. Base §5.16.
    if !request.offset.is_multiple_of(4) {
        return Err(INVALID_FIELD);
    }
    // No page here is a namespace's: LPA bit 0 is clear. Base §5.16.
    if request.namespace_id != 0 && request.namespace_id != NSID_BROADCAST {
        return Err(INVALID_FIELD);
    }
    let service = target.controller(key).ok_or(Status::INTERNAL_ERROR)?.service;
    let (page, event) = match (service, request.page) {
        (Service::Discovery, log_page::DISCOVERY) => {
            (discovery::log_page(target, key, local), event::DISCOVERY_LOG)
        }
        // One entry, not in use: what fails here is told in its command's status.
        (_, log_page::ERROR_INFORMATION) => (vec![0; ERROR_ENTRY_LENGTH], 0),
        (Service::Subsystem(place), log_page::HEALTH_INFORMATION) => {
            (target.subsystems[place].health().encode().to_vec(), 0)
        }
        (_, log_page::FIRMWARE_SLOTS) => (encode_firmware_log(FIRMWARE_REVISION).to_vec(), 0),
        (Service::Subsystem(_), log_page::CHANGED_NAMESPACES) => {
            (changed_namespaces(target, key)?, event::NAMESPACE_ATTRIBUTE)
        }
        (Service::Subsystem(place), log_page::COMMAND_EFFECTS) => {
            (effects(nvm_commands(&target.subsystems[place])).to_vec(), 0)
        }
        (Service::Subsystem(place), log_page::ASYMMETRIC_ACCESS)
            if target.subsystems[place].access_groups().next().is_some() =>
        {
            let groups_only = request.specific & log_page::ACCESS_GROUPS_ONLY != 0;
            let log = target.subsystems[place].access_log(groups_only);
            (log.encode(), event::ASYMMETRIC_ACCESS)
        }
        (Service::Subsystem(_), log_page::RESERVATION_NOTIFICATION) => {
            let controller = target.controller_mut(key).ok_or(Status::INTERNAL_ERROR)?;
            // A read of the whole page takes the notification away, other reads look at it.
            let retain = request.retain_event || request.offset != 0;
            (controller.notices.page(retain).encode().to_vec(), 0)
        }
        _ => return Err(Status::INVALID_LOG_PAGE.do_not_retry()),
    };
    // Reading from behind the end is an error, reading past it gives zeroes. Base §5.16.
    let start = usize::try_from(request.offset).map_err(|_| INVALID_FIELD)?;
    let rest = page.get(start..).ok_or(INVALID_FIELD)?;
    if !request.retain_event
        && let Some(controller) = target.controller_mut(key)
    {
        controller.rearm(event);
    }
    let mut bytes = rest.to_vec();
    // At most the largest transfer, which the caller has checked.
    bytes.resize(request.length as usize, 0);
    Ok(Answer::Data(bytes))
}

fn changed_namespaces(target: &mut Target, key: ControllerKey) -> Result<Vec<u8>, Status> {
    let controller = target.controller_mut(key).ok_or(Status::INTERNAL_ERROR)?;
    let ids = controller.changed_namespaces();
    let mut bytes: Vec<u8> = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
    bytes.resize(log_page::CHANGED_NAMESPACES_LENGTH, 0);
    Ok(bytes)
}

/// What there is of commands, with those of ONCS that are in `optional_commands`.
fn effects(optional_commands: u16) -> [u8; EFFECTS_LENGTH] {
    const CHANGES: u32 = EFFECT_SUPPORTED | EFFECT_CONTENT;
    let admin = [
        admin::OPCODE_GET_LOG_PAGE,
        admin::OPCODE_IDENTIFY,
        admin::OPCODE_ABORT,
        admin::OPCODE_SET_FEATURES,
        admin::OPCODE_GET_FEATURES,
        admin::OPCODE_ASYNCHRONOUS_EVENT_REQUEST,
        admin::OPCODE_KEEP_ALIVE,
    ];
    let always = [
        (nvm::OPCODE_FLUSH, EFFECT_SUPPORTED),
        (nvm::OPCODE_WRITE, CHANGES),
        (nvm::OPCODE_READ, EFFECT_SUPPORTED),
    ];
    let optional = [
        (optional::COMMAND_COMPARE, nvm::OPCODE_COMPARE, EFFECT_SUPPORTED),
        (optional::COMMAND_WRITE_ZEROES, nvm::OPCODE_WRITE_ZEROES, CHANGES),
        (optional::COMMAND_DATASET_MANAGEMENT, nvm::OPCODE_DATASET_MANAGEMENT, CHANGES),
        (optional::COMMAND_VERIFY, nvm::OPCODE_VERIFY, EFFECT_SUPPORTED),
        (optional::COMMAND_COPY, nvm::OPCODE_COPY, CHANGES),
        (optional::COMMAND_RESERVATIONS, reservation::OPCODE_REGISTER, EFFECT_SUPPORTED),
        (optional::COMMAND_RESERVATIONS, reservation::OPCODE_REPORT, EFFECT_SUPPORTED),
        (optional::COMMAND_RESERVATIONS, reservation::OPCODE_ACQUIRE, EFFECT_SUPPORTED),
        (optional::COMMAND_RESERVATIONS, reservation::OPCODE_RELEASE, EFFECT_SUPPORTED),
    ];
    let offered = optional.into_iter().filter(|(bit, ..)| optional_commands & bit != 0);
    let io = always.into_iter().chain(offered.map(|(_, opcode, effects)| (opcode, effects)));
    encode_effects(admin.map(|opcode| (opcode, EFFECT_SUPPORTED)), io)
}
