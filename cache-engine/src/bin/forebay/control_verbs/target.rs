//! `forebay target status`, `create`, `resize`, `delete`, `snapshot`, `allow`, `forbid` and `ana`.

use std::fmt::Write;

use cache_engine::backend::address::Size;
use cache_engine::control::model::{Answer, Request};
use cache_engine::control::target_model::{
    TargetCall, TargetStatus, TargetSubsystem, TargetVolume,
};

use super::target_arguments::{TargetSocket, TargetVerb};
use super::{ask, json, unexpected};
use crate::failure::Failure;
use crate::output::{self, table};

/// Calls a target that runs.
///
/// # Errors
/// When nobody answers, or the target refuses.
pub(crate) fn run(verb: &TargetVerb) -> Result<(), Failure> {
    let (call, to, done) = call_of(verb);
    match ask(&to.socket, &Request::Target { call })? {
        Answer::TargetStatus(status) if to.json => output::print(json(&status)?),
        Answer::TargetStatus(status) => output::print(status_text(&status)),
        Answer::TargetVolume(volume) if to.json => output::print(json(&volume)?),
        Answer::TargetVolume(volume) => output::print(volume_text(&volume)),
        answer @ Answer::Done {} if to.json => output::print(json(&answer)?),
        Answer::Done {} => output::print(done),
        answer => Err(unexpected(&answer)),
    }
}

/// The call, whom it is for, and what to say when it is done.
fn call_of(verb: &TargetVerb) -> (TargetCall, &TargetSocket, String) {
    match verb {
        TargetVerb::Status { to } => (TargetCall::Status {}, to, String::new()),
        TargetVerb::Create { name, size, from, subsystem, group, to } => {
            let call = TargetCall::Create {
                name: name.clone(),
                size_bytes: size.map(Size::bytes),
                from: from.clone(),
                subsystem: subsystem.as_ref().map(ToString::to_string),
                access_group: *group,
            };
            (call, to, String::new())
        }
        TargetVerb::Resize { name, size, to } => {
            let call = TargetCall::Resize { name: name.clone(), size_bytes: size.bytes() };
            (call, to, String::new())
        }
        TargetVerb::Delete { name, to } => {
            let done = format!("{}: is served no more and removed", table::printable(name));
            (TargetCall::Delete { name: name.clone() }, to, done)
        }
        TargetVerb::Snapshot { volume, name, to } => {
            let call = TargetCall::Snapshot { volume: volume.clone(), name: name.clone() };
            (call, to, String::new())
        }
        TargetVerb::Allow { subject, host, to } => {
            let done = format!("{}: {host} may connect", table::printable(subject));
            let (subject, host) = (subject.clone(), host.to_string());
            (TargetCall::Allow { subject, host }, to, done)
        }
        TargetVerb::Forbid { subject, host, to } => {
            let done = format!("{}: {host} may not connect", table::printable(subject));
            let (subject, host) = (subject.clone(), host.to_string());
            (TargetCall::Forbid { subject, host }, to, done)
        }
        TargetVerb::Ana { subject, group, state, to } => {
            let done = format!("{}: access group {group} is {state}", table::printable(subject));
            let (subject, group, state) = (subject.clone(), *group, state.clone());
            (TargetCall::SetAccess { subject, group, state }, to, done)
        }
    }
}

fn volume_text(volume: &TargetVolume) -> String {
    let (name, size) = (table::printable(&volume.name), table::bytes(volume.size_bytes));
    match &volume.served {
        Some(served) => format!(
            "{name}: has {size} and is namespace {} of {}",
            served.namespace_id,
            table::printable(&served.subsystem)
        ),
        None => format!("{name}: has {size} and is not served"),
    }
}

fn status_text(status: &TargetStatus) -> String {
    let mut text = format!(
        "listens at {}; discovery at {}\nqueues {}, unconnected {}, payload {} of {}\n",
        listed(&status.listeners),
        listed(&status.discovery),
        status.queues,
        status.unconnected,
        table::bytes(status.memory_bytes),
        table::bytes(status.memory_bound_bytes),
    );
    if !status.is_remembered {
        text.push_str("The state file does not have the last change; a restart would lose it.\n");
    }
    for subsystem in &status.subsystems {
        text.push_str(&subsystem_text(subsystem));
    }
    let unserved = status.volumes.iter().filter(|volume| volume.served.is_none());
    for volume in unserved {
        // Writing to a String does not fail.
        let _ = writeln!(text, "{}", volume_text(volume));
    }
    text.truncate(text.trim_end().len());
    text
}

fn subsystem_text(subsystem: &TargetSubsystem) -> String {
    let hosts = match &subsystem.hosts {
        None => "any host".to_owned(),
        Some(hosts) => format!("hosts {}", listed(hosts)),
    };
    let groups: Vec<String> = subsystem
        .access_groups
        .iter()
        .map(|group| format!("; access group {} {}", group.group, table::printable(&group.state)))
        .collect();
    let mut shown = table::new(&["nsid", "device", "uuid", "group", "size"], 3);
    for namespace in &subsystem.namespaces {
        shown.add_row([
            namespace.namespace_id.to_string(),
            table::printable(&namespace.device),
            table::printable(&namespace.uuid),
            namespace.access_group.to_string(),
            table::bytes(namespace.size_bytes),
        ]);
    }
    let connected: Vec<String> = subsystem
        .associations
        .iter()
        .map(|found| {
            let host = table::printable(&found.host);
            format!(
                "connected: {host}, controller {}, {} I/O queues\n",
                found.controller_id, found.io_queues
            )
        })
        .collect();
    format!(
        "\n{}: {hosts}{}\n{shown}\n{}",
        table::printable(&subsystem.nqn),
        groups.concat(),
        connected.concat()
    )
}

fn listed(texts: &[String]) -> String {
    if texts.is_empty() {
        return "none".to_owned();
    }
    table::printable(&texts.join(", "))
}
