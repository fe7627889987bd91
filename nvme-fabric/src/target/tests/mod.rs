//! The target alone: a scripted host speaks to it in PDUs, and memory stands for its devices.

mod access;
mod admin;
#[cfg(feature = "auth")]
mod authentication;
mod changes;
mod commands;
mod handshake;
mod hostile;
mod io;
mod limits;

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use block_io::{Buffer, BufferPool, Extent, Geometry, IoError, Operation, Request, Timestamp};

use super::{Connection, Namespace, NamespaceKey, Settings, Submission, Subsystem, Target};
use crate::pdu::{
    DataHeader, Decoded, Decoder, Digests, Encoder, Endpoint, InitializeRequest, Limits, Pdu,
    ReadyToTransfer, Side, Termination,
};
use crate::spec::command::{AdminCommand, FabricsCommand, NvmCommand, SubmissionEntry};
use crate::spec::completion::Completion;
use crate::spec::connect::{CONTROLLER_ID_DYNAMIC, ConnectData, ConnectResult};
use crate::spec::nqn::{HostId, Nqn};
use crate::spec::property::{Configuration, OFFSET_CONFIGURATION, SIZE_4};
use crate::spec::sgl::Descriptor;
use crate::spec::status::Status;

const SUBSYSTEM: &str = "nqn.2024-01.io.forebay:one";
const HOST: &str = "nqn.2014-08.com.example:host";
const CAPACITY: u64 = 4 << 20;
const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 7));

/// A target with one subsystem of two namespaces: a plain one, and a read-only one with 4 KiB
/// blocks. `memory` is the first one's content.
struct World {
    target: Target,
    pool: BufferPool,
    now: Timestamp,
    memory: Vec<u8>,
    /// What the devices were asked, in order.
    asked: Vec<(NamespaceKey, Operation, Extent, bool)>,
    /// What the next requests fail with.
    failures: VecDeque<IoError>,
    /// Requests held back while `is_slow`.
    held: Vec<Submission>,
    is_slow: bool,
}

fn world() -> World {
    world_of(Settings::default(), Geometry::new(CAPACITY))
}

fn world_of(settings: Settings, geometry: Geometry) -> World {
    let mut subsystem = Subsystem::new(nqn(SUBSYSTEM), "S1").expect("a serial number");
    let plain = Namespace::new(geometry, HostId([1; 16])).expect("good geometry");
    let read_only = Geometry {
        block_size: 4096,
        read_only: true,
        volatile_cache: true,
        ..Geometry::new(CAPACITY)
    };
    let read_only = Namespace::new(read_only, HostId([2; 16])).expect("good geometry");
    subsystem.add_namespace(plain).expect("room");
    subsystem.add_namespace(read_only).expect("room");
    let mut target = Target::new(settings).expect("good settings");
    target.add_subsystem(subsystem).expect("a free name");
    World {
        target,
        pool: BufferPool::heap(),
        now: Timestamp(1_000_000_000),
        memory: vec![0; CAPACITY as usize],
        asked: Vec::new(),
        failures: VecDeque::new(),
        held: Vec::new(),
        is_slow: false,
    }
}

fn nqn(name: &str) -> Nqn {
    Nqn::new(name).expect("well formed")
}

impl World {
    fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
    }

    /// Does what a device would, and completes it.
    fn serve(&mut self, connection: &mut Connection, submission: Submission) {
        let Submission { namespace, request } = submission;
        let Request { operation, extent, force_unit_access, .. } = request;
        self.asked.push((namespace, operation, extent, force_unit_access));
        let geometry = self.target.subsystems()[namespace.subsystem].namespaces()
            [namespace.namespace]
            .geometry();
        assert_eq!(geometry.check(operation, extent), Ok(()), "a request that no device takes");
        let result = self.failures.pop_front().map_or(Ok(()), Err);
        if result.is_ok() && operation != Operation::Flush {
            let range = extent.offset as usize..extent.end() as usize;
            match operation {
                Operation::Read => {
                    let buffer = request.buffer.as_ref().expect("a read has a buffer");
                    buffer.copy_from_slice(&self.memory[range]);
                }
                Operation::Write => {
                    let buffer = request.buffer.as_ref().expect("a write has a buffer");
                    buffer.copy_to_slice(&mut self.memory[range]);
                }
                Operation::Discard | Operation::WriteZeroes => self.memory[range].fill(0),
                Operation::Flush => {}
            }
        }
        connection.complete(request.complete(result));
    }
}

