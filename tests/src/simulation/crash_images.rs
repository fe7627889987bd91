//! What a power cut may leave on a device, at every moment of a run: records what was written and
//! flushed, builds the images, and has each of them recovered and checked.
//!
//! ```text
//!   engine ──▶ RecordingQueue ──▶ device       events: write begins, write ends, flush ends, mark
//!                    │
//!                    ▼            for each prefix of the events:
//!                Recording ─────▶ durable: ended before a flush that ended began, or forced
//!                                 at risk: every other write that began
//!                                 images:  none of them, all, subsets, torn at 512 ──▶ check
//! ```
//! A subset keeps the order in which the device may have done the writes: one that ended before
//! another began is never put over it. Writes that were in flight together come in either order.
//!
//! Absent: the engine. What a crash image means is the business of the check that is handed in,
//! which learns of the run by the marks that the test leaves between the events.

use std::cell::RefCell;
use std::rc::Rc;

use block_io::sim::{Medium, Random};
use block_io::{
    BlockQueue, Completion, Extent, Geometry, Operation, Request, RequestId, Timestamp,
};

const SECTOR: u64 = 512;

/// What happened on a device, in order. Clones are the same recording.
#[derive(Clone, Default)]
pub struct Recording(Rc<RefCell<Inner>>);

#[derive(Default)]
struct Inner {
    events: Vec<Event>,
    writes: Vec<Write>,
}

/// A moment of the recording.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    WriteBegins(usize),
    WriteEnds(usize),
    /// The events before which a write must have ended to be durable.
    FlushEnds {
        begun: usize,
    },
    Mark(u64),
}

/// A change of the device's content.
struct Write {
    offset: u64,
    bytes: Vec<u8>,
    force_unit_access: bool,
    begun: usize,
    /// Absent while it is in flight, and for ever if it failed.
    ended: Option<usize>,
}

/// How thorough to be.
#[derive(Clone, Copy, Debug)]
pub struct ImagePlan {
    /// Random subsets after each event, beside none and all; half of them torn.
    pub subsets: usize,
    /// Images after every so-manieth event only; 1 for all.
    pub stride: usize,
    /// Whether the device has a volatile cache; without it a write that has ended is durable.
    pub volatile_cache: bool,
    /// Decides the subsets.
    pub seed: u64,
}

/// What an image has of the writes that were at risk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Landed {
    /// None of them.
    Nothing,
    /// All of them.
    Everything,
    /// The random subset of this number, in whole writes.
    Subset(usize),
    /// The same, and each write that it has in any of its sectors only.
    Torn(usize),
}

/// One image.
pub struct CrashImage {
    /// The device's bytes.
    pub medium: Medium,
    /// Events before the power cut.
    pub after: usize,
    /// The newest mark before it, 0 without one.
    pub mark: u64,
    /// Which of the writes at risk it has.
    pub landed: Landed,
}

/// An image that the check refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadImage {
    /// Events before the power cut.
    pub after: usize,
    /// Which of the writes at risk it had.
    pub landed: Landed,
    /// What the check said.
    pub message: String,
}

impl Recording {
    /// A recording of nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// A queue that records what goes through it. Queues of one device share one recording.
    pub fn queue<Queue: BlockQueue>(&self, queue: Queue) -> RecordingQueue<Queue> {
        RecordingQueue { recording: Some(self.clone()), queue, in_flight: Vec::new() }
    }

    /// Notes something that the check will want to know, such as a client's answer.
    pub fn mark(&self, mark: u64) {
        self.0.borrow_mut().events.push(Event::Mark(mark));
    }

    /// Events so far.
    pub fn events(&self) -> usize {
        self.0.borrow().events.len()
    }

    /// Builds the images of power cuts after each event, over what the device held at the start,
    /// and has each checked. Returns how many there were.
    ///
    /// # Errors
    /// The first image that `check` refuses.
    pub fn check_images(
        &self,
        start: &Medium,
        plan: &ImagePlan,
        mut check: impl FnMut(&CrashImage) -> Result<(), String>,
    ) -> Result<usize, BadImage> {
        let inner = self.0.borrow();
        let mut random = Random::new(plan.seed).fork("crash images");
        let mut state = Prefix { medium: start.clone(), at_risk: Vec::new(), mark: 0 };
        let mut images = 0;
        for after in 0..=inner.events.len() {
            if after > 0 {
                state.add(&inner, after - 1, plan.volatile_cache);
            }
            if after % plan.stride.max(1) != 0 && after != inner.events.len() {
                continue;
            }
            for landed in kinds(plan, state.at_risk.len()) {
                let medium = state.image(&inner, landed, after, &mut random);
                let image = CrashImage { medium, after, mark: state.mark, landed };
                images += 1;
                check(&image).map_err(|message| BadImage { after, landed, message })?;
            }
        }
        Ok(images)
    }
}

/// What is on the device after some of the events.
struct Prefix {
    /// What is durable.
    medium: Medium,
    /// Writes that began and are not durable, by the order of their begin.
    at_risk: Vec<usize>,
    mark: u64,
}

impl Prefix {
    fn add(&mut self, inner: &Inner, event: usize, volatile_cache: bool) {
        match inner.events[event] {
            Event::WriteBegins(write) => self.at_risk.push(write),
            Event::WriteEnds(write) => {
                if !volatile_cache || inner.writes[write].force_unit_access {
                    self.make_durable(inner, |other| other == write);
                }
            }
            Event::FlushEnds { begun } => {
                self.make_durable(inner, |write| {
                    inner.writes[write].ended.is_some_and(|ended| ended < begun)
                });
            }
            Event::Mark(mark) => self.mark = mark,
        }
    }

