//! NVMe/TCP from end to end: our target on one core, our host on another, each one thread, over
//! loopback TCP. The namespaces cost next to nothing, so what is measured is the way to them.
//!
//! With `--address` the target is one that somebody else started, of any make; our host reads its
//! namespace 1, which it never writes to.
//!
//! Absent: secrets and TLS keys for such a target.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use block_io::device::memory::MemoryDevice;
use block_io::device::null::NullDevice;
use block_io::reactor::{MailSender, Mailbox, Reactor, ReactorConfig, Task};
use block_io::sim::Random;
use block_io::{
    BlockDevice, BlockQueue, Buffer, Completion, DeviceError, Geometry, Operation, Request,
    RequestId, Timestamp,
};
use nvme_fabric::driver::target::Service;
use nvme_fabric::driver::{ConnectOptions, NamespaceQueue, NvmeTcpDevice, TargetTask};
use nvme_fabric::spec::nqn::{HostId, Nqn};
use nvme_fabric::target::{Namespace, Settings, Subsystem, Target};
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::results::Results;
use crate::{Failure, Plan};

/// Bytes of either namespace.
const CAPACITY: u64 = 256 << 20;
/// Entries of the queues: one more than the largest depth below, and then some.
const QUEUE_ENTRIES: u16 = 256;
/// The namespace with nothing behind it, and the one with memory.
const NULL: u32 = 1;
const MEMORY: u32 = 2;
/// Every byte of the memory.
const CONTENT: u8 = 0x5a;
const SUBSYSTEM: &str = "nqn.2026-01.io.forebay:bench";

/// What the names of the cases begin with, and of those that go to somebody else's target.
const OWN: &str = "host_target";
const EXTERNAL: &str = "host_external";

/// A target that somebody else started.
pub(crate) struct External {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// The subsystem's NQN; its namespace 1 has 256 MiB or more.
    pub(crate) subsystem: String,
}

/// Where the cases go.
struct Endpoint {
    address: SocketAddr,
    subsystem: Nqn,
    external: bool,
}

impl Endpoint {
    fn own(address: SocketAddr) -> Result<Self, DeviceError> {
        Ok(Self { address, subsystem: nqn(SUBSYSTEM)?, external: false })
    }

    fn external(target: &External) -> Result<Self, DeviceError> {
        let subsystem = nqn(&target.subsystem)?;
        Ok(Self { address: target.address, subsystem, external: true })
    }

    fn name(&self, case: &Case) -> String {
        let prefix = if self.external { EXTERNAL } else { OWN };
        case.name.replacen(OWN, prefix, 1)
    }

    /// That the cases' requests fit.
    fn check(&self, geometry: Geometry) -> Result<(), DeviceError> {
        let (capacity, block) = (geometry.capacity, geometry.block_size);
        if capacity >= CAPACITY && u64::from(block) <= READ.length {
            return Ok(());
        }
        let text = format!(
            "namespace 1 of {} has {capacity} bytes in blocks of {block}; the cases need \
             {CAPACITY} bytes or more, in blocks of {} or less",
            self.address, READ.length
        );
        Err(DeviceError::new(text))
    }
}

/// One benchmark.
struct Case {
    name: &'static str,
    namespace: u32,
    operation: Operation,
    length: u64,
    depth: usize,
    /// With a digest over all data.
    data_digest: bool,
}

const READ: Case = Case {
    name: "host_target_read_4k_qd1",
    namespace: NULL,
    operation: Operation::Read,
    length: 4096,
    depth: 1,
    data_digest: false,
};

const CASES: &[Case] = &[
    READ,
    Case { name: "host_target_read_4k_qd32", depth: 32, ..READ },
    Case { name: "host_target_read_4k_qd128", depth: 128, ..READ },
    Case { name: "host_target_read_4k_qd32_data_digest", depth: 32, data_digest: true, ..READ },
    Case { name: "host_target_read_128k_qd8", length: 128 << 10, depth: 8, ..READ },
    Case {
        name: "host_target_read_128k_qd8_data_digest",
        length: 128 << 10,
        depth: 8,
        data_digest: true,
        ..READ
    },
    Case { name: "host_target_memory_read_4k_qd32", namespace: MEMORY, depth: 32, ..READ },
    Case {
        name: "host_target_memory_write_4k_qd32",
        namespace: MEMORY,
        operation: Operation::Write,
        depth: 32,
        ..READ
    },
    Case {
        name: "host_target_memory_read_128k_qd8",
        namespace: MEMORY,
        length: 128 << 10,
        depth: 8,
        ..READ
    },
];

