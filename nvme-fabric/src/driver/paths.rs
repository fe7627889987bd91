//! Sockets for the paths to a namespace: connects a stream for each queue of each path, moves its
//! bytes, sets the timer.
//!
//! A socket is reset when it is closed, so that nothing the kernel has not sent by then is sent
//! later: the fence counts from there. Absent: resolving a name again when a path reconnects.

use std::net::SocketAddr;

use block_io::reactor::{
    Descriptor, Event, OperationId, Port, Reactor, SocketAddress, Wait, socket,
};
use block_io::{DeviceError, IoError, Timestamp};

use super::alarm::Alarm;
use super::stream::{Operation, Outcome, Stream, stream_of, token};
use crate::error::ConnectionError;
use crate::host::{Paths, QueueIndex};

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
pub(super) struct PathsDriver {
    port: Port,
    pub(super) paths: Paths,
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

impl PathsDriver {
    /// A driver for `paths`; the controller of each is at the first of its `addresses` that
    /// answers.
    pub(super) fn new(reactor: &Reactor, paths: Paths, addresses: Vec<Vec<SocketAddr>>) -> Self {
        let route = |addresses| Route { addresses, address: 0, tried: 0, ways: Vec::new() };
        let routes = addresses.into_iter().map(route).collect();
        Self {
            port: reactor.open_port(),
            paths,
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
        progress |= self.paths.tick(now);
        while let Some((path, queue)) = self.paths.next_stream_wanted() {
            self.routes[path].tried = 0;
            self.connect(path, queue);
            progress = true;
        }
        for path in 0..self.routes.len() {
            for queue in 0..self.routes[path].ways.len() {
                progress |= self.move_bytes(path, queue as QueueIndex);
            }
        }
        if let Some(deadline) = self.paths.next_deadline() {
            self.alarm.set(&self.port, deadline, now);
        }
        progress
    }

    /// Polls, and has `turn` turn the reactor and tell the time, until `is_done`.
    pub(super) fn run_with(
        &mut self,
        mut turn: impl FnMut(Wait) -> Result<Timestamp, DeviceError>,
        is_done: impl Fn(&mut Paths) -> bool,
    ) -> Result<(), DeviceError> {
        let mut now = turn(Wait::No)?;
        loop {
            let progress = self.poll(now);
            if is_done(&mut self.paths) || self.paths.is_over() {
                return Ok(());
            }
            now = turn(if progress { Wait::No } else { Wait::ForEvent })?;
        }
    }

    fn connect(&mut self, path: usize, queue: QueueIndex) {
        let timeout = self.paths.settings().keep_alive;
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
            Err(_) => self.paths.stream_failed(path, queue, IoError::OutOfMemory),
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
                let Some(connection) = self.paths.connection(path, queue) else {
                    return;
                };
                match stream.ended(operation, event.result, connection) {
                    Outcome::Fine => {}
                    Outcome::EndOfStream => connection.end_of_stream(),
                    Outcome::Failed(error) => self.end(path, queue, error),
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
        match result {
            Ok(_) => match self.stream(path, queue, socket.clone()) {
                Some(stream) => {
                    self.routes[path].ways[usize::from(queue)] = Way::Open(stream, socket);
                    self.paths.stream_established(path, queue);
                }
                None => self.paths.stream_failed(path, queue, IoError::OutOfMemory),
            },
            Err(error) => {
                // The next attempt begins with the next address, whoever makes it.
                route.tried += 1;
                route.address = (route.address + 1) % route.addresses.len();
                let more = route.tried < route.addresses.len();
                if queue == 0 && more && !self.paths.is_closing(path) {
                    self.connect(path, queue);
                } else {
                    self.paths.stream_failed(path, queue, error);
                }
            }
        }
    }

    fn move_bytes(&mut self, path: usize, queue: QueueIndex) -> bool {
        let way = &mut self.routes[path].ways[usize::from(queue)];
        match way {
            Way::None => false,
            Way::Connecting(_, operation) => {
                if self.paths.is_closing(path) {
                    // It ends as cancelled, or late and is closed again.
                    self.port.cancel(*operation);
                }
                false
            }
            Way::Open(stream, socket) => {
                let Some(connection) = self.paths.connection(path, queue) else {
                    return false;
                };
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
                    self.paths.stream_closed(path, queue);
                    return true;
                }
                let progress = stream.start(&self.port, connection);
                if let Some(error) = stream.take_failure() {
                    self.end(path, queue, error);
                }
                progress
            }
        }
    }

    /// A stream over a connected socket; none when the TLS library has no memory for its part.
    #[cfg_attr(not(feature = "tls"), expect(clippy::unused_self, clippy::unnecessary_wraps))]
    fn stream(&mut self, path: usize, queue: QueueIndex, socket: Descriptor) -> Option<Stream> {
        #[cfg_attr(not(feature = "tls"), expect(unused_mut))]
        let mut stream = Stream::new(number_of(path, queue), socket);
        #[cfg(feature = "tls")]
        if let Some(controller) = self.paths.association(path) {
            self.security.secure(&mut stream, controller, queue).ok()?;
        }
        Some(stream)
    }

    /// Ends a queue's connection for what its stream has failed of.
    fn end(&mut self, path: usize, queue: QueueIndex, error: ConnectionError) {
        let error = error.of_peer(self.paths.address(path));
        if let Some(connection) = self.paths.connection(path, queue) {
            connection.end(error);
        }
    }
}
