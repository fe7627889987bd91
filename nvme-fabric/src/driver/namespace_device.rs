//! A remote namespace as a block device: paths to it over TCP, and block queues that use them.
//!
//! Connecting blocks the caller, who gives the reactor to turn, or turns it himself and serves
//! others meanwhile; after that everything happens in the queues' polls. An association that is
//! lost is made again; requests wait for that, or take another path, as [`crate::host::paths`]
//! says. A request fails with [`IoError::ConnectionLost`](block_io::IoError::ConnectionLost) only
//! when it may still be carried out, and with `EHOSTUNREACH` when there was no path for too long.

use std::cell::RefCell;
use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use block_io::device::Interruptions;
use block_io::reactor::{Reactor, Wait};
use block_io::{BlockDevice, BlockQueue, Completion, DeviceError, Geometry, Request, Timestamp};

use super::host::{HostDriver, resolve};
use crate::error::ConnectionError;
#[cfg(feature = "auth")]
use crate::host::HostAuthentication;
use crate::host::paths::{LostChanges, PathPolicy, PathsStatus, Settings};
use crate::host::{Controller, HostOptions, Identity, Paths};
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
    /// Further addresses of the subsystem, name and port; each is a path of its own.
    pub more_addresses: Vec<(String, u16)>,
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
    /// How long a command may take before it is aborted.
    pub command_timeout: Duration,
    /// How much longer it may take then, before the association is given up; absent: no longer.
    pub abort_time: Option<Duration>,
    /// See [`Settings::reconnect_delay_min`].
    pub reconnect_delay_min: Duration,
    /// See [`Settings::reconnect_delay_max`].
    pub reconnect_delay_max: Duration,
    /// See [`Settings::fast_io_fail`].
    pub fast_io_fail: Option<Duration>,
    /// See [`Settings::controller_loss`].
    pub controller_loss: Option<Duration>,
    /// See [`Settings::lost_changes`].
    pub lost_changes: LostChanges,
    /// See [`Settings::policy`].
    pub path_policy: PathPolicy,
    /// The key with which every queue's stream is encrypted; plain without.
    #[cfg(feature = "tls")]
    pub tls: Option<crate::tls::HostTls>,
    /// What this host proves itself with, where the controller asks for that.
    #[cfg(feature = "auth")]
    pub authentication: Option<HostAuthentication>,
}

impl ConnectOptions {
    /// Namespace 1 of `subsystem` at `host`, port 4420, all else as in [`HostOptions::new`] and
    /// [`Settings::default`].
    pub fn new(host: impl Into<String>, subsystem: Nqn, host_nqn: Nqn, host_id: HostId) -> Self {
        let options = HostOptions::new("", subsystem, host_nqn, host_id);
        let settings = Settings::default();
        Self {
            host: host.into(),
            port: PORT,
            more_addresses: Vec::new(),
            namespace_id: 1,
            header_digest: options.digests.header,
            data_digest: options.digests.data,
            queue_depth: options.queue_depth,
            io_queues: options.io_queues,
            keep_alive: options.keep_alive,
            connect_timeout: options.connect_timeout,
            command_timeout: options.command_timeout,
            abort_time: options.abort_time,
            reconnect_delay_min: settings.reconnect_delay_min,
            reconnect_delay_max: settings.reconnect_delay_max,
            fast_io_fail: settings.fast_io_fail,
            controller_loss: settings.controller_loss,
            lost_changes: settings.lost_changes,
            path_policy: settings.policy,
            #[cfg(feature = "auth")]
            authentication: options.authentication,
            subsystem: options.subsystem,
            host_nqn: options.host,
            host_id: options.host_id,
            #[cfg(feature = "tls")]
            tls: None,
        }
    }

    /// The times and policies in it.
    pub fn settings(&self) -> Settings {
        Settings {
            reconnect_delay_min: self.reconnect_delay_min,
            reconnect_delay_max: self.reconnect_delay_max,
            fast_io_fail: self.fast_io_fail,
            controller_loss: self.controller_loss,
            connect_timeout: self.connect_timeout,
            command_timeout: self.command_timeout,
            abort_time: self.abort_time,
            keep_alive: self.keep_alive,
            lost_changes: self.lost_changes,
            policy: self.path_policy,
            ..Settings::default()
        }
    }

    /// Where its paths lead, the first address first.
    fn endpoints(&self) -> impl Iterator<Item = (&str, u16)> {
        let more = self.more_addresses.iter().map(|(host, port)| (host.as_str(), *port));
        std::iter::once((self.host.as_str(), self.port)).chain(more)
    }

    /// The state machine's part of it, for the first address.
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
            abort_time: self.abort_time,
            #[cfg(feature = "auth")]
            authentication: self.authentication.clone(),
        }
    }
}