/// Runs the suite, against `external` or else a target of its own.
pub(crate) fn run(
    plan: &Plan,
    external: Option<&External>,
    results: &mut Results,
) -> Result<(), Failure> {
    let outcome = match external {
        Some(target) => Endpoint::external(target).and_then(|to| load(&to, plan, results)),
        None if !CASES.iter().any(|case| plan.wants(case.name)) => return Ok(()),
        None => {
            let target = TargetThread::start()?;
            let outcome = Endpoint::own(target.address).and_then(|to| load(&to, plan, results));
            outcome.and_then(|()| target.stop())
        }
    };
    outcome.map_err(|error| error.to_string())
}

fn load(to: &Endpoint, plan: &Plan, results: &mut Results) -> Result<(), DeviceError> {
    pin(1);
    let reactor = Reactor::new(ReactorConfig::default())?;
    let wanted =
        |case: &&Case| plan.wants(&to.name(case)) && (!to.external || case.namespace == NULL);
    CASES.iter().filter(wanted).try_for_each(|case| measure(case, plan, &reactor, to, results))
}

fn measure(
    case: &Case,
    plan: &Plan,
    reactor: &Reactor,
    to: &Endpoint,
    results: &mut Results,
) -> Result<(), DeviceError> {
    let device = NvmeTcpDevice::connect(reactor, &options(to, case)?)?;
    to.check(BlockDevice::<Reactor>::geometry(&device))?;
    let (mut rates, mut tails) = (Vec::new(), Vec::new());
    // The first run warms connections, pools and processors, and is not counted.
    for run in 0..=plan.runs {
        let queue = device.open_queue(reactor, case.depth)?;
        let time = if run == 0 { Duration::from_millis(300) } else { plan.time };
        let mut load = Load::new(case, queue, reactor, time);
        reactor.run(&mut load)?;
        load.check(case)?;
        if run > 0 {
            rates.push(load.rate());
            tails.push(load.percentile_99());
        }
    }
    device.shut_down(reactor)?;
    results.record(&to.name(case), "IOPS", &rates);
    results.record(&format!("{}.p99", to.name(case)), "us", &tails);
    Ok(())
}

fn options(to: &Endpoint, case: &Case) -> Result<ConnectOptions, DeviceError> {
    let host = nqn("nqn.2026-01.io.forebay:bench-host")?;
    let (address, subsystem) = (to.address.ip().to_string(), to.subsystem.clone());
    let mut options = ConnectOptions::new(address, subsystem, host, HostId([1; 16]));
    options.port = to.address.port();
    options.namespace_id = case.namespace;
    options.data_digest = case.data_digest;
    options.queue_depth = QUEUE_ENTRIES;
    Ok(options)
}

fn nqn(name: &str) -> Result<Nqn, DeviceError> {
    Nqn::new(name).map_err(|error| DeviceError::new(format!("{name}: {error}")))
}

/// Keeps this thread on one processor, where there are enough and it is allowed: a benchmark
/// whose threads wander still measures, only less steadily.
fn pin(processor: usize) {
    let mut set = CpuSet::new();
    set.set(processor);
    let _ = sched_setaffinity(None, &set);
}

/// A buffer that holds what writes write, and reads must bring anew.
fn buffer(case: &Case, reactor: &Reactor) -> Buffer {
    let buffer = reactor.pool().allocate(case.length as usize);
    buffer.fill(if case.operation == Operation::Write { CONTENT } else { 0 });
    buffer
}

fn is_content(byte: &u8) -> bool {
    *byte == CONTENT
}

/// As many requests in flight as the case asks for, until the time is over.
struct Load {
    queue: NamespaceQueue,
    operation: Operation,
    length: u64,
    random: Random,
    buffers: Vec<Buffer>,
    /// When each request was submitted, by its id.
    submitted: Vec<Instant>,
    free: Vec<u64>,
    start: Instant,
    time: Duration,
    took: Duration,
    latencies: Vec<u32>,
    failed: u64,
    completions: Vec<Completion>,
}

impl Load {
    fn new(case: &Case, queue: NamespaceQueue, reactor: &Reactor, time: Duration) -> Self {
        let now = Instant::now();
        let depth = case.depth;
        Self {
            queue,
            operation: case.operation,
            length: case.length,
            random: Random::new(1),
            buffers: (0..depth).map(|_| buffer(case, reactor)).collect(),
            submitted: vec![now; depth],
            free: (0..depth as u64).collect(),
            start: now,
            time,
            took: Duration::ZERO,
            latencies: Vec::with_capacity(1 << 20),
            failed: 0,
            completions: Vec::with_capacity(depth),
        }
    }

    fn submit(&mut self, now: Instant) {
        while let (Some(id), Some(buffer)) = (self.free.pop(), self.buffers.pop()) {
            let offset = self.random.below(CAPACITY / self.length) * self.length;
            let request = match self.operation {
                Operation::Write => Request::write(RequestId(id), offset, buffer),
                _ => Request::read(RequestId(id), offset, buffer),
            };
            self.submitted[id as usize] = now;
            self.queue.submit(request).expect("no more than the queue's depth are in flight");
        }
    }

