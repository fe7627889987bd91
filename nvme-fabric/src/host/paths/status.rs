//! The state of paths as data, for people and programs to look at.

use std::time::Duration;

use crate::spec::log_page::AccessState;

/// Where a path is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PathState {
    /// An association is being brought up.
    Connecting,
    /// It is up; whether it is used is up to [`PathStatus::access`].
    Live,
    /// It is lost or was reset, and its streams are being closed.
    Resetting,
    /// Between two attempts.
    Waiting,
    /// What is there is not the namespace that this is a path to; nothing more is tried until told.
    Failed,
    /// Given up: by the controller loss time, or on request.
    Gone,
}

impl PathState {
    /// The state in one lower-case word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connecting => "connecting",
            Self::Live => "live",
            Self::Resetting => "resetting",
            Self::Waiting => "waiting",
            Self::Failed => "failed",
            Self::Gone => "gone",
        }
    }
}

/// One path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathStatus {
    /// Where the controller is, as it was given.
    pub address: String,
    /// Where the path is in its life.
    pub state: PathState,
    /// For how long.
    pub since: Duration,
    /// Why the last association ended or did not come up; absent if none ever did.
    pub reason: Option<String>,
    /// Attempts to connect in a row that have failed.
    pub failures: u32,
    /// Associations that were up and were lost.
    pub losses: u64,
    /// When the next attempt is; absent while nothing waits for one.
    pub next_attempt_in: Option<Duration>,
    /// CNTLID, while live.
    pub controller_id: Option<u16>,
    /// I/O queues, while live.
    pub io_queues: u16,
    /// How the controller reaches the namespace, while live; optimized where it does not say.
    pub access: Option<AccessState>,
    /// Whether commands go there now.
    pub is_used: bool,
    /// Commands in flight.
    pub in_flight: u32,
    /// What commands took lately, on average; zero before the first.
    pub latency: Duration,
    /// After what time the lost association can do nothing any more; absent when none is open.
    pub settles_in: Option<Duration>,
}

/// A namespace and all paths to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathsStatus {
    /// The subsystem's NQN.
    pub subsystem: String,
    /// The namespace's identifier.
    pub namespace_id: u32,
    /// Bytes; absent before the first path is up.
    pub capacity: Option<u64>,
    /// Requests fail at once, as there has been no path for too long.
    pub is_unreachable: bool,
    /// For how long no path has been usable.
    pub without_path_for: Option<Duration>,
    /// Requests whose next command has no way yet.
    pub unsent: usize,
    /// Requests that wait for a lost association to be settled, or to be tried again.
    pub waiting: usize,
    /// In the order they were given.
    pub paths: Vec<PathStatus>,
}
