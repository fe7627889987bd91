//! How much memory this program has from the system's allocator: the suite `ram` believes nobody's
//! word.
//!
//! Absent: memory that is mapped otherwise, which the engine does nowhere.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

/// The system's allocator, counted.
pub(crate) struct Counting;

/// Bytes allocated and not freed.
pub(crate) fn now() -> u64 {
    NOW.load(Relaxed) as u64
}

/// The most that was allocated at once since [`forget_peak`].
pub(crate) fn peak() -> u64 {
    PEAK.load(Relaxed) as u64
}

/// From now on the peak is counted anew.
pub(crate) fn forget_peak() {
    PEAK.store(NOW.load(Relaxed), Relaxed);
}

fn grown(bytes: usize) {
    let now = NOW.fetch_add(bytes, Relaxed) + bytes;
    PEAK.fetch_max(now, Relaxed);
}

// SAFETY: everything is handed to the system's allocator as it came, and what it says is returned;
// counting touches two numbers and allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grown(layout.size());
        // SAFETY: the caller's promise is the one that is asked for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        grown(layout.size());
        // SAFETY: the caller's promise is the one that is asked for.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        NOW.fetch_sub(layout.size(), Relaxed);
        grown(size);
        // SAFETY: the caller's promise is the one that is asked for.
        unsafe { System.realloc(memory, layout, size) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller's promise is the one that is asked for.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_large_vector_is_counted_while_it_lives() {
        const SIZE: usize = 64 << 20;
        forget_peak();
        let before = now();
        let vector = vec![1u8; SIZE];
        // Other tests allocate too, but nothing so large.
        assert!(now() - before > SIZE as u64 / 2);
        drop(vector);
        assert!(now().saturating_sub(before) < SIZE as u64 / 2);
        assert!(peak() - before > SIZE as u64 / 2);
    }
}
