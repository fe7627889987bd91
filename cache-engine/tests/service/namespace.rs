//! Volumes on a namespace that grows while they are served, and whose target goes away.

use std::net::SocketAddr;
use std::sync::mpsc;
use std::thread::JoinHandle;

use block_io::device::memory::{MemoryDevice, MemoryQueue};
use block_io::reactor::{MailSender, Mailbox, Reactor, ReactorConfig, Task};
use block_io::{BlockDevice, Geometry, PoolLayout, Timestamp};
use nvme_fabric::driver::target::{Service as Served, TargetTask};
use nvme_fabric::spec::nqn::{HostId, Nqn};
use nvme_fabric::target::{Namespace, NamespaceKey, Settings, Subsystem, Target};

use super::load::{read, write};
use super::{Machine, SIZE};

pub(super) const SUBSYSTEM: &str = "nqn.2014-08.com.example:grows";

/// A target whose namespace can be given another size; none ends it.
struct Resizable {
    task: TargetTask<MemoryQueue>,
    sizes: Mailbox<Option<u64>>,
}

impl Task for Resizable {
    fn poll(&mut self, now: Timestamp) -> bool {
        let Some(size) = self.sizes.receive() else { return self.task.poll(now) };
        match size {
            Some(size) => {
                let key = NamespaceKey { subsystem: 0, namespace: 0 };
                let geometry = Geometry::new(size);
                self.task.target_mut().resize(key, geometry).expect("a size");
            }
            None => self.task.stop(),
        }
        self.task.poll(now);
        true
    }

    fn is_finished(&self) -> bool {
        self.task.is_finished()
    }
}

pub(super) struct Running {
    pub(super) address: SocketAddr,
    sizes: MailSender<Option<u64>>,
    thread: JoinHandle<()>,
}

impl Running {
    fn start() -> Self {
        Self::start_at("127.0.0.1:0".parse().expect("an address"))
    }

    /// A namespace of [`SIZE`] bytes on a device of twice as many; always the same one.
    pub(super) fn start_at(listen: SocketAddr) -> Self {
        Self::start_as(listen, 3)
    }

    /// The namespace with this number.
    fn start_as(listen: SocketAddr, number: u8) -> Self {
        let (sender, receiver) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let config = ReactorConfig { pool: PoolLayout::HEAP, ..ReactorConfig::default() };
            let reactor = Reactor::new(config).expect("a reactor");
            let device = MemoryDevice::new(2 * SIZE).expect("a size");
            let name = Nqn::new(SUBSYSTEM).expect("well formed");
            let mut subsystem = Subsystem::new(name, "1").expect("a serial number");
            let namespace =
                Namespace::new(Geometry::new(SIZE), HostId([number; 16])).expect("good");
            subsystem.add_namespace(namespace).expect("room");
            let mut target = Target::new(Settings::default()).expect("good settings");
            target.add_subsystem(subsystem).expect("a free name");
            let queue = device.open_queue(&reactor, 256).expect("a queue");
            let mut task = TargetTask::new(&reactor, target, vec![vec![queue]]).expect("a task");
            let address = task.listen(listen, Served::Subsystems).expect("a free port");
            let (sizes, mailbox) = reactor.mailbox(4).expect("a mailbox");
            sender.send((address, sizes)).expect("the test waits");
            reactor.run(&mut Resizable { task, sizes: mailbox }).expect("runs");
        });
        let (address, sizes) = receiver.recv().expect("it listens");
        Self { address, sizes, thread }
    }

    /// Of the configuration file: the volume `a` on it.
    fn volume(&self, machine: &Machine) -> String {
        let (address, export) = (self.address, machine.export("a"));
        format!(
            "[[volume]]\nname = 'a'\nexports = ['{export}']\norigin = \
             'nvme+tcp://{address}/{SUBSYSTEM}?hostnqn=nqn.2014-08.com.example:host&\
             fast-io-fail-tmo=0'\n"
        )
    }

    fn resize(&self, size: u64) {
        self.sizes.send(Some(size)).expect("it runs");
    }

    pub(super) fn stop(self) {
        self.sizes.send(None).expect("it runs");
        self.thread.join().expect("no panic");
    }
}

