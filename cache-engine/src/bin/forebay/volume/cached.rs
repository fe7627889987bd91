//! A cached volume as the command runs it: the cache that is on a device, warm where that is
//! proved; its timers and what it has to say while it serves; and its end.
//!
//! ```text
//!   start ─▶ serving: poll ─▶ events ─▶ notices, disown ─▶ alarm ─▶ stop ─▶ report
//!                      ▲                                     │
//!                      └──────────── the reactor ◀───────────┘
//! ```
//! Absent: the cache itself, and whether it may be warm (both are the library's).

use std::time::Duration;

use block_io::reactor::{OperationId, Port, Reactor, Wait};
use block_io::{BlockDevice, BlockQueue, Completion, DeviceError, Geometry, Request, Timestamp};
use cache_engine::backend::address::{CacheAddress, Size};
use cache_engine::backend::attachment::StateDirectory;
use cache_engine::backend::origin_identity::{generation_now, offer};
use cache_engine::backend::{Backend, BackendQueue};
use cache_engine::cache::cipher::VolumeKey;
use cache_engine::cache::metadata::identity::GenerationSource;
use cache_engine::cache::metadata::{FormatId, Generation};
use cache_engine::cache::policy::PolicyStatistics;
use cache_engine::cache::{
    Cache, CacheConfig, CacheMode, Event, LineSize, PersistenceStatistics, Statistics, Ticket,
    VolumeId,
};
use cache_engine::volume::attach::{self, AttachOptions, Left, VolumeStart};
use cache_engine::volume::cache_device::{self, PrepareOptions};
use cache_engine::volume::opening::{self, FreshIds, OpeningOptions};
use cache_engine::volume::{CacheEngine, CachedVolume};

use super::{DEVICE_DEPTH, random_identity};
use crate::failure::Failure;

/// How long the cache device may take to be left in order.
const STOP_MAX: Duration = Duration::from_secs(30);

/// How long until what could not be noted on this host is tried again.
const DISOWN_AGAIN: Duration = Duration::from_secs(1);

type Engine = CacheEngine<BackendQueue, BackendQueue>;

/// How a cache is made.
#[derive(Debug)]
pub(crate) struct CacheSettings {
    pub(crate) address: CacheAddress,
    pub(crate) size: Option<Size>,
    pub(crate) force_format: bool,
    pub(crate) mode: CacheMode,
    /// Of a device that is formatted; of any other, what it must have.
    pub(crate) line_size: Option<LineSize>,
    pub(crate) config: CacheConfig,
    /// Name of the volume.
    pub(crate) name: String,
    /// Until when the origin is this host's alone; none is without end.
    pub(crate) lease: Option<Timestamp>,
    /// What the caller says of who wrote to the origin.
    pub(crate) generation: Option<Generation>,
    pub(crate) state: StateDirectory,
    pub(crate) key: Option<VolumeKey>,
}

/// What the whole cache did, for the end.
#[derive(Clone, Debug)]
pub(crate) struct CacheReport {
    pub(crate) line_size: LineSize,
    pub(crate) capacity: u64,
    pub(crate) lines: u64,
    /// Why it started cold; none if it did not.
    pub(crate) cold: Option<String>,
    pub(crate) policy: PolicyStatistics,
    pub(crate) persistence: Option<PersistenceStatistics>,
}

/// A cached volume. See the module.
pub(crate) struct Cached {
    volume: CachedVolume<BackendQueue, BackendQueue>,
    /// The cache device, as the operator names it.
    place: String,
    start: VolumeStart,
    /// What the caller vouches for.
    generation: Option<Generation>,
    state: StateDirectory,
    alarm: Alarm,
    /// Since when the host's note is to be made that the cache is not to be believed.
    disown_at: Option<Timestamp>,
    notices: Vec<String>,
    /// Done since they were last asked for.
    tickets_done: Vec<Ticket>,
    /// Whether all that was written is on the origin.
    flushed: bool,
}

