//! The host's end of a transaction.
//!
//! ```text
//!   Negotiate ─▶ Challenge ─▶ Reply ─▶ Success1 ─▶ (Success2) ─▶ Done
//!       │            └──────────┴─ wrong ─▶ Failure2 ─▶ Failed      sent: ─▶  received: named
//!       └ refused ─▶ Failed
//! ```
//! A host that has the controller's secret accepts nothing without the controller's proof: a
//! Success1 without a response is a failure then.

use subtle::ConstantTimeEq;

use super::group::{KeyPair, SharedValue};
use super::hash::Digest;
use super::response::{Asked, Names, Role, response};
use super::{Concatenation, GeneratedPsk, Group, HashFunction, Keys, Random, psk};
use crate::spec::auth::{
    Challenge, Explanation, Failure, FailureKind, Header, Kind, MessageError, Negotiate, Reply,
    Success1, Success2,
};

/// What the exchange needs next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Send this to the controller, then call [`Exchange::sent`].
    Send(Vec<u8>),
    /// Receive a message, then call [`Exchange::received`].
    Receive,
    /// Both ends are who they say, as far as was asked.
    Done,
    /// The text says why not.
    Failed(String),
}

/// One transaction. See the module.
#[derive(Debug)]
pub struct Exchange {
    transaction: u16,
    concatenation: Concatenation,
    phase: Phase,
    generated: Option<GeneratedPsk>,
}

#[derive(Debug)]
enum Phase {
    Negotiating,
    Challenge,
    /// The reply is on its way; what Success1 must then say.
    Replying(Expected),
    Success1(Expected),
    Confirming,
    /// Failure2 is on its way, for this reason.
    Failing(String),
    Over,
}

/// What Success1 must look like.
#[derive(Clone, Debug)]
struct Expected {
    hash: HashFunction,
    /// R2, when the controller must prove itself.
    response: Option<Digest>,
}

impl Exchange {
    /// A transaction under this name, and the message that starts it.
    pub fn start(keys: &Keys, transaction: u16, concatenation: Concatenation) -> (Self, Vec<u8>) {
        let choices = keys.choices_for(concatenation);
        let negotiate = Negotiate {
            transaction,
            secure_channel: concatenation.code(),
            hashes: choices.hashes.iter().map(|hash| hash.id()).collect(),
            groups: choices.groups.iter().map(|group| group.id()).collect(),
        };
        let phase = Phase::Negotiating;
        (Self { transaction, concatenation, phase, generated: None }, negotiate.encode())
    }

    /// What kind of transaction it is.
    pub fn concatenation(&self) -> Concatenation {
        self.concatenation
    }

    /// The key that it has generated, once it is done; given once.
    pub fn take_generated(&mut self) -> Option<GeneratedPsk> {
        self.generated.take().filter(|_| matches!(self.phase, Phase::Over))
    }

    /// What is wrong with the controller, while it is being told.
    pub fn fault(&self) -> Option<&str> {
        match &self.phase {
            Phase::Failing(reason) => Some(reason),
            _ => None,
        }
    }

    /// The controller has taken the message that was to be sent.
    pub fn sent(&mut self) -> Action {
        let (phase, action) = match std::mem::replace(&mut self.phase, Phase::Over) {
            Phase::Negotiating => (Phase::Challenge, Action::Receive),
            Phase::Replying(expected) => (Phase::Success1(expected), Action::Receive),
            Phase::Confirming => (Phase::Over, Action::Done),
            Phase::Failing(reason) => (Phase::Over, Action::Failed(reason)),
            phase @ (Phase::Challenge | Phase::Success1(_)) => (phase, Action::Receive),
            Phase::Over => (Phase::Over, Action::Failed("the transaction is over".to_owned())),
        };
        self.phase = phase;
        action
    }

    /// A message of the controller's has come; zeros may follow it.
    pub fn received(
        &mut self,
        message: &[u8],
        keys: &Keys,
        names: Names<'_>,
        random: &mut Random,
    ) -> Action {
        if let Some(refused) = refusal(message) {
            self.phase = Phase::Over;
            self.generated = None;
            return Action::Failed(refused);
        }
        let outcome = match std::mem::replace(&mut self.phase, Phase::Over) {
            Phase::Challenge => self.take_challenge(message, keys, names, random),
            Phase::Success1(expected) => self.take_success(message, &expected),
            _ => return Action::Failed("nothing was asked for".to_owned()),
        };
        outcome.unwrap_or_else(|fault| self.fail(fault))
    }

