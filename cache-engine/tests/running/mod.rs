//! What the tests of the command share: a command that runs with its ready lines, what verbs say to
//! it, and the folder that it is in.
//!
//! Every wait is for something that the command says; nothing sleeps. Absent: what a service is
//! made of and what is done with it, which is each test's.

#![allow(dead_code, reason = "each test uses a part of it")]

#[path = "../../src/bin/forebay/demo/client.rs"]
pub(crate) mod client;
pub(crate) mod host;
pub(crate) mod raw_host;

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdout, Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

pub(crate) fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_forebay"));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.env_remove("FOREBAY_SOCKET").env_remove("XDG_RUNTIME_DIR");
    command
}

/// A folder with files, sockets and what the host notes.
pub(crate) struct Folder(pub(crate) tempfile::TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub(crate) fn text(&self, name: &str) -> String {
        self.path(name).to_str().expect("UTF-8").to_owned()
    }

    pub(crate) fn origin(&self, name: &str) -> String {
        format!("file:{}", self.text(name))
    }

    /// On the socket `nbd`.
    pub(crate) fn export(&self, name: &str) -> String {
        format!("nbd+unix:///{name}?socket={}", self.text("nbd"))
    }

    /// Starts a command with the control socket `control`, and takes so many ready lines.
    #[track_caller]
    pub(crate) fn run(&self, arguments: &[&str], lines: usize) -> Running {
        let mut child = command(arguments).spawn().expect("it starts");
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        let stderr = BufReader::new(child.stderr.take().expect("piped"));
        let (folder, said) = (self.0.path().to_owned(), String::new());
        let mut running = Running { folder, child, stdout, stderr, said, ready: Vec::new() };
        for _ in 0..lines {
            let mut line = String::new();
            running.stdout.read_line(&mut line).expect("readable");
            if !line.starts_with("ready ") {
                running.stderr.read_to_string(&mut running.said).expect("readable");
                panic!("not ready: {}", running.said);
            }
            running.ready.push(line.trim_end().to_owned());
        }
        running
    }
}

/// A command that runs.
pub(crate) struct Running {
    folder: PathBuf,
    child: Child,
    stdout: BufReader<ChildStdout>,
    stderr: BufReader<ChildStderr>,
    said: String,
    /// Its ready lines.
    pub(crate) ready: Vec<String>,
}

impl Running {
    /// What its ready line of this name says.
    #[track_caller]
    pub(crate) fn place(&self, name: &str) -> &str {
        let beginning = format!("ready {name} ");
        let mut lines = self.ready.iter();
        lines.find_map(|line| line.strip_prefix(&beginning)).expect("it said so")
    }

    /// The export `export` on the socket `nbd`.
    pub(crate) fn client(&self, export: &str) -> client::Client {
        client::Client::connect(&self.folder.join("nbd"), export).expect("serves")
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.folder.join("control")
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// A verb that talks to it.
    pub(crate) fn begin(&self, arguments: &[&str]) -> Child {
        command(arguments).env("FOREBAY_SOCKET", self.socket()).spawn().expect("it starts")
    }

    pub(crate) fn verb(&self, arguments: &[&str]) -> Output {
        self.begin(arguments).wait_with_output().expect("it ends")
    }

    #[track_caller]
    pub(crate) fn told(&self, arguments: &[&str]) -> String {
        let output = self.verb(arguments);
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{arguments:?}: {errors}");
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    #[track_caller]
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let text = self.told(&[arguments, &["--json"]].concat());
        assert_eq!(text.lines().count(), 1, "one line: {text}");
        serde_json::from_str(&text).expect("JSON")
    }

    #[track_caller]
    pub(crate) fn refused(&self, arguments: &[&str], expected: &str) {
        refusal(&self.verb(arguments), 1, &[expected]);
    }

    #[track_caller]
    pub(crate) fn wait_until_it_says(&mut self, words: &str) {
        while !self.said.contains(words) {
            let count = self.stderr.read_line(&mut self.said).expect("readable");
            assert!(count > 0, "it ended without `{words}`: {}", self.said);
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("it runs");
    }

    /// Ends it in order: what it printed since it was ready, and all that it said.
    #[track_caller]
    pub(crate) fn stop(self) -> (String, String) {
        self.signal(Signal::TERM);
        self.ended()
    }

    /// Waits for its end, which is in order.
    #[track_caller]
    pub(crate) fn ended(mut self) -> (String, String) {
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest).expect("readable");
        self.stderr.read_to_string(&mut self.said).expect("readable");
        let said = std::mem::take(&mut self.said);
        assert!(self.child.wait().expect("it ends").success(), "{said}");
        assert!(!said.contains("panicked") && !said.contains("did not end"), "{said}");
        (rest, said)
    }

    /// As [`stop`](Self::stop) of one that prints statistics as JSON.
    #[track_caller]
    pub(crate) fn stop_counted(self) -> (Value, String) {
        self.signal(Signal::TERM);
        let (rest, said) = self.ended();
        (statistics(&rest), said)
    }

    pub(crate) fn kill(mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it ends");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Only when a test has failed: whoever has ended already cannot be killed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The statistics at the end of what was printed.
#[track_caller]
pub(crate) fn statistics(printed: &str) -> Value {
    serde_json::from_str(printed.lines().last().expect("statistics")).expect("JSON")
}

/// What a command says that is refused.
#[track_caller]
pub(crate) fn refusal(output: &Output, code: i32, expected: &[&str]) {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert!(!text.contains("panicked"), "{text}");
    assert!(expected.iter().all(|words| text.contains(words)), "{expected:?} in {text}");
    assert!(output.stdout.is_empty(), "standard output is for results");
}

/// The file at `path`.
#[track_caller]
pub(crate) fn file(path: &Path) -> Vec<u8> {
    std::fs::read(path).expect("readable")
}
