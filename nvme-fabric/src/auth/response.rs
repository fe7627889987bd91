//! From a challenge to its answer.
//!
//! ```text
//!   Ks = H(g^xy mod p)           Ca = HMAC(Ks, C), or C without a group
//!   R1 = HMAC(Kt, Ca1 │ S1 │ T_ID │ SC_C │ "HostHost"   │ host NQN      │ 00h │ subsystem NQN)
//!   R2 = HMAC(Kt, Ca2 │ S2 │ T_ID │ SC_C │ "Controller" │ subsystem NQN │ 00h │ host NQN)
//! ```
//! Kt is the transformed secret of whoever answers. Base §8.13.5.3, §8.13.5.4; the same in Linux
//! `drivers/nvme/{host,target}/auth.c` and SPDK `lib/nvme/nvme_auth.c`.

use super::HashFunction;
use super::group::SharedValue;
use super::hash::{Digest, hash, hmac};
use super::secret::Secret;

/// Whose answer it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Role {
    Host,
    Controller,
}

/// Who authenticates with whom.
#[derive(Clone, Copy, Debug)]
pub struct Names<'names> {
    /// The host's NQN.
    pub(super) host: &'names str,
    /// The subsystem's NQN.
    pub(super) subsystem: &'names str,
}

/// What both ends know of a challenge.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked<'asked> {
    pub(super) hash: HashFunction,
    pub(super) transaction: u16,
    /// SC_C of the negotiation.
    pub(super) secure_channel: u8,
    /// C1 or C2.
    pub(super) challenge: &'asked [u8],
    /// S1 or S2.
    pub(super) sequence: u32,
    /// Absent without a group.
    pub(super) shared: Option<&'asked SharedValue>,
}

/// The response of `role`, who has `secret`.
pub(super) fn response(role: Role, secret: &Secret, names: Names<'_>, asked: &Asked<'_>) -> Digest {
    let (label, own, other) = match role {
        Role::Host => ("HostHost", names.host, names.subsystem),
        Role::Controller => ("Controller", names.subsystem, names.host),
    };
    let augmented = asked.shared.map(|shared| {
        let session = hash(asked.hash, shared.bytes());
        hmac(asked.hash, &session, &[asked.challenge])
    });
    let challenge = augmented.as_deref().unwrap_or(asked.challenge);
    hmac(
        asked.hash,
        &secret.transformed(own),
        &[
            challenge,
            &asked.sequence.to_le_bytes(),
            &asked.transaction.to_le_bytes(),
            &[asked.secure_channel],
            label.as_bytes(),
            own.as_bytes(),
            &[0],
            other.as_bytes(),
        ],
    )
}
