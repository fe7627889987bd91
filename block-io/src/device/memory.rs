//! A RAM disk: for tests, and for benching everything else.
//!
//! The bytes belong to the device, so all its queues see the same content, on whatever cores they
//! are. They are kept in words that are copied one by one: a read that meets a write on another
//! core gets some words of either, as on any device, and whoever has to tell does so by other
//! means.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::{
    BlockDevice, BlockQueue, Buffer, Completion, DeviceError, Extent, Geometry, IoError, Operation,
    Request, Timestamp,
};

/// Bytes in a word.
const WORD: usize = size_of::<u64>();

/// The device. Cheap to clone and `Send`; clones share the bytes.
#[derive(Clone, Debug)]
pub struct MemoryDevice {
    geometry: Geometry,
    words: Arc<Box<[AtomicU64]>>,
}

impl MemoryDevice {
    /// A zeroed RAM disk of `capacity` bytes. Pages are taken from the system when first written.
    ///
    /// # Errors
    /// When the capacity is no multiple of 512 or is more than this process can address.
    pub fn new(capacity: u64) -> Result<Self, DeviceError> {
        Self::with_geometry(Geometry::new(capacity))
    }

    /// A RAM disk that claims `geometry`, for tests of odd devices.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_geometry(geometry: Geometry) -> Result<Self, DeviceError> {
        let capacity = geometry.capacity;
        if capacity == 0 || !capacity.is_multiple_of(u64::from(geometry.block_size)) {
            let block_size = geometry.block_size;
            return Err(DeviceError::new(format!(
                "memory device size {capacity}: must be a positive multiple of {block_size} bytes"
            )));
        }
        let mut bytes: Vec<u8> = Vec::new();
        let length = usize::try_from(capacity).unwrap_or(usize::MAX);
        bytes.try_reserve_exact(length).map_err(|error| {
            DeviceError::with_source(format!("memory device size {capacity}"), error)
        })?;
        drop(bytes);
        Ok(Self { geometry, words: Arc::new(zeroes(length.div_ceil(WORD))) })
    }

    /// A copy of the bytes in `extent`, for tests to compare with.
    pub fn content(&self, extent: Extent) -> Vec<u8> {
        let byte = |at: u64| {
            let word = self.words[at as usize / WORD].load(Ordering::Relaxed);
            word.to_ne_bytes()[at as usize % WORD]
        };
        (extent.offset..extent.end()).map(byte).collect()
    }

    /// Overwrites bytes from outside any queue, for tests that corrupt a device.
    pub fn overwrite(&self, offset: u64, bytes: &[u8]) {
        for (at, byte) in (offset as usize..).zip(bytes) {
            let word = &self.words[at / WORD];
            let mut changed = word.load(Ordering::Relaxed).to_ne_bytes();
            changed[at % WORD] = *byte;
            word.store(u64::from_ne_bytes(changed), Ordering::Relaxed);
        }
    }
}

/// So many words, whose pages are taken from the system when first written.
fn zeroes(count: usize) -> Box<[AtomicU64]> {
    let words = Box::into_raw(vec![0_u64; count].into_boxed_slice());
    // SAFETY: the allocation is ours alone, and an `AtomicU64` has the size, the validity and, on
    // the 64-bit machines that io_uring is used on, the alignment of a `u64`.
    unsafe { Box::from_raw(words as *mut [AtomicU64]) }
}

impl<Runtime> BlockDevice<Runtime> for MemoryDevice {
    type Queue = MemoryQueue;

    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn open_queue(&self, _: &Runtime, depth: usize) -> Result<MemoryQueue, DeviceError> {
        Ok(MemoryQueue { device: self.clone(), depth, done: Vec::with_capacity(depth) })
    }
}

/// Its queue.
#[derive(Debug)]
pub struct MemoryQueue {
    device: MemoryDevice,
    depth: usize,
    done: Vec<Completion>,
}

