//! A controller that does what a test says: just enough of one to come up, and then any answer to
//! any command.

use block_io::{Buffer, BufferPool};

use crate::host::QueueIndex;
use crate::host::connection::Connection;
use crate::pdu::{DataHeader, Digests, Encoder, Endpoint, InitializeResponse};
use crate::spec::command::{
    AdminCommand, FabricsCommand, OPCODE_FABRICS, SubmissionEntry, command_id, data, opcode,
};
use crate::spec::completion::Completion;
use crate::spec::feature::{Event, NUMBER_OF_QUEUES, NumberOfQueues};
use crate::spec::identify::{self, IdentifyController, IdentifyNamespace, SglSupport, optional};
use crate::spec::log_page::{self, AccessGroup, AccessLog, AccessState};
use crate::spec::property::{OFFSET_CAPABILITIES, OFFSET_STATUS};
use crate::spec::status::Status;

/// One queue's stream, from the controller's end.
struct Stream {
    encoder: Encoder,
    received: Vec<u8>,
}

/// See the module.
pub(super) struct Script {
    pool: BufferPool,
    streams: Vec<Option<Stream>>,
    pub(super) identify: IdentifyController,
    pub(super) access: AccessState,
    pub(super) io_queues: u32,
    /// What I/O commands are answered with; absent: nothing.
    pub(super) io_status: Option<Status>,
    /// What Aborts do.
    pub(super) aborts_work: bool,
    /// I/O commands that were not answered: queue and entry.
    pub(super) pending: Vec<(QueueIndex, SubmissionEntry)>,
    event_request: Option<u16>,
    pub(super) keep_alives: u32,
    pub(super) aborts: Vec<(u16, u16)>,
    pub(super) access_logs_read: u32,
    pub(super) io_commands: Vec<u32>,
    pub(super) is_silent: bool,
}

/// MQES 127, CSS NVM, TO 5 s.
const CAPABILITIES: u64 = 127 | 1 << 37 | 10 << 24;

impl Script {
    pub(super) fn new(pool: &BufferPool, controller_id: u16) -> Self {
        let identify = IdentifyController {
            serial_number: "1".into(),
            controller_id,
            multi_path: optional::ASYMMETRIC_ACCESS,
            events: optional::EVENT_ASYMMETRIC_ACCESS | optional::EVENT_NAMESPACE_ATTRIBUTE,
            abort_limit: 3,
            access_transition_time: 10,
            access_groups: 4,
            access_group_max: 4,
            keep_alive_granularity: 1,
            sgl_support: SglSupport(SglSupport::SUPPORTED),
            command_capsule_size: (64 + 8192) / 16,
            ..IdentifyController::default()
        };
        Self {
            pool: pool.clone(),
            streams: Vec::new(),
            identify,
            access: AccessState::Optimized,
            io_queues: 1,
            io_status: Some(Status::SUCCESS),
            aborts_work: true,
            pending: Vec::new(),
            event_request: None,
            keep_alives: 0,
            aborts: Vec::new(),
            access_logs_read: 0,
            io_commands: Vec::new(),
            is_silent: false,
        }
    }

    /// A new stream of the host's.
    pub(super) fn open(&mut self, queue: QueueIndex) {
        let index = usize::from(queue);
        self.streams.resize_with(self.streams.len().max(index + 1), || None);
        let encoder = Encoder::new(&self.pool);
        self.streams[index] = Some(Stream { encoder, received: Vec::new() });
    }

    /// Carries bytes both ways and answers; whether anything moved.
    pub(super) fn exchange(&mut self, queue: QueueIndex, host: &mut Connection) -> bool {
        let mut pieces: Vec<Buffer> = Vec::new();
        host.transmit_from(&mut pieces, 64);
        let bytes: Vec<u8> = pieces.iter().flat_map(Buffer::to_vec).collect();
        if !bytes.is_empty() {
            host.transmitted(bytes.len());
        }
        let mut progress = !bytes.is_empty();
        let Some(Some(stream)) = self.streams.get_mut(usize::from(queue)) else {
            return progress;
        };
        stream.received.extend(bytes);
        while let Some(pdu) = self.next_pdu(queue) {
            self.answer(queue, &pdu);
        }
        let Some(Some(stream)) = self.streams.get_mut(usize::from(queue)) else {
            return progress;
        };
        let mut pieces: Vec<Buffer> = Vec::new();
        stream.encoder.transmit_from(&mut pieces, 64);
        let bytes: Vec<u8> = pieces.iter().flat_map(Buffer::to_vec).collect();
        if !bytes.is_empty() && !self.is_silent {
            stream.encoder.transmitted(bytes.len());
            give(host, &bytes);
            progress = true;
        }
        progress
    }

    fn next_pdu(&mut self, queue: QueueIndex) -> Option<Vec<u8>> {
        let received = &mut self.streams[usize::from(queue)].as_mut()?.received;
        let length = received.get(4..8)?;
        let length = u32::from_le_bytes(length.try_into().expect("four")) as usize;
        (received.len() >= length).then(|| received.drain(..length).collect())
    }