    /// What was written before a durable write to the same place is gone with it; what was beside
    /// it, or before it elsewhere, stays at risk.
    fn make_durable(&mut self, inner: &Inner, which: impl Fn(usize) -> bool) {
        let mut durable: Vec<usize> =
            self.at_risk.iter().copied().filter(|write| which(*write)).collect();
        durable.sort_by_key(|write| inner.writes[*write].ended);
        for write in &durable {
            let Write { offset, bytes, .. } = &inner.writes[*write];
            self.medium.write(*offset, bytes);
        }
        self.at_risk.retain(|write| {
            let old = &inner.writes[*write];
            let covered = durable.iter().any(|newer| {
                let newer = &inner.writes[*newer];
                old.ended.is_some_and(|ended| ended < newer.begun)
                    && newer.extent().contains(old.extent())
            });
            !which(*write) && !covered
        });
    }

    fn image(&self, inner: &Inner, landed: Landed, after: usize, random: &mut Random) -> Medium {
        let mut medium = self.medium.clone();
        // A moment for each write within its time in flight: an order that the device may have had.
        let mut chosen: Vec<(u64, usize)> = Vec::new();
        for write in &self.at_risk {
            let Write { begun, ended, .. } = inner.writes[*write];
            let ended = ended.unwrap_or(after).clamp(begun, after);
            let moment = random.range(begun as u64 * 4 + 1..=ended as u64 * 4 + 3);
            let lands = match landed {
                Landed::Nothing => false,
                Landed::Everything => true,
                Landed::Subset(_) | Landed::Torn(_) => random.coin(),
            };
            if lands {
                chosen.push((moment, *write));
            }
        }
        chosen.sort_unstable();
        for (_, write) in chosen {
            let Write { offset, bytes, .. } = &inner.writes[write];
            if !matches!(landed, Landed::Torn(_)) {
                medium.write(*offset, bytes);
                continue;
            }
            for (sector, bytes) in (0..).zip(bytes.chunks(SECTOR as usize)) {
                if random.coin() {
                    medium.write(offset + sector * SECTOR, bytes);
                }
            }
        }
        medium
    }
}

/// The images after one event: one is enough when nothing is at risk.
fn kinds(plan: &ImagePlan, at_risk: usize) -> Vec<Landed> {
    let mut kinds = vec![Landed::Nothing];
    if at_risk > 0 {
        kinds.push(Landed::Everything);
        kinds.extend((0..plan.subsets).map(|number| match number % 2 {
            0 => Landed::Torn(number),
            _ => Landed::Subset(number),
        }));
    }
    kinds
}

impl Write {
    fn extent(&self) -> Extent {
        Extent::new(self.offset, self.bytes.len() as u64)
    }
}

/// A queue that records, or passes everything on; see [`Recording::queue`].
pub struct RecordingQueue<Queue> {
    recording: Option<Recording>,
    queue: Queue,
    in_flight: Vec<(RequestId, Pending)>,
}

/// What a request's end will mean.
#[derive(Clone, Copy)]
enum Pending {
    Write(usize),
    Flush { begun: usize },
}

impl<Queue> RecordingQueue<Queue> {
    /// A queue that records nothing, for where most runs want none.
    pub fn silent(queue: Queue) -> Self {
        Self { recording: None, queue, in_flight: Vec::new() }
    }
}

impl<Queue: BlockQueue> BlockQueue for RecordingQueue<Queue> {
    fn geometry(&self) -> Geometry {
        self.queue.geometry()
    }

    fn submit(&mut self, request: Request) -> Result<(), Request> {
        let Some(recording) = &self.recording else { return self.queue.submit(request) };
        let Request { id, operation, extent, force_unit_access, .. } = request;
        let bytes = match operation {
            Operation::Write => request.buffer.as_ref().map(block_io::Buffer::to_vec),
            // A discard is recorded as what most devices make of it.
            Operation::WriteZeroes | Operation::Discard => Some(vec![0; extent.length as usize]),
            Operation::Read | Operation::Flush => None,
        };
        self.queue.submit(request)?;
        let mut inner = recording.0.borrow_mut();
        let begun = inner.events.len();
        if let Some(bytes) = bytes {
            let write = inner.writes.len();
            let offset = extent.offset;
            inner.writes.push(Write { offset, bytes, force_unit_access, begun, ended: None });
            inner.events.push(Event::WriteBegins(write));
            self.in_flight.push((id, Pending::Write(write)));
        } else if operation == Operation::Flush {
            self.in_flight.push((id, Pending::Flush { begun }));
        }
        Ok(())
    }

    fn poll(&mut self, now: Timestamp, completions: &mut Vec<Completion>) -> bool {
        let before = completions.len();
        let progress = self.queue.poll(now, completions);
        let Some(recording) = &self.recording else { return progress };
        let mut inner = recording.0.borrow_mut();
        for Completion { id, result, .. } in &completions[before..] {
            let Some(index) = self.in_flight.iter().position(|(other, _)| other == id) else {
                continue;
            };
            let (_, pending) = self.in_flight.swap_remove(index);
            // What failed stays at risk: it may have landed, and nothing made it durable.
            if result.is_err() {
                continue;
            }
            let now = inner.events.len();
            match pending {
                Pending::Write(write) => {
                    inner.writes[write].ended = Some(now);
                    inner.events.push(Event::WriteEnds(write));
                }
                Pending::Flush { begun } => inner.events.push(Event::FlushEnds { begun }),
            }
        }
        progress
    }

    fn in_flight(&self) -> usize {
        self.queue.in_flight()
    }
}

#[cfg(test)]
mod tests;
