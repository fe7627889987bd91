//! The same host on the `tokio-uring` runtime: for programs that live there already.
//!
//! ```text
//!   NvmeTcpClient::request ─▶ Controller ◀─ turn ◀─┬─ reader and writer of each stream
//!                  ◀─ oneshot ─────────────────────┴─ the clock, at the next deadline
//! ```
//! Everything is one thread's: the tasks are spawned on the runtime that connects. Each stream has
//! a task that reads and one that writes, and whoever has changed something calls `turn`.
//!
//! Differences to the reactor's driver: a receive fills one piece, as the runtime's streams have
//! no scatter read, and each request and each send allocates, which an `async` face pays anyway.
//! Not for the data path of Forebay itself. Absent: TLS; options that ask for it are refused.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::{Shutdown, SocketAddr};
use std::rc::{Rc, Weak};
use std::time::Instant;

use block_io::{
    Buffer, BufferPool, Completion, DeviceError, Extent, Geometry, IoError, Request, RequestId,
    Timestamp,
};
use tokio::sync::{Notify, oneshot};
use tokio_uring::buf::{IoBuf, IoBufMut};
use tokio_uring::net::TcpStream;

use super::host::resolve;
use super::namespace_device::ConnectOptions;
use crate::error::ConnectionError;
use crate::host::connection::Connection;
use crate::host::controller::Purpose;
use crate::host::{Controller, Identity, QueueIndex};
use crate::pdu::Endpoint;

/// Pieces of one gathered write.
const PIECES_MAX: usize = 64;

/// A view of a buffer that the runtime holds while the kernel uses it.
struct Piece(Buffer);

// SAFETY: a view's memory is initialised, does not move, and lives as long as the view does, which
// the runtime owns until the operation has ended. `Buffer` hands out no `&mut [u8]`, so nothing
// else in Rust assumes that these bytes do not change.
unsafe impl IoBuf for Piece {
    fn stable_ptr(&self) -> *const u8 {
        self.0.as_ptr()
    }
    fn bytes_init(&self) -> usize {
        self.0.len()
    }
    fn bytes_total(&self) -> usize {
        self.0.len()
    }
}

// SAFETY: as above; all of a view's bytes are initialised from the start.
unsafe impl IoBufMut for Piece {
    fn stable_mut_ptr(&mut self) -> *mut u8 {
        self.0.as_ptr()
    }
    unsafe fn set_init(&mut self, _: usize) {}
}

struct Shared {
    controller: RefCell<Controller>,
    pool: BufferPool,
    addresses: Vec<SocketAddr>,
    started: Instant,
    /// By queue, while it has a stream.
    streams: RefCell<Vec<Option<Way>>>,
    /// The association is up, over, or has room again.
    changed: Notify,
    /// The next deadline may have changed.
    deadline_changed: Notify,
    waiting: RefCell<HashMap<RequestId, oneshot::Sender<Completion>>>,
    next_id: Cell<u64>,
    queue: Cell<Option<QueueIndex>>,
}

/// An open stream and its writer's alarm.
#[derive(Clone)]
struct Way {
    stream: Rc<TcpStream>,
    writable: Rc<Notify>,
}

/// A connected namespace. Cheap to clone; clones share the association and its one I/O queue.
/// Dropping the last one shuts the association down in the background.
#[derive(Clone)]
pub struct NvmeTcpClient(Rc<Handle>);

/// What clients share. The tasks of the streams hold what is inside.
struct Handle(Rc<Shared>);

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.controller.borrow_mut().shut_down();
        self.0.turn();
    }
}

impl NvmeTcpClient {
    /// Connects. Must be called on a `tokio-uring` runtime, whose thread `pool` belongs to.
    ///
    /// # Errors
    /// Why the association did not come up within the connect timeout.
    pub async fn connect(pool: &BufferPool, options: &ConnectOptions) -> Result<Self, DeviceError> {
        #[cfg(feature = "tls")]
        if options.tls.is_some()
            || options.authentication.as_ref().is_some_and(|own| own.keys.concatenate)
        {
            let what = "a TLS key was given, or is to be generated: this runtime's host connects \
                        without TLS only";
            return Err(DeviceError::new(what));
        }
        let addresses = resolve(&options.host, options.port)?;
        let purpose = Purpose::Namespace(options.namespace_id);
        #[cfg_attr(not(feature = "auth"), expect(unused_mut))]
        let mut controller =
            Controller::new(pool, options.host_options(), purpose, Timestamp::default())?;
        #[cfg(feature = "auth")]
        controller.seed_random(&*super::random::random_seed()?);
        let shared = Rc::new(Shared {
            controller: RefCell::new(controller),
            pool: pool.clone(),
            addresses,
            started: Instant::now(),
            streams: RefCell::default(),
            changed: Notify::new(),
            deadline_changed: Notify::new(),
            waiting: RefCell::default(),
            next_id: Cell::new(0),
            queue: Cell::new(None),
        });
        tokio_uring::spawn(keep_time(Rc::downgrade(&shared)));
        shared.turn();
        loop {
            let changed = shared.changed.notified();
            {
                let mut controller = shared.controller.borrow_mut();
                if controller.is_up() {
                    let depth = usize::from(options.queue_depth);
                    shared.queue.set(Some(controller.open_queue(depth)?));
                    break;
                }
                if controller.is_over() {
                    let error = controller.error().cloned().unwrap_or(ConnectionError::Closed);
                    return Err(error.into());
                }
            }
            changed.await;
        }
        Ok(Self(Rc::new(Handle(shared))))
    }

