//! S3-FIFO within a set: which line goes when a set is full.
//!
//! After Yang et al., "FIFO queues are all you need for cache eviction" (SOSP 2023), with its
//! three queues inside one set of sixteen ways: a *small* queue that new lines enter, a *main*
//! queue for lines that were hit while in the small one or came back soon after they were evicted,
//! and the *ghosts*: fingerprints of lines that left the small queue unused.
//!
//! ```text
//!   new line ─▶ small ──hit meanwhile──▶ main ──hit meanwhile──▶ main again
//!                 └─unused─▶ evicted, ghost └─unused─▶ evicted
//!   ghost seen again ───────────────────▶ main
//! ```
//! A hit sets one bit. Everything else happens here, on a miss, within one CPU cache line.

use super::entry::{Entry, Set, WAYS};

/// The small queue gives up a line before the main queue does once it holds this many: a tenth of
/// the ways, as in the paper, rounded up to something that can hold a burst of two.
const SMALL_TARGET: u32 = 2;

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
        match self.0.iter().position(|fingerprint| *fingerprint == wanted) {
            Some(at) => {
                self.0.copy_within(at + 1.., at);
                self.0[WAYS - 1] = 0;
                true
            }
            None => false,
        }
    }
}

fn fingerprint(tag: u32) -> u16 {
    // 16 of the 22 bits, folded; a false match only means a place in the wrong queue.
    ((tag ^ tag >> 16) as u16).max(1)
}

/// Finds a way for a new line: an empty one, else one whose content is void, else the one that
/// S3-FIFO gives up. `may_go` says whether a way may be given away now, `is_void` whether nothing
/// valid would be lost. The way is out of its queue afterwards; its entry is left for the caller
/// to look at. None when no way may go.
pub(crate) fn make_room(
    set: &mut Set,
    ghosts: &mut Ghosts,
    may_go: impl Fn(Entry) -> bool,
    is_void: impl Fn(usize) -> bool,
) -> Option<usize> {
    if let Some(way) = set.0.iter().position(|entry| !entry.is_occupied()) {
        return Some(way);
    }
    let void = (0..WAYS).find(|way| is_void(*way) && may_go(set.0[*way]));
    if let Some(way) = void {
        unlink(set, way);
        return Some(way);
    }
    // Every step moves a way to the tail of the main queue or ends the search. A way may move
    // from small to main once and lose its reference once, hence three rounds see every way in
    // its final state.
    for _ in 0..3 * WAYS {
        let from_small = length(set, false) >= SMALL_TARGET || length(set, true) == 0;
        let way = oldest(set, !from_small)?;
        let entry = set.0[way];
        unlink(set, way);
        if entry.frequency() > 0 || !may_go(entry) {
            set.0[way].set_frequency(0);
            set.0[way].set_main();
            append(set, way);
            continue;
        }
        if from_small {
            ghosts.remember(entry.tag());
        }
        return Some(way);
    }
    None
}

/// Puts a line into a way that [`make_room`] found.
pub(crate) fn insert(set: &mut Set, ghosts: &mut Ghosts, way: usize, tag: u32) {
    let returns = ghosts.recall(tag);
    set.0[way] = Entry::default();
    let order = length(set, returns);
    let mut entry = Entry::new(tag, returns);
    entry.set_order(order);
    set.0[way] = entry;
}

fn in_queue(entry: Entry, main: bool) -> bool {
    entry.is_occupied() && entry.is_main() == main
}

fn length(set: &Set, main: bool) -> u32 {
    set.0.iter().map(|entry| u32::from(in_queue(*entry, main))).sum()
}

fn oldest(set: &Set, main: bool) -> Option<usize> {
    (0..WAYS).filter(|way| in_queue(set.0[*way], main)).min_by_key(|way| set.0[*way].order())
}

/// Takes a way out of its queue's order; its own entry keeps its place until it is appended or
/// overwritten.
fn unlink(set: &mut Set, way: usize) {
    let gone = set.0[way];
    for entry in &mut set.0 {
        if in_queue(*entry, gone.is_main()) && entry.order() > gone.order() {
            entry.set_order(entry.order() - 1);
        }
    }
}

/// Puts an unlinked way at the tail of the queue that its entry names.
fn append(set: &mut Set, way: usize) {
    let others = length(set, set.0[way].is_main()) - 1;
    set.0[way].set_order(others);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(set: &mut Set, ghosts: &mut Ghosts, tag: u32) -> Option<u32> {
        let way = make_room(set, ghosts, |_| true, |_| false)?;
        let gone = set.0[way];
        insert(set, ghosts, way, tag);
        check(set);
        Some(if gone.is_occupied() { gone.tag() } else { u32::MAX })
    }

    fn hit(set: &mut Set, tag: u32) -> bool {
        let entry = set.0.iter_mut().find(|entry| entry.is_occupied() && entry.tag() == tag);
        entry.map(|entry| entry.note_use(1)).is_some()
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
        assert_eq!(make_room(&mut set, &mut ghosts, |_| false, |_| false), None);
        check(&set);
        let only = make_room(&mut set, &mut ghosts, |entry| entry.tag() == 11, |_| false);
        assert_eq!(only.map(|way| set.0[way].tag()), Some(11));
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
