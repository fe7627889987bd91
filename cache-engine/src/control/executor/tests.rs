//! The executor over volumes in memory, without a socket.
//!
//! Absent: the protocol, and the command.

use std::cell::Cell;
use std::rc::Rc;

use block_io::device::memory::{MemoryDevice, MemoryQueue};
use block_io::device::shared::SharedQueue;
use block_io::{BlockDevice, BufferPool, Completion, IoError};

use super::super::model::{LeaseStatus, Status};
use super::*;
use crate::cache::{Cache, CacheConfig, CacheMode, CacheSpace, LineSize, VolumeSettings};
use crate::volume::CachedVolume;

const NOW: Timestamp = Timestamp(0);
const LINE: u64 = 4096;
const SIZE: u64 = 8 << 20;

type Cached = CachedVolume<MemoryQueue, MemoryQueue>;

/// A volume whose origin says that it has `size` bytes, and whose flushes end as the test wants.
struct TestVolume {
    shared: SharedQueue<Cached>,
    held: Rc<Cell<bool>>,
    size: Rc<Cell<u64>>,
    /// What it tells of that by itself.
    told: Rc<Cell<Option<u64>>>,
    flush: Rc<Cell<Result<(), IoError>>>,
}

impl BlockQueue for TestVolume {
    fn geometry(&self) -> Geometry {
        self.shared.geometry()
    }
    fn submit(&mut self, request: BlockRequest) -> Result<(), BlockRequest> {
        self.shared.submit(request)
    }
    fn poll(&mut self, now: Timestamp, completions: &mut Vec<Completion>) -> bool {
        let progress = self.shared.poll(now, completions);
        completions.iter_mut().for_each(|done| done.result = self.flush.get());
        progress
    }
    fn in_flight(&self) -> usize {
        self.shared.in_flight()
    }
}

impl ServedVolume for TestVolume {
    fn queue(&mut self) -> &mut dyn BlockQueue {
        self
    }
    fn geometry(&self) -> Geometry {
        self.shared.geometry()
    }
    fn in_flight(&self) -> usize {
        self.shared.with_queue(|volume| volume.in_flight())
    }
    fn statistics(&self) -> Statistics {
        self.shared.with_queue(|volume| volume.statistics())
    }
    fn fault(&self) -> Option<String> {
        None
    }
    fn told_size(&self) -> Option<u64> {
        self.told.get()
    }
    fn origin_size(&self) -> Result<u64, DeviceError> {
        Ok(self.size.get())
    }
    fn hold(&mut self, held: bool) {
        self.held.set(held);
    }
}

/// A cache of 4 MiB with the volumes `pg` and `vm`, and `raw` beside it without one.
struct Place {
    executor: Executor<MemoryQueue, MemoryQueue, u32>,
    engine: CacheEngine<MemoryQueue, MemoryQueue>,
    pool: BufferPool,
    /// Of each volume.
    clients: Vec<SharedQueue<Cached>>,
    size: Rc<Cell<u64>>,
    told: Rc<Cell<Option<u64>>>,
    /// Whether any of the volumes takes no requests.
    held: Rc<Cell<bool>>,
    flush: Rc<Cell<Result<(), IoError>>>,
    asked: u32,
}

fn queue(size: u64) -> MemoryQueue {
    let device = MemoryDevice::new(size).expect("a size");
    BlockDevice::<()>::open_queue(&device, &(), 64).expect("a queue")
}

