//! What a driver does with the paths: streams, bytes and time.

use block_io::{IoError, Timestamp};

use super::Paths;
use super::identity::Known;
use super::path::{Change, Path};
use super::policy::Chooser;
use crate::host::connection::{Connection, Finished, Outcome};
use crate::host::requests::retry::NUMBER_SHIFT;
use crate::host::requests::{Route, Way};
use crate::host::{Controller, QueueIndex};
use crate::spec::log_page::AccessState;

impl Paths {
    /// A queue of a path that needs a stream to its controller; each is named once.
    pub fn next_stream_wanted(&mut self) -> Option<(usize, QueueIndex)> {
        let mut paths = self.paths.iter_mut().enumerate();
        paths.find_map(|(number, path)| {
            let queue = path.controller.as_mut()?.next_stream_wanted()?;
            Some((number, queue))
        })
    }

    /// The stream for a queue of a path is established.
    pub fn stream_established(&mut self, path: usize, queue: QueueIndex) {
        if let Some(controller) = self.paths.get_mut(path).and_then(|path| path.controller.as_mut())
        {
            controller.stream_established(queue);
        }
    }

    /// The stream for a queue of a path could not be established.
    pub fn stream_failed(&mut self, path: usize, queue: QueueIndex, error: IoError) {
        if let Some(controller) = self.paths.get_mut(path).and_then(|path| path.controller.as_mut())
        {
            controller.stream_failed(queue, error);
        }
    }

    /// The connection of a queue of a path, for its bytes to be moved. Absent without a stream.
    pub fn connection(&mut self, path: usize, queue: QueueIndex) -> Option<&mut Connection> {
        self.paths.get_mut(path)?.controller.as_mut()?.connection(queue)
    }

    /// The association of a path, which knows what its streams must begin with.
    pub fn association(&mut self, path: usize) -> Option<&mut Controller> {
        self.paths.get_mut(path)?.controller.as_deref_mut()
    }

    /// Whether the association of a path is at its end: streams that are still being established
    /// for it are not needed.
    pub fn is_closing(&self, path: usize) -> bool {
        let controller = self.paths.get(path).and_then(|path| path.controller.as_ref());
        controller.is_none_or(|controller| controller.error().is_some())
    }

    /// The driver has closed the stream, and no operation on it is in flight.
    pub fn stream_closed(&mut self, path: usize, queue: QueueIndex) {
        let Some(number) = (path < self.paths.len()).then_some(path) else { return };
        if let Some(connection) = self.connection(path, queue) {
            connection.transport_closed();
        }
        self.take_finished(number);
        if let Some(controller) = &mut self.paths[number].controller {
            controller.stream_closed(queue);
        }
    }

    /// Does what the time and the answers received ask for. Returns whether anything happened.
    pub fn tick(&mut self, now: Timestamp) -> bool {
        self.now = now;
        let mut progress = false;
        for number in 0..self.paths.len() {
            if let Some(controller) = &mut self.paths[number].controller {
                progress |= controller.tick(now);
            }
            progress |= self.take_finished(number);
            progress |= self.advance(number);
        }
        self.look_for_paths();
        for queue in self.queues.iter_mut().flatten() {
            progress |= queue.requests.release(now);
        }
        progress |= self.send();
        self.forget_abandoned();
        progress
    }

    /// When [`tick`](Self::tick) is needed next, if nothing else happens.
    pub fn next_deadline(&self) -> Option<Timestamp> {
        let paths = self.paths.iter().filter_map(|path| path.next_deadline(&self.settings));
        let queues = self.queues.iter().flatten();
        let releases = queues.filter_map(|queue| queue.requests.next_release());
        let fails = (!self.unreachable).then_some(self.settings.fast_io_fail).flatten();
        let fails = self.without_path.zip(fails).map(|(since, most)| since + most);
        paths.chain(releases).chain(fails).min()
    }

    /// Hands each finished command of a path to its request.
    fn take_finished(&mut self, number: usize) -> bool {
        let Self { paths, queues, now, .. } = self;
        let path = &mut paths[number];
        let mut progress = false;
        let mut use_changed = false;
        for queue in 1..=path.controller.as_ref().map_or(0, |controller| controller.io_queues()) {
            while let Some(finished) = next_finished(path, queue) {
                progress = true;
                let own = path.controller.as_mut().map(|it| it.take_own(finished));
                let Some(finished) = own.unwrap_or(Some(finished)) else { continue };
                path.load.in_flight = path.load.in_flight.saturating_sub(1);
                path.load.note(now.since(finished.submitted));
                if let Outcome::Completed(completion) = finished.outcome
                    && completion.status.is_path_related()
                {
                    use_changed |= path.take_refusal(completion.status, *now);
                }
                let queue = queues.get_mut((finished.token >> NUMBER_SHIFT) as usize);
                if let Some(queue) = queue.and_then(Option::as_mut) {
                    queue.requests.finish_on(number as u32, *now, finished);
                }
            }
        }
        if use_changed {
            self.choose_candidates();
        }
        progress
    }

