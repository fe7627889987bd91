//! The target on a reactor: listeners, accepted connections, and queues to the devices.
//!
//! ```text
//!   listener ─accept─▶ Peer { Stream ◀bytes▶ Connection ─requests▶ SharedQueue } ─▶ device's queue
//! ```
//! One task serves all connections of one core. Bounds: as many connections as the target's
//! settings say, beyond which the kernel's backlog holds them; their memory as `crate::target`
//! says.
//!
//! Absent: spreading connections over cores.

use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::time::Duration;

use block_io::reactor::{Descriptor, Event, OperationId, Port, Reactor, Task, socket};
use block_io::{BlockQueue, BufferPool, Completion, DeviceError, Timestamp};

use super::alarm::Alarm;
use super::reservation_files::ReservationFiles;
use super::stream::{Operation, Outcome, Stream, stream_of, token};
use super::target_devices::{Devices, OpenQueues};
use crate::error::ConnectionError;
use crate::target::{
    Connection, Listener, Namespace, NamespaceKey, SecureChannel, Subsystem, Target,
};
#[cfg(feature = "tls")]
use crate::tls::{Keyring, Layer};

/// How long to wait before accepting again when the system has no descriptors or memory left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What a listener is for; hosts may ask for either on both, except that a discovery listener does
/// not let hosts without TLS at subsystems whose own listeners require it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// Subsystems: discovery lists the address for each of them.
    Subsystems,
    /// The discovery service itself.
    Discovery,
}

/// A target that serves connections. See the module.
pub struct TargetTask<Queue> {
    port: Port,
    pool: BufferPool,
    target: Target,
    devices: Devices<Queue>,
    reservations: Option<ReservationFiles>,
    /// An accept's token is its door's place.
    listeners: Vec<Option<Door>>,
    peers: Vec<Option<Peer<Queue>>>,
    /// No accept before this time.
    accept_after: Timestamp,
    alarm: Alarm,
    is_stopping: bool,
    /// Kept for its capacity.
    completions: Vec<Completion>,
    /// Keys that hosts have come to with their secrets.
    #[cfg(feature = "tls")]
    generated: std::rc::Rc<crate::tls::GeneratedKeys>,
}

struct Door {
    socket: Descriptor,
    address: SocketAddr,
    service: Service,
    accepting: Option<OperationId>,
    /// No longer listened at; it is let go of when no accept is out.
    is_closing: bool,
    /// The keys, and whether hosts may do without.
    #[cfg(feature = "tls")]
    keyring: Option<(std::rc::Rc<Keyring>, SecureChannel)>,
}

struct Peer<Queue> {
    stream: Stream,
    connection: Connection,
    queues: OpenQueues<Queue>,
}

impl<Queue: BlockQueue> TargetTask<Queue> {
    /// A task that serves `target`, whose namespaces' devices `queues` lead to: by subsystem, and
    /// in it by namespace.
    ///
    /// # Errors
    /// When there is not exactly one queue for each namespace.
    pub fn new(
        reactor: &Reactor,
        target: Target,
        queues: Vec<Vec<Queue>>,
    ) -> Result<Self, DeviceError> {
        let given: Vec<usize> = queues.iter().map(Vec::len).collect();
        let needed: Vec<usize> =
            target.subsystems().values().map(|subsystem| subsystem.namespaces().len()).collect();
        if given != needed {
            return Err(DeviceError::new(format!(
                "queues by subsystem are {given:?}: must be as many as namespaces, {needed:?}"
            )));
        }
        #[cfg_attr(not(feature = "auth"), expect(unused_mut))]
        let mut target = target;
        #[cfg(feature = "auth")]
        target.seed_random(&*super::random::random_seed()?);
        let mut devices = Devices::new();
        for ((subsystem, found), queues) in target.subsystems().iter().zip(queues) {
            for ((namespace, _), queue) in found.namespaces().iter().zip(queues) {
                devices.add(NamespaceKey { subsystem, namespace }, queue);
            }
        }
        Ok(Self {
            port: reactor.open_port(),
            pool: reactor.pool().clone(),
            target,
            devices,
            reservations: None,
            listeners: Vec::new(),
            peers: Vec::new(),
            accept_after: Timestamp(0),
            alarm: Alarm::default(),
            is_stopping: false,
            completions: Vec::new(),
            #[cfg(feature = "tls")]
            generated: std::rc::Rc::default(),
        })
    }

