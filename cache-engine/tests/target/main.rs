//! `forebay target --config` as an operator and hosts see it: what the file says, what calls
//! change, and what is there after a restart.
//!
//! Every wait is for something that the command says; nothing sleeps.

#![cfg(feature = "cli")]

mod access;
mod mistakes;
mod security;
mod volumes;

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, ChildStdout, Command, Output, Stdio};
use std::time::Duration;

use block_io::reactor::{Reactor, ReactorConfig, Wait};
use block_io::{BlockDevice, BlockQueue, Completion, IoError, PoolLayout, Request, RequestId};
use nvme_fabric::driver::{ConnectOptions, NamespaceQueue, NvmeTcpDevice};
use nvme_fabric::spec::nqn::{HostId, Nqn};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

const PREFIX: &str = "nqn.2014-08.org.example";
const SUBSYSTEM: &str = "nqn.2014-08.org.example:configured";
const HOST: &str = "nqn.2014-08.org.example:host";
const OTHER: &str = "nqn.2014-08.org.example:other";

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_forebay"));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.env_remove("FOREBAY_SOCKET").env_remove("XDG_RUNTIME_DIR");
    command
}

/// A folder with volumes, state, socket and configuration.
struct Machine(tempfile::TempDir);

impl Machine {
    /// In a folder with reflinks if the environment names one.
    fn new() -> Self {
        let folder = match std::env::var_os("FOREBAY_REFLINK_FOLDER") {
            Some(folder) => tempfile::tempdir_in(folder),
            None => tempfile::tempdir(),
        };
        let machine = Self(folder.expect("a folder"));
        std::fs::create_dir(machine.path("volumes")).expect("made");
        machine
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().expect("UTF-8").to_owned()
    }

    /// Of the configuration: everything but subsystems.
    fn head(&self) -> String {
        let (control, folder, state) =
            (self.text("control"), self.text("volumes"), self.text("state"));
        format!(
            "listen = ['127.0.0.1:0']\ndiscovery = ['127.0.0.1:0']\ncontrol = '{control}'\n\
             [volumes]\nfolder = '{folder}'\nstate = '{state}'\nnqn-prefix = '{PREFIX}'\n"
        )
    }

    fn write(&self, configuration: &str) -> String {
        std::fs::write(self.path("target.toml"), configuration).expect("written");
        self.text("target.toml")
    }

    #[track_caller]
    fn start(&self, configuration: &str) -> Service<'_> {
        let path = self.write(configuration);
        let mut child = command(&["target", "--config", &path]).spawn().expect("it starts");
        let mut stdout = BufReader::new(child.stdout.take().expect("piped"));
        let mut places = Vec::new();
        for word in ["subsystems", "nqn.2014-08.org.nvmexpress.discovery", "control"] {
            let mut line = String::new();
            stdout.read_line(&mut line).expect("readable");
            let Some(place) = line.trim_end().strip_prefix(&format!("ready {word} ")) else {
                let mut said = String::new();
                let stderr = child.stderr.as_mut().expect("piped");
                stderr.read_to_string(&mut said).expect("readable");
                panic!("not ready but `{line}`: {said}");
            };
            places.push(place.to_owned());
        }
        Service { machine: self, child, stdout, places }
    }
}

/// Of the configuration: a subsystem with a namespace in memory and another one in a thin file.
fn subsystem(machine: &Machine, more: &str) -> String {
    let file = machine.text("thin");
    format!(
        "[[subsystem]]\nnqn = '{SUBSYSTEM}'\n{more}\n[[subsystem.namespace]]\n\
         device = 'memory:1M'\n[[subsystem.namespace]]\ndevice = 'file:{file}'\nsize = '8M'\n"
    )
}

/// A running target.
struct Service<'machine> {
    machine: &'machine Machine,
    child: Child,
    stdout: BufReader<ChildStdout>,
    places: Vec<String>,
}

