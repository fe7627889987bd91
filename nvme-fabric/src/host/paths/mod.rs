//! The ways to one namespace: associations that come back, and which of them a command takes.
//!
//! ```text
//!   Requests (one for each block queue) ──▶ Chooser ──▶ Path ──▶ Controller ──▶ I/O queue
//!      ▲  retry: after the fence                          │
//!      └──────────────────── commands that have ended ◀───┘
//! ```
//! A driver opens a stream for each queue of each path that [`Paths::next_stream_wanted`] names,
//! moves its bytes, and calls [`Paths::tick`] whenever anything has happened or the time of
//! [`Paths::next_deadline`] has come. It never waits for a peer: a path that is lost is closed at
//! once, and made again later.
//!
//! Requests wait while there is no usable path, at most `depth` of a queue's; see [`Settings`] for
//! how long. A change that an association has lost is not sent again before that association can do
//! nothing any more ([`LostChanges`], design 0009).
//!
//! Absent: finding paths by discovery, cross-controller reset (TP8028), and the static controller
//! model.

mod back_off;
mod fence;
mod identity;
mod movement;
mod path;
mod policy;
mod settings;
mod status;
#[cfg(test)]
mod tests;
mod users;

pub use crate::host::requests::retry::LostChanges;
pub use policy::PathPolicy;
pub use settings::Settings;
pub use status::{PathState, PathStatus, PathsStatus};

use block_io::{BufferPool, DeviceError, Geometry, IoError, Timestamp};

use self::back_off::Jitter;
use self::identity::Known;
use self::path::Path;
use self::policy::Chooser;
use super::controller::Seeds;
use super::requests::Requests;
use super::{Controller, HostOptions, Identity};
use crate::error::ConnectionError;

/// Paths to one namespace, at most: a set of them is one word.
pub const PATHS_MAX: usize = 32;

/// Where chance comes from; all of it is handed in.
#[derive(Debug)]
pub(super) struct Chance {
    /// For when attempts are made.
    jitter: Jitter,
    /// For authentication.
    pub(super) seeds: Seeds,
}

/// One user's requests.
#[derive(Debug)]
struct Queue {
    requests: Requests,
    /// Whoever opened it has gone.
    is_abandoned: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Paths {
    pool: BufferPool,
    now: Timestamp,
    namespace_id: u32,
    subsystem: String,
    settings: Settings,
    pub(super) chance: Chance,
    paths: Vec<Path>,
    chooser: Chooser,
    queues: Vec<Option<Queue>>,
    /// What the first association found, and what the last one said of it.
    known: Option<Known>,
    identity: Option<Identity>,
    geometry: Option<Geometry>,
    /// What new requests fail with while the namespace is gone or another.
    refusal: Option<IoError>,
    /// Since when no path has been usable.
    without_path: Option<Timestamp>,
    unreachable: bool,
    is_ending: bool,
    losses: u64,
    fences: u64,
    replacements: u64,
}

impl Paths {
    /// Paths to the namespace `namespace_id`, one for each of `options`, which are tried from now
    /// on; their four time-outs are those of `settings`. Chance in when attempts are made comes
    /// from `seed` alone.
    ///
    /// # Errors
    /// When there are no paths, too many, or they name different subsystems.
    pub fn new(
        pool: &BufferPool,
        options: Vec<HostOptions>,
        namespace_id: u32,
        settings: Settings,
        seed: u64,
        now: Timestamp,
    ) -> Result<Self, DeviceError> {
        let Some(first) = options.first() else {
            return Err(DeviceError::new("paths 0: must be 1 to 32"));
        };
        let mut paths = Self {
            pool: pool.clone(),
            now,
            namespace_id,
            subsystem: first.subsystem.to_string(),
            settings,
            chance: Chance { jitter: Jitter::new(seed), seeds: Seeds::default() },
            paths: Vec::new(),
            chooser: Chooser::new(settings.policy),
            queues: Vec::new(),
            known: None,
            identity: None,
            geometry: None,
            refusal: None,
            without_path: Some(now),
            unreachable: false,
            is_ending: false,
            losses: 0,
            fences: 0,
            replacements: 0,
        };
        for options in options {
            paths.add_path(options)?;
        }
        Ok(paths)
    }

    /// The association to look at: one that is up, else the last of any path, closed or not. Absent
    /// before the first attempt.
    pub fn controller(&self) -> Option<&Controller> {
        let any = || self.paths.iter().filter_map(Path::shown);
        any().find(|controller| controller.is_up()).or_else(|| any().next())
    }

