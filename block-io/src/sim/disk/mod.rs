//! A disk in the simulated world: a [`BlockDevice`] whose every misbehaviour is a setting.
//!
//! A request takes effect at one moment (or in two parts at two) between submission and
//! completion; bytes are taken from, and put into, its buffer at that very moment, so whoever
//! changes a buffer in flight is found out. A breach of the device contract by the submitter
//! panics, with the seed.
//!
//! With a volatile cache in its geometry a write is durable after a flush or by force unit access,
//! and [`SimDisk::power_cut`] loses any subset of the others.

mod content;
mod event;
mod faults;
mod medium;
mod slab;
mod state;
#[cfg(test)]
mod tests;

use std::cell::RefCell;
use std::rc::Rc;

pub use faults::{DiscardEffect, DiskCounters, DiskEvent, DiskFaults, DiskLogEntry};
pub use medium::Medium;

use super::{Random, World};
use crate::{
    BlockDevice, BlockQueue, Buffer, Completion, DeviceError, Extent, Geometry, Request, Timestamp,
};
use state::State;

/// The disk. Cheap to clone; clones are the same disk.
#[derive(Clone)]
pub struct SimDisk {
    world: World,
    state: Rc<RefCell<State>>,
}

impl SimDisk {
    /// A zeroed disk. `name` (unique in the world) makes its random choices its own.
    ///
    /// # Panics
    /// When the capacity is no positive multiple of the block size.
    pub fn new(world: &World, name: &str, geometry: Geometry) -> Self {
        let Geometry { capacity, block_size, .. } = geometry;
        assert!(
            capacity > 0 && capacity.is_multiple_of(u64::from(block_size)),
            "disk {name}: capacity {capacity} must be a positive multiple of {block_size}"
        );
        let state = State::new(world, name, geometry);
        Self { world: world.clone(), state: Rc::new(RefCell::new(state)) }
    }

    /// The settings now.
    pub fn faults(&self) -> DiskFaults {
        self.state.borrow().faults.clone()
    }

    /// New settings for the requests submitted from now on.
    pub fn set_faults(&self, faults: DiskFaults) {
        self.state.borrow_mut().faults = faults;
    }

    /// Changes some settings; see [`set_faults`](Self::set_faults).
    pub fn change_faults(&self, change: impl FnOnce(&mut DiskFaults)) {
        change(&mut self.state.borrow_mut().faults);
    }

    /// Takes the device away (or brings it back, content and all). While it is gone every request
    /// ends with `Media`, those in flight and those that hang too, and nothing takes effect.
    pub fn fail_all(&self, gone: bool) {
        self.state.borrow_mut().gone = gone;
        if gone {
            self.state.borrow_mut().fail_in_flight();
            self.release_hung();
        }
    }

    /// Lets the hanging requests go on, each with a new latency.
    pub fn release_hung(&self) {
        let hung = std::mem::take(&mut self.state.borrow_mut().hung);
        for place in hung {
            state::start(&self.state, &self.world, place);
        }
    }

    /// Requests that hang.
    pub fn hung(&self) -> usize {
        self.state.borrow().hung.len()
    }

    /// Lost writes that may still be applied.
    pub fn late_writes(&self) -> usize {
        self.state.borrow().late.len()
    }

    /// Ends the time in which lost writes may be applied: each is applied now or never.
    pub fn fence(&self) {
        self.state.borrow_mut().end_late_writes(self.world.now());
    }

    /// Loses power, and has it back. Of the writes that are not durable, and of those in flight,
    /// an arbitrary subset stays, each whole or torn at 512 bytes. Requests in flight end with
    /// `ConnectionLost` at the next poll, if their queue is still there.
    pub fn power_cut(&self, random: &mut Random) {
        self.state.borrow_mut().power_cut(random, self.world.now());
    }

    /// The process that has its queues open is killed: the disk keeps its power and all that has
    /// landed, volatile or not. Of the writes in flight an arbitrary subset lands now, each whole
    /// or torn at 512 bytes, and none lands later.
    pub fn cut_off(&self, random: &mut Random) {
        self.state.borrow_mut().cut_off(random, self.world.now());
    }

    /// A copy of all bytes as a read would see them now.
    pub fn medium(&self) -> Medium {
        self.state.borrow().content.current().clone()
    }

