//! Our host and the kernel's target, or ours.

use std::path::{Path, PathBuf};
use std::time::Duration;

use block_io::reactor::Reactor;
use block_io::{BlockDevice, BlockQueue};
use forebay_tests::program::Program;
use forebay_tests::server::ForebayCommand;
use forebay_vm::case::{KERNEL_TARGET, RAM_DISK};
use forebay_vm::scene::load::{self, Load};
use forebay_vm::scene::nvmet::KernelTarget;
use forebay_vm::scene::our_target::{OurTarget, file};
use forebay_vm::scene::{free_port, our_host, our_target};
use forebay_vm::{Case, Need};
use nvme_fabric::driver::{ConnectOptions, NvmeTcpDevice};
use nvme_fabric::spec::nqn::Nqn;

const NEEDS: &[Need] = &[KERNEL_TARGET];
pub(crate) const SUBSYSTEM: &str = "nqn.2014-08.com.example:nvmet";
pub(crate) const DISK: &str = "/dev/ram0";

/// Bytes of the disk that a load uses.
pub(crate) const USED: u64 = 16 << 20;

pub(crate) const CASES: &[Case] = &[
    Case::new("our_host::discovers_the_kernels_subsystem", discovers)
        .needs(&[KERNEL_TARGET, Need::Forebay]),
    Case::new("our_host::identifies_the_kernels_namespaces", identifies).needs(&[
        KERNEL_TARGET,
        RAM_DISK,
        Need::Forebay,
    ]),
    Case::new("our_host::reads_what_it_wrote_to_a_disk", reads_from_disk)
        .quick()
        .needs(&[KERNEL_TARGET, RAM_DISK]),
    Case::new("our_host::reads_what_it_wrote_to_a_file", reads_from_file).needs(NEEDS),
    Case::new("our_host::reads_what_it_wrote_with_digests", digests)
        .needs(&[KERNEL_TARGET, RAM_DISK]),
    Case::new("our_host::uses_as_many_queues_as_it_gets", queues).needs(&[KERNEL_TARGET, RAM_DISK]),
    Case::new("our_host::waits_for_a_target_that_was_stopped", restarted)
        .quick()
        .needs(&[KERNEL_TARGET, RAM_DISK]),
    Case::new("our_host::waits_for_our_target_that_was_killed", our_target_killed)
        .needs(&[Need::Forebay]),
    Case::new("our_host::is_told_of_a_target_that_stays_away", stays_away)
        .needs(&[KERNEL_TARGET, RAM_DISK]),
    Case::new("our_host::is_refused_an_unknown_subsystem", refused).needs(NEEDS),
    Case::new("our_host::is_refused_where_it_is_not_allowed", not_allowed)
        .needs(&[KERNEL_TARGET, RAM_DISK]),
    Case::new("our_host::sees_a_namespace_grow", grows).quick().needs(NEEDS),
    Case::new("our_host::serves_a_cached_volume_of_the_kernels_namespace", cached).needs(&[
        KERNEL_TARGET,
        Need::Forebay,
        Need::Program { name: "qemu-io", package: "qemu-utils" },
    ]),
];

/// The kernel's target with one namespace.
fn target(device: &Path) -> KernelTarget {
    let mut target = KernelTarget::new(SUBSYSTEM, free_port());
    target.add_namespace(1, device);
    target.listen();
    target
}

/// The same over a RAM disk of zeroes.
fn disk_target() -> KernelTarget {
    zero_disk();
    target(Path::new(DISK))
}

/// Zeroes of the RAM disk what a load uses.
pub(crate) fn zero_disk() {
    rustix::fs::sync();
    let disk = std::fs::OpenOptions::new().write(true).open(DISK).expect("a RAM disk");
    let zeroes = vec![0; 1 << 20];
    for piece in 0..USED >> 20 {
        std::os::unix::fs::FileExt::write_all_at(&disk, &zeroes, piece << 20).expect("room");
    }
    disk.sync_all().expect("it has memory");
}

fn verify(reactor: &Reactor, device: &NvmeTcpDevice, seed: u64, count: u64) {
    let mut queue = device.open_queue(reactor, 32).expect("a queue");
    let mut load = Load::new(seed, USED.min(BlockDevice::<Reactor>::geometry(device).capacity));
    assert_eq!(load.run(reactor, &mut queue, count), 0);
    assert_eq!(load.read_back(reactor, &mut queue), 0);
}

fn forebay(arguments: &[&str]) -> serde_json::Value {
    let path = ForebayCommand::program().expect("the case needs it");
    let said = Program::at(&path).run(&[arguments, &["--format", "json"]].concat());
    serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error} in {said}"))
}

fn discovers() {
    let target = target(&file("disk", USED));
    // The kernel's target answers discovery at the port of its subsystems.
    let answer = forebay(&["nvme", "discover", &format!("127.0.0.1:{}", target.port())]);
    let records = answer["records"].as_array().expect("records");
    let ours = records.iter().find(|record| record["subnqn"] == SUBSYSTEM).expect("it is listed");
    assert_eq!(ours["traddr"], "127.0.0.1");
    assert_eq!(ours["trsvcid"], target.port().to_string().as_str());
    drop(target);
    std::fs::remove_file("/tmp/disk").expect("it was there");
}

