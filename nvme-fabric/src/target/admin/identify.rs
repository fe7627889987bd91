//! Identify: what controllers and namespaces say about themselves.

use super::property::VERSION;
use super::{Answer, INVALID_FIELD};
use crate::spec::command::NSID_BROADCAST;
use crate::spec::identify::{
    self, COMMAND_SET_NVM, ControllerKind, IdentifyController, IdentifyControllerNvm,
    IdentifyNamespace, SglSupport, Structure, encode_namespace_list, optional,
};
use crate::spec::status::Status;
use crate::target::access::{ACCESS_GROUPS_MAX, TRANSITION_TIME_S};
use crate::target::controller::{ControllerKey, KEEP_ALIVE_GRANULARITY, Service};
use crate::target::{
    IN_CAPSULE_DATA_MAX, NAMESPACE_ID_MAX, NAMESPACES_MAX, Namespace, PAGE_SIZE, Subsystem,
    TRANSFER_MAX, Target,
};

/// AERL, 0's based: four Asynchronous Event Requests at a time.
pub(in crate::target) const EVENT_REQUEST_LIMIT: u8 = 3;

/// ACL, 0's based: four Abort commands at a time.
pub(in crate::target) const ABORT_LIMIT: u8 = 3;

/// FR: this crate's version, at most 8 characters of it.
pub(super) const FIRMWARE_REVISION: &str = env!("CARGO_PKG_VERSION");

pub(super) fn identify(
    target: &Target,
    key: ControllerKey,
    namespace_id: u32,
    structure: u8,
    command_set: u8,
) -> Result<Answer, Status> {
    let controller = target.controller(key).ok_or(Status::INTERNAL_ERROR)?;
    let mut bytes: Structure = [0; identify::LENGTH];
    match controller.service {
        Service::Discovery if structure == identify::CONTROLLER => {
            discovery_controller(target, key).encode(&mut bytes);
        }
        // A discovery controller has no namespaces. Base §3.1.2.3.
        Service::Discovery => return Err(INVALID_FIELD),
        Service::Subsystem(place) => {
            let subsystem = &target.subsystems[place];
            if structure == identify::CONTROLLER {
                io_controller(target, subsystem, key).encode(&mut bytes);
            } else {
                of_subsystem(subsystem, namespace_id, structure, command_set, &mut bytes)?;
            }
        }
    }
    Ok(Answer::Data(bytes.to_vec()))
}

fn of_subsystem(
    subsystem: &Subsystem,
    namespace_id: u32,
    structure: u8,
    command_set: u8,
    bytes: &mut Structure,
) -> Result<(), Status> {
    match structure {
        identify::NAMESPACE => {
            let identify = |namespace: &Namespace| {
                namespace.identify(subsystem.access_failure(namespace.access_group()).is_none())
            };
            namespace(subsystem, namespace_id)?
                .map_or_else(IdentifyNamespace::default, identify)
                .encode(bytes);
        }
        identify::ACTIVE_NAMESPACES => active(subsystem, namespace_id, bytes)?,
        identify::NAMESPACE_DESCRIPTORS => {
            // An inactive namespace has no descriptors to give. Base §5.17.2.3.
            let namespace = namespace(subsystem, namespace_id)?;
            namespace.ok_or(Status::INVALID_NAMESPACE.do_not_retry())?.descriptors().encode(bytes);
        }
        identify::NAMESPACE_INDEPENDENT => {
            if let Some(namespace) = namespace(subsystem, namespace_id)? {
                namespace.identify_independent().encode(bytes);
            }
        }
        // The rest asks about one command set, and there is only NVM's.
        _ if command_set != COMMAND_SET_NVM => return Err(INVALID_FIELD),
        // No metadata and no protection: all zero. NVM §4.1.5.3.
        identify::NAMESPACE_OF_COMMAND_SET => {
            namespace(subsystem, namespace_id)?;
        }
        identify::CONTROLLER_OF_COMMAND_SET => {
            let limits = IdentifyControllerNvm {
                verify_size_max: subsystem.verify_size_max(),
                write_zeroes_size_max: subsystem.write_zeroes_size_max(),
                ..IdentifyControllerNvm::default()
            };
            limits.encode(bytes);
        }
        identify::ACTIVE_NAMESPACES_OF_COMMAND_SET => active(subsystem, namespace_id, bytes)?,
        _ => return Err(INVALID_FIELD),
    }
    Ok(())
}

/// The namespace with this id; none when the id is valid but inactive. Base §3.2.1.
fn namespace(subsystem: &Subsystem, namespace_id: u32) -> Result<Option<&Namespace>, Status> {
    if namespace_id == 0 || namespace_id > NAMESPACE_ID_MAX {
        return Err(Status::INVALID_NAMESPACE.do_not_retry());
    }
    Ok(subsystem.find(namespace_id).map(|(_, namespace)| namespace))
}

