//! A cache device with records in every place is found whole, and each damage to it is found.

use super::*;
use crate::cache::metadata::examination::{JournalBlock, JournalRecord, JournalRecords};
use crate::cache::metadata::volume_record::tests::record as volume_record;
use crate::cache::metadata::{FormatId, layout};
use crate::cache::{LineSize, VolumeId};
use crate::volume::cache_device::{FormatOptions, format, write_superblock};
use block_io::device::memory::MemoryDevice;
use block_io::{BlockDevice, BufferPool, Extent};

const FORMAT: FormatId = FormatId([7; 16]);
const LINE: usize = 16384;

fn turn() -> Result<Timestamp, DeviceError> {
    Ok(Timestamp(0))
}

/// A cache of one volume with a line in the table, one in the journal, and an active extent.
struct Scene {
    device: MemoryDevice,
    origin: Vec<u8>,
    superblock: Superblock,
    /// The line in the table and the one in the journal.
    lines: Vec<CachedLine>,
}

impl Scene {
    fn new(state: State) -> Self {
        Self::sized(state, 4 << 20)
    }

    fn sized(state: State, capacity: u64) -> Self {
        let device = MemoryDevice::new(capacity).expect("size");
        let mut queue = BlockDevice::<()>::open_queue(&device, &(), 4).expect("opens");
        let line_size = LineSize::default();
        let options = FormatOptions { line_size, force_format: false, format_id: FORMAT };
        let pool = BufferPool::heap();
        let mut superblock = format(&mut queue, &pool, options, turn).expect("formatted");
        let table = LineTable::new(superblock.layout, FORMAT);
        let (first, second) = (Self::record(0, 3), Self::record(17, 4));
        let mut folded = JournalRecords::default();
        folded.add(&first);
        let page = table.fold(0, &[0; PAGE_SIZE], &folded);
        device.overwrite(superblock.layout.table_offset, &page);
        superblock.journal_tail = 5;
        let block = JournalBlock { run: 1, records: vec![second] };
        let bytes = block.encode(FORMAT, 5).expect("it fits");
        device.overwrite(superblock.layout.journal_block_offset(5), &bytes);
        let mut records = JournalRecords::default();
        records.add(&second);
        let (_, lines) = table.read(0, &page, &records);
        assert_eq!(lines.lines.len(), 2);
        // A volume around the first line; what lies outside is another's.
        let base = lines.lines[0].offset / layout_alignment() * layout_alignment();
        superblock
            .put_volume(VolumeRecord {
                id: VolumeId(0),
                base,
                span: layout_alignment(),
                size: layout_alignment(),
                flags: 0,
                ..volume_record(0)
            })
            .expect("it fits");
        let mut origin = vec![0; layout_alignment() as usize];
        let start = (lines.lines[0].offset - base) as usize;
        origin[start..start + LINE].copy_from_slice(&Self::content());
        device.overwrite(superblock.layout.data_offset, &Self::content());
        superblock.state = state;
        for _ in 0..2 {
            superblock.sequence += 1;
            write_superblock(&mut queue, &pool, &superblock, turn).expect("written");
        }
        Self { device, origin, superblock, lines: lines.lines }
    }

    fn content() -> Vec<u8> {
        (0..LINE).map(|at| (at / 7) as u8).collect()
    }

    /// A record of a line with two valid blocks, as `content` has them.
    fn record(slot: u32, tag: u32) -> JournalRecord {
        let mut checksums = [0; 16];
        for block in [0, 2] {
            checksums[block] =
                block_io::Crc32c::new().update(&Self::content()[block * 4096..][..4096]).value();
        }
        JournalRecord { slot, entry: 1 << 31 | tag, valid: 0b101, changed: 0b101, checksums }
    }

    fn name_active(&self, extents: &[u64], journal_head: u64) {
        let places = extents.iter().copied().map(Some).collect();
        let page = ActivityPage { sequence: 1, journal_head, places };
        self.device.overwrite(self.superblock.layout.activity_offset, &page.encode(FORMAT, 0));
    }

