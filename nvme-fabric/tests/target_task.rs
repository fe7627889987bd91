//! The target on a real reactor and loopback sockets, asked by the crate's own host.

mod served;

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use block_io::reactor::{Reactor, Wait};
use block_io::{BlockDevice, BlockQueue, Completion, Request, RequestId};
use nvme_fabric::driver::target::Service;
use nvme_fabric::driver::{ConnectOptions, DiscoverOptions, NvmeTcpDevice, discover};
use nvme_fabric::spec::log_page::SubsystemKind;
use nvme_fabric::target::Settings;

use served::{CAPACITY, HOST, HOST_ID, SUBSYSTEM, Served, any_port, nqn, options, reactor};

/// A target, its address and that of its discovery service.
fn serve() -> (Served, SocketAddr, SocketAddr) {
    let (served, (address, discovery)) = Served::start(|reactor| {
        let mut task = served::target(reactor, Settings::default(), |_| ());
        let address = task.listen(any_port(), Service::Subsystems).expect("a free port");
        let discovery = task.listen(any_port(), Service::Discovery).expect("a free port");
        (task, (address, discovery))
    });
    (served, address, discovery)
}

/// Runs requests to their completions.
fn run_all(
    reactor: &Reactor,
    queue: &mut impl BlockQueue,
    requests: Vec<Request>,
) -> Vec<Completion> {
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
    let (served, address, _) = serve();
    let reactor = reactor();
    for digests in [false, true] {
        let options = ConnectOptions {
            header_digest: digests,
            data_digest: digests,
            ..options(address.port())
        };
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
        for done in run_all(&reactor, &mut queue, writes.collect()) {
            assert_eq!(done.result, Ok(()));
        }
        let reads = lengths.iter().enumerate().map(|(index, length)| {
            let buffer = reactor.pool().allocate(*length);
            Request::read(RequestId(index as u64), (index as u64) << 20, buffer)
        });
        for done in run_all(&reactor, &mut queue, reads.collect()) {
            assert_eq!(done.result, Ok(()));
            let index = done.id.0 as usize;
            let read = done.buffer.expect("a read's buffer").to_vec();
            assert!(read == pattern(index, lengths[index]), "request {index}");
        }
        drop(queue);
        device.shut_down(&reactor).expect("shuts down");
    }
    served.end();
}

#[test]
fn discovery_tells_the_addresses() {
    let (served, address, discovery) = serve();
    let reactor = reactor();
    let port = discovery.port();
    let options = DiscoverOptions { port, ..DiscoverOptions::new("127.0.0.1", nqn(HOST), HOST_ID) };
    let mut findings = discover(&reactor, &options).expect("the reactor turns");
    assert_eq!(findings.failures, []);
    let entries = findings.answers.remove(0).log.entries;
    let ways: Vec<_> = entries.iter().map(|entry| (entry.kind, entry.service.clone())).collect();
    assert_eq!(
        ways,
        [
            (SubsystemKind::CurrentDiscovery, port.to_string()),
            (SubsystemKind::Nvm, address.port().to_string()),
        ]
    );
    assert_eq!(entries[1].subsystem, SUBSYSTEM);
    served.end();
}

#[test]
fn strangers_are_told_and_left_and_do_no_harm() {
    let (served, address, _) = serve();
    let mut stranger = TcpStream::connect(address).expect("connects");
    stranger.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").expect("sent");
    let mut answer = [0; 24];
    stranger.read_exact(&mut answer).expect("a C2HTermReq");
    assert_eq!((answer[0], answer[8]), (3, 1), "invalid PDU header field");
    let silent: Vec<_> = (0..20).map(|_| TcpStream::connect(address).expect("connects")).collect();
    drop(stranger);
    let reactor = reactor();
    let options = ConnectOptions { fast_io_fail: Some(Duration::ZERO), ..options(address.port()) };
    let device = NvmeTcpDevice::connect(&reactor, &options).expect("connects");
    served.end();
    for mut stream in silent {
        assert_eq!(stream.read(&mut answer).unwrap_or(0), 0, "closed");
    }
    let mut queue = device.open_queue(&reactor, 8).expect("a queue");
    let read = Request::read(RequestId(1), 0, reactor.pool().allocate(512));
    let done = served::run(&reactor, &mut queue, read);
    assert!(done.result.is_err(), "the target is gone");
}
