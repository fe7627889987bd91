//! A cache device as other cores use it: for reading what the owner's core has stored there.

use block_io::device::file::FileDevice;
use block_io::device::memory::MemoryDevice;
use block_io::reactor::Reactor;
use block_io::{BlockDevice, DeviceError};

use super::{Backend, BackendQueue};

/// A device that other cores may read. `Send`; clones are the same device.
#[derive(Clone, Debug)]
pub struct ReadableDevice(Kind);

#[derive(Clone, Debug)]
enum Kind {
    File(FileDevice),
    Memory(MemoryDevice),
}

impl Backend {
    /// The device for other cores to read, where they can.
    pub fn readable(&self) -> Option<ReadableDevice> {
        match self {
            Self::File(device) => Some(ReadableDevice(Kind::File(device.clone()))),
            Self::Memory(device) => Some(ReadableDevice(Kind::Memory(device.clone()))),
            Self::Null(_) | Self::NvmeTcp(_) | Self::Delayed(_) => None,
        }
    }
}

impl ReadableDevice {
    /// A queue on the calling core, for at most `depth` reads in flight.
    ///
    /// # Errors
    /// When the depth is out of range or there are no more descriptors.
    pub fn open_queue(&self, reactor: &Reactor, depth: usize) -> Result<BackendQueue, DeviceError> {
        match &self.0 {
            Kind::File(device) => device.open_reading_queue(reactor, depth).map(BackendQueue::File),
            Kind::Memory(device) => device.open_queue(reactor, depth).map(BackendQueue::Memory),
        }
    }
}