    /// Keeps the reservations of namespaces that were made with
    /// [`Namespace::with_kept_reservations`](crate::target::Namespace::with_kept_reservations).
    #[must_use]
    pub fn with_reservation_files(self, files: ReservationFiles) -> Self {
        Self { reservations: Some(files), ..self }
    }

    /// Listens on `address`, which discovery then tells, and returns the address with its port.
    ///
    /// # Errors
    /// When the address is in use or not this machine's.
    pub fn listen(
        &mut self,
        address: SocketAddr,
        service: Service,
    ) -> Result<SocketAddr, DeviceError> {
        self.open_door(address, service, SecureChannel::None)
    }

    /// As [`listen`](Self::listen), with TLS by the keys of `keyring`. Where `channel` requires it,
    /// a host that begins without is refused by closing.
    ///
    /// # Errors
    /// As [`listen`](Self::listen).
    #[cfg(feature = "tls")]
    pub fn listen_with_tls(
        &mut self,
        address: SocketAddr,
        service: Service,
        channel: SecureChannel,
        keyring: &std::rc::Rc<Keyring>,
    ) -> Result<SocketAddr, DeviceError> {
        let address = self.open_door(address, service, channel)?;
        let mut doors = self.listeners.iter_mut().flatten();
        let door = doors.find(|door| door.address == address && !door.is_closing);
        if let Some(door) = door.filter(|_| channel != SecureChannel::None) {
            door.keyring = Some((std::rc::Rc::clone(keyring), channel));
        }
        Ok(address)
    }

    /// Has every listener with TLS take new connections by these keys; those that are there stay.
    #[cfg(feature = "tls")]
    pub fn replace_keyring(&mut self, keyring: &std::rc::Rc<Keyring>) {
        for (old, _) in self.listeners.iter_mut().flatten().filter_map(|door| door.keyring.as_mut())
        {
            *old = std::rc::Rc::clone(keyring);
        }
    }

    fn open_door(
        &mut self,
        address: SocketAddr,
        service: Service,
        channel: SecureChannel,
    ) -> Result<SocketAddr, DeviceError> {
        let (socket, address) = socket::listen_tcp(address)?;
        let listener = Listener { address: address.ip(), port: address.port(), channel };
        match service {
            Service::Subsystems => self.target.add_listener(listener),
            Service::Discovery => self.target.add_discovery_listener(listener),
        }
        let door = Door {
            socket,
            address,
            service,
            accepting: None,
            is_closing: false,
            #[cfg(feature = "tls")]
            keyring: None,
        };
        match self.listeners.iter().position(Option::is_none) {
            Some(free) => self.listeners[free] = Some(door),
            None => self.listeners.push(Some(door)),
        }
        Ok(address)
    }

    /// Listens no more at an address, as [`listen`](Self::listen) returned it, and discovery tells
    /// it no more. Connections that came by it go on.
    ///
    /// # Errors
    /// When it was not listened at.
    pub fn stop_listening(&mut self, address: SocketAddr) -> Result<(), DeviceError> {
        let mut doors = self.listeners.iter_mut().flatten();
        let door = doors.find(|door| door.address == address && !door.is_closing);
        let door = door.ok_or_else(|| {
            DeviceError::new(format!("the listener is {address}: must be one that is there"))
        })?;
        door.is_closing = true;
        if let Some(operation) = door.accepting {
            self.port.cancel(operation);
        }
        self.target.remove_listener(address.ip(), address.port())
    }

    /// Adds a subsystem, with the queues of its namespaces' devices in the order of NSIDs, and
    /// returns its place.
    ///
    /// # Errors
    /// As [`Target::add_subsystem`], and when there is not exactly one queue for each namespace.
    pub fn add_subsystem(
        &mut self,
        subsystem: Subsystem,
        queues: Vec<Queue>,
    ) -> Result<usize, DeviceError> {
        let namespaces: Vec<usize> = subsystem.namespaces().iter().map(|found| found.0).collect();
        if namespaces.len() != queues.len() {
            let (given, needed) = (queues.len(), namespaces.len());
            return Err(DeviceError::new(format!(
                "queues are {given}: must be as many as namespaces, {needed}"
            )));
        }
        let subsystem = self.target.add_subsystem(subsystem)?;
        for (namespace, queue) in namespaces.into_iter().zip(queues) {
            self.devices.add(NamespaceKey { subsystem, namespace }, queue);
        }
        Ok(subsystem)
    }

