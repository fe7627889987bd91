//! The reactor against the real kernel: files, sockets, timers, mailboxes and their ends.

use std::os::fd::OwnedFd;
use std::time::Duration;

use block_io::device::memory::MemoryDevice;
use block_io::reactor::{
    Descriptor, Event, MailSender, Mailbox, PIECES_MAX, Port, Reactor, ReactorConfig,
    SocketAddress, Task, Wait, socket,
};
use block_io::sim::Random;
use block_io::{
    BlockDevice, BlockQueue, Buffer, IoError, PoolLayout, Request, RequestId, Timestamp,
};

const POOL: PoolLayout =
    PoolLayout { classes: [(4096, 64), (65536, 4), (1 << 20, 0), (2 << 20, 0), (4 << 20, 0)] };

fn reactor(operations_max: usize) -> Reactor {
    Reactor::new(ReactorConfig { operations_max, pool: POOL, ..Default::default() })
        .expect("this kernel has io_uring")
}

fn next(reactor: &Reactor, port: &Port) -> Event {
    loop {
        if let Some(event) = port.next_event() {
            return event;
        }
        reactor.turn(Wait::ForEvent).expect("turns");
    }
}

#[test]
fn a_file_is_written_and_read_back() {
    let reactor = reactor(16);
    let port = reactor.open_port();
    let file = Descriptor::from(OwnedFd::from(tempfile::tempfile().expect("a file")));
    assert!(reactor.register(&file), "{}", reactor.features());
    let buffer = reactor.pool().allocate(4096);
    buffer.fill(7);
    port.write_at(&file, 4096, &buffer, true, 1);
    let event = next(&reactor, &port);
    assert_eq!((event.token, event.result), (1, Ok(4096)));
    buffer.fill(0);
    port.read_at(&file, 4096, &buffer, 2);
    assert_eq!(next(&reactor, &port).result, Ok(4096));
    assert_eq!(buffer.to_vec(), [7; 4096]);
    port.read_at(&file, 8192, &buffer, 3);
    assert_eq!(next(&reactor, &port).result, Ok(0), "the end of the file");
    port.synchronize(&file, 4);
    assert_eq!(next(&reactor, &port).result, Ok(0));
}

#[test]
fn tcp_connects_and_echoes() {
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let reactor = reactor(16);
        let port = reactor.open_port();
        let address = address.parse().expect("an address");
        let (listener, bound) = socket::listen_tcp(address).expect("listens");
        let family = SocketAddress::Ip(bound).family();
        let client = socket::tcp_socket(family).expect("a socket");
        port.accept(&listener, 1);
        port.connect(&client, &SocketAddress::Ip(bound), 2);
        let mut server = None;
        for _ in 0..2 {
            let event = next(&reactor, &port);
            assert_eq!(event.result, Ok(0));
            server = server.or(event.descriptor);
        }
        let server = server.expect("accepted");
        let whole = reactor.pool().allocate(4096);
        whole.copy_from_slice(&[5; 4096]);
        port.send(&client, &[whole.slice(0, 100), whole.slice(100, 200)], 3);
        assert_eq!(next(&reactor, &port).result, Ok(300));
        let room = reactor.pool().allocate(4096);
        port.receive(&server, &[room.slice(0, 7), room.slice(7, 1000)], 4);
        assert_eq!(next(&reactor, &port).result, Ok(300));
        drop(client);
        port.receive(&server, &[room], 5);
        assert_eq!(next(&reactor, &port).result, Ok(0), "the end of the stream");
    }
}

#[test]
fn timers_fire_in_order_and_can_be_cancelled() {
    let reactor = reactor(4);
    let port = reactor.open_port();
    let now = reactor.now();
    port.timer(now + Duration::from_millis(3), 3);
    port.timer(now + Duration::from_millis(1), 1);
    let never = port.timer(now + Duration::from_secs(3600), 9);
    port.timer(now + Duration::from_millis(2), 2);
    port.timer(now, 4);
    assert_eq!(
        [next(&reactor, &port), next(&reactor, &port)].map(|event| (event.token, event.result)),
        [(4, Err(IoError::OutOfMemory)), (1, Ok(0))]
    );
    assert_eq!(next(&reactor, &port).token, 2);
    assert_eq!(next(&reactor, &port).token, 3);
    port.cancel(never);
    assert_eq!(next(&reactor, &port).result, Err(IoError::Cancelled));
    assert_eq!(reactor.operations_in_flight(), 0);
}

