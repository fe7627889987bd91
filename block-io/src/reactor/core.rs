//! The heart of a reactor: starting operations, turning, and dispatching what has ended.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::features::Features;
use super::ring::{Part, Ring};
use super::slots::{Owner, Purpose, Slots};
use super::submission::{File, Span, Submission};
use super::timer::Timers;
use super::wake::Waker;
use super::zero_copy::ZeroCopy;
use super::{Descriptor, Event, OperationId, ReactorConfig, Wait};
use crate::{BufferPool, DeviceError, IoError, Timestamp};

/// Completions of the eventfd's read.
const WAKE: u64 = u64::MAX;
/// Completions that nobody waits for.
const IGNORED: u64 = u64::MAX - 1;

/// Where a port's events wait for it. Bounded by what the port's owner starts without taking.
pub(super) type Inbox = Rc<RefCell<VecDeque<Event>>>;

struct PortPlace {
    generation: u32,
    inbox: Option<Inbox>,
    in_flight: usize,
}

/// Everything behind the face of one reactor.
pub(super) struct Core {
    pub(super) ring: Ring,
    pub(super) slots: Slots,
    pub(super) timers: Timers,
    ports: Vec<PortPlace>,
    free_ports: Vec<u32>,
    /// Events of operations that ended without the kernel, for the next turn.
    ready: Vec<(Owner, Event)>,
    /// Receives that go into the ring behind everything else of this turn. The kernel starts one
    /// operation after the other, and what is sent should not wait while it looks for bytes that
    /// may not even be there: that is half a microsecond each time.
    receives: Vec<(Submission, OperationId)>,
    wake: Option<WakeSource>,
    files: FileTable,
    features: Features,
    pub(super) zero_copy: ZeroCopy,
    spin: Spin,
    now: Timestamp,
}

struct WakeSource {
    waker: Arc<Waker>,
    /// Where the kernel puts the eventfd's count.
    count: Box<u64>,
    armed: bool,
}

/// The table of registered files.
struct FileTable {
    /// This ring's name among all rings, so that a place is never used with another.
    ring: u64,
    free: Vec<u32>,
    /// Places whose files have been closed since the last turn.
    released: Rc<RefCell<Vec<u32>>>,
}

/// Whether watching for a completion pays.
struct Spin {
    limit: Duration,
    /// Moving average of how long waits took, in nanoseconds.
    average: u64,
}

impl Spin {
    /// Waiting was worth it lately if it mostly ended within the limit.
    fn pays(&self) -> bool {
        u128::from(self.average) < self.limit.as_nanos()
    }

    fn note(&mut self, waited: Duration) {
        // Capped, so that a busy time after a long sleep is noticed within a few waits.
        let cap = self.limit.as_nanos().saturating_mul(4);
        let sample = waited.as_nanos().min(cap) as u64;
        self.average = (self.average * 7 + sample) / 8;
    }
}

/// The monotonic clock, which goes on while the machine is suspended: whatever has a time limit
/// that others know of, such as a lease, must not outlive it by a nap.
pub(super) fn clock() -> Timestamp {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid place for the answer, and this clock always exists on Linux.
    unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &raw mut time) };
    Timestamp(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
}

/// The most operations that one reactor carries: a slot's index and the completion ring's size
/// both stay far from their limits.
const OPERATIONS_LIMIT: usize = 1 << 20;
/// The most registered files; beyond it descriptors are used as they are.
const FILES_MAX: u32 = 1024;

