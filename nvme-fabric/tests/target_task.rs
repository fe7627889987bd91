//! The target on a real reactor and loopback sockets, asked by the crate's own host.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use block_io::device::memory::MemoryDevice;
use block_io::reactor::{MailSender, Mailbox, Reactor, ReactorConfig, Task, Wait};
use block_io::{
    BlockDevice, BlockQueue, Completion, Geometry, PoolLayout, Request, RequestId, Timestamp,
};
use nvme_fabric::driver::target::{Service, TargetTask};
use nvme_fabric::driver::{ConnectOptions, DiscoverOptions, NvmeTcpDevice, discover};
use nvme_fabric::spec::log_page::SubsystemKind;
use nvme_fabric::spec::nqn::{HostId, Nqn};
use nvme_fabric::target::{Namespace, Settings, Subsystem, Target};

const SUBSYSTEM: &str = "nqn.2024-01.io.forebay:task";
const CAPACITY: u64 = 8 << 20;

fn nqn(name: &str) -> Nqn {
    Nqn::new(name).expect("well formed")
}

fn reactor() -> Reactor {
    let config =
        ReactorConfig { operations_max: 256, pool: PoolLayout::HEAP, ..ReactorConfig::default() };
    Reactor::new(config).expect("a reactor")
}

/// A target task that a message stops.
struct Stoppable<Queue> {
    task: TargetTask<Queue>,
    stop: Mailbox<()>,
}

impl<Queue: BlockQueue> Task for Stoppable<Queue> {
    fn poll(&mut self, now: Timestamp) -> bool {
        let stop = self.stop.receive().is_some();
        if stop {
            self.task.stop();
        }
        self.task.poll(now) | stop
    }
    fn is_finished(&self) -> bool {
        self.task.is_finished()
    }
}

/// A target on a thread of its own.
struct Served {
    address: SocketAddr,
    discovery: SocketAddr,
    stop: MailSender<()>,
    thread: JoinHandle<usize>,
}

fn serve() -> Served {
    let (sender, receiver) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        let reactor = reactor();
        let device = MemoryDevice::new(CAPACITY).expect("a size");
        let geometry: Geometry = BlockDevice::<Reactor>::geometry(&device);
        let mut subsystem = Subsystem::new(nqn(SUBSYSTEM), "S1").expect("a serial number");
        let namespace = Namespace::new(geometry, HostId([3; 16])).expect("a good geometry");
        subsystem.add_namespace(namespace).expect("room");
        let mut target = Target::new(Settings::default()).expect("good settings");
        target.add_subsystem(subsystem).expect("a free name");
        let queue = device.open_queue(&reactor, 256).expect("a queue");
        let mut task = TargetTask::new(&reactor, target, vec![vec![queue]]).expect("a queue each");
        let any = "127.0.0.1:0".parse().expect("an address");
        let address = task.listen(any, Service::Subsystems).expect("a free port");
        let discovery = task.listen(any, Service::Discovery).expect("a free port");
        let (stop, mailbox) = reactor.mailbox(4).expect("a mailbox");
        sender.send((address, discovery, stop)).expect("the test waits");
        let mut stoppable = Stoppable { task, stop: mailbox };
        reactor.run(&mut stoppable).expect("runs");
        let left = stoppable.task.connections();
        drop(stoppable);
        reactor.turn(Wait::No).expect("turns");
        left + reactor.operations_in_flight()
    });
    let (address, discovery, stop) = receiver.recv().expect("the target listens");
    Served { address, discovery, stop, thread }
}

fn options(served: &Served) -> ConnectOptions {
    let host = nqn("nqn.2014-08.com.example:host");
    let mut options = ConnectOptions::new("127.0.0.1", nqn(SUBSYSTEM), host, HostId([5; 16]));
    options.port = served.address.port();
    options
}

/// Runs requests to their completions.
fn run(reactor: &Reactor, queue: &mut impl BlockQueue, requests: Vec<Request>) -> Vec<Completion> {
    let mut completions = Vec::new();
    let wanted = requests.len();
    let mut waiting: VecDeque<Request> = requests.into();
    while completions.len() < wanted {
        while let Some(request) = waiting.pop_front() {
            if let Err(request) = queue.submit(request) {
                waiting.push_front(request);
                break;
            }
        }
        let progress = queue.poll(reactor.now(), &mut completions);
        reactor.turn(if progress { Wait::No } else { Wait::ForEvent }).expect("turns");
    }
    completions
}

