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
//! [`Settings::bytes_in_flight_max`] and of all by [`Settings::memory_max`], controllers by
//! [`Settings::controllers_max`], connections by [`Settings::queues_max`] and
//! [`Settings::unconnected_max`]. A host that does not read its answers is not read from, and after
//! [`Settings::stall_timeout`] it is let go.
//!
//! A target changes while hosts are connected (`changes`): what hosts asked to be told they are.

mod access;
mod admin;
mod changes;
mod connection;
mod controller;
mod discovery;
mod io;
mod limits;
mod namespace;
mod numbered;
mod reservation;
#[cfg_attr(not(feature = "auth"), path = "without_secrets.rs")]
mod secrets;
mod subsystem;
#[cfg(test)]
mod tests;

pub use access::{ACCESS_GROUPS_MAX, HOSTS_MAX, Hosts};
pub use connection::{Connection, Submission};
pub use discovery::{Listener, SecureChannel};
pub use namespace::Namespace;
pub use numbered::Numbered;
pub use reservation::ReservationImage;
#[cfg(feature = "auth")]
pub use secrets::GeneratedKey;
pub use subsystem::Subsystem;

use std::time::Duration;

use block_io::{DeviceError, Timestamp};

use crate::spec::nqn::Nqn;
use crate::spec::status::Status;
use controller::{Controller, ControllerKey, Service};
use discovery::Discovery;
use limits::Usage;
use secrets::Secrets;

/// Bytes of data that a command capsule may carry, on every queue. Linux and SPDK hosts rely on
/// this much for the admin queue whatever IOCCSZ says (NVMe/TCP Transport, "Capsules").
pub const IN_CAPSULE_DATA_MAX: u32 = 8192;

/// The most data of one command, which MDTS says.
pub const TRANSFER_MAX: u32 = 1 << 20;

/// The smallest page, which MDTS counts in: CAP.MPSMIN is 0. Base §3.1.3.1.
const PAGE_SIZE: u32 = 4096;

/// MNAN: how many namespaces a subsystem may have at a time.
pub const NAMESPACES_MAX: usize = 1024;

/// NN: the largest namespace id. Many more than namespaces, for none is given out twice.
pub const NAMESPACE_ID_MAX: u32 = 1 << 20;

/// The largest CNTLID; those above are reserved. Base §5.17.2.1, §6.3.
const CONTROLLER_ID_MAX: u16 = 0xffef;

/// Limits of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Entries of a queue, 2 to 4096.
    pub queue_entries_max: u16,
    /// I/O queues of one controller, 1 to 1024.
    pub io_queues_max: u16,
    /// Controllers at a time, discovery controllers included; at most 65519.
    pub controllers_max: u16,
    /// CNTLID of the first controller; they are numbered up to [`controllers_max`] from it. Two
    /// processes that serve one subsystem need ranges that do not overlap. 1 to 65519.
    ///
    /// [`controllers_max`]: Self::controllers_max
    pub controller_id_first: u16,
    /// PORTID of the first listener in the discovery log; later ones count on. Another one for each
    /// process that serves the same subsystem.
    pub port_id_first: u16,
    /// Bytes of payload that one connection holds; a command that would exceed it waits, a single
    /// one only where the others hold more than `memory_max`.
    pub bytes_in_flight_max: usize,
    /// Bytes of payload that all connections hold; at least [`TRANSFER_MAX`]. A command that would
    /// exceed it waits until another one has ended, in no particular order between connections.
    pub memory_max: usize,
    /// Connections that are queues, admin queues included; a further Connect is told that the
    /// controller is busy.
    pub queues_max: usize,
    /// The same of one host, by its name.
    pub queues_per_host_max: usize,
    /// Connections that are not a queue yet, or no more; a further one ends the oldest.
    pub unconnected_max: usize,
    /// How long a new connection may take to become a queue.
    pub handshake_timeout: Duration,
    /// How long a queue of a host that has a secret may take to prove that it knows it. It counts
    /// as one of the host's queues meanwhile.
    pub authentication_timeout: Duration,
    /// How long a host that was asked for data, or was sent some, may let not a byte pass. It keeps
    /// memory that others wait for.
    pub stall_timeout: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            queue_entries_max: 128,
            io_queues_max: 64,
            controllers_max: 256,
            controller_id_first: 1,
            port_id_first: 0,
            bytes_in_flight_max: 32 << 20,
            memory_max: 256 << 20,
            queues_max: 1024,
            queues_per_host_max: 512,
            unconnected_max: 256,
            handshake_timeout: Duration::from_secs(10),
            // Linux gives each message 120 s. Large groups take slow machines seconds.
            authentication_timeout: Duration::from_secs(60),
            stall_timeout: Duration::from_secs(30),
        }
    }
}

fn at_least(name: &str, value: usize, least: usize) -> Result<(), DeviceError> {
    if value >= least {
        return Ok(());
    }
    Err(DeviceError::new(format!("{name} is {value}: must be at least {least}")))
}

