//! A target that announces itself on the local network, and a host that finds it there: in a
//! network namespace of their own, where nobody else's multicast is heard. Where the machine lets
//! nobody make one the test says so and is skipped.

#![cfg(all(feature = "cli", feature = "mdns"))]
#![allow(clippy::print_stderr, reason = "a skipped test says so")]

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

const ADDRESS: &str = "192.0.2.1";
const SERVICE: &str = "nqn.2014-08.org.example:discovery";
const SUBSYSTEM: &str = "nqn.2014-08.org.example:disks";
const HOST: &str = "nqn.2014-08.org.nvmexpress:uuid:11111111-2222-3333-4444-555555555555";

/// A network namespace with one interface.
struct Network(String);

impl Network {
    /// None, having said why, where there can be none.
    fn new(name: &str) -> Option<Self> {
        let network = Self(format!("forebay-{name}-{}", std::process::id()));
        let made = ip(&["netns", "add", &network.0]).and_then(|()| {
            let within = |arguments: &[&str]| ip(&[&["-n", &network.0], arguments].concat());
            within(&["link", "set", "lo", "up"])?;
            // Its other end is there for the link to be up.
            within(&["link", "add", "net0", "type", "veth", "peer", "name", "net1"])?;
            within(&["address", "add", &format!("{ADDRESS}/24"), "dev", "net0"])?;
            within(&["link", "set", "net1", "up"])?;
            within(&["link", "set", "net0", "up"])
        });
        match made {
            Ok(()) => Some(network),
            Err(error) => {
                eprintln!("skipped: no network namespace here: {error}");
                None
            }
        }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.0, env!("CARGO_BIN_EXE_forebay")]).args(arguments);
        command.env("FOREBAY_STATE_DIR", concat!(env!("CARGO_TARGET_TMPDIR"), "/mdns"));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn discover(&self, time: &str) -> Output {
        let mut command = self.command(&["nvme", "discover", "--mdns", "--mdns-time", time]);
        command.args(["--json", "--hostnqn", HOST]).output().expect("it runs")
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = ip(&["netns", "delete", &self.0]);
    }
}

fn ip(arguments: &[&str]) -> Result<(), String> {
    let output = Command::new("ip").args(arguments).output();
    let output = output.map_err(|error| format!("ip: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if output.status.success() { Ok(()) } else { Err(format!("ip {arguments:?}: {said}")) }
}

/// A running target, which does not outlive a test that fails.
struct Target(Child);

impl Drop for Target {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A target with one subsystem; where it serves discovery.
fn start(network: &Network, folder: &tempfile::TempDir) -> (Target, String) {
    let path = folder.path().join("target.toml");
    let configuration = format!(
        "listen = ['{ADDRESS}:0']\ndiscovery = ['{ADDRESS}:0']\ndiscovery-nqn = '{SERVICE}'\n\
         mdns = true\n[[subsystem]]\nnqn = '{SUBSYSTEM}'\n[[subsystem.namespace]]\n\
         device = 'memory:1M'\n"
    );
    std::fs::write(&path, configuration).expect("written");
    let path = path.to_str().expect("UTF-8");
    let mut child = network.command(&["target", "--config", path]).spawn().expect("it starts");
    let mut stdout = BufReader::new(child.stdout.take().expect("piped")).lines();
    let place = stdout.find_map(|line| {
        let line = line.expect("readable");
        line.strip_prefix("ready nqn.2014-08.org.nvmexpress.discovery ").map(str::to_owned)
    });
    (Target(child), place.expect("it serves discovery"))
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_target_that_announces_itself_is_found_and_asked_until_it_takes_leave() {
    let Some(network) = Network::new("mdns") else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let (mut target, place) = start(&network, &folder);
    let found = network.discover("5");
    assert!(found.status.success(), "{}", errors(&found));
    let value: Value = serde_json::from_slice(&found.stdout).expect("one value");
    let announced = value["announced"].as_array().expect("a list");
    assert_eq!(announced.len(), 1, "{value:#}");
    let port = announced[0]["port"].as_u64().expect("a number");
    assert_eq!(announced[0]["addresses"], serde_json::json!([ADDRESS]));
    assert_eq!(format!("{ADDRESS}:{port}"), place);
    assert_eq!(announced[0]["subnqn"], SERVICE);
    let records = value["records"].as_array().expect("a list");
    assert!(records.iter().any(|record| record["subnqn"] == SUBSYSTEM), "{value:#}");
    for told in ["listening for discovery controllers (mDNS) for 5 s", "heard \"forebay-"] {
        assert!(errors(&found).contains(told), "{}", errors(&found));
    }
    // With everybody who announces, one does not name one.
    let mut both = network.command(&["nvme", "discover", "--mdns", ADDRESS]);
    assert_eq!(both.output().expect("it runs").status.code(), Some(2));

    kill_process(Pid::from_child(&target.0), Signal::TERM).expect("it runs");
    assert!(target.0.wait().expect("it ends").success());
    let nobody = network.discover("1");
    assert_eq!(nobody.status.code(), Some(1));
    let told = "no discovery controller announced itself within 1 s";
    assert!(errors(&nobody).contains(told), "{}", errors(&nobody));
}
