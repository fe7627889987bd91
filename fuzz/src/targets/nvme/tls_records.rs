//! A host and a target over TLS, with a stranger between them who changes, repeats, leaves out,
//! cuts and makes up records either way.
//!
//! ```text
//!   bytes ─▶ Layer (host) ──records──▶ stranger ──records──▶ Layer (target) ─▶ bytes
//!                         ◀──────────── next byte of the input ──────────────
//! ```
//! What must hold: what arrives is what was sent, or the start of it; a host without the key, and
//! one whose records were changed, gets nothing in; a session that is over takes nothing more; and
//! what nobody disturbs arrives whole.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::OnceLock;

use block_io::{Buffer, BufferPool};
use nvme_fabric::pdu::Endpoint;
use nvme_fabric::tls::{
    ConfiguredPsk, HostTls, Identities, IdentityVersion, Keyring, Layer, Offer, TlsError,
};

use super::target_script::choices::Choices;
use super::{nqn, subsystem};
use crate::Target;
use crate::behaviour::{Behaviour, Observer};

/// The target. The first byte is the setting; what the stranger does follows: how many records
/// pass, then what is done to the next one.
pub const TARGET: Target = Target { name: "tls_records", length_max: 256, run, cost: 40, seeds };

/// Bits of the setting.
const WRONG_KEY: u8 = 1;
/// The target lets hosts go on in clear.
const ALLOWS_PLAIN: u8 = 2;
/// A key of 48 bytes.
const LONG_KEY: u8 = 4;
/// Both identities of a key are offered.
const BOTH_IDENTITIES: u8 = 8;

/// More turns than any conversation takes.
const TURNS_MAX: usize = 4000;
const SAID: usize = 3000;

/// An endpoint that sends bytes that it knows, and keeps what it receives.
struct Plain {
    to_send: VecDeque<u8>,
    received: Vec<u8>,
    place: Buffer,
    pool: BufferPool,
}

impl Plain {
    fn new(pool: &BufferPool, first: u8) -> Self {
        let to_send = said(first).into();
        Self { to_send, received: Vec::new(), place: pool.allocate(2048), pool: pool.clone() }
    }
}

fn said(first: u8) -> Vec<u8> {
    (0..SAID).map(|at| first.wrapping_add(at as u8)).collect()
}

impl Endpoint for Plain {
    fn receive_into(&mut self, pieces: &mut Vec<Buffer>) {
        pieces.push(self.place.slice(0, 100));
        pieces.push(self.place.slice(100, 1948));
    }

    fn received(&mut self, bytes: usize) {
        self.received.extend(self.place.slice(0, bytes).to_vec());
    }

    fn transmit_from(&mut self, pieces: &mut Vec<Buffer>, _: usize) {
        let count = self.to_send.len().min(1000);
        if count > 0 {
            let bytes: Vec<u8> = self.to_send.iter().take(count).copied().collect();
            let buffer = self.pool.allocate(count);
            buffer.copy_from_slice(&bytes);
            pieces.push(buffer);
        }
    }

    fn transmitted(&mut self, bytes: usize) {
        self.to_send.drain(..bytes);
    }
}

/// One end.
struct End {
    layer: Layer,
    plain: Plain,
    /// On the way to it, whole records.
    due: VecDeque<u8>,
    /// What it has said, and is not a whole record yet.
    rest: Vec<u8>,
    error: Option<TlsError>,
}

impl End {
    fn new(layer: Layer, pool: &BufferPool, first: u8) -> Self {
        let (due, rest) = (VecDeque::new(), Vec::new());
        Self { layer, plain: Plain::new(pool, first), due, rest, error: None }
    }

