//! The part of an `nvme+tcp:` address about paths: further ones, and how long each thing may take.
//!
//! ```text
//!   path=HOST2[:4420]      a further way to the same subsystem; may be given again and again
//!   iopolicy               how commands are spread over equally good ones
//!   ctrl-loss-tmo          seconds until a lost path is given up; -1 for never
//!   fast-io-fail-tmo       seconds without any path until requests fail; -1 for never
//!   reconnect-delay        seconds between two attempts
//!   keep-alive-tmo         seconds until a silent peer is lost; 0 for never
//! ```
//! The names, the units and -1 are those of `nvme connect`. What is not given is as
//! [`Settings::default`] has it. Absent: what is done with them ([`nvme_fabric::host::paths`]).

use std::fmt;
use std::time::Duration;

use nvme_fabric::host::paths::{PATHS_MAX, PathPolicy, Settings};

use super::{AddressError, Endpoint};

/// The most seconds that KATO, a number of milliseconds in 32 bits, can be (NVMe Base 2.0
/// §5.27.1.12).
const KEEP_ALIVE_SECONDS_MAX: u32 = u32::MAX / 1000;
/// Why two addresses may not be the same one.
const SAME: &str = "is an address that is given already; each path must be another one";

/// How long something is borne.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Limit {
    /// So many seconds.
    Seconds(u32),
    /// For ever.
    Never,
}

impl Limit {
    const fn duration(self) -> Option<Duration> {
        match self {
            Self::Seconds(seconds) => Some(Duration::from_secs(seconds as u64)),
            Self::Never => None,
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Seconds(seconds) => write!(f, "{seconds}"),
            Self::Never => f.write_str("-1"),
        }
    }
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct PathChoices {
    /// Further addresses of the subsystem.
    pub more: Vec<Endpoint>,
    /// How commands are spread over equally good paths.
    pub policy: Option<PathPolicy>,
    /// After how long a lost path is given up.
    pub controller_loss: Option<Limit>,
    /// How long requests wait while there is no path.
    pub fast_io_fail: Option<Limit>,
    /// Seconds between two attempts to connect, from 1.
    pub reconnect_delay: Option<u32>,
    /// Seconds of KATO; 0 for none.
    pub keep_alive: Option<u32>,
}

impl PathChoices {
    /// The keys that are understood.
    pub(super) const KEYS: &str =
        "path, iopolicy, ctrl-loss-tmo, fast-io-fail-tmo, reconnect-delay, keep-alive-tmo";

    /// Chooses `value` for `key`, one of those that change while the paths are in use.
    ///
    /// # Errors
    /// Which keys there are, or what the value must be.
    pub fn choose(&mut self, key: &str, value: &str) -> Result<(), AddressError> {
        if key != "path" && self.apply(key, value)? {
            return Ok(());
        }
        let changeable = Self::KEYS.strip_prefix("path, ").unwrap_or(Self::KEYS);
        let key = key.escape_debug();
        Err(AddressError::new(format!("setting '{key}': must be one of {changeable}")))
    }

