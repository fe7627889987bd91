//! A network in the simulated world: byte streams with delay, arbitrary splits, back-pressure, and
//! cuts at an exact byte.
//!
//! It is TCP as its users see it: bytes arrive in order and unharmed or not at all; a cut may lose
//! the tail; nobody is told of a silence. Reads give at most one arrived chunk at a time.
//!
//! Absent: addresses, packets, congestion; connecting takes no time for the connecting end.

mod connection;
mod stream;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::rc::{Rc, Weak};
use std::time::Duration;

use super::{Random, World};
use crate::{DeviceError, Timestamp};
use connection::Connection;
pub use stream::{Received, Reset, SimStream};

/// How connections behave; each takes these settings when it is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetworkFaults {
    /// Shortest time on the way.
    pub delay_min: Duration,
    /// Longest time on the way; what was sent later never arrives earlier.
    pub delay_max: Duration,
    /// Bytes arrive in chunks of 1 to this many; 0: as they were sent.
    pub chunk_max: usize,
    /// A send accepts fewer bytes than there is room for, per mille.
    pub short_send: u32,
    /// Bytes that may be on the way and unread in one direction; then sends accept nothing.
    pub window: usize,
}

impl Default for NetworkFaults {
    fn default() -> Self {
        Self {
            delay_min: Duration::from_micros(5),
            delay_max: Duration::from_micros(50),
            chunk_max: 0,
            short_send: 0,
            window: 256 << 10,
        }
    }
}

impl NetworkFaults {
    /// Everything in small pieces, short sends, a small window.
    pub fn fragmented() -> Self {
        Self { chunk_max: 700, short_send: 300, window: 16 << 10, ..Self::default() }
    }
}

/// One of a connection's two directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// From the end that connected to the end that accepted.
    ToListener,
    /// From the end that accepted to the end that connected.
    ToConnector,
}

/// The network. Cheap to clone; clones are the same network.
#[derive(Clone)]
pub struct Network {
    world: World,
    state: Rc<RefCell<State>>,
}

struct State {
    faults: NetworkFaults,
    random: Random,
    listeners: BTreeMap<String, Backlog>,
    refused: BTreeSet<String>,
    connections: Vec<Weak<RefCell<Connection>>>,
    connections_made: u64,
    cuts: VecDeque<Option<(Direction, u64)>>,
}

/// Accepting ends, and when they arrive at their listener.
type Backlog = Rc<RefCell<VecDeque<(Timestamp, SimStream)>>>;

/// Nobody listens by that name, or the network was told to refuse.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// The name that was to be connected to.
    pub name: String,
}

impl Network {
    /// A network without listeners.
    pub fn new(world: &World) -> Self {
        let state = State {
            faults: NetworkFaults::default(),
            random: world.random("network"),
            listeners: BTreeMap::new(),
            refused: BTreeSet::new(),
            connections: Vec::new(),
            connections_made: 0,
            cuts: VecDeque::new(),
        };
        Self { world: world.clone(), state: Rc::new(RefCell::new(state)) }
    }

    /// Settings for the connections made from now on.
    pub fn set_faults(&self, faults: NetworkFaults) {
        self.state.borrow_mut().faults = faults;
    }

    /// Listens by `name`.
    ///
    /// # Errors
    /// When somebody listens by that name already.
    pub fn listen(&self, name: &str) -> Result<SimListener, DeviceError> {
        let mut state = self.state.borrow_mut();
        if state.listeners.contains_key(name) {
            return Err(DeviceError::new(format!("listen {name}: the name is in use")));
        }
        let backlog = Backlog::default();
        state.listeners.insert(name.to_owned(), Rc::clone(&backlog));
        Ok(SimListener { network: self.clone(), name: name.to_owned(), backlog })
    }

    /// Connects to the listener `name`. The connecting end may send at once; the other end reaches
    /// the listener after a delay.
    ///
    /// # Errors
    /// [`Refused`] when nobody listens or [`refuse`](Self::refuse) says so.
    pub fn connect(&self, name: &str) -> Result<SimStream, Refused> {
        let backlog = {
            let state = self.state.borrow();
            let listener = state.listeners.get(name);
            let listener = listener.filter(|_| !state.refused.contains(name));
            Rc::clone(listener.ok_or_else(|| Refused { name: name.to_owned() })?)
        };
        let (near, far) = self.pair();
        let arrives = self.world.now() + far.delay();
        backlog.borrow_mut().push_back((arrives, far));
        self.world.schedule(arrives, |_| {});
        Ok(near)
    }

    /// Both ends of a new connection, the connecting one first.
    pub fn pair(&self) -> (SimStream, SimStream) {
        let mut state = self.state.borrow_mut();
        let number = state.connections_made;
        state.connections_made += 1;
        let random = state.random.fork(&number.to_string());
        let connection = Rc::new(RefCell::new(Connection::new(state.faults, random)));
        state.connections.retain(|connection| connection.strong_count() > 0);
        state.connections.push(Rc::downgrade(&connection));
        let cut = state.cuts.pop_front().flatten();
        drop(state);
        if let Some((direction, bytes)) = cut {
            connection.borrow_mut().cut_after(direction as usize, bytes);
        }
        let end = |side| SimStream::new(&self.world, &connection, side);
        (end(0), end(1))
    }

    /// Refuses connections to `name` although somebody listens, or no longer.
    pub fn refuse(&self, name: &str, refuse: bool) {
        let mut state = self.state.borrow_mut();
        if refuse {
            state.refused.insert(name.to_owned());
        } else {
            state.refused.remove(name);
        }
    }

    /// Plans a cut for the next connection that has no plan yet: after exactly `bytes` bytes have
    /// arrived in `direction`. With `None` that connection is spared.
    pub fn plan_cut(&self, cut: Option<(Direction, u64)>) {
        self.state.borrow_mut().cuts.push_back(cut);
    }

    /// Cuts every connection now.
    pub fn cut_all(&self) {
        for connection in self.live() {
            connection.borrow_mut().cut();
        }
    }

    /// Silences every connection: nothing arrives any more and nobody is told.
    pub fn silence_all(&self) {
        for connection in self.live() {
            connection.borrow_mut().silence();
        }
    }

    fn live(&self) -> Vec<Rc<RefCell<Connection>>> {
        self.state.borrow().connections.iter().filter_map(Weak::upgrade).collect()
    }
}

/// Where connections to a name arrive. Dropping it refuses further ones.
pub struct SimListener {
    network: Network,
    name: String,
    backlog: Backlog,
}

impl SimListener {
    /// The next connection that has arrived.
    pub fn accept(&self) -> Option<SimStream> {
        let now = self.network.world.now();
        let mut backlog = self.backlog.borrow_mut();
        let arrived = backlog.iter().position(|(time, _)| *time <= now)?;
        backlog.remove(arrived).map(|(_, stream)| stream)
    }
}

impl Drop for SimListener {
    fn drop(&mut self) {
        self.network.state.borrow_mut().listeners.remove(&self.name);
        for (_, stream) in self.backlog.borrow_mut().drain(..) {
            stream.cut();
        }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "connection to {} refused", self.name)
    }
}

impl std::error::Error for Refused {}
