//! `forebay nvme`: what subsystems there are, what one says of itself, and secrets for them.
//!
//! JSON uses the specification's field names in lower case, as nvme-cli does.

use std::path::Path;

use block_io::Geometry;
use block_io::reactor::{Reactor, ReactorConfig};
use cache_engine::backend::address::{DISCOVERY_PORT, Endpoint, NvmeTcpAddress};
use cache_engine::backend::identity::Machine;
use cache_engine::backend::{connect_options, nvme_secret};
use nvme_fabric::auth::Secret;
use nvme_fabric::driver::{self, NvmeTcpDevice, discover as ask};
use nvme_fabric::host::Identity;
use nvme_fabric::spec::identify::ControllerKind;
use nvme_fabric::spec::log_page::{AddressFamily, DiscoveryEntry, SubsystemKind, TRANSPORT_TCP};
use serde_json::Value;

use crate::arguments::{Format, NvmeVerb, SecretHash};
use crate::failure::Failure;
use crate::output::{self, json, table};

/// Runs the verb.
///
/// # Errors
/// When the controller cannot be reached or does not answer as it should.
pub(crate) fn run(verb: &NvmeVerb) -> Result<(), Failure> {
    match verb {
        NvmeVerb::Discover { endpoint, format } => discover(endpoint, *format),
        NvmeVerb::Identify { address, format } => identify(address, *format),
        NvmeVerb::Key { output, hash } => make_key(output, *hash),
    }
}

fn make_key(path: &Path, hash: SecretHash) -> Result<(), Failure> {
    let secret = Secret::generate(hash.function(), &mut driver::random()?);
    Ok(nvme_secret::write_new(path, &secret)?)
}

fn discover(endpoint: &Endpoint, format: Format) -> Result<(), Failure> {
    let reactor = Reactor::new(ReactorConfig::default())?;
    let (host, id) = Machine::this().host(None);
    let port = endpoint.port.unwrap_or(DISCOVERY_PORT);
    let entries = ask(&reactor, &endpoint.host, port, &host, id)?;
    match format {
        Format::Json => {
            let records = entries.iter().map(record).collect();
            output::print(json::object([("records", records)]))
        }
        Format::Table => {
            let header = ["subsystem", "kind", "address", "port", "security", "port id"];
            let mut shown = table::new(&header, 5);
            for entry in &entries {
                shown.add_row([
                    table::printable(&entry.subsystem),
                    kind_of(entry.kind),
                    table::printable(&entry.address),
                    table::printable(&entry.service),
                    security_of(entry.security),
                    entry.port_id.to_string(),
                ]);
            }
            output::print(shown)
        }
    }
}

fn record(entry: &DiscoveryEntry) -> Value {
    let transport = match entry.transport {
        TRANSPORT_TCP => "tcp".to_owned(),
        other => format!("transport {other}"),
    };
    let family = match entry.family {
        AddressFamily::Ipv4 => "ipv4".to_owned(),
        AddressFamily::Ipv6 => "ipv6".to_owned(),
        AddressFamily::Other(other) => format!("family {other}"),
    };
    json::object([
        ("trtype", Value::from(transport)),
        ("adrfam", family.into()),
        ("subtype", kind_of(entry.kind).into()),
        ("treq", entry.requirements.into()),
        ("portid", entry.port_id.into()),
        ("cntlid", entry.controller_id.into()),
        ("asqsz", entry.admin_queue_size.into()),
        ("eflags", entry.flags.into()),
        ("trsvcid", entry.service.as_str().into()),
        ("subnqn", entry.subsystem.as_str().into()),
        ("traddr", entry.address.as_str().into()),
        ("sectype", security_of(entry.security).into()),
    ])
}

fn kind_of(kind: SubsystemKind) -> String {
    match kind {
        SubsystemKind::Referral => "discovery referral".to_owned(),
        SubsystemKind::Nvm => "nvme subsystem".to_owned(),
        SubsystemKind::CurrentDiscovery => "current discovery subsystem".to_owned(),
        SubsystemKind::Other(other) => format!("kind {other}"),
    }
}

/// NVMe/TCP Transport 1.1, "Transport Specific Address Subtype": SECTYPE.
fn security_of(security: u8) -> String {
    match security {
        0 => "none".to_owned(),
        1 => "TLS 1.2".to_owned(),
        2 => "TLS 1.3".to_owned(),
        other => format!("type {other}"),
    }
}

fn identify(address: &NvmeTcpAddress, format: Format) -> Result<(), Failure> {
    let reactor = Reactor::new(ReactorConfig::default())?;
    let device = NvmeTcpDevice::connect(&reactor, &connect_options(address)?)?;
    let identity = device.identity();
    device.shut_down(&reactor)?;
    let geometry = identity
        .geometry
        .ok_or_else(|| Failure::new(format!("{address}: told no size of its namespace")))?;
    let facts = Facts { address, identity: &identity, geometry };
    match format {
        Format::Json => output::print(facts.json()),
        Format::Table => output::print(facts.table()),
    }
}

/// What `identify` found.
struct Facts<'found> {
    address: &'found NvmeTcpAddress,
    identity: &'found Identity,
    geometry: Geometry,
}

