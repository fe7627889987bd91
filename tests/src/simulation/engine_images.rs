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
//! The volume is of several extents, of which few are written at a time and named at once, so that
//! some lines outlive each power cut: what is served from before it is counted.
//!
//! Absent: faults of the devices, which the seeds have; several volumes.

use std::rc::Rc;
use std::time::Duration;

use block_io::sim::{DiskFaults, Medium, Random, SimDisk, World, fill_pattern};
use block_io::{BufferPool, Completion, Extent, Geometry, Request, RequestId};

use super::counts::Counts;
use super::crash_images::{BadImage, CrashImage, ImagePlan, Recording};
use super::engine::Engine;
use super::host::Host;
use super::setup::Setup;

/// Places that clients go to, each in an extent of its own.
const PLACES: u64 = 6;
const PLACE_LENGTH: u64 = 28 << 10;
/// From one place to the next: more than an extent.
const PLACE_DISTANCE: u64 = 5 << 20;
const CAPACITY: u64 = (PLACES - 1) * PLACE_DISTANCE + PLACE_LENGTH;
/// A pause after so many requests, longer than a record waits for others.
const REST_AFTER: u64 = 30;
const REST: Duration = Duration::from_millis(15);
/// Requests between which the same place is written to.
const WRITTEN_FOR: u64 = 40;
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

/// What the images of a run were.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CheckedImages {
    /// How many.
    pub images: usize,
    /// Of these, how many had a line that was served again.
    pub warm: usize,
    /// Lines of before the power cut that were served, of all images.
    pub warm_lines: u64,
    /// Lines that were recorded and not what had been stored.
    pub mismatches: u64,
}

/// Records a run and checks its images.
///
/// # Errors
/// The first image on which an engine serves something else than the origin has.
pub fn check_engine_images(run: &ImageRun) -> Result<CheckedImages, BadImage> {
    let recording = Recording::new();
    let origins = record(run, &recording);
    let ImageRun { seed, subsets, stride, volatile_cache, .. } = *run;
    let plan = ImagePlan { subsets, stride, volatile_cache, seed };
    let mut checked = CheckedImages::default();
    checked.images = recording.check_images(&Medium::default(), &plan, |image| {
        let counts = serve(image, &origins)?;
        checked.warm += usize::from(counts.lines_verified > 0);
        checked.warm_lines += counts.lines_verified;
        checked.mismatches += counts.checksum_mismatches;
        Ok(())
    })?;
    Ok(checked)
}

/// Runs requests, some in flight together. Returns the origin's bytes at each mark.
fn record(run: &ImageRun, recording: &Recording) -> Vec<Medium> {
    let world = World::new(run.seed);
    let mut random = world.random("client");
    let (origin, cache_device) = disks(&world, run.volatile_cache);
    let start = [origin.clone()];
    let host = Rc::new(Host::default());
    let (setup, pool) = (Setup::cramped(), BufferPool::heap());
    let known = (&host, &pool);
    let mut engine = Engine::start(&world, &setup, &start, &cache_device, known, Some(recording));
    let mut origins = vec![origin.medium()];
    let (mut next, mut done) = (0, Vec::new());
    // Now and then nobody asks for anything, until what is known of the lines is recorded.
    let mut rest = None;
    while next < run.operations || !engine.is_idle() {
        if next % REST_AFTER == 0 && next > 0 && rest.is_none_or(|(after, _)| after != next) {
            rest = Some((next, world.now() + REST));
        }
        let rests = rest.is_some_and(|(after, until)| after == next && world.now() < until);
        if !rests && next < run.operations && engine.in_flight() < DEPTH && random.chance(600) {
            let request = request(&mut random, &pool, next);
            engine.submit(0, request).expect("fewer in flight than there may be");
            next += 1;
        } else {
            // Nothing to wait for is no reason to stop: there may be more to submit.
            if !world.advance() {
                rest = rest.map(|(after, _)| (after, world.now()));
            }
            recording.mark(origins.len() as u64);
            origins.push(origin.medium());
        }
        while engine.poll(world.now(), &mut done) {}
        done.clear();
    }
    origins
}

fn request(random: &mut Random, pool: &BufferPool, number: u64) -> Request {
    let (id, sectors) = (RequestId(number), PLACE_LENGTH / 512);
    let kind = random.below(10);
    let place = match kind {
        0..5 => random.below(PLACES),
        // Writes go around, slowly.
        _ => (number / WRITTEN_FOR + random.below(2)) % PLACES,
    };
    let first = random.below(sectors);
    let count = random.range(1..=24).min(sectors - first);
    let extent = Extent::new(place * PLACE_DISTANCE + first * 512, count * 512);
    let buffer = pool.allocate(extent.length as usize);
    match kind {
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
fn serve(image: &CrashImage, origins: &[Medium]) -> Result<Counts, String> {
    let world = World::new(1);
    let (origin, cache_device) = disks(&world, false);
    origin.set_medium(origins[image.mark as usize].clone());
    cache_device.set_medium(image.medium.clone());
    let right = origins[image.mark as usize].clone();
    let (setup, host) = (Setup::cramped(), Rc::new(Host::default()));
    let pool = BufferPool::heap();
    let mut engine = Engine::start(&world, &setup, &[origin], &cache_device, (&host, &pool), None);
    let mut done: Vec<(usize, Completion)> = Vec::new();
    // What the sweep of the records has not come to yet is a miss.
    engine.load();
    for (round, admission) in [("first", "never"), ("second", "always")] {
        // What is stored takes the places of lines that are to be looked at.
        engine.set_policy("admission", admission);
        let places = (0..PLACES).map(|place| Extent::new(place * PLACE_DISTANCE, PLACE_LENGTH));
        for extent in places.flat_map(|place| place.split(READ)) {
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
    Ok(engine.counts())
}
