//! TLS keys from a file, which only its owner may read: a host's own, or those of a target's hosts.
//!
//! ```text
//!   # one key a line; a line without a host's name is for any host that reads this file
//!   NVMeTLSkey-1:01:…:
//!   nqn.2014-08.org.example:host NVMeTLSkey-1:01:…:
//! ```
//! No message shows any of a key, and memory that held one is overwritten.
//!
//! Absent: descriptors and key servers; the kernel's keyring.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use block_io::DeviceError;
use nvme_fabric::spec::nqn::Nqn;
use nvme_fabric::tls::{ConfiguredPsk, HostTls, Identities, IdentityVersion};
use zeroize::Zeroizing;

use super::address::PskIdentity;

/// Most bytes of a file of keys: of hundreds of hosts.
const LENGTH_MAX: usize = 256 << 10;

/// A key and whose it is, where the file says so.
type Entry = (Option<Nqn>, ConfiguredPsk);

/// The key in `file` that `host` connects with: the line with its name, else the one without any.
///
/// # Errors
/// When the file is not there, open to others, or has no such key.
pub fn host_tls(file: &Path, identity: PskIdentity, host: &Nqn) -> Result<HostTls, DeviceError> {
    let entries = read(file)?;
    let named = entries.iter().find(|(name, _)| name.as_ref() == Some(host));
    let (_, psk) = named
        .or_else(|| entries.iter().find(|(name, _)| name.is_none()))
        .ok_or_else(|| wrong(file, &format!("it has no key for the host {host}")))?;
    let identities = match identity {
        PskIdentity::Both => Identities::Both,
        PskIdentity::Zero => Identities::Only(IdentityVersion::Zero),
        PskIdentity::One => Identities::Only(IdentityVersion::One),
    };
    Ok(HostTls { psk: psk.clone(), identities })
}

/// The keys of a target's hosts.
///
/// # Errors
/// When the file is not there, open to others, has no keys, or one without a host's name.
pub fn hosts_keys(file: &Path) -> Result<Vec<(Nqn, ConfiguredPsk)>, DeviceError> {
    let named = |(host, psk): Entry| {
        let what = "at a target each line must be HOSTNQN NVMeTLSkey-1:…, and one has no HOSTNQN";
        host.map(|host| (host, psk)).ok_or_else(|| wrong(file, what))
    };
    read(file)?.into_iter().map(named).collect()
}

fn read(path: &Path) -> Result<Vec<Entry>, DeviceError> {
    let failed = |error| DeviceError::with_source(format!("TLS keys {}", path.display()), error);
    // Opening a pipe would wait for its writer.
    let flags = (rustix::fs::OFlags::NOCTTY | rustix::fs::OFlags::NONBLOCK).bits() as i32;
    let file = File::options().read(true).custom_flags(flags).open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(wrong(path, "must be a file"));
    }
    let mode = metadata.mode() & 0o777;
    if mode & 0o066 != 0 {
        let what = format!("its mode {mode:03o} lets others than its owner at it; use chmod 600");
        return Err(wrong(path, &what));
    }
    // All of it at once: a buffer that grows leaves copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(LENGTH_MAX + 1));
    file.take(LENGTH_MAX as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() > LENGTH_MAX {
        return Err(wrong(path, &format!("it has more than {LENGTH_MAX} bytes")));
    }
    let text = std::str::from_utf8(&bytes).map_err(|_| wrong(path, "must be UTF-8"))?;
    let entries = parse(text).map_err(|what| wrong(path, &what))?;
    if entries.is_empty() {
        return Err(wrong(path, "it has no key"));
    }
    Ok(entries)
}

fn parse(text: &str) -> Result<Vec<Entry>, String> {
    let mut entries = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let at_line = |what: &dyn std::fmt::Display| format!("line {number}: {what}");
        let (host, key) = match line.split_once(char::is_whitespace) {
            Some((host, key)) => {
                // Only a name is repeated: what is none may be a key in the wrong place.
                let host = Nqn::new(host).map_err(|_| {
                    at_line(&"what stands before the key is no NVMe qualified name")
                })?;
                (Some(host), key)
            }
            None => (None, line),
        };
        let key = ConfiguredPsk::parse(key).map_err(|error| at_line(&error))?;
        if entries.iter().any(|(other, _): &Entry| *other == host) {
            return Err(at_line(&"a second key for the same host"));
        }
        entries.push((host, key));
    }
    Ok(entries)
}

fn wrong(path: &Path, what: &str) -> DeviceError {
    DeviceError::new(format!("TLS keys {}: {what}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;

    const KEY: &str = "NVMeTLSkey-1:01:VRLbtnN9AQb2WXW3c9+wEf/DRLz0QuLdbYvEhwtdWwNf9LrZ:";
    const OTHER: &str = "NVMeTLSkey-1:00:VRLbtnN9AQb2WXW3c9+wEf/DRLz0QuLdbYvEhwtdWwNf9LrZ:";

    fn file(content: &str, mode: u32) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(content.as_bytes()).unwrap();
        file.as_file().set_permissions(std::fs::Permissions::from_mode(mode)).unwrap();
        file
    }

    fn nqn(name: &str) -> Nqn {
        Nqn::new(&format!("nqn.2014-08.x:{name}")).unwrap()
    }

    #[test]
    fn a_host_finds_its_own_key_before_the_one_for_all() {
        let text = format!("# keys\n\n{OTHER}\nnqn.2014-08.x:a  {KEY}\n");
        let keys = file(&text, 0o600);
        let key = |name| host_tls(keys.path(), PskIdentity::Zero, &nqn(name)).unwrap();
        assert_eq!(key("a").psk, ConfiguredPsk::parse(KEY).unwrap());
        assert_eq!(key("b").psk, ConfiguredPsk::parse(OTHER).unwrap());
        assert_eq!(key("b").identities, Identities::Only(IdentityVersion::Zero));
        let error = hosts_keys(keys.path()).unwrap_err().to_string();
        assert!(error.contains("HOSTNQN"), "{error}");
        let keys = file(&format!("nqn.2014-08.x:a {KEY}"), 0o400);
        assert_eq!(hosts_keys(keys.path()).unwrap().len(), 1);
        let error = host_tls(keys.path(), PskIdentity::Both, &nqn("b")).unwrap_err().to_string();
        assert!(error.contains("no key for the host nqn.2014-08.x:b"), "{error}");
    }

    #[test]
    fn a_file_that_is_no_place_for_keys_is_refused_without_any_of_it() {
        let cases = [
            (KEY.to_owned(), 0o640, "chmod 600"),
            (String::new(), 0o600, "no key"),
            (format!("{KEY}\n{KEY}"), 0o600, "line 2: a second key"),
            (format!("{KEY} nqn.2014-08.x:a"), 0o600, "line 1: what stands before"),
            (format!("nqn.2014-08.x:a {}", &KEY[..40]), 0o600, "line 1: the last `:`"),
            ("# \n".repeat(LENGTH_MAX / 2), 0o600, "more than"),
        ];
        for (text, mode, expected) in cases {
            let keys = file(&text, mode);
            let error = host_tls(keys.path(), PskIdentity::Both, &nqn("a")).unwrap_err();
            let error = error.to_string();
            assert!(error.contains(expected), "{error}");
            assert!(!error.contains("VRL"), "{error}");
        }
    }
}
