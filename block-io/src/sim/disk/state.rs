//! The inside of a simulated disk: what was decided for each request in flight, and the events
//! that carry it out.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::{Rc, Weak};
use std::time::Duration;

use super::content::{Content, Effect, sectors, write_effect};
use super::faults::{DiscardEffect, DiskCounters, DiskEvent, DiskFaults, DiskLogEntry};
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
    pub(super) in_flight: BTreeMap<u64, InFlight>,
    pub(super) hung: Vec<u64>,
    pub(super) late: BTreeMap<u64, LateWrite>,
    pub(super) counters: DiskCounters,
    pub(super) log: Option<Vec<DiskLogEntry>>,
    queues: BTreeMap<u64, QueueState>,
    queues_opened: u64,
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
    queue: u64,
    request: Request,
    result: Result<(), IoError>,
    share: Share,
    lost: Lost,
    /// Parts that have not taken effect yet.
    parts: Vec<Extent>,
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
            in_flight: BTreeMap::new(),
            hung: Vec::new(),
            late: BTreeMap::new(),
            counters: DiskCounters::default(),
            log: None,
            queues: BTreeMap::new(),
            queues_opened: 0,
            requests: 0,
            seed: world.seed(),
            random: world.random("disk").fork(name),
            last_completion: Timestamp(0),
        }
    }

    pub(super) fn open_queue(&mut self) -> u64 {
        let id = self.queues_opened;
        self.queues_opened += 1;
        self.queues.insert(id, QueueState::default());
        id
    }

    pub(super) fn close_queue(&mut self, id: u64) {
        self.queues.remove(&id);
    }

    pub(super) fn queue(&mut self, id: u64) -> &mut QueueState {
        self.queues.get_mut(&id).expect("a queue's state lives until the queue is dropped")
    }

    /// Takes a request in and decides what becomes of it. Returns its number and whether it hangs.
    pub(super) fn admit(&mut self, queue: u64, request: Request, now: Timestamp) -> (u64, bool) {
        self.check_contract(queue, &request);
        let number = self.requests;
        self.requests += 1;
        let Request { operation, extent, .. } = request;
        self.counters.count(operation, extent);
        self.record(now, number, operation, extent, DiskEvent::Submitted);
        self.queue(queue).in_flight.push(request.id);
        let (result, share, lost) = self.decide(operation, extent);
        let parts = self.parts(extent);
        self.in_flight.insert(number, InFlight { queue, request, result, share, lost, parts });
        let hangs = !self.gone && self.random.chance(self.faults.hang);
        if hangs {
            self.hung.push(number);
        }
        (number, hangs)
    }

    fn check_contract(&mut self, queue: u64, request: &Request) {
        let Self { seed, name, geometry, .. } = self;
        let Request { id, operation, extent, .. } = request;
        let what = format!("seed {seed}, disk {name}: {operation:?} {extent} ({id:?})");
        if let Err(error) = geometry.check(*operation, *extent) {
            panic!("{what} was submitted against the geometry: {error}");
        }
        let carried = request.buffer.as_ref().map(|buffer| buffer.len() as u64);
        let expected = operation.carries_data().then_some(extent.length);
        assert!(carried == expected, "{what} carries {carried:?} bytes, not {expected:?}");
        let taken = self.queue(queue).in_flight.contains(id);
        assert!(!taken, "{what}: its id is in flight already");
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
    fn parts(&mut self, extent: Extent) -> Vec<Extent> {
        let count = extent.length / u64::from(SECTOR_SIZE);
        if !self.faults.reorder || count < 2 || !self.random.chance(self.faults.split) {
            return vec![extent];
        }
        let first = self.random.range(1..=count - 1) * u64::from(SECTOR_SIZE);
        vec![
            Extent::new(extent.offset, first),
            Extent::new(extent.offset + first, extent.length - first),
        ]
    }

    /// The moments of a request's parts and of its completion.
    fn schedule(&mut self, number: u64, now: Timestamp) -> (Vec<(Timestamp, Extent)>, Timestamp) {
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
        let parts = in_flight.get(&number).map(|request| request.parts.clone());
        let moments = parts.unwrap_or_default().into_iter().map(|part| {
            let moment = match faults.reorder {
                true => now + random.duration(Duration::ZERO, completion.since(now)),
                false => completion,
            };
            (moment, part)
        });
        (moments.collect(), completion)
    }

    /// One part of a request takes effect.
    fn take_effect(&mut self, number: u64, part: Extent, now: Timestamp) {
        let Some(request) = self.in_flight.get_mut(&number) else { return };
        request.parts.retain(|left| *left != part);
        let nothing = request.share == Share::Nothing || request.lost != Lost::No;
        if nothing || self.gone {
            return;
        }
        let operation = request.request.operation;
        match operation {
            Operation::Read => {
                let bytes = self.content.read(part);
                slice_of(&request.request, part).copy_from_slice(&bytes);
            }
            Operation::Flush => self.content.flush(),
            Operation::Write | Operation::Discard | Operation::WriteZeroes => {
                let share = request.share;
                let durable = self.geometry_is_durable(number);
                let effect = self.effect(number, part, share);
                self.content.apply(effect, durable);
            }
        }
        self.record(now, number, operation, part, DiskEvent::Applied);
    }

    fn geometry_is_durable(&self, number: u64) -> bool {
        let forced = |request: &InFlight| request.request.force_unit_access;
        !self.geometry.volatile_cache || self.in_flight.get(&number).is_some_and(forced)
    }

    /// What a part of a request in flight would leave on the medium now.
    fn effect(&mut self, number: u64, part: Extent, share: Share) -> Effect {
        let Some(InFlight { request, .. }) = self.in_flight.get(&number) else {
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
    fn complete(&mut self, number: u64, now: Timestamp) -> Option<Timestamp> {
        let lost = self.in_flight.get(&number)?.lost;
        let mut late = None;
        if let Lost::Late { within } = lost
            && !self.gone
        {
            late = Some(now + self.random.duration(Duration::from_nanos(1), within));
            let extent = self.in_flight.get(&number)?.request.extent;
            let effect = self.effect(number, extent, Share::Whole);
            let durable = self.geometry_is_durable(number);
            let operation = self.in_flight.get(&number)?.request.operation;
            self.late.insert(number, LateWrite { operation, extent, effect, durable });
        }
        let InFlight { queue, request, result, .. } = self.in_flight.remove(&number)?;
        let result = if self.gone { Err(IoError::Media) } else { result };
        self.record(now, number, request.operation, request.extent, DiskEvent::Completed(result));
        if result.is_err() {
            self.counters.errors += 1;
            if request.operation == Operation::Read {
                self.scribble(&request);
            }
        }
        if let Some(queue) = self.queues.get_mut(&queue) {
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
            self.content.apply(write.effect, write.durable);
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
        self.end_late_writes(now);
        let mut numbers: Vec<u64> = self.in_flight.keys().copied().collect();
        random.shuffle(&mut numbers);
        for number in numbers {
            let Some(request) = self.in_flight.get_mut(&number) else { continue };
            request.lost = Lost::No;
            request.result = Err(IoError::ConnectionLost);
            request.share = *random.choose(&[Share::Nothing, Share::Whole, Share::Torn]);
            // A flush that did not end has made nothing durable that anyone may count on.
            if request.request.operation.changes_content() {
                for part in std::mem::take(&mut request.parts) {
                    self.take_effect(number, part, now);
                }
            }
            self.complete(number, now);
        }
        self.hung.clear();
        self.content.power_cut(random);
    }

    /// The device is gone: whatever is in flight fails, even if it is back before its end.
    pub(super) fn fail_in_flight(&mut self) {
        for request in self.in_flight.values_mut() {
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
pub(super) fn start(state: &Rc<RefCell<State>>, world: &World, number: u64) {
    let (parts, completion) = state.borrow_mut().schedule(number, world.now());
    for (moment, part) in parts {
        on(state, world, moment, move |state, world| {
            state.borrow_mut().take_effect(number, part, world.now());
        });
    }
    on(state, world, completion, move |state, world| {
        let late = state.borrow_mut().complete(number, world.now());
        if let Some(moment) = late {
            on(state, world, moment, move |state, world| {
                state.borrow_mut().apply_late(number, world.now());
            });
        }
    });
}

fn on(
    state: &Rc<RefCell<State>>,
    world: &World,
    moment: Timestamp,
    event: impl FnOnce(&Rc<RefCell<State>>, &World) + 'static,
) {
    let state: Weak<RefCell<State>> = Rc::downgrade(state);
    world.schedule(moment, move |world| {
        if let Some(state) = state.upgrade() {
            event(&state, world);
        }
    });
}
