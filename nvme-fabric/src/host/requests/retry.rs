//! Requests whose commands an association has lost or a path has refused: sent again, elsewhere or
//! later, but a change never before it is certain that the lost command does nothing any more.
//!
//! ```text
//!   Lost ── changes nothing ─────────────────────────────────────────────▶ to send
//!     └──── a change ──▶ unsettled ──the association is closed──▶ settles at ──▶ to send
//!   a path's refusal, an abort ──▶ not before ───────────────────────────▶ to send
//! ```
//! While a change is like that, later changes of the same bytes on this queue wait behind it until
//! it has completed: otherwise the one that is sent again would overwrite what was acknowledged
//! meanwhile. Reads do not wait; they may see either, as beside any write in flight.
//!
//! Requests that wait hold one of the queue's `depth` places, which is the bound of how many there
//! are. See design 0009.

use std::collections::VecDeque;
use std::time::Duration;

use block_io::{IoError, Timestamp};

use super::{Limits, Live, Requests};
use crate::host::connection::{Finished, Outcome};
use crate::host::status::io_error;
use crate::spec::status::Status;

/// The error of a request of which no command can do anything any more, and that no path is there
/// for: EHOSTUNREACH.
pub(crate) const UNREACHABLE: IoError = IoError::Other(113);

/// Attempts of a command that the controller aborted, interrupted or spoilt.
const ATTEMPTS_MAX: u8 = 5;
/// Attempts of a command that paths refuse although they should not.
const PATH_ATTEMPTS_MAX: u8 = 64;
/// Where a token has the number of its queue. Bit 32 is the association's own.
pub(crate) const NUMBER_SHIFT: u32 = 40;
/// Pause before the third attempt; twice as long before each later one.
const PAUSE: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// What becomes of a change whose association was lost before it was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum LostChanges {
    /// It is sent again when the controller must have given up the association and quiesced.
    #[default]
    AfterFence,
    /// It is sent again at once. Not safe: the lost one may be carried out after later writes.
    AtOnce,
    /// It fails, its outcome unknown, and the submitter decides.
    Fail,
}

/// What is the same for all requests of a queue.
#[derive(Debug)]
pub(super) struct Retry {
    /// The queue's number, the upper part of its commands' tokens.
    number: u32,
    policy: LostChanges,
    now: Timestamp,
    /// Requests that wait for a time or an event, in order of arrival.
    waiting: VecDeque<u32>,
    /// Changes in flight that were lost at least once.
    doubtful: u32,
}

/// What has happened to a request.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Trouble {
    /// A command of it has to be sent again.
    pub(super) again: bool,
    /// A bit for each path whose closing association may still carry out a command of it.
    unsettled: u32,
    /// Until then an association that is closed may.
    settles: Timestamp,
    not_before: Timestamp,
    attempts: u8,
    /// A command of it was lost, and it has not completed since.
    was_lost: bool,
    /// It waits for overlapping changes that were lost.
    behind: bool,
}

impl Trouble {
    pub(super) const fn is_any(&self) -> bool {
        self.again || self.was_lost || self.behind
    }

    const fn is_unknown(&self, now: Timestamp) -> bool {
        self.unsettled != 0 || self.settles.0 > now.0
    }
}

/// The end of a command.
enum Verdict {
    Is(Result<(), IoError>),
    Again {
        attempts_max: u8,
    },
    /// Unknown whether it was or will be carried out.
    Unknown,
}

impl Live {
    /// Its error is the answer, and nothing of it is to be sent any more.
    fn has_failed(&self) -> bool {
        self.result.is_err() && !self.writes_zeroes_instead()
    }

    fn writes_zeroes_instead(&self) -> bool {
        self.starts_over && self.result == Err(IoError::Unsupported)
    }
}

fn judge(outcome: Outcome, changes: bool, policy: LostChanges) -> Verdict {
    let status = match outcome {
        Outcome::Completed(completion) => completion.status,
        Outcome::DataDigest | Outcome::Short(_) => Status::TRANSIENT_TRANSPORT_ERROR,
        Outcome::Lost if !changes || policy == LostChanges::AtOnce => {
            return Verdict::Again { attempts_max: u8::MAX };
        }
        Outcome::Lost if policy == LostChanges::Fail => {
            return Verdict::Is(Err(IoError::ConnectionLost));
        }
        Outcome::Lost => return Verdict::Unknown,
    };
    const PASSING: [Status; 5] = [
        Status::ABORT_REQUESTED,
        Status::ABORTED_QUEUE_DELETED,
        Status::NAMESPACE_NOT_READY,
        Status::COMMAND_INTERRUPTED,
        Status::TRANSIENT_TRANSPORT_ERROR,
    ];
    if status.is_success() {
        Verdict::Is(Ok(()))
    } else if status.forbids_retry() {
        Verdict::Is(Err(answered(status)))
    } else if status.is_path_related() {
        Verdict::Again { attempts_max: PATH_ATTEMPTS_MAX }
    } else if PASSING.iter().any(|passing| status.is(*passing)) {
        Verdict::Again { attempts_max: ATTEMPTS_MAX }
    } else {
        Verdict::Is(Err(answered(status)))
    }
}

