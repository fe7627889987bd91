//! A host and a target on a simulated network, and a model of what the namespace must hold.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use block_io::device::shared::SharedQueue;
use block_io::sim::{Network, NetworkFaults, Received, SimDisk, SimListener, SimQueue, SimStream};
use block_io::sim::{Timer, Turn, World};
use block_io::{
    BlockDevice, BlockQueue, Buffer, BufferPool, Completion, Geometry, IoError, Operation, Request,
    Timestamp,
};
use nvme_fabric::error::ConnectionError;
use nvme_fabric::host::controller::Purpose;
use nvme_fabric::host::discovery::Discovery;
use nvme_fabric::host::{Controller, HostOptions, QueueIndex};
use nvme_fabric::pdu::{Digests, Endpoint};
use nvme_fabric::spec::nqn::{HostId, Nqn};
use nvme_fabric::target::{Connection, Namespace, NamespaceKey, Settings, Subsystem, Target};

pub(crate) const TARGET: &str = "target:4420";
pub(crate) const SUBSYSTEM: &str = "nqn.2014-08.com.example:volume";

pub(crate) fn nqn(name: &str) -> Nqn {
    Nqn::new(name).expect("well formed")
}

pub(crate) fn options() -> HostOptions {
    HostOptions::new(TARGET, nqn(SUBSYSTEM), nqn("nqn.2014-08.com.example:host"), HostId([7; 16]))
}

/// What the host's end of the harness has: an association, or a discovery.
pub(crate) trait Machine {
    fn controller(&mut self) -> &mut Controller;
    fn tick(&mut self, now: Timestamp) -> bool;
    fn next_deadline(&self) -> Option<Timestamp>;
}

impl Machine for Controller {
    fn controller(&mut self) -> &mut Controller {
        self
    }
    fn tick(&mut self, now: Timestamp) -> bool {
        Controller::tick(self, now)
    }
    fn next_deadline(&self) -> Option<Timestamp> {
        Controller::next_deadline(self)
    }
}

impl Machine for Discovery {
    fn controller(&mut self) -> &mut Controller {
        Discovery::controller(self)
    }
    fn tick(&mut self, now: Timestamp) -> bool {
        Discovery::tick(self, now)
    }
    fn next_deadline(&self) -> Option<Timestamp> {
        Discovery::next_deadline(self)
    }
}

/// Bytes of both directions of one connection, as they were sent.
#[derive(Default)]
pub(crate) struct Tape {
    pub(crate) to_target: Vec<u8>,
    pub(crate) to_host: Vec<u8>,
}

struct Served {
    connection: Connection,
    stream: SimStream,
    queue: SharedQueue<SimQueue>,
    number: usize,
}

pub(crate) struct Pair<Host> {
    pub(crate) world: World,
    pub(crate) network: Network,
    pub(crate) pool: BufferPool,
    pub(crate) host: Host,
    pub(crate) target: Target,
    pub(crate) disk: SimDisk,
    pub(crate) tapes: Vec<Tape>,
    /// Why the target's connections ended.
    pub(crate) target_errors: Vec<ConnectionError>,
    /// The disk refuses Write Zeroes, although its geometry promised it.
    pub(crate) refuses_zeroes: bool,
    listener: SimListener,
    streams: Vec<Option<SimStream>>,
    served: Vec<Served>,
    queue: SharedQueue<SimQueue>,
    timer: Option<Timer>,
}

/// What a pair is made with.
#[derive(Clone)]
pub(crate) struct Setup {
    pub(crate) seed: u64,
    pub(crate) digests: Digests,
    pub(crate) faults: NetworkFaults,
    pub(crate) geometry: Geometry,
    pub(crate) options: HostOptions,
    #[cfg(feature = "auth")]
    pub(crate) proofs: crate::authentication::Proofs,
}

impl Setup {
    pub(crate) fn new(seed: u64) -> Self {
        let digests = Digests { header: seed & 1 != 0, data: seed & 2 != 0 };
        let transfer_max = 128 << 10;
        let fragmented = NetworkFaults { chunk_max: 3000, ..NetworkFaults::fragmented() };
        let faults = if seed & 4 != 0 { fragmented } else { NetworkFaults::default() };
        let geometry =
            Geometry { transfer_max, volatile_cache: seed & 8 != 0, ..Geometry::new(16 << 20) };
        Self {
            seed,
            digests,
            faults,
            geometry,
            options: options(),
            #[cfg(feature = "auth")]
            proofs: crate::authentication::Proofs::default(),
        }
    }

    pub(crate) fn connect(&self) -> Pair<Controller> {
        self.pair(|pool, options, now| {
            Controller::new(pool, options, Purpose::Namespace(1), now).expect("options are right")
        })
    }

