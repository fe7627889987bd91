//! Several hosts and one target: commands beside block requests, at the same time.

use std::net::{IpAddr, Ipv4Addr};

use block_io::device::shared::SharedQueue;
use block_io::sim::{
    Network, Random, SimDisk, SimListener, SimQueue, SimStream, Timer, Turn, World,
};
use block_io::{
    BlockDevice, BlockQueue, Buffer, BufferPool, Completion, Extent, IoError, Request, RequestId,
    Timestamp,
};
use nvme_fabric::error::ConnectionError;
use nvme_fabric::host::commands::{Answer, Command, CommandError, Persistence};
use nvme_fabric::host::controller::Purpose;
use nvme_fabric::host::{Controller, HostOptions};
use nvme_fabric::pdu::Digests;
use nvme_fabric::spec::nqn::HostId;
use nvme_fabric::spec::reservation::{ReservationKind, ReservationStatus};
use nvme_fabric::spec::status::Status;
use nvme_fabric::target::{Connection, Namespace, Settings, Subsystem, Target};

use crate::harness::{Moved, SUBSYSTEM, Setup, TARGET, move_bytes, nqn};

/// The I/O queue that every host uses.
const QUEUE: u16 = 1;

struct Host {
    controller: Controller,
    streams: Vec<Option<SimStream>>,
}

struct Served {
    connection: Connection,
    stream: SimStream,
    queue: SharedQueue<SimQueue>,
}

struct Rig {
    world: World,
    network: Network,
    pool: BufferPool,
    hosts: Vec<Host>,
    target: Target,
    disk: SimDisk,
    listener: SimListener,
    served: Vec<Served>,
    queue: SharedQueue<SimQueue>,
    timer: Option<Timer>,
}

impl Rig {
    fn new(seed: u64, hosts: usize, io_queues: u16) -> Self {
        let setup = Setup::new(seed);
        let world = World::new(seed);
        let network = Network::new(&world);
        network.set_faults(setup.faults);
        let pool = BufferPool::heap();
        let disk = SimDisk::new(&world, "origin", setup.geometry);
        disk.change_faults(|faults| faults.reorder = true);
        let queue = SharedQueue::new(disk.open_queue(&world, 256).expect("opens"));
        let mut target = Target::new(Settings::default()).expect("settings are right");
        let mut subsystem = Subsystem::new(nqn(SUBSYSTEM), "0123").expect("a serial number");
        let namespace = Namespace::new(setup.geometry, HostId([9; 16])).expect("a namespace");
        subsystem.add_namespace(namespace).expect("room");
        target.add_subsystem(subsystem).expect("the name is free");
        let listener = network.listen(TARGET).expect("the name is free");
        let make = |number: usize| {
            let name = nqn(&format!("nqn.2014-08.com.example:host-{number}"));
            let id = HostId([number as u8 + 1; 16]);
            let digests = if number.is_multiple_of(2) { setup.digests } else { Digests::default() };
            let options = HostOptions {
                io_queues,
                digests,
                ..HostOptions::new(TARGET, nqn(SUBSYSTEM), name, id)
            };
            let purpose = Purpose::Namespace(1);
            let controller = Controller::new(&pool, options, purpose, world.now());
            Host { controller: controller.expect("options are right"), streams: Vec::new() }
        };
        let hosts = (0..hosts).map(make).collect();
        let mut rig = Self {
            hosts,
            world,
            network,
            pool,
            target,
            disk,
            listener,
            served: Vec::new(),
            queue,
            timer: None,
        };
        rig.run_until(|rig| rig.hosts.iter().all(|host| host.controller.is_up()));
        rig
    }

    fn poll(&mut self) -> bool {
        let now = self.world.now();
        let mut progress = self.poll_target(now);
        for index in 0..self.hosts.len() {
            progress |= self.poll_host(index, now);
        }
        progress
    }

