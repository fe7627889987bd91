//! The target: what hosts connect to, as a state machine without I/O.
//!
//! ```text
//!   bytes ─▶ Connection ─▶ Submission {namespace, block_io::Request} ─▶ a device's queue
//!   bytes ◀─ Connection ◀─ Completion                                ◀─┘
//!               │ poll(&mut Target, now)
//!             Target: subsystems and their namespaces, controllers, discovery service
//! ```
//! A [`Connection`] is one TCP connection, which becomes one queue of a controller. A [`Target`] is
//! what the connections of one process share; connections touch it only in
//! [`Connection::poll`], so whoever spreads them over cores puts one lock around it.
//!
//! Bounds: commands of a connection by its queue's size, payload memory of a connection by
//! [`Settings::bytes_in_flight_max`], controllers by [`Settings::controllers_max`]. A host that
//! does not read its answers is not read from.
//!
//! Absent: access control, asymmetric access.

mod admin;
mod connection;
mod controller;
mod discovery;
mod io;
mod namespace;
mod reservation;
mod subsystem;
#[cfg(test)]
mod tests;

pub use connection::{Connection, Submission};
pub use discovery::{Listener, SecureChannel};
pub use namespace::Namespace;
pub use reservation::ReservationImage;
pub use subsystem::Subsystem;

use std::collections::VecDeque;
use std::time::Duration;

use block_io::{DeviceError, Geometry, Timestamp};

use crate::auth::{GeneratedPsk, Keys, Random, SEED_LENGTH};
use crate::spec::feature::event;
use crate::spec::nqn::Nqn;
use controller::{Controller, ControllerKey, Service};
use discovery::Discovery;

/// Bytes of data that a command capsule may carry, on every queue. Linux and SPDK hosts rely on
/// this much for the admin queue whatever IOCCSZ says (NVMe/TCP Transport, "Capsules").
pub const IN_CAPSULE_DATA_MAX: u32 = 8192;

/// The most data of one command, which MDTS says.
pub const TRANSFER_MAX: u32 = 1 << 20;

/// The smallest page, which MDTS counts in: CAP.MPSMIN is 0. Base §3.1.3.1.
const PAGE_SIZE: u32 = 4096;

/// NN and MNAN: the largest namespace id, and how many there may be.
const NAMESPACES_MAX: usize = 1024;

/// Limits of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Entries of a queue, 2 to 4096.
    pub queue_entries_max: u16,
    /// I/O queues of one controller, 1 to 1024.
    pub io_queues_max: u16,
    /// Controllers at a time, discovery controllers included; at most 65519.
    pub controllers_max: u16,
    /// Bytes of payload that one connection holds; a command that would exceed it waits, a single
    /// one never.
    pub bytes_in_flight_max: usize,
    /// How long a new connection may take to become a queue.
    pub handshake_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            queue_entries_max: 128,
            io_queues_max: 64,
            controllers_max: 256,
            bytes_in_flight_max: 32 << 20,
            handshake_timeout: Duration::from_secs(10),
        }
    }
}

/// Which namespace a request is for: its subsystem's place and its own place, both as added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NamespaceKey {
    /// Place in the target.
    pub subsystem: usize,
    /// Place in the subsystem; its NSID is one more.
    pub namespace: usize,
}

/// What all connections share. See the module.
#[derive(Debug)]
pub struct Target {
    settings: Settings,
    subsystems: Vec<Subsystem>,
    /// A controller's place is its id less one.
    controllers: Vec<Option<Controller>>,
    /// Distinguishes controllers that had the same id one after the other.
    controllers_made: u64,
    discovery: Discovery,
    random: Option<Random>,
    /// Keys that nobody has taken yet, at most [`GENERATED_MAX`].
    generated: VecDeque<GeneratedKey>,
}

/// A key for TLS that an authentication has generated. See [`Target::next_generated_key`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GeneratedKey {
    /// The host that has it too.
    pub host: Nqn,
    /// The subsystem that it opens.
    pub subsystem: Nqn,
    /// The key.
    pub psk: GeneratedPsk,
}

/// Generated keys that wait for the driver, which takes them after each poll; the oldest goes.
const GENERATED_MAX: usize = 64;

impl Target {
    /// A target without subsystems.
    ///
    /// # Errors
    /// When a setting is out of its range.
    pub fn new(settings: Settings) -> Result<Self, DeviceError> {
        let in_range = |name: &str, value: u16, range: std::ops::RangeInclusive<u16>| {
            if range.contains(&value) {
                return Ok(());
            }
            let (first, last) = (range.start(), range.end());
            Err(DeviceError::new(format!("{name} is {value}: must be {first} to {last}")))
        };
        in_range("queue_entries_max", settings.queue_entries_max, 2..=4096)?;
        in_range("io_queues_max", settings.io_queues_max, 1..=1024)?;
        in_range("controllers_max", settings.controllers_max, 1..=0xffef)?;
        Ok(Self {
            settings,
            subsystems: Vec::new(),
            controllers: Vec::new(),
            controllers_made: 0,
            discovery: Discovery::default(),
            random: None,
            generated: VecDeque::new(),
        })
    }

    /// The limits.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Adds a subsystem and returns its place, [`NamespaceKey::subsystem`].
    ///
    /// # Errors
    /// When another one has its name, or it is the discovery service's.
    pub fn add_subsystem(&mut self, subsystem: Subsystem) -> Result<usize, DeviceError> {
        let name = subsystem.nqn();
        if name.is_discovery() || self.find_subsystem(name).is_some() {
            return Err(DeviceError::new(format!("the subsystem name {name} is taken")));
        }
        self.subsystems.push(subsystem);
        self.discovery_changed();
        Ok(self.subsystems.len() - 1)
    }

