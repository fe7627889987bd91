//! The server: listeners, clients and exports as one reactor task.
//!
//! ```text
//!   Listener ──accept──▶ Client (socket, protocol::Connection) ──SharedQueue──▶ export's device
//! ```
//! Every export is found at every listener. All connections to an export share one queue, so a
//! flush on any covers what all of them have written.
//!
//! Servers on other cores may help: each accepted client goes to the one that has the fewest
//! ([`NbdServer::add_helper`]). Each has its own table of exports, which are to be the same
//! devices.
//!
//! Bounds: [`ServerOptions`], for all helpers together; further clients wait in the listeners'
//! backlogs.
//! Absent: TLS, and telling clients that a device was resized.

mod client;
mod handover;
mod listener;

#[cfg(test)]
mod tests;

use std::rc::Rc;
use std::time::Duration;

use block_io::device::shared::SharedQueue;
use block_io::reactor::{Descriptor, Port, Reactor, Task};
use block_io::{BlockQueue, Completion, DeviceError, Timestamp};

use super::address::Transport;
use super::protocol::{Export, Limits};

use client::{Client, Ending};
use handover::{Helpers, Inbox, Place};
use listener::Listener;

pub use handover::HelperAddress;

/// Bytes in a name or a description. //= NBD proto.md "Values"
const STRING_MAX: usize = 4096;
/// How long to leave a listener alone whose last accept failed, for want of descriptors mostly.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a server may be asked to bear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerOptions {
    /// Clients at a time.
    pub connections_max: usize,
    /// Requests and bytes of one client.
    pub limits: Limits,
    /// How long a client may negotiate.
    pub negotiation_timeout: Duration,
    /// How long requests in flight and replies may take after [`NbdServer::shutdown`].
    pub shutdown_grace: Duration,
}

impl Default for ServerOptions {
    /// 64 clients, 30 s for negotiation, 5 s of grace.
    fn default() -> Self {
        Self {
            connections_max: 64,
            limits: Limits::default(),
            negotiation_timeout: Duration::from_secs(30),
            shutdown_grace: Duration::from_secs(5),
        }
    }
}

/// What has happened so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ServerStatistics {
    /// Clients now.
    pub connections: usize,
    /// Clients ever.
    pub connections_total: u64,
    /// Clients that were disconnected because they broke the protocol or took too long to
    /// negotiate.
    pub connections_at_fault: u64,
}

/// An NBD server of any number of devices, on one core.
pub struct NbdServer<Queue: BlockQueue> {
    reactor: Reactor,
    /// For accepts and the server's own timers; without it the server is closing.
    port: Port,
    options: ServerOptions,
    exports: Rc<[Export]>,
    queues: Vec<SharedQueue<Queue>>,
    listeners: Vec<Listener>,
    clients: Vec<Client<Queue>>,
    helpers: Helpers,
    /// Where clients come from that another server has accepted.
    inbox: Option<Inbox>,
    /// Whose turn it is to be polled first.
    turn: usize,
    stage: Stage,
    statistics: ServerStatistics,
    completions: Vec<Completion>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Serving,
    ShuttingDown,
    Finished,
}

/// What the events of the server's own port are about: a listener's index, or one of these.
const GRACE_OVER: u64 = u64::MAX;
/// Added to a listener's index when its pause is over.
const PAUSE_OVER: u64 = 1 << 32;

impl<Queue: BlockQueue> NbdServer<Queue> {
    /// A server without exports and listeners.
    pub fn new(reactor: &Reactor, options: ServerOptions) -> Self {
        Self {
            reactor: reactor.clone(),
            port: reactor.open_port(),
            options,
            exports: Rc::new([]),
            queues: Vec::new(),
            listeners: Vec::new(),
            clients: Vec::new(),
            helpers: Helpers::new(),
            inbox: None,
            turn: 0,
            stage: Stage::Serving,
            statistics: ServerStatistics::default(),
            completions: Vec::new(),
        }
    }

