//! `forebay run`: one volume, one reactor, until a signal.

use std::fmt;

use block_io::reactor::{self, Reactor, ReactorConfig};
use block_io::{BlockQueue, Timestamp};
use cache_engine::backend::Backend;
use cache_engine::backend::address::{CacheAddress, OriginAddress};
use cache_engine::backend::attachment::StateDirectory;
use cache_engine::backend::key_source::KeySource;
use cache_engine::cache::policy::PolicySettings;
use cache_engine::cache::{CacheConfig, Statistics};
use cache_engine::frontend::nbd::{ExportAddress, Transport};
use serde_json::Value;

use crate::arguments::{Format, RunArguments};
use crate::control::{Control, Daemon};
use crate::failure::Failure;
use crate::output::{self, json, table};
use crate::serve::NbdService;
use crate::signals::Signals;
use crate::volume::{CacheReport, CacheSettings, Volume, is_same_file};

/// Serves the volume until a signal and prints its statistics.
///
/// # Errors
/// When the volume cannot be opened or served.
pub(crate) fn run(arguments: &RunArguments) -> Result<(), Failure> {
    let begin = reactor::clock();
    let reactor = Reactor::new(ReactorConfig::default())?;
    let volume = open_volume(arguments, &reactor, begin)?;
    let capacity = volume.geometry().capacity;
    // From here on a signal ends the command in order; before, it just ends it.
    let mut service = NbdService::new(&reactor, Control::Signals(Signals::new()?.watch(&reactor)));
    service.add_volume(volume, export_names(&arguments.exports))?;
    let mut places = Vec::with_capacity(arguments.exports.len());
    for export in &arguments.exports {
        let transport = service
            .listen(&export.address.transport)
            .map_err(|error| Failure::because(format!("--export {export}"), error))?;
        places.push(export.at(transport));
    }
    if let Some(socket) = &arguments.control {
        service.open_control(socket, &[arguments.name.as_str()])?;
    }
    for place in places {
        output::ready(&arguments.name, place)?;
    }
    service.run(&reactor)?;
    let [statistics] = service.statistics()[..] else {
        return Err(Failure::new("the service lost its volume"));
    };
    let cache = service.cache_report();
    let summary = Summary { arguments, capacity, statistics, cache };
    match arguments.stats {
        Format::Table => output::print(summary.table()),
        Format::Json => output::print(summary.json()),
    }
}

fn open_volume(
    arguments: &RunArguments,
    reactor: &Reactor,
    begin: Timestamp,
) -> Result<Volume, Failure> {
    if let (OriginAddress::File(origin), Some(CacheAddress::File(cache))) =
        (&arguments.origin, &arguments.cache)
        && is_same_file(origin, cache)
    {
        return Err(Failure::Usage(format!(
            "--cache {}: is the origin itself; a cache needs a device of its own",
            cache.display()
        )));
    }
    let origin = Backend::open(&arguments.origin, reactor)?;
    origin.notice().into_iter().for_each(output::notice);
    let Some(address) = &arguments.cache else {
        return Volume::plain(&origin, reactor);
    };
    let settings = settings(arguments, address, begin)?;
    let (volume, notices) = Volume::cached(&origin, &settings, reactor)?;
    notices.into_iter().for_each(output::notice);
    Ok(volume)
}

fn settings(
    arguments: &RunArguments,
    address: &CacheAddress,
    begin: Timestamp,
) -> Result<CacheSettings, Failure> {
    let mut policy = PolicySettings::default();
    for setting in &arguments.settings {
        let usage = |error| Failure::Usage(format!("--set {setting}: {error}"));
        let (name, value) = setting
            .split_once('=')
            .ok_or_else(|| usage("must be NAME=VALUE, such as admission=second-miss".to_owned()))?;
        policy.change(name, value).map_err(usage)?;
    }
    // The address is parsed here, because the grammar would repeat what may be a key by mistake.
    let source = arguments.encryption_key.as_deref().map(str::parse::<KeySource>).transpose();
    let source = source.map_err(|error| Failure::Usage(format!("--encryption-key: {error}")))?;
    let state =
        match (address, &arguments.state_dir) {
            // Nothing is noted of a cache in memory.
            (CacheAddress::Memory, _) => StateDirectory::at(""),
            (_, Some(path)) => StateDirectory::at(std::path::absolute(path).map_err(|error| {
                Failure::because(format!("--state-dir {}", path.display()), error)
            })?),
            (_, None) => StateDirectory::of_this_process()?,
        };
    Ok(CacheSettings {
        address: address.clone(),
        size: arguments.cache_size,
        force_format: arguments.force_format,
        mode: arguments.mode,
        line_size: arguments.line_size,
        config: CacheConfig { verification: arguments.verify, policy, ..CacheConfig::default() },
        name: arguments.name.clone(),
        lease: arguments.lease.map(|time| begin + time),
        generation: arguments.generation.clone(),
        state,
        key: source.map(|source| source.read()).transpose()?,
    })
}

/// Each name once: several exports may differ in their transport only.
fn export_names(exports: &[ExportUri]) -> impl Iterator<Item = &str> {
    exports.iter().enumerate().filter_map(|(index, export)| {
        let name = export.address.name.as_str();
        let earlier = exports[..index].iter().any(|other| other.address.name == name);
        (!earlier).then_some(name)
    })
}

