//! A program that serves while a benchmark runs, and ends with it.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::Failure;

/// How long a program may take to serve.
const START_TIMEOUT: Duration = Duration::from_secs(10);

/// A running program. Dropping it ends it.
pub(crate) struct Service {
    child: Child,
    name: String,
}

impl Service {
    /// Starts `command`, which says a line that begins with `ready` for each of `exports` on
    /// standard output, and returns when it has.
    pub(crate) fn start_ready(mut command: Command, exports: usize) -> Result<Self, Failure> {
        command.stdout(Stdio::piped());
        let mut service = Self::spawn(command)?;
        let output = service.child.stdout.take().ok_or("standard output is not a pipe")?;
        let mut lines = BufReader::new(output).lines();
        let mut ready = 0;
        while ready < exports {
            match lines.next() {
                Some(Ok(line)) => ready += usize::from(line.starts_with("ready ")),
                _ => return Err(format!("{} ended before it was ready", service.name)),
            }
        }
        // Whatever it says later is read and dropped, so that it never waits for a full pipe.
        std::thread::spawn(move || lines.for_each(drop));
        Ok(service)
    }

    /// Starts `command`, which makes `socket`, and returns when it is there.
    pub(crate) fn start_socket(mut command: Command, socket: &Path) -> Result<Self, Failure> {
        command.stdout(Stdio::null());
        let mut service = Self::spawn(command)?;
        let start = Instant::now();
        while !socket.exists() {
            if let Ok(Some(status)) = service.child.try_wait() {
                return Err(format!("{} ended with {status}", service.name));
            }
            if start.elapsed() > START_TIMEOUT {
                return Err(format!("{} made no {}", service.name, socket.display()));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(service)
    }

    fn spawn(mut command: Command) -> Result<Self, Failure> {
        let name = command.get_program().to_string_lossy().into_owned();
        let child = command
            .stdin(Stdio::null())
            .spawn()
            .map_err(|error| format!("{name} could not be started: {error}"))?;
        Ok(Self { child, name })
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // It has nothing to save: its devices are in memory.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The `forebay` that is measured: `FOREBAY_BINARY`, or the one beside this program.
pub(crate) fn forebay() -> Result<Command, Failure> {
    let path = match std::env::var_os("FOREBAY_BINARY") {
        Some(path) => PathBuf::from(path),
        None => {
            let this = std::env::current_exe().map_err(|error| error.to_string())?;
            this.with_file_name("forebay")
        }
    };
    if !path.is_file() {
        return Err(format!("there is no {}: cargo build --release --bin forebay", path.display()));
    }
    Ok(Command::new(path))
}
