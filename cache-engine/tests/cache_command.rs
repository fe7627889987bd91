//! `forebay cache` as a user and a script see it: exit codes, JSON, and what is refused.

#![cfg(feature = "cli")]

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Output};

use block_io::device::file::{FileDevice, OpenOptions};
use cache_engine::backend::{Backend, origin_identity};
use cache_engine::cache::VolumeId;
use cache_engine::cache::metadata::examination::{JournalRecord, JournalRecords, LineTable};
use cache_engine::cache::metadata::{Generation, Superblock, VolumeRecord};
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

/// Records the volume `disk` of the origin at `path` in a new cache, with one line of it.
fn fill(cache: &Path, path: &Path) -> u64 {
    let file = File::options().read(true).write(true).open(cache).expect("opens");
    let mut start = vec![0; 65536];
    file.read_exact_at(&mut start, 65536).expect("readable");
    let mut superblock = Superblock::decode(&start).expect("sequence number 1 stands there");
    let device = FileDevice::open(path, OpenOptions { read_only: true, ..Default::default() });
    let origin = Backend::File(device.expect("opens"));
    let layout = superblock.layout;
    let content = std::fs::read(path).expect("readable");
    let mut records = JournalRecords::default();
    let checksums = std::array::from_fn(|block| {
        block_io::Crc32c::new().update(&content[block % 4 * 4096..][..4096]).value()
    });
    let (valid, changed, entry) = (0b1111, 0b1111, 1 << 31 | 5);
    records.add(&JournalRecord { slot: 2, entry, valid, changed, checksums });
    let table = LineTable::new(layout, superblock.format_id);
    let page = table.fold(0, &[0; 4096], &records);
    let (_, lines) = table.read(0, &page, &JournalRecords::default());
    let base = lines.lines[0].offset >> 26 << 26;
    let place = lines.lines[0].offset - base;
    let size = content.len() as u64;
    let record = VolumeRecord {
        id: VolumeId(0),
        name: "disk".into(),
        identity: origin_identity::offer(&origin).identity,
        size,
        base,
        span: size,
        generation: Generation::default(),
        attach_epoch: 1,
        key_check: [0; 16],
        flags: 0,
    };
    superblock.put_volume(record).expect("it fits");
    for _ in 0..2 {
        superblock.sequence += 1;
        file.write_all_at(&superblock.encode(), superblock.offset()).expect("writable");
    }
    file.write_all_at(&page, layout.table_offset).expect("writable");
    // The line's bytes are the first of the content, which the origin has at its place.
    file.write_all_at(&content[..16384], layout.data_offset + 2 * 16384).expect("writable");
    let origin = File::options().write(true).open(path).expect("opens");
    origin.write_all_at(&content[..16384], place).expect("writable");
    place
}

#[test]
fn a_volume_is_compared_with_its_origin() {
    let folder = tempfile::tempdir().expect("a folder");
    let (cache, disk) = (folder.path().join("cache"), folder.path().join("disk"));
    let name = cache.to_str().expect("UTF-8");
    let origin = format!("file:{}", disk.display());
    let content: Vec<u8> = (0..64 << 20).map(|at: u32| (at / 1000) as u8).collect();
    std::fs::write(&disk, &content).expect("written");
    success(&["cache", "format", name, "--size", "4MiB"]);
    let place = fill(&cache, &disk);
    let report = json(&["cache", "check", name, "--origin", &origin, "--json"]);
    assert_eq!((&report["lines"], &report["blocks_compared"]), (&1.into(), &4.into()));
    assert_eq!(report["damage"]["count"], 0, "{report}");
    let volume = &json(&["cache", "inspect", name, "--json"])["volumes"][0];
    assert_eq!((&volume["name"], &volume["identity_kind"]), (&"disk".into(), &"file".into()));
    flip(&disk, place + 5000);
    refusal(&["cache", "check", name, "--origin", &origin, "--volume", "disk"], "in 1 places");
    let shown = run(&["cache", "check", name, "--origin", &origin]).stdout;
    let shown = String::from_utf8_lossy(&shown);
    assert!(shown.contains("slot 2") && shown.contains("not what the origin has"), "{shown}");
    let other = folder.path().join("other");
    std::fs::write(&other, &content).expect("written");
    let other = format!("file:{}", other.display());
    refusal(&["cache", "check", name, "--origin", &other], "but the volume was cached from file");
}
