//! The world: a seed, a clock that stands still until a test moves it, and what is scheduled.
//!
//! Events of the same time fire in the order in which they were scheduled. An event holds its
//! component weakly, so a dropped component's events fire and do nothing.

use std::cell::{Cell, RefCell};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fmt;
use std::rc::{Rc, Weak};
use std::time::Duration;

use super::Random;
use crate::Timestamp;

/// The handle. Cheap to clone; clones are the same world.
#[derive(Clone)]
pub struct World(Rc<Inner>);

struct Inner {
    seed: u64,
    now: Cell<Timestamp>,
    schedule: RefCell<Schedule>,
}

/// What is to come. An event stays in its slot, so that only its name moves in the heap.
#[derive(Default)]
struct Schedule {
    heap: BinaryHeap<Reverse<Key>>,
    slots: Vec<Slot>,
    free: Vec<u32>,
    sequence: u64,
    /// Events that were not taken away.
    live: usize,
}

/// Time, the order among those of one time, and the slot, so that one comparison orders them:
/// 64, 40 and 24 bits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Key(u128);

impl Key {
    const SLOT_BITS: u32 = 24;

    fn new(time: Timestamp, sequence: u64, slot: u32) -> Self {
        let fits = sequence >> (64 - Self::SLOT_BITS) == 0 && slot >> Self::SLOT_BITS == 0;
        assert!(fits, "event {sequence} in slot {slot}: more than a world can have");
        let order = sequence << Self::SLOT_BITS | u64::from(slot);
        Self(u128::from(time.0) << 64 | u128::from(order))
    }

    fn time(self) -> Timestamp {
        Timestamp((self.0 >> 64) as u64)
    }

    fn slot(self) -> u32 {
        self.0 as u32 & ((1 << Self::SLOT_BITS) - 1)
    }
}

struct Slot {
    sequence: u64,
    event: Event,
}

enum Event {
    /// Nothing happens; the clock stops there.
    Stop,
    Call(Box<dyn FnOnce(&World)>),
    /// A component of the simulation, and what it calls the event.
    Target(Weak<dyn Target>, u64),
    /// Taken away: the clock does not stop there.
    Gone,
}

/// A component with many events: they carry a token in place of an allocation each.
pub(super) trait Target {
    /// The event `token` is due.
    fn fire(self: Rc<Self>, world: &World, token: u64);
}

impl Schedule {
    fn insert(&mut self, time: Timestamp, event: Event) -> (u32, u64) {
        let sequence = self.sequence;
        self.sequence += 1;
        self.live += 1;
        let slot = Slot { sequence, event };
        let number = match self.free.pop() {
            Some(number) => {
                self.slots[number as usize] = slot;
                number
            }
            None => {
                self.slots.push(slot);
                self.slots.len() as u32 - 1
            }
        };
        self.heap.push(Reverse(Key::new(time, sequence, number)));
        (number, sequence)
    }

    /// The time of the next event, once those taken away are out of the way.
    fn next(&mut self) -> Option<Timestamp> {
        loop {
            let Reverse(key) = *self.heap.peek()?;
            if !matches!(self.slots[key.slot() as usize].event, Event::Gone) {
                return Some(key.time());
            }
            self.heap.pop();
            self.free.push(key.slot());
        }
    }

    /// Takes the next event out if it is due at `time`.
    fn take_due(&mut self, time: Timestamp) -> Option<(Timestamp, Event)> {
        let due = self.next().filter(|due| *due <= time)?;
        let number = self.heap.pop()?.0.slot();
        self.free.push(number);
        self.live -= 1;
        let event = std::mem::replace(&mut self.slots[number as usize].event, Event::Gone);
        Some((due, event))
    }

    fn remove(&mut self, number: u32, sequence: u64) {
        let slot = &mut self.slots[number as usize];
        if slot.sequence == sequence && !matches!(slot.event, Event::Gone) {
            slot.event = Event::Gone;
            self.live -= 1;
        }
    }
}

