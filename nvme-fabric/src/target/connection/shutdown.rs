//! How a connection ends: by a fault of the host's, by the host, by time, or with its controller;
//! and the controller's own shutdown, which flushes first.

use block_io::{Request, RequestId, Timestamp};

use super::commands::SHUTDOWN_ID;
use super::{Connection, Phase, Submission, TERMINATION_TIMEOUT};
use crate::error::ConnectionError;
use crate::pdu::{PduError, Side};
use crate::spec::property::ShutdownStatus;
use crate::target::controller::Service;
use crate::target::{NamespaceKey, Target};

/// Bytes of the host's that are dropped at a time while terminating.
const DISCARD_LENGTH: usize = 4096;

impl Connection {
    /// Tells the host what it did wrong and waits for it to close. NVMe/TCP
    /// Transport, "Error Handling".
    pub(super) fn terminate(&mut self, target: &mut Target, error: PduError, now: Timestamp) {
        self.encoder.push_termination(Side::Controller, &error, self.decoder.last_header());
        self.leave(target);
        // From a queue it becomes one that is none, of which there may be so many.
        self.count_unconnected(target);
        self.discard();
        self.phase = Phase::Terminating;
        self.phase_deadline = Some(now + TERMINATION_TIMEOUT);
        self.ended = Some(ConnectionError::Protocol(error));
    }

    /// What the host still sends goes nowhere.
    pub(super) fn discard(&mut self) {
        self.discarded = Some(self.pool.allocate(DISCARD_LENGTH));
    }

    /// Ends at once.
    pub(super) fn finish(&mut self, target: &mut Target, reason: ConnectionError) {
        if self.phase == Phase::Finished {
            return;
        }
        self.leave(target);
        self.encoder.clear();
        self.discarded = None;
        self.phase = Phase::Finished;
        self.phase_deadline = None;
        self.stall_deadline = None;
        self.leave_unconnected(target);
        self.held = 0;
        self.settle(target);
        self.ended.get_or_insert(reason);
    }

    /// Gives up the queue: an admin queue takes its controller along.
    pub(super) fn leave(&mut self, target: &mut Target) {
        self.abandon(target);
        self.waiting.clear();
        self.parked.clear();
        self.keep_alive_deadline = None;
        self.transferring = 0;
        let Some(queue) = self.queue.take() else { return };
        target.usage.queues -= 1;
        if queue.id == 0 {
            target.remove_controller(queue.controller);
        } else if let Some(controller) = target.controller_mut(queue.controller)
            && controller.epoch == queue.epoch
        {
            controller.io_queues[usize::from(queue.id) - 1] = false;
        }
    }

    /// Whether the controller is still there, and for an I/O queue, not reset since.
    pub(super) fn check_association(&mut self, target: &mut Target) -> bool {
        let Some(queue) = &self.queue else { return false };
        let is_current = target
            .controller(queue.controller)
            .is_some_and(|controller| queue.id == 0 || controller.epoch == queue.epoch);
        if !is_current {
            self.finish(target, ConnectionError::ShutDown);
        }
        !is_current
    }

    /// Ends what has taken too long.
    pub(super) fn check_deadlines(&mut self, target: &mut Target, now: Timestamp) -> bool {
        let is_finished = self.phase == Phase::Finished;
        if let Some(deadline) = self.phase_deadline
            && now >= deadline
        {
            let settings = &target.settings;
            let (what, timeout) = match self.phase {
                Phase::Initialize => {
                    ("the connection, which awaits ICReq,", settings.handshake_timeout)
                }
                Phase::Queue => {
                    ("Connect, after which authentication comes,", settings.authentication_timeout)
                }
                _ => ("ICResp, after which Connect comes,", settings.handshake_timeout),
            };
            self.finish(target, ConnectionError::TimedOut(what.to_owned(), timeout));
        }
        self.check_stall(target, now);
        self.keep_alive_deadline = None;
        if let Some(queue) = &self.queue {
            let key = queue.controller;
            let controller = target.controller(key);
            let deadline = controller.and_then(|controller| controller.keep_alive_deadline());
            let timeout = controller.and_then(|controller| controller.keep_alive);
            self.keep_alive_deadline = deadline;
            if deadline.is_some_and(|deadline| now >= deadline) {
                // The association is over, all its queues with it. Base §3.9.
                target.remove_controller(key);
                let what = "a sign of life was needed and keep alive".to_owned();
                self.finish(target, ConnectionError::TimedOut(what, timeout.unwrap_or_default()));
            }
        }
        is_finished != (self.phase == Phase::Finished)
    }

    /// A normal shutdown of the controller makes what was written durable first. Base §3.6.
    pub(super) fn advance_shutdown(&mut self, target: &mut Target) -> bool {
        let Some(queue) = self.queue.filter(|queue| queue.id == 0) else { return false };
        let Service::Subsystem(subsystem) = queue.service else { return false };
        let namespaces = target.subsystems[subsystem].namespaces();
        let cached: Vec<usize> = match target.controller(queue.controller) {
            Some(controller) if controller.flush_wanted => namespaces
                .iter()
                .filter(|(_, namespace)| namespace.geometry().volatile_cache)
                .map(|(place, _)| place)
                .collect(),
            _ => Vec::new(),
        };
        let Some(controller) = target.controller_mut(queue.controller) else { return false };
        let mut progress = false;
        if std::mem::take(&mut controller.flush_wanted) {
            progress = true;
            self.shutdown_flushes = Some(cached.len());
            for namespace in cached {
                let key = NamespaceKey { subsystem, namespace };
                let request = Request::flush(RequestId(SHUTDOWN_ID + namespace as u64));
                self.outbox.push_back(Submission { namespace: key, request });
            }
        }
        if self.shutdown_flushes == Some(0) {
            progress = true;
            self.shutdown_flushes = None;
            if controller.status.shutdown == ShutdownStatus::UnderWay {
                controller.status.shutdown = ShutdownStatus::Complete;
            }
        }
        progress
    }
}
