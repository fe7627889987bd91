//! Random requests against the reference disk, over every kind of connection.

use std::time::Duration;

use block_io::sim::{Random, ReferenceDisk};
use block_io::{Buffer, Completion, Extent, Geometry, IoError, Operation, Request, RequestId};
use nvme_fabric::host::{Controller, QueueIndex};
use nvme_fabric::pdu::Digests;

use crate::harness::{Pair, Setup};

/// Requests at random, told to the reference, until `count` have been made.
pub(crate) struct Workload {
    pub(crate) reference: ReferenceDisk,
    random: Random,
    queue: QueueIndex,
    depth: usize,
    pub(crate) made: u64,
    count: u64,
    in_flight: usize,
    pub(crate) failed: u64,
    pub(crate) acked_writes: u64,
}

impl Workload {
    pub(crate) fn new(
        pair: &Pair<Controller>,
        queue: QueueIndex,
        depth: usize,
        count: u64,
    ) -> Self {
        let seed = pair.world.seed();
        let geometry = pair.host.identity().geometry.expect("it is up");
        let volatile = geometry.volatile_cache;
        let reference = ReferenceDisk::new(seed, geometry.capacity)
            .with_late_writes(true)
            .with_volatile_cache(volatile);
        Self {
            reference,
            random: pair.world.random("workload"),
            queue,
            depth,
            made: 0,
            count,
            in_flight: 0,
            failed: 0,
            acked_writes: 0,
        }
    }

    fn request(&mut self, pair: &Pair<Controller>) -> Request {
        let Self { random, made, .. } = self;
        *made += 1;
        let id = RequestId(*made);
        let small = [512, 1024, 4096, 8192, 8704, 16384];
        let large = [65536, 131_072, 131_584, 400 << 10, 1 << 20];
        let is_large = random.chance(150);
        let length = *random.choose(if is_large { &large[..] } else { &small[..] });
        // Near each other, so that they overlap.
        let reach = (4 << 20) - length;
        let offset = random.below(reach / 512 + 1) * 512;
        let extent = Extent::new(offset, length);
        let buffer = |pool: &block_io::BufferPool| -> Buffer { pool.allocate(length as usize) };
        let request = match random.below(20) {
            0..=7 => Request::read(id, offset, buffer(&pair.pool)),
            8..=14 => {
                let buffer = buffer(&pair.pool);
                block_io::sim::fill_pattern(&buffer, *made, offset);
                Request::write(id, offset, buffer)
            }
            15 => Request::flush(id),
            16 => Request::discard(id, extent),
            _ => Request::write_zeroes(id, extent),
        };
        let durable = random.chance(200)
            && matches!(request.operation, Operation::Write | Operation::WriteZeroes);
        request.with_force_unit_access(durable)
    }

    /// Submits what there is room for, takes what has finished; whether all are finished.
    pub(crate) fn step(&mut self, pair: &mut Pair<Controller>) -> bool {
        while self.made < self.count && self.in_flight < self.depth {
            let request = self.request(pair);
            self.reference.begin(&request);
            pair.host.submit(self.queue, request).expect("there is room");
            self.in_flight += 1;
        }
        let mut completions = Vec::new();
        pair.host.take_completions(self.queue, &mut completions);
        for completion in completions {
            self.finish(pair, &completion);
        }
        self.made == self.count && self.in_flight == 0
    }

    fn finish(&mut self, pair: &Pair<Controller>, completion: &Completion) {
        self.in_flight = self.in_flight.checked_sub(1).expect("each request ends exactly once");
        match completion.result {
            Ok(()) => self.acked_writes += 1,
            Err(_) => self.failed += 1,
        }
        if let Err(mismatch) = self.reference.complete(completion) {
            panic!("seed {}: {mismatch}", pair.world.seed());
        }
    }

    /// Once nothing is under way anywhere, the disk must hold what was acked.
    pub(crate) fn check_disk(&mut self, pair: &Pair<Controller>) {
        self.reference.fence();
        let capacity = pair.disk_capacity();
        let content = pair.disk.content(Extent::new(0, capacity));
        if let Err(mismatch) = self.reference.check_content(0, &content) {
            panic!("seed {}: {mismatch}", pair.world.seed());
        }
    }
}

impl Pair<Controller> {
    pub(crate) fn disk_capacity(&self) -> u64 {
        self.host.identity().geometry.map_or(0, |geometry| geometry.capacity)
    }
}

