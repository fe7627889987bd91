//! Where bytes live: the devices that a volume can be made of, opened by their address.
//!
//! ```text
//!   address (URI) ──▶ Backend ──open_queue──▶ BackendQueue
//! ```
//! One enum for devices and one for queues, so that a request reaches its device by a jump, not
//! through a table. Absent: what is done with a device ([`crate::volume`]).

pub mod address;
pub mod attachment;
mod cache_file;
mod delayed;
mod elsewhere;
pub mod host_identity;
pub mod identity;
pub mod key_source;
pub mod nvme_secret;
pub mod origin_identity;
#[cfg(feature = "tls")]
pub mod tls_keys;

pub use delayed::{DelayedDevice, DelayedQueue};
pub use elsewhere::ReadableDevice;

use std::time::Duration;

use address::NVME_TCP_PORT;
use address::{CacheAddress, NvmeTcpAddress, OriginAddress, Size};
use block_io::device::Interruptions;
use block_io::device::file::{FileDevice, FileQueue, OpenOptions};
use block_io::device::memory::{MemoryDevice, MemoryQueue};
use block_io::device::null::{NullDevice, NullQueue};
use block_io::reactor::{Reactor, Wait};
use block_io::{BlockDevice, BlockQueue, Completion, DeviceError, Geometry, Request, Timestamp};
use host_identity::{HostChoice, HostIdentity};
use nvme_fabric::driver::{Association, ConnectOptions, NamespaceQueue, NvmeTcpDevice};
use nvme_fabric::host::HostAuthentication;

/// A device of any kind. Cheap to clone; clones are the same device.
#[derive(Clone, Debug)]
pub enum Backend {
    /// A regular file or a block device.
    File(FileDevice),
    /// A RAM disk.
    Memory(MemoryDevice),
    /// Completes at once, keeps nothing.
    Null(NullDevice),
    /// A namespace of a remote NVMe subsystem.
    NvmeTcp(NvmeTcpDevice),
    /// Any of them, further away.
    Delayed(Box<DelayedDevice<Backend>>),
}

impl Backend {
    /// Opens the device at `address`. For a remote namespace the reactor is run until it is
    /// connected; its queues must be opened on the same reactor.
    ///
    /// # Errors
    /// When it is missing, in use, not to be reached, or not what the address says.
    pub fn open(address: &OriginAddress, reactor: &Reactor) -> Result<Self, DeviceError> {
        match address {
            OriginAddress::File(path) => {
                FileDevice::open(path, OpenOptions::default()).map(Self::File)
            }
            OriginAddress::Memory(size) => MemoryDevice::new(size.bytes()).map(Self::Memory),
            OriginAddress::Null(size) => Ok(Self::Null(NullDevice::new(size.bytes()))),
            OriginAddress::NvmeTcp(address) => {
                let device = NvmeTcpDevice::connect(reactor, &connect_options(address)?)?;
                Ok(Self::NvmeTcp(device))
            }
        }
    }

    /// Opens a device for a cache's lines. A file that is absent or empty is made with `size`; a
    /// device that is there must be of that size where one is given. What it holds is not looked
    /// at, see [`crate::volume::cache_device`].
    ///
    /// # Errors
    /// When the device is missing, in use, of another size, or there is no size to make it with.
    pub fn open_cache(address: &CacheAddress, size: Option<Size>) -> Result<Self, DeviceError> {
        match (address, size) {
            (CacheAddress::File(path), size) => cache_file::open(path, size).map(Self::File),
            (CacheAddress::Memory, Some(size)) => MemoryDevice::new(size.bytes()).map(Self::Memory),
            (CacheAddress::Memory, None) => {
                Err(DeviceError::new("cache memory: needs a size; give --cache-size, such as 1GiB"))
            }
        }
    }

    /// The same device, each of its completions later by `latency`.
    #[must_use]
    pub fn delayed(self, latency: Duration) -> Self {
        Self::Delayed(Box::new(DelayedDevice::new(self, latency)))
    }

    /// Why the device answers no more, where it can be lost as a whole; absent while it answers.
    pub fn fault(&self) -> Option<String> {
        match self {
            Self::File(_) | Self::Memory(_) | Self::Null(_) => None,
            Self::NvmeTcp(device) => device.fault(),
            Self::Delayed(device) => device.inner().fault(),
        }
    }

