//! The guest's side: hits in place on this core's own queue of the cache device, the rest to the
//! owner.
//!
//! ```text
//!   submit ─ lookup ─┬─ found ─▶ cache device ─▶ still right? ─yes─▶ completion
//!                    │                               └─no, or it failed─┐
//!                    └─ not, or no read ────────────────────────────────┴─▶ owner ─▶ completion
//! ```

use block_io::reactor::{MailSender, Mailbox, Reactor};
use block_io::{
    BlockQueue, Buffer, BufferPool, Completion, DeviceError, Extent, Geometry, IoError, Operation,
    RemoteBuffer, Request, RequestId, Returns, Timestamp,
};

use super::{Invitation, MESSAGES_A_POLL, RemoteRequest, Renewal, ToGuest, ToOwner};
use crate::cache::guests::{Guest, GuestHit};

/// A request in flight.
struct Pending {
    /// The client's.
    id: RequestId,
    /// The volume's.
    extent: Extent,
    way: Way,
}

/// Where a request is.
enum Way {
    /// On the cache device.
    Hit(GuestHit),
    /// At the owner, with its buffer or a copy of it.
    Owner(Sent),
}

/// What was sent to the owner of the client's buffer.
enum Sent {
    /// There was none.
    Nothing,
    /// Itself, of so many bytes.
    Block(usize),
    /// A copy, because the client has other views of it. A read's bytes are copied back.
    Copy { client: Buffer, is_read: bool },
}

/// Why a request is not served in place.
enum Refusal {
    /// It is the owner's.
    NoHit(Request),
    /// The queue of the cache device has no room.
    Full(Request),
}

/// A volume whose cache another core owns. Dropped before it [is idle](Self::is_idle), it loses
/// the buffers that the owner has.
pub struct RemoteVolume<CacheDevice> {
    // Closed before the guest goes, by which the owner knows that it was.
    cache_device: Option<CacheDevice>,
    guest: Option<Guest>,
    /// Where there is no guest.
    geometry: Geometry,
    /// Reads on the cache device.
    hits: usize,
    sender: MailSender<ToOwner>,
    mailbox: Mailbox<ToGuest>,
    pool: BufferPool,
    pending: Box<[Option<Pending>]>,
    free: Vec<u16>,
    /// Requests at the owner.
    at_owner: usize,
    /// Buffers that the owner keeps after its answer, and how many of those and requests in flight
    /// there may be together.
    overdue: usize,
    loans_max: usize,
    completions: Vec<Completion>,
    /// Kept for its memory.
    arrived: Vec<Completion>,
    /// What comes from the owner is ours or a copy: nothing has to be sent back.
    returns: Returns,
    /// Something was left in the owner's mailbox and not announced.
    unannounced: bool,
    /// As of the last poll.
    now: Timestamp,
}

impl<CacheDevice: BlockQueue> RemoteVolume<CacheDevice> {
    /// Follows an invitation on the core of `reactor`, with a queue of its own to the cache device,
    /// whose offsets are the owner's. Without one, everything goes to the owner.
    ///
    /// # Errors
    /// When there are no more descriptors, or the server is gone.
    pub fn accept(
        invitation: Invitation,
        reactor: &Reactor,
        cache_device: Option<CacheDevice>,
    ) -> Result<Self, DeviceError> {
        let Invitation { guest, geometry, sender, depth } = invitation;
        let stores_max = guest.as_ref().map_or(0, Guest::stores_max);
        let loans_max = depth + stores_max;
        // Answers to all requests in flight, and blocks that come after theirs.
        let (back, mailbox) = reactor.mailbox(depth + loans_max)?;
        sender
            .send(ToOwner::Hello(back))
            .map_err(|_| DeviceError::new("guest: the volume's owner serves it no more"))?;
        if let (Some(guest), None) = (&guest, &cache_device) {
            guest.leave_device();
        }
        Ok(Self {
            cache_device: cache_device.filter(|_| guest.is_some()),
            guest,
            geometry,
            hits: 0,
            sender,
            mailbox,
            pool: reactor.pool().clone(),
            pending: (0..depth).map(|_| None).collect(),
            free: (0..depth as u16).rev().collect(),
            at_owner: 0,
            overdue: 0,
            loans_max,
            completions: Vec::with_capacity(depth),
            arrived: Vec::with_capacity(depth),
            returns: Returns::default(),
            unannounced: false,
            now: reactor.now(),
        })
    }

