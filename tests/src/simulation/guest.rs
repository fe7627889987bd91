//! Another core that serves hits of a volume in place, as
//! [`RemoteVolume`](cache_engine::volume::cores::RemoteVolume) does, without the mailboxes: a read
//! that it cannot serve goes to the owner in the same step.
//!
//! Absent: writes and misses on their way between cores, which have tests of their own.

use block_io::sim::SimQueue;
use block_io::{BlockQueue, Completion, Extent, Operation, Request, RequestId, Timestamp};
use cache_engine::cache::VolumeId;
use cache_engine::cache::guests::{Guest, GuestHit};
use cache_engine::volume::CachedVolume;

/// What guests have done.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct GuestCounts {
    pub(super) hits: u64,
    pub(super) retries: u64,
}

/// The core. See the module.
pub(super) struct GuestCore {
    guest: Guest,
    queue: SimQueue,
    id: VolumeId,
    hits: Vec<(RequestId, Extent, GuestHit)>,
    /// What the owner had no room for.
    refused: Vec<Request>,
    arrived: Vec<Completion>,
    /// As of the last poll.
    now: Timestamp,
}

impl GuestCore {
    pub(super) fn new(guest: Guest, queue: SimQueue, id: VolumeId, now: Timestamp) -> Self {
        let (hits, refused, arrived) = (Vec::new(), Vec::new(), Vec::new());
        Self { guest, queue, id, hits, refused, arrived, now }
    }

    pub(super) fn in_flight(&self) -> usize {
        self.hits.len() + self.refused.len()
    }

    /// Begins to read a hit in place, or hands the request back, which is the owner's then.
    pub(super) fn try_hit(&mut self, request: Request) -> Result<(), Request> {
        let (id, extent) = (request.id, request.extent);
        if request.operation != Operation::Read {
            return Err(request);
        }
        let Some((hit, place)) = self.guest.lookup(self.now, extent) else { return Err(request) };
        let read = Request { extent: Extent::new(place, extent.length), ..request };
        self.queue.submit(read).map_err(|refused| Request { extent, ..refused })?;
        self.hits.push((id, extent, hit));
        Ok(())
    }

    /// Takes what the cache device has read; what is no hit any more goes to the owner.
    pub(super) fn poll<CacheDevice: BlockQueue>(
        &mut self,
        now: Timestamp,
        owner: &mut CachedVolume<SimQueue, CacheDevice>,
        done: &mut Vec<Completion>,
        counts: &mut GuestCounts,
    ) -> bool {
        self.now = now;
        let mut progress = self.queue.poll(now, &mut self.arrived);
        for completion in self.arrived.drain(..) {
            let at = self.hits.iter().position(|(id, _, _)| *id == completion.id);
            let (id, extent, hit) = self.hits.swap_remove(at.expect("a hit in flight"));
            match completion.result {
                Ok(()) if self.guest.serve(now, hit) => {
                    counts.hits += 1;
                    done.push(completion);
                    continue;
                }
                Ok(()) => counts.retries += 1,
                Err(error) => {
                    let failed = self.id;
                    owner.engine().change(|cache| cache.guest_read_failed(failed, extent, error));
                }
            }
            let buffer = completion.buffer.expect("a device gives a read's buffer back");
            self.refused.push(Request::read(id, extent.offset, buffer));
        }
        while let Some(request) = self.refused.pop() {
            if let Err(request) = owner.submit(request) {
                self.refused.push(request);
                break;
            }
            progress = true;
        }
        progress
    }
}
