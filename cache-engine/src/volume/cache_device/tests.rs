//! Formatting: whose device is touched, and what a power cut at any moment leaves.

use super::*;
use crate::cache::metadata::State;
use crate::cache::metadata::volume_record::tests::record as volume_record;
use block_io::device::memory::MemoryDevice;
use block_io::sim::{SimDisk, World};
use block_io::{BlockDevice, Extent, Geometry};

const CAPACITY: u64 = 4 << 20;

fn format_options(id: u8, force_format: bool) -> FormatOptions {
    let format_id = FormatId([id; 16]);
    FormatOptions { line_size: LineSize::default(), force_format, format_id }
}

fn attempt(device: &MemoryDevice, force_format: bool) -> Result<Found, String> {
    let mut queue = BlockDevice::<()>::open_queue(device, &(), 4).expect("opens");
    let options =
        PrepareOptions { line_size: LineSize::default(), force_format, identity: [1; 16] };
    prepare(&mut queue, &BufferPool::heap(), options, || Ok(Timestamp(0)))
        .map(|(_, found)| found)
        .map_err(|error| error.to_string())
}

/// The start of a cache of version 1, with data behind its one superblock.
fn version_1() -> Vec<u8> {
    let mut start = vec![0xa5; 1 << 20];
    start[..65536].fill(0);
    start[..8].copy_from_slice(b"FOREBAY\0");
    start[8] = 1;
    start[12..16].copy_from_slice(&16384_u32.to_le_bytes());
    let checksum = block_io::Crc32c::new().update(&start[..4092]).value();
    start[4092..4096].copy_from_slice(&checksum.to_le_bytes());
    start
}

#[test]
fn unused_is_formatted_ours_opened_and_others_refused() {
    let device = MemoryDevice::new(CAPACITY).expect("size");
    assert_eq!(attempt(&device, false), Ok(Found::Unused));
    assert_eq!(attempt(&device, false), Ok(Found::Ours));
    device.overwrite(1080, &[0x53, 0xEF]);
    device.overwrite(0, &[0; 512]);
    let before = device.content(Extent::new(0, 1 << 20));
    let refusal = attempt(&device, false).expect_err("an ext4 superblock");
    assert!(refusal.contains("--force-format"), "{refusal}");
    assert_eq!(device.content(Extent::new(0, 1 << 20)), before, "refused, and untouched");
    assert_eq!(attempt(&device, true), Ok(Found::Forced));
    assert_eq!(attempt(&device, false), Ok(Found::Ours));
    device.overwrite(0, &version_1());
    assert_eq!(attempt(&device, false), Ok(Found::Ours));
}

#[test]
fn data_anywhere_in_the_first_mebibyte_is_somebodys() {
    for at in [8 << 10, (128 << 10) - 1, 128 << 10, 300_000, (1 << 20) - 1] {
        let device = MemoryDevice::new(CAPACITY).expect("size");
        device.overwrite(at, &[1]);
        let refusal = attempt(&device, false).expect_err("data");
        assert!(refusal.contains("data that is no Forebay cache"), "byte {at}: {refusal}");
        assert_eq!(device.content(Extent::new(0, 4096)), [0; 4096], "byte {at}: untouched");
    }
    let device = MemoryDevice::new(CAPACITY).expect("size");
    device.overwrite(1 << 20, &[1]);
    assert_eq!(attempt(&device, false), Ok(Found::Unused), "nobody looks so far");
}

#[test]
fn a_device_that_is_too_small_is_refused() {
    let device = MemoryDevice::new(64 << 10).expect("size");
    assert!(attempt(&device, false).expect_err("too small").contains("65536"));
}

#[test]
fn a_device_that_shrank_is_not_ours_any_more() {
    let large = MemoryDevice::new(CAPACITY).expect("size");
    assert_eq!(attempt(&large, false), Ok(Found::Unused));
    let small = MemoryDevice::new(CAPACITY / 2).expect("size");
    small.overwrite(0, &large.content(Extent::new(0, CAPACITY / 2)));
    let refusal = attempt(&small, false).expect_err("it is a part");
    assert!(refusal.contains("4194304 bytes, but the device has only 2097152"), "{refusal}");
}

/// A simulated disk that is read and formatted, and loses power at a chosen turn.
struct Rig {
    world: World,
    disk: SimDisk,
}

