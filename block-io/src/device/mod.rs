//! The device contract: [`BlockDevice`] says what a device is and opens queues, [`BlockQueue`]
//! carries requests.
//!
//! ```text
//!   frontend ──submit──▶ BlockQueue ──▶ … ──▶ medium
//!            ◀──poll────
//! ```
//! The rules, for both sides:
//! * One queue belongs to one core; nothing here is `Send`.
//! * `submit` takes the request with its buffer; `poll` gives it back, exactly once, in any order.
//!   `submit` never completes a request itself and never blocks.
//! * A queue holds at most `depth` requests; `submit` hands the request back when it is full.
//! * The submitter has checked the request against the geometry ([`crate::Geometry::check`]).
//! * Requests in flight that overlap are in no order; whoever needs an order waits.
//! * Progress is made only in `submit` and `poll`. Whoever owns the queue polls it whenever its
//!   runtime (a reactor, or a simulated world) has turned, and again until no progress is reported.

pub mod file;
pub mod memory;
pub mod null;
pub mod shared;

use crate::{Completion, DeviceError, Geometry, Request, Timestamp};

/// Something with blocks. `Runtime` is where its queues run: [`crate::reactor::Reactor`] for real
/// devices, [`crate::sim::World`] for simulated ones; devices that need neither take any.
pub trait BlockDevice<Runtime> {
    /// The queue that [`open_queue`](Self::open_queue) opens.
    type Queue: BlockQueue;

    /// Size, limits and capabilities.
    fn geometry(&self) -> Geometry;

    /// Opens a queue for at most `depth` requests in flight, on this core's `runtime`.
    ///
    /// # Errors
    /// When the device or the runtime has no room for another queue, or is gone.
    fn open_queue(&self, runtime: &Runtime, depth: usize) -> Result<Self::Queue, DeviceError>;
}

/// What has become of the ways to a device so far. Counters, of which only changes mean anything;
/// they change in polls only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Interruptions {
    /// A way was lost, and with it perhaps the power of what is behind: writes that completed by
    /// then and were not flushed may be gone, if the device has a volatile cache.
    pub lost: u64,
    /// Every way that was lost has become unable to carry out anything: a write that failed before,
    /// its outcome unknown, does not reach the device any more.
    pub settled: u64,
    /// What was found at the end of every way is another device: what is known of this one's
    /// content means nothing there.
    pub replaced: u64,
}

/// One core's way to a device. See the module's rules.
pub trait BlockQueue {
    /// Size, limits and capabilities; may change between polls (a resize), never within one.
    fn geometry(&self) -> Geometry;

    /// Takes a request, or hands it back because `depth` requests are in flight.
    ///
    /// # Errors
    /// The request itself, untouched: try again after a completion.
    fn submit(&mut self, request: Request) -> Result<(), Request>;

    /// Moves what can be moved and appends finished requests to `completions`. Returns whether
    /// anything happened; after `true` the caller polls again before its runtime may sleep.
    fn poll(&mut self, now: Timestamp, completions: &mut Vec<Completion>) -> bool;

    /// Requests in flight.
    fn in_flight(&self) -> usize;

    /// What has become of the ways to the device, for devices that come back when they are lost.
    fn interruptions(&self) -> Interruptions {
        Interruptions::default()
    }
}

impl<Queue: BlockQueue + ?Sized> BlockQueue for Box<Queue> {
    fn geometry(&self) -> Geometry {
        (**self).geometry()
    }
    fn submit(&mut self, request: Request) -> Result<(), Request> {
        (**self).submit(request)
    }
    fn poll(&mut self, now: Timestamp, completions: &mut Vec<Completion>) -> bool {
        (**self).poll(now, completions)
    }
    fn in_flight(&self) -> usize {
        (**self).in_flight()
    }
    fn interruptions(&self) -> Interruptions {
        (**self).interruptions()
    }
}
