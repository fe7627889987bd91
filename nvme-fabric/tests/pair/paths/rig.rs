//! A host with paths to several target processes, which serve the same disk.
//!
//! ```text
//!   Paths ──stream──▶ Site 0: target, connections ──▶ late writes ──▶ disk
//!        └──stream──▶ Site 1: …                  ──▶ late writes ──┘
//! ```
//! A target may apply a write late: as long as its connection is up, at any time until a bound;
//! after the target has noticed that the connection is gone, until it has quiesced.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use block_io::device::shared::SharedQueue;
use block_io::sim::{
    Network, Random, SimDisk, SimListener, SimQueue, SimStream, Timer, Turn, World,
};
use block_io::{
    BlockDevice, BlockQueue, BufferPool, Completion, Geometry, IoError, Request, Timestamp,
};
use nvme_fabric::error::ConnectionError;
use nvme_fabric::host::paths::{PathState, Settings};
use nvme_fabric::host::{HostOptions, Paths, QueueIndex};
use nvme_fabric::spec::log_page::AccessState;
use nvme_fabric::spec::nqn::HostId;
use nvme_fabric::target::{self, Connection, Namespace, Subsystem, Target};

use crate::harness::{Moved, SUBSYSTEM, move_bytes_through, nqn};

/// How late writes may be applied.
#[derive(Clone, Copy)]
pub(super) struct Late {
    /// So many of a thousand writes are late.
    pub(super) per_mille: u32,
    /// At most so long while the connection is up.
    pub(super) connected: Duration,
    /// At most so long after the target has noticed that it is gone.
    pub(super) quiesce: Duration,
}

struct Held {
    apply_at: Timestamp,
    connection: u64,
    request: Request,
}

struct Served {
    number: u64,
    connection: Connection,
    stream: SimStream,
    queue: SharedQueue<SimQueue>,
}

/// One target process.
pub(super) struct Site {
    pub(super) target: Target,
    name: String,
    listener: Option<SimListener>,
    served: Vec<Served>,
    held: Vec<Held>,
    /// Requests that it has taken for the disk.
    pub(super) carried: u64,
}

impl Site {
    /// Connections that it has.
    pub(super) fn served(&self) -> usize {
        self.served.len()
    }
}

pub(super) struct Rig {
    pub(super) world: World,
    pub(super) network: Network,
    pub(super) pool: BufferPool,
    pub(super) host: Paths,
    pub(super) disk: SimDisk,
    pub(super) sites: Vec<Site>,
    pub(super) random: Random,
    pub(super) late: Option<Late>,
    /// Writes that were applied after their connection had ended.
    pub(super) applied_late: u64,
    /// By path and queue. Streams that the host has dropped without the peer hearing of it stay.
    pub(super) streams: BTreeMap<(usize, QueueIndex), SimStream>,
    silent: Vec<SimStream>,
    /// Of a thousand arrivals so many have a byte damaged, behind the exchange of ICReq and ICResp:
    /// what is found out only with both digests.
    pub(super) damage_per_mille: u32,
    /// Bytes damaged so far.
    pub(super) damaged: u64,
    /// Connections of targets that ended because of a digest.
    pub(super) damage_reported: u64,
    /// The network tells nobody that a connection is closed.
    pub(super) loses_closes: bool,
    queue: SharedQueue<SimQueue>,
    uuid: HostId,
    geometry: Geometry,
    connections: u64,
    timer: Option<Timer>,
    alarm: Option<Timer>,
}

/// Bytes of ICReq, and of ICResp, which no digest protects.
const UNPROTECTED: u64 = 128;

/// Whether a connection of a target's has ended because of a digest.
fn is_damaged(connection: &Connection) -> bool {
    connection.error().is_some_and(|error| error.to_string().contains("digest"))
}

