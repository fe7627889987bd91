//! A controller: the registers, queues, features and events of one association with a host.
//!
//! Absent: the connections that are its queues; they find it by its key, and gone.

use std::time::Duration;

use block_io::Timestamp;

use super::connection::AbortOrder;
use super::reservation::Notices;
use crate::spec::feature::{Event, event};
use crate::spec::nqn::{HostId, Nqn};
use crate::spec::property::{Configuration, ControllerStatus, ShutdownStatus};

/// KAS: keep alive timeouts are rounded up to this many 100 ms. Base §5.17.2.1.
pub(super) const KEEP_ALIVE_GRANULARITY: u16 = 10;

/// The changed namespace list holds this many ids. Base §5.16.1.5.
const CHANGED_MAX: usize = 1024;

/// A controller's name within the target: its id, and which of those that had it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ControllerKey {
    pub(super) id: u16,
    pub(super) serial: u64,
}

/// What a controller gives access to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Service {
    Discovery,
    /// The subsystem's place.
    Subsystem(usize),
}

#[derive(Debug)]
pub(super) struct Controller {
    pub(super) key: ControllerKey,
    pub(super) service: Service,
    pub(super) host: Nqn,
    pub(super) host_id: HostId,
    pub(super) configuration: Configuration,
    pub(super) status: ControllerStatus,
    /// Grows with every reset; I/O queues of an earlier epoch are gone.
    pub(super) epoch: u32,
    /// The normal shutdown waits for the admin connection to flush the namespaces.
    pub(super) flush_wanted: bool,
    /// I/O queues that exist, by QID less one.
    pub(super) io_queues: Vec<bool>,
    /// I/O queues that Set Features granted.
    pub(super) io_queues_granted: u16,
    /// KATO, absent when there is no keep alive.
    pub(super) keep_alive: Option<Duration>,
    /// When something was last received.
    pub(super) heard: Timestamp,
    /// Feature 0Bh.
    pub(super) event_configuration: u32,
    /// Feature 01h.
    pub(super) arbitration: u32,
    /// Events that happened and were not told: bits of the event configuration.
    raised: u32,
    /// Events told and not re-armed by reading their log page.
    told: u32,
    changed_namespaces: Vec<u32>,
    changed_overflow: bool,
    /// Reservation notifications.
    pub(super) notices: Notices,
    /// Abort commands that wait for the queue of the command that they are about.
    pub(super) aborts: Vec<AbortOrder>,
}

impl Controller {
    pub(super) fn new(
        key: ControllerKey,
        service: Service,
        host: Nqn,
        host_id: HostId,
        io_queues_max: u16,
        now: Timestamp,
    ) -> Self {
        Self {
            key,
            service,
            host,
            host_id,
            configuration: Configuration::default(),
            status: ControllerStatus::default(),
            epoch: 0,
            flush_wanted: false,
            io_queues: vec![false; usize::from(io_queues_max)],
            io_queues_granted: io_queues_max,
            keep_alive: None,
            heard: now,
            event_configuration: 0,
            arbitration: 0,
            raised: 0,
            told: 0,
            changed_namespaces: Vec::new(),
            changed_overflow: false,
            notices: Notices::default(),
            aborts: Vec::new(),
        }
    }

    /// CC.EN and CSTS.RDY: commands other than Fabrics' are taken.
    pub(super) fn is_ready(&self) -> bool {
        self.configuration.enable && self.status.ready
    }

    /// Sets KATO from milliseconds, rounded up to the granularity, 0 for none.
    pub(super) fn set_keep_alive(&mut self, milliseconds: u32) {
        let unit = u64::from(KEEP_ALIVE_GRANULARITY) * 100;
        let rounded = u64::from(milliseconds).next_multiple_of(unit);
        self.keep_alive = (milliseconds != 0).then(|| Duration::from_millis(rounded));
    }

    /// When the association ends unless something is heard.
    pub(super) fn keep_alive_deadline(&self) -> Option<Timestamp> {
        self.keep_alive.map(|timeout| self.heard + timeout)
    }

    /// A write to CC. Base §3.1.3.5, §3.7.
    pub(super) fn configure(&mut self, new: Configuration) {
        let old = std::mem::replace(&mut self.configuration, new);
        if new.enable && !old.enable {
            self.enable(&new);
        } else if !new.enable && old.enable {
            self.reset();
        }
        if new.shutdown != 0 && old.shutdown == 0 {
            // Abrupt (10b): nothing to wait for. Normal (01b): volatile caches are flushed first.
            self.flush_wanted = new.shutdown == 0b01 && self.service != Service::Discovery;
            self.status.shutdown =
                if self.flush_wanted { ShutdownStatus::UnderWay } else { ShutdownStatus::Complete };
        } else if new.shutdown == 0 && old.shutdown != 0 {
            self.flush_wanted = false;
            self.status.shutdown = ShutdownStatus::None;
        }
    }

    fn enable(&mut self, new: &Configuration) {
        let entries_fit = self.service == Service::Discovery
            || (new.submission_entry_size == 6 && new.completion_entry_size == 4);
        if entries_fit && new.command_set == 0 && new.page_size == 0 && new.arbitration == 0 {
            self.status = ControllerStatus { ready: true, ..ControllerStatus::default() };
        } else {
            // A configuration that CAP does not offer. Base §3.1.3.5.
            self.status.fatal = true;
        }
    }

