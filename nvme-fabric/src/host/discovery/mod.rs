//! Asking a discovery controller which subsystems there are and how to reach them, once or for as
//! long as the association lasts.
//!
//! ```text
//!   up ▶ reading ─┬─ once ▶ shut down ▶ over
//!         ▲       └─ persistent ▶ waiting ── the log changed (event) ──┐
//!         └────────────────────────────────────────────────────────────┘
//!   log         one reading, in pieces of one generation
//!   route       where an entry leads, if anywhere
//!   walk        from service to service by their referrals
//!   difference  what appeared, went and changed between two logs
//! ```
//! A request for the next event is parked only after a reading, so that a controller that raises
//! events without end is read no faster than it answers. Absent: coming back after the
//! association is lost; a new one is made for that.

pub mod difference;
#[cfg(test)]
mod entries;
pub mod log;
pub mod route;
pub mod walk;

use block_io::{Buffer, BufferPool, DeviceError, Timestamp};

pub use self::difference::Difference;
pub use self::log::DiscoveryLog;
use self::log::{LogReader, Next, PIECE_LENGTH_MAX, Piece};
pub use self::route::{Route, route};
pub use self::walk::{Findings, Walk, WalkLimits};
use super::connection::{Connection, Data, Outcome};
use super::controller::{Controller, Purpose};
use super::{HostOptions, QueueIndex};
use crate::error::ConnectionError;
use crate::spec::command::AdminCommand;
use crate::spec::log_page;
use crate::spec::sgl::Descriptor;

#[derive(Clone, Debug)]
enum Step {
    BringingUp,
    /// A log, and so many bytes of it with the command in flight.
    Reading(LogReader, usize),
    /// For an event.
    Waiting,
    Over,
}

/// An association with a discovery controller. See the module.
#[derive(Debug)]
pub struct Discovery {
    controller: Controller,
    is_persistent: bool,
    step: Step,
    page: Buffer,
    /// The last log that was read whole, until it is taken.
    log: Option<DiscoveryLog>,
    error: Option<ConnectionError>,
}

impl Discovery {
    /// One reading of the log of the discovery controller at `options.address`, starting now. The
    /// subsystem of the options is the well-known discovery name, or a service's unique one. KATO
    /// is not used.
    ///
    /// # Errors
    /// As [`Controller::new`].
    pub fn once(
        pool: &BufferPool,
        options: HostOptions,
        now: Timestamp,
    ) -> Result<Self, DeviceError> {
        Self::with(pool, options, Purpose::Discovery, now)
    }

    /// As [`once`](Self::once), and then again whenever the log has changed, until the association
    /// is lost or shut down: an explicit persistent connection. NVMe Base 2.1 §3.1.3.3
    ///
    /// # Errors
    /// As [`Controller::new`]; and when the options have no KATO, which makes it persistent.
    pub fn persistent(
        pool: &BufferPool,
        options: HostOptions,
        now: Timestamp,
    ) -> Result<Self, DeviceError> {
        if options.keep_alive.is_zero() {
            return Err(DeviceError::new(
                "keep alive 0: a persistent discovery connection needs a time",
            ));
        }
        Self::with(pool, options, Purpose::PersistentDiscovery, now)
    }

    fn with(
        pool: &BufferPool,
        options: HostOptions,
        purpose: Purpose,
        now: Timestamp,
    ) -> Result<Self, DeviceError> {
        Ok(Self {
            controller: Controller::new(pool, options, purpose, now)?,
            is_persistent: purpose == Purpose::PersistentDiscovery,
            step: Step::BringingUp,
            page: pool.allocate(PIECE_LENGTH_MAX),
            log: None,
            error: None,
        })
    }

    /// The controller, for its streams.
    pub fn controller(&mut self) -> &mut Controller {
        &mut self.controller
    }

    /// The connection of a queue, for its bytes.
    pub fn connection(&mut self, queue: QueueIndex) -> Option<&mut Connection> {
        self.controller.connection(queue)
    }

    /// What the service calls itself: its unique name, or the well-known one. Empty before it has
    /// been identified, and from services that say none.
    pub fn service_name(&self) -> &str {
        &self.controller.identity().controller.subsystem
    }

