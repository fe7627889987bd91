//! The server over real sockets on this machine, its clients in a thread of their own.

mod handover;

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use block_io::device::memory::{MemoryDevice, MemoryQueue};
use block_io::device::shared::SharedQueue;
use block_io::reactor::{MailSender, Mailbox, Reactor, ReactorConfig, Task};
use block_io::{
    BlockDevice, BlockQueue, Completion, Extent, Geometry, PoolLayout, Request, Timestamp,
};

use super::{NbdServer, ServerOptions, ServerStatistics};
use crate::frontend::nbd::address::Transport;
use crate::frontend::nbd::protocol::tests::wire::{go, option, request, simple};

mod exports;

const SIZE: u64 = 64 << 20;

/// A queue whose requests stay in flight for as many polls as `delay` says.
struct Slow {
    inner: MemoryQueue,
    waiting: Vec<(u32, Request)>,
    delay: fn(&Request) -> u32,
}

impl BlockQueue for Slow {
    fn geometry(&self) -> Geometry {
        self.inner.geometry()
    }

    fn submit(&mut self, request: Request) -> Result<(), Request> {
        if self.in_flight() == 32 {
            return Err(request);
        }
        self.waiting.push(((self.delay)(&request), request));
        Ok(())
    }

    fn poll(&mut self, now: Timestamp, completions: &mut Vec<Completion>) -> bool {
        let progress = !self.waiting.is_empty();
        let (ready, waiting) = self.waiting.drain(..).partition(|(polls, _)| *polls == 0);
        self.waiting = waiting;
        self.waiting.iter_mut().for_each(|(polls, _)| *polls -= 1);
        for (_, request) in ready {
            self.inner.submit(request).expect("as deep as this one");
        }
        self.inner.poll(now, completions) || progress
    }

    fn in_flight(&self) -> usize {
        self.inner.in_flight() + self.waiting.len()
    }
}

/// The server and the wish to end it.
struct Served {
    server: NbdServer<Slow>,
    stop: Mailbox<()>,
}

impl Task for Served {
    fn poll(&mut self, now: Timestamp) -> bool {
        if self.stop.receive().is_some() || self.stop.is_closed() {
            self.server.shutdown();
        }
        self.server.poll(now)
    }

    fn is_finished(&self) -> bool {
        self.server.is_finished()
    }
}

struct Setting {
    options: ServerOptions,
    delay: fn(&Request) -> u32,
}

impl Default for Setting {
    fn default() -> Self {
        Self { options: ServerOptions::default(), delay: |_| 3 }
    }
}

/// Runs `clients` against a server; when they return it is shut down.
fn run(
    setting: Setting,
    transport: &Transport,
    clients: impl FnOnce(Transport) + Send,
) -> (MemoryDevice, ServerStatistics) {
    // The sender goes with the thread, so that a panic of a client's ends the server too.
    run_to_stop(setting, transport, |transport, _stopper| clients(transport))
}

/// The same; the server is shut down when the sender is dropped or used.
fn run_to_stop(
    setting: Setting,
    transport: &Transport,
    clients: impl FnOnce(Transport, MailSender<()>) + Send,
) -> (MemoryDevice, ServerStatistics) {
    let pool =
        PoolLayout { classes: [(4096, 64), (16384, 8), (65536, 8), (1 << 18, 2), (1 << 20, 2)] };
    let reactor =
        Reactor::new(ReactorConfig { pool, ..ReactorConfig::default() }).expect("io_uring");
    let device = MemoryDevice::new(SIZE).expect("a sound size");
    let inner = BlockDevice::<()>::open_queue(&device, &(), 32).expect("opens");
    let queue = Slow { inner, waiting: Vec::new(), delay: setting.delay };
    let mut server = NbdServer::new(&reactor, setting.options);
    server.add_export("disk", "", SharedQueue::new(queue)).expect("a free name");
    let bound = server.listen(transport).expect("listens");
    let (stopper, stop) = reactor.mailbox(1).expect("a mailbox");
    let mut served = Served { server, stop };
    std::thread::scope(|scope| {
        scope.spawn(move || clients(bound, stopper));
        reactor.run(&mut served).expect("runs");
    });
    let statistics = served.server.statistics();
    drop(served);
    if let Transport::Unix(path) = transport {
        assert!(!path.exists(), "the socket file is removed");
    }
    (device, statistics)
}

