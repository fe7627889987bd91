//! Sockets for an association: connects a stream for each queue, moves its bytes, sets the timer.

use std::net::{SocketAddr, ToSocketAddrs};

use block_io::reactor::{Descriptor, Event, OperationId, Port, Reactor, SocketAddress, socket};
use block_io::{DeviceError, IoError, Timestamp};

use super::alarm::Alarm;
use super::stream::{Operation, Outcome, Stream, stream_of, token};
use crate::error::ConnectionError;
use crate::host::discovery::Discovery;
use crate::host::{Controller, QueueIndex};

/// What has a controller and moves on with time.
pub(super) trait Association {
    fn controller(&mut self) -> &mut Controller;
    fn tick(&mut self, now: Timestamp) -> bool;
    fn next_deadline(&self) -> Option<Timestamp>;
}

impl Association for Discovery {
    fn controller(&mut self) -> &mut Controller {
        Discovery::controller(self)
    }
    fn tick(&mut self, now: Timestamp) -> bool {
        Discovery::tick(self, now)
    }
    fn next_deadline(&self) -> Option<Timestamp> {
        Discovery::next_deadline(self)
    }
}

/// The way to one queue.
enum Way {
    None,
    Connecting(Descriptor, OperationId),
    Open(Stream),
}

/// See the module.
pub(super) struct HostDriver<Machine> {
    port: Port,
    pub(super) machine: Machine,
    /// What the name resolved to, in the resolver's order.
    addresses: Vec<SocketAddr>,
    /// The one in use; the first that the admin queue could reach.
    address: usize,
    ways: Vec<Way>,
    alarm: Alarm,
    #[cfg(feature = "tls")]
    security: super::security::Security,
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

impl<Machine: Association> HostDriver<Machine> {
    /// A driver for `machine`, whose controller is at the first of `addresses` that answers.
    pub(super) fn new(reactor: &Reactor, machine: Machine, addresses: Vec<SocketAddr>) -> Self {
        let port = reactor.open_port();
        Self {
            port,
            machine,
            addresses,
            address: 0,
            ways: Vec::new(),
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
        while let Some(queue) = self.machine.controller().next_stream_wanted() {
            self.connect(queue);
            progress = true;
        }
        for index in 0..self.ways.len() {
            progress |= self.move_bytes(index);
        }
        if let Some(deadline) = self.machine.next_deadline() {
            self.alarm.set(&self.port, deadline, now);
        }
        progress
    }

    fn connect(&mut self, queue: QueueIndex) {
        let index = usize::from(queue);
        if self.ways.len() <= index {
            self.ways.resize_with(index + 1, || Way::None);
        }
        let address = SocketAddress::Ip(self.addresses[self.address]);
        match socket::tcp_socket(address.family()) {
            Ok(socket) => {
                let token = token(index, Operation::Connect);
                let operation = self.port.connect(&socket, &address, token);
                self.ways[index] = Way::Connecting(socket, operation);
            }
            Err(_) => self.machine.controller().stream_failed(queue, IoError::OutOfMemory),
        }
    }

    fn take(&mut self, event: Event) {
        if self.alarm.takes(&event) {
            return;
        }
        let (index, operation) = stream_of(event.token);
        let Some(way) = self.ways.get_mut(index) else {
            return;
        };
        let queue = index as QueueIndex;
        match way {
            Way::Connecting(socket, _) if operation == Operation::Connect => {
                let socket = socket.clone();
                self.connected(queue, socket, event.result);
            }
            Way::Open(stream) => {
                let controller = self.machine.controller();
                let Some(connection) = controller.connection(queue) else {
                    return;
                };
                match stream.ended(operation, event.result, connection) {
                    Outcome::Fine => {}
                    Outcome::EndOfStream => connection.end_of_stream(),
                    Outcome::Failed(error) => end(controller, queue, error),
                }
            }
            Way::None | Way::Connecting(..) => {}
        }
    }

    fn connected(&mut self, queue: QueueIndex, socket: Descriptor, result: Result<u32, IoError>) {
        let index = usize::from(queue);
        match result {
            Ok(_) => match self.stream(index, socket) {
                Some(stream) => {
                    self.ways[index] = Way::Open(stream);
                    self.machine.controller().stream_established(queue);
                }
                None => {
                    self.ways[index] = Way::None;
                    self.machine.controller().stream_failed(queue, IoError::OutOfMemory);
                }
            },
            Err(_) if queue == 0 && self.address + 1 < self.addresses.len() => {
                self.address += 1;
                self.connect(queue);
            }
            Err(error) => {
                self.ways[index] = Way::None;
                self.machine.controller().stream_failed(queue, error);
            }
        }
    }

    /// A stream over a connected socket; none when the TLS library has no memory for its part.
    #[cfg_attr(not(feature = "tls"), expect(clippy::unused_self, clippy::unnecessary_wraps))]
    fn stream(&mut self, index: usize, socket: Descriptor) -> Option<Stream> {
        #[cfg_attr(not(feature = "tls"), expect(unused_mut))]
        let mut stream = Stream::new(index, socket);
        #[cfg(feature = "tls")]
        self.security.secure(&mut stream, self.machine.controller(), index as QueueIndex).ok()?;
        Some(stream)
    }

    fn move_bytes(&mut self, index: usize) -> bool {
        let queue = index as QueueIndex;
        let controller = self.machine.controller();
        let is_lost = controller.error().is_some();
        match &mut self.ways[index] {
            Way::None => false,
            Way::Connecting(_, operation) => {
                if is_lost {
                    self.port.cancel(*operation);
                    // A late success is closed again; the other addresses are not tried.
                    self.address = self.addresses.len() - 1;
                }
                false
            }
            Way::Open(stream) => {
                let Some(connection) = controller.connection(queue) else {
                    return false;
                };
                if connection.wants_close() {
                    stream.close(&self.port);
                }
                if stream.is_closed() {
                    controller.stream_closed(queue);
                    self.ways[index] = Way::None;
                    return true;
                }
                let progress = stream.start(&self.port, connection);
                if let Some(error) = stream.take_failure() {
                    end(controller, queue, error);
                }
                progress
            }
        }
    }
}

/// Ends a queue's connection for what its stream has failed of.
fn end(controller: &mut Controller, queue: QueueIndex, error: ConnectionError) {
    let error = error.of_peer(&controller.options().address);
    if let Some(connection) = controller.connection(queue) {
        connection.end(error);
    }
}
