//! What processors can do and the language has no safe word for: asking for memory before it is
//! needed, and comparing several numbers at once.
//!
//! Both are hints and arithmetic, so that nothing here can go wrong at run time; on processors that
//! this file does not know, the first does nothing and the second is a loop. Absent: anything that
//! has to be detected when the program runs.

/// Asks for the cache line of `value`, without waiting for it.
#[inline(always)]
pub fn prefetch<T>(value: &T) {
    let pointer = std::ptr::from_ref(value).cast::<i8>();
    #[cfg(target_arch = "x86_64")]
    // SAFETY: SSE is part of x86-64, and a prefetch never faults, whatever the address.
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(pointer);
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = pointer;
}

/// A bit for each of sixteen numbers of 32 bits, in pairs whose first is the lower half: whether it
/// is `wanted` where `mask` has ones.
#[inline(always)]
#[cfg(target_arch = "x86_64")]
pub fn equal_lanes(pairs: [u64; 8], wanted: u32, mask: u32) -> u16 {
    use std::arch::x86_64::{
        __m128i, _mm_and_si128, _mm_cmpeq_epi32, _mm_movemask_epi8, _mm_packs_epi16,
        _mm_packs_epi32, _mm_set_epi64x, _mm_set1_epi32,
    };
    // SAFETY: SSE2 is part of x86-64, and none of these touches memory.
    unsafe {
        let (wanted, mask) = (_mm_set1_epi32(wanted as i32), _mm_set1_epi32(mask as i32));
        let equal = |at: usize| -> __m128i {
            let four = _mm_set_epi64x(pairs[at + 1] as i64, pairs[at] as i64);
            _mm_cmpeq_epi32(_mm_and_si128(four, mask), wanted)
        };
        // All ones and all zeroes stay what they are when they are narrowed.
        let low = _mm_packs_epi32(equal(0), equal(2));
        let high = _mm_packs_epi32(equal(4), equal(6));
        _mm_movemask_epi8(_mm_packs_epi16(low, high)) as u16
    }
}

/// A bit for each of sixteen numbers of 32 bits, in pairs whose first is the lower half: whether it
/// is `wanted` where `mask` has ones.
#[inline(always)]
#[cfg(not(target_arch = "x86_64"))]
pub fn equal_lanes(pairs: [u64; 8], wanted: u32, mask: u32) -> u16 {
    one_by_one(pairs, wanted, mask)
}

#[cfg(any(test, not(target_arch = "x86_64")))]
fn one_by_one(pairs: [u64; 8], wanted: u32, mask: u32) -> u16 {
    let mut equal = 0;
    for (at, pair) in pairs.into_iter().enumerate() {
        equal |= u16::from(pair as u32 & mask == wanted) << (2 * at);
        equal |= u16::from((pair >> 32) as u32 & mask == wanted) << (2 * at + 1);
    }
    equal
}

/// A bit for each of 64 numbers: whether it is one of `wanted`.
#[inline(always)]
#[cfg(target_arch = "x86_64")]
pub fn either_of(numbers: &[u16; 64], wanted: [u16; 2]) -> u64 {
    use std::arch::x86_64::{
        __m128i, _mm_cmpeq_epi16, _mm_loadu_si128, _mm_movemask_epi8, _mm_or_si128,
        _mm_packs_epi16, _mm_set1_epi16,
    };
    let (eights, _) = numbers.as_chunks::<8>();
    // SAFETY: SSE2 is part of x86-64, and the load reads the eight numbers that it is given.
    unsafe {
        let [first, second] = wanted.map(|wanted| _mm_set1_epi16(wanted as i16));
        let is_wanted = |at: usize| -> __m128i {
            let eight = _mm_loadu_si128(eights[at].as_ptr().cast());
            _mm_or_si128(_mm_cmpeq_epi16(eight, first), _mm_cmpeq_epi16(eight, second))
        };
        let sixteen = |at: usize| -> u64 {
            let packed = _mm_packs_epi16(is_wanted(2 * at), is_wanted(2 * at + 1));
            _mm_movemask_epi8(packed) as u64
        };
        sixteen(0) | sixteen(1) << 16 | sixteen(2) << 32 | sixteen(3) << 48
    }
}

/// A bit for each of 64 numbers: whether it is one of `wanted`.
#[inline(always)]
#[cfg(not(target_arch = "x86_64"))]
pub fn either_of(numbers: &[u16; 64], wanted: [u16; 2]) -> u64 {
    each_of(numbers, wanted)
}

#[cfg(any(test, not(target_arch = "x86_64")))]
fn each_of(numbers: &[u16; 64], wanted: [u16; 2]) -> u64 {
    let bit = |(at, number): (usize, &u16)| u64::from(wanted.contains(number)) << at;
    numbers.iter().enumerate().map(bit).fold(0, |all, bit| all | bit)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::Random;

    #[test]
    fn lanes_are_compared_as_one_by_one() {
        let mut random = Random::new(1);
        for _ in 0..10_000 {
            // Few bits, so that many are equal.
            let pairs = std::array::from_fn(|_| random.below(u64::MAX) & 0x8000_0003_8000_0003);
            let mask = [u32::MAX, 1, 0x8000_0002][random.below(3) as usize];
            let wanted = random.below(u64::MAX) as u32 & 0x8000_0003 & mask;
            assert_eq!(equal_lanes(pairs, wanted, mask), one_by_one(pairs, wanted, mask));
        }
        assert_eq!(equal_lanes([u64::MAX; 8], u32::MAX, u32::MAX), u16::MAX);
        assert_eq!(equal_lanes([7 << 32 | 9, 0, 0, 0, 0, 0, 0, 7], 7, 7), 1 << 1 | 1 << 14);
    }

    #[test]
    fn numbers_are_found_as_one_by_one() {
        let mut random = Random::new(2);
        for _ in 0..10_000 {
            let numbers = std::array::from_fn(|_| random.below(8) as u16 * 0x2001);
            let wanted = [random.below(8) as u16 * 0x2001, random.below(9) as u16];
            assert_eq!(either_of(&numbers, wanted), each_of(&numbers, wanted));
        }
    }

    #[test]
    fn a_prefetch_changes_nothing() {
        let value = [7_u64; 8];
        prefetch(&value);
        assert_eq!(value, [7; 8]);
    }
}
