//! What a kernel says on its console: all of it, in order, and which of it is worrying.

use std::io::{BufRead, BufReader, Read};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Beginnings of what a kernel says when something is wrong with it, after the time of a line.
const FAULTS: &[&str] = &[
    "BUG:",
    "BUG ",
    "INFO: rcu",
    "INFO: task ",
    "Internal error",
    "KASAN:",
    "Kernel panic",
    "Oops",
    "UBSAN:",
    "Unable to handle kernel",
    "WARNING: ",
    "general protection fault",
    "kernel BUG at",
    "list_add corruption",
    "list_del corruption",
    "rcu: INFO:",
    "refcount_t:",
    "watchdog: BUG",
];

/// Everything that was said so far; a thread adds to it.
#[derive(Clone, Default)]
pub(super) struct KernelLog {
    inner: Arc<(Mutex<Lines>, Condvar)>,
}

#[derive(Default)]
struct Lines {
    lines: Vec<String>,
    is_over: bool,
}

impl KernelLog {
    /// Collects lines from `console` until its end.
    pub(super) fn collect(console: impl Read + Send + 'static) -> Self {
        let log = Self::default();
        let ours = log.clone();
        std::thread::spawn(move || {
            let mut console = BufReader::new(console);
            let mut bytes = Vec::new();
            while console.read_until(b'\n', &mut bytes).is_ok_and(|count| count > 0) {
                ours.change(|lines| {
                    lines.lines.push(String::from_utf8_lossy(&bytes).trim_end().to_owned());
                });
                bytes.clear();
            }
            ours.change(|lines| lines.is_over = true);
        });
        log
    }

    fn change(&self, change: impl FnOnce(&mut Lines)) {
        change(&mut self.inner.0.lock().unwrap_or_else(PoisonError::into_inner));
        self.inner.1.notify_all();
    }

    /// Waits until `mark` was said, the console ends or `limit` is over.
    pub(super) fn wait_for(&self, mark: &str, limit: Duration) {
        let lines = self.inner.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Whatever ended it, what is there is what can be had.
        let _ = self.inner.1.wait_timeout_while(lines, limit, |lines| {
            !lines.is_over && !lines.lines.iter().rev().any(|line| line.contains(mark))
        });
    }

    /// The lines from number `first` on.
    pub(super) fn since(&self, first: usize) -> Vec<String> {
        let lines = self.inner.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.lines.get(first..).unwrap_or_default().to_vec()
    }
}

/// The first line that tells of something wrong with the kernel, without its time.
pub(super) fn fault(lines: &[String]) -> Option<&str> {
    let mut said = lines.iter().map(|line| without_time(line));
    said.find(|line| FAULTS.iter().any(|fault| line.starts_with(fault)))
}

/// A line without `[    0.123456] `, and without the level that a line written from outside has.
fn without_time(line: &str) -> &str {
    let after = line.strip_prefix('[').and_then(|rest| rest.split_once(']'));
    after.map_or(line, |(_, rest)| rest).trim_start()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault_in(line: &str) -> bool {
        fault(&["fine".to_owned(), line.to_owned()]).is_some()
    }

    #[test]
    fn faults_are_told_from_what_only_sounds_like_them() {
        for line in [
            "WARNING: CPU: 0 PID: 12 at drivers/nvme/host/tcp.c:400 a+0x1/0x2",
            "[    1.200000] BUG: unable to handle page fault for address: 0",
            "[  242.1] INFO: task fio:31 blocked for more than 120 seconds.",
            "Kernel panic - not syncing: Attempted to kill init!",
            "[    3.0] Oops: general protection fault",
        ] {
            assert!(fault_in(line), "{line}");
        }
        for line in [
            "nvme nvme0: new ctrl: NQN \"nqn.BUG:\"",
            "Checking for WARNING: none",
            "[    0.1] Debug: WARNINGs are shown",
        ] {
            assert!(!fault_in(line), "{line}");
        }
    }

    #[test]
    fn what_is_said_after_a_line_is_had_by_waiting_for_a_mark() {
        let log = KernelLog::collect(&b"boot\none\r\nmark 1\nlater\n"[..]);
        log.wait_for("mark 1", Duration::from_secs(60));
        assert_eq!(log.since(1)[..2], ["one", "mark 1"]);
        log.wait_for("never said", Duration::from_secs(60));
        assert_eq!(log.since(0).len(), 4);
        assert!(log.since(9).is_empty());
    }
}
