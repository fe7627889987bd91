//! What a service is made of: a cache, volumes, a control socket. Made of the command line, of a
//! configuration file or of what the control socket is asked; checked alike, before anything is
//! opened.
//!
//! Absent: what only an open device shows, such as its identity.

use std::path::{Path, PathBuf};

use block_io::Timestamp;
use cache_engine::backend::address::{CacheAddress, OriginAddress, Size};
use cache_engine::backend::attachment::StateDirectory;
use cache_engine::backend::key_source::KeySource;
use cache_engine::cache::metadata::Generation;
use cache_engine::cache::metadata::volume_record::NAME_MAX;
use cache_engine::cache::policy::PolicySettings;
use cache_engine::cache::{CacheConfig, CacheMode, LineSize, VOLUMES_MAX, Verification};
use cache_engine::control::model::NewVolume;
use cache_engine::frontend::nbd::ExportAddress;
use cache_engine::frontend::nvme::NvmeTcpExport;

use super::arguments::RunArguments;
use super::export::{ExportPlace, ExportUri};
use crate::failure::Failure;
use crate::volume::is_same_file;

/// What is served.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) cache: Option<CachePlan>,
    pub(crate) volumes: Vec<VolumePlan>,
    pub(crate) control: Option<PathBuf>,
}

/// How a cache is made.
#[derive(Clone, Debug)]
pub(crate) struct CachePlan {
    pub(crate) address: CacheAddress,
    pub(crate) size: Option<Size>,
    pub(crate) force_format: bool,
    /// Of a device that is formatted; of any other, what it must have.
    pub(crate) line_size: Option<LineSize>,
    pub(crate) verification: Verification,
    pub(crate) policy: PolicySettings,
    /// Whether it draws a curve of its misses: only one reactor sees all reads.
    pub(crate) has_curve: bool,
    /// Where this host notes what was attached; the usual place where there is none.
    pub(crate) state: Option<PathBuf>,
}

/// A volume to be served.
#[derive(Clone, Debug)]
pub(crate) struct VolumePlan {
    pub(crate) name: String,
    pub(crate) origin: OriginAddress,
    pub(crate) exports: Vec<ExportUri>,
    /// Whether the service's cache is in front of it, if there is one.
    pub(crate) is_cached: bool,
    pub(crate) mode: CacheMode,
    /// What the caller says of who wrote to the origin.
    pub(crate) generation: Option<Generation>,
    pub(crate) key: Option<KeySource>,
    /// Until when the origin is this host's alone, as far as is known at the start; without an end
    /// for none.
    pub(crate) lease: Option<Timestamp>,
}

impl Plan {
    /// The one volume, or none, of a command line. Leases count from `begin`.
    ///
    /// # Errors
    /// When the arguments make no sense together.
    pub(crate) fn of_arguments(
        arguments: &RunArguments,
        begin: Timestamp,
    ) -> Result<Self, Failure> {
        let usage = |error| Failure::Usage(error);
        let cache = match &arguments.cache {
            None if arguments.force_format => {
                let what = "--force-format: needs a cache; give --cache or --config";
                return Err(usage(what.to_owned()));
            }
            None => None,
            Some(address) => Some(CachePlan {
                address: address.clone(),
                size: arguments.cache_size,
                force_format: arguments.force_format,
                line_size: arguments.line_size,
                verification: arguments.verify,
                policy: policy(&arguments.settings).map_err(usage)?,
                has_curve: true,
                state: arguments.state_dir.clone(),
            }),
        };
        // The address is parsed here, because the grammar would repeat what may be a key by
        // mistake.
        let key = arguments.encryption_key.as_deref().map(str::parse::<KeySource>).transpose();
        let key = key.map_err(|error| usage(format!("--encryption-key: {error}")))?;
        let volume = arguments.origin.as_ref().map(|origin| VolumePlan {
            name: arguments.name.clone(),
            origin: origin.clone(),
            exports: arguments.exports.clone(),
            is_cached: true,
            mode: arguments.mode,
            generation: arguments.generation.clone(),
            key,
            lease: arguments.lease.map(|time| begin + time),
        });
        let plan = Self {
            cache,
            volumes: volume.into_iter().collect(),
            control: arguments.control.clone(),
        };
        plan.check().map_err(usage)?;
        Ok(plan)
    }

