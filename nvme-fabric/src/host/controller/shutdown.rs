//! Clean shutdown: the controller is told, and confirms, before the connections close.
//!
//! Absent: waiting for requests in flight; the owner shuts down when it has none.

use block_io::Timestamp;

use super::{Controller, Step, token};
use crate::error::ConnectionError;
use crate::host::connection::{Data, Outcome};
use crate::spec::command::{FabricsCommand, SubmissionEntry};
use crate::spec::property::{
    Configuration, ControllerStatus, OFFSET_CONFIGURATION, OFFSET_STATUS, SIZE_4, ShutdownStatus,
};
use crate::spec::sgl::Descriptor;
use std::time::Duration;

/// How long the controller may take; the connections close all the same.
const SHUTDOWN_TIME: Duration = Duration::from_secs(2);
/// How long to wait before looking again.
const PAUSE: Duration = Duration::from_millis(10);
/// CC.SHN 01b: normal shutdown. NVMe Base 2.1 §3.1.4.5
const SHUTDOWN_NORMAL: u8 = 0b01;

impl Controller {
    /// Starts a clean shutdown, or ends bringing up. [`is_over`](Self::is_over) tells the end.
    pub fn shut_down(&mut self) {
        if self.step != Step::Up {
            if !matches!(self.step, Step::Shutdown | Step::ShutdownPause(_) | Step::Over) {
                self.lose(ConnectionError::ShutDown);
            }
            return;
        }
        self.keep_alive.stop();
        self.step = Step::Shutdown;
        self.deadline = self.now + SHUTDOWN_TIME;
        let configuration = Configuration { shutdown: SHUTDOWN_NORMAL, ..self.configuration() };
        let value = u64::from(configuration.encode());
        let command =
            FabricsCommand::PropertySet { size: SIZE_4, offset: OFFSET_CONFIGURATION, value };
        self.send_shutdown(command.encode(0, Descriptor::NONE));
    }

    fn send_shutdown(&mut self, entry: SubmissionEntry) {
        if self.send_admin(entry, Data::None, token::SHUTDOWN).is_err() {
            self.lose(ConnectionError::ShutDown);
        }
    }

    pub(super) fn look_at_shutdown(&mut self) {
        self.step = Step::Shutdown;
        let command = FabricsCommand::PropertyGet { size: SIZE_4, offset: OFFSET_STATUS };
        self.send_shutdown(command.encode(0, Descriptor::NONE));
    }

    /// CC.SHN has been written, or CSTS read.
    pub(super) fn take_shutdown(&mut self, outcome: Outcome) {
        if self.step != Step::Shutdown {
            return;
        }
        match outcome {
            Outcome::Completed(completion) if completion.status.is_success() => {
                // The answer to the write has result 0, which says "none yet" like CSTS does.
                let status = ControllerStatus::parse(completion.dword_0());
                if status.shutdown == ShutdownStatus::Complete || status.fatal {
                    self.lose(ConnectionError::ShutDown);
                } else {
                    self.step = Step::ShutdownPause(self.next_look());
                }
            }
            _ => self.lose(ConnectionError::ShutDown),
        }
    }

    pub(super) fn next_look(&self) -> Timestamp {
        (self.now + PAUSE).min(self.deadline)
    }
}
