//! The only I/O of this crate: sockets, timers and names for the state machines.
//!
//! ```text
//!   NvmeTcpDevice ─▶ PathsDriver ─▶ host::Paths      discover ─▶ HostDriver ─▶ host::discovery
//!        │               └─ stream: one socket, one receive and one send in flight
//!   NamespaceQueue                                   TargetTask ─▶ target
//! ```
//! Everything runs on a [`block_io::reactor::Reactor`], whose every event leads to a poll.
//! With the cargo feature `tokio-uring` the same host runs on that runtime instead, see
//! `tokio_uring`.

mod alarm;
mod association;
pub mod discover;
mod host;
pub mod namespace_device;
mod paths;
pub mod reservation_files;
#[cfg(feature = "tls")]
mod security;
mod stream;
pub mod target;
mod target_devices;
#[cfg(feature = "tokio-uring")]
pub mod tokio_uring;

use block_io::DeviceError;
use rustix::io::Errno;
use rustix::rand::{GetRandomFlags, getrandom};
use zeroize::Zeroizing;

use crate::auth::{Random, SEED_LENGTH};

pub use association::Association;
pub use discover::{DiscoverOptions, DiscoveryWatch, WatchEvent, discover};
pub use namespace_device::{Addresses, ConnectOptions, NamespaceQueue, NvmeTcpDevice};
pub use target::TargetTask;

/// Random numbers of the system's, to make a secret with.
///
/// # Errors
/// When the system has none.
pub fn random() -> Result<Random, DeviceError> {
    Ok(Random::new(&*random_seed()?))
}

/// Random bytes of the system's, for what a state machine needs them for.
fn random_seed() -> Result<Zeroizing<[u8; SEED_LENGTH]>, DeviceError> {
    let mut seed = Zeroizing::new([0; SEED_LENGTH]);
    let mut filled = 0;
    while filled < SEED_LENGTH {
        match getrandom(&mut seed[filled..], GetRandomFlags::empty()) {
            Ok(count) => filled += count,
            Err(Errno::INTR) => {}
            Err(error) => return Err(DeviceError::with_source("getting random bytes", error)),
        }
    }
    Ok(seed)
}
