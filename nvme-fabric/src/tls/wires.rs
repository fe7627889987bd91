//! The ciphertext of a session, between the driver and the library's two callbacks.
//!
//! ```text
//!   driver ─▶ inbound ─▶ receive_callback ─▶ library ─▶ send_callback ─▶ outbound ─▶ driver
//! ```
//! Bounded: 64 KiB each way. What does not fit waits: the peer is not read from, and the library is
//! told to try again.

use std::cell::RefCell;
use std::ffi::{c_int, c_void};

use block_io::{Buffer, BufferPool};

/// Bytes of ciphertext held in each direction.
const WIRE_LENGTH: usize = 64 << 10;

/// A buffer that is filled behind and emptied in front.
pub(super) struct Wire {
    pub(super) buffer: Buffer,
    pub(super) start: usize,
    pub(super) end: usize,
}

impl Wire {
    fn new(pool: &BufferPool) -> Self {
        Self { buffer: pool.allocate(WIRE_LENGTH), start: 0, end: 0 }
    }

    pub(super) const fn length(&self) -> usize {
        self.end - self.start
    }

    pub(super) fn consume(&mut self, bytes: usize) {
        self.start += bytes;
        debug_assert!(self.start <= self.end, "more than there was");
    }

    /// Begins at the front again once it is empty. Not while an operation on it is in flight.
    pub(super) const fn rewind(&mut self) {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
    }

    /// Appends as much as there is room for.
    pub(super) fn append(&mut self, bytes: &[u8]) -> usize {
        let length = bytes.len().min(self.buffer.len() - self.end);
        self.buffer.slice(self.end, length).copy_from_slice(&bytes[..length]);
        self.end += length;
        length
    }
}

/// What the library's callbacks see.
pub(super) struct Wires {
    pub(super) inbound: Wire,
    pub(super) outbound: Wire,
}

impl Wires {
    pub(super) fn new(pool: &BufferPool) -> Self {
        Self { inbound: Wire::new(pool), outbound: Wire::new(pool) }
    }
}

/// Says to the library that nothing can be moved now.
fn would_block() -> c_int {
    // SAFETY: the location is this thread's own and always valid.
    unsafe { *libc::__errno_location() = libc::EWOULDBLOCK };
    -1
}

/// Gives the library what has arrived.
pub(super) unsafe extern "C" fn receive_callback(
    context: *mut c_void,
    to: *mut u8,
    length: u32,
) -> c_int {
    // SAFETY: the context is that of `Session::configure`, alive while the connection is.
    let wires = unsafe { &*context.cast::<RefCell<Wires>>() };
    let wire = &mut wires.borrow_mut().inbound;
    let bytes = wire.length().min(length as usize);
    if bytes == 0 {
        return would_block();
    }
    let from = wire.buffer.slice(wire.start, bytes);
    // SAFETY: the library gives `length` bytes of its own memory to write to; the source is a view
    // of as many, which no receive in flight is over: those begin at the wire's end.
    unsafe { std::ptr::copy_nonoverlapping(from.as_ptr().cast_const(), to, bytes) };
    wire.consume(bytes);
    bytes as c_int
}

/// Takes what the library has made.
pub(super) unsafe extern "C" fn send_callback(
    context: *mut c_void,
    from: *const u8,
    length: u32,
) -> c_int {
    // SAFETY: as in `receive_callback`.
    let wires = unsafe { &*context.cast::<RefCell<Wires>>() };
    let wire = &mut wires.borrow_mut().outbound;
    // SAFETY: the library gives `length` initialised bytes, which are its own until this returns.
    let bytes = unsafe { std::slice::from_raw_parts(from, length as usize) };
    match wire.append(bytes) {
        0 => would_block(),
        appended => appended as c_int,
    }
}
