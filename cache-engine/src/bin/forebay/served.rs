//! Volumes of the service as its control socket sees them.

use block_io::device::shared::SharedQueue;
use block_io::{BlockQueue, DeviceError, Geometry};
use cache_engine::cache::Statistics;
use cache_engine::control::executor::ServedVolume;

use crate::volume::Volume;

/// A volume that clients are served from at the same time.
pub(crate) struct Served(pub(crate) SharedQueue<Volume>);

impl ServedVolume for Served {
    fn queue(&mut self) -> &mut dyn BlockQueue {
        &mut self.0
    }

    fn geometry(&self) -> Geometry {
        self.0.geometry()
    }

    fn in_flight(&self) -> usize {
        self.0.with_queue(|volume| volume.in_flight())
    }

    fn statistics(&self) -> Statistics {
        self.0.with_queue(|volume| volume.statistics())
    }

    fn fault(&self) -> Option<String> {
        self.0.with_queue(|volume| volume.fault())
    }

    fn origin_size(&self) -> Result<u64, DeviceError> {
        self.0.with_queue(|volume| volume.origin_size())
    }
}
