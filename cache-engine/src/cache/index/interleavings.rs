//! The interleavings of a reader on one core with the owner on another.
//!
//! The slots' content is modelled as words that are read and stored without any order of their
//! own, so that only the index can keep a reader from serving the wrong ones. What a client knows
//! (a write was acknowledged) travels in a word with release and acquire, as it does through
//! sockets.

use loom::sync::Arc;
use loom::thread;

use super::super::atomics::{AtomicU32, Ordering};
use super::*;

const FIRST: BlockSet = BlockSet(1);
const BOTH: BlockSet = BlockSet(3);

/// What the cores share beside the index: a word for each block of the slots, and the newest
/// acknowledged value.
struct Device {
    content: [[AtomicU32; 2]; WAYS],
    acknowledged: AtomicU32,
}

impl Device {
    fn new() -> Self {
        let word = || AtomicU32::new(0);
        Self { content: std::array::from_fn(|_| [word(), word()]), acknowledged: word() }
    }

    fn read(&self, slot: Slot, block: usize) -> u32 {
        self.content[slot.way()][block].load(Ordering::Relaxed)
    }

    fn store(&self, slot: Slot, block: usize, value: u32) {
        self.content[slot.way()][block].store(value, Ordering::Relaxed);
    }
}

/// Values of line `n` lie from `100 n` on, and newer is greater.
fn value(line: u64, age: u32) -> u32 {
    line as u32 * 100 + age
}

/// What a reader serves of a line, and nothing if it would have to ask the owner.
fn serve(reader: &IndexReader, device: &Device, line: u64, wanted: BlockSet) -> Option<Vec<u32>> {
    let hit = reader.lookup(LineNumber(line), wanted)?;
    let read = wanted.iter().map(|block| device.read(hit.slot, block)).collect();
    reader.still(hit).then_some(read)
}

/// Lines of 8 KiB in one set, of which lines 1 to `cached` are in it, in the order of their
/// numbers and with both blocks. Put there in few steps, which loom counts.
fn start(cached: u64) -> (Index, Arc<Device>) {
    let device = Device::new();
    let mut index = Index::new(1 << 20, 1, LineSize::ALL[1]).expect("enough sets");
    let mut set = Set::default();
    for (way, line) in (1..=cached).enumerate() {
        set.0[way] = Entry::new(index.shared.map.place(LineNumber(line)).tag, false);
        set.0[way].set_order(way as u32);
        (0..2).for_each(|block| device.store(Slot(way as u32), block, value(line, 0)));
        index.set_valid(Slot(way as u32), BOTH);
    }
    index.shared.ways[0].store(&Set::default(), &set);
    (index, Arc::new(device))
}

fn explore(model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(2);
    builder.max_branches = 10_000;
    builder.check(model);
}

#[test]
fn a_write_in_place_is_seen_by_lookups_after_its_acknowledgement() {
    explore(|| {
        let (mut index, device) = start(1);
        let (reader, shared) = (index.reader(), Arc::clone(&device));
        let other = thread::spawn(move || {
            for _ in 0..2 {
                let oldest = shared.acknowledged.load(Ordering::Acquire);
                if let Some(read) = serve(&reader, &shared, 1, FIRST) {
                    assert!(read[0] >= value(1, oldest), "{read:?} and not {oldest}");
                }
            }
        });
        // Twice, so that there are versions to confuse. The answer to a write is the origin's: it
        // may come before the cache device has stored anything.
        let slot = index.find(LineNumber(1)).expect("cached");
        for age in 1..=2 {
            index.invalidate(slot, FIRST);
            device.acknowledged.store(age, Ordering::Release);
            device.store(slot, 0, value(1, age));
            index.validate(slot, FIRST);
        }
        other.join().expect("does not panic");
    });
}

