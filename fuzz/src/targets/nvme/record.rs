//! What two sound ends say to each other: an association is brought up, does some of everything on
//! its I/O queue, and is shut down, while both directions of both connections are written down.
//! Little data goes with it, so that most bytes of a seed are worth changing.

use std::sync::OnceLock;

use block_io::{BufferPool, Completion, Extent, Request, RequestId};
use nvme_fabric::host::controller::Purpose;
use nvme_fabric::host::{Controller, QueueIndex};

use super::target_side::{Served, TargetSide};
use super::{CONTROL_DIGESTS, START, collect, deliver, digests, host_options};
use crate::mutation::Random;

/// Queues of the association: admin and one for I/O.
pub(super) const QUEUES: usize = 2;

/// A conversation.
#[derive(Default)]
pub(super) struct Recording {
    /// What the host said, by queue.
    pub(super) to_target: [Vec<u8>; QUEUES],
    /// How much of that on the admin queue was said by the time the association was up.
    pub(super) admin_until_up: usize,
    /// What the target said, by queue, in the order and portions in which it was said.
    pub(super) to_host: [Vec<Said>; QUEUES],
}

/// A portion of what the target said.
pub(super) struct Said {
    /// Bytes of the host's on the same queue that came before it.
    pub(super) after: usize,
    pub(super) bytes: Vec<u8>,
}

/// The conversation with digests as `control` says.
pub(super) fn recording(control: u8) -> &'static Recording {
    static RECORDINGS: [OnceLock<Recording>; 2] = [OnceLock::new(), OnceLock::new()];
    let with_digests = control & CONTROL_DIGESTS;
    RECORDINGS[usize::from(with_digests != 0)].get_or_init(|| record(with_digests))
}

/// The requests that a host makes: in-capsule data, R2T, several commands for one request, and no
/// data at all.
pub(super) fn workload(pool: &BufferPool) -> Vec<Request> {
    let buffer = |length| {
        let buffer = pool.allocate(length);
        buffer.fill(0x5a);
        buffer
    };
    let id = RequestId;
    vec![
        Request::write(id(1), 0, buffer(512)),
        Request::write(id(2), 64 << 10, buffer(12 << 10)),
        Request::read(id(3), 512, buffer(512)),
        Request::read(id(4), 0, buffer(20 << 10)),
        Request::write_zeroes(id(5), Extent::new(32 << 10, 16 << 10)),
        Request::discard(id(6), Extent::new(48 << 10, 16 << 10)),
        Request::flush(id(7)),
        Request::write(id(8), 96 << 10, buffer(1024)).with_force_unit_access(true),
    ]
}

/// The PDUs of a sound stream. NVMe/TCP Transport 1.1 §3.6.1: PLEN, bytes 4 to 7
pub(super) fn pdus(mut stream: &[u8]) -> Vec<&[u8]> {
    let mut pdus = Vec::new();
    while let Some([_, _, _, _, a, b, c, d]) = stream.first_chunk() {
        let length = u32::from_le_bytes([*a, *b, *c, *d]) as usize;
        let (pdu, rest) = stream.split_at(length.min(stream.len()));
        pdus.push(pdu);
        stream = rest;
    }
    pdus
}

struct Conversation {
    host: Controller,
    side: TargetSide,
    served: [Option<Served>; QUEUES],
    recording: Recording,
    random: Random,
}

fn record(control: u8) -> Recording {
    let pool = BufferPool::heap();
    let options = host_options(digests(control));
    let host =
        Controller::new(&pool, options, Purpose::Namespace(1), START).expect("sound options");
    let mut conversation = Conversation {
        host,
        side: TargetSide::new(),
        served: [None, None],
        recording: Recording::default(),
        random: Random::new(1),
    };
    while !conversation.host.is_up() {
        assert!(conversation.turn(), "stuck before the association is up");
    }
    conversation.recording.admin_until_up = conversation.recording.to_target[0].len();
    let queue = conversation.host.open_queue(16).expect("up");
    let requests = workload(&pool);
    let count = requests.len();
    requests.into_iter().for_each(|request| {
        conversation.host.submit(queue, request).expect("room");
    });
    let mut completions: Vec<Completion> = Vec::new();
    while completions.len() < count {
        let moved = conversation.turn();
        assert!(
            conversation.host.take_completions(queue, &mut completions) || moved,
            "stuck with requests in flight"
        );
    }
    assert!(completions.iter().all(|completion| completion.result.is_ok()));
    conversation.host.shut_down();
    while conversation.turn() {}
    conversation.recording
}

impl Conversation {
    fn turn(&mut self) -> bool {
        let mut moved = false;
        while let Some(queue) = self.host.next_stream_wanted() {
            self.served[usize::from(queue)] = Some(self.side.accept(START));
            self.host.stream_established(queue);
            moved = true;
        }
        moved |= self.host.tick(START);
        for queue in 0..QUEUES {
            moved |= self.exchange(queue);
        }
        moved
    }

    fn exchange(&mut self, queue: usize) -> bool {
        let Some(served) = &mut self.served[queue] else { return false };
        let Some(host) = self.host.connection(queue as QueueIndex) else { return false };
        let said = collect(host, &mut self.random);
        self.recording.to_target[queue].extend_from_slice(&said);
        let mut rest = &said[..];
        while !rest.is_empty() && !served.connection.is_finished() {
            let taken = deliver(&mut served.connection, rest);
            rest = &rest[taken..];
            served.turn(&mut self.side.target, START, &mut self.random, false);
        }
        served.turn(&mut self.side.target, START, &mut self.random, false);
        let answer = std::mem::take(&mut served.sent);
        let mut rest = &answer[..];
        while !rest.is_empty() && !host.is_over() {
            let taken = deliver(host, rest);
            rest = &rest[taken..];
        }
        let moved = !said.is_empty() || !answer.is_empty();
        if !answer.is_empty() {
            let after = self.recording.to_target[queue].len();
            self.recording.to_host[queue].push(Said { after, bytes: answer });
        }
        moved
    }
}
