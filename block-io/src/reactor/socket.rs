//! Making sockets: TCP and Unix listeners and the sockets that clients connect with.
//!
//! Everything here is set-up and may block for moments; connecting, accepting and moving bytes are
//! a port's.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, getsockname, listen,
    socket_with, sockopt,
};

use super::Descriptor;
use crate::{DeviceError, IoError};

/// Where to connect to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SocketAddress {
    /// TCP over IPv4 or IPv6.
    Ip(SocketAddr),
    /// A Unix stream socket in the file system.
    Unix(PathBuf),
}

impl std::fmt::Display for SocketAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

impl SocketAddress {
    /// The family of sockets that can connect to it.
    pub fn family(&self) -> Family {
        match self {
            Self::Ip(SocketAddr::V4(_)) => Family::Ipv4,
            Self::Ip(SocketAddr::V6(_)) => Family::Ipv6,
            Self::Unix(_) => Family::Unix,
        }
    }

    /// Writes it the way the kernel wants it, and returns the length.
    pub(super) fn write_to(
        &self,
        place: &mut libc::sockaddr_storage,
    ) -> Result<libc::socklen_t, IoError> {
        match self {
            Self::Ip(SocketAddr::V4(address)) => Ok(put(
                place,
                libc::sockaddr_in {
                    sin_family: libc::AF_INET as libc::sa_family_t,
                    sin_port: address.port().to_be(),
                    sin_addr: libc::in_addr { s_addr: address.ip().to_bits().to_be() },
                    sin_zero: [0; 8],
                },
            )),
            Self::Ip(SocketAddr::V6(address)) => Ok(put(
                place,
                libc::sockaddr_in6 {
                    sin6_family: libc::AF_INET6 as libc::sa_family_t,
                    sin6_port: address.port().to_be(),
                    sin6_flowinfo: address.flowinfo(),
                    sin6_addr: libc::in6_addr { s6_addr: address.ip().octets() },
                    sin6_scope_id: address.scope_id(),
                },
            )),
            Self::Unix(path) => {
                let bytes = path.as_os_str().as_bytes();
                let mut address =
                    libc::sockaddr_un { sun_family: libc::AF_UNIX as u16, sun_path: [0; 108] };
                // One byte is left for the zero at the end; a zero within would cut the name.
                if bytes.is_empty() || bytes.len() >= address.sun_path.len() || bytes.contains(&0) {
                    return Err(IoError::InvalidArgument);
                }
                for (place, byte) in address.sun_path.iter_mut().zip(bytes) {
                    *place = *byte as libc::c_char;
                }
                Ok(put(place, address))
            }
        }
    }
}

fn put<Address>(place: &mut libc::sockaddr_storage, address: Address) -> libc::socklen_t {
    const { assert!(size_of::<Address>() <= size_of::<libc::sockaddr_storage>()) };
    const { assert!(align_of::<Address>() <= align_of::<libc::sockaddr_storage>()) };
    // SAFETY: the storage is large and aligned enough for the address, as just checked.
    unsafe { std::ptr::from_mut(place).cast::<Address>().write(address) };
    size_of::<Address>() as libc::socklen_t
}

/// Kinds of stream sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// TCP over IPv4.
    Ipv4,
    /// TCP over IPv6.
    Ipv6,
    /// Unix stream.
    Unix,
}

/// Connections that wait to be accepted, at most.
const BACKLOG: i32 = 1024;

fn stream_socket(family: Family) -> rustix::io::Result<OwnedFd> {
    let domain = match family {
        Family::Ipv4 => AddressFamily::INET,
        Family::Ipv6 => AddressFamily::INET6,
        Family::Unix => AddressFamily::UNIX,
    };
    socket_with(domain, SocketType::STREAM, SocketFlags::CLOEXEC, None)
}

/// A socket to connect with. TCP sockets send at once (`TCP_NODELAY`).
///
/// # Errors
/// When the system has no such family or no more descriptors.
pub fn stream(family: Family) -> Result<Descriptor, DeviceError> {
    let make = || -> rustix::io::Result<OwnedFd> {
        let socket = stream_socket(family)?;
        if family != Family::Unix {
            sockopt::set_tcp_nodelay(&socket, true)?;
        }
        Ok(socket)
    };
    make()
        .map(Descriptor::from)
        .map_err(|error| DeviceError::with_source(format!("making a {family:?} socket"), error))
}

/// A TCP socket to connect with, `TCP_NODELAY` set.
///
/// # Errors
/// As [`stream`]; also when the family is not TCP's.
pub fn tcp_socket(family: Family) -> Result<Descriptor, DeviceError> {
    if family == Family::Unix {
        return Err(DeviceError::new("TCP socket family Unix: must be Ipv4 or Ipv6"));
    }
    stream(family)
}

