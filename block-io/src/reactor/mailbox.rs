//! Messages from any thread to a reactor's own: a bounded queue, and the reactor woken if it
//! sleeps.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crossbeam_queue::ArrayQueue;

use super::wake::Waker;

struct Queue<T> {
    messages: ArrayQueue<T>,
    senders: AtomicUsize,
    receiver_gone: AtomicBool,
    waker: Arc<Waker>,
}

/// The sending end. Any thread; clone it for more.
pub struct MailSender<T>(Arc<Queue<T>>);

/// The receiving end, on the reactor's thread.
pub struct Mailbox<T>(Arc<Queue<T>>);

pub(super) fn pair<T: Send>(capacity: usize, waker: Arc<Waker>) -> (MailSender<T>, Mailbox<T>) {
    let queue = Arc::new(Queue {
        messages: ArrayQueue::new(capacity),
        senders: AtomicUsize::new(1),
        receiver_gone: AtomicBool::new(false),
        waker,
    });
    (MailSender(Arc::clone(&queue)), Mailbox(queue))
}

impl<T: Send> MailSender<T> {
    /// Leaves a message and wakes the receiver if it sleeps.
    ///
    /// # Errors
    /// The message itself, when the mailbox is full or [closed](Self::is_closed).
    pub fn send(&self, message: T) -> Result<(), T> {
        self.leave(message)?;
        self.wake();
        Ok(())
    }

    /// Leaves a message without waking the receiver: for several at once, with one
    /// [`wake`](Self::wake) after the last.
    ///
    /// # Errors
    /// As [`send`](Self::send).
    pub fn leave(&self, message: T) -> Result<(), T> {
        if self.is_closed() { Err(message) } else { self.0.messages.push(message) }
    }

    /// Wakes the receiver if it sleeps.
    pub fn wake(&self) {
        self.0.waker.notify();
    }

    /// Whether the receiving end is gone.
    pub fn is_closed(&self) -> bool {
        self.0.receiver_gone.load(Ordering::Acquire)
    }
}

impl<T> Clone for MailSender<T> {
    fn clone(&self) -> Self {
        self.0.senders.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(&self.0))
    }
}

impl<T> Drop for MailSender<T> {
    /// The last sender's end is news too.
    fn drop(&mut self) {
        if self.0.senders.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.waker.notify();
        }
    }
}

impl<T: Send> Mailbox<T> {
    /// Takes the oldest message. Messages of one sender come in the order of sending.
    ///
    /// After a wake-up take messages until there are none: what is left over ends no later sleep.
    pub fn receive(&self) -> Option<T> {
        self.0.messages.pop()
    }

    /// Whether every sender is gone; messages may be left all the same.
    pub fn is_closed(&self) -> bool {
        self.0.senders.load(Ordering::Acquire) == 0
    }
}

impl<T> Drop for Mailbox<T> {
    fn drop(&mut self) {
        self.0.receiver_gone.store(true, Ordering::Release);
        while self.0.messages.pop().is_some() {}
    }
}

impl<T> std::fmt::Debug for MailSender<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MailSender({} messages)", self.0.messages.len())
    }
}

impl<T> std::fmt::Debug for Mailbox<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Mailbox({} messages)", self.0.messages.len())
    }
}