    /// Whether the association is at its end and the streams are closed.
    pub fn is_over(&self) -> bool {
        self.controller.is_over()
    }

    /// A log that has been read since this was asked last.
    pub fn take_log(&mut self) -> Option<DiscoveryLog> {
        self.log.take()
    }

    /// Why it ended, or why the log could not be read. Absent while it is under way, and at the
    /// end of one that was asked once and has answered.
    pub fn error(&self) -> Option<&ConnectionError> {
        match (&self.step, &self.error) {
            (_, Some(error)) => Some(error),
            (Step::Over, None) if !self.is_persistent => None,
            _ => self.controller.error(),
        }
    }

    /// The log, once one that was asked once is over.
    ///
    /// # Errors
    /// Why the log could not be read.
    pub fn into_log(mut self) -> Result<DiscoveryLog, ConnectionError> {
        match (self.error().cloned(), self.log.take()) {
            (None, Some(log)) => Ok(log),
            (error, _) => Err(error.unwrap_or(ConnectionError::Closed)),
        }
    }

    /// Takes leave of the controller.
    pub fn shut_down(&mut self) {
        self.step = Step::Over;
        self.controller.shut_down();
    }

    /// When [`tick`](Self::tick) is needed next, if nothing else happens.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.controller.next_deadline()
    }

    /// Does what the time and the answers received ask for. Returns whether anything happened.
    pub fn tick(&mut self, now: Timestamp) -> bool {
        let mut progress = self.controller.tick(now);
        let is_changed = self.controller.take_discovery_change();
        let begins = match self.step {
            Step::BringingUp => self.controller.is_up(),
            Step::Waiting => is_changed,
            Step::Reading(..) | Step::Over => false,
        };
        if begins {
            let (reader, piece) = LogReader::begin();
            self.read(reader, piece);
            progress = true;
        }
        if let Some(outcome) = self.controller.take_answer() {
            progress = true;
            if let Err(error) = self.take(outcome) {
                self.end(Some(error));
            }
        }
        progress
    }

    fn end(&mut self, error: Option<ConnectionError>) {
        self.error = error;
        self.shut_down();
    }

    fn read(&mut self, reader: LogReader, piece: Piece) {
        self.step = Step::Reading(reader, piece.length);
        let command = AdminCommand::GetLogPage {
            namespace_id: 0,
            page: log_page::DISCOVERY,
            specific: 0,
            retain_event: piece.retain_event,
            length: piece.length as u64,
            offset: piece.offset,
            index_offset: false,
        };
        let data = Data::ToHost(self.page.slice(0, piece.length));
        if self.controller.submit_admin(command.encode(0, Descriptor::NONE), data).is_err() {
            self.end(Some(ConnectionError::Closed));
        }
    }

    fn refused(&self, what: &str) -> ConnectionError {
        let address = &self.controller.options().address;
        ConnectionError::Refused(format!("{address}: Get Log Page (discovery): {what}"))
    }

    fn take(&mut self, outcome: Outcome) -> Result<(), ConnectionError> {
        match outcome {
            Outcome::Completed(completion) if completion.status.is_success() => {}
            Outcome::Completed(completion) => {
                return Err(self.refused(&completion.status.to_string()));
            }
            Outcome::DataDigest => return Err(self.refused("the data do not match their digest")),
            Outcome::Short(bytes) => return Err(self.refused(&format!("only {bytes} bytes"))),
            Outcome::Lost => return Ok(()),
        }
        let Step::Reading(mut reader, length) = std::mem::replace(&mut self.step, Step::Waiting)
        else {
            return Ok(());
        };
        let bytes = self.page.slice(0, length).to_vec();
        let next = reader.take(&bytes).map_err(|what| self.refused(&what))?;
        match next {
            Next::Read(piece) => self.read(reader, piece),
            Next::Done(log) => {
                self.log = Some(log);
                if self.is_persistent {
                    self.controller.await_discovery_change();
                } else {
                    self.end(None);
                }
            }
        }
        Ok(())
    }
}
