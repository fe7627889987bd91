//! Sessions with each other, over a wire that cuts as it likes: no sockets, no time.

use std::collections::VecDeque;
use std::rc::Rc;

use block_io::sim::Random;
use block_io::{Buffer, BufferPool, PoolLayout};
use s2n_tls::connection::Connection;
use s2n_tls::enums::PeerKeyUpdate;

use super::*;
use crate::pdu::Endpoint;
use crate::spec::nqn::Nqn;

const KEY_256: [u8; 32] = [0x5a; 32];
const KEY_384: [u8; 48] = [0xa5; 48];

fn nqn(name: &str) -> Nqn {
    Nqn::new(&format!("nqn.2014-08.com.example:{name}")).unwrap()
}

fn pool() -> BufferPool {
    BufferPool::new(PoolLayout::HEAP)
}

/// An endpoint that sends what it was given, and keeps what it receives.
struct Plain {
    outgoing: VecDeque<u8>,
    incoming: Vec<u8>,
    place: Buffer,
    pool: BufferPool,
    /// Bytes wanted at a time; none while zero.
    wanted: usize,
}

impl Plain {
    fn new(outgoing: &[u8]) -> Self {
        let pool = pool();
        let place = pool.allocate(100_000);
        Self {
            outgoing: outgoing.iter().copied().collect(),
            incoming: Vec::new(),
            place,
            pool,
            wanted: 100_000,
        }
    }
}

impl Endpoint for Plain {
    fn receive_into(&mut self, pieces: &mut Vec<Buffer>) {
        // Two pieces, to be filled one after the other.
        let first = self.wanted.min(777);
        pieces.push(self.place.slice(0, first));
        pieces.push(self.place.slice(first, self.wanted - first));
    }

    fn received(&mut self, bytes: usize) {
        self.incoming.extend(&self.place.slice(0, bytes).to_vec());
    }

    fn transmit_from(&mut self, pieces: &mut Vec<Buffer>, _: usize) {
        let bytes: Vec<u8> = self.outgoing.iter().copied().take(40_000).collect();
        let buffer = self.pool.allocate(bytes.len().max(1));
        if !bytes.is_empty() {
            buffer.copy_from_slice(&bytes);
            let (first, second) = (bytes.len() / 3, bytes.len() - bytes.len() / 3);
            pieces.push(buffer.slice(0, first));
            pieces.push(buffer.slice(first, second));
        }
    }

    fn transmitted(&mut self, bytes: usize) {
        self.outgoing.drain(..bytes);
    }
}

/// Moves up to `max` bytes from one session to the other; how many.
fn carry(from: &mut Layer, to: &mut Layer, max: usize) -> usize {
    let (mut sources, mut places) = (Vec::new(), Vec::new());
    from.session().transmit_from(&mut sources, 1);
    to.session().receive_into(&mut places);
    let (Some(source), Some(place)) = (sources.pop(), places.pop()) else { return 0 };
    let bytes = source.len().min(place.len()).min(max);
    place.slice(0, bytes).copy_from(&source.slice(0, bytes));
    from.session().transmitted(bytes);
    to.session().received(bytes);
    bytes
}

/// Hands bytes of a stranger's to a session.
fn feed(to: &mut Layer, mut bytes: &[u8]) {
    let mut places = Vec::new();
    while !bytes.is_empty() {
        to.session().receive_into(&mut places);
        let Some(place) = places.pop() else { return };
        let (now, later) = bytes.split_at(bytes.len().min(place.len()));
        place.slice(0, now.len()).copy_from_slice(now);
        to.session().received(now.len());
        bytes = later;
    }
}

/// All that a session wants to send, and then nothing more.
fn drain(from: &mut Layer) -> Vec<u8> {
    let mut pieces = Vec::new();
    from.session().transmit_from(&mut pieces, 1);
    let Some(piece) = pieces.pop() else { return Vec::new() };
    from.session().transmitted(piece.len());
    piece.to_vec()
}

/// A host and a target, each with what it sends.
struct Pair {
    host: Layer,
    host_end: Plain,
    target: Layer,
    target_end: Plain,
}

impl Pair {
    fn new(host_key: &[u8], target_key: &[u8], identities: Identities) -> Self {
        let tls = HostTls { psk: ConfiguredPsk::new(host_key).unwrap(), identities };
        let offer = Offer::new(&tls, &nqn("host"), &nqn("subsystem")).unwrap();
        let mut keyring = Keyring::new().unwrap();
        let key = ConfiguredPsk::new(target_key).unwrap();
        keyring.allow(&nqn("host"), &nqn("subsystem"), &key).unwrap();
        keyring.allow(&nqn("other"), &nqn("subsystem"), &key).unwrap();
        Self {
            host: Layer::client(&offer, &pool()).unwrap(),
            host_end: Plain::new(b""),
            target: Layer::server(&Rc::new(keyring), &pool()).unwrap(),
            target_end: Plain::new(b""),
        }
    }

