//! Sockets for associations: connects a stream for each queue of each, moves its bytes, sets the
//! timer.
//!
//! ```text
//!   Paths, Discovery ─association─▶ HostDriver: Route {addresses, Way by queue} ─▶ Stream
//! ```
//! A socket is reset when it is closed, so that nothing the kernel has not sent by then is sent
//! later: the fence of a lost path counts from there. Absent: resolving a name again when an
//! association is made again.

use std::net::{SocketAddr, ToSocketAddrs};

use block_io::reactor::{
    Descriptor, Event, OperationId, Port, Reactor, SocketAddress, Wait, socket,
};
use block_io::{DeviceError, IoError, Timestamp};

use super::alarm::Alarm;
use super::stream::{Operation, Outcome, Stream, stream_of, token};
use crate::error::ConnectionError;
use crate::host::discovery::Discovery;
use crate::host::{Controller, Paths, QueueIndex};

/// What has associations, each of them a path with a number, and moves on with time.
pub(super) trait Associations {
    /// Does what the time and the answers received ask for; whether anything happened.
    fn tick(&mut self, now: Timestamp) -> bool;
    fn next_deadline(&self) -> Option<Timestamp>;
    /// Whether all are at their end, and every stream closed.
    fn is_over(&self) -> bool;
    fn next_stream_wanted(&mut self) -> Option<(usize, QueueIndex)>;
    fn association(&mut self, path: usize) -> Option<&mut Controller>;
    /// The driver has closed the stream, and no operation on it is in flight.
    fn stream_closed(&mut self, path: usize, queue: QueueIndex);
}

impl Associations for Paths {
    fn tick(&mut self, now: Timestamp) -> bool {
        Paths::tick(self, now)
    }
    fn next_deadline(&self) -> Option<Timestamp> {
        Paths::next_deadline(self)
    }
    fn is_over(&self) -> bool {
        Paths::is_over(self)
    }
    fn next_stream_wanted(&mut self) -> Option<(usize, QueueIndex)> {
        Paths::next_stream_wanted(self)
    }
    fn association(&mut self, path: usize) -> Option<&mut Controller> {
        Paths::association(self, path)
    }
    fn stream_closed(&mut self, path: usize, queue: QueueIndex) {
        Paths::stream_closed(self, path, queue);
    }
}

/// Its one association is path 0.
impl Associations for Discovery {
    fn tick(&mut self, now: Timestamp) -> bool {
        Discovery::tick(self, now)
    }
    fn next_deadline(&self) -> Option<Timestamp> {
        Discovery::next_deadline(self)
    }
    fn is_over(&self) -> bool {
        Discovery::is_over(self)
    }
    fn next_stream_wanted(&mut self) -> Option<(usize, QueueIndex)> {
        self.controller().next_stream_wanted().map(|queue| (0, queue))
    }
    fn association(&mut self, path: usize) -> Option<&mut Controller> {
        (path == 0).then(|| self.controller())
    }
    fn stream_closed(&mut self, _: usize, queue: QueueIndex) {
        self.controller().stream_closed(queue);
    }
}

/// The way to one queue.
enum Way {
    None,
    Connecting(Descriptor, OperationId),
    Open(Stream, Descriptor),
}

/// One path's sockets.
struct Route {
    /// What the name resolved to, in the resolver's order.
    addresses: Vec<SocketAddr>,
    /// The one in use.
    address: usize,
    /// How many have been tried for the association that is being made.
    tried: usize,
    /// By queue.
    ways: Vec<Way>,
}

/// See the module.
pub(super) struct HostDriver<Machine> {
    port: Port,
    pub(super) machine: Machine,
    routes: Vec<Route>,
    alarm: Alarm,
    #[cfg(feature = "tls")]
    security: super::security::Security,
}

/// Bits of a stream's number that tell the queue.
const QUEUE_BITS: u32 = 16;

const fn number_of(path: usize, queue: QueueIndex) -> usize {
    path << QUEUE_BITS | queue as usize
}

/// The addresses of a name. Blocks for as long as the resolver does.
pub(super) fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, DeviceError> {
    let failed = |error| DeviceError::with_source(format!("resolving {host}"), error);
    let addresses: Vec<_> = (host, port).to_socket_addrs().map_err(failed)?.collect();
    if addresses.is_empty() {
        return Err(DeviceError::new(format!("resolving {host}: the name has no address")));
    }
    Ok(addresses)
}

