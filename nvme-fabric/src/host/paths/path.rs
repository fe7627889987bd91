//! One path: an association that is made again when it is lost.
//!
//! ```text
//!        ┌──────────────── pause over ────────────────┐
//!        ▼                                            │
//!   Connecting ──up──▶ Live ──lost, reset──▶ Resetting ──▶ Waiting ──too long──▶ Gone
//!        └───────────────not up in time────────▲   └─another namespace──▶ Failed
//! ```
//! Resetting ends when every stream is closed, which waits for nobody: the driver cancels what is
//! in flight. Only then a new association is made, so a path has one at a time; what the closed one
//! may still do is its [`Fence`]'s.

use std::time::Duration;

use block_io::{BufferPool, Timestamp};

use super::back_off::pause;
use super::fence::{Fence, settling_time};
use super::policy::Load;
use super::{Chance, Settings, status};
use crate::error::ConnectionError;
use crate::host::controller::Purpose;
use crate::host::requests::{Limits, Way};
use crate::host::{Controller, HostOptions, QueueIndex};
use crate::spec::log_page::AccessState;
use crate::spec::status::Status;
use status::{PathState, PathStatus};

/// What the owner of the paths has to hear of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// The association is up, for the owner to look at and to admit.
    Up,
    /// What it says of itself has changed.
    Identity,
    /// The association that was admitted is lost.
    Lost,
    /// The association is closed; if it was admitted, then when what it left is settled.
    Closed {
        was_live: bool,
        settles: Option<Timestamp>,
    },
    /// What it left is settled.
    Settled,
    GivenUp,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Path {
    options: HostOptions,
    namespace_id: u32,
    pub(super) controller: Option<Box<Controller>>,
    /// The one before, closed, to look at.
    last: Option<Box<Controller>>,
    pub(super) state: PathState,
    since: Timestamp,
    reason: Option<ConnectionError>,
    failures: u32,
    losses: u64,
    /// When the next attempt is, while waiting.
    attempt_at: Timestamp,
    /// Since when it has not been live.
    lost_since: Timestamp,
    /// Where it goes when its streams are closed.
    after_closing: PathState,
    was_live: bool,
    pub(super) access: AccessState,
    access_since: Timestamp,
    identity_version: u64,
    pub(super) limits: Limits,
    io_queues: u16,
    pub(super) load: Load,
    fence: Fence,
}

impl Path {
    pub(super) fn new(options: HostOptions, namespace_id: u32, now: Timestamp) -> Self {
        let limits = Limits::unknown(namespace_id, 9, Duration::ZERO);
        Self {
            options,
            namespace_id,
            controller: None,
            last: None,
            state: PathState::Waiting,
            since: now,
            reason: None,
            failures: 0,
            losses: 0,
            attempt_at: now,
            lost_since: now,
            after_closing: PathState::Waiting,
            was_live: false,
            access: AccessState::Optimized,
            access_since: now,
            identity_version: 0,
            limits,
            io_queues: 0,
            load: Load::default(),
            fence: Fence::default(),
        }
    }

    fn enter(&mut self, state: PathState, now: Timestamp) {
        (self.state, self.since) = (state, now);
    }

    pub(super) fn address(&self) -> &str {
        &self.options.address
    }

    /// The association to look at.
    pub(super) fn shown(&self) -> Option<&Controller> {
        self.controller.as_deref().or(self.last.as_deref())
    }

    /// Whether commands may go there.
    pub(super) fn is_usable(&self) -> bool {
        self.state == PathState::Live && self.access.is_usable()
    }

    /// Whether nothing will ever come of it unless told.
    pub(super) const fn is_given_up(&self) -> bool {
        matches!(self.state, PathState::Failed | PathState::Gone)
    }

    /// Whether it is gone for good and closed.
    pub(super) fn is_gone(&self) -> bool {
        self.state == PathState::Gone && self.is_over()
    }

    /// Whether it is given up and closed.
    pub(super) fn is_over(&self) -> bool {
        self.is_given_up() && self.controller.is_none()
    }

    /// Whether an association that was lost may still do something.
    pub(super) const fn is_unsettled(&self) -> bool {
        self.fence.settles.is_some() || matches!(self.state, PathState::Resetting) && self.was_live
    }

    pub(super) const fn reason(&self) -> Option<&ConnectionError> {
        self.reason.as_ref()
    }