    /// A host with what it offers as number `way`.
    fn of_ways(way: usize) -> Self {
        let psk = ConfiguredPsk::new(&KEY_256).unwrap();
        let tls = HostTls { psk: psk.clone(), identities: Identities::Both };
        let ways = Offer::ways(&tls, &nqn("host"), &nqn("subsystem")).unwrap();
        let mut pair = Self::new(&KEY_256, &KEY_256, Identities::Both);
        pair.host = Layer::client(&ways[way], &pool()).unwrap();
        pair
    }

    /// Runs until nothing moves, in pieces of at most `max` bytes. The host's and the target's
    /// errors.
    fn run(&mut self, max: usize) -> (Option<TlsError>, Option<TlsError>) {
        let (mut host_error, mut target_error) = (None, None);
        loop {
            let mut progress = false;
            if host_error.is_none() {
                match self.host.pump(&mut self.host_end) {
                    Ok(pumped) => progress |= pumped.progress,
                    Err(error) => host_error = Some(error),
                }
            }
            if target_error.is_none() {
                match self.target.pump(&mut self.target_end) {
                    Ok(pumped) => progress |= pumped.progress,
                    Err(error) => target_error = Some(error),
                }
            }
            progress |= carry(&mut self.host, &mut self.target, max) > 0;
            progress |= carry(&mut self.target, &mut self.host, max) > 0;
            if !progress {
                return (host_error, target_error);
            }
        }
    }

    fn connection(layer: &mut Layer) -> &mut Connection {
        layer.session().library()
    }
}

#[test]
fn both_hashes_and_both_identities_carry_bytes_both_ways_however_the_wire_cuts() {
    let (zero, one) = (IdentityVersion::Zero, IdentityVersion::One);
    let sent: Vec<u8> = (0..300_000_u32).map(|at| (at * 7 % 251) as u8).collect();
    for (key, cipher) in
        [(&KEY_256[..], "TLS_AES_128_GCM_SHA256"), (&KEY_384[..], "TLS_AES_256_GCM_SHA384")]
    {
        for identities in [Identities::Both, Identities::Only(zero), Identities::Only(one)] {
            for max in [100_000, 1000, 1] {
                let mut pair = Pair::new(key, key, identities);
                let length = if max == 1 { 20_000 } else { sent.len() };
                pair.host_end.outgoing.extend(&sent[..length]);
                pair.target_end.outgoing.extend(sent[..length].iter().rev());
                assert_eq!(pair.run(max), (None, None), "{identities:?}, {max} bytes at a time");
                assert!(pair.target_end.incoming == sent[..length], "{max}: to the target");
                assert!(pair.host_end.incoming.iter().eq(sent[..length].iter().rev()), "{max}");
                let peer =
                    Peer { host: nqn("host"), subsystem: nqn("subsystem"), is_generated: false };
                assert_eq!(pair.target.peer(), Some(&peer));
                assert_eq!(Pair::connection(&mut pair.host).cipher_suite().unwrap(), cipher);
            }
        }
    }
}

#[test]
fn a_target_that_knows_only_version_0_takes_that_of_both() {
    for version in [IdentityVersion::Zero, IdentityVersion::One] {
        let mut pair = Pair::new(&KEY_256, &KEY_256, Identities::Both);
        let key = ConfiguredPsk::new(&KEY_256).unwrap();
        let (host, subsystem) = (nqn("host"), nqn("subsystem"));
        let mut keyring = Keyring::new().unwrap();
        let psk = TlsPsk::retained(version, &key, &host, &subsystem).unwrap();
        let identity = psk.identity().to_owned();
        keyring.insert(psk, &host, &subsystem);
        pair.target = Layer::server(&Rc::new(keyring), &pool()).unwrap();
        assert_eq!(pair.run(1000), (None, None));
        let connection = Pair::connection(&mut pair.host);
        let mut chosen = vec![0; connection.negotiated_psk_identity_length().unwrap()];
        connection.negotiated_psk_identity(&mut chosen).unwrap();
        assert_eq!(chosen, identity.as_bytes());
    }
}

