//! One rule a test: the order in which things become durable, and what a start makes of them.

use super::*;
use crate::cache::metadata::activity_page::{self, Copy};

const SETS: u32 = 50;

fn warm() -> Rig {
    Rig::started(Rig::format(SETS), Start::Warm).0
}

fn activity_pages(rig: &Rig) -> std::ops::Range<u64> {
    rig.machine.layout.activity_offset..rig.machine.layout.journal_offset
}

fn journal(rig: &Rig) -> std::ops::Range<u64> {
    rig.machine.layout.journal_offset..rig.machine.layout.table_offset
}

fn table(rig: &Rig) -> std::ops::Range<u64> {
    rig.machine.layout.table_offset..rig.machine.layout.data_offset
}

const SUPERBLOCKS: std::ops::Range<u64> = 0..2 * SUPERBLOCK_REGION;

/// Lines 0, 1, … of an extent, stored and in the journal.
fn recorded(rig: &mut Rig, extent: u64, count: u64) -> Vec<Slot> {
    let slots = (0..count).map(|line| rig.store(extent * 1024 + line, line as u32)).collect();
    rig.pass(20);
    slots
}

/// The lines that the disk has after a power cut that leaves everything.
fn crashed(rig: &Rig) -> Vec<u64> {
    let layout = rig.machine.layout;
    let (_, lines) = Rig::started(rig.disk.clone(), Start::Warm);
    let mut lines: Vec<_> = lines.iter().map(|line| line_of(&layout, line)).collect();
    lines.sort_unstable();
    lines
}

fn named(rig: &Rig, copy: u32) -> Option<(u64, Vec<u64>)> {
    let offset = rig.machine.layout.activity_page_offset(0, copy);
    let format_id = rig.machine.superblock().format_id;
    let Copy::Valid(page) = activity_page::decode(rig.disk.page(offset), format_id, 0) else {
        return None;
    };
    Some((page.sequence, page.places.iter().copied().flatten().collect()))
}

#[test]
fn a_change_that_may_be_undone_later_waits_until_its_extent_is_named() {
    let mut rig = warm();
    // Nothing is recorded of either extent.
    assert_eq!(rig.machine.begin_change(1, bytes_in(7), false, rig.now), Leave::Unnamed);
    assert_eq!(rig.machine.begin_change(2, bytes_in(8), true, rig.now), Leave::Later);
    rig.pass(1);
    assert_eq!(*rig.machine.activated(), [2]);
    // What is stored and recorded while the change may be undone is gone after a power cut.
    recorded(&mut rig, 8, 3);
    assert!(crashed(&rig).is_empty());
    rig.end(8);
}

#[test]
fn a_change_waits_until_the_device_names_its_extent() {
    let mut rig = warm();
    recorded(&mut rig, 3, 1);
    assert!(!rig.begin(7, 3), "a line of it is recorded");
    rig.pull();
    let write = rig.writes(activity_pages(&rig));
    assert_eq!(write.len(), 1);
    assert!(rig.in_flight[write[0]].request.force_unit_access);
    assert!(!rig.begin(8, 3) && rig.machine.activated().is_empty());
    rig.answer(write[0], Ok(()));
    assert_eq!(rig.machine.activated().drain(..).collect::<Vec<_>>(), [7, 8]);
    assert!(named(&rig, 0).is_some_and(|(_, extents)| extents == [3]));
    assert!(rig.begin(9, 3), "active now");
}

#[test]
fn a_change_of_an_extent_without_recorded_lines_does_not_wait() {
    let mut rig = warm();
    assert!(rig.begin(1, 5));
    rig.pass(20);
    assert!(named(&rig, 0).is_some_and(|(_, extents)| extents == [5]), "active all the same");
}

#[test]
fn nothing_changes_before_the_superblock_says_in_use() {
    for start in [Start::Warm, Start::Cold] {
        let mut rig = Rig::start(Rig::format(SETS), start);
        assert!(!rig.begin(1, 5));
        rig.pull();
        assert_eq!(rig.in_flight.len(), 1, "a flush");
        rig.answer(0, Ok(()));
        let write = rig.writes(SUPERBLOCKS);
        assert!(write == [0] && rig.in_flight.len() == 1, "and nothing beside the superblock");
        assert!(rig.machine.activated().is_empty());
        rig.load();
        assert_eq!(*rig.machine.activated(), [1]);
        assert_eq!(rig.disk.superblock().state, State::InUse);
    }
}

