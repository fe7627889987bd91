//! A whole target under scripted hosts that follow the protocol well enough to get far: two hosts,
//! five connections, commands of every kind, fused pairs, aborts, reservations and authentication,
//! data given in parts, devices that answer in any order or fail, and now and then something
//! damaged.
//!
//! ```text
//!   input ──▶ control byte, then steps ──▶ ScriptedHost ×5 ◀──PDUs──▶ Connection ×5 ─▶ Target
//! ```
//! What must hold: every command is answered once; nobody who has not proved itself reaches a
//! device, by no command and no half of a pair; when all is quiet no command, no memory and no
//! block is held; a sound host is never told that it broke the transport's rules.

pub(super) mod choices;
mod commands;
mod host;
mod world;

use std::collections::BTreeSet;
use std::time::Duration;

use nvme_fabric::pdu::{DataHeader, Digests};
use nvme_fabric::spec::command::{FUSE_FIRST, FUSE_SECOND, NvmCommand, admin, set_fuse};
use nvme_fabric::spec::sgl::Descriptor;

use self::choices::Choices;
use self::world::{SecretOf, Setting, World, role};
use crate::Target;
use crate::behaviour::{Behaviour, Observer};
use crate::mutation::Random;

/// The target. The first byte is the setting, each further one a step or a choice of one.
pub const TARGET: Target = Target { name: "target_script", length_max: 1024, run, cost: 40, seeds };

/// Blocks of 512 bytes on each device.
const BLOCKS: u64 = 128;
/// Connections: an admin queue and two for I/O of one host, an admin queue and one of another.
const SLOTS: usize = 5;
/// Steps of a script; what is longer says nothing new.
const STEPS_MAX: usize = 400;

fn run(input: &[u8]) -> Behaviour {
    let mut observer = Observer::default();
    let Some((control, rest)) = input.split_first() else { return observer.behaviour() };
    let setting = setting(*control);
    observer.note(control & 0x1f);
    let mut world = World::new(setting);
    for slot in 0..SLOTS {
        world.connect(slot);
    }
    let mut choices = Choices::new(rest);
    let mut steps = 0;
    while !choices.is_over() && steps < STEPS_MAX {
        steps += 1;
        step(&mut world, &mut choices);
        world.pump_all();
    }
    settle(&mut world);
    let mut kinds = BTreeSet::new();
    for (slot, host) in world.hosts.iter().enumerate() {
        let Some(host) = host else { continue };
        kinds.insert((slot, host.is_dead, host.is_tainted, host.may_ask));
        if let Some(error) = host.connection.error() {
            observer.note_message(&error.to_string(), "");
        }
    }
    observer.note(kinds);
    finish(&mut world);
    observer.behaviour()
}

fn setting(control: u8) -> Setting {
    let digests = control & 1 != 0;
    Setting {
        digests: Digests { header: digests, data: digests },
        flow_control: control & 2 != 0,
        memory: if control & 4 != 0 { 32 << 10 } else { 4 << 20 },
        secret: match control >> 3 & 3 {
            0 => SecretOf::Nobody,
            1 | 2 => SecretOf::Known,
            _ => SecretOf::Another,
        },
    }
}

/// A connection, those for I/O more often.
fn slot(choices: &mut Choices<'_>) -> usize {
    [1, 1, 2, 4, 4, 0, 3][choices.below(7)]
}

fn step(world: &mut World, choices: &mut Choices<'_>) {
    let kind = choices.below(32);
    let slot = slot(choices);
    match kind {
        0..=10 => command(world, slot, choices),
        11..=14 => pair(world, slot, choices),
        15..=17 => {
            if let Some(host) = &mut world.hosts[slot] {
                let place = choices.below(host.transfers.len().clamp(1, 256));
                let length = [u32::MAX, u32::MAX, 4, 512, 4096][choices.below(5)];
                host.serve(place, length, choices.byte() & 1);
            }
        }
        18..=22 => {
            world.fails = choices.one_in(8);
            for _ in 0..[1, 1, 2, 16][choices.below(4)] {
                world.complete(slot, choices.below(8));
            }
        }
        23 => {
            world.fails = choices.one_in(8);
            world.keep(choices.below(4));
        }
        24..=25 => {
            let place = if choices.one_in(2) { slot } else { 3 };
            let is_ready =
                |host: &host::ScriptedHost| !host.is_dead && host.has_room() && !host.is_tainted;
            if world.hosts[place].as_ref().is_some_and(is_ready) {
                world.authenticate(place, choices);
            }
        }
        26 => world.pass(Duration::from_millis([1, 100, 1000, 4000, 11_000][choices.below(5)])),
        27 => damage(world, slot, choices),
        28 => {
            if let Some(host) = &mut world.hosts[slot] {
                host.is_deaf = !host.is_deaf;
            }
        }
        29 => world.disconnect(slot),
        _ => {
            if world.hosts[slot].as_ref().is_none_or(|host| host.is_dead) {
                world.connect(slot);
            } else {
                command(world, slot, choices);
            }
        }
    }
}

