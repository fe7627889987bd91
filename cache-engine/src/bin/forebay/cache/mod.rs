//! `forebay cache`: what can be done with a cache device while no cache runs on it.
//!
//! The device is opened as a running cache opens it, so one that is in use is refused. Absent:
//! anything that a running cache could be asked.

mod check;
mod format;
mod inspect;

use block_io::reactor::{Reactor, ReactorConfig, Wait};
use block_io::{BlockDevice, DeviceError, Timestamp};
use cache_engine::backend::address::{CacheAddress, Size};
use cache_engine::backend::{Backend, BackendQueue};
use cache_engine::cache::metadata::Superblock;
use cache_engine::cache::metadata::probe::Probe;
use cache_engine::volume::cache_device;

use crate::arguments::CacheVerb;
use crate::failure::Failure;
use crate::output;

/// Runs the verb.
///
/// # Errors
/// When the device is in use, is no cache, fails, or is found to be damaged.
pub(crate) fn run(verb: &CacheVerb) -> Result<(), Failure> {
    match verb {
        CacheVerb::Format(arguments) => format::run(arguments),
        CacheVerb::Inspect(arguments) => inspect::run(arguments),
        CacheVerb::Check(arguments) => check::run(arguments),
        CacheVerb::Replace(arguments) => crate::control_verbs::replace(arguments),
    }
}

/// A cache device that is open for this command alone.
struct OpenDevice {
    name: String,
    reactor: Reactor,
    queue: BackendQueue,
}

impl OpenDevice {
    fn open(address: &CacheAddress, size: Option<Size>) -> Result<Self, Failure> {
        let reactor = Reactor::new(ReactorConfig::default())?;
        let backend = Backend::open_cache(address, size)?;
        backend.notice().into_iter().for_each(output::notice);
        let queue = backend.open_queue(&reactor, 1)?;
        let name = match address {
            CacheAddress::File(path) => path.display().to_string(),
            CacheAddress::Memory => address.to_string(),
        };
        Ok(Self { name, reactor, queue })
    }

    /// Its superblock, or what the device is instead.
    fn superblock(&mut self) -> Result<Superblock, Failure> {
        let reactor = &self.reactor;
        let probe = cache_device::open(&mut self.queue, reactor.pool(), || turn(reactor))?;
        let name = &self.name;
        Err(Failure::new(match probe {
            Probe::Ours(superblock) => return Ok(*superblock),
            Probe::Zeroed => format!("{name}: is unused; make a cache with `forebay cache format`"),
            Probe::Older { version, .. } => format!(
                "{name}: is a Forebay cache of format version {version}, which records no lines; \
                 it is upgraded when it is used or formatted"
            ),
            Probe::Foreign(what) => format!("{name}: holds {what}"),
        }))
    }
}

/// Lets the reactor wait for what is in flight.
fn turn(reactor: &Reactor) -> Result<Timestamp, DeviceError> {
    reactor.turn(Wait::ForEvent)?;
    Ok(reactor.now())
}
