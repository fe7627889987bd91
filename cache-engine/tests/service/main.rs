//! A service of many volumes on one cache, which change while it runs, as an operator and NBD
//! clients see it.
//!
//! Every wait is for something that the command says; nothing sleeps.

#![cfg(feature = "cli")]

#[path = "../../src/bin/forebay/demo/client.rs"]
#[allow(dead_code, reason = "the demo uses all of it")]
mod client;

mod cache_device;
mod configuration;
mod growth;
mod leases;
mod load;
mod namespace;
mod paths;
mod restart;
mod volumes;

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, ChildStderr, ChildStdout, Command, Output, Stdio};

use client::Client;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

const LINE: u64 = 16 << 10;
const SIZE: u64 = 4 << 20;
const LINES: u64 = SIZE / LINE;
const BLOCK: usize = 4096;

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_forebay"));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.env_remove("FOREBAY_SOCKET").env_remove("XDG_RUNTIME_DIR");
    command
}

/// A folder with origins, caches, sockets and what the host notes.
struct Machine(tempfile::TempDir);

impl Machine {
    /// With an origin of its own content for each name.
    fn new(origins: &[&str]) -> Self {
        let machine = Self(tempfile::tempdir().expect("a folder"));
        origins
            .iter()
            .for_each(|name| std::fs::write(machine.path(name), content(name)).expect("written"));
        machine
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().expect("UTF-8").to_owned()
    }

    fn origin(&self, name: &str) -> String {
        format!("file:{}", self.text(name))
    }

    fn export(&self, name: &str) -> String {
        format!("nbd+unix:///{name}?socket={}", self.text("nbd"))
    }

    /// Of the configuration file: a cache on the file `cache`, and a control socket.
    fn head(&self, cache: &str) -> String {
        let (control, cache, state) =
            (self.text("control"), self.origin(cache), self.text("state"));
        format!(
            "control = '{control}'\n[cache]\ndevice = '{cache}'\nsize = '64M'\n\
             state-dir = '{state}'\n[cache.settings]\nsequential-cutoff = 'never'\n\
             fill-width = 'requested'\n"
        )
    }

    /// Of the configuration file: a volume, on the origin of its name.
    fn volume(&self, name: &str, more: &str) -> String {
        let (origin, export) = (self.origin(name), self.export(name));
        format!(
            "[[volume]]\nname = '{name}'\norigin = '{origin}'\nexports = ['{export}']\n{more}\n"
        )
    }

    fn volumes(&self, names: &[&str], more: &str) -> String {
        names.iter().map(|name| self.volume(name, more)).collect()
    }

    /// Starts a service as the file says, and takes its ready lines.
    #[track_caller]
    fn start(&self, configuration: &str) -> Service<'_> {
        std::fs::write(self.path("forebay.toml"), configuration).expect("written");
        let run = ["run", "--config", &self.text("forebay.toml"), "--stats", "json"];
        let mut child = command(&run).spawn().expect("it starts");
        let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
        let stderr = BufReader::new(child.stderr.take().expect("piped"));
        let mut ready = Vec::new();
        for _ in 0..configuration.matches("nbd+unix:").count().max(1) {
            let mut line = String::new();
            stdout.read_line(&mut line).expect("readable");
            ready.push(line.trim_end().to_owned());
        }
        let mut service =
            Service { machine: self, child, stdout, stderr, said: String::new(), ready };
        if !service.ready.iter().all(|line| line.starts_with("ready ")) {
            service.stderr.read_to_string(&mut service.said).expect("readable");
            panic!("not ready: {}", service.said);
        }
        service
    }
}

/// What an origin has at first: each block says whose it is and which.
fn content(name: &str) -> Vec<u8> {
    let mut content = vec![0; SIZE as usize];
    for (number, block) in content.chunks_mut(BLOCK).enumerate() {
        block.fill(name.bytes().next().expect("a name"));
        block[..8].copy_from_slice(&number.to_le_bytes());
    }
    content
}

/// A running service.
struct Service<'machine> {
    machine: &'machine Machine,
    child: Child,
    stdout: BufReader<ChildStdout>,
    stderr: BufReader<ChildStderr>,
    said: String,
    ready: Vec<String>,
}

