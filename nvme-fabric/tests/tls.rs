//! Host and target on real reactors over loopback sockets with TLS: requests against the reference
//! disk, and what both ends say when keys, names or the use of TLS do not fit.

mod served;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::rc::Rc;
use std::time::Duration;

use block_io::reactor::{Reactor, Wait};
use block_io::sim::{Random, ReferenceDisk, fill_pattern};
use block_io::{BlockDevice, BlockQueue, Request, RequestId};
use nvme_fabric::driver::target::Service;
use nvme_fabric::driver::{ConnectOptions, DiscoverOptions, NvmeTcpDevice, discover};
use nvme_fabric::spec::nqn::Nqn;
use nvme_fabric::target::{SecureChannel, Settings};
use nvme_fabric::tls::{ConfiguredPsk, HostTls, Identities, IdentityVersion, Keyring, TlsPsk};

use served::{
    CAPACITY, HOST, HOST_ID, MemoryTarget, SUBSYSTEM, Served, any_port, connect, nqn, refusal,
};

const KEY_256: [u8; 32] = [0x5a; 32];
const KEY_384: [u8; 48] = [0xa5; 48];
const ZERO: Identities = Identities::Only(IdentityVersion::Zero);

fn target(reactor: &Reactor, key: &[u8], channel: SecureChannel) -> (MemoryTarget, u16) {
    let handshake_timeout = Duration::from_secs(2);
    let settings = Settings { handshake_timeout, ..Settings::default() };
    let mut task = served::target(reactor, settings, |_| ());
    let mut keyring = Keyring::new().expect("the library works");
    let key = ConfiguredPsk::new(key).expect("a key");
    keyring.allow(&nqn(HOST), &nqn(SUBSYSTEM), &key).expect("derives");
    let port = match channel {
        SecureChannel::None => task.listen(any_port(), Service::Subsystems),
        _ => task.listen_with_tls(any_port(), Service::Subsystems, channel, &Rc::new(keyring)),
    };
    (task, port.expect("listens").port())
}

/// Runs `client` while a target serves on another thread, which must end well.
fn with_target<Value>(
    key: &'static [u8],
    channel: SecureChannel,
    client: impl FnOnce(u16) -> Value,
) -> Value {
    let (served, port) = Served::start(move |reactor| target(reactor, key, channel));
    let value = client(port);
    served.end();
    value
}

fn options(port: u16, key: Option<(&[u8], Identities)>) -> ConnectOptions {
    let mut options = served::options(port);
    options.io_queues = 2;
    options.connect_timeout = Duration::from_secs(60);
    options.tls = key.map(|(key, identities)| HostTls {
        psk: ConfiguredPsk::new(key).expect("a key"),
        identities,
    });
    options
}

/// Random requests, checked against the reference.
fn work(reactor: &Reactor, device: &NvmeTcpDevice, seed: u64, count: u64) {
    let mut queues = [
        device.open_queue(reactor, 16).expect("opens"),
        device.open_queue(reactor, 16).expect("2"),
    ];
    let mut random = Random::new(seed);
    let mut reference = ReferenceDisk::new(seed, CAPACITY).with_late_writes(true);
    let (mut made, mut in_flight) = (0, 0);
    let mut completions = Vec::new();
    while made < count || in_flight > 0 {
        while made < count && in_flight < 16 {
            made += 1;
            in_flight += 1;
            let length = *random.choose(&[512, 4096, 8192, 12288, 65536, 300 << 10, 1 << 20]);
            let offset = random.below((CAPACITY - length) / 512 + 1) * 512;
            let buffer = reactor.pool().allocate(length as usize);
            let request = if random.below(2) == 0 {
                Request::read(RequestId(made), offset, buffer)
            } else {
                fill_pattern(&buffer, made, offset);
                Request::write(RequestId(made), offset, buffer)
            };
            reference.begin(&request);
            queues[made as usize % 2].submit(request).expect("room");
        }
        let mut progress = false;
        for queue in &mut queues {
            progress |= queue.poll(reactor.now(), &mut completions);
        }
        for completion in completions.drain(..) {
            in_flight -= 1;
            assert_eq!(completion.result, Ok(()), "seed {seed}: {:?}", device.error());
            reference.complete(&completion).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        }
        if in_flight > 0 {
            reactor.turn(if progress { Wait::No } else { Wait::ForEvent }).expect("turns");
        }
    }
}

