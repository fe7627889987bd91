//! Operations in flight: a fixed number of slots, each owning what the kernel uses until its
//! completion is seen.
//!
//! A completion is matched by slot index and generation, so that a late one can never be taken for
//! another operation's. Message headers and addresses lie in frames that are allocated once and
//! never move.

use super::descriptor::{Descriptor, WeakDescriptor};
use super::{OperationId, SocketAddress};
use crate::{Buffer, IoError};

/// What an operation is, as far as its start or its completion is treated differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    Transfer,
    Receive,
    Accept,
    Timer,
}

/// Which port an operation belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) port: u32,
    pub(super) generation: u32,
}

/// One place for an operation.
pub(super) struct Slot {
    generation: u32,
    next_free: u32,
    taken: bool,
    /// Its frame is in use.
    framed: bool,
    /// A cancellation is under way.
    pub(super) cancelled: bool,
    pub(super) purpose: Purpose,
    pub(super) owner: Owner,
    pub(super) token: u64,
    buffer: Option<Buffer>,
    descriptor: Option<Descriptor>,
    /// It has ended, and the kernel still reads its memory, to send it to this socket.
    sending_to: Option<WeakDescriptor>,
}

impl Slot {
    /// Its event was sent; what is left is memory that the kernel has not done with.
    pub(super) fn has_ended(&self) -> bool {
        self.sending_to.is_some()
    }
}

/// What the kernel reads or writes of a message besides its bytes. Its vectors keep their
/// capacity, so a frame in steady use allocates nothing.
struct Frame {
    header: libc::msghdr,
    vectors: Vec<libc::iovec>,
    buffers: Vec<Buffer>,
    address: libc::sockaddr_storage,
}

/// All slots of one reactor.
pub(super) struct Slots {
    slots: Box<[Slot]>,
    frames: Box<[Option<Box<Frame>>]>,
    first_free: u32,
    in_use: usize,
}

const END: u32 = u32::MAX;

impl Slots {
    pub(super) fn new(capacity: usize) -> Self {
        let nobody = Owner { port: 0, generation: 0 };
        let slot = |index: usize| Slot {
            generation: 0,
            next_free: if index + 1 == capacity { END } else { index as u32 + 1 },
            taken: false,
            framed: false,
            cancelled: false,
            purpose: Purpose::Transfer,
            owner: nobody,
            token: 0,
            buffer: None,
            descriptor: None,
            sending_to: None,
        };
        Self {
            slots: (0..capacity).map(slot).collect(),
            frames: (0..capacity).map(|_| None).collect(),
            first_free: if capacity == 0 { END } else { 0 },
            in_use: 0,
        }
    }

    /// Operations in flight.
    pub(super) fn in_use(&self) -> usize {
        self.in_use
    }

    /// Takes a free slot.
    pub(super) fn take(
        &mut self,
        owner: Owner,
        token: u64,
        purpose: Purpose,
    ) -> Option<(u32, OperationId)> {
        let index = self.first_free;
        let slot = self.slots.get_mut(index as usize)?;
        self.first_free = slot.next_free;
        self.in_use += 1;
        slot.taken = true;
        slot.cancelled = false;
        slot.purpose = purpose;
        slot.owner = owner;
        slot.token = token;
        Some((index, OperationId::new(index, slot.generation)))
    }

    /// Keeps the descriptor, and with it the file, until the operation ends.
    pub(super) fn hold_descriptor(&mut self, index: u32, descriptor: &Descriptor) {
        self.slots[index as usize].descriptor = Some(descriptor.clone());
    }

    /// Keeps the buffer until the operation ends.
    pub(super) fn hold_buffer(&mut self, index: u32, buffer: &Buffer) {
        self.slots[index as usize].buffer = Some(buffer.clone());
    }

    /// Keeps the buffers until the operation ends, and makes a message header for them that stays
    /// where it is until then.
    pub(super) fn hold_message(&mut self, index: u32, pieces: &[Buffer]) -> *mut libc::msghdr {
        let frame = self.frame(index);
        frame.vectors.extend(
            pieces
                .iter()
                .map(|piece| libc::iovec { iov_base: piece.as_ptr().cast(), iov_len: piece.len() }),
        );
        frame.buffers.extend_from_slice(pieces);
        frame.header.msg_iov = frame.vectors.as_mut_ptr();
        frame.header.msg_iovlen = frame.vectors.len();
        &raw mut frame.header
    }

    /// Keeps the address until the operation ends.
    ///
    /// # Errors
    /// `InvalidArgument` for a Unix socket path that is too long or holds a zero byte.
    pub(super) fn hold_address(
        &mut self,
        index: u32,
        address: &SocketAddress,
    ) -> Result<(*const libc::sockaddr, libc::socklen_t), IoError> {
        let frame = self.frame(index);
        let length = address.write_to(&mut frame.address)?;
        Ok(((&raw const frame.address).cast(), length))
    }

