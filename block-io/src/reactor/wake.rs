//! How a thread that sleeps in its ring is woken by another: a flag and an eventfd.
//!
//! The flag spares the eventfd (a system call each) whenever the sleeper is awake anyway, and it
//! is where a lost wake-up would hide; so it is a type of its own that names no descriptor.

use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

#[cfg(all(loom, test))]
use loom::sync::atomic::{AtomicU8, Ordering};
#[cfg(not(all(loom, test)))]
use std::sync::atomic::{AtomicU8, Ordering};

use crate::DeviceError;

/// The sleeper runs and will look at its mailboxes before it sleeps.
const AWAKE: u8 = 0;
/// The sleeper is asleep, or past its last look.
const ASLEEP: u8 = 1;
/// Somebody has left a message since the sleeper last began to look.
const NOTIFIED: u8 = 2;

/// The agreement between one sleeper and many notifiers.
///
/// A notifier leaves its message first and changes the flag after; the sleeper changes the flag
/// first and looks for messages after. Every change is a read-modify-write, so they are in one
/// order: either the sleeper's step to `ASLEEP` finds `NOTIFIED` and fails, or the notifier finds
/// `ASLEEP` and must wake it.
#[derive(Debug)]
pub(super) struct WakeFlag(AtomicU8);

impl WakeFlag {
    pub(super) fn new() -> Self {
        Self(AtomicU8::new(AWAKE))
    }

    /// The notifier's step, after its message is left: whether it must wake the sleeper.
    #[must_use]
    pub(super) fn notify(&self) -> bool {
        self.0.swap(NOTIFIED, Ordering::AcqRel) == ASLEEP
    }

    /// The sleeper's step before it sleeps: whether it may. If not, there is news, and the flag is
    /// as after [`wake`](Self::wake).
    #[must_use]
    pub(super) fn try_sleep(&self) -> bool {
        let step = self.0.compare_exchange(AWAKE, ASLEEP, Ordering::AcqRel, Ordering::Acquire);
        if step.is_err() {
            self.wake();
        }
        step.is_ok()
    }

    /// The sleeper's step after it slept and before it looks for messages: whether there is news.
    pub(super) fn wake(&self) -> bool {
        self.0.swap(AWAKE, Ordering::AcqRel) == NOTIFIED
    }

    /// Whether there is news, without a change. For spinning.
    pub(super) fn is_notified(&self) -> bool {
        self.0.load(Ordering::Relaxed) == NOTIFIED
    }
}

/// The flag with the descriptor that ends a sleep.
#[derive(Debug)]
pub(super) struct Waker {
    pub(super) flag: WakeFlag,
    event: OwnedFd,
}

impl Waker {
    /// A waker. Its eventfd blocks on purpose: a ring reads it only when it can be read.
    ///
    /// # Errors
    /// When there are no more descriptors.
    pub(super) fn new() -> Result<Self, DeviceError> {
        let event = rustix::event::eventfd(0, rustix::event::EventfdFlags::CLOEXEC)
            .map_err(|error| DeviceError::with_source("making an eventfd for mailboxes", error))?;
        Ok(Self { flag: WakeFlag::new(), event })
    }

    /// Says that a message is left, and wakes the sleeper if it may sleep.
    pub(super) fn notify(&self) {
        if self.flag.notify() {
            // It cannot fail: the count is at most one write for each sleep, far from its limit.
            let _ = rustix::io::write(self.event.as_fd(), &1u64.to_ne_bytes());
        }
    }

    pub(super) fn raw_fd(&self) -> RawFd {
        self.event.as_raw_fd()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn only_a_sleeper_is_woken_and_only_once() {
        let flag = WakeFlag::new();
        assert!(!flag.notify(), "it is awake");
        assert!(flag.is_notified());
        assert!(!flag.try_sleep(), "there is news");
        assert!(flag.try_sleep(), "the news has been told");
        assert!(flag.notify());
        assert!(!flag.notify(), "one wake-up is enough");
        assert!(flag.wake(), "woken by news");
        assert!(flag.try_sleep());
        assert!(!flag.wake(), "woken by something else");
    }
}

/// The interleavings of two notifiers and a sleeper. The messages are relaxed, so that only the
/// flag can carry them over; a lost wake-up is a deadlock, which loom reports.
#[cfg(all(test, loom))]
mod interleavings {
    use loom::sync::atomic::AtomicUsize;
    use loom::sync::{Arc, Notify};
    use loom::thread;

    use super::*;

    #[test]
    fn no_wake_up_is_lost() {
        let mut model = loom::model::Builder::new();
        // Enough for the classic loss, which takes two, and quick.
        model.preemption_bound = Some(3);
        model.check(|| {
            let shared = Arc::new((WakeFlag::new(), AtomicUsize::new(0), Notify::new()));
            let notifiers: Vec<_> = (0..2)
                .map(|_| {
                    let shared = Arc::clone(&shared);
                    thread::spawn(move || {
                        let (flag, messages, event) = &*shared;
                        messages.fetch_add(1, Ordering::Relaxed);
                        if flag.notify() {
                            event.notify();
                        }
                    })
                })
                .collect();
            let (flag, messages, event) = &*shared;
            while messages.load(Ordering::Relaxed) < 2 {
                if flag.try_sleep() {
                    event.wait();
                    flag.wake();
                }
            }
            for notifier in notifiers {
                notifier.join().expect("does not panic");
            }
        });
    }
}
