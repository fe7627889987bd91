//! Authentication Send and Receive on a queue, and what a host may do before it has proved itself:
//! nothing else.
//!
//! `without_authentication` stands here in a build without the feature `auth`.
//!
//! Absent: the messages ([`crate::auth::target`]). The arithmetic is done where the connection is
//! polled, with the target in hand: see [`crate::auth`] for how much that is.

use block_io::{Buffer, Timestamp};

use super::{Connection, Phase, TERMINATION_TIMEOUT};
use crate::auth::target::{Allowed, Authentication};
use crate::auth::{Keys, Names};
use crate::error::ConnectionError;
use crate::spec::command::{self, FabricsCommand, SecurityProtocol, SubmissionEntry};
use crate::spec::sgl::Descriptor;
use crate::spec::status::Status;
use crate::target::admin::connect::Demand;
use crate::target::admin::{INVALID_FIELD, check_common, check_data};
use crate::target::controller::Service;
use crate::target::{GeneratedKey, Target};

/// The most that one receive may ask for. Linux and SPDK ask for 4096 bytes.
const RECEIVE_LENGTH_MAX: u32 = 16 << 10;

/// How far a connection is with it.
#[derive(Debug, Default)]
pub(super) struct Proof {
    /// Absent where the host has no secret.
    authentication: Option<Authentication>,
    /// The stream could have been encrypted, and the next one can be.
    offers_tls: bool,
}

impl Connection {
    /// A stream with TLS may follow this one: the host may have a key for it generated, which comes
    /// out of [`Target::next_generated_key`].
    pub fn offer_tls(&mut self) {
        self.proof.offers_tls = true;
    }

    /// The queue is of a host that has a secret: from here on it has some time to prove that it
    /// knows it, unless its key has proved it.
    pub(super) fn demand_authentication(
        &mut self,
        demand: Demand,
        target: &Target,
        now: Timestamp,
    ) {
        match demand {
            Demand::None => {}
            Demand::Proven => self.proof.authentication = Some(Authentication::proven()),
            Demand::Proof | Demand::SecureChannel => {
                self.proof.authentication = Some(Authentication::default());
                self.phase_deadline = Some(now + target.settings.authentication_timeout);
            }
        }
    }

    /// What a queue of the host with these keys may negotiate: a key on the admin queue only, a new
    /// one in clear and another one over TLS. Linux `nvmet_auth_negotiate`.
    fn allowed(&self, queue_id: u16, keys: &Keys) -> Allowed {
        let is_encrypted = self.encryption.is_some();
        let is_generated = self.encryption.as_ref().is_some_and(|by| by.is_generated);
        Allowed {
            none: is_encrypted || !keys.concatenate,
            new: queue_id == 0 && !is_encrypted && self.proof.offers_tls,
            replace: queue_id == 0 && is_generated,
        }
    }

    /// Whether commands are taken.
    pub(super) fn is_authenticated(&self) -> bool {
        self.proof.authentication.as_ref().is_none_or(Authentication::is_authenticated)
    }

    /// Executes Authentication Send or Receive at `place`; whether the command is one of them and
    /// of a host that has a secret.
    pub(super) fn authenticate(
        &mut self,
        target: &mut Target,
        place: u16,
        entry: &SubmissionEntry,
        now: Timestamp,
    ) -> bool {
        if self.proof.authentication.is_none() {
            return false;
        }
        let outcome = match FabricsCommand::parse(entry) {
            FabricsCommand::AuthenticationSend { protocol, length } => {
                self.take_message(target, place, entry, protocol, length)
            }
            FabricsCommand::AuthenticationReceive { protocol, length } => {
                self.give_message(place, entry, protocol, length)
            }
            _ => return false,
        };
        if let Err(status) = outcome {
            self.fail(place, status);
        }
        let failure = self.proof.authentication.as_ref().and_then(Authentication::failure);
        if let Some(failure) = failure {
            let error = ConnectionError::Unauthenticated(format!("authentication: {failure}"));
            self.leave_unauthenticated(target, error, now);
        } else if self.is_authenticated() {
            self.phase_deadline = None;
            self.hand_out_generated(target);
        }
        true
    }

