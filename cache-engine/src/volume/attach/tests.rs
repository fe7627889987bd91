//! Volumes that come and go on one cache device, on simulated disks.

use std::time::Duration;

use super::*;
use crate::cache::CacheConfig;
use crate::cache::metadata::FormatId;
use crate::cache::policy::PolicySettings;
use crate::cache::policy::settings::FillWidth;
use crate::volume::opening::{FreshIds, OpeningOptions, open_cache};
use block_io::sim::{DiskFaults, SimDisk, SimQueue, World};
use block_io::{BlockDevice, BufferPool, Geometry, Request, RequestId};

const LINE: u64 = 16 << 10;

/// A host with two origins and a cache device.
struct Host {
    world: World,
    cache: SimDisk,
    /// What may take the place of the cache device.
    spare: SimDisk,
    origins: [SimDisk; 2],
    pool: BufferPool,
    folder: tempfile::TempDir,
    starts: u8,
}

type Engine = CacheEngine<SimQueue, SimQueue>;
type Volume = CachedVolume<SimQueue, SimQueue>;

impl Host {
    fn new() -> Self {
        let world = World::new(1);
        let disk = |name: &str, size| SimDisk::new(&world, name, Geometry::new(size));
        Self {
            cache: disk("cache", 64 << 20),
            spare: disk("spare", 64 << 20),
            origins: [disk("first", 8 << 20), disk("second", 8 << 20)],
            pool: BufferPool::heap(),
            folder: tempfile::tempdir().expect("a folder"),
            starts: 0,
            world,
        }
    }

    fn state(&self) -> StateDirectory {
        StateDirectory::at(self.folder.path())
    }

    fn turn(&self) -> impl FnMut(Option<Timestamp>) -> Result<Timestamp, DeviceError> + use<> {
        let world = self.world.clone();
        move |deadline| {
            if !world.advance()
                && let Some(deadline) = deadline.filter(|deadline| *deadline > world.now())
            {
                world.advance_to(deadline);
            }
            Ok(world.now())
        }
    }

    fn open(&mut self) -> Engine {
        self.starts += 1;
        let queue = self.cache.open_queue(&self.world, 64).expect("opens");
        let fresh = |kind| FormatId([kind, self.starts, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        let fill_width = FillWidth::Requested;
        let policy = PolicySettings { fill_width, ..PolicySettings::default() };
        let options = OpeningOptions {
            config: CacheConfig { policy, ..CacheConfig::default() },
            line_size: None,
            force_format: false,
            fresh: FreshIds { format: fresh(1), cold_start: fresh(2) },
        };
        open_cache(queue, &self.pool, options, &mut self.turn()).expect("opens").0
    }

    /// Attaches an origin under a name, under generation 1.
    fn attach(
        &self,
        engine: &Engine,
        origin: usize,
        name: &str,
    ) -> Result<(Volume, VolumeStart), DeviceError> {
        self.attach_until(engine, origin, name, None)
    }

    /// Likewise, under a lease.
    fn attach_until(
        &self,
        engine: &Engine,
        origin: usize,
        name: &str,
        lease: Option<Timestamp>,
    ) -> Result<(Volume, VolumeStart), DeviceError> {
        let queue = self.origins[origin].open_queue(&self.world, 64).expect("opens");
        let state = self.state();
        let options = self.options(origin, name, &state);
        attach_leased(engine, queue, options, lease, &mut self.turn())
    }

    fn options<'state>(
        &self,
        origin: usize,
        name: &str,
        state: &'state StateDirectory,
    ) -> AttachOptions<'state> {
        let text = format!("origin {origin}");
        AttachOptions {
            name: name.into(),
            mode: CacheMode::default(),
            identity: OriginIdentity::new(IdentityKind::Assigned, text).expect("a text"),
            generation: promise(),
            state,
            key: None,
        }
    }

