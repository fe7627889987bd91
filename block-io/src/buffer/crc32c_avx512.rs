//! CRC32C of a block of 4 KiB on processors with carry-less multiplication of 512 bits: two thirds
//! of the time of the library that serves all others.
//!
//! ```text
//!   0        320       640       960                                             4096
//!   ├─ crc32 ─┼─ crc32 ─┼─ crc32 ─┼──── 49 × 64 bytes, folded by multiplication ───┤
//!        └─────────┴─────────┴── each times x to the bits behind it ──▶ sum ◀──────┘
//! ```
//! Both kinds of instruction have units of their own, so they run side by side: a multiplication
//! of 512 bits takes two cycles of one, a `crc32` of 8 bytes one of another, and the block is
//! divided so that both end together. Sources: Gopal et al., "Fast CRC Computation for iSCSI
//! Polynomial Using CRC32 Instruction" (2011), and "Fast CRC Computation for Generic Polynomials
//! Using PCLMULQDQ Instruction" (2009), both Intel.
//!
//! Absent: other lengths, other processors.

use std::arch::x86_64::*;

/// Bytes of a block.
pub(super) const BLOCK: usize = 4096;

/// Bytes of a vector.
pub(super) const VECTOR: usize = 64;

/// Vectors that are folded, accumulators that take turns, and words that each scalar
/// stream does meanwhile.
const VECTORS: usize = 49;
const ACCUMULATORS: usize = 4;
const WORDS_A_ROUND: usize = 3;
/// Bytes of a scalar stream.
const STREAM: usize = (BLOCK - VECTOR * VECTORS) / 3;

const _: () = assert!(STREAM.is_multiple_of(8));
const _: () = assert!((VECTORS / ACCUMULATORS - 1) * WORDS_A_ROUND * 8 <= STREAM);

/// The polynomial, x³² included.
const POLYNOMIAL: u64 = 0x1_1EDC_6F41;

/// x to the power of `bits` modulo the polynomial, reflected, and shifted as a product of two
/// reflected numbers wants it.
const fn power(bits: usize) -> i64 {
    let (mut remainder, mut bit): (u64, usize) = (1, 0);
    while bit < bits {
        remainder <<= 1;
        if remainder >> 32 != 0 {
            remainder ^= POLYNOMIAL;
        }
        bit += 1;
    }
    ((remainder as u32).reverse_bits() as i64) << 1
}

/// What both halves of 128 bits are multiplied with to stand so many bits further on.
const fn further(bits: usize) -> (i64, i64) {
    (power(bits + 32), power(bits - 32))
}

/// Whether the processor has what [`update`] needs. Cheap: asked once, remembered by the library.
#[inline]
pub(super) fn is_available() -> bool {
    is_x86_feature_detected!("avx512f")
        && is_x86_feature_detected!("vpclmulqdq")
        && is_x86_feature_detected!("pclmulqdq")
        && is_x86_feature_detected!("sse4.2")
}

/// The register after the block at `block`, whose register before was `register`; both as the
/// `crc32` instruction has it, not complemented.
///
/// With `SHARED` others may write to the block meanwhile, which then counts as it was when each of
/// its bytes was read, once.
///
/// # Safety
/// The processor has what [`is_available`] asks for. The block's bytes are initialised, and stay
/// alive; with `SHARED` the block is aligned to [`VECTOR`], else nobody writes to it.
#[target_feature(enable = "avx512f,vpclmulqdq,pclmulqdq,sse4.2")]
pub(super) unsafe fn update<const SHARED: bool>(register: u32, block: *const u8) -> u32 {
    const ROUND: (i64, i64) = further(512 * ACCUMULATORS);
    const NEXT: (i64, i64) = further(512);
    let load = |at: usize| {
        debug_assert!(at < VECTORS);
        // SAFETY: within the block. A volatile read may meet the writes of a kernel operation, for
        // those are none of this program's; others the caller has excluded.
        unsafe {
            let vector = block.add(3 * STREAM + VECTOR * at).cast::<__m512i>();
            if SHARED { vector.read_volatile() } else { _mm512_loadu_si512(vector) }
        }
    };
    let mut streams = [0; 3];
    let mut word = 0;
    let mut next_word = |streams: &mut [u64; 3]| {
        for (number, stream) in streams.iter_mut().enumerate() {
            // SAFETY: as above.
            let bytes = unsafe {
                let place = block.add(number * STREAM + 8 * word).cast::<u64>();
                if SHARED { place.read_volatile() } else { place.read_unaligned() }
            };
            *stream = _mm_crc32_u64(*stream, bytes);
        }
        word += 1;
        word < STREAM / 8
    };
    let mut sums: [__m512i; ACCUMULATORS] = std::array::from_fn(load);
    let mut at = ACCUMULATORS;
    while at + ACCUMULATORS <= VECTORS {
        for (index, sum) in sums.iter_mut().enumerate() {
            *sum = fold(*sum, everywhere(ROUND), load(at + index));
        }
        for _ in 0..WORDS_A_ROUND {
            next_word(&mut streams);
        }
        at += ACCUMULATORS;
    }
    while next_word(&mut streams) {}
    let mut sum = sums[0];
    for other in &sums[1..] {
        sum = fold(sum, everywhere(NEXT), *other);
    }
    while at < VECTORS {
        sum = fold(sum, everywhere(NEXT), load(at));
        at += 1;
    }
    reduce(sum, register, streams)
}