    pub(crate) fn pair<Host: Machine>(
        &self,
        make: impl FnOnce(&BufferPool, HostOptions, Timestamp) -> Host,
    ) -> Pair<Host> {
        let world = World::new(self.seed);
        let network = Network::new(&world);
        network.set_faults(self.faults);
        let pool = BufferPool::heap();
        let disk = SimDisk::new(&world, "origin", self.geometry);
        let queue = SharedQueue::new(disk.open_queue(&world, 256).expect("opens"));
        let mut target = Target::new(Settings::default()).expect("settings are right");
        let mut subsystem = Subsystem::new(nqn(SUBSYSTEM), "0123").expect("a serial number");
        let namespace = Namespace::new(self.geometry, HostId([9; 16])).expect("a namespace");
        subsystem.add_namespace(namespace).expect("room");
        #[cfg(feature = "auth")]
        self.proofs.prepare(&mut subsystem, &self.options.host);
        target.add_subsystem(subsystem).expect("the name is free");
        let listener = network.listen(TARGET).expect("the name is free");
        let options = HostOptions { digests: self.digests, ..self.options.clone() };
        #[cfg_attr(not(feature = "auth"), expect(unused_mut))]
        let mut host = make(&pool, options, world.now());
        #[cfg(feature = "auth")]
        {
            target.seed_random(&[self.seed as u8; 32]);
            host.controller().seed_random(&[!self.seed as u8; 32]);
        }
        Pair {
            host,
            world,
            network,
            pool,
            target,
            disk,
            tapes: Vec::new(),
            target_errors: Vec::new(),
            refuses_zeroes: false,
            listener,
            streams: Vec::new(),
            served: Vec::new(),
            queue,
            timer: None,
        }
    }
}

/// Bytes that one piece moves in one go: windows are not much larger.
const BYTES_AT_ONCE: usize = 8 << 10;

/// How a stream's bytes moved.
pub(crate) enum Moved {
    Nothing,
    Something,
    End,
    Broken,
}

/// Moves what can be moved between an endpoint and a stream, both ways.
pub(crate) fn move_bytes(
    endpoint: &mut impl Endpoint,
    stream: &SimStream,
    tape: &mut Vec<u8>,
) -> Moved {
    move_bytes_through(endpoint, stream, tape, |_| {})
}

/// The same; what arrives goes through `on_arrival` first, which may damage it.
pub(crate) fn move_bytes_through(
    endpoint: &mut impl Endpoint,
    stream: &SimStream,
    tape: &mut Vec<u8>,
    mut on_arrival: impl FnMut(&mut [u8]),
) -> Moved {
    let mut moved = Moved::Nothing;
    let mut pieces: Vec<Buffer> = Vec::new();
    endpoint.transmit_from(&mut pieces, 8);
    for piece in pieces.drain(..) {
        let bytes = piece.slice(0, piece.len().min(BYTES_AT_ONCE)).to_vec();
        match stream.send(&bytes) {
            Ok(0) => break,
            Ok(count) => {
                tape.extend_from_slice(&bytes[..count]);
                endpoint.transmitted(count);
                moved = Moved::Something;
                if count < piece.len() {
                    break;
                }
            }
            Err(_) => return Moved::Broken,
        }
    }
    if !stream.is_readable() {
        return moved;
    }
    endpoint.receive_into(&mut pieces);
    let mut total = 0;
    let mut place = [0; BYTES_AT_ONCE];
    for piece in pieces {
        let bytes = &mut place[..piece.len().min(BYTES_AT_ONCE)];
        match stream.receive(bytes) {
            Received::Bytes(count) => {
                on_arrival(&mut bytes[..count]);
                piece.slice(0, count).copy_from_slice(&bytes[..count]);
                total += count;
                if count < piece.len() {
                    break;
                }
            }
            Received::Nothing => break,
            Received::End if total == 0 => return Moved::End,
            Received::Reset if total == 0 => return Moved::Broken,
            Received::End | Received::Reset => break,
        }
    }
    if total > 0 {
        endpoint.received(total);
        moved = Moved::Something;
    }
    moved
}

impl<Host: Machine> Pair<Host> {
    /// One round of everybody; whether anything happened.
    pub(crate) fn poll(&mut self) -> bool {
        let now = self.world.now();
        let mut progress = self.poll_target(now);
        progress |= self.host.tick(now);
        while let Some(queue) = self.host.controller().next_stream_wanted() {
            progress = true;
            match self.network.connect(TARGET) {
                Ok(stream) => {
                    self.streams.resize_with(usize::from(queue) + 1, || None);
                    self.streams[usize::from(queue)] = Some(stream);
                    self.host.controller().stream_established(queue);
                }
                Err(_) => self.host.controller().stream_failed(queue, IoError::Other(111)),
            }
        }
        for index in 0..self.streams.len() {
            progress |= self.poll_host_stream(index);
        }
        progress
    }

