//! A target as a configuration file says, which calls change while it serves.
//!
//! ```text
//!   control socket ──call──▶ waiting ──▶ steps ──▶ answer
//!                                        │  ▲
//!                        a thread of its own: files     until a removed namespace is idle
//! ```
//! Calls are done one after another; status is answered at once. What blocks (making, cloning and
//! removing files, writing the state) is done by a thread, so that hosts are served meanwhile.
//!
//! Bounds: as many calls as the control socket has clients. Absent: what the calls do
//! ([`super::calls`]).

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;

use block_io::reactor::{MailSender, Mailbox, Reactor, Task};
use block_io::{BlockDevice, DeviceError, Timestamp};
use cache_engine::backend::address::{DISCOVERY_PORT, NVME_TCP_PORT, OriginAddress};
use cache_engine::backend::identity::Machine;
use cache_engine::backend::{Backend, BackendQueue, origin_identity};
use cache_engine::control::model::{Answer, Request};
use cache_engine::control::server::{Call, ControlServer, Reply, ServerOptions};
use cache_engine::control::target_model::TargetCall;
use nvme_fabric::driver::TargetTask;
use nvme_fabric::driver::reservation_files::ReservationFiles;
use nvme_fabric::driver::target::Service;
use nvme_fabric::spec::log_page::AccessState;
use nvme_fabric::spec::nqn::{HostId, Nqn};
use nvme_fabric::target::{
    Hosts, Listener, Namespace, NamespaceKey, SecureChannel, Subsystem, Target,
};
use nvme_fabric::tls::Keyring;

use super::configuration::{NamespacePlan, SubsystemPlan, TargetPlan, VolumesPlan, access_of_word};
use super::files;
use super::security::{self, Security};
use super::service::{DEVICE_DEPTH, lasts, serial_number};
use super::state::State;
use crate::failure::Failure;
use crate::mdns::Announcement;
use crate::output;
use crate::signals::{SignalWatch, Signals};
use crate::volume::is_same_file;

/// Characters of a volume's name, at the most.
pub(super) const NAME_MAX: usize = 64;

/// What a thread does.
pub(super) type Job = Box<dyn FnOnce() -> Result<(), DeviceError> + Send>;

/// What follows a step that waits, given how that ended.
pub(super) type Then =
    Box<dyn FnOnce(&mut ManagedTarget, Result<(), DeviceError>) -> Result<Step, DeviceError>>;

/// How a call goes on.
pub(super) enum Step {
    /// It is done.
    Answer(Answer),
    /// When a thread has done something.
    Job(Job, Then),
    /// When nothing of the target touches a namespace's device any more.
    Idle(NamespaceKey, Then),
}

/// What a call that is under way waits for.
enum Waiting {
    Job,
    Idle(NamespaceKey),
}

/// A namespace's device.
pub(super) struct Exposed {
    pub(super) key: NamespaceKey,
    pub(super) address: String,
    pub(super) backend: Backend,
    /// Name of the volume that it is.
    pub(super) volume: Option<String>,
}

/// What calls need: where volumes are, and what is remembered.
pub(super) struct Store {
    pub(super) plan: VolumesPlan,
    pub(super) state: State,
    /// Whether the state file has all of it.
    pub(super) is_remembered: bool,
}

/// See the module.
pub(crate) struct ManagedTarget {
    pub(super) reactor: Reactor,
    pub(super) machine: Machine,
    pub(super) task: TargetTask<BackendQueue>,
    pub(super) listeners: Vec<SocketAddr>,
    pub(super) discovery: Vec<SocketAddr>,
    pub(super) exposed: Vec<Exposed>,
    pub(super) store: Option<Store>,
    pub(super) reservations: Option<ReservationFiles>,
    security: Security,
    signals: Option<SignalWatch>,
    is_ending: bool,
    // In the order of their end: whoever waits for an answer learns that there will be none.
    under_way: Option<(Reply, Waiting, Then)>,
    waiting: VecDeque<(TargetCall, Reply)>,
    calls: Option<Mailbox<Call>>,
    server: Option<ControlServer>,
    job_done: MailSender<Result<(), DeviceError>>,
    jobs_done: Mailbox<Result<(), DeviceError>>,
    /// Ends with the target: who has heard of it is told.
    announcement: Option<Announcement>,
}

