//! Asking discovery services: one and all that it refers to, once; or one for as long as one likes.
//!
//! ```text
//!   discover ─▶ host::discovery::Walk ─▶ at most VISITS_AT_ONCE associations at a time
//!   DiscoveryWatch ─▶ one association that stays, and comes back; its log as differences
//! ```
//! Absent: connecting to what is found.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use block_io::reactor::{Port, Reactor, Wait};
use block_io::{DeviceError, Timestamp};

use super::alarm::Alarm;
use super::host::{HostDriver, resolve};
use super::namespace_device::show_address;
use crate::host::HostOptions;
use crate::host::discovery::route::PORT_DISCOVERY;
use crate::host::discovery::walk::Visit;
use crate::host::discovery::{Difference, Discovery, Findings, Route, Walk, WalkLimits};
use crate::spec::log_page::DiscoveryEntry;
use crate::spec::nqn::{HostId, Nqn};

/// The port of discovery services. NVMe/TCP Transport 1.1 §3.1 (IANA nvme-disc)
pub const DISCOVERY_PORT: u16 = PORT_DISCOVERY;

/// Services that are asked at the same time: one that does not answer holds up few others.
const VISITS_AT_ONCE: usize = 8;

/// The keep alive of a connection that stays: what Linux hosts use, too.
const PERSISTENT_KEEP_ALIVE: Duration = Duration::from_secs(30);

/// How long a lost watch waits before it connects again; twice as long each time it fails.
const AGAIN_FIRST: Duration = Duration::from_secs(1);
/// The longest of these waits.
const AGAIN_LONGEST: Duration = Duration::from_secs(30);

/// Which service, as whom, and how far.
#[derive(Clone, Debug)]
pub struct DiscoverOptions {
    /// Name or address of the service, without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// The service's name: the well-known one, or its unique one.
    pub subsystem: Nqn,
    /// This host's NQN.
    pub host_nqn: Nqn,
    /// This host's identifier, always the same with the same NQN.
    pub host_id: HostId,
    /// How far referrals are followed.
    pub limits: WalkLimits,
    /// How long connecting to a service may take in all.
    pub connect_timeout: Duration,
    /// How long a command may take.
    pub command_timeout: Duration,
    /// KATO of a connection that stays; not zero.
    pub keep_alive: Duration,
    /// The key of this host for discovery services: with it every one that is asked, referrals too,
    /// is asked over TLS and never in clear.
    #[cfg(feature = "tls")]
    pub tls: Option<crate::tls::HostTls>,
}

impl DiscoverOptions {
    /// The service with the well-known name at `host`, port 8009, 30 s keep alive, all else as in
    /// [`HostOptions::new`] and [`WalkLimits::default`].
    pub fn new(host: impl Into<String>, host_nqn: Nqn, host_id: HostId) -> Self {
        let options = HostOptions::new("", Nqn::discovery(), host_nqn, host_id);
        Self {
            host: host.into(),
            port: DISCOVERY_PORT,
            limits: WalkLimits::default(),
            connect_timeout: options.connect_timeout,
            command_timeout: options.command_timeout,
            keep_alive: PERSISTENT_KEEP_ALIVE,
            subsystem: options.subsystem,
            host_nqn: options.host,
            host_id: options.host_id,
            #[cfg(feature = "tls")]
            tls: None,
        }
    }

    /// A driver for a service of this name, with what its stream begins with.
    #[cfg_attr(
        not(feature = "tls"),
        expect(clippy::unused_self, clippy::unnecessary_wraps, unused_variables)
    )]
    fn driver(
        &self,
        reactor: &Reactor,
        discovery: Discovery,
        subsystem: &Nqn,
        addresses: Vec<SocketAddr>,
    ) -> Result<HostDriver<Discovery>, DeviceError> {
        #[cfg_attr(not(feature = "tls"), expect(unused_mut))]
        let mut driver = HostDriver::new(reactor, discovery, vec![addresses]);
        #[cfg(feature = "tls")]
        if let Some(tls) = &self.tls {
            driver.offer(crate::tls::Offer::new(tls, &self.host_nqn, subsystem)?);
        }
        Ok(driver)
    }

    fn host_options(&self, address: String, subsystem: Nqn) -> HostOptions {
        HostOptions {
            connect_timeout: self.connect_timeout,
            command_timeout: self.command_timeout,
            keep_alive: self.keep_alive,
            ..HostOptions::new(address, subsystem, self.host_nqn.clone(), self.host_id)
        }
    }
}

/// What the discovery service of `options` and those that it refers to tell this host, running the
/// reactor until it is known. A service that fails is told beside those that answer.
///
/// # Errors
/// When the first service's name is not known, or the reactor fails. That the first service does
/// not answer is one of the failures in the findings.
pub fn discover(reactor: &Reactor, options: &DiscoverOptions) -> Result<Findings, DeviceError> {
    let addresses = resolve(&options.host, options.port)?;
    reactor.turn(Wait::No)?;
    let start = Route { address: addresses[0], subsystem: options.subsystem.clone() };
    let mut walk = Walk::new(start, options.limits);
    let mut visits: Vec<(Visit, HostDriver<Discovery>)> = Vec::new();
    loop {
        while visits.len() < VISITS_AT_ONCE
            && let Some(visit) = walk.next_visit()
        {
            let driver = begin(reactor, options, &visit, &addresses)?;
            visits.push((visit, driver));
        }
        if visits.is_empty() {
            return Ok(walk.into_findings());
        }
        let now = reactor.now();
        let mut progress = false;
        for (_, driver) in &mut visits {
            progress |= driver.poll(now);
        }
        for (visit, driver) in visits.extract_if(.., |(_, driver)| driver.machine.is_over()) {
            progress = true;
            let name = driver.machine.service_name().to_owned();
            match driver.machine.into_log() {
                Ok(log) => walk.answered(visit, &name, log),
                Err(error) => walk.failed(visit, error.to_string()),
            }
        }
        reactor.turn(if progress { Wait::No } else { Wait::ForEvent })?;
    }
}