/// Damages a byte of what has arrived, now and then; whether it did.
fn damage(per_mille: u32, stream: &SimStream, random: &mut Random, bytes: &mut [u8]) -> bool {
    let before = stream.received() - bytes.len() as u64;
    let is_damaged = per_mille > 0 && before >= UNPROTECTED && random.chance(per_mille);
    if is_damaged {
        let at = random.below(bytes.len() as u64) as usize;
        bytes[at] ^= 1 << random.below(8);
    }
    is_damaged
}

pub(super) fn name(site: usize) -> String {
    format!("site{site}:4420")
}

pub(super) fn new_target(geometry: Geometry, uuid: HostId) -> Target {
    let subsystem = Subsystem::new(nqn(SUBSYSTEM), "0123").expect("a serial number");
    target_of(subsystem, geometry, uuid)
}

fn target_of(mut subsystem: Subsystem, geometry: Geometry, uuid: HostId) -> Target {
    let mut target = Target::new(target::Settings::default()).expect("settings are right");
    let namespace = Namespace::new(geometry, uuid).expect("a namespace");
    subsystem.add_namespace(namespace).expect("room");
    target.add_subsystem(subsystem).expect("the name is free");
    target
}

fn take_due(held: &mut Vec<Held>, now: Timestamp) -> Vec<Held> {
    let (due, rest) = held.drain(..).partition(|held| held.apply_at <= now);
    *held = rest;
    due
}

impl Rig {
    pub(super) fn new(seed: u64, sites: usize, settings: Settings) -> Self {
        Self::with(seed, sites, settings, |_| {})
    }

    pub(super) fn with(
        seed: u64,
        sites: usize,
        settings: Settings,
        change: impl Fn(&mut HostOptions),
    ) -> Self {
        let world = World::new(seed);
        let network = Network::new(&world);
        let pool = BufferPool::heap();
        let geometry = Geometry { transfer_max: 128 << 10, ..Geometry::new(1 << 20) };
        let disk = SimDisk::new(&world, "origin", geometry);
        let queue = SharedQueue::new(disk.open_queue(&world, 1024).expect("opens"));
        let uuid = HostId([9; 16]);
        let make = |site: usize| Site {
            target: new_target(geometry, uuid),
            listener: Some(network.listen(&name(site)).expect("the name is free")),
            name: name(site),
            served: Vec::new(),
            held: Vec::new(),
            carried: 0,
        };
        let options = (0..sites).map(|site| {
            let mut options = HostOptions { address: name(site), ..crate::harness::options() };
            change(&mut options);
            options
        });
        let host = Paths::new(&pool, options.collect(), 1, settings, seed, world.now())
            .expect("options are right");
        Self {
            sites: (0..sites).map(make).collect(),
            random: world.random("rig"),
            world,
            network,
            pool,
            host,
            disk,
            late: None,
            applied_late: 0,
            streams: BTreeMap::new(),
            silent: Vec::new(),
            damage_per_mille: 0,
            damaged: 0,
            damage_reported: 0,
            loses_closes: false,
            queue,
            uuid,
            geometry,
            connections: 0,
            timer: None,
            alarm: None,
        }
    }

    /// Kills a target process: its connections are cut, nobody listens; the disk keeps what it has.
    pub(super) fn kill(&mut self, site: usize) {
        let Site { listener, served, held, target, .. } = &mut self.sites[site];
        *listener = None;
        for served in served.drain(..) {
            served.stream.cut();
        }
        held.clear();
        *target = new_target(self.geometry, self.uuid);
    }

    /// Starts it again, perhaps as another one.
    pub(super) fn start(&mut self, site: usize) {
        let place = &mut self.sites[site];
        place.listener = Some(self.network.listen(&place.name).expect("the name is free"));
    }

    /// The namespace that targets started from now on serve.
    pub(super) fn replace(&mut self, site: usize, target: Target) {
        self.sites[site].target = target;
    }

    /// Gives a site that nobody is connected to an access group, in which the namespace is.
    pub(super) fn with_access(&mut self, site: usize, state: AccessState) {
        let subsystem = Subsystem::new(nqn(SUBSYSTEM), "0123").expect("a serial number");
        let subsystem = subsystem.with_access_groups(&[(1, state)]).expect("a group");
        self.replace(site, target_of(subsystem, self.geometry, self.uuid));
    }

