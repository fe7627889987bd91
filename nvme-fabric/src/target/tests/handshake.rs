//! ICReq, Connect, and what is refused there.

use super::*;
use crate::spec::connect::{DATA_LENGTH, InvalidParameter};

fn refused(completion: &Completion, offset: u16, in_data: bool) {
    assert!(completion.status.is(Status::CONNECT_INVALID_PARAMETERS), "{completion:?}");
    assert!(completion.status.forbids_retry());
    let parameter = InvalidParameter::parse(completion.dword_0());
    assert_eq!(parameter, InvalidParameter { offset, in_data });
}

#[test]
fn a_controller_comes_up_and_goes_with_its_admin_connection() {
    let mut world = world();
    let (mut admin, mut io) = Host::pair(&mut world, 16, true);
    assert_eq!((admin.connection.queue_id(), io.connection.queue_id()), (Some(0), Some(1)));
    assert_eq!(world.target.controllers_in_use(), 1);
    assert_eq!(io.read(&mut world, 1, 0, 4096).status, Status::SUCCESS);
    admin.connection.disconnect(&mut world.target, crate::error::ConnectionError::Closed);
    assert!(admin.connection.is_finished());
    assert_eq!(world.target.controllers_in_use(), 0);
    io.pump(&mut world);
    assert!(io.connection.is_finished(), "an I/O queue does not outlive its controller");
}

#[test]
fn connect_names_the_parameter_that_is_wrong() {
    let mut world = world();
    let mut host = Host::initialized(&mut world, Digests::default(), 0);
    let dynamic = CONTROLLER_ID_DYNAMIC;
    refused(&host.connect(&mut world, &connect(0, 0), SUBSYSTEM, dynamic), 44, false);
    refused(&host.connect(&mut world, &connect(0, 128), SUBSYSTEM, dynamic), 44, false);
    refused(&host.connect(&mut world, &connect(0, 31), SUBSYSTEM, 1), 16, true);
    refused(&host.connect(&mut world, &connect(0, 31), "nqn.2024-01.io.x:y", dynamic), 256, true);
    refused(&host.connect(&mut world, &connect(1, 31), SUBSYSTEM, 1), 16, true);
    refused(&host.connect(&mut world, &connect(1, 31), SUBSYSTEM, 0), 16, true);
    refused(&host.connect_with(&mut world, &connect(0, 31), &[0; DATA_LENGTH]), 256, true);
    let mut wrong = connect(0, 31);
    if let FabricsCommand::Connect { record_format, .. } = &mut wrong {
        *record_format = 1;
    }
    let completion = host.connect(&mut world, &wrong, SUBSYSTEM, dynamic);
    assert!(completion.status.is(Status::CONNECT_INCOMPATIBLE_FORMAT));
    let completion = host.connect_with(&mut world, &connect(0, 31), &[0; 1020]);
    assert!(completion.status.is(Status::DATA_SGL_LENGTH_INVALID));
    let bare = connect(0, 31).encode(77, Descriptor::transport(1024));
    assert!(host.call(&mut world, &bare, None).status.is(Status::SGL_TYPE_INVALID));
    assert_eq!(world.target.controllers_in_use(), 0, "nothing is left of what was refused");
    let completion = host.connect(&mut world, &connect(0, 127), SUBSYSTEM, dynamic);
    assert_eq!(completion.status, Status::SUCCESS, "and it may be tried again");
}

#[test]
fn an_io_queue_is_its_hosts_and_once() {
    let mut world = world();
    let (mut admin, _io) = Host::pair(&mut world, 16, true);
    let id = admin.controller_id;
    let mut io = Host::initialized(&mut world, Digests::default(), 0);
    let completion = io.connect(&mut world, &connect(1, 15), SUBSYSTEM, id);
    assert!(completion.status.is(Status::COMMAND_SEQUENCE_ERROR), "QID 1 is taken");
    refused(&io.connect(&mut world, &connect(65, 15), SUBSYSTEM, id), 42, false);
    let data = |host: &str, host_id| {
        ConnectData {
            host_id: HostId([host_id; 16]),
            controller_id: id,
            subsystem: nqn(SUBSYSTEM),
            host: nqn(host),
        }
        .encode()
    };
    let other = data("nqn.2014-08.com.example:other", 9);
    refused(&io.connect_with(&mut world, &connect(2, 15), &other), 512, true);
    refused(&io.connect_with(&mut world, &connect(2, 15), &data(HOST, 8)), 0, true);
    admin.configure(&mut world, Configuration { enable: false, ..Configuration::ENABLED });
    let completion = io.connect(&mut world, &connect(2, 15), SUBSYSTEM, id);
    assert!(completion.status.is(Status::COMMAND_SEQUENCE_ERROR), "the controller is disabled");
}

