//! One case: this program again, as a process that runs it; what it writes goes to the line.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::channel;
use std::time::Duration;

use crate::message::{self, Report};

/// What comes from the threads that watch a case.
enum Event {
    Line(String),
    OutputOver,
    Exit(std::io::Result<ExitStatus>),
}

/// Runs the case called `name` to its end, and says why it failed, if it did. Processes that it
/// started may be left.
pub(super) fn run(
    name: &str,
    limit: Duration,
    environment: &[(String, String)],
    reports: &mut File,
) -> Option<String> {
    let (child, output) = match start(name, environment) {
        Ok(started) => started,
        Err(error) => return Some(format!("the case could not be started: {error}")),
    };
    let (sender, events) = channel();
    watch(child, output, sender);
    let deadline = std::time::Instant::now() + limit;
    let mut exit = None;
    let mut is_late = false;
    // After its exit only what it has written already is of interest: processes that it left may
    // hold its output open for ever.
    loop {
        let patience = match exit {
            None => deadline.saturating_duration_since(std::time::Instant::now()),
            Some(_) => Duration::from_millis(50),
        };
        match events.recv_timeout(patience) {
            Ok(Event::Line(line)) => {
                // If nobody listens the machine ends soon.
                let _ = message::send(reports, &Report::Output(line));
            }
            Ok(Event::Exit(status)) => exit = Some(status),
            Ok(Event::OutputOver) if exit.is_some() => break,
            Ok(Event::OutputOver) => {}
            Err(_) if exit.is_some() => break,
            Err(_) => {
                is_late = true;
                break;
            }
        }
    }
    if is_late {
        tell_what_hangs(reports);
        return Some(format!("it had not ended after {limit:?}"));
    }
    match exit {
        Some(Ok(status)) if status.success() => None,
        Some(Ok(status)) => Some(format!("it ended with {status}")),
        Some(Err(error)) => Some(format!("it could not be waited for: {error}")),
        None => Some("its exit was not seen".to_owned()),
    }
}

fn start(name: &str, environment: &[(String, String)]) -> std::io::Result<(Child, File)> {
    let (output, input) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    let input = File::from(input);
    let mut command = Command::new("/proc/self/exe");
    command
        .env_clear()
        .env("PATH", super::PATH)
        .env("HOME", "/run")
        .env("TMPDIR", "/tmp")
        .env(super::CASE, name)
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(input.try_clone()?)
        .stderr(input);
    Ok((command.spawn()?, File::from(output)))
}

fn watch(mut child: Child, output: File, sender: std::sync::mpsc::Sender<Event>) {
    let lines = sender.clone();
    std::thread::spawn(move || {
        let mut output = BufReader::new(output);
        let mut bytes = Vec::new();
        while output.read_until(b'\n', &mut bytes).is_ok_and(|count| count > 0) {
            let line = String::from_utf8_lossy(&bytes).trim_end().to_owned();
            if lines.send(Event::Line(line)).is_err() {
                return;
            }
            bytes.clear();
        }
        // The receiver may have gone; then there is nobody to tell.
        let _ = lines.send(Event::OutputOver);
    });
    std::thread::spawn(move || {
        let _ = sender.send(Event::Exit(child.wait()));
    });
}

/// Where the threads of every process, and everything that waits in the kernel, are.
fn tell_what_hangs(reports: &mut File) {
    for (process, about) in super::leftovers::named_processes() {
        let threads = std::fs::read_dir(process.join("task")).into_iter().flatten().flatten();
        for thread in threads {
            let read = |name| std::fs::read_to_string(thread.path().join(name)).unwrap_or_default();
            let line = format!(
                "late: {about}, thread {}: {} {} in {}",
                thread.file_name().display(),
                read("comm").trim_end(),
                read("stat").rsplit_once(')').map_or("?", |(_, rest)| &rest[1..2]),
                [read("wchan"), read("syscall")].join(" ").trim()
            );
            // If nobody listens the machine ends soon.
            let _ = message::send(reports, &Report::Output(line));
        }
    }
    // Connections where bytes wait: on the left for the peer, on the right for the owner. Linux
    // Documentation/networking/proc_net_tcp.rst
    let connections = std::fs::read_to_string("/proc/net/tcp").unwrap_or_default();
    for connection in connections.lines().skip(1) {
        let words: Vec<_> = connection.split_whitespace().take(5).collect();
        let [_, from, to, state, queues] = words[..] else { continue };
        let line = format!("late: TCP from {from} to {to}, state {state}, queues {queues}");
        // As above.
        let _ = message::send(reports, &Report::Output(line));
    }
    // Blocked tasks, into the kernel's log. Linux Documentation/admin-guide/sysrq.rst
    let _ = std::fs::write("/proc/sysrq-trigger", "w");
}
