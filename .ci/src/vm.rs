//! `cargo xtask vm`: cases in kernels of their own, with what the kernels' peers are installed.
//!
//! The kernels, the cases and how they run are in `tests/vm`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::Args;

use crate::command::{Step, find_program};
use crate::debian_kernels::Pins;
use crate::test::target_folder;
use crate::{StepResult, debian_trees, report, system_packages};

/// Names folders with kernels, and kernels, for the cases.
const KERNELS: &str = "FOREBAY_TEST_KERNELS";

/// Set to `1`, cases run on this machine's kernel too.
const ON_HOST: &str = "FOREBAY_VM_HOST";

/// Set to `1`, what takes long where it is emulated is left out there.
const QUICK: &str = "FOREBAY_VM_QUICK";

/// Where kernels for user mode are looked for, from the workspace's root, when nobody says where
/// they are.
const BESIDE: &str = "../shared/test-kernels";

/// The kernel of Debian's that is used where there are none for user mode.
const INSTEAD: &str = "debian-6.12";

/// The word for kernels for user mode, and the one for this machine's own.
const USER_MODE: &str = "user-mode";
const HOST: &str = "host";

/// What may be said after `cargo xtask vm`.
#[derive(Args)]
pub(crate) struct VmArguments {
    /// Only cases with this in their name, which is KERNEL::WHERE::WHAT.
    #[arg(long)]
    filter: Option<String>,
    /// Kinds of kernels, with commas: `user-mode` (in the folder that FOREBAY_TEST_KERNELS names,
    /// or ../shared/test-kernels), those of tests/vm/kernels.toml, which are fetched, and `host`,
    /// this machine's own, which its cases change. All but `host` where nothing is said.
    #[arg(long, value_delimiter = ',')]
    kernels: Vec<String>,
    /// Leave out what takes long where instructions are emulated, as `cargo xtask test` does.
    #[arg(long)]
    quick: bool,
    /// Show what there is, and why what is skipped is, and run nothing.
    #[arg(long)]
    list: bool,
}

/// Builds the command and the cases, and runs these one machine after another.
///
/// # Errors
/// When a kernel that was asked for cannot be had, a program cannot be installed, a build fails or
/// a case does.
pub(crate) fn run(root: &Path, arguments: &VmArguments) -> StepResult {
    let pins = Pins::read(root)?;
    check_names(&pins, &arguments.kernels)?;
    let all_there = system_packages::provide(root)?;
    let (kernels, on_host) = chosen(root, &pins, &arguments.kernels)?;
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
        .environment(KERNELS, &kernels.to_string_lossy())
        .environment(ON_HOST, if on_host { "1" } else { "0" })
        .environment(QUICK, if arguments.quick { "1" } else { "0" });
    debian_trees::with_trees(root, step).run_last()
}

fn check_names(pins: &Pins, names: &[String]) -> StepResult {
    let known: Vec<_> = [USER_MODE].into_iter().chain(pins.names()).chain([HOST]).collect();
    match names.iter().find(|name| !known.contains(&&***name)) {
        None => Ok(()),
        Some(name) => Err(format!("--kernels {name}: not one of {}", known.join(", "))),
    }
}

/// Where the kernels of these kinds are, and whether this machine's is one of them.
fn chosen(root: &Path, pins: &Pins, names: &[String]) -> Result<(OsString, bool), String> {
    let is_chosen = |name: &str| names.iter().any(|it| it == name);
    let mut places = Vec::new();
    match user_mode(root) {
        Some(place) if names.is_empty() || is_chosen(USER_MODE) => places.push(place),
        None if is_chosen(USER_MODE) => {
            let why = format!("{KERNELS} names no folder, and {BESIDE} is none");
            return Err(format!("--kernels {USER_MODE}: {why}"));
        }
        Some(_) | None => {}
    }
    for name in pins.names().filter(|name| names.is_empty() || is_chosen(name)) {
        places.push(pins.provide(root, name)?);
    }
    let places = std::env::join_paths(places).map_err(|error| error.to_string())?;
    Ok((places, is_chosen(HOST)))
}

/// The folder with kernels for user mode, if this machine has one.
fn user_mode(root: &Path) -> Option<PathBuf> {
    let named = std::env::var_os(KERNELS).filter(|folder| !folder.is_empty()).map(PathBuf::from);
    named.or_else(|| root.join(BESIDE).canonicalize().ok().filter(|folder| folder.is_dir()))
}

/// Has the tests find the quickest kernels that there are, or can be had; says what is skipped
/// where there are none.
pub(crate) fn with_kernels(root: &Path, step: Step) -> Step {
    if find_program("setpriv").is_none() {
        report::note("`setpriv` is missing; cases in kernels fail (apt-get install util-linux)");
    }
    let found = user_mode(root)
        .map_or_else(|| Pins::read(root).and_then(|pins| pins.provide(root, INSTEAD)), Ok);
    match found {
        Ok(place) => {
            let step = step.environment(KERNELS, &place.to_string_lossy()).environment(QUICK, "1");
            debian_trees::with_trees(root, step)
        }
        Err(error) => {
            report::note(&format!(
                "{KERNELS} names no folder, and {error}; skipped: every case in a kernel of its \
                 own (tests/vm)"
            ));
            step
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_of_kernel_that_is_unknown_is_told_with_those_that_are_known() {
        let pins = Pins::read(&crate::workspace_root()).unwrap();
        let names =
            |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        check_names(&pins, &names(&["user-mode", "debian-6.12", "debian-newest", "host"])).unwrap();
        let error = check_names(&pins, &names(&["host", "debian-5"])).unwrap_err();
        assert!(
            error.starts_with("--kernels debian-5: not one of user-mode, debian-6.12"),
            "{error}"
        );
    }
}
