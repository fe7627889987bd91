//! Asymmetric access: groups, their states, and two processes that serve one subsystem.

use super::changes::{admin_command, events, listen_for, log};
use super::*;
use crate::spec::feature::{Event, event};
use crate::spec::identify::{self, IdentifyController, IdentifyNamespace, optional};
use crate::spec::log_page::{ACCESS_GROUPS_ONLY, ASYMMETRIC_ACCESS, AccessLog, AccessState};

/// A world with two groups: namespace 1 in group 1, namespace 2 in group 7.
fn world_with_groups(settings: Settings) -> World {
    let mut world = world_of(settings, Geometry::new(CAPACITY));
    let groups = [(7, AccessState::NonOptimized), (1, AccessState::Optimized)];
    let mut subsystem = Subsystem::new(nqn(SUBSYSTEM), "S1")
        .and_then(|subsystem| subsystem.with_access_groups(&groups))
        .expect("groups");
    for (seed, group) in [(1, 0), (2, 7)] {
        let block_size = if seed == 2 { 4096 } else { 512 };
        let geometry = Geometry { block_size, ..Geometry::new(CAPACITY) };
        let namespace = Namespace::new(geometry, HostId([seed; 16])).expect("good");
        subsystem.add_namespace(namespace.with_access_group(group)).expect("room");
    }
    world.target.remove_subsystem(0).expect("it is there");
    world.target.add_subsystem(subsystem).expect("free");
    world
}

/// The place of the subsystem with groups.
const PLACE: usize = 1;

fn access_log(host: &mut Host, world: &mut World, specific: u8) -> AccessLog {
    let (completion, bytes) = host.ask(world, &log(ASYMMETRIC_ACCESS, specific, 4096), 4096);
    assert_eq!(completion.status, Status::SUCCESS);
    AccessLog::parse(&bytes).expect("a page")
}

#[test]
fn groups_are_described_where_there_are_some_and_nowhere_else() {
    let mut world = world_with_groups(Settings::default());
    let mut host = Host::admin(&mut world, SUBSYSTEM);
    let (_, bytes) = host.ask(&mut world, &admin_command(identify::CONTROLLER, 0), 4096);
    let controller = IdentifyController::parse(&bytes.try_into().expect("4096 bytes"));
    assert_eq!(controller.multi_path, 0b1011);
    assert_eq!(controller.events & optional::EVENT_ASYMMETRIC_ACCESS, 1 << 11);
    assert_eq!((controller.access_transition_time, controller.access_capabilities), (10, 0x5f));
    assert_eq!((controller.access_group_max, controller.access_groups), (128, 128));
    let (_, bytes) = host.ask(&mut world, &admin_command(identify::NAMESPACE, 2), 4096);
    let namespace = IdentifyNamespace::parse(&bytes.try_into().expect("4096 bytes"));
    assert_eq!((namespace.access_group, namespace.used), (7, CAPACITY / 4096));
    let page = access_log(&mut host, &mut world, 0);
    let groups: Vec<_> =
        page.groups.iter().map(|group| (group.id, group.state, &group.namespaces[..])).collect();
    assert_eq!(
        groups,
        [(1, AccessState::Optimized, &[1][..]), (7, AccessState::NonOptimized, &[2][..])]
    );
    let page = access_log(&mut host, &mut world, ACCESS_GROUPS_ONLY);
    assert!(page.groups.iter().all(|group| group.namespaces.is_empty()));

    let mut plain = super::world();
    let mut host = Host::admin(&mut plain, SUBSYSTEM);
    let (completion, _) = host.ask(&mut plain, &log(ASYMMETRIC_ACCESS, 0, 4096), 4096);
    assert!(completion.status.is(Status::INVALID_LOG_PAGE));
    let error = plain.target.set_access_state(0, 1, AccessState::Change).expect_err("no groups");
    assert!(error.to_string().contains("has no access groups"), "{error}");
}

