//! The control socket: a Unix socket beside the reactor, on threads of its own.
//!
//! ```text
//!   client ══line══▶ its thread ──Call──▶ bounded mailbox ──▶ reactor: executor
//!          ◀═line═══           ◀──Answer── channel of the call ◀──┘
//!   accept: one thread, which polls the listening socket and the end of the server
//! ```
//! A client's thread reads a line, passes it on, waits for the answer and writes it; so a client
//! that is slow, silent or gone holds up its own thread and nobody else, and one that sends
//! thousands of requests has one of them under way. The reactor puts an answer into a channel that
//! has room for it and never waits.
//!
//! Who may ask is whoever may open the socket file: its owner, mode 0600 from the moment that it
//! exists. A file left by a server that is gone is replaced, one that is listened at is not.
//!
//! Bounds: [`ServerOptions`], a request's length, and one request of each client. Absent: what the
//! requests do ([`executor`](super::executor)).

use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use block_io::DeviceError;
use block_io::reactor::MailSender;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::Mode;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::model::{Answer, Greeting, REQUEST_BYTES_MAX, Request, line_of, parse_request};

/// What a server bears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerOptions {
    /// Clients at a time; further ones are told so and let go.
    pub clients_max: usize,
    /// How long a client may take for a request, and be silent between two.
    pub request_timeout: Duration,
    /// How long a client may take to receive an answer.
    pub answer_timeout: Duration,
}

impl Default for ServerOptions {
    /// 16 clients, a minute for a request, ten seconds for an answer.
    fn default() -> Self {
        Self {
            clients_max: 16,
            request_timeout: Duration::from_secs(60),
            answer_timeout: Duration::from_secs(10),
        }
    }
}

/// A request on its way to the reactor. If it is dropped unanswered its client is told that the
/// service ends.
#[derive(Debug)]
pub struct Call {
    /// What is asked.
    pub request: Request,
    /// Whom to answer.
    pub reply: Reply,
}

/// Takes the answer to a call; never blocks.
#[derive(Debug)]
pub struct Reply(mpsc::Sender<Answer>);

impl Reply {
    /// Answers. A client that is gone meanwhile does not get it.
    pub fn send(self, answer: Answer) {
        let _ = self.0.send(answer);
    }
}

/// What the threads share.
struct Shared {
    options: ServerOptions,
    calls: MailSender<Call>,
    clients: AtomicUsize,
}

/// A control server. Dropping it ends it and removes its socket; clients that wait for an answer
/// get it, or the news that there will be none.
#[derive(Debug)]
pub struct ControlServer {
    file: SocketFile,
    /// Its other end hangs up when this is dropped.
    stop: Option<UnixStream>,
    thread: Option<JoinHandle<()>>,
}

impl ControlServer {
    /// Listens at `path` and sends what clients ask to `calls`, which has room for a call of each
    /// client.
    ///
    /// # Errors
    /// When somebody listens there already, something else is there, or it cannot be listened at.
    pub fn open(
        path: &Path,
        options: ServerOptions,
        calls: MailSender<Call>,
    ) -> Result<Self, DeviceError> {
        let failed = |error| DeviceError::with_source(attempt(path), error);
        let (listener, file) = listen(path)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let (stop, stopped) = UnixStream::pair().map_err(failed)?;
        let shared = Arc::new(Shared { options, calls, clients: AtomicUsize::new(0) });
        let thread = std::thread::Builder::new()
            .name("forebay-control".to_owned())
            .spawn(move || accept(&listener, &stopped, &shared))
            .map_err(failed)?;
        Ok(Self { file, stop: Some(stop), thread: Some(thread) })
    }

    /// Where it listens.
    pub fn path(&self) -> &Path {
        &self.file.path
    }
}

impl Drop for ControlServer {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // It waits for clients and for this only. If it panicked there is nobody to tell.
            let _ = thread.join();
        }
    }
}

fn attempt(path: &Path) -> String {
    format!("control socket {}", path.display())
}

/// A socket's name in the file system, removed when dropped if it still is that socket's.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    /// Device and inode.
    identity: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|identity| identity == self.identity) {
            // If it stays, the next server replaces it.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    std::fs::symlink_metadata(path).map(|metadata| (metadata.dev(), metadata.ino()))
}

