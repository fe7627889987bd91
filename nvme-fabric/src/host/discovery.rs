//! Asking a discovery controller which subsystems there are and how to reach them.
//!
//! ```text
//!   up ▶ header ▶ entries … ▶ header again ── generation changed ──▶ from the start
//!                                   └─ the same ▶ shut down ▶ over
//! ```
//! Absent: staying connected for changes, and following referrals, which are told as entries.

use block_io::{Buffer, BufferPool, DeviceError, Timestamp};

use super::connection::{Data, Outcome};
use super::controller::{Controller, Purpose};
use super::{HostOptions, QueueIndex};
use crate::error::ConnectionError;
use crate::spec::command::AdminCommand;
use crate::spec::log_page::{self, DiscoveryEntry, DiscoveryHeader, ENTRY_LENGTH, HEADER_LENGTH};
use crate::spec::nqn::Nqn;
use crate::spec::sgl::Descriptor;

/// Entries read with one command: 4 KiB of data, which any controller's MDTS allows.
const ENTRIES_PER_READ: usize = 4;
/// Entries that are read at most; a log of more is refused.
const ENTRIES_MAX: u64 = 4096;
/// How often the log may change under the reader before it gives up.
const RESTARTS_MAX: u32 = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    BringingUp,
    Header,
    /// The header that was read first says how many.
    Entries(DiscoveryHeader),
    HeaderAgain(DiscoveryHeader),
    Over,
}

/// One reading of a discovery log.
#[derive(Debug)]
pub struct Discovery {
    controller: Controller,
    step: Step,
    page: Buffer,
    entries: Vec<DiscoveryEntry>,
    restarts: u32,
    error: Option<ConnectionError>,
}

impl Discovery {
    /// A reading of the log of the discovery controller at `options.address`, starting now. The
    /// subsystem of the options is replaced by the well-known discovery name.
    ///
    /// # Errors
    /// As [`Controller::new`].
    pub fn new(
        pool: &BufferPool,
        options: HostOptions,
        now: Timestamp,
    ) -> Result<Self, DeviceError> {
        let options = HostOptions { subsystem: Nqn::discovery(), ..options };
        Ok(Self {
            controller: Controller::new(pool, options, Purpose::Discovery, now)?,
            step: Step::BringingUp,
            page: pool.allocate(ENTRIES_PER_READ * ENTRY_LENGTH),
            entries: Vec::new(),
            restarts: 0,
            error: None,
        })
    }

    /// The controller, for its streams.
    pub fn controller(&mut self) -> &mut Controller {
        &mut self.controller
    }

    /// The connection of a queue, for its bytes.
    pub fn connection(&mut self, queue: QueueIndex) -> Option<&mut super::connection::Connection> {
        self.controller.connection(queue)
    }

    /// Whether the reading is at its end and the streams are closed.
    pub fn is_over(&self) -> bool {
        self.controller.is_over()
    }

    /// The entries, once it is over.
    ///
    /// # Errors
    /// Why the log could not be read.
    pub fn into_entries(self) -> Result<Vec<DiscoveryEntry>, ConnectionError> {
        match (self.step, self.error) {
            (Step::Over, None) => Ok(self.entries),
            (_, Some(error)) => Err(error),
            (_, None) => Err(self.controller.error().cloned().unwrap_or(ConnectionError::Closed)),
        }
    }

    /// Does what the time and the answers received ask for. Returns whether anything happened.
    pub fn tick(&mut self, now: Timestamp) -> bool {
        let mut progress = self.controller.tick(now);
        if self.step == Step::BringingUp && self.controller.is_up() {
            self.read(Step::Header, 0, HEADER_LENGTH);
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
        self.step = Step::Over;
        self.error = error;
        self.controller.shut_down();
    }

    fn read(&mut self, step: Step, offset: usize, length: usize) {
        self.step = step;
        let command = AdminCommand::GetLogPage {
            namespace_id: 0,
            page: log_page::DISCOVERY,
            specific: 0,
            retain_event: true,
            length: length as u64,
            offset: offset as u64,
            index_offset: false,
        };
        let data = Data::ToHost(self.page.slice(0, length));
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
        match self.step {
            Step::Header => self.take_header(),
            Step::Entries(header) => {
                self.take_entries(header);
                Ok(())
            }
            Step::HeaderAgain(before) => {
                if self.header().generation == before.generation {
                    self.end(None);
                    return Ok(());
                }
                self.restarts += 1;
                if self.restarts > RESTARTS_MAX {
                    return Err(self.refused("the log keeps changing"));
                }
                self.entries.clear();
                self.take_header()
            }
            Step::BringingUp | Step::Over => Ok(()),
        }
    }

    fn header(&self) -> DiscoveryHeader {
        let mut bytes = [0; HEADER_LENGTH];
        self.page.slice(0, HEADER_LENGTH).copy_to_slice(&mut bytes);
        DiscoveryHeader::parse(&bytes)
    }

    fn take_header(&mut self) -> Result<(), ConnectionError> {
        let header = self.header();
        if header.records > ENTRIES_MAX {
            let records = header.records;
            return Err(
                self.refused(&format!("NUMREC is {records}: at most {ENTRIES_MAX} are read"))
            );
        }
        if header.format != 0 {
            let format = header.format;
            return Err(self.refused(&format!("RECFMT is {format}: must be 0")));
        }
        self.read_entries(header);
        Ok(())
    }

    /// The next entries, or the header again after the last.
    fn read_entries(&mut self, header: DiscoveryHeader) {
        let rest = header.records as usize - self.entries.len();
        if rest == 0 {
            self.read(Step::HeaderAgain(header), 0, HEADER_LENGTH);
            return;
        }
        let offset = HEADER_LENGTH + self.entries.len() * ENTRY_LENGTH;
        self.read(Step::Entries(header), offset, rest.min(ENTRIES_PER_READ) * ENTRY_LENGTH);
    }

    fn take_entries(&mut self, header: DiscoveryHeader) {
        let rest = header.records as usize - self.entries.len();
        for index in 0..rest.min(ENTRIES_PER_READ) {
            let mut bytes = [0; ENTRY_LENGTH];
            self.page.slice(index * ENTRY_LENGTH, ENTRY_LENGTH).copy_to_slice(&mut bytes);
            self.entries.push(DiscoveryEntry::parse(&bytes));
        }
        self.read_entries(header);
    }
}