#[test]
fn requests_over_tls_agree_with_the_reference_disk() {
    let keys: [&'static [u8]; 2] = [&KEY_256, &KEY_384];
    for (seed, key) in keys.into_iter().enumerate() {
        for digests in [false, true] {
            with_target(key, SecureChannel::Required, move |port| {
                let mut options = options(port, Some((key, Identities::Both)));
                (options.header_digest, options.data_digest) = (digests, digests);
                let (reactor, device) = connect(&options).expect("connects");
                work(&reactor, &device, seed as u64, 400);
                device.shut_down(&reactor).expect("shuts down");
            });
        }
    }
}

#[test]
fn a_listener_that_offers_tls_serves_hosts_with_and_without() {
    let keys: [Option<(&'static [u8], Identities)>; 2] = [Some((&KEY_256, ZERO)), None];
    for key in keys {
        with_target(&KEY_256, SecureChannel::Offered, move |port| {
            let (reactor, device) = connect(&options(port, key)).expect("connects");
            work(&reactor, &device, 9, 60);
            device.shut_down(&reactor).expect("shuts down");
        });
    }
}

#[test]
fn a_wrong_key_is_refused_and_the_host_says_which_identity_it_offered() {
    with_target(&KEY_256, SecureChannel::Required, |port| {
        let error = refusal(&options(port, Some((&[1; 32], ZERO))));
        assert!(error.contains("another key for the identity"), "{error}");
        assert!(error.contains(&format!("127.0.0.1:{port}")), "{error}");
        assert!(error.contains(&format!("NVMe0R01 {HOST} {SUBSYSTEM}")), "{error}");
    });
}

#[test]
fn an_unknown_identity_is_refused_and_named() {
    with_target(&KEY_256, SecureChannel::Required, |port| {
        let mut options = options(port, Some((&KEY_256, Identities::Both)));
        options.host_nqn = nqn("nqn.2014-08.com.example:stranger");
        let error = refusal(&options);
        assert!(error.contains("no key for the identity"), "{error}");
        assert!(error.contains("NVMe1R01 nqn.2014-08.com.example:stranger"), "{error}");
    });
}

#[test]
fn a_host_without_tls_where_it_is_required_is_closed_on() {
    with_target(&KEY_256, SecureChannel::Required, |port| {
        let error = refusal(&options(port, None));
        assert!(error.contains("closed the connection"), "{error}");
    });
}

#[test]
fn a_host_with_tls_at_a_target_without_says_so() {
    with_target(&KEY_256, SecureChannel::None, |port| {
        let error = refusal(&options(port, Some((&KEY_256, Identities::Both))));
        assert!(error.contains("speaks NVMe/TCP without TLS"), "{error}");
    });
}

#[test]
fn a_peer_that_closes_in_the_handshake_is_told_with_what_was_offered() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let thread = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a host");
        let mut hello = [0; 100];
        stream.read_exact(&mut hello).expect("the beginning of a ClientHello");
        assert_eq!(hello[..2], [22, 3]);
        stream.shutdown(Shutdown::Write).expect("shuts down");
        // What is unread would reset the connection.
        let _ = stream.read(&mut [0; 4096]);
    });
    let error = refusal(&options(port, Some((&KEY_256, Identities::Both))));
    assert!(error.contains("in the handshake") && error.contains("NVMe1R01"), "{error}");
    thread.join().expect("the listener's checks hold");
}

/// Stands in for the kernel's target by tlshd 1.4, which gives up at the first identity that it
/// does not know: closes on a host whose first is of version 1, and hands others on to `port`. Ends
/// with the first such host's queues.
fn picky(port: u16, queues: usize) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let own = listener.local_addr().expect("bound").port();
    std::thread::spawn(move || {
        let mut left = queues;
        while left > 0 {
            let (mut host, _) = listener.accept().expect("a host");
            let mut hello = vec![0; 5];
            host.read_exact(&mut hello).expect("a record's header");
            let length = u16::from_be_bytes([hello[3], hello[4]]);
            hello.resize(5 + usize::from(length), 0);
            host.read_exact(&mut hello[5..]).expect("a record");
            if hello.windows(6).any(|window| window == b"NVMe1R") {
                continue;
            }
            left -= 1;
            let mut target = TcpStream::connect(("127.0.0.1", port)).expect("the target");
            target.write_all(&hello).expect("it reads");
            for (mut from, mut to) in [
                (host.try_clone().expect("a socket"), target.try_clone().expect("a socket")),
                (target, host),
            ] {
                std::thread::spawn(move || {
                    // However one side ends, the other is told.
                    let _ = std::io::copy(&mut from, &mut to);
                    let _ = to.shutdown(Shutdown::Write);
                });
            }
        }
    });
    own
}

#[test]
fn a_target_that_gives_up_at_the_first_identity_is_offered_another_alone() {
    with_target(&KEY_256, SecureChannel::Required, |port| {
        let both = options(picky(port, 3), Some((&KEY_256, Identities::Both)));
        let (reactor, device) = connect(&both).expect("version 0 is known");
        work(&reactor, &device, 6, 100);
        device.shut_down(&reactor).expect("shuts down");
    });
}

#[test]
fn connect_must_name_the_host_that_the_key_is_of() {
    // A host that has the key of one name and connects by another: what the driver would not do,
    // so the key is offered under the name that it has, and the target takes names from Connect.
    let (served, address) = Served::start(|reactor| {
        let (mut task, _) = target(reactor, &KEY_256, SecureChannel::None);
        let mut keyring = Keyring::new().expect("the library works");
        let key = ConfiguredPsk::new(&KEY_256).expect("a key");
        let (thief, owner) = (nqn(HOST), nqn("nqn.2014-08.com.example:owner"));
        // The identity of `thief` leads to an entry that says that the key is the owner's.
        let psk = TlsPsk::retained(IdentityVersion::Zero, &key, &thief, &nqn(SUBSYSTEM));
        keyring.insert(psk.expect("derives"), &owner, &nqn(SUBSYSTEM));
        let (service, channel) = (Service::Subsystems, SecureChannel::Required);
        let address = task.listen_with_tls(any_port(), service, channel, &Rc::new(keyring));
        (task, address.expect("listens"))
    });
    let error = refusal(&options(address.port(), Some((&KEY_256, ZERO))));
    assert!(error.contains("Connect Invalid Host"), "{error}");
    served.end();
}