    /// Reads some lines twice: how many of each time were hits.
    fn hits(&self, volume: &mut Volume) -> [u64; 2] {
        [(); 2].map(|()| {
            let before = volume.statistics().read_hits;
            for line in 0..20 {
                let buffer = self.pool.allocate(LINE as usize);
                volume.submit(Request::read(RequestId(0), line * LINE, buffer)).expect("room");
                let mut completions = Vec::new();
                while completions.is_empty() || !volume.is_idle() {
                    if !volume.poll(self.world.now(), &mut completions) {
                        self.turn()(volume.engine().next_deadline()).expect("never fails");
                    }
                }
            }
            volume.statistics().read_hits - before
        })
    }
}

fn promise() -> GenerationSource {
    GenerationSource::Caller(Generation::new("1").expect("short"))
}

fn loaded(host: &Host, engine: &Engine) {
    until_event(engine, &mut host.turn(), &Event::Loaded, || Ok(())).expect("sound devices");
}

#[test]
fn volumes_come_and_go_and_come_back_warm_under_any_name() {
    let mut host = Host::new();
    let engine = host.open();
    let (mut first, start) = host.attach(&engine, 0, "a").expect("room");
    assert_eq!(start, VolumeStart::Cold(WhyCold::NeverCached));
    let (mut second, _) = host.attach(&engine, 1, "b").expect("room");
    loaded(&host, &engine);
    assert_eq!([host.hits(&mut first), host.hits(&mut second)], [[0, 20]; 2]);
    let error = host.attach(&engine, 0, "c").err().expect("refused").to_string();
    assert!(error.contains("attached already, as 'a'"), "{error}");
    let in_order = || Left::InOrder(promise());
    detach(first, &host.state(), in_order(), &mut host.turn()).expect("idle");
    let (mut first, start) = host.attach(&engine, 0, "renamed").expect("room");
    assert_eq!((start, host.hits(&mut first)), (VolumeStart::Warm, [20, 20]));
    let left = [(first.id(), in_order()), (second.id(), in_order())];
    stop(&engine, &host.state(), &left, &mut host.turn()).expect("idle");
    let engine = host.open();
    let (mut second, start) = host.attach(&engine, 1, "b").expect("room");
    loaded(&host, &engine);
    assert_eq!((start, host.hits(&mut second)), (VolumeStart::Warm, [20, 20]));
    let (mut first, start) = host.attach(&engine, 0, "renamed").expect("room");
    assert_eq!((start, host.hits(&mut first)), (VolumeStart::Warm, [20, 20]));
}

#[test]
fn an_origin_left_in_doubt_is_cold_and_so_is_another_of_its_name() {
    let mut host = Host::new();
    let engine = host.open();
    let (mut volume, _) = host.attach(&engine, 0, "a").expect("room");
    loaded(&host, &engine);
    host.hits(&mut volume);
    stop(&engine, &host.state(), &[(volume.id(), Left::InDoubt)], &mut host.turn()).expect("idle");
    let engine = host.open();
    let (mut volume, start) = host.attach(&engine, 0, "a").expect("room");
    assert_eq!(start, VolumeStart::Cold(WhyCold::Unproved(Reason::Disowned)));
    assert_eq!(host.hits(&mut volume), [0, 20]);
    let left = [(volume.id(), Left::InOrder(promise()))];
    stop(&engine, &host.state(), &left, &mut host.turn()).expect("idle");
    let engine = host.open();
    let (mut other, start) = host.attach(&engine, 1, "a").expect("room");
    let VolumeStart::Cold(WhyCold::Unproved(Reason::OtherOrigin { .. })) = start else {
        panic!("{start:?}");
    };
    assert_eq!(host.hits(&mut other), [0, 20]);
}

