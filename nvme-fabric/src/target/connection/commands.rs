//! A command's way: decoded, executed or handed to a device, completed.

use block_io::{Buffer, Completion, Extent, Request, RequestId, Timestamp};

use super::{Command, Connection, Incoming, Phase, Stage};
use crate::error::ConnectionError;
use crate::pdu::{CommandCapsule, Decoded, Pdu, PduError};
use crate::spec::command::nvm::{RANGE_LENGTH, RANGES_MAX};
use crate::spec::command::{self, OPCODE_FABRICS};
use crate::spec::completion;
use crate::spec::status::Status;
use crate::target::admin::{self, Answer};
use crate::target::controller::Service;
use crate::target::io::{self, Pieces, Plan, Task};
use crate::target::limits::RESPONSES_BYTES_MAX;
use crate::target::{NamespaceKey, Target};

use super::transfer::memory_length;

/// Requests of one command at the device at a time, where it makes several.
const PIECES_IN_FLIGHT_MAX: usize = 16;

/// Request ids from here on are the controller shutdown's flushes, below are commands' places.
pub(super) const SHUTDOWN_ID: u64 = 1 << 32;

impl Connection {
    /// Executes what has been received.
    pub(super) fn decode(&mut self, target: &mut Target, now: Timestamp) -> bool {
        let mut progress = false;
        while self.is_open() {
            if self.encoder.queued_bytes() > self.bytes_in_flight_max + RESPONSES_BYTES_MAX {
                break;
            }
            let step = match self.decoder.next_event() {
                Ok(None) => break,
                Ok(Some(event)) => self.execute(event, target, now),
                Err(error) => Err(error),
            };
            progress = true;
            if let Err(error) = step {
                self.terminate(target, error, now);
            }
        }
        progress
    }

    fn execute(
        &mut self,
        event: Decoded,
        target: &mut Target,
        now: Timestamp,
    ) -> Result<(), PduError> {
        if let Some(queue) = &self.queue {
            target.heard(queue.controller, now);
        }
        match event {
            Decoded::Pdu(Pdu::InitializeRequest(request)) => self.initialize(&request),
            Decoded::Pdu(Pdu::Command(capsule)) => return self.receive(&capsule, target, now),
            Decoded::Pdu(Pdu::HostData(data)) => return self.receive_host_data(&data),
            Decoded::Pdu(Pdu::Termination(termination)) => {
                self.finish(target, ConnectionError::Terminated(termination));
            }
            // The decoder passes only what hosts send.
            Decoded::Pdu(
                Pdu::InitializeResponse(_)
                | Pdu::Response(_)
                | Pdu::ControllerData(_)
                | Pdu::ReadyToTransfer(_),
            ) => {}
            Decoded::PayloadDone { digest_matches } => {
                let incoming = self.incoming;
                if let Some(place) = self.payload_done(digest_matches) {
                    match incoming {
                        Some(Incoming::Capsule(_)) => self.start(target, place, now),
                        _ => self.transferred(target, place),
                    }
                }
            }
        }
        Ok(())
    }

    /// A command capsule: gives the command a place and starts it, its data first.
    fn receive(
        &mut self,
        capsule: &CommandCapsule,
        target: &mut Target,
        now: Timestamp,
    ) -> Result<(), PduError> {
        let Some(place) = self.free.pop() else {
            return Err(PduError::LimitExceeded {
                what: "commands outstanding on the queue",
                value: self.commands.len() as u32 + 1,
                limit: self.commands.len() as u32,
            });
        };
        self.commands[usize::from(place)] = Some(Command {
            entry: capsule.command,
            stage: Stage::Arriving,
            buffer: None,
            transferred: 0,
            digest_failed: false,
        });
        if capsule.data_length > 0 {
            self.receive_capsule_data(place, capsule.data_length);
        } else {
            self.start(target, place, now);
        }
        Ok(())
    }

    /// A command has arrived with its capsule's data.
    fn start(&mut self, target: &mut Target, place: u16, now: Timestamp) {
        let Some(queue) = self.queue else {
            return self.connect(target, place, now);
        };
        let command = self.command_mut(place);
        if command.digest_failed {
            return self.fail(place, Status::TRANSIENT_TRANSPORT_ERROR);
        }
        let entry = command.entry;
        let capsule_data = command.buffer.as_ref().map_or(0, |buffer| buffer.len() as u32);
        if command::opcode(&entry) == OPCODE_FABRICS {
            // Properties are the admin queue's. Base §6.5, §6.6.
            if queue.id != 0 {
                return self.fail(place, admin::INVALID_FIELD);
            }
            let answer = admin::execute_fabrics(target, queue.controller, &entry, now);
            return self.answer(place, answer);
        }
        if queue.id == 0 {
            let answer = admin::execute(target, queue.controller, self.local, &entry);
            return self.answer(place, answer);
        }
        let Service::Subsystem(subsystem) = queue.service else {
            return self.fail(place, Status::INVALID_OPCODE.do_not_retry());
        };
        match io::plan(&target.subsystems[subsystem], &entry, capsule_data) {
            Ok(plan) => self.start_io(target, subsystem, place, plan, capsule_data > 0),
            Err(status) => self.fail(place, status),
        }
    }