impl ManagedTarget {
    /// Opens everything that `plan` and the state file say, and tells where it serves.
    ///
    /// # Errors
    /// When a device cannot be opened, an address cannot be listened at, or both together make no
    /// sense.
    pub(super) fn start(plan: TargetPlan, reactor: &Reactor) -> Result<Self, Failure> {
        let mut target = Target::new(plan.settings)?;
        let discovery_name = plan.discovery_name.clone().unwrap_or_else(Nqn::discovery);
        if let Some(name) = plan.discovery_name {
            target.set_discovery_name(name)?;
        }
        for referral in &plan.referrals {
            let address = referral.resolve(DISCOVERY_PORT)?;
            let (address, port) = (address.ip(), address.port());
            target.add_referral(Listener { address, port, channel: SecureChannel::None })?;
        }
        let store = plan.volumes.map(Store::open).transpose()?;
        let security = Security::read(plan.security)?;
        let reservations = plan.reservations.as_deref().map(ReservationFiles::new).transpose()?;
        let mut task = TargetTask::new(reactor, target, Vec::new())?;
        if let Some(files) = &reservations {
            task = task.with_reservation_files(files.clone());
        }
        let (job_done, jobs_done) = reactor.mailbox(1)?;
        let mut managed = Self {
            reactor: reactor.clone(),
            machine: Machine::this(),
            task,
            listeners: Vec::new(),
            discovery: Vec::new(),
            exposed: Vec::new(),
            store,
            reservations,
            security,
            signals: None,
            is_ending: false,
            under_way: None,
            waiting: VecDeque::new(),
            calls: None,
            server: None,
            job_done,
            jobs_done,
            announcement: None,
        };
        for subsystem in plan.subsystems {
            managed.configure(subsystem)?;
        }
        managed.restore()?;
        // From here on a signal ends the command in order; before, it just ends it.
        managed.signals = Some(Signals::new()?.watch(reactor));
        let tls = managed.keyring()?;
        for endpoint in &plan.listen {
            let address = endpoint.resolve(NVME_TCP_PORT)?;
            let bound =
                security::listen(&mut managed.task, address, Service::Subsystems, tls.as_ref())?;
            managed.listeners.push(bound);
        }
        for endpoint in &plan.discovery {
            let address = endpoint.resolve(DISCOVERY_PORT)?;
            let bound =
                security::listen(&mut managed.task, address, Service::Discovery, tls.as_ref())?;
            managed.discovery.push(bound);
        }
        if plan.mdns {
            managed.announcement = Some(Announcement::new(&managed.discovery, &discovery_name)?);
        }
        if let Some(path) = &plan.control {
            let options = ServerOptions::default();
            let (sender, calls) = reactor.mailbox(options.clients_max)?;
            managed.server = Some(ControlServer::open(path, options, sender)?);
            managed.calls = Some(calls);
        }
        Ok(managed)
    }

    /// Tells whoever waits where it serves.
    pub(super) fn tell_ready(&self) -> Result<(), Failure> {
        for address in &self.listeners {
            output::ready("subsystems", address)?;
        }
        for address in &self.discovery {
            output::ready(Nqn::discovery().as_str(), address)?;
        }
        match &self.server {
            Some(server) => output::ready("control", server.path().display()),
            None => Ok(()),
        }
    }

    /// Takes leave of whoever serves its devices.
    pub(super) fn close(&self) -> Result<(), Failure> {
        Ok(self.exposed.iter().try_for_each(|exposed| exposed.backend.close(&self.reactor))?)
    }

