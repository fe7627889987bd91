//! Connect: a connection becomes a queue, of a new controller or of one that is there.

use block_io::Timestamp;

use super::{Answer, INVALID_FIELD, Refusal};
use crate::spec::command::FabricsCommand;
use crate::spec::connect::{
    CONTROLLER_ID_DYNAMIC, ConnectData, ConnectResult, DATA_LENGTH, InvalidParameter,
    OFFSET_CONTROLLER_ID, OFFSET_HOST_NQN, OFFSET_QUEUE_ID, OFFSET_QUEUE_SIZE,
    OFFSET_SUBSYSTEM_NQN,
};
use crate::spec::nqn::HostId;
use crate::spec::status::Status;
use crate::target::controller::{Controller, ControllerKey, Service};
use crate::target::{Target, secrets};

/// KATO of a discovery controller whose host named none, milliseconds.
const DISCOVERY_KEEP_ALIVE_MS: u32 = 120_000;

/// What a connection has become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::target) struct Queue {
    pub(in crate::target) controller: ControllerKey,
    pub(in crate::target) service: Service,
    /// Whose queue it is.
    pub(in crate::target) host: HostId,
    /// The controller's epoch; an I/O queue does not outlive it.
    pub(in crate::target) epoch: u32,
    /// QID: 0 for the admin queue.
    pub(in crate::target) id: u16,
    /// Entries, at least 2.
    pub(in crate::target) entries: u16,
    pub(in crate::target) flow_control: bool,
    pub(in crate::target) demand: Demand,
}

/// What a host must prove before anything else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(not(feature = "auth"), expect(dead_code, reason = "no host has a secret"))]
pub(in crate::target) enum Demand {
    /// Nothing: it has no secret.
    None,
    /// Nothing more: the key of the stream is of an earlier proof.
    Proven,
    /// ATR: that it knows its secret.
    Proof,
    /// ASCR: the same, and then it connects again over TLS.
    SecureChannel,
}

/// How the stream of a Connect is protected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::target) enum Stream {
    Plain,
    /// By a key that both ends were given.
    Configured,
    /// By a key that an authentication has generated.
    Generated,
}

/// A parameter of Connect that cannot be right. Base §6.3.
fn invalid(offset: u16, in_data: bool) -> Refusal {
    Refusal {
        status: Status::CONNECT_INVALID_PARAMETERS.do_not_retry(),
        result: InvalidParameter { offset, in_data }.encode(),
    }
}

/// Executes Connect.
pub(in crate::target) fn connect(
    target: &mut Target,
    command: &FabricsCommand,
    data: &[u8; DATA_LENGTH],
    stream: Stream,
    now: Timestamp,
) -> Result<(Queue, Answer), Refusal> {
    let FabricsCommand::Connect {
        record_format,
        queue_id,
        queue_size,
        flow_control_disabled,
        keep_alive_ms,
    } = *command
    else {
        return Err(INVALID_FIELD.into());
    };
    if record_format != 0 {
        return Err(Status::CONNECT_INCOMPATIBLE_FORMAT.do_not_retry().into());
    }
    // SQSIZE is 0's based, and a queue has at least two entries. Base §6.3.
    if queue_size == 0 || queue_size >= target.settings.queue_entries_max {
        return Err(invalid(OFFSET_QUEUE_SIZE, false));
    }
    let data = ConnectData::parse(data).map_err(|error| invalid(error.offset, true))?;
    let service = if target.discovery.is_named(&data.subsystem) {
        Service::Discovery
    } else {
        let place = target.find_subsystem(&data.subsystem);
        Service::Subsystem(place.ok_or_else(|| invalid(OFFSET_SUBSYSTEM_NQN, true))?)
    };
    if let Service::Subsystem(place) = service
        && !target.subsystems[place].hosts().contains(&data.host)
    {
        // Base §6.3: where the name lies that is not on the list.
        return Err(Refusal {
            status: Status::CONNECT_INVALID_HOST.do_not_retry(),
            result: InvalidParameter { offset: OFFSET_HOST_NQN, in_data: true }.encode(),
        });
    }
    let demand = secrets::demand(target, service, &data.host, stream)?;
    check_room(target, &data)?;
    let (controller, epoch) = if queue_id == 0 {
        (connect_admin(target, &data, service, keep_alive_ms, now)?, 0)
    } else {
        connect_io(target, &data, service, queue_id)?
    };
    let queue = Queue {
        controller,
        service,
        host: data.host_id,
        epoch,
        id: queue_id,
        entries: queue_size + 1,
        flow_control: !flow_control_disabled,
        demand,
    };
    target.usage.queues += 1;
    let result = ConnectResult {
        controller_id: controller.id,
        authentication_required: demand == Demand::Proof,
        secure_channel_required: demand == Demand::SecureChannel,
    };
    Ok((queue, Answer::Done(result.encode().into())))
}