    /// The association that the device is reached by; none for devices of this machine.
    pub fn association(&self) -> Option<Association> {
        match self {
            Self::File(_) | Self::Memory(_) | Self::Null(_) => None,
            Self::NvmeTcp(device) => Some(device.association()),
            Self::Delayed(device) => device.inner().association(),
        }
    }

    /// The namespace that it is; none for devices of this machine.
    pub fn namespace(&self) -> Option<&NvmeTcpDevice> {
        match self {
            Self::File(_) | Self::Memory(_) | Self::Null(_) => None,
            Self::NvmeTcp(device) => Some(device),
            Self::Delayed(device) => device.inner().namespace(),
        }
    }

    /// Bytes of a device that tells by itself when it has others; none where it has to be asked.
    pub fn told_size(&self) -> Option<u64> {
        match self {
            Self::File(_) | Self::Memory(_) | Self::Null(_) => None,
            Self::NvmeTcp(device) => Some(device.geometry().capacity),
            Self::Delayed(device) => device.inner().told_size(),
        }
    }

    /// Takes leave of whoever serves the device. Its queues should be idle.
    ///
    /// # Errors
    /// When the reactor itself fails.
    pub fn close(&self, reactor: &Reactor) -> Result<(), DeviceError> {
        match self {
            Self::File(_) | Self::Memory(_) | Self::Null(_) => Ok(()),
            Self::NvmeTcp(device) => device.shut_down(reactor),
            Self::Delayed(device) => device.inner().close(reactor),
        }
    }

    /// As [`close`](Self::close), with turns of the caller's, who may serve others in them.
    ///
    /// # Errors
    /// What `turn` fails of.
    pub fn close_with(
        &self,
        turn: &mut dyn FnMut(Wait) -> Result<Timestamp, DeviceError>,
    ) -> Result<(), DeviceError> {
        match self {
            Self::File(_) | Self::Memory(_) | Self::Null(_) => Ok(()),
            Self::NvmeTcp(device) => device.shut_down_with(turn),
            Self::Delayed(device) => device.inner().close_with(turn),
        }
    }

    /// What a user should know about how the device is used, such as that it refused direct I/O.
    pub fn notice(&self) -> Option<&str> {
        match self {
            Self::File(device) => device.notice(),
            Self::Memory(_) | Self::Null(_) | Self::NvmeTcp(_) => None,
            Self::Delayed(device) => device.inner().notice(),
        }
    }
}

/// How this machine connects to the namespace at `address`: as the host that the address says or
/// that the machine is, with everything else as the driver has it. Reads the files with the TLS key
/// and with secrets, where there are any.
///
/// # Errors
/// When such a file cannot be used, and as [`HostIdentity::of_this_machine`].
pub fn connect_options(address: &NvmeTcpAddress) -> Result<ConnectOptions, DeviceError> {
    let choice = HostChoice { nqn: address.host.as_ref(), id: address.host_id };
    let identity = HostIdentity::of_this_machine(choice)?;
    #[cfg(feature = "tls")]
    let tls = match &address.psk_file {
        Some(file) => Some(tls_keys::host_tls(file, address.psk_identity, &identity.nqn)?),
        None => None,
    };
    #[cfg(not(feature = "tls"))]
    if address.psk_file.is_some() {
        return Err(DeviceError::new(format!("{address}: pskfile: this was built without TLS")));
    }
    let host = address.endpoint.host.clone();
    let authentication = address.secret_file.as_deref().map(|path| {
        let mut keys = nvme_secret::keys_of(path, address.controller_secret_file.as_deref())?;
        keys.concatenate = address.concatenate;
        let repeat_every =
            address.authentication_seconds.map(|every| Duration::from_secs(every.into()));
        Ok::<_, DeviceError>(HostAuthentication { keys, repeat_every })
    });
    let paths = &address.paths;
    let more = paths.more.iter();
    let options = ConnectOptions::new(host, address.subsystem.clone(), identity.nqn, identity.id);
    let times = paths.settings(options.settings());
    Ok(ConnectOptions {
        more_addresses: more
            .map(|one| (one.host.clone(), one.port.unwrap_or(NVME_TCP_PORT)))
            .collect(),
        keep_alive: times.keep_alive,
        reconnect_delay_min: times.reconnect_delay_min,
        reconnect_delay_max: times.reconnect_delay_max,
        fast_io_fail: times.fast_io_fail,
        controller_loss: times.controller_loss,
        path_policy: times.policy,
        port: address.endpoint.port.unwrap_or(NVME_TCP_PORT),
        namespace_id: address.namespace,
        header_digest: address.header_digest,
        data_digest: address.data_digest,
        #[cfg(feature = "tls")]
        tls,
        authentication: authentication.transpose()?,
        ..options
    })
}