impl Core {
    pub(super) fn new(config: &ReactorConfig, pool: &BufferPool) -> Result<Self, DeviceError> {
        let (entries, operations) = (config.entries, config.operations_max);
        if !(1..=32768).contains(&entries) {
            return Err(DeviceError::new(format!(
                "reactor entries {entries}: must be from 1 to 32768"
            )));
        }
        if !(1..=OPERATIONS_LIMIT).contains(&operations) {
            return Err(DeviceError::new(format!(
                "reactor operations_max {operations}: must be from 1 to {OPERATIONS_LIMIT}"
            )));
        }
        // An operation and its cancellation have a completion each.
        let completions = (2 * operations as u32).max(2 * entries).next_power_of_two();
        let mut features = Features::default();
        let mut ring = Ring::new(entries, completions, config.wide_entries, &mut features)?;
        match pool.arena() {
            // SAFETY: `Shared` holds the pool, and is dropped after the core.
            Some((base, length)) => match unsafe { ring.register_arena(base, length) } {
                Ok(()) => features.obtained("REGISTER_BUFFERS"),
                Err(error) => features.missing("REGISTER_BUFFERS", advice(length, &error)),
            },
            None => features.missing("REGISTER_BUFFERS", "the pool has no arena"),
        }
        match ring.make_file_table(FILES_MAX) {
            Ok(()) => features.obtained("REGISTER_FILES"),
            Err(error) => features.missing("REGISTER_FILES", error.to_string()),
        }
        static RINGS: AtomicU64 = AtomicU64::new(0);
        let files = FileTable {
            ring: RINGS.fetch_add(1, Ordering::Relaxed),
            free: (0..ring.file_places()).rev().collect(),
            released: Rc::default(),
        };
        Ok(Self {
            ring,
            slots: Slots::new(operations),
            timers: Timers::new(operations),
            ports: Vec::new(),
            free_ports: Vec::new(),
            ready: Vec::new(),
            receives: Vec::new(),
            wake: None,
            files,
            zero_copy: ZeroCopy::new(config.zero_copy_from, &features),
            features,
            spin: Spin { limit: config.spin, average: 0 },
            now: clock(),
        })
    }

    pub(super) fn features(&self) -> &Features {
        &self.features
    }

    pub(super) fn operations_in_flight(&self) -> usize {
        self.slots.in_use()
    }

    pub(super) fn open_port(&mut self) -> (Owner, Inbox) {
        let inbox = Inbox::default();
        let port = self.free_ports.pop().unwrap_or_else(|| {
            self.ports.push(PortPlace { generation: 0, inbox: None, in_flight: 0 });
            self.ports.len() as u32 - 1
        });
        let place = &mut self.ports[port as usize];
        place.inbox = Some(Rc::clone(&inbox));
        (Owner { port, generation: place.generation }, inbox)
    }

    pub(super) fn close_port(&mut self, owner: Owner) {
        if self.ports[owner.port as usize].in_flight > 0 {
            let operations: Vec<_> = self.slots.in_flight(Some(owner)).collect();
            for operation in operations {
                self.cancel(operation);
            }
        }
        let place = &mut self.ports[owner.port as usize];
        place.generation = place.generation.wrapping_add(1);
        place.inbox = None;
        place.in_flight = 0;
        self.free_ports.push(owner.port);
    }

    /// Takes a slot, or makes an event that says there is none.
    pub(super) fn begin(
        &mut self,
        owner: Owner,
        token: u64,
        purpose: Purpose,
    ) -> Result<(u32, OperationId), OperationId> {
        match self.slots.take(owner, token, purpose) {
            Some(taken) => {
                self.ports[owner.port as usize].in_flight += 1;
                Ok(taken)
            }
            None => {
                let result = Err(IoError::OutOfMemory);
                let operation = OperationId::NONE;
                self.ready.push((owner, Event { token, operation, result, descriptor: None }));
                Err(operation)
            }
        }
    }

    /// Ends an operation that the kernel does not know of; its event comes with the next turn.
    pub(super) fn end_early(&mut self, index: u32, result: Result<u32, IoError>) {
        let operation = self.slots.operation(index);
        let Some((_, slot)) = self.slots.find(operation) else { return };
        let (owner, token) = (slot.owner, slot.token);
        self.slots.release(index);
        if let Some(place) = live(&mut self.ports, owner) {
            place.in_flight -= 1;
        }
        self.ready.push((owner, Event { token, operation, result, descriptor: None }));
    }

    /// How entries name the file.
    pub(super) fn file(&self, descriptor: &Descriptor) -> File {
        match descriptor.place(self.files.ring) {
            Some(place) => File::Registered(place),
            None => File::Plain(descriptor.as_raw_fd()),
        }
    }

    /// Queues the entry of an operation whose slot holds all that it points to.
    pub(super) fn start(
        &mut self,
        submission: Submission,
        operation: OperationId,
        purpose: Purpose,
    ) {
        if purpose == Purpose::Receive {
            return self.receives.push((submission, operation));
        }
        // SAFETY: the slot keeps buffers, descriptor and frame until the completion.
        unsafe { self.ring.push(submission, operation.0) };
    }

    fn queue_receives(&mut self) {
        for (submission, operation) in self.receives.drain(..) {
            // SAFETY: as in `start`.
            unsafe { self.ring.push(submission, operation.0) };
        }
    }

