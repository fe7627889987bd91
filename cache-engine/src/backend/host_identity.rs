//! What this machine calls itself as an NVMe host: its name (hostnqn) and identifier (hostid), one
//! pair for every connection, the same after each start.
//!
//! ```text
//!   option ▷ /etc/nvme/hostnqn ▷ STATE/hostnqn ▷ made: the UUID of /etc/nvme/hostid, of the
//!   firmware (DMI), of the machine (/etc/machine-id), or a random one; then kept
//!   option ▷ /etc/nvme/hostid ▷ STATE/hostid ▷ the UUID in the name ▷ derived from the name
//! ```
//! The files of /etc/nvme are nvme-cli's, so that the kernel's host and this one are one host. Root
//! makes them where they are absent, as nvme-cli's packages do; others, and whoever has said where
//! the state directory is, keep them there. A file comes into being whole or not at all, and the
//! first of several processes wins. What a file holds must be right: to pass over a damaged one
//! would be to connect as somebody else.
//!
//! Absent: a host's symbolic name, and its keys.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use block_io::DeviceError;
use nvme_fabric::spec::nqn::{HostId, Nqn};

use super::attachment::{STATE_DIRECTORY_VARIABLE, StateDirectory};
use super::identity::Machine;

/// What a name made from a UUID begins with. NVMe Base 2.0 §4.5.
const UUID_PREFIX: &str = "nqn.2014-08.org.nvmexpress:uuid:";

/// A name and an identifier are shorter than this; what follows in a file is not looked at.
const LENGTH_MAX: u64 = 1024;

/// Who this machine is among NVMe hosts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostIdentity {
    /// HOSTNQN.
    pub nqn: Nqn,
    /// HOSTID.
    pub id: HostId,
    /// Where the name comes from, for people.
    pub nqn_source: String,
    /// Where the identifier comes from, for people.
    pub id_source: String,
    /// What a person should know about the two.
    pub notices: Vec<String>,
}

/// What a user has chosen instead of what the machine has.
#[derive(Clone, Copy, Debug, Default)]
pub struct HostChoice<'chosen> {
    /// HOSTNQN.
    pub nqn: Option<&'chosen Nqn>,
    /// HOSTID.
    pub id: Option<HostId>,
}

/// Where names are looked for and kept.
#[derive(Clone, Debug)]
struct Places {
    /// nvme-cli's folder.
    nvme: PathBuf,
    may_make_there: bool,
    /// The state directory, where there is one.
    state: Option<PathBuf>,
    /// The firmware's UUID.
    firmware: PathBuf,
}

impl HostIdentity {
    /// This machine's. A name that is made is kept, where that is possible.
    ///
    /// # Errors
    /// When a file that is there does not hold a name or an identifier; it is named, with what
    /// would be right.
    pub fn of_this_machine(choice: HostChoice<'_>) -> Result<Self, DeviceError> {
        let is_root = rustix::process::geteuid().is_root();
        let places = Places {
            nvme: "/etc/nvme".into(),
            may_make_there: is_root && std::env::var_os(STATE_DIRECTORY_VARIABLE).is_none(),
            state: StateDirectory::of_this_process().ok().map(|state| state.path().to_owned()),
            firmware: "/sys/class/dmi/id/product_uuid".into(),
        };
        find(choice, &places, &Machine::this())
    }
}

/// A value and where it comes from.
struct Found<Value> {
    value: Value,
    source: String,
}

fn find(
    choice: HostChoice<'_>,
    places: &Places,
    machine: &Machine,
) -> Result<HostIdentity, DeviceError> {
    let mut notices = Vec::new();
    let folders = || [Some(&places.nvme), places.state.as_ref()].into_iter().flatten();
    let kept_nqn = first(folders(), "hostnqn", parse_name, &mut notices)?;
    let kept_id = first(folders(), "hostid", parse_id, &mut notices)?;
    let is_of_kept =
        |nqn: &Nqn| kept_nqn.as_ref().is_none_or(|kept: &Found<Nqn>| kept.value == *nqn);
    let chosen = choice.nqn;
    let id_of_kept = kept_id.filter(|_| chosen.is_none_or(is_of_kept));
    let nqn = match (chosen, kept_nqn) {
        (Some(name), _) => Found { value: name.clone(), source: "the option".to_owned() },
        (None, Some(kept)) => kept,
        (None, None) => {
            make(places, machine, id_of_kept.as_ref().map(|id| id.value), &mut notices)?
        }
    };
    let id = match (choice.id, id_of_kept) {
        (Some(value), _) => Found { value, source: "the option".to_owned() },
        (None, Some(kept)) => kept,
        (None, None) => id_of(&nqn.value, machine),
    };
    if id.value.is_zero() {
        return Err(DeviceError::new(format!("hostid {}: must not be zero", id.value)));
    }
    if let Some(uuid) = uuid_in(&nqn.value).filter(|uuid| *uuid != id.value) {
        notices.push(format!(
            "hostid {} ({}) is not the UUID in hostnqn {} ({}): targets that know this host by \
             {uuid} may refuse it",
            id.value, id.source, nqn.value, nqn.source
        ));
    }
    let (nqn_source, id_source) = (nqn.source, id.source);
    Ok(HostIdentity { nqn: nqn.value, id: id.value, nqn_source, id_source, notices })
}

/// The identifier of a name that has none of its own.
fn id_of(nqn: &Nqn, machine: &Machine) -> Found<HostId> {
    match uuid_in(nqn) {
        Some(value) => Found { value, source: "the UUID in the name".to_owned() },
        None => {
            let value = machine.identifier(nqn.as_str());
            Found { value, source: "derived from the name and this machine".to_owned() }
        }
    }
}

