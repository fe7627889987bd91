//! One request after another on an otherwise idle queue: how a device is looked at and set up
//! before anybody is served.
//!
//! Absent: more than one request in flight, which setting up needs nowhere.

use block_io::{
    BlockQueue, Buffer, BufferPool, Completion, DeviceError, IoError, Request, RequestId, Timestamp,
};

/// A queue, buffers for it, and how its runtime moves on. `turn` lets it (a reactor turns, a world
/// goes to its next event) and returns the time.
pub struct Exchange<'device, Queue, Turn> {
    queue: &'device mut Queue,
    pool: &'device BufferPool,
    turn: Turn,
}

impl<'device, Queue: BlockQueue, Turn> Exchange<'device, Queue, Turn>
where
    Turn: FnMut() -> Result<Timestamp, DeviceError>,
{
    /// Requests on `queue`, on which nothing may be in flight.
    pub fn new(queue: &'device mut Queue, pool: &'device BufferPool, turn: Turn) -> Self {
        debug_assert_eq!(queue.in_flight(), 0, "completions of others would be mistaken for ours");
        Self { queue, pool, turn }
    }

    /// Bytes of the device.
    pub fn capacity(&self) -> u64 {
        self.queue.geometry().capacity
    }

    /// Reads `length` bytes from `offset` on, in transfers as large as the device takes.
    ///
    /// # Errors
    /// When the device fails; what it was to be read for, `doing`, is named.
    pub fn read(
        &mut self,
        doing: &str,
        offset: u64,
        length: usize,
    ) -> Result<Vec<u8>, DeviceError> {
        Ok(self.read_buffer(doing, offset, length)?.to_vec())
    }

    /// The same, into a buffer that nobody else has a view of.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn read_buffer(
        &mut self,
        doing: &str,
        offset: u64,
        length: usize,
    ) -> Result<Buffer, DeviceError> {
        let buffer = self.pool.allocate(length);
        for (at, part) in self.chunks(&buffer) {
            self.one(doing, Request::read(RequestId(0), offset + at, part))?;
        }
        Ok(buffer)
    }

    /// Writes `bytes` at `offset`; they are durable afterwards.
    ///
    /// # Errors
    /// When the device fails; what it was to be written for, `doing`, is named.
    pub fn write(&mut self, doing: &str, offset: u64, bytes: &[u8]) -> Result<(), DeviceError> {
        let buffer = self.pool.allocate(bytes.len());
        buffer.copy_from_slice(bytes);
        for (at, part) in self.chunks(&buffer) {
            let write = Request::write(RequestId(0), offset + at, part);
            self.one(doing, write.with_force_unit_access(true))?;
        }
        Ok(())
    }

    /// The parts of a buffer that the device takes at once, each with where it begins.
    fn chunks(&self, buffer: &Buffer) -> Vec<(u64, Buffer)> {
        let chunk = (self.queue.geometry().transfer_max as usize).min(buffer.len()).max(1);
        let starts = (0..buffer.len()).step_by(chunk);
        starts.map(|at| (at as u64, buffer.slice(at, chunk.min(buffer.len() - at)))).collect()
    }

    /// Sends a request and waits for its answer.
    fn one(&mut self, doing: &str, request: Request) -> Result<(), DeviceError> {
        let failed = |error: IoError| DeviceError::with_source(format!("{doing} failed"), error);
        self.queue.submit(request).map_err(|_| failed(IoError::OutOfMemory))?;
        let mut completions: Vec<Completion> = Vec::new();
        let mut now = Timestamp::default();
        loop {
            self.queue.poll(now, &mut completions);
            if let Some(completion) = completions.pop() {
                return completion.result.map_err(failed);
            }
            now = (self.turn)()?;
        }
    }
}
