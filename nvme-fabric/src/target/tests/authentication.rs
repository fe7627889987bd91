//! Hosts with secrets: what they may do before they have proved themselves, and what is refused.

use super::*;
use crate::auth::host::{Action, Exchange};
use crate::auth::{Concatenation, GeneratedPsk, Keys, Names, Random, Secret};
use crate::spec::command::{FUSE_FIRST, FUSE_SECOND, SecurityProtocol, set_fuse};
use crate::target::TRANSFER_MAX;

fn keys(seed: u8) -> Keys {
    Keys::new(Secret::generate(None, &mut Random::new(&[seed; 32])))
}

/// A world that knows the host by `keys(1)`.
fn guarded() -> World {
    let mut world = world();
    world.target.seed_random(&[7; 32]);
    world.target.set_host_keys(0, nqn(HOST), keys(1)).expect("there is a subsystem");
    world
}

/// A queue right after its Connect.
fn connected(world: &mut World, queue: u16, controller: u16) -> Host {
    let mut host = Host::initialized(world, Digests::default(), 0);
    let completion = host.connect(world, &connect(queue, 15), SUBSYSTEM, controller);
    assert_eq!(completion.status, Status::SUCCESS);
    let result = ConnectResult::parse(completion.dword_0());
    assert!(result.authentication_required && !result.secure_channel_required);
    host.controller_id = result.controller_id;
    host
}

fn send(host: &mut Host, world: &mut World, message: &[u8]) -> Status {
    let length = message.len() as u32;
    let command = FabricsCommand::AuthenticationSend { protocol: SecurityProtocol::NVME, length };
    let entry = command.encode(host.id(), Descriptor::in_capsule(length));
    host.call(world, &entry, Some(message)).status
}

fn receive(host: &mut Host, world: &mut World, length: u32) -> (Status, Vec<u8>) {
    let protocol = SecurityProtocol::NVME;
    let command = FabricsCommand::AuthenticationReceive { protocol, length };
    let entry = command.encode(host.id(), Descriptor::transport(length));
    let status = host.call(world, &entry, None).status;
    (status, host.data())
}

/// Runs a transaction to its end.
fn authenticate(host: &mut Host, world: &mut World, keys: &Keys) -> Action {
    transact(host, world, keys, Concatenation::None).0
}

/// The same with a key to be generated, and the host's end of it.
fn transact(
    host: &mut Host,
    world: &mut World,
    keys: &Keys,
    concatenation: Concatenation,
) -> (Action, Option<GeneratedPsk>) {
    let mut random = Random::new(&[8; 32]);
    let (mut exchange, first) = Exchange::start(keys, 1, concatenation);
    let mut action = Action::Send(first);
    let (name, subsystem) = (nqn(HOST), nqn(SUBSYSTEM));
    loop {
        action = match action {
            Action::Send(message) => {
                assert_eq!(send(host, world, &message), Status::SUCCESS);
                exchange.sent()
            }
            Action::Receive => {
                let (status, message) = receive(host, world, 4096);
                assert_eq!((status, message.len()), (Status::SUCCESS, 4096));
                exchange.received(&message, keys, Names::new(&name, &subsystem), &mut random)
            }
            end => return (end, exchange.take_generated()),
        };
    }
}

fn required() -> Status {
    Status::AUTHENTICATION_REQUIRED.do_not_retry()
}

#[test]
fn nothing_but_authentication_is_taken_before_it() {
    let mut world = guarded();
    let mut admin = connected(&mut world, 0, CONTROLLER_ID_DYNAMIC);
    let get = FabricsCommand::PropertyGet { size: 0, offset: 0x1c };
    assert_eq!(admin.fabrics(&mut world, &get).status, required());
    assert_eq!(admin.ask(&mut world, &AdminCommand::KeepAlive, 0).0.status, required());
    assert_eq!(authenticate(&mut admin, &mut world, &keys(1)), Action::Done);
    admin.configure(&mut world, Configuration::ENABLED);

    let id = admin.controller_id;
    let mut io = connected(&mut world, 1, id);
    assert_eq!(io.read(&mut world, 1, 0, 4096).status, required());
    assert_eq!(authenticate(&mut io, &mut world, &keys(1)), Action::Done);
    assert_eq!(io.read(&mut world, 1, 0, 4096).status, Status::SUCCESS);
    world.pass(Duration::from_secs(4));
    assert!(!io.connection.poll(&mut world.target, world.now), "no deadline is left");
}

