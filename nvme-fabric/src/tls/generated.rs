//! Keys that a target's authentications have generated, while hosts may begin TLS by them.
//!
//! ```text
//!   Target::next_generated_key ─▶ insert ─▶ a session's ClientHello names one ─▶ find
//!                                   └─ time, or too many of a host ─▶ overwritten
//! ```
//! A host connects again at once, and once more for each I/O queue; then it needs the key no more,
//! for a new association makes another one. So a key opens streams for [`GENERATED_LIFETIME`], and
//! streams that it has opened stay.

use std::cell::RefCell;
use std::time::Duration;

use block_io::Timestamp;

use super::{KeyError, Peer, TlsPsk};
use crate::target::GeneratedKey;

/// How long a generated key opens streams. As long as nvmet waits for the end of a transaction.
pub const GENERATED_LIFETIME: Duration = Duration::from_secs(120);
/// Keys of one host for one subsystem: as many associations can be made at a time.
const PER_HOST_MAX: usize = 8;
/// Keys of all of them, each some 500 bytes.
const KEYS_MAX: usize = 1024;

/// See the module. Shared by the sessions of a target, which look at it in their handshakes.
#[derive(Default)]
pub struct GeneratedKeys {
    /// The oldest first.
    entries: RefCell<Vec<Entry>>,
}

struct Entry {
    psk: TlsPsk,
    peer: Peer,
    expires: Timestamp,
}

impl GeneratedKeys {
    /// Takes a key that was generated `now`. Where there are too many, the oldest goes.
    ///
    /// # Errors
    /// When it has a length that none has.
    pub fn insert(&self, key: &GeneratedKey, now: Timestamp) -> Result<(), KeyError> {
        let psk = TlsPsk::generated(key.psk.bytes(), &key.host, &key.subsystem)?;
        let (host, subsystem) = (key.host.clone(), key.subsystem.clone());
        let peer = Peer { host, subsystem, is_generated: true };
        let mut entries = self.entries.borrow_mut();
        if entries.iter().filter(|entry| entry.peer == peer).count() >= PER_HOST_MAX
            && let Some(oldest) = entries.iter().position(|entry| entry.peer == peer)
        {
            entries.remove(oldest);
        }
        if entries.len() >= KEYS_MAX {
            entries.remove(0);
        }
        entries.push(Entry { psk, peer, expires: now + GENERATED_LIFETIME });
        Ok(())
    }

    /// Forgets the keys whose time is over; whether there were any.
    pub fn expire(&self, now: Timestamp) -> bool {
        let mut entries = self.entries.borrow_mut();
        let before = entries.len();
        entries.retain(|entry| now < entry.expires);
        entries.len() < before
    }

    /// When [`expire`](Self::expire) is needed next.
    pub fn next_expiry(&self) -> Option<Timestamp> {
        self.entries.borrow().iter().map(|entry| entry.expires).min()
    }

    /// Keys that there are.
    pub fn len(&self) -> usize {
        self.entries.borrow().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn find(&self, identity: &[u8]) -> Option<(TlsPsk, Peer)> {
        let entries = self.entries.borrow();
        let found = entries.iter().find(|entry| entry.psk.identity().as_bytes() == identity)?;
        Some((found.psk.clone(), found.peer.clone()))
    }
}

impl std::fmt::Debug for GeneratedKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "GeneratedKeys({})", self.len())
    }
}
