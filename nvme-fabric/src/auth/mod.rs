//! DH-HMAC-CHAP: each end proves to the other that it knows a secret, without saying it.
//!
//! ```text
//!   secret     DHHC-1:hh:…:   the secrets of a host and a controller, as people keep them
//!   hash       SHA-2 and HMAC        group    Diffie-Hellman, RFC 7919
//!   response   from a challenge to its answer
//!      ▲
//!   host | target    one transaction's messages at each end (Base §8.13.5)
//!   psk        what a secure channel's key would be derived from
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

pub use crate::spec::auth::{Group, HashFunction};

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
}

impl Keys {
    /// Keys with a host's secret only, and every choice.
    pub fn new(host: Secret) -> Self {
        Self { host, controller: None, choices: Choices::default() }
    }

    /// The same with a controller's secret.
    #[must_use]
    pub fn with_controller(self, secret: Secret) -> Self {
        Self { controller: Some(secret), ..self }
    }
}

/// The names that responses and transformed secrets depend on.
impl<'names> Names<'names> {
    /// A host's name and a subsystem's.
    pub fn new(host: &'names Nqn, subsystem: &'names Nqn) -> Self {
        Self { host: host.as_str(), subsystem: subsystem.as_str() }
    }
}
