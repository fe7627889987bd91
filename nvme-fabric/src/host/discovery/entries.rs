//! Entries for the tests of this folder.

use crate::spec::log_page::{AddressFamily, DiscoveryEntry, SubsystemKind, TRANSPORT_TCP};
use crate::spec::nqn::DISCOVERY_NQN;

/// A subsystem `nqn.2014-08.com.example:NAME` at `address`.
pub(super) fn entry(name: &str, address: &str) -> DiscoveryEntry {
    DiscoveryEntry {
        transport: TRANSPORT_TCP,
        family: AddressFamily::Ipv4,
        kind: SubsystemKind::Nvm,
        requirements: 0,
        port_id: 1,
        controller_id: 0xffff,
        admin_queue_size: 32,
        flags: 0,
        service: "4420".into(),
        subsystem: format!("nqn.2014-08.com.example:{name}"),
        address: address.into(),
        security: 0,
    }
}

/// A referral to the well-known discovery subsystem at `address`.
pub(super) fn referral(address: &str) -> DiscoveryEntry {
    DiscoveryEntry {
        kind: SubsystemKind::Referral,
        service: "8009".into(),
        subsystem: DISCOVERY_NQN.into(),
        ..entry("", address)
    }
}