#[test]
fn a_wrong_secret_ends_the_connection_after_the_host_was_told() {
    let mut world = guarded();
    let mut admin = connected(&mut world, 0, CONTROLLER_ID_DYNAMIC);
    let end = authenticate(&mut admin, &mut world, &keys(2));
    assert!(matches!(end, Action::Failed(text) if text.contains("different secrets")));
    assert_eq!(world.target.controllers_in_use(), 0);
    let error = admin.connection.error().expect("it ended").to_string();
    assert!(error.contains("the host's response is wrong"), "{error}");
    assert!(!admin.connection.is_finished(), "the host is to close it");
    world.pass(Duration::from_secs(5));
    admin.connection.poll(&mut world.target, world.now);
    assert!(admin.connection.is_finished());
}

#[test]
fn a_host_that_does_not_authenticate_in_time_is_dropped() {
    let mut world = guarded();
    let mut admin = connected(&mut world, 0, CONTROLLER_ID_DYNAMIC);
    assert!(admin.connection.deadline().is_some());
    for second in 1..=60 {
        assert!(!admin.connection.is_finished(), "after {second} s: a slow host has a minute");
        world.pass(Duration::from_secs(1));
        // Not even when it is heard.
        let get = FabricsCommand::PropertyGet { size: 0, offset: 0x1c };
        let entry = get.encode(admin.id(), Descriptor::NONE);
        admin.send(&entry, None, &world);
        admin.pump(&mut world);
    }
    assert!(admin.connection.is_finished());
    let reason = admin.connection.error().expect("a reason").to_string();
    assert!(reason.contains("authentication") && reason.contains("within 60s"), "{reason}");
    assert_eq!(world.target.controllers_in_use(), 0);
}

#[test]
fn commands_that_are_wrong_are_refused_and_change_nothing() {
    let mut world = guarded();
    let mut admin = connected(&mut world, 0, CONTROLLER_ID_DYNAMIC);
    let invalid = Status::INVALID_FIELD.do_not_retry();
    for protocol in [
        SecurityProtocol { id: 0xea, ..SecurityProtocol::NVME },
        SecurityProtocol { specific: [1, 0], ..SecurityProtocol::NVME },
        SecurityProtocol { specific: [0, 1], ..SecurityProtocol::NVME },
    ] {
        let command = FabricsCommand::AuthenticationReceive { protocol, length: 4096 };
        let entry = command.encode(admin.id(), Descriptor::transport(4096));
        assert_eq!(admin.call(&mut world, &entry, None).status, invalid);
    }
    // TL that is not the data's length, and data that are not in the capsule.
    let (_, first) = Exchange::start(&keys(1), 1, Concatenation::None);
    let protocol = SecurityProtocol::NVME;
    let command = FabricsCommand::AuthenticationSend { protocol, length: 71 };
    let entry = command.encode(admin.id(), Descriptor::in_capsule(72));
    assert_eq!(admin.call(&mut world, &entry, Some(&first)).status, invalid);
    let entry = command.encode(admin.id(), Descriptor::transport(71));
    assert!(admin.call(&mut world, &entry, None).status.is(Status::SGL_TYPE_INVALID));
    // AL that the message does not fit, and AL beyond reason.
    assert_eq!(send(&mut admin, &mut world, &first), Status::SUCCESS);
    assert_eq!(receive(&mut admin, &mut world, 64).0, invalid);
    assert_eq!(receive(&mut admin, &mut world, TRANSFER_MAX).0, invalid);
    let (status, challenge) = receive(&mut admin, &mut world, 16 + 32 + 256);
    assert_eq!((status, &challenge[..2]), (Status::SUCCESS, &[1, 1][..]));
}