    fn flip(&self, at: u64) {
        let byte = self.device.content(Extent::new(at, 1));
        self.device.overwrite(at, &[byte[0] ^ 1]);
    }

    fn check(&self) -> Report {
        self.check_within(RECORDS_MEMORY)
    }

    /// With so many bytes for the journal's records.
    fn check_within(&self, memory: usize) -> Report {
        let mut queue = BlockDevice::<()>::open_queue(&self.device, &(), 4).expect("opens");
        let pool = BufferPool::heap();
        let mut exchange = Exchange::new(&mut queue, &pool, turn);
        let mut read = |offset: u64, length: usize| {
            Ok(self.origin[offset as usize..offset as usize + length].to_vec())
        };
        let volume = &self.superblock.volumes()[0];
        let original = Original { volume, cipher: None, read: &mut read };
        let mut told = Vec::new();
        let progress = |share| told.push(share);
        let report =
            check_within(memory, &mut exchange, &self.superblock, Some(original), progress);
        assert!(told.is_sorted() && told.iter().all(|share| (0.0..=1.0).contains(share)));
        report.expect("the device works")
    }
}

const fn layout_alignment() -> u64 {
    crate::cache::metadata::volume_record::VOLUME_ALIGNMENT
}

#[test]
fn a_whole_cache_is_found_whole_and_counted() {
    let scene = Scene::new(State::Clean);
    scene.name_active(&[], 6);
    let report = scene.check();
    assert_eq!(report.damage, Findings::default());
    assert_eq!(report.leftovers, Findings::default());
    assert_eq!((report.journal_blocks, report.journal_records), (1, 1));
    assert_eq!((report.pages_valid, report.lines, report.blocks), (1, 2, 4));
    assert_eq!((report.checksums, report.compared), (2, 2), "the other line is of no volume");
}

#[test]
fn lines_of_active_extents_are_dropped_and_not_compared() {
    let scene = Scene::new(State::InUse);
    scene.name_active(&[scene.lines[0].offset / EXTENT, 1 << 30], 6);
    let report = scene.check();
    assert_eq!((report.extents, report.lines_active, report.compared), (2, 1, 0));
}

#[test]
fn every_damage_is_found_and_is_told_from_what_a_crash_leaves() {
    type Damage = fn(&mut Scene);
    const ALWAYS: bool = true;
    const IF_CLEAN: bool = false;
    let damages: [(&str, bool, Damage); 10] = [
        ("superblock A", IF_CLEAN, |scene| scene.flip(100)),
        ("superblock B", IF_CLEAN, |scene| scene.flip(layout::SUPERBLOCK_REGION + 4000)),
        ("activity page 0: one copy", IF_CLEAN, |scene| {
            scene.name_active(&[1], 0);
            scene.flip(scene.superblock.layout.activity_offset + 40);
        }),
        ("activity page 0: both", ALWAYS, |scene| {
            let layout = scene.superblock.layout;
            for copy in [0, 1] {
                scene.device.overwrite(layout.activity_page_offset(0, copy), &FORMAT.0);
            }
        }),
        ("journal: ends at block 6", ALWAYS, |scene| scene.name_active(&[], 7)),
        ("journal: ends at block 5", ALWAYS, |scene| {
            scene.name_active(&[], 6);
            scene.flip(scene.superblock.layout.journal_block_offset(5) + 50);
        }),
        ("journal block 5: no slot", ALWAYS, |scene| {
            let beyond = Scene::record(scene.superblock.layout.sets * 16, 1);
            let block = JournalBlock { run: 1, records: vec![beyond] };
            let bytes = block.encode(FORMAT, 5).expect("it fits");
            let place = scene.superblock.layout.journal_block_offset(5);
            scene.device.overwrite(place, &bytes);
        }),
        ("line table page 0", IF_CLEAN, |scene| {
            scene.flip(scene.superblock.layout.table_offset + 3000);
        }),
        ("wrong checksum", IF_CLEAN, |scene| scene.flip(scene.superblock.layout.data_offset)),
        ("not what the origin has", ALWAYS, |scene| {
            let at = scene.lines[0].offset - scene.superblock.volumes()[0].base;
            scene.origin[at as usize + 2 * 4096] ^= 1;
        }),
    ];
    for (words, always, damage) in damages {
        for state in [State::Clean, State::InUse] {
            let mut scene = Scene::new(state);
            damage(&mut scene);
            let report = scene.check();
            let is_damage = always || state == State::Clean;
            let (found, other) = match is_damage {
                true => (&report.damage, &report.leftovers),
                false => (&report.leftovers, &report.damage),
            };
            assert!(found.texts.iter().any(|text| text.contains(words)), "{words}: {report:?}");
            assert_eq!((found.count, other.count), (1, 0), "{words}: {report:?}");
        }
    }
    let untouched = Scene::new(State::Clean);
    untouched.flip(untouched.superblock.layout.data_offset + 4096);
    assert_eq!(untouched.check().damage.count, 0, "a block that is not valid may be anything");
}

