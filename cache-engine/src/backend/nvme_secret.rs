//! Secrets of NVMe in-band authentication, in files that only their owner may read.
//!
//! A secret is never a word of the command line or of a URI, which every user of the machine can
//! read. Memory that held one is overwritten, and no error shows any of it.

use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use block_io::DeviceError;
use nvme_fabric::auth::secret::TEXT_LENGTH_MAX;
use nvme_fabric::auth::{Keys, Secret};
use zeroize::Zeroizing;

/// The longest that is read: a secret, blanks or a newline, and what would be too much.
const READ_MAX: usize = TEXT_LENGTH_MAX + 8;

/// The keys of these files: the host's secret, and the controller's where there is one.
///
/// # Errors
/// Which file cannot be used, and why.
pub fn keys_of(host: &Path, controller: Option<&Path>) -> Result<Keys, DeviceError> {
    let keys = Keys::new(read(host)?);
    Ok(match controller {
        Some(path) => keys.with_controller(read(path)?),
        None => keys,
    })
}

/// The secret in a file.
///
/// # Errors
/// When it cannot be read, others than its owner may read or write it, or it holds no secret.
pub fn read(path: &Path) -> Result<Secret, DeviceError> {
    let failed = |attempt: &str, error: io::Error| {
        DeviceError::with_source(format!("secret {}: {attempt}", path.display()), error)
    };
    // A pipe without a writer would be waited for, a terminal taken over.
    let flags = rustix::fs::OFlags::NOCTTY | rustix::fs::OFlags::NONBLOCK;
    let mut file = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits() as i32)
        .open(path)
        .map_err(|error| failed("opening it", error))?;
    let metadata = file.metadata().map_err(|error| failed("looking at it", error))?;
    let refused = |what: String| DeviceError::new(format!("secret {}: {what}", path.display()));
    if !metadata.is_file() {
        return Err(refused("is no file".to_owned()));
    }
    let mode = metadata.mode() & 0o777;
    if mode & 0o066 != 0 {
        return Err(refused(format!(
            "its mode {mode:03o} lets others than its owner at it; use chmod 600"
        )));
    }
    let mut bytes = Zeroizing::new([0; READ_MAX]);
    let mut length = 0;
    while length < READ_MAX {
        match file.read(&mut bytes[length..]) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(failed("reading it", error)),
        }
    }
    if length == READ_MAX {
        return Err(refused(format!("{READ_MAX} bytes or more: longer than any secret")));
    }
    let text = std::str::from_utf8(&bytes[..length]);
    let text = text.map_err(|_| refused("must be text, DHHC-1:…:".to_owned()))?;
    Secret::parse(text)
        .map_err(|error| DeviceError::with_source(format!("secret {}", path.display()), error))
}

/// Writes a secret to a new file that only its owner may read.
///
/// # Errors
/// When there is a file already, or it cannot be written.
pub fn write_new(path: &Path, secret: &Secret) -> Result<(), DeviceError> {
    let failed =
        |error| DeviceError::with_source(format!("writing secret {}", path.display()), error);
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    let mut file = file.map_err(failed)?;
    let text = secret.text();
    let written = file.write_all(text.as_bytes()).and_then(|()| file.write_all(b"\n"));
    written.and_then(|()| file.sync_all()).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    /// From nvme-cli's manual page.
    const KNOWN: &str = "DHHC-1:00:ia6zGodOr4SEG0Zzaw398rpY0wqipUWj4jWjUh4HWUz6aQ2n:";

    fn read_of(content: &str, mode: u32) -> Result<Secret, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        read(&path).map_err(|error| format!("{error:#} {error:?}"))
    }

    #[test]
    fn a_secret_is_read_with_and_without_a_newline() {
        assert_eq!(*read_of(KNOWN, 0o600).unwrap().text(), KNOWN);
        assert_eq!(*read_of(&format!("{KNOWN}\n"), 0o400).unwrap().text(), KNOWN);
    }

    #[test]
    fn a_file_that_is_wrong_is_refused_without_showing_any_of_it() {
        for (content, mode, what) in [
            (KNOWN.to_owned(), 0o640, "mode 640"),
            (KNOWN.to_owned(), 0o604, "mode 604"),
            (KNOWN.replace("ia6", "ib6"), 0o600, "CRC-32"),
            (KNOWN.repeat(3), 0o600, "longer than any secret"),
            (String::new(), 0o600, "DHHC-1:"),
        ] {
            let error = read_of(&content, mode).unwrap_err();
            assert!(error.contains(what), "{error}");
            assert!(!error.contains("zGod"), "{error}");
        }
        assert!(read(Path::new("/")).is_err());
    }

    #[test]
    fn a_new_file_is_its_owners_and_replaces_none() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        let secret = Secret::parse(KNOWN).unwrap();
        write_new(&path, &secret).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(*read(&path).unwrap().text(), KNOWN);
        assert!(write_new(&path, &secret).is_err());
    }
}
