//! Targets with memory behind them on threads of their own, and what hosts on the test's thread
//! need to ask them over loopback sockets.
#![allow(dead_code, reason = "each test crate uses its own part")]

use std::net::SocketAddr;
use std::sync::mpsc;
use std::thread::JoinHandle;

use block_io::device::memory::{MemoryDevice, MemoryQueue};
use block_io::reactor::{MailSender, Mailbox, Reactor, ReactorConfig, Task, Wait};
use block_io::{
    BlockDevice, BlockQueue, Completion, DeviceError, Geometry, PoolLayout, Request, Timestamp,
};
use nvme_fabric::driver::{ConnectOptions, NvmeTcpDevice, TargetTask};
use nvme_fabric::spec::nqn::{HostId, Nqn};
use nvme_fabric::target::{Namespace, Settings, Subsystem, Target};

pub(crate) const SUBSYSTEM: &str = "nqn.2014-08.com.example:subsystem";
pub(crate) const HOST: &str = "nqn.2014-08.com.example:host";
pub(crate) const HOST_ID: HostId = HostId([5; 16]);
pub(crate) const CAPACITY: u64 = 8 << 20;

pub(crate) type MemoryTarget = TargetTask<MemoryQueue>;

type Change = Box<dyn FnOnce(&Reactor, &mut MemoryTarget) + Send>;

pub(crate) fn nqn(name: &str) -> Nqn {
    Nqn::new(name).expect("well formed")
}

pub(crate) fn any_port() -> SocketAddr {
    "127.0.0.1:0".parse().expect("an address")
}

pub(crate) fn reactor() -> Reactor {
    let config =
        ReactorConfig { operations_max: 256, pool: PoolLayout::HEAP, ..ReactorConfig::default() };
    Reactor::new(config).expect("a reactor")
}

/// A namespace in memory with this UUID, and a queue to it.
pub(crate) fn memory(reactor: &Reactor, uuid: u8) -> (Namespace, MemoryQueue) {
    let device = MemoryDevice::with_geometry(Geometry::new(CAPACITY)).expect("a size");
    let queue = device.open_queue(reactor, 256).expect("a queue");
    let namespace = Namespace::new(queue.geometry(), HostId([uuid; 16]));
    (namespace.expect("a good geometry"), queue)
}

/// A target of [`SUBSYSTEM`] with one namespace in memory, which listens nowhere yet; `prepare` is
/// what is special about the subsystem.
pub(crate) fn target(
    reactor: &Reactor,
    settings: Settings,
    prepare: impl FnOnce(&mut Subsystem),
) -> MemoryTarget {
    let (namespace, queue) = memory(reactor, 1);
    let mut subsystem = Subsystem::new(nqn(SUBSYSTEM), "S1").expect("a serial number");
    subsystem.add_namespace(namespace).expect("room");
    prepare(&mut subsystem);
    let target = Target::new(settings).expect("good settings");
    let mut task = TargetTask::new(reactor, target, Vec::new()).expect("random bytes");
    task.add_subsystem(subsystem, vec![queue]).expect("a free name");
    task
}

/// A target task that messages change; the end of the senders stops it.
struct Changeable<'reactor> {
    reactor: &'reactor Reactor,
    task: MemoryTarget,
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

/// A target on a thread of its own, which ends when this goes.
pub(crate) struct Served {
    changes: MailSender<Change>,
    thread: JoinHandle<usize>,
}

impl Served {
    /// Has a thread serve the target that `build` makes there, and returns what else it says: the
    /// addresses, mostly.
    pub(crate) fn start<Value: Send + 'static>(
        build: impl FnOnce(&Reactor) -> (MemoryTarget, Value) + Send + 'static,
    ) -> (Self, Value) {
        let (sender, receiver) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let reactor = reactor();
            let (task, value) = build(&reactor);
            let (changes, mailbox) = reactor.mailbox(4).expect("a mailbox");
            sender.send((changes, value)).expect("the test waits");
            let mut task =
                Changeable { reactor: &reactor, task, changes: mailbox, is_stopping: false };
            reactor.run(&mut task).expect("runs");
            let left = task.task.connections();
            drop(task);
            reactor.turn(Wait::No).expect("turns");
            left + reactor.operations_in_flight()
        });
        let (changes, value) = receiver.recv().expect("the target listens");
        (Self { changes, thread }, value)
    }

    /// Changes the target, and returns what comes of it.
    pub(crate) fn change<Value: Send + 'static>(
        &self,
        change: impl FnOnce(&Reactor, &mut MemoryTarget) -> Value + Send + 'static,
    ) -> Value {
        let (sender, receiver) = mpsc::channel();
        let change: Change = Box::new(move |reactor, task| {
            sender.send(change(reactor, task)).expect("the test waits");
        });
        assert!(self.changes.send(change).is_ok(), "room");
        receiver.recv().expect("the target lives")
    }

    /// Stops the target, which must leave nothing behind.
    pub(crate) fn end(self) {
        drop(self.changes);
        assert_eq!(self.thread.join().expect("no panic"), 0, "nothing is left in flight");
    }
}

/// The options of [`HOST`] for namespace 1 of [`SUBSYSTEM`].
pub(crate) fn options(port: u16) -> ConnectOptions {
    let options = ConnectOptions::new("127.0.0.1", nqn(SUBSYSTEM), nqn(HOST), HOST_ID);
    ConnectOptions { port, ..options }
}

pub(crate) fn connect(options: &ConnectOptions) -> Result<(Reactor, NvmeTcpDevice), DeviceError> {
    let reactor = reactor();
    let device = NvmeTcpDevice::connect(&reactor, options)?;
    Ok((reactor, device))
}

/// Why it cannot connect.
pub(crate) fn refusal(options: &ConnectOptions) -> String {
    connect(options).map(|_| ()).expect_err("refused").to_string()
}

/// Runs a request to its end.
pub(crate) fn run(reactor: &Reactor, queue: &mut impl BlockQueue, request: Request) -> Completion {
    reactor.run_request(queue, request).expect("turns")
}