impl Place {
    fn new() -> Self {
        let pool = BufferPool::heap();
        let config = CacheConfig { line_size: LineSize::ALL[0], ..CacheConfig::default() };
        let space = CacheSpace { data_offset: 0, length: 4 << 20, transfer_max: 1 << 20 };
        let cache = Cache::in_memory(config, space, pool.clone()).expect("sizes are right");
        let engine = CacheEngine::new(cache, queue(4 << 20));
        let mut executor = Executor::new(Some(engine.clone()));
        let size = Rc::new(Cell::new(SIZE));
        let flush = Rc::new(Cell::new(Ok(())));
        let held = Rc::new(Cell::new(false));
        let told = Rc::new(Cell::new(None));
        let mut clients = Vec::new();
        for name in ["pg", "vm", "raw"] {
            let settings = VolumeSettings {
                name: name.into(),
                geometry: Geometry::new(SIZE),
                mode: CacheMode::WriteThrough,
                known: None,
                cipher: None,
            };
            let volume = engine.add_volume(queue(SIZE), settings).expect("room");
            let id = (name != "raw").then(|| volume.id());
            let shared = SharedQueue::new(volume);
            clients.push(shared.another());
            let (size, flush) = (Rc::clone(&size), Rc::clone(&flush));
            let (held, told) = (Rc::clone(&held), Rc::clone(&told));
            let volume = Box::new(TestVolume { shared, held, size, told, flush });
            executor.add_volume(name, id, volume).expect("another name");
        }
        Self { executor, engine, pool, clients, size, told, held, flush, asked: 0 }
    }

    /// Asks, and looks for an answer at once.
    fn ask(&mut self, request: Request) -> Option<Answer> {
        self.asked += 1;
        self.executor.execute(request, self.asked);
        let (reply, answer) = self.executor.next_answer()?;
        assert_eq!(reply, self.asked, "the answer is for who asked");
        Some(answer)
    }

    fn refused(&mut self, request: Request) -> String {
        match self.ask(request) {
            Some(Answer::Error { message }) => message,
            other => panic!("{other:?}"),
        }
    }

    fn status(&mut self) -> Status {
        match self.ask(Request::Status {}) {
            Some(Answer::Status(status)) => *status,
            other => panic!("{other:?}"),
        }
    }

    /// Turns the engine once, and tells its events. Whether there was anything.
    fn turn(&mut self) -> bool {
        let mut progress = self.engine.poll(NOW);
        while let Some(event) = self.engine.next_event() {
            self.executor.event(&event);
            progress = true;
        }
        progress | self.executor.poll(NOW)
    }

    /// Turns until there is an answer, and how often that was.
    fn wait(&mut self) -> (Answer, u32) {
        for turns in 0..1000 {
            if let Some((_, answer)) = self.executor.next_answer() {
                return (answer, turns);
            }
            self.turn();
        }
        panic!("no answer");
    }

    /// Writes the first `lines` lines of a volume.
    fn write(&mut self, volume: usize, lines: u64) {
        for line in 0..lines {
            let buffer = self.pool.allocate(LINE as usize);
            buffer.fill(7);
            let write = BlockRequest::write(RequestId(line), line * LINE, buffer);
            let client = &mut self.clients[volume];
            client.submit(write).expect("room");
            let mut done = Vec::new();
            while client.poll(NOW, &mut done) {}
            assert!(done.iter().all(|one| one.result.is_ok()) && done.len() == 1, "{done:?}");
        }
        while self.turn() {}
    }
}

fn set(changes: &[(&str, &str)]) -> Request {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    Request::Set { settings: changes.iter().map(owned).collect() }
}

fn invalidate(volume: &str, range: Option<(u64, u64)>) -> Request {
    let range = range.map(|(offset, length)| Range { offset, length });
    Request::Invalidate { volume: volume.into(), range }
}

fn mode(volume: &str, mode: &str) -> Request {
    Request::Mode { volume: volume.into(), mode: mode.into() }
}

#[test]
fn status_tells_of_the_cache_and_of_each_volume() {
    let mut place = Place::new();
    place.write(0, 10);
    place.write(1, 3);
    let status = place.status();
    let cache = status.cache.expect("there is one");
    assert_eq!((cache.line_size, cache.capacity_bytes), (LINE, 4 << 20));
    assert_eq!(cache.occupied_bytes, 13 * LINE);
    assert!(!cache.degraded && !cache.persistent && cache.persistence_statistics.is_none());
    assert_eq!(cache.loading.sets_loaded, cache.loading.sets);
    assert_eq!(cache.settings["admission"], "always");
    assert_eq!(cache.policy_statistics["admitted"], 13);
    assert!(cache.memory.index_bytes > 0 && cache.memory.miss_ratio_bytes > 0);
    let volumes = status.volumes;
    let names: Vec<_> = volumes.iter().map(|volume| volume.name.as_str()).collect();
    assert_eq!(names, ["pg", "vm", "raw"]);
    assert_eq!((volumes[0].size_bytes, volumes[0].occupied_bytes), (SIZE, 10 * LINE));
    assert_eq!(volumes[1].occupied_bytes, 3 * LINE);
    assert_eq!(volumes[0].statistics["writes"], 10);
    assert_eq!(volumes[0].mode.as_deref(), Some("write-through"));
    assert_eq!(volumes[2].mode, None, "its origin is served alone");
    assert!(!volumes[0].in_doubt);
}

