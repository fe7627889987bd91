//! Programs that a test runs: found in `PATH` or skipped, and never waited for without an end.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// How long a program may run before it counts as hanging.
const TIMEOUT: Duration = Duration::from_secs(300);

/// Any of them set to `1`, a missing program fails the test that needs it: the first for the
/// programs that tests drive at large, as `cargo xtask test` sets it, the second for clients.
pub const REQUIRE: [&str; 2] = ["FOREBAY_REQUIRE_TOOLS", "FOREBAY_REQUIRE_CLIENTS"];

/// Whether a missing program is a failure.
pub fn is_required() -> bool {
    REQUIRE.iter().any(|name| std::env::var_os(name).is_some_and(|value| value == "1"))
}

/// Says why a test, or a part of one, is skipped.
pub fn say_skipped(reason: &str) {
    say(&format!("skipped: {reason}"));
}

/// Says something past the test harness, which shows what a test prints only when it fails.
pub fn say(text: &str) {
    // If standard error is closed there is nobody to tell.
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// A program that is there.
#[derive(Clone, Debug)]
pub struct Program {
    path: PathBuf,
}

impl Program {
    /// The program called `name`, or none, said aloud, when it is not installed.
    ///
    /// # Panics
    /// When it is not installed and one of [`REQUIRE`] is `1`.
    pub fn find(name: &str, package: &str) -> Option<Self> {
        if let Some(path) = path_of(name) {
            return Some(Self { path });
        }
        assert!(!is_required(), "{name} is not installed (Debian package {package})");
        say_skipped(&format!("{name} is not installed (Debian package {package})"));
        None
    }

    /// The program at `path`.
    pub fn at(path: &Path) -> Self {
        Self { path: path.to_owned() }
    }

    /// Whether there is a program called `name`.
    pub fn is_installed(name: &str) -> bool {
        path_of(name).is_some()
    }

    /// Runs it to its end, and returns what it wrote to standard output.
    ///
    /// # Panics
    /// When it does not start, fails, or runs for more than five minutes.
    #[track_caller]
    pub fn run(&self, arguments: &[&str]) -> String {
        let output = self.output(arguments);
        let (out, err) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        let status = output.status;
        assert!(status.success(), "{self} {arguments:?}: {status}\n{out}\n{err}");
        out.into_owned()
    }

    /// Runs it to its end, whatever that is.
    ///
    /// # Panics
    /// When it does not start, or runs for more than five minutes.
    #[track_caller]
    pub fn output(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(&self.path);
        let command = command.args(arguments).stdin(Stdio::null());
        let child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{self}: {error}"));
        let id = child.id();
        let (sender, receiver) = mpsc::channel();
        std::thread::spawn(move || sender.send(child.wait_with_output()));
        match receiver.recv_timeout(TIMEOUT) {
            Ok(output) => output.unwrap_or_else(|error| panic!("{self}: {error}")),
            Err(_) => {
                let pid = i32::try_from(id).ok().and_then(Pid::from_raw);
                if let Some(pid) = pid {
                    // It may have ended just now, and then there is nothing to do.
                    let _ = kill_process(pid, Signal::KILL);
                }
                panic!("{self} {arguments:?}: no end after {TIMEOUT:?}");
            }
        }
    }
}

fn path_of(name: &str) -> Option<PathBuf> {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    // What is for the administrator need not be in everybody's path.
    let folders = std::env::split_paths(&folders).chain(["/usr/sbin".into(), "/sbin".into()]);
    folders.map(|folder| folder.join(name)).find(|path| path.is_file())
}

impl std::fmt::Display for Program {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.path.display().fmt(f)
    }
}
