//! `nvme+tcp://HOST[:4420]/SUBNQN?nsid=1`: a namespace of a subsystem reached over TCP.
//!
//! Secrets are named by their files, never written here. Further addresses of the same subsystem
//! and what is done when one is lost: [`super::nvme_paths`].
//!
//! The scheme is our own; NVMe itself gives transports and names but no URI.

use std::fmt;
use std::path::PathBuf;

pub use nvme_fabric::driver::discover::DISCOVERY_PORT;
pub use nvme_fabric::driver::namespace_device::PORT as NVME_TCP_PORT;
use nvme_fabric::spec::nqn::{HostId, Nqn};

use super::nvme_paths::PathChoices;
use super::{AddressError, Endpoint, percent};

/// The query keys that are understood.
const KEYS: &str = "nsid, hdgst, ddgst, hostnqn, hostid, pskfile, pskid, \
                    dhchap-secret-file, dhchap-ctrl-secret-file, dhchap-repeat, concat";

/// Which identity a TLS key goes by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum PskIdentity {
    /// Both versions, the target chooses.
    #[default]
    Both,
    /// Version 0 only.
    Zero,
    /// Version 1 only.
    One,
}

/// A namespace of a remote subsystem, and how to connect to it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NvmeTcpAddress {
    /// Host and perhaps port of the controller.
    pub endpoint: Endpoint,
    /// NVMe qualified name of the subsystem.
    pub subsystem: Nqn,
    /// Namespace identifier, from 1.
    pub namespace: u32,
    /// Ask for header digests (CRC-32C of each PDU's header).
    pub header_digest: bool,
    /// Ask for data digests (CRC-32C of each PDU's data).
    pub data_digest: bool,
    /// The name that this host gives itself, where it should not be the standard one.
    pub host: Option<Nqn>,
    /// The identifier that goes with it, where it should not be the standard one.
    pub host_id: Option<HostId>,
    /// The file with the TLS key; connections are plain without.
    pub psk_file: Option<PathBuf>,
    /// Which identity the key goes by.
    pub psk_identity: PskIdentity,
    /// The file with the secret by which this host proves itself (DH-HMAC-CHAP).
    pub secret_file: Option<PathBuf>,
    /// The file with the secret by which the controller must prove itself.
    pub controller_secret_file: Option<PathBuf>,
    /// Seconds after which every queue is authenticated again; absent for never.
    pub authentication_seconds: Option<u32>,
    /// Further paths, and how long each thing may take.
    pub paths: Box<PathChoices>,
    /// Authentication generates a key, and everything else goes over TLS with it.
    pub concatenate: bool,
}

impl NvmeTcpAddress {
    /// Parses what follows `nvme+tcp:`; `whole` is the URI for messages.
    pub(super) fn parse(rest: &str, whole: &str) -> Result<Self, AddressError> {
        let wrong = |what: &str| {
            AddressError::new(format!(
                "`{whole}`: {what}; write nvme+tcp://HOST[:{NVME_TCP_PORT}]/SUBNQN?nsid=1"
            ))
        };
        let rest = rest.strip_prefix("//").ok_or_else(|| wrong("`//HOST` is missing"))?;
        let (rest, query) = match rest.split_once('?') {
            Some((rest, query)) => (rest, Some(query)),
            None => (rest, None),
        };
        let (endpoint, subsystem) =
            rest.split_once('/').ok_or_else(|| wrong("the subsystem's NQN is missing"))?;
        let endpoint: Endpoint = endpoint.parse().map_err(|error| wrong(&format!("{error}")))?;
        if endpoint.port == Some(0) {
            return Err(wrong("port 0 cannot be connected to"));
        }
        let subsystem = nqn_of("subsystem NQN", &name_of(subsystem, whole)?, whole)?;
        let mut address = Self::new(endpoint, subsystem);
        address.apply_query(query, whole)?;
        Ok(address)
    }

