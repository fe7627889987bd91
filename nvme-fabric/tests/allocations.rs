//! In steady state a command allocates nothing, at either end.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::net::{IpAddr, Ipv4Addr};

use block_io::{Buffer, BufferPool, Geometry, PoolLayout, Request, RequestId, Timestamp};
use nvme_fabric::host::controller::Purpose;
use nvme_fabric::host::paths::{PathPolicy, Settings};
use nvme_fabric::host::{Controller, HostOptions, Paths, QueueIndex};
use nvme_fabric::pdu::{Digests, Endpoint};
use nvme_fabric::spec::nqn::{HostId, Nqn};
use nvme_fabric::target::Settings as TargetSettings;
use nvme_fabric::target::{Connection, Namespace, Subsystem, Target};

/// Counts what each thread allocates.
struct Counting;

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: the system's allocator does the work; counting allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn nqn(name: &str) -> Nqn {
    Nqn::new(name).expect("well formed")
}

/// Moves bytes from one end to the other without sockets.
fn carry(from: &mut impl Endpoint, to: &mut impl Endpoint, pieces: &mut [Vec<Buffer>; 2]) -> bool {
    let [out, into] = pieces;
    from.transmit_from(out, 64);
    to.receive_into(into);
    let (mut moved, mut at, mut offset) = (0, 0, 0);
    for piece in out.iter() {
        let mut start = 0;
        while start < piece.len() && at < into.len() {
            let place = &into[at];
            let length = (piece.len() - start).min(place.len() - offset);
            place.slice(offset, length).copy_from(&piece.slice(start, length));
            (start, offset, moved) = (start + length, offset + length, moved + length);
            if offset == place.len() {
                (at, offset) = (at + 1, 0);
            }
        }
    }
    out.clear();
    into.clear();
    if moved > 0 {
        from.transmitted(moved);
        to.received(moved);
    }
    moved > 0
}

struct Joined {
    host: Controller,
    target: Target,
    queues: Vec<Connection>,
    pieces: [Vec<Buffer>; 2],
}

impl Joined {
    fn turn(&mut self, pool: &BufferPool) -> bool {
        let now = Timestamp(1);
        let mut progress = self.host.tick(now);
        while let Some(queue) = self.host.next_stream_wanted() {
            self.host.stream_established(queue);
            let local = IpAddr::V4(Ipv4Addr::LOCALHOST);
            self.queues.push(Connection::new(self.target.settings(), pool, local, now));
            progress = true;
        }
        for (index, served) in self.queues.iter_mut().enumerate() {
            let host = self.host.connection(index as QueueIndex).expect("it has a stream");
            progress |= carry(host, served, &mut self.pieces);
            progress |= served.poll(&mut self.target, now);
            while let Some(submission) = served.next_submission() {
                served.complete(submission.request.complete(Ok(())));
                progress = true;
            }
            progress |= carry(served, host, &mut self.pieces);
        }
        progress
    }
}

#[test]
fn reads_and_writes_allocate_nothing_in_steady_state() {
    let classes = [(4096, 512), (16384, 256), (65536, 64), (131_072, 64), (1 << 20, 8)];
    let pool = BufferPool::new(PoolLayout { classes });
    let geometry = Geometry { transfer_max: 128 << 10, ..Geometry::new(16 << 20) };
    for digests in [Digests::default(), Digests { header: true, data: true }] {
        let mut target = Target::new(TargetSettings::default()).expect("settings are right");
        let name = "nqn.2014-08.com.example:count";
        let mut subsystem = Subsystem::new(nqn(name), "1").expect("a serial number");
        let namespace = Namespace::new(geometry, HostId([1; 16])).expect("a namespace");
        subsystem.add_namespace(namespace).expect("room");
        target.add_subsystem(subsystem).expect("the name is free");
        let host_id = HostId([2; 16]);
        let mut options = HostOptions::new("here", nqn(name), Nqn::from_uuid(host_id), host_id);
        options.digests = digests;
        let host = Controller::new(&pool, options, Purpose::Namespace(1), Timestamp(0))
            .expect("options are right");
        let pieces = [Vec::with_capacity(64), Vec::with_capacity(64)];
        let mut joined = Joined { host, target, queues: Vec::new(), pieces };
        while joined.turn(&pool) {}
        assert!(joined.host.is_up());
        let queue = joined.host.open_queue(32).expect("an I/O queue");
        let mut buffers: Vec<Buffer> = Vec::with_capacity(64);
        let lengths = [512, 1024, 4096, 8192, 16384, 131_072, 262_144];
        buffers.extend((0..32).map(|index| pool.allocate(lengths[index % lengths.len()])));
        let mut completions = Vec::with_capacity(64);
        let mut before = 0;
        for round in 0..400 {
            if round == 200 {
                before = COUNT.with(Cell::get);
            }
            for (index, buffer) in buffers.drain(..).enumerate() {
                let id = RequestId(index as u64);
                let request = match (index + round) % 2 {
                    0 => Request::read(id, 4096, buffer),
                    _ => Request::write(id, 4096, buffer),
                };
                joined.host.submit(queue, request).expect("room");
            }
            while joined.turn(&pool) {}
            joined.host.take_completions(queue, &mut completions);
            for completion in completions.drain(..) {
                assert_eq!(completion.result, Ok(()));
                buffers.push(completion.buffer.expect("given back"));
            }
            assert_eq!(buffers.len(), 32);
        }
        let allocated = COUNT.with(Cell::get) - before;
        assert_eq!(allocated, 0, "in {} requests, {digests:?}", 200 * 32);
    }
}

