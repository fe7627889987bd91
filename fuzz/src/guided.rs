//! The targets under libFuzzer, which mutates towards code that no input has reached yet.
//!
//! `FOREBAY_FUZZ_TARGET` names the target, `FOREBAY_FUZZ_CORPUS` the folder that its seeds are put
//! into before libFuzzer reads it; `cargo xtask fuzz --guided SECONDS TARGET` sets both. Built
//! without libFuzzer it says so. Absent: forks and sanitizers; the code is safe Rust but for the
//! buffers.
#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
mod guided {
    use std::path::Path;
    use std::sync::OnceLock;

    use forebay_fuzz::{TARGETS, Target};

    static CHOSEN: OnceLock<&Target> = OnceLock::new();

    fn chosen() -> &'static Target {
        CHOSEN.get_or_init(|| {
            let name = std::env::var("FOREBAY_FUZZ_TARGET").unwrap_or_default();
            let found = TARGETS.iter().find(|target| target.name == name);
            found.unwrap_or_else(|| panic!("FOREBAY_FUZZ_TARGET: there is no target `{name}`"))
        })
    }

    fn begin() {
        let Ok(folder) = std::env::var("FOREBAY_FUZZ_CORPUS") else { return };
        for (number, seed) in (chosen().seeds)().into_iter().enumerate() {
            let path = Path::new(&folder).join(format!("seed-{number:04}"));
            std::fs::write(&path, seed)
                .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        }
    }

    libfuzzer_sys::fuzz_target!(init: begin(), |input: &[u8]| {
        (chosen().run)(input);
    });
}

#[cfg(not(fuzzing))]
#[allow(clippy::print_stderr, reason = "it is all that this program does")]
fn main() -> std::process::ExitCode {
    eprintln!("built without libFuzzer: `cargo xtask fuzz --guided SECONDS TARGET` builds it with");
    std::process::ExitCode::FAILURE
}