impl Rig {
    fn new(seed: u64, content: &[u8]) -> Self {
        let world = World::new(seed);
        let geometry = Geometry { volatile_cache: true, ..Geometry::new(CAPACITY) };
        let disk = SimDisk::new(&world, "cache", geometry);
        disk.overwrite(0, content);
        Self { world, disk }
    }

    /// Formats; false when the power went before the end.
    fn format(&self, id: u8, cut_at_turn: u64) -> bool {
        let mut queue = self.disk.open_queue(&self.world, 4).expect("opens");
        let mut turns = 0;
        let turn = || {
            turns += 1;
            if turns > cut_at_turn {
                self.disk.power_cut(&mut self.world.random("cut"));
                return Err(DeviceError::new("the power is gone"));
            }
            self.world.advance();
            Ok(self.world.now())
        };
        format(&mut queue, &BufferPool::heap(), format_options(id, true), turn).is_ok()
    }

    fn open(&self) -> Probe {
        let mut queue = self.disk.open_queue(&self.world, 4).expect("opens");
        let turn = || {
            self.world.advance();
            Ok(self.world.now())
        };
        open(&mut queue, &BufferPool::heap(), turn).expect("the disk works")
    }

    /// Puts a superblock there as a running cache does.
    fn write(&self, superblock: &Superblock) {
        let mut queue = self.disk.open_queue(&self.world, 4).expect("opens");
        let turn = || {
            self.world.advance();
            Ok(self.world.now())
        };
        write_superblock(&mut queue, &BufferPool::heap(), superblock, turn).expect("written");
    }

    fn activity_is_empty(&self) -> bool {
        let layout = Layout::for_device(CAPACITY, LineSize::default()).expect("fits");
        let length = layout.journal_offset - layout.activity_offset;
        let pages = self.disk.content(Extent::new(layout.activity_offset, length));
        pages.iter().all(|byte| *byte == 0)
    }
}

/// Formats what `start` makes with a power cut at every turn, with several seeds, and hands what
/// is found after each cut to `check`.
fn cut_everywhere(start: impl Fn(u64) -> Rig, check: impl Fn(&Rig, Probe)) {
    for seed in 0..40 {
        let finished = (0..64).find(|turn| {
            let rig = start(seed);
            let finished = rig.format(9, *turn);
            check(&rig, rig.open());
            finished
        });
        assert!(finished.is_some_and(|turns| turns >= 4), "seed {seed}: a request each");
    }
}

#[test]
fn a_power_cut_while_formatting_an_unused_device_leaves_nothing_to_believe() {
    for content in [vec![0; 512], vec![0x77; 1 << 20]] {
        let unused = content[0] == 0;
        cut_everywhere(
            |seed| Rig::new(seed, &content),
            |rig, found| match found {
                Probe::Ours(new) => {
                    assert_eq!(new.format_id, FormatId([9; 16]));
                    assert!(rig.activity_is_empty(), "before there is a superblock");
                }
                Probe::Zeroed => assert!(unused),
                Probe::Foreign(_) => {}
                Probe::Older { .. } => panic!("there was none"),
            },
        );
    }
}

#[test]
fn a_power_cut_while_upgrading_leaves_the_old_version_or_the_new() {
    cut_everywhere(
        |seed| Rig::new(seed, &version_1()),
        |rig, found| match found {
            Probe::Older { version: 1, .. } => {}
            Probe::Ours(new) => {
                assert_eq!(new.format_id, FormatId([9; 16]));
                assert!(rig.activity_is_empty());
            }
            other => panic!("neither: {other:?}"),
        },
    );
}

#[test]
fn a_power_cut_while_formatting_anew_leaves_the_newest_superblock_of_before_or_the_new() {
    for running in [1, 2] {
        let old = |seed| {
            let rig = Rig::new(seed, &[0; 512]);
            assert!(rig.format(1, u64::MAX));
            let Probe::Ours(mut superblock) = rig.open() else { panic!("formatted") };
            // Several sectors of them, so that a write cut short is none at all.
            for id in 0..20 {
                superblock.put_volume(volume_record(id)).expect("it fits");
            }
            for _ in 0..running {
                superblock.sequence += 1;
                superblock.state = State::InUse;
                rig.write(&superblock);
            }
            rig
        };
        cut_everywhere(old, |_, found| {
            let Probe::Ours(superblock) = found else { panic!("{found:?}") };
            let is_new = superblock.format_id == FormatId([9; 16]);
            let is_newest = superblock.sequence == 1 + running && superblock.state == State::InUse;
            assert!(is_new || is_newest, "{superblock:?}");
        });
    }
}
