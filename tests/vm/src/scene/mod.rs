//! What cases have in common: both ends of ours and of the kernel's, load that checks every byte,
//! and file systems. All of it panics when something is not as it should be: a case is a test.

pub mod debian;
pub mod file_system;
pub mod kernel_host;
pub mod load;
pub mod managed_target;
pub mod nvmet;
pub mod our_host;
pub mod our_target;
pub mod secret;
pub mod tls;

use std::path::Path;
use std::time::{Duration, Instant};

/// How long a kernel may take for what it is known to do. Generous: the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until `look` finds something: a kernel's files do not tell when they change.
///
/// # Panics
/// When it finds nothing in a minute.
#[track_caller]
pub fn eventually<Found>(what: &str, mut look: impl FnMut() -> Option<Found>) -> Found {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A file of the kernel's, without the line's end; none when it is not there or cannot be read.
pub fn attribute(path: impl AsRef<Path>) -> Option<String> {
    std::fs::read_to_string(path).ok().map(|text| text.trim_end().to_owned())
}

/// Writes a file of the kernel's.
///
/// # Panics
/// When the kernel does not take it.
#[track_caller]
pub fn set_attribute(path: impl AsRef<Path>, value: &str) {
    let path = path.as_ref();
    if let Err(error) = std::fs::write(path, value) {
        panic!("{}: `{value}`: {error}", path.display());
    }
}

/// The first two numbers of this kernel's version.
///
/// # Panics
/// When it has none.
pub fn kernel_version() -> (u32, u32) {
    let version = attribute("/proc/sys/kernel/osrelease").expect("the kernel has a version");
    let mut numbers = version.split(['.', '-']).map_while(|number| number.parse().ok());
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

/// What the kernel has said so far.
///
/// # Panics
/// When the kernel's log cannot be read.
pub fn kernel_log() -> String {
    use std::io::Read;
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = std::fs::OpenOptions::new();
    let options = options.read(true).custom_flags(rustix::fs::OFlags::NONBLOCK.bits() as i32);
    let mut file = options.open("/dev/kmsg").expect("the kernel's log");
    let (mut log, mut record) = (String::new(), [0; 8192]);
    loop {
        match file.read(&mut record) {
            Ok(length) => log.push_str(&String::from_utf8_lossy(&record[..length])),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return log,
            // Records were overwritten meanwhile; the next read goes on behind them.
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {}
            Err(error) => panic!("/dev/kmsg: {error}"),
        }
    }
}

/// A free TCP port of this machine.
///
/// # Panics
/// When there is none.
pub fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback");
    listener.local_addr().expect("bound").port()
}
