//! Cases as tests that a test runner lists, counts and runs: each case once per kernel.
//!
//! ```text
//!   kernels × cases ──▶ trials ──▶ what is missing? ──▶ ignored, with the reason in its name
//!                                        └─ nothing ──▶ an idle machine, or a new one ──▶ run
//! ```
//! Under nextest each trial is a process and boots a machine; under `cargo test` machines go from
//! case to case.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use forebay_tests::program::{self, Program};
use forebay_tests::server::BINARY;
use libtest_mimic::{Failed, Trial};

use crate::case::{Case, Need, module_of};
use crate::guest;
use crate::kernel::{self, Kernel, Kind, Missing};
use crate::machine::{Machine, Outcome, qemu};
use crate::message::Module;
use crate::scene::debian::TREES;

/// Lines of the kernel's log that a failure shows.
const LOG_LINES_SHOWN: usize = 60;

/// How often a case is run whose machine was stopped from outside.
const TRIES_MAX: u32 = 4;

/// Set to `1`, most cases are left out where instructions are emulated.
const QUICK: &str = "FOREBAY_VM_QUICK";

/// One machine at a time is emulated: it takes all processors.
static EMULATED: Mutex<()> = Mutex::new(());

/// Machines that wait for a case, by kernel.
pub(crate) type Pool = Arc<Mutex<BTreeMap<String, Vec<Machine>>>>;

/// Every case on every kernel.
pub(crate) fn all(cases: &'static [Case], pool: &Pool) -> Vec<Trial> {
    let kernels = match kernel::find() {
        Ok(kernels) => kernels,
        Err(Missing::NotAskedFor(reason)) => {
            let skipped = |case: &Case| skipped(&format!("no kernel::{}", case.name), &reason);
            return cases.iter().map(skipped).collect();
        }
        Err(Missing::Unusable(reason)) => {
            return vec![Trial::test("kernels are found", move || Err(Failed::from(reason)))];
        }
    };
    let is_quick = std::env::var_os(QUICK).is_some_and(|value| value == "1");
    let mut trials = Vec::new();
    for kernel in kernels.into_iter().map(Arc::new) {
        for case in cases {
            let name = format!("{}::{}", kernel.name, case.name);
            let missing = lack(case, &kernel, is_quick);
            trials.push(match missing {
                Some(Lack { reason, is_failure: false }) => skipped(&name, &reason),
                Some(Lack { reason, is_failure: true }) => {
                    Trial::test(name, move || Err(Failed::from(reason)))
                }
                None => {
                    let (kernel, pool) = (Arc::clone(&kernel), Arc::clone(pool));
                    Trial::test(name, move || run(&kernel, case, &pool))
                }
            });
        }
    }
    trials
}

/// A test that is never run, and why: the runner shows the kind before the name.
fn skipped(name: &str, reason: &str) -> Trial {
    Trial::test(name, || Ok(())).with_ignored_flag(true).with_kind(format!("skipped: {reason}"))
}

/// What a case lacks.
struct Lack {
    reason: String,
    /// Whether it should have been there.
    is_failure: bool,
}

/// What keeps a case from being run in a kernel.
fn lack(case: &Case, kernel: &Kernel, is_quick: bool) -> Option<Lack> {
    match kernel.is_emulated() {
        Err(reason) => return Some(Lack { reason, is_failure: true }),
        Ok(is_emulated) if is_emulated && is_quick && !case.is_quick => {
            let reason = "takes long where it is emulated; cargo xtask vm runs it".to_owned();
            return Some(Lack { reason, is_failure: false });
        }
        Ok(_) => {}
    }
    let programs = match kernel.kind {
        Kind::UserMode(_) => &[][..],
        Kind::Host => &[MODPROBE],
        Kind::Debian(_) => &[MODPROBE, QEMU],
    };
    programs.iter().chain(case.needs).find_map(|need| missing(*need, kernel))
}

/// What loads drivers.
const MODPROBE: Need = Need::Program { name: "modprobe", package: "kmod" };
/// What Debian's kernels run under.
const QEMU: Need = Need::Program { name: qemu::PROGRAM, package: "qemu-system-x86" };

