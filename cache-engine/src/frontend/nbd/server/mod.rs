//! The server: listeners, clients and exports as one reactor task.
//!
//! ```text
//!   Listener ──accept──▶ Client (socket, protocol::Connection) ──SharedQueue──▶ export's device
//! ```
//! Every export is found at every listener. Exports and listeners come and go while it serves. All
//! connections to an export share one queue, so a flush on any covers what all of them have
//! written.
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

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use block_io::device::shared::SharedQueue;
use block_io::reactor::{Descriptor, Port, Reactor, Task};
use block_io::{BlockQueue, Completion, DeviceError, Timestamp};

use super::address::Transport;
use super::protocol::{Export, Limits};

use client::{Client, Ending};
use handover::{HANDOVERS_MAX, Handover, Helpers, Inbox, Place};
use listener::Listener;

pub use handover::HelperAddress;
pub use listener::resolve;

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
    /// For the server's own timer.
    port: Port,
    options: ServerOptions,
    exports: Rc<Exports>,
    /// Of the exports, by number.
    queues: BTreeMap<ExportNumber, SharedQueue<Queue>>,
    /// Exports there ever were.
    numbers: ExportNumber,
    listeners: Vec<Listener>,
    clients: Vec<Client<Queue>>,
    helpers: Helpers,
    /// Where clients come from that another server has accepted.
    inbox: Option<Inbox>,
    arrived: Vec<Handover>,
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

/// What tells an export from all others there ever were, of the same name too.
type ExportNumber = u64;

/// The exports as a client finds them.
struct Exports {
    list: Rc<[Export]>,
    /// Of each of them.
    numbers: Vec<ExportNumber>,
}

/// What the events of a listener's port are about.
const ACCEPTED: u64 = 0;
const PAUSE_OVER: u64 = 1;