    /// Adds a configured subsystem, as calls have changed it.
    fn configure(&mut self, plan: SubsystemPlan) -> Result<(), Failure> {
        let nqn = plan.nqn;
        let of = |error: DeviceError| Failure::because(format!("subsystem '{nqn}'"), error);
        let (mut hosts, mut access) = (plan.hosts, plan.access);
        let state = self.store.as_ref().and_then(|store| store.state.subsystems.get(nqn.as_str()));
        if let Some(state) = state {
            if let Some(listed) = &state.hosts {
                hosts = Hosts::Listed(names(listed).map_err(of)?);
            }
            for (group, word) in &state.access {
                let changed = access_of_word(word).map_err(DeviceError::new).map_err(of)?;
                // A group that is configured no more has no state.
                if let Some((_, state)) = access.iter_mut().find(|(other, _)| other == group) {
                    *state = changed;
                }
            }
        }
        let serial = match plan.serial {
            Some(serial) => serial,
            None => serial_number(&self.machine, &nqn),
        };
        let place = self.add_subsystem(&nqn, &serial, hosts, &access).map_err(of)?;
        for namespace in plan.namespaces {
            self.restore_below(&nqn, namespace.namespace_id).map_err(of)?;
            let device = namespace.device.to_string();
            self.configure_namespace(place, &nqn, namespace).map_err(|error| {
                Failure::because(format!("subsystem '{nqn}': device {device}"), error)
            })?;
        }
        Ok(())
    }

    pub(super) fn add_subsystem(
        &mut self,
        nqn: &Nqn,
        serial: &str,
        hosts: Hosts,
        access: &[(u32, AccessState)],
    ) -> Result<usize, DeviceError> {
        let mut subsystem = Subsystem::new(nqn.clone(), serial)?.with_access_groups(access)?;
        self.security.admit(&mut subsystem)?;
        let place = self.task.add_subsystem(subsystem.with_hosts(hosts)?, Vec::new())?;
        // Before anything is listened at, nobody has keys.
        if !self.listeners.is_empty()
            && let Some((keyring, _)) = self.keyring()?
        {
            self.task.replace_keyring(&keyring);
        }
        Ok(place)
    }

    fn keyring(&self) -> Result<Option<(Rc<Keyring>, SecureChannel)>, DeviceError> {
        let subsystems = self.task.target().subsystems();
        self.security.keyring(subsystems.values().map(Subsystem::nqn))
    }

    fn configure_namespace(
        &mut self,
        place: usize,
        nqn: &Nqn,
        plan: NamespacePlan,
    ) -> Result<(), DeviceError> {
        if let OriginAddress::File(path) = &plan.device {
            let others = self.exposed.iter().filter_map(|other| match &other.backend {
                Backend::File(file) => Some(file.path()),
                _ => None,
            });
            if others.into_iter().any(|other| is_same_file(path, other)) {
                return Err(DeviceError::new(
                    "is another namespace's already: each must have its own",
                ));
            }
            if let Some(size) = plan.size
                && !path.exists()
            {
                files::create(path, size.bytes())?;
            }
        }
        let backend = Backend::open(&plan.device, &self.reactor)?;
        backend.notice().into_iter().for_each(output::notice);
        let address = plan.device.to_string();
        let told_by = origin_identity::of_served(&backend, &address);
        let uuid = plan
            .uuid
            .unwrap_or_else(|| self.machine.identifier(&format!("namespace of {nqn}: {told_by}")));
        let is_lasting = plan.uuid.is_some() || lasts(&backend, &self.machine);
        let namespace = self.namespace(&backend, uuid, plan.access_group, is_lasting)?;
        let id = Some(plan.namespace_id);
        self.expose(place, id, namespace, address, backend, None).map(|_| ())
    }

    /// A device as a namespace. What is another one after each start has nothing that could be kept
    /// for it.
    ///
    /// # Errors
    /// When hosts could not work with it, or what was kept of its reservations makes no sense.
    pub(super) fn namespace(
        &self,
        backend: &Backend,
        uuid: HostId,
        access_group: u32,
        is_lasting: bool,
    ) -> Result<Namespace, DeviceError> {
        let namespace = Namespace::new(backend.geometry(), uuid)?.with_access_group(access_group);
        match self.reservations.as_ref().filter(|_| is_lasting) {
            Some(files) => files.restore(namespace),
            None => Ok(namespace),
        }
    }

