//! One cached volume on several cores: hits in place on each, the rest at the owner.
//!
//! ```text
//!   guest's core                                     owner's core
//!   RemoteVolume ── hit ──▶ its own queue            RemoteServer ─▶ SharedQueue<CachedVolume>
//!        │  ▲               of the cache device           ▲  │
//!        │  └──── Done, Returned ◀── mailbox ◀────────────┼──┘
//!        └─────── Request ──▶ mailbox ────────────────────┘
//! ```
//! The owner has the cache and its devices, and a [`RemoteServer`] for every guest. The server is
//! made with an [`Invitation`], which is sent to the other core and becomes a [`RemoteVolume`]
//! there: a [`BlockQueue`](block_io::BlockQueue) like any other. `docs/design/0004-cores.md` says
//! why so.
//!
//! **Buffers** go to the owner without a copy and come back with the answer. If something at the
//! owner still holds a view when the answer is there (the store of what a read missed, a store
//! that takes longer than the origin's write), the answer takes a copy, and the block itself comes
//! home when that has ended. So no answer waits for the cache device.
//!
//! **Bounds.** A guest has at most `depth` requests in flight, and as many buffers at the owner as
//! that and the owner's stores in flight together. Both mailboxes have room for all of it, so
//! nothing is ever refused on the way.
//!
//! **The cache device.** A guest has a queue of its own to it. When the owner gives the device up,
//! the guest is woken, drops its queue when nothing is under way there, and tells the owner, whose
//! cache is not [detached](crate::cache::Cache::is_detached) before all have. A [`Renewal`] lets it
//! use another device. A guest without a device, and one of a volume without a cache, sends
//! everything to the owner.
//!
//! **Wake-ups.** What is left in a mailbox in one turn is announced once, by `poll`.
//!
//! Absent: several owners of one cache, and moving a volume from core to core.

mod guest;
mod owner;

pub use guest::RemoteVolume;
pub use owner::{Hosting, Invitation, RemoteServer, Renewal};

use block_io::reactor::MailSender;
use block_io::{Extent, IoError, Operation, RemoteBuffer, RequestId, Timestamp};

/// Messages that one side takes from the other in one poll.
const MESSAGES_A_POLL: usize = 64;

/// From the guest.
enum ToOwner {
    /// The first message: where answers go.
    Hello(MailSender<ToGuest>),
    Request(RemoteRequest),
}

/// A request on its way to the owner.
struct RemoteRequest {
    /// The guest's own.
    id: RequestId,
    operation: Operation,
    extent: Extent,
    force_unit_access: bool,
    buffer: Option<RemoteBuffer>,
    /// Why the cache device could not be read in place.
    failed: Option<IoError>,
    /// The guest's reading of the clock that all cores share.
    now: Timestamp,
}

/// From the owner.
enum ToGuest {
    Done {
        id: RequestId,
        result: Result<(), IoError>,
        buffer: Option<RemoteBuffer>,
        /// The buffer is a copy; the block that came with the request comes later.
        copied: bool,
    },
    Returned(RemoteBuffer),
}
