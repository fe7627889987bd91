//! Volumes as namespaces that hosts reach over NVMe/TCP: a target for each address that is listened
//! at, and in it a subsystem for each volume.
//!
//! ```text
//!   host ─▶ Door { TargetTask } ─▶ SharedQueue<Volume>
//! ```
//! An address has a target of its own, so that a volume is found where it was asked for and nowhere
//! else. Everything is on the first reactor.
//!
//! Absent: lists of hosts, authentication, TLS and listeners of discovery alone, which `forebay
//! target` has (any listener answers discovery); reservations that outlive the service; one
//! subsystem at several addresses.

use std::net::SocketAddr;
use std::time::Duration;

use block_io::device::shared::SharedQueue;
use block_io::reactor::{Port, Reactor, Task};
use block_io::{BlockQueue, DeviceError, Geometry, Timestamp};
use cache_engine::backend::address::Endpoint;
use cache_engine::backend::identity::Machine;
use cache_engine::frontend::nvme::NvmeTcpExport;
use nvme_fabric::driver::TargetTask;
use nvme_fabric::driver::target::Service;
use nvme_fabric::target::{Namespace, NamespaceKey, Settings, Subsystem, Target};

use crate::target;
use crate::volume::Volume;

/// How long requests in flight may take at the end.
const GRACE: Duration = Duration::from_secs(5);

/// See the module.
pub(super) struct NvmeExports {
    reactor: Reactor,
    machine: Machine,
    doors: Vec<Door>,
    /// Ends the time of grace, once there is one.
    ending: Option<Port>,
}

/// An address that is listened at.
struct Door {
    asked: Endpoint,
    bound: SocketAddr,
    task: TargetTask<SharedQueue<Volume>>,
    exports: Vec<Exported>,
    /// Nobody is served here any more.
    is_closing: bool,
}

struct Exported {
    volume: String,
    key: NamespaceKey,
    is_withdrawn: bool,
}

impl NvmeExports {
    /// None yet.
    pub(super) fn new(reactor: &Reactor) -> Self {
        let machine = Machine::this();
        Self { reactor: reactor.clone(), machine, doors: Vec::new(), ending: None }
    }

    /// Serves the volume `name` by `queue`, and returns where: `address` is that of the export's
    /// endpoint. `told_by` tells its origin from others.
    ///
    /// # Errors
    /// When it cannot be listened at, or hosts could not work with the volume.
    pub(super) fn add(
        &mut self,
        export: &NvmeTcpExport,
        address: SocketAddr,
        name: &str,
        told_by: &str,
        queue: SharedQueue<Volume>,
    ) -> Result<SocketAddr, DeviceError> {
        if !self.machine.is_lasting() {
            target::notice_of_machine();
        }
        let nqn = &export.subsystem;
        let uuid = self.machine.identifier(&format!("namespace of {nqn}: {told_by}"));
        let serial = target::serial_number(&self.machine, nqn);
        let mut subsystem = Subsystem::new(nqn.clone(), &serial)?;
        let namespace = Namespace::new(queue.geometry(), uuid)?;
        let place = subsystem.add_namespace_as(export.namespace_id, namespace)?;
        let door = self.door(&export.endpoint, address)?;
        let added = self.doors[door].task.add_subsystem(subsystem, vec![queue]);
        let door = &mut self.doors[door];
        match added {
            Ok(subsystem) => {
                let key = NamespaceKey { subsystem, namespace: place };
                let volume = name.to_owned();
                door.exports.push(Exported { volume, key, is_withdrawn: false });
                Ok(door.bound)
            }
            Err(error) => {
                door.close_if_unused();
                Err(error)
            }
        }
    }

    /// The number of the door at an address, which is opened if need be.
    fn door(&mut self, asked: &Endpoint, address: SocketAddr) -> Result<usize, DeviceError> {
        let is_it =
            |door: &Door| !door.is_closing && (door.asked == *asked || door.bound == address);
        if let Some(found) = self.doors.iter().position(is_it) {
            return Ok(found);
        }
        let target = Target::new(Settings::default())?;
        let mut task = TargetTask::new(&self.reactor, target, Vec::new())?;
        let bound = task.listen(address, Service::Subsystems)?;
        let (asked, exports) = (asked.clone(), Vec::new());
        self.doors.push(Door { asked, bound, task, exports, is_closing: false });
        Ok(self.doors.len() - 1)
    }

    /// Serves a volume no more: its hosts' connections end, what its device has been asked goes on.
    pub(super) fn withdraw(&mut self, volume: &str) {
        for door in &mut self.doors {
            let of_it = |one: &&mut Exported| one.volume == volume && !one.is_withdrawn;
            for export in door.exports.iter_mut().filter(of_it) {
                export.is_withdrawn = true;
                // It was added, and is removed once.
                let _ = door.task.remove_subsystem(export.key.subsystem);
            }
            door.close_if_unused();
        }
    }

    /// Whether nothing touches a volume that was withdrawn any more, and its address is free.
    pub(super) fn have_left(&self, volume: &str) -> bool {
        let is_here = |door: &Door| door.exports.iter().any(|export| export.volume == volume);
        !self.doors.iter().any(|door| door.is_closing || is_here(door))
    }

    /// Tells hosts of the sizes that volumes have now, by name.
    ///
    /// # Errors
    /// When hosts could not work with one.
    pub(super) fn refresh(
        &mut self,
        geometry: impl Fn(&str) -> Option<Geometry>,
    ) -> Result<(), DeviceError> {
        for door in &mut self.doors {
            for export in door.exports.iter().filter(|export| !export.is_withdrawn) {
                let subsystem = &door.task.target().subsystems()[export.key.subsystem];
                let told = subsystem.namespaces()[export.key.namespace].geometry().capacity;
                let now = geometry(&export.volume).filter(|now| now.capacity != told);
                if let Some(now) = now {
                    door.task.target_mut().resize(export.key, now)?;
                }
            }
        }
        Ok(())
    }

    /// Moves everybody on. Returns whether anything happened.
    pub(super) fn poll(&mut self, now: Timestamp) -> bool {
        let mut progress = false;
        for door in &mut self.doors {
            progress |= door.task.poll(now);
            let task = &door.task;
            let before = door.exports.len();
            door.exports.retain(|export| !export.is_withdrawn || task.is_in_use(export.key));
            progress |= door.exports.len() < before;
        }
        let before = self.doors.len();
        self.doors.retain(|door| !door.is_closing || !door.task.is_finished());
        if self.ending.as_ref().is_some_and(|port| port.next_event().is_some()) {
            self.doors.clear();
        }
        progress || self.doors.len() < before
    }

    /// Ends all connections and takes no new ones; what devices have been asked is waited for, but
    /// not for ever.
    pub(super) fn shut_down(&mut self) {
        if self.doors.is_empty() {
            return;
        }
        let port = self.reactor.open_port();
        port.timer(self.reactor.now() + GRACE, 0);
        self.ending = Some(port);
        self.doors.iter_mut().for_each(Door::close);
    }

    /// Whether nobody is served any more.
    pub(super) fn is_finished(&self) -> bool {
        self.doors.is_empty()
    }
}

impl Door {
    fn close(&mut self) {
        self.is_closing = true;
        self.task.stop();
    }

    fn close_if_unused(&mut self) {
        if !self.is_closing && self.exports.iter().all(|export| export.is_withdrawn) {
            self.close();
        }
    }
}
