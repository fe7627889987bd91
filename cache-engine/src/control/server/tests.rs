//! The server against clients that keep to nothing.
//!
//! Absent: what requests do; they are answered by a stand-in here.

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;

use block_io::reactor::{Mailbox, Reactor, ReactorConfig, Task};
use block_io::{PoolLayout, Timestamp};

use super::super::client::ControlClient;
use super::*;

/// A server, and a thread that answers what it is asked until the test ends.
struct Place {
    folder: tempfile::TempDir,
    server: Option<ControlServer>,
    stop: Option<MailSender<()>>,
    reactor: Option<JoinHandle<u64>>,
}

/// Answers each request with `Done`; `flush` of the volume `never` is not answered.
struct Desk {
    calls: Mailbox<Call>,
    stop: Mailbox<()>,
    kept: Vec<Call>,
    answered: u64,
}

impl Task for Desk {
    fn poll(&mut self, _: Timestamp) -> bool {
        let mut progress = false;
        while let Some(call) = self.calls.receive() {
            progress = true;
            if matches!(&call.request, Request::Flush { volume } if volume == "never") {
                self.kept.push(call);
                continue;
            }
            call.reply.send(Answer::Done {});
            self.answered += 1;
        }
        progress
    }

    fn is_finished(&self) -> bool {
        self.stop.is_closed()
    }
}

fn options() -> ServerOptions {
    ServerOptions { clients_max: 3, ..ServerOptions::default() }
}

fn reactor() -> Reactor {
    let pool = PoolLayout::STANDARD;
    Reactor::new(ReactorConfig { pool, ..ReactorConfig::default() }).expect("io_uring")
}

impl Place {
    fn new(options: ServerOptions) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("control.sock");
        let (sender, receiver) = mpsc::channel();
        let thread = std::thread::spawn(move || {
            let reactor = reactor();
            let (calls, mailbox) = reactor.mailbox(options.clients_max).expect("a mailbox");
            let (stop, stopped) = reactor.mailbox(1).expect("a mailbox");
            sender.send((calls, stop)).expect("the test waits");
            let mut desk = Desk { calls: mailbox, stop: stopped, kept: Vec::new(), answered: 0 };
            reactor.run(&mut desk).expect("it runs");
            desk.answered
        });
        let (calls, stop) = receiver.recv().expect("the reactor is there");
        let server = ControlServer::open(&path, options, calls).expect("free");
        Self { folder, server: Some(server), stop: Some(stop), reactor: Some(thread) }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("control.sock")
    }

    fn client(&self) -> ControlClient {
        ControlClient::connect(&self.path()).expect("room")
    }

    /// A client who does as he likes, greeted already.
    fn stranger(&self) -> BufReader<UnixStream> {
        let stream = UnixStream::connect(self.path()).expect("listens");
        let mut stream = BufReader::new(stream);
        let mut greeting = String::new();
        stream.read_line(&mut greeting).expect("greeted");
        assert!(greeting.contains("\"protocol\":1"), "{greeting}");
        stream
    }

    /// Ends the server, then the reactor: how many requests were answered.
    fn end(mut self) -> u64 {
        drop(self.server.take());
        drop(self.stop.take());
        self.reactor.take().expect("there").join().expect("no panic")
    }
}

fn line(stream: &mut BufReader<UnixStream>) -> String {
    let mut line = String::new();
    stream.read_line(&mut line).expect("an answer");
    line
}

const STATUS: &[u8] = b"{\"verb\":\"status\"}\n";