/// Whether there may be another queue, and another of this host. It may be again later, so the host
/// may retry.
fn check_room(target: &Target, data: &ConnectData) -> Result<(), Refusal> {
    let settings = &target.settings;
    let of_host = target.controllers.iter().flatten().filter(|other| other.host == data.host);
    let queues: usize = of_host
        .map(|controller| 1 + controller.io_queues.iter().filter(|taken| **taken).count())
        .sum();
    if target.usage.queues >= settings.queues_max || queues >= settings.queues_per_host_max {
        return Err(Status::CONNECT_CONTROLLER_BUSY.into());
    }
    Ok(())
}

fn connect_admin(
    target: &mut Target,
    data: &ConnectData,
    service: Service,
    keep_alive_ms: u32,
    now: Timestamp,
) -> Result<ControllerKey, Refusal> {
    if data.controller_id != CONTROLLER_ID_DYNAMIC {
        return Err(invalid(OFFSET_CONTROLLER_ID, true));
    }
    let io_queues_max = match service {
        Service::Discovery => 0,
        Service::Subsystem(_) => target.settings.io_queues_max,
    };
    let (host, host_id) = (data.host.clone(), data.host_id);
    let key = target
        .add_controller(|key| {
            let mut controller = Controller::new(key, service, host, host_id, io_queues_max, now);
            // A discovery controller without a time would stay for ever when its host is gone
            // without a word; Linux has the same two minutes.
            controller.set_keep_alive(match (service, keep_alive_ms) {
                (Service::Discovery, 0) => DISCOVERY_KEEP_ALIVE_MS,
                _ => keep_alive_ms,
            });
            controller
        })
        .ok_or(Status::CONNECT_CONTROLLER_BUSY)?;
    Ok(key)
}

fn connect_io(
    target: &mut Target,
    data: &ConnectData,
    service: Service,
    queue_id: u16,
) -> Result<(ControllerKey, u32), Refusal> {
    let unknown = || invalid(OFFSET_CONTROLLER_ID, true);
    let place = target.controller_place(data.controller_id).ok_or_else(unknown)?;
    let controller = target.controllers.get_mut(place).and_then(Option::as_mut);
    let controller = controller.ok_or_else(unknown)?;
    if controller.service != service {
        return Err(invalid(OFFSET_SUBSYSTEM_NQN, true));
    }
    if controller.host != data.host {
        return Err(invalid(OFFSET_HOST_NQN, true));
    }
    if controller.host_id != data.host_id {
        return Err(invalid(0, true));
    }
    if queue_id > controller.io_queues_granted {
        return Err(invalid(OFFSET_QUEUE_ID, false));
    }
    if !controller.is_ready() {
        return Err(Status::COMMAND_SEQUENCE_ERROR.do_not_retry().into());
    }
    let (key, epoch) = (controller.key, controller.epoch);
    let taken = controller
        .io_queues
        .get_mut(usize::from(queue_id) - 1)
        .ok_or_else(|| invalid(OFFSET_QUEUE_ID, false))?;
    if std::mem::replace(taken, true) {
        return Err(Status::COMMAND_SEQUENCE_ERROR.do_not_retry().into());
    }
    Ok((key, epoch))
}