    fn take_challenge(
        &mut self,
        message: &[u8],
        keys: &Keys,
        names: Names<'_>,
        random: &mut Random,
    ) -> Result<Action, Fault> {
        let challenge = Challenge::parse(message)?;
        self.check_transaction(challenge.transaction)?;
        let Challenge { hash, group, .. } = challenge;
        let choices = keys.choices_for(self.concatenation);
        if !choices.hashes.contains(&hash) {
            let text = format!("the controller chose {hash}, which was not offered");
            return Err(Fault::new(Explanation::HashUnusable, text));
        }
        if !choices.groups.contains(&group) {
            let text = format!("the controller chose the group {group}, which was not offered");
            return Err(Fault::new(Explanation::GroupUnusable, text));
        }
        let pair = KeyPair::new(group, random);
        let shared = pair.as_ref().map(|pair| share(pair, &challenge.public, group)).transpose()?;
        let asked = Asked {
            hash,
            transaction: self.transaction,
            secure_channel: self.concatenation.code(),
            challenge: &challenge.challenge,
            sequence: challenge.sequence,
            shared: shared.as_ref(),
        };
        let own = response(Role::Host, &keys.host, names, &asked);
        let mut reply = Reply {
            transaction: self.transaction,
            response: own.to_vec(),
            challenge: None,
            sequence: 0,
            public: pair.map(|pair| pair.public().to_vec()).unwrap_or_default(),
        };
        let mut expected = Expected { hash, response: None };
        if keys.controller.is_some() || self.concatenation != Concatenation::None {
            reply.challenge = Some(random.bytes(hash.length()).to_vec());
        }
        if let (Some(secret), Some(challenge)) = (&keys.controller, &reply.challenge) {
            reply.sequence = random.sequence();
            let asked = Asked { challenge, sequence: reply.sequence, ..asked };
            expected.response = Some(response(Role::Controller, secret, names, &asked));
        }
        if self.concatenation != Concatenation::None
            && let (Some(own), Some(shared)) = (&reply.challenge, &shared)
        {
            self.generated = Some(psk::generate(hash, shared, &challenge.challenge, own));
        }
        self.phase = Phase::Replying(expected);
        Ok(Action::Send(reply.encode()))
    }

    fn take_success(&mut self, message: &[u8], expected: &Expected) -> Result<Action, Fault> {
        let success = Success1::parse(message, expected.hash)?;
        self.check_transaction(success.transaction)?;
        let Some(right) = &expected.response else {
            return Ok(Action::Done);
        };
        let given = success.response.ok_or_else(|| {
            let text = "the controller did not prove that it knows its secret (RVALID is 0)";
            Fault::new(Explanation::Failed, text)
        })?;
        if !bool::from(right[..].ct_eq(&given)) {
            let text = "the controller's response is wrong: it does not know the secret that this \
                        host has for it";
            return Err(Fault::new(Explanation::Failed, text));
        }
        self.phase = Phase::Confirming;
        Ok(Action::Send(Success2 { transaction: self.transaction }.encode()))
    }

    fn check_transaction(&self, given: u16) -> Result<(), Fault> {
        if given == self.transaction {
            return Ok(());
        }
        let text = format!("T_ID is {given}: must be {}", self.transaction);
        Err(Fault::new(Explanation::IncorrectPayload, text))
    }

    fn fail(&mut self, fault: Fault) -> Action {
        self.generated = None;
        self.phase = Phase::Failing(fault.text);
        let (by, transaction) = (FailureKind::Host, self.transaction);
        Action::Send(Failure { by, transaction, explanation: fault.explanation }.encode())
    }
}

/// What the controller says when it refuses.
fn refusal(message: &[u8]) -> Option<String> {
    let is_failure = Header::parse(message).is_ok_and(|header| header.kind == Kind::Failure1);
    let failure = Failure::parse(message, FailureKind::Controller).ok().filter(|_| is_failure)?;
    Some(format!("the controller refused (AUTH_Failure1): {}", failure.explanation))
}

/// What is wrong with what the other end sent.
pub(super) struct Fault {
    pub(super) explanation: Explanation,
    pub(super) text: String,
}

impl Fault {
    pub(super) fn new(explanation: Explanation, text: impl Into<String>) -> Self {
        Self { explanation, text: text.into() }
    }
}

impl From<MessageError> for Fault {
    fn from(error: MessageError) -> Self {
        Self { explanation: error.explanation, text: error.to_string() }
    }
}

/// The value in common with whoever sent `public`.
pub(super) fn share(pair: &KeyPair, public: &[u8], group: Group) -> Result<SharedValue, Fault> {
    pair.share(public).map_err(|_| {
        let text = format!("the Diffie-Hellman value: must be from 2 to p - 2 of {group}");
        Fault::new(Explanation::IncorrectPayload, text)
    })
}
