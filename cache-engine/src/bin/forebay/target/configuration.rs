//! The configuration file of `forebay target --config`: TOML with listeners, subsystems and their
//! namespaces, limits, and where volumes that calls make are kept. `docs/forebay-target.toml` has
//! every key.
//!
//! Keys that are not known are refused, because what they were to change would be left as it is.
//! Absent: reading the file anew while the target runs; a change is a call.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use cache_engine::backend::address::{Endpoint, OriginAddress, Size};
use nvme_fabric::spec::log_page::AccessState;
use nvme_fabric::spec::nqn::{HostId, Nqn};
use nvme_fabric::target::{Hosts, Settings};
use serde::Deserialize;

use super::security::{SecurityPlan, SecurityTable};
use crate::failure::Failure;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Configuration {
    control: Option<PathBuf>,
    reservations: Option<PathBuf>,
    listen: Vec<String>,
    #[serde(default)]
    discovery: Vec<String>,
    discovery_nqn: Option<String>,
    #[serde(default)]
    mdns: bool,
    #[serde(default)]
    referrals: Vec<String>,
    controller_id_first: Option<u16>,
    port_id_first: Option<u16>,
    volumes: Option<VolumesTable>,
    #[serde(default)]
    limits: LimitsTable,
    #[serde(default)]
    security: SecurityTable,
    #[serde(default)]
    subsystem: Vec<SubsystemTable>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct VolumesTable {
    folder: PathBuf,
    state: PathBuf,
    nqn_prefix: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct LimitsTable {
    controllers: Option<u16>,
    io_queues: Option<u16>,
    queue_entries: Option<u16>,
    queues: Option<usize>,
    queues_per_host: Option<usize>,
    unconnected: Option<usize>,
    memory: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct SubsystemTable {
    nqn: String,
    serial: Option<String>,
    hosts: Option<Vec<String>>,
    #[serde(default)]
    access: BTreeMap<String, String>,
    #[serde(default)]
    namespace: Vec<NamespaceTable>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct NamespaceTable {
    device: String,
    nsid: Option<u32>,
    size: Option<String>,
    uuid: Option<String>,
    group: Option<u32>,
}

/// What a target is to be.
#[derive(Debug)]
pub(super) struct TargetPlan {
    pub(super) control: Option<PathBuf>,
    /// Where reservations are kept.
    pub(super) reservations: Option<PathBuf>,
    pub(super) listen: Vec<Endpoint>,
    pub(super) discovery: Vec<Endpoint>,
    pub(super) discovery_name: Option<Nqn>,
    /// Announces the discovery service on the local network.
    pub(super) mdns: bool,
    pub(super) referrals: Vec<Endpoint>,
    pub(super) settings: Settings,
    pub(super) security: SecurityPlan,
    pub(super) volumes: Option<VolumesPlan>,
    pub(super) subsystems: Vec<SubsystemPlan>,
}

/// Where volumes that calls make are kept, and what is remembered of calls.
#[derive(Debug)]
pub(super) struct VolumesPlan {
    pub(super) folder: PathBuf,
    pub(super) state: PathBuf,
    pub(super) nqn_prefix: String,
}

#[derive(Debug)]
pub(super) struct SubsystemPlan {
    pub(super) nqn: Nqn,
    pub(super) serial: Option<String>,
    pub(super) hosts: Hosts,
    pub(super) access: Vec<(u32, AccessState)>,
    /// By NSID.
    pub(super) namespaces: Vec<NamespacePlan>,
}

#[derive(Debug)]
pub(super) struct NamespacePlan {
    pub(super) namespace_id: u32,
    pub(super) device: OriginAddress,
    /// Makes a file that is absent.
    pub(super) size: Option<Size>,
    pub(super) uuid: Option<HostId>,
    /// 0 for the subsystem's first.
    pub(super) access_group: u32,
}

/// The states that an access group can be given.
const ACCESS_STATES: [AccessState; 5] = [
    AccessState::Optimized,
    AccessState::NonOptimized,
    AccessState::Inaccessible,
    AccessState::PersistentLoss,
    AccessState::Change,
];

/// The state that a word means.
///
/// # Errors
/// What words there are.
pub(crate) fn access_of_word(word: &str) -> Result<AccessState, String> {
    ACCESS_STATES.into_iter().find(|state| state.name() == word).ok_or_else(|| {
        let words = ACCESS_STATES.map(AccessState::name).join(", ");
        format!("access state '{}': must be one of {words}", word.escape_debug())
    })
}

/// Reads the file at `path`.
///
/// # Errors
/// When it can't be read, or what it says makes no sense: file, key, value and what would be right.
pub(super) fn read(path: &Path) -> Result<TargetPlan, Failure> {
    let shown = path.display();
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::because(format!("--config {shown}"), error))?;
    parse(&text).map_err(|error| Failure::Usage(format!("--config {shown}: {error}")))
}

fn parse(text: &str) -> Result<TargetPlan, String> {
    let read: Configuration = toml::from_str(text).map_err(|error| {
        let before = error.span().map_or("", |span| text.get(..span.start).unwrap_or(text));
        let line = before.matches('\n').count() + 1;
        format!("line {line}: {}", error.message())
    })?;
    if read.listen.is_empty() {
        return Err("listen: must name one address at least, such as '0.0.0.0:4420'".to_owned());
    }
    if read.control.is_some() && read.volumes.is_none() {
        return Err("control: needs [volumes], whose state keeps what calls change".to_owned());
    }
    if read.mdns && read.discovery.is_empty() {
        return Err("mdns: announces discovery, which must name one address at least".to_owned());
    }
    if read.subsystem.is_empty() && read.control.is_none() {
        return Err("there is no subsystem, and no control socket to make one by".to_owned());
    }
    let name = |key: &str, text: &String| text.parse::<Nqn>().map_err(|e| wrong(key, text, &e));
    let mut subsystems: Vec<SubsystemPlan> = Vec::with_capacity(read.subsystem.len());
    for table in read.subsystem {
        let nqn = name("[[subsystem]] nqn", &table.nqn)?;
        if subsystems.iter().any(|other| other.nqn == nqn) {
            return Err(format!("subsystem '{nqn}': there is one of that name already"));
        }
        subsystems.push(subsystem(nqn, table)?);
    }
    Ok(TargetPlan {
        control: read.control,
        reservations: read.reservations,
        listen: endpoints("listen", &read.listen)?,
        discovery: endpoints("discovery", &read.discovery)?,
        discovery_name: read.discovery_nqn.map(|text| name("discovery-nqn", &text)).transpose()?,
        mdns: read.mdns,
        referrals: endpoints("referrals", &read.referrals)?,
        settings: settings(&read.limits, read.controller_id_first, read.port_id_first)?,
        security: read.security.plan()?,
        volumes: read.volumes.map(volumes).transpose()?,
        subsystems,
    })
}

fn wrong(key: &str, value: &str, why: &dyn std::fmt::Display) -> String {
    format!("{key} '{}': {why}", value.escape_debug())
}

fn endpoints(key: &str, texts: &[String]) -> Result<Vec<Endpoint>, String> {
    texts.iter().map(|text| text.parse().map_err(|why| wrong(key, text, &why))).collect()
}

fn settings(
    limits: &LimitsTable,
    controller_id_first: Option<u16>,
    port_id_first: Option<u16>,
) -> Result<Settings, String> {
    let usual = Settings::default();
    let memory = limits.memory.as_ref().map(|text| {
        let size = text.parse::<Size>().map_err(|why| wrong("[limits] memory", text, &why))?;
        usize::try_from(size.bytes()).map_err(|why| wrong("[limits] memory", text, &why))
    });
    Ok(Settings {
        controllers_max: limits.controllers.unwrap_or(usual.controllers_max),
        io_queues_max: limits.io_queues.unwrap_or(usual.io_queues_max),
        queue_entries_max: limits.queue_entries.unwrap_or(usual.queue_entries_max),
        queues_max: limits.queues.unwrap_or(usual.queues_max),
        queues_per_host_max: limits.queues_per_host.unwrap_or(usual.queues_per_host_max),
        unconnected_max: limits.unconnected.unwrap_or(usual.unconnected_max),
        memory_max: memory.transpose()?.unwrap_or(usual.memory_max),
        controller_id_first: controller_id_first.unwrap_or(usual.controller_id_first),
        port_id_first: port_id_first.unwrap_or(usual.port_id_first),
        ..usual
    })
}

fn volumes(table: VolumesTable) -> Result<VolumesPlan, String> {
    let VolumesTable { folder, state, nqn_prefix } = table;
    // The longest volume name must still make a name.
    let longest = format!("{nqn_prefix}:{}", "x".repeat(super::managed::NAME_MAX));
    if let Err(why) = longest.parse::<Nqn>() {
        let why =
            format!("{why}; must be the beginning of an NQN, such as nqn.2014-08.org.example");
        return Err(wrong("[volumes] nqn-prefix", &nqn_prefix, &why));
    }
    Ok(VolumesPlan { folder, state, nqn_prefix })
}

fn subsystem(nqn: Nqn, table: SubsystemTable) -> Result<SubsystemPlan, String> {
    let of = |error: String| format!("subsystem '{nqn}': {error}");
    let hosts = match table.hosts {
        None => Hosts::Any,
        Some(hosts) => {
            let parse = |text: &String| text.parse().map_err(|why| of(wrong("hosts", text, &why)));
            Hosts::Listed(hosts.iter().map(parse).collect::<Result<_, _>>()?)
        }
    };
    let mut access = Vec::new();
    for (group, word) in &table.access {
        let group: u32 = group.parse().map_err(|why| of(wrong("access", group, &why)))?;
        access.push((group, access_of_word(word).map_err(of)?));
    }
    let mut namespaces: Vec<NamespacePlan> = Vec::with_capacity(table.namespace.len());
    let mut next = 1;
    for table in table.namespace {
        let namespace = namespace(table, next).map_err(of)?;
        next = namespace.namespace_id.saturating_add(1);
        namespaces.push(namespace);
    }
    namespaces.sort_by_key(|namespace| namespace.namespace_id);
    for (one, other) in namespaces.iter().zip(namespaces.iter().skip(1)) {
        if one.namespace_id == other.namespace_id {
            return Err(of(format!("nsid {}: is that of two namespaces", one.namespace_id)));
        }
    }
    Ok(SubsystemPlan { serial: table.serial, hosts, access, namespaces, nqn })
}

fn namespace(table: NamespaceTable, next: u32) -> Result<NamespacePlan, String> {
    let device: OriginAddress =
        table.device.parse().map_err(|why| wrong("device", &table.device, &why))?;
    if table.size.is_some() && !matches!(device, OriginAddress::File(_)) {
        return Err(format!("device '{device}': a size is for file: only, of which one is made"));
    }
    let size = table.size.map(|text| text.parse().map_err(|why| wrong("size", &text, &why)));
    let uuid = table.uuid.map(|text| text.parse().map_err(|why| wrong("uuid", &text, &why)));
    Ok(NamespacePlan {
        namespace_id: table.nsid.unwrap_or(next),
        device,
        size: size.transpose()?,
        uuid: uuid.transpose()?,
        access_group: table.group.unwrap_or(0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLE: &str = include_str!("../../../../../docs/forebay-target.toml");

    #[test]
    fn the_example_is_right_and_has_every_key() {
        let plan = parse(EXAMPLE).expect("right");
        assert!(plan.control.is_some() && plan.volumes.is_some() && plan.reservations.is_some());
        assert!(plan.discovery_name.is_some() && !plan.referrals.is_empty() && plan.mdns);
        assert_eq!((plan.listen.len(), plan.discovery.len()), (1, 1));
        let usual = Settings::default();
        assert_ne!(plan.settings.controller_id_first, usual.controller_id_first);
        assert_ne!(plan.settings.port_id_first, usual.port_id_first);
        let security = &plan.security;
        assert!(security.require_authentication && !security.hosts.is_empty());
        assert!(security.tls.is_some());
        let first = &plan.subsystems[0];
        assert!(first.serial.is_some() && first.hosts != Hosts::Any);
        assert_eq!(first.access[0], (1, AccessState::Optimized));
        let ids: Vec<u32> = first.namespaces.iter().map(|found| found.namespace_id).collect();
        assert_eq!(ids, [1, 5]);
        assert!(first.namespaces.iter().any(|found| found.uuid.is_some()));
        assert!(first.namespaces.iter().any(|found| found.size.is_some()));
        assert!(first.namespaces.iter().any(|found| found.access_group != 0));
        for key in ["controllers", "io-queues", "queue-entries", "queues", "queues-per-host"] {
            assert!(EXAMPLE.contains(&format!("\n{key} = ")), "{key}");
        }
    }

    #[test]
    fn mistakes_are_told_with_key_value_and_what_would_be_right() {
        let subsystem = |more: &str| {
            format!("listen = ['h']\n[[subsystem]]\nnqn = 'nqn.2014-08.org.example:a'\n{more}")
        };
        let namespace = |more: &str| subsystem(&format!("[[subsystem.namespace]]\n{more}"));
        let volumes = "[volumes]\nfolder = '/f'\nstate = '/s'\nnqn-prefix = 'x'\n";
        for (text, expected) in [
            (String::new(), "missing field `listen`"),
            ("listen = []".to_owned(), "listen: must name one address"),
            ("listen = ['h']".to_owned(), "there is no subsystem, and no control socket"),
            ("listen = ['h']\ncontrol = '/c'".to_owned(), "control: needs [volumes]"),
            ("listen = ['h']\nmdns = true".to_owned(), "mdns: announces discovery, which must"),
            (format!("listen = ['h']\n{volumes}") + "[[subsystem]]\nnqn = 'x'", "nqn 'x': "),
            (subsystem("") + volumes, "[volumes] nqn-prefix 'x': "),
            (subsystem("sise = 1"), "line 4: unknown field `sise`"),
            (subsystem("hosts = ['x']"), "hosts 'x': "),
            (
                subsystem("access = { 1 = 'best' }"),
                "access state 'best': must be one of optimized,",
            ),
            (subsystem("access = { x = 'change' }"), "access 'x': "),
            (subsystem("") + "[limits]\nmemory = '1MB'", "[limits] memory '1MB': "),
            (subsystem("").replace("'h'", "'::1'"), "listen '::1': "),
            (subsystem("") + "[security]\ntls = 'offered'", "tls: needs tls-keys"),
            (
                subsystem("") + "[security]\ntls = 'yes'\ntls-keys = '/k'",
                "tls 'yes': must be required or offered",
            ),
            (subsystem("") + "[security]\nrequire-authentication = true", "nobody could connect"),
            (
                subsystem("") + "[[security.host]]\nnqn = 'x'\nsecret-file = '/s'",
                "[[security.host]] nqn 'x': ",
            ),
            (
                subsystem("[[subsystem]]\nnqn = 'nqn.2014-08.org.example:a'"),
                "there is one of that name",
            ),
            (namespace("device = '/dev/x'"), "device '/dev/x': "),
            (namespace("device = 'null:1M'\nsize = '1M'"), "a size is for file: only"),
            (namespace("device = 'file:/x'\nsize = '1MB'"), "size '1MB': "),
            (namespace("device = 'null:1M'\nuuid = 'x'"), "uuid 'x': "),
            (
                namespace("device = 'null:1M'\nnsid = 2\n[[subsystem.namespace]]\n")
                    + "device = 'null:2M'\nnsid = 2",
                "nsid 2: is that of two namespaces",
            ),
        ] {
            let error = parse(&text).map(|_| ()).expect_err(&text);
            assert!(error.contains(expected), "`{expected}` in {error}");
        }
    }
}
