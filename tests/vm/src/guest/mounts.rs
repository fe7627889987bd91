//! What a machine looks like to its cases: the usual file systems and the loopback interface.

use std::ffi::CStr;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use rustix::mount::{MountFlags, mount, mount_bind};

/// Where the starter's files are that something else was mounted over.
const HOST: &str = "/run/host";

/// Places that something else is mounted over.
const COVERED: &[&str] = &["/tmp", "/run", "/dev"];

/// Mounts everything and brings up loopback.
///
/// # Errors
/// What could not be done.
pub(super) fn set_up() -> Result<(), String> {
    let none = MountFlags::empty();
    for (kind, place, flags) in [
        ("proc", "/proc", none),
        ("sysfs", "/sys", none),
        ("devtmpfs", "/dev", none),
        ("tmpfs", "/run", none),
    ] {
        mount_one(kind, place, flags)?;
    }
    // Before the rest is mounted: a bind takes the one file system, and /tmp is still its own.
    create(HOST)?;
    mount_bind("/", HOST).map_err(|error| format!("mounting / at {HOST}: {error}"))?;
    create("/dev/shm")?;
    mount_one("tmpfs", "/dev/shm", none)?;
    mount_one("tmpfs", "/tmp", none)?;
    mount_configuration()?;
    // IFF_UP
    std::fs::write("/sys/class/net/lo/flags", "0x1")
        .map_err(|error| format!("bringing up loopback: {error}"))
}

/// Mounts what drivers are configured by, once one is there that is.
///
/// # Errors
/// When it cannot be mounted.
pub(super) fn mount_configuration() -> Result<(), String> {
    let place = "/sys/kernel/config";
    if !Path::new(place).is_dir() {
        return Ok(());
    }
    mount_one("configfs", place, MountFlags::empty())
}

fn create(folder: &str) -> Result<(), String> {
    std::fs::create_dir_all(folder).map_err(|error| format!("creating {folder}: {error}"))
}

fn mount_one(kind: &str, place: &str, flags: MountFlags) -> Result<(), String> {
    match mount(kind, place, kind, flags, None::<&CStr>) {
        // The kernel has done it itself.
        Ok(()) | Err(Errno::BUSY) => Ok(()),
        Err(error) => Err(format!("mounting {kind} at {place}: {error}")),
    }
}

/// Where inside of a machine the starter's `path` is.
pub(crate) fn inside(path: &Path) -> PathBuf {
    if COVERED.iter().any(|covered| path.starts_with(covered)) {
        let below = path.strip_prefix("/").unwrap_or(path);
        return Path::new(HOST).join(below);
    }
    path.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_covered_is_found_beside() {
        for (path, expected) in [
            ("/work/target/forebay", "/work/target/forebay"),
            ("/tmp/clone/target/forebay", "/run/host/tmp/clone/target/forebay"),
            ("/tmpfs/forebay", "/tmpfs/forebay"),
        ] {
            assert_eq!(inside(Path::new(path)), Path::new(expected));
        }
    }
}
