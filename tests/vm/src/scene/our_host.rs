//! Our NVMe/TCP host, in the case's own process.

use block_io::DeviceError;
use block_io::reactor::Reactor;
use nvme_fabric::driver::{ConnectOptions, NvmeTcpDevice};
use nvme_fabric::spec::nqn::{HostId, Nqn};

/// Its NQN.
pub const HOST_NQN: &str = "nqn.2014-08.com.example:host";

/// Options for namespace 1 of `subsystem` at `port` of this machine.
///
/// # Panics
/// When the name is none.
pub fn options(subsystem: &str, port: u16) -> ConnectOptions {
    let nqn = |name| Nqn::new(name).expect("well formed");
    let mut options =
        ConnectOptions::new("127.0.0.1", nqn(subsystem), nqn(HOST_NQN), HostId([2; 16]));
    options.port = port;
    options
}

/// Connects as soon as somebody listens: a kernel that stops serving takes its time until it serves
/// again.
///
/// # Panics
/// When that does not happen in a minute.
#[track_caller]
pub fn connect_eventually(reactor: &Reactor, options: &ConnectOptions) -> NvmeTcpDevice {
    super::eventually("our host connects", || connect(reactor, options).ok())
}

/// Connects.
///
/// # Errors
/// Ours.
pub fn connect(reactor: &Reactor, options: &ConnectOptions) -> Result<NvmeTcpDevice, DeviceError> {
    NvmeTcpDevice::connect(reactor, options)
}
