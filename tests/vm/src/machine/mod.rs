//! A kernel that runs, and cases run in it one after another.
//!
//! ```text
//!   Machine::run(case) ──Order──▶ serial line ──▶ first process ──▶ the case, a process
//!        ▲                                              │
//!        └─────────────Report: output, end ◀────────────┘
//!   KernelLog ◀──────────────── console ◀── kernel
//! ```
//! Booting takes half a second in user mode; emulated, five seconds of a processor. A machine
//! serves the next case only if the last one passed and left it as it was; dropping it ends it at
//! once.

mod host;
mod initramfs;
mod kernel_log;
pub(crate) mod qemu;
mod user_mode;

use std::fs::File;
use std::io::BufReader;
use std::process::{ChildStdin, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use tempfile::TempDir;

use crate::case::Case;
use crate::kernel::{Kernel, Kind};
use crate::message::{self, Module, Order, Report};
use kernel_log::KernelLog;

/// How long a kernel may take until it accepts orders. Generous: the machine may be busy.
const BOOT_LIMIT: Duration = Duration::from_secs(240);

/// What a case gets beyond its own limit, for the machine to find out what it hangs in and to tell.
const GRACE: Duration = Duration::from_secs(60);

/// How long the console may take to show what was said before a case's end.
const CONSOLE_LIMIT: Duration = Duration::from_secs(10);

/// A running kernel.
pub struct Machine {
    process: u32,
    /// Starts the process, and ends when it has ended.
    keeper: Option<JoinHandle<()>>,
    orders: ChildStdin,
    reports: Receiver<Report>,
    log: KernelLog,
    /// Lines of the log that earlier cases account for.
    log_seen: usize,
    _folder: TempDir,
    /// While it is there no other machine is emulated.
    _turn: Option<File>,
}

/// What became of a case.
#[derive(Debug)]
pub struct Outcome {
    /// Why it failed, if it did.
    pub failure: Option<String>,
    /// What it wrote, lines.
    pub output: Vec<String>,
    /// What the kernel said meanwhile, lines.
    pub kernel_log: Vec<String>,
    /// Whether the machine can run another case.
    pub is_reusable: bool,
    /// Whether the machine fell because somebody stopped its processes and let them go on, which
    /// says nothing of the case.
    pub was_disturbed: bool,
}

impl Machine {
    /// Boots `kernel`.
    ///
    /// # Errors
    /// When it does not start, or does not become ready; with what it said.
    pub fn boot(kernel: &Kernel) -> Result<Self, String> {
        let failed = |what: &str, error| format!("{}: {what}: {error}", kernel.name);
        let turn = match &kernel.kind {
            Kind::Debian(debian) if kernel.is_emulated()? => Some(qemu::wait_for_turn(debian)?),
            _ => None,
        };
        let folder = tempfile::tempdir().map_err(|error| failed("a folder", error))?;
        let init = std::env::current_exe().map_err(|error| failed("this program", error))?;
        let mut command = match &kernel.kind {
            Kind::UserMode(program) => {
                user_mode::command(program, &kernel.configuration, &init, folder.path())
            }
            Kind::Debian(debian) => qemu::command(debian, &init, folder.path())?,
            Kind::Host => host::command(&init),
        };
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let (sender, started) = channel();
        let keeper = std::thread::spawn(move || match command.spawn() {
            Err(error) => drop(sender.send(Err(error))),
            Ok(mut child) => {
                let line = (child.stdin.take(), child.stdout.take(), child.stderr.take());
                // How it ended is seen on its line.
                if sender.send(Ok((child.id(), line))).is_ok() {
                    let _ = child.wait();
                }
            }
        });
        let started = started.recv().expect("the thread says how it went");
        let (process, line) = started.map_err(|error| failed("starting it", error))?;
        let (Some(orders), Some(line), Some(console)) = line else {
            unreachable!("all three were piped");
        };
        let (sender, reports) = channel();
        std::thread::spawn(move || {
            let mut line = BufReader::new(line);
            // The line's end, and garbage on it, are the machine's end.
            while let Ok(Some(report)) = message::receive(&mut line) {
                if sender.send(report).is_err() {
                    break;
                }
            }
        });
        let log = KernelLog::collect(console);
        let keeper = Some(keeper);
        let mut machine = Self {
            process,
            keeper,
            orders,
            reports,
            log,
            log_seen: 0,
            _folder: folder,
            _turn: turn,
        };
        match machine.reports.recv_timeout(BOOT_LIMIT) {
            Ok(Report::Ready) => {
                machine.log_seen = machine.log.since(0).len();
                Ok(machine)
            }
            other => {
                machine.end();
                machine.log.wait_for("\0", CONSOLE_LIMIT);
                let said = machine.log.since(0).join("\n");
                Err(format!("{}: did not become ready: {other:?}\n{said}", kernel.name))
            }
        }
    }

    /// Runs `case` in it, with these modules loaded and these variables in its environment.
    pub(crate) fn run(
        &mut self,
        case: &Case,
        modules: Vec<Module>,
        environment: Vec<(String, String)>,
    ) -> Outcome {
        let mut output = Vec::new();
        let (name, limit) = (case.name.to_owned(), case.limit);
        let order = Order::Run { case: name, limit, modules, environment };
        let (mut failure, mut is_reusable) = match message::send(&mut self.orders, &order) {
            Ok(()) => self.follow(case.limit + GRACE, &mut output),
            Err(error) => (Some(format!("the machine takes no orders: {error}")), false),
        };
        if failure.is_some() && !is_reusable {
            // It is of no more use, and its console shows the last words once it has ended.
            self.end();
        }
        self.log.wait_for(&crate::guest::end_mark(case.name), CONSOLE_LIMIT);
        let kernel_log = self.log.since(self.log_seen);
        self.log_seen += kernel_log.len();
        if let Some(fault) = kernel_log::fault(&kernel_log) {
            failure = Some(match failure {
                Some(failure) => format!("{failure}; and the kernel said: {fault}"),
                None => format!("the kernel said: {fault}"),
            });
        }
        is_reusable &= failure.is_none();
        let was_disturbed = failure.is_some() && user_mode::was_disturbed(&kernel_log);
        Outcome { failure, output, kernel_log, is_reusable, was_disturbed }
    }

    /// Collects what a case writes until its end: its failure, and whether the machine is as
    /// it was.
    fn follow(&self, limit: Duration, output: &mut Vec<String>) -> (Option<String>, bool) {
        let start = Instant::now();
        loop {
            let left = limit.saturating_sub(start.elapsed());
            match self.reports.recv_timeout(left) {
                Ok(Report::Output(line)) => output.push(line),
                Ok(Report::Ended { failure, is_as_before }) => return (failure, is_as_before),
                Ok(Report::Ready | Report::Unusable(_)) => {
                    return (Some("the machine started again".to_owned()), false);
                }
                Err(RecvTimeoutError::Timeout) => {
                    return (Some(format!("the machine was silent after {limit:?}")), false);
                }
                Err(RecvTimeoutError::Disconnected) => {
                    return (Some("the machine ended".to_owned()), false);
                }
            }
        }
    }

    /// Ends it as a power cut does.
    fn end(&mut self) {
        let Some(keeper) = self.keeper.take() else { return };
        let group = i32::try_from(self.process).ok().and_then(Pid::from_raw);
        if let Some(group) = group.filter(|_| !keeper.is_finished()) {
            // It may have ended by itself just now.
            let _ = kill_process_group(group, Signal::KILL);
        }
        // It has nothing to say.
        let _ = keeper.join();
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.end();
    }
}