    /// Hands in random bytes, never the same twice, which hosts with secrets need: until then they
    /// are refused.
    pub fn seed_random(&mut self, seed: &[u8; SEED_LENGTH]) {
        self.random = Some(Random::new(seed));
    }

    /// A key that a host and a connection for which TLS was [offered](Connection::offer_tls) have
    /// generated: the streams with which the host comes next begin with TLS by it. To be asked
    /// after every [`Connection::poll`].
    pub fn next_generated_key(&mut self) -> Option<GeneratedKey> {
        self.generated.pop_front()
    }

    fn key_generated(&mut self, key: GeneratedKey) {
        if self.generated.len() == GENERATED_MAX {
            self.generated.pop_front();
        }
        self.generated.push_back(key);
    }

    /// Gives a host keys with the subsystem at this place, while it is served:
    /// [`Subsystem::set_host_keys`].
    ///
    /// # Errors
    /// When there is no such subsystem, or as there.
    pub fn set_host_keys(
        &mut self,
        subsystem: usize,
        host: Nqn,
        keys: Keys,
    ) -> Result<(), DeviceError> {
        let place = self
            .subsystems
            .get_mut(subsystem)
            .ok_or_else(|| DeviceError::new(format!("there is no subsystem {subsystem}")))?;
        place.set_host_keys(host, keys)
    }

    /// The subsystems, as added.
    pub fn subsystems(&self) -> &[Subsystem] {
        &self.subsystems
    }

    /// Adds an address that discovery tells hosts to connect to for every subsystem.
    pub fn add_listener(&mut self, listener: Listener) {
        self.discovery.listeners.push(listener);
        self.discovery_changed();
    }

    /// Adds an address where the discovery service itself is, which the log tells too.
    pub fn add_discovery_listener(&mut self, listener: Listener) {
        self.discovery.services.push(listener);
        self.discovery_changed();
    }

    /// Whether an address of the subsystems requires TLS.
    pub fn requires_tls(&self) -> bool {
        let mut listeners = self.discovery.listeners.iter();
        listeners.any(|listener| listener.channel == SecureChannel::Required)
    }

    /// Changes the size of a namespace and tells hosts that asked to be told.
    ///
    /// # Errors
    /// When there is no such namespace, or hosts could not work with the geometry.
    pub fn resize(&mut self, key: NamespaceKey, geometry: Geometry) -> Result<(), DeviceError> {
        let namespace = self
            .subsystems
            .get_mut(key.subsystem)
            .and_then(|subsystem| subsystem.namespaces.get_mut(key.namespace))
            .ok_or_else(|| DeviceError::new(format!("there is no namespace {key:?}")))?;
        namespace.set_geometry(geometry)?;
        for controller in self.controllers.iter_mut().flatten() {
            if controller.service == Service::Subsystem(key.subsystem) {
                controller.namespace_changed(key.namespace as u32 + 1);
            }
        }
        Ok(())
    }

    /// Associations at the moment: controllers that a host is connected to.
    pub fn controllers_in_use(&self) -> usize {
        self.controllers.iter().flatten().count()
    }

    fn discovery_changed(&mut self) {
        self.discovery.generation += 1;
        for controller in self.controllers.iter_mut().flatten() {
            if controller.service == Service::Discovery {
                controller.raise(event::DISCOVERY_LOG);
            }
        }
    }

    fn find_subsystem(&self, name: &Nqn) -> Option<usize> {
        self.subsystems.iter().position(|subsystem| subsystem.nqn() == name)
    }

    fn namespace(&self, key: NamespaceKey) -> Option<&Namespace> {
        self.subsystems.get(key.subsystem)?.namespaces.get(key.namespace)
    }

    fn namespace_mut(&mut self, key: NamespaceKey) -> Option<&mut Namespace> {
        self.subsystems.get_mut(key.subsystem)?.namespaces.get_mut(key.namespace)
    }

    /// The controller with this key, unless it is gone.
    fn controller(&self, key: ControllerKey) -> Option<&Controller> {
        let place = self.controllers.get(usize::from(key.id).checked_sub(1)?)?;
        place.as_ref().filter(|controller| controller.key == key)
    }

    fn controller_mut(&mut self, key: ControllerKey) -> Option<&mut Controller> {
        let place = self.controllers.get_mut(usize::from(key.id).checked_sub(1)?)?;
        place.as_mut().filter(|controller| controller.key == key)
    }

    /// A new controller, unless there are as many as there may be.
    fn add_controller(
        &mut self,
        make: impl FnOnce(ControllerKey) -> Controller,
    ) -> Option<ControllerKey> {
        let free = self.controllers.iter().position(Option::is_none);
        let place = free.unwrap_or(self.controllers.len());
        if place >= usize::from(self.settings.controllers_max) {
            return None;
        }
        self.controllers_made += 1;
        let key = ControllerKey { id: place as u16 + 1, serial: self.controllers_made };
        let controller = Some(make(key));
        match self.controllers.get_mut(place) {
            Some(free) => *free = controller,
            None => self.controllers.push(controller),
        }
        Some(key)
    }

    /// Ends an association; its I/O queues find their controller gone.
    fn remove_controller(&mut self, key: ControllerKey) {
        if self.controller(key).is_some() {
            self.controllers[usize::from(key.id) - 1] = None;
        }
    }

    /// A sign of life on any queue counts: traffic based keep alive. Base §3.9.4.
    fn heard(&mut self, key: ControllerKey, now: Timestamp) {
        if let Some(controller) = self.controller_mut(key) {
            controller.heard = now;
        }
    }
}
