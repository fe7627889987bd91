//! A target on a reactor that is changed while the crate's own host uses it over loopback sockets.

use std::collections::VecDeque;
use std::io::Read;
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
use nvme_fabric::driver::{ConnectOptions, NvmeTcpDevice};
use nvme_fabric::spec::nqn::{HostId, Nqn};
use nvme_fabric::target::{Hosts, Namespace, Settings, Subsystem, Target};

const SUBSYSTEM: &str = "nqn.2024-01.io.forebay:changes";
const HOST: &str = "nqn.2014-08.com.example:host";
const CAPACITY: u64 = 4 << 20;

type Queue = <MemoryDevice as BlockDevice<Reactor>>::Queue;
type Change = Box<dyn FnOnce(&Reactor, &mut TargetTask<Queue>) + Send>;

fn nqn(name: &str) -> Nqn {
    Nqn::new(name).expect("well formed")
}

fn reactor() -> Reactor {
    let config =
        ReactorConfig { operations_max: 256, pool: PoolLayout::HEAP, ..ReactorConfig::default() };
    Reactor::new(config).expect("a reactor")
}

fn memory(seed: u8) -> (MemoryDevice, Namespace) {
    let device = MemoryDevice::new(CAPACITY).expect("a size");
    let geometry: Geometry = BlockDevice::<Reactor>::geometry(&device);
    (device, Namespace::new(geometry, HostId([seed; 16])).expect("a good geometry"))
}

/// A target task that messages change; the end of the senders stops it.
struct Changeable<'a> {
    reactor: &'a Reactor,
    task: TargetTask<Queue>,
    changes: Mailbox<Change>,
    is_stopping: bool,
}

impl Task for Changeable<'_> {
    fn poll(&mut self, now: Timestamp) -> bool {
        let mut progress = false;
        while let Some(change) = self.changes.receive() {
            change(self.reactor, &mut self.task);
            progress = true;
        }
        if self.changes.is_closed() && !self.is_stopping {
            self.is_stopping = true;
            self.task.stop();
            progress = true;
        }
        self.task.poll(now) | progress
    }
    fn is_finished(&self) -> bool {
        self.task.is_finished()
    }
}

/// A target on a thread of its own, with one namespace in memory.
struct Served {
    address: SocketAddr,
    changes: MailSender<Change>,
    thread: JoinHandle<usize>,
}

impl Served {
    fn new(settings: Settings) -> Self {
        let (sender, receiver) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let reactor = reactor();
            let (device, namespace) = memory(1);
            let mut subsystem = Subsystem::new(nqn(SUBSYSTEM), "S1").expect("a serial number");
            subsystem.add_namespace(namespace).expect("room");
            let mut target = Target::new(settings).expect("good settings");
            target.add_subsystem(subsystem).expect("a free name");
            let queue = device.open_queue(&reactor, 64).expect("a queue");
            let mut task = TargetTask::new(&reactor, target, vec![vec![queue]]).expect("a task");
            let any = "127.0.0.1:0".parse().expect("an address");
            let address = task.listen(any, Service::Subsystems).expect("a free port");
            let (changes, mailbox) = reactor.mailbox(4).expect("a mailbox");
            sender.send((address, changes)).expect("the test waits");
            let mut task =
                Changeable { reactor: &reactor, task, changes: mailbox, is_stopping: false };
            reactor.run(&mut task).expect("runs");
            drop(task);
            reactor.turn(Wait::No).expect("turns");
            reactor.operations_in_flight()
        });
        let (address, changes) = receiver.recv().expect("the target listens");
        Self { address, changes, thread }
    }

    /// Changes the target, and returns what comes of it.
    fn change<Value: Send + 'static>(
        &self,
        change: impl FnOnce(&Reactor, &mut TargetTask<Queue>) -> Value + Send + 'static,
    ) -> Value {
        let (sender, receiver) = mpsc::channel();
        let change: Change = Box::new(move |reactor, task| {
            sender.send(change(reactor, task)).expect("the test waits");
        });
        assert!(self.changes.send(change).is_ok(), "room");
        receiver.recv().expect("the target lives")
    }

    fn connect(&self, reactor: &Reactor, namespace_id: u32) -> NvmeTcpDevice {
        NvmeTcpDevice::connect(reactor, &options(self.address, namespace_id)).expect("connects")
    }

    fn end(self) {
        drop(self.changes);
        assert_eq!(self.thread.join().expect("no panic"), 0, "nothing is left in flight");
    }
}

fn options(address: SocketAddr, namespace_id: u32) -> ConnectOptions {
    let options = ConnectOptions::new("127.0.0.1", nqn(SUBSYSTEM), nqn(HOST), HostId([5; 16]));
    // What cannot be done now fails at once.
    let fast_io_fail = Some(Duration::ZERO);
    ConnectOptions { port: address.port(), namespace_id, fast_io_fail, ..options }
}

fn run(reactor: &Reactor, queue: &mut impl BlockQueue, request: Request) -> Completion {
    let mut completions = Vec::new();
    let mut waiting: VecDeque<Request> = [request].into();
    loop {
        if let Some(request) = waiting.pop_front()
            && let Err(request) = queue.submit(request)
        {
            waiting.push_front(request);
        }
        let progress = queue.poll(reactor.now(), &mut completions);
        if let Some(completion) = completions.pop() {
            return completion;
        }
        reactor.turn(if progress { Wait::No } else { Wait::ForEvent }).expect("turns");
    }
}

