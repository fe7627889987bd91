//! What the demo is played on: a target, a volume with and without a cache in front of it, and
//! their NBD exports, on threads of their own.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use block_io::Timestamp;
use block_io::reactor::{MailSender, Reactor, ReactorConfig, Task};
use cache_engine::backend::Backend;
use cache_engine::backend::address::{CacheAddress, NvmeTcpAddress, OriginAddress, Size};
use cache_engine::cache::metadata::Generation;
use cache_engine::cache::policy::PolicySettings;
use cache_engine::cache::{CacheMode, LineSize, Statistics, Verification};
use cache_engine::frontend::nbd::ExportAddress;
use nvme_fabric::driver::target::Service;
use nvme_fabric::spec::nqn::{HostId, Nqn};

use crate::arguments::SecretArguments;
use crate::control::{Control, Daemon};
use crate::failure::Failure;
use crate::run::plan::{CachePlan, VolumePlan};
use crate::serve::{StatisticsRequest, VolumeService};
use crate::target::TargetService;
use crate::volume::{ServiceCache, random_identity};

/// The export of the origin alone.
pub(super) const ORIGIN: &str = "origin";

/// The export of the origin with a cache in front.
pub(super) const CACHED: &str = "cached";

/// What the target calls itself.
const SUBSYSTEM: &str = "nqn.2014-08.org.forebay:demo";

/// How the scene is set.
#[derive(Clone, Debug)]
pub(super) struct SceneSettings {
    /// The file of the namespace, with its content.
    pub(super) namespace: PathBuf,
    /// A cache file, to be made.
    pub(super) cache: PathBuf,
    pub(super) cache_size: Size,
    /// A Unix socket, to be made.
    pub(super) socket: PathBuf,
    pub(super) latency: Duration,
}

/// How the cache comes to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// In order.
    Stopped,
    /// As a process that is killed, as far as it can be done to a thread: see [`Performer::kill`].
    Killed,
}

/// The running scene. Dropping it ends its threads, the client's side first.
pub(super) struct Scene {
    settings: SceneSettings,
    origin: OriginAddress,
    volumes: Option<Performer<StatisticsRequest>>,
    target: Option<Performer<()>>,
}

impl Scene {
    /// Starts the threads and waits until they serve.
    ///
    /// # Errors
    /// When anything of it cannot be set up.
    pub(super) fn start(settings: &SceneSettings) -> Result<Self, Failure> {
        let subsystem = Nqn::new(SUBSYSTEM)
            .map_err(|error| Failure::because("naming the demo's subsystem", error))?;
        let (name, of_target) = (subsystem.clone(), settings.clone());
        let (target, address) = Performer::start("forebay-target", move |reactor, control| {
            target(&of_target, &name, reactor, control)
        })?;
        // As a host of its own: a demo makes no names for the machine.
        let id = HostId(random_identity()?);
        let origin = OriginAddress::NvmeTcp(NvmeTcpAddress {
            host: Some(Nqn::from_uuid(id)),
            host_id: Some(id),
            ..NvmeTcpAddress::new(address.into(), subsystem)
        });
        let settings = settings.clone();
        let mut scene = Self { settings, origin, volumes: None, target: Some(target) };
        scene.start_volumes()?;
        Ok(scene)
    }

    fn start_volumes(&mut self) -> Result<(), Failure> {
        let (settings, origin) = (self.settings.clone(), self.origin.clone());
        let (volumes, ()) = Performer::start("forebay-volumes", move |reactor, control| {
            Ok((volumes(&settings, &origin, reactor, control)?, ()))
        })?;
        self.volumes = Some(volumes);
        Ok(())
    }

    /// Ends the cache and its exports, and starts them again over the same cache file. Clients are
    /// gone afterwards.
    ///
    /// # Errors
    /// When it did not end well, or does not start.
    pub(super) fn restart(&mut self, ending: Ending) -> Result<(), Failure> {
        let end = match ending {
            Ending::Stopped => Performer::end,
            Ending::Killed => Performer::kill,
        };
        self.volumes.take().map_or(Ok(()), end)?;
        self.start_volumes()
    }

    /// The socket of both exports.
    pub(super) fn socket(&self) -> &Path {
        &self.settings.socket
    }

    /// The cache's counters now.
    ///
    /// # Errors
    /// When the thread that knows them has ended.
    pub(super) fn statistics(&self) -> Result<Statistics, Failure> {
        let ended = || Failure::new("the volume's thread has ended");
        let volumes = self.volumes.as_ref().ok_or_else(ended)?;
        let (reply, answer) = mpsc::channel();
        volumes.control.send(reply).map_err(|_| ended())?;
        let counters = answer.recv().map_err(|_| ended())?;
        counters.last().copied().ok_or_else(ended)
    }

    /// Ends the threads in order, from the client's side to the medium's.
    ///
    /// # Errors
    /// The first failure of any of them.
    pub(super) fn end(mut self) -> Result<(), Failure> {
        self.end_threads()
    }

    fn end_threads(&mut self) -> Result<(), Failure> {
        let volumes = self.volumes.take().map_or(Ok(()), Performer::end);
        let target = self.target.take().map_or(Ok(()), Performer::end);
        // What the target failed of is the reason of what the volumes failed of.
        target.and(volumes)
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        // Only on the way out of another failure, which is the one to tell.
        let _ = self.end_threads();
    }
}

