//! The reactor against the real kernel: files, sockets, timers, mailboxes and their ends.

use std::os::fd::OwnedFd;
use std::time::Duration;

use block_io::reactor::socket;
use block_io::reactor::{Descriptor, Event, Port, Reactor, ReactorConfig, SocketAddress, Wait};
use block_io::{IoError, PoolLayout};

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
