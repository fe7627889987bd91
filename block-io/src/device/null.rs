//! A device that does nothing at once: the ceiling of every frontend.
//!
//! Reads leave the buffer as it is (a pool's memory is initialised, so nothing undefined is
//! read, but nothing meaningful either). Not for anything that looks at its bytes.

use crate::{BlockDevice, BlockQueue, Completion, DeviceError, Geometry, Request, Timestamp};

/// The device.
#[derive(Clone, Debug)]
pub struct NullDevice {
    geometry: Geometry,
}

impl NullDevice {
    /// A null device of `capacity` bytes.
    pub fn new(capacity: u64) -> Self {
        Self { geometry: Geometry::new(capacity) }
    }
}

impl<Runtime> BlockDevice<Runtime> for NullDevice {
    type Queue = NullQueue;

    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn open_queue(&self, _: &Runtime, depth: usize) -> Result<NullQueue, DeviceError> {
        Ok(NullQueue { geometry: self.geometry, done: Vec::with_capacity(depth), depth })
    }
}

/// Its queue.
#[derive(Debug)]
pub struct NullQueue {
    geometry: Geometry,
    depth: usize,
    done: Vec<Completion>,
}

impl BlockQueue for NullQueue {
    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn submit(&mut self, request: Request) -> Result<(), Request> {
        if self.done.len() == self.depth {
            return Err(request);
        }
        self.done.push(request.complete(Ok(())));
        Ok(())
    }

    fn poll(&mut self, _: Timestamp, completions: &mut Vec<Completion>) -> bool {
        let progress = !self.done.is_empty();
        completions.append(&mut self.done);
        progress
    }

    fn in_flight(&self) -> usize {
        self.done.len()
    }
}
