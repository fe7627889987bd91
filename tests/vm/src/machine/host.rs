//! How cases run on the kernel of this machine: processes and mounts of their own, its drivers and
//! network.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use crate::guest;

/// The command: its standard input and output are the line, its standard error the kernel's log.
pub(super) fn command(init: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL"]).process_group(0);
    // It is the first process there, at whose end all others end.
    command.args(["unshare", "--pid", "--fork", "--kill-child", "--mount"]).arg(init);
    command.env_clear().env("HOME", "/run").env("PATH", guest::PATH);
    command.env(guest::LINE, guest::ON_HOST);
    command
}