#[test]
fn another_key_is_told_at_both_ends() {
    // Version 0 names no digest of the key: the identity is known and the key is wrong.
    let zero = Identities::Only(IdentityVersion::Zero);
    let mut pair = Pair::new(&KEY_256, &[1; 32], zero);
    let (host, target) = pair.run(1000);
    assert!(matches!(target, Some(TlsError::WrongKey(_))), "{target:?}");
    let host = host.unwrap().to_string();
    assert!(host.contains("alert 51") && host.contains("another key"), "{host}");
    assert!(host.contains("NVMe0R01 nqn.2014-08.com.example:host"), "{host}");

    // With version 1 another key has another identity.
    let mut pair = Pair::new(&KEY_256, &[1; 32], Identities::Only(IdentityVersion::One));
    let (host, target) = pair.run(1000);
    let target = target.unwrap().to_string();
    assert!(target.contains("NVMe1R01") && target.contains("no key here"), "{target}");
    let host = host.unwrap().to_string();
    assert!(host.contains("alert 115") && host.contains("NVMe1R01"), "{host}");
}

#[test]
fn a_key_update_in_the_middle_of_the_stream_is_followed() {
    let mut pair = Pair::new(&KEY_256, &KEY_256, Identities::Both);
    assert_eq!(pair.run(1300), (None, None));
    for round in 0..4_u8 {
        Pair::connection(&mut pair.host)
            .request_key_update(PeerKeyUpdate::KeyUpdateNotRequested)
            .unwrap();
        pair.host_end.outgoing.extend(b"x");
        pair.host.pump(&mut pair.host_end).unwrap();
        let sent = drain(&mut pair.host);
        // A KeyUpdate, 5 bytes with its content type and tag. RFC 8446 §4.6.3, §5.2
        assert_eq!(sent[..5], [23, 3, 3, 0, 5 + 1 + 16]);
        feed(&mut pair.target, &sent);
        Pair::connection(&mut pair.target)
            .request_key_update(PeerKeyUpdate::KeyUpdateNotRequested)
            .unwrap();
        pair.host_end.outgoing.extend(&[round; 50_000]);
        pair.target_end.outgoing.extend(&[round; 50_000]);
        assert_eq!(pair.run(1300), (None, None));
    }
    assert_eq!((pair.host_end.incoming.len(), pair.target_end.incoming.len()), (200_000, 200_004));
}

#[test]
fn close_notify_comes_after_all_that_was_sent() {
    let mut pair = Pair::new(&KEY_256, &KEY_256, Identities::Both);
    pair.host_end.outgoing.extend(b"last words");
    assert_eq!(pair.run(1000), (None, None));
    pair.host.session().close();
    while carry(&mut pair.host, &mut pair.target, 1000) > 0 {}
    let pumped = pair.target.pump(&mut pair.target_end).unwrap();
    assert!(pumped.is_closed);
    assert_eq!(pair.target_end.incoming, b"last words");
    assert_eq!(pair.target.session().end_of_stream(), None);
}

#[test]
fn a_stream_that_ends_in_the_handshake_names_what_was_offered() {
    let mut pair = Pair::new(&KEY_256, &KEY_256, Identities::Both);
    pair.host.pump(&mut pair.host_end).unwrap();
    let error = pair.host.session().end_of_stream().unwrap().to_string();
    assert!(error.contains("NVMe1R01") && error.contains("NVMe0R01"), "{error}");
    let error = pair.target.session().end_of_stream().unwrap().to_string();
    assert!(error.contains("in the handshake"), "{error}");
}

#[test]
fn an_end_without_tls_is_told_as_such() {
    // An ICReq, PDU type 0, at a target; a C2HTermReq, type 3, at a host.
    let mut pair = Pair::new(&KEY_256, &KEY_256, Identities::Both);
    feed(&mut pair.target, &[0, 0, 128, 0, 128, 0, 0, 0]);
    let error = pair.target.pump(&mut pair.target_end).unwrap_err();
    assert_eq!(error, TlsError::NotTls(0));
    assert!(drain(&mut pair.target).is_empty(), "nothing that a plain host could misread");
    pair.host.pump(&mut pair.host_end).unwrap();
    feed(&mut pair.host, &[3, 0, 24, 0]);
    let error = pair.host.pump(&mut pair.host_end).unwrap_err().to_string();
    assert!(error.contains("0x03") && error.contains("without TLS"), "{error}");
}