/// Which namespace a request is for. No other one gets the same key, even after it was removed.
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
    subsystems: Numbered<Subsystem>,
    usage: Usage,
    /// A controller's place is its id less the first.
    controllers: Vec<Option<Controller>>,
    /// Distinguishes controllers that had the same id one after the other.
    controllers_made: u64,
    discovery: Discovery,
    secrets: Secrets,
}

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
        let id_first = settings.controller_id_first;
        in_range("controller_id_first", id_first, 1..=CONTROLLER_ID_MAX)?;
        let controllers_most = CONTROLLER_ID_MAX - id_first + 1;
        in_range("controllers_max", settings.controllers_max, 1..=controllers_most)?;
        at_least("queues_max", settings.queues_max, 1)?;
        at_least("queues_per_host_max", settings.queues_per_host_max, 1)?;
        at_least("unconnected_max", settings.unconnected_max, 1)?;
        at_least("memory_max", settings.memory_max, TRANSFER_MAX as usize)?;
        Ok(Self {
            settings,
            subsystems: Numbered::default(),
            usage: Usage::default(),
            controllers: Vec::new(),
            controllers_made: 0,
            discovery: Discovery::new(settings.port_id_first),
            secrets: Secrets::default(),
        })
    }

    /// The limits.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Whether an address of the subsystems requires TLS.
    pub fn requires_tls(&self) -> bool {
        let mut listeners = self.discovery.places(false);
        listeners.any(|(_, listener)| listener.channel == SecureChannel::Required)
    }

    /// The subsystems, by their places.
    pub fn subsystems(&self) -> &Numbered<Subsystem> {
        &self.subsystems
    }

    /// The place of the subsystem with this name.
    pub fn find_subsystem(&self, name: &Nqn) -> Option<usize> {
        self.subsystems.iter().find(|(_, subsystem)| subsystem.nqn() == name).map(|found| found.0)
    }

    /// Associations with a subsystem at the moment: host name, controller id, and I/O queues that
    /// are there.
    pub fn associations(&self, place: usize) -> impl Iterator<Item = (&Nqn, u16, usize)> {
        self.controllers_of(place).map(|controller| {
            let queues = controller.io_queues.iter().filter(|taken| **taken).count();
            (&controller.host, controller.key.id, queues)
        })
    }

    /// Associations at the moment: controllers that a host is connected to.
    pub fn controllers_in_use(&self) -> usize {
        self.controllers.iter().flatten().count()
    }

    /// Connections that are queues at the moment.
    pub fn queues_in_use(&self) -> usize {
        self.usage.queues
    }

    /// Connections that are not a queue yet, or no more, at the moment.
    pub fn unconnected(&self) -> usize {
        self.usage.unconnected()
    }

    /// Bytes of payload that connections hold, as of their last polls.
    pub fn memory_in_use(&self) -> usize {
        self.usage.memory
    }

    fn controllers_of(&self, place: usize) -> impl Iterator<Item = &Controller> {
        let controllers = self.controllers.iter().flatten();
        controllers.filter(move |controller| controller.service == Service::Subsystem(place))
    }

    /// The place of the controller with this id, whether it is there or not.
    fn controller_place(&self, id: u16) -> Option<usize> {
        id.checked_sub(self.settings.controller_id_first).map(usize::from)
    }

    /// Why commands for a namespace fail here now; none when they do not, or there is none.
    fn access_failure(&self, key: NamespaceKey) -> Option<Status> {
        let subsystem = self.subsystems.get(key.subsystem)?;
        let namespace = subsystem.namespaces.get(key.namespace)?;
        subsystem.access_failure(namespace.access_group())
    }

    fn namespace(&self, key: NamespaceKey) -> Option<&Namespace> {
        self.subsystems.get(key.subsystem)?.namespaces.get(key.namespace)
    }

    fn namespace_mut(&mut self, key: NamespaceKey) -> Option<&mut Namespace> {
        self.subsystems.get_mut(key.subsystem)?.namespaces.get_mut(key.namespace)
    }

    /// The controller with this key, unless it is gone.
    fn controller(&self, key: ControllerKey) -> Option<&Controller> {
        let place = self.controllers.get(self.controller_place(key.id)?)?;
        place.as_ref().filter(|controller| controller.key == key)
    }

    fn controller_mut(&mut self, key: ControllerKey) -> Option<&mut Controller> {
        let place = self.controller_place(key.id)?;
        let place = self.controllers.get_mut(place)?;
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
        // Within the range that `new` has checked.
        let id = self.settings.controller_id_first + place as u16;
        let key = ControllerKey { id, serial: self.controllers_made };
        let controller = Some(make(key));
        match self.controllers.get_mut(place) {
            Some(free) => *free = controller,
            None => self.controllers.push(controller),
        }
        Some(key)
    }

    /// Ends an association; its I/O queues find their controller gone.
    fn remove_controller(&mut self, key: ControllerKey) {
        if self.controller(key).is_some()
            && let Some(place) = self.controller_place(key.id)
        {
            self.controllers[place] = None;
        }
    }

    /// A sign of life on any queue counts: traffic based keep alive. Base §3.9.4.
    fn heard(&mut self, key: ControllerKey, now: Timestamp) {
        if let Some(controller) = self.controller_mut(key) {
            controller.heard = now;
        }
    }
}
