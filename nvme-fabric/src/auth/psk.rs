//! The key of a secure channel that follows authentication, and its name.
//!
//! ```text
//!   generated PSK = HMAC(Ks, C1 │ C2)                                        Base §8.13.5.9
//!   digest        = Base64(HMAC(PSK, host NQN ' ' subsystem NQN ' ' "NVMe-over-Fabrics"))
//!   TLS PSK       = HKDF-Expand-Label(HKDF-Extract(0, PSK), "nvme-tls-psk", "hh digest", L)
//!   identity      = "NVMe1G" hh ' ' host NQN ' ' subsystem NQN ' ' digest     TP8018 §3.6.1.3
//! ```
//! Pure functions: nothing here opens a channel, and neither end offers secure concatenation yet
//! (SC_C is 0). A retained PSK goes the same way from the second line on, with `R` for `G`.

use std::fmt;

use base64ct::{Base64, Encoding};
use zeroize::Zeroizing;

use super::HashFunction;
use super::group::SharedValue;
use super::hash::{hash, hmac};
use super::response::Names;

/// The label of the last step, with the prefix of RFC 8446 §7.1.
const LABEL: &[u8] = b"tls13 nvme-tls-psk";

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

/// The digest that names a PSK between these two; absent for SHA-512, which no cipher suite of
/// TLS 1.3 has.
pub fn digest(function: HashFunction, psk: &[u8], names: Names<'_>) -> Option<String> {
    if function == HashFunction::Sha512 {
        return None;
    }
    let parts: [&[u8]; 4] =
        [names.host.as_bytes(), b" ", names.subsystem.as_bytes(), b" NVMe-over-Fabrics"];
    Some(Base64::encode_string(&hmac(function, psk, &parts)))
}

/// The key for TLS 1.3 of a PSK with this digest; absent as above.
pub fn derive_tls(function: HashFunction, psk: &[u8], digest: &str) -> Option<Zeroizing<Vec<u8>>> {
    if function == HashFunction::Sha512 {
        return None;
    }
    let length = function.length();
    // HKDF-Extract, RFC 5869 §2.2, with zeros for salt.
    let extracted = hmac(function, &[0; 64][..length], &[psk]);
    // HkdfLabel, RFC 8446 §7.1: the length wanted, label and context with theirs before them.
    let context = format!("{:02} {digest}", function.id());
    let context_length = u8::try_from(context.len()).ok()?;
    let label_length = LABEL.len() as u8;
    // One block of HKDF-Expand is as long as the key, RFC 5869 §2.3.
    let key = hmac(
        function,
        &extracted,
        &[
            &(length as u16).to_be_bytes(),
            &[label_length],
            LABEL,
            &[context_length],
            context.as_bytes(),
            &[1],
        ],
    );
    Some(Zeroizing::new(key.to_vec()))
}

/// The identity under which a generated PSK is offered.
pub fn identity(function: HashFunction, names: Names<'_>, digest: &str) -> String {
    format!("NVMe1G{:02} {} {} {digest}", function.id(), names.host, names.subsystem)
}