#[test]
fn an_endpoint_that_wants_nothing_is_given_nothing_and_the_stream_waits() {
    let mut pair = Pair::new(&KEY_256, &KEY_256, Identities::Both);
    assert_eq!(pair.run(100_000), (None, None));
    pair.target_end.wanted = 0;
    pair.host_end.outgoing.extend(&[9; 1 << 20]);
    assert_eq!(pair.run(100_000), (None, None));
    assert!(pair.target_end.incoming.is_empty());
    let queued = (1 << 20) - pair.host_end.outgoing.len();
    assert!(queued < 200_000, "{queued} bytes are on their way: the bound holds");
    pair.target_end.wanted = 3000;
    assert_eq!(pair.run(100_000), (None, None));
    assert_eq!(pair.target_end.incoming.len(), 1 << 20);
}

#[test]
fn hostile_bytes_end_a_session_and_never_panic() {
    for seed in 0..300 {
        let mut random = Random::new(seed);
        let mut pair = Pair::new(&KEY_256, &KEY_256, Identities::Both);
        // The handshake goes on for so many steps; then comes what nobody expects.
        for _ in 0..random.below(8) {
            pair.host.pump(&mut pair.host_end).unwrap();
            pair.target.pump(&mut pair.target_end).unwrap();
            let max = 1 + random.below(600) as usize;
            carry(&mut pair.host, &mut pair.target, max);
            carry(&mut pair.target, &mut pair.host, max);
        }
        let any = random.below(256) as u8;
        let kind = *random.choose(&[20, 21, 22, 23, any]);
        // Lengths up to what a record may have and beyond. RFC 8446 §5.2
        let claimed = *random.choose(&[0, 1, 2, 300, 16_384, 16_640, 16_641, 65_535]);
        let length = (random.below(claimed + 1) as usize).min(60_000);
        let mut bytes = vec![kind, 3, 3, (claimed >> 8) as u8, claimed as u8];
        bytes.extend((0..length).map(|_| random.below(256) as u8));
        feed(&mut pair.target, &bytes);
        feed(&mut pair.host, &bytes);
        for _ in 0..4 {
            let _ = pair.target.pump(&mut pair.target_end);
            let _ = pair.host.pump(&mut pair.host_end);
        }
        assert!(pair.target_end.incoming.is_empty(), "seed {seed}: nothing forged is believed");
        assert!(pair.host_end.incoming.is_empty(), "seed {seed}");
    }
}

#[test]
fn a_damaged_record_ends_an_open_session() {
    let mut pair = Pair::new(&KEY_256, &KEY_256, Identities::Both);
    assert_eq!(pair.run(1000), (None, None));
    pair.host_end.outgoing.extend(b"to be damaged");
    pair.host.pump(&mut pair.host_end).unwrap();
    let mut record = drain(&mut pair.host);
    record[9] ^= 1;
    feed(&mut pair.target, &record);
    assert!(pair.target.pump(&mut pair.target_end).is_err());
    assert!(pair.target_end.incoming.is_empty());
}

#[test]
fn a_session_shows_no_secret() {
    let pair = Pair::new(&KEY_256, &KEY_256, Identities::Both);
    let shown = format!("{:?} {:?}", pair.host, pair.target);
    assert!(!shown.contains("90, 90") && !shown.contains("5a5a"), "{shown}");
}

mod generated {
    use super::*;
    use crate::auth::host::{Action, Exchange};
    use crate::auth::target::{Allowed, Authentication};
    use crate::auth::{Concatenation, Keys, Names, Secret};
    use crate::target::GeneratedKey;
    use block_io::Timestamp;
    use std::time::Duration;

    /// What an authentication of `host` generates.
    fn key(host: &str, seed: u8) -> GeneratedKey {
        let random = |seed| crate::auth::Random::new(&[seed; 32]);
        let keys = Keys::new(Secret::generate(None, &mut random(1)));
        let (host, subsystem) = (nqn(host), nqn("subsystem"));
        let names = Names::new(&host, &subsystem);
        let allowed = Allowed { none: false, new: true, replace: false };
        let mut target = Authentication::default();
        let (mut ours, mut theirs) = (random(seed), random(seed + 1));
        let (mut exchange, message) = Exchange::start(&keys, 1, Concatenation::New);
        let mut action = Action::Send(message);
        loop {
            action = match action {
                Action::Send(message) => {
                    target.send(&message, allowed, &keys, names, &mut theirs);
                    exchange.sent()
                }
                Action::Receive => exchange.received(&target.receive(), &keys, names, &mut ours),
                Action::Done => break,
                Action::Failed(text) => panic!("{text}"),
            };
        }
        let psk = exchange.take_generated().expect("it was to make one");
        GeneratedKey { host, subsystem, psk }
    }

