//! The key of a secure channel that follows authentication, and its name.
//!
//! ```text
//!   generated PSK = HMAC(Ks, C1 │ C2)                                        Base §8.13.5.9
//!   digest        = Base64(HMAC(PSK, host NQN ' ' subsystem NQN ' ' "NVMe-over-Fabrics"))
//!   TLS PSK       = HKDF-Expand-Label(HKDF-Extract(0, PSK), "nvme-tls-psk", "hh digest", L)
//!   identity      = "NVMe1G" hh ' ' host NQN ' ' subsystem NQN ' ' digest     TP8018 §3.6.1.3
//! ```
//! Pure functions. A configured key goes the same way from the second line on, after a step with
//! the label "HostNQN", and with `R` for `G`: `tls/derivation.rs`.

use std::fmt;

#[cfg(any(feature = "tls", test))]
use base64ct::{Base64, Encoding};
use zeroize::Zeroizing;

use super::HashFunction;
use super::group::SharedValue;
use super::hash::{hash, hmac};
use super::response::Names;

/// What every label begins with. RFC 8446 §7.1
#[cfg(any(feature = "tls", test))]
const PREFIX: &str = "tls13 ";

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

/// The digest that names a PSK between these two.
#[cfg(any(feature = "tls", test))]
pub(crate) fn digest(function: HashFunction, psk: &[u8], names: Names<'_>) -> String {
    let parts: [&[u8]; 4] =
        [names.host.as_bytes(), b" ", names.subsystem.as_bytes(), b" NVMe-over-Fabrics"];
    Base64::encode_string(&hmac(function, psk, &parts))
}

/// How label and context stand in what HKDF-Expand is given.
#[cfg(any(feature = "tls", test))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// Each behind its length. RFC 8446 §7.1
    Counted,
    /// One behind the other, and the key's length with its low byte first: libnvme's until 1.14.
    Bare,
}

/// HKDF-Extract without salt (RFC 5869 §2.2), then HKDF-Expand-Label to the hash's length (RFC 8446
/// §7.1). Absent where the label or the context has more than 255 bytes.
#[cfg(any(feature = "tls", test))]
pub(crate) fn expand_label(
    function: HashFunction,
    framing: Framing,
    key: &[u8],
    label: &str,
    context: &str,
) -> Option<Zeroizing<Vec<u8>>> {
    let length = function.length();
    let extracted = hmac(function, &[0; 64][..length], &[key]);
    let label_length = [u8::try_from(PREFIX.len() + label.len()).ok()?];
    let context_length = [u8::try_from(context.len()).ok()?];
    let length = length as u16;
    let (length, counts) = match framing {
        Framing::Counted => (length.to_be_bytes(), 1),
        Framing::Bare => (length.to_le_bytes(), 0),
    };
    // One block of HKDF-Expand is as long as the key, RFC 5869 §2.3.
    let parts: [&[u8]; 7] = [
        &length,
        &label_length[..counts],
        PREFIX.as_bytes(),
        label.as_bytes(),
        &context_length[..counts],
        context.as_bytes(),
        &[1],
    ];
    Some(Zeroizing::new(hmac(function, &extracted, &parts).to_vec()))
}
