//! What can be wrong with a key, and how a session fails. No message shows any of a secret.

use std::fmt;

/// What is wrong with a key or with the names that it is derived for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyError(String);

impl KeyError {
    pub(super) fn new(what: impl Into<String>) -> Self {
        Self(what.into())
    }
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for KeyError {}

impl From<KeyError> for block_io::DeviceError {
    fn from(error: KeyError) -> Self {
        Self::new(error.0)
    }
}

/// Why a TLS session failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TlsError {
    /// The peer's first byte, which begins no TLS record.
    NotTls(u8),
    /// The host's ClientHello offers no pre-shared key.
    NothingOffered,
    /// None of these identities, which the host offered, is known here.
    UnknownIdentity(Vec<String>),
    /// The host named an identity that is known here but has another key for it.
    WrongKey(Vec<String>),
    /// The peer ended the session with this alert; the identities are those that were offered.
    Alert(u8, Vec<String>),
    /// The peer closed the stream before the handshake was over; the identities are those that
    /// were offered.
    ClosedInHandshake(Vec<String>),
    /// The peer broke the protocol, or offers nothing that both ends support; the library's words.
    Protocol(String),
    /// The session agreed to something that NVMe/TCP does not allow.
    Unsuitable(String),
}

/// Alerts that say something about keys. RFC 8446 §6
pub(super) mod alert {
    pub(in crate::tls) const HANDSHAKE_FAILURE: u8 = 40;
    pub(in crate::tls) const ILLEGAL_PARAMETER: u8 = 47;
    pub(in crate::tls) const DECODE_ERROR: u8 = 50;
    pub(in crate::tls) const DECRYPT_ERROR: u8 = 51;
    pub(in crate::tls) const PROTOCOL_VERSION: u8 = 70;
    pub(in crate::tls) const MISSING_EXTENSION: u8 = 109;
    pub(in crate::tls) const UNKNOWN_PSK_IDENTITY: u8 = 115;
}

impl TlsError {
    /// The alert that tells the host of this failure in its handshake. RFC 8446 §6.2
    pub(super) const fn alert(&self) -> Option<u8> {
        match self {
            Self::NothingOffered => Some(alert::MISSING_EXTENSION),
            Self::UnknownIdentity(_) => Some(alert::UNKNOWN_PSK_IDENTITY),
            Self::WrongKey(_) => Some(alert::DECRYPT_ERROR),
            Self::Protocol(_) | Self::Unsuitable(_) => Some(alert::HANDSHAKE_FAILURE),
            Self::NotTls(_) | Self::Alert(..) | Self::ClosedInHandshake(_) => None,
        }
    }
}

/// The identities, quoted, for a message.
struct Quoted<'a>(&'a [String]);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, identity) in self.0.iter().enumerate() {
            let before = if place == 0 { "" } else { " and " };
            write!(f, "{before}\"{}\"", identity.escape_default())?;
        }
        Ok(())
    }
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotTls(byte) => write!(
                f,
                "TLS: the peer's first byte is {byte:#04x}, which is no TLS record's (0x16): it \
                 speaks NVMe/TCP without TLS, or no NVMe/TCP"
            ),
            Self::NothingOffered => {
                f.write_str("TLS: the host offers no pre-shared key; NVMe/TCP needs one")
            }
            Self::UnknownIdentity(offered) => {
                write!(f, "TLS: no key here for the identity offered, {}", Quoted(offered))
            }
            Self::WrongKey(offered) => write!(
                f,
                "TLS: the host's key for the identity {} is not the one kept here",
                Quoted(offered)
            ),
            Self::Alert(code, offered) => {
                write!(f, "TLS: the peer answers with alert {code}, {}", meaning(*code))?;
                if offered.is_empty() {
                    return Ok(());
                }
                write!(f, "; offered was the identity {}", Quoted(offered))
            }
            Self::ClosedInHandshake(offered) if offered.is_empty() => {
                f.write_str("TLS: the peer closed the connection in the handshake")
            }
            Self::ClosedInHandshake(offered) => write!(
                f,
                "TLS: the peer closed the connection in the handshake: it speaks no TLS, or does \
                 not know the identity offered, {}, or has another key for it",
                Quoted(offered)
            ),
            Self::Protocol(what) => write!(f, "TLS: {what}"),
            Self::Unsuitable(what) => write!(f, "TLS: {what}"),
        }
    }
}

impl std::error::Error for TlsError {}

/// An alert in words.
const fn meaning(code: u8) -> &'static str {
    match code {
        0 => "close_notify: it closes",
        10 => "unexpected_message",
        20 => "bad_record_mac: what it received was not encrypted with its keys",
        22 => "record_overflow",
        alert::HANDSHAKE_FAILURE => {
            "handshake_failure: it does not know the identity, or supports nothing that was offered"
        }
        alert::ILLEGAL_PARAMETER => "illegal_parameter: it has another key, or found a value wrong",
        alert::DECODE_ERROR => "decode_error",
        alert::DECRYPT_ERROR => "decrypt_error: it has another key for the identity",
        alert::PROTOCOL_VERSION => "protocol_version: it does not offer TLS 1.3",
        80 => "internal_error",
        alert::MISSING_EXTENSION => "missing_extension: it wants a pre-shared key",
        alert::UNKNOWN_PSK_IDENTITY => "unknown_psk_identity: it has no key for the identity",
        116 => "certificate_required",
        _ => "which names another cause",
    }
}
