//! A listening socket, and its file's removal.

use std::net::{SocketAddr, ToSocketAddrs};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use block_io::DeviceError;
use block_io::reactor::{Descriptor, Port, Reactor, socket};

use crate::frontend::nbd::address::Transport;

/// Removes its socket file when dropped.
#[derive(Debug)]
pub(super) struct Listener {
    pub(super) asked: Transport,
    /// Where it really listens.
    pub(super) bound: Transport,
    pub(super) socket: Descriptor,
    /// For its accepts, which end with it.
    pub(super) port: Port,
    /// Whether an accept, or a pause after one that failed, is under way.
    pub(super) is_waiting: bool,
    _file: Option<SocketFile>,
}

impl Listener {
    pub(super) fn open(
        reactor: &Reactor,
        transport: &Transport,
        address: Option<SocketAddr>,
    ) -> Result<Self, DeviceError> {
        let (socket, bound, file) = match transport {
            Transport::Tcp { host, port } => {
                let address = address.map_or_else(|| first_address(host, *port), Ok)?;
                let (socket, address) = socket::listen_tcp(address)?;
                let bound = Transport::Tcp { host: host.clone(), port: address.port() };
                (socket, bound, None)
            }
            Transport::Unix(path) => {
                let socket = socket::listen_unix(path)?;
                (socket, transport.clone(), SocketFile::at(path.clone()))
            }
        };
        Ok(Self {
            asked: transport.clone(),
            bound,
            socket,
            port: reactor.open_port(),
            is_waiting: false,
            _file: file,
        })
    }
}

impl Drop for Listener {
    /// Refuses clients at once: an accept keeps the socket open until the reactor has got it back.
    fn drop(&mut self) {
        // It cannot fail on a listening socket, and if it did clients would wait a little longer.
        let _ = rustix::net::shutdown(&self.socket, rustix::net::Shutdown::Both);
    }
}

/// The address that will be listened at, where there is one. Blocks for as long as looking up a
/// host's name takes; a thread of its own can do it.
///
/// # Errors
/// When the host is unknown.
pub fn resolve(transport: &Transport) -> Result<Option<SocketAddr>, DeviceError> {
    match transport {
        Transport::Tcp { host, port } => first_address(host, *port).map(Some),
        Transport::Unix(_) => Ok(None),
    }
}

/// The first address of a host.
fn first_address(host: &str, port: u16) -> Result<SocketAddr, DeviceError> {
    let mut addresses = (host, port).to_socket_addrs().map_err(|error| {
        DeviceError::with_source(format!("host '{host}': looking up its address"), error)
    })?;
    addresses.next().ok_or_else(|| DeviceError::new(format!("host '{host}': has no address")))
}

/// The name of a Unix socket in the file system.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    /// Device and inode: what may be at the path later need not be ours.
    identity: (u64, u64),
}

impl SocketFile {
    fn at(path: PathBuf) -> Option<Self> {
        let identity = identity(&path)?;
        Some(Self { path, identity })
    }
}

fn identity(path: &std::path::Path) -> Option<(u64, u64)> {
    let metadata = std::fs::symlink_metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path) == Some(self.identity) {
            // Nothing is lost when it stays: the next listener there replaces a dead socket.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}
