//! Serves volumes to NBD clients on one reactor until told to end, then ends in order: clients
//! first, then what is in flight, then a last flush of each origin.

use std::time::Duration;

use block_io::device::shared::SharedQueue;
use block_io::reactor::{Mailbox, Port, Reactor, Task};
use block_io::{BlockQueue, Completion, Request, RequestId, Timestamp};
use cache_engine::cache::Statistics;
use cache_engine::frontend::nbd::{NbdServer, ServerOptions, Transport};

use crate::failure::Failure;
use crate::output;
use crate::signals::SignalWatch;
use crate::volume::Volume;

/// How long the last flush may take: an origin that is gone must not keep the command from ending.
const FLUSH_GRACE: Duration = Duration::from_secs(5);

/// What another thread may ask of a service.
pub(crate) enum Message {
    /// The counters of each volume, in the order in which they were added.
    Statistics(std::sync::mpsc::Sender<Vec<Statistics>>),
    /// The end.
    End,
}

/// NBD exports of volumes on one reactor.
pub(crate) struct Service {
    reactor: Reactor,
    server: NbdServer<Volume>,
    volumes: Vec<SharedQueue<Volume>>,
    /// Ends the service when one arrives.
    signals: Option<SignalWatch>,
    /// Other threads' wishes. The service ends when all of them are gone.
    mailbox: Option<Mailbox<Message>>,
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

impl Service {
    /// A service without volumes.
    pub(crate) fn new(reactor: &Reactor) -> Self {
        Self {
            reactor: reactor.clone(),
            server: NbdServer::new(reactor, ServerOptions::default()),
            volumes: Vec::new(),
            signals: None,
            mailbox: None,
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
        Ok(())
    }

    /// Accepts clients at `transport`, and returns where that is.
    ///
    /// # Errors
    /// When it cannot be listened at.
    pub(crate) fn listen(&mut self, transport: &Transport) -> Result<Transport, Failure> {
        Ok(self.server.listen(transport)?)
    }

    /// Ends the service with the first signal.
    pub(crate) fn end_with(&mut self, signals: SignalWatch) {
        self.signals = Some(signals);
    }

    /// Takes wishes from `mailbox`, and ends when nobody can send any more.
    pub(crate) fn obey(&mut self, mailbox: Mailbox<Message>) {
        self.mailbox = Some(mailbox);
    }

    /// The counters of each volume: what clients asked for, not the service's own last flush.
    pub(crate) fn statistics(&self) -> Vec<Statistics> {
        let counters = |volume: &SharedQueue<Volume>| volume.with_queue(|one| one.statistics());
        let all = self.volumes.iter().map(counters);
        match &self.at_close {
            Some(at_close) => all
                .zip(at_close)
                .map(|(now, at_close)| Statistics { flushes: at_close.flushes, ..now })
                .collect(),
            None => all.collect(),
        }
    }

    fn take_messages(&mut self) -> bool {
        let Some(mailbox) = self.mailbox.take() else { return false };
        // Asked first: what was sent before the last sender left is still received.
        let mut end = mailbox.is_closed();
        let mut progress = false;
        while let Some(message) = mailbox.receive() {
            progress = true;
            match message {
                // Whoever asked may have gone meanwhile.
                Message::Statistics(reply) => drop(reply.send(self.statistics())),
                Message::End => end = true,
            }
        }
        self.mailbox = Some(mailbox);
        if end {
            self.close();
        }
        progress
    }

    fn close(&mut self) {
        if matches!(self.stage, Stage::Serving) {
            self.stage = Stage::Closing;
            self.server.shutdown();
        }
    }

    fn begin_flush(&mut self) {
        self.at_close = Some(self.statistics());
        let port = self.reactor.open_port();
        port.timer(self.reactor.now() + FLUSH_GRACE, 0);
        for volume in &mut self.volumes {
            if !volume.geometry().read_only && volume.submit(Request::flush(RequestId(0))).is_err()
            {
                output::notice("a volume was too busy for a last flush");
            }
        }
        self.stage = Stage::Flushing(port);
    }

    fn poll_flush(&mut self, now: Timestamp) -> bool {
        let mut progress = false;
        for volume in &mut self.volumes {
            progress |= volume.poll(now, &mut self.completions);
        }
        for completion in self.completions.drain(..) {
            if let Err(error) = completion.result {
                output::notice(format_args!("the last flush failed: {error}"));
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

impl Task for Service {
    fn poll(&mut self, now: Timestamp) -> bool {
        let mut progress = self.take_messages();
        if self.signals.as_ref().is_some_and(SignalWatch::arrived) {
            self.close();
        }
        match &self.stage {
            Stage::Serving | Stage::Closing => {
                progress |= self.server.poll(now);
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