    /// Removes a subsystem and ends its connections; see [`is_in_use`](Self::is_in_use).
    ///
    /// # Errors
    /// As [`Target::remove_subsystem`].
    pub fn remove_subsystem(&mut self, place: usize) -> Result<Subsystem, DeviceError> {
        let removed = self.target.remove_subsystem(place)?;
        self.devices.remove(|key| key.subsystem == place);
        Ok(removed)
    }

    /// Adds a namespace with the queue of its device.
    ///
    /// # Errors
    /// As [`Target::add_namespace`].
    pub fn add_namespace(
        &mut self,
        place: usize,
        namespace_id: Option<u32>,
        namespace: Namespace,
        queue: Queue,
    ) -> Result<NamespaceKey, DeviceError> {
        let key = self.target.add_namespace(place, namespace_id, namespace)?;
        self.devices.add(key, queue);
        Ok(key)
    }

    /// Removes a namespace; see [`is_in_use`](Self::is_in_use).
    ///
    /// # Errors
    /// As [`Target::remove_namespace`].
    pub fn remove_namespace(&mut self, key: NamespaceKey) -> Result<Namespace, DeviceError> {
        let removed = self.target.remove_namespace(key)?;
        self.devices.remove(|other| other == key);
        Ok(removed)
    }

    /// Whether a namespace is served, or was removed and its device has not yet answered all
    /// requests. After that nothing of the target touches the device.
    pub fn is_in_use(&self, key: NamespaceKey) -> bool {
        self.devices.has(key)
    }

    /// Takes no more connections, ends those that there are, and finishes when the devices have
    /// answered all requests.
    pub fn stop(&mut self) {
        self.is_stopping = true;
        for door in self.listeners.iter().flatten() {
            if let Some(operation) = door.accepting {
                self.port.cancel(operation);
            }
        }
        for peer in self.peers.iter_mut().flatten() {
            peer.connection.disconnect(&mut self.target, ConnectionError::ShutDown);
        }
    }

    /// The target, to look at.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// The target, to change (a namespace's size); the next poll tells hosts.
    pub fn target_mut(&mut self) -> &mut Target {
        &mut self.target
    }

    /// Connections at the moment.
    pub fn connections(&self) -> usize {
        self.peers.iter().flatten().count()
    }

    fn take(&mut self, event: Event, now: Timestamp) {
        let (index, operation) = stream_of(event.token);
        if self.alarm.takes(&event) {
            // What it was set for is due by the time of this poll.
        } else if operation == Operation::Connect {
            self.accepted(index, event, now);
        } else if let Some(Some(peer)) = self.peers.get_mut(index) {
            match peer.stream.ended(operation, event.result, &mut peer.connection) {
                Outcome::Fine => {}
                Outcome::EndOfStream => {
                    peer.connection.disconnect(&mut self.target, ConnectionError::Closed);
                }
                Outcome::Failed(reason) => peer.connection.disconnect(&mut self.target, reason),
            }
        }
    }

    /// An accept, of the listener number `index`, has ended.
    fn accepted(&mut self, index: usize, event: Event, now: Timestamp) {
        let Some(Some(door)) = self.listeners.get_mut(index) else { return };
        door.accepting = None;
        if door.is_closing {
            self.listeners[index] = None;
            return;
        }
        if self.is_stopping {
            return;
        }
        let Some(socket) = event.descriptor else {
            // The host gave up before it was accepted, or the system is at its limits.
            if event.result.is_err() {
                self.accept_after = now + ACCEPT_PAUSE;
            }
            return;
        };
        let local = local_address(&socket).unwrap_or(door.address.ip());
        let mut connection = Connection::new(self.target.settings(), &self.pool, local, now);
        if door.service == Service::Discovery && self.target.requires_tls() {
            connection.expect_discovery();
        }
        let free = self.peers.iter().position(Option::is_none);
        let place = free.unwrap_or(self.peers.len());
        #[cfg_attr(not(feature = "tls"), expect(unused_mut))]
        let mut stream = Stream::new(place, socket);
        #[cfg(feature = "tls")]
        if let Some((keyring, channel)) = &door.keyring {
            let Ok(layer) = Layer::server(keyring, &self.pool) else {
                // The TLS library has no memory for another session.
                self.accept_after = now + ACCEPT_PAUSE;
                return;
            };
            let layer = layer.knowing(&self.generated);
            if *channel == SecureChannel::Offered {
                connection.offer_tls();
                stream.secure(layer.allowing_plain());
            } else {
                stream.secure(layer);
            }
        }
        let peer = Peer { stream, connection, queues: OpenQueues::new() };
        match self.peers.get_mut(place) {
            Some(free) => *free = Some(peer),
            None => self.peers.push(Some(peer)),
        }
    }

