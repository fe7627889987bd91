//! The first process of a machine: sets it up, runs cases in processes of their own, and tells what
//! became of them.
//!
//! Root is the file system of whoever started the machine, which nothing changes: read-only, or
//! under QEMU below what is written. `/tmp` and `/run` are empty and writable. What the starter has
//! below those two, or below `/dev`, is under `/run/host`.

pub(crate) mod early;
mod job;
mod leftovers;
mod modules;
mod mounts;
mod on_host;

use std::fs::{File, OpenOptions};
use std::io::{BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use rustix::system::{RebootCommand, reboot};
use rustix::termios::{OptionalActions, isatty, tcgetattr, tcsetattr};

use crate::case::Case;
use crate::message::{self, Order, Report};
pub(crate) use mounts::inside;

/// Names the line that orders come on, for the first process of a machine: a serial one by its
/// path, a port of virtio as `virtio:NAME`, or [`ON_HOST`].
pub(crate) const LINE: &str = "FOREBAY_VM_LINE";

/// The line that is the process's own input and output: it is the first one of its own processes on
/// the starter's kernel.
pub(crate) const ON_HOST: &str = "standard";

/// Names the case that a process of a machine is to run.
pub(crate) const CASE: &str = "FOREBAY_VM_CASE";

/// Where programs are found inside.
pub(crate) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What the kernel's log says once a case is over.
pub(crate) fn end_mark(case: &str) -> String {
    format!("forebay-vm: {case} has ended")
}

/// What this process is in a machine, if it is in one: the first process, or a case. Neither
/// returns to its caller's business.
pub(crate) fn run(cases: &[Case]) -> Option<ExitCode> {
    if let Ok(name) = std::env::var(CASE) {
        let Some(case) = cases.iter().find(|case| case.name == name) else {
            panic!("{CASE}={name}: there is no such case");
        };
        (case.run)();
        return Some(ExitCode::SUCCESS);
    }
    if std::process::id() != 1 {
        return None;
    }
    if let Some(program) = std::env::var_os(early::PROGRAM) {
        let Err(error) = early::enter(Path::new(&program));
        panic!("{error}");
    }
    let line = std::env::var(LINE).ok()?;
    let is_on_host = line == ON_HOST;
    if is_on_host {
        on_host::follow_kernel_log();
    }
    serve(&line, is_on_host);
    if is_on_host {
        return Some(ExitCode::SUCCESS);
    }
    // Returns only when it may not be done, and then the kernel panics at this process's end.
    let _ = reboot(RebootCommand::PowerOff);
    Some(ExitCode::FAILURE)
}

/// Follows orders until the line ends.
fn serve(line: &str, is_on_host: bool) {
    let set_up = if is_on_host { on_host::protect_root() } else { Ok(()) };
    let set_up = set_up.and_then(|()| mounts::set_up());
    let Ok((mut reports, mut orders)) = open(line) else { return };
    if let Err(error) = set_up {
        // Nobody may listen any more; the machine ends either way.
        let _ = message::send(&mut reports, &Report::Unusable(error));
        return;
    }
    if message::send(&mut reports, &Report::Ready).is_err() {
        return;
    }
    while let Ok(Some(order)) = message::receive(&mut orders) {
        let Order::Run { case, limit, modules, environment } = order;
        let loaded = modules::load(&modules).and_then(|()| mounts::mount_configuration());
        let before = leftovers::Inventory::take();
        let failure = match loaded {
            Ok(()) => job::run(&case, limit, &environment, &mut reports),
            Err(error) => Some(error),
        };
        let (left, stuck) = leftovers::end_processes();
        for process in left {
            let line = format!("left behind, and ended: {process}");
            if message::send(&mut reports, &Report::Output(line)).is_err() {
                return;
            }
        }
        let failure = match (failure, stuck) {
            (None, Some(stuck)) => Some(stuck),
            (Some(failure), Some(stuck)) => Some(format!("{failure}; {stuck}")),
            (failure, None) => failure,
        };
        let is_as_before = failure.is_none() && before == leftovers::Inventory::take();
        say_to_kernel(&end_mark(&case));
        let report = Report::Ended { failure, is_as_before };
        if message::send(&mut reports, &report).is_err() {
            return;
        }
    }
}

/// Both directions of the line, as bytes that nobody edits.
fn open(line: &str) -> std::io::Result<(File, BufReader<File>)> {
    if line == ON_HOST {
        return on_host::line();
    }
    let path = line.strip_prefix("virtio:").map_or_else(|| Ok(line.into()), virtio_port)?;
    let line = OpenOptions::new().read(true).write(true).open(path)?;
    if isatty(&line) {
        let mut settings = tcgetattr(&line)?;
        settings.make_raw();
        tcsetattr(&line, OptionalActions::Now, &settings)?;
    }
    let orders = BufReader::new(line.try_clone()?);
    Ok((line, orders))
}

/// The port that is called `name`.
fn virtio_port(name: &str) -> std::io::Result<PathBuf> {
    for entry in std::fs::read_dir("/sys/class/virtio-ports")?.flatten() {
        if std::fs::read_to_string(entry.path().join("name")).is_ok_and(|it| it.trim_end() == name)
        {
            return Ok(Path::new("/dev").join(entry.file_name()));
        }
    }
    Err(std::io::Error::other(format!("no virtio port is called {name}")))
}

/// A line into the kernel's log, in order with what the kernel says itself.
fn say_to_kernel(text: &str) {
    // A log that cannot be written to is noticed by whoever waits for the line.
    if let Ok(mut log) = OpenOptions::new().write(true).open("/dev/kmsg") {
        let _ = log.write_all(format!("<5>{text}\n").as_bytes());
    }
}
