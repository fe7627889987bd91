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
//!   tls               between a stream and a connection of either end, which knows nothing of it
//!    ▲
//!   driver    sockets, timers, names: the only I/O; a remote namespace as a block device
//! ```
//! `spec`, `pdu`, `auth`, `host` and `target` name no socket, file, thread, clock or random
//! source. Time comes in as [`block_io::Timestamp`], bytes in [`block_io::Buffer`]s.
//!
//! # What for what
//! * Read and write a remote namespace: [`driver::NvmeTcpDevice`]. It is a
//!   [`block_io::BlockDevice`] on a [`block_io::reactor::Reactor`], with paths that come back.
//! * Find out what there is to connect to: [`driver::discover()`], or [`driver::DiscoveryWatch`] to
//!   be told of changes.
//! * Serve block devices: a [`target::Target`] in a [`driver::TargetTask`]. Any device will do, one
//!   of one's own too.
//! * In a program that lives on `tokio-uring`: `driver::tokio_uring::NvmeTcpClient`, with futures.
//! * On another runtime, or under a simulated clock and network: [`host::Paths`] or
//!   [`host::Controller`], and [`target::Connection`]. A driver opens the streams that they want,
//!   moves the bytes of each [`pdu::Endpoint`], and wakes them at their deadlines.
//! * Look into captured traffic: [`pdu::Decoder`] and [`spec`].
//!
//! # Connect and read
//! ```no_run
//! use block_io::reactor::{Reactor, ReactorConfig};
//! use block_io::{BlockDevice, Request, RequestId};
//! use nvme_fabric::driver::{ConnectOptions, NvmeTcpDevice};
//! use nvme_fabric::spec::nqn::{HostId, Nqn};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let host_id: HostId = "f81d4fae-7dec-11d0-a765-00a0c91e6bf6".parse()?;
//! let subsystem = Nqn::new("nqn.2014-08.com.example:volume")?;
//! let options = ConnectOptions::new("192.0.2.7", subsystem, Nqn::from_uuid(host_id), host_id);
//!
//! let reactor = Reactor::new(ReactorConfig::default())?;
//! let device = NvmeTcpDevice::connect(&reactor, &options)?;
//! let mut queue = device.open_queue(&reactor, 32)?;
//! let read = Request::read(RequestId(0), 0, reactor.pool().allocate(4096));
//! let completion = reactor.run_request(&mut queue, read)?;
//! completion.result?;
//! device.shut_down(&reactor)?;
//! # Ok(())
//! # }
//! ```
//! The folder `examples` has this as a program (`connect_and_read`), a target of twenty lines
//! (`target`), and the same host on `tokio-uring` (`tokio_uring_read`).
//!
//! # Cargo features
//! | feature | what it adds | what it brings along |
//! |---|---|---|
//! | none | host, target, discovery, reservations, digests | `block-io`, `crc-fast` |
//! | `auth` | `auth`: DH-HMAC-CHAP at either end | hashes and arithmetic of RustCrypto |
//! | `tls` | TLS 1.3 with pre-shared keys, given or made by `auth` | `s2n-tls` and its C library |
//! | `tokio-uring` | the host on that runtime, without TLS | `tokio`, `tokio-uring` |
//!
//! None is on by default. A host without `auth` says so when a controller requires authentication;
//! a target without it has no function by which secrets could be required.
//!
//! Absent: RDMA and Fibre Channel, certificates, I/O queues of a target on several cores.

#[cfg(feature = "auth")]
pub mod auth;
pub mod driver;
pub mod error;
pub mod host;
pub mod pdu;
pub mod spec;
pub mod target;
#[cfg(feature = "tls")]
pub mod tls;

/// The read-me's example compiles.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadMe;
