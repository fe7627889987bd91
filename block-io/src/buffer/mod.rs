//! Payload memory: aligned, reference-counted within one core, cut into slices without copying.
//!
//! A [`Buffer`] is a view of a run of bytes in a block of memory that a [`BufferPool`] owns.
//! Cloning and slicing are a counter's increment, so that one write's bytes can be on their way to
//! the origin and to the cache device at the same time, and a read's parts can be filled by both.
//!
//! Why no `&[u8]`: views may overlap, and the kernel reads or writes them while an operation is in
//! flight. So the bytes are only ever touched by copying ([`Buffer::copy_from_slice`] and its kin)
//! or as cells ([`Buffer::as_cells`]), which is sound on one thread whatever overlaps. That reads
//! and writes of a view make sense together is the engine's business, not the type's.
//!
//! A buffer that nobody else views can be sent to another core and back ([`RemoteBuffer`]).

mod checksum;
#[cfg(target_arch = "x86_64")]
mod crc32c_avx512;
mod pool;
mod remote;

pub use checksum::{CHECKSUM_BLOCK, Crc32c};
pub use pool::{BufferPool, PoolLayout};
pub use remote::{RemoteBuffer, Returns};

use std::cell::Cell;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use pool::Block;

/// Alignment of every block that a pool hands out: what O_DIRECT asks for at the most.
pub const BUFFER_ALIGNMENT: usize = 4096;

/// A counted view of bytes in a pool's block. Not `Send`.
pub struct Buffer {
    block: NonNull<Block>,
    offset: u32,
    length: u32,
}

impl Buffer {
    /// Number of bytes in view.
    pub fn len(&self) -> usize {
        self.length as usize
    }

    /// Whether no byte is in view.
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Another view, of `length` bytes from `offset` within this one. No bytes are copied.
    ///
    /// # Panics
    /// When the range is not within this view.
    #[track_caller]
    pub fn slice(&self, offset: usize, length: usize) -> Self {
        assert!(
            offset <= self.len() && length <= self.len() - offset,
            "slice {offset}+{length} of a buffer of {}",
            self.len()
        );
        let mut view = self.clone();
        // Both fit: they are within a view whose ends are u32.
        view.offset += offset as u32;
        view.length = length as u32;
        view
    }

    /// Whether this is the only view of its block, so that nobody else can be reading it.
    pub fn is_unique(&self) -> bool {
        self.block().references.get() == 1
    }

    /// The bytes as cells: safe to read and write whatever else views them.
    pub fn as_cells(&self) -> &[Cell<u8>] {
        // SAFETY: offset and length are within the block's initialised memory, which lives as long
        // as this view counts on it; all access from Rust is through cells or raw copies on this
        // one thread, and no `&[u8]` or `&mut [u8]` to it is ever handed out.
        unsafe { std::slice::from_raw_parts(self.as_ptr().cast::<Cell<u8>>(), self.len()) }
    }

    /// First byte, for the kernel's use. Valid for `len()` bytes while a view of the block lives.
    /// Whoever lets the kernel write there holds a view until that has ended: a block's only view
    /// is one that nobody writes to ([`Self::is_unique`]), and checksums rely on it.
    pub fn as_ptr(&self) -> *mut u8 {
        // SAFETY: the offset is within the block's allocation.
        unsafe { self.block().base.as_ptr().add(self.offset as usize) }
    }

    /// Copies all of `source` in.
    ///
    /// # Panics
    /// When the lengths differ.
    #[track_caller]
    pub fn copy_from_slice(&self, source: &[u8]) {
        assert_eq!(source.len(), self.len(), "lengths of source and buffer");
        // SAFETY: both are valid for `len` bytes; they cannot overlap, because no slice of pool
        // memory exists.
        unsafe { std::ptr::copy_nonoverlapping(source.as_ptr(), self.as_ptr(), source.len()) }
    }

    /// Copies all of it out.
    ///
    /// # Panics
    /// When the lengths differ.
    #[track_caller]
    pub fn copy_to_slice(&self, target: &mut [u8]) {
        assert_eq!(target.len(), self.len(), "lengths of buffer and target");
        // SAFETY: as in `copy_from_slice`.
        unsafe { std::ptr::copy_nonoverlapping(self.as_ptr(), target.as_mut_ptr(), target.len()) }
    }

