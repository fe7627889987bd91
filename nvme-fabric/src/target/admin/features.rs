//! Set Features and Get Features.

use super::{Answer, INVALID_FIELD, check_data};
use crate::spec::command::{self, NSID_BROADCAST, SubmissionEntry};
use crate::spec::feature::{
    self, NumberOfQueues, RESERVATION_NOTIFICATION_MASK, RESERVATION_PERSISTENCE,
    TemperatureThreshold, event,
};
use crate::spec::status::Status;
use crate::target::controller::{Controller, ControllerKey, Service};
use crate::target::reservation::Reservation;
use crate::target::{NamespaceKey, Target};

/// EXHID, dword 11 bit 0 of the host identifier feature: the identifier has 128 bits.
const HOST_IDENTIFIER_EXTENDED: u32 = 1;

/// Arbitration burst, the one field of the arbitration feature that round robin has: bits 2:0.
const ARBITRATION_BURST: u32 = 0b111;

pub(super) fn set(
    target: &mut Target,
    key: ControllerKey,
    namespace_id: u32,
    feature: u8,
    value: u32,
) -> Result<Answer, Status> {
    if matches!(feature, RESERVATION_NOTIFICATION_MASK | RESERVATION_PERSISTENCE) {
        return set_reservation(target, key, namespace_id, feature, value);
    }
    let controller = target.controller_mut(key).ok_or(Status::INTERNAL_ERROR)?;
    let is_discovery = controller.service == Service::Discovery;
    match feature {
        feature::ASYNCHRONOUS_EVENTS => set_events(target, key, value),
        feature::KEEP_ALIVE_TIMER => {
            controller.set_keep_alive(value);
            Ok(Answer::Done(0))
        }
        // Over fabrics Connect sets it. Base §5.27.1.25.
        feature::HOST_IDENTIFIER => Err(Status::COMMAND_SEQUENCE_ERROR.do_not_retry()),
        _ if is_discovery => Err(INVALID_FIELD),
        feature::NUMBER_OF_QUEUES => set_number_of_queues(controller, value),
        feature::ARBITRATION => {
            controller.arbitration = value & ARBITRATION_BURST;
            Ok(Answer::Done(0))
        }
        feature::TEMPERATURE_THRESHOLD => {
            let threshold = TemperatureThreshold::parse(value);
            if temperature_threshold(threshold)? != threshold.kelvins {
                return Err(Status::FEATURE_NOT_CHANGEABLE.do_not_retry());
            }
            Ok(Answer::Done(0))
        }
        // These have one value here; setting it is no change.
        feature::POWER_MANAGEMENT | feature::ERROR_RECOVERY | feature::WRITE_ATOMICITY
            if value == 0 =>
        {
            Ok(Answer::Done(0))
        }
        feature::VOLATILE_WRITE_CACHE if has_volatile_cache(target, key) => {
            if value & 1 == 1 {
                return Ok(Answer::Done(0));
            }
            Err(Status::FEATURE_NOT_CHANGEABLE.do_not_retry())
        }
        feature::POWER_MANAGEMENT | feature::ERROR_RECOVERY | feature::WRITE_ATOMICITY => {
            Err(Status::FEATURE_NOT_CHANGEABLE.do_not_retry())
        }
        _ => Err(INVALID_FIELD),
    }
}

pub(super) fn get(
    target: &Target,
    key: ControllerKey,
    entry: &SubmissionEntry,
    feature: u8,
    select: u8,
    value: u32,
) -> Result<Answer, Status> {
    let controller = target.controller(key).ok_or(Status::INTERNAL_ERROR)?;
    let namespace_id = command::namespace_id(entry);
    // Only the current value; saving and the like is not supported (ONCS bit 4).
    if select != 0 {
        return Err(INVALID_FIELD);
    }
    let current = match feature {
        feature::ASYNCHRONOUS_EVENTS => controller.event_configuration,
        feature::KEEP_ALIVE_TIMER => {
            controller.keep_alive.map_or(0, |timeout| timeout.as_millis() as u32)
        }
        feature::HOST_IDENTIFIER => {
            if value & HOST_IDENTIFIER_EXTENDED == 0 {
                return Err(INVALID_FIELD);
            }
            check_data(entry, 16)?;
            return Ok(Answer::Data(controller.host_id.0.to_vec()));
        }
        _ if controller.service == Service::Discovery => return Err(INVALID_FIELD),
        feature::RESERVATION_NOTIFICATION_MASK => {
            reservation(target, controller.service, namespace_id)?.mask()
        }
        feature::RESERVATION_PERSISTENCE => {
            reservation(target, controller.service, namespace_id)?.persists().into()
        }
        feature::NUMBER_OF_QUEUES => queues(controller).encode(),
        feature::ARBITRATION => controller.arbitration,
        feature::TEMPERATURE_THRESHOLD => {
            temperature_threshold(TemperatureThreshold::parse(value))?.into()
        }
        feature::POWER_MANAGEMENT | feature::ERROR_RECOVERY | feature::WRITE_ATOMICITY => 0,
        feature::VOLATILE_WRITE_CACHE if has_volatile_cache(target, key) => 1,
        _ => return Err(INVALID_FIELD),
    };
    Ok(Answer::Done(current.into()))
}

