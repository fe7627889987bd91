//! One connection of a scripted host: it counts what it has asked for and what was answered.

use std::collections::BTreeMap;

use block_io::{Buffer, BufferPool};
use nvme_fabric::pdu::{
    DataHeader, Decoded, Decoder, Digests, Encoder, InitializeRequest, Limits, Pdu,
    ReadyToTransfer, Side,
};
use nvme_fabric::spec::command::admin::OPCODE_ASYNCHRONOUS_EVENT_REQUEST;
use nvme_fabric::spec::command::{self, SubmissionEntry};
use nvme_fabric::spec::completion::Completion;
use nvme_fabric::target::{Connection, Submission};

use super::super::{DATA_MAX, deliver, fill};

/// What a host has heard that a script may want to look at.
#[derive(Clone, Debug)]
pub(super) enum Answer {
    Completion(Completion),
    Data(Vec<u8>),
}

pub(super) struct ScriptedHost {
    pub(super) connection: Connection,
    pool: BufferPool,
    encoder: Encoder,
    decoder: Decoder,
    agreed: Digests,
    /// Encoded, and not yet taken by the target.
    pub(super) unsent: Vec<u8>,
    /// Commands without an answer: how many by identifier, and their opcode.
    pub(super) outstanding: BTreeMap<u16, (usize, u8)>,
    /// R2Ts whose data have not all been sent; the offset is where they go on.
    pub(super) transfers: Vec<ReadyToTransfer>,
    /// The C2HData that is arriving.
    arriving: Option<(DataHeader, Buffer)>,
    /// What its commands ask of the devices.
    pub(super) at_device: Vec<Submission>,
    /// The last answer to each of the commands that somebody waits for.
    pub(super) answers: BTreeMap<u16, Vec<Answer>>,
    pub(super) is_watching: bool,
    /// The script broke a rule of the transport: the target may end the connection.
    pub(super) is_tainted: bool,
    /// The stream was changed under the host, which does not know any more what it has asked for.
    pub(super) is_lost: bool,
    /// Messages of authentication were made up, so a sound transaction may be refused.
    pub(super) has_made_up: bool,
    /// The target has ended the connection.
    pub(super) is_dead: bool,
    /// Does not take what the target sends.
    pub(super) is_deaf: bool,
    /// Requests may come of it: it has proved itself, or need not.
    pub(super) may_ask: bool,
    pub(super) queue_entries: usize,
    /// A last command was sent, which ends a pair that is half there.
    pub(super) has_ended: bool,
    next_id: u16,
}

impl ScriptedHost {
    /// A host that has said ICReq.
    pub(super) fn new(connection: Connection, pool: &BufferPool, agreed: Digests) -> Self {
        let limits = Limits { capsule_data_max: 0, data_max: DATA_MAX };
        let mut encoder = Encoder::new(pool);
        encoder.push_initialize_request(&InitializeRequest {
            host_data_alignment: 0,
            digests: agreed,
            ready_to_transfer_max: 0,
        });
        let mut host = Self {
            connection,
            pool: pool.clone(),
            encoder,
            decoder: Decoder::new(Side::Host, pool.allocate(16 << 10), limits),
            agreed,
            unsent: Vec::new(),
            outstanding: BTreeMap::new(),
            transfers: Vec::new(),
            arriving: None,
            at_device: Vec::new(),
            answers: BTreeMap::new(),
            is_watching: false,
            is_tainted: false,
            is_lost: false,
            has_made_up: false,
            is_dead: false,
            is_deaf: false,
            may_ask: true,
            queue_entries: 2,
            has_ended: false,
            next_id: 0,
        };
        host.encode();
        host.encoder.set_parameters(agreed, 0);
        host
    }

    pub(super) fn id(&mut self) -> u16 {
        self.next_id = self.next_id.wrapping_add(1);
        self.next_id
    }

    /// An identifier that is in use, if there is one.
    pub(super) fn used_id(&self, choice: usize) -> Option<u16> {
        let count = self.outstanding.len().max(1);
        self.outstanding.keys().nth(choice % count).copied()
    }

    /// Whether the queue has room for another command.
    pub(super) fn has_room(&self) -> bool {
        let count: usize = self.outstanding.values().map(|(count, _)| count).sum();
        count + 1 < self.queue_entries
    }

    pub(super) fn ask(&mut self, entry: &SubmissionEntry, data: Option<&[u8]>) {
        let asked = self.outstanding.entry(command::command_id(entry)).or_default();
        // Of two commands by one name, the one that may stay without an answer counts.
        let opcode = match asked.1 {
            OPCODE_ASYNCHRONOUS_EVENT_REQUEST => asked.1,
            _ => command::opcode(entry),
        };
        *asked = (asked.0 + 1, opcode);
        self.has_made_up |= !self.is_watching && command::opcode(entry) == command::OPCODE_FABRICS;
        let buffer = data.map(|bytes| self.buffer(bytes));
        self.encoder.push_command(entry, buffer.as_ref());
        self.encode();
    }