/// Two connected sockets.
fn connected(reactor: &Reactor, listener: &Descriptor, at: &SocketAddress) -> [Descriptor; 2] {
    let port = reactor.open_port();
    let client = socket::stream(at.family()).expect("a socket");
    port.accept(listener, 1);
    port.connect(&client, at, 2);
    let mut server = None;
    for _ in 0..2 {
        let event = next(reactor, &port);
        assert_eq!(event.result, Ok(0));
        server = server.or(event.descriptor);
    }
    [client, server.expect("accepted")]
}

fn unix_pair(reactor: &Reactor) -> [Descriptor; 2] {
    let place = tempfile::tempdir().expect("a directory");
    let path = place.path().join("socket");
    let listener = socket::listen_unix(&path).expect("listens");
    connected(reactor, &listener, &SocketAddress::Unix(path))
}

fn tcp_pair(reactor: &Reactor) -> [Descriptor; 2] {
    let (listener, bound) =
        socket::listen_tcp("127.0.0.1:0".parse().expect("an address")).expect("listens");
    connected(reactor, &listener, &SocketAddress::Ip(bound))
}

/// Cuts `length` bytes of `buffer` into up to `most` pieces, some of them empty.
fn cut(random: &mut Random, buffer: &Buffer, length: usize, most: usize) -> Vec<Buffer> {
    let mut pieces = Vec::new();
    let mut offset = 0;
    while offset < length {
        let left = length - offset;
        let last = pieces.len() + 1 == most;
        let size = if last { left } else { random.below(left as u64 + 1) as usize };
        pieces.push(buffer.slice(offset, size));
        offset += size;
    }
    pieces
}

/// A stream of known bytes from one end to the other, in pieces of any size, through sockets that
/// take and give less than asked.
fn stream_bytes(reactor: &Reactor, [near, far]: [Descriptor; 2], seed: u64) {
    const TOTAL: usize = 3 << 20;
    let mut random = Random::new(seed);
    let content: Vec<u8> = (0..TOTAL + 65536).map(|_| random.below(256) as u8).collect();
    let (sender, receiver) = (reactor.open_port(), reactor.open_port());
    let (outgoing, incoming) = (reactor.pool().allocate(65536), reactor.pool().allocate(65536));
    let (mut sent, mut received, mut short) = (0, 0, 0);
    let (mut sending, mut receiving) = (false, None);
    while received < TOTAL {
        if !sending && sent < TOTAL {
            let length = (1 + random.below(65536) as usize).min(TOTAL - sent);
            outgoing.copy_from_slice(&content[sent..sent + 65536]);
            sender.send(&near, &cut(&mut random, &outgoing, length, PIECES_MAX), 1);
            sending = true;
        }
        if receiving.is_none() {
            let length = 1 + random.below(65536) as usize;
            receiver.receive(&far, &cut(&mut random, &incoming, length, 16), 2);
            receiving = Some(length);
        }
        reactor.turn(Wait::ForEvent).expect("turns");
        if let Some(event) = sender.next_event() {
            sent += event.result.expect("sends") as usize;
            sending = false;
        }
        if let Some(event) = receiver.next_event() {
            let moved = event.result.expect("receives") as usize;
            assert!(moved > 0, "seed {seed}");
            let bytes = incoming.to_vec();
            assert!(bytes[..moved] == content[received..received + moved], "seed {seed}");
            received += moved;
            short += usize::from(Some(moved) < receiving.take());
        }
    }
    assert_eq!(sent, TOTAL);
    assert!(short > 0, "seed {seed}: nothing came in less than was asked for");
}

#[test]
fn streams_arrive_whole_however_they_are_cut() {
    for seed in 0..4 {
        let reactor = reactor(16);
        let tcp = tcp_pair(&reactor);
        stream_bytes(&reactor, tcp, seed);
        let unix = unix_pair(&reactor);
        stream_bytes(&reactor, unix, seed);
    }
}

