//! The floor of Forebay: what a block device is, the memory its bytes travel in, the reactor that
//! runs its queues, and a simulated world with the same faces.
//!
//! ```text
//!   device::{BlockDevice, BlockQueue}      the contract, on one page
//!      ├─ file      file or block device, through the reactor
//!      ├─ memory    RAM disk
//!      ├─ null      completes at once
//!      └─ shared    one queue, many users on a core
//!   huge_pages                             large tables
//!   processor                              prefetch, several comparisons at once
//!   reactor                                one io_uring a core: files, sockets, timers, mailboxes
//!   sim                                    seeded clock, disk, network, reference disk
//! ```
//! The three types to know: [`Request`], [`Completion`], and the [`Buffer`] they pass to and fro.
//!
//! Absent on purpose: threads (a caller starts one a core), an executor (callers are state machines
//! that are polled), and any allocation on the data path after start.

pub mod buffer;
pub mod device;
mod error;
mod extent;
mod geometry;
pub mod huge_pages;
pub mod processor;
pub mod reactor;
mod request;
pub mod sim;
mod time;

pub use buffer::{
    BUFFER_ALIGNMENT, Buffer, BufferPool, CHECKSUM_BLOCK, Crc32c, PoolLayout, RemoteBuffer, Returns,
};
pub use device::{BlockDevice, BlockQueue};
pub use error::{DeviceError, IoError};
pub use extent::Extent;
pub use geometry::{Geometry, SECTOR_SIZE};
pub use request::{Completion, Operation, Request, RequestId};
pub use time::Timestamp;
