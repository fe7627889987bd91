//! `forebay nvme` against discovery services that say what a test makes them say.
//!
//! Every wait is for something that the command says; nothing sleeps.

#![cfg(feature = "cli")]

#[path = "../../nvme-fabric/tests/scripted/mod.rs"]
mod scripted;
#[path = "../../nvme-fabric/tests/scripted/service.rs"]
mod service;

use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Output, Stdio};

use nvme_fabric::spec::log_page::{DiscoveryEntry, entry_flag};
use rustix::process::{Pid, Signal, kill_process};
use scripted::entry;
use serde_json::Value;
use service::{Service, listen, referral};

const HOST: &str = "nqn.2014-08.org.nvmexpress:uuid:11111111-2222-3333-4444-555555555555";
/// The example of the interchange form (NVMe/TCP Transport 1.1, "PSK Interchange Format").
const PSK: &str = "NVMeTLSkey-1:01:VRLbtnN9AQb2WXW3c9+wEf/DRLz0QuLdbYvEhwtdWwNf9LrZ:";
const OTHER: &str = "99999999-8888-7777-6666-555555555555";

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_forebay"));
    command.env("FOREBAY_STATE_DIR", concat!(env!("CARGO_TARGET_TMPDIR"), "/nvme_command"));
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn output(arguments: &[&str]) -> Output {
    command(arguments).output().expect("it runs")
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[track_caller]
fn json(output: &Output) -> Value {
    assert!(output.status.success(), "{}", errors(output));
    serde_json::from_slice(&output.stdout).expect("one value")
}

fn names(records: &Value) -> Vec<&str> {
    let records = records.as_array().expect("a list").iter();
    records.filter_map(|record| record["subnqn"].as_str()).collect()
}

#[test]
fn discovery_follows_referrals_and_tells_of_those_that_lead_nowhere() {
    let ((one_listener, one_port), (two_listener, two_port)) = (listen(), listen());
    let gone = listen().1;
    let (one, two) = (Service::default(), Service::default());
    let foreign = DiscoveryEntry { transport: 1, ..referral(two_port) };
    one.set(&[entry("a", 4420), referral(two_port), referral(gone), foreign]);
    let absent = DiscoveryEntry { flags: entry_flag::NOT_CONNECTED, ..entry("b", 4420) };
    two.set(&[absent, referral(one_port)]);
    one.serve(one_listener);
    two.serve(two_listener);
    let place = format!("127.0.0.1:{one_port}");
    let found = output(&["nvme", "discover", &place, "--json", "--hostnqn", HOST]);
    let value = json(&found);
    let names = names(&value["records"]);
    let with = |name: &str| names.iter().filter(|one| one.ends_with(name)).count();
    assert_eq!((with(":a"), with(":b"), names.len()), (1, 1, 6));
    let record = value["records"].as_array().and_then(|all| {
        all.iter().find(|one| one["subnqn"].as_str().is_some_and(|name| name.ends_with(":b")))
    });
    let record = record.expect("of the second");
    assert_eq!(record["told_by"], format!("127.0.0.1:{two_port}"));
    assert_eq!(record["eflags_names"], serde_json::json!(["not connected to the CDC"]));
    assert_eq!(value["services"].as_array().map(Vec::len), Some(2));
    assert_eq!(value["genctr"], 1);
    let error = value["failures"][0]["error"].as_str().expect("a text");
    assert!(error.contains(&format!("connecting to 127.0.0.1:{gone}")), "{error}");
    assert_eq!(value["unfollowed"][0]["reason"], "TRTYPE is 1: must be 3, TCP");
    for part in [format!("the referral to 127.0.0.1:{gone}"), "was not followed".to_owned()] {
        assert!(errors(&found).contains(&part), "{}", errors(&found));
    }
    // This service only.
    let alone = ["nvme", "discover", &place, "--json", "--no-referrals", "--hostnqn", HOST];
    let found = output(&alone);
    assert_eq!(json(&found)["services"].as_array().map(Vec::len), Some(1));
    assert_eq!(errors(&found), "");
    let shown = output(&["nvme", "discover", &place]);
    let text = String::from_utf8_lossy(&shown.stdout).into_owned();
    for part in ["example:a", "example:b", "rdma", "not connected to"] {
        assert!(text.contains(part), "{text}");
    }
    let place = format!("127.0.0.1:{gone}");
    let refused = output(&["nvme", "discover", &place]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(errors(&refused).contains(&place) && refused.stdout.is_empty());
}

/// A discovery that stays.
struct Watch(Child, BufReader<ChildStdout>);

impl Watch {
    fn line(&mut self) -> String {
        let mut line = String::new();
        self.1.read_line(&mut line).expect("readable");
        line.trim_end().to_owned()
    }
}

#[test]
fn a_persistent_discovery_tells_each_change_until_it_is_ended() {
    for as_json in [true, false] {
        let (listener, port) = listen();
        let service = Service::default();
        service.set(&[entry("a", 4420)]);
        service.serve(listener);
        let place = format!("127.0.0.1:{port}");
        let mut arguments = vec!["nvme", "discover", &place, "--persistent"];
        arguments.extend(as_json.then_some("--json"));
        let mut child = command(&arguments).spawn().expect("it starts");
        let stdout = BufReader::new(child.stdout.take().expect("piped"));
        let mut watch = Watch(child, stdout);
        let tells = |line: &str, word: &str, name: &str| match as_json {
            true => {
                let value: Value = serde_json::from_str(line).expect("JSON");
                let subsystem = value["subnqn"].as_str().expect("a name");
                assert!(value["event"] == word && subsystem.ends_with(name), "{line}");
            }
            false => assert!(line.starts_with(word) && line.contains(name), "{line}"),
        };
        tells(&watch.line(), "appeared", ":a");
        let secure = DiscoveryEntry { security: 2, ..entry("b", 4420) };
        for (entries, word, name) in [
            (vec![entry("a", 4420), entry("b", 4420)], "appeared", ":b"),
            (vec![entry("b", 4420)], "gone", ":a"),
            (vec![secure], "changed", ":b"),
        ] {
            service.set(&entries);
            while !service.raise() {
                std::thread::yield_now();
            }
            tells(&watch.line(), word, name);
        }
        kill_process(Pid::from_child(&watch.0), Signal::TERM).expect("it runs");
        assert_eq!(watch.line(), "");
        assert_eq!(watch.0.wait().expect("it ends").code(), Some(0));
    }
}

#[test]
fn who_this_host_is_can_be_shown_and_chosen() {
    let chosen = output(&["nvme", "host", "--json", "--hostnqn", HOST, "--hostid", OTHER]);
    let value = json(&chosen);
    assert_eq!((&value["hostnqn"], &value["hostid"]), (&HOST.into(), &OTHER.into()));
    assert_eq!(value["hostnqn_source"], "the option");
    let warned = errors(&chosen);
    assert!(warned.contains("is not the UUID in hostnqn"), "{warned}");
    let (own, again) = (output(&["nvme", "host", "--json"]), output(&["nvme", "show-hostnqn"]));
    let name = json(&own)["hostnqn"].as_str().expect("a name").to_owned();
    assert!(String::from_utf8_lossy(&again.stdout).contains(&name), "always the same");
    let wrong = output(&["nvme", "host", "--hostid", "1"]);
    assert_eq!(wrong.status.code(), Some(2));
    assert!(errors(&wrong).contains("32 hexadecimal digits"), "{}", errors(&wrong));
}

/// The command on a machine whose `/etc/nvme` is `folder`. None where no such machine can be had.
fn on_a_machine(folder: &Path, arguments: &[&str]) -> Option<Output> {
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c"]);
    command.args(["mount --bind \"$1\" /etc/nvme || exit 77; shift; exec \"$@\"", "sh"]);
    command.arg(folder).arg(env!("CARGO_BIN_EXE_forebay")).args(arguments);
    let output = command.env_remove("FOREBAY_STATE_DIR").output().ok();
    output.filter(|output| output.status.code() != Some(77) && !errors(output).contains("unshare"))
}

#[test]
fn a_host_keeps_the_name_that_was_made_and_a_file_without_one_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let ask = || on_a_machine(folder.path(), &["nvme", "host", "--json"]);
    let Some(made) = ask() else {
        eprintln!("skipped: unshare --mount, or a mount at /etc/nvme, is not allowed here");
        return;
    };
    let made = json(&made);
    let (file, id) = (folder.path().join("hostnqn"), folder.path().join("hostid"));
    let name = made["hostnqn"].as_str().expect("a name");
    assert_eq!(std::fs::read_to_string(&file).expect("kept"), format!("{name}\n"));
    let kept = std::fs::read_to_string(&id).expect("kept beside it");
    assert_eq!(made["hostid"], kept.trim_end());
    assert_eq!(made["hostnqn_source"], "/etc/nvme/hostnqn");
    std::fs::write(&file, format!("{HOST}\n")).expect("written");
    std::fs::remove_file(&id).expect("there");
    let changed = json(&ask().expect("as before"));
    let uuid = HOST.rsplit_once(':').expect("a UUID").1;
    assert_eq!((&changed["hostnqn"], &changed["hostid"]), (&HOST.into(), &uuid.into()));
    std::fs::write(&file, "x\n").expect("written");
    let refused = ask().expect("as before");
    assert_eq!(refused.status.code(), Some(1));
    assert!(errors(&refused).contains("/etc/nvme/hostnqn: "), "{}", errors(&refused));
}

#[test]
fn key_files_are_their_owners_alone_and_never_shown() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name).to_str().expect("UTF-8").to_owned();
    let mode = |name: &str, mode| {
        let mode = std::fs::Permissions::from_mode(mode);
        std::fs::set_permissions(path(name), mode).expect("set");
    };
    let (secret, other, keys) = (path("secret"), path("other"), path("keys"));
    for file in [&secret, &other] {
        assert!(output(&["nvme", "key", "--output", file]).status.success());
        let mode = std::fs::metadata(file).expect("made").permissions().mode() & 0o777;
        assert_eq!(mode, 0o600);
    }
    let read = |file: &str| std::fs::read_to_string(file).expect("readable");
    let text = read(&secret);
    assert!(text.starts_with("DHHC-1:") && text != read(&other), "another one each time");
    let again = output(&["nvme", "key", "--output", &secret]);
    assert_eq!((again.status.code(), read(&secret)), (Some(1), text.clone()), "it stays");
    std::fs::write(&keys, format!("{HOST} {PSK}\n")).expect("written");
    mode("keys", 0o600);
    let of_host = format!("{HOST}={secret}");
    for (file, name, arguments) in [
        (&secret, "secret", ["--host-secret", of_host.as_str()]),
        (&keys, "keys", ["--tls-keys", keys.as_str()]),
    ] {
        let refused = |words: &str| {
            // Nobody has this address: a start that gets so far ends there.
            let target = ["target", "--listen", "192.0.2.1:1", "--subsystem", "nqn.2014-08.x"];
            let found = output(&[&target[..], &["--namespace", "memory:1M"], &arguments].concat());
            let said = errors(&found);
            assert_eq!(found.status.code(), Some(1), "{said}");
            assert!(said.contains(words) && said.contains(file.as_str()), "{words} in {said}");
            assert!(!said.contains(&text[10..40]) && !said.contains(&PSK[20..40]), "{said}");
        };
        mode(name, 0o640);
        refused("its mode 640 lets others than its owner at it");
        mode(name, 0o600);
        std::fs::write(file, &text[..30]).expect("written");
        refused("");
        std::fs::remove_file(file).expect("there");
        refused("No such file");
    }
}

#[test]
fn a_list_without_a_service_says_what_is_missing() {
    let missing = output(&["nvme", "list", "--socket", "/nonexistent/control"]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(errors(&missing).contains("/nonexistent/control"), "{}", errors(&missing));
}
