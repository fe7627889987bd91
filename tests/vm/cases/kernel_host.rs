//! The kernel's host and `forebay target`.

use std::path::Path;

use forebay_tests::program::Program;
use forebay_vm::case::{FIO, KERNEL_HOST, NVME_CLI};
use forebay_vm::scene::file_system::{self, EXT4, EXT4_NEEDS, XFS, XFS_NEEDS};
use forebay_vm::scene::kernel_host::{Connection, HOST_ID, HOST_NQN, Namespace};
use forebay_vm::scene::kernel_log;
use forebay_vm::scene::load::{self, Load};
use forebay_vm::scene::our_target::{OurTarget, SUBSYSTEM, file};
use forebay_vm::{Case, Need};

/// Both ends.
const NEEDS: &[Need] = &[KERNEL_HOST, Need::Forebay];

pub(crate) const CASES: &[Case] = &[
    Case::new("kernel_host::discovers_our_subsystem", discovers).needs(&[
        KERNEL_HOST,
        Need::Forebay,
        NVME_CLI,
    ]),
    Case::new("kernel_host::identifies_our_controller_and_namespaces", identifies).needs(&[
        KERNEL_HOST,
        Need::Forebay,
        NVME_CLI,
    ]),
    Case::new("kernel_host::reads_what_it_wrote", reads_what_it_wrote).quick().needs(NEEDS),
    Case::new("kernel_host::reads_what_it_wrote_with_digests", digests).needs(NEEDS),
    Case::new("kernel_host::fio_verifies_with_digests", fio).needs(&[
        KERNEL_HOST,
        Need::Forebay,
        FIO,
    ]),
    Case::new("kernel_host::has_ext4_on_our_namespace", ext4).quick().needs(&[
        KERNEL_HOST,
        Need::Forebay,
        EXT4_NEEDS[0],
        EXT4_NEEDS[1],
        EXT4_NEEDS[2],
    ]),
    Case::new("kernel_host::has_xfs_on_our_namespace", xfs).needs(&[
        KERNEL_HOST,
        Need::Forebay,
        XFS_NEEDS[0],
        XFS_NEEDS[1],
        XFS_NEEDS[2],
    ]),
    Case::new("kernel_host::connects_again_and_again", connects_again).needs(NEEDS),
    Case::new("kernel_host::reconnects_to_a_target_that_was_killed", reconnects)
        .quick()
        .needs(NEEDS),
    Case::new("kernel_host::gives_up_a_target_that_stays_away", gives_up).needs(NEEDS),
    Case::new("kernel_host::is_refused_an_unknown_subsystem", refused).needs(NEEDS),
    Case::new("kernel_host::resets_its_controller_under_load", resets).needs(NEEDS),
    Case::new("kernel_host::stays_connected_to_our_discovery_service", discovery).needs(NEEDS),
    Case::new("kernel_host::has_queues_of_every_kind", queue_kinds).needs(NEEDS),
];

/// A target with one namespace of so many MiB over a file, and the kernel connected to it.
fn connected(mebibytes: u64, options: &[&str]) -> (OurTarget, Connection, Namespace) {
    let path = file("disk", mebibytes << 20);
    let target = OurTarget::start(&[&format!("file:{}", path.display())]);
    let connection = Connection::open(SUBSYSTEM, target.port(), options);
    let namespace = connection.namespace(1);
    assert_eq!(namespace.capacity(), mebibytes << 20);
    (target, connection, namespace)
}

/// Ends what [`connected`] began, and takes the file away.
fn finish(target: OurTarget, connection: Connection) {
    connection.close();
    let status = target.stop();
    assert!(status.success(), "forebay target: {status}");
    std::fs::remove_file("/tmp/disk").expect("it was there");
}

fn nvme(arguments: &[&str]) -> serde_json::Value {
    let nvme = Program::find("nvme", "nvme-cli").expect("the case needs it");
    let said = nvme.run(&[arguments, &["--output-format=json"]].concat());
    let json = said.find('{').map_or("", |start| &said[start..]);
    serde_json::from_str(json).unwrap_or_else(|error| panic!("{error} in {said}"))
}

fn discovers() {
    let target = OurTarget::start(&["memory:16MiB"]);
    let port = target.discovery_port().to_string();
    let log = nvme(&[
        "discover",
        "--transport=tcp",
        "--traddr=127.0.0.1",
        &format!("--trsvcid={port}"),
        &format!("--hostnqn={HOST_NQN}"),
        &format!("--hostid={HOST_ID}"),
    ]);
    let records = log["records"].as_array().expect("records");
    assert_eq!(records.len(), 2, "{log:#}");
    let ours = records.iter().find(|record| record["subnqn"] == SUBSYSTEM).expect("it is listed");
    assert_eq!(ours["trtype"], "tcp");
    assert_eq!(ours["traddr"], "127.0.0.1");
    assert_eq!(ours["trsvcid"], target.port().to_string().as_str());
    assert_eq!(ours["subtype"], "nvme subsystem");
    assert!(target.stop().success());
}