    /// Sends up to `length` bytes of what the R2T at `place` asks for.
    pub(super) fn serve(&mut self, place: usize, length: u32, fill: u8) {
        let Some(asked) = self.transfers.get_mut(place) else { return };
        let part = length.min(asked.length).max(4) & !3;
        let header = DataHeader {
            command: asked.command,
            transfer_tag: asked.transfer_tag,
            offset: asked.offset,
            length: part,
            last: part == asked.length,
            success: false,
        };
        asked.offset += part;
        asked.length -= part;
        if header.last {
            self.transfers.remove(place);
        }
        self.say_data(&header, fill);
    }

    /// Says H2CData, asked for or not.
    pub(super) fn say_data(&mut self, header: &DataHeader, fill: u8) {
        let data = self.buffer(&vec![fill; header.length as usize]);
        self.encoder.push_host_data(header, &data);
        self.encode();
    }

    fn buffer(&self, bytes: &[u8]) -> Buffer {
        let buffer = self.pool.allocate(bytes.len().max(1)).slice(0, bytes.len());
        buffer.copy_from_slice(bytes);
        buffer
    }

    fn encode(&mut self) {
        let mut pieces = Vec::new();
        self.encoder.transmit_from(&mut pieces, usize::MAX);
        let bytes: Vec<u8> = pieces.iter().flat_map(Buffer::to_vec).collect();
        if !bytes.is_empty() {
            self.encoder.transmitted(bytes.len());
        }
        self.unsent.extend(bytes);
    }

    /// Gives the target up to `length` bytes; whether it took any.
    pub(super) fn send(&mut self, length: usize) -> bool {
        if self.connection.is_finished() {
            self.unsent.clear();
        }
        let length = length.min(self.unsent.len());
        if length == 0 {
            return false;
        }
        let taken = deliver(&mut self.connection, &self.unsent[..length]);
        self.unsent.drain(..taken);
        taken > 0
    }

    /// Takes what the target has sent.
    pub(super) fn listen(&mut self, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let mut places = Vec::new();
            self.decoder.receive_into(&mut places);
            let taken = fill(&places, rest);
            assert!(taken > 0, "a host's decoder takes bytes");
            self.decoder.received(taken);
            rest = &rest[taken..];
            while let Some(event) = self.decoder.next_event().expect("a sound stream of PDUs") {
                self.hear(event);
            }
        }
    }

    fn hear(&mut self, event: Decoded) {
        match event {
            Decoded::Pdu(Pdu::InitializeResponse(_)) => self.decoder.set_digests(self.agreed),
            Decoded::Pdu(Pdu::Response(bytes)) => {
                let completion = Completion::parse(&bytes);
                self.answered(completion.command_id);
                self.note(completion.command_id, Answer::Completion(completion));
            }
            Decoded::Pdu(Pdu::ControllerData(header)) => {
                assert!(self.is_asked(header.command), "data of no command: {header:?}");
                let place = self.pool.allocate(header.length as usize);
                self.decoder.place_payload(place.clone());
                self.arriving = Some((header, place));
            }
            Decoded::Pdu(Pdu::ReadyToTransfer(asked)) => {
                assert!(self.is_asked(asked.command), "an R2T of no command: {asked:?}");
                self.transfers.push(asked);
            }
            Decoded::Pdu(Pdu::Termination(termination)) => {
                assert!(self.is_tainted, "ended for nothing: {termination:?}");
                self.is_dead = true;
            }
            Decoded::PayloadDone { digest_matches } => {
                assert!(digest_matches, "a data digest of the target's");
                let (header, place) = self.arriving.take().expect("data were announced");
                self.note(header.command, Answer::Data(place.to_vec()));
                if header.success {
                    self.answered(header.command);
                    let completion = Completion::parse(&[0; 16]);
                    let completion = Completion { command_id: header.command, ..completion };
                    self.note(header.command, Answer::Completion(completion));
                }
            }
            Decoded::Pdu(other) => panic!("a controller sent {other:?}"),
        }
    }

    fn note(&mut self, id: u16, answer: Answer) {
        if self.is_watching {
            self.answers.entry(id).or_default().push(answer);
        }
    }

    fn is_asked(&self, id: u16) -> bool {
        self.is_lost || self.outstanding.contains_key(&id)
    }

    fn answered(&mut self, id: u16) {
        match self.outstanding.get_mut(&id) {
            Some((1, _)) => drop(self.outstanding.remove(&id)),
            Some((count, _)) => *count -= 1,
            None => assert!(self.is_lost, "command {id:#x} was answered, and not asked"),
        }
    }
}