fn missing(need: Need, kernel: &Kernel) -> Option<Lack> {
    match need {
        Need::Kernel(option) if kernel.configuration.has(option) => None,
        Need::Kernel(option) => {
            Some(Lack { reason: format!("built without CONFIG_{option}"), is_failure: false })
        }
        Need::KernelSince(major, minor) => {
            let reason = format!("needs Linux {major}.{minor} or later");
            let is_there = kernel.configuration.is_since(major, minor);
            (!is_there).then_some(Lack { reason, is_failure: false })
        }
        Need::Program { name, package } => Program::is_installed(name).then_some(()).map_or_else(
            || {
                let reason = format!("{name} is not installed (Debian package {package})");
                Some(Lack { reason, is_failure: program::is_required() })
            },
            |()| None,
        ),
        // Never a failure: it takes a network to have them, and `cargo xtask` says what it lacked.
        Need::Debian { release, program } => {
            let lack = |reason| Lack { reason, is_failure: false };
            release.command(program).err().map(lack)
        }
        Need::Forebay => {
            let is_there = std::env::var_os(BINARY).is_some_and(|path| Path::new(&path).is_file());
            let reason = format!("{BINARY} names no program (cargo xtask vm sets it)");
            (!is_there).then_some(Lack { reason, is_failure: program::is_required() })
        }
        Need::OwnSpeed => kernel.is_emulated().is_ok_and(|is_emulated| is_emulated).then(|| Lack {
            reason: "judges by time, and is emulated".to_owned(),
            is_failure: false,
        }),
        Need::OwnKernel => (!kernel.is_expendable()).then(|| Lack {
            reason: "could kill this machine's kernel".to_owned(),
            is_failure: false,
        }),
    }
}

fn run(kernel: &Kernel, case: &Case, pool: &Pool) -> Result<(), Failed> {
    for _ in 1..TRIES_MAX {
        let outcome = run_once(kernel, case, pool)?;
        if !outcome.was_disturbed {
            return judge(case, &outcome);
        }
        let name = &kernel.name;
        program::say(&format!(
            "{name}::{}: its machine was stopped from outside; again",
            case.name
        ));
    }
    judge(case, &run_once(kernel, case, pool)?)
}

fn run_once(kernel: &Kernel, case: &Case, pool: &Pool) -> Result<Outcome, Failed> {
    // Held to the end of the case.
    let _turn =
        kernel.is_emulated()?.then(|| EMULATED.lock().unwrap_or_else(PoisonError::into_inner));
    let lock = || pool.lock().unwrap_or_else(PoisonError::into_inner);
    let idle = lock().get_mut(&kernel.name).and_then(Vec::pop);
    let mut machine = match idle {
        Some(machine) => machine,
        None => {
            if kernel.is_emulated()? {
                // Other kernels' machines that are emulated keep their turn until they are gone.
                lock().clear();
            }
            Machine::boot(kernel)?
        }
    };
    let outcome = machine.run(case, modules(case, kernel), environment());
    if outcome.is_reusable {
        lock().entry(kernel.name.clone()).or_default().push(machine);
    }
    Ok(outcome)
}

/// What has to be loaded for a case.
fn modules(case: &Case, kernel: &Kernel) -> Vec<Module> {
    let needed = case.needs.iter().filter_map(|need| match need {
        Need::Kernel(option) if kernel.configuration.is_module(option) => module_of(option),
        _ => None,
    });
    needed.map(|words| words.iter().map(|word| (*word).to_owned()).collect()).collect()
}

fn judge(case: &Case, outcome: &Outcome) -> Result<(), Failed> {
    let told = || {
        let log = &outcome.kernel_log;
        let log = &log[log.len().saturating_sub(LOG_LINES_SHOWN)..];
        let (output, log) = (outcome.output.join("\n  "), log.join("\n  "));
        format!("the case wrote:\n  {output}\nthe kernel said:\n  {log}")
    };
    match (&outcome.failure, case.must_fail_with) {
        (None, None) => Ok(()),
        (Some(failure), None) => Err(format!("{failure}\n{}", told()).into()),
        (None, Some(text)) => Err(format!("passed, not failed with `{text}`\n{}", told()).into()),
        (Some(failure), Some(text)) => {
            let everything = format!("{failure}\n{}", told());
            let is_found = everything.contains(text);
            is_found.then_some(()).ok_or_else(|| format!("not `{text}`: {everything}").into())
        }
    }
}