    /// Adds a path, which is tried from now on. Returns its number.
    ///
    /// # Errors
    /// When there are [`PATHS_MAX`] already, or it is to another subsystem.
    pub fn add_path(&mut self, options: HostOptions) -> Result<usize, DeviceError> {
        let (address, subsystem) = (&options.address, &options.subsystem);
        if subsystem.as_str() != self.subsystem {
            let ours = &self.subsystem;
            return Err(DeviceError::new(format!(
                "path {address} to subsystem {subsystem}: must be to {ours}, as the others are"
            )));
        }
        let is_full = self.paths.len() >= PATHS_MAX;
        // A path that is gone leaves its number free, once nothing of it is awaited any more.
        let is_free = |path: &Path| path.is_gone() && !path.is_unsettled();
        let free = self.paths.iter().position(is_free).filter(|_| is_full);
        if is_full && free.is_none() {
            return Err(DeviceError::new(format!(
                "path {address}: there are {PATHS_MAX} already, which is the most"
            )));
        }
        let path = Path::new(options, self.namespace_id, self.now);
        let Some(number) = free else {
            self.paths.push(path);
            return Ok(self.paths.len() - 1);
        };
        self.paths[number] = path;
        Ok(number)
    }

    /// Gives a path up, cleanly where it is up.
    pub fn remove_path(&mut self, number: usize) {
        if let Some(path) = self.paths.get_mut(number) {
            path.leave(true, self.now);
            self.choose_candidates();
        }
    }

    /// Gives the association of a path up and makes another one.
    pub fn reset_path(&mut self, number: usize) {
        if let Some(path) = self.paths.get_mut(number) {
            path.reset(ConnectionError::ShutDown);
        }
    }

    /// Tries a path now, even if it was given up or refused.
    pub fn retry_path(&mut self, number: usize) {
        if let Some(path) = self.paths.get_mut(number).filter(|_| !self.is_ending) {
            path.retry(self.now);
        }
    }

    /// Changes times and policies; [`Settings`] says which hold from when on.
    pub fn set_settings(&mut self, settings: Settings) {
        self.settings = settings;
        self.chooser.policy = settings.policy;
        for path in &mut self.paths {
            path.settings_changed(&settings, self.now);
        }
        for queue in self.queues.iter_mut().flatten() {
            queue.requests.set_policy(settings.lost_changes);
        }
    }

    /// The times and policies in force.
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Where a path leads, for messages.
    pub fn address(&self, number: usize) -> &str {
        self.paths.get(number).map_or("", Path::address)
    }

    /// Whether requests can be sent now.
    pub fn is_usable(&self) -> bool {
        !self.chooser.candidates.is_empty()
    }

    /// Whether every path is given up and closed.
    pub fn is_over(&self) -> bool {
        self.paths.iter().all(Path::is_over)
    }

    /// Why requests fail at once, if they do: there has been no path for too long, or there will
    /// never be one again.
    pub fn fault(&self) -> Option<ConnectionError> {
        let is_given_up = self.paths.iter().all(Path::is_given_up);
        (self.unreachable || is_given_up).then(|| self.last_reason())
    }

    /// Why the last path that has anything to say is not up.
    pub fn last_reason(&self) -> ConnectionError {
        let reasons = self.paths.iter().filter_map(Path::reason);
        let real = reasons.clone().find(|reason| **reason != ConnectionError::ShutDown);
        real.or_else(|| reasons.clone().next()).cloned().unwrap_or(ConnectionError::Closed)
    }

    /// Whether each path has failed to come up at least once or is given up.
    pub fn all_have_failed(&self) -> bool {
        self.paths.iter().all(|path| path.reason().is_some() && !path.is_usable())
    }

    /// What the last association that was up said of controller and namespace.
    pub const fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }

    /// The namespace as a block device, once a path has been up.
    pub const fn geometry(&self) -> Option<Geometry> {
        self.geometry
    }

    /// Associations that were lost while they were in use. What the namespace acknowledged and had
    /// not flushed by then, its volatile cache may have lost.
    pub const fn losses(&self) -> u64 {
        self.losses
    }

    /// How often the last lost association has become unable to do anything: changes that had
    /// failed before with their outcome unknown will not be carried out any more.
    pub const fn fences(&self) -> u64 {
        self.fences
    }

    /// How often another namespace was found where this one was, with no path left to this one:
    /// when a path came up again, or under an association that is up.
    pub const fn replacements(&self) -> u64 {
        self.replacements
    }

    /// Everything as data.
    pub fn status(&self) -> PathsStatus {
        let now = self.now;
        let is_used = |number: usize| self.chooser.candidates.contains(&(number as u8));
        let paths = self.paths.iter().enumerate();
        let paths = paths
            .map(|(number, path)| PathStatus { is_used: is_used(number), ..path.status(now) })
            .collect();
        let queues = || self.queues.iter().flatten();
        PathsStatus {
            subsystem: self.subsystem.clone(),
            namespace_id: self.namespace_id,
            capacity: self.geometry.map(|geometry| geometry.capacity),
            is_unreachable: self.unreachable,
            without_path_for: self.without_path.map(|since| now.since(since)),
            unsent: queues().map(|queue| queue.requests.unsent()).sum(),
            waiting: queues().map(|queue| queue.requests.waiting()).sum(),
            paths,
        }
    }
}