#[test]
fn a_group_that_is_not_accessible_answers_with_its_path_error_and_no_other_group_does() {
    let mut world = world_with_groups(Settings::default());
    let (mut admin, mut io) = Host::pair(&mut world, 16, true);
    listen_for(&mut admin, &mut world, event::ASYMMETRIC_ACCESS, 4);
    for (state, status) in [
        (AccessState::Inaccessible, Status::ANA_INACCESSIBLE),
        (AccessState::PersistentLoss, Status::ANA_PERSISTENT_LOSS),
        (AccessState::Change, Status::ANA_TRANSITION),
        (AccessState::NonOptimized, Status::SUCCESS),
    ] {
        let asked = world.asked.len();
        world.target.set_access_state(PLACE, 1, state).expect("a group");
        assert_eq!(events(&mut admin, &mut world), [Event::ACCESS_CHANGED]);
        let page = access_log(&mut admin, &mut world, 0);
        assert_eq!(
            (page.groups[0].state, page.groups[1].state),
            (state, AccessState::NonOptimized)
        );
        assert_eq!(
            page.groups[0].changes,
            page.changes - 1,
            "one namespace joined the other group"
        );
        assert_eq!(io.read(&mut world, 1, 0, 512).status, status, "{state:?}");
        assert_eq!(io.io(&mut world, 1, NvmCommand::Flush, None).status, status, "{state:?}");
        let write = NvmCommand::Write { start: 0, blocks: 1, force_unit_access: false };
        assert_eq!(io.io(&mut world, 1, write, Some(&[1; 512])).status, status, "{state:?}");
        let reached = if status.is_success() { 3 } else { 0 };
        assert_eq!(world.asked.len(), asked + reached, "{state:?}");
        assert_eq!(io.read(&mut world, 2, 0, 4096).status, Status::SUCCESS);
        let (_, bytes) = admin.ask(&mut world, &admin_command(identify::NAMESPACE, 1), 4096);
        let namespace = IdentifyNamespace::parse(&bytes.try_into().expect("4096 bytes"));
        assert_eq!(namespace.used == 0, !status.is_success(), "{state:?}");
    }
    world.target.set_access_state(PLACE, 1, AccessState::NonOptimized).expect("the same");
    assert!(events(&mut admin, &mut world).is_empty(), "nothing changed");
    for (group, state, expected) in [
        (2, AccessState::Change, "the access group is 2: must be one of the subsystem's, [1, 7]"),
        (1, AccessState::Other(5), "the access state is 0x5"),
    ] {
        let error = world.target.set_access_state(PLACE, group, state).expect_err("wrong");
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[test]
fn a_write_that_waits_for_its_data_does_not_land_after_the_switch() {
    let mut world = world_with_groups(Settings::default());
    let (_admin, mut io) = Host::pair(&mut world, 16, true);
    let command = NvmCommand::Write { start: 0, blocks: 64, force_unit_access: false };
    let id = io.id();
    io.send(&command.encode(id, 1, Descriptor::transport(32768)), None, &world);
    io.pump(&mut world);
    let Some(Heard::ReadyToTransfer(wanted)) = io.heard.pop() else { panic!("{:?}", io.heard) };
    world.target.set_access_state(PLACE, 1, AccessState::Inaccessible).expect("a group");
    let header = DataHeader {
        command: id,
        transfer_tag: wanted.transfer_tag,
        offset: 0,
        length: 32768,
        last: true,
        success: false,
    };
    io.encoder.push_host_data(&header, &buffer(&world.pool, &[7; 32768]));
    io.pump(&mut world);
    assert_eq!(io.completion().expect("an answer").status, Status::ANA_INACCESSIBLE);
    assert!(world.asked.is_empty());
}

#[test]
fn namespaces_that_come_and_go_change_their_group() {
    let mut world = world_with_groups(Settings::default());
    let mut host = Host::admin(&mut world, SUBSYSTEM);
    listen_for(&mut host, &mut world, event::ASYMMETRIC_ACCESS, 4);
    let namespace = |group| {
        let plain = Namespace::new(Geometry::new(CAPACITY), HostId([5; 16])).expect("good");
        plain.with_access_group(group)
    };
    let error = world.target.add_namespace(PLACE, None, namespace(3)).expect_err("no such group");
    assert!(error.to_string().contains("access group is 3: must be one of"), "{error}");
    let key = world.target.add_namespace(PLACE, None, namespace(7)).expect("room");
    assert_eq!(events(&mut host, &mut world), [Event::ACCESS_CHANGED]);
    assert_eq!(access_log(&mut host, &mut world, 0).groups[1].namespaces, [2, 3]);
    world.target.remove_namespace(key).expect("there");
    assert_eq!(events(&mut host, &mut world), [Event::ACCESS_CHANGED]);
    assert_eq!(access_log(&mut host, &mut world, 0).groups[1].namespaces, [2]);
}

#[test]
fn two_processes_that_serve_one_subsystem_have_controllers_with_different_ids() {
    let second = Settings { controller_id_first: 1000, controllers_max: 2, ..Settings::default() };
    let mut world = world_with_groups(second);
    let first = Host::admin(&mut world, SUBSYSTEM);
    let (admin, mut io) = Host::pair(&mut world, 16, true);
    assert_eq!((first.controller_id, admin.controller_id), (1000, 1001));
    assert_eq!(io.read(&mut world, 1, 0, 512).status, Status::SUCCESS);
    let mut late = Host::initialized(&mut world, Digests::default(), 0);
    let refused = late.connect(&mut world, &connect(0, 31), SUBSYSTEM, CONTROLLER_ID_DYNAMIC);
    assert!(refused.status.is(Status::CONNECT_CONTROLLER_BUSY));
    for (controller_id_first, controllers_max) in [(0, 1), (0xffee, 3), (0xfff0, 1)] {
        let settings = Settings { controller_id_first, controllers_max, ..Settings::default() };
        assert!(Target::new(settings).is_err(), "{controller_id_first} {controllers_max}");
    }
}