#[test]
fn a_cached_volume_grows_with_its_namespace_and_its_association_is_listed() {
    let machine = Machine::new(&[]);
    let target = Running::start();
    let mut service = machine.start(&(machine.head("cache") + &target.volume(&machine)));
    let mut before = service.client("a");
    write(&mut before, SIZE - 4096, &[7; 4096]);
    let list = |service: &super::Service<'_>| service.json(&["nvme", "list"])[0].clone();
    let found = list(&service);
    for (field, expected) in [
        ("volume", "a"),
        ("subsystem", SUBSYSTEM),
        ("transport", "tcp"),
        ("state", "live"),
        ("host", "nqn.2014-08.com.example:host"),
    ] {
        assert_eq!(found[field], expected, "{found}");
    }
    assert_eq!(found["address"], target.address.to_string());
    assert_eq!((&found["namespace_id"], &found["io_queues"]), (&1.into(), &1.into()));
    assert!(found["live_seconds"].is_number() && found["fault"].is_null(), "{found}");
    target.resize(2 * SIZE);
    service.wait_until_it_says("volume 'a': has 8388608 bytes now, 4194304 before");
    let mut after = service.client("a");
    assert_eq!((before.capacity(), after.capacity()), (SIZE, 2 * SIZE));
    write(&mut after, 2 * SIZE - 4096, &[9; 4096]);
    assert_eq!(read(&mut after, SIZE - 4096, 4096), [7; 4096]);
    assert_eq!(read(&mut after, 2 * SIZE - 4096, 4096), [9; 4096]);
    assert_eq!(list(&service)["namespace_changes"], 1);
    assert!(service.told(&["nvme", "list"]).contains("live"));
    // Less is not taken by itself.
    target.resize(SIZE);
    service.wait_until_it_says("volume 'a': its origin has shrunk from 8388608 to 4194304 bytes");
    assert_eq!(service.volume("a")["size_bytes"], 2 * SIZE);
    target.stop();
    service.wait_until_it_says("the origin is lost");
    let lost = list(&service);
    assert!(lost["fault"].is_string() && lost["paths"][0]["state"] != "live", "{lost}");
    before.disconnect().expect("sent");
    after.disconnect().expect("sent");
    service.kill();
}

#[test]
fn an_origin_alone_grows_although_nobody_can_ask() {
    let machine = Machine::new(&[]);
    let target = Running::start();
    let mut service = machine.start(&target.volume(&machine));
    assert_eq!(service.client("a").capacity(), SIZE);
    target.resize(2 * SIZE);
    service.wait_until_it_says("volume 'a': has 8388608 bytes now, 4194304 before");
    let mut after = service.client("a");
    assert_eq!(after.capacity(), 2 * SIZE);
    write(&mut after, 2 * SIZE - 4096, &[9; 4096]);
    after.disconnect().expect("sent");
    service.stop();
    target.stop();
}

#[test]
fn no_hit_is_served_once_another_namespace_is_found_where_the_origin_was() {
    let machine = Machine::new(&[]);
    let target = Running::start();
    let address = target.address;
    let volume = target.volume(&machine).replace("tmo=0'", "tmo=0&reconnect-delay=1'");
    let mut service = machine.start(&(machine.head("cache") + &volume));
    let mut client = service.client("a");
    write(&mut client, 0, &[7; 4096]);
    target.stop();
    service.wait_until_it_says("volume 'a': the origin is lost, its requests fail");
    assert_eq!(read(&mut client, 0, 4096), [7; 4096], "a hit: the origin may come back");

    let other = Running::start_as(address, 4);
    service.wait_until_it_says("volume 'a': its origin is another device now");
    client.read(1, 0, 4096);
    client.send().expect("sent");
    assert_ne!(client.reply().expect("answered").error, 0, "not a byte of the one before");
    let fault = service.volume("a")["fault"].as_str().expect("there is one").to_owned();
    assert!(fault.contains("another namespace: its UUID is 04040404"), "{fault}");
    client.disconnect().expect("sent");
    other.stop();

    // The one before is back, and nothing that was cached of it is used before it is added again.
    let target = Running::start_at(address);
    service.told(&["volume", "remove", "a"]);
    let uri = volume.split("origin = '").nth(1).and_then(|rest| rest.split('\'').next());
    let (origin, export) = (uri.expect("a URI"), machine.export("a"));
    let added = service.json(&["volume", "add", "a", "--origin", origin, "--export", &export]);
    assert_eq!(added["start"], "cold");
    let mut client = service.client("a");
    assert_eq!(read(&mut client, 0, 4096), [0; 4096], "what this target has");
    client.disconnect().expect("sent");
    service.stop();
    target.stop();
}
