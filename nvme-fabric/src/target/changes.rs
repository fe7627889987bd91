//! What changes while hosts are connected: subsystems, namespaces, hosts, access, listeners. Each
//! change tells the hosts that asked to be told, and ends the controllers that must not go on; the
//! connections learn of both in their next poll.
//!
//! Absent: the devices; whoever drives the target keeps a removed namespace's until its requests
//! have ended.

use std::net::IpAddr;

use block_io::{DeviceError, Geometry};

use super::controller::Service;
use super::{Hosts, Listener, Namespace, NamespaceKey, Subsystem, Target};
use crate::spec::feature::event;
use crate::spec::log_page::AccessState;
use crate::spec::nqn::Nqn;

impl Target {
    /// Adds a subsystem; returns its place, [`NamespaceKey::subsystem`], which is given out once.
    ///
    /// # Errors
    /// When another one has its name, or it is the discovery service's.
    pub fn add_subsystem(&mut self, subsystem: Subsystem) -> Result<usize, DeviceError> {
        let name = subsystem.nqn();
        if self.discovery.is_named(name) || self.find_subsystem(name).is_some() {
            return Err(DeviceError::new(format!("the subsystem name {name} is taken")));
        }
        let place = self.subsystems.push(subsystem);
        self.discovery_changed();
        Ok(place)
    }

    /// Removes a subsystem with its namespaces; ends its controllers.
    ///
    /// # Errors
    /// When there is none at that place.
    pub fn remove_subsystem(&mut self, place: usize) -> Result<Subsystem, DeviceError> {
        let subsystem = self.subsystems.remove(place).ok_or_else(|| no_subsystem(place))?;
        self.end_controllers(place, |_| true);
        self.discovery_changed();
        Ok(subsystem)
    }

    /// Adds a namespace to a subsystem, under the NSID given or the next one, and returns its key.
    ///
    /// # Errors
    /// As [`Subsystem::add_namespace_as`], and when the device's largest transfer is below what
    /// connected hosts were told of.
    pub fn add_namespace(
        &mut self,
        place: usize,
        namespace_id: Option<u32>,
        namespace: Namespace,
    ) -> Result<NamespaceKey, DeviceError> {
        let is_in_use = self.controllers_of(place).next().is_some();
        let subsystem = self.subsystems.get_mut(place).ok_or_else(|| no_subsystem(place))?;
        let (told, transfer_max) = (subsystem.transfer_max(), namespace.geometry().transfer_max);
        if is_in_use && transfer_max < told {
            return Err(DeviceError::new(format!(
                "the namespace's largest transfer is {transfer_max}: must be at least {told} while \
                 hosts are connected to subsystem {}, for they were told that much",
                subsystem.nqn()
            )));
        }
        let namespace_id = namespace_id.unwrap_or_else(|| subsystem.next_namespace_id());
        let namespace = subsystem.add_namespace_as(namespace_id, namespace)?;
        let key = NamespaceKey { subsystem: place, namespace };
        self.namespace_changed(key);
        Ok(key)
    }

    /// NSIDs of a subsystem below `next` were given out before; see
    /// [`Subsystem::skip_namespace_ids`].
    ///
    /// # Errors
    /// As there, and when there is no subsystem at that place.
    pub fn skip_namespace_ids(&mut self, place: usize, next: u32) -> Result<(), DeviceError> {
        let subsystem = self.subsystems.get_mut(place).ok_or_else(|| no_subsystem(place))?;
        subsystem.skip_namespace_ids(next)
    }

    /// Removes a namespace. What its device has been asked goes on, what waits for memory or data
    /// fails.
    ///
    /// # Errors
    /// When there is no such namespace.
    pub fn remove_namespace(&mut self, key: NamespaceKey) -> Result<Namespace, DeviceError> {
        let subsystem = self.subsystems.get_mut(key.subsystem);
        let removed = subsystem.and_then(|subsystem| subsystem.remove_namespace(key.namespace));
        let removed = removed.ok_or_else(|| no_namespace(key))?;
        self.namespace_changed(key);
        Ok(removed)
    }

    /// Changes the size of a namespace.
    ///
    /// # Errors
    /// When there is no such namespace, or hosts could not work with the geometry.
    pub fn resize(&mut self, key: NamespaceKey, geometry: Geometry) -> Result<(), DeviceError> {
        let subsystem = self.subsystems.get_mut(key.subsystem);
        let namespace = subsystem.and_then(|found| found.namespaces.get_mut(key.namespace));
        namespace.ok_or_else(|| no_namespace(key))?.set_geometry(geometry)?;
        self.notify_namespace(key);
        Ok(())
    }

    /// Says which hosts may connect to a subsystem from now on; ends the controllers of others.
    ///
    /// # Errors
    /// When there is no subsystem at that place, or the list is too long.
    pub fn set_hosts(&mut self, place: usize, hosts: Hosts) -> Result<(), DeviceError> {
        let subsystem = self.subsystems.get_mut(place).ok_or_else(|| no_subsystem(place))?;
        subsystem.set_hosts(hosts.clone())?;
        self.end_controllers(place, |host| !hosts.contains(host));
        self.discovery_changed();
        Ok(())
    }

    /// Adds a host to those that may connect to a subsystem.
    ///
    /// # Errors
    /// When any host may already, so that nobody believes a list to hold; as
    /// [`set_hosts`](Self::set_hosts).
    pub fn allow_host(&mut self, place: usize, host: &Nqn) -> Result<(), DeviceError> {
        let mut listed = self.listed_hosts(place)?;
        if listed.contains(host) {
            return Ok(());
        }
        listed.push(host.clone());
        self.set_hosts(place, Hosts::Listed(listed))
    }