impl Service<'_> {
    fn client(&self, export: &str) -> Client {
        Client::connect(&self.machine.path("nbd"), export).expect("serves")
    }

    /// A verb that talks to it.
    fn begin(&self, arguments: &[&str]) -> Child {
        let mut command = command(arguments);
        command.env("FOREBAY_SOCKET", self.machine.path("control")).spawn().expect("it starts")
    }

    fn verb(&self, arguments: &[&str]) -> Output {
        self.begin(arguments).wait_with_output().expect("it ends")
    }

    #[track_caller]
    fn told(&self, arguments: &[&str]) -> String {
        let output = self.verb(arguments);
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{arguments:?}: {errors}");
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    #[track_caller]
    fn json(&self, arguments: &[&str]) -> Value {
        let text = self.told(&[arguments, &["--json"]].concat());
        assert_eq!(text.lines().count(), 1, "one line: {text}");
        serde_json::from_str(&text).expect("JSON")
    }

    #[track_caller]
    fn refused(&self, arguments: &[&str], expected: &str) {
        refusal(&self.verb(arguments), 1, &[expected]);
    }

    /// Adds a volume on the origin of its name.
    #[track_caller]
    fn add(&self, name: &str) -> Value {
        let (origin, export) = (self.machine.origin(name), self.machine.export(name));
        self.json(&["volume", "add", name, "--origin", &origin, "--export", &export])
    }

    /// How a volume is.
    #[track_caller]
    fn volume(&self, name: &str) -> Value {
        let volumes = self.json(&["volume", "list"]);
        let volumes = volumes.as_array().expect("a list");
        volumes.iter().find(|volume| volume["name"] == name).expect("there").clone()
    }

    #[track_caller]
    fn counter(&self, volume: &str, counter: &str) -> u64 {
        self.volume(volume)["statistics"][counter].as_u64().expect("a number")
    }

    /// Reads all lines of a volume, compares them, and says how many were hits.
    #[track_caller]
    fn hits(&self, name: &str, expected: &[u8]) -> u64 {
        let before = self.counter(name, "read_hits");
        let mut client = self.client(name);
        for (line, expected) in expected.chunks(LINE as usize).enumerate() {
            let bytes = load::read(&mut client, line as u64 * LINE, expected.len());
            assert!(bytes == expected, "line {line} of {name}");
        }
        client.disconnect().expect("sent");
        self.counter(name, "read_hits") - before
    }

    /// Reads all lines of a volume until all are cached: none is stored while there are too many
    /// records to be written.
    #[track_caller]
    fn fill(&self, name: &str, expected: &[u8]) {
        let all = expected.len() as u64 / LINE;
        let filled = (0..200).any(|_| self.hits(name, expected) == all);
        assert!(filled, "never all of {name}");
    }

    #[track_caller]
    fn wait_until_it_says(&mut self, words: &str) {
        while !self.said.contains(words) {
            let count = self.stderr.read_line(&mut self.said).expect("readable");
            assert!(count > 0, "it ended without `{words}`: {}", self.said);
        }
    }

    /// Ends it in order: its statistics, and what it said.
    #[track_caller]
    fn stop(mut self) -> (Value, String) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).expect("it runs");
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest).expect("readable");
        self.stderr.read_to_string(&mut self.said).expect("readable");
        let said = std::mem::take(&mut self.said);
        assert!(self.child.wait().expect("it ends").success(), "{said}");
        assert!(!said.contains("not stopped in order, its"), "{said}");
        let last = rest.lines().last().expect("statistics");
        (serde_json::from_str(last).expect("JSON"), said)
    }

    fn kill(mut self) {
        self.child.kill().expect("it runs");
        self.child.wait().expect("it ends");
    }
}

impl Drop for Service<'_> {
    fn drop(&mut self) {
        // Only when a test has failed: whoever has ended already cannot be killed.
        let _ = self.child.kill();
    }
}

#[track_caller]
fn refusal(output: &Output, code: i32, expected: &[&str]) {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert!(!text.contains("panicked"), "{text}");
    assert!(expected.iter().all(|words| text.contains(words)), "{expected:?} in {text}");
    assert!(output.stdout.is_empty(), "standard output is for results");
}