    pub(super) fn cancel(&mut self, operation: OperationId) {
        // The kernel does not find what comes after its cancellation.
        self.queue_receives();
        let Some((index, slot)) = self.slots.find(operation) else { return };
        if slot.cancelled || slot.has_ended() {
            return;
        }
        slot.cancelled = true;
        if slot.purpose == Purpose::Timer {
            self.timers.disarm(index);
            self.end_early(index, Err(IoError::Cancelled));
            return;
        }
        // SAFETY: a cancellation points to nothing.
        unsafe { self.ring.push(Submission::cancel(operation.0), IGNORED) };
    }

    pub(super) fn register(&mut self, descriptor: &Descriptor) -> bool {
        if descriptor.is_registered() {
            return descriptor.place(self.files.ring).is_some();
        }
        self.forget_closed_files();
        let Some(place) = self.files.free.pop() else { return false };
        if self.ring.set_file(place, descriptor.as_raw_fd()).is_err() {
            self.files.free.push(place);
            return false;
        }
        descriptor.set_place(self.files.ring, place, Rc::clone(&self.files.released));
        true
    }

    fn forget_closed_files(&mut self) {
        let mut released = self.files.released.borrow_mut();
        for place in released.drain(..) {
            // Only a place that is surely empty is used again.
            if self.ring.set_file(place, -1).is_ok() {
                self.files.free.push(place);
            }
        }
    }

    /// The waker that all mailboxes of this reactor share.
    pub(super) fn waker(&mut self) -> Result<Arc<Waker>, DeviceError> {
        if let Some(wake) = &self.wake {
            return Ok(Arc::clone(&wake.waker));
        }
        let waker = Arc::new(Waker::new()?);
        let wake = WakeSource { waker: Arc::clone(&waker), count: Box::new(0), armed: false };
        self.wake = Some(wake);
        Ok(waker)
    }

    /// See [`super::Reactor::turn`]. Returns the time after it.
    pub(super) fn turn(&mut self, wait: Wait) -> Result<Timestamp, DeviceError> {
        self.forget_closed_files();
        self.queue_receives();
        self.arm_wake();
        let mut events = self.deliver_ready();
        events += self.reap();
        if wait == Wait::No || events > 0 || self.timers.next().is_some_and(|due| due <= self.now) {
            self.flush()?;
        } else {
            self.wait()?;
        }
        self.reap();
        self.now = clock();
        self.fire_timers();
        self.deliver_ready();
        Ok(self.now)
    }

    /// Sleeps until something happens, after watching for a while if that pays.
    fn wait(&mut self) -> Result<(), DeviceError> {
        let began = clock();
        let timeout = match self.timers.next() {
            Some(due) => due.since(began),
            None => Duration::MAX,
        };
        if self.spin.pays() {
            self.flush()?;
            let limit = began + self.spin.limit.min(timeout);
            let mut now = began;
            while now < limit && !self.has_news() {
                std::hint::spin_loop();
                now = clock();
            }
            if self.has_news() || timeout < self.spin.limit {
                self.spin.note(now.since(began));
                self.note_wake();
                return self.flush();
            }
        }
        if self.wake.as_ref().is_none_or(|wake| wake.waker.flag.try_sleep()) {
            self.ring.enter(Some(timeout))?;
            self.note_wake();
        } else {
            self.flush()?;
        }
        self.spin.note(clock().since(began));
        Ok(())
    }

    fn has_news(&self) -> bool {
        self.ring.has_completion()
            || self.ring.wants_enter()
            || self.wake.as_ref().is_some_and(|wake| wake.waker.flag.is_notified())
    }

    fn note_wake(&self) {
        if let Some(wake) = &self.wake {
            wake.waker.flag.wake();
        }
    }

    /// Enters the kernel if there is something for it to do, without sleeping.
    fn flush(&mut self) -> Result<(), DeviceError> {
        if self.ring.wants_enter() { self.ring.enter(None) } else { Ok(()) }
    }

    /// Keeps a read of the eventfd in flight.
    fn arm_wake(&mut self) {
        let Some(wake) = self.wake.as_mut().filter(|wake| !wake.armed) else { return };
        let base = (&raw mut *wake.count).cast::<u8>();
        let span = Span { base, length: 8, registered: None };
        let read = Submission::read(File::Plain(wake.waker.raw_fd()), span, 0);
        wake.armed = true;
        // SAFETY: the count is boxed, and kept until the core has drained the ring.
        unsafe { self.ring.push(read, WAKE) };
    }

