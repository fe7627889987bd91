//! Whether other cores may serve hits of a volume in place, and where its bytes lie.
//!
//! ```text
//!   guest   enter: epoch, base, size ─▶ look up, read ─▶ epoch again ─▶ serve
//!   owner   close: epoch + 1 ─▶ change mode, range, key, device ─▶ open: epoch + 1
//! ```
//! A deadline stands beside: whoever reads a clock that has reached it serves nothing, whether the
//! owner has noticed or not. It moves while the gate is open, when the volume's lease is renewed: a
//! later one is for those who enter from then on, an earlier one for everybody.
//!
//! The epoch is odd while the gate is open. It is raised before anything is done that relies on
//! nobody serving hits, so that a guest that saw something of what was done sees the epoch too, and
//! throws away what it read. The same rule as that of the versions of sets, for all of a volume.
//!
//! Absent: waiting for guests. What they have read is thrown away, not awaited.

use block_io::Timestamp;

use super::super::atomics::{AtomicU32, AtomicU64, Ordering, fence};

/// The base of a volume that is gone: no range begins there.
const GONE: u64 = u64::MAX;

/// See the module. Guests read it, the owner's core changes it.
#[repr(align(64))]
pub(super) struct Gate {
    epoch: AtomicU32,
    /// 1 when the cache device is given up, and guests have to leave it.
    given_up: AtomicU32,
    base: AtomicU64,
    capacity: AtomicU64,
    /// End of the volume's lease.
    until: AtomicU64,
}

/// What a guest goes in with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pass {
    epoch: u32,
    pub(super) base: u64,
    pub(super) capacity: u64,
    until: Timestamp,
}

impl Gate {
    /// A closed gate.
    pub(super) fn new() -> Self {
        Self {
            epoch: AtomicU32::new(0),
            given_up: AtomicU32::new(0),
            base: AtomicU64::new(0),
            capacity: AtomicU64::new(0),
            until: AtomicU64::new(0),
        }
    }

    /// Whether the cache device is given up.
    pub(super) fn is_given_up(&self) -> bool {
        self.given_up.load(Ordering::Acquire) == 1
    }

    /// The owner's: says whether the cache device is given up.
    pub(super) fn set_given_up(&self, given_up: bool) {
        self.given_up.store(u32::from(given_up), Ordering::Release);
    }

    /// A guest's first step; none when the gate is closed, or the lease over.
    pub(super) fn enter(&self, now: Timestamp) -> Option<Pass> {
        let epoch = self.epoch.load(Ordering::Acquire);
        // They may be newer than the epoch; then it is not the same any more in the end.
        let base = self.base.load(Ordering::Relaxed);
        let capacity = self.capacity.load(Ordering::Relaxed);
        let until = Timestamp(self.until.load(Ordering::Relaxed));
        (epoch & 1 == 1 && now < until).then_some(Pass { epoch, base, capacity, until })
    }

    /// A guest's last step: whether what it read since it entered may be served.
    pub(super) fn still(&self, pass: Pass, now: Timestamp) -> bool {
        fence(Ordering::Acquire);
        let until = pass.until.0.min(self.until.load(Ordering::Relaxed));
        self.epoch.load(Ordering::Relaxed) == pass.epoch && now.0 < until
    }

    /// Size of the volume in bytes.
    pub(super) fn capacity(&self) -> u64 {
        self.capacity.load(Ordering::Relaxed)
    }

    /// The owner's: opens the gate or closes it, before what follows from that is done.
    pub(super) fn publish(&self, open: bool, base: u64, capacity: u64) {
        let epoch = self.epoch.load(Ordering::Relaxed);
        let is_open = epoch & 1 == 1;
        let place = (self.base.load(Ordering::Relaxed), self.capacity.load(Ordering::Relaxed));
        if is_open == open && place == (base, capacity) {
            return;
        }
        // Even, and another one than before even if the gate was closed.
        let closed = epoch.wrapping_add(if is_open { 1 } else { 2 });
        self.epoch.store(closed, Ordering::Release);
        // Nothing that is stored after this is seen before the epoch is.
        fence(Ordering::Release);
        self.base.store(base, Ordering::Relaxed);
        self.capacity.store(capacity, Ordering::Relaxed);
        if open {
            self.epoch.store(closed.wrapping_add(1), Ordering::Release);
        }
    }

    /// The owner's: until when hits may be served while the gate is open. To be called before it is
    /// opened.
    pub(super) fn set_deadline(&self, until: Timestamp) {
        self.until.store(until.0, Ordering::Relaxed);
    }

    /// The owner's: closes the gate for good.
    pub(super) fn close_for_good(&self) {
        self.publish(false, GONE, 0);
    }

