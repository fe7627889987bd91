//! How user-mode Linux is started: an ordinary process whose root is this machine's, read-only.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use crate::guest;
use crate::kernel::Configuration;

/// Memory of a machine. It is taken only when it is used.
const MEMORY: &str = "768M";

/// The command: its standard input and output are the machine's serial line, its standard error
/// the console. `folder` is for what it leaves behind.
///
/// It is a process group, for such a kernel has a process of this machine for each of its own. And
/// it is killed when the thread ends that starts it, so that a machine that hangs does not outlive
/// a test runner that is killed.
pub(super) fn command(
    kernel: &Path,
    configuration: &Configuration,
    init: &Path,
    folder: &Path,
) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]).arg(kernel).process_group(0);
    // Read-only: as root, what is written there would be written to this machine's own files.
    command.args(["rootfstype=hostfs", "rootflags=/", "ro"]);
    command.arg(format!("mem={MEMORY}"));
    if configuration.has("SMP") {
        // The kernels that know several processors are also the ones that know this way of system
        // calls, without which they have one.
        command.args(["seccomp=on", "ncpus=2"]);
    }
    command.args(["con=null", "con0=null,fd:2", "ssl=null", "ssl0=fd:0,fd:1"]);
    command.arg(format!("init={}", init.display()));
    command.arg(format!("uml_dir={}", folder.display()));
    // What the kernel does not know becomes the first process's environment.
    command.arg(format!("{}=/dev/ttyS0", guest::LINE));
    command.env_clear().env("HOME", folder).env("PATH", guest::PATH);
    command
}

/// Whether a machine's processes were stopped and let go on from outside. A kernel that follows its
/// processes with ptrace takes the signal for theirs, and ends them.
/// Linux arch/um/os-Linux/skas/process.c, `userspace`
pub(super) fn was_disturbed(kernel_log: &[String]) -> bool {
    let words = ["18", "19"].map(|signal| format!("child stopped with signal {signal}"));
    kernel_log.iter().any(|line| words.iter().any(|word| line.ends_with(word)))
}
