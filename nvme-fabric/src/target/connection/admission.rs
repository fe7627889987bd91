//! From a command with all its data to its requests: whether its host may, and whether its blocks
//! are free.
//!
//! ```text
//!   run ──reservation──▶ extents ──free──▶ begin ──requests──▶ device
//!              │            └──taken──▶ Blocked ──poll──▶ reservation ──▶ begin
//!              └──▶ Reservation Conflict
//! ```
//! Both questions are asked and answered in one poll, which has the target to itself: a
//! reservation that is taken later finds the command among its namespace's extents.

use block_io::{Completion, Request, RequestId};

use super::{Connection, Stage, Submission};
use crate::spec::status::Status;
use crate::target::io::{Claim, Failure, Next, Pieces, Sequence, Ticket};
use crate::target::reservation::Access;
use crate::target::{NamespaceKey, Target};

/// What a command does once it may.
#[derive(Debug)]
pub(super) enum Job {
    /// One request; its id is the command's place.
    Request(Request),
    /// Several at a time.
    Pieces(Pieces),
    /// Several, one after the other. Boxed, for it is large, and only rare commands have one.
    Sequence(Box<Sequence>),
}

/// What a command may be allowed.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) namespace: NamespaceKey,
    pub(super) access: Access,
    /// The blocks that it is about.
    pub(super) claim: Option<Claim>,
    /// No other command may be at them at the same time.
    pub(super) is_alone: bool,
}

/// A command that waits for others to leave its blocks.
#[derive(Debug)]
pub(super) struct Blocked {
    namespace: NamespaceKey,
    access: Access,
    job: Job,
}

impl Connection {
    /// Lets the command at `place` do its job, now or when its blocks are free.
    pub(super) fn admit(&mut self, target: &mut Target, place: u16, entry: Entry, job: Job) {
        let Some(host) = self.queue.map(|queue| queue.host) else { return };
        let Entry { namespace: key, access, claim, is_alone } = entry;
        if let Some(status) = target.access_failure(key) {
            return self.refuse(place, status);
        }
        let Some(namespace) = target.namespace_mut(key) else {
            return self.refuse(place, Status::INVALID_NAMESPACE.do_not_retry());
        };
        if !namespace.reservation.allows(host, access) {
            return self.refuse_by_reservation(target, place, key);
        }
        if let Some(claim) = claim {
            let ticket = namespace.extents.enter(host, claim, is_alone);
            let may_run = namespace.extents.may_run(ticket);
            let command = self.command_mut(place);
            command.ticket = Some((key, ticket));
            if !may_run {
                command.stage = Stage::Blocked(Box::new(Blocked { namespace: key, access, job }));
                self.blocked.push_back(place);
                return;
            }
        }
        self.begin(place, key, job);
    }

    /// Of a fused pair, the half that the reservation forbids fails with it.
    fn refuse_by_reservation(&mut self, target: &Target, place: u16, key: NamespaceKey) {
        let status = Status::RESERVATION_CONFLICT.do_not_retry();
        let host = self.queue.map(|queue| queue.host);
        let may_read = target
            .namespace(key)
            .zip(host)
            .is_some_and(|(namespace, host)| namespace.reservation.allows(host, Access::Read));
        match self.command_mut(place).partner {
            Some(first) if !may_read => {
                self.fail_pair(first, place, status, Status::ABORTED_FAILED_FUSED);
            }
            _ => self.refuse(place, status),
        }
    }

    /// Begins commands whose blocks have become free.
    pub(super) fn begin_blocked(&mut self, target: &mut Target) -> bool {
        let mut progress = false;
        let Some(host) = self.queue.map(|queue| queue.host) else { return false };
        // Those that stay go round once.
        for _ in 0..self.blocked.len() {
            let Some(place) = self.blocked.pop_front() else { break };
            let command = self.command_mut(place);
            let Some((key, ticket)) = command.ticket else { continue };
            let namespace = target.namespace(key);
            if namespace.is_some_and(|namespace| !namespace.extents.may_run(ticket)) {
                self.blocked.push_back(place);
                continue;
            }
            progress = true;
            let stage = std::mem::replace(&mut command.stage, Stage::Device);
            let Stage::Blocked(blocked) = stage else { continue };
            let Blocked { namespace: key, access, job } = *blocked;
            // It may have become inaccessible while the command waited.
            let inaccessible = target.access_failure(key);
            match namespace {
                Some(_) if let Some(status) = inaccessible => self.refuse(place, status),
                Some(namespace) if !namespace.reservation.allows(host, access) => {
                    self.refuse_by_reservation(target, place, key);
                }
                Some(_) => self.begin(place, key, job),
                None => self.refuse(place, Status::INVALID_NAMESPACE.do_not_retry()),
            }
        }
        progress
    }

