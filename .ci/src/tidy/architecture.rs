//! Rules about who may name what: the invariants of ARCHITECTURE.md that words can show.

use super::Finding;
use super::source::SourceFile;

/// Folders (and files) of state machines: no I/O, no threads, no clocks, nothing random.
const PURE: &[&str] = &[
    "block-io/src/extent.rs",
    "block-io/src/geometry.rs",
    "block-io/src/time.rs",
    "cache-engine/src/cache/",
    "cache-engine/src/frontend/nbd/protocol/",
    "nvme-fabric/src/spec/",
    "nvme-fabric/src/pdu/",
    "nvme-fabric/src/host/",
    "nvme-fabric/src/target/",
    "nvme-fabric/src/auth/",
    "nvme-fabric/src/tls/derivation.rs",
    "nvme-fabric/src/tls/error.rs",
    "nvme-fabric/src/tls/generated.rs",
    "nvme-fabric/src/tls/hello.rs",
    "nvme-fabric/src/tls/key.rs",
    "nvme-fabric/src/tls/keyring.rs",
    "nvme-fabric/src/tls/layer.rs",
];

/// What pure code does not name, as a path or the start of one, and what it does instead.
const IMPURE_PATHS: &[(&str, &str)] = &[
    ("std::net", "the driver owns sockets: hand in bytes"),
    ("std::os", "the driver owns descriptors: hand in bytes"),
    ("std::fs", "a device owns files: go through `BlockQueue`"),
    ("std::thread", "one core runs it: let the driver start threads"),
    ("std::env", "take it as a parameter"),
    ("std::time::Instant", TAKE_TIME),
    ("std::time::SystemTime", TAKE_TIME),
    ("block_io::reactor", "the driver owns the reactor: return what is to be done"),
];

/// What lies below such a path and is only data: addresses, which can be told and opened nowhere.
const DATA_PATHS: &[&str] = &["std::net::Ip", "std::net::SocketAddr"];

/// The same for single words, wherever they come from.
const IMPURE_WORDS: &[(&str, &str)] = &[
    ("Instant", TAKE_TIME),
    ("SystemTime", TAKE_TIME),
    ("tokio", "drivers do the I/O"),
    ("libc", "drivers make system calls"),
    ("rustix", "drivers make system calls"),
    ("rand", "take the number, or a seeded generator, as a parameter"),
    ("HashMap", "its order differs from run to run: use a `BTreeMap`, a table or a slab"),
    ("HashSet", "its order differs from run to run: use a `BTreeSet` or a table"),
    ("Reactor", "the driver owns the reactor: return what is to be done"),
];

const TAKE_TIME: &str = "take a `block_io::Timestamp` as a parameter";

/// A word that only some places may name.
struct Reserved {
    word: &'static str,
    /// Files, or folders that end in `/`, where it is at home.
    homes: &'static [&'static str],
    instead: &'static str,
}

const RESERVED: &[Reserved] = &[
    Reserved {
        word: "io_uring",
        homes: &["block-io/src/reactor/ring.rs", "block-io/src/reactor/ring/"],
        instead: "add what you need to block-io/src/reactor/ring.rs and call it from there",
    },
    Reserved {
        word: "tokio_uring",
        homes: &[
            // Where the module is declared.
            "nvme-fabric/src/driver/mod.rs",
            "nvme-fabric/src/driver/tokio_uring.rs",
            "nvme-fabric/tests/tokio_uring.rs",
            "nvme-fabric/examples/",
        ],
        instead: "only the optional driver nvme-fabric/src/driver/tokio_uring.rs runs on it",
    },
    Reserved {
        word: "tokio",
        homes: &[
            "cache-engine/src/control/",
            "csi-node/",
            "nvme-fabric/src/driver/tokio_uring.rs",
            "nvme-fabric/tests/tokio_uring.rs",
            "nvme-fabric/examples/",
            "tests/",
        ],
        instead: "the data path runs on `block_io::reactor`",
    },
];

/// Folder of a crate, and the crates above it that it must not name.
const BELOW: &[(&str, &[&str])] = &[
    ("block-io/", &["nvme_fabric", "cache_engine", "csi_node"]),
    ("nvme-fabric/", &["cache_engine", "csi_node"]),
    ("cache-engine/", &["csi_node"]),
];

/// Rules for Rust files.
pub(super) fn check_source(file: &SourceFile<'_>, findings: &mut Vec<Finding>) {
    check_pure(file, findings);
    for (line, word) in file.words() {
        for reserved in RESERVED.iter().filter(|reserved| reserved.word == word) {
            if !reserved.homes.iter().any(|home| is_within(file.path, home)) {
                let message = format!("`{word}` here: {}", reserved.instead);
                findings.push(Finding::error(file.path, line, message));
            }
        }
        for (folder, above) in BELOW {
            if file.path.starts_with(folder) && above.contains(&word) {
                findings.push(Finding::error(file.path, line, direction_message(folder, word)));
            }
        }
    }
}

/// Rules for package manifests: the direction of dependencies.
pub(super) fn check_manifest(path: &str, text: &str, findings: &mut Vec<Finding>) {
    for (folder, above) in BELOW.iter().filter(|(folder, _)| path.starts_with(folder)) {
        for (index, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default();
            let name = line.split(['.', '=', ' ']).next().unwrap_or_default().replace('-', "_");
            if above.contains(&name.as_str()) {
                findings.push(Finding::error(path, index + 1, direction_message(folder, &name)));
            }
        }
    }
}

