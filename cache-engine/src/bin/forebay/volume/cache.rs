//! The cache of a service, with all its volumes: opened from its device, heard while it serves,
//! left in order.
//!
//! ```text
//!   open ─▶ serving: poll ─▶ events ─▶ notices, disown ─▶ alarm ─▶ stop ─▶ report
//!                     ▲                                     │
//!                     └──────────── the reactor ◀───────────┘
//! ```
//! Absent: the cache itself (the library's), and its volumes ([`super::cached`]).

use std::time::Duration;

use block_io::reactor::{OperationId, Port, Reactor, Wait};
use block_io::{BlockDevice, BlockQueue, DeviceError, Timestamp};
use cache_engine::backend::address::{CacheAddress, Size};
use cache_engine::backend::attachment::StateDirectory;
use cache_engine::backend::{Backend, BackendQueue, ReadableDevice};
use cache_engine::cache::metadata::FormatId;
use cache_engine::cache::policy::PolicyStatistics;
use cache_engine::cache::{
    Cache, CacheConfig, Event, LineSize, PersistenceStatistics, Ticket, VolumeId,
};
use cache_engine::volume::CacheEngine;
use cache_engine::volume::attach::{self, Left};
use cache_engine::volume::cache_device::{self, PrepareOptions};
use cache_engine::volume::opening::{self, FreshIds, OpeningOptions};

use super::{DEVICE_DEPTH, random_identity};
use crate::failure::Failure;
use crate::output;
use crate::run::plan::CachePlan;

/// How long the cache device may take to be left in order.
const STOP_MAX: Duration = Duration::from_secs(30);

/// How long until what could not be noted on this host is tried again.
const DISOWN_AGAIN: Duration = Duration::from_secs(1);

/// The engine of a service.
pub(crate) type Engine = CacheEngine<BackendQueue, BackendQueue>;

/// What the whole cache did, for the end.
#[derive(Clone, Debug)]
pub(crate) struct CacheReport {
    /// Its device, as the operator names it.
    pub(crate) place: String,
    pub(crate) line_size: LineSize,
    pub(crate) capacity: u64,
    pub(crate) lines: u64,
    pub(crate) policy: PolicyStatistics,
    pub(crate) persistence: Option<PersistenceStatistics>,
}

/// The cache of a service. See the module.
pub(crate) struct ServiceCache {
    engine: Engine,
    address: CacheAddress,
    /// The device for other cores to read.
    device: Option<ReadableDevice>,
    state: StateDirectory,
    alarm: Alarm,
    /// Since when the host's note is to be made that the cache is not to be believed.
    disown_at: Option<Timestamp>,
    /// What an earlier run cached is in use, and that is to be told.
    is_loaded: bool,
    /// Whether a volume was warm at the start of the cache.
    is_warm: bool,
    /// Whether the device is being replaced: that it is given up is no failure then.
    is_replacing: bool,
}

impl ServiceCache {
    /// Opens the cache that is on a device, or makes it, and tells what an operator should know.
    ///
    /// # Errors
    /// When the device cannot be opened, may not be used, or is too small.
    pub(crate) fn open(plan: &CachePlan, reactor: &Reactor) -> Result<Self, Failure> {
        let address = &plan.address;
        let failed = |error| Failure::because(format!("cache {address}"), error);
        let state = plan.state_directory()?;
        let backend = Backend::open_cache(address, plan.size)?;
        backend.notice().into_iter().for_each(output::notice);
        let queue = backend.open_queue(reactor, DEVICE_DEPTH)?;
        let there = queue.geometry().capacity;
        if let Some(asked) = plan.size.filter(|asked| asked.bytes() != there) {
            output::notice(format_args!(
                "{address}: --cache-size {asked}: the cache there has {} and keeps it; another \
                 size needs a new file",
                Size::from_bytes(there)
            ));
        }
        let port = reactor.open_port();
        let mut turn = |deadline| turn(reactor, &port, deadline);
        let engine = match address {
            CacheAddress::Memory => in_memory(queue, plan, reactor).map_err(failed)?,
            CacheAddress::File(_) => {
                let options = OpeningOptions {
                    config: plan.config(),
                    line_size: plan.line_size,
                    force_format: plan.force_format,
                    fresh: fresh_ids()?,
                };
                let opened = opening::open_cache(queue, reactor.pool(), options, &mut turn);
                let (engine, told) = opened.map_err(failed)?;
                told.iter().for_each(|told| output::notice(format_args!("{address}: {told}")));
                engine
            }
        };
        Ok(Self {
            engine,
            address: address.clone(),
            device: backend.readable(),
            state,
            alarm: Alarm { port: reactor.open_port(), armed: None, count: 0 },
            disown_at: None,
            is_loaded: false,
            is_warm: false,
            is_replacing: false,
        })
    }

