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
