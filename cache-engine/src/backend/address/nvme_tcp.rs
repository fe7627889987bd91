//! `nvme+tcp://HOST[:4420]/SUBNQN?nsid=1`: a namespace of a subsystem reached over TCP.
//!
//! The scheme is our own; NVMe itself gives transports and names but no URI.

use std::fmt;

pub use nvme_fabric::driver::discover::DISCOVERY_PORT;
pub use nvme_fabric::driver::namespace_device::PORT as NVME_TCP_PORT;
use nvme_fabric::spec::nqn::{HostId, Nqn};

use super::{AddressError, Endpoint, percent};

/// The query keys that are understood.
const KEYS: &str = "nsid, hdgst, ddgst, hostnqn, hostid";

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
    pub const fn new(endpoint: Endpoint, subsystem: Nqn) -> Self {
        Self {
            endpoint,
            subsystem,
            namespace: 1,
            header_digest: false,
            data_digest: false,
            host: None,
            host_id: None,
        }
    }

    fn apply_query(&mut self, query: Option<&str>, whole: &str) -> Result<(), AddressError> {
        let mut seen = Vec::new();
        let pairs = query.into_iter().flat_map(|query| query.split('&'));
        for pair in pairs.filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').ok_or_else(|| {
                AddressError::new(format!("`{whole}`: query `{pair}` must be KEY=VALUE"))
            })?;
            if seen.contains(&key) {
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
                _ => {
                    return Err(AddressError::new(format!(
                        "`{whole}`: unknown query key `{key}`; known are {KEYS}"
                    )));
                }
            }
        }
        Ok(())
    }
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
        self.host_id.map_or(Ok(()), |id| write!(f, "&hostid={id}"))
    }
}