/// The namespace's file as an NVMe/TCP target, a network away.
fn target(
    settings: &SceneSettings,
    subsystem: &Nqn,
    reactor: &Reactor,
    control: Control<()>,
) -> Result<(TargetService, SocketAddr), Failure> {
    let file = Backend::open(&OriginAddress::File(settings.namespace.clone()), reactor)?;
    let namespaces = vec![("demo".to_owned(), file.delayed(settings.latency))];
    let secrets = SecretArguments::default();
    let mut target = TargetService::open(reactor, subsystem, namespaces, &secrets, None, control)?;
    let address = target.listen((Ipv4Addr::LOCALHOST, 0).into(), Service::Subsystems)?;
    Ok((target, address))
}

/// Both volumes over one origin: alone, and with a cache in front.
fn volumes(
    settings: &SceneSettings,
    origin: &OriginAddress,
    reactor: &Reactor,
    control: Control<StatisticsRequest>,
) -> Result<VolumeService, Failure> {
    let cache = CachePlan {
        has_curve: true,
        address: CacheAddress::File(settings.cache.clone()),
        size: Some(settings.cache_size),
        force_format: false,
        // The workload's requests are of 4 KiB and far apart: larger lines would lie half empty.
        line_size: Some(LineSize::ALL[0]),
        verification: Verification::default(),
        policy: PolicySettings::default(),
        state: Some(settings.cache.with_extension("state")),
    };
    let cache = ServiceCache::open(&cache, reactor)?;
    let mut service = VolumeService::new(reactor, Some(cache));
    let generation = Generation::new("demo")
        .map_err(|error| Failure::because("the demo's generation", error))?;
    // An association each, so that neither waits for the other's requests.
    for (name, is_cached) in [(ORIGIN, false), (CACHED, true)] {
        let export = ExportAddress::unix(&settings.socket, name).to_string();
        let export =
            export.parse().map_err(|error| Failure::because("the demo's export", error))?;
        let volume = VolumePlan {
            name: name.to_owned(),
            origin: origin.clone(),
            exports: vec![export],
            is_cached,
            mode: CacheMode::default(),
            // Nobody else knows of the target.
            generation: Some(generation.clone()),
            key: None,
            lease: None,
        };
        service.add_volume(&volume)?;
        service.export(name)?;
    }
    service.obey(control);
    Ok(service)
}

/// A thread with a reactor, and the way to ask and to end it.
struct Performer<Request> {
    control: MailSender<Request>,
    killed: Arc<AtomicBool>,
    thread: JoinHandle<Result<(), Failure>>,
}

/// A part that ends where it stands when it is killed.
struct Mortal<'part, Part> {
    part: &'part mut Part,
    killed: &'part AtomicBool,
}

impl<Part: Task> Task for Mortal<'_, Part> {
    fn poll(&mut self, now: Timestamp) -> bool {
        !self.is_finished() && self.part.poll(now)
    }

    fn is_finished(&self) -> bool {
        self.killed.load(Ordering::Relaxed) || self.part.is_finished()
    }
}

impl<Request: Send + 'static> Performer<Request> {
    /// Starts what `open` makes on a thread of its own, and waits until it serves. `open` also
    /// says what others need to know.
    fn start<Part, News, Open>(name: &str, open: Open) -> Result<(Self, News), Failure>
    where
        Part: Daemon,
        News: Send + 'static,
        Open: FnOnce(&Reactor, Control<Request>) -> Result<(Part, News), Failure> + Send + 'static,
    {
        let (ready, started) = mpsc::channel();
        let killed = Arc::new(AtomicBool::new(false));
        let is_killed = Arc::clone(&killed);
        let play = move || -> Result<(), Failure> {
            let reactor = Reactor::new(ReactorConfig::default())?;
            let (control, mailbox) = reactor.mailbox(4)?;
            let (mut part, news) = open(&reactor, Control::Mailbox(mailbox))?;
            // Nobody waits any more when the demo was given up meanwhile: it then ends at once.
            let _ = ready.send((control, news));
            reactor.run(&mut Mortal { part: &mut part, killed: &is_killed })?;
            if is_killed.load(Ordering::Relaxed) { Ok(()) } else { part.close(&reactor) }
        };
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(play)
            .map_err(|error| Failure::because(format!("starting the thread {name}"), error))?;
        match started.recv() {
            Ok((control, news)) => Ok((Self { control, killed, thread }, news)),
            Err(_) => Err(join(thread).err().unwrap_or_else(|| {
                Failure::new(format!("the thread {name} ended before it was ready"))
            })),
        }
    }

    fn end(self) -> Result<(), Failure> {
        drop(self.control);
        join(self.thread)
    }

    /// Ends it between two turns of its reactor: what is in flight is cancelled, files and sockets
    /// are closed, and nothing is flushed, recorded or said. What it wrote stays with the kernel,
    /// as after `kill -9`.
    fn kill(self) -> Result<(), Failure> {
        self.killed.store(true, Ordering::Relaxed);
        // Which wakes it.
        self.end()
    }
}

fn join(thread: JoinHandle<Result<(), Failure>>) -> Result<(), Failure> {
    let name = thread.thread().name().unwrap_or("of the demo").to_owned();
    thread.join().unwrap_or_else(|_| Err(Failure::new(format!("the thread {name} panicked"))))
}
