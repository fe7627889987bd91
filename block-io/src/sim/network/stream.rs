//! One end of a simulated connection.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use super::connection::{Arrival, Connection, Readable};
use crate::sim::World;
use crate::{IoError, Timestamp};

/// One end. Dropping it ends what it sends, and what arrives for it afterwards cuts the connection.
pub struct SimStream {
    world: World,
    connection: Rc<RefCell<Connection>>,
    side: usize,
}

/// What a read got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Received {
    /// This many bytes, at least one unless the place for them was empty.
    Bytes(usize),
    /// Nothing now: try again after an event.
    Nothing,
    /// The other end sends no more.
    End,
    /// The connection was cut.
    Reset,
}

/// The connection was cut, or this end has ended what it sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reset;

impl SimStream {
    pub(super) fn new(world: &World, connection: &Rc<RefCell<Connection>>, side: usize) -> Self {
        Self { world: world.clone(), connection: Rc::clone(connection), side }
    }

    /// Sends the first of `bytes`; returns how many were accepted. 0: the window is full, try
    /// again when the other end has read.
    ///
    /// # Errors
    /// [`Reset`] when the connection was cut or this end has finished.
    pub fn send(&self, bytes: &[u8]) -> Result<usize, Reset> {
        let (accepted, arrivals) = {
            let mut connection = self.connection.borrow_mut();
            if connection.is_cut || connection.pipes[self.side].finished {
                return Err(Reset);
            }
            connection.send(self.side, bytes, self.world.now())
        };
        for (time, arrival) in arrivals {
            self.schedule(time, arrival);
        }
        Ok(accepted)
    }

    /// Reads what has arrived, at most one chunk. After a cut, what had arrived before it can
    /// still be read.
    pub fn receive(&self, into: &mut [u8]) -> Received {
        let mut connection = self.connection.borrow_mut();
        match connection.pipes[1 - self.side].read(into) {
            Readable::Bytes(count) => Received::Bytes(count),
            Readable::End => Received::End,
            Readable::Nothing if connection.is_cut => Received::Reset,
            Readable::Nothing => Received::Nothing,
        }
    }

    /// Whether [`receive`](Self::receive) would say anything but [`Received::Nothing`].
    pub fn is_readable(&self) -> bool {
        let connection = self.connection.borrow();
        connection.is_cut || connection.pipes[1 - self.side].is_readable()
    }

    /// Ends what this end sends; it may still receive. The other end reads `End` after the last
    /// byte.
    pub fn finish(&self) {
        let end = self.connection.borrow_mut().finish(self.side, self.world.now());
        if let Some(time) = end {
            self.schedule(time, Arrival::End);
        }
    }

    /// Cuts the connection now; bytes on the way are lost.
    pub fn cut(&self) {
        self.connection.borrow_mut().cut();
    }

    /// From now on nothing arrives at either end, and neither is told: only a timeout helps.
    pub fn silence(&self) {
        self.connection.borrow_mut().silence();
    }

    /// Cuts the connection when exactly `bytes` of what this end sends (counted from the
    /// connection's start) have arrived; at once if they have.
    pub fn cut_after_sending(&self, bytes: u64) {
        self.connection.borrow_mut().cut_after(self.side, bytes);
    }

    /// Cuts the connection when exactly `bytes` have arrived at this end; at once if they have.
    pub fn cut_after_receiving(&self, bytes: u64) {
        self.connection.borrow_mut().cut_after(1 - self.side, bytes);
    }

    /// Has chunks of what this end sends from now on end at these positions, counted from the
    /// connection's start.
    pub fn split_at(&self, positions: impl IntoIterator<Item = u64>) {
        self.connection.borrow_mut().pipes[self.side].boundaries.extend(positions);
    }

    /// Bytes that this end has sent, ever.
    pub fn sent(&self) -> u64 {
        self.connection.borrow().pipes[self.side].sent
    }

    /// Bytes that this end has received, ever.
    pub fn received(&self) -> u64 {
        self.connection.borrow().pipes[1 - self.side].received
    }

    /// Whether the connection was cut.
    pub fn is_cut(&self) -> bool {
        self.connection.borrow().is_cut
    }

    pub(super) fn delay(&self) -> Duration {
        self.connection.borrow_mut().delay()
    }

    fn schedule(&self, time: Timestamp, arrival: Arrival) {
        let connection = Rc::downgrade(&self.connection);
        let side = self.side;
        self.world.schedule(time, move |_| {
            if let Some(connection) = connection.upgrade() {
                connection.borrow_mut().arrive(side, arrival);
            }
        });
    }
}

impl Drop for SimStream {
    fn drop(&mut self) {
        self.finish();
        self.connection.borrow_mut().pipes[1 - self.side].reader_gone = true;
    }
}

impl fmt::Debug for SimStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimStream")
            .field("sent", &self.sent())
            .field("received", &self.received())
            .field("is_cut", &self.is_cut())
            .finish()
    }
}

impl fmt::Display for Reset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the connection was cut")
    }
}

impl std::error::Error for Reset {}

impl From<Reset> for IoError {
    fn from(_: Reset) -> Self {
        Self::ConnectionLost
    }
}
