//! How an association is, for people and programs that look at it.

use std::fmt;

use block_io::Timestamp;

use super::{Controller, Step};

/// How far an association is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AssociationState {
    /// It is being brought up.
    Connecting,
    /// It takes requests.
    Live,
    /// The controller is being told that the host leaves.
    Leaving,
    /// It is over.
    Lost,
}

impl fmt::Display for AssociationState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connecting => "connecting",
            Self::Live => "live",
            Self::Leaving => "leaving",
            Self::Lost => "lost",
        })
    }
}

impl Controller {
    /// How far the association is.
    pub fn state(&self) -> AssociationState {
        match self.step {
            Step::Up => AssociationState::Live,
            Step::Shutdown | Step::ShutdownPause(_) => AssociationState::Leaving,
            Step::Over => AssociationState::Lost,
            _ => AssociationState::Connecting,
        }
    }

    /// Since when it has taken requests; absent before.
    pub fn live_since(&self) -> Option<Timestamp> {
        self.live_since
    }

    pub(super) fn note_live(&mut self) {
        if self.live_since.is_none() && self.is_up() {
            self.live_since = Some(self.now);
        }
    }
}
