//! What a guest sees when devices hang, the volume is removed, or the owner goes: step by step.

use std::sync::mpsc::Receiver;

use block_io::reactor::clock;
use block_io::{Buffer, BufferPool, Completion, IoError, Request, RequestId, Timestamp};
use cache_engine::cache::metadata::FormatId;
use cache_engine::cache::{Event, LeaseStanding};
use cache_engine::volume::cache_device::{FormatOptions, format};

use super::*;

const LINE: usize = 4096;

/// A guest on its thread, with a way to tell the owner that a step is done and to wait for its.
struct Guest {
    reactor: Reactor,
    volume: RemoteVolume<SlowQueue>,
    answers: Vec<Completion>,
    done: Sender<()>,
    next: Receiver<()>,
}

impl Guest {
    fn buffer(&self, value: u8) -> Buffer {
        let buffer = self.reactor.pool().allocate(LINE);
        buffer.fill(value);
        buffer
    }

    fn submit(&mut self, line: u64, write: Option<u8>) {
        let (id, offset) = (RequestId(line), line * LINE as u64);
        let request = match write {
            Some(value) => Request::write(id, offset, self.buffer(value)),
            None => Request::read(id, offset, self.buffer(99)),
        };
        self.volume.submit(request).expect("room");
        self.volume.poll(self.reactor.now(), &mut self.answers);
    }

    /// Waits for an answer.
    fn answer(&mut self) -> (Result<(), IoError>, Vec<u8>) {
        while self.answers.is_empty() {
            self.volume.poll(self.reactor.now(), &mut self.answers);
            self.reactor.turn(Wait::No).expect("turns");
        }
        let done = self.answers.pop().expect("one");
        (done.result, done.buffer.expect("given back").to_vec())
    }

    fn ask(&mut self, line: u64, write: Option<u8>) -> (Result<(), IoError>, Vec<u8>) {
        self.submit(line, write);
        self.answer()
    }

    /// Tells the owner to go on, and waits until it has.
    fn step(&self) {
        self.done.send(()).expect("the owner is there");
        self.next.recv().expect("the owner goes on");
    }

    fn wait_until_idle(&mut self) {
        while !self.volume.is_idle() {
            self.volume.poll(self.reactor.now(), &mut Vec::new());
            self.reactor.turn(Wait::No).expect("turns");
        }
    }
}

/// The owner's side, and what makes its devices hang.
struct Stage {
    engine: CacheEngine<SlowQueue, SlowQueue>,
    volume: SharedQueue<Volume>,
    server: Option<Server>,
    origin_is_stuck: Rc<Cell<bool>>,
    cache_is_stuck: Rc<Cell<bool>>,
}

/// Runs `guest` on a thread of its own; `owner` is called for each of its steps.
fn play(guest: impl FnOnce(&mut Guest) + Send, mut owner: impl FnMut(usize, &mut Stage)) {
    let (cache_medium, origin) = (Medium::new(1 << 20), Medium::new(VOLUME));
    let reactor = reactor();
    let (engine, opened) = engine(&PLAN, &cache_medium, &origin, &reactor);
    let (server, invitation) = Server::new(&opened.queue, &reactor, DEPTH).expect("there");
    let mut stage = Stage {
        engine,
        volume: opened.queue,
        server: Some(server),
        origin_is_stuck: opened.origin_is_stuck,
        cache_is_stuck: opened.cache_is_stuck,
    };
    let (done, steps) = channel();
    let (go_on, next) = channel();
    thread::scope(|scope| {
        // Dropped where the owner panics, so that the guest does not wait for it.
        let go_on = go_on;
        let medium = &cache_medium;
        let other = scope.spawn(move || {
            let reactor = super::reactor();
            let queue = medium.queue(3, 0, OWNERS);
            let volume = RemoteVolume::accept(invitation, &reactor, Some(queue)).expect("invited");
            guest(&mut Guest { reactor, volume, answers: Vec::new(), done, next });
        });
        let mut step = 0;
        while !other.is_finished() {
            stage.server.as_mut().map(|server| server.poll(reactor.now()));
            stage.volume.poll(reactor.now(), &mut Vec::new());
            reactor.turn(Wait::No).expect("turns");
            if steps.try_recv().is_ok() {
                owner(step, &mut stage);
                step += 1;
                go_on.send(()).expect("the guest waits");
            }
        }
        other.join().expect("the guest is content");
    });
}

#[test]
fn no_answer_waits_for_the_cache_device() {
    let guest = |guest: &mut Guest| {
        guest.step();
        assert_eq!(guest.ask(1, Some(7)), (Ok(()), vec![7; LINE]), "as it was written");
        assert_eq!(guest.ask(2, None), (Ok(()), vec![0; LINE]), "the origin's");
        assert!(!guest.volume.is_idle(), "two stores have the buffers");
        guest.step();
        guest.wait_until_idle();
        let blocks: Vec<_> = (0..64).map(|_| guest.buffer(0)).collect();
        assert!(blocks.iter().all(Buffer::in_arena), "they are back");
        assert_eq!(guest.ask(1, None), (Ok(()), vec![7; LINE]));
    };
    play(guest, |step, stage| stage.cache_is_stuck.set(step == 0));
}

