//! One core's way to the kernel: files, sockets, timers and messages from other cores, through one
//! pair of rings.
//!
//! ```text
//!   component ──Port::read_at, send, timer …──▶ Slots ──▶ Ring ══▶ kernel
//!             ◀──Port::next_event── inbox ◀── dispatch ◀── turn ◀══
//! ```
//! Pull style: nothing calls back. A component holds a [`Port`], starts operations on it and takes
//! their [`Event`]s from it; [`Reactor::turn`] is the one place where the thread enters the kernel
//! and may sleep. A program's part that wants to be run is a [`Task`].
//!
//! Memory that the kernel uses is owned by the operation until its completion, so dropping a
//! port, a buffer or the reactor itself is always sound.
//!
//! Absent: threads, an executor for futures, signals, and DNS.

mod core;
mod descriptor;
mod features;
mod mailbox;
mod port;
mod ring;
mod slots;
pub mod socket;
mod timer;
mod wake;
mod zero_copy;

pub use descriptor::Descriptor;
pub use features::{Feature, Features};
pub use mailbox::{MailSender, Mailbox};
pub use port::Port;
pub use socket::SocketAddress;

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use self::core::Core;
use crate::{
    BlockQueue, BufferPool, Completion, DeviceError, IoError, PoolLayout, Request, Timestamp,
};

/// What the monotonic clock of every reactor of this machine says now.
pub fn clock() -> Timestamp {
    self::core::clock()
}

/// The most buffers that one send or receive may carry.
pub const PIECES_MAX: usize = 64;

/// How often a task that makes progress is polled between two turns.
const POLLS_MAX: usize = 16;

/// What a reactor is made with.
#[derive(Clone, Copy, Debug)]
pub struct ReactorConfig {
    /// Entries of the submission ring, rounded up to a power of two: how many operations go to the
    /// kernel in one system call.
    pub entries: u32,
    /// The most operations in flight, timers included; one more gets an `OutOfMemory` event.
    pub operations_max: usize,
    /// 128-byte submission entries, which ublk and NVMe pass-through commands need.
    pub wide_entries: bool,
    /// The arena of the reactor's buffer pool. It is registered with the kernel where that is
    /// allowed, and its pages are then taken from the system at once.
    pub pool: PoolLayout,
    /// How long to watch for a completion before sleeping, when waits have been short lately. An
    /// idle reactor does not spin. Zero never spins.
    pub spin: Duration,
    /// Sends of at least so many bytes are not copied by the kernel, where the way to the peer
    /// allows it. It pays from a few tens of KiB on, on network interfaces that gather. None copies
    /// all.
    pub zero_copy_from: Option<usize>,
}

impl Default for ReactorConfig {
    /// 256 entries, 4096 operations, 64-byte entries, the standard pool, 50 µs of spinning, sends
    /// with a copy.
    fn default() -> Self {
        Self {
            entries: 256,
            operations_max: 4096,
            wide_entries: false,
            pool: PoolLayout::STANDARD,
            spin: Duration::from_micros(50),
            zero_copy_from: None,
        }
    }
}

/// Whether a turn may sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Only look.
    No,
    /// Sleep until there is an event, a message in a mailbox, or a signal.
    ForEvent,
}

/// A part of a program that a reactor runs.
pub trait Task {
    /// Does what can be done now, and says whether it did anything; it is polled again before the
    /// reactor sleeps if so.
    fn poll(&mut self, now: Timestamp) -> bool;

    /// Whether the task is at its end.
    fn is_finished(&self) -> bool;
}

/// The name of an operation in flight, for [`Port::cancel`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OperationId(u64);

impl OperationId {
    /// The name of an operation that never got a slot.
    const NONE: Self = Self(u64::MAX);

    fn new(slot: u32, generation: u32) -> Self {
        Self(u64::from(generation) << 32 | u64::from(slot))
    }

    fn slot(self) -> u32 {
        self.0 as u32
    }

    fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }
}

/// The outcome of an operation.
#[derive(Debug)]
pub struct Event {
    /// The token that the operation was started with.
    pub token: u64,
    /// Which operation.
    pub operation: OperationId,
    /// Bytes moved for transfers, 0 for the rest, or why it failed.
    pub result: Result<u32, IoError>,
    /// The new socket, of a successful accept.
    pub descriptor: Option<Descriptor>,
}

/// How [`Port::allocate`] changes a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AllocateMode {
    /// The extent loses its space and reads as zeroes. The size stays.
    PunchHole,
    /// The extent reads as zeroes and keeps its space. The size stays.
    ZeroRange,
}

/// One core's reactor. Cheap to clone; clones are the same reactor. Not `Send`.
#[derive(Clone)]
pub struct Reactor {
    shared: Rc<Shared>,
}

