//! Storms over real sockets: hosts that come and are gone in every phase of a connection's life,
//! and thousands that connect and say nothing. Afterwards the process holds as much memory and as
//! many descriptors as before, and a sound host is served.
//!
//! ```text
//!   test ──raw streams, cut in phase n──▶ TargetTask on its thread    (counting allocator)
//!   child process ──holds n streams open──▶ TargetTask
//! ```
//! `FOREBAY_STORM=full` makes it 1,000 connections of each form and 10,000 half-open ones; without,
//! a tenth. Absent: traffic while it storms, and how long anything takes.

#![allow(clippy::print_stdout, reason = "a storm says what was held, and tells another process")]

mod raw;

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use block_io::device::memory::{MemoryDevice, MemoryQueue};
use block_io::reactor::{MailSender, Mailbox, Reactor, ReactorConfig, Task};
use block_io::{BlockDevice, Geometry, PoolLayout, Timestamp};
use nvme_fabric::driver::target::{Service, TargetTask};
use nvme_fabric::driver::{ConnectOptions, NvmeTcpDevice};
use nvme_fabric::spec::nqn::{HostId, Nqn};
use nvme_fabric::target::{Namespace, Settings, Subsystem, Target};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use raw::{CUTS, Cut, cut};

/// Live bytes of the whole process.
struct Counting;

static LIVE: AtomicI64 = AtomicI64::new(0);

// SAFETY: the system's allocator does the work; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(layout.size() as i64, Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size() as i64, Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Memory and descriptors are the whole process's, so one storm at a time.
static ALONE: Mutex<()> = Mutex::new(());

/// Of `/proc/self/fd` and lists that keep their capacity.
const MEMORY_TOLERANCE: i64 = 64 << 10;

const SUBSYSTEM: &str = "nqn.2024-01.io.forebay:storm";
const HOST: &str = "nqn.2014-08.com.example:host";

fn alone() -> MutexGuard<'static, ()> {
    let guard = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    setrlimit(Resource::Nofile, raised).expect("the soft limit may be as high as the hard one");
    guard
}

fn is_full() -> bool {
    std::env::var_os("FOREBAY_STORM").is_some_and(|value| value == "full")
}

fn nqn(name: &str) -> Nqn {
    Nqn::new(name).expect("well formed")
}

/// A target task that tells how many connections it has.
struct Watched {
    task: TargetTask<MemoryQueue>,
    stop: Mailbox<()>,
    connections: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
}

impl Task for Watched {
    fn poll(&mut self, now: Timestamp) -> bool {
        let stop = self.stop.receive().is_some();
        if stop {
            self.task.stop();
        }
        let progress = self.task.poll(now);
        self.most.fetch_max(self.task.connections(), Ordering::SeqCst);
        self.connections.store(self.task.connections(), Ordering::SeqCst);
        progress | stop
    }
    fn is_finished(&self) -> bool {
        self.task.is_finished()
    }
}

/// A target on a thread of its own.
struct Served {
    address: SocketAddr,
    /// The same subsystem, where TLS is offered too.
    #[cfg(feature = "tls")]
    with_tls: SocketAddr,
    connections: Arc<AtomicUsize>,
    /// The most connections that there were.
    most: Arc<AtomicUsize>,
    stop: MailSender<()>,
    thread: JoinHandle<()>,
}

fn task(reactor: &Reactor, unconnected_max: usize) -> TargetTask<MemoryQueue> {
    let device = MemoryDevice::new(1 << 20).expect("a size");
    let geometry: Geometry = BlockDevice::<Reactor>::geometry(&device);
    let mut subsystem = Subsystem::new(nqn(SUBSYSTEM), "S1").expect("a serial number");
    let namespace = Namespace::new(geometry, HostId([3; 16])).expect("a good geometry");
    subsystem.add_namespace(namespace).expect("room");
    // The storm decides when a connection ends, not the clock.
    let handshake_timeout = Duration::from_secs(3600);
    let settings = Settings { handshake_timeout, unconnected_max, ..Settings::default() };
    let mut target = Target::new(settings).expect("good settings");
    target.add_subsystem(subsystem).expect("a free name");
    let queue = device.open_queue(reactor, 256).expect("a queue");
    TargetTask::new(reactor, target, vec![vec![queue]]).expect("a queue each")
}