    /// Namespace 1 of `subsystem` at `endpoint`, without digests.
    pub fn new(endpoint: Endpoint, subsystem: Nqn) -> Self {
        Self {
            endpoint,
            subsystem,
            namespace: 1,
            header_digest: false,
            data_digest: false,
            host: None,
            host_id: None,
            psk_file: None,
            psk_identity: PskIdentity::Both,
            secret_file: None,
            controller_secret_file: None,
            authentication_seconds: None,
            paths: Box::default(),
            concatenate: false,
        }
    }

    fn apply_query(&mut self, query: Option<&str>, whole: &str) -> Result<(), AddressError> {
        let within = |error: AddressError| AddressError::new(format!("`{whole}`: {error}"));
        let mut seen = Vec::new();
        let pairs = query.into_iter().flat_map(|query| query.split('&'));
        for pair in pairs.filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').ok_or_else(|| {
                AddressError::new(format!("`{whole}`: query `{pair}` must be KEY=VALUE"))
            })?;
            if seen.contains(&key) && key != "path" {
                return Err(AddressError::new(format!("`{whole}`: `{key}` is given twice")));
            }
            seen.push(key);
            let value = name_of(value, whole)?;
            match key {
                "nsid" => self.namespace = namespace_of(&value, whole)?,
                "hdgst" => self.header_digest = switch_of(key, &value, whole)?,
                "ddgst" => self.data_digest = switch_of(key, &value, whole)?,
                "hostnqn" => self.host = Some(nqn_of(key, &value, whole)?),
                "hostid" => self.host_id = Some(host_id_of(&value, whole)?),
                "pskfile" => self.psk_file = Some(file_of(&value, whole)?),
                "pskid" => self.psk_identity = identity_of(&value, whole)?,
                "dhchap-secret-file" => self.secret_file = Some(path_of(key, value, whole)?),
                "dhchap-ctrl-secret-file" => {
                    self.controller_secret_file = Some(path_of(key, value, whole)?);
                }
                "concat" => self.concatenate = switch_of(key, &value, whole)?,
                "dhchap-repeat" => {
                    self.authentication_seconds = Some(seconds_of(&value, whole)?);
                }
                _ if self.paths.apply(key, &value).map_err(within)? => {}
                _ => {
                    return Err(AddressError::new(format!(
                        "`{whole}`: unknown query key `{key}`; known are {KEYS}, {}",
                        PathChoices::KEYS
                    )));
                }
            }
        }
        self.paths.check(&self.endpoint, NVME_TCP_PORT).map_err(within)?;
        if self.psk_file.is_none() && seen.contains(&"pskid") {
            return Err(AddressError::new(format!(
                "`{whole}`: pskid says how a key is named, and pskfile, which holds it, is missing"
            )));
        }
        if self.secret_file.is_none()
            && (self.controller_secret_file.is_some()
                || self.authentication_seconds.is_some()
                || self.concatenate)
        {
            return Err(AddressError::new(format!(
                "`{whole}`: authentication needs `dhchap-secret-file`, the host's secret"
            )));
        }
        if self.psk_file.is_some() && self.concatenate {
            return Err(AddressError::new(format!(
                "`{whole}`: pskfile is a key for TLS, and concat makes one: must be one of them"
            )));
        }
        Ok(())
    }
}

fn file_of(value: &str, whole: &str) -> Result<PathBuf, AddressError> {
    if value.starts_with('/') {
        return Ok(PathBuf::from(value));
    }
    // What was given may be the key itself, put there by mistake: it is not repeated.
    let (before, _) = whole.split_once('?').unwrap_or((whole, ""));
    Err(AddressError::new(format!(
        "`{before}`: pskfile must be the absolute path of a file with the key, never the key"
    )))
}

fn identity_of(value: &str, whole: &str) -> Result<PskIdentity, AddressError> {
    match value {
        "both" => Ok(PskIdentity::Both),
        "0" => Ok(PskIdentity::Zero),
        "1" => Ok(PskIdentity::One),
        _ => Err(AddressError::new(format!("`{whole}`: pskid `{value}` must be 0, 1 or both"))),
    }
}