impl<Machine: Associations> HostDriver<Machine> {
    /// A driver for `machine`; the controller of each path is at the first of its `addresses` that
    /// answers.
    pub(super) fn new(
        reactor: &Reactor,
        machine: Machine,
        addresses: Vec<Vec<SocketAddr>>,
    ) -> Self {
        let route = |addresses| Route { addresses, address: 0, tried: 0, ways: Vec::new() };
        let routes = addresses.into_iter().map(route).collect();
        Self {
            port: reactor.open_port(),
            machine,
            routes,
            alarm: Alarm::default(),
            #[cfg(feature = "tls")]
            security: super::security::Security::new(reactor.pool()),
        }
    }

    /// Has every stream begin with a TLS handshake that offers these keys.
    #[cfg(feature = "tls")]
    pub(super) fn offer(&mut self, offer: crate::tls::Offer) {
        self.security.offer(offer);
    }

    /// Moves what can be moved; whether anything happened.
    pub(super) fn poll(&mut self, now: Timestamp) -> bool {
        let mut progress = false;
        while let Some(event) = self.port.next_event() {
            self.take(event);
            progress = true;
        }
        progress |= self.machine.tick(now);
        while let Some((path, queue)) = self.machine.next_stream_wanted() {
            self.routes[path].tried = 0;
            self.connect(path, queue);
            progress = true;
        }
        for path in 0..self.routes.len() {
            for queue in 0..self.routes[path].ways.len() {
                progress |= self.move_bytes(path, queue as QueueIndex);
            }
        }
        if let Some(deadline) = self.machine.next_deadline() {
            self.alarm.set(&self.port, deadline, now);
        }
        progress
    }

    /// Polls, and has `turn` turn the reactor and tell the time, until `is_done` or all is over.
    pub(super) fn run_with(
        &mut self,
        mut turn: impl FnMut(Wait) -> Result<Timestamp, DeviceError>,
        is_done: impl Fn(&Machine) -> bool,
    ) -> Result<(), DeviceError> {
        let mut now = turn(Wait::No)?;
        loop {
            let progress = self.poll(now);
            if is_done(&self.machine) || self.machine.is_over() {
                return Ok(());
            }
            now = turn(if progress { Wait::No } else { Wait::ForEvent })?;
        }
    }

    fn connect(&mut self, path: usize, queue: QueueIndex) {
        let Some(association) = self.machine.association(path) else { return };
        let timeout = association.options().keep_alive;
        let route = &mut self.routes[path];
        let index = usize::from(queue);
        if route.ways.len() <= index {
            route.ways.resize_with(index + 1, || Way::None);
        }
        let address = SocketAddress::Ip(route.addresses[route.address]);
        let socket = socket::tcp_socket(address.family()).and_then(|socket| {
            socket::set_user_timeout(&socket, timeout)?;
            Ok(socket)
        });
        match socket {
            Ok(socket) => {
                let token = token(number_of(path, queue), Operation::Connect);
                let operation = self.port.connect(&socket, &address, token);
                route.ways[index] = Way::Connecting(socket, operation);
            }
            Err(_) => association.stream_failed(queue, IoError::OutOfMemory),
        }
    }

    fn take(&mut self, event: Event) {
        if self.alarm.takes(&event) {
            return;
        }
        let (number, operation) = stream_of(event.token);
        let (path, queue) = (number >> QUEUE_BITS, number as QueueIndex);
        let ways = self.routes.get_mut(path).map(|route| &mut route.ways);
        match ways.and_then(|ways| ways.get_mut(usize::from(queue))) {
            Some(Way::Connecting(socket, _)) if operation == Operation::Connect => {
                let socket = socket.clone();
                self.connected(path, queue, socket, event.result);
            }
            Some(Way::Open(stream, _)) => {
                let Some(association) = self.machine.association(path) else { return };
                let Some(connection) = association.connection(queue) else { return };
                match stream.ended(operation, event.result, connection) {
                    Outcome::Fine => {}
                    Outcome::EndOfStream => connection.end_of_stream(),
                    Outcome::Failed(error) => end(association, queue, error),
                }
            }
            _ => {}
        }
    }

