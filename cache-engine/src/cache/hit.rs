//! Hits in place: a read that one line can serve, without a lock.
//!
//! ```text
//!   submit ─ lookup: slot, version ─▶ cache read ─▶ version unchanged? ─yes─▶ reply
//!                                                        └─no, or it failed─▶ the slow way
//! ```
//! The request itself, with its buffer, is what goes to the cache device and comes back: nothing is
//! cloned, no lock is taken, no piece is made. What a writer does to the line meanwhile shows in
//! the version of its set, which changes before anything else does: then the bytes are thrown away
//! and the request starts again as one that waits for its turn. Reads that overlap a write in time
//! may return either content; the version makes sure that it is one of the two.
//!
//! Absent: reads of several lines, parts of blocks where blocks must be seen whole (encryption,
//! checks of every read), lines that are unverified: these go the slow way at once.

use block_io::{Completion, Extent, IoError, Operation, Request, RequestId};

use super::Cache;
use super::blocks::BlockSet;
use super::config::{CacheMode, VolumeId};
use super::index::Hit;
use super::line::LineNumber;
use super::outbox::Token;

/// A hit in flight.
pub(crate) struct HitRead {
    id: RequestId,
    volume: VolumeId,
    hit: Hit,
    /// Flat.
    extent: Extent,
}

impl Cache {
    /// Serves a read in place if it can be; else hands it back.
    pub(super) fn try_hit(&mut self, id: VolumeId, mut request: Request) -> Result<(), Request> {
        let volume = &self.volumes[id];
        let flat = Extent::new(volume.base() + request.extent.offset, request.extent.length);
        let within = flat.offset & (self.line_size.bytes() - 1);
        if within + flat.length > self.line_size.bytes()
            || volume.mode == CacheMode::PassThrough
            || self.now >= volume.lease_end
            || !volume.doubt.is_empty()
            || self.is_being_dropped(flat)
            || (self.sees_blocks_whole(id) && !self.is_whole_blocks(id, flat))
        {
            return Err(request);
        }
        let line = LineNumber(flat.offset >> self.line_size.shift());
        let Some(hit) = self.index.lookup(line, BlockSet::touching(within, flat.length)) else {
            return Err(request);
        };
        self.policy.observe_hit(id, request.extent);
        let entry = HitRead { id: request.id, volume: id, hit, extent: flat };
        request.id = Token::Hit { hit: self.hits.insert(entry) }.id();
        request.extent.offset = self.cache_offset(hit.slot, flat.offset);
        self.outbox.cache.push(request);
        Ok(())
    }

    /// The cache device has answered a hit.
    pub(super) fn hit_done(&mut self, name: u16, completion: Completion) {
        let HitRead { id, volume, hit, extent } = self.hits.remove(name);
        let buffer = completion.buffer.expect("a device gives a read's buffer back");
        if let Err(error) = completion.result {
            self.cache_read_failed(volume, extent, error);
        } else if !self.index.still(hit) || self.now >= self.volumes[volume].lease_end {
            self.volumes[volume].statistics.hit_retries += 1;
        } else if self.open_blocks(volume, hit.slot, extent, &buffer) {
            let volume_entry = &mut self.volumes[volume];
            volume_entry.in_flight -= 1;
            volume_entry.statistics.reads += 1;
            volume_entry.statistics.read_hits += 1;
            volume_entry.statistics.read_bytes += extent.length;
            volume_entry.statistics.cache_read_bytes += extent.length;
            let reply = Completion { id, result: Ok::<(), IoError>(()), buffer: Some(buffer) };
            self.outbox.replies.push((volume, reply));
            return;
        }
        let extent = Extent::new(extent.offset - self.volumes[volume].base(), extent.length);
        let verdict = self.policy.observe(volume, Operation::Read, extent);
        self.begin(volume, verdict, Request::read(id, extent.offset, buffer));
    }
}