    /// Uses the cache device that has taken the place of the one before, which it has left.
    pub fn renew(&mut self, renewal: Renewal, cache_device: Option<CacheDevice>) {
        debug_assert!(self.hits == 0, "the device before was left");
        if cache_device.is_none() {
            renewal.0.leave_device();
        }
        self.cache_device = cache_device;
        self.guest = Some(renewal.0);
    }

    /// The volume looks so now. Of a cached one the guest knows by itself.
    pub fn set_geometry(&mut self, geometry: Geometry) {
        self.geometry = geometry;
    }

    /// Whether nothing is in flight and every buffer is back.
    pub fn is_idle(&self) -> bool {
        self.in_flight() == 0 && self.overdue == 0
    }

    fn requests(&self) -> usize {
        self.pending.len() - self.free.len()
    }

    fn insert(&mut self, pending: Pending) -> RequestId {
        let name = self.free.pop().expect("submit has asked");
        self.pending[usize::from(name)] = Some(pending);
        RequestId(u64::from(name))
    }

    fn remove(&mut self, name: RequestId) -> Pending {
        self.free.push(name.0 as u16);
        self.pending[name.0 as usize].take().expect("a device answers once, and so does the owner")
    }

    /// Starts a read in place, or says why not.
    fn try_hit(&mut self, request: Request) -> Result<(), Refusal> {
        let length = request.buffer.as_ref().map(|buffer| buffer.len() as u64);
        let is_right = length == Some(request.extent.length);
        let (Some(guest), Some(_)) = (&self.guest, &self.cache_device) else {
            return Err(Refusal::NoHit(request));
        };
        let looked_up = match request.operation {
            Operation::Read if is_right => guest.lookup(self.now, request.extent),
            _ => None,
        };
        let Some((hit, place)) = looked_up else { return Err(Refusal::NoHit(request)) };
        let (id, extent) = (request.id, request.extent);
        let name = self.insert(Pending { id, extent, way: Way::Hit(hit) });
        let read = Request { id: name, extent: Extent::new(place, extent.length), ..request };
        let cache_device = self.cache_device.as_mut().expect("asked above");
        match cache_device.submit(read) {
            Ok(()) => {
                self.hits += 1;
                Ok(())
            }
            Err(refused) => {
                self.remove(name);
                Err(Refusal::Full(Request { id, extent, ..refused }))
            }
        }
    }

    fn send(&mut self, mut request: Request, failed: Option<IoError>) {
        let (id, extent) = (request.id, request.extent);
        let is_read = request.operation == Operation::Read;
        let (buffer, sent) = match request.buffer.take().map(Buffer::try_into_remote) {
            None => (None, Sent::Nothing),
            Some(Ok(block)) => {
                let length = block.len();
                (Some(block), Sent::Block(length))
            }
            Some(Err(client)) => (Some(client.copy_into_remote()), Sent::Copy { client, is_read }),
        };
        let name = self.insert(Pending { id, extent, way: Way::Owner(sent) });
        self.at_owner += 1;
        let message = ToOwner::Request(RemoteRequest {
            id: name,
            operation: request.operation,
            extent,
            force_unit_access: request.force_unit_access,
            buffer,
            failed,
            now: self.now,
        });
        match self.sender.leave(message) {
            Ok(()) => self.unannounced = true,
            // There is room for all there can be, so the owner is gone.
            Err(ToOwner::Request(refused)) => {
                let error = Err(IoError::ConnectionLost);
                self.answered(name, error, refused.buffer, false);
            }
            Err(ToOwner::Hello(_)) => unreachable!("it was a request"),
        }
    }

    /// The cache device has answered a hit.
    fn hit_done(&mut self, completion: Completion) {
        let Pending { id, extent, way } = self.remove(completion.id);
        let Way::Hit(hit) = way else { unreachable!("only hits are sent to the cache device") };
        self.hits -= 1;
        let guest = self.guest.as_ref().expect("it made the hit");
        if completion.result.is_ok() && guest.serve(self.now, hit) {
            self.completions.push(Completion { id, ..completion });
        } else {
            let failed = completion.result.err();
            let buffer = completion.buffer.expect("a device gives a read's buffer back");
            self.send(Request::read(id, extent.offset, buffer), failed);
        }
    }

