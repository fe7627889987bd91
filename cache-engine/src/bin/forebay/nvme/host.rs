//! `forebay nvme host`: who this machine is among NVMe hosts.

use cache_engine::backend::host_identity::{HostChoice, HostIdentity};
use serde_json::Value;

use super::arguments::HostArguments;
use crate::failure::Failure;
use crate::output::{self, json, table};

impl HostArguments {
    /// Who this host is, with what people should know of it told.
    ///
    /// # Errors
    /// As [`HostIdentity::of_this_machine`].
    pub(super) fn identity(&self) -> Result<HostIdentity, Failure> {
        let choice = HostChoice { nqn: self.hostnqn.as_ref(), id: self.hostid };
        let identity = HostIdentity::of_this_machine(choice)?;
        super::tell(&identity);
        Ok(identity)
    }
}

/// Shows it.
///
/// # Errors
/// When a file that should hold a name does not.
pub(super) fn run(host: &HostArguments, as_json: bool) -> Result<(), Failure> {
    let identity = host.identity()?;
    let (nqn, id) = (identity.nqn.to_string(), identity.id.to_string());
    if as_json {
        return output::print(json::object([
            ("hostnqn", Value::from(nqn)),
            ("hostid", id.into()),
            ("hostnqn_source", identity.nqn_source.into()),
            ("hostid_source", identity.id_source.into()),
        ]));
    }
    let mut shown = table::new(&["field", "value", "from"], 3);
    shown.add_row(["hostnqn".to_owned(), nqn, table::printable(&identity.nqn_source)]);
    shown.add_row(["hostid".to_owned(), id, table::printable(&identity.id_source)]);
    output::print(shown)
}
