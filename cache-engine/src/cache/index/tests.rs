//! The index on one core: what is found, what goes, what a change does to hits.
//!
//! Absent: other cores at the same time, see `interleavings.rs`.

use super::*;

const NOTHING_IN_USE: fn(LineNumber) -> bool = |_| false;
const BLOCK: BlockSet = BlockSet(1);

fn index(lines: u64, sets: u32) -> Index {
    Index::new(lines, sets, LineSize::ALL[0]).expect("enough sets")
}

fn cache(index: &mut Index, number: u64) -> Allocation {
    let allocation = index.allocate(LineNumber(number), NOTHING_IN_USE).expect("room");
    assert!(index.valid(allocation.slot).is_empty(), "blocks of the line before");
    index.validate(allocation.slot, BLOCK);
    check(index, allocation.slot.set() as u32);
    allocation
}

/// One set that holds lines 0 to 15.
fn full_set() -> Index {
    let mut index = index(1000, 1);
    (0..16).for_each(|number| assert_eq!(cache(&mut index, number).gone, None));
    index
}

/// Orders of each queue are 0, 1, 2, … without gaps, and the count of slots is right.
fn check(index: &Index, set: u32) {
    for main in [false, true] {
        let ways = index.shared.ways[set as usize].load();
        let queue = ways.0.iter().filter(|entry| entry.is_occupied() && entry.is_main() == main);
        let mut orders: Vec<_> = queue.map(|entry| entry.order()).collect();
        orders.sort_unstable();
        assert_eq!(orders, (0..orders.len() as u32).collect::<Vec<_>>());
    }
    let valid = |slot: &u64| !index.valid(Slot(*slot as u32)).is_empty();
    assert_eq!(index.occupied(), (0..index.slots()).filter(valid).count() as u64);
}

fn lines(index: &Index) -> Vec<u64> {
    let sets = (0..index.sets()).flat_map(|set| index.lines_of_set(set));
    let mut lines: Vec<_> = sets.map(|(_, line)| line.0).collect();
    lines.sort_unstable();
    lines
}

#[test]
fn a_line_is_found_where_it_was_put_and_no_other_is() {
    let mut index = index(10_000, 20);
    let reader = index.reader();
    for number in 0..100 {
        let line = LineNumber(number * 7);
        let Some(Allocation { slot, .. }) = index.allocate(line, NOTHING_IN_USE) else { continue };
        assert_eq!((index.find(line), index.line_of(slot)), (Some(slot), Some(line)));
        assert!(index.valid(slot).is_empty() && reader.lookup(line, BLOCK).is_none());
        index.validate(slot, BLOCK);
        assert_eq!(reader.lookup(line, BLOCK).map(|hit| hit.slot), Some(slot));
    }
    assert_eq!(index.find(LineNumber(3)), None);
    let mut unique = lines(&index);
    unique.dedup();
    assert_eq!(unique, lines(&index), "a line is in one slot only");
}

#[test]
fn a_hit_needs_every_wanted_block() {
    let mut index = Index::new(100, 1, LineSize::ALL[2]).expect("enough sets");
    let slot = index.allocate(LineNumber(5), NOTHING_IN_USE).expect("room").slot;
    index.validate(slot, BlockSet(0b0110));
    assert!(index.lookup(LineNumber(5), BlockSet(0b0110)).is_some());
    assert!(index.lookup(LineNumber(5), BlockSet(0b0111)).is_none());
    index.invalidate(slot, BlockSet(0b0010));
    assert!(index.lookup(LineNumber(5), BlockSet(0b0100)).is_some());
    assert!(index.lookup(LineNumber(5), BlockSet(0b0110)).is_none());
}