    /// The next thing that has happened, if anything has.
    pub(super) fn advance(
        &mut self,
        pool: &BufferPool,
        settings: &Settings,
        chance: &mut Chance,
        now: Timestamp,
    ) -> Option<Change> {
        if self.fence.opens(now) {
            return Some(Change::Settled);
        }
        match self.state {
            PathState::Waiting if self.is_too_late(settings, now) => {
                self.enter(PathState::Gone, now);
                return Some(Change::GivenUp);
            }
            PathState::Waiting if self.attempt_at <= now => self.start(pool, settings, chance, now),
            PathState::Connecting | PathState::Live => return self.look(now),
            PathState::Resetting => return self.close(settings, chance, now),
            PathState::Waiting | PathState::Failed | PathState::Gone => {}
        }
        None
    }

    fn is_too_late(&self, settings: &Settings, now: Timestamp) -> bool {
        settings.controller_loss.is_some_and(|most| self.lost_since + most <= now)
    }

    fn start(
        &mut self,
        pool: &BufferPool,
        settings: &Settings,
        chance: &mut Chance,
        now: Timestamp,
    ) {
        settings.apply(&mut self.options);
        let purpose = Purpose::Namespace(self.namespace_id);
        match Controller::new(pool, self.options.clone(), purpose, now) {
            Ok(mut controller) => {
                controller.lend_queues();
                chance.seeds.hand(&mut controller);
                self.controller = Some(Box::new(controller));
                (self.was_live, self.after_closing) = (false, PathState::Waiting);
                self.enter(PathState::Connecting, now);
            }
            Err(error) => {
                self.reason = Some(ConnectionError::Incompatible(error.to_string()));
                self.enter(PathState::Failed, now);
            }
        }
    }

    fn look(&mut self, now: Timestamp) -> Option<Change> {
        let controller = self.controller.as_ref()?;
        if let Some(error) = controller.error() {
            self.reason = Some(error.clone());
            self.enter(PathState::Resetting, now);
            if !self.was_live {
                self.failures = self.failures.saturating_add(1);
                return None;
            }
            self.losses += 1;
            (self.failures, self.lost_since) = (1, now);
            return Some(Change::Lost);
        }
        let version = controller.identity_version();
        match self.state {
            PathState::Connecting if controller.is_up() => {
                self.identity_version = version;
                Some(Change::Up)
            }
            PathState::Live if version != self.identity_version => {
                self.identity_version = version;
                Some(Change::Identity)
            }
            PathState::Live if self.change_ends().is_some_and(|end| end <= now) => {
                let what = format!("{}: access state Change to end (ANATT)", self.options.address);
                let after = now.since(self.access_since);
                self.reset(ConnectionError::TimedOut(what, after));
                None
            }
            _ => None,
        }
    }

    /// When the state Change has lasted too long: twice what the controller promises, as hosts
    /// commonly allow.
    fn change_ends(&self) -> Option<Timestamp> {
        let controller = self.controller.as_ref()?;
        let time = controller.identity().controller.access_transition_time;
        let is_changing = self.state == PathState::Live && self.access == AccessState::Change;
        is_changing.then(|| self.access_since + 2 * Duration::from_secs(u64::from(time.max(1))))
    }

    /// It is the right namespace: commands may go there.
    pub(super) fn admit(&mut self, now: Timestamp) {
        if let Some(controller) = &self.controller {
            self.io_queues = controller.io_queues();
        }
        (self.was_live, self.failures, self.reason) = (true, 0, None);
        self.enter(PathState::Live, now);
        self.take_identity(now);
    }

    /// Takes over what the controller says now.
    pub(super) fn take_identity(&mut self, now: Timestamp) {
        let Some(controller) = &self.controller else {
            return;
        };
        let identity = controller.identity();
        if let Some(geometry) = &identity.geometry {
            self.limits = controller.limits(geometry);
        }
        self.set_access(identity.access.unwrap_or(AccessState::Optimized), now);
    }

    fn set_access(&mut self, access: AccessState, now: Timestamp) {
        if self.access != access {
            (self.access, self.access_since) = (access, now);
        }
    }

    /// The namespace is another one: nothing more is tried.
    pub(super) fn refuse(&mut self, what: &str) {
        self.after_closing = PathState::Failed;
        let error = ConnectionError::Incompatible(format!("{}: {what}", self.options.address));
        self.reset(error);
    }

    /// Gives the association up; another one is made later.
    pub(super) fn reset(&mut self, reason: ConnectionError) {
        if let Some(controller) = &mut self.controller {
            controller.abandon(reason);
        }
    }

    /// A command was refused for the path's sake. What that says of the path holds until the log,
    /// which is read again, says otherwise. Returns whether the path's use may have changed.
    pub(super) fn take_refusal(&mut self, status: Status, now: Timestamp) -> bool {
        let Some(controller) = &mut self.controller else {
            return false;
        };
        let access = if status.is(Status::ANA_PERSISTENT_LOSS) {
            AccessState::PersistentLoss
        } else if status.is(Status::ANA_INACCESSIBLE) {
            AccessState::Inaccessible
        } else if status.is(Status::ANA_TRANSITION) {
            AccessState::Change
        } else {
            return false;
        };
        if controller.identity().access.is_none() {
            return false;
        }
        controller.read_access_log();
        self.set_access(access, now);
        true
    }

