//! What TLS keys are derived with: the digest that names a key, and expansion by a label.
//!
//! Absent: which key and which label, see `tls`.

use base64ct::{Base64, Encoding};
use zeroize::Zeroizing;

use super::HashFunction;
use super::hash::hmac;
use super::response::Names;

/// What every label begins with. RFC 8446 §7.1
const PREFIX: &str = "tls13 ";

/// The digest that names a PSK between these two.
pub(crate) fn digest(function: HashFunction, psk: &[u8], names: Names<'_>) -> String {
    let parts: [&[u8]; 4] =
        [names.host.as_bytes(), b" ", names.subsystem.as_bytes(), b" NVMe-over-Fabrics"];
    Base64::encode_string(&hmac(function, psk, &parts))
}

/// How label and context stand in what HKDF-Expand is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// Each behind its length. RFC 8446 §7.1
    Counted,
    /// One behind the other, and the key's length with its low byte first: libnvme's until 1.14.
    #[cfg_attr(not(feature = "tls"), expect(dead_code, reason = "only TLS meets such keys"))]
    Bare,
}

/// HKDF-Extract without salt (RFC 5869 §2.2), then HKDF-Expand-Label to the hash's length (RFC 8446
/// §7.1). Absent where the label or the context has more than 255 bytes.
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
