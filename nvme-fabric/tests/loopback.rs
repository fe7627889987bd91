//! Host and target on real reactors, a thread each, over loopback sockets: random requests against
//! the reference disk, and a target that vanishes.

use std::time::Duration;

use block_io::device::memory::{MemoryDevice, MemoryQueue};
use block_io::reactor::{Reactor, ReactorConfig, Task, Wait};
use block_io::sim::{Random, ReferenceDisk, fill_pattern};
use block_io::{
    BlockDevice, BlockQueue, Extent, Geometry, IoError, PoolLayout, Request, RequestId,
};
use nvme_fabric::driver::target::{Service, TargetTask};
use nvme_fabric::driver::{ConnectOptions, NamespaceQueue, NvmeTcpDevice};
use nvme_fabric::host::paths::LostChanges;
use nvme_fabric::spec::nqn::{HostId, Nqn};
use nvme_fabric::target::{Namespace, Settings, Subsystem, Target};

const SUBSYSTEM: &str = "nqn.2014-08.com.example:loopback";
const CAPACITY: u64 = 8 << 20;

fn nqn(name: &str) -> Nqn {
    Nqn::new(name).expect("well formed")
}

fn reactor() -> Reactor {
    let config =
        ReactorConfig { operations_max: 256, pool: PoolLayout::HEAP, ..ReactorConfig::default() };
    Reactor::new(config).expect("a reactor")
}

/// A target and what it serves.
struct Served {
    reactor: Reactor,
    target: TargetTask<MemoryQueue>,
    device: MemoryDevice,
    port: u16,
}

fn new_target(geometry: Geometry) -> Target {
    let mut target = Target::new(Settings::default()).expect("settings are right");
    let mut subsystem = Subsystem::new(nqn(SUBSYSTEM), "1").expect("a serial number");
    let namespace = Namespace::new(geometry, HostId([1; 16])).expect("a namespace");
    subsystem.add_namespace(namespace).expect("room");
    target.add_subsystem(subsystem).expect("the name is free");
    target
}

fn serve(transfer_max: u32) -> Served {
    let reactor = reactor();
    let geometry = Geometry { transfer_max, ..Geometry::new(CAPACITY) };
    let device = MemoryDevice::with_geometry(geometry).expect("a device");
    let queue = device.open_queue(&reactor, 256).expect("opens");
    let target = new_target(geometry);
    let mut target = TargetTask::new(&reactor, target, vec![vec![queue]]).expect("a task");
    let address = "127.0.0.1:0".parse().expect("an address");
    let port = target.listen(address, Service::Subsystems).expect("listens").port();
    Served { reactor, target, device, port }
}

/// Serves a host on a thread of its own until that has finished; stops earlier after so many polls
/// that did something. Returns what the device then holds.
fn with_host(
    transfer_max: u32,
    stop_after: Option<u64>,
    host: impl FnOnce(Reactor, u16) + Send + 'static,
) -> Vec<u8> {
    let mut served = serve(transfer_max);
    let (done, mailbox) = served.reactor.mailbox::<()>(1).expect("a mailbox");
    let port = served.port;
    let thread = std::thread::spawn(move || {
        host(reactor(), port);
        done.send(()).expect("room");
    });
    let mut polls_with_work = 0;
    let mut is_done = false;
    while !(is_done && served.target.is_finished()) {
        let progress = served.target.poll(served.reactor.now());
        polls_with_work += u64::from(progress);
        if !is_done && mailbox.receive().is_some() {
            is_done = true;
            served.target.stop();
        }
        if stop_after.is_some_and(|polls| polls_with_work > polls) {
            served.target.stop();
        }
        served.reactor.turn(if progress { Wait::No } else { Wait::ForEvent }).expect("turns");
        if thread.is_finished() && !is_done {
            break;
        }
    }
    thread.join().expect("the host's checks hold");
    served.device.content(Extent::new(0, CAPACITY))
}

fn options(port: u16, digests: (bool, bool)) -> ConnectOptions {
    let mut options = ConnectOptions::new(
        "localhost",
        nqn(SUBSYSTEM),
        nqn("nqn.2014-08.com.example:host"),
        HostId([2; 16]),
    );
    options.port = port;
    (options.header_digest, options.data_digest) = digests;
    options
}