    /// Takes `value` for `key`. False for a key that is none of these.
    pub(super) fn apply(&mut self, key: &str, value: &str) -> Result<bool, AddressError> {
        match key {
            "path" => self.more.push(path_of(value)?),
            "iopolicy" => self.policy = Some(policy_of(value)?),
            "ctrl-loss-tmo" => self.controller_loss = Some(limit_of(key, value)?),
            "fast-io-fail-tmo" => self.fast_io_fail = Some(limit_of(key, value)?),
            "reconnect-delay" => {
                self.reconnect_delay = Some(seconds_of(key, value, 1, u32::MAX)?);
            }
            "keep-alive-tmo" => {
                self.keep_alive = Some(seconds_of(key, value, 0, KEEP_ALIVE_SECONDS_MAX)?);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Compares the addresses, `first` and the further ones, with each other and their bound.
    pub(super) fn check(&self, first: &Endpoint, port: u16) -> Result<(), AddressError> {
        let place = |endpoint: &Endpoint| (endpoint.host.clone(), endpoint.port.unwrap_or(port));
        let mut seen = vec![place(first)];
        for endpoint in &self.more {
            if seen.contains(&place(endpoint)) {
                return Err(AddressError::new(format!("path `{endpoint}` {SAME}")));
            }
            seen.push(place(endpoint));
        }
        if seen.len() > PATHS_MAX {
            return Err(AddressError::new(format!(
                "path is given {} times: must be at most {}, as there can be {PATHS_MAX} paths",
                self.more.len(),
                PATHS_MAX - 1
            )));
        }
        Ok(())
    }

    /// The times and the policy, those of `settings` where nothing else was chosen.
    #[must_use]
    pub fn settings(&self, settings: Settings) -> Settings {
        let seconds = |seconds: u32| Duration::from_secs(seconds.into());
        // `nvme connect` knows one pause, which does not grow.
        let delay = self.reconnect_delay.map(seconds);
        Settings {
            policy: self.policy.unwrap_or(settings.policy),
            controller_loss: self.controller_loss.map_or(settings.controller_loss, Limit::duration),
            fast_io_fail: self.fast_io_fail.map_or(settings.fast_io_fail, Limit::duration),
            reconnect_delay_min: delay.unwrap_or(settings.reconnect_delay_min),
            reconnect_delay_max: delay.unwrap_or(settings.reconnect_delay_max),
            keep_alive: self.keep_alive.map_or(settings.keep_alive, seconds),
            ..settings
        }
    }
}

fn path_of(value: &str) -> Result<Endpoint, AddressError> {
    let endpoint: Endpoint =
        value.parse().map_err(|error| AddressError::new(format!("path {error}")))?;
    match endpoint.port {
        Some(0) => Err(AddressError::new(format!(
            "path `{value}`: port 0 cannot be connected to; must be from 1 to 65535"
        ))),
        _ => Ok(endpoint),
    }
}

fn policy_of(value: &str) -> Result<PathPolicy, AddressError> {
    PathPolicy::of_name(value).ok_or_else(|| {
        AddressError::new(format!(
            "iopolicy `{value}`: must be {}",
            PathPolicy::ALL.map(PathPolicy::name).join(" or ")
        ))
    })
}

fn limit_of(key: &str, value: &str) -> Result<Limit, AddressError> {
    match value {
        "-1" => Ok(Limit::Never),
        _ => value.parse().map(Limit::Seconds).map_err(|_| {
            AddressError::new(format!(
                "{key} `{value}`: must be a number of seconds, or -1 for never"
            ))
        }),
    }
}

fn seconds_of(key: &str, value: &str, least: u32, most: u32) -> Result<u32, AddressError> {
    value.parse().ok().filter(|seconds| (least..=most).contains(seconds)).ok_or_else(|| {
        AddressError::new(format!(
            "{key} `{value}`: must be a number of seconds from {least} to {most}"
        ))
    })
}

/// As further parts of a query.
impl fmt::Display for PathChoices {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for endpoint in &self.more {
            // A zone of an IPv6 address begins with a percent sign.
            let endpoint = endpoint.to_string();
            write!(f, "&path={}", super::percent::encode(endpoint.as_bytes(), b"-._~:[]"))?;
        }
        if let Some(policy) = self.policy {
            write!(f, "&iopolicy={}", policy.name())?;
        }
        for (key, limit) in
            [("ctrl-loss-tmo", self.controller_loss), ("fast-io-fail-tmo", self.fast_io_fail)]
        {
            if let Some(limit) = limit {
                write!(f, "&{key}={limit}")?;
            }
        }
        for (key, seconds) in
            [("reconnect-delay", self.reconnect_delay), ("keep-alive-tmo", self.keep_alive)]
        {
            if let Some(seconds) = seconds {
                write!(f, "&{key}={seconds}")?;
            }
        }
        Ok(())
    }
}