/// What a host has heard.
#[derive(Debug, PartialEq, Eq)]
enum Heard {
    Initialized,
    Completion(Completion),
    Data(DataHeader, Vec<u8>),
    ReadyToTransfer(ReadyToTransfer),
    Termination(Termination),
}

/// The other end of a connection.
struct Host {
    connection: Connection,
    encoder: Encoder,
    decoder: Decoder,
    heard: Vec<Heard>,
    /// C2HData whose payload is arriving.
    pending: Option<(DataHeader, Buffer)>,
    controller_id: u16,
    next_id: u16,
}

impl Host {
    /// A connection without ICReq.
    fn silent(world: &World) -> Self {
        let limits = Limits { capsule_data_max: 0, data_max: 4 << 20 };
        Self {
            connection: Connection::new(world.target.settings(), &world.pool, LOCAL, world.now),
            encoder: Encoder::new(&world.pool),
            decoder: Decoder::new(Side::Host, world.pool.allocate(16 << 10), limits),
            heard: Vec::new(),
            pending: None,
            controller_id: CONTROLLER_ID_DYNAMIC,
            next_id: 0,
        }
    }

    /// A connection after ICReq and ICResp.
    fn initialized(world: &mut World, digests: Digests, alignment: u8) -> Self {
        let mut host = Self::silent(world);
        host.encoder.push_initialize_request(&InitializeRequest {
            host_data_alignment: alignment,
            digests,
            ready_to_transfer_max: 0,
        });
        host.pump(world);
        assert_eq!(host.heard.pop(), Some(Heard::Initialized));
        host.decoder.set_digests(digests);
        host.encoder.set_parameters(digests, 0);
        host
    }

    /// The admin queue of a controller that is enabled.
    fn admin(world: &mut World, subsystem: &str) -> Self {
        let mut host = Self::initialized(world, Digests::default(), 0);
        let completion = host.connect(world, &connect(0, 32), subsystem, CONTROLLER_ID_DYNAMIC);
        assert_eq!(completion.status, Status::SUCCESS);
        host.controller_id = ConnectResult::parse(completion.dword_0()).controller_id;
        host.configure(world, Configuration::ENABLED);
        host
    }

    /// An admin queue and I/O queue 1 of its controller.
    fn pair(world: &mut World, entries: u16, flow_control: bool) -> (Self, Self) {
        let admin = Self::admin(world, SUBSYSTEM);
        let mut io = Self::initialized(world, Digests::default(), 0);
        let mut command = connect(1, entries - 1);
        if let FabricsCommand::Connect { flow_control_disabled, .. } = &mut command {
            *flow_control_disabled = !flow_control;
        }
        let completion = io.connect(world, &command, SUBSYSTEM, admin.controller_id);
        assert_eq!(completion.status, Status::SUCCESS);
        assert_eq!(completion.queue_head == 0xffff, !flow_control);
        (admin, io)
    }

    fn connect(
        &mut self,
        world: &mut World,
        command: &FabricsCommand,
        subsystem: &str,
        controller_id: u16,
    ) -> Completion {
        let data = ConnectData {
            host_id: HostId([9; 16]),
            controller_id,
            subsystem: nqn(subsystem),
            host: nqn(HOST),
        };
        self.connect_with(world, command, &data.encode())
    }