/// The threshold that there is, in kelvins. There is no sensor, so no temperature ever crosses one:
/// the composite temperature's have their defaults (WCTEMP, which says how hot is too hot, is not
/// reported), and cannot be changed to what would have to be watched. Base §5.27.1.3.
fn temperature_threshold(threshold: TemperatureThreshold) -> Result<u16, Status> {
    match (threshold.sensor, threshold.kind) {
        (TemperatureThreshold::COMPOSITE, TemperatureThreshold::OVER) => Ok(u16::MAX),
        (TemperatureThreshold::COMPOSITE, TemperatureThreshold::UNDER) => Ok(0),
        _ => Err(INVALID_FIELD),
    }
}

/// The features of a namespace's reservation.
fn set_reservation(
    target: &mut Target,
    key: ControllerKey,
    namespace_id: u32,
    feature: u8,
    value: u32,
) -> Result<Answer, Status> {
    let service = target.controller(key).ok_or(Status::INTERNAL_ERROR)?.service;
    let Service::Subsystem(subsystem) = service else { return Err(INVALID_FIELD) };
    if feature == feature::RESERVATION_PERSISTENCE {
        // Changing it takes as long as keeping an image does: CPTPL of Register changes it.
        let current = reservation(target, service, namespace_id)?.persists();
        return if value == u32::from(current) {
            Ok(Answer::Done(0))
        } else {
            Err(Status::FEATURE_NOT_CHANGEABLE.do_not_retry())
        };
    }
    if namespace_id == NSID_BROADCAST {
        if let Some(found) = target.subsystems.get_mut(subsystem) {
            for (_, namespace) in found.namespaces.iter_mut() {
                namespace.reservation.set_mask(value)?;
            }
        }
        return Ok(Answer::Done(0));
    }
    let (place, _) = target.subsystems[subsystem]
        .find(namespace_id)
        .ok_or(Status::INVALID_NAMESPACE.do_not_retry())?;
    let namespace = target.namespace_mut(NamespaceKey { subsystem, namespace: place });
    namespace.ok_or(Status::INVALID_NAMESPACE)?.reservation.set_mask(value)?;
    Ok(Answer::Done(0))
}

fn reservation(
    target: &Target,
    service: Service,
    namespace_id: u32,
) -> Result<&Reservation, Status> {
    let Service::Subsystem(subsystem) = service else { return Err(INVALID_FIELD) };
    let found = target.subsystems[subsystem].find(namespace_id);
    let (_, namespace) = found.ok_or(Status::INVALID_NAMESPACE.do_not_retry())?;
    Ok(&namespace.reservation)
}

fn set_events(target: &mut Target, key: ControllerKey, value: u32) -> Result<Answer, Status> {
    let controller = target.controller(key).ok_or(Status::INTERNAL_ERROR)?;
    let offered = match controller.service {
        Service::Discovery => event::DISCOVERY_LOG,
        Service::Subsystem(place) => {
            let has_groups = target.subsystems[place].access_groups().next().is_some();
            let access = if has_groups { event::ASYMMETRIC_ACCESS } else { 0 };
            event::NAMESPACE_ATTRIBUTE | event::CRITICAL_WARNINGS | access
        }
    };
    if value & !offered != 0 {
        return Err(INVALID_FIELD);
    }
    if let Some(controller) = target.controller_mut(key) {
        controller.event_configuration = value;
    }
    Ok(Answer::Done(0))
}

/// Grants as many as asked for, at most as many as there may be. Base §5.27.1.5.
fn set_number_of_queues(controller: &mut Controller, value: u32) -> Result<Answer, Status> {
    // FFFFh in either count is not allowed.
    if value & 0xffff == 0xffff || value >> 16 == 0xffff {
        return Err(INVALID_FIELD);
    }
    if controller.io_queues.contains(&true) {
        return Err(Status::COMMAND_SEQUENCE_ERROR.do_not_retry());
    }
    let asked = NumberOfQueues::parse(value);
    let most = controller.io_queues.len() as u32;
    controller.io_queues_granted = asked.submission.min(asked.completion).min(most) as u16;
    Ok(Answer::Done(queues(controller).encode().into()))
}

fn queues(controller: &Controller) -> NumberOfQueues {
    let granted = u32::from(controller.io_queues_granted);
    NumberOfQueues { submission: granted, completion: granted }
}

fn has_volatile_cache(target: &Target, key: ControllerKey) -> bool {
    match target.controller(key).map(|controller| controller.service) {
        Some(Service::Subsystem(place)) => target.subsystems[place]
            .namespaces()
            .values()
            .any(|namespace| namespace.geometry().volatile_cache),
        _ => false,
    }
}
