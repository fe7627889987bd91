//! Media with blocks of 4 KiB, which a file plays here, and targets that cannot zero.

use super::queue::Step;
use super::*;
use crate::reactor::{AllocateMode, ReactorConfig, Wait};
use crate::{BlockQueue, Completion, Extent, IoError, PoolLayout, Request, RequestId};

const POOL: PoolLayout =
    PoolLayout { classes: [(4096, 64), (65536, 4), (1 << 20, 0), (2 << 20, 0), (4 << 20, 0)] };

fn reactor() -> Reactor {
    Reactor::new(ReactorConfig { operations_max: 64, pool: POOL, ..Default::default() })
        .expect("this kernel has io_uring")
}

/// A directory, and a device in it that says its blocks are of 4 KiB; where the filesystem has no
/// direct I/O, on a descriptor that goes through the page cache.
fn coarse_device(size: u64) -> (tempfile::TempDir, FileDevice) {
    let program = std::env::current_exe().expect("this test has a file");
    let place = tempfile::tempdir_in(program.parent().expect("in a folder")).expect("a directory");
    let options = OpenOptions { create_size: Some(size), ..Default::default() };
    let mut device = FileDevice::open(place.path().join("file"), options).expect("opens");
    let opened = Arc::get_mut(&mut device.opened).expect("the only one");
    let file = match opened.direct.take() {
        Some(direct) => direct.file,
        None => opened.buffered.try_clone().expect("a descriptor"),
    };
    opened.direct = Some(Direct { file, alignment: Alignment { memory: 512, offset: 4096 } });
    (place, device)
}

fn finish(reactor: &Reactor, queue: &mut FileQueue) -> Vec<Completion> {
    let mut completions = Vec::new();
    while queue.in_flight() > 0 {
        if !queue.poll(reactor.now(), &mut completions) {
            reactor.turn(Wait::ForEvent).expect("turns");
        }
    }
    completions
}

/// Writes of single sectors and of whole blocks on the same blocks, again and again, none
/// overlapping another in flight: every sector is as its last write left it.
#[test]
fn small_writes_beside_whole_blocks_lose_nothing() {
    let (_place, device) = coarse_device(1 << 20);
    let reactor = reactor();
    let mut queue = device.open_queue(&reactor, 32).expect("opens");
    let mut model = vec![0u8; 1 << 20];
    let mut state = 1u64;
    let mut random = |limit: u64| {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % limit
    };
    for round in 0..200 {
        let mut taken: Vec<Extent> = Vec::new();
        for id in 0..32 {
            let extent = match random(3) {
                0 => Extent::new(4096 * random(8), 4096 * (1 + random(2))),
                1 => Extent::new(512 * random(64), 512),
                _ => Extent::new(512 * random(60), 512 * (1 + random(12))),
            };
            if taken.iter().any(|other| other.overlaps(extent)) {
                continue;
            }
            taken.push(extent);
            let buffer = reactor.pool().allocate(extent.length as usize);
            let value = random(256) as u8;
            buffer.fill(value);
            model[extent.offset as usize..extent.end() as usize].fill(value);
            queue.submit(Request::write(RequestId(id), extent.offset, buffer)).expect("room");
        }
        for done in finish(&reactor, &mut queue) {
            assert_eq!(done.result, Ok(()));
        }
        assert_eq!(queue.rewriting, 0);
        let buffer = reactor.pool().allocate(65536);
        queue.submit(Request::read(RequestId(0), 0, buffer)).expect("room");
        let read = finish(&reactor, &mut queue).pop().expect("one").buffer.expect("given back");
        assert!(read.to_vec() == model[..65536], "round {round}");
    }
}

#[test]
fn writes_that_share_a_block_are_kept_apart_if_one_rewrites_it() {
    let (_place, device) = coarse_device(1 << 20);
    let reactor = reactor();
    let mut queue = device.open_queue(&reactor, 8).expect("opens");
    let buffer = reactor.pool().allocate(4096);
    let mut write = |id, offset, length| {
        queue.submit(Request::write(RequestId(id), offset, buffer.slice(0, length))).expect("room");
        queue.waiting.len()
    };
    assert_eq!(write(1, 512, 512), 0);
    assert_eq!(write(2, 1024, 512), 1, "the block is being rewritten");
    assert_eq!(write(3, 4096, 4096), 1, "another block");
    assert_eq!(write(4, 0, 4096), 2, "a whole block waits for its parts");
    assert_eq!(write(5, 2048, 512), 3, "and a part for the whole");
    assert_eq!(write(6, 8192, 512), 3, "a block that nobody is on");
    assert_eq!(write(7, 4096, 4096), 3, "whole blocks are in no order");
    assert_eq!(finish(&reactor, &mut queue).len(), 7);
    assert!(queue.waiting.is_empty());
    assert_eq!(queue.rewriting, 0);
}