/// What streams begin with: keys that are offered for TLS, or nothing.
#[cfg(feature = "tls")]
type Way = Option<crate::tls::Offer>;
#[cfg(not(feature = "tls"))]
type Way = Option<std::convert::Infallible>;

/// What is tried one after the other, while targets do not know the keys.
#[cfg(feature = "tls")]
fn ways(options: &ConnectOptions) -> Result<Vec<Way>, DeviceError> {
    let Some(tls) = &options.tls else { return Ok(vec![None]) };
    if options.authentication.as_ref().is_some_and(|own| own.keys.concatenate) {
        return Err(DeviceError::new(
            "a TLS key and secure channel concatenation, which makes one: must be one of them",
        ));
    }
    let ways = crate::tls::Offer::ways(tls, &options.host_nqn, &options.subsystem)?;
    Ok(ways.into_iter().map(Some).collect())
}

#[cfg(not(feature = "tls"))]
#[expect(clippy::unnecessary_wraps, reason = "it may fail with TLS")]
fn ways(_options: &ConnectOptions) -> Result<Vec<Way>, DeviceError> {
    Ok(vec![None])
}

/// Host and port as people write them.
pub(super) fn show_address(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// The addresses that the names of [`ConnectOptions`] have: those of each path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addresses(Vec<Vec<SocketAddr>>);

/// A connected namespace. Cheap to clone; clones are the same one.
#[derive(Clone)]
pub struct NvmeTcpDevice {
    driver: Rc<RefCell<HostDriver<Paths>>>,
    /// As of connecting.
    geometry: Geometry,
    namespace_id: u32,
    /// For people: the subsystem and the first address.
    name: Rc<str>,
}

impl NvmeTcpDevice {
    /// Connects, and runs the reactor until the first path is up. The others go on trying.
    ///
    /// # Errors
    /// Why no path came up within the connect timeout: what was offered, to whom, and what the
    /// answer was.
    pub fn connect(reactor: &Reactor, options: &ConnectOptions) -> Result<Self, DeviceError> {
        let addresses = Self::resolve(options)?;
        Self::connect_with(reactor, options, addresses, |wait| {
            reactor.turn(wait)?;
            Ok(reactor.now())
        })
    }

    /// The addresses of the hosts that `options` name. Blocks for as long as the resolver does, and
    /// needs no reactor: a thread of its own can do it.
    ///
    /// # Errors
    /// When a name is not known.
    pub fn resolve(options: &ConnectOptions) -> Result<Addresses, DeviceError> {
        let addresses = options.endpoints().map(|(host, port)| resolve(host, port));
        addresses.collect::<Result<_, _>>().map(Addresses)
    }

    /// As [`connect`](Self::connect), to the first of each path's `addresses` that answers. `turn`
    /// turns the reactor and returns the time; others can be served in it.
    ///
    /// # Errors
    /// As [`connect`](Self::connect), and what `turn` fails of.
    pub fn connect_with(
        reactor: &Reactor,
        options: &ConnectOptions,
        addresses: Addresses,
        mut turn: impl FnMut(Wait) -> Result<Timestamp, DeviceError>,
    ) -> Result<Self, DeviceError> {
        turn(Wait::No)?;
        let mut first = None;
        for way in ways(options)? {
            let driver = Self::driver(reactor, options, &addresses, way)?;
            let reason = match Self::bring_up(driver, options, &mut turn)? {
                Ok(device) => return Ok(device),
                Err(reason) => reason,
            };
            match reason {
                ConnectionError::NoSession(_) => {}
                // The key was the right one.
                ConnectionError::Refused(_)
                | ConnectionError::Unauthenticated(_)
                | ConnectionError::Incompatible(_) => return Err(reason.into()),
                reason => return Err(first.unwrap_or(reason).into()),
            }
            first.get_or_insert(reason);
        }
        Err(first.unwrap_or(ConnectionError::Closed).into())
    }

    /// A driver of the paths, which offers the keys of `way`.
    #[cfg_attr(not(feature = "tls"), expect(unused_mut, unused_variables))]
    fn driver(
        reactor: &Reactor,
        options: &ConnectOptions,
        addresses: &Addresses,
        way: Way,
    ) -> Result<HostDriver<Paths>, DeviceError> {
        let first = options.host_options();
        let name = format!("{} at {}", first.subsystem, first.address);
        let paths = options
            .endpoints()
            .map(|(host, port)| HostOptions { address: show_address(host, port), ..first.clone() });
        #[cfg_attr(not(feature = "auth"), expect(unused_mut))]
        let mut paths = Paths::new(
            reactor.pool(),
            paths.collect(),
            options.namespace_id,
            options.settings(),
            // For when attempts are made, which need not be secret.
            RandomState::new().hash_one(&name),
            reactor.now(),
        )?;
        #[cfg(feature = "auth")]
        paths.set_random(super::random()?);
        let mut driver = HostDriver::new(reactor, paths, addresses.0.clone());
        #[cfg(feature = "tls")]
        if let Some(offer) = way {
            driver.offer(offer);
        }
        Ok(driver)
    }

    /// Runs it until the first path is up; or why none came up.
    fn bring_up(
        mut driver: HostDriver<Paths>,
        options: &ConnectOptions,
        mut turn: impl FnMut(Wait) -> Result<Timestamp, DeviceError>,
    ) -> Result<Result<Self, ConnectionError>, DeviceError> {
        driver.run_with(&mut turn, |paths| paths.is_usable() || paths.all_have_failed())?;
        let Some(geometry) = driver.machine.geometry().filter(|_| driver.machine.is_usable())
        else {
            let reason = driver.machine.last_reason();
            // Whatever is open is closed before the driver goes.
            driver.machine.abandon();
            driver.run_with(turn, |_| false)?;
            return Ok(Err(reason));
        };
        let driver = Rc::new(RefCell::new(driver));
        let address = show_address(&options.host, options.port);
        let name = format!("{} at {address}", options.subsystem).into();
        Ok(Ok(Self { driver, geometry, namespace_id: options.namespace_id, name }))
    }

    /// What the controller that came up last and the namespace have told about themselves.
    pub fn identity(&self) -> Identity {
        self.driver.borrow().machine.identity().cloned().unwrap_or_default()
    }

    pub(super) fn with_controller<Value>(&self, look: impl FnOnce(&Controller) -> Value) -> Value {
        look(self.driver.borrow().machine.controller().expect("it has been connected"))
    }

    /// The namespace's identifier in its subsystem.
    pub const fn namespace_id(&self) -> u32 {
        self.namespace_id
    }

    /// Why requests fail at once: there has been no path for too long, or every path is given up.
    /// Absent while requests are taken, which may have to wait.
    pub fn error(&self) -> Option<ConnectionError> {
        self.driver.borrow().machine.fault()
    }

    /// The state of every path.
    pub fn status(&self) -> PathsStatus {
        self.driver.borrow().machine.status()
    }

    /// The times and policies in force.
    pub fn settings(&self) -> Settings {
        *self.driver.borrow().machine.settings()
    }

    /// Changes them; each says from when on it holds.
    pub fn set_settings(&self, settings: Settings) {
        self.driver.borrow_mut().machine.set_settings(settings);
    }

    /// Gives the association of the path number `path` up and makes another one.
    pub fn reset_path(&self, path: usize) {
        self.driver.borrow_mut().machine.reset_path(path);
    }

    /// Tries the path number `path` now, even if it was given up.
    pub fn retry_path(&self, path: usize) {
        self.driver.borrow_mut().machine.retry_path(path);
    }

    /// See [`Paths::losses`].
    pub fn losses(&self) -> u64 {
        self.driver.borrow().machine.losses()
    }

    /// See [`Paths::fences`].
    pub fn fences(&self) -> u64 {
        self.driver.borrow().machine.fences()
    }

    /// Tells the controllers that this host is leaving, and closes the connections. Requests still
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
        self.driver.borrow().machine.geometry().unwrap_or(self.geometry)
    }

    /// Must be on the reactor that the device was connected on. Each queue uses one I/O queue of
    /// each path; when there are fewer of those, queues share them.
    fn open_queue(&self, _: &Reactor, depth: usize) -> Result<NamespaceQueue, DeviceError> {
        let queue = self.driver.borrow_mut().machine.open_queue(depth)?;
        Ok(NamespaceQueue { device: self.clone(), queue })
    }
}

impl std::fmt::Debug for NvmeTcpDevice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "NvmeTcpDevice({})", self.name)
    }
}

/// One user's queue. Its poll also keeps the associations alive.
#[derive(Debug)]
pub struct NamespaceQueue {
    device: NvmeTcpDevice,
    queue: usize,
}

impl BlockQueue for NamespaceQueue {
    fn geometry(&self) -> Geometry {
        let mut driver = self.device.driver.borrow_mut();
        driver.machine.requests(self.queue).map_or(self.device.geometry, |it| it.geometry())
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

    fn interruptions(&self) -> Interruptions {
        let driver = self.device.driver.borrow();
        let paths = &driver.machine;
        let (lost, settled) = (paths.losses(), paths.fences());
        Interruptions { lost, settled, replaced: paths.replacements() }
    }
}

impl Drop for NamespaceQueue {
    fn drop(&mut self) {
        self.device.driver.borrow_mut().machine.close_queue(self.queue);
    }
}
