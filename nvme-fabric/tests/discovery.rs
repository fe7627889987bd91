//! Discovery over loopback sockets: services that refer to each other, and one that is watched.

mod scripted;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use block_io::PoolLayout;
use block_io::reactor::{Reactor, ReactorConfig, Wait};
use nvme_fabric::driver::{DiscoverOptions, DiscoveryWatch, WatchEvent, discover};
use nvme_fabric::spec::feature::Event;
use nvme_fabric::spec::log_page::{DiscoveryEntry, SubsystemKind};
use nvme_fabric::spec::nqn::{DISCOVERY_NQN, HostId, Nqn};

use scripted::{Peer, Say, entry, page, piece};

/// A log that a test changes, and the connections that it is served at.
#[derive(Clone, Default)]
struct Service {
    log: Arc<Mutex<(u64, Vec<DiscoveryEntry>)>>,
    hosts: Arc<Mutex<Vec<(Arc<Mutex<Peer>>, TcpStream)>>>,
    asked: Arc<Mutex<u32>>,
}

impl Service {
    /// Serves at a listener for as long as the process lives.
    fn serve(&self, listener: TcpListener) {
        let service = self.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let stream = stream.expect("a connection");
                let service = service.clone();
                std::thread::spawn(move || service.host(stream));
            }
        });
    }

    fn host(&self, mut stream: TcpStream) {
        *self.asked.lock().expect("no panic") += 1;
        let log = self.log.clone();
        let peer = Arc::new(Mutex::new(Peer::new(move |heard| {
            let log = log.lock().expect("no panic");
            Some(Say::Data(piece(&page(log.0, &log.1), heard)?.0))
        })));
        let own = stream.try_clone().expect("a descriptor");
        self.hosts.lock().expect("no panic").push((peer.clone(), own));
        let mut bytes = [0; 4096];
        while let Ok(count @ 1..) = stream.read(&mut bytes) {
            let mut peer = peer.lock().expect("no panic");
            peer.feed(&bytes[..count]);
            let answer = std::mem::take(&mut peer.outbox);
            if stream.write_all(&answer).is_err() {
                return;
            }
        }
    }

    fn set(&self, entries: &[DiscoveryEntry]) {
        let mut log = self.log.lock().expect("no panic");
        (log.0, log.1) = (log.0 + 1, entries.to_vec());
    }

    /// Tells the hosts that the log has changed; whether one was waiting for that.
    fn raise(&self) -> bool {
        self.hosts.lock().expect("no panic").iter_mut().any(|(peer, stream)| {
            let mut peer = peer.lock().expect("no panic");
            let told = peer.raise(Event::DISCOVERY_CHANGED);
            let answer = std::mem::take(&mut peer.outbox);
            told && stream.write_all(&answer).is_ok()
        })
    }

    fn cut(&self) {
        for (_, stream) in self.hosts.lock().expect("no panic").drain(..) {
            stream.shutdown(Shutdown::Both).expect("open");
        }
    }

    fn asked(&self) -> u32 {
        *self.asked.lock().expect("no panic")
    }
}

fn listen() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    (listener, port)
}

fn referral(service: u16) -> DiscoveryEntry {
    DiscoveryEntry {
        kind: SubsystemKind::Referral,
        subsystem: DISCOVERY_NQN.to_owned(),
        ..entry("", service)
    }
}

fn reactor() -> Reactor {
    let config = ReactorConfig { pool: PoolLayout::HEAP, ..ReactorConfig::default() };
    Reactor::new(config).expect("a reactor")
}

fn options(port: u16) -> DiscoverOptions {
    let host = Nqn::new("nqn.2014-08.com.example:host").expect("well formed");
    DiscoverOptions { port, ..DiscoverOptions::new("localhost", host, HostId([5; 16])) }
}

