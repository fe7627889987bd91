//! The simulated disk keeps the contract when it should and breaks what it is told to break; the
//! reference judges it.

use std::collections::BTreeSet;
use std::time::Duration;

use super::*;
use crate::sim::{Mismatch, ReferenceDisk, Turn, fill_pattern};
use crate::{Buffer, BufferPool, IoError, Operation, RequestId};

const CAPACITY: u64 = 64 << 10;

fn disk(seed: u64, faults: DiskFaults) -> (World, SimDisk) {
    with_geometry(seed, faults, Geometry::new(CAPACITY))
}

fn with_geometry(seed: u64, faults: DiskFaults, geometry: Geometry) -> (World, SimDisk) {
    let world = World::new(seed);
    let disk = SimDisk::new(&world, "disk", geometry);
    disk.set_faults(faults);
    (world, disk)
}

fn filled(length: usize, value: u8) -> Buffer {
    let buffer = BufferPool::heap().allocate(length);
    buffer.fill(value);
    buffer
}

/// Submits and waits for everything in flight on the queue.
fn run(world: &World, queue: &mut SimQueue, requests: Vec<Request>) -> Vec<Completion> {
    for request in requests {
        queue.submit(request).expect("room");
    }
    let mut completions = Vec::new();
    let finished = world.run(|now| match queue.poll(now, &mut completions) {
        true => Turn::Progress,
        false if queue.in_flight() == 0 => Turn::Done,
        false => Turn::Idle,
    });
    finished.expect("requests end");
    completions
}

fn one(world: &World, queue: &mut SimQueue, request: Request) -> Completion {
    run(world, queue, vec![request]).pop().expect("one completion")
}

/// A random request over a small device, so that requests overlap.
fn random_request(random: &mut Random, pool: &BufferPool, id: u64) -> Request {
    let first = random.below(CAPACITY / 512);
    let count = random.range(1..=16.min(CAPACITY / 512 - first));
    let extent = Extent::new(first * 512, count * 512);
    let id = RequestId(id);
    match random.below(100) {
        0..40 => Request::read(id, extent.offset, pool.allocate(extent.length as usize)),
        40..80 => {
            let buffer = pool.allocate(extent.length as usize);
            fill_pattern(&buffer, id.0, extent.offset);
            Request::write(id, extent.offset, buffer).with_force_unit_access(random.chance(100))
        }
        80..85 => Request::discard(id, extent),
        85..90 => Request::write_zeroes(id, extent),
        _ => Request::flush(id),
    }
}

/// Random requests, many in flight, judged by `reference`.
fn workload(
    world: &World,
    disk: &SimDisk,
    reference: &mut ReferenceDisk,
    ids: std::ops::Range<u64>,
) -> Result<(), Mismatch> {
    let pool = BufferPool::heap();
    let mut random = world.random("workload").fork(&ids.start.to_string());
    let mut queue = disk.open_queue(world, 16).expect("opens");
    let mut completions = Vec::new();
    let mut ids = ids.peekable();
    while ids.peek().is_some() || queue.in_flight() > 0 {
        if queue.in_flight() < 16 && ids.peek().is_some() && random.chance(700) {
            let id = ids.next().expect("peeked");
            let request = random_request(&mut random, &pool, id);
            reference.begin(&request);
            queue.submit(request).expect("room");
        } else {
            world.advance();
        }
        queue.poll(world.now(), &mut completions);
        for completion in completions.drain(..) {
            reference.complete(&completion)?;
        }
    }
    Ok(())
}

#[test]
fn any_order_and_any_error_satisfies_the_reference() {
    for seed in 0..300 {
        let (world, disk) = disk(seed, DiskFaults::hostile(20));
        let mut reference = ReferenceDisk::new(seed, CAPACITY);
        let end = workload(&world, &disk, &mut reference, 1..200);
        end.unwrap_or_else(|mismatch| panic!("{mismatch}"));
        let content = disk.content(Extent::new(0, CAPACITY));
        reference.check_content(0, &content).unwrap_or_else(|mismatch| panic!("{mismatch}"));
    }
}

#[test]
fn requests_complete_once_with_their_buffer_and_bytes() {
    let (world, disk) = disk(1, DiskFaults::default());
    let mut queue = disk.open_queue(&world, 4).expect("opens");
    let write = Request::write(RequestId(1), 1024, filled(1024, 7));
    assert_eq!(one(&world, &mut queue, write).result, Ok(()));
    let zeroes = Request::write_zeroes(RequestId(2), Extent::new(1536, 512));
    assert_eq!(one(&world, &mut queue, zeroes).result, Ok(()));
    let done = one(&world, &mut queue, Request::read(RequestId(3), 512, filled(1536, 1)));
    let bytes = done.buffer.expect("given back").to_vec();
    assert_eq!((&bytes[..512], &bytes[512..1024]), (&[0; 512][..], &[7; 512][..]));
    assert_eq!(bytes[1024..], [0; 512]);
    let counters = disk.counters();
    assert_eq!((counters.reads, counters.bytes_read, counters.requests()), (1, 1536, 3));
    disk.reset_counters();
    assert_eq!(disk.counters(), DiskCounters::default());
}