fn identifies() {
    let target = OurTarget::start(&["memory:16MiB", "memory:48MiB"]);
    let connection = Connection::open(SUBSYSTEM, target.port(), &[]);
    connection.namespace(1);
    let second = connection.namespace(2);
    assert_eq!(second.capacity(), 48 << 20);
    assert_eq!(connection.namespaces().len(), 2);
    let device = connection.device().display().to_string();
    let controller = nvme(&["id-ctrl", &device]);
    assert_eq!(controller["subnqn"], SUBSYSTEM);
    assert_eq!(controller["mn"].as_str().map(str::trim), Some("Forebay"));
    assert_eq!(controller["cntrltype"], 1);
    let namespace = nvme(&["id-ns", &second.path().display().to_string()]);
    assert_eq!(namespace["nsze"], (48 << 20) / 512);
    // What identifies a namespace to the kernel is an identifier that is one.
    let uuid = second.attribute("uuid").expect("a UUID");
    assert!(uuid.len() == 36 && uuid != "00000000-0000-0000-0000-000000000000", "{uuid}");
    connection.close();
    assert!(target.stop().success());
}

/// A verified load on the kernel's device.
pub(crate) fn verify(namespace: &Namespace, seed: u64, count: u64) {
    let reactor = load::reactor();
    let mut queue = load::block_device(&reactor, &namespace.path());
    let mut load = Load::new(seed, namespace.capacity());
    assert_eq!(load.run(&reactor, &mut queue, count), 0);
    assert_eq!(load.read_back(&reactor, &mut queue), 0);
}

fn reads_what_it_wrote() {
    let (target, connection, namespace) = connected(16, &[]);
    verify(&namespace, 1, 700);
    finish(target, connection);
}

fn digests() {
    for (seed, options) in
        [&["hdr_digest"][..], &["data_digest"], &["hdr_digest", "data_digest", "nr_io_queues=1"]]
            .into_iter()
            .enumerate()
    {
        let (target, connection, namespace) = connected(16, options);
        verify(&namespace, 10 + seed as u64, 250);
        finish(target, connection);
    }
}

fn fio() {
    let (target, connection, namespace) = connected(32, &["hdr_digest", "data_digest"]);
    fio_verifies(&namespace);
    finish(target, connection);
}

/// A load of fio's on the kernel's device, of 32 MiB, which verifies what it reads.
pub(crate) fn fio_verifies(namespace: &Namespace) {
    let fio = Program::find("fio", "fio").expect("the case needs it");
    let path = format!("--filename={}", namespace.path().display());
    for engine in ["--ioengine=io_uring", "--ioengine=psync"] {
        let said = fio.run(&[
            "--name=verify",
            &path,
            engine,
            "--direct=1",
            "--rw=randrw",
            "--bssplit=512/20:4k/50:12k/10:64k/15:1M/5",
            "--blockalign=512",
            "--size=32M",
            "--iodepth=32",
            "--verify=crc32c",
            "--verify_fatal=1",
            "--verify_state_save=0",
            "--serialize_overlap=1",
            "--randseed=42",
            "--end_fsync=1",
            "--output-format=json",
        ]);
        let json = said.find('{').map_or("", |start| &said[start..]);
        let report: serde_json::Value = serde_json::from_str(json).expect("a report");
        let job = &report["jobs"][0];
        assert_eq!(job["error"], 0, "{job:#}");
        assert!(job["read"]["io_bytes"].as_u64() > Some(0), "nothing was verified: {job:#}");
    }
}

fn ext4() {
    let (target, connection, namespace) = connected(64, &["data_digest"]);
    file_system::use_one(EXT4, &namespace.path(), 3);
    finish(target, connection);
}

fn xfs() {
    // XFS takes no less than 300 MB.
    let (target, connection, namespace) = connected(320, &["hdr_digest"]);
    file_system::use_one(XFS, &namespace.path(), 4);
    finish(target, connection);
}

fn connects_again() {
    let target = OurTarget::start(&["memory:16MiB"]);
    for round in 0..20 {
        let connection = Connection::open(SUBSYSTEM, target.port(), &[]);
        if round % 4 == 0 {
            connection.namespace(1);
        }
        connection.close();
    }
    assert!(target.stop().success());
}

fn reconnects() {
    let options = ["reconnect_delay=1", "ctrl_loss_tmo=100", "keep_alive_tmo=2"];
    let (mut target, connection, _) = connected(16, &options);
    restarts_under_load(&mut target, &connection, 3);
    finish(target, connection);
}

