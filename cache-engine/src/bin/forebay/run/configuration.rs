//! The configuration file of `forebay run --config`: TOML with a cache, volumes and a control
//! socket. `docs/forebay.toml` is one with every key.
//!
//! Keys that are not known are refused, because what they were to change would be left as it is.
//! Absent: `force-format`, which would be done again with each start; reading the file anew while
//! the service runs.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use block_io::Timestamp;
use cache_engine::backend::address::Size;
use cache_engine::cache::policy::PolicySettings;
use cache_engine::cache::{LineSize, Verification};
use cache_engine::control::model::NewVolume;
use serde::Deserialize;

use super::plan::{CachePlan, Plan, VolumePlan};
use crate::control_verbs::lease_time;
use crate::failure::Failure;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Configuration {
    control: Option<PathBuf>,
    cache: Option<CacheTable>,
    #[serde(default)]
    volume: Vec<VolumeTable>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct CacheTable {
    device: String,
    size: Option<String>,
    line_size: Option<String>,
    verify: Option<String>,
    state_dir: Option<PathBuf>,
    #[serde(default)]
    settings: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct VolumeTable {
    name: String,
    origin: String,
    exports: Vec<String>,
    mode: Option<String>,
    generation: Option<String>,
    encryption_key: Option<String>,
    lease: Option<String>,
}

/// Reads the file at `path`. `force_format` is the command line's; leases count from `begin`.
///
/// # Errors
/// When it can't be read, or what it says makes no sense: file, key, value and what would be right.
pub(crate) fn read(path: &Path, force_format: bool, begin: Timestamp) -> Result<Plan, Failure> {
    let shown = path.display();
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::because(format!("--config {shown}"), error))?;
    let plan = parse(&text, force_format, begin).and_then(|plan| plan.check().map(|()| plan));
    plan.map_err(|error| Failure::Usage(format!("--config {shown}: {error}")))
}

fn parse(text: &str, force_format: bool, begin: Timestamp) -> Result<Plan, String> {
    let read: Configuration = toml::from_str(text).map_err(|error| {
        // The line itself is not shown: somebody may have put a key there.
        let before = error.span().map_or("", |span| text.get(..span.start).unwrap_or(text));
        let line = before.matches('\n').count() + 1;
        format!("line {line}: {}", error.message())
    })?;
    let cache = read.cache.map(|table| cache(&table, force_format)).transpose()?;
    if cache.is_none() && force_format {
        return Err("has no [cache], which --force-format needs".to_owned());
    }
    let mut volumes = Vec::with_capacity(read.volume.len());
    for table in read.volume {
        if cache.is_none() {
            let given = [
                ("mode", table.mode.is_some()),
                ("generation", table.generation.is_some()),
                ("encryption-key", table.encryption_key.is_some()),
                ("lease", table.lease.is_some()),
            ];
            if let Some((key, _)) = given.iter().find(|(_, given)| *given) {
                let name = table.name.escape_debug();
                return Err(format!("volume '{name}': {key}: means nothing without a [cache]"));
            }
        }
        volumes.push(volume(table, begin)?);
    }
    Ok(Plan { cache, volumes, control: read.control })
}

fn volume(table: VolumeTable, begin: Timestamp) -> Result<VolumePlan, String> {
    let VolumeTable { name, origin, exports, mode, generation, encryption_key, lease } = table;
    let lease = lease.map(|text| {
        let wrong = |why| format!("volume '{}': lease: {why}", name.escape_debug());
        lease_time(&text).map(|time| (begin + time).0).map_err(wrong)
    });
    VolumePlan::of_words(&NewVolume {
        lease_until_ns: lease.transpose()?,
        name,
        origin,
        exports,
        mode,
        generation,
        encryption_key,
    })
}

fn cache(table: &CacheTable, force_format: bool) -> Result<CachePlan, String> {
    let wrong = |key: &str, value: &str, why: &dyn std::fmt::Display| {
        format!("[cache] {key} '{}': {why}", value.escape_debug())
    };
    let address = table.device.parse().map_err(|why| wrong("device", &table.device, &why))?;
    let size = table
        .size
        .as_ref()
        .map(|text| text.parse::<Size>().map_err(|why| wrong("size", text, &why)));
    let line_size = table
        .line_size
        .as_ref()
        .map(|text| text.parse::<LineSize>().map_err(|why| wrong("line-size", text, &why)));
    let verification = table
        .verify
        .as_ref()
        .map(|text| text.parse::<Verification>().map_err(|why| wrong("verify", text, &why)));
    let mut policy = PolicySettings::default();
    for (name, value) in &table.settings {
        policy.change(name, value).map_err(|why| format!("[cache.settings] {why}"))?;
    }
    Ok(CachePlan {
        has_curve: true,
        address,
        size: size.transpose()?,
        force_format,
        line_size: line_size.transpose()?,
        verification: verification.transpose()?.unwrap_or_default(),
        policy,
        state: table.state_dir.clone(),
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const EXAMPLE: &str = include_str!("../../../../../docs/forebay.toml");

    #[test]
    fn the_example_is_right_and_has_every_key() {
        let begin = Timestamp(7);
        let plan = parse(EXAMPLE, false, begin).expect("right");
        plan.check().expect("goes together");
        assert_eq!(plan.volumes.len(), 3);
        assert!(plan.control.is_some() && plan.volumes[0].generation.is_some());
        assert!(plan.volumes.iter().any(|volume| volume.key.is_some()));
        let leases: Vec<_> = plan.volumes.iter().filter_map(|volume| volume.lease).collect();
        assert_eq!(leases, [begin + Duration::from_secs(30)]);
        let cache = plan.cache.expect("a cache");
        assert!(cache.size.is_some() && cache.line_size.is_some() && cache.state.is_some());
        assert!(!cache.force_format);
        assert_eq!(cache.policy.entries()[0].1, "second-miss");
    }

    #[test]
    fn mistakes_are_told_with_key_value_and_what_would_be_right() {
        let volume = |more: &str| {
            format!("[[volume]]\nname = 'a'\norigin = 'memory:1M'\nexports = ['nbd://h/a']\n{more}")
        };
        let cache = |more: &str| format!("[cache]\ndevice = 'memory:'\n{more}\n{}", volume(""));
        let second = |name: &str, origin: &str, export: &str| {
            volume(&format!(
                "[[volume]]\nname = '{name}'\norigin = '{origin}'\nexports = ['{export}']"
            ))
        };
        let file =
            |origin: &str| second("b", origin, "nbd://h/b").replace("memory:1M", "file:/x/y");
        for (text, expected) in [
            (String::new(), "there is no volume, and no control socket"),
            (volume("sise = 1"), "line 5: unknown field `sise`, expected one of `name`, `origin`"),
            (cache("force-format = true"), "line 3: unknown field `force-format`"),
            (cache("size = 5"), "line 3: invalid type: integer `5`, expected a string"),
            (cache("size = '5MB'"), "[cache] size '5MB': "),
            (cache("line-size = '3k'"), "[cache] line-size '3k': "),
            (cache("verify = 'later'"), "[cache] verify 'later': "),
            (cache("settings = { admission = 'x' }"), "[cache.settings] admission 'x'"),
            ("[cache]\nsize = '1M'".to_owned(), "missing field `device`"),
            (
                volume("mode = 'write-back'").replace("[[", "[cache]\ndevice = 'memory:'\n[["),
                "volume 'a': mode 'write-back': ",
            ),
            (volume("mode = 'write-through'"), "volume 'a': mode: means nothing without a [cache]"),
            (volume("lease = '30s'"), "volume 'a': lease: means nothing without a [cache]"),
            (cache("") + "lease = '30'", "volume 'a': lease: `30`: must be a time from 0s"),
            (cache("") + "lease = '30s'", "volume 'a': lease: needs a control socket"),
            (volume("").replace("'a'", "'a b'"), "name 'a b': must not be empty"),
            (volume("").replace("memory:1M", "/dev/x"), "volume 'a': origin '/dev/x': "),
            (volume("").replace("['nbd://h/a']", "[]"), "volume 'a': exports: must name one"),
            (volume("").replace("nbd://h/a", "h"), "volume 'a': exports 'h': "),
            (second("a", "memory:1M", "nbd://h/b"), "volume 'a': there is one of that name"),
            (
                second("b", "memory:1M", "nbd://other/a"),
                "the export name 'a' is that of volume 'a'",
            ),
            (file("file:/x/y"), "origin 'file:/x/y': is that of volume 'a' already"),
        ] {
            let error =
                parse(&text, false, Timestamp(7)).and_then(|plan| plan.check()).expect_err(&text);
            assert!(error.contains(expected), "`{expected}` in {error}");
        }
    }

    #[test]
    fn a_key_that_stands_in_the_file_by_mistake_is_not_repeated() {
        let volume = "[cache]\ndevice = 'memory:'\n[[volume]]\nname = 'a'\norigin = 'memory:1M'\n\
                      exports = ['nbd://h/a']\n";
        for key in ["'5ec2e75ec2e7'", "5ec2e75ec2e7"] {
            let text = format!("{volume}encryption-key = {key}");
            let error = parse(&text, false, Timestamp(7)).expect_err("refused");
            assert!(!error.contains("5ec2e7"), "{error}");
        }
    }
}