    /// A host that offers `offer` to a target that knows `generated` only.
    fn pair(offer: &Offer, generated: &Rc<GeneratedKeys>) -> Pair {
        let keyring = Rc::new(Keyring::new().unwrap());
        Pair {
            host: Layer::client(offer, &pool()).unwrap(),
            host_end: Plain::new(b""),
            target: Layer::server(&keyring, &pool()).unwrap().knowing(generated),
            target_end: Plain::new(b""),
        }
    }

    #[test]
    fn a_generated_key_opens_a_session_and_tells_so() {
        let (key, keys) = (key("host", 3), Rc::new(GeneratedKeys::default()));
        let offer = Offer::generated(&key.psk, &key.host, &key.subsystem).unwrap();
        let mut early = pair(&offer, &keys);
        keys.insert(&key, Timestamp(5)).unwrap();
        let mut pair = pair(&offer, &keys);
        assert_eq!(pair.run(1000), (None, None));
        let (host, subsystem) = (key.host.clone(), key.subsystem.clone());
        let peer = Peer { host, subsystem, is_generated: true };
        assert_eq!(pair.target.peer(), Some(&peer));
        // A session that began before knows it too: what counts is when the host offers it.
        assert_eq!(early.run(1000), (None, None));
    }

    #[test]
    fn a_generated_key_is_of_no_use_to_another_host() {
        let (key, keys) = (key("host", 3), Rc::new(GeneratedKeys::default()));
        keys.insert(&key, Timestamp(0)).unwrap();
        // Who has its bytes, and offers them by his own name.
        let offer = Offer::generated(&key.psk, &nqn("thief"), &key.subsystem).unwrap();
        let (_, error) = pair(&offer, &keys).run(1000);
        assert!(matches!(error, Some(TlsError::UnknownIdentity(_))), "{error:?}");
        // For another subsystem.
        let offer = Offer::generated(&key.psk, &key.host, &nqn("another")).unwrap();
        let (_, error) = pair(&offer, &keys).run(1000);
        assert!(matches!(error, Some(TlsError::UnknownIdentity(_))), "{error:?}");
        // And a key of the same host's that was never generated here.
        let other = super::generated::key("host", 9);
        let offer = Offer::generated(&other.psk, &other.host, &other.subsystem).unwrap();
        let (_, error) = pair(&offer, &keys).run(1000);
        assert!(matches!(error, Some(TlsError::UnknownIdentity(_))), "{error:?}");
    }

    #[test]
    fn a_generated_key_opens_sessions_for_its_time_and_no_longer() {
        let (key, keys) = (key("host", 3), Rc::new(GeneratedKeys::default()));
        let offer = Offer::generated(&key.psk, &key.host, &key.subsystem).unwrap();
        let begun = Timestamp(7);
        keys.insert(&key, begun).unwrap();
        let end = begun + GENERATED_LIFETIME;
        assert_eq!(keys.next_expiry(), Some(end));
        assert!(!keys.expire(Timestamp(end.0 - 1)));
        let mut open = pair(&offer, &keys);
        assert_eq!(open.run(1000), (None, None));
        assert!(keys.expire(end));
        assert!(keys.is_empty() && keys.next_expiry().is_none());
        let (_, error) = pair(&offer, &keys).run(1000);
        assert!(matches!(error, Some(TlsError::UnknownIdentity(_))), "{error:?}");
        // The session that it has opened stays.
        open.host_end.outgoing.extend(b"still here");
        assert_eq!(open.run(1000), (None, None));
        assert_eq!(open.target_end.incoming, b"still here");
    }

    #[test]
    fn a_host_that_makes_key_after_key_keeps_eight() {
        let keys = GeneratedKeys::default();
        let first = key("host", 1);
        for seed in 1..=12 {
            keys.insert(&key("host", seed), Timestamp(0) + Duration::from_secs(seed.into()))
                .unwrap();
        }
        keys.insert(&key("other", 1), Timestamp(0)).unwrap();
        assert_eq!(keys.len(), 9);
        let gone = TlsPsk::generated(first.psk.bytes(), &first.host, &first.subsystem).unwrap();
        assert!(keys.find(gone.identity().as_bytes()).is_none(), "the oldest went");
        assert_eq!(format!("{keys:?}"), "GeneratedKeys(9)");
    }
}

#[test]
fn every_way_of_naming_a_key_opens_a_session() {
    for way in 0..3 {
        let mut pair = Pair::of_ways(way);
        assert_eq!(pair.run(usize::MAX), (None, None), "way {way}");
        assert!(pair.target.peer().is_some(), "way {way}");
    }
}
