//! The kernel's host and targets of ours that are changed while it is connected: sizes, access
//! groups (ANA) of several targets, reservations.

use block_io::reactor::{Reactor, Wait};
use block_io::{BlockDevice, BlockQueue, Completion, Request, RequestId};
use forebay_tests::program::Program;
use forebay_vm::case::{KERNEL_HOST, KERNEL_TARGET, NVME_CLI};
use forebay_vm::scene::kernel_host::Connection;
use forebay_vm::scene::load::{self, Load};
use forebay_vm::scene::managed_target::ManagedTarget;
use forebay_vm::scene::nvmet::KernelTarget;
use forebay_vm::scene::our_target::{OurTarget, SUBSYSTEM, file};
use forebay_vm::scene::{eventually, free_port, our_host};
use forebay_vm::{Case, Need};

/// The kernel's host above several targets.
const MULTIPATH: Need = Need::Kernel("NVME_MULTIPATH");
/// The subsystem with the disk that several targets of ours share.
const SHARED: &str = "nqn.2014-08.com.example:shared";
/// Bytes of a namespace.
const SIZE: u64 = 16 << 20;

pub(crate) const CASES: &[Case] = &[
    Case::new("managed::kernel_host_sees_a_namespace_grow", grows)
        .needs(&[KERNEL_HOST, Need::Forebay]),
    Case::new("managed::kernel_host_follows_access_from_target_to_target", fails_over)
        .quick()
        .needs(&[KERNEL_HOST, KERNEL_TARGET, MULTIPATH, Need::Forebay]),
    Case::new("managed::kernel_host_sees_namespaces_come_and_go_under_load", come_and_go)
        .needs(&[KERNEL_HOST, Need::Forebay]),
    Case::new("managed::kernel_host_comes_back_with_the_queues_that_there_are", fewer_queues)
        .needs(&[KERNEL_HOST, Need::Forebay]),
    Case::new("managed::kernel_host_reserves_a_namespace", reserves).needs(&[
        KERNEL_HOST,
        NVME_CLI,
        Need::Forebay,
    ]),
];

/// The target tells of the change by an event; nobody asks the kernel to look.
fn grows() {
    let target = ManagedTarget::start(0, "");
    target.tell(&["create", "disk", "--size", "16M", "--subsystem", SUBSYSTEM]);
    let connection = Connection::open(SUBSYSTEM, target.port(), &[]);
    let namespace = connection.namespace(1);
    assert_eq!(namespace.capacity(), SIZE);
    target.tell(&["resize", "disk", "32M"]);
    eventually("the namespace has grown", || (namespace.capacity() == 2 * SIZE).then_some(()));
    let reactor = load::reactor();
    let mut queue = load::block_device(&reactor, &namespace.path());
    let mut load = Load::new(1, 2 * SIZE);
    assert_eq!(load.run(&reactor, &mut queue, 100), 0);
    assert_eq!(load.read_back(&reactor, &mut queue), 0);
    drop(queue);
    // One that is made is there by itself too.
    target.tell(&["create", "other", "--size", "8M", "--subsystem", SUBSYSTEM]);
    assert_eq!(connection.namespace(2).capacity(), SIZE / 2);
    connection.close();
    assert!(target.stop().success());
}

/// Namespaces are made and deleted again and again, beside one that is under load all the time.
fn come_and_go() {
    let target = ManagedTarget::start(0, "");
    target.tell(&["create", "stays", "--size", "16M", "--subsystem", SUBSYSTEM]);
    let connection = Connection::open(SUBSYSTEM, target.port(), &["nr_io_queues=2"]);
    let stays = connection.namespace(1);
    let reactor = load::reactor();
    let mut queue = load::block_device(&reactor, &stays.path());
    let mut load = Load::new(3, SIZE);
    for round in 0..10 {
        let names = [format!("one-{round}"), format!("two-{round}")];
        for name in &names {
            target.tell(&["create", name, "--size", "8M", "--subsystem", SUBSYSTEM]);
        }
        let ids = [2 + 2 * round, 3 + 2 * round];
        for id in ids {
            assert_eq!(connection.namespace(id).capacity(), SIZE / 2);
        }
        assert_eq!(load.run(&reactor, &mut queue, 30), 0);
        for name in &names {
            target.tell(&["delete", name]);
        }
        assert_eq!(load.run(&reactor, &mut queue, 30), 0);
        let is_left = |id: u32| connection.namespaces().iter().any(|namespace| namespace.id == id);
        eventually("they are gone", || ids.iter().all(|id| !is_left(*id)).then_some(()));
    }
    assert_eq!(load.read_back(&reactor, &mut queue), 0);
    drop(queue);
    connection.close();
    assert!(target.stop().success());
}

/// The target comes back with fewer I/O queues than it had, and then with more. (With queues for
/// writes Linux 6.12 and 7.2 fall here, in blk_mq_map_swqueue.)
fn fewer_queues() {
    let mut target = ManagedTarget::start(0, "");
    target.tell(&["create", "disk", "--size", "16M", "--subsystem", SUBSYSTEM]);
    let options = ["reconnect_delay=1", "ctrl_loss_tmo=100"];
    let path = target.folder().join("target.toml");
    let usual = std::fs::read_to_string(&path).expect("it is there");
    let connection = Connection::open(SUBSYSTEM, target.port(), &options);
    // The admin queue and one for each of the machine's processors.
    let queue_count = || connection.attribute("queue_count").and_then(|count| count.parse().ok());
    let most: u32 = queue_count().expect("a number");
    let namespace = connection.namespace(1);
    let reactor = load::reactor();
    let mut queue = load::block_device(&reactor, &namespace.path());
    let mut load = Load::new(4, SIZE);
    for io_queues in [1, 2, 1] {
        target.kill();
        connection.wait_for_state("connecting");
        let limited = format!("{usual}\n[limits]\nio-queues = {io_queues}\n");
        std::fs::write(&path, limited).expect("room");
        target.start_again();
        connection.wait_for_state("live");
        assert_eq!(queue_count(), Some(most.min(io_queues + 1)));
        assert_eq!(load.run(&reactor, &mut queue, 60), 0);
    }
    assert_eq!(load.read_back(&reactor, &mut queue), 0);
    drop(queue);
    connection.close();
    assert!(target.stop().success());
}

