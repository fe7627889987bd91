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
//! A hit counts a use in its own entry. Everything else happens here, on a miss: the queues are
//! read once, turned in registers and on the stack, and written back once.

use super::entry::{Entry, Set, WAYS};

/// The small queue gives up a line before the main queue does once it holds this many: a tenth of
/// the ways, as in the paper, rounded up to something that can hold a burst of two.
const SMALL_TARGET: usize = 2;

/// Uses that take a line from the small queue to the main one.
const PROMOTION_USES: u32 = 2;

/// Steps after which every way has been in its final state: one that takes it out of the small
/// queue, one for each use it can have, and one that finds it without.
const STEPS_MAX: usize = WAYS * (2 + super::entry::FREQUENCY_MAX as usize);

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

    /// As good as a coin: whichever line was evicted last says nothing about the next one.
    fn coin(&self) -> bool {
        self.0[0] & 1 == 1
    }
}

fn fingerprint(tag: u32) -> u16 {
    // 16 of the 22 bits, folded; a false match only means a place in the wrong queue.
    ((tag ^ tag >> 16) as u16).max(1)
}

/// One queue of a set while it is turned: ways, oldest first, in a ring.
struct Queue {
    ways: [u8; WAYS],
    head: usize,
    length: usize,
}

impl Queue {
    const EMPTY: Self = Self { ways: [0; WAYS], head: 0, length: 0 };

    /// Puts a way at the place that its entry names; every place is named once.
    fn place(&mut self, order: u32, way: usize) {
        self.ways[order as usize % WAYS] = way as u8;
        self.length += 1;
    }

    fn pop(&mut self) -> Option<usize> {
        let way = usize::from(self.ways[self.head]) % WAYS;
        self.length = self.length.checked_sub(1)?;
        self.head = (self.head + 1) % WAYS;
        Some(way)
    }

    fn push(&mut self, way: usize) {
        self.ways[(self.head + self.length) % WAYS] = way as u8;
        self.length += 1;
    }

    /// Writes the places back into the entries.
    fn store(&self, set: &mut Set) {
        for order in 0..self.length {
            let way = self.ways[(self.head + order) % WAYS];
            set.0[usize::from(way) % WAYS].set_order(order as u32);
        }
    }
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
        close_gap(set, set.0[way]);
        return Some(way);
    }
    let (mut small, mut main) = (Queue::EMPTY, Queue::EMPTY);
    for (way, entry) in set.0.iter().enumerate() {
        let queue = if entry.is_main() { &mut main } else { &mut small };
        queue.place(entry.order(), way);
    }
    let victim = turn(set, &mut small, &mut main, may_go);
    small.store(set);
    main.store(set);
    let way = victim?;
    if !set.0[way].is_main() {
        ghosts.remember(set.0[way].tag());
    }
    Some(way)
}

/// Turns the queues of a full set until a way falls out. Every step moves a way to the tail of the
/// main queue or ends the search.
fn turn(
    set: &mut Set,
    small: &mut Queue,
    main: &mut Queue,
    may_go: impl Fn(Entry) -> bool,
) -> Option<usize> {
    for _ in 0..STEPS_MAX {
        let from_small = small.length >= SMALL_TARGET || main.length == 0;
        let way = if from_small { small.pop() } else { main.pop() }?;
        let entry = &mut set.0[way];
        let (uses, enough) = (entry.frequency(), if from_small { PROMOTION_USES } else { 1 });
        if uses < enough && may_go(*entry) {
            return Some(way);
        }
        entry.set_frequency(if from_small { 0 } else { uses.saturating_sub(1) });
        entry.set_main();
        main.push(way);
    }
    None
}

/// Puts a line into a way that [`make_room`] found.
pub(crate) fn insert(set: &mut Set, ghosts: &mut Ghosts, way: usize, tag: u32) {
    let returns = ghosts.recall(tag);
    set.0[way] = Entry::default();
    let mut entry = Entry::new(tag, returns);
    if returns && ghosts.coin() {
        for other in set.0.iter_mut().filter(|other| in_queue(**other, true)) {
            other.set_order(other.order() + 1);
        }
    } else {
        let others = set.0.iter().map(|other| u32::from(in_queue(*other, returns)));
        entry.set_order(others.sum());
    }
    set.0[way] = entry;
}

fn in_queue(entry: Entry, main: bool) -> bool {
    entry.is_occupied() && entry.is_main() == main
}

/// Moves up what stands behind an entry that leaves its queue.
fn close_gap(set: &mut Set, gone: Entry) {
    for entry in &mut set.0 {
        if in_queue(*entry, gone.is_main()) && entry.order() > gone.order() {
            entry.set_order(entry.order() - 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::entry::FREQUENCY_MAX;
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
