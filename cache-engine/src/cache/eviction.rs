//! S3-FIFO within a set: which line goes when a set is full.
//!
//! After Yang et al., "FIFO queues are all you need for cache eviction" (SOSP 2023), with its
//! three queues inside one set of sixteen ways: a *small* queue that new lines enter, a *main*
//! queue for lines that were used twice while in the small one or came back soon after they were
//! evicted, and the *ghosts*: fingerprints of lines that left the small queue unused.
//!
//! ```text
//!   new line ─▶ small ──used twice──▶ main tail ──used──▶ main tail again, one use less
//!                 └─otherwise─▶ evicted, ghost    └─unused─▶ evicted
//!   ghost seen again ──▶ main, in turn its tail and its head
//! ```
//! One use is not enough to leave the small queue, because requests that are not aligned to lines
//! touch a line twice within a moment. Of the lines that come back, only about half are trusted
//! with a whole round of the main queue: a loop that is larger than the cache would otherwise push
//! out everything that it has just brought in. Both are measured: docs/design/0003-eviction.md.
//!
//! A hit counts a use in its own entry. Everything else happens here, on a miss, as the same few
//! operations on all sixteen ways at once: no queue is walked. What a walk round the main queue,
//! taking a use from each way it passes, would come to is the way with the fewest uses and of
//! those the oldest, and the others' places and uses follow from its own.

use super::entry::{Entry, Set, WAYS};

/// The small queue gives up a line before the main queue does once it holds this many: a tenth of
/// the ways, as in the paper, rounded up to something that can hold a burst of two.
const SMALL_TARGET: u32 = 2;

/// Uses that take a line from the small queue to the main one.
const PROMOTION_USES: u32 = 2;

/// Fingerprints of the lines that a set evicted last, newest first; zero is none.
#[derive(Clone, Copy, Default)]
pub(crate) struct Ghosts([u16; WAYS]);

impl Ghosts {
    fn remember(&mut self, tag: u32) {
        self.0.copy_within(..WAYS - 1, 1);
        self.0[0] = fingerprint(tag);
    }

    /// Whether the line was evicted lately; if so it is forgotten.
    fn recall(&mut self, tag: u32) -> bool {
        let wanted = fingerprint(tag);
        let matches = bits(|at| self.0[at] == wanted);
        if matches == 0 {
            return false;
        }
        let at = matches.trailing_zeros() as usize;
        self.0.copy_within(at + 1.., at);
        self.0[WAYS - 1] = 0;
        true
    }

    /// As good as a coin: whichever line was evicted last says nothing about the next one.
    fn coin(&self) -> bool {
        self.0[0] & 1 == 1
    }
}

fn fingerprint(tag: u32) -> u16 {
    // 16 of the 22 bits, folded; a false match only means a place in the wrong queue.
    ((tag ^ tag >> 16) as u16).max(1)
}

/// A bit for each way of which something is true; without a branch between the ways.
fn bits(is_true: impl Fn(usize) -> bool) -> u32 {
    (0..WAYS).fold(0, |bits, way| bits | u32::from(is_true(way)) << way)
}

/// Finds a way for a new line: an empty one, else one whose content is void, else the one that
/// S3-FIFO gives up. `may_go` says whether a way may be given away now, `void` has a bit for each
/// way of which nothing valid would be lost. The way is out of its queue afterwards; its entry is
/// left for the caller to look at. None when no way may go.
pub(crate) fn make_room(
    set: &mut Set,
    ghosts: &mut Ghosts,
    may_go: impl Fn(Entry) -> bool,
    void: u16,
) -> Option<usize> {
    let empty = bits(|way| !set.0[way].is_occupied());
    if empty != 0 {
        return Some(empty.trailing_zeros() as usize);
    }
    if void != 0 {
        let void = (0..WAYS).find(|way| void >> way & 1 == 1 && may_go(set.0[*way]));
        if let Some(way) = void {
            close_gap(set, way);
            return Some(way);
        }
    }
    // The set is full: what is not in the small queue is in the main one.
    let mut small = length(set, false);
    while small >= SMALL_TARGET {
        let oldest = bits(|way| !set.0[way].is_main() && set.0[way].order() == 0);
        let way = oldest.trailing_zeros() as usize % WAYS;
        close_gap(set, way);
        small -= 1;
        let entry = &mut set.0[way];
        if entry.frequency() < PROMOTION_USES && may_go(*entry) {
            ghosts.remember(entry.tag());
            return Some(way);
        }
        entry.set_frequency(0);
        entry.set_main();
        entry.set_order(WAYS as u32 - small - 1);
    }
    turn_main(set, WAYS as u32 - small, may_go)
}