#[test]
fn nothing_completes_in_submit_and_a_full_queue_hands_back() {
    let (world, disk) = disk(1, DiskFaults::default());
    let mut queue = disk.open_queue(&world, 1).expect("opens");
    queue.submit(Request::flush(RequestId(1))).expect("room");
    let back = queue.submit(Request::flush(RequestId(2))).expect_err("full");
    assert_eq!((back.id, queue.in_flight()), (RequestId(2), 1));
    let mut completions = Vec::new();
    assert!(!queue.poll(world.now(), &mut completions));
    assert!(world.advance());
    assert!(world.now().since(Timestamp(0)) >= Duration::from_micros(10));
    assert!(queue.poll(world.now(), &mut completions));
    assert_eq!((completions.len(), queue.in_flight()), (1, 0));
    assert!(disk.open_queue(&World::new(1), 1).is_err(), "another world");
}

#[test]
#[should_panic(expected = "seed 5, disk disk: Read 65536+512 (RequestId(1)) was submitted against")]
fn a_breach_of_the_contract_panics_with_the_seed() {
    let (world, disk) = disk(5, DiskFaults::default());
    let mut queue = disk.open_queue(&world, 1).expect("opens");
    let _ = queue.submit(Request::read(RequestId(1), CAPACITY, filled(512, 0)));
}

#[test]
fn bytes_are_taken_when_the_write_takes_effect() {
    let (world, disk) = disk(1, DiskFaults::default());
    let mut queue = disk.open_queue(&world, 1).expect("opens");
    let buffer = filled(512, 1);
    queue.submit(Request::write(RequestId(1), 0, buffer.clone())).expect("room");
    buffer.fill(2);
    while world.advance() {}
    assert_eq!(disk.content(Extent::new(0, 512)), [2; 512]);
}

#[test]
fn order_is_kept_unless_told_otherwise() {
    let order = |faults: DiskFaults| {
        let (world, disk) = disk(3, faults);
        let mut queue = disk.open_queue(&world, 16).expect("opens");
        let requests = (1..=16).map(|id| Request::write(RequestId(id), 0, filled(512, id as u8)));
        let done = run(&world, &mut queue, requests.collect());
        let last = disk.content(Extent::new(0, 1))[0];
        (done.iter().map(|done| done.id.0).collect::<Vec<_>>(), last)
    };
    assert_eq!(order(DiskFaults::default()), ((1..=16).collect(), 16));
    let (completed, last) = order(DiskFaults { reorder: true, ..DiskFaults::default() });
    assert_ne!(completed, (1..=16).collect::<Vec<_>>());
    assert_ne!(last, 16, "seed 3 applies them in another order");
}

/// How often a failed write of 8 sectors of ones left (nothing, some, all).
fn failed_writes(set: impl Fn(&mut DiskFaults)) -> (u32, u32, u32) {
    let mut outcomes = (0, 0, 0);
    for seed in 0..50 {
        let (world, disk) = disk(seed, DiskFaults::default());
        disk.change_faults(&set);
        let mut queue = disk.open_queue(&world, 1).expect("opens");
        let write = Request::write(RequestId(1), 4096, filled(4096, 1));
        assert!(one(&world, &mut queue, write).result.is_err());
        let content = disk.content(Extent::new(4096, 4096));
        assert!(content.chunks(512).all(|sector| sector == [sector[0]; 512]));
        match content.iter().filter(|byte| **byte == 1).count() {
            0 => outcomes.0 += 1,
            4096 => outcomes.2 += 1,
            _ => outcomes.1 += 1,
        }
    }
    outcomes
}

#[test]
fn failed_writes_leave_what_they_were_told_to() {
    assert_eq!(failed_writes(|faults| faults.write_error_nothing_applied = 1000), (50, 0, 0));
    assert_eq!(failed_writes(|faults| faults.write_error_applied = 1000), (0, 0, 50));
    let (_, some, _) = failed_writes(|faults| faults.write_error_torn = 1000);
    assert!(some > 30, "torn writes occur: {some}");
    assert_eq!(failed_writes(|faults| faults.bad_ranges = vec![Extent::new(8191, 1)]), (50, 0, 0));
    let (nothing, some, all) = failed_writes(|faults| faults.lost = 1000);
    assert!(nothing > 5 && some == 0 && all > 5, "{nothing} {some} {all}");
}