/// Two targets serve one subsystem, whose only namespace is a disk of the kernel's target. Hosts
/// are sent from one to the other, and the one that is not used is killed, all under load.
fn fails_over() {
    let path = file("disk", SIZE);
    let mut disk = KernelTarget::new(SHARED, free_port());
    disk.add_namespace(1, &path);
    disk.listen();
    let subsystem = |access: &str| {
        format!(
            "access = {{ 1 = '{access}' }}\n[[subsystem.namespace]]\n\
             device = 'nvme+tcp://127.0.0.1:{}/{SHARED}?nsid=1'\nnsid = 1\ngroup = 1\n\
             uuid = '0b0f3c44-9d0e-4d67-9b54-6f1f2c8c4a11'\n",
            disk.port()
        )
    };
    let mut targets = [
        ManagedTarget::start(0, &subsystem("optimized")),
        ManagedTarget::start(1, &subsystem("inaccessible")),
    ];
    let options = ["reconnect_delay=1", "ctrl_loss_tmo=100", "nr_io_queues=2"];
    let connections =
        targets.each_ref().map(|target| Connection::open(SUBSYSTEM, target.port(), &options));
    let namespace = connections[0].namespace(1);
    assert_eq!(
        connections[1].namespaces(),
        std::slice::from_ref(&namespace),
        "there is one, with two paths"
    );
    let reactor = load::reactor();
    let mut queue = load::block_device(&reactor, &namespace.path());
    let mut load = Load::new(2, SIZE);
    for used in [0, 1] {
        let other = 1 - used;
        let failed = load.run_with(&reactor, &mut queue, 300, |number| {
            if number == 100 {
                targets[used].tell(&["ana", SUBSYSTEM, "1", "inaccessible"]);
                targets[other].tell(&["ana", SUBSYSTEM, "1", "optimized"]);
            }
        });
        assert_eq!(failed, 0);
        targets[used].kill();
        connections[used].wait_for_state("connecting");
        assert_eq!(load.run(&reactor, &mut queue, 100), 0);
        targets[used].start_again();
        connections[used].wait_for_state("live");
    }
    assert_eq!(load.read_back(&reactor, &mut queue), 0);
    drop(queue);
    connections.into_iter().for_each(Connection::close);
    for target in targets {
        assert!(target.stop().success());
    }
    drop(disk);
    std::fs::remove_file(path).expect("it was there");
}

fn result(reactor: &Reactor, queue: &mut impl BlockQueue, request: Request) -> Completion {
    queue.submit(request).expect("room");
    let mut completions = Vec::new();
    loop {
        let progress = queue.poll(reactor.now(), &mut completions);
        if let Some(completion) = completions.pop() {
            return completion;
        }
        reactor.turn(if progress { Wait::No } else { Wait::ForEvent }).expect("turns");
    }
}

/// The kernel's host takes a reservation (write exclusive); our host, another one, may read and
/// not write until it is released.
fn reserves() {
    let target = OurTarget::start(&["memory:16MiB"]);
    let connection = Connection::open(SUBSYSTEM, target.port(), &[]);
    let device = connection.namespace(1).path().display().to_string();
    let reactor = load::reactor();
    let ours = our_host::connect(&reactor, &our_host::options(SUBSYSTEM, target.port()));
    let ours = ours.expect("connects");
    let mut queue = ours.open_queue(&reactor, 8).expect("a queue");
    let mut id = 0;
    let mut write = |queue: &mut _| {
        id += 1;
        let buffer = reactor.pool().allocate(4096);
        result(&reactor, queue, Request::write(RequestId(id), 0, buffer)).result
    };
    let nvme = Program::find("nvme", "nvme-cli").expect("the case needs it");
    assert!(write(&mut queue).is_ok(), "nothing is reserved");
    nvme.run(&["resv-register", &device, "--nrkey=0xabcd", "--rrega=0"]);
    assert!(write(&mut queue).is_ok(), "a registration keeps nobody out");
    nvme.run(&["resv-acquire", &device, "--crkey=0xabcd", "--rtype=1", "--racqa=0"]);
    let refused = write(&mut queue);
    assert!(refused.is_err(), "it is reserved");
    let buffer = reactor.pool().allocate(4096);
    let read = result(&reactor, &mut queue, Request::read(RequestId(1 << 40), 0, buffer));
    assert!(read.result.is_ok(), "{:?}", read.result);
    let report = nvme.run(&["resv-report", &device, "--eds", "--output-format=json"]);
    let report: serde_json::Value = serde_json::from_str(&report).expect("a report");
    assert_eq!(report["rtype"], 1, "{report:#}");
    nvme.run(&["resv-release", &device, "--crkey=0xabcd", "--rtype=1", "--rrela=0"]);
    assert!(write(&mut queue).is_ok(), "it is released");
    drop(queue);
    ours.shut_down(&reactor).expect("shuts down");
    connection.close();
    assert!(target.stop().success());
}
