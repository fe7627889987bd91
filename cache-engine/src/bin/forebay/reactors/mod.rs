//! Further reactors that serve clients: one a thread, each a guest of every volume.
//!
//! ```text
//!   owner's thread: VolumeService                       forebay-core-1, -2, …: Helper
//!     NbdServer ── accepted sockets ──────────────────▶ NbdServer
//!     Volume ◀─ RemoteServer ◀── requests, answers ───▶ RemoteVolume ─ hits ─▶ its own queue
//!     Reactors ── orders: invite, export, withdraw … ─▶ Helper         of the cache device
//!              ◀─ farewell, when the thread is at its end
//! ```
//! The owner opens, changes and closes everything; helpers do as they are told. A volume is gone
//! there when its [`RemoteServer`]s are finished, and a helper when its thread is. One that ends
//! unasked, by a panic or because its reactor failed, has the reason told and the service ended.
//!
//! What is served without a cache goes through its owner too: so there is one queue of each origin,
//! whose flush covers all writes, and an NVMe/TCP origin has one association.
//!
//! Absent: pinning threads to cores, which the kernel's scheduler is left to do.

mod guest_reactor;
#[cfg(test)]
mod tests;

use std::sync::mpsc;
use std::thread::JoinHandle;

use block_io::device::shared::SharedQueue;
use block_io::reactor::{MailSender, Mailbox, Reactor, ReactorConfig};
use block_io::{BlockQueue, DeviceError, Timestamp};
use cache_engine::backend::ReadableDevice;
use cache_engine::frontend::nbd::{HelperAddress, NbdServer};
use cache_engine::volume::cores::{Hosting, RemoteServer};

use guest_reactor::{Helper, Order};

use crate::failure::Failure;

/// Requests that a helper may have in flight on one volume.
const GUEST_DEPTH: usize = 256;

/// Orders that wait for a helper: more than all volumes that there may be need at once.
const ORDERS_MAX: usize = 2048;

/// How a helper that has started is reached.
type Reached = (HelperAddress, MailSender<Order>);

/// A helper's thread.
struct Thread {
    name: String,
    /// Until it is told to end.
    orders: Option<MailSender<Order>>,
    /// Closed at the very end of the thread.
    farewell: Mailbox<()>,
    /// Until it has ended.
    handle: Option<JoinHandle<Result<(), DeviceError>>>,
}

/// A volume that helpers are guests of.
struct Hosted<Volume: Hosting> {
    name: String,
    /// Its name among threads: that of a volume that is gone may be another's.
    number: u64,
    volume: SharedQueue<Volume>,
    is_withdrawn: bool,
    /// A helper's each, in their order; those that have ended are gone.
    servers: Vec<(usize, RemoteServer<Volume>)>,
}

/// All helpers of a service. See the module.
pub(crate) struct Reactors<Volume: Hosting> {
    reactor: Reactor,
    threads: Vec<Thread>,
    hosted: Vec<Hosted<Volume>>,
    numbers: u64,
    /// Why a helper ended unasked.
    failure: Option<String>,
}

impl<Volume: Hosting> Reactors<Volume> {
    /// No helpers, of an owner on `reactor`.
    pub(crate) fn new(reactor: &Reactor) -> Self {
        Self {
            reactor: reactor.clone(),
            threads: Vec::new(),
            hosted: Vec::new(),
            numbers: 0,
            failure: None,
        }
    }

    /// Starts `count` helpers of `server`, which has no volumes yet.
    ///
    /// # Errors
    /// When the system has no more threads, rings or descriptors.
    pub(crate) fn start(
        &mut self,
        count: usize,
        server: &mut NbdServer<Volume>,
    ) -> Result<(), Failure> {
        debug_assert!(self.hosted.is_empty(), "they would not hear of it");
        for index in 1..=count {
            let (thread, address) = Thread::start(format!("forebay-core-{index}"), &self.reactor)?;
            self.threads.push(thread);
            server.add_helper(address)?;
        }
        Ok(())
    }

