//! What each mode does, one request at a time.

use super::*;

#[test]
fn a_read_miss_is_answered_from_the_origin_and_fills_the_cache() {
    let mut desk = Desk::new(CacheMode::WriteThrough, 4);
    let id = desk.read(8192, 4096);
    assert!(desk.device.is_empty());
    desk.origin_answers(7, Ok(()));
    let reply = desk.reply(id);
    assert_eq!(reply.buffer.expect("given back").to_vec(), [7; 4096]);
    let fill = &desk.device[0];
    assert_eq!((fill.operation, fill.extent.length), (Operation::Write, 4096));
    assert_eq!(fill.buffer.as_ref().expect("data").to_vec(), [7; 4096]);
    desk.device_answers(0, Ok(()));
    let id = desk.read(8192 + 512, 1024);
    assert!(desk.origin.is_empty(), "a hit asks nothing of the origin");
    desk.device_answers(7, Ok(()));
    assert_eq!(desk.reply(id).buffer.expect("given back").to_vec(), [7; 1024]);
    let statistics = desk.statistics();
    assert_eq!((statistics.read_hits, statistics.read_misses, statistics.read_fills), (1, 1, 1));
}

#[test]
fn a_written_line_is_a_hit_in_write_through_and_a_miss_in_the_others() {
    for mode in CacheMode::ALL {
        let mut desk = Desk::new(CacheMode::WriteThrough, 4);
        desk.warm(0);
        desk.set_mode(mode);
        let id = desk.write(0, 4096, 9);
        desk.settle(0);
        desk.reply(id).result.expect("both devices answer");
        desk.set_mode(CacheMode::WriteThrough);
        assert_eq!(desk.is_hit(0, 4096), mode == CacheMode::WriteThrough, "{mode}");
    }
}

#[test]
fn pass_through_reads_leave_the_cache_alone_and_it_is_warm_afterwards() {
    let mut desk = Desk::new(CacheMode::WriteThrough, 4);
    desk.warm(0);
    desk.set_mode(CacheMode::PassThrough);
    let id = desk.read(0, 4096);
    assert!(desk.device.is_empty());
    desk.settle(3);
    desk.reply(id);
    assert_eq!(desk.statistics().read_pass_through, 1);
    desk.set_mode(CacheMode::WriteAround);
    assert!(desk.is_hit(0, 4096));
}

#[test]
fn a_partial_hit_takes_each_line_from_where_it_is() {
    let mut desk = Desk::new(CacheMode::WriteThrough, 4);
    desk.warm(4096);
    let id = desk.read(512, 3 * 4096);
    let extents: Vec<_> = desk.origin.iter().map(|request| request.extent).collect();
    assert_eq!(extents, [Extent::new(0, 4096), Extent::new(8192, 8192)], "whole blocks");
    assert_eq!(desk.device.len(), 1);
    desk.device_answers(5, Ok(()));
    desk.origin_answers(6, Ok(()));
    desk.origin_answers(7, Ok(()));
    let bytes = desk.reply(id).buffer.expect("given back").to_vec();
    assert_eq!((bytes[0], bytes[3583], bytes[3584], bytes[7679], bytes[7680]), (6, 6, 5, 5, 7));
    assert_eq!(desk.statistics().read_partial_hits, 1);
}

#[test]
fn a_request_in_many_fragments_is_read_whole_from_the_origin() {
    let mut desk = Desk::new(CacheMode::WriteThrough, 64);
    for line in (1..40).step_by(2) {
        desk.warm(line * LINE);
    }
    desk.read(0, 40 * LINE);
    assert_eq!((desk.origin.len(), desk.device.len()), (1, 0));
}

#[test]
fn validity_is_kept_by_block() {
    for line_size in LineSize::ALL.into_iter().skip(1) {
        let mut desk = Desk::with(CacheConfig { line_size, ..plain() }, 4);
        let id = desk.write(4096, 4096, 1);
        desk.settle(0);
        desk.reply(id);
        assert!(desk.is_hit(4096, 4096), "lines of {line_size}");
        assert!(desk.is_hit(4608, 512));
        assert!(!desk.is_hit(0, 8192), "block 0 was never cached");
        assert!(desk.is_hit(0, 8192), "and now it is");
    }
}

#[test]
fn a_write_of_part_of_a_block_drops_the_block() {
    let mut desk = Desk::new(CacheMode::WriteThrough, 4);
    desk.warm(0);
    desk.warm(LINE);
    let id = desk.write(512, 4096, 1);
    assert!(desk.device.is_empty(), "neither block is covered");
    desk.settle(0);
    desk.reply(id);
    assert!(!desk.is_hit(0, 512) && !desk.is_hit(LINE + 2048, 512));
}

#[test]
fn a_read_of_part_of_a_block_stores_the_block_and_returns_the_part() {
    let mut desk = Desk::new(CacheMode::WriteThrough, 4);
    let id = desk.read(512, 1024);
    assert_eq!(desk.origin[0].extent, Extent::new(0, 4096));
    let bytes: Vec<u8> = (0..4096).map(|at| (at / 512) as u8).collect();
    desk.origin[0].buffer.as_ref().expect("a buffer of its own").copy_from_slice(&bytes);
    desk.origin_answers_as_it_is();
    let got = desk.reply(id).buffer.expect("given back").to_vec();
    assert_eq!(got, bytes[512..1536]);
    assert_eq!(desk.device[0].buffer.as_ref().expect("data").to_vec(), bytes);
    desk.settle(0);
    assert!(desk.is_hit(0, 4096));
}

