//! Does what is asked of a running cache: each request becomes calls of the engine, and an answer
//! at once or when what it began has ended.
//!
//! ```text
//!   execute(request, reply) ─┬─ answered at once ───────────────────────┐
//!                            ├─ ticket ──▶ waiting ◀── event: Done ─────┼─▶ next_answer
//!                            ├─ flush ───▶ volume's queue ◀── poll ─────┤
//!                            └─ next_change ──▶ the service, which opens devices
//! ```
//! `Reply` is whatever the caller finds the asker by; nothing is known about sockets here. What a
//! request changes is checked before anything is changed.
//!
//! Bounds: [`WAITING_MAX`] requests under way; more are refused. Absent: adding and removing
//! volumes and replacing the cache device. That takes opening devices, so whoever serves them does
//! it ([`Change`]), one after another.

use std::collections::{BTreeMap, VecDeque};

use block_io::{
    BlockQueue, DeviceError, Extent, Geometry, IoError, Request as BlockRequest, RequestId,
    Timestamp,
};

use super::model::{Answer, Curve, CurvePoint, NewVolume, Range, Request, Settings};
use super::report;
use crate::cache::policy::PolicySettings;
use crate::cache::{Event, Statistics, Ticket, VolumeId};
use crate::volume::CacheEngine;
use nvme_fabric::driver::Association;
use nvme_fabric::host::paths::Settings as PathSettings;

/// Requests under way at the most: more than a server has clients.
pub const WAITING_MAX: usize = 64;

/// A volume as the service that has it shows it.
pub trait ServedVolume {
    /// A way to the volume that nobody else has requests on.
    fn queue(&mut self) -> &mut dyn BlockQueue;
    /// Size, limits and capabilities.
    fn geometry(&self) -> Geometry;
    /// Requests in flight, whoever's.
    fn in_flight(&self) -> usize;
    /// Counters since it was added.
    fn statistics(&self) -> Statistics;
    /// Why its origin answers no more; absent while it does.
    fn fault(&self) -> Option<String>;
    /// How its origin is reached; none where it is on this machine.
    fn association(&self) -> Option<Association> {
        None
    }
    /// What holds for the paths to its origin; none where it is on this machine.
    fn path_settings(&self) -> Option<PathSettings> {
        None
    }
    /// Changes that, where there are paths.
    fn set_path_settings(&mut self, _: PathSettings) {}
    /// Bytes that its origin has by its own telling; none where it has to be asked. Cheap: it is
    /// looked at in every poll.
    fn told_size(&self) -> Option<u64> {
        None
    }
    /// Bytes that its origin has now; if they are more than before, they can be reached.
    ///
    /// # Errors
    /// When that can't be found out, or is more than can be reached.
    fn origin_size(&self) -> Result<u64, DeviceError>;
    /// Whether requests that come from now on have to wait.
    fn hold(&mut self, held: bool);
}

/// What only the service itself can do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Serve another volume.
    AddVolume(NewVolume),
    /// Serve a volume no more.
    RemoveVolume {
        /// Its name.
        volume: String,
        /// Give up what is cached of it.
        forget: bool,
    },
    /// Use another cache device.
    ReplaceCache {
        /// Its path.
        device: String,
        /// Bytes of a file to be made.
        size: Option<u64>,
        /// Format it whatever it holds.
        force_format: bool,
    },
}

/// A volume under its name.
pub(super) struct Named {
    pub(super) name: String,
    /// Absent where the origin is served alone.
    pub(super) id: Option<VolumeId>,
    pub(super) volume: Box<dyn ServedVolume>,
    /// The size that its origin told last.
    told: Option<u64>,
}

/// What waits for an event of the cache.
struct Waiting<Reply> {
    ticket: Ticket,
    /// Nobody, where the service itself began it.
    reply: Option<Reply>,
    /// The volume that it is about, where it matters.
    volume: String,
    answer: Answer,
    /// A volume whose size is to be recorded then, before the answer.
    record: Option<VolumeId>,
}

/// What waits for a flush.
struct Flushing<Reply> {
    volume: String,
    id: RequestId,
    reply: Reply,
}

