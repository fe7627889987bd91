//! Serves volumes to NBD clients and NVMe/TCP hosts until told to end, then ends in order: clients
//! first, then what is in flight, then a last flush of each origin. Further reactors may help
//! ([`crate::reactors`]).
//!
//! ```text
//!   poll ─▶ step: clients, cache, control socket ─▶ a change is asked for? ─▶ changes
//!             ▲                                                                 │ takes a while:
//!             └───────────────── serve_until ◀──────────────────────────────────┘ its turns
//! ```
//! Changes (volumes come and go, the cache device is replaced) take many turns of the reactor. Each
//! of those turns serves everybody else, so that a device that is slow to open stalls nobody; and
//! there is one change at a time.

mod changes;
mod nvme_exports;
mod opening;

use std::path::Path;
use std::time::Duration;

use block_io::reactor::{Port, Reactor, Task, Wait};
use block_io::{BlockQueue, Completion, DeviceError, Timestamp};
use cache_engine::backend::BackendQueue;
use cache_engine::cache::{Event, Statistics};
use cache_engine::control::ControlDesk;
use cache_engine::control::executor::Executor;
use cache_engine::frontend::nbd::{NbdServer, ServerOptions};

use crate::control::{Control, Daemon};
use crate::failure::Failure;
use crate::output;
use crate::reactors::Reactors;
use crate::run::VolumeSummary;
use crate::served::ExportedVolume;
use crate::volume::{CacheReport, ServiceCache, Volume};
use nvme_exports::NvmeExports;

/// How long the last flush may take: an origin that is gone must not keep the command from ending.
const FLUSH_GRACE: Duration = Duration::from_secs(5);

/// Asks a service for the counters of each volume, in the order in which they were added.
pub(crate) type StatisticsRequest = std::sync::mpsc::Sender<Vec<Statistics>>;

/// Exports of volumes. Everything but clients and their hits is on this reactor.
pub(crate) struct VolumeService {
    reactor: Reactor,
    server: NbdServer<Volume>,
    nvme: NvmeExports,
    /// Before the volumes, whom they use: dropped before them.
    reactors: Reactors<Volume>,
    cache: Option<ServiceCache>,
    volumes: Vec<ExportedVolume>,
    /// Whom it obeys; nobody until it serves.
    control: Option<Control<StatisticsRequest>>,
    /// Where people ask; until the last client is gone.
    desk: Option<ControlDesk<BackendQueue, BackendQueue>>,
    stage: Stage,
    /// Whether a change is under way, which waits for events of its own.
    is_changing: bool,
    /// For deadlines of a change.
    port: Port,
    /// Opens devices, away from the reactor.
    opener: opening::Opener,
    completions: Vec<Completion>,
}

enum Stage {
    Serving,
    /// No new clients; requests in flight are being answered.
    Closing,
    /// No clients; the last flushes are on their way until the timer ends.
    Flushing(Port),
    Finished,
}

impl VolumeService {
    /// A service without volumes, with a cache or none for them.
    pub(crate) fn new(reactor: &Reactor, cache: Option<ServiceCache>) -> Self {
        Self {
            reactor: reactor.clone(),
            server: NbdServer::new(reactor, ServerOptions::default()),
            nvme: NvmeExports::new(reactor),
            reactors: Reactors::new(reactor),
            cache,
            volumes: Vec::new(),
            control: None,
            desk: None,
            stage: Stage::Serving,
            is_changing: false,
            port: reactor.open_port(),
            opener: opening::Opener::default(),
            completions: Vec::new(),
        }
    }

    /// Has clients served by so many further reactors too. To be asked before there are volumes.
    ///
    /// # Errors
    /// When the system has no more threads, rings or descriptors.
    pub(crate) fn start_reactors(&mut self, count: usize) -> Result<(), Failure> {
        self.reactors.start(count, &mut self.server)
    }

    /// Its helpers, for tests that break them.
    #[cfg(test)]
    pub(crate) fn reactors(&self) -> &Reactors<Volume> {
        &self.reactors
    }