fn command(world: &mut World, slot: usize, choices: &mut Choices<'_>) {
    let (_, queue_id) = role(slot);
    let victim = slot + 1 + choices.below(2);
    let abort = world.hosts.get(victim).and_then(Option::as_ref);
    let used = abort.and_then(|host| host.used_id(choices.below(16))).unwrap_or(1);
    let abort_queue = if choices.one_in(8) { choices.number() } else { role(victim.min(4)).1 };
    let Some(host) = &mut world.hosts[slot] else { return };
    if !host.has_room() {
        return;
    }
    let id = match choices.one_in(32) {
        true => host.used_id(choices.below(16)).unwrap_or(0xffff),
        false => host.id(),
    };
    let mut planned = match queue_id {
        0 => commands::admin(choices, id, (abort_queue, used)),
        _ => commands::io(choices, id),
    };
    if choices.one_in(16) {
        let at = choices.below(64);
        planned.entry[at] ^= choices.byte();
    }
    host.ask(&planned.entry, planned.capsule.as_deref());
}

/// A compare and a write that belong together, mostly.
fn pair(world: &mut World, slot: usize, choices: &mut Choices<'_>) {
    if role(slot).1 == 0 {
        return;
    }
    let (start, blocks) = commands::blocks(choices);
    let blocks = if choices.one_in(16) { blocks } else { blocks.min(16) };
    let bytes = blocks as usize * 512;
    let nsid = if choices.one_in(16) { 2 } else { 1 };
    for (fuse, is_compare) in [(FUSE_FIRST, true), (FUSE_SECOND, false)] {
        if choices.one_in(12) {
            command(world, slot, choices);
        }
        let Some(host) = world.hosts[slot].as_mut().filter(|host| host.has_room()) else { return };
        let force_unit_access = choices.one_in(4);
        let start = if choices.one_in(16) { start.wrapping_add(1) } else { start };
        let command = match is_compare != choices.one_in(24) {
            true => NvmCommand::Compare { start, blocks, force_unit_access },
            false => NvmCommand::Write { start, blocks, force_unit_access },
        };
        let id = host.id();
        let mut planned = commands::with_data(choices, nsid, id, command, bytes.min(1 << 20));
        set_fuse(&mut planned.entry, if choices.one_in(24) { 3 } else { fuse });
        host.ask(&planned.entry, planned.capsule.as_deref());
        if choices.one_in(6) {
            return;
        }
        if choices.one_in(4) {
            world.pump_all();
        }
    }
}

/// Breaks a rule of the transport's.
fn damage(world: &mut World, slot: usize, choices: &mut Choices<'_>) {
    let Some(host) = &mut world.hosts[slot] else { return };
    host.is_tainted = true;
    match choices.below(4) {
        0 => {
            // Data nobody asked for, or not so.
            let asked = host.transfers.first().copied();
            let (command, transfer_tag, offset, length) = match asked {
                Some(it) => (it.command, it.transfer_tag, it.offset, it.length),
                None => (choices.number(), choices.number(), 0, 512),
            };
            let wrong = choices.below(4);
            let header = DataHeader {
                command: if wrong == 0 { command.wrapping_add(1) } else { command },
                transfer_tag: if wrong == 1 {
                    transfer_tag.wrapping_add(1) & 0x1f
                } else {
                    transfer_tag
                },
                offset: if wrong == 2 { offset.wrapping_add(4) } else { offset },
                length: if wrong == 3 { length + 4 } else { length },
                last: choices.one_in(2),
                success: false,
            };
            host.say_data(&header, 0);
        }
        1 => {
            // More commands than the queue has entries.
            for _ in 0..host.queue_entries {
                let id = host.id();
                host.ask(&NvmCommand::Flush.encode(id, 1, Descriptor::NONE), None);
            }
        }
        2 => {
            host.is_lost = true;
            let count = 1 + choices.below(32);
            let bytes: Vec<u8> = (0..count).map(|_| choices.byte()).collect();
            host.unsent.extend(bytes);
        }
        _ => {
            // A changed byte of a whole command.
            let before = host.unsent.len();
            host.is_lost = true;
            let id = host.id();
            let planned = commands::io(choices, id);
            host.ask(&planned.entry, planned.capsule.as_deref());
            let at = before + choices.below(128) % (host.unsent.len() - before);
            host.unsent[at] ^= choices.byte();
        }
    }
}