/// An export as it was asked for.
#[derive(Clone, Debug)]
pub(crate) struct ExportUri {
    text: String,
    address: ExportAddress,
}

impl ExportUri {
    /// Where clients find it: what was asked for, but for a port that the system chose.
    fn at(&self, transport: Transport) -> String {
        match (&self.address.transport, &transport) {
            (Transport::Tcp { port: 0, host }, Transport::Tcp { port, .. }) => {
                let transport = Transport::Tcp { host: host.clone(), port: *port };
                ExportAddress { transport, name: self.address.name.clone() }.to_string()
            }
            _ => self.text.clone(),
        }
    }
}

impl std::str::FromStr for ExportUri {
    type Err = <ExportAddress as std::str::FromStr>::Err;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self { text: text.to_owned(), address: text.parse()? })
    }
}

impl fmt::Display for ExportUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Counters that mean something without a cache.
const COUNTED_WITHOUT_CACHE: [&str; 8] = [
    "reads",
    "read_bytes",
    "writes",
    "write_bytes",
    "flushes",
    "discards",
    "write_zeroes",
    "origin_errors",
];

/// What is told at the end.
struct Summary<'arguments> {
    arguments: &'arguments RunArguments,
    capacity: u64,
    statistics: Statistics,
    cache: Option<CacheReport>,
}

impl Summary<'_> {
    fn table(&self) -> String {
        let mut shown = table::new(&["counter", "value"], 1);
        let is_cached = self.arguments.cache.is_some();
        let counted = |name| is_cached || COUNTED_WITHOUT_CACHE.contains(&name);
        for (name, value) in self.statistics.named().into_iter().filter(|(name, _)| counted(name)) {
            shown.add_row([name.replace('_', " "), shown_value(name, value)]);
        }
        if let Some(report) = &self.cache {
            let ratio = self.statistics.hit_ratio();
            let text = ratio.map_or_else(|| "–".to_owned(), table::percent);
            shown.add_row(["hit ratio".to_owned(), text]);
            for (name, value) in whole_cache(report) {
                shown.add_row([name.replace('_', " "), shown_value(name, value)]);
            }
        }
        let arguments = self.arguments;
        let cached = match (&arguments.cache, &self.cache) {
            (Some(cache), Some(report)) => {
                let start = match &report.cold {
                    Some(why) => format!("started cold: {why}"),
                    None => "started warm".to_owned(),
                };
                let line_size = report.line_size;
                format!("cached by {cache}, {}, lines of {line_size}, {start}", arguments.mode)
            }
            _ => "not cached".to_owned(),
        };
        let (name, origin) = (&arguments.name, &arguments.origin);
        format!("{name}: {}, {origin}, {cached}\n{shown}", table::bytes(self.capacity))
    }

    fn json(&self) -> Value {
        let arguments = self.arguments;
        let cache = arguments.cache.as_ref();
        let report = self.cache.as_ref();
        let start = |report: &CacheReport| if report.cold.is_some() { "cold" } else { "warm" };
        let cached = |value: Value| if cache.is_some() { value } else { Value::Null };
        let settings = [
            ("name", Value::from(arguments.name.as_str())),
            ("origin", arguments.origin.to_string().into()),
            ("capacity", self.capacity.into()),
            ("cache", cache.map_or(Value::Null, |cache| cache.to_string().into())),
            ("mode", cached(arguments.mode.to_string().into())),
            ("line_size", report.map_or(Value::Null, |report| report.line_size.bytes().into())),
            ("start", report.map_or(Value::Null, |report| start(report).into())),
            ("cold_reason", report.map_or(Value::Null, |report| report.cold.clone().into())),
        ];
        let whole = report.map_or_else(Vec::new, whole_cache);
        let whole = json::object(whole.into_iter().map(|(name, value)| (name, value.into())));
        let whole = [("whole_cache", cached(whole))];
        let ratio =
            self.statistics.hit_ratio().map_or(Value::Null, |ratio| json::rounded(ratio, 6));
        let counters = self.statistics.named().map(|(name, value)| (name, Value::from(value)));
        let head = settings.into_iter().chain([("hit_ratio", ratio)]);
        json::object(head.chain(counters).chain(whole))
    }
}

fn shown_value(name: &str, value: u64) -> String {
    match name.ends_with("_bytes") {
        true => table::bytes(value),
        false => table::grouped(value),
    }
}

/// What is counted for all volumes of the cache together.
fn whole_cache(report: &CacheReport) -> Vec<(&'static str, u64)> {
    let policy = &report.policy;
    let mut counters = vec![
        ("cache_capacity_bytes", report.capacity),
        ("cache_lines", report.capacity / report.line_size.bytes()),
        ("cache_lines_in_use", report.lines),
        ("policy_bypassed_bytes", policy.bypassed_bytes),
        ("policy_admitted_bytes", policy.admitted_bytes),
        ("policy_refused_never", policy.refused_never),
        ("policy_refused_first_miss", policy.refused_first_miss),
        ("policy_refused_scarce", policy.refused_scarce),
        ("policy_refused_spent", policy.refused_spent),
        ("policy_refused_maximum", policy.refused_maximum),
        ("policy_extra_read_bytes", policy.extra_read_bytes),
        ("policy_purged", policy.purged),
    ];
    counters.extend(report.persistence.iter().flat_map(|kept| kept.named()));
    counters
}
