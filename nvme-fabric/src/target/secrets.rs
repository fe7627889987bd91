//! What hosts must prove, and with what: secrets of each subsystem's hosts, and the keys that
//! proofs have generated.
//!
//! `without_secrets` stands here in a build without the feature `auth`. Absent: the proof itself,
//! which is a connection's (`connection/authentication`).

use std::collections::VecDeque;

use block_io::DeviceError;

use super::admin::Refusal;
use super::admin::connect::{Demand, Stream};
use super::controller::Service;
use super::{Subsystem, Target};
use crate::auth::{GeneratedPsk, Keys, Random, SEED_LENGTH};
use crate::spec::nqn::Nqn;
use crate::spec::status::Status;

/// A target's part of it.
#[derive(Debug, Default)]
pub(super) struct Secrets {
    pub(super) random: Option<Random>,
    /// Keys that nobody has taken yet, at most [`GENERATED_MAX`].
    generated: VecDeque<GeneratedKey>,
}

/// A subsystem's part of it.
#[derive(Clone, Debug, Default)]
pub(super) struct HostSecrets {
    /// By the host's name.
    hosts: Vec<(Nqn, Keys)>,
    are_required: bool,
}

/// A key for TLS that an authentication has generated. See [`Target::next_generated_key`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GeneratedKey {
    /// The host that has it too.
    pub host: Nqn,
    /// The subsystem that it opens.
    pub subsystem: Nqn,
    /// The key.
    pub psk: GeneratedPsk,
}

/// Generated keys that wait for the driver, which takes them after each poll; the oldest goes.
const GENERATED_MAX: usize = 64;

impl Target {
    /// Hands in random bytes, never the same twice, which hosts with secrets need: until then they
    /// are refused.
    pub fn seed_random(&mut self, seed: &[u8; SEED_LENGTH]) {
        self.secrets.random = Some(Random::new(seed));
    }

    /// A key that a host and a connection for which TLS was offered have generated: the streams
    /// with which the host comes next begin with TLS by it. See
    /// [`Connection::offer_tls`](super::Connection::offer_tls). To be asked after every
    /// [`Connection::poll`](super::Connection::poll).
    pub fn next_generated_key(&mut self) -> Option<GeneratedKey> {
        self.secrets.generated.pop_front()
    }

    pub(super) fn key_generated(&mut self, key: GeneratedKey) {
        if self.secrets.generated.len() == GENERATED_MAX {
            self.secrets.generated.pop_front();
        }
        self.secrets.generated.push_back(key);
    }

    /// Gives a host keys with the subsystem at this place, while it is served:
    /// [`Subsystem::set_host_keys`].
    ///
    /// # Errors
    /// When there is no such subsystem, or as there.
    pub fn set_host_keys(
        &mut self,
        subsystem: usize,
        host: Nqn,
        keys: Keys,
    ) -> Result<(), DeviceError> {
        let place = self
            .subsystems
            .get_mut(subsystem)
            .ok_or_else(|| DeviceError::new(format!("there is no subsystem {subsystem}")))?;
        place.set_host_keys(host, keys)
    }
}

impl Subsystem {
    /// Gives a host keys, in place of those it had: from its next Connect on it proves that it
    /// knows them, and queues that are authenticated again do so with these.
    ///
    /// # Errors
    /// When the keys allow no hash or no group.
    pub fn set_host_keys(&mut self, host: Nqn, keys: Keys) -> Result<(), DeviceError> {
        keys.check()?;
        match self.secrets.hosts.iter_mut().find(|(name, _)| *name == host) {
            Some((_, old)) => *old = keys,
            None => self.secrets.hosts.push((host, keys)),
        }
        Ok(())
    }

    /// Takes a host's keys away; whether there were any. Queues that it has stay.
    pub fn remove_host_keys(&mut self, host: &Nqn) -> bool {
        let before = self.secrets.hosts.len();
        self.secrets.hosts.retain(|(name, _)| name != host);
        self.secrets.hosts.len() < before
    }

    /// Whether hosts that have no keys here are refused. At first they are not.
    pub fn require_authentication(&mut self, required: bool) {
        self.secrets.are_required = required;
    }

    pub(super) fn keys_of(&self, host: &Nqn) -> Option<&Keys> {
        self.secrets.hosts.iter().find(|(name, _)| name == host).map(|(_, keys)| keys)
    }
}

/// What a host by this name must prove.
pub(super) fn demand(
    target: &Target,
    service: Service,
    host: &Nqn,
    stream: Stream,
) -> Result<Demand, Refusal> {
    let Service::Subsystem(place) = service else { return Ok(Demand::None) };
    let subsystem = &target.subsystems[place];
    match (subsystem.keys_of(host), &target.secrets.random) {
        (Some(_), Some(_)) if stream == Stream::Generated => Ok(Demand::Proven),
        (Some(keys), Some(_)) if keys.concatenate && stream == Stream::Plain => {
            Ok(Demand::SecureChannel)
        }
        (Some(_), Some(_)) => Ok(Demand::Proof),
        // Its secret was taken away, and with it what it has proved.
        (None, _) if stream == Stream::Generated => {
            Err(Status::CONNECT_INVALID_HOST.do_not_retry().into())
        }
        // Without random bytes nobody can be asked for a proof, so nobody gets in.
        (Some(_), None) => Err(Status::INTERNAL_ERROR.do_not_retry().into()),
        (None, _) if subsystem.secrets.are_required => {
            Err(Status::CONNECT_INVALID_HOST.do_not_retry().into())
        }
        (None, _) => Ok(Demand::None),
    }
}
