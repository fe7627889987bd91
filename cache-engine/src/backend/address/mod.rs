//! Where bytes live, as users write it: origin, namespace and cache URIs, sizes and endpoints.
//!
//! Pure: parsing and printing only, nothing is opened or resolved. What is printed parses back to
//! the same. Export URIs belong to their frontend.

mod endpoint;
pub mod nvme_paths;
mod nvme_tcp;
pub(crate) mod percent;
mod size;

pub use endpoint::Endpoint;
pub use nvme_tcp::{DISCOVERY_PORT, NVME_TCP_PORT, NvmeTcpAddress, PskIdentity};
pub use size::Size;

use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use block_io::SECTOR_SIZE;

/// Why a text is no address: it names the text and what would be right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressError {
    message: String,
}

impl AddressError {
    pub(crate) fn new(message: String) -> Self {
        Self { message }
    }
}

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for AddressError {}

/// Where an origin or a target's namespace keeps its bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum OriginAddress {
    /// A regular file or a block device.
    File(PathBuf),
    /// A RAM disk of this size, zeroed at the start and gone at the end.
    Memory(Size),
    /// Answers at once and keeps nothing.
    Null(Size),
    /// A namespace of a remote NVMe subsystem.
    NvmeTcp(NvmeTcpAddress),
}

/// Where the cache keeps its lines.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum CacheAddress {
    /// A block device, or a regular file.
    File(PathBuf),
    /// Memory of this process.
    Memory,
}

const ORIGIN_FORMS: &str = "file:PATH, memory:SIZE, null:SIZE or nvme+tcp://HOST[:4420]/SUBNQN";
const CACHE_FORMS: &str = "file:PATH or memory:";

impl FromStr for OriginAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let (scheme, rest) = split_scheme(text, ORIGIN_FORMS)?;
        match scheme {
            "file" => path_of(rest, text).map(Self::File),
            "memory" => device_size(rest, text).map(Self::Memory),
            "null" => device_size(rest, text).map(Self::Null),
            "nvme+tcp" => NvmeTcpAddress::parse(rest, text).map(Self::NvmeTcp),
            _ => Err(unknown_scheme(scheme, text, ORIGIN_FORMS)),
        }
    }
}

impl FromStr for CacheAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let (scheme, rest) = split_scheme(text, CACHE_FORMS)?;
        match (scheme, rest) {
            ("file", _) => path_of(rest, text).map(Self::File),
            ("memory", "") => Ok(Self::Memory),
            ("memory", _) => Err(AddressError::new(format!(
                "`{text}`: must be `memory:`; its size is given by --cache-size"
            ))),
            _ => Err(unknown_scheme(scheme, text, CACHE_FORMS)),
        }
    }
}

impl fmt::Display for OriginAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write_path(path, f),
            Self::Memory(size) => write!(f, "memory:{size}"),
            Self::Null(size) => write!(f, "null:{size}"),
            Self::NvmeTcp(address) => address.fmt(f),
        }
    }
}

impl fmt::Display for CacheAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write_path(path, f),
            Self::Memory => f.write_str("memory:"),
        }
    }
}

fn split_scheme<'text>(
    text: &'text str,
    forms: &str,
) -> Result<(&'text str, &'text str), AddressError> {
    text.split_once(':').ok_or_else(|| {
        let hint = if text.contains('/') {
            format!(" (did you mean file:{text} ?)")
        } else {
            String::new()
        };
        AddressError::new(format!("`{text}`: must be one of {forms}{hint}"))
    })
}

fn unknown_scheme(scheme: &str, text: &str, forms: &str) -> AddressError {
    AddressError::new(format!("`{text}`: unknown scheme `{scheme}`; must be one of {forms}"))
}

/// The path after `file:`, also in the long form `file:///abs/path` (RFC 8089 §2).
fn path_of(rest: &str, whole: &str) -> Result<PathBuf, AddressError> {
    if let Some((_, query)) = rest.split_once('?') {
        return Err(AddressError::new(format!(
            "`{whole}`: file: takes no query (`{query}`); write %3F for a question mark in a path"
        )));
    }
    let path = match rest.strip_prefix("//") {
        None => rest,
        Some(after) => {
            let host_end = after.find('/').unwrap_or(after.len());
            let (host, path) = after.split_at(host_end);
            if !host.is_empty() && host != "localhost" {
                return Err(AddressError::new(format!(
                    "`{whole}`: a file on host `{host}` cannot be opened; write file:PATH or \
                     file:///PATH"
                )));
            }
            path
        }
    };
    if path.is_empty() {
        return Err(AddressError::new(format!("`{whole}`: the path is missing; write file:PATH")));
    }
    let bytes = percent::decode(path, whole)?;
    Ok(PathBuf::from(OsString::from_vec(bytes)))
}

fn write_path(path: &Path, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let text = percent::encode(path.as_os_str().as_bytes(), b"/-._~:@!$&'()*+,;=");
    // A path that begins with two slashes would read as a host.
    let host = if text.starts_with("//") { "//" } else { "" };
    write!(f, "file:{host}{text}")
}

/// The size of a device that is made from nothing: whole sectors, at least one.
fn device_size(text: &str, whole: &str) -> Result<Size, AddressError> {
    let size: Size =
        text.parse().map_err(|error| AddressError::new(format!("`{whole}`: {error}")))?;
    if size.bytes() == 0 || !size.bytes().is_multiple_of(u64::from(SECTOR_SIZE)) {
        return Err(AddressError::new(format!(
            "`{whole}`: size {} must be a positive multiple of {SECTOR_SIZE} bytes",
            size.bytes()
        )));
    }
    Ok(size)
}

#[cfg(test)]
mod tests;