    fn connect_with(
        &mut self,
        world: &mut World,
        command: &FabricsCommand,
        data: &[u8],
    ) -> Completion {
        let entry = command.encode(self.id(), Descriptor::in_capsule(data.len() as u32));
        self.call(world, &entry, Some(data))
    }

    fn configure(&mut self, world: &mut World, configuration: Configuration) {
        let set = FabricsCommand::PropertySet {
            size: SIZE_4,
            offset: OFFSET_CONFIGURATION,
            value: configuration.encode().into(),
        };
        assert_eq!(self.fabrics(world, &set).status, Status::SUCCESS);
    }

    fn fabrics(&mut self, world: &mut World, command: &FabricsCommand) -> Completion {
        let entry = command.encode(self.id(), Descriptor::NONE);
        self.call(world, &entry, None)
    }

    fn id(&mut self) -> u16 {
        self.next_id += 1;
        self.next_id
    }

    fn send(&mut self, entry: &SubmissionEntry, data: Option<&[u8]>, world: &World) {
        let data = data.map(|bytes| buffer(&world.pool, bytes));
        self.encoder.push_command(entry, data.as_ref());
    }

    /// Sends a command and waits for its completion; everything else stays in `heard`.
    fn call(
        &mut self,
        world: &mut World,
        entry: &SubmissionEntry,
        data: Option<&[u8]>,
    ) -> Completion {
        self.send(entry, data, world);
        self.pump(world);
        self.completion().unwrap_or_else(|| panic!("no completion but {:?}", self.heard))
    }

    fn completion(&mut self) -> Option<Completion> {
        let found = self.heard.iter().position(|heard| matches!(heard, Heard::Completion(_)))?;
        match self.heard.remove(found) {
            Heard::Completion(completion) => Some(completion),
            _ => None,
        }
    }

    /// Sends an admin command with `length` bytes to come back; gives those.
    fn ask(
        &mut self,
        world: &mut World,
        command: &AdminCommand,
        length: u32,
    ) -> (Completion, Vec<u8>) {
        let data = if length == 0 { Descriptor::NONE } else { Descriptor::transport(length) };
        let entry = command.encode(self.id(), data);
        let completion = self.call(world, &entry, None);
        (completion, self.data())
    }

    fn data(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.heard.retain(|heard| match heard {
            Heard::Data(_, part) => {
                bytes.extend(part);
                false
            }
            _ => true,
        });
        bytes
    }

    /// An I/O command, its data in the capsule.
    fn io(
        &mut self,
        world: &mut World,
        nsid: u32,
        command: NvmCommand,
        data: Option<&[u8]>,
    ) -> Completion {
        let descriptor =
            data.map_or(Descriptor::NONE, |bytes| Descriptor::in_capsule(bytes.len() as u32));
        let entry = command.encode(self.id(), nsid, descriptor);
        self.call(world, &entry, data)
    }

    fn read(&mut self, world: &mut World, nsid: u32, start: u64, length: u32) -> Completion {
        let block = if nsid == 2 { 4096 } else { 512 };
        let command = NvmCommand::Read { start, blocks: length / block, force_unit_access: false };
        let entry = command.encode(self.id(), nsid, Descriptor::transport(length));
        self.call(world, &entry, None)
    }

    /// Moves bytes to and fro and serves requests until nothing moves any more.
    fn pump(&mut self, world: &mut World) {
        loop {
            let mut moved = transfer(&mut self.encoder, &mut self.connection);
            moved |= self.connection.poll(&mut world.target, world.now);
            while let Some(submission) = self.connection.next_submission() {
                moved = true;
                if world.is_slow {
                    world.held.push(submission);
                } else {
                    world.serve(&mut self.connection, submission);
                }
            }
            moved |= self.listen(world);
            if !moved {
                return;
            }
        }
    }

    /// Lets the devices finish what they hold.
    fn release(&mut self, world: &mut World) {
        world.is_slow = false;
        for submission in std::mem::take(&mut world.held) {
            world.serve(&mut self.connection, submission);
        }
        self.pump(world);
    }