    fn poll_host_stream(&mut self, index: usize) -> bool {
        let queue = index as QueueIndex;
        let controller = self.host.controller();
        let (Some(stream), Some(connection)) = (&self.streams[index], controller.connection(queue))
        else {
            return false;
        };
        if self.tapes.len() <= index {
            self.tapes.resize_with(index + 1, Tape::default);
        }
        let mut progress = false;
        match move_bytes(connection, stream, &mut self.tapes[index].to_target) {
            Moved::Nothing => {}
            Moved::Something => progress = true,
            Moved::End => connection.end_of_stream(),
            Moved::Broken => connection.network_failed("moving bytes", IoError::ConnectionLost),
        }
        if connection.wants_close() {
            self.streams[index] = None;
            controller.stream_closed(queue);
            progress = true;
        }
        progress
    }

    fn poll_target(&mut self, now: Timestamp) -> bool {
        let mut progress = false;
        while let Some(stream) = self.listener.accept() {
            let local = IpAddr::V4(Ipv4Addr::LOCALHOST);
            #[cfg_attr(not(feature = "auth"), expect(unused_mut))]
            let mut connection = Connection::new(self.target.settings(), &self.pool, local, now);
            #[cfg(feature = "auth")]
            connection.offer_tls();
            let number = self.tapes.len();
            self.tapes.resize_with(number.max(1), Tape::default);
            let (queue, number) = (self.queue.another(), self.served.len());
            self.served.push(Served { connection, stream, queue, number });
            progress = true;
        }
        let Self { served, target, tapes, target_errors, refuses_zeroes, .. } = self;
        let mut completions: Vec<Completion> = Vec::new();
        served.retain_mut(|served| {
            if tapes.len() <= served.number {
                tapes.resize_with(served.number + 1, Tape::default);
            }
            let Served { connection, stream, queue, number } = served;
            match move_bytes(connection, stream, &mut tapes[*number].to_host) {
                Moved::Nothing => {}
                Moved::Something => progress = true,
                Moved::End => connection.disconnect(target, ConnectionError::Closed),
                Moved::Broken => {
                    let error = ConnectionError::Network("moving bytes", IoError::ConnectionLost);
                    connection.disconnect(target, error);
                }
            }
            while let Some(submission) = connection.next_submission() {
                assert_eq!(submission.namespace, NamespaceKey { subsystem: 0, namespace: 0 });
                progress = true;
                let request = submission.request;
                if *refuses_zeroes && request.operation == Operation::WriteZeroes {
                    connection.complete(request.complete(Err(IoError::Unsupported)));
                } else {
                    queue.submit(request).expect("the queue is deep enough");
                }
            }
            progress |= queue.poll(now, &mut completions);
            for completion in completions.drain(..) {
                connection.complete(completion);
            }
            progress |= connection.poll(target, now);
            if connection.is_finished() && connection.is_idle() {
                target_errors.extend(connection.error().cloned());
                progress = true;
                return false;
            }
            true
        });
        progress
    }

    fn next_deadline(&mut self) -> Option<Timestamp> {
        let served = self.served.iter().filter_map(|served| served.connection.deadline());
        served.chain(self.host.next_deadline()).min()
    }

    /// Runs until `done`, or nothing can happen any more.
    pub(crate) fn run_until(&mut self, mut done: impl FnMut(&mut Self) -> bool) {
        let world = self.world.clone();
        world
            .run(|_| {
                let progress = self.poll();
                if done(self) {
                    return Turn::Done;
                }
                if progress {
                    return Turn::Progress;
                }
                let deadline = self.next_deadline();
                self.timer = deadline.map(|deadline| self.world.timer(deadline));
                Turn::Idle
            })
            .unwrap_or_else(|stalled| panic!("{stalled}: {:?}", self.host.controller().error()));
    }

    /// Lets time pass with everybody at work.
    pub(crate) fn run_for(&mut self, duration: Duration) {
        let end = self.world.now() + duration;
        let stop = self.world.timer(end);
        self.run_until(|_| stop.is_due());
    }

    /// The target's connections that are left.
    pub(crate) fn served(&self) -> usize {
        self.served.len()
    }
}

impl Pair<Controller> {
    /// Runs until the association is up and a queue is open.
    pub(crate) fn bring_up(&mut self, depth: usize) -> QueueIndex {
        self.run_until(|pair| pair.host.is_up() || pair.host.is_over());
        let error = self.host.error();
        assert!(self.host.is_up(), "seed {}: {error:?}", self.world.seed());
        self.host.open_queue(depth).expect("there is an I/O queue")
    }

    pub(crate) fn error(&self) -> String {
        self.host.error().map(ToString::to_string).unwrap_or_default()
    }

    /// Runs one request to its end.
    pub(crate) fn request(&mut self, queue: QueueIndex, request: Request) -> Completion {
        self.host.submit(queue, request).expect("room");
        let mut completions = Vec::new();
        self.run_until(|pair| pair.host.take_completions(queue, &mut completions));
        assert_eq!(completions.len(), 1);
        completions.pop().expect("one completion")
    }
}