    /// Serves the device behind `queue` as `name`. The first export is also the default one, of
    /// the empty name. Clients that are connected already do not see it.
    ///
    /// # Errors
    /// When the name is taken, or name or description are longer than 4096 bytes.
    pub fn add_export(
        &mut self,
        name: &str,
        description: &str,
        queue: SharedQueue<Queue>,
    ) -> Result<(), DeviceError> {
        for (field, text) in [("name", name), ("description", description)] {
            if text.len() > STRING_MAX {
                let length = text.len();
                return Err(DeviceError::new(format!(
                    "export {field}: {length} bytes, at most {STRING_MAX}"
                )));
            }
        }
        if self.exports.iter().any(|export| export.name == name) {
            return Err(DeviceError::new(format!("export name '{name}': is taken")));
        }
        let export = Export {
            name: name.to_owned(),
            description: description.to_owned(),
            geometry: queue.geometry(),
        };
        self.exports = self.exports.iter().cloned().chain([export]).collect();
        self.queues.push(queue);
        Ok(())
    }

    /// Accepts clients at `transport`, and returns where that is: with TCP port 0 the system
    /// chooses one. A transport that is listened at already is left as it is.
    ///
    /// # Errors
    /// When the host is unknown or the address cannot be listened at.
    pub fn listen(&mut self, transport: &Transport) -> Result<Transport, DeviceError> {
        let same = |listener: &&Listener| listener.asked == *transport;
        if let Some(listener) = self.listeners.iter().find(same) {
            return Ok(listener.bound.clone());
        }
        let listener = Listener::open(transport)?;
        let bound = listener.bound.clone();
        self.listeners.push(listener);
        Ok(bound)
    }

    /// Where servers on other cores can send clients that they have accepted.
    ///
    /// # Errors
    /// When there are no more descriptors.
    pub fn open_inbox(&mut self) -> Result<HelperAddress, DeviceError> {
        let (address, inbox) = HelperAddress::open(&self.reactor)?;
        self.inbox = Some(inbox);
        Ok(address)
    }

    /// Sends clients to a server on another core too. What all helpers have counts among the
    /// clients of this server.
    ///
    /// # Errors
    /// When there are no more descriptors.
    pub fn add_helper(&mut self, address: HelperAddress) -> Result<(), DeviceError> {
        self.helpers.add(&self.reactor, address)
    }

    /// Tells clients to come what the devices look like now; those that are connected were told
    /// before.
    pub fn refresh_exports(&mut self) {
        let exports = self.exports.iter().zip(&self.queues);
        self.exports = exports
            .map(|(export, queue)| Export { geometry: queue.geometry(), ..export.clone() })
            .collect();
    }

    /// Stops accepting clients and requests. The task is finished when requests in flight are
    /// answered, or when the time of grace is over. Socket files are removed at once.
    pub fn shutdown(&mut self) {
        if self.stage != Stage::Serving {
            return;
        }
        self.stage = Stage::ShuttingDown;
        // A new port drops the accepts with the old one.
        self.port = self.reactor.open_port();
        self.listeners.clear();
        // Those that were on their way here find a closed socket, as in a listener's backlog.
        self.inbox = None;
        self.port.timer(self.reactor.now() + self.options.shutdown_grace, GRACE_OVER);
        self.clients.iter_mut().for_each(Client::close);
    }

    /// Clients and their ends, those of helpers included.
    pub fn statistics(&self) -> ServerStatistics {
        ServerStatistics {
            connections: self.clients.len() + self.helpers.clients(),
            connections_at_fault: self.statistics.connections_at_fault + self.helpers.at_fault(),
            ..self.statistics
        }
    }

    /// The exports, in the order of their adding.
    pub fn exports(&self) -> &[Export] {
        &self.exports
    }