/// What a test's poll says to [`World::run`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Something moved: poll again at the same time.
    Progress,
    /// Nothing moved: on to the next event.
    Idle,
    /// The run is over.
    Done,
}

/// A run that could not end: nothing is scheduled any more, or it turned too often.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stalled {
    /// The world's seed.
    pub seed: u64,
    /// When it stopped.
    pub now: Timestamp,
    /// Whether events were still scheduled: then it turned in circles.
    pub events_left: bool,
}

impl World {
    /// Turns after which [`run`](Self::run) gives up.
    pub const TURNS_MAX: u64 = 50_000_000;

    /// A world at time zero with nothing in it.
    pub fn new(seed: u64) -> Self {
        Self(Rc::new(Inner { seed, now: Cell::default(), schedule: RefCell::default() }))
    }

    /// The seed: print it when a test fails.
    pub fn seed(&self) -> u64 {
        self.0.seed
    }

    /// The virtual time.
    pub fn now(&self) -> Timestamp {
        self.0.now.get()
    }

    /// The generator of the component `label`; see [`Random::fork`].
    pub fn random(&self, label: &str) -> Random {
        Random::new(self.0.seed).fork(label)
    }

    /// Whether both are handles to one world.
    pub fn is_same(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
    }

    /// When the next event fires.
    pub fn next_event(&self) -> Option<Timestamp> {
        self.0.schedule.borrow_mut().next()
    }

    /// Jumps to the next scheduled event and fires all events of that time; false, and nothing
    /// changed, when nothing is scheduled.
    pub fn advance(&self) -> bool {
        let Some(time) = self.next_event() else { return false };
        self.advance_to(time);
        true
    }

    /// Fires everything scheduled up to and including `time`, in order, and sets the clock to it.
    /// A `time` in the past only fires what is due now.
    pub fn advance_to(&self, time: Timestamp) {
        let time = time.max(self.now());
        loop {
            let next = self.0.schedule.borrow_mut().take_due(time);
            let Some((due, event)) = next else { break };
            self.0.now.set(due);
            match event {
                Event::Call(call) => call(self),
                Event::Target(target, token) => {
                    if let Some(target) = target.upgrade() {
                        target.fire(self, token);
                    }
                }
                Event::Stop | Event::Gone => {}
            }
        }
        self.0.now.set(time);
    }

    /// Lets `duration` pass; see [`advance_to`](Self::advance_to).
    pub fn advance_by(&self, duration: Duration) {
        self.advance_to(self.now() + duration);
    }

    /// Has `event` called when the clock reaches `time`, or at the next advance if that is past.
    /// It should hold what it changes weakly: the world keeps it until it has fired.
    pub fn schedule(&self, time: Timestamp, event: impl FnOnce(&World) + 'static) {
        self.insert(time, Event::Call(Box::new(event)));
    }

    /// The same for a component, which tells its events apart by their tokens.
    pub(super) fn schedule_on(&self, time: Timestamp, target: Weak<dyn Target>, token: u64) {
        self.insert(time, Event::Target(target, token));
    }

    /// A stop of [`advance`](Self::advance) at `deadline`: how a protocol's timeout gets its turn
    /// in virtual time. Dropping it takes the stop away.
    pub fn timer(&self, deadline: Timestamp) -> Timer {
        let (slot, sequence) = self.insert(deadline, Event::Stop);
        Timer { world: self.clone(), slot, sequence, deadline }
    }

    /// Runs a test: polls until it is idle, advances to the next event, and so on until it is
    /// done.
    ///
    /// # Errors
    /// [`Stalled`] when it is idle and nothing is scheduled, or after
    /// [`TURNS_MAX`](Self::TURNS_MAX) polls.
    pub fn run(&self, mut poll: impl FnMut(Timestamp) -> Turn) -> Result<(), Stalled> {
        for _ in 0..Self::TURNS_MAX {
            match poll(self.now()) {
                Turn::Done => return Ok(()),
                Turn::Progress => {}
                Turn::Idle if self.advance() => {}
                Turn::Idle => break,
            }
        }
        let events_left = self.next_event().is_some();
        Err(Stalled { seed: self.seed(), now: self.now(), events_left })
    }