#[test]
fn both_blocks_of_a_hit_are_of_one_write() {
    explore(|| {
        let (mut index, device) = start(1);
        let (reader, shared) = (index.reader(), Arc::clone(&device));
        let other = thread::spawn(move || {
            if let Some(read) = serve(&reader, &shared, 1, BOTH) {
                assert_eq!(read[0], read[1], "half of each");
            }
        });
        let slot = index.find(LineNumber(1)).expect("cached");
        index.invalidate(slot, BOTH);
        (0..2).for_each(|block| device.store(slot, block, value(1, 1)));
        index.validate(slot, BOTH);
        other.join().expect("does not panic");
    });
}

/// A reader of either line may see that line's own values or nothing while `change` happens.
fn only_its_own(
    cached: u64,
    lines: [u64; 2],
    change: impl Fn(&mut Index, &Device) + Copy + Sync + Send + 'static,
) {
    for line in lines {
        explore(move || {
            let (mut index, device) = start(cached);
            let (reader, shared) = (index.reader(), Arc::clone(&device));
            let other = thread::spawn(move || {
                if let Some(read) = serve(&reader, &shared, line, FIRST) {
                    assert_eq!(read, [value(line, 0)], "asked for line {line}");
                }
            });
            change(&mut index, &device);
            other.join().expect("does not panic");
        });
    }
}

/// Gives some slot to a line, and stores and validates it.
fn fill(index: &mut Index, device: &Device, line: u64) {
    // All but line 1 are in use, so that it is the one that goes.
    let slot = index.allocate(LineNumber(line), |other| other.0 != 1).expect("line 1 goes").slot;
    device.store(slot, 0, value(line, 0));
    index.validate(slot, FIRST);
}

#[test]
fn a_slot_given_to_another_line_serves_neither_for_the_other() {
    only_its_own(16, [1, 20], |index, device| fill(index, device, 20));
}

#[test]
fn a_slot_without_valid_blocks_changes_hands_as_safely() {
    only_its_own(16, [1, 20], |index, device| {
        let slot = index.find(LineNumber(1)).expect("cached");
        index.invalidate(slot, BOTH);
        fill(index, device, 20);
    });
}

#[test]
fn a_dropped_line_leaves_nothing_to_the_next_in_its_slot() {
    only_its_own(1, [1, 2], |index, device| {
        index.drop_line(index.find(LineNumber(1)).expect("cached"));
        fill(index, device, 2);
    });
}

#[test]
fn a_line_that_comes_and_goes_and_comes_is_never_another() {
    only_its_own(1, [1, 2], |index, device| {
        for line in [2, 1] {
            index.drop_line(Slot(0));
            fill(index, device, line);
        }
    });
}

#[test]
fn a_loaded_line_is_whole_when_it_is_seen() {
    explore(|| {
        let (mut index, device) = start(0);
        let (reader, shared) = (index.reader(), Arc::clone(&device));
        device.store(Slot(4), 0, value(9, 0));
        let other = thread::spawn(move || {
            if let Some(read) = serve(&reader, &shared, 9, FIRST) {
                assert_eq!(read, [value(9, 1)], "checked content only");
            }
        });
        let tag = index.shared.map.place(LineNumber(9)).tag;
        let mut entry = Entry::new(tag, false);
        entry.set_unverified(true);
        index.load(Slot(4), entry, FIRST);
        index.settle(0);
        // The check finds it wanting and repairs it: nobody may have served what was there.
        device.store(Slot(4), 0, value(9, 1));
        index.set_verified(Slot(4));
        other.join().expect("does not panic");
    });
}

#[test]
fn a_note_of_a_use_undoes_nothing_that_the_owner_does() {
    explore(|| {
        let (mut index, _) = start(2);
        let reader = index.reader();
        let other = thread::spawn(move || {
            reader.touch(Slot(0));
            reader.touch(Slot(1));
        });
        index.drop_line(Slot(0));
        index.set_busy(Slot(1), true);
        other.join().expect("does not panic");
        assert!(index.is_busy(Slot(1)));
        assert!(index.find(LineNumber(1)).is_none(), "a note brought a dropped line back");
    });
}
