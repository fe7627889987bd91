//! What is known of a device's association and its paths, for people and programs that look at it.
//!
//! With several paths what is about one association is about the one that came up last.

use std::time::Duration;

use block_io::Timestamp;

use super::namespace_device::NvmeTcpDevice;
use crate::host::controller::AssociationState;
use crate::host::paths::PathsStatus;
use crate::spec::nqn::{HostId, Nqn};

/// A snapshot of an association.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Association {
    /// Where the controller is, as it was asked for.
    pub address: String,
    /// The subsystem's name.
    pub subsystem: Nqn,
    /// The host's name.
    pub host: Nqn,
    /// The host's identifier.
    pub host_id: HostId,
    /// The namespace in use.
    pub namespace_id: u32,
    /// CNTLID.
    pub controller_id: u16,
    /// How far it is.
    pub state: AssociationState,
    /// Why it is lost, or why its namespace cannot be used; absent while all is well.
    pub fault: Option<String>,
    /// I/O queues granted.
    pub io_queues: u16,
    /// Entries that each of them was asked for.
    pub queue_entries: u16,
    /// KATO; zero for none.
    pub keep_alive: Duration,
    /// Since when it has taken requests; absent before.
    pub live_since: Option<Timestamp>,
    /// Events heard of the controller.
    pub events_heard: u64,
    /// How often something about the namespace has changed.
    pub namespace_changes: u64,
    /// The namespace and all paths to it.
    pub paths: PathsStatus,
}

impl NvmeTcpDevice {
    /// How its association is now.
    pub fn association(&self) -> Association {
        let fault = self.fault();
        let (namespace_id, paths) = (self.namespace_id(), self.status());
        self.with_controller(|controller| {
            let (options, identity) = (controller.options(), controller.identity());
            Association {
                address: options.address.clone(),
                subsystem: options.subsystem.clone(),
                host: options.host.clone(),
                host_id: options.host_id,
                namespace_id,
                controller_id: identity.controller_id,
                state: controller.state(),
                fault,
                io_queues: identity.io_queues,
                queue_entries: options.queue_depth,
                keep_alive: options.keep_alive,
                live_since: controller.live_since(),
                events_heard: controller.events_heard(),
                namespace_changes: controller.namespace_changes(),
                paths,
            }
        })
    }

    /// Why requests fail now: the association is lost, or its namespace gone or another. Absent
    /// while they do not.
    pub fn fault(&self) -> Option<String> {
        let namespace_fault =
            || self.with_controller(|controller| controller.namespace_fault().map(str::to_owned));
        self.error().map(|error| error.to_string()).or_else(namespace_fault)
    }
}
