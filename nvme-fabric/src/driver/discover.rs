//! Asking a discovery service, once.

use block_io::DeviceError;
use block_io::reactor::{Reactor, Wait};

use super::host::{HostDriver, resolve};
use super::namespace_device::show_address;
use crate::host::HostOptions;
use crate::host::discovery::Discovery;
use crate::spec::log_page::DiscoveryEntry;
use crate::spec::nqn::{HostId, Nqn};

/// The port of discovery services. NVMe/TCP Transport 1.1 §3.1 (IANA nvme-disc)
pub const DISCOVERY_PORT: u16 = 8009;

/// The subsystems that the discovery service at `host` and `port` tells a host of this name,
/// running the reactor until they are known.
///
/// # Errors
/// Why they could not be read; the message names the address.
pub fn discover(
    reactor: &Reactor,
    host: &str,
    port: u16,
    host_nqn: &Nqn,
    host_id: HostId,
) -> Result<Vec<DiscoveryEntry>, DeviceError> {
    let addresses = resolve(host, port)?;
    reactor.turn(Wait::No)?;
    let address = show_address(host, port);
    let options = HostOptions::new(address, Nqn::discovery(), host_nqn.clone(), host_id);
    let discovery = Discovery::new(reactor.pool(), options, reactor.now())?;
    let mut driver = HostDriver::new(reactor, discovery, addresses);
    driver.run_until(reactor, |_| false)?;
    Ok(driver.machine.into_entries()?)
}