#[test]
fn a_volume_whose_record_cannot_be_written_is_not_served() {
    let mut host = Host::new();
    let engine = host.open();
    let (volume, _) = host.attach(&engine, 0, "a").expect("room");
    loaded(&host, &engine);
    host.cache
        .set_faults(DiskFaults { write_error_nothing_applied: 1000, ..DiskFaults::default() });
    let error = host.attach(&engine, 1, "b").err().expect("refused").to_string();
    assert!(error.contains("it failed and was given up"), "{error}");
    assert_eq!(engine.cache().volume_ids().collect::<Vec<_>>(), [volume.id()]);
    // Neither the device nor this host lets what is cached be believed.
    until_event(&engine, &mut host.turn(), &Event::Disown, || Ok(())).expect("it says so");
    disown(&engine, &host.state()).expect("writable");
    let identity = OriginIdentity::new(IdentityKind::Assigned, "origin 0").expect("a text");
    let noted = host.state().read(&identity).expect("readable").expect("there");
    assert_eq!(noted.format_id, None);
}

const LENGTH: Duration = Duration::from_secs(10);

/// Attaches the first origin under a lease and fills the cache, until all is on the device.
fn leased(host: &mut Host) -> (Engine, Volume) {
    let engine = host.open();
    let until = Some(host.world.now() + LENGTH);
    let (mut volume, _) = host.attach_until(&engine, 0, "a", until).expect("room");
    loaded(host, &engine);
    assert_eq!(host.hits(&mut volume), [0, 20]);
    let end = host.world.now() + Duration::from_secs(1);
    while host.world.now() < end {
        let progress = engine.poll(host.world.now());
        let next = if progress { host.world.now() } else { end };
        host.turn()(Some(next)).expect("never fails");
    }
    (engine, volume)
}

fn starts_cold(host: &mut Host, lease: Option<Timestamp>, why: WhyCold) {
    let engine = host.open();
    let (mut volume, start) = host.attach_until(&engine, 0, "a", lease).expect("room");
    assert_eq!(start, VolumeStart::Cold(why));
    loaded(host, &engine);
    assert_eq!(host.hits(&mut volume)[0], 0);
}

#[test]
fn a_crash_under_a_lease_is_followed_by_a_cold_start_whoever_vouches_for_the_origin() {
    for lease in [None, Some(Timestamp(u64::MAX - 1))] {
        let mut host = Host::new();
        let (engine, volume) = leased(&mut host);
        drop((engine, volume));
        starts_cold(&mut host, lease, WhyCold::Unproved(Reason::LeaseRan));
    }
}

#[test]
fn a_stop_while_the_lease_is_held_is_followed_by_a_warm_start_and_one_after_its_end_by_a_cold_one()
{
    for (waits, is_warm) in [(Duration::ZERO, true), (LENGTH, false)] {
        let mut host = Host::new();
        let (engine, volume) = leased(&mut host);
        host.world.advance_by(waits);
        let left = [(volume.id(), Left::InOrder(promise()))];
        stop(&engine, &host.state(), &left, &mut host.turn()).expect("idle");
        if is_warm {
            let engine = host.open();
            let until = Some(host.world.now() + LENGTH);
            let (mut volume, start) = host.attach_until(&engine, 0, "a", until).expect("room");
            loaded(&host, &engine);
            assert_eq!((start, host.hits(&mut volume)), (VolumeStart::Warm, [20, 20]));
        } else {
            starts_cold(&mut host, None, WhyCold::Unproved(Reason::LeaseRan));
        }
    }
}

#[test]
fn a_start_without_the_lease_that_it_needs_is_cold_and_caches_nothing_before_the_first() {
    let mut host = Host::new();
    let (engine, volume) = leased(&mut host);
    let left = [(volume.id(), Left::InOrder(promise()))];
    stop(&engine, &host.state(), &left, &mut host.turn()).expect("idle");
    let engine = host.open();
    let over = Some(host.world.now());
    let (mut volume, start) = host.attach_until(&engine, 0, "a", over).expect("room");
    assert_eq!(start, VolumeStart::Cold(WhyCold::NoLease));
    loaded(&host, &engine);
    assert_eq!(host.hits(&mut volume), [0, 0]);
    let now = host.world.now();
    engine.change(|cache| cache.set_lease(now, volume.id(), Some(now + LENGTH))).expect("there");
    until_event(&engine, &mut host.turn(), &Event::LeaseHeld(volume.id()), || Ok(()))
        .expect("sound devices");
    assert_eq!(host.hits(&mut volume), [0, 20]);
}

