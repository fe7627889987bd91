//! Cases for NBD clients. Each takes the URI of a writable export and its size in bytes, at least
//! [`SIZE_MIN`], and leaves the export's content as it happens to be.

pub mod copy;
pub mod fio;
pub mod info;
pub mod qemu;

use std::path::Path;

/// The smallest export that the cases work with: 8 MiB.
pub const SIZE_MIN: u64 = 8 << 20;

/// All of them, one after another.
pub fn all(uri: &str, size: u64) {
    info::size_flags_and_block_sizes(uri, size);
    info::one_extent_of_data(uri, size);
    copy::in_and_out(uri, size, 1);
    copy::in_and_out(uri, size, 4);
    qemu::convert_and_compare(uri, size);
    qemu::patterns(uri, size);
    fio::verified_mix(uri, size);
}

/// A file of `size` bytes: noise, with holes between, another with every seed.
///
/// # Panics
/// When the file cannot be written.
pub fn write_image(path: &Path, size: u64, seed: u64) {
    use std::os::unix::fs::FileExt;
    const STRETCH: u64 = 256 << 10;
    let file = std::fs::File::create(path).expect("a file");
    file.set_len(size).expect("room for the file");
    let mut state = seed;
    let mut next = || {
        // SplitMix64.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    };
    for offset in (0..size).step_by(STRETCH as usize) {
        if next() % 4 == 0 {
            continue;
        }
        let length = STRETCH.min(size - offset) as usize;
        let mut bytes: Vec<u8> =
            (0..length.div_ceil(8)).flat_map(|_| next().to_le_bytes()).collect();
        bytes.truncate(length);
        file.write_all_at(&bytes, offset).expect("room for the file");
    }
}

/// Fails when the files differ, and says where.
///
/// # Panics
/// When they do.
#[track_caller]
pub fn assert_same(one: &Path, other: &Path) {
    let read = |path: &Path| std::fs::read(path).expect("a file that was written");
    let (one, other) = (read(one), read(other));
    assert_eq!(one.len(), other.len(), "lengths");
    let differs = one.iter().zip(&other).position(|(one, other)| one != other);
    assert_eq!(differs, None, "the first byte that differs");
}
