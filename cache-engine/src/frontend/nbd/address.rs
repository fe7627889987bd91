//! Where an export is served, as the NBD project's URI specification writes it:
//! `nbd://HOST[:PORT]/NAME` and `nbd+unix:///NAME?socket=PATH`, names percent-encoded.
//!
//! Absent: `nbds:` (TLS) and `nbd+vsock:`, which are refused by name, and user names.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// The port that IANA gives to NBD.
pub const DEFAULT_PORT: u16 = 10809;
/// Bytes in a Unix socket's path. // Linux include/uapi/linux/un.h: UNIX_PATH_MAX with its NUL
const SOCKET_PATH_MAX: usize = 107;
/// Bytes in an export's name. //= NBD proto.md "Values"
const NAME_MAX: usize = 4096;

/// The way to a server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// TCP: a host name or address (IPv6 without brackets) and a port.
    Tcp {
        /// Name or address.
        host: String,
        /// Port; 0 lets the system choose when listening.
        port: u16,
    },
    /// A Unix domain socket at this path.
    Unix(PathBuf),
}

/// An export and the way to it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ExportAddress {
    /// The way to the server.
    pub transport: Transport,
    /// The export's name; empty for the server's default export.
    pub name: String,
}

/// What is wrong with a URI: the field, the value, and what would be right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AddressError(String);

impl fmt::Display for AddressError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for AddressError {}

impl ExportAddress {
    /// `name` on a Unix socket.
    pub fn unix(path: impl AsRef<Path>, name: impl Into<String>) -> Self {
        Self { transport: Transport::Unix(path.as_ref().to_owned()), name: name.into() }
    }

    /// `name` on a TCP port.
    pub fn tcp(host: impl Into<String>, port: u16, name: impl Into<String>) -> Self {
        Self { transport: Transport::Tcp { host: host.into(), port }, name: name.into() }
    }
}

impl FromStr for ExportAddress {
    type Err = AddressError;

    fn from_str(uri: &str) -> Result<Self, AddressError> {
        let wrong = |what: String| AddressError(format!("export '{uri}': {what}"));
        let (scheme, rest) = uri.split_once("://").ok_or_else(|| {
            wrong(
                "no scheme; write nbd://HOST[:10809]/NAME, nbd+unix:///NAME?socket=PATH or \
                 nvme+tcp://HOST[:4420]/SUBNQN"
                    .into(),
            )
        })?;
        if rest.contains('#') {
            return Err(wrong("a fragment ('#') means nothing here; write '%23' in a name".into()));
        }
        let (path, query) = match rest.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (rest, None),
        };
        let (authority, name) = path.split_once('/').unwrap_or((path, ""));
        let name = decode(name).map_err(|error| wrong(format!("name: {error}")))?;
        if name.len() > NAME_MAX {
            return Err(wrong(format!("name: {} bytes, at most {NAME_MAX}", name.len())));
        }
        let transport = match scheme {
            "nbd" => tcp(authority, query),
            "nbd+unix" => unix(authority, query),
            "nbds" | "nbds+unix" => Err(format!("scheme '{scheme}': TLS is not supported yet")),
            other => Err(format!("scheme '{other}': must be nbd, nbd+unix or nvme+tcp")),
        };
        Ok(Self { transport: transport.map_err(wrong)?, name })
    }
}

fn tcp(authority: &str, query: Option<&str>) -> Result<Transport, String> {
    if let Some(query) = query.filter(|query| !query.is_empty()) {
        return Err(format!("query '{query}': nbd:// takes none"));
    }
    if authority.contains('@') {
        return Err(format!("host '{authority}': a user name means nothing without TLS"));
    }
    let (host, port) = match authority.strip_prefix('[') {
        Some(bracketed) => {
            let (host, after) = bracketed
                .split_once(']')
                .ok_or_else(|| format!("host '{authority}': the bracket is not closed"))?;
            if host.parse::<std::net::Ipv6Addr>().is_err() {
                return Err(format!("host '[{host}]': not an IPv6 address"));
            }
            let port = after.strip_prefix(':');
            if port.is_none() && !after.is_empty() {
                return Err(format!("host '{authority}': only ':PORT' may follow the bracket"));
            }
            (host, port)
        }
        None => match authority.split_once(':') {
            Some((_, port)) if port.contains(':') => {
                return Err(format!("host '{authority}': write an IPv6 address in brackets"));
            }
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    if host.is_empty() {
        return Err("host: missing; write nbd://HOST[:10809]/NAME".into());
    }
    let port = match port {
        None | Some("") => DEFAULT_PORT,
        Some(port) => {
            port.parse().map_err(|_| format!("port '{port}': must be a number from 0 to 65535"))?
        }
    };
    Ok(Transport::Tcp { host: host.to_owned(), port })
}

fn unix(authority: &str, query: Option<&str>) -> Result<Transport, String> {
    if !authority.is_empty() {
        return Err(format!(
            "host '{authority}': a Unix socket has none; write nbd+unix:///NAME?socket=PATH \
             with three slashes"
        ));
    }
    let mut socket = None;
    for field in query.unwrap_or("").split('&').filter(|field| !field.is_empty()) {
        let (key, value) = field.split_once('=').unwrap_or((field, ""));
        if key != "socket" {
            return Err(format!("query key '{key}': only 'socket' is known"));
        }
        if socket.is_some() {
            return Err("socket: given twice".into());
        }
        socket = Some(decode(value).map_err(|error| format!("socket: {error}"))?);
    }
    match socket {
        None => Err("socket: missing; write nbd+unix:///NAME?socket=PATH".into()),
        Some(path) if path.is_empty() => Err("socket: the path is empty".into()),
        Some(path) if path.contains('\0') => Err("socket: the path has a NUL byte".into()),
        Some(path) if path.len() > SOCKET_PATH_MAX => Err(format!(
            "socket '{path}': {} bytes, a Unix socket's path has at most {SOCKET_PATH_MAX}",
            path.len()
        )),
        Some(path) => Ok(Transport::Unix(path.into())),
    }
}

/// Takes percent-encoding away. // RFC 3986 §2.1
fn decode(text: &str) -> Result<String, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || char::from(rest.next()?).to_digit(16);
        match (digit(), digit()) {
            (Some(high), Some(low)) => bytes.push((high << 4 | low) as u8),
            _ => return Err(format!("'{text}': two hexadecimal digits must follow '%'")),
        }
    }
    String::from_utf8(bytes).map_err(|_| format!("'{text}': not UTF-8 when decoded"))
}