trait Socket: Read + Write + Send {}
impl<Stream: Read + Write + Send> Socket for Stream {}

struct Peer(Box<dyn Socket>);

impl Peer {
    /// A connection that has read the greeting.
    fn connect(transport: &Transport) -> Self {
        let mut peer = match transport {
            Transport::Tcp { host, port } => {
                Self(Box::new(TcpStream::connect((host.as_str(), *port)).expect("connects")))
            }
            Transport::Unix(path) => Self(Box::new(UnixStream::connect(path).expect("connects"))),
        };
        assert_eq!(peer.read(18), b"NBDMAGICIHAVEOPT\x00\x03");
        peer
    }

    /// A connection in transmission, with simple replies.
    fn enter(transport: &Transport) -> Self {
        let mut peer = Self::connect(transport);
        peer.write(&[&3_u32.to_be_bytes()[..], &option(7, &go("disk", &[]))].concat());
        assert!(peer.read(32 + 34 + 20).ends_with(&[0, 0, 0, 7, 0, 0, 0, 1, 0, 0, 0, 0]));
        peer
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).expect("the server takes it");
    }

    fn read(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.0.read_exact(&mut bytes).expect("the server answers");
        bytes
    }

    /// Reads on to the end of the stream.
    fn rest(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        match self.0.read_to_end(&mut bytes) {
            Ok(_) => {}
            // A TCP socket closed with bytes unread says so.
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
        }
        bytes
    }
}

fn unix(name: &str) -> (tempfile::TempDir, Transport) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join(name);
    (folder, Transport::Unix(path))
}

fn pattern(length: usize, seed: u64) -> Vec<u8> {
    let mut state = seed | 1;
    let words = (0..length.div_ceil(8)).flat_map(|_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        state.to_le_bytes()
    });
    words.take(length).collect()
}

fn write_request(cookie: u64, offset: u64, data: &[u8]) -> Vec<u8> {
    [&request(0, 1, cookie, offset, data.len() as u32)[..], data].concat()
}

fn exchange_everything(transport: Transport) {
    let mut peer = Peer::enter(&transport);
    // 200 writes at once, more than may be in flight, of sizes around the staging buffer's.
    let sizes = [512, 4096, 65_536, 65_024, 131_072, 1024];
    let mut offset = 0;
    let mut writes = Vec::new();
    for cookie in 0..200 {
        let data = pattern(sizes[cookie % sizes.len()], cookie as u64);
        writes.push((offset, data.clone()));
        offset += data.len() as u64;
    }
    let all: Vec<u8> = writes
        .iter()
        .enumerate()
        .flat_map(|(cookie, (offset, data))| write_request(cookie as u64, *offset, data))
        .collect();
    peer.write(&all);
    let mut replies: Vec<_> = (0..200).map(|_| peer.read(16)).collect();
    replies.sort();
    assert!(replies.iter().enumerate().all(|(cookie, reply)| *reply == simple(0, cookie as u64)));
    for (cookie, (offset, data)) in writes.iter().enumerate() {
        peer.write(&request(0, 0, cookie as u64, *offset, data.len() as u32));
        assert_eq!(peer.read(16), simple(0, cookie as u64));
        assert!(peer.read(data.len()) == *data, "cookie {cookie}");
    }
    // The largest payload there may be, in parts to the device.
    let data = pattern(32 << 20, 77);
    peer.write(&write_request(1, 512, &data));
    assert_eq!(peer.read(16), simple(0, 1));
    peer.write(&request(0, 0, 2, 512, 32 << 20));
    assert_eq!(peer.read(16), simple(0, 2));
    assert!(peer.read(32 << 20) == data);
    peer.write(&[request(0, 3, 3, 0, 0), request(0, 2, 4, 0, 0)].concat());
    assert_eq!(peer.rest(), simple(0, 3));
}