#[test]
fn requests_are_answered_and_the_socket_is_its_owners_alone() {
    let place = Place::new(options());
    let mode = std::fs::metadata(place.path()).expect("there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let mut client = place.client();
    for _ in 0..3 {
        assert_eq!(client.ask(&Request::Status {}).expect("answered"), Answer::Done {});
    }
    let path = place.path();
    drop(client);
    assert_eq!(place.end(), 3);
    assert!(!path.exists(), "the socket is removed");
}

#[test]
fn garbage_is_refused_and_the_connection_goes_on() {
    let place = Place::new(options());
    let mut stream = place.stranger();
    for (sent, expected) in [
        (&b"\n"[..], "EOF"),
        (b"GET / HTTP/1.1\r\n", "expected value"),
        (b"\x00\xff\xfe{}\n", "request: "),
        (b"{\"verb\":\"halt\"}\n", "unknown variant `halt`"),
        (STATUS, "{\"done\":{}}"),
    ] {
        stream.get_mut().write_all(sent).expect("sent");
        let answer = line(&mut stream);
        assert!(answer.contains(expected), "{answer}");
    }
    drop(stream);
    assert_eq!(place.end(), 1);
}

#[test]
fn a_line_may_come_in_parts_and_half_a_line_is_nothing() {
    let place = Place::new(options());
    let mut stream = place.stranger();
    for byte in STATUS {
        stream.get_mut().write_all(std::slice::from_ref(byte)).expect("sent");
    }
    assert_eq!(line(&mut stream), "{\"done\":{}}\n");
    let half = &STATUS[..STATUS.len() - 1];
    stream.get_mut().write_all(half).expect("sent");
    stream.get_mut().shutdown(std::net::Shutdown::Write).expect("half closed");
    assert_eq!(line(&mut stream), "", "no answer to half a request");
    drop(stream);
    assert_eq!(place.end(), 1);
}

#[test]
fn a_line_that_is_too_long_ends_the_connection() {
    let place = Place::new(options());
    let mut longest = vec![b' '; REQUEST_BYTES_MAX - STATUS.len()];
    longest.extend_from_slice(STATUS);
    let mut stream = place.stranger();
    stream.get_mut().write_all(&longest).expect("sent");
    assert_eq!(line(&mut stream), "{\"done\":{}}\n");
    longest.insert(0, b' ');
    // The server may have gone before all of it is sent.
    let _ = stream.get_mut().write_all(&longest);
    let answer = line(&mut stream);
    assert!(answer.contains("must be at most 65536 bytes long"), "{answer}");
    let mut rest = Vec::new();
    let ended = stream.read_to_end(&mut rest);
    assert!(rest.is_empty() || ended.is_err(), "closed");
    drop(stream);
    assert_eq!(place.end(), 1);
}

#[test]
fn thousands_of_requests_are_answered_one_after_another() {
    let place = Place::new(options());
    let stream = place.stranger();
    let mut output = stream.get_ref().try_clone().expect("a second handle");
    let writer = std::thread::spawn(move || {
        for _ in 0..5000 {
            output.write_all(STATUS).expect("sent");
        }
    });
    let answers = stream.lines().take(5000);
    assert!(answers.map(|line| line.expect("an answer")).all(|line| line == "{\"done\":{}}"));
    writer.join().expect("all sent");
    assert_eq!(place.end(), 5000);
}

#[test]
fn who_takes_no_answer_and_who_goes_before_it_hold_up_nobody() {
    let place = Place::new(options());
    // One who sends and never reads, until nothing more fits.
    let mut deaf = place.stranger();
    deaf.get_mut().set_nonblocking(true).expect("possible");
    let never = b"{\"verb\":\"flush\",\"volume\":\"never\"}\n";
    while deaf.get_mut().write(STATUS).is_ok() {}
    // One who goes while his request is under way.
    let mut hasty = place.stranger();
    hasty.get_mut().write_all(never).expect("sent");
    drop(hasty);
    assert_eq!(place.client().ask(&Request::Status {}).expect("answered"), Answer::Done {});
    drop(deaf);
    place.end();
}

#[test]
fn a_client_beyond_the_bound_is_told_and_room_comes_back() {
    let place = Place::new(options());
    let mut clients: Vec<_> = (0..3).map(|_| place.client()).collect();
    let error = ControlClient::connect(&place.path()).expect_err("full").to_string();
    assert!(error.contains("3 clients are here already"), "{error}");
    let mut first = clients.remove(0);
    assert_eq!(first.ask(&Request::Status {}).expect("answered"), Answer::Done {});
    drop(first);
    // Its thread notices in its own time.
    while ControlClient::connect(&place.path()).is_err() {
        std::thread::yield_now();
    }
    drop(clients);
    place.end();
}

#[test]
fn who_waits_when_the_service_ends_is_told() {
    let place = Place::new(options());
    let mut client = place.client();
    let never = Request::Flush { volume: "never".into() };
    let waiting = std::thread::spawn(move || client.ask(&never).expect_err("unanswered"));
    place.end();
    let error = waiting.join().expect("it ends").to_string();
    assert!(error.contains("the service ends"), "{error}");
}

#[test]
fn a_silent_client_is_let_go() {
    let request_timeout = Duration::from_millis(1);
    let place = Place::new(ServerOptions { request_timeout, ..options() });
    let mut stream = place.stranger();
    stream.get_mut().write_all(b"{\"verb\"").ok();
    assert_eq!(stream.read_to_end(&mut Vec::new()).unwrap_or(0), 0, "closed without a word");
    drop(stream);
    place.end();
}

#[test]
fn a_stale_socket_is_replaced_and_nothing_else_is() {
    let place = Place::new(options());
    let path = place.path();
    let (calls, _mailbox) = reactor().mailbox(1).expect("a mailbox");
    let open = |path: &Path| ControlServer::open(path, options(), calls.clone());
    let error = open(&path).expect_err("listened at").to_string();
    assert!(error.contains("another forebay listens there"), "{error}");
    assert!(place.client().ask(&Request::Status {}).is_ok(), "who listened still does");
    let file = place.folder.path().join("file");
    std::fs::write(&file, "kept").expect("written");
    let error = open(&file).expect_err("a file").to_string();
    assert!(error.contains("not a socket"), "{error}");
    assert_eq!(std::fs::read(&file).expect("there"), b"kept");
    let stale = place.folder.path().join("stale");
    drop(UnixListener::bind(&stale).expect("free"));
    let second = open(&stale).expect("nobody listens");
    assert!(ControlClient::connect(&stale).is_ok());
    let left = std::fs::read_dir(place.folder.path()).expect("there").count();
    assert_eq!(left, 3, "nothing is left beside them");
    // What is not its own any more is not removed.
    std::fs::remove_file(&stale).expect("there");
    std::fs::write(&stale, "kept").expect("written");
    drop(second);
    assert!(stale.exists());
    let missing = place.folder.path().join("no/such");
    assert!(open(&missing).expect_err("no folder").to_string().contains("no/such"));
    place.end();
}