    fn accept(&mut self, now: Timestamp) -> bool {
        if self.is_stopping || now < self.accept_after {
            return false;
        }
        let settings = self.target.settings();
        let most = settings.queues_max.saturating_add(settings.unconnected_max);
        let mut room = most.saturating_sub(self.connections());
        let mut progress = false;
        for (index, slot) in self.listeners.iter_mut().enumerate() {
            if slot.as_ref().is_some_and(|door| door.is_closing && door.accepting.is_none()) {
                *slot = None;
            }
            let Some(door) = slot else { continue };
            // An accept that is out may take a place at any time.
            if door.accepting.is_some() {
                room = room.saturating_sub(1);
            } else if room > 0 && !door.is_closing {
                let token = token(index, Operation::Connect);
                door.accepting = Some(self.port.accept(&door.socket, token));
                room -= 1;
                progress = true;
            }
        }
        progress
    }

    fn move_peer(&mut self, index: usize, now: Timestamp) -> bool {
        let Some(Some(peer)) = self.peers.get_mut(index) else { return false };
        let mut progress = peer.connection.poll(&mut self.target, now);
        #[cfg(feature = "tls")]
        while let Some(key) = self.target.next_generated_key() {
            // Of a length that no key has: its host is told that there is none by that identity.
            let _ = self.generated.insert(&key, now);
        }
        let Peer { connection, queues, .. } = peer;
        progress |= queues.submit(&self.devices, connection);
        progress |= queues.poll(&self.devices, connection, now, &mut self.completions);
        if !peer.connection.is_finished() {
            progress |= peer.stream.start(&self.port, &mut peer.connection);
            #[cfg(feature = "tls")]
            if let Some(key) = peer.stream.peer() {
                // Before the next poll decodes anything: Connect must come from whom the key is.
                peer.connection.expect_names(&key.host, &key.subsystem, key.is_generated);
            }
            if let Some(reason) = peer.stream.take_failure() {
                peer.connection.disconnect(&mut self.target, reason);
                progress = true;
            }
            return progress;
        }
        peer.stream.close(&self.port);
        // The last completions give back what other connections' commands may wait for.
        progress |= peer.connection.poll(&mut self.target, now);
        if peer.stream.is_closed() && peer.queues.in_flight() == 0 {
            self.peers[index] = None;
            return true;
        }
        progress
    }

    fn set_alarm(&mut self, now: Timestamp) {
        let deadlines = self.peers.iter().flatten().filter_map(|peer| peer.connection.deadline());
        let accept = (now < self.accept_after).then_some(self.accept_after);
        #[cfg(feature = "tls")]
        let deadlines = deadlines.chain(self.generated.next_expiry());
        let Some(deadline) = deadlines.chain(accept).min() else {
            return self.alarm.clear(&self.port);
        };
        self.alarm.set(&self.port, deadline, now);
    }
}

impl<Queue: BlockQueue> Task for TargetTask<Queue> {
    fn poll(&mut self, now: Timestamp) -> bool {
        let mut progress = false;
        while let Some(event) = self.port.next_event() {
            self.take(event, now);
            progress = true;
        }
        progress |= self.accept(now);
        progress |= self.devices.poll(now, &mut self.completions);
        #[cfg(feature = "tls")]
        {
            progress |= self.generated.expire(now);
        }
        for index in 0..self.peers.len() {
            progress |= self.move_peer(index, now);
        }
        if self.devices.are_leaving() {
            let peers = &self.peers;
            let is_open = |key| peers.iter().flatten().any(|peer| peer.queues.has(key));
            progress |= self.devices.let_go(is_open);
        }
        if let Some(files) = &self.reservations {
            progress |= files.keep(&mut self.target);
        }
        self.set_alarm(now);
        progress
    }

    fn is_finished(&self) -> bool {
        self.is_stopping
            && self.connections() == 0
            && self.listeners.iter().flatten().all(|door| door.accepting.is_none())
    }
}

/// The address that a host connected to; absent when the connection is gone already.
fn local_address(socket: &Descriptor) -> Option<IpAddr> {
    let socket = TcpStream::from(socket.as_fd().try_clone_to_owned().ok()?);
    Some(socket.local_addr().ok()?.ip().to_canonical())
}
