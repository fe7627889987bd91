//! Asynchronous events: one request is parked at the controller, which answers when something
//! changes.
//!
//! ```text
//!   namespaces changed ▶ see namespace_changes, then another request is parked
//!   discovery log changed ▶ told to the owner, who reads it and has another request parked
//!   anything else ▶ another request is parked
//! ```
//! Reading the log page that an event names, without RAE, re-arms it. What happens while no request
//! is parked waits at the controller.

use block_io::IoError;

use super::{Controller, Purpose, Step, token};
use crate::host::connection::{Data, Finished, Outcome};
use crate::spec::command::AdminCommand;
use crate::spec::feature::{self, Event};
use crate::spec::identify;
use crate::spec::sgl::Descriptor;

/// What is under way.
#[derive(Debug, Default)]
pub(super) struct Events {
    /// Events heard, for statistics.
    pub(super) heard: u64,
    /// The discovery log has changed since the owner was told.
    discovery_changed: bool,
    /// Why the namespace cannot be used, and what its requests fail with; absent while it can.
    pub(super) namespace_fault: Option<(String, IoError)>,
    /// How often something about the namespace has changed.
    pub(super) namespace_changes: u64,
}

impl Events {
    /// What requests fail with that come now; absent while the namespace can be used.
    pub(super) fn refusal(&self) -> Option<IoError> {
        self.namespace_fault.as_ref().map(|(_, error)| *error)
    }
}

/// Events to hear of: changes of namespaces and of the way to them. Base §5.27.1.8
const CONFIGURATION: u32 = feature::event::NAMESPACE_ATTRIBUTE | feature::event::ASYMMETRIC_ACCESS;

impl Controller {
    /// Those of the events to hear of that the controller has (OAES has the same bits).
    pub(super) fn event_configuration(&self) -> u32 {
        CONFIGURATION & self.identity.controller.events
    }

    /// Events heard so far.
    pub fn events_heard(&self) -> u64 {
        self.events.heard
    }

    /// Whether the discovery log has changed since this was asked last.
    pub(in crate::host) fn take_discovery_change(&mut self) -> bool {
        std::mem::take(&mut self.events.discovery_changed)
    }

    /// The discovery log has been read, its event re-armed: the next one is awaited.
    pub(in crate::host) fn await_discovery_change(&mut self) {
        if self.step == Step::Up && self.purpose == Purpose::PersistentDiscovery {
            self.park_event_request();
        }
    }

    /// Parks a request for the next event.
    pub(super) fn park_event_request(&mut self) {
        let entry = AdminCommand::AsynchronousEventRequest.encode(0, Descriptor::NONE);
        // The admin queue has room for it: only a handful of commands are ever in flight there.
        let sent = self.send_admin(entry, Data::None, token::EVENT);
        debug_assert!(sent.is_ok() || self.error.is_some() || !self.admin_is_open());
    }

    pub(super) fn take_event(&mut self, finished: Finished) {
        let Outcome::Completed(completion) = finished.outcome else {
            return;
        };
        if self.step != Step::Up {
            return;
        }
        if finished.token != token::EVENT {
            self.take_namespace_answer(finished.token, completion.status.is_success());
            return;
        }
        if !completion.status.is_success() {
            // A controller that refuses event requests has none to tell.
            return;
        }
        self.events.heard += 1;
        match (Event::parse(completion.dword_0()), self.purpose) {
            (Event::NAMESPACE_CHANGED, Purpose::Namespace(_)) => self.read_changed_namespaces(),
            (Event::DISCOVERY_CHANGED, Purpose::PersistentDiscovery) => {
                self.events.discovery_changed = true;
            }
            (Event::ACCESS_CHANGED, Purpose::Namespace(_)) => {
                // Reading the log re-arms it; the next event may come meanwhile.
                self.read_access_log();
                self.park_event_request();
            }
            _ => self.park_event_request(),
        }
    }

    /// Sends a command whose 4096 bytes of data arrive in the page. A failure ends the
    /// association, which needs no more care here.
    pub(super) fn send_page_command(&mut self, command: &AdminCommand, token: u64) {
        let entry = command.encode(0, Descriptor::NONE);
        let sent = self.send_admin(entry, Data::ToHost(self.page.clone()), token);
        debug_assert!(sent.is_ok() || self.queues[0].connection.is_none() || !self.admin_is_open());
    }

    fn admin_is_open(&self) -> bool {
        self.queues[0].connection.as_ref().is_some_and(|connection| connection.is_open())
    }

    pub(super) fn page_bytes(&self) -> identify::Structure {
        let mut bytes = [0; identify::LENGTH];
        self.page.copy_to_slice(&mut bytes);
        bytes
    }
}