    /// Whether its parts go together.
    ///
    /// # Errors
    /// What does not, with the key and the value.
    pub(crate) fn check(&self) -> Result<(), String> {
        if self.volumes.is_empty() && self.control.is_none() {
            return Err("there is no volume, and no control socket to add one by; give a volume \
                        with its origin and exports, or a control socket"
                .to_owned());
        }
        for (index, volume) in self.volumes.iter().enumerate() {
            let cache = self.cache.as_ref().map(|cache| &cache.address);
            volume.check(cache, self.volumes[..index].iter())?;
            if volume.lease.is_some() && self.control.is_none() {
                return Err(format!(
                    "volume '{}': lease: needs a control socket, to renew it by",
                    volume.name
                ));
            }
        }
        Ok(())
    }
}

fn policy(settings: &[String]) -> Result<PolicySettings, String> {
    let mut policy = PolicySettings::default();
    for setting in settings {
        let wrong = |error| format!("--set {setting}: {error}");
        let (name, value) = setting
            .split_once('=')
            .ok_or_else(|| wrong("must be NAME=VALUE, such as admission=second-miss".to_owned()))?;
        policy.change(name, value).map_err(wrong)?;
    }
    Ok(policy)
}

impl CachePlan {
    pub(crate) fn config(&self) -> CacheConfig {
        let usual = CacheConfig::default();
        CacheConfig {
            verification: self.verification,
            policy: self.policy.clone(),
            miss_ratio_samples: if self.has_curve { usual.miss_ratio_samples } else { 0 },
            ..usual
        }
    }

    /// Where this host notes what was attached.
    ///
    /// # Errors
    /// When nothing says where that is.
    pub(crate) fn state_directory(&self) -> Result<StateDirectory, Failure> {
        match (&self.address, &self.state) {
            // Nothing is noted of a cache in memory.
            (CacheAddress::Memory, _) => Ok(StateDirectory::at("")),
            (_, Some(path)) => {
                let path = std::path::absolute(path).map_err(|error| {
                    Failure::because(format!("--state-dir {}", path.display()), error)
                })?;
                Ok(StateDirectory::at(path))
            }
            (_, None) => Ok(StateDirectory::of_this_process()?),
        }
    }
}

impl VolumePlan {
    /// From the words of a configuration file or of the control socket.
    ///
    /// # Errors
    /// What is wrong: the volume, the key, the value and what would be right.
    pub(crate) fn of_words(words: &NewVolume) -> Result<Self, String> {
        let shown = words.name.escape_debug();
        let name = volume_name(&words.name).map_err(|why| format!("name '{shown}': {why}"))?;
        let wrong = |key: &str, value: &str, why: &dyn std::fmt::Display| {
            format!("volume '{name}': {key} '{}': {why}", value.escape_debug())
        };
        let origin = words.origin.parse();
        let origin = origin.map_err(|why| wrong("origin", &words.origin, &why))?;
        if words.exports.is_empty() {
            return Err(format!(
                "volume '{name}': exports: must name one at least, such as \
                 nbd+unix:///{name}?socket=/run/forebay/nbd.sock"
            ));
        }
        let exports = words.exports.iter().map(|export| {
            export.parse::<ExportUri>().map_err(|why| wrong("exports", export, &why))
        });
        let exports = exports.collect::<Result<_, _>>()?;
        let mode = match &words.mode {
            Some(mode) => mode.parse().map_err(|why: String| wrong("mode", mode, &why))?,
            None => CacheMode::default(),
        };
        let generation = words
            .generation
            .as_ref()
            .map(|text| generation(text).map_err(|why| wrong("generation", text, &why)));
        // What was given may be the key itself, by mistake: it is not repeated.
        let key = words.encryption_key.as_deref().map(|text| {
            text.parse().map_err(|why| format!("volume '{name}': encryption-key: {why}"))
        });
        let (generation, key) = (generation.transpose()?, key.transpose()?);
        let lease = words.lease_until_ns.map(Timestamp);
        Ok(Self { name, origin, exports, is_cached: true, mode, generation, key, lease })
    }

