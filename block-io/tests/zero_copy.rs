//! Sends for which the kernel makes no copy, against the real kernel. Over loopback it copies in
//! the end, when the bytes leave the sender's queue; until then they are only where they were.
//!
//! Absent: what it saves, which takes a network interface that gathers.

use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use block_io::reactor::{Descriptor, Event, Port, Reactor, ReactorConfig, Wait};
use block_io::{Buffer, PoolLayout};

const LENGTH: usize = 1 << 20;

/// None, and says so, where the kernel cannot do it.
fn reactor() -> Option<Reactor> {
    let pool =
        PoolLayout { classes: [(4096, 64), (65536, 4), (1 << 20, 4), (2 << 20, 0), (4 << 20, 0)] };
    let config = ReactorConfig { zero_copy_from: Some(65536), pool, ..Default::default() };
    let reactor = Reactor::new(config).expect("this kernel has io_uring");
    let features = reactor.features();
    if features.has("SEND_ZC") && features.has("SENDMSG_ZC") {
        return Some(reactor);
    }
    println!("skipped: {features}");
    None
}

fn next(reactor: &Reactor, port: &Port) -> Event {
    loop {
        if let Some(event) = port.next_event() {
            return event;
        }
        reactor.turn(Wait::ForEvent).expect("turns");
    }
}

fn tcp_pair() -> (Descriptor, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("listens");
    let near = TcpStream::connect(listener.local_addr().expect("an address")).expect("connects");
    let (far, _) = listener.accept().expect("is connected");
    (Descriptor::from(OwnedFd::from(near)), far)
}

fn pattern(length: usize) -> Vec<u8> {
    (0..length as u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

/// A buffer in the arena, and one that several pieces are cut from, with what they hold.
fn messages(reactor: &Reactor) -> [(Vec<Buffer>, Vec<u8>); 2] {
    let bytes = pattern(LENGTH);
    let message = |cuts: &[usize]| {
        let whole = reactor.pool().allocate(LENGTH);
        whole.copy_from_slice(&bytes);
        let ends = cuts.iter().skip(1).chain([&LENGTH]);
        let pieces = cuts.iter().zip(ends).map(|(start, end)| whole.slice(*start, end - start));
        (pieces.collect(), bytes.clone())
    };
    [message(&[0]), message(&[0, 24, 4096, 70_000])]
}

/// Sends once, and tells how much the socket took.
fn send(reactor: &Reactor, port: &Port, socket: &Descriptor, pieces: &[Buffer]) -> usize {
    port.send(socket, pieces, 1);
    let taken = next(reactor, port).result.expect("the peer is there") as usize;
    assert!(taken > 100_000, "{taken}");
    taken
}

fn receive(far: &mut TcpStream, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    far.read_exact(&mut bytes).expect("they were sent");
    bytes
}

#[test]
fn memory_is_kept_until_the_kernel_has_done_with_it_and_a_copy_is_asked_for_once_it_made_one() {
    let Some(reactor) = reactor() else { return };
    let port = reactor.open_port();
    for (mut pieces, bytes) in messages(&reactor) {
        let (near, mut far) = tcp_pair();
        let taken = send(&reactor, &port, &near, &pieces);
        // The peer has not room for all of it: the rest is in nothing but this memory.
        assert_eq!(reactor.operations_in_flight(), 1, "{taken} bytes taken");
        let last = pieces.pop().expect("there are pieces");
        pieces.clear();
        assert!(!last.is_unique());
        assert_eq!(receive(&mut far, taken), bytes[..taken]);
        while reactor.operations_in_flight() > 0 {
            reactor.turn(Wait::ForEvent).expect("turns");
        }
        assert!(last.is_unique());

        let again = reactor.pool().allocate(LENGTH);
        again.copy_from_slice(&bytes);
        let taken = send(&reactor, &port, &near, std::slice::from_ref(&again));
        assert_eq!(reactor.operations_in_flight(), 0, "the kernel had to copy, so it was asked to");
        assert!(again.is_unique());
        again.fill(0);
        assert_eq!(receive(&mut far, taken), bytes[..taken]);
    }
}

#[test]
fn a_socket_closes_though_the_kernel_still_reads_what_was_sent_to_it() {
    let Some(reactor) = reactor() else { return };
    let port = reactor.open_port();
    for (pieces, bytes) in messages(&reactor) {
        let (near, mut far) = tcp_pair();
        let operation = port.send(&near, &pieces, 1);
        drop(pieces);
        let event = next(&reactor, &port);
        let taken = event.result.expect("the peer is there") as usize;
        port.cancel(operation);
        drop(near);
        reactor.turn(Wait::No).expect("turns");
        let mut all = Vec::new();
        far.read_to_end(&mut all).expect("what was sent, and the end");
        assert_eq!(all, bytes[..taken]);
        while reactor.operations_in_flight() > 0 {
            reactor.turn(Wait::ForEvent).expect("turns");
        }
        assert!(port.next_event().is_none(), "an operation has one event");
    }
    assert_eq!(reactor.pool().heap_blocks(), 0);
}

#[test]
fn sockets_that_are_not_tcp_are_sent_to_with_a_copy() {
    let Some(reactor) = reactor() else { return };
    let port = reactor.open_port();
    let (near, mut far) = UnixStream::pair().expect("a pair");
    let near = Descriptor::from(OwnedFd::from(near));
    let bytes = pattern(LENGTH);
    let buffer = reactor.pool().allocate(LENGTH);
    buffer.copy_from_slice(&bytes);
    let taken = send(&reactor, &port, &near, std::slice::from_ref(&buffer));
    assert!(buffer.is_unique());
    let mut received = vec![0; taken];
    far.read_exact(&mut received).expect("they were sent");
    assert_eq!(received, bytes[..taken]);
}
