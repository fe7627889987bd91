//! Reservation notifications of one controller: what its host has not read yet.
//!
//! ```text
//!   notify ──▶ [ oldest … newest ] ──read of log page 80h──▶ host
//!                    └─ first untold one: an asynchronous event, told again after a read
//! ```
//! At most [`NOTICES_MAX`] wait; what comes then is counted and lost, which the count tells the
//! host.

use std::collections::VecDeque;

use crate::spec::reservation::{NotificationKind, ReservationNotification};

/// Notifications that wait for a host to read them.
const NOTICES_MAX: usize = 64;

#[derive(Debug, Default)]
pub(in crate::target) struct Notices {
    waiting: VecDeque<ReservationNotification>,
    /// Notifications so far, those lost included.
    count: u64,
    /// An event was told and its page not read.
    is_told: bool,
}

impl Notices {
    /// Something happened to the reservation of namespace `namespace_id`.
    pub(super) fn notify(&mut self, kind: NotificationKind, namespace_id: u32) {
        // Zero says that there is no notification, so the count leaves it out when it wraps.
        self.count = self.count.checked_add(1).unwrap_or(1);
        if self.waiting.len() < NOTICES_MAX {
            self.waiting.push_back(ReservationNotification {
                count: self.count,
                kind: Some(kind),
                more: 0,
                namespace_id,
            });
        }
    }

    /// Whether an event is to be told now; it is not told again until the page was read.
    pub(in crate::target) fn take_event(&mut self) -> bool {
        let is_new = !self.is_told && !self.waiting.is_empty();
        self.is_told |= is_new;
        is_new
    }

    /// The log page: the oldest notification, which a read that does not retain it takes away.
    pub(in crate::target) fn page(&mut self, retain: bool) -> ReservationNotification {
        let page = if retain { self.waiting.front().copied() } else { self.waiting.pop_front() };
        self.is_told &= retain;
        let more = self.waiting.len() - usize::from(retain && page.is_some());
        page.map_or_else(ReservationNotification::default, |page| ReservationNotification {
            more: u8::try_from(more).unwrap_or(u8::MAX),
            ..page
        })
    }

    /// The controller was reset.
    pub(in crate::target) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_read_once_and_the_event_is_told_again_after_a_read() {
        let mut notices = Notices::default();
        assert!(!notices.take_event());
        assert_eq!(notices.page(false), ReservationNotification::default());
        notices.notify(NotificationKind::ReservationReleased, 3);
        notices.notify(NotificationKind::RegistrationPreempted, 4);
        assert!(notices.take_event());
        assert!(!notices.take_event(), "told, and not read");
        let page = notices.page(true);
        assert_eq!((page.count, page.more, page.namespace_id), (1, 1, 3));
        assert!(!notices.take_event(), "a retained event stays told");
        assert_eq!(notices.page(false), page);
        assert!(notices.take_event(), "there is another one");
        let page = notices.page(false);
        assert_eq!((page.count, page.more), (2, 0));
        assert_eq!(page.kind, Some(NotificationKind::RegistrationPreempted));
        assert!(!notices.take_event());
    }

    #[test]
    fn a_host_that_does_not_read_costs_bounded_memory_and_sees_that_it_missed_some() {
        let mut notices = Notices::default();
        for _ in 0..NOTICES_MAX + 10 {
            notices.notify(NotificationKind::ReservationReleased, 1);
        }
        for _ in 0..NOTICES_MAX {
            notices.page(false);
        }
        assert_eq!(notices.page(false).count, 0);
        notices.notify(NotificationKind::ReservationReleased, 1);
        assert_eq!(notices.page(false).count, NOTICES_MAX as u64 + 11);
    }
}
