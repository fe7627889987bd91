//! Whether other cores may serve hits of a volume in place, and where its bytes lie.
//!
//! ```text
//!   guest   enter: epoch, base, size ─▶ look up, read ─▶ epoch again ─▶ serve
//!   owner   close: epoch + 1 ─▶ change mode, range, key, device ─▶ open: epoch + 1
//! ```
//! The epoch is odd while the gate is open. It is raised before anything is done that relies on
//! nobody serving hits, so that a guest that saw something of what was done sees the epoch too, and
//! throws away what it read. The same rule as that of the versions of sets, for all of a volume.
//!
//! Absent: waiting for guests. What they have read is thrown away, not awaited.

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
}

/// What a guest goes in with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pass {
    epoch: u32,
    pub(super) base: u64,
    pub(super) capacity: u64,
}

impl Gate {
    /// A closed gate.
    pub(super) fn new() -> Self {
        Self {
            epoch: AtomicU32::new(0),
            given_up: AtomicU32::new(0),
            base: AtomicU64::new(0),
            capacity: AtomicU64::new(0),
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

    /// A guest's first step; none when the gate is closed.
    pub(super) fn enter(&self) -> Option<Pass> {
        let epoch = self.epoch.load(Ordering::Acquire);
        // They may be newer than the epoch; then it is not the same any more in the end.
        let base = self.base.load(Ordering::Relaxed);
        let capacity = self.capacity.load(Ordering::Relaxed);
        (epoch & 1 == 1).then_some(Pass { epoch, base, capacity })
    }

    /// A guest's last step: whether what it read since it entered may be served.
    pub(super) fn still(&self, pass: Pass) -> bool {
        fence(Ordering::Acquire);
        self.epoch.load(Ordering::Relaxed) == pass.epoch
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

    #[test]
    fn only_who_entered_the_gate_as_it_is_may_serve() {
        let gate = Gate::new();
        assert_eq!(gate.enter(), None, "closed at first");
        gate.publish(true, 64, 512);
        let pass = gate.enter().expect("open");
        assert_eq!((pass.base, pass.capacity), (64, 512));
        gate.publish(true, 64, 512);
        assert!(gate.still(pass), "nothing has changed");
        for (open, base) in [(true, 128), (false, 128), (false, 64), (true, 64)] {
            gate.publish(open, base, 512);
            assert!(!gate.still(pass) && gate.enter() != Some(pass));
            assert_eq!(gate.enter().is_some(), open);
        }
        gate.close_for_good();
        assert!(gate.enter().is_none() && gate.is_gone());
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
    }

    /// What a guest serves of a volume of one word.
    fn serve(shared: &Shared) -> Option<(u64, u32)> {
        let pass = shared.gate.enter()?;
        let read = shared.device[pass.base as usize].load(Ordering::Relaxed);
        shared.gate.still(pass).then_some((pass.base, read))
    }

    fn explore(
        owner: impl Fn(&Shared) + Copy + Sync + Send + 'static,
        right: impl Fn(u64, u32) -> bool + Copy + Sync + Send + 'static,
    ) {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(3);
        builder.check(move || {
            let device = [AtomicU32::new(10), AtomicU32::new(0)];
            let shared = Arc::new(Shared { gate: Gate::new(), device });
            shared.gate.publish(true, 0, 1);
            let guests = Arc::clone(&shared);
            let guest = thread::spawn(move || {
                for _ in 0..2 {
                    if let Some((base, read)) = serve(&guests) {
                        assert!(right(base, read), "{read} at {base}");
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
}
