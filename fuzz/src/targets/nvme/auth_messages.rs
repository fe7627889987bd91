//! DH-HMAC-CHAP without a connection: both ends, with a stranger between them who leaves out,
//! repeats, changes and makes up messages in either direction.
//!
//! What must hold: nobody is believed who does not know the secret, and nobody whose messages were
//! changed on the way; a transaction that nobody disturbs succeeds where the secrets are the same.

use nvme_fabric::auth::host::{Action, Exchange};
use nvme_fabric::auth::target::{Allowed, Authentication};
use nvme_fabric::auth::{Choices as Agreeable, Group, HashFunction, Keys, Names, Random, Secret};
use nvme_fabric::spec::auth::{
    Challenge, Concatenation, Failure, FailureKind, Header, Negotiate, Reply, Success1, Success2,
};

use super::target_script::choices::Choices;
use super::{nqn, subsystem};
use crate::Target;
use crate::behaviour::{Behaviour, Observer};

/// The target. The first two bytes are the setting; what the stranger does follows.
pub const TARGET: Target = Target { name: "auth_messages", length_max: 1024, run, cost: 8, seeds };

/// Bits of the setting: what the ends know of each other's secrets.
const HOST_WRONG: u8 = 1;
const CONTROLLER_WRONG: u8 = 2;
const BOTH_WAYS: u8 = 4;
/// A host that wants proof of a controller without a secret.
const CONTROLLER_NONE: u8 = 8;
/// Values of the upper halves of both bytes for an exponentiation group instead of none: one of
/// many, as it is a thousand times slower.
const WITH_GROUP: u8 = 0x10;
const GROUP_CONFIRMED: u8 = 0xf0;
const UPPER: u8 = 0xf0;

/// Messages of a run, either way.
const MESSAGES_MAX: usize = 24;

fn run(input: &[u8]) -> Behaviour {
    let mut observer = Observer::default();
    let mut choices = Choices::new(input);
    let (knowledge, hash) = (choices.byte(), choices.byte());
    parse_alone(input, &mut observer);
    let mut run = Run::new(knowledge, hash);
    let mut action = Action::Send(run.first.clone());
    let mut messages = 0;
    while messages < MESSAGES_MAX {
        messages += 1;
        action = match action {
            Action::Send(message) => {
                let message = run.meddle(&message, &mut choices);
                run.send(&message);
                run.exchange.sent()
            }
            Action::Receive => {
                if choices.one_in(16) {
                    // Something unasked in between.
                    let message = run.meddle(&[], &mut choices);
                    run.send(&message);
                }
                let due = run.target.due_length();
                let said = run.target.receive();
                assert_eq!(said.len(), due, "the length that was announced");
                let message = run.meddle(&said, &mut choices);
                run.receive(&message)
            }
            Action::Done => break,
            Action::Failed(ref reason) => {
                observer.note_message(reason, "");
                break;
            }
        };
        run.check();
    }
    run.check_end(matches!(action, Action::Done), &mut observer);
    observer.behaviour()
}

struct Run {
    knowledge: u8,
    host_keys: Keys,
    target_keys: Keys,
    exchange: Exchange,
    target: Authentication,
    first: Vec<u8>,
    said: Vec<Vec<u8>>,
    random: [Random; 2],
    was_disturbed: bool,
}

fn secret(seed: u8) -> Secret {
    Secret::generate(None, &mut Random::new(&[seed; 32]))
}

impl Run {
    fn new(knowledge: u8, hash: u8) -> Self {
        let is = |bit: u8| knowledge & bit != 0;
        let with_group = (knowledge & UPPER, hash & UPPER) == (WITH_GROUP, GROUP_CONFIRMED);
        let groups = if with_group { vec![Group::Ffdhe2048] } else { vec![Group::Null] };
        let hashes = match HashFunction::ALL.get(usize::from(hash % 4)) {
            Some(one) => vec![*one],
            None => HashFunction::ALL.to_vec(),
        };
        let agreeable = Agreeable { hashes, groups };
        let mut target_keys = Keys { choices: agreeable.clone(), ..Keys::new(secret(1)) };
        let mut host_keys =
            Keys { choices: agreeable, ..Keys::new(secret(if is(HOST_WRONG) { 2 } else { 1 })) };
        if is(BOTH_WAYS) {
            host_keys.controller = Some(secret(if is(CONTROLLER_WRONG) { 4 } else { 3 }));
            target_keys.controller = Some(secret(3)).filter(|_| !is(CONTROLLER_NONE));
        }
        let (exchange, first) = Exchange::start(&host_keys, 7, Concatenation::None);
        Self {
            knowledge,
            host_keys,
            target_keys,
            exchange,
            target: Authentication::default(),
            first,
            said: Vec::new(),
            random: [Random::new(&[5; 32]), Random::new(&[6; 32])],
            was_disturbed: false,
        }
    }

