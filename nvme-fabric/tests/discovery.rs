//! Discovery over loopback sockets: services that refer to each other, and one that is watched.

mod scripted;
#[path = "scripted/service.rs"]
mod service;

use block_io::PoolLayout;
use block_io::reactor::{Reactor, ReactorConfig, Wait};
use nvme_fabric::driver::{DiscoverOptions, DiscoveryWatch, WatchEvent, discover};
use nvme_fabric::spec::log_page::DiscoveryEntry;
use nvme_fabric::spec::nqn::{HostId, Nqn};

use scripted::entry;
use service::{Service, listen, referral};

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