    /// Every stream is closed: on to what comes next.
    fn close(
        &mut self,
        settings: &Settings,
        chance: &mut Chance,
        now: Timestamp,
    ) -> Option<Change> {
        let controller = self.controller.take_if(|controller| controller.is_over())?;
        let was_live = std::mem::take(&mut self.was_live);
        let (identity, options) = (controller.identity(), controller.options());
        let time = settling_time(&identity.controller, options.keep_alive, settings.fence_grace);
        let settles = time.filter(|_| was_live).map(|time| now + time);
        self.fence.settles = self.fence.settles.max(settles);
        self.load = Load::default();
        self.attempt_at = now + pause(settings, self.failures, &mut chance.jitter);
        self.last = Some(controller);
        self.enter(self.after_closing, now);
        Some(Change::Closed { was_live, settles })
    }

    /// Leaves: cleanly if the association is up and `cleanly` says so, else at once.
    pub(super) fn leave(&mut self, cleanly: bool, now: Timestamp) {
        self.after_closing = PathState::Gone;
        match &mut self.controller {
            Some(controller) if cleanly => controller.shut_down(),
            Some(controller) => controller.abandon(ConnectionError::ShutDown),
            None => return self.enter(PathState::Gone, now),
        }
        // Nothing new goes there, and its end is no loss.
        self.enter(PathState::Resetting, now);
    }

    /// Connects at once, given up or not.
    pub(super) fn retry(&mut self, now: Timestamp) {
        (self.after_closing, self.lost_since) = (PathState::Waiting, now);
        if self.controller.is_none() {
            self.attempt_at = now;
            self.enter(PathState::Waiting, now);
        }
    }

    pub(super) fn settings_changed(&mut self, settings: &Settings, now: Timestamp) {
        // Whoever asks for short pauses does not mean after the long one that has begun.
        self.attempt_at = self.attempt_at.min(now + settings.reconnect_delay_max);
        if let Some(controller) = &mut self.controller {
            controller.set_deadlines(settings.command_timeout, settings.abort_time);
            if let Some(geometry) = &controller.identity().geometry {
                self.limits = controller.limits(geometry);
            }
        }
    }

    /// The I/O queue that block queue number `queue` uses; there may be fewer of them.
    fn io_queue(&self, queue: usize) -> QueueIndex {
        match self.io_queues {
            0 | 1 => 1,
            count => 1 + (queue % usize::from(count)) as QueueIndex,
        }
    }

    pub(super) fn has_room(&mut self, queue: usize) -> bool {
        let index = self.io_queue(queue);
        let connection = self.controller.as_mut().and_then(|it| it.connection(index));
        connection.is_some_and(|connection| connection.has_room())
    }

    /// The way for a command that is sent now, if there is room.
    pub(super) fn way(&mut self, queue: usize) -> Option<Way<'_>> {
        let index = self.io_queue(queue);
        let connection = self.controller.as_mut()?.connection(index)?;
        if !connection.has_room() {
            return None;
        }
        self.load.in_flight += 1;
        Some(Way { connection, limits: self.limits })
    }

    pub(super) fn next_deadline(&self, settings: &Settings) -> Option<Timestamp> {
        let controller = self.controller.as_ref().and_then(|controller| controller.next_deadline());
        let waiting = (self.state == PathState::Waiting).then_some(self.attempt_at);
        let loss = settings.controller_loss.filter(|_| waiting.is_some());
        let loss = loss.map(|most| self.lost_since + most);
        let times = [controller, waiting, loss, self.fence.settles, self.change_ends()];
        times.into_iter().flatten().min()
    }

    pub(super) fn status(&self, now: Timestamp) -> PathStatus {
        let live = self.controller.as_ref().filter(|_| self.state == PathState::Live);
        PathStatus {
            address: self.options.address.clone(),
            state: self.state,
            since: now.since(self.since),
            reason: self.reason.as_ref().map(ToString::to_string),
            failures: self.failures,
            losses: self.losses,
            next_attempt_in: (self.state == PathState::Waiting).then(|| self.attempt_at.since(now)),
            controller_id: live.map(|controller| controller.identity().controller_id),
            io_queues: if live.is_some() { self.io_queues } else { 0 },
            access: live.map(|_| self.access),
            is_used: false,
            in_flight: self.load.in_flight,
            latency: self.load.latency(),
            settles_in: self.fence.settles.map(|settles| settles.since(now)),
        }
    }
}
