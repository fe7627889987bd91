//! A device further away: another device whose completions arrive later by a fixed time.
//!
//! It stands for a network in demonstrations and tests, so that a cache in front has something to
//! hide. Absent: jitter and a limit on bandwidth. Interruptions are told at once, not later like
//! the completions before them.

use std::collections::VecDeque;
use std::time::Duration;

use block_io::device::Interruptions;
use block_io::reactor::{Port, Reactor};
use block_io::{BlockDevice, BlockQueue, Completion, DeviceError, Geometry, Request, Timestamp};

/// A device behind a fixed latency.
#[derive(Clone, Debug)]
pub struct DelayedDevice<Device> {
    device: Device,
    latency: Duration,
}

impl<Device> DelayedDevice<Device> {
    /// `device`, each of its completions later by `latency`.
    pub const fn new(device: Device, latency: Duration) -> Self {
        Self { device, latency }
    }

    /// The device itself.
    pub const fn inner(&self) -> &Device {
        &self.device
    }
}

impl<Device: BlockDevice<Reactor>> BlockDevice<Reactor> for DelayedDevice<Device> {
    type Queue = DelayedQueue<Device::Queue>;

    fn geometry(&self) -> Geometry {
        self.device.geometry()
    }

    fn open_queue(&self, reactor: &Reactor, depth: usize) -> Result<Self::Queue, DeviceError> {
        Ok(DelayedQueue {
            queue: self.device.open_queue(reactor, depth)?,
            port: reactor.open_port(),
            latency: self.latency,
            depth,
            arrived: Vec::with_capacity(depth),
            waiting: VecDeque::with_capacity(depth),
            timer_armed: false,
        })
    }
}

/// Its queue.
#[derive(Debug)]
pub struct DelayedQueue<Queue> {
    queue: Queue,
    port: Port,
    latency: Duration,
    depth: usize,
    arrived: Vec<Completion>,
    /// Completions and when they are due; in order, because the latency is the same for all.
    waiting: VecDeque<(Timestamp, Completion)>,
    timer_armed: bool,
}

impl<Queue: BlockQueue> BlockQueue for DelayedQueue<Queue> {
    fn geometry(&self) -> Geometry {
        self.queue.geometry()
    }

    fn submit(&mut self, request: Request) -> Result<(), Request> {
        if self.in_flight() >= self.depth {
            return Err(request);
        }
        self.queue.submit(request)
    }

    fn poll(&mut self, now: Timestamp, completions: &mut Vec<Completion>) -> bool {
        let mut progress = self.queue.poll(now, &mut self.arrived);
        let due = now + self.latency;
        self.waiting.extend(self.arrived.drain(..).map(|completion| (due, completion)));
        while self.port.next_event().is_some() {
            self.timer_armed = false;
        }
        while self.waiting.front().is_some_and(|(due, _)| *due <= now) {
            completions.extend(self.waiting.pop_front().map(|(_, completion)| completion));
            progress = true;
        }
        // One timer, for the oldest: whoever polls after it arms the next.
        if let (false, Some((due, _))) = (self.timer_armed, self.waiting.front()) {
            self.port.timer(*due, 0);
            self.timer_armed = true;
        }
        progress
    }

    fn in_flight(&self) -> usize {
        self.queue.in_flight() + self.waiting.len()
    }

    fn interruptions(&self) -> Interruptions {
        self.queue.interruptions()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use block_io::device::null::NullDevice;
    use block_io::reactor::{ReactorConfig, Wait};
    use block_io::{PoolLayout, RequestId};

    #[test]
    fn completions_come_after_the_latency_and_count_as_in_flight_until_then() {
        let config = ReactorConfig { pool: PoolLayout::HEAP, ..ReactorConfig::default() };
        let reactor = Reactor::new(config).expect("a reactor");
        let latency = Duration::from_millis(3);
        let device = DelayedDevice::new(NullDevice::new(1 << 20), latency);
        let mut queue = device.open_queue(&reactor, 2).expect("opens");
        reactor.turn(Wait::No).expect("turns");
        let start = reactor.now();
        let mut completions = Vec::new();
        queue.submit(Request::flush(RequestId(1))).expect("room");
        queue.submit(Request::flush(RequestId(2))).expect("room");
        queue.poll(reactor.now(), &mut completions);
        assert!(completions.is_empty());
        let refused = queue.submit(Request::flush(RequestId(3))).expect_err("waiting ones count");
        assert_eq!((refused.id.0, queue.in_flight()), (3, 2));
        while completions.is_empty() {
            reactor.turn(Wait::ForEvent).expect("turns");
            queue.poll(reactor.now(), &mut completions);
        }
        assert!(reactor.now().since(start) >= latency, "{:?}", reactor.now().since(start));
        assert_eq!(completions.iter().map(|done| done.id.0).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(queue.in_flight(), 0);
    }
}
