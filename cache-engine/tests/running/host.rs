//! A host of NVMe/TCP that is connected to a namespace, with one request at a time: our host, on a
//! reactor of its own.

use std::time::Duration;

use block_io::reactor::{Reactor, ReactorConfig, Wait};
use block_io::{BlockDevice, BlockQueue, Completion, IoError, PoolLayout, Request, RequestId};
use nvme_fabric::driver::{ConnectOptions, NamespaceQueue, NvmeTcpDevice};
use nvme_fabric::spec::nqn::{HostId, Nqn};

/// See the module.
pub(crate) struct Host {
    pub(crate) reactor: Reactor,
    queue: NamespaceQueue,
    pub(crate) device: NvmeTcpDevice,
}

pub(crate) fn reactor() -> Reactor {
    let config =
        ReactorConfig { operations_max: 256, pool: PoolLayout::HEAP, ..ReactorConfig::default() };
    Reactor::new(config).expect("a reactor")
}

/// How `host` connects to a namespace at a port of this machine. What cannot be done now fails at
/// once.
pub(crate) fn options(port: u16, host: &str, subsystem: &str, namespace_id: u32) -> ConnectOptions {
    let name = |text: &str| text.parse::<Nqn>().expect("a name");
    let id = HostId([host.len() as u8; 16]);
    let options = ConnectOptions::new("127.0.0.1", name(subsystem), name(host), id);
    let fast_io_fail = Some(Duration::ZERO);
    ConnectOptions { port, namespace_id, fast_io_fail, ..options }
}

/// The port at the end of an address, or of one in a URI.
#[track_caller]
pub(crate) fn port(place: &str) -> u16 {
    let authority = place.split_once("://").map_or(place, |(_, rest)| rest);
    let authority = authority.split_once('/').map_or(authority, |(authority, _)| authority);
    authority.rsplit_once(':').expect("a port").1.parse().expect("a number")
}

impl Host {
    pub(crate) fn connect(options: &ConnectOptions) -> Result<Self, String> {
        let reactor = reactor();
        let device =
            NvmeTcpDevice::connect(&reactor, options).map_err(|error| error.to_string())?;
        let queue = device.open_queue(&reactor, 8).expect("a queue");
        Ok(Self { reactor, queue, device })
    }

    pub(crate) fn run(&mut self, request: Request) -> Completion {
        let mut completions = Vec::new();
        assert!(self.queue.submit(request).is_ok(), "room");
        loop {
            let progress = self.queue.poll(self.reactor.now(), &mut completions);
            if let Some(completion) = completions.pop() {
                return completion;
            }
            let wait = if progress { Wait::No } else { Wait::ForEvent };
            self.reactor.turn(wait).expect("turns");
        }
    }

    pub(crate) fn read_some(&mut self, offset: u64, length: usize) -> Result<Vec<u8>, IoError> {
        let buffer = self.reactor.pool().allocate(length);
        let done = self.run(Request::read(RequestId(1), offset, buffer));
        done.result.map(|()| done.buffer.expect("a read's buffer").to_vec())
    }

    pub(crate) fn read(&mut self, offset: u64) -> Result<Vec<u8>, IoError> {
        self.read_some(offset, 4096)
    }

    pub(crate) fn write_bytes(&mut self, offset: u64, bytes: &[u8]) -> Result<(), IoError> {
        let buffer = self.reactor.pool().allocate(bytes.len());
        buffer.copy_from_slice(bytes);
        self.run(Request::write(RequestId(2), offset, buffer)).result
    }

    pub(crate) fn write(&mut self, offset: u64, byte: u8) -> Result<(), IoError> {
        self.write_bytes(offset, &[byte; 4096])
    }

    pub(crate) fn capacity(&self) -> u64 {
        self.device.geometry().capacity
    }

    /// Lets go in order.
    pub(crate) fn leave(self) {
        let Self { reactor, queue, device } = self;
        drop(queue);
        device.shut_down(&reactor).expect("the reactor turns");
    }
}