#[test]
fn authentication_of_a_host_without_a_secret_is_no_command() {
    let mut world = world();
    let mut admin = Host::admin(&mut world, SUBSYSTEM);
    let (_, first) = Exchange::start(&keys(1), 1, Concatenation::None);
    assert!(send(&mut admin, &mut world, &first).is(Status::INVALID_OPCODE));
    assert!(receive(&mut admin, &mut world, 4096).0.is(Status::INVALID_OPCODE));
}

#[test]
fn without_random_bytes_a_host_with_a_secret_is_refused() {
    let mut world = world();
    world.target.set_host_keys(0, nqn(HOST), keys(1)).expect("there is a subsystem");
    let mut host = Host::initialized(&mut world, Digests::default(), 0);
    let completion = host.connect(&mut world, &connect(0, 15), SUBSYSTEM, CONTROLLER_ID_DYNAMIC);
    assert!(completion.status.is(Status::INTERNAL_ERROR));
    assert!(world.target.set_host_keys(1, nqn(HOST), keys(1)).is_err());
}

/// The admin queue of a host whose stream could be encrypted and is not.
fn in_clear(world: &mut World) -> (Host, ConnectResult) {
    let mut host = Host::initialized(world, Digests::default(), 0);
    host.connection.offer_tls();
    let completion = host.connect(world, &connect(0, 15), SUBSYSTEM, CONTROLLER_ID_DYNAMIC);
    assert_eq!(completion.status, Status::SUCCESS);
    (host, ConnectResult::parse(completion.dword_0()))
}

/// A queue over TLS by a generated key of `owner`, connected by the usual name.
fn encrypted(world: &mut World, owner: &str, queue: u16, controller: u16) -> (Host, Completion) {
    let mut host = Host::initialized(world, Digests::default(), 0);
    host.connection.expect_names(&nqn(owner), &nqn(SUBSYSTEM), true);
    let completion = host.connect(world, &connect(queue, 15), SUBSYSTEM, controller);
    host.controller_id = ConnectResult::parse(completion.dword_0()).controller_id;
    (host, completion)
}

fn mismatch(end: &Action) -> bool {
    matches!(end, Action::Failed(text) if text.contains("secure channel"))
}

#[test]
fn a_key_is_generated_in_clear_and_opens_queues_without_another_proof() {
    let mut world = guarded();
    let keys = keys(1).with_concatenation();
    world.target.set_host_keys(0, nqn(HOST), keys.clone()).expect("there is a subsystem");
    let (mut admin, result) = in_clear(&mut world);
    assert!(result.secure_channel_required && !result.authentication_required);
    let (end, psk) = transact(&mut admin, &mut world, &keys, Concatenation::New);
    assert_eq!(end, Action::Done);
    let generated = world.target.next_generated_key().expect("there is a key");
    assert_eq!((&generated.host, &generated.subsystem), (&nqn(HOST), &nqn(SUBSYSTEM)));
    assert_eq!(Some(generated.psk), psk, "both ends have the same");
    assert_eq!(world.target.next_generated_key(), None);

    let (mut admin, completion) = encrypted(&mut world, HOST, 0, CONTROLLER_ID_DYNAMIC);
    let result = ConnectResult::parse(completion.dword_0());
    assert!(!result.secure_channel_required && !result.authentication_required);
    admin.configure(&mut world, Configuration::ENABLED);
    let id = admin.controller_id;
    let (mut io, _) = encrypted(&mut world, HOST, 1, id);
    assert_eq!(io.read(&mut world, 1, 0, 4096).status, Status::SUCCESS);
    assert_eq!(io.data().len(), 4096);
    // Again, for another key, on the admin queue only, and not as if there was none.
    let (end, psk) = transact(&mut admin, &mut world, &keys, Concatenation::Replace);
    assert_eq!(end, Action::Done);
    assert_eq!(world.target.next_generated_key().map(|key| key.psk), psk);
    let (end, _) = transact(&mut io, &mut world, &keys, Concatenation::Replace);
    assert!(mismatch(&end), "{end:?}");
    let (end, _) = transact(&mut admin, &mut world, &keys, Concatenation::New);
    assert!(mismatch(&end), "{end:?}");
    assert_eq!(world.target.next_generated_key(), None);
}

