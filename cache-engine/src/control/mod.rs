//! Changing and looking at a running cache, from outside its process.
//!
//! ```text
//!   forebay status, set, volume … ─▶ client ══Unix socket══▶ server (threads)
//!                                                              │ bounded mailbox
//!                                       CacheEngine ◀── executor ◀── desk (the reactor's thread)
//! ```
//! [`model`] is the language, [`executor`] does what is asked, [`server`] and [`client`] are the
//! two ends of the socket. A [`ControlDesk`] is the part on the reactor's thread: whoever serves a
//! cache polls it like everything else. Nothing here stands on a request's path.

pub mod client;
pub mod executor;
pub mod model;
mod report;
pub mod server;
pub mod target_model;

use std::path::Path;

use block_io::reactor::{Mailbox, Reactor, clock};
use block_io::{BlockQueue, DeviceError, Timestamp};

use crate::cache::{Event, Ticket, VolumeId};
use executor::{Change, Executor, ServedVolume};
use model::Answer;
use server::{Call, ControlServer, Reply, ServerOptions};

/// Where a service gets its requests from, and gives its answers.
pub struct ControlDesk<Origin, CacheDevice> {
    // In the order of their end: whoever waits for an answer learns that there will be none.
    executor: Executor<Origin, CacheDevice, Reply>,
    socket: Option<Socket>,
}

/// Where people ask.
struct Socket {
    calls: Mailbox<Call>,
    server: ControlServer,
}

impl<Origin: BlockQueue, CacheDevice: BlockQueue> ControlDesk<Origin, CacheDevice> {
    /// Opens the control socket at `path` for what `executor` can do.
    ///
    /// # Errors
    /// See [`ControlServer::open`].
    pub fn open(
        path: &Path,
        executor: Executor<Origin, CacheDevice, Reply>,
        reactor: &Reactor,
    ) -> Result<Self, DeviceError> {
        let options = ServerOptions::default();
        let (sender, calls) = reactor.mailbox(options.clients_max)?;
        let server = ControlServer::open(path, options, sender)?;
        Ok(Self { executor, socket: Some(Socket { calls, server }) })
    }

    /// A desk that nobody can ask at: for what a service does without being asked.
    pub fn closed(executor: Executor<Origin, CacheDevice, Reply>) -> Self {
        Self { executor, socket: None }
    }

    /// Where it listens; nowhere, if nobody can ask.
    pub fn path(&self) -> Option<&Path> {
        self.socket.as_ref().map(|socket| socket.server.path())
    }

    /// Hears what the cache has to say: whoever takes the engine's events shows each of them here.
    pub fn event(&mut self, event: &Event) {
        self.executor.event(event);
    }

    /// See [`Executor::add_volume`].
    ///
    /// # Errors
    /// See there.
    pub fn add_volume(
        &mut self,
        name: &str,
        id: Option<VolumeId>,
        volume: Box<dyn ServedVolume>,
    ) -> Result<(), DeviceError> {
        self.executor.add_volume(name, id, volume)
    }

    /// See [`Executor::remove_volume`].
    pub fn remove_volume(&mut self, name: &str) {
        self.executor.remove_volume(name);
    }

    /// See [`Executor::waits_for`].
    pub fn waits_for(&self, ticket: Ticket) -> bool {
        self.executor.waits_for(ticket)
    }

    /// See [`Executor::next_change`].
    pub fn next_change(&mut self) -> Option<(Change, Reply)> {
        self.executor.next_change()
    }

    /// See [`Executor::answer`].
    pub fn answer(&mut self, reply: Reply, answer: Answer) {
        self.executor.answer(reply, answer);
    }

    /// Takes what is asked, and answers. Returns whether anything happened.
    pub fn poll(&mut self, now: Timestamp) -> bool {
        let mut progress = false;
        let next = |socket: &Option<Socket>| socket.as_ref().and_then(|one| one.calls.receive());
        while let Some(Call { request, reply }) = next(&self.socket) {
            // The time of this turn may be older than the request.
            self.executor.set_clock(clock());
            self.executor.execute(request, reply);
            progress = true;
        }
        progress |= self.executor.poll(now);
        while let Some((reply, answer)) = self.executor.next_answer() {
            reply.send(answer);
            progress = true;
        }
        progress
    }

    /// See [`Executor::take_notices`].
    pub fn take_notices(&mut self) -> Vec<String> {
        self.executor.take_notices()
    }

    /// See [`Executor::take_resized`].
    pub fn take_resized(&mut self) -> bool {
        self.executor.take_resized()
    }
}
