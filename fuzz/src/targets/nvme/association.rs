//! Both ends of an association, with a stranger in each of its streams who leaves PDUs out,
//! repeats, reorders, changes, shortens and makes them up, or closes the stream.
//!
//! ```text
//!   Controller ──PDUs──▶ stranger ──PDUs──▶ Connection ─▶ Target
//!       ▲◀───────────────  │ next byte of the input  ◀──────┘
//! ```
//! What must hold, for the host: every request gets one answer, and the association ends when its
//! streams do or in time; a log that never stops changing is given up. For the target: requests fit
//! the device, and nothing is left when the streams are gone. Undisturbed, everything succeeds.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use block_io::{BufferPool, Completion, Timestamp};
use nvme_fabric::auth::{Choices as Agreeable, Group, Keys, Random as Secrets, Secret};
use nvme_fabric::error::ConnectionError;
use nvme_fabric::host::controller::Purpose;
use nvme_fabric::host::discovery::Discovery;
use nvme_fabric::host::{Controller, HostAuthentication, HostOptions, QueueIndex};
use nvme_fabric::spec::nqn::Nqn;
use nvme_fabric::target::{Listener, SecureChannel};

use super::record::{QUEUES, workload};
use super::target_script::choices::Choices;
use super::target_side::{Served, TargetSide};
use super::{START, collect, deliver, digests, host_options};
use crate::Target;
use crate::behaviour::{Behaviour, Observer};
use crate::mutation::Random;

/// The target. The first byte is the setting, see the constants; what the stranger does follows:
/// how many PDUs pass, then what is done to the next one.
pub const TARGET: Target = Target { name: "association", length_max: 512, run, cost: 40, seeds };

/// Bits of the setting, beside [`super::CONTROL_DIGESTS`].
const DISCOVERY: u8 = 0x01;
const AUTHENTICATION: u8 = 0x02;
/// The log of the discovery service changes all the time.
const CHANGING_LOG: u8 = 0x08;

/// More turns than any conversation takes.
const TURNS_MAX: usize = 50_000;

/// The host's end, for whatever it is there.
enum Host {
    Namespace(Box<Controller>),
    Discovery(Box<Discovery>),
}

impl Host {
    fn controller(&mut self) -> &mut Controller {
        match self {
            Self::Namespace(controller) => controller,
            Self::Discovery(discovery) => discovery.controller(),
        }
    }

    fn tick(&mut self, now: Timestamp) -> bool {
        match self {
            Self::Namespace(controller) => controller.tick(now),
            Self::Discovery(discovery) => discovery.tick(now),
        }
    }
}

/// One direction of a stream.
#[derive(Default)]
struct Way {
    /// Said, and not yet whole PDUs.
    rest: Vec<u8>,
    /// To be delivered.
    due: VecDeque<u8>,
    /// Kept back by the stranger, to come behind the next PDU.
    kept: Vec<u8>,
    said: Vec<Vec<u8>>,
}

struct Session<'input> {
    host: Host,
    side: TargetSide,
    served: [Option<Served>; QUEUES],
    ways: [[Way; 2]; QUEUES],
    now: Timestamp,
    choices: Choices<'input>,
    /// PDUs until the stranger does something again.
    passing: usize,
    was_disturbed: bool,
    is_closing: bool,
    queue: Option<QueueIndex>,
    submitted: BTreeSet<u64>,
    completions: Vec<Completion>,
    pool: BufferPool,
    random: Random,
    log_changes: bool,
}

fn run(input: &[u8]) -> Behaviour {
    let mut observer = Observer::default();
    let Some((control, rest)) = input.split_first() else { return observer.behaviour() };
    let mut session = Session::new(*control, rest);
    observer.note(control & 0xf);
    let mut turns = 0;
    while !session.host.controller().is_over() {
        turns += 1;
        assert!(
            turns < TURNS_MAX,
            "an association that does not end: {:?} at {:?}, next {:?}",
            session.host.controller().state(),
            session.now,
            session.host.controller().next_deadline()
        );
        if !session.turn() && !session.advance() {
            break;
        }
    }
    session.check(&mut observer);
    observer.behaviour()
}