    fn take_events(&mut self, now: Timestamp) -> bool {
        let mut progress = false;
        while let Some(event) = self.port.next_event() {
            progress = true;
            if event.token == GRACE_OVER {
                self.clients.clear();
                self.stage = Stage::Finished;
                continue;
            }
            let index = (event.token % PAUSE_OVER) as usize;
            let Some(listener) = self.listeners.get_mut(index) else { continue };
            listener.is_waiting = false;
            match (event.result, event.descriptor) {
                (Ok(_), Some(socket)) => {
                    self.statistics.connections_total += 1;
                    if let Some(socket) = self.helpers.place(socket, self.clients.len()) {
                        self.admit(socket, None, now);
                    }
                }
                (Ok(_), None) => {}
                (Err(_), _) => {
                    listener.is_waiting = true;
                    self.port.timer(now + ACCEPT_PAUSE, event.token | PAUSE_OVER);
                }
            }
        }
        progress
    }

    /// Takes clients that another server has accepted.
    fn take_handovers(&mut self, now: Timestamp) -> bool {
        let mut progress = false;
        while let Some(handover) = self.inbox.as_ref().and_then(Inbox::receive) {
            self.statistics.connections_total += 1;
            self.admit(Descriptor::from(handover.socket), Some(handover.place), now);
            progress = true;
        }
        progress
    }

    fn admit(&mut self, socket: Descriptor, place: Option<Place>, now: Timestamp) {
        self.reactor.register(&socket);
        let exports = Rc::clone(&self.exports);
        let deadline = now + self.options.negotiation_timeout;
        let client = Client::new(&self.reactor, socket, exports, self.options.limits, deadline);
        self.clients.push(client.with_place(place));
    }

    fn accept(&mut self) -> bool {
        let mut progress = false;
        let waiting = self.listeners.iter().filter(|listener| listener.is_waiting).count();
        let clients = self.clients.len() + self.helpers.clients();
        let room = self.options.connections_max.saturating_sub(clients + waiting);
        let idle = self.listeners.iter_mut().enumerate().filter(|(_, one)| !one.is_waiting);
        for (index, listener) in idle.take(room) {
            self.port.accept(&listener.socket, index as u64);
            listener.is_waiting = true;
            progress = true;
        }
        progress
    }

    fn poll_clients(&mut self, now: Timestamp) -> bool {
        let mut progress = false;
        let count = self.clients.len();
        for step in 0..count {
            let index = (self.turn + step) % count;
            progress |= self.clients[index].poll(now, &self.queues);
        }
        // Whoever comes first gets the queue's free places first: so let it be another next time.
        self.turn = self.turn.wrapping_add(1);
        let statistics = &mut self.statistics;
        self.clients.retain(|client| {
            let ending = client.ending();
            if ending == Some(Ending::Fault) {
                statistics.connections_at_fault += 1;
                client.place().into_iter().for_each(Place::note_fault);
            }
            ending.is_none()
        });
        progress | (self.clients.len() < count)
    }

    /// Whether there is neither a client nor a request.
    fn is_idle(&self) -> bool {
        let idle = |queue: &SharedQueue<Queue>| queue.with_queue(|inner| inner.in_flight()) == 0;
        self.clients.is_empty() && self.queues.iter().all(idle)
    }

    /// Requests of clients that are gone still have to be brought to their end.
    fn poll_queues(&mut self, now: Timestamp) -> bool {
        let mut progress = false;
        for queue in &mut self.queues {
            progress |= queue.poll(now, &mut self.completions);
        }
        self.completions.clear();
        progress
    }
}

impl<Queue: BlockQueue> Task for NbdServer<Queue> {
    fn poll(&mut self, now: Timestamp) -> bool {
        let mut progress = self.take_events(now);
        progress |= self.take_handovers(now);
        progress |= self.poll_clients(now);
        progress |= self.poll_queues(now);
        match self.stage {
            Stage::Serving => progress |= self.accept(),
            Stage::ShuttingDown if self.is_idle() => {
                self.stage = Stage::Finished;
                progress = true;
            }
            Stage::ShuttingDown | Stage::Finished => {}
        }
        progress
    }

    fn is_finished(&self) -> bool {
        self.stage == Stage::Finished
    }
}

impl<Queue: BlockQueue> std::fmt::Debug for NbdServer<Queue> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NbdServer")
            .field("exports", &self.exports)
            .field("stage", &self.stage)
            .field("statistics", &self.statistics())
            .finish_non_exhaustive()
    }
}
