//! The journal worked into the line table in parts, by a fold and by a start: at whatever step the
//! power fails, every line is found that should be, and no other.

use std::collections::BTreeMap;

use super::*;

/// Six pages of 336 slots, of which a part has room for one to three.
const SETS: u32 = 120;
/// Stores between two writes of the journal: one block of it.
const TOGETHER: u64 = 90;

/// A rig whose slots all have been stored in, and what a start is to find.
struct Full {
    rig: Rig,
    expected: BTreeMap<u32, u64>,
    next_line: u64,
    ways: Vec<u32>,
}

impl Full {
    fn new() -> Self {
        let rig = Rig::started(Rig::format(SETS), Start::Warm).0;
        Self { rig, expected: BTreeMap::new(), next_line: 0, ways: vec![0; SETS as usize] }
    }

    /// Stores, forgets, and gives slots to other lines, in one block of the journal.
    fn block(&mut self) {
        for _ in 0..TOGETHER {
            let line = self.next_line;
            self.next_line += 1;
            let set = map(&self.rig.machine.layout).place(LineNumber(line)).set;
            let way = &mut self.ways[set as usize];
            let slot = self.rig.store(line, *way % 16);
            *way += 1;
            self.expected.insert(slot.0, line);
            if line % 11 == 5 {
                self.forget(slot, line);
            }
        }
        self.rig.now.0 += 20_000_000;
        self.rig.machine.tick(self.rig.now);
        self.rig.pull();
        let part = self.rig.machine.layout.journal_offset..self.rig.machine.layout.table_offset;
        while let Some(at) = self.rig.writes(part.clone()).first().copied() {
            self.rig.answer(at, Ok(()));
        }
    }

    fn forget(&mut self, slot: Slot, line: u64) {
        let place = map(&self.rig.machine.layout).place(LineNumber(line));
        let (entry, none) = (Entry::new(place.tag, false), BlockSet::EMPTY);
        let now = self.rig.now;
        self.rig.machine.record(slot, entry, LineNumber(line), none, none, &[0; 16], now);
        self.expected.remove(&slot.0);
    }

    /// Half of the ring is on the device for good, and of the fold nothing is answered.
    fn until_fold() -> Self {
        let mut full = Self::new();
        full.write_half();
        full
    }

    fn write_half(&mut self) {
        while self.rig.machine.journal.foldable().is_none() {
            self.block();
        }
        self.rig.disk.flush(u64::MAX);
    }

    fn tail_on_device(&self) -> u64 {
        self.rig.disk.superblock().journal_tail
    }
}

fn found(layout: &Layout, lines: &[LoadedLine]) -> BTreeMap<u32, u64> {
    lines.iter().map(|loaded| (loaded.slot.0, line_of(layout, loaded))).collect()
}

/// What a start finds on a disk.
fn lines_of(disk: Disk) -> BTreeMap<u32, u64> {
    let (rig, lines) = Rig::started(disk, Start::Warm);
    found(&rig.machine.layout, &lines)
}

fn is_first_journal_read(rig: &Rig, at: usize) -> bool {
    let request = &rig.in_flight[at].request;
    request.operation == Operation::Read
        && request.extent.offset == rig.machine.layout.journal_offset
}

#[test]
fn a_fold_in_parts_leaves_nothing_out_and_moves_the_tail_behind_the_last() {
    let mut full = Full::until_fold();
    assert!(full.expected.len() > 1000);
    let mut passes = 0;
    while full.tail_on_device() == 0 {
        assert!(!full.rig.in_flight.is_empty(), "the fold stands still");
        passes += u32::from(is_first_journal_read(&full.rig, 0));
        full.rig.answer(0, Ok(()));
    }
    assert!((3..=6).contains(&passes), "passes over the journal: {passes}");
    // What is not durable now is gone, and so is what the fold has read.
    let mut disk = full.rig.disk.clone();
    disk.visible.clone_from(&disk.durable);
    disk.unflushed.clear();
    let layout = full.rig.machine.layout;
    let half = u64::from(layout.journal_blocks / 2);
    assert_eq!(full.tail_on_device(), half);
    let start = layout.journal_offset as usize;
    disk.visible[start..start + half as usize * PAGE_SIZE].fill(0);
    assert!(lines_of(disk) == full.expected, "lines are missing or have come back");
}

