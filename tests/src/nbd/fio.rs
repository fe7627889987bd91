//! `fio --ioengine=nbd`: mixed sizes at 512-byte places, 32 at a time, every block's checksum
//! verified.

use crate::program::Program;

/// fio's words for sizes from 512 bytes to 1 MiB, most of them small.
const SIZES: &str = "--bssplit=512/20:1536/10:4k/40:12k/10:64k/10:132k/5:1M/5";

/// Random reads and writes over the whole export, then all that was written read back.
pub fn verified_mix(uri: &str, size: u64) {
    for (name, pattern) in [("write", "--rw=randwrite"), ("mix", "--rw=randrw")] {
        run(uri, size, name, &[pattern, SIZES, "--blockalign=512"]);
    }
}

/// The same with `--rw` and sizes of the caller's choice, as fio takes them.
pub fn run(uri: &str, size: u64, name: &str, arguments: &[&str]) {
    let Some(fio) = Program::find("fio", "fio") else { return };
    let folder = tempfile::tempdir().expect("a folder for fio's state");
    let folder_argument = format!("--aux-path={}", folder.path().display());
    let uri = format!("--uri={uri}");
    let size = format!("--size={size}");
    let name = format!("--name={name}");
    let mut all = vec![
        &*name,
        "--ioengine=nbd",
        &uri,
        &size,
        &folder_argument,
        "--iodepth=32",
        "--verify=crc32c",
        "--verify_fatal=1",
        "--verify_state_save=0",
        "--do_verify=1",
        "--serialize_overlap=1",
        "--randseed=42",
        "--end_fsync=1",
        "--output-format=json",
    ];
    all.extend(arguments);
    let said = fio.run(&all);
    let json = said.find('{').map_or("", |start| &said[start..]);
    let report: serde_json::Value =
        serde_json::from_str(json).unwrap_or_else(|error| panic!("{error} in {said}"));
    let job = &report["jobs"][0];
    assert_eq!(job["error"], 0, "{job:#}");
    let written = job["write"]["io_bytes"].as_u64().unwrap_or(0);
    assert!(written > 0, "nothing was written: {job:#}");
    let read = job["read"]["io_bytes"].as_u64().unwrap_or(0);
    assert!(read > 0, "nothing was verified: {job:#}");
}