    /// Why it has ended without being told to, if it has.
    pub(crate) fn failure(&self) -> Option<Failure> {
        self.reactors.failure().map(Failure::new)
    }

    /// Obeys `control` from now on.
    pub(crate) fn obey(&mut self, control: Control<StatisticsRequest>) {
        self.control = Some(control);
    }

    /// Follows what origins tell of themselves, and lets people ask at the Unix socket `path`, if
    /// there is one.
    ///
    /// # Errors
    /// When it cannot be listened at.
    pub(crate) fn open_desk(&mut self, path: Option<&Path>) -> Result<(), Failure> {
        let mut executor = Executor::new(self.cache.as_ref().map(|cache| cache.engine().clone()));
        for volume in &self.volumes {
            executor.add_volume(&volume.plan.name, volume.id(), volume.served())?;
        }
        self.desk = Some(match path {
            Some(path) => ControlDesk::open(path, executor, &self.reactor)?,
            None => ControlDesk::closed(executor),
        });
        Ok(())
    }

    /// The counters of each volume.
    fn statistics(&self) -> Vec<Statistics> {
        self.volumes.iter().map(ExportedVolume::statistics).collect()
    }

    /// What is told of each volume at the end.
    pub(crate) fn summaries(&self) -> Vec<VolumeSummary> {
        self.volumes.iter().map(ExportedVolume::summary).collect()
    }

    /// What the whole cache did; none where nothing is cached.
    pub(crate) fn cache_report(&self) -> Option<CacheReport> {
        self.cache.as_ref().map(ServiceCache::report)
    }

    /// Serves everybody as far as that can be done now. Returns whether anything happened.
    fn step(&mut self, now: Timestamp) -> bool {
        self.volumes.iter_mut().for_each(ExportedVolume::tell_fault);
        let mut progress = self.server.poll(now);
        progress |= self.nvme.poll(now);
        progress |= self.reactors.poll(now);
        // Whoever is exported is polled by its servers.
        for volume in self.volumes.iter_mut().filter(|volume| !volume.is_exported) {
            progress |= volume.poll(now, &mut self.completions);
        }
        progress |= self.poll_cache(now);
        if let Some(desk) = &mut self.desk {
            progress |= desk.poll(now);
            desk.take_notices().iter().for_each(output::notice);
            if desk.take_resized() {
                self.refresh_exports();
            }
        }
        progress
    }

    /// Volumes may have other sizes now.
    fn refresh_exports(&mut self) {
        self.server.refresh_exports();
        self.reactors.refresh();
        let volumes = &self.volumes;
        let found = |name: &str| volumes.iter().find(|volume| volume.plan.name == name);
        let told = self.nvme.refresh(|name| found(name).map(|volume| volume.queue().geometry()));
        if let Err(error) = told {
            output::notice(format_args!("hosts are not told of a volume's new size: {error}"));
        }
    }

    fn poll_cache(&mut self, now: Timestamp) -> bool {
        let Some(cache) = &mut self.cache else { return false };
        let (desk, is_changing) = (&mut self.desk, self.is_changing);
        let (progress, done) = cache.poll(now, |event| match event {
            Event::Done(ticket) => {
                is_changing && desk.as_ref().is_none_or(|desk| !desk.waits_for(*ticket))
            }
            Event::Replaced | Event::Stopped => is_changing,
            _ => false,
        });
        if let Some(desk) = desk {
            done.into_iter().for_each(|ticket| desk.event(&Event::Done(ticket)));
        }
        if !is_changing {
            cache.tell_loaded();
        }
        progress
    }

    /// A turn of the reactor for a change that waits for something: serves everybody, and sleeps
    /// until something happens or `deadline` unless there is more to do.
    ///
    /// # Errors
    /// When the service is told to end, or the reactor fails.
    fn serve_until(&mut self, deadline: Option<Timestamp>) -> Result<Timestamp, DeviceError> {
        let now = self.reactor.now();
        let is_over = self.control.as_ref().is_some_and(|control| control.is_over(now));
        if is_over || self.reactors.failure().is_some() {
            return Err(DeviceError::new("the service ends"));
        }
        let busy = self.step(now) || deadline.is_some_and(|deadline| deadline <= now);
        if busy {
            self.reactor.turn(Wait::No)?;
        } else {
            let timer = deadline.map(|deadline| self.port.timer(deadline, 0));
            self.reactor.turn(Wait::ForEvent)?;
            timer.into_iter().for_each(|timer| self.port.cancel(timer));
        }
        while self.port.next_event().is_some() {}
        Ok(self.reactor.now())
    }