    /// Switches that group.
    pub(super) fn set_access(&mut self, site: usize, state: AccessState) {
        self.sites[site].target.set_access_state(0, 1, state).expect("it has one");
    }

    /// The connections of a path are cut, both ends are told.
    pub(super) fn cut(&mut self, path: usize) {
        self.streams.iter().filter(|((of, _), _)| *of == path).for_each(|(_, it)| it.cut());
    }

    /// The connections of a path carry nothing any more, and nobody is told.
    pub(super) fn silence(&mut self, path: usize) {
        self.streams.iter().filter(|((of, _), _)| *of == path).for_each(|(_, it)| it.silence());
    }

    /// Refuses connections of a path, or no longer.
    pub(super) fn refuse(&mut self, path: usize, refuse: bool) {
        self.network.refuse(&name(path), refuse);
    }

    /// Has the clock stop at `time`, once.
    pub(super) fn wake_at(&mut self, time: Timestamp) {
        if self.alarm.as_ref().is_none_or(|alarm| alarm.deadline() != time) {
            self.alarm = Some(self.world.timer(time));
        }
    }

    pub(super) fn state(&self, path: usize) -> PathState {
        self.host.status().paths[path].state
    }

    fn poll(&mut self) -> bool {
        let now = self.world.now();
        let mut progress = false;
        for site in 0..self.sites.len() {
            progress |= self.poll_site(site, now);
        }
        progress |= self.host.tick(now);
        while let Some((path, queue)) = self.host.next_stream_wanted() {
            progress = true;
            match self.network.connect(&name(path)) {
                Ok(stream) => {
                    self.streams.insert((path, queue), stream);
                    self.host.stream_established(path, queue);
                }
                Err(_) => self.host.stream_failed(path, queue, IoError::Other(111)),
            }
        }
        for key in self.streams.keys().copied().collect::<Vec<_>>() {
            progress |= self.poll_stream(key);
        }
        progress
    }

    fn poll_stream(&mut self, (path, queue): (usize, QueueIndex)) -> bool {
        let Self { streams, host, random, damaged, damage_per_mille, .. } = self;
        let stream = &streams[&(path, queue)];
        let Some(connection) = host.connection(path, queue) else {
            return false;
        };
        let mut progress = false;
        let arrive = |bytes: &mut [u8]| {
            *damaged += u64::from(damage(*damage_per_mille, stream, random, bytes));
        };
        match move_bytes_through(connection, stream, &mut Vec::new(), arrive) {
            Moved::Nothing => {}
            Moved::Something => progress = true,
            Moved::End => connection.end_of_stream(),
            Moved::Broken => connection.network_failed("moving bytes", IoError::ConnectionLost),
        }
        if connection.wants_close() {
            let stream = self.streams.remove(&(path, queue)).expect("it is there");
            if self.loses_closes {
                stream.silence();
                self.silent.push(stream);
            } else {
                // As a socket that lingers for no time.
                stream.cut();
            }
            self.host.stream_closed(path, queue);
            progress = true;
        }
        progress
    }