#[test]
fn settings_change_all_or_none() {
    let mut place = Place::new();
    let message = place.refused(set(&[("admission", "never"), ("purge", "always")]));
    assert!(message.contains("purge 'always'"), "{message}");
    assert_eq!(place.status().cache.expect("a cache").settings["admission"], "always");
    // The cache refuses what does not fit it, and keeps what it had.
    let message = place.refused(set(&[("admission", "never"), ("cutoff", "1MiB")]));
    assert!(message.contains("setting 'cutoff': must be one of admission"), "{message}");
    assert!(place.refused(set(&[])).contains("must name one of admission"));
    assert_eq!(place.status().cache.expect("a cache").settings["admission"], "always");
    let answer = place.ask(set(&[("admission", "never"), ("volume", "volume=tape,max=5%")]));
    let Some(Answer::Settings(settings)) = answer else { panic!("{answer:?}") };
    assert_eq!(settings.settings["admission"], "never");
    assert_eq!(settings.settings["fill-width"], "adaptive", "not named, not changed");
    assert_eq!(settings.unknown_volumes, ["tape"]);
    assert_eq!(place.status().cache.expect("a cache").settings["admission"], "never");
}

#[test]
fn modes_change_and_what_is_not_there_is_named() {
    let mut place = Place::new();
    assert_eq!(place.ask(mode("vm", "pass-through")), Some(Answer::Done {}));
    let status = place.status();
    assert_eq!(status.volumes[0].mode.as_deref(), Some("write-through"));
    assert_eq!(status.volumes[1].mode.as_deref(), Some("pass-through"));
    for (volume, to, expected) in [
        ("tape", "write-through", "volume 'tape': must be one of pg, vm, raw"),
        ("pg", "write-back", "mode 'write-back': must be write-through"),
        ("raw", "write-through", "is served without a cache; start with --cache"),
    ] {
        let message = place.refused(mode(volume, to));
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn an_invalidation_is_answered_when_it_is_done_and_not_before() {
    let mut place = Place::new();
    place.write(0, 900);
    place.write(1, 50);
    let held = |place: &mut Place| place.status().cache.expect("a cache").occupied_bytes / LINE;
    let before = held(&mut place);
    assert!(before > 800, "some sets were full: {before}");
    // The last line written is there.
    assert_eq!(place.ask(invalidate("pg", Some((899 * LINE, LINE)))), None);
    assert_eq!(place.wait().0, Answer::Done {});
    assert_eq!(held(&mut place), before - 1);
    // Another's event is not the one that is waited for.
    assert_eq!(place.ask(invalidate("pg", None)), None);
    place.executor.event(&Event::Done(Ticket(u64::MAX)));
    place.executor.event(&Event::Loaded);
    assert!(place.executor.next_answer().is_none());
    assert_eq!(place.wait().0, Answer::Done {});
    assert_eq!(held(&mut place), 50, "those of the other volume stay");
    for range in [(0, 0), (SIZE - 1, 2), (SIZE, 1), (u64::MAX, 2), (0, u64::MAX)] {
        let message = place.refused(invalidate("pg", Some(range)));
        assert!(message.contains("must hold at least a byte and end within the 8388608"));
    }
    let message = place.refused(invalidate("raw", None));
    assert!(message.contains("without a cache"), "{message}");
}

#[test]
fn flushes_are_answered_with_how_the_origin_ended_them() {
    let mut place = Place::new();
    let flush = |volume: &str| Request::Flush { volume: volume.into() };
    assert_eq!(place.ask(flush("pg")), None);
    assert_eq!(place.executor.under_way(), 1);
    assert_eq!(place.wait().0, Answer::Done {});
    place.flush.set(Err(IoError::Media));
    assert_eq!(place.ask(flush("raw")), None);
    let (answer, _) = place.wait();
    let message = "volume 'raw': the flush failed: the medium failed";
    assert_eq!(answer, Answer::error(message));
    assert!(place.refused(flush("tape")).contains("must be one of"));
    assert_eq!(place.executor.under_way(), 0);
}

#[test]
fn a_volume_takes_the_size_of_its_origin() {
    let mut place = Place::new();
    place.write(0, 100);
    let resize = || Request::Resize { volume: "pg".into() };
    let same = Answer::Resized { before_bytes: SIZE, size_bytes: SIZE };
    assert_eq!(place.ask(resize()), Some(same));
    assert!(!place.executor.take_resized());
    place.size.set(10 * LINE);
    assert_eq!(place.ask(resize()), None);
    let (answer, _) = place.wait();
    assert_eq!(answer, Answer::Resized { before_bytes: SIZE, size_bytes: 10 * LINE });
    assert!(place.executor.take_resized() && !place.executor.take_resized());
    let status = place.status();
    assert_eq!(status.volumes[0].size_bytes, 10 * LINE);
    // The line at the end goes too.
    assert_eq!(status.volumes[0].occupied_bytes / LINE, 10);
    for (size, expected) in [(0, "has 0 bytes"), (1000, "must be a multiple of 512")] {
        place.size.set(size);
        let message = place.refused(resize());
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn volumes_follow_origins_that_tell_of_their_growth_and_of_nothing_else() {
    let mut place = Place::new();
    let sizes =
        |place: &mut Place| place.status().volumes.iter().map(|one| one.size_bytes).collect();
    let tell = |place: &mut Place, size: u64| {
        place.size.set(size);
        place.told.set(Some(size));
        for _ in 0..100 {
            place.turn();
        }
        place.executor.take_notices()
    };
    assert_eq!(tell(&mut place, SIZE), [""; 0], "as it was");
    let notices = tell(&mut place, SIZE + 10 * LINE);
    assert_eq!(notices.len(), 3, "{notices:?}");
    assert!(notices.iter().any(|one| one.contains("volume 'pg': has 8429568 bytes now, 8388608")));
    let grown: Vec<u64> = sizes(&mut place);
    // Without a cache the queue has the size by itself; the test's does not.
    assert_eq!(grown, [SIZE + 10 * LINE, SIZE + 10 * LINE, SIZE]);
    assert!(place.executor.take_resized() && !place.held.get());
    let notices = tell(&mut place, SIZE);
    assert!(notices.iter().all(|one| one.contains("has shrunk from")), "{notices:?}");
    assert_eq!((sizes(&mut place), notices.len()), (grown, 3));
    let notices = tell(&mut place, SIZE + 20 * LINE + 100);
    assert!(notices[1].contains("must be a multiple of 512"), "{notices:?}");
    assert_eq!(place.executor.under_way(), 0);
}

#[test]
fn a_volume_is_resized_when_nothing_of_it_is_in_flight_and_held_until_then() {
    let mut place = Place::new();
    let buffer = place.pool.allocate(LINE as usize);
    place.clients[0].submit(BlockRequest::read(RequestId(1), 0, buffer)).expect("room");
    place.size.set(10 * LINE);
    assert_eq!(place.ask(Request::Resize { volume: "pg".into() }), None);
    assert!(place.held.get() && place.executor.under_way() == 1);
    let mut ended = Vec::new();
    while ended.is_empty() {
        place.clients[0].poll(NOW, &mut ended);
    }
    let (answer, _) = place.wait();
    assert_eq!(answer, Answer::Resized { before_bytes: SIZE, size_bytes: 10 * LINE });
    assert!(!place.held.get(), "clients go on");
}

#[test]
fn what_opens_devices_is_left_to_the_service_in_order_and_a_removed_volume_answers_nobody() {
    let mut place = Place::new();
    let remove = |volume: &str| Request::RemoveVolume { volume: volume.into(), forget: true };
    assert_eq!(place.ask(remove("pg")), None);
    assert_eq!(place.ask(remove("vm")), None);
    let (change, first) = place.executor.next_change().expect("asked for");
    assert_eq!(change, Change::RemoveVolume { volume: "pg".into(), forget: true });
    assert_eq!(place.ask(Request::Flush { volume: "pg".into() }), None);
    place.executor.remove_volume("pg");
    place.executor.answer(first, Answer::Done {});
    let (answer, _) = place.wait();
    assert_eq!(answer, Answer::error("volume 'pg': was removed meanwhile"));
    assert_eq!(place.wait().0, Answer::Done {});
    assert_eq!(place.status().volumes.len(), 2);
    assert_eq!(place.executor.under_way(), 1, "the other change");
}

#[test]
fn a_curve_is_told_in_bytes() {
    let mut place = Place::new();
    let answer = place.ask(Request::MissRatio {});
    let Some(Answer::MissRatio(curve)) = answer else { panic!("{answer:?}") };
    assert_eq!((curve.line_size, curve.capacity_bytes), (LINE, 4 << 20));
    assert!(curve.points.is_empty(), "nothing was read");
}

#[test]
fn more_requests_than_fit_are_refused_and_those_under_way_end() {
    let mut place = Place::new();
    for _ in 0..WAITING_MAX {
        assert_eq!(place.ask(invalidate("pg", None)), None);
    }
    assert!(place.refused(Request::Status {}).contains("64 requests are under way already"));
    for _ in 0..WAITING_MAX {
        assert_eq!(place.wait().0, Answer::Done {});
    }
    assert!(matches!(place.ask(Request::Status {}), Some(Answer::Status(_))));
}

#[test]
fn without_a_cache_there_is_nothing_to_set() {
    let mut executor = Executor::<MemoryQueue, MemoryQueue, ()>::new(None);
    for request in [set(&[("admission", "never")]), Request::MissRatio {}] {
        executor.execute(request, ());
        let Some(((), Answer::Error { message })) = executor.next_answer() else { panic!() };
        assert!(message.contains("start with --cache"), "{message}");
    }
    executor.execute(Request::Status {}, ());
    assert!(matches!(executor.next_answer(), Some(((), Answer::Status(_)))));
}

#[test]
fn a_lease_is_given_renewed_and_given_back() {
    let mut place = Place::new();
    let lease = |until_ns| Request::Lease { volume: "pg".into(), until_ns };
    let states = |place: &mut Place| {
        let volumes = place.status().volumes;
        volumes.into_iter().map(|one| one.lease.map(|lease| lease.state)).collect::<Vec<_>>()
    };
    let named = |state: &str| Some(state.to_owned());
    assert_eq!(states(&mut place), [named("unlimited"), named("unlimited"), None]);
    place.executor.set_clock(Timestamp(1_000_000_000));
    let held = |seconds| {
        Some(Answer::Lease(LeaseStatus { state: "held".into(), seconds_left: Some(seconds) }))
    };
    assert_eq!(place.ask(lease(3_000_000_000)), held(2.0));
    place.executor.set_clock(Timestamp(2_000_000_000));
    assert_eq!(place.ask(lease(5_500_000_000)), held(3.5));
    assert_eq!(states(&mut place), [named("held"), named("unlimited"), None]);
    // One that lay somewhere until it was over changes nothing.
    let message = place.refused(lease(1_500_000_000));
    assert!(message.contains("'pg'") && message.contains("ended 0.500 s ago"), "{message}");
    assert_eq!(states(&mut place)[0], named("held"));
    let answer = place.ask(lease(0)).or_else(|| {
        while place.turn() {}
        place.executor.next_answer().map(|(_, answer)| answer)
    });
    let over = LeaseStatus { state: "over".into(), seconds_left: None };
    assert_eq!(answer, Some(Answer::Lease(over)));
    // A renewal that comes when the lease has ended is another one, whatever the cache last heard.
    place.executor.set_clock(Timestamp(6_000_000_000));
    place.ask(lease(7_000_000_000));
    place.executor.set_clock(Timestamp(7_000_000_000));
    place.ask(lease(9_000_000_000));
    let over = std::iter::from_fn(|| place.engine.next_event());
    let over = over.filter(|event| matches!(event, Event::LeaseOver(_))).count();
    assert_eq!(over, 2, "given back, and ended");
    assert!(
        place.refused(Request::Lease { volume: "raw".into(), until_ns: 0 }).contains("without")
    );
}
