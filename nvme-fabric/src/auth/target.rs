//! The controller's end of the transactions of one queue.
//!
//! ```text
//!            send Negotiate    receive         send Reply     receive
//!   Idle ───▶ Challenging ───▶ AwaitingReply ───▶ Answering ───▶ Idle, authenticated
//!    ▲            │                │                └─ C2 was sent ─▶ AwaitingSuccess2 ─┐
//!    └────────────┼────────────────┼────────────────────────────────── send Success2 ───┘
//!               Failing ── receive Failure1 ──▶ Over        send Failure2 ──▶ Over
//! ```
//! A queue once authenticated stays so while it is authenticated again, until that fails. Before
//! the first success there is one transaction a connection, so that a stranger gets one guess and
//! two exponentiations for his connection.

use subtle::ConstantTimeEq;

use super::group::KeyPair;
use super::host::{Fault, share};
use super::response::{Asked, Names, Role, response};
use super::{Group, HashFunction, Keys, Random};
use crate::spec::auth::{
    Challenge, Explanation, Failure, FailureKind, Header, Kind, Negotiate, Reply, Success1,
    Success2,
};

/// The authentication of one queue. See the module.
#[derive(Debug, Default)]
pub struct Authentication {
    state: State,
    is_authenticated: bool,
    /// T_ID of the current transaction.
    transaction: u16,
    /// Why the queue's connection must end.
    failure: Option<String>,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Idle,
    Challenging(Box<Open>),
    AwaitingReply(Box<Open>),
    /// Success1 is due, and Success2 after it when the controller is to prove itself.
    Answering(Success1),
    AwaitingSuccess2,
    /// Failure1 is due.
    Failing(Explanation),
    Over,
}

/// A challenge that has not been answered.
#[derive(Debug)]
struct Open {
    hash: HashFunction,
    group: Group,
    challenge: Vec<u8>,
    sequence: u32,
    pair: Option<KeyPair>,
}

impl Authentication {
    /// Whether the host has proved itself on this queue, and the last attempt did not fail.
    pub fn is_authenticated(&self) -> bool {
        self.is_authenticated
    }

    /// Why the connection must end now: the last transaction failed, and the host knows it.
    pub fn failure(&self) -> Option<&str> {
        self.failure.as_deref().filter(|_| matches!(self.state, State::Over))
    }

    /// A message of the host's has come by Authentication Send. What is wrong with it is told by
    /// the next [`receive`](Self::receive).
    pub fn send(&mut self, message: &[u8], keys: &Keys, names: Names<'_>, random: &mut Random) {
        if matches!(self.state, State::Failing(_) | State::Over) {
            return;
        }
        if let Err(fault) = self.take(message, keys, names, random) {
            self.state = State::Failing(fault.explanation);
            self.is_authenticated = false;
            self.failure = Some(fault.text);
        }
    }

    fn take(
        &mut self,
        message: &[u8],
        keys: &Keys,
        names: Names<'_>,
        random: &mut Random,
    ) -> Result<(), Fault> {
        let header = Header::parse(message)?;
        match (header.kind, std::mem::take(&mut self.state)) {
            (Kind::Negotiate, state) if self.may_start(&state) => {
                self.transaction = header.transaction;
                let open = negotiate(&Negotiate::parse(message)?, keys, random)?;
                self.state = State::Challenging(Box::new(open));
            }
            (Kind::Reply, State::AwaitingReply(open)) => {
                self.check_transaction(header)?;
                let reply = Reply::parse(message, open.hash, open.group)?;
                self.state = State::Answering(answer(&reply, &open, keys, names)?);
            }
            (Kind::Success2, State::AwaitingSuccess2) => {
                self.check_transaction(header)?;
                Success2::parse(message)?;
                self.is_authenticated = true;
            }
            (Kind::Failure2, _) => {
                let failure = Failure::parse(message, FailureKind::Host)?;
                self.state = State::Over;
                self.is_authenticated = false;
                self.failure =
                    Some(format!("the host refused (AUTH_Failure2): {}", failure.explanation));
            }
            (kind, _) => {
                let text = format!("{} came, which was not due", kind.name());
                return Err(Fault::new(Explanation::IncorrectMessage, text));
            }
        }
        Ok(())
    }

    /// A host that is known may begin again at any time.
    fn may_start(&self, state: &State) -> bool {
        self.is_authenticated || matches!(state, State::Idle)
    }

    fn check_transaction(&self, header: Header) -> Result<(), Fault> {
        if header.transaction == self.transaction {
            return Ok(());
        }
        let text = format!("T_ID is {}: must be {}", header.transaction, self.transaction);
        Err(Fault::new(Explanation::IncorrectPayload, text))
    }

