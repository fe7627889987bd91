//! Scripted discovery services behind real sockets, each connection on a thread of its own.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use nvme_fabric::spec::feature::Event;
use nvme_fabric::spec::log_page::{DiscoveryEntry, SubsystemKind};
use nvme_fabric::spec::nqn::DISCOVERY_NQN;

use crate::scripted::{Peer, Say, entry, page, piece};

/// A connection's controller, and the way to its host.
type Host = (Arc<Mutex<Peer>>, TcpStream);

/// A log that a test changes, and the connections that it is served at.
#[derive(Clone, Default)]
pub(crate) struct Service {
    log: Arc<Mutex<(u64, Vec<DiscoveryEntry>)>>,
    hosts: Arc<Mutex<Vec<Host>>>,
    asked: Arc<Mutex<u32>>,
}

impl Service {
    /// Serves at a listener for as long as the process lives.
    pub(crate) fn serve(&self, listener: TcpListener) {
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

    pub(crate) fn set(&self, entries: &[DiscoveryEntry]) {
        let mut log = self.log.lock().expect("no panic");
        (log.0, log.1) = (log.0 + 1, entries.to_vec());
    }

    /// Tells the hosts that the log has changed; whether one was waiting for that.
    pub(crate) fn raise(&self) -> bool {
        self.hosts.lock().expect("no panic").iter_mut().any(|(peer, stream)| {
            let mut peer = peer.lock().expect("no panic");
            let told = peer.raise(Event::DISCOVERY_CHANGED);
            let answer = std::mem::take(&mut peer.outbox);
            told && stream.write_all(&answer).is_ok()
        })
    }

    #[allow(dead_code, reason = "each test crate uses its own part")]
    pub(crate) fn cut(&self) {
        for (_, stream) in self.hosts.lock().expect("no panic").drain(..) {
            stream.shutdown(Shutdown::Both).expect("open");
        }
    }

    #[allow(dead_code, reason = "each test crate uses its own part")]
    pub(crate) fn asked(&self) -> u32 {
        *self.asked.lock().expect("no panic")
    }
}

pub(crate) fn listen() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    (listener, port)
}

pub(crate) fn referral(service: u16) -> DiscoveryEntry {
    DiscoveryEntry {
        kind: SubsystemKind::Referral,
        subsystem: DISCOVERY_NQN.to_owned(),
        ..entry("", service)
    }
}