    /// The namespace as a block device.
    pub fn geometry(&self) -> Option<Geometry> {
        self.0.0.controller.borrow().identity().geometry
    }

    /// What controller and namespace have told about themselves.
    pub fn identity(&self) -> Identity {
        self.0.0.controller.borrow().identity().clone()
    }

    /// Reads `length` bytes from `offset`.
    ///
    /// # Errors
    /// As for any block device.
    pub async fn read(&self, offset: u64, length: usize) -> Result<Buffer, IoError> {
        let buffer = self.0.0.pool.allocate(length);
        let done = self.request(Request::read(RequestId(0), offset, buffer)).await;
        done.result?;
        done.buffer.ok_or(IoError::Media)
    }

    /// Writes all of `buffer` at `offset`.
    ///
    /// # Errors
    /// As for any block device.
    pub async fn write(&self, offset: u64, buffer: Buffer) -> Result<(), IoError> {
        self.request(Request::write(RequestId(0), offset, buffer)).await.result
    }

    /// Makes completed writes durable.
    ///
    /// # Errors
    /// As for any block device.
    pub async fn flush(&self) -> Result<(), IoError> {
        self.request(Request::flush(RequestId(0))).await.result
    }

    /// Has `extent` read as zeroes.
    ///
    /// # Errors
    /// As for any block device.
    pub async fn write_zeroes(&self, extent: Extent) -> Result<(), IoError> {
        self.request(Request::write_zeroes(RequestId(0), extent)).await.result
    }

    /// Runs any request to its end. Its id is chosen here and put back in the completion. A full
    /// queue is waited for.
    pub async fn request(&self, request: Request) -> Completion {
        let shared = &self.0.0;
        let own_id = request.id;
        let id = RequestId(shared.next_id.get());
        shared.next_id.set(id.0 + 1);
        let (sender, receiver) = oneshot::channel();
        let mut request = Request { id, ..request };
        loop {
            let changed = shared.changed.notified();
            let queue = shared.queue.get().unwrap_or_default();
            match shared.controller.borrow_mut().submit(queue, request) {
                Ok(()) => break,
                Err(back) => request = back,
            }
            changed.await;
        }
        shared.waiting.borrow_mut().insert(id, sender);
        shared.turn();
        match receiver.await {
            Ok(completion) => Completion { id: own_id, ..completion },
            // Only when the runtime itself goes away.
            Err(_) => Completion { id: own_id, result: Err(IoError::Cancelled), buffer: None },
        }
    }

    /// Tells the controller that this host is leaving, and closes the connections.
    pub async fn shut_down(self) {
        let shared = &self.0.0;
        shared.controller.borrow_mut().shut_down();
        shared.turn();
        loop {
            let changed = shared.changed.notified();
            if shared.controller.borrow().is_over() {
                return;
            }
            changed.await;
        }
    }
}

impl std::fmt::Debug for NvmeTcpClient {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let controller = self.0.0.controller.borrow();
        let options = controller.options();
        write!(f, "NvmeTcpClient({} at {})", options.subsystem, options.address)
    }
}

impl Shared {
    fn now(&self) -> Timestamp {
        Timestamp::default() + self.started.elapsed()
    }

    /// Does what there is to do, and wakes whom it concerns.
    fn turn(self: &Rc<Self>) {
        let mut completions = Vec::new();
        {
            let mut controller = self.controller.borrow_mut();
            while controller.tick(self.now()) {}
            while let Some(queue) = controller.next_stream_wanted() {
                tokio_uring::spawn(run_stream(Rc::clone(self), queue));
            }
            if let Some(queue) = self.queue.get() {
                controller.take_completions(queue, &mut completions);
            }
            for (index, way) in self.streams.borrow().iter().enumerate() {
                let connection = controller.connection(index as QueueIndex);
                if let (Some(way), Some(connection)) = (way, connection) {
                    if connection.wants_close() {
                        // Ends the read and the write in flight; both tasks then end.
                        let _ = way.stream.shutdown(Shutdown::Both);
                    }
                    way.writable.notify_one();
                }
            }
        }
        for completion in completions {
            let sender = self.waiting.borrow_mut().remove(&completion.id);
            if let Some(sender) = sender {
                // Whoever gave up waiting does not want it.
                let _ = sender.send(completion);
            }
        }
        self.changed.notify_waiters();
        self.deadline_changed.notify_one();
    }

