//! `forebay nvme list`: the paths of a running service, a line each, and what holds for those of
//! each volume; as JSON an object a volume.

use cache_engine::control::model::{Answer, AssociationStatus, PathReport, Request, VolumeStatus};
use serde_json::Value;

use crate::control_verbs::{SocketArgument, ask, json, paths, unexpected};
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
    let header = [
        "volume",
        "subsystem",
        "nsid",
        "address",
        "state",
        "access",
        "for",
        "cntlid",
        "queues",
        "lost",
        "reason",
    ];
    let mut shown = table::new(&header, header.len());
    let names: Vec<&str> = std::iter::once("volume").chain(paths::NAMES).collect();
    let mut settings = table::new(&names, names.len());
    for (volume, association) in remote {
        for path in &association.paths {
            shown.add_row(row(volume, association, path));
        }
        let values = paths::values(&association.settings);
        settings.add_row(std::iter::once(table::printable(&volume.name)).chain(values));
    }
    output::print(format_args!("{shown}\n{settings}"))
}

fn record(volume: &VolumeStatus, association: &AssociationStatus) -> Result<Value, Failure> {
    let mut record = json(association)?;
    record["volume"] = volume.name.as_str().into();
    record["size_bytes"] = volume.size_bytes.into();
    Ok(record)
}

fn row(volume: &VolumeStatus, association: &AssociationStatus, path: &PathReport) -> [String; 11] {
    let absent = || "–".to_owned();
    let mut state = path.state.clone();
    if path.is_used {
        state.push_str(", used");
    }
    if let Some(seconds) = path.next_attempt_seconds {
        state.push_str(&format!(", next attempt in {seconds:.0} s"));
    }
    let fault = association.fault.as_ref().filter(|_| path.reason.is_none());
    let reason = path.reason.as_ref().or(fault);
    [
        table::printable(&volume.name),
        table::printable(&association.subsystem),
        association.namespace_id.to_string(),
        table::printable(&format!("{} {}", association.transport, path.address)),
        table::printable(&state),
        path.access.as_deref().map_or_else(absent, table::printable),
        format!("{:.0} s", path.state_seconds),
        path.controller_id.map_or_else(absent, |id| id.to_string()),
        format!("{} of {}", path.io_queues, association.queue_entries),
        path.losses.to_string(),
        reason.map_or_else(absent, |reason| table::printable(reason)),
    ]
}
