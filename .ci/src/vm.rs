//! `cargo xtask vm`: cases in kernels of their own, with what the kernels' peers are installed.
//!
//! The kernels, the cases and how they run are in `tests/vm`.

use std::path::{Path, PathBuf};

use clap::Args;

use crate::command::{Step, find_program};
use crate::test::target_folder;
use crate::{StepResult, debian_trees, report, system_packages};

/// Names the folder with the kernels, for the cases.
const KERNELS: &str = "FOREBAY_TEST_KERNELS";

/// Where kernels are looked for, from the workspace's root, when nobody says where they are.
const BESIDE: &str = "../shared/test-kernels";

/// What may be said after `cargo xtask vm`.
#[derive(Args)]
pub(crate) struct VmArguments {
    /// Only cases with this in their name, which is KERNEL::WHERE::WHAT.
    #[arg(long)]
    filter: Option<String>,
    /// Folder with kernels; else that of FOREBAY_TEST_KERNELS, or ../shared/test-kernels.
    #[arg(long)]
    kernels: Option<PathBuf>,
    /// Show what there is, and why what is skipped is, and run nothing.
    #[arg(long)]
    list: bool,
}

/// Builds the command and the cases, and runs these one machine after another.
///
/// # Errors
/// When there are no kernels, a program cannot be installed, a build fails or a case does.
pub(crate) fn run(root: &Path, arguments: &VmArguments) -> StepResult {
    let kernels = arguments.kernels.clone().or_else(|| kernels(root)).ok_or_else(|| {
        format!("no kernels: neither --kernels nor {KERNELS} names a folder, and {BESIDE} is none")
    })?;
    let all_there = system_packages::provide(root)?;
    Step::cargo("release build", root, &["build", "--release", "--bin", "forebay"]).run()?;
    let mut words = Vec::new();
    words.extend(arguments.filter.clone());
    words.extend(arguments.list.then(|| "--list".to_owned()));
    let test = ["test", "--quiet", "--package", "forebay-vm", "--test", "kernels", "--"];
    let step = Step::cargo("cases in kernels", root, &test)
        .arguments(&words)
        .environment("FOREBAY_REQUIRE_CLIENTS", if all_there { "1" } else { "0" })
        .environment(
            "FOREBAY_BINARY",
            &target_folder(root).join("release/forebay").to_string_lossy(),
        )
        .environment(KERNELS, &kernels.to_string_lossy());
    debian_trees::with_trees(root, step).run_last()
}

/// The folder with kernels, if this machine has one.
pub(crate) fn kernels(root: &Path) -> Option<PathBuf> {
    let named = std::env::var_os(KERNELS).filter(|folder| !folder.is_empty()).map(PathBuf::from);
    named.or_else(|| root.join(BESIDE).canonicalize().ok().filter(|folder| folder.is_dir()))
}

/// Has the tests find the kernels; says what is skipped where there are none.
pub(crate) fn with_kernels(root: &Path, step: Step) -> Step {
    let Some(folder) = kernels(root) else {
        report::note(&format!(
            "{KERNELS} names no folder; skipped: every case in a kernel of its own (tests/vm)"
        ));
        return step;
    };
    if find_program("setpriv").is_none() {
        report::note("`setpriv` is missing; cases in kernels fail (apt-get install util-linux)");
    }
    debian_trees::with_trees(root, step.environment(KERNELS, &folder.to_string_lossy()))
}
