//! TLS with the kernel's ends, whose handshakes `tlshd` makes by keys that nvme-cli derived.
//!
//! | file | between |
//! |---|---|
//! | `kernel_host` | the kernel's host and our target |
//! | `our_host` | our host and the kernel's target |
//! | `concatenation` | both, with keys that authentication has made |

mod concatenation;
mod kernel_host;
mod our_host;

pub(crate) use concatenation::CASES as CONCATENATION;
pub(crate) use kernel_host::CASES as KERNEL_HOST;
pub(crate) use our_host::CASES as OUR_HOST;

use std::time::Duration;

use forebay_vm::scene::kernel_host::Connection;
use forebay_vm::scene::tls::{HandshakeDaemon, Hash, TlsKey, hashes};

/// How long a case may take: each handshake is a process of its own, which the kernel waits 10 s
/// for and, when it came too late on a busy machine, asks for again.
const LIMIT: Duration = Duration::from_secs(400);

/// What makes the kernel's handshakes, and a key in its keyring by an identity of version 1.
fn with_key(host: &str, subsystem: &str) -> (HandshakeDaemon, TlsKey) {
    let daemon = HandshakeDaemon::start();
    let key = TlsKey::new("host", Hash::Sha256, host);
    key.insert(host, subsystem, 1);
    (daemon, key)
}

/// Hashes of keys and versions of identities, each with each.
fn kinds() -> impl Iterator<Item = (Hash, u8)> {
    hashes().iter().flat_map(|hash| [(*hash, 1), (*hash, 0)])
}

/// The kernel says which key a controller's queues are encrypted with.
#[track_caller]
fn assert_encrypted(connection: &Connection) {
    let key = connection.attribute("tls_key").expect("the kernel's host has TLS");
    let number = u32::from_str_radix(&key, 16).expect("a key's number");
    assert_ne!(number, 0, "no key: {key}");
}