    fn connected(
        &mut self,
        path: usize,
        queue: QueueIndex,
        socket: Descriptor,
        result: Result<u32, IoError>,
    ) {
        let route = &mut self.routes[path];
        route.ways[usize::from(queue)] = Way::None;
        let Some(association) = self.machine.association(path) else { return };
        let Err(error) = result else {
            #[cfg_attr(not(feature = "tls"), expect(unused_mut))]
            let mut stream = Stream::new(number_of(path, queue), socket.clone());
            #[cfg(feature = "tls")]
            if self.security.secure(&mut stream, association, queue).is_err() {
                // The TLS library has no memory for its part.
                return association.stream_failed(queue, IoError::OutOfMemory);
            }
            route.ways[usize::from(queue)] = Way::Open(stream, socket);
            return association.stream_established(queue);
        };
        // The next attempt begins with the next address, whoever makes it.
        route.tried += 1;
        route.address = (route.address + 1) % route.addresses.len();
        let more = route.tried < route.addresses.len();
        if queue == 0 && more && association.error().is_none() {
            self.connect(path, queue);
        } else {
            association.stream_failed(queue, error);
        }
    }

    fn move_bytes(&mut self, path: usize, queue: QueueIndex) -> bool {
        let way = &mut self.routes[path].ways[usize::from(queue)];
        if matches!(way, Way::None) {
            return false;
        }
        let association = self.machine.association(path);
        match way {
            Way::None => false,
            Way::Connecting(_, operation) => {
                if association.is_none_or(|association| association.error().is_some()) {
                    // It ends as cancelled, or late and is closed again.
                    self.port.cancel(*operation);
                }
                false
            }
            Way::Open(stream, socket) => {
                let Some(association) = association else { return false };
                let Some(connection) = association.connection(queue) else { return false };
                if connection.wants_close() {
                    // A peer that broke the protocol is to read what it is told.
                    let is_told = matches!(connection.error(), Some(ConnectionError::Protocol(_)));
                    if !is_told {
                        // On a socket it cannot fail; and if it did, closing is all there is to do.
                        let _ = socket::reset_on_close(socket);
                    }
                    stream.close(&self.port);
                }
                if stream.is_closed() {
                    *way = Way::None;
                    self.machine.stream_closed(path, queue);
                    return true;
                }
                let progress = stream.start(&self.port, connection);
                if let Some(error) = stream.take_failure() {
                    end(association, queue, error);
                }
                progress
            }
        }
    }
}

/// Ends a queue's connection for what its stream has failed of.
fn end(association: &mut Controller, queue: QueueIndex, error: ConnectionError) {
    let error = error.of_peer(&association.options().address);
    if let Some(connection) = association.connection(queue) {
        connection.end(error);
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use block_io::PoolLayout;
    use block_io::device::memory::MemoryQueue;
    use block_io::reactor::{ReactorConfig, Task};

    use super::*;
    use crate::driver::target::{Service, TargetTask};
    use crate::host::HostOptions;
    use crate::spec::nqn::{HostId, Nqn};
    use crate::target::{Settings, Target};

    #[test]
    fn of_a_names_addresses_the_first_that_answers_is_used() {
        let config = ReactorConfig { pool: PoolLayout::HEAP, ..ReactorConfig::default() };
        let reactor = Reactor::new(config).expect("a reactor");
        let target = Target::new(Settings::default()).expect("good settings");
        let mut task: TargetTask<MemoryQueue> =
            TargetTask::new(&reactor, target, Vec::new()).expect("a task");
        let any: SocketAddr = "127.0.0.1:0".parse().expect("an address");
        let right = task.listen(any, Service::Discovery).expect("listens");
        let gone = TcpListener::bind(any).and_then(|listener| listener.local_addr());
        let addresses = vec![gone.expect("a free port"), right];

        let host_id = HostId([1; 16]);
        let name = Nqn::from_uuid(host_id);
        let options = HostOptions::new("name", Nqn::discovery(), name, host_id);
        let discovery = Discovery::once(reactor.pool(), options, reactor.now()).expect("good");
        let mut driver = HostDriver::new(&reactor, discovery, vec![addresses]);
        let turn = |wait| {
            let progress = task.poll(reactor.now());
            reactor.turn(if progress { Wait::No } else { wait })?;
            Ok(reactor.now())
        };
        driver.run_with(turn, |_| false).expect("turns");
        let log = driver.machine.into_log().expect("the second address answers");
        assert_eq!(log.entries.len(), 1, "the service itself");
    }
}