impl<Queue: BlockQueue> NbdServer<Queue> {
    /// A server without exports and listeners.
    pub fn new(reactor: &Reactor, options: ServerOptions) -> Self {
        Self {
            reactor: reactor.clone(),
            port: reactor.open_port(),
            options,
            exports: Rc::new(Exports { list: Rc::new([]), numbers: Vec::new() }),
            queues: BTreeMap::new(),
            numbers: 0,
            listeners: Vec::new(),
            clients: Vec::new(),
            helpers: Helpers::new(),
            inbox: None,
            arrived: Vec::new(),
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
        if self.exports().iter().any(|export| export.name == name) {
            return Err(DeviceError::new(format!("export name '{name}': is taken")));
        }
        let export = Export {
            name: name.to_owned(),
            description: description.to_owned(),
            geometry: queue.geometry(),
        };
        let list = self.exports().iter().cloned().chain([export]).collect();
        let mut numbers = self.exports.numbers.clone();
        numbers.push(self.numbers);
        self.exports = Rc::new(Exports { list, numbers });
        self.queues.insert(self.numbers, queue);
        self.numbers += 1;
        Ok(())
    }

    /// Serves the export `name` no more: its clients' requests in flight are answered, further ones
    /// are not taken. Where there is none of that name nothing happens.
    pub fn remove_export(&mut self, name: &str) {
        let Some(at) = self.exports().iter().position(|export| export.name == name) else { return };
        let mut numbers = self.exports.numbers.clone();
        let number = numbers.remove(at);
        let others = self.exports().iter().filter(|export| export.name != name);
        self.exports = Rc::new(Exports { list: others.cloned().collect(), numbers });
        self.queues.remove(&number);
        let of_it = |client: &&mut Client<Queue>| client.export() == Some(number);
        self.clients.iter_mut().filter(of_it).for_each(Client::close);
    }

    /// Clients of exports that have been removed: whose requests are still being answered.
    pub fn leaving(&self) -> usize {
        self.clients.iter().filter(|client| self.is_leaving(client)).count()
    }

    /// Lets go of clients of exports that have been removed, answered or not.
    pub fn drop_leaving(&mut self) {
        let queues = &self.queues;
        self.clients.retain(|client| client.export().is_none_or(|one| queues.contains_key(&one)));
    }

    fn is_leaving(&self, client: &Client<Queue>) -> bool {
        client.export().is_some_and(|number| !self.queues.contains_key(&number))
    }

    /// Accepts clients at `transport`, and returns where that is: with TCP port 0 the system
    /// chooses one. A transport that is listened at already is left as it is.
    ///
    /// # Errors
    /// When the host is unknown or the address cannot be listened at.
    pub fn listen(&mut self, transport: &Transport) -> Result<Transport, DeviceError> {
        self.listen_at(transport, None)
    }

    /// As [`listen`](Self::listen), with what [`resolve`] has found already: no name is looked up.
    ///
    /// # Errors
    /// As [`listen`](Self::listen).
    pub fn listen_at(
        &mut self,
        transport: &Transport,
        address: Option<SocketAddr>,
    ) -> Result<Transport, DeviceError> {
        let same = |listener: &&Listener| listener.asked == *transport;
        if let Some(listener) = self.listeners.iter().find(same) {
            return Ok(listener.bound.clone());
        }
        let listener = Listener::open(&self.reactor, transport, address)?;
        let bound = listener.bound.clone();
        self.listeners.push(listener);
        Ok(bound)
    }

    /// Where servers on other cores can send clients that they have accepted. They are let in by
    /// the poll after the one that found them: what was sent to this core before a client, by
    /// another way, can be heard between the two.
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

    /// Accepts no more clients at `transport`, as it was asked to be listened at; those that are
    /// connected stay.
    pub fn stop_listening(&mut self, transport: &Transport) {
        self.listeners.retain(|listener| listener.asked != *transport);
    }

    /// Tells clients to come what the devices look like now; those that are connected were told
    /// before.
    pub fn refresh_exports(&mut self) {
        let exports = self.exports().iter().zip(&self.exports.numbers);
        let list = exports
            .map(|(export, number)| Export {
                geometry: self.queues[number].geometry(),
                ..export.clone()
            })
            .collect();
        self.exports = Rc::new(Exports { list, numbers: self.exports.numbers.clone() });
    }

    /// Stops accepting clients and requests. The task is finished when requests in flight are
    /// answered, or when the time of grace is over. Socket files are removed at once.
    pub fn shutdown(&mut self) {
        if self.stage != Stage::Serving {
            return;
        }
        self.stage = Stage::ShuttingDown;
        // Their accepts go with them.
        self.listeners.clear();
        // Those that were on their way here find a closed socket, as in a listener's backlog.
        self.inbox = None;
        self.arrived.clear();
        self.port.timer(self.reactor.now() + self.options.shutdown_grace, 0);
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
        &self.exports.list
    }

    fn take_events(&mut self, now: Timestamp) -> bool {
        let mut progress = false;
        if self.port.next_event().is_some() {
            // The time of grace is over.
            self.clients.clear();
            self.stage = Stage::Finished;
            progress = true;
        }
        for index in 0..self.listeners.len() {
            while let Some(event) = self.listeners[index].port.next_event() {
                progress = true;
                let listener = &mut self.listeners[index];
                listener.is_waiting = false;
                match (event.token, event.result, event.descriptor) {
                    (ACCEPTED, Ok(_), Some(socket)) => {
                        self.statistics.connections_total += 1;
                        if let Some(socket) = self.helpers.place(socket, self.clients.len()) {
                            self.admit(socket, None, now);
                        }
                    }
                    (ACCEPTED, Err(_), _) => {
                        listener.is_waiting = true;
                        listener.port.timer(now + ACCEPT_PAUSE, PAUSE_OVER);
                    }
                    _ => {}
                }
            }
        }
        progress
    }

    /// Lets clients in that another server has accepted.
    fn admit_arrived(&mut self, now: Timestamp) -> bool {
        let mut arrived = std::mem::take(&mut self.arrived);
        let progress = !arrived.is_empty();
        for handover in arrived.drain(..) {
            self.statistics.connections_total += 1;
            self.admit(Descriptor::from(handover.socket), Some(handover.place), now);
        }
        self.arrived = arrived;
        progress
    }

    /// Finds clients that another server has accepted.
    fn look_into_inbox(&mut self) -> bool {
        let before = self.arrived.len();
        if let Some(inbox) = &self.inbox {
            self.arrived.extend(std::iter::from_fn(|| inbox.receive()).take(HANDOVERS_MAX));
        }
        self.arrived.len() > before
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
        for listener in self.listeners.iter_mut().filter(|one| !one.is_waiting).take(room) {
            listener.port.accept(&listener.socket, ACCEPTED);
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
        self.clients.is_empty() && self.queues.values().all(idle)
    }

    /// Requests of clients that are gone still have to be brought to their end.
    fn poll_queues(&mut self, now: Timestamp) -> bool {
        let mut progress = false;
        for queue in self.queues.values_mut() {
            progress |= queue.poll(now, &mut self.completions);
        }
        self.completions.clear();
        progress
    }
}

impl<Queue: BlockQueue> Task for NbdServer<Queue> {
    fn poll(&mut self, now: Timestamp) -> bool {
        let mut progress = self.take_events(now);
        progress |= self.admit_arrived(now);
        progress |= self.poll_clients(now);
        progress |= self.poll_queues(now);
        progress |= self.look_into_inbox();
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
            .field("exports", &self.exports())
            .field("stage", &self.stage)
            .field("statistics", &self.statistics())
            .finish_non_exhaustive()
    }
}
