//! Real NBD clients against `forebay run`: every mode with every line size, over an origin ten
//! times the size of the cache, so that lines are evicted all the time. The origin is a file, here
//! or behind `forebay target`.

use std::path::{Path, PathBuf};

use forebay_tests::nbd::{self, assert_same, write_image};
use forebay_tests::program::Program;
use forebay_tests::server::ForebayCommand;
use serde_json::Value;
use tempfile::TempDir;

const ORIGIN_SIZE: u64 = 40 << 20;
const CACHE_SIZE: &str = "4M";
const LINE_SIZES: [&str; 5] = ["4k", "8k", "16k", "32k", "64k"];

const SUBSYSTEM: &str = "nqn.2026-11.io.forebay:conformance";

/// Where the origin's file is.
#[derive(Clone, Copy)]
enum Origin {
    /// Opened by `forebay run` itself.
    File,
    /// Behind a target on loopback, with these query keys beside `nsid`.
    NvmeTcp(&'static str),
}

const DIGESTS: &str = "&hdgst=1&ddgst=1";

/// A volume of its own files, served by the command.
struct Volume {
    folder: TempDir,
    run: ForebayCommand,
    /// The origin's target, if it has one.
    target: Option<ForebayCommand>,
}

impl Volume {
    fn serve(program: &Path, origin: Origin, mode: &str, line_size: &str, reactors: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("origin");
        std::fs::File::create(&file).and_then(|file| file.set_len(ORIGIN_SIZE)).expect("a file");
        let file = format!("file:{}", file.display());
        let (origin, target) = match origin {
            Origin::File => (file, None),
            Origin::NvmeTcp(options) => {
                let arguments = [
                    ["--listen", "127.0.0.1:0"],
                    ["--subsystem", SUBSYSTEM],
                    ["--namespace", &file],
                ];
                let arguments = [&["target"], arguments.as_flattened()].concat();
                let target = ForebayCommand::start(program, &arguments);
                let address = &target.served()[0];
                (format!("nvme+tcp://{address}/{SUBSYSTEM}?nsid=1{options}"), Some(target))
            }
        };
        let cache = format!("file:{}", folder.path().join("cache").display());
        let export = format!("nbd+unix:///disk?socket={}", folder.path().join("nbd").display());
        let arguments = [
            ["--origin", &origin],
            ["--cache", &cache],
            ["--cache-size", CACHE_SIZE],
            ["--mode", mode],
            ["--line-size", line_size],
            ["--export", &export],
            ["--stats", "json"],
            ["--reactors", reactors],
        ];
        let arguments = [&["run", "--oversubscribe"], arguments.as_flattened()].concat();
        let run = ForebayCommand::start(program, &arguments);
        Self { folder, run, target }
    }

    fn uri(&self) -> &str {
        &self.run.served()[0]
    }

