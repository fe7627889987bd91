//! Guests: other cores that serve hits of a volume in place.
//!
//! ```text
//!   Guest, on any core     gate ─▶ lookup ─▶ (read of the cache device) ─▶ versions, gate ─▶ serve
//!   Cache, the owner       mode, doubt, range, health ──publish──▶ gate
//!                          statistics ◀──sum── counters
//! ```
//! A [`Guest`] is all that a core needs to know of the cache to serve a read within one line
//! without asking anybody: where the volume lies, where the lines do, and whether it may.
//! Everything else goes to the owner. A hit starts and ends on the guest's core; the owner waits
//! for none.
//!
//! Guests may serve where the owner would in place: not after the end of the volume's lease, by
//! their own reading of the clock that all cores share; not in pass-through, not while anything of
//! the volume is in doubt, not from a device that was given up, not when the run is ending; and
//! never what has to be decrypted or checked.
//!
//! Absent: the way to the owner ([`crate::volume::cores`]).

mod gate;

use std::sync::Arc;

use block_io::{DeviceError, Extent, Geometry, IoError, Timestamp};

use super::Cache;
use super::atomics::{AtomicU64, Ordering, fence};
use super::blocks::BlockSet;
use super::config::{CacheMode, LineSize, VolumeId};
use super::index::{Hit, IndexReader};
use super::lease::NEVER;
use super::line::LineNumber;
use super::statistics::Statistics;
use gate::{Gate, Pass};

/// What a guest counts. Only its core writes; the owner's reads.
#[derive(Default)]
#[repr(align(64))]
struct Counters {
    hits: AtomicU64,
    bytes: AtomicU64,
    retries: AtomicU64,
    /// 1 when the guest has left the cache device, and reads there no more.
    left: AtomicU64,
}

impl Counters {
    fn add(counter: &AtomicU64, more: u64) {
        counter.store(counter.load(Ordering::Relaxed) + more, Ordering::Relaxed);
    }

    /// Moves what was counted over. The guest is gone.
    fn take_into(&self, past: &Self) {
        let pairs =
            [(&self.hits, &past.hits), (&self.bytes, &past.bytes), (&self.retries, &past.retries)];
        for (counter, sum) in pairs {
            Self::add(sum, counter.load(Ordering::Relaxed));
        }
    }

    fn add_to(&self, statistics: &mut Statistics) {
        let [hits, bytes, retries] =
            [&self.hits, &self.bytes, &self.retries].map(|counter| counter.load(Ordering::Relaxed));
        statistics.reads += hits;
        statistics.read_hits += hits;
        statistics.read_bytes += bytes;
        statistics.cache_read_bytes += bytes;
        statistics.hit_retries += retries;
    }
}

/// A volume's gate and guests.
struct Hosted {
    gate: Arc<Gate>,
    /// Of guests that are there, or were when the last one came.
    guests: Vec<Arc<Counters>>,
    /// Of guests that are gone.
    past: Counters,
}

/// The guests of all volumes, by volume.
#[derive(Default)]
pub(super) struct Guests(Vec<Option<Hosted>>);

/// A core's leave to serve hits of one volume in place. Can be sent to the core.
pub struct Guest {
    index: IndexReader,
    gate: Arc<Gate>,
    counters: Arc<Counters>,
    line_size: LineSize,
    data_offset: u64,
    geometry: Geometry,
    stores_max: usize,
}

/// A hit that a guest is about to read.
#[derive(Clone, Copy, Debug)]
pub struct GuestHit {
    pass: Pass,
    hit: Hit,
    length: u64,
}

/// The owner's way to know what a guest is told by others than itself.
pub struct Membership(Arc<Gate>);

impl Membership {
    /// Whether the volume was removed. Another one may have its number.
    pub fn is_over(&self) -> bool {
        self.0.is_gone()
    }

    /// Whether the cache device is given up, so that the guest has to leave it.
    pub fn device_is_given_up(&self) -> bool {
        self.0.is_given_up()
    }
}

impl Guest {
    /// What the volume looks like to a client.
    pub fn geometry(&self) -> Geometry {
        Geometry { capacity: self.gate.capacity(), ..self.geometry }
    }

    /// Stores into the cache device that the owner has in flight at the most, each of which may
    /// keep a buffer of the guest's after the answer.
    pub fn stores_max(&self) -> usize {
        self.stores_max
    }

    /// The owner's end of this.
    pub fn membership(&self) -> Membership {
        Membership(Arc::clone(&self.gate))
    }

    /// Whether the cache device is given up: when no read is under way there, the guest has to
    /// [leave](Self::leave_device) it.
    pub fn device_is_given_up(&self) -> bool {
        self.gate.is_given_up()
    }

    /// The guest reads from the cache device no more, and has closed it. Only another guest will
    /// find anything again.
    pub fn leave_device(&self) {
        self.counters.left.store(1, Ordering::Release);
    }

    /// Whether hits may be served in place now.
    pub fn is_open(&self, now: Timestamp) -> bool {
        self.gate.enter(now).is_some()
    }

