//! The owner's side of a guest: takes its requests from the mailbox, has the volume do them, sends
//! answers and buffers back.

use block_io::device::shared::SharedQueue;
use block_io::reactor::{MailSender, Mailbox, Reactor};
use block_io::{
    BlockQueue, Buffer, Completion, DeviceError, Extent, Geometry, IoError, Request, Returns,
    Timestamp,
};

use super::{MESSAGES_A_POLL, RemoteRequest, ToGuest, ToOwner};
use crate::cache::guests::{Guest, Membership};
use crate::volume::CachedVolume;

/// A queue that other cores may use through its owner.
pub trait Hosting: BlockQueue {
    /// Whether guests may serve hits in place.
    fn is_cached(&self) -> bool;

    /// Leave for another core to serve hits in place; none where nothing is cached.
    ///
    /// # Errors
    /// When the volume was removed.
    fn admit_guest(&self) -> Result<Option<Guest>, DeviceError>;

    /// A guest could not read from the cache device what it had looked up.
    fn guest_read_failed(&self, extent: Extent, error: IoError);

    /// A guest has seen that it is so late; see [`Cache::observe`](crate::cache::Cache::observe).
    fn guest_time(&self, now: Timestamp);
}

impl<Origin: BlockQueue, CacheDevice: BlockQueue> Hosting for CachedVolume<Origin, CacheDevice> {
    fn is_cached(&self) -> bool {
        true
    }

    fn admit_guest(&self) -> Result<Option<Guest>, DeviceError> {
        self.engine().change(|cache| cache.admit_guest(self.id())).map(Some)
    }

    fn guest_read_failed(&self, extent: Extent, error: IoError) {
        self.engine().change(|cache| cache.guest_read_failed(self.id(), extent, error));
    }

    fn guest_time(&self, now: Timestamp) {
        self.engine().change(|cache| cache.observe(now));
    }
}

/// Leave for another core to use a volume. Send it there and
/// [accept](super::RemoteVolume::accept) it.
pub struct Invitation {
    pub(super) guest: Option<Guest>,
    /// Where there is no guest.
    pub(super) geometry: Geometry,
    pub(super) sender: MailSender<ToOwner>,
    pub(super) depth: usize,
}

/// Leave for a guest to use the cache device that has taken the place of another one. Send it to
/// the core and [renew](super::RemoteVolume::renew) its volume.
pub struct Renewal(pub(super) Guest);

impl Invitation {
    /// What the volume looks like.
    pub fn geometry(&self) -> Geometry {
        self.guest.as_ref().map_or(self.geometry, Guest::geometry)
    }

    /// Whether hits may be served in place, from a queue of the guest's own.
    pub fn is_cached(&self) -> bool {
        self.guest.is_some()
    }

    /// Requests that the guest may have in flight: the depth that its queue of the cache device
    /// should have.
    pub fn depth(&self) -> usize {
        self.depth
    }
}

/// Serves one guest, on the owner's core.
///
/// Dropped before it is [finished](Self::is_finished), it ends the guest's requests in flight with
/// an error, and their buffers are lost to the guest's pool.
pub struct RemoteServer<Volume: Hosting> {
    volume: SharedQueue<Volume>,
    membership: Option<Membership>,
    /// The guest was woken to leave the cache device.
    told_to_leave: bool,
    // Closed before the way back is, whose end wakes the guest to see it.
    incoming: Mailbox<ToOwner>,
    outgoing: Option<MailSender<ToGuest>>,
    /// What the cache had no room for.
    refused: Option<Request>,
    lent: Returns,
    completions: Vec<Completion>,
    /// Something was left in the guest's mailbox and not announced.
    unannounced: bool,
    /// The guest is gone, and all that it asked for was taken.
    ended: bool,
}

impl<Volume: Hosting> RemoteServer<Volume> {
    /// A server for a guest of `volume`, and what to send to the guest's core. `reactor` is this
    /// core's; `depth` is how many requests the guest may have in flight.
    ///
    /// # Errors
    /// When `depth` is zero or 2^16 - 1 or more, the volume was removed, or there are no more
    /// descriptors.
    pub fn new(
        volume: &SharedQueue<Volume>,
        reactor: &Reactor,
        depth: usize,
    ) -> Result<(Self, Invitation), DeviceError> {
        if depth == 0 || depth >= usize::from(u16::MAX) {
            return Err(DeviceError::new(format!("guest depth {depth}: must be 1 to 65534")));
        }
        let volume = volume.another();
        let guest = volume.with_queue(|volume| volume.admit_guest())?;
        let geometry = volume.geometry();
        // Requests and the first message.
        let (sender, incoming) = reactor.mailbox(depth + 1)?;
        let server = Self {
            membership: guest.as_ref().map(Guest::membership),
            told_to_leave: false,
            incoming,
            outgoing: None,
            refused: None,
            lent: Returns::default(),
            completions: Vec::with_capacity(depth),
            unannounced: false,
            ended: false,
            volume,
        };
        Ok((server, Invitation { guest, geometry, sender, depth }))
    }