    /// Serves a device as a namespace.
    pub(super) fn expose(
        &mut self,
        place: usize,
        namespace_id: Option<u32>,
        namespace: Namespace,
        address: String,
        backend: Backend,
        volume: Option<String>,
    ) -> Result<NamespaceKey, DeviceError> {
        let queue = backend.open_queue(&self.reactor, DEVICE_DEPTH)?;
        let key = self.task.add_namespace(place, namespace_id, namespace, queue)?;
        self.exposed.push(Exposed { key, address, backend, volume });
        Ok(key)
    }

    /// Does what calls ask. Returns whether anything happened.
    fn serve_calls(&mut self, now: Timestamp) -> bool {
        let mut progress = false;
        while let Some(Call { request, reply }) = self.calls.as_ref().and_then(Mailbox::receive) {
            progress = true;
            match request {
                Request::Target { call: TargetCall::Status {} } => {
                    reply.send(Answer::TargetStatus(Box::new(self.status())));
                }
                Request::Target { call } => self.waiting.push_back((call, reply)),
                _ => reply.send(Answer::error(
                    "this service is a target and has no cache: must be asked of the socket of a \
                     `forebay run`",
                )),
            }
        }
        progress | self.go_on(now)
    }

    /// Moves the call that is under way, or begins the next.
    fn go_on(&mut self, _now: Timestamp) -> bool {
        let mut progress = false;
        loop {
            if let Some((reply, waiting, then)) = self.under_way.take() {
                let ended = match waiting {
                    Waiting::Job => self.jobs_done.receive(),
                    Waiting::Idle(key) => (!self.task.is_in_use(key)).then_some(Ok(())),
                };
                let Some(ended) = ended else {
                    self.under_way = Some((reply, waiting, then));
                    return progress;
                };
                let step = then(self, ended);
                self.take_step(step, reply);
            } else if let Some((call, reply)) = self.waiting.pop_front() {
                let step = self.call(call);
                self.take_step(step, reply);
            } else {
                return progress;
            }
            progress = true;
        }
    }

    fn take_step(&mut self, step: Result<Step, DeviceError>, reply: Reply) {
        match step {
            Err(error) => reply.send(Answer::error(told(&error))),
            Ok(Step::Answer(answer)) => reply.send(answer),
            Ok(Step::Idle(key, then)) => {
                self.under_way = Some((reply, Waiting::Idle(key), then));
            }
            Ok(Step::Job(job, then)) => {
                let done = self.job_done.clone();
                let thread = std::thread::Builder::new().name("forebay-files".to_owned());
                // One job at a time, so there is room for its end.
                let spawned = thread.spawn(move || drop(done.send(job())));
                if let Err(error) = spawned {
                    let error = DeviceError::with_source("starting a thread", error);
                    drop(self.job_done.send(Err(error)));
                }
                self.under_way = Some((reply, Waiting::Job, then));
            }
        }
    }
}

impl Store {
    fn open(plan: VolumesPlan) -> Result<Self, DeviceError> {
        if !plan.folder.is_dir() {
            return Err(DeviceError::new(format!(
                "[volumes] folder {}: must be a folder that is there",
                plan.folder.display()
            )));
        }
        let state = State::read(&plan.state)?;
        Ok(Self { plan, state, is_remembered: true })
    }
}

/// Host names that were checked when they came.
pub(super) fn names(texts: &[String]) -> Result<Vec<Nqn>, DeviceError> {
    let parse = |text: &String| {
        text.parse()
            .map_err(|why| DeviceError::new(format!("host '{}': {why}", text.escape_debug())))
    };
    texts.iter().map(parse).collect()
}

/// An error with its causes, in one line.
fn told(error: &DeviceError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

impl Task for ManagedTarget {
    fn poll(&mut self, now: Timestamp) -> bool {
        let is_over = self.signals.as_ref().is_some_and(|signals| signals.arrived(now));
        if is_over && !self.is_ending {
            self.is_ending = true;
            self.task.stop();
        }
        let progress = self.serve_calls(now);
        self.task.poll(now) | progress
    }

    fn is_finished(&self) -> bool {
        self.task.is_finished() && self.under_way.is_none()
    }
}
