//! The target of a script, its devices, and the hosts that are connected to it.
//!
//! A device does what it is asked when the script says so, in any order. Every request is checked
//! when it is made: that it fits the geometry and its buffer, and that its host may ask at all.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use block_io::{
    Buffer, BufferPool, Completion, Geometry, IoError, Operation, RequestId, Timestamp,
};
use nvme_fabric::auth::host::{Action, Exchange};
use nvme_fabric::auth::{Choices as Agreeable, Group, Keys, Names, Random as Secrets, Secret};
use nvme_fabric::error::ConnectionError;
use nvme_fabric::pdu::Digests;
use nvme_fabric::spec::auth::Concatenation;
use nvme_fabric::spec::command::{FabricsCommand, SecurityProtocol, SubmissionEntry};
use nvme_fabric::spec::connect::{CONTROLLER_ID_DYNAMIC, ConnectData, ConnectResult};
use nvme_fabric::spec::nqn::{HostId, Nqn};
use nvme_fabric::spec::property::{Configuration, OFFSET_CONFIGURATION, SIZE_4};
use nvme_fabric::spec::sgl::Descriptor;
use nvme_fabric::target::{
    Connection, Namespace, NamespaceKey, ReservationImage, Settings, Submission, Subsystem, Target,
};

use super::super::{START, collect, nqn, subsystem};
use super::choices::Choices;
use super::host::{Answer, ScriptedHost};
use super::{BLOCKS, SLOTS};
use crate::mutation::Random;

/// More turns of one pump than any needs.
const TURNS_MAX: usize = 10_000;

/// What a script is about, from its first byte.
#[derive(Clone, Copy)]
pub(super) struct Setting {
    pub(super) digests: Digests,
    pub(super) flow_control: bool,
    /// Payload memory of a connection, in bytes.
    pub(super) memory: usize,
    pub(super) secret: SecretOf,
}

/// What the second host knows of the secret that the target has for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum SecretOf {
    /// The target has none.
    Nobody,
    Known,
    Another,
}

pub(super) struct World {
    pub(super) target: Target,
    pub(super) now: Timestamp,
    pub(super) hosts: [Option<ScriptedHost>; SLOTS],
    pub(super) images: Vec<ReservationImage>,
    pub(super) fails: bool,
    setting: Setting,
    memory: [Vec<u8>; 2],
    pool: BufferPool,
    random: Random,
    secrets: Secrets,
    /// The controllers of both hosts.
    controllers: [u16; 2],
}

/// Whose slot it is, and which queue.
pub(super) const fn role(slot: usize) -> (usize, u16) {
    [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)][slot]
}

fn keys(secret: u8) -> Keys {
    let secret = Secret::generate(None, &mut Secrets::new(&[secret; 32]));
    let agreeable = Agreeable { groups: vec![Group::Null], ..Agreeable::default() };
    Keys { choices: agreeable, ..Keys::new(secret) }
}

fn name(host: usize) -> Nqn {
    nqn(["nqn.2026-01.io.forebay:first", "nqn.2026-01.io.forebay:second"][host])
}

impl World {
    pub(super) fn new(setting: Setting) -> Self {
        let settings = Settings {
            queue_entries_max: 32,
            io_queues_max: 2,
            controllers_max: 3,
            bytes_in_flight_max: setting.memory,
            ..Settings::default()
        };
        let mut target = Target::new(settings).expect("sound settings");
        let mut place = Subsystem::new(subsystem(), "FUZZ1").expect("a sound name");
        let geometry = Geometry { volatile_cache: true, ..Geometry::new(BLOCKS * 512) };
        let first = Namespace::new(geometry, HostId([9; 16])).expect("a sound geometry");
        let first = first.with_kept_reservations(None).expect("no image");
        let geometry = Geometry { block_size: 4096, transfer_max: 16 << 10, ..geometry };
        let second = Namespace::new(geometry, HostId([8; 16])).expect("a sound geometry");
        place.add_namespace(first).expect("the first");
        place.add_namespace(second).expect("the second");
        if setting.secret != SecretOf::Nobody {
            place.set_host_keys(name(1), keys(1)).expect("sound keys");
        }
        target.add_subsystem(place).expect("the first");
        target.seed_random(&[3; 32]);
        let bytes = BLOCKS as usize * 512;
        Self {
            target,
            now: START,
            hosts: [const { None }; SLOTS],
            images: Vec::new(),
            fails: false,
            setting,
            memory: [vec![0; bytes], vec![0; bytes]],
            pool: BufferPool::heap(),
            random: Random::new(1),
            secrets: Secrets::new(&[4; 32]),
            controllers: [CONTROLLER_ID_DYNAMIC; 2],
        }
    }

