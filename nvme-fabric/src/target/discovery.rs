//! The discovery service: the log page that tells hosts where the subsystems are.

use std::net::IpAddr;

use super::Target;
use crate::spec::log_page::{
    AddressFamily, DiscoveryEntry, DiscoveryHeader, SECURITY_NONE, SECURITY_TLS_1_3, SubsystemKind,
    TRANSPORT_TCP, entry_flag,
};
use crate::spec::nqn::DISCOVERY_NQN;

/// CNTLID of an entry for controllers made as hosts connect. Base §5.16.1.24.
const CONTROLLER_DYNAMIC: u16 = 0xffff;

/// Whether hosts may or must use TLS at an address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SecureChannel {
    /// There is none.
    #[default]
    None,
    /// TLS 1.3 is offered; a host may do without.
    Offered,
    /// TLS 1.3, and nothing without it.
    Required,
}

impl SecureChannel {
    /// TREQ: bits 1:0 whether a secure channel is required (1) or not (2), bit 2 that flow control
    /// may be disabled. Base §5.16.1.24. No bit tells that hosts must authenticate, which is of the
    /// host and told by the answer to its Connect.
    const fn requirement(self) -> u8 {
        let channel = match self {
            Self::Required => 1,
            Self::None | Self::Offered => 2,
        };
        channel | 1 << 2
    }

    /// SECTYPE.
    const fn security(self) -> u8 {
        match self {
            Self::None => SECURITY_NONE,
            Self::Offered | Self::Required => SECURITY_TLS_1_3,
        }
    }
}

/// Where hosts reach something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listener {
    /// The address; when it is unspecified (`0.0.0.0`, `::`), hosts are told the one that they
    /// used to ask.
    pub address: IpAddr,
    /// The TCP port.
    pub port: u16,
    /// Whether TLS is spoken there.
    pub channel: SecureChannel,
}

#[derive(Debug, Default)]
pub(super) struct Discovery {
    /// GENCTR.
    pub(super) generation: u64,
    /// Where every subsystem is.
    pub(super) listeners: Vec<Listener>,
    /// Where the discovery service is.
    pub(super) services: Vec<Listener>,
}

/// The whole log page, for a host that reached this process at `local`.
pub(super) fn log_page(target: &Target, local: IpAddr) -> Vec<u8> {
    let discovery = &target.discovery;
    let queue_size = target.settings.queue_entries_max;
    let mut entries = Vec::new();
    for (port_id, listener) in (0..).zip(&discovery.services) {
        let flags = entry_flag::DUPLICATE | entry_flag::PERSISTENT_CONNECTION;
        entries.push(DiscoveryEntry {
            kind: SubsystemKind::CurrentDiscovery,
            flags,
            ..entry(listener, local, port_id, DISCOVERY_NQN, queue_size)
        });
    }
    for subsystem in &target.subsystems {
        let first = discovery.services.len() as u16;
        for (port_id, listener) in (first..).zip(&discovery.listeners) {
            let name = subsystem.nqn().as_str();
            entries.push(entry(listener, local, port_id, name, queue_size));
        }
    }
    let header = DiscoveryHeader {
        generation: discovery.generation,
        records: entries.len() as u64,
        format: 0,
    };
    let mut page = header.encode().to_vec();
    for entry in &entries {
        page.extend(entry.encode());
    }
    page
}

fn entry(
    listener: &Listener,
    local: IpAddr,
    port_id: u16,
    subsystem: &str,
    queue_size: u16,
) -> DiscoveryEntry {
    let address = if listener.address.is_unspecified() { local } else { listener.address };
    DiscoveryEntry {
        transport: TRANSPORT_TCP,
        family: if address.is_ipv4() { AddressFamily::Ipv4 } else { AddressFamily::Ipv6 },
        kind: SubsystemKind::Nvm,
        requirements: listener.channel.requirement(),
        port_id,
        controller_id: CONTROLLER_DYNAMIC,
        admin_queue_size: queue_size,
        flags: 0,
        service: listener.port.to_string(),
        subsystem: subsystem.to_owned(),
        address: address.to_string(),
        security: listener.channel.security(),
    }
}
