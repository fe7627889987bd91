//! `forebay target --config` as an operator and hosts see it: what the file says, what calls
//! change, and what is there after a restart.
//!
//! Every wait is for something that the command says; nothing sleeps.

#![cfg(feature = "cli")]

#[path = "../running/mod.rs"]
mod running;

mod access;
mod mistakes;
mod reservations;
mod security;
mod volumes;

use std::ops::Deref;
use std::process::Output;

use nvme_fabric::driver::ConnectOptions;
use running::host::{self, Host};
use running::{Folder, Running, command};
use serde_json::Value;

const PREFIX: &str = "nqn.2014-08.org.example";
const SUBSYSTEM: &str = "nqn.2014-08.org.example:configured";
const HOST: &str = "nqn.2014-08.org.example:host";
const OTHER: &str = "nqn.2014-08.org.example:other";

/// A folder with volumes, state, socket and configuration.
struct Machine(Folder);

impl Deref for Machine {
    type Target = Folder;

    fn deref(&self) -> &Folder {
        &self.0
    }
}

impl Machine {
    /// In a folder with reflinks if the environment names one.
    fn new() -> Self {
        let folder = match std::env::var_os("FOREBAY_REFLINK_FOLDER") {
            Some(folder) => tempfile::tempdir_in(folder),
            None => tempfile::tempdir(),
        };
        let machine = Self(Folder(folder.expect("a folder")));
        std::fs::create_dir(machine.path("volumes")).expect("made");
        machine
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
    fn start(&self, configuration: &str) -> Service {
        let path = self.write(configuration);
        Service(self.run(&["target", "--config", &path], 3))
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
struct Service(Running);

impl Service {
    fn verb(&self, arguments: &[&str]) -> Output {
        self.0.verb(&[&["target"], arguments].concat())
    }

    #[track_caller]
    fn told(&self, arguments: &[&str]) -> String {
        self.0.told(&[&["target"], arguments].concat())
    }

    #[track_caller]
    fn json(&self, arguments: &[&str]) -> Value {
        self.0.json(&[&["target"], arguments].concat())
    }

    #[track_caller]
    fn refused(&self, arguments: &[&str], expected: &str) {
        self.0.refused(&[&["target"], arguments].concat(), expected);
    }

    /// How a subsystem is.
    #[track_caller]
    fn subsystem(&self, nqn: &str) -> Value {
        let status = self.json(&["status"]);
        let subsystems = status["subsystems"].as_array().expect("a list");
        subsystems.iter().find(|found| found["nqn"] == nqn).cloned().unwrap_or(Value::Null)
    }

    fn of(running: Running) -> Self {
        Self(running)
    }

    fn port(&self) -> u16 {
        // The first of its ready lines is the listener of subsystems.
        host::port(&self.0.ready[0])
    }

    fn options(&self, host: &str, subsystem: &str, namespace_id: u32) -> ConnectOptions {
        host::options(self.port(), host, subsystem, namespace_id)
    }

    fn connect(&self, host: &str, subsystem: &str, namespace_id: u32) -> Result<Host, String> {
        Host::connect(&self.options(host, subsystem, namespace_id))
    }

    #[track_caller]
    fn stop(self) {
        self.0.stop();
    }

    fn kill(self) {
        self.0.kill();
    }
}

#[track_caller]
fn refusal(output: &Output, code: i32, expected: &str) {
    running::refusal(output, code, &[expected]);
}