#[test]
fn a_volume_that_is_taken_out_and_comes_back_is_warm_only_if_it_was_left_under_its_lease() {
    for (waits, expected) in [
        (Duration::ZERO, VolumeStart::Warm),
        (LENGTH, VolumeStart::Cold(WhyCold::Unproved(Reason::LeaseRan))),
    ] {
        let mut host = Host::new();
        let (engine, volume) = leased(&mut host);
        host.world.advance_by(waits);
        let left = Left::InOrder(promise());
        detach(volume, &host.state(), left, &mut host.turn()).expect("idle");
        let until = Some(host.world.now() + LENGTH);
        let (mut volume, start) = host.attach_until(&engine, 0, "a", until).expect("room");
        let hits = host.hits(&mut volume);
        let is_warm = expected == VolumeStart::Warm;
        assert_eq!((start, hits), (expected, [if is_warm { 20 } else { 0 }, 20]));
        // It is back under a lease, which a crash does not undo.
        drop((volume, engine));
        starts_cold(&mut host, None, WhyCold::Unproved(Reason::LeaseRan));
    }
}

#[test]
fn another_cache_device_knows_of_the_lease() {
    for is_stopped in [false, true] {
        let mut host = Host::new();
        let (engine, mut volume) = leased(&mut host);
        let until = host.world.now() + LENGTH * 2;
        let now = host.world.now();
        engine.change(|cache| cache.set_lease(now, volume.id(), Some(until))).expect("there");
        let state = host.state();
        let attached = [(volume.id(), host.options(0, "a", &state))];
        let queue = host.spare.open_queue(&host.world, 64).expect("opens");
        let fresh = FreshIds { format: FormatId([8; 16]), cold_start: FormatId([9; 16]) };
        let options = ReplaceOptions { force_format: false, fresh };
        replace(&engine, queue, &host.pool, options, &attached, &mut host.turn()).expect("sound");
        assert_eq!(host.hits(&mut volume), [0, 20], "the lease goes on");
        std::mem::swap(&mut host.cache, &mut host.spare);
        if is_stopped {
            let left = [(volume.id(), Left::InOrder(promise()))];
            stop(&engine, &host.state(), &left, &mut host.turn()).expect("idle");
            drop((volume, engine));
            let engine = host.open();
            let (mut volume, start) =
                host.attach_until(&engine, 0, "a", Some(until)).expect("room");
            loaded(&host, &engine);
            assert_eq!((start, host.hits(&mut volume)), (VolumeStart::Warm, [20, 20]));
        } else {
            drop((volume, engine));
            starts_cold(&mut host, Some(until), WhyCold::Unproved(Reason::LeaseRan));
        }
    }
}

#[test]
fn what_an_origin_had_not_flushed_is_durable_before_anything_of_it_is_cached() {
    let mut host = Host::new();
    let geometry = Geometry { volatile_cache: true, ..Geometry::new(8 << 20) };
    host.origins[0] = SimDisk::new(&host.world, "volatile", geometry);
    let mut queue = host.origins[0].open_queue(&host.world, 1).expect("opens");
    queue.submit(Request::write(RequestId(1), 0, host.pool.allocate(4096))).expect("room");
    while host.world.advance() {}
    assert!(host.origins[0].has_volatile_content(), "of whoever had it before");
    let engine = host.open();
    host.attach(&engine, 0, "one").expect("attaches");
    assert!(!host.origins[0].has_volatile_content());
}