    /// Leaves volumes that nobody was served from as they were found, because the start failed.
    pub(crate) fn give_up(&mut self, reactor: &Reactor) {
        let is_idle =
            |service: &Self| service.cache.as_ref().is_none_or(|cache| cache.engine().is_idle());
        // The failure to be told is that of the start.
        let _ = self.wait_for(FLUSH_GRACE, is_idle);
        let _ = self.close(reactor);
    }

    fn poll_control(&mut self, now: Timestamp) -> bool {
        let Some(control) = &self.control else { return false };
        let (request, is_over) = (control.next_request(), control.is_over(now));
        let progress = request.is_some();
        if let Some(reply) = request {
            // Whoever asked may have gone meanwhile.
            let _ = reply.send(self.statistics());
        }
        if is_over {
            self.begin_close();
        }
        progress
    }

    fn begin_close(&mut self) {
        if matches!(self.stage, Stage::Serving) {
            self.stage = Stage::Closing;
            self.server.shutdown();
            self.nvme.shut_down();
            self.reactors.shut_down();
        }
    }

    fn begin_flush(&mut self) {
        self.desk = None;
        self.reactors.let_go();
        let port = self.reactor.open_port();
        port.timer(self.reactor.now() + FLUSH_GRACE, 0);
        for volume in &mut self.volumes {
            if !volume.begin_flush() {
                let name = &volume.plan.name;
                output::notice(format_args!("volume '{name}': too busy for a last flush"));
            }
        }
        self.stage = Stage::Flushing(port);
    }

    fn poll_flush(&mut self, now: Timestamp) -> bool {
        let mut progress = false;
        for volume in &mut self.volumes {
            progress |= volume.poll(now, &mut self.completions);
        }
        progress |= self.poll_cache(now);
        let Stage::Flushing(port) = &self.stage else { return progress };
        let over = port.next_event().is_some();
        let all_idle = self.volumes.iter().all(|volume| volume.in_flight() == 0)
            && self.cache.as_ref().is_none_or(|cache| cache.engine().is_idle());
        if over && !all_idle {
            output::notice(format_args!(
                "requests in flight did not end within {} s; their outcome is unknown",
                FLUSH_GRACE.as_secs()
            ));
        }
        if over || all_idle {
            self.stage = Stage::Finished;
            progress = true;
        }
        progress
    }
}

impl Daemon for VolumeService {
    fn close(&self, reactor: &Reactor) -> Result<(), Failure> {
        if let Some(cache) = &self.cache {
            let left: Vec<_> = self.volumes.iter().filter_map(ExportedVolume::left).collect();
            cache.stop(&left, reactor);
        }
        let close = |volume: &ExportedVolume| volume.with(|volume| volume.origin().close(reactor));
        Ok(self.volumes.iter().try_for_each(close)?)
    }
}

impl Task for VolumeService {
    fn poll(&mut self, now: Timestamp) -> bool {
        let mut progress = self.poll_control(now);
        if self.reactors.failure().is_some() {
            self.begin_close();
        }
        match &self.stage {
            Stage::Serving | Stage::Closing => {
                progress |= self.step(now);
                if matches!(self.stage, Stage::Serving) {
                    progress |= self.change();
                }
                let have_left = self.server.is_finished() && self.nvme.is_finished();
                if have_left && self.reactors.is_finished() {
                    self.begin_flush();
                    progress = true;
                }
            }
            Stage::Flushing(_) => progress |= self.poll_flush(now),
            Stage::Finished => {}
        }
        progress
    }

    fn is_finished(&self) -> bool {
        matches!(self.stage, Stage::Finished)
    }
}
