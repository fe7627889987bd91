//! The host's end of an association with a target that says anything on one of its connections:
//! every request gets exactly one answer, what is said to the target is a sound stream of PDUs, and
//! the association ends when its streams do.

use std::collections::BTreeSet;

use block_io::{BufferPool, Completion, Timestamp};
use nvme_fabric::host::controller::Purpose;
use nvme_fabric::host::{Controller, QueueIndex};
use nvme_fabric::pdu::Side;

use super::record::{QUEUES, Recording, recording, workload};
use super::{
    CONTROL_DIGESTS, CONTROL_IO_QUEUE, START, check_sent, collect, deliver, digests, host_options,
};
use crate::Target;
use crate::behaviour::{Behaviour, Observer};
use crate::mutation::Random;

/// The target. The first byte is control bits, see [`super`]; what the target says on the fuzzed
/// connection follows, and is said in the portions of the recorded conversation.
pub const TARGET: Target =
    Target { name: "host_connection", length_max: 4096, run, cost: 4, seeds };

/// More turns than any conversation takes.
const TURNS_MAX: usize = 100_000;

struct Session {
    host: Controller,
    now: Timestamp,
    /// What is still to be said, by queue: after how many bytes of the host's, and what.
    to_say: [Vec<(usize, Vec<u8>)>; QUEUES],
    said: [Vec<u8>; QUEUES],
    queue: Option<QueueIndex>,
    submitted: BTreeSet<u64>,
    completions: Vec<Completion>,
    pool: BufferPool,
    random: Random,
}

fn run(input: &[u8]) -> Behaviour {
    let mut observer = Observer::default();
    let Some((control, stream)) = input.split_first() else { return observer.behaviour() };
    let mut session = Session::new(*control, stream);
    let mut turns = 0;
    while !session.host.is_over() {
        turns += 1;
        assert!(turns < TURNS_MAX, "an association that does not end");
        if !session.turn() {
            session.speak_out_of_turn();
        }
    }
    session.check(*control, &mut observer);
    observer.behaviour()
}

impl Session {
    fn new(control: u8, stream: &[u8]) -> Self {
        let pool = BufferPool::heap();
        let options = host_options(digests(control));
        let host = Controller::new(&pool, options, Purpose::Namespace(1), START);
        let fuzzed = usize::from(control & CONTROL_IO_QUEUE);
        let recording = recording(control);
        let to_say = [0, 1].map(|queue| match queue == fuzzed {
            true => portions(recording, queue, stream),
            false => portions(recording, queue, &recorded(recording, queue)),
        });
        Self {
            host: host.expect("sound options"),
            now: START,
            to_say,
            said: [Vec::new(), Vec::new()],
            queue: None,
            submitted: BTreeSet::new(),
            completions: Vec::new(),
            pool,
            random: Random::new(u64::from(control)),
        }
    }

    fn turn(&mut self) -> bool {
        let mut moved = false;
        while let Some(queue) = self.host.next_stream_wanted() {
            if usize::from(queue) < QUEUES {
                self.host.stream_established(queue);
            } else {
                self.host.stream_failed(queue, block_io::IoError::ConnectionLost);
            }
            moved = true;
        }
        moved |= self.host.tick(self.now);
        if self.host.is_up() && self.queue.is_none() {
            self.submit();
        }
        for queue in 0..QUEUES {
            moved |= self.exchange(queue);
        }
        if let Some(queue) = self.queue {
            moved |= self.host.take_completions(queue, &mut self.completions);
        }
        moved
    }

    fn submit(&mut self) {
        // The fuzzed side may have granted no I/O queue.
        let Ok(queue) = self.host.open_queue(16) else { return };
        self.queue = Some(queue);
        for request in workload(&self.pool) {
            self.submitted.insert(request.id.0);
            self.host.submit(queue, request).expect("there is room");
        }
    }

