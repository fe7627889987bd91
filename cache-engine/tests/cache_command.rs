//! `forebay cache` as a user and a script see it: exit codes, JSON, and what is refused.

#![cfg(feature = "cli")]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Output};

use rustix::fs::{FlockOperation, flock};
use serde_json::Value;

fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_forebay")).args(arguments).output().expect("it starts")
}

#[track_caller]
fn success(arguments: &[&str]) -> String {
    let output = run(arguments);
    let failure = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {failure}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

#[track_caller]
fn json(arguments: &[&str]) -> Value {
    serde_json::from_str(&success(arguments)).expect("JSON")
}

#[track_caller]
fn refusal(arguments: &[&str], words: &str) {
    let output = run(arguments);
    let failure = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {failure}");
    assert!(failure.contains(words) && !failure.contains("panicked"), "{words}: {failure}");
}

fn flip(path: &Path, at: u64) {
    let file = File::options().read(true).write(true).open(path).expect("opens");
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).expect("readable");
    file.write_all_at(&[byte[0] ^ 1], at).expect("writable");
}

#[test]
fn a_cache_is_formatted_looked_at_and_checked() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("cache");
    let name = path.to_str().expect("UTF-8");
    let uri = format!("file:{name}");
    let shown = success(&["cache", "format", name, "--size", "64MiB", "--line-size", "64k"]);
    assert!(shown.contains("line table"), "{shown}");
    let first = json(&["cache", "inspect", &uri, "--json"]);
    assert_eq!(first["line_size"], 65536);
    assert_eq!(first["capacity"], 64 << 20);
    assert_eq!(first["state"], "clean");
    assert_eq!(first["layout"]["activity_pages"]["offset"], 128 << 10);
    assert_eq!(first["journal_blocks_used"], 0);
    assert!(success(&["cache", "inspect", name]).contains("no volumes"));
    let report = json(&["cache", "check", name, "--json"]);
    assert_eq!((&report["damage"]["count"], &report["lines"]), (&0.into(), &0.into()));
    success(&["cache", "format", name]);
    let second = json(&["cache", "inspect", name, "--json"]);
    assert_eq!(second["line_size"], 16384);
    assert_ne!(second["format_id"], first["format_id"], "formatted anew");
    assert_eq!(second["sequence"], 3, "after the ones before");
}

#[test]
fn damage_is_found_and_ends_the_check_with_1() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("cache");
    let name = path.to_str().expect("UTF-8");
    success(&["cache", "format", name, "--size", "4MiB"]);
    flip(&path, 65536 + 20);
    refusal(&["cache", "check", name], "damaged in 1 places");
    let shown = run(&["cache", "check", name]);
    let shown = String::from_utf8_lossy(&shown.stdout);
    assert!(shown.contains("superblock B at byte 65536"), "{shown}");
    assert_eq!(json(&["cache", "inspect", name, "--json"])["sequence"], 0, "the other copy");
    flip(&path, 20);
    refusal(&["cache", "inspect", name], "wrong checksum");
    refusal(&["cache", "format", name], "--force-format");
    success(&["cache", "format", name, "--force-format"]);
    success(&["cache", "check", name]);
}

#[test]
fn what_is_in_use_or_no_cache_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("cache");
    let name = path.to_str().expect("UTF-8");
    refusal(&["cache", "inspect", name], "no such file");
    success(&["cache", "format", name, "--size", "4MiB"]);
    let held = File::open(&path).expect("opens");
    flock(&held, FlockOperation::NonBlockingLockShared).expect("nobody else has it");
    for verb in ["format", "inspect", "check"] {
        refusal(&["cache", verb, name], "in use");
    }
    drop(held);
    refusal(
        &["cache", "check", name, "--origin", &format!("file:{name}"), "--volume", "x"],
        "the cache's volumes are: none",
    );
    std::fs::write(&path, vec![0; 1 << 20]).expect("written");
    refusal(&["cache", "inspect", name], "is unused");
    std::fs::write(&path, vec![7; 1 << 20]).expect("written");
    refusal(&["cache", "inspect", name], "no Forebay cache");
    refusal(&["cache", "format", name], "--force-format");
    assert_eq!(std::fs::read(&path).expect("readable"), vec![7; 1 << 20], "untouched");
    assert_eq!(run(&["cache", "inspect", "memory:"]).status.code(), Some(2));
}
