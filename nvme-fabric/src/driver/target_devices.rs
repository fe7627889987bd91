//! The devices behind a target's namespaces: one queue each, shared by all connections, and what a
//! connection has open of them.
//!
//! ```text
//!   Peer ─ OpenQueues ─┐
//!   Peer ─ OpenQueues ─┴─▶ Devices ─▶ a queue for each namespace
//! ```
//! A connection opens a handle with its first request for a namespace, so that neither connections
//! nor namespaces cost what they do not use. A removed namespace's queue stays until what it was
//! asked has ended.

use block_io::device::shared::SharedQueue;
use block_io::{BlockQueue, Completion, IoError, Timestamp};

use crate::target::{Connection, NamespaceKey, Submission};

pub(super) struct Devices<Queue> {
    serving: Vec<(NamespaceKey, SharedQueue<Queue>)>,
    /// Of namespaces that were removed, with requests in flight.
    leaving: Vec<(NamespaceKey, SharedQueue<Queue>)>,
}

impl<Queue: BlockQueue> Devices<Queue> {
    pub(super) fn new() -> Self {
        Self { serving: Vec::new(), leaving: Vec::new() }
    }

    pub(super) fn add(&mut self, key: NamespaceKey, queue: Queue) {
        self.serving.push((key, SharedQueue::new(queue)));
    }

    /// Lets every device do what it does by itself, used or not: one that is reached over a network
    /// keeps its own association alive and connects again.
    pub(super) fn poll(&mut self, now: Timestamp, completions: &mut Vec<Completion>) -> bool {
        let mut progress = false;
        for (_, queue) in &mut self.serving {
            // Nothing is submitted through these handles, so nothing is completed to them.
            progress |= queue.poll(now, completions);
        }
        progress
    }

    /// Serves the namespaces that `is_removed` says so of no more.
    pub(super) fn remove(&mut self, is_removed: impl Fn(NamespaceKey) -> bool) {
        let mut index = 0;
        while let Some((key, _)) = self.serving.get(index) {
            if is_removed(*key) {
                self.leaving.push(self.serving.swap_remove(index));
            } else {
                index += 1;
            }
        }
    }

    /// Lets go of removed namespaces' queues that no connection has open any more.
    pub(super) fn let_go(&mut self, is_open: impl Fn(NamespaceKey) -> bool) -> bool {
        let before = self.leaving.len();
        self.leaving.retain(|(key, _)| is_open(*key));
        self.leaving.len() != before
    }

    pub(super) fn has(&self, key: NamespaceKey) -> bool {
        self.serving.iter().chain(&self.leaving).any(|(other, _)| *other == key)
    }

    pub(super) fn are_leaving(&self) -> bool {
        !self.leaving.is_empty()
    }

    fn open(&self, key: NamespaceKey) -> Option<SharedQueue<Queue>> {
        self.serving.iter().find(|(other, _)| *other == key).map(|(_, queue)| queue.another())
    }
}

/// A connection's handles.
pub(super) struct OpenQueues<Queue>(Vec<(NamespaceKey, SharedQueue<Queue>)>);

impl<Queue: BlockQueue> OpenQueues<Queue> {
    pub(super) fn new() -> Self {
        Self(Vec::new())
    }

    /// Hands a connection's requests to the devices until one is full.
    pub(super) fn submit(&mut self, devices: &Devices<Queue>, connection: &mut Connection) -> bool {
        let mut progress = false;
        while let Some(submission) = connection.next_submission() {
            let Submission { namespace, request } = submission;
            let Some(queue) = self.queue(devices, namespace) else {
                // It was removed after the request was made.
                connection.complete(request.complete(Err(IoError::Cancelled)));
                progress = true;
                continue;
            };
            if let Err(request) = queue.submit(request) {
                connection.return_submission(Submission { namespace, request });
                break;
            }
            progress = true;
        }
        progress
    }

    /// Gives the connection what the devices have answered.
    pub(super) fn poll(
        &mut self,
        devices: &Devices<Queue>,
        connection: &mut Connection,
        now: Timestamp,
        completions: &mut Vec<Completion>,
    ) -> bool {
        let mut progress = false;
        for (_, queue) in &mut self.0 {
            progress |= queue.poll(now, completions);
            for completion in completions.drain(..) {
                progress = true;
                connection.complete(completion);
            }
        }
        if devices.are_leaving() {
            let is_leaving = |key| devices.leaving.iter().any(|(other, _)| *other == key);
            self.0.retain(|(key, queue)| queue.in_flight() > 0 || !is_leaving(*key));
        }
        progress
    }

    pub(super) fn has(&self, key: NamespaceKey) -> bool {
        self.0.iter().any(|(other, _)| *other == key)
    }

    pub(super) fn in_flight(&self) -> usize {
        self.0.iter().map(|(_, queue)| queue.in_flight()).sum()
    }

    fn queue(
        &mut self,
        devices: &Devices<Queue>,
        key: NamespaceKey,
    ) -> Option<&mut SharedQueue<Queue>> {
        // A connection has a few namespaces open; the one that it used last comes first.
        match self.0.iter().position(|(other, _)| *other == key) {
            Some(0) => {}
            Some(index) => self.0.swap(0, index),
            None => {
                self.0.push((key, devices.open(key)?));
                let last = self.0.len() - 1;
                self.0.swap(0, last);
            }
        }
        let is_removed = devices.leaving.iter().any(|(other, _)| *other == key);
        self.0.first_mut().filter(|_| !is_removed).map(|(_, queue)| queue)
    }
}
