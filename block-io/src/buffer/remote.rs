//! Buffers that go to another core and come back.
//!
//! ```text
//!   lender                                    borrower
//!   Buffer ─try_into_remote─▶ RemoteBuffer ──▶ open ─▶ Buffer, slices, clones
//!                                                        │ the last one is dropped
//!   pool ◀─open, drop──────── RemoteBuffer ◀── Returns ◀─┘
//! ```
//! What crosses is a block that has one view, so that nobody is left behind who could touch its
//! bytes, its count, or its header: whoever has the [`RemoteBuffer`] has them all to itself, and
//! the count needs no atomics on either side. What carries it over (a mailbox) sees to it that what
//! one core did before is done for the other.
//!
//! The block still belongs to its pool. On a borrower's core it is not given back to anything when
//! its last view goes, but put on a list ([`Returns`]) of what is to be sent home. Opened on the
//! core that it came from, it is a buffer of its pool again.
//!
//! If an answer has to go back while something on the borrower's core still holds a view (a store
//! under way), the answer takes a copy ([`Buffer::copy_into_remote`]), and the block goes home by
//! itself later. A copy belongs to no pool: where it is dropped, it is freed.
//!
//! Absent: the way there. A remote buffer that is dropped on a core that is not its home is never
//! used again, nor is its pool freed; that is sound, and a bug of whoever had it.

use std::cell::{Cell, RefCell};
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};

use super::Buffer;
use super::pool::{self, Block};

/// The home of blocks that belong to no pool: everywhere.
pub(super) const EVERYWHERE: u64 = 0;

/// A number of the calling thread that no other thread has or will have.
fn this_core() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(EVERYWHERE + 1);
    thread_local! { static CORE: Cell<u64> = const { Cell::new(EVERYWHERE) } }
    CORE.with(|core| {
        if core.get() == EVERYWHERE {
            core.set(NEXT.fetch_add(1, Ordering::Relaxed));
        }
        core.get()
    })
}

/// The only view of a block, on its way to another core or back.
pub struct RemoteBuffer {
    block: NonNull<Block>,
    offset: u32,
    length: u32,
}

// SAFETY: it is the only view of its block: no `Buffer` and no other `RemoteBuffer` counts on it,
// see `try_into_remote` and `release_loan`. So the header's cells are touched by whoever has it and
// by nobody else, but for the `Rc` of the block's pool, which is touched at home only (`open`,
// `drop`). The rest of the header does not change while the pool lives, and it lives.
unsafe impl Send for RemoteBuffer {}

/// Where a borrower finds the blocks that are to go home. Clones are the same list.
#[derive(Clone, Debug, Default)]
pub struct Returns(Rc<RefCell<Vec<RemoteBuffer>>>);

impl Returns {
    /// A block whose last view was dropped.
    pub fn take(&self) -> Option<RemoteBuffer> {
        self.0.borrow_mut().pop()
    }
}

impl Buffer {
    /// Makes it ready for another core.
    ///
    /// # Errors
    /// The buffer itself, when it is not the only view of its block.
    pub fn try_into_remote(self) -> Result<RemoteBuffer, Self> {
        if !self.is_unique() {
            return Err(self);
        }
        let view = std::mem::ManuallyDrop::new(self);
        let header = view.block();
        if header.loan.take().is_none() && header.has_pool() {
            header.home_core.set(this_core());
        }
        Ok(RemoteBuffer { block: view.block, offset: view.offset, length: view.length })
    }

    /// A copy of the bytes for another core, of memory that belongs to no pool.
    pub fn copy_into_remote(&self) -> RemoteBuffer {
        let length = self.length;
        let copy = Self { block: pool::homeless(self.len()), offset: 0, length };
        copy.copy_from(self);
        copy.try_into_remote().expect("nobody else knows of it")
    }
}

impl RemoteBuffer {
    /// Number of bytes in view.
    pub fn len(&self) -> usize {
        self.length as usize
    }

    /// Whether no byte is in view.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// The buffer on this core. If its home is another one, the block appears in `returns` when its
    /// last view here is dropped, and whoever keeps that list sends it home.
    pub fn open(self, returns: &Returns) -> Buffer {
        let remote = std::mem::ManuallyDrop::new(self);
        if !remote.is_at_home() {
            remote.header().loan.set(Some(Rc::clone(&returns.0)));
        }
        Buffer { block: remote.block, offset: remote.offset, length: remote.length }
    }

    fn is_at_home(&self) -> bool {
        let home = self.header().home_core.get();
        home == EVERYWHERE || home == this_core()
    }

    fn header(&self) -> &Block {
        // SAFETY: a block with a view is alive, and this is its view.
        unsafe { self.block.as_ref() }
    }
}