/// What a reactor and its ports share.
struct Shared {
    config: ReactorConfig,
    core: RefCell<Core>,
    pool: BufferPool,
    now: Cell<Timestamp>,
}

impl Reactor {
    /// A reactor for the thread that calls.
    ///
    /// # Errors
    /// When a number of the configuration is out of range, or the kernel has no io_uring or
    /// forbids it; the message says what to do.
    pub fn new(config: ReactorConfig) -> Result<Self, DeviceError> {
        let pool = BufferPool::new(config.pool);
        let core = Core::new(&config, &pool)?;
        let now = Cell::new(self::core::clock());
        Ok(Self { shared: Rc::new(Shared { config, core: RefCell::new(core), pool, now }) })
    }

    /// What it was made with, for another one like it.
    pub fn config(&self) -> ReactorConfig {
        self.shared.config
    }

    /// The buffers of this core.
    pub fn pool(&self) -> &BufferPool {
        &self.shared.pool
    }

    /// The monotonic clock ([`clock`]) as of the last turn.
    pub fn now(&self) -> Timestamp {
        self.shared.now.get()
    }

    /// What the kernel gave this reactor, and what not and why.
    pub fn features(&self) -> Features {
        self.shared.core.borrow().features().clone()
    }

    /// Operations in flight, timers included.
    pub fn operations_in_flight(&self) -> usize {
        self.shared.core.borrow().operations_in_flight()
    }

    /// A port for a component of its own.
    pub fn open_port(&self) -> Port {
        Port::new(Rc::clone(&self.shared))
    }

    /// Puts a descriptor that will be used often into the ring's table of registered files, which
    /// spares the kernel a look-up for each operation. Returns whether that worked; if not,
    /// everything works all the same. It leaves the table when its last clone is dropped and the
    /// reactor has turned.
    pub fn register(&self, descriptor: &Descriptor) -> bool {
        self.shared.core.borrow_mut().register(descriptor)
    }

    /// Gives queued operations to the kernel, sleeps if it may, and puts what has ended into the
    /// inboxes of the ports. May return without an event, after a signal for one.
    ///
    /// # Errors
    /// When the kernel refuses the ring itself, which no operation can cause.
    pub fn turn(&self, wait: Wait) -> Result<(), DeviceError> {
        let now = self.shared.core.borrow_mut().turn(wait)?;
        self.shared.now.set(now);
        Ok(())
    }

    /// Polls `task` until it makes no more progress, turns, and so on until it is finished. A task
    /// that never stops making progress has its operations turned all the same.
    ///
    /// # Errors
    /// As [`turn`](Self::turn).
    pub fn run(&self, task: &mut dyn Task) -> Result<(), DeviceError> {
        self.turn(Wait::No)?;
        while !task.is_finished() {
            // What a task starts in these polls goes to the kernel together.
            let busy = (0..POLLS_MAX).all(|_| task.poll(self.now()) && !task.is_finished());
            if !task.is_finished() {
                self.turn(if busy { Wait::No } else { Wait::ForEvent })?;
            }
        }
        Ok(())
    }

    /// Runs one request on a queue of this reactor's to its end: for tools and examples, which have
    /// nothing else to do meanwhile.
    ///
    /// # Errors
    /// When other requests are in flight on the queue, whose completions would be lost, and as
    /// [`turn`](Self::turn). How the request itself ended is its completion's result.
    pub fn run_request(
        &self,
        queue: &mut impl BlockQueue,
        request: Request,
    ) -> Result<Completion, DeviceError> {
        let in_flight = queue.in_flight();
        if in_flight > 0 {
            return Err(DeviceError::new(format!(
                "requests in flight on the queue are {in_flight}: must be 0"
            )));
        }
        let mut request = Some(request);
        let mut completions = Vec::new();
        loop {
            if let Some(untaken) = request.take() {
                request = queue.submit(untaken).err();
            }
            let busy = queue.poll(self.now(), &mut completions);
            if let Some(completion) = completions.pop() {
                return Ok(completion);
            }
            self.turn(if busy { Wait::No } else { Wait::ForEvent })?;
        }
    }

    /// A queue of at most `capacity` messages from any thread to this one; a message ends a
    /// [`Wait::ForEvent`].
    ///
    /// # Errors
    /// When `capacity` is zero or the kernel has no more descriptors.
    pub fn mailbox<T: Send>(
        &self,
        capacity: usize,
    ) -> Result<(MailSender<T>, Mailbox<T>), DeviceError> {
        if capacity == 0 {
            return Err(DeviceError::new("mailbox capacity 0: must be at least 1"));
        }
        let waker = self.shared.core.borrow_mut().waker()?;
        Ok(mailbox::pair(capacity, waker))
    }
}

impl std::fmt::Debug for Reactor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Reactor({} operations in flight)", self.operations_in_flight())
    }
}
