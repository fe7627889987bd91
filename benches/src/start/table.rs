//! A cache device as a long run leaves it, written straight to a file: superblock, and a line table
//! with a line in nearly every slot. The formats are those of `docs/on-device-format.md`, written
//! down here a second time; what the cache makes of them shows whether that is right.
//!
//! Absent: journal and activity pages (an orderly stop leaves none that count), and data: holes.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use block_io::Crc32c;
use cache_engine::cache::metadata::{
    FormatId, Generation, IdentityKind, Layout, OriginIdentity, Superblock, VolumeRecord,
};
use cache_engine::cache::{LineSize, VolumeId};

const PAGE: usize = 4096;
const WAYS: usize = 16;
const FORMAT_ID: FormatId = FormatId([5; 16]);
const OCCUPIED: u32 = 1 << 31;
const ORDER_SHIFT: u32 = 22;
/// All four blocks of a line of 16 KiB.
const VALID: u16 = 0b1111;
const BLOCKS: usize = 4;

/// Makes the file; says how many lines it records.
///
/// # Errors
/// When it can't be written.
pub(super) fn write(path: &Path, capacity: u64, volume: u64) -> io::Result<u64> {
    let layout = Layout::for_device(capacity, LineSize::default()).map_err(io::Error::other)?;
    let file = File::create_new(path)?;
    file.set_len(capacity)?;
    let superblock = superblock(layout, volume).map_err(io::Error::other)?;
    file.write_all_at(&superblock.encode(), superblock.offset())?;
    let entries = entries(&layout, volume / layout.line_size.bytes());
    let lines = entries.iter().filter(|entry| **entry != 0).count() as u64;
    write_table(&file, &layout, &entries)?;
    file.sync_all()?;
    Ok(lines)
}

fn superblock(layout: Layout, volume: u64) -> Result<Superblock, block_io::DeviceError> {
    let mut superblock = Superblock::new(FORMAT_ID, layout);
    let identity = OriginIdentity::new(IdentityKind::Assigned, "origin");
    superblock.put_volume(VolumeRecord {
        id: VolumeId(0),
        name: "volume".into(),
        identity: identity?,
        size: volume,
        base: 0,
        span: volume,
        generation: Generation::default(),
        attach_epoch: 0,
        key_check: [0; 16],
        flags: 0,
    })?;
    Ok(superblock)
}

/// Every line of the volume in the next free way of its set, by slot; those of full sets are none.
fn entries(layout: &Layout, lines: u64) -> Vec<u32> {
    let sets = u64::from(layout.sets);
    let bits = (layout.flat_length() / layout.line_size.bytes()).trailing_zeros();
    let mask = (1u64 << bits) - 1;
    let mut entries = vec![0; layout.sets as usize * WAYS];
    let mut used = vec![0u8; layout.sets as usize];
    for line in 0..lines {
        let mut x = line;
        for multiplier in [0xBF58_476D_1CE4_E5B9_u64, 0x94D0_49BB_1331_11EB] {
            x ^= x >> (bits / 2);
            x = x.wrapping_mul(multiplier) & mask;
        }
        x ^= x >> (bits / 2);
        let product = u128::from(x) * u128::from(sets);
        let set = (product >> bits) as usize;
        let tag = ((product as u64 & mask) / sets) as u32;
        let way = used[set];
        if usize::from(way) < WAYS {
            let order = u32::from(way) << ORDER_SHIFT;
            entries[set * WAYS + usize::from(way)] = OCCUPIED | order | tag;
            used[set] += 1;
        }
    }
    entries
}

fn write_table(file: &File, layout: &Layout, entries: &[u32]) -> io::Result<()> {
    use std::io::Seek;
    let mut file = BufWriter::with_capacity(1 << 20, file);
    file.seek(io::SeekFrom::Start(layout.table_offset))?;
    let zeroes = Crc32c::new().update(&[0; 4096]).value();
    let slots = layout.sets_per_page as usize * WAYS;
    for (number, slots) in entries.chunks(slots).enumerate() {
        let mut page = [0; PAGE];
        page[..16].copy_from_slice(&FORMAT_ID.0);
        page[16..20].copy_from_slice(&(number as u32).to_le_bytes());
        for (slot, entry) in slots.iter().enumerate().filter(|(_, entry)| **entry != 0) {
            let at = 32 + slot * (8 + 4 * BLOCKS);
            page[at..at + 4].copy_from_slice(&entry.to_le_bytes());
            page[at + 4..at + 6].copy_from_slice(&VALID.to_le_bytes());
            for block in 0..BLOCKS {
                page[at + 8 + 4 * block..][..4].copy_from_slice(&zeroes.to_le_bytes());
            }
        }
        let checksum = Crc32c::new().update(&page[..20]).update(&page[24..]).value();
        page[20..24].copy_from_slice(&checksum.to_le_bytes());
        file.write_all(&page)?;
    }
    file.flush()
}