    fn begin(&mut self, place: u16, namespace: NamespaceKey, job: Job) {
        match job {
            Job::Request(request) => {
                self.command_mut(place).stage = Stage::Device;
                self.ask(place, namespace, request);
            }
            Job::Pieces(pieces) => self.start_pieces(place, namespace, pieces),
            Job::Sequence(sequence) => {
                self.command_mut(place).stage = Stage::Sequence(namespace, sequence);
                self.continue_sequence(place);
            }
        }
    }

    /// Hands a request of the command at `place` to the device.
    pub(super) fn ask(&mut self, place: u16, namespace: NamespaceKey, request: Request) {
        self.command_mut(place).at_device += 1;
        self.outbox.push_back(Submission { namespace, request });
    }

    /// Asks for the next step, or completes the command after its last one.
    fn continue_sequence(&mut self, place: u16) {
        let Self { commands, pool, .. } = self;
        let Some(Some(command)) = commands.get_mut(usize::from(place)) else { return };
        let Stage::Sequence(namespace, sequence) = &mut command.stage else { return };
        let namespace = *namespace;
        match sequence.next(pool) {
            Next::Ask { operation, extent, buffer, force_unit_access } => {
                let request = Request {
                    operation,
                    ..Request::read(RequestId(place.into()), extent.offset, buffer)
                };
                self.ask(place, namespace, request.with_force_unit_access(force_unit_access));
            }
            Next::Done => match command.partner.take() {
                Some(first) => self.succeed_pair(first, place),
                None => self.succeed(place, 0),
            },
        }
    }

    /// The device has answered a step of a sequence.
    pub(super) fn complete_step(&mut self, place: u16, completion: Completion) {
        let result = completion.result;
        // The sequence sees that it has its memory back.
        drop(completion);
        let command = self.command_mut(place);
        let Stage::Sequence(_, sequence) = &mut command.stage else { return };
        let outcome = sequence.completed(result);
        let (result, has_written) = (sequence.result(), sequence.has_written());
        match (outcome, command.doomed.take()) {
            (Err(failure), _) => self.fail_sequence(place, failure, result),
            (Ok(()), Some(status)) if !has_written || command.partner.is_none() => {
                self.refuse(place, status);
            }
            (Ok(()), _) => self.continue_sequence(place),
        }
    }

    fn fail_sequence(&mut self, place: u16, failure: Failure, result: u64) {
        let status = failure.status();
        match (self.command_mut(place).partner, failure) {
            (Some(first), Failure::Write(_)) => {
                self.fail_pair(first, place, Status::ABORTED_FAILED_FUSED, status);
            }
            (Some(first), _) => {
                self.fail_pair(first, place, status, Status::ABORTED_FAILED_FUSED);
            }
            (None, _) => self.respond(place, result, status),
        }
    }

    /// The connection has ended, and one request of the command at `place` is not at the device any
    /// more.
    pub(super) fn returned(&mut self, place: u16) {
        if let Some(Some(command)) = self.commands.get_mut(usize::from(place)) {
            command.at_device = command.at_device.saturating_sub(1);
            if command.at_device == 0 {
                self.released.extend(command.ticket.take());
            }
        }
    }

    /// Gives back the extents of what has ended; for an ended connection, of what is not at a
    /// device.
    pub(super) fn release_extents(&mut self, target: &mut Target) {
        for (key, ticket) in self.released.drain(..) {
            if let Some(namespace) = target.namespace_mut(key) {
                namespace.extents.leave(ticket);
            }
        }
    }

    /// What the connection gives up with its queue: nothing in the outbox will be asked for.
    pub(super) fn abandon(&mut self, target: &mut Target) {
        while let Some(submission) = self.outbox.pop_front() {
            if submission.request.id.0 < super::commands::SHUTDOWN_ID
                && let Some(Some(command)) = self.commands.get_mut(submission.request.id.0 as usize)
            {
                command.at_device = command.at_device.saturating_sub(1);
            }
        }
        self.blocked.clear();
        self.pending.clear();
        self.first_half = None;
        let idle = self.commands.iter_mut().flatten().filter(|command| command.at_device == 0);
        let tickets: Vec<(NamespaceKey, Ticket)> =
            idle.filter_map(|command| command.ticket.take()).collect();
        self.released.extend(tickets);
        self.release_extents(target);
    }
}
