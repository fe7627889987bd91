//! A device that completes when it is told to, in the order it is told, and as badly as it is told;
//! and that never sees two requests at once of which one changes what the other touches.

use std::collections::VecDeque;

use block_io::{Extent, Operation, Request};

/// What becomes of a completed request's change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Landing {
    /// It is done.
    All,
    /// Its first half is.
    Part,
    /// Nothing is.
    None,
    /// Nothing yet; it may be done at any later time.
    Late,
    /// Something else was written where it should have gone.
    Garbage,
}

pub(super) struct Device {
    name: &'static str,
    bytes: Vec<u8>,
    in_flight: VecDeque<Request>,
    /// Whether requests that overlap, one of them a change, must come one after another.
    exclusive: bool,
    late: Vec<(Operation, Extent, Vec<u8>)>,
}

impl Device {
    pub(super) fn new(name: &'static str, capacity: u64, exclusive: bool) -> Self {
        let bytes = vec![0; capacity as usize];
        Self { name, bytes, in_flight: VecDeque::new(), exclusive, late: Vec::new() }
    }

    pub(super) fn submit(&mut self, request: Request) {
        let Request { operation, extent, .. } = &request;
        let end = self.bytes.len() as u64;
        assert!(extent.end() <= end, "{}: {operation:?} {extent} of {end}", self.name);
        for other in &self.in_flight {
            let changes = self.exclusive
                && (operation.changes_content() || other.operation.changes_content());
            assert!(
                !changes || !extent.overlaps(other.extent),
                "{}: {operation:?} {extent} beside {:?} {}",
                self.name,
                other.operation,
                other.extent
            );
        }
        self.in_flight.push_back(request);
    }

    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    pub(super) fn content(&self) -> &[u8] {
        &self.bytes
    }

    /// Changes bytes behind everybody's back.
    pub(super) fn overwrite(&mut self, offset: u64, bytes: &[u8]) {
        self.bytes[offset as usize..][..bytes.len()].copy_from_slice(bytes);
    }

    /// Ends one of the requests in flight and returns it; nothing when there is none.
    pub(super) fn complete(&mut self, which: usize, landing: Landing) -> Option<Request> {
        let count = self.in_flight.len().max(1);
        let request = self.in_flight.remove(which % count)?;
        let Request { operation, extent, buffer, .. } = &request;
        match (operation, buffer) {
            (Operation::Flush, _) => {}
            (Operation::Read, Some(buffer)) => match landing {
                Landing::All => buffer.copy_from_slice(&self.bytes[range(*extent)]),
                _ => buffer.fill(0xbd),
            },
            (_, buffer) => {
                let bytes = buffer
                    .as_ref()
                    .map_or_else(|| vec![0; extent.length as usize], |buffer| buffer.to_vec());
                self.land(*operation, *extent, bytes, landing);
            }
        }
        Some(request)
    }

    fn land(&mut self, operation: Operation, extent: Extent, bytes: Vec<u8>, landing: Landing) {
        let target = &mut self.bytes[range(extent)];
        match landing {
            Landing::All => target.copy_from_slice(&bytes),
            Landing::Part => {
                // In whole sectors: a sector is old or new.
                let half = bytes.len() / 1024 * 512;
                target[..half].copy_from_slice(&bytes[..half]);
            }
            Landing::None => {}
            Landing::Late => self.late.push((operation, extent, bytes)),
            Landing::Garbage => target.fill(0xbd),
        }
    }

    /// One of the late changes is done now.
    pub(super) fn land_late(&mut self, which: usize) {
        if !self.late.is_empty() {
            let (operation, extent, bytes) = self.late.remove(which % self.late.len());
            self.land(operation, extent, bytes, Landing::All);
        }
    }

    /// None of them ever will be.
    pub(super) fn forget_late(&mut self) {
        self.late.clear();
    }
}

fn range(extent: Extent) -> std::ops::Range<usize> {
    extent.offset as usize..extent.end() as usize
}
