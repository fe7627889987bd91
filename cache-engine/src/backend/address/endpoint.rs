//! `HOST:PORT` as users write it: a name, an IPv4 address, or an IPv6 address in brackets.

use std::fmt;
use std::net::{Ipv6Addr, SocketAddr, ToSocketAddrs};
use std::str::FromStr;

use block_io::DeviceError;

use super::AddressError;

/// A host and perhaps a port, not yet resolved.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// Name or address; an IPv6 address without its brackets.
    pub host: String,
    /// The port, where one was written.
    pub port: Option<u16>,
}

impl Endpoint {
    /// The socket address: the first that the host's name resolves to, with `default_port` where
    /// none was written. Asks the system's resolver, so it may block.
    ///
    /// # Errors
    /// When the name does not resolve.
    pub fn resolve(&self, default_port: u16) -> Result<SocketAddr, DeviceError> {
        let port = self.port.unwrap_or(default_port);
        let mut found = (self.host.as_str(), port)
            .to_socket_addrs()
            .map_err(|error| DeviceError::with_source(format!("host `{}`", self.host), error))?;
        found
            .next()
            .ok_or_else(|| DeviceError::new(format!("host `{}`: has no address", self.host)))
    }
}

impl FromStr for Endpoint {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let wrong = |what: &str| {
            AddressError::new(format!(
                "`{text}`: {what}; write HOST, HOST:PORT or [IPV6]:PORT, such as 192.0.2.1:4420"
            ))
        };
        let (host, port) = if let Some(rest) = text.strip_prefix('[') {
            let (host, after) = rest.split_once(']').ok_or_else(|| wrong("`[` without `]`"))?;
            // A zone (fe80::1%eth0) is for the resolver to understand.
            let address = host.split_once('%').map_or(host, |(address, _)| address);
            if address.parse::<Ipv6Addr>().is_err() {
                return Err(wrong("what is in brackets is no IPv6 address"));
            }
            let port = match after {
                "" => None,
                _ => Some(after.strip_prefix(':').ok_or_else(|| wrong("text after `]`"))?),
            };
            (host, port)
        } else {
            match text.split_once(':') {
                Some((_, port)) if port.contains(':') => {
                    return Err(wrong("an IPv6 address must be in brackets"));
                }
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            }
        };
        if host.is_empty() {
            return Err(wrong("the host is missing"));
        }
        let strange = |c: char| c.is_whitespace() || c.is_control() || "/?#@[]".contains(c);
        if let Some(c) = host.chars().find(|c| strange(*c)) {
            return Err(wrong(&format!("the host contains {c:?}")));
        }
        let port = port
            .map(|port| match port.parse::<u16>() {
                Ok(number) if !port.starts_with('+') => Ok(number),
                _ => Err(wrong(&format!("port `{port}` must be a number from 0 to 65535"))),
            })
            .transpose()?;
        Ok(Self { host: host.to_owned(), port })
    }
}

impl From<SocketAddr> for Endpoint {
    fn from(address: SocketAddr) -> Self {
        Self { host: address.ip().to_string(), port: Some(address.port()) }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]", self.host)?;
        } else {
            f.write_str(&self.host)?;
        }
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn good_endpoints_and_back() {
        for (text, host, port) in [
            ("storage.example", "storage.example", None),
            ("storage:8009", "storage", Some(8009)),
            ("127.0.0.1:0", "127.0.0.1", Some(0)),
            ("[::1]", "::1", None),
            ("[2001:db8::7]:4420", "2001:db8::7", Some(4420)),
            ("[fe80::1%lo]:4420", "fe80::1%lo", Some(4420)),
        ] {
            let endpoint: Endpoint = text.parse().unwrap_or_else(|error| panic!("{error}"));
            assert_eq!((endpoint.host.as_str(), endpoint.port), (host, port));
            assert_eq!(endpoint.to_string(), text);
        }
    }

    #[test]
    fn bad_endpoints_are_told_what_would_be_right() {
        for (text, expected) in [
            ("", "host is missing"),
            (":4420", "host is missing"),
            ("host:", "port ``"),
            ("host:+1", "port `+1`"),
            ("host:65536", "port `65536`"),
            ("host:http", "port `http`"),
            ("::1", "in brackets"),
            ("[::1", "without `]`"),
            ("[::1]4420", "text after"),
            ("[localhost]:1", "no IPv6"),
            ("ho st:1", "contains ' '"),
            ("user@host:1", "contains '@'"),
        ] {
            let error = text.parse::<Endpoint>().expect_err(text).to_string();
            assert!(error.contains(expected), "{text}: {error}");
            assert!(error.contains(&format!("`{text}`")), "{text}: {error}");
        }
    }

    #[test]
    fn addresses_resolve_without_a_resolver() {
        let resolve = |text: &str| {
            text.parse::<Endpoint>().expect("good").resolve(4420).expect("an address").to_string()
        };
        assert_eq!(resolve("127.0.0.1"), "127.0.0.1:4420");
        assert_eq!(resolve("[::1]:8009"), "[::1]:8009");
    }
}
