//! Opening devices without stalling whoever is served: files are opened, names looked up, keys and
//! the host's name read on a thread; connections are made on the reactor, in turns that serve
//! everybody else.
//!
//! One thread at a time. One that hangs (a file on a server that is gone) keeps further devices
//! from being opened, and nobody from being served.

use std::net::{IpAddr, SocketAddr};
use std::thread::JoinHandle;

use block_io::device::file::{FileDevice, OpenOptions};
use block_io::reactor::{Mailbox, Reactor, Wait};
use block_io::{DeviceError, Timestamp};
use cache_engine::backend::address::{CacheAddress, Endpoint, OriginAddress, Size};
use cache_engine::backend::key_source::KeySource;
use cache_engine::backend::{Backend, connect_options};
use cache_engine::cache::cipher::VolumeKey;
use cache_engine::frontend::nbd::Transport;
use cache_engine::frontend::nbd::server::resolve;
use cache_engine::volume::attach::Turn;
use nvme_fabric::driver::{Addresses, ConnectOptions, NvmeTcpDevice};

/// Opens devices. See the module.
#[derive(Debug, Default)]
pub(super) struct Opener {
    thread: Option<JoinHandle<()>>,
}

/// What a thread finds out.
enum Found {
    File(FileDevice),
    /// A namespace: how to connect to it, and where.
    Namespace(Box<ConnectOptions>, Addresses),
    /// It is made in this process.
    Nothing,
}

impl Opener {
    /// Begins to do `work` on a thread.
    ///
    /// # Errors
    /// When the one before hangs, or there can be no thread.
    fn begin<Outcome: Send + 'static>(
        &mut self,
        reactor: &Reactor,
        work: impl FnOnce() -> Outcome + Send + 'static,
    ) -> Result<Mailbox<Outcome>, DeviceError> {
        if self.thread.as_ref().is_some_and(|thread| !thread.is_finished()) {
            return Err(DeviceError::new(
                "a device that was to be opened before does not answer; end the service if it \
                 never will",
            ));
        }
        let (sender, mailbox) = reactor.mailbox(1)?;
        let thread = std::thread::Builder::new().name("forebay-opening".to_owned());
        let begun = thread.spawn(move || {
            // Nobody waits for it any more when the service ends.
            let _ = sender.send(work());
        });
        let failed = |error| DeviceError::with_source("starting the thread forebay-opening", error);
        self.thread = Some(begun.map_err(failed)?);
        Ok(mailbox)
    }
}

/// Waits for what a thread found out.
fn wait_for<Outcome: Send>(
    mailbox: &Mailbox<Outcome>,
    turn: &mut Turn<'_>,
) -> Result<Outcome, DeviceError> {
    loop {
        if let Some(outcome) = mailbox.receive() {
            return Ok(outcome);
        }
        if mailbox.is_closed() {
            // It may have been sent just before.
            let lost = || DeviceError::new("the thread forebay-opening ended without an answer");
            return mailbox.receive().ok_or_else(lost);
        }
        turn(None)?;
    }
}

impl super::VolumeService {
    /// Opens an origin, and reads its key.
    ///
    /// # Errors
    /// When either can't be done, or the service ends meanwhile.
    pub(super) fn open_origin(
        &mut self,
        address: &OriginAddress,
        key: Option<KeySource>,
    ) -> Result<(Backend, Option<VolumeKey>), DeviceError> {
        let of_thread = address.clone();
        let work = move || -> Result<_, DeviceError> {
            let key = key.map(|source| source.read()).transpose()?;
            let found = match &of_thread {
                OriginAddress::File(path) => {
                    Found::File(FileDevice::open(path, OpenOptions::default())?)
                }
                OriginAddress::NvmeTcp(address) => {
                    let options = connect_options(address)?;
                    let addresses = NvmeTcpDevice::resolve(&options)?;
                    Found::Namespace(Box::new(options), addresses)
                }
                OriginAddress::Memory(_) | OriginAddress::Null(_) => Found::Nothing,
            };
            Ok((found, key))
        };
        let reactor = self.reactor.clone();
        let mailbox = self.opener.begin(&reactor, work)?;
        let (found, key) = wait_for(&mailbox, &mut |deadline| self.serve_until(deadline))??;
        let origin = match (found, address) {
            (Found::File(device), _) => Backend::File(device),
            (Found::Namespace(options, addresses), _) => {
                let turn = |wait| self.serve_for(wait);
                let device = NvmeTcpDevice::connect_with(&reactor, &options, addresses, turn)?;
                Backend::NvmeTcp(device)
            }
            _ => Backend::open(address, &reactor)?,
        };
        Ok((origin, key))
    }

    /// Opens a device for a cache's lines.
    ///
    /// # Errors
    /// See [`Backend::open_cache`]; and when the service ends meanwhile.
    pub(super) fn open_cache_device(
        &mut self,
        address: &CacheAddress,
        size: Option<Size>,
    ) -> Result<Backend, DeviceError> {
        let of_thread = address.clone();
        let work = move || match Backend::open_cache(&of_thread, size)? {
            Backend::File(device) => Ok(device),
            _ => Err(DeviceError::new(format!(
                "cache {of_thread}: must be a block device or a regular file"
            ))),
        };
        let mailbox = self.opener.begin(&self.reactor.clone(), work)?;
        wait_for(&mailbox, &mut |deadline| self.serve_until(deadline))?.map(Backend::File)
    }

    /// Looks up the name of the host that an export is to be served at, if it is one.
    ///
    /// # Errors
    /// When it is unknown, or the service ends meanwhile.
    pub(super) fn resolve_export(
        &mut self,
        transport: &Transport,
    ) -> Result<Option<SocketAddr>, DeviceError> {
        match transport {
            Transport::Tcp { host, .. } if host.parse::<IpAddr>().is_err() => {
                let of_thread = transport.clone();
                let work = move || resolve(&of_thread);
                let mailbox = self.opener.begin(&self.reactor.clone(), work)?;
                wait_for(&mailbox, &mut |deadline| self.serve_until(deadline))?
            }
            // No name is looked up for these.
            transport => resolve(transport),
        }
    }

    /// Looks up the name of the host that hosts are to be served at, if it is one.
    ///
    /// # Errors
    /// As [`resolve_export`](Self::resolve_export).
    pub(super) fn resolve_endpoint(
        &mut self,
        endpoint: &Endpoint,
        port: u16,
    ) -> Result<SocketAddr, DeviceError> {
        if endpoint.host.parse::<IpAddr>().is_ok() {
            return endpoint.resolve(port);
        }
        let of_thread = endpoint.clone();
        let work = move || of_thread.resolve(port);
        let mailbox = self.opener.begin(&self.reactor.clone(), work)?;
        wait_for(&mailbox, &mut |deadline| self.serve_until(deadline))?
    }

    /// As [`serve_until`](Self::serve_until), for a connection's driver.
    pub(super) fn serve_for(&mut self, wait: Wait) -> Result<Timestamp, DeviceError> {
        let now = self.reactor.now();
        self.serve_until(match wait {
            Wait::No => Some(now),
            Wait::ForEvent => None,
        })
    }
}
