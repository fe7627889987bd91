//! `forebay run`: one volume, one reactor, until a signal.

use std::fmt;

use block_io::BlockQueue;
use block_io::reactor::{Reactor, ReactorConfig};
use cache_engine::backend::Backend;
use cache_engine::backend::address::{CacheAddress, OriginAddress};
use cache_engine::cache::{CacheConfig, Statistics};
use cache_engine::frontend::nbd::{ExportAddress, Transport};
use serde_json::Value;

use crate::arguments::{Format, RunArguments};
use crate::control::{Control, Daemon};
use crate::failure::Failure;
use crate::output::{self, json, table};
use crate::serve::NbdService;
use crate::signals::Signals;
use crate::volume::{CacheSettings, Volume, is_same_file};

/// Serves the volume until a signal and prints its statistics.
///
/// # Errors
/// When the volume cannot be opened or served.
pub(crate) fn run(arguments: &RunArguments) -> Result<(), Failure> {
    let reactor = Reactor::new(ReactorConfig::default())?;
    let volume = open_volume(arguments, &reactor)?;
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
    for place in places {
        output::ready(&arguments.name, place)?;
    }
    service.run(&reactor)?;
    let [statistics] = service.statistics()[..] else {
        return Err(Failure::new("the service lost its volume"));
    };
    let summary = Summary { arguments, capacity, statistics };
    match arguments.stats {
        Format::Table => output::print(summary.table()),
        Format::Json => output::print(summary.json()),
    }
}

fn open_volume(arguments: &RunArguments, reactor: &Reactor) -> Result<Volume, Failure> {
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
    let settings = CacheSettings {
        address: address.clone(),
        size: arguments.cache_size,
        force_format: arguments.force_format,
        mode: arguments.mode,
        config: CacheConfig { line_size: arguments.line_size, ..CacheConfig::default() },
    };
    let (volume, notices) = Volume::cached(&origin, &settings, reactor)?;
    notices.into_iter().for_each(output::notice);
    Ok(volume)
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
}

impl Summary<'_> {
    fn table(&self) -> String {
        let mut shown = table::new(&["counter", "value"], 1);
        let is_cached = self.arguments.cache.is_some();
        let counted = |name| is_cached || COUNTED_WITHOUT_CACHE.contains(&name);
        for (name, value) in self.statistics.named().into_iter().filter(|(name, _)| counted(name)) {
            let text = match name.ends_with("_bytes") {
                true => table::bytes(value),
                false => table::grouped(value),
            };
            shown.add_row([name.replace('_', " "), text]);
        }
        if is_cached {
            let ratio = self.statistics.hit_ratio();
            let text = ratio.map_or_else(|| "–".to_owned(), table::percent);
            shown.add_row(["hit ratio".to_owned(), text]);
        }
        let arguments = self.arguments;
        let cached = match &arguments.cache {
            Some(cache) => {
                format!("cached by {cache}, {}, lines of {}", arguments.mode, arguments.line_size)
            }
            None => "not cached".to_owned(),
        };
        let (name, origin) = (&arguments.name, &arguments.origin);
        format!("{name}: {}, {origin}, {cached}\n{shown}", table::bytes(self.capacity))
    }

    fn json(&self) -> Value {
        let arguments = self.arguments;
        let cache = arguments.cache.as_ref();
        let cached = |value: Value| if cache.is_some() { value } else { Value::Null };
        let settings = [
            ("name", Value::from(arguments.name.as_str())),
            ("origin", arguments.origin.to_string().into()),
            ("capacity", self.capacity.into()),
            ("cache", cache.map_or(Value::Null, |cache| cache.to_string().into())),
            ("mode", cached(arguments.mode.to_string().into())),
            ("line_size", cached(arguments.line_size.bytes().into())),
        ];
        let ratio =
            self.statistics.hit_ratio().map_or(Value::Null, |ratio| json::rounded(ratio, 6));
        let counters = self.statistics.named().map(|(name, value)| (name, Value::from(value)));
        json::object(settings.into_iter().chain([("hit_ratio", ratio)]).chain(counters))
    }
}