#[test]
fn a_failed_reads_buffer_is_garbage_and_the_kind_is_the_chosen_one() {
    let faults = DiskFaults { read_error: 1000, error: IoError::Other(5), ..Default::default() };
    let (world, disk) = disk(1, faults);
    let mut queue = disk.open_queue(&world, 1).expect("opens");
    let done = one(&world, &mut queue, Request::read(RequestId(1), 0, filled(512, 0)));
    assert_eq!(done.result, Err(IoError::Other(5)));
    assert_ne!(done.buffer.expect("given back").to_vec(), [0; 512]);
    assert_eq!(disk.counters().errors, 1);
    let flush = one(&world, &mut queue, Request::flush(RequestId(2)));
    assert_eq!(flush.result, Ok(()));
}

#[test]
fn a_device_that_is_gone_fails_everything_and_comes_back() {
    let (world, disk) = disk(1, DiskFaults { hang: 500, ..DiskFaults::default() });
    let mut queue = disk.open_queue(&world, 16).expect("opens");
    for id in 0..8 {
        queue.submit(Request::write(RequestId(id), 0, filled(512, 1))).expect("room");
    }
    assert!((1..8).contains(&disk.hung()), "{}", disk.hung());
    disk.fail_all(true);
    let done = run(&world, &mut queue, vec![Request::flush(RequestId(8))]);
    assert_eq!(done.len(), 9);
    assert!(done.iter().all(|done| done.result == Err(IoError::Media)));
    assert_eq!(disk.content(Extent::new(0, 512)), [0; 512]);
    disk.fail_all(false);
    disk.set_faults(DiskFaults::default());
    assert_eq!(one(&world, &mut queue, Request::flush(RequestId(1))).result, Ok(()));
}

#[test]
fn hanging_requests_go_on_when_released_and_slow_ones_take_longer() {
    let (world, disk) = disk(1, DiskFaults { hang: 1000, ..DiskFaults::default() });
    let mut queue = disk.open_queue(&world, 1).expect("opens");
    queue.submit(Request::write(RequestId(1), 0, filled(512, 1))).expect("room");
    assert!(!world.advance(), "it waits for ever");
    disk.set_faults(DiskFaults { slow: 1000, ..DiskFaults::default() });
    disk.release_hung();
    let done = run(&world, &mut queue, vec![]);
    assert_eq!(done.len(), 1);
    assert!(world.now().since(Timestamp(0)) > Duration::from_millis(100));
}

#[test]
fn a_lost_write_may_come_late_until_the_fence() {
    let late = Duration::from_secs(1);
    let (mut came_late, mut fenced_off) = (0, 0);
    for seed in 0..60 {
        let (world, disk) =
            disk(seed, DiskFaults { lost: 1000, late_max: late, ..Default::default() });
        let mut queue = disk.open_queue(&world, 1).expect("opens");
        let buffer = filled(512, 1);
        let done = one(&world, &mut queue, Request::write(RequestId(1), 0, buffer.clone()));
        let error = done.result.expect_err("lost");
        assert!(matches!(error, IoError::ConnectionLost | IoError::TimedOut));
        // What is still on its way left the buffer before the completion gave it back.
        buffer.fill(9);
        let after_completion = disk.content(Extent::new(0, 1))[0];
        if disk.late_writes() == 1 {
            assert_eq!(after_completion, 0);
            if seed % 2 == 0 {
                while world.advance() {}
                assert_eq!(disk.content(Extent::new(0, 512)), [1; 512]);
                came_late += 1;
            } else {
                disk.fence();
                let fenced = disk.content(Extent::new(0, 512));
                while world.advance() {}
                assert_eq!(disk.content(Extent::new(0, 512)), fenced);
                fenced_off += u32::from(fenced[0] == 0);
            }
        }
        assert_eq!(disk.late_writes(), 0);
    }
    assert!(came_late > 0 && fenced_off > 0, "{came_late} {fenced_off}");
}

