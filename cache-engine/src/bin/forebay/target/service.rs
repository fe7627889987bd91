//! Block devices as the namespaces of one NVMe/TCP subsystem, as the arguments name them.

use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;

use block_io::reactor::{Reactor, Task};
use block_io::{BlockDevice, Timestamp};
use cache_engine::backend::address::{DISCOVERY_PORT, NVME_TCP_PORT, OriginAddress};
use cache_engine::backend::identity::Machine;
use cache_engine::backend::{Backend, BackendQueue, nvme_secret, origin_identity, tls_keys};
use nvme_fabric::driver::TargetTask;
use nvme_fabric::driver::reservation_files::ReservationFiles;
use nvme_fabric::driver::target::Service;
use nvme_fabric::spec::nqn::Nqn;
use nvme_fabric::target::{Namespace, SecureChannel, Settings, Subsystem, Target};
use nvme_fabric::tls::Keyring;

use super::security;
use crate::arguments::{SecretArguments, TargetArguments, TlsUse};
use crate::control::{Control, Daemon};
use crate::failure::Failure;
use crate::output;
use crate::signals::Signals;
use crate::volume::is_same_file;

/// Requests in flight on a namespace's device, of all hosts together.
pub(super) const DEVICE_DEPTH: usize = 256;

/// Serves the namespaces until a signal.
///
/// # Errors
/// When a namespace cannot be opened or an address cannot be listened at.
pub(super) fn run(arguments: &TargetArguments) -> Result<(), Failure> {
    refuse_shared_files(&arguments.namespaces)?;
    let (Some(listen), Some(subsystem)) = (&arguments.listen, &arguments.subsystem) else {
        // The grammar asks for them where there is no --config.
        return Err(Failure::Usage("--listen and --subsystem: must be given".to_owned()));
    };
    let listen = listen.resolve(NVME_TCP_PORT)?;
    let discovery = arguments.discovery.as_ref();
    let discovery = discovery.map(|endpoint| endpoint.resolve(DISCOVERY_PORT)).transpose()?;
    let reactor = Reactor::new(arguments.reactor.config())?;
    let mut namespaces = Vec::with_capacity(arguments.namespaces.len());
    for address in &arguments.namespaces {
        let backend = Backend::open(address, &reactor)
            .map_err(|error| Failure::because(format!("--namespace {address}"), error))?;
        backend.notice().into_iter().for_each(output::notice);
        namespaces.push((address.to_string(), backend));
    }
    notice_of_machine();
    // From here on a signal ends the command in order; before, it just ends it.
    let control = Control::Signals(Signals::new()?.watch(&reactor));
    let secrets = &arguments.secrets;
    let files = arguments.reservations.as_deref().map(ReservationFiles::new).transpose()?;
    let files = files.as_ref();
    let mut target = TargetService::open(&reactor, subsystem, namespaces, secrets, files, control)?;
    if let Some(file) = &arguments.tls_keys {
        let channel = match arguments.tls {
            TlsUse::Required => SecureChannel::Required,
            TlsUse::Offered => SecureChannel::Offered,
        };
        if secrets.secure_channel.is_some() && channel == SecureChannel::Required {
            return Err(Failure::Usage(
                "--secure-channel: a host authenticates in clear before it has the key; use --tls \
                 offered"
                    .to_owned(),
            ));
        }
        target.tls = Some((keyring(file, subsystem)?, channel));
    } else if secrets.secure_channel.is_some() {
        let keyring = Keyring::new().map_err(|error| Failure::because("TLS", error))?;
        target.tls = Some((Rc::new(keyring), SecureChannel::Offered));
    }
    let bound = target.listen(listen, Service::Subsystems)?;
    let discovery =
        discovery.map(|address| target.listen(address, Service::Discovery)).transpose()?;
    output::ready(subsystem.as_str(), bound)?;
    if let Some(bound) = discovery {
        output::ready(Nqn::discovery().as_str(), bound)?;
    }
    target.run(&reactor)
}

/// Whether a device that is given no UUID is the same namespace after a restart.
pub(super) fn lasts(backend: &Backend, machine: &Machine) -> bool {
    machine.is_lasting() && !matches!(backend, Backend::Memory(_))
}

/// Tells whoever starts a target on a machine that cannot be told from others.
pub(crate) fn notice_of_machine() {
    if !Machine::this().is_lasting() {
        output::notice(
            "this machine has no identifier (/etc/machine-id): its namespaces have others after \
             each start, and caches of them start cold; systemd-machine-id-setup makes one",
        );
    }
}

/// The serial number of a subsystem that is given none: the same after every restart.
pub(crate) fn serial_number(machine: &Machine, nqn: &Nqn) -> String {
    // SN has 20 bytes; ten of the identifier's are as hard to meet twice.
    let serial = machine.identifier(&format!("serial number of {nqn}"));
    serial.0[..10].iter().map(|byte| format!("{byte:02X}")).collect()
}

/// The keys in `file`: each host's opens the subsystem and the discovery service.
fn keyring(file: &Path, subsystem: &Nqn) -> Result<Rc<Keyring>, Failure> {
    security::keyring_of(&tls_keys::hosts_keys(file)?, std::iter::once(subsystem))
        .map_err(|error| Failure::because("--tls-keys", error))
}

