//! What is told at the end: each volume's counters, and the whole cache's.

use cache_engine::cache::{CacheMode, Statistics};
use serde_json::Value;

use crate::output::{json, table};
use crate::volume::CacheReport;

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

/// A volume at the end.
pub(crate) struct VolumeSummary {
    pub(crate) name: String,
    /// Of its origin.
    pub(crate) origin: String,
    /// Bytes.
    pub(crate) capacity: u64,
    /// Its mode, and why it started cold if it did; absent where its origin was served alone.
    pub(crate) cached: Option<(CacheMode, Option<String>)>,
    pub(crate) statistics: Statistics,
}

/// What is told at the end.
pub(super) struct Summary {
    pub(super) volumes: Vec<VolumeSummary>,
    pub(super) cache: Option<CacheReport>,
}

impl Summary {
    pub(super) fn table(&self) -> String {
        let volumes = self.volumes.iter().map(|volume| self.volume_table(volume));
        let mut parts: Vec<String> = volumes.collect();
        if let Some(report) = &self.cache {
            let mut shown = table::new(&["of the cache", "value"], 1);
            for (name, value) in whole_cache(report) {
                shown.add_row([name.replace('_', " "), shown_value(name, value)]);
            }
            let (place, line_size) = (&report.place, report.line_size);
            parts.push(format!("cache: {place}, lines of {line_size}\n{shown}"));
        }
        parts.join("\n")
    }

    fn volume_table(&self, volume: &VolumeSummary) -> String {
        let mut shown = table::new(&["counter", "value"], 1);
        let is_cached = volume.cached.is_some();
        let counted = |name| is_cached || COUNTED_WITHOUT_CACHE.contains(&name);
        let counters = volume.statistics.named();
        for (name, value) in counters.into_iter().filter(|(name, _)| counted(name)) {
            shown.add_row([name.replace('_', " "), shown_value(name, value)]);
        }
        if is_cached {
            let ratio = volume.statistics.hit_ratio();
            let text = ratio.map_or_else(|| "–".to_owned(), table::percent);
            shown.add_row(["hit ratio".to_owned(), text]);
        }
        let cached = match (&volume.cached, &self.cache) {
            (Some((mode, cold)), Some(report)) => {
                let start = match cold {
                    Some(why) => format!("started cold: {why}"),
                    None => "started warm".to_owned(),
                };
                format!("cached by {}, {mode}, {start}", report.place)
            }
            _ => "not cached".to_owned(),
        };
        let VolumeSummary { name, origin, capacity, .. } = volume;
        format!("{name}: {}, {origin}, {cached}\n{shown}", table::bytes(*capacity))
    }

    /// The cache and its counters, or null; and the volumes in the order of their adding.
    pub(super) fn json(&self) -> Value {
        let cache = self.cache.as_ref().map_or(Value::Null, |report| {
            let head = [
                ("device", Value::from(report.place.as_str())),
                ("line_size", report.line_size.bytes().into()),
            ];
            let counters = whole_cache(report).into_iter();
            json::object(head.into_iter().chain(counters.map(|(name, value)| (name, value.into()))))
        });
        let volumes = self.volumes.iter().map(volume_json).collect();
        json::object([("cache", cache), ("volumes", Value::Array(volumes))])
    }
}

fn volume_json(volume: &VolumeSummary) -> Value {
    let cached = volume.cached.as_ref();
    let start = |cold: &Option<String>| if cold.is_some() { "cold" } else { "warm" };
    let ratio = volume.statistics.hit_ratio().filter(|_| cached.is_some());
    let head = [
        ("name", Value::from(volume.name.as_str())),
        ("origin", volume.origin.as_str().into()),
        ("capacity", volume.capacity.into()),
        ("mode", cached.map_or(Value::Null, |(mode, _)| mode.to_string().into())),
        ("start", cached.map_or(Value::Null, |(_, cold)| start(cold).into())),
        ("cold_reason", cached.map_or(Value::Null, |(_, cold)| cold.clone().into())),
        ("hit_ratio", ratio.map_or(Value::Null, |ratio| json::rounded(ratio, 6))),
    ];
    let counters = volume.statistics.named().map(|(name, value)| (name, Value::from(value)));
    json::object(head.into_iter().chain(counters))
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