/// The ids above `after`. Base §5.17.2.2.
fn active(subsystem: &Subsystem, after: u32, bytes: &mut Structure) -> Result<(), Status> {
    if after >= NSID_BROADCAST - 1 {
        return Err(Status::INVALID_NAMESPACE.do_not_retry());
    }
    let ids = subsystem.namespaces().iter().map(|(place, _)| place as u32 + 1);
    encode_namespace_list(ids.filter(|id| *id > after), bytes);
    Ok(())
}

/// What controllers of both kinds say.
fn controller(target: &Target, key: ControllerKey) -> IdentifyController {
    IdentifyController {
        firmware_revision: FIRMWARE_REVISION.to_owned(),
        controller_id: key.id,
        version: VERSION,
        attributes: optional::ATTRIBUTE_HOST_ID_128 | optional::ATTRIBUTE_TRAFFIC_KEEP_ALIVE,
        event_request_limit: EVENT_REQUEST_LIMIT,
        log_page_attributes: optional::LOG_EXTENDED,
        keep_alive_granularity: KEEP_ALIVE_GRANULARITY,
        commands_max: target.settings.queue_entries_max,
        sgl_support: SglSupport(SglSupport::SUPPORTED | SglSupport::OFFSET | SglSupport::TRANSPORT),
        // In 16 bytes: the entry is 4 of them. Base §5.17.2.1.
        command_capsule_size: (IN_CAPSULE_DATA_MAX + 64) / 16,
        response_capsule_size: 1,
        data_descriptors_max: 1,
        ..IdentifyController::default()
    }
}

fn discovery_controller(target: &Target, key: ControllerKey) -> IdentifyController {
    IdentifyController {
        serial_number: "discovery".to_owned(),
        model_number: "Forebay".to_owned(),
        data_transfer_size_max: (TRANSFER_MAX / PAGE_SIZE).ilog2() as u8,
        events: optional::EVENT_DISCOVERY_LOG,
        kind: ControllerKind::Discovery,
        subsystem: target.discovery.name().to_owned(),
        ..controller(target, key)
    }
}

fn io_controller(target: &Target, subsystem: &Subsystem, key: ControllerKey) -> IdentifyController {
    let mut namespaces = subsystem.namespaces().values();
    let cached = namespaces.any(|namespace| namespace.geometry().volatile_cache);
    let has_groups = subsystem.access_groups().next().is_some();
    let (paths, events, access) = match has_groups {
        true => (
            optional::MULTIPLE_PORTS | optional::ASYMMETRIC_ACCESS,
            optional::EVENT_ASYMMETRIC_ACCESS,
            (optional::ACCESS_STATES | optional::ACCESS_GROUP_STAYS, ACCESS_GROUPS_MAX),
        ),
        false => (0, 0, (0, 0)),
    };
    IdentifyController {
        serial_number: subsystem.serial_number().to_owned(),
        model_number: subsystem.model_number().to_owned(),
        multi_path: optional::MULTIPLE_CONTROLLERS | paths,
        data_transfer_size_max: subsystem.data_transfer_size_max(),
        events: optional::EVENT_NAMESPACE_ATTRIBUTE | events,
        access_transition_time: if has_groups { TRANSITION_TIME_S } else { 0 },
        access_capabilities: access.0,
        access_group_max: access.1,
        access_groups: access.1,
        kind: ControllerKind::InputOutput,
        submission_entry_size: 0x66,
        completion_entry_size: 0x44,
        namespaces: NAMESPACE_ID_MAX,
        namespaces_allowed_max: NAMESPACES_MAX as u32,
        abort_limit: ABORT_LIMIT,
        log_page_attributes: optional::LOG_EXTENDED | optional::LOG_EFFECTS,
        nvm_commands: nvm_commands(subsystem),
        fused_operations: optional::FUSED_COMPARE_AND_WRITE,
        atomic_compare_write_unit: subsystem.atomic_compare_write_unit(),
        copy_formats: optional::COPY_FORMAT_SHORT | optional::COPY_FORMAT_LONG,
        volatile_write_cache: optional::CACHE_FLUSH_SINGLE
            | if cached { optional::CACHE_PRESENT } else { 0 },
        subsystem: subsystem.nqn().as_str().to_owned(),
        ..controller(target, key)
    }
}

/// ONCS: the optional commands that the namespaces' devices allow. Write uncorrectable is not
/// offered: see `crate::target::io`.
pub(super) fn nvm_commands(subsystem: &Subsystem) -> u16 {
    let any = |has: fn(&Namespace) -> bool| subsystem.namespaces().values().any(has);
    let all = |has: fn(&Namespace) -> bool| subsystem.namespaces().values().all(has);
    let bit = |yes, bit| if yes { bit } else { 0 };
    bit(all(|namespace| namespace.geometry().write_zeroes), optional::COMMAND_WRITE_ZEROES)
        | bit(any(|namespace| namespace.geometry().discard), optional::COMMAND_DATASET_MANAGEMENT)
        | optional::COMMAND_COMPARE
        | optional::COMMAND_VERIFY
        | optional::COMMAND_COPY
        | optional::COMMAND_RESERVATIONS
}
