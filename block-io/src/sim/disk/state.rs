//! The inside of a simulated disk: what was decided for each request in flight, and the events
//! that carry it out.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::{Rc, Weak};
use std::time::Duration;

use super::content::{Content, Effect, sectors, write_effect};
use super::event::{EventToken, Moment};
use super::faults::{DiscardEffect, DiskCounters, DiskEvent, DiskFaults, DiskLogEntry};
use super::slab::Slab;
use crate::sim::world::Target;
use crate::sim::{Random, World};
use crate::{
    Completion, Extent, Geometry, IoError, Operation, Request, RequestId, SECTOR_SIZE, Timestamp,
};

/// Everything about one disk.
pub(super) struct State {
    pub(super) name: String,
    pub(super) geometry: Geometry,
    pub(super) faults: DiskFaults,
    pub(super) gone: bool,
    pub(super) content: Content,
    pub(super) in_flight: Slab<InFlight>,
    /// Places in the slab.
    pub(super) hung: Vec<u32>,
    /// Lost writes by number.
    pub(super) late: BTreeMap<u64, LateWrite>,
    pub(super) counters: DiskCounters,
    pub(super) log: Option<Vec<DiskLogEntry>>,
    /// By number; absent once closed.
    queues: Vec<Option<QueueState>>,
    requests: u64,
    seed: u64,
    random: Random,
    /// The completion of the request before, for disks that keep the order.
    last_completion: Timestamp,
}

/// What a queue shares with the disk. Bounded by the queue's depth.
#[derive(Default)]
pub(super) struct QueueState {
    pub(super) done: Vec<Completion>,
    pub(super) in_flight: Vec<RequestId>,
}

/// A request and what will become of it.
pub(super) struct InFlight {
    number: u64,
    queue: usize,
    request: Request,
    result: Result<(), IoError>,
    share: Share,
    lost: Lost,
    /// In one part or two; absent once it has taken effect.
    parts: [Option<Extent>; 2],
}

/// How much of a request takes effect.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Share {
    Nothing,
    Whole,
    Torn,
    Garbage,
}

/// Whether a request's effect comes only after it was reported lost.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lost {
    No,
    Late { within: Duration },
}

/// A write that was reported lost and may be applied yet.
pub(super) struct LateWrite {
    operation: Operation,
    extent: Extent,
    effect: Effect,
    durable: bool,
}

impl State {
    pub(super) fn new(world: &World, name: &str, geometry: Geometry) -> Self {
        Self {
            name: name.to_owned(),
            geometry,
            faults: DiskFaults::default(),
            gone: false,
            content: Content::default(),
            in_flight: Slab::default(),
            hung: Vec::new(),
            late: BTreeMap::new(),
            counters: DiskCounters::default(),
            log: None,
            queues: Vec::new(),
            requests: 0,
            seed: world.seed(),
            random: world.random("disk").fork(name),
            last_completion: Timestamp(0),
        }
    }

    pub(super) fn open_queue(&mut self) -> usize {
        self.queues.push(Some(QueueState::default()));
        self.queues.len() - 1
    }

    pub(super) fn close_queue(&mut self, id: usize) {
        self.queues[id] = None;
    }

    pub(super) fn queue(&mut self, id: usize) -> &mut QueueState {
        self.queues[id].as_mut().expect("a queue's state lives until the queue is dropped")
    }

    /// Takes a request in and decides what becomes of it. Returns its place and whether it hangs.
    pub(super) fn admit(&mut self, queue: usize, request: Request, now: Timestamp) -> (u32, bool) {
        self.check_contract(queue, &request);
        let number = self.requests;
        self.requests += 1;
        let Request { operation, extent, .. } = request;
        self.counters.count(operation, extent);
        self.record(now, number, operation, extent, DiskEvent::Submitted);
        self.queue(queue).in_flight.push(request.id);
        let (result, share, lost) = self.decide(operation, extent);
        let parts = self.parts(extent);
        let request = InFlight { number, queue, request, result, share, lost, parts };
        let place = self.in_flight.insert(request);
        let hangs = !self.gone && self.random.chance(self.faults.hang);
        if hangs {
            self.hung.push(place);
        }
        (place, hangs)
    }