    /// The engine, for its volumes.
    pub(crate) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Where its lines are.
    pub(crate) fn address(&self) -> &CacheAddress {
        &self.address
    }

    /// Its device for other cores to read, where they can.
    pub(crate) fn device(&self) -> Option<&ReadableDevice> {
        self.device.as_ref()
    }

    /// Where this host notes what was attached.
    pub(crate) fn state(&self) -> &StateDirectory {
        &self.state
    }

    /// A volume was attached before anything was served, with what is cached of it: when all of
    /// that is in use is told.
    pub(crate) fn expect_warmth(&mut self) {
        self.is_warm = true;
    }

    /// Its device is about to be replaced.
    pub(crate) fn begin_replacing(&mut self) {
        self.is_replacing = true;
    }

    /// Its device has been replaced, or not.
    pub(crate) fn end_replacing(&mut self, now_at: Option<(CacheAddress, &Backend)>) {
        self.is_replacing = false;
        if let Some((address, backend)) = now_at {
            (self.address, self.is_warm) = (address, false);
            self.device = backend.readable();
        }
    }

    /// What the whole cache did.
    pub(crate) fn report(&self) -> CacheReport {
        let cache = self.engine.cache();
        CacheReport {
            place: self.address.to_string(),
            line_size: cache.line_size(),
            capacity: cache.capacity(),
            lines: cache.lines_in_use(),
            policy: cache.policy_statistics(),
            persistence: cache.persistence_statistics(),
        }
    }

    /// Moves the cache on, without a volume to poll too. Returns whether anything happened, and the
    /// tickets that are done. What `is_awaited` by somebody else is left to him.
    pub(crate) fn poll(
        &mut self,
        now: Timestamp,
        is_awaited: impl Fn(&Event) -> bool,
    ) -> (bool, Vec<Ticket>) {
        let progress = self.engine.poll(now);
        let mut done = Vec::new();
        while let Some(event) = self.engine.take_event_where(|event| !is_awaited(event)) {
            match event {
                Event::Loaded => self.is_loaded = true,
                Event::Degraded(_) if self.is_replacing => {}
                Event::Degraded(why) => output::notice(format_args!(
                    "{}: the cache device failed and is given up, all requests go to the origins: \
                     {why}",
                    self.address
                )),
                Event::Disown => self.disown_at = Some(now),
                Event::Done(ticket) => done.push(ticket),
                Event::LeaseOver(id) => self.tell_of(
                    id,
                    "no lease is held: all its requests go to \
                     the origin, and nothing that is cached of it is used any more",
                ),
                Event::AnotherOrigin(id) => self.tell_of(
                    id,
                    "its origin is another device now: nothing that was cached of it is used any \
                     more, and all its requests go to the origin; remove it and add it again when \
                     that is right",
                ),
                Event::LeaseHeld(id) => self.tell_of(id, "a lease is held: the cache is used"),
                Event::Stopped | Event::Replaced => {}
            }
        }
        self.disown(now);
        let deadline = self.engine.next_deadline();
        self.alarm.set(deadline.into_iter().chain(self.disown_at).min());
        (progress, done)
    }