#[test]
fn the_last_block_of_a_volume_may_be_short() {
    let mut desk = Desk::with(CacheConfig::default(), 4);
    let id = desk.cache.add_volume(volume((1 << 20) + 1536)).expect("room");
    let buffer = desk.pool.allocate(1024);
    desk.cache.submit(NOW, id, Request::read(RequestId(1), (1 << 20) + 512, buffer)).expect("room");
    desk.collect();
    let extent = desk.origin[0].extent;
    assert!(extent.end() == (1 << 20) + 1536 && extent.offset <= 1 << 20, "{extent:?}");
    desk.settle(5);
    assert_eq!(desk.reply(RequestId(1)).result, Ok(()));
    let buffer = desk.pool.allocate(1536);
    desk.cache.submit(NOW, id, Request::read(RequestId(2), 1 << 20, buffer)).expect("room");
    desk.collect();
    assert!(desk.origin.is_empty(), "a hit");
    desk.settle(5);
}

#[test]
fn flush_and_force_unit_access_reach_the_origin() {
    let mut desk = Desk::new(CacheMode::WriteThrough, 4);
    let id = desk.id();
    desk.submit(Request::flush(id));
    assert_eq!(desk.origin_answers(0, Ok(())), Operation::Flush);
    desk.reply(id).result.expect("flushed");
    let (id, buffer) = (desk.id(), desk.pool.allocate(4096));
    desk.submit(Request::write(id, 0, buffer).with_force_unit_access(true));
    assert!(desk.origin[0].force_unit_access);
    assert!(!desk.device[0].force_unit_access, "the cache's copy need not be durable");
    desk.settle(0);
    desk.reply(id);
}

#[test]
fn discard_and_zeroes_drop_the_cached_copy_in_every_mode() {
    for mode in CacheMode::ALL {
        for zeroes in [false, true] {
            let mut desk = Desk::new(CacheMode::WriteThrough, 64);
            desk.warm(0);
            desk.warm(LINE);
            desk.set_mode(mode);
            let (id, extent) = (desk.id(), Extent::new(512, 2 << 20));
            desk.submit(match zeroes {
                true => Request::write_zeroes(id, extent),
                false => Request::discard(id, extent),
            });
            assert_eq!(desk.origin.len(), 3, "cut at regions of 1 MiB");
            desk.settle(0);
            desk.reply(id).result.expect("done");
            desk.set_mode(CacheMode::WriteThrough);
            assert!(!desk.is_hit(512, 512) && !desk.is_hit(LINE, 4096));
        }
    }
}

#[test]
fn large_requests_are_cut_within_the_bounds() {
    let config = CacheConfig { requests_max: 4, fills_max: 16, ..Default::default() };
    let mut desk = Desk::with(config, 64);
    let id = desk.read(512, 15 << 20);
    assert_eq!(desk.origin.len(), 8, "two pieces a request that may be in flight");
    desk.settle(4);
    let reply = desk.reply(id);
    assert!(reply.buffer.expect("given back").to_vec().iter().all(|byte| *byte == 4));
    assert!(desk.statistics().fills_dropped > 0, "no more than sixteen fills at once");
    for _ in 0..4 {
        desk.read(0, 512);
    }
    let refused = Request::flush(RequestId(99));
    assert_eq!(desk.cache.submit(NOW, VOLUME, refused).expect_err("full").id, RequestId(99));
}

#[test]
fn malformed_requests_are_answered_with_the_error_and_go_nowhere() {
    let mut desk = Desk::new(CacheMode::WriteThrough, 4);
    let buffer = desk.pool.allocate(512);
    let wrong = Request { extent: Extent::new(0, 1024), ..Request::read(RequestId(1), 0, buffer) };
    desk.submit(wrong);
    assert_eq!(desk.reply(RequestId(1)).result, Err(IoError::InvalidArgument));
    let id = desk.read(16 << 20, 512);
    assert_eq!(desk.reply(id).result, Err(IoError::OutOfRange));
    let id = desk.write(100, 512, 0);
    assert_eq!(desk.reply(id).result, Err(IoError::InvalidArgument));
    assert!(desk.quiet());
}

#[test]
fn sizes_that_cannot_work_are_refused_with_what_would() {
    let config = CacheConfig { line_size: LineSize::ALL[4], ..Default::default() };
    let space = CacheSpace { data_offset: 0, length: 1 << 20, transfer_max: 1 << 20 };
    let made = |space| Cache::in_memory(config.clone(), space, BufferPool::heap());
    let mut cache = made(space).expect("one set");
    let small = CacheSpace { length: (1 << 20) - 1, ..space };
    let error = made(small).err().expect("under one set");
    assert!(error.to_string().contains("one set of 16 lines of 64k (1048576 bytes)"), "{error}");
    let error = cache.add_volume(volume(1 << 50)).expect_err("too few sets");
    assert!(error.to_string().contains("274877906944 bytes in all"), "{error}");
}