    fn poll_site(&mut self, site: usize, now: Timestamp) -> bool {
        let mut progress = false;
        let Self { sites, queue, connections, late, random, pool, applied_late, .. } = self;
        let Self { damaged, damage_per_mille, damage_reported, .. } = self;
        let Site { target, listener, served, held, carried, .. } = &mut sites[site];
        while let Some(stream) = listener.as_ref().and_then(SimListener::accept) {
            let local = IpAddr::V4(Ipv4Addr::LOCALHOST);
            let connection = Connection::new(target.settings(), pool, local, now);
            *connections += 1;
            let (number, queue) = (*connections, queue.another());
            served.push(Served { number, connection, stream, queue });
            progress = true;
        }
        let mut due = take_due(held, now);
        let mut completions: Vec<Completion> = Vec::new();
        served.retain_mut(|served| {
            let Served { number, connection, stream, queue } = served;
            let arrive = |bytes: &mut [u8]| {
                *damaged += u64::from(damage(*damage_per_mille, stream, random, bytes));
            };
            match move_bytes_through(connection, stream, &mut Vec::new(), arrive) {
                Moved::Nothing => {}
                Moved::Something => progress = true,
                Moved::End | Moved::Broken => {
                    connection.disconnect(target, ConnectionError::Closed);
                }
            }
            while let Some(submission) = connection.next_submission() {
                progress = true;
                *carried += 1;
                let request = submission.request;
                match late {
                    Some(late)
                        if request.operation.changes_content() && random.chance(late.per_mille) =>
                    {
                        let most = late.connected.as_nanos() as u64;
                        let after = Duration::from_nanos(random.below(most));
                        held.push(Held { apply_at: now + after, connection: *number, request });
                    }
                    _ => queue.submit(request).expect("the queue is deep enough"),
                }
            }
            for index in (0..due.len()).rev() {
                if due[index].connection == *number {
                    let held = due.swap_remove(index);
                    queue.submit(held.request).expect("the queue is deep enough");
                    progress = true;
                }
            }
            progress |= queue.poll(now, &mut completions);
            completions.drain(..).for_each(|completion| connection.complete(completion));
            progress |= connection.poll(target, now);
            let gone = connection.error().is_some();
            *damage_reported += u64::from(is_damaged(connection));
            if gone {
                progress = true;
                let quiesce = late.map_or(0, |late| late.quiesce.as_nanos() as u64);
                for held in held.iter_mut().filter(|held| held.connection == *number) {
                    held.apply_at = now + Duration::from_nanos(random.below(quiesce));
                }
            }
            !gone
        });
        // Writes of connections that are gone: they are applied and nobody is told.
        for held in due {
            progress = true;
            *applied_late += 1;
            queue.submit(held.request).expect("the queue is deep enough");
        }
        progress |= queue.poll(now, &mut completions);
        progress
    }

    fn next_deadline(&self) -> Option<Timestamp> {
        let sites = self.sites.iter().flat_map(|site| {
            let served = site.served.iter().filter_map(|served| served.connection.deadline());
            served.chain(site.held.iter().map(|held| held.apply_at))
        });
        sites.chain(self.host.next_deadline()).min()
    }

    /// Runs until `done`.
    pub(super) fn run_until(&mut self, mut done: impl FnMut(&mut Self) -> bool) {
        let world = self.world.clone();
        world
            .run(|now| {
                let progress = self.poll();
                if done(self) {
                    return Turn::Done;
                }
                if progress {
                    return Turn::Progress;
                }
                let deadline = self.next_deadline().filter(|deadline| *deadline > now);
                self.timer = deadline.map(|deadline| self.world.timer(deadline));
                Turn::Idle
            })
            .unwrap_or_else(|stalled| panic!("{stalled}: {:?}", self.host.status()));
    }

    /// Lets time pass with everybody at work.
    pub(super) fn run_for(&mut self, duration: Duration) {
        let end = self.world.now() + duration;
        let stop = self.world.timer(end);
        self.run_until(|_| stop.is_due());
    }

    /// Runs until every path is live and a queue is open.
    pub(super) fn bring_up(&mut self, depth: usize) -> usize {
        let all_live = |rig: &mut Self| {
            rig.host.status().paths.iter().all(|path| path.state == PathState::Live)
        };
        self.run_until(all_live);
        self.host.open_queue(depth).expect("a path is up")
    }

    /// Runs one request to its end; how long that took.
    pub(super) fn request(&mut self, queue: usize, request: Request) -> (Completion, Duration) {
        let started = self.world.now();
        self.host.submit(queue, request).expect("room");
        let mut completions = Vec::new();
        self.run_until(|rig| rig.host.take_completions(queue, &mut completions));
        assert_eq!(completions.len(), 1);
        (completions.pop().expect("one completion"), self.world.now().since(started))
    }
}