    /// Takes what the connection sends.
    fn listen(&mut self, world: &World) -> bool {
        let mut pieces = Vec::new();
        self.connection.transmit_from(&mut pieces, 64);
        let bytes: Vec<u8> = pieces.iter().flat_map(Buffer::to_vec).collect();
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let mut places = Vec::new();
            self.decoder.receive_into(&mut places);
            let taken = fill(&places, rest);
            assert!(taken > 0, "the host's decoder takes bytes");
            self.decoder.received(taken);
            rest = &rest[taken..];
            self.hear(world);
        }
        if !bytes.is_empty() {
            self.connection.transmitted(bytes.len());
        }
        !bytes.is_empty()
    }

    fn hear(&mut self, world: &World) {
        while let Some(event) = self.decoder.next_event().expect("what the target sends is valid") {
            match event {
                Decoded::Pdu(Pdu::InitializeResponse(response)) => {
                    assert!(response.host_data_max >= 128 << 10);
                    self.heard.push(Heard::Initialized);
                }
                Decoded::Pdu(Pdu::Response(bytes)) => {
                    self.heard.push(Heard::Completion(Completion::parse(&bytes)));
                }
                Decoded::Pdu(Pdu::ControllerData(header)) => {
                    let place = world.pool.allocate(header.length as usize);
                    self.decoder.place_payload(place.clone());
                    self.pending = Some((header, place));
                }
                Decoded::Pdu(Pdu::ReadyToTransfer(request)) => {
                    self.heard.push(Heard::ReadyToTransfer(request));
                }
                Decoded::Pdu(Pdu::Termination(termination)) => {
                    self.heard.push(Heard::Termination(termination));
                }
                Decoded::PayloadDone { digest_matches } => {
                    assert!(digest_matches);
                    let (header, place) = self.pending.take().expect("data were announced");
                    self.heard.push(Heard::Data(header, place.to_vec()));
                }
                Decoded::Pdu(other) => panic!("a host heard {other:?}"),
            }
        }
    }
}

fn buffer(pool: &BufferPool, bytes: &[u8]) -> Buffer {
    let buffer = pool.allocate(bytes.len());
    buffer.copy_from_slice(bytes);
    buffer
}

fn connect(queue_id: u16, queue_size: u16) -> FabricsCommand {
    FabricsCommand::Connect {
        record_format: 0,
        queue_id,
        queue_size,
        flow_control_disabled: false,
        keep_alive_ms: if queue_id == 0 { 5000 } else { 0 },
    }
}

/// Fills the pieces of a receive with as many bytes as fit.
fn fill(places: &[Buffer], bytes: &[u8]) -> usize {
    let mut taken = 0;
    for place in places {
        let length = place.len().min(bytes.len() - taken);
        place.slice(0, length).copy_from_slice(&bytes[taken..taken + length]);
        taken += length;
    }
    taken
}

/// Gives the connection `bytes`, polling it in between; returns how many it took.
fn feed(connection: &mut Connection, world: &mut World, bytes: &[u8]) -> usize {
    let mut taken = 0;
    while taken < bytes.len() {
        let mut places = Vec::new();
        connection.receive_into(&mut places);
        let length = fill(&places, &bytes[taken..]);
        if length == 0 {
            break;
        }
        connection.received(length);
        taken += length;
        connection.poll(&mut world.target, world.now);
    }
    taken
}

fn transfer(encoder: &mut Encoder, connection: &mut Connection) -> bool {
    let mut pieces = Vec::new();
    encoder.transmit_from(&mut pieces, 64);
    let bytes: Vec<u8> = pieces.iter().flat_map(Buffer::to_vec).collect();
    let mut places = Vec::new();
    connection.receive_into(&mut places);
    let taken = fill(&places, &bytes);
    if taken > 0 {
        connection.received(taken);
        encoder.transmitted(taken);
    }
    taken > 0
}
