//! The key of a secure channel that follows authentication, and its name.
//!
//! ```text
//!   generated PSK = HMAC(Ks, C1 │ C2)                                        Base §8.13.5.9
//!   digest        = Base64(HMAC(PSK, host NQN ' ' subsystem NQN ' ' "NVMe-over-Fabrics"))
//!   TLS PSK       = HKDF-Expand-Label(HKDF-Extract(0, PSK), "nvme-tls-psk", "hh digest", L)
//!   identity      = "NVMe1G" hh ' ' host NQN ' ' subsystem NQN ' ' digest     TP8018 §3.6.1.3
//! ```
//! Pure functions: the first line is here, digest and expansion are in `derivation`. A configured
//! key goes the same way from the second line on, after a step with the label "HostNQN", and with
//! `R` for `G`: `tls/derivation.rs`.

use std::fmt;

use zeroize::Zeroizing;

use super::HashFunction;
use super::group::SharedValue;
use super::hash::{hash, hmac};

/// A key that a transaction has generated. Overwritten when dropped, and never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct GeneratedPsk(Zeroizing<Vec<u8>>);

impl GeneratedPsk {
    /// The 32 or 48 bytes of it.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for GeneratedPsk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "GeneratedPsk({} bytes)", self.0.len())
    }
}

/// The PSK that a transaction with these challenges generates: C1, which the controller made, and
/// C2, which the host made.
pub(super) fn generate(
    function: HashFunction,
    shared: &SharedValue,
    controller_challenge: &[u8],
    host_challenge: &[u8],
) -> GeneratedPsk {
    let session = hash(function, shared.bytes());
    GeneratedPsk(of_session_key(function, &session, controller_challenge, host_challenge))
}

pub(super) fn of_session_key(
    function: HashFunction,
    session: &[u8],
    first: &[u8],
    second: &[u8],
) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(hmac(function, session, &[first, second]).to_vec())
}
