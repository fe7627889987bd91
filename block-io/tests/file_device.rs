//! The file device on real files: on disk with direct I/O, in memory, and with the page cache.

use std::path::{Path, PathBuf};

use block_io::device::file::{FileDevice, FileQueue, OpenOptions};
use block_io::reactor::{Reactor, ReactorConfig, Wait};
use block_io::sim::Random;
use block_io::{
    BlockDevice, BlockQueue, Completion, Extent, IoError, Operation, PoolLayout, Request, RequestId,
};

const POOL: PoolLayout =
    PoolLayout { classes: [(4096, 64), (65536, 4), (1 << 20, 0), (2 << 20, 0), (4 << 20, 0)] };

fn reactor() -> Reactor {
    Reactor::new(ReactorConfig { operations_max: 64, pool: POOL, ..Default::default() })
        .expect("this kernel has io_uring")
}

fn create(path: &Path, size: u64, buffered: bool) -> FileDevice {
    let options = OpenOptions { create_size: Some(size), buffered, ..Default::default() };
    FileDevice::open(path, options).expect("opens")
}

fn run(reactor: &Reactor, queue: &mut FileQueue, request: Request) -> Completion {
    queue.submit(request).expect("room");
    let mut completions = Vec::new();
    loop {
        queue.poll(reactor.now(), &mut completions);
        match completions.pop() {
            Some(completion) => return completion,
            None => reactor.turn(Wait::ForEvent).expect("turns"),
        }
    }
}

/// Directories on a disk and in memory, those that there are.
fn places() -> Vec<tempfile::TempDir> {
    [PathBuf::from(env!("CARGO_TARGET_TMPDIR")), PathBuf::from("/dev/shm")]
        .into_iter()
        .filter_map(|place| tempfile::tempdir_in(place).ok())
        .collect()
}

/// A request in flight and what it is to do to the model.
struct Expected {
    extent: Extent,
    operation: Operation,
    value: u8,
}

/// Random requests, many at once but none that overlap, against a vector of bytes.
fn random_requests(device: &FileDevice, seed: u64, rounds: usize) {
    let reactor = reactor();
    let mut queue = device.open_queue(&reactor, 16).expect("opens");
    let capacity = queue.geometry().capacity;
    let mut model = vec![0u8; capacity as usize];
    let mut random = Random::new(seed);
    let mut flying: Vec<Option<Expected>> = (0..16).map(|_| None).collect();
    let mut completions = Vec::new();
    let mut started = 0;
    while started < rounds || flying.iter().any(Option::is_some) {
        let place = flying.iter().position(Option::is_none).filter(|_| started < rounds);
        if let Some(place) = place {
            let most = if random.below(4) == 0 { 64 } else { 12 };
            let length = 512 * (1 + random.below(most));
            let extent = Extent::new(512 * random.below((capacity - length) / 512 + 1), length);
            let extent = match random.below(3) {
                0 => Extent::new(extent.offset & !4095, extent.length.next_multiple_of(4096)),
                _ => extent,
            };
            let apart = flying.iter().flatten().all(|other| !other.extent.overlaps(extent));
            if apart && extent.end() <= capacity {
                started += 1;
                let id = RequestId(place as u64);
                let value = random.next_u64() as u8;
                // Memory at odd addresses now and then.
                let shift = if random.below(4) == 0 { 8 } else { 0 };
                let whole = reactor.pool().allocate(extent.length as usize + shift);
                let buffer = whole.slice(shift, extent.length as usize);
                buffer.fill(value);
                let request = match random.below(10) {
                    0..4 => Request::read(id, extent.offset, buffer),
                    4..8 => Request::write(id, extent.offset, buffer),
                    8 => Request::write_zeroes(id, extent),
                    _ => Request::flush(id),
                };
                let request = request.with_force_unit_access(random.below(8) == 0);
                let operation = request.operation;
                let extent = if operation == Operation::Flush { Extent::default() } else { extent };
                flying[place] = Some(Expected { extent, operation, value });
                queue.submit(request).expect("there are no more than its depth");
            }
        }
        if !queue.poll(reactor.now(), &mut completions) {
            let full = flying.iter().all(Option::is_some) || started == rounds;
            reactor.turn(if full { Wait::ForEvent } else { Wait::No }).expect("turns");
        }
        for done in completions.drain(..) {
            let expected = flying[done.id.0 as usize].take().expect("completes once");
            assert_eq!(done.result, Ok(()), "seed {seed}");
            let range = expected.extent.offset as usize..expected.extent.end() as usize;
            match expected.operation {
                Operation::Read => {
                    let bytes = done.buffer.expect("given back").to_vec();
                    assert!(bytes == model[range], "seed {seed}: read of {}", expected.extent);
                }
                Operation::Write => model[range].fill(expected.value),
                Operation::WriteZeroes => model[range].fill(0),
                Operation::Flush | Operation::Discard => {}
            }
        }
    }
    assert_eq!(run(&reactor, &mut queue, Request::flush(RequestId(0))).result, Ok(()));
    assert!(std::fs::read(device.path()).expect("reads") == model, "seed {seed}: the file");
}

