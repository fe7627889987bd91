//! What runs inside a kernel: a function, what it needs there, and how long it may take.
//!
//! A case is an ordinary function of the test program. It has failed when it panics, when the
//! kernel says something worrying meanwhile, when it leaves a process that cannot be ended, or when
//! its time is over.

use std::time::Duration;

use crate::scene::debian::Release;

/// How long a case may take where it says nothing else. Generous: the machine may be busy.
pub const LIMIT: Duration = Duration::from_secs(180);

/// A case.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// What it shows, as a path: `kernel_host::reads_what_it_wrote`.
    pub name: &'static str,
    /// Without any of which it is skipped, by name.
    pub needs: &'static [Need],
    /// How long it may take.
    pub limit: Duration,
    /// Whether it is part of a quick run where instructions are emulated.
    pub is_quick: bool,
    /// What its failure must say; where it is given, a case that passes has failed.
    pub must_fail_with: Option<&'static str>,
    /// The case itself.
    pub run: fn(),
}

impl Case {
    /// A case that needs nothing and may take [`LIMIT`].
    pub const fn new(name: &'static str, run: fn()) -> Self {
        let (needs, must_fail_with) = (&[], None);
        Self { name, needs, limit: LIMIT, is_quick: false, must_fail_with, run }
    }

    /// The same, skipped where one of `needs` is missing.
    pub const fn needs(self, needs: &'static [Need]) -> Self {
        Self { needs, ..self }
    }

    /// The same with another time limit.
    pub const fn limit(self, limit: Duration) -> Self {
        Self { limit, ..self }
    }

    /// The same, part of quick runs where instructions are emulated too: it computes little, and
    /// others show less. All of these have five minutes of two processors, with a boot for each.
    pub const fn quick(self) -> Self {
        Self { is_quick: true, ..self }
    }

    /// The same, expected to fail with a reason that has `text` in it: how the harness itself is
    /// tested.
    pub const fn must_fail_with(self, text: &'static str) -> Self {
        Self { must_fail_with: Some(text), ..self }
    }
}

/// What a case cannot do without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// An option of the kernel's configuration, without `CONFIG_`, built in or as a module.
    Kernel(&'static str),
    /// A kernel of this version, or a later one.
    KernelSince(u32, u32),
    /// A program that is installed.
    Program {
        /// What is started.
        name: &'static str,
        /// The Debian package it is in.
        package: &'static str,
    },
    /// The `forebay` command.
    Forebay,
    /// A kernel that may be killed, or left with what only its end takes away: not this machine's.
    OwnKernel,
    /// Instructions that run as fast as this machine does: somebody in it judges by time.
    OwnSpeed,
    /// A program of another Debian release than this machine's.
    Debian {
        /// The release.
        release: Release,
        /// What is started.
        program: &'static str,
    },
}

/// What is loaded for an option of [`Need::Kernel`] that is built as a module, with its parameters:
/// drivers that are not looked for by what they do, but by a file that is there once they are.
pub(crate) fn module_of(option: &str) -> Option<&'static [&'static str]> {
    Some(match option {
        "BCACHE" => &["bcache"],
        "BLK_DEV_DM" => &["dm_mod"],
        "BLK_DEV_LOOP" => &["loop"],
        "BLK_DEV_NBD" => &["nbd"],
        // One, as large as the cases' own kernels have them.
        "BLK_DEV_RAM" => &["brd", "rd_nr=1", "rd_size=262144"],
        "BLK_DEV_UBLK" => &["ublk_drv"],
        "FUSE_FS" => &["fuse"],
        "NVME_TARGET_LOOP" => &["nvme_loop"],
        "NVME_TARGET_TCP" => &["nvmet_tcp"],
        "NVME_TCP" => &["nvme_tcp"],
        "TLS" => &["tls"],
        _ => return None,
    })
}

/// The kernel's NVMe/TCP host.
pub const KERNEL_HOST: Need = Need::Kernel("NVME_TCP");
/// The kernel's NVMe/TCP target.
pub const KERNEL_TARGET: Need = Need::Kernel("NVME_TARGET_TCP");
/// DH-HMAC-CHAP in the kernel's host.
pub const HOST_AUTHENTICATION: Need = Need::Kernel("NVME_HOST_AUTH");
/// DH-HMAC-CHAP in the kernel's target.
pub const TARGET_AUTHENTICATION: Need = Need::Kernel("NVME_TARGET_AUTH");
/// RAM disks.
pub const RAM_DISK: Need = Need::Kernel("BLK_DEV_RAM");
/// nvme-cli.
pub const NVME_CLI: Need = Need::Program { name: "nvme", package: "nvme-cli" };
/// fio.
pub const FIO: Need = Need::Program { name: "fio", package: "fio" };
/// TLS in the kernel's host, and who makes its handshakes.
pub const HOST_TLS: [Need; 6] = tls("NVME_TCP_TLS");
/// TLS in the kernel's target, and who makes its handshakes.
pub const TARGET_TLS: [Need; 6] = tls("NVME_TARGET_TCP_TLS");

/// Stable's `tlshd` is for the older kernels.
const fn tls(option: &'static str) -> [Need; 6] {
    [
        Need::Kernel(option),
        Need::Debian { release: Release::Trixie, program: "tlshd" },
        Need::Debian { release: Release::Trixie, program: "nvme" },
        Need::Debian { release: Release::Forky, program: "tlshd" },
        Need::Debian { release: Release::Forky, program: "nvme" },
        Need::Debian { release: Release::Forky, program: "keyctl" },
    ]
}
