//! Where buffers come from: one arena per core, cut into blocks of a few sizes, and the heap when
//! a size is used up or too large.
//!
//! The arena is one allocation, so a reactor registers it with the kernel once and operations on
//! it skip pinning pages. Taking and giving back a block is a push or pop on its size's free list;
//! no system call, no lock.
//!
//! Absent: a limit on heap blocks. Who takes requests from strangers bounds them by bytes in
//! flight, at its own door.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::cell::{Cell, RefCell};
use std::ptr::NonNull;
use std::rc::Rc;

use super::remote::{self, Loan};
use super::{BUFFER_ALIGNMENT, Buffer};
use crate::SECTOR_SIZE;

/// How many blocks of which sizes an arena holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolLayout {
    /// (bytes a block, number of blocks), sizes ascending, each a multiple of 4096.
    pub classes: [(usize, usize); 5],
}

impl PoolLayout {
    /// 64 MiB: 16 MiB of 4 KiB, 8 of 16 KiB, 16 of 64 KiB, 8 of 256 KiB, 16 of 1 MiB blocks. The
    /// pages are taken from the system when first used.
    pub const STANDARD: Self = Self {
        classes: [(4096, 4096), (16 << 10, 512), (64 << 10, 256), (256 << 10, 32), (1 << 20, 16)],
    };

    /// No arena: every block from the heap.
    pub const HEAP: Self = Self { classes: [(4096, 0); 5] };

    fn total(&self) -> usize {
        self.classes.iter().map(|(size, count)| size * count).sum()
    }
}

/// A core's source of buffers. Cheap to clone; clones are the same pool.
#[derive(Clone)]
pub struct BufferPool(Rc<Pool>);

struct Pool {
    arena: Option<Memory>,
    classes: Vec<Class>,
    blocks: Box<[Block]>,
    heap_blocks: Cell<usize>,
}

struct Class {
    size: usize,
    free: RefCell<Vec<u32>>,
}

/// Where a block goes when its last view is dropped.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Home {
    Arena {
        class: u8,
        index: u32,
    },
    Heap,
    /// The heap, and no pool counts it.
    Nowhere,
}

/// One run of memory and its count of views.
pub(super) struct Block {
    pub(super) references: Cell<u32>,
    pub(super) base: NonNull<u8>,
    home: Home,
    /// Set while there are views: keeps the pool, and with it this block, alive.
    pool: Cell<Option<Rc<Pool>>>,
    /// The block's own memory when it is a heap block.
    memory: Option<Memory>,
    /// Set while there are views on a core that is not its home: where it waits to be sent there.
    pub(super) loan: Cell<Option<Loan>>,
    /// The core of its pool, since it was first sent away.
    pub(super) home_core: Cell<u64>,
}

impl Block {
    pub(super) fn in_arena(&self) -> bool {
        matches!(self.home, Home::Arena { .. })
    }

    pub(super) fn has_pool(&self) -> bool {
        self.home != Home::Nowhere
    }
}

/// An aligned, zero-initialised run of bytes.
struct Memory {
    base: NonNull<u8>,
    length: usize,
    /// What it lies in.
    allocation: NonNull<u8>,
    layout: Layout,
}

impl Memory {
    fn new(length: usize) -> Self {
        // More than is used, and aligned here: of memory whose alignment is asked for the standard
        // library writes every zero, and so touches every page; other memory comes zeroed from the
        // system, where it is much.
        let layout = Layout::from_size_align(length + BUFFER_ALIGNMENT, align_of::<u64>())
            .expect("buffer sizes are far below isize::MAX");
        assert!(length > 0, "an allocation needs a size");
        // SAFETY: the layout's size is not zero.
        let allocation = unsafe { alloc_zeroed(layout) };
        let allocation = NonNull::new(allocation).unwrap_or_else(|| handle_alloc_error(layout));
        let gap = allocation.as_ptr().align_offset(BUFFER_ALIGNMENT);
        assert!(gap < BUFFER_ALIGNMENT, "an address of bytes can be aligned");
        // SAFETY: the allocation is longer than `length` by more than the gap.
        let base = unsafe { allocation.add(gap) };
        Self { base, length, allocation, layout }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this very layout, and freed only here.
        unsafe { dealloc(self.allocation.as_ptr(), self.layout) }
    }
}

