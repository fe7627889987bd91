//! A target with one namespace in memory, and one of its connections with a device queue.

use std::net::{IpAddr, Ipv4Addr};

use block_io::device::memory::{MemoryDevice, MemoryQueue};
use block_io::{
    BlockDevice, BlockQueue, Buffer, BufferPool, Completion, Geometry, IoError, Timestamp,
};
use nvme_fabric::spec::nqn::HostId;
use nvme_fabric::target::{Connection, Namespace, NamespaceKey, Settings, Subsystem, Target};

use super::collect;
use crate::mutation::Random;

/// Bytes of the namespace: few, as each run makes one.
pub(super) const CAPACITY: u64 = 128 << 10;
const DEPTH: usize = 8;

pub(super) struct TargetSide {
    pub(super) target: Target,
    device: MemoryDevice,
    pool: BufferPool,
}

impl TargetSide {
    pub(super) fn new() -> Self {
        let geometry =
            Geometry { transfer_max: 16 << 10, volatile_cache: true, ..Geometry::new(CAPACITY) };
        let settings = Settings {
            queue_entries_max: 32,
            io_queues_max: 2,
            controllers_max: 3,
            bytes_in_flight_max: 256 << 10,
            ..Settings::default()
        };
        let mut target = Target::new(settings).expect("sound settings");
        let mut subsystem = Subsystem::new(super::subsystem(), "FUZZ1").expect("a sound name");
        let namespace = Namespace::new(geometry, HostId([9; 16])).expect("a sound geometry");
        subsystem.add_namespace(namespace).expect("the first");
        target.add_subsystem(subsystem).expect("the first");
        let device = MemoryDevice::with_geometry(geometry).expect("a sound geometry");
        Self { target, device, pool: BufferPool::heap() }
    }

    pub(super) fn accept(&self, now: Timestamp) -> Served {
        let local = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let settings = self.target.settings();
        Served {
            connection: Connection::new(settings, &self.pool, local, now),
            queue: BlockDevice::<()>::open_queue(&self.device, &(), DEPTH).expect("opens"),
            held: Vec::new(),
            sent: Vec::new(),
        }
    }
}

pub(super) struct Served {
    pub(super) connection: Connection,
    queue: MemoryQueue,
    /// Completed by the device, not yet given back.
    held: Vec<Completion>,
    /// Everything that the host was sent.
    pub(super) sent: Vec<u8>,
}

impl Served {
    /// Moves everything until nothing moves. With `failures` the device fails some requests.
    pub(super) fn turn(
        &mut self,
        target: &mut Target,
        now: Timestamp,
        random: &mut Random,
        failures: bool,
    ) {
        loop {
            let mut moved = self.connection.poll(target, now);
            moved |= self.submit();
            moved |= self.queue.poll(now, &mut self.held);
            while !self.held.is_empty() && random.below(4) > 0 {
                let mut completion = self.held.swap_remove(random.below(self.held.len()));
                if failures && random.below(8) == 0 {
                    completion.result = Err(IoError::Media);
                }
                self.connection.complete(completion);
                moved = true;
            }
            let bytes = collect(&mut self.connection, random);
            moved |= !bytes.is_empty();
            self.sent.extend(bytes);
            if !moved && self.held.is_empty() {
                return;
            }
        }
    }

    fn submit(&mut self) -> bool {
        let mut moved = false;
        while let Some(submission) = self.connection.next_submission() {
            assert_eq!(submission.namespace, NamespaceKey { subsystem: 0, namespace: 0 });
            let request = &submission.request;
            let sound = self.queue.geometry().check(request.operation, request.extent);
            assert_eq!(sound, Ok(()), "{:?} {}", request.operation, request.extent);
            let length = request.buffer.as_ref().map(Buffer::len);
            let wanted = request.operation.carries_data().then_some(request.extent.length as usize);
            assert_eq!(length, wanted, "buffer of {:?} {}", request.operation, request.extent);
            if self.queue.in_flight() + self.held.len() >= DEPTH {
                self.connection.return_submission(submission);
                break;
            }
            self.queue.submit(submission.request).expect("there is room");
            moved = true;
        }
        moved
    }
}