    /// The owner's: whether it was closed for good.
    pub(super) fn is_gone(&self) -> bool {
        self.base.load(Ordering::Relaxed) == GONE
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(5);

    #[test]
    fn only_who_entered_the_gate_as_it_is_may_serve() {
        let gate = Gate::new();
        gate.set_deadline(Timestamp(u64::MAX));
        assert_eq!(gate.enter(NOW), None, "closed at first");
        gate.publish(true, 64, 512);
        let pass = gate.enter(NOW).expect("open");
        assert_eq!((pass.base, pass.capacity), (64, 512));
        gate.publish(true, 64, 512);
        assert!(gate.still(pass, NOW), "nothing has changed");
        for (open, base) in [(true, 128), (false, 128), (false, 64), (true, 64)] {
            gate.publish(open, base, 512);
            assert!(!gate.still(pass, NOW) && gate.enter(NOW) != Some(pass));
            assert_eq!(gate.enter(NOW).is_some(), open);
        }
        gate.close_for_good();
        assert!(gate.enter(NOW).is_none() && gate.is_gone());
    }

    #[test]
    fn nobody_serves_from_the_deadline_on_and_a_renewal_disturbs_nobody() {
        let gate = Gate::new();
        gate.set_deadline(Timestamp(10));
        gate.publish(true, 0, 512);
        let pass = gate.enter(Timestamp(9)).expect("before the end");
        assert!(gate.still(pass, Timestamp(9)) && !gate.still(pass, Timestamp(10)));
        assert_eq!(gate.enter(Timestamp(10)), None);
        gate.set_deadline(Timestamp(20));
        assert!(gate.still(pass, Timestamp(9)), "what is under way goes on");
        assert!(gate.enter(Timestamp(19)).is_some() && gate.enter(Timestamp(20)).is_none());
        let pass = gate.enter(Timestamp(11)).expect("before the end");
        gate.set_deadline(Timestamp(15));
        assert!(gate.still(pass, Timestamp(14)) && !gate.still(pass, Timestamp(15)), "shortened");
    }
}

/// A guest on one core and the owner on another. The device is words without any order of their
/// own, so that only the gate can keep a guest from serving the wrong ones.
#[cfg(all(test, loom))]
mod interleavings {
    use loom::sync::Arc;
    use loom::thread;

    use super::*;

    struct Shared {
        gate: Gate,
        device: [AtomicU32; 2],
        /// The clock of all cores.
        time: AtomicU64,
    }

    impl Shared {
        fn time(&self) -> Timestamp {
            Timestamp(self.time.load(Ordering::Acquire))
        }
    }

    /// What a guest serves of a volume of one word: from where, what, and when.
    fn serve(shared: &Shared) -> Option<(u64, u32, u64)> {
        let pass = shared.gate.enter(shared.time())?;
        let read = shared.device[pass.base as usize].load(Ordering::Relaxed);
        let now = shared.time();
        shared.gate.still(pass, now).then_some((pass.base, read, now.0))
    }

    fn explore(
        owner: impl Fn(&Shared) + Copy + Sync + Send + 'static,
        right: impl Fn(u64, u32) -> bool + Copy + Sync + Send + 'static,
    ) {
        explore_until(u64::MAX, owner, move |base, read, _| right(base, read));
    }

    /// The same under a lease.
    fn explore_until(
        end: u64,
        owner: impl Fn(&Shared) + Copy + Sync + Send + 'static,
        right: impl Fn(u64, u32, u64) -> bool + Copy + Sync + Send + 'static,
    ) {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(3);
        builder.check(move || {
            let device = [AtomicU32::new(10), AtomicU32::new(0)];
            let shared = Arc::new(Shared { gate: Gate::new(), device, time: AtomicU64::new(1) });
            shared.gate.set_deadline(Timestamp(end));
            shared.gate.publish(true, 0, 1);
            let guests = Arc::clone(&shared);
            let guest = thread::spawn(move || {
                for _ in 0..2 {
                    if let Some((base, read, now)) = serve(&guests) {
                        assert!(right(base, read, now), "{read} at {base} when it is {now}");
                    }
                }
            });
            owner(&shared);
            guest.join().expect("does not panic");
        });
    }

    #[test]
    fn nothing_of_what_is_done_behind_a_closed_gate_is_served() {
        let owner = |shared: &Shared| {
            shared.gate.publish(false, 0, 1);
            shared.device[0].store(99, Ordering::Relaxed);
            shared.device[0].store(10, Ordering::Relaxed);
            shared.gate.publish(true, 0, 1);
        };
        explore(owner, |_, read| read == 10);
    }

    #[test]
    fn a_volume_that_moves_is_read_where_it_is() {
        let owner = |shared: &Shared| {
            shared.device[1].store(11, Ordering::Relaxed);
            shared.gate.publish(true, 1, 1);
            shared.device[0].store(99, Ordering::Relaxed);
        };
        explore(owner, |base, read| read == 10 + base as u32);
    }

    #[test]
    fn a_lease_that_is_renewed_in_time_goes_on_to_its_new_end_and_not_past_it() {
        let owner = |shared: &Shared| {
            shared.gate.set_deadline(Timestamp(20));
            shared.time.store(15, Ordering::Release);
            shared.time.store(20, Ordering::Release);
            // The owner has not noticed when others change what is behind the line.
            shared.device[0].store(99, Ordering::Release);
        };
        explore_until(10, owner, |_, _, now| now < 20);
    }

    #[test]
    fn what_was_read_under_a_lease_that_is_over_is_not_served_under_the_next() {
        let owner = |shared: &Shared| {
            shared.time.store(10, Ordering::Release);
            shared.gate.publish(false, 0, 1);
            // The lines of before go, and others come.
            shared.device[0].store(11, Ordering::Relaxed);
            shared.gate.set_deadline(Timestamp(30));
            shared.gate.publish(true, 0, 1);
        };
        explore_until(10, owner, |_, read, now| match read {
            10 => now < 10,
            _ => read == 11 && now < 30,
        });
    }

    #[test]
    fn a_lease_that_is_shortened_ends_for_those_who_are_in_too() {
        let owner = |shared: &Shared| {
            shared.gate.set_deadline(Timestamp(10));
            shared.time.store(10, Ordering::Release);
        };
        explore_until(20, owner, |_, _, now| now < 10);
    }
}