/// A volume that is to be resized when nothing of it is in flight.
struct Resizing<Reply> {
    volume: String,
    /// Nobody, where the origin told its size.
    reply: Option<Reply>,
}

/// Carries out requests. See the module.
pub struct Executor<Origin, CacheDevice, Reply> {
    engine: Option<CacheEngine<Origin, CacheDevice>>,
    volumes: Vec<Named>,
    waiting: Vec<Waiting<Reply>>,
    flushing: Vec<Flushing<Reply>>,
    resizing: Vec<Resizing<Reply>>,
    changes: VecDeque<(Change, Reply)>,
    answers: VecDeque<(Reply, Answer)>,
    flushes: u64,
    resized: bool,
    notices: Vec<String>,
    /// See [`Self::set_clock`].
    now: Timestamp,
}

impl<Origin: BlockQueue, CacheDevice: BlockQueue, Reply> Executor<Origin, CacheDevice, Reply> {
    /// For a service with this cache, or none.
    pub fn new(engine: Option<CacheEngine<Origin, CacheDevice>>) -> Self {
        Self {
            engine,
            volumes: Vec::new(),
            waiting: Vec::new(),
            flushing: Vec::new(),
            resizing: Vec::new(),
            changes: VecDeque::new(),
            answers: VecDeque::new(),
            flushes: 0,
            resized: false,
            notices: Vec::new(),
            now: Timestamp::default(),
        }
    }

    /// Takes in a volume of the service. `id` is its number in the cache; none where its origin is
    /// served alone.
    ///
    /// # Errors
    /// When there is one of that name.
    pub fn add_volume(
        &mut self,
        name: &str,
        id: Option<VolumeId>,
        volume: Box<dyn ServedVolume>,
    ) -> Result<(), DeviceError> {
        if self.volumes.iter().any(|other| other.name == name) {
            return Err(DeviceError::new(format!("volume '{name}': there is one of that name")));
        }
        let told = volume.told_size();
        self.volumes.push(Named { name: name.to_owned(), id, volume, told });
        Ok(())
    }

    /// Lets go of a volume that is served no more. Whoever waits for something of it learns that.
    pub fn remove_volume(&mut self, name: &str) {
        self.volumes.retain(|one| one.name != name);
        let gone = || Answer::error(format!("volume '{name}': was removed meanwhile"));
        for one in self.flushing.extract_if(.., |one| one.volume == name) {
            self.answers.push_back((one.reply, gone()));
        }
        let resizing = self.resizing.extract_if(.., |one| one.volume == name);
        self.answers.extend(resizing.filter_map(|one| Some((one.reply?, gone()))));
    }

    /// The next thing that the service itself has to do; it answers by
    /// [`answer`](Self::answer).
    pub fn next_change(&mut self) -> Option<(Change, Reply)> {
        self.changes.pop_front()
    }

    /// Answers a [change](Self::next_change).
    pub fn answer(&mut self, reply: Reply, answer: Answer) {
        self.answers.push_back((reply, answer));
    }

    /// Whether it waits for this ticket.
    pub fn waits_for(&self, ticket: Ticket) -> bool {
        self.waiting.iter().any(|one| one.ticket == ticket)
    }

    /// Begins what is asked; the answer comes out of [`next_answer`](Self::next_answer).
    pub fn execute(&mut self, request: Request, reply: Reply) {
        if self.pending() >= WAITING_MAX {
            let message = format!("{WAITING_MAX} requests are under way already; try again");
            self.answers.push_back((reply, Answer::error(message)));
            return;
        }
        let outcome = match request {
            Request::Status {} => Ok(self.status()),
            Request::Set { settings } => self.set(&settings),
            Request::Mode { volume, mode } => self.mode(&volume, &mode),
            Request::MissRatio {} => self.miss_ratio(),
            Request::SetPaths { volume, settings } => self.set_paths(&volume, &settings),
            Request::Flush { volume } => return self.flush(&volume, reply),
            Request::Invalidate { volume, range } => {
                return match self.invalidate(&volume, range) {
                    Ok(ticket) => self.wait(ticket, reply, Answer::Done {}, None),
                    Err(message) => self.answers.push_back((reply, Answer::error(message))),
                };
            }
            Request::Resize { volume } => return self.resize(volume, Some(reply)),
            Request::Lease { volume, until_ns } => return self.lease(&volume, until_ns, reply),
            Request::AddVolume { volume } => return self.change(Change::AddVolume(volume), reply),
            Request::RemoveVolume { volume, forget } => {
                return self.change(Change::RemoveVolume { volume, forget }, reply);
            }
            Request::ReplaceCache { device, size, force_format } => {
                return self.change(Change::ReplaceCache { device, size, force_format }, reply);
            }
            Request::Target { .. } => Err("this service has volumes and no target: must be asked \
                                           of the socket of a `forebay target --config`"
                .to_owned()),
        };
        let answer = outcome.unwrap_or_else(Answer::error);
        self.answers.push_back((reply, answer));
    }

