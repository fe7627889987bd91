//! Devices that fail (invariants 6, 7, 8 and 14 of a cache): a cache device never fails a request,
//! an origin's error reaches the client and leaves nothing valid behind.

use super::*;

#[test]
fn a_failed_cache_read_is_answered_from_the_origin() {
    let mut desk = Desk::new(CacheMode::WriteThrough, 4);
    desk.warm(0);
    let id = desk.read(512, 1024);
    desk.device_answers(0, Err(IoError::Media));
    assert!(desk.replies.is_empty());
    assert_eq!(desk.origin[0].extent, Extent::new(0, 4096));
    desk.origin_answers(8, Ok(()));
    let reply = desk.reply(id);
    assert_eq!(reply.result, Ok(()));
    assert_eq!(reply.buffer.expect("given back").to_vec(), [8; 1024]);
    assert_eq!(desk.statistics().cache_read_errors, 1);
    assert_eq!(desk.device.len(), 1, "what could not be read is stored anew");
    desk.settle(0);
    assert!(desk.is_hit(512, 1024));
}

#[test]
fn a_failed_store_is_a_later_miss() {
    let mut desk = Desk::new(CacheMode::WriteThrough, 4);
    let id = desk.write(0, 4096, 1);
    desk.device_answers(0, Err(IoError::NoSpace));
    desk.origin_answers(0, Ok(()));
    assert_eq!(desk.reply(id).result, Ok(()));
    assert_eq!(desk.statistics().cache_write_errors, 1);
    assert!(!desk.is_hit(0, 4096));
    assert!(desk.is_hit(0, 4096));
}

#[test]
fn nothing_is_stored_over_what_another_read_holds() {
    let mut desk = Desk::new(CacheMode::WriteThrough, 4);
    desk.warm(0);
    desk.warm(LINE);
    // Of two lines each, so that they hold locks.
    let failed = desk.read(0, 2 * LINE);
    let other = desk.read(0, 2 * LINE);
    desk.device_answers(0, Err(IoError::Media));
    desk.device_answers(1, Ok(()));
    desk.origin_answers(1, Ok(()));
    assert_eq!(desk.reply(failed).result, Ok(()));
    assert!(desk.device.iter().all(|request| request.operation == Operation::Read));
    desk.settle(1);
    desk.reply(other);
    assert!(desk.is_hit(0, 512), "the last one to read it stores it");
}

#[test]
fn a_hit_in_place_whose_blocks_are_stored_anew_starts_again() {
    let mut desk = Desk::new(CacheMode::WriteThrough, 4);
    desk.warm(0);
    let failed = desk.read(0, 512);
    let other = desk.read(0, 1024);
    desk.device_answers(0, Err(IoError::Media));
    desk.origin_answers(1, Ok(()));
    assert_eq!(desk.reply(failed).result, Ok(()));
    assert_eq!(desk.device_answers(9, Ok(())), Operation::Read, "torn, as far as it knows");
    assert!(desk.replies.is_empty());
    assert_eq!(desk.statistics().hit_retries, 1);
    desk.settle(1);
    assert_eq!(desk.reply(other).buffer.expect("given back").to_vec(), [1; 1024]);
}

#[test]
fn a_store_leaves_alone_what_is_valid_in_its_line() {
    let mut desk = Desk::with(plain(), 4);
    let id = desk.read(4096, 4096);
    desk.settle(1);
    desk.reply(id);
    let id = desk.read(0, 16384);
    desk.origin_answers(1, Ok(()));
    desk.reply(id);
    let base = desk.device[0].extent.offset;
    let stored: Vec<_> = desk.device.iter().map(|request| request.extent).collect();
    assert_eq!(stored, [Extent::new(base, 4096), Extent::new(base + 8192, 8192)]);
    desk.device_answers(0, Err(IoError::Media));
    desk.device_answers(0, Ok(()));
    assert!(desk.is_hit(4096, 12288), "the failed store took nothing with it");
    assert!(!desk.is_hit(0, 1024));
}

#[test]
fn an_origin_error_reaches_the_client_and_nothing_stays_valid() {
    for device_first in [true, false] {
        let mut desk = Desk::new(CacheMode::WriteThrough, 4);
        desk.warm(0);
        let id = desk.write(0, 4096, 2);
        if device_first {
            desk.device_answers(0, Ok(()));
            desk.origin_answers(0, Err(IoError::Media));
        } else {
            desk.origin_answers(0, Err(IoError::Media));
            desk.device_answers(0, Ok(()));
        }
        assert_eq!(desk.reply(id).result, Err(IoError::Media));
        assert!(!desk.is_hit(0, 512), "neither old nor new content may be served");
    }
}