#[test]
fn tcp_sockets_send_at_once_on_both_ends() {
    let reactor = reactor(16);
    for socket in tcp_pair(&reactor) {
        assert!(rustix::net::sockopt::tcp_nodelay(&socket).expect("a TCP socket"));
    }
}

#[test]
fn a_unix_listener_replaces_only_a_dead_socket() {
    let place = tempfile::tempdir().expect("a directory");
    let path = place.path().join("socket");
    let listener = socket::listen_unix(&path).expect("listens");
    let refused = || socket::listen_unix(&path).expect_err("must be refused").to_string();
    assert!(refused().contains("another process listens on it"), "{}", refused());
    drop(listener);
    let listener = socket::listen_unix(&path).expect("takes the dead socket's place");
    drop(listener);
    std::fs::remove_file(&path).expect("is there");
    std::fs::write(&path, "precious").expect("writes");
    assert!(refused().contains("is not a socket"), "{}", refused());
    assert_eq!(std::fs::read(&path).expect("reads"), b"precious");
    let long = place.path().join("x".repeat(108));
    let message = socket::listen_unix(&long).expect_err("too long").to_string();
    assert!(message.contains("107"), "{message}");
}

#[test]
fn operations_that_cannot_be_are_refused_by_events() {
    let reactor = reactor(4);
    let port = reactor.open_port();
    let [near, _far] = unix_pair(&reactor);
    let invalid = |port: &Port| {
        assert!(port.next_event().is_none(), "not before a turn");
        assert_eq!(next(&reactor, port).result, Err(IoError::InvalidArgument));
    };
    port.receive(&near, &[], 1);
    invalid(&port);
    let piece = reactor.pool().allocate(1);
    port.send(&near, &vec![piece.clone(); PIECES_MAX + 1], 1);
    invalid(&port);
    port.receive(&near, &[piece.slice(0, 0)], 1);
    invalid(&port);
    port.connect(&near, &SocketAddress::Unix("x".repeat(108).into()), 1);
    invalid(&port);
    let (listener, bound) =
        socket::listen_tcp("127.0.0.1:0".parse().expect("an address")).expect("listens");
    drop(listener);
    let client = socket::tcp_socket(socket::Family::Ipv4).expect("a socket");
    port.connect(&client, &SocketAddress::Ip(bound), 1);
    let refused = next(&reactor, &port).result;
    assert_eq!(refused, Err(IoError::Other(111)), "ECONNREFUSED");
    assert_eq!(reactor.operations_in_flight(), 0);
}

#[test]
fn a_cancelled_receive_ends_and_later_bytes_go_elsewhere() {
    let reactor = reactor(16);
    let port = reactor.open_port();
    let [near, far] = unix_pair(&reactor);
    let abandoned = reactor.pool().allocate(4);
    abandoned.fill(0);
    let operation = port.receive(&far, std::slice::from_ref(&abandoned), 1);
    reactor.turn(Wait::No).expect("turns");
    port.cancel(operation);
    port.cancel(operation);
    assert_eq!(next(&reactor, &port).result, Err(IoError::Cancelled));
    port.send(&near, &[reactor.pool().allocate(4)], 2);
    assert_eq!(next(&reactor, &port).result, Ok(4));
    port.cancel(operation);
    let wanted = reactor.pool().allocate(4);
    port.receive(&far, &[wanted], 3);
    let event = next(&reactor, &port);
    assert_eq!((event.token, event.result), (3, Ok(4)));
    assert_eq!(abandoned.to_vec(), [0; 4]);
    assert!(abandoned.is_unique());
    // An operation that is queued but not with the kernel yet.
    let operation = port.receive(&far, &[abandoned], 4);
    port.cancel(operation);
    assert_eq!(next(&reactor, &port).result, Err(IoError::Cancelled));
}