/// Two namespaces over one file would each believe that nobody else writes it.
fn refuse_shared_files(namespaces: &[OriginAddress]) -> Result<(), Failure> {
    let files: Vec<_> = namespaces
        .iter()
        .filter_map(|address| match address {
            OriginAddress::File(path) => Some(path),
            OriginAddress::Memory(_) | OriginAddress::Null(_) | OriginAddress::NvmeTcp(_) => None,
        })
        .collect();
    for (index, path) in files.iter().enumerate() {
        if files[..index].iter().any(|earlier| earlier == path || is_same_file(earlier, path)) {
            return Err(Failure::Usage(format!(
                "--namespace file:{}: is another namespace already; each needs its own file",
                path.display()
            )));
        }
    }
    Ok(())
}

/// Tells a subsystem which hosts must prove themselves, and by what.
fn admit(subsystem: &mut Subsystem, secrets: &SecretArguments) -> Result<(), Failure> {
    for (index, (host, path)) in secrets.hosts.iter().enumerate() {
        if secrets.hosts[..index].iter().any(|(other, _)| other == host) {
            return Err(Failure::Usage(format!("--host-secret {host}: is given twice")));
        }
        let controller = secrets.controllers.iter().find(|(name, _)| name == host);
        let controller = controller.map(|(_, path)| path.as_path());
        let mut keys = nvme_secret::keys_of(path, controller)
            .map_err(|error| Failure::because(format!("--host-secret {host}"), error))?;
        keys.concatenate = secrets.secure_channel == Some(TlsUse::Required);
        subsystem.set_host_keys(host.clone(), keys)?;
    }
    let is_known = |name: &Nqn| secrets.hosts.iter().any(|(host, _)| host == name);
    if let Some((name, _)) = secrets.controllers.iter().find(|(name, _)| !is_known(name)) {
        return Err(Failure::Usage(format!(
            "--controller-secret {name}: needs --host-secret for the same host"
        )));
    }
    subsystem.require_authentication(secrets.require_authentication);
    Ok(())
}

/// A target on a reactor, until told to end.
pub(crate) struct TargetService {
    task: TargetTask<BackendQueue>,
    backends: Vec<Backend>,
    control: Control<()>,
    is_ending: bool,
    /// The hosts' keys, and whether hosts may do without.
    tls: Option<(Rc<Keyring>, SecureChannel)>,
}

impl TargetService {
    /// A target with one subsystem of `namespaces`, each by a name that tells it from others, which
    /// serves nobody yet.
    ///
    /// # Errors
    /// When a device has no room for a queue, or hosts could not work with it.
    pub(crate) fn open(
        reactor: &Reactor,
        nqn: &Nqn,
        namespaces: Vec<(String, Backend)>,
        secrets: &SecretArguments,
        reservations: Option<&ReservationFiles>,
        control: Control<()>,
    ) -> Result<Self, Failure> {
        let machine = Machine::this();
        let serial = serial_number(&machine, nqn);
        let mut subsystem = Subsystem::new(nqn.clone(), &serial)?;
        let (mut queues, mut backends) = (Vec::new(), Vec::new());
        for (index, (name, backend)) in namespaces.into_iter().enumerate() {
            let told_by = origin_identity::of_served(&backend, &format!("{index} {name}"));
            let uuid = machine.identifier(&format!("namespace of {nqn}: {told_by}"));
            let files = reservations.filter(|_| lasts(&backend, &machine));
            let fitting = Namespace::new(backend.geometry(), uuid)
                .and_then(|made| files.map_or(Ok(made.clone()), |files| files.restore(made)))
                .and_then(|namespace| subsystem.add_namespace(namespace));
            fitting.map_err(|error| Failure::because(format!("--namespace {name}"), error))?;
            queues.push(backend.open_queue(reactor, DEVICE_DEPTH)?);
            backends.push(backend);
        }
        admit(&mut subsystem, secrets)?;
        let mut target = Target::new(Settings::default())?;
        target.add_subsystem(subsystem)?;
        let mut task = TargetTask::new(reactor, target, vec![queues])?;
        if let Some(files) = reservations {
            task = task.with_reservation_files(files.clone());
        }
        Ok(Self { task, backends, control, is_ending: false, tls: None })
    }

    /// Serves hosts at `address`, and returns where that is: with port 0 the system chooses one.
    ///
    /// # Errors
    /// When it cannot be listened at.
    pub(crate) fn listen(
        &mut self,
        address: SocketAddr,
        service: Service,
    ) -> Result<SocketAddr, Failure> {
        Ok(security::listen(&mut self.task, address, service, self.tls.as_ref())?)
    }
}

impl Daemon for TargetService {
    fn close(&self, reactor: &Reactor) -> Result<(), Failure> {
        Ok(self.backends.iter().try_for_each(|backend| backend.close(reactor))?)
    }
}

impl Task for TargetService {
    fn poll(&mut self, now: Timestamp) -> bool {
        if self.control.is_over(now) && !self.is_ending {
            self.is_ending = true;
            self.task.stop();
        }
        self.task.poll(now)
    }

    fn is_finished(&self) -> bool {
        self.task.is_finished()
    }
}
