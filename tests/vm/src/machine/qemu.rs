//! How a kernel of Debian's is started: under QEMU, with this machine's root beside a small one
//! that mounts it.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use super::initramfs;
use crate::guest::{self, early};
use crate::kernel::Debian;
use crate::kernel::debian::Accelerator;

/// The program.
pub(crate) const PROGRAM: &str = "qemu-system-x86_64";

/// Memory of a machine. It is taken only when it is used.
const MEMORY: &str = "1536M";

/// What the kernel is told however it is run: one line of everything that is said, no waiting for
/// chance, and an end where it cannot go on.
const PARAMETERS: &str = "console=ttyS0 panic=-1 printk.devkmsg=on random.trust_cpu=on nokaslr \
    mitigations=off";

/// What else where it is emulated: it is not to judge by time, of which ten times as much passes
/// as elsewhere, and more when the machine is busy. Otherwise it calls itself stuck, or gives up a
/// peer that computes a secret. A task that waits two minutes is still told of.
const PARAMETERS_EMULATED: &str = "tsc=reliable no_timer_check nosoftlockup \
    rcupdate.rcu_cpu_stall_suppress=1 cryptomgr.notests nvme_core.admin_timeout=300";

/// The command: its standard input and output are the machine's line, its standard error the
/// console. `folder` is for what it is started from.
///
/// # Errors
/// When the small root cannot be made.
pub(super) fn command(kernel: &Debian, init: &Path, folder: &Path) -> Result<Command, String> {
    let accelerator = Accelerator::choose()?;
    let root = folder.join("initramfs");
    initramfs::write(&root, init, kernel)?;
    // Like a machine of user-mode Linux it does not outlive a runner that is killed.
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", PROGRAM]).process_group(0);
    command.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
    command.args(["-machine", "q35", "-cpu", "max", "-smp", "2", "-m", MEMORY]);
    command.args(match accelerator {
        Accelerator::Kvm => ["-accel", "kvm"],
        Accelerator::Emulation => ["-accel", "tcg,thread=multi"],
    });
    command.args(["-device", "virtio-rng-pci", "-device", "virtio-serial-pci"]);
    command.args(["-chardev", "stdio,id=line,signal=off"]);
    command.args(["-device", "virtserialport,chardev=line,name=forebay"]);
    command.args(["-chardev", "file,id=console,path=/dev/stderr", "-serial", "chardev:console"]);
    // Read-only, whoever is root there.
    command
        .args(["-fsdev", "local,id=root,path=/,security_model=none,readonly=on,multidevs=remap"]);
    command.arg("-device").arg(format!("virtio-9p-pci,fsdev=root,mount_tag={}", early::TAG));
    command.arg("-kernel").arg(kernel.image()).arg("-initrd").arg(root);
    let emulated = match accelerator {
        Accelerator::Kvm => "",
        Accelerator::Emulation => PARAMETERS_EMULATED,
    };
    // What the kernel does not know becomes the first process's environment.
    let environment = format!(
        "{}={} {}={} {}=virtio:forebay",
        early::PROGRAM,
        init.display(),
        early::MODULES,
        kernel.modules.display(),
        guest::LINE,
    );
    command.arg("-append").arg(format!("{PARAMETERS} {emulated} rdinit=/init {environment}"));
    command.env_clear().env("HOME", folder).env("PATH", guest::PATH);
    Ok(command)
}

/// Waits until no other machine is emulated beside the same kernels: each takes all processors
/// there are. It is one's turn until the file is closed.
///
/// # Errors
/// When the folder cannot be opened.
pub(super) fn wait_for_turn(kernel: &Debian) -> Result<File, String> {
    // …/NAME/lib/modules/VERSION
    let folder = kernel.modules.ancestors().nth(4).unwrap_or(&kernel.modules);
    let failed = |error: std::io::Error| format!("{}: {error}", folder.display());
    let file = File::open(folder).map_err(failed)?;
    rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive)
        .map_err(|error| failed(error.into()))?;
    Ok(file)
}
