//! A helper on its thread: an NBD server whose exports are guests of the owner's volumes.
//!
//! ```text
//!   Invite ─▶ Export … ─▶ serving ─▶ Withdraw: clients end ─▶ every buffer is back ─▶ gone
//!   no more orders can come ─▶ clients end ─▶ nothing in flight ─▶ finished
//! ```

use std::collections::BTreeMap;
use std::time::Duration;

use block_io::device::shared::SharedQueue;
use block_io::reactor::{Mailbox, Port, Reactor, Task};
use block_io::{BlockQueue, Completion, DeviceError, Geometry, Timestamp};
use cache_engine::backend::{BackendQueue, ReadableDevice};
use cache_engine::frontend::nbd::{HelperAddress, NbdServer, ServerOptions};
use cache_engine::volume::cores::{Invitation, RemoteVolume, Renewal};

use crate::output;

/// How long the owner may take for what is in flight when the last client is gone.
const OWNER_GRACE: Duration = Duration::from_secs(5);

/// What the owner wants done. Volumes are known by numbers.
pub(super) enum Order {
    /// Use a volume, whose cache's device this is.
    Invite { volume: u64, invitation: Invitation, device: Option<ReadableDevice> },
    /// Serve it under this name.
    Export { volume: u64, name: String },
    /// Serve it no more, and leave it when its clients are answered and gone.
    Withdraw { volume: u64 },
    /// Let go of clients of volumes that were withdrawn, answered or not.
    Abandon,
    /// Its cache has this device now.
    Renew { volume: u64, renewal: Renewal, device: Option<ReadableDevice> },
    /// Volumes may have other sizes now.
    Refresh { sizes: Vec<(u64, Geometry)> },
    /// Fail in this way.
    #[cfg(test)]
    Break(super::tests::Breakage),
}

type Guest = RemoteVolume<BackendQueue>;

/// A volume as a helper has it.
struct GuestVolume {
    queue: SharedQueue<Guest>,
    exports: Vec<String>,
    is_withdrawn: bool,
}

/// See the module.
pub(super) struct Helper {
    reactor: Reactor,
    server: NbdServer<Guest>,
    orders: Mailbox<Order>,
    volumes: BTreeMap<u64, GuestVolume>,
    stage: Stage,
    /// An order that could not be followed ends it.
    failure: Option<DeviceError>,
    completions: Vec<Completion>,
}

enum Stage {
    Serving,
    /// No new clients; requests in flight are being answered.
    Closing,
    /// No clients; the owner is waited for until the timer ends.
    Settling(Port),
    Finished,
}

impl Helper {
    /// A helper without volumes, and where clients are sent to it.
    pub(super) fn new(
        reactor: &Reactor,
        orders: Mailbox<Order>,
    ) -> Result<(Self, HelperAddress), DeviceError> {
        let mut server = NbdServer::new(reactor, ServerOptions::default());
        let address = server.open_inbox()?;
        let helper = Self {
            reactor: reactor.clone(),
            server,
            orders,
            volumes: BTreeMap::new(),
            stage: Stage::Serving,
            failure: None,
            completions: Vec::new(),
        };
        Ok((helper, address))
    }

    /// Serves until nobody can give orders any more.
    ///
    /// # Errors
    /// When the reactor fails, or an order cannot be followed.
    pub(super) fn run(&mut self, reactor: &Reactor) -> Result<(), DeviceError> {
        reactor.run(self)?;
        self.failure.take().map_or(Ok(()), Err)
    }

    fn obey(&mut self, order: Order) -> Result<(), DeviceError> {
        match order {
            Order::Invite { volume, invitation, device } => {
                let queue = self.open(device, invitation.depth());
                let guest = RemoteVolume::accept(invitation, &self.reactor, queue)?;
                let queue = SharedQueue::new(guest);
                let guest = GuestVolume { queue, exports: Vec::new(), is_withdrawn: false };
                self.volumes.insert(volume, guest);
            }
            Order::Export { volume, name } => {
                if let Some(guest) = self.volumes.get_mut(&volume) {
                    self.server.add_export(&name, "", guest.queue.another())?;
                    guest.exports.push(name);
                }
            }
            Order::Withdraw { volume } => {
                if let Some(guest) = self.volumes.get_mut(&volume) {
                    guest.is_withdrawn = true;
                    guest.exports.drain(..).for_each(|name| self.server.remove_export(&name));
                }
            }
            Order::Abandon => self.server.drop_leaving(),
            Order::Renew { volume, renewal, device } => {
                let queue = self.open(device, super::GUEST_DEPTH);
                if let Some(guest) = self.volumes.get(&volume) {
                    guest.queue.with_queue(|guest| guest.renew(renewal, queue));
                }
            }
            Order::Refresh { sizes } => {
                for (volume, geometry) in sizes {
                    if let Some(guest) = self.volumes.get(&volume) {
                        guest.queue.with_queue(|guest| guest.set_geometry(geometry));
                    }
                }
                self.server.refresh_exports();
            }
            #[cfg(test)]
            Order::Break(breakage) => breakage.happen()?,
        }
        Ok(())
    }

    /// A queue of its own to a cache device. Without one everything goes to the owner, which is
    /// slower and nothing else.
    fn open(&self, device: Option<ReadableDevice>, depth: usize) -> Option<BackendQueue> {
        match device?.open_queue(&self.reactor, depth) {
            Ok(queue) => Some(queue),
            Err(error) => {
                output::notice(format_args!("hits go through one reactor: {error}"));
                None
            }
        }
    }

    fn follow_orders(&mut self) -> bool {
        let is_over = self.orders.is_closed();
        let mut progress = false;
        while let Some(order) = self.orders.receive() {
            progress = true;
            if let Err(error) = self.obey(order) {
                self.failure.get_or_insert(error);
            }
        }
        if (is_over || self.failure.is_some()) && matches!(self.stage, Stage::Serving) {
            self.stage = Stage::Closing;
            self.server.shutdown();
            progress = true;
        }
        progress
    }

    /// Leaves volumes that are served no more.
    fn leave_withdrawn(&mut self, now: Timestamp) -> bool {
        let mut progress = false;
        let no_clients = self.server.leaving() == 0;
        self.volumes.retain(|_, guest| {
            if !guest.is_withdrawn {
                return true;
            }
            // The server polls what it exports, and no more.
            progress |= guest.queue.poll(now, &mut self.completions);
            self.completions.clear();
            let is_left = no_clients && guest.queue.with_queue(|guest| guest.is_idle());
            progress |= is_left;
            !is_left
        });
        progress
    }
}

impl Task for Helper {
    fn poll(&mut self, now: Timestamp) -> bool {
        let mut progress = self.follow_orders();
        progress |= self.server.poll(now);
        progress |= self.leave_withdrawn(now);
        match &self.stage {
            Stage::Closing if self.server.is_finished() => {
                let port = self.reactor.open_port();
                port.timer(now + OWNER_GRACE, 0);
                self.stage = Stage::Settling(port);
                progress = true;
            }
            Stage::Settling(port) => {
                let idle = |guest: &GuestVolume| guest.queue.with_queue(|guest| guest.is_idle());
                if port.next_event().is_some() || self.volumes.values().all(idle) {
                    self.stage = Stage::Finished;
                    progress = true;
                }
            }
            Stage::Serving | Stage::Closing | Stage::Finished => {}
        }
        progress
    }

    fn is_finished(&self) -> bool {
        matches!(self.stage, Stage::Finished)
    }
}