fn listen(path: &Path) -> Result<(UnixListener, SocketFile), DeviceError> {
    remove_stale(path)?;
    let failed = |error: io::Error| DeviceError::with_source(attempt(path), error);
    let address = SocketAddrUnix::new(path).map_err(|error| failed(error.into()))?;
    let flags = SocketFlags::CLOEXEC;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
        .map_err(|error| failed(error.into()))?;
    // Linux makes the file with the socket's own mode: there is no moment with a wider one.
    rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR).map_err(|error| failed(error.into()))?;
    rustix::net::bind(&socket, &address).map_err(|error| match error {
        rustix::io::Errno::ADDRINUSE => in_use(path),
        error => failed(error.into()),
    })?;
    let file = SocketFile { path: path.to_owned(), identity: identity(path).map_err(failed)? };
    rustix::net::listen(&socket, 16).map_err(|error| failed(error.into()))?;
    Ok((UnixListener::from(socket), file))
}

fn in_use(path: &Path) -> DeviceError {
    let path = path.display();
    DeviceError::new(format!(
        "control socket {path}: another forebay listens there; end it, or choose another path"
    ))
}

/// Removes a socket that nobody listens at, and nothing else.
fn remove_stale(path: &Path) -> Result<(), DeviceError> {
    let failed = |error: io::Error| DeviceError::with_source(attempt(path), error);
    let metadata = match std::fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    if !metadata.file_type().is_socket() {
        let path = path.display();
        return Err(DeviceError::new(format!(
            "control socket {path}: something that is not a socket is there; choose another path"
        )));
    }
    if is_listened_at(path).map_err(failed)? {
        return Err(in_use(path));
    }
    // Another server may have replaced it between the look and here. So it is taken aside first,
    // looked at again, and put back if it lives.
    let mut aside = path.as_os_str().to_owned();
    aside.push(format!(".{}", std::process::id()));
    let aside = PathBuf::from(aside);
    match std::fs::rename(path, &aside) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
    }
    if is_listened_at(&aside).map_err(failed)? {
        std::fs::rename(&aside, path).map_err(failed)?;
        return Err(in_use(path));
    }
    std::fs::remove_file(&aside).map_err(failed)
}

fn is_listened_at(path: &Path) -> io::Result<bool> {
    match UnixStream::connect(path) {
        Ok(_) => Ok(true),
        Err(error) => match error.kind() {
            io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound => Ok(false),
            // Its backlog is full: somebody is there.
            io::ErrorKind::WouldBlock => Ok(true),
            _ => Err(error),
        },
    }
}

/// How long to leave the listener alone after an accept that failed, for want of descriptors
/// mostly.
const ACCEPT_PAUSE: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };

fn accept(listener: &UnixListener, stopped: &UnixStream, shared: &Arc<Shared>) {
    let mut paused = false;
    loop {
        let mut watched = [
            PollFd::from_borrowed_fd(stopped.as_fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(listener.as_fd(), PollFlags::IN),
        ];
        let (watched, timeout) = match paused {
            true => (&mut watched[..1], Some(&ACCEPT_PAUSE)),
            false => (&mut watched[..], None),
        };
        // Interrupted by a signal, it is asked again.
        let _ = poll(watched, timeout);
        if !watched[0].revents().is_empty() {
            return;
        }
        paused = match listener.accept() {
            Ok((stream, _)) => {
                admit(stream, shared);
                false
            }
            Err(error) => error.kind() != io::ErrorKind::WouldBlock,
        };
    }
}

/// One of the places for clients.
struct Place(Arc<Shared>);

impl Place {
    fn take(shared: &Arc<Shared>) -> Option<Self> {
        let free = |taken| (taken < shared.options.clients_max).then_some(taken + 1);
        let taken = shared.clients.fetch_update(Ordering::AcqRel, Ordering::Acquire, free);
        taken.is_ok().then(|| Self(Arc::clone(shared)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.clients.fetch_sub(1, Ordering::AcqRel);
    }
}

fn admit(mut stream: UnixStream, shared: &Arc<Shared>) {
    let Some(place) = Place::take(shared) else {
        let clients = shared.options.clients_max;
        let refusal = Answer::error(format!("{clients} clients are here already; try again later"));
        // It fits into the socket's buffer, or the client does not care.
        let _ = stream.set_nonblocking(true).and_then(|()| stream.write_all(&line_of(&refusal)));
        return;
    };
    let serve = move || {
        // How a client goes is its own affair.
        let _ = serve(stream, &place.0);
    };
    // Without a thread the client finds its connection closed, and its place is free again.
    let _ = std::thread::Builder::new().name("forebay-control-client".to_owned()).spawn(serve);
}

/// A client until it goes, or has to.
fn serve(stream: UnixStream, shared: &Shared) -> io::Result<()> {
    let options = &shared.options;
    let mut lines = Lines { stream, bytes: Vec::new(), seen: 0 };
    let say =
        |stream: &mut UnixStream, line: &[u8]| write_within(stream, line, options.answer_timeout);
    say(&mut lines.stream, &line_of(&Greeting::ours()))?;
    loop {
        let line = match lines.next(Instant::now() + options.request_timeout) {
            Ok(Some(line)) => line,
            Ok(None) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                let refusal = Answer::error(error.to_string());
                return say(&mut lines.stream, &line_of(&refusal));
            }
            Err(error) => return Err(error),
        };
        let answer = match parse_request(&line) {
            Ok(request) => ask(request, &shared.calls),
            Err(message) => Answer::error(message),
        };
        say(&mut lines.stream, &line_of(&answer))?;
    }
}

/// How often a client's thread that waits for an answer looks whether there will be one.
const ENDED_CHECK: Duration = Duration::from_secs(1);

fn ask(request: Request, calls: &MailSender<Call>) -> Answer {
    let (reply, answer) = mpsc::channel();
    if let Err(call) = calls.send(Call { request, reply: Reply(reply) }) {
        drop(call);
        return match calls.is_closed() {
            true => Answer::error("the service ends"),
            false => Answer::error("too many requests are waiting; try again"),
        };
    }
    loop {
        match answer.recv_timeout(ENDED_CHECK) {
            Ok(answer) => return answer,
            // A call that came as the mailbox was closed is in nobody's hands.
            Err(mpsc::RecvTimeoutError::Timeout) if !calls.is_closed() => {}
            Err(_) => return Answer::error("the service ends"),
        }
    }
}

/// Writes all of it within a time, however slowly the other end takes it.
fn write_within(stream: &mut UnixStream, mut bytes: &[u8], time: Duration) -> io::Result<()> {
    let deadline = Instant::now() + time;
    while !bytes.is_empty() {
        stream.set_write_timeout(Some(time_until(deadline)?))?;
        match stream.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn time_until(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

/// The lines of a client, none longer than a request may be.
struct Lines {
    stream: UnixStream,
    bytes: Vec<u8>,
    /// Bytes without a line feed.
    seen: usize,
}

impl Lines {
    /// The next line without its line feed; none at the end. What is left of a line then is
    /// nothing.
    ///
    /// # Errors
    /// `InvalidData` when the line is too long, `TimedOut` or another when the client is.
    fn next(&mut self, deadline: Instant) -> io::Result<Option<Vec<u8>>> {
        loop {
            let feed = self.bytes[self.seen..].iter().position(|byte| *byte == b'\n');
            if let Some(feed) = feed.map(|feed| self.seen + feed)
                && feed < REQUEST_BYTES_MAX
            {
                let rest = self.bytes.split_off(feed + 1);
                let mut line = std::mem::replace(&mut self.bytes, rest);
                line.pop();
                self.seen = 0;
                return Ok(Some(line));
            }
            self.seen = self.bytes.len();
            if self.seen >= REQUEST_BYTES_MAX {
                let message = format!("request: must be at most {REQUEST_BYTES_MAX} bytes long");
                return Err(io::Error::new(io::ErrorKind::InvalidData, message));
            }
            let mut chunk = [0; 4096];
            self.stream.set_read_timeout(Some(time_until(deadline)?))?;
            match self.stream.read(&mut chunk) {
                Ok(0) => return Ok(None),
                Ok(count) => self.bytes.extend_from_slice(&chunk[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

#[cfg(test)]
mod tests;