#[test]
fn every_byte_arrives_over_unix_sockets() {
    let (_folder, transport) = unix("s");
    let (device, statistics) = run(Setting::default(), &transport, exchange_everything);
    assert!(device.content(Extent::new(512, 32 << 20)) == pattern(32 << 20, 77));
    let expected = ServerStatistics { connections_total: 1, ..ServerStatistics::default() };
    assert_eq!(statistics, expected);
}

#[test]
fn every_byte_arrives_over_tcp() {
    let transport = Transport::Tcp { host: "127.0.0.1".into(), port: 0 };
    run(Setting::default(), &transport, exchange_everything);
}

#[test]
fn a_client_that_vanishes_leaves_nothing_behind() {
    let (_folder, transport) = unix("s");
    let setting = Setting { delay: |_| 20, ..Setting::default() };
    let (device, statistics) = run(setting, &transport, |transport| {
        for cut in [1, 27, 28, 29, 2000] {
            let mut peer = Peer::enter(&transport);
            peer.write(&write_request(1, 4096, &[7; 4096])[..cut]);
        }
        // Whole requests whose answers nobody waits for.
        let mut peer = Peer::enter(&transport);
        peer.write(&write_request(1, 8192, &[8; 4096]).repeat(20));
        drop(peer);
        let mut peer = Peer::enter(&transport);
        peer.write(&request(0, 3, 9, 0, 0));
        assert_eq!(peer.read(16), simple(0, 9));
    });
    assert_eq!(device.content(Extent::new(4096, 4096)), [0; 4096], "incomplete writes are dropped");
    assert_eq!((statistics.connections, statistics.connections_total), (0, 7));
}

#[test]
fn a_client_that_never_reads_hinders_nobody() {
    let (_folder, transport) = unix("s");
    let grace = Duration::from_millis(1);
    let options = ServerOptions { shutdown_grace: grace, ..ServerOptions::default() };
    run(Setting { options, delay: |_| 1 }, &transport, |transport| {
        let mut stuck = Peer::enter(&transport);
        stuck.write(&request(0, 0, 1, 0, 1 << 20).repeat(100));
        let mut peer = Peer::enter(&transport);
        for cookie in 0..500 {
            peer.write(&request(0, 0, cookie, 0, 512));
            assert_eq!(peer.read(16 + 512)[..16], simple(0, cookie));
        }
        // The server ends with the stuck client still there: its time of grace is short.
        std::mem::forget(stuck);
    });
}

#[test]
fn clients_beyond_the_limit_wait_for_a_place() {
    let (_folder, transport) = unix("s");
    let options = ServerOptions { connections_max: 2, ..ServerOptions::default() };
    run(Setting { options, delay: |_| 0 }, &transport, |transport| {
        let one = Peer::enter(&transport);
        let _two = Peer::enter(&transport);
        let Transport::Unix(path) = &transport else { panic!("a Unix socket") };
        let mut three = UnixStream::connect(path).expect("the backlog takes it");
        three.set_nonblocking(true).expect("a socket");
        let nothing = three.read(&mut [0]).expect_err("no greeting yet");
        assert_eq!(nothing.kind(), ErrorKind::WouldBlock);
        drop(one);
        three.set_nonblocking(false).expect("a socket");
        three.read_exact(&mut [0; 18]).expect("the greeting, now that there is a place");
    });
}