impl Cached {
    /// Attaches `origin` to the cache, and says what an operator should know of how.
    ///
    /// # Errors
    /// When the cache's device cannot be opened or may not be used, or the volume not be added.
    pub(crate) fn start(
        origin: &Backend,
        settings: &CacheSettings,
        reactor: &Reactor,
    ) -> Result<(Self, Vec<String>), Failure> {
        let address = &settings.address;
        let place = address.to_string();
        let origin_queue = origin.open_queue(reactor, DEVICE_DEPTH)?;
        let backend = Backend::open_cache(address, settings.size)?;
        let mut notices: Vec<String> = backend.notice().map(str::to_owned).into_iter().collect();
        let queue = backend.open_queue(reactor, DEVICE_DEPTH)?;
        let there = queue.geometry().capacity;
        if let Some(asked) = settings.size.filter(|asked| asked.bytes() != there) {
            notices.push(format!(
                "{place}: --cache-size {asked}: the cache there has {} and keeps it; another size \
                 needs a new file",
                Size::from_bytes(there)
            ));
        }
        let failed = |error| Failure::because(format!("--cache {place}"), error);
        let port = reactor.open_port();
        let mut turn = |deadline| turn(reactor, &port, deadline);
        let engine = match address {
            CacheAddress::Memory => in_memory(queue, settings, reactor).map_err(failed)?,
            CacheAddress::File(_) => {
                let options = options(settings)?;
                let (engine, told) = opening::open_cache(queue, reactor.pool(), options, &mut turn)
                    .map_err(failed)?;
                notices.extend(told.into_iter().map(|told| format!("{place}: {told}")));
                engine
            }
        };
        let offer = offer(origin);
        let generation = settings.generation.clone().map(GenerationSource::Caller);
        let attach = AttachOptions {
            name: settings.name.clone(),
            mode: settings.mode,
            identity: offer.identity,
            generation: generation.unwrap_or(offer.generation),
            state: &settings.state,
            key: settings.key.as_ref(),
        };
        let (volume, start) =
            attach::attach_leased(&engine, origin_queue, attach, settings.lease, &mut turn)
                .map_err(failed)?;
        if let VolumeStart::Cold(why) = &start {
            notices.push(format!("{place}: the cache starts cold: {why}"));
        }
        let cached = Self {
            volume,
            place,
            start,
            generation: settings.generation.clone(),
            state: settings.state.clone(),
            alarm: Alarm { port: reactor.open_port(), armed: None, count: 0 },
            disown_at: None,
            notices: Vec::new(),
            tickets_done: Vec::new(),
            flushed: false,
        };
        Ok((cached, notices))
    }

    /// The cache in front.
    pub(crate) fn engine(&self) -> &Engine {
        self.volume.engine()
    }

    /// Its number there.
    pub(crate) fn id(&self) -> VolumeId {
        self.volume.id()
    }

    /// What was done since this was last asked.
    pub(crate) fn tickets_done(&mut self) -> Vec<Ticket> {
        std::mem::take(&mut self.tickets_done)
    }

    /// Counters of the volume since the start.
    pub(crate) fn statistics(&self) -> Statistics {
        self.volume.statistics()
    }

    /// Whether its devices may be closed.
    pub(crate) fn is_idle(&self) -> bool {
        self.volume.is_idle()
    }

    /// What an operator should know by now.
    pub(crate) fn notices(&mut self) -> impl Iterator<Item = String> + '_ {
        self.notices.drain(..)
    }

    /// The last flush has ended: whether all that was written is on the origin.
    pub(crate) fn flushed(&mut self, in_order: bool) {
        self.flushed = in_order;
    }

    /// What the whole cache did.
    pub(crate) fn report(&self) -> CacheReport {
        let cache = self.engine().cache();
        let cold = match (&self.start, cache.cold_reason()) {
            (VolumeStart::Cold(why), _) => Some(why.to_string()),
            (VolumeStart::Warm, reason) => reason.map(|reason| reason.to_string()),
        };
        CacheReport {
            line_size: cache.line_size(),
            capacity: cache.capacity(),
            lines: cache.lines_in_use(),
            cold,
            policy: cache.policy_statistics(),
            persistence: cache.persistence_statistics(),
        }
    }

    /// Leaves the cache device such that the next start is warm. What fails is a notice: nothing
    /// that is served depends on it.
    pub(crate) fn stop(&mut self, origin: &Backend, reactor: &Reactor) {
        if let Err(error) = self.try_stop(origin, reactor) {
            self.notices.push(format!(
                "{}: the cache was not stopped in order, its next start is as after a crash: \
                 {error}",
                self.place
            ));
        }
    }

    fn try_stop(&mut self, origin: &Backend, reactor: &Reactor) -> Result<(), DeviceError> {
        if !self.is_idle() {
            return Err(DeviceError::new("requests are in flight"));
        }
        let caller = self.generation.clone().map(GenerationSource::Caller);
        let left = match (self.flushed, caller) {
            (false, _) => Left::InDoubt,
            (true, Some(generation)) => Left::InOrder(generation),
            (true, None) => Left::InOrder(generation_now(origin)?),
        };
        let port = reactor.open_port();
        let end = reactor.now() + STOP_MAX;
        let mut turn = |deadline: Option<Timestamp>| {
            if reactor.now() >= end {
                let seconds = STOP_MAX.as_secs();
                return Err(DeviceError::new(format!("no answer for {seconds} s")));
            }
            turn(reactor, &port, Some(deadline.map_or(end, |deadline| deadline.min(end))))
        };
        attach::stop(self.engine(), &self.state, &[(self.volume.id(), left)], &mut turn)
    }

    fn hear(&mut self, now: Timestamp) {
        while let Some(event) = self.engine().next_event() {
            match event {
                Event::Loaded => self.loaded(),
                Event::Degraded(why) => self.notices.push(format!(
                    "{}: the cache device failed and is given up, all requests go to the origin: \
                     {why}",
                    self.place
                )),
                Event::Disown => self.disown_at = Some(now),
                Event::Done(ticket) => self.tickets_done.push(ticket),
                Event::LeaseOver(_) => self.notices.push(format!(
                    "{}: no lease is held: all requests go to the origin, and nothing that is \
                     cached is used any more",
                    self.place
                )),
                Event::LeaseHeld(_) => {
                    self.notices
                        .push(format!("{}: a lease is held: the cache is used", self.place));
                }
                Event::Stopped | Event::Replaced => {}
            }
        }
        if self.disown_at.is_some_and(|at| at <= now) {
            self.disown_at = match attach::disown(self.engine(), &self.state) {
                Ok(()) => None,
                Err(error) => {
                    self.notices.push(format!("writes wait until this is possible: {error}"));
                    Some(now + DISOWN_AGAIN)
                }
            };
        }
    }

    fn loaded(&mut self) {
        if self.start != VolumeStart::Warm {
            return;
        }
        let cache = self.engine().cache();
        let told = match cache.cold_reason() {
            Some(reason) => format!("{}: the cache starts cold: {reason}", self.place),
            None => {
                let (lines, line_size) = (cache.lines_in_use(), cache.line_size());
                let bytes = crate::output::table::bytes(lines * line_size.bytes());
                format!("{}: the cache is warm: {lines} lines of {line_size}, {bytes}", self.place)
            }
        };
        drop(cache);
        self.notices.push(told);
    }
}

