//! DH-HMAC-CHAP: each end proves to the other that it knows a secret, without saying it.
//!
//! ```text
//!   secret     DHHC-1:hh:…:   the secrets of a host and a controller, as people keep them
//!   hash       SHA-2 and HMAC        group    Diffie-Hellman, RFC 7919
//!   response   from a challenge to its answer
//!      ▲
//!   host | target    one transaction's messages at each end (Base §8.13.5)
//!   psk        the key that a transaction generates     derivation  what TLS makes of it
//!   random     many random bytes of a few that were handed in
//! ```
//! Nothing here sends or waits: messages go in and come out. The arithmetic runs on the caller's
//! thread. A transaction costs each end two exponentiations with an exponent of 256 to 448 bits
//! ([`group`]), each 350 to 600 modular multiplications of the group's length: well under a
//! millisecond of a core for ffdhe2048, more than ten times as much for ffdhe8192, and nothing for
//! NULL. A target spends that on whoever gives the name of a host with a secret, once a connection.
//!
//! # Crates
//! `crypto-bigint` has Montgomery exponentiation whose time and memory accesses do not depend on
//! the exponent, is kept, and is Rust without `unsafe` of ours around it. `num-bigint-dig` has no
//! such promise, `ring` and `aws-lc-rs` have no finite-field Diffie-Hellman in their safe faces,
//! and OpenSSL's is a C library for one function. Hashes are RustCrypto's, as `crypto-bigint` is.
//!
//! Absent: the commands that carry messages, and when to authenticate: [`crate::host`] and
//! [`crate::target`].

#[cfg(any(feature = "tls", test))]
pub(crate) mod derivation;
pub mod group;
mod hash;
pub mod host;
mod primes;
pub mod psk;
mod random;
mod response;
pub mod secret;
pub mod target;
#[cfg(test)]
mod tests;

use crate::spec::nqn::Nqn;

pub use random::{Random, SEED_LENGTH};
pub use response::Names;
pub use secret::Secret;

pub use crate::spec::auth::{Concatenation, Group, HashFunction};
pub use psk::GeneratedPsk;

/// What an end may agree to, in the order of its preference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choices {
    /// Hash functions for the responses; the secrets' own transformation is another matter.
    pub hashes: Vec<HashFunction>,
    /// Diffie-Hellman groups.
    pub groups: Vec<Group>,
}

impl Default for Choices {
    /// All there are: the cheapest group that is not NULL first, and NULL last.
    fn default() -> Self {
        let mut groups = Group::ALL.to_vec();
        groups.rotate_left(1);
        Self { hashes: HashFunction::ALL.to_vec(), groups }
    }
}

impl Choices {
    /// What of them can generate a key for TLS: a group, whose shared value it is made of, and a
    /// hash that a cipher suite has. Base 2.1 §8.3.4.5.9; Linux refuses the same.
    pub(crate) fn for_concatenation(&self) -> Self {
        let suits = |hash: &HashFunction| *hash != HashFunction::Sha512;
        let is_group = |group: &Group| *group != Group::Null;
        Self {
            hashes: self.hashes.iter().copied().filter(suits).collect(),
            groups: self.groups.iter().copied().filter(is_group).collect(),
        }
    }

    /// Whether there is one of each.
    ///
    /// # Errors
    /// The list that is empty.
    pub fn check(&self) -> Result<(), block_io::DeviceError> {
        for (name, is_empty) in
            [("hashes", self.hashes.is_empty()), ("groups", self.groups.is_empty())]
        {
            if is_empty {
                return Err(block_io::DeviceError::new(format!(
                    "authentication: the list of {name} is empty: must have one at least"
                )));
            }
        }
        Ok(())
    }
}

/// The secrets of one host with one subsystem, and what may be agreed to.
#[derive(Clone, Debug)]
pub struct Keys {
    /// The host's: who knows it is the host.
    pub host: Secret,
    /// The controller's: who knows it is the subsystem. A host that has it demands the proof; a
    /// target without it cannot give it.
    pub controller: Option<Secret>,
    /// What may be agreed to.
    pub choices: Choices,
    /// Secure channel concatenation: authentication generates a key, and commands are taken only
    /// over TLS with it. A host asks for nothing less, and a target takes nothing less of a host
    /// that is to have it; without it a target leaves it to the host.
    ///
    /// The key is of a Diffie-Hellman exchange that the secrets authenticate. Without the
    /// controller's secret only the target knows whom it talks to: a host is then safe from whoever
    /// listens, and not from whoever answers in the target's place.
    pub concatenate: bool,
}

impl Keys {
    /// Keys with a host's secret only, and every choice.
    pub fn new(host: Secret) -> Self {
        Self { host, controller: None, choices: Choices::default(), concatenate: false }
    }

    /// The same with a controller's secret.
    #[must_use]
    pub fn with_controller(self, secret: Secret) -> Self {
        Self { controller: Some(secret), ..self }
    }

    /// The same with [`concatenate`](Self::concatenate).
    #[must_use]
    pub fn with_concatenation(self) -> Self {
        Self { concatenate: true, ..self }
    }

    /// What may be agreed to in a transaction that does, or does not, generate a key.
    pub(crate) fn choices_for(&self, concatenation: Concatenation) -> Choices {
        match concatenation {
            Concatenation::None => self.choices.clone(),
            Concatenation::New | Concatenation::Replace => self.choices.for_concatenation(),
        }
    }

    /// Whether anything can be agreed to with them.
    ///
    /// # Errors
    /// What is missing.
    pub fn check(&self) -> Result<(), block_io::DeviceError> {
        self.choices.check()?;
        if self.concatenate && self.choices.for_concatenation().check().is_err() {
            return Err(block_io::DeviceError::new(format!(
                "authentication: the hashes {:?} with the groups {:?}: a secure channel needs \
                 SHA-256 or SHA-384, and a group other than NULL",
                self.choices.hashes, self.choices.groups
            )));
        }
        Ok(())
    }
}

/// The names that responses and transformed secrets depend on.
impl<'names> Names<'names> {
    #[cfg(feature = "tls")]
    pub(crate) const fn of(host: &'names str, subsystem: &'names str) -> Self {
        Self { host, subsystem }
    }

    /// A host's name and a subsystem's.
    pub fn new(host: &'names Nqn, subsystem: &'names Nqn) -> Self {
        Self { host: host.as_str(), subsystem: subsystem.as_str() }
    }
}
