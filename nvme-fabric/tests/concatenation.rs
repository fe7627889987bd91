//! Secure channel concatenation over loopback sockets: a host comes in clear, authenticates, and
//! comes again with TLS by the key that both ends have generated. And who stands in between.

mod served;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use block_io::sim::fill_pattern;
use block_io::{BlockDevice, Request, RequestId};
use nvme_fabric::auth::{Choices, Group, HashFunction, Keys, Random, Secret};
use nvme_fabric::driver::ConnectOptions;
use nvme_fabric::driver::target::Service;
use nvme_fabric::host::HostAuthentication;
use nvme_fabric::target::{SecureChannel, Settings};
use nvme_fabric::tls::{ConfiguredPsk, HostTls, Identities, Keyring};

use served::{HOST, Served, any_port, connect, nqn, refusal};

fn secret(seed: u8) -> Secret {
    Secret::generate(Some(HashFunction::Sha256), &mut Random::new(&[seed; 32]))
}

/// Keys that want a secure channel, with these choices.
fn keys(hashes: &[HashFunction]) -> Keys {
    let choices = Choices { hashes: hashes.to_vec(), groups: vec![Group::Ffdhe2048, Group::Null] };
    Keys { choices, ..Keys::new(secret(1)).with_concatenation() }
}

/// Runs `client` while a target that knows the host by `keys` serves on another thread.
fn with_target<Value>(
    keys: Keys,
    channel: SecureChannel,
    client: impl FnOnce(u16) -> Value,
) -> Value {
    let (served, port) = Served::start(move |reactor| {
        let handshake_timeout = Duration::from_secs(20);
        let settings = Settings { handshake_timeout, ..Settings::default() };
        let mut task = served::target(reactor, settings, |subsystem| {
            subsystem.set_host_keys(nqn(HOST), keys).expect("there are choices");
            subsystem.require_authentication(true);
        });
        let keyring = Rc::new(Keyring::new().expect("the library works"));
        let address = task.listen_with_tls(any_port(), Service::Subsystems, channel, &keyring);
        (task, address.expect("listens").port())
    });
    let value = client(port);
    served.end();
    value
}

fn options(port: u16, keys: Option<Keys>) -> ConnectOptions {
    let mut options = served::options(port);
    options.io_queues = 2;
    options.connect_timeout = Duration::from_secs(60);
    options.authentication = keys.map(HostAuthentication::new);
    options
}

/// Writes, reads back, and leaves.
fn work(options: &ConnectOptions) {
    let (reactor, device) = connect(options).expect("connects");
    for seed in 0..2 {
        let mut queue = device.open_queue(&reactor, 4).expect("opens");
        let mut run = |request: Request| {
            let completion = served::run(&reactor, &mut queue, request);
            assert_eq!(completion.result, Ok(()), "{:?}", device.error());
            completion.buffer.expect("its buffer comes back").to_vec()
        };
        let written = reactor.pool().allocate(65536);
        fill_pattern(&written, seed, 4096);
        let bytes = run(Request::write(RequestId(1), 4096, written));
        assert_eq!(run(Request::read(RequestId(2), 4096, reactor.pool().allocate(65536))), bytes);
    }
    device.shut_down(&reactor).expect("shuts down");
}

/// Whoever is in between. It hands on what both ends say, connection by connection, and may change
/// one byte of a connection's stream.
struct Middle {
    port: u16,
    /// Connections that hosts have made.
    connections: Arc<AtomicUsize>,
    /// Connections that began with an ICReq in clear.
    heard: Arc<AtomicUsize>,
}

/// What it does to bytes: of the connection with this number, from 0, from the host or not, at this
/// place of the stream.
type Change = fn(number: usize, from_host: bool, at: usize, byte: &mut u8);

/// What it does instead of handing a connection on.
type Answer = fn(number: usize, &mut TcpStream) -> bool;

