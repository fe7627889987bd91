//! The client's requests in flight, and their cutting into parts that the device takes.

use std::collections::VecDeque;

use block_io::{Buffer, Completion, Extent, Geometry, IoError, Operation, Request, RequestId};

use super::header::Header;

/// Bytes of the shared zeroes that stand in for a write-zeroes the device does not have.
const ZEROES_LENGTH: usize = 64 << 10;

/// One client's request.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) header: Header,
    /// What is asked of the device now.
    pub(super) operation: Operation,
    pub(super) force_unit_access: bool,
    /// All of its payload.
    pub(super) buffer: Option<Buffer>,
    /// What has not been handed to the device, unless `handed_out`.
    pub(super) rest: Extent,
    pub(super) handed_out: bool,
    parts_in_flight: u32,
    parts: u32,
    error: Option<IoError>,
}

impl Slot {
    pub(super) fn new(header: Header, operation: Operation, buffer: Option<Buffer>) -> Self {
        Self {
            header,
            operation,
            force_unit_access: false,
            buffer,
            rest: header.extent,
            handed_out: false,
            parts_in_flight: 0,
            parts: 0,
            error: None,
        }
    }
}

/// All of them. The number of places is fixed at the start.
#[derive(Debug)]
pub(super) struct Slots {
    slots: Vec<Option<Slot>>,
    free: Vec<u32>,
    /// Slots with parts to hand out, in the order of arrival; only the first has handed out any.
    ready: VecDeque<u32>,
    geometry: Geometry,
    zeroes: Option<Buffer>,
}

impl Slots {
    /// `count` places. `allocate` makes the stand-in for write-zeroes when the device has none.
    pub(super) fn new(
        count: usize,
        geometry: Geometry,
        allocate: impl FnOnce(usize) -> Buffer,
    ) -> Self {
        let zeroes = (!geometry.write_zeroes && !geometry.read_only).then(|| {
            let zeroes = allocate(ZEROES_LENGTH);
            zeroes.fill(0);
            zeroes
        });
        Self {
            slots: (0..count).map(|_| None).collect(),
            free: (0..count as u32).rev().collect(),
            ready: VecDeque::with_capacity(count),
            geometry,
            zeroes,
        }
    }

    pub(super) fn has_room(&self) -> bool {
        !self.free.is_empty()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.free.len() == self.slots.len()
    }

    /// Takes a request in; it is not handed out before [`make_ready`](Self::make_ready).
    pub(super) fn insert(&mut self, slot: Slot) -> u32 {
        let index = self.free.pop().expect("the connection asks for room before a request");
        self.slots[index as usize] = Some(slot);
        index
    }

    pub(super) fn make_ready(&mut self, index: u32) {
        self.ready.push_back(index);
    }

    pub(super) fn slot(&mut self, index: u32) -> &mut Slot {
        self.slots[index as usize].as_mut().expect("the index of a request in flight")
    }

    /// The payload of a read or write in flight.
    pub(super) fn payload(&self, index: u32) -> &Buffer {
        let slot = self.slots[index as usize].as_ref();
        slot.and_then(|slot| slot.buffer.as_ref()).expect("a request in flight with a payload")
    }

    pub(super) fn remove(&mut self, index: u32) -> Slot {
        let slot = self.slots[index as usize].take().expect("the index of a request in flight");
        self.free.push(index);
        slot
    }

    /// The next part for the device.
    pub(super) fn next_request(&mut self) -> Option<Request> {
        let index = *self.ready.front()?;
        let geometry = self.geometry;
        let zeroes = self.zeroes.clone();
        let slot = self.slot(index);
        let id = RequestId(u64::from(slot.parts) << 32 | u64::from(index));
        let request = match (slot.operation, zeroes) {
            (Operation::Flush, _) => {
                slot.handed_out = true;
                Request::flush(id)
            }
            (Operation::WriteZeroes, Some(zeroes)) => {
                let length_max = u64::from(geometry.transfer_max).min(zeroes.len() as u64);
                let part = slot.cut(length_max, geometry.block_size);
                Request::write(id, part.offset, zeroes.slice(0, part.length as usize))
            }
            (operation @ (Operation::WriteZeroes | Operation::Discard), _) => {
                let part = slot.cut(geometry.zeroes_max, geometry.block_size);
                Request { operation, ..Request::discard(id, part) }
            }
            (operation @ (Operation::Read | Operation::Write), _) => {
                let part = slot.cut(u64::from(geometry.transfer_max), geometry.block_size);
                let skipped = (part.offset - slot.header.extent.offset) as usize;
                let buffer = slot.buffer.as_ref().expect("reads and writes have a payload");
                let buffer = buffer.slice(skipped, part.length as usize);
                Request { operation, ..Request::read(id, part.offset, buffer) }
            }
        };
        slot.parts += 1;
        slot.parts_in_flight += 1;
        let (handed_out, force_unit_access) = (slot.handed_out, slot.force_unit_access);
        if handed_out {
            self.ready.pop_front();
        }
        Some(request.with_force_unit_access(force_unit_access))
    }

    /// Books a part's completion; the request it belonged to and its outcome, if that was all.
    pub(super) fn complete(
        &mut self,
        completion: &Completion,
    ) -> Option<(u32, Result<(), IoError>)> {
        // The lower half of the identifier, where `next_request` put it.
        let index = completion.id.0 as u32;
        let slot = self.slot(index);
        slot.parts_in_flight -= 1;
        if let Err(error) = completion.result {
            slot.error.get_or_insert(error);
            // The rest need not be tried.
            if !std::mem::replace(&mut slot.handed_out, true) {
                self.ready.pop_front();
            }
        }
        let slot = self.slot(index);
        let finished = slot.handed_out && slot.parts_in_flight == 0;
        finished.then(|| (index, slot.error.map_or(Ok(()), Err)))
    }
}

impl Slot {
    /// Takes the next part of at most `length_max` bytes off the rest.
    fn cut(&mut self, length_max: u64, block_size: u32) -> Extent {
        let block_size = u64::from(block_size);
        let length_max = (length_max & !(block_size - 1)).max(block_size);
        let part = Extent::new(self.rest.offset, self.rest.length.min(length_max));
        self.rest = Extent::new(part.end(), self.rest.length - part.length);
        self.handed_out = self.rest.is_empty();
        part
    }
}
