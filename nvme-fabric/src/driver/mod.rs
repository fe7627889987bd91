//! The only I/O of this crate: sockets, timers and names for the state machines.
//!
//! ```text
//!   NvmeTcpDevice ─▶ HostDriver ─▶ host::Controller        discover ─▶ host::discovery
//!        │               └─ stream: one socket, one receive and one send in flight
//!   NamespaceQueue                                     TargetTask ─▶ target
//! ```
//! Everything runs on a [`block_io::reactor::Reactor`], whose every event leads to a poll.
//! With the cargo feature `tokio-uring` the same host runs on that runtime instead, see
//! `tokio_uring`.

mod alarm;
pub mod discover;
mod host;
pub mod namespace_device;
pub mod reservation_files;
mod stream;
pub mod target;
mod target_devices;
#[cfg(feature = "tokio-uring")]
pub mod tokio_uring;

pub use discover::discover;
pub use namespace_device::{ConnectOptions, NamespaceQueue, NvmeTcpDevice};
pub use target::TargetTask;