    fn poll_host(&mut self, index: usize, now: Timestamp) -> bool {
        let Host { controller, streams } = &mut self.hosts[index];
        let mut progress = controller.tick(now);
        while let Some(queue) = controller.next_stream_wanted() {
            progress = true;
            let stream = self.network.connect(TARGET).expect("it listens");
            streams.resize_with(usize::from(queue) + 1, || None);
            streams[usize::from(queue)] = Some(stream);
            controller.stream_established(queue);
        }
        for (queue, place) in (0..).zip(streams.iter_mut()) {
            let (Some(stream), Some(connection)) = (&*place, controller.connection(queue)) else {
                continue;
            };
            match move_bytes(connection, stream, &mut Vec::new()) {
                Moved::Nothing => {}
                Moved::Something => progress = true,
                Moved::End => connection.end_of_stream(),
                Moved::Broken => {
                    connection.network_failed("moving bytes", IoError::ConnectionLost);
                }
            }
            if connection.wants_close() {
                *place = None;
                controller.stream_closed(queue);
                progress = true;
            }
        }
        progress
    }

    fn poll_target(&mut self, now: Timestamp) -> bool {
        let mut progress = false;
        while let Some(stream) = self.listener.accept() {
            let local = IpAddr::V4(Ipv4Addr::LOCALHOST);
            let connection = Connection::new(self.target.settings(), &self.pool, local, now);
            self.served.push(Served { connection, stream, queue: self.queue.another() });
            progress = true;
        }
        let Self { served, target, .. } = self;
        let mut completions: Vec<Completion> = Vec::new();
        served.retain_mut(|Served { connection, stream, queue }| {
            match move_bytes(connection, stream, &mut Vec::new()) {
                Moved::Nothing => {}
                Moved::Something => progress = true,
                Moved::End | Moved::Broken => {
                    connection.disconnect(target, ConnectionError::Closed);
                }
            }
            while let Some(submission) = connection.next_submission() {
                progress = true;
                queue.submit(submission.request).expect("the queue is deep enough");
            }
            progress |= queue.poll(now, &mut completions);
            for completion in completions.drain(..) {
                connection.complete(completion);
            }
            progress |= connection.poll(target, now);
            !connection.is_finished() || !connection.is_idle()
        });
        progress
    }

    fn run_until(&mut self, mut done: impl FnMut(&mut Self) -> bool) {
        let (world, seed) = (self.world.clone(), self.world.seed());
        let run = world.run(|_| {
            let progress = self.poll();
            if done(self) {
                return Turn::Done;
            }
            if progress {
                return Turn::Progress;
            }
            let served = self.served.iter().filter_map(|served| served.connection.deadline());
            let hosts = self.hosts.iter().filter_map(|host| host.controller.next_deadline());
            let deadline = served.chain(hosts).min();
            self.timer = deadline.map(|deadline| self.world.timer(deadline));
            Turn::Idle
        });
        run.unwrap_or_else(|stalled| panic!("seed {seed}: {stalled}"));
    }

    /// Runs one command of a host's to its end.
    fn call(&mut self, host: usize, command: Command) -> Result<Answer, CommandError> {
        self.hosts[host].controller.submit_command(QUEUE, 1, command)?;
        let mut answer = None;
        self.run_until(|rig| {
            answer = rig.hosts[host].controller.next_answer(QUEUE);
            answer.is_some()
        });
        answer.expect("it has ended").1
    }

    fn report(&mut self, host: usize) -> ReservationStatus {
        let buffer = self.pool.allocate(1024);
        match self.call(host, Command::Report { buffer }) {
            Ok(Answer::Reservation(status)) => status,
            other => panic!("{other:?}"),
        }
    }

    fn buffer(&self, bytes: &[u8]) -> Buffer {
        let buffer = self.pool.allocate(bytes.len());
        buffer.copy_from_slice(bytes);
        buffer
    }

    fn fill(&mut self, offset: u64, bytes: &[u8]) {
        let queue = self.hosts[0].controller.open_queue(4).expect("there is an I/O queue");
        let request = Request::write(RequestId(1), offset, self.buffer(bytes));
        self.hosts[0].controller.submit(queue, request).expect("room");
        let mut completions = Vec::new();
        self.run_until(|rig| rig.hosts[0].controller.take_completions(queue, &mut completions));
        assert_eq!(completions[0].result, Ok(()));
        self.hosts[0].controller.close_queue(queue);
    }
}

/// One of those who count: adds one to a counter again and again.
struct Counter {
    host: usize,
    queue: u16,
    counter: u64,
    /// What it believes the counter to be.
    believed: u64,
    /// Increments that it has made.
    made: u64,
}

/// A counter is two blocks with the same number everywhere, so that a torn one shows.
const COUNTER: u64 = 1024;

