//! What a case leaves in its machine: processes, which are ended, and what the kernel keeps, which
//! makes the machine one that no other case should find.

use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, wait};

/// How long a process may take to end once it is killed. One that takes longer waits in the kernel
/// for something that does not come.
const END_LIMIT: Duration = Duration::from_secs(10);

/// Folders whose entries a case adds to and should take away from.
const FOLDERS: &[&str] = &[
    "/sys/class/nvme",
    "/sys/kernel/config/nvmet/subsystems",
    "/sys/kernel/config/nvmet/ports",
    "/sys/kernel/config/nvmet/hosts",
    "/sys/class/ublk-char",
];

/// What the kernel keeps for somebody.
#[derive(PartialEq, Eq)]
pub(super) struct Inventory {
    folders: Vec<Vec<std::ffi::OsString>>,
    mounts: Option<String>,
}

impl Inventory {
    /// What there is now.
    pub(super) fn take() -> Self {
        let names = |folder: &&str| {
            let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
            let mut names: Vec<_> = entries.map(|entry| entry.file_name()).collect();
            names.sort();
            names
        };
        Self {
            folders: FOLDERS.iter().map(names).collect(),
            mounts: std::fs::read_to_string("/proc/mounts").ok(),
        }
    }
}

/// Kills every process but this one. Tells which there were, and which of them cannot be ended.
pub(super) fn end_processes() -> (Vec<String>, Option<String>) {
    let start = Instant::now();
    let there = processes().into_iter().map(|process| process.about).collect();
    loop {
        // Their parents are gone: they are this process's now.
        while wait(WaitOptions::NOHANG).is_ok_and(|child| child.is_some()) {}
        let left = processes();
        if left.is_empty() {
            return (there, None);
        }
        if start.elapsed() > END_LIMIT {
            let names: Vec<_> = left.iter().map(|process| &*process.about).collect();
            let stuck = format!("processes that cannot be ended are left: {}", names.join(", "));
            return (there, Some(stuck));
        }
        for process in &left {
            // It may have ended meanwhile.
            let _ = kill_process(process.pid, Signal::KILL);
        }
        // The kernel tells of nothing that could be waited for instead.
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// The folder in `/proc`, and the name and state, of every process but this one.
pub(super) fn named_processes() -> Vec<(std::path::PathBuf, String)> {
    let folder = |process: &Process| format!("/proc/{}", process.pid.as_raw_pid()).into();
    processes().into_iter().map(|process| (folder(&process), process.about)).collect()
}

struct Process {
    pid: Pid,
    about: String,
}

/// Processes of programs, without this one, kernel threads and those that have ended.
fn processes() -> Vec<Process> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let process = |entry: std::fs::DirEntry| {
        let number: i32 = entry.file_name().to_str()?.parse().ok()?;
        let pid = Pid::from_raw(number).filter(|_| number != 1)?;
        let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
        let (name, state, parent) = of_stat(&stat)?;
        let is_of_kernel = number == 2 || parent == 2;
        let has_ended = state == 'Z' || state == 'X';
        let about = format!("{name} (process {number}, state {state})");
        (!is_of_kernel && !has_ended).then_some(Process { pid, about })
    };
    entries.filter_map(process).collect()
}

/// Name, state and parent. Linux Documentation/filesystems/proc.rst, table 1-4
fn of_stat(stat: &str) -> Option<(&str, char, i32)> {
    let (start, rest) = stat.rsplit_once(')')?;
    let name = start.split_once('(')?.1;
    let mut fields = rest.split_whitespace();
    let state = fields.next()?.chars().next()?;
    let parent = fields.next()?.parse().ok()?;
    Some((name, state, parent))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_may_have_any_name() {
        let stat = "31 (a) Z (b) D 7 1 1 0 -1 4194560";
        assert_eq!(of_stat(stat), Some(("a) Z (b", 'D', 7)));
        assert_eq!(of_stat("31 a D"), None);
    }
}