    /// Ends the command, and gives back the folder, the origin in it, and the statistics.
    fn stop(self) -> (TempDir, PathBuf, Value) {
        let (status, said) = self.run.stop();
        assert!(status.success(), "{status}: {said}");
        let last = said.lines().last().expect("the statistics");
        let mut whole: Value =
            serde_json::from_str(last).unwrap_or_else(|error| panic!("{error} in {last}"));
        let statistics = whole["volumes"][0].take();
        for field in ["origin_errors", "cache_read_errors", "cache_write_errors"] {
            assert_eq!(statistics[field], 0, "{field} in {statistics:#}");
        }
        if let Some((status, said)) = self.target.map(ForebayCommand::stop) {
            assert!(status.success(), "target: {status}: {said}");
        }
        let origin = self.folder.path().join("origin");
        assert!(!self.folder.path().join("nbd").exists(), "the socket file is removed");
        (self.folder, origin, statistics)
    }
}

/// All clients, and at last an image whose bytes have to be the origin's.
fn every_line_size(origin: Origin, mode: &str) {
    clients_on(origin, mode, &LINE_SIZES, "1", "1");
}

fn clients_on(origin: Origin, mode: &str, line_sizes: &[&str], reactors: &str, connections: &str) {
    let Some(program) = ForebayCommand::program() else { return };
    let connections = format!("--connections={connections}");
    for line_size in line_sizes {
        let volume = Volume::serve(&program, origin, mode, line_size, reactors);
        nbd::all(volume.uri(), ORIGIN_SIZE);
        let image = volume.folder.path().join("image");
        write_image(&image, ORIGIN_SIZE, 99);
        let copied = Program::find("nbdcopy", "libnbd-bin").map(|nbdcopy| {
            nbdcopy.run(&[&connections, "--flush", &image.to_string_lossy(), volume.uri()]);
        });
        let (_folder, origin, statistics) = volume.stop();
        if copied.is_some() {
            assert_same(&image, &origin);
            let evicted = statistics["evictions"].as_u64().expect("a number");
            assert_eq!(evicted > 0, mode != "pass-through", "{statistics:#}");
        }
    }
}

#[test]
fn clients_find_their_bytes_through_write_through() {
    every_line_size(Origin::File, "write-through");
}

#[test]
fn clients_find_their_bytes_through_write_around() {
    every_line_size(Origin::File, "write-around");
}

#[test]
fn clients_find_their_bytes_through_pass_through() {
    every_line_size(Origin::File, "pass-through");
}

#[test]
fn clients_find_their_bytes_over_nvme_tcp_through_write_through() {
    every_line_size(Origin::NvmeTcp(DIGESTS), "write-through");
}

#[test]
fn clients_find_their_bytes_over_nvme_tcp_through_write_around() {
    every_line_size(Origin::NvmeTcp(""), "write-around");
}

#[test]
fn clients_find_their_bytes_over_nvme_tcp_through_pass_through() {
    every_line_size(Origin::NvmeTcp(""), "pass-through");
}

#[test]
fn clients_find_their_bytes_on_two_reactors() {
    clients_on(Origin::File, "write-through", &["4k", "64k"], "2", "4");
}

#[test]
fn clients_find_their_bytes_on_three_reactors() {
    clients_on(Origin::File, "write-around", &["4k"], "3", "4");
    clients_on(Origin::NvmeTcp(DIGESTS), "write-through", &["16k"], "3", "4");
}

/// A file system written through the cache is whole when read straight from the origin.
#[test]
fn an_ext4_image_is_whole_on_the_origin() {
    let (Some(program), Some(mke2fs), Some(e2fsck), Some(nbdcopy)) = (
        ForebayCommand::program(),
        Program::find("mke2fs", "e2fsprogs"),
        Program::find("e2fsck", "e2fsprogs"),
        Program::find("nbdcopy", "libnbd-bin"),
    ) else {
        return;
    };
    let files = tempfile::tempdir().expect("a folder");
    for index in 0..40 {
        write_image(&files.path().join(format!("file {index}")), 1000 + index * 20_011, index);
    }
    let image = tempfile::NamedTempFile::new().expect("a file");
    image.as_file().set_len(ORIGIN_SIZE).expect("room");
    let image_path = image.path().to_string_lossy();
    let content = files.path().to_string_lossy();
    mke2fs.run(&["-q", "-F", "-t", "ext4", "-d", &content, &image_path]);
    let ways = [
        (Origin::File, "write-through"),
        (Origin::File, "write-around"),
        (Origin::NvmeTcp(DIGESTS), "write-through"),
    ];
    for (origin, mode) in ways {
        let volume = Volume::serve(&program, origin, mode, "16k", "1");
        nbdcopy.run(&["--connections=4", "--flush", &image_path, volume.uri()]);
        let (_folder, origin, _) = volume.stop();
        e2fsck.run(&["-f", "-n", &origin.to_string_lossy()]);
        assert_same(image.path(), &origin);
    }
}