/// Turns the main queue, which has so many ways, until one without a use falls out of it. A way
/// that may not go is passed by.
fn turn_main(set: &mut Set, length: u32, may_go: impl Fn(Entry) -> bool) -> Option<usize> {
    let mut passed_by = 0;
    let way = loop {
        let rank = |way: usize| {
            let entry = set.0[way];
            let is_in = entry.is_main() && passed_by & 1 << way == 0;
            let rank = (entry.frequency() << 4 | entry.order()) << 4 | way as u32;
            if is_in { rank } else { u32::MAX }
        };
        let first = (0..WAYS).map(rank).fold(u32::MAX, u32::min);
        if first == u32::MAX {
            return None;
        }
        let way = first as usize % WAYS;
        if may_go(set.0[way]) {
            break way;
        }
        passed_by |= 1 << way;
    };
    let gone = set.0[way];
    for entry in &mut set.0 {
        // Those before it were passed once more.
        let is_before = entry.order() < gone.order();
        let uses = entry.frequency().saturating_sub(gone.frequency() + u32::from(is_before));
        let order = entry.order() + if is_before { length } else { 0 };
        let mut turned = *entry;
        turned.set_frequency(uses);
        turned.set_order(order.wrapping_sub(gone.order() + 1) % WAYS as u32);
        *entry = if entry.is_main() { turned } else { *entry };
    }
    set.0[way] = gone;
    Some(way)
}

/// Puts a line into a way that [`make_room`] found.
pub(crate) fn insert(set: &mut Set, ghosts: &mut Ghosts, way: usize, tag: u32) {
    let returns = ghosts.recall(tag);
    set.0[way] = Entry::default();
    let mut entry = Entry::new(tag, returns);
    if returns && ghosts.coin() {
        for other in &mut set.0 {
            let order = (other.order() + 1) % WAYS as u32;
            let mut moved = *other;
            moved.set_order(order);
            *other = if in_queue(*other, true) { moved } else { *other };
        }
    } else {
        entry.set_order(length(set, returns));
    }
    set.0[way] = entry;
}

fn in_queue(entry: Entry, main: bool) -> bool {
    entry.is_occupied() && entry.is_main() == main
}

fn length(set: &Set, main: bool) -> u32 {
    set.0.iter().map(|entry| u32::from(in_queue(*entry, main))).sum()
}

/// Moves up what stands behind a way that leaves its queue.
fn close_gap(set: &mut Set, way: usize) {
    let gone = set.0[way];
    for entry in &mut set.0 {
        let is_behind = in_queue(*entry, gone.is_main()) && entry.order() > gone.order();
        let mut moved = *entry;
        moved.set_order(entry.order().saturating_sub(1));
        *entry = if is_behind { moved } else { *entry };
    }
}

#[cfg(test)]
mod tests {
    use super::super::entry::FREQUENCY_MAX;
    use super::*;

    fn cache(set: &mut Set, ghosts: &mut Ghosts, tag: u32) -> Option<u32> {
        let way = make_room(set, ghosts, |_| true, 0)?;
        let gone = set.0[way];
        insert(set, ghosts, way, tag);
        check(set);
        Some(if gone.is_occupied() { gone.tag() } else { u32::MAX })
    }

    fn hit(set: &mut Set, tag: u32) -> bool {
        let entry = set.0.iter_mut().find(|entry| entry.is_occupied() && entry.tag() == tag);
        entry.map(|entry| entry.note_use(FREQUENCY_MAX)).is_some()
    }