fn options(control: u8) -> HostOptions {
    let mut options = host_options(digests(control));
    if control & AUTHENTICATION != 0 {
        options.authentication = Some(HostAuthentication::new(keys()));
    }
    options
}

/// Secrets of both ends.
fn keys() -> Keys {
    let secret = |seed| Secret::generate(None, &mut Secrets::new(&[seed; 32]));
    let agreeable = Agreeable { groups: vec![Group::Null], ..Agreeable::default() };
    Keys { choices: agreeable, ..Keys::new(secret(1)).with_controller(secret(2)) }
}

fn listener(port: u16) -> Listener {
    let address = std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
    Listener { address, port, channel: SecureChannel::None }
}

impl<'input> Session<'input> {
    fn new(control: u8, script: &'input [u8]) -> Self {
        let pool = BufferPool::heap();
        let mut side = TargetSide::new();
        side.target.seed_random(&[3; 32]);
        let is_discovery = control & DISCOVERY != 0;
        let mut options = options(control);
        if is_discovery {
            options.authentication = None;
            options.subsystem = Nqn::discovery();
            (0..5).for_each(|port| side.target.add_listener(listener(port)));
        } else if options.authentication.is_some() {
            let host = options.host.clone();
            side.target.set_host_keys(0, host, keys()).expect("sound keys");
        }
        let host = match is_discovery {
            true => Discovery::once(&pool, options, START).map(Box::new).map(Host::Discovery),
            false => Controller::new(&pool, options, Purpose::Namespace(1), START)
                .map(Box::new)
                .map(Host::Namespace),
        };
        let mut choices = Choices::new(script);
        let mut host = host.expect("sound options");
        host.controller().seed_random(&[4; 32]);
        Self {
            host,
            side,
            served: [None, None],
            ways: Default::default(),
            now: START,
            passing: usize::from(choices.byte()),
            choices,
            was_disturbed: false,
            is_closing: false,
            queue: None,
            submitted: BTreeSet::new(),
            completions: Vec::new(),
            pool,
            random: Random::new(u64::from(control)),
            log_changes: is_discovery && control & CHANGING_LOG != 0,
        }
    }

    fn turn(&mut self) -> bool {
        let mut moved = false;
        while let Some(queue) = self.host.controller().next_stream_wanted() {
            if usize::from(queue) < QUEUES {
                self.served[usize::from(queue)] = Some(self.side.accept(self.now));
                self.ways[usize::from(queue)] = Default::default();
                self.host.controller().stream_established(queue);
            } else {
                let lost = block_io::IoError::ConnectionLost;
                self.host.controller().stream_failed(queue, lost);
            }
            moved = true;
        }
        moved |= self.host.tick(self.now);
        self.work();
        for queue in 0..QUEUES {
            moved |= self.exchange(queue);
        }
        if let Some(queue) = self.queue {
            moved |= self.host.controller().take_completions(queue, &mut self.completions);
        }
        if self.queue.is_some()
            && self.completions.len() == self.submitted.len()
            && !self.is_closing
        {
            self.is_closing = true;
            self.host.controller().shut_down();
            moved = true;
        }
        moved
    }

    fn work(&mut self) {
        let Host::Namespace(host) = &mut self.host else { return };
        if self.queue.is_some() || !host.is_up() {
            return;
        }
        // Changed answers may have granted no I/O queue.
        let Ok(queue) = host.open_queue(16) else { return };
        self.queue = Some(queue);
        for request in workload(&self.pool) {
            self.submitted.insert(request.id.0);
            host.submit(queue, request).expect("there is room");
        }
    }