fn number_bytes(number: u64) -> Vec<u8> {
    number.to_le_bytes().repeat(COUNTER as usize / 8)
}

impl Counter {
    fn command(&self, rig: &Rig) -> Command {
        Command::CompareAndWrite {
            extent: Extent::new(self.counter * COUNTER, COUNTER),
            compare: rig.buffer(&number_bytes(self.believed)),
            write: rig.buffer(&number_bytes(self.believed + 1)),
            force_unit_access: false,
        }
    }
}

#[test]
fn concurrent_compare_and_writes_lose_no_increment() {
    for seed in 0..16 {
        let mut rig = Rig::new(seed, 3, 2);
        let mut random: Random = rig.world.random("counters");
        let counters = 2;
        let mut workers: Vec<Counter> = (0..3)
            .flat_map(|host| [1, 2].map(|queue| (host, queue)))
            .map(|(host, queue)| Counter {
                host,
                queue,
                counter: random.below(counters),
                believed: 0,
                made: 0,
            })
            .collect();
        let start = |rig: &mut Rig, token: usize, worker: &Counter| {
            let command = worker.command(rig);
            let controller = &mut rig.hosts[worker.host].controller;
            controller.submit_command(worker.queue, token as u64, command).expect("room");
        };
        for (token, worker) in workers.iter().enumerate() {
            start(&mut rig, token, worker);
        }
        let (mut tries, mut busy) = (0, workers.len());
        rig.run_until(|rig| {
            for host in 0..3 {
                for queue in [1, 2] {
                    let controller = &mut rig.hosts[host].controller;
                    let Some((token, answer)) = controller.next_answer(queue) else { continue };
                    tries += 1;
                    let worker = &mut workers[token as usize];
                    match answer.expect("no fault") {
                        Answer::Done => {
                            worker.made += 1;
                            worker.believed += 1;
                        }
                        // Somebody was faster; as one cannot read in between, guess the next one.
                        Answer::Different => worker.believed += 1,
                        Answer::Reservation(_) => panic!("not asked for"),
                    }
                    if tries < 150 {
                        start(rig, token as usize, worker);
                    } else {
                        busy -= 1;
                    }
                }
            }
            busy == 0
        });
        for counter in 0..counters {
            let made: u64 =
                workers.iter().filter(|it| it.counter == counter).map(|it| it.made).sum();
            let content = rig.disk.content(Extent::new(counter * COUNTER, COUNTER));
            assert!(content == number_bytes(made), "seed {seed}: counter {counter} is not {made}");
        }
        let made: u64 = workers.iter().map(|worker| worker.made).sum();
        assert!(made > 1, "seed {seed}");
    }
}

#[test]
fn a_compare_a_copy_and_a_verify_are_cut_to_the_limits() {
    let mut rig = Rig::new(3, 1, 1);
    let bytes: Vec<u8> = (0..1_u32 << 20).map(|at| (at / 300) as u8).collect();
    rig.fill(0, &bytes);
    let limits = rig.hosts[0].controller.command_limits().expect("it is up");
    assert_eq!((limits.data_max, limits.compare_and_write_max), (128 << 10, 64 << 10));
    let extent = Extent::new(0, 1 << 20);
    let data = rig.buffer(&bytes);
    assert_eq!(rig.call(0, Command::Compare { extent, data: data.clone() }), Ok(Answer::Done));
    data.slice((1 << 20) - 1, 1).fill(bytes[0].wrapping_add(77));
    assert_eq!(rig.call(0, Command::Compare { extent, data }), Ok(Answer::Different));
    let whole = Extent::new(0, 16 << 20);
    assert_eq!(rig.call(0, Command::Verify { extent: whole }), Ok(Answer::Done));
    // More ranges than one command takes.
    let sources: Vec<Extent> =
        (0..300).map(|at| Extent::new((at * 7 % 512) * 1024, 1024)).collect();
    let expected: Vec<u8> = sources
        .iter()
        .flat_map(|source| bytes[source.offset as usize..source.end() as usize].to_vec())
        .collect();
    let destination = 8 << 20;
    let copy = Command::Copy { sources, destination, force_unit_access: false };
    assert_eq!(rig.call(0, copy), Ok(Answer::Done));
    let copied = rig.disk.content(Extent::new(destination, 300 << 10));
    assert!(copied == expected);
    rig.disk.change_faults(|faults| faults.bad_ranges = vec![Extent::new(5 << 20, 512)]);
    let error = rig.call(0, Command::Verify { extent: whole }).expect_err("unreadable");
    assert_eq!(error, CommandError::Status(Status::UNRECOVERED_READ_ERROR));
}