    /// Lets the helpers use a volume, unless they do; `device` is its cache's.
    ///
    /// # Errors
    /// When there are no more descriptors.
    pub(crate) fn invite(
        &mut self,
        name: &str,
        volume: &SharedQueue<Volume>,
        device: Option<&ReadableDevice>,
    ) -> Result<(), DeviceError> {
        if self.number(name).is_some() {
            return Ok(());
        }
        let number = self.numbers;
        self.numbers += 1;
        let mut servers = Vec::with_capacity(self.threads.len());
        for at in 0..self.threads.len() {
            let (server, invitation) = RemoteServer::new(volume, &self.reactor, GUEST_DEPTH)?;
            servers.push((at, server));
            let device = device.cloned();
            self.tell(at, Order::Invite { volume: number, invitation, device });
        }
        let (name, volume) = (name.to_owned(), volume.another());
        self.hosted.push(Hosted { name, number, volume, is_withdrawn: false, servers });
        Ok(())
    }

    /// Has a volume that was invited to served under this name.
    pub(crate) fn export(&mut self, name: &str, export: &str) {
        let Some(volume) = self.number(name) else { return };
        self.tell_all(|| Order::Export { volume, name: export.to_owned() });
    }

    /// Has a volume served no more: its clients are answered and end, then the helpers leave it.
    pub(crate) fn withdraw(&mut self, name: &str) {
        let Some(hosted) = self.hosted.iter_mut().find(|hosted| hosted.name == name) else {
            return;
        };
        hosted.is_withdrawn = true;
        let volume = hosted.number;
        self.tell_all(|| Order::Withdraw { volume });
    }

    /// Lets go of clients of volumes that were withdrawn, answered or not.
    pub(crate) fn abandon_leaving(&mut self) {
        self.tell_all(|| Order::Abandon);
    }

    /// Whether no helper has a volume any more, nor anything of it in flight.
    pub(crate) fn have_left(&self, name: &str) -> bool {
        let hosted = self.hosted.iter().find(|hosted| hosted.name == name);
        hosted.is_none_or(|hosted| hosted.servers.is_empty())
    }

    /// Forgets a volume that all have left.
    pub(crate) fn forget(&mut self, name: &str) {
        self.hosted.retain(|hosted| hosted.name != name);
    }

    /// Volumes may have other sizes now, of which clients to come are to be told.
    pub(crate) fn refresh(&mut self) {
        let sizes = self.hosted.iter().map(|hosted| (hosted.number, hosted.volume.geometry()));
        let sizes: Vec<_> = sizes.collect();
        self.tell_all(|| Order::Refresh { sizes: sizes.clone() });
    }

    /// The cache has another device, which may serve hits in place.
    ///
    /// # Errors
    /// When a volume was removed.
    pub(crate) fn renew(&mut self, device: Option<&ReadableDevice>) -> Result<(), DeviceError> {
        let mut orders = Vec::new();
        for hosted in self.hosted.iter().filter(|hosted| !hosted.is_withdrawn) {
            if hosted.volume.with_queue(|volume| volume.is_cached()) {
                for (at, server) in &hosted.servers {
                    let (volume, device) = (hosted.number, device.cloned());
                    orders.push((*at, Order::Renew { volume, renewal: server.renew()?, device }));
                }
            }
        }
        orders.into_iter().for_each(|(at, order)| self.tell(at, order));
        Ok(())
    }

    /// Moves on what helpers ask for. Returns whether anything happened.
    pub(crate) fn poll(&mut self, now: Timestamp) -> bool {
        let mut progress = false;
        for hosted in &mut self.hosted {
            for (_, server) in &mut hosted.servers {
                progress |= server.poll(now);
            }
            let before = hosted.servers.len();
            hosted.servers.retain(|(_, server)| !server.is_finished());
            progress |= hosted.servers.len() < before;
        }
        for thread in &mut self.threads {
            if let Some(end) = thread.ended() {
                let why = end.err();
                let unasked = (why.is_some() || thread.orders.is_some()).then(|| {
                    let why = why.unwrap_or_else(|| "ended by itself".to_owned());
                    format!("the thread {}: {why}", thread.name)
                });
                thread.orders = None;
                self.failure = self.failure.take().or(unasked);
                progress = true;
            }
        }
        progress
    }