/// Variables for the case: where the command and other programs are, as seen from inside.
fn environment() -> Vec<(String, String)> {
    let inside = |path: String| guest::inside(Path::new(&path)).display().to_string();
    let variable = |name: &str| Some((name.to_owned(), inside(std::env::var(name).ok()?)));
    [BINARY, TREES].into_iter().filter_map(variable).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::Configuration;
    use crate::scene::debian::Release;

    fn kernel(configuration: &str) -> Kernel {
        let configuration = Configuration::of_text(configuration);
        let kind = Kind::UserMode("/linux-1.uml".into());
        Kernel { name: "linux-1".to_owned(), kind, configuration }
    }

    #[test]
    fn a_case_that_may_kill_its_kernel_is_not_run_in_this_machines() {
        assert!(missing(Need::OwnKernel, &kernel("")).is_none());
        let host = Kernel { kind: Kind::Host, ..kernel("") };
        assert!(missing(Need::OwnKernel, &host).is_some_and(|lack| !lack.is_failure));
    }

    #[test]
    fn a_quick_run_leaves_nothing_out_where_nothing_is_emulated() {
        let case = Case::new("a", || ());
        assert!(lack(&case, &kernel(""), true).is_none());
        let case = case.needs(&[crate::case::KERNEL_HOST]);
        let lack = lack(&case, &kernel(""), false).unwrap();
        assert_eq!(lack.reason, "built without CONFIG_NVME_TCP");
    }

    #[test]
    fn drivers_are_loaded_where_they_are_modules() {
        let case = Case::new("a", || ()).needs(&[crate::case::KERNEL_HOST, crate::case::RAM_DISK]);
        assert!(modules(&case, &kernel("CONFIG_NVME_TCP=y\nCONFIG_BLK_DEV_RAM=y")).is_empty());
        let loaded = modules(&case, &kernel("CONFIG_NVME_TCP=m\nCONFIG_BLK_DEV_RAM=m"));
        assert_eq!(loaded[0], ["nvme_tcp"]);
        assert_eq!(loaded[1][0], "brd");
    }

    #[test]
    fn what_a_kernel_was_built_without_is_named() {
        let need = Need::Kernel("NVME_TCP");
        assert!(missing(need, &kernel("CONFIG_NVME_TCP=m")).is_none());
        let lack = missing(need, &kernel("CONFIG_NVME_TCP_TLS=y")).unwrap();
        assert_eq!(lack.reason, "built without CONFIG_NVME_TCP");
        assert!(!lack.is_failure, "no kernel has everything");
    }

    #[test]
    fn what_is_not_installed_is_named_with_its_package() {
        let there = Need::Program { name: "sh", package: "dash" };
        assert!(missing(there, &kernel("")).is_none());
        let absent = Need::Program { name: "no-such-program", package: "none" };
        let lack = missing(absent, &kernel("")).unwrap();
        assert_eq!(lack.reason, "no-such-program is not installed (Debian package none)");
        assert_eq!(lack.is_failure, program::is_required());
    }

    #[test]
    fn what_is_not_unpacked_is_skipped_by_name() {
        let need = Need::Debian { release: Release::Trixie, program: "no-such-program" };
        let lack = missing(need, &kernel("")).unwrap();
        assert!(lack.reason.starts_with(TREES), "{}", lack.reason);
        assert!(!lack.is_failure, "not every machine has a network");
    }

    #[test]
    fn a_case_that_must_fail_fails_when_it_passes_or_fails_otherwise() {
        let outcome = |failure: Option<&str>| Outcome {
            failure: failure.map(str::to_owned),
            output: Vec::new(),
            kernel_log: Vec::new(),
            is_reusable: false,
            was_disturbed: false,
        };
        let case = Case::new("a", || ());
        assert!(judge(&case, &outcome(None)).is_ok());
        assert!(judge(&case, &outcome(Some("why"))).is_err());
        let case = case.must_fail_with("why");
        assert!(judge(&case, &outcome(Some("that is why"))).is_ok());
        assert!(judge(&case, &outcome(Some("how"))).is_err());
        assert!(judge(&case, &outcome(None)).is_err());
    }
}