#[test]
fn a_journal_goes_round_its_ring() {
    let scene = Scene::new(State::InUse);
    let mut superblock = scene.superblock.clone();
    let blocks = u64::from(superblock.layout.journal_blocks);
    superblock.journal_tail = 7 * blocks - 2;
    for sequence in superblock.journal_tail..superblock.journal_tail + 4 {
        let block = JournalBlock { run: 2, records: vec![Scene::record(3, sequence as u32)] };
        let bytes = block.encode(FORMAT, sequence).expect("it fits");
        scene.device.overwrite(superblock.layout.journal_block_offset(sequence), &bytes);
    }
    let mut queue = BlockDevice::<()>::open_queue(&scene.device, &(), 4).expect("opens");
    let pool = BufferPool::heap();
    let mut exchange = Exchange::new(&mut queue, &pool, turn);
    let found = usage(&mut exchange, &superblock).expect("the device works");
    assert_eq!((found.journal_blocks, found.journal_records), (4, 4));
    let earlier = JournalBlock { run: 1, records: Vec::new() };
    let last = superblock.journal_tail + 3;
    let bytes = earlier.encode(FORMAT, last).expect("it fits");
    scene.device.overwrite(superblock.layout.journal_block_offset(last), &bytes);
    let found = usage(&mut exchange, &superblock).expect("the device works");
    assert_eq!(found.journal_blocks, 3, "a block of an earlier run is left over from it");
}

#[test]
fn a_journal_of_more_than_the_memory_holds_is_read_in_passes_and_says_the_same() {
    let mut scene = Scene::sized(State::InUse, 64 << 20);
    let layout = scene.superblock.layout;
    let slots = layout.sets * 16;
    // Every third slot twice, the newer one empty for every other of them, in no order.
    let count = slots / 3;
    let slot = |number: u32| number * 7 % count * 3;
    let records: Vec<_> = (0..2 * count)
        .map(|number| {
            let empty = number >= count && number % 2 == 0;
            let slot = slot(number % count);
            let record = Scene::record(slot, 20 + slot % 16);
            let valid = if empty { 0 } else { record.valid };
            JournalRecord { valid, entry: if empty { 0 } else { record.entry }, ..record }
        })
        .collect();
    scene.superblock.journal_tail = 100;
    for (sequence, records) in (100..).zip(records.chunks(150)) {
        let block = JournalBlock { run: 1, records: records.to_vec() };
        let bytes = block.encode(FORMAT, sequence).expect("it fits");
        scene.device.overwrite(layout.journal_block_offset(sequence), &bytes);
    }
    let whole = scene.check();
    assert_eq!((whole.damage.count, whole.journal_records), (0, 2 * u64::from(count)), "{whole:?}");
    assert!(layout.table_pages > 20 && whole.lines > u64::from(count) / 4, "{whole:?}");
    // No room for more than a page has slots, and for some of them.
    for memory in [0, 10_000, 30_000] {
        assert_eq!(scene.check_within(memory), whole, "{memory} bytes for records");
    }
}
