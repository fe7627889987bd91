//! How this controller reaches the namespace: asymmetric namespace access (ANA).
//!
//! ```text
//!   bring_up ── Access ──▶ Up      an event, or a command that ended so ──▶ the log is read again
//! ```
//! The log is read without the namespaces of each group (RGO): Identify Namespace tells which group
//! the namespace is in. A log beyond [`LOG_MAX`] is not read, which is told.

use block_io::Buffer;

use super::{Controller, Purpose, Step, token};
use crate::error::ConnectionError;
use crate::host::connection::{Data, Outcome};
use crate::spec::command::AdminCommand;
use crate::spec::identify::optional;
use crate::spec::log_page::{
    ACCESS_DESCRIPTOR_LENGTH, ACCESS_GROUPS_ONLY, ACCESS_HEADER_LENGTH, ASYMMETRIC_ACCESS,
    AccessLog, AccessState,
};
use crate::spec::sgl::Descriptor;

/// Bytes of a log that are read: 2047 groups. Far more than any controller is known to have.
const LOG_MAX: usize = 64 << 10;

/// What is under way.
#[derive(Debug, Default)]
pub(super) struct AccessLogReading {
    /// Where the log arrives; absent without ANA.
    page: Option<Buffer>,
    in_flight: bool,
    /// Something has changed since it was asked for.
    again: bool,
}

impl Controller {
    /// Reads the log if there is one, as the last step of bringing up.
    pub(super) fn ask_for_access(&mut self) {
        let controller = &self.identity.controller;
        let group = self.identity.namespace.access_group;
        let reports = controller.multi_path & optional::ASYMMETRIC_ACCESS != 0;
        if !reports || group == 0 || self.purpose == Purpose::Discovery {
            self.step = Step::Up;
            return;
        }
        let groups = controller.access_groups as usize;
        let length = groups
            .saturating_mul(ACCESS_DESCRIPTOR_LENGTH)
            .saturating_add(ACCESS_HEADER_LENGTH)
            .min(LOG_MAX)
            .min(self.data_max() as usize);
        let page = self.pool.allocate(length);
        // A controller may send less than it is asked for, and none of the last log may be left.
        page.fill(0);
        self.access_log.page = Some(page.clone());
        let entry = access_log_command(length).encode(0, Descriptor::NONE);
        self.ask(0, Step::Access, entry, Data::ToHost(page));
    }

    /// Reads it again, now or as soon as the reading under way has ended.
    pub(crate) fn read_access_log(&mut self) {
        let Some(page) = self.access_log.page.clone().filter(|_| self.is_up()) else {
            return;
        };
        if self.access_log.in_flight {
            self.access_log.again = true;
            return;
        }
        let entry = access_log_command(page.len()).encode(0, Descriptor::NONE);
        self.access_log.in_flight =
            self.send_admin(entry, Data::ToHost(page), token::ACCESS_LOG).is_ok();
    }

    pub(super) fn take_access_log(&mut self, outcome: Outcome) {
        self.access_log.in_flight = false;
        let error = match outcome {
            Outcome::Completed(completion) if completion.status.is_success() => {
                self.note_access().err()
            }
            Outcome::Completed(completion) => Some(self.access_refused(&completion.status)),
            Outcome::DataDigest | Outcome::Short(_) => Some(self.access_refused(&"broken data")),
            Outcome::Lost => None,
        };
        if let Some(error) = error {
            self.lose(error);
        } else if std::mem::take(&mut self.access_log.again) {
            self.read_access_log();
        }
    }

    fn access_refused(&self, what: &dyn std::fmt::Display) -> ConnectionError {
        let address = &self.options.address;
        ConnectionError::Refused(format!("{address}: Get Log Page (asymmetric access): {what}"))
    }

    /// The log has arrived. A group that is not in it is not reached here.
    pub(super) fn note_access(&mut self) -> Result<(), ConnectionError> {
        let Some(page) = &self.access_log.page else {
            return Ok(());
        };
        let log = AccessLog::parse(&page.to_vec()).map_err(|cut| {
            self.incompatible(format!(
                "asymmetric access log: group {} ends at byte {} of {}",
                cut.group, cut.end, cut.length
            ))
        })?;
        let wanted = self.identity.namespace.access_group;
        let group = log.groups.iter().find(|group| group.id == wanted);
        self.identity.access = Some(group.map_or(AccessState::Inaccessible, |group| group.state));
        self.identity_version += 1;
        Ok(())
    }
}

fn access_log_command(length: usize) -> AdminCommand {
    AdminCommand::GetLogPage {
        namespace_id: u32::MAX,
        page: ASYMMETRIC_ACCESS,
        specific: ACCESS_GROUPS_ONLY,
        retain_event: false,
        length: length as u64,
        offset: 0,
        index_offset: false,
    }
}