#[test]
fn services_in_a_circle_are_asked_once_and_one_that_is_gone_hides_nobody() {
    let ((one_listener, one_port), (two_listener, two_port)) = (listen(), listen());
    let gone_port = {
        let (listener, port) = listen();
        drop(listener);
        port
    };
    let (one, two) = (Service::default(), Service::default());
    one.set(&[referral(gone_port), referral(two_port), entry("a", 4420), referral(one_port)]);
    two.set(&[referral(one_port), referral(two_port), entry("b", 4420)]);
    one.serve(one_listener);
    two.serve(two_listener);
    // By its address, which is how the others refer to it.
    let options = DiscoverOptions { host: "127.0.0.1".to_owned(), ..options(one_port) };
    let findings = discover(&reactor(), &options).expect("the reactor turns");
    let ports: Vec<u16> =
        findings.answers.iter().map(|answer| answer.visit.route.address.port()).collect();
    assert_eq!(ports, [one_port, two_port]);
    assert_eq!((one.asked(), two.asked()), (1, 1));
    assert_eq!(findings.answers[1].log.entries[2], entry("b", 4420));
    let [(visit, error)] = &findings.failures[..] else { panic!("{:?}", findings.failures) };
    assert_eq!(visit.route.address.port(), gone_port);
    assert!(error.contains(&format!("connecting to 127.0.0.1:{gone_port}")), "{error}");
}

#[test]
fn a_first_service_that_is_not_there_is_a_failure_that_names_it() {
    let (listener, port) = listen();
    drop(listener);
    let findings = discover(&reactor(), &options(port)).expect("the reactor turns");
    assert_eq!(findings.answers, []);
    assert!(findings.failures[0].1.contains(&format!("localhost:{port}")), "{findings:?}");
}

/// Turns until the watch tells something.
fn next(reactor: &Reactor, watch: &mut DiscoveryWatch) -> WatchEvent {
    loop {
        let progress = watch.poll(reactor.now());
        if let Some(event) = watch.next_event() {
            return event;
        }
        reactor.turn(if progress { Wait::No } else { Wait::ForEvent }).expect("turns");
    }
}

#[test]
fn a_watch_tells_differences_and_comes_back_after_a_loss() {
    let (listener, port) = listen();
    let service = Service::default();
    service.set(&[entry("a", 4420), entry("b", 4420)]);
    service.serve(listener);
    let reactor = reactor();
    let mut watch = DiscoveryWatch::new(&reactor, &options(port)).expect("options are right");
    let WatchEvent::Changed(first) = next(&reactor, &mut watch) else { panic!("lost") };
    assert_eq!((first.appeared.len(), first.gone.len()), (2, 0));
    let secure = DiscoveryEntry { security: 2, ..entry("b", 4420) };
    service.set(&[secure.clone(), entry("c", 4420)]);
    // The request for an event may still be on its way.
    while !service.raise() {
        watch.poll(reactor.now());
        reactor.turn(Wait::No).expect("turns");
    }
    let WatchEvent::Changed(second) = next(&reactor, &mut watch) else { panic!("lost") };
    assert_eq!(second.appeared, [entry("c", 4420)]);
    assert_eq!(second.gone, [entry("a", 4420)]);
    assert_eq!(second.changed, [(entry("b", 4420), secure.clone())]);
    // What changes while nobody listens is a difference all the same.
    service.set(&[secure]);
    service.cut();
    let WatchEvent::Lost(error, _) = next(&reactor, &mut watch) else { panic!("not lost") };
    assert!(!error.is_empty());
    let WatchEvent::Changed(third) = next(&reactor, &mut watch) else { panic!("lost again") };
    assert_eq!((third.gone, third.appeared.len()), (vec![entry("c", 4420)], 0));
    watch.shut_down();
    while !watch.is_closed() {
        let progress = watch.poll(reactor.now());
        if !watch.is_closed() {
            reactor.turn(if progress { Wait::No } else { Wait::ForEvent }).expect("turns");
        }
    }
    assert_eq!((watch.next_event(), service.asked()), (None, 2));
}
