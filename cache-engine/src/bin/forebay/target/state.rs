//! What calls have changed of a target, for after a restart: a file of JSON that is replaced as a
//! whole with every change.
//!
//! ```text
//!   configuration ──┐
//!                   ├─▶ plan        what a call changed holds, over what the file configures
//!   state ──────────┘
//! ```
//! Absent: when it is written ([`super::managed`]). Nothing secret is in it.

use std::collections::BTreeMap;
use std::path::Path;

use block_io::DeviceError;
use serde::{Deserialize, Serialize};

/// Version of the file's form. A file of another one is refused.
const VERSION: u32 = 1;

/// The most bytes of a file: a volume takes a few hundred.
const LENGTH_MAX: u64 = 64 << 20;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct State {
    version: u32,
    /// By NQN.
    pub(super) subsystems: BTreeMap<String, SubsystemState>,
    /// By name.
    pub(super) volumes: BTreeMap<String, VolumeState>,
}

/// What calls have changed of a subsystem.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SubsystemState {
    /// A call has made it; otherwise it is configured.
    pub(super) is_made: bool,
    /// Hosts that may connect; absent: as configured.
    pub(super) hosts: Option<Vec<String>>,
    /// States of access groups, by group; those not named are as configured.
    pub(super) access: BTreeMap<u32, String>,
    /// NSIDs below were given out.
    pub(super) next_namespace_id: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct VolumeState {
    /// Absent for a snapshot.
    pub(super) served: Option<ServedState>,
    /// The volume or snapshot that it began as.
    pub(super) from: Option<String>,
    /// Its removal has begun, and goes on with the next start.
    pub(super) is_deleted: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ServedState {
    pub(super) subsystem: String,
    pub(super) namespace_id: u32,
    pub(super) uuid: String,
    pub(super) access_group: u32,
}

impl Default for State {
    fn default() -> Self {
        Self { version: VERSION, subsystems: BTreeMap::new(), volumes: BTreeMap::new() }
    }
}

impl State {
    /// Reads the file at `path`; where there is none, nothing was changed.
    ///
    /// # Errors
    /// When it cannot be read or makes no sense.
    pub(super) fn read(path: &Path) -> Result<Self, DeviceError> {
        let shown = path.display();
        let failed = |error| DeviceError::with_source(format!("state {shown}: reading it"), error);
        match std::fs::metadata(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Self::default());
            }
            Err(error) => return Err(failed(error)),
            Ok(found) if !found.is_file() || found.len() > LENGTH_MAX => {
                return Err(DeviceError::new(format!(
                    "state {shown}: must be a regular file of at most {LENGTH_MAX} bytes"
                )));
            }
            Ok(_) => {}
        }
        let text = std::fs::read_to_string(path).map_err(failed)?;
        Self::parse(&text).map_err(|error| DeviceError::new(format!("state {shown}: {error}")))
    }

    fn parse(text: &str) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        let advice = "must be as a forebay wrote it";
        let wrong = |error: serde_json::Error| format!("{error}; {advice}");
        let Version { version } = serde_json::from_str(text).map_err(wrong)?;
        if version != VERSION {
            return Err(format!(
                "version is {version}: must be {VERSION}; another forebay has written it"
            ));
        }
        serde_json::from_str(text).map_err(wrong)
    }

    /// The text of the file.
    pub(super) fn text(&self) -> Result<String, DeviceError> {
        let text = serde_json::to_string_pretty(self);
        text.map_err(|error| DeviceError::with_source("the state as JSON", error))
    }

    /// What calls have changed of the subsystem; to be changed further.
    pub(super) fn subsystem(&mut self, nqn: &str) -> &mut SubsystemState {
        self.subsystems.entry(nqn.to_owned()).or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let mut state = State::default();
        let subsystem = state.subsystem("nqn.2014-08.org.example:a");
        subsystem.hosts = Some(vec!["nqn.2014-08.org.example:host".into()]);
        subsystem.access.insert(1, "inaccessible".into());
        let served = ServedState {
            subsystem: "nqn.2014-08.org.example:a".into(),
            namespace_id: 3,
            uuid: "0".into(),
            access_group: 1,
        };
        let volume = VolumeState { served: Some(served), from: None, is_deleted: false };
        state.volumes.insert("pg".into(), volume);
        let text = state.text().expect("JSON");
        assert_eq!(State::parse(&text), Ok(state));
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("state");
        assert_eq!(State::read(&path).expect("nothing yet"), State::default());
        std::fs::write(&path, text.replace("pg", "vm")).expect("written");
        assert!(State::read(&path).expect("right").volumes.contains_key("vm"));
        assert!(State::read(folder.path()).is_err(), "a folder");
    }

    #[test]
    fn a_file_that_makes_no_sense_is_refused_and_told_why() {
        let good = State::default().text().expect("JSON");
        for (text, expected) in [
            (String::new(), "EOF"),
            ("{}".to_owned(), "missing field `version`"),
            (good.replace('1', "2"), "version is 2: must be 1"),
            (good.replace("volumes", "volume"), "unknown field `volume`"),
            (good[..good.len() - 2].to_owned(), "EOF"),
        ] {
            let error = State::parse(&text).expect_err(&text);
            assert!(error.contains(expected), "`{expected}` in {error}");
        }
    }
}
