//! Discovery of controllers that change, lie, and refuse.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use nvme_fabric::host::discovery::{Difference, Discovery};
use nvme_fabric::spec::command::{AdminCommand, FabricsCommand};
use nvme_fabric::spec::feature::{self, Event, event};
use nvme_fabric::spec::identify::ControllerKind;
use nvme_fabric::spec::log_page::DiscoveryEntry;
use nvme_fabric::spec::nqn::Nqn;
use nvme_fabric::spec::status::Status;

use crate::against_script::Pair;
use crate::harness::nqn;
use crate::scripted::{Heard, Peer, Say, entry, page, piece};

/// A log that a test changes while it is served: its generation and entries, and how often it was
/// read to the end, which re-arms the event.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<(u64, Vec<DiscoveryEntry>, u32)>>);

impl Log {
    fn set(&self, entries: &[DiscoveryEntry]) {
        let mut log = self.0.lock().expect("no panic");
        (log.0, log.1) = (log.0 + 1, entries.to_vec());
    }

    fn re_armed(&self) -> u32 {
        self.0.lock().expect("no panic").2
    }

    fn peer(&self) -> Peer {
        let log = self.clone();
        Peer::new(move |heard| {
            let mut log = log.0.lock().expect("no panic");
            let (bytes, re_arms) = piece(&page(log.0, &log.1), heard)?;
            log.2 += u32::from(re_arms);
            Some(Say::Data(bytes))
        })
    }
}

fn once(peer: Peer, subsystem: &Nqn) -> Pair<Discovery> {
    let mut pair = Pair::new(peer, |pool, options, now| {
        let options = nvme_fabric::host::HostOptions { subsystem: subsystem.clone(), ..options };
        Discovery::once(pool, options, now).expect("options are right")
    });
    pair.run_for(Duration::from_secs(60));
    assert!(pair.host.is_over());
    pair
}

fn persistent(peer: Peer) -> Pair<Discovery> {
    let mut pair = Pair::new(peer, |pool, options, now| {
        let subsystem = Nqn::discovery();
        let options = nvme_fabric::host::HostOptions { subsystem, ..options };
        Discovery::persistent(pool, options, now).expect("options are right")
    });
    pair.settle();
    pair
}

fn error_of(peer: Peer) -> String {
    once(peer, &Nqn::discovery()).host.into_log().expect_err("refused").to_string()
}

#[test]
fn asked_once_there_is_no_keep_alive_and_no_event() {
    let log = Log::default();
    log.set(&[entry("a", 4420)]);
    let name = nqn("nqn.2014-08.com.example:unique");
    let mut peer = log.peer();
    peer.name = name.to_string();
    let pair = once(peer, &name);
    assert_eq!(pair.host.service_name(), name.as_str());
    let connect = pair.peer.heard[0];
    let Heard::Fabrics(FabricsCommand::Connect { keep_alive_ms, .. }) = connect else {
        panic!("{connect:?}");
    };
    assert_eq!((keep_alive_ms, pair.peer.parked()), (0, 0));
    assert_eq!(pair.host.into_log().expect("read").entries, [entry("a", 4420)]);
}

#[test]
fn a_persistent_connection_reads_the_log_after_each_event_and_re_arms_it() {
    let log = Log::default();
    log.set(&[entry("a", 4420)]);
    let mut pair = persistent(log.peer());
    let connect = pair.peer.heard[0];
    let Heard::Fabrics(FabricsCommand::Connect { keep_alive_ms, .. }) = connect else {
        panic!("{connect:?}");
    };
    assert_eq!(keep_alive_ms, 5000);
    let wanted = Heard::Admin(AdminCommand::SetFeatures {
        namespace_id: 0,
        feature: feature::ASYNCHRONOUS_EVENTS,
        save: false,
        value: event::DISCOVERY_LOG,
    });
    assert!(pair.peer.heard.contains(&wanted), "{:?}", pair.peer.heard);
    let mut told = pair.host.take_log().expect("the first").entries;
    assert_eq!((told.len(), log.re_armed(), pair.peer.parked()), (1, 1, 1));
    for round in 2..6 {
        let entries: Vec<_> = (0..round).map(|number| entry("b", number)).collect();
        log.set(&entries);
        assert!(pair.peer.raise(Event::DISCOVERY_CHANGED), "an event is awaited");
        pair.settle();
        let now = pair.host.take_log().expect("another").entries;
        assert!(!Difference::between(&told, &now).is_empty());
        assert_eq!((now.len(), log.re_armed()), (usize::from(round), round.into()));
        assert_eq!(pair.peer.parked(), 1, "one request waits, whatever happened");
        told = now;
    }
    // What else is told is not a reason to read.
    let other = Event { kind: 1, information: 0, page: 2 };
    assert!(pair.peer.raise(other));
    pair.settle();
    assert_eq!((pair.host.take_log(), pair.peer.parked(), log.re_armed()), (None, 1, 5));
    pair.host.shut_down();
    pair.settle();
    pair.run_for(Duration::from_secs(3));
    assert!(pair.host.is_over());
}

