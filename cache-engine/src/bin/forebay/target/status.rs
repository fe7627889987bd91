//! How a target is, in the words of the control socket.

use block_io::BlockDevice;
use cache_engine::control::target_model::{
    TargetAccessGroup, TargetAssociation, TargetNamespace, TargetServed, TargetStatus,
    TargetSubsystem, TargetVolume,
};
use nvme_fabric::spec::nqn::Nqn;
use nvme_fabric::target::{Hosts, NamespaceKey, Subsystem};

use super::managed::ManagedTarget;

impl ManagedTarget {
    pub(super) fn status(&self) -> TargetStatus {
        let target = self.task.target();
        let volumes = self.store.iter().flat_map(|store| store.state.volumes.keys());
        TargetStatus {
            listeners: self.listeners.iter().map(ToString::to_string).collect(),
            discovery: self.discovery.iter().map(ToString::to_string).collect(),
            subsystems: target
                .subsystems()
                .iter()
                .map(|(place, subsystem)| self.subsystem(place, subsystem))
                .collect(),
            volumes: volumes.map(|name| volume(self, name)).collect(),
            queues: target.queues_in_use() as u64,
            unconnected: target.unconnected() as u64,
            memory_bytes: target.memory_in_use() as u64,
            memory_bound_bytes: target.settings().memory_bound() as u64,
            is_remembered: self.store.as_ref().is_none_or(|store| store.is_remembered),
        }
    }

    fn subsystem(&self, place: usize, subsystem: &Subsystem) -> TargetSubsystem {
        let namespaces = subsystem.namespaces().iter().map(|(number, namespace)| {
            let key = NamespaceKey { subsystem: place, namespace: number };
            let exposed = self.exposed.iter().find(|exposed| exposed.key == key);
            TargetNamespace {
                namespace_id: number as u32 + 1,
                uuid: namespace.uuid().to_string(),
                size_bytes: namespace.geometry().capacity,
                device: exposed.map_or_else(String::new, |exposed| exposed.address.clone()),
                access_group: namespace.access_group(),
            }
        });
        let associations = self.task.target().associations(place);
        TargetSubsystem {
            nqn: subsystem.nqn().to_string(),
            hosts: match subsystem.hosts() {
                Hosts::Any => None,
                Hosts::Listed(hosts) => Some(hosts.iter().map(Nqn::to_string).collect()),
            },
            access_groups: subsystem
                .access_groups()
                .map(|(group, state)| TargetAccessGroup { group, state: state.name().to_owned() })
                .collect(),
            namespaces: namespaces.collect(),
            associations: associations
                .map(|(host, controller_id, io_queues)| TargetAssociation {
                    host: host.to_string(),
                    controller_id,
                    io_queues: io_queues as u64,
                })
                .collect(),
        }
    }
}

/// How a volume or snapshot is. One that is not there has no size.
pub(super) fn volume(target: &ManagedTarget, name: &str) -> TargetVolume {
    let exposed = target.exposed.iter().find(|found| found.volume.as_deref() == Some(name));
    let size_bytes = match exposed {
        Some(exposed) => exposed.backend.geometry().capacity,
        None => {
            let path = target.path(name).ok();
            path.and_then(|path| std::fs::metadata(path).ok()).map_or(0, |found| found.len())
        }
    };
    let served = exposed.and_then(|exposed| {
        let subsystem = target.task.target().subsystems().get(exposed.key.subsystem)?;
        let namespace = subsystem.namespaces().get(exposed.key.namespace)?;
        Some(TargetServed {
            subsystem: subsystem.nqn().to_string(),
            namespace_id: exposed.key.namespace as u32 + 1,
            uuid: namespace.uuid().to_string(),
        })
    });
    TargetVolume { name: name.to_owned(), size_bytes, served }
}