fn uuid_in(nqn: &Nqn) -> Option<HostId> {
    let uuid: HostId = nqn.as_str().strip_prefix(UUID_PREFIX)?.parse().ok()?;
    (!uuid.is_zero()).then_some(uuid)
}

/// A new name, kept where that is possible. Where another process keeps one at the same time, it is
/// the other's.
fn make(
    places: &Places,
    machine: &Machine,
    kept_id: Option<HostId>,
    notices: &mut Vec<String>,
) -> Result<Found<Nqn>, DeviceError> {
    let (uuid, source) = match (kept_id, firmware_uuid(&places.firmware)) {
        (Some(id), _) => (id, "hostid"),
        (None, Some(uuid)) => (uuid, "the firmware's UUID"),
        (None, None) => (machine.identifier("forebay host"), "this machine's identifier"),
    };
    let is_lasting = source != "this machine's identifier" || machine.is_lasting();
    let nqn = Nqn::from_uuid(uuid);
    let etc = places.may_make_there.then_some(&places.nvme);
    let mut failures = Vec::new();
    for folder in [etc, places.state.as_ref()].into_iter().flatten() {
        let path = folder.join("hostnqn");
        match keep(folder, "hostnqn", nqn.as_str()) {
            Ok(()) => {
                if let Some(found) = read(&path, parse_name)? {
                    keep_id(folder, &found, kept_id, notices);
                    return Ok(Found { value: found, source: shown(&path) });
                }
            }
            Err(error) => failures.push(format!("{}: {error}", path.display())),
        }
    }
    if !is_lasting {
        let why = if failures.is_empty() { "no place".to_owned() } else { failures.join(", ") };
        notices.push(format!(
            "hostnqn {nqn} is kept nowhere ({why}) and this machine has no identifier: it is \
             another host after each start"
        ));
    }
    Ok(Found { value: nqn, source: format!("made from {source}") })
}

/// Keeps the identifier beside its name, for whoever reads that file alone.
fn keep_id(folder: &Path, nqn: &Nqn, kept: Option<HostId>, notices: &mut Vec<String>) {
    if let (Some(uuid), None) = (uuid_in(nqn), kept)
        && let Err(error) = keep(folder, "hostid", &uuid.to_string())
    {
        notices.push(format!("{}: {error}", folder.join("hostid").display()));
    }
}

/// Makes a file with a line, for all to read, unless it is there.
fn keep(folder: &Path, name: &str, line: &str) -> io::Result<()> {
    let path = folder.join(name);
    if path.exists() {
        return Ok(());
    }
    fs::DirBuilder::new().recursive(true).mode(0o755).create(folder)?;
    let draft = folder.join(format!(".{name}.{}", std::process::id()));
    let _ = fs::remove_file(&draft);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(&draft)?;
    // The mode above is less what the process's mask takes away.
    let written = file
        .set_permissions(Permissions::from_mode(0o644))
        .and_then(|()| writeln!(file, "{line}"))
        .and_then(|()| file.sync_all())
        // Unlike a rename, a link leaves what is there.
        .and_then(|()| match fs::hard_link(&draft, &path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            linked => linked,
        });
    fs::remove_file(&draft)?;
    written?;
    File::open(folder)?.sync_all()
}

fn first<'folder, Value>(
    folders: impl Iterator<Item = &'folder PathBuf>,
    name: &str,
    parse: impl Fn(&str) -> Result<Value, String>,
    notices: &mut Vec<String>,
) -> Result<Option<Found<Value>>, DeviceError> {
    for folder in folders {
        let path = folder.join(name);
        match read(&path, &parse) {
            Ok(Some(value)) => return Ok(Some(Found { value, source: shown(&path) })),
            Ok(None) => {}
            Err(Fault::Unreadable(error)) => notices.push(error.to_string()),
            Err(Fault::Wrong(error)) => return Err(error),
        }
    }
    Ok(None)
}

/// Why a file tells nothing.
enum Fault {
    Unreadable(DeviceError),
    Wrong(DeviceError),
}

impl From<Fault> for DeviceError {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Unreadable(error) | Fault::Wrong(error) => error,
        }
    }
}

/// What the first line of a file says; none where there is no file, or nothing in it.
fn read<Value>(
    path: &Path,
    parse: impl Fn(&str) -> Result<Value, String>,
) -> Result<Option<Value>, Fault> {
    let mut bytes = Vec::new();
    match File::open(path).and_then(|file| file.take(LENGTH_MAX).read_to_end(&mut bytes)) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            let what = format!("reading {}", path.display());
            return Err(Fault::Unreadable(DeviceError::with_source(what, error)));
        }
    }
    let text = String::from_utf8_lossy(&bytes);
    let line = text.lines().next().unwrap_or_default().trim();
    if line.is_empty() {
        return Ok(None);
    }
    let wrong = |what| Fault::Wrong(DeviceError::new(format!("{}: {what}", path.display())));
    parse(line).map(Some).map_err(wrong)
}

fn parse_name(line: &str) -> Result<Nqn, String> {
    Nqn::new(line).map_err(|error| error.to_string())
}

fn parse_id(line: &str) -> Result<HostId, String> {
    let id: HostId = line.parse().map_err(|error| format!("{error}"))?;
    if id.is_zero() { Err(format!("\"{line}\": must not be zero")) } else { Ok(id) }
}

/// The UUID that firmware gives the machine, unless it is one that stands for none. DMTF SMBIOS 3.0
/// §7.2.1: all zeroes is "not set", all ones "not present, but can be set".
fn firmware_uuid(path: &Path) -> Option<HostId> {
    let uuid = read(path, parse_id).ok().flatten()?;
    (uuid.0 != [0xff; 16]).then_some(uuid)
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

#[cfg(test)]
#[path = "host_identity/tests.rs"]
mod tests;