    /// Bytes of the message that [`receive`](Self::receive) would give.
    pub fn due_length(&self) -> usize {
        match &self.state {
            State::Challenging(open) => 16 + open.hash.length() + open.group.length(),
            State::Answering(success) => 16 + success.hash.length(),
            _ => 8,
        }
    }

    /// The message that Authentication Receive brings the host.
    pub fn receive(&mut self) -> Vec<u8> {
        let transaction = self.transaction;
        match std::mem::replace(&mut self.state, State::Over) {
            State::Challenging(open) => {
                let message = Challenge {
                    transaction,
                    hash: open.hash,
                    group: open.group,
                    sequence: open.sequence,
                    challenge: open.challenge.clone(),
                    public: open
                        .pair
                        .as_ref()
                        .map(|pair| pair.public().to_vec())
                        .unwrap_or_default(),
                };
                self.state = State::AwaitingReply(open);
                message.encode()
            }
            State::Answering(success) => {
                if success.response.is_some() {
                    self.state = State::AwaitingSuccess2;
                } else {
                    self.state = State::Idle;
                    self.is_authenticated = true;
                }
                success.encode()
            }
            State::Failing(explanation) => self.refuse(explanation),
            State::Idle | State::AwaitingReply(_) | State::AwaitingSuccess2 | State::Over => {
                self.is_authenticated = false;
                let text = "a message was asked for, and none was due".to_owned();
                self.failure.get_or_insert(text);
                self.refuse(Explanation::IncorrectMessage)
            }
        }
    }

    fn refuse(&self, explanation: Explanation) -> Vec<u8> {
        let (by, transaction) = (FailureKind::Controller, self.transaction);
        Failure { by, transaction, explanation }.encode()
    }
}

/// Chooses a hash and a group, and makes a challenge.
fn negotiate(offer: &Negotiate, keys: &Keys, random: &mut Random) -> Result<Open, Fault> {
    if offer.secure_channel != 0 {
        let text = format!("SC_C is {}: must be 0, no secure channel", offer.secure_channel);
        return Err(Fault::new(Explanation::ConcatenationMismatch, text));
    }
    let (hashes, groups) = (&keys.choices.hashes, &keys.choices.groups);
    let hash = hashes.iter().copied().find(|hash| offer.hashes.contains(&hash.id()));
    let hash = hash.ok_or_else(|| {
        let text = format!("the host offers the hashes {:?}: none is allowed", offer.hashes);
        Fault::new(Explanation::HashUnusable, text)
    })?;
    let group = groups.iter().copied().find(|group| offer.groups.contains(&group.id()));
    let group = group.ok_or_else(|| {
        let text = format!("the host offers the groups {:?}: none is allowed", offer.groups);
        Fault::new(Explanation::GroupUnusable, text)
    })?;
    Ok(Open {
        hash,
        group,
        challenge: random.bytes(hash.length()).to_vec(),
        sequence: random.sequence(),
        pair: KeyPair::new(group, random),
    })
}

/// Checks the host's response, and makes the controller's when it is asked for.
fn answer(reply: &Reply, open: &Open, keys: &Keys, names: Names<'_>) -> Result<Success1, Fault> {
    let shared = open.pair.as_ref();
    let shared = shared.map(|pair| share(pair, &reply.public, open.group)).transpose()?;
    let asked = Asked {
        hash: open.hash,
        transaction: reply.transaction,
        secure_channel: 0,
        challenge: &open.challenge,
        sequence: open.sequence,
        shared: shared.as_ref(),
    };
    let right = response(Role::Host, &keys.host, names, &asked);
    if !bool::from(right[..].ct_eq(&reply.response)) {
        let text = "the host's response is wrong: it does not know its secret";
        return Err(Fault::new(Explanation::Failed, text));
    }
    // S2 of 0: the challenge serves another purpose. Base §8.13.5.4
    let challenge = reply.challenge.as_ref().filter(|_| reply.sequence != 0);
    let own = match (challenge, &keys.controller) {
        (None, _) => None,
        (Some(challenge), Some(secret)) => {
            let asked = Asked { challenge, sequence: reply.sequence, ..asked };
            Some(response(Role::Controller, secret, names, &asked).to_vec())
        }
        (Some(_), None) => {
            let text = "the host wants proof of the controller, which has no secret for it";
            return Err(Fault::new(Explanation::Failed, text));
        }
    };
    Ok(Success1 { transaction: reply.transaction, hash: open.hash, response: own })
}