    fn insert(&self, time: Timestamp, event: Event) -> (u32, u64) {
        self.0.schedule.borrow_mut().insert(time.max(self.now()), event)
    }
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheduled = self.0.schedule.borrow().live;
        f.debug_struct("World")
            .field("seed", &self.seed())
            .field("now", &self.now())
            .field("scheduled", &scheduled)
            .finish()
    }
}

impl fmt::Display for Stalled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, now: Timestamp(now), events_left } = self;
        let why = if *events_left { "polls without end" } else { "waits and nothing is scheduled" };
        write!(f, "seed {seed}: the run {why} at {now} ns")
    }
}

impl std::error::Error for Stalled {}

/// A stop in virtual time; see [`World::timer`].
#[derive(Debug)]
pub struct Timer {
    world: World,
    slot: u32,
    sequence: u64,
    deadline: Timestamp,
}

impl Timer {
    /// The time it was set for.
    pub fn deadline(&self) -> Timestamp {
        self.deadline
    }

    /// Whether that time has come.
    pub fn is_due(&self) -> bool {
        self.world.now() >= self.deadline
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.world.0.schedule.borrow_mut().remove(self.slot, self.sequence);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_fire_in_order_of_time_then_of_scheduling() {
        let world = World::new(1);
        let fired = Rc::new(RefCell::new(Vec::new()));
        for (time, name) in [(20, "c"), (10, "a"), (10, "b")] {
            let fired = Rc::clone(&fired);
            world.schedule(Timestamp(time), move |world| {
                fired.borrow_mut().push((world.now().0, name));
            });
        }
        assert!(world.advance());
        assert_eq!(*fired.borrow(), [(10, "a"), (10, "b")]);
        assert!(world.advance());
        assert!(!world.advance());
        assert_eq!(*fired.borrow(), [(10, "a"), (10, "b"), (20, "c")]);
        assert_eq!(world.now(), Timestamp(20));
    }

    #[test]
    fn an_event_may_schedule_and_the_past_is_now() {
        let world = World::new(1);
        world.advance_to(Timestamp(100));
        let count = Rc::new(Cell::new(0));
        let inner = Rc::clone(&count);
        world.schedule(Timestamp(5), move |world| {
            assert_eq!(world.now(), Timestamp(100), "time never goes back");
            inner.set(inner.get() + 1);
            world.schedule(Timestamp(150), move |_| inner.set(inner.get() + 1));
        });
        world.advance_to(Timestamp(149));
        assert_eq!(count.get(), 1);
        world.advance_by(Duration::from_nanos(1));
        assert_eq!(count.get(), 2);
    }

    #[test]
    fn a_timer_stops_the_clock_unless_dropped() {
        let world = World::new(1);
        let timer = world.timer(Timestamp(50));
        let dropped = world.timer(Timestamp(40));
        drop(dropped);
        assert!(!timer.is_due());
        assert!(world.advance());
        assert_eq!(world.now(), timer.deadline());
        assert!(timer.is_due());
        assert!(!world.advance());
    }

    #[test]
    fn a_timer_dropped_late_takes_nothing_else_away() {
        let world = World::new(1);
        let timer = world.timer(Timestamp(10));
        assert!(world.advance());
        let fired = Rc::new(Cell::new(false));
        let inner = Rc::clone(&fired);
        world.schedule(Timestamp(20), move |_| inner.set(true));
        drop(timer);
        assert!(world.advance());
        assert!(fired.get(), "the event in the place that the timer had");
    }

    #[test]
    fn a_run_ends_or_says_why_not() {
        let world = World::new(9);
        let timer = world.timer(Timestamp(5));
        let done = world.run(|_| if timer.is_due() { Turn::Done } else { Turn::Idle });
        assert_eq!(done, Ok(()));
        let stalled = world.run(|_| Turn::Idle).expect_err("nothing is scheduled");
        assert_eq!(stalled.to_string(), "seed 9: the run waits and nothing is scheduled at 5 ns");
    }
}