#[test]
fn a_coarse_medium_takes_one_queue() {
    let (_place, device) = coarse_device(1 << 20);
    let reactor = reactor();
    let queue = device.open_queue(&reactor, 8).expect("opens");
    let message = device.open_queue(&reactor, 8).expect_err("one is open").to_string();
    assert!(message.contains("one queue at a time"), "{message}");
    drop(queue);
    device.open_queue(&reactor, 8).expect("free again");
}

#[test]
fn zeroes_are_written_by_hand_where_nothing_else_does_it() {
    for offset in [0, 512] {
        let (_place, device) = coarse_device(1 << 20);
        let reactor = reactor();
        let mut queue = device.open_queue(&reactor, 8).expect("opens");
        (queue.zero_range, queue.punch_hole) = (false, false);
        let buffer = reactor.pool().allocate(1 << 20);
        buffer.fill(3);
        queue.submit(Request::write(RequestId(1), 0, buffer.clone())).expect("room");
        finish(&reactor, &mut queue);
        let extent = Extent::new(offset, 600 << 10);
        let request = Request::write_zeroes(RequestId(2), extent).with_force_unit_access(true);
        queue.submit(request).expect("room");
        assert_eq!(finish(&reactor, &mut queue)[0].result, Ok(()));
        queue.submit(Request::read(RequestId(3), 0, buffer)).expect("room");
        let read = finish(&reactor, &mut queue).pop().expect("one").buffer.expect("given back");
        let bytes = read.to_vec();
        let (start, end) = (extent.offset as usize, extent.end() as usize);
        assert!(bytes[..start].iter().chain(&bytes[end..]).all(|byte| *byte == 3));
        assert!(bytes[start..end].iter().all(|byte| *byte == 0));
    }
}

#[test]
fn refused_zeroing_falls_back_and_is_told() {
    let (_place, device) = coarse_device(1 << 20);
    let reactor = reactor();
    let mut queue = device.open_queue(&reactor, 8).expect("opens");
    assert_eq!(queue.zeroing_step(), Step::Allocate(AllocateMode::ZeroRange));
    let zeroes = || Request::write_zeroes(RequestId(1), Extent::new(0, 4096));
    queue.submit(zeroes()).expect("room");
    // The kernel's answer has not been looked at yet; this is another one in its place.
    queue.fail(0, IoError::Unsupported);
    assert_eq!(queue.zeroing_step(), Step::Allocate(AllocateMode::PunchHole));
    queue.fail(0, IoError::Unsupported);
    assert_eq!(queue.zeroing_step(), Step::Zero);
    assert!(!queue.geometry().write_zeroes && queue.geometry().discard);
    queue.submit(Request::discard(RequestId(2), Extent::new(0, 4096))).expect("room");
    queue.fail(1, IoError::Unsupported);
    assert!(!queue.geometry().discard);
    let mut completions = Vec::new();
    assert!(queue.poll(Default::default(), &mut completions));
    assert_eq!(completions[0].result, Ok(()), "a discard may do nothing");
}

#[test]
fn a_file_that_has_grown_is_used_to_its_new_end_once_that_is_taken() {
    let (place, device) = coarse_device(1 << 20);
    let reactor = reactor();
    let mut queue = device.open_queue(&reactor, 4).expect("opens");
    let file = File::options().write(true).open(place.path().join("file")).expect("there");
    file.set_len(2 << 20).expect("longer");
    let beyond = || Request::read(RequestId(1), (2 << 20) - 4096, reactor.pool().allocate(4096));
    let read = |queue: &mut FileQueue| {
        queue.submit(beyond()).expect("room");
        finish(&reactor, queue)[0].result
    };
    assert!(read(&mut queue).is_err(), "nobody has been told");
    assert_eq!(device.take_growth().expect("whole blocks"), 2 << 20);
    assert_eq!(read(&mut queue), Ok(()));
    assert_eq!((queue.geometry().capacity, device.geometry().capacity), (2 << 20, 2 << 20));
    file.set_len((2 << 20) + 512).expect("longer");
    let error = device.take_growth().expect_err("half a block").to_string();
    assert!(error.contains("must be a positive multiple of 4096"), "{error}");
    file.set_len(1 << 20).expect("shorter");
    assert_eq!(device.take_growth().expect("asked"), 1 << 20);
    assert_eq!(queue.geometry().capacity, 2 << 20, "what has shrunk is told, not taken");
}