impl Service<'_> {
    fn verb(&self, arguments: &[&str]) -> Output {
        let mut command = command(&[&["target"], arguments].concat());
        command.env("FOREBAY_SOCKET", self.machine.path("control")).output().expect("it ends")
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
        refusal(&self.verb(arguments), 1, expected);
    }

    /// How a subsystem is.
    #[track_caller]
    fn subsystem(&self, nqn: &str) -> Value {
        let status = self.json(&["status"]);
        let subsystems = status["subsystems"].as_array().expect("a list");
        subsystems.iter().find(|found| found["nqn"] == nqn).cloned().unwrap_or(Value::Null)
    }

    fn options(&self, host: &str, subsystem: &str, namespace_id: u32) -> ConnectOptions {
        let name = |text: &str| text.parse::<Nqn>().expect("a name");
        let port = self.places[0].rsplit_once(':').expect("a port").1.parse().expect("a number");
        let id = HostId([host.len() as u8; 16]);
        let options = ConnectOptions::new("127.0.0.1", name(subsystem), name(host), id);
        // What cannot be done now fails at once.
        let fast_io_fail = Some(Duration::ZERO);
        ConnectOptions { port, namespace_id, fast_io_fail, ..options }
    }

    fn connect(&self, host: &str, subsystem: &str, namespace_id: u32) -> Result<Client, String> {
        let reactor = reactor();
        let options = self.options(host, subsystem, namespace_id);
        let device =
            NvmeTcpDevice::connect(&reactor, &options).map_err(|error| error.to_string())?;
        let queue = device.open_queue(&reactor, 8).expect("a queue");
        Ok(Client { reactor, queue, device })
    }

    #[track_caller]
    fn stop(mut self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).expect("it runs");
        let mut rest = String::new();
        self.stdout.read_to_string(&mut rest).expect("readable");
        let mut said = String::new();
        self.child.stderr.take().expect("piped").read_to_string(&mut said).expect("readable");
        assert!(self.child.wait().expect("it ends").success(), "{said}");
        assert!(!said.contains("panicked"), "{said}");
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

fn reactor() -> Reactor {
    let config =
        ReactorConfig { operations_max: 256, pool: PoolLayout::HEAP, ..ReactorConfig::default() };
    Reactor::new(config).expect("a reactor")
}

/// A host that is connected to a namespace.
struct Client {
    reactor: Reactor,
    queue: NamespaceQueue,
    device: NvmeTcpDevice,
}

impl Client {
    fn run(&mut self, request: Request) -> Completion {
        let mut completions = Vec::new();
        assert!(self.queue.submit(request).is_ok(), "room");
        loop {
            let progress = self.queue.poll(self.reactor.now(), &mut completions);
            if let Some(completion) = completions.pop() {
                return completion;
            }
            let wait = if progress { Wait::No } else { Wait::ForEvent };
            self.reactor.turn(wait).expect("turns");
        }
    }

    fn read(&mut self, offset: u64) -> Result<Vec<u8>, IoError> {
        let buffer = self.reactor.pool().allocate(4096);
        let done = self.run(Request::read(RequestId(1), offset, buffer));
        done.result.map(|()| done.buffer.expect("a read's buffer").to_vec())
    }

    fn write(&mut self, offset: u64, byte: u8) -> Result<(), IoError> {
        let buffer = self.reactor.pool().allocate(4096);
        buffer.copy_from_slice(&[byte; 4096]);
        self.run(Request::write(RequestId(2), offset, buffer)).result
    }

    fn capacity(&self) -> u64 {
        self.device.geometry().capacity
    }
}

#[track_caller]
fn refusal(output: &Output, code: i32, expected: &str) {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{text}");
    assert!(!text.contains("panicked"), "{text}");
    assert!(text.contains(expected), "{expected:?} in {text}");
    assert!(output.stdout.is_empty(), "standard output is for results");
}
