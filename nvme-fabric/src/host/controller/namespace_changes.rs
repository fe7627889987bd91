//! A namespace that is resized, formatted, detached or attached again while it is in use.
//!
//! ```text
//!   event ▶ changed namespace list ─┬─ another's ▶ next event
//!                                   └─ this one's, or too many to list ▶ Identify (namespace)
//!       ▶ Identify (descriptors) ▶ another size: the device's from then on │ fault │ no fault
//! ```
//! A namespace that is gone, that has another format, or that is another one under the same
//! identifier is at fault: new requests fail with a named error, and nothing is sent that could
//! reach the wrong bytes. Commands in flight end as the controller says. Once the namespace is
//! what it was, there is no fault any more. Whoever owns the association looks at
//! [`Controller::namespace_changes`], which counts up, or only at the queue's geometry.

use block_io::IoError;

use super::{Controller, Purpose, token};
use crate::spec::command::AdminCommand;
use crate::spec::identify::{self, IdentifyNamespace, NamespaceDescriptors, parse_namespace_list};
use crate::spec::log_page;

impl Controller {
    /// How often something about the namespace has changed: its size, its attributes, or whether
    /// it can be used.
    pub fn namespace_changes(&self) -> u64 {
        self.events.namespace_changes
    }

    /// Why the namespace cannot be used although the association is up; absent while it can.
    pub fn namespace_fault(&self) -> Option<&str> {
        self.events.namespace_fault.as_ref().map(|(fault, _)| fault.as_str())
    }

    pub(super) fn read_changed_namespaces(&mut self) {
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

    /// The answer to a command that an event led to. A refused one tells nothing of the namespace;
    /// except that there is none by its identifier.
    pub(super) fn take_namespace_answer(&mut self, token: u64, succeeded: bool) {
        let Purpose::Namespace(id) = self.purpose else { return };
        match token {
            token::EVENT_LOG if succeeded && !lists(&self.page_bytes(), id) => {
                self.park_event_request();
            }
            token::EVENT_LOG => {
                self.ask_about_namespace(identify::NAMESPACE, token::EVENT_NAMESPACE);
            }
            token::EVENT_NAMESPACE => self.take_changed_namespace(id, succeeded),
            token::EVENT_DESCRIPTORS => {
                self.take_changed_descriptors(id, succeeded);
                self.park_event_request();
            }
            _ => {}
        }
    }

    fn ask_about_namespace(&mut self, structure: u8, token: u64) {
        if let Purpose::Namespace(namespace_id) = self.purpose {
            let command = AdminCommand::Identify {
                namespace_id,
                structure,
                controller_id: 0,
                command_set: identify::COMMAND_SET_NVM,
            };
            self.send_page_command(&command, token);
        }
    }

    fn take_changed_namespace(&mut self, id: u32, succeeded: bool) {
        let namespace = IdentifyNamespace::parse(&self.page_bytes());
        let name = format!("namespace {id} of {}", self.options.subsystem);
        if !succeeded || !namespace.is_active() {
            self.set_namespace_fault(Some((format!("{name} is gone"), IoError::Gone)));
            self.park_event_request();
            return;
        }
        let fault = match self.geometry_of(&namespace) {
            Err(error) => Some(format!("{name} has changed: {error}")),
            Ok(_) if self.identity.namespace.format != namespace.format => Some(format!(
                "{name} has another format: its blocks have {} bytes, {} when it was opened; open \
                 it again to use it so",
                1_u64 << namespace.format.data_size_log2.min(63),
                1_u64 << self.identity.namespace.format.data_size_log2.min(63),
            )),
            Ok(geometry) => {
                if self.identity.geometry != Some(geometry) {
                    self.events.namespace_changes += 1;
                }
                self.identity.namespace = namespace;
                self.identity.geometry = Some(geometry);
                for queue in &mut self.queues {
                    if let Some(requests) = &mut queue.requests {
                        requests.set_geometry(geometry);
                    }
                }
                None
            }
        };
        match fault {
            Some(fault) => {
                self.set_namespace_fault(Some((fault, IoError::DeviceChanged)));
                self.park_event_request();
            }
            // Whether it is still the same one is not known before its descriptors are.
            None => {
                let structure = identify::NAMESPACE_DESCRIPTORS;
                self.ask_about_namespace(structure, token::EVENT_DESCRIPTORS);
            }
        }
    }

    /// An identifier may have been given to another namespace meanwhile, with other content.
    fn take_changed_descriptors(&mut self, id: u32, succeeded: bool) {
        let before = self.identity.descriptors;
        // Controllers that know no descriptors refuse the command, as when it was opened.
        let now = match succeeded {
            true => NamespaceDescriptors::parse(&self.page_bytes()),
            false => before,
        };
        let fault = (now != before).then(|| {
            let name = format!("namespace {id} of {}", self.options.subsystem);
            let fault = format!(
                "{name} is another one than when it was opened: it is {} now and was {}",
                shown(&now),
                shown(&before)
            );
            (fault, IoError::DeviceChanged)
        });
        self.set_namespace_fault(fault);
    }

    fn set_namespace_fault(&mut self, fault: Option<(String, IoError)>) {
        if self.events.namespace_fault == fault {
            return;
        }
        self.events.namespace_changes += 1;
        self.events.namespace_fault = fault;
        let refusal = self.events.refusal();
        for queue in &mut self.queues {
            if let Some(requests) = &mut queue.requests {
                requests.refuse(refusal);
            }
        }
    }
}

/// What a namespace is known by, the most telling of it.
fn shown(descriptors: &NamespaceDescriptors) -> String {
    let digits = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    match descriptors {
        NamespaceDescriptors { uuid: Some(uuid), .. } => format!("UUID {uuid}"),
        NamespaceDescriptors { nguid: Some(nguid), .. } => format!("NGUID {}", digits(nguid)),
        NamespaceDescriptors { eui64: Some(eui64), .. } => format!("EUI64 {}", digits(eui64)),
        _ => "without an identifier".to_owned(),
    }
}

/// Whether the changed namespace list names this one, or says that there are too many to list.
/// NVMe Base 2.1 §5.1.12.1.5
fn lists(page: &identify::Structure, id: u32) -> bool {
    parse_namespace_list(page).any(|listed| listed == id || listed == u32::MAX)
}
