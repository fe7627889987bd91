//! A remote namespace as a block device: an association over TCP, its I/O queues as block queues.
//!
//! Connecting blocks the caller, who gives the reactor to turn, or turns it himself and serves
//! others meanwhile; after that everything happens in the queues' polls. When the association is
//! lost, every request ends with [`IoError::ConnectionLost`](block_io::IoError::ConnectionLost),
//! those in flight and all later ones; making a new device connects again.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use block_io::reactor::{Reactor, Wait};
use block_io::{BlockDevice, BlockQueue, Completion, DeviceError, Geometry, Request, Timestamp};

use super::host::{HostDriver, resolve};
use super::random_seed;
use crate::error::ConnectionError;
use crate::host::controller::Purpose;
use crate::host::{Controller, HostAuthentication, HostOptions, Identity, QueueIndex};
use crate::pdu::Digests;
use crate::spec::nqn::{HostId, Nqn};

/// The port of NVMe over TCP. NVMe/TCP Transport 1.1 §3.1 (IANA nvme)
pub const PORT: u16 = 4420;

/// Which namespace, where, and how.
#[derive(Clone, Debug)]
pub struct ConnectOptions {
    /// Name or address of the target, without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// The subsystem's NQN.
    pub subsystem: Nqn,
    /// The namespace in it.
    pub namespace_id: u32,
    /// This host's NQN.
    pub host_nqn: Nqn,
    /// This host's identifier, always the same with the same NQN.
    pub host_id: HostId,
    /// CRC32C over every header.
    pub header_digest: bool,
    /// CRC32C over all data.
    pub data_digest: bool,
    /// Entries of an I/O queue, 2 to 1024.
    pub queue_depth: u16,
    /// I/O queues; each is one [`NamespaceQueue`].
    pub io_queues: u16,
    /// KATO; zero for none.
    pub keep_alive: Duration,
    /// How long connecting may take in all.
    pub connect_timeout: Duration,
    /// How long a command may take before the association is given up.
    pub command_timeout: Duration,
    /// The key with which every queue's stream is encrypted; plain without.
    #[cfg(feature = "tls")]
    pub tls: Option<crate::tls::HostTls>,
    /// What this host proves itself with, where the controller asks for that.
    pub authentication: Option<HostAuthentication>,
}

impl ConnectOptions {
    /// Namespace 1 of `subsystem` at `host`, port 4420, all else as in [`HostOptions::new`].
    pub fn new(host: impl Into<String>, subsystem: Nqn, host_nqn: Nqn, host_id: HostId) -> Self {
        let options = HostOptions::new("", subsystem, host_nqn, host_id);
        Self {
            host: host.into(),
            port: PORT,
            namespace_id: 1,
            header_digest: options.digests.header,
            data_digest: options.digests.data,
            queue_depth: options.queue_depth,
            io_queues: options.io_queues,
            keep_alive: options.keep_alive,
            connect_timeout: options.connect_timeout,
            command_timeout: options.command_timeout,
            authentication: options.authentication,
            subsystem: options.subsystem,
            host_nqn: options.host,
            host_id: options.host_id,
            #[cfg(feature = "tls")]
            tls: None,
        }
    }

    /// The state machine's part of it.
    pub(super) fn host_options(&self) -> HostOptions {
        HostOptions {
            address: show_address(&self.host, self.port),
            subsystem: self.subsystem.clone(),
            host: self.host_nqn.clone(),
            host_id: self.host_id,
            digests: Digests { header: self.header_digest, data: self.data_digest },
            queue_depth: self.queue_depth,
            io_queues: self.io_queues,
            keep_alive: self.keep_alive,
            connect_timeout: self.connect_timeout,
            command_timeout: self.command_timeout,
            authentication: self.authentication.clone(),
        }
    }
}