#[test]
fn a_guest_whose_owner_goes_is_told_and_has_its_hits() {
    let guest = |guest: &mut Guest| {
        guest.ask(0, Some(5)).0.expect("the origin is there");
        guest.wait_until_idle();
        guest.step();
        guest.submit(8, None);
        guest.submit(9, Some(1));
        guest.step();
        for _ in 0..2 {
            let (result, bytes) = guest.answer();
            assert_eq!((result, bytes.len()), (Err(IoError::ConnectionLost), LINE));
        }
        assert_eq!(guest.ask(8, None).0, Err(IoError::ConnectionLost));
        assert_eq!(guest.ask(0, None), (Ok(()), vec![5; LINE]), "it is in the cache");
        assert!(guest.volume.is_idle());
    };
    play(guest, |step, stage| match step {
        0 => stage.origin_is_stuck.set(true),
        _ => stage.server = None,
    });
}

#[test]
fn a_removed_volume_answers_with_an_error_though_its_number_is_anothers() {
    let guest = |guest: &mut Guest| {
        guest.ask(0, Some(5)).0.expect("the origin is there");
        guest.wait_until_idle();
        guest.step();
        for write in [None, Some(1)] {
            assert_eq!(guest.ask(0, write).0, Err(IoError::Cancelled));
        }
    };
    play(guest, |_, stage| {
        let id = stage.volume.with_queue(|volume| volume.id());
        let removed = stage.engine.change(|cache| cache.remove_volume(id));
        removed.expect("nothing is in flight");
        let next = stage.engine.change(|cache| cache.add_volume(settings()));
        assert_eq!(next.expect("room"), id);
    });
}

#[test]
fn a_guest_that_sees_a_lease_end_before_its_owner_does_tells_it() {
    let end = Timestamp(clock().0 + 3_600_000_000_000);
    let guest = |guest: &mut Guest| {
        guest.ask(1, Some(7)).0.expect("the origin is there");
        guest.wait_until_idle();
        guest.step();
        assert_eq!(guest.ask(1, None), (Ok(()), vec![7; LINE]));
        // An hour has passed, by this core's reading; the owner sleeps.
        guest.volume.poll(end, &mut guest.answers);
        let request = Request::read(RequestId(1), LINE as u64, guest.buffer(99));
        guest.volume.submit(request).expect("room");
        assert_eq!(guest.answer(), (Ok(()), vec![7; LINE]));
        guest.step();
    };
    play(guest, |step, stage| {
        let id = stage.volume.with_queue(|volume| volume.id());
        if step == 0 {
            let held = stage.engine.change(|cache| cache.set_lease(clock(), id, Some(end)));
            assert_eq!(held.expect("there"), LeaseStanding::Held(end));
        } else {
            assert_eq!(stage.engine.cache().lease(id), Some(LeaseStanding::Over));
            let statistics = stage.engine.cache().statistics(id).expect("there");
            assert_eq!(statistics.read_hits, 1, "before the end");
        }
    });
}

/// Polls until whatever the owner's devices are asked for has ended.
fn settle(stage: &mut Stage) {
    (0..1000).for_each(|_| {
        stage.volume.poll(Timestamp::default(), &mut Vec::new());
    });
}

/// Formats a device on `medium` and has the cache use it; gives what makes the owner's queue hang.
fn replace(stage: &mut Stage, medium: &Medium) -> Rc<Cell<bool>> {
    let mut queue = medium.queue(4, 0, OWNERS);
    let is_stuck = Rc::clone(&queue.is_stuck);
    let options = FormatOptions {
        line_size: PLAN.line_size,
        force_format: true,
        format_id: FormatId([1; 16]),
    };
    let pool = BufferPool::heap();
    let superblock = format(&mut queue, &pool, options, || Ok(Timestamp::default()));
    let superblock = superblock.expect("the device is sound");
    let fresh = FormatId([2; 16]);
    stage.engine.replace_device(queue, superblock, fresh).expect("detached");
    while !stage.engine.take_event(&Event::Replaced) {
        stage.volume.poll(Timestamp::default(), &mut Vec::new());
    }
    while !stage.engine.cache().is_settled() {
        stage.volume.poll(Timestamp::default(), &mut Vec::new());
    }
    is_stuck
}

#[test]
fn a_guest_leaves_a_device_that_is_given_up_and_has_its_hits_on_the_next() {
    let next_medium = Medium::new(2 << 20);
    let (renewals, renewal) = channel();
    let medium = next_medium.clone();
    let guest = move |guest: &mut Guest| {
        guest.ask(0, Some(5)).0.expect("the origin is there");
        guest.wait_until_idle();
        guest.step();
        assert_eq!(guest.ask(0, None), (Ok(()), vec![5; LINE]), "the origin's");
        guest.wait_until_idle();
        guest.step();
        let queue = medium.queue(5, 0, OWNERS);
        guest.volume.renew(renewal.recv().expect("the owner sends one"), Some(queue));
        assert_eq!(guest.ask(0, None), (Ok(()), vec![5; LINE]), "the origin's");
        guest.wait_until_idle();
        guest.step();
        // Nobody but the guest itself can answer now.
        assert_eq!(guest.ask(0, None), (Ok(()), vec![5; LINE]));
    };
    let mut next_is_stuck = None;
    play(guest, |step, stage| match step {
        0 => {
            stage.engine.change(Cache::detach);
            settle(stage);
            assert!(!stage.engine.cache().is_detached(), "the guest has a queue there");
        }
        1 => {
            settle(stage);
            assert!(stage.engine.cache().is_detached(), "the guest was told to leave, and did");
            next_is_stuck = Some(replace(stage, &next_medium));
            let server = stage.server.as_ref().expect("there is a guest");
            renewals.send(server.renew().expect("there")).expect("it waits");
        }
        _ => {
            stage.origin_is_stuck.set(true);
            settle(stage);
            assert_eq!(stage.engine.cache().lines_in_use(), 1, "the new device is a cache");
            next_is_stuck.iter().for_each(|is_stuck| is_stuck.set(true));
        }
    });
}