    /// Moves bytes of a queue both ways as far as it is the target's turn.
    fn exchange(&mut self, queue: usize) -> bool {
        let Some(connection) = self.host.connection(queue as QueueIndex) else { return false };
        let said = collect(connection, &mut self.random);
        self.said[queue].extend_from_slice(&said);
        let mut moved = !said.is_empty();
        while let Some((after, bytes)) = self.to_say[queue].first_mut()
            && *after <= self.said[queue].len()
            && !connection.is_over()
        {
            let longest = [1, 24, 4096, usize::MAX][self.random.below(4)];
            let taken = deliver(connection, &bytes[..bytes.len().min(longest)]);
            moved |= taken > 0;
            bytes.drain(..taken);
            if bytes.is_empty() {
                self.to_say[queue].remove(0);
            } else if taken == 0 {
                break;
            }
        }
        if connection.wants_close() {
            self.host.stream_closed(queue as QueueIndex);
            moved = true;
        }
        moved
    }

    /// Nothing moves: the target says its next portion unasked, or else closes a stream, or else
    /// time goes by.
    fn speak_out_of_turn(&mut self) {
        for queue in 0..QUEUES {
            let open = self.host.connection(queue as QueueIndex).is_some_and(|c| !c.is_over());
            if let Some((after, _)) = self.to_say[queue].first_mut().filter(|_| open)
                && *after > 0
            {
                *after = 0;
                return;
            }
        }
        let mut ended = false;
        for queue in 0..QUEUES {
            if let Some(connection) = self.host.connection(queue as QueueIndex)
                && !connection.is_over()
            {
                connection.end_of_stream();
                ended = true;
            }
        }
        if !ended {
            let deadline =
                self.host.next_deadline().expect("an association that waits for nothing");
            assert!(deadline > self.now, "a deadline that does nothing");
            self.now = deadline;
        }
    }

    fn check(&mut self, control: u8, observer: &mut Observer) {
        if let Some(queue) = self.queue {
            self.host.take_completions(queue, &mut self.completions);
        }
        for completion in &self.completions {
            let first = self.submitted.remove(&completion.id.0);
            assert!(first, "request {} was completed twice", completion.id.0);
            observer.note((completion.id.0, completion.result));
        }
        assert!(self.submitted.is_empty(), "requests {:?} got no answer", self.submitted);
        let error = self.host.error().expect("an association that is over says why");
        observer.note_message(&error.to_string(), "");
        let agreed = digests(control);
        for said in &self.said {
            // A stream that ended may have been cut within a PDU, so only what is whole counts.
            observer.note(check_sent(Side::Controller, said, agreed).len());
        }
    }
}

/// `stream` in the portions of the recorded conversation; what is longer comes at the end.
fn portions(recording: &Recording, queue: usize, stream: &[u8]) -> Vec<(usize, Vec<u8>)> {
    let mut rest = stream;
    let mut portions = Vec::new();
    for said in &recording.to_host[queue] {
        let (now, later) = rest.split_at(rest.len().min(said.bytes.len()));
        portions.push((said.after, now.to_vec()));
        rest = later;
    }
    portions.push((0, rest.to_vec()));
    portions.retain(|(_, bytes)| !bytes.is_empty());
    portions
}

fn recorded(recording: &Recording, queue: usize) -> Vec<u8> {
    let portions = recording.to_host[queue].iter().map(|said| &said.bytes[..]);
    portions.collect::<Vec<_>>().concat()
}

fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for digests in [0, CONTROL_DIGESTS] {
        let recording = recording(digests);
        seeds.push([&[digests], &recorded(recording, 0)[..]].concat());
        seeds.push([&[digests | CONTROL_IO_QUEUE], &recorded(recording, 1)[..]].concat());
    }
    seeds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_recorded_answers_every_request() {
        for seed in seeds() {
            let mut session = Session::new(seed[0], &seed[1..]);
            while session.completions.len() < workload(&session.pool).len() {
                assert!(session.turn(), "{:?}", session.host.error());
            }
            assert!(session.completions.iter().all(|completion| completion.result.is_ok()));
        }
    }
}