/// A cache of which nothing outlives the process.
fn in_memory(
    mut queue: BackendQueue,
    settings: &CacheSettings,
    reactor: &Reactor,
) -> Result<Engine, DeviceError> {
    let line_size = settings.line_size.unwrap_or_default();
    // The device is zeroes, and its layout the same as any other's.
    let options = PrepareOptions { line_size, force_format: false, identity: [1; 16] };
    let turn = || {
        reactor.turn(Wait::ForEvent)?;
        Ok(reactor.now())
    };
    let (space, _) = cache_device::prepare(&mut queue, reactor.pool(), options, turn)?;
    let config = CacheConfig { line_size, ..settings.config.clone() };
    Ok(CacheEngine::new(Cache::in_memory(config, space, reactor.pool().clone())?, queue))
}

fn options(settings: &CacheSettings) -> Result<OpeningOptions, Failure> {
    Ok(OpeningOptions {
        config: settings.config.clone(),
        line_size: settings.line_size,
        force_format: settings.force_format,
        fresh: FreshIds {
            format: FormatId(random_identity()?),
            cold_start: FormatId(random_identity()?),
        },
    })
}

/// Lets the reactor go on until something happens, or `deadline`.
fn turn(
    reactor: &Reactor,
    port: &Port,
    deadline: Option<Timestamp>,
) -> Result<Timestamp, DeviceError> {
    match deadline {
        Some(deadline) if deadline <= reactor.now() => reactor.turn(Wait::No)?,
        Some(deadline) => {
            let timer = port.timer(deadline, 0);
            reactor.turn(Wait::ForEvent)?;
            port.cancel(timer);
        }
        None => reactor.turn(Wait::ForEvent)?,
    }
    while port.next_event().is_some() {}
    Ok(reactor.now())
}

/// A timer that wakes the reactor when the cache has something to do by itself.
struct Alarm {
    port: Port,
    armed: Option<(Timestamp, OperationId)>,
    /// Token of the one that is armed: those before it mean nothing any more.
    count: u64,
}

impl Alarm {
    fn set(&mut self, deadline: Option<Timestamp>) {
        while let Some(event) = self.port.next_event() {
            if event.token == self.count {
                self.armed = None;
            }
        }
        let Some(deadline) = deadline else { return };
        match self.armed {
            // Waking too early costs less than a new timer each time that it moves.
            Some((armed, _)) if armed <= deadline => return,
            Some((_, timer)) => self.port.cancel(timer),
            None => {}
        }
        self.count += 1;
        self.armed = Some((deadline, self.port.timer(deadline, self.count)));
    }
}

impl BlockQueue for Cached {
    fn geometry(&self) -> Geometry {
        self.volume.geometry()
    }

    fn submit(&mut self, request: Request) -> Result<(), Request> {
        self.volume.submit(request)
    }

    fn poll(&mut self, now: Timestamp, completions: &mut Vec<Completion>) -> bool {
        let progress = self.volume.poll(now, completions);
        self.hear(now);
        let deadline = self.engine().next_deadline();
        self.alarm.set(deadline.into_iter().chain(self.disown_at).min());
        progress
    }

    fn in_flight(&self) -> usize {
        self.volume.in_flight()
    }
}