#[test]
fn strangers_and_half_handshakes_do_not_disturb_a_host() {
    with_target(&KEY_256, SecureChannel::Required, |port| {
        let mut random = Random::new(3);
        let mut strangers = Vec::new();
        for number in 0..24 {
            let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("connects");
            let bytes: Vec<u8> = match number % 4 {
                // A record that claims more than a record may have, and its beginning.
                0 => [vec![22, 3, 1, 0xff, 0xff], vec![1; 5000]].concat(),
                1 => (0..3000).map(|_| random.below(256) as u8).collect(),
                // The beginning of a hello, and then silence: the handshake's deadline is for it.
                2 => vec![22, 3, 1, 1, 0, 1, 0, 0, 200],
                _ => Vec::new(),
            };
            // A target that has closed already answers with a reset.
            let _ = stream.write_all(&bytes);
            strangers.push(stream);
        }
        let (reactor, device) =
            connect(&options(port, Some((&KEY_256, Identities::Both)))).expect("connects");
        work(&reactor, &device, 5, 100);
        device.shut_down(&reactor).expect("shuts down");
        for mut stream in strangers {
            // Every one of them is closed in the end, by what it sent or by the deadline.
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest);
        }
    });
}

fn discovery_options(port: u16) -> DiscoverOptions {
    DiscoverOptions { port, ..DiscoverOptions::new("127.0.0.1", nqn(HOST), HOST_ID) }
}

#[test]
fn discovery_tells_hosts_that_tls_is_required() {
    let (served, port) = Served::start(|reactor| {
        let (mut task, _) = target(reactor, &KEY_256, SecureChannel::Required);
        let port = task.listen(any_port(), Service::Discovery).expect("listens").port();
        (task, port)
    });
    let entries = discover(&served::reactor(), &discovery_options(port)).expect("is told");
    // The subsystem is not to be had in clear at the discovery service's address either.
    let error = refusal(&options(port, None));
    assert!(error.contains("Connect Invalid Host"), "{error}");
    served.end();
    let entries = entries.answers.iter().flat_map(|answer| &answer.log.entries);
    let entry = |name: &str| entries.clone().find(|entry| entry.subsystem == name).expect("listed");
    let subsystem = entry(SUBSYSTEM);
    // TREQ required, SECTYPE TLS 1.3; the discovery service itself is plain.
    assert_eq!((subsystem.requirements & 3, subsystem.security), (1, 2));
    let discovery = entry(Nqn::discovery().as_str());
    assert_eq!((discovery.requirements & 3, discovery.security), (2, 0));
    assert!(entries.clone().all(|entry| entry.requirements & 4 != 0), "flow control may be off");
}

#[test]
fn discovery_is_asked_over_tls_where_it_is_told_to_be() {
    let (served, port) = Served::start(|reactor| {
        let (mut task, _) = target(reactor, &KEY_256, SecureChannel::Offered);
        let mut keyring = Keyring::new().expect("the library works");
        let key = ConfiguredPsk::new(&KEY_384).expect("a key");
        keyring.allow(&nqn(HOST), &Nqn::discovery(), &key).expect("derives");
        let (service, channel) = (Service::Discovery, SecureChannel::Required);
        let address = task.listen_with_tls(any_port(), service, channel, &Rc::new(keyring));
        (task, address.expect("listens").port())
    });
    let reactor = served::reactor();
    let ask = |key: Option<&[u8]>| {
        let psk = key.map(|key| ConfiguredPsk::new(key).expect("a key"));
        let tls = psk.map(|psk| HostTls { psk, identities: Identities::Both });
        let asked = DiscoverOptions { tls, ..discovery_options(port) };
        discover(&reactor, &asked).expect("the reactor works")
    };
    for (key, expected) in
        [(None, "closed the connection"), (Some(&KEY_256[..]), "no key for the identity")]
    {
        let findings = ask(key);
        assert!(findings.answers.is_empty());
        let error = &findings.failures[0].1;
        assert!(error.contains(expected), "{error}");
    }
    let found = ask(Some(&KEY_384));
    served.end();
    assert!(found.failures.is_empty(), "{:?}", found.failures);
    let entries = &found.answers[0].log.entries;
    let entry = |name: &str| entries.iter().find(|entry| entry.subsystem == name).expect("listed");
    assert_eq!((entry(Nqn::discovery().as_str()).requirements & 3), 1);
    // Offered at the subsystem: not required, and TLS 1.3 all the same.
    let subsystem = entry(SUBSYSTEM);
    assert_eq!((subsystem.requirements & 3, subsystem.security), (2, 2));
}
