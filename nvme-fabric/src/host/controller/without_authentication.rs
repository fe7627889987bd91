//! Stands in for `authentication` in a build without the feature `auth`: this host proves nothing,
//! and says so where it is asked to.

use block_io::{DeviceError, Timestamp};

use super::{Controller, QueueIndex};
use crate::error::ConnectionError;
use crate::host::HostOptions;
use crate::host::connection::Outcome;
use crate::spec::connect::ConnectResult;

/// Nothing.
#[derive(Debug, Default)]
pub(super) struct Authenticator {}

impl Authenticator {
    const fn deadline(&self) -> Option<Timestamp> {
        None
    }
}

/// Nothing.
#[derive(Debug, Default)]
pub(in crate::host) struct Seeds {}

impl Seeds {
    pub(in crate::host) const fn hand(&mut self, _: &mut Controller) {}
}

/// There are no options to check.
pub(super) const fn check(_: &HostOptions) -> Result<(), DeviceError> {
    Ok(())
}

impl Controller {
    /// Never begins; an error where the controller asks for it.
    pub(super) fn begin_authentication(
        &mut self,
        queue: QueueIndex,
        result: ConnectResult,
    ) -> Result<bool, ConnectionError> {
        if !result.authentication_required && !result.secure_channel_required {
            return Ok(false);
        }
        let (address, subsystem) = (&self.options.address, &self.options.subsystem);
        Err(ConnectionError::Unauthenticated(format!(
            "{address}: authentication of queue {queue}: subsystem {subsystem} requires it, and \
             this host was built without the feature `auth`"
        )))
    }

    pub(super) const fn lacks_secure_channel(&self, _: QueueIndex) -> bool {
        false
    }

    pub(super) const fn authentication_deadline(&self) -> Option<Timestamp> {
        self.authenticator.deadline()
    }

    pub(super) const fn advance_authentication(&mut self) -> bool {
        false
    }

    /// No command of its is ever sent.
    pub(super) fn take_authentication(&mut self, _: Outcome) {}

    pub(super) const fn reopens(&mut self, _: QueueIndex) -> bool {
        false
    }

    pub(super) fn put_authentication_first(&mut self, error: ConnectionError) -> ConnectionError {
        error
    }
}