#[test]
fn a_persistent_connection_is_kept_alive_and_its_loss_is_told() {
    let log = Log::default();
    let mut pair = persistent(log.peer());
    pair.run_for(Duration::from_secs(60));
    let beats = |pair: &Pair<Discovery>| {
        let is_beat = |heard: &&Heard| **heard == Heard::Admin(AdminCommand::KeepAlive);
        pair.peer.heard.iter().filter(is_beat).count()
    };
    assert_eq!(beats(&pair), 24, "twice in 5 s");
    assert!(!pair.host.is_over() && pair.host.error().is_none());
    // From now on the peer is silent.
    let log = Log::default();
    let mut silent = Pair::new(log.peer(), |pool, options, now| {
        let subsystem = Nqn::discovery();
        let options = nvme_fabric::host::HostOptions { subsystem, ..options };
        Discovery::persistent(pool, options, now).expect("options are right")
    });
    silent.settle();
    silent.peer = Peer::new(|_| None);
    silent.peer.feed(&[0; 4]);
    silent.run_for(Duration::from_secs(60));
    assert!(silent.host.is_over());
    let error = silent.host.error().expect("it is told").to_string();
    assert!(error.contains("Keep Alive"), "{error}");
}

#[test]
fn a_log_that_changes_between_its_pieces_is_one_log_in_the_end() {
    for changes in [1, 3, 8] {
        let mut reads = 0;
        let peer = Peer::new(move |heard| {
            // Every header but the last is of another generation, with other entries.
            let entries: Vec<_> = (0..9).map(|port| entry(&format!("g{reads}"), port)).collect();
            let (bytes, re_arms) = piece(&page(reads, &entries), heard)?;
            if re_arms && reads < changes {
                reads += 1;
                let entries: Vec<_> = (0..9).map(|n| entry(&format!("g{reads}"), n)).collect();
                return Some(Say::Data(piece(&page(reads, &entries), heard)?.0));
            }
            Some(Say::Data(bytes))
        });
        let log = once(peer, &Nqn::discovery()).host.into_log().expect("read");
        assert_eq!((log.generation, log.entries.len()), (changes, 9));
        let name = format!("nqn.2014-08.com.example:g{changes}");
        assert!(log.entries.iter().all(|entry| entry.subsystem == name), "{log:?}");
    }
}

#[test]
fn a_log_that_never_rests_or_cannot_be_is_an_error_that_says_so() {
    let mut generation = 0;
    let error = error_of(Peer::new(move |heard| {
        generation += 1;
        Some(Say::Data(piece(&page(generation, &[entry("a", 1)]), heard)?.0))
    }));
    assert!(error.contains("target:4420") && error.contains("changed 9 times"), "{error}");
    for (offset, value, expected) in [
        (8, u64::MAX, "NUMREC is 18446744073709551615: at most 4096"),
        (16, 7, "RECFMT is 7: must be 0"),
    ] {
        let error = error_of(Peer::new(move |heard| {
            let mut page = page(1, &[]);
            page[offset..offset + 8].copy_from_slice(&u64::to_le_bytes(value));
            Some(Say::Data(piece(&page, heard)?.0))
        }));
        assert!(error.contains(expected), "{error}");
    }
    let error = error_of(Peer::new(|heard| {
        piece(&[], heard)?;
        Some(Say::Fail(Status::INVALID_LOG_PAGE.do_not_retry(), 0))
    }));
    assert!(error.contains("Get Log Page (discovery): Invalid Log Page (0x109)"), "{error}");
}

#[test]
fn text_of_strangers_is_harmless_and_unknown_transports_are_shown() {
    let peer = Peer::new(|heard| {
        let mut page = page(1, &[DiscoveryEntry { transport: 254, ..entry("a", 1) }]);
        // Neither NULs nor spaces at the end, and what a terminal would obey.
        page[1024 + 32..1024 + 64].fill(0x1b);
        page[1024 + 256..1024 + 768].fill(0xff);
        Some(Say::Data(piece(&page, heard)?.0))
    });
    let log = once(peer, &Nqn::discovery()).host.into_log().expect("read");
    let found = &log.entries[0];
    assert_eq!((found.transport, found.service.len(), found.address.len()), (254, 32, 256));
    for text in [&found.service, &found.address, &found.subsystem] {
        assert!(text.chars().all(|character| character == '?'), "{text}");
    }
    let error = nvme_fabric::host::discovery::route(found).expect_err("nowhere");
    assert!(error.contains("TRTYPE is 254: must be 3"), "{error}");
}

#[test]
fn a_controller_that_is_no_discovery_service_or_tells_no_changes_is_refused_by_field() {
    let mut peer = Log::default().peer();
    peer.kind = ControllerKind::InputOutput;
    let error = error_of(peer);
    assert!(error.contains("CNTRLTYPE is InputOutput: a discovery controller"), "{error}");
    let mut peer = Log::default().peer();
    peer.events = 1 << 8;
    let mut pair = persistent(peer);
    pair.run_for(Duration::from_secs(3));
    let error = pair.host.error().expect("refused").to_string();
    assert!(error.contains("OAES is 0x00000100: must have bit 31"), "{error}");
}