    /// Removes a host from those that may connect to a subsystem, and ends its controllers there.
    ///
    /// # Errors
    /// When it is not listed, or any host may connect.
    pub fn forbid_host(&mut self, place: usize, host: &Nqn) -> Result<(), DeviceError> {
        let mut listed = self.listed_hosts(place)?;
        let Some(index) = listed.iter().position(|other| other == host) else {
            let nqn = self.subsystems[place].nqn();
            return Err(DeviceError::new(format!(
                "the host {host} is not allowed at subsystem {nqn}: must be one that is"
            )));
        };
        listed.remove(index);
        self.set_hosts(place, Hosts::Listed(listed))
    }

    fn listed_hosts(&self, place: usize) -> Result<Vec<Nqn>, DeviceError> {
        let subsystem = self.subsystems.get(place).ok_or_else(|| no_subsystem(place))?;
        match subsystem.hosts() {
            Hosts::Listed(listed) => Ok(listed.clone()),
            Hosts::Any => Err(DeviceError::new(format!(
                "any host may connect to subsystem {}: must have a list of hosts before one can be \
                 allowed or forbidden",
                subsystem.nqn()
            ))),
        }
    }

    /// Switches an access group of a subsystem to another state, for all listeners of this process.
    /// Whoever sets `Change` must set another one within ten seconds (ANATT), or hosts give up.
    ///
    /// # Errors
    /// When there is no such group, or the state makes no sense.
    pub fn set_access_state(
        &mut self,
        place: usize,
        group: u32,
        state: AccessState,
    ) -> Result<(), DeviceError> {
        let subsystem = self.subsystems.get_mut(place).ok_or_else(|| no_subsystem(place))?;
        if subsystem.groups.is_empty() {
            return Err(DeviceError::new(format!(
                "subsystem {} has no access groups: must be made with some",
                subsystem.nqn()
            )));
        }
        if subsystem.groups.set(group, state)? {
            self.raise(place, event::ASYMMETRIC_ACCESS);
        }
        Ok(())
    }

    /// Adds an address that discovery tells hosts to connect to for every subsystem.
    pub fn add_listener(&mut self, listener: Listener) {
        self.discovery.add_listener(listener, false);
        self.discovery_changed();
    }

    /// Adds an address where the discovery service itself is, which the log tells too.
    pub fn add_discovery_listener(&mut self, listener: Listener) {
        self.discovery.add_listener(listener, true);
        self.discovery_changed();
    }

    /// Tells hosts of an address no more. Connections that came by it go on.
    ///
    /// # Errors
    /// When it was not told.
    pub fn remove_listener(&mut self, address: IpAddr, port: u16) -> Result<(), DeviceError> {
        self.discovery.remove_listener(address, port)?;
        self.discovery_changed();
        Ok(())
    }

    /// Adds the address of another discovery service, to which hosts are referred.
    ///
    /// # Errors
    /// When hosts could not use it, or there are 256.
    pub fn add_referral(&mut self, referral: Listener) -> Result<(), DeviceError> {
        self.discovery.add_referral(referral)?;
        self.discovery_changed();
        Ok(())
    }

    /// Refers hosts there no more.
    ///
    /// # Errors
    /// When they were not.
    pub fn remove_referral(&mut self, referral: Listener) -> Result<(), DeviceError> {
        self.discovery.remove_referral(referral)?;
        self.discovery_changed();
        Ok(())
    }

    /// Gives the discovery service a name of its own, which it says to whoever connects by the well
    /// known one. Base §5.16.1.24 (unique discovery NQN).
    ///
    /// # Errors
    /// When it is the well known one, or a subsystem's.
    pub fn set_discovery_name(&mut self, name: Nqn) -> Result<(), DeviceError> {
        if name.is_discovery() || self.find_subsystem(&name).is_some() {
            return Err(DeviceError::new(format!(
                "the discovery service's name is {name}: must be one of its own"
            )));
        }
        self.discovery.set_name(name);
        self.discovery_changed();
        Ok(())
    }

    /// A namespace came or went: its list changed, and its group's members.
    fn namespace_changed(&mut self, key: NamespaceKey) {
        self.notify_namespace(key);
        if self.subsystems.get(key.subsystem).is_some_and(|found| !found.groups.is_empty()) {
            self.raise(key.subsystem, event::ASYMMETRIC_ACCESS);
        }
    }

    fn notify_namespace(&mut self, key: NamespaceKey) {
        for controller in self.controllers.iter_mut().flatten() {
            if controller.service == Service::Subsystem(key.subsystem) {
                controller.namespace_changed(key.namespace as u32 + 1);
            }
        }
    }

    fn raise(&mut self, place: usize, events: u32) {
        for controller in self.controllers.iter_mut().flatten() {
            if controller.service == Service::Subsystem(place) {
                controller.raise(events);
            }
        }
    }

    fn discovery_changed(&mut self) {
        self.discovery.generation += 1;
        for controller in self.controllers.iter_mut().flatten() {
            if controller.service == Service::Discovery {
                controller.raise(event::DISCOVERY_LOG);
            }
        }
    }

    /// Ends the controllers of a subsystem whose hosts are no longer wanted.
    fn end_controllers(&mut self, place: usize, is_unwanted: impl Fn(&Nqn) -> bool) {
        for slot in &mut self.controllers {
            let ends = slot.as_ref().is_some_and(|controller| {
                controller.service == Service::Subsystem(place) && is_unwanted(&controller.host)
            });
            if ends {
                *slot = None;
            }
        }
    }
}

fn no_subsystem(place: usize) -> DeviceError {
    DeviceError::new(format!("the subsystem's place is {place}: must be one that is there"))
}

fn no_namespace(key: NamespaceKey) -> DeviceError {
    DeviceError::new(format!("there is no namespace {key:?}"))
}