#[test]
fn what_the_controller_does_not_take_is_refused_before_it_is_sent() {
    let mut rig = Rig::new(0, 1, 1);
    let data = |rig: &Rig, length: usize| rig.pool.allocate(length);
    let uncorrectable = Command::WriteUncorrectable { extent: Extent::new(0, 512) };
    let error = rig.call(0, uncorrectable).expect_err("not offered");
    assert_eq!(error, CommandError::Unsupported("write uncorrectable"));
    for (extent, length) in [
        (Extent::new(0, 128 << 10), 128 << 10),
        (Extent::new(0, 512), 1024),
        (Extent::new(100, 512), 512),
        (Extent::new(16 << 20, 512), 512),
        (Extent::new(0, 0), 0),
    ] {
        let command = Command::CompareAndWrite {
            extent,
            compare: data(&rig, length.max(1)).slice(0, length),
            write: data(&rig, length.max(1)).slice(0, length),
            force_unit_access: false,
        };
        let error = rig.call(0, command).expect_err("must not be sent");
        assert!(matches!(error, CommandError::Invalid(_)), "{extent}: {error}");
    }
}

#[test]
fn two_hosts_share_a_reservation_as_its_kind_says() {
    for (seed, kind) in (0..).zip(ReservationKind::ALL) {
        let mut rig = Rig::new(seed, 2, 1);
        let register = |key| Command::Register { key, persistence: Persistence::Unchanged };
        assert_eq!(rig.call(0, register(0xa)), Ok(Answer::Done));
        assert_eq!(rig.call(0, Command::Acquire { key: 0xa, kind }), Ok(Answer::Done));
        let conflict = Err(CommandError::Status(Status::RESERVATION_CONFLICT.do_not_retry()));
        let write = |rig: &Rig| Command::CompareAndWrite {
            extent: Extent::new(0, 512),
            compare: rig.buffer(&[0; 512]),
            write: rig.buffer(&[0; 512]),
            force_unit_access: false,
        };
        let command = write(&rig);
        assert_eq!(rig.call(1, command), conflict, "a stranger, {kind:?}");
        assert_eq!(rig.call(1, register(0xb)), Ok(Answer::Done));
        let exclusive =
            matches!(kind, ReservationKind::WriteExclusive | ReservationKind::ExclusiveAccess);
        let command = write(&rig);
        let expected = if exclusive { conflict.clone() } else { Ok(Answer::Done) };
        assert_eq!(rig.call(1, command), expected, "a registrant, {kind:?}");
        let status = rig.report(1);
        assert_eq!((status.kind, status.registered.len()), (Some(kind), 2));
        let preempted = if kind.is_all_registrants() { 0 } else { 0xa };
        let preempt = Command::Preempt { key: 0xb, preempted, kind, abort: true };
        assert_eq!(rig.call(1, preempt), Ok(Answer::Done));
        let command = write(&rig);
        assert_eq!(rig.call(0, command), conflict, "preempted, {kind:?}");
        assert_eq!(rig.call(0, Command::Release { key: 0xa, kind }), conflict);
        assert_eq!(rig.call(1, Command::Release { key: 0xb, kind }), Ok(Answer::Done));
        let command = write(&rig);
        assert_eq!(rig.call(0, command), Ok(Answer::Done), "there is no reservation any more");
        let status = rig.report(0);
        assert_eq!((status.kind, status.registered.len()), (None, 1));
        assert_eq!(status.registered[0].key, 0xb);
    }
}

#[test]
fn a_command_whose_association_is_lost_says_so() {
    let mut rig = Rig::new(0, 1, 1);
    let verify = Command::Verify { extent: Extent::new(0, 4096) };
    rig.hosts[0].controller.submit_command(QUEUE, 5, verify).expect("room");
    rig.hosts[0].streams[usize::from(QUEUE)] = None;
    rig.hosts[0].controller.stream_closed(QUEUE);
    let answer = rig.hosts[0].controller.next_answer(QUEUE);
    assert_eq!(answer, Some((5, Err(CommandError::Lost))));
    rig.run_until(|rig| rig.served.is_empty());
}