    /// Looks at the connection of `queue`, if it is there.
    fn with<Value>(
        &self,
        queue: QueueIndex,
        function: impl FnOnce(&mut Connection) -> Value,
    ) -> Option<Value> {
        self.controller.borrow_mut().connection(queue).map(function)
    }
}

/// Ticks at each deadline, until nobody needs the association.
async fn keep_time(shared: Weak<Shared>) {
    loop {
        let Some(strong) = shared.upgrade() else { return };
        if strong.controller.borrow().is_over() {
            return;
        }
        let deadline = strong.controller.borrow().next_deadline();
        let now = strong.now();
        // Without a deadline look now and then whether the association is still wanted.
        let wait = deadline.map_or(std::time::Duration::from_secs(1), |at| at.since(now));
        // Timers of the runtime count milliseconds: never wake before the deadline.
        let wait = wait + std::time::Duration::from_millis(1);
        let changed = strong.deadline_changed.notified();
        if tokio::time::timeout(wait, changed).await.is_err() {
            strong.turn();
        }
    }
}

/// Connects a queue's stream and moves its bytes until both directions have ended.
async fn run_stream(shared: Rc<Shared>, queue: QueueIndex) {
    let limit = shared.controller.borrow().options().connect_timeout;
    let mut failure = IoError::TimedOut;
    let mut connected = None;
    for address in &shared.addresses {
        match tokio::time::timeout(limit, TcpStream::connect(*address)).await {
            Ok(Ok(stream)) => {
                connected = Some(stream);
                break;
            }
            Ok(Err(error)) => failure = IoError::from(&error),
            Err(_) => failure = IoError::TimedOut,
        }
    }
    let Some(stream) = connected else {
        shared.controller.borrow_mut().stream_failed(queue, failure);
        shared.turn();
        return;
    };
    // Small PDUs must not wait for the answers to earlier ones; without it all works, later.
    let _ = stream.set_nodelay(true);
    let way = Way { stream: Rc::new(stream), writable: Rc::default() };
    {
        let mut streams = shared.streams.borrow_mut();
        let index = usize::from(queue);
        if streams.len() <= index {
            streams.resize_with(index + 1, || None);
        }
        streams[index] = Some(way.clone());
    }
    shared.controller.borrow_mut().stream_established(queue);
    let writer = tokio_uring::spawn(write_all(Rc::clone(&shared), queue, way.clone()));
    shared.turn();
    read_all(&shared, queue, &way.stream).await;
    // Only an aborted or panicked task joins with an error; then nothing is in flight either.
    let _ = writer.await;
    shared.streams.borrow_mut()[usize::from(queue)] = None;
    shared.controller.borrow_mut().stream_closed(queue);
    shared.turn();
}

async fn read_all(shared: &Rc<Shared>, queue: QueueIndex, stream: &TcpStream) {
    let mut pieces = Vec::new();
    loop {
        shared.with(queue, |connection| connection.receive_into(&mut pieces));
        let Some(first) = pieces.drain(..).next() else {
            return;
        };
        let (result, piece) = stream.read(Piece(first)).await;
        drop(piece);
        let ended = shared.with(queue, |connection| match result {
            Ok(0) => connection.end_of_stream(),
            Ok(bytes) => connection.received(bytes),
            Err(error) => connection.network_failed("receiving", IoError::from(&error)),
        });
        shared.turn();
        if ended.is_none() {
            return;
        }
    }
}

/// Ends when the connection wants to be closed.
async fn write_all(shared: Rc<Shared>, queue: QueueIndex, way: Way) {
    let mut pieces = Vec::new();
    loop {
        shared.with(queue, |connection| connection.transmit_from(&mut pieces, PIECES_MAX));
        if pieces.is_empty() {
            if shared.with(queue, |connection| connection.wants_close()).unwrap_or(true) {
                let _ = way.stream.shutdown(Shutdown::Both);
                return;
            }
            way.writable.notified().await;
            continue;
        }
        let views: Vec<Piece> = pieces.drain(..).map(Piece).collect();
        let (result, views) = way.stream.writev(views).await;
        drop(views);
        shared.with(queue, |connection| match result {
            Ok(bytes) => connection.transmitted(bytes),
            Err(error) => connection.network_failed("sending", IoError::from(&error)),
        });
        shared.turn();
    }
}
