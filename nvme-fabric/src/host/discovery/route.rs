//! Where an entry of a stranger's log leads, if this host can go there at all.
//!
//! Entries of other transports, and such as cannot be right, are shown to people and never
//! connected to. Absent: names instead of addresses, which would have to be resolved.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use crate::spec::log_page::{AddressFamily, DiscoveryEntry, SubsystemKind, TRANSPORT_TCP};
use crate::spec::nqn::Nqn;

/// The port of NVMe over TCP. NVMe/TCP Transport 1.1 §3.1 (IANA nvme)
const PORT_NVME: u16 = 4420;
/// The port of discovery services. NVMe/TCP Transport 1.1 §3.1 (IANA nvme-disc)
pub const PORT_DISCOVERY: u16 = 8009;

/// A place that can be connected to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Route {
    /// TRADDR and TRSVCID.
    pub address: SocketAddr,
    /// SUBNQN.
    pub subsystem: Nqn,
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.subsystem, self.address)
    }
}

/// Where `entry` leads.
///
/// # Errors
/// Which of its fields keeps this host from going there, its value, and what would be right.
pub fn route(entry: &DiscoveryEntry) -> Result<Route, String> {
    if entry.transport != TRANSPORT_TCP {
        let transport = entry.transport;
        return Err(format!("TRTYPE is {transport}: must be {TRANSPORT_TCP}, TCP"));
    }
    let address: IpAddr = entry
        .address
        .parse()
        .map_err(|_| format!("TRADDR is \"{}\": must be an IPv4 or IPv6 address", entry.address))?;
    let matches = match entry.family {
        AddressFamily::Ipv4 => address.is_ipv4(),
        AddressFamily::Ipv6 => address.is_ipv6(),
        AddressFamily::Other(_) => false,
    };
    if !matches {
        let family = entry.family.number();
        return Err(format!("ADRFAM is {family}: must be that of TRADDR \"{address}\""));
    }
    if address.is_unspecified() || address.is_multicast() {
        return Err(format!("TRADDR is \"{address}\": must be the address of one machine"));
    }
    let subsystem = Nqn::new(&entry.subsystem).map_err(|error| format!("SUBNQN is {error}"))?;
    let port = port(entry)?;
    Ok(Route { address: SocketAddr::new(address, port), subsystem })
}

/// TRSVCID. Left empty (or "none", as some targets have it) it is the port that its kind of
/// service usually has, as other hosts take it.
fn port(entry: &DiscoveryEntry) -> Result<u16, String> {
    let usual = match entry.kind {
        SubsystemKind::Referral | SubsystemKind::CurrentDiscovery => PORT_DISCOVERY,
        SubsystemKind::Nvm => PORT_NVME,
        SubsystemKind::Other(other) => {
            return Err(format!("SUBTYPE is {other}: must be 1 to 3"));
        }
    };
    match entry.service.as_str() {
        "" | "none" => Ok(usual),
        service => {
            let digits = service.bytes().all(|byte| byte.is_ascii_digit());
            let port = service.parse().ok().filter(|port| digits && *port > 0);
            port.ok_or_else(|| format!("TRSVCID is \"{service}\": must be a port, 1 to 65535"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::entries::entry;
    use super::*;

    #[test]
    fn an_entry_leads_to_its_address() {
        let found = route(&entry("a", "192.0.2.1")).expect("a route");
        assert_eq!(found.to_string(), "nqn.2014-08.com.example:a at 192.0.2.1:4420");
        let six = DiscoveryEntry {
            family: AddressFamily::Ipv6,
            service: String::new(),
            kind: SubsystemKind::Referral,
            ..entry("a", "2001:db8::1")
        };
        assert_eq!(route(&six).expect("a route").address.to_string(), "[2001:db8::1]:8009");
        let none = DiscoveryEntry { service: "none".into(), ..entry("a", "192.0.2.1") };
        assert_eq!(route(&none).expect("a route").address.port(), 4420);
    }

    #[test]
    fn what_cannot_be_right_is_named_and_leads_nowhere() {
        let good = || entry("a", "192.0.2.1");
        for (wrong, expected) in [
            (DiscoveryEntry { transport: 1, ..good() }, "TRTYPE is 1: must be 3"),
            (DiscoveryEntry { transport: 254, ..good() }, "TRTYPE is 254"),
            (DiscoveryEntry { address: "storage.example".into(), ..good() }, "TRADDR is \"storage"),
            (DiscoveryEntry { address: String::new(), ..good() }, "TRADDR is \"\""),
            (DiscoveryEntry { address: "0.0.0.0".into(), ..good() }, "one machine"),
            (DiscoveryEntry { address: "224.0.0.251".into(), ..good() }, "one machine"),
            (DiscoveryEntry { family: AddressFamily::Ipv6, ..good() }, "ADRFAM is 2"),
            (DiscoveryEntry { family: AddressFamily::Other(9), ..good() }, "ADRFAM is 9"),
            (DiscoveryEntry { service: "0".into(), ..good() }, "TRSVCID is \"0\""),
            (DiscoveryEntry { service: "+4420".into(), ..good() }, "TRSVCID is \"+4420\""),
            (DiscoveryEntry { service: "65536".into(), ..good() }, "TRSVCID is \"65536\""),
            (DiscoveryEntry { service: "nvme".into(), ..good() }, "must be a port"),
            (DiscoveryEntry { subsystem: "x".into(), ..good() }, "SUBNQN is \"x\""),
            (DiscoveryEntry { subsystem: String::new(), ..good() }, "SUBNQN is \"\""),
            (DiscoveryEntry { kind: SubsystemKind::Other(7), ..good() }, "SUBTYPE is 7"),
        ] {
            let error = route(&wrong).expect_err(expected);
            assert!(error.contains(expected), "{error}");
        }
    }
}
