//! Where a volume is served as a namespace: `nvme+tcp://HOST[:4420]/SUBNQN?nsid=1`. What is printed
//! is an origin for whoever connects to it.
//!
//! The frontend itself is [`nvme_fabric`]'s target, which serves any queue. Absent: keys of the
//! query that are a host's (digests, secrets, paths), which are refused; a list of hosts, TLS and
//! authentication, which `forebay target` has.

use std::fmt;
use std::str::FromStr;

use nvme_fabric::spec::nqn::Nqn;

use crate::backend::address::{AddressError, Endpoint, NVME_TCP_PORT, percent};

/// A subsystem with one namespace, and where it is listened for hosts.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NvmeTcpExport {
    /// Address and perhaps port of the listener; port 0 lets the system choose.
    pub endpoint: Endpoint,
    /// Name of the subsystem.
    pub subsystem: Nqn,
    /// Namespace identifier, from 1.
    pub namespace_id: u32,
}

impl NvmeTcpExport {
    /// The scheme, with what follows it.
    pub const SCHEME: &str = "nvme+tcp://";

    /// The port that is listened at; 0 where the system chooses.
    pub fn port(&self) -> u16 {
        self.endpoint.port.unwrap_or(NVME_TCP_PORT)
    }
}

impl FromStr for NvmeTcpExport {
    type Err = AddressError;

    fn from_str(uri: &str) -> Result<Self, AddressError> {
        let wrong = |what: &str| {
            AddressError::new(format!(
                "export '{}': {what}; write nvme+tcp://HOST[:{NVME_TCP_PORT}]/SUBNQN?nsid=1",
                uri.escape_debug()
            ))
        };
        let rest = uri.strip_prefix(Self::SCHEME);
        let rest = rest.ok_or_else(|| wrong("the scheme is another one"))?;
        let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (endpoint, name) =
            place.split_once('/').ok_or_else(|| wrong("the subsystem's NQN is missing"))?;
        let endpoint: Endpoint = endpoint.parse().map_err(|error| wrong(&format!("{error}")))?;
        let name = percent::decode(name, uri)?;
        let name = String::from_utf8(name).map_err(|_| wrong("the NQN must be UTF-8"))?;
        let subsystem = Nqn::new(&name).map_err(|error| wrong(&format!("NQN {error}")))?;
        if subsystem == Nqn::discovery() {
            return Err(wrong("the NQN is that of discovery services: must be another one"));
        }
        let mut namespace_id = None;
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            if key != "nsid" {
                return Err(wrong(&format!("query key '{key}': only 'nsid' is known")));
            }
            // NVMe Base 2.0 §3.2.1.1: 0 is no namespace and FFFFFFFFh is all of them.
            let number = value.parse().ok().filter(|number| (1..=NSID_MAX).contains(number));
            let number = number.ok_or_else(|| {
                wrong(&format!("nsid '{value}' must be a number from 1 to {NSID_MAX}"))
            })?;
            if namespace_id.replace(number).is_some() {
                return Err(wrong("nsid is given twice"));
            }
        }
        Ok(Self { endpoint, subsystem, namespace_id: namespace_id.unwrap_or(1) })
    }
}

const NSID_MAX: u32 = nvme_fabric::target::NAMESPACE_ID_MAX;

impl fmt::Display for NvmeTcpExport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = percent::encode(self.subsystem.as_str().as_bytes(), b"-._~:@!$'()*,;");
        write!(f, "{}{}/{name}?nsid={}", Self::SCHEME, self.endpoint, self.namespace_id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::address::OriginAddress;

    #[test]
    fn exports_are_read_written_the_same_and_are_origins() {
        for (text, host, port, namespace_id) in [
            ("nvme+tcp://127.0.0.1:4421/nqn.2014-08.org.example:a?nsid=1", "127.0.0.1", 4421, 1),
            ("nvme+tcp://[::]/nqn.2014-08.org.example:a?nsid=7", "::", 4420, 7),
        ] {
            let export: NvmeTcpExport = text.parse().expect("right");
            assert_eq!((export.endpoint.host.as_str(), export.port()), (host, port));
            assert_eq!((export.namespace_id, export.to_string().as_str()), (namespace_id, text));
            assert_eq!(text.parse::<OriginAddress>().expect("an origin").to_string(), text);
        }
        let short: NvmeTcpExport = "nvme+tcp://h:0/nqn.2014-08.x".parse().expect("right");
        assert_eq!((short.namespace_id, short.port()), (1, 0));
    }

    #[test]
    fn errors_name_the_field() {
        for (text, expected) in [
            ("nbd://h/x", "the scheme is another one"),
            ("nvme+tcp://h", "NQN is missing"),
            ("nvme+tcp://:1/nqn.2014-08.x", "the host is missing"),
            ("nvme+tcp://h/x", "NQN"),
            ("nvme+tcp://h/nqn.2014-08.org.nvmexpress.discovery", "that of discovery services"),
            ("nvme+tcp://h/nqn.2014-08.x?nsid=0", "nsid '0' must be a number from 1 to"),
            ("nvme+tcp://h/nqn.2014-08.x?nsid=x", "nsid 'x'"),
            ("nvme+tcp://h/nqn.2014-08.x?nsid=1&nsid=1", "given twice"),
            ("nvme+tcp://h/nqn.2014-08.x?hostnqn=y", "query key 'hostnqn'"),
            ("nvme+tcp://h/%ff", "UTF-8"),
            ("nvme+tcp://h/%zz", "hexadecimal"),
        ] {
            let error = text.parse::<NvmeTcpExport>().expect_err(text).to_string();
            assert!(error.contains(expected), "`{expected}` in {error}");
        }
    }
}
