//! The engine under crash images of its cache device: whatever a power cut leaves there, an engine
//! that starts on it serves what the origin has.
//!
//! ```text
//!   run:    time passes ──▶ origin's bytes kept, marked in the recording ──▶ engine polled
//!   check:  image on a new cache device, the origin as it was at the mark ──▶ engine ──▶ reads
//! ```
//! The origin's copies cost next to nothing. Nothing is in flight to it when the engine starts
//! again, so every byte served, twice, must be the origin's.
//!
//! Absent: faults of the devices, which the seeds have; several volumes.

use std::rc::Rc;

use block_io::sim::{DiskFaults, Medium, Random, SimDisk, World, fill_pattern};
use block_io::{BufferPool, Completion, Extent, Geometry, Request, RequestId};

use super::crash_images::{BadImage, CrashImage, ImagePlan, Recording};
use super::engine::{Engine, Host, Setup};

const CAPACITY: u64 = 160 << 10;
const READ: u64 = 32 << 10;
const DEPTH: usize = 6;

/// One run and its images.
#[derive(Clone, Copy, Debug)]
pub struct ImageRun {
    /// Decides the requests and the images.
    pub seed: u64,
    /// Requests of the client.
    pub operations: u64,
    /// Of the cache device.
    pub volatile_cache: bool,
    /// See [`ImagePlan`].
    pub subsets: usize,
    /// See [`ImagePlan`].
    pub stride: usize,
}

/// Records a run and checks its images. Returns how many there were.
///
/// # Errors
/// The first image on which an engine serves something else than the origin has.
pub fn check_engine_images(run: &ImageRun) -> Result<usize, BadImage> {
    let recording = Recording::new();
    let origins = record(run, &recording);
    let ImageRun { seed, subsets, stride, volatile_cache, .. } = *run;
    let plan = ImagePlan { subsets, stride, volatile_cache, seed };
    recording.check_images(&Medium::default(), &plan, |image| serve(image, &origins))
}

/// Runs requests, some in flight together. Returns the origin's bytes at each mark.
fn record(run: &ImageRun, recording: &Recording) -> Vec<Medium> {
    let world = World::new(run.seed);
    let mut random = world.random("client");
    let (origin, cache_device) = disks(&world, run.volatile_cache);
    let start = [origin.clone()];
    let host = Rc::new(Host::default());
    let mut engine =
        Engine::start(&world, &Setup::cramped(), &start, &cache_device, &host, Some(recording));
    let pool = BufferPool::heap();
    let mut origins = vec![origin.medium()];
    let (mut next, mut done) = (0, Vec::new());
    while next < run.operations || !engine.is_idle() {
        if next < run.operations && engine.in_flight() < DEPTH && random.chance(600) {
            let request = request(&mut random, &pool, next);
            engine.submit(0, request).expect("fewer in flight than there may be");
            next += 1;
        } else {
            // Nothing to wait for is no reason to stop: there may be more to submit.
            world.advance();
            recording.mark(origins.len() as u64);
            origins.push(origin.medium());
        }
        while engine.poll(world.now(), &mut done) {}
        done.clear();
    }
    origins
}

fn request(random: &mut Random, pool: &BufferPool, number: u64) -> Request {
    let (id, sectors) = (RequestId(number), CAPACITY / 512);
    let first = random.below(sectors);
    let count = random.range(1..=24).min(sectors - first);
    let extent = Extent::new(first * 512, count * 512);
    let buffer = pool.allocate(extent.length as usize);
    match random.below(10) {
        0..5 => Request::read(id, extent.offset, buffer),
        5..9 => {
            fill_pattern(&buffer, number + 1, extent.offset);
            Request::write(id, extent.offset, buffer)
        }
        _ => Request::write_zeroes(id, extent),
    }
}

fn disks(world: &World, volatile_cache: bool) -> (SimDisk, SimDisk) {
    let origin = SimDisk::new(world, "origin", Geometry::new(CAPACITY));
    let bytes = Setup::cramped().cache_device_bytes();
    let geometry = Geometry { volatile_cache, ..Geometry::new(bytes) };
    let cache_device = SimDisk::new(world, "cache", geometry);
    origin.set_faults(DiskFaults::unordered());
    cache_device.set_faults(DiskFaults::unordered());
    (origin, cache_device)
}

/// Starts on an image and reads everything twice: the second time more of it is in the cache.
fn serve(image: &CrashImage, origins: &[Medium]) -> Result<(), String> {
    let world = World::new(1);
    let (origin, cache_device) = disks(&world, false);
    origin.set_medium(origins[image.mark as usize].clone());
    cache_device.set_medium(image.medium.clone());
    let right = origins[image.mark as usize].clone();
    let (setup, host) = (Setup::cramped(), Rc::new(Host::default()));
    let mut engine = Engine::start(&world, &setup, &[origin], &cache_device, &host, None);
    let pool = BufferPool::heap();
    let mut done: Vec<(usize, Completion)> = Vec::new();
    for round in ["first", "second"] {
        for extent in Extent::new(0, CAPACITY).split(READ) {
            let buffer = pool.allocate(extent.length as usize);
            buffer.fill(0xA5);
            let request = Request::read(RequestId(extent.offset), extent.offset, buffer.clone());
            engine.submit(0, request).expect("one in flight");
            while engine.in_flight() > 0 {
                if !engine.poll(world.now(), &mut done) && !world.advance() {
                    return Err(format!("the {round} read of {extent} never ends"));
                }
            }
            let result = done.pop().map(|(_, completion)| completion.result);
            if result != Some(Ok(())) || buffer.to_vec() != right.read(extent) {
                return Err(format!("the {round} read of {extent}: {result:?}, other bytes"));
            }
        }
    }
    Ok(())
}
