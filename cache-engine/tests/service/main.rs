//! A service of many volumes on one cache, which change while it runs, as an operator and NBD
//! clients see it.
//!
//! Every wait is for something that the command says; nothing sleeps.

#![cfg(feature = "cli")]

#[path = "../running/mod.rs"]
mod running;

mod cache_device;
mod configuration;
mod growth;
mod leases;
mod load;
mod namespace;
mod nvme_export;
mod paths;
mod restart;
mod volumes;

use std::ops::{Deref, DerefMut};

use running::{Folder, Running, client, command, refusal};
use serde_json::Value;

const LINE: u64 = 16 << 10;
const SIZE: u64 = 4 << 20;
const LINES: u64 = SIZE / LINE;
const BLOCK: usize = 4096;

/// A folder with origins, caches, sockets and what the host notes.
struct Machine(Folder);

impl Deref for Machine {
    type Target = Folder;

    fn deref(&self) -> &Folder {
        &self.0
    }
}

impl Machine {
    /// With an origin of its own content for each name.
    fn new(origins: &[&str]) -> Self {
        let machine = Self(Folder::new());
        origins
            .iter()
            .for_each(|name| std::fs::write(machine.path(name), content(name)).expect("written"));
        machine
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
        let exports = configuration.matches("nbd+unix:").count();
        let exports = exports + configuration.matches("'nvme+tcp://127.0.0.1:0/").count();
        Service { machine: self, running: self.run(&run, exports.max(1)) }
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
    running: Running,
}

impl Deref for Service<'_> {
    type Target = Running;

    fn deref(&self) -> &Running {
        &self.running
    }
}

impl DerefMut for Service<'_> {
    fn deref_mut(&mut self) -> &mut Running {
        &mut self.running
    }
}

impl Service<'_> {
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

    /// Ends it in order: its statistics, and what it said.
    #[track_caller]
    fn stop(self) -> (Value, String) {
        let (statistics, said) = self.running.stop_counted();
        assert!(!said.contains("not stopped in order, its"), "{said}");
        (statistics, said)
    }

    fn kill(self) {
        self.running.kill();
    }
}
