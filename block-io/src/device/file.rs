//! A regular file or a block device as a device, through the reactor.
//!
//! `open` looks at the target and decides what it can do: O_DIRECT where the target allows it, the
//! page cache and a notice where not. `queue` carries requests.
//!
//! Blocks are always 512 bytes; what is smaller than the medium's own blocks is read and written
//! back with its surroundings. A target that has grown is used up to its new end once
//! [`FileDevice::take_growth`] was called. Absent: growing it, and noticing that by itself.

mod open;
mod queue;
#[cfg(test)]
mod tests;

pub use open::OpenOptions;
pub use queue::FileQueue;

use std::fs::{File, Metadata};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::reactor::{Descriptor, Reactor};
use crate::{BlockDevice, DeviceError, Geometry};

/// The device. Cheap to clone and `Send`; clones are the same open file, and every core opens its
/// own queue on one.
#[derive(Clone, Debug)]
pub struct FileDevice {
    opened: Arc<Opened>,
}

/// An open target and what was found out about it.
#[derive(Debug)]
struct Opened {
    path: PathBuf,
    /// Through the page cache; used where there is no direct I/O. Holds the lock on the file.
    buffered: OwnedFd,
    direct: Option<Direct>,
    /// As it was opened.
    geometry: Geometry,
    /// Bytes that can be reached: those of the geometry, or more.
    capacity: AtomicU64,
    /// As it was before anything was tried on it.
    found: Metadata,
    notice: Option<String>,
    /// A queue is open that must be the only one.
    sole_queue: AtomicBool,
}

/// The way around the page cache, and what it asks of requests.
#[derive(Debug)]
struct Direct {
    file: OwnedFd,
    alignment: Alignment,
}

/// What direct I/O asks of a request, in bytes; powers of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Alignment {
    /// Of the address in memory.
    memory: usize,
    /// Of offset and length on the device.
    offset: u64,
}

impl FileDevice {
    /// Opens the file or block device at `path`.
    ///
    /// # Errors
    /// When it is missing (and not to be created), is neither a regular file nor a block device,
    /// has a size that is not a positive multiple of 512, may not be opened, or is in use.
    pub fn open(path: impl AsRef<Path>, options: OpenOptions) -> Result<Self, DeviceError> {
        let opened = open::open(path.as_ref(), &options)?;
        Ok(Self { opened: Arc::new(opened) })
    }

    /// What a user should know about how the target is used, such as that it refused direct I/O.
    pub fn notice(&self) -> Option<&str> {
        self.opened.notice.as_deref()
    }

    /// Whether aligned requests go around the page cache.
    pub fn is_direct(&self) -> bool {
        self.opened.direct.is_some()
    }

    /// What the file system said of the target when it was opened. Opening for writing tries what
    /// it can do, which counts as a change on many file systems; this is from before.
    pub fn metadata_when_opened(&self) -> &Metadata {
        &self.opened.found
    }

    /// What the file system says of the open target now, whatever is at the path.
    ///
    /// # Errors
    /// When it cannot be asked.
    pub fn metadata(&self) -> Result<Metadata, DeviceError> {
        let path = self.opened.path.display();
        let file = self.opened.buffered.try_clone().map(File::from);
        file.and_then(|file| file.metadata())
            .map_err(|error| DeviceError::with_source(format!("{path}: looking at it"), error))
    }

    /// A queue that refuses all but reads. Any number of them may be open beside the queue that
    /// writes, whatever the medium's blocks.
    ///
    /// # Errors
    /// When the depth is out of range or there are no more descriptors.
    pub fn open_reading_queue(
        &self,
        reactor: &Reactor,
        depth: usize,
    ) -> Result<FileQueue, DeviceError> {
        self.queue(reactor, depth, true)
    }

    fn queue(
        &self,
        reactor: &Reactor,
        depth: usize,
        only_reads: bool,
    ) -> Result<FileQueue, DeviceError> {
        let path = self.opened.path.display();
        if depth == 0 || depth > usize::from(u16::MAX) {
            let most = u16::MAX;
            return Err(DeviceError::new(format!(
                "{path}: queue depth {depth}: must be from 1 to {most}"
            )));
        }
        let file = self.opened.direct.as_ref().map_or(&self.opened.buffered, |direct| &direct.file);
        let file = file
            .try_clone()
            .map_err(|error| DeviceError::with_source(format!("{path}: opening a queue"), error))?;
        let file = Descriptor::from(file);
        reactor.register(&file);
        Ok(FileQueue::new(Arc::clone(&self.opened), reactor, file, depth, only_reads))
    }

    /// Bytes that the open target has now. If they are more than before, every queue of the device
    /// reaches them from now on; if less, requests beyond its end fail there.
    ///
    /// # Errors
    /// When it cannot be asked, or has grown to a size that no device can have.
    pub fn take_growth(&self) -> Result<u64, DeviceError> {
        let opened = &self.opened;
        let path = opened.path.display();
        let size = rustix::fs::seek(&opened.buffered, rustix::fs::SeekFrom::End(0))
            .map_err(|error| DeviceError::with_source(format!("{path}: asking its size"), error))?;
        if size <= opened.capacity() {
            return Ok(size);
        }
        let block = opened.alignment().offset.max(u64::from(crate::SECTOR_SIZE));
        if !size.is_multiple_of(block) || i64::try_from(size).is_err() {
            return Err(DeviceError::new(format!(
                "{path}: size {size}: must be a positive multiple of {block} bytes"
            )));
        }
        opened.capacity.fetch_max(size, Ordering::AcqRel);
        Ok(size)
    }

    /// The path it was opened by.
    pub fn path(&self) -> &Path {
        &self.opened.path
    }
}

impl Opened {
    /// Bytes that can be reached.
    fn capacity(&self) -> u64 {
        self.capacity.load(Ordering::Acquire)
    }

    /// What the way that requests take asks of them.
    fn alignment(&self) -> Alignment {
        let any = Alignment { memory: 1, offset: 1 };
        self.direct.as_ref().map_or(any, |direct| direct.alignment)
    }

    /// Whether writes of parts of blocks occur, which only one queue can keep from each other.
    fn rewrites_blocks(&self) -> bool {
        !self.geometry.read_only && self.alignment().offset > u64::from(self.geometry.block_size)
    }
}

impl BlockDevice<Reactor> for FileDevice {
    type Queue = FileQueue;

    fn geometry(&self) -> Geometry {
        Geometry { capacity: self.opened.capacity(), ..self.opened.geometry }
    }

    /// Opens a queue. A medium with blocks above 512 bytes takes one queue at a time when it is
    /// written to; many users share it with [`super::shared::SharedQueue`].
    fn open_queue(&self, reactor: &Reactor, depth: usize) -> Result<FileQueue, DeviceError> {
        let path = self.opened.path.display();
        if self.opened.rewrites_blocks() && self.opened.sole_queue.swap(true, Ordering::AcqRel) {
            return Err(DeviceError::new(format!(
                "{path}: the medium's blocks are larger than 512 bytes, so it takes one queue at a \
                 time, and one is open; share that one"
            )));
        }
        let queue = self.queue(reactor, depth, false);
        if queue.is_err() && self.opened.rewrites_blocks() {
            self.opened.sole_queue.store(false, Ordering::Release);
        }
        queue
    }
}
