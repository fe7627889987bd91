//! What the engine tells the cache of an origin that is lost and comes back.

use std::cell::Cell;
use std::collections::VecDeque;
use std::rc::Rc;

use block_io::sim::{SimDisk, SimQueue, World};
use block_io::{BlockDevice, BufferPool, IoError, RequestId};

use super::*;
use crate::cache::CacheConfig;
use crate::cache::metadata::FormatId;
use crate::volume::opening::{FreshIds, OpeningOptions, open_cache};

/// What the test decides about the origin.
#[derive(Default)]
struct Fate {
    interruptions: Cell<Interruptions>,
    fails: Cell<Option<IoError>>,
    holds: Cell<bool>,
}

struct Origin {
    fate: Rc<Fate>,
    arrived: VecDeque<Request>,
}

impl BlockQueue for Origin {
    fn geometry(&self) -> Geometry {
        Geometry { volatile_cache: true, ..Geometry::new(8 << 20) }
    }
    fn submit(&mut self, request: Request) -> Result<(), Request> {
        self.arrived.push_back(request);
        Ok(())
    }
    fn poll(&mut self, _: Timestamp, completions: &mut Vec<Completion>) -> bool {
        if self.fate.holds.get() {
            return false;
        }
        let result = self.fate.fails.get().map_or(Ok(()), Err);
        let before = completions.len();
        completions.extend(self.arrived.drain(..).map(|request| request.complete(result)));
        completions.len() > before
    }
    fn in_flight(&self) -> usize {
        self.arrived.len()
    }
    fn interruptions(&self) -> Interruptions {
        self.fate.interruptions.get()
    }
}

struct Bench {
    world: World,
    pool: BufferPool,
    fate: Rc<Fate>,
    volume: CachedVolume<Origin, SimQueue>,
}

impl Bench {
    fn new() -> Self {
        let world = World::new(1);
        let pool = BufferPool::heap();
        let disk = SimDisk::new(&world, "cache", Geometry::new(64 << 20));
        let queue = disk.open_queue(&world, 64).expect("opens");
        let options = OpeningOptions {
            config: CacheConfig::default(),
            line_size: None,
            force_format: false,
            fresh: FreshIds { format: FormatId([1; 16]), cold_start: FormatId([2; 16]) },
        };
        let mut turn = |_: Option<Timestamp>| {
            world.advance();
            Ok(world.now())
        };
        let engine = open_cache(queue, &pool, options, &mut turn).expect("opens").0;
        let fate = Rc::<Fate>::default();
        let origin = Origin { fate: Rc::clone(&fate), arrived: VecDeque::new() };
        let settings = VolumeSettings {
            name: "v".into(),
            geometry: origin.geometry(),
            mode: CacheMode::default(),
            known: None,
            cipher: None,
        };
        let volume = engine.add_volume(origin, settings).expect("room");
        Self { world, pool, fate, volume }
    }

    fn submit(&mut self, request: Request) {
        self.volume.submit(request).expect("room");
        self.turn();
    }

    /// Results so far, once nothing moves any more.
    fn turn(&mut self) -> Vec<Result<(), IoError>> {
        let mut completions = Vec::new();
        while self.volume.poll(self.world.now(), &mut completions) || self.world.advance() {}
        completions.into_iter().map(|completion| completion.result).collect()
    }

    fn run(&mut self, request: Request) -> Result<(), IoError> {
        self.volume.submit(request).expect("room");
        self.turn().pop().expect("it ends")
    }

    fn write(&self) -> Request {
        Request::write(RequestId(1), 0, self.pool.allocate(4096))
    }

    fn flush() -> Request {
        Request::flush(RequestId(2))
    }

    fn lose(&self) {
        let told = self.fate.interruptions.get();
        self.fate.interruptions.set(Interruptions { lost: told.lost + 1, ..told });
    }

    fn settle(&self) {
        let told = self.fate.interruptions.get();
        self.fate.interruptions.set(Interruptions { settled: told.settled + 1, ..told });
    }
}

#[test]
fn a_flush_after_an_origin_was_lost_with_something_unflushed_fails_once() {
    let mut bench = Bench::new();
    bench.lose();
    assert_eq!(bench.run(Bench::flush()), Ok(()), "nothing was unflushed");
    assert_eq!(bench.run(bench.write()), Ok(()));
    bench.lose();
    assert_eq!(bench.run(Bench::flush()), Err(IoError::ConnectionLost));
    assert_eq!(bench.run(Bench::flush()), Ok(()));
}

#[test]
fn what_completes_in_the_poll_that_tells_of_the_loss_may_be_from_before_or_after() {
    let mut bench = Bench::new();
    assert_eq!(bench.run(bench.write()), Ok(()));
    bench.fate.holds.set(true);
    bench.submit(Bench::flush());
    bench.lose();
    bench.fate.holds.set(false);
    assert_eq!(bench.turn(), [Err(IoError::ConnectionLost)], "the flush is no proof");
    assert_eq!(bench.run(Bench::flush()), Ok(()));
    bench.fate.holds.set(true);
    bench.submit(bench.write());
    bench.lose();
    bench.fate.holds.set(false);
    assert_eq!(bench.turn(), [Ok(())]);
    assert_eq!(bench.run(Bench::flush()), Err(IoError::ConnectionLost), "the write may be lost");
    assert_eq!(bench.run(Bench::flush()), Ok(()));
}

#[test]
fn a_range_is_in_doubt_until_every_lost_way_is_settled_and_not_only_lost_again() {
    let mut bench = Bench::new();
    bench.fate.fails.set(Some(IoError::ConnectionLost));
    assert_eq!(bench.run(bench.write()), Err(IoError::ConnectionLost));
    bench.fate.fails.set(None);
    let is_in_doubt = |bench: &Bench| bench.volume.engine().cache().is_in_doubt(bench.volume.id());
    assert!(is_in_doubt(&bench));
    bench.lose();
    bench.turn();
    assert!(is_in_doubt(&bench), "a late write may still come");
    bench.settle();
    bench.turn();
    assert!(!is_in_doubt(&bench));
}

#[test]
fn nothing_that_was_cached_is_served_once_the_origin_is_another_device() {
    let mut bench = Bench::new();
    let read = |bench: &Bench| Request::read(RequestId(3), 0, bench.pool.allocate(4096));
    let hits = |bench: &Bench| bench.volume.statistics().read_hits;
    while hits(&bench) == 0 {
        assert_eq!(bench.run(read(&bench)), Ok(()));
    }
    bench.fate.fails.set(Some(IoError::ConnectionLost));
    bench.lose();
    assert_eq!(bench.run(read(&bench)), Ok(()), "a hit of an origin that may come back");
    bench.fate.fails.set(Some(IoError::DeviceChanged));
    let told = bench.fate.interruptions.get();
    bench.fate.interruptions.set(Interruptions { replaced: told.replaced + 1, ..told });
    bench.turn();
    let before = hits(&bench);
    assert_eq!(bench.run(read(&bench)), Err(IoError::DeviceChanged));
    let event = Event::AnotherOrigin(bench.volume.id());
    assert!(bench.volume.engine().take_event(&event), "people are told");
    bench.fate.fails.set(None);
    for _ in 0..3 {
        assert_eq!(bench.run(read(&bench)), Ok(()), "of the origin");
    }
    assert_eq!(hits(&bench), before, "and nothing is cached of it");
}