    /// Hears what the cache has to say; whoever takes the engine's events shows each of them here.
    pub fn event(&mut self, event: &Event) {
        let Event::Done(ticket) = event else { return };
        let Some(at) = self.waiting.iter().position(|one| one.ticket == *ticket) else { return };
        let ended = self.waiting.swap_remove(at);
        match ended.record.map(|id| self.record_size(id)) {
            Some(Ok(Some(ticket))) => self.waiting.push(Waiting { ticket, record: None, ..ended }),
            Some(Err(error)) => self.tell(ended.reply, &ended.volume, Answer::error(error)),
            Some(Ok(None)) | None => self.tell(ended.reply, &ended.volume, ended.answer),
        }
    }

    /// Moves flushes and resizes on, also such as an origin has begun by its telling. Returns
    /// whether anything happened.
    pub fn poll(&mut self, now: Timestamp) -> bool {
        let mut progress = self.follow_origins();
        progress |= self.poll_resizing();
        if self.flushing.is_empty() {
            return progress;
        }
        let mut ended = Vec::new();
        for named in &mut self.volumes {
            if !self.flushing.iter().any(|one| one.volume == named.name) {
                continue;
            }
            progress |= named.volume.queue().poll(now, &mut ended);
            for completion in ended.drain(..) {
                let same =
                    |one: &Flushing<Reply>| one.volume == named.name && one.id == completion.id;
                let Some(place) = self.flushing.iter().position(same) else { continue };
                let flushing = self.flushing.swap_remove(place);
                let answer = flushed(&named.name, completion.result);
                self.answers.push_back((flushing.reply, answer));
            }
        }
        progress
    }

    /// The next answer, and for whom it is.
    pub fn next_answer(&mut self) -> Option<(Reply, Answer)> {
        self.answers.pop_front()
    }

    /// Whether a volume has another size since the last time that this was asked: clients to come
    /// are to be told the new one.
    pub fn take_resized(&mut self) -> bool {
        std::mem::take(&mut self.resized)
    }

    /// Requests that are not answered yet.
    pub fn under_way(&self) -> usize {
        self.pending() + self.answers.len()
    }

    fn pending(&self) -> usize {
        self.waiting.len() + self.flushing.len() + self.resizing.len() + self.changes.len()
    }

    fn change(&mut self, change: Change, reply: Reply) {
        self.changes.push_back((change, reply));
    }

    fn wait(&mut self, ticket: Ticket, reply: Reply, answer: Answer, record: Option<VolumeId>) {
        let volume = String::new();
        self.waiting.push(Waiting { ticket, reply: Some(reply), answer, record, volume });
    }

    fn status(&self) -> Answer {
        let cache = self.engine.as_ref().map(CacheEngine::cache);
        Answer::Status(Box::new(report::status(cache.as_deref(), &self.volumes, self.now)))
    }

    fn set(&mut self, changes: &BTreeMap<String, String>) -> Result<Answer, String> {
        let engine = self.engine()?;
        let settings = changed(engine.cache().policy(), changes)?;
        engine.change(|cache| cache.set_policy(&settings)).map_err(|error| error.to_string())?;
        let cache = engine.cache();
        Ok(Answer::Settings(Settings {
            settings: report::settings(&cache),
            unknown_volumes: cache.unknown_names().to_vec(),
        }))
    }