    /// Whether it goes with the cache and with `others`.
    ///
    /// # Errors
    /// What does not, with the key and the value.
    pub(crate) fn check<'plan>(
        &self,
        cache: Option<&CacheAddress>,
        others: impl Iterator<Item = &'plan Self>,
    ) -> Result<(), String> {
        let (name, origin) = (&self.name, &self.origin);
        if let (OriginAddress::File(file), Some(CacheAddress::File(cache))) = (origin, cache)
            && is_same_path(file, cache)
        {
            return Err(format!(
                "cache {}: is the origin of volume '{name}' itself; a cache needs a device of its \
                 own",
                cache.display()
            ));
        }
        if let [_, second, ..] = &*self.nvme_exports().collect::<Vec<_>>() {
            return Err(format!(
                "volume '{name}': exports '{second}': a volume is one namespace at one address, so \
                 that it has one reservation; must be the only one of nvme+tcp, listen at all \
                 addresses by 0.0.0.0 or [::] where there are to be more"
            ));
        }
        let mut count = 1;
        for other in others {
            count += 1;
            if other.name == *name {
                return Err(format!(
                    "volume '{name}': there is one of that name; each needs a name of its own"
                ));
            }
            if is_same_origin(&other.origin, origin) {
                return Err(format!(
                    "volume '{name}': origin '{origin}': is that of volume '{}' already; export \
                     that one under more names instead",
                    other.name
                ));
            }
            self.check_exports(other)?;
        }
        if count > VOLUMES_MAX {
            return Err(format!("volume '{name}': would be one more than {VOLUMES_MAX}"));
        }
        Ok(())
    }

    fn nvme_exports(&self) -> impl Iterator<Item = &NvmeTcpExport> {
        self.exports.iter().filter_map(ExportUri::as_nvme_tcp)
    }

    /// Whether its exports can be told from those of another volume.
    fn check_exports(&self, other: &Self) -> Result<(), String> {
        let taken = |export: &ExportUri, what: &str, name: &str, why: &str| {
            let (own, others) = (&self.name, &other.name);
            Err(format!(
                "volume '{own}': exports '{export}': the {what} '{name}' is that of volume \
                 '{others}' already; {why}"
            ))
        };
        for export in &self.exports {
            match export.place() {
                ExportPlace::Nbd(ExportAddress { name, .. }) => {
                    let mut names = other.exports.iter().filter_map(ExportUri::as_nbd);
                    if names.any(|(one, _)| one == name) {
                        let why = "each export is found at every address, so that its name must be \
                                   its own";
                        return taken(export, "export name", name, why);
                    }
                }
                ExportPlace::NvmeTcp(NvmeTcpExport { subsystem, .. }) => {
                    if other.nvme_exports().any(|one| one.subsystem == *subsystem) {
                        let why = "each must be a subsystem of its own";
                        return taken(export, "subsystem", subsystem.as_str(), why);
                    }
                }
            }
        }
        Ok(())
    }
}

/// Whether two addresses are of one device, as far as can be told without opening it. Each memory
/// is another one.
fn is_same_origin(one: &OriginAddress, other: &OriginAddress) -> bool {
    match (one, other) {
        (OriginAddress::File(one), OriginAddress::File(other)) => is_same_path(one, other),
        (OriginAddress::NvmeTcp(_), OriginAddress::NvmeTcp(_)) => one == other,
        _ => false,
    }
}

/// Whether two paths lead, or will lead, to one file.
pub(crate) fn is_same_path(one: &Path, other: &Path) -> bool {
    one == other || is_same_file(one, other)
}

/// Parses a generation.
pub(crate) fn generation(text: &str) -> Result<Generation, String> {
    if text.is_empty() || text.chars().any(char::is_control) {
        return Err("must not be empty and hold no control characters".to_owned());
    }
    Generation::new(text).map_err(|error| error.to_string())
}

/// Parses a volume's name.
pub(crate) fn volume_name(text: &str) -> Result<String, String> {
    if text.is_empty() || text.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err("must not be empty and hold no spaces or control characters".to_owned());
    }
    if text.len() > NAME_MAX {
        return Err(format!("has {} bytes; must be at most {NAME_MAX}", text.len()));
    }
    Ok(text.to_owned())
}