    /// Puts a new connection to a slot, as far as Connect, and for an admin queue, as far as a
    /// controller that is enabled, when it may be.
    pub(super) fn connect(&mut self, slot: usize) {
        self.disconnect(slot);
        let (host, queue_id) = role(slot);
        let local = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let connection = Connection::new(self.target.settings(), &self.pool, local, self.now);
        let mut scripted = ScriptedHost::new(connection, &self.pool, self.setting.digests);
        let entries = if queue_id == 0 { 32 } else { 12 };
        let connect = FabricsCommand::Connect {
            record_format: 0,
            queue_id,
            queue_size: entries - 1,
            flow_control_disabled: !self.setting.flow_control,
            keep_alive_ms: if queue_id == 0 { 5000 } else { 0 },
        };
        let controller_id =
            if queue_id == 0 { CONTROLLER_ID_DYNAMIC } else { self.controllers[host] };
        let data = ConnectData {
            host_id: HostId([host as u8 + 1; 16]),
            controller_id,
            subsystem: subsystem(),
            host: name(host),
        };
        let data = data.encode();
        let id = scripted.id();
        scripted.may_ask = host == 0 || self.setting.secret == SecretOf::Nobody;
        scripted.queue_entries = entries.into();
        self.hosts[slot] = Some(scripted);
        let entry = connect.encode(id, Descriptor::in_capsule(data.len() as u32));
        let answers = self.call(slot, &entry, Some(&data));
        let Some(Answer::Completion(completion)) = answers.last() else { return };
        if !completion.status.is_success() {
            // The controller may be gone, or there are too many.
            return self.disconnect(slot);
        }
        if queue_id == 0 {
            self.controllers[host] = ConnectResult::parse(completion.dword_0()).controller_id;
            if self.hosts[slot].as_ref().is_some_and(|host| host.may_ask) {
                self.enable(slot);
            }
        }
    }

    pub(super) fn enable(&mut self, slot: usize) {
        let set = FabricsCommand::PropertySet {
            size: SIZE_4,
            offset: OFFSET_CONFIGURATION,
            value: Configuration::ENABLED.encode().into(),
        };
        let Some(host) = &mut self.hosts[slot] else { return };
        let id = host.id();
        self.call(slot, &set.encode(id, Descriptor::NONE), None);
    }

    /// The host closes the stream.
    pub(super) fn disconnect(&mut self, slot: usize) {
        let Some(mut host) = self.hosts[slot].take() else { return };
        host.connection.disconnect(&mut self.target, ConnectionError::Closed);
        assert!(host.connection.is_finished(), "disconnected, but not finished");
        assert!(host.connection.next_submission().is_none(), "a request of a finished connection");
        // The devices still answer what they have.
        for submission in host.at_device.drain(..) {
            let result = perform(&mut self.memory, &submission, Ok(()));
            host.connection.complete(submission.request.complete(result));
        }
        host.connection.poll(&mut self.target, self.now);
        assert!(host.connection.is_idle(), "a finished connection that holds blocks");
        self.pump_all();
    }

    /// Asks, and takes the answers that come at once.
    fn call(&mut self, slot: usize, entry: &SubmissionEntry, data: Option<&[u8]>) -> Vec<Answer> {
        let Some(host) = &mut self.hosts[slot] else { return Vec::new() };
        host.is_deaf = false;
        host.is_watching = true;
        host.ask(entry, data);
        self.pump(slot);
        let Some(host) = &mut self.hosts[slot] else { return Vec::new() };
        host.is_watching = false;
        let mut answers = std::mem::take(&mut host.answers);
        answers.remove(&nvme_fabric::spec::command::command_id(entry)).unwrap_or_default()
    }

    /// The host at `slot` proves itself, or tries to; the script may damage what it says.
    pub(super) fn authenticate(&mut self, slot: usize, choices: &mut Choices<'_>) {
        let (host, _) = role(slot);
        let keys = keys(if self.setting.secret == SecretOf::Another { 2 } else { 1 });
        let (mut exchange, first) = Exchange::start(&keys, choices.number(), Concatenation::None);
        let (host_name, subsystem) = (name(host), subsystem());
        let names = Names::new(&host_name, &subsystem);
        let mut action = Action::Send(first);
        loop {
            action = match action {
                Action::Send(mut message) => {
                    if choices.one_in(16) {
                        let at = usize::from(choices.byte()) % message.len();
                        message[at] ^= choices.byte();
                        if let Some(host) = &mut self.hosts[slot] {
                            host.has_made_up = true;
                        }
                    }
                    if !self.send_message(slot, &message) {
                        return;
                    }
                    exchange.sent()
                }
                Action::Receive => {
                    let Some(message) = self.receive_message(slot) else { return };
                    exchange.received(&message, &keys, names, &mut self.secrets)
                }
                Action::Done => break,
                Action::Failed(reason) => {
                    let has_secret = self.setting.secret == SecretOf::Known;
                    let is_sound = |host: &ScriptedHost| !host.is_lost && !host.has_made_up;
                    let is_sound = self.hosts[slot].as_ref().is_some_and(is_sound);
                    assert!(!(has_secret && is_sound), "a sound host was refused: {reason}");
                    return;
                }
            };
        }
        assert_ne!(self.setting.secret, SecretOf::Another, "authenticated by a wrong secret");
        if let Some(host) = &mut self.hosts[slot] {
            host.may_ask = true;
        }
        if role(slot).1 == 0 {
            self.enable(slot);
        }
    }