#[test]
fn nothing_comes_before_connect() {
    let mut world = world();
    let mut host = Host::initialized(&mut world, Digests::default(), 0);
    for entry in [
        AdminCommand::KeepAlive.encode(1, Descriptor::NONE),
        FabricsCommand::PropertyGet { size: 1, offset: 0 }.encode(2, Descriptor::NONE),
        NvmCommand::Flush.encode(3, 1, Descriptor::NONE),
    ] {
        let completion = host.call(&mut world, &entry, None);
        assert!(completion.status.is(Status::COMMAND_SEQUENCE_ERROR));
    }
}

#[test]
fn nothing_but_fabrics_commands_comes_before_the_controller_is_enabled() {
    let mut world = world();
    let mut host = Host::initialized(&mut world, Digests::default(), 0);
    host.connect(&mut world, &connect(0, 31), SUBSYSTEM, CONTROLLER_ID_DYNAMIC);
    let (completion, _) = host.ask(&mut world, &AdminCommand::KeepAlive, 0);
    assert!(completion.status.is(Status::COMMAND_SEQUENCE_ERROR));
    host.configure(&mut world, Configuration::ENABLED);
    let (completion, _) = host.ask(&mut world, &AdminCommand::KeepAlive, 0);
    assert_eq!(completion.status, Status::SUCCESS);
    let again = host.connect(&mut world, &connect(0, 31), SUBSYSTEM, CONTROLLER_ID_DYNAMIC);
    assert!(again.status.is(Status::COMMAND_SEQUENCE_ERROR), "one Connect a connection");
}

#[test]
fn who_says_nothing_is_not_waited_for() {
    let mut world = world();
    let timeout = world.target.settings().handshake_timeout;
    let mut silent = Host::silent(&world);
    let mut halfway = Host::initialized(&mut world, Digests::default(), 0);
    assert_eq!(silent.connection.deadline(), Some(world.now + timeout));
    world.pass(timeout);
    for host in [&mut silent, &mut halfway] {
        host.pump(&mut world);
        assert!(host.connection.is_finished());
        let reason = host.connection.error().expect("a reason").to_string();
        assert!(reason.contains("within 10s"), "{reason}");
    }
}

#[test]
fn a_host_that_is_not_heard_loses_its_association() {
    let mut world = world();
    let (mut admin, mut io) = Host::pair(&mut world, 16, true);
    // Any queue's traffic counts.
    for _ in 0..5 {
        world.pass(Duration::from_secs(4));
        assert_eq!(io.read(&mut world, 1, 0, 512).status, Status::SUCCESS);
        admin.pump(&mut world);
        assert!(!admin.connection.is_finished());
    }
    assert_eq!(admin.connection.deadline(), Some(world.now + Duration::from_secs(5)));
    world.pass(Duration::from_secs(5));
    admin.pump(&mut world);
    assert!(admin.connection.is_finished());
    io.pump(&mut world);
    assert!(io.connection.is_finished());
    assert_eq!(world.target.controllers_in_use(), 0);
}

#[test]
fn controllers_are_bounded_and_their_ids_used_again() {
    let settings = Settings { controllers_max: 2, ..Settings::default() };
    let mut world = world_of(settings, Geometry::new(CAPACITY));
    let mut first = Host::admin(&mut world, SUBSYSTEM);
    let second = Host::admin(&mut world, SUBSYSTEM);
    assert_eq!((first.controller_id, second.controller_id), (1, 2));
    let mut third = Host::initialized(&mut world, Digests::default(), 0);
    let busy = third.connect(&mut world, &connect(0, 31), SUBSYSTEM, CONTROLLER_ID_DYNAMIC);
    assert_eq!(busy.status, Status::CONNECT_CONTROLLER_BUSY);
    first.connection.disconnect(&mut world.target, crate::error::ConnectionError::Closed);
    assert_eq!(Host::admin(&mut world, SUBSYSTEM).controller_id, 1);
}

#[test]
fn a_reset_ends_io_queues_and_parked_requests() {
    let mut world = world();
    let (mut admin, mut io) = Host::pair(&mut world, 16, true);
    let entry = AdminCommand::AsynchronousEventRequest.encode(50, Descriptor::NONE);
    admin.send(&entry, None, &world);
    admin.pump(&mut world);
    assert_eq!(admin.completion(), None, "parked");
    admin.configure(&mut world, Configuration { enable: false, ..Configuration::ENABLED });
    admin.pump(&mut world);
    let aborted = admin.completion().expect("the parked request is answered");
    assert_eq!((aborted.command_id, aborted.status), (50, Status::ABORT_REQUESTED));
    io.pump(&mut world);
    assert!(io.connection.is_finished());
    admin.configure(&mut world, Configuration::ENABLED);
    let mut again = Host::initialized(&mut world, Digests::default(), 0);
    let completion = again.connect(&mut world, &connect(1, 15), SUBSYSTEM, admin.controller_id);
    assert_eq!(completion.status, Status::SUCCESS);
    assert_eq!(again.read(&mut world, 1, 0, 512).status, Status::SUCCESS);
}