fn begin(
    reactor: &Reactor,
    options: &DiscoverOptions,
    visit: &Visit,
    addresses: &[SocketAddr],
) -> Result<HostDriver<Discovery>, DeviceError> {
    // The first may have several addresses, and a name that people know it by.
    let (shown, addresses) = match visit.number {
        0 => (show_address(&options.host, options.port), addresses.to_vec()),
        _ => (visit.route.address.to_string(), vec![visit.route.address]),
    };
    let host_options = options.host_options(shown, visit.route.subsystem.clone());
    let discovery = Discovery::once(reactor.pool(), host_options, reactor.now())?;
    options.driver(reactor, discovery, &visit.route.subsystem, addresses)
}

/// What a [`DiscoveryWatch`] tells.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchEvent {
    /// The log says something else than it did; at first it said nothing.
    Changed(Difference),
    /// The service was lost or did not answer, for this reason. What it said last is believed
    /// until it says something else; it is asked again after the time.
    Lost(String, Duration),
}

/// A discovery service that is asked again whenever it has changed. Lives on the reactor it was
/// made on; whoever turns that polls the watch.
pub struct DiscoveryWatch {
    reactor: Reactor,
    options: DiscoverOptions,
    addresses: Vec<SocketAddr>,
    way: Way,
    port: Port,
    alarm: Alarm,
    /// How long the next wait is.
    pause: Duration,
    /// What has been told.
    told: Vec<DiscoveryEntry>,
    /// The log has been read, if only to find it empty.
    has_answered: bool,
    /// One of each kind at most between two polls; bounded by whoever polls.
    events: VecDeque<WatchEvent>,
}

enum Way {
    Open(Box<HostDriver<Discovery>>),
    PausedUntil(Timestamp),
    Closed,
}

impl DiscoveryWatch {
    /// A watch of the service of `options`; its referrals are told and not followed. Resolving its
    /// name blocks for as long as the resolver does.
    ///
    /// # Errors
    /// When the name is not known, or an option is out of range.
    pub fn new(reactor: &Reactor, options: &DiscoverOptions) -> Result<Self, DeviceError> {
        let addresses = resolve(&options.host, options.port)?;
        let driver = connect(reactor, options, &addresses)?;
        Ok(Self {
            reactor: reactor.clone(),
            options: options.clone(),
            addresses,
            way: Way::Open(Box::new(driver)),
            port: reactor.open_port(),
            alarm: Alarm::default(),
            pause: AGAIN_FIRST,
            told: Vec::new(),
            has_answered: false,
            events: VecDeque::new(),
        })
    }

    /// What has happened, in order.
    pub fn next_event(&mut self) -> Option<WatchEvent> {
        self.events.pop_front()
    }

    /// Whether it has been shut down to the end.
    pub const fn is_closed(&self) -> bool {
        matches!(self.way, Way::Closed)
    }

    /// Takes leave of the service; polls bring it to its end.
    pub fn shut_down(&mut self) {
        match &mut self.way {
            Way::Open(driver) => driver.machine.shut_down(),
            Way::PausedUntil(_) => self.way = Way::Closed,
            Way::Closed => {}
        }
        self.pause = Duration::ZERO;
    }

    /// Moves it on. Returns whether anything happened.
    pub fn poll(&mut self, now: Timestamp) -> bool {
        while let Some(event) = self.port.next_event() {
            self.alarm.takes(&event);
        }
        match &mut self.way {
            Way::Closed => false,
            Way::PausedUntil(until) if now < *until => {
                self.alarm.set(&self.port, *until, now);
                false
            }
            Way::PausedUntil(_) => {
                match connect(&self.reactor, &self.options, &self.addresses) {
                    Ok(driver) => self.way = Way::Open(Box::new(driver)),
                    Err(error) => self.lost(error.to_string(), now),
                }
                true
            }
            Way::Open(driver) => {
                let mut progress = driver.poll(now);
                if let Some(log) = driver.machine.take_log() {
                    progress = true;
                    self.pause = self.pause.min(AGAIN_FIRST);
                    self.take(log.entries);
                } else if driver.machine.is_over() {
                    progress = true;
                    let error = driver.machine.error().map(ToString::to_string);
                    self.lost(error.unwrap_or_default(), now);
                }
                progress
            }
        }
    }

    fn take(&mut self, entries: Vec<DiscoveryEntry>) {
        let difference = Difference::between(&self.told, &entries);
        if !difference.is_empty() || !self.has_answered {
            self.events.push_back(WatchEvent::Changed(difference));
        }
        (self.told, self.has_answered) = (entries, true);
    }

    fn lost(&mut self, error: String, now: Timestamp) {
        // Shut down, it does not come back.
        if self.pause.is_zero() {
            self.way = Way::Closed;
            return;
        }
        self.events.push_back(WatchEvent::Lost(error, self.pause));
        self.way = Way::PausedUntil(now + self.pause);
        self.pause = (self.pause * 2).min(AGAIN_LONGEST);
    }
}

fn connect(
    reactor: &Reactor,
    options: &DiscoverOptions,
    addresses: &[SocketAddr],
) -> Result<HostDriver<Discovery>, DeviceError> {
    let address = show_address(&options.host, options.port);
    let host_options = options.host_options(address, options.subsystem.clone());
    let discovery = Discovery::persistent(reactor.pool(), host_options, reactor.now())?;
    options.driver(reactor, discovery, &options.subsystem, addresses.to_vec())
}
