//! What strangers may take: connections, queues, memory, time.

use super::*;
use crate::error::ConnectionError;
use crate::spec::nqn::DISCOVERY_NQN;

#[test]
fn of_connections_that_say_nothing_the_oldest_go_first_and_queues_stay() {
    let settings = Settings { unconnected_max: 3, ..Settings::default() };
    let mut world = world_of(settings, Geometry::new(CAPACITY));
    let (mut admin, mut io) = Host::pair(&mut world, 16, true);
    assert_eq!(world.target.unconnected(), 0);
    let mut strangers: Vec<Host> = (0..20).map(|_| Host::silent(&world)).collect();
    for stranger in &mut strangers {
        stranger.pump(&mut world);
        assert!(world.target.unconnected() <= 3);
    }
    for (number, stranger) in strangers.iter_mut().enumerate() {
        stranger.pump(&mut world);
        assert_eq!(stranger.connection.is_finished(), number < 17, "{number}");
    }
    let error = strangers[0].connection.error().map(ToString::to_string).expect("an end");
    assert!(error.contains("more than 3 connections that are no queue"), "{error}");
    assert_eq!(io.read(&mut world, 1, 0, 512).status, Status::SUCCESS);
    admin.pump(&mut world);
    for stranger in &mut strangers {
        stranger.connection.disconnect(&mut world.target, ConnectionError::Closed);
    }
    assert_eq!(world.target.unconnected(), 0);
    // One that becomes a queue is none of them any more, one that breaks the protocol is again.
    let mut host = Host::admin(&mut world, SUBSYSTEM);
    assert_eq!((world.target.unconnected(), world.target.queues_in_use()), (0, 3));
    feed(&mut host.connection, &mut world, &[0xff; 8]);
    assert!(host.connection.error().is_some() && !host.connection.is_finished());
    assert_eq!((world.target.unconnected(), world.target.queues_in_use()), (1, 2));
    world.pass(Duration::from_secs(60));
    host.connection.poll(&mut world.target, world.now);
    assert_eq!((host.connection.is_finished(), world.target.unconnected()), (true, 0));
}

#[test]
fn queues_are_limited_altogether_and_of_each_host() {
    let settings = Settings { queues_max: 3, queues_per_host_max: 2, ..Settings::default() };
    let mut world = world_of(settings, Geometry::new(CAPACITY));
    let (admin, mut io) = Host::pair(&mut world, 16, true);
    let mut third = Host::initialized(&mut world, Digests::default(), 0);
    let refused = third.connect(&mut world, &connect(2, 15), SUBSYSTEM, admin.controller_id);
    assert_eq!(refused.status, Status::CONNECT_CONTROLLER_BUSY, "of one host");
    let of_other = |name: &str| ConnectData {
        host_id: HostId([9; 16]),
        controller_id: CONTROLLER_ID_DYNAMIC,
        subsystem: nqn(SUBSYSTEM),
        host: nqn(name),
    };
    let data = of_other("nqn.2014-08.com.example:other").encode();
    let taken = third.connect_with(&mut world, &connect(0, 31), &data);
    assert_eq!(taken.status, Status::SUCCESS);
    let mut fourth = Host::initialized(&mut world, Digests::default(), 0);
    let data = of_other("nqn.2014-08.com.example:another").encode();
    let refused = fourth.connect_with(&mut world, &connect(0, 31), &data);
    assert_eq!(refused.status, Status::CONNECT_CONTROLLER_BUSY, "altogether");
    io.connection.disconnect(&mut world.target, ConnectionError::Closed);
    let taken = fourth.connect_with(&mut world, &connect(0, 31), &data);
    assert_eq!(taken.status, Status::SUCCESS, "there is room again");
}

fn read_of(host: &mut Host, world: &World, length: u32) {
    let command = NvmCommand::Read { start: 0, blocks: length / 512, force_unit_access: false };
    let entry = command.encode(host.id(), 1, Descriptor::transport(length));
    host.send(&entry, None, world);
}

#[test]
fn memory_is_shared_and_who_waits_goes_on_when_another_gives_some_back() {
    const MEBIBYTE: u32 = 1 << 20;
    let settings = Settings { memory_max: MEBIBYTE as usize, ..Settings::default() };
    let mut world = world_of(settings, Geometry::new(CAPACITY));
    let (_first_admin, mut first) = Host::pair(&mut world, 16, true);
    let (_second_admin, mut second) = Host::pair(&mut world, 16, true);
    world.is_slow = true;
    read_of(&mut first, &world, MEBIBYTE);
    first.pump(&mut world);
    read_of(&mut second, &world, 512);
    second.pump(&mut world);
    assert_eq!(world.held.len(), 1, "the second waits");
    assert_eq!(world.target.memory_in_use(), MEBIBYTE as usize);
    let submission = world.held.pop().expect("the first's");
    world.serve(&mut first.connection, submission);
    // The host of the first reads nothing yet: what it is sent is memory all the same.
    first.connection.poll(&mut world.target, world.now);
    second.pump(&mut world);
    assert!(world.held.is_empty(), "the second still waits");
    first.listen(&world);
    assert!(
        first.connection.poll(&mut world.target, world.now),
        "whoever drives it is told that another one may go on"
    );
    second.pump(&mut world);
    second.release(&mut world);
    assert_eq!(second.completion().expect("an answer").status, Status::SUCCESS);
    second.pump(&mut world);
    first.pump(&mut world);
    assert_eq!(world.target.memory_in_use(), 0);
    for memory_max in [0, MEBIBYTE as usize - 1] {
        let error = Target::new(Settings { memory_max, ..settings }).expect_err("too little");
        assert!(error.to_string().contains("memory_max is"), "{error}");
    }
    assert!(settings.memory_bound() > settings.memory_max);
}