    fn check_contract(&mut self, queue: usize, request: &Request) {
        let Request { id, operation, extent, .. } = request;
        if let Err(error) = self.geometry.check(*operation, *extent) {
            self.breach(request, &format!("was submitted against the geometry: {error}"));
        }
        let carried = request.buffer.as_ref().map(|buffer| buffer.len() as u64);
        let expected = operation.carries_data().then_some(extent.length);
        if carried != expected {
            self.breach(request, &format!("carries {carried:?} bytes, not {expected:?}"));
        }
        if self.queue(queue).in_flight.contains(id) {
            self.breach(request, "has the id of one in flight");
        }
    }

    #[cold]
    fn breach(&self, request: &Request, what: &str) -> ! {
        let Self { seed, name, .. } = self;
        let Request { id, operation, extent, .. } = request;
        panic!("seed {seed}, disk {name}: {operation:?} {extent} ({id:?}) {what}");
    }

    fn decide(
        &mut self,
        operation: Operation,
        extent: Extent,
    ) -> (Result<(), IoError>, Share, Lost) {
        let Self { faults, random, gone, .. } = self;
        if *gone {
            return (Err(IoError::Media), Share::Nothing, Lost::No);
        }
        if operation.carries_data() && faults.bad_ranges.iter().any(|bad| bad.overlaps(extent)) {
            return (Err(IoError::Media), Share::Nothing, Lost::No);
        }
        if random.chance(faults.lost) {
            let error = *random.choose(&[IoError::ConnectionLost, IoError::TimedOut]);
            let late = operation.changes_content() && !faults.late_max.is_zero();
            return match random.below(if late { 3 } else { 2 }) {
                0 => (Err(error), Share::Nothing, Lost::No),
                1 => (Err(error), Share::Whole, Lost::No),
                _ => (Err(error), Share::Whole, Lost::Late { within: faults.late_max }),
            };
        }
        let error = Err(faults.error);
        match operation {
            Operation::Read if random.chance(faults.read_error) => {
                (error, Share::Nothing, Lost::No)
            }
            Operation::Flush if random.chance(faults.flush_error) => {
                (error, Share::Nothing, Lost::No)
            }
            Operation::Read | Operation::Flush => (Ok(()), Share::Whole, Lost::No),
            Operation::Write | Operation::Discard | Operation::WriteZeroes => {
                if random.chance(faults.write_error_nothing_applied) {
                    (error, Share::Nothing, Lost::No)
                } else if random.chance(faults.write_error_applied) {
                    (error, Share::Whole, Lost::No)
                } else if random.chance(faults.write_error_torn) {
                    (error, Share::Torn, Lost::No)
                } else if operation == Operation::Write && random.chance(faults.write_error_garbage)
                {
                    (error, Share::Garbage, Lost::No)
                } else {
                    (Ok(()), Share::Whole, Lost::No)
                }
            }
        }
    }

    /// The pieces in which a request takes effect: one or two.
    fn parts(&mut self, extent: Extent) -> [Option<Extent>; 2] {
        let count = extent.length / u64::from(SECTOR_SIZE);
        if !self.faults.reorder || count < 2 || !self.random.chance(self.faults.split) {
            return [Some(extent), None];
        }
        let first = self.random.range(1..=count - 1) * u64::from(SECTOR_SIZE);
        let second = Extent::new(extent.offset + first, extent.length - first);
        [Some(Extent::new(extent.offset, first)), Some(second)]
    }

    /// The moments of a request's parts and of its completion.
    fn schedule(&mut self, place: u32, now: Timestamp) -> ([Option<Timestamp>; 2], Timestamp) {
        let Self { faults, random, in_flight, .. } = self;
        let mut latency = random.duration(faults.latency_min, faults.latency_max);
        if random.chance(faults.slow) {
            latency += faults.slow_extra;
        }
        let mut completion = now + latency;
        if !faults.reorder {
            completion = completion.max(self.last_completion);
            self.last_completion = completion;
        }
        let parts = in_flight.get(place).map_or([None; 2], |request| request.parts);
        let moments = parts.map(|part| {
            part.map(|_| match faults.reorder {
                true => now + random.duration(Duration::ZERO, completion.since(now)),
                false => completion,
            })
        });
        (moments, completion)
    }