#[test]
fn what_is_written_over_sockets_is_read_back() {
    let served = serve();
    let reactor = reactor();
    for digests in [false, true] {
        let options =
            ConnectOptions { header_digest: digests, data_digest: digests, ..options(&served) };
        let device = NvmeTcpDevice::connect(&reactor, &options).expect("connects");
        assert_eq!(device.geometry().capacity, CAPACITY);
        let mut queue = device.open_queue(&reactor, 32).expect("a queue");
        let lengths = [512, 4096, 8192, 65536, 1 << 20];
        let pattern = |index: usize, length: usize| -> Vec<u8> {
            (0..length).map(|at| (at / 512 * 7 + at + index) as u8 ^ u8::from(digests)).collect()
        };
        let writes = lengths.iter().enumerate().map(|(index, length)| {
            let buffer = reactor.pool().allocate(*length);
            buffer.copy_from_slice(&pattern(index, *length));
            Request::write(RequestId(index as u64), (index as u64) << 20, buffer)
        });
        for done in run(&reactor, &mut queue, writes.collect()) {
            assert_eq!(done.result, Ok(()));
        }
        let reads = lengths.iter().enumerate().map(|(index, length)| {
            let buffer = reactor.pool().allocate(*length);
            Request::read(RequestId(index as u64), (index as u64) << 20, buffer)
        });
        for done in run(&reactor, &mut queue, reads.collect()) {
            assert_eq!(done.result, Ok(()));
            let index = done.id.0 as usize;
            let read = done.buffer.expect("a read's buffer").to_vec();
            assert!(read == pattern(index, lengths[index]), "request {index}");
        }
        drop(queue);
        device.shut_down(&reactor).expect("shuts down");
    }
    served.stop.send(()).expect("room");
    assert_eq!(served.thread.join().expect("no panic"), 0, "nothing is left in flight");
}

#[test]
fn discovery_tells_the_addresses() {
    let served = serve();
    let reactor = reactor();
    let host = nqn("nqn.2014-08.com.example:host");
    let port = served.discovery.port();
    let options =
        DiscoverOptions { port, ..DiscoverOptions::new("127.0.0.1", host, HostId([5; 16])) };
    let mut findings = discover(&reactor, &options).expect("the reactor turns");
    assert_eq!(findings.failures, []);
    let entries = findings.answers.remove(0).log.entries;
    let ways: Vec<_> = entries.iter().map(|entry| (entry.kind, entry.service.clone())).collect();
    assert_eq!(
        ways,
        [
            (SubsystemKind::CurrentDiscovery, port.to_string()),
            (SubsystemKind::Nvm, served.address.port().to_string()),
        ]
    );
    assert_eq!(entries[1].subsystem, SUBSYSTEM);
    served.stop.send(()).expect("room");
    served.thread.join().expect("no panic");
}

#[test]
fn strangers_are_told_and_left_and_do_no_harm() {
    let served = serve();
    let mut stranger = TcpStream::connect(served.address).expect("connects");
    stranger.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").expect("sent");
    let mut answer = [0; 24];
    stranger.read_exact(&mut answer).expect("a C2HTermReq");
    assert_eq!((answer[0], answer[8]), (3, 1), "invalid PDU header field");
    let silent: Vec<_> =
        (0..20).map(|_| TcpStream::connect(served.address).expect("connects")).collect();
    drop(stranger);
    let reactor = reactor();
    let options = ConnectOptions { fast_io_fail: Some(Duration::ZERO), ..options(&served) };
    let device = NvmeTcpDevice::connect(&reactor, &options).expect("connects");
    served.stop.send(()).expect("room");
    assert_eq!(served.thread.join().expect("no panic"), 0);
    for mut stream in silent {
        assert_eq!(stream.read(&mut answer).unwrap_or(0), 0, "closed");
    }
    let mut queue = device.open_queue(&reactor, 8).expect("a queue");
    let read = Request::read(RequestId(1), 0, reactor.pool().allocate(512));
    let done = run(&reactor, &mut queue, vec![read]);
    assert!(done[0].result.is_err(), "the target is gone");
}