fn identifies() {
    let mut target = KernelTarget::new(SUBSYSTEM, free_port());
    target.set("attr_serial", "0123456789abcdef");
    target.set("attr_model", "A kernel's");
    target.add_namespace(1, Path::new(DISK));
    target.listen();
    let uri = format!("nvme+tcp://127.0.0.1:{}/{SUBSYSTEM}?nsid=1", target.port());
    let answer = forebay(&["nvme", "identify", &uri]);
    let controller = &answer["controller"];
    assert_eq!(controller["sn"].as_str().map(str::trim), Some("0123456789abcdef"), "{answer:#}");
    assert_eq!(controller["mn"].as_str().map(str::trim), Some("A kernel's"), "{answer:#}");
    assert_eq!(answer["namespace"]["nsze"], (256 << 20) / 512, "{answer:#}");
}

fn reads_from_disk() {
    let target = disk_target();
    let reactor = load::reactor();
    let device = our_host::connect(&reactor, &our_host::options(SUBSYSTEM, target.port()));
    let device = device.expect("connects");
    verify(&reactor, &device, 1, 1500);
    device.shut_down(&reactor).expect("shuts down");
}

fn reads_from_file() {
    let path: PathBuf = file("disk", USED);
    let target = target(&path);
    let reactor = load::reactor();
    let device = our_host::connect(&reactor, &our_host::options(SUBSYSTEM, target.port()));
    let device = device.expect("connects");
    verify(&reactor, &device, 2, 1500);
    device.shut_down(&reactor).expect("shuts down");
    drop(target);
    std::fs::remove_file(path).expect("it was there");
}

fn digests() {
    let reactor = load::reactor();
    for (seed, (header, data)) in [(true, false), (false, true), (true, true)].iter().enumerate() {
        let target = disk_target();
        let mut options = our_host::options(SUBSYSTEM, target.port());
        (options.header_digest, options.data_digest) = (*header, *data);
        let device = our_host::connect(&reactor, &options).expect("connects");
        verify(&reactor, &device, 10 + seed as u64, 800);
        device.shut_down(&reactor).expect("shuts down");
    }
}

/// The kernel's target gives at most as many queues as it is told to.
fn queues() {
    let reactor = load::reactor();
    for (asked, given) in [(1, 1), (4, 4), (4, 2)] {
        zero_disk();
        let mut target = KernelTarget::new(SUBSYSTEM, free_port());
        target.set("attr_qid_max", &given.to_string());
        target.add_namespace(1, Path::new(DISK));
        target.listen();
        let mut options = our_host::options(SUBSYSTEM, target.port());
        options.io_queues = asked;
        let device = our_host::connect(&reactor, &options).expect("connects");
        assert_eq!(device.status().paths[0].io_queues, given, "asked for {asked}");
        // Users beyond that share.
        let mut load = Load::new(u64::from(asked), USED);
        for _ in 0..=given {
            let mut queue = device.open_queue(&reactor, 32).expect("a queue");
            assert_eq!(load.run(&reactor, &mut queue, 20), 0);
        }
        device.shut_down(&reactor).expect("shuts down");
    }
}

/// Options of a host that soon takes what it lost to have ended.
fn impatient(port: u16) -> ConnectOptions {
    let mut options = our_host::options(SUBSYSTEM, port);
    options.keep_alive = Duration::from_secs(1);
    options.reconnect_delay_max = Duration::from_secs(1);
    options
}

/// Runs a load through restarts of the target: requests wait, and none fails or reads anything but
/// what was written.
pub(crate) fn verify_restarts(options: &ConnectOptions, seed: u64, mut restart: impl FnMut()) {
    let reactor = load::reactor();
    let device = our_host::connect(&reactor, options).expect("connects");
    let mut queue = device.open_queue(&reactor, 32).expect("a queue");
    let mut load = Load::new(seed, USED);
    for _ in 0..2 {
        let failed = load.run_with(&reactor, &mut queue, 400, |number| {
            if number == 200 {
                restart();
            }
        });
        assert_eq!(failed, 0);
    }
    assert_eq!(load.read_back(&reactor, &mut queue), 0);
    drop(queue);
    device.shut_down(&reactor).expect("shuts down");
}

fn restarted() {
    let mut target = disk_target();
    verify_restarts(&impatient(target.port()), 5, || {
        target.stop();
        target.listen();
    });
}

fn our_target_killed() {
    let path = file("disk", USED);
    let mut target = OurTarget::start(&[&format!("file:{}", path.display())]);
    let mut options = impatient(target.port());
    options.subsystem = Nqn::new(our_target::SUBSYSTEM).expect("well formed");
    verify_restarts(&options, 6, || {
        target.kill();
        target.start_again();
    });
    assert!(target.stop().success());
    std::fs::remove_file(path).expect("it was there");
}