    fn frame(&mut self, index: u32) -> &mut Frame {
        self.slots[index as usize].framed = true;
        self.frames[index as usize].get_or_insert_with(|| {
            // SAFETY: all zeroes is a valid `msghdr` (null pointers, zero lengths).
            let header = unsafe { std::mem::zeroed() };
            // SAFETY: all zeroes is a valid `sockaddr_storage` of no family.
            let address = unsafe { std::mem::zeroed() };
            Box::new(Frame { header, vectors: Vec::new(), buffers: Vec::new(), address })
        })
    }

    /// The slot that an operation is in, if it is still in flight.
    pub(super) fn find(&mut self, operation: OperationId) -> Option<(u32, &mut Slot)> {
        let index = operation.slot();
        let slot = self.slots.get_mut(index as usize)?;
        (slot.taken && slot.generation == operation.generation()).then_some((index, slot))
    }

    /// The operation in a slot that is known to be in use.
    pub(super) fn operation(&self, index: u32) -> OperationId {
        OperationId::new(index, self.slots[index as usize].generation)
    }

    /// Ends an operation whose memory the kernel still reads. The file is let go of: a socket that
    /// is closed must not stay open until a peer acknowledges.
    pub(super) fn keep_memory(&mut self, index: u32) {
        let slot = &mut self.slots[index as usize];
        slot.sending_to = slot.descriptor.take().map(|descriptor| descriptor.downgrade());
    }

    /// The kernel has done with the memory of an operation that has ended; `result` says whether it
    /// copied it after all.
    pub(super) fn memory_released(&mut self, operation: OperationId, result: i32) {
        /// `IORING_NOTIF_USAGE_ZC_COPIED`, Linux `include/uapi/linux/io_uring.h`.
        const COPIED: i32 = i32::MIN;
        let Some((index, slot)) = self.find(operation) else {
            debug_assert!(false, "memory of an operation that is forgotten");
            return;
        };
        if let Some(socket) = slot.sending_to.take().filter(|_| result & COPIED != 0) {
            socket.note_copy();
        }
        self.release(index);
    }

    /// Ends an operation: lets go of everything it held and frees its slot.
    pub(super) fn release(&mut self, index: u32) {
        let slot = &mut self.slots[index as usize];
        debug_assert!(slot.taken, "released once");
        slot.taken = false;
        slot.generation = slot.generation.wrapping_add(1);
        slot.next_free = self.first_free;
        slot.buffer = None;
        slot.descriptor = None;
        slot.sending_to = None;
        self.first_free = index;
        self.in_use -= 1;
        if !slot.framed {
            return;
        }
        slot.framed = false;
        if let Some(frame) = &mut self.frames[index as usize] {
            frame.vectors.clear();
            frame.buffers.clear();
        }
    }

    /// The operations in flight, of one owner or of all.
    pub(super) fn in_flight(&self, owner: Option<Owner>) -> impl Iterator<Item = OperationId> {
        let wanted = move |slot: &Slot| slot.taken && owner.is_none_or(|owner| owner == slot.owner);
        (0..self.slots.len() as u32)
            .filter(move |index| wanted(&self.slots[*index as usize]))
            .map(|index| self.operation(index))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_late_name_finds_nothing_and_a_full_slab_gives_nothing() {
        let owner = Owner { port: 0, generation: 0 };
        let mut slots = Slots::new(2);
        let take = |slots: &mut Slots| slots.take(owner, 1, Purpose::Transfer);
        let (first, operation) = take(&mut slots).expect("room");
        take(&mut slots).expect("room");
        assert!(take(&mut slots).is_none());
        assert!(slots.find(operation).is_some());
        slots.release(first);
        assert!(slots.find(operation).is_none(), "it has ended");
        let (again, another) = take(&mut slots).expect("room again");
        assert_eq!(again, first);
        assert!(slots.find(operation).is_none(), "the slot is another operation's");
        assert!(slots.find(another).is_some());
        assert!(slots.find(OperationId::NONE).is_none());
        assert_eq!(slots.in_use(), 2);
    }

    #[test]
    fn what_the_kernel_uses_is_kept_until_the_release() {
        let owner = Owner { port: 0, generation: 0 };
        let pool = crate::BufferPool::heap();
        let buffer = pool.allocate(4096);
        let mut slots = Slots::new(1);
        let (index, _) = slots.take(owner, 1, Purpose::Transfer).expect("room");
        slots.hold_buffer(index, &buffer);
        let header = slots.hold_message(index, &[buffer.slice(0, 1), buffer.slice(1, 2)]);
        assert!(!buffer.is_unique());
        // SAFETY: the header stays valid until the release.
        assert_eq!(unsafe { (*header).msg_iovlen }, 2);
        slots.release(index);
        assert!(buffer.is_unique());
    }
}