/// With TLS, for hosts that want it.
#[cfg(feature = "tls")]
fn listen_with_tls(task: &mut TargetTask<MemoryQueue>, any: SocketAddr) -> SocketAddr {
    use nvme_fabric::target::SecureChannel;
    use nvme_fabric::tls::{ConfiguredPsk, Keyring};
    let mut keyring = Keyring::new().expect("the library works");
    let key = ConfiguredPsk::new(&[0x5a; 32]).expect("a key");
    keyring.allow(&nqn(HOST), &nqn(SUBSYSTEM), &key).expect("derives");
    let keyring = std::rc::Rc::new(keyring);
    task.listen_with_tls(any, Service::Subsystems, SecureChannel::Offered, &keyring)
        .expect("a free port")
}

fn reactor() -> Reactor {
    let config = ReactorConfig {
        operations_max: 32 << 10,
        pool: PoolLayout::HEAP,
        ..ReactorConfig::default()
    };
    Reactor::new(config).expect("a reactor")
}

fn serve(unconnected_max: usize) -> Served {
    let (sender, receiver) = mpsc::channel();
    let thread = std::thread::spawn(move || {
        let reactor = reactor();
        let mut task = task(&reactor, unconnected_max);
        let any = "127.0.0.1:0".parse().expect("an address");
        let address = task.listen(any, Service::Subsystems).expect("a free port");
        #[cfg(feature = "tls")]
        let with_tls = listen_with_tls(&mut task, any);
        #[cfg(not(feature = "tls"))]
        let with_tls = address;
        let (stop, mailbox) = reactor.mailbox(4).expect("a mailbox");
        let connections = Arc::new(AtomicUsize::new(0));
        let most = Arc::new(AtomicUsize::new(0));
        let told = (address, with_tls, stop, Arc::clone(&connections), Arc::clone(&most));
        sender.send(told).expect("the test waits");
        reactor.run(&mut Watched { task, stop: mailbox, connections, most }).expect("runs");
    });
    let (address, _with_tls, stop, connections, most) =
        receiver.recv().expect("the target listens");
    Served {
        address,
        #[cfg(feature = "tls")]
        with_tls: _with_tls,
        connections,
        most,
        stop,
        thread,
    }
}

impl Served {
    /// Where such a connection goes.
    fn address_for(&self, cut: Cut) -> SocketAddr {
        #[cfg(feature = "tls")]
        if matches!(cut, Cut::InHandshake | Cut::AfterClientHello) {
            return self.with_tls;
        }
        let _ = cut;
        self.address
    }

    /// Waits until there are so many connections.
    fn wait_for(&self, count: usize) {
        while self.connections.load(Ordering::SeqCst) != count {
            assert!(!self.thread.is_finished(), "the target's thread has ended");
            std::thread::yield_now();
        }
    }

    fn stop(self) {
        self.stop.send(()).expect("room");
        self.thread.join().expect("no panic");
    }
}

/// What the process holds.
#[derive(Debug)]
struct Holdings {
    memory: i64,
    descriptors: usize,
}

impl Holdings {
    fn now() -> Self {
        let descriptors = std::fs::read_dir("/proc/self/fd").expect("of Linux").count();
        Self { memory: LIVE.load(Ordering::SeqCst), descriptors }
    }

    /// Fails when there is more than there was.
    #[track_caller]
    fn check_against(&self, before: &Self, what: &str) {
        println!("{what}: {before:?} before, {self:?} after");
        assert_eq!(self.descriptors, before.descriptors, "{what}: descriptors");
        let more = self.memory - before.memory;
        assert!(more <= MEMORY_TOLERANCE, "{what}: {more} bytes more than before");
    }
}