#[test]
fn a_failed_read_of_the_origin_fills_nothing() {
    let mut desk = Desk::new(CacheMode::WriteThrough, 4);
    let id = desk.read(0, 4096);
    desk.origin_answers(0, Err(IoError::TimedOut));
    assert_eq!(desk.reply(id).result, Err(IoError::TimedOut));
    assert!(desk.quiet());
    assert!(!desk.is_hit(0, 4096));
}

#[test]
fn nothing_is_cached_of_a_range_that_a_lost_write_may_still_reach() {
    for lost in [IoError::TimedOut, IoError::ConnectionLost, IoError::Cancelled] {
        let mut desk = Desk::new(CacheMode::WriteThrough, 4);
        desk.warm(0);
        let id = desk.write(0, 4096, 2);
        desk.origin_answers(0, Err(lost));
        assert_eq!(desk.reply(id).result, Err(lost));
        desk.settle(0);
        for _ in 0..2 {
            assert!(!desk.is_hit(0, 4096), "the late write would make it stale");
        }
        let id = desk.write(0, 4096, 3);
        desk.settle(0);
        desk.reply(id);
        assert!(!desk.is_hit(0, 4096));
        desk.warm(LINE);
        assert!(desk.is_hit(LINE, 4096), "its neighbours are not in doubt");
        desk.cache.fence(VOLUME);
        desk.warm(0);
        assert!(desk.is_hit(0, 4096));
    }
}

#[test]
fn one_failed_piece_fails_the_request_once() {
    let mut desk = Desk::new(CacheMode::WriteThrough, 64);
    let id = desk.write(512, 3 << 20, 1);
    assert_eq!(desk.origin.len(), 4);
    desk.origin_answers(0, Ok(()));
    desk.origin_answers(0, Err(IoError::NoSpace));
    desk.origin_answers(0, Err(IoError::Media));
    assert!(desk.replies.is_empty());
    desk.origin_answers(0, Ok(()));
    assert_eq!(desk.reply(id).result, Err(IoError::NoSpace));
    assert_eq!(desk.statistics().origin_errors, 1);
}

#[test]
fn what_an_origin_may_have_lost_is_not_served() {
    for flushed in [false, true] {
        let mut desk = Desk::new(CacheMode::WriteThrough, 4);
        let mut settings = volume(16 << 20);
        settings.name = "volatile".into();
        settings.geometry.volatile_cache = true;
        let id = desk.cache.add_volume(settings).expect("room");
        let buffer = desk.pool.allocate(4096);
        desk.cache.submit(NOW, id, Request::write(RequestId(1), 0, buffer)).expect("room");
        desk.collect();
        desk.settle(0);
        desk.reply(RequestId(1)).result.expect("written");
        if flushed {
            desk.cache.submit(NOW, id, Request::flush(RequestId(2))).expect("room");
            desk.collect();
            desk.settle(0);
            desk.reply(RequestId(2)).result.expect("flushed");
        }
        desk.cache.fence(id);
        let buffer = desk.pool.allocate(4096);
        desk.cache.submit(NOW, id, Request::read(RequestId(3), 0, buffer)).expect("room");
        desk.collect();
        assert_eq!(desk.origin.is_empty(), flushed, "a hit only when it was flushed");
        desk.settle(0);
        desk.reply(RequestId(3)).result.expect("read");
    }
}