#[test]
fn activations_go_together_and_never_over_the_newest_copy() {
    let mut rig = warm();
    (1..6).for_each(|extent| drop(recorded(&mut rig, extent, 1)));
    assert!(!rig.begin(1, 1));
    rig.pull();
    assert!(!rig.begin(2, 2) && !rig.begin(3, 3));
    rig.pull();
    assert_eq!(rig.writes(activity_pages(&rig)).len(), 1, "one write of a page at a time");
    rig.answer(0, Ok(()));
    assert_eq!(*rig.machine.activated(), [1]);
    assert_eq!(rig.writes(activity_pages(&rig)).len(), 1, "and one for all that came meanwhile");
    // Refused for good: the same copy is tried again, for the other is the newest.
    for _ in 0..2 {
        assert_eq!(
            rig.in_flight[0].request.extent.offset,
            rig.machine.layout.activity_page_offset(0, 1)
        );
        rig.answer(0, Err(IoError::Media));
        assert!(named(&rig, 0).is_some_and(|(sequence, _)| sequence == 1));
    }
    rig.settle();
    assert_eq!(*rig.machine.activated(), [1, 2, 3]);
    assert_eq!(named(&rig, 1), Some((2, vec![1, 2, 3])));
    assert!(!rig.begin(4, 4));
    rig.pull();
    assert_eq!(
        rig.in_flight[0].request.extent.offset,
        rig.machine.layout.activity_page_offset(0, 0)
    );
    assert!(rig.machine.errors() == 2 && !rig.machine.is_failed());
}

#[test]
fn rewriting_active_extents_writes_nothing() {
    let mut rig = warm();
    for round in 0..1000 {
        assert!(rig.begin(1, 5) && rig.begin(2, 6));
        rig.store(5 * 1024, 0);
        rig.store(6 * 1024, 1);
        rig.end(5);
        rig.end(6);
        rig.now.0 += 1_000_000;
        rig.machine.tick(rig.now);
        rig.pull();
        assert!(round < 30 || rig.in_flight.is_empty(), "round {round}");
        while !rig.in_flight.is_empty() {
            rig.answer(0, Ok(()));
        }
    }
    assert_eq!(rig.machine.statistics().journal_blocks, 0, "records of active extents wait");
    assert_eq!(rig.machine.statistics().pending, 2);
    assert_eq!(rig.machine.next_deadline(), None);
}

#[test]
fn a_crash_drops_the_lines_of_active_extents_only() {
    let mut rig = warm();
    recorded(&mut rig, 3, 2);
    recorded(&mut rig, 4, 2);
    assert_eq!(crashed(&rig), [3072, 3073, 4096, 4097]);
    assert!(!rig.begin(1, 3));
    rig.settle();
    assert_eq!(crashed(&rig), [4096, 4097]);
}

#[test]
fn an_extent_is_retired_when_its_records_are_durable_and_it_did_not_change() {
    let mut rig = warm();
    // Sixteen places: the fourteenth extent makes them short.
    for extent in 0..14 {
        rig.now.0 += 1_000_000;
        assert!(rig.begin(1, extent));
        rig.store(extent * 1024, extent as u32);
    }
    rig.end(2);
    rig.machine.tick(rig.now);
    rig.pass(20);
    assert!(rig.begin(1, 14));
    rig.pull();
    let write = rig.writes(journal(&rig));
    assert_eq!(write.len(), 1, "everything pending goes first");
    assert!(rig.machine.activity.is_active(2));
    rig.answer(write[0], Ok(()));
    assert!(rig.machine.activity.is_active(2), "written is not durable");
    let flush = rig.in_flight.iter().position(|sent| sent.request.operation == Operation::Flush);
    rig.answer(flush.expect("a flush follows"), Ok(()));
    assert!(!rig.machine.activity.is_known(2), "nothing of it was in flight");
    let active =
        |rig: &Rig| (0..14).filter(|extent| rig.machine.activity.is_active(*extent)).count();
    assert_eq!(active(&rig), 13, "the others are changing");
    rig.end(1);
    rig.end(7);
    rig.now.0 += 100_000_000;
    rig.machine.tick(rig.now);
    assert!(rig.begin(2, 15));
    rig.pull();
    assert!(rig.begin(3, 1), "an extent that is about to be retired changes");
    rig.settle();
    assert!(rig.machine.activity.is_active(1), "so it stays");
}