/// Requests fail when the target stays away for longer than they may wait; and are served again
/// when it is back.
fn stays_away() {
    let mut target = disk_target();
    let reactor = load::reactor();
    let mut options = impatient(target.port());
    options.fast_io_fail = Some(Duration::from_secs(1));
    let device = our_host::connect(&reactor, &options).expect("connects");
    let mut queue = device.open_queue(&reactor, 32).expect("a queue");
    let mut load = Load::new(7, USED);
    let failed = load.run_with(&reactor, &mut queue, 600, |number| {
        if number == 300 {
            target.stop();
        }
    });
    assert!(failed > 0, "it was stopped");
    assert!(device.error().is_some(), "there is no path");
    target.listen();
    forebay_vm::scene::eventually("there is a path again", || {
        queue.poll(reactor.now(), &mut Vec::new());
        reactor.turn(block_io::reactor::Wait::No).expect("turns");
        device.error().is_none().then_some(())
    });
    assert_eq!(load.run(&reactor, &mut queue, 300), 0);
    assert_eq!(load.read_back(&reactor, &mut queue), 0);
    drop(queue);
    device.shut_down(&reactor).expect("shuts down");
}

fn refused() {
    let target = target(&file("disk", USED));
    let reactor = load::reactor();
    let mut options = our_host::options("nqn.2014-08.com.example:other", target.port());
    let error = our_host::connect(&reactor, &options).expect_err("unknown").to_string();
    assert!(error.contains("Connect Invalid Parameters"), "{error}");
    assert!(error.contains("nqn.2014-08.com.example:other"), "{error}");
    options = our_host::options(SUBSYSTEM, target.port());
    options.namespace_id = 7;
    let error = our_host::connect(&reactor, &options).expect_err("no such one").to_string();
    assert!(error.ends_with("has no namespace 7; active are: 1"), "{error}");
    drop(target);
    std::fs::remove_file("/tmp/disk").expect("it was there");
}

fn not_allowed() {
    let mut target = KernelTarget::new(SUBSYSTEM, free_port());
    target.add_namespace(1, Path::new(DISK));
    target.allow_host("nqn.2014-08.com.example:somebody-else", &[]);
    target.listen();
    let reactor = load::reactor();
    let options = our_host::options(SUBSYSTEM, target.port());
    let error = our_host::connect(&reactor, &options).expect_err("not allowed").to_string();
    assert!(error.contains("Connect Invalid Host"), "{error}");
    assert!(error.contains(our_host::HOST_NQN), "{error}");
    target.allow_host(our_host::HOST_NQN, &[]);
    let device = our_host::connect(&reactor, &options).expect("allowed now");
    device.shut_down(&reactor).expect("shuts down");
}

/// The kernel tells of the change by an event; nobody asks.
fn grows() {
    let path = file("disk", USED);
    let target = target(&path);
    let reactor = load::reactor();
    let options = our_host::options(SUBSYSTEM, target.port());
    let device = our_host::connect(&reactor, &options).expect("connects");
    let mut queue = device.open_queue(&reactor, 32).expect("a queue");
    assert_eq!(queue.geometry().capacity, USED);
    std::fs::OpenOptions::new()
        .write(true)
        .open(&path)
        .expect("it is there")
        .set_len(2 * USED)
        .expect("room");
    target.set_namespace(1, "revalidate_size", "1");
    let mut completions = Vec::new();
    forebay_vm::scene::eventually("the namespace has grown", || {
        queue.poll(reactor.now(), &mut completions);
        reactor.turn(block_io::reactor::Wait::No).expect("turns");
        (queue.geometry().capacity == 2 * USED).then_some(())
    });
    let mut load = Load::new(9, 2 * USED);
    assert_eq!(load.run(&reactor, &mut queue, 300), 0);
    drop(queue);
    device.shut_down(&reactor).expect("shuts down");
    drop(target);
    std::fs::remove_file(path).expect("it was there");
}

/// The whole way: a client, NBD, the cache, our host, the kernel's target.
fn cached() {
    let path = file("disk", USED);
    let target = target(&path);
    let uri = format!("nvme+tcp://127.0.0.1:{}/{SUBSYSTEM}?nsid=1", target.port());
    let program = ForebayCommand::program().expect("the case needs it");
    let socket = "nbd+unix:///volume?socket=/run/volume.sock";
    let arguments = ["run", "--origin", &uri, "--cache", "memory:", "--cache-size", "8MiB"];
    let arguments = [&arguments[..], &["--export", socket]].concat();
    let command = ForebayCommand::start(&program, &arguments);
    forebay_tests::nbd::qemu::patterns(&command.served()[0], USED);
    let (status, _) = command.stop();
    assert!(status.success(), "forebay run: {status}");
    drop(target);
    let content = std::fs::read(&path).expect("it is there");
    assert!(content.iter().any(|byte| *byte != 0), "nothing reached the origin");
    std::fs::remove_file(path).expect("it was there");
}