#[test]
fn a_dropped_port_gives_its_memory_back_when_the_kernel_is_done() {
    let reactor = reactor(64);
    let [near, far] = unix_pair(&reactor);
    let buffer = reactor.pool().allocate(4096);
    let other = reactor.open_port();
    for round in 0..50 {
        let port = reactor.open_port();
        for _ in 0..8 {
            port.receive(&far, &[buffer.slice(0, 8), buffer.slice(8, 8)], round);
        }
        port.timer(reactor.now() + Duration::from_secs(3600), round);
        if round % 2 == 0 {
            reactor.turn(Wait::No).expect("turns");
            assert!(!buffer.is_unique(), "the kernel has it");
        }
        drop(port);
        // A new port may get the old one's place, but not its events.
        let heir = reactor.open_port();
        while reactor.operations_in_flight() > 0 {
            reactor.turn(Wait::ForEvent).expect("turns");
        }
        assert!(heir.next_event().is_none());
        assert!(buffer.is_unique());
    }
    other.send(&near, &[buffer], 1);
    assert_eq!(next(&reactor, &other).result, Ok(4096));
}

#[test]
fn a_reactor_may_go_with_everything_in_flight() {
    for registered in [false, true] {
        let reactor = reactor(64);
        let (listener, _) =
            socket::listen_tcp("[::1]:0".parse().expect("an address")).expect("listens");
        let [_near, far] = unix_pair(&reactor);
        if registered {
            assert!(reactor.register(&far) && reactor.register(&listener));
        }
        let port = reactor.open_port();
        let (sender, mailbox) = reactor.mailbox::<u64>(4).expect("a mailbox");
        let buffer = reactor.pool().allocate(4096);
        port.accept(&listener, 1);
        port.receive(&far, std::slice::from_ref(&buffer), 2);
        port.timer(reactor.now() + Duration::from_secs(3600), 3);
        reactor.turn(Wait::No).expect("turns");
        port.receive(&far, std::slice::from_ref(&buffer), 4);
        drop(reactor);
        drop(port);
        assert!(buffer.is_unique());
        sender.send(1).expect("room, if nobody to tell");
        assert_eq!(mailbox.receive(), Some(1));
    }
}

#[test]
fn more_operations_than_the_ring_has_entries() {
    for wide_entries in [false, true] {
        let config = ReactorConfig {
            entries: 1,
            operations_max: 200,
            wide_entries,
            pool: POOL,
            ..Default::default()
        };
        let reactor = Reactor::new(config).expect("this kernel has io_uring");
        let [near, far] = unix_pair(&reactor);
        let port = reactor.open_port();
        let buffer = reactor.pool().allocate(4096);
        let operations: Vec<_> =
            (0..200).map(|token| port.receive(&far, &[buffer.slice(0, 1)], token)).collect();
        port.timer(reactor.now(), 1000);
        let event = next(&reactor, &port);
        assert_eq!((event.token, event.result), (1000, Err(IoError::OutOfMemory)));
        for operation in &operations[100..] {
            port.cancel(*operation);
        }
        for _ in 100..200 {
            assert_eq!(next(&reactor, &port).result, Err(IoError::Cancelled));
        }
        port.send(&near, &[buffer.slice(0, 100)], 1000);
        let mut sum = 0;
        for _ in 0..101 {
            sum += next(&reactor, &port).result.expect("moves");
        }
        assert_eq!(sum, 200);
        assert_eq!(reactor.operations_in_flight(), 0);
    }
}

#[test]
fn what_ended_before_a_turn_keeps_it_from_sleeping() {
    let config = ReactorConfig { entries: 1, pool: POOL, ..Default::default() };
    let reactor = Reactor::new(config).expect("this kernel has io_uring");
    let [_near, far] = unix_pair(&reactor);
    let port = reactor.open_port();
    let buffer = reactor.pool().allocate(4096);
    let file = Descriptor::from(OwnedFd::from(tempfile::tempfile().expect("a file")));
    port.read_at(&file, 0, &buffer, 1);
    // The ring has one entry, so the read goes to the kernel and ends here; this one never does.
    port.receive(&far, &[buffer], 2);
    reactor.turn(Wait::ForEvent).expect("turns");
    assert_eq!(port.next_event().map(|event| (event.token, event.result)), Some((1, Ok(0))));
}

/// Adds one to what it gets and sends it on, up to a limit.
struct Adder {
    sender: MailSender<u64>,
    mailbox: Mailbox<u64>,
    last: u64,
}

const ROUNDS: u64 = 20_000;