#[test]
fn records_are_written_before_a_half_is_folded_and_the_tail_moves_after_its_flush() {
    let mut rig = warm();
    let half = u64::from(rig.machine.layout.journal_blocks) / 2;
    let mut line = 0;
    while rig.machine.journal.foldable().is_none() {
        rig.store(line % 640, line as u32 % 16);
        line += 1;
        rig.now.0 += 11_000_000;
        rig.machine.tick(rig.now);
        rig.pull();
        while let Some(at) = rig.writes(journal(&rig)).first().copied() {
            rig.answer(at, Ok(()));
        }
    }
    let mut flushed = false;
    while rig.machine.superblock().journal_tail == 0 {
        assert!(!flushed, "the flush is done, so the tail moves");
        let flush = |sent: &Sent| sent.request.operation == Operation::Flush;
        let others = rig.in_flight.iter().position(|sent| !flush(sent));
        if others.is_none() {
            let bytes = rig.disk.unflushed.len();
            assert!(
                bytes > 0 && rig.writes(table(&rig)).is_empty(),
                "pages, written and not durable"
            );
            flushed = true;
            rig.machine.work = true;
            rig.pull();
            assert_eq!(rig.machine.superblock().journal_tail, 0, "not before the flush is done");
        }
        rig.answer(others.unwrap_or(0), Ok(()));
    }
    assert!(flushed && rig.disk.unflushed.is_empty());
    assert_eq!(rig.machine.journal.tail(), 0, "not before the superblock is durable");
    rig.settle();
    assert_eq!((rig.machine.journal.tail(), rig.machine.superblock().journal_tail), (half, half));
}

#[test]
fn the_ring_stops_at_its_tail() {
    let mut rig = warm();
    let ring = u64::from(rig.machine.layout.journal_blocks);
    // The fold never ends, for the table does not answer.
    for line in 0..600 {
        rig.store(line, line as u32 % 16);
        rig.now.0 += 11_000_000;
        rig.machine.tick(rig.now);
        rig.pull();
        while let Some(at) = rig.writes(journal(&rig)).first().copied() {
            rig.answer(at, Ok(()));
        }
    }
    assert_eq!((rig.machine.journal.tail(), rig.machine.journal.next()), (0, ring));
    assert!(!rig.machine.has_room_beside(0), "what does not fit waits, and stores stop");
    rig.settle();
    rig.pass(20);
    assert!(rig.machine.has_room_beside(0));
    assert!(rig.machine.statistics().folds > 0);
}

#[test]
fn replay_stops_at_the_first_bad_block() {
    let mut rig = warm();
    (1..6).for_each(|extent| drop(recorded(&mut rig, extent, 1)));
    let third = rig.machine.layout.journal_block_offset(2) as usize;
    rig.disk.visible[third + 100] ^= 1;
    assert_eq!(crashed(&rig), [1024, 2048]);
}

#[test]
fn replay_takes_no_block_of_a_run_before() {
    let mut rig = warm();
    (1..6).for_each(|extent| drop(recorded(&mut rig, extent, 1)));
    // The third block was lost, so the next run goes on there; what the first wrote behind it is
    // still on the device, with the sequence numbers that the next run will use.
    let third = rig.machine.layout.journal_block_offset(2) as usize;
    rig.disk.visible[third..third + PAGE_SIZE].fill(0);
    let (mut rig, _) = Rig::started(rig.disk, Start::Warm);
    recorded(&mut rig, 9, 1);
    assert_eq!(crashed(&rig), [1024, 2048, 9216]);
}

#[test]
fn a_journal_that_ends_too_early_is_not_believed() {
    let mut rig = warm();
    recorded(&mut rig, 1, 1);
    rig.machine.barrier();
    rig.settle();
    assert!(!rig.begin(1, 1));
    rig.settle();
    let first = rig.machine.layout.journal_block_offset(0) as usize;
    rig.disk.visible[first + 100] ^= 1;
    let before = rig.disk.superblock().format_id;
    let (rig, lines) = Rig::started(rig.disk, Start::Warm);
    assert!(lines.is_empty());
    assert_ne!(rig.disk.superblock().format_id, before, "cold, and durably so");
}

