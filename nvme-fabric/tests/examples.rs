//! The examples, as programs, against each other.

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

const SUBSYSTEM: &str = "nqn.2014-08.com.example:examples";
const CAPACITY: usize = 1 << 20;

/// Where cargo has put an example: beside this test's folder. It builds them with all tests, but
/// not where some are chosen by their names.
fn example(name: &str) -> Command {
    let test = std::env::current_exe().expect("this test is a file");
    let folder = test.ancestors().nth(2).expect("target/profile/deps/test");
    let program = folder.join("examples").join(name);
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(format!("{name}.rs"));
    let changed = |path: &Path| path.metadata().and_then(|metadata| metadata.modified());
    let is_new = match (changed(&program), changed(&source)) {
        (Ok(program), Ok(source)) => program >= source,
        (program, source) => program.is_ok() && source.is_err(),
    };
    let shown = program.display();
    assert!(is_new, "{shown} is older than its source: first `cargo build --examples`");
    Command::new(program)
}

/// A program that is ended with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself, which the test has noticed.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a host prints of the target's namespace.
fn read_with(host: &str) -> String {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    let bytes: Vec<u8> = (0..CAPACITY).map(|at| (at * 7 + at / 4096 + 3) as u8).collect();
    file.write_all(&bytes).expect("room");
    let mut target = example("target");
    target.arg(file.path()).args([SUBSYSTEM, "127.0.0.1:0"]).stdout(Stdio::piped());
    let mut target = Running(target.spawn().expect("starts"));
    let mut line = String::new();
    let output = target.0.stdout.take().expect("it is piped");
    BufReader::new(output).read_line(&mut line).expect("it prints its address");
    let address: SocketAddr = line.trim().parse().expect("an address");
    let (ip, port) = (address.ip().to_string(), address.port().to_string());
    let output = example(host).args([&ip, &port, SUBSYSTEM]).output().expect("starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{host}: {errors}");
    String::from_utf8(output.stdout).expect("text")
}

fn check(printed: &str) {
    assert!(printed.contains(&format!("capacity: {CAPACITY}")), "{printed}");
    let bytes: Vec<u8> = (0..16).map(|at| at * 7 + 3).collect();
    assert!(printed.contains(&format!("{bytes:02x?}")), "{printed}");
}

#[test]
fn the_host_of_20_lines_reads_what_the_target_of_20_lines_serves() {
    check(&read_with("connect_and_read"));
}

#[cfg(feature = "tokio-uring")]
#[test]
fn so_does_the_one_on_tokio_uring() {
    check(&read_with("tokio_uring_read"));
}