#[test]
fn flush_and_force_unit_access_survive_a_power_cut_and_the_rest_may_not() {
    let mut survivors = BTreeSet::new();
    for seed in 0..100 {
        let geometry = Geometry { volatile_cache: true, ..Geometry::new(CAPACITY) };
        let (world, disk) = with_geometry(seed, DiskFaults::unordered(), geometry);
        let mut queue = disk.open_queue(&world, 8).expect("opens");
        one(&world, &mut queue, Request::write(RequestId(1), 0, filled(1024, 1)));
        one(&world, &mut queue, Request::flush(RequestId(2)));
        let forced = Request::write(RequestId(3), 1024, filled(512, 2));
        one(&world, &mut queue, forced.with_force_unit_access(true));
        assert!(!disk.has_volatile_content());
        one(&world, &mut queue, Request::write(RequestId(4), 0, filled(1024, 3)));
        assert_eq!(disk.content(Extent::new(0, 1024)), [3; 1024]);
        assert_eq!(disk.durable_content(Extent::new(0, 1024)), [1; 1024]);
        queue.submit(Request::write(RequestId(5), 4096, filled(4096, 5))).expect("room");
        disk.power_cut(&mut world.random("power"));
        let done = run(&world, &mut queue, vec![]);
        assert_eq!(done.len(), 1);
        assert_eq!(done[0].result, Err(IoError::ConnectionLost));
        assert_eq!(disk.content(Extent::new(1024, 512)), [2; 512]);
        let content = disk.content(Extent::new(0, 1024));
        let in_flight = disk.content(Extent::new(4096, 4096));
        let partly = in_flight.contains(&5) && in_flight.contains(&0);
        survivors.insert((content[0], content[512], partly));
        while world.advance() {}
        assert_eq!(disk.content(Extent::new(4096, 4096)), in_flight, "nothing comes later");
    }
    let pairs: BTreeSet<_> = survivors.iter().map(|(first, second, _)| (*first, *second)).collect();
    assert_eq!(pairs, BTreeSet::from([(1, 1), (1, 3), (3, 1), (3, 3)]));
    assert!(survivors.iter().any(|survivor| survivor.2), "writes in flight are torn too");
}

#[test]
fn power_cuts_satisfy_the_reference() {
    for seed in 0..200 {
        let volatile_cache = seed % 2 == 0;
        let geometry = Geometry { volatile_cache, ..Geometry::new(CAPACITY) };
        let (world, disk) = with_geometry(seed, DiskFaults::hostile(10), geometry);
        let mut reference = ReferenceDisk::new(seed, CAPACITY).with_volatile_cache(volatile_cache);
        let mut random = world.random("power");
        for round in 0..4 {
            let first = round * 100 + 1;
            let end = workload(&world, &disk, &mut reference, first..first + 60);
            end.unwrap_or_else(|mismatch| panic!("{mismatch}"));
            let mut queue = disk.open_queue(&world, 16).expect("opens");
            let pool = BufferPool::heap();
            for id in first + 60..first + 70 {
                let request = random_request(&mut random, &pool, id);
                reference.begin(&request);
                queue.submit(request).expect("room");
            }
            world.advance();
            disk.power_cut(&mut random);
            reference.power_cut();
            let content = disk.content(Extent::new(0, CAPACITY));
            reference.check_content(0, &content).unwrap_or_else(|mismatch| panic!("{mismatch}"));
        }
    }
}

#[test]
fn lost_and_late_writes_satisfy_the_reference_that_knows_of_them() {
    let faults = |late_max| DiskFaults { lost: 50, late_max, ..DiskFaults::unordered() };
    for seed in 0..200 {
        let (world, disk) = disk(seed, faults(Duration::from_millis(5)));
        let mut reference = ReferenceDisk::new(seed, CAPACITY).with_late_writes(true);
        for start in [1, 1001] {
            let end = workload(&world, &disk, &mut reference, start..start + 150);
            end.unwrap_or_else(|mismatch| panic!("{mismatch}"));
            disk.fence();
            reference.fence();
            let content = disk.content(Extent::new(0, CAPACITY));
            reference.check_content(0, &content).unwrap_or_else(|mismatch| panic!("{mismatch}"));
            reference.check_content(0, &content).unwrap_or_else(|mismatch| panic!("{mismatch}"));
        }
    }
    let caught = (0..200).any(|seed| {
        let (world, disk) = disk(seed, faults(Duration::from_millis(5)));
        let mut strict = ReferenceDisk::new(seed, CAPACITY);
        workload(&world, &disk, &mut strict, 1..300).is_err()
    });
    assert!(caught, "a reference that does not expect late writes finds them");
}

#[test]
fn the_same_seed_is_the_same_event_log() {
    let log = |seed| {
        let (world, disk) = disk(seed, DiskFaults::hostile(50));
        disk.set_logging(true);
        let mut reference = ReferenceDisk::new(seed, CAPACITY);
        workload(&world, &disk, &mut reference, 1..200).expect("right");
        disk.log()
    };
    assert_eq!(log(11), log(11));
    assert_ne!(log(11), log(12));
    assert!(log(11).iter().any(|entry| entry.operation == Operation::Discard));
    let line = log(11)[0].to_string();
    assert!(line.contains("ns  #0") && line.ends_with("Submitted"), "{line}");
}
