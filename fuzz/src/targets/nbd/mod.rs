//! An NBD connection over a memory device, with a client that says anything and takes its time,
//! and a device that answers in any order and sometimes fails.

pub mod handshake;
mod replies;
pub mod transmission;

use std::rc::Rc;

use block_io::device::memory::{MemoryDevice, MemoryQueue};
use block_io::{
    BlockDevice, BlockQueue, Buffer, BufferPool, Completion, Geometry, IoError, Timestamp,
};
use cache_engine::frontend::nbd::protocol::{Connection, Export, Limits, PeerFault};

use crate::mutation::Random;

const CAPACITY: u64 = 256 << 10;
const DEPTH: usize = 16;
/// Above this the connection has let too much wait to be sent: its own bounds and one request's.
const WAITING_MAX: u64 = 4 << 20;

/// A connection and its surroundings.
struct Session {
    connection: Connection,
    pool: BufferPool,
    queue: MemoryQueue,
    /// Completed by the device, not yet given back.
    held: Vec<Completion>,
    random: Random,
    failures: bool,
    /// Everything that the client was sent.
    sent: Vec<u8>,
    /// Bytes of the client's that the connection took.
    taken: usize,
}

impl Session {
    /// A fresh connection; `control` decides how bytes are cut, in which order requests complete,
    /// and whether some fail.
    fn new(control: u8) -> Self {
        let pool = BufferPool::heap();
        let geometry = Geometry {
            read_only: control & 0xc0 == 0xc0,
            discard: control & 0x20 == 0,
            write_zeroes: control & 0x10 == 0,
            transfer_max: 64 << 10,
            ..Geometry::new(CAPACITY)
        };
        let export = |name: &str| Export {
            name: name.to_owned(),
            description: format!("The {name}"),
            geometry,
        };
        let exports: Rc<[Export]> = Rc::new([export("disk"), export("other")]);
        let device = MemoryDevice::with_geometry(geometry).expect("a sound geometry");
        let queue = BlockDevice::<()>::open_queue(&device, &(), DEPTH).expect("opens");
        let limits = Limits { requests_max: 8, bytes_max: 128 << 10, pieces_max: 64 };
        Self {
            connection: Connection::new(exports, pool.clone(), limits),
            pool,
            queue,
            held: Vec::new(),
            random: Random::new(u64::from(control)),
            failures: control & 0x08 != 0,
            sent: Vec::new(),
            taken: 0,
        }
    }

    /// Gives the connection `bytes` in pieces until it has taken them or wants no more.
    fn feed(&mut self, bytes: &[u8]) -> Result<(), PeerFault> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let longest = [1, 7, 64, 4096, usize::MAX][self.random.below(5)];
            let count = self.offer(&rest[..rest.len().min(longest)])?;
            rest = &rest[count..];
            self.taken += count;
            self.work(false);
            if count == 0 {
                // It may refuse because of what waits; with nothing waiting it must go on or end.
                self.work(true);
                if !self.connection.wants_bytes() {
                    assert!(self.connection.is_finished(), "wants nothing, but is not finished");
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    fn offer(&mut self, bytes: &[u8]) -> Result<usize, PeerFault> {
        if let Some(target) = self.connection.payload_target()
            && self.random.below(2) == 0
        {
            assert!(!target.is_empty(), "an empty place for payload");
            let count = target.len().min(bytes.len());
            target.slice(0, count).copy_from_slice(&bytes[..count]);
            self.connection.payload_received(count);
            return Ok(count);
        }
        let buffer = self.pool.allocate(bytes.len());
        buffer.copy_from_slice(bytes);
        let count = self.connection.receive(&buffer)?;
        assert!(count <= bytes.len(), "took more than there was");
        Ok(count)
    }

    /// Moves requests, completions and bytes to the client: some, or `all` there are.
    fn work(&mut self, all: bool) {
        loop {
            let mut moved = self.submit();
            moved |= self.queue.poll(Timestamp(0), &mut self.held);
            while !self.held.is_empty() && (all || self.random.below(3) > 0) {
                let index = self.random.below(self.held.len());
                let completion = self.held.swap_remove(index);
                self.complete(completion);
                moved = true;
            }
            moved |= self.send(all);
            if !moved || (!all && self.random.below(4) == 0) {
                return;
            }
        }
    }

    fn submit(&mut self) -> bool {
        let mut moved = false;
        while self.queue.in_flight() + self.held.len() < DEPTH {
            let Some(request) = self.connection.next_request() else { break };
            let geometry = self.queue.geometry();
            let sound = geometry.check(request.operation, request.extent);
            assert_eq!(sound, Ok(()), "{:?} {}", request.operation, request.extent);
            let length = request.buffer.as_ref().map(Buffer::len);
            let wanted = request.operation.carries_data().then_some(request.extent.length as usize);
            assert_eq!(length, wanted, "buffer of {:?} {}", request.operation, request.extent);
            self.queue.submit(request).expect("there is room");
            moved = true;
        }
        moved
    }

    fn complete(&mut self, mut completion: Completion) {
        if self.failures && self.random.below(4) == 0 {
            completion.result = Err(IoError::Media);
        }
        self.connection.complete(completion);
    }

    fn send(&mut self, all: bool) -> bool {
        let waiting = self.connection.outgoing().bytes();
        assert!(waiting < WAITING_MAX, "{waiting} bytes wait to be sent");
        let mut pieces = Vec::new();
        self.connection.outgoing().gather(64, &mut pieces);
        let bytes: Vec<u8> = pieces.iter().flat_map(Buffer::to_vec).collect();
        let count = if all { bytes.len() } else { self.random.below(bytes.len() + 1) };
        self.sent.extend_from_slice(&bytes[..count]);
        self.connection.outgoing().sent(count);
        count > 0
    }

    /// Ends the connection from the server's side, with everything answered that was taken.
    fn finish(&mut self) {
        self.work(true);
        self.connection.close();
        self.work(true);
        assert!(self.connection.is_finished(), "closed and idle, but not finished");
        assert!(!self.connection.wants_bytes(), "finished, but wants bytes");
    }
}

/// An option as a client sends it. //= NBD proto.md "Newstyle negotiation"
fn option(number: u32, data: &[u8]) -> Vec<u8> {
    let length = data.len() as u32;
    [b"IHAVEOPT", &number.to_be_bytes()[..], &length.to_be_bytes(), data].concat()
}

/// A length and a text. //= NBD proto.md "Values"
fn string(text: &str) -> Vec<u8> {
    [&(text.len() as u32).to_be_bytes(), text.as_bytes()].concat()
}

/// The data of GO and INFO. //= NBD proto.md "NBD_OPT_INFO and NBD_OPT_GO"
fn go(name: &str, items: &[u16]) -> Vec<u8> {
    let mut data = string(name);
    data.extend((items.len() as u16).to_be_bytes());
    items.iter().for_each(|item| data.extend(item.to_be_bytes()));
    data
}

/// The data of SET_META_CONTEXT and LIST_META_CONTEXT. //= NBD proto.md "Metadata querying"
fn queries(name: &str, queries: &[&str]) -> Vec<u8> {
    let mut data = string(name);
    data.extend((queries.len() as u32).to_be_bytes());
    queries.iter().for_each(|query| data.extend(string(query)));
    data
}
