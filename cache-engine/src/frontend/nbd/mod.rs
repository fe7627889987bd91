//! The NBD server: any device, to any NBD client, over TCP or a Unix socket.
//!
//! ```text
//!   socket ──▶ server (reactor task) ──▶ protocol::Connection ──requests──▶ SharedQueue
//!          ◀── gathered replies     ◀──                       ◀─completions─
//! ```
//! [`server`] does the I/O, [`protocol`] is the protocol without any I/O; [`address`] is how an
//! export is named in a URI.
//!
//! Absent: TLS, the 64-bit extended headers, the kernel's client side.

pub mod address;
pub mod protocol;
pub mod server;

pub use address::{AddressError, ExportAddress, Transport};
pub use protocol::Export;
pub use server::{HelperAddress, NbdServer, ServerOptions, ServerStatistics};