    /// Lets the guest use the cache device that has taken the place of the one that it came for.
    ///
    /// # Errors
    /// When the volume was removed, or nothing is cached.
    pub fn renew(&self) -> Result<Renewal, DeviceError> {
        let guest = self.volume.with_queue(|volume| volume.admit_guest())?;
        guest.map(Renewal).ok_or_else(|| DeviceError::new("guest: its volume has no cache"))
    }

    /// Moves what can be moved. Returns whether anything happened; after `true` it is to be called
    /// again before the core sleeps.
    pub fn poll(&mut self, now: Timestamp) -> bool {
        let mut progress = self.take_requests();
        if self.volume.in_flight() > 0 {
            progress |= self.volume.poll(now, &mut self.completions);
        }
        let mut completions = std::mem::take(&mut self.completions);
        for completion in completions.drain(..) {
            self.answer(completion);
        }
        self.completions = completions;
        while let Some(block) = self.lent.take() {
            self.leave(ToGuest::Returned(block));
        }
        self.unannounced |= self.tell_to_leave();
        if std::mem::take(&mut self.unannounced)
            && let Some(outgoing) = &self.outgoing
        {
            outgoing.wake();
            progress = true;
        }
        progress
    }

    /// Whether the guest is gone and nothing of it is left.
    pub fn is_finished(&self) -> bool {
        self.ended && self.volume.in_flight() == 0
    }

    /// Whether the guest has to be woken, because it has to leave the cache device.
    fn tell_to_leave(&mut self) -> bool {
        let given_up = self.membership.as_ref().is_some_and(Membership::device_is_given_up);
        let before = std::mem::replace(&mut self.told_to_leave, given_up);
        given_up && !before
    }

    /// Returns whether there was any.
    fn take_requests(&mut self) -> bool {
        let guest_is_gone = self.incoming.is_closed();
        let mut taken = 0;
        while taken < MESSAGES_A_POLL {
            let Some(request) = self.refused.take().or_else(|| self.next_request()) else {
                self.ended = guest_is_gone;
                break;
            };
            if let Err(refused) = self.volume.submit(request) {
                self.refused = Some(refused);
                break;
            }
            taken += 1;
        }
        taken > 0
    }

    /// The next request for the cache. Others are answered at once.
    fn next_request(&mut self) -> Option<Request> {
        loop {
            let remote = match self.incoming.receive()? {
                ToOwner::Request(remote) => remote,
                ToOwner::Hello(sender) => {
                    self.outgoing = Some(sender);
                    continue;
                }
            };
            let RemoteRequest { id, operation, extent, force_unit_access, buffer, failed, now } =
                remote;
            let buffer = buffer.map(|buffer| buffer.open(&self.lent));
            let request = Request { id, operation, extent, force_unit_access, buffer };
            if self.membership.as_ref().is_some_and(Membership::is_over) {
                self.answer(request.complete(Err(IoError::Cancelled)));
                continue;
            }
            // This core's reading may be older than the guest's, who saw a lease end.
            self.volume.with_queue(|volume| volume.guest_time(now));
            if let Some(error) = failed {
                self.volume.with_queue(|volume| volume.guest_read_failed(extent, error));
            }
            return Some(request);
        }
    }

    fn answer(&mut self, completion: Completion) {
        let Completion { id, result, buffer } = completion;
        let buffer = buffer.map(Buffer::try_into_remote);
        let copied = matches!(buffer, Some(Err(_)));
        // What stays here goes home when its last view is dropped.
        let buffer = buffer.map(|sent| sent.unwrap_or_else(|kept| kept.copy_into_remote()));
        self.leave(ToGuest::Done { id, result, buffer, copied });
    }

    fn leave(&mut self, message: ToGuest) {
        let outgoing = self.outgoing.as_ref().expect("the first message said where answers go");
        let left = outgoing.leave(message);
        debug_assert!(left.is_ok() || outgoing.is_closed(), "there is room for all there can be");
        self.unannounced = true;
    }
}