    fn exchange(&mut self, queue: usize) -> bool {
        let mut moved = false;
        let index = queue as QueueIndex;
        let Some(connection) = self.host.controller().connection(index) else { return false };
        let said = collect(connection, &mut self.random);
        moved |= self.pass(queue, 0, &said);
        if let Some(served) = &mut self.served[queue] {
            if served.connection.is_finished() {
                self.ways[queue][0].due.clear();
            }
            let due = &mut self.ways[queue][0].due;
            let taken = deliver(&mut served.connection, due.make_contiguous());
            due.drain(..taken);
            moved |= taken > 0;
            served.turn(&mut self.side.target, self.now, &mut self.random, false);
            let answer = std::mem::take(&mut served.sent);
            if self.log_changes && !answer.is_empty() {
                // It comes and goes, so that the log stays as long as it is.
                let Listener { address, port, .. } = listener(9);
                if self.side.target.remove_listener(address, port).is_err() {
                    self.side.target.add_listener(listener(9));
                }
            }
            moved |= self.pass(queue, 1, &answer);
        }
        let Some(connection) = self.host.controller().connection(index) else { return moved };
        let due = &mut self.ways[queue][1].due;
        if !connection.is_over() && !due.is_empty() {
            let taken = deliver(connection, due.make_contiguous());
            due.drain(..taken);
            moved |= taken > 0;
        }
        let is_closed = self.served[queue].as_ref().is_none_or(|it| it.connection.is_finished());
        if is_closed && !connection.is_over() {
            connection.end_of_stream();
            moved = true;
        }
        if connection.wants_close() || connection.is_over() {
            self.host.controller().stream_closed(index);
            self.close(queue);
            moved = true;
        }
        moved
    }

    /// The target's end of a stream is closed.
    fn close(&mut self, queue: usize) {
        if let Some(mut served) = self.served[queue].take() {
            served.connection.disconnect(&mut self.side.target, ConnectionError::Closed);
            served.turn(&mut self.side.target, self.now, &mut self.random, false);
            assert!(served.connection.is_idle(), "a finished connection that holds blocks");
        }
    }

    /// Takes what one end has said to the stranger; whether it was anything.
    fn pass(&mut self, queue: usize, way: usize, said: &[u8]) -> bool {
        self.ways[queue][way].rest.extend_from_slice(said);
        while let Some([_, _, _, _, a, b, c, d]) = self.ways[queue][way].rest.first_chunk() {
            let length = u32::from_le_bytes([*a, *b, *c, *d]) as usize;
            if length == 0 || length > self.ways[queue][way].rest.len() {
                break;
            }
            let pdu: Vec<u8> = self.ways[queue][way].rest.drain(..length).collect();
            let kept = std::mem::take(&mut self.ways[queue][way].kept);
            let made = self.meddle(queue, way, pdu);
            let way = &mut self.ways[queue][way];
            way.due.extend(made);
            way.due.extend(kept);
        }
        !said.is_empty()
    }

    fn meddle(&mut self, queue: usize, way: usize, mut pdu: Vec<u8>) -> Vec<u8> {
        let said = &mut self.ways[queue][way].said;
        if said.len() < 64 {
            said.push(pdu.clone());
        }
        if self.passing > 0 || self.choices.is_over() {
            self.passing = self.passing.saturating_sub(1);
            return pdu;
        }
        self.was_disturbed = true;
        let choices = &mut self.choices;
        let headers = pdu.len().min(72);
        match choices.below(12) {
            0 => pdu.clear(),
            1 => pdu.extend(pdu.clone()),
            2 => self.ways[queue][way].kept = std::mem::take(&mut pdu),
            3..=4 => pdu[choices.below(headers)] ^= choices.byte(),
            5 => {
                let at = usize::from(choices.number()) % pdu.len();
                pdu[at] ^= choices.byte();
            }
            6 => {
                let at = choices.below(headers) & !3;
                let value = [0u32, 1, 4, 0xffff_ffff, 0x8000_0000, 0x10_0000, 512, 0xffff_fffc]
                    [choices.below(8)];
                let end = (at + 4).min(pdu.len());
                pdu[at..end].copy_from_slice(&value.to_le_bytes()[..end - at]);
            }
            7 => pdu.truncate(usize::from(choices.number()) % pdu.len()),
            8 => {
                let earlier = choices.below(64) % said.len();
                pdu.splice(0..0, said[earlier].clone());
            }
            9 => pdu.extend((0..choices.below(40)).map(|_| choices.byte())),
            10 => {
                // An identifier of another command, or of none: bytes 12 and 13 of an answer.
                let at = [8, 10, 12, 20][choices.below(4)].min(pdu.len() - 1);
                pdu[at] = choices.below(20) as u8;
            }
            _ => {
                if let Some(served) = &mut self.served[queue] {
                    served.connection.disconnect(&mut self.side.target, ConnectionError::Closed);
                }
            }
        }
        self.passing = self.choices.below(24);
        pdu
    }