#[test]
fn superblocks_take_turns() {
    let mut rig = warm();
    let first = rig.machine.update_superblock(|superblock| superblock.verify_all = true);
    rig.pull();
    let second = rig.machine.update_superblock(|superblock| superblock.verify_all = false);
    rig.pull();
    assert_eq!(rig.writes(SUPERBLOCKS).len(), 1, "one at a time");
    let offset = rig.in_flight[0].request.extent.offset;
    assert_ne!(offset, rig.disk.superblock().offset(), "and not over the newest");
    rig.answer(0, Ok(()));
    assert!(rig.machine.is_durable(first) && !rig.machine.is_durable(second));
    assert_ne!(rig.in_flight[0].request.extent.offset, offset);
    assert!(rig.in_flight[0].request.force_unit_access);
    rig.settle();
    assert!(rig.machine.is_durable(second));
}

#[test]
fn a_stop_keeps_everything_and_a_start_after_it_trusts_it() {
    let mut rig = warm();
    recorded(&mut rig, 3, 2);
    assert!(!rig.begin(1, 3) && rig.begin(2, 4));
    rig.pass(20);
    rig.store(3 * 1024 + 5, 5);
    rig.store(4 * 1024, 6);
    rig.end(3);
    rig.end(4);
    let disk = rig.stop();
    assert_eq!(disk.superblock().state, State::Clean);
    let (rig, lines) = Rig::started(disk, Start::Warm);
    assert_eq!(lines.len(), 4);
    assert!(lines.iter().all(|line| !line.entry.is_unverified()));
    // This run ends without a stop.
    let (rig, lines) = Rig::started(rig.disk, Start::Warm);
    assert!(lines.len() == 4 && lines.iter().all(|line| line.entry.is_unverified()));
    // What was not verified stays so, however this run ends.
    let (_, lines) = Rig::started(rig.stop(), Start::Warm);
    assert!(lines.iter().all(|line| line.entry.is_unverified()));
}

#[test]
fn what_changes_before_it_is_loaded_is_not_loaded() {
    let mut rig = warm();
    recorded(&mut rig, 3, 2);
    recorded(&mut rig, 4, 2);
    let mut rig = Rig::start(rig.stop(), Start::Warm);
    rig.settle();
    assert!(!rig.begin(1, 4), "anything may be recorded until all is loaded");
    rig.settle();
    assert_eq!(*rig.machine.activated(), [1]);
    let layout = rig.machine.layout;
    let mut lines: Vec<_> = rig.load().iter().map(|line| line_of(&layout, line)).collect();
    lines.sort_unstable();
    assert_eq!(lines, [3072, 3073]);
    rig.end(4);
    let (_, lines) = Rig::started(rig.stop(), Start::Warm);
    assert_eq!(lines.len(), 2, "and it does not come back");
}

#[test]
fn a_page_that_was_cut_short_costs_its_own_lines_only() {
    let mut rig = warm();
    let slots = recorded(&mut rig, 3, 12);
    let disk = Rig::started(rig.stop(), Start::Warm).0.stop();
    let layout = disk.superblock().layout;
    let page_of = |slot: &Slot| slot.0 / (layout.sets_per_page * 16);
    let torn = page_of(&slots[0]);
    let kept = slots.iter().filter(|slot| page_of(slot) != torn).count();
    assert!(kept > 0 && kept < slots.len());
    let mut disk = disk;
    let offset = layout.table_page_offset(torn) as usize;
    disk.visible[offset + 2048..offset + 2560].fill(0xEE);
    let (rig, lines) = Rig::started(disk, Start::Warm);
    assert_eq!(lines.len(), kept);
    assert_eq!(rig.machine.statistics().pages_damaged, 1);
    let (rig, _) = Rig::started(rig.stop(), Start::Warm);
    assert_eq!(rig.machine.statistics().pages_damaged, 0, "it was written whole again");
}

#[test]
fn a_cold_start_voids_what_is_recorded() {
    let mut rig = warm();
    recorded(&mut rig, 3, 4);
    let (rig, lines) = Rig::started(rig.stop(), Start::Cold);
    assert!(lines.is_empty());
    assert!(crashed(&rig).is_empty());
}

