//! NVMe over TCP in userspace: an initiator and a target that are state machines, and the driver
//! that moves their bytes.
//!
//! ```text
//!   spec      layouts and numbers of NVMe and its fabrics: pure data
//!    ▲
//!   pdu       the stream: PDUs decoded in place, encoded as gather lists, digests
//!    ▲
//!   auth              DH-HMAC-CHAP: secrets, arithmetic, the exchange of either end
//!    ▲
//!   host | target     what to say next, given what was heard and what time it is
//!    ▲
//!   driver    sockets, timers, names: the only I/O; a remote namespace as a block device
//! ```
//! `spec`, `pdu`, `auth`, `host` and `target` name no socket, file, thread, clock or random
//! source. Time comes in as [`block_io::Timestamp`], bytes in [`block_io::Buffer`]s.
//!
//! With the cargo feature `tls`, `tls` encrypts the stream of each queue below its PDUs.

pub mod auth;
pub mod driver;
pub mod error;
pub mod host;
pub mod pdu;
pub mod spec;
pub mod target;
#[cfg(feature = "tls")]
pub mod tls;
