//! Servers to run clients against: ours in a thread, over a memory device, or the `forebay`
//! command.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread::JoinHandle;

use block_io::device::memory::{MemoryDevice, MemoryQueue};
use block_io::device::shared::SharedQueue;
use block_io::reactor::{MailSender, Mailbox, Reactor, ReactorConfig, Task};
use block_io::{BlockDevice, Geometry, Timestamp};
use cache_engine::frontend::nbd::{ExportAddress, NbdServer, ServerOptions, Transport};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::program;

/// An NBD server of this process over a RAM disk. It ends when dropped.
///
/// The export `disk` is the disk; `other` is the same disk under another name.
pub struct ServerUnderTest {
    size: u64,
    unix: ExportAddress,
    tcp: ExportAddress,
    stop: Option<MailSender<()>>,
    thread: Option<JoinHandle<()>>,
    _folder: TempDir,
}

impl ServerUnderTest {
    /// A server of a disk of `geometry`, on a Unix socket and a TCP port of its own.
    ///
    /// # Panics
    /// When it cannot be set up.
    pub fn start(geometry: Geometry) -> Self {
        let folder = tempfile::tempdir().expect("a folder for the socket");
        let path = folder.path().join("nbd.sock");
        let (sender, receiver) = mpsc::channel();
        let transport = Transport::Unix(path.clone());
        let thread = std::thread::spawn(move || {
            let reactor = Reactor::new(ReactorConfig::default()).expect("io_uring");
            let mut server = serve(&reactor, geometry);
            server.listen(&transport).expect("a Unix socket");
            let loopback = Transport::Tcp { host: "127.0.0.1".into(), port: 0 };
            let tcp = server.listen(&loopback).expect("a TCP port");
            let (stop, stopped) = reactor.mailbox(1).expect("a mailbox");
            sender.send((tcp, stop)).expect("the test waits");
            reactor.run(&mut Served { server, stopped }).expect("the reactor runs");
        });
        let (tcp, stop) = receiver.recv().expect("the server is set up");
        Self {
            size: geometry.capacity,
            unix: ExportAddress::unix(path, "disk"),
            tcp: ExportAddress { transport: tcp, name: "disk".into() },
            stop: Some(stop),
            thread: Some(thread),
            _folder: folder,
        }
    }

    /// Bytes on the disk.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// The disk over its Unix socket.
    pub fn unix(&self) -> String {
        self.unix.to_string()
    }

    /// The disk over TCP.
    pub fn tcp(&self) -> String {
        self.tcp.to_string()
    }
}

impl Drop for ServerUnderTest {
    fn drop(&mut self) {
        drop(self.stop.take());
        let ended = self.thread.take().map(JoinHandle::join);
        if !std::thread::panicking() {
            assert!(matches!(ended, Some(Ok(()))), "the server's thread panicked");
        }
    }
}

fn serve(reactor: &Reactor, geometry: Geometry) -> NbdServer<MemoryQueue> {
    let device = MemoryDevice::with_geometry(geometry).expect("a sound geometry");
    let queue = BlockDevice::<Reactor>::open_queue(&device, reactor, 128).expect("a queue");
    let queue = SharedQueue::new(queue);
    let mut server = NbdServer::new(reactor, ServerOptions::default());
    server.add_export("disk", "A RAM disk", queue.another()).expect("a free name");
    server.add_export("other", "", queue).expect("a free name");
    server
}

/// The server until the test is done with it.
struct Served {
    server: NbdServer<MemoryQueue>,
    stopped: Mailbox<()>,
}

impl Task for Served {
    fn poll(&mut self, now: Timestamp) -> bool {
        if self.stopped.is_closed() {
            self.server.shutdown();
        }
        self.server.poll(now)
    }

    fn is_finished(&self) -> bool {
        self.server.is_finished()
    }
}

/// A `forebay` that serves (`run` or `target`), ended with SIGTERM.
pub struct ForebayCommand {
    child: Child,
    output: BufReader<std::process::ChildStdout>,
    served: Vec<String>,
}

/// Where the `forebay` command under test is, as `cargo xtask test` sets it.
pub const BINARY: &str = "FOREBAY_BINARY";

impl ForebayCommand {
    /// The command that [`BINARY`] names, or none, said aloud.
    ///
    /// # Panics
    /// When there is none and the test run requires its tools.
    pub fn program() -> Option<PathBuf> {
        let path = std::env::var_os(BINARY).map(PathBuf::from);
        let path = path.filter(|path| path.is_file());
        if path.is_none() {
            assert!(!program::is_required(), "{BINARY} names no program");
            program::say_skipped(&format!("{BINARY} names no program (cargo xtask test sets it)"));
        }
        path
    }

    /// Starts the program at `path` with these arguments, the verb first, and waits until it has
    /// said `ready` for every export and listener that the arguments have.
    ///
    /// # Panics
    /// When it does not start, or ends before it is ready.
    #[track_caller]
    pub fn start(path: &Path, arguments: &[&str]) -> Self {
        let mut command = Command::new(path);
        // What the host notes of its caches is not to be this machine's.
        let state = std::env::temp_dir().join("forebay-conformance-state");
        let command = command.env("FOREBAY_STATE_DIR", state).args(arguments).stdin(Stdio::null());
        let mut child = command.stdout(Stdio::piped()).spawn().expect("the program starts");
        let output = child.stdout.take().expect("it was piped");
        let mut output = BufReader::new(output);
        let serving =
            |argument: &&&str| ["--export", "--listen", "--discovery"].contains(*argument);
        let wanted = arguments.iter().filter(serving).count();
        let mut served = Vec::new();
        while served.len() < wanted {
            let mut line = String::new();
            let count = output.read_line(&mut line).expect("the program's output");
            assert!(count > 0, "forebay {arguments:?}: ended before it was ready");
            let mut words = line.split_whitespace();
            if words.next() == Some("ready") {
                served.push(words.next_back().expect("an address").to_owned());
            }
        }
        Self { child, output, served }
    }

    /// What is served, in the order of readiness: URIs of exports, addresses of listeners.
    pub fn served(&self) -> &[String] {
        &self.served
    }

    /// Ends it with SIGTERM; its status, and what else it wrote.
    ///
    /// # Panics
    /// When it cannot be waited for.
    pub fn stop(mut self) -> (ExitStatus, String) {
        self.terminate();
        let mut rest = String::new();
        std::io::Read::read_to_string(&mut self.output, &mut rest).expect("the program's output");
        (self.child.wait().expect("it is our child"), rest)
    }

    fn terminate(&self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // It may have ended by itself, which the status tells.
            let _ = kill_process(pid, Signal::TERM);
        }
    }
}

impl Drop for ForebayCommand {
    /// Leaves no process behind a failed test.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
