//! Serves volumes to NBD clients on one reactor until told to end, then ends in order: clients
//! first, then what is in flight, then a last flush of each origin.

use std::path::Path;
use std::time::Duration;

use block_io::device::shared::SharedQueue;
use block_io::reactor::{Port, Reactor, Task};
use block_io::{BlockQueue, Completion, Request, RequestId, Timestamp};
use cache_engine::backend::BackendQueue;
use cache_engine::cache::{Event, Statistics};
use cache_engine::control::ControlDesk;
use cache_engine::control::executor::Executor;
use cache_engine::frontend::nbd::{NbdServer, ServerOptions, Transport};

use crate::control::{Control, Daemon};
use crate::failure::Failure;
use crate::output;
use crate::served::Served;
use crate::volume::{CacheReport, Volume};

/// How long the last flush may take: an origin that is gone must not keep the command from ending.
const FLUSH_GRACE: Duration = Duration::from_secs(5);

/// Asks a service for the counters of each volume, in the order in which they were added.
pub(crate) type StatisticsRequest = std::sync::mpsc::Sender<Vec<Statistics>>;

/// NBD exports of volumes on one reactor.
pub(crate) struct NbdService {
    reactor: Reactor,
    server: NbdServer<Volume>,
    volumes: Vec<SharedQueue<Volume>>,
    /// Whether the loss of a volume's origin has been told.
    fault_told: Vec<bool>,
    control: Control<StatisticsRequest>,
    /// Where people ask; until the last client is gone.
    desk: Option<ControlDesk<BackendQueue, BackendQueue>>,
    stage: Stage,
    /// The counters when the last client was gone.
    at_close: Option<Vec<Statistics>>,
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

impl NbdService {
    /// A service without volumes that obeys `control`.
    pub(crate) fn new(reactor: &Reactor, control: Control<StatisticsRequest>) -> Self {
        Self {
            reactor: reactor.clone(),
            server: NbdServer::new(reactor, ServerOptions::default()),
            volumes: Vec::new(),
            fault_told: Vec::new(),
            control,
            desk: None,
            stage: Stage::Serving,
            at_close: None,
            completions: Vec::new(),
        }
    }

    /// Serves `volume` under each of `names`.
    ///
    /// # Errors
    /// When a name is taken.
    pub(crate) fn add_volume<'name>(
        &mut self,
        volume: Volume,
        names: impl IntoIterator<Item = &'name str>,
    ) -> Result<(), Failure> {
        let queue = SharedQueue::new(volume);
        for name in names {
            self.server.add_export(name, "", queue.another())?;
        }
        self.volumes.push(queue);
        self.fault_told.push(false);
        Ok(())
    }

    /// Accepts clients at `transport`, and returns where that is.
    ///
    /// # Errors
    /// When it cannot be listened at.
    pub(crate) fn listen(&mut self, transport: &Transport) -> Result<Transport, Failure> {
        Ok(self.server.listen(transport)?)
    }

    /// Lets people ask at the Unix socket `path`; `names` are the volumes', in the order of their
    /// adding.
    ///
    /// # Errors
    /// When it cannot be listened at.
    pub(crate) fn open_control(&mut self, path: &Path, names: &[&str]) -> Result<(), Failure> {
        let engine = |volume: &SharedQueue<Volume>| volume.with_queue(|one| one.engine());
        let mut executor = Executor::new(self.volumes.iter().find_map(engine));
        for (name, volume) in names.iter().zip(&self.volumes) {
            let id = volume.with_queue(|one| one.id());
            executor.add_volume(name, id, Box::new(Served(volume.another())))?;
        }
        self.desk = Some(ControlDesk::open(path, executor, &self.reactor)?);
        Ok(())
    }

    fn poll_desk(&mut self, now: Timestamp) -> bool {
        let Some(desk) = &mut self.desk else { return false };
        for volume in &self.volumes {
            for ticket in volume.with_queue(|volume| volume.tickets_done()) {
                desk.event(&Event::Done(ticket));
            }
        }
        let progress = desk.poll(now);
        if desk.take_resized() {
            self.server.refresh_exports();
        }
        progress
    }

