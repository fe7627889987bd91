//! The local network by way of `mdns-sd`: its thread sends and hears, and this one waits for what
//! it tells, with a time limit.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use cache_engine::backend::identity::Machine;
use mdns_sd::{IfKind, ResolvedService, ScopedIp, ServiceDaemon, ServiceEvent, ServiceInfo};
use nvme_fabric::spec::nqn::Nqn;

use super::Found;
use super::service::{
    Announced, SERVICE_TYPE, TRANSPORT_TCP, TXT_NAME, TXT_TRANSPORT, instance_of,
};
use crate::failure::Failure;
use crate::output::{self, table};

/// Controllers that are listened to; a network has a few.
const FOUND_MAX: usize = 64;

/// How long the last words of an announcement may take.
const LEAVE_TIME: Duration = Duration::from_secs(1);

/// Listens for `time` to who announces a discovery controller over TCP, and calls `told` for each
/// as it is heard. One that cannot be used is a notice.
///
/// # Errors
/// When the machine has no way to the local network.
pub(crate) fn find(time: Duration, mut told: impl FnMut(&Found)) -> Result<Vec<Found>, Failure> {
    let daemon = ServiceDaemon::new().map_err(|error| Failure::because("mDNS", error))?;
    let events = daemon.browse(SERVICE_TYPE).map_err(|error| Failure::because("mDNS", error))?;
    let until = Instant::now() + time;
    let mut found: Vec<Found> = Vec::new();
    while found.len() < FOUND_MAX
        && let Ok(event) = events.recv_deadline(until)
    {
        let ServiceEvent::ServiceResolved(service) = event else { continue };
        let instance = instance_of(service.get_fullname());
        match announced(&service, &instance).read() {
            Err(reason) => output::notice(table::printable(&format!(
                "mDNS: \"{instance}\" is not asked: {reason}"
            ))),
            Ok(one) => match found.iter_mut().find(|other| other.instance == one.instance) {
                // It is told again when an address is added.
                Some(earlier) => *earlier = one,
                None => {
                    told(&one);
                    found.push(one);
                }
            },
        }
    }
    // It ends with the process, too.
    let _ = daemon.shutdown();
    Ok(found)
}

fn announced<'a>(service: &'a ResolvedService, instance: &'a str) -> Announced<'a> {
    let address = |address: &ScopedIp| {
        let scope = match address {
            ScopedIp::V6(six) => Some(six.scope_id().name.clone()),
            _ => None,
        };
        (address.to_ip_addr(), scope.filter(|name| !name.is_empty()))
    };
    Announced {
        instance,
        addresses: service.get_addresses().iter().map(address).collect(),
        port: service.get_port(),
        transport: service.get_property_val_str(TXT_TRANSPORT),
        name: service.get_property_val_str(TXT_NAME),
    }
}

/// Discovery listeners, announced until this is dropped.
pub(crate) struct Announcement {
    daemon: ServiceDaemon,
    full_names: Vec<String>,
}

impl Announcement {
    /// Announces the service of this name at each of the addresses; one that is all addresses is
    /// announced as those that the machine has.
    ///
    /// # Errors
    /// When the machine has no way to the local network.
    pub(crate) fn new(listeners: &[SocketAddr], subsystem: &Nqn) -> Result<Self, Failure> {
        let because = |error| Failure::because("mdns", error);
        let daemon = ServiceDaemon::new().map_err(because)?;
        let mut announcement = Self { daemon, full_names: Vec::new() };
        // A host's name of its own: avahi or systemd-resolved may answer for the machine's.
        let machine = Machine::this().identifier("mDNS host name");
        let short: String = machine.0[..6].iter().map(|byte| format!("{byte:02x}")).collect();
        let properties = [(TXT_TRANSPORT, TRANSPORT_TCP), (TXT_NAME, subsystem.as_str())];
        for listener in listeners {
            let (port, ip) = (listener.port(), listener.ip());
            let instance = format!("forebay-{short}-{port}");
            let host = format!("forebay-{short}-{port}.local.");
            let addresses = if ip.is_unspecified() { Vec::new() } else { vec![ip] };
            let mut service = ServiceInfo::new(
                SERVICE_TYPE,
                &instance,
                &host,
                addresses.as_slice(),
                port,
                &properties[..],
            )
            .map_err(because)?;
            if ip.is_unspecified() {
                service = service.enable_addr_auto();
                // All addresses of IPv6 are those of IPv4, too.
                service.set_interfaces(vec![if ip.is_ipv4() { IfKind::IPv4 } else { IfKind::All }]);
            }
            announcement.full_names.push(service.get_fullname().to_owned());
            announcement.daemon.register(service).map_err(because)?;
        }
        Ok(announcement)
    }
}

impl Drop for Announcement {
    /// Takes leave, so that nobody asks for it any more.
    fn drop(&mut self) {
        for name in &self.full_names {
            if let Ok(done) = self.daemon.unregister(name) {
                let _ = done.recv_timeout(LEAVE_TIME);
            }
        }
        if let Ok(done) = self.daemon.shutdown() {
            let _ = done.recv_timeout(LEAVE_TIME);
        }
    }
}
