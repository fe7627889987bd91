//! TLS 1.3 with pre-shared keys, between a stream and a connection, without I/O.
//!
//! ```text
//!   NVMeTLSkey-1:… ─▶ ConfiguredPsk ─host's NQN─▶ retained PSK ─both NQNs─▶ TlsPsk {identity, …}
//!                                                                             │
//!   socket ◀─ ciphertext ─▶ Session ◀─ plaintext ─▶ any pdu::Endpoint      Offer │ Keyring
//!                           └─────── Layer ───────┘                       (host)  (target)
//! ```
//! Each connection of an association makes its own handshake with the same keys, before its ICReq
//! (NVMe/TCP Transport 1.1 §3.6.1). A [`Session`] is bytes in, bytes out over s2n-tls
//! (`docs/design/0010-tls.md` says why that one); a [`Layer`] joins it with an [`Endpoint`], so
//! that a driver moves a layer's bytes as it would move the endpoint's.
//!
//! Randomness is the one thing of the world that is not handed in: the library draws its own.
//! Memory of a session: 64 KiB of ciphertext each way, 16 KiB of plaintext, and what the library
//! holds of one record each way.
//!
//! Absent: certificates, early data, resumption, TLS in the kernel, the key management of a
//! running target.
//!
//! [`Endpoint`]: crate::pdu::Endpoint

mod derivation;
mod error;
mod generated;
pub mod hello;
mod key;
mod keyring;
mod layer;
mod session;
#[cfg(test)]
mod tests;
mod wires;

pub use derivation::{IdentityVersion, TlsPsk};
pub use error::{KeyError, TlsError};
pub use generated::{GENERATED_LIFETIME, GeneratedKeys};
pub use key::{ConfiguredPsk, Hash};
pub use keyring::{HostTls, Identities, Keyring, Offer, Peer};
pub use layer::Layer;
pub use session::{Read, Session};