#[test]
fn faults_and_dawdlers_are_disconnected() {
    let (_folder, transport) = unix("s");
    let negotiation_timeout = Duration::from_millis(50);
    let options = ServerOptions { negotiation_timeout, ..ServerOptions::default() };
    let (_, statistics) = run(Setting { options, delay: |_| 0 }, &transport, |transport| {
        let mut dawdler = Peer::connect(&transport);
        assert_eq!(dawdler.rest(), b"");
        let mut stranger = Peer::connect(&transport);
        stranger.write(b"GET / HTTP/1.1\r\n\r\n");
        stranger.rest();
        let mut broken = Peer::enter(&transport);
        broken.write(&[0; 28]);
        broken.rest();
        let mut good = Peer::enter(&transport);
        good.write(&request(0, 2, 0, 0, 0));
        assert_eq!(good.rest(), b"");
    });
    assert_eq!((statistics.connections_total, statistics.connections_at_fault), (4, 3));
}

#[test]
fn shutdown_answers_what_is_in_flight() {
    let (_folder, transport) = unix("s");
    let delay = |request: &Request| (request.extent.offset / 512) as u32 * 5000;
    let setting = Setting { delay, ..Setting::default() };
    let (device, _) = run_to_stop(setting, &transport, |transport, stopper| {
        let mut peer = Peer::enter(&transport);
        let writes: Vec<u8> = (0..8)
            .flat_map(|cookie| write_request(cookie, cookie * 512, &[cookie as u8; 512]))
            .collect();
        peer.write(&writes);
        assert_eq!(peer.read(16), simple(0, 0));
        stopper.send(()).expect("the server runs");
        let answers: Vec<u8> = (1..8).flat_map(|cookie| simple(0, cookie)).collect();
        assert_eq!(peer.rest(), answers);
    });
    assert_eq!(device.content(Extent::new(3584, 512)), [7; 512]);
}

#[test]
fn requests_of_a_client_that_is_gone_are_brought_to_their_end() {
    let (_folder, transport) = unix("s");
    let delay = |request: &Request| (request.extent.offset / 512) as u32 * 1000;
    let setting = Setting { delay, ..Setting::default() };
    let (device, _) = run(setting, &transport, |transport| {
        let mut peer = Peer::enter(&transport);
        let writes: Vec<u8> =
            (0..8).flat_map(|cookie| write_request(cookie, cookie * 512, &[9; 512])).collect();
        peer.write(&writes);
        assert_eq!(peer.read(16), simple(0, 0), "so the others are in flight");
    });
    assert_eq!(device.content(Extent::new(0, 4096)), [9; 4096]);
}

#[test]
fn exports_and_listeners_are_checked() {
    let reactor =
        Reactor::new(ReactorConfig { pool: PoolLayout::HEAP, ..ReactorConfig::default() })
            .expect("io_uring");
    let device = MemoryDevice::new(SIZE).expect("a sound size");
    let queue = BlockDevice::<()>::open_queue(&device, &(), 32).expect("opens");
    let queue = SharedQueue::new(queue);
    let mut server = NbdServer::new(&reactor, ServerOptions::default());
    server.add_export("a", "", queue.another()).expect("free");
    let taken = server.add_export("a", "", queue.another()).expect_err("taken");
    assert!(taken.to_string().contains("'a'"), "{taken}");
    let long = server.add_export(&"x".repeat(4097), "", queue.another()).expect_err("long");
    assert!(long.to_string().contains("export name: 4097 bytes"), "{long}");
    let (_folder, transport) = unix("s");
    assert_eq!(server.listen(&transport).expect("listens"), transport);
    assert_eq!(server.listen(&transport).expect("listens already"), transport);
    let tcp = Transport::Tcp { host: "127.0.0.1".into(), port: 0 };
    let bound = server.listen(&tcp).expect("listens");
    assert_ne!(bound, tcp);
    assert!(server.listen(&bound).is_err(), "in use");
    let nowhere = Transport::Tcp { host: "host.invalid".into(), port: 1 };
    assert!(server.listen(&nowhere).expect_err("unknown").to_string().contains("host.invalid"));
}
