//! `forebay nvme list`: the associations of a running service.

use cache_engine::control::model::{Answer, AssociationStatus, Request, VolumeStatus};
use serde_json::Value;

use crate::control_verbs::{SocketArgument, ask, json, unexpected};
use crate::failure::Failure;
use crate::output::{self, table};

/// Asks the service and shows them.
///
/// # Errors
/// When nobody answers.
pub(super) fn run(socket: &SocketArgument, as_json: bool) -> Result<(), Failure> {
    let status = match ask(socket, &Request::Status {})? {
        Answer::Status(status) => status,
        answer => return Err(unexpected(&answer)),
    };
    let remote = status.volumes.iter().filter_map(|one| Some((one, one.association.as_ref()?)));
    if as_json {
        let records: Result<Vec<Value>, Failure> =
            remote.map(|(volume, association)| record(volume, association)).collect();
        return output::print(Value::from(records?));
    }
    let header =
        ["volume", "subsystem", "nsid", "address", "state", "cntlid", "queues", "kato", "up"];
    let mut shown = table::new(&header, 5);
    for (volume, association) in remote {
        shown.add_row(row(volume, association));
    }
    output::print(shown)
}

fn record(volume: &VolumeStatus, association: &AssociationStatus) -> Result<Value, Failure> {
    let mut record = json(association)?;
    record["volume"] = volume.name.as_str().into();
    record["size_bytes"] = volume.size_bytes.into();
    Ok(record)
}

fn row(volume: &VolumeStatus, association: &AssociationStatus) -> [String; 9] {
    let state = match &association.fault {
        Some(fault) => format!("{}: {}", association.state, fault),
        None => association.state.clone(),
    };
    let up = association.live_seconds.filter(|_| association.state == "live");
    [
        table::printable(&volume.name),
        table::printable(&association.subsystem),
        association.namespace_id.to_string(),
        table::printable(&format!("{} {}", association.transport, association.address)),
        table::printable(&state),
        association.controller_id.to_string(),
        format!("{} of {}", association.io_queues, association.queue_entries),
        format!("{} ms", association.keep_alive_ms),
        up.map_or_else(|| "–".to_owned(), |seconds| format!("{seconds:.0} s")),
    ]
}
