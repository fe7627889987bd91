//! One queue used by many on the same core: every connection of a server, every queue of a
//! target, gets a [`SharedQueue`] of its own, and completions go back to whoever submitted.
//!
//! It adds an index into a slab to each request and nothing else. The bound is the inner queue's
//! depth; there is no fairness beyond first come, first served.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use crate::device::Interruptions;
use crate::{BlockQueue, Completion, Geometry, Request, RequestId, Timestamp};

/// A handle to a queue that several users share. Clone it with [`another`](Self::another).
pub struct SharedQueue<Queue> {
    hub: Rc<RefCell<Hub<Queue>>>,
    user: usize,
}

struct Hub<Queue> {
    queue: Queue,
    users: Vec<Option<User>>,
    pending: Vec<Pending>,
    free: Vec<u32>,
    arrived: Vec<Completion>,
}

#[derive(Default)]
struct User {
    completions: VecDeque<Completion>,
    in_flight: usize,
    /// Dropped with requests in flight: the place stays taken until they have ended.
    gone: bool,
}

#[derive(Clone, Copy)]
struct Pending {
    user: usize,
    id: RequestId,
}

impl<Queue: BlockQueue> SharedQueue<Queue> {
    /// The first handle to `queue`, which must carry no requests yet.
    pub fn new(queue: Queue) -> Self {
        let hub = Hub {
            queue,
            users: vec![Some(User::default())],
            pending: Vec::new(),
            free: Vec::new(),
            arrived: Vec::new(),
        };
        Self { hub: Rc::new(RefCell::new(hub)), user: 0 }
    }

    /// A handle for another user of the same queue.
    pub fn another(&self) -> Self {
        let mut hub = self.hub.borrow_mut();
        let user = match hub.users.iter().position(Option::is_none) {
            Some(user) => user,
            None => {
                hub.users.push(None);
                hub.users.len() - 1
            }
        };
        hub.users[user] = Some(User::default());
        Self { hub: Rc::clone(&self.hub), user }
    }

    /// Looks at or changes the queue behind, for statistics and control.
    pub fn with_queue<Value>(&self, function: impl FnOnce(&mut Queue) -> Value) -> Value {
        function(&mut self.hub.borrow_mut().queue)
    }
}

impl<Queue: BlockQueue> Hub<Queue> {
    fn turn(&mut self, now: Timestamp) -> bool {
        let mut arrived = std::mem::take(&mut self.arrived);
        let progress = self.queue.poll(now, &mut arrived);
        for completion in arrived.drain(..) {
            let index = completion.id.0 as usize;
            let pending = self.pending[index];
            self.free.push(index as u32);
            let place = &mut self.users[pending.user];
            let user = place.as_mut().expect("a place with requests in flight is kept");
            user.in_flight -= 1;
            if !user.gone {
                user.completions.push_back(Completion { id: pending.id, ..completion });
            } else if user.in_flight == 0 {
                *place = None;
            }
        }
        self.arrived = arrived;
        progress
    }
}

impl<Queue: BlockQueue> BlockQueue for SharedQueue<Queue> {
    fn geometry(&self) -> Geometry {
        self.hub.borrow().queue.geometry()
    }

    fn submit(&mut self, request: Request) -> Result<(), Request> {
        let hub = &mut *self.hub.borrow_mut();
        let pending = Pending { user: self.user, id: request.id };
        let index = match hub.free.pop() {
            Some(index) => {
                hub.pending[index as usize] = pending;
                index
            }
            None => {
                hub.pending.push(pending);
                hub.pending.len() as u32 - 1
            }
        };
        let id = RequestId(u64::from(index));
        if let Err(request) = hub.queue.submit(Request { id, ..request }) {
            hub.free.push(index);
            return Err(Request { id: pending.id, ..request });
        }
        hub.users[self.user].as_mut().expect("a live handle has its place").in_flight += 1;
        Ok(())
    }

    fn poll(&mut self, now: Timestamp, completions: &mut Vec<Completion>) -> bool {
        let mut hub = self.hub.borrow_mut();
        let progress = hub.turn(now);
        let user = hub.users[self.user].as_mut().expect("a live handle has its place");
        let delivered = !user.completions.is_empty();
        completions.extend(user.completions.drain(..));
        progress || delivered
    }

    fn in_flight(&self) -> usize {
        let hub = self.hub.borrow();
        hub.users[self.user].as_ref().map_or(0, |user| user.in_flight + user.completions.len())
    }

    fn interruptions(&self) -> Interruptions {
        self.hub.borrow().queue.interruptions()
    }
}

impl<Queue> Drop for SharedQueue<Queue> {
    fn drop(&mut self) {
        let mut hub = self.hub.borrow_mut();
        let place = &mut hub.users[self.user];
        match place {
            Some(user) if user.in_flight > 0 => {
                user.gone = true;
                user.completions.clear();
            }
            _ => *place = None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BlockDevice, device::null::NullDevice};

    fn shared(depth: usize) -> SharedQueue<crate::device::null::NullQueue> {
        let device = NullDevice::new(1 << 20);
        SharedQueue::new(BlockDevice::<()>::open_queue(&device, &(), depth).expect("opens"))
    }

    #[test]
    fn completions_go_to_their_submitter_whoever_polls() {
        let mut first = shared(8);
        let mut second = first.another();
        first.submit(Request::flush(RequestId(7))).expect("room");
        second.submit(Request::flush(RequestId(7))).expect("room");
        second.submit(Request::flush(RequestId(8))).expect("room");
        let mut completions = Vec::new();
        assert!(first.poll(Timestamp(0), &mut completions));
        assert_eq!(completions.drain(..).map(|done| done.id.0).collect::<Vec<_>>(), [7]);
        assert_eq!(second.in_flight(), 2);
        assert!(second.poll(Timestamp(0), &mut completions), "delivery is progress");
        assert_eq!(completions.iter().map(|done| done.id.0).collect::<Vec<_>>(), [7, 8]);
        assert!(!second.poll(Timestamp(0), &mut completions));
    }

    #[test]
    fn a_full_queue_hands_back_the_submitters_own_id() {
        let mut queue = shared(1);
        queue.submit(Request::flush(RequestId(70))).expect("room");
        assert_eq!(queue.submit(Request::flush(RequestId(71))).expect_err("full").id.0, 71);
        assert_eq!(queue.in_flight(), 1);
    }

    #[test]
    fn a_dropped_user_leaves_its_place_to_the_next() {
        let mut first = shared(8);
        let mut second = first.another();
        second.submit(Request::flush(RequestId(1))).expect("room");
        drop(second);
        let mut completions = Vec::new();
        first.poll(Timestamp(0), &mut completions);
        assert!(completions.is_empty(), "a completion of the dropped user is nobody's");
        let third = first.another();
        assert_eq!(third.user, 1, "the place is free again");
    }
}