    /// Takes a path through what has happened to it.
    fn advance(&mut self, number: usize) -> bool {
        let mut progress = false;
        loop {
            let Self { paths, pool, settings, chance, now, .. } = self;
            let before = paths[number].state;
            let Some(change) = paths[number].advance(pool, settings, chance, *now) else {
                return progress | (paths[number].state != before);
            };
            progress = true;
            match change {
                Change::Up => self.admit(number),
                Change::Identity => {
                    self.paths[number].take_identity(self.now);
                    self.take_identity(number);
                }
                Change::Lost => self.losses += 1,
                Change::Closed { was_live, settles } => {
                    if was_live {
                        for queue in self.queues.iter_mut().flatten() {
                            queue.requests.closed(number as u32, settles);
                        }
                    }
                }
                Change::Settled => {
                    let open = self.paths.iter().any(Path::is_unsettled);
                    self.fences += u64::from(!open);
                }
                Change::GivenUp => {}
            }
            self.choose_candidates();
        }
    }

    /// Looks at what is at the end of a path that has come up.
    fn admit(&mut self, number: usize) {
        let Some(controller) = &self.paths[number].controller else {
            return;
        };
        let found = Known::of(controller.identity());
        let difference = self.known.as_ref().and_then(|known| known.difference(&found));
        if let Some(difference) = difference {
            self.replacements += u64::from(!self.is_usable());
            self.paths[number].refuse(&difference);
            return;
        }
        self.known.get_or_insert(found);
        self.paths[number].admit(self.now);
        self.take_identity(number);
    }

    /// The last word on the namespace counts: a size that has changed is the device's.
    fn take_identity(&mut self, number: usize) {
        let Some(controller) = &self.paths[number].controller else {
            return;
        };
        let identity = controller.identity();
        self.identity = Some(identity.clone());
        let refusal = controller.namespace_refusal();
        let is_another = refusal == Some(IoError::DeviceChanged) && refusal != self.refusal;
        self.replacements += u64::from(is_another);
        self.refusal = refusal;
        for queue in self.queues.iter_mut().flatten() {
            queue.requests.refuse(self.refusal);
        }
        let Some(geometry) = identity.geometry.filter(|it| Some(*it) != self.geometry) else {
            return;
        };
        self.geometry = Some(geometry);
        for queue in self.queues.iter_mut().flatten() {
            queue.requests.set_geometry(geometry);
        }
    }

    /// The best usable paths are the ones to choose from.
    pub(super) fn choose_candidates(&mut self) {
        let is_best = |path: &Path| path.is_usable() && path.access == AccessState::Optimized;
        let any_best = self.paths.iter().any(is_best);
        self.chooser.candidates.clear();
        for (number, path) in self.paths.iter().enumerate() {
            if if any_best { is_best(path) } else { path.is_usable() } {
                self.chooser.candidates.push(number as u8);
            }
        }
        if self.is_usable() {
            self.without_path = None;
        } else {
            self.without_path.get_or_insert(self.now);
        }
    }

    /// Requests fail at once when there has been no path for too long, or none will come.
    fn look_for_paths(&mut self) {
        let is_too_long = self.without_path.is_some_and(|since| {
            let too_long = self.settings.fast_io_fail.is_some_and(|most| since + most <= self.now);
            too_long || self.is_ending || self.paths.iter().all(Path::is_given_up)
        });
        if is_too_long != self.unreachable {
            self.set_unreachable(is_too_long);
        }
    }

    pub(super) fn set_unreachable(&mut self, unreachable: bool) {
        self.unreachable = unreachable;
        for queue in self.queues.iter_mut().flatten() {
            queue.requests.set_unreachable(unreachable, self.now);
        }
    }

    fn send(&mut self) -> bool {
        let Self { paths, chooser, queues, pool, .. } = self;
        let mut progress = false;
        if chooser.candidates.is_empty() {
            return false;
        }
        for (number, queue) in queues.iter_mut().enumerate() {
            if let Some(queue) = queue {
                let mut route = Choice { paths, chooser, queue: number };
                progress |= queue.requests.send_by(&mut route, pool);
            }
        }
        progress
    }

    pub(super) fn forget_abandoned(&mut self) {
        for place in &mut self.queues {
            if let Some(queue) = place.as_mut().filter(|queue| queue.is_abandoned) {
                queue.requests.discard_completions();
                if queue.requests.in_flight() == 0 {
                    *place = None;
                }
            }
        }
    }
}

fn next_finished(path: &mut Path, queue: QueueIndex) -> Option<Finished> {
    path.controller.as_mut()?.connection(queue)?.next_finished()
}

/// The choice for one queue's commands.
struct Choice<'a> {
    paths: &'a mut [Path],
    chooser: &'a mut Chooser,
    queue: usize,
}

impl Route for Choice<'_> {
    fn next(&mut self) -> Option<Way<'_>> {
        let Self { paths, chooser, queue } = self;
        if let [only] = chooser.candidates[..] {
            return paths[usize::from(only)].way(*queue);
        }
        let first = chooser.first(|number| paths[usize::from(number)].load);
        let (before, from) = chooser.candidates.split_at(first);
        let mut places = from.iter().chain(before).map(|number| usize::from(*number));
        let number = places.find(|number| paths[*number].has_room(*queue))?;
        paths[number].way(*queue)
    }
}
