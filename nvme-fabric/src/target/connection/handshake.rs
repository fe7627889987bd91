//! How a connection begins: ICReq and ICResp, then Connect.

use block_io::Timestamp;

use super::{Connection, Phase};
use crate::pdu::{InitializeRequest, InitializeResponse};
use crate::spec::command::{self, FabricsCommand, OPCODE_FABRICS, SubmissionEntry};
use crate::spec::completion::Completion;
use crate::spec::connect::{ConnectData, DATA_LENGTH};
use crate::spec::sgl::Descriptor;
use crate::spec::status::Status;
use crate::target::admin::connect::{Queue, Stream, connect};
use crate::target::admin::{Answer, Refusal, check_common};
use crate::target::{TRANSFER_MAX, Target};

/// SQHD of the response that accepts disabled flow control. Base §6.3.
const QUEUE_HEAD_DISABLED: u16 = 0xffff;

impl Connection {
    /// Answers ICReq: the digests asked for, no alignment of our own. NVMe/TCP Transport §3.6.2.3.
    pub(super) fn initialize(&mut self, request: &InitializeRequest) {
        self.encoder.push_initialize_response(&InitializeResponse {
            controller_data_alignment: 0,
            digests: request.digests,
            host_data_max: TRANSFER_MAX,
        });
        self.decoder.set_digests(request.digests);
        self.encoder.set_parameters(request.digests, request.host_data_alignment);
        self.phase = Phase::Connect;
    }

    /// Executes the first command, which must be Connect, at `place`.
    pub(super) fn connect(&mut self, target: &mut Target, place: u16, now: Timestamp) {
        let (entry, data) = self.take_connect(place);
        let command_id = command::command_id(&entry);
        let outcome = match data {
            Ok(data) => self.check_names(&data).and_then(|()| {
                let stream = match &self.encryption {
                    None => Stream::Plain,
                    Some(by) if by.is_generated => Stream::Generated,
                    Some(_) => Stream::Configured,
                };
                connect(target, &FabricsCommand::parse(&entry), &data, stream, now)
            }),
            Err(status) => Err(Refusal::from(status)),
        };
        let mut completion =
            Completion { result: 0, queue_head: 0, command_id, status: Status::SUCCESS };
        match outcome {
            Ok((queue, Answer::Done(result))) => {
                completion.result = result;
                self.leave_unconnected(target);
                self.become_queue(queue);
                self.demand_authentication(queue.demand, target, now);
                completion.queue_head =
                    if queue.flow_control { self.queue_head } else { QUEUE_HEAD_DISABLED };
            }
            Ok((_, Answer::Data(_) | Answer::Park | Answer::Abort { .. })) => {
                completion.status = Status::INTERNAL_ERROR
            }
            Err(refusal) => {
                completion.status = refusal.status;
                completion.result = refusal.result.into();
            }
        }
        self.encoder.push_response(&completion.encode());
    }

    /// A host that has proved by its key who it is connects as nobody else, and only to what the
    /// key is for; one that has proved nothing, only to what is open to all.
    fn check_names(&self, data: &[u8; DATA_LENGTH]) -> Result<(), Refusal> {
        let Ok(data) = ConnectData::parse(data) else {
            // Without names Connect itself is refused.
            return Ok(());
        };
        let is_allowed = match &self.encryption {
            Some(by) => data.host == by.host && data.subsystem == by.subsystem,
            None => !self.is_for_discovery || data.subsystem.is_discovery(),
        };
        if is_allowed { Ok(()) } else { Err(Status::CONNECT_INVALID_HOST.do_not_retry().into()) }
    }

    /// Takes the command at `place` out: its entry, and the data of a proper Connect.
    fn take_connect(&mut self, place: u16) -> (SubmissionEntry, Result<[u8; DATA_LENGTH], Status>) {
        let command = self.release(place);
        let entry = command.entry;
        let is_connect = command::opcode(&entry) == OPCODE_FABRICS
            && matches!(FabricsCommand::parse(&entry), FabricsCommand::Connect { .. });
        if !is_connect {
            // Base §6.3: nothing else before Connect.
            return (entry, Err(Status::COMMAND_SEQUENCE_ERROR.do_not_retry()));
        }
        if let Err(status) = check_common(&entry) {
            return (entry, Err(status));
        }
        if command.digest_failed {
            return (entry, Err(Status::TRANSIENT_TRANSPORT_ERROR));
        }
        // Fabrics commands' data are in the capsule. NVMe/TCP Transport, "Capsules".
        let sgl = command::data(&entry);
        if sgl.kind != Descriptor::KIND_IN_CAPSULE {
            return (entry, Err(Status::SGL_TYPE_INVALID.do_not_retry()));
        }
        if sgl.address != 0 {
            return (entry, Err(Status::SGL_OFFSET_INVALID.do_not_retry()));
        }
        let buffer = command
            .buffer
            .filter(|buffer| buffer.len() == DATA_LENGTH && sgl.length as usize == DATA_LENGTH);
        let Some(buffer) = buffer else {
            return (entry, Err(Status::DATA_SGL_LENGTH_INVALID.do_not_retry()));
        };
        let mut data = [0; DATA_LENGTH];
        buffer.copy_to_slice(&mut data);
        (entry, Ok(data))
    }

    fn become_queue(&mut self, queue: Queue) {
        self.phase = Phase::Queue;
        self.phase_deadline = None;
        // Connect itself was the first entry consumed.
        self.queue_head = 1 % queue.entries;
        self.commands.resize_with(usize::from(queue.entries), || None);
        // Lowest places last: touched memory is reused first.
        self.free = (0..queue.entries).rev().collect();
        self.queue = Some(queue);
    }
}