/// How long sent bytes may stay unacknowledged by the peer's machine before the kernel gives a TCP
/// connection up (`TCP_USER_TIMEOUT`), to the millisecond. Zero leaves it to the kernel.
///
/// # Errors
/// When the socket is not TCP's.
pub fn set_user_timeout(socket: &Descriptor, timeout: Duration) -> Result<(), DeviceError> {
    let milliseconds = u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX);
    sockopt::set_tcp_user_timeout(socket, milliseconds)
        .map_err(|error| DeviceError::with_source("setting TCP_USER_TIMEOUT", error))
}

/// Has the connection reset when the socket is closed: what the kernel has not sent by then it
/// drops, where it would otherwise go on trying for minutes.
///
/// # Errors
/// When it is no socket.
pub fn reset_on_close(socket: &Descriptor) -> Result<(), DeviceError> {
    sockopt::set_socket_linger(socket, Some(Duration::ZERO))
        .map_err(|error| DeviceError::with_source("setting SO_LINGER", error))
}

/// A TCP listener, and the address it got: with port 0 the kernel chooses one. Accepted sockets
/// inherit its `TCP_NODELAY`.
///
/// # Errors
/// When the address is in use or not this machine's.
pub fn listen_tcp(address: SocketAddr) -> Result<(Descriptor, SocketAddr), DeviceError> {
    let family = SocketAddress::Ip(address).family();
    let make = || -> rustix::io::Result<(OwnedFd, SocketAddr)> {
        let socket = stream_socket(family)?;
        // A restart need not wait for old connections' TIME_WAIT.
        sockopt::set_socket_reuseaddr(&socket, true)?;
        sockopt::set_tcp_nodelay(&socket, true)?;
        bind(&socket, &address)?;
        listen(&socket, BACKLOG)?;
        let bound = SocketAddr::try_from(getsockname(&socket)?)?;
        Ok((socket, bound))
    };
    make()
        .map(|(socket, bound)| (Descriptor::from(socket), bound))
        .map_err(|error| DeviceError::with_source(format!("listening on {address}"), error))
}

/// A Unix stream listener at `path`. A socket file that nobody listens on any more is replaced;
/// anything else that is there is left alone. The file stays when the listener is closed.
///
/// # Errors
/// When the path is too long, is something else's, is listened on, or cannot be written.
pub fn listen_unix(path: &Path) -> Result<Descriptor, DeviceError> {
    let failed = |error| {
        DeviceError::with_source(format!("listening on Unix socket {}", path.display()), error)
    };
    let address = SocketAddrUnix::new(path).map_err(|_| {
        let length = path.as_os_str().len();
        let path = path.display();
        DeviceError::new(format!(
            "Unix socket {path}: the path has {length} bytes, but 1 to 107 without a zero byte fit"
        ))
    })?;
    let socket = stream_socket(Family::Unix).map_err(failed)?;
    match bind(&socket, &address) {
        Err(rustix::io::Errno::ADDRINUSE) => {
            remove_stale(path, &address)?;
            bind(&socket, &address).map_err(failed)?;
        }
        result => result.map_err(failed)?,
    }
    listen(&socket, BACKLOG).map_err(failed)?;
    Ok(Descriptor::from(socket))
}

/// Removes the socket file at `path` if nobody listens on it.
fn remove_stale(path: &Path, address: &SocketAddrUnix) -> Result<(), DeviceError> {
    use std::os::unix::fs::FileTypeExt;
    let shown = path.display();
    let failed = |error: std::io::Error| {
        DeviceError::with_source(format!("Unix socket {shown}: looking at what is there"), error)
    };
    let kind = std::fs::symlink_metadata(path).map_err(failed)?.file_type();
    if !kind.is_socket() {
        return Err(DeviceError::new(format!(
            "Unix socket {shown}: the path exists and is not a socket; remove it or choose another"
        )));
    }
    let probe = stream_socket(Family::Unix).map_err(|error| failed(error.into()))?;
    // A full backlog must not make this wait: it, too, means that somebody listens.
    rustix::io::ioctl_fionbio(&probe, true).map_err(|error| failed(error.into()))?;
    match connect(&probe, address) {
        Err(rustix::io::Errno::CONNREFUSED) => std::fs::remove_file(path).map_err(failed),
        _ => Err(DeviceError::new(format!(
            "Unix socket {shown}: another process listens on it; stop it or choose another path"
        ))),
    }
}