fn connect(reactor: &Reactor, port: u16, digests: (bool, bool)) -> NvmeTcpDevice {
    NvmeTcpDevice::connect(reactor, &options(port, digests)).expect("connects")
}

/// Random requests until `count` are done or the association is lost; the reference and how many
/// failed.
fn work(
    reactor: &Reactor,
    queue: &mut NamespaceQueue,
    seed: u64,
    count: u64,
) -> (ReferenceDisk, u64) {
    let mut random = Random::new(seed);
    let mut reference = ReferenceDisk::new(seed, CAPACITY).with_late_writes(true);
    let (mut made, mut in_flight, mut failed) = (0, 0, 0);
    let mut completions = Vec::new();
    while made < count || in_flight > 0 {
        while made < count && in_flight < 32 {
            made += 1;
            in_flight += 1;
            let length = *random.choose(&[512, 4096, 4096, 8192, 12288, 65536, 300 << 10, 1 << 20]);
            let offset = random.below((CAPACITY - length) / 512 + 1) * 512;
            let id = RequestId(made);
            let buffer = reactor.pool().allocate(length as usize);
            let request = match random.below(8) {
                0..=3 => Request::read(id, offset, buffer),
                4..=5 => {
                    fill_pattern(&buffer, made, offset);
                    Request::write(id, offset, buffer)
                }
                6 => Request::write_zeroes(id, Extent::new(offset, length)),
                _ => Request::discard(id, Extent::new(offset, length)),
            };
            reference.begin(&request);
            queue.submit(request).expect("room");
        }
        let progress = queue.poll(reactor.now(), &mut completions);
        for completion in completions.drain(..) {
            in_flight -= 1;
            failed += u64::from(completion.result.is_err());
            if let Err(mismatch) = reference.complete(&completion) {
                panic!("seed {seed}: {mismatch}");
            }
        }
        if made < count || in_flight > 0 {
            reactor.turn(if progress { Wait::No } else { Wait::ForEvent }).expect("turns");
        }
    }
    (reference, failed)
}

/// Whether the device holds what the host's reference allows, now that nothing is on its way.
fn check(reference: &std::sync::mpsc::Receiver<ReferenceDisk>, content: &[u8]) {
    let mut reference = reference.recv().expect("the host has finished");
    reference.fence();
    if let Err(mismatch) = reference.check_content(0, content) {
        panic!("{mismatch}");
    }
}

#[test]
fn random_requests_over_sockets_agree_with_the_reference_disk() {
    for (seed, digests) in
        [(false, false), (true, false), (false, true), (true, true)].into_iter().enumerate()
    {
        let (send, receive) = std::sync::mpsc::channel();
        let content = with_host(128 << 10, None, move |reactor, port| {
            let device = connect(&reactor, port, digests);
            let mut queue = device.open_queue(&reactor, 32).expect("opens");
            let (reference, failed) = work(&reactor, &mut queue, seed as u64, 1500);
            assert_eq!(failed, 0);
            device.shut_down(&reactor).expect("shuts down");
            send.send(reference).expect("somebody listens");
        });
        check(&receive, &content);
    }
}

#[test]
fn a_target_that_vanishes_fails_requests_and_loses_nothing_acked() {
    for seed in 0..6 {
        let (send, receive) = std::sync::mpsc::channel();
        let content = with_host(1 << 20, Some(40 + seed * 31), move |reactor, port| {
            // Whoever does not want to wait for a path.
            let options = ConnectOptions {
                fast_io_fail: Some(Duration::ZERO),
                lost_changes: LostChanges::Fail,
                ..options(port, (false, seed % 2 == 0))
            };
            let device = NvmeTcpDevice::connect(&reactor, &options).expect("connects");
            let mut queue = device.open_queue(&reactor, 32).expect("opens");
            let (reference, failed) = work(&reactor, &mut queue, seed, 3000);
            assert!(failed > 0, "seed {seed}: it vanished");
            let error = device.error().expect("it is lost").to_string();
            assert!(!error.is_empty());
            let mut completions = Vec::new();
            queue.submit(Request::flush(RequestId(1))).expect("room");
            let read = Request::read(RequestId(2), 0, reactor.pool().allocate(512));
            queue.submit(read).expect("room");
            queue.poll(reactor.now(), &mut completions);
            assert_eq!(completions.len(), 2, "answered at once");
            for completion in completions {
                assert_eq!(completion.result, Err(IoError::Other(113)), "never sent");
            }
            send.send(reference).expect("somebody listens");
        });
        check(&receive, &content);
    }
}

