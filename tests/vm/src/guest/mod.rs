//! The first process of a machine: sets it up, runs cases in processes of their own, and tells what
//! became of them.
//!
//! Root is the file system of whoever started the machine, read-only; `/tmp` and `/run` are empty
//! and writable. What the starter has below those two, or below `/dev`, is under `/run/host`.

mod job;
mod leftovers;
mod mounts;

use std::fs::{File, OpenOptions};
use std::io::{BufReader, Write};
use std::path::Path;
use std::process::ExitCode;

use rustix::system::{RebootCommand, reboot};
use rustix::termios::{OptionalActions, tcgetattr, tcsetattr};

use crate::case::Case;
use crate::message::{self, Order, Report};
pub(crate) use mounts::inside;

/// Names the serial line that orders come on, for the first process of a machine.
pub(crate) const LINE: &str = "FOREBAY_VM_LINE";

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
    let line = std::env::var_os(LINE)?;
    serve(Path::new(&line));
    // Returns only when it may not be done, and then the kernel panics at this process's end.
    let _ = reboot(RebootCommand::PowerOff);
    Some(ExitCode::FAILURE)
}

/// Follows orders until the line ends.
fn serve(line: &Path) {
    let set_up = mounts::set_up();
    let Ok((mut reports, mut orders)) = open(line) else { return };
    if let Err(error) = set_up {
        // Nobody may listen any more; the machine ends either way.
        let _ = message::send(&mut reports, &Report::Unusable(error));
        return;
    }
    if message::send(&mut reports, &Report::Ready).is_err() {
        return;
    }
    while let Ok(Some(Order::Run { case, limit, environment })) = message::receive(&mut orders) {
        let before = leftovers::Inventory::take();
        let failure = job::run(&case, limit, &environment, &mut reports);
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
fn open(line: &Path) -> std::io::Result<(File, BufReader<File>)> {
    let line = OpenOptions::new().read(true).write(true).open(line)?;
    let mut settings = tcgetattr(&line)?;
    settings.make_raw();
    tcsetattr(&line, OptionalActions::Now, &settings)?;
    let orders = BufReader::new(line.try_clone()?);
    Ok((line, orders))
}

/// A line into the kernel's log, in order with what the kernel says itself.
fn say_to_kernel(text: &str) {
    // A log that cannot be written to is noticed by whoever waits for the line.
    if let Ok(mut log) = OpenOptions::new().write(true).open("/dev/kmsg") {
        let _ = log.write_all(format!("<5>{text}\n").as_bytes());
    }
}