#[test]
fn random_requests_agree_with_a_model() {
    for place in places() {
        for buffered in [false, true] {
            for seed in 0..8 {
                let path = place.path().join(format!("file-{seed}-{buffered}"));
                let device = create(&path, 1 << 20, buffered);
                assert!(!buffered || !device.is_direct());
                random_requests(&device, seed, 300);
            }
        }
    }
}

#[test]
fn direct_where_the_disk_allows_it() {
    let place = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let device = create(&place.path().join("file"), 1 << 20, false);
    // A filesystem without direct I/O says so; there is no third way.
    assert_eq!(device.is_direct(), device.notice().is_none(), "{:?}", device.notice());
    let geometry = device.geometry();
    assert_eq!((geometry.capacity, geometry.block_size), (1 << 20, 512));
    assert!(geometry.volatile_cache);
}

#[test]
fn a_full_queue_hands_back_and_holds_no_more_than_its_depth() {
    let place = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let device = create(&place.path().join("file"), 1 << 20, false);
    let reactor = reactor();
    let mut queue = device.open_queue(&reactor, 2).expect("opens");
    let read = |id| Request::read(RequestId(id), 0, reactor.pool().allocate(4096));
    queue.submit(read(1)).expect("room");
    // A request in error takes a place too.
    queue.submit(Request::read(RequestId(2), 1 << 20, reactor.pool().allocate(512))).expect("room");
    assert_eq!(queue.submit(read(3)).expect_err("full").id, RequestId(3));
    let mut completions = Vec::new();
    while queue.in_flight() > 0 {
        if !queue.poll(reactor.now(), &mut completions) {
            reactor.turn(Wait::ForEvent).expect("turns");
        }
    }
    completions.sort_by_key(|done| done.id);
    let results: Vec<_> = completions.iter().map(|done| done.result).collect();
    assert_eq!(results, [Ok(()), Err(IoError::OutOfRange)]);
    queue.submit(read(4)).expect("room again");
}

#[test]
fn a_file_that_shrank_is_a_failed_medium() {
    for buffered in [false, true] {
        let place = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
        let path = place.path().join("file");
        let device = create(&path, 1 << 20, buffered);
        let reactor = reactor();
        let mut queue = device.open_queue(&reactor, 4).expect("opens");
        let file = std::fs::File::options().write(true).open(&path).expect("opens");
        file.set_len((512 << 10) + 4096).expect("shrinks");
        let mut read = |offset, length| {
            let buffer = reactor.pool().allocate(length);
            run(&reactor, &mut queue, Request::read(RequestId(1), offset, buffer)).result
        };
        assert_eq!(read(768 << 10, 4096), Err(IoError::Media), "all beyond the end");
        assert_eq!(read(512 << 10, 65536), Err(IoError::Media), "partly beyond the end");
        assert_eq!(read(512 << 10, 4096), Ok(()));
    }
}