/// The error of a command that was answered, so that nothing of it is on its way.
fn answered(status: Status) -> IoError {
    match io_error(status) {
        IoError::ConnectionLost => UNREACHABLE,
        error => error,
    }
}

/// The error when all attempts are used up. None of them does anything any more.
fn exhausted(outcome: Outcome) -> IoError {
    match outcome {
        Outcome::Completed(completion) if completion.status.is_path_related() => UNREACHABLE,
        Outcome::Completed(completion) if completion.status.is(Status::ABORT_REQUESTED) => {
            IoError::TimedOut
        }
        _ => IoError::Media,
    }
}

impl Requests {
    /// As [`new`](Self::new), for requests that go over several paths or one that comes back.
    pub(crate) fn over_paths(
        geometry: block_io::Geometry,
        limits: Limits,
        depth: usize,
        number: u32,
        policy: LostChanges,
    ) -> Self {
        let waiting = VecDeque::with_capacity(depth.max(1));
        let now = Timestamp(0);
        let retry = Retry { number, policy, now, waiting, doubtful: 0 };
        Self { retry: Some(retry), ..Self::new(geometry, limits, depth) }
    }

    /// What becomes of changes that are lost from now on.
    pub(crate) fn set_policy(&mut self, policy: LostChanges) {
        if let Some(retry) = &mut self.retry {
            retry.policy = policy;
        }
    }

    pub(super) fn token(&self, index: u32) -> u64 {
        let number = self.retry.as_ref().map_or(0, |retry| retry.number);
        u64::from(number) << NUMBER_SHIFT | u64::from(index)
    }

    /// Requests that wait for a lost association to be settled, for a pause or for each other.
    pub(crate) fn waiting(&self) -> usize {
        self.retry.as_ref().map_or(0, |retry| retry.waiting.len())
    }

    /// Requests whose next command has no way yet.
    pub(crate) fn unsent(&self) -> usize {
        self.to_send.len()
    }

    /// A command has ended on the path number `path`, below 32.
    pub(crate) fn finish_on(&mut self, path: u32, now: Timestamp, finished: Finished) {
        let index = finished.token as u32;
        let (Some(Some(live)), Some(retry)) = (self.slots.get_mut(index as usize), &mut self.retry)
        else {
            return;
        };
        live.outstanding -= 1;
        retry.now = now;
        let changes = live.request.operation.changes_content();
        let trouble = &mut live.trouble;
        let attempts_max = match judge(finished.outcome, changes, retry.policy) {
            Verdict::Is(result) => return self.take_result(index, result),
            Verdict::Again { attempts_max } => attempts_max,
            Verdict::Unknown => {
                trouble.unsettled |= 1 << path;
                if !std::mem::replace(&mut trouble.was_lost, true) {
                    retry.doubtful += 1;
                }
                u8::MAX
            }
        };
        trouble.again = true;
        if attempts_max != u8::MAX {
            trouble.attempts = trouble.attempts.saturating_add(1);
            trouble.not_before = now + pause(trouble.attempts);
            if trouble.attempts >= attempts_max {
                live.result = live.result.and(Err(exhausted(finished.outcome)));
            }
        }
        if live.sent < live.length() {
            self.to_send.retain(|waiting| *waiting != index);
        }
        self.complete_if_done(index);
    }

    /// Whether a new request has to wait behind a change that was lost; then it does.
    pub(super) fn waits_behind(&mut self, index: u32) -> bool {
        let is_any = self.retry.as_ref().is_some_and(|retry| retry.doubtful > 0);
        if !is_any || !self.is_behind(index) {
            return false;
        }
        if let (Some(live), Some(retry)) = (&mut self.slots[index as usize], &mut self.retry) {
            live.trouble.behind = true;
            retry.waiting.push_back(index);
        }
        true
    }

    /// Whether a change that was lost overlaps this one.
    fn is_behind(&self, index: u32) -> bool {
        let Some(live) = &self.slots[index as usize] else {
            return false;
        };
        let extent = live.request.extent;
        let overlaps = |(other, slot): (usize, &Option<Live>)| {
            other != index as usize
                && slot.as_ref().is_some_and(|other| {
                    other.trouble.was_lost && other.request.extent.overlaps(extent)
                })
        };
        live.request.operation.changes_content() && self.slots.iter().enumerate().any(overlaps)
    }

