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
use super::{Concatenation, GeneratedPsk, Group, HashFunction, Keys, Random, psk};
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
    /// The key of the last transaction that generated one and succeeded.
    generated: Option<GeneratedPsk>,
}

/// Which kinds of transaction a queue takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Allowed {
    /// Without a key.
    pub none: bool,
    /// [`Concatenation::New`].
    pub new: bool,
    /// [`Concatenation::Replace`].
    pub replace: bool,
}

impl Allowed {
    /// Authentication alone.
    pub const PLAIN: Self = Self { none: true, new: false, replace: false };

    const fn includes(self, concatenation: Concatenation) -> bool {
        match concatenation {
            Concatenation::None => self.none,
            Concatenation::New => self.new,
            Concatenation::Replace => self.replace,
        }
    }
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Idle,
    Challenging(Box<Open>),
    AwaitingReply(Box<Open>),
    /// Success1 is due, and Success2 after it when the controller is to prove itself. The key is
    /// what the transaction generates when it succeeds.
    Answering(Success1, Option<GeneratedPsk>),
    AwaitingSuccess2(Option<GeneratedPsk>),
    /// Failure1 is due.
    Failing(Explanation),
    Over,
}

/// A challenge that has not been answered.
#[derive(Debug)]
struct Open {
    concatenation: Concatenation,
    hash: HashFunction,
    group: Group,
    challenge: Vec<u8>,
    sequence: u32,
    pair: Option<KeyPair>,
}

impl Authentication {
    /// That of a queue whose host has proved itself otherwise: by a key that an earlier transaction
    /// generated.
    pub fn proven() -> Self {
        Self { is_authenticated: true, ..Self::default() }
    }

    /// The key that a transaction has generated, which both ends have now; given once.
    pub fn take_generated(&mut self) -> Option<GeneratedPsk> {
        self.generated.take()
    }

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
    pub fn send(
        &mut self,
        message: &[u8],
        allowed: Allowed,
        keys: &Keys,
        names: Names<'_>,
        random: &mut Random,
    ) {
        if matches!(self.state, State::Failing(_) | State::Over) {
            return;
        }
        if let Err(fault) = self.take(message, allowed, keys, names, random) {
            self.state = State::Failing(fault.explanation);
            self.is_authenticated = false;
            self.failure = Some(fault.text);
        }
    }

    fn take(
        &mut self,
        message: &[u8],
        allowed: Allowed,
        keys: &Keys,
        names: Names<'_>,
        random: &mut Random,
    ) -> Result<(), Fault> {
        let header = Header::parse(message)?;
        match (header.kind, std::mem::take(&mut self.state)) {
            (Kind::Negotiate, state) if self.may_start(&state) => {
                self.transaction = header.transaction;
                let open = negotiate(&Negotiate::parse(message)?, allowed, keys, random)?;
                self.state = State::Challenging(Box::new(open));
            }
            (Kind::Reply, State::AwaitingReply(open)) => {
                self.check_transaction(header)?;
                let reply = Reply::parse(message, open.hash, open.group)?;
                let (success, generated) = answer(&reply, &open, keys, names)?;
                self.state = State::Answering(success, generated);
            }
            (Kind::Success2, State::AwaitingSuccess2(generated)) => {
                self.check_transaction(header)?;
                Success2::parse(message)?;
                self.is_authenticated = true;
                self.generated = generated;
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
            State::Answering(success, _) => 16 + success.hash.length(),
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
            State::Answering(success, generated) => {
                if success.response.is_some() {
                    self.state = State::AwaitingSuccess2(generated);
                } else {
                    self.state = State::Idle;
                    self.is_authenticated = true;
                    self.generated = generated;
                }
                success.encode()
            }
            State::Failing(explanation) => self.refuse(explanation),
            State::Idle | State::AwaitingReply(_) | State::AwaitingSuccess2(_) | State::Over => {
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
fn negotiate(
    offer: &Negotiate,
    allowed: Allowed,
    keys: &Keys,
    random: &mut Random,
) -> Result<Open, Fault> {
    let concatenation = Concatenation::from_code(offer.secure_channel);
    let Some(concatenation) = concatenation.filter(|wanted| allowed.includes(*wanted)) else {
        let text = format!("SC_C is {}: must be {}", offer.secure_channel, shown(allowed));
        return Err(Fault::new(Explanation::ConcatenationMismatch, text));
    };
    let choices = keys.choices_for(concatenation);
    let (hashes, groups) = (&choices.hashes, &choices.groups);
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
        concatenation,
        hash,
        group,
        challenge: random.bytes(hash.length()).to_vec(),
        sequence: random.sequence(),
        pair: KeyPair::new(group, random),
    })
}

/// What SC_C may be, for a message.
fn shown(allowed: Allowed) -> String {
    let values = [Concatenation::None, Concatenation::New, Concatenation::Replace];
    let values = values.into_iter().filter(|one| allowed.includes(*one));
    let values: Vec<String> = values.map(|one| format!("{} ({one:?})", one.code())).collect();
    if values.is_empty() { "of another queue".to_owned() } else { values.join(" or ") }
}

/// Checks the host's response, and makes the controller's when it is asked for; and the key, when
/// one is to be generated.
fn answer(
    reply: &Reply,
    open: &Open,
    keys: &Keys,
    names: Names<'_>,
) -> Result<(Success1, Option<GeneratedPsk>), Fault> {
    let shared = open.pair.as_ref();
    let shared = shared.map(|pair| share(pair, &reply.public, open.group)).transpose()?;
    let asked = Asked {
        hash: open.hash,
        transaction: reply.transaction,
        secure_channel: open.concatenation.code(),
        challenge: &open.challenge,
        sequence: open.sequence,
        shared: shared.as_ref(),
    };
    let right = response(Role::Host, &keys.host, names, &asked);
    if !bool::from(right[..].ct_eq(&reply.response)) {
        let text = "the host's response is wrong: it does not know its secret";
        return Err(Fault::new(Explanation::Failed, text));
    }
    let generated = match (open.concatenation, &reply.challenge, &shared) {
        (Concatenation::None, ..) => None,
        (_, Some(challenge), Some(shared)) => {
            Some(psk::generate(open.hash, shared, &open.challenge, challenge))
        }
        _ => {
            let text = "CVALID is 0: must be 1, a challenge that the key is made of";
            return Err(Fault::new(Explanation::IncorrectPayload, text));
        }
    };
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
    let success = Success1 { transaction: reply.transaction, hash: open.hash, response: own };
    Ok((success, generated))
}