    /// One part of a request takes effect.
    fn take_effect(&mut self, place: u32, index: usize, now: Timestamp) {
        let durable = self.is_durable(place);
        let Some(request) = self.in_flight.get_mut(place) else { return };
        let Some(part) = request.parts[index].take() else { return };
        let nothing = request.share == Share::Nothing || request.lost != Lost::No;
        if nothing || self.gone {
            return;
        }
        let (operation, number) = (request.request.operation, request.number);
        match (operation, request.share) {
            (Operation::Read, _) => {
                self.content.current().read_to(part, &slice_of(&request.request, part));
            }
            (Operation::Flush, _) => self.content.flush(),
            (Operation::Write, Share::Whole) => {
                let source = slice_of(&request.request, part);
                self.content.write_from(part.offset, &source, durable);
            }
            (Operation::WriteZeroes, Share::Whole) => self.content.zero(part, durable),
            (Operation::Write | Operation::Discard | Operation::WriteZeroes, share) => {
                let effect = self.effect(place, part, share);
                self.content.apply(&effect, durable);
            }
        }
        self.record(now, number, operation, part, DiskEvent::Applied);
    }

    fn is_durable(&self, place: u32) -> bool {
        let forced = |request: &InFlight| request.request.force_unit_access;
        !self.geometry.volatile_cache || self.in_flight.get(place).is_some_and(forced)
    }

    /// What a part of a request in flight would leave on the medium now.
    fn effect(&mut self, place: u32, part: Extent, share: Share) -> Effect {
        let Some(InFlight { request, .. }) = self.in_flight.get(place) else {
            return Effect::new();
        };
        let bytes = match request.operation {
            Operation::Write if share == Share::Garbage => {
                vec![self.random.next_u64() as u8; part.length as usize]
            }
            Operation::Write => slice_of(request, part).to_vec(),
            Operation::WriteZeroes => vec![0; part.length as usize],
            Operation::Discard => self.discarded(part),
            Operation::Read | Operation::Flush => return Effect::new(),
        };
        let mut effect = write_effect(part.offset, &bytes);
        if share == Share::Torn {
            // Half of the torn writes stop somewhere, the others have holes.
            if self.random.coin() {
                effect.truncate(self.random.below(effect.len() as u64) as usize);
            } else {
                effect.retain(|_| self.random.coin());
            }
        }
        effect
    }

    fn discarded(&mut self, part: Extent) -> Vec<u8> {
        match self.faults.discard {
            DiscardEffect::Zeroes => vec![0; part.length as usize],
            DiscardEffect::Nothing => self.content.read(part),
            DiscardEffect::Any => {
                let mut bytes = self.content.read(part);
                for sector in bytes.chunks_exact_mut(SECTOR_SIZE as usize) {
                    match self.random.below(3) {
                        0 => sector.fill(0),
                        1 => sector.fill(self.random.next_u64() as u8),
                        _ => {}
                    }
                }
                bytes
            }
        }
    }

    /// A request ends. Returns when its late effect is to come, if there is one.
    fn complete(&mut self, place: u32, now: Timestamp) -> Option<Timestamp> {
        let InFlight { number, lost, .. } = *self.in_flight.get(place)?;
        let mut late = None;
        if let Lost::Late { within } = lost
            && !self.gone
        {
            late = Some(now + self.random.duration(Duration::from_nanos(1), within));
            let Request { operation, extent, .. } = self.in_flight.get(place)?.request;
            let effect = self.effect(place, extent, Share::Whole);
            let durable = self.is_durable(place);
            self.late.insert(number, LateWrite { operation, extent, effect, durable });
        }
        let InFlight { queue, request, result, .. } = self.in_flight.remove(place)?;
        let result = if self.gone { Err(IoError::Media) } else { result };
        self.record(now, number, request.operation, request.extent, DiskEvent::Completed(result));
        if result.is_err() {
            self.counters.errors += 1;
            if request.operation == Operation::Read {
                self.scribble(&request);
            }
        }
        if let Some(queue) = &mut self.queues[queue] {
            queue.done.push(request.complete(result));
        }
        late
    }

    /// The content of a failed read's buffer is unspecified, so nobody may rely on it.
    fn scribble(&mut self, request: &Request) {
        if let Some(buffer) = &request.buffer {
            buffer.fill(self.random.next_u64() as u8);
        }
    }