fn sound_host(address: SocketAddr) {
    let reactor = reactor();
    let mut options = ConnectOptions::new("127.0.0.1", nqn(SUBSYSTEM), nqn(HOST), HostId([5; 16]));
    options.port = address.port();
    let device = NvmeTcpDevice::connect(&reactor, &options).expect("a sound host is served");
    device.shut_down(&reactor).expect("shuts down");
}

#[test]
fn connections_cut_in_every_phase_leave_nothing_behind() {
    let _guard = alone();
    let served = serve(Settings::default().unconnected_max);
    let storm = |rounds: usize| {
        for form in CUTS {
            for round in 0..rounds {
                cut(served.address_for(*form), *form, round % 2 == 1);
            }
        }
        // Every one has been accepted when a later one is served.
        sound_host(served.address);
        served.wait_for(0);
    };
    storm(4);
    let before = Holdings::now();
    storm(if is_full() { 1000 } else { 100 });
    Holdings::now().check_against(&before, "cut connections");
    served.stop();
}

#[test]
fn half_open_connections_leave_nothing_behind() {
    let _guard = alone();
    let wanted = if is_full() { 10_000 } else { 1_000 };
    let limit = getrlimit(Resource::Nofile).maximum.map_or(wanted, |limit| limit as usize - 200);
    let count = wanted.min(limit);
    let served = serve(count + 10);
    let storm = || {
        let mut child = hold_open(served.address, count);
        served.wait_for(count);
        let held = Holdings::now();
        sound_host(served.address);
        child.kill().expect("it is ours");
        child.wait().expect("ends");
        served.wait_for(0);
        held
    };
    // The first storm makes the tables as large as they will be.
    storm();
    let before = Holdings::now();
    let held = storm();
    println!("{count} half-open: {held:?} while they are there");
    assert!(held.descriptors >= before.descriptors + count, "they were all there at once");
    Holdings::now().check_against(&before, "half-open connections");
    served.stop();
}

#[test]
fn more_half_open_connections_than_are_allowed_do_not_keep_a_sound_host_out() {
    let _guard = alone();
    let allowed = 100;
    let served = serve(allowed);
    let count = if is_full() { 10_000 } else { 1_000 };
    let mut child = hold_open(served.address, count);
    sound_host(served.address);
    let most = served.most.load(Ordering::SeqCst);
    println!("{count} half-open, {allowed} allowed: at most {most} connections");
    // A sound host has two; one more may be about to end at any time.
    assert!(most <= allowed + 8, "{most} connections at a time");
    child.kill().expect("it is ours");
    child.wait().expect("ends");
    served.wait_for(0);
    served.stop();
}

/// A process that holds streams open: this program again, for a process may not have descriptors
/// for both ends of so many. It ends when it is killed.
fn hold_open(address: SocketAddr, count: usize) -> Child {
    let mut child = Command::new(std::env::current_exe().expect("this program"))
        .args(["--exact", "holds_streams_open_for_another_process", "--nocapture"])
        .env("FOREBAY_STORM_CLIENT", format!("{address}*{count}"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("starts");
    let mut output = BufReader::new(child.stdout.take().expect("piped"));
    let mut line = String::new();
    while !line.contains("all open") {
        line.clear();
        let length = output.read_line(&mut line).expect("text");
        assert!(length > 0, "the other process could not connect");
    }
    // The runner there may have something to say while the streams are open.
    child.stdout = Some(output.into_inner());
    child
}

/// The other process of [`half_open_connections_leave_nothing_behind`]; does nothing by itself.
#[test]
fn holds_streams_open_for_another_process() {
    let Ok(words) = std::env::var("FOREBAY_STORM_CLIENT") else { return };
    drop(alone());
    let (address, count) = words.split_once('*').expect("an address and a count");
    let address: SocketAddr = address.parse().expect("an address");
    let count: usize = count.parse().expect("a count");
    let streams: Vec<_> =
        (0..count).map(|_| TcpStream::connect(address).expect("connects")).collect();
    println!("all open");
    // Until the other process closes its end, at the latest when it has died.
    let _ = std::io::stdin().read(&mut [0]);
    drop(streams);
}
