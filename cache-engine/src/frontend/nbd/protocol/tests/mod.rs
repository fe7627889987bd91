//! Step tests of the protocol: bytes against bytes, over a memory device, without a socket.

mod corruption;
mod flow;
mod negotiation;
mod requests;
pub(in crate::frontend::nbd) mod wire;

use std::rc::Rc;

use block_io::device::memory::{MemoryDevice, MemoryQueue};
use block_io::{BlockDevice, BlockQueue, Buffer, BufferPool, Geometry, Timestamp};

use wire::{chunk, go, option, queries, reply, request, simple, string};

use super::{Connection, Export, Limits, PeerFault};

const NO_ZEROES_FIXED: u32 = 3;

/// A connection, the device behind it, and what was sent to the client.
struct Bench {
    pool: BufferPool,
    connection: Connection,
    device: MemoryDevice,
    queue: MemoryQueue,
}

impl Bench {
    fn new(geometry: Geometry) -> Self {
        Self::with_limits(geometry, Limits::default())
    }

    fn with_limits(geometry: Geometry, limits: Limits) -> Self {
        let pool = BufferPool::heap();
        let exports: Rc<[Export]> = Rc::new([
            Export { name: "disk".into(), description: "The disk".into(), geometry },
            Export { name: "second".into(), description: String::new(), geometry },
        ]);
        let connection = Connection::new(exports, pool.clone(), limits);
        let device = MemoryDevice::with_geometry(geometry).expect("a sound geometry");
        let queue = BlockDevice::<()>::open_queue(&device, &(), 4).expect("opens");
        Self { pool, connection, device, queue }
    }

    /// A connection past the greeting and the client flags.
    fn greeted(geometry: Geometry) -> Self {
        let mut bench = Self::new(geometry);
        assert_eq!(bench.sent(), b"NBDMAGICIHAVEOPT\x00\x03");
        bench.take(&NO_ZEROES_FIXED.to_be_bytes()).expect("accepted");
        bench
    }

    /// A connection in transmission.
    fn transmitting(geometry: Geometry, structured: bool) -> Self {
        let mut bench = Self::greeted(geometry);
        if structured {
            bench.take(&option(8, b"")).expect("accepted");
            bench.take(&option(10, &queries("", &["base:allocation"]))).expect("accepted");
        }
        bench.take(&option(7, &go("", &[3]))).expect("accepted");
        assert_eq!(bench.connection.export(), Some(0));
        bench.sent();
        bench
    }

    fn buffer(&self, bytes: &[u8]) -> Buffer {
        let buffer = self.pool.allocate(bytes.len());
        buffer.copy_from_slice(bytes);
        buffer
    }

    /// Gives bytes to the connection, which must take them all, and lets the device work.
    fn take(&mut self, bytes: &[u8]) -> Result<(), PeerFault> {
        let mut rest = self.buffer(bytes);
        while !rest.is_empty() && !self.connection.is_finished() {
            let count = self.connection.receive(&rest)?;
            rest = rest.slice(count, rest.len() - count);
            let worked = self.work();
            if count == 0 && !worked {
                assert!(!self.connection.wants_bytes());
                return Ok(());
            }
        }
        self.work();
        Ok(())
    }

    /// Moves requests to the device and completions back until nothing moves.
    fn work(&mut self) -> bool {
        let mut worked = false;
        let mut completions = Vec::new();
        loop {
            let mut moved = false;
            while self.queue.in_flight() < 4 {
                let Some(request) = self.connection.next_request() else { break };
                self.queue.geometry().check(request.operation, request.extent).expect("fits");
                self.queue.submit(request).expect("room");
                moved = true;
            }
            moved |= self.queue.poll(Timestamp(0), &mut completions);
            completions.drain(..).for_each(|completion| self.connection.complete(completion));
            if !moved {
                return worked;
            }
            worked = true;
        }
    }

    /// Everything that waits to be sent, as sent.
    fn sent(&mut self) -> Vec<u8> {
        let mut pieces = Vec::new();
        self.connection.outgoing().gather(usize::MAX, &mut pieces);
        let bytes: Vec<u8> = pieces.iter().flat_map(Buffer::to_vec).collect();
        self.connection.outgoing().sent(bytes.len());
        bytes
    }

    fn exchange(&mut self, bytes: &[u8]) -> Vec<u8> {
        self.take(bytes).expect("no fault of the peer's");
        self.sent()
    }
}