    /// Tells the target of the key that a transaction has generated.
    fn hand_out_generated(&mut self, target: &mut Target) {
        let generated = self.proof.authentication.as_mut().and_then(Authentication::take_generated);
        let (Some(psk), Some(queue)) = (generated, self.queue) else { return };
        let host = target.controller(queue.controller).map(|controller| controller.host.clone());
        if let (Some(host), Service::Subsystem(subsystem)) = (host, queue.service) {
            let subsystem = target.subsystems[subsystem].nqn().clone();
            target.key_generated(GeneratedKey { host, subsystem, psk });
        }
    }

    fn take_message(
        &mut self,
        target: &mut Target,
        place: u16,
        entry: &SubmissionEntry,
        protocol: SecurityProtocol,
        length: u32,
    ) -> Result<(), Status> {
        check_entry(entry, protocol)?;
        let data = command::data(entry);
        // Fabrics commands' data are in the capsule. NVMe/TCP Transport, "Capsules".
        if data.kind != Descriptor::KIND_IN_CAPSULE || data.address != 0 {
            return Err(Status::SGL_TYPE_INVALID.do_not_retry());
        }
        let message = self.command_mut(place).buffer.as_ref().map(Buffer::to_vec);
        let message = message.unwrap_or_default();
        if length == 0 || length != data.length || length as usize != message.len() {
            return Err(INVALID_FIELD);
        }
        let Some(queue) = self.queue else { return Err(Status::INTERNAL_ERROR) };
        let controller = target.controller(queue.controller);
        let host = controller.map(|controller| controller.host.clone());
        let (Some(host), Service::Subsystem(subsystem)) = (host, queue.service) else {
            return Err(Status::COMMAND_SEQUENCE_ERROR.do_not_retry());
        };
        let Target { subsystems, secrets, .. } = target;
        let subsystem = &subsystems[subsystem];
        // The secret may have been taken back since Connect.
        let (Some(keys), Some(random)) = (subsystem.keys_of(&host), &mut secrets.random) else {
            return Err(Status::OPERATION_DENIED.do_not_retry());
        };
        let allowed = self.allowed(queue.id, keys);
        let Some(authentication) = &mut self.proof.authentication else {
            return Err(Status::INTERNAL_ERROR);
        };
        let names = Names::new(&host, subsystem.nqn());
        authentication.send(&message, allowed, keys, names, random);
        self.succeed(place, 0);
        Ok(())
    }

    fn give_message(
        &mut self,
        place: u16,
        entry: &SubmissionEntry,
        protocol: SecurityProtocol,
        length: u32,
    ) -> Result<(), Status> {
        check_entry(entry, protocol)?;
        check_data(entry, length.into())?;
        let Some(authentication) = &mut self.proof.authentication else {
            return Err(Status::INTERNAL_ERROR);
        };
        let due = authentication.due_length();
        if length > RECEIVE_LENGTH_MAX || (length as usize) < due {
            return Err(INVALID_FIELD);
        }
        let mut message = authentication.receive();
        // Zeros to the length asked for: Linux and others take no less.
        message.resize(length as usize, 0);
        let buffer = self.pool.allocate(message.len());
        buffer.copy_from_slice(&message);
        self.deliver(place, &buffer);
        Ok(())
    }

    /// Ends the connection, after what is queued for the host, which is to close it.
    fn leave_unauthenticated(
        &mut self,
        target: &mut Target,
        error: ConnectionError,
        now: Timestamp,
    ) {
        // A host that was known once has other queues. They end with the association when it has
        // heard why, or in `TERMINATION_TIMEOUT`.
        let was_known = self.phase_deadline.is_none();
        if !was_known {
            self.leave(target);
        }
        self.discard();
        self.phase = Phase::Terminating;
        self.phase_deadline = Some(now + TERMINATION_TIMEOUT);
        self.ended = Some(error);
    }
}

fn check_entry(entry: &SubmissionEntry, protocol: SecurityProtocol) -> Result<(), Status> {
    check_common(entry)?;
    if protocol == SecurityProtocol::NVME { Ok(()) } else { Err(INVALID_FIELD) }
}