#[test]
fn a_power_cut_at_any_step_of_a_fold_loses_nothing_and_brings_nothing_back() {
    for seed in 0..8 {
        let mut random = Random::new(seed);
        // What the table holds already is replaced by the second fold.
        let mut full = Full::until_fold();
        full.rig.settle();
        assert_eq!(full.rig.machine.statistics().folds, 1);
        full.write_half();
        let mut steps = 0;
        while !full.rig.in_flight.is_empty() {
            let mut disk = full.rig.disk.clone();
            disk.cut(&[], &mut random);
            let torn = disk.visible != full.rig.disk.visible;
            let lines = lines_of(disk);
            // A page that was cut short is empty but for what the journal says of it.
            let wrong = lines.iter().find(|(slot, line)| full.expected.get(slot) != Some(line));
            assert_eq!(wrong, None, "seed {seed}, step {steps}");
            assert!(torn || lines == full.expected, "seed {seed}, step {steps}");
            let at = random.below(full.rig.in_flight.len() as u64) as usize;
            full.rig.answer(at, Ok(()));
            steps += 1;
        }
        assert!(steps >= 20 && full.rig.machine.statistics().folds == 2, "{steps} steps");
        assert!(lines_of(full.rig.disk) == full.expected, "seed {seed}");
    }
}

#[test]
fn a_power_cut_at_any_step_of_a_start_in_parts_loses_nothing_and_brings_nothing_back() {
    let mut full = Full::until_fold();
    (0..10).for_each(|_| full.block());
    full.rig.disk.flush(u64::MAX);
    let disk = full.rig.disk.clone();
    let layout = full.rig.machine.layout;
    for seed in 0..40 {
        let mut random = Random::new(seed);
        let mut rig = Rig::start(disk.clone(), Start::Warm);
        let (mut lines, mut passes) = (Vec::new(), 0);
        let last_step = random.below(60);
        for step in 0..1000 {
            rig.pull();
            if rig.machine.is_started() || (seed > 0 && step == last_step) {
                break;
            }
            if rig.in_flight.is_empty() || random.coin() {
                lines.extend(rig.machine.loaded().into_iter().flat_map(|(_, loaded)| loaded));
            } else {
                let at = random.below(rig.in_flight.len() as u64) as usize;
                passes += u32::from(is_first_journal_read(&rig, at));
                rig.answer(at, Ok(()));
            }
        }
        if seed == 0 {
            assert!(rig.machine.is_started() && passes > 3, "{passes} passes");
            assert!(found(&layout, &lines) == full.expected);
        }
        let sent = std::mem::take(&mut rig.in_flight);
        rig.disk.cut(&sent, &mut random);
        assert!(lines_of(rig.disk) == full.expected, "seed {seed}");
    }
}

#[test]
fn a_journal_that_changes_between_two_parts_ends_the_cache_and_keeps_the_tail() {
    for in_fold in [true, false] {
        let mut rig = Full::until_fold().rig;
        let layout = rig.machine.layout;
        if !in_fold {
            rig = Rig::start(rig.disk, Start::Warm);
        }
        let mut passes = 0;
        for _ in 0..1000 {
            rig.pull();
            if rig.machine.is_failed() {
                break;
            }
            if rig.in_flight.is_empty() {
                let _ = rig.machine.loaded();
                continue;
            }
            passes += u32::from(is_first_journal_read(&rig, 0));
            if passes == 2 {
                let block = layout.journal_block_offset(3) as usize;
                rig.disk.visible[block + 100] ^= 1;
                passes += 1;
            }
            rig.answer(0, Ok(()));
        }
        assert!(rig.machine.is_failed(), "in a fold: {in_fold}");
        assert_eq!(rig.disk.superblock().journal_tail, 0);
    }
}