impl Middle {
    fn start(target: u16, change: Change, answer: Answer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let connections = Arc::new(AtomicUsize::new(0));
        let heard = Arc::new(AtomicUsize::new(0));
        let (counted, hears) = (Arc::clone(&connections), Arc::clone(&heard));
        // Ends with the process: it waits for connections that nobody makes any more.
        std::thread::spawn(move || {
            for host in listener.incoming() {
                let number = counted.fetch_add(1, Ordering::SeqCst);
                let mut host = host.expect("a host");
                if answer(number, &mut host) {
                    continue;
                }
                let target = TcpStream::connect(("127.0.0.1", target)).expect("connects");
                for from_host in [true, false] {
                    let (from, to) = if from_host { (&host, &target) } else { (&target, &host) };
                    let from = from.try_clone().expect("another");
                    let to = to.try_clone().expect("another");
                    let hears = Arc::clone(&hears);
                    std::thread::spawn(move || {
                        hand_on(from, to, &hears, |at, byte| change(number, from_host, at, byte));
                    });
                }
            }
        });
        Self { port, connections, heard }
    }
}

fn hand_on(
    mut from: TcpStream,
    mut to: TcpStream,
    heard: &AtomicUsize,
    change: impl Fn(usize, &mut u8),
) {
    let mut bytes = [0; 65536];
    let mut at = 0;
    while let Ok(count @ 1..) = from.read(&mut bytes) {
        for (index, byte) in bytes[..count].iter_mut().enumerate() {
            change(at + index, byte);
        }
        // ICReq: type 0, HLEN and PLEN 128.
        if at == 0 && bytes.starts_with(&[0, 0, 128, 0, 128]) {
            heard.fetch_add(1, Ordering::SeqCst);
        }
        at += count;
        if to.write_all(&bytes[..count]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

const fn nothing(_: usize, _: bool, _: usize, _: &mut u8) {}

fn nobody(_: usize, _: &mut TcpStream) -> bool {
    false
}

/// SC_C of the first AUTH_Negotiate: after ICReq (128), Connect (72 and 1024) and the capsule (72).
const SC_C: usize = 128 + 72 + 1024 + 72 + 6;
/// ATR and ASCR of the admin queue's Connect: after ICResp (128), the header (8) and CNTLID (2).
const AUTHENTICATION_REQUIRED: usize = 128 + 8 + 2;

#[test]
fn every_hash_that_tls_has_makes_a_key_one_way_and_both_ways() {
    use HashFunction::{Sha256, Sha384, Sha512};
    // The target's first choice is not taken where TLS has no such hash.
    for hashes in [&[Sha256][..], &[Sha384], &[Sha512, Sha384, Sha256]] {
        for keys in [keys(hashes), keys(hashes).with_controller(secret(2))] {
            let host = keys.clone();
            with_target(keys, SecureChannel::Offered, move |port| {
                let middle = Middle::start(port, nothing, nobody);
                work(&options(middle.port, Some(host)));
                // The admin queue twice, and the two I/O queues; only the first was in clear.
                assert_eq!(middle.connections.load(Ordering::SeqCst), 4);
                assert_eq!(middle.heard.load(Ordering::SeqCst), 1);
            });
        }
    }
}

#[test]
fn a_target_leaves_it_to_a_host_that_it_does_not_oblige() {
    let keys = keys(&[HashFunction::Sha256]);
    for concatenate in [false, true] {
        let host = Keys { concatenate, ..keys.clone() };
        let target = Keys { concatenate: false, ..keys.clone() };
        with_target(target, SecureChannel::Offered, move |port| work(&options(port, Some(host))));
    }
    let host = Keys { concatenate: false, ..keys.clone() };
    with_target(keys, SecureChannel::Offered, move |port| {
        let error = refusal(&options(port, Some(host)));
        assert!(error.contains("ASCR"), "{error}");
    });
}

#[test]
fn a_wrong_secret_of_either_end_makes_no_key() {
    let both = keys(&[HashFunction::Sha256]).with_controller(secret(2));
    let wrong_host = Keys { host: secret(3), ..both.clone() };
    let wrong_controller = both.clone().with_controller(secret(3));
    for (host, expected) in [
        (wrong_host, "AUTH_Failure1): the response is wrong"),
        (wrong_controller, "the controller's response is wrong"),
    ] {
        with_target(both.clone(), SecureChannel::Offered, move |port| {
            let middle = Middle::start(port, nothing, nobody);
            let error = refusal(&options(middle.port, Some(host)));
            assert!(error.contains(expected), "{error}");
            assert_eq!(middle.connections.load(Ordering::SeqCst), 1, "nothing follows");
        });
    }
}

#[test]
fn who_answers_in_clear_where_tls_must_follow_is_refused() {
    // The first connection is handed on; then somebody answers the ClientHello as a target without
    // TLS would answer an ICReq.
    fn strip(number: usize, host: &mut TcpStream) -> bool {
        if number == 0 {
            return false;
        }
        let mut hello = [0; 16];
        host.read_exact(&mut hello).expect("a ClientHello");
        assert_eq!(hello[..2], [22, 3], "never an ICReq");
        let mut response = [0; 128];
        response[..5].copy_from_slice(&[1, 0, 128, 0, 128]);
        response[14] = 1;
        let _ = host.write_all(&response);
        // What is unread would reset the connection.
        let _ = host.read(&mut [0; 4096]);
        true
    }
    let keys = keys(&[HashFunction::Sha256]);
    let host = keys.clone();
    with_target(keys, SecureChannel::Offered, move |port| {
        let middle = Middle::start(port, nothing, strip);
        let error = refusal(&options(middle.port, Some(host)));
        assert!(error.contains("speaks NVMe/TCP without TLS"), "{error}");
    });
}

#[test]
fn who_takes_the_secure_channel_out_of_the_offer_is_found_out() {
    fn no_channel(number: usize, from_host: bool, at: usize, byte: &mut u8) {
        if number == 0 && from_host && at == SC_C {
            assert_eq!(*byte, 2, "NEWTLSPSK");
            *byte = 0;
        }
    }
    for obliged in [true, false] {
        let keys = keys(&[HashFunction::Sha256]);
        let host = keys.clone();
        let target = Keys { concatenate: obliged, ..keys };
        with_target(target, SecureChannel::Offered, move |port| {
            let middle = Middle::start(port, no_channel, nobody);
            let error = refusal(&options(middle.port, Some(host)));
            // Where the target would take either, SC_C is part of what the host's response proves.
            let expected = if obliged { "secure channel" } else { "the response is wrong" };
            assert!(error.contains(expected), "{error}");
        });
    }
}

#[test]
fn who_takes_the_demand_out_of_the_answer_changes_nothing() {
    fn no_demand(number: usize, from_host: bool, at: usize, byte: &mut u8) {
        if number == 0 && !from_host && at == AUTHENTICATION_REQUIRED {
            assert_eq!(*byte, 4, "ASCR");
            *byte = 0;
        }
    }
    let keys = keys(&[HashFunction::Sha256]);
    let host = keys.clone();
    with_target(keys, SecureChannel::Offered, move |port| {
        let middle = Middle::start(port, no_demand, nobody);
        work(&options(middle.port, Some(host)));
        assert_eq!(middle.heard.load(Ordering::SeqCst), 1, "only the first stream is in clear");
    });
}

#[test]
fn what_cannot_be_done_is_said_before_anything_is_sent() {
    let never = options(1, Some(keys(&[HashFunction::Sha512])));
    let error = refusal(&never);
    assert!(error.contains("SHA-256 or SHA-384"), "{error}");
    let mut both = options(1, Some(keys(&[HashFunction::Sha256])));
    let psk = ConfiguredPsk::new(&[1; 32]).expect("a key");
    both.tls = Some(HostTls { psk, identities: Identities::Both });
    let error = refusal(&both);
    assert!(error.contains("must be one of them"), "{error}");
}

#[test]
fn a_listener_that_is_never_in_clear_makes_no_keys() {
    let keys = keys(&[HashFunction::Sha256]);
    let host = keys.clone();
    with_target(keys, SecureChannel::Required, move |port| {
        let error = refusal(&options(port, Some(host)));
        assert!(error.contains("closed the connection"), "{error}");
    });
}