/// A file's path. What was given may be a secret itself, put there by mistake: it is not repeated.
fn path_of(key: &str, value: String, whole: &str) -> Result<PathBuf, AddressError> {
    if value.starts_with("DHHC-1") {
        return Err(AddressError::new(format!(
            "{key}: must be the path of a file with the secret; everybody on this machine can see \
             what is written here"
        )));
    }
    if value.is_empty() {
        return Err(AddressError::new(format!("`{whole}`: {key} is empty: must be a path")));
    }
    Ok(PathBuf::from(value))
}

fn seconds_of(value: &str, whole: &str) -> Result<u32, AddressError> {
    value.parse().ok().filter(|seconds| *seconds > 0).ok_or_else(|| {
        AddressError::new(format!(
            "`{whole}`: dhchap-repeat `{value}` must be a number of seconds, from 1"
        ))
    })
}

fn nqn_of(field: &str, value: &str, whole: &str) -> Result<Nqn, AddressError> {
    Nqn::new(value).map_err(|error| AddressError::new(format!("`{whole}`: {field} {error}")))
}

fn host_id_of(value: &str, whole: &str) -> Result<HostId, AddressError> {
    let wrong = |what: &str| AddressError::new(format!("`{whole}`: hostid {what}"));
    let id: HostId = value.parse().map_err(|error| wrong(&format!("{error}")))?;
    if id.is_zero() { Err(wrong("must not be zero")) } else { Ok(id) }
}

fn name_of(text: &str, whole: &str) -> Result<String, AddressError> {
    String::from_utf8(percent::decode(text, whole)?)
        .map_err(|_| AddressError::new(format!("`{whole}`: `{text}` must be UTF-8")))
}

fn namespace_of(value: &str, whole: &str) -> Result<u32, AddressError> {
    // NVMe Base 2.0 §3.2.1.1: 0 is no namespace and FFFFFFFFh is all of them.
    match value.parse() {
        Ok(number @ 1..=0xFFFF_FFFE) => Ok(number),
        _ => Err(AddressError::new(format!(
            "`{whole}`: nsid `{value}` must be a number from 1 to 4294967294"
        ))),
    }
}

fn switch_of(key: &str, value: &str, whole: &str) -> Result<bool, AddressError> {
    match value {
        "1" | "on" | "true" | "yes" => Ok(true),
        "0" | "off" | "false" | "no" => Ok(false),
        _ => Err(AddressError::new(format!("`{whole}`: {key} `{value}` must be on or off"))),
    }
}

impl fmt::Display for NvmeTcpAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = |name: &Nqn| percent::encode(name.as_str().as_bytes(), b"-._~:@!$'()*,;");
        let subsystem = name(&self.subsystem);
        write!(f, "nvme+tcp://{}/{subsystem}?nsid={}", self.endpoint, self.namespace)?;
        if self.header_digest {
            f.write_str("&hdgst=on")?;
        }
        if self.data_digest {
            f.write_str("&ddgst=on")?;
        }
        if let Some(host) = &self.host {
            write!(f, "&hostnqn={}", name(host))?;
        }
        if let Some(id) = self.host_id {
            write!(f, "&hostid={id}")?;
        }
        if let Some(file) = &self.psk_file {
            let file = percent::encode(file.as_os_str().as_encoded_bytes(), b"-._~:@!$'()*,;/");
            write!(f, "&pskfile={file}")?;
        }
        match self.psk_identity {
            PskIdentity::Both => {}
            PskIdentity::Zero => f.write_str("&pskid=0")?,
            PskIdentity::One => f.write_str("&pskid=1")?,
        }
        for (key, path) in [
            ("dhchap-secret-file", &self.secret_file),
            ("dhchap-ctrl-secret-file", &self.controller_secret_file),
        ] {
            if let Some(path) = path {
                let path = percent::encode(path.as_os_str().as_encoded_bytes(), b"-._~:@/");
                write!(f, "&{key}={path}")?;
            }
        }
        if let Some(every) = self.authentication_seconds {
            write!(f, "&dhchap-repeat={every}")?;
        }
        if self.concatenate {
            f.write_str("&concat=on")?;
        }
        self.paths.fmt(f)
    }
}