    fn apply_late(&mut self, number: u64, now: Timestamp) {
        let Some(write) = self.late.remove(&number) else { return };
        if !self.gone {
            self.content.apply(&write.effect, write.durable);
            self.record(now, number, write.operation, write.extent, DiskEvent::AppliedLate);
        }
    }

    /// Each lost write that may still come does so now or never.
    pub(super) fn end_late_writes(&mut self, now: Timestamp) {
        while let Some((&number, _)) = self.late.first_key_value() {
            if self.random.coin() {
                self.apply_late(number, now);
            } else {
                self.late.remove(&number);
            }
        }
    }

    pub(super) fn power_cut(&mut self, random: &mut Random, now: Timestamp) {
        self.cut_off(random, now);
        self.content.power_cut(random);
    }

    /// Nobody waits any more: of what is in flight, or lost, an arbitrary subset takes effect now,
    /// and nothing does later.
    pub(super) fn cut_off(&mut self, random: &mut Random, now: Timestamp) {
        self.end_late_writes(now);
        let mut requests: Vec<(u64, u32)> =
            self.in_flight.iter().map(|(place, request)| (request.number, place)).collect();
        requests.sort_unstable();
        random.shuffle(&mut requests);
        for (_, place) in requests {
            let Some(request) = self.in_flight.get_mut(place) else { continue };
            request.lost = Lost::No;
            request.result = Err(IoError::ConnectionLost);
            request.share = *random.choose(&[Share::Nothing, Share::Whole, Share::Torn]);
            // A flush that did not end has made nothing durable that anyone may count on.
            if request.request.operation.changes_content() {
                self.take_effect(place, 0, now);
                self.take_effect(place, 1, now);
            }
            self.complete(place, now);
        }
        self.hung.clear();
    }

    /// The device is gone: whatever is in flight fails, even if it is back before its end.
    pub(super) fn fail_in_flight(&mut self) {
        for (_, request) in self.in_flight.iter_mut() {
            request.result = Err(IoError::Media);
            request.share = Share::Nothing;
            request.lost = Lost::No;
        }
    }

    fn record(
        &mut self,
        time: Timestamp,
        number: u64,
        operation: Operation,
        extent: Extent,
        event: DiskEvent,
    ) {
        if let Some(log) = &mut self.log {
            log.push(DiskLogEntry { time, number, operation, extent, event });
        }
    }
}

/// The part of a request's buffer that belongs to `part` of its extent.
fn slice_of(request: &Request, part: Extent) -> crate::Buffer {
    debug_assert!(sectors(request.extent).contains(&sectors(part).start));
    let buffer = request.buffer.as_ref().expect("reads and writes carry a buffer: checked");
    buffer.slice((part.offset - request.extent.offset) as usize, part.length as usize)
}

/// Schedules the effects and the end of an admitted request.
pub(super) fn start(state: &Rc<RefCell<State>>, world: &World, place: u32) {
    let (parts, completion) = state.borrow_mut().schedule(place, world.now());
    let Some(number) = state.borrow().in_flight.get(place).map(|request| request.number) else {
        return;
    };
    let on = |time, moment| {
        let target: Weak<RefCell<State>> = Rc::downgrade(state);
        world.schedule_on(time, target, EventToken { moment, place, number }.pack());
    };
    for (index, time) in parts.into_iter().enumerate() {
        if let Some(time) = time {
            on(time, Moment::Part(index));
        }
    }
    on(completion, Moment::Completion);
}

impl Target for RefCell<State> {
    fn fire(self: Rc<Self>, world: &World, token: u64) {
        let EventToken { moment, place, number } = EventToken::unpack(token);
        let mut state = self.borrow_mut();
        let current = state.in_flight.get(place).is_some_and(|request| request.number == number);
        match moment {
            Moment::Part(index) if current => state.take_effect(place, index, world.now()),
            Moment::Completion if current => {
                if let Some(time) = state.complete(place, world.now()) {
                    let target: Weak<Self> = Rc::downgrade(&self);
                    let late = EventToken { moment: Moment::Late, place, number };
                    world.schedule_on(time, target, late.pack());
                }
            }
            Moment::Late => state.apply_late(number, world.now()),
            // It ended before its time, in a power cut.
            Moment::Part(_) | Moment::Completion => {}
        }
    }
}