/// Gives everything what it waits for, and checks that nothing is left.
fn settle(world: &mut World) {
    world.fails = false;
    for host in world.hosts.iter_mut().flatten() {
        host.is_deaf = false;
    }
    for _ in 0..1000 {
        world.pump_all();
        let mut moved = false;
        for slot in 0..SLOTS {
            while world.hosts[slot].as_ref().is_some_and(|host| !host.at_device.is_empty()) {
                world.complete(slot, 0);
                moved = true;
            }
            let Some(host) = &mut world.hosts[slot] else { continue };
            moved |= !host.transfers.is_empty() && !host.is_dead;
            while !host.transfers.is_empty() && !host.is_dead {
                host.serve(0, u32::MAX, 0);
            }
        }
        while !world.images.is_empty() {
            world.keep(0);
            moved = true;
        }
        if !moved && !end_halves(world) {
            break;
        }
    }
    for (slot, host) in world.hosts.iter().enumerate() {
        if let Some(host) = host.as_ref().filter(|host| !host.is_dead && !host.is_lost) {
            check_quiet(slot, host);
        }
    }
}

/// A first half waits for the next command, whatever it is; whether any was sent.
fn end_halves(world: &mut World) -> bool {
    let mut moved = false;
    for slot in [1, 2, 4] {
        let Some(host) = &mut world.hosts[slot] else { continue };
        let is_quiet = host.is_dead || host.is_lost || host.outstanding.is_empty();
        if !is_quiet && host.has_room() && !host.has_ended {
            host.has_ended = true;
            let id = host.id();
            host.ask(&NvmCommand::Flush.encode(id, 1, Descriptor::NONE), None);
            moved = true;
        }
    }
    moved
}

fn check_quiet(slot: usize, host: &host::ScriptedHost) {
    let waits =
        |opcode: u8| role(slot).1 == 0 && opcode == admin::OPCODE_ASYNCHRONOUS_EVENT_REQUEST;
    let left: Vec<_> = host.outstanding.iter().filter(|(_, (_, opcode))| !waits(*opcode)).collect();
    assert!(left.is_empty(), "slot {slot}: commands without an answer: {left:x?}");
    let parked: usize = host.outstanding.values().map(|(count, _)| count).sum();
    assert_eq!(host.connection.commands_in_flight(), parked, "slot {slot}: places of commands");
    assert_eq!(host.connection.held_bytes(), 0, "slot {slot}: payload memory");
    assert_eq!(host.connection.queued_bytes(), 0, "slot {slot}: queued bytes");
    assert!(host.connection.is_idle(), "slot {slot}: blocks are held");
}

/// Ends every connection; then nothing may be left of any.
fn finish(world: &mut World) {
    for slot in 0..SLOTS {
        world.disconnect(slot);
    }
    assert_eq!(world.target.controllers_in_use(), 0, "controllers without a connection");
    let subsystems = world.target.subsystems().values();
    for namespace in subsystems.flat_map(|place| place.namespaces().values()) {
        assert_eq!(namespace.commands_under_way(), 0, "commands of nobody");
    }
}

fn seeds() -> Vec<Vec<u8>> {
    let mut random = Random::new(1);
    (0..96u8)
        .map(|control| {
            let length = 16 << (control % 5);
            let steps = (0..length).map(|_| random.next() as u8);
            std::iter::once(control).chain(steps).collect()
        })
        .collect()
}
