//! Random requests against a device, with every byte that is read compared with a reference disk.
//!
//! The device is anything: a namespace that our host is connected to, or a kernel's block device
//! through a file. A seed decides everything.

use std::path::Path;

use block_io::device::file::{FileDevice, OpenOptions};
use block_io::reactor::{Reactor, ReactorConfig, Wait};
use block_io::sim::{Random, ReferenceDisk, fill_pattern};
use block_io::{
    BlockDevice, BlockQueue, Completion, Extent, Geometry, PoolLayout, Request, RequestId,
};

/// Requests in flight.
const DEPTH: usize = 32;

/// Sizes of requests, in bytes.
const SIZES: &[u64] = &[512, 4096, 4096, 8192, 12288, 65536, 300 << 10, 1 << 20];

/// A reactor for a case.
///
/// # Panics
/// When the kernel has no io_uring that can be used.
pub fn reactor() -> Reactor {
    let config =
        ReactorConfig { operations_max: 256, pool: PoolLayout::HEAP, ..ReactorConfig::default() };
    Reactor::new(config).expect("a reactor")
}

/// A load and what it has learnt.
pub struct Load {
    seed: u64,
    random: Random,
    reference: ReferenceDisk,
    capacity: u64,
    made: u64,
    completions: Vec<Completion>,
}

impl Load {
    /// A load on a device of `capacity` bytes, all of them zero.
    pub fn new(seed: u64, capacity: u64) -> Self {
        let reference = ReferenceDisk::new(seed, capacity).with_late_writes(true);
        let random = Random::new(seed);
        Self { seed, random, reference, capacity, made: 0, completions: Vec::new() }
    }

    /// Makes `count` requests and waits for all of them; how many failed.
    ///
    /// # Panics
    /// When something was read that cannot be there.
    pub fn run(&mut self, reactor: &Reactor, queue: &mut impl BlockQueue, count: u64) -> u64 {
        self.run_with(reactor, queue, count, |_| ())
    }

    /// The same; `made` is told of every request before it is made, by its number.
    ///
    /// # Panics
    /// As [`run`](Self::run).
    pub fn run_with(
        &mut self,
        reactor: &Reactor,
        queue: &mut impl BlockQueue,
        count: u64,
        mut made: impl FnMut(u64),
    ) -> u64 {
        let (mut left, mut in_flight, mut failed) = (count, 0, 0);
        while left > 0 || in_flight > 0 {
            while left > 0 && in_flight < DEPTH {
                left -= 1;
                in_flight += 1;
                made(count - left);
                let request = self.next_request(reactor, &queue.geometry());
                self.reference.begin(&request);
                queue.submit(request).expect("room");
            }
            let progress = queue.poll(reactor.now(), &mut self.completions);
            for completion in self.completions.drain(..) {
                in_flight -= 1;
                failed += u64::from(completion.result.is_err());
                if let Err(mismatch) = self.reference.complete(&completion) {
                    panic!("seed {}: {mismatch}", self.seed);
                }
            }
            if left > 0 || in_flight > 0 {
                reactor.turn(if progress { Wait::No } else { Wait::ForEvent }).expect("turns");
            }
        }
        failed
    }

    /// Reads everything back, in pieces; how many reads failed.
    ///
    /// # Panics
    /// When something was read that cannot be there.
    pub fn read_back(&mut self, reactor: &Reactor, queue: &mut impl BlockQueue) -> u64 {
        self.reference.fence();
        let piece = 64 << 10;
        let (mut offset, mut in_flight, mut failed) = (0, 0, 0);
        while offset < self.capacity || in_flight > 0 {
            while offset < self.capacity && in_flight < DEPTH {
                let length = piece.min(self.capacity - offset);
                self.made += 1;
                let buffer = reactor.pool().allocate(length as usize);
                let request = Request::read(RequestId(self.made), offset, buffer);
                self.reference.begin(&request);
                queue.submit(request).expect("room");
                offset += length;
                in_flight += 1;
            }
            let progress = queue.poll(reactor.now(), &mut self.completions);
            for completion in self.completions.drain(..) {
                in_flight -= 1;
                failed += u64::from(completion.result.is_err());
                if let Err(mismatch) = self.reference.complete(&completion) {
                    panic!("seed {}: {mismatch}", self.seed);
                }
            }
            if offset < self.capacity || in_flight > 0 {
                reactor.turn(if progress { Wait::No } else { Wait::ForEvent }).expect("turns");
            }
        }
        failed
    }

    fn next_request(&mut self, reactor: &Reactor, geometry: &Geometry) -> Request {
        self.made += 1;
        let random = &mut self.random;
        let block = u64::from(geometry.block_size);
        let length_max = u64::from(geometry.transfer_max).min(self.capacity);
        let length = (*random.choose(SIZES)).min(length_max).next_multiple_of(block);
        let offset = random.below((self.capacity - length) / block + 1) * block;
        let id = RequestId(self.made);
        match random.below(8) {
            0..=2 => Request::read(id, offset, reactor.pool().allocate(length as usize)),
            3..=5 => {
                let buffer = reactor.pool().allocate(length as usize);
                fill_pattern(&buffer, self.made, offset);
                Request::write(id, offset, buffer)
            }
            6 => Request::write_zeroes(id, Extent::new(offset, length)),
            _ => Request::discard(id, Extent::new(offset, length)),
        }
    }
}

/// A block device of the kernel's, past its page cache, with a queue on it.
///
/// # Panics
/// When it cannot be opened.
pub fn block_device(reactor: &Reactor, path: &Path) -> impl BlockQueue + use<> {
    let device = FileDevice::open(path, OpenOptions::default()).expect("the device opens");
    assert!(device.is_direct(), "{} has direct I/O", path.display());
    device.open_queue(reactor, DEPTH).expect("a queue")
}