    /// Takes what is due and goes on; whether anything moved.
    fn turn(&mut self) -> bool {
        let mut pieces = Vec::new();
        self.layer.session().receive_into(&mut pieces);
        let mut moved = false;
        if let Some(piece) = pieces.pop() {
            let bytes: Vec<u8> = {
                let count = piece.len().min(self.due.len());
                self.due.drain(..count).collect()
            };
            if !bytes.is_empty() {
                piece.slice(0, bytes.len()).copy_from_slice(&bytes);
                self.layer.session().received(bytes.len());
                moved = true;
            }
        } else if self.error.is_some() {
            self.due.clear();
        }
        if self.error.is_none() && !self.layer.is_plain() {
            match self.layer.pump(&mut self.plain) {
                Ok(pumped) => moved |= pumped.progress,
                Err(error) => self.error = Some(error),
            }
        }
        self.layer.session().transmit_from(&mut pieces, 8);
        for piece in pieces {
            self.rest.extend(piece.to_vec());
            self.layer.session().transmitted(piece.len());
            moved = true;
        }
        moved
    }

    /// The next whole record that it has said. RFC 8446 §5.1
    fn next_record(&mut self) -> Option<Vec<u8>> {
        let [_, _, _, high, low] = self.rest.first_chunk()?;
        let length = 5 + usize::from(u16::from_be_bytes([*high, *low]));
        (self.rest.len() >= length).then(|| self.rest.drain(..length).collect())
    }
}

fn run(input: &[u8]) -> Behaviour {
    let mut observer = Observer::default();
    let mut choices = Choices::new(input);
    let setting = choices.byte();
    observer.note(setting & 15);
    let [mut host, mut target] = ends(setting);
    let mut passing = usize::from(choices.byte() % 16);
    let mut was_disturbed = false;
    let mut said: [Vec<Vec<u8>>; 2] = Default::default();
    for turn in 0.. {
        assert!(turn < TURNS_MAX, "two sessions that do not come to rest");
        let mut moved = host.turn() | target.turn();
        for (way, kept) in said.iter_mut().enumerate() {
            let (from, to) =
                if way == 0 { (&mut host, &mut target) } else { (&mut target, &mut host) };
            while let Some(record) = from.next_record() {
                moved = true;
                if kept.len() < 32 {
                    kept.push(record.clone());
                }
                if passing > 0 || choices.is_over() {
                    passing = passing.saturating_sub(1);
                    to.due.extend(record);
                    continue;
                }
                let changed = meddle(&record, kept, &mut choices);
                was_disturbed |= changed != record;
                to.due.extend(changed);
                passing = choices.below(12);
            }
        }
        if !moved {
            break;
        }
    }
    check(setting, was_disturbed, [&host, &target], &mut observer);
    observer.behaviour()
}

/// What the stranger makes of a record.
fn meddle(record: &[u8], said: &[Vec<u8>], choices: &mut Choices<'_>) -> Vec<u8> {
    let mut made = record.to_vec();
    match choices.below(10) {
        0 => made.clear(),
        1 => made.extend_from_slice(record),
        2 => made[choices.below(5)] ^= choices.byte(),
        3 | 4 => {
            let at = usize::from(choices.number()) % made.len();
            made[at] ^= choices.byte();
        }
        5 => made.truncate(usize::from(choices.number()) % made.len()),
        6 => made = said[choices.below(32) % said.len()].clone(),
        7 => made.extend((0..choices.below(40)).map(|_| choices.byte())),
        8 => {
            // A record of any kind in front: an alert, a change of ciphers, data in clear.
            let content: Vec<u8> = (0..choices.below(6)).map(|_| choices.byte()).collect();
            let kind = [20, 21, 22, 23, 24, 0][choices.below(6)];
            let header = [kind, 3, 3, 0, content.len() as u8];
            made = [&header[..], &content, record].concat();
        }
        _ => {}
    }
    made
}