impl MemoryQueue {
    fn execute(&self, request: &Request) -> Result<(), IoError> {
        self.device.geometry.check(request.operation, request.extent)?;
        let Extent { offset, length } = request.extent;
        let buffer = || {
            let exact = |buffer: &&Buffer| buffer.len() as u64 == length;
            request.buffer.as_ref().filter(exact).ok_or(IoError::InvalidArgument)
        };
        // Blocks are whole words.
        let range = offset as usize / WORD..request.extent.end() as usize / WORD;
        let words = |range: Range<usize>| &self.device.words[range];
        match request.operation {
            Operation::Read => buffer()?.copy_from_words(words(range)),
            Operation::Write => buffer()?.copy_to_words(words(range)),
            Operation::Discard | Operation::WriteZeroes => {
                words(range).iter().for_each(|word| word.store(0, Ordering::Relaxed));
            }
            Operation::Flush => {}
        }
        Ok(())
    }
}

impl BlockQueue for MemoryQueue {
    fn geometry(&self) -> Geometry {
        self.device.geometry
    }

    fn submit(&mut self, request: Request) -> Result<(), Request> {
        if self.done.len() == self.depth {
            return Err(request);
        }
        let result = self.execute(&request);
        self.done.push(request.complete(result));
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BufferPool, RequestId};

    fn run(queue: &mut MemoryQueue, request: Request) -> Completion {
        queue.submit(request).expect("room");
        let mut completions = Vec::new();
        assert!(queue.poll(Timestamp(0), &mut completions));
        completions.pop().expect("one completion")
    }

    #[test]
    fn writes_are_read_back_and_zeroes_are_zero() {
        let pool = BufferPool::heap();
        let device = MemoryDevice::new(1 << 20).expect("size is right");
        let mut queue = BlockDevice::<()>::open_queue(&device, &(), 4).expect("opens");
        let buffer = pool.allocate(4096);
        buffer.fill(7);
        assert_eq!(run(&mut queue, Request::write(RequestId(1), 8192, buffer)).result, Ok(()));
        assert_eq!(device.content(Extent::new(8192, 4096)), [7; 4096]);
        let done = run(&mut queue, Request::read(RequestId(2), 8192 - 512, pool.allocate(1024)));
        let mut bytes = [1; 1024];
        done.buffer.expect("given back").copy_to_slice(&mut bytes);
        assert_eq!((&bytes[..512], &bytes[512..]), (&[0; 512][..], &[7; 512][..]));
        let zeroes = Request::write_zeroes(RequestId(3), Extent::new(8192, 512));
        assert_eq!(run(&mut queue, zeroes).result, Ok(()));
        assert_eq!(device.content(Extent::new(8192, 512)), [0; 512]);
    }

    #[test]
    fn a_full_queue_hands_the_request_back() {
        let device = MemoryDevice::new(4096).expect("size is right");
        let mut queue = BlockDevice::<()>::open_queue(&device, &(), 1).expect("opens");
        queue.submit(Request::flush(RequestId(1))).expect("room");
        let back = queue.submit(Request::flush(RequestId(2))).expect_err("full");
        assert_eq!(back.id, RequestId(2));
    }

    #[test]
    fn queues_on_several_cores_share_the_bytes() {
        let device = MemoryDevice::new(1 << 20).expect("size is right");
        let fill = |device: MemoryDevice, value: u8| {
            let buffer = BufferPool::heap().allocate(4096);
            buffer.fill(value);
            let mut queue = BlockDevice::<()>::open_queue(&device, &(), 1).expect("opens");
            let offset = u64::from(value) * 4096;
            run(&mut queue, Request::write(RequestId(1), offset, buffer)).result
        };
        std::thread::scope(|scope| {
            for value in 1..4 {
                let device = device.clone();
                scope.spawn(move || assert_eq!(fill(device, value), Ok(())));
            }
        });
        for value in 1..4_u8 {
            let content = device.content(Extent::new(u64::from(value) * 4096, 4096));
            assert_eq!(content, [value; 4096]);
        }
        device.overwrite(4095, &[8, 9]);
        assert_eq!(device.content(Extent::new(4094, 4)), [0, 8, 9, 1]);
    }

    #[test]
    fn bad_sizes_are_refused_by_name() {
        for size in [0, 511, 513, u64::MAX - 511] {
            assert!(MemoryDevice::new(size).is_err(), "{size}");
        }
    }
}