    /// The owner has answered.
    fn answered(
        &mut self,
        name: RequestId,
        result: Result<(), IoError>,
        buffer: Option<RemoteBuffer>,
        copied: bool,
    ) {
        let Pending { id, way, .. } = self.remove(name);
        let Way::Owner(sent) = way else { unreachable!("only what it was sent") };
        self.at_owner -= 1;
        let buffer = buffer.map(|buffer| buffer.open(&self.returns));
        let buffer = match sent {
            Sent::Nothing => None,
            Sent::Block(length) => {
                self.overdue += usize::from(copied);
                // Lost with the owner: another one in its place.
                Some(buffer.unwrap_or_else(|| self.pool.allocate(length)))
            }
            Sent::Copy { client, is_read } => {
                if let Some(bytes) = buffer.filter(|_| is_read) {
                    client.copy_from(&bytes);
                }
                Some(client)
            }
        };
        self.completions.push(Completion { id, result, buffer });
    }

    fn take_answers(&mut self) -> bool {
        // Looking into a mailbox costs more than looking a line up.
        if self.at_owner == 0 && self.overdue == 0 {
            return false;
        }
        let owner_is_gone = self.sender.is_closed();
        let mut taken = 0;
        while taken < MESSAGES_A_POLL {
            match self.mailbox.receive() {
                None => break,
                Some(ToGuest::Done { id, result, buffer, copied }) => {
                    self.answered(id, result, buffer, copied);
                }
                Some(ToGuest::Returned(block)) => {
                    // Of a copy that we sent, nothing comes back but in the answer.
                    self.overdue -= 1;
                    drop(block.open(&self.returns));
                }
            }
            taken += 1;
        }
        if owner_is_gone && taken == 0 { self.give_up() } else { taken > 0 }
    }

    /// Closes the cache device if it is given up and nothing is under way there.
    fn leave_device(&mut self) {
        let Some(guest) = &self.guest else { return };
        if self.cache_device.is_some() && self.hits == 0 && guest.device_is_given_up() {
            self.cache_device = None;
            guest.leave_device();
            // The owner waits for it.
            self.unannounced = true;
        }
    }

    /// The owner is gone, and all that it had to say was heard.
    fn give_up(&mut self) -> bool {
        let at_owner = |pending: &Option<Pending>| {
            pending.as_ref().is_some_and(|pending| matches!(pending.way, Way::Owner(_)))
        };
        let mut gave_up = self.overdue > 0;
        self.overdue = 0;
        while let Some(name) = self.pending.iter().position(at_owner) {
            self.answered(RequestId(name as u64), Err(IoError::ConnectionLost), None, false);
            gave_up = true;
        }
        gave_up
    }
}

impl<CacheDevice: BlockQueue> BlockQueue for RemoteVolume<CacheDevice> {
    fn geometry(&self) -> Geometry {
        self.guest.as_ref().map_or(self.geometry, Guest::geometry)
    }

    fn submit(&mut self, request: Request) -> Result<(), Request> {
        if self.free.is_empty() || self.requests() + self.overdue >= self.loans_max {
            return Err(request);
        }
        match self.try_hit(request) {
            Ok(()) => {}
            Err(Refusal::NoHit(request)) => self.send(request, None),
            Err(Refusal::Full(request)) => return Err(request),
        }
        Ok(())
    }

    fn poll(&mut self, now: Timestamp, completions: &mut Vec<Completion>) -> bool {
        self.now = now;
        let mut arrived = std::mem::take(&mut self.arrived);
        let mut progress = match &mut self.cache_device {
            Some(cache_device) => cache_device.poll(now, &mut arrived),
            None => false,
        };
        for completion in arrived.drain(..) {
            self.hit_done(completion);
        }
        self.arrived = arrived;
        progress |= self.take_answers();
        self.leave_device();
        if std::mem::take(&mut self.unannounced) {
            self.sender.wake();
            progress = true;
        }
        progress |= !self.completions.is_empty();
        completions.append(&mut self.completions);
        progress
    }

    fn in_flight(&self) -> usize {
        self.requests() + self.completions.len()
    }
}