fn check(setting: u8, was_disturbed: bool, ends: [&End; 2], observer: &mut Observer) {
    let [host, target] = ends;
    for (end, first) in [(host, 200), (target, 100)] {
        let sent = said(first);
        if end.layer.is_plain() {
            observer.note("plain");
            continue;
        }
        assert!(sent.starts_with(&end.plain.received), "what arrived is not what was sent");
        observer.note_magnitude(end.plain.received.len() as u64);
    }
    // In clear, where a target allows it, anybody is heard and nobody is known.
    if target.layer.is_plain() {
        assert!(setting & ALLOWS_PLAIN != 0 && target.layer.peer().is_none(), "in clear");
    } else if setting & WRONG_KEY != 0 {
        assert!(target.plain.received.is_empty(), "a host without the key was heard");
        assert!(target.layer.peer().is_none(), "a host without the key is known");
    } else if !was_disturbed {
        assert_eq!(host.plain.received.len(), SAID, "{:?}", host.error);
        assert_eq!(target.plain.received.len(), SAID, "{:?}", target.error);
    }
    for error in ends.iter().filter_map(|end| end.error.as_ref()) {
        let message = error.to_string();
        assert!(!message.is_empty(), "over without a word");
        observer.note_message(&message, "");
    }
}

/// Keys of each setting: making them takes longer than a run.
fn secrets(setting: u8) -> (ConfiguredPsk, ConfiguredPsk) {
    let bytes = if setting & LONG_KEY != 0 { &[0xa5; 48][..] } else { &[0x5a; 32][..] };
    let mut other = bytes.to_vec();
    other[0] ^= setting & WRONG_KEY;
    let key = |bytes: &[u8]| ConfiguredPsk::new(bytes).expect("a length that keys have");
    (key(&other), key(bytes))
}

fn offer(setting: u8) -> Offer {
    let identities = if setting & BOTH_IDENTITIES != 0 {
        Identities::Both
    } else {
        Identities::Only(IdentityVersion::One)
    };
    let tls = HostTls { psk: secrets(setting).0, identities };
    let host = nqn("nqn.2026-01.io.forebay:fuzzer");
    Offer::new(&tls, &host, &subsystem()).expect("a sound key")
}

fn keyring(setting: u8) -> Keyring {
    let host = nqn("nqn.2026-01.io.forebay:fuzzer");
    let mut keyring = Keyring::new().expect("the library works");
    keyring.allow(&host, &subsystem(), &secrets(setting).1).expect("a sound key");
    keyring
}

/// What the host offers, and what the target knows.
type BothKeys = (Rc<Offer>, Rc<Keyring>);

/// The host and the target, before they have said anything.
fn ends(setting: u8) -> [End; 2] {
    thread_local! {
        static KEYS: std::cell::RefCell<[Option<BothKeys>; 16]> = const {
            std::cell::RefCell::new([const { None }; 16])
        };
    }
    let place = usize::from(setting & 15);
    let (offer, keyring) = KEYS.with_borrow_mut(|keys| {
        let made = || (Rc::new(offer(setting)), Rc::new(keyring(setting)));
        keys[place].get_or_insert_with(made).clone()
    });
    let pool = BufferPool::heap();
    let host = Layer::client(&offer, &pool).expect("a sound key");
    let target = Layer::server(&keyring, &pool).expect("a sound keyring");
    let target = if setting & ALLOWS_PLAIN != 0 { target.allowing_plain() } else { target };
    [End::new(host, &pool, 100), End::new(target, &pool, 200)]
}

/// What a sound host says first.
pub(super) fn client_hello() -> Vec<u8> {
    static SAID: OnceLock<Vec<u8>> = OnceLock::new();
    let make = || {
        let [mut host, _] = ends(BOTH_IDENTITIES);
        host.turn();
        host.next_record().expect("a ClientHello")
    };
    SAID.get_or_init(make).clone()
}

fn seeds() -> Vec<Vec<u8>> {
    let mut random = crate::mutation::Random::new(3);
    let mut seeds: Vec<Vec<u8>> = (0..16).map(|setting| vec![setting]).collect();
    for setting in [0, 2, 4, 8] {
        for passing in 0..6 {
            for action in 0..9 {
                let more = (0..6).map(|_| random.next() as u8);
                seeds.push([setting, passing, action].into_iter().chain(more).collect());
            }
        }
    }
    seeds
}
