//! What the demo is played on: a target, a volume with and without a cache in front of it, and
//! their NBD exports, on threads of their own.

use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use block_io::reactor::{MailSender, Reactor, ReactorConfig};
use cache_engine::backend::Backend;
use cache_engine::backend::address::{CacheAddress, OriginAddress, Size};
use cache_engine::cache::{CacheConfig, LineSize, Statistics};
use cache_engine::frontend::nbd::Transport;

use crate::failure::Failure;
use crate::serve::{Message, Service};
use crate::volume::{CacheSettings, Volume};

/// The export of the origin alone.
pub(super) const ORIGIN: &str = "origin";

/// The export of the origin with a cache in front.
pub(super) const CACHED: &str = "cached";

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

/// The running scene. Dropping it ends its threads.
pub(super) struct Scene {
    socket: PathBuf,
    volumes: Option<Performer>,
}

/// A thread and the way to end it.
struct Performer {
    control: MailSender<Message>,
    thread: JoinHandle<Result<(), Failure>>,
}

impl Scene {
    /// Starts the threads and waits until they serve.
    ///
    /// # Errors
    /// When anything of it cannot be set up.
    pub(super) fn start(settings: &SceneSettings) -> Result<Self, Failure> {
        let socket = settings.socket.clone();
        let settings = settings.clone();
        let volumes = Performer::start("forebay-volumes", move |ready| {
            let reactor = Reactor::new(ReactorConfig::default())?;
            let mut service = volumes(&settings, &reactor)?;
            let (control, mailbox) = reactor.mailbox(4)?;
            service.obey(mailbox);
            // Nobody waits any more when the demo was given up meanwhile.
            let _ = ready.send(control);
            Ok(reactor.run(&mut service)?)
        })?;
        Ok(Self { socket, volumes: Some(volumes) })
    }

    /// The socket of both exports.
    pub(super) fn socket(&self) -> &Path {
        &self.socket
    }

    /// The cache's counters now.
    ///
    /// # Errors
    /// When the thread that knows them has ended.
    pub(super) fn statistics(&self) -> Result<Statistics, Failure> {
        let ended = || Failure::new("the volume's thread has ended");
        let volumes = self.volumes.as_ref().ok_or_else(ended)?;
        let (reply, answer) = mpsc::channel();
        volumes.control.send(Message::Statistics(reply)).map_err(|_| ended())?;
        let counters = answer.recv().map_err(|_| ended())?;
        counters.last().copied().ok_or_else(ended)
    }

    /// Ends the threads in order, from the client's side to the medium's.
    ///
    /// # Errors
    /// The first failure of any of them.
    pub(super) fn end(mut self) -> Result<(), Failure> {
        self.volumes.take().map_or(Ok(()), Performer::end)
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        // Only on the way out of another failure, which is the one to tell.
        let _ = self.volumes.take().map(Performer::end);
    }
}

impl Performer {
    /// Starts `play` on a thread of its own and waits until it is ready.
    fn start(
        name: &str,
        play: impl FnOnce(mpsc::Sender<MailSender<Message>>) -> Result<(), Failure> + Send + 'static,
    ) -> Result<Self, Failure> {
        let (ready, started) = mpsc::channel();
        let thread =
            std::thread::Builder::new()
                .name(name.to_owned())
                .spawn(move || play(ready))
                .map_err(|error| Failure::because(format!("starting the thread {name}"), error))?;
        match started.recv() {
            Ok(control) => Ok(Self { control, thread }),
            Err(_) => Err(match join(thread) {
                Err(failure) => failure,
                Ok(()) => Failure::new(format!("the thread {name} ended before it was ready")),
            }),
        }
    }

    fn end(self) -> Result<(), Failure> {
        // A full or closed mailbox is as good: the thread ends when this sender is gone.
        let _ = self.control.send(Message::End);
        drop(self.control);
        join(self.thread)
    }
}

fn join(thread: JoinHandle<Result<(), Failure>>) -> Result<(), Failure> {
    let name = thread.thread().name().unwrap_or("of the demo").to_owned();
    thread.join().unwrap_or_else(|_| Err(Failure::new(format!("the thread {name} panicked"))))
}

/// Both volumes over one origin: alone, and with a cache in front.
fn volumes(settings: &SceneSettings, reactor: &Reactor) -> Result<Service, Failure> {
    let origin =
        Backend::open(&OriginAddress::File(settings.namespace.clone()))?.delayed(settings.latency);
    let cache = CacheSettings {
        address: CacheAddress::File(settings.cache.clone()),
        size: Some(settings.cache_size),
        force_format: false,
        // The workload's requests are of 4 KiB and far apart: larger lines would lie half empty.
        config: CacheConfig { line_size: LineSize::ALL[0], ..CacheConfig::default() },
    };
    let mut service = Service::new(reactor);
    service.add_volume(Volume::plain(&origin, reactor)?, [ORIGIN])?;
    service.add_volume(Volume::cached(&origin, &cache, reactor)?.0, [CACHED])?;
    service.listen(&Transport::Unix(settings.socket.clone()))?;
    Ok(service)
}