    fn tell_of(&self, id: VolumeId, what: &str) {
        let cache = self.engine.cache();
        // It may have been taken out since.
        let Some(name) = cache.volume_name(id) else { return };
        output::notice(format_args!("{}: volume '{name}': {what}", self.address));
    }

    fn disown(&mut self, now: Timestamp) {
        if self.disown_at.is_some_and(|at| at <= now) {
            self.disown_at = match attach::disown(&self.engine, &self.state) {
                Ok(()) => None,
                Err(error) => {
                    output::notice(format_args!("writes wait until this is possible: {error}"));
                    Some(now + DISOWN_AGAIN)
                }
            };
        }
    }

    /// Tells, once, that what an earlier run cached is in use.
    pub(crate) fn tell_loaded(&mut self) {
        if !std::mem::take(&mut self.is_loaded) || !self.is_warm {
            return;
        }
        let (cache, place) = (self.engine.cache(), &self.address);
        match cache.cold_reason() {
            Some(reason) => {
                output::notice(format_args!("{place}: the cache starts cold: {reason}"));
            }
            None => {
                let (lines, line_size) = (cache.lines_in_use(), cache.line_size());
                let bytes = output::table::bytes(lines * line_size.bytes());
                output::notice(format_args!(
                    "{place}: the cache is warm: {lines} lines of {line_size}, {bytes}"
                ));
            }
        }
    }

    /// Leaves the cache device such that the next start is warm. What fails is a notice: nothing
    /// that is served depends on it.
    pub(crate) fn stop(&self, left: &[(VolumeId, Left)], reactor: &Reactor) {
        if let Err(error) = self.try_stop(left, reactor) {
            output::notice(format_args!(
                "{}: the cache was not stopped in order, its next start is as after a crash: \
                 {error}",
                self.address
            ));
        }
    }

    fn try_stop(&self, left: &[(VolumeId, Left)], reactor: &Reactor) -> Result<(), DeviceError> {
        if !self.engine.is_idle() {
            return Err(DeviceError::new("requests are in flight"));
        }
        let port = reactor.open_port();
        let end = reactor.now() + STOP_MAX;
        let mut turn = |deadline: Option<Timestamp>| {
            if reactor.now() >= end {
                let seconds = STOP_MAX.as_secs();
                return Err(DeviceError::new(format!("no answer for {seconds} s")));
            }
            turn(reactor, &port, Some(deadline.map_or(end, |deadline| deadline.min(end))))
        };
        attach::stop(&self.engine, &self.state, left, &mut turn)
    }
}

/// Ids that no device was ever formatted with.
///
/// # Errors
/// When the system has no random bytes to give.
pub(crate) fn fresh_ids() -> Result<FreshIds, Failure> {
    Ok(FreshIds { format: FormatId(random_identity()?), cold_start: FormatId(random_identity()?) })
}

/// A cache of which nothing outlives the process.
fn in_memory(
    mut queue: BackendQueue,
    plan: &CachePlan,
    reactor: &Reactor,
) -> Result<Engine, DeviceError> {
    let line_size = plan.line_size.unwrap_or_default();
    // The device is zeroes, and its layout the same as any other's.
    let options = PrepareOptions { line_size, force_format: false, identity: [1; 16] };
    let turn = || {
        reactor.turn(Wait::ForEvent)?;
        Ok(reactor.now())
    };
    let (space, _) = cache_device::prepare(&mut queue, reactor.pool(), options, turn)?;
    let config = CacheConfig { line_size, ..plan.config() };
    Ok(CacheEngine::new(Cache::in_memory(config, space, reactor.pool().clone())?, queue))
}

/// Lets the reactor go on until something happens, or `deadline`.
pub(crate) fn turn(
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
