//! Large tables in huge pages, where the kernel gives them on advice: a table that is read at
//! random misses in the TLB at nearly every access otherwise.
//!
//! Absent: reserved huge pages (hugetlbfs), which somebody would have to set aside.

use std::mem::MaybeUninit;

/// Bytes of a huge page on the machines we know; a smaller table gains nothing.
const HUGE_PAGE: usize = 2 << 20;

/// The alignment that advice takes.
const PAGE: usize = 4096;

/// An empty vector with room for `capacity` elements, in huge pages if it is large and the kernel
/// agrees; else it is a vector like any other.
pub fn vec_with_capacity<T>(capacity: usize) -> Vec<T> {
    let mut vec = Vec::with_capacity(capacity);
    advise(vec.spare_capacity_mut());
    vec
}

fn advise<T>(memory: &mut [MaybeUninit<T>]) {
    if size_of_val(memory) < HUGE_PAGE {
        return;
    }
    let range = memory.as_mut_ptr_range();
    let first = range.start.map_addr(|address| address.next_multiple_of(PAGE));
    let length = (range.end.addr() - first.addr()) / PAGE * PAGE;
    // SAFETY: the pages lie within memory that is borrowed here, and this advice changes how they
    // are mapped but not what they hold.
    let advice =
        unsafe { rustix::mm::madvise(first.cast(), length, rustix::mm::Advice::LinuxHugepage) };
    // A kernel without huge pages says so, and nothing is lost.
    let _ = advice;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_large_and_small_hold_what_is_put_in() {
        for capacity in [0, 3, HUGE_PAGE, 3 * HUGE_PAGE + 5] {
            let mut vec = vec_with_capacity::<u8>(capacity);
            vec.resize(capacity, 7);
            assert_eq!(vec.iter().filter(|byte| **byte == 7).count(), capacity);
        }
    }
}
