//! A command's way: decoded, executed or handed to a device, completed.

use block_io::{Buffer, Completion, Request, RequestId, Timestamp};

use super::admission::{Entry, Job};
use super::{Command, Connection, Incoming, Phase, Stage};
use crate::error::ConnectionError;
use crate::pdu::{CommandCapsule, Decoded, Pdu, PduError};
use crate::spec::command::nvm::{RANGE_LENGTH, RANGES_MAX};
use crate::spec::command::{self, NvmCommand, OPCODE_FABRICS};
use crate::spec::completion;
use crate::spec::status::Status;
use crate::target::admin::{self, Answer};
use crate::target::controller::Service;
use crate::target::io::{self, Claim, Pieces, Plan, Sequence, Task};
use crate::target::limits::RESPONSES_BYTES_MAX;
use crate::target::reservation::Access;
use crate::target::{NamespaceKey, Target};

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
            piece_length: 0,
            ticket: None,
            at_device: 0,
            partner: None,
            doomed: None,
            is_aborted: false,
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
        let entry = self.command_mut(place).entry;
        let is_fabrics = command::opcode(&entry) == OPCODE_FABRICS;
        if !is_fabrics && !self.is_authenticated() {
            // Base §3.3.3.2.1, Authentication Required; a half of a pair no less than a whole.
            return self.fail(place, Status::AUTHENTICATION_REQUIRED.do_not_retry());
        }
        let fuse = command::fuse(&entry);
        if queue.id != 0
            && (fuse != 0 || self.first_half.is_some())
            && !self.is_single(target, place)
        {
            return;
        }
        let command = self.command_mut(place);
        if command.digest_failed {
            return self.fail(place, Status::TRANSIENT_TRANSPORT_ERROR);
        }
        let capsule_data = command.capsule_length();
        if is_fabrics && self.authenticate(target, place, &entry, now) {
            return;
        }
        if !self.is_authenticated() {
            // Base §3.3.3.2.1, Authentication Required.
            return self.fail(place, Status::AUTHENTICATION_REQUIRED.do_not_retry());
        }
        if is_fabrics {
            // Properties are the admin queue's. Base §6.5, §6.6.
            if queue.id != 0 {
                return self.fail(place, admin::INVALID_FIELD);
            }
            let answer = admin::execute_fabrics(target, queue.controller, &entry, now);
            return self.answer(place, answer);
        }
        if queue.id == 0 {
            let answer = admin::execute(target, queue.controller, self.local, &entry);
            return match answer {
                Ok(Answer::Abort { queue_id, command_id }) => {
                    self.order_abort(target, place, queue_id, command_id);
                }
                answer => self.answer(place, answer),
            };
        }
        let Service::Subsystem(subsystem) = queue.service else {
            return self.fail(place, Status::INVALID_OPCODE.do_not_retry());
        };
        match io::plan(&target.subsystems[subsystem], &entry, capsule_data) {
            Ok(plan) => self.start_io(target, subsystem, place, plan),
            Err(status) => self.fail(place, status),
        }
    }

    pub(super) fn start_io(
        &mut self,
        target: &mut Target,
        subsystem: usize,
        place: u16,
        plan: Plan,
    ) {
        let Some(subsystem) = target.subsystems.get_mut(subsystem) else { return };
        let traffic = &mut subsystem.traffic;
        match &plan.task {
            Task::Read(extent) | Task::Compare { extent, .. } => {
                traffic.reads += 1;
                traffic.bytes_read += extent.length;
            }
            Task::Write { extent, .. } | Task::CompareAndWrite { extent, .. } => {
                traffic.writes += 1;
                traffic.bytes_written += extent.length;
            }
            _ => {}
        }
        let needed = self.memory_needed(place, &plan.task);
        if needed == 0 || self.waiting.is_empty() && self.has_memory(target, needed) {
            self.start_transfer(target, place, plan);
        } else {
            self.command_mut(place).stage = Stage::Waiting(plan);
            self.waiting.push_back(place);
        }
    }

    /// All of a command's H2CData have arrived.
    fn transferred(&mut self, target: &mut Target, place: u16) {
        let command = self.command_mut(place);
        let stage = std::mem::replace(&mut command.stage, Stage::Device);
        self.transferring = self.transferring.saturating_sub(1);
        let command = self.command_mut(place);
        if let Some(status) = command.doomed {
            return self.refuse(place, status);
        }
        if command.digest_failed {
            return self.refuse(place, Status::TRANSIENT_TRANSPORT_ERROR);
        }
        let Stage::Transferring(plan, _) = stage else { return };
        match plan.task {
            Task::FirstHalf { .. } | Task::CompareAndWrite { .. } => {
                self.half_transferred(target, place, plan);
            }
            _ => self.run(target, place, plan),
        }
    }

    /// Does what a command asks, for which it has all data and memory.
    pub(super) fn run(&mut self, target: &mut Target, place: u16, plan: Plan) {
        let Some(namespace) = self.namespace_key(plan.namespace) else { return };
        if let Err(status) = io::check_again(&target.subsystems[namespace.subsystem], &plan) {
            return self.refuse(place, status);
        }
        let id = RequestId(place.into());
        let command = self.command_mut(place);
        let access = Access::of(&NvmCommand::parse(&command.entry));
        let buffer = command.buffer.clone();
        let (claim, job) = match (plan.task, buffer) {
            (Task::Read(extent), Some(buffer)) => {
                let request = Request::read(id, extent.offset, buffer);
                (Some(Claim::One(extent)), Job::Request(request))
            }
            (Task::Write { extent, force_unit_access }, Some(buffer)) => {
                let request = Request::write(id, extent.offset, buffer);
                let request = request.with_force_unit_access(force_unit_access);
                (Some(Claim::One(extent)), Job::Request(request))
            }
            (Task::Flush, _) => (None, Job::Request(Request::flush(id))),
            (Task::Pieces(pieces), _) => (Some(pieces.claim()), Job::Pieces(pieces)),
            (Task::Reservation { command, .. }, _) => {
                return self.reserve(target, place, namespace, command);
            }
            (task, buffer) => match self.compose(target, namespace, task, buffer) {
                Ok(composed) => composed,
                Err(status) => return self.fail(place, status),
            },
        };
        let entry = Entry { namespace, access, claim, is_alone: false };
        self.admit(target, place, entry, job);
    }

    /// The job of a command of several requests.
    fn compose(
        &mut self,
        target: &Target,
        key: NamespaceKey,
        task: Task,
        buffer: Option<Buffer>,
    ) -> Result<(Option<Claim>, Job), Status> {
        let Some(namespace) = target.namespace(key) else {
            return Err(Status::INVALID_NAMESPACE.do_not_retry());
        };
        let piece = |length: u32| self.pool.allocate(length as usize);
        match (task, buffer) {
            (Task::Compare { extent, piece: length }, Some(data)) => {
                let sequence = Sequence::compare(extent, data, piece(length));
                let job = Job::Sequence(Box::new(sequence));
                Ok((Some(Claim::One(extent)), job))
            }
            (Task::Verify { extent, piece: length }, _) => {
                let sequence = Sequence::verify(extent, piece(length));
                let job = Job::Sequence(Box::new(sequence));
                Ok((Some(Claim::One(extent)), job))
            }
            (
                Task::Copy { destination, count, format, force_unit_access, piece: length, .. },
                Some(data),
            ) => {
                // The plan has checked that the data are at least this long.
                let bytes = data.slice(0, count * format.range_length()).to_vec();
                io::copy_sources(namespace, destination, format, &bytes).map(|(sources, to)| {
                    let claim = Claim::Many([&sources[..], &[to]].concat().into());
                    let piece = piece(length);
                    let sequence = Sequence::copy(sources, to.offset, force_unit_access, piece);
                    (Some(claim), Job::Sequence(Box::new(sequence)))
                })
            }
            (Task::Ranges { count, deallocate, .. }, Some(data)) => {
                // What is only advice is not followed, but may be forbidden.
                let count = if deallocate { count } else { 0 };
                let mut bytes = [0; RANGES_MAX * RANGE_LENGTH];
                let bytes = &mut bytes[..count * RANGE_LENGTH];
                // The plan has checked that the data are at least this long.
                data.slice(0, bytes.len()).copy_to_slice(bytes);
                io::discards(namespace, bytes)
                    .map(|pieces| (Some(pieces.claim()), Job::Pieces(pieces)))
            }
            // Every task that brings data has a buffer by now.
            _ => Err(Status::INTERNAL_ERROR),
        }
    }

    pub(super) fn start_pieces(&mut self, place: u16, namespace: NamespaceKey, pieces: Pieces) {
        self.command_mut(place).stage =
            Stage::Pieces { namespace, pieces, in_flight: 0, failed: None };
        self.continue_pieces(place);
    }

    /// Asks for more pieces; completes the command when there are none and none is out.
    fn continue_pieces(&mut self, place: u16) {
        let doomed = self.command_mut(place).doomed;
        loop {
            let Stage::Pieces { namespace, pieces, in_flight, failed } =
                &mut self.command_mut(place).stage
            else {
                return;
            };
            if failed.is_some() || doomed.is_some() || *in_flight >= PIECES_IN_FLIGHT_MAX {
                break;
            }
            let Some(extent) = pieces.next() else { break };
            let request = Request {
                operation: pieces.operation,
                ..Request::discard(RequestId(place.into()), extent)
            }
            .with_force_unit_access(pieces.force_unit_access);
            *in_flight += 1;
            let namespace = *namespace;
            self.ask(place, namespace, request);
        }
        let command = self.command_mut(place);
        let Stage::Pieces { in_flight: 0, failed, .. } = &command.stage else { return };
        match (*failed, doomed) {
            (None, None) => self.succeed(place, 0),
            (Some(error), _) => {
                let status = io::status(error, &command.entry);
                self.fail(place, status);
            }
            (None, Some(status)) => self.fail(place, status),
        }
    }

    /// A device has answered.
    pub(super) fn complete_request(&mut self, completion: Completion) {
        let RequestId(id) = completion.id;
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
        command.at_device = command.at_device.saturating_sub(1);
        if let Stage::Sequence(..) = command.stage {
            return self.complete_step(place, completion);
        }
        let Completion { result, buffer, .. } = completion;
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
            // The caller sees to it.
            Ok(Answer::Abort { .. }) => self.succeed(place, 1),
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
    pub(super) fn deliver(&mut self, place: u16, data: &Buffer) {
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

    pub(super) fn respond(&mut self, place: u16, result: u64, status: Status) {
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
        self.held -= command.buffer.as_ref().map_or(0, Buffer::len) + command.piece_length as usize;
        self.released.extend(command.ticket);
        if let Stage::Transferring(..) = command.stage {
            self.transferring = self.transferring.saturating_sub(1);
        }
        self.free.push(place);
        command
    }

    pub(super) fn command_mut(&mut self, place: u16) -> &mut Command {
        self.commands[usize::from(place)].as_mut().expect("its place is taken")
    }

    /// The key of the namespace at this place of the queue's subsystem.
    pub(super) fn namespace_key(&self, namespace: usize) -> Option<NamespaceKey> {
        match self.queue?.service {
            Service::Subsystem(subsystem) => Some(NamespaceKey { subsystem, namespace }),
            Service::Discovery => None,
        }
    }
}