    fn answer(&mut self, queue: QueueIndex, pdu: &[u8]) {
        if pdu[0] == 0 {
            let response = InitializeResponse {
                controller_data_alignment: 0,
                digests: Digests::default(),
                host_data_max: 1 << 20,
            };
            self.encoder(queue).push_initialize_response(&response);
            return;
        }
        let entry: SubmissionEntry = pdu[8..72].try_into().expect("an entry");
        if opcode(&entry) == OPCODE_FABRICS {
            let result = match FabricsCommand::parse(&entry) {
                FabricsCommand::Connect { .. } => u64::from(self.identify.controller_id),
                FabricsCommand::PropertyGet { offset: OFFSET_CAPABILITIES, .. } => CAPABILITIES,
                FabricsCommand::PropertyGet { offset: OFFSET_STATUS, .. } => 1,
                _ => 0,
            };
            self.complete(queue, command_id(&entry), result, Status::SUCCESS);
        } else if queue == 0 {
            self.answer_admin(&entry);
        } else {
            self.io_commands.push(u32::from(queue));
            match self.io_status {
                Some(status) => self.answer_io(queue, &entry, status),
                None => self.pending.push((queue, entry)),
            }
        }
    }

    /// Answers an I/O command; a read that succeeds brings zeroes.
    pub(super) fn answer_io(&mut self, queue: QueueIndex, entry: &SubmissionEntry, status: Status) {
        const READ: u8 = 0x02;
        if status.is_success() && opcode(entry) == READ {
            self.send(queue, entry, &vec![0; data(entry).length as usize]);
        }
        self.complete(queue, command_id(entry), 0, status);
    }

    fn answer_admin(&mut self, entry: &SubmissionEntry) {
        let id = command_id(entry);
        let mut result = 0;
        match AdminCommand::parse(entry) {
            AdminCommand::Identify { structure, .. } => {
                let page = self.page(structure);
                self.send(0, entry, &page);
            }
            AdminCommand::GetLogPage { page: log_page::ASYMMETRIC_ACCESS, length, .. } => {
                self.access_logs_read += 1;
                let state = self.access;
                let group = AccessGroup { id: 2, changes: 1, state, namespaces: Vec::new() };
                let mut log = AccessLog { changes: 1, groups: vec![group] }.encode();
                log.resize(length as usize, 0);
                self.send(0, entry, &log);
            }
            AdminCommand::SetFeatures { feature: NUMBER_OF_QUEUES, .. } => {
                let count = self.io_queues;
                result = NumberOfQueues { submission: count, completion: count }.encode().into();
            }
            AdminCommand::AsynchronousEventRequest => {
                self.event_request = Some(id);
                return;
            }
            AdminCommand::KeepAlive => self.keep_alives += 1,
            AdminCommand::Abort { queue_id, command_id: name } => {
                self.aborts.push((queue_id, name));
                let is_it = |(queue, entry): &(QueueIndex, SubmissionEntry)| {
                    (*queue, command_id(entry)) == (queue_id, name)
                };
                match self.pending.iter().position(is_it).filter(|_| self.aborts_work) {
                    Some(place) => {
                        let (queue, entry) = self.pending.remove(place);
                        self.answer_io(queue, &entry, Status::ABORT_REQUESTED);
                    }
                    None => result = 1,
                }
            }
            _ => {}
        }
        self.complete(0, id, result, Status::SUCCESS);
    }

    fn page(&self, structure: u8) -> Vec<u8> {
        let mut page = [0; identify::LENGTH];
        match structure {
            identify::CONTROLLER => self.identify.encode(&mut page),
            identify::ACTIVE_NAMESPACES => page[0] = 1,
            identify::NAMESPACE => {
                let mut namespace = IdentifyNamespace { size: 2048, ..Default::default() };
                (namespace.access_group, namespace.nguid) = (2, [5; 16]);
                namespace.format.data_size_log2 = 9;
                namespace.encode(&mut page);
            }
            _ => {}
        }
        page.to_vec()
    }

    /// The access state is another one from now on, which the host is told if it listens.
    pub(super) fn change_access(&mut self, access: AccessState) {
        self.access = access;
        if let Some(id) = self.event_request.take() {
            let event = Event::ACCESS_CHANGED.encode();
            self.complete(0, id, event.into(), Status::SUCCESS);
        }
    }

    fn send(&mut self, queue: QueueIndex, entry: &SubmissionEntry, bytes: &[u8]) {
        let buffer = self.pool.allocate(bytes.len());
        buffer.copy_from_slice(bytes);
        let command = command_id(entry);
        let length = bytes.len() as u32;
        let fields =
            DataHeader { command, transfer_tag: 0, offset: 0, length, last: true, success: false };
        self.encoder(queue).push_controller_data(&fields, &buffer);
    }

    fn complete(&mut self, queue: QueueIndex, command_id: u16, result: u64, status: Status) {
        let completion = Completion { result, queue_head: 0, command_id, status };
        self.encoder(queue).push_response(&completion.encode());
    }

    fn encoder(&mut self, queue: QueueIndex) -> &mut Encoder {
        &mut self.streams[usize::from(queue)].as_mut().expect("it is open").encoder
    }
}

fn give(host: &mut Connection, bytes: &[u8]) {
    let mut rest = bytes;
    while !rest.is_empty() {
        let mut pieces: Vec<Buffer> = Vec::new();
        host.receive_into(&mut pieces);
        let before = rest.len();
        for piece in pieces {
            let length = piece.len().min(rest.len());
            piece.slice(0, length).copy_from_slice(&rest[..length]);
            rest = &rest[length..];
        }
        if rest.len() == before {
            return;
        }
        host.received(before - rest.len());
    }
}