    /// Replaces all bytes, durably. To be called while nothing is in flight.
    pub fn set_medium(&self, medium: Medium) {
        self.state.borrow_mut().content = content::Content::of(medium);
    }

    /// The bytes in `extent` as a read would see them now.
    pub fn content(&self, extent: Extent) -> Vec<u8> {
        self.state.borrow().content.read(extent)
    }

    /// Whether a read of `extent` would see now what is in `buffer`, which is as long.
    pub fn has_content(&self, extent: Extent, buffer: &Buffer) -> bool {
        extent.length == buffer.len() as u64
            && self.state.borrow().content.current().is_same(extent, buffer)
    }

    /// The bytes in `extent` if all that is volatile were lost.
    pub fn durable_content(&self, extent: Extent) -> Vec<u8> {
        self.state.borrow().content.durable().read(extent)
    }

    /// Whether a power cut now could lose a write that has been applied.
    pub fn has_volatile_content(&self) -> bool {
        self.state.borrow().content.has_volatile()
    }

    /// Overwrites whole sectors from outside any queue, durably.
    ///
    /// # Panics
    /// When `offset` or the length is no multiple of 512, or it is past the end.
    pub fn overwrite(&self, offset: u64, bytes: &[u8]) {
        let extent = Extent::new(offset, bytes.len() as u64);
        let mut state = self.state.borrow_mut();
        let fits = extent.is_aligned(512) && extent.end() <= state.geometry.capacity;
        assert!(fits, "overwrite of {extent}: must be whole sectors of the disk");
        state.content.apply(&content::write_effect(offset, bytes), true);
    }

    /// Requests submitted since the start or the last reset.
    pub fn counters(&self) -> DiskCounters {
        self.state.borrow().counters
    }

    /// Counts from zero again.
    pub fn reset_counters(&self) {
        self.state.borrow_mut().counters = DiskCounters::default();
    }

    /// Starts an empty log of events, or stops logging and forgets it.
    pub fn set_logging(&self, logging: bool) {
        self.state.borrow_mut().log = logging.then(Vec::new);
    }

    /// The log so far, empty when logging is off.
    pub fn log(&self) -> Vec<DiskLogEntry> {
        self.state.borrow().log.clone().unwrap_or_default()
    }

    /// Requests in flight on all queues, dropped ones too.
    pub fn in_flight(&self) -> usize {
        self.state.borrow().in_flight.len()
    }
}

impl BlockDevice<World> for SimDisk {
    type Queue = SimQueue;

    fn geometry(&self) -> Geometry {
        self.state.borrow().geometry
    }

    fn open_queue(&self, runtime: &World, depth: usize) -> Result<SimQueue, DeviceError> {
        if !runtime.is_same(&self.world) {
            let name = &self.state.borrow().name;
            return Err(DeviceError::new(format!("disk {name} is of another world")));
        }
        let id = self.state.borrow_mut().open_queue();
        Ok(SimQueue { world: self.world.clone(), state: Rc::clone(&self.state), id, depth })
    }
}

/// A queue of a [`SimDisk`]. Dropping it leaves its requests in flight to take effect; nobody
/// hears of them.
pub struct SimQueue {
    world: World,
    state: Rc<RefCell<State>>,
    id: usize,
    depth: usize,
}

impl BlockQueue for SimQueue {
    fn geometry(&self) -> Geometry {
        self.state.borrow().geometry
    }

    fn submit(&mut self, request: Request) -> Result<(), Request> {
        if self.in_flight() >= self.depth {
            return Err(request);
        }
        let (place, hangs) = self.state.borrow_mut().admit(self.id, request, self.world.now());
        if !hangs {
            state::start(&self.state, &self.world, place);
        }
        Ok(())
    }

    fn poll(&mut self, _: Timestamp, completions: &mut Vec<Completion>) -> bool {
        let mut state = self.state.borrow_mut();
        let queue = state.queue(self.id);
        if queue.done.is_empty() {
            return false;
        }
        for done in &queue.done {
            if let Some(index) = queue.in_flight.iter().position(|id| *id == done.id) {
                queue.in_flight.swap_remove(index);
            }
        }
        completions.append(&mut queue.done);
        true
    }

    fn in_flight(&self) -> usize {
        self.state.borrow_mut().queue(self.id).in_flight.len()
    }
}

impl Drop for SimQueue {
    fn drop(&mut self) {
        self.state.borrow_mut().close_queue(self.id);
    }
}