/// Serves a host on a thread of its own; the target goes away for a moment after each of so many
/// polls that did something, and comes back at the same address.
fn with_restarts(restarts: &[u64], host: impl FnOnce(Reactor, u16) + Send + 'static) -> Vec<u8> {
    let mut served = serve(128 << 10);
    let (done, mailbox) = served.reactor.mailbox::<()>(1).expect("a mailbox");
    let port = served.port;
    let thread = std::thread::spawn(move || {
        host(reactor(), port);
        done.send(()).expect("room");
    });
    let mut restarts = restarts.iter().copied();
    let mut next = restarts.next();
    let mut polls_with_work = 0;
    while !thread.is_finished() && mailbox.receive().is_none() {
        let progress = served.target.poll(served.reactor.now());
        polls_with_work += u64::from(progress);
        if next.is_some_and(|polls| polls_with_work > polls) {
            (next, polls_with_work) = (restarts.next(), 0);
            served = restart(served);
        }
        served.reactor.turn(if progress { Wait::No } else { Wait::ForEvent }).expect("turns");
    }
    thread.join().expect("the host's checks hold");
    assert_eq!(next, None, "the target was away as often as planned");
    served.device.content(Extent::new(0, CAPACITY))
}

/// The same device behind a new target.
fn restart(mut served: Served) -> Served {
    served.target.stop();
    while !served.target.is_finished() {
        served.target.poll(served.reactor.now());
        served.reactor.turn(Wait::No).expect("turns");
    }
    let Served { reactor, device, port, target } = served;
    drop(target);
    let geometry = BlockDevice::<Reactor>::geometry(&device);
    let queue = device.open_queue(&reactor, 256).expect("opens");
    let mut target =
        TargetTask::new(&reactor, new_target(geometry), vec![vec![queue]]).expect("a task");
    let address = format!("127.0.0.1:{port}").parse().expect("an address");
    target.listen(address, Service::Subsystems).expect("the port is free again");
    Served { reactor, target, device, port }
}

#[test]
fn a_target_that_restarts_costs_time_and_nothing_else() {
    let (send, receive) = std::sync::mpsc::channel();
    let content = with_restarts(&[300, 700], move |reactor, port| {
        let options = ConnectOptions {
            // Two addresses of the same port: two paths.
            more_addresses: vec![("127.0.0.1".to_owned(), port)],
            keep_alive: Duration::from_secs(1),
            reconnect_delay_min: Duration::from_millis(20),
            ..options(port, (true, false))
        };
        let device = NvmeTcpDevice::connect(&reactor, &options).expect("connects");
        let mut queue = device.open_queue(&reactor, 32).expect("opens");
        let (reference, failed) = work(&reactor, &mut queue, 7, 3000);
        let status = device.status();
        assert_eq!(failed, 0, "{status:?}");
        assert!(device.losses() >= 2, "{status:?}");
        assert_eq!(status.paths.len(), 2);
        device.shut_down(&reactor).expect("shuts down");
        send.send(reference).expect("somebody listens");
    });
    check(&receive, &content);
}

#[test]
fn nobody_there_is_told_with_the_address() {
    let reactor = reactor();
    let port = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.local_addr().expect("bound").port()
    };
    let mut options = ConnectOptions::new(
        "127.0.0.1",
        nqn(SUBSYSTEM),
        nqn("nqn.2014-08.com.example:host"),
        HostId([2; 16]),
    );
    options.port = port;
    let error = NvmeTcpDevice::connect(&reactor, &options).expect_err("refused").to_string();
    assert!(error.contains(&format!("127.0.0.1:{port}")), "{error}");
    options.host = "name.invalid".to_owned();
    let error = NvmeTcpDevice::connect(&reactor, &options).expect_err("no such name").to_string();
    assert!(error.contains("name.invalid"), "{error}");
}