impl BufferPool {
    /// A pool with an arena of `layout`.
    pub fn new(layout: PoolLayout) -> Self {
        let arena = (layout.total() > 0).then(|| Memory::new(layout.total()));
        let mut blocks = Vec::new();
        let mut classes = Vec::new();
        let mut offset = 0;
        for (class, (size, count)) in layout.classes.into_iter().enumerate() {
            assert!(size.is_multiple_of(BUFFER_ALIGNMENT), "class size {size}");
            let first = blocks.len() as u32;
            for _ in 0..count {
                let arena = arena.as_ref().expect("there are blocks, so there is an arena");
                // SAFETY: the sum of all class sizes before this block is within the arena.
                let base = unsafe { arena.base.add(offset) };
                let home = Home::Arena { class: class as u8, index: blocks.len() as u32 };
                blocks.push(Block::new(base, home, None));
                offset += size;
            }
            // Last in, first out, lowest address first: touched pages are reused before new ones.
            let free = (first..blocks.len() as u32).rev().collect();
            classes.push(Class { size, free: RefCell::new(free) });
        }
        Self(Rc::new(Pool {
            arena,
            classes,
            blocks: blocks.into_boxed_slice(),
            heap_blocks: Cell::new(0),
        }))
    }

    /// A pool without an arena.
    pub fn heap() -> Self {
        Self::new(PoolLayout::HEAP)
    }

    /// A buffer of `length` bytes, its start aligned to [`BUFFER_ALIGNMENT`]. Its content is
    /// initialised but unspecified.
    ///
    /// # Panics
    /// When `length` is 4 GiB or more.
    pub fn allocate(&self, length: usize) -> Buffer {
        let length_u32 = u32::try_from(length).expect("a buffer is under 4 GiB");
        let block = self.take_from_arena(length).unwrap_or_else(|| self.take_from_heap(length));
        // SAFETY: just taken, so it is alive; nobody else has a reference to it yet.
        let header = unsafe { block.as_ref() };
        header.references.set(1);
        header.pool.set(Some(Rc::clone(&self.0)));
        if cfg!(debug_assertions) && header.in_arena() {
            mark(header.base, length);
        }
        Buffer { block, offset: 0, length: length_u32 }
    }

    /// Base and length in bytes of the arena, for registering it with a ring; absent without one.
    /// It stays where it is until the pool and all its buffers are gone.
    pub fn arena(&self) -> Option<(*mut u8, usize)> {
        self.0.arena.as_ref().map(|memory| (memory.base.as_ptr(), memory.length))
    }

    /// Blocks from the heap that are in use now: a pool laid out well has none in steady state.
    pub fn heap_blocks(&self) -> usize {
        self.0.heap_blocks.get()
    }

    fn take_from_arena(&self, length: usize) -> Option<NonNull<Block>> {
        let fitting = self.0.classes.iter().find(|class| class.size >= length)?;
        let index = fitting.free.borrow_mut().pop()?;
        Some(NonNull::from(&self.0.blocks[index as usize]))
    }

    fn take_from_heap(&self, length: usize) -> NonNull<Block> {
        self.0.heap_blocks.set(self.0.heap_blocks.get() + 1);
        let memory = Memory::new(length.max(1).next_multiple_of(BUFFER_ALIGNMENT));
        let block = Box::new(Block::new(memory.base, Home::Heap, Some(memory)));
        NonNull::from(Box::leak(block))
    }
}

impl std::fmt::Debug for BufferPool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BufferPool").field("heap_blocks", &self.heap_blocks()).finish()
    }
}

impl Block {
    fn new(base: NonNull<u8>, home: Home, memory: Option<Memory>) -> Self {
        Self {
            references: Cell::new(0),
            base,
            home,
            pool: Cell::new(None),
            memory,
            loan: Cell::new(None),
            home_core: Cell::new(remote::EVERYWHERE),
        }
    }
}

