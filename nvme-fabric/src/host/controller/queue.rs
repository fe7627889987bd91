//! A queue of an association, and the requests and commands of whoever uses it.

use block_io::{Completion as RequestCompletion, DeviceError, Request};

use super::bring_up::Step;
use super::{Controller, QueueIndex, token};
use crate::host::commands::{self as owner_commands, Commands};
use crate::host::connection::{Connection, Finished};
use crate::host::requests::Requests;

/// How far a queue's stream is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stream {
    NotWanted,
    Wanted,
    Opening,
    Open,
}

#[derive(Debug)]
pub(super) struct Queue {
    pub(super) stream: Stream,
    pub(super) connection: Option<Connection>,
    /// Requests of whoever has opened this queue.
    pub(super) requests: Option<Requests>,
    /// Commands beside requests.
    pub(super) commands: Option<Commands>,
    /// Whoever opened it has gone.
    pub(super) is_abandoned: bool,
}

impl Queue {
    pub(super) const fn new() -> Self {
        let stream = Stream::NotWanted;
        Self { stream, connection: None, requests: None, commands: None, is_abandoned: false }
    }

    fn forget_abandoned(&mut self) {
        if let Some(requests) = self.requests.as_mut().filter(|_| self.is_abandoned) {
            requests.discard_completions();
            if requests.in_flight() == 0 {
                self.requests = None;
                self.is_abandoned = false;
            }
        }
    }
}

impl Controller {
    /// From now on the owner submits commands to the connections of the I/O queues himself, once
    /// the association is up, and takes what has finished there.
    pub fn lend_queues(&mut self) {
        self.lends_queues = true;
    }

    /// Gives a command back that finished on a lent queue but is this association's own; it is the
    /// lender's when it is returned.
    pub(in crate::host) fn take_own(&mut self, finished: Finished) -> Option<Finished> {
        if finished.token == token::AUTHENTICATE {
            self.take_authentication(finished.outcome);
            return None;
        }
        // The Connect of a queue that was lost with its association: no request's.
        (finished.token != token::BRING_UP).then_some(finished)
    }

    /// Takes the use of an I/O queue that nobody uses, for at most `depth` requests at a time.
    ///
    /// # Errors
    /// When the association is not up, or every I/O queue is in use.
    pub fn open_queue(&mut self, depth: usize) -> Result<QueueIndex, DeviceError> {
        let address = &self.options.address;
        let Some(geometry) = self.identity.geometry.filter(|_| self.is_up()) else {
            return Err(DeviceError::new(format!("{address}: the association is not up")));
        };
        let limits = self.limits(&geometry);
        let unused = |queue: &Queue| queue.requests.is_none();
        let Some(index) = (1..self.queues.len()).find(|index| unused(&self.queues[*index])) else {
            let count = self.queues.len() - 1;
            return Err(DeviceError::new(format!(
                "{address}: each of the {count} I/O queues is in use; ask for more queues"
            )));
        };
        let mut requests = Requests::new(geometry, limits, depth);
        requests.refuse(self.events.refusal());
        self.queues[index].requests = Some(requests);
        Ok(index as QueueIndex)
    }

    /// Gives the use of a queue back. Requests still in flight end without anybody being told,
    /// and only then is the queue free.
    pub fn close_queue(&mut self, queue: QueueIndex) {
        if let Some(place) = self.queues.get_mut(usize::from(queue)) {
            place.is_abandoned = true;
            place.forget_abandoned();
        }
    }

    /// Takes a request on a queue that [`open_queue`](Self::open_queue) gave.
    ///
    /// # Errors
    /// The request, when the queue is full.
    pub fn submit(&mut self, queue: QueueIndex, request: Request) -> Result<(), Request> {
        match self.requests(queue) {
            Some(requests) => requests.submit(request),
            None => Err(request),
        }
    }

    /// The requests of a queue that is in use.
    pub fn requests(&mut self, queue: QueueIndex) -> Option<&mut Requests> {
        self.queues.get_mut(usize::from(queue))?.requests.as_mut()
    }

    /// Appends the finished requests of a queue; whether there were any.
    pub fn take_completions(
        &mut self,
        queue: QueueIndex,
        completions: &mut Vec<RequestCompletion>,
    ) -> bool {
        self.requests(queue).is_some_and(|requests| requests.take_completions(completions))
    }

    /// Hands each finished command of a queue to whom it belongs.
    pub(super) fn take_finished(&mut self, queue: QueueIndex) -> bool {
        let mut progress = false;
        let is_ours =
            matches!(self.step, Step::Connect(own) | Step::Authenticate(own) if own == queue);
        if self.lends_queues && queue != 0 && !is_ours {
            return false;
        }
        while let Some(finished) = self.connection(queue).and_then(Connection::next_finished) {
            progress = true;
            match finished {
                Finished { token: token::AUTHENTICATE, outcome, .. } => {
                    self.take_authentication(outcome);
                }
                _ if queue == 0 => self.take_admin(finished),
                Finished { outcome, .. } if self.step == Step::Connect(queue) => {
                    self.take_bring_up(outcome);
                }
                Finished { token: token::BRING_UP, .. } => {}
                finished if finished.token & owner_commands::TOKEN != 0 => {
                    if let Some(commands) = &mut self.queues[usize::from(queue)].commands {
                        commands.finish(finished);
                    }
                }
                finished => {
                    if let Some(requests) = self.requests(queue) {
                        requests.finish(finished);
                    }
                }
            }
        }
        progress
    }

    fn take_admin(&mut self, finished: Finished) {
        match finished.token {
            token::BRING_UP => self.take_bring_up(finished.outcome),
            token::KEEP_ALIVE => self.take_keep_alive(finished.outcome),
            token::SHUTDOWN => self.take_shutdown(finished.outcome),
            token::OWNER => self.answer = Some(finished.outcome),
            token::ABORT => self.aborting = self.aborting.saturating_sub(1),
            token::ACCESS_LOG => self.take_access_log(finished.outcome),
            _ => self.take_event(finished),
        }
    }

    pub(super) fn send_requests(&mut self) -> bool {
        let mut progress = false;
        if self.step != Step::Up {
            return false;
        }
        for queue in &mut self.queues {
            if let (Some(connection), Some(requests)) = (&mut queue.connection, &mut queue.requests)
            {
                progress |= requests.send(connection, &self.pool);
            }
            if let (Some(connection), Some(commands)) = (&mut queue.connection, &mut queue.commands)
            {
                progress |= commands.send(connection, &self.pool);
            }
            if queue.is_abandoned {
                queue.forget_abandoned();
            }
        }
        progress
    }
}