impl BlockDevice<Reactor> for Backend {
    type Queue = BackendQueue;

    fn geometry(&self) -> Geometry {
        match self {
            Self::File(device) => device.geometry(),
            Self::Memory(device) => BlockDevice::<Reactor>::geometry(device),
            Self::Null(device) => BlockDevice::<Reactor>::geometry(device),
            Self::NvmeTcp(device) => device.geometry(),
            Self::Delayed(device) => device.geometry(),
        }
    }

    fn open_queue(&self, reactor: &Reactor, depth: usize) -> Result<BackendQueue, DeviceError> {
        match self {
            Self::File(device) => device.open_queue(reactor, depth).map(BackendQueue::File),
            Self::Memory(device) => device.open_queue(reactor, depth).map(BackendQueue::Memory),
            Self::Null(device) => device.open_queue(reactor, depth).map(BackendQueue::Null),
            Self::NvmeTcp(device) => device.open_queue(reactor, depth).map(BackendQueue::NvmeTcp),
            Self::Delayed(device) => {
                let queue = device.open_queue(reactor, depth)?;
                Ok(BackendQueue::Delayed(Box::new(queue)))
            }
        }
    }
}

/// A queue of any kind.
#[derive(Debug)]
pub enum BackendQueue {
    /// Of a file or block device.
    File(FileQueue),
    /// Of a RAM disk.
    Memory(MemoryQueue),
    /// Of a null device.
    Null(NullQueue),
    /// Of a remote namespace.
    NvmeTcp(NamespaceQueue),
    /// Of a device further away.
    Delayed(Box<DelayedQueue<BackendQueue>>),
}

/// The same call on whichever queue it is.
macro_rules! each {
    ($queue:expr, $inner:ident => $call:expr) => {
        match $queue {
            BackendQueue::File($inner) => $call,
            BackendQueue::Memory($inner) => $call,
            BackendQueue::Null($inner) => $call,
            BackendQueue::NvmeTcp($inner) => $call,
            BackendQueue::Delayed($inner) => $call,
        }
    };
}

impl BlockQueue for BackendQueue {
    fn geometry(&self) -> Geometry {
        each!(self, queue => queue.geometry())
    }

    fn submit(&mut self, request: Request) -> Result<(), Request> {
        each!(self, queue => queue.submit(request))
    }

    fn poll(&mut self, now: Timestamp, completions: &mut Vec<Completion>) -> bool {
        each!(self, queue => queue.poll(now, completions))
    }

    fn in_flight(&self) -> usize {
        each!(self, queue => queue.in_flight())
    }

    fn interruptions(&self) -> Interruptions {
        each!(self, queue => queue.interruptions())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_an_address_says_of_paths_and_times_is_what_is_connected_with() {
        let options = |more: &str| {
            let text = format!(
                "nvme+tcp://h/nqn.2014-08.x?hostnqn=nqn.2014-08.me&\
                 hostid=11111111222233334444555555555555{more}"
            );
            let address = match text.parse() {
                Ok(OriginAddress::NvmeTcp(address)) => address,
                other => panic!("{other:?}"),
            };
            connect_options(&address).expect("no files are needed")
        };
        let (plain, seconds) = (options(""), |seconds| Some(Duration::from_secs(seconds)));
        let usual = nvme_fabric::host::paths::Settings::default();
        assert_eq!((plain.settings(), plain.more_addresses), (usual, vec![]));
        let chosen = options(
            "&path=g&path=[::1]:9&iopolicy=latency&ctrl-loss-tmo=600&fast-io-fail-tmo=-1&\
             reconnect-delay=3&keep-alive-tmo=7",
        );
        let addresses = [("g".to_owned(), NVME_TCP_PORT), ("::1".to_owned(), 9)];
        assert_eq!(chosen.more_addresses, addresses);
        let times = chosen.settings();
        assert_eq!((times.controller_loss, times.fast_io_fail), (seconds(600), None));
        let delays = (Some(times.reconnect_delay_min), Some(times.reconnect_delay_max));
        assert_eq!((delays, Some(times.keep_alive)), ((seconds(3), seconds(3)), seconds(7)));
        assert_eq!(times.policy, nvme_fabric::host::paths::PathPolicy::Latency);
    }
}