#[test]
fn a_hit_holds_still_until_something_becomes_invalid() {
    let mut index = full_set();
    let hit = index.lookup(LineNumber(3), BLOCK).expect("cached");
    index.validate(hit.slot, BLOCK);
    index.set_busy(hit.slot, true);
    index.set_busy(hit.slot, false);
    index.invalidate(hit.slot, BlockSet::EMPTY);
    assert!(index.still(hit), "nothing was lost");
    index.invalidate(hit.slot, BLOCK);
    assert!(!index.still(hit));
    index.validate(hit.slot, BLOCK);
    assert!(!index.still(hit), "what is valid now may be other bytes");

    let hit = index.lookup(LineNumber(3), BLOCK).expect("cached");
    index.drop_line(hit.slot);
    assert!(!index.still(hit));
}

#[test]
fn a_slot_that_changes_its_line_fails_hits_even_if_nothing_in_it_was_valid() {
    let mut index = full_set();
    let line = index.line_of(Slot(0)).expect("full");
    index.invalidate(Slot(0), BLOCK);
    let other = index.find(LineNumber((line.0 + 1) % 16)).expect("cached");
    // A lookup that has seen the entry of `line`, and not its blocks yet, has this version.
    let hit = index.lookup(index.line_of(other).expect("a line"), BLOCK).expect("cached");
    assert_eq!(
        cache(&mut index, 100),
        Allocation { slot: Slot(0), gone: Some(line), evicted: false }
    );
    assert!(!index.still(hit));
}

#[test]
fn a_use_is_noted_by_any_core_and_seen_by_the_eviction() {
    let mut index = full_set();
    let reader = index.reader();
    let slot = index.find(LineNumber(0)).expect("cached");
    assert_eq!(index.entry(slot).frequency(), 0);
    reader.lookup(LineNumber(0), BLOCK).expect("cached");
    reader.lookup(LineNumber(0), BLOCK).expect("cached");
    assert_eq!(index.entry(slot).frequency(), 2);
    assert_eq!(cache(&mut index, 100).gone, Some(LineNumber(1)), "the oldest one unused");
    (0..3).for_each(|_| reader.touch(index.find(LineNumber(2)).expect("cached")));
    assert_eq!(cache(&mut index, 101).gone, Some(LineNumber(3)));
}

#[test]
fn lines_in_use_and_busy_slots_are_left_alone() {
    let mut index = full_set();
    let busy = index.find(LineNumber(3)).expect("cached");
    index.set_busy(busy, true);
    for number in 16..500 {
        let line = LineNumber(number);
        let allocation = index.allocate(line, |line| line.0 == 5).expect("fourteen may go");
        index.validate(allocation.slot, BLOCK);
        check(&index, 0);
        assert!(allocation.evicted);
        assert!(index.find(LineNumber(3)).is_some() && index.find(LineNumber(5)).is_some());
    }
    assert_eq!(index.allocate(LineNumber(900), |_| true), None);
    index.drop_line(busy);
    assert_eq!(index.line_of(busy), Some(LineNumber(3)), "somebody is writing there");
    assert!(index.valid(busy).is_empty());
}

#[test]
fn slots_without_valid_blocks_go_first() {
    let mut index = full_set();
    let void = index.find(LineNumber(9)).expect("cached");
    index.invalidate(void, BLOCK);
    let gone = Some(LineNumber(9));
    assert_eq!(cache(&mut index, 100), Allocation { slot: void, gone, evicted: false });
    assert_eq!(index.find(LineNumber(9)), None);
}

#[test]
fn lines_go_by_rank_and_then_by_age() {
    let mut index = full_set();
    let busy = index.find(LineNumber(14)).expect("cached");
    index.set_busy(busy, true);
    let rank = |line: LineNumber, _: Slot| match line.0 {
        4 | 14 => Rank::First,
        0 | 1 => Rank::Never,
        2 => Rank::Spared,
        _ => Rank::Normal,
    };
    let mut evict = |number: u64| {
        let allocation = index.allocate_ranked(LineNumber(number), rank)?;
        index.validate(allocation.slot, BLOCK);
        check(&index, 0);
        // What came in is pinned, for the test to end.
        index.set_busy(allocation.slot, true);
        allocation.gone.map(|line| line.0)
    };
    let order: Vec<_> = (100..120).map_while(&mut evict).collect();
    assert_eq!(order, [4, 3, 5, 6, 7, 8, 9, 10, 11, 12, 13, 15, 2]);
    assert_eq!(index.allocate_ranked(LineNumber(200), rank), None);
}