#[test]
fn who_waits_for_a_device_that_fails_goes_on_when_it_is_degraded() {
    let mut rig = warm();
    recorded(&mut rig, 3, 1);
    assert!(!rig.begin(7, 3));
    rig.pull();
    rig.answer(0, Err(IoError::TimedOut));
    assert!(rig.machine.is_failed() && rig.in_flight.is_empty(), "it may still land: no other try");
    rig.pass(20);
    assert!(rig.machine.activated().is_empty());
    rig.machine.degrade();
    rig.pull();
    assert!(rig.machine.activated().is_empty(), "not before it is durable");
    rig.settle();
    assert!(rig.machine.is_dead() && !rig.machine.wants_disown());
    assert_eq!(*rig.machine.activated(), [7]);
    assert!(rig.begin(8, 3) && rig.machine.is_stopped());
    assert!(crashed(&rig).is_empty(), "a degraded cache starts cold");
}

#[test]
fn a_device_that_can_not_be_degraded_is_disowned() {
    for answers in [true, false] {
        let mut rig = warm();
        recorded(&mut rig, 3, 1);
        assert!(!rig.begin(7, 3));
        rig.pull();
        rig.answer(0, Err(IoError::TimedOut));
        rig.machine.degrade();
        rig.pull();
        if answers {
            (0..3).for_each(|_| rig.answer(0, Err(IoError::Media)));
        } else {
            rig.now = rig.machine.next_deadline().expect("it does not wait for ever");
            rig.machine.tick(rig.now);
            rig.pull();
        }
        assert!(rig.machine.wants_disown() && rig.machine.activated().is_empty());
        rig.machine.disowned();
        assert_eq!(*rig.machine.activated(), [7]);
    }
}

#[test]
fn invalidations_find_room_or_keep_their_extent_active() {
    let mut rig = warm();
    assert!(rig.begin(1, 3));
    rig.pass(20);
    let now = rig.now;
    let mut forget = |slot: u32| {
        let (entry, none) = (Entry::new(1, false), BlockSet::EMPTY);
        rig.machine.record(Slot(slot), entry, LineNumber(3072), none, none, &[0; 16], now);
        (rig.machine.has_room_beside(0), rig.machine.statistics().records_lost)
    };
    let with_room = (0..256).filter(|slot| forget(*slot).0).count();
    assert!((200..226).contains(&with_room), "stores stop early, and a reserve is left");
    assert_eq!(forget(255).1, 0);
    assert_eq!(forget(256).1, 1);
    assert!(!rig.machine.lost, "its extent is kept instead");
    rig.end(3);
    rig.machine.activity.retire_all();
    assert!(rig.machine.activity.is_active(3));
}

#[test]
fn checksums_of_a_line_are_those_that_were_recorded() {
    let mut rig = warm();
    let slots = recorded(&mut rig, 3, 2);
    let (mut rig, _) = Rig::started(rig.disk, Start::Warm);
    assert!(rig.machine.read_checksums(slots[1]));
    rig.settle();
    let answers = std::mem::take(rig.machine.checksums_read());
    let known = answers[0].1.expect("its page is whole");
    assert_eq!((answers[0].0, known.valid, known.checksums[0]), (slots[1], BlockSet(1), 3073));
}

#[test]
fn a_line_is_loaded_once() {
    let mut rig = warm();
    let slots = [rig.store(3072, 2), rig.store(3072, 9)];
    rig.pass(20);
    let (rig, lines) = Rig::started(rig.disk, Start::Warm);
    assert!(lines.len() == 1 && lines[0].slot == slots[0]);
    assert_eq!(rig.machine.statistics().lines_dropped, 1);
    let (rig, lines) = Rig::started(rig.stop(), Start::Warm);
    assert_eq!((lines.len(), rig.machine.statistics().lines_dropped), (1, 0), "and for good");
}

#[test]
fn whatever_the_device_holds_a_start_comes_to_its_end() {
    let mut rig = warm();
    (1..9).for_each(|extent| drop(recorded(&mut rig, extent, 9)));
    assert!(!rig.begin(1, 1));
    rig.settle();
    let (rig, _) = Rig::started(rig.disk, Start::Warm);
    for seed in 0..200 {
        let mut random = Random::new(seed);
        let mut disk = rig.disk.clone();
        for _ in 0..random.range(1..=200) {
            let length = disk.visible.len() as u64;
            let at = random.range(SUPERBLOCKS.end..=length - 1) as usize;
            disk.visible[at] ^= 1 << random.below(8);
        }
        let (rig, lines) = Rig::started(disk, Start::Warm);
        assert!(lines.len() <= 72 && !rig.machine.is_failed(), "seed {seed}");
    }
}