#[test]
fn random_requests_agree_with_the_reference_disk() {
    for seed in 0..32 {
        let mut setup = Setup::new(seed);
        setup.options.queue_depth = if seed % 3 == 0 { 8 } else { 128 };
        let mut pair = setup.connect();
        let queue = pair.bring_up(32);
        pair.disk.change_faults(|faults| faults.reorder = true);
        let mut work = Workload::new(&pair, queue, 32, 120);
        pair.run_until(|pair| work.step(pair));
        assert_eq!(work.failed, 0, "seed {seed}: {}", pair.error());
        work.check_disk(&pair);
    }
}

#[test]
fn failures_of_the_medium_are_the_requests_and_nothing_else_happens() {
    for seed in 0..16 {
        let mut pair = Setup::new(seed).connect();
        let queue = pair.bring_up(32);
        pair.disk.change_faults(|faults| {
            faults.read_error = 100;
            faults.write_error_torn = 100;
            faults.write_error_applied = 50;
            faults.flush_error = 100;
        });
        let mut work = Workload::new(&pair, queue, 32, 150);
        pair.run_until(|pair| work.step(pair));
        assert!(work.failed > 0 && work.acked_writes > 0, "seed {seed}");
        work.check_disk(&pair);
        assert!(pair.host.is_up(), "seed {seed}: {}", pair.error());
    }
}

#[test]
fn a_large_request_is_several_commands_and_one_completion() {
    let mut pair = Setup::new(0).connect();
    let queue = pair.bring_up(4);
    assert_eq!(pair.host.identity().controller.data_transfer_size_max, 5, "MDTS is 128 KiB");
    pair.disk.set_logging(true);
    let buffer = pair.pool.allocate(1 << 20);
    buffer.fill(0x5a);
    let done = pair.request(queue, Request::write(RequestId(1), 512, buffer));
    assert_eq!((done.id, done.result), (RequestId(1), Ok(())));
    let done = pair.request(queue, Request::read(RequestId(2), 512, pair.pool.allocate(1 << 20)));
    assert_eq!(done.result, Ok(()));
    assert!(done.buffer.expect("given back").to_vec().iter().all(|byte| *byte == 0x5a));
    assert_eq!(pair.disk.counters().writes, 8);
    assert_eq!(pair.disk.counters().reads, 8);
}

#[test]
fn one_failed_part_fails_the_request_once() {
    let mut pair = Setup::new(0).connect();
    let queue = pair.bring_up(4);
    pair.disk.change_faults(|faults| faults.bad_ranges = vec![Extent::new(300 << 10, 512)]);
    let buffer = pair.pool.allocate(1 << 20);
    let done = pair.request(queue, Request::write(RequestId(1), 0, buffer));
    assert_eq!(done.result, Err(IoError::Media));
    let done = pair.request(queue, Request::read(RequestId(2), 0, pair.pool.allocate(1 << 20)));
    assert_eq!(done.result, Err(IoError::Media));
    let done = pair.request(queue, Request::read(RequestId(3), 0, pair.pool.allocate(4096)));
    assert_eq!(done.result, Ok(()));
}

#[test]
fn bad_requests_are_answered_without_a_command() {
    let mut pair = Setup::new(0).connect();
    let queue = pair.bring_up(4);
    let capacity = pair.disk_capacity();
    let pool = pair.pool.clone();
    let read = |offset, length| Request::read(RequestId(1), offset, pool.allocate(length));
    for (request, error) in [
        (read(1, 512), IoError::InvalidArgument),
        (read(0, 100), IoError::InvalidArgument),
        (read(0, (1 << 20) + 512), IoError::InvalidArgument),
        (read(capacity, 512), IoError::OutOfRange),
        (Request { buffer: None, ..read(0, 512) }, IoError::InvalidArgument),
        (Request { extent: Extent::new(0, 1024), ..read(0, 512) }, IoError::InvalidArgument),
    ] {
        assert_eq!(pair.request(queue, request).result, Err(error));
    }
    assert_eq!(pair.disk.counters().reads, 0);
    assert!(pair.host.is_up());
}

#[test]
fn a_full_queue_hands_requests_back() {
    let mut pair = Setup::new(0).connect();
    let queue = pair.bring_up(2);
    let read = |id| Request::read(RequestId(id), 0, pair.pool.allocate(512));
    pair.host.submit(queue, read(1)).expect("room");
    pair.host.submit(queue, read(2)).expect("room");
    let back = pair.host.submit(queue, read(3)).expect_err("full");
    assert_eq!(back.id, RequestId(3));
}