    /// Copies words in that other cores may be changing, each as it is then.
    ///
    /// # Panics
    /// When the lengths differ.
    #[track_caller]
    pub fn copy_from_words(&self, source: &[AtomicU64]) {
        assert_eq!(source.len() * size_of::<u64>(), self.len(), "lengths of words and buffer");
        let mut target = self.as_ptr().cast::<u64>();
        for word in source {
            // SAFETY: the buffer is as long as all words together, and valid as in `as_cells`.
            unsafe {
                target.write_unaligned(word.load(Ordering::Relaxed));
                target = target.add(1);
            }
        }
    }

    /// Copies all of it out into words that other cores may be reading.
    ///
    /// # Panics
    /// When the lengths differ.
    #[track_caller]
    pub fn copy_to_words(&self, target: &[AtomicU64]) {
        assert_eq!(target.len() * size_of::<u64>(), self.len(), "lengths of buffer and words");
        let mut source = self.as_ptr().cast::<u64>();
        for word in target {
            // SAFETY: as in `copy_from_words`.
            unsafe {
                word.store(source.read_unaligned(), Ordering::Relaxed);
                source = source.add(1);
            }
        }
    }

    /// Copies the bytes of another view in, overlapping or not.
    ///
    /// # Panics
    /// When the lengths differ.
    #[track_caller]
    pub fn copy_from(&self, source: &Self) {
        assert_eq!(source.len(), self.len(), "lengths of source and buffer");
        // SAFETY: both are valid for `len` bytes, and `copy` allows overlap.
        unsafe { std::ptr::copy(source.as_ptr(), self.as_ptr(), source.len()) }
    }

    /// Sets every byte to `value`.
    pub fn fill(&self, value: u8) {
        // SAFETY: valid for `len` bytes, see `as_cells`.
        unsafe { std::ptr::write_bytes(self.as_ptr(), value, self.len()) }
    }

    /// A copy of the bytes, for tests and for what is not on the data path.
    pub fn to_vec(&self) -> Vec<u8> {
        let mut bytes = vec![0; self.len()];
        self.copy_to_slice(&mut bytes);
        bytes
    }

    /// Hands the bytes to a pure function of them, such as a checksum.
    ///
    /// # Safety
    /// `function` must not write to any view of the same block, and no kernel operation that
    /// writes to these bytes may be in flight.
    pub unsafe fn with_bytes<Value>(&self, function: impl FnOnce(&[u8]) -> Value) -> Value {
        // SAFETY: initialised and alive as in `as_cells`; not written meanwhile by the contract.
        function(unsafe { std::slice::from_raw_parts(self.as_ptr(), self.len()) })
    }

    /// Whether the memory lies in the pool's arena, which a reactor may have registered.
    pub fn in_arena(&self) -> bool {
        self.block().in_arena()
    }

    fn block(&self) -> &Block {
        // SAFETY: a block lives as long as anything counts on it, and it is only ever shared.
        unsafe { self.block.as_ref() }
    }
}

impl Clone for Buffer {
    fn clone(&self) -> Self {
        let references = &self.block().references;
        // u32 cannot overflow: 2^32 views of 16 bytes would take 64 GiB first, and a check costs
        // less than being wrong.
        assert!(references.get() < u32::MAX, "too many views of one buffer");
        references.set(references.get() + 1);
        Self { ..*self }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let references = self.block().references.get() - 1;
        self.block().references.set(references);
        if references == 0 {
            pool::release(self.block);
        }
    }
}

impl std::fmt::Debug for Buffer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Buffer({} bytes)", self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_share_bytes_and_keep_them_alive() {
        let pool = BufferPool::heap();
        let whole = pool.allocate(4096);
        whole.fill(0);
        let part = whole.slice(512, 512).slice(256, 256);
        part.fill(9);
        assert!(!whole.is_unique());
        let bytes = whole.to_vec();
        assert!(bytes[768..1024].iter().all(|byte| *byte == 9));
        assert_eq!(bytes.iter().filter(|byte| **byte == 9).count(), 256);
        drop(whole);
        drop(pool);
        assert!(part.is_unique());
        assert_eq!(part.to_vec(), [9; 256]);
    }

    #[test]
    #[should_panic(expected = "slice 4000+100 of a buffer of 4096")]
    fn a_slice_outside_panics() {
        let _ = BufferPool::heap().allocate(4096).slice(4000, 100);
    }

    #[test]
    fn overlapping_copies_move() {
        let whole = BufferPool::heap().allocate(8);
        whole.copy_from_slice(&[1, 2, 3, 4, 5, 6, 7, 8]);
        whole.slice(2, 6).copy_from(&whole.slice(0, 6));
        assert_eq!(whole.to_vec(), [1, 2, 1, 2, 3, 4, 5, 6]);
    }
}