    /// What the stranger makes of a message.
    fn meddle(&mut self, message: &[u8], choices: &mut Choices<'_>) -> Vec<u8> {
        self.said.push(message.to_vec());
        let mut made = message.to_vec();
        match choices.below(24) {
            1 if !made.is_empty() => {
                let at = usize::from(choices.number()) % made.len();
                made[at] ^= choices.byte();
            }
            // The first bytes are the ones that say what comes.
            2 if !made.is_empty() => {
                let at = choices.below(24) % made.len();
                made[at] = choices.byte();
            }
            3 => made = self.said[choices.below(256) % self.said.len()].clone(),
            4 => made.truncate(usize::from(choices.number()) % (made.len() + 1)),
            5 => made.extend((0..choices.below(64)).map(|_| choices.byte())),
            6 => made = (0..choices.below(96)).map(|_| choices.byte()).collect(),
            7 => {
                let by =
                    if choices.one_in(2) { FailureKind::Host } else { FailureKind::Controller };
                let explanation = nvme_fabric::spec::auth::Explanation::Failed;
                made = Failure { by, transaction: 7, explanation }.encode();
            }
            8 => made = Success2 { transaction: 7 }.encode(),
            _ => {}
        }
        // Zeros after a message are what the receiver's buffer is longer by.
        let sound = made.len() >= message.len()
            && made[..message.len()] == *message
            && made[message.len()..].iter().all(|byte| *byte == 0);
        self.was_disturbed |= !sound || message.is_empty();
        made
    }

    fn send(&mut self, message: &[u8]) {
        let (host, subsystem) = (nqn("nqn.2026-01.io.forebay:fuzzer"), subsystem());
        let names = Names::new(&host, &subsystem);
        self.target.send(message, Allowed::PLAIN, &self.target_keys, names, &mut self.random[0]);
    }

    fn receive(&mut self, message: &[u8]) -> Action {
        let (host, subsystem) = (nqn("nqn.2026-01.io.forebay:fuzzer"), subsystem());
        let names = Names::new(&host, &subsystem);
        self.exchange.received(message, &self.host_keys, names, &mut self.random[1])
    }

    fn check(&self) {
        if self.knowledge & HOST_WRONG != 0 {
            assert!(!self.target.is_authenticated(), "a host without the secret was believed");
        }
        if self.target.is_authenticated() {
            assert!(self.target.failure().is_none(), "authenticated, and to be ended");
        }
    }

    fn check_end(&self, host_is_done: bool, observer: &mut Observer) {
        let is = |bit: u8| self.knowledge & bit != 0;
        if host_is_done && is(BOTH_WAYS) {
            let knows = !is(CONTROLLER_WRONG) && !is(CONTROLLER_NONE) && !is(HOST_WRONG);
            assert!(knows, "a controller without the secret was believed");
        }
        let agrees =
            !is(HOST_WRONG) && !(is(BOTH_WAYS) && (is(CONTROLLER_WRONG) || is(CONTROLLER_NONE)));
        if !self.was_disturbed {
            assert_eq!(host_is_done, agrees, "nobody disturbed it: {:#x}", self.knowledge);
            assert_eq!(self.target.is_authenticated(), agrees, "{:#x}", self.knowledge);
        }
        observer.note((host_is_done, self.target.is_authenticated(), self.knowledge & 31));
        if let Some(failure) = self.target.failure() {
            observer.note_message(failure, "");
        }
    }
}

/// The input as each of the messages.
fn parse_alone(input: &[u8], observer: &mut Observer) {
    observer.note(Header::parse(input).map(|header| header.kind).is_ok());
    let hash = HashFunction::Sha256;
    let readings = [
        Negotiate::parse(input).err(),
        Challenge::parse(input).err(),
        Reply::parse(input, hash, Group::Null).err(),
        Reply::parse(input, hash, Group::Ffdhe2048).err(),
        Success1::parse(input, hash).err(),
        Success2::parse(input).err(),
        Failure::parse(input, FailureKind::Host).err(),
        Failure::parse(input, FailureKind::Controller).err(),
    ];
    for error in readings {
        match error {
            None => observer.note("read"),
            Some(error) => observer.note_message(&error.to_string(), ""),
        }
    }
}

/// Each setting undisturbed, and each message of a sound transaction by itself.
fn seeds() -> Vec<Vec<u8>> {
    let mut seeds: Vec<Vec<u8>> = (0..16u8).map(|knowledge| vec![knowledge, 0]).collect();
    seeds.push(vec![BOTH_WAYS | WITH_GROUP, GROUP_CONFIRMED | 3]);
    seeds.push(vec![0, 1, 0, 0, 0, 0, 0, 0]);
    let mut run = Run::new(BOTH_WAYS, 0);
    let mut action = Action::Send(run.first.clone());
    let mut nothing = Choices::new(&[]);
    loop {
        action = match action {
            Action::Send(message) => {
                let message = run.meddle(&message, &mut nothing);
                run.send(&message);
                run.exchange.sent()
            }
            Action::Receive => {
                let said = run.target.receive();
                let message = run.meddle(&said, &mut nothing);
                run.receive(&message)
            }
            Action::Done | Action::Failed(_) => break,
        };
    }
    seeds.extend(run.said);
    seeds
}