    fn start_io(
        &mut self,
        target: &mut Target,
        subsystem: usize,
        place: u16,
        plan: Plan,
        has_data: bool,
    ) {
        let Some(subsystem) = target.subsystems.get_mut(subsystem) else { return };
        let traffic = &mut subsystem.traffic;
        match &plan.task {
            Task::Read(extent) => {
                traffic.reads += 1;
                traffic.bytes_read += extent.length;
            }
            Task::Write { extent, .. } => {
                traffic.writes += 1;
                traffic.bytes_written += extent.length;
            }
            Task::Flush | Task::Pieces(_) | Task::Ranges { .. } => {}
        }
        let needed = memory_length(&plan.task);
        if has_data || needed == 0 {
            self.run(target, place, plan);
        } else if self.waiting.is_empty() && self.has_memory(target, needed) {
            self.start_transfer(place, plan);
        } else {
            self.command_mut(place).stage = Stage::Waiting(plan);
            self.waiting.push_back(place);
        }
    }

    /// All of a command's H2CData have arrived.
    fn transferred(&mut self, target: &mut Target, place: u16) {
        self.transferring = self.transferring.saturating_sub(1);
        let command = self.command_mut(place);
        if command.digest_failed {
            return self.fail(place, Status::TRANSIENT_TRANSPORT_ERROR);
        }
        if let Stage::Transferring(plan, _) = std::mem::replace(&mut command.stage, Stage::Device) {
            self.run(target, place, plan);
        }
    }

    /// Asks the device for a command that has the host's data.
    fn run(&mut self, target: &mut Target, place: u16, plan: Plan) {
        let Some(namespace) = self.namespace_key(&plan) else { return };
        if let Err(status) = io::check_again(&target.subsystems[namespace.subsystem], &plan) {
            return self.fail(place, status);
        }
        let id = RequestId(place.into());
        self.command_mut(place).stage = Stage::Device;
        let request = match plan.task {
            // A read has memory of its own and comes by `submit_read`.
            Task::Read(_) => return,
            Task::Flush => Request::flush(id),
            Task::Write { extent, force_unit_access } => {
                let Some(buffer) = self.command_mut(place).buffer.clone() else { return };
                Request::write(id, extent.offset, buffer).with_force_unit_access(force_unit_access)
            }
            Task::Pieces(pieces) => return self.start_pieces(place, namespace, pieces),
            Task::Ranges { count, deallocate, .. } => {
                return self.start_ranges(target, place, namespace, count, deallocate);
            }
        };
        self.outbox.push_back(super::Submission { namespace, request });
    }

    pub(super) fn submit_read(&mut self, place: u16, plan: &Plan, extent: Extent) {
        let Some(namespace) = self.namespace_key(plan) else { return };
        let command = self.command_mut(place);
        command.stage = Stage::Device;
        let Some(buffer) = command.buffer.clone() else { return };
        let request = Request::read(RequestId(place.into()), extent.offset, buffer);
        self.outbox.push_back(super::Submission { namespace, request });
    }

    fn start_ranges(
        &mut self,
        target: &Target,
        place: u16,
        key: NamespaceKey,
        count: usize,
        deallocate: bool,
    ) {
        if !deallocate {
            return self.succeed(place, 0);
        }
        let mut bytes = [0; RANGES_MAX * RANGE_LENGTH];
        let bytes = &mut bytes[..count * RANGE_LENGTH];
        if let Some(buffer) = &self.command_mut(place).buffer {
            // The plan has checked that the data are at least this long.
            buffer.slice(0, bytes.len()).copy_to_slice(bytes);
        }
        let namespace = &target.subsystems[key.subsystem].namespaces[key.namespace];
        match io::discards(namespace, bytes) {
            Ok(pieces) => self.start_pieces(place, key, pieces),
            Err(status) => self.fail(place, status),
        }
    }

    fn start_pieces(&mut self, place: u16, namespace: NamespaceKey, pieces: Pieces) {
        self.command_mut(place).stage =
            Stage::Pieces { namespace, pieces, in_flight: 0, failed: None };
        self.continue_pieces(place);
    }

    /// Asks for more pieces; completes the command when there are none and none is out.
    fn continue_pieces(&mut self, place: u16) {
        let Some(Some(command)) = self.commands.get_mut(usize::from(place)) else { return };
        let Stage::Pieces { namespace, pieces, in_flight, failed } = &mut command.stage else {
            return;
        };
        while failed.is_none() && *in_flight < PIECES_IN_FLIGHT_MAX {
            let Some(extent) = pieces.next() else { break };
            let request = Request {
                operation: pieces.operation,
                ..Request::discard(RequestId(place.into()), extent)
            }
            .with_force_unit_access(pieces.force_unit_access);
            self.outbox.push_back(super::Submission { namespace: *namespace, request });
            *in_flight += 1;
        }
        if *in_flight > 0 {
            return;
        }
        match *failed {
            None => self.succeed(place, 0),
            Some(error) => {
                let status = io::status(error, &command.entry);
                self.fail(place, status);
            }
        }
    }