/// Host and port as people write them.
pub(super) fn show_address(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

type Driver = HostDriver<Controller>;

/// A connected namespace. Cheap to clone; clones are the same association.
#[derive(Clone)]
pub struct NvmeTcpDevice {
    driver: Rc<RefCell<Driver>>,
    /// As of connecting.
    geometry: Geometry,
    namespace_id: u32,
}

impl NvmeTcpDevice {
    /// Connects, and runs the reactor until the association is up.
    ///
    /// # Errors
    /// Why it did not come up within the connect timeout: what was offered, to whom, and what the
    /// answer was.
    pub fn connect(reactor: &Reactor, options: &ConnectOptions) -> Result<Self, DeviceError> {
        let addresses = Self::resolve(options)?;
        Self::connect_with(reactor, options, addresses, |wait| {
            reactor.turn(wait)?;
            Ok(reactor.now())
        })
    }

    /// The addresses of the host that `options` name. Blocks for as long as the resolver does, and
    /// needs no reactor: a thread of its own can do it.
    ///
    /// # Errors
    /// When the name is not known.
    pub fn resolve(options: &ConnectOptions) -> Result<Vec<SocketAddr>, DeviceError> {
        resolve(&options.host, options.port)
    }

    /// As [`connect`](Self::connect), to the first of `addresses` that answers. `turn` turns the
    /// reactor and returns the time; others can be served in it.
    ///
    /// # Errors
    /// As [`connect`](Self::connect), and what `turn` fails of.
    pub fn connect_with(
        reactor: &Reactor,
        options: &ConnectOptions,
        addresses: Vec<SocketAddr>,
        mut turn: impl FnMut(Wait) -> Result<Timestamp, DeviceError>,
    ) -> Result<Self, DeviceError> {
        turn(Wait::No)?;
        let mut controller = Controller::new(
            reactor.pool(),
            options.host_options(),
            Purpose::Namespace(options.namespace_id),
            reactor.now(),
        )?;
        controller.seed_random(&*random_seed()?);
        let mut driver = HostDriver::new(reactor, controller, addresses);
        #[cfg(feature = "tls")]
        if let Some(tls) = &options.tls {
            if options.authentication.as_ref().is_some_and(|own| own.keys.concatenate) {
                return Err(DeviceError::new(
                    "a TLS key and secure channel concatenation, which makes one: must be one of \
                     them",
                ));
            }
            let offer = crate::tls::Offer::new(tls, &options.host_nqn, &options.subsystem)?;
            driver.offer(offer);
        }
        driver.run_with(turn, |controller| controller.is_up())?;
        let controller = &driver.machine;
        match controller.identity().geometry {
            Some(geometry) if controller.is_up() => {
                let driver = Rc::new(RefCell::new(driver));
                Ok(Self { driver, geometry, namespace_id: options.namespace_id })
            }
            _ => Err(controller.error().cloned().unwrap_or(ConnectionError::Closed).into()),
        }
    }

    /// What controller and namespace have told about themselves.
    pub fn identity(&self) -> Identity {
        self.driver.borrow().machine.identity().clone()
    }

    pub(super) fn with_controller<Value>(&self, look: impl FnOnce(&Controller) -> Value) -> Value {
        look(&self.driver.borrow().machine)
    }

    /// The namespace's identifier in its subsystem.
    pub const fn namespace_id(&self) -> u32 {
        self.namespace_id
    }

    /// Why the association was lost; absent while it is up.
    pub fn error(&self) -> Option<ConnectionError> {
        self.driver.borrow().machine.error().cloned()
    }

    /// Tells the controller that this host is leaving, and closes the connections. Requests still
    /// in flight end as lost.
    ///
    /// # Errors
    /// When the reactor itself fails.
    pub fn shut_down(&self, reactor: &Reactor) -> Result<(), DeviceError> {
        self.shut_down_with(|wait| {
            reactor.turn(wait)?;
            Ok(reactor.now())
        })
    }

    /// As [`shut_down`](Self::shut_down), with turns of the caller's, who may do more in them, but
    /// nothing with this device.
    ///
    /// # Errors
    /// What `turn` fails of.
    pub fn shut_down_with(
        &self,
        turn: impl FnMut(Wait) -> Result<Timestamp, DeviceError>,
    ) -> Result<(), DeviceError> {
        let mut driver = self.driver.borrow_mut();
        driver.machine.shut_down();
        driver.run_with(turn, |_| false)
    }
}

impl BlockDevice<Reactor> for NvmeTcpDevice {
    type Queue = NamespaceQueue;

    fn geometry(&self) -> Geometry {
        let driver = self.driver.borrow();
        driver.machine.identity().geometry.unwrap_or(self.geometry)
    }

    /// Must be on the reactor that the device was connected on; each queue is one I/O queue of the
    /// association's.
    fn open_queue(&self, _: &Reactor, depth: usize) -> Result<NamespaceQueue, DeviceError> {
        let queue = self.driver.borrow_mut().machine.open_queue(depth)?;
        Ok(NamespaceQueue { device: self.clone(), queue })
    }
}

impl std::fmt::Debug for NvmeTcpDevice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let driver = self.driver.borrow();
        let options = driver.machine.options();
        write!(f, "NvmeTcpDevice({} at {})", options.subsystem, options.address)
    }
}

/// One I/O queue. Its poll also keeps the association alive.
#[derive(Debug)]
pub struct NamespaceQueue {
    device: NvmeTcpDevice,
    queue: QueueIndex,
}

impl BlockQueue for NamespaceQueue {
    fn geometry(&self) -> Geometry {
        let mut driver = self.device.driver.borrow_mut();
        driver
            .machine
            .requests(self.queue)
            .map_or(self.device.geometry, |requests| requests.geometry())
    }

    fn submit(&mut self, request: Request) -> Result<(), Request> {
        self.device.driver.borrow_mut().machine.submit(self.queue, request)
    }

    fn poll(&mut self, now: Timestamp, completions: &mut Vec<Completion>) -> bool {
        let mut driver = self.device.driver.borrow_mut();
        let progress = driver.poll(now);
        driver.machine.take_completions(self.queue, completions) | progress
    }

    fn in_flight(&self) -> usize {
        let mut driver = self.device.driver.borrow_mut();
        driver.machine.requests(self.queue).map_or(0, |requests| requests.in_flight())
    }
}

impl Drop for NamespaceQueue {
    fn drop(&mut self) {
        self.device.driver.borrow_mut().machine.close_queue(self.queue);
    }
}
