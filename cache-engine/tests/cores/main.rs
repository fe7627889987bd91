//! One cached volume on several threads, each with a reactor of its own, on slow devices of words:
//! reads, writes, invalidations, evictions, modes that change, guests that come and go.
//!
//! In pass-through nobody may look at the cache device, so garbage is written over it meanwhile.

mod client;
mod device;
mod ends;

use std::cell::Cell;
use std::rc::Rc;
use std::sync::mpsc::{Sender, channel};
use std::thread;

use block_io::device::shared::SharedQueue;
use block_io::reactor::{MailSender, Mailbox, Reactor, ReactorConfig, Wait};
use block_io::sim::Random;
use block_io::{BlockQueue, Buffer, Extent, Geometry, PoolLayout};
use cache_engine::cache::{
    Cache, CacheConfig, CacheMode, CacheSpace, LineSize, Statistics, VolumeSettings,
};
use cache_engine::volume::cores::{Invitation, RemoteServer, RemoteVolume};
use cache_engine::volume::{CacheEngine, CachedVolume};

use client::{Client, Ledger};
use device::{Medium, OWNERS, POLLS_MAX, SlowQueue};

const VOLUME: u64 = 512 << 10;
const DEPTH: usize = 8;

/// Polls that a slow read of a guest takes at the most, twice: long enough for its line to go.
const SLOW: u64 = 10_000;

type Volume = CachedVolume<SlowQueue, SlowQueue>;
type Server = RemoteServer<Volume>;

#[derive(Clone, Copy)]
struct Plan {
    seed: u64,
    guests: u64,
    /// How often each guest comes, and what it does then.
    visits: u64,
    requests: u64,
    line_size: LineSize,
    /// Sets of sixteen lines.
    sets: u64,
    /// One read of a guest from the cache device of so many fails.
    failures: u64,
    errors_max: u32,
}

impl Plan {
    fn cache_bytes(&self) -> u64 {
        self.sets * 16 * self.line_size.bytes()
    }
}

fn reactor() -> Reactor {
    let classes = [(4096, 64), (16 << 10, 16), (64 << 10, 4), (256 << 10, 0), (1 << 20, 0)];
    let pool = PoolLayout { classes };
    Reactor::new(ReactorConfig { pool, ..Default::default() }).expect("this kernel has io_uring")
}

/// A guest's thread: asks for an invitation, uses it, goes, and comes again.
fn visit(plan: Plan, name: u64, door: &MailSender<Sender<Invitation>>, parts: (&Medium, &Ledger)) {
    let reactor = reactor();
    for visit in 0..plan.visits {
        let (sender, invitations) = channel();
        door.send(sender).expect("the owner is there");
        let invitation = invitations.recv().expect("the owner answers");
        let seed = plan.seed ^ (name << 32 | visit << 16);
        let queue = parts.0.queue(seed, plan.failures, SLOW);
        let on_device = queue.in_flight.clone();
        let volume = RemoteVolume::accept(invitation, &reactor, Some(queue)).expect("invited");
        let mut client = Client::new(volume, parts.1, reactor.pool(), seed);
        while client.done < plan.requests || !client.queue.is_idle() {
            if client.done < plan.requests {
                client.begin(DEPTH);
            }
            let progress = client.poll(reactor.now());
            // Only the owner can have news then.
            let may_sleep = !progress && on_device.get() == 0;
            let wait = if may_sleep { Wait::ForEvent } else { Wait::No };
            reactor.turn(wait).expect("turns");
        }
        assert!(client.is_idle());
    }
    assert_eq!(reactor.pool().heap_blocks(), 0, "every buffer came home");
    let blocks: Vec<_> = (0..64).map(|_| reactor.pool().allocate(4096)).collect();
    assert!(blocks.iter().all(Buffer::in_arena), "the arena's too");
}

/// The owner's thread, with a client of its own.
struct Owner<'a> {
    reactor: Reactor,
    client: Client<'a, SharedQueue<Volume>>,
    servers: Vec<Server>,
    door: Mailbox<Sender<Invitation>>,
    cache_medium: Medium,
    random: Random,
    /// What was on the cache device before it was scribbled over.
    hidden: Option<Vec<u64>>,
    /// Turns since the mode was last changed.
    turns: u32,
    /// Turns until its client goes on.
    rest: u32,
}

impl Owner<'_> {
    fn turn(&mut self) {
        while let Some(asks) = self.door.receive() {
            let (server, invitation) =
                Server::new(&self.client.queue, &self.reactor, DEPTH).expect("the volume is there");
            self.servers.push(server);
            asks.send(invitation).expect("it waits");
        }
        self.change();
        // It rests for a while now and then, so that it may sleep.
        self.rest = match self.rest {
            0 if self.random.below(300) == 0 => 300,
            rest => rest.saturating_sub(1),
        };
        if self.hidden.is_none() && self.rest == 0 {
            self.client.begin(DEPTH);
        }
        let mut progress = self.client.poll(self.reactor.now());
        for server in &mut self.servers {
            progress |= server.poll(self.reactor.now());
        }
        self.servers.retain(|server| !server.is_finished());
        let is_quiet = self.client.queue.with_queue(|volume| {
            let mode = volume.engine().cache().mode(volume.id());
            volume.is_idle() && mode != Some(CacheMode::PassThrough)
        });
        let may_sleep = !progress && is_quiet && self.rest > 0 && !self.door.is_closed();
        let wait = if may_sleep { Wait::ForEvent } else { Wait::No };
        self.reactor.turn(wait).expect("turns");
    }

    /// Invalidates now and then, and goes from mode to mode.
    fn change(&mut self) {
        let random = &mut self.random;
        let (choice, offset) = (random.below(2000), random.below(VOLUME - 8192) & !511);
        self.turns += 1;
        let turns = self.turns;
        let hidden = &mut self.hidden;
        let medium = &self.cache_medium;
        self.turns = self.client.queue.with_queue(|volume| {
            let engine = volume.engine().clone();
            if choice < 5 {
                volume.invalidate(Extent::new(offset, 8192)).expect("the volume is there");
            }
            let mode = engine.cache().mode(volume.id()).expect("the volume is there");
            match (mode, &hidden) {
                (CacheMode::PassThrough, None)
                    if turns > POLLS_MAX + 2 && engine.cache().fills_in_flight() == 0 =>
                {
                    *hidden = Some(medium.scribble());
                    0
                }
                (CacheMode::PassThrough, Some(words)) if turns > 100 => {
                    medium.restore(words);
                    *hidden = None;
                    volume.set_mode(CacheMode::ALL[choice as usize % 2]);
                    0
                }
                (CacheMode::WriteThrough | CacheMode::WriteAround, _) if choice >= 1980 => {
                    volume.set_mode(CacheMode::ALL[choice as usize % 3]);
                    0
                }
                _ => turns,
            }
        });
    }
}

