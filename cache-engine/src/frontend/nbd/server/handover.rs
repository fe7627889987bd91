//! Accepted sockets on their way to servers on other cores.
//!
//! ```text
//!   owner: accept ─▶ fewest clients? ─┬─ here ─▶ Client
//!                                     └─ there ─▶ mailbox ─▶ helper: Client with its Place
//!   owner ◀────────────── wake ────────────── Place, dropped with the client ◀─┘
//! ```
//! The owner has the listeners, and counts the clients of all: a [`Place`] goes with each socket,
//! and is given back wherever the client ends or its socket is dropped on the way.
//!
//! A client that cannot be sent is the owner's own. Absent: moving a client later.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use block_io::DeviceError;
use block_io::reactor::{Descriptor, MailSender, Mailbox, Reactor};

/// Sockets on their way to one server.
pub(super) const HANDOVERS_MAX: usize = 64;

/// A server's end for sockets that others have accepted.
pub(super) type Inbox = Mailbox<Handover>;

/// The way to a server on another core; [`add_helper`](super::NbdServer::add_helper) takes it.
#[derive(Clone)]
pub struct HelperAddress(MailSender<Handover>);

impl HelperAddress {
    /// An address at `reactor`, and what arrives there.
    pub(super) fn open(reactor: &Reactor) -> Result<(Self, Inbox), DeviceError> {
        let (sender, inbox) = reactor.mailbox(HANDOVERS_MAX)?;
        Ok((Self(sender), inbox))
    }
}

/// A socket on its way.
pub(super) struct Handover {
    pub(super) socket: OwnedFd,
    pub(super) place: Place,
}

/// What is known of a helper on both cores.
#[derive(Default)]
struct Tally {
    /// Clients there or on their way.
    clients: AtomicUsize,
    at_fault: AtomicU64,
}

/// A client's place among those that the owner bears. Dropping it gives it back.
pub(super) struct Place {
    tally: Arc<Tally>,
    /// The owner may be waiting for room.
    owner: MailSender<()>,
}

impl Place {
    /// The client broke the protocol, or was too slow.
    pub(super) fn note_fault(&self) {
        self.tally.at_fault.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.tally.clients.fetch_sub(1, Ordering::AcqRel);
        self.owner.wake();
    }
}

/// A helper as the owner sees it.
struct Helper {
    address: HelperAddress,
    tally: Arc<Tally>,
}

/// All helpers of an owner.
pub(super) struct Helpers {
    helpers: Vec<Helper>,
    /// Who is asked first when several have as few clients: 0 is the owner.
    turn: usize,
    /// Nothing is ever in it; it is how the owner is woken.
    wake: Option<(MailSender<()>, Mailbox<()>)>,
}

impl Helpers {
    pub(super) const fn new() -> Self {
        Self { helpers: Vec::new(), turn: 0, wake: None }
    }

    pub(super) fn add(
        &mut self,
        reactor: &Reactor,
        address: HelperAddress,
    ) -> Result<(), DeviceError> {
        if self.wake.is_none() {
            self.wake = Some(reactor.mailbox(1)?);
        }
        self.helpers.push(Helper { address, tally: Arc::default() });
        Ok(())
    }

    /// Clients that are not the owner's own.
    pub(super) fn clients(&self) -> usize {
        self.helpers.iter().map(|helper| helper.tally.clients.load(Ordering::Acquire)).sum()
    }

    /// Of them, those that were disconnected for what they did.
    pub(super) fn at_fault(&self) -> u64 {
        self.helpers.iter().map(|helper| helper.tally.at_fault.load(Ordering::Relaxed)).sum()
    }

    /// Sends the client to the server that has the fewest, or gives it back if that is the owner,
    /// which has `own`, or if it cannot be sent.
    pub(super) fn place(&mut self, socket: Descriptor, own: usize) -> Option<Descriptor> {
        let servers = self.helpers.len() + 1;
        let clients = |server: usize| match server.checked_sub(1) {
            None => own,
            Some(helper) => self.helpers[helper].tally.clients.load(Ordering::Acquire),
        };
        let in_turn = (0..servers).map(|step| (self.turn + step) % servers);
        let chosen = in_turn.min_by_key(|server| clients(*server)).unwrap_or(0);
        self.turn = (chosen + 1) % servers;
        let Some((helper, (owner, _))) =
            chosen.checked_sub(1).map(|at| &self.helpers[at]).zip(self.wake.as_ref())
        else {
            return Some(socket);
        };
        let socket = match OwnedFd::try_from(socket) {
            Ok(socket) => socket,
            Err(socket) => return Some(socket),
        };
        helper.tally.clients.fetch_add(1, Ordering::AcqRel);
        let place = Place { tally: Arc::clone(&helper.tally), owner: owner.clone() };
        let refused = helper.address.0.send(Handover { socket, place }).err()?;
        Some(Descriptor::from(refused.socket))
    }
}