/// Requests wait while the target is away, and none fails or reads anything but what was written.
pub(crate) fn restarts_under_load(target: &mut OurTarget, connection: &Connection, rounds: u32) {
    let namespace = connection.namespace(1);
    let reactor = load::reactor();
    let mut queue = load::block_device(&reactor, &namespace.path());
    let mut load = Load::new(5, namespace.capacity());
    for _ in 0..rounds {
        let (begin, has_begun) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            let target = &mut *target;
            scope.spawn(move || {
                has_begun.recv().expect("the load gets that far");
                target.kill();
                connection.wait_for_state("connecting");
                target.start_again();
            });
            let failed = load.run_with(&reactor, &mut queue, 400, |number| {
                if number == 150 {
                    begin.send(()).expect("the thread waits");
                }
            });
            assert_eq!(failed, 0);
        });
        connection.wait_for_state("live");
    }
    assert_eq!(load.read_back(&reactor, &mut queue), 0);
}

/// After its loss time-out the kernel forgets the controller and fails what waits; nothing hangs.
fn gives_up() {
    let options = ["reconnect_delay=1", "ctrl_loss_tmo=2", "keep_alive_tmo=2"];
    let (mut target, connection, namespace) = connected(16, &options);
    let reactor = load::reactor();
    let mut queue = load::block_device(&reactor, &namespace.path());
    let mut load = Load::new(6, namespace.capacity());
    let failed = load.run_with(&reactor, &mut queue, 200, |number| {
        if number == 100 {
            target.kill();
        }
    });
    assert!(failed > 0, "nobody was there to answer");
    drop(queue);
    connection.close();
    assert!(!Path::new(&namespace.path()).exists(), "the device is gone");
    std::fs::remove_file("/tmp/disk").expect("it was there");
}

fn refused() {
    let target = OurTarget::start(&["memory:16MiB"]);
    let unknown = "nqn.2026-01.io.forebay:unknown";
    let error = Connection::try_open(unknown, target.port(), &[]).expect_err("unknown");
    // EIO is what the kernel makes of every refusal; its log tells them apart.
    assert_eq!(error.raw_os_error(), Some(5), "{error}");
    let log = kernel_log();
    let told = format!("Connect Invalid Data Parameter, subsysnqn \"{unknown}\"");
    assert!(log.contains(&told), "{log}");
    // The target serves on.
    Connection::open(SUBSYSTEM, target.port(), &[]).close();
    assert!(target.stop().success());
}

fn resets() {
    let (target, connection, namespace) = connected(16, &["reconnect_delay=1", "hdr_digest"]);
    let reactor = load::reactor();
    let mut queue = load::block_device(&reactor, &namespace.path());
    let mut load = Load::new(7, namespace.capacity());
    let failed = load.run_with(&reactor, &mut queue, 600, |number| {
        if number % 200 == 100 {
            connection.set_attribute("reset_controller", "1");
        }
    });
    assert_eq!(failed, 0);
    connection.wait_for_state("live");
    assert_eq!(load.read_back(&reactor, &mut queue), 0);
    drop(queue);
    finish(target, connection);
}

/// A controller of the discovery service with a keep alive time: keep alives are answered, and
/// without one none is sent that could fail.
fn discovery() {
    const DISCOVERY: &str = "nqn.2014-08.org.nvmexpress.discovery";
    let target = OurTarget::start(&["memory:16MiB"]);
    for options in [&["keep_alive_tmo=1"][..], &[]] {
        let connection = Connection::open(DISCOVERY, target.discovery_port(), options);
        // A log page later the association has outlived several keep alive times.
        let began = std::time::Instant::now();
        while began.elapsed() < std::time::Duration::from_secs(4) {
            assert_eq!(connection.attribute("state").as_deref(), Some("live"), "{options:?}");
            std::thread::sleep(std::time::Duration::from_millis(100));
        }
        connection.close();
    }
    assert!(!kernel_log().contains("keep-alive"), "{}", kernel_log());
    assert!(target.stop().success());
}

/// Queues for reads, for writes, and such as are polled.
fn queue_kinds() {
    let kinds = [
        &["nr_io_queues=1", "nr_write_queues=1"][..],
        &["nr_io_queues=1", "nr_write_queues=1", "nr_poll_queues=1"],
    ];
    for (seed, options) in kinds.into_iter().enumerate() {
        let (target, connection, namespace) = connected(16, options);
        let count = (options.len() + 1).to_string();
        assert_eq!(connection.attribute("queue_count").as_deref(), Some(&*count), "{options:?}");
        verify(&namespace, 20 + seed as u64, 200);
        finish(target, connection);
    }
}