    fn reset(&mut self) {
        self.status = ControllerStatus::default();
        self.epoch += 1;
        self.io_queues.fill(false);
        self.event_configuration = 0;
        self.arbitration = 0;
        self.raised = 0;
        self.told = 0;
        self.changed_namespaces.clear();
        self.changed_overflow = false;
        self.notices.clear();
    }

    /// Something happened that the host may want to be told: `events` is a bit of the event
    /// configuration. Remembered once, whoever often it happens.
    pub(super) fn raise(&mut self, events: u32) {
        self.raised |= events & self.event_configuration;
    }

    pub(super) fn namespace_changed(&mut self, namespace_id: u32) {
        if !self.changed_namespaces.contains(&namespace_id) {
            if self.changed_namespaces.len() == CHANGED_MAX {
                self.changed_overflow = true;
            } else {
                self.changed_namespaces.push(namespace_id);
            }
        }
        self.raise(event::NAMESPACE_ATTRIBUTE);
    }

    /// The changed namespace list. Base §5.16.1.5.
    pub(super) fn changed_namespaces(&mut self) -> Vec<u32> {
        self.changed_namespaces.sort_unstable();
        if self.changed_overflow { vec![u32::MAX] } else { self.changed_namespaces.clone() }
    }

    /// The page was read without RAE: its event may be told again, and what the host has read of
    /// namespaces is not told again. Base §5.2.
    pub(super) fn rearm(&mut self, events: u32) {
        self.told &= !events;
        if events & event::NAMESPACE_ATTRIBUTE != 0 {
            self.changed_namespaces.clear();
            self.changed_overflow = false;
        }
    }

    /// The next event to tell, for a parked Asynchronous Event Request. It is not told again until
    /// its log page was read.
    pub(super) fn next_event(&mut self) -> Option<Event> {
        for (bit, told) in [
            (event::NAMESPACE_ATTRIBUTE, Event::NAMESPACE_CHANGED),
            (event::ASYMMETRIC_ACCESS, Event::ACCESS_CHANGED),
            (event::DISCOVERY_LOG, Event::DISCOVERY_CHANGED),
        ] {
            if self.raised & bit & !self.told != 0 {
                self.raised &= !bit;
                self.told |= bit;
                return Some(told);
            }
        }
        self.notices.take_event().then_some(Event::RESERVATION_NOTIFICATION)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn controller() -> Controller {
        let key = ControllerKey { id: 1, serial: 1 };
        let host = Nqn::new("nqn.2014-08.com.example:host").expect("well formed");
        Controller::new(key, Service::Subsystem(0), host, HostId([1; 16]), 4, Timestamp(0))
    }

    #[test]
    fn enable_reset_and_shutdown() {
        let mut controller = controller();
        controller.configure(Configuration::ENABLED);
        assert!(controller.is_ready());
        controller.io_queues[0] = true;
        controller.configure(Configuration { shutdown: 1, ..Configuration::ENABLED });
        assert_eq!(controller.status.shutdown, ShutdownStatus::UnderWay);
        assert!(controller.flush_wanted);
        controller.configure(Configuration { enable: false, ..Configuration::ENABLED });
        assert!(!controller.is_ready());
        assert_eq!((controller.epoch, controller.io_queues[0]), (1, false));
        controller.configure(Configuration { command_set: 6, ..Configuration::ENABLED });
        assert!(controller.status.fatal && !controller.is_ready());
    }

    #[test]
    fn an_event_is_told_once_until_its_page_is_read() {
        let mut controller = controller();
        controller.namespace_changed(1);
        assert_eq!(controller.next_event(), None, "the host did not ask for it");
        controller.event_configuration = event::NAMESPACE_ATTRIBUTE;
        controller.namespace_changed(2);
        assert_eq!(controller.next_event(), Some(Event::NAMESPACE_CHANGED));
        controller.namespace_changed(1);
        assert_eq!(controller.next_event(), None, "not re-armed");
        assert_eq!(controller.changed_namespaces(), [1, 2]);
        controller.rearm(event::NAMESPACE_ATTRIBUTE);
        assert_eq!(controller.next_event(), Some(Event::NAMESPACE_CHANGED));
        assert!(controller.changed_namespaces().is_empty(), "they were read");
        for id in 1..=1025 {
            controller.namespace_changed(id);
        }
        assert_eq!(controller.changed_namespaces(), [u32::MAX]);
    }

    #[test]
    fn keep_alive_is_rounded_up() {
        let mut controller = controller();
        assert_eq!(controller.keep_alive_deadline(), None);
        controller.set_keep_alive(5001);
        assert_eq!(controller.keep_alive_deadline(), Some(Timestamp(6_000_000_000)));
        controller.set_keep_alive(u32::MAX);
        assert!(controller.keep_alive_deadline().is_some());
        controller.set_keep_alive(0);
        assert_eq!(controller.keep_alive_deadline(), None);
    }
}