    /// Nothing moves: time goes by for both ends. False when neither waits for anything.
    fn advance(&mut self) -> bool {
        let mut deadlines: Vec<Timestamp> =
            self.host.controller().next_deadline().into_iter().collect();
        for served in self.served.iter().flatten() {
            deadlines.extend(served.connection.deadline());
        }
        let Some(deadline) = deadlines.into_iter().min() else {
            panic!("an association that waits for nothing");
        };
        assert!(deadline > self.now, "a deadline that does nothing");
        self.now = deadline;
        for served in self.served.iter_mut().flatten() {
            served.turn(&mut self.side.target, self.now, &mut self.random, false);
        }
        true
    }

    fn check(&mut self, observer: &mut Observer) {
        for queue in 0..QUEUES {
            self.close(queue);
        }
        assert_eq!(self.side.target.controllers_in_use(), 0, "controllers without a connection");
        let subsystems = self.side.target.subsystems().values();
        for namespace in subsystems.flat_map(|place| place.namespaces().values()) {
            assert_eq!(namespace.commands_under_way(), 0, "commands of nobody");
        }
        if let Some(queue) = self.queue {
            self.host.controller().take_completions(queue, &mut self.completions);
        }
        let mut kinds = BTreeMap::new();
        for completion in &self.completions {
            let first = self.submitted.remove(&completion.id.0);
            assert!(first, "request {} was completed twice", completion.id.0);
            *kinds.entry(format!("{:?}", completion.result)).or_insert(0) += 1;
            assert!(self.was_disturbed || completion.result.is_ok(), "{completion:?}");
        }
        assert!(self.submitted.is_empty(), "requests {:?} got no answer", self.submitted);
        let came_up = self.queue.is_some() || matches!(self.host, Host::Discovery(_));
        let error = self.host.controller().error().cloned();
        assert!(self.was_disturbed || came_up, "nobody disturbed it: {error:?}");
        observer.note(kinds);
        if let Some(error) = self.host.controller().error() {
            observer.note_message(&error.to_string(), "");
        }
        let ended =
            std::mem::replace(&mut self.host, Host::Discovery(Box::new(unused(&self.pool))));
        if let Host::Discovery(discovery) = ended {
            match discovery.into_log() {
                Ok(log) => observer.note_magnitude(log.entries.len() as u64),
                Err(error) => {
                    assert!(self.was_disturbed || self.log_changes, "{error}");
                    observer.note_message(&error.to_string(), "");
                }
            }
        }
    }
}

/// Stands where the host was.
fn unused(pool: &BufferPool) -> Discovery {
    let options = HostOptions { subsystem: Nqn::discovery(), ..options(0) };
    Discovery::once(pool, options, START).expect("sound options")
}

fn seeds() -> Vec<Vec<u8>> {
    let mut random = Random::new(2);
    let mut seeds: Vec<Vec<u8>> = (0..16).map(|control| vec![control, 255]).collect();
    // An answer to bringing up, behind what has ended the association.
    seeds.push(vec![0x0c, 0x08, 0x32]);
    for control in 0..16u8 {
        for _ in 0..6 {
            let script = (0..24).map(|_| random.next() as u8);
            seeds.push(std::iter::once(control).chain(script).collect());
        }
    }
    seeds
}