    /// Where on the cache device the bytes of a read can be found, if they can be served in place.
    /// When they were read, ask whether they [may be served](Self::serve).
    pub fn lookup(&self, now: Timestamp, extent: Extent) -> Option<(GuestHit, u64)> {
        let pass = self.gate.enter(now)?;
        let line_bytes = self.line_size.bytes();
        let end = extent.offset.checked_add(extent.length)?;
        // Base and size may be of different times; what comes of that is not served.
        let flat = pass.base.wrapping_add(extent.offset);
        let within = flat & (line_bytes - 1);
        if extent.length == 0 || end > pass.capacity || extent.length > line_bytes - within {
            return None;
        }
        let line = LineNumber(flat >> self.line_size.shift());
        let hit = self.index.lookup(line, BlockSet::touching(within, extent.length))?;
        let place = self.data_offset + u64::from(hit.slot.0) * line_bytes + within;
        Some((GuestHit { pass, hit, length: extent.length }, place))
    }

    /// Whether what was read for a hit by then is right, and counts it. If not, the owner has to be
    /// asked.
    pub fn serve(&self, now: Timestamp, hit: GuestHit) -> bool {
        let right = self.index.still(hit.hit) && self.gate.still(hit.pass, now);
        if right {
            Counters::add(&self.counters.hits, 1);
            Counters::add(&self.counters.bytes, hit.length);
        } else {
            Counters::add(&self.counters.retries, 1);
        }
        right
    }
}

impl Guests {
    /// Whether no guest reads from the cache device, and none that was admitted is going to.
    pub(super) fn have_left_device(&self) -> bool {
        let has_left = |counters: &Arc<Counters>| {
            let is_gone = Arc::strong_count(counters) == 1;
            // What the guest did before it went is done.
            fence(Ordering::Acquire);
            is_gone || counters.left.load(Ordering::Acquire) == 1
        };
        self.0.iter().flatten().all(|hosted| hosted.guests.iter().all(has_left))
    }

    fn hosted(&self, id: VolumeId) -> Option<&Hosted> {
        self.0.get(usize::from(id.0))?.as_ref()
    }

    /// Adds what guests of a volume counted.
    pub(super) fn add_to(&self, id: VolumeId, statistics: &mut Statistics) {
        if let Some(hosted) = self.hosted(id) {
            hosted.past.add_to(statistics);
            hosted.guests.iter().for_each(|counters| counters.add_to(statistics));
        }
    }

    /// A volume is taken out.
    pub(super) fn remove(&mut self, id: VolumeId) {
        if let Some(hosted) = self.0.get_mut(usize::from(id.0)).and_then(Option::take) {
            hosted.gate.close_for_good();
        }
    }

    fn host(&mut self, id: VolumeId) -> &mut Hosted {
        let at = usize::from(id.0);
        if self.0.len() <= at {
            self.0.resize_with(at + 1, || None);
        }
        self.0[at].get_or_insert_with(|| Hosted {
            gate: Arc::new(Gate::new()),
            guests: Vec::new(),
            past: Counters::default(),
        })
    }
}

impl Hosted {
    fn admit(&mut self) -> Arc<Counters> {
        let past = &self.past;
        self.guests.retain_mut(|counters| match Arc::get_mut(counters) {
            Some(left) => {
                left.take_into(past);
                false
            }
            None => true,
        });
        let counters = Arc::new(Counters::default());
        self.guests.push(Arc::clone(&counters));
        counters
    }
}

impl Cache {
    /// Lets another core serve hits of a volume in place.
    ///
    /// # Errors
    /// When there is no such volume.
    pub fn admit_guest(&mut self, id: VolumeId) -> Result<Guest, DeviceError> {
        let Some(volume) = self.volumes.get(id) else {
            return Err(DeviceError::new(format!("volume {}: the cache has none such", id.0)));
        };
        let geometry = volume.geometry;
        let hosted = self.guests.host(id);
        let (gate, counters) = (Arc::clone(&hosted.gate), hosted.admit());
        self.publish_gates();
        Ok(Guest {
            index: self.index.reader(),
            gate,
            counters,
            line_size: self.line_size,
            data_offset: self.data_offset,
            geometry,
            stores_max: self.fills.capacity(),
        })
    }

    /// A guest could not read from the cache device what it had looked up. `extent` is the
    /// volume's.
    pub fn guest_read_failed(&mut self, id: VolumeId, extent: Extent, error: IoError) {
        let Some(volume) = self.volumes.get(id) else { return };
        let flat = Extent::new(volume.base() + extent.offset, extent.length);
        for (_, part) in self.line_parts(flat) {
            self.cache_read_failed(id, part, error);
        }
        self.hear_keeper();
    }

    /// Opens and closes the volumes' gates as it should be now. To be called when anything has
    /// changed that they depend on, before anything is done that follows from it.
    pub(super) fn publish_gates(&self) {
        let given_up = self.health.is_degraded() || self.stopping;
        for (number, hosted) in self.guests.0.iter().enumerate() {
            let id = VolumeId(number as u16);
            let Some((hosted, volume)) = hosted.as_ref().zip(self.volumes.get(id)) else {
                continue;
            };
            let open = !given_up
                && volume.mode != CacheMode::PassThrough
                && volume.doubt.is_empty()
                && self.leaving.is_empty()
                && volume.lease_end != NEVER
                && !self.sees_blocks_whole(id);
            if open {
                hosted.gate.set_deadline(volume.lease_end);
            }
            hosted.gate.publish(open, volume.base(), volume.geometry.capacity);
            hosted.gate.set_given_up(self.health.is_degraded());
        }
    }
}