/// A block with one view that belongs to no pool.
pub(super) fn homeless(length: usize) -> NonNull<Block> {
    let memory = Memory::new(length.max(1).next_multiple_of(BUFFER_ALIGNMENT));
    let block = Box::new(Block::new(memory.base, Home::Nowhere, Some(memory)));
    block.references.set(1);
    NonNull::from(Box::leak(block))
}

/// Marks each sector of a block that was used before: what an earlier request left there may look
/// right, and is not what the same requests leave in another run.
fn mark(base: NonNull<u8>, length: usize) {
    for start in (0..length).step_by(SECTOR_SIZE as usize) {
        let count = (length - start).min(8);
        // SAFETY: within the block, of which there is no view yet.
        unsafe { base.add(start).write_bytes(0xA5, count) }
    }
}

/// Gives a block without views back to its home, or sees to it that somebody does.
pub(super) fn release(block: NonNull<Block>) {
    // SAFETY: the caller held the last view, so the block is alive and nobody else refers to it.
    let header = unsafe { block.as_ref() };
    if let Some(loan) = header.loan.take() {
        return remote::release_loan(block, &loan);
    }
    let pool = header.pool.take();
    match (header.home, &pool) {
        (Home::Arena { class, index }, Some(pool)) => {
            pool.classes[class as usize].free.borrow_mut().push(index);
        }
        (Home::Heap | Home::Nowhere, _) => {
            if let Some(pool) = &pool {
                pool.heap_blocks.set(pool.heap_blocks.get() - 1);
            }
            // SAFETY: made by `Box::leak` in `take_from_heap` or `homeless`, without views now.
            let owned = unsafe { Box::from_raw(block.as_ptr()) };
            debug_assert!(owned.memory.is_some(), "a heap block owns its memory");
        }
        (Home::Arena { .. }, None) => unreachable!("a block with a view has its pool"),
    }
    // `pool` goes last: it may be what keeps an arena block's header alive.
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMALL: PoolLayout =
        PoolLayout { classes: [(4096, 2), (8192, 1), (16384, 0), (32768, 0), (65536, 0)] };

    #[test]
    fn blocks_are_reused_and_the_heap_helps_out() {
        let pool = BufferPool::new(SMALL);
        let first = pool.allocate(100);
        let address = first.as_ptr();
        let second = pool.allocate(4096);
        assert!(first.in_arena() && second.in_arena());
        let third = pool.allocate(1);
        assert!(!third.in_arena(), "no block of the best size is left");
        assert_eq!(pool.heap_blocks(), 1);
        drop(third);
        assert_eq!(pool.heap_blocks(), 0);
        drop(first);
        assert_eq!(pool.allocate(1).as_ptr(), address, "the same block again");
        assert!(!pool.allocate(1 << 20).in_arena());
    }

    #[test]
    fn every_block_is_aligned_and_apart() {
        let pool = BufferPool::new(SMALL);
        let buffers = [pool.allocate(4096), pool.allocate(4096), pool.allocate(8192)];
        let mut starts: Vec<_> = buffers.iter().map(|buffer| buffer.as_ptr() as usize).collect();
        assert!(starts.iter().all(|start| start % BUFFER_ALIGNMENT == 0));
        starts.sort_unstable();
        assert!(starts.windows(2).all(|pair| pair[1] - pair[0] >= 4096));
        for (value, buffer) in buffers.iter().enumerate() {
            buffer.fill(value as u8);
        }
        for (value, buffer) in buffers.iter().enumerate() {
            assert!(buffer.to_vec().iter().all(|byte| *byte == value as u8));
        }
    }

    #[test]
    fn buffers_outlive_the_pool() {
        let pool = BufferPool::new(SMALL);
        let buffers = [pool.allocate(10), pool.allocate(1 << 20)];
        drop(pool);
        for buffer in &buffers {
            buffer.fill(1);
        }
    }
}