#[test]
fn a_discard_reads_the_same_twice_and_zeroes_are_zero() {
    let place = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let device = create(&place.path().join("file"), 1 << 20, false);
    let reactor = reactor();
    let mut queue = device.open_queue(&reactor, 4).expect("opens");
    let id = RequestId(1);
    let buffer = reactor.pool().allocate(65536);
    buffer.fill(9);
    assert_eq!(run(&reactor, &mut queue, Request::write(id, 0, buffer)).result, Ok(()));
    let discard = Request::discard(id, Extent::new(512, 8192));
    assert_eq!(run(&reactor, &mut queue, discard).result, Ok(()));
    let zeroes = Request::write_zeroes(id, Extent::new(32768, 1536)).with_force_unit_access(true);
    assert_eq!(run(&reactor, &mut queue, zeroes).result, Ok(()));
    let mut read = || {
        let request = Request::read(id, 0, reactor.pool().allocate(65536));
        run(&reactor, &mut queue, request).buffer.expect("given back").to_vec()
    };
    let bytes = read();
    assert!(bytes == read());
    assert!(bytes[..512].iter().chain(&bytes[8704..32768]).all(|byte| *byte == 9));
    assert!(bytes[32768..34304].iter().all(|byte| *byte == 0));
    assert!(bytes[34304..].iter().all(|byte| *byte == 9));
}

#[test]
fn a_queue_may_go_with_requests_in_flight() {
    let place = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let device = create(&place.path().join("file"), 4 << 20, false);
    let reactor = reactor();
    for _ in 0..20 {
        let mut queue = device.open_queue(&reactor, 16).expect("opens");
        for id in 0..16 {
            let buffer = reactor.pool().allocate(65536);
            queue.submit(Request::read(RequestId(id), id * 65536, buffer)).expect("room");
        }
        reactor.turn(Wait::No).expect("turns");
    }
    while reactor.operations_in_flight() > 0 {
        reactor.turn(Wait::ForEvent).expect("turns");
    }
    assert_eq!(reactor.pool().heap_blocks(), 0, "every buffer came home");
}

fn refusal(path: &Path, options: OpenOptions) -> String {
    FileDevice::open(path, options).expect_err("must be refused").to_string()
}

#[test]
fn bad_targets_are_refused_by_name_and_value() {
    let place = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let path = place.path().join("file");
    let create = |size| OpenOptions { create_size: Some(size), ..Default::default() };
    let plain = OpenOptions::default();
    let missing = refusal(&path, plain);
    assert!(missing.contains(path.to_str().expect("text")), "{missing}");
    assert!(missing.contains("must be an existing file or block device"), "{missing}");
    for size in [0, 511, 4097, u64::MAX - 511] {
        let message = refusal(&path, create(size));
        assert!(message.contains(&format!("size {size}")), "{message}");
        assert!(!path.exists(), "nothing is left behind");
    }
    let read_only = OpenOptions { read_only: true, ..create(4096) };
    assert!(refusal(&path, read_only).contains("no file to open read-only"));
    std::fs::write(&path, [0; 1000]).expect("writes");
    assert!(refusal(&path, plain).contains("size 1000: must be a positive multiple of 512"));
    assert!(refusal(place.path(), plain).contains("is a directory"));
    assert!(refusal(Path::new("/dev/null"), plain).contains("is a character device"));
}

#[test]
fn a_file_has_one_writer_or_many_readers() {
    let place = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let path = place.path().join("file");
    let writer = create(&path, 4096, false);
    let read_only = OpenOptions { read_only: true, ..Default::default() };
    for options in [OpenOptions::default(), read_only] {
        let message = refusal(&path, options);
        assert!(message.contains("in use: another process holds a lock"), "{message}");
    }
    drop(writer);
    let reader = FileDevice::open(&path, read_only).expect("opens");
    let another = FileDevice::open(&path, read_only).expect("opens");
    assert!(refusal(&path, OpenOptions::default()).contains("in use"));
    let reactor = reactor();
    let mut queue = reader.open_queue(&reactor, 1).expect("opens");
    let buffer = reactor.pool().allocate(512);
    let request = Request::write(RequestId(1), 0, buffer.clone());
    assert_eq!(run(&reactor, &mut queue, request).result, Err(IoError::ReadOnly));
    let request = Request::read(RequestId(1), 512, buffer);
    assert_eq!(run(&reactor, &mut queue, request).result, Ok(()));
    drop((reader, another));
    assert!(refusal(&path, OpenOptions::default()).contains("in use"), "the queue is a user too");
    drop(queue);
    reactor.turn(Wait::No).expect("turns");
    FileDevice::open(&path, OpenOptions::default()).expect("free again");
}
