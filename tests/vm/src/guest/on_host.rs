//! What is different where the kernel is the starter's own: the line is standard input and output,
//! the kernel's log is asked for, and the root that is to be protected can be written to.

use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;

use rustix::mount::{MountFlags, MountPropagationFlags, mount_change, mount_remount};

/// Both directions of the line.
pub(super) fn line() -> std::io::Result<(File, BufReader<File>)> {
    let (input, output) = (std::io::stdin(), std::io::stdout());
    let reports = File::from(output.as_fd().try_clone_to_owned()?);
    let orders = File::from(input.as_fd().try_clone_to_owned()?);
    Ok((reports, BufReader::new(orders)))
}

/// Makes this process's view of the root read-only: cases expect that of a machine. What else is
/// mounted stays as it is.
///
/// # Errors
/// When the kernel refuses it.
pub(super) fn protect_root() -> Result<(), String> {
    let failed = |error| format!("protecting the root: {error}");
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private).map_err(failed)?;
    mount_remount("/", MountFlags::BIND | MountFlags::RDONLY, c"").map_err(failed)
}

/// Copies what the kernel says from now on to standard error, as a console would show it.
pub(super) fn follow_kernel_log() {
    std::thread::spawn(|| {
        let Ok(mut log) = File::open("/dev/kmsg") else { return };
        // A log that cannot be followed is noticed by whoever waits for a line of it.
        let _ = log.seek(SeekFrom::End(0));
        let mut record = [0; 8192];
        loop {
            let text = match log.read(&mut record) {
                Ok(length) => line_of(&String::from_utf8_lossy(&record[..length])),
                // Records were overwritten meanwhile; the next read goes on behind them.
                Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => continue,
                Err(_) => return,
            };
            if writeln!(std::io::stderr(), "{text}").is_err() {
                return;
            }
        }
    });
}

/// A console's line of a record, which has facts before a semicolon and, on further lines, about
/// the device. Linux Documentation/ABI/testing/dev-kmsg
fn line_of(record: &str) -> String {
    let (facts, text) = record.split_once(';').unwrap_or(("", record));
    let microseconds = facts.split(',').nth(2).and_then(|word| word.parse::<u64>().ok());
    let (seconds, rest) = microseconds.map_or((0, 0), |all| (all / 1_000_000, all % 1_000_000));
    let text = text.lines().next().unwrap_or_default();
    format!("[{seconds:5}.{rest:06}] {text}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_becomes_a_line() {
        let record = "4,1127,61012345,-;WARNING: a; b\n SUBSYSTEM=block\n";
        assert_eq!(line_of(record), "[   61.012345] WARNING: a; b");
    }
}