fn check_pure(file: &SourceFile<'_>, findings: &mut Vec<Finding>) {
    if !PURE.iter().any(|pure| is_within(file.path, pure)) {
        return;
    }
    // Tests may use what they like, as long as they say the same thing every time.
    let mut found = Vec::new();
    for (line, path) in file.paths() {
        for (impure, instead) in IMPURE_PATHS {
            let rest = path.strip_prefix(impure);
            let is_data = DATA_PATHS.iter().any(|data| path.starts_with(data));
            if !is_data && rest.is_some_and(|rest| rest.is_empty() || rest.starts_with("::")) {
                found.push((line, *impure, *instead));
            }
        }
    }
    for (line, word) in file.words() {
        for (impure, instead) in IMPURE_WORDS.iter().filter(|(impure, _)| *impure == word) {
            if !found.iter().any(|(at, path, _)| *at == line && path.ends_with(impure)) {
                found.push((line, *impure, *instead));
            }
        }
    }
    for (line, impure, instead) in found {
        if !file.is_test_line(line) {
            let message = format!("`{impure}` in a state machine: {instead}");
            findings.push(Finding::error(file.path, line, message));
        }
    }
}

fn direction_message(folder: &str, name: &str) -> String {
    let crate_name = folder.trim_end_matches('/');
    format!("`{name}` is above {crate_name}: move what is shared down, or put this code up there")
}

/// Whether `path` is `place`, or in it where that is a folder. A folder also means the single
/// file that it may start as: `host/` is `host.rs` too.
fn is_within(path: &str, place: &str) -> bool {
    match place.strip_suffix('/') {
        Some(folder) => path.starts_with(place) || path == format!("{folder}.rs"),
        None => path == place,
    }
}

#[cfg(test)]
mod tests {
    use super::super::messages;

    /// The messages for a file of one line of code.
    fn of(path: &str, code: &str) -> Vec<String> {
        messages(path, &format!("//! A.\n{code}\n"))
    }

    #[test]
    fn state_machines_name_nothing_of_the_world() {
        for code in [
            "use std::net::TcpStream;",
            "use std::net;",
            "use std::{cell::Cell, fs};",
            "fn a() { std::thread::spawn(|| ()); }",
            "use std::time::{Duration, Instant};",
            "fn a() { let _ = SystemTime::now(); }",
            "use std::collections::{BTreeMap, HashMap};",
            "fn a(port: &block_io::reactor::Port) {}",
            "use block_io::{Buffer, reactor};",
            "use std::os::fd::OwnedFd;",
            "use rand::Rng;",
        ] {
            for path in ["cache-engine/src/cache/index.rs", "nvme-fabric/src/host.rs"] {
                let found = of(path, code);
                assert_eq!(found.len(), 1, "{code}: {found:?}");
                assert!(found[0].contains("in a state machine: "), "{}", found[0]);
            }
            assert_eq!(of("cache-engine/src/volume/mod.rs", code), [""; 0], "{code}");
        }
    }

    #[test]
    fn state_machines_may_speak_of_the_world_and_test_with_it() {
        let good = "use std::net::{IpAddr, SocketAddr};\n\
                    use std::time::Duration;\nuse block_io::{Buffer, Timestamp};\n\
                    /// Not an Instant, and no std::net.\nfn a(operand: u8, rand_seed: u64) {}\n\
                    #[cfg(test)]\nmod tests {\nuse std::collections::HashMap;\n}\n";
        assert_eq!(of("nvme-fabric/src/target/connection/mod.rs", good), [""; 0]);
    }

    #[test]
    fn only_the_ring_names_io_uring() {
        let code = "use io_uring::opcode;";
        assert_eq!(of("block-io/src/reactor/ring.rs", code), [""; 0]);
        assert_eq!(of("block-io/src/reactor/ring/submission.rs", code), [""; 0]);
        assert_eq!(of("block-io/src/reactor/mod.rs", "// io_uring does it"), [""; 0]);
        let found = of("block-io/src/reactor/mod.rs", code);
        assert!(found.len() == 1 && found[0].contains("block-io/src/reactor/ring.rs"), "{found:?}");
        assert_eq!(of("cache-engine/src/frontend/nbd/server.rs", code).len(), 1);
    }

    #[test]
    fn tokio_stays_in_its_places() {
        let code = "fn a() { tokio_uring::start(async {}) }";
        assert_eq!(of("nvme-fabric/src/driver/tokio_uring.rs", code), [""; 0]);
        assert_eq!(of("nvme-fabric/src/driver/host.rs", code).len(), 1);
        assert_eq!(of("block-io/src/device/file.rs", "use tokio::fs;").len(), 1);
        assert_eq!(of("cache-engine/src/control/server.rs", "use tokio::net;"), [""; 0]);
    }

    #[test]
    fn crates_name_only_what_is_below_them() {
        assert_eq!(of("nvme-fabric/src/driver/host.rs", "use block_io::Buffer;"), [""; 0]);
        let found = of("nvme-fabric/src/driver/host.rs", "use cache_engine::Cache;");
        assert!(found.len() == 1 && found[0].contains("is above nvme-fabric"), "{found:?}");
        assert_eq!(of("block-io/src/lib.rs", "use nvme_fabric::pdu;").len(), 1);
        assert_eq!(of("cache-engine/src/lib.rs", "use nvme_fabric::pdu;"), [""; 0]);
        let manifest = "[dev-dependencies]\ncache-engine.workspace = true\n# cache-engine\n";
        assert_eq!(messages("nvme-fabric/Cargo.toml", manifest).len(), 1);
        assert_eq!(messages("benches/Cargo.toml", manifest), [""; 0]);
    }
}