impl Task for Adder {
    fn poll(&mut self, _: Timestamp) -> bool {
        let mut progress = false;
        while let Some(number) = self.mailbox.receive() {
            assert_eq!(number, self.last + 1, "in order, none lost");
            self.last = number + 1;
            if number < ROUNDS {
                self.sender.send(number + 1).expect("one message at a time");
            }
            progress = true;
        }
        progress
    }

    fn is_finished(&self) -> bool {
        self.last >= ROUNDS
    }
}

#[test]
fn two_reactors_pass_messages_to_each_other() {
    for spin in [Duration::ZERO, Duration::from_micros(20)] {
        let config = ReactorConfig { operations_max: 4, pool: POOL, spin, ..Default::default() };
        let here = Reactor::new(config).expect("this kernel has io_uring");
        let (to_here, mailbox) = here.mailbox(1).expect("a mailbox");
        let (tell, told) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let there = Reactor::new(config).expect("this kernel has io_uring");
            let (to_there, mailbox) = there.mailbox(1).expect("a mailbox");
            tell.send(to_there).expect("is awaited");
            there.run(&mut Adder { sender: to_here, mailbox, last: 0 }).expect("runs");
        });
        let sender = told.recv().expect("the other side tells");
        sender.send(1).expect("room");
        here.run(&mut Adder { sender, mailbox, last: 1 }).expect("runs");
        thread.join().expect("does not panic");
    }
}

#[test]
fn a_mailbox_is_bounded_and_knows_who_is_gone() {
    let reactor = reactor(4);
    assert!(reactor.mailbox::<u8>(0).is_err());
    let (sender, mailbox) = reactor.mailbox(2).expect("a mailbox");
    let another = sender.clone();
    assert_eq!([sender.send(1), another.send(2), sender.send(3)], [Ok(()), Ok(()), Err(3)]);
    drop(sender);
    assert!(!mailbox.is_closed());
    drop(another);
    assert!(mailbox.is_closed());
    reactor.turn(Wait::ForEvent).expect("there is news");
    assert_eq!([mailbox.receive(), mailbox.receive(), mailbox.receive()], [Some(1), Some(2), None]);
    let (sender, mailbox) = reactor.mailbox(2).expect("a mailbox");
    drop(mailbox);
    assert!(sender.is_closed());
    assert_eq!(sender.send(1), Err(1));
}

#[test]
fn a_closed_socket_is_closed_even_when_it_was_registered() {
    let reactor = reactor(4);
    let port = reactor.open_port();
    let [near, far] = unix_pair(&reactor);
    assert!(reactor.register(&near));
    port.receive(&far, &[reactor.pool().allocate(1)], 1);
    drop(near);
    assert_eq!(next(&reactor, &port).result, Ok(0), "the end of the stream");
}

#[test]
fn bad_configurations_are_refused_by_name() {
    for (config, text) in [
        (ReactorConfig { entries: 0, ..Default::default() }, "entries 0"),
        (ReactorConfig { entries: 40_000, ..Default::default() }, "entries 40000"),
        (ReactorConfig { operations_max: 0, ..Default::default() }, "operations_max 0"),
    ] {
        let message = Reactor::new(config).expect_err("must be refused").to_string();
        assert!(message.contains(text), "{message}");
    }
}

#[test]
fn one_request_is_run_to_its_end_and_none_beside_others() {
    let reactor = reactor(16);
    let device = MemoryDevice::new(1 << 20).expect("a size");
    let mut queue = device.open_queue(&reactor, 2).expect("opens");
    let buffer = reactor.pool().allocate(4096);
    buffer.fill(7);
    let write = Request::write(RequestId(3), 4096, buffer);
    let written = reactor.run_request(&mut queue, write).expect("turns");
    assert_eq!((written.id, written.result), (RequestId(3), Ok(())));
    let read = || Request::read(RequestId(4), 4096, reactor.pool().allocate(4096));
    let done = reactor.run_request(&mut queue, read()).expect("turns");
    assert_eq!(done.buffer.expect("a read's buffer").to_vec(), [7; 4096]);
    queue.submit(read()).expect("room");
    let error = reactor.run_request(&mut queue, read()).expect_err("one is in flight").to_string();
    assert!(error.contains("in flight on the queue are 1: must be 0"), "{error}");
}