    /// A request in trouble has no command in flight: it waits, is sent again, or completes.
    pub(super) fn settle(&mut self, index: u32) {
        let (Some(live), Some(retry)) = (&mut self.slots[index as usize], &mut self.retry) else {
            return;
        };
        let is_unknown = live.trouble.is_unknown(retry.now);
        let has_ended = live.has_failed() || !live.trouble.again && !live.trouble.behind;
        if self.lost && (!has_ended || is_unknown) {
            let error = if is_unknown { IoError::ConnectionLost } else { UNREACHABLE };
            live.result = Err(error);
            self.complete_troubled(index);
        } else if is_unknown || !has_ended {
            if !retry.waiting.contains(&index) {
                retry.waiting.push_back(index);
            }
        } else if live.writes_zeroes_instead() && !self.lost {
            live.start_over();
            self.to_send.push_back(index);
        } else if !live.wants_more() {
            self.complete_troubled(index);
        }
    }

    fn complete_troubled(&mut self, index: u32) {
        if let (Some(live), Some(retry)) = (&self.slots[index as usize], &mut self.retry) {
            retry.doubtful -= u32::from(live.trouble.was_lost);
            retry.waiting.retain(|waiting| *waiting != index);
        }
        self.complete(index);
    }

    /// The association on the path number `path` is closed. What it may still carry out it has
    /// carried out at `settles`; absent: nobody knows when, and such requests fail.
    pub(crate) fn closed(&mut self, path: u32, settles: Option<Timestamp>) {
        for index in 0..self.slots.len() {
            let Some(live) = &mut self.slots[index] else { continue };
            let trouble = &mut live.trouble;
            if trouble.unsettled & 1 << path == 0 {
                continue;
            }
            trouble.unsettled &= !(1 << path);
            match settles {
                Some(settles) => trouble.settles = trouble.settles.max(settles),
                None => live.result = Err(IoError::ConnectionLost),
            }
            if live.outstanding == 0 {
                self.settle(index as u32);
            }
        }
    }

    /// Sends on what has waited long enough; whether there was anything.
    pub(crate) fn release(&mut self, now: Timestamp) -> bool {
        let Some(retry) = &mut self.retry else {
            return false;
        };
        retry.now = now;
        let mut progress = false;
        let mut at = 0;
        while let Some(&index) = self.retry.as_ref().and_then(|retry| retry.waiting.get(at)) {
            if !self.may_go_on(index, now) {
                at += 1;
                continue;
            }
            progress = true;
            let (Some(live), Some(retry)) = (&mut self.slots[index as usize], &mut self.retry)
            else {
                break;
            };
            retry.waiting.remove(at);
            if let Some(error) = self.refusal {
                live.result = live.result.and(Err(error));
            }
            if live.has_failed() {
                self.complete_troubled(index);
                continue;
            }
            (live.trouble.again, live.trouble.behind) = (false, false);
            live.start_over();
            self.to_send.push_back(index);
        }
        progress
    }

    fn may_go_on(&self, index: u32, now: Timestamp) -> bool {
        let Some(live) = &self.slots[index as usize] else {
            return true;
        };
        let trouble = &live.trouble;
        live.outstanding == 0
            && !trouble.is_unknown(now)
            && (trouble.not_before <= now || live.has_failed())
            && !(trouble.behind && self.is_behind(index))
    }

    /// When [`release`](Self::release) is needed next, if nothing else happens.
    pub(crate) fn next_release(&self) -> Option<Timestamp> {
        let retry = self.retry.as_ref()?;
        let waiting = retry.waiting.iter().filter_map(|index| self.slots[*index as usize].as_ref());
        let due = waiting.filter(|live| live.trouble.unsettled == 0 && !live.trouble.behind);
        due.map(|live| live.trouble.settles.max(live.trouble.not_before)).min()
    }

    /// With `unreachable`, everything that waits fails now, what is in flight when it is lost, and
    /// what comes later at once; without it, requests are taken and kept again.
    pub(crate) fn set_unreachable(&mut self, unreachable: bool, now: Timestamp) {
        self.lost = unreachable;
        let Some(retry) = self.retry.as_mut().filter(|_| unreachable) else {
            return;
        };
        retry.now = now;
        while let Some(index) = self.retry.as_mut().and_then(|retry| retry.waiting.pop_front()) {
            self.settle(index);
        }
        while let Some(index) = self.to_send.pop_front() {
            let Some(live) = &mut self.slots[index as usize] else { continue };
            live.result = live.result.and(Err(UNREACHABLE));
            if live.outstanding == 0 {
                self.settle(index);
            }
        }
    }
}

fn pause(attempts: u8) -> Duration {
    match attempts {
        0 | 1 => Duration::ZERO,
        attempts => (PAUSE * (1 << u32::from(attempts - 2).min(10))).min(PAUSE_MAX),
    }
}