fn settings() -> VolumeSettings {
    VolumeSettings {
        name: "volume".into(),
        geometry: Geometry::new(VOLUME),
        mode: CacheMode::WriteThrough,
        known: None,
        cipher: None,
    }
}

/// The owner's queue, and what makes its devices hang.
struct Opened {
    queue: SharedQueue<Volume>,
    origin_is_stuck: Rc<Cell<bool>>,
    cache_is_stuck: Rc<Cell<bool>>,
}

fn engine(
    plan: &Plan,
    cache_medium: &Medium,
    origin: &Medium,
    reactor: &Reactor,
) -> (CacheEngine<SlowQueue, SlowQueue>, Opened) {
    let config = CacheConfig {
        line_size: plan.line_size,
        errors_max: plan.errors_max,
        ..CacheConfig::default()
    };
    let space = CacheSpace { data_offset: 0, length: plan.cache_bytes(), transfer_max: 1 << 20 };
    let cache = Cache::in_memory(config, space, reactor.pool().clone()).expect("sizes are right");
    let cache_queue = cache_medium.queue(plan.seed, 0, OWNERS);
    let origin_queue = origin.queue(plan.seed + 1, 0, OWNERS);
    let cache_is_stuck = Rc::clone(&cache_queue.is_stuck);
    let origin_is_stuck = Rc::clone(&origin_queue.is_stuck);
    let engine = CacheEngine::new(cache, cache_queue);
    let volume = engine.add_volume(origin_queue, settings()).expect("room");
    (engine, Opened { queue: SharedQueue::new(volume), origin_is_stuck, cache_is_stuck })
}

/// Runs the plan, and gives what the cache counted.
fn run(plan: Plan) -> Statistics {
    let cache_medium = Medium::new(plan.cache_bytes());
    let origin = Medium::new(VOLUME);
    let ledger = Ledger::new(VOLUME);
    let reactor = reactor();
    let (_, stage) = engine(&plan, &cache_medium, &origin, &reactor);
    let volume = stage.queue;
    let (asks, door) = reactor.mailbox(16).expect("a mailbox");
    thread::scope(|scope| {
        let guests: Vec<_> = (0..plan.guests)
            .map(|name| {
                let (asks, parts) = (asks.clone(), (&cache_medium, &ledger));
                scope.spawn(move || visit(plan, name + 1, &asks, parts))
            })
            .collect();
        let mut owner = Owner {
            client: Client::new(volume, &ledger, reactor.pool(), plan.seed),
            reactor,
            servers: Vec::new(),
            door,
            cache_medium: cache_medium.clone(),
            random: Random::new(plan.seed),
            hidden: None,
            turns: 0,
            rest: 0,
        };
        drop(asks);
        while !owner.door.is_closed() {
            owner.turn();
        }
        for guest in guests {
            guest.join().expect("a guest saw what it must not, see above");
        }
        while owner.client.queue.in_flight() > 0 || !owner.servers.is_empty() {
            owner.client.poll(owner.reactor.now());
            owner.servers.iter_mut().for_each(|server| {
                server.poll(owner.reactor.now());
            });
            owner.servers.retain(|server| !server.is_finished());
        }
        owner.client.queue.with_queue(|volume| volume.statistics())
    })
}

const PLAN: Plan = Plan {
    seed: 1,
    guests: 1,
    visits: 10,
    requests: 1000,
    line_size: LineSize::ALL[1],
    sets: 2,
    failures: 0,
    errors_max: u32::MAX,
};

#[test]
fn every_sector_is_a_register_whoever_serves_it() {
    for seed in 1..4 {
        let statistics = run(Plan { seed, ..PLAN });
        assert!(statistics.evictions > 100 && statistics.read_hits > 1000, "{statistics:?}");
        assert!(statistics.hit_retries > 0 && statistics.read_pass_through > 0, "{statistics:?}");
    }
}

#[test]
fn three_cores_and_one_set() {
    run(Plan { guests: 2, visits: 5, sets: 1, line_size: LineSize::ALL[2], ..PLAN });
}

#[test]
fn what_a_guest_can_not_read_the_owner_answers() {
    let statistics = run(Plan { seed: 9, failures: 50, ..PLAN });
    assert!(statistics.cache_read_errors > 10, "{statistics:?}");
    assert!(statistics.read_hits > 1000, "{statistics:?}");
}

#[test]
fn guests_go_on_when_the_cache_is_given_up() {
    let statistics = run(Plan { seed: 10, failures: 20, errors_max: 10, ..PLAN });
    assert!(statistics.cache_read_errors > 10, "{statistics:?}");
}
