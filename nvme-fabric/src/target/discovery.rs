//! The discovery service: the log page that tells hosts where the subsystems are.

use std::net::{IpAddr, SocketAddr};

use block_io::DeviceError;

use super::controller::ControllerKey;
use super::{Numbered, Subsystem, Target};
use crate::spec::log_page::{
    AddressFamily, DiscoveryEntry, DiscoveryHeader, SECURITY_NONE, SECURITY_TLS_1_3, SubsystemKind,
    TRANSPORT_TCP, entry_flag,
};
use crate::spec::nqn::{DISCOVERY_NQN, Nqn};

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

/// Referrals that there may be.
const REFERRALS_MAX: usize = 256;

/// ASQSZ of a referral: what the other service has is not known here, and 32 is the least that each
/// must have. Base §5.16.1.24.
const REFERRAL_QUEUE_SIZE: u16 = 32;

#[derive(Debug)]
pub(super) struct Discovery {
    /// GENCTR.
    pub(super) generation: u64,
    /// PORTID of the first listener.
    port_id_first: u16,
    listeners: Numbered<Place>,
    referrals: Vec<Listener>,
    /// The service's name, where it is not the well known one.
    name: Option<Nqn>,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    listener: Listener,
    /// The discovery service itself; otherwise every subsystem.
    is_service: bool,
}

impl Discovery {
    pub(super) fn new(port_id_first: u16) -> Self {
        Self {
            generation: 0,
            port_id_first,
            listeners: Numbered::default(),
            referrals: Vec::new(),
            name: None,
        }
    }

    pub(super) fn name(&self) -> &str {
        self.name.as_ref().map_or(DISCOVERY_NQN, Nqn::as_str)
    }

    pub(super) fn set_name(&mut self, name: Nqn) {
        self.name = Some(name);
    }

    /// Whether a host that asks for `name` asks for the discovery service.
    pub(super) fn is_named(&self, name: &Nqn) -> bool {
        name.is_discovery() || self.name.as_ref() == Some(name)
    }

    pub(super) fn add_listener(&mut self, listener: Listener, is_service: bool) {
        self.listeners.push(Place { listener, is_service });
    }

    pub(super) fn remove_listener(
        &mut self,
        address: IpAddr,
        port: u16,
    ) -> Result<(), DeviceError> {
        let is_it = |(_, place): &(usize, &Place)| {
            (place.listener.address, place.listener.port) == (address, port)
        };
        let found = self.listeners.iter().find(is_it).map(|found| found.0);
        let Some(number) = found else {
            let address = SocketAddr::new(address, port);
            return Err(DeviceError::new(format!(
                "the listener is {address}: must be one that is told"
            )));
        };
        self.listeners.remove(number);
        Ok(())
    }

    pub(super) fn add_referral(&mut self, referral: Listener) -> Result<(), DeviceError> {
        if referral.address.is_unspecified() || referral.port == 0 {
            return Err(wrong("referral", referral, "an address that hosts can connect to"));
        }
        if self.referrals.contains(&referral) {
            return Err(wrong("referral", referral, "one that is not there yet"));
        }
        if self.referrals.len() == REFERRALS_MAX {
            return Err(wrong("referral", referral, "one of at most 256"));
        }
        self.referrals.push(referral);
        Ok(())
    }

    pub(super) fn remove_referral(&mut self, referral: Listener) -> Result<(), DeviceError> {
        let found = self.referrals.iter().position(|other| *other == referral);
        self.referrals.remove(found.ok_or_else(|| wrong("referral", referral, "one of those"))?);
        Ok(())
    }

    pub(super) fn places(&self, is_service: bool) -> impl Iterator<Item = (u16, Listener)> {
        let places = self.listeners.iter();
        places.filter(move |(_, place)| place.is_service == is_service).map(|(number, place)| {
            // A port's number is its own for as long as 65536 listeners last.
            (self.port_id_first.wrapping_add(number as u16), place.listener)
        })
    }
}

fn wrong(what: &str, listener: Listener, right: &str) -> DeviceError {
    let address = SocketAddr::new(listener.address, listener.port);
    DeviceError::new(format!("the {what} is {address}: must be {right}"))
}

/// The whole log page, as the host of controller `key` may see it, which reached this process at
/// `local`: subsystems that it may connect to, and no others.
pub(super) fn log_page(target: &Target, key: ControllerKey, local: IpAddr) -> Vec<u8> {
    let discovery = &target.discovery;
    let queue_size = target.settings.queue_entries_max;
    let mut entries = Vec::new();
    for (port_id, listener) in discovery.places(true) {
        let flags = entry_flag::DUPLICATE | entry_flag::PERSISTENT_CONNECTION;
        entries.push(DiscoveryEntry {
            kind: SubsystemKind::CurrentDiscovery,
            flags,
            ..entry(listener, local, port_id, discovery.name(), queue_size)
        });
    }
    let host = target.controller(key).map(|controller| &controller.host);
    let is_allowed =
        |subsystem: &&Subsystem| host.is_some_and(|host| subsystem.hosts().contains(host));
    for subsystem in target.subsystems.values().filter(is_allowed) {
        for (port_id, listener) in discovery.places(false) {
            let name = subsystem.nqn().as_str();
            entries.push(entry(listener, local, port_id, name, queue_size));
        }
    }
    for referral in &discovery.referrals {
        entries.push(DiscoveryEntry {
            kind: SubsystemKind::Referral,
            ..entry(*referral, local, 0, DISCOVERY_NQN, REFERRAL_QUEUE_SIZE)
        });
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
    listener: Listener,
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
