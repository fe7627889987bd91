//! `forebay nvme identify`: what a controller and a namespace say of themselves.

use block_io::Geometry;
use block_io::reactor::{Reactor, ReactorConfig};
use cache_engine::backend::address::NvmeTcpAddress;
use cache_engine::backend::connect_options;
use cache_engine::backend::host_identity::{HostChoice, HostIdentity};
use nvme_fabric::driver::NvmeTcpDevice;
use nvme_fabric::host::Identity;
use nvme_fabric::spec::identify::ControllerKind;
use serde_json::Value;

use crate::arguments::Format;
use crate::failure::Failure;
use crate::output::{self, json, table};

/// Connects, asks, and takes leave.
///
/// # Errors
/// When the controller cannot be reached or does not answer as it should.
pub(super) fn run(address: &NvmeTcpAddress, format: Format) -> Result<(), Failure> {
    let choice = HostChoice { nqn: address.host.as_ref(), id: address.host_id };
    super::tell(&HostIdentity::of_this_machine(choice)?);
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
}