    /// A device has answered.
    pub(super) fn complete_request(&mut self, completion: Completion) {
        let Completion { id: RequestId(id), result, buffer } = completion;
        if id >= SHUTDOWN_ID {
            if let Some(flushes) = &mut self.shutdown_flushes {
                *flushes = flushes.saturating_sub(1);
            }
            return;
        }
        let Some(Some(command)) = self.commands.get_mut(id as usize) else {
            debug_assert!(false, "a completion of no request: {id}");
            return;
        };
        let place = id as u16;
        if let Stage::Pieces { in_flight, failed, .. } = &mut command.stage {
            *in_flight -= 1;
            *failed = failed.or(result.err());
            return self.continue_pieces(place);
        }
        let is_read = command::opcode(&command.entry) == command::nvm::OPCODE_READ;
        match (result, buffer) {
            (Err(error), _) => {
                let status = io::status(error, &command.entry);
                self.fail(place, status);
            }
            (Ok(()), Some(buffer)) if is_read => self.deliver(place, &buffer),
            // A device that loses a read's buffer has failed it.
            (Ok(()), None) if is_read => self.fail(place, Status::UNRECOVERED_READ_ERROR),
            (Ok(()), _) => self.succeed(place, 0),
        }
    }

    /// Completes or parks an admin or Fabrics command.
    fn answer(&mut self, place: u16, answer: Result<Answer, Status>) {
        match answer {
            Err(status) => self.fail(place, status),
            Ok(Answer::Done(result)) => self.succeed(place, result),
            Ok(Answer::Data(bytes)) => {
                let buffer = self.pool.allocate(bytes.len());
                buffer.copy_from_slice(&bytes);
                self.deliver(place, &buffer);
            }
            Ok(Answer::Park) => {
                if self.parked.len() > usize::from(admin::EVENT_REQUEST_LIMIT) {
                    let status = Status::EVENT_REQUEST_LIMIT_EXCEEDED.do_not_retry();
                    return self.fail(place, status);
                }
                self.command_mut(place).stage = Stage::Parked;
                self.parked.push_back(place);
            }
        }
    }

    /// Answers parked Asynchronous Event Requests for which there are events; all of them, with
    /// Command Abort Requested, when the controller was reset.
    pub(super) fn tell_events(&mut self, target: &mut Target) -> bool {
        let Some(queue) = &mut self.queue else { return false };
        let Some(controller) = target.controller_mut(queue.controller) else { return false };
        let mut progress = false;
        if self.phase == Phase::Queue && queue.id == 0 && queue.epoch != controller.epoch {
            queue.epoch = controller.epoch;
            while let Some(place) = self.parked.pop_front() {
                self.fail(place, Status::ABORT_REQUESTED);
                progress = true;
            }
        }
        while !self.parked.is_empty()
            && let Some(event) = controller.next_event()
            && let Some(place) = self.parked.pop_front()
        {
            self.succeed(place, event.encode().into());
            progress = true;
        }
        progress
    }

    /// Completes a command with data.
    fn deliver(&mut self, place: u16, data: &Buffer) {
        let command_id = command::command_id(&self.command_mut(place).entry);
        if self.send_data(command_id, data) {
            self.retire(place);
        } else {
            self.succeed(place, 0);
        }
    }

    pub(super) fn succeed(&mut self, place: u16, result: u64) {
        self.respond(place, result, Status::SUCCESS);
    }

    pub(super) fn fail(&mut self, place: u16, status: Status) {
        self.respond(place, 0, status);
    }

    fn respond(&mut self, place: u16, result: u64, status: Status) {
        let command_id = command::command_id(&self.command_mut(place).entry);
        self.retire(place);
        let flow_control = self.queue.is_some_and(|queue| queue.flow_control);
        let queue_head = if flow_control { self.queue_head } else { 0 };
        let completion = completion::Completion { result, queue_head, command_id, status };
        self.encoder.push_response(&completion.encode());
    }

    /// Gives up a completed command's place and consumes its entry.
    fn retire(&mut self, place: u16) {
        self.release(place);
        if let Some(queue) = &self.queue {
            self.queue_head = (self.queue_head + 1) % queue.entries;
        }
    }

    /// Takes the command at `place` out.
    pub(super) fn release(&mut self, place: u16) -> Command {
        let command = self.commands[usize::from(place)].take().expect("its place is taken");
        self.held -= command.buffer.as_ref().map_or(0, Buffer::len);
        self.free.push(place);
        command
    }

    pub(super) fn command_mut(&mut self, place: u16) -> &mut Command {
        self.commands[usize::from(place)].as_mut().expect("its place is taken")
    }

    fn namespace_key(&self, plan: &Plan) -> Option<NamespaceKey> {
        match self.queue?.service {
            Service::Subsystem(subsystem) => {
                Some(NamespaceKey { subsystem, namespace: plan.namespace })
            }
            Service::Discovery => None,
        }
    }
}