    fn mode(&mut self, name: &str, mode: &str) -> Result<Answer, String> {
        let (_, id) = self.cached(name)?;
        let mode = mode.parse()?;
        self.engine()?.change(|cache| cache.set_mode(id, mode));
        Ok(Answer::Done {})
    }

    fn miss_ratio(&self) -> Result<Answer, String> {
        let cache = self.engine()?.cache();
        if cache.miss_ratio_memory_bytes() == 0 {
            return Err(
                "miss ratio: this cache draws no curve, because several reactors serve its \
                        reads or miss_ratio_samples is 0"
                    .into(),
            );
        }
        let point = |(size_bytes, miss_ratio)| CurvePoint { size_bytes, miss_ratio };
        Ok(Answer::MissRatio(Curve {
            line_size: cache.line_size().bytes(),
            capacity_bytes: cache.capacity(),
            points: cache.miss_ratio_curve().into_iter().map(point).collect(),
        }))
    }

    fn flush(&mut self, name: &str, reply: Reply) {
        let at = match self.find(name) {
            Ok(at) => at,
            Err(message) => return self.answers.push_back((reply, Answer::error(message))),
        };
        let volume = &mut self.volumes[at].volume;
        if volume.geometry().read_only {
            // Nobody can have written anything.
            return self.answers.push_back((reply, Answer::Done {}));
        }
        self.flushes += 1;
        let id = RequestId(self.flushes);
        match volume.queue().submit(BlockRequest::flush(id)) {
            Ok(()) => self.flushing.push(Flushing { volume: name.to_owned(), id, reply }),
            Err(_) => {
                let message = format!("volume '{name}': has as many requests as it takes; again?");
                self.answers.push_back((reply, Answer::error(message)));
            }
        }
    }

    fn invalidate(&mut self, name: &str, range: Option<Range>) -> Result<Ticket, String> {
        let (at, id) = self.cached(name)?;
        let size = self.volumes[at].volume.geometry().capacity;
        let extent = match range {
            None => Extent::new(0, size),
            Some(Range { offset, length }) => {
                let end = offset.checked_add(length).filter(|end| *end <= size && length > 0);
                end.map(|_| Extent::new(offset, length)).ok_or_else(|| {
                    format!(
                        "range {offset}+{length}: must hold at least a byte and end within the \
                         {size} bytes of volume '{name}'"
                    )
                })?
            }
        };
        let ticket = self.engine()?.change(|cache| cache.invalidate(id, extent));
        ticket.map_err(|error| error.to_string())
    }

    fn engine(&self) -> Result<&CacheEngine<Origin, CacheDevice>, String> {
        self.engine.as_ref().ok_or_else(|| {
            "there is no cache in front of the origins; start with --cache to have one".to_owned()
        })
    }

    fn find(&self, name: &str) -> Result<usize, String> {
        self.volumes.iter().position(|one| one.name == name).ok_or_else(|| {
            let names: Vec<_> = self.volumes.iter().map(|one| one.name.as_str()).collect();
            match names.is_empty() {
                true => format!("volume '{name}': there is none; add one with forebay volume add"),
                false => format!("volume '{name}': must be one of {}", names.join(", ")),
            }
        })
    }

    /// A volume with a cache in front: its place here, and its number there.
    fn cached(&self, name: &str) -> Result<(usize, VolumeId), String> {
        let at = self.find(name)?;
        let id = self.volumes[at].id.ok_or_else(|| {
            format!("volume '{name}': is served without a cache; start with --cache to have one")
        })?;
        Ok((at, id))
    }
}

fn flushed(name: &str, result: Result<(), IoError>) -> Answer {
    match result {
        Ok(()) => Answer::Done {},
        Err(error) => Answer::error(format!("volume '{name}': the flush failed: {error}")),
    }
}

/// The settings with these changes.
fn changed(
    settings: &PolicySettings,
    changes: &BTreeMap<String, String>,
) -> Result<PolicySettings, String> {
    if changes.is_empty() {
        return Err(format!("set: must name one of {}", PolicySettings::NAMES.join(", ")));
    }
    let mut changed = settings.clone();
    for (name, value) in changes {
        changed.change(name, value)?;
    }
    Ok(changed)
}

mod lease;
mod paths;
mod resize;
#[cfg(test)]
mod tests;