/// `data`, and `sum` as many bits before it as `power` is made for.
#[inline]
#[target_feature(enable = "avx512f,vpclmulqdq")]
fn fold(sum: __m512i, power: __m512i, data: __m512i) -> __m512i {
    let low = _mm512_clmulepi64_epi128::<0x00>(sum, power);
    let high = _mm512_clmulepi64_epi128::<0x11>(sum, power);
    // The exclusive or of all three.
    _mm512_ternarylogic_epi64::<0x96>(low, high, data)
}

#[inline]
#[target_feature(enable = "avx512f")]
fn everywhere((low, high): (i64, i64)) -> __m512i {
    _mm512_set_epi64(high, low, high, low, high, low, high, low)
}

/// The register of the folded vectors, of the streams before them and of what was before the block
/// together. That comes in only here, so that blocks in a row wait little for each other.
#[inline]
#[target_feature(enable = "avx512f,vpclmulqdq,pclmulqdq,sse4.2")]
fn reduce(sum: __m512i, before: u32, streams: [u64; 3]) -> u32 {
    const FIRST: (i64, i64) = further(384);
    const SECOND: (i64, i64) = further(256);
    const THIRD: (i64, i64) = further(128);
    /// Of the registers of the streams; the `crc32` at the end counts for 32 of the bits.
    const BEHIND: [i64; 4] = [
        power(8 * BLOCK - 32),
        power(8 * (2 * STREAM + VECTOR * VECTORS) - 32),
        power(8 * (STREAM + VECTOR * VECTORS) - 32),
        power(8 * VECTOR * VECTORS - 32),
    ];
    // Each quarter to where the last one stands, which stays as it is.
    let powers = _mm512_set_epi64(0, 0, THIRD.1, THIRD.0, SECOND.1, SECOND.0, FIRST.1, FIRST.0);
    let moved = fold(sum, powers, _mm512_setzero_si512());
    let moved =
        _mm256_xor_si256(_mm512_castsi512_si256(moved), _mm512_extracti64x4_epi64::<1>(moved));
    let last = _mm512_extracti32x4_epi32::<3>(sum);
    let halves = _mm_xor_si128(_mm256_castsi256_si128(moved), _mm256_extracti128_si256::<1>(moved));
    let vectors = _mm_xor_si128(halves, last);
    let mut scalars = 0;
    let registers = [u64::from(before), streams[0], streams[1], streams[2]];
    for (stream, power) in registers.into_iter().zip(BEHIND) {
        let (stream, power) = (_mm_cvtsi64_si128(stream as i64), _mm_cvtsi64_si128(power));
        scalars ^= _mm_cvtsi128_si64(_mm_clmulepi64_si128::<0x00>(stream, power));
    }
    let register = _mm_crc32_u64(0, _mm_extract_epi64::<0>(vectors) as u64);
    _mm_crc32_u64(register, (_mm_extract_epi64::<1>(vectors) ^ scalars) as u64) as u32
}