    fn send_message(&mut self, slot: usize, message: &[u8]) -> bool {
        let length = message.len() as u32;
        let protocol = SecurityProtocol::NVME;
        let command = FabricsCommand::AuthenticationSend { protocol, length };
        let Some(host) = &mut self.hosts[slot] else { return false };
        let entry = command.encode(host.id(), Descriptor::in_capsule(length));
        let answers = self.call(slot, &entry, Some(message));
        matches!(answers.last(), Some(Answer::Completion(answer)) if answer.status.is_success())
    }

    fn receive_message(&mut self, slot: usize) -> Option<Vec<u8>> {
        let (protocol, length) = (SecurityProtocol::NVME, 4096);
        let command = FabricsCommand::AuthenticationReceive { protocol, length };
        let id = self.hosts[slot].as_mut()?.id();
        let answers = self.call(slot, &command.encode(id, Descriptor::transport(length)), None);
        answers.into_iter().find_map(|answer| match answer {
            Answer::Data(bytes) => Some(bytes),
            Answer::Completion(_) => None,
        })
    }

    pub(super) fn pass(&mut self, time: Duration) {
        self.now = self.now + time;
    }

    /// Lets every connection do what it can until none does anything.
    pub(super) fn pump_all(&mut self) {
        let mut turns = 0;
        loop {
            turns += 1;
            assert!(turns < TURNS_MAX, "connections that never rest");
            let mut moved = false;
            for slot in 0..SLOTS {
                moved |= self.pump(slot);
            }
            if !moved {
                return;
            }
        }
    }

    /// Moves the bytes of a connection, with the devices standing still.
    fn pump(&mut self, slot: usize) -> bool {
        let mut moved = false;
        for turn in 0.. {
            assert!(turn < TURNS_MAX, "a connection that never rests");
            let Some(host) = &mut self.hosts[slot] else { return moved };
            let mut again = host.send(usize::MAX);
            again |= host.connection.poll(&mut self.target, self.now);
            again |= take_submissions(&self.target, host);
            if !host.is_deaf {
                let bytes = collect(&mut host.connection, &mut self.random);
                again |= !bytes.is_empty();
                host.listen(&bytes);
            }
            host.is_dead |= host.connection.error().is_some();
            while let Some(image) = self.target.next_reservation_image() {
                self.images.push(image);
                again = true;
            }
            moved |= again;
            if !again {
                break;
            }
        }
        moved
    }

    /// The device does the request at `place` of a connection's.
    pub(super) fn complete(&mut self, slot: usize, place: usize) {
        let Some(host) = &mut self.hosts[slot] else { return };
        if host.at_device.is_empty() {
            return;
        }
        let submission = host.at_device.swap_remove(place % host.at_device.len());
        let fault = if self.fails { Err(IoError::Media) } else { Ok(()) };
        let result = perform(&mut self.memory, &submission, fault);
        let completion: Completion = submission.request.complete(result);
        host.connection.complete(completion);
    }

    /// Answers an image that is to be kept.
    pub(super) fn keep(&mut self, place: usize) {
        if self.images.is_empty() {
            return;
        }
        let image = self.images.swap_remove(place % self.images.len());
        let result = if self.fails { Err(IoError::Media) } else { Ok(()) };
        self.target.reservation_kept(image.namespace, image.version, result);
    }
}

/// Takes the requests that a connection makes, and checks them.
fn take_submissions(target: &Target, host: &mut ScriptedHost) -> bool {
    let mut moved = false;
    while let Some(submission) = host.connection.next_submission() {
        assert!(host.may_ask, "a request of a host that has not proved itself: {submission:?}");
        let NamespaceKey { subsystem, namespace } = submission.namespace;
        let place = target.subsystems().get(subsystem).expect("a subsystem of the target's");
        let place = place.namespaces().get(namespace).expect("a namespace of the subsystem's");
        let geometry = place.geometry();
        let request = &submission.request;
        assert_eq!(geometry.check(request.operation, request.extent), Ok(()), "{request:?}");
        let wanted = request.operation.carries_data().then_some(request.extent.length as usize);
        assert_eq!(request.buffer.as_ref().map(Buffer::len), wanted, "{request:?}");
        let RequestId(id) = request.id;
        assert!(id >= 1 << 32 || (id as usize) < host.queue_entries, "{request:?}");
        host.at_device.push(submission);
        moved = true;
    }
    moved
}

/// Does what a device would.
fn perform(
    memory: &mut [Vec<u8>; 2],
    submission: &Submission,
    fault: Result<(), IoError>,
) -> Result<(), IoError> {
    fault?;
    let request = &submission.request;
    let range = request.extent.offset as usize..request.extent.end() as usize;
    let memory = &mut memory[submission.namespace.namespace];
    match (request.operation, &request.buffer) {
        (Operation::Read, Some(buffer)) => buffer.copy_from_slice(&memory[range]),
        (Operation::Write, Some(buffer)) => buffer.copy_to_slice(&mut memory[range]),
        (Operation::Discard | Operation::WriteZeroes, _) => memory[range].fill(0),
        _ => {}
    }
    Ok(())
}
