//! The programs of other people that tests and benchmarks drive, and the Debian packages they
//! come in. Installs what is missing when it may (root, and apt-get is there); otherwise says by
//! name what is missing and what is left out because of it.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::command::{Step, find_program};
use crate::{StepResult, report};

/// A program that tests start.
pub(crate) struct Tool {
    /// What is started.
    pub(crate) program: &'static str,
    /// The Debian package it is in.
    pub(crate) package: &'static str,
    /// What is not tested without it.
    pub(crate) tests: &'static str,
}

/// Every program that the tests start.
pub(crate) const TOOLS: &[Tool] = &[
    Tool { program: "nbdinfo", package: "libnbd-bin", tests: "NBD negotiation with libnbd" },
    Tool { program: "nbdcopy", package: "libnbd-bin", tests: "NBD copies in and out" },
    Tool { program: "nbdkit", package: "nbdkit", tests: "the nbd benchmark's other side" },
    Tool { program: "qemu-img", package: "qemu-utils", tests: "NBD convert and compare with QEMU" },
    Tool { program: "qemu-io", package: "qemu-utils", tests: "NBD patterns with QEMU" },
    Tool { program: "fio", package: "fio", tests: "verified load over NBD with fio" },
    Tool { program: "mke2fs", package: "e2fsprogs", tests: "an ext4 image through the cache" },
    Tool { program: "valgrind", package: "valgrind", tests: "instructions of a request" },
    Tool { program: "e2fsck", package: "e2fsprogs", tests: "an ext4 image through the cache" },
    Tool { program: "mkfs.ext4", package: "e2fsprogs", tests: "ext4 on a kernel's block device" },
    Tool { program: "mkfs.xfs", package: "xfsprogs", tests: "XFS on a kernel's block device" },
    Tool { program: "xfs_repair", package: "xfsprogs", tests: "XFS on a kernel's block device" },
    Tool {
        program: "qemu-system-x86_64",
        package: "qemu-system-x86",
        tests: "cases in Debian's kernels",
    },
    Tool { program: "modprobe", package: "kmod", tests: "cases in Debian's kernels" },
    Tool { program: "curl", package: "curl", tests: "cases in Debian's kernels, fetched" },
    Tool { program: "nvme", package: "nvme-cli", tests: "the kernel's NVMe/TCP host, asked" },
];

/// Installs what is missing if it may, and reports what is missing still. `true` when every
/// program is there.
///
/// # Errors
/// When apt-get was run and failed.
pub(crate) fn provide(root: &Path) -> Result<bool, String> {
    let packages = packages_of(&missing(|program| find_program(program).is_some()));
    if !packages.is_empty() && may_install() {
        install(root, &packages)?;
    }
    let missing = missing(|program| find_program(program).is_some());
    for tool in &missing {
        report::note(&format!(
            "`{}` is missing; its tests are skipped: {} (apt-get install {})",
            tool.program, tool.tests, tool.package
        ));
    }
    Ok(missing.is_empty())
}

/// The tools that `is_there` denies.
fn missing(is_there: impl Fn(&str) -> bool) -> Vec<&'static Tool> {
    TOOLS.iter().filter(|tool| !is_there(tool.program)).collect()
}

/// Their packages, each once.
fn packages_of(tools: &[&Tool]) -> Vec<&'static str> {
    let mut packages: Vec<_> = tools.iter().map(|tool| tool.package).collect();
    packages.sort_unstable();
    packages.dedup();
    packages
}

fn may_install() -> bool {
    // The owner of /proc/self is this process's effective user.
    let is_root = std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0);
    is_root && find_program("apt-get").is_some()
}

fn install(root: &Path, packages: &[&str]) -> StepResult {
    Step::new("package lists", root, "apt-get", &["-q", "update"]).run()?;
    let mut arguments = vec!["-q", "install", "--yes", "--no-install-recommends"];
    arguments.extend(packages);
    Step::new("system packages", root, "apt-get", &arguments)
        .environment("DEBIAN_FRONTEND", "noninteractive")
        .run()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_of_two_missing_programs_is_installed_once() {
        let tools = missing(|program| !program.starts_with("qemu") && program != "fio");
        assert_eq!(tools.len(), 4);
        assert_eq!(packages_of(&tools), ["fio", "qemu-system-x86", "qemu-utils"]);
        assert!(missing(|_| true).is_empty());
    }
}