#[test]
fn void_slots_go_before_any_rank_but_never() {
    let mut index = full_set();
    for number in [6, 7] {
        index.invalidate(index.find(LineNumber(number)).expect("cached"), BLOCK);
    }
    let rank = |line: LineNumber, _: Slot| match line.0 {
        6 => Rank::Never,
        7 => Rank::Spared,
        _ => Rank::First,
    };
    index.allocate_ranked(LineNumber(100), rank).expect("room");
    assert!(index.find(LineNumber(7)).is_none());
}

#[test]
fn dropped_and_cleared_lines_are_gone_and_the_queues_whole() {
    let mut index = full_set();
    for number in [3, 8] {
        let slot = index.find(LineNumber(number)).expect("cached");
        index.drop_line(slot);
        assert_eq!((index.line_of(slot), index.find(LineNumber(number))), (None, None));
        check(&index, 0);
    }
    assert_eq!(index.occupied(), 14);
    let hit = index.lookup(LineNumber(0), BLOCK).expect("cached");
    index.clear();
    assert!(!index.still(hit));
    assert_eq!((index.occupied(), lines(&index)), (0, vec![]));
    cache(&mut index, 0);
}

#[test]
fn a_loaded_set_is_what_it_was() {
    let mut old = full_set();
    for number in [2, 5] {
        old.lookup(LineNumber(number), BLOCK).expect("cached");
    }
    for number in 16..20 {
        cache(&mut old, number);
    }
    let mut new = index(1000, 1);
    for slot in (0..16).map(Slot) {
        let mut entry = old.entry(slot);
        entry.set_unverified(true);
        new.load(slot, entry, old.valid(slot));
        entry.set_unverified(false);
    }
    new.settle(0);
    check(&new, 0);
    assert_eq!(lines(&new), lines(&old));
    for number in lines(&old).into_iter().map(LineNumber) {
        let slot = new.find(number).expect("loaded");
        assert!(new.is_unverified(slot) && new.lookup(number, BLOCK).is_none());
        new.set_verified(slot);
        assert_eq!(new.entry(slot), old.entry(slot));
        assert!(new.lookup(number, BLOCK).is_some());
    }
    // Uses noted above differ by now; without them both evict alike.
    (50..60).for_each(|number| {
        (0..16).for_each(|slot| {
            for index in [&mut old, &mut new] {
                let mut entry = index.entry(Slot(slot));
                entry.set_frequency(0);
                index.ways(Slot(slot)).set_entry(slot as usize, entry);
            }
        });
        assert_eq!(cache(&mut old, number), cache(&mut new, number));
    });
}

#[test]
fn what_makes_no_sense_is_not_loaded() {
    let mut index = index(1000, 3);
    let good = index.shared.map.place(LineNumber(7));
    let slot = |way: usize| Slot::new(good.set, way);
    index.load(slot(0), Entry::new(good.tag, false), BLOCK);
    index.load(slot(1), Entry(u32::MAX), BlockSet(u16::MAX));
    index.load(slot(2), Entry::default(), BLOCK);
    index.load(slot(3), Entry::new(good.tag + 1, true), BlockSet::EMPTY);
    index.load(slot(4), Entry::new(good.tag + 2, true), BlockSet(0b10));
    index.settle(good.set);
    assert_eq!(lines(&index), [7]);
    index.load(slot(9), Entry::new(good.tag, true), BLOCK);
    index.settle(good.set);
    assert_eq!(lines(&index), [] as [u64; 0], "two slots of one line: neither is to be trusted");
    assert_eq!(index.occupied(), 0);
    // Every order there is, in one queue.
    for way in 0..16 {
        let mut entry = Entry::new(way as u32, false);
        entry.set_order(7);
        index.load(slot(way), entry, BLOCK);
    }
    index.settle(good.set);
    check(&index, good.set);
}
