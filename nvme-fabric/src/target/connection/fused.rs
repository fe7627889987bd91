//! Fused pairs: a compare and, right behind it on the same queue, a write. Base §3.4.2.
//!
//! ```text
//!   FUSE 01b ──▶ FirstHalf ──FUSE 10b──▶ memory for both ──R2Ts──▶ both have their data ──▶ admit
//!                    └──anything else──▶ Command Aborted due to Missing Fused Command
//! ```
//! From then on the second half's place does the work, alone with its blocks, and both complete
//! together, the first half first. When one fails the other one is aborted.

use super::{Connection, Stage};
use crate::spec::command::nvm::OPCODE_COMPARE;
use crate::spec::command::{self, FUSE_FIRST, FUSE_SECOND};
use crate::spec::status::Status;
use crate::target::Target;
use crate::target::controller::Service;
use crate::target::io::{self, Claim, Plan, Sequence, Task};
use crate::target::reservation::Access;

use super::admission::{Entry, Job};

const FAILED: Status = Status::ABORTED_FAILED_FUSED;
const MISSING: Status = Status::ABORTED_MISSING_FUSED;

/// What the last command was, when it was the first half of a pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FirstHalf {
    /// It waits at this place.
    Waiting(u16),
    /// It has failed, and so must the second half.
    Failed,
}

impl Connection {
    /// Looks at the fusing of the command at `place`, which has arrived with its capsule's data.
    /// Whether the command is one of its own, to be executed as ever.
    pub(super) fn is_single(&mut self, target: &mut Target, place: u16) -> bool {
        let command = self.command_mut(place);
        let (fuse, digest_failed) = (command::fuse(&command.entry), command.digest_failed);
        let opcode = command::opcode(&command.entry);
        let first = self.first_half.take();
        match (first, fuse) {
            (Some(FirstHalf::Waiting(first)), FUSE_SECOND) => {
                self.start_pair(target, first, place, digest_failed);
                return false;
            }
            // The second half is not there, or not the next command.
            (Some(FirstHalf::Waiting(first)), _) => self.fail(first, MISSING),
            (Some(FirstHalf::Failed), FUSE_SECOND) => {
                self.fail(place, FAILED);
                return false;
            }
            (Some(FirstHalf::Failed) | None, _) => {}
        }
        match fuse {
            0 => true,
            FUSE_FIRST if digest_failed => {
                self.first_half = Some(FirstHalf::Failed);
                self.fail(place, Status::TRANSIENT_TRANSPORT_ERROR);
                false
            }
            // The only pair there is begins with a compare. NVM §3.1.
            FUSE_FIRST if opcode != OPCODE_COMPARE => {
                self.first_half = Some(FirstHalf::Failed);
                self.fail(place, Status::INVALID_FIELD.do_not_retry());
                false
            }
            FUSE_FIRST => {
                self.first_half = Some(FirstHalf::Waiting(place));
                self.command_mut(place).stage = Stage::Half;
                false
            }
            FUSE_SECOND => {
                self.fail(place, MISSING);
                false
            }
            _ => {
                self.fail(place, Status::INVALID_FIELD.do_not_retry());
                false
            }
        }
    }

    fn start_pair(&mut self, target: &mut Target, first: u16, second: u16, digest_failed: bool) {
        if digest_failed {
            return self.fail_pair(first, second, FAILED, Status::TRANSIENT_TRANSPORT_ERROR);
        }
        let Some(Service::Subsystem(subsystem)) = self.queue.map(|queue| queue.service) else {
            return self.fail_pair(first, second, FAILED, Status::INVALID_OPCODE.do_not_retry());
        };
        let mut half = |place: u16| {
            let command = self.command_mut(place);
            let mut entry = command.entry;
            command::set_fuse(&mut entry, 0);
            (entry, command.capsule_length())
        };
        let ((compare, compare_data), (write, write_data)) = (half(first), half(second));
        let planned = io::plan_pair(
            &target.subsystems[subsystem],
            (first, &compare, compare_data),
            (&write, write_data),
        );
        match planned {
            Err((one, other)) => self.fail_pair(first, second, one, other),
            Ok((_, plan)) => {
                self.command_mut(first).partner = Some(second);
                self.command_mut(second).partner = Some(first);
                self.start_io(target, subsystem, second, plan);
            }
        }
    }