#[test]
fn memory_of_a_host_that_is_gone_is_given_back() {
    let mut world = world();
    let (_admin, mut io) = Host::pair(&mut world, 16, true);
    world.is_slow = true;
    read_of(&mut io, &world, 4096);
    io.pump(&mut world);
    assert_eq!(world.target.memory_in_use(), 4096);
    io.connection.disconnect(&mut world.target, ConnectionError::Closed);
    assert_eq!((world.target.memory_in_use(), world.target.queues_in_use()), (0, 1));
}

#[test]
fn a_host_that_neither_sends_what_it_was_asked_for_nor_reads_is_let_go() {
    let settings = Settings { stall_timeout: Duration::from_secs(2), ..Settings::default() };
    let mut world = world_of(settings, Geometry::new(CAPACITY));
    let (mut admin, mut sends_not) = Host::pair(&mut world, 16, true);
    let command = NvmCommand::Write { start: 0, blocks: 64, force_unit_access: false };
    let entry = command.encode(sends_not.id(), 1, Descriptor::transport(32768));
    sends_not.send(&entry, None, &world);
    sends_not.pump(&mut world);
    let mut reads_not = Host::initialized(&mut world, Digests::default(), 0);
    let taken = reads_not.connect(&mut world, &connect(2, 15), SUBSYSTEM, admin.controller_id);
    assert_eq!(taken.status, Status::SUCCESS);
    let mut idle = Host::initialized(&mut world, Digests::default(), 0);
    let taken = idle.connect(&mut world, &connect(3, 15), SUBSYSTEM, admin.controller_id);
    assert_eq!(taken.status, Status::SUCCESS);
    read_of(&mut reads_not, &world, 4096);
    transfer(&mut reads_not.encoder, &mut reads_not.connection);
    reads_not.connection.poll(&mut world.target, world.now);
    let submission = reads_not.connection.next_submission().expect("the read");
    world.serve(&mut reads_not.connection, submission);
    reads_not.connection.poll(&mut world.target, world.now);
    assert!(reads_not.connection.queued_bytes() > 4096);
    // A byte now and then is life enough.
    world.pass(Duration::from_millis(1500));
    reads_not.connection.transmitted(1);
    for host in [&mut sends_not, &mut reads_not, &mut idle] {
        host.connection.poll(&mut world.target, world.now);
        assert!(!host.connection.is_finished());
    }
    world.pass(Duration::from_millis(500));
    for (host, is_over) in [(&mut sends_not, true), (&mut reads_not, false), (&mut idle, false)] {
        host.connection.poll(&mut world.target, world.now);
        assert_eq!(host.connection.is_finished(), is_over);
    }
    let error = sends_not.connection.error().map(ToString::to_string).expect("an end");
    assert!(error.contains("of which no byte moved"), "{error}");
    world.pass(Duration::from_millis(1500));
    for (host, is_over) in [(&mut reads_not, true), (&mut idle, false), (&mut admin, false)] {
        host.connection.poll(&mut world.target, world.now);
        assert_eq!(host.connection.is_finished(), is_over);
    }
    assert_eq!(world.target.memory_in_use(), 0);
}

#[test]
fn a_discovery_controller_without_a_time_is_given_one() {
    let mut world = world();
    let mut command = connect(0, 31);
    if let FabricsCommand::Connect { keep_alive_ms, .. } = &mut command {
        *keep_alive_ms = 0;
    }
    let mut hosts: Vec<Host> =
        (0..2).map(|_| Host::initialized(&mut world, Digests::default(), 0)).collect();
    for (host, subsystem) in hosts.iter_mut().zip([DISCOVERY_NQN, SUBSYSTEM]) {
        let taken = host.connect(&mut world, &command, subsystem, CONTROLLER_ID_DYNAMIC);
        assert_eq!(taken.status, Status::SUCCESS);
    }
    world.pass(Duration::from_secs(120));
    for host in &mut hosts {
        host.connection.poll(&mut world.target, world.now);
    }
    assert!(hosts[0].connection.is_finished());
    assert!(!hosts[1].connection.is_finished(), "the host wants no keep alive");
}