    /// Requests a second.
    fn rate(&self) -> f64 {
        self.latencies.len() as f64 / self.took.as_secs_f64()
    }

    /// Microseconds that 99 of 100 requests stayed under.
    fn percentile_99(&mut self) -> f64 {
        let index = self.latencies.len() * 99 / 100;
        let (_, latency, _) = self.latencies.select_nth_unstable(index);
        f64::from(*latency) / 1000.0
    }

    /// That the benchmark measured what it says.
    fn check(&self, case: &Case) -> Result<(), DeviceError> {
        let (failed, all) = (self.failed, self.latencies.len());
        if failed > 0 || all == 0 {
            let message = format!("{}: {failed} of {all} requests failed", case.name);
            return Err(DeviceError::new(message));
        }
        let arrived = self.buffers.iter().all(|buffer| buffer.to_vec().iter().all(is_content));
        if case.namespace == MEMORY && !arrived {
            return Err(DeviceError::new(format!("{}: the bytes are not the disk's", case.name)));
        }
        Ok(())
    }
}

impl Task for Load {
    fn poll(&mut self, now: Timestamp) -> bool {
        let progress = self.queue.poll(now, &mut self.completions);
        let instant = Instant::now();
        for completion in self.completions.drain(..) {
            let id = completion.id.0;
            let latency = instant.duration_since(self.submitted[id as usize]);
            self.latencies.push(u32::try_from(latency.as_nanos()).unwrap_or(u32::MAX));
            self.failed += u64::from(completion.result.is_err());
            self.free.push(id);
            self.buffers.extend(completion.buffer);
        }
        self.took = instant.duration_since(self.start);
        if self.took < self.time && !self.free.is_empty() {
            self.submit(instant);
            return true;
        }
        progress
    }

    fn is_finished(&self) -> bool {
        self.took >= self.time && self.queue.in_flight() == 0
    }
}

/// The target, on a thread of its own.
struct TargetThread {
    address: SocketAddr,
    stop: MailSender<()>,
    thread: JoinHandle<Result<(), DeviceError>>,
}

impl TargetThread {
    fn start() -> Result<Self, Failure> {
        let (sender, receiver) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            pin(0);
            let (reactor, mut serving, started) = match Serving::new() {
                Ok((reactor, serving, address, stop)) => (reactor, serving, Ok((address, stop))),
                Err(error) => {
                    let _ = sender.send(Err(error.to_string()));
                    return Ok(());
                }
            };
            // The receiver only goes away after this.
            let _ = sender.send(started);
            reactor.run(&mut serving)
        });
        let (address, stop) = receiver.recv().map_err(|_| "the target's thread died")??;
        Ok(Self { address, stop, thread })
    }

    fn stop(self) -> Result<(), DeviceError> {
        // Full means told already.
        let _ = self.stop.send(());
        self.thread.join().map_err(|_| DeviceError::new("the target's thread panicked"))?
    }
}

/// The target's task, and how it is told to stop.
struct Serving {
    task: TargetTask<Box<dyn BlockQueue>>,
    stop: Mailbox<()>,
}

type Started = (Reactor, Serving, SocketAddr, MailSender<()>);

impl Serving {
    fn new() -> Result<Started, DeviceError> {
        let reactor = Reactor::new(ReactorConfig::default())?;
        let null = NullDevice::new(CAPACITY);
        let memory = MemoryDevice::new(CAPACITY)?;
        // Every page present, so that reads cost what they cost later.
        memory.overwrite(0, &vec![CONTENT; CAPACITY as usize]);
        let depth = usize::from(QUEUE_ENTRIES);
        let queues: Vec<Box<dyn BlockQueue>> = vec![
            Box::new(BlockDevice::<Reactor>::open_queue(&null, &reactor, depth)?),
            Box::new(BlockDevice::<Reactor>::open_queue(&memory, &reactor, depth)?),
        ];
        let settings = Settings { queue_entries_max: QUEUE_ENTRIES, ..Settings::default() };
        let mut target = Target::new(settings)?;
        let mut subsystem = Subsystem::new(nqn(SUBSYSTEM)?, "BENCH1")?;
        for (index, queue) in queues.iter().enumerate() {
            let uuid = HostId([index as u8 + 1; 16]);
            subsystem.add_namespace(Namespace::new(queue.geometry(), uuid)?)?;
        }
        target.add_subsystem(subsystem)?;
        let mut task = TargetTask::new(&reactor, target, vec![queues])?;
        let loopback = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let address = task.listen(loopback, Service::Subsystems)?;
        let (sender, stop) = reactor.mailbox(1)?;
        Ok((reactor, Self { task, stop }, address, sender))
    }
}

impl Task for Serving {
    fn poll(&mut self, now: Timestamp) -> bool {
        if self.stop.receive().is_some() {
            self.task.stop();
        }
        self.task.poll(now)
    }

    fn is_finished(&self) -> bool {
        self.task.is_finished()
    }
}