#[test]
fn who_must_have_a_secure_channel_does_nothing_in_clear() {
    let mut world = guarded();
    let keys = keys(1).with_concatenation();
    world.target.set_host_keys(0, nqn(HOST), keys.clone()).expect("there is a subsystem");
    let (mut admin, _) = in_clear(&mut world);
    let (end, _) = transact(&mut admin, &mut world, &keys, Concatenation::None);
    assert!(mismatch(&end), "{end:?}");
    let (mut admin, _) = in_clear(&mut world);
    let (end, _) = transact(&mut admin, &mut world, &keys, Concatenation::Replace);
    assert!(mismatch(&end), "{end:?}");
    // Nor where there is no TLS to follow.
    let mut admin = Host::initialized(&mut world, Digests::default(), 0);
    admin.connect(&mut world, &connect(0, 15), SUBSYSTEM, CONTROLLER_ID_DYNAMIC);
    let (end, _) = transact(&mut admin, &mut world, &keys, Concatenation::New);
    assert!(mismatch(&end), "{end:?}");
    // The admin queue in clear has no I/O queues: those can only be had with the key.
    let (mut admin, _) = in_clear(&mut world);
    let (end, _) = transact(&mut admin, &mut world, &keys, Concatenation::New);
    assert_eq!(end, Action::Done);
    admin.configure(&mut world, Configuration::ENABLED);
    let mut io = Host::initialized(&mut world, Digests::default(), 0);
    io.connection.offer_tls();
    io.connect(&mut world, &connect(1, 15), SUBSYSTEM, 1);
    assert_eq!(io.read(&mut world, 1, 0, 4096).status, required());
    for concatenation in [Concatenation::None, Concatenation::New] {
        let mut io = Host::initialized(&mut world, Digests::default(), 0);
        io.connection.offer_tls();
        io.connect(&mut world, &connect(2, 15), SUBSYSTEM, 1);
        let (end, _) = transact(&mut io, &mut world, &keys, concatenation);
        assert!(mismatch(&end), "{end:?}");
    }
}

#[test]
fn a_generated_key_is_of_one_host_and_ends_with_its_secret() {
    let mut world = guarded();
    let other = "nqn.2014-08.com.example:other";
    let (_, completion) = encrypted(&mut world, other, 0, CONTROLLER_ID_DYNAMIC);
    assert!(completion.status.is(Status::CONNECT_INVALID_HOST), "the name is not the key's");
    let (_, completion) = encrypted(&mut world, HOST, 0, CONTROLLER_ID_DYNAMIC);
    assert_eq!(completion.status, Status::SUCCESS);
    let subsystem = world.target.subsystems.get_mut(0).expect("there is one");
    assert!(subsystem.remove_host_keys(&nqn(HOST)));
    let (_, completion) = encrypted(&mut world, HOST, 0, CONTROLLER_ID_DYNAMIC);
    assert!(completion.status.is(Status::CONNECT_INVALID_HOST), "its secret is gone");
}

#[test]
fn no_half_of_a_fused_pair_is_executed_for_a_host_that_proved_nothing() {
    let mut world = guarded();
    let mut admin = connected(&mut world, 0, CONTROLLER_ID_DYNAMIC);
    assert_eq!(authenticate(&mut admin, &mut world, &keys(1)), Action::Done);
    admin.configure(&mut world, Configuration::ENABLED);
    let id = admin.controller_id;
    let mut io = connected(&mut world, 1, id);
    let halves = [
        (FUSE_FIRST, NvmCommand::Compare { start: 0, blocks: 1, force_unit_access: false }),
        (FUSE_SECOND, NvmCommand::Write { start: 0, blocks: 1, force_unit_access: false }),
    ];
    for (fuse, command) in halves {
        let mut entry = command.encode(io.id(), 1, Descriptor::in_capsule(512));
        set_fuse(&mut entry, fuse);
        // Each half is refused at once and by itself: the first does not wait for the second.
        assert_eq!(io.call(&mut world, &entry, Some(&[0x5a; 512])).status, required());
    }
    assert!(world.asked.is_empty(), "{:?}", world.asked);
    assert_eq!(world.memory[..512], [0; 512]);
}