    /// There is memory for both halves' data, as far as it did not come in their capsules.
    pub(super) fn start_pair_transfer(&mut self, target: &mut Target, second: u16, plan: Plan) {
        let Task::CompareAndWrite { first, extent, .. } = plan.task else { return };
        let length = extent.length as u32;
        let half = Plan { namespace: plan.namespace, task: Task::FirstHalf { length } };
        if self.command_mut(first).buffer.is_none() {
            self.ask_for_data(first, half, length);
        }
        if self.command_mut(second).buffer.is_none() {
            return self.ask_for_data(second, plan, length);
        }
        self.command_mut(second).stage = Stage::SecondHalf(plan);
        self.run_pair(target, second);
    }

    /// One half of a pair has its data.
    pub(super) fn half_transferred(&mut self, target: &mut Target, place: u16, plan: Plan) {
        let command = self.command_mut(place);
        if let Task::FirstHalf { .. } = plan.task {
            command.stage = Stage::Half;
            if let Some(second) = command.partner {
                self.run_pair(target, second);
            }
        } else {
            command.stage = Stage::SecondHalf(plan);
            self.run_pair(target, place);
        }
    }

    /// Runs the pair whose second half is at `second`, when both halves have their data.
    fn run_pair(&mut self, target: &mut Target, second: u16) {
        let Some(first) = self.command_mut(second).partner else { return };
        if !matches!(self.command_mut(first).stage, Stage::Half) {
            return;
        }
        let compare = self.command_mut(first).buffer.clone();
        let command = self.command_mut(second);
        let Stage::SecondHalf(plan) = &command.stage else { return };
        let Task::CompareAndWrite { extent, force_unit_access, piece, .. } = plan.task else {
            return;
        };
        let namespace = plan.namespace;
        let write = command.buffer.clone();
        let (Some(compare), Some(write)) = (compare, write) else { return };
        let piece = self.pool.allocate(piece as usize);
        let sequence =
            Sequence::compare_and_write(extent, compare, write, force_unit_access, piece);
        let Some(namespace) = self.namespace_key(namespace) else { return };
        let claim = Some(Claim::One(extent));
        let entry = Entry { namespace, access: Access::Write, claim, is_alone: true };
        self.admit(target, second, entry, Job::Sequence(Box::new(sequence)));
    }

    pub(super) fn succeed_pair(&mut self, first: u16, second: u16) {
        self.part(first, second);
        self.succeed(first, 0);
        self.succeed(second, 0);
    }

    /// Fails both halves, each as soon as its data have arrived.
    pub(super) fn fail_pair(&mut self, first: u16, second: u16, one: Status, other: Status) {
        self.part(first, second);
        self.doom(first, one);
        self.doom(second, other);
    }

    fn part(&mut self, first: u16, second: u16) {
        self.command_mut(first).partner = None;
        self.command_mut(second).partner = None;
    }

    /// Fails the command at `place`, and the other half when it is one of a pair.
    pub(super) fn refuse(&mut self, place: u16, status: Status) {
        let command = self.command_mut(place);
        let is_second = command::fuse(&command.entry) == FUSE_SECOND;
        match command.partner {
            Some(first) if is_second => self.fail_pair(first, place, FAILED, status),
            Some(second) => self.fail_pair(place, second, status, FAILED),
            None => self.doom(place, status),
        }
    }

    /// Fails a command that is not at the device. While its data are arriving it keeps its place,
    /// which they name.
    pub(super) fn doom(&mut self, place: u16, status: Status) {
        let command = self.command_mut(place);
        let status = command.doomed.take().unwrap_or(status);
        match command.stage {
            Stage::Transferring(..) => command.doomed = Some(status),
            Stage::Waiting(_) => {
                self.waiting.retain(|waiting| *waiting != place);
                self.fail(place, status);
            }
            Stage::Blocked(_) => {
                self.blocked.retain(|blocked| *blocked != place);
                self.fail(place, status);
            }
            _ => self.fail(place, status),
        }
    }
}