    /// The counters of each volume: what clients asked for, not the service's own last flush.
    pub(crate) fn statistics(&self) -> Vec<Statistics> {
        let counters = |volume: &SharedQueue<Volume>| volume.with_queue(|one| one.statistics());
        let all = self.volumes.iter().map(counters);
        match &self.at_close {
            Some(at_close) => all
                .zip(at_close)
                .map(|(now, before)| Statistics {
                    flushes: before.flushes,
                    origin_errors: before.origin_errors,
                    ..now
                })
                .collect(),
            None => all.collect(),
        }
    }

    /// What the whole cache of the last volume did; none where nothing is cached.
    pub(crate) fn cache_report(&self) -> Option<CacheReport> {
        self.volumes.last()?.with_queue(|volume| volume.cache_report())
    }

    fn tell_notices(&self) {
        for volume in &self.volumes {
            volume.with_queue(|volume| volume.notices()).iter().for_each(output::notice);
        }
    }

    fn tell_faults(&mut self) {
        for (volume, told) in self.volumes.iter().zip(&mut self.fault_told) {
            if !*told && let Some(fault) = volume.with_queue(|volume| volume.fault()) {
                output::notice(format_args!("the origin is lost, its requests fail: {fault}"));
                *told = true;
            }
        }
    }

    fn obey(&mut self, now: Timestamp) -> bool {
        let mut progress = false;
        while let Some(reply) = self.control.next_request() {
            // Whoever asked may have gone meanwhile.
            let _ = reply.send(self.statistics());
            progress = true;
        }
        if self.control.is_over(now) {
            self.begin_close();
        }
        progress
    }

    fn begin_close(&mut self) {
        if matches!(self.stage, Stage::Serving) {
            self.stage = Stage::Closing;
            self.server.shutdown();
        }
    }

    fn begin_flush(&mut self) {
        self.at_close = Some(self.statistics());
        self.desk = None;
        let port = self.reactor.open_port();
        port.timer(self.reactor.now() + FLUSH_GRACE, 0);
        for volume in &mut self.volumes {
            if volume.geometry().read_only {
                volume.with_queue(|volume| volume.flushed(true));
            } else if volume.submit(Request::flush(RequestId(0))).is_err() {
                output::notice("a volume was too busy for a last flush");
            }
        }
        self.stage = Stage::Flushing(port);
    }

    fn poll_flush(&mut self, now: Timestamp) -> bool {
        let mut progress = false;
        for volume in &mut self.volumes {
            progress |= volume.poll(now, &mut self.completions);
            for completion in self.completions.drain(..) {
                volume.with_queue(|volume| volume.flushed(completion.result.is_ok()));
                if let Err(error) = completion.result {
                    output::notice(format_args!("the last flush failed: {error}"));
                }
            }
        }
        let Stage::Flushing(port) = &self.stage else { return progress };
        let over = port.next_event().is_some();
        let idle = |volume: &SharedQueue<Volume>| volume.with_queue(|volume| volume.is_idle());
        let all_idle = self.volumes.iter().all(idle);
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

impl Daemon for NbdService {
    fn close(&self, reactor: &Reactor) -> Result<(), Failure> {
        let closed = self
            .volumes
            .iter()
            .try_for_each(|volume| volume.with_queue(|volume| volume.close(reactor)));
        self.tell_notices();
        closed
    }
}

impl Task for NbdService {
    fn poll(&mut self, now: Timestamp) -> bool {
        let mut progress = self.obey(now);
        match &self.stage {
            Stage::Serving | Stage::Closing => {
                self.tell_faults();
                progress |= self.server.poll(now);
                // Without a client nobody else does, and a cache has things to do by itself.
                for volume in &mut self.volumes {
                    progress |= volume.poll(now, &mut self.completions);
                }
                self.tell_notices();
                progress |= self.poll_desk(now);
                if self.server.is_finished() {
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