fn read(reactor: &Reactor, queue: &mut impl BlockQueue) -> Result<Vec<u8>, block_io::IoError> {
    let request = Request::read(RequestId(1), 0, reactor.pool().allocate(512));
    let done = run(reactor, queue, request);
    done.result.map(|()| done.buffer.expect("a read's buffer").to_vec())
}

fn write(reactor: &Reactor, queue: &mut impl BlockQueue, byte: u8) {
    let buffer = reactor.pool().allocate(512);
    buffer.copy_from_slice(&[byte; 512]);
    assert_eq!(run(reactor, queue, Request::write(RequestId(2), 0, buffer)).result, Ok(()));
}

#[test]
fn a_namespace_comes_with_its_device_and_goes_without_its_neighbour() {
    let served = Served::new(Settings::default());
    let reactor = reactor();
    let first = served.connect(&reactor, 1);
    let mut first = first.open_queue(&reactor, 8).expect("a queue");
    write(&reactor, &mut first, 1);
    let key = served.change(|reactor, task| {
        let (device, namespace) = memory(2);
        let queue = device.open_queue(reactor, 64).expect("a queue");
        task.add_namespace(0, None, namespace, queue).expect("room")
    });
    assert_eq!(key.namespace, 1, "NSID 2");
    let second = served.connect(&reactor, 2);
    let mut second = second.open_queue(&reactor, 8).expect("a queue");
    write(&reactor, &mut second, 2);
    assert_eq!(read(&reactor, &mut second), Ok(vec![2; 512]));
    assert_eq!(read(&reactor, &mut first), Ok(vec![1; 512]), "devices are not mixed up");
    served.change(move |_, task| {
        assert!(task.is_in_use(key));
        task.remove_namespace(key).expect("it is there");
    });
    assert!(read(&reactor, &mut second).is_err(), "its namespace is gone");
    assert_eq!(read(&reactor, &mut first), Ok(vec![1; 512]));
    assert!(!served.change(move |_, task| task.is_in_use(key)), "nothing touches its device");
    served.change(|_, task| task.remove_subsystem(0).map(|_| ()).expect("it is there"));
    assert!(read(&reactor, &mut first).is_err(), "its subsystem is gone");
    served.end();
}

#[test]
fn an_address_that_is_listened_at_no_more_refuses_and_its_connections_go_on() {
    let served = Served::new(Settings::default());
    let reactor = reactor();
    let another = served.change(|_, task| {
        let any = "127.0.0.1:0".parse().expect("an address");
        task.listen(any, Service::Subsystems).expect("a free port")
    });
    let device = NvmeTcpDevice::connect(&reactor, &options(another, 1)).expect("connects");
    let mut queue = device.open_queue(&reactor, 8).expect("a queue");
    served.change(move |_, task| task.stop_listening(another).expect("it is there"));
    let error =
        served.change(move |_, task| task.stop_listening(another).map_err(|e| e.to_string()));
    assert!(error.expect_err("twice").contains(&another.to_string()));
    // The socket is closed when the accept that was out has ended, in a turn of the target's.
    while TcpStream::connect(another).is_ok() {
        served.change(|_, _| ());
    }
    assert!(read(&reactor, &mut queue).is_ok());
    served.connect(&reactor, 1);
    served.end();
}

#[test]
fn a_host_that_is_forbidden_is_cut_off_and_cannot_come_back() {
    let served = Served::new(Settings::default());
    let reactor = reactor();
    let device = served.connect(&reactor, 1);
    let mut queue = device.open_queue(&reactor, 8).expect("a queue");
    assert!(read(&reactor, &mut queue).is_ok());
    served.change(|_, task| {
        task.target_mut().set_hosts(0, Hosts::Listed(Vec::new())).expect("a list");
    });
    assert!(read(&reactor, &mut queue).is_err());
    let error = NvmeTcpDevice::connect(&reactor, &options(served.address, 1)).map(|_| ());
    let error = error.expect_err("refused").to_string();
    assert!(error.contains("Connect Invalid Host"), "{error}");
    served.end();
}

#[test]
fn connections_that_say_nothing_make_way_and_do_not_disturb() {
    let served = Served::new(Settings { unconnected_max: 4, ..Settings::default() });
    let reactor = reactor();
    let device = served.connect(&reactor, 1);
    let mut queue = device.open_queue(&reactor, 8).expect("a queue");
    let mut silent: Vec<TcpStream> = Vec::new();
    for _ in 0..64 {
        silent.push(TcpStream::connect(served.address).expect("connects"));
    }
    // All but the last are let go; reading of those ends.
    let kept = silent.split_off(60);
    for mut stream in silent {
        assert_eq!(stream.read(&mut [0; 1]).unwrap_or(0), 0);
    }
    assert!(read(&reactor, &mut queue).is_ok());
    assert!(served.change(|_, task| task.connections()) <= 2 + 4);
    drop(kept);
    served.end();
}