/// Writes `text` with all but unreserved characters and those in `plain` percent-encoded.
fn encode(f: &mut fmt::Formatter<'_>, text: &str, plain: &[u8]) -> fmt::Result {
    for byte in text.bytes() {
        // RFC 3986 §2.3
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || plain.contains(&byte) {
            write!(f, "{}", char::from(byte))?;
        } else {
            write!(f, "%{byte:02X}")?;
        }
    }
    Ok(())
}

impl fmt::Display for ExportAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.transport {
            Transport::Tcp { host, port } => {
                let (open, close) = if host.contains(':') { ("[", "]") } else { ("", "") };
                write!(f, "nbd://{open}{host}{close}")?;
                if *port != DEFAULT_PORT {
                    write!(f, ":{port}")?;
                }
                f.write_str("/")?;
                encode(f, &self.name, b"/")
            }
            Transport::Unix(path) => {
                f.write_str("nbd+unix:///")?;
                encode(f, &self.name, b"/")?;
                f.write_str("?socket=")?;
                encode(f, &path.to_string_lossy(), b"/")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_written_the_same() {
        for (uri, address) in [
            ("nbd://localhost/", ExportAddress::tcp("localhost", 10809, "")),
            ("nbd://10.0.0.1:4000/disk", ExportAddress::tcp("10.0.0.1", 4000, "disk")),
            ("nbd://[::1]:0/a/b", ExportAddress::tcp("::1", 0, "a/b")),
            ("nbd://h/%20%3F%25", ExportAddress::tcp("h", 10809, " ?%")),
            ("nbd+unix:///?socket=/tmp/s", ExportAddress::unix("/tmp/s", "")),
            ("nbd+unix:///v%C3%A4?socket=a%26b", ExportAddress::unix("a&b", "vä")),
        ] {
            assert_eq!(uri.parse().as_ref(), Ok(&address));
            assert_eq!(address.to_string(), uri);
        }
        for (uri, same) in [
            ("nbd://localhost", "nbd://localhost/"),
            ("nbd://localhost:10809/x", "nbd://localhost/x"),
            ("nbd://localhost:/x?", "nbd://localhost/x"),
            ("nbd+unix://?socket=s", "nbd+unix:///?socket=s"),
        ] {
            assert_eq!(
                uri.parse::<ExportAddress>().map(|address| address.to_string()),
                Ok(same.into())
            );
        }
    }

    #[test]
    fn errors_name_the_field() {
        let long = format!("nbd+unix:///?socket=/{}", "x".repeat(107));
        let long_name = format!("nbd://h/{}", "x".repeat(4097));
        for (uri, expected) in [
            ("localhost:10809", "no scheme"),
            ("http://localhost/", "scheme 'http'"),
            ("nbds://localhost/", "scheme 'nbds': TLS"),
            ("nbd:///disk", "host: missing"),
            ("nbd://:10809/disk", "host: missing"),
            ("nbd://::1/disk", "in brackets"),
            ("nbd://[::1/disk", "not closed"),
            ("nbd://[::1]x/disk", "may follow the bracket"),
            ("nbd://[localhost]/disk", "not an IPv6 address"),
            ("nbd://me@h/disk", "user name"),
            ("nbd://h:65536/", "port '65536'"),
            ("nbd://h:-1/", "port '-1'"),
            ("nbd://h/x?socket=y", "query 'socket=y'"),
            ("nbd://h/x#y", "fragment"),
            ("nbd://h/%4", "name: '%4'"),
            ("nbd://h/%zz", "name: '%zz'"),
            ("nbd://h/%ff", "not UTF-8"),
            ("nbd+unix://disk?socket=/s", "three slashes"),
            ("nbd+unix:///disk", "socket: missing"),
            ("nbd+unix:///disk?socket=", "socket: the path is empty"),
            ("nbd+unix:///disk?socket=a&socket=b", "socket: given twice"),
            ("nbd+unix:///disk?socket=a&tls=b", "query key 'tls'"),
            ("nbd+unix:///disk?socket=a%00", "NUL"),
            (&long, "108 bytes"),
            (&long_name, "name: 4097 bytes"),
        ] {
            let error = uri.parse::<ExportAddress>().expect_err(uri).to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