impl Facts<'_> {
    fn table(&self) -> String {
        let (identity, geometry) = (self.identity, &self.geometry);
        let controller = &identity.controller;
        let yes_or_no = |yes: bool| if yes { "yes" } else { "no" }.to_owned();
        let ids: Vec<String> = identity.namespaces.iter().map(u32::to_string).collect();
        let rows = [
            ("subsystem", table::printable(&controller.subsystem)),
            ("model", table::printable(&controller.model_number)),
            ("serial number", table::printable(&controller.serial_number)),
            ("firmware", table::printable(&controller.firmware_revision)),
            (
                "controller",
                format!("{}, {}", identity.controller_id, controller_kind(controller.kind)),
            ),
            ("version", version_of(identity.version)),
            (
                "largest transfer",
                self.transfer_max().map_or_else(|| "no limit".into(), table::bytes),
            ),
            ("volatile write cache", yes_or_no(geometry.volatile_cache)),
            ("namespaces", ids.join(", ")),
            ("namespace", self.address.namespace.to_string()),
            ("size", format!("{} ({} bytes)", table::bytes(geometry.capacity), geometry.capacity)),
            ("block size", table::bytes(geometry.block_size.into())),
            ("preferred block size", table::bytes(geometry.preferred_block_size.into())),
            ("uuid", self.uuid().unwrap_or_else(|| "–".into())),
            ("nguid", self.nguid().unwrap_or_else(|| "–".into())),
            ("read-only", yes_or_no(geometry.read_only)),
            ("discard", yes_or_no(geometry.discard)),
            ("write zeroes", yes_or_no(geometry.write_zeroes)),
        ];
        let mut shown = table::new(&["field", "value"], 2);
        for (name, value) in rows {
            shown.add_row([name.to_owned(), value]);
        }
        shown.to_string()
    }

    fn json(&self) -> Value {
        let identity = self.identity;
        let (controller, namespace) = (&identity.controller, &identity.namespace);
        let text = |text: &str| Value::from(text);
        let optional = |text: Option<String>| text.map_or(Value::Null, Value::from);
        let controller = json::object([
            ("subnqn", text(&controller.subsystem)),
            ("mn", text(&controller.model_number)),
            ("sn", text(&controller.serial_number)),
            ("fr", text(&controller.firmware_revision)),
            ("cntlid", identity.controller_id.into()),
            ("cntrltype", text(&controller_kind(controller.kind))),
            ("ver", text(&version_of(identity.version))),
            ("mdts", controller.data_transfer_size_max.into()),
            ("transfer_max_bytes", self.transfer_max().map_or(Value::Null, Value::from)),
            ("oncs", controller.nvm_commands.into()),
            ("vwc", controller.volatile_write_cache.into()),
            ("ioccsz", controller.command_capsule_size.into()),
            ("iorcsz", controller.response_capsule_size.into()),
            ("kas", controller.keep_alive_granularity.into()),
            ("nn", controller.namespaces.into()),
            ("namespaces", identity.namespaces.iter().copied().collect()),
        ]);
        let namespace = json::object([
            ("nsid", Value::from(self.address.namespace)),
            ("nsze", namespace.size.into()),
            ("ncap", namespace.capacity.into()),
            ("nuse", namespace.used.into()),
            ("nguid", optional(self.nguid())),
            ("uuid", optional(self.uuid())),
            ("capacity_bytes", self.geometry.capacity.into()),
            ("block_size_bytes", self.geometry.block_size.into()),
            ("preferred_block_size_bytes", self.geometry.preferred_block_size.into()),
            ("read_only", self.geometry.read_only.into()),
            ("volatile_write_cache", self.geometry.volatile_cache.into()),
            ("discard", self.geometry.discard.into()),
            ("write_zeroes", self.geometry.write_zeroes.into()),
        ]);
        json::object([("controller", controller), ("namespace", namespace)])
    }

    /// MDTS in bytes: a power of two of the controller's smallest page. Absent without a limit.
    fn transfer_max(&self) -> Option<u64> {
        let power = u32::from(self.identity.controller.data_transfer_size_max);
        let page = self.identity.capabilities.map_or(0, |one| u32::from(one.page_size_min));
        (power > 0).then(|| 1_u64.checked_shl(12 + page + power)).flatten()
    }

    fn uuid(&self) -> Option<String> {
        self.identity.descriptors.uuid.map(|uuid| uuid.to_string())
    }

    fn nguid(&self) -> Option<String> {
        let bytes = self.identity.descriptors.nguid?;
        Some(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

fn controller_kind(kind: ControllerKind) -> String {
    match kind {
        ControllerKind::NotReported => "of a kind not reported".to_owned(),
        ControllerKind::InputOutput => "I/O".to_owned(),
        ControllerKind::Discovery => "discovery".to_owned(),
        ControllerKind::Administrative => "administrative".to_owned(),
        ControllerKind::Other(other) => format!("of kind {other}"),
    }
}

/// VS: major, minor, tertiary. NVMe Base 2.0 §3.1.3.2.
fn version_of(version: u32) -> String {
    format!("{}.{}.{}", version >> 16, version >> 8 & 0xff, version & 0xff)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_as_the_specification_writes_them() {
        assert_eq!(version_of(0x0001_0400), "1.4.0");
        assert_eq!(version_of(0x0002_0103), "2.1.3");
    }

    #[test]
    fn a_record_has_the_names_that_scripts_know() {
        let entry = DiscoveryEntry {
            transport: TRANSPORT_TCP,
            family: AddressFamily::Ipv6,
            kind: SubsystemKind::Nvm,
            requirements: 0,
            port_id: 1,
            controller_id: 0xffff,
            admin_queue_size: 32,
            flags: 0,
            service: "4420".into(),
            subsystem: "nqn.2014-08.x".into(),
            address: "::1".into(),
            security: 0,
        };
        let value = record(&entry);
        for (name, expected) in [
            ("trtype", "tcp"),
            ("adrfam", "ipv6"),
            ("subtype", "nvme subsystem"),
            ("trsvcid", "4420"),
            ("subnqn", "nqn.2014-08.x"),
            ("traddr", "::1"),
            ("sectype", "none"),
        ] {
            assert_eq!(value[name], expected);
        }
    }
}
