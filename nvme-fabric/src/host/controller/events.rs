//! Asynchronous events: one request is parked at the controller, which answers when something
//! changes.
//!
//! The change that matters here is the namespace's: it is identified again, and a new size is the
//! device's from then on. Reading the log page that an event names, without RAE, re-arms it.

use super::{Controller, Purpose, Step, token};
use crate::host::connection::{Data, Finished, Outcome};
use crate::spec::command::AdminCommand;
use crate::spec::feature::{self, Event};
use crate::spec::identify::{self, IdentifyNamespace};
use crate::spec::log_page;
use crate::spec::sgl::Descriptor;

/// What is under way.
#[derive(Debug, Default)]
pub(super) struct Events {
    /// Events heard, for statistics.
    pub(super) heard: u64,
}

/// Events to hear of: changes of namespaces and of the way to them. NVMe Base 2.1 §5.27.1.8
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

    /// Parks a request for the next event.
    pub(super) fn park_event_request(&mut self) {
        let entry = AdminCommand::AsynchronousEventRequest.encode(0, Descriptor::NONE);
        // The admin queue has room for it: only a handful of commands are ever in flight there.
        let sent = self.send_admin(entry, Data::None, token::EVENT);
        debug_assert!(sent.is_ok() || self.error.is_some());
    }

    pub(super) fn take_event(&mut self, finished: Finished) {
        let Outcome::Completed(completion) = finished.outcome else {
            return;
        };
        if !completion.status.is_success() || self.step != Step::Up {
            // A controller that refuses event requests has none to tell.
            return;
        }
        match finished.token {
            token::EVENT => {
                self.events.heard += 1;
                match Event::parse(completion.dword_0()) {
                    Event::NAMESPACE_CHANGED => self.read_changed_namespaces(),
                    event => {
                        // Reading the log re-arms it; the next event may come meanwhile.
                        if event == Event::ACCESS_CHANGED {
                            self.read_access_log();
                        }
                        self.park_event_request();
                    }
                }
            }
            token::EVENT_LOG => self.identify_again(),
            token::EVENT_NAMESPACE => {
                self.take_changed_namespace();
                self.park_event_request();
            }
            _ => {}
        }
    }

    fn read_changed_namespaces(&mut self) {
        let command = AdminCommand::GetLogPage {
            namespace_id: u32::MAX,
            page: log_page::CHANGED_NAMESPACES,
            specific: 0,
            retain_event: false,
            length: log_page::CHANGED_NAMESPACES_LENGTH as u64,
            offset: 0,
            index_offset: false,
        };
        self.send_page_command(&command, token::EVENT_LOG);
    }

    fn identify_again(&mut self) {
        if let Purpose::Namespace(namespace_id) = self.purpose {
            let command = AdminCommand::Identify {
                namespace_id,
                structure: identify::NAMESPACE,
                controller_id: 0,
                command_set: identify::COMMAND_SET_NVM,
            };
            self.send_page_command(&command, token::EVENT_NAMESPACE);
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

    /// A namespace that has gone keeps its last geometry: its requests fail at the controller.
    fn take_changed_namespace(&mut self) {
        let namespace = IdentifyNamespace::parse(&self.page_bytes());
        if !namespace.is_active() {
            return;
        }
        if let Ok(geometry) = self.geometry_of(&namespace)
            && self.identity.namespace.format == namespace.format
        {
            self.identity.namespace = namespace;
            self.identity.geometry = Some(geometry);
            self.identity_version += 1;
            for queue in &mut self.queues {
                if let Some(requests) = &mut queue.requests {
                    requests.set_geometry(geometry);
                }
            }
        }
    }

    pub(super) fn page_bytes(&self) -> identify::Structure {
        let mut bytes = [0; identify::LENGTH];
        self.page.copy_to_slice(&mut bytes);
        bytes
    }
}