    /// Orders of each queue are 0, 1, 2, … without gaps.
    fn check(set: &Set) {
        for main in [false, true] {
            let mut orders: Vec<_> =
                set.0.iter().filter(|e| in_queue(**e, main)).map(|e| e.order()).collect();
            orders.sort_unstable();
            assert_eq!(orders, (0..orders.len() as u32).collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_scan_does_not_push_out_what_is_hit() {
        let (mut set, mut ghosts) = (Set::default(), Ghosts::default());
        for tag in 0..8 {
            cache(&mut set, &mut ghosts, tag);
            hit(&mut set, tag);
        }
        for tag in 100..1000 {
            cache(&mut set, &mut ghosts, tag);
            for hot in 0..8 {
                assert!(hit(&mut set, hot), "line {hot} went for scanned line {tag}");
            }
        }
    }

    #[test]
    fn a_line_that_returns_soon_enters_the_main_queue() {
        let (mut set, mut ghosts) = (Set::default(), Ghosts::default());
        for tag in 1..=17 {
            cache(&mut set, &mut ghosts, tag);
        }
        assert!(!hit(&mut set, 1), "the oldest unused line went first");
        cache(&mut set, &mut ghosts, 1);
        let entry = set.0.iter().find(|entry| entry.tag() == 1).expect("cached");
        assert!(entry.is_main());
    }

    #[test]
    fn when_nothing_may_go_the_search_ends_and_the_queues_are_whole() {
        let (mut set, mut ghosts) = (Set::default(), Ghosts::default());
        for tag in 0..16 {
            cache(&mut set, &mut ghosts, tag);
            hit(&mut set, tag);
        }
        assert_eq!(make_room(&mut set, &mut ghosts, |_| false, 0), None);
        check(&set);
        let only = make_room(&mut set, &mut ghosts, |entry| entry.tag() == 11, 0);
        assert_eq!(only.map(|way| set.0[way].tag()), Some(11));
    }

    #[test]
    fn one_use_is_not_enough_to_leave_the_small_queue() {
        let (mut set, mut ghosts) = (Set::default(), Ghosts::default());
        for tag in 0..16 {
            cache(&mut set, &mut ghosts, tag);
        }
        hit(&mut set, 0);
        hit(&mut set, 1);
        hit(&mut set, 1);
        assert_eq!(cache(&mut set, &mut ghosts, 16), Some(0));
        assert_eq!(cache(&mut set, &mut ghosts, 17), Some(2), "1 was used twice");
    }

    #[test]
    fn lines_that_return_enter_at_both_ends() {
        let (mut set, mut ghosts) = (Set::default(), Ghosts::default());
        let mut ends = [0; 2];
        // A loop over more lines than there are ways: nearly all return.
        for step in 0..1000u32 {
            let tag = step % 24 * 7;
            if hit(&mut set, tag) {
                continue;
            }
            cache(&mut set, &mut ghosts, tag);
            let entry = *set.0.iter().find(|entry| entry.tag() == tag).expect("cached");
            let last = length(&set, true).wrapping_sub(1);
            if entry.is_main() && last > 0 {
                ends[usize::from(entry.order() == last)] += 1;
                assert!(entry.order() == 0 || entry.order() == last);
            }
        }
        assert!(ends.iter().all(|count| *count > 50), "{ends:?}");
    }

    /// What [`make_room`] does to a full set without void ways, walked step by step: tags and uses
    /// of both queues, oldest first, and who goes.
    fn walk(queues: &mut [Vec<(u32, u32)>; 2], may_go: impl Fn(u32) -> bool) -> Option<u32> {
        let [small, main] = queues;
        while small.len() >= 2 {
            let (tag, uses) = small.remove(0);
            if uses < 2 && may_go(tag) {
                return Some(tag);
            }
            main.push((tag, 0));
        }
        for _ in 0..5 * WAYS {
            let (tag, uses) = main.remove(0);
            if uses == 0 && may_go(tag) {
                return Some(tag);
            }
            main.push((tag, uses.saturating_sub(1)));
        }
        None
    }

    fn queues(set: &Set) -> [Vec<(u32, u32)>; 2] {
        [false, true].map(|main| {
            let mut entries: Vec<_> = set.0.iter().filter(|e| in_queue(**e, main)).collect();
            entries.sort_by_key(|entry| entry.order());
            entries.iter().map(|entry| (entry.tag(), entry.frequency())).collect()
        })
    }

    #[test]
    fn what_goes_is_what_a_walk_round_the_queues_finds() {
        let mut random = block_io::sim::Random::new(5);
        let (mut set, mut ghosts) = (Set::default(), Ghosts::default());
        for _ in 0..20_000 {
            let tag = random.below(60) as u32;
            if hit(&mut set, tag) {
                continue;
            }
            let kept = if random.below(4) == 0 { random.below(1 << 60) } else { 0 };
            let may_go = |tag: u32| kept >> tag & 1 == 0;
            let mut expected = queues(&set);
            let is_full = expected.iter().map(Vec::len).sum::<usize>() == WAYS;
            let gone = make_room(&mut set, &mut ghosts, |entry| may_go(entry.tag()), 0);
            if is_full {
                let walked = walk(&mut expected, may_go);
                assert_eq!(gone.map(|way| set.0[way].tag()), walked);
            }
            let Some(way) = gone else { continue };
            let gone = std::mem::take(&mut set.0[way]);
            if gone.is_occupied() {
                assert_eq!(queues(&set), expected);
            }
            insert(&mut set, &mut ghosts, way, tag);
            check(&set);
        }
    }

    #[test]
    fn ghosts_forget_the_oldest() {
        let mut ghosts = Ghosts::default();
        for tag in 1..=17 {
            ghosts.remember(tag);
        }
        assert!(!ghosts.recall(1), "the seventeenth pushed it out");
        assert!(ghosts.recall(2) && !ghosts.recall(2), "recalling forgets");
    }
}