#[test]
fn what_an_origin_has_not_flushed_it_may_lose_again_and_again() {
    // Whatever a write was told: it may have been done, and be volatile.
    for told in [Ok(()), Err(IoError::Media), Err(IoError::ConnectionLost)] {
        let mut desk = Desk::new(CacheMode::WriteThrough, 4);
        let mut settings = volume(16 << 20);
        settings.name = "volatile".into();
        settings.geometry.volatile_cache = true;
        let id = desk.cache.add_volume(settings).expect("room");
        let read = |desk: &mut Desk, name: u64| {
            let buffer = desk.pool.allocate(4096);
            desk.cache.submit(NOW, id, Request::read(RequestId(name), 0, buffer)).expect("room");
            desk.collect();
            let is_hit = desk.origin.is_empty();
            desk.settle(0);
            desk.reply(RequestId(name)).result.expect("read");
            is_hit
        };
        let buffer = desk.pool.allocate(4096);
        desk.cache.submit(NOW, id, Request::write(RequestId(1), 0, buffer)).expect("room");
        desk.collect();
        desk.origin_answers(0, told);
        desk.settle(0);
        assert_eq!(desk.reply(RequestId(1)).result, told);
        desk.cache.fence(id);
        assert!(!read(&mut desk, 2) && read(&mut desk, 3), "{told:?}: it is cached anew");
        desk.cache.fence(id);
        assert!(!read(&mut desk, 4), "{told:?}: it may be gone now");
        for (name, expected) in [(5, Err(IoError::ConnectionLost)), (7, Ok(()))] {
            desk.cache.submit(NOW, id, Request::flush(RequestId(name))).expect("room");
            desk.collect();
            desk.settle(0);
            assert_eq!(desk.reply(RequestId(name)).result, expected, "{told:?}: it is told once");
        }
        desk.cache.fence(id);
        assert!(read(&mut desk, 6), "{told:?}: it is durable");
    }
}

#[test]
fn a_write_that_an_origin_may_have_lost_a_part_of_fails() {
    for (force, expected) in [(false, Err(IoError::ConnectionLost)), (true, Ok(()))] {
        let mut desk = Desk::new(CacheMode::WriteThrough, 4);
        let mut settings = volume(16 << 20);
        settings.name = "volatile".into();
        settings.geometry.volatile_cache = true;
        let id = desk.cache.add_volume(settings).expect("room");
        // One piece in each of two regions.
        let buffer = desk.pool.allocate(8192);
        let write = Request::write(RequestId(1), (1 << 20) - 4096, buffer);
        desk.cache.submit(NOW, id, write.with_force_unit_access(force)).expect("room");
        desk.collect();
        assert_eq!(desk.origin.len(), 2);
        desk.origin_answers(0, Ok(()));
        desk.cache.fence(id);
        desk.settle(0);
        assert_eq!(desk.reply(RequestId(1)).result, expected);
    }
}

#[test]
fn an_origin_that_nobody_flushes_is_flushed_when_there_is_much_to_lose() {
    let mut desk = Desk::new(CacheMode::WriteAround, 4);
    let mut settings = volume(4 << 30);
    settings.name = "volatile".into();
    settings.geometry.volatile_cache = true;
    let id = desk.cache.add_volume(settings).expect("room");
    for extent in 0..super::super::unflushed::EXTENTS_MAX as u64 {
        assert!(desk.origin.is_empty(), "not before");
        let request = Request::write(RequestId(extent), extent << 22, desk.pool.allocate(512));
        desk.cache.submit(NOW, id, request).expect("room");
        desk.collect();
        desk.origin_answers(0, Ok(()));
        desk.reply(RequestId(extent)).result.expect("written");
    }
    assert_eq!(desk.origin_answers(0, Ok(())), Operation::Flush);
    assert!(desk.quiet());
}

#[test]
fn a_flush_fails_once_when_an_origin_may_have_lost_what_it_had_acknowledged() {
    for (force, flushed, fails) in
        [(false, false, true), (true, false, false), (false, true, false)]
    {
        let mut desk = Desk::new(CacheMode::WriteAround, 4);
        let mut settings = volume(16 << 20);
        settings.name = "volatile".into();
        settings.geometry.volatile_cache = true;
        let id = desk.cache.add_volume(settings).expect("room");
        let run = |desk: &mut Desk, request: Request| {
            let name = request.id;
            desk.cache.submit(NOW, id, request).expect("room");
            desk.collect();
            desk.settle(0);
            desk.reply(name).result
        };
        let write = Request::write(RequestId(1), 0, desk.pool.allocate(4096));
        assert_eq!(run(&mut desk, write.with_force_unit_access(force)), Ok(()));
        if flushed {
            assert_eq!(run(&mut desk, Request::flush(RequestId(2))), Ok(()));
        }
        desk.cache.fence(id);
        let expected = if fails { Err(IoError::ConnectionLost) } else { Ok(()) };
        assert_eq!(run(&mut desk, Request::flush(RequestId(3))), expected, "{force} {flushed}");
        assert_eq!(run(&mut desk, Request::flush(RequestId(4))), Ok(()), "told once");
        desk.cache.fence(id);
        assert_eq!(run(&mut desk, Request::flush(RequestId(5))), Ok(()), "nothing was lost since");
        let told = desk.cache.statistics(id).expect("there").losses_told;
        assert_eq!(told, u64::from(fails));
    }
}