    /// Tells the helpers to end: clients first, then what they have in flight.
    pub(crate) fn shut_down(&mut self) {
        self.threads.iter_mut().for_each(|thread| thread.orders = None);
    }

    /// Whether all helpers have ended.
    pub(crate) fn is_finished(&self) -> bool {
        self.threads.iter().all(|thread| thread.handle.is_none())
    }

    /// Lets go of what helpers that have ended left in flight.
    pub(crate) fn let_go(&mut self) {
        self.hosted.clear();
    }

    /// Why a helper ended unasked, if one did.
    pub(crate) fn failure(&self) -> Option<&str> {
        self.failure.as_deref()
    }

    /// A way to break the first helper.
    #[cfg(test)]
    fn breaker(&self) -> impl FnOnce(tests::Breakage) + Send + use<Volume> {
        let orders = self.threads[0].orders.clone().expect("it serves");
        move |breakage| assert!(orders.send(Order::Break(breakage)).is_ok(), "it serves")
    }

    fn number(&self, name: &str) -> Option<u64> {
        self.hosted.iter().find(|hosted| hosted.name == name).map(|hosted| hosted.number)
    }

    fn tell_all(&mut self, order: impl Fn() -> Order) {
        (0..self.threads.len()).for_each(|at| self.tell(at, order()));
    }

    /// Who has ended, or is to, hears nothing more.
    fn tell(&mut self, at: usize, order: Order) {
        let thread = &self.threads[at];
        let Some(orders) = &thread.orders else { return };
        if orders.send(order).is_err() && !orders.is_closed() {
            let name = &thread.name;
            self.failure.get_or_insert(format!("the thread {name}: takes no more orders"));
        }
    }
}

impl<Volume: Hosting> Drop for Reactors<Volume> {
    /// Only on the way out of another failure are there any threads left. What they asked for is
    /// answered with an error, and then they end by themselves.
    fn drop(&mut self) {
        self.hosted.clear();
        self.shut_down();
        for thread in &mut self.threads {
            // Whatever it ended of, there is something worse to tell.
            let _ = thread.handle.take().map(JoinHandle::join);
        }
    }
}

impl Thread {
    /// Starts a helper, and waits until it can be reached.
    fn start(name: String, reactor: &Reactor) -> Result<(Self, HelperAddress), Failure> {
        let (until_the_end, farewell) = reactor.mailbox(1)?;
        let (ready, started) = mpsc::channel();
        let config = reactor.config();
        let serve = move || {
            // Dropped last, so that whoever hears of it does not wait for this thread.
            let _until_the_end = until_the_end;
            serve_clients(config, &ready)
        };
        let handle = std::thread::Builder::new()
            .name(name.clone())
            .spawn(serve)
            .map_err(|error| Failure::because(format!("starting the thread {name}"), error))?;
        match started.recv() {
            Ok((address, orders)) => {
                let (orders, handle) = (Some(orders), Some(handle));
                Ok((Self { name, orders, farewell, handle }, address))
            }
            Err(_) => {
                let why = outcome(handle).err().unwrap_or_else(|| "ended by itself".to_owned());
                Err(Failure::new(format!("the thread {name}: {why}")))
            }
        }
    }

    /// How it ended, once, when it has.
    fn ended(&mut self) -> Option<Result<(), String>> {
        self.farewell.is_closed().then(|| self.handle.take()).flatten().map(outcome)
    }
}

/// The life of a helper's thread.
fn serve_clients(config: ReactorConfig, ready: &mpsc::Sender<Reached>) -> Result<(), DeviceError> {
    let reactor = Reactor::new(config)?;
    let (orders, taken) = reactor.mailbox(ORDERS_MAX)?;
    let (mut helper, address) = Helper::new(&reactor, taken)?;
    // Nobody waits any more when the service was given up meanwhile: it then ends at once.
    let _ = ready.send((address, orders));
    helper.run(&reactor)
}

fn outcome(handle: JoinHandle<Result<(), DeviceError>>) -> Result<(), String> {
    match handle.join() {
        Ok(ended) => ended.map_err(|error| error.to_string()),
        Err(_) => Err("panicked".to_owned()),
    }
}
