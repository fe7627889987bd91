//! Volumes whose origin has another size: asked for, or told by the origin itself.
//!
//! ```text
//!   asked ──────────────┬─▶ hold its clients ─▶ nothing in flight ─▶ the cache's room ─▶ recorded
//!   told that it grew ──┘                                                  ▶ answer, or notice
//!   told that it shrank ─▶ notice
//! ```
//! A volume follows by itself only where that takes nothing away. One whose origin has shrunk stays
//! as it is, and what lies beyond fails at the origin, until somebody asks.

use block_io::BlockQueue;

use super::{Executor, Resizing, Waiting};
use crate::cache::{Cache, Ticket, VolumeId};
use crate::control::model::Answer;

impl<Origin: BlockQueue, CacheDevice: BlockQueue, Reply> Executor<Origin, CacheDevice, Reply> {
    /// What people should know of what nobody asked for, since this was asked last.
    pub fn take_notices(&mut self) -> Vec<String> {
        std::mem::take(&mut self.notices)
    }

    /// Begins to follow origins that have told another size. Returns whether there was one.
    pub(super) fn follow_origins(&mut self) -> bool {
        let mut grown = Vec::new();
        let mut progress = false;
        for named in &mut self.volumes {
            let told = named.volume.told_size();
            let (Some(before), Some(now)) = (std::mem::replace(&mut named.told, told), told) else {
                continue;
            };
            if before == now {
                continue;
            }
            progress = true;
            let name = &named.name;
            if now < before {
                self.notices.push(format!(
                    "volume '{name}': its origin has shrunk from {before} to {now} bytes; what lay \
                     beyond fails"
                ));
            } else if named.id.is_some() {
                grown.push(name.clone());
            } else {
                self.notices.push(grew(name, before, now));
            }
            // Served without a cache it has the size at once.
            self.resized |= named.id.is_none();
        }
        for name in grown {
            self.resize(name, None);
        }
        progress
    }

    /// Answers whoever asked; what nobody asked for becomes a notice.
    pub(super) fn tell(&mut self, reply: Option<Reply>, volume: &str, answer: Answer) {
        match (reply, answer) {
            (Some(reply), answer) => self.answers.push_back((reply, answer)),
            (None, Answer::Resized { before_bytes, size_bytes }) => {
                self.notices.push(grew(volume, before_bytes, size_bytes));
            }
            (None, Answer::Error { message }) => {
                self.notices.push(format!("its origin has another size, but: {message}"));
            }
            (None, _) => {}
        }
    }

    /// A volume that outgrows its room in the cache moves, with nothing of it in flight: so its
    /// clients wait for the moment that this takes.
    pub(super) fn resize(&mut self, volume: String, reply: Option<Reply>) {
        match self.find(&volume) {
            Ok(at) => {
                self.volumes[at].volume.hold(true);
                self.resizing.push(Resizing { volume, reply });
                self.poll_resizing();
            }
            Err(message) => self.tell(reply, "", Answer::error(message)),
        }
    }

    pub(super) fn poll_resizing(&mut self) -> bool {
        let volumes = &self.volumes;
        let idle =
            |name: &str| volumes.iter().any(|one| one.name == name && one.volume.in_flight() == 0);
        let Some(at) = self.resizing.iter().position(|one| idle(&one.volume)) else { return false };
        let Resizing { volume: name, reply } = self.resizing.swap_remove(at);
        match self.begin_resize(&name) {
            Ok((Some(ticket), id, answer)) => {
                self.waiting.push(Waiting {
                    ticket,
                    reply,
                    answer,
                    record: id,
                    volume: name.clone(),
                });
            }
            Ok((None, _, answer)) => self.tell(reply, &name, answer),
            Err(message) => self.tell(reply, &name, Answer::error(message)),
        }
        if !self.resizing.iter().any(|one| one.volume == name)
            && let Ok(at) = self.find(&name)
        {
            self.volumes[at].volume.hold(false);
        }
        true
    }

    fn begin_resize(
        &mut self,
        name: &str,
    ) -> Result<(Option<Ticket>, Option<VolumeId>, Answer), String> {
        let at = self.find(name)?;
        let id = self.volumes[at].id;
        let volume = &self.volumes[at].volume;
        let geometry = volume.geometry();
        let size = volume.origin_size().map_err(|error| format!("volume '{name}': {error}"))?;
        let block = u64::from(geometry.block_size);
        if size == 0 || !size.is_multiple_of(block) {
            return Err(format!(
                "volume '{name}': its origin has {size} bytes; must be a multiple of {block}, \
                 and more than 0"
            ));
        }
        let before_bytes = geometry.capacity;
        let answer = Answer::Resized { before_bytes, size_bytes: size };
        if size == before_bytes {
            return Ok((None, id, answer));
        }
        let Some(id) = id else {
            // Its queue has the new size by itself, if that can be reached.
            self.resized = size > before_bytes;
            return self.resized.then_some((None, None, answer)).ok_or_else(|| {
                format!(
                    "volume '{name}': its origin has shrunk to {size} bytes; one that is served \
                     without a cache has to be removed and added again"
                )
            });
        };
        let ticket = self.engine()?.change(|cache| cache.resize_volume(id, size));
        let ticket = ticket.map_err(|error| error.to_string())?;
        self.resized = true;
        Ok((Some(ticket), Some(id), answer))
    }

    /// Records a volume's size and place where the cache outlives the process: a start compares
    /// them with what is there.
    pub(super) fn record_size(&self, id: VolumeId) -> Result<Option<Ticket>, String> {
        let engine = self.engine()?;
        let record = {
            let cache = engine.cache();
            let known = cache.superblock().and_then(|superblock| superblock.volume(id));
            let now = cache.geometry(id).zip(cache.span(id));
            known.cloned().zip(now).map(|(mut record, (geometry, span))| {
                record.size = geometry.capacity;
                (record.base, record.span) = (span.base, span.length);
                record
            })
        };
        let Some(record) = record else { return Ok(None) };
        let ticket = engine.change(|cache: &mut Cache| cache.record_volume(record));
        ticket.map(Some).map_err(|error| error.to_string())
    }
}

fn grew(name: &str, before: u64, now: u64) -> String {
    format!("volume '{name}': has {now} bytes now, {before} before, as its origin has grown")
}