    fn fire_timers(&mut self) {
        while let Some(slot) = self.timers.pop_due(self.now) {
            self.end_early(slot, Ok(0));
        }
    }

    fn deliver_ready(&mut self) -> usize {
        let count = self.ready.len();
        for (owner, event) in self.ready.drain(..) {
            if let Some(inbox) = live(&mut self.ports, owner).and_then(|place| place.inbox.as_ref())
            {
                inbox.borrow_mut().push_back(event);
            }
        }
        count
    }

    /// Takes the completions and puts their events into the inboxes. Returns how many.
    fn reap(&mut self) -> usize {
        let Self { ring, slots, ports, wake, .. } = self;
        let mut count = 0;
        ring.reap(|user_data, result, part| {
            match user_data {
                IGNORED => return,
                WAKE => {
                    if let Some(wake) = wake {
                        wake.armed = false;
                    }
                }
                _ if part == Part::Release => {
                    slots.memory_released(OperationId(user_data), result);
                    return;
                }
                _ => dispatch(slots, ports, OperationId(user_data), result, part),
            }
            count += 1;
        });
        count
    }
}

fn live(ports: &mut [PortPlace], owner: Owner) -> Option<&mut PortPlace> {
    ports.get_mut(owner.port as usize).filter(|place| place.generation == owner.generation)
}

fn dispatch(
    slots: &mut Slots,
    ports: &mut [PortPlace],
    operation: OperationId,
    result: i32,
    part: Part,
) {
    let Some((index, slot)) = slots.find(operation) else {
        debug_assert!(false, "a completion for an operation that has ended");
        return;
    };
    let (owner, token) = (slot.owner, slot.token);
    let (result, descriptor) = match u32::try_from(result) {
        Ok(number) if slot.purpose == Purpose::Accept => {
            // SAFETY: a successful accept returns a new descriptor that nobody else knows.
            let fd = unsafe { OwnedFd::from_raw_fd(number as i32) };
            (Ok(0), Some(Descriptor::from(fd)))
        }
        Ok(number) => (Ok(number), None),
        // A cancelled operation in a kernel worker ends as interrupted.
        Err(_) if slot.cancelled && result == -libc::EINTR => (Err(IoError::Cancelled), None),
        Err(_) => (Err(IoError::from_errno(-result)), None),
    };
    match part {
        Part::Result => slots.keep_memory(index),
        _ => slots.release(index),
    }
    if let Some(place) = live(ports, owner) {
        place.in_flight -= 1;
        if let Some(inbox) = &place.inbox {
            inbox.borrow_mut().push_back(Event { token, operation, result, descriptor });
        }
    }
}

/// Why the arena could not be registered, and what to do.
fn advice(length: usize, error: &std::io::Error) -> String {
    match error.raw_os_error() {
        Some(libc::ENOMEM | libc::EPERM) => format!(
            "{error}: {} KiB of locked memory are needed; raise RLIMIT_MEMLOCK (ulimit -l)",
            length >> 10
        ),
        _ => error.to_string(),
    }
}

/// How often, a tenth of a second each, dropping a reactor waits for operations to end.
const DRAIN_ROUNDS: usize = 50;

impl Drop for Core {
    /// Cancels what is in flight and waits for it, because the kernel may write to memory that
    /// slots own. What does not end in time keeps its memory for good.
    fn drop(&mut self) {
        let operations: Vec<_> = self.slots.in_flight(None).collect();
        for operation in operations {
            self.cancel(operation);
        }
        if self.wake.as_ref().is_some_and(|wake| wake.armed) {
            // SAFETY: a cancellation points to nothing.
            unsafe { self.ring.push(Submission::cancel(WAKE), IGNORED) };
        }
        for _ in 0..DRAIN_ROUNDS {
            self.reap();
            let armed = self.wake.as_ref().is_some_and(|wake| wake.armed);
            if self.slots.in_use() == 0 && !armed {
                self.ring.drop_file_table();
                return;
            }
            if self.ring.enter(Some(Duration::from_millis(100))).is_err() {
                break;
            }
        }
        std::mem::forget(std::mem::replace(&mut self.slots, Slots::new(0)));
        std::mem::forget(self.wake.take());
    }
}
