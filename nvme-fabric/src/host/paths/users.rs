//! What the users of the queues do: requests in, completions out, and leaving.

use block_io::{Completion, DeviceError, Request};

use super::{Paths, Queue};
use crate::host::requests::{Limits, Requests};

impl Paths {
    /// Opens a queue for at most `depth` requests at a time, the waiting ones included.
    ///
    /// # Errors
    /// Before a path has been up.
    pub fn open_queue(&mut self, depth: usize) -> Result<usize, DeviceError> {
        let Some(geometry) = self.geometry else {
            let subsystem = &self.subsystem;
            return Err(DeviceError::new(format!("{subsystem}: no path has been up yet")));
        };
        let number = self.queues.iter().position(Option::is_none).unwrap_or(self.queues.len());
        // Each path has limits of its own, which go with each command.
        let block_shift = geometry.block_size.trailing_zeros();
        let timeout = self.settings.command_timeout;
        let limits = Limits::unknown(self.namespace_id, block_shift, timeout);
        let policy = self.settings.lost_changes;
        let mut requests = Requests::over_paths(geometry, limits, depth, number as u32, policy);
        requests.refuse(self.refusal);
        requests.set_unreachable(self.unreachable, self.now);
        if number == self.queues.len() {
            self.queues.push(None);
        }
        self.queues[number] = Some(Queue { requests, is_abandoned: false });
        Ok(number)
    }

    /// Gives a queue back. Requests still in flight end without anybody being told.
    pub fn close_queue(&mut self, queue: usize) {
        if let Some(queue) = self.queues.get_mut(queue).and_then(Option::as_mut) {
            queue.is_abandoned = true;
        }
        self.forget_abandoned();
    }

    /// The requests of a queue that is in use.
    pub fn requests(&mut self, queue: usize) -> Option<&mut Requests> {
        self.queues.get_mut(queue)?.as_mut().map(|queue| &mut queue.requests)
    }

    /// Takes a request on a queue that [`open_queue`](Self::open_queue) gave.
    ///
    /// # Errors
    /// The request, when the queue is full.
    pub fn submit(&mut self, queue: usize, request: Request) -> Result<(), Request> {
        match self.requests(queue) {
            Some(requests) => requests.submit(request),
            None => Err(request),
        }
    }

    /// Appends the finished requests of a queue; whether there were any.
    pub fn take_completions(&mut self, queue: usize, completions: &mut Vec<Completion>) -> bool {
        self.requests(queue).is_some_and(|requests| requests.take_completions(completions))
    }

    /// Leaves: every path is shut down, cleanly where it is up, and requests that wait fail now.
    /// [`is_over`](Self::is_over) tells the end, which no silent peer delays beyond two seconds.
    pub fn shut_down(&mut self) {
        self.leave(true);
    }

    /// Leaves at once, without a word to anybody.
    pub fn abandon(&mut self) {
        self.leave(false);
    }

    fn leave(&mut self, cleanly: bool) {
        self.is_ending = true;
        for path in &mut self.paths {
            path.leave(cleanly, self.now);
        }
        self.choose_candidates();
        self.set_unreachable(true);
    }
}