/// Paths joined to one target without sockets.
struct JoinedPaths {
    host: Paths,
    target: Target,
    served: Vec<((usize, QueueIndex), Connection)>,
    pieces: [Vec<Buffer>; 2],
}

impl JoinedPaths {
    fn turn(&mut self, pool: &BufferPool) -> bool {
        let now = Timestamp(1);
        let mut progress = self.host.tick(now);
        while let Some((path, queue)) = self.host.next_stream_wanted() {
            self.host.stream_established(path, queue);
            let local = IpAddr::V4(Ipv4Addr::LOCALHOST);
            let connection = Connection::new(self.target.settings(), pool, local, now);
            self.served.push(((path, queue), connection));
            progress = true;
        }
        for ((path, queue), served) in &mut self.served {
            let host = self.host.connection(*path, *queue).expect("it has a stream");
            progress |= carry(host, served, &mut self.pieces);
            progress |= served.poll(&mut self.target, now);
            while let Some(submission) = served.next_submission() {
                served.complete(submission.request.complete(Ok(())));
                progress = true;
            }
            progress |= carry(served, host, &mut self.pieces);
        }
        // A driver asks in every poll.
        assert!(self.host.next_deadline().is_some());
        progress
    }
}

#[test]
fn requests_over_paths_allocate_nothing_in_steady_state() {
    let classes = [(4096, 512), (16384, 256), (65536, 64), (131_072, 64), (1 << 20, 8)];
    let pool = BufferPool::new(PoolLayout { classes });
    let geometry = Geometry { transfer_max: 128 << 10, ..Geometry::new(16 << 20) };
    for (count, policy) in [
        (1, PathPolicy::RoundRobin),
        (2, PathPolicy::RoundRobin),
        (2, PathPolicy::QueueDepth),
        (2, PathPolicy::Latency),
    ] {
        let mut target = Target::new(TargetSettings::default()).expect("settings are right");
        let name = "nqn.2014-08.com.example:count";
        let mut subsystem = Subsystem::new(nqn(name), "1").expect("a serial number");
        let namespace = Namespace::new(geometry, HostId([1; 16])).expect("a namespace");
        subsystem.add_namespace(namespace).expect("room");
        target.add_subsystem(subsystem).expect("the name is free");
        let host_id = HostId([2; 16]);
        let options = HostOptions::new("here", nqn(name), Nqn::from_uuid(host_id), host_id);
        let settings = Settings { policy, ..Settings::default() };
        let host = Paths::new(&pool, vec![options; count], 1, settings, 1, Timestamp(0))
            .expect("options are right");
        let pieces = [Vec::with_capacity(64), Vec::with_capacity(64)];
        let mut joined = JoinedPaths { host, target, served: Vec::new(), pieces };
        while joined.turn(&pool) {}
        let queue = joined.host.open_queue(32).expect("a path is up");
        let mut buffers: Vec<Buffer> = Vec::with_capacity(64);
        buffers.extend((0..32).map(|index| pool.allocate([512, 8192, 131_072][index % 3])));
        let mut completions = Vec::with_capacity(64);
        let mut before = 0;
        for round in 0..400 {
            if round == 200 {
                before = COUNT.with(Cell::get);
            }
            for (index, buffer) in buffers.drain(..).enumerate() {
                let id = RequestId(index as u64);
                let request = match (index + round) % 2 {
                    0 => Request::read(id, 4096, buffer),
                    _ => Request::write(id, 4096, buffer),
                };
                joined.host.submit(queue, request).expect("room");
            }
            while joined.turn(&pool) {}
            joined.host.take_completions(queue, &mut completions);
            for completion in completions.drain(..) {
                assert_eq!(completion.result, Ok(()));
                buffers.push(completion.buffer.expect("given back"));
            }
            assert_eq!(buffers.len(), 32);
        }
        let allocated = COUNT.with(Cell::get) - before;
        assert_eq!(allocated, 0, "in {} requests over {count} paths, {policy:?}", 200 * 32);
    }
}
