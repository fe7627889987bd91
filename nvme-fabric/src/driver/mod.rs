//! The only I/O of this crate: sockets, timers and names for the state machines.
//!
//! ```text
//!   NvmeTcpDevice, NamespaceQueue ─┐               ┌─▶ host::Paths
//!   discover, DiscoveryWatch ──────┴─▶ HostDriver ─┴─▶ host::discovery
//!   TargetTask ─▶ target              └─ stream: one socket, one receive and one send in flight
//! ```
//! Everything runs on a [`block_io::reactor::Reactor`], whose every event leads to a poll.
//! With the cargo feature `tokio-uring` the same host runs on that runtime instead, see
//! `tokio_uring`.

mod alarm;
mod association;
pub mod discover;
mod host;
pub mod namespace_device;
#[cfg(feature = "auth")]
mod random;
pub mod reservation_files;
#[cfg(feature = "tls")]
mod security;
mod stream;
pub mod target;
mod target_devices;
#[cfg(feature = "tokio-uring")]
pub mod tokio_uring;

pub use association::Association;
pub use discover::{DiscoverOptions, DiscoveryWatch, WatchEvent, discover};
pub use namespace_device::{Addresses, ConnectOptions, NamespaceQueue, NvmeTcpDevice};
#[cfg(feature = "auth")]
pub use random::random;
pub use target::TargetTask;