impl Drop for RemoteBuffer {
    fn drop(&mut self) {
        if self.is_at_home() {
            self.header().references.set(0);
            pool::release(self.block);
        }
        // Elsewhere its pool can't be touched: see the module.
    }
}

impl std::fmt::Debug for RemoteBuffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RemoteBuffer({} bytes)", self.length)
    }
}

/// What a block needs to know while it is lent.
pub(super) type Loan = Rc<RefCell<Vec<RemoteBuffer>>>;

/// A borrowed block's last view here was dropped: it waits to be sent home.
#[cold]
pub(super) fn release_loan(block: NonNull<Block>, loan: &Loan) {
    // SAFETY: the caller held the last view, so the block is alive and nobody else refers to it.
    unsafe { block.as_ref() }.references.set(1);
    loan.borrow_mut().push(RemoteBuffer { block, offset: 0, length: 0 });
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::thread;

    use super::super::{BufferPool, PoolLayout};
    use super::*;

    const SMALL: PoolLayout =
        PoolLayout { classes: [(4096, 2), (8192, 0), (16384, 0), (32768, 0), (65536, 0)] };

    /// Runs `borrower` on another core with the buffer, and gives back what it sends.
    fn lend(
        buffer: Buffer,
        borrower: impl FnOnce(Buffer, &Returns) -> RemoteBuffer + Send + 'static,
    ) -> RemoteBuffer {
        let remote = buffer.try_into_remote().expect("the only view");
        let (sender, back) = channel();
        let other = thread::spawn(move || {
            let returns = Returns::default();
            let buffer = remote.open(&returns);
            sender.send(borrower(buffer, &returns)).expect("somebody waits");
        });
        let back = back.recv().expect("sent");
        other.join().expect("does not panic");
        back
    }

    #[test]
    fn a_block_comes_home_with_what_was_written_elsewhere() {
        let pool = BufferPool::new(SMALL);
        let buffer = pool.allocate(4096);
        let address = buffer.as_ptr();
        let view = buffer.slice(512, 1024);
        drop(buffer);
        let back = lend(view, |buffer, returns| {
            let slices = [buffer.slice(0, 512), buffer.slice(512, 512)];
            slices.iter().for_each(|slice| slice.fill(9));
            let buffer = buffer.try_into_remote().expect_err("there are slices");
            drop(slices);
            assert!(returns.take().is_none(), "there is a view");
            buffer.try_into_remote().expect("the only view")
        });
        let returns = Returns::default();
        let buffer = back.open(&returns);
        assert_eq!(buffer.to_vec(), [9; 1024]);
        assert!(buffer.is_unique());
        drop(buffer);
        assert!(returns.take().is_none(), "it is at home");
        assert_eq!(pool.allocate(4096).as_ptr(), address, "its pool has it");
    }

    #[test]
    fn the_last_view_elsewhere_puts_the_block_on_its_way() {
        let pool = BufferPool::new(SMALL);
        for length in [4096, 1 << 20] {
            let back = lend(pool.allocate(length), |buffer, returns| {
                let store = buffer.slice(0, 10);
                drop(buffer);
                assert!(returns.take().is_none(), "the store holds it");
                drop(store);
                returns.take().expect("nobody holds it")
            });
            assert_eq!(pool.heap_blocks(), usize::from(length > 65536));
            drop(back);
            assert_eq!(pool.heap_blocks(), 0);
        }
        let taken = [pool.allocate(1), pool.allocate(1)];
        assert!(taken.iter().all(Buffer::in_arena), "both blocks are there");
    }

    #[test]
    fn a_copy_goes_while_the_block_stays() {
        let pool = BufferPool::new(SMALL);
        let buffer = pool.allocate(4096);
        buffer.fill(3);
        let copy = lend(buffer, |buffer, returns| {
            let copy = buffer.copy_into_remote();
            buffer.fill(4);
            drop(buffer);
            std::mem::forget(returns.take().expect("of the original"));
            copy
        });
        let copy = copy.open(&Returns::default());
        assert_eq!(copy.to_vec(), [3; 4096]);
        assert!(!copy.in_arena() && pool.heap_blocks() == 0);
    }

    #[test]
    fn a_block_lost_elsewhere_keeps_its_pool_and_nothing_else() {
        let pool = BufferPool::new(SMALL);
        let remote = pool.allocate(4096).try_into_remote().expect("the only view");
        thread::spawn(move || drop(remote)).join().expect("does not panic");
        assert!(pool.allocate(1).in_arena());
        let both = [pool.allocate(1), pool.allocate(1)];
        assert_eq!(both.iter().filter(|buffer| buffer.in_arena()).count(), 1);
    }
}