#[test]
fn a_namespace_of_4_kib_blocks_without_zeroes_and_discard() {
    let mut setup = Setup::new(3);
    setup.geometry.block_size = 4096;
    setup.geometry.write_zeroes = false;
    setup.geometry.discard = false;
    setup.digests = Digests { header: true, data: true };
    let mut pair = setup.connect();
    let queue = pair.bring_up(4);
    let geometry = pair.host.identity().geometry.expect("it is up");
    assert_eq!((geometry.block_size, geometry.capacity), (4096, 16 << 20));
    let buffer = pair.pool.allocate(1 << 20);
    buffer.fill(1);
    assert_eq!(pair.request(queue, Request::write(RequestId(1), 0, buffer)).result, Ok(()));
    let zeroes = Request::write_zeroes(RequestId(2), Extent::new(4096, 512 << 10));
    assert_eq!(pair.request(queue, zeroes).result, Ok(()));
    let discard = Request::discard(RequestId(3), Extent::new(0, 4096));
    assert_eq!(pair.request(queue, discard).result, Ok(()));
    let content = pair.disk.content(Extent::new(0, 1 << 20));
    assert!(content[4096..4096 + (512 << 10)].iter().all(|byte| *byte == 0));
    assert!(content[4096 + (512 << 10)..].iter().all(|byte| *byte == 1));
}

#[test]
fn zeroes_that_the_medium_refuses_are_written() {
    for seed in 0..8 {
        let mut setup = Setup::new(seed);
        setup.options.queue_depth = 8;
        let mut pair = setup.connect();
        pair.refuses_zeroes = true;
        let queue = pair.bring_up(32);
        let mut work = Workload::new(&pair, queue, 32, 100);
        pair.run_until(|pair| work.step(pair));
        assert_eq!(work.failed, 0, "seed {seed}");
        work.check_disk(&pair);
        assert!(!pair.host.requests(queue).expect("open").geometry().write_zeroes);
    }
}

#[test]
fn a_clean_shutdown_is_confirmed_and_leaves_nothing() {
    for seed in 0..16 {
        let mut pair = Setup::new(seed).connect();
        let queue = pair.bring_up(4);
        let buffer = pair.pool.allocate(4096);
        assert_eq!(pair.request(queue, Request::write(RequestId(1), 0, buffer)).result, Ok(()));
        pair.host.shut_down();
        pair.run_until(|pair| pair.host.is_over());
        assert!(!pair.disk.has_volatile_content(), "seed {seed}: flushed first");
        pair.run_for(Duration::from_millis(1));
        assert_eq!(pair.served(), 0, "seed {seed}");
        assert_eq!(pair.target.controllers_in_use(), 0, "seed {seed}");
    }
}

#[test]
fn a_resized_namespace_is_a_resized_device() {
    let setup = Setup::new(1);
    let mut pair = setup.connect();
    let queue = pair.bring_up(4);
    let larger = Geometry { capacity: 32 << 20, ..setup.geometry };
    let key = nvme_fabric::target::NamespaceKey { subsystem: 0, namespace: 0 };
    for (round, geometry) in [larger, setup.geometry, larger].into_iter().enumerate() {
        pair.target.resize(key, geometry).expect("a size");
        pair.run_for(Duration::from_millis(20));
        let requests = pair.host.requests(queue).expect("open");
        assert_eq!(requests.geometry().capacity, geometry.capacity, "round {round}");
        assert_eq!(pair.host.events_heard(), round as u64 + 1);
    }
}

#[test]
fn an_idle_association_is_kept_alive_and_a_silent_one_is_not() {
    let mut pair = Setup::new(0).connect();
    let queue = pair.bring_up(4);
    pair.run_for(Duration::from_secs(60));
    assert!(pair.host.is_up(), "{}", pair.error());
    pair.network.silence_all();
    pair.run_for(Duration::from_secs(8));
    assert!(pair.error().contains("Keep Alive"), "{}", pair.error());
    assert_eq!(pair.served(), 0, "the target has given the host up, too");
    let read = Request::read(RequestId(1), 0, pair.pool.allocate(512));
    assert_eq!(pair.request(queue, read).result, Err(IoError::ConnectionLost));
}
